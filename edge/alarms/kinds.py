"""From `[[alarm]]` to the rules that are no limits: rate, deviation, states, discrepancy, standstill, devices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ...words import Point
from ..models import AlarmTable, CommLossTable, DeviationTable, DiscrepancyTable, DiscreteTable, RocTable
from .rules import Kind, Level, Side
from .sources import Deviation, Direction, Discrepancy, Discrete, Frozen, Rate, Source

ROC_DEADBAND_SHARE = 0.1
COMM_S = 30.0
FROZEN_S: Mapping[str, float] = {"temperature": 3600.0, "humidity": 3600.0}
"""By quantity. Where a value may rightly stand still (0 in clean air, a vessel that is out of use, a switch): never."""
_DIRECTION = {
    "both": Direction.BOTH,
    "rising": Direction.UP,
    "above": Direction.UP,
    "falling": Direction.DOWN,
    "below": Direction.DOWN,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What counts where the table says nothing. `deadband`: of a deviation; `stale_s`: silence that makes it stale."""

    priority: int
    deadband: float
    on_delay_s: float
    off_delay_s: float
    stale_s: float


def source_rules(point: Point, table: AlarmTable, usual: Usual) -> Iterator[tuple[Side, Source, Level]]:
    """What the `[[alarm]]` of a point says beside limits, each with its level."""
    if table.roc is not None:
        yield Side.ROC, *_roc(table.roc, table, usual)
    if table.deviation is not None:
        yield Side.DEVIATION, *_deviation(table.deviation, table, usual)
    if table.discrete is not None:
        yield Side.DISCRETE, *_discrete(table.discrete, table, usual)
    if table.discrepancy is not None:
        yield Side.DISCREPANCY, *_discrepancy(table.discrepancy, table, usual)
    after_s = frozen_after_s(point, table)
    if after_s > 0:
        level = Level(kind=Kind.FROZEN, limit=after_s, priority=usual.priority)
        yield Side.FROZEN, Frozen(after_s=after_s, gap_s=usual.stale_s), level


def frozen_after_s(point: Point, table: AlarmTable) -> float:
    """Seconds after which a value that stands still is an alarm; 0: never."""
    return FROZEN_S.get(point.quantity, 0.0) if table.frozen_s is None else table.frozen_s


def comm_level(table: CommLossTable, patience_s: Sequence[float], priorities: Sequence[int]) -> Level:
    """The level of a device.

    Args:
        table: what the site says; an empty one where it says nothing.
        patience_s: after how many seconds the points would raise alarms of their own; the device is not slower.
        priorities: of those alarms; the device has the highest.
    """
    return Level(
        kind=Kind.COMM_LOSS,
        limit=min(COMM_S, *patience_s) if table.limit is None else table.limit,
        priority=table.priority or min(priorities),
        off_delay_s=table.off_delay_s or 0.0,
        latching=bool(table.latching),
    )


def _roc(roc: RocTable, table: AlarmTable, usual: Usual) -> tuple[Source, Level]:
    source = Rate(period_s=roc.period_s, min_samples=roc.min_samples, direction=_DIRECTION[roc.direction])
    level = Level(
        kind=Kind.ROC,
        limit=roc.limit,
        priority=roc.priority or usual.priority,
        deadband=roc.limit * ROC_DEADBAND_SHARE if roc.deadband is None else roc.deadband,
        on_delay_s=roc.on_delay_s or 0.0,
        off_delay_s=_delay_s(roc.off_delay_s, table.off_delay_s, usual.off_delay_s),
        latching=bool(roc.latching),
    )
    return source, level


def _deviation(deviation: DeviationTable, table: AlarmTable, usual: Usual) -> tuple[Source, Level]:
    source = Deviation(ref=deviation.ref, direction=_DIRECTION[deviation.direction])
    own = table.deadband if deviation.deadband is None else deviation.deadband
    level = Level(
        kind=Kind.DEVIATION,
        limit=deviation.limit,
        priority=deviation.priority or usual.priority,
        deadband=usual.deadband if own is None else own,
        on_delay_s=_delay_s(deviation.on_delay_s, table.on_delay_s, usual.on_delay_s),
        off_delay_s=_delay_s(deviation.off_delay_s, table.off_delay_s, usual.off_delay_s),
        latching=bool(deviation.latching),
    )
    return source, level


def _discrete(discrete: DiscreteTable, table: AlarmTable, usual: Usual) -> tuple[Source, Level]:
    level = Level(
        kind=Kind.DISCRETE,
        limit=discrete.on[0],
        priority=discrete.priority or usual.priority,
        on_delay_s=_delay_s(discrete.on_delay_s, table.on_delay_s, 0.0),
        off_delay_s=_delay_s(discrete.off_delay_s, table.off_delay_s, 0.0),
        latching=bool(discrete.latching),
    )
    return Discrete(on=tuple(discrete.on)), level


def _discrepancy(discrepancy: DiscrepancyTable, table: AlarmTable, usual: Usual) -> tuple[Source, Level]:
    source = Discrepancy(ref=discrepancy.ref, tolerance=discrepancy.tolerance, inverted=discrepancy.inverted)
    level = Level(
        kind=Kind.DISCREPANCY,
        limit=discrepancy.after_s,
        priority=discrepancy.priority or usual.priority,
        on_delay_s=discrepancy.after_s,
        off_delay_s=_delay_s(discrepancy.off_delay_s, table.off_delay_s, 0.0),
        latching=bool(discrepancy.latching),
    )
    return source, level


def _delay_s(own: float | None, of_alarm: float | None, default: float) -> float:
    """The level's before the alarm's before the quantity's; zero is a value."""
    if own is not None:
        return own
    return default if of_alarm is None else of_alarm
