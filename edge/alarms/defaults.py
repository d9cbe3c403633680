"""From `[[alarm]]` tables to rules: defaults by quantity (docs/alarms.md, table B), overridable per point or level.

The gas rows follow GB/T 50493-2019; the others are proposals of ours, not from a standard.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ...words import Point
from ..models import AlarmTable, CommLossTable, LevelTable
from .kinds import Usual, comm_level, source_rules
from .rules import REALARM_S, REPEAT_S, Kind, Level, Rule, Side
from .sources import Source, ref_of
from .suppression import Suppression

T = TypeVar("T")

QUALITY_DELAY_S = 30.0
_FRESH_POLLS = 3
_PRIORITIES = (1, 2, 3, 4)
_SHELVE_MAX_S = 28_800.0
_SUFFIX_EN = {
    Side.ROC: "changes too fast",
    Side.DEVIATION: "deviates",
    Side.DISCRETE: "alarm state",
    Side.DISCREPANCY: "does not follow",
    Side.STALE: "no data",
    Side.QUALITY: "bad reading",
    Side.FROZEN: "stands still",
}
_SUFFIX = {
    Side.ROC: "变化过快",
    Side.DEVIATION: "偏差过大",
    Side.DISCRETE: "状态报警",
    Side.DISCREPANCY: "与指令不符",
    Side.STALE: "无数据",
    Side.QUALITY: "读数异常",
    Side.FROZEN: "读数不变",
}
PROCESS = (Side.HIGH, Side.LOW, Side.ROC, Side.DEVIATION, Side.DISCRETE, Side.DISCREPANCY)
"""Alarms that are about the plant and not about the sensor: groups and suppressions of a point mean these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """When people are told again, in seconds by priority, where an `[[alarm]]` says nothing: see `Rule`."""

    repeat_s: Mapping[int, float] = field(default_factory=lambda: REPEAT_S)
    realarm_s: Mapping[int, float] = field(default_factory=lambda: REALARM_S)


USUAL_AGAIN = Again()


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
    point: Point,
    table: AlarmTable,
    *,
    area: str,
    required_acks: Sequence[str],
    revision: str,
    suppressions: Mapping[str, Sequence[Suppression]] | None = None,
    again: Again = USUAL_AGAIN,
) -> tuple[Rule, ...]:
    """Every alarm object of one point: what the table asks for, `stale` and `quality` always.

    Args:
        point: what is watched.
        table: its `[[alarm]]` table, its preset filled in; an empty one for a point without limits.
        area: that the point belongs to.
        required_acks: of `[alerts]`, used where the table names none.
        revision: of the configuration.
        suppressions: by id of the alarm, or of the point for those of `PROCESS`.
        again: of `[alerts]`, used where the table says nothing.
    """
    by_id = suppressions or {}

    def rule(side: Side, levels: tuple[Level, ...], source: Source | None = None) -> Rule:
        name = f"{point.id}.{side}"
        of_point = by_id.get(point.id, ()) if side in PROCESS else ()
        unit = {Side.HIGH: point.unit, Side.LOW: point.unit, Side.DEVIATION: point.unit, Side.ROC: f"{point.unit}/min"}
        ref = ref_of(source)
        return Rule(
            id=name,
            point=point.id,
            side=side,
            name=point.name + _SUFFIX.get(side, ""),
            name_en=f"{point.name_en}: {_SUFFIX_EN[side]}{f' {ref}'.rstrip()}" if side in _SUFFIX_EN else point.name_en,
            unit=unit.get(side, ""),
            levels=levels,
            life_safety=bool(table.life_safety),
            fresh_s=_FRESH_POLLS * point.poll_s,
            source=source,
            first_out_group=table.first_out_group or "" if side in PROCESS else "",
            suppressions=(*by_id.get(name, ()), *of_point),
            **_shared(table, area, required_acks, revision, again),
        )

    defaults = BY_QUANTITY[point.quantity]
    rules = [rule(side, levels) for side, levels in _limits(table, defaults)]
    stale_s = stale_after_s(point, table)
    usual = Usual(
        priority=defaults.priority,
        deadband=_deadband(table.deviation.limit, defaults) if table.deviation is not None else 0.0,
        on_delay_s=defaults.on_delay_s,
        off_delay_s=defaults.off_delay_s,
        stale_s=stale_s,
    )
    found = source_rules(point, table, usual)
    rules += [rule(side, (level,), source) for side, source, level in found]
    rules.append(rule(Side.STALE, (Level(kind=Kind.STALE, limit=stale_s, priority=defaults.priority),)))
    delay_s = quality_after_s(table)
    quality = Level(kind=Kind.QUALITY, limit=0.0, priority=defaults.priority, on_delay_s=delay_s)
    rules.append(rule(Side.QUALITY, (quality,)))
    return tuple(rules)


def build_device_rule(
    device: str,
    table: AlarmTable,
    points: Sequence[tuple[Point, AlarmTable]],
    *,
    place: str,
    place_en: str,
    required_acks: Sequence[str],
    revision: str,
    suppressions: Mapping[str, Sequence[Suppression]] | None = None,
    again: Again = USUAL_AGAIN,
) -> Rule:
    """The alarm of a device that cannot be reached.

    Args:
        device: `area.device`.
        table: its `[[alarm]]` table; an empty one where the site has none.
        points: of the device, at least one, each with its own table.
        place, place_en: what its area is called.
        required_acks, revision, suppressions, again: as of `build_rules`.
    """
    area, _, name = device.partition(".")
    own = f"{device}.{Side.COMM}"
    patience_s = [min(stale_after_s(*of), quality_after_s(of[1])) for of in points]
    priorities = [BY_QUANTITY[point.quantity].priority for point, _ in points]
    return Rule(
        id=own,
        point=device,
        side=Side.COMM,
        name=f"{place}设备{name}通讯中断",
        name_en=f"{place_en}, device {name}: no communication",
        unit="",
        levels=(comm_level(table.comm_loss or CommLossTable(), patience_s, priorities),),
        first_out_group=table.first_out_group or "",
        suppressions=tuple((suppressions or {}).get(own, ())),
        **_shared(table, area, required_acks, revision, again),
    )


def quality_after_s(table: AlarmTable) -> float:
    """Seconds of bad readings that make the `quality` alarm."""
    return QUALITY_DELAY_S if table.quality_delay_s is None else table.quality_delay_s


def _shared(table: AlarmTable, area: str, required_acks: Sequence[str], revision: str, again: Again) -> dict[str, Any]:
    """What every rule of a table has in common."""
    repeat_s, realarm_s = table.repeat_s, table.realarm_s
    return {
        "area": area,
        "required_acks": tuple(table.required_acks or required_acks),
        "distinct_persons": table.distinct_persons,
        "reopen_s": table.reopen_s,
        "repeat_s": again.repeat_s if repeat_s is None else dict.fromkeys(_PRIORITIES, repeat_s),
        "realarm_s": again.realarm_s if realarm_s is None else dict.fromkeys(_PRIORITIES, realarm_s),
        "shelve_max_s": table.shelve_max_s or _SHELVE_MAX_S,
        "revision": revision,
    }


def _limits(table: AlarmTable, defaults: Defaults) -> Iterator[tuple[Side, tuple[Level, ...]]]:
    for side, pairs in (
        (Side.HIGH, ((Kind.HI, table.hi), (Kind.HIHI, table.hihi))),
        (Side.LOW, ((Kind.LO, table.lo), (Kind.LOLO, table.lolo))),
    ):
        levels = tuple(_limit(kind, level, table, defaults) for kind, level in pairs if level is not None)
        if levels:
            yield side, levels


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
