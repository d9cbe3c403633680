"""Defaults of table B, and how a site overrides them."""

from __future__ import annotations

from typing import Any

import pytest
from sitewarden.edge.alarms.defaults import BY_QUANTITY, build_device_rule, build_rules, stale_after_s
from sitewarden.edge.alarms.rules import REALARM_S, REPEAT_S, Kind, Level, Rule, Side
from sitewarden.edge.alarms.sources import Deviation, Direction, Rate
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
    assert list(rules("gas")) == [Side.STALE, Side.QUALITY]
    assert list(rules("gas", hi=75)) == [Side.HIGH, Side.STALE, Side.QUALITY]
    assert list(rules("gas", lo=5, lolo=1)) == [Side.LOW, Side.STALE, Side.QUALITY]


@pytest.mark.parametrize(
    ("quantity", "fields", "wanted"),
    [
        ("temperature", {}, 3600),
        ("humidity", {}, 3600),
        ("pressure", {}, None),  # a vessel that is out of use
        ("gas", {}, None),  # 0 in clean air
        ("other", {}, None),
        ("gas", {"frozen_s": 600}, 600),
        ("humidity", {"frozen_s": 0}, None),
    ],
)
def test_standstill(quantity: str, fields: dict[str, Any], wanted: float | None):
    frozen = rules(quantity, **fields).get(Side.FROZEN)
    assert (frozen.levels[0].limit if frozen else None) == wanted


def test_every_other_kind_has_its_defaults_and_shares_what_levels_share():
    built = rules(
        "pressure",
        roc={"limit": 2.0, "direction": "rising"},
        deviation={"ref": "store.th1.y", "limit": 10},
        discrete={"on": [2, 3], "priority": 1},
        discrepancy={"ref": "store.th1.c", "after_s": 7, "latching": True},
    )
    assert list(built) == [
        *(Side.ROC, Side.DEVIATION, Side.DISCRETE, Side.DISCREPANCY),
        *(Side.STALE, Side.QUALITY),
    ]
    roc, deviation = built[Side.ROC], built[Side.DEVIATION]
    assert roc.source == Rate(period_s=60, min_samples=3, direction=Direction.UP)
    assert roc.levels == (Level(kind=Kind.ROC, limit=2, deadband=0.2, priority=2, off_delay_s=15),)
    assert (roc.unit, deviation.unit, built[Side.DISCRETE].unit) == ("%RH/min", "%RH", "")
    assert deviation.source == Deviation(ref="store.th1.y")
    assert deviation.levels == (
        Level(kind=Kind.DEVIATION, limit=10, deadband=0.2, priority=2, on_delay_s=15, off_delay_s=15),
    )
    assert built[Side.DISCRETE].levels == (Level(kind=Kind.DISCRETE, limit=2, priority=1),)
    assert built[Side.DISCREPANCY].levels == (
        Level(kind=Kind.DISCREPANCY, limit=7, priority=2, on_delay_s=7, latching=True),
    )
    assert (deviation.name, deviation.name_en) == ("湿度偏差过大", "Humidity: deviates store.th1.y")


def test_a_delay_of_the_alarm_counts_for_every_kind_but_not_its_deadband_for_a_rate():
    built = rules("pressure", roc=2, deviation={"ref": "a.b.c", "limit": 9}, off_delay_s=99, deadband=1)
    assert [built[side].levels[0].off_delay_s for side in (Side.ROC, Side.DEVIATION)] == [99, 99]
    assert [built[side].levels[0].deadband for side in (Side.ROC, Side.DEVIATION)] == [0.2, 1]


def test_who_is_told_how_often():
    plain, own = rules(hi=75)[Side.HIGH], rules(hi=75, repeat_s=60, realarm_s=0, shelve_max_s=600)[Side.HIGH]
    assert (plain.repeat_s, plain.realarm_s, plain.shelve_max_s) == (REPEAT_S, REALARM_S, 28_800)
    assert {own.repeat_s[priority] for priority in (1, 2, 3, 4)} == {60}
    assert {own.realarm_s[priority] for priority in (1, 2, 3, 4)} == {0}
    assert own.shelve_max_s == 600


def test_the_class_is_that_of_every_alarm_of_the_point_and_the_group_of_those_about_the_plant():
    built = rules(hi=75, roc=2, life_safety=True, first_out_group="store")
    assert {rule.life_safety for rule in built.values()} == {True}
    assert [side for side, rule in built.items() if rule.first_out_group == "store"] == [Side.HIGH, Side.ROC]


def device_rule(*tables: AlarmTable, own: AlarmTable | None = None) -> Rule:
    points = [(point("gas" if table.hi else "temperature"), table) for table in tables]
    return build_device_rule(
        "store.th1",
        own or AlarmTable(point="store.th1"),
        points,
        place="库",
        place_en="Store",
        required_acks=["keeper"],
        revision="r1",
    )


def test_a_device_is_as_urgent_and_as_patient_as_the_first_of_its_points():
    rule = device_rule(table(), table(hi=5))
    assert (rule.id, rule.point, rule.area, rule.side) == ("store.th1.comm", "store.th1", "store", Side.COMM)
    assert rule.levels == (Level(kind=Kind.COMM_LOSS, limit=30, priority=2),)
    assert (rule.name, rule.name_en) == ("库设备th1通讯中断", "Store, device th1: no communication")
    assert device_rule(table(quality_delay_s=5), table()).levels[0].limit == 5
    assert device_rule(table(), table(stale_s=12)).levels[0].limit == 12


def test_a_device_has_a_table_of_its_own():
    own = AlarmTable.model_validate({"point": "store.th1", "comm_loss": {"limit": 9, "priority": 1, "latching": True}})
    assert device_rule(table(), own=own).levels == (Level(kind=Kind.COMM_LOSS, limit=9, priority=1, latching=True),)


def test_levels_are_least_severe_first():
    both = rules(hi=75, hihi=85, lo=20, lolo=10)
    assert [found.kind for found in both[Side.HIGH].levels] == [Kind.HI, Kind.HIHI]
    assert [found.kind for found in both[Side.LOW].levels] == [Kind.LO, Kind.LOLO]


def test_names_and_identity():
    built = rules(hi=75, frozen_s=0)
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
