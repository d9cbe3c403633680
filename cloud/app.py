"""The cloud service from its configuration to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from ..serving.secrets import Secrets
from ..serving.web import add_pages, make_app
from .config import CloudConfig
from .ingest import Contacts, Ingest
from .pages import Pages
from .store import Store

log = logging.getLogger(__name__)

COOKIE = "sitewarden_cloud"
_DIST = Path(__file__).parent.parent / "web" / "dist"
_STOP_S = 1.0


async def run_cloud(config: CloudConfig, data: Path, *, ready: Callable[[int], None] = lambda _: None) -> NoReturn:
    """Serve until cancelled.

    Args:
        data: folder of cloud.db and secrets.db; made when it is missing.
        ready: called with the port once requests are answered (port 0 in cloud.toml takes a free one).

    Raises:
        StoreError: the database could not commit; whoever started this starts it again.
        OSError: the address cannot be listened on.
    """
    data.mkdir(parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        store = await stack.enter_async_context(Store(data / "cloud.db"))
        secrets = Secrets(data / config.cloud.secrets)
        stack.callback(secrets.close)
        known = {name: row["contact_ms"] for name, row in (await store.gateways()).items() if row["contact_ms"]}
        contacts = Contacts(store, known)
        pages = Pages(config, store, contacts)
        app = make_app(config.people, secrets, cookie=COOKIE)
        Ingest(config, store, contacts, pages.changed).add_routes(app)
        pages.add_routes(app)
        add_pages(app, _DIST, "headquarters.html")
        port = await _listen(app, config, stack)
        async with asyncio.TaskGroup() as group:
            group.create_task(pages.announce(), name="cloud announce")
            group.create_task(store.until_broken(), name="cloud store")
            group.create_task(_feed_watchdog(store), name="cloud watchdog")
            log.info("the cloud answers on %s port %d", config.cloud.host, port)
            _tell_systemd("READY=1")
            ready(port)
    raise AssertionError("the service's tasks never return")


async def _listen(app: web.Application, config: CloudConfig, stack: contextlib.AsyncExitStack) -> int:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=_STOP_S)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, config.cloud.host, config.cloud.port)
    await site.start()
    return runner.addresses[0][1]


async def _feed_watchdog(store: Store) -> None:
    """Ping systemd at half of its patience, each time after the database has answered."""
    period_s = int(os.environ.get("WATCHDOG_USEC", "20000000")) / 2_000_000
    while True:
        await store.gateways()
        _tell_systemd("WATCHDOG=1")
        await asyncio.sleep(period_s)


def _tell_systemd(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), "\0" + address[1:] if address.startswith("@") else address)
        except OSError as error:
            log.warning("systemd does not listen: %s", error)
