"""A replay: the daemon's own rules on recorded readings give what the daemon gave; other rules what they would have."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sitewarden.edge import pipeline as pipelines
from sitewarden.edge.alarms import replay as replays
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.machine import Alarm, State
from sitewarden.edge.alarms.replay import Replay, seed
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alarms.sources import Deviation, Discrete, Frozen, Rate, Source
from sitewarden.edge.alarms.trial import Episode, Tally, count, within
from sitewarden.edge.replaying import Order, Trial, run_trial
from sitewarden.edge.site import Site, load_site
from sitewarden.errors import PermanentError
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft
from sitewarden.sync.recorded import RecordedHistory
from sitewarden.tests.peers.recording import BASE_MS, Gateway, instant, reading

HUMIDITY = "aux_store.th1.humidity"
CH4 = "sewage_pit.gas4.ch4"
POINT = "store.th1.humidity"
HOUR_S = 3600.0


def rule(side: Side, *levels: Level, point: str = POINT, source: Source | None = None) -> Rule:
    return Rule(
        id=f"{point}.{side}",
        point=point,
        area="store",
        side=side,
        name="湿度",
        name_en="Humidity",
        unit="%RH",
        levels=levels,
        repeat_s={1: 110.0, 2: 240.2},
        realarm_s={1: 300.0},
        source=source,
    )


HI = Level(kind=Kind.HI, limit=75, deadband=2, priority=2, on_delay_s=7.3, off_delay_s=20)
HIHI = Level(kind=Kind.HIHI, limit=85, deadband=2, priority=1, off_delay_s=11, latching=True)
RULES = tuple(
    one
    for point in (POINT, "store.th2.humidity")
    for one in (
        rule(Side.HIGH, HI, HIHI, point=point),
        rule(Side.LOW, Level(kind=Kind.LO, limit=20, priority=3, on_delay_s=3), point=point),
        rule(Side.STALE, Level(kind=Kind.STALE, limit=60, priority=3), point=point),
        rule(Side.QUALITY, Level(kind=Kind.QUALITY, limit=0, priority=3, on_delay_s=90), point=point),
    )
)


OTHER = "store.th2.humidity"
SOURCED = (
    rule(Side.ROC, Level(kind=Kind.ROC, limit=30, priority=2), source=Rate(period_s=20, min_samples=2)),
    rule(Side.DEVIATION, Level(kind=Kind.DEVIATION, limit=9, priority=3, on_delay_s=5.5), source=Deviation(ref=OTHER)),
    rule(Side.DISCRETE, Level(kind=Kind.DISCRETE, limit=0, priority=3, on_delay_s=4), source=Discrete(on=(84.0,))),
    rule(Side.FROZEN, Level(kind=Kind.FROZEN, limit=40, priority=3), source=Frozen(after_s=40, gap_s=60)),
    rule(Side.COMM, Level(kind=Kind.COMM_LOSS, limit=30, priority=2), point="store.th1"),
)


# --- the jump over moments at which nothing can happen ---

STEPS = st.lists(
    st.tuples(
        st.one_of(st.integers(0, 12_000), st.integers(0, 400_000)),  # ms, as records and segments have them
        st.sampled_from([POINT, "store.th2.humidity"]),
        st.sampled_from([None, 10.0, 50.0, 74.0, 76.0, 84.0, 90.0]),
        st.sampled_from(["", "", "", "", "restart", "boot", "step"]),
    ),
    max_size=12,
)


def played(steps: Sequence[tuple[int, str, float | None, str]], *, ack_after_s: float, is_dense: bool) -> list[Draft]:
    drafts: list[Draft] = []
    made = Replay((*RULES, *SOURCED), {}, instant(0.0), drafts.append, ack_after_s=ack_after_s, is_dense=is_dense)
    at_ms, boot, ahead_s = 0, 1, 0.0
    for gap_ms, point, value, what in steps:
        at_ms += gap_ms
        if what == "step":
            ahead_s += 1000.0
        if what in ("restart", "boot"):
            boot += what == "boot"
            at_ms = 250 if what == "boot" else at_ms
            ahead_s += 20_000.0 * (what == "boot")
            made.restart(instant(at_ms / 1000, f"b{boot}", ahead_s=ahead_s))
        at = instant(at_ms / 1000, f"b{boot}", ahead_s=ahead_s)
        made.feed([reading(at, value, point)], at)
    made.pass_time(instant(at_ms / 1000 + 700, f"b{boot}", ahead_s=ahead_s))
    return drafts


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, ack_after_s=st.sampled_from([0.0, 45.3, 1000.0]))
@example(steps=[(8353, POINT, None, "restart")], ack_after_s=0.0)  # 68.353 - 8.353 is less than 60
def test_jumping_gives_what_looking_twice_a_second_gives(
    steps: list[tuple[int, str, float | None, str]], ack_after_s: float
):
    dense = played(steps, ack_after_s=ack_after_s, is_dense=True)
    assert played(steps, ack_after_s=ack_after_s, is_dense=False) == dense


def test_a_replay_ticks_as_often_as_the_daemon():
    assert replays.TICK_S == pipelines.TICK_S


def test_a_quiet_day_takes_few_looks(monkeypatch: pytest.MonkeyPatch):
    looks: list[float] = []
    tick = Engine.tick
    monkeypatch.setattr(Engine, "tick", lambda self, now: (looks.append(now.mono_s), tick(self, now))[1])
    made = Replay(RULES[:4], {}, instant(0.0), lambda _: None)
    for n in range(8640):
        at = instant(10.0 * n)
        made.feed([reading(at, 50.0)], at)
    assert len(looks) < 2 * 86_400 / 60 + 10, "about one for each patience of `stale`, not two a second"


def test_perfect_operators_acknowledge_after_a_while_and_reset_what_is_latched():
    drafts: list[Draft] = []
    made = Replay(RULES[:2], {}, instant(0.0), drafts.append, ack_after_s=30)
    for at_s, value in ((0, 90.0), (40, 90.0), (50, 50.0), (65, 50.0), (75, None), (80, 50.0)):
        at = instant(at_s)
        made.feed([reading(at, value)], at)
    assert [(draft.at.mono_s, draft.kind, draft.body["alarm"]["state"]) for draft in drafts] == [
        (0, "alarm.raised", "UNACK"),
        (30, "alarm.acked", "UNACK"),
        (30, "alarm.acked", "ACKED"),
        (61.0, "alarm.eased", "ACKED"),
        (70.0, "alarm.returned", "LATA"),
        (80, "alarm.closed", "NORM"),
    ], "nothing is reset on a bad reading"


# --- what a replay begins with ---


def test_an_alarm_is_taken_over_where_its_rule_is_the_same():
    high = RULES[0]
    on = Alarm(id=high.id, state=State.UNACK, kind=Kind.HI, limit=75, active=Kind.HI, occurrence=4)
    assert seed([on], RULES, ()) == {high.id: on}
    assert seed([on], RULES, [high.id]) == {}, "a limit that is tried would inherit what it never had"
    assert seed([on], RULES[1:], ()) == {}
    other = rule(Side.HIGH, Level(kind=Kind.HI, limit=80, priority=3))
    assert seed([on], [other], ()) == {}, "site.toml has been edited since"


# --- counting ---


def alarm(active: str | None, value: float | None = None, **more: Any) -> dict[str, Any]:
    fields = {"id": f"{POINT}.high", "point": POINT, "name": "湿度", "name_en": "Humidity", "unit": "%RH"}
    return {**fields, "kind": "hi", "active": active, "value": value, "priority": 3, "overlay": None, **more}


def test_an_episode_lasts_from_coming_on_to_going_off_whatever_people_do():
    tally = Tally(t0_ms=0)
    tally.record("alarm.raised", 1000, alarm("hi", 76.0))
    tally.see(POINT, 81.0)
    tally.record("alarm.acked", 2000, alarm("hi", 76.0))
    tally.record("alarm.reraised", 3000, alarm("hihi", 86.0, priority=2))
    tally.see(POINT, 88.0)
    tally.record("alarm.returned", 4000, alarm(None))
    tally.see(POINT, 99.0)
    tally.record("alarm.closed", 5000, alarm(None))
    tally.record("alarm.raised", 6000, alarm("hi", 75.5))
    assert [(e.start_ms, e.end_ms, e.kind, e.priority, e.worst) for e in tally.episodes] == [
        (1000, 4000, "hihi", 2, 88.0),
        (6000, None, "hi", 3, 75.5),
    ]
    assert tally.announced == 3
    counted = count(tally.episodes, 2000, 8000)[f"{POINT}.high"]
    assert (counted.times, counted.on_s, counted.longest_s, counted.worst) == (1, 4.0, 2.0, 88.0)
    assert [e.start_ms for e in within(tally.episodes, 4500, 5000)] == []


def test_the_worst_of_a_low_alarm_is_the_lowest_and_nobody_is_told_of_a_shelved_one():
    tally = Tally(t0_ms=0)
    tally.record("alarm.raised", 1000, alarm("lo", 19.0, overlay={"kind": "shelved"}))
    tally.see(POINT, 12.0)
    tally.see(POINT, 15.0)
    assert (tally.episodes[0].worst, tally.announced) == (12.0, 0)


# --- a gateway's stores ---


def weather(seed_: int) -> Callable[[str, float], float]:
    """Values that wander over the limits of config/site.toml, a different way for each point."""
    rng = random.Random(seed_)
    ways: dict[str, tuple[float, float, float]] = {}
    spans = {HUMIDITY: (76.0, 12.0), CH4: (20.0, 35.0), "boiler_room.boiler1.pressure": (0.7, 0.45)}

    def value(point: str, at_s: float) -> float:
        way = ways.setdefault(point, (rng.uniform(200, 900), rng.uniform(0, 6), rng.uniform(20, 60)))
        middle, swing = spans.get(point, (21.0, 1.0))
        slow, fast = math.sin(at_s / way[0] * 6 + way[1]), math.sin(at_s / way[2] * 6)
        return round(middle + swing * (0.8 * slow + 0.2 * fast) + rng.gauss(0, swing / 60), 3)

    return value


@pytest.fixture
def site(root: Path) -> Site:
    return load_site(root / "config" / "site.toml")


def conditions(episodes: Sequence[Episode]) -> list[tuple[str, str, float, float | None]]:
    return sorted((e.alarm, e.kind, e.start_ms / 1000, e.end_ms and e.end_ms / 1000) for e in episodes)


def assert_same(trial: Trial, least: int) -> None:
    """Both sides say the same: which alarms, how bad, and when, to a tick."""
    was, would = conditions(trial.was.episodes), conditions(trial.would.episodes)
    assert [one[:2] for one in would] == [one[:2] for one in was]
    for before, after in zip(was, would, strict=True):
        assert after[2] == pytest.approx(before[2], abs=0.6), (before, after)
        assert after[3] == (None if before[3] is None else pytest.approx(before[3], abs=0.6)), (before, after)
    assert len(was) >= least, "there was something to compare"
    assert [e.worst for e in trial.would.episodes if e.worst is not None]


async def test_the_same_rules_give_what_the_journal_has(tmp_path: Path, site: Site):
    """Four hours: values over limits, a sensor that is bad, one that falls silent, a stop, a kill, another boot."""
    gateway = Gateway(tmp_path, site, values=weather(1))
    async with gateway.on():
        await gateway.run(1.2 * HOUR_S)
        gateway.dead.add("hazmat_store.th2.temperature")
        await gateway.run(200)
        gateway.silent.update(meta.point.id for meta in site.points)
        await gateway.run(300)  # what fell silent is noticed before the gateway is stopped
    gateway.at_s += 1800
    gateway.silent = {CH4}
    gateway.dead.clear()
    async with gateway.on(is_killed=True):
        await gateway.run(400)
        gateway.silent.clear()
        await gateway.run(0.5 * HOUR_S)
    gateway.boot, gateway.ahead_s, gateway.at_s = "b2", gateway.at_s + 900, 20.0
    async with gateway.on():
        await gateway.run(0.8 * HOUR_S)
    trial = run_trial(Order(data=tmp_path), site)
    assert_same(trial, 20)
    assert {one[1] for one in conditions(trial.was.episodes)} >= {"hi", "hihi", "lo", "stale", "quality"}
    assert (trial.restarts, trial.lost) == (2, 0)


async def test_a_part_of_the_time_gives_the_part_of_the_journal(tmp_path: Path, site: Site):
    """What was on before the part began is on in it, although the readings that raised it are not replayed."""
    gateway = Gateway(tmp_path, site, values=weather(2))
    async with gateway.on():
        await gateway.run(3 * HOUR_S)
    t0_ms = BASE_MS + 7_300_000
    trial = run_trial(Order(data=tmp_path, from_ms=t0_ms, to_ms=t0_ms + 2_000_000), site)
    was, would = (within(side.episodes, trial.t0_ms, trial.t1_ms) for side in (trial.was, trial.would))
    assert [e.alarm for e in would] == [e.alarm for e in was] != []
    assert any(e.start_ms < t0_ms for e in was), "something was on at the beginning"
    assert trial.readings < 2000 / 2 * len(site.points) + 20, "readings before are not counted"


async def test_what_was_on_stays_on_within_its_deadband_and_a_new_limit_begins_afresh(tmp_path: Path, site: Site):
    """75 raises, 74 does not clear: two hours later nothing but the journal knows why it is on."""
    gateway = Gateway(
        tmp_path, site, values=lambda point, at_s: (76.0 if at_s < 60 else 74.0) if point == HUMIDITY else 1
    )
    async with gateway.on():
        await gateway.run(2 * HOUR_S)
    later = Order(data=tmp_path, from_ms=BASE_MS + 5_400_000, points=(HUMIDITY,))
    same = run_trial(later, site)
    frozen = f"{HUMIDITY}.frozen"
    assert [(e.alarm, e.end_ms, e.start_ms < BASE_MS + 60_000) for e in same.would.episodes] == [
        (f"{HUMIDITY}.high", None, True),
        (frozen, None, False),
    ]
    changed = run_trial(replace(later, changes=(f"{HUMIDITY}.hi=75.5",)), site)
    assert [e.alarm for e in changed.would.episodes] == [frozen], "it stands still all the same"


async def test_a_changed_limit_shows_what_would_have_alarmed(tmp_path: Path, site: Site):
    gateway = Gateway(tmp_path, site, values=lambda point, at_s: 78.0 if point == HUMIDITY and at_s > 600 else 20.0)
    async with gateway.on():
        await gateway.run(1200)
    high = f"{HUMIDITY}.high"
    order = Order(data=tmp_path, points=(HUMIDITY,), changes=(f"{HUMIDITY}.hi=79", f"{HUMIDITY}.deadband=0.5"))
    trial = run_trial(order, site)
    assert [e.alarm for e in trial.was.episodes] == [high]
    assert trial.would.episodes == []
    lower = run_trial(Order(data=tmp_path, points=("aux_store",), changes=(f"{HUMIDITY}.hi=15",)), site)
    (episode,) = [e for e in lower.would.episodes if e.alarm == high]
    assert (episode.worst, episode.end_ms) == (78.0, None)
    assert episode.start_ms < BASE_MS + 10_000
    rules = run_trial(Order(data=tmp_path, points=(HUMIDITY,), changes=order.changes, against="rules"), site)
    (now,), (then,) = rules.was.episodes, trial.was.episodes
    assert (now.alarm, now.worst, now.start_ms) == (high, 78.0, pytest.approx(then.start_ms, abs=600))


async def test_readings_that_came_too_late_are_not_judged(tmp_path: Path, site: Site):
    gateway = Gateway(tmp_path, site, values=lambda point, _: 20.0)
    async with gateway.on():
        await gateway.run(300)
        old = [reading(instant(100 + n), 99.0, CH4, why="delayed") for n in range(5)]
        gateway.history.add(old)
        await gateway.run(20)
    trial = run_trial(Order(data=tmp_path, points=(CH4,)), site)
    assert (trial.delayed, trial.would.episodes) == (5, [])


# --- the stores, while the daemon runs ---


async def test_the_daemon_may_go_on_writing(tmp_path: Path):
    """Sealed readings and those of the tail, each once, although the tail is sealed meanwhile."""
    path = tmp_path / "history.db"
    async with History(path, "gw1", seal_readings=100) as history:
        history.add([reading(instant(n), float(n)) for n in range(150)])
        await history.flush()
        with RecordedHistory(path) as recorded:
            history.add([reading(instant(n), float(n)) for n in range(150, 400)])
            await history.flush(seal=True)
            runs = [recorded.read(span) for span in recorded.spans]
            values = [one.value for run in (*runs, *recorded.tail()) for one in run]
            assert values == [float(n) for n in range(150)]
            assert recorded.lost == 0


async def test_a_segment_that_is_damaged_is_counted_and_the_others_are_read(tmp_path: Path):
    path = tmp_path / "history.db"
    async with History(path, "gw1", seal_readings=10) as history:
        history.add([reading(instant(n), float(n)) for n in range(30)])
        await history.flush()
        await history._write(lambda c: c.execute("UPDATE body SET body = x'00' WHERE n = 2").close())
        with RecordedHistory(path) as recorded:
            assert [len(recorded.read(span)) for span in recorded.spans] == [10, 0, 10]
            assert recorded.lost == 1


@pytest.mark.parametrize("name", ["history.db", "journal.db"])
async def test_a_folder_without_stores_is_named(tmp_path: Path, site: Site, name: str):
    if name == "journal.db":
        async with History(tmp_path / "history.db", "gw1") as history:
            history.add([reading(instant(1), 1.0)])
    with pytest.raises(PermanentError, match=name):
        run_trial(Order(data=tmp_path), site)
    assert not (tmp_path / name).exists(), "nothing is made"
