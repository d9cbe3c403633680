"""When a proof test may not begin, and what ends it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from ..alerts.opened import Open, concerning

OVERRIDING = 2
"""A real alarm of this priority, or a more urgent one, ends a test."""


class Refusal(enum.StrEnum):
    """Why a test does not begin."""

    ALREADY_RUNNING = "already_running"
    NO_SUCH_ALARM = "no_such_alarm"
    REAL_ALARM = "real_alarm"
    PERMIT_ACTIVE = "permit_active"
    FLOOD = "flood"


def refusal(
    area: str, alarms: Iterable[Open], *, running: bool, permit: bool, flood: bool
) -> tuple[Refusal, str] | None:
    """Why a test may not begin now, with words for a person; None when it may.

    A test would hide, or be taken for, what waits for an acknowledgement or is urgent. What is acknowledged and of
    priority 3 or 4 keeps lamps and sirens busy alone: those steps are left out.

    Args:
        area: of the alarm that is to be tested.
        alarms: every open one of the site.
        permit: work under a permit is going on nearby.
    """
    if running:
        return Refusal.ALREADY_RUNNING, "a proof test is running"
    near = [
        alarm for alarm in concerning(alarms, [area]) if not alarm.acked or overrides(alarm.priority, alarm.covered)
    ]
    if near:
        return Refusal.REAL_ALARM, f"{near[0].id} is open"
    if permit:
        return Refusal.PERMIT_ACTIVE, f"work under a permit is going on in or beside {area}"
    return (Refusal.FLOOD, "there is a flood of alarms") if flood else None


def overrides(priority: int, covered: bool) -> bool:
    """Whether a real alarm is so urgent that there is no test beside it."""
    return priority <= OVERRIDING and not covered


def overriding(area: str, alarms: Iterable[Open]) -> str:
    """The id of an open alarm that there is no test beside, empty when there is none."""
    near = concerning(alarms, [area])
    return next((alarm.id for alarm in near if overrides(alarm.priority, alarm.covered)), "")
