"""The auditor on a real journal: what is overdue by the stored times alone, and what it does to the watchdog."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge import auditor as auditor_module
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.codec import alarm_json
from sitewarden.edge.alarms.machine import Alarm, On, step
from sitewarden.edge.alarms.rules import Kind, Rule
from sitewarden.edge.alarms.system import system_rule
from sitewarden.edge.alerts import outbox_table
from sitewarden.edge.alerts.message import Composer
from sitewarden.edge.alerts.outbox import Outbox, OutboxHealth, Parts
from sitewarden.edge.alerts.port import ChannelHealth, Notice, Outcome, Sent
from sitewarden.edge.auditor import AUDIT_S, Auditor, audit
from sitewarden.edge.ladders import table as ladder_table
from sitewarden.edge.ladders.climb import Climb, Subject, Wall
from sitewarden.edge.ladders.keeper import Ladders, Standing
from sitewarden.edge.ladders.plan import BY_PRIORITY, PRESETS
from sitewarden.edge.ladders.table import stored_climbs, stored_freezes
from sitewarden.edge.supervision import feed_watchdog
from sitewarden.serving.notify import Notifier
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import Instant, now

HOUR, MINUTE = 3600.0, 60.0
NOON_MS = 1_790_000_000_000
TABLES = (alarm_table.TABLE, outbox_table.TABLE, ladder_table.TABLE)
HUMID = Subject(kind="alarm", id="store.th1.humidity.high", occurrence=7, area="store", name="湿度")


class Site:
    """A journal, a ladder loop and a clock that only go on when a test says so."""

    def __init__(self, journal: Journal) -> None:
        self.journal = journal
        self.true_s = 0.0
        self.clock_off_s = 0.0
        self.boots, self.up_since_s = 1, -500.0
        self.reports: list[tuple[str, bool, float | None]] = []
        self.auditor = Auditor(journal, self.report, self.now)
        self.ladders = Ladders({}, {}, lambda s: PRESETS[BY_PRIORITY[s.priority]], Wall.at_start(None, self.now()))

    def now(self) -> Instant:
        utc_ms = NOON_MS + round((self.true_s + self.clock_off_s) * 1000)
        return Instant(utc_ms=utc_ms, mono_s=self.true_s - self.up_since_s, boot=f"boot{self.boots}")

    async def report(self, rule: Rule, on: bool, value: float | None) -> None:
        self.reports.append((rule.id, on, value))

    async def commit(self, drafts: list[Draft]) -> None:
        if drafts:
            await self.journal.append(drafts)

    async def follow(self, subject: Subject = HUMID, **said: Any) -> None:
        facts = {"open": True, "unacked": True, "on": True, **said}
        await self.commit(self.ladders.follow(Standing(subject=subject, **facts), self.now()))

    async def climb(self) -> None:
        await self.commit(self.ladders.tick(self.now()))

    async def tell(self, *persons: str, kind: str = "alarm.raised", **body: Any) -> None:
        """A record that tells people of an alarm, unless `body` says what else it is about."""
        notify = [
            {"key": f"{person}/{self.true_s:g}", "person": person, "role": "it", "channel": "sms", "step": 0}
            for person in persons
        ]
        draft = Draft(kind=kind, at=self.now(), actor="gateway", body={"alarm": alarm(), "notify": notify, **body})
        await self.journal.append([draft])

    async def rewrite(self, seq: int, kind: str, body: dict[str, Any]) -> None:
        """As if the rows of that record were of another one."""
        data = json.dumps({"kind": kind, "at": self.now().to_json(), "body": body}).encode()
        await self.journal.write(lambda c: c.execute("UPDATE record SET data = ? WHERE seq = ?", (data, seq)).rowcount)

    async def delivered(self, kind: str, key: str) -> None:
        body = {"key": key, "person": key.partition("/")[0], "alarm": HUMID.id, "occurrence": HUMID.occurrence}
        await self.journal.append([Draft(kind=kind, at=self.now(), actor="gateway", body=body)])

    async def power_off(self, seconds: float, *, clock_off_s: float = 0.0) -> None:
        self.true_s += seconds
        self.boots, self.up_since_s, self.clock_off_s = self.boots + 1, self.true_s, clock_off_s

    async def found(self) -> list[tuple[str, float]]:
        at = self.now()
        return [(each.what, each.late_s) for each in await self.journal.query(lambda c: audit(c, at))]

    async def look(self, after_s: float = AUDIT_S) -> list[tuple[str, bool, float | None]]:
        self.true_s += after_s
        seen = len(self.reports)
        await self.auditor.look()
        return self.reports[seen:]

    @property
    def is_fed(self) -> bool:
        """Whether the watchdog would be fed."""
        return self.now().mono_s - self.auditor.healthy() <= 20.0


def alarm(**changes: Any) -> dict[str, Any]:
    """An open one: the alarm object that records carry."""
    raised_at = Instant(utc_ms=NOON_MS, mono_s=500.0, boot="boot1")
    rule = system_rule(Kind.DISK)
    (raised,) = step(rule, Alarm(id=rule.id), On(level=rule.levels[0]), raised_at, HUMID.occurrence)
    return {**alarm_json(rule, raised.alarm, raised_at), "id": HUMID.id, "kind": "hi", **changes}


@asynccontextmanager
async def running(path: Path) -> AsyncIterator[Site]:
    async with Journal(path / "journal.db", "gw1", TABLES) as journal:
        yield Site(journal)


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async with running(tmp_path) as made:
        yield made


# --- ladders ---


async def test_a_rung_is_overdue_two_minutes_after_its_stored_time_and_not_before(site: Site) -> None:
    await site.follow(begins=True)
    site.true_s = 2 * HOUR + 2 * MINUTE
    assert await site.found() == []
    site.true_s += 1
    assert await site.found() == [(f"ladder/{HUMID.key}/1", 121.0)]
    await site.climb()
    assert await site.found() == [], "climbed late, and climbed"
    site.true_s = 5 * HOUR
    await site.climb()
    site.true_s = 8 * HOUR + 121
    assert await site.found() == [(f"ladder/{HUMID.key}/3", 121.0)], "the last one as well"
    await site.climb()
    assert await site.found() == [], "no rung is left"


@pytest.mark.parametrize("priority", [1, 2, 3])
async def test_a_ladder_that_climbs_is_never_overdue(site: Site, priority: int) -> None:
    await site.follow(Subject(kind="hazard", id="h1", priority=priority), begins=True)
    for _ in range(10 * 60):
        site.true_s += MINUTE
        await site.climb()
        assert await site.found() == []


async def test_what_stands_still_or_has_ended_is_not_overdue(site: Site) -> None:
    await site.follow(begins=True)
    await site.follow(suppressed=True)
    site.true_s = 3 * HOUR
    assert await site.found() == []
    await site.follow()
    assert [what for what, _ in await site.found()] == [f"ladder/{HUMID.key}/1"]
    await site.follow(open=False)
    assert await site.found() == []


async def test_downtime_counts_and_so_does_the_time_since_the_boot_when_the_wall_clock_is_lost(site: Site) -> None:
    await site.follow(begins=True)
    site.true_s = HOUR
    await site.power_off(2 * HOUR)
    assert await site.found() == [(f"ladder/{HUMID.key}/1", HOUR)]
    await site.power_off(60, clock_off_s=-NOON_MS / 1000)
    assert await site.found() == [], "nobody can know"
    site.true_s += 2 * HOUR + 121
    assert await site.found() == [(f"ladder/{HUMID.key}/1", 121.0)], "but this much has passed for certain"


async def test_a_clock_that_is_set_makes_nothing_overdue(site: Site) -> None:
    await site.follow(begins=True)
    await site.tell("li")
    site.true_s, site.clock_off_s = 60.0, 1000 * HOUR
    assert await site.found() == []


async def test_after_a_boot_the_first_moment_is_where_the_clock_that_was_set_puts_it(site: Site) -> None:
    await site.follow(begins=True)
    site.clock_off_s = 24 * HOUR
    jump = {"by_s": site.clock_off_s}
    await site.journal.append([Draft(kind="clock.stepped", at=site.now(), actor="gateway", body=jump)])
    await site.power_off(HOUR, clock_off_s=24 * HOUR)
    assert await site.found() == [], "an hour, not a day"
    await site.power_off(HOUR + 121, clock_off_s=24 * HOUR)
    assert await site.found() == [(f"ladder/{HUMID.key}/1", 121.0)]


# --- messages ---


async def test_a_message_that_the_outbox_says_nothing_about_for_two_minutes(site: Site) -> None:
    await site.tell("li", "wang", "zhao", "chen")
    site.true_s = 120
    assert await site.found() == []
    site.true_s = 121
    await site.delivered("delivery.accepted", "li/0")
    await site.delivered("delivery.failing", "wang/0")
    await site.delivered("delivery.dead", "zhao/0")
    assert await site.found() == [("outbox/chen/0", 121.0)]


async def test_a_message_that_quiet_hours_keep_is_overdue_two_minutes_after_their_end(site: Site) -> None:
    kept = {"key": "li/0", "person": "li", "role": "it", "channel": "sms", "step": 0, "hold_s": 3600.0}
    await site.tell(notify=[kept, {**kept, "key": "li/1", "hold_s": 1e9}])
    site.true_s = 3720
    assert await site.found() == []
    site.true_s = 86_400 + 121
    assert await site.found() == [("outbox/li/0", 86_521.0 - 3600), ("outbox/li/1", 121.0)], "a day at the most"


@pytest.mark.parametrize("name", ["alarm", "about"])
async def test_what_is_over_need_not_be_told(site: Site, name: str) -> None:
    await site.tell("li")
    site.true_s = 1
    await site.tell("wang")
    other_way = {name: HUMID.id, "occurrence": HUMID.occurrence, "key": "li/0"}
    await site.rewrite(2, "delivery.fallback", other_way)
    site.true_s = 200
    assert len(await site.found()) == 2
    closed = {"alarm": alarm(state="NORM", active=None), "reason": "reset"}
    await site.journal.append([Draft(kind="alarm.closed", at=site.now(), actor="li", body=closed)])
    assert await site.found() == []


async def test_what_is_about_no_alarm_must_be_told_as_well_and_an_answer_to_a_person_need_not(site: Site) -> None:
    await site.tell("li")
    await site.rewrite(1, "ladder.step", {"ladder": {"subject": {"kind": "hazard", "id": "h1", "occurrence": 0}}})
    site.true_s = 200
    assert [what for what, _ in await site.found()] == ["outbox/li/0"]
    await site.rewrite(1, "reply.received", {})
    site.true_s = 400
    assert await site.found() == []


async def test_an_older_occurrence_is_over_and_tests_of_the_ways_are_not_its_matter(site: Site) -> None:
    await site.tell("li")
    site.true_s = 1
    await site.tell("wang", alarm=alarm(occurrence=HUMID.occurrence + 1))
    site.true_s = 2
    await site.tell("zhao", alarm=alarm(id="store.th2.humidity.high", is_test=True))
    site.true_s = 200
    assert [what for what, _ in await site.found()] == ["outbox/wang/1"]


async def test_what_cannot_be_read_is_reported_and_breaks_nothing(site: Site) -> None:
    await site.follow(begins=True)
    await site.tell("li")
    await site.journal.write(lambda c: c.execute("UPDATE ladder_state SET data = '{}'").rowcount)
    await site.journal.write(lambda c: c.execute("UPDATE record SET data = x'ff00' WHERE seq = 2").rowcount)
    assert [what for what, _ in await site.found()] == [f"ladder/{HUMID.key}/?", "outbox/li/0"]


# --- the alarm and the watchdog ---


async def test_a_wedged_ladder_is_an_alarm_within_three_minutes_and_the_watchdog_starves(site: Site) -> None:
    """Scenario 10: as far as ladders are concerned."""
    await site.follow(begins=True)
    site.true_s = 2 * HOUR
    assert await site.look() == []
    assert site.is_fed
    assert await site.look(61) == [], "found once: it may have been about to happen"
    assert site.is_fed
    assert await site.look(5) == [("system.ladder_overdue", True, 126.0)]
    assert site.is_fed, "stale from now on"
    site.true_s += 21
    assert not site.is_fed
    assert await site.look() == [], "told once"
    assert not site.is_fed
    await site.climb()
    assert await site.look() == [("system.ladder_overdue", False, None)]
    assert site.is_fed


async def test_a_wedged_outbox_is_an_alarm_and_the_watchdog_starves(site: Site) -> None:
    """Scenario 10: as far as the outbox is concerned."""
    assert await site.look() == []
    await site.tell("li")
    assert await site.look() == []
    assert await site.look() == []
    assert await site.look() == []
    assert await site.look() == [("system.ladder_overdue", True, 240.0)]
    site.true_s += 30
    assert not site.is_fed
    await site.delivered("delivery.failing", "li/60")
    assert await site.look() == [("system.ladder_overdue", False, None)]
    assert site.is_fed


async def test_where_a_start_did_not_help_the_alarm_stays_and_the_daemon_is_left_running(site: Site) -> None:
    await site.follow(begins=True)
    site.true_s = 3 * HOUR
    fresh = Auditor(site.journal, site.report, site.now)
    for _ in range(10):
        site.true_s += AUDIT_S
        await fresh.look()
        assert site.now().mono_s - fresh.healthy() <= 20
    assert [on for _, on, _ in site.reports] == [True]
    await site.climb()
    await fresh.look()
    site.true_s = 4 * HOUR + 121
    for _ in range(2):
        await fresh.look()
    site.true_s += 30
    assert site.now().mono_s - fresh.healthy() > 20, "it had been in order since"


async def test_a_resumed_ladder_that_climbs_a_second_later_is_no_alarm(site: Site) -> None:
    await site.look()
    await site.follow(begins=True)
    await site.follow(suppressed=True)
    site.true_s = 5 * HOUR
    await site.follow()
    assert await site.look(0) == []
    await site.climb()
    assert await site.look(5) == []
    assert site.is_fed


async def test_another_thing_that_is_late_at_each_look_is_no_alarm(site: Site) -> None:
    for n in range(5):
        subject = Subject(kind="hazard", id=f"h{n}")
        await site.follow(subject, begins=True)
        site.true_s += 2 * HOUR + 200
        assert await site.look(0) == []
        await site.climb()


async def test_an_audit_that_never_comes_to_its_end_starves_the_watchdog(site: Site) -> None:
    await site.look()
    site.true_s += 180
    assert site.is_fed
    site.true_s += 1
    assert not site.is_fed


async def test_alarms_that_hang_do_not_keep_the_watchdog_fed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor_module, "REPORT_S", 0.01)

    async def hangs(*_: Any) -> None:
        await asyncio.get_running_loop().create_future()

    auditor = Auditor(site.journal, hangs, site.now)
    await site.follow(begins=True)
    await auditor.look()
    site.true_s = 3 * HOUR
    await auditor.look()
    await auditor.look()
    site.true_s += 21
    assert site.now().mono_s - auditor.healthy() > 20


# --- with the real loops ---


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(auditor_module, "AUDIT_S", 0.02)
    monkeypatch.setattr(auditor_module, "AGAIN_S", 0.02)


@asynccontextmanager
async def task_of(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, ExceptionGroup):
            await task


async def test_an_alarm_of_the_process_before_ends_when_everything_is_in_order(
    site: Site, quick: None, eventually
) -> None:
    rule = system_rule(Kind.LADDER_OVERDUE)
    (raised,) = step(rule, Alarm(id=rule.id), On(level=rule.levels[0]), site.now(), 1)
    body = {"alarm": alarm_json(rule, raised.alarm, site.now())}
    await site.journal.append([Draft(kind="alarm.raised", at=site.now(), actor="gateway", body=body)])
    async with task_of(site.auditor.run()):
        await eventually(lambda: site.reports == [(rule.id, False, None)], "it is over", every_s=0.02)


async def test_an_outbox_task_that_hangs_withholds_the_ping(
    tmp_path: Path, quick: None, eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 10, with the real outbox, the real auditor and the real feeder; its loop is stopped in the middle."""
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.setattr(auditor_module, "OVERDUE_S", 0.3)
    pings: list[str] = []
    monkeypatch.setattr(Notifier, "tell", lambda _, text: pings.append(text))

    class Robot:
        health = ChannelHealth()

        async def __aenter__(self) -> Any:
            return self

        async def __aexit__(self, *_: object) -> None:
            return None

        async def send(self, notice: Notice) -> Sent:
            return Sent(outcome=Outcome.ACCEPTED, detail=notice.key)

    async with running(tmp_path) as site:
        site.now = now
        auditor = Auditor(site.journal, site.report)
        outbox = Outbox(
            Parts(
                journal=site.journal,
                channels={"sms": Robot()},
                compose=Composer(site="s", timezone="UTC", people={}, areas={}),
                ways=lambda _facts, _person: ("sms",),
                health=OutboxHealth(),
            )
        )
        async with task_of(auditor.run()), task_of(outbox.run()) as turning:
            beats = {"auditor": auditor.healthy}
            async with task_of(feed_watchdog(Notifier(), beats, fresh_s=0.2)):
                await site.tell("li")
                await eventually(lambda: len(pings) > 20, "it is fed", every_s=0.02)
                assert await site.journal.query(_outbox_states) == ["ACCEPTED"]
                turning.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await turning
                site.true_s = 1
                await site.tell("wang")
                await eventually(lambda: site.reports, "the alarm", every_s=0.02)
                await eventually(lambda: _settles(pings), "the ping is withheld", every_s=0.3)
    assert [(name, on) for name, on, _ in site.reports] == [("system.ladder_overdue", True)]


def _settles(pings: list[str]) -> bool:
    """Whether none came since the last call."""
    came = bool(pings)
    pings.clear()
    return not came


def _outbox_states(connection: sqlite3.Connection) -> list[str]:
    return [state for (state,) in connection.execute("SELECT state FROM outbox")]


async def test_it_agrees_with_the_ladders_own_account_of_what_is_due(site: Site) -> None:
    """Two ways to the same answer: of what `Ladders.tick` would climb late, the first rung of each is overdue."""
    for n, priority in enumerate((1, 2, 3, 3, 2, 1)):
        await site.follow(Subject(kind="hazard", id=f"h{n}", priority=priority), begins=True)
        site.true_s += 700
    for n in range(60):
        site.true_s += 333
        stored = await site.journal.query(stored_climbs), await site.journal.query(stored_freezes)
        asked = Ladders(*stored, site.ladders.plan_of, Wall.at_start(None, site.now()))
        late: dict[str, str] = {}
        for draft in asked.tick(site.now()):
            if draft.kind == "ladder.step" and draft.body["step"]["late_s"] > 120:
                key = Climb.key_of(draft.body["ladder"]["subject"])
                late.setdefault(key, f"ladder/{key}/{draft.body['step']['n']}")
        assert sorted(late.values()) == sorted(what for what, _ in await site.found())
        if n % 7 == 6:
            await site.climb()
