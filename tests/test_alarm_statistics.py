"""The numbers of ISA-18.2 / EEMUA 191, by hand and against an independent recount."""

from __future__ import annotations

import statistics as independent
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.edge.alarms import load
from sitewarden.edge.alarms.statistics import DEFINITIONS, Event, Statistics, count

T0 = 1_795_000_000_000
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000


def event(at_s: float, kind: str = "raised", alarm: str = "a", **changes: Any) -> Event:
    fields = {
        "at_ms": T0 + round(at_s * 1000),
        "kind": f"alarm.{kind}",
        "alarm": alarm,
        "occurrence": 1,
        "position": "control_room",
        "priority": 3,
        "active": kind not in ("returned", "closed"),
    }
    return Event(**{**fields, **changes})


def counted(*events: Event, hours: float = 1.0, t0_ms: int = T0) -> Statistics:
    return count(events, "control_room", t0_ms, t0_ms + round(hours * HOUR))


def test_nothing_happened() -> None:
    assert counted() == Statistics(position="control_room")
    with pytest.raises(ValueError, match="must end after"):
        counted(hours=0)


def test_average_peak_and_busy_periods() -> None:
    told = [event(n, alarm=f"a{n}") for n in range(11)] + [event(700, alarm="b"), event(3599, alarm="c")]
    found = counted(*told)
    assert (found.annunciated, found.peak) == (13, 11)
    assert found.per_10_min == pytest.approx(13 / 6)
    assert found.busy_periods_pct == pytest.approx(100 / 6)


def test_what_people_were_not_told_of_or_not_then_is_not_their_load() -> None:
    found = counted(
        event(-1, alarm="before"),
        event(3600, alarm="after"),
        event(5, alarm="elsewhere", position="store"),
        event(6, alarm="covered", covered=True),
        event(7, "repeated", "again"),
        event(8, "reraised", "worse"),
        event(9, "reopened", "back"),
    )
    assert found.annunciated == 2
    assert [alarm for alarm, _ in found.top] == ["worse", "back"]


def test_alarms_of_the_system_have_a_line_of_their_own_and_are_nobodys_load() -> None:
    storm = [event(n, alarm=f"a{n}") for n in range(10)]
    own = [
        event(10, alarm="system.flood.control_room", priority=2),
        event(11, alarm="system.disk", position="elsewhere"),
        event(12, alarm="system.modem_down.sms", covered=True),
        event(-2 * 86400, alarm="system.standing"),
        *(event(20 + n, "raised" if n % 2 else "returned", "system.chatter.a") for n in range(8)),
        event(30, "acked", "system.disk", acked=True, position="elsewhere"),
    ]
    found = counted(*storm, *own)
    assert found.system == 2 + 4, "of the whole site, as far as people were told within the time"
    assert replace(found, system=0) == counted(*storm)
    assert (found.annunciated, found.floods, found.chattering, found.standing) == (10, 0, (), ())
    assert load.floods([*storm, *own], "control_room", T0, T0 + HOUR) == ()
    assert sum(load.profile([*storm, *own], "control_room", T0, T0 + HOUR)) == 10


def test_what_is_covered_neither_chatters_nor_stands() -> None:
    chatter = [event(n * 10, "raised" if n % 2 == 0 else "returned", "chatters", covered=True) for n in range(6)]
    stands = [event(-2 * 86400, alarm="stands"), event(10, "shelved", "stands", covered=True)]
    found = counted(*chatter, *stands)
    assert (found.chattering, found.standing) == ((), ())


def test_an_acknowledgement_is_no_activation() -> None:
    assert (
        counted(
            event(-5), event(5, "acked"), event(10, "returned"), event(15), event(20, "returned"), event(50)
        ).chattering
        == ()
    )


def test_a_flood_begins_above_ten_and_ends_below_five() -> None:
    storm = [event(n * 10, alarm=f"a{n}") for n in range(11)]  # the eleventh at 100 s
    found = counted(*storm)
    assert found.floods == 1
    # ten minutes after the seventh (60 s) four are left
    assert found.flood_pct == pytest.approx(100 * (660 - 100) / 3600)
    assert counted(*storm[:-1]).floods == 0
    to_the_end = counted(*(event(3500 + n, alarm=f"a{n}") for n in range(11)))
    assert to_the_end.flood_pct == pytest.approx(100 * (3600 - 3510) / 3600)


def test_chattering_fleeting_and_standing() -> None:
    def on_off(*times: float, alarm: str) -> list[Event]:
        return [event(t, "raised" if n % 2 == 0 else "returned", alarm) for n, t in enumerate(times)]

    found = counted(
        *on_off(0, 12, 30, 42, 60, 72, alarm="chatters"),
        *on_off(0, 15, 31, 46, 61, 76, alarm="nearly"),
        *on_off(100, 109.9, 200, 210, alarm="fleets"),
        *on_off(-2 * 86400, alarm="stands"),
        *on_off(-23 * 3600, alarm="not yet"),
        *on_off(-2 * 86400, 50, alarm="stood"),
    )
    assert found.chattering == ("chatters",)
    assert found.fleeting == 1
    assert found.standing == ("stands",), "23 hours and one are not more than a day"


def test_a_clock_that_was_set_back_makes_nothing_chatter_or_fleet() -> None:
    found = counted(
        event(3000),
        event(3100, "returned"),
        event(0),
        event(40, "returned"),
        event(50),
        event(10, "returned"),
        event(5, "acked", acked=True),
    )
    assert (found.chattering, found.fleeting, found.acknowledged_s) == ((), 0, None)


def test_priorities_top_ten_and_acknowledgement() -> None:
    told = [event(n, alarm=f"a{n % 12}", priority=1 if n == 0 else 3, occurrence=n) for n in range(24)]
    acks = [
        event(100, "acked", "a0", occurrence=0),
        event(130, "acked", "a0", occurrence=0, acked=True),
        event(101, "acked", "a1", occurrence=1, acked=True),
        event(102, "closed", "a2", occurrence=2),
        event(203, "acked", "a3", occurrence=3, acked=True),
    ]
    found = counted(*told, *acks, event(300, "shelved", covered=True), event(301, "out_of_service", covered=True))
    assert found.priority_pct == {1: pytest.approx(100 / 24), 3: pytest.approx(2300 / 24)}
    assert found.top_ten_pct == pytest.approx(100 * 20 / 24)
    assert len(found.top) == 10
    assert found.acknowledged_s == 130.0, "the median of 100, 130 and 200"
    assert found.covered == 2


def test_of_a_record() -> None:
    alarm = {
        "id": "a",
        "occurrence": 4,
        "priority": 2,
        "active": "hi",
        "overlay": None,
        "required_acks": ["keeper", "officer"],
        "acks": [{"role": "keeper"}],
    }
    one = Event.of_record("alarm.acked", 5, alarm, "p")
    assert (one.active, one.covered, one.acked, one.position) == (True, False, False, "p")
    both = {**alarm, "acks": [{"role": "keeper"}, {"role": "officer"}], "active": None, "overlay": {"kind": "shelved"}}
    two = Event.of_record("alarm.acked", 5, both, "p")
    assert (two.active, two.covered, two.acked) == (False, True, True)


def test_every_number_says_what_it_is() -> None:
    shown = set(Statistics.__slots__) - {"position", "top", "floods"}
    assert shown == set(DEFINITIONS)
    assert all(d.says and d.says_en and d.name and d.name_en for d in DEFINITIONS.values())
    assert all(bool(d.goal) == bool(d.source) for d in DEFINITIONS.values())
    assert set(Statistics(position="x").to_json()) == set(Statistics.__slots__)


@settings(max_examples=200, deadline=None)
@given(
    times=st.lists(st.integers(0, 6 * 3600 - 1), max_size=120),
    storm=st.lists(st.integers(3600, 3900), max_size=40),
)
def test_equals_an_independent_recount(times: list[int], storm: list[int]) -> None:
    """Second by second, with nothing of the code under test."""
    seconds = sorted([*times, *storm])
    found = counted(*(event(t, alarm=f"a{t % 17}") for t in seconds), hours=6)
    per_period = [sum(p * 600 <= t < (p + 1) * 600 for t in seconds) for p in range(36)]
    assert found.peak == max(per_period)
    assert found.busy_periods_pct == pytest.approx(100 * sum(n > 10 for n in per_period) / 36)
    assert found.per_10_min == pytest.approx(independent.fmean(per_period))
    flooded, in_flood, began = 0, False, 0
    for second in range(6 * 3600):
        recent = sum(second - 600 < t <= second for t in seconds)
        if in_flood and recent < 5:
            in_flood = False
        if not in_flood and recent > 10 and second in seconds:
            in_flood, began = True, began + 1
        flooded += in_flood
    assert found.floods == began
    assert found.flood_pct == pytest.approx(100 * flooded / (6 * 3600))
