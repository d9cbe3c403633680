"""Alarms and their ladders: what is raised climbs, pauses, begins anew and ends in the alarm's own transaction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.codec import alarm_from_json
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.overlay import Overlay, OverlayKind
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.ladders import alive, table
from sitewarden.edge.ladders.alarms import preset_plan_of, with_ladders
from sitewarden.edge.ladders.climb import Wall
from sitewarden.edge.ladders.keeper import Ladders
from sitewarden.edge.pipeline import Pipeline, PipelineHealth
from sitewarden.edge.values import Values
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import ClockState, Instant, Quality, Reading

HOUR = 3600.0
NOON_MS = 1_790_000_000_000
POINT = "store.th1.humidity"


def rule(side: Side, *levels: Level) -> Rule:
    return Rule(
        id=f"{POINT}.{side}",
        point=POINT,
        area="store",
        side=side,
        name="湿度",
        name_en="humidity",
        unit="%RH",
        levels=levels,
        repeat_s={},
        realarm_s={},
    )


HIGH = rule(Side.HIGH, Level(kind=Kind.HI, limit=75, priority=3), Level(kind=Kind.HIHI, limit=85, priority=1))
STALE = rule(Side.STALE, Level(kind=Kind.STALE, limit=180, priority=2))
RULES = (HIGH, STALE)


@dataclass(slots=True)
class Plant:
    """Rules and ladders on a clock of ours."""

    rules: tuple[Rule, ...] = (HIGH,)
    at_s: float = 0.0
    engine: Engine = field(init=False)
    ladders: Ladders = field(init=False)
    drafts: list[Draft] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = Engine(self.rules, {}, self.now())
        self.ladders = Ladders({}, {}, preset_plan_of, Wall.at_start(None, self.now()))

    def now(self) -> Instant:
        return Instant(utc_ms=NOON_MS + round(self.at_s * 1000), mono_s=100 + self.at_s, boot="b")

    def take(self, drafts: Iterable[Draft]) -> list[str]:
        made = with_ladders(drafts, self.ladders)
        self.drafts += made
        return [draft.kind for draft in made]

    def read(self, value: float) -> list[str]:
        reading = Reading(point=POINT, value=value, quality=Quality.GOOD, at=self.now())
        return self.take(self.engine.read(reading, self.now()))

    def ack(self, *roles: str) -> list[str]:
        number = self.engine.alarm(HIGH.id).occurrence
        return [
            kind
            for role in roles
            for kind in self.take(self.engine.acknowledge(HIGH.id, number, role, f"p_{role}", self.now()))
        ]

    def shelve(self, for_s: float) -> list[str]:
        overlay = Overlay(kind=OverlayKind.SHELVED, who="wang", why="sensor is moved", since=self.now(), for_s=for_s)
        return self.take(self.engine.cover(HIGH.id, overlay, ("officer",), self.now()))

    def run(self, seconds: float, step_s: float = 10.0) -> list[str]:
        """Time passes, and nothing is heard of the sensor."""
        until_s, found = self.at_s + seconds, list[str]()
        while self.at_s < until_s:
            self.at_s = min(until_s, self.at_s + step_s)
            found += self.take(self.engine.tick(self.now()))
            made = self.ladders.tick(self.now())
            self.drafts += made
            found += [draft.kind for draft in made]
        return found

    def climb(self, alarm: str = HIGH.id) -> Any:
        (found,) = (climb for climb in self.ladders.climbs.values() if climb.subject.id == alarm)
        return found


def test_raised_begins_the_ladder_of_its_priority_in_the_same_breath() -> None:
    plant = Plant()
    assert plant.read(76) == ["alarm.raised", "ladder.started"]
    assert (plant.climb().plan, plant.climb().t0) == ("standard", plant.now())
    assert plant.climb().subject.area == "store"


def test_acknowledged_by_both_it_climbs_on_until_it_is_closed() -> None:
    plant = Plant()
    plant.read(76)
    assert plant.ack("keeper", "officer") == ["alarm.acked", "alarm.acked"]
    assert plant.climb().paused == ""
    assert plant.read(70) == ["alarm.closed", "ladder.stopped"]
    assert plant.ladders.climbs == {}


def test_returned_but_not_acknowledged_it_climbs_on() -> None:
    plant = Plant()
    plant.read(76)
    assert plant.read(70) == ["alarm.returned"]
    assert plant.climb().paused == ""
    assert "ladder.step" in plant.run(2 * HOUR)


def test_worse_goes_on_from_the_same_first_moment_on_the_other_plan() -> None:
    plant = Plant()
    plant.read(76)
    began = plant.climb().t0
    plant.at_s = 30
    assert plant.read(90) == ["alarm.reraised", "ladder.replanned"]
    assert (plant.climb().plan, plant.climb().t0, plant.climb().subject.priority) == ("priority_1", began, 1)
    plant.at_s = 50
    assert plant.read(80) == ["alarm.eased"], "going down changes no ladder"


def test_shelved_nothing_is_climbed_and_afterwards_it_begins_anew() -> None:
    plant = Plant()
    plant.read(76)
    plant.at_s = HOUR
    assert plant.shelve(2 * HOUR) == ["alarm.shelved", "ladder.paused"]
    assert plant.climb().paused == "suppressed"
    assert "ladder.step" not in plant.run(1.9 * HOUR)
    found = [kind for kind in plant.run(0.2 * HOUR) if not kind.endswith("step")]
    assert found == ["alarm.unshelved", "alarm.reraised", "ladder.stopped", "ladder.started"]
    assert plant.climb().paused == ""
    assert plant.climb().t0.mono_s == pytest.approx(100 + 3 * HOUR, abs=20)


def test_shelved_and_normal_again_it_ends_with_the_shelf() -> None:
    plant = Plant()
    plant.read(76)
    plant.shelve(HOUR)
    assert plant.read(70) == ["alarm.returned"]
    assert plant.take(plant.engine.uncover(HIGH.id, OverlayKind.SHELVED, "wang", plant.now())) == [
        "alarm.unshelved",
        "ladder.resumed",
        "alarm.closed",
        "ladder.stopped",
    ]


def test_raised_while_shelved_it_waits() -> None:
    plant = Plant()
    plant.shelve(HOUR)
    assert plant.read(76) == ["alarm.raised", "ladder.started"]
    assert plant.climb().paused == "suppressed"


def test_a_silent_sensor_climbs_and_never_freezes() -> None:
    plant = Plant((STALE,))
    plant.read(50)
    found = plant.run(9 * HOUR)
    assert found.count("ladder.step") == len(preset_plan_of(plant.climb(STALE.id).subject).rungs) - 1  # type: ignore[union-attr]
    assert "freeze.set" not in found
    assert plant.climb(STALE.id).next is None, "the last rung was climbed, as one that tells"


def test_an_alarm_of_the_plant_freezes_after_eight_hours() -> None:
    plant = Plant()
    plant.read(76)
    found = plant.run(8 * HOUR - 10)
    assert "freeze.set" not in found
    assert plant.run(20)[-3:] == ["ladder.step", "freeze.set", "deviation.opened"]


def test_an_alarm_whose_rule_is_gone_ends_its_ladder() -> None:
    plant = Plant(RULES)
    plant.read(76)
    assert plant.take(plant.engine.change((STALE,), plant.now())) == ["alarm.closed", "ladder.stopped"]


# --- on the real journal, across an outage -----------------------------------------------------------------------


class Gateway:
    """Starts and ends on one journal, at moments of ours."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.booted: dict[str, float] = {}

    async def life(self, at_s: float, boot: str, *actions: Any, clock_ms: int | None = None) -> list[str]:
        """One life of the process. Returns the kinds of its records."""
        utc_ms = NOON_MS + round(at_s * 1000) if clock_ms is None else clock_ms
        up_s = at_s - self.booted.setdefault(boot, at_s)
        instant = [Instant(utc_ms=utc_ms, mono_s=up_s + 5, boot=boot, clock=ClockState.UNSYNCED)]
        tables = (alarm_table.TABLE, table.TABLE, alive.TABLE)
        async with (
            Journal(self.folder / "journal.db", "gw1", tables) as journal,
            History(self.folder / "history.db", "gw1", flush_s=60) as history,
        ):
            first = journal.head()[0]
            stored = await journal.query(alarm_table.stored_alarms)
            engine = Engine(RULES, {n: alarm_from_json(f) for n, f in stored.items()}, instant[0])
            wall = Wall.at_start(await journal.query(alive.last_alive), instant[0])
            climbs, freezes = await journal.query(table.stored_climbs), await journal.query(table.stored_freezes)
            pipeline = Pipeline(
                engine,
                journal,
                history,
                Values(),
                Ladders(climbs, freezes, preset_plan_of, wall),
                notify=lambda _: [],
                health=PipelineHealth(),
                instant=lambda: instant[0],
            )
            pipeline.start_ladders()
            for action in actions:
                action(pipeline, instant)
            await pipeline.flush()
            await journal.write(lambda c: alive.save_alive(c, wall.alive(instant[0])))
            return [
                r.kind
                + (f" {r.body['step']['n']}" + " late" * (r.body["step"]["late_s"] > 0) if "step" in r.body else "")
                for r in await journal.read(first, 1000)
            ]


def raises(pipeline: Pipeline, instant: list[Instant]) -> None:
    pipeline.accept([Reading(point=POINT, value=76, quality=Quality.GOOD, at=instant[0])])


def passes(seconds: float) -> Any:
    def pass_time(pipeline: Pipeline, instant: list[Instant]) -> None:
        before = instant[0]
        instant[0] = Instant(
            utc_ms=before.utc_ms + round(seconds * 1000),
            mono_s=before.mono_s + seconds,
            boot=before.boot,
            clock=before.clock,
        )
        pipeline.record(pipeline.ladders.tick(instant[0]))

    return pass_time


async def test_scenario_4_on_the_journal_with_a_good_clock(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    assert await gateway.life(0, "b1", raises, passes(1.8 * HOUR)) == ["alarm.raised", "ladder.started"]
    assert await gateway.life(4.2 * HOUR, "b2") == ["ladder.step 1 late", "ladder.step 2 late"]
    assert await gateway.life(4.3 * HOUR, "b2", passes(3.7 * HOUR - 1)) == []
    assert await gateway.life(8 * HOUR - 1, "b2", passes(2)) == ["ladder.step 3", "freeze.set", "deviation.opened"]
    assert await gateway.life(9 * HOUR, "b3", passes(HOUR)) == []


async def test_scenario_4_on_the_journal_with_a_clock_reset_to_1970(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    await gateway.life(0, "b1", raises, passes(1.8 * HOUR))
    early = await gateway.life(4.2 * HOUR, "b2", clock_ms=60_000)
    assert early == ["ladder.step 1"]
    assert await gateway.life(4.2 * HOUR, "b2", clock_ms=60_000) == [], "once"
