"""The baseline that headquarters sent, read beside site.toml: by the reader's process, never by the daemon."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..sync.baseline import Baseline, parse_baseline, read_baseline
from ..sync.columns import DamagedError
from ..sync.orders import Order
from ..words import Point
from .alarms.defaults import stale_after_s
from .baseline_files import FOLDER, IN_FORCE
from .baseline_merge import Tightened, convertible, sensor_type, tighten
from .conformity import AreaNeeds, Need, Standard
from .models import AlarmTable, AreaTable


@dataclass(slots=True, kw_only=True)
class Reference:
    """The baseline that a site is under, and what it changed there so far.

    Attributes:
        revision, digest: of the order; 0 and "" of a file that somebody tries.
        tightened: fills while tables are made.
    """

    baseline: Baseline
    revision: int = 0
    digest: str = ""
    tightened: list[Tightened] = field(default_factory=list)


def read_reference(data: Path | None, trial: Path | None) -> tuple[Reference | None, str]:
    """The baseline in force in a data folder, or in a file that is tried; and why it cannot be used, "" when it can.

    Raises:
        ConfigError: the file that is tried is none.
    """
    if trial is not None and trial.suffix == ".toml":
        return Reference(baseline=read_baseline(trial)), ""
    path = trial or (data / FOLDER / IN_FORCE if data is not None else None)
    if path is None or not path.is_file():
        return None, ""
    try:
        order = Order.from_json(json.loads(path.read_bytes()))
        baseline = parse_baseline(order.baseline, str(path))
    except (OSError, ValueError, DamagedError, ConfigError) as error:
        if trial is not None:
            raise ConfigError(str(path), [str(error)]) from error
        return None, f"baseline: {path.name} cannot be used, so nothing of it counts: {error}"
    return Reference(baseline=baseline, revision=order.revision, digest=order.digest), ""


def under(
    reference: Reference,
    tables: Mapping[str, AlarmTable],
    points: Mapping[str, Point],
    gases: Mapping[str, str],
    areas: Mapping[str, AreaTable],
) -> dict[str, AlarmTable]:
    """Every table as it counts under the baseline, also of points that site.toml gives no limits."""
    found = dict(tables)
    reference.tightened.clear()
    for name, point in points.items():
        table = tables.get(name) or AlarmTable(point=name)
        gas = table.gas or gases.get(name, "")
        area = areas.get(name.partition(".")[0])
        bounds = reference.baseline.bounds(area.kind if area is not None else "", sensor_type(point.quantity, gas))
        table, changed = tighten(table, point, gas, bounds)
        if changed or name in tables:
            found[name] = table
        reference.tightened += changed
    return found


def standard_of(
    reference: Reference,
    tables: Mapping[str, AlarmTable],
    points: Mapping[str, Point],
    gases: Mapping[str, str],
    areas: Mapping[str, AreaTable],
) -> Standard:
    """What the running gateway must know of the baseline."""
    baseline = reference.baseline
    types = {
        name: sensor_type(point.quantity, (tables[name].gas if name in tables else "") or gases.get(name, ""))
        for name, point in points.items()
    }
    return Standard(
        revision=reference.revision,
        digest=reference.digest,
        name=baseline.name,
        name_en=baseline.name_en,
        areas=tuple(_needs(baseline, tables, points, types, areas)),
        tightened=tuple(_tightened_json(one) for one in reference.tightened),
        problems=tuple(_problems(baseline, points, types, gases, areas)),
        no_kind=tuple(area.id for area in areas.values() if not area.kind),
    )


def _needs(
    baseline: Baseline,
    tables: Mapping[str, AlarmTable],
    points: Mapping[str, Point],
    types: Mapping[str, str],
    areas: Mapping[str, AreaTable],
) -> Iterator[AreaNeeds]:
    for area in areas.values():
        room = baseline.room_of(area.kind)
        if room is None:
            continue
        own = {name: point for name, point in points.items() if name.partition(".")[0] == area.id}
        equipment = [(thing.id, thing.name, thing.name_en) for thing in room.equipment]
        known = {name for _, *names in equipment for name in names}
        equipment += [("", name, name) for name in area.equipment if name not in known]
        yield AreaNeeds(
            area=area.id,
            name=area.name,
            name_en=area.name_en,
            kind=room.kind,
            room=room.name,
            room_en=room.name_en,
            needs=tuple(
                Need(
                    type=wanted,
                    points={
                        name: stale_after_s(point, tables.get(name) or AlarmTable(point=name))
                        for name, point in own.items()
                        if types[name] == wanted
                    },
                )
                for wanted in room.sensors
            ),
            equipment=tuple(equipment),
        )


def _problems(
    baseline: Baseline,
    points: Mapping[str, Point],
    types: Mapping[str, str],
    gases: Mapping[str, str],
    areas: Mapping[str, AreaTable],
) -> Iterator[tuple[str, str]]:
    kinds = {room.kind for room in baseline.room}
    for area in areas.values():
        if area.kind and area.kind not in kinds:
            known = ", ".join(sorted(kinds))
            yield (
                f"区域“{area.name}”的类型 {area.kind} 不在基线中（基线有：{known}）",
                f"area {area.id}: the baseline knows no kind {area.kind} (it has {known})",
            )
    for name, point in points.items():
        area = areas.get(name.partition(".")[0])
        for bound in baseline.bounds(area.kind if area is not None else "", types[name]) if types[name] else ():
            if not convertible(bound, point, gases.get(name, types[name])):
                yield (
                    f"{point.name}的单位 {point.unit} 无法与基线的 {bound.unit} 比较，限值未收紧",
                    f"{name}: its unit {point.unit} cannot be compared with the baseline's {bound.unit}: not tightened",
                )


def _tightened_json(one: Tightened) -> dict[str, Any]:
    return {"point": one.point, "key": one.key, "site": one.site, "now": one.now}
