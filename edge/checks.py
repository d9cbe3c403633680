"""What refers to what in site.toml: ids, wires, addresses, the order of limits. Offline; reads only files it names."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..serving.people import ROLES
from ..words import Point
from .addresses import check_file, check_host, check_url, has_secret, is_here, is_loopback, split
from .alarms.defaults import build_rules
from .alarms.rules import Level
from .config import Document
from .models import REQUIRED, AlarmTable, BusTable, ChannelTable, MqttDeviceTable, MqttTable
from .reach import find_unreachable
from .wording import show, show_number, show_url, suggest

_LINE_SETTINGS = ("serial", "baud", "parity", "stopbits")


def find_problems(document: Document, points: Mapping[str, Point]) -> list[str]:
    """Every problem of reference and sense.

    Args:
        document: as parsed; entries that are broken in shape are not judged again.
        points: of the well-formed devices, by id.
    """
    found = itertools.chain(
        _site(document),
        _ids(document),
        _buses(document),
        _devices(document),
        _mqtt_devices(document),
        _alarms(document, points),
        _channels(document),
        find_unreachable(document, points, raw_ids(document, "area") or ()),
    )
    return list(dict.fromkeys(found))


def find_warnings(document: Document) -> list[str]:
    """What works but will hurt."""
    return [*_weak_buses(document), *_weak_links(document), *_idle(document)]


def raw_ids(document: Document, table: str) -> list[str] | None:
    """Ids of all entries of a `[[table]]`, broken ones too: a reference to one of them is not a second problem.

    Returns:
        None when nothing can be said of references: the table is no list of tables, or is missed already.
    """
    entries = document.raw.get(table, [])
    if not isinstance(entries, list) or (not entries and table in REQUIRED):
        return None
    return [entry["id"] for entry in entries if isinstance(entry, dict) and isinstance(entry.get("id"), str)]


# --- addresses and files ---


def _site(document: Document) -> Iterator[str]:
    site, web, mqtt, cloud = (document.single[name] for name in ("site", "web", "mqtt", "cloud"))
    if site is not None:
        try:
            ZoneInfo(site.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            yield f"site.timezone: must be a name such as Asia/Shanghai {show(site.timezone)}"
    if web is not None:
        yield from check_host("web.host", web.host)
    if mqtt is not None:
        yield from _broker(document, mqtt)
    if cloud is not None:
        yield from check_url("cloud.url", cloud.url, ("https", "http"))
        parts = split(cloud.url)
        if parts and (parts.query or parts.fragment):
            yield f"cloud.url: must end before ? and # {show_url(cloud.url)}"
        if parts and parts.scheme == "http" and not is_here(parts):
            yield f"cloud.url: must be https except on this machine itself {show_url(cloud.url)}"
        yield from check_file(document.path.parent, "cloud.ca_file", cloud.ca_file)


def _broker(document: Document, mqtt: MqttTable) -> Iterator[str]:
    yield from check_url("mqtt.url", mqtt.url, ("mqtt", "mqtts"))
    parts = split(mqtt.url)
    if parts and (parts.path not in ("", "/") or parts.query or parts.fragment):
        yield f"mqtt.url: must end after the port {show_url(mqtt.url)}"
    yield from check_file(document.path.parent, "mqtt.password_file", mqtt.password_file)
    if mqtt.password_file and not mqtt.username:
        yield "mqtt.username: is required beside password_file: text in quotes"


# --- ids and references ---


def _ids(document: Document) -> Iterator[str]:
    for tables in (("area",), ("bus",), ("channel",), ("device", "mqtt_device")):
        seen: dict[str, str] = {}
        for table in tables:
            for i, entry in document.repeated[table]:
                other = seen.setdefault(entry.id, f"{table}[{i}]")
                if other != f"{table}[{i}]":
                    yield f"{table}[{i}].id: must be unique: {other} has it too {show(entry.id)}"


def _reference(path: str, name: str, known: Iterable[str] | None, what: str) -> Iterator[str]:
    known = None if known is None else sorted(set(known))
    if known is not None and name not in known:
        names = ", ".join(known[:12]) or "none"
        more = ", ..." if len(known) > 12 else ""
        yield f"{path}: must name a {what}{suggest(name, known)} (known: {names}{more}) {show(name)}"


def _once_each(path: str, names: Sequence[str]) -> Iterator[str]:
    for j, name in enumerate(names):
        if name in names[:j]:
            yield f"{path}[{j}]: must stand in the list only once {show(name)}"


# --- wires and devices ---


def _buses(document: Document) -> Iterator[str]:
    wires: dict[tuple[object, ...], int] = {}
    for i, bus in document.repeated["bus"]:
        path = f"bus[{i}]"
        yield from _kind_of_wire(path, bus)
        if bus.kind != "tcp":
            yield from _lateness(path, bus, document)
            wire = (bus.serial,) if bus.kind == "rtu" else (bus.host, bus.port)
            other = wires.setdefault(wire, i) if None not in wire else i
            if other != i:
                yield f"{path}: is the same wire as bus[{other}]: give its devices that bus and take this one out"


def _kind_of_wire(path: str, bus: BusTable) -> Iterator[str]:
    wanted, foreign = (("serial",), ("host", "port")) if bus.kind == "rtu" else (("host", "port"), _LINE_SETTINGS)
    example = {"serial": "/dev/serial/by-id/...", "host": "192.168.1.10", "port": "502"}
    for key in wanted:
        if getattr(bus, key) is None:
            yield f'{path}.{key}: is required for kind "{bus.kind}", such as {example[key]}'
    for key in foreign:
        if key in bus.model_fields_set:
            yield f'{path}.{key}: does not belong to kind "{bus.kind}": take it out {show(getattr(bus, key))}'
    if bus.host is not None and bus.kind != "rtu":
        yield from check_host(f"{path}.host", bus.host)


def _lateness(path: str, bus: BusTable, document: Document) -> Iterator[str]:
    own = [device.timeout_ms for device in document.entries("device") if device.bus == bus.id and device.timeout_ms]
    longest = max([bus.timeout_ms, *own])
    if bus.late_max_ms < longest:
        what = f"the longest timeout_ms on this bus, {longest}"
        yield f"{path}.late_max_ms: must be at least {what} {show(bus.late_max_ms)}"


def _devices(document: Document) -> Iterator[str]:
    areas, buses = raw_ids(document, "area"), raw_ids(document, "bus")
    units: dict[tuple[str, int], int] = {}
    kinds = {bus.id: bus.kind for bus in document.entries("bus")}
    for i, device in document.repeated["device"]:
        path = f"device[{i}]"
        yield from _reference(f"{path}.area", device.area, areas, "[[area]]")
        yield from _reference(f"{path}.bus", device.bus, buses, "[[bus]]")
        yield from _reference(f"{path}.profile", device.profile, document.catalogue, "profile of the catalogue")
        if not 1 <= device.unit_id <= 247 and kinds.get(device.bus) in ("rtu", "rtu_tcp"):
            yield f'{path}.unit_id: must be 1..247 on kind "{kinds[device.bus]}" {show(device.unit_id)}'
        other = units.setdefault((device.bus, device.unit_id), i)
        if other != i:
            whose = f"device[{other}] has it too {show(device.unit_id)}"
            yield f'{path}.unit_id: must be unique on bus "{device.bus}": {whose}'


def _mqtt_devices(document: Document) -> Iterator[str]:
    areas = raw_ids(document, "area")
    for i, device in document.repeated["mqtt_device"]:
        path = f"mqtt_device[{i}]"
        yield from _reference(f"{path}.area", device.area, areas, "[[area]]")
        if "mqtt" not in document.raw:
            yield f"{path}: needs a broker: add an [mqtt] table"
        if any(sign in device.topic for sign in "+#") or device.topic.startswith("$"):
            yield f"{path}.topic: must name one device: no + and # in it, no $ in front {show(device.topic)}"
        if "status_ok" in device.model_fields_set and not device.status_path:
            yield f"{path}.status_path: is required beside status_ok: where the JSON holds the status"
        yield from _mqtt_points(path, device)


def _mqtt_points(path: str, device: MqttDeviceTable) -> Iterator[str]:
    names: dict[str, int] = {}
    for j, point in enumerate(device.point):
        other = names.setdefault(point.name, j)
        if other != j:
            yield f"{path}.point[{j}].name: must be unique in the device: point[{other}] has it too {show(point.name)}"
        if point.low is not None and point.high is not None and point.low >= point.high:
            yield f"{path}.point[{j}].low: must be below high, {point.high:g} {show_number(point.low)}"
        if point.scale == 0:
            yield f"{path}.point[{j}].scale: must not be 0: every value would be 0 {show_number(point.scale)}"


# --- limits ---


def _alarms(document: Document, points: Mapping[str, Point]) -> Iterator[str]:
    seen: dict[str, int] = {}
    unsure = _unsure_devices(document, points)
    for i, alarm in document.repeated["alarm"]:
        path = f"alarm[{i}]"
        other = seen.setdefault(alarm.point, i)
        if other != i:
            yield f"{path}.point: must be unique: alarm[{other}] is about it too {show(alarm.point)}"
        device = _device_of(alarm.point)
        if alarm.point in points:
            yield from _limits(path, alarm, points[alarm.point])
        elif unsure is not None and device not in unsure:
            yield f"{path}.point: must name a point{_near(alarm.point, points)} {show(alarm.point)}"
        for j, role in enumerate(alarm.required_acks or ()):
            yield from _reference(f"{path}.required_acks[{j}]", role, ROLES, "role")
        yield from _once_each(f"{path}.required_acks", alarm.required_acks or ())


def _unsure_devices(document: Document, points: Mapping[str, Point]) -> set[str] | None:
    """Devices whose points are not known because they are broken themselves; None when not even their ids are."""
    tables = ("device", "mqtt_device")
    ids: list[str] = []
    for table in tables:
        named = raw_ids(document, table)
        if named is None or len(named) < len(document.raw.get(table, [])):
            return None
        ids += named
    return set(ids) - {_device_of(point) for point in points}


def _device_of(point: str) -> str:
    """`th1` of `aux_store.th1.humidity`; "" of what is no such id."""
    return point.split(".")[1] if "." in point else ""


def _near(wrong: str, points: Mapping[str, Point]) -> str:
    device = _device_of(wrong)
    own = [point for point in points if _device_of(point) == device]
    if own:
        return f': device "{device}" has {", ".join(own)}'
    return suggest(wrong, points) or " as area.device.name"


def _limits(path: str, alarm: AlarmTable, point: Point) -> Iterator[str]:
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
    yield from _deadbands(path, alarm, point)


def _scale(point: Point) -> str:
    """`0..100 %RH`, `at most 100 ppm`."""
    if point.low is None:
        return f"at most {point.high:g} {point.unit}".rstrip()
    if point.high is None:
        return f"at least {point.low:g} {point.unit}".rstrip()
    return f"{point.low:g}..{point.high:g} {point.unit}".rstrip()


def _deadbands(path: str, alarm: AlarmTable, point: Point) -> Iterator[str]:
    """A deadband that reaches past the end of the scale, or from hi past lo, would never let the alarm clear."""
    rules = build_rules(point, alarm, area="", required_acks=(), revision="")
    used: dict[str, Level] = {level.kind.value: level for rule in rules for level in rule.levels}
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


# --- channels ---


def _channels(document: Document) -> Iterator[str]:
    for i, channel in document.repeated["channel"]:
        yield from _channel_url(document, f"channel[{i}]", channel)
    alerts = document.single["alerts"]
    if alerts is not None:
        for j, name in enumerate(alerts.channels):
            yield from _reference(f"alerts.channels[{j}]", name, raw_ids(document, "channel"), "[[channel]]")
        yield from _once_each("alerts.channels", alerts.channels)
        for j, role in enumerate(alerts.required_acks):
            yield from _reference(f"alerts.required_acks[{j}]", role, ROLES, "role")
        yield from _once_each("alerts.required_acks", alerts.required_acks)


def _channel_url(document: Document, path: str, channel: ChannelTable) -> Iterator[str]:
    schemes = ("https", "http")
    if bool(channel.url) == bool(channel.url_file):
        yield f"{path}.url: is required, or else url_file: exactly one of the two"
    elif has_secret(channel.url):
        yield (
            f"{path}.url: secrets never stand in site.toml: write the address into a file that only the gateway"
            f" can read, and name that file in url_file {show_url(channel.url)}"
        )
    elif channel.url:
        yield from check_url(f"{path}.url", channel.url, schemes)
    else:
        problems = list(check_file(document.path.parent, f"{path}.url_file", channel.url_file))
        yield from problems
        if not problems:
            url = (document.path.parent / channel.url_file).read_text("utf-8").strip()
            yield from check_url(f"{path}.url_file", url, schemes)


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
    parts = split(mqtt.url) if mqtt is not None else None
    if mqtt is not None and parts and parts.scheme == "mqtt" and mqtt.password_file and not is_here(parts):
        yield f"mqtt.url: the password crosses the network unencrypted: use mqtts:// {show_url(mqtt.url)}"
    for i, channel in document.repeated["channel"]:
        parts = split(channel.url)
        if parts and parts.scheme == "http" and not is_here(parts):
            yield f"channel[{i}].url: alarms cross the network unencrypted: use https:// {show_url(channel.url)}"
    if document.single["cloud"] is None:
        yield "cloud: there is no [cloud] table: the gateway works alone"


def _idle(document: Document) -> Iterator[str]:
    if not document.entries("device") and not document.entries("mqtt_device"):
        yield "device: there is no [[device]] and no [[mqtt_device]]: nothing is watched"
    told = document.single["alerts"].channels
    for i, channel in document.repeated["channel"]:
        if channel.id not in told:
            yield f"channel[{i}]: nobody is told through it: alerts.channels does not name it"
