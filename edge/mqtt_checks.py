"""What a broker and a device behind it must say in site.toml. Offline; reads only files they name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from ..sensors.mqtt_payloads import filter_problem
from ..sensors.mqtt_presets import WITHOUT_PATHS, find_problem, path_problem
from .addresses import check_file, check_url, split
from .config import Document, Part, split_points
from .models import MqttDeviceTable, MqttPointTable
from .mqtt_site import MAIN
from .wording import show, show_number, show_url

_JSON = ("json", "tasmota", "zigbee2mqtt", "chirpstack")
_ANNOUNCED = ("tasmota", "zigbee2mqtt")
_PREFIX = re.compile(r"[A-Za-z0-9_-]+(/[A-Za-z0-9_-]+)*")
_EXAMPLES = {"number": "plant/boiler/pressure", "tasmota": "gasroom", "zigbee2mqtt": "gasroom"}


def find_broker_problems(document: Document, path: str, part: Part) -> Iterator[str]:
    """Of `[mqtt]` and of a `[[broker]]`."""
    broker: Any = part.entry
    if path != MAIN and broker.id == MAIN:
        yield f"{path}.id: must not be {MAIN}: that is the [mqtt] table {show(broker.id)}"
    if "url" not in part.broken:
        yield from check_url(f"{path}.url", broker.url, ("mqtt", "mqtts"))
        parts = split(broker.url)
        if parts and (parts.path not in ("", "/") or parts.query or parts.fragment):
            yield f"{path}.url: must end after the port {show_url(broker.url)}"
        for key in ("ca_file", "cert_file") if parts and parts.scheme == "mqtt" else ():
            if getattr(broker, key):
                yield f"{path}.{key}: belongs to mqtts://: take it out, or use TLS {show(getattr(broker, key))}"
    for key in ("password_file", "ca_file", "cert_file", "key_file"):
        yield from check_file(document.path.parent, f"{path}.{key}", getattr(broker, key) or "")
    if broker.password_file and not broker.username and "username" not in part.broken:
        yield f"{path}.username: is required beside password_file: text in quotes"
    if broker.key_file and not broker.cert_file and "cert_file" not in part.broken:
        yield f"{path}.cert_file: is required beside key_file: the certificate of this gateway"
    prefix = getattr(broker, "home_assistant", "")
    if prefix and not _PREFIX.fullmatch(prefix):
        yield f'{path}.home_assistant: must be topic levels such as "homeassistant", without wildcards {show(prefix)}'


def find_device_problems(path: str, part: Part) -> Iterator[str]:
    """Of an `[[mqtt_device]]`, apart from what it refers to."""
    device: MqttDeviceTable = part.entry
    form, points = device.format or "json", split_points(part)
    yield from _topic(path, part, points)
    if "status_ok" in part.raw and not device.status_path and "status_path" not in part.broken:
        yield f"{path}.status_path: is required beside status_ok: where the JSON holds the status"
    for key in ("status_path", "time_path"):
        given = getattr(device, key)
        if given and form not in (*_JSON, "vuqt"):
            yield f'{path}.{key}: does not belong to format "{form}": take it out {show(given)}'
        elif given and (problem := path_problem(given)):
            yield f"{path}.{key}: {problem} {show(given)}"
    if "time_format" in part.raw and not device.time_path and form in ("json", "number"):
        yield f"{path}.time_path: is required beside time_format: where the JSON holds the time"
    yield from _availability(path, part)
    if device.f_port is not None and form != "chirpstack":
        yield f'{path}.f_port: belongs to format "chirpstack": take it out {show(device.f_port)}'
    yield from _points(path, form, points)


def _topic(path: str, part: Part, points: tuple[Part, ...]) -> Iterator[str]:
    device: MqttDeviceTable = part.entry
    topic, form = device.topic, device.format or "json"
    if topic is None or "format" in part.broken:
        return
    if not topic:
        own = points and all(point.entry.topic or "topic" in point.broken for point in points)
        if not own or form not in ("json", *WITHOUT_PATHS):
            example = f", such as {_EXAMPLES[form]}" if form in _EXAMPLES else ""
            yield f"{path}.topic: is required: text in quotes{example}"
        return
    problem = _sparkplug_topic(topic) if form == "sparkplug_b" else find_problem(form, topic) or _filter(topic)
    if problem:
        yield f"{path}.topic: {problem} {show(topic)}"


def _filter(topic: str) -> str:
    return "must not begin with $" if topic.startswith("$") else filter_problem(topic)


def _sparkplug_topic(topic: str) -> str:
    levels = topic.split("/")
    good = len(levels) in (2, 3) and all(levels) and not any(sign in topic for sign in "+#")
    return "" if good else "must be group/edge_node, or group/edge_node/device"


def _availability(path: str, part: Part) -> Iterator[str]:
    device: MqttDeviceTable = part.entry
    topic, form = device.availability_topic, device.format or "json"
    if topic and form == "sparkplug_b":
        yield f'{path}.availability_topic: does not belong to format "sparkplug_b": take it out {show(topic)}'
    elif topic and (problem := _filter(topic)):
        yield f"{path}.availability_topic: {problem} {show(topic)}"
    unknown = "availability_topic" in part.broken or "format" in part.broken
    for key in ("online", "offline"):
        if key in part.raw and not topic and form not in _ANNOUNCED and not unknown:
            yield f"{path}.availability_topic: is required beside {key}: where the device says it"
    for word in device.online or ():
        if word in (device.offline or ()):
            yield f"{path}.offline: must not hold a word of online {show(word)}"


def _points(path: str, form: str, parts: tuple[Part, ...]) -> Iterator[str]:
    names: dict[str, int] = {}
    for part in parts:
        point, where = part.entry, f"{path}.point[{part.index}]"
        other = part.index if point.name is None else names.setdefault(point.name, part.index)
        if other != part.index:
            yield f"{where}.name: must be unique in the device: point[{other}] has it too {show(point.name)}"
        if point.low is not None and point.high is not None and point.low >= point.high:
            yield f"{where}.low: must be below high, {point.high:g} {show_number(point.low)}"
        if point.scale == 0:
            yield f"{where}.scale: must not be 0: every value would be 0 {show_number(point.scale)}"
        yield from _point_path(where, form, part)
        yield from _words(where, point)


def _point_path(where: str, form: str, part: Part) -> Iterator[str]:
    point: MqttPointTable = part.entry
    if point.path is not None:
        if not point.path and form not in WITHOUT_PATHS:
            yield f"{where}.path: is required: text in quotes"
        elif point.path and form in WITHOUT_PATHS:
            yield f'{where}.path: does not belong to format "{form}": take it out {show(point.path)}'
        elif point.path and form != "sparkplug_b" and (problem := path_problem(point.path)):
            yield f"{where}.path: {problem} {show(point.path)}"
    if point.topic and form not in ("json", *WITHOUT_PATHS):
        yield f'{where}.topic: does not belong to format "{form}": take it out {show(point.topic)}'
    elif point.topic and (problem := _filter(point.topic)):
        yield f"{where}.topic: {problem} {show(point.topic)}"


def _words(where: str, point: MqttPointTable) -> Iterator[str]:
    if point.map is not None and not point.map:
        yield f"{where}.map: must not be empty: {{ on = 1, off = 0 }}"
    if point.map and point.quantity not in (None, "other"):
        yield f'{where}.map: belongs to quantity "other": a word is no measurement {show(point.map)}'
    words = [word.lower() for word in point.map or ()]
    for word in sorted({word for word in words if words.count(word) > 1}):
        yield f"{where}.map: must hold a word only once, in whatever letters {show(word)}"
