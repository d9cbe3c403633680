"""Formats of well-known publishers: names as they document them, and whole payloads to readings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from sitewarden.edge.models import MqttFormat
from sitewarden.sensors.mqtt_presets import FORMATS, expand, find_problem, path_problem
from sitewarden.sensors.mqtt_sources import JsonSource, make_source
from sitewarden.sensors.mqtt_words import Arrival, MqttDevice, MqttPoint
from sitewarden.words import ClockState, Instant, Quality

AT = Instant(utc_ms=1_800_000_000_000, mono_s=5.0, boot="b", clock=ClockState.SYNCED)
NOW = "2027-01-15T08:00:00"
OLD = "2027-01-15T07:00:00"


def device(topic: str, *paths: str, **more: Any) -> MqttDevice:
    points = tuple(MqttPoint(name=f"p{i}", path=path) for i, path in enumerate(paths))
    return MqttDevice(device="a.d", topic=topic, points=points, **more)


def tell(source: Any, topic: str, payload: Any, **flags: bool) -> list[tuple[float | None, Quality, str]] | str:
    data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    taken = source.take(Arrival(topic=topic, payload=data, at=AT, **flags))
    return taken.reject or [(r.value, r.quality, r.why) for r in taken.readings]


def good(*values: float) -> list[tuple[float | None, Quality, str]]:
    return [(value, Quality.GOOD, "") for value in values]


def gone(count: int) -> list[tuple[float | None, Quality, str]]:
    return [(None, Quality.BAD, "offline")] * count


def test_every_format_of_the_configuration_is_known() -> None:
    assert get_args(MqttFormat) == FORMATS


# --- Tasmota ---

SENSOR = {
    "Time": NOW,
    "SHT3X": {"Temperature": 21.4, "Humidity": 45.1, "DewPoint": 9.0},
    "ENERGY": {"Power": [10, 20]},
    "TempUnit": "C",
}


def test_tasmota() -> None:
    found = expand("tasmota", device("gasroom", "SHT3X.Temperature", "ENERGY.Power[1]"))
    source = JsonSource(found)
    assert source.subscriptions() == ("tele/gasroom/SENSOR", "tele/gasroom/LWT")
    assert tell(source, "tele/gasroom/SENSOR", SENSOR) == good(21.4, 20)
    assert tell(source, "tele/gasroom/LWT", b"Offline", retained=True) == gone(2)
    assert tell(source, "tele/gasroom/LWT", b"Online", retained=True) == []
    assert tell(source, "tele/gasroom/SENSOR", SENSOR, retained=True) == "retained"


def test_tasmota_time_counts_when_it_has_an_offset_or_its_zone_is_said() -> None:
    plain = expand("tasmota", device("g", "SHT3X.Temperature"))
    local = expand("tasmota", device("g", "SHT3X.Temperature", time_path="Time", time_format="local", zone="UTC"))
    old = [(21.4, Quality.UNCERTAIN, "delayed")]
    topic = "tele/g/SENSOR"
    assert tell(JsonSource(plain), topic, {**SENSOR, "Time": OLD}) == good(21.4)
    assert tell(JsonSource(plain), topic, {**SENSOR, "Time": OLD + "+00:00"}) == old
    assert tell(JsonSource(local), topic, {**SENSOR, "Time": OLD}) == old
    assert tell(JsonSource(local), topic, SENSOR) == good(21.4)
    assert tell(JsonSource(local), topic, {**SENSOR, "Time": None}) == [(21.4, Quality.UNCERTAIN, "no_time")]


def test_tasmota_full_topic() -> None:
    found = expand("tasmota", device("hall/%prefix%/gasroom/", "x"))
    assert (found.topic, found.availability_topic) == ("hall/tele/gasroom/SENSOR", "hall/tele/gasroom/LWT")


# --- zigbee2mqtt ---


@pytest.mark.parametrize(
    ("online", "offline"), [(b"online", b"offline"), (b'{"state":"online"}', b'{"state":"offline"}')]
)
def test_zigbee2mqtt(online: bytes, offline: bytes) -> None:
    source = JsonSource(expand("zigbee2mqtt", device("kitchen/floor", "temperature", "battery")))
    assert source.subscriptions() == ("zigbee2mqtt/kitchen/floor", "zigbee2mqtt/kitchen/floor/availability")
    state = {"temperature": 27.34, "battery": 100, "linkquality": 102}
    assert tell(source, "zigbee2mqtt/kitchen/floor", state) == good(27.34, 100)
    assert tell(source, "zigbee2mqtt/kitchen/floor/availability", offline) == gone(2)
    assert tell(source, "zigbee2mqtt/kitchen/floor/availability", online) == []


@pytest.mark.parametrize("seen", ["2027-01-15T08:00:00.500Z", "2027-01-15T16:00:00+08:00", 1_800_000_000_250])
def test_zigbee2mqtt_last_seen(seen: object) -> None:
    source = JsonSource(expand("zigbee2mqtt", device("zigbee2mqtt/s", "temperature")))
    assert tell(source, "zigbee2mqtt/s", {"temperature": 20, "last_seen": seen}) == good(20)
    assert source.health.skew_s == pytest.approx(0, abs=1)


def test_zigbee2mqtt_state_that_it_remembers_is_old() -> None:
    source = JsonSource(expand("zigbee2mqtt", device("s", "temperature")))
    cached = {"temperature": 20, "last_seen": OLD + "Z"}
    assert tell(source, "zigbee2mqtt/s", cached) == [(20.0, Quality.UNCERTAIN, "delayed")]


# --- ChirpStack ---

EUI = "0102030405060708"
UP = {
    "deduplicationId": "3ac7e3c4-4401-4b8d-9386-a5c902f9202d",
    "time": NOW + ".123456+00:00",
    "deviceInfo": {"applicationId": "17c82e96-be03-4f38-aef3-f83d48582d97", "devEui": EUI},
    "dr": 1,
    "fCnt": 24,
    "fPort": 2,
    "data": "qg==",
    "object": {"temperatureSensor": {"1": 25.5}, "battery": 3.6},
}
TOPIC = f"application/17c82e96/device/{EUI}/event/up"


def test_chirpstack() -> None:
    source = JsonSource(expand("chirpstack", device(EUI, "temperatureSensor.1", "battery", "$.fCnt")))
    assert source.subscriptions() == (f"application/+/device/{EUI}/event/up",)
    assert tell(source, TOPIC, UP) == good(25.5, 3.6, 24)
    assert tell(source, TOPIC, {**UP, "dr": 5}) == "duplicate"
    assert tell(source, TOPIC, {**UP, "deduplicationId": "other", "object": {"battery": 3.5}}) == good(3.5, 24)
    late = {**UP, "deduplicationId": "third", "time": OLD + "Z", "object": {"battery": 3.5}}
    assert tell(source, TOPIC, late) == [(3.5, Quality.UNCERTAIN, "delayed"), (24.0, Quality.UNCERTAIN, "delayed")]


def test_chirpstack_ports_and_uplinks_without_a_codec() -> None:
    source = JsonSource(expand("chirpstack", device(f"17c82e96/{EUI.upper()}", "battery", only=frozenset({"2"}))))
    assert source.subscriptions() == (TOPIC,)
    assert tell(source, TOPIC, {**UP, "fPort": 3}) == "other_port"
    assert tell(source, TOPIC, {key: value for key, value in UP.items() if key != "object"}) == "no_points"
    assert tell(source, TOPIC, {**UP, "deduplicationId": "x"}) == good(3.6)


# --- one value ---


def test_number() -> None:
    points = (MqttPoint(name="p", topic="plant/p"), MqttPoint(name="q", topic="plant/q", words=(("on", 1.0),)))
    source = make_source(expand("number", MqttDevice(device="a.d", points=points)))
    assert source.subscriptions() == ("plant/p", "plant/q")
    assert tell(source, "plant/p", b"0.45") == good(0.45)
    assert tell(source, "plant/q", b"ON") == good(1)


def test_vuqt() -> None:
    found = expand("vuqt", replace(device("plant/p", ""), points=(MqttPoint(name="p", unit="MPa"),)))
    source = make_source(found)
    assert tell(source, "plant/p", {"v": 0.45, "u": "MPa", "q": "good", "ts": NOW + "Z"}) == good(0.45)
    assert tell(source, "plant/p", {"v": 0.46}) == good(0.46)
    assert tell(source, "plant/p", {"v": 0.47, "ts": OLD + "Z"}) == [(0.47, Quality.UNCERTAIN, "delayed")]


def test_sparkplug_goes_to_its_own_source() -> None:
    source = make_source(expand("sparkplug_b", device("plant/line1/gas4", "CH4")))
    assert not isinstance(source, JsonSource)
    assert any("plant" in name for name in source.subscriptions())


# --- what is refused ---


@pytest.mark.parametrize(
    ("form", "topic", "fits"),
    [
        ("json", "anything/+", True),
        ("tasmota", "gasroom", True),
        ("tasmota", "hall/gasroom", False),
        ("tasmota", "%prefix%/hall/gasroom", True),
        ("chirpstack", EUI, True),
        ("chirpstack", f"app/{EUI}", True),
        ("chirpstack", f"app/x/{EUI}", False),
        ("chirpstack", EUI[1:], False),
        ("chirpstack", EUI[:-1] + "g", False),
    ],
)
def test_topics(form: str, topic: str, fits: bool) -> None:
    assert (find_problem(form, topic) == "") is fits


def test_paths() -> None:
    assert path_problem("$.fCnt") == path_problem("a.b") == ""
    assert "character 2" in path_problem("a..b")
