"""What of `[[alarm]]` beside limits, and of `[[suppress]]`, does not make sense: each problem with its path."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..sensors.gases import GASES
from ..words import Point
from .alarm_rules import list_rules
from .alarms.defaults import BY_QUANTITY, PROCESS, quality_after_s, stale_after_s
from .alarms.kinds import ROC_DEADBAND_SHARE
from .alarms.presets import fill
from .alarms.rules import Rule
from .config import Document, Part
from .models import AlarmTable, SuppressTable
from .wording import show, show_number, suggest

_OF_DEVICE = frozenset(
    {
        "point",
        "comm_loss",
        "required_acks",
        "distinct_persons",
        "reopen_s",
        "repeat_s",
        "realarm_s",
        "shelve_max_s",
        "first_out_group",
    }
)
_FROZEN_POLLS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a name in `[[alarm]]` or `[[suppress]]` may mean.

    Attributes:
        points: that stand in an area of the file, by id.
        gases: what each of them measures, where that is known.
        unsure: devices that are broken themselves, so that their points are not known; None: any may be meant.
    """

    points: Mapping[str, Point]
    gases: Mapping[str, str]
    unsure: Collection[str] | None

    def say(self, path: str, name: str) -> Iterator[str]:
        """A problem when no point has this name."""
        if self.has_no(name):
            yield f"{path}: must name a point{suggest(name, self.points) or ' as area.device.name'} {show(name)}"

    def has_no(self, name: str) -> bool:
        """Whether there is no such point, for sure."""
        if name in self.points or self.unsure is None:
            return False
        return "." not in name or name.split(".")[1] not in self.unsure


def filled(part: Part, point: Point, gases: Mapping[str, str]) -> AlarmTable:
    """The table of a point with what its preset says; a broken preset says nothing."""
    table: AlarmTable = part.entry
    return fill(table, table.gas or gases.get(point.id, ""), point.unit, point.quantity)[0]


def find_point_problems(path: str, part: Part, point: Point, known: Known) -> Iterator[str]:
    """Of the `[[alarm]]` of a point: preset, gas, rate, deviation, discrepancy, standstill."""
    table: AlarmTable = part.entry
    yield from _preset(path, part, point, known.gases.get(point.id, ""))
    if table.roc is not None:
        least_s = (table.roc.min_samples - 1) * point.poll_s
        if table.roc.period_s < least_s:
            what = f"the time of {table.roc.min_samples} readings (min_samples)"
            yield f"{path}.roc.period_s: must be at least {least_s:g}, {what} {show_number(table.roc.period_s)}"
        yield from _narrow(path, "roc", table.roc.limit, table.roc.deadband, table.roc.limit * ROC_DEADBAND_SHARE)
    if table.deviation is not None:
        deadband, limit = table.deviation.deadband, table.deviation.limit
        own = table.deadband if deadband is None else deadband
        usual = BY_QUANTITY[point.quantity]
        default = limit * usual.deadband_share if usual.deadband is None else usual.deadband
        yield from _narrow(path, "deviation", limit, own, default)
        yield from _ref(f"{path}.deviation.ref", table.deviation.ref, point, known)
    if table.discrepancy is not None:
        yield from _ref(f"{path}.discrepancy.ref", table.discrepancy.ref, point, known, same_unit=False)
    if table.frozen_s and table.frozen_s < _FROZEN_POLLS * point.poll_s:
        least = f"{_FROZEN_POLLS * point.poll_s:g}, the time of {_FROZEN_POLLS} readings, or 0 for never"
        yield f"{path}.frozen_s: must be at least {least} {show_number(table.frozen_s)}"
    if "comm_loss" in part.raw:
        device = point.id.rpartition(".")[0]
        yield f'{path}.comm_loss: belongs to a device: write it in an [[alarm]] with point = "{device}"'


def find_comm_problems(
    path: str, part: Part, points: Iterable[Point], tables: Mapping[str, AlarmTable]
) -> Iterator[str]:
    """Of the `[[alarm]]` of a device. Args: points: of the device; tables: by point."""
    table: AlarmTable = part.entry
    for key in part.raw:
        if key not in _OF_DEVICE and key in type(table).model_fields:
            yield f"{path}.{key}: belongs to a point, and {table.point} is a device: only comm_loss says when it alarms"
    limit_s = table.comm_loss.limit if table.comm_loss is not None else None
    patience_s = [
        min(stale_after_s(point, own), quality_after_s(own))
        for point in points
        for own in (tables.get(point.id) or AlarmTable(point=point.id),)
    ]
    if limit_s is not None and patience_s and limit_s > min(patience_s):
        what = f"{min(patience_s):g}, after which its points have alarms of their own"
        yield f"{path}.comm_loss.limit: must be at most {what} {show_number(limit_s)}"


def find_suppress_problems(document: Document, known: Known) -> Iterator[str]:
    """Of `[[suppress]]`: its condition and what it names."""
    if not document.parts["suppress"]:
        return
    rules = {rule.id: rule for rule in list_rules(document, known.points, required_acks=())}
    tables = {table.point for table in document.entries("alarm")}
    broken = {str(part.raw.get("point")) for part in document.parts["alarm"]} - tables
    for part in document.parts["suppress"]:
        path, table = f"suppress[{part.index}]", part.entry
        if "when" not in part.broken:
            yield from _when(path, table, known)
        for j, name in enumerate(table.alarms or ()):
            if name not in broken and name.rpartition(".")[0] not in broken:
                yield from _target(f"{path}.alarms[{j}]", name, rules, known)


def _preset(path: str, part: Part, point: Point, own: str) -> Iterator[str]:
    table: AlarmTable = part.entry
    if table.gas and table.preset is None and "preset" not in part.broken:
        yield f"{path}.gas: has no use without preset: take it out {show(table.gas)}"
    elif table.gas and table.gas not in GASES:
        yield f"{path}.gas: must be one of {', '.join(GASES)}{suggest(table.gas, GASES)} {show(table.gas)}"
    elif table.gas and own and own != table.gas:
        yield f"{path}.gas: the device measures {own}: take it out {show(table.gas)}"
    elif "gas" not in part.broken:
        problem = fill(table, table.gas or own, point.unit, point.quantity)[1]
        if problem:
            yield f"{path}.preset: {problem} {show(table.preset)}"


def _narrow(path: str, key: str, limit: float, own: float | None, default: float) -> Iterator[str]:
    deadband = default if own is None else own
    if deadband >= limit:
        got = f"(got {deadband:g}, its default)" if own is None else show_number(deadband)
        yield f"{path}.{key}.deadband: must be less than the limit, {limit:g}, or {key} never clears {got}"


def _ref(path: str, ref: str, point: Point, known: Known, *, same_unit: bool = True) -> Iterator[str]:
    other = known.points.get(ref)
    if ref == point.id:
        yield f"{path}: must be another point than its own {show(ref)}"
    yield from known.say(path, ref)
    if same_unit and other is not None and other.unit != point.unit:
        yield f"{path}: must be in the same unit, {point.unit or 'none'}: {ref} is in {other.unit or 'none'}"


def _when(path: str, table: SuppressTable, known: Known) -> Iterator[str]:
    when: Any = table.when
    given = [key for key in ("equals", "above", "below") if getattr(when, key) is not None]
    if len(given) != 1:
        names = ", ".join("is" if key == "equals" else key for key in given) or "none"
        yield f"{path}.when: must have exactly one of is, above and below (got {names})"
    if when.deadband and when.equals is not None:
        yield f"{path}.when.deadband: belongs to above and below: take it out {show_number(when.deadband)}"
    yield from known.say(f"{path}.when.point", when.point)


def _target(path: str, name: str, rules: Mapping[str, Rule], known: Known) -> Iterator[str]:
    targets = [rules[name]] if name in rules else [rules[key] for key in _of_point(name) if key in rules]
    if not targets and name in known.points:
        yield f"{path}: has no alarm that could be suppressed {show(name)}"
    elif not targets and known.has_no(name):
        yield f"{path}: must name an alarm or a point{suggest(name, [*rules, *known.points])} {show(name)}"
    if any(rule.life_safety for rule in targets):
        yield f"{path}: protects lives (life_safety): nothing suppresses it by design {show(name)}"


def _of_point(point: str) -> Iterator[str]:
    return (f"{point}.{side}" for side in PROCESS)
