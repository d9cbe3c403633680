"""Builds the site that the daemon uses from what site.toml and the files beside it say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..sensors.buses import BusKind, BusSpec
from ..words import Point
from .alarm_rules import fill_tables, find_gases, list_rules
from .alarms.defaults import stale_after_s
from .alarms.rules import Kind
from .alert_building import build_ladders, build_roster, choose_again, choose_ladders, choose_waits
from .alerts.channel_tables import OVER_HTTP, complete, read_secret
from .baseline_merge import ladders_under
from .baseline_reading import standard_of
from .checks import find_problems, find_warnings
from .config import Document, read_document, split_points
from .fitted import fit_device
from .lines import place
from .metas import OutputMeta, PointMeta
from .models import REPEATED, SINGLE, AlarmTable, AlertsTable, AreaTable
from .mqtt_site import mqtt_devices, mqtt_links
from .proxies import proxy_address
from .site import Site
from .tables import changed, plain


def build_site(
    path: Path,
    data: Path | None = None,
    change: Callable[[dict[str, Any]], None] | None = None,
    *,
    baseline: Path | None = None,
) -> Site:
    """Read and check site.toml.

    Args:
        path: of the file; people.csv and the files it names lie beside it.
        data: of the daemon; a relative serial path starts there.
        baseline: headquarters' baseline that is tried instead of the one in the data folder.
        change: may change what the file holds before it is checked: a trial of other rules.

    Raises:
        ConfigError: with every problem.
    """
    document, problems = read_document(path, change, data=data, baseline=baseline)
    points = dict(_points(document))
    by_id = {name: point for name, (_, point) in points.items()}
    problems += find_problems(document, by_id)
    if problems:
        raise ConfigError(str(path), place(problems, document.raw, document.text, elsewhere=document.people_file))
    assert document.people is not None, "broken people are a problem"
    tables = fill_tables(document, by_id)
    areas = {area.id: area for area in document.entries("area")}
    alerts: AlertsTable = document.single["alerts"]
    metas = tuple(_meta(area, point, tables, areas) for area, point in points.values())
    rules = tuple(
        list_rules(
            document,
            by_id,
            required_acks=alerts.required_acks,
            revision=document.revision,
            again=choose_again(alerts),
        )
    )
    buses, mqtt, web = tuple(_buses(document, data)), document.single["mqtt"], document.single["web"]
    outputs = tuple(_outputs(buses, areas))
    ladder_of, system_ladder = choose_ladders(alerts)
    ladders, standard, reference = build_ladders(document), None, document.reference
    if reference is not None:
        ladders, ladder_of = ladders_under(reference.baseline, ladders, ladder_of)
        standard = standard_of(reference, tables, by_id, find_gases(document), areas)
    single = {name: plain(table) for name, table in document.single.items() if table is not None}
    return Site(
        path=path,
        site=single["site"],
        gateway=single["gateway"],
        web=single["web"],
        https=single["https"],
        disk=single["disk"],
        mqtt=single.get("mqtt"),
        cloud=single.get("cloud"),
        proof=single.get("proof"),
        alerts=single["alerts"],
        areas=tuple(map(plain, areas.values())),
        channels=tuple(_channels(document, outputs)),
        people=document.people,
        points=metas,
        rules=rules,
        buses=buses,
        mqtt_devices=tuple(mqtt_devices(document)),
        mqtt_users={user.id: user.person for user in document.entries("mqtt_user")},
        mqtt_links=tuple(mqtt_links(document, lambda name: read_secret(path.parent / name) if name else "")),
        outputs=outputs,
        roster=build_roster(document, document.people, document.single["site"].timezone),
        ladders=ladders,
        standard=standard,
        ladder_of=ladder_of,
        system_ladder=system_ladder,
        group_wait_s=choose_waits(alerts),
        tables=_tables(document),
        warnings=(
            *([document.reference_problem] if document.reference_problem else []),
            *place(find_warnings(document, by_id), document.raw, document.text),
        ),
        revision=document.revision,
        mqtt_password=read_secret(path.parent / mqtt.password_file) if mqtt and mqtt.password_file else "",
        cloud_proxy=proxy_address(document.single["cloud"], path.parent),
        metrics_token=read_secret(path.parent / web.metrics_token_file) if web.metrics_token_file else "",
    )


def _tables(document: Document) -> dict[str, tuple[Any, ...]]:
    singles = {name: (plain(document.single[name]),) for name in SINGLE if document.single[name] is not None}
    return {**singles, **{name: tuple(map(plain, document.entries(name))) for name in REPEATED}}


def _outputs(buses: Sequence[BusSpec], areas: Mapping[str, AreaTable]) -> Iterator[OutputMeta]:
    for bus in buses:
        for unit in bus.units:
            area = areas[unit.device.partition(".")[0]]
            for output in unit.outputs:
                yield OutputMeta(
                    id=f"{unit.device}.{output.name}",
                    bus=bus.id,
                    area=area.id,
                    device=unit.device,
                    output=output.name,
                    name=area.name + (output.name_zh or output.name),
                    name_en=f"{area.name_en} {output.name_en or output.name}",
                    states=tuple(state for state, _ in output.states),
                )


def _channels(document: Document, outputs: Sequence[OutputMeta]) -> Iterator[Any]:
    """With everything that lies in files of their own."""
    states = {output.id: output.states for output in outputs}
    alerts, timezone, folder = document.single["alerts"], document.single["site"].timezone, document.path.parent
    proxy = proxy_address(alerts, folder)
    for table in map(plain, document.entries("channel")):
        full = complete(table, folder, states, timezone=timezone, per_min=alerts.robot_rate_per_min)
        yield changed(full, {"proxy": proxy}) if table.kind in OVER_HTTP else full


def _points(document: Document) -> Iterator[tuple[str, tuple[str, Point]]]:
    """Of every device whose id, area and profile can be read; what is wrong in other keys is left out of its points.

    `poll_s` that cannot be read is 0: no time is too short for it.
    """
    areas = {part.name: part.entry for part in document.parts["area"]}
    for part in document.parts["device"]:
        device = part.entry
        if None in (device.id, device.area) or device.profile not in document.catalogue:
            continue
        name, area = f"{device.area}.{device.id}", areas.get(device.area)
        profile, _ = fit_device(document, part)
        for point in profile.points(name, device.poll_s or 0.0, place=_name(area), place_en=_name(area, "name_en")):
            yield point.id, (device.area, point)
    for part in document.parts["mqtt_device"]:
        device = part.entry
        if None in (device.id, device.area):
            continue
        area = areas.get(device.area)
        for entry in (inner.entry for inner in split_points(part)):
            if None in (entry.name, entry.quantity):
                continue
            point = Point(
                id=f"{device.area}.{device.id}.{entry.name}",
                name=_name(area) + (entry.label or ""),
                name_en=f"{_name(area, 'name_en')} {entry.label_en or ''}",
                unit=entry.unit or "",
                quantity=entry.quantity,
                decimals=entry.decimals or 0,
                poll_s=device.every_s or 0.0,
                low=entry.low,
                high=entry.high,
            )
            yield point.id, (device.area, point)


def _name(area: AreaTable | None, key: str = "name") -> str:
    return getattr(area, key, None) or ""


def _meta(area: str, point: Point, tables: Mapping[str, AlarmTable], areas: Mapping[str, AreaTable]) -> PointMeta:
    table = tables.get(point.id, AlarmTable(point=point.id))
    limits: dict[str, float | None] = {}
    for kind in (Kind.LOLO, Kind.LO, Kind.HI, Kind.HIHI):
        level: Any = getattr(table, kind.value)
        limits[kind.value] = level.limit if level is not None else None
    stale_s = stale_after_s(point, table)
    return PointMeta(point=point, area=area, area_name=areas[area].name, stale_s=stale_s, limits=limits)


def _buses(document: Document, data: Path | None) -> Iterator[BusSpec]:
    for bus in document.entries("bus"):
        fitted = [(p.entry, fit_device(document, p)[0]) for p in document.parts["device"] if p.entry.bus == bus.id]
        units = tuple(
            profile.unit(f"{device.area}.{device.id}", device.unit_id, device.poll_s, timeout_ms=device.timeout_ms)
            for device, profile in fitted
        )
        if not units:
            continue
        serial = bus.serial or ""
        if serial and data is not None:
            serial = str(data / serial)  # an absolute path stays what it is
        yield BusSpec(
            id=bus.id,
            kind=BusKind(bus.kind),
            host=bus.host or "",
            port=bus.port or 502,
            serial=serial,
            baud=bus.baud,
            parity=bus.parity,
            stopbits=bus.stopbits,
            timeout_ms=bus.timeout_ms,
            late_max_ms=bus.late_max_ms,
            inter_frame_ms=max(bus.inter_frame_ms, *(profile.inter_frame_ms for _, profile in fitted)),
            units=units,
        )
