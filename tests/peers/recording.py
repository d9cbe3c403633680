"""A gateway's stores, made by the daemon's own parts on a clock of ours."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.codec import alarm_from_json
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.ladders.climb import Wall
from sitewarden.edge.ladders.keeper import Ladders
from sitewarden.edge.pipeline import Pipeline, PipelineHealth
from sitewarden.edge.site import Site
from sitewarden.edge.values import Values
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import Instant, Quality, Reading

BASE_MS = 1_795_000_000_000


def instant(at_s: float, boot: str = "b1", *, ahead_s: float = 0.0) -> Instant:
    return Instant(utc_ms=BASE_MS + round((at_s + ahead_s) * 1000), mono_s=at_s, boot=boot)


def reading(at: Instant, value: float | None, point: str = "store.th1.humidity", why: str = "") -> Reading:
    quality = Quality.BAD if value is None else Quality.GOOD
    return Reading(point=point, value=value, quality=quality, why=why or ("timeout" if value is None else ""), at=at)


@dataclass
class Gateway:
    """Journal, history and pipeline; `run` lets time pass as the daemon does."""

    folder: Path
    site: Site
    at_s: float = 0.0
    boot: str = "b1"
    ahead_s: float = 0.0
    dead: set[str] = field(default_factory=set[str])
    silent: set[str] = field(default_factory=set[str])
    values: Callable[[str, float], float] = lambda _point, _at_s: 1.0
    late_s: float = 0.0

    def now(self) -> Instant:
        return instant(self.at_s, self.boot, ahead_s=self.ahead_s)

    @asynccontextmanager
    async def on(self, *, is_killed: bool = False) -> AsyncIterator[None]:
        site = self.site
        async with Journal(self.folder / "journal.db", site.gateway.id, (alarm_table.TABLE,)) as journal:
            history = History(self.folder / "history.db", site.gateway.id, clock=lambda: self.at_s)
            async with history:
                stored = await journal.query(alarm_table.stored_alarms)
                alarms = {name: alarm_from_json(fields) for name, fields in stored.items()}
                self.engine = Engine(site.rules, alarms, self.now())
                self.pipeline = Pipeline(
                    self.engine,
                    journal,
                    history,
                    Values(),
                    Ladders({}, {}, lambda _: None, Wall.at_start(None, self.now())),
                    notify=lambda _: [],
                    health=PipelineHealth(),
                    instant=self.now,
                )
                self.journal, self.history = journal, history
                await journal.append([self.note("gateway.started")])
                yield
                await self.pipeline.flush()
                if not is_killed:
                    await journal.append([self.note("gateway.stopped")])

    def note(self, kind: str) -> Draft:
        return Draft(kind=kind, at=self.now(), actor="gateway", body={})

    async def run(self, for_s: float) -> None:
        """Poll every point every two seconds, tick twice a second, write the history every ten."""
        polled = {meta.point.id: i for i, meta in enumerate(self.site.points)}
        for tick in range(round(for_s * 2)):
            drafts = self.engine.tick(self.now())
            if drafts:
                self.pipeline.record(drafts)
            self.at_s += 0.2  # the plant answers between two ticks
            due = [point for point, i in polled.items() if (tick + i) % 4 == 0 and point not in self.silent]
            for point in due:
                value = None if point in self.dead else self.values(point, self.at_s)
                self.pipeline.accept([reading(self.now(), value, point)])
            await self.pipeline.flush()
            self.at_s += 0.3
            if tick % 20 == 0:
                await self.history.flush()
