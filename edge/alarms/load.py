"""A position's load over time, and how its numbers compare with what the sources ask for. Pure.

Beside `statistics.py`: the profile of its 10-minute periods, each flood with its first-out, and a verdict for each
number that has a goal.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...words import utc_text
from .statistics import FLOOD_ENTERS, FLOOD_EXITS, PERIOD_MS, Event, Statistics

PRIORITY_GOALS: Mapping[int, float] = {1: 5.0, 2: 15.0, 3: 80.0}
"""Percent of all alarms by priority (ISA-18.2-2016, EEMUA 191): about so much."""


class Verdict(enum.StrEnum):
    """MET: as it should be. NEAR: more than that, but a person can still manage it. MISSED: more. NONE: no goal."""

    MET = "met"
    NEAR = "near"
    MISSED = "missed"
    NONE = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flood:
    """A time with more alarms than one person can handle.

    Attributes:
        from_ms, to_ms: UTC milliseconds; a flood that goes on ends with the time that was asked for.
        count: alarms from the first of those that made it, until its end.
        first_out: the first alarm of those that made it.
    """

    from_ms: int
    to_ms: int
    count: int
    first_out: str

    def to_json(self) -> dict[str, Any]:
        """As the API answers."""
        return {
            "from": utc_text(self.from_ms),
            "to": utc_text(self.to_ms),
            "count": self.count,
            "first_out": self.first_out,
        }


def told(events: Iterable[Event], position: str, t0_ms: int, t1_ms: int) -> list[Event]:
    """What a position was told from `t0_ms` (included) to `t1_ms`, as `statistics.count` counts it."""
    return [
        event
        for event in events
        if event.position == position and event.is_annunciated and not event.is_system and t0_ms <= event.at_ms < t1_ms
    ]


def profile(events: Iterable[Event], position: str, t0_ms: int, t1_ms: int) -> tuple[int, ...]:
    """Alarms in each 10-minute period from `t0_ms` on; the last period may be shorter."""
    periods = [0] * -(-(t1_ms - t0_ms) // PERIOD_MS)
    for event in told(events, position, t0_ms, t1_ms):
        periods[(event.at_ms - t0_ms) // PERIOD_MS] += 1
    return tuple(periods)


def floods(events: Iterable[Event], position: str, t0_ms: int, t1_ms: int) -> tuple[Flood, ...]:
    """Each flood that begins in the time, by the definition of `statistics.DEFINITIONS["flood_pct"]`."""
    recent: deque[Event] = deque()
    since: deque[Event] | None = None
    found: list[Flood] = []
    mine = sorted(told(events, position, t0_ms, t1_ms), key=lambda event: event.at_ms)
    for event in mine:
        left_ms = _forget(recent, event.at_ms, flooded=since is not None)
        if since is not None and left_ms is not None:
            found.append(_flood(since, left_ms))
            since = None
        recent.append(event)
        if since is not None:
            since.append(event)
        elif len(recent) > FLOOD_ENTERS:
            since = deque(recent)
    if since is not None:
        left_ms = _forget(recent, t1_ms, flooded=True)
        found.append(_flood(since, t1_ms if left_ms is None else left_ms))
    return tuple(found)


def verdicts(found: Statistics) -> dict[str, Verdict]:
    """How each number of `DEFINITIONS` compares with its goal; those without one are left out."""
    return {
        "per_10_min": _most(found.per_10_min, 1, 2),
        "peak": _most(found.peak, FLOOD_ENTERS),
        "busy_periods_pct": _below(found.busy_periods_pct, 1),
        "flood_pct": _below(found.flood_pct, 1),
        "top_ten_pct": _most(found.top_ten_pct, 1, 5),
        "chattering": _most(len(found.chattering), 0),
        "fleeting": _most(found.fleeting, 0),
        "standing": _below(len(found.standing), 5),
        "priority_pct": Verdict.NONE,
    }


def _forget(recent: deque[Event], at_ms: int, *, flooded: bool) -> int | None:
    """Drop what is older than ten minutes at `at_ms`; when the flood ended by that, None when it goes on."""
    ended_ms = None
    while recent and recent[0].at_ms + PERIOD_MS <= at_ms:
        left_ms = recent.popleft().at_ms + PERIOD_MS
        if flooded and ended_ms is None and len(recent) < FLOOD_EXITS:
            ended_ms = left_ms
    return ended_ms


def _flood(since: Sequence[Event], to_ms: int) -> Flood:
    began = since[FLOOD_ENTERS]
    return Flood(from_ms=began.at_ms, to_ms=to_ms, count=len(since), first_out=since[0].alarm)


def _most(value: float, good: float, most: float | None = None) -> Verdict:
    if value <= good:
        return Verdict.MET
    return Verdict.NEAR if most is not None and value <= most else Verdict.MISSED


def _below(value: float, limit: float) -> Verdict:
    return Verdict.MET if value < limit else Verdict.MISSED
