"""The gateway daemon: build, start, supervise, stop, in one straight line.

A failing source or channel is a fault that is seen and tried again. A disk that takes nothing: all of it is built again
on memory (`footing.py`). Any other failing store, or a bug in the pipeline, ends the process: systemd starts it again
and what was committed is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import __version__
from ..sensors.buses import Answer
from ..sensors.mqtt_ingest import LinkSpec, MqttDevice, MqttHealth, MqttLink
from ..sync.history import History
from ..sync.journal import Draft, Journal
from ..sync.link_state import UplinkHealth
from ..sync.reserve import Reserve
from ..sync.sqlite import StoreError
from ..words import Reading, now, utc_text
from .acting import Acting
from .alarms import table as alarm_table
from .alarms.codec import alarm_from_json
from .alarms.engine import Engine, close_orphans
from .alarms.system import stored_system_rules
from .alerts.channels import ChannelDeps, Channels
from .alerts.ears import Ears
from .alerts.outbox import OutboxHealth
from .dashboards import DashboardHealth
from .disk_keeping import reserve_of
from .doors import open_doors
from .footing import STOPPED, Footing
from .ladders import alive as alive_table
from .ladders import reports
from .ladders import table as ladder_table
from .ladders.climb import Wall
from .ladders.keeper import Ladders
from .links import Links, check_links
from .lock import only_one
from .loops import Loops
from .metas import OutputMeta
from .outputs import Outputs, Write
from .pauses import spare_what_stays, take_turns
from .pipeline import Pipeline, PipelineHealth
from .reloading import Reloader
from .running import Current, Running, site_names
from .site import Site
from .site_reader import SiteReader
from .status import Health, status_json
from .stores import HISTORY_IN_MEMORY, open_history, open_in_memory, open_journal
from .supervision import STEP_S, ClockWatch, Notifier, feed_watchdog
from .values import Values
from .wires import Wires

_log = logging.getLogger(__name__)
_CLOCK_EVERY_S = 5.0


async def run_edge(
    config: Path,
    data: Path,
    *,
    reader: SiteReader | None = None,
    say: Callable[[str], None] = print,
    taken_back: bool = False,
) -> None:
    """Run the gateway until it is cancelled; then commit what was decided and close.

    Args:
        config: site.toml.
        data: folder of the stores; made when missing. One daemon per folder.
        reader: of that site.toml, when it has begun already.
        say: gets the line that tells where the pages are.
        taken_back: an order of headquarters was, because the daemon had started too often under it.

    Raises:
        ConfigError: before anything starts, with every problem.
        StoreError: the store failed, and memory could not take its place; nothing uncommitted was announced.
    """
    take_turns()
    site = await asyncio.to_thread((reader or SiteReader(config, data)).result)
    check_links(site)
    for warning in site.warnings:
        _log.warning("%s: %s", config, warning)
    with _hang_ups() as missed, only_one(data):
        reserve = reserve_of(data, site.disk)
        footing = Footing(data, site.gateway.id)
        await asyncio.to_thread(footing.settle, reserve)
        whole = _Whole(config=config, footing=footing, reserve=reserve, missed=missed, say=say, taken_back=taken_back)
        while True:
            stage = _Stage(site=site)
            try:
                await _run(whole, stage)
            except (Exception, BaseExceptionGroup) as error:
                if not await asyncio.to_thread(footing.falls, error, stage.journal):
                    raise
                site = stage.site if stage.current is None else stage.current.site
                whole.taken_back = False


@dataclass(slots=True, kw_only=True)
class _Whole:
    """What stays while the gateway changes its footing."""

    config: Path
    footing: Footing
    reserve: Reserve
    missed: list[None]
    say: Callable[[str], None]
    taken_back: bool
    watch: ClockWatch = field(default_factory=ClockWatch)
    notifier: Notifier = field(default_factory=Notifier)


@dataclass(slots=True, kw_only=True)
class _Stage:
    """How far a run came, for the next one. `site`: that it begins with."""

    site: Site
    journal: Journal | None = None
    current: Current | None = None


async def _run(whole: _Whole, stage: _Stage) -> None:
    """Build, start, supervise, stop: on one footing."""
    site, footing, watch, notifier = stage.site, whole.footing, whole.watch, whole.notifier
    data, folder = footing.data, footing.folder
    async with AsyncExitStack() as stack:
        _follow_hang_ups([], lambda: whole.missed.append(None))
        doors = stack.enter_context(open_doors(site))
        relief = whole.reserve.release
        opened = (
            open_in_memory(folder, site.gateway.id)
            if footing.in_memory
            else open_journal(data, site.gateway.id, relief)
        )
        journal = stage.journal = await stack.enter_async_context(opened)
        await footing.begin(journal)
        damaged: list[Path] = []
        history = await stack.enter_async_context(open_history(folder, site.gateway.id, site, damaged.append, relief))
        values, loops = Values(meta.point.id for meta in site.points), Loops()
        pipeline_health = PipelineHealth()
        current = stage.current = Current(site, journal.epoch, journal.not_recorded)
        pipeline = await _make_pipeline(site, journal, history, values, pipeline_health, current)
        stack.push_async_exit(_goodbye(pipeline, journal))
        if footing.in_memory:
            await history.limit(HISTORY_IN_MEMORY)
            stack.callback(lambda: footing.count_readings(pipeline_health.readings))
        if history.began and not footing.in_memory:
            pipeline.record([_note("history.restored", history.began)])
        for path in damaged:
            pipeline.record([_note("history.damaged", {"kept_as": path.name})])
        wires = Wires(loops, pipeline.accept)
        links = Links(loops, lambda spec, devices, health: _ingest(spec, devices, pipeline.accept, health, history))
        health = Health(
            pipeline=pipeline_health,
            outbox=OutboxHealth(),
            broker=DashboardHealth(),
            uplink=UplinkHealth(),
            buses=wires.health,
            links=links.health,
        )
        outputs = Outputs(site.outputs, _write(wires), _commit(pipeline), journal)
        ears = Ears()
        channels = Channels(site.channels, _channel_deps(data, folder, outputs, ears))
        running = Running(
            current=current,
            journal=journal,
            values=values,
            health=health,
            loops=loops,
            pipeline=pipeline,
            acting=Acting(pipeline, current.may_act),
            wires=wires,
            links=links,
            channels=channels,
            ears=ears,
            outputs=outputs,
            status=lambda: status_json(current.site, journal, health, channels.live),
        )
        reloader = Reloader(whole.config, data, current, running.apply, _commit(pipeline), notifier)
        await journal.append([_started(site)])

        pipeline.start_ladders()
        loops.start("alive", lambda: _stay_alive(pipeline.ladders.wall, journal))
        loops.start("tick", pipeline.tick, lambda: pipeline_health.tick_s)
        loops.start("commit", pipeline.commit, lambda: pipeline_health.commit_s)
        loops.start("history", history.run, lambda: history.beat_s)
        loops.start("clock", lambda: _watch_clock(watch, pipeline, health.uplink))
        if footing.in_memory:
            loops.start("disk again", footing.watch)
        running.start()

        async def show() -> None:
            """The rest of the start, while the buses are polled already."""
            from_here = await asyncio.to_thread(importlib.import_module, ".front", __package__)
            back = from_here.Back(
                data=folder,
                disk=data,
                history=history,
                reserve=whole.reserve,
                running=running,
                reloader=reloader,
                doors=doors,
                taken_back=whole.taken_back,
            )
            async with from_here.front(back) as encrypted:
                missed = list(whole.missed)
                whole.missed.clear()
                _follow_hang_ups(missed, reloader.hang_up)
                loops.start("reload", reloader.run)
                loops.start("watchdog", lambda: feed_watchdog(notifier, loops.beats))
                spare_what_stays()
                plain = f"http://{site.web.host}:{site.web.port}/"
                whole.say(f"sitewarden edge {site.gateway.id}: {plain}" + (f" and {encrypted}" if encrypted else ""))
                notifier.tell("READY=1")
                await asyncio.get_running_loop().create_future()

        loops.start("front", show)
        # Lamps say goodbye over wires that are still open.
        await loops.run(first="front", ending=lambda: notifier.tell("STOPPING=1"))


async def _make_pipeline(
    site: Site,
    journal: Journal,
    history: History,
    values: Values,
    health: PipelineHealth,
    current: Current,
) -> Pipeline:
    stored = await journal.query(alarm_table.stored_alarms)
    instant = now()
    alarms = {alarm_id: alarm_from_json(fields) for alarm_id, fields in stored.items()}
    engine = Engine((*site.rules, *stored_system_rules(stored)), alarms, instant)
    wall = Wall.at_start(await journal.query(alive_table.last_alive), instant)
    climbs, freezes = await journal.query(ladder_table.stored_climbs), await journal.query(ladder_table.stored_freezes)
    ladders = Ladders(climbs, freezes, current.plan_of, wall, await journal.query(reports.stored_deviations))
    pipeline = Pipeline(engine, journal, history, values, ladders, notify=current.notify, health=health)
    if wall.behind:
        by_s = round((instant.utc_ms - wall.base_utc_ms) / 1000, 3)
        pipeline.record([_note("clock.behind", {"by_s": by_s, "believed": utc_text(wall.base_utc_ms)})])
    orphans = close_orphans((rule.id for rule in site.rules), stored, instant)
    if orphans:
        pipeline.record(orphans)
    return pipeline


async def _stay_alive(wall: Wall, journal: Journal) -> None:
    while True:
        alive = wall.alive(now())
        await journal.write(lambda c, at=alive: alive_table.save_alive(c, at))
        await asyncio.sleep(alive_table.EVERY_S)


async def _watch_clock(watch: ClockWatch, pipeline: Pipeline, uplink: UplinkHealth) -> None:
    """Record each jump of the machine's clock, and of what is believed of it: both need not be at the same time."""
    wall = pipeline.ladders.wall
    before_s = wall.base_utc_ms / 1000 - wall.base.mono_s
    while True:
        jump_s, instant = watch.step(uplink.server_time), now()
        believed_ms = wall.believed_ms(instant)
        offset_s = believed_ms / 1000 - instant.mono_s
        moved_s, before_s = offset_s - before_s, offset_s
        by_s = jump_s or (moved_s if abs(moved_s) >= STEP_S else 0.0)
        if by_s:
            _log.warning("the wall clock stepped by %.1f s", by_s)
            body: dict[str, Any] = {"by_s": round(by_s, 3), "believed_ms": believed_ms}
            if watch.corrected or watch.shift_ms:
                body |= {"source": "headquarters", "machine_behind_s": round(watch.shift_ms / 1000, 3)}
            pipeline.record([Draft(kind="clock.stepped", at=instant, actor="gateway", body=body)])
        await asyncio.sleep(_CLOCK_EVERY_S)


def _ingest(
    spec: LinkSpec,
    devices: Sequence[MqttDevice],
    sink: Callable[[list[Reading]], None],
    health: MqttHealth,
    history: History,
) -> MqttLink:
    """Old readings go to the history alone: the rules would take them for signs of life."""
    late, full = history.add, history.is_behind
    return MqttLink(spec, devices, sink, health, stored=history.flush, late=late, full=full)


def _channel_deps(data: Path, folder: Path, outputs: Outputs, ears: Ears) -> ChannelDeps:
    async def keep(output: str, state: str) -> None:
        await outputs.keep(output, state, "alerts")

    return ChannelDeps(data=data, keeps=folder, set_output=keep, events=lambda _channel: ears)


def _write(wires: Wires) -> Write:
    async def write(meta: OutputMeta, state: str) -> Answer:
        return await wires.bus(meta.bus).write(meta.device, meta.output, state)

    return write


def _commit(pipeline: Pipeline) -> Callable[[Draft], Awaitable[object]]:
    return lambda draft: pipeline.command(lambda _engine, _instant: [draft])


@contextlib.contextmanager
def _hang_ups() -> Iterator[list[None]]:
    """Collect SIGHUP, which would end the process, until somebody follows it."""
    missed: list[None] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGHUP, missed.append, None)
    try:
        yield missed
    finally:
        loop.remove_signal_handler(signal.SIGHUP)


def _follow_hang_ups(missed: list[None], tell: Callable[[], None]) -> None:
    """From now on `tell` hears each SIGHUP; at once when one came before."""
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, tell)
    if missed:
        tell()


def _goodbye(pipeline: Pipeline, journal: Journal) -> Callable[..., Awaitable[None]]:
    """Commits what was decided but not yet committed, and that the end was wanted when it was."""

    async def leave(kind: type[BaseException] | None, *_: object) -> None:
        with contextlib.suppress(StoreError):
            await pipeline.flush()
            if kind is None or issubclass(kind, asyncio.CancelledError):
                await journal.append([_note(STOPPED, {})])

    return leave


def _started(site: Site) -> Draft:
    return _note("gateway.started", {"version": __version__, "config": site.revision, **site_names(site)})


def _note(kind: str, body: dict[str, Any]) -> Draft:
    return Draft(kind=kind, at=now(), actor="gateway", body=body)
