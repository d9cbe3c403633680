"""What refers to what in site.toml: ids, order of limits, people who can really acknowledge. Pure, offline."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..serving.people import EVERYWHERE, ROLES, Person, with_role
from ..words import Point
from .config import Document, show, suggest
from .models import AlarmTable, BusTable

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def find_problems(document: Document, points: Mapping[str, Point]) -> list[str]:
    """Every problem of reference and sense, in the order of the file.

    Args:
        document: as parsed; entries that are broken in shape are not judged again.
        points: of the well-formed devices, by id.
    """
    return [
        *_site(document),
        *_ids(document),
        *_buses(document),
        *_devices(document),
        *_alarms(document, points),
        *_channels(document),
        *_acknowledgers(document),
    ]


def find_warnings(document: Document) -> list[str]:
    """What works but will hurt."""
    warnings = []
    used = {device.bus for device in document.entries("device")}
    for i, bus in document.repeated["bus"]:
        if bus.serial and bus.serial.startswith(("/dev/ttyUSB", "/dev/ttyACM")):
            warnings.append(
                f"bus[{i}].serial: {bus.serial} can change its number at the next start: use /dev/serial/by-id/..."
            )
        if bus.id not in used:
            warnings.append(f'bus[{i}]: no device uses bus "{bus.id}"')
    if document.single["cloud"] is None:
        warnings.append("cloud: no [cloud] table: the gateway works alone")
    return warnings


def raw_ids(document: Document, table: str) -> list[str]:
    """Ids of all entries of a `[[table]]`, broken ones too: a reference to one of them is not a second problem."""
    entries = document.raw.get(table, [])
    entries = entries if isinstance(entries, list) else []
    return [str(entry["id"]) for entry in entries if isinstance(entry, dict) and "id" in entry]


def _site(document: Document) -> Iterator[str]:
    site, mqtt, cloud = (document.single[name] for name in ("site", "mqtt", "cloud"))
    if site is not None:
        try:
            ZoneInfo(site.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield f"site.timezone: must be a name such as Asia/Shanghai {show(site.timezone)}"
    if mqtt is not None:
        yield from _url("mqtt.url", mqtt.url, ("mqtt", "mqtts"))
        if mqtt.password_file and not _beside(document, mqtt.password_file):
            yield f"mqtt.password_file: file is missing or cannot be read {show(mqtt.password_file)}"
    if cloud is not None:
        yield from _cloud_url(cloud.url)
        if cloud.ca_file and not _beside(document, cloud.ca_file):
            yield f"cloud.ca_file: file is missing or cannot be read {show(cloud.ca_file)}"


def _beside(document: Document, name: str) -> bool:
    try:
        with (document.path.parent / name).open("rb"):
            return True
    except OSError:
        return False


def _url(path: str, url: str, schemes: tuple[str, ...]) -> Iterator[str]:
    try:
        parts = urlsplit(url)
        good = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
        secret = parts.password is not None
    except ValueError:
        good, secret = False, False
    if not good:
        yield f"{path}: must be {' or '.join(f'{scheme}://host[:port]' for scheme in schemes)} {show(url)}"
    elif secret:
        yield f"{path}: secrets never stand in site.toml: take the password out of the address"


def _cloud_url(url: str) -> Iterator[str]:
    problems = list(_url("cloud.url", url, ("https", "http")))
    yield from problems
    if not problems and urlsplit(url).scheme == "http" and urlsplit(url).hostname not in _LOOPBACK:
        yield f"cloud.url: must be https except on this machine itself {show(url)}"


def _ids(document: Document) -> Iterator[str]:
    for table in ("area", "bus", "channel"):
        yield from _unique(table, document.repeated[table])
    seen: set[str] = set()
    for table in ("device", "mqtt_device"):
        for i, device in document.repeated[table]:
            if device.id in seen:
                yield f"{table}[{i}].id: must be unique among all devices {show(device.id)}"
            seen.add(device.id)


def _unique(table: str, entries: Iterable[tuple[int, Any]]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for i, entry in entries:
        if entry.id in seen:
            yield f"{table}[{i}].id: must be unique: {table}[{seen[entry.id]}] has it too {show(entry.id)}"
        seen.setdefault(entry.id, i)


def _buses(document: Document) -> Iterator[str]:
    for i, bus in document.repeated["bus"]:
        path = f"bus[{i}]"
        wanted, foreign = (("serial",), ("host", "port")) if bus.kind == "rtu" else (("host", "port"), ("serial",))
        for key in wanted:
            if getattr(bus, key) is None:
                yield f'{path}.{key}: is required for kind "{bus.kind}"'
        for key in foreign:
            if getattr(bus, key) is not None:
                yield f'{path}.{key}: does not belong to kind "{bus.kind}" {show(getattr(bus, key))}'
        if bus.kind != "tcp":
            yield from _lateness(path, bus, document)


def _lateness(path: str, bus: BusTable, document: Document) -> Iterator[str]:
    own = [device.timeout_ms for device in document.entries("device") if device.bus == bus.id and device.timeout_ms]
    longest = max([bus.timeout_ms, *own])
    if bus.late_max_ms < longest:
        yield f"{path}.late_max_ms: must be at least the longest timeout_ms, {longest} {show(bus.late_max_ms)}"


def _devices(document: Document) -> Iterator[str]:
    areas, buses = raw_ids(document, "area"), raw_ids(document, "bus")
    units: dict[tuple[str, int], int] = {}
    kinds = {bus.id: bus.kind for bus in document.entries("bus")}
    for i, device in document.repeated["device"]:
        path = f"device[{i}]"
        yield from _reference(f"{path}.area", device.area, areas, "[[area]]")
        yield from _reference(f"{path}.bus", device.bus, buses, "[[bus]]")
        yield from _reference(f"{path}.profile", device.profile, document.catalogue, "profile of the catalogue")
        if device.unit_id == 0 and kinds.get(device.bus) in ("rtu", "rtu_tcp"):
            yield f"{path}.unit_id: must be 1..247 on a serial line (got 0)"
        other = units.setdefault((device.bus, device.unit_id), i)
        if other != i:
            whose = f"device[{other}] has it too (got {device.unit_id})"
            yield f'{path}.unit_id: must be unique on bus "{device.bus}": {whose}'
    for i, device in document.repeated["mqtt_device"]:
        yield from _mqtt_device(document, f"mqtt_device[{i}]", device, areas)


def _mqtt_device(document: Document, path: str, device: Any, areas: list[str]) -> Iterator[str]:
    yield from _reference(f"{path}.area", device.area, areas, "[[area]]")
    if "mqtt" not in document.raw:
        yield f"{path}: needs a broker: add an [mqtt] table"
    if any(sign in device.topic for sign in "+#"):
        yield f"{path}.topic: must name one device, without + and # {show(device.topic)}"
    names: set[str] = set()
    for j, point in enumerate(device.point):
        if point.name in names:
            yield f"{path}.point[{j}].name: must be unique in the device {show(point.name)}"
        names.add(point.name)
        if point.low is not None and point.high is not None and point.low >= point.high:
            yield f"{path}.point[{j}].low: must be below high, {point.high} {show(point.low)}"


def _reference(path: str, name: str, known: Iterable[str], what: str) -> Iterator[str]:
    known = list(known)
    if name not in known:
        names = ", ".join(sorted(known)[:12]) or "none"
        yield f"{path}: must name a {what}{suggest(name, known)} (known: {names}) {show(name)}"


def _alarms(document: Document, points: Mapping[str, Point]) -> Iterator[str]:
    seen: dict[str, int] = {}
    broken = len(document.entries("device")) < len(raw_ids(document, "device"))
    broken = broken or len(document.entries("mqtt_device")) < len(raw_ids(document, "mqtt_device"))
    for i, alarm in document.repeated["alarm"]:
        path = f"alarm[{i}]"
        other = seen.setdefault(alarm.point, i)
        if other != i:
            yield f"{path}.point: must be unique: alarm[{other}] is about it too {show(alarm.point)}"
        point = points.get(alarm.point)
        if point is not None:
            yield from _limits(path, alarm, point)
        elif not broken:
            yield f"{path}.point: must name a point{suggest(alarm.point, points)} {show(alarm.point)}"
        for j, role in enumerate(alarm.required_acks or ()):
            yield from _reference(f"{path}.required_acks[{j}]", role, ROLES, "role")


def _limits(path: str, alarm: AlarmTable, point: Point) -> Iterator[str]:
    levels = [(key, getattr(alarm, key)) for key in ("lolo", "lo", "hi", "hihi")]
    given = [(key, level) for key, level in levels if level is not None]
    for (low_key, low), (high_key, high) in itertools.pairwise(given):
        if low.limit >= high.limit:
            yield f"{path}.{high_key}: must be above {low_key}, {low.limit:g} {show(high.limit)}"
    for key, level in given:
        below = point.low is not None and level.limit < point.low
        above = point.high is not None and level.limit > point.high
        if below or above:
            yield (
                f"{path}.{key}: must be within what the device can measure, {point.low:g}..{point.high:g} {point.unit}"
                f" {show(level.limit)}"
            )
    if alarm.stale_s is not None and alarm.stale_s < 2 * point.poll_s:
        yield f"{path}.stale_s: must be at least two polls, {2 * point.poll_s:g} {show(alarm.stale_s)}"
    yield from _deadbands(path, alarm, point, dict(given))


def _deadbands(path: str, alarm: AlarmTable, point: Point, by_key: Mapping[str, Any]) -> Iterator[str]:
    """A deadband that reaches past the end of the scale would never let the alarm clear."""
    for key, level in by_key.items():
        deadband = level.deadband if level.deadband is not None else alarm.deadband
        if deadband is None:
            continue
        end = point.low if key in ("hi", "hihi") else point.high
        if end is not None and abs(level.limit - end) <= deadband:
            yield (
                f"{path}.{key}: deadband must be less than the way from the limit to {end:g} {point.unit},"
                f" or the alarm never clears {show(deadband)}"
            )
    if "lo" in by_key and "hi" in by_key:
        width = by_key["hi"].limit - by_key["lo"].limit
        for key in ("lo", "hi"):
            deadband = by_key[key].deadband if by_key[key].deadband is not None else alarm.deadband
            if deadband is not None and 0 < width <= deadband:
                yield f"{path}.{key}: deadband must be less than the distance from lo to hi, {width:g} {show(deadband)}"


def _channels(document: Document) -> Iterator[str]:
    for i, channel in document.repeated["channel"]:
        yield from _url(f"channel[{i}].url", channel.url, ("https", "http"))
    alerts = document.single["alerts"]
    if alerts is not None:
        for j, name in enumerate(alerts.channels):
            yield from _reference(f"alerts.channels[{j}]", name, raw_ids(document, "channel"), "[[channel]]")
        for j, role in enumerate(alerts.required_acks):
            yield from _reference(f"alerts.required_acks[{j}]", role, ROLES, "role")


def _acknowledgers(document: Document) -> Iterator[str]:
    """Every area with devices needs different people for the roles that must acknowledge there."""
    people, areas = document.people, raw_ids(document, "area")
    source = document.single["people"].file if document.single["people"] else ""
    for person in people.values():
        for area in person.areas:
            if area != EVERYWHERE and area not in areas:
                yield f"{source}: {person.id}: areas: must name an [[area]], or *{suggest(area, areas)} {show(area)}"
    if not people or document.single["alerts"] is None:
        return
    asked = {
        (device.area, tuple(document.single["alerts"].required_acks), True)
        for table in ("device", "mqtt_device")
        for device in document.entries(table)
        if device.area in areas
    }
    for alarm in document.entries("alarm"):
        area = alarm.point.partition(".")[0]
        if alarm.required_acks and area in areas:
            asked.add((area, tuple(alarm.required_acks), alarm.distinct_persons))
    for area, roles, distinct in sorted(asked):
        yield from _who_can(source, area, roles, distinct, people)


def _who_can(
    source: str, area: str, roles: tuple[str, ...], distinct: bool, people: Mapping[str, Person]
) -> Iterator[str]:
    holders = {role: [person.id for person in with_role(people, role, area)] for role in roles if role in ROLES}
    empty = [role for role, ids in holders.items() if not ids]
    for role in empty:
        yield f'{source}: nobody is {role} for area "{area}": its alarms could never be acknowledged'
    if distinct and not empty and not any(len(set(pick)) == len(pick) for pick in itertools.product(*holders.values())):
        yield f'{source}: area "{area}" needs different persons as {" and ".join(holders)}: one person holds them alone'
