"""The state machine: every cell of table A, then the rules that must hold whatever happens."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition
from hypothesis.stateful import rule as action
from sitewarden.edge.alarms.codec import alarm_from_json, alarm_json
from sitewarden.edge.alarms.machine import (
    Ack,
    Acknowledge,
    Alarm,
    Change,
    Event,
    Off,
    On,
    Realarm,
    Reason,
    Reset,
    State,
    Transition,
    missing_roles,
    repeat_in_s,
    step,
)
from sitewarden.edge.alarms.overlay import Cover, Overlay, OverlayKind, Uncover
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.errors import RefusedError
from sitewarden.words import ClockState, Instant

HI = Level(kind=Kind.HI, limit=25, priority=2)
HIHI = Level(kind=Kind.HIHI, limit=50, priority=1, latching=True)
RULE = Rule(
    id="pit.gas.ch4.high",
    point="pit.gas.ch4",
    area="pit",
    side=Side.HIGH,
    name="甲烷",
    name_en="Methane",
    unit="%LEL",
    levels=(HI, HIHI),
    reopen_s=300,
    revision="r1",
)
NEXT = 8


def instant(at_s: float, boot: str = "b") -> Instant:
    return Instant(utc_ms=1_795_000_000_000 + round(at_s * 1000), mono_s=at_s, boot=boot, clock=ClockState.SYNCED)


NOW = instant(1000)
KEEPER = Ack(role="keeper", person="p_li", at=instant(500))
OFFICER = Ack(role="officer", person="p_wang", at=instant(510))
NORM = Alarm(id=RULE.id, occurrence=7)
UNACK = Alarm(
    id=RULE.id,
    state=State.UNACK,
    kind=Kind.HI,
    priority=2,
    limit=25,
    active=Kind.HI,
    occurrence=7,
    count=1,
    value=26.0,
    raised_at=instant(400),
    required_acks=("keeper", "officer"),
)
ACKED = replace(UNACK, state=State.ACKED, acks=(KEEPER, OFFICER))
RETURNED = {"active": None, "returned_at": instant(700)}
LATCHED = {"kind": Kind.HIHI, "priority": 1, "limit": 50.0, "latched": True}
START: dict[str, Alarm] = {
    "NORM": NORM,
    "UNACK": UNACK,
    "UNACK, one acked": replace(UNACK, acks=(KEEPER,)),
    "UNACK latched": replace(UNACK, **LATCHED, active=Kind.HIHI),
    "ACKED": ACKED,
    "ACKED latched": replace(ACKED, **LATCHED, active=Kind.HIHI),
    "ACKED latched, eased": replace(ACKED, **LATCHED, active=Kind.HI),
    "RTNUN": replace(UNACK, state=State.RTNUN, **RETURNED, acks=(KEEPER,)),
    "RTNUN, late": replace(UNACK, state=State.RTNUN, active=None, returned_at=instant(699.9), acks=(KEEPER,)),
    "LATU": replace(UNACK, state=State.LATU, **LATCHED, **RETURNED, acks=(KEEPER,)),
    "LATA": replace(ACKED, state=State.LATA, **LATCHED, **RETURNED),
}


def last_ack(alarm: Alarm) -> Acknowledge:
    return Acknowledge(occurrence=alarm.occurrence, role="officer", person="p_wang")


EVENTS: dict[str, Callable[[Alarm], Event]] = {
    "on hi": lambda _: On(level=HI, value=30.0),
    "on hihi": lambda _: On(level=HIHI, value=60.0),
    "off": lambda _: Off(),
    "first ack": lambda a: Acknowledge(occurrence=a.occurrence, role="keeper", person="p_li"),
    "last ack": last_ack,
    "old ack": lambda a: replace(last_ack(a), occurrence=a.occurrence - 1),
    "reset": lambda a: Reset(occurrence=a.occurrence, person="p_wang", quality_good=True),
    "reset, bad": lambda a: Reset(occurrence=a.occurrence, person="p_wang", quality_good=False),
    "realarm": lambda _: Realarm(),
}

# state: event -> what follows. `raised:UNACK` is change:state; `-` nothing; `!word` refused with that reason.
# acks that are left: 0, 1 or 2 after the `/` (left out: as many as before).
CELLS = """
NORM: on hi -> raised:UNACK/0 · on hihi -> raised:UNACK/0 · off -> - · first ack -> !not_in_alarm
    · last ack -> !not_in_alarm · old ack -> !old_occurrence · reset -> !not_in_alarm · reset, bad -> !not_in_alarm
    · realarm -> -
UNACK: on hi -> eased:UNACK · on hihi -> reraised:UNACK/0 · off -> returned:RTNUN · first ack -> acked:UNACK/1
    · last ack -> acked:UNACK/1 · old ack -> !old_occurrence · reset -> !still_on · reset, bad -> !still_on
    · realarm -> repeated:UNACK
UNACK, one acked: on hi -> eased:UNACK/1 · on hihi -> reraised:UNACK/0 · off -> returned:RTNUN/1
    · first ack -> - · last ack -> acked:ACKED/2 · old ack -> !old_occurrence · reset -> !still_on
    · reset, bad -> !still_on · realarm -> repeated:UNACK/1
UNACK latched: on hi -> eased:UNACK · on hihi -> eased:UNACK · off -> returned:LATU · first ack -> acked:UNACK/1
    · last ack -> acked:UNACK/1 · old ack -> !old_occurrence · reset -> !still_on · reset, bad -> !still_on
    · realarm -> repeated:UNACK
ACKED: on hi -> eased:ACKED/2 · on hihi -> reraised:UNACK/0 · off -> closed:NORM/2 · first ack -> - · last ack -> -
    · old ack -> !old_occurrence · reset -> !still_on · reset, bad -> !still_on · realarm -> repeated:UNACK/0
ACKED latched: on hi -> eased:ACKED/2 · on hihi -> eased:ACKED/2 · off -> returned:LATA/2 · first ack -> -
    · last ack -> - · old ack -> !old_occurrence · reset -> !still_on · reset, bad -> !still_on
    · realarm -> repeated:UNACK/0
ACKED latched, eased: on hi -> eased:ACKED/2 · on hihi -> recurred:ACKED/2 · off -> returned:LATA/2 · first ack -> -
    · last ack -> - · old ack -> !old_occurrence · reset -> !still_on · reset, bad -> !still_on
    · realarm -> repeated:UNACK/0
RTNUN: on hi -> reopened:UNACK/1 · on hihi -> reopened:UNACK/0 · off -> - · first ack -> -
    · last ack -> acked:RTNUN/2 closed:NORM/2 · old ack -> !old_occurrence · reset -> !not_latched
    · reset, bad -> !not_latched · realarm -> repeated:RTNUN/1
RTNUN, late: on hi -> closed:NORM/1 raised:UNACK/0 · on hihi -> closed:NORM/1 raised:UNACK/0 · off -> -
    · first ack -> - · last ack -> acked:RTNUN/2 closed:NORM/2 · old ack -> !old_occurrence · reset -> !not_latched
    · reset, bad -> !not_latched · realarm -> repeated:RTNUN/1
LATU: on hi -> reopened:UNACK/1 · on hihi -> reopened:UNACK/1 · off -> - · first ack -> - · last ack -> acked:LATA/2
    · old ack -> !old_occurrence · reset -> !ack_first · reset, bad -> !ack_first · realarm -> repeated:LATU/1
LATA: on hi -> reopened:UNACK/0 · on hihi -> reopened:UNACK/0 · off -> - · first ack -> - · last ack -> -
    · old ack -> !old_occurrence · reset -> closed:NORM/2 · reset, bad -> !bad_quality · realarm -> -
"""


def cells() -> dict[tuple[str, str], str]:
    found = {}
    for line in CELLS.replace("\n    ", " ").strip().splitlines():
        state, _, row = line.partition(": ")
        for cell in row.split(" · "):
            event, _, wanted = cell.partition(" -> ")
            found[state, event.strip()] = wanted.strip()
    return found


TABLE = cells()


def apply(alarm: Alarm, event: Event, rule: Rule = RULE, now: Instant = NOW) -> tuple[Transition, ...]:
    return step(rule, alarm, event, now, NEXT)


def test_no_cell_is_left_out():
    assert set(TABLE) == set(itertools.product(START, EVENTS))
    assert {alarm.state for alarm in START.values()} == set(State)


@pytest.mark.parametrize(("state", "event"), sorted(TABLE))
def test_cell(state: str, event: str):
    wanted, alarm = TABLE[state, event], START[state]
    if wanted.startswith("!"):
        with pytest.raises(RefusedError) as refused:
            apply(alarm, EVENTS[event](alarm))
        assert refused.value.reason == wanted[1:]
        return
    transitions = apply(alarm, EVENTS[event](alarm))
    got = [f"{t.change}:{t.alarm.state}/{len(t.alarm.acks)}" for t in transitions]
    expected = [] if wanted == "-" else wanted.split()
    assert got == [one if "/" in one else f"{one}/{len(alarm.acks)}" for one in expected]


def only(transitions: tuple[Transition, ...]) -> Transition:
    (transition,) = transitions
    return transition


# --- what a cell does beside the state -------------------------------------------------------------------------


def test_a_raise_starts_a_new_occurrence():
    raised = only(apply(START["NORM"], On(level=HIHI, value=61.5)))
    assert raised.alarm == Alarm(
        id=RULE.id,
        state=State.UNACK,
        kind=Kind.HIHI,
        priority=1,
        limit=50,
        active=Kind.HIHI,
        occurrence=NEXT,
        count=1,
        latched=True,
        value=61.5,
        raised_at=NOW,
        required_acks=("keeper", "officer"),
        noticed_at=NOW,
        asked_at=NOW,
    )
    assert (raised.reason, raised.actor) == (Reason.CONDITION, "gateway")


def test_severity_up_keeps_the_occurrence_and_its_start():
    for state in ("UNACK, one acked", "ACKED"):
        worse = only(apply(START[state], On(level=HIHI, value=60))).alarm
        assert (worse.kind, worse.priority, worse.limit, worse.active) == (Kind.HIHI, 1, 50, Kind.HIHI)
        assert (worse.occurrence, worse.raised_at, worse.count, worse.latched) == (7, instant(400), 2, True)


def test_going_down_keeps_the_severity_and_the_acks():
    eased = only(apply(START["ACKED latched"], On(level=HI, value=30))).alarm
    assert (eased.kind, eased.priority, eased.limit, eased.active) == (Kind.HIHI, 1, 50, Kind.HI)
    assert (eased.acks, eased.latched) == ((KEEPER, OFFICER), True)


def test_coming_back_counts_and_forgets_the_return():
    for state in ("RTNUN", "LATU", "LATA"):
        again = only(apply(START[state], On(level=HI, value=30))).alarm
        assert (again.occurrence, again.count, again.returned_at, again.active) == (7, 2, None, Kind.HI)


def test_reopening_is_judged_by_the_time_since_the_return():
    returned = START["RTNUN"]
    assert returned.returned_at is not None

    def at(now: Instant) -> list[Change]:
        return [t.change for t in apply(returned, On(level=HI), now=now)]

    assert at(instant(1000)) == [Change.REOPENED]  # reopen_s itself is within
    assert at(instant(1000.1)) == [Change.CLOSED, Change.RAISED]
    stepped = replace(instant(1000), utc_ms=returned.returned_at.utc_ms + 9_999_999)
    assert at(stepped) == [Change.REOPENED]  # the wall clock stepped, the boot is the same
    rebooted = replace(instant(5, boot="b2"), utc_ms=returned.returned_at.utc_ms + 300_001)
    assert at(rebooted) == [Change.CLOSED, Change.RAISED]
    assert at(replace(rebooted, utc_ms=returned.returned_at.utc_ms + 300_000)) == [Change.REOPENED]
    assert at(replace(rebooted, utc_ms=0)) == [Change.REOPENED]  # a clock from before it happened


def test_a_superseded_occurrence_says_why():
    closed, raised = apply(START["RTNUN, late"], On(level=HI, value=30))
    assert (closed.alarm.occurrence, closed.reason, closed.alarm.acks) == (7, Reason.SUPERSEDED_UNACKED, (KEEPER,))
    assert (raised.alarm.occurrence, raised.reason, raised.alarm.count) == (NEXT, Reason.CONDITION, 1)


def test_the_last_ack_after_the_return_closes():
    acked, closed = apply(START["RTNUN"], last_ack(UNACK))
    assert (acked.actor, closed.actor, closed.reason) == ("p_wang", "p_wang", Reason.ACKED_AND_NORMAL)
    assert closed.alarm.acks[-1] == Ack(role="officer", person="p_wang", at=NOW)


def test_a_reset_names_the_person():
    closed = only(apply(START["LATA"], EVENTS["reset"](START["LATA"])))
    assert (closed.actor, closed.reason, closed.alarm.active) == ("p_wang", Reason.RESET, None)


@pytest.mark.parametrize(
    ("role", "person", "distinct", "reason"),
    [
        ("officer", "p_li", True, "distinct_persons"),  # answered as keeper already
        ("officer", "p_li", False, ""),
        ("keeper", "p_zhao", True, "already_acked"),  # by somebody else
        ("manager", "p_zhao", True, "role_not_required"),
        ("officer", "p_wang", True, ""),
    ],
)
def test_who_may_acknowledge(role: str, person: str, distinct: bool, reason: str):
    rule = replace(RULE, distinct_persons=not distinct)  # of today: it counts from the next occurrence
    alarm = replace(START["UNACK, one acked"], distinct_persons=distinct)
    event = Acknowledge(occurrence=7, role=role, person=person)
    if reason:
        with pytest.raises(RefusedError) as refused:
            apply(alarm, event, rule)
        assert refused.value.reason == reason
    else:
        assert only(apply(alarm, event, rule)).alarm.state is State.ACKED


@pytest.mark.parametrize("occurrence", [6, 8, 0])
def test_another_occurrence_is_refused_by_ack_and_reset(occurrence: int):
    for event in (
        Acknowledge(occurrence=occurrence, role="keeper", person="p_li"),
        Reset(occurrence=occurrence, person="p_wang", quality_good=True),
    ):
        with pytest.raises(RefusedError) as refused:
            apply(START["LATA"], event)
        assert refused.value.reason == "old_occurrence"
        assert refused.value.hint


def test_one_role_suffices_where_one_is_required():
    rule = replace(RULE, required_acks=("keeper",))
    alarm = only(apply(NORM, On(level=HI), rule)).alarm
    acked = only(apply(alarm, Acknowledge(occurrence=NEXT, role="keeper", person="p_li"), rule)).alarm
    assert acked.state is State.ACKED


@pytest.mark.parametrize("roles", [("keeper",), ("keeper", "officer", "manager"), ("control_room",)])
def test_a_new_configuration_counts_from_the_next_occurrence(roles: tuple[str, ...]):
    """An open occurrence that nobody could close any more would be worse than one under the old rule."""
    rule, alarm = replace(RULE, required_acks=roles), START["UNACK, one acked"]
    assert missing_roles(rule, alarm) == ("officer",)
    acked = only(apply(alarm, last_ack(alarm), rule)).alarm
    assert (acked.state, missing_roles(rule, acked)) == (State.ACKED, ())
    closed = only(apply(acked, Off(), rule)).alarm
    assert only(apply(closed, On(level=HI), rule)).alarm.required_acks == roles


def test_an_impossible_state_raises():
    with pytest.raises(AssertionError, match="condition on"):
        apply(replace(START["LATU"], active=Kind.HI), Off())


@pytest.mark.parametrize("state", START)
def test_the_object_survives_as_json(state: str):
    fields = alarm_json(RULE, START[state], NOW)
    assert alarm_from_json(fields) == START[state]
    assert fields["changed_at"] == "2026-11-18T11:23:20.000Z"
    assert (fields["point"], fields["name_en"]) == (RULE.point, "Methane")


# --- overlays ---------------------------------------------------------------------------------------------------


def overlay(kind: OverlayKind = OverlayKind.SHELVED, **changes: object) -> Overlay:
    plain = {"kind": kind, "who": "p_wang", "why": "sensor is being cleaned", "since": instant(900), "for_s": 600.0}
    if kind is OverlayKind.OUT_OF_SERVICE:
        plain["permit"] = "permit_12"
    return Overlay(**{**plain, **changes})


KINDS = list(OverlayKind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("state", "event"), sorted(TABLE))
def test_under_an_overlay_every_cell_is_the_same_and_nothing_is_repeated(state: str, event: str, kind: OverlayKind):
    bare, laid = START[state], overlay(kind)
    covered = replace(bare, overlay=laid)
    if TABLE[state, event].startswith("!"):
        with pytest.raises(RefusedError) as refused:
            apply(covered, EVENTS[event](covered))
        assert refused.value.reason == TABLE[state, event][1:]
        return
    wanted = apply(bare, EVENTS[event](bare))
    got = apply(covered, EVENTS[event](covered))
    if event == "realarm":
        assert got == ()
        return
    assert got == tuple(replace(t, alarm=replace(t.alarm, overlay=laid)) for t in wanted)


UNCOVERED = {
    "NORM": ["ended:NORM"],
    "UNACK": ["ended:UNACK", "reraised:UNACK"],
    "UNACK, one acked": ["ended:UNACK", "reraised:UNACK"],
    "UNACK latched": ["ended:UNACK", "reraised:UNACK"],
    "ACKED": ["ended:ACKED", "reraised:UNACK"],
    "ACKED latched": ["ended:ACKED", "reraised:UNACK"],
    "ACKED latched, eased": ["ended:ACKED", "reraised:UNACK"],
    "RTNUN": ["ended:RTNUN", "closed:NORM"],
    "RTNUN, late": ["ended:RTNUN", "closed:NORM"],
    "LATU": ["ended:LATU"],
    "LATA": ["ended:LATA"],
}
ENDS = {
    OverlayKind.SHELVED: "unshelved",
    OverlayKind.BY_DESIGN: "unsuppressed",
    OverlayKind.OUT_OF_SERVICE: "in_service",
}
BEGINS = {OverlayKind.SHELVED: "shelved", OverlayKind.BY_DESIGN: "suppressed"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("state", START)
def test_laid_over_and_taken_away(state: str, kind: OverlayKind):
    (begun,) = apply(START[state], Cover(overlay=overlay(kind), roles=("officer",)))
    assert begun.change == BEGINS.get(kind, "out_of_service")
    over = START[state].kind if kind is OverlayKind.SHELVED and state != "NORM" else None
    assert begun.alarm == replace(START[state], overlay=overlay(kind, over=over))
    assert begun.actor == ("gateway" if kind is OverlayKind.BY_DESIGN else "p_wang")
    for other in OverlayKind:
        if other is not kind:
            assert apply(begun.alarm, Uncover(kind=other, person="p_wang")) == ()
    ended = apply(begun.alarm, Uncover(kind=kind, person="p_li"))
    assert [f"{t.change}:{t.alarm.state}".replace(ENDS[kind], "ended") for t in ended] == UNCOVERED[state]
    assert ended[0].actor == "p_li"
    if ended[-1].change is Change.RERAISED:
        assert (ended[-1].reason, ended[-1].alarm.acks, ended[-1].alarm.noticed_at) == (Reason.UNCOVERED, (), NOW)
        assert ended[-1].alarm.occurrence == START[state].occurrence
    if ended[-1].change is Change.CLOSED:
        assert ended[-1].reason is Reason.CLEARED_WHILE_SUPPRESSED
    assert all(t.alarm.overlay is None for t in ended)
    assert apply(ended[-1].alarm, Uncover(kind=kind)) == ()


def test_why_an_overlay_ended_is_said():
    for kind, person, reason in (
        (OverlayKind.SHELVED, "", Reason.TIME_UP),
        (OverlayKind.SHELVED, "p_li", Reason.PERSON),
        (OverlayKind.BY_DESIGN, "", Reason.BY_DESIGN),
    ):
        ended = only(apply(replace(NORM, overlay=overlay(kind)), Uncover(kind=kind, person=person)))
        assert (ended.reason, ended.actor) == (reason, person or "gateway")


def test_one_shot_ends_with_the_condition():
    once = replace(UNACK, overlay=overlay(one_shot=True))
    returned = apply(once, Off())
    assert [t.change for t in returned] == [Change.RETURNED, Change.UNSHELVED, Change.CLOSED]
    assert returned[1].reason is Reason.CONDITION, "its time is not up"
    acked = replace(ACKED, overlay=overlay(one_shot=True))
    assert [t.change for t in apply(acked, Off())] == [Change.CLOSED, Change.UNSHELVED]
    assert [t.change for t in apply(replace(UNACK, overlay=overlay()), Off())] == [Change.RETURNED]


def test_what_is_worse_than_what_was_shelved_ends_the_shelf_and_is_told():
    """Who shelves a first level did not see the second: for eight hours nobody would be told of it."""
    for seen in (UNACK, ACKED, replace(UNACK, state=State.RTNUN, **RETURNED)):
        shelved = only(apply(seen, Cover(overlay=overlay(), roles=("officer",)))).alarm
        assert alarm_from_json(alarm_json(RULE, shelved, NOW)) == shelved
        told = apply(shelved, On(level=HIHI, value=60.0))
        assert [(t.change, t.reason) for t in told[1:]] == [
            (Change.UNSHELVED, Reason.SEVERITY_UP),
            (Change.RERAISED, Reason.UNCOVERED),
        ]
        assert (told[0].alarm.overlay is not None, told[-1].alarm.overlay) == (True, None)
        assert (told[-1].alarm.state, told[-1].alarm.priority, told[-1].alarm.acks) == (State.UNACK, 1, ())
        assert [t.alarm.overlay for t in apply(shelved, On(level=HI))] == [shelved.overlay], "no worse"
        off = apply(shelved, Off())
        later = off[-1].alarm if off else shelved
        again = apply(later, On(level=HIHI, value=60.0))
        assert again[-1].alarm.overlay is None, "also when it comes back worse"
    holds = overlay(OverlayKind.BY_DESIGN, for_s=None)
    covered = apply(shelved, On(level=HIHI, then=holds))
    assert covered[-1].alarm.overlay == holds, "a rule of the site takes its place"


def test_a_shelf_for_a_test_and_an_alarm_out_of_service_lie_over_every_level():
    for before, laid in ((NORM, overlay()), (UNACK, overlay(OverlayKind.OUT_OF_SERVICE))):
        covered = only(apply(before, Cover(overlay=laid, roles=("officer",)))).alarm
        assert [t.alarm.overlay for t in apply(covered, On(level=HIHI))] == [laid]
        hi = apply(covered, On(level=HI))[-1].alarm
        assert [t.alarm.overlay for t in apply(hi, On(level=HIHI))] == [laid]


LIFE = replace(RULE, life_safety=True)
HOUR = 3600.0


@pytest.mark.parametrize(
    ("rule", "laid", "roles", "reason"),
    [
        (RULE, overlay(), ("keeper",), ""),
        (RULE, overlay(), ("worker", "vice_president"), "not_allowed"),
        (RULE, overlay(for_s=8 * HOUR), ("control_room",), ""),
        (RULE, overlay(for_s=8 * HOUR + 1), ("officer",), "too_long"),
        (RULE, overlay(for_s=0.0), ("officer",), "too_long"),
        (RULE, overlay(for_s=None), ("officer",), "too_long"),
        (RULE, overlay(why="  ? "), ("officer",), "reason_missing"),
        (replace(RULE, shelve_max_s=60.0), overlay(for_s=61.0), ("officer",), "too_long"),
        (LIFE, overlay(), ("keeper", "control_room"), "not_allowed"),
        (LIFE, overlay(for_s=1800.0), ("officer",), ""),
        (LIFE, overlay(for_s=1801.0), ("officer",), "too_long"),
        (LIFE, overlay(OverlayKind.BY_DESIGN), (), "life_safety"),
        (RULE, overlay(OverlayKind.BY_DESIGN, for_s=None, why=""), (), ""),
        (RULE, overlay(OverlayKind.OUT_OF_SERVICE, permit=""), ("officer",), "permit_missing"),
        (RULE, overlay(OverlayKind.OUT_OF_SERVICE), ("keeper",), "not_allowed"),
        (LIFE, overlay(OverlayKind.OUT_OF_SERVICE, for_s=9 * HOUR), ("officer",), ""),
    ],
)
def test_who_may_cover_what_for_how_long(rule: Rule, laid: Overlay, roles: tuple[str, ...], reason: str):
    event = Cover(overlay=laid, roles=roles)
    if not reason:
        over = UNACK.kind if laid.kind is OverlayKind.SHELVED else None
        assert only(apply(UNACK, event, rule)).alarm.overlay == replace(laid, over=over)
        return
    with pytest.raises(RefusedError) as refused:
        apply(UNACK, event, rule)
    assert refused.value.reason == reason


def test_one_overlay_at_a_time_and_a_shelf_can_be_renewed():
    shelved = replace(UNACK, overlay=overlay())
    later = overlay(since=instant(1000))
    renewed = only(apply(shelved, Cover(overlay=later, roles=("officer",)))).alarm.overlay
    assert renewed == replace(later, over=shelved.kind)
    assert apply(shelved, Cover(overlay=overlay(OverlayKind.BY_DESIGN))) == ()
    with pytest.raises(RefusedError) as refused:
        apply(shelved, Cover(overlay=overlay(OverlayKind.OUT_OF_SERVICE), roles=("officer",)))
    assert refused.value.reason == "covered"


def test_its_time_is_counted_by_the_clock_that_can_be_believed():
    laid = overlay()
    assert not laid.is_over(instant(1499.9))
    assert laid.is_over(instant(1500))
    assert not laid.is_over(replace(instant(1000), utc_ms=instant(9999).utc_ms)), "a clock that is set ends nothing"
    assert laid.is_over(instant(1500, "b2"))
    lost = replace(instant(599.9, "b2"), utc_ms=0)
    assert not laid.is_over(lost)
    assert laid.is_over(replace(lost, mono_s=600.0)), "up for ten minutes, whatever the wall clock says"
    assert not overlay(for_s=None).is_over(instant(99_999))


def test_people_are_told_again_also_when_the_clock_was_lost_at_boot():
    lost = Instant(utc_ms=0, mono_s=100.0, boot="b2", clock=ClockState.UNSYNCED)
    unacked = replace(UNACK, noticed_at=instant(900))
    assert repeat_in_s(RULE, unacked, lost) == RULE.repeat_s[unacked.priority] - 100.0


@pytest.mark.parametrize("kind", KINDS)
def test_an_overlay_survives_as_json(kind: OverlayKind):
    alarm = replace(UNACK, overlay=overlay(kind, one_shot=True), noticed_at=instant(401))
    assert alarm_from_json(alarm_json(RULE, alarm, NOW)) == alarm
    fields = alarm_json(RULE, START["UNACK"], NOW)
    del fields["overlay"], fields["noticed"]
    assert alarm_from_json(fields) == START["UNACK"], "as it was recorded before there were overlays"


# --- whatever happens ------------------------------------------------------------------------------------------


class AlarmMachine(RuleBasedStateMachine):
    """Readings, time, people who are right, late or wrong; checked after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.alarm = Alarm(id=RULE.id)
        self.rule = RULE
        self.at_s = 0.0
        self.boot = 0
        self.last = 0
        self.raised: dict[int, dict[Kind, int]] = {}

    def do(self, event: Event) -> tuple[Transition, ...]:
        before, now = self.alarm, instant(self.at_s, f"b{self.boot}")
        transitions = step(self.rule, before, event, now, self.last + 1)
        assert transitions == step(self.rule, before, event, now, self.last + 1)
        for transition in transitions:
            self.check(before, transition)
            before = transition.alarm
        self.alarm = before
        self.last = max(self.last, self.alarm.occurrence)
        return transitions

    def check(self, before: Alarm, transition: Transition) -> None:
        after = transition.alarm
        assert after.occurrence - before.occurrence == (1 if transition.change is Change.RAISED else 0)
        if transition.change is Change.RAISED:
            assert before.state is State.NORM
            assert self.raised.setdefault(after.occurrence, {}) == {}
        if transition.change in (*ENDS.values(), *BEGINS.values(), Change.OUT_OF_SERVICE):
            assert after == replace(before, overlay=after.overlay)
            return
        assert after.overlay == before.overlay
        if transition.reason is Reason.UNCOVERED:
            assert (after.state, after.acks, after.overlay) == (State.UNACK, (), None)
            return
        severity_up = transition.reason is Reason.SEVERITY_UP
        assert severity_up == (transition.change is not Change.RAISED and after.kind is not before.kind)
        if transition.change is Change.RAISED or severity_up:
            assert after.kind is not None
            kinds = self.raised[after.occurrence]
            kinds[after.kind] = kinds.get(after.kind, 0) + 1
            assert after.state is State.UNACK
            assert after.acks == ()
        if transition.change is Change.CLOSED:
            assert after.state is State.NORM
            assert (transition.reason is Reason.RESET) == after.latched
            if transition.reason not in (Reason.SUPERSEDED_UNACKED, Reason.CLEARED_WHILE_SUPPRESSED):
                assert missing_roles(self.rule, replace(after, state=State.RTNUN)) == ()
                assert len({ack.person for ack in after.acks}) == 2
        else:
            assert after.state is not State.NORM

    @action(level=st.sampled_from([HI, HIHI]))
    def on(self, level: Level) -> None:
        if self.alarm.active is not level.kind:
            assert self.do(On(level=level, value=1.0))

    @action()
    def off(self) -> None:
        was = self.alarm.active
        assert bool(self.do(Off())) == (was is not None)
        assert self.alarm.active is None

    @action(
        role=st.sampled_from(["keeper", "officer", "manager"]),
        person=st.sampled_from(["p1", "p2", "p3"]),
        behind=st.sampled_from([0, 0, 0, 1, -1]),
    )
    def acknowledge(self, role: str, person: str, behind: int) -> None:
        held = {ack.role: ack.person for ack in self.alarm.acks}
        may = (
            behind == 0
            and self.alarm.state is not State.NORM
            and role in self.alarm.required_acks
            and (held.get(role) == person or (role not in held and person not in held.values()))
        )
        event = Acknowledge(occurrence=self.alarm.occurrence - behind, role=role, person=person)
        try:
            transitions = self.do(event)
        except RefusedError:
            assert not may
        else:
            assert may
            assert bool(transitions) == (held.get(role) != person)
            assert all(t.actor == person for t in transitions)

    @action(good=st.booleans(), behind=st.sampled_from([0, 0, 1]))
    def reset(self, good: bool, behind: int) -> None:
        may = self.alarm.state is State.LATA and good and behind == 0
        try:
            self.do(Reset(occurrence=self.alarm.occurrence - behind, person="p9", quality_good=good))
        except RefusedError:
            assert not may
        else:
            assert may

    @action()
    def realarm(self) -> None:
        was = self.alarm
        told = was.overlay is None and was.state not in (State.NORM, State.LATA)
        assert bool(self.do(Realarm())) == told

    @action(kind=st.sampled_from(KINDS), one_shot=st.booleans())
    def cover(self, kind: OverlayKind, one_shot: bool) -> None:
        before, laid = self.alarm, overlay(kind, since=instant(self.at_s, f"b{self.boot}"), one_shot=one_shot)
        try:
            self.do(Cover(overlay=laid, roles=("officer",)))
        except RefusedError:
            assert before.overlay is not None
            assert before.overlay.kind is not kind
        else:
            assert self.alarm.overlay is not None
            assert (self.alarm.state, self.alarm.acks) == (before.state, before.acks)

    @action(kind=st.sampled_from(KINDS), person=st.sampled_from(["", "p1"]))
    def uncover(self, kind: OverlayKind, person: str) -> None:
        before = self.alarm
        mine = before.overlay is not None and before.overlay.kind is kind
        assert bool(self.do(Uncover(kind=kind, person=person))) == mine
        if mine and before.active is not None:
            assert self.alarm.state is State.UNACK
            assert self.alarm.acks == ()
        elif mine:
            assert self.alarm.state is (State.NORM if before.state is State.RTNUN else before.state)

    @action(seconds=st.sampled_from([0.5, 299.0, 301.0]))
    def wait(self, seconds: float) -> None:
        self.at_s += seconds

    @precondition(lambda self: self.alarm.occurrence > 0)
    @action(roles=st.sampled_from([("keeper", "officer"), ("officer", "manager")]))
    def restart(self, roles: tuple[str, ...]) -> None:
        """A new boot with perhaps another configuration; the state comes from its record."""
        self.boot += 1
        self.rule = replace(RULE, required_acks=roles)
        assert alarm_from_json(alarm_json(self.rule, self.alarm, instant(self.at_s))) == self.alarm

    @invariant()
    def it_is_consistent(self) -> None:
        alarm = self.alarm
        assert (alarm.active is not None) == (alarm.state in (State.UNACK, State.ACKED))
        roles, persons = [a.role for a in alarm.acks], [a.person for a in alarm.acks]
        assert len(set(roles)) == len(roles)
        assert len(set(persons)) == len(persons)
        assert set(roles) <= set(alarm.required_acks)
        if alarm.state is not State.NORM:
            unacked = alarm.state in (State.UNACK, State.RTNUN, State.LATU)
            assert bool(missing_roles(self.rule, alarm)) == unacked
            assert (alarm.state in (State.LATU, State.LATA)) <= alarm.latched
            assert alarm.latched == (alarm.kind is Kind.HIHI)

    @invariant()
    def one_raise_per_occurrence_and_severity(self) -> None:
        assert all(times == 1 for kinds in self.raised.values() for times in kinds.values())
        assert sorted(self.raised) == list(range(1, self.last + 1))


AlarmMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWhateverHappens = AlarmMachine.TestCase
