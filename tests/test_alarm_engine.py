"""The engine: readings, time and commands in, drafts out; the same again gives the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.edge.alarms.codec import alarm_from_json
from sitewarden.edge.alarms.engine import Engine, close_orphans
from sitewarden.edge.alarms.machine import Alarm, State
from sitewarden.edge.alarms.overlay import Overlay, OverlayKind
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.errors import RefusedError
from sitewarden.sync.journal import Draft, canonical
from sitewarden.words import ClockState, Instant, Quality, Reading

POINT = "store.th1.humidity"
HIGH, LOW, STALE, QUALITY = (f"{POINT}.{side}" for side in (Side.HIGH, Side.LOW, Side.STALE, Side.QUALITY))
BASE_MS = 1_795_000_000_000


def make_rule(side: Side, *levels: Level, point: str = POINT) -> Rule:
    return Rule(
        id=f"{point}.{side}",
        point=point,
        area="store",
        side=side,
        name="湿度",
        name_en="Humidity",
        unit="%RH",
        levels=levels,
        revision="r1",
    )


HI = Level(kind=Kind.HI, limit=75, deadband=2, priority=3, on_delay_s=10, off_delay_s=20)
HIHI = Level(kind=Kind.HIHI, limit=85, deadband=2, priority=1, off_delay_s=20, latching=True)
RULES = (
    make_rule(Side.HIGH, HI, HIHI),
    make_rule(Side.LOW, Level(kind=Kind.LO, limit=20, priority=3)),
    make_rule(Side.STALE, Level(kind=Kind.STALE, limit=60, priority=3)),
    make_rule(Side.QUALITY, Level(kind=Kind.QUALITY, limit=0, priority=3, on_delay_s=30)),
)


def instant(at_s: float, boot: str = "b1") -> Instant:
    return Instant(utc_ms=BASE_MS + round(at_s * 1000), mono_s=at_s, boot=boot, clock=ClockState.SYNCED)


def reading(value: float | str | None, at: Instant, point: str = POINT) -> Reading:
    if value is None or isinstance(value, str):
        return Reading(point=point, value=None, quality=Quality.BAD, why=value or "timeout", at=at)
    return Reading(point=point, value=value, quality=Quality.GOOD, at=at)


@dataclass
class Plant:
    """An engine, and what a journal would keep of it."""

    rules: Sequence[Rule] = RULES
    start_s: float = 0.0
    boot: str = "b1"
    drafts: list[Draft] = field(default_factory=list)
    stored: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = Engine(self.rules, {}, instant(self.start_s, self.boot))

    def keep(self, drafts: list[Draft]) -> list[str]:
        self.drafts += drafts
        for draft in drafts:
            canonical(draft.body)
            self.stored[draft.body["alarm"]["id"]] = draft.body["alarm"]
        return [f"{d.body['alarm']['id'].rpartition('.')[2]} {d.kind[6:]} {d.body['alarm']['state']}" for d in drafts]

    def see(self, at_s: float, value: float | str | None, point: str = POINT) -> list[str]:
        now = instant(at_s, self.boot)
        return self.keep(self.engine.read(reading(value, now, point), now))

    def tick(self, at_s: float) -> list[str]:
        return self.keep(self.engine.tick(instant(at_s, self.boot)))

    def ack(self, alarm: str, role: str, person: str, at_s: float) -> list[str]:
        occurrence = self.engine.alarm(alarm).occurrence
        return self.keep(self.engine.acknowledge(alarm, occurrence, role, person, instant(at_s, self.boot)))

    def reset(self, alarm: str, at_s: float) -> list[str]:
        occurrence = self.engine.alarm(alarm).occurrence
        return self.keep(self.engine.reset(alarm, occurrence, "p_wang", instant(at_s, self.boot)))

    def restart(self, at_s: float, boot: str = "b1", rules: Sequence[Rule] | None = None) -> None:
        self.boot, self.rules = boot, self.rules if rules is None else rules
        alarms = {alarm_id: alarm_from_json(fields) for alarm_id, fields in self.stored.items()}
        self.engine = Engine(self.rules, alarms, instant(at_s, boot))


Step = tuple[float, float | str | None, list[str]]
TICK = "tick"


def play(plant: Plant, script: Iterable[Step]) -> None:
    """(seconds, value | reason of a bad reading | TICK, what is recorded)."""
    for at_s, what, wanted in script:
        got = plant.tick(at_s) if what == TICK else plant.see(at_s, what)
        assert got == wanted, f"at {at_s} s, {what}"


def test_from_the_reading_to_the_draft():
    plant = Plant()
    play(plant, [(0, 58, []), (1, 76, []), (10.9, TICK, []), (11, 77.5, ["high raised UNACK"])])
    (draft,) = plant.drafts
    assert (draft.kind, draft.actor, draft.at) == ("alarm.raised", "gateway", instant(11))
    assert draft.body["reason"] == "condition"
    assert draft.body["rule"] == "r1"
    trigger = {"point": POINT, "v": 77.5, "q": "good", "why": "", "at": instant(11).to_json()}
    assert draft.body["trigger"] == trigger
    alarm = draft.body["alarm"]
    assert (alarm["value"], alarm["limit"], alarm["kind"], alarm["occurrence"]) == (77.5, 75, "hi", 1)
    assert alarm["raised_at"] == alarm["changed_at"] == draft.at.to_json()["utc"]
    assert alarm["required_acks"] == ["keeper", "officer"]


def test_delays_run_out_by_time_alone():
    plant = Plant()
    play(plant, [(0, 76, []), (9.5, TICK, []), (10, TICK, ["high raised UNACK"])])
    assert plant.drafts[0].body["trigger"]["v"] == 76
    play(plant, [(11, 70, []), (30.5, TICK, []), (31, TICK, ["high returned RTNUN"]), (32, TICK, [])])


def test_both_levels_in_one_reading_are_one_raise():
    play(Plant(), [(0, 90, ["high raised UNACK"]), (10, TICK, []), (11, 80, []), (31, 80, ["high eased UNACK"])])


def test_up_and_down_the_levels():
    plant = Plant()
    play(plant, [(0, 76, []), (10, 76, ["high raised UNACK"])])
    assert plant.ack(HIGH, "keeper", "p_li", 11) == ["high acked UNACK"]
    assert plant.ack(HIGH, "officer", "p_wang", 12) == ["high acked ACKED"]
    play(plant, [(13, 90, ["high reraised UNACK"]), (14, 76, []), (34, 76, ["high eased UNACK"])])
    play(plant, [(35, 70, []), (55, 70, ["high returned LATU"])])


def test_both_persons_close_it():
    plant = Plant()
    play(plant, [(0, 76, []), (10, 76, ["high raised UNACK"]), (11, 70, []), (31, 70, ["high returned RTNUN"])])
    assert plant.ack(HIGH, "keeper", "p_li", 40) == ["high acked RTNUN"]
    assert plant.ack(HIGH, "keeper", "p_li", 41) == []  # the same again
    assert plant.ack(HIGH, "officer", "p_wang", 42) == ["high acked RTNUN", "high closed NORM"]
    assert [draft.actor for draft in plant.drafts[-2:]] == ["p_wang", "p_wang"]
    assert plant.drafts[-1].body["trigger"] is None


def test_bad_quality_freezes_and_has_its_own_alarm():
    plant = Plant()
    play(
        plant, [(0, 76, []), (5, "timeout", []), (10, TICK, []), (34.5, TICK, []), (35, TICK, ["quality raised UNACK"])]
    )
    assert plant.drafts[0].body["trigger"]["why"] == "timeout"
    assert plant.drafts[0].body["alarm"]["value"] is None
    # 5 s of the on-delay are over; the 95 s in bad quality do not count
    play(plant, [(100, 76, ["quality returned RTNUN"]), (104.5, TICK, []), (105, TICK, ["high raised UNACK"])])


def test_bad_quality_never_clears():
    plant = Plant()
    play(plant, [(0, 90, ["high raised UNACK"]), (1, "timeout", []), (31, "nan", ["quality raised UNACK"])])
    play(plant, [(t, "timeout", []) for t in range(32, 300)])
    assert plant.engine.alarm(HIGH).active is Kind.HIHI


def test_a_bad_reading_ends_a_silence_and_none_begins_one():
    plant = Plant()
    play(plant, [(0, 58, []), (59.5, TICK, []), (60, TICK, ["stale raised UNACK"]), (90, TICK, [])])
    play(plant, [(91, "timeout", ["stale returned RTNUN"]), (121, TICK, ["quality raised UNACK"]), (600, TICK, [])])
    play(plant, [(601, 58, ["quality returned RTNUN"]), (661, TICK, ["stale closed NORM", "stale raised UNACK"])])


def test_a_point_that_never_spoke_is_stale():
    plant = Plant(start_s=1000)
    play(plant, [(1059.5, TICK, []), (1060, TICK, ["stale raised UNACK"])])
    assert plant.drafts[0].body["trigger"] is None


SLOW = Level(kind=Kind.HI, limit=75, deadband=2, priority=3, on_delay_s=90, off_delay_s=90)
SLOW_RULES = (make_rule(Side.HIGH, SLOW), *RULES[2:])


def test_a_stale_point_neither_raises_nor_clears():
    """Delays longer than the silence that makes it stale: the time nobody saw does not count (table A)."""
    plant = Plant(SLOW_RULES)
    play(plant, [(0, 76, []), (60, TICK, ["stale raised UNACK"]), (90, TICK, []), (500, TICK, [])])
    play(plant, [(500, 76, ["stale returned RTNUN"]), (529.5, TICK, []), (530, TICK, ["high raised UNACK"])])
    play(plant, [(540, 70, []), (600, TICK, ["stale reopened UNACK"]), (900, TICK, [])])
    assert plant.engine.alarm(HIGH).state is State.UNACK


def test_an_off_delay_as_long_as_the_silence_does_not_clear():
    level = replace(SLOW, on_delay_s=0, off_delay_s=60)
    plant = Plant((make_rule(Side.HIGH, level), *RULES[2:]))
    play(plant, [(0, 76, ["high raised UNACK"]), (1, 70, []), (61, TICK, ["stale raised UNACK"]), (200, TICK, [])])


def test_reset_needs_a_good_and_fresh_value():
    plant = Plant()
    play(plant, [(0, 90, ["high raised UNACK"]), (1, 70, []), (21, 70, ["high returned LATU"])])
    with pytest.raises(RefusedError, match="not acknowledged"):
        plant.reset(HIGH, 22)
    plant.ack(HIGH, "keeper", "p_li", 22)
    assert plant.ack(HIGH, "officer", "p_wang", 23) == ["high acked LATA"]
    plant.see(24, "timeout")
    with pytest.raises(RefusedError, match="not good"):
        plant.reset(HIGH, 25)
    plant.see(26, 70)
    plant.tick(86)
    with pytest.raises(RefusedError, match="not good"):
        plant.reset(HIGH, 86)  # good, but of a minute ago
    plant.see(87, 70)
    assert plant.reset(HIGH, 88) == ["high closed NORM"]
    assert (plant.drafts[-1].actor, plant.drafts[-1].body["reason"]) == ("p_wang", "reset")


def test_unknown_points_and_alarms():
    plant = Plant()
    assert plant.see(0, 999, point="store.th1.other") == []
    for command in (plant.engine.rule, plant.engine.alarm):
        with pytest.raises(RefusedError) as refused:
            command("store.th1.other.high")
        assert refused.value.reason == "no_such_alarm"
    with pytest.raises(RefusedError):
        plant.engine.acknowledge("x", 1, "keeper", "p_li", instant(0))
    with pytest.raises(RefusedError):
        plant.engine.reset("x", 1, "p_li", instant(0))


def test_a_refused_command_changes_nothing():
    plant = Plant()
    plant.see(0, 90)
    before = plant.engine.alarm(HIGH)
    with pytest.raises(RefusedError):
        plant.engine.acknowledge(HIGH, before.occurrence + 1, "keeper", "p_li", instant(1))
    assert plant.engine.alarm(HIGH) is before


# --- restarts --------------------------------------------------------------------------------------------------


def test_what_is_still_on_after_a_restart_is_not_raised_again():
    plant = Plant()
    play(plant, [(0, 90, ["high raised UNACK"])])
    plant.ack(HIGH, "keeper", "p_li", 1)
    plant.restart(5, boot="b2")
    play(plant, [(6, 91, []), (20, 91, [])])
    assert plant.ack(HIGH, "officer", "p_wang", 21) == ["high acked ACKED"]  # the keeper's ack was kept


def test_what_went_off_meanwhile_returns_and_what_came_on_is_raised():
    plant = Plant()
    play(plant, [(0, 90, ["high raised UNACK"])])
    plant.restart(5, boot="b2")
    play(plant, [(6, 10, ["low raised UNACK"]), (26, 10, ["high returned LATU"])])
    assert plant.engine.alarm(LOW).occurrence == 2  # numbers go on


@pytest.mark.parametrize(("first", "reason"), [(60, "during_outage"), (80, "condition")])
def test_a_return_says_whether_it_happened_while_the_gateway_was_down(first: float, reason: str):
    plant = Plant(rules=NO_DELAYS)
    assert plant.see(1, 80) == ["high raised UNACK"]
    plant.restart(5, boot="b2")
    plant.see(6, None)
    plant.see(7, first)
    plant.see(8, 60)
    (returned,) = [draft for draft in plant.drafts if draft.kind == "alarm.returned" and HIGH in str(draft.body)]
    assert returned.body["reason"] == reason


def test_a_restart_does_not_end_a_silence():
    plant = Plant()
    play(plant, [(0, 58, []), (60, TICK, ["stale raised UNACK"])])
    plant.restart(70, boot="b2")
    play(plant, [(70.5, TICK, []), (129, TICK, []), (200, TICK, []), (201, 58, ["stale returned RTNUN"])])


def test_a_restart_does_not_end_bad_quality():
    plant = Plant()
    play(plant, [(0, "timeout", []), (30, TICK, ["quality raised UNACK"])])
    plant.restart(40, boot="b2")
    play(plant, [(41, TICK, []), (42, "timeout", []), (43, 58, ["quality returned RTNUN"])])


def test_a_level_that_left_the_configuration_while_it_was_on():
    plant = Plant()
    play(plant, [(0, 90, ["high raised UNACK"])])
    plant.restart(5, rules=(make_rule(Side.HIGH, HI), *RULES[1:]))
    play(plant, [(6, 90, []), (7, 70, []), (27, 70, ["high returned LATU"])])


def test_reopened_across_a_restart():
    plant = Plant()
    play(plant, [(0, 76, []), (10, 76, ["high raised UNACK"]), (11, 70, []), (31, 70, ["high returned RTNUN"])])
    plant.restart(40, boot="b2")
    play(plant, [(41, 76, []), (51, 76, ["high reopened UNACK"])])
    assert plant.drafts[-1].body["alarm"]["occurrence"] == 1


def test_orphans_are_closed_with_a_record():
    plant = Plant()
    play(plant, [(0, 90, ["high raised UNACK"]), (60, TICK, ["stale raised UNACK"])])
    stored = {alarm_id: {**fields, "rev": 7} for alarm_id, fields in plant.stored.items()}
    (draft,) = close_orphans([STALE, QUALITY], stored, instant(70))
    assert (draft.kind, draft.actor, draft.body["reason"]) == ("alarm.closed", "gateway", "rule_removed")
    alarm = draft.body["alarm"]
    assert (alarm["id"], alarm["state"], alarm["active"]) == (HIGH, "NORM", None)
    assert alarm["changed_at"] == instant(70).to_json()["utc"]
    assert "rev" not in alarm  # its record's number is not known yet
    assert alarm_from_json(alarm).occurrence == 1
    assert close_orphans([HIGH, STALE], stored, instant(70)) == []
    assert close_orphans([STALE], {HIGH: alarm}, instant(71)) == []  # closed already


def test_a_rule_that_comes_back_goes_on_with_its_numbers():
    plant = Plant()
    play(plant, [(0, 90, ["high raised UNACK"])])
    plant.keep(close_orphans([STALE], plant.stored, instant(5)))
    plant.restart(6)
    play(plant, [(7, 90, ["high raised UNACK"])])
    assert plant.engine.alarm(HIGH).occurrence == 2


def test_numbers_are_unique_on_the_gateway():
    rules = [make_rule(Side.HIGH, HIHI, point=f"store.th{n}.humidity") for n in range(5)]
    plant = Plant(rules)
    for n in range(5):
        plant.see(1, 90, point=f"store.th{n}.humidity")
    assert [plant.engine.alarm(rule.id).occurrence for rule in rules] == [1, 2, 3, 4, 5]
    known = {"gone.th9.x.high": Alarm(id="gone.th9.x.high", occurrence=40)}
    engine = Engine(rules, known, instant(0))
    (draft,) = engine.read(reading(90, instant(1), rules[0].point), instant(1))
    assert draft.body["alarm"]["occurrence"] == 41  # also above those of rules that are gone


# --- the same again --------------------------------------------------------------------------------------------

inputs = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.5, 5.0, 10.0, 20.0, 61.0]),
        st.one_of(
            st.sampled_from([10.0, 50.0, 72.0, 74.0, 76.0, 90.0]),
            st.sampled_from(["timeout", TICK]),
            st.tuples(st.sampled_from(["keeper", "officer", "reset"]), st.sampled_from([HIGH, STALE, QUALITY])),
        ),
    ),
    max_size=60,
)
Inputs = list[tuple[float, Any]]


def run(script: Inputs, rules: Sequence[Rule], restarts: frozenset[int] = frozenset()) -> Plant:
    plant, at_s = Plant(rules), 0.0
    for n, (passed_s, what) in enumerate(script):
        at_s += passed_s
        if n in restarts:
            plant.restart(at_s)
        try:
            match what:
                case ("reset", alarm):
                    plant.reset(alarm, at_s)
                case (role, alarm):
                    plant.ack(alarm, role, f"p_{role}", at_s)
                case _:
                    play_one(plant, at_s, what)
        except RefusedError:
            continue
    return plant


def play_one(plant: Plant, at_s: float, what: float | str) -> None:
    if what == TICK:
        plant.tick(at_s)
    else:
        plant.see(at_s, what)


def as_bytes(plant: Plant) -> list[bytes]:
    return [canonical([draft.kind, draft.actor, draft.at.to_json(), draft.body]) for draft in plant.drafts]


@given(inputs)
@settings(deadline=None)
def test_the_same_input_gives_the_same_drafts(script: Inputs):
    assert as_bytes(run(script, RULES)) == as_bytes(run(script, RULES))


NO_DELAYS = (
    make_rule(Side.HIGH, replace(HI, on_delay_s=0, off_delay_s=0), replace(HIHI, off_delay_s=0)),
    RULES[1],
    make_rule(Side.QUALITY, Level(kind=Kind.QUALITY, limit=0, priority=3)),
)


@given(inputs, st.frozensets(st.integers(0, 60), max_size=8))
@settings(deadline=None)
def test_a_restart_loses_and_invents_nothing(script: Inputs, restarts: frozenset[int]):
    """Without delays everything that counts is in the records; a reset needs a reading since the start.

    The one difference: what returned while nobody looked says so.
    """
    script = [(passed_s, what) for passed_s, what in script if not (isinstance(what, tuple) and what[0] == "reset")]
    with_restarts = [
        line.replace(b"during_outage", b"condition") for line in as_bytes(run(script, NO_DELAYS, restarts))
    ]
    assert with_restarts == as_bytes(run(script, NO_DELAYS))


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.5, 1.0, 12.0, 25.0, 70.0]),  # seconds that pass
        st.sampled_from([None, None, 19.9, 20.0, 20.1, 50.0, 74.9, 75.0, 75.1, 84.9, 85.0, 90.0, "timeout", "doubt"]),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(STEPS, st.booleans())
def test_what_is_passed_over_as_ordinary_would_have_changed_nothing(steps: list, resumed: bool) -> None:
    stored = {HIGH: Alarm(id=HIGH, state=State.UNACK, active=Kind.HI, occurrence=3)} if resumed else {}
    quick, slow = (Engine(RULES, stored, instant(0)) for _ in range(2))
    now_s = 0.0
    for passed_s, value in steps:
        now_s += passed_s
        at = instant(now_s)
        for watched in slow._points.values():
            watched.calm = watched.still = False
        if value is None:
            assert quick.tick(at) == slow.tick(at)
            continue
        seen = reading(value if value != "doubt" else None, at)
        if value == "doubt":
            seen = Reading(point=POINT, value=50.0, quality=Quality.UNCERTAIN, why="clock_skew", at=at)
        assert quick.read(seen, at) == slow.read(seen, at)
        conditions = [[live.condition for live in engine._plant.rules.values()] for engine in (quick, slow)]
        assert conditions[0] == conditions[1]


# --- overlays and repeats ----------------------------------------------------------------------------------------


def shelved(at_s: float, for_s: float = 600.0, boot: str = "b1", **changes: Any) -> Overlay:
    fields = {"kind": OverlayKind.SHELVED, "who": "p_wang", "why": "being cleaned", "since": instant(at_s, boot)}
    return Overlay(**{**fields, "for_s": for_s, **changes})


def shelve(plant: Plant, alarm: str, at_s: float, for_s: float = 600.0, **changes: Any) -> list[str]:
    laid = shelved(at_s, for_s, plant.boot, **changes)
    return plant.keep(plant.engine.cover(alarm, laid, ("officer",), instant(at_s, plant.boot)))


def test_a_shelved_alarm_goes_on_being_judged_and_is_raised_afresh_when_its_time_is_up():
    plant = Plant(RULES[:1])
    assert shelve(plant, HIGH, 0) == ["high shelved NORM"]
    play(plant, [(1, 90, ["high raised UNACK"]), (30, 90, []), (599, TICK, [])])
    assert plant.drafts[-1].body["alarm"]["overlay"]["who"] == "p_wang"
    assert plant.tick(600) == ["high unshelved UNACK", "high reraised UNACK"]
    assert plant.drafts[-1].body["reason"] == "uncovered"
    assert plant.tick(610) == []


def test_a_shelved_alarm_that_has_cleared_meanwhile_closes():
    plant = Plant()
    play(plant, [(0, 80, []), (10, 80, ["high raised UNACK"])])
    shelve(plant, HIGH, 20)
    play(plant, [(30, 50, []), (50, 50, ["high returned RTNUN"]), (600, 50, [])])
    assert plant.tick(620) == ["high unshelved RTNUN", "high closed NORM"]
    assert plant.drafts[-1].body["reason"] == "cleared_while_suppressed"


def test_an_overlay_survives_a_restart_and_its_time_goes_on():
    plant = Plant()
    shelve(plant, HIGH, 0)
    plant.see(1, 90)
    plant.restart(100)
    assert plant.tick(599) == ["stale raised UNACK"]
    assert plant.tick(601) == ["high unshelved UNACK", "high reraised UNACK"]


def test_taking_an_overlay_away_needs_one():
    plant = Plant(RULES[:1])
    with pytest.raises(RefusedError) as refused:
        plant.engine.uncover(HIGH, OverlayKind.SHELVED, "p_li", instant(0))
    assert refused.value.reason == "not_covered"
    shelve(plant, HIGH, 0)
    drafts = plant.engine.uncover(HIGH, OverlayKind.SHELVED, "p_li", instant(1))
    assert plant.keep(drafts) == ["high unshelved NORM"]
    assert plant.engine.tick(instant(700)) == []


def repeats(plant: Plant, until_s: int, value: float) -> list[tuple[int, str]]:
    found = []
    for at_s in range(plant_s(plant), until_s + 1, 10):
        found += [(at_s, said) for said in (*plant.see(at_s, value), *plant.tick(at_s))]
    return found


def plant_s(plant: Plant) -> int:
    return int(plant.drafts[-1].at.mono_s) if plant.drafts else 0


def test_priority_1_is_repeated_every_five_minutes_until_it_is_acknowledged_and_then_every_half_hour():
    plant = Plant()
    plant.see(0, 90)
    got = repeats(plant, 700, 90.0)
    assert got == [(300, "high repeated UNACK"), (600, "high repeated UNACK")]
    plant.ack(HIGH, "keeper", "p_li", 700)
    plant.ack(HIGH, "officer", "p_wang", 710)
    got = repeats(plant, 2600, 90.0)
    assert got == [(2510, "high repeated UNACK")]
    assert plant.drafts[-1].body["alarm"]["acks"] == []
    plant.restart(2700)
    assert plant.see(2709, 90) == []
    assert plant.tick(2810) == ["high repeated UNACK", "stale raised UNACK"][::-1]


def test_priority_3_and_what_is_covered_is_never_repeated():
    plant = Plant()
    play(plant, [(0, 80, []), (10, 80, ["high raised UNACK"])])
    assert repeats(plant, 20_000, 80.0) == []
    worse = Plant()
    worse.see(0, 90)
    shelve(worse, HIGH, 10, 3000.0)
    assert repeats(worse, 3000, 90.0) == []
