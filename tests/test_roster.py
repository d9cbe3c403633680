"""Who answers for a role now: shifts across midnight and clock changes, rotations, absences, chains of substitutes."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.edge.alerts.roster import (
    EVERYBODY_AWAY,
    NOBODY_ON_DUTY,
    Absence,
    Duty,
    Holder,
    Quiet,
    Roster,
    Shift,
    find_loops,
    stand_ins,
)
from sitewarden.serving.people import parse_people
from sitewarden.words import Instant

PEOPLE = parse_people(
    "id,name,name_en,roles,areas,phone\n"
    "li,李,Li,keeper,store pit,\n"
    "sun,孙,Sun,keeper,store,\n"
    "wu,吴,Wu,keeper,hall,\n"
    "wang,王,Wang,officer,*,\n"
    "zhao,赵,Zhao,control_room,*,\n",
    "people.csv",
)
DAY = Shift(id="day", begin=dt.time(8), end=dt.time(20))
NIGHT = Shift(id="night", begin=dt.time(20), end=dt.time(8))
BOTH = (Duty(person="li", role="keeper", shift=DAY), Duty(person="sun", role="keeper", shift=NIGHT))
ZONES = ("Asia/Shanghai", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe", "America/New_York")


def at(text: str, zone: str = "Asia/Shanghai", fold: int = 0) -> Instant:
    local = dt.datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return Instant(utc_ms=round(local.timestamp() * 1000), mono_s=0.0, boot="b")


def roster(*duties: Duty, absences: tuple[Absence, ...] = (), timezone: str = "Asia/Shanghai") -> Roster:
    return Roster(people=PEOPLE, timezone=timezone, duties=duties, absences=absences)


def away(person: str, substitute: str = "", begin: str = "2026-10-01", end: str = "2026-10-08") -> Absence:
    moments = (dt.datetime.fromisoformat(text) for text in (begin, end))
    return Absence(person=person, begin=next(moments), end=next(moments), substitute=substitute)


def who(plan: Roster, moment: str, role: str = "keeper", area: str = "store") -> list[str]:
    return [holder.person for holder in plan.holders(role, area, at(moment, plan.timezone))]


def test_without_a_plan_everybody_who_holds_the_role_there_answers():
    assert roster().holders("keeper", "store", at("2026-10-01 12:00")) == (Holder(person="li"), Holder(person="sun"))
    assert who(roster(), "2026-10-01 12:00", area="hall") == ["wu"]
    assert who(roster(), "2026-10-01 12:00", area="") == ["li", "sun", "wu"], "what concerns the whole site"
    assert who(roster(), "2026-10-01 12:00", role="hr") == []


@pytest.mark.parametrize(
    ("moment", "person"),
    [
        ("2026-10-01 08:00", "li"),
        ("2026-10-01 19:59:59.999", "li"),
        ("2026-10-01 20:00", "sun"),
        ("2026-10-01 23:59:59.999", "sun"),
        ("2026-10-02 00:00", "sun"),
        ("2026-10-02 07:59:59.999", "sun"),
        ("2026-10-02 08:00", "li"),
    ],
)
def test_a_shift_ends_when_the_next_one_begins_also_after_midnight(moment: str, person: str):
    assert who(roster(*BOTH), moment) == [person]


def test_a_night_belongs_to_the_day_on_which_it_begins():
    friday = replace(NIGHT, days=frozenset({4}))
    plan = roster(Duty(person="sun", role="keeper", shift=friday), Duty(person="li", role="keeper", shift=DAY))
    assert who(plan, "2026-10-02 23:00") == ["sun"], "Friday"
    assert who(plan, "2026-10-03 07:00") == ["sun"], "it goes on on Saturday"
    assert plan.holders("keeper", "store", at("2026-10-02 07:00"))[0].because == NOBODY_ON_DUTY, "Thursday's night"
    last = roster(Duty(person="sun", role="keeper", shift=NIGHT, last=dt.date(2026, 10, 2)), BOTH[0])
    assert who(last, "2026-10-03 07:59") == ["sun"]
    assert {holder.because for holder in last.holders("keeper", "store", at("2026-10-03 20:00"))} == {NOBODY_ON_DUTY}


def test_a_shift_that_ends_when_it_begins_lasts_a_whole_day():
    whole = Shift(id="whole", begin=dt.time(8), end=dt.time(8), days=frozenset({0}))
    plan = roster(Duty(person="li", role="keeper", shift=whole))
    hours = {hour: who(plan, f"2026-10-05 {hour:02}:00") for hour in (7, 8, 23)} | {24: who(plan, "2026-10-06 07:59")}
    assert hours == {7: ["li", "sun"], 8: ["li"], 23: ["li"], 24: ["li"]}


def test_every_second_week_counts_from_the_week_of_its_first_day():
    wednesday = dt.date(2026, 10, 7)
    plan = roster(Duty(person="li", role="keeper", shift=DAY, first=wednesday, every_weeks=2), BOTH[1])
    on = [day for day in range(1, 29) if who(plan, f"2026-10-{day:02} 12:00") == ["li"]]
    assert on == [7, 8, 9, 10, 11, *range(19, 26)]


def test_a_plan_of_one_area_says_nothing_of_another():
    plan = roster(Duty(person="li", role="keeper", shift=DAY, areas=("pit",)))
    assert who(plan, "2026-10-01 12:00", area="store") == ["li", "sun"]
    assert who(plan, "2026-10-01 12:00", area="pit") == ["li"]
    other = roster(Duty(person="wu", role="keeper", shift=DAY))
    assert who(other, "2026-10-01 12:00", area="store") == ["li", "sun"], "wu does not answer for the store"


def test_nobody_on_duty_means_everybody_and_says_so():
    found = roster(BOTH[0]).holders("keeper", "store", at("2026-10-01 22:00"))
    assert found == (Holder(person="li", because=NOBODY_ON_DUTY), Holder(person="sun", because=NOBODY_ON_DUTY))


def test_a_substitute_takes_the_place_of_who_is_away():
    plan = roster(absences=(away("wang", "zhao"),))
    assert plan.holders("officer", "store", at("2026-10-03 12:00")) == (Holder(person="zhao", instead_of="wang"),)
    for moment, person in (
        ("2026-09-30 23:59", "wang"),
        ("2026-10-01 00:00", "zhao"),
        ("2026-10-07 23:59", "zhao"),
        ("2026-10-08 00:00", "wang"),
    ):
        assert who(plan, moment, role="officer") == [person], moment


def test_substitutes_who_are_away_have_substitutes_of_their_own():
    plan = roster(absences=(away("wang", "zhao"), away("zhao", "li", begin="2026-10-02", end="2026-10-03")))
    assert who(plan, "2026-10-01 12:00", role="officer") == ["zhao"]
    assert plan.holders("officer", "store", at("2026-10-02 12:00")) == (Holder(person="li", instead_of="wang"),)


def test_who_is_there_in_person_is_not_named_a_substitute_as_well():
    plan = roster(absences=(away("li", "sun"),))
    assert plan.holders("keeper", "store", at("2026-10-03 12:00")) == (Holder(person="sun"),)


def test_somebody_on_duty_who_is_away_without_a_substitute_leaves_it_to_the_others():
    plan = roster(BOTH[0], absences=(away("li"),))
    assert plan.holders("keeper", "store", at("2026-10-03 12:00")) == (Holder(person="sun", because=NOBODY_ON_DUTY),)


def test_a_substitute_who_left_the_plant_is_nobody():
    plan = roster(absences=(away("li", "gone"),))
    assert who(plan, "2026-10-03 12:00") == ["sun"]


def test_everybody_away_means_everybody_is_told_all_the_same():
    plan = roster(absences=(away("li"), away("sun")))
    found = plan.holders("keeper", "store", at("2026-10-03 12:00"))
    assert found == (Holder(person="li", because=EVERYBODY_AWAY), Holder(person="sun", because=EVERYBODY_AWAY))


def test_holders_may_always_act_and_substitutes_while_they_stand_in():
    plan = roster(*BOTH, absences=(away("wang", "zhao"),))
    during, after = at("2026-10-03 12:00"), at("2026-10-09 12:00")
    assert plan.may_act("wang", "officer", "store", during), "away, and back for this"
    assert plan.may_act("zhao", "officer", "store", during)
    assert not plan.may_act("zhao", "officer", "store", after)
    assert plan.may_act("sun", "keeper", "store", during), "not on duty now"
    assert not plan.may_act("wu", "keeper", "store", during), "another area"
    assert not plan.may_act("nobody", "keeper", "store", during)
    assert [person.id for person in plan.stands_in_for("zhao", during)] == ["wang"]
    assert plan.stands_in_for("zhao", after) == ()
    assert plan.stands_in_for("wang", after) == (), "nobody stands in for themselves"


def test_two_who_stand_in_for_each_other_leave_nobody_untold_and_are_found():
    circle = (away("li", "sun"), away("sun", "li", begin="2026-10-05", end="2026-10-20"))
    plan = roster(absences=circle)
    assert who(plan, "2026-10-06 12:00") == ["li", "sun"]
    assert list(find_loops(circle)) == [(1, "sun -> li -> sun")]
    assert list(find_loops([away("li", "li")])) == [(0, "li -> li")]
    apart = (away("li", "sun"), away("sun", "li", begin="2026-10-08", end="2026-10-20"))
    assert list(find_loops(apart)) == []


def test_everybody_who_may_ever_stand_in():
    assert stand_ins("wang", [("wang", "zhao"), ("zhao", "li"), ("li", "wang"), ("sun", "wu")]) == ("zhao", "li")
    assert stand_ins("wang", [("wang", "")]) == ()


# --- days that have 23 or 25 hours ---


@pytest.mark.parametrize(
    ("moment", "fold", "person"),
    [
        ("2026-03-29 01:59", 0, "sun"),
        ("2026-03-29 03:00", 0, "li"),  # 02:00 to 02:59 did not come
        ("2026-10-25 01:59", 0, "sun"),
        ("2026-10-25 02:00", 0, "li"),
        ("2026-10-25 02:00", 1, "li"),  # it comes twice
        ("2026-10-25 13:59", 0, "li"),
        ("2026-10-25 14:00", 0, "sun"),
    ],
)
def test_a_shift_that_begins_while_the_clock_is_changed(moment: str, fold: int, person: str):
    early, late = Shift(id="a", begin=dt.time(2), end=dt.time(14)), Shift(id="b", begin=dt.time(14), end=dt.time(2))
    plan = roster(
        Duty(person="li", role="keeper", shift=early),
        Duty(person="sun", role="keeper", shift=late),
        timezone="Europe/Berlin",
    )
    found = plan.holders("keeper", "store", at(moment, "Europe/Berlin", fold))
    assert found == (Holder(person=person),)


moments = st.integers(min_value=1_760_000_000_000, max_value=1_800_000_000_000)
clocks = st.times(dt.time(0), dt.time(23, 59)).map(lambda time: time.replace(second=0, microsecond=0))


@given(utc_ms=moments, first=clocks, second=clocks, zone=st.sampled_from(ZONES))
def test_two_shifts_that_meet_share_the_day_without_gap_or_overlap(
    utc_ms: int, first: dt.time, second: dt.time, zone: str
):
    """Whatever the clocks do: at each moment exactly one of them, unless both last a whole day."""
    one, two = Shift(id="a", begin=first, end=second), Shift(id="b", begin=second, end=first)
    plan = roster(
        Duty(person="li", role="keeper", shift=one), Duty(person="sun", role="keeper", shift=two), timezone=zone
    )
    found = plan.holders("keeper", "store", Instant(utc_ms=utc_ms, mono_s=0.0, boot="b"))
    if first == second:
        assert found == (Holder(person="li"), Holder(person="sun"))
    else:
        assert len(found) == 1
        assert not found[0].because


days = st.dates(dt.date(2025, 10, 1), dt.date(2027, 1, 31))
names = st.sampled_from([*PEOPLE, ""])
duties = st.builds(
    Duty,
    person=st.sampled_from([*PEOPLE]),
    role=st.sampled_from(["keeper", "officer"]),
    shift=st.builds(
        Shift, id=st.just("s"), begin=clocks, end=clocks, days=st.frozensets(st.integers(0, 6), min_size=1)
    ),
    areas=st.sampled_from([(), ("store",), ("pit", "hall")]),
    first=days,
    last=st.none() | days,
    every_weeks=st.integers(1, 5),
)
absences = st.builds(
    lambda person, begin, length, substitute: Absence(
        person=person, begin=begin, end=begin + dt.timedelta(hours=length), substitute=substitute
    ),
    st.sampled_from([*PEOPLE]),
    st.datetimes(dt.datetime.fromisoformat("2025-10-01"), dt.datetime.fromisoformat("2027-01-31")),
    st.integers(1, 5000),
    names,
)


@given(
    plan=st.lists(duties, max_size=6),
    gone=st.lists(absences, max_size=8),
    utc_ms=moments,
    zone=st.sampled_from(ZONES),
    role=st.sampled_from(["keeper", "officer", "hr"]),
    area=st.sampled_from(["store", "pit", "hall", "yard", ""]),
)
def test_there_is_always_somebody_and_whoever_is_told_may_act(
    plan: list[Duty], gone: list[Absence], utc_ms: int, zone: str, role: str, area: str
):
    made = roster(*plan, absences=tuple(gone), timezone=zone)
    instant = Instant(utc_ms=utc_ms, mono_s=0.0, boot="b")
    real = {p.id for p in PEOPLE.values() if role in p.roles and (not area or p.answers_for(area))}
    found = made.holders(role, area, instant)
    assert bool(found) == bool(real)
    assert len({holder.person for holder in found}) == len(found)
    for holder in found:
        assert made.may_act(holder.person, role, area, instant)
        assert (holder.instead_of or holder.person) in real


# --- quiet hours ---


@pytest.mark.parametrize(
    ("moment", "hours"),
    [("2026-10-05 19:59:59", 0.0), ("2026-10-05 20:00", 12.0), ("2026-10-06 07:00", 1.0), ("2026-10-06 08:00", 0.0)],
)
def test_quiet_hours_last_until_their_shift_ends(moment: str, hours: float) -> None:
    plan = replace(roster(), quiets=(Quiet(person="li", shift=NIGHT),))
    assert plan.quiet_s("li", at(moment)) == hours * 3600
    assert plan.quiet_s("sun", at(moment)) == 0.0, "they are hours of one person"


def test_quiet_hours_that_meet_are_one_and_never_longer_than_a_day() -> None:
    lunch = Shift(id="lunch", begin=dt.time(8), end=dt.time(12), days=frozenset({1}))
    plan = replace(roster(), quiets=(Quiet(person="li", shift=lunch), Quiet(person="li", shift=NIGHT)))
    assert plan.quiet_s("li", at("2026-10-06 07:00")) == 5 * 3600, "on a Tuesday"
    assert plan.quiet_s("li", at("2026-10-07 07:00")) == 3600
    always = replace(roster(), quiets=(Quiet(person="li", shift=DAY), Quiet(person="li", shift=NIGHT)))
    assert always.quiet_s("li", at("2026-10-07 07:00")) <= 86_400
