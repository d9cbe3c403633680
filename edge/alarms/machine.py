"""The alarm state machine: states x events, pure. Every cell is table A of docs/alarms.md.

`ACK` counts when the last required role has acknowledged; earlier ones are recorded and leave the state as it is.
Silencing a horn is not an acknowledgement and does not come here. Severity is the maximum of the occurrence; going
down never clears acknowledgements.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, replace

from ...errors import RefusedError
from ...words import Instant
from .overlay import Cover, Overlay, OverlayKind, Uncover, check_cover, seconds_between
from .rules import Kind, Level, Rule

QUIET_S = 60.0
"""An alarm that reopens within this time after people were last told of it does not tell them again."""
OFTEN, OFTEN_QUIET_S = 3, 900.0
"""From its third coming on, not until they would be reminded of it (`repeat_s`), or so long where they are not."""


class State(enum.StrEnum):
    """NORM, UNACK, ACKED, RTNUN (returned unacknowledged), LATU / LATA (returned and latched, un/acknowledged)."""

    NORM = "NORM"
    UNACK = "UNACK"
    ACKED = "ACKED"
    RTNUN = "RTNUN"
    LATU = "LATU"
    LATA = "LATA"


class Change(enum.StrEnum):
    """What a transition is called; kind of its record is `alarm.` + this."""

    RAISED = "raised"
    RERAISED = "reraised"
    RECURRED = "recurred"
    EASED = "eased"
    REOPENED = "reopened"
    RETURNED = "returned"
    ACKED = "acked"
    REPEATED = "repeated"
    SHELVED = "shelved"
    UNSHELVED = "unshelved"
    SUPPRESSED = "suppressed"
    UNSUPPRESSED = "unsuppressed"
    OUT_OF_SERVICE = "out_of_service"
    IN_SERVICE = "in_service"
    CLOSED = "closed"


class Reason(enum.StrEnum):
    """Why a transition happened."""

    CONDITION = "condition"
    DURING_OUTAGE = "during_outage"
    SEVERITY_UP = "severity_up"
    PERSON = "person"
    REALARM = "realarm"
    ACKED_AND_NORMAL = "acked_and_normal"
    SUPERSEDED_UNACKED = "superseded_unacked"
    RESET = "reset"
    TIME_UP = "time_up"
    BY_DESIGN = "by_design"
    UNCOVERED = "uncovered"
    CLEARED_WHILE_SUPPRESSED = "cleared_while_suppressed"
    RULE_REMOVED = "rule_removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ack:
    """One role's acknowledgement by one person."""

    role: str
    person: str
    at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """The live state of one alarm object.

    Attributes:
        kind, priority, limit: of the most severe level of this occurrence.
        active: kind of the level that is on now, None when the condition is off.
        occurrence: number of this occurrence, unique on the gateway; 0 before the first.
        count: how often the condition came on during the occurrence.
        latched: a latching level was reached during the occurrence.
        value: of the reading that raised it, made it worse or brought it back; None for silence and bad quality.
        required_acks, distinct_persons: as they were when it was raised; a new configuration counts from the next
            occurrence.
        first_out: it was raised while no other of its group was open, so it shows the cause.
        noticed_at: when people were last told of it, or would have been without an overlay.
        asked_at: since when acknowledgements count: it was raised, made worse or told anew, and earlier ones are void.
        overlay: why nobody is told; None when people are.
    """

    id: str
    state: State = State.NORM
    kind: Kind | None = None
    priority: int = 4
    limit: float = 0.0
    active: Kind | None = None
    occurrence: int = 0
    count: int = 0
    latched: bool = False
    value: float | None = None
    raised_at: Instant | None = None
    returned_at: Instant | None = None
    required_acks: tuple[str, ...] = ()
    distinct_persons: bool = True
    acks: tuple[Ack, ...] = ()
    first_out: bool = False
    noticed_at: Instant | None = None
    asked_at: Instant | None = None
    overlay: Overlay | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class On:
    """The condition came on, or its active level changed to `level`.

    `first_out`: see `Alarm`. `then`: see `Uncover`, when this ends a shelf.
    """

    level: Level
    value: float | None = None
    first_out: bool = False
    then: Overlay | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Off:
    """The condition went off. `during_outage`: it was off already when the gateway came back."""

    during_outage: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Acknowledge:
    """`person` acknowledges as `role`, naming the occurrence that they saw."""

    occurrence: int
    role: str
    person: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """An officer unlatches; allowed with the condition off and good quality only."""

    occurrence: int
    person: str
    quality_good: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Realarm:
    """The repeat timer fired."""


Event = On | Off | Acknowledge | Reset | Realarm | Cover | Uncover

_COVERED = {
    OverlayKind.SHELVED: Change.SHELVED,
    OverlayKind.BY_DESIGN: Change.SUPPRESSED,
    OverlayKind.OUT_OF_SERVICE: Change.OUT_OF_SERVICE,
}
ENDS = {
    OverlayKind.SHELVED: Change.UNSHELVED,
    OverlayKind.BY_DESIGN: Change.UNSUPPRESSED,
    OverlayKind.OUT_OF_SERVICE: Change.IN_SERVICE,
}
"""What it is called when an overlay ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One change of an alarm; becomes one record.

    Attributes:
        actor: a person's id or `gateway`.
        quiet: nobody is told: they were, of the same alarm, just before.
    """

    alarm: Alarm
    change: Change
    reason: Reason
    actor: str = "gateway"
    quiet: bool = False


def step(rule: Rule, alarm: Alarm, event: Event, now: Instant, next_occurrence: int) -> tuple[Transition, ...]:
    """The transitions that `event` makes, oldest first; empty when nothing changes.

    Args:
        rule: of the alarm.
        alarm: before the event.
        event: what happened.
        now: stored in what changes.
        next_occurrence: the number that a new occurrence gets.

    Raises:
        RefusedError: a person's command that the state does not allow (`old_occurrence`, `not_in_alarm`,
            `role_not_required`, `already_acked`, `distinct_persons`, `ack_first`, `still_on`, `bad_quality`,
            `not_latched`; of an overlay: see `overlay.check_cover`, and `covered`).
    """
    match event:
        case On():
            return _end_shelf_below(_on(rule, alarm, event, now, next_occurrence), event, now)
        case Off():
            return _off(alarm, event, now)
        case Cover():
            return _cover(rule, alarm, event)
        case Uncover():
            return _uncover(alarm, event, now)
        case Acknowledge():
            return _acknowledge(rule, alarm, event, now)
        case Reset():
            return _reset(alarm, event)
        case Realarm():
            return _realarm(alarm, now)


def repeat_due(rule: Rule, alarm: Alarm, now: Instant) -> bool:
    """Whether people must be told again: `repeat_s` while it is not acknowledged, `realarm_s` while it is still on."""
    return repeat_in_s(rule, alarm, now) <= 0


def repeat_in_s(rule: Rule, alarm: Alarm, now: Instant) -> float:
    """Seconds until `repeat_due`; infinity when nothing will be repeated."""
    if alarm.overlay is not None or alarm.state in (State.NORM, State.LATA):
        return math.inf
    acked = alarm.state is State.ACKED
    every_s = (rule.realarm_s if acked else rule.repeat_s).get(alarm.priority, 0.0)
    since = alarm.acks[-1].at if acked and alarm.acks else alarm.noticed_at
    return every_s - seconds_between(since, now) if every_s > 0 and since is not None else math.inf


def missing_roles(rule: Rule, alarm: Alarm) -> tuple[str, ...]:
    """Required roles that have not acknowledged this occurrence yet."""
    have = {ack.role for ack in alarm.acks}
    return tuple(role for role in required_roles(rule, alarm) if role not in have)


def required_roles(rule: Rule, alarm: Alarm) -> tuple[str, ...]:
    """Roles that must each acknowledge: of the open occurrence, or of the next one when there is none."""
    return rule.required_acks if alarm.state is State.NORM else alarm.required_acks


def _raise(rule: Rule, alarm: Alarm, event: On, now: Instant, occurrence: int) -> Transition:
    level = event.level
    raised = Alarm(
        id=rule.id,
        state=State.UNACK,
        kind=level.kind,
        priority=level.priority,
        limit=level.limit,
        active=level.kind,
        occurrence=occurrence,
        count=1,
        latched=level.latching,
        value=event.value,
        raised_at=now,
        required_acks=rule.required_acks,
        distinct_persons=rule.distinct_persons,
        first_out=event.first_out,
        noticed_at=now,
        asked_at=now,
        overlay=alarm.overlay,
    )
    return Transition(alarm=raised, change=Change.RAISED, reason=Reason.CONDITION)


def _on(rule: Rule, alarm: Alarm, event: On, now: Instant, next_occurrence: int) -> tuple[Transition, ...]:
    if alarm.state is State.NORM:
        return (_raise(rule, alarm, event, now, next_occurrence),)
    if alarm.state is State.RTNUN and seconds_between(alarm.returned_at, now) > rule.reopen_s:
        closed = replace(alarm, state=State.NORM, active=None)
        return (
            Transition(alarm=closed, change=Change.CLOSED, reason=Reason.SUPERSEDED_UNACKED),
            _raise(rule, alarm, event, now, next_occurrence),
        )
    up = _rank(event.level.kind) > _rank(alarm.active)
    worse = _rank(event.level.kind) > _rank(alarm.kind)
    after = replace(
        alarm,
        active=event.level.kind,
        value=event.value if up else alarm.value,
        returned_at=None,
        count=alarm.count + (1 if up else 0),
        latched=alarm.latched or event.level.latching,
    )
    if worse:
        after = replace(after, kind=event.level.kind, priority=event.level.priority, limit=event.level.limit)
    if alarm.state in (State.UNACK, State.ACKED):
        if worse:
            after = replace(after, state=State.UNACK, acks=(), noticed_at=now, asked_at=now)
            return (Transition(alarm=after, change=Change.RERAISED, reason=Reason.SEVERITY_UP),)
        return (Transition(alarm=after, change=Change.RECURRED if up else Change.EASED, reason=Reason.CONDITION),)
    # RTNUN, LATU, LATA: the same occurrence is on again
    keep = alarm.state is not State.LATA and not worse
    quiet_s = _quiet_s(rule, after)
    quiet = keep and alarm.noticed_at is not None and seconds_between(alarm.noticed_at, now) < quiet_s
    noticed_at = alarm.noticed_at if quiet else now
    after = replace(after, state=State.UNACK, noticed_at=noticed_at)
    if not keep:
        after = replace(after, acks=(), asked_at=now)
    reason = Reason.SEVERITY_UP if worse else Reason.CONDITION
    return (Transition(alarm=after, change=Change.REOPENED, reason=reason, quiet=quiet),)


def _end_shelf_below(made: tuple[Transition, ...], event: On, now: Instant) -> tuple[Transition, ...]:
    """Who shelves an alarm that is on accepts what they see, not what is worse: a second level is told."""
    alarm = made[-1].alarm
    overlay = alarm.overlay
    if overlay is None or overlay.over is None or _rank(alarm.active) <= _rank(overlay.over):
        return made
    ended, *then = _uncover(alarm, Uncover(kind=overlay.kind, then=event.then), now)
    return (*made, replace(ended, reason=Reason.SEVERITY_UP), *then)


def _quiet_s(rule: Rule, alarm: Alarm) -> float:
    if alarm.count < OFTEN:
        return QUIET_S
    return max(QUIET_S, rule.repeat_s.get(alarm.priority, 0.0) or OFTEN_QUIET_S)


def _off(alarm: Alarm, event: Off, now: Instant) -> tuple[Transition, ...]:
    returned = _return(alarm, event, now)
    if not returned or alarm.overlay is None or not alarm.overlay.one_shot:
        return returned
    ended, *then = _uncover(returned[-1].alarm, Uncover(kind=alarm.overlay.kind), now)
    return (*returned, replace(ended, reason=Reason.CONDITION), *then)


def _return(alarm: Alarm, event: Off, now: Instant) -> tuple[Transition, ...]:
    if alarm.active is None:
        return ()
    after = replace(alarm, active=None, returned_at=now)
    reason = Reason.DURING_OUTAGE if event.during_outage else Reason.CONDITION
    match alarm.state:
        case State.UNACK:
            after = replace(after, state=State.LATU if alarm.latched else State.RTNUN)
            return (Transition(alarm=after, change=Change.RETURNED, reason=reason),)
        case State.ACKED if alarm.latched:
            after = replace(after, state=State.LATA)
            return (Transition(alarm=after, change=Change.RETURNED, reason=reason),)
        case State.ACKED:
            after = replace(after, state=State.NORM)
            return (Transition(alarm=after, change=Change.CLOSED, reason=Reason.ACKED_AND_NORMAL),)
        case _:
            raise AssertionError(f"{alarm.id}: condition on in {alarm.state}")


def _acknowledge(rule: Rule, alarm: Alarm, event: Acknowledge, now: Instant) -> tuple[Transition, ...]:
    _check_occurrence(alarm, event.occurrence)
    if event.role not in alarm.required_acks:
        raise RefusedError("role_not_required", f"{alarm.id} does not ask role {event.role!r} to acknowledge")
    for ack in alarm.acks:
        if ack.role == event.role and ack.person == event.person:
            return ()
        if ack.role == event.role:
            raise RefusedError("already_acked", f"{alarm.id}: {ack.person} has acknowledged as {event.role}")
        if ack.person == event.person and alarm.distinct_persons:
            hint = "another person of the missing role must acknowledge"
            raise RefusedError("distinct_persons", f"{event.person} has acknowledged as {ack.role}", hint=hint)
    after = replace(alarm, acks=(*alarm.acks, Ack(role=event.role, person=event.person, at=now)))
    if missing_roles(rule, after):
        return (Transition(alarm=after, change=Change.ACKED, reason=Reason.PERSON, actor=event.person),)
    return _fully_acked(alarm, after, event.person)


def _fully_acked(alarm: Alarm, after: Alarm, person: str) -> tuple[Transition, ...]:
    target = {State.UNACK: State.ACKED, State.RTNUN: State.NORM, State.LATU: State.LATA}.get(alarm.state, alarm.state)
    acked = Transition(
        alarm=replace(after, state=State.RTNUN if target is State.NORM else target),
        change=Change.ACKED,
        reason=Reason.PERSON,
        actor=person,
    )
    if target is not State.NORM:
        return (acked,)
    closed = Transition(
        alarm=replace(after, state=State.NORM), change=Change.CLOSED, reason=Reason.ACKED_AND_NORMAL, actor=person
    )
    return (acked, closed)


def _reset(alarm: Alarm, event: Reset) -> tuple[Transition, ...]:
    _check_occurrence(alarm, event.occurrence)
    if alarm.state is State.LATU:
        raise RefusedError("ack_first", f"{alarm.id} is not acknowledged", hint="acknowledge first, then reset")
    if alarm.active is not None:
        raise RefusedError("still_on", f"{alarm.id} is still in alarm", hint="reset when the value is back to normal")
    if alarm.state is not State.LATA:
        raise RefusedError("not_latched", f"{alarm.id} is not latched: it closes by itself")
    if not event.quality_good:
        raise RefusedError("bad_quality", f"{alarm.id}: the newest reading is not good", hint="repair the sensor first")
    after = replace(alarm, state=State.NORM)
    return (Transition(alarm=after, change=Change.CLOSED, reason=Reason.RESET, actor=event.person),)


def _realarm(alarm: Alarm, now: Instant) -> tuple[Transition, ...]:
    if alarm.overlay is not None:
        return ()
    match alarm.state:
        case State.UNACK | State.RTNUN | State.LATU:
            after = replace(alarm, noticed_at=now)
            return (Transition(alarm=after, change=Change.REPEATED, reason=Reason.REALARM),)
        case State.ACKED:
            after = replace(alarm, state=State.UNACK, acks=(), noticed_at=now, asked_at=now)
            return (Transition(alarm=after, change=Change.REPEATED, reason=Reason.REALARM),)
        case State.NORM | State.LATA:
            return ()


def _cover(rule: Rule, alarm: Alarm, event: Cover) -> tuple[Transition, ...]:
    overlay = event.overlay
    is_rule = overlay.kind is OverlayKind.BY_DESIGN
    if alarm.overlay is not None:
        if is_rule:
            return ()  # what lies over it already does the same, and ends by itself
        if alarm.overlay.kind is not overlay.kind:
            raise RefusedError("covered", f"{alarm.id} is {alarm.overlay.kind} already", hint="end that first")
    check_cover(alarm.id, event, is_life_safety=rule.life_safety, shelve_max_s=rule.shelve_max_s)
    reason, actor = (Reason.BY_DESIGN, "gateway") if is_rule else (Reason.PERSON, overlay.who)
    if overlay.kind is OverlayKind.SHELVED and alarm.state is not State.NORM:
        overlay = replace(overlay, over=alarm.kind)
    after = replace(alarm, overlay=overlay)
    return (Transition(alarm=after, change=_COVERED[overlay.kind], reason=reason, actor=actor),)


def _uncover(alarm: Alarm, event: Uncover, now: Instant) -> tuple[Transition, ...]:
    if alarm.overlay is None or alarm.overlay.kind is not event.kind:
        return ()
    reason = Reason.PERSON if event.person else Reason.TIME_UP
    if event.kind is OverlayKind.BY_DESIGN:
        reason = Reason.BY_DESIGN
    after = replace(alarm, overlay=None)
    actor = event.person or "gateway"
    ended = Transition(alarm=after, change=ENDS[event.kind], reason=reason, actor=actor)
    if event.then is not None:
        covered = replace(after, overlay=event.then)
        return (ended, Transition(alarm=covered, change=_COVERED[event.then.kind], reason=Reason.BY_DESIGN))
    if alarm.active is not None:
        fresh = replace(after, state=State.UNACK, acks=(), noticed_at=now, asked_at=now)
        return (ended, Transition(alarm=fresh, change=Change.RERAISED, reason=Reason.UNCOVERED))
    if alarm.state is State.RTNUN:
        closed = replace(after, state=State.NORM)
        return (ended, Transition(alarm=closed, change=Change.CLOSED, reason=Reason.CLEARED_WHILE_SUPPRESSED))
    return (ended,)


def _check_occurrence(alarm: Alarm, occurrence: int) -> None:
    if occurrence != alarm.occurrence:
        raise RefusedError(
            "old_occurrence",
            f"{alarm.id}: occurrence {occurrence} is not the current one ({alarm.occurrence})",
            hint="look at the alarm again, then acknowledge what is on now",
        )
    if alarm.state is State.NORM:
        raise RefusedError("not_in_alarm", f"{alarm.id} is not in alarm")


def _rank(kind: Kind | None) -> int:
    """How severe a level is among those of its alarm object, also one that the configuration no longer has."""
    if kind is None:
        return -1
    return 1 if kind in (Kind.HIHI, Kind.LOLO) else 0
