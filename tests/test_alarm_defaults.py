"""Defaults of table B, and how a site overrides them."""

from __future__ import annotations

from typing import Any

import pytest
from sitewarden.edge.alarms.defaults import BY_QUANTITY, build_rules, stale_after_s
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.models import AlarmTable
from sitewarden.words import Point

ID = "store.th1.x"


def point(quantity: str = "humidity", poll_s: float = 2.0) -> Point:
    return Point(id=ID, name="湿度", name_en="Humidity", unit="%RH", quantity=quantity, decimals=1, poll_s=poll_s)


def table(**fields: Any) -> AlarmTable:
    return AlarmTable.model_validate({"point": ID, **fields})


def rules(quantity: str = "humidity", poll_s: float = 2.0, **fields: Any) -> dict[Side, Rule]:
    built = build_rules(
        point(quantity, poll_s), table(**fields), area="store", required_acks=["keeper", "officer"], revision="r1"
    )
    return {rule.side: rule for rule in built}


def level(quantity: str, kind: Kind, **fields: Any) -> Level:
    side = Side.HIGH if kind in (Kind.HI, Kind.HIHI) else Side.LOW
    (found,) = [level for level in rules(quantity, **fields)[side].levels if level.kind is kind]
    return found


# quantity, limit: deadband, on/off delay, stale, priority of hi and hihi, hihi latches (facts: table B)
TABLE_B = [
    ("temperature", 35, 0.5, 60, 60, 180, 3, 2, False),
    ("humidity", 75, 2.0, 60, 60, 180, 3, 3, False),
    ("pressure", 0.45, 0.009, 15, 15, 60, 2, 2, False),
    ("gas", 25, 1.25, 0, 30, 30, 2, 1, True),
]


@pytest.mark.parametrize(
    ("quantity", "limit", "deadband", "on_s", "off_s", "stale_s", "hi", "hihi", "latches"), TABLE_B
)
def test_table_b(quantity, limit, deadband, on_s, off_s, stale_s, hi, hihi, latches):
    low = level(quantity, Kind.HI, hi=limit)
    assert (low.limit, low.priority, low.on_delay_s, low.off_delay_s) == (limit, hi, on_s, off_s)
    assert low.deadband == pytest.approx(deadband)
    assert not low.latching
    severe = level(quantity, Kind.HIHI, hihi=limit)
    assert (severe.priority, severe.latching) == (hihi, latches)
    lolo = level(quantity, Kind.LOLO, lolo=limit)
    assert (lolo.priority, lolo.latching) == (hihi, latches)
    assert level(quantity, Kind.LO, lo=limit).priority == hi
    silent = rules(quantity)[Side.STALE].levels[0]
    assert (silent.kind, silent.limit, silent.priority) == (Kind.STALE, stale_s, hi)


def test_every_quantity_that_a_point_may_have_is_covered():
    assert set(BY_QUANTITY) == {"temperature", "humidity", "pressure", "gas", "other"}


def test_a_share_of_a_negative_limit_is_positive():
    assert level("pressure", Kind.LO, lo=-10).deadband == pytest.approx(0.2)


def test_only_what_has_a_limit_has_a_process_alarm():
    assert list(rules()) == [Side.STALE, Side.QUALITY]
    assert list(rules(hi=75)) == [Side.HIGH, Side.STALE, Side.QUALITY]
    assert list(rules(lo=5, lolo=1)) == [Side.LOW, Side.STALE, Side.QUALITY]


def test_levels_are_least_severe_first():
    both = rules(hi=75, hihi=85, lo=20, lolo=10)
    assert [found.kind for found in both[Side.HIGH].levels] == [Kind.HI, Kind.HIHI]
    assert [found.kind for found in both[Side.LOW].levels] == [Kind.LO, Kind.LOLO]


def test_names_and_identity():
    built = rules(hi=75)
    high, stale, quality = built[Side.HIGH], built[Side.STALE], built[Side.QUALITY]
    assert [rule.id for rule in built.values()] == [f"{ID}.high", f"{ID}.stale", f"{ID}.quality"]
    assert (high.point, high.area, high.revision, high.unit) == (ID, "store", "r1", "%RH")
    assert (high.name, stale.name, quality.name) == ("湿度", "湿度无数据", "湿度读数异常")
    assert (stale.name_en, quality.name_en) == ("Humidity: no data", "Humidity: bad reading")
    assert stale.unit == quality.unit == ""
    assert {rule.required_acks for rule in built.values()} == {("keeper", "officer")}
    assert {rule.distinct_persons for rule in built.values()} == {True}
    assert {rule.reopen_s for rule in built.values()} == {300.0}


@pytest.mark.parametrize(
    ("fields", "poll_s", "wanted"),
    [
        ({}, 2, 180),
        ({}, 60, 180),
        ({}, 100, 300),  # at least three polls
        ({"stale_s": 20}, 100, 20),  # the site knows better
    ],
)
def test_stale(fields: dict[str, Any], poll_s: float, wanted: float):
    assert stale_after_s(point(poll_s=poll_s), table(**fields)) == wanted
    assert rules(poll_s=poll_s, **fields)[Side.STALE].levels[0].limit == wanted


@pytest.mark.parametrize(("fields", "wanted"), [({}, 30), ({"quality_delay_s": 5}, 5), ({"quality_delay_s": 0}, 0)])
def test_quality_delay(fields: dict[str, Any], wanted: float):
    quality = rules(**fields)[Side.QUALITY].levels[0]
    assert (quality.kind, quality.on_delay_s, quality.off_delay_s, quality.latching) == (Kind.QUALITY, wanted, 0, False)


@pytest.mark.parametrize("key", ["deadband", "on_delay_s", "off_delay_s"])
@pytest.mark.parametrize(
    ("of_point", "of_level", "wanted"),
    [(None, None, None), (7, None, 7), (7, 9, 9), (None, 9, 9), (0, None, 0), (7, 0, 0)],
)
def test_the_level_before_the_point_before_the_quantity(key, of_point, of_level, wanted):
    """Zero is a value, not "not set"."""
    own = {"limit": 75.0, **({key: of_level} if of_level is not None else {})}
    fields = {key: of_point} if of_point is not None else {}
    default = getattr(level("humidity", Kind.HI, hi=75), key)
    got = getattr(level("humidity", Kind.HI, hi=own, **fields), key)
    assert got == (default if wanted is None else wanted)
    assert default > 0


def test_own_priority_and_latching():
    assert level("gas", Kind.HIHI, hihi={"limit": 50, "latching": False, "priority": 4}).latching is False
    assert level("gas", Kind.HIHI, hihi={"limit": 50, "priority": 4}).priority == 4
    assert level("humidity", Kind.HI, hi={"limit": 50, "latching": True}).latching is True


def test_own_acks():
    own = rules(hi=75, required_acks=["control_room"], distinct_persons=False, reopen_s=0)
    for rule in own.values():
        assert (rule.required_acks, rule.distinct_persons, rule.reopen_s) == (("control_room",), False, 0)
