"""What people and other machines see of the gateway: pages, control socket, alerts, headquarters.

It comes after the first polls: the libraries of web and cryptography take longer to load than everything before.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from ..serving.listen import Limits, serving
from ..serving.live import Hub
from ..serving.secrets import Secrets
from ..serving.web import add_pages, make_app
from ..sync.history import History
from ..sync.keys import load_or_create_key
from ..sync.uplink import UplinkOptions, run_uplink
from .alerts.outbox import Outbox
from .control import SOCKET, Control
from .pages.api import Pages, Parts
from .reloading import Reloader
from .running import Running
from .site import Site

DIST = Path(__file__).resolve().parent.parent / "web" / "dist"
_PER_ADDRESS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Back:
    """What the front stands on. `listening`: bound to the pages' address."""

    data: Path
    history: History
    running: Running
    reloader: Reloader
    listening: socket.socket


@asynccontextmanager
async def front(back: Back) -> AsyncIterator[None]:
    """Everything is reachable inside the block; loops that it needs run in `back.running.loops`.

    Raises:
        PermanentError: a key or secrets file cannot be used.
    """
    running, journal = back.running, back.running.journal
    current, loops, health = running.current, running.loops, running.health
    async with AsyncExitStack() as stack:
        key = await asyncio.to_thread(load_or_create_key, back.data / "gateway.key")
        secrets = Secrets(back.data / "secrets.db")
        stack.callback(secrets.close)
        channels = await stack.enter_async_context(running.channels)
        await running.sounding.start()
        outbox = Outbox(journal, channels.live, current.compose, health.outbox)
        parts = Parts(
            site=current.site,
            journal=journal,
            history=back.history,
            acting=running.acting,
            values=running.values,
            hub=Hub(),
            status=running.status,
            outputs=running.outputs,
            reload=back.reloader.reload,
        )
        running.pages = pages = Pages(parts)
        app = make_app(current.people, secrets, cookie="sitewarden_edge")
        pages.add_to(app)
        add_pages(app, DIST, "control-room.html")
        await stack.enter_async_context(serving(app, limits=Limits(per_address=_PER_ADDRESS), sock=back.listening))
        control = Control(
            site=lambda: current.site, wires=running.wires, outputs=running.outputs, reload=back.reloader.reload
        )
        await stack.enter_async_context(control.listening(back.data / SOCKET))
        loops.start("outbox", outbox.run, lambda: health.outbox.beat_s)
        loops.start("pages", pages.live)

        async def uplink(site: Site) -> None:
            await run_uplink(journal, back.history, key, _uplink_options(site), health.uplink)

        running.reach_out(uplink)
        yield


def _uplink_options(site: Site) -> UplinkOptions:
    assert site.cloud is not None
    ca_file = str(site.path.parent / site.cloud.ca_file) if site.cloud.ca_file else None
    return UplinkOptions(url=site.cloud.url, gateway=site.gateway.id, ca_file=ca_file)
