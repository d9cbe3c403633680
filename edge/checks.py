"""What refers to what in site.toml: ids, wires, addresses. Offline; reads only files it names."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..words import Point
from .addresses import check_file, check_host, check_url, is_here, split
from .alarm_checks import find_suppress_problems
from .alarms.rules import SYSTEM_PREFIX
from .alert_checks import find_alert_problems, find_alert_warnings, find_unrung
from .config import Document, Ids, Part
from .fitted import fit_device
from .https_checks import find_https_problems
from .limit_checks import find_limit_problems, find_proof_problems, known_points
from .loopback import is_loopback
from .models import BusTable, DeviceTable
from .mqtt_checks import find_broker_problems, find_device_problems
from .proxies import find_cap_problems, find_metrics_problems, find_proxy_problems
from .reach import find_unreachable
from .references import check_reference
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
        find_limit_problems(document, points, placed),
        find_suppress_problems(document, known_points(document, placed)),
        find_proof_problems(document, points, placed),
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
        yield from find_metrics_problems(web, document.path.parent)
    for table in (part.entry for part in document.parts["https"]):
        yield from find_https_problems(table)
    for part in document.parts["mqtt"]:
        yield from find_broker_problems(document, "mqtt", part)
    for part in document.parts["broker"]:
        yield from find_broker_problems(document, f"broker[{part.index}]", part)
    for cloud in (part.entry for part in document.parts["cloud"]):
        if cloud.url:
            yield from _cloud_url(cloud.url)
        if cloud.public_key:
            yield from _cloud_key(cloud.public_key)
        if cloud.url == "" and cloud.public_key == "":
            yield "cloud: names neither url nor public_key: a site without a link needs headquarters' public_key"
        yield from check_file(document.path.parent, "cloud.ca_file", cloud.ca_file or "")
        yield from find_proxy_problems("cloud", cloud, document.path.parent)
        yield from find_cap_problems(cloud)
    for alerts in (part.entry for part in document.parts["alerts"]):
        yield from find_proxy_problems("alerts", alerts, document.path.parent)


def _cloud_key(text: str) -> Iterator[str]:
    from ..sync.keys import parse_public_key

    try:
        parse_public_key(text)
    except ValueError as error:
        yield f"cloud.public_key: {error} {show(text)}"


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
    for part in document.parts["area"]:
        if f"{part.entry.id}." == SYSTEM_PREFIX:  # its alarms would be told to IT, and freeze nothing
            why = "must be another one: alarms of the gateway itself begin so"
            yield f"area[{part.index}].id: {why} {show(part.entry.id)}"


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
    if not is_loopback(web.host) and not document.single["https"].enabled:
        better = "use 127.0.0.1, and [https] for other machines"
        yield f"web.host: PINs cross the network unencrypted: {better} {show(web.host)}"
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
