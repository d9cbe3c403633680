"""What lies over an alarm so that nobody is told: shelved, suppressed by design, out of service. Pure.

Terms: ISA-18.2 / IEC 62682. In all three the alarm is still evaluated; annunciation and ladder pause, visibly. When the
overlay ends, an alarm whose condition is on is raised afresh, one whose condition is off closes as
`cleared_while_suppressed`, and one that is latched stays latched.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import RefusedError
from ...words import Instant

if TYPE_CHECKING:
    from .rules import Kind

SHELVE_MOST_S = 28_800.0
SHELVE_LIFE_SAFETY_S = 1_800.0
REASON_SHORTEST = 4
SHELVES = ("keeper", "officer", "control_room")
"""Roles that may shelve; alarms of the class `life_safety` an officer alone."""
TAKES_OUT = ("officer",)
"""Roles that may take an alarm out of service, under a permit."""


class OverlayKind(enum.StrEnum):
    """Shelved by a person for a time, suppressed by a rule of the site, out of service under a permit."""

    SHELVED = "shelved"
    BY_DESIGN = "by_design"
    OUT_OF_SERVICE = "out_of_service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overlay:
    """Why nobody is told.

    Attributes:
        who: a person's id, or the rule that suppresses.
        why: in the person's words.
        permit: of OUT_OF_SERVICE.
        since: when it began. for_s: seconds until it ends by itself; None: it ends when its rule says so.
        one_shot: it also ends when the condition goes off.
        over: of SHELVED: the level that the person saw; a more severe one ends it. None: it was not in alarm.
    """

    kind: OverlayKind
    who: str
    why: str
    since: Instant
    for_s: float | None = None
    permit: str = ""
    one_shot: bool = False
    over: Kind | None = None

    def is_over(self, now: Instant) -> bool:
        """Whether its time is up."""
        return self.for_s is not None and seconds_between(self.since, now) >= self.for_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Cover:
    """Lay `overlay` over the alarm. `roles`: of the person who asks; not asked of a rule."""

    overlay: Overlay
    roles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncover:
    """Take the overlay of that kind away.

    Attributes:
        person: empty when its time is up or its rule says so.
        then: what lies over the alarm next, so that nobody is told in between: a rule of the site that holds.
    """

    kind: OverlayKind
    person: str = ""
    then: Overlay | None = None


def check_cover(alarm_id: str, event: Cover, *, is_life_safety: bool, shelve_max_s: float) -> None:
    """Raises RefusedError (`life_safety`, `not_allowed`, `too_long`, `reason_missing`, `permit_missing`)."""
    overlay = event.overlay
    match overlay.kind:
        case OverlayKind.BY_DESIGN:
            if is_life_safety:
                raise RefusedError("life_safety", f"{alarm_id} protects lives: nothing suppresses it by design")
            return
        case OverlayKind.OUT_OF_SERVICE:
            _check_role(alarm_id, event.roles, TAKES_OUT)
            if not overlay.permit:
                raise RefusedError("permit_missing", f"{alarm_id}: no permit was named", hint="name the open permit")
        case OverlayKind.SHELVED:
            _check_role(alarm_id, event.roles, ("officer",) if is_life_safety else SHELVES)
            most_s = min(shelve_max_s, SHELVE_LIFE_SAFETY_S) if is_life_safety else shelve_max_s
            if overlay.for_s is None or not 0 < overlay.for_s <= most_s:
                hint = f"at most {most_s / 60:g} minutes; shelve it again when that is over"
                raise RefusedError("too_long", f"{alarm_id} cannot be shelved for that long", hint=hint)
    if len(overlay.why.strip()) < REASON_SHORTEST:
        raise RefusedError("reason_missing", f"{alarm_id}: no reason was given", hint="say why nobody need be told")


def _check_role(alarm_id: str, roles: tuple[str, ...], wanted: tuple[str, ...]) -> None:
    if not set(roles) & set(wanted):
        hint = f"it takes one of: {', '.join(wanted)}"
        raise RefusedError("not_allowed", f"{alarm_id}: not with these roles", hint=hint)


def seconds_between(before: Instant | None, now: Instant) -> float:
    """Seconds from `before` to `now`: monotonic within one boot, else by the wall clock; 0 without a `before`.

    Since an earlier boot no less has passed than the machine is up: also with a wall clock that is lost, so that
    nothing stays shelved, and nobody untold, until somebody sets it.
    """
    if before is None:
        return 0.0
    if before.boot == now.boot:
        return now.mono_s - before.mono_s
    return max(now.mono_s, (now.utc_ms - before.utc_ms) / 1000)
