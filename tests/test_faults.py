"""The fault loop on a real journal and with the engine that holds the alarms, across restarts and boots."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge import faults
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.codec import alarm_from_json, alarm_json
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.floods import AlarmLoad
from sitewarden.edge.alarms.machine import Alarm, On, step
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alarms.system import (
    Sight,
    is_system,
    stored_system_rules,
    system_rule,
)
from sitewarden.edge.alerts import outbox_table
from sitewarden.edge.faults import CHANNEL, Faults
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import Instant, Quality, Reading

NOON_MS = 1_790_000_000_000
DAY = 86_400.0


def at(seconds: float) -> Instant:
    return Instant(utc_ms=NOON_MS + round(seconds * 1000), mono_s=1000.0 + seconds, boot="b")


class Clock:
    """Seconds that a test lets pass, and the boots of the machine."""

    def __init__(self) -> None:
        self.s = 0.0
        self.boots = 1
        self.up_since_s = -1000.0

    def __call__(self) -> Instant:
        utc_ms = NOON_MS + round(self.s * 1000)
        return Instant(utc_ms=utc_ms, mono_s=self.s - self.up_since_s, boot=f"boot{self.boots}")

    def power_off(self, seconds: float) -> None:
        self.s += seconds
        self.boots, self.up_since_s = self.boots + 1, self.s


class Watched:
    """A loop on a journal, its clock and what it reported."""

    def __init__(self, journal: Journal, clock: Clock, stored: dict[str, dict[str, Any]]) -> None:
        self.journal = journal
        self.clock = clock
        alarms = {name: alarm_from_json(fields) for name, fields in stored.items() if is_system(fields)}
        self.engine = Engine(stored_system_rules(stored), alarms, clock())
        self.wrong: list[Sight] = []
        self.reports: list[tuple[str, bool]] = []
        self.faults = self.make()

    def make(self) -> Faults:
        return Faults(
            self.journal, load=AlarmLoad(), sources=[lambda: self.wrong], report=self.report, instant=self.clock
        )

    async def report(self, rule: Rule, on: bool, value: float | None) -> None:
        """As the daemon's owner of the alarms: its records are committed."""
        self.reports.append((rule.id, on))
        for draft in self.engine.set_fault(rule, on, self.clock(), value):
            await self.append(draft.kind, draft.body)

    async def states(self) -> dict[str, str]:
        """Of the system alarms that are committed."""
        stored = await self.journal.query(alarm_table.stored_alarms)
        return {name: fields["state"] for name, fields in stored.items() if is_system(fields)}

    async def append(self, kind: str, body: dict[str, Any]) -> None:
        await self.journal.append([Draft(kind=kind, at=self.clock(), actor="gateway", body=body)])
        await asyncio.sleep(0)  # subscribers are called on the loop

    async def look(self, after_s: float = 0.0) -> list[tuple[str, bool]]:
        """What it reports, `after_s` later."""
        self.clock.s += after_s
        seen = len(self.reports)
        await self.faults.look()
        return self.reports[seen:]

    async def alarms(self, engine: Engine, point: str, value: float) -> None:
        reading = Reading(point=point, value=value, quality=Quality.GOOD, at=self.clock())
        for draft in engine.read(reading, self.clock()):
            await self.append(draft.kind, draft.body)


@asynccontextmanager
async def watched(path: Path, clock: Clock | None = None, *, resume: bool = True) -> AsyncIterator[Watched]:
    async with Journal(path, "gw1", (alarm_table.TABLE, outbox_table.TABLE)) as journal:
        made = Watched(journal, clock or Clock(), await journal.query(alarm_table.stored_alarms))
        if resume:
            await made.faults.resume()
        yield made


def _engine(n: int) -> Engine:
    levels = (Level(kind=Kind.HI, limit=20.0, priority=3),)
    rules = [
        Rule(
            id=f"store.d{k}.t.high",
            point=f"store.d{k}.t",
            area="store",
            side=Side.HIGH,
            name="温度",
            name_en="temperature",
            unit="°C",
            levels=levels,
        )
        for k in range(n)
    ]
    return Engine(rules, {}, at(0))


async def test_chatter_is_reported_by_the_third_activation_and_ends_when_it_was_quiet(tmp_path: Path) -> None:
    async with watched(tmp_path / "journal.db") as made:
        engine = _engine(1)
        for n in range(5):
            await made.alarms(engine, "store.d0.t", 21.0 if n % 2 == 0 else 10.0)
            expected = [("system.chatter.store.d0.t.high", True)] if n == 4 else []
            assert await made.look(after_s=1) == expected
        assert await made.look(after_s=500) == []
        assert await made.states() == {"system.chatter.store.d0.t.high": "UNACK"}
        assert await made.look(after_s=100) == [("system.chatter.store.d0.t.high", False)]
        assert await made.states() == {"system.chatter.store.d0.t.high": "RTNUN"}
        for role in ("it", "control_room"):
            drafts = made.engine.acknowledge("system.chatter.store.d0.t.high", 1, role, "zhao", made.clock())
            for draft in drafts:
                await made.append(draft.kind, draft.body)
        assert await made.states() == {"system.chatter.store.d0.t.high": "NORM"}, "one person for both roles"


async def test_a_flood_is_reported_once_and_system_alarms_do_not_feed_it(tmp_path: Path) -> None:
    async with watched(tmp_path / "journal.db") as made:
        engine = _engine(30)
        for n in range(30):
            await made.alarms(engine, f"store.d{n}.t", 21.0)
            await made.look(after_s=0.1)
        assert made.reports == [("system.flood.control_room", True)]
        assert made.faults.facts["system.flood.control_room"]["first_out"] == "store.d0.t.high"
        assert await made.look(after_s=600) == [("system.flood.control_room", False)]
        assert await made.look(after_s=DAY - 700) == []
        assert await made.look(after_s=200) == [("system.standing", True)]


async def test_a_restart_in_the_middle_goes_on_as_if_there_were_none(tmp_path: Path) -> None:
    """Every detector has the same answer with and without a restart, also after a boot with other monotonic seconds."""
    clock, engine = Clock(), _engine(12)
    async with watched(tmp_path / "journal.db", clock) as made:
        await made.alarms(engine, "store.d11.t", 21.0)
        clock.s += DAY - 60
        for n in range(11):
            await made.alarms(engine, f"store.d{n}.t", 21.0)
        for value in (10.0, 21.0, 10.0, 21.0):
            await made.alarms(engine, "store.d0.t", value)
            clock.s += 1
        await made.append("alarm.raised", {"alarm": _open_alarm(clock()), **_notify("li")})
        await made.append("delivery.failing", {"key": "li", "person": "li"})
        await made.append("clock.stepped", {"by_s": 60.0})
        assert len(await made.look()) == 3
        before = await made.look(after_s=5)
        now_on = {name for name, on in made.reports if on}
        assert before == [("system.delivery_failed.li", True)]
        assert now_on == {
            "system.flood.control_room",
            "system.chatter.store.d0.t.high",
            "system.clock_step",
            "system.delivery_failed.li",
        }
    clock.power_off(30)
    async with watched(tmp_path / "journal.db", clock) as made:
        assert await made.look() == [], "nothing is over, nothing is told twice"
        assert made.faults.facts.keys() == now_on
        assert await made.look(after_s=60) == [("system.standing", True)], "on for a day, most of it before"
        assert await made.look(after_s=480) == []
        ended = [await made.look(after_s=5) for _ in range(10)]
        assert sorted(name for each in ended for name, on in each if not on) == [
            "system.chatter.store.d0.t.high",
            "system.clock_step",
            "system.flood.control_room",
        ]
        assert made.faults.facts.keys() == {"system.delivery_failed.li", "system.standing"}


async def test_what_was_on_and_is_gone_from_the_site_ends_after_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    async with watched(tmp_path / "journal.db", clock) as made:
        made.wrong = [Sight(rule=system_rule(Kind.MODEM_DOWN, "sms1"))]
        assert await made.look() == [("system.modem_down.sms1", True)]
        assert made.faults.facts.keys() == {"system.modem_down.sms1"}
        overdue = system_rule(Kind.LADDER_OVERDUE)
        await made.report(overdue, True, 200.0)
    async with watched(tmp_path / "journal.db", clock) as made:
        assert await made.look() == []
        assert await made.look(after_s=120) == [("system.modem_down.sms1", False)]
        assert await made.look(after_s=1000) == [], "what the auditor says is the auditor's to end"


async def test_records_that_are_committed_while_it_starts_are_seen_once(tmp_path: Path) -> None:
    async with watched(tmp_path / "journal.db", resume=False) as made:
        engine = _engine(10)
        for n in range(10):
            await made.alarms(engine, f"store.d{n}.t", 21.0)
        await made.faults.resume()
        assert await made.look() == [], "ten, each of them once"
        await made.alarms(_engine(11), "store.d10.t", 21.0)
        assert await made.look() == [("system.flood.control_room", True)]


async def test_records_that_are_committed_after_it_has_read_and_before_it_follows_are_not_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with watched(tmp_path / "journal.db", resume=False) as made:
        read = made.journal.read

        async def slow(after: int, limit: int) -> list[Any]:
            records = await read(after, limit)
            if not records and not made.wrong:
                made.wrong = [Sight(rule=system_rule(Kind.DISK), delays=CHANNEL)]
                await made.append("clock.stepped", {"by_s": 60.0})
            return records

        monkeypatch.setattr(made.journal, "read", slow)
        await made.faults.resume()
        assert await made.look() == [("system.clock_step", True)]
        assert made.faults.facts.keys() == {"system.clock_step"}, "the disk is not told yet"


async def test_what_is_open_for_days_is_known_after_a_restart_however_long_ago_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    async with watched(tmp_path / "journal.db", clock) as made:
        await made.append("alarm.raised", {"alarm": _open_alarm(clock()), **_notify("li")})
        await made.append("delivery.failing", {"key": "li", "person": "li"})
        await made.look()
        assert await made.look(after_s=5) == [("system.delivery_failed.li", True)]
        assert await made.look(after_s=3 * DAY) == [("system.standing", True)]
    async with watched(tmp_path / "journal.db", clock) as made:
        assert await made.look(after_s=1) == []
        assert await made.look(after_s=1000) == []
    monkeypatch.setattr(faults, "_MOST_RECORDS", 1)
    async with watched(tmp_path / "journal.db", clock) as made:
        assert await made.look() == []
        assert await made.look(after_s=120) == [("system.delivery_failed.li", False)], "too long ago to know"
        assert "system.standing" in made.faults.facts, "the alarm itself says since when it is on"


async def test_a_clock_that_jumped_is_a_fault_for_ten_minutes(tmp_path: Path) -> None:
    async with watched(tmp_path / "journal.db") as made:
        await made.append("clock.behind", {"by_s": -7200.0})
        assert await made.look() == [("system.clock_step", True)]
        assert await made.look(after_s=300) == []
        await made.append("clock.stepped", {"by_s": 7200.0})
        assert await made.look(after_s=599) == [], "it jumped again meanwhile"
        assert await made.look(after_s=1) == [("system.clock_step", False)]


async def test_the_loop_turns(tmp_path: Path, eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "LOOK_S", 0.01)
    async with watched(tmp_path / "journal.db", resume=False) as made:
        task = asyncio.create_task(made.faults.run())
        made.wrong = [Sight(rule=system_rule(Kind.DISK))]
        await eventually(lambda: made.reports == [("system.disk", True)], "the fault is reported", every_s=0.02)
        began_s = made.faults.beat_s
        await eventually(lambda: made.faults.beat_s > began_s, "it beats", every_s=0.02)
        made.wrong = []
        await eventually(lambda: len(made.reports) == 2, "and its end", every_s=0.02)
        await _end(task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _open_alarm(when: Instant) -> dict[str, Any]:
    rule = Rule(
        id="boiler.p1.p.high",
        point="boiler.p1.p",
        area="boiler",
        side=Side.HIGH,
        name="压力",
        name_en="pressure",
        unit="MPa",
        levels=(Level(kind=Kind.HI, limit=1.0, priority=2),),
        required_acks=("it",),
    )
    (raised,) = step(rule, Alarm(id=rule.id), On(level=rule.levels[0], value=3.0), when, 99)
    return alarm_json(rule, raised.alarm, when)


def _notify(person: str) -> dict[str, Any]:
    return {"notify": [{"key": person, "person": person, "role": "it", "channel": "sms"}]}
