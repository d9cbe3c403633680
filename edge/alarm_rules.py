"""Every rule of a site, from its `[[alarm]]` and `[[suppress]]` tables and the profiles of its devices."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from ..words import Point
from .alarms.defaults import USUAL_AGAIN, Again, build_device_rule, build_rules
from .alarms.presets import fill
from .alarms.rules import Rule
from .alarms.suppression import Suppression
from .baseline_reading import under
from .config import Document
from .fitted import fit_device
from .models import AlarmTable, SuppressTable


def find_gases(document: Document) -> dict[str, str]:
    """Which gas each point measures, as far as the profile of its device says, by id of the point."""
    found: dict[str, str] = {}
    for part in document.parts["device"]:
        device = part.entry
        if None in (device.id, device.area) or device.profile not in document.catalogue:
            continue
        profile, _ = fit_device(document, part)
        for register, label in zip(profile.registers, profile.labels, strict=True):
            if label.gas:
                found[f"{device.area}.{device.id}.{register.name}"] = label.gas
    return found


def group_by_device(points: Mapping[str, Point]) -> dict[str, list[Point]]:
    """Points by `area.device`, in order."""
    found: dict[str, list[Point]] = {}
    for name, point in points.items():
        found.setdefault(name.rpartition(".")[0], []).append(point)
    return found


def fill_tables(document: Document, points: Mapping[str, Point]) -> dict[str, AlarmTable]:
    """The well-formed `[[alarm]]` tables with what their presets and the baseline say, by what they are about."""
    gases = find_gases(document)
    filled: dict[str, AlarmTable] = {}
    for table in document.entries("alarm"):
        point = points.get(table.point)
        gas = table.gas or gases.get(table.point, "")
        filled[table.point] = table if point is None else fill(table, gas, point.unit, point.quantity)[0]
    if document.reference is None:
        return filled
    areas = {area.id: area for area in document.entries("area")}
    return under(document.reference, filled, points, gases, areas)


def list_rules(
    document: Document,
    points: Mapping[str, Point],
    *,
    required_acks: Sequence[str],
    revision: str = "",
    unknown: Collection[str] = (),
    again: Again = USUAL_AGAIN,
) -> Iterator[Rule]:
    """Every alarm object: of each device its points in order, then the device itself.

    Args:
        document: as parsed.
        points: by id, those of one device together.
        required_acks: of `[alerts]`.
        revision: of the configuration.
        again: of `[alerts]`.
        unknown: points and devices whose table is broken: they have no rules.
    """
    tables, suppressions = fill_tables(document, points), _suppressions(document)
    areas = {part.name: part.entry for part in document.parts["area"]}
    for device, own in group_by_device(points).items():
        found = [(point, tables.get(point.id) or AlarmTable(point=point.id)) for point in own]
        area, known = device.partition(".")[0], [of for of in found if of[0].id not in unknown]
        for point, table in known:
            yield from build_rules(
                point,
                table,
                area=area,
                required_acks=required_acks,
                revision=revision,
                suppressions=suppressions,
                again=again,
            )
        if device not in unknown and len(known) == len(found):
            place = areas.get(area)
            yield build_device_rule(
                device,
                tables.get(device) or _as_points(device, [table for _, table in found]),
                found,
                place=getattr(place, "name", "") or "",
                place_en=getattr(place, "name_en", "") or "",
                required_acks=required_acks,
                revision=revision,
                suppressions=suppressions,
                again=again,
            )


def _as_points(device: str, tables: Sequence[AlarmTable]) -> AlarmTable:
    """A device without a table is acknowledged as its points are, where they agree."""
    first = tables[0]
    agree = all(
        (table.required_acks, table.distinct_persons) == (first.required_acks, first.distinct_persons)
        for table in tables
    )
    own = {"required_acks": first.required_acks, "distinct_persons": first.distinct_persons} if agree else {}
    return AlarmTable(point=device, **own)


def _suppressions(document: Document) -> dict[str, list[Suppression]]:
    found: dict[str, list[Suppression]] = {}
    for table in document.entries("suppress"):
        for name in table.alarms:
            found.setdefault(name, []).append(_suppression(table))
    return found


def _suppression(table: SuppressTable) -> Suppression:
    when = table.when
    return Suppression(
        id=table.id,
        point=when.point,
        why=table.why,
        equals=when.equals,
        above=when.above,
        below=when.below,
        deadband=when.deadband,
    )
