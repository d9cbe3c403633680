"""When time alone may next change an alarm. Pure.

A replay of a week cannot look twice a second as the daemon does: between two readings it jumps to the moment at which
a delay runs out, a silence becomes too long, or people are told again.
"""

from __future__ import annotations

import math

from ...words import Instant
from .machine import Alarm, repeat_in_s
from .overlay import seconds_between
from .rules import Condition, Rule


def condition_due_s(rule: Rule, condition: Condition) -> float:
    """Monotonic seconds at which a delay runs out; infinity when none runs."""
    due_s = math.inf
    for level, track in zip(rule.levels, condition, strict=True):
        if track.since is not None and track.frozen_at is None:
            due_s = min(due_s, track.since + (level.off_delay_s if track.active else level.on_delay_s))
    return due_s


def alarm_due_s(rule: Rule, alarm: Alarm, now: Instant) -> float:
    """Monotonic seconds at which what lies over the alarm ends, or people are told again; infinity when neither."""
    overlay = alarm.overlay
    if overlay is None:
        return now.mono_s + repeat_in_s(rule, alarm, now)
    if overlay.for_s is None:
        return math.inf
    return now.mono_s + overlay.for_s - seconds_between(overlay.since, now)
