"""What the well-known publishers call things: a short entry of site.toml to a whole device. Pure.

Sources of the names:
- Tasmota: `tele/<topic>/SENSOR`, `tele/<topic>/LWT` with Online and Offline, `Time` without an offset unless
  SetOption52 is on (its documentation, and the comments of its settings).
- zigbee2mqtt: `zigbee2mqtt/<friendly name>`, its `/availability` (retained) with `{"state": "online"}`, or the bare
  word where `legacy_availability_payload` is on; `last_seen` (ISO 8601 or epoch) when it is switched on.
- ChirpStack v4: `application/<id>/device/<eui>/event/up`, JSON of the message UplinkEvent: `deduplicationId`, `time`,
  `fPort`, `object` from the codec of the device profile (its documentation, and integration.proto).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal, get_args

from .mqtt_payloads import compile_path
from .mqtt_words import MqttDevice

Format = Literal["json", "number", "vuqt", "tasmota", "zigbee2mqtt", "chirpstack", "sparkplug_b"]
FORMATS: tuple[str, ...] = get_args(Format)
WITHOUT_PATHS = ("number", "vuqt")
"""Formats whose payload is one value: a path says nothing there."""


def expand(form: str, device: MqttDevice) -> MqttDevice:
    """The device with what its format decides filled in; what was given explicitly stays.

    Args:
        form: one of `FORMATS`.
        device: as in site.toml, with the short `topic` of the format.
    """
    return _EXPAND[form](device)


def find_problem(form: str, topic: str) -> str:
    """Why a topic does not fit its format; "" when it does."""
    if form == "tasmota" and "/" in topic and "%prefix%" not in topic:
        return "must be the device's Topic, such as gasroom, or its FullTopic with %prefix% in it"
    if form == "chirpstack":
        eui = topic.rpartition("/")[2]
        if topic.count("/") > 1 or len(eui) != 16 or not set(eui.lower()) <= set("0123456789abcdef"):
            return "must be the DevEUI, 16 hexadecimal digits, or application id and DevEUI with a / between"
    return ""


def _json(device: MqttDevice) -> MqttDevice:
    return device


def _number(device: MqttDevice) -> MqttDevice:
    return replace(device, shape="number")


def _vuqt(device: MqttDevice) -> MqttDevice:
    return replace(device, shape="vuqt", time_path=device.time_path or "ts", time_needed=device.time_path is not None)


def _sparkplug(device: MqttDevice) -> MqttDevice:
    return replace(device, shape="sparkplug_b")


def _tasmota(device: MqttDevice) -> MqttDevice:
    full = device.topic if "%prefix%" in device.topic else f"%prefix%/{device.topic}"
    base = full.replace("%prefix%", "tele").rstrip("/")
    return replace(
        device,
        topic=f"{base}/SENSOR",
        availability_topic=device.availability_topic or f"{base}/LWT",
        time_path=device.time_path or "Time",
        time_needed=device.time_path is not None,
    )


def _zigbee2mqtt(device: MqttDevice) -> MqttDevice:
    topic = device.topic if device.topic.startswith("zigbee2mqtt/") else f"zigbee2mqtt/{device.topic}"
    return replace(
        device,
        topic=topic,
        availability_topic=device.availability_topic or f"{topic}/availability",
        time_path=device.time_path or "last_seen",
        time_needed=device.time_path is not None,
    )


def _chirpstack(device: MqttDevice) -> MqttDevice:
    application, _, eui = device.topic.rpartition("/")
    points = tuple(replace(p, path=p.path[2:] if p.path.startswith("$.") else _inside(p.path)) for p in device.points)
    return replace(
        device,
        topic=f"application/{application or '+'}/device/{eui.lower()}/event/up",
        points=points,
        time_path=device.time_path or "time",
        time_needed=device.time_path is not None,
        same_path="deduplicationId",
        only_path="fPort" if device.only else None,
        partial=True,
    )


def _inside(path: str) -> str:
    return f"object{path}" if path.startswith("[") else f"object.{path}"


def path_problem(path: str) -> str:
    """What is wrong with a path; "" of a good one."""
    try:
        compile_path(path.removeprefix("$."))
    except ValueError as error:
        return str(error)
    return ""


_EXPAND: dict[str, Callable[[MqttDevice], MqttDevice]] = {
    "json": _json,
    "number": _number,
    "vuqt": _vuqt,
    "tasmota": _tasmota,
    "zigbee2mqtt": _zigbee2mqtt,
    "chirpstack": _chirpstack,
    "sparkplug_b": _sparkplug,
}
