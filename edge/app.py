"""The gateway daemon: build, start, supervise, stop, in one straight line.

A failing source or channel is a fault that is seen and tried again. A failing store, or a bug in the pipeline, ends
the process: systemd starts it again and what was committed is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from .. import __version__
from ..errors import ConfigError, PermanentError
from ..sensors.buses import BusHealth, BusSpec
from ..sensors.modbus import run_bus
from ..sensors.mqtt_ingest import MqttCredentials, MqttHealth, run_mqtt
from ..serving.listen import Limits, serving
from ..serving.live import Hub
from ..serving.secrets import Secrets
from ..serving.web import add_pages, make_app
from ..sync.history import History
from ..sync.journal import Draft, Journal
from ..sync.keys import load_or_create_key
from ..sync.sqlite import StoreError
from ..sync.uplink import UplinkHealth, UplinkOptions, run_uplink
from ..words import mono_s, now
from .alarms import table as alarm_table
from .alarms.codec import alarm_from_json
from .alarms.engine import Engine, close_orphans
from .alerts import outbox as outbox_table
from .alerts.message import Composer
from .alerts.outbox import Outbox, OutboxHealth, opened
from .alerts.recipients import recipients
from .alerts.webhook import Webhook
from .dashboards import TABLE as MQTT_TABLE
from .dashboards import Broker, DashboardHealth, Dashboards
from .pages.api import Pages, Parts
from .pipeline import Pipeline, PipelineHealth
from .site import Site, load_site
from .status import Health, status_json
from .supervision import ClockWatch, Notifier, feed_watchdog
from .values import Values

_log = logging.getLogger(__name__)
DIST = Path(__file__).resolve().parent.parent / "web" / "dist"
_CLOCK_EVERY_S = 5.0
_PAUSE_CAP_S = 15.0  # less than what the watchdog calls fresh: one bad bus does not end the process
_LASTED_S = 60.0
_PER_ADDRESS = 100


async def run_edge(config: Path, data: Path, *, say: Callable[[str], None] = print) -> None:
    """Run the gateway until it is cancelled; then commit what was decided and close.

    Args:
        config: site.toml.
        data: folder of the stores; made when missing. One daemon per folder.
        say: gets the line that tells where the pages are.

    Raises:
        ConfigError: before anything starts, with every problem.
        StoreError: the store failed; nothing uncommitted was announced.
    """
    site = load_site(config, data)
    for warning in site.warnings:
        _log.warning("%s: %s", config, warning)
    async with AsyncExitStack() as stack:
        stack.enter_context(_only_one(data))
        key = load_or_create_key(data / "gateway.key")
        watch = ClockWatch()
        tables = (alarm_table.TABLE, outbox_table.TABLE, MQTT_TABLE)
        journal = await stack.enter_async_context(Journal(data / "journal.db", site.gateway.id, tables))
        damaged: list[Path] = []
        history = await stack.enter_async_context(_open_history(site, data, damaged))
        channels = await stack.enter_async_context(opened({table.id: Webhook(table) for table in site.channels}))
        secrets = Secrets(data / "secrets.db")
        stack.callback(secrets.close)

        values, hub = Values(), Hub()
        health = Health(
            pipeline=PipelineHealth(),
            outbox=OutboxHealth(),
            broker=DashboardHealth(),
            mqtt=MqttHealth.of(site.mqtt_devices),
            uplink=UplinkHealth(),
            buses=tuple(_bus_health(spec) for spec in site.buses),
        )
        pipeline = await _make_pipeline(site, journal, history, values, health.pipeline)
        stack.push_async_exit(_goodbye(pipeline, journal))
        for path in damaged:
            pipeline.record([_note("history.damaged", {"kept_as": path.name})])
        composer = Composer(site=site.site.name, timezone=site.site.timezone, people=site.people)
        outbox = Outbox(journal, channels, composer, health.outbox)

        def status() -> dict[str, Any]:
            return status_json(site, journal, health)

        pages = Pages(
            Parts(
                site=site,
                journal=journal,
                history=history,
                pipeline=pipeline,
                values=values,
                hub=hub,
                status=status,
            )
        )
        app = make_app(site.people, secrets, cookie="sitewarden_edge")
        pages.add_to(app)
        add_pages(app, DIST, "control-room.html")
        await stack.enter_async_context(_serving(app, site.web.host, site.web.port))
        await journal.append([_started(site)])

        loops: dict[str, Callable[[], Awaitable[Any]]] = {
            "tick": pipeline.tick,
            "commit": pipeline.commit,
            "history": history.run,
            "outbox": outbox.run,
            "pages": pages.live,
            "clock": lambda: _watch_clock(watch, pipeline),
        }
        notifier = Notifier()
        beats = {
            "rules": lambda: health.pipeline.tick_s,
            "commit": lambda: health.pipeline.commit_s,
            "outbox": lambda: health.outbox.beat_s,
            "history": lambda: history.beat_s,
            **{f"bus {bus.id}": (lambda bus=bus: bus.beat_s) for bus in health.buses},
        }
        loops["watchdog"] = lambda: feed_watchdog(notifier, beats)
        for spec, bus_health in zip(site.buses, health.buses, strict=True):
            loops[f"bus-{spec.id}"] = _again(
                f"bus {spec.id}", lambda spec=spec, h=bus_health: run_bus(spec, pipeline.accept, h)
            )
        if site.mqtt is not None:
            broker = Broker(
                url=site.mqtt.url, username=site.mqtt.username, password=site.secret(site.mqtt.password_file)
            )
            dashboards = Dashboards(
                site=site.site.id,
                gateway=site.gateway.id,
                broker=broker,
                journal=journal,
                values=values,
                points=site.points,
                rules=site.rules,
                status=status,
                health=health.broker,
            )
            loops["dashboards"] = _again("dashboards", dashboards.run)
            if site.mqtt_devices:
                loops["mqtt-ingest"] = _again(
                    "mqtt ingest", lambda: _ingest(site, broker, pipeline.accept, health.mqtt)
                )
        if site.cloud is not None:
            options = UplinkOptions(url=site.cloud.url, gateway=site.gateway.id, ca_file=_ca_file(site))
            loops["uplink"] = _again("uplink", lambda: run_uplink(journal, history, key, options, health.uplink))

        say(f"sitewarden edge {site.gateway.id}: http://{site.web.host}:{site.web.port}/")
        notifier.tell("READY=1")
        stack.callback(notifier.tell, "STOPPING=1")
        await _run_all(loops)


async def _run_all(loops: dict[str, Callable[[], Awaitable[Any]]]) -> None:
    async def call(run: Callable[[], Awaitable[Any]]) -> None:
        await run()

    async with asyncio.TaskGroup() as group:
        for name, run in loops.items():
            group.create_task(call(run), name=name)


def _again(name: str, run: Callable[[], Awaitable[Any]]) -> Callable[[], Awaitable[None]]:
    """Start a source or channel again whenever it fails; the store's error goes through and ends the process."""

    async def forever() -> None:
        pause_s = 1.0
        while True:
            started_s = mono_s()
            try:
                await run()
            except StoreError:
                raise
            except BaseExceptionGroup as errors:
                if errors.subgroup((StoreError, asyncio.CancelledError)) is not None:
                    raise
                _log.exception("%s failed; tried again in %.0f s", name, pause_s)
            except Exception:
                _log.exception("%s failed; tried again in %.0f s", name, pause_s)
            if mono_s() - started_s > _LASTED_S:
                pause_s = 1.0
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            pause_s = min(pause_s * 2, _PAUSE_CAP_S)

    return forever


async def _make_pipeline(
    site: Site, journal: Journal, history: History, values: Values, health: PipelineHealth
) -> Pipeline:
    stored = await journal.query(alarm_table.stored_alarms)
    instant = now()
    alarms = {alarm_id: alarm_from_json(fields) for alarm_id, fields in stored.items()}
    engine = Engine(site.rules, alarms, instant)

    scope = f"{site.site.id}/{site.gateway.id}/{journal.epoch}"

    def notify(draft: Draft) -> list[dict[str, str]]:
        return recipients(
            draft.kind, draft.body["alarm"], site=scope, people=site.people, channels=site.alerts.channels
        )

    pipeline = Pipeline(engine, journal, history, values, notify=notify, health=health)
    orphans = close_orphans((rule.id for rule in site.rules), stored, instant)
    if orphans:
        pipeline.record(orphans)
    return pipeline


async def _watch_clock(watch: ClockWatch, pipeline: Pipeline) -> None:
    while True:
        jump_s = watch.step()
        if jump_s:
            _log.warning("the wall clock stepped by %.1f s", jump_s)
            pipeline.record([_note("clock.stepped", {"by_s": round(jump_s, 3)})])
        await asyncio.sleep(_CLOCK_EVERY_S)


async def _ingest(site: Site, broker: Broker, sink: Callable[[list[Any]], None], health: MqttHealth) -> None:
    credentials = MqttCredentials(username=broker.username, password=broker.password) if broker.username else None
    await run_mqtt(broker.url, credentials, site.mqtt_devices, sink, health)


def _goodbye(pipeline: Pipeline, journal: Journal) -> Callable[..., Awaitable[None]]:
    """Commits what was decided but not yet committed, and that the end was wanted when it was."""

    async def leave(kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(StoreError):
            await pipeline.flush()
            if kind is None or issubclass(kind, asyncio.CancelledError):
                await journal.append([_note("gateway.stopped", {})])

    return leave


def _started(site: Site) -> Draft:
    names = {"id": site.site.id, "name": site.site.name, "name_en": site.site.name_en}
    return _note("gateway.started", {"version": __version__, "config": site.revision, "site": names})


def _note(kind: str, body: dict[str, Any]) -> Draft:
    return Draft(kind=kind, at=now(), actor="gateway", body=body)


def _bus_health(spec: BusSpec) -> BusHealth:
    health = BusHealth.of(spec)
    health.beat_s = mono_s()  # the watchdog counts from now
    return health


def _open_history(site: Site, data: Path, damaged: list[Path]) -> History:
    return History(
        data / "history.db",
        site.gateway.id,
        flush_s=site.gateway.flush_s,
        keep_days=site.gateway.keep_days,
        on_damage=damaged.append,
    )


def _ca_file(site: Site) -> str | None:
    if site.cloud is None or not site.cloud.ca_file:
        return None
    return str(site.path.parent / site.cloud.ca_file)


@contextlib.contextmanager
def _only_one(data: Path):
    """Make the data folder and hold its lock: two daemons on one journal would fork it."""
    data.mkdir(mode=0o750, parents=True, exist_ok=True)
    with (data / "edge.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            hint = "stop the other one, or give another --data"
            raise PermanentError(f"{data}: another gateway daemon uses this folder", hint=hint) from None
        yield


@asynccontextmanager
async def _serving(app: web.Application, host: str, port: int) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(serving(app, host, port, Limits(per_address=_PER_ADDRESS)))
        except OSError as error:
            problem = f"web.port: cannot listen on {host}:{port}: {error.strerror}; choose another port"
            raise ConfigError("site.toml", [problem]) from error
        yield
