"""The cloud service from its configuration to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from ..errors import ConfigError
from ..serving.listen import serving
from ..serving.notify import Notifier, watchdog_period_s
from ..serving.secrets import Secrets
from ..serving.web import add_pages, make_app
from .config import CloudConfig
from .engine import SqliteDatabase
from .ingest import Contacts, Ingest
from .pages import Pages
from .store import STEPS, Store

log = logging.getLogger(__name__)

COOKIE = "sitewarden_cloud"
_DIST = Path(__file__).parent.parent / "web" / "dist"


async def run_cloud(config: CloudConfig, data: Path, *, ready: Callable[[int], None] = lambda _: None) -> NoReturn:
    """Serve until cancelled.

    Args:
        data: folder of cloud.db and secrets.db; made when it is missing.
        ready: called with the port once requests are answered (port 0 in cloud.toml takes a free one).

    Raises:
        StoreError: the database could not commit; whoever started this starts it again.
        ConfigError: the address cannot be listened on.
    """
    data.mkdir(mode=0o750, parents=True, exist_ok=True)
    async with contextlib.AsyncExitStack() as stack:
        database = await stack.enter_async_context(SqliteDatabase(data / "cloud.db", STEPS))
        store = Store(database)
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
        notifier = Notifier()
        async with asyncio.TaskGroup() as group:
            group.create_task(pages.announce(), name="cloud announce")
            group.create_task(store.until_broken(), name="cloud store")
            group.create_task(_feed_watchdog(store, notifier), name="cloud watchdog")
            log.info("the cloud answers on %s port %d", config.cloud.host, port)
            notifier.tell("READY=1")
            ready(port)
    raise AssertionError("the service's tasks never return")


async def _listen(app: web.Application, config: CloudConfig, stack: contextlib.AsyncExitStack) -> int:
    try:
        return await stack.enter_async_context(serving(app, config.cloud.host, config.cloud.port))
    except OSError as error:
        where = f"{config.cloud.host}:{config.cloud.port}"
        raise ConfigError(
            "cloud.toml", [f"cloud.port: cannot listen on {where}: {error.strerror}; choose another"]
        ) from error


async def _feed_watchdog(store: Store, notifier: Notifier) -> None:
    """Ping systemd at half of its patience, each time after the database has answered."""
    while True:
        await store.gateways()
        notifier.tell("WATCHDOG=1")
        await asyncio.sleep(watchdog_period_s())
