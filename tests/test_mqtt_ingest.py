"""Payloads as tables, and the link against a real mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from sitewarden.errors import ConfigError
from sitewarden.sensors.mqtt_ingest import (
    MAX_PAYLOAD_BYTES,
    MESSAGE_BYTES,
    RESERVED_BYTES,
    TOPIC_BYTES,
    TOPIC_MESSAGES,
    WAITING_BYTES,
    MqttCredentials,
    MqttDevice,
    MqttHealth,
    MqttPoint,
    Reject,
    _Arrived,
    _Listener,
    parse,
    run_mqtt,
)
from sitewarden.words import ClockState, Instant, Quality, Reading

AT = Instant(utc_ms=1_800_000_000_000, mono_s=5.0, boot="b", clock=ClockState.SYNCED)
GAS4 = MqttDevice(
    device="sewage_pit.gas4",
    topic="devices/gas4",
    points=(
        MqttPoint(name="ch4", path="ch4", low=0, high=100),
        MqttPoint(name="co", path="more.co", scale=Decimal("0.1")),
    ),
    status_path="status",
)


def payload(**changes: Any) -> bytes:
    return json.dumps({"ch4": 0.4, "more": {"co": 3}, "status": "ok", **changes}).encode()


def seen(data: bytes, device: MqttDevice = GAS4) -> dict[str, tuple[float | None, str]]:
    parsed = parse(device, data, AT, retained=False)
    assert isinstance(parsed, list), parsed
    assert all((r.quality is Quality.GOOD) == (r.why == "") == (r.value is not None) for r in parsed)
    assert all(r.at is AT for r in parsed)
    return {r.point.removeprefix("sewage_pit.gas4."): (r.value, r.why) for r in parsed}


def test_good_payload() -> None:
    assert seen(payload(other=[1, "x"])) == {"ch4": (0.4, ""), "co": (0.3, "")}
    assert seen(payload(ch4=7)) == {"ch4": (7.0, ""), "co": (0.3, "")}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("NaN", "not_a_number"),
        ("Infinity", "not_a_number"),
        ("-Infinity", "not_a_number"),
        ("1e999", "not_a_number"),
        ("1" + "0" * 400, "not_a_number"),
        ("null", "no_value"),
        ('"0.4"', "wrong_type"),
        ("true", "wrong_type"),
        ("[0.4]", "wrong_type"),
        ("{}", "wrong_type"),
        ("-0.1", "out_of_range"),
        ("100.1", "out_of_range"),
    ],
)
def test_bad_number_spoils_only_its_point(value: str, why: str) -> None:
    data = f'{{"ch4": {value}, "more": {{"co": {value if why == "not_a_number" else 3}}}, "status": "ok"}}'.encode()
    assert seen(data)["ch4"] == (None, why)
    assert seen(data)["co"] == ((None, why) if why == "not_a_number" else (0.3, ""))


def test_missing_paths() -> None:
    assert seen(b'{"status": "ok"}') == {"ch4": (None, "missing"), "co": (None, "missing")}
    assert seen(payload(more=[3]))["co"] == (None, "missing")


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("warm_up", "status_warm_up"),
        ("Fault", "status_fault"),
        ("out of order!", "status_unknown"),
        ("x" * 33, "status_unknown"),
        (3, "status_3"),
        (None, "status_unknown"),
        (["ok"], "status_unknown"),
    ],
)
def test_status_spoils_every_point(status: object, why: str) -> None:
    assert seen(payload(status=status)) == {"ch4": (None, why), "co": (None, why)}


def test_status_may_be_missing_a_number_or_not_asked_for() -> None:
    assert set(seen(b'{"ch4": 1}').values()) == {(None, "status_missing")}
    assert seen(payload(status=1), replace(GAS4, status_ok=frozenset({"1"})))["ch4"] == (0.4, "")
    assert seen(payload(status="broken"), replace(GAS4, status_path=None))["ch4"] == (0.4, "")


REJECTED = {
    "not_utf8": b'{"ch4": "\xff"}',
    "not_json": b"\x00\x01garbage",
    "too_large": b'{"ch4": 1, "x": "' + b"x" * MAX_PAYLOAD_BYTES + b'"}',
    "not_an_object": b"[0.4]",
    "duplicate_key": b'{"ch4": 0.4, "ch4": 90, "status": "ok"}',
}
MORE_REJECTED = [
    (b"", "not_json"),
    (b'{"ch4": 0.4', "not_json"),
    (b"[" * 60_000, "not_json"),
    (b'{"ch4": ' + b"9" * 5000 + b"}", "not_json"),
    ('{"ch4": 0.4}'.encode("utf-16"), "not_utf8"),
    (b"null", "not_an_object"),
    (b"0.4", "not_an_object"),
]


@pytest.mark.parametrize(("data", "reason"), [*((d, r) for r, d in REJECTED.items()), *MORE_REJECTED])
def test_rejects(data: bytes, reason: str) -> None:
    assert parse(GAS4, data, AT, retained=False) == Reject(reason=reason)


def test_retained_is_not_fresh() -> None:
    assert parse(GAS4, payload(), AT, retained=True) == Reject(reason="retained")


# --- with a broker ---


class Broker:
    """mosquitto on a free loopback port, with one user."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program = program
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        passwords = folder / "passwords"
        passwords.write_text("gw:secret\n", "utf-8")
        passwords.chmod(0o600)
        subprocess.run(
            [shutil.which("mosquitto_passwd") or "/usr/bin/mosquitto_passwd", "-U", str(passwords)], check=True
        )
        lines = [f"listener {self.port} 127.0.0.1", "allow_anonymous false", f"password_file {passwords}"]
        if os.getuid() == 0:
            lines.append("user root")
        (folder / "mosquitto.conf").write_text("\n".join(lines) + "\n", "utf-8")

    async def start(self) -> None:
        log = (self.folder / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                [self.program, "-c", str(self.folder / "mosquitto.conf")], stdout=log, stderr=log
            )
        await until(self._listens, f"mosquitto: {(self.folder / 'log').read_text()}")

    def _listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.folder / "log").read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(10)
            self.process = None

    async def publish(self, data: bytes, topic: str = "devices/gas4", *, retain: bool = False) -> None:
        async with aiomqtt.Client("127.0.0.1", self.port, username="gw", password="secret") as client:
            await client.publish(topic, data, qos=1, retain=retain)


@pytest.fixture
def broker(tmp_path: Path) -> Any:
    program = shutil.which("mosquitto") or shutil.which("/usr/sbin/mosquitto")
    if program is None:
        assert not os.environ.get("CI"), "mosquitto is not installed: apt-get install mosquitto"
        pytest.skip("mosquitto is not installed: apt install mosquitto")
    broker = Broker(program, tmp_path)
    yield broker
    broker.stop()


async def until(condition: Callable[[], bool], what: str, bound_s: float = 60) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + bound_s
    while not condition():
        assert loop.time() < end_s, f"not within {bound_s} s: {what}"
        await asyncio.sleep(0.01)


class Watch:
    def __init__(self, *devices: MqttDevice) -> None:
        self.health = MqttHealth.of(devices)
        self.readings: list[Reading] = []

    def take(self, readings: list[Reading]) -> None:
        self.readings += readings

    @property
    def gas4(self) -> Any:
        return self.health.devices["sewage_pit.gas4"]


@contextlib.asynccontextmanager
async def listening(port: int, *devices: MqttDevice, password: str = "secret") -> AsyncIterator[Watch]:
    watch = Watch(*devices)
    known = MqttCredentials(username="gw", password=password)
    task = asyncio.create_task(
        run_mqtt(f"mqtt://127.0.0.1:{port}", known, devices, watch.take, watch.health), name="mqtt"
    )
    try:
        yield watch
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_values_and_counted_rejects(broker: Broker) -> None:
    await broker.start()
    await broker.publish(payload(ch4=66), retain=True)  # before we listen
    twin = replace(GAS4, device="sewage_pit.twin", status_path=None, points=(MqttPoint(name="ch4", path="ch4"),))
    async with listening(broker.port, GAS4, twin) as watch:
        await until(lambda: watch.gas4.rejects["retained"] == 1, "the retained message")
        assert watch.readings == []
        assert watch.gas4.state(0) == "fault"  # nothing yet
        for data in REJECTED.values():
            await broker.publish(data)
        await broker.publish(payload(), "devices/other")
        await broker.publish(payload(status="warm_up"))
        await broker.publish(payload())
        await until(lambda: len(watch.readings) == 6, "two messages")
        assert {r: watch.gas4.rejects[r] for r in REJECTED} == dict.fromkeys(REJECTED, 1)
        assert watch.gas4.messages == 2
        at = watch.readings[-1].at
        assert (watch.gas4.last_message_at, watch.gas4.state(at.mono_s)) == (watch.readings[-2].at, "ok")
        assert watch.gas4.state(at.mono_s + GAS4.stale_s + 1) == "fault"
    assert [(r.point, r.value, r.why) for r in watch.readings] == [
        ("sewage_pit.gas4.ch4", None, "status_warm_up"),
        ("sewage_pit.gas4.co", None, "status_warm_up"),
        ("sewage_pit.twin.ch4", 0.4, ""),
        ("sewage_pit.gas4.ch4", 0.4, ""),
        ("sewage_pit.gas4.co", 0.3, ""),
        ("sewage_pit.twin.ch4", 0.4, ""),
    ]


FLOOD = """
import sys
import paho.mqtt.client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.username_pw_set("gw", "secret")
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
for _ in range(400):  # mosquitto itself drops what exceeds 1000 messages of one subscriber
    last = client.publish("devices/gas4", b"{" + b" " * int(sys.argv[2]), qos=0)
last.wait_for_publish(60)
client.disconnect()
client.loop_stop()
"""
NEIGHBOUR = MqttDevice(device="sewage_pit.n", topic="devices/n", points=(MqttPoint(name="n", path="n"),))


@pytest.mark.parametrize(
    ("size", "reason", "begins"),
    [(62_000, "flooded", "a flood, flooded"), (1_000_000, "too_large", "a flood, too_large")],
)
async def test_flood_costs_neither_memory_nor_the_neighbour(
    size: int, reason: str, begins: str, broker: Broker, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The flood stands still in the queue, as on a machine that cannot keep up, while the neighbour speaks."""
    monkeypatch.setattr("sitewarden.sensors.mqtt_ingest.FLOOD_PAUSE_S", 4.0)
    monkeypatch.setattr("sitewarden.sensors.mqtt_ingest.parse", _slow(GAS4.device))
    caplog.set_level("INFO", "sitewarden.sensors.mqtt_ingest")
    await broker.start()
    async with listening(broker.port, GAS4, NEIGHBOUR) as watch:
        await until(lambda: watch.health.connected, "the link")
        neighbour = watch.health.devices["sewage_pit.n"]
        flooder = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOOD, str(broker.port), str(size))
        spoken = 1
        while flooder.returncode is None:
            await broker.publish(b'{"n": 1}', NEIGHBOUR.topic)
            spoken += 1
        assert flooder.returncode == 0
        await until(lambda: watch.gas4.rejects[reason] > 50, "drops")
        await broker.publish(b'{"n": -1}', NEIGHBOUR.topic)
        await until(lambda: [r.value for r in watch.readings if r.point.endswith("n.n")][-1:] == [-1], "the last")
        assert neighbour.messages == spoken
        assert neighbour.rejects == {}
        assert watch.health.most_waiting_bytes <= TOPIC_BYTES + RESERVED_BYTES
        await until(lambda: watch.health.waiting_bytes == 0, "nothing is left")
        await until(lambda: "the flood is over" in caplog.text, "the end of the flood")
        assert caplog.text.count(begins) == caplog.text.count("the flood is over") == 1
        assert len(caplog.records) == 2, caplog.text
        assert f"{watch.gas4.rejects[reason]} messages were dropped" in caplog.text


def _slow(device: str) -> Callable[..., Any]:
    def slow(of: MqttDevice, *rest: Any) -> Any:
        if of.device == device:
            time.sleep(0.002)  # the loop stands still, and the socket fills
        return parse(of, *rest)

    return slow


def arrivals(*devices: MqttDevice) -> tuple[_Listener, asyncio.Queue[aiomqtt.Message]]:
    listener = _Listener("mqtt://h", None, devices, list[Reading]().extend, MqttHealth.of(devices))
    return listener, listener.arrivals()


def message(topic: str, size: int) -> aiomqtt.Message:
    return aiomqtt.Message(topic, b"x" * size, 0, False, 0, None)


@pytest.mark.parametrize(
    ("size", "kept"),
    [
        (0, TOPIC_MESSAGES),
        (1000, TOPIC_MESSAGES),
        (62_000, TOPIC_BYTES // (62_000 + MESSAGE_BYTES)),
        (MAX_PAYLOAD_BYTES, TOPIC_BYTES // (MAX_PAYLOAD_BYTES + MESSAGE_BYTES)),
        (MAX_PAYLOAD_BYTES + 1, 0),
    ],
)
def test_share_of_a_topic(size: int, kept: int) -> None:
    listener, queue = arrivals(GAS4)
    for _ in range(TOPIC_MESSAGES + 20):
        queue.put_nowait(message(GAS4.topic, size))
    assert queue.qsize() == kept
    reason = "too_large" if size > MAX_PAYLOAD_BYTES else "flooded"
    assert listener.health.devices[GAS4.device].rejects == {reason: TOPIC_MESSAGES + 20 - kept}
    assert listener.health.waiting_bytes == kept * (size + MESSAGE_BYTES)
    for _ in range(kept):
        queue.get_nowait()
    assert listener.health.waiting_bytes == 0
    queue.put_nowait(message(GAS4.topic, 0))
    assert queue.qsize() == 1


def test_total_is_bounded_and_a_quiet_topic_still_has_room() -> None:
    floods = [replace(NEIGHBOUR, device=f"sewage_pit.f{i}", topic=f"f/{i}") for i in range(20)]
    listener, queue = arrivals(NEIGHBOUR, *floods)
    for _ in range(20):
        for device in floods:
            queue.put_nowait(message(device.topic, 60_000))
    left = WAITING_BYTES - listener.health.waiting_bytes
    assert 0 <= left < 60_000 + MESSAGE_BYTES
    queue.put_nowait(message(floods[0].topic, left - MESSAGE_BYTES))
    assert listener.health.waiting_bytes == WAITING_BYTES
    for _ in range(3):
        queue.put_nowait(message(NEIGHBOUR.topic, 500))
    assert listener.health.devices[NEIGHBOUR.device].rejects == {}
    queue.put_nowait(message("devices/nobody_asked", 10))
    assert queue.qsize() == WAITING_BYTES // (60_000 + MESSAGE_BYTES) + 1 + 3
    assert listener.arrivals().qsize() == listener.health.waiting_bytes == 0  # the next connection starts afresh


def test_reading_has_the_moment_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    readings: list[Reading] = []
    listener = _Listener("mqtt://h", None, [GAS4], readings.extend, MqttHealth.of([GAS4]))
    queue = listener.arrivals()
    monkeypatch.setattr("sitewarden.sensors.mqtt_ingest.now", lambda: AT)
    queue.put_nowait(aiomqtt.Message(GAS4.topic, payload(), 0, False, 0, None))
    monkeypatch.undo()
    arrived = queue.get_nowait()
    assert isinstance(arrived, _Arrived)
    listener.take(arrived)
    assert [r.at for r in readings] == [AT, AT]
    assert listener.health.devices[GAS4.device].last_message_at is AT


async def test_broker_down_at_start_and_gone_in_between(broker: Broker) -> None:
    async with listening(broker.port, GAS4) as watch:
        for good in (1, 2):
            await until(lambda n=good: len(watch.readings) == 4 * n - 2, "bad readings at the loss, once")
            assert {r.why for r in watch.readings[-2:]} == {"no_connection"}
            assert str(broker.port) in watch.health.last_error
            await broker.start()
            await until(lambda: watch.health.connected, "the link")
            await broker.publish(payload())
            await until(lambda n=good: len(watch.readings) == 4 * n, "a value")
            assert watch.readings[-1].value == 0.3
            beat_s = watch.health.beat_s
            await until(lambda n=beat_s: watch.health.beat_s > n, "a beat")
            broker.stop()
        assert watch.health.reconnects == 1


async def test_loss_is_told_once_however_often_it_is_tried() -> None:
    tried = 0

    def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tried
        tried += 1
        writer.write(b"\x20\x02\x00\x03")  # CONNACK: server unavailable
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server, listening(server.sockets[0].getsockname()[1], GAS4) as watch:
        await until(lambda: tried >= 3, "three attempts")
        assert [r.why for r in watch.readings] == ["no_connection"] * 2
        assert not watch.health.connected


async def test_wrong_password_is_a_visible_fault(broker: Broker) -> None:
    await broker.start()
    async with listening(broker.port, GAS4, password="wrong") as watch:
        await until(lambda: len(watch.readings) == 2, "bad readings")
        assert "not authori" in watch.health.last_error.lower()
        assert "wrong" not in watch.health.last_error
        assert "wrong" not in repr(MqttCredentials(username="gw", password="wrong"))


async def test_what_the_sink_raises_ends_the_task(broker: Broker) -> None:
    def fail(readings: list[Reading]) -> None:
        raise RuntimeError("pipeline")

    health = MqttHealth.of([GAS4])
    run = run_mqtt(f"mqtt://127.0.0.1:{broker.port}", None, [GAS4], fail, health)
    with pytest.raises(ExceptionGroup) as caught:
        await asyncio.wait_for(run, 30)
    assert caught.group_contains(RuntimeError, match="pipeline")


@pytest.mark.parametrize(
    ("url", "topic", "problem"),
    [
        ("http://h", "t", "url: must be mqtt://host[:port] or mqtts://host[:port]"),
        ("mqtt://", "t", "url: must be mqtt://host[:port] or mqtts://host[:port]"),
        ("mqtt://h:99999", "t", "url: must be mqtt://host[:port] or mqtts://host[:port]"),
        ("mqtt://gw:pw@h", "t", "url: must not hold a user or password; they come from the credentials"),
        ("mqtt://h", "a/#", "devices[0].topic: must be one topic without + and # (got 'a/#')"),
    ],
)
async def test_what_cannot_be_used_is_refused_before_anything_is_opened(url: str, topic: str, problem: str) -> None:
    device = replace(GAS4, topic=topic)
    with pytest.raises(ConfigError) as caught:
        await run_mqtt(url, None, [device], list[Reading]().extend, MqttHealth.of([device]))
    assert caught.value.problems == [problem]


def test_modbus_is_not_loaded_with_it() -> None:
    code = "import sys; from sitewarden.sensors import mqtt_ingest; print('pymodbus' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
