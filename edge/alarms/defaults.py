"""From `[[alarm]]` tables to rules: defaults by quantity (docs/alarms.md, table B), overridable per point or level.

The gas rows follow GB/T 50493-2019; the others are proposals of ours, not from a standard.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...words import Point
from ..models import AlarmTable, LevelTable
from .rules import Kind, Level, Rule, Side

T = TypeVar("T")

QUALITY_DELAY_S = 30.0
_FRESH_POLLS = 3
_SUFFIX_EN = {Side.STALE: "no data", Side.QUALITY: "bad reading"}
_SUFFIX = {Side.STALE: "无数据", Side.QUALITY: "读数异常"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """Defaults of one quantity.

    Attributes:
        deadband: in the point's unit; None: `deadband_share` of the limit.
        priority, priority_severe: of hi/lo and of hihi/lolo.
        latch_severe: hihi/lolo latch.
    """

    deadband: float | None
    deadband_share: float
    on_delay_s: float
    off_delay_s: float
    stale_s: float
    priority: int
    priority_severe: int
    latch_severe: bool


BY_QUANTITY: dict[str, Defaults] = {
    "temperature": Defaults(
        deadband=0.5,
        deadband_share=0,
        on_delay_s=60,
        off_delay_s=60,
        stale_s=180,
        priority=3,
        priority_severe=2,
        latch_severe=False,
    ),
    "humidity": Defaults(
        deadband=2.0,
        deadband_share=0,
        on_delay_s=60,
        off_delay_s=60,
        stale_s=180,
        priority=3,
        priority_severe=3,
        latch_severe=False,
    ),
    "pressure": Defaults(
        deadband=None,
        deadband_share=0.02,
        on_delay_s=15,
        off_delay_s=15,
        stale_s=60,
        priority=2,
        priority_severe=2,
        latch_severe=False,
    ),
    "gas": Defaults(
        deadband=None,
        deadband_share=0.05,
        on_delay_s=0,
        off_delay_s=30,
        stale_s=30,
        priority=2,
        priority_severe=1,
        latch_severe=True,
    ),
    "other": Defaults(
        deadband=0.0,
        deadband_share=0,
        on_delay_s=60,
        off_delay_s=60,
        stale_s=180,
        priority=3,
        priority_severe=3,
        latch_severe=False,
    ),
}


def build_rules(
    point: Point, table: AlarmTable, *, area: str, required_acks: Sequence[str], revision: str
) -> tuple[Rule, ...]:
    """Every alarm object of one point: `high` and `low` where limits are set, `stale` and `quality` always.

    Args:
        point: what is watched.
        table: its `[[alarm]]` table; an empty one for a point without limits.
        area: that the point belongs to.
        required_acks: of `[alerts]`, used where the table names none.
        revision: of the configuration.
    """
    defaults = BY_QUANTITY[point.quantity]
    acks = tuple(table.required_acks or required_acks)

    def rule(side: Side, levels: tuple[Level, ...]) -> Rule:
        return Rule(
            id=f"{point.id}.{side}",
            point=point.id,
            area=area,
            side=side,
            name=point.name + _SUFFIX.get(side, ""),
            name_en=f"{point.name_en}: {_SUFFIX_EN[side]}" if side in _SUFFIX_EN else point.name_en,
            unit=point.unit if side in (Side.HIGH, Side.LOW) else "",
            levels=levels,
            required_acks=acks,
            distinct_persons=table.distinct_persons,
            reopen_s=table.reopen_s,
            fresh_s=_FRESH_POLLS * point.poll_s,
            revision=revision,
        )

    rules = []
    for side, pairs in (
        (Side.HIGH, ((Kind.HI, table.hi), (Kind.HIHI, table.hihi))),
        (Side.LOW, ((Kind.LO, table.lo), (Kind.LOLO, table.lolo))),
    ):
        levels = tuple(_limit(kind, level, table, defaults) for kind, level in pairs if level is not None)
        if levels:
            rules.append(rule(side, levels))
    stale_s = stale_after_s(point, table)
    delay_s = QUALITY_DELAY_S if table.quality_delay_s is None else table.quality_delay_s
    rules.append(rule(Side.STALE, (Level(kind=Kind.STALE, limit=stale_s, priority=defaults.priority),)))
    quality = Level(kind=Kind.QUALITY, limit=0.0, priority=defaults.priority, on_delay_s=delay_s)
    rules.append(rule(Side.QUALITY, (quality,)))
    return tuple(rules)


def stale_after_s(point: Point, table: AlarmTable) -> float:
    """Seconds of silence that make a point stale: as configured, else by quantity and at least three polls."""
    return table.stale_s or max(BY_QUANTITY[point.quantity].stale_s, 3 * point.poll_s)


def _limit(kind: Kind, level: LevelTable, table: AlarmTable, defaults: Defaults) -> Level:
    severe = kind in (Kind.HIHI, Kind.LOLO)
    priority = defaults.priority_severe if severe else defaults.priority
    return Level(
        kind=kind,
        limit=level.limit,
        priority=_first(level.priority, priority),
        deadband=_first(level.deadband, table.deadband, _deadband(level.limit, defaults)),
        on_delay_s=_first(level.on_delay_s, table.on_delay_s, defaults.on_delay_s),
        off_delay_s=_first(level.off_delay_s, table.off_delay_s, defaults.off_delay_s),
        latching=_first(level.latching, severe and defaults.latch_severe),
    )


def _deadband(limit: float, defaults: Defaults) -> float:
    if defaults.deadband is not None:
        return defaults.deadband
    return abs(limit) * defaults.deadband_share


def _first(*values: T | None) -> T:
    """The first that is set."""
    for value in values:
        if value is not None:
            return value
    raise AssertionError("the last one is a default")
