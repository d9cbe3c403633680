"""The cloud service from its configuration to its end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import NoReturn

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import ConfigError
from ..serving.contract import add_contract
from ..serving.listen import Limits, serving
from ..serving.metrics import LoopLag, add_metrics
from ..serving.notify import Notifier, watchdog_period_s
from ..serving.secrets import Secrets
from ..serving.web import add_pages, answer_refusals, make_app
from ..sync.identity import Identity, read_identity
from ..sync.keys import load_or_create_key, public_key_text
from ..sync.seal import load_or_create_seal_key
from .backups import MOST_TOLD_BYTES, Backups
from .backups import PATH as BACKUP_PATH
from .baseline_store import STEPS as BASELINE_STEPS
from .baseline_store import BaselineStore
from .blob_pages import BlobPages
from .blob_store import STEPS as BLOB_STEPS
from .blob_store import BlobRecords
from .blobs import Blobs, make_store
from .bundle_pages import BundlePages
from .bundles import Bundles, KeysOf
from .chart_pages import ChartPages
from .charts import STEPS as CHART_STEPS
from .charts import Charts
from .checking import Checkers
from .config import CloudConfig
from .contract import CONTRACT
from .engine import SqliteDatabase, UnavailableError
from .engine_postgres import PostgresDatabase
from .enrol_pages import EnrolPages
from .enrol_store import STEPS as ENROL_STEPS
from .enrol_store import EnrolStore
from .enrolled import Register
from .enrolling import Enrolling
from .epoch_store import EpochStore
from .ingest import Contacts, Ingest
from .metrics import CloudMetrics, readers_of
from .metrics_store import MetricsStore
from .moved import moved_to
from .orders import PATH as ORDERS_PATH
from .orders import Orders
from .outages import answer_outages, through_outages
from .pages import Pages
from .site_pages import SitePages
from .site_store import SiteStore
from .snapshots import PATH as SNAPSHOT_PATH
from .snapshots import STEPS as SNAPSHOT_STEPS
from .snapshots import Snapshots
from .store import PARTITIONED, STEPS, Store
from .witness import PATH as WITNESS_PATH
from .witness import Witness
from .witness_store import STEPS as WITNESS_STEPS
from .witness_store import WitnessStore

log = logging.getLogger(__name__)

COOKIE = "sitewarden_cloud"
SOCKET = "cloud.sock"
_SWITCH_S = 0.0002
"""A thread that wants to go on waits so long for the one that computes. SQLite's thread has to at every statement: with
Python's 5 ms the loop, busy with requests, let a group of batches wait for a tenth of a second."""
_COLLECTED_AT = 50_000
"""Objects after which the young ones are looked through for cycles. A batch makes a thousand that live for an instant:
with Python's 700 a tenth of the time went into looking at them."""
_BACKLOG = 1024  # of connections that are not accepted yet: gateways come back all at once
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
        stack.callback(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(_SWITCH_S)
        stack.callback(gc.set_threshold, *gc.get_threshold())
        gc.set_threshold(_COLLECTED_AT, *gc.get_threshold()[1:])
        if config.store is None and (url := moved_to(data)):
            raise ConfigError("cloud.toml", [f'store.url: cloud.db was moved: write [store] url = "{url}"'])
        database = await stack.enter_async_context(database_of(config, data))
        store, epochs = Store(database), EpochStore(database)
        secrets = Secrets(data / config.cloud.secrets)
        stack.callback(secrets.close)
        contacts = Contacts(store, await store.contacts(), min(60_000, config.cloud.late_s * 1000 / 3))
        witness_key = await asyncio.to_thread(load_or_create_key, data / "witness.key")
        witnessed = WitnessStore(database)
        pages = Pages(config, store, contacts, witnessed, public_key_text(witness_key))
        app = make_app(config.people, secrets, cookie=COOKIE)
        app.middlewares.append(answer_outages)
        seal_key = await asyncio.to_thread(load_or_create_seal_key, data / "seal.key")
        bundles = Bundles(store, _keys_of(config), witness_key, seal_key, spool=data, changed=pages.changed)
        backups = Backups(database, counts=config.store is None and config.cloud.durable == "backup")
        await backups.open()
        keys = EnrolStore(database)
        register = Register(config, keys)
        await register.look()
        enrolling = Enrolling(config, keys, register, public_key_text(witness_key), pages.changed)
        decisions = EnrolPages(enrolling)
        await stack.enter_async_context(_own_socket(bundles, backups, decisions, data / SOCKET))
        checkers = Checkers(config.cloud.checkers)
        ingest = Ingest(config, store, contacts, pages.changed, checkers=checkers)
        ingest.incarnation = await epochs.incarnation(await asyncio.to_thread(_identity, config, data))
        ingest.add_routes(app)
        enrolling.add_routes(app, ingest)
        decisions.add_pages(app)
        ingest.add_post(app, WITNESS_PATH, Witness(witnessed, witness_key, pages.changed).post)
        charts, baselines = Charts(database), BaselineStore(database)
        ChartPages(config, charts, baselines).add_routes(app)
        orders = Orders(config.baseline, baselines, witness_key, config, pages.changed)
        await orders.open()
        ingest.add_get(app, ORDERS_PATH, orders.get)
        ingest.add_post(app, f"{ORDERS_PATH}/report", orders.report)
        orders.add_pages(app)
        blob_store = await stack.enter_async_context(make_store(config.blobs, config.folder, data))
        blob_records = BlobRecords(database)
        is_durable = backups.covers if not config.blobs.url.startswith("s3://") else lambda _: True
        blobs = Blobs(config, blob_records, blob_store, is_durable=is_durable)
        blobs.add_routes(app, ingest)
        bundles.blobs, bundles.order_for = blobs, orders.order_for
        BlobPages(config, blob_records, blob_store, blobs).add_routes(app)
        snapshots = Snapshots(database, pages.changed)
        ingest.add_post(app, SNAPSHOT_PATH, snapshots.post)
        pages.snapshots, pages.epochs, pages.counts = snapshots, epochs, SiteStore(database)
        pages.add_routes(app)
        SitePages(config, pages, pages.counts).add_routes(app)
        uploads = BundlePages(bundles, data)
        await uploads.open()
        uploads.add_routes(app)
        lag, sums = LoopLag(), MetricsStore(database)
        metrics = CloudMetrics(config, sums, contacts, data, ingest.refusals, backups)
        add_metrics(app, lambda: readers_of(config), [metrics.fill, lag.fill])
        add_contract(app, CONTRACT)
        add_pages(app, _DIST, "headquarters.html")
        port = await _listen(app, config, stack)
        notifier = Notifier()
        async with asyncio.TaskGroup() as group:
            group.create_task(pages.announce(), name="cloud announce")
            group.create_task(store.until_broken(), name="cloud store")
            for work, what in (
                (lambda: contacts.follow(pages.changed), "contacts"),
                (orders.run, "orders"),
                (register.run, "keys"),
                (lambda: charts.run(ingest.busy), "charts"),
            ):
                group.create_task(through_outages(work, what), name=f"cloud {what}")
            group.create_task(blobs.run(), name="cloud blobs")
            group.create_task(uploads.run(), name="cloud uploads")
            group.create_task(lag.run(), name="cloud lag")
            group.create_task(checkers.run(), name="cloud checkers")
            group.create_task(_feed_watchdog(store, notifier), name="cloud watchdog")
            log.info("the cloud answers on %s port %d", config.cloud.host, port)
            log.info("checkpoints are countersigned with %s", public_key_text(witness_key))
            notifier.tell("READY=1")
            ready(port)
    raise AssertionError("the service's tasks never return")


def database_of(config: CloudConfig, data: Path) -> SqliteDatabase | PostgresDatabase:
    """What cloud.toml names, not open yet."""
    steps = [*STEPS, *WITNESS_STEPS, *BASELINE_STEPS, *CHART_STEPS, *SNAPSHOT_STEPS, *BLOB_STEPS, *ENROL_STEPS]
    if config.store is None:
        return SqliteDatabase(data / "cloud.db", steps, replicated=config.cloud.durable == "backup")
    return PostgresDatabase(
        config.store.url,
        steps,
        password=config.store_password,
        partitioned=PARTITIONED,
        standby=config.store.durable == "standby",
    )


def _identity(config: CloudConfig, data: Path) -> Identity | None:
    """Where cloud.db lies; a database server says nothing of that."""
    return read_identity(data / "cloud.db", "cloud") if config.store is None else None


def _keys_of(config: CloudConfig) -> KeysOf:
    async def keys_of(name: str) -> Mapping[str, Ed25519PublicKey]:
        gateway = config.find(name)
        return gateway.keys() if gateway is not None else {}

    return keys_of


@contextlib.asynccontextmanager
async def _own_socket(bundles: Bundles, backups: Backups, decisions: EnrolPages, path: Path) -> AsyncIterator[None]:
    """For commands on this machine; whoever may open the data folder may bring bundles, tell of backups, and decide
    which gateways are known."""
    app = web.Application(middlewares=[answer_refusals], client_max_size=MOST_TOLD_BYTES)
    app.router.add_post("/v1/bundles", bundles.handle)
    app.router.add_post(BACKUP_PATH, backups.handle)
    decisions.add_to_socket(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.UnixSite(runner, path).start()
            path.chmod(0o660)
        except OSError as error:
            log.warning("%s: no bundles can be imported by command: %s", path, error.strerror or error)
        yield
    finally:
        await runner.cleanup()


async def _listen(app: web.Application, config: CloudConfig, stack: contextlib.AsyncExitStack) -> int:
    try:
        limits = Limits(connections=config.cloud.connections, backlog=_BACKLOG)
        return await stack.enter_async_context(serving(app, config.cloud.host, config.cloud.port, limits))
    except OSError as error:
        where = f"{config.cloud.host}:{config.cloud.port}"
        raise ConfigError(
            "cloud.toml", [f"cloud.port: cannot listen on {where}: {error.strerror}; choose another"]
        ) from error


async def _feed_watchdog(store: Store, notifier: Notifier) -> None:
    """Ping systemd at half of its patience, each time after the database has answered."""
    while True:
        with contextlib.suppress(UnavailableError):  # a server that is away is no reason to start this process anew
            await store.contacts()
        notifier.tell("WATCHDOG=1")
        await asyncio.sleep(watchdog_period_s())
