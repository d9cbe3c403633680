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
from ..words import Instant
from .alerts.outbox import Outbox
from .alerts.outbox import Parts as OutboxParts
from .alerts.outbox_queries import alarm_numbered
from .alerts.replies import Desk, Replies
from .control import SOCKET, Control
from .loops import again
from .pages.api import Pages
from .pages.parts import Parts
from .proving import make_proof
from .reloading import Reloader
from .running import Running, settings_of
from .site import Site
from .watching import Watching

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
        outbox = Outbox(
            OutboxParts(
                journal=journal,
                channels=running.channels.live,
                compose=current.compose,
                ways=current.ways,
                health=health.outbox,
                settings=settings_of(current.site),
                answer=Replies(_desk(running)).take,
            )
        )
        running.ears.listener = running.outbox = outbox
        await stack.enter_async_context(running.channels)
        stack.push_async_callback(loops.stop, "outbox")  # before its channels go: it would look for other ways
        await running.sounding.start()
        running.proof = proof = make_proof(running)
        parts = Parts(
            site=current.site,
            journal=journal,
            history=back.history,
            acting=running.acting,
            silence=running.sounding.silence,
            values=running.values,
            hub=Hub(),
            status=running.status,
            outputs=running.outputs,
            reload=back.reloader.reload,
            proof=proof,
        )
        running.pages = pages = Pages(parts)
        app = make_app(current.people, secrets, cookie="sitewarden_edge")
        pages.add_to(app)
        add_pages(app, DIST, "control-room.html")
        await stack.enter_async_context(serving(app, limits=Limits(per_address=_PER_ADDRESS), sock=back.listening))
        control = Control(
            site=lambda: current.site,
            wires=running.wires,
            outputs=running.outputs,
            reload=back.reloader.reload,
            proof=proof,
            journal=journal,
        )
        await stack.enter_async_context(control.listening(back.data / SOCKET))
        Watching(running, back.data).start()
        loops.start("outbox", outbox.run, lambda: health.outbox.beat_s)
        loops.start("pages", pages.live)
        loops.start("proof", again("proof", proof.run), lambda: proof.beat_s)

        async def uplink(site: Site) -> None:
            await run_uplink(journal, back.history, key, _uplink_options(site), health.uplink)

        running.reach_out(uplink)
        yield


def _desk(running: Running) -> Desk:
    """What persons who answer by SMS are judged by."""
    current, journal = running.current, running.journal

    async def acknowledge(alarm: str, occurrence: int, role: str, person: str) -> None:
        await running.acting.acknowledge(current.people[person], alarm, occurrence, role)

    def may_act(person: str, role: str, area: str, at: Instant) -> bool:
        return current.site.roster.may_act(person, role, area, at)

    def modem() -> str:
        return next((table.id for table in current.site.channels if table.kind == "sms"), "")

    return Desk(
        people=current.people,
        find=lambda number: journal.query(lambda connection: alarm_numbered(connection, number)),
        may_act=may_act,
        acknowledge=acknowledge,
        record=lambda draft: running.pipeline.command(lambda _engine, _at: [draft]),
        channel=modem,
        channels=running.channels.live,
    )


def _uplink_options(site: Site) -> UplinkOptions:
    assert site.cloud is not None
    ca_file = str(site.path.parent / site.cloud.ca_file) if site.cloud.ca_file else None
    return UplinkOptions(url=site.cloud.url, gateway=site.gateway.id, ca_file=ca_file)
