"""The proof test: what it asks of each step, when it may begin, what ends it, and that a test never looks like more."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self
from zoneinfo import ZoneInfo

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.codec import alarm_json
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alerts.beacon import Beacon, BeaconSettings, OutputRef
from sitewarden.edge.alerts.opened import Open, opened
from sitewarden.edge.alerts.picture import Part as Lamp
from sitewarden.edge.alerts.port import Channel, ChannelHealth, Notice, Outcome, Receiver, Sent
from sitewarden.edge.alerts.sms.memory import FileMemory
from sitewarden.edge.alerts.sms.modem import SmsModem, SmsSettings
from sitewarden.edge.ladders.climb import Wall
from sitewarden.edge.ladders.keeper import Ladders
from sitewarden.edge.pipeline import Pipeline, PipelineHealth
from sitewarden.edge.proof import plan, refusals, table, weekly
from sitewarden.edge.proof.chain import Chain, Witness, headquarters
from sitewarden.edge.proof.plan import Bounds, Course, Evidence, Part, Result, Verdict, Way
from sitewarden.edge.proof.run import ProofTest
from sitewarden.edge.proof.weekly import Schedule, Turn, Week
from sitewarden.edge.values import Values
from sitewarden.errors import RefusedError
from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec
from sitewarden.sensors.modbus import Bus
from sitewarden.sensors.profiles import load_catalogue
from sitewarden.sync.cloud_client import UplinkOptions
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal, Record, rebuild
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.uplink import run_uplink
from sitewarden.tests.peers.fake_modem import FakeModem
from sitewarden.tests.peers.modbus_lamp import ModbusLamp
from sitewarden.words import Instant, Quality, Reading, now

POINT = "pit.gas4.h2s"
RULE = Rule(
    id=f"{POINT}.high",
    point=POINT,
    area="pit",
    side=Side.HIGH,
    name="硫化氢",
    name_en="hydrogen sulphide",
    unit="ppm",
    levels=(Level(kind=Kind.HI, limit=7, priority=2), Level(kind=Kind.HIHI, limit=14, priority=1, latching=True)),
)
LOW = replace(RULE, id=f"{POINT}.low", side=Side.LOW, levels=(Level(kind=Kind.LO, limit=1, priority=3),))
STALE = replace(RULE, id=f"{POINT}.stale", side=Side.STALE, levels=(Level(kind=Kind.STALE, limit=60, priority=2),))
OTHER = replace(RULE, id="hall.gas1.h2.high", point="hall.gas1.h2", area="hall")
MINOR = replace(RULE, id="pit.th1.t.high", point="pit.th1.t", levels=(Level(kind=Kind.HI, limit=40, priority=3),))
PEOPLE = {"wang": "keeper", "li": "officer"}
PHONES = {"wang": "+8613800138000", "li": "+8613900139000"}
Eventually = Callable[..., Awaitable[Any]]

# --- what is asked of each step ---------------------------------------------------------------------------------------

WAYS = {"sms": plan.way_of("sms", 120.0), "tower": plan.way_of("beacon"), "group": plan.way_of("wecom")}
HOLDERS = {"keeper": ["wang"], "officer": ["li"]}


def entry(key: str, channel: str, person: str = "", role: str = "") -> dict[str, Any]:
    return {"key": key, "person": person, "role": role, "channel": channel, "step": 0, "kind": "alarm.raised"}


ENTRIES = [
    entry("k1", "sms", "wang", "keeper"),
    entry("k2", "sms", "li", "officer"),
    entry("k3", "tower"),
    entry("k4", "group", role="keeper"),
]


def course_of(
    entries: list[dict[str, Any]] = ENTRIES, rule: Rule = RULE, holders: Mapping[str, list[str]] = HOLDERS
) -> Course:
    """Raised at second 10 and told at once; everything that is the run's own has passed."""
    course = plan.begin(rule, WAYS, holders, Bounds())
    course = plan.started(course, tuple(Part), 10.0)
    course = plan.told(course, entries, 10.0)
    for part in (Part.SOURCE, Part.ALARM, Part.JOURNAL, *plan.WITNESSED):
        course = plan.settled(course, part, Verdict.PASSED, 11.0)
    return plan.all_told(course, 10.0)


def verdicts(course: Course) -> dict[str, str]:
    return {f"{s.part}{':' if s.key else ''}{s.key}": s.verdict.value if s.verdict else "" for s in course.steps}


def after(course: Course, *news: tuple[float, str, str]) -> Course:
    for at_s, kind, key in news:
        course = plan.progressed(course, f"delivery.{kind}", key, "why not", at_s)
    return course


ALL_GOOD = (
    (12.0, "accepted", "k1"),
    (20.0, "delivered", "k1"),
    (13.0, "accepted", "k2"),
    (33.0, "delivered", "k2"),
    (14.0, "delivered", "k3"),
    (12.5, "accepted", "k4"),
)


def test_a_run_is_passed_when_every_step_is() -> None:
    course = after(course_of(), *ALL_GOOD[:-1])
    assert not course.is_over
    course = after(course, ALL_GOOD[-1])
    assert course.is_over
    assert set(verdicts(course).values()) == {"passed"}
    assert course.result is Result.PASSED
    seconds = {(step.part, step.key): step.seconds for step in course.steps}
    assert seconds[Part.ACCEPTED, "k2"] == 3.0
    assert seconds[Part.DELIVERED, "k2"] == 20.0, "counted from the acceptance"
    assert seconds[Part.SOUNDED, "k3"] == 4.0
    assert (Part.DELIVERED, "k4") not in seconds, "a robot cannot say whether anybody has it"


@pytest.mark.parametrize("lost", range(len(ALL_GOOD)))
def test_whatever_is_missing_fails_the_run(lost: int) -> None:
    course = after(course_of(), *(news for at, news in enumerate(ALL_GOOD) if at != lost))
    missing = [step for step in course.steps if step.verdict is None]
    assert not course.is_over or ALL_GOOD[lost][1] == "accepted", "delivered says that it was accepted"
    if not missing:
        return
    limit_s = max((step.began_s or 0) + step.bound_s for step in missing)
    assert not plan.overdue(course, limit_s - 0.1, alarms_open=False).is_over
    course = plan.overdue(course, limit_s, alarms_open=False)
    assert course.result is Result.FAILED
    assert {step.detail[:11] for step in course.steps if step.verdict is Verdict.FAILED} == {"not within "}


def test_a_delivery_that_is_dead_or_never_accepted_fails_once() -> None:
    course = after(course_of(), (12.0, "dead", "k1"))
    assert verdicts(course)["accepted:k1"] == verdicts(course)["delivered:k1"] == "failed"
    assert [step.detail for step in course.steps if step.key == "k1"] == ["why not", "why not"]
    course = plan.overdue(after(course_of(), (50.0, "failing", "k2")), 70.0, alarms_open=False)
    assert verdicts(course)["accepted:k2"] == "failed"
    assert verdicts(course)["delivered:k2"] == "left_out", "it was never under way"
    (step,) = (step for step in course.steps if (step.part, step.key) == (Part.ACCEPTED, "k2"))
    assert step.detail == "not within 60 s; why not"
    assert verdicts(after(course, (71.0, "accepted", "k2"))) == verdicts(course), "the first verdict stays"


@pytest.mark.parametrize(
    ("entries", "holders", "detail"),
    [
        (ENTRIES, HOLDERS, ""),
        (ENTRIES[:1], HOLDERS, "li is not told"),
        ([ENTRIES[0], {**ENTRIES[3], "mentions": ["li"]}], HOLDERS, ""),
        (ENTRIES, {**HOLDERS, "officer": ["li", "zhao"]}, "zhao is not told"),
        (ENTRIES, {**HOLDERS, "officer": []}, "nobody is officer now"),
    ],
)
def test_everybody_is_told_who_must_be(
    entries: list[dict[str, Any]], holders: dict[str, list[str]], detail: str
) -> None:
    course = course_of(entries, holders=holders)
    (step,) = (step for step in course.steps if step.part is Part.RECIPIENTS)
    assert step.verdict is (Verdict.FAILED if detail else Verdict.PASSED)
    assert step.detail == (detail or "keeper, officer")


def test_who_was_told_of_a_milder_level_was_told() -> None:
    """hi tells the one, hihi the other: two records of one run."""
    course = plan.begin(RULE, WAYS, HOLDERS, Bounds())
    for one in ENTRIES[:2]:
        course = plan.told(course, [one], 10.0)
    assert verdicts(plan.all_told(course, 10.0))["recipients"] == "passed"
    assert len(plan.told(course, ENTRIES[:2], 11.0).steps) == len(course.steps), "the same delivery is one"


def test_channels_by_what_they_can_prove() -> None:
    assert plan.way_of("sms", 120.0) == Way(kind="sms", evidence=Evidence.REPORT, report_s=150.0)
    assert plan.way_of("sms", 0.0).evidence is Evidence.TAKEN, "it asks for no reports"
    assert plan.way_of("beacon").evidence is Evidence.READ_BACK
    assert {plan.way_of(kind).evidence for kind in ("wecom", "mail", "speech", "webhook")} == {Evidence.TAKEN}


def test_what_the_site_does_not_have_is_said_and_is_no_failure() -> None:
    course = course_of([entry("k1", "group", "wang", "keeper"), entry("k2", "group", "li", "officer")])
    absent = {(step.part, step.kind) for step in course.steps if step.verdict is Verdict.NOT_THERE}
    assert absent == {(Part.DELIVERED, "sms"), (Part.SOUNDED, "beacon")}
    assert after(course, (12, "accepted", "k1"), (12, "accepted", "k2")).result is Result.PASSED


@pytest.mark.parametrize(("alarms_open", "verdict"), [(True, "left_out"), (False, "failed")])
def test_a_siren_that_an_alarm_keeps_is_not_proven(alarms_open: bool, verdict: str) -> None:
    news = [one for one in ALL_GOOD if one[2] != "k3"]
    course = plan.overdue(after(course_of(), *news), 100.0, alarms_open=alarms_open)
    assert verdicts(course)["sounded:k3"] == verdict
    assert course.result is (Result.INCOMPLETE if alarms_open else Result.FAILED)


def test_without_an_alarm_nothing_else_is_tried() -> None:
    rule = replace(RULE, levels=(replace(RULE.levels[0], on_delay_s=60.0),))
    course = plan.started(plan.begin(rule, WAYS, HOLDERS, Bounds()), (Part.SOURCE, Part.ALARM), 0.0)
    course = plan.settled(course, Part.SOURCE, Verdict.PASSED, 0.0)
    assert not plan.overdue(course, 64.9, alarms_open=False).is_over, "the real delay is waited for"
    course = plan.overdue(course, 65.0, alarms_open=False)
    assert course.is_over
    assert [s.part for s in course.steps if s.verdict is Verdict.FAILED] == [Part.ALARM]
    assert course.result is Result.FAILED


@pytest.mark.parametrize(
    ("age_s", "quality", "turned", "word"),
    [
        (0.0, Quality.GOOD, 100.0, ""),
        (10.0, Quality.UNCERTAIN, 100.0, ""),
        (61.0, Quality.GOOD, 100.0, "61 s old"),
        (0.0, Quality.BAD, 100.0, "bad: timeout"),
        (0.0, Quality.GOOD, 94.0, "have not turned"),
    ],
)
def test_the_real_readings_must_come(age_s: float, quality: Quality, turned: float, word: str) -> None:
    at = Instant(utc_ms=0, mono_s=100.0 - age_s, boot="b")
    value = None if quality is Quality.BAD else 1.0
    reading = Reading(point=POINT, value=value, quality=quality, why="timeout" if value is None else "", at=at)
    trouble = plan.source_trouble(reading, 100.0, 60.0, turned)
    assert word in trouble
    assert bool(trouble) is bool(word)
    assert "no reading" in plan.source_trouble(None, 100.0, 60.0, turned)


def test_which_alarm_of_a_point_is_tested() -> None:
    assert plan.rule_to_test([STALE, LOW, RULE]) is RULE
    assert plan.rule_to_test([STALE, LOW]) is LOW
    assert plan.rule_to_test([STALE]) is None


# --- when it may begin ------------------------------------------------------------------------------------------------

P1 = Open(id=RULE.id, occurrence=1, priority=1, area="pit", point=POINT)
P3 = Open(id=MINOR.id, occurrence=1, priority=3, area="pit", point=MINOR.point)


@pytest.mark.parametrize(
    ("alarms", "given_", "reason"),
    [
        ([], {}, None),
        ([], {"running": True}, "already_running"),
        ([], {"permit": True}, "permit_active"),
        ([], {"flood": True}, "flood"),
        ([P1], {}, "real_alarm"),
        ([P1], {"permit": True}, "real_alarm"),
        ([replace(P1, acked=True)], {}, "real_alarm"),
        ([replace(P1, acked=True, covered=True)], {}, None),
        ([P3], {}, "real_alarm"),
        ([replace(P3, acked=True)], {}, None),
        ([replace(P1, area="hall")], {}, None),
        ([replace(P1, area="", point="")], {}, "real_alarm"),
    ],
)
def test_when_a_test_is_refused(alarms: list[Open], given_: dict[str, bool], reason: str | None) -> None:
    refused = refusals.refusal("pit", alarms, **{"running": False, "permit": False, "flood": False, **given_})
    assert (refused[0].value if refused else None) == reason


@pytest.mark.parametrize(
    ("alarm", "ends"),
    [
        (P1, True),
        (replace(P1, priority=2, acked=True), True),
        (replace(P1, area="", point=""), True),
        (replace(P1, area="hall"), False),
        (replace(P1, covered=True, acked=True), False),
        (P3, False),
    ],
)
def test_what_ends_a_test(alarm: Open, ends: bool) -> None:
    assert refusals.overriding("pit", [P3, alarm]) == (alarm.id if ends else "")


# --- the week ---------------------------------------------------------------------------------------------------------

MONDAY = Schedule(point=POINT, weekday=0, hour=10)


def ms(text: str, zone: str = "Asia/Shanghai") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


@pytest.mark.parametrize(
    ("at", "done", "since", "want"),
    [
        ("2026-11-23 09:59", "2026-11-16", "2026-11-01 00:00", None),  # a Monday
        ("2026-11-23 10:00", "2026-11-16", "2026-11-01 00:00", (Turn.DUE, "2026-11-23")),
        ("2026-11-23 23:59", "2026-11-16", "2026-11-01 00:00", (Turn.DUE, "2026-11-23")),
        ("2026-11-24 00:00", "2026-11-16", "2026-11-01 00:00", (Turn.MISSED, "2026-11-23")),
        ("2026-11-23 10:00", "2026-11-23", "2026-11-01 00:00", None),
        ("2026-11-25 10:00", "2026-11-23", "2026-11-01 00:00", None),
        ("2026-11-23 09:59", "", "2026-11-01 00:00", (Turn.MISSED, "2026-11-16")),
        ("2026-11-23 10:30", "", "2026-11-23 10:10", None),  # it was not planned then
        ("2026-11-23 10:30", "2036-01-07", "2026-11-01 00:00", (Turn.DUE, "2026-11-23")),  # a clock that was wrong
        ("2026-11-23 10:30", "", "2036-01-01 00:00", (Turn.DUE, "2026-11-23")),
    ],
)
def test_what_the_week_asks_for(at: str, done: str, since: str, want: tuple[Turn, str] | None) -> None:
    week = Week(schedule=MONDAY.to_json(), since_ms=ms(since), day=done)
    assert weekly.turn(MONDAY, week, ms(at), "Asia/Shanghai") == want


@pytest.mark.parametrize(
    ("schedule", "first_utc"),
    [
        (Schedule(point=POINT, weekday=6, hour=2, minute=30), "2026-03-29 01:30"),  # 02:30 is leapt over
        (Schedule(point=POINT, weekday=6, hour=2, minute=30), "2026-10-25 00:30"),  # 02:30 comes twice
    ],
)
def test_summer_time_begins_and_ends(schedule: Schedule, first_utc: str) -> None:
    first_ms = ms(first_utc, "UTC")
    day = first_utc[:10]
    week = Week(schedule=schedule.to_json())
    before = weekly.turn(schedule, week, first_ms - 1, "Europe/Berlin")
    assert before is not None
    assert before[1] != day
    assert weekly.turn(schedule, week, first_ms, "Europe/Berlin") == (Turn.DUE, day)
    assert weekly.turn(schedule, replace(week, day=day), first_ms + 3_600_000, "Europe/Berlin") is None


@settings(deadline=None)
@given(
    st.integers(1_700_000_000, 2_050_000_000),
    st.builds(
        Schedule, point=st.just(POINT), weekday=st.integers(0, 6), hour=st.integers(0, 23), minute=st.integers(0, 59)
    ),
    st.sampled_from(("Asia/Shanghai", "Europe/Berlin", "America/New_York", "UTC")),
    st.integers(0, 26),
)
def test_one_slot_a_week_is_run_or_missed(start_s: int, schedule: Schedule, zone: str, off_h: int) -> None:
    """Asked every quarter of an hour for three weeks; after each slot the gateway is off for a while."""
    at = start = datetime.fromtimestamp(start_s, ZoneInfo("UTC"))
    week = Week(schedule=schedule.to_json(), since_ms=start_s * 1000)
    days: list[tuple[Turn, datetime]] = []
    while at < start + timedelta(days=21):
        found = weekly.turn(schedule, week, round(at.timestamp() * 1000), zone)
        if found is not None:
            days.append((found[0], datetime.fromisoformat(found[1])))
            week = replace(week, day=found[1])
            at += timedelta(days=6, hours=12 + off_h)
        at += timedelta(minutes=15)
    assert 2 <= len(days) <= 3
    assert all(day.weekday() == schedule.weekday for _, day in days)
    for (_, one), (_, other) in itertools.pairwise(days):
        assert other - one == timedelta(days=7)


# --- the chain --------------------------------------------------------------------------------------------------------


@dataclass
class Deliveries:
    """What the outbox promises, and nothing else: rows from `notify`, one attempt each, `delivery.*` records."""

    journal: Journal
    channels: Mapping[str, Channel]
    receipts: dict[str, str] = field(default_factory=dict)
    notices: list[Notice] = field(default_factory=list)
    queue: asyncio.Queue[tuple[Record, dict[str, Any]]] = field(default_factory=asyncio.Queue)
    loose: set[asyncio.Task[Any]] = field(default_factory=set)

    def committed(self, records: list[Record]) -> None:
        for record in records:
            for one in record.body.get("notify", ()):
                self.queue.put_nowait((record, one))

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:
                record, one = await self.queue.get()
                group.create_task(self.deliver(record, one))

    async def deliver(self, record: Record, one: dict[str, Any]) -> None:
        person = one["person"]
        alarm = record.body["alarm"]
        notice = Notice(
            key=one["key"],
            to=Receiver(person=person, phone=PHONES.get(person, "")),
            title="t",
            text=f"{alarm['name']} {alarm['value']:g} {alarm['unit']}",
            priority=alarm["priority"],
            is_test=bool(alarm.get("is_test")),
            facts={"alarm": alarm},
        )
        self.notices.append(notice)
        sent = await self.channels[one["channel"]].send(notice)
        words = {Outcome.ACCEPTED: "accepted", Outcome.DELIVERED: "delivered", Outcome.REFUSED: "dead"}
        if sent.outcome in words:
            self.receipts[sent.receipt] = one["key"]
            await self.say(words[sent.outcome], one["key"], sent.detail)

    async def say(self, word: str, key: str, error: str) -> None:
        body = {"key": key, "error": error}
        await self.journal.append([Draft(kind=f"delivery.{word}", at=now(), actor="gateway", body=body)])

    def report(self, receipt: str, delivered: bool, detail: str) -> None:
        if delivered:
            task = asyncio.get_running_loop().create_task(self.say("delivered", self.receipts[receipt], detail))
            self.loose.add(task)
            task.add_done_callback(self.loose.discard)

    def reply(self, phone: str, text: str, sent_ms: int | None = None) -> None: ...


class Fake:
    """A channel that answers as it is told."""

    def __init__(self, outcome: Outcome) -> None:
        self.health = ChannelHealth()
        self.outcome = outcome

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None: ...

    async def send(self, notice: Notice) -> Sent:
        return Sent(outcome=self.outcome, detail="as told")


@dataclass
class Clock:
    """Both clocks, moved on by hand."""

    ahead_s: float = 0.0

    def __call__(self) -> Instant:
        at = now()
        return replace(at, utc_ms=at.utc_ms + round(self.ahead_s * 1000), mono_s=at.mono_s + self.ahead_s)

    def go_to(self, utc_ms: int) -> None:
        self.ahead_s += (utc_ms - self().utc_ms) / 1000


@dataclass
class Plant:
    """A real journal, history and pipeline with a proof test beside them."""

    journal: Journal
    history: History
    values: Values
    pipeline: Pipeline
    proof: ProofTest
    deliveries: Deliveries
    clock: Clock
    permits: set[str] = field(default_factory=set)
    flood: list[None] = field(default_factory=list)
    undisclosed: list[Open] = field(default_factory=list)

    def read(self, value: float, point: str = POINT) -> None:
        reading = Reading(point=point, value=value, quality=Quality.GOOD, at=self.clock())
        self.pipeline.accept([reading])

    def alarms(self) -> tuple[Open, ...]:
        return open_of(self.pipeline.engine)

    async def records(self, kind: str = "") -> list[Record]:
        return [record for record in await self.journal.read(0, 10_000) if record.kind.startswith(kind)]

    async def last(self) -> dict[str, Any]:
        runs = await self.journal.query(table.last_runs)
        return runs[0] if runs else {"result": ""}

    async def over(self, eventually: Eventually) -> dict[str, Any]:
        async def ended() -> dict[str, Any] | None:
            run = await self.last()
            return run if run["result"] not in ("", table.RUNNING) else None

        return await eventually(ended, "the end of the run")


def open_of(engine: Engine) -> tuple[Open, ...]:
    rules = (RULE, OTHER, MINOR)
    return opened(alarm_json(rule, engine.alarm(rule.id), now()) for rule in rules)


@asynccontextmanager
async def plant(
    folder: Path,
    *,
    channels: Mapping[str, Channel] | None = None,
    ways: Mapping[str, Way] | None = None,
    entries: list[tuple[str, str]] | None = None,
    witnesses: Mapping[Part, Witness] | None = None,
    rule: Rule = RULE,
    bounds: Bounds | None = None,
) -> AsyncIterator[Plant]:
    """`entries`: (person, channel) of whom to tell. Everything runs; enter the channels yourself."""
    channels = {"robot": Fake(Outcome.ACCEPTED)} if channels is None else channels
    told = entries or [(person, "robot") for person in PEOPLE]
    async with AsyncExitStack() as stack:
        journal = await stack.enter_async_context(
            Journal(folder / "journal.db", "gw1", (alarm_table.TABLE, table.TABLE))
        )
        history = await stack.enter_async_context(History(folder / "history.db", "gw1", flush_s=60))
        values, health, clock = Values([RULE.point, OTHER.point, MINOR.point]), PipelineHealth(), Clock()

        def notify(draft: Draft) -> list[dict[str, Any]]:
            alarm = draft.body["alarm"]
            if draft.kind not in ("alarm.raised", "alarm.reraised"):
                return []
            names = ((f"{alarm['id']}/{alarm['occurrence']}/{draft.kind}/{p}/{c}", c, p) for p, c in told)
            return [entry(key, channel, person, PEOPLE.get(person, "")) for key, channel, person in names]

        engine = Engine([rule, STALE, OTHER, MINOR], {}, now())
        ladders = Ladders({}, {}, lambda _: None, Wall.at_start(None, now()))
        pipeline = Pipeline(engine, journal, history, values, ladders, notify=notify, health=health)
        permits: set[str] = set()
        flood: list[None] = []
        undisclosed: list[Open] = []
        chain = Chain(
            journal=journal,
            commit=lambda drafts: pipeline.command(lambda _engine, _at: drafts),
            notify=notify,
            holders=lambda role, _: [person for person, held in PEOPLE.items() if held == role],
            rules=lambda point: [one for one in (rule, STALE, OTHER, MINOR) if one.point == point],
            reading=values.get,
            turned_s=lambda: health.tick_s + clock.ahead_s,
            open_alarms=lambda: [*open_of(engine), *undisclosed],
            permit_active=lambda area: area in permits,
            in_flood=lambda: bool(flood),
            ways=lambda: ways or {"robot": Way(kind="wecom")},
            witnesses=witnesses or {},
            instant=clock,
        )
        proof = ProofTest(chain, bounds)
        deliveries = Deliveries(journal, channels)
        journal.subscribe(deliveries.committed)
        tasks = [asyncio.create_task(run()) for run in (pipeline.commit, pipeline.tick, deliveries.run, proof.run)]
        try:
            yield Plant(journal, history, values, pipeline, proof, deliveries, clock, permits, flood, undisclosed)
        finally:
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended


async def seen(_: int) -> bool:
    return True


def by_part(run: dict[str, Any]) -> dict[str, list[str]]:
    parts: dict[str, list[str]] = {}
    for step in run["steps"]:
        parts.setdefault(step["part"], []).append(step["verdict"])
    return parts


async def test_a_run_from_the_button_to_its_record(tmp_path: Path, eventually: Eventually) -> None:
    async with plant(tmp_path, witnesses={Part.PAGE: seen, Part.MQTT: seen}) as made:
        made.read(1.0)
        assert await made.proof.ask(POINT, "wang") == 1
        run = await made.over(eventually)
        assert by_part(run) == {
            "source": ["passed"],
            "alarm": ["passed"],
            "journal": ["passed"],
            "recipients": ["passed"],
            "page": ["passed"],
            "mqtt": ["passed"],
            "cloud": ["not_there"],
            "accepted": ["passed", "passed"],
            "delivered": ["not_there"],
            "sounded": ["not_there"],
        }
        assert (run["result"], run["by"], run["point"], run["test"]) == ("passed", "wang", POINT, f"test.{RULE.id}")
        assert all(step["seconds"] is not None for step in run["steps"] if step["verdict"] == "passed")
        kinds = [record.kind for record in await made.records("proof.")]
        assert kinds[:2] == ["proof.started", "proof.alarm"]
        assert kinds[-2:] == ["proof.alarm", "proof.finished"]
        assert kinds.count("proof.step") == len(run["steps"])
        first, last = await made.records("proof.alarm")
        assert (first.body["change"], first.body["alarm"]["kind"], first.body["alarm"]["value"]) == (
            "raised",
            "hihi",
            14,
        )
        assert (last.body["change"], last.body["alarm"]["state"], last.body["notify"]) == ("closed", "NORM", [])
        assert await made.proof.ask(POINT, "li") == 2, "the next one has a number of its own"
        await eventually(lambda: not made.proof.is_running, "the second run")
        runs = await made.journal.query(table.last_runs)
        assert [(one["run"], one["alarm"]["occurrence"]) for one in runs] == [(2, 2), (1, 1)], "no key comes twice"
        await made.journal.write(lambda c: rebuild(c, table.TABLE))
        assert await made.journal.query(table.last_runs) == runs, "the table follows from the records alone"


async def test_a_test_is_tagged_and_never_counts(tmp_path: Path, eventually: Eventually) -> None:
    async with plant(tmp_path) as made:
        made.read(1.0)
        await made.proof.ask(POINT, "wang")
        await made.over(eventually)
        assert await made.records("alarm.") == [], "no list, no statistics, no ladder, no MQTT state"
        assert await made.journal.query(alarm_table.stored_alarms) == {}
        assert open_of(made.pipeline.engine) == ()
        newest = made.values.get(POINT)
        assert newest is not None
        assert newest.value == 1.0
        await made.history.flush()
        stored = {point: await made.history.read(point, 0, 2**52) for point in (POINT, f"test.{POINT}")}
        assert {point: [value for _, value, *_ in samples] for point, samples in stored.items()} == {
            POINT: [1.0],
            f"test.{POINT}": [],
        }
        for record in await made.records("proof.alarm"):
            assert record.body["is_test"]
            assert record.body["alarm"]["is_test"]
            assert record.body["alarm"]["id"].startswith("test.")
            assert record.body["alarm"]["point"].startswith("test.")
        trigger = (await made.records("proof.alarm"))[0].body["trigger"]
        assert (trigger["point"], trigger["why"]) == (f"test.{POINT}", "test")
        assert all(notice.is_test for notice in made.deliveries.notices)
        assert len(made.deliveries.notices) == 2


async def test_the_rules_own_delay_is_part_of_the_test(tmp_path: Path, eventually: Eventually) -> None:
    slow = tuple(replace(level, on_delay_s=1.0 + n) for n, level in enumerate(RULE.levels))
    async with plant(tmp_path, rule=replace(RULE, levels=slow)) as made:
        made.read(1.0)
        await made.proof.ask(POINT, "wang")
        run = await made.over(eventually)
        assert run["result"] == "passed"
        (alarm,) = (step for step in run["steps"] if step["part"] == "alarm")
        assert 2.0 <= alarm["seconds"] < 5.0
        changes = [record.body["change"] for record in await made.records("proof.alarm")]
        assert changes == ["raised", "reraised", "closed"], "as a real one would, level by level"
        accepted = [step for step in run["steps"] if step["part"] == "accepted"]
        assert len(accepted) == 4


async def test_a_sensor_that_is_silent_fails_and_the_rest_is_tried(tmp_path: Path, eventually: Eventually) -> None:
    async with plant(tmp_path) as made:
        await made.proof.ask(POINT, "wang")
        run = await made.over(eventually)
        assert run["result"] == "failed"
        assert by_part(run)["source"] == ["failed"]
        assert by_part(run)["accepted"] == ["passed", "passed"]


async def test_who_cannot_be_told_fails_the_run_and_no_other_delivery(tmp_path: Path, eventually: Eventually) -> None:
    channels = {"robot": Fake(Outcome.ACCEPTED), "lost": Fake(Outcome.LATER), "wrong": Fake(Outcome.REFUSED)}
    told = [("wang", "robot"), ("li", "lost"), ("li", "wrong")]
    async with plant(tmp_path, channels=channels, entries=told, bounds=Bounds(accepted_s=1.0)) as made:
        made.read(1.0)
        await made.proof.ask(POINT, "wang")
        run = await made.over(eventually)
        steps = {step["channel"]: (step["verdict"], step["detail"]) for step in run["steps"] if step["channel"]}
        assert steps == {
            "robot": ("passed", ""),
            "lost": ("failed", "not within 1 s"),
            "wrong": ("failed", "as told"),
        }
        assert run["result"] == "failed"


@pytest.mark.parametrize("reason", ["permit_active", "flood", "real_alarm", "no_such_alarm", "already_running"])
async def test_a_test_that_is_refused_leaves_nothing(tmp_path: Path, eventually: Eventually, reason: str) -> None:
    point, runs = POINT, 0
    async with plant(tmp_path, channels={"robot": Fake(Outcome.LATER)}) as made:
        made.read(1.0)
        match reason:
            case "permit_active":
                made.permits.add("pit")
            case "flood":
                made.flood.append(None)
            case "real_alarm":
                made.read(41.0, MINOR.point)
            case "no_such_alarm":
                point = "pit.gas4.nothing"
            case _:
                runs = await made.proof.ask(POINT, "li")
        with pytest.raises(RefusedError) as refused:
            await made.proof.ask(point, "wang")
        assert refused.value.reason == reason
        assert refused.value.hint
        await asyncio.sleep(0)
        assert len(await made.records("proof.started")) == runs


async def test_two_who_press_at_the_same_time_get_one_run(tmp_path: Path) -> None:
    async with plant(tmp_path, channels={"robot": Fake(Outcome.LATER)}) as made:
        made.read(1.0)
        both = await asyncio.gather(*(made.proof.ask(POINT, who) for who in PEOPLE), return_exceptions=True)
        assert [getattr(one, "reason", one) for one in both] == [1, "already_running"]


@pytest.mark.parametrize(
    ("point", "value", "ends"),
    [
        (POINT, 20.0, True),
        (POINT, 8.0, True),
        (MINOR.point, 41.0, False),  # priority 3
        (OTHER.point, 20.0, False),  # another area
    ],
)
async def test_a_real_alarm_ends_the_test_at_once(
    tmp_path: Path, eventually: Eventually, point: str, value: float, ends: bool
) -> None:
    robot = Fake(Outcome.LATER)
    async with plant(tmp_path, channels={"robot": robot}, bounds=Bounds(accepted_s=3.0)) as made:
        made.read(1.0)
        await made.proof.ask(POINT, "wang")
        await eventually(lambda: len(made.deliveries.notices) == 2, "the messages of the test")
        robot.outcome = Outcome.ACCEPTED
        made.read(value, point)
        run = await made.over(eventually)
        assert run["result"] == ("overridden" if ends else "failed")
        if ends:
            assert run["why"] == RULE.id
            assert by_part(run)["accepted"] == ["left_out", "left_out"]
            assert run["seconds"] < 3.0
        real = [notice for notice in made.deliveries.notices if not notice.is_test]
        await eventually(lambda: len(real) or len(made.deliveries.notices) > 2, "the real alarm's messages")
        assert made.pipeline.engine.alarm(f"{point}.high").occurrence == 1, "its number is its own"
        assert (await made.records("proof.alarm"))[-1].body["change"] == "closed"


async def test_a_real_alarm_between_asking_and_beginning(tmp_path: Path, eventually: Eventually) -> None:
    """Nothing is injected beside it, also while its own record is not committed yet."""
    async with plant(tmp_path) as made:
        made.read(1.0)
        asked = asyncio.create_task(made.proof.ask(POINT, "wang"))
        await eventually(lambda: made.proof._run is not None, "the run", every_s=0)
        made.undisclosed.append(P1)
        await asyncio.wait([asked])
        run = await made.over(eventually)
        assert (run["result"], run["why"], run["alarm"]) == ("overridden", RULE.id, None)
        assert await made.records("proof.alarm") == []


async def test_a_journal_that_gives_back_something_else(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with plant(tmp_path) as made:
        made.read(1.0)
        read = made.journal.read

        async def damaged(after: int, limit: int) -> list[Record]:
            found = await read(after, limit)
            return [replace(record, body={**record.body, "alarm": {"value": 13}}) for record in found]

        with monkeypatch.context() as patch:
            patch.setattr(made.journal, "read", damaged)
            await made.proof.ask(POINT, "wang")
            run = await made.over(eventually)
        assert (by_part(run)["journal"], run["result"]) == (["failed"], "failed")


async def test_a_run_that_the_gateway_did_not_survive_is_interrupted(tmp_path: Path, eventually: Eventually) -> None:
    async with plant(tmp_path, channels={"robot": Fake(Outcome.LATER)}) as made:
        made.read(1.0)
        await made.proof.ask(POINT, "wang")
        await eventually(lambda: len(made.deliveries.notices) == 2, "the messages")
        await eventually(lambda: made.proof._run and len(made.proof._run.recorded) >= 4, "steps")
    async with plant(tmp_path) as made:
        run = await made.over(eventually)
        assert (run["result"], run["seconds"]) == ("interrupted", None)
        assert by_part(run)["alarm"] == ["passed"], "what was known stays"
        assert [record.body["change"] for record in await made.records("proof.alarm")] == ["raised", "closed"]
        made.read(1.0)
        assert await made.proof.ask(POINT, "wang") == 2
    async with plant(tmp_path) as made:
        await eventually(lambda: _count(made, "proof.finished", 2), "the end")
        assert (await made.over(eventually))["run"] == 2, "each run ends once"


# --- the week, in the chain -------------------------------------------------------------------------------------------


async def scheduled(made: Plant, eventually: Eventually, schedule: Schedule | None = MONDAY) -> None:
    made.proof.use(schedule, "Asia/Shanghai")
    await eventually(lambda: made.records("proof.scheduled"), "the schedule")


async def test_the_week_begins_a_run_once(tmp_path: Path, eventually: Eventually) -> None:
    async with plant(tmp_path) as made:
        made.clock.go_to(ms("2027-03-01 09:58"))  # a Monday
        await scheduled(made, eventually)
        made.proof.use(MONDAY, "Asia/Shanghai")
        assert await made.records("proof.started") == []
        made.clock.go_to(ms("2027-03-01 10:00"))
        made.read(1.0)
        made.proof.use(MONDAY, "Asia/Shanghai")
        run = await made.over(eventually)
        assert (run["result"], run["by"], run["day"]) == ("passed", "gateway", "2027-03-01")
        made.clock.go_to(ms("2027-03-01 15:00"))
        made.proof.use(MONDAY, "Asia/Shanghai")
        beat_s = made.proof.beat_s
        await eventually(lambda: made.proof.beat_s > beat_s and not made.proof.is_running, "another look")
        assert len(await made.records("proof.started")) == 1
        assert len(await made.records("proof.scheduled")) == 1, "the same schedule is said once"


async def test_a_slot_that_passed_while_it_was_off(tmp_path: Path, eventually: Eventually) -> None:
    async with plant(tmp_path) as made:
        made.clock.go_to(ms("2027-03-01 09:00"))
        await scheduled(made, eventually)
    async with plant(tmp_path) as made:
        made.clock.go_to(ms("2027-03-01 21:00"))
        made.proof.use(MONDAY, "Asia/Shanghai")
        assert (await made.over(eventually))["day"] == "2027-03-01", "the same day: made up for"
    async with plant(tmp_path) as made:
        made.clock.go_to(ms("2027-03-09 08:00"))
        made.proof.use(MONDAY, "Asia/Shanghai")
        (missed,) = await eventually(lambda: made.records("proof.missed"), "the record")
        assert missed.body == {"day": "2027-03-08", "why": "off"}
        assert len(await made.records("proof.started")) == 1, "the next week's follows"


async def test_a_slot_that_is_refused_is_tried_again_and_then_missed(tmp_path: Path, eventually: Eventually) -> None:
    async with plant(tmp_path) as made:
        made.clock.go_to(ms("2027-03-01 09:00"))
        await scheduled(made, eventually)
        made.permits.add("pit")
        made.clock.go_to(ms("2027-03-01 10:00"))
        made.proof.use(MONDAY, "Asia/Shanghai")
        (refused,) = await eventually(lambda: made.records("proof.refused"), "the refusal")
        assert refused.body == {"day": "2027-03-01", "why": "permit_active"}
        again_s = made.proof._retry_s
        made.clock.ahead_s += weekly.RETRY_S + 1
        made.proof._wake.set()
        await eventually(lambda: made.proof._retry_s > again_s, "the next try")
        made.clock.ahead_s += weekly.RETRY_S - 60
        made.permits.clear()
        made.proof._wake.set()
        beat_s = made.proof.beat_s
        await eventually(lambda: made.proof.beat_s > beat_s, "another look")
        assert await made.records("proof.started") == [], "it is not asked all the time"
        assert await _count(made, "proof.refused", 1), "the same reason is said once"
        made.clock.ahead_s += 61
        made.read(1.0)
        made.proof._wake.set()
        assert (await made.over(eventually))["day"] == "2027-03-01"
        made.flood.append(None)
        made.clock.go_to(ms("2027-03-08 10:00"))
        made.proof._wake.set()
        await eventually(lambda: _count(made, "proof.refused", 2), "the next week's refusal")
        made.clock.go_to(ms("2027-03-09 00:00"))
        made.proof._wake.set()
        (missed,) = await eventually(lambda: made.records("proof.missed"), "the record")
        assert missed.body == {"day": "2027-03-08", "why": "flood"}


async def _count(made: Plant, kind: str, count: int) -> bool:
    return len(await made.records(kind)) == count


# --- real ends --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "result"), [(0, "passed"), (None, "failed"), (0x46, "failed")])
async def test_an_sms_is_proven_by_its_report_alone(
    tmp_path: Path, eventually: Eventually, status: int | None, result: str
) -> None:
    channels: dict[str, Channel] = {}
    told = [(person, "sms") for person in PEOPLE]
    ways = {"sms": Way(kind="sms", evidence=Evidence.REPORT, report_s=6.0)}
    with FakeModem(tmp_path) as modem:
        modem.status = status
        async with plant(tmp_path, channels=channels, entries=told, ways=ways) as made:
            made.read(1.0)
            memory = FileMemory(tmp_path / "sms.json")
            sms = SmsModem(SmsSettings(port=str(modem.path), memory=memory, report_s=4.0), made.deliveries)
            async with sms:
                channels["sms"] = sms
                await eventually(lambda: sms._ready, "the modem")
                await made.proof.ask(POINT, "wang")
                run = await made.over(eventually)
        assert sorted(modem.messages) == [(phone, "【测试】硫化氢 14 ppm") for phone in sorted(PHONES.values())]
    assert by_part(run)["accepted"] == ["passed", "passed"], "the network took both"
    assert set(by_part(run)["delivered"]) == {result}
    assert run["result"] == result


@dataclass
class Tower:
    lamp: ModbusLamp
    beacon: Beacon


@asynccontextmanager
async def tower(root: Path, folder: Path) -> AsyncIterator[Tower]:
    text = re.findall(
        r"^```toml\n(.*?)^```", (root / "docs" / "beacon.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    (folder / "stack_light.toml").write_text(text[0], "utf-8")
    unit = load_catalogue(folder)["stack_light"].unit("gate.tower", 1, 2.0)
    states = {output.name: tuple(name for name, _ in output.states) for output in unit.outputs}
    parts = {lamp: OutputRef(id=f"gate.tower.{lamp.value}", states=states[lamp.value]) for lamp in Lamp}
    async with ModbusLamp() as lamp, asyncio.TaskGroup() as group:
        spec = BusSpec(
            id="b", kind=BusKind.TCP, host="127.0.0.1", port=lamp.port, units=(unit,), timeout_ms=400, late_max_ms=500
        )
        bus = Bus(spec, lambda _: None, BusHealth.of(spec))

        async def set_output(name: str, state: str) -> None:
            device, _, output = name.rpartition(".")
            await bus.write(device, output, state)

        task = group.create_task(bus.run())
        made = Beacon(BeaconSettings(id="gate", parts=parts, lamp_test=None, lamp_s=1.0, chirp_s=0.3), set_output)
        async with made:
            made.show([])
            yield Tower(lamp, made)
        task.cancel()


SIREN_TOLD = [("wang", "robot"), ("li", "robot"), ("", "tower")]
SIREN_WAYS = {"robot": Way(kind="wecom"), "tower": WAYS["tower"]}


@pytest.mark.parametrize("stuck", [False, True])
async def test_the_siren_is_read_back(root: Path, tmp_path: Path, eventually: Eventually, stuck: bool) -> None:
    async with tower(root, tmp_path) as post:
        await eventually(lambda: post.lamp.seen["green"] == "on", "green")
        post.lamp.stuck = {"siren"} if stuck else set()
        channels: dict[str, Channel] = {"robot": Fake(Outcome.ACCEPTED), "tower": post.beacon}
        bounds = Bounds(sounded_s=6.0)
        async with plant(tmp_path, channels=channels, entries=SIREN_TOLD, ways=SIREN_WAYS, bounds=bounds) as made:
            made.read(1.0)
            await made.proof.ask(POINT, "wang")
            run = await made.over(eventually)
        assert by_part(run)["sounded"] == ["failed" if stuck else "passed"]
        assert run["result"] == ("failed" if stuck else "passed")
        assert (("siren", "on") in post.lamp.written) is not stuck
        assert ("red", "fast") not in post.lamp.written, "it never looks like an alarm"
        await eventually(
            lambda: post.lamp.seen == {"siren": "off", "red": "off", "amber": "off", "green": "on"}, "calm"
        )


async def test_the_siren_follows_a_real_alarm_that_comes_in_a_test(
    root: Path, tmp_path: Path, eventually: Eventually
) -> None:
    async with tower(root, tmp_path) as post:
        await eventually(lambda: post.lamp.seen["green"] == "on", "green")
        channels: dict[str, Channel] = {"robot": Fake(Outcome.ACCEPTED), "tower": post.beacon}
        async with plant(tmp_path, channels=channels, entries=SIREN_TOLD, ways=SIREN_WAYS) as made:
            made.journal.subscribe(lambda _: post.beacon.show(made.alarms()))
            made.read(1.0)
            await made.proof.ask(POINT, "wang")
            await eventually(lambda: post.lamp.seen["red"] == "slow", "the pattern of the test", every_s=0.02)
            made.read(20.0)
            run = await made.over(eventually)
            assert run["result"] == "overridden"
            await eventually(
                lambda: (
                    (post.lamp.seen["siren"], post.lamp.seen["red"], post.lamp.seen["green"]) == ("on", "fast", "off")
                ),
                "the real alarm",
            )
            assert by_part(run)["sounded"] == ["left_out"]


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@asynccontextmanager
async def background(work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_headquarters_has_a_record_when_it_says_so(tmp_path: Path, eventually: Eventually) -> None:
    gateway = GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(KEY))
    config = CloudConfig(cloud=CloudTable(name="总部", name_en="HQ", port=0), gateway=(gateway,), people={})
    async with Journal(tmp_path / "journal.db", "gw1") as journal:
        health, used = UplinkHealth(), True
        has = headquarters(journal, health, lambda: used)
        draft = Draft(kind="proof.alarm", at=now(), actor="gateway", body={})
        await journal.append([draft])
        assert await has(1) is False, "no uplink runs: nobody counts"
        port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        async with AsyncExitStack() as stack:
            async with background(run_cloud(config, tmp_path / "cloud", ready=port.set_result)):
                url = f"http://127.0.0.1:{await port}"
                options = UplinkOptions(url=url, gateway="gw1", backoff_max_s=0.05, contact_s=0.2, timeout_s=5)
                await stack.enter_async_context(background(run_uplink(journal, None, KEY, options, health)))
                await eventually(lambda: has(1), "the acknowledgement")
            await journal.append([draft])
            await eventually(lambda: health.state == "down", "the loss")
            assert (await has(1), await has(2)) == (True, False)
            used = False
            assert await has(1) is None


# --- docs/proof-test.md -----------------------------------------------------------------------------------------------


def test_the_document_names_every_step_result_and_refusal(root: Path) -> None:
    text = (root / "docs" / "proof-test.md").read_text("utf-8")
    for heading, words in (("Steps", Part), ("Steps", Result), ("When it begins", refusals.Refusal)):
        section = text.split(f"## {heading}\n")[1].split("\n## ")[0]
        rows = re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)
        assert [row for row in rows if row in set(words)] == list(words)
    assert all(f"`{verdict}`" in text for verdict in Verdict)


def test_the_document_names_the_bounds(root: Path) -> None:
    text = (root / "docs" / "proof-test.md").read_text("utf-8")
    told = dict(re.findall(r"^\| `(\w+)` \|.*\| (?:on-delay \+ )?(\d+) s \|$", text, re.MULTILINE))
    bounds = Bounds()
    assert {part: float(seconds) for part, seconds in told.items()} == {
        part.value: getattr(bounds, f"{part}_s")
        for part in Part
        if part not in (Part.SOURCE, Part.RECIPIENTS, Part.DELIVERED)
    }
    assert f"`report_s` + {plan.way_of('sms', 120.0).report_s - 120:g} s" in text


def test_the_document_names_every_record(root: Path) -> None:
    section = (root / "docs" / "proof-test.md").read_text("utf-8").split("## Records\n")[1]
    code = "".join(path.read_text("utf-8") for path in (root / "edge" / "proof").glob("*.py"))
    assert set(re.findall(r"`(proof\.\w+)`", section)) == set(re.findall(r'"(proof\.\w+)"', code)) - {"proof."}
