"""Alarms that are no limits: rate, deviation, states, discrepancy, standstill, lost devices; what the engine makes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from sitewarden.edge.alarms.codec import alarm_from_json
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.overlay import Overlay, OverlayKind
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alarms.sources import (
    Deviation,
    Direction,
    Discrepancy,
    Discrete,
    Frozen,
    Memory,
    Rate,
    Source,
    measure,
)
from sitewarden.edge.alarms.suppression import Suppression
from sitewarden.errors import RefusedError
from sitewarden.sync.journal import Draft, canonical
from sitewarden.words import Instant, Quality, Reading

P, Q, R = "store.d1.x", "store.d1.y", "store.d2.z"


def at(seconds: float) -> Instant:
    return Instant(utc_ms=1_795_000_000_000 + round(seconds * 1000), mono_s=seconds, boot="b1")


def make(side: Side, level: Level, *more: Level, point: str = P, **fields: Any) -> Rule:
    base = Rule(
        id=f"{point}.{side}",
        point=point,
        area="store",
        side=side,
        name="压力",
        name_en="Pressure",
        unit="kPa",
        levels=(level, *more),
    )
    return replace(base, **fields)


def sourced(side: Side, source: Source, *, point: str = P, **level: Any) -> Rule:
    return make(side, Level(kind=Kind(side.value), priority=2, **{"limit": 0.0, **level}), point=point, source=source)


@dataclass
class Plant:
    """An engine and what is recorded."""

    rules: Sequence[Rule]
    drafts: list[Draft] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.engine = Engine(self.rules, {}, at(0))

    def keep(self, drafts: list[Draft]) -> list[str]:
        self.drafts += drafts
        for draft in drafts:
            canonical(draft.body)
        return [f"{d.body['alarm']['id'].rpartition('.')[2]} {d.kind[6:]} {d.body['alarm']['state']}" for d in drafts]

    def see(self, at_s: float, value: float | str, point: str = P) -> list[str]:
        bad = isinstance(value, str)
        quality = Quality.BAD if bad else Quality.GOOD
        number, why = (None, value) if isinstance(value, str) else (value, "")
        return self.keep(
            self.engine.read(Reading(point=point, value=number, quality=quality, why=why, at=at(at_s)), at(at_s))
        )

    def see_all(self, at_s: float, values: dict[str, float | str]) -> list[str]:
        return [line for point, value in values.items() for line in self.see(at_s, value, point)]

    def tick(self, at_s: float) -> list[str]:
        return self.keep(self.engine.tick(at(at_s)))

    def ack(self, alarm: str, at_s: float) -> list[str]:
        occurrence = self.engine.alarm(alarm).occurrence
        lines = []
        for role, person in (("keeper", "li"), ("officer", "wang")):
            lines += self.keep(self.engine.acknowledge(alarm, occurrence, role, person, at(at_s)))
        return lines

    def restart(self, at_s: float, rules: Sequence[Rule] | None = None) -> None:
        stored = {draft.body["alarm"]["id"]: alarm_from_json(draft.body["alarm"]) for draft in self.drafts}
        self.engine = Engine(self.rules if rules is None else rules, stored, at(at_s))

    @property
    def newest(self) -> dict[str, Any]:
        return self.drafts[-1].body["alarm"]


# --- what is judged ----------------------------------------------------------------------------------------------


def follow(source: Source, readings: Iterable[tuple[float, float]]) -> list[float | None]:
    memory: Memory = None
    found = []
    for now_s, value in readings:
        memory, measured = measure(source, memory, value, None, now_s)
        found.append(measured)
    return found


def test_a_rate_is_the_difference_over_the_period_once_per_period():
    rate = Rate(period_s=60, min_samples=3)
    readings = [(0, 10), (20, 11), (40, 12), (60, 16), (80, 99), (100, 99), (121, 12)]
    assert follow(rate, readings) == [None, None, None, 6.0, 6.0, 6.0, pytest.approx(4 / 61 * 60)]


@pytest.mark.parametrize(("direction", "wanted"), [(Direction.BOTH, 5.0), (Direction.UP, -5.0), (Direction.DOWN, 5.0)])
def test_a_rate_has_the_direction_that_counts(direction: Direction, wanted: float):
    assert follow(Rate(min_samples=2, direction=direction), [(0, 10), (60, 5)]) == [None, wanted]


def test_a_period_with_too_few_readings_and_a_gap_have_no_rate():
    rate = Rate(period_s=60, min_samples=3)
    assert follow(rate, [(0, 10), (30, 10), (60, 20), (120, 50)]) == [None, None, 10.0, None]
    assert follow(rate, [(0, 10), (30, 10), (121, 90), (150, 90), (181, 91)]) == [None, None, None, None, 1.0]


def test_a_value_stands_still_from_when_it_was_first_seen_and_silence_does_not_count():
    frozen = Frozen(after_s=100, gap_s=30)
    assert follow(frozen, [(0, 5), (20, 5), (99, 5), (120, 5)]) == [None, None, None, None], "a gap of 79 s"
    assert follow(frozen, [(t, 5.0) for t in range(0, 101, 20)]) == [None] * 5 + [1.0]
    assert follow(frozen, [(0, 5), (20, 6), (40, 6)]) == [None, 0.0, 0.0]


@pytest.mark.parametrize(
    ("source", "value", "other", "wanted"),
    [
        (Discrete(on=(2.0, 3.0)), 3.0, None, 1.0),
        (Discrete(on=(2.0, 3.0)), 1.0, None, 0.0),
        (Deviation(ref=R), 5.0, 8.0, 3.0),
        (Deviation(ref=R, direction=Direction.UP), 5.0, 8.0, -3.0),
        (Deviation(ref=R, direction=Direction.DOWN), 5.0, 8.0, 3.0),
        (Deviation(ref=R), 5.0, None, None),
        (Discrepancy(ref=R), 1.0, 1.0, 0.0),
        (Discrepancy(ref=R), 1.0, 0.0, 1.0),
        (Discrepancy(ref=R, tolerance=2), 10.0, 12.0, 0.0),
        (Discrepancy(ref=R, inverted=True), 1.0, 0.0, 0.0),
        (Discrepancy(ref=R, inverted=True), 0.0, 0.0, 1.0),
        (Discrepancy(ref=R), 1.0, None, None),
    ],
)
def test_what_is_judged(source: Source, value: float, other: float | None, wanted: float | None):
    assert measure(source, None, value, other, 0)[1] == wanted


# --- in the engine -----------------------------------------------------------------------------------------------

STALE = make(Side.STALE, Level(kind=Kind.STALE, limit=300, priority=3))


def test_a_rate_raises_clears_past_its_deadband_and_shows_the_rate():
    plant = Plant((sourced(Side.ROC, Rate(min_samples=2), limit=6.0, deadband=1.0), STALE))
    lines = [line for t, v in ((0, 10), (60, 16), (120, 21.5), (180, 26.4)) for line in plant.see(t, v)]
    assert lines == ["roc raised UNACK", "roc returned RTNUN"]
    raised = plant.drafts[0].body["alarm"]
    assert (raised["value"], raised["limit"], raised["kind"]) == (6.0, 6.0, "roc")


def test_bad_readings_hold_a_rate_and_clear_nothing():
    plant = Plant((sourced(Side.ROC, Rate(min_samples=2), limit=6.0, off_delay_s=30), STALE))
    assert [plant.see(0, 10), plant.see(60, 20)] == [[], ["roc raised UNACK"]]
    for second in range(61, 400, 10):
        assert plant.see(second, "timeout") == []
        assert plant.tick(second + 1) == []
    assert plant.see(400, 20) == [], "across the gap there is no rate"
    assert plant.see(460, 20) == []
    assert plant.tick(490) == ["roc returned RTNUN"]


def test_a_deviation_is_judged_when_either_point_speaks():
    plant = Plant((sourced(Side.DEVIATION, Deviation(ref=R), limit=3.0, deadband=0.5), STALE))
    assert plant.see(0, 10.0) == []
    assert plant.see(1, 14.0, R) == ["deviation raised UNACK"]
    assert plant.newest["value"] == 4.0
    assert plant.drafts[-1].body["trigger"]["point"] == R
    assert plant.see(2, 11.5) == [], "2.5 is not past the deadband"
    assert plant.see(3, 12.0) == ["deviation returned RTNUN"]


def test_a_deviation_is_held_while_the_other_point_is_bad_or_silent():
    ref_stale = make(Side.STALE, Level(kind=Kind.STALE, limit=60, priority=3), point=R)
    plant = Plant((sourced(Side.DEVIATION, Deviation(ref=R), limit=3.0, on_delay_s=30), STALE, ref_stale))
    plant.see(0, 10.0, R)
    assert plant.see(1, 15.0) == []
    plant.see(10, "timeout", R)
    assert plant.tick(100) == [], "the 90 s in which nobody knew do not count"
    assert plant.see(110, 10.0, R) == []
    assert plant.tick(131) == ["deviation raised UNACK"]
    assert plant.tick(170) == ["stale raised UNACK"]
    assert plant.see(171, 10.0) == [], "the reference is silent: nothing clears"


def test_a_bad_reading_is_not_judged_although_it_has_a_value():
    plant = Plant((sourced(Side.DISCRETE, Discrete(on=(2.0,))), STALE))
    bad = Reading(point=P, value=2.0, quality=Quality.BAD, why="saturated", at=at(0))
    assert plant.engine.read(bad, at(0)) == []


def test_a_state_is_an_alarm_and_another_one_too():
    plant = Plant((sourced(Side.DISCRETE, Discrete(on=(2.0, 3.0)), limit=2.0, latching=True), STALE))
    assert plant.see(0, 1.0) == []
    assert plant.see(1, 2.0) == ["discrete raised UNACK"]
    assert plant.newest["value"] == 2.0
    assert plant.see(2, 3.0) == []
    assert plant.see(3, 1.0) == ["discrete returned LATU"]


def test_a_command_that_is_not_followed_in_time_is_a_discrepancy():
    plant = Plant((sourced(Side.DISCREPANCY, Discrepancy(ref=Q), limit=10, on_delay_s=10), STALE))
    plant.see_all(0, {P: 0.0, Q: 0.0})
    assert plant.see(5, 1.0, Q) == []
    assert plant.tick(14) == []
    assert plant.tick(15) == ["discrepancy raised UNACK"]
    assert plant.newest["value"] is None
    assert plant.see(16, 1.0) == ["discrepancy returned RTNUN"]
    assert [*plant.see(20, 0.0, Q), *plant.see(25, 0.0), *plant.tick(60)] == [], "it followed within its time"


def test_a_value_that_stands_still_is_an_alarm_until_it_moves():
    plant = Plant((sourced(Side.FROZEN, Frozen(after_s=3600, gap_s=180), limit=3600), STALE))
    lines = [line for t in range(0, 3700, 60) for line in plant.see(t, 21.5)]
    assert lines == ["frozen raised UNACK"]
    assert plant.drafts[0].at == at(3600)
    assert plant.see(3720, 21.6) == ["frozen returned RTNUN"]


def test_a_restart_does_not_unfreeze_a_value():
    plant = Plant((sourced(Side.FROZEN, Frozen(after_s=120, gap_s=90), limit=120), STALE))
    for second in range(0, 121, 30):
        plant.see(second, 21.5)
    plant.restart(130)
    assert [plant.see(131, 21.5), plant.see(160, 21.5)] == [[], []]
    assert plant.see(190, 21.4) == ["frozen returned RTNUN"]


def test_a_latched_alarm_is_not_reset_on_a_value_that_stands_still():
    high = make(Side.HIGH, Level(kind=Kind.HIHI, limit=50, priority=1, latching=True))
    plant = Plant((high, sourced(Side.FROZEN, Frozen(after_s=60, gap_s=90), limit=60), STALE))
    plant.see(0, 60.0)
    plant.ack(high.id, 1)
    assert [*plant.see(10, 5.0), *plant.see(40, 5.0), *plant.see(70, 5.0)] == [
        "high returned LATA",
        "frozen raised UNACK",
    ]
    with pytest.raises(RefusedError, match="not good"):
        plant.engine.reset(high.id, 1, "wang", at(71))
    plant.see(80, 5.1)
    assert plant.keep(plant.engine.reset(high.id, 1, "wang", at(81))) == ["high closed NORM"]


def test_a_changed_rate_begins_anew_and_an_unchanged_one_goes_on():
    rule = sourced(Side.ROC, Rate(min_samples=2), limit=6.0)
    plant = Plant((rule, STALE))
    plant.see(0, 10)
    plant.keep(plant.engine.change((rule, STALE), at(30)))
    assert plant.see(60, 20) == ["roc raised UNACK"]
    other = replace(rule, source=Rate(min_samples=2, direction=Direction.DOWN))
    assert plant.keep(plant.engine.change((other, STALE), at(61))) == []
    assert plant.see(90, 20) == [], "not known yet: held"
    assert plant.see(160, 20) == ["roc returned RTNUN"]


# --- a device that cannot be reached -----------------------------------------------------------------------------


def device(*points: str, stale_s: float = 60, quality_s: float = 30, limit_s: float = 30) -> list[Rule]:
    rules = []
    for point in points:
        rules.append(make(Side.STALE, Level(kind=Kind.STALE, limit=stale_s, priority=3), point=point))
        quality = Level(kind=Kind.QUALITY, limit=0, priority=3, on_delay_s=quality_s)
        rules.append(make(Side.QUALITY, quality, point=point))
    level = Level(kind=Kind.COMM_LOSS, limit=limit_s, priority=2)
    return [*rules, make(Side.COMM, level, point="store.d1", id="store.d1.comm")]


def test_a_dead_device_is_one_alarm():
    plant = Plant(device(P, Q))
    plant.see_all(0, {P: 1.0, Q: 2.0})
    lines = []
    for second in range(5, 200, 5):
        lines += plant.see_all(second, {P: "timeout", Q: "timeout"})
        lines += plant.tick(second + 0.5)
    assert lines == ["comm raised UNACK"]
    assert plant.drafts[0].at == at(35)
    assert plant.newest["point"] == "store.d1"
    assert plant.see(200, 1.0) == ["comm returned RTNUN"]
    assert plant.see(200, 2.0, Q) == []
    assert [*plant.tick(201), *plant.tick(240)] == []


def test_a_silent_device_is_one_alarm():
    plant = Plant(device(P, Q))
    plant.see_all(0, {P: 1.0, Q: 2.0})
    assert plant.tick(59.5) == []
    assert [plant.tick(second) for second in (60, 61, 400)] == [["comm raised UNACK"], [], []]
    assert plant.see(401, 1.0) == ["comm returned RTNUN"]
    assert plant.tick(402) == ["stale raised UNACK"], "the other point is still silent"


def test_what_the_device_says_of_itself_is_the_points_matter():
    plant = Plant(device(P, Q))
    plant.see_all(0, {P: "warm_up", Q: "warm_up"})
    assert plant.tick(31) == ["quality raised UNACK", "quality raised UNACK"]


def test_a_part_of_a_device_that_cannot_be_read_is_the_points_matter():
    plant = Plant(device(P, Q))
    lines = []
    for second in range(0, 50, 5):
        lines += plant.see_all(second, {P: "timeout", Q: 2.0})
    assert lines == ["quality raised UNACK"]
    assert plant.newest["point"] == P


def test_alarms_of_points_that_were_on_before_stay_as_they_are():
    plant = Plant(device(P, Q))
    for second in range(0, 40, 10):
        plant.see_all(second, {P: "warm_up", Q: 2.0})
    assert plant.newest["state"] == "UNACK"
    lines = [line for t in range(40, 120, 10) for line in plant.see_all(t, {P: "timeout", Q: "timeout"})]
    assert lines == ["comm raised UNACK"]
    assert plant.engine.alarm(f"{P}.quality").active is Kind.QUALITY


@pytest.mark.parametrize("said", ["timeout", None])
def test_a_restart_does_not_bring_a_device_back(said: str | None):
    plant = Plant(device(P, Q))
    for second in range(0, 50, 5):
        plant.see_all(second, {P: "timeout", Q: "timeout"})
    assert plant.newest["kind"] == "comm_loss"
    plant.restart(100)
    for second in range(101, 300, 5):
        assert (plant.see_all(second, {P: said, Q: said}) if said else []) == []
        assert plant.tick(second + 0.5) == []
    assert plant.see(300, 1.0) == ["comm returned RTNUN"]
    assert plant.drafts[-1].body["reason"] == "condition"


def test_a_lost_device_holds_its_process_alarms():
    high = make(Side.HIGH, Level(kind=Kind.HI, limit=50, priority=2))
    plant = Plant([high, *device(P, Q)])
    assert plant.see_all(0, {P: 60.0, Q: 2.0}) == ["high raised UNACK"]
    lines = [line for t in range(5, 100, 5) for line in plant.see_all(t, {P: "timeout", Q: "timeout"})]
    assert lines == ["comm raised UNACK"]
    assert plant.engine.alarm(high.id).active is Kind.HI


def test_a_change_of_the_configuration_keeps_a_device_lost():
    rules = device(P, Q)
    plant = Plant(rules)
    for second in range(0, 50, 5):
        plant.see_all(second, {P: "timeout", Q: "timeout"})
    assert plant.keep(plant.engine.change(device(P, Q, quality_s=1), at(60))) == []
    assert plant.tick(100) == []
    assert plant.see_all(101, {P: "timeout", Q: "timeout"}) == []


# --- first-out ---------------------------------------------------------------------------------------------------


def grouped(point: str) -> Rule:
    return make(Side.HIGH, Level(kind=Kind.HI, limit=50, priority=2), point=point, first_out_group="boiler")


def test_the_first_of_a_group_is_marked_and_keeps_it():
    plant = Plant((grouped(P), grouped(Q), grouped(R)))
    plant.see(0, 60.0, Q)
    plant.see(1, 60.0, P)
    assert [(draft.body["alarm"]["point"], draft.body["alarm"]["first_out"]) for draft in plant.drafts] == [
        (Q, True),
        (P, False),
    ]
    plant.see(2, 10.0, Q)
    assert plant.newest["first_out"], "for the occurrence"
    plant.ack(f"{Q}.high", 3)
    plant.see(4, 60.0, Q)
    assert not plant.newest["first_out"], "P is still open"
    assert plant.newest["group"] == "boiler"


def test_the_same_alarm_anew_is_the_first_again():
    plant = Plant((grouped(P),))
    plant.see(0, 60.0)
    plant.see(1, 10.0)
    assert plant.see(400, 60.0) == ["high closed NORM", "high raised UNACK"], "superseded"
    assert plant.newest["first_out"]


def test_a_restart_knows_who_of_the_group_is_open():
    plant = Plant((grouped(P), grouped(Q)))
    plant.see(0, 60.0, P)
    plant.restart(10)
    plant.see(11, 60.0, Q)
    assert not plant.newest["first_out"]
    assert plant.engine.alarm(f"{P}.high").first_out


# --- suppressed by design ----------------------------------------------------------------------------------------

OFF = Suppression(id="pump_off", point=Q, why="泵停", equals=0.0)


def low(*suppressions: Suppression, **fields: Any) -> Rule:
    level = Level(kind=Kind.LO, limit=10, priority=2)
    return make(Side.LOW, level, suppressions=suppressions, **fields)


@pytest.mark.parametrize(
    ("limits", "value", "wanted"),
    [
        ({"equals": 1.0}, 1.0, True),
        ({"equals": 1.0}, 0.0, False),
        ({"above": 5.0}, 5.0, False),
        ({"above": 5.0}, 5.1, True),
        ({"below": 5.0}, 5.0, False),
        ({"below": 5.0}, 4.9, True),
    ],
)
def test_when_a_suppression_holds(limits: dict[str, float], value: float, wanted: bool):
    one = Suppression(id="s", point=Q, why="w", **limits)
    good = Reading(point=Q, value=value, quality=Quality.GOOD, at=at(0))
    assert one.holds(good) is wanted
    uncertain = Reading(point=Q, value=value, quality=Quality.UNCERTAIN, why="clock_skew", at=at(0))
    assert not one.holds(uncertain)
    assert not one.holds(None)


def test_while_the_pump_is_off_nobody_is_told_and_then_what_is_on_is_raised_afresh():
    plant = Plant((low(OFF), STALE))
    plant.see(0, 50.0)
    assert plant.see(1, 0.0, Q) == ["low suppressed NORM"]
    assert plant.see(2, 5.0) == ["low raised UNACK"]
    assert (plant.newest["overlay"]["kind"], plant.newest["overlay"]["why"]) == ("by_design", "泵停")
    assert plant.see(3, 1.0, Q) == ["low unsuppressed UNACK", "low reraised UNACK"]


@pytest.mark.parametrize("sign", [1, -1])
def test_noise_at_the_limit_of_a_suppression_tells_nobody_anew(sign: int):
    limit = {"above": 5.0} if sign > 0 else {"below": -5.0}
    plant = Plant((low(Suppression(id="s", point=Q, why="w", deadband=1.0, **limit)), STALE))
    plant.see(0, 5.0)
    assert plant.see(1, sign * 4.9, Q) == [], "the deadband does not shift the activation"
    assert plant.see(2, sign * 5.1, Q) == ["low suppressed UNACK"]
    assert plant.see(3, sign * 4.1, Q) == []
    plant.restart(4)
    assert plant.see(4, sign * 4.9, Q) == [], "also after a restart"
    assert plant.see(5, sign * 4.0, Q) == ["low unsuppressed UNACK", "low reraised UNACK"]


@pytest.mark.parametrize("how", ["bad", "silent"])
def test_a_condition_that_is_not_known_suppresses_nothing(how: str):
    silent = make(Side.STALE, Level(kind=Kind.STALE, limit=60, priority=3), point=Q)
    plant = Plant((low(OFF), STALE, silent))
    plant.see(0, 0.0, Q)
    plant.see(1, 5.0)
    lines = plant.see(2, "timeout", Q) if how == "bad" else plant.tick(60)
    assert lines[-2:] == ["low unsuppressed UNACK", "low reraised UNACK"]


def test_a_shelf_that_ends_while_the_pump_is_off_tells_nobody():
    plant = Plant((low(OFF), STALE))
    plant.see(0, 5.0)
    shelf = Overlay(kind=OverlayKind.SHELVED, who="wang", why="is being cleaned", since=at(1), for_s=60)
    plant.keep(plant.engine.cover(f"{P}.low", shelf, ("officer",), at(1)))
    assert plant.see(2, 0.0, Q) == []
    assert plant.tick(61) == ["low unshelved UNACK", "low suppressed UNACK"]


def test_two_suppressions_and_one_that_ends():
    other = Suppression(id="valve_shut", point=R, why="阀关", below=5.0)
    plant = Plant((low(OFF, other), STALE))
    plant.see(0, 5.0)
    assert plant.see(1, 0.0, Q) == ["low suppressed UNACK"]
    assert plant.see(2, 0.0, R) == []
    assert plant.see(3, 1.0, Q) == ["low unsuppressed UNACK", "low suppressed UNACK"]
    assert plant.newest["overlay"]["who"] == "valve_shut"
    assert plant.see(4, 9.0, R) == ["low unsuppressed UNACK", "low reraised UNACK"]


def test_a_restart_keeps_it_until_the_point_speaks_and_a_removed_one_ends():
    plant = Plant((low(OFF), STALE))
    plant.see(0, 0.0, Q)
    plant.see(1, 5.0)
    plant.restart(10)
    assert plant.tick(11) == []
    assert plant.see(12, 0.0, Q) == []
    plant.restart(20, rules=(low(), STALE))
    assert plant.tick(21) == ["low unsuppressed UNACK", "low reraised UNACK"]


def test_a_new_suppression_counts_from_the_change_on():
    plant = Plant((low(), STALE, make(Side.STALE, Level(kind=Kind.STALE, limit=60, priority=3), point=Q)))
    plant.see(0, 5.0)
    plant.see(1, 0.0, Q)
    assert plant.keep(plant.engine.change((low(OFF), *plant.rules[1:]), at(2))) == ["low suppressed UNACK"]


def test_what_protects_lives_is_not_suppressed():
    plant = Plant((low(OFF, life_safety=True), STALE))
    assert plant.see(0, 0.0, Q) == []
    assert plant.see(1, 5.0) == ["low raised UNACK"]
    assert plant.newest["overlay"] is None
