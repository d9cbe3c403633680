"""Who is told of an alarm: every holder of every required role, once per channel, each with a key of its own."""

from __future__ import annotations

from typing import Any

import pytest
from sitewarden.edge.alerts.recipients import ALERTING, COVERING, delivery_key, recipients
from sitewarden.serving.people import parse_people

PEOPLE = parse_people(
    "id,name,name_en,roles,areas,phone\n"
    "li,李,Li,keeper,aux_store hazmat_store,\n"
    "sun,孙,Sun,keeper team_leader,steaming,\n"
    "wu,吴,Wu,keeper,aux_store,\n"
    "wang,王,Wang,officer,*,\n"
    "both,双,Both,officer keeper,aux_store,\n"
    "zhao,赵,Zhao,control_room,*,\n",
    "people.csv",
)


def alarm(**changes: Any) -> dict[str, Any]:
    fields = {"id": "aux_store.th1.humidity.high", "area": "aux_store", "kind": "hi", "count": 1, "occurrence": 7}
    return {**fields, "required_acks": ["keeper", "officer"], **changes}


def told(kind: str = "alarm.raised", channels: tuple[str, ...] = ("robot",), **changes: Any) -> list[dict[str, str]]:
    return recipients(kind, alarm(**changes), site="s1", people=PEOPLE, channels=channels)


def who(rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(row["person"], row["role"], row["channel"]) for row in rows]


def test_keepers_of_the_area_and_the_officer_are_told_and_nobody_else():
    assert who(told()) == [
        ("li", "keeper", "robot"),
        ("wu", "keeper", "robot"),
        ("both", "keeper", "robot"),  # holds both roles: told once
        ("wang", "officer", "robot"),
    ]


def test_another_area_has_its_own_keeper():
    assert who(told(area="steaming")) == [("sun", "keeper", "robot"), ("wang", "officer", "robot")]


def test_every_channel_has_its_own_row_and_key():
    rows = told(channels=("robot", "sms"), area="steaming")
    assert who(rows) == [
        ("sun", "keeper", "robot"),
        ("sun", "keeper", "sms"),
        ("wang", "officer", "robot"),
        ("wang", "officer", "sms"),
    ]
    assert len({row["key"] for row in rows}) == 4


@pytest.mark.parametrize(
    "kind",
    ["alarm.acked", "alarm.returned", "alarm.closed", "alarm.recurred", "alarm.eased", "gateway.started", "alarm"],
)
def test_only_alerting_records_tell_anyone(kind: str):
    assert told(kind) == []


def test_nobody_to_tell_and_no_channel_are_no_rows():
    assert told(required_acks=["vice_president"]) == []
    assert told(channels=()) == []


def test_the_same_event_has_the_same_keys():
    assert told() == told()


@pytest.mark.parametrize(
    "changes",
    [{"occurrence": 8}, {"count": 2}, {"kind": "hihi"}, {"id": "aux_store.th1.temperature.high"}],
)
def test_another_event_has_other_keys(changes: dict[str, Any]):
    assert not {row["key"] for row in told()} & {row["key"] for row in told(**changes)}


def test_each_alerting_kind_has_other_keys():
    keys = [row["key"] for kind in ALERTING for row in told(kind)]
    assert len(keys) == len(set(keys)) == 4 * len(ALERTING)


def test_parts_of_a_key_cannot_run_into_each_other():
    assert delivery_key("s", "ab", 1, "c", "p", "x") != delivery_key("s", "a", 1, "bc", "p", "x")
    assert delivery_key("s", "a", 11, "c", "p", "x") != delivery_key("s", "a", 1, "1c", "p", "x")
    assert len(delivery_key("s", "a", 1, "c", "p", "x")) == 64


OVERLAY = {"kind": "shelved", "since": {"utc": "2026-11-22T10:00:00.000Z"}}


def test_what_is_covered_tells_nobody_and_covering_it_tells_the_officer():
    assert told("alarm.raised", overlay=OVERLAY) == []
    assert told("alarm.repeated", overlay=OVERLAY) == []
    for kind in COVERING:
        assert who(told(kind, overlay=OVERLAY)) == [("wang", "officer", "robot"), ("both", "officer", "robot")]
    again = {**OVERLAY, "since": {"utc": "2026-11-22T11:00:00.000Z"}}
    keys = [row["key"] for laid in (OVERLAY, again) for row in told("alarm.shelved", overlay=laid)]
    assert len(set(keys)) == 4, "renewed: told again"


def test_a_repeat_goes_to_whoever_has_not_acknowledged_and_each_time_with_another_key():
    acks = [{"role": "keeper", "person": "li"}]
    first, second = (told("alarm.repeated", acks=acks, noticed={"utc": f"2026-11-22T10:0{n}:00.000Z"}) for n in (0, 5))
    assert [row["person"] for row in first] == ["wu", "both", "wang"]
    assert not {row["key"] for row in first} & {row["key"] for row in second}
    assert "li" in [row["person"] for row in told("alarm.reraised", acks=acks)]
