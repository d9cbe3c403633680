"""Sparkplug B: payloads and sessions as tables, tagged with ids of the TCK's assertions, and one real edge node.

The messages here are written by an encoder of their own, from the field numbers of the specification.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion
from sitewarden.errors import ConfigError
from sitewarden.sensors.mqtt_ingest import LinkSpec, MqttLink
from sitewarden.sensors.mqtt_words import (
    MAX_PAYLOAD_BYTES,
    Arrival,
    MqttDevice,
    MqttDeviceHealth,
    MqttHealth,
    MqttPoint,
    Outgoing,
    Taken,
)
from sitewarden.sensors.sparkplug import (
    ASK_CAP_S,
    ASK_FIRST_S,
    BIRTH_WAIT_S,
    CALM_S,
    SparkplugDevice,
    SparkplugSource,
    make_sparkplug,
)
from sitewarden.sensors.sparkplug_payload import MOST_METRICS, MOST_NAME_BYTES, decode, encode_rebirth, number
from sitewarden.tests.peers.ports import free_port
from sitewarden.words import ClockState, Instant, Quality, Reading, mono_s, now

START_MS = 1_800_000_000_000
START_S = 1000.0
INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, FLOAT, DOUBLE, BOOL, STRING = range(1, 13)
INT, LONG, F32, F64, TRUTH, TEXT, BYTES, DATASET, TEMPLATE = range(10, 19)  # field numbers of a metric's value
REBIRTH_TOPIC = "spBv1.0/plant/NCMD/edge1"


# --- an encoder of protobuf's wire format ---


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(at: int, value: int | bool | bytes | str) -> bytes:
    if isinstance(value, int):
        return varint(at << 3) + varint(value)
    data = value.encode() if isinstance(value, str) else value
    return varint(at << 3 | 2) + varint(len(data)) + data


def valued(at: int, value: Any) -> bytes:
    """A value of a metric (10..) or of a property (3..), by its field number."""
    kind = (at - 10 if at >= 10 else at - 3) + 10
    if kind == F32:
        return varint(at << 3 | 5) + struct.pack("<f", value)
    if kind == F64:
        return varint(at << 3 | 1) + struct.pack("<d", value)
    return field(at, value)


def prop(key: str, value: bytes) -> bytes:
    return field(9, field(1, key) + field(2, value))


def quality(code: int) -> bytes:
    return prop("Quality", field(1, INT32) + field(3, code))


def metric(
    name: str | bytes = "", value: Any = None, at: int = F64, kind: int | None = DOUBLE, *, alias: int | None = None,
    ms: int | None = None, historical: bool = False, null: bool = False, more: bytes = b"",
) -> bytes:  # fmt: skip
    out = field(1, name) if name else b""
    out += field(2, alias) if alias is not None else b""
    out += field(3, ms) if ms is not None else b""
    out += field(4, kind) if kind is not None else b""
    out += field(5, True) if historical else b""
    out += field(7, True) if null else b""
    return out + more + (valued(at, value) if value is not None else b"")


def message(*metrics: bytes, seq: int | None = None, ms: int | None = START_MS) -> bytes:
    out = field(1, ms) if ms is not None else b""
    out += b"".join(field(2, m) for m in metrics)
    return out + (field(3, seq) if seq is not None else b"")


# --- an edge node that speaks to a source, with both clocks in hand ---

UNIT = SparkplugDevice(
    device="pit.gas4",
    group="plant",
    edge_node="edge1",
    unit="gas4",
    points=(
        MqttPoint(name="ch4", path="Inputs/CH4", low=0, high=100),
        MqttPoint(name="co", path="Inputs/CO", scale=Decimal("0.1")),
    ),
    refresh_s=20.0,
)
NODE = replace(UNIT, device="pit.node", unit="")
CH4, CO, OTHER = 41, 42, 43


def birth_metrics(ch4: float = 0.4, co: int = 30) -> tuple[bytes, ...]:
    return (
        metric("Inputs/CH4", ch4, alias=CH4, ms=START_MS),
        metric("Inputs/CO", co, INT, INT16, alias=CO, ms=START_MS),
        metric("Properties/Make", "x", TEXT, STRING, alias=OTHER, ms=START_MS),
    )


class Rig:
    """A source and what comes out of it."""

    def __init__(self, device: SparkplugDevice = UNIT) -> None:
        self.health = MqttDeviceHealth(device=device.device, stale_s=30)
        self.device = device
        self.source = SparkplugSource(device, self.health)
        self.seq = -1
        self.bd_seq = 0
        self.at_s = 0.0
        self.node_ms = 0  # what the edge node's clock is ahead
        self.state: dict[str, tuple[float | None, str]] = {}
        self.asked: list[float] = []
        self.readings: list[Reading] = []
        self.last = Taken()

    @property
    def at(self) -> Instant:
        ms = START_MS + round(self.at_s * 1000)
        return Instant(utc_ms=ms, mono_s=START_S + self.at_s, boot="b", clock=ClockState.SYNCED)

    @property
    def ms(self) -> int:
        return self.at.utc_ms + self.node_ms

    def keep(self, taken: Taken) -> Taken:
        self.last = taken
        for reading in taken.readings:
            assert (reading.quality is Quality.GOOD) == (reading.why == ""), reading
            assert (reading.quality is Quality.BAD) == (reading.value is None), reading
            name = reading.point.removeprefix(self.device.device + ".")
            self.state[name] = (reading.value, reading.why)
            self.readings.append(reading)
        for outgoing in taken.publish:
            assert outgoing.topic == REBIRTH_TOPIC
            self.asked.append(self.at_s)
        return taken

    def bytes(self, kind: str, data: bytes, unit: str = "", **flags: bool) -> Taken:
        topic = f"spBv1.0/plant/{kind}/edge1" + (f"/{unit}" if unit else "")
        return self.keep(self.source.take(Arrival(topic=topic, payload=data, at=self.at, **flags)))

    def send(self, kind: str, *metrics: bytes, unit: str | None = None, skip: int = 0, **flags: bool) -> Taken:
        """The next message of the edge node; `skip` of them were lost before."""
        unit = (self.device.unit if kind[0] == "D" else "") if unit is None else unit
        self.seq = (self.seq + 1 + skip) % 256
        return self.bytes(kind, message(*metrics, seq=self.seq, ms=self.ms), unit, **flags)

    def data(self, *metrics: bytes, **more: Any) -> Taken:
        return self.send("DDATA" if self.device.unit else "NDATA", *metrics, **more)

    def node_birth(self, *metrics: bytes, seq: int = 0) -> Taken:
        self.seq = seq - 1
        return self.send("NBIRTH", metric("bdSeq", self.bd_seq, LONG, UINT64), *metrics)

    def births(self, *metrics: bytes) -> None:
        metrics = metrics or birth_metrics()
        if self.device.unit:
            self.node_birth()
            self.send("DBIRTH", *metrics)
        else:
            self.node_birth(*metrics)

    def death(self, bd_seq: int | None) -> Taken:
        metrics = () if bd_seq is None else (metric("bdSeq", bd_seq, LONG, UINT64),)
        return self.bytes("NDEATH", message(*metrics))

    def wait(self, seconds: float, *, ticks: bool = True) -> None:
        end_s = self.at_s + seconds
        while self.at_s < end_s:
            self.at_s = min(self.at_s + 1, end_s)
            if ticks:
                self.keep(self.source.tick(self.at))

    @property
    def whys(self) -> set[str]:
        return {why for _, why in self.state.values()}


def linked(device: SparkplugDevice = UNIT) -> Rig:
    rig = Rig(device)
    rig.keep(rig.source.connected(rig.at))
    return rig


def running(device: SparkplugDevice = UNIT, *metrics: bytes) -> Rig:
    rig = linked(device)
    rig.births(*metrics)
    return rig


def seen(value: bytes) -> tuple[float | None, str]:
    """What a metric `Inputs/CH4` with that value becomes, without limits and scale."""
    device = replace(NODE, points=(MqttPoint(name="ch4", path="Inputs/CH4"),))
    return running(device, value).state["ch4"]


# --- values ---

NAME = "Inputs/CH4"


@pytest.mark.parametrize(
    ("at", "kind", "raw", "value"),
    [
        (INT, INT8, 127, 127),
        (INT, INT8, 128, -128),
        (INT, INT8, 255, -1),
        (INT, INT8, 0xFFFF_FFFF, -1),
        (INT, INT8, 0xFFFF_FF80, -128),
        (INT, INT16, 0x7FFF, 32767),
        (INT, INT16, 0x8000, -32768),
        (INT, INT16, 0xFFFF_8000, -32768),
        (INT, INT32, 0x7FFF_FFFF, 2147483647),
        (INT, INT32, 0x8000_0000, -2147483648),
        (INT, INT32, 0xFFFF_FFFF, -1),
        (LONG, INT32, 2**64 - 5, -5),
        (LONG, INT64, 2**63 - 1, float(2**63 - 1)),
        (LONG, INT64, 2**63, -float(2**63)),
        (LONG, INT64, 2**64 - 1, -1),
        (INT, INT64, 7, 7),
        (INT, UINT8, 255, 255),
        (INT, UINT16, 65535, 65535),
        (INT, UINT32, 2**32 - 1, 2**32 - 1),
        (LONG, UINT32, 2**32 - 1, 2**32 - 1),
        (LONG, UINT64, 2**64 - 1, float(2**64 - 1)),
        (INT, UINT8, 0, 0),
        (F32, FLOAT, 21.3, 21.3),
        (F32, FLOAT, -0.0, 0),
        (F64, FLOAT, 0.1, 0.1),
        (F64, DOUBLE, 0.30000000000000004, 0.30000000000000004),
        (TRUTH, BOOL, True, 1),
        (TRUTH, BOOL, False, 0),
    ],
)
def test_numbers(at: int, kind: int, raw: Any, value: float) -> None:
    """tck-id-payloads-metric-datatype-value"""
    assert seen(metric(NAME, raw, at, kind)) == (value, "")


@pytest.mark.parametrize(
    ("at", "kind", "raw", "why"),
    [
        (INT, INT8, 256, "wrong_type"),
        (INT, INT8, 0xFFFF_FF7F, "wrong_type"),
        (INT, INT16, 65536, "wrong_type"),
        (LONG, INT32, 2**32, "wrong_type"),
        (INT, UINT8, 256, "wrong_type"),
        (INT, UINT8, 0xFFFF_FFFF, "wrong_type"),
        (LONG, UINT32, 2**32, "wrong_type"),
        (INT, FLOAT, 3, "wrong_type"),
        (INT, BOOL, 1, "wrong_type"),
        (F64, INT32, 3.0, "wrong_type"),
        (TRUTH, INT32, True, "wrong_type"),
        (TEXT, STRING, "3", "wrong_type"),
        (TEXT, INT32, "3", "wrong_type"),
        (LONG, 13, START_MS, "wrong_type"),
        (TEXT, 14, "3", "wrong_type"),
        (TEXT, 15, "3", "wrong_type"),
        (DATASET, 16, field(1, 1), "wrong_type"),
        (BYTES, 17, b"3", "wrong_type"),
        (BYTES, 18, b"3", "wrong_type"),
        (TEMPLATE, 19, field(5, True), "wrong_type"),
        (BYTES, 22, b"\x03", "wrong_type"),
        (INT, 0, 3, "wrong_type"),
        (INT, 99, 3, "wrong_type"),
        (INT, None, 3, "wrong_type"),
        (F32, FLOAT, float("nan"), "not_a_number"),
        (F64, DOUBLE, float("inf"), "not_a_number"),
        (F64, DOUBLE, None, "no_value"),
    ],
)
def test_no_numbers(at: int, kind: int | None, raw: Any, why: str) -> None:
    """tck-id-payloads-metric-datatype-value-type, tck-id-payloads-metric-datatype-req"""
    assert seen(metric(NAME, raw, at, kind)) == (None, why)


def test_null() -> None:
    """tck-id-topics-nbirth-metrics: a value that is null is said so"""
    assert seen(metric(NAME, None, null=True)) == (None, "no_value")
    assert seen(metric(NAME, 3.0, null=True)) == (None, "no_value")


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        (quality(192), ""),
        (quality(500), "quality_stale"),
        (quality(0), "quality_bad"),
        (quality(64), "quality_unknown"),
        (prop("Quality", field(1, INT32) + field(4, 192)), ""),
        (prop("Quality", field(1, INT32) + field(2, True) + field(3, 192)), "quality_unknown"),
        (prop("Quality", field(1, STRING) + field(8, "192")), "quality_unknown"),
        (prop("Quality", field(1, INT32)), "quality_unknown"),
        (prop("quality", field(1, INT32) + field(3, 0)), ""),
        (prop("engUnit", field(1, STRING) + field(8, "%LEL")), ""),
        (field(9, field(1, "Quality")), "quality_unknown"),
        (field(9, field(1, "a") + field(1, "Quality") + field(2, field(3, 192))), "quality_unknown"),
        (field(9, (field(1, "Quality") + field(2, field(3, 192))) * 2), "quality_unknown"),
        (field(9, field(1, "a") + field(1, "Quality") + field(2, field(8, "x")) + field(2, field(3, 192))), ""),
    ],
)
def test_quality(properties: bytes, why: str) -> None:
    """tck-id-payloads-propertyset-quality-value-type, -value-value, tck-id-payloads-propertyset-keys-array-size"""
    assert seen(metric(NAME, 3.0, more=properties)) == (None if why else 3.0, why)


def test_scale_and_limits_are_the_points_own() -> None:
    rig = running()
    assert rig.state == {"ch4": (0.4, ""), "co": (3.0, "")}
    rig.data(metric(alias=CH4, value=100.1, kind=None), metric(alias=CO, value=65535, at=INT, kind=None))
    assert rig.state == {"ch4": (None, "out_of_range"), "co": (-0.1, "")}


@given(st.sampled_from([(INT8, 8), (INT16, 16), (INT32, 32), (INT64, 64)]), st.data())
def test_signed_integers_round_trip_in_both_widths(kind: tuple[int, int], data: st.DataObject) -> None:
    datatype, bits = kind
    value = data.draw(st.integers(-(1 << bits - 1), (1 << bits - 1) - 1))
    for at, width in ((INT, 32), (LONG, 64)):
        if bits > width:
            continue
        for raw in {value % (1 << bits), value % (1 << width)}:
            decoded = decode(message(metric("m", raw, at, datatype)))
            assert decoded is not None
            assert number(decoded.metrics[0], datatype) == (float(value), "")


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_a_float_stays_the_same_float(value: float) -> None:
    decoded = decode(message(metric("m", value, F32, FLOAT)))
    assert decoded is not None
    (found, why) = number(decoded.metrics[0], FLOAT)
    assert why == ""
    assert struct.pack("<f", found) == struct.pack("<f", value)
    assert len(repr(found)) <= len(repr(value))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b'{"ch4": 1}',
        b"21.5",
        b"ONLINE",
        message(metric(b"\xff\xfe", 1.0)),
        message(seq=256),
        message()[:-1],
        message(metric("m", 1.0))[:-1],
        field(77, b"unknown fields alone"),
    ],
)
def test_not_sparkplug(data: bytes) -> None:
    rig = running()
    before = dict(rig.state)
    assert rig.bytes("DDATA", data, "gas4") == Taken(reject="not_sparkplug")
    assert rig.state == before


def test_rebirth_request() -> None:
    """tck-id-operational-behavior-data-commands-ncmd-rebirth-verb, -name, -value; tck-id-payloads-ncmd-timestamp, -seq,
    -qos"""
    (outgoing,) = Rig().source.connected(Rig().at).publish
    wanted = field(1, START_MS) + field(
        2, field(1, "Node Control/Rebirth") + field(3, START_MS) + field(4, BOOL) + field(14, True)
    )
    assert outgoing == Outgoing(topic=REBIRTH_TOPIC, payload=wanted, qos=0)
    assert decode(encode_rebirth(START_MS)) is not None


# --- sessions ---


def test_subscriptions() -> None:
    """tck-id-message-flow-phid-sparkplug-subscription"""
    assert set(SparkplugSource(UNIT).subscriptions()) == {
        "spBv1.0/plant/NBIRTH/edge1",
        "spBv1.0/plant/NDATA/edge1",
        "spBv1.0/plant/NDEATH/edge1",
        "spBv1.0/plant/DBIRTH/edge1/+",
        "spBv1.0/plant/DDATA/edge1/+",
        "spBv1.0/plant/DDEATH/edge1/+",
    }


@pytest.mark.parametrize("device", [UNIT, NODE])
def test_births_then_data_by_alias_and_by_name(device: SparkplugDevice) -> None:
    """tck-id-payloads-alias-birth-requirement, tck-id-payloads-alias-data-cmd-requirement,
    tck-id-payloads-name-requirement"""
    rig = running(device)
    assert rig.state == {"ch4": (0.4, ""), "co": (3.0, "")}
    rig.data(metric(alias=CH4, value=0.5, kind=None))
    assert [r.point for r in rig.last.readings] == [f"{device.device}.ch4"]
    rig.data(metric("Inputs/CO", 41, INT, INT16))
    assert rig.state == {"ch4": (0.5, ""), "co": (4.1, "")}
    assert rig.asked == [0]


def test_changes_of_one_metric_in_one_message_stay_in_order() -> None:
    """tck-id-operational-behavior-data-publish-dbirth-order"""
    rig = running()
    taken = rig.data(metric(alias=CH4, value=0.5, ms=rig.ms - 500), metric(alias=CH4, value=0.6, ms=rig.ms))
    assert [r.value for r in taken.readings] == [0.5, 0.6]


def test_a_metric_may_feed_several_points_and_a_birth_may_lack_one() -> None:
    twice = MqttPoint(name="tenth", path="Inputs/CH4", scale=Decimal("0.1"))
    rig = running(replace(UNIT, points=(*UNIT.points, twice)), metric("Inputs/CH4", 5.0))
    assert rig.state == {"ch4": (5.0, ""), "tenth": (0.5, ""), "co": (None, "missing")}


def test_sequence_wraps() -> None:
    """tck-id-payloads-sequence-num-incrementing, tck-id-payloads-ndata-seq-inc, tck-id-payloads-nbirth-seq"""
    rig = linked()
    rig.node_birth(seq=250)
    rig.send("DBIRTH", *birth_metrics())
    for i in range(600):
        rig.data(metric(alias=CH4, value=i % 100 / 1, kind=None))
        assert rig.state["ch4"] == (i % 100, "")
    assert rig.asked == [0]


def test_zeros_that_protobuf_3_leaves_out() -> None:
    """A seq of 0, left out, is the seq 0; any other that is missing is out of order
    (tck-id-payloads-sequence-num-always-included)."""
    rig = linked(NODE)
    rig.bytes("NBIRTH", message(metric("bdSeq", 0, LONG, UINT64), *birth_metrics()))
    rig.seq = 0
    rig.data(metric(alias=CH4, value=1.0, kind=None))
    assert rig.state["ch4"] == (1.0, "")
    rig.node_birth(*birth_metrics(), seq=255)
    rig.bytes("NDATA", message(metric(alias=CH4, value=2.0, kind=None)))
    assert rig.state["ch4"] == (2.0, "")
    rig.bytes("NDATA", message(metric(alias=CH4, value=3.0, kind=None)))
    assert rig.whys == {"seq_gap"}


def test_sequence_counts_over_all_devices_of_the_node() -> None:
    rig = running()
    rig.send("DDATA", metric(alias=99, value=1.0), unit="other")
    rig.send("NDATA", metric("Uptime", 1.0))
    rig.send("DDEATH", unit="other")
    rig.data(metric(alias=CH4, value=0.7, kind=None))
    assert rig.state["ch4"] == (0.7, "")
    assert rig.asked == [0]
    rig.send("DDATA", metric(alias=99, value=1.0), unit="other", skip=1)
    assert rig.whys == {"seq_gap"}


@pytest.mark.parametrize("skip", [1, 2, 254, -1, -5])
def test_broken_order(skip: int) -> None:
    """tck-id-operational-behavior-host-reordering-rebirth: what is missing may have been the value that matters."""
    rig = running()
    rig.wait(30)
    rig.births()  # answers the refresh
    asked = len(rig.asked)
    rig.wait(11, ticks=False)
    rig.data(metric(alias=CO, value=1, at=INT, kind=None), skip=skip)
    assert rig.state == {"ch4": (None, "seq_gap"), "co": (None, "seq_gap")}
    assert len(rig.asked) == asked + 1
    rig.data(metric("Inputs/CH4", 66.0, kind=None))
    assert rig.state["ch4"] == (None, "seq_gap"), "by name, but of which type?"
    rig.data(metric("Inputs/CH4", 66.0, alias=CH4))
    assert rig.state == {"ch4": (66.0, "seq_gap"), "co": (None, "seq_gap")}
    assert rig.readings[-1].quality is Quality.UNCERTAIN
    rig.send("DBIRTH", *birth_metrics())
    assert rig.state["co"] == (None, "seq_gap"), "the node's birth is missing"
    rig.births(*birth_metrics(ch4=67))
    assert rig.state == {"ch4": (67.0, ""), "co": (3.0, "")}
    rig.data(metric(alias=CH4, value=68.0, kind=None))
    assert rig.state["ch4"] == (68.0, "")


def test_an_alias_that_changed_in_a_lost_birth_never_gives_a_wrong_value() -> None:
    rig = running()
    rig.seq = 4  # NBIRTH, DBIRTH and some data were lost; 41 means another metric by now
    rig.data(metric(alias=CH4, value=5000.0, kind=None))
    assert rig.state["ch4"] == (None, "seq_gap")


def test_rebirth_requests_are_limited_and_grow_rare() -> None:
    rig = running()
    rig.wait(9)
    for _ in range(100):
        rig.data(metric(alias=CH4, value=1.0, kind=None), skip=1)
    assert rig.asked == [0]
    rig.wait(2000)
    gaps = [b - a for a, b in zip(rig.asked, rig.asked[1:], strict=False)]
    assert gaps[:6] == [10, 20, 40, 80, 160, 300]
    assert set(gaps[6:]) == {ASK_CAP_S}


def test_pauses_are_short_again_after_calm() -> None:
    rig = running(replace(UNIT, refresh_s=0))
    rig.data(skip=1)
    rig.wait(150)
    rig.births()
    assert rig.asked == [0, 10, 30, 70, 150]
    rig.wait(CALM_S - 5)
    rig.data(skip=1)
    assert rig.asked[5:] == [], "the next one would be due 160 s after the last"
    rig.births()
    rig.wait(CALM_S + 1)
    rig.data(skip=1)
    rig.wait(ASK_FIRST_S)
    assert rig.asked[5:] == [266, 276]


def test_duplicate_counts_once() -> None:
    rig = running()
    rig.data(metric(alias=CH4, value=0.9, kind=None))
    again = message(metric(alias=CH4, value=0.9, kind=None), seq=rig.seq, ms=rig.ms)
    assert rig.bytes("DDATA", again, "gas4") == Taken(reject="duplicate")
    rig.data(metric(alias=CH4, value=1.0, kind=None))
    assert rig.state["ch4"] == (1.0, "")
    other = message(metric(alias=CH4, value=2.0, kind=None), seq=rig.seq, ms=rig.ms)
    rig.bytes("DDATA", other, "gas4")
    assert rig.whys == {"seq_gap"}, "the same number, but another message"


def test_data_without_a_birth() -> None:
    """tck-id-operational-behavior-data-commands-rebirth-action-1: a host that comes later must ask."""
    rig = Rig()
    rig.seq = 5
    rig.data(metric("Inputs/CH4", 1.0))
    assert rig.state == {"ch4": (None, "no_birth"), "co": (None, "no_birth")}
    assert rig.asked == [0]
    rig.data(metric(alias=CH4, value=1.0))
    assert rig.last == Taken(), "once"


def test_device_birth_before_the_nodes() -> None:
    """tck-id-message-flow-device-birth-publish-nbirth-wait"""
    rig = Rig()
    rig.send("DBIRTH", *birth_metrics())
    assert rig.whys == {"no_birth"}
    assert rig.asked == [0]
    rig.births()
    assert rig.state == {"ch4": (0.4, ""), "co": (3.0, "")}


def test_device_data_before_its_birth() -> None:
    """tck-id-payloads-ddata-order"""
    rig = running()
    rig.node_birth()
    rig.data(metric(alias=CH4, value=1.0, kind=None))
    assert rig.whys == {"no_birth"}


def test_no_birth_in_time() -> None:
    rig = linked()
    rig.wait(BIRTH_WAIT_S)
    assert rig.state == {}
    rig.wait(1)
    assert rig.whys == {"no_birth"}
    rig.births()
    assert rig.whys == {""}
    rig.node_birth()  # a rebirth, but the device is not part of it
    assert rig.whys == {""}
    rig.wait(BIRTH_WAIT_S + 1)
    assert rig.whys == {"no_birth"}


def test_metric_that_no_birth_told_of() -> None:
    """Chapter 6.4.20: a rebirth is asked for; what the births define goes on."""
    for stranger in (metric("Inputs/New", 1.0), metric(alias=77, value=1.0), metric(value=1.0)):
        rig = running()
        rig.wait(15, ticks=False)
        rig.data(stranger, metric(alias=CH4, value=0.8, kind=None))
        assert rig.asked == [0, 15]
        assert rig.state == {"ch4": (0.8, ""), "co": (3.0, "")}


def test_alias_with_two_names_means_neither() -> None:
    """tck-id-payloads-alias-uniqueness"""
    rig = running(UNIT, metric("Inputs/CH4", 0.4, alias=7), metric("Inputs/CO", 3.0, alias=7))
    assert rig.state == {"ch4": (0.4, ""), "co": (0.3, "")}
    rig.data(metric(alias=7, value=9.0))
    assert rig.state == {"ch4": (None, "alias_clash"), "co": (None, "alias_clash")}
    rig.data(metric("Inputs/CH4", 9.0))
    assert rig.state["ch4"] == (9.0, "")


def test_birth_and_data_full_of_one_alias() -> None:
    names = [metric(f"{i}", kind=None, alias=7) for i in range(4000)]
    rig = running(UNIT, *birth_metrics(), metric("Inputs/CH4", 0.4, alias=7), *names)
    rig.data(*[metric(alias=7, kind=None)] * MOST_METRICS)
    rig.data(*[metric("Inputs/CO", kind=None, alias=7)] * 2500)
    assert rig.state == {"ch4": (None, "alias_clash"), "co": (None, "alias_clash")}


def test_name_and_alias_that_contradict_each_other() -> None:
    rig = running()
    rig.wait(15, ticks=False)
    rig.data(metric("Inputs/CO", 5, INT, INT16, alias=CH4))
    assert rig.state == {"ch4": (None, "alias_clash"), "co": (None, "alias_clash")}
    assert rig.asked == [0, 15]
    rig.births()
    rig.data(metric("Inputs/New", 5, INT, INT16, alias=CH4))
    assert rig.state == {"ch4": (None, "alias_clash"), "co": (3.0, "")}


def test_datatype_of_data_must_be_that_of_the_birth() -> None:
    rig = running()
    rig.data(metric(alias=CO, value=255, at=INT, kind=INT8))
    assert rig.state["co"] == (None, "wrong_type")


@pytest.mark.parametrize("device", [UNIT, NODE])
def test_node_death(device: SparkplugDevice) -> None:
    """tck-id-operational-behavior-edge-node-termination-host-action-ndeath-node-offline, -node-tags-stale,
    -devices-offline, -devices-tags-stale; tck-id-payloads-ndeath-bdseq"""
    rig = running(device)
    rig.death(rig.bd_seq)
    assert rig.state == {"ch4": (None, "offline"), "co": (None, "offline")}
    rig.bd_seq += 1
    rig.births()
    assert rig.state == {"ch4": (0.4, ""), "co": (3.0, "")}
    assert rig.death(rig.bd_seq - 1) == Taken(reject="old_death")
    rig.data(metric(alias=CH4, value=0.6, kind=None))
    assert rig.state["ch4"] == (0.6, "")


def test_death_without_a_number_or_of_a_session_without_one_counts() -> None:
    rig = running()
    rig.death(None)
    assert rig.whys == {"offline"}
    rig.bytes("NBIRTH", message(seq=0))
    rig.seq = 0
    rig.send("DBIRTH", *birth_metrics())
    rig.death(9)
    assert rig.whys == {"offline"}


def test_silent_after_a_death_it_is_asked_now_and_then() -> None:
    rig = running()
    rig.wait(12)
    rig.death(0)
    rig.wait(200)
    assert rig.asked == [0, 32, 52, 92, 172]


def test_data_after_a_death_is_no_value_and_asks() -> None:
    rig = running()
    rig.wait(12)
    rig.death(0)
    rig.data(metric("Inputs/CH4", 1.0))
    assert rig.whys == {"no_birth"}
    rig.wait(30)
    assert len(rig.asked) > 1


def test_device_death() -> None:
    """tck-id-operational-behavior-device-ddeath, tck-id-operational-behavior-edge-node-termination-host-action-ddeath-
    devices-offline, -devices-tags-stale"""
    rig = running()
    rig.send("DDEATH", unit="other")
    assert rig.whys == {""}
    rig.send("DDEATH")
    assert rig.state == {"ch4": (None, "offline"), "co": (None, "offline")}
    rig.wait(100)
    assert rig.asked == [0]
    assert rig.whys == {"offline"}
    rig.send("DBIRTH", *birth_metrics(ch4=0.1))
    assert rig.state == {"ch4": (0.1, ""), "co": (3.0, "")}


def test_link_lost_and_back() -> None:
    """tck-id-host-topic-phid-…: all that is known of a session is stale without the link."""
    rig = running()
    rig.keep(rig.source.lost("no_connection", rig.at))
    assert rig.state == {"ch4": (None, "no_connection"), "co": (None, "no_connection")}
    rig.wait(100)
    assert rig.asked == [0], "nobody would hear it"
    rig.keep(rig.source.connected(rig.at))
    assert rig.asked == [0, 100]
    rig.data(metric(alias=CH4, value=0.6, kind=None))
    assert rig.whys == {"no_birth"}, "aliases of before are forgotten"
    rig.births()
    assert rig.whys == {""}
    rig.keep(rig.source.connected(rig.at))
    rig.data(metric(alias=CH4, value=0.6, kind=None))
    assert rig.whys == {"no_birth"}, "whatever was told of the loss"
    rig.keep(rig.source.lost("subscription_refused", rig.at))
    rig.keep(rig.source.lost("subscription_refused", rig.at))
    assert len(rig.last.readings) == 2
    rig.data(metric(alias=CH4, value=0.6, kind=None))  # was still under way
    asked = len(rig.asked)
    rig.wait(100)
    assert len(rig.asked) == asked


def test_what_does_not_change_is_asked_for() -> None:
    """Report by exception: silence of a value must not look like a value (tck-id-…-data-publish-dbirth-change)."""
    rig = running()
    rig.wait(21)
    assert rig.asked == [0, 21]
    rig.births()
    for _ in range(10):  # one of two points moves
        rig.wait(3)
        rig.data(metric(alias=CH4, value=0.5, kind=None))
    assert rig.asked[2:] == [42]
    rig.births()
    rig.wait(15)
    rig.data(metric(alias=CH4, value=0.5, kind=None), metric(alias=CO, value=0, at=INT, kind=None))
    rig.wait(15)
    assert rig.asked[3:] == []
    quiet = running(replace(UNIT, refresh_s=0))
    quiet.wait(1000)
    assert quiet.asked == [0]


def test_asking_for_what_does_not_change_is_no_trouble() -> None:
    rig = running()
    for _ in range(210):
        rig.wait(1)
        if rig.last.publish:
            rig.births()
    assert rig.asked == [21 * i for i in range(11)]


def test_retained_is_refused() -> None:
    """tck-id-payloads-nbirth-retain, tck-id-payloads-ndata-retain"""
    rig = linked()
    assert rig.send("NBIRTH", *birth_metrics(), retained=True) == Taken(reject="retained")
    assert rig.state == {}


@pytest.mark.parametrize(
    "topic",
    [
        "spBv1.0/plant/NDATA/edge2",
        "spBv1.0/other/NDATA/edge1",
        "spAv1.0/plant/NDATA/edge1",
        "spBv1.0/plant/NCMD/edge1",
        "spBv1.0/plant/NDATA/edge1/gas4",
        "spBv1.0/plant/DDATA/edge1",
        "spBv1.0/plant/DDATA/edge1/",
        "spBv1.0/plant/DDATA/edge1/gas4/x",
        "spBv1.0/STATE/host",
        "spBv1.0",
        "",
        "spBv1.0/Plant/NDATA/edge1",
    ],
)
def test_wrong_topic(topic: str) -> None:
    """tck-id-case-sensitivity-sparkplug-ids"""
    source = SparkplugSource(NODE)
    arrival = Arrival(topic=topic, payload=message(metric("Inputs/CH4", 1.0), seq=0), at=Rig().at)
    assert source.take(arrival) == Taken(reject="wrong_topic")


def test_too_large() -> None:
    data = message(metric("x" * 66_000, 1.0), seq=2)
    assert running().bytes("DDATA", data, "gas4") == Taken(reject="too_large")


# --- too much ---

MANY = [metric(alias=1000 + i, kind=None) for i in range(MOST_METRICS + 1)]
WORDY = [metric(f"{i:500}", kind=None) for i in range(MOST_NAME_BYTES // 500 + 1)]
TOO_MUCH = pytest.mark.parametrize(("much", "word"), [(MANY, "too_many_metrics"), (WORDY, "names_too_long")])


def test_as_much_as_fits() -> None:
    for most in (MANY[:-3], WORDY[:-1]):
        rig = running(UNIT, *birth_metrics()[:2], *most)
        assert rig.state == {"ch4": (0.4, ""), "co": (3.0, "")}
        assert not rig.last.reject


@TOO_MUCH
@pytest.mark.parametrize("device", [UNIT, NODE])
def test_a_birth_that_says_too_much_is_refused_and_seen(device: SparkplugDevice, much: list[bytes], word: Any) -> None:
    rig = running(device)
    rig.births(*birth_metrics(), *much)
    assert rig.last.reject == word
    assert rig.state == {"ch4": (None, word), "co": (None, word)}
    rig.wait(15)
    rig.data(metric("Inputs/CH4", 1.0))
    assert rig.whys == {word}, "there is no birth, and that is why"
    assert rig.asked == [0, 15]
    rig.death(0)
    rig.data(metric("Inputs/CH4", 1.0))
    assert rig.whys == {"no_birth"}, "another session"
    rig.births()
    assert rig.state == {"ch4": (0.4, ""), "co": (3.0, "")}


@TOO_MUCH
def test_data_that_says_too_much_is_as_good_as_lost(much: list[bytes], word: Any) -> None:
    rig = running()
    rig.wait(15)
    rig.data(metric(alias=CH4, value=66.0, kind=None), *much)
    assert rig.last.reject == word
    assert rig.state == {"ch4": (None, "seq_gap"), "co": (None, "seq_gap")}
    assert rig.asked == [0, 15]
    rig.births()
    rig.data(metric(alias=CH4, value=0.5, kind=None))
    assert rig.state == {"ch4": (0.5, ""), "co": (3.0, "")}


@TOO_MUCH
def test_what_others_of_the_node_say_too_much_is_not_looked_at(much: list[bytes], word: Any) -> None:
    rig = running()
    rig.send("DBIRTH", *much, unit="other")
    rig.send("DDATA", *much, metric(b"\xff\xfe", 1.0), unit="other")
    rig.send("NDATA", *much)
    rig.data(metric(alias=CH4, value=0.5, kind=None))
    assert rig.state == {"ch4": (0.5, ""), "co": (3.0, "")}
    rig.node_birth(*much)
    rig.send("DBIRTH", *birth_metrics(ch4=0.6))
    rig.data(metric(alias=CO, value=70, at=INT, kind=None))
    assert rig.state == {"ch4": (0.6, ""), "co": (7.0, "")}
    assert rig.asked == [0]


# --- times ---


def test_historical_is_old_and_not_heard_of() -> None:
    rig = running()
    rig.wait(18)
    sampled_ms = rig.ms - 7000
    rig.data(metric(alias=CH4, value=99.0, kind=None, ms=sampled_ms, historical=True))
    (reading,) = rig.last.readings
    assert (reading.value, reading.quality, reading.why) == (99.0, Quality.UNCERTAIN, "delayed")
    assert (reading.at.utc_ms, reading.at.mono_s) == (sampled_ms, rig.at.mono_s - 7)
    rig.data(metric(alias=CH4, value=0.5, at=F64, kind=FLOAT, historical=True))
    assert rig.state["ch4"] == (None, "delayed"), "what is wrong with an old value is no news"
    rig.data(metric(alias=CO, value=1, at=INT, kind=None))
    rig.wait(3)
    assert rig.asked == [0, 21], "an old value does not say what is now"


def test_backlog_is_old() -> None:
    rig = linked()
    rig.node_birth()
    rig.send("DBIRTH", *birth_metrics(), backlog=True)
    assert rig.whys == {"delayed"}
    rig.data(metric(alias=CH4, value=0.5, kind=None))
    assert rig.state["ch4"] == (0.5, ""), "but its aliases hold"
    rig.wait(20)
    assert rig.asked == [0]
    rig.wait(1)
    assert rig.asked == [0, 21]


def test_death_in_the_backlog() -> None:
    """While we were away it died; it may be back: its births are asked for at once."""
    rig = Rig()
    assert rig.bytes("NDEATH", message(metric("bdSeq", 0, LONG, UINT64)), backlog=True) == Taken(reject="old_death")
    rig.keep(rig.source.connected(rig.at))
    assert rig.asked == [0]
    rig.births()
    rig.bytes("NDEATH", message(metric("bdSeq", 0, LONG, UINT64)), backlog=True)
    assert rig.whys == {"offline"}, "of this session"


def test_message_that_was_held_up_is_old() -> None:
    rig = running()
    rig.wait(11)
    sent = message(metric(alias=CH4, value=0.5, kind=None), seq=2, ms=rig.ms)
    rig.wait(31, ticks=False)
    rig.bytes("DDATA", sent, "gas4")
    assert rig.state["ch4"] == (0.5, "delayed")
    assert rig.readings[-1].at.mono_s == START_S + 11
    assert rig.asked[-1] == 42
    rig.births()
    assert rig.whys == {""}


def test_value_that_lay_in_the_node_is_old_but_a_birth_is_current() -> None:
    rig = linked()
    rig.wait(100)
    rig.births(metric("Inputs/CH4", 0.4, alias=CH4, ms=START_MS), metric("Inputs/CO", 1, INT, INT16, ms=START_MS))
    assert rig.whys == {""}, "the time of a birth's value is that of its last change"
    rig.data(metric(alias=CH4, value=0.5, kind=None, ms=rig.ms - 31_000))
    assert rig.state["ch4"] == (0.5, "delayed")
    rig.data(metric(alias=CH4, value=0.6, kind=None, ms=rig.ms - 29_000))
    assert rig.state["ch4"] == (0.6, "")


def test_clock_that_is_wrong() -> None:
    """tck-id-payloads_timestamp_in_UTC"""
    rig = linked()
    rig.node_ms = 3_600_000
    rig.births()
    assert rig.state == {"ch4": (0.4, "clock_skew"), "co": (3.0, "clock_skew")}
    assert rig.health.skew_s == pytest.approx(-3600)


def test_clock_that_is_behind_is_told_from_old_messages_by_and_by() -> None:
    rig = linked(replace(UNIT, refresh_s=0))
    rig.node_ms = -3_600_000
    rig.births()
    assert rig.whys == {"delayed"}
    rig.wait(31)
    rig.data(metric(alias=CH4, value=0.5, kind=None, ms=rig.ms))
    assert rig.state["ch4"] == (0.5, "clock_skew")
    rig.births()
    assert rig.whys == {"clock_skew"}, "a rebirth changes nothing"


def test_clock_that_was_set_before_a_new_session() -> None:
    rig = running(replace(UNIT, refresh_s=0))
    rig.node_ms = 20_000
    rig.data(metric(alias=CH4, value=0.5, kind=None))
    rig.wait(60)
    rig.node_ms = -20_000
    rig.bd_seq += 1
    rig.births()
    assert rig.whys == {""}


def test_clock_that_is_set_back_is_known_by_the_answer_to_a_request() -> None:
    rig = running()
    rig.node_ms = 20_000
    rig.data(metric(alias=CH4, value=0.5, kind=None))
    rig.wait(11, ticks=False)
    rig.node_ms = -20_000
    rig.data(metric(alias=CH4, value=0.6, kind=None))
    assert rig.state["ch4"] == (0.6, "delayed"), "it may have been held up"
    assert rig.asked == [0, 11]
    rig.births()
    assert rig.whys == {""}


def test_times_that_are_none() -> None:
    for ms in (None, 0, 2**64 - 1):
        rig = linked(NODE)
        rig.bytes("NBIRTH", message(metric("Inputs/CH4", 0.4, alias=CH4, ms=ms), seq=0, ms=ms))
        rig.bytes("NDATA", message(metric(alias=CH4, value=0.5, ms=ms), seq=1, ms=ms))
        assert rig.state["ch4"] == (0.5, "")
        rig.bytes("NDATA", message(metric(alias=CH4, value=0.5, ms=ms, historical=True), seq=2, ms=ms))
        assert rig.state["ch4"] == (None, "delayed")
        rig.bytes("NDATA", message(metric(alias=CH4, value=0.6), seq=3))
        assert rig.state["ch4"] == (0.6, ""), "no time of before stands in the way"


# --- what is configured ---


def test_from_a_device_of_the_site() -> None:
    point = MqttPoint(name="ch4", path="Inputs/CH4")
    device = MqttDevice(device="pit.gas4", topic="plant/edge1/gas4", points=(point,), stale_s=60, max_skew_s=7)
    spec = make_sparkplug(device).device
    assert (spec.group, spec.edge_node, spec.unit, spec.points) == ("plant", "edge1", "gas4", (point,))
    assert (spec.refresh_s, spec.max_skew_s) == (30, 7)
    assert make_sparkplug(replace(device, topic="plant/edge1")).device.unit == ""
    for topic in ("plant", "plant/", "a/b/c/d", ""):
        with pytest.raises(ConfigError, match="must be group/edge node"):
            make_sparkplug(replace(device, topic=topic))


def test_what_cannot_be_used_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        SparkplugSource(replace(UNIT, group="", edge_node="a/b", unit="+", points=()))
    assert caught.value.problems == [
        "group: must be one part of a topic, without / + and # (got '')",
        "edge_node: must be one part of a topic, without / + and # (got 'a/b')",
        "unit: must be one part of a topic, without / + and # (got '+')",
        "points: must not be empty",
    ]
    with pytest.raises(ConfigError, match="ch4 needs a path"):
        SparkplugSource(replace(UNIT, points=(MqttPoint(name="ch4"),)))


def test_protobuf_loads_with_it_alone() -> None:
    code = (
        "import sys; from sitewarden.sensors import mqtt_words, mqtt_ingest; a = 'google.protobuf' in sys.modules\n"
        "from sitewarden.sensors import sparkplug; print(a, 'google.protobuf' in sys.modules, 'aiomqtt' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[:2] == ["False", "True"]


# --- any bytes ---

POINT_IDS = {"pit.gas4.ch4", "pit.gas4.co"}
KINDS = ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH")
some_value = st.one_of(
    st.tuples(st.sampled_from([INT]), st.integers(0, 2**32 - 1)),
    st.tuples(st.sampled_from([LONG]), st.integers(0, 2**64 - 1)),
    st.tuples(st.sampled_from([F32]), st.floats(width=32)),
    st.tuples(st.sampled_from([F64]), st.floats()),
    st.tuples(st.sampled_from([TRUTH]), st.booleans()),
    st.tuples(st.sampled_from([TEXT, BYTES, DATASET, TEMPLATE, 19]), st.binary(max_size=8)),
    st.just((F64, None)),
)
some_metric = st.builds(
    lambda name, alias, value, kind, ms, historical, null, more: metric(
        name, value[1], value[0], kind, alias=alias, ms=ms, historical=historical, null=null, more=more
    ),
    st.sampled_from(["", "Inputs/CH4", "Inputs/CO", "bdSeq", "x"]),
    st.none() | st.sampled_from([0, CH4, CO, 2**64 - 1]),
    some_value,
    st.none() | st.integers(0, 35) | st.sampled_from([DOUBLE, INT16, 2**32 - 1]),
    st.none() | st.integers(START_MS - 100_000, START_MS + 100_000) | st.integers(0, 2**64 - 1),
    st.booleans(),
    st.booleans(),
    st.sampled_from([b"", b"", quality(192), quality(0), field(9, b"\xff")]),
)
some_message = st.builds(
    lambda metrics, seq, ms: message(*metrics, seq=seq, ms=ms),
    st.lists(some_metric, max_size=5),
    st.none() | st.integers(0, 6) | st.integers(0, 300),
    st.none() | st.integers(START_MS - 100_000, START_MS + 100_000) | st.integers(0, 2**64 - 1),
)
some_step = st.tuples(
    st.sampled_from((*KINDS, *KINDS, "tick", "lost", "connected")),
    st.sampled_from(["", "gas4", "gas4", "other"]),
    some_message | some_message | st.binary(max_size=60),
    st.floats(0, 50),
    st.sampled_from([{}, {}, {}, {"retained": True}, {"backlog": True}]),
)


def play(steps: list[tuple[str, str, bytes, float, dict[str, bool]]]) -> None:
    rig = Rig()
    for kind, unit, data, pause_s, flags in steps:
        rig.at_s += pause_s
        match kind:
            case "tick":
                taken = rig.source.tick(rig.at)
            case "lost":
                taken = rig.source.lost("no_connection", rig.at)
            case "connected":
                taken = rig.source.connected(rig.at)
            case _:
                topic = f"spBv1.0/plant/{kind}/edge1" + (f"/{unit}" if unit else "")
                taken = rig.source.take(Arrival(topic=topic, payload=data, at=rig.at, **flags))
        rig.keep(taken)
        for reading in taken.readings:
            assert reading.point in POINT_IDS
            if reading.point.endswith("ch4") and reading.value is not None:
                assert 0 <= reading.value <= 100
            fresh = kind in KINDS and not flags and reading.at == rig.at
            assert reading.quality is not Quality.GOOD or fresh
    asked = zip(rig.asked, rig.asked[1:], strict=False)
    assert all(b - a >= ASK_FIRST_S - 1e-6 for a, b in asked)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(some_step, max_size=12))
def test_any_session(steps: list[Any]) -> None:
    play(steps)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.sampled_from(KINDS), st.binary(max_size=200), st.integers(0, 300), st.integers(0, 255))
def test_any_bytes_and_any_damage(kind: str, junk: bytes, place: int, flip: int) -> None:
    rig = running()
    rig.bytes(kind, junk, "gas4" if kind[0] == "D" else "")
    whole = bytearray(message(*birth_metrics(), seq=2))
    whole[place % len(whole)] ^= flip
    rig.bytes("DBIRTH", bytes(whole), "gas4")
    rig.bytes("DDATA", bytes(whole[: place % len(whole)]), "gas4")


# Births that want our memory: blocks of metrics, all of one kind
some_block = st.builds(
    lambda count, size, alias, kind: [
        metric(f"{i:0{size}}" if size else "", kind=kind, alias=None if alias is None else (alias + i) % 2**64)
        for i in range(min(count, MAX_PAYLOAD_BYTES // (size + 6)))
    ],
    st.sampled_from([1, 30, MOST_METRICS - 1, MOST_METRICS, MOST_METRICS + 1, MOST_METRICS + 1, 30_000]),
    st.sampled_from([0, 4, 4, 4, 40, 500, 60_000]),
    st.none() | st.sampled_from([0, CH4, 2**64 - 1]),
    st.none() | st.sampled_from([DOUBLE, 99]),
)
some_junk = st.sampled_from([b"", metric(b"\xff", 1.0), metric("\N{FIRE}" * 9000, 1.0), metric("Inputs/CH4", 1.0)])
some_load = st.tuples(
    st.sampled_from(["NBIRTH", "DBIRTH", "DBIRTH", "DDATA", "NDATA", "NDEATH"]),
    st.sampled_from(["gas4", "gas4", "other", "o" * 300, "\N{FIRE}" * 60]),
    st.lists(some_block, max_size=2),
    some_junk,
)
GOOD = MqttDevice(
    device="pit.good", topic="plant/edge1/good", points=(MqttPoint(name="v", path="V"),), shape="sparkplug_b"
)
APART = replace(GOOD, device="pit.apart", topic="plant/edge2/good")
EVIL = replace(GOOD, device="pit.evil", topic="plant/edge1/gas4", points=UNIT.points)


def flood(steps: list[tuple[str, str, list[list[bytes]], bytes]]) -> None:
    """Two good devices, one of them of the same edge node, beside one that floods."""
    devices = [GOOD, APART, EVIL]
    health, took = MqttHealth.of(devices), list[Reading]()
    link = MqttLink(LinkSpec(url="mqtt://h"), devices, took.extend, health)
    link._queue.begin()
    seq = {"edge1": -1, "edge2": -1}

    def send(node: str, kind: str, *metrics: bytes, unit: str = "") -> None:
        seq[node] = 0 if kind == "NBIRTH" else (seq[node] + (kind != "NDEATH")) % 256
        data = message(*metrics, seq=None if kind == "NDEATH" else seq[node], ms=now().utc_ms)
        topic = f"spBv1.0/plant/{kind}/{node}" + (f"/{unit}" if unit else "")
        link._queue.arrived(topic, data, 0, False, False, len(data))
        link._queue.drained()

    def births(node: str) -> None:
        send(node, "NBIRTH", metric("bdSeq", 0, LONG, UINT64))
        send(node, "DBIRTH", metric("V", 0.0, alias=1), unit="good")

    births("edge1")
    births("edge2")
    for number_, (kind, unit, blocks, junk) in enumerate(steps, 1):
        metrics = [junk, *(metric for block in blocks for metric in block)]
        while sum(map(len, metrics)) + 4 * len(metrics) > MAX_PAYLOAD_BYTES - 100:
            del metrics[len(metrics) // 2 :]
        send("edge1", kind, *metrics, unit="" if kind[0] == "N" else unit)
        if kind in ("NBIRTH", "NDEATH"):
            births("edge1")
        for node in ("edge1", "edge2"):
            took.clear()
            send(node, "DDATA", metric(alias=1, value=float(number_), kind=None), unit="good")
            device = "pit.good" if node == "edge1" else "pit.apart"
            found = [(r.value, r.why) for r in took if r.point == f"{device}.v"]
            assert found == [(number_, "")], (kind, unit, len(metrics))
        sources: Any = [one.source for one in link._subscriptions.listed.values()]
        for source in sources:
            held = source._unit
            if held is not None:
                assert len(held.types) <= MOST_METRICS
                assert len(held.aliases) <= MOST_METRICS
                assert sum(len(name.encode()) for name in held.types) <= MOST_NAME_BYTES
            assert set(source._heard_s) <= {point.name for point in source.device.points}
    assert not any(one.defect for one in link._subscriptions.listed.values())
    assert set(health.devices["pit.evil"].rejects) <= {"too_many_metrics", "names_too_long", "not_sparkplug"}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(some_load, max_size=6))
def test_hostile_births_are_bounded_and_harm_nobody_else(steps: list[Any]) -> None:
    async def play_them() -> None:
        flood(steps)

    asyncio.run(play_them())


@pytest.mark.soak
def test_any_session_for_long() -> None:
    """Long form: SITEWARDEN_SOAK_S seconds."""
    end_s = time.monotonic() + float(os.environ.get("SITEWARDEN_SOAK_S", "60"))

    @settings(max_examples=2000, deadline=None, derandomize=False)
    @given(st.lists(some_step, max_size=40))
    def run(steps: list[Any]) -> None:
        play(steps)

    while time.monotonic() < end_s:
        run()


# --- a real broker and a real edge node ---


class EdgeNode:
    """A Sparkplug edge node with one device, on paho. `cut` pulls its plug: the broker publishes its Will."""

    def __init__(self, port: int, bd_seq: int) -> None:
        self.bd_seq = bd_seq
        self.seq = 0
        self.ch4 = 0.4
        self.rebirths = 0
        self.lock = threading.Lock()
        self.client = mqtt.Client(CallbackAPIVersion.VERSION2)
        self.client.will_set("spBv1.0/plant/NDEATH/edge1", self.death(), qos=1)
        self.client.on_connect = self.on_connect
        self.client.on_message = self.on_message
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def death(self) -> bytes:
        return message(metric("bdSeq", self.bd_seq, LONG, UINT64, ms=now().utc_ms), ms=now().utc_ms)

    def on_connect(self, client: mqtt.Client, *_: Any) -> None:
        client.subscribe("spBv1.0/plant/NCMD/edge1", qos=1)
        self.births()

    def on_message(self, _client: mqtt.Client, _data: Any, arrived: mqtt.MQTTMessage) -> None:
        request = decode(bytes(arrived.payload))
        assert request is not None
        if [(m.name, m.raw) for m in request.metrics] == [("Node Control/Rebirth", True)]:
            self.rebirths += 1
            self.births()

    def births(self) -> None:
        with self.lock:
            self.seq = -1
            bd_seq = metric("bdSeq", self.bd_seq, LONG, UINT64, ms=now().utc_ms)
            self.send("NBIRTH", "", bd_seq, metric("Node Control/Rebirth", False, TRUTH, BOOL, ms=now().utc_ms))
            self.send("DBIRTH", "/gas4", *birth_metrics(self.ch4))

    def data(self, ch4: float, lost: int = 0) -> None:
        with self.lock:
            self.ch4 = ch4
            self.seq += lost
            self.send("DDATA", "/gas4", metric(alias=CH4, value=ch4, kind=None, ms=now().utc_ms))

    def send(self, kind: str, unit: str, *metrics: bytes) -> None:
        self.seq = (self.seq + 1) % 256
        data = message(*metrics, seq=self.seq, ms=now().utc_ms)
        self.client.publish(f"spBv1.0/plant/{kind}/edge1{unit}", data, qos=0)

    def cut(self) -> None:
        self.client.loop_stop()
        wire = self.client.socket()
        assert wire is not None
        wire.close()

    def leave(self) -> None:
        self.client.publish("spBv1.0/plant/NDEATH/edge1", self.death(), qos=1).wait_for_publish(30)
        self.client.disconnect()
        self.client.loop_stop()


@dataclass
class Host:
    """The smallest link: paho's messages to the source, its requests back."""

    client: mqtt.Client
    source: SparkplugSource
    arrivals: queue.Queue[Arrival]
    state: dict[str, tuple[float | None, str]]

    def until(self, wanted: dict[str, tuple[float | None, str]], bound_s: float = 60) -> None:
        end_s = mono_s() + bound_s
        while self.state != wanted:
            assert mono_s() < end_s, f"not within {bound_s:g} s: {wanted} (last: {self.state})"
            with contextlib.suppress(queue.Empty):
                self.take(self.source.take(self.arrivals.get(timeout=0.1)))
            self.take(self.source.tick(now()))

    def take(self, taken: Taken) -> None:
        assert taken.reject in ("", "old_death"), taken
        for reading in taken.readings:
            self.state[reading.point.removeprefix("pit.gas4.")] = (reading.value, reading.why)
        for outgoing in taken.publish:
            self.client.publish(outgoing.topic, outgoing.payload, qos=outgoing.qos)


@pytest.fixture
def broker_port(tmp_path: Path) -> Iterator[int]:
    program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if program is None:
        assert not os.environ.get("CI"), "mosquitto is not installed: apt-get install mosquitto"
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    port = free_port()
    config = tmp_path / "mosquitto.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n")
    process = subprocess.Popen([program, "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        end_s = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, "mosquitto ended at once"
            assert time.monotonic() < end_s, "mosquitto does not listen"
            time.sleep(0.05)
        yield port
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def host(port: int) -> Iterator[Host]:
    client = mqtt.Client(CallbackAPIVersion.VERSION2)
    made = Host(client=client, source=SparkplugSource(UNIT), arrivals=queue.Queue(), state={})
    ready = threading.Event()
    client.on_message = lambda _c, _d, m: made.arrivals.put(
        Arrival(topic=m.topic, payload=bytes(m.payload), at=now(), retained=m.retain)
    )

    def subscribe(client: mqtt.Client, *_: Any) -> None:
        client.subscribe([(topic, 1) for topic in made.source.subscriptions()])

    client.on_connect = subscribe
    client.on_subscribe = lambda *_: ready.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        assert ready.wait(30), "no subscription"
        made.take(made.source.connected(now()))
        yield made
    finally:
        client.disconnect()
        client.loop_stop()


def test_edge_node_on_a_real_broker(broker_port: int) -> None:
    """Births asked for, data, a lost message, a pulled plug with a real Will, and a return before the Will is seen."""
    first = EdgeNode(broker_port, bd_seq=7)
    with host(broker_port) as gateway:
        gateway.until({"ch4": (0.4, ""), "co": (3.0, "")})
        first.data(0.9)
        gateway.until({"ch4": (0.9, ""), "co": (3.0, "")})
        before = first.rebirths
        first.data(66.0, lost=1)
        gateway.until({"ch4": (None, "seq_gap"), "co": (None, "seq_gap")})
        gateway.until({"ch4": (66.0, ""), "co": (3.0, "")})
        assert first.rebirths > before
        first.cut()
        gateway.until({"ch4": (None, "offline"), "co": (None, "offline")})
        second = EdgeNode(broker_port, bd_seq=8)
        gateway.until({"ch4": (0.4, ""), "co": (3.0, "")})
        third = EdgeNode(broker_port, bd_seq=9)
        third.data(1.5)
        gateway.until({"ch4": (1.5, ""), "co": (3.0, "")})
        second.cut()  # its Will is of a session that is over
        third.data(2.5)
        gateway.until({"ch4": (2.5, ""), "co": (3.0, "")})
        third.leave()
        gateway.until({"ch4": (None, "offline"), "co": (None, "offline")})
