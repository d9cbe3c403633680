"""What refers to what in site.toml: ids, wires, addresses, the order of limits. Offline; reads only files it names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..serving.people import ROLES
from ..words import Point
from .addresses import check_file, check_host, check_url, is_here, is_loopback, split
from .alarm_checks import (
    Known,
    filled,
    find_area_problems,
    find_comm_problems,
    find_point_problems,
    find_suppress_problems,
)
from .alarm_rules import fill_tables, find_gases, group_by_device
from .alarms.defaults import build_rules
from .alarms.rules import Level
from .alert_checks import find_alert_problems, find_alert_warnings, find_unrung
from .config import Document, Ids, Part, split_points
from .fitted import fit_device, knows_its_points
from .models import AlarmTable, BusTable, DeviceTable
from .mqtt_checks import find_broker_problems, find_device_problems
from .reach import find_unreachable
from .references import all_of, check_reference, once_each
from .wording import show, show_number, show_url, suggest

_LINE_SETTINGS = ("serial", "baud", "parity", "stopbits")


def find_problems(document: Document, points: Mapping[str, Point]) -> list[str]:
    """Every problem of reference and sense, also of entries with other keys that are broken in shape.

    Args:
        document: as parsed; a value that is broken in shape is not judged again.
        points: of every device whose id, area and profile can be read, by id.
    """
    areas = document.ids("area")
    placed = {name: point for name, point in points.items() if areas and name.partition(".")[0] in areas.good}
    found = itertools.chain(
        _site(document),
        _unique_ids(document),
        _buses(document),
        _devices(document),
        _mqtt_devices(document),
        find_area_problems(document),
        _alarms(document, points, placed),
        find_suppress_problems(document, _known(document, placed)),
        _mqtt_users(document),
        find_alert_problems(document),
        find_unreachable(document, placed),
        find_unrung(document, placed),
    )
    return list(dict.fromkeys(found))


def find_warnings(document: Document, points: Mapping[str, Point]) -> list[str]:
    """What works but will hurt. Args: points: of every device, by id."""
    found = [*_weak_buses(document), *_weak_links(document), *_idle(document), *_unlimited(document, points)]
    return [*found, *find_alert_warnings(document, points)]


# --- addresses and files ---


def _site(document: Document) -> Iterator[str]:
    for site in (part.entry for part in document.parts["site"]):
        try:
            ZoneInfo(site.timezone or "UTC")
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield f"site.timezone: must be a name such as Asia/Shanghai {show(site.timezone)}"
    for web in (part.entry for part in document.parts["web"]):
        if web.host is not None:
            yield from check_host("web.host", web.host)
    for part in document.parts["mqtt"]:
        yield from find_broker_problems(document, "mqtt", part)
    for part in document.parts["broker"]:
        yield from find_broker_problems(document, f"broker[{part.index}]", part)
    for cloud in (part.entry for part in document.parts["cloud"]):
        if cloud.url is not None:
            yield from _cloud_url(cloud.url)
        yield from check_file(document.path.parent, "cloud.ca_file", cloud.ca_file or "")


def _cloud_url(url: str) -> Iterator[str]:
    yield from check_url("cloud.url", url, ("https", "http"))
    parts = split(url)
    if parts and (parts.query or parts.fragment):
        yield f"cloud.url: must end before ? and # {show_url(url)}"
    if parts and parts.scheme == "http" and not is_here(parts):
        yield f"cloud.url: must be https except on this machine itself {show_url(url)}"


# --- ids and references ---


def _unique_ids(document: Document) -> Iterator[str]:
    for tables in (
        ("area",),
        ("bus",),
        ("broker",),
        ("mqtt_user",),
        ("channel",),
        ("shift",),
        ("ladder",),
        ("device", "mqtt_device"),
        ("suppress",),
    ):
        seen: dict[str, str] = {}
        entries = [(f"{table}[{part.index}]", part) for table in tables for part in document.parts[table]]
        for path, part in entries:
            other = path if part.entry.id is None else seen.setdefault(part.entry.id, path)
            if other != path:
                yield f"{path}.id: must be unique: {other} has it too {show(part.entry.id)}"


# --- wires and devices ---


def _buses(document: Document) -> Iterator[str]:
    wires: dict[tuple[object, ...], int] = {}
    for part in document.parts["bus"]:
        path, bus = f"bus[{part.index}]", part.entry
        yield from _kind_of_wire(path, part)
        if bus.kind in ("rtu", "rtu_tcp"):
            yield from _lateness(path, part, document)
            wire = (bus.serial,) if bus.kind == "rtu" else (bus.host, bus.port)
            other = wires.setdefault(wire, part.index) if None not in wire else part.index
            if other != part.index:
                yield f"{path}: is the same wire as bus[{other}]: give its devices that bus and take this one out"


def _kind_of_wire(path: str, part: Part) -> Iterator[str]:
    bus: BusTable = part.entry
    wanted, foreign = (("serial",), ("host", "port")) if bus.kind == "rtu" else (("host", "port"), _LINE_SETTINGS)
    example = {"serial": "/dev/serial/by-id/...", "host": "192.168.1.10", "port": "502"}
    for key in wanted if "kind" not in part.broken else ():
        if getattr(bus, key) is None and key not in part.broken:
            yield f'{path}.{key}: is required for kind "{bus.kind}", such as {example[key]}'
    for key in foreign if "kind" not in part.broken else ():
        if key in part.raw:
            yield f'{path}.{key}: does not belong to kind "{bus.kind}": take it out {show(part.raw[key])}'
    if bus.host is not None and bus.kind != "rtu":
        yield from check_host(f"{path}.host", bus.host)


def _lateness(path: str, part: Part, document: Document) -> Iterator[str]:
    bus: BusTable = part.entry
    devices = [device.entry for device in document.parts["device"]]
    own: list[int] = [device.timeout_ms for device in devices if device.bus == part.name and device.timeout_ms]
    longest = max([*own, 0 if "timeout_ms" in part.broken else bus.timeout_ms])
    if "late_max_ms" not in part.broken and bus.late_max_ms < longest:
        what = f"the longest timeout_ms on this bus, {longest}"
        yield f"{path}.late_max_ms: must be at least {what} {show(bus.late_max_ms)}"


def _devices(document: Document) -> Iterator[str]:
    areas, buses, profiles = document.ids("area"), document.ids("bus"), _profiles(document)
    units: dict[tuple[str, int], int] = {}
    kinds = {part.name: part.entry.kind for part in document.parts["bus"]}
    for part in document.parts["device"]:
        path, device = f"device[{part.index}]", part.entry
        yield from check_reference(f"{path}.area", device.area, areas, "[[area]]")
        yield from check_reference(f"{path}.bus", device.bus, buses, "[[bus]]")
        yield from check_reference(f"{path}.profile", device.profile, profiles, "profile of the catalogue")
        yield from _fit(document, path, part)
        if device.bus is None or device.unit_id is None:
            continue
        if not 1 <= device.unit_id <= 247 and kinds.get(device.bus) in ("rtu", "rtu_tcp"):
            yield f'{path}.unit_id: must be 1..247 on kind "{kinds[device.bus]}" {show(device.unit_id)}'
        other = units.setdefault((device.bus, device.unit_id), part.index)
        if other != part.index:
            whose = f"device[{other}] has it too {show(device.unit_id)}"
            yield f'{path}.unit_id: must be unique on bus "{device.bus}": {whose}'


def _profiles(document: Document) -> Ids:
    return Ids(good=tuple(document.catalogue), broken=document.catalogue.broken, sure=True)


def _fit(document: Document, path: str, part: Part) -> Iterator[str]:
    """What the device says beyond its profile."""
    device: DeviceTable = part.entry
    if device.profile not in document.catalogue:
        return
    profile, problems = fit_device(document, part)
    for key, text in problems:
        given = _given(part, key)
        yield f"{path}.{key}: {text}{'' if given is None else ' ' + show(given)}"
    if profile.takes_channels and not part.raw.get("channel"):
        yield f"{path}.channel: is required for profile {profile.id}: add a [[device.channel]] table for each current"
    if (device.poll_s or 0) > profile.longest_poll_s:
        most = f"must be at most {profile.longest_poll_s:g}, or a frozen {profile.id} is not noticed"
        yield f"{path}.poll_s: {most} {show_number(device.poll_s)}"


def _given(part: Part, key: str) -> object:
    """What the file has at `unit`, `only[1]`, `channel[0].low`; None for a whole table."""
    found: Any = part.raw
    for name in re.findall(r"[a-z_]+|\d+", key):
        inside = dict(enumerate(found)) if isinstance(found, list) else found
        found = inside.get(int(name) if name.isdigit() else name) if isinstance(inside, dict) else None
    return None if isinstance(found, list | dict) else found


def _mqtt_devices(document: Document) -> Iterator[str]:
    areas, brokers = document.ids("area"), document.ids("broker")
    for part in document.parts["mqtt_device"]:
        path, device = f"mqtt_device[{part.index}]", part.entry
        yield from check_reference(f"{path}.area", device.area, areas, "[[area]]")
        if device.broker:
            yield from check_reference(f"{path}.broker", device.broker, brokers, "[[broker]]")
        elif "mqtt" not in document.raw and "broker" not in part.broken:
            yield f"{path}: needs a broker: add an [mqtt] table"
        yield from find_device_problems(path, part)


# --- limits ---


def _alarms(document: Document, points: Mapping[str, Point], placed: Mapping[str, Point]) -> Iterator[str]:
    seen: dict[str, int] = {}
    known, tables, devices = _known(document, placed), fill_tables(document, points), group_by_device(points)
    for part in document.parts["alarm"]:
        path, alarm = f"alarm[{part.index}]", part.entry
        for j, role in enumerate(alarm.required_acks or ()):
            yield from check_reference(f"{path}.required_acks[{j}]", role, all_of(ROLES), "role")
        yield from once_each(f"{path}.required_acks", alarm.required_acks or ())
        if alarm.point is None:
            continue
        other = seen.setdefault(alarm.point, part.index)
        if other != part.index:
            yield f"{path}.point: must be unique: alarm[{other}] is about it too {show(alarm.point)}"
        if alarm.point in devices:
            yield from find_comm_problems(path, part, devices[alarm.point], tables)
            continue
        point = points.get(alarm.point)
        if point is None and (known.unsure is None or _device_of(alarm.point) in known.unsure):
            point = _meant(alarm.point, points)
        elif point is None:
            yield f"{path}.point: must name a point{_near(alarm.point, placed)} {show(alarm.point)}"
        if point is not None:
            yield from find_point_problems(path, part, point, known)
            yield from _limits(path, replace(part, entry=filled(part, point, known.gases)), point)


def _known(document: Document, placed: Mapping[str, Point]) -> Known:
    return Known(points=placed, gases=find_gases(document), unsure=_unsure_devices(document, placed))


def _unsure_devices(document: Document, placed: Mapping[str, Point]) -> set[str] | None:
    """Devices whose points have no sure id because they are broken themselves; None when not even their ids are."""
    known = {_device_of(point) for point in placed}
    unsure: set[str] = set()
    for table in ("device", "mqtt_device"):
        ids = document.ids(table)
        if ids is None or not ids.sure or ids.broken:
            return None
        unsure |= set(ids.good) - known
    pointless = [part for part in document.parts["mqtt_device"] if not _knows_its_points(part)]
    pointless += [part for part in document.parts["device"] if not knows_its_points(document, part)]
    return unsure | {part.entry.id for part in pointless}


def _knows_its_points(device: Part) -> bool:
    raw, points = device.raw.get("point"), split_points(device)
    whole = isinstance(raw, list) and len(points) == len(raw)
    return whole and all(None not in (part.entry.name, part.entry.quantity) for part in points)


def _meant(name: str, points: Mapping[str, Point]) -> Point | None:
    """The point of that device and name, in whatever area: there the mistake is, not in the limits."""
    tail = name.partition(".")[2]
    found = [point for known, point in points.items() if tail and known.partition(".")[2] == tail]
    return found[0] if len(found) == 1 else None


def _device_of(point: str) -> str:
    """`th1` of `aux_store.th1.humidity`; "" of what is no such id."""
    return point.split(".")[1] if "." in point else ""


def _near(wrong: str, points: Mapping[str, Point]) -> str:
    device = _device_of(wrong)
    own = [point for point in points if _device_of(point) == device]
    if own:
        return f': device "{device}" has {", ".join(own)}'
    return suggest(wrong, points) or " as area.device.name"


def _limits(path: str, part: Part, point: Point) -> Iterator[str]:
    alarm: AlarmTable = part.entry
    levels = [(key, getattr(alarm, key)) for key in ("lolo", "lo", "hi", "hihi")]
    given = [(key, level) for key, level in levels if level is not None]
    for (low_key, low), (high_key, high) in itertools.pairwise(given):
        if low.limit >= high.limit:
            yield f"{path}.{high_key}: must be above {low_key}, {low.limit:g} {show_number(high.limit)}"
    broken = point.low is not None and point.high is not None and point.low >= point.high
    for key, level in () if broken else given:
        below = point.low is not None and level.limit < point.low
        above = point.high is not None and level.limit > point.high
        if below or above:
            what = f"what the device can measure, {_scale(point)}"
            yield f"{path}.{key}: must be within {what} {show_number(level.limit)}"
    if alarm.stale_s is not None and alarm.stale_s < 2 * point.poll_s:
        least = f"{2 * point.poll_s:g}, the time of two readings"
        yield f"{path}.stale_s: must be at least {least} {show_number(alarm.stale_s)}"
    if "deadband" not in part.broken:
        yield from _deadbands(path, part, point)


def _scale(point: Point) -> str:
    """`0..100 %RH`, `at most 100 ppm`."""
    if point.low is None:
        return f"at most {point.high:g} {point.unit}".rstrip()
    if point.high is None:
        return f"at least {point.low:g} {point.unit}".rstrip()
    return f"{point.low:g}..{point.high:g} {point.unit}".rstrip()


def _deadbands(path: str, part: Part, point: Point) -> Iterator[str]:
    """A deadband that reaches past the end of the scale, or from hi past lo, would never let the alarm clear."""
    alarm: AlarmTable = part.entry
    rules = build_rules(point, alarm, area="", required_acks=(), revision="")
    levels = [level for rule in rules for level in rule.levels]
    used = {level.kind.value: level for level in levels if f"{level.kind}.deadband" not in part.broken}
    for key in ("lolo", "lo", "hi", "hihi"):
        if key not in used:
            continue
        level, high = used[key], key in ("hi", "hihi")
        end = point.low if high else point.high
        if end is not None and level.deadband >= abs(level.limit - end):
            room = f"{abs(level.limit - end):g} {point.unit}".rstrip()
            where = f"the way from {key} to the end of the scale at {end:g}"
            yield f"{_deadband_path(path, alarm, key)}: must be less than {room}, {where}, {_else(alarm, key, level)}"
    if "lo" in used and "hi" in used:
        width = used["hi"].limit - used["lo"].limit
        for key in ("lo", "hi"):
            if 0 < width <= used[key].deadband:
                room = f"{width:g} {point.unit}".rstrip()
                yield (
                    f"{_deadband_path(path, alarm, key)}: must be less than {room}, the way from lo to hi,"
                    f" {_else(alarm, key, used[key])}"
                )


def _else(alarm: AlarmTable, key: str, level: Level) -> str:
    default = alarm.deadband is None and getattr(alarm, key).deadband is None
    got = f"(got {level.deadband:g}, its default)" if default else show_number(level.deadband)
    return f"or {key} never clears {got}"


def _deadband_path(path: str, alarm: AlarmTable, key: str) -> str:
    own = getattr(alarm, key).deadband is not None
    return f"{path}.{key}.deadband" if own else f"{path}.deadband"


# --- users of the broker ---


def _mqtt_users(document: Document) -> Iterator[str]:
    people = document.people
    for part in document.parts["mqtt_user"]:
        person = part.entry.person
        if people is not None and person is not None and person not in people:
            where = document.people_file
            yield f"mqtt_user[{part.index}].person: must be in {where}{suggest(person, people)} {show(person)}"


# --- warnings ---


def _weak_buses(document: Document) -> Iterator[str]:
    used = {device.bus for device in document.entries("device")}
    for i, bus in document.repeated["bus"]:
        if bus.serial and bus.serial.startswith(("/dev/ttyUSB", "/dev/ttyACM")):
            better = "can be another device after the next start: use /dev/serial/by-id/..."
            yield f"bus[{i}].serial: {better} {show(bus.serial)}"
        if bus.id not in used:
            yield f"bus[{i}]: no device is on it"


def _weak_links(document: Document) -> Iterator[str]:
    web, mqtt = document.single["web"], document.single["mqtt"]
    if not is_loopback(web.host):
        yield f"web.host: PINs cross the network unencrypted: use 127.0.0.1 behind a proxy with HTTPS {show(web.host)}"
    brokers = [("mqtt", mqtt)] if mqtt is not None else []
    for path, broker in (*brokers, *((f"broker[{i}]", entry) for i, entry in document.repeated["broker"])):
        parts = split(broker.url)
        if parts and parts.scheme == "mqtt" and broker.password_file and not is_here(parts):
            yield f"{path}.url: the password crosses the network unencrypted: use mqtts:// {show_url(broker.url)}"
    if document.single["cloud"] is None:
        yield "cloud: there is no [cloud] table: the gateway works alone"


def _idle(document: Document) -> Iterator[str]:
    behind = {device.broker for device in document.entries("mqtt_device")}
    for i, broker in document.repeated["broker"]:
        if broker.id not in behind:
            yield f"broker[{i}]: no device is behind it"
    if not document.entries("device") and not document.entries("mqtt_device"):
        yield "device: there is no [[device]] and no [[mqtt_device]]: nothing is watched"


def _unlimited(document: Document, points: Mapping[str, Point]) -> Iterator[str]:
    """A gas that nobody is told of, however much of it there is."""
    alarms = {alarm.point: (i, alarm) for i, alarm in document.repeated["alarm"]}
    places = dict(_places(document))
    for name, point in points.items():
        i, alarm = alarms.get(name, (0, None))
        if point.quantity != "gas" or (alarm and any((alarm.preset, alarm.lolo, alarm.lo, alarm.hi, alarm.hihi))):
            continue
        path = f"alarm[{i}]" if alarm else places[name] if name in places else places[name.rpartition(".")[0]]
        needed = "set hi, or lo for oxygen" if alarm else "add an [[alarm]] with hi, or lo for oxygen"
        yield f"{path}: gas point {name} has no alarm limits, so no concentration raises an alarm: {needed}"


def _places(document: Document) -> Iterator[tuple[str, str]]:
    """Where a device, or a point that has a table of its own, stands, by id."""
    for i, device in document.repeated["device"]:
        yield f"{device.area}.{device.id}", f"device[{i}]"
        for j, channel in enumerate(device.channel):
            yield f"{device.area}.{device.id}.{channel.name}", f"device[{i}].channel[{j}]"
    for i, device in document.repeated["mqtt_device"]:
        for j, point in enumerate(device.point):
            yield f"{device.area}.{device.id}.{point.name}", f"mqtt_device[{i}].point[{j}]"
