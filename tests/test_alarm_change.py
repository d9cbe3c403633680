"""The engine under another configuration: alarms and clocks go on, and only what is different makes a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from sitewarden.edge.alarms.codec import alarm_json
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.machine import Alarm, State
from sitewarden.edge.alarms.overlay import Overlay, OverlayKind
from sitewarden.edge.alarms.rules import Condition, Kind, Level, Rule, Side, Track, adopt
from sitewarden.errors import RefusedError
from sitewarden.sync.journal import Draft
from sitewarden.words import Instant, Quality, Reading

POINT = "store.th1.humidity"
HIGH = f"{POINT}.high"
HI = Level(kind=Kind.HI, limit=75.0, deadband=2.0, priority=3)
HIHI = Level(kind=Kind.HIHI, limit=85.0, deadband=2.0, priority=1)


def at(s: float) -> Instant:
    return Instant(utc_ms=1_795_000_000_000 + round(s * 1000), mono_s=s, boot="b")


def high(*levels: Level, point: str = POINT, revision: str = "r1") -> Rule:
    return Rule(
        id=f"{point}.high",
        point=point,
        area="store",
        side=Side.HIGH,
        name="n",
        name_en="n",
        unit="%RH",
        levels=levels,
        revision=revision,
        fresh_s=5.0,
    )


def stale(limit_s: float, point: str = POINT) -> Rule:
    rule = high(Level(kind=Kind.STALE, limit=limit_s, priority=3), point=point)
    return replace(rule, id=f"{point}.stale", side=Side.STALE)


class Plant:
    """An engine whose drafts become lines."""

    def __init__(self, *rules: Rule) -> None:
        self.engine = Engine(rules, {}, at(0))

    def see(self, s: float, value: float | None, point: str = POINT) -> list[str]:
        quality = Quality.BAD if value is None else Quality.GOOD
        reading = Reading(point=point, value=value, quality=quality, why="" if value else "timeout", at=at(s))
        return lines(self.engine.read(reading, at(s)))

    def tick(self, s: float) -> list[str]:
        return lines(self.engine.tick(at(s)))

    def change(self, s: float, *rules: Rule) -> list[str]:
        return lines(self.engine.change(rules, at(s)))

    def ack_all(self, s: float) -> list[str]:
        number = self.engine.alarm(HIGH).occurrence
        first = self.engine.acknowledge(HIGH, number, "keeper", "li", at(s))
        return lines([*first, *self.engine.acknowledge(HIGH, number, "officer", "wang", at(s))])


def lines(drafts: Sequence[Draft]) -> list[str]:
    return [f"{d.kind[6:]} {d.body['alarm']['state']} {d.body['reason']}" for d in drafts]


def acked(*levels: Level, value: float = 80.0) -> Plant:
    plant = Plant(high(*levels))
    assert plant.see(1, value) == ["raised UNACK condition"]
    assert plant.ack_all(2) == ["acked UNACK person", "acked ACKED person"]
    return plant


@pytest.mark.parametrize(
    "level",
    [
        replace(HI, deadband=1.0),
        replace(HI, on_delay_s=60.0),
        replace(HI, off_delay_s=60.0),
        replace(HI, limit=78.0),
        replace(HI, limit=79.0, deadband=0.0),
        replace(HI, priority=1),
        replace(HI, latching=True),
    ],
)
def test_an_acknowledged_alarm_that_is_still_on_says_nothing(level: Level):
    plant = acked(HI)
    before = plant.engine.alarm(HIGH)
    assert plant.change(3, high(level, revision="r2")) == []
    assert plant.engine.alarm(HIGH) == before
    assert plant.engine.rule(HIGH).revision == "r2"
    assert plant.see(4, 80.0) == []
    assert plant.tick(500) == []


def test_a_limit_that_moves_away_lets_the_alarm_return_the_ordinary_way():
    plant = acked(HI)
    assert plant.change(3, high(replace(HI, limit=90.0, off_delay_s=10.0))) == [], "the delay begins"
    assert plant.tick(12.9) == []
    assert plant.tick(13) == ["closed NORM acked_and_normal"]
    plant = Plant(high(HI))
    plant.see(1, 80.0)
    assert plant.change(3, high(replace(HI, limit=90.0))) == ["returned RTNUN condition"]


def test_a_limit_that_comes_nearer_raises_by_the_newest_reading():
    plant = Plant(high(HI))
    assert plant.see(1, 70.0) == []
    assert plant.change(2, high(replace(HI, limit=65.0, on_delay_s=10.0))) == []
    assert plant.tick(12) == ["raised UNACK condition"]
    assert plant.engine.alarm(HIGH).value == 70.0


@pytest.mark.parametrize("silent", [False, True])
def test_what_nobody_knows_neither_raises_nor_clears(silent: bool):
    """The newest reading is bad, or too old."""
    plant = Plant(high(HI), stale(60))
    plant.see(1, 80.0)
    if not silent:
        plant.see(2, None)
    now_s = 100 if silent else 3
    plant.tick(now_s)
    assert plant.change(now_s, high(replace(HI, limit=90.0)), stale(60)) == []
    assert plant.engine.alarm(HIGH).state is State.UNACK
    assert plant.see(now_s + 1, 80.0)[0] == "returned RTNUN condition"


def test_a_level_that_is_taken_out_eases_and_never_raises():
    plant = acked(HI, HIHI, value=90.0)
    assert plant.change(3, high(HI)) == ["eased ACKED condition"]
    alarm = plant.engine.alarm(HIGH)
    assert (alarm.active, alarm.kind, len(alarm.acks)) == (Kind.HI, Kind.HIHI, 2)
    assert plant.see(4, 91.0) == []
    assert plant.see(5, 60.0) == ["closed NORM acked_and_normal"]


def test_the_only_active_level_is_taken_out():
    plant = acked(HI)
    assert plant.change(3, high(HIHI)) == ["closed NORM acked_and_normal"]
    assert plant.see(4, 86.0) == ["raised UNACK condition"]


def test_a_severe_level_that_is_added_and_reached_asks_again():
    plant = acked(HI, value=90.0)
    assert plant.change(3, high(HI, HIHI)) == ["reraised UNACK severity_up"]


def test_a_rule_that_is_gone_is_closed_and_one_that_comes_is_quiet():
    other = "store.th2.humidity"
    plant = acked(HI)
    assert plant.change(3, high(HI, point=other)) == ["closed NORM rule_removed"]
    with pytest.raises(RefusedError):
        plant.engine.alarm(HIGH)
    assert plant.see(4, 80.0) == [], "a late answer of a device that was removed"
    assert plant.see(4, 80.0, other) == ["raised UNACK condition"]
    assert plant.engine.alarm(f"{other}.high").occurrence == 2
    assert plant.change(5, high(HI, point=other), high(HI)) == []
    assert (plant.engine.alarm(HIGH).state, plant.engine.alarm(HIGH).occurrence) == (State.NORM, 1)
    assert plant.see(6, 80.0) == ["raised UNACK condition"]
    assert plant.engine.alarm(HIGH).occurrence == 3


@pytest.mark.parametrize("restarted", [False, True])
def test_a_rule_that_comes_back_goes_on_counting_its_occurrences(restarted: bool):
    plant = Plant(high(HI))
    plant.see(1, 80.0)
    stored = {HIGH: plant.engine.alarm(HIGH)}
    plant.change(2)
    if restarted:
        plant.engine = Engine([], stored, at(2))
    plant.change(3, high(HI))
    assert plant.engine.alarm(HIGH) == replace(stored[HIGH], state=State.NORM, active=None)
    shelf = Overlay(kind=OverlayKind.SHELVED, who="li", why="is being cleaned", since=at(4), for_s=60.0)
    (shelved,) = plant.engine.cover(HIGH, shelf, ("keeper",), at(4))
    assert shelved.body["alarm"]["occurrence"] == 1, "what is stored last is what the next start counts from"


def test_a_quiet_rule_that_is_gone_leaves_no_record():
    plant = Plant(high(HI))
    plant.see(1, 60.0)
    assert plant.change(2) == []


def test_the_closing_record_is_the_alarm_as_it_was():
    plant = acked(HI)
    rule, alarm = plant.engine.rule(HIGH), plant.engine.alarm(HIGH)
    (draft,) = plant.engine.change((), at(9))
    closed = {**alarm_json(rule, alarm, at(9)), "state": "NORM", "active": None}
    assert draft.body == {"alarm": closed, "reason": "rule_removed", "rule": "", "trigger": None}


def test_silence_goes_on_counting():
    plant = Plant(stale(60))
    plant.see(10, 60.0)
    assert plant.change(40, stale(60), high(HI)) == []
    assert plant.tick(69.9) == []
    assert plant.tick(70) == ["raised UNACK condition"]


def test_a_point_that_comes_has_its_whole_patience():
    plant = Plant(high(HI))
    assert plant.change(1000, high(HI), stale(60, "store.new.humidity")) == []
    assert plant.tick(1059.9) == []
    assert plant.tick(1060) == ["raised UNACK condition"]


def test_less_patience_counts_from_the_change():
    """A device that is asked every two seconds instead of every ten minutes has not been silent for ten minutes."""
    plant = Plant(stale(1800), high(HI))
    plant.see(0, 80.0)
    assert plant.change(500, stale(180), high(HI)) == []
    assert plant.tick(679.9) == []
    assert plant.tick(680) == ["raised UNACK condition"]
    assert plant.see(681, 60.0) == ["returned RTNUN condition", "returned RTNUN condition"]


def test_more_patience_lets_a_stale_alarm_return():
    plant = Plant(stale(60))
    plant.see(0, 60.0)
    assert plant.tick(61) == ["raised UNACK condition"]
    assert plant.change(62, stale(600)) == ["returned RTNUN condition"]
    assert plant.tick(599.9) == []
    assert plant.tick(600) == ["closed NORM superseded_unacked", "raised UNACK condition"]


def test_patience_that_was_taken_out_holds_no_delay():
    slow = high(replace(HIHI, on_delay_s=20.0))
    plant = Plant(slow, stale(5.0))
    plant.see(1, 50.0)
    assert plant.change(2, slow) == []
    assert plant.see(3, 90.0) == []
    assert [line for s in range(4, 40) for line in plant.tick(s)] != [], "one value above the limit, then silence"


def test_an_alarm_from_before_the_start_stays_unseen():
    rule = high(HI)
    stored = Alarm(id=HIGH, state=State.UNACK, kind=Kind.HI, active=Kind.HI, occurrence=4, required_acks=("keeper",))
    engine = Engine([rule], {HIGH: stored}, at(0))
    assert engine.change([replace(rule, levels=(replace(HI, limit=70.0),))], at(1)) == []
    (draft,) = engine.read(Reading(point=POINT, value=50.0, quality=Quality.GOOD, at=at(2)), at(2))
    assert draft.body["reason"] == "during_outage"


TRACKS: tuple[Condition, Condition] = ((Track(active=True, since=5.0),), (Track(active=False, since=5.0),))


@pytest.mark.parametrize("condition", TRACKS)
def test_a_delay_goes_on_unless_what_it_waits_for_changed(condition: Condition):
    old = high(HI)
    assert adopt(old, condition, high(replace(HI, on_delay_s=9.0, off_delay_s=9.0))) == condition
    anew = (Track(active=condition[0].active),)
    assert adopt(old, condition, high(replace(HI, limit=76.0))) == anew
    assert adopt(old, condition, high(replace(HI, deadband=1.0))) == anew
    assert adopt(old, condition, high(HIHI)) == (Track(),)
