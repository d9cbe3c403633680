"""What a rule judges when it is not the value itself. Pure.

Rate of change, difference to another point, states that are alarms, points that disagree, a value that stands still.
Definitions: docs/alarms.md. A number that is not known makes no condition: it is held as it is.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple


class Direction(enum.StrEnum):
    """Which way counts: both, rising or above, falling or below."""

    BOTH = "both"
    UP = "up"
    DOWN = "down"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """`(PVn - PVn-1) / period` in the point's unit per minute, sampled once per period.

    Attributes:
        period_s: a sample is the first good reading that is at least so long after the sample before.
        min_samples: good readings that a period must hold, both ends counted; with fewer there is no rate.
    """

    period_s: float = 60.0
    min_samples: int = 3
    direction: Direction = Direction.BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """The value minus that of point `ref`."""

    ref: str
    direction: Direction = Direction.BOTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrete:
    """States that are alarms."""

    on: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Discrepancy:
    """The value is not what point `ref` says.

    Attributes:
        tolerance: they agree when they are no further apart.
        inverted: they agree when exactly one of them is 0 (a contact that opens when the command is given).
    """

    ref: str
    tolerance: float = 0.0
    inverted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Frozen:
    """The value is bit-identical for `after_s`. Silence of `gap_s` or more does not count: nobody saw it."""

    after_s: float
    gap_s: float


Source = Rate | Deviation | Discrete | Discrepancy | Frozen
_STATES = (Discrete, Discrepancy, Frozen)


class Sampled(NamedTuple):
    """What a rate remembers: the newest sample, the good readings since (it counted), the newest rate."""

    at_s: float
    value: float
    readings: int
    rate: float | None


class Same(NamedTuple):
    """What `Frozen` remembers: the value, since when, when it was last seen, and whether it ever moved."""

    value: float
    since_s: float
    seen_s: float
    moved: bool


Memory = Sampled | Same | None


def ref_of(source: Source | None) -> str:
    """The other point that it takes; "" when none."""
    return source.ref if isinstance(source, Deviation | Discrepancy) else ""


def is_state(source: Source | None) -> bool:
    """Whether `measure` says on (1) or off (0) instead of a number that has a limit."""
    return isinstance(source, _STATES)


def measure(
    source: Source, memory: Memory, value: float, other: float | None, now_s: float
) -> tuple[Memory, float | None]:
    """What is judged after a reading, and what to remember.

    Args:
        source: what is wanted.
        memory: as returned before; None at first.
        value: of a reading that is not bad.
        other: of `ref`, where the source has one; None when it is bad or stale.
        now_s: monotonic seconds.

    Returns:
        The memory, and a number in the direction that counts, or 1 or 0 (`is_state`), or None: not known.
    """
    match source:
        case Rate():
            sampled = _sample(source, memory if isinstance(memory, Sampled) else None, value, now_s)
            return sampled, None if sampled.rate is None else _directed(sampled.rate, source.direction)
        case Frozen():
            same = _compare(source, memory if isinstance(memory, Same) else None, value, now_s)
            stands = now_s - same.since_s >= source.after_s
            return same, 1.0 if stands else 0.0 if same.moved else None
        case Discrete():
            return None, float(value in source.on)
        case Deviation():
            return None, None if other is None else _directed(value - other, source.direction)
        case Discrepancy():
            return None, None if other is None else float(_disagree(source, value, other))


def _sample(rate: Rate, memory: Sampled | None, value: float, now_s: float) -> Sampled:
    passed_s = now_s - memory.at_s if memory is not None else 0.0
    if memory is None or passed_s > 2 * rate.period_s:  # across a gap nobody knows how it went
        return Sampled(now_s, value, 1, None)
    readings = memory.readings + 1
    if passed_s < rate.period_s:
        return Sampled(memory.at_s, memory.value, readings, memory.rate)
    known = readings >= rate.min_samples
    return Sampled(now_s, value, 1, (value - memory.value) / passed_s * 60 if known else None)


def _compare(frozen: Frozen, memory: Same | None, value: float, now_s: float) -> Same:
    if memory is None:
        return Same(value, now_s, now_s, moved=False)
    if value != memory.value:
        return Same(value, now_s, now_s, moved=True)
    gap_s = now_s - memory.seen_s
    since_s = memory.since_s + gap_s if gap_s >= frozen.gap_s else memory.since_s
    return Same(value, since_s, now_s, memory.moved)


def _disagree(source: Discrepancy, value: float, other: float) -> bool:
    if source.inverted:
        return (value == 0) == (other == 0)
    return abs(value - other) > source.tolerance


def _directed(number: float, direction: Direction) -> float:
    match direction:
        case Direction.BOTH:
            return abs(number)
        case Direction.UP:
            return number
        case Direction.DOWN:
            return -number
