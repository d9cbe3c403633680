"""Who is told of a record, on which channels, with which keys; and by which way when the first one fails."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from typing import Any

import pytest
from sitewarden.edge.alerts.recipients import (
    ALERTING,
    COVERING,
    FREEZING,
    TELLING,
    Addressing,
    delivery_key,
    recipients,
)
from sitewarden.edge.alerts.roster import NOBODY_ON_DUTY, Absence, Duty, Quiet, Roster, Shift
from sitewarden.edge.alerts.routing import Way, at_once, next_way, things, ways
from sitewarden.edge.ladders.climb import Step, Subject, Wall, begin, climbed
from sitewarden.edge.ladders.freeze import of_ladder, release
from sitewarden.edge.ladders.keeper import step_json
from sitewarden.edge.ladders.plan import (
    BY_PRIORITY,
    NOTICE,
    PRESETS,
    PRIORITY_1,
    PRIORITY_2,
    STANDARD,
    SYSTEM,
    Basis,
    Plan,
    Rung,
)
from sitewarden.serving.people import parse_people
from sitewarden.words import Instant, utc_from_text

PEOPLE = parse_people(
    "id,name,name_en,roles,areas,phone,email\n"
    "li,李,Li,keeper,store pit,13800000001,li@example.com\n"
    "sun,孙,Sun,keeper team_leader,hall,,sun@example.com\n"
    "wu,吴,Wu,keeper,store,,\n"
    "wang,王,Wang,officer,*,13800000002,\n"
    "both,双,Both,officer keeper,store,13800000003,both@example.com\n"
    "zhao,赵,Zhao,control_room,*,13800000004,\n"
    "chen,陈,Chen,vice_president,*,13800000005,\n"
    "liu,刘,Liu,it,*,13800000006,\n",
    "people.csv",
)
AT = Instant(utc_ms=1_790_000_000_000, mono_s=1000.0, boot="b")
WEBHOOK = Way(id="hook", kind="webhook")
SMS = Way(id="sms", kind="sms")
MAIL = Way(id="mail", kind="mail")
GROUP = Way(id="group", kind="wecom")
HORN = Way(id="horn", kind="beacon", areas=("pit",))
VOICE = Way(id="voice", kind="speech")


def addressing(*order: Way, plans: dict[int, Plan] | None = None, **roster: Any) -> Addressing:
    return Addressing(
        scope="s1",
        roster=Roster(people=PEOPLE, **roster),
        order=order or (WEBHOOK,),
        plans={n: PRESETS[name] for n, name in BY_PRIORITY.items()} if plans is None else plans,
        system=SYSTEM,
    )


def alarm(**changes: Any) -> dict[str, Any]:
    fields = {"id": "store.th1.humidity.high", "area": "store", "kind": "hi", "count": 1, "occurrence": 7}
    return {**fields, "priority": 3, "required_acks": ["keeper", "officer"], **changes}


def told(kind: str = "alarm.raised", *order: Way, quiet: bool = False, **changes: Any) -> list[dict[str, Any]]:
    body = {"alarm": alarm(**changes), **({"quiet": True} if quiet else {})}
    return recipients(kind, body, AT, addressing(*order))


def climb(plan: Plan, n: int, subject: Subject, order: tuple[Way, ...] = (SMS,)) -> list[dict[str, Any]]:
    started = begin(subject, plan, AT, Wall.at_start(None, AT))
    for i in range(started.climbed, n + 1):
        started = climbed(started, i)
    body = {"ladder": started.to_json(), "step": step_json(started, Step(n=n, rung=plan.rungs[n]))}
    return recipients("ladder.step", body, AT, addressing(*order))


def who(rows: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(row["person"], row["role"], row["channel"]) for row in rows]


# --- alarms ---


@pytest.mark.parametrize(
    ("kind", "changes", "held"),
    [
        ("alarm.raised", {"priority": 3}, True),
        ("alarm.repeated", {"priority": 4}, True),
        ("alarm.raised", {"priority": 2}, False),
        ("alarm.raised", {"priority": 1}, False),
        ("alarm.raised", {"priority": 3, "life_safety": True}, False),
    ],
)
def test_quiet_hours_keep_what_can_wait_from_a_person_and_from_nothing_else(kind, changes, held) -> None:
    always = Shift(id="always", begin=dt.time(0), end=dt.time(0))
    ways = (SMS, MAIL, GROUP, replace(HORN, areas=()))
    given = addressing(*ways, quiets=(Quiet(person="li", shift=always), Quiet(person="wu", shift=always)))
    rows = recipients(kind, {"alarm": alarm(**changes)}, AT, given)
    kept = {(row["person"], row["channel"]): row["hold_s"] for row in rows if "hold_s" in row}
    expected = {("li", "sms"), ("li", "mail")} if changes["priority"] == 1 else {("li", "sms")}
    assert set(kept) == (expected if held else set())
    assert all(0 < hold_s <= 86_400 for hold_s in kept.values())
    assert any(row["channel"] == "group" and "wu" in row["mentions"] for row in rows), "a group hears of it at once"


def test_quiet_hours_keep_no_step_of_a_ladder() -> None:
    always = Shift(id="always", begin=dt.time(0), end=dt.time(0))
    subject = Subject(kind="alarm", id="store.th1.humidity.high", occurrence=7, area="store", name="湿度")
    climb_ = replace(begin(subject, STANDARD, AT, Wall.at_start(None, AT)), climbed=2)
    body = {"ladder": climb_.to_json(), "step": step_json(climb_, Step(n=1, rung=STANDARD.rungs[1]))}
    rows = recipients("ladder.step", body, AT, addressing(SMS, quiets=(Quiet(person="li", shift=always),)))
    assert "li" in {row["person"] for row in rows}
    assert not any("hold_s" in row for row in rows)


def test_keepers_of_the_area_and_the_officer_are_told_and_nobody_else():
    assert who(told()) == [
        ("li", "keeper", "hook"),
        ("wu", "keeper", "hook"),
        ("both", "keeper", "hook"),  # holds both roles: told once
        ("wang", "officer", "hook"),
    ]
    assert who(told(area="hall")) == [("sun", "keeper", "hook"), ("wang", "officer", "hook")]


def test_each_is_told_by_the_first_way_that_can_reach_them():
    assert who(told("alarm.raised", SMS, MAIL, WEBHOOK)) == [
        ("li", "keeper", "sms"),
        ("wu", "keeper", "hook"),  # neither phone nor address
        ("both", "keeper", "sms"),
        ("wang", "officer", "sms"),
    ]
    assert who(told("alarm.raised", MAIL, area="pit")) == [("li", "keeper", "mail")], "nothing reaches wang"


def test_priority_1_is_told_on_every_channel_and_the_siren_at_once():
    rows = told("alarm.raised", SMS, MAIL, HORN, VOICE, area="pit", priority=1)
    assert who(rows) == [
        ("li", "keeper", "sms"),
        ("li", "keeper", "mail"),
        ("wang", "officer", "sms"),
        ("", "", "horn"),
        ("", "", "voice"),
    ]
    assert [row["channel"] for row in told("alarm.raised", SMS, HORN, VOICE, priority=1) if not row["person"]] == [
        "voice"
    ], "the horn of the pit is silent for the store"
    assert {row["channel"] for row in told("alarm.raised", SMS, HORN, VOICE, area="pit")} == {"sms"}, "priority 3"


def test_who_is_told_at_0_s_by_the_ladder_is_told_by_the_alarm_itself():
    """`climb.begin` makes no step of such a rung."""
    wide = Plan(id="wide", basis=Basis.OPEN, rungs=(Rung(at_s=0, to=("control_room",)), Rung(at_s=60, to=("it",))))
    for kind in ("alarm.raised", "alarm.reraised", "alarm.reopened"):
        rows = recipients(kind, {"alarm": alarm(area="pit")}, AT, addressing(SMS, plans={3: wide}))
        assert [row["person"] for row in rows] == ["li", "wang", "zhao"]
    repeated = recipients("alarm.repeated", {"alarm": alarm(area="pit")}, AT, addressing(SMS, plans={3: wide}))
    assert [row["person"] for row in repeated] == ["li", "wang"], "of whom an acknowledgement is wanted"


def test_an_alarm_of_the_system_goes_to_the_system_ladder_and_its_own_roles():
    fields = {"id": "system.modem_down.sms", "area": "", "required_acks": ["it", "control_room"]}
    assert who(told("alarm.raised", SMS, **fields, priority=1)) == [
        ("liu", "it", "sms"),
        ("zhao", "control_room", "sms"),
    ]
    area = {**fields, "required_acks": ["keeper"]}
    assert {row["person"] for row in told("alarm.raised", WEBHOOK, **area)} >= {"li", "sun", "wu", "both"}


@pytest.mark.parametrize(
    "kind",
    ["alarm.acked", "alarm.returned", "alarm.closed", "alarm.recurred", "alarm.eased", "gateway.started", "alarm"],
)
def test_only_telling_records_tell_anyone(kind: str):
    assert told(kind) == []
    assert kind not in TELLING


def test_a_quiet_return_of_an_alarm_tells_nobody():
    assert told("alarm.reopened", quiet=True) == []
    assert told("alarm.reopened") != []


def test_nobody_to_tell_and_no_channel_are_no_rows():
    assert told(required_acks=["hr"], priority=5) == []
    nowhere = Addressing(scope="s", roster=Roster(people=PEOPLE), order=(), plans={}, system=SYSTEM)
    assert recipients("alarm.raised", {"alarm": alarm()}, AT, nowhere) == []


OVERLAY = {"kind": "shelved", "since": {"utc": "2026-11-22T10:00:00.000Z"}}


def test_what_is_covered_tells_nobody_and_covering_it_tells_the_officer():
    assert told("alarm.raised", overlay=OVERLAY) == []
    assert told("alarm.repeated", overlay=OVERLAY) == []
    for kind in COVERING:
        assert who(told(kind, overlay=OVERLAY)) == [("wang", "officer", "hook"), ("both", "officer", "hook")]
    again = {**OVERLAY, "since": {"utc": "2026-11-22T11:00:00.000Z"}}
    keys = [row["key"] for laid in (OVERLAY, again) for row in told("alarm.shelved", overlay=laid)]
    assert len(set(keys)) == 4, "renewed: told again"


def test_a_repeat_goes_to_whoever_has_not_acknowledged_and_each_time_with_another_key():
    acks = [{"role": "keeper", "person": "li"}]
    first, second = (told("alarm.repeated", acks=acks, noticed={"utc": f"2026-11-22T10:0{n}:00.000Z"}) for n in (0, 5))
    assert [row["person"] for row in first] == ["wu", "both", "wang"]
    assert not {row["key"] for row in first} & {row["key"] for row in second}
    assert "li" in [row["person"] for row in told("alarm.reraised", acks=acks)]


# --- the roster ---


def test_substitutes_are_told_in_the_role_of_who_is_away():
    begin, end = (dt.datetime.fromisoformat(day) for day in ("2026-01-01", "2027-01-01"))
    gone = Absence(person="wang", begin=begin, end=end, substitute="zhao")
    body = {"alarm": alarm(area="pit")}
    rows = recipients("alarm.raised", body, AT, addressing(SMS, absences=(gone,)))
    assert who(rows) == [("li", "keeper", "sms"), ("zhao", "officer", "sms")]
    assert [row.get("instead_of") for row in rows] == [None, "wang"]


def test_a_plan_that_leaves_nobody_is_said_in_the_rows():
    never = Duty(
        person="li",
        role="keeper",
        shift=Shift(id="s", begin=dt.time(8), end=dt.time(9)),
        last=dt.date(2020, 1, 1),
    )
    rows = recipients("alarm.raised", {"alarm": alarm(area="pit")}, AT, addressing(SMS, duties=(never,)))
    assert [(row["person"], row.get("because")) for row in rows] == [("li", NOBODY_ON_DUTY), ("wang", None)]


# --- groups ---


def test_a_group_gets_one_message_that_mentions_everybody_it_accounts_for():
    rows = told("alarm.raised", GROUP, SMS)
    assert who(rows) == [("", "", "group")]
    assert rows[0]["mentions"] == ["li", "wu", "both", "wang"]
    mixed = told("alarm.raised", SMS, GROUP)
    assert [row["person"] for row in mixed] == ["li", "both", "wang", ""]
    assert mixed[-1]["mentions"] == ["wu"], "whom nothing else reaches"


def test_a_group_of_some_areas_and_roles_tells_nobody_else():
    keepers = Way(id="keepers", kind="dingtalk", areas=("pit",), roles=("keeper",))
    assert told("alarm.raised", keepers, area="pit")[0]["mentions"] == ["li"]
    assert told("alarm.raised", keepers) == []


# --- ladders and freezes ---

ALARM = Subject(kind="alarm", id="pit.gas.h2s.high", occurrence=7, area="pit", priority=1)
ALARM_OF_3 = Subject(kind="alarm", id="store.th1.humidity.high", occurrence=7, area="store", priority=3)


def test_a_step_tells_everybody_of_the_rungs_below_as_well():
    assert who(climb(PRIORITY_1, 1, ALARM, (SMS, HORN))) == [
        ("li", "keeper", "sms"),
        ("wang", "officer", "sms"),
        ("zhao", "control_room", "sms"),
        ("", "", "horn"),
    ]
    assert [row["person"] for row in climb(PRIORITY_1, 2, ALARM)] == ["li", "wang", "zhao", "chen"]
    assert {row["step"] for row in climb(PRIORITY_1, 2, ALARM)} == {3}
    assert {row["step"] for row in told()} == {0}


def test_a_step_after_a_change_of_shift_tells_those_who_are_on_duty_then():
    """li was told and went home at 20:00; wang went on leave at 21:00, and zhao stands in."""
    day, night = (Shift(id=str(h), begin=dt.time(h), end=dt.time((h + 12) % 24)) for h in (8, 20))
    duties = (Duty(person="li", role="keeper", shift=day), Duty(person="wu", role="keeper", shift=night))
    leave = (dt.datetime.fromisoformat(text) for text in ("2026-10-01T21:00", "2026-10-02T21:00"))
    gone = Absence(person="wang", begin=next(leave), end=next(leave), substitute="zhao")
    plan = addressing(WEBHOOK, SMS, MAIL, duties=duties, absences=(gone,))
    plan = replace(plan, roster=replace(plan.roster, people={**PEOPLE, "wu": replace(PEOPLE["wu"], phone="138")}))
    raised_at = Instant(utc_ms=utc_from_text("2026-10-01T19:30:00+08:00"), mono_s=0.0, boot="b")
    first = recipients("alarm.raised", {"alarm": alarm()}, raised_at, plan)
    assert {row["person"] for row in first} == {"li", "wang", "both"}
    started = climbed(begin(ALARM_OF_3, STANDARD, raised_at, Wall.at_start(None, raised_at)), 1)
    body = {"ladder": started.to_json(), "step": step_json(started, Step(n=1, rung=STANDARD.rungs[1]))}
    later = Instant(utc_ms=raised_at.utc_ms + 7_200_000, mono_s=7200.0, boot="b")
    second = recipients("ladder.step", body, later, plan)
    assert {(row["person"], row.get("instead_of", "")) for row in second} == {
        ("wu", ""),
        ("zhao", "wang"),
        ("both", ""),
    }


def test_kinds_of_channels_are_added_from_rung_to_rung():
    order = (MAIL, SMS, WEBHOOK)
    assert [row["channel"] for row in climb(PRIORITY_2, 1, ALARM, order) if row["person"] == "li"] == ["mail", "sms"]
    assert [row["channel"] for row in climb(PRIORITY_2, 2, ALARM, order) if row["person"] == "li"] == [
        "mail",
        "sms",
        "hook",
    ]
    freeze = climb(STANDARD, 3, ALARM, order)
    assert {row["person"] for row in freeze} == {"li", "wang", "chen"}
    assert [row["channel"] for row in freeze if row["person"] == "li"] == ["mail", "sms"], "still by SMS"


def test_each_step_and_each_ladder_has_keys_of_its_own():
    again = Subject(kind="alarm", id="pit.gas.h2s.high", occurrence=8, area="pit", priority=1)
    rows = [row for n in (1, 2) for subject in (ALARM, again) for row in climb(PRIORITY_1, n, subject)]
    assert len({row["key"] for row in rows}) == len(rows)
    assert climb(PRIORITY_1, 1, ALARM) == climb(PRIORITY_1, 1, ALARM)


def test_a_freeze_goes_to_officer_vice_president_and_manager():
    freeze = of_ladder(ALARM, AT)
    lifted = release(freeze, "chen", ["vice_president"], "checked and aired", AT)
    bodies = {
        "freeze.set": {"freeze": freeze.to_json()},
        "freeze.released": {"freeze": lifted.to_json()},
        "deviation.opened": {"id": f"deviation/{ALARM.key}", "subject": ALARM.to_json()},
    }
    keys: list[str] = []
    for kind in FREEZING:
        rows = recipients(kind, bodies[kind], AT, addressing(SMS))
        assert who(rows) == [("wang", "officer", "sms"), ("chen", "vice_president", "sms")], kind
        keys += [row["key"] for row in rows]
    assert len(set(keys)) == 6


# --- keys ---


def test_the_same_event_has_the_same_keys():
    assert told() == told()


@pytest.mark.parametrize(
    "changes",
    [{"occurrence": 8}, {"count": 2}, {"kind": "hihi"}, {"id": "store.th1.temperature.high"}],
)
def test_another_event_has_other_keys(changes: dict[str, Any]):
    assert not {row["key"] for row in told()} & {row["key"] for row in told(**changes)}


def test_each_alerting_kind_has_other_keys_and_names_itself():
    rows = [row for kind in ALERTING for row in told(kind)]
    assert len({row["key"] for row in rows}) == len(rows) == 4 * len(ALERTING)
    assert {row["kind"] for row in rows} == set(ALERTING)


def test_every_part_of_a_key_counts_and_none_runs_into_the_next():
    parts: tuple[Any, ...] = ("s", "a", 1, "e", 2, "r", "p", "c")
    keys = {delivery_key(*parts)}
    for i, part in enumerate(parts):
        other: tuple[Any, ...] = (*parts[:i], part + 1 if isinstance(part, int) else part + "x", *parts[i + 1 :])
        keys.add(delivery_key(*other))
    assert len(keys) == 9
    assert delivery_key("s", "ab", 1, "c", 0, "", "p", "x") != delivery_key("s", "a", 1, "bc", 0, "", "p", "x")
    assert all(len(key) == 64 for key in keys)


# --- ways ---

ORDER = (MAIL, SMS, GROUP, WEBHOOK, HORN, VOICE)


@pytest.mark.parametrize(
    ("person", "found"),
    [
        ("li", ["mail", "sms", "group", "hook"]),
        ("sun", ["mail", "group", "hook"]),
        ("wang", ["sms", "group", "hook"]),
        ("wu", ["group", "hook"]),
    ],
)
def test_the_ways_of_a_person_are_those_that_can_reach_them_in_order(person: str, found: list[str]):
    assert [way.id for way in ways(ORDER, PEOPLE[person], ("keeper",), "pit")] == found


@pytest.mark.parametrize(
    ("add", "used"),
    [
        ((), ["mail"]),
        (("sms",), ["mail", "sms"]),
        (("mail",), ["mail"]),
        (("siren",), ["mail"]),
        (("wecom", "sms"), ["mail", "sms", "group"]),
        (("*",), ["mail", "sms", "group", "hook"]),
    ],
)
def test_what_is_used_at_once(add: tuple[str, ...], used: list[str]):
    assert [way.id for way in at_once(ways(ORDER, PEOPLE["li"], "keeper", "pit"), add)] == used


@pytest.mark.parametrize(
    ("tried", "way"),
    [([], "mail"), (["mail"], "sms"), (["mail", "group"], "sms"), (["mail", "sms", "group", "hook"], None)],
)
def test_the_next_way_is_the_first_that_was_not_tried(tried: list[str], way: str | None):
    found = next_way(ORDER, PEOPLE["li"], ("keeper",), "pit", tried)
    assert (found.id if found else None) == way
    assert addressing(*ORDER).next("li", "keeper", "pit", tried) == (way or "")
    assert addressing(*ORDER).next("gone", "keeper", "pit", tried) == ""


@pytest.mark.parametrize(
    ("area", "add", "used"),
    [
        ("pit", ("siren",), ["horn", "voice"]),
        ("store", ("siren",), ["voice"]),
        ("", ("*",), ["horn", "voice"]),
        ("pit", ("beacon",), ["horn"]),
        ("pit", ("sms",), []),
        ("pit", (), []),
    ],
)
def test_things_sound_when_a_rung_asks_for_them_and_the_area_is_theirs(
    area: str, add: tuple[str, ...], used: list[str]
):
    assert [way.id for way in things(ORDER, area, add)] == used


def test_a_notice_is_told_once_by_the_first_way():
    assert NOTICE.rungs[0].add == ()
    assert who(told("alarm.raised", SMS, MAIL, area="pit", priority=4)) == [
        ("li", "keeper", "sms"),
        ("wang", "officer", "sms"),
    ]
