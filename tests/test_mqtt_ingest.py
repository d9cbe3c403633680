"""The link to a broker: order, acknowledgements, backlog, floods, losses. Mostly against a real mosquitto."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sitewarden.edge.app import _ingest
from sitewarden.errors import ConfigError
from sitewarden.sensors import mqtt_delivery, mqtt_lanes, mqtt_link, mqtt_wire
from sitewarden.sensors.mqtt_ingest import (
    LinkSpec,
    MqttCredentials,
    MqttDevice,
    MqttHealth,
    MqttLink,
    MqttPoint,
    run_mqtt,
)
from sitewarden.sensors.mqtt_lanes import (
    MESSAGE_BYTES,
    RESERVED_BYTES,
    TOPIC_BYTES,
    TOPIC_MESSAGES,
    WAITING_BYTES,
    Lane,
    Lanes,
    Listed,
)
from sitewarden.sensors.mqtt_sources import JsonSource, make_source
from sitewarden.sensors.mqtt_wire import MOST_BYTES
from sitewarden.sensors.mqtt_words import MAX_PAYLOAD_BYTES, Arrival, Taken
from sitewarden.sync.history import History
from sitewarden.tests.peers.mosquitto import Mosquitto, Wire, running, until
from sitewarden.words import ClockState, Quality, Reading, now, set_clock_state

KNOWN = MqttCredentials(username="gw", password="secret")
GAS4 = MqttDevice(
    device="sewage_pit.gas4",
    topic="devices/gas4",
    points=(MqttPoint(name="ch4", path="ch4", low=0, high=100), MqttPoint(name="co", path="more.co")),
    status_path="status",
)
NEIGHBOUR = MqttDevice(device="sewage_pit.n", topic="devices/n", points=(MqttPoint(name="n", path="n"),))
TIMED = replace(NEIGHBOUR, time_path="ts")


@pytest.fixture(autouse=True)
def synced() -> Any:
    """Our own clock can be believed."""
    set_clock_state(ClockState.SYNCED)
    yield
    set_clock_state(ClockState.UNSYNCED)


def payload(**changes: Any) -> bytes:
    return json.dumps({"ch4": 0.4, "more": {"co": 3}, "status": "ok", **changes}).encode()


def numbered(*numbers: int, age_s: float = 0) -> list[bytes]:
    return [json.dumps({"n": number, "ts": time.time() - age_s}).encode() for number in numbers]


class Watch:
    """Readings of a link, and its health."""

    def __init__(self, *devices: MqttDevice) -> None:
        self.health = MqttHealth.of(devices)
        self.readings: list[Reading] = []
        self.late: list[Reading] = []
        self.fail = 0

    def take(self, readings: list[Reading]) -> None:
        if self.fail:
            self.fail -= 1
            raise RuntimeError("pipeline")
        self.readings += readings

    def take_late(self, readings: list[Reading]) -> None:
        self.late += readings

    @property
    def values(self) -> list[float]:
        return [r.value for r in self.readings if r.value is not None]

    @property
    def late_values(self) -> list[float]:
        return [r.value for r in self.late if r.value is not None]

    @property
    def gas4(self) -> Any:
        return self.health.devices["sewage_pit.gas4"]

    @property
    def n(self) -> Any:
        return self.health.devices["sewage_pit.n"]


@contextlib.asynccontextmanager
async def listening(port: int, *devices: MqttDevice, password: str = "secret") -> AsyncIterator[Watch]:
    """A link that the broker keeps nothing for."""
    watch = Watch(*devices)
    known = MqttCredentials(username="gw", password=password)
    run = run_mqtt(f"mqtt://127.0.0.1:{port}", known, devices, watch.take, watch.health)
    async with _task(run):
        yield watch


@contextlib.asynccontextmanager
async def linked(
    port: int,
    *devices: MqttDevice,
    watch: Watch | None = None,
    stored: Any = None,
    late: bool = True,
    full: Callable[[], bool] = lambda: False,
    **spec: Any,
) -> AsyncIterator[tuple[MqttLink, Watch]]:
    """A link with a session that the broker keeps, connected."""
    watch = watch or Watch(*devices)
    ack = {} if stored is None else {"ack": "stored"}
    whole = LinkSpec(
        **{"url": f"mqtt://127.0.0.1:{port}", "credentials": KNOWN, "client_id": "sitewarden-t", **ack, **spec}
    )
    old = watch.take_late if late else None
    link = MqttLink(whole, devices, watch.take, watch.health, stored=stored, late=old, full=full)
    async with _task(link.run()):
        await until(lambda: watch.health.connected, lambda: f"the link: {watch.health}")
        yield link, watch


@contextlib.asynccontextmanager
async def _task(run: Any) -> AsyncIterator[asyncio.Task[Any]]:
    task = asyncio.create_task(run, name="link")
    try:
        yield task
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


VERSIONS = pytest.mark.parametrize("version", ["3.1.1", "5"])


# --- values, rejects, floods ---

REJECTED = {
    "not_utf8": b'{"ch4": "\xff"}',
    "not_json": b"\x00\x01garbage",
    "too_large": b'{"ch4": 1, "x": "' + b"x" * MAX_PAYLOAD_BYTES + b'"}',
    "not_an_object": b"[0.4]",
    "duplicate_key": b'{"ch4": 0.4, "ch4": 90, "status": "ok"}',
}


async def test_values_and_counted_rejects(tmp_path: Path) -> None:
    twin = replace(GAS4, device="sewage_pit.twin", status_path=None, points=(MqttPoint(name="ch4", path="ch4"),))
    async with running(tmp_path) as broker:
        await broker.publish(GAS4.topic, payload(ch4=66), args=("-q", "1", "-r"))  # before we listen
        async with listening(broker.port, GAS4, twin) as watch:
            await until(lambda: watch.gas4.rejects["retained"] == 1, "the retained message")
            assert watch.readings == []
            assert watch.gas4.state(0) == "fault"  # nothing yet
            await broker.publish(GAS4.topic, *REJECTED.values())
            await broker.publish("devices/other", payload())
            await broker.publish(GAS4.topic, payload(status="warm_up"), payload())
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
        ("sewage_pit.gas4.co", 3.0, ""),
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


@pytest.mark.parametrize(
    ("size", "reason", "begins"),
    [(62_000, "flooded", "a flood, flooded"), (1_000_000, "too_large", "a flood, too_large")],
)
async def test_flood_costs_neither_memory_nor_the_neighbour(
    size: int, reason: str, begins: str, tmp_path: Path, caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """The flood stands still in the queue, as on a machine that cannot keep up, while the neighbour speaks."""
    monkeypatch.setattr("sitewarden.sensors.mqtt_lanes.FLOOD_PAUSE_S", 4.0)
    monkeypatch.setattr(JsonSource, "take", _slow(JsonSource.take))
    monkeypatch.setattr(mqtt_link, "connect", _wide)
    caplog.set_level("INFO", "sitewarden.sensors")
    async with running(tmp_path) as broker, listening(broker.port, GAS4, NEIGHBOUR) as watch:
        await until(lambda: watch.health.connected, "the link")
        await broker.publish(NEIGHBOUR.topic, b'{"n": 1}')
        await until(
            lambda: watch.n.messages == 1, "the neighbour, before the flood: one that floods alone is waited for"
        )
        flooder = await asyncio.create_subprocess_exec(sys.executable, "-c", FLOOD, str(broker.port), str(size))
        spoken = 2
        while flooder.returncode is None:
            await broker.publish(NEIGHBOUR.topic, b'{"n": 1}')
            spoken += 1
        assert flooder.returncode == 0
        await until(lambda: watch.gas4.rejects[reason] > 50, lambda: f"drops: {watch.health}")
        await broker.publish(NEIGHBOUR.topic, b'{"n": -1}')
        await until(lambda: [r.value for r in watch.readings if r.point.endswith("n.n")][-1:] == [-1], "the last")
        assert watch.n.messages == spoken
        assert watch.n.rejects == {}
        assert watch.health.most_waiting_bytes <= TOPIC_BYTES + RESERVED_BYTES
        await until(lambda: watch.health.waiting_bytes == 0, "nothing is left")
        await until(lambda: "the flood is over" in caplog.text, "the end of the flood")
        assert caplog.text.count(begins) == caplog.text.count("the flood is over") == 1
        assert len(caplog.records) == 2, caplog.text
        assert f"{watch.gas4.rejects[reason]} messages were dropped" in caplog.text


async def _wide(spec: LinkSpec) -> socket.socket:
    """Else the kernel lets only two messages come for each that is taken, and nothing overflows."""
    sock = await mqtt_wire.connect(spec)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return sock


def _slow(take: Callable[[JsonSource, Arrival], Taken]) -> Callable[[JsonSource, Arrival], Taken]:
    def slow(self: JsonSource, arrival: Arrival) -> Taken:
        if self.device.device == GAS4.device:
            time.sleep(0.02)  # the loop stands still, and the socket fills
        return take(self, arrival)

    return slow


ROUND = """
import sys
import paho.mqtt.client as mqtt
client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
client.max_inflight_messages_set(1000)
client.username_pw_set("gw", "secret")
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_start()
for number in range(4000):
    last = client.publish(f"devices/{number % 8}", b'{"n": 1}', qos=1)
last.wait_for_publish(60)
client.disconnect()
client.loop_stop()
"""


async def test_flood_of_all_waits_at_the_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody floods the others when all are too fast: nothing is dropped."""
    devices = [replace(NEIGHBOUR, device=f"a.d{i}", topic=f"devices/{i}") for i in range(8)]
    monkeypatch.setattr(JsonSource, "take", _always_slow(JsonSource.take))
    conf = ("max_queued_messages 0", "max_inflight_messages 0")
    async with running(tmp_path, *conf) as broker, listening(broker.port, *devices) as watch:
        await until(lambda: watch.health.connected, "the link")
        publisher = await asyncio.create_subprocess_exec(sys.executable, "-c", ROUND, str(broker.port))
        await until(lambda: watch.health.messages == 4000, lambda: str(watch.health.messages))
        await until(lambda: len(watch.readings) == 4000, lambda: str(watch.health))
        assert await publisher.wait() == 0
    assert [d.rejects for d in watch.health.devices.values()] == [{}] * 8
    assert watch.health.most_waiting_bytes < WAITING_BYTES


def _always_slow(take: Callable[[JsonSource, Arrival], Taken]) -> Callable[[JsonSource, Arrival], Taken]:
    def slow(self: JsonSource, arrival: Arrival) -> Taken:
        time.sleep(0.001)
        return take(self, arrival)

    return slow


def lanes(*devices: MqttDevice) -> tuple[Lanes, MqttHealth]:
    health = MqttHealth.of(devices)
    listed = []
    for device in devices:
        source = make_source(device)
        own = health.devices[device.device]
        listed.append(Listed(device=device, source=source, health=own, filters=source.subscriptions()))
    return Lanes(listed), health


def lane_of(found: Lanes, topic: str) -> Lane:
    lane = found.find(topic)
    assert lane is not None
    return lane


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
    found, health = lanes(GAS4)
    lane = lane_of(found, GAS4.topic)
    entered = [lane.enter(size, health) for _ in range(TOPIC_MESSAGES + 20)]
    reason = "too_large" if size > MAX_PAYLOAD_BYTES else "flooded"
    assert entered == [""] * kept + [reason] * (TOPIC_MESSAGES + 20 - kept)
    assert health.devices[GAS4.device].rejects == {reason: TOPIC_MESSAGES + 20 - kept}
    assert health.waiting_bytes == kept * (size + MESSAGE_BYTES)
    for _ in range(kept):
        lane.leave(size, health)
    assert (health.waiting_bytes, lane.waiting, lane.waiting_bytes) == (0, 0, 0)
    assert lane.enter(0, health) == ""


def test_total_is_bounded_and_a_quiet_topic_still_has_room() -> None:
    floods = [replace(NEIGHBOUR, device=f"sewage_pit.f{i}", topic=f"f/{i}") for i in range(20)]
    found, health = lanes(NEIGHBOUR, *floods)
    for _ in range(20):
        for device in floods:
            lane_of(found, device.topic).enter(60_000, health)
    left = WAITING_BYTES - health.waiting_bytes
    assert 0 <= left < 60_000 + MESSAGE_BYTES
    assert lane_of(found, floods[0].topic).enter(left - MESSAGE_BYTES, health) == ""
    assert health.waiting_bytes == WAITING_BYTES
    for _ in range(3):
        assert lane_of(found, NEIGHBOUR.topic).enter(500, health) == ""


@pytest.mark.parametrize(("size", "most"), [(0, TOPIC_MESSAGES // 2), (60_000, 5)])
def test_one_lane_alone_is_crowded_when_half_of_its_share_is_taken(size: int, most: int) -> None:
    found, health = lanes(GAS4)
    lane = lane_of(found, GAS4.topic)
    for _ in range(most - 1):
        lane.enter(size, health)
    assert not found.are_crowded(health.waiting_bytes, waits=False)
    lane.enter(size, health)
    assert found.are_crowded(health.waiting_bytes, waits=False)


def test_lanes_by_filter() -> None:
    wild = replace(NEIGHBOUR, device="a.w", topic="devices/+")
    everything = replace(NEIGHBOUR, device="a.e", topic="#")
    found, _ = lanes(GAS4, wild, everything)
    names = {
        topic: [one.device.device for one in lane_of(found, topic).listed] for topic in ("devices/gas4", "devices/x")
    }
    assert names == {"devices/gas4": ["sewage_pit.gas4", "a.w", "a.e"], "devices/x": ["a.w", "a.e"]}
    assert lane_of(found, "devices/x") is lane_of(found, "devices/y"), "random topics have no memory of their own"
    assert found.filters() == ["#"], "the others would bring everything twice"
    assert found.filters(frozenset({"#"})) == ["devices/+"]
    assert found.find("$SYS/x") is None
    for i in range(10_000):
        found.find(f"t/{i}")
    assert len(list(found)) == 3
    for i in range(10_000):
        found.find(f"t/{i:500}")
        assert sum(map(len, found._by_topic)) <= mqtt_lanes._TOPIC_CHARS
    for i in range(50):
        found.find(f"t/{i}")
    assert {f"t/{i}" for i in range(50)} <= set(found._by_topic), "it remembers again after it was full"


async def test_reading_has_the_moment_of_arrival(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(GAS4)
    at = replace(now(), mono_s=5.0)
    link = MqttLink(LinkSpec(url="mqtt://h"), [GAS4], watch.take, watch.health)
    link._queue.begin()
    monkeypatch.setattr("sitewarden.sensors.mqtt_queue.now", lambda: at)
    link._queue.arrived(GAS4.topic, payload(), 0, False, False, len(payload()))
    monkeypatch.undo()
    link._queue.drained()
    assert [r.at for r in watch.readings] == [at, at]
    assert watch.gas4.last_message_at is at


async def test_a_source_that_fails_costs_its_message_and_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    twin = replace(NEIGHBOUR, device="a.twin")
    take = JsonSource.take

    def broken(self: JsonSource, arrival: Arrival) -> Taken:
        if self.device.device == "a.twin":
            raise ZeroDivisionError
        return take(self, arrival)

    monkeypatch.setattr(JsonSource, "take", broken)
    async with running(tmp_path) as broker, linked(broker.port, twin, NEIGHBOUR) as (_, watch):
        await broker.publish(NEIGHBOUR.topic, b'{"n": 1}', b'{"n": 2}')
        await until(lambda: watch.values == [1, 2], lambda: str(watch.readings))
        assert watch.health.devices["a.twin"].rejects == {"defect": 2}
    assert caplog.text.count("could not be interpreted") == 1


# --- losses ---


async def test_broker_down_at_start_and_gone_in_between(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    try:
        async with listening(broker.port, GAS4) as watch:
            for good in (1, 2):
                await until(lambda n=good: len(watch.readings) == 4 * n - 2, "bad readings at the loss, once")
                assert {r.why for r in watch.readings[-2:]} == {"no_connection"}
                assert str(broker.port) in watch.health.last_error
                await broker.start()
                await until(lambda: watch.health.connected, "the link")
                await broker.publish(GAS4.topic, payload())
                await until(lambda n=good: len(watch.readings) == 4 * n, "a value")
                assert watch.readings[-1].value == 3.0
                beat_s = watch.health.beat_s
                await until(lambda n=beat_s: watch.health.beat_s > n, "a beat")
                broker.kill()
            assert watch.health.reconnects == 1
    finally:
        broker.kill()


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
        assert "Server unavailable" in watch.health.last_error or "unavailable" in watch.health.last_error.lower()


@VERSIONS
async def test_wrong_password_is_a_visible_fault(version: Any, tmp_path: Path) -> None:
    watch = Watch(GAS4)
    async with running(tmp_path) as broker:
        known = MqttCredentials(username="gw", password="wrong")
        spec = LinkSpec(url=f"mqtt://127.0.0.1:{broker.port}", credentials=known, version=version)
        async with _task(MqttLink(spec, [GAS4], watch.take, watch.health).run()):
            await until(lambda: len(watch.readings) == 2, "bad readings")
    assert "not authori" in watch.health.last_error.lower()
    assert "wrong" not in watch.health.last_error
    assert "wrong" not in repr(spec)


async def test_address_that_swallows_everything_stalls_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_wire, "CONNECT_S", 0.5)
    with socket.socket() as hole, contextlib.ExitStack() as callers:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(4):  # the queue of the system is full: the next SYN is not answered
            caller = callers.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(hole.getsockname())
        lost = Watch(NEIGHBOUR)
        port = hole.getsockname()[1]
        run = run_mqtt(f"mqtt://127.0.0.1:{port}", None, [NEIGHBOUR], lost.take, lost.health)
        async with _task(run), running(tmp_path) as broker, listening(broker.port, GAS4) as watch:
            await until(lambda: watch.health.connected, "the other broker")
            for n in range(5):
                await broker.publish(GAS4.topic, payload())
                await until(lambda n=n: len(watch.readings) == 2 * n + 2, "values")
            await until(lambda: lost.health.last_error, "the time limit")
            assert f"no answer from 127.0.0.1 port {port} within 0.5 s" in lost.health.last_error
            assert [r.why for r in lost.readings] == ["no_connection"]


async def test_broker_that_accepts_and_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_link, "ANSWER_S", 0.3)
    server = await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
    async with server, listening(server.sockets[0].getsockname()[1], GAS4) as watch:
        await until(lambda: watch.health.last_error, "the time limit")
        assert "accepts the connection but does not answer" in watch.health.last_error


@pytest.mark.parametrize("talks", [False, True])
async def test_a_broker_is_alive_as_long_as_something_comes(talks: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never answers a ping: what it has to say may be long."""
    monkeypatch.setattr(mqtt_link, "PING_S", 0.2)
    monkeypatch.setattr(mqtt_link, "SILENCE_S", 1.5)

    async def check(broker: Scripted, watch: Watch) -> None:
        if talks:
            await until(lambda: broker.pings >= 4 or watch.health.last_error, "pings")
            assert (broker.connections, watch.health.last_error) == (1, "")
            assert len(watch.values) > 4
        else:
            await until(lambda: broker.connections >= 2, "another try")
            assert "the broker says nothing for 1.5 s" in watch.health.last_error
            assert [r.why for r in watch.readings] == ["no_connection"]

    await scripted(check=check, again=packet(b"devices/n", b'{"n": 1}', 1) if talks else b"")


async def test_name_that_does_not_exist() -> None:
    watch = Watch(GAS4)
    async with _task(run_mqtt("mqtt://broker.invalid", None, [GAS4], watch.take, watch.health)):
        await until(lambda: watch.health.last_error, "the resolver")
        assert "broker.invalid" in watch.health.last_error
        assert len(watch.readings) == 2


@pytest.mark.parametrize(
    ("url", "topic", "problem"),
    [
        ("http://h", "t", "url: must be mqtt://host[:port] or mqtts://host[:port]"),
        ("mqtt://", "t", "url: must be mqtt://host[:port] or mqtts://host[:port]"),
        ("mqtt://h:99999", "t", "url: must be mqtt://host[:port] or mqtts://host[:port]"),
        ("mqtt://gw:pw@h", "t", "url: must not hold a user or password; they come from the credentials"),
        ("mqtt://h", "a/#/b", "devices[0].topic: must have # only as the whole last level (got 'a/#/b')"),
        ("mqtt://h", "", "devices[0].topic: is required unless every point has its own"),
    ],
)
async def test_what_cannot_be_used_is_refused_before_anything_is_opened(url: str, topic: str, problem: str) -> None:
    device = replace(GAS4, topic=topic)
    with pytest.raises(ConfigError) as caught:
        await run_mqtt(url, None, [device], list[Reading]().extend, MqttHealth.of([device]))
    assert caught.value.problems == [problem]


@pytest.mark.parametrize("module", ["pymodbus", "google.protobuf"])
def test_what_a_link_does_not_need_is_not_loaded(module: str) -> None:
    code = f"import sys; from sitewarden.sensors import mqtt_ingest; print('{module}' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- a broker made of bytes ---


class Scripted:
    """Answers CONNECT and SUBSCRIBE, sends what it is given, and notes what is acknowledged."""

    def __init__(self, *sent: bytes, refused: bytes = b"", again: bytes = b"") -> None:
        self.sent = b"".join(sent)
        self.refused = refused
        self.again = again  # a few times a second
        self.pings = 0
        self.subscribed: list[bytes] = []
        self.acknowledged: list[int] = []
        self.connections = 0

    async def talk(self, writer: asyncio.StreamWriter) -> None:
        while not writer.is_closing():
            writer.write(self.again if self.subscribed else b"")
            await asyncio.sleep(0.1)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        talk = asyncio.create_task(self.talk(writer), name="talk")
        try:
            await self.answer(reader, writer)
        finally:
            talk.cancel()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                first, length = await reader.readexactly(2)
                body = await reader.readexactly(
                    length if length < 128 else length - 128 + 128 * (await reader.readexactly(1))[0]
                )
                if first == 0x10:
                    writer.write(b"\x20\x02\x00\x00")
                elif first == 0x82:
                    topic = body[4:-1]
                    self.subscribed.append(topic)
                    code = b"\x80" if topic == self.refused else b"\x01"
                    writer.write(b"\x90\x03" + body[:2] + code)
                    writer.write(b"" if topic == self.refused else self.sent)
                elif first == 0x40:
                    self.acknowledged.append(int.from_bytes(body, "big"))
                elif first == 0xC0:
                    self.pings += 1
                elif first == 0xE0:
                    return


def packet(topic: bytes, data: bytes, mid: int, flags: int = 2) -> bytes:
    body = len(topic).to_bytes(2, "big") + topic + mid.to_bytes(2, "big") + data
    length, coded = len(body), b""
    while True:
        length, digit = length >> 7, length & 127
        coded += bytes([digit | (128 if length else 0)])
        if not length:
            return bytes([0x30 | flags]) + coded + body


async def scripted(*sent: bytes, check: Callable[[Scripted, Watch], Awaitable[None]], again: bytes = b"") -> None:
    broker = Scripted(*sent, again=again)
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    watch = Watch(NEIGHBOUR)
    async with server:
        run = run_mqtt(
            f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, [NEIGHBOUR], watch.take, watch.health
        )
        async with _task(run):
            await check(broker, watch)


async def test_everything_is_acknowledged_in_the_order_of_arrival() -> None:
    huge = b"x" * (3 * MOST_BYTES)

    async def check(broker: Scripted, watch: Watch) -> None:
        await until(lambda: len(broker.acknowledged) == 8, lambda: str(broker.acknowledged))
        assert broker.acknowledged == [7, 3, 9, 4, 1, 2, 8, 5]
        assert watch.values == [1, 2, 3]
        assert watch.n.rejects == {"not_json": 1, "too_large": 2}
        assert watch.health.strangers == 2
        assert watch.health.messages == 8

    await scripted(
        packet(b"devices/n", b'{"n": 1}', 7),
        packet(b"devices/n", b"poison", 3),
        packet(b"devices/n", huge, 9),
        packet(b"devices/stranger", b"?", 4),
        packet(b"devices/n", b'{"n": 2}', 1),
        packet(b"devices/n", b"y" * (MAX_PAYLOAD_BYTES + 1), 2),
        packet(b"\xff\xfe", b"no topic", 8),
        packet(b"devices/n", b'{"n": 3}', 5),
        check=check,
    )


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x32\xff\xff\xff\xff\x7f",  # a length of five bytes
        b"\x32\x03\x00\x05ab",  # a topic beyond the packet
        b"\x32\x06\x00\x02t1\x00\x00",  # number 0
        b"\x36\x06\x00\x02t1\x00\x01",  # QoS 3
        b"\x00\x00",  # no packet at all
        b"\xf0\x00",
    ],
)
async def test_packets_that_are_none_end_the_connection_and_nothing_else(garbage: bytes) -> None:
    async def check(broker: Scripted, watch: Watch) -> None:
        await until(lambda: broker.connections >= 2, "another try")
        assert watch.values[:1] == [1]
        assert watch.health.last_error

    await scripted(packet(b"devices/n", b'{"n": 1}', 1), garbage, check=check)


# --- what waits at the broker ---


@VERSIONS
async def test_backlog_is_for_the_history_and_fresh_values_for_the_rules(version: Any, tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        async with linked(broker.port, TIMED, version=version) as (_, watch):
            await broker.publish(TIMED.topic, *numbered(1))
            await until(lambda: watch.values == [1], "a value")
        await broker.publish(TIMED.topic, *numbered(*range(100, 400), age_s=60))
        async with linked(broker.port, TIMED, version=version) as (_, watch):
            await until(lambda: len(watch.late) == 300, lambda: f"{len(watch.late)} {watch.health}")
            await until(lambda: not watch.health.catching_up, "the marker")
            assert watch.readings == []
            await broker.publish(TIMED.topic, *numbered(2))
            await until(lambda: watch.values == [2], "a fresh value")
        assert watch.late_values == list(range(100, 400))
        assert {(r.quality, r.why) for r in watch.late} == {(Quality.UNCERTAIN, "delayed")}
        assert all(50_000 < watch.readings[-1].at.utc_ms - r.at.utc_ms < 120_000 for r in watch.late)
        assert (watch.n.backlog, watch.n.delayed, watch.n.messages) == (300, 300, 301)


async def test_backlog_without_a_history_freezes(tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        async with linked(broker.port, TIMED):
            pass
        await broker.publish(TIMED.topic, *numbered(5))
        async with linked(broker.port, TIMED, late=False) as (_, watch):
            await until(lambda: watch.readings, "the old one")
            assert [(r.quality, r.why) for r in watch.readings] == [(Quality.BAD, "delayed")]


async def test_old_values_do_not_make_a_device_look_alive(tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        async with linked(broker.port, TIMED):
            pass
        await broker.publish(TIMED.topic, *numbered(5))
        async with linked(broker.port, TIMED) as (_, watch):
            await until(lambda: watch.late, "the old one")
            assert watch.n.last_message_at is None
            assert watch.n.state(now().mono_s) == "fault"


ACL = "user gw\ntopic readwrite devices/#\ntopic {right} sw/v1/_/marker/#\n"


@pytest.mark.parametrize("right", ["write", "read"])
async def test_broker_that_loses_the_marker_keeps_nothing_for_us(
    right: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(mqtt_delivery, "ANSWER_S", 0.5)
    (tmp_path / "acl").write_text(ACL.format(right=right), "utf-8")
    acl = f"acl_file {tmp_path / 'acl'}"
    async with (
        running(tmp_path, acl) as broker,
        Wire(broker.port).open() as wire,
        linked(wire.port, TIMED) as (_, watch),
    ):
        await until(lambda: "the marker" in caplog.text, "a warning")
        await broker.publish(TIMED.topic, *numbered(1))
        await until(lambda: watch.values == [1], "a value")
        wire.whole = False
        wire.cut()
        await until(lambda: not watch.health.connected, "the loss")
        await broker.publish(TIMED.topic, *numbered(2))
        wire.whole = True
        await until(lambda: watch.health.connected, "the link")
        await broker.publish(TIMED.topic, *numbered(3))
        await until(lambda: watch.values == [1, 3], lambda: str(watch.readings))
        assert watch.late == []
    assert caplog.text.count("the marker") == 1


async def test_marker_lost_in_a_kept_session_is_noticed_in_the_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sitewarden.sensors.mqtt_delivery.QUIET_S", 0.5)
    async with running(tmp_path / "1") as broker:
        async with linked(broker.port, TIMED):
            pass
        monkeypatch.setattr(mqtt_delivery.Fence, "returns", lambda *_: False)
        await broker.publish(TIMED.topic, *numbered(1, age_s=60))
        async with linked(broker.port, TIMED) as (_, watch):
            health = watch.health
            await until(lambda: health.reconnects == 1 and health.connected, "the session that begins anew")
            await until(lambda: not health.catching_up, "an empty session")
            await broker.publish(TIMED.topic, *numbered(2))
            await until(lambda: watch.values == [2], lambda: str(watch.readings))
            assert watch.late_values == [1]
    assert "the marker" in caplog.text


@pytest.mark.parametrize("how", ["lost", "refused"])
async def test_a_broker_without_the_marker_is_tried_again_later(
    how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What waited goes to the history, as long as it comes, and then the session begins anew."""
    monkeypatch.setattr(mqtt_delivery, "RETRY_S", 0.0)
    monkeypatch.setattr(mqtt_delivery, "QUIET_S", 0.5)
    monkeypatch.setattr(mqtt_delivery, "ANSWER_S", 0.5)
    subscribe = mqtt_link.Connection.subscribe

    async def refuse(self: mqtt_link.Connection, filters: Sequence[str]) -> list[str]:
        markers = [name for name in filters if "marker" in name]
        return markers or await subscribe(self, filters)

    if how == "refused":
        monkeypatch.setattr(mqtt_link.Connection, "subscribe", refuse)
    (tmp_path / "acl").write_text(ACL.format(right="read"), "utf-8")
    acl = f"acl_file {tmp_path / 'acl'}"
    async with (
        running(tmp_path, acl) as broker,
        Wire(broker.port).open() as wire,
        linked(wire.port, TIMED) as (_, watch),
    ):
        health = watch.health
        await until(lambda: "the marker" in caplog.text, "a warning")
        wire.whole = False
        wire.cut()
        await until(lambda: not health.connected, "the loss")
        await broker.publish(TIMED.topic, *numbered(1, 2, 3, age_s=60))
        wire.whole = True
        await until(lambda: watch.late_values == [1, 2, 3], lambda: str(health))
        await until(lambda: health.reconnects == 2 and health.connected, lambda: str(health))
        await until(lambda: not health.catching_up, lambda: str(health))
        await broker.publish(TIMED.topic, *numbered(4))
        await until(lambda: watch.values == [4], lambda: str(watch.readings))
        assert watch.late_values == [1, 2, 3]


class _Line:
    """What a fence needs of a connection."""

    def __init__(self) -> None:
        self.published: dict[int, str] = {}
        self.tokens: list[bytes] = []
        self.dropped = ""

    def publish(self, _topic: str, token: bytes, _qos: int) -> int:
        self.tokens.append(token)
        return len(self.tokens)

    def drop(self, why: str) -> None:
        self.dropped = why


def _fence(line: Any, *, refused: bool = False) -> mqtt_delivery.Fence:
    fence = mqtt_delivery.Fence("c", "mqtt t")
    fence.is_up = True
    fence.raise_behind(line, refused=refused)
    return fence


def test_a_line_that_stalls_does_not_make_old_values_fresh() -> None:
    line: Any = _Line()
    fence, began_s = _fence(line), now().mono_s
    line.published[1] = ""
    for s in range(60):
        fence.watch(line, began_s + s, s)
    assert fence.is_up
    assert not line.dropped
    assert len(line.tokens) == 2, "it is asked again, and that stalls too"
    assert fence.returns(line.tokens[0])
    assert not fence.is_up


@pytest.mark.parametrize("refused", [False, True])
def test_a_marker_that_is_lost_costs_the_session_and_never_lowers_the_fence(refused: bool) -> None:
    line: Any = _Line()
    fence, began_s = _fence(line, refused=refused), now().mono_s
    line.published.update({1: "", 2: ""})
    for s in range(10):
        fence.watch(line, began_s + s, s)
    assert fence.is_up
    assert fence.begins_anew
    assert "begins anew" in line.dropped
    assert fence.is_useless(began_s + 10) == refused
    assert not fence.is_useless(began_s + mqtt_delivery.RETRY_S + 60)


def test_a_marker_of_an_earlier_connection_proves_nothing() -> None:
    line: Any = _Line()
    fence = _fence(line)
    fence.is_up = True
    fence.raise_behind(line, refused=False)  # connected again, while the first is still on its way
    assert not fence.returns(line.tokens[0])
    assert fence.is_up
    assert fence.returns(line.tokens[1])
    assert not fence.is_up


def test_a_backlog_without_an_end_ends_with_its_session() -> None:
    line: Any = _Line()
    fence, began_s = _fence(line), now().mono_s
    line.published[1] = ""
    for s in range(int(mqtt_delivery.FENCE_S)):
        fence.watch(line, began_s + s, 0)  # messages come all the time, the marker is not among them
    assert fence.is_up
    assert not line.dropped
    fence.watch(line, began_s + mqtt_delivery.FENCE_S + 1, 0)
    fence.watch(line, began_s + mqtt_delivery.FENCE_S + 2, 0)
    assert "begins anew" in line.dropped
    assert fence.is_up


def test_a_marker_that_the_broker_does_not_take_is_given_up_at_once(caplog: pytest.LogCaptureFixture) -> None:
    line: Any = _Line()
    fence, began_s = _fence(line), now().mono_s
    line.published[1] = "Not authorized"
    fence.watch(line, began_s, 0)
    assert fence.is_useless(began_s + 1)
    assert "Not authorized: what is published while the link is down will be lost" in caplog.text
    assert fence.is_up, "what waits goes to the history while it comes"
    for s in range(4):
        fence.watch(line, began_s + s, s)
    assert "begins anew" in line.dropped


def test_a_marker_that_is_lost_in_two_sessions_is_given_up() -> None:
    line: Any = _Line()
    fence, began_s = mqtt_delivery.Fence("c", "mqtt t"), now().mono_s
    for useless in (False, True):
        fence.is_up, fence.begins_anew = True, False
        fence.raise_behind(line, refused=False)
        line.published.update(dict.fromkeys(range(1, 9), ""))
        for s in range(10):
            fence.watch(line, began_s + s, s)
        assert fence.begins_anew
        assert fence.is_useless(began_s + 10) == useless
    fence.is_up, fence.begins_anew = True, False
    fence.raise_behind(line, refused=False)
    assert fence.returns(line.tokens[-1])
    fence.is_up = True
    fence.raise_behind(line, refused=False)
    for s in range(10):
        fence.watch(line, began_s + s, s)
    assert not fence.is_useless(began_s + 10), "one that came back in between is no second loss"


# --- sinks that are full ---


class Full:
    """What the sinks say of themselves, and how often they are asked."""

    def __init__(self) -> None:
        self.now = True
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.now


async def test_what_cannot_be_stored_yet_waits_at_the_broker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sitewarden.sensors.mqtt_queue.PAUSE_S", 1000.0)
    full = Full()
    full.now = False
    async with running(tmp_path) as broker, linked(broker.port, NEIGHBOUR, full=full) as (_, watch):
        full.now = True
        await broker.publish(NEIGHBOUR.topic, *numbered(1))
        await until(lambda: watch.values == [1], "what came before the sinks were looked at")
        await broker.publish(NEIGHBOUR.topic, *numbered(2, 3))
        await until(lambda: broker.log.count("Sending PUBLISH to sitewarden-t") >= 4, lambda: broker.log)
        asked = full.asked
        await until(lambda: full.asked > asked + 20, "it is looked at again and again")
        assert watch.values == [1]
        full.now = False
        await until(lambda: watch.values == [1, 2, 3], lambda: str(watch.health))


async def test_alarms_do_not_wait_for_a_disk_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sitewarden.sensors.mqtt_queue.PAUSE_S", 0.5)
    full = Full()
    async with running(tmp_path) as broker, linked(broker.port, NEIGHBOUR, full=full) as (_, watch):
        for number in range(5):
            await broker.publish(NEIGHBOUR.topic, *numbered(number))
        await until(lambda: watch.values == [0, 1, 2, 3, 4], lambda: str(watch.health))
        full.now = False
        await broker.publish(NEIGHBOUR.topic, *numbered(5))
        await until(lambda: watch.values[-1] == 5, lambda: str(watch.health))
        assert watch.health.reconnects == 0


async def test_a_pause_does_not_cost_the_connection(tmp_path: Path) -> None:
    """The longest one, while the broker's answers are waited for."""
    full = Full()
    async with running(tmp_path) as broker:
        async with linked(broker.port, TIMED):
            pass
        await broker.publish(TIMED.topic, *numbered(*range(100), age_s=60))
        async with linked(broker.port, TIMED, full=full) as (_, watch):
            await until(lambda: watch.late_values == list(range(100)), lambda: str(watch.health))
            await until(lambda: not watch.health.catching_up, lambda: str(watch.health))
            assert not watch.health.last_error


class _Pausing:
    """What a queue needs of a connection."""

    def __init__(self) -> None:
        self.paused = False

    def pause(self, wanted: bool) -> None:
        self.paused = wanted


async def test_a_broker_that_waits_for_us_is_not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the marker would be taken for lost."""
    at = now()
    pause_s = [0.0]
    monkeypatch.setattr("sitewarden.sensors.mqtt_queue.mono_s", lambda: at.mono_s + pause_s[0])
    monkeypatch.setattr("sitewarden.sensors.mqtt_queue.now", lambda: at)
    watch, full, line = Watch(NEIGHBOUR), Full(), _Pausing()
    link = MqttLink(LinkSpec(url="mqtt://h"), [NEIGHBOUR], watch.take, watch.health, full=full)
    queue, link._handover.connection = link._queue, cast("Any", line)
    queue.begin()
    queue.arrived(NEIGHBOUR.topic, b'{"n": 1}', 0, False, False, 8)
    queue.drained()
    assert (watch.values, line.paused) == ([1], True)
    assert queue.quiet_s(at.mono_s + 1) == 0
    pause_s[0], full.now = 1.5, False
    await until(lambda: not line.paused, "the end of the pause")
    assert queue.quiet_s(at.mono_s + 2) == pytest.approx(0.5), "since the end of the pause"


async def test_the_history_of_the_edge_lets_the_broker_wait(tmp_path: Path) -> None:
    spec = LinkSpec(url="mqtt://127.0.0.1")
    history = History(tmp_path / "history.db", "gw1")
    link = _ingest(spec, [NEIGHBOUR], history.add, MqttHealth.of([NEIGHBOUR]), history)
    assert not link._queue._full()
    reading = Reading(point="sewage_pit.n.n", value=1.0, quality=Quality.GOOD, at=now())
    history.add([reading] * 10_000)
    assert link._queue._full()


# --- acknowledgements ---


@VERSIONS
async def test_what_the_sink_raises_ends_the_task_and_the_message_comes_again(version: Any, tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        watch = Watch(NEIGHBOUR)
        spec = LinkSpec(
            url=f"mqtt://127.0.0.1:{broker.port}", credentials=KNOWN, client_id="sitewarden-t", version=version
        )
        link = MqttLink(spec, [NEIGHBOUR], watch.take, watch.health)
        task = asyncio.create_task(link.run(), name="link")
        await until(lambda: watch.health.connected, "the link")
        watch.fail = 1
        await broker.publish(NEIGHBOUR.topic, b'{"n": 1}', b'{"n": 2}')
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.timeout(30):
                await task
        assert caught.group_contains(RuntimeError, match="pipeline")
        assert watch.readings == []
        async with _task(link.run()):
            await until(lambda: len(watch.readings) == 2, lambda: str(watch.readings))
            assert [(r.value, r.why) for r in watch.readings] == [(1.0, "delayed"), (2.0, "delayed")]
            await broker.publish(NEIGHBOUR.topic, b'{"n": 3}')
            await until(lambda: watch.values == [1, 2, 3], "the next")


@VERSIONS
async def test_lost_acknowledgements_count_once(version: Any, tmp_path: Path) -> None:
    async with running(tmp_path) as broker, Wire(broker.port).open() as wire:
        async with linked(wire.port, NEIGHBOUR, version=version) as (_, watch):
            wire.deaf = True
            await broker.publish(NEIGHBOUR.topic, *numbered(1, 2, 3))
            await until(lambda: watch.values == [1, 2, 3], "values")
            wire.cut()
            wire.deaf = False
            await until(lambda: watch.health.duplicates == 3, lambda: str(watch.health))
            await broker.publish(NEIGHBOUR.topic, *numbered(4))
            await until(lambda: watch.values == [1, 2, 3, 4], lambda: str(watch.readings))
            assert watch.late == []
            assert watch.n.duplicates == 3
        async with linked(wire.port, NEIGHBOUR, version=version) as (_, again):
            await until(lambda: not again.health.catching_up, "the marker")
            assert again.late == []  # acknowledged by now


async def test_same_number_with_another_content_is_no_duplicate() -> None:
    watch = Watch(NEIGHBOUR)
    link = MqttLink(LinkSpec(url="mqtt://h"), [NEIGHBOUR], watch.take, watch.health)
    link._queue.begin()
    for dup, n in ((False, 1), (True, 1), (True, 2), (False, 2), (True, 1)):
        data = b'{"n": %d}' % n
        link._queue.arrived(NEIGHBOUR.topic, data, 5, False, dup, len(data))
        link._queue.drained()
    assert watch.values == [1, 2, 2, 1]
    assert watch.health.duplicates == 1


def test_numbers_that_are_remembered() -> None:
    done = mqtt_delivery.Done()
    for mid in range(10_000):
        done.note(mid, 1)
    assert [done.has(mid, 1) for mid in (0, 10_000 - mqtt_delivery.REMEMBERED - 1)] == [False, False]
    assert [done.has(mid, 1) for mid in (10_000 - mqtt_delivery.REMEMBERED, 9_999)] == [True, True]
    assert not done.has(9_999, 2)


class Store:
    """What is on the disk: the values that the sink had when `flush` was called and let through."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.gate = asyncio.Event()
        self.calls = 0
        self.stored = 0

    async def flush(self) -> None:
        count = len(self.watch.readings)
        self.calls += 1
        await self.gate.wait()
        self.stored = count


@VERSIONS
async def test_stored_is_acknowledged_after_the_store_and_not_before(version: Any, tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        watch = Watch(NEIGHBOUR)
        store = Store(watch)
        async with linked(broker.port, NEIGHBOUR, watch=watch, stored=store.flush, version=version):
            await broker.publish(NEIGHBOUR.topic, *numbered(1, 2, 3))
            await until(lambda: watch.values == [1, 2, 3] and store.calls, "a flush")
        again = Watch(NEIGHBOUR)  # as after kill -9: nothing was on the disk
        store = Store(again)
        async with linked(broker.port, NEIGHBOUR, watch=again, stored=store.flush, version=version):
            store.gate.set()
            await until(lambda: again.late_values == [1, 2, 3], lambda: str(again.health))
            await until(lambda: store.calls >= 1, "a flush")
            await broker.publish(NEIGHBOUR.topic, *numbered(4))
            await until(lambda: again.values == [4] and store.stored == 1, lambda: str(again.health))
            await until(lambda: "PUBACK" in broker.log, "an acknowledgement")
            await until(lambda: broker.log.count("Received PUBACK from sitewarden-t") >= 5, lambda: broker.log[-2000:])
        third = Watch(NEIGHBOUR)
        async with linked(broker.port, NEIGHBOUR, watch=third, stored=store.flush, version=version):
            await until(lambda: not third.health.catching_up, "the marker")
            assert (third.late, third.readings) == ([], [])


async def test_stored_groups_what_the_broker_lets_through(tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        watch = Watch(NEIGHBOUR)
        store = Store(watch)
        store.gate.set()
        async with linked(broker.port, NEIGHBOUR, watch=watch, stored=store.flush):
            await broker.publish(NEIGHBOUR.topic, *numbered(*range(400)))
            await until(lambda: watch.values == list(range(400)), lambda: str(len(watch.values)))
            await until(lambda: store.stored == 400, lambda: str(store.stored))
            assert 1 < store.calls <= 60


async def test_stored_needs_a_store() -> None:
    watch = Watch(NEIGHBOUR)
    with pytest.raises(ConfigError, match="store"):
        MqttLink(LinkSpec(url="mqtt://h", ack="stored"), [NEIGHBOUR], watch.take, watch.health)


async def test_what_the_store_raises_ends_the_task(tmp_path: Path) -> None:
    async def fail() -> None:
        raise RuntimeError("disk")

    async with running(tmp_path) as broker:
        watch = Watch(NEIGHBOUR)
        spec = LinkSpec(
            url=f"mqtt://127.0.0.1:{broker.port}", credentials=KNOWN, client_id="sitewarden-t", ack="stored"
        )
        task = asyncio.create_task(
            MqttLink(spec, [NEIGHBOUR], watch.take, watch.health, stored=fail).run(), name="link"
        )
        await until(lambda: watch.health.connected, "the link")
        await broker.publish(NEIGHBOUR.topic, *numbered(1))
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.timeout(30):
                await task
        assert caught.group_contains(RuntimeError, match="disk")


async def test_window_follows_the_broker() -> None:
    acks = mqtt_delivery.Acks()
    connection: Any = object()
    for limit in (3, 3):  # a broker that stops at three
        for mid in range(limit):
            acks.put(connection, mid)
        acks._oldest_s -= 10
        await acks.due()
        assert len(acks.begin()) == limit
        acks.end()
    for mid in range(3):
        acks.put(connection, mid)
    await asyncio.wait_for(acks.due(), 0.5)  # at once: no second is waited any more
    acks.begin()
    for mid in range(40):
        acks.put(connection, mid)
    assert acks.owed == 43
    assert acks._window == 43


# --- changes ---


async def test_devices_change_without_a_new_connection(tmp_path: Path) -> None:
    other = replace(NEIGHBOUR, device="a.o", topic="devices/o")
    async with running(tmp_path) as broker, linked(broker.port, TIMED, GAS4) as (link, watch):
        await broker.publish(TIMED.topic, *numbered(1))
        await until(lambda: watch.values == [1], "a value")
        source, counters = link._subscriptions.listed[TIMED.device].source, watch.n
        link.change([TIMED, other])
        await until(lambda: "UNSUBSCRIBE" in broker.log, "the change")
        assert link._subscriptions.listed[TIMED.device].source is source
        assert watch.n is counters
        assert list(watch.health.devices) == [TIMED.device, "a.o"]
        await until(lambda: "devices/o (QoS 1)" in broker.log, lambda: broker.log)
        await broker.publish(GAS4.topic, payload())
        await broker.publish("devices/o", b'{"n": 7}')
        await broker.publish(TIMED.topic, *numbered(2))
        await until(lambda: watch.values == [1, 7, 2], lambda: str(watch.readings))
        assert (watch.health.reconnects, watch.health.strangers) == (0, 0)
        link.change([replace(TIMED, points=(MqttPoint(name="n", path="other"),))])
        await broker.publish(TIMED.topic, b'{"other": 9}')
        await until(lambda: watch.values == [1, 7, 2, 9], lambda: str(watch.readings))
    assert broker.log.count("New client connected") - broker.log.count(" as auto-") == 1


async def test_change_while_the_link_is_down(tmp_path: Path) -> None:
    broker = Mosquitto(tmp_path)
    watch = Watch(GAS4)
    link = MqttLink(LinkSpec(url=f"mqtt://127.0.0.1:{broker.port}"), [GAS4], watch.take, watch.health)
    async with _task(link.run()):
        await until(lambda: len(watch.readings) == 2, "the loss")
        link.change([GAS4, NEIGHBOUR])
        assert [(r.point, r.why) for r in watch.readings[2:]] == [("sewage_pit.n.n", "no_connection")]
        with pytest.raises(ConfigError):
            link.change([replace(GAS4, topic="a+")])
        assert list(link._subscriptions.listed) == [GAS4.device, NEIGHBOUR.device]


async def test_topics_of_an_earlier_configuration_are_let_go(tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        async with linked(broker.port, NEIGHBOUR, GAS4):
            pass
        await broker.publish(GAS4.topic, payload(), payload())
        async with linked(broker.port, NEIGHBOUR) as (_, watch):
            await until(lambda: watch.health.strangers == 2, lambda: str(watch.health))
            await until(lambda: "UNSUBSCRIBE" in broker.log, "it is let go")
            await broker.publish(GAS4.topic, payload())
            await broker.publish(NEIGHBOUR.topic, b'{"n": 1}')
            await until(lambda: watch.values == [1], "a value")
            assert watch.health.strangers == 2


async def test_refused_topic_spoils_its_device_alone() -> None:
    """`#` covers the others' topics; when the broker refuses it they are subscribed by themselves."""
    wild = replace(NEIGHBOUR, device="a.w", topic="#")
    broker = Scripted(packet(NEIGHBOUR.topic.encode(), b'{"n": 1}', 1), refused=b"#")
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    watch = Watch(NEIGHBOUR, wild)
    async with server:
        url = f"mqtt://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with _task(run_mqtt(url, None, [NEIGHBOUR, wild], watch.take, watch.health)):
            await until(lambda: watch.values == [1, 1], lambda: str(watch.readings))
            bad = [(r.point, r.why) for r in watch.readings if r.quality is Quality.BAD]
            assert bad == [("a.w.n", "subscription_refused")]
            assert "refuses topic '#'; check its ACL" in watch.health.last_error
    assert broker.subscribed == [b"#", b"devices/n"]


async def test_every_changed_device_hears_of_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[float] = []

    def connected(source: JsonSource, _at: Any) -> Taken:
        told.append(source.device.stale_s)
        return Taken()

    monkeypatch.setattr(JsonSource, "connected", connected)
    async with running(tmp_path) as broker, linked(broker.port, TIMED) as (link, _):
        for stale_s in range(100, 110):
            link.change([replace(TIMED, stale_s=stale_s)])
            await until(lambda n=stale_s: told[-1] == n, lambda: str(told))


def test_a_message_that_waited_is_for_the_device_as_it_is_now() -> None:
    watch = Watch(NEIGHBOUR)
    link = MqttLink(LinkSpec(url="mqtt://127.0.0.1"), [NEIGHBOUR], watch.take, watch.health)
    lane = link._subscriptions.lanes.find(NEIGHBOUR.topic)
    assert lane is not None
    arrival = Arrival(topic=NEIGHBOUR.topic, payload=b'{"n": 1}', at=now())
    link.change([replace(NEIGHBOUR, stale_s=99)])
    link._handover.deliver(lane, arrival)
    assert watch.values == [1]
    old = watch.n
    link.change([])
    link._handover.deliver(lane, arrival)
    assert (watch.values, old.rejects, watch.health.strangers) == ([1], {"gone": 1}, 1)


@pytest.mark.parametrize("fault", ["codes", "defect"])
async def test_what_nobody_expects_is_a_loss(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    async def subscribe(*_: Any) -> list[str]:
        nonlocal tries
        tries += 1
        raise KeyError("defect")

    async def answer(*_: Any) -> list[Any]:
        nonlocal tries
        tries += 1
        return [None, None]

    name, what = ("subscribe", subscribe) if fault == "defect" else ("_ask", answer)
    monkeypatch.setattr(mqtt_link.Connection, name, what)

    async def check(_: Scripted, watch: Watch) -> None:
        await until(lambda: tries >= 2, "another try")
        assert [r.why for r in watch.readings] == ["no_connection"]
        assert fault in watch.health.last_error

    await scripted(check=check)


@pytest.mark.parametrize("moment", ["connected", "lost"])
async def test_what_the_sink_raises_is_no_loss_whenever_it_is_called(
    moment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sources have readings also when no message came; a store that fails must end the task, not the connection."""
    reading = Reading(point="sewage_pit.n.n", value=None, quality=Quality.BAD, why="x", at=now())
    monkeypatch.setattr(JsonSource, moment, lambda *_: Taken(readings=(reading,)))
    watch = Watch(NEIGHBOUR)
    watch.fail = 1
    async with running(tmp_path) as broker:
        port = broker.port if moment == "connected" else 1
        with pytest.raises(ExceptionGroup) as caught:
            async with asyncio.timeout(30):
                await run_mqtt(f"mqtt://127.0.0.1:{port}", KNOWN, [NEIGHBOUR], watch.take, watch.health)
    assert caught.group_contains(RuntimeError, match="pipeline")


async def test_an_address_that_the_kernel_cannot_reach_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def both(*_: Any) -> list[Any]:
        return [(99, ("::1", port, 0, 0)), (socket.AF_INET, ("127.0.0.1", port))]

    monkeypatch.setattr(mqtt_wire, "_resolve", both)
    async with server:
        (await mqtt_wire.connect(LinkSpec(url=f"mqtt://broker.example:{port}"))).close()


def test_a_long_packet_that_is_no_message_is_refused_at_its_head() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = mqtt_wire.Wire(ours)
        theirs.send(b"\x90\x80\x80\x40")
        wire.fill()
        with pytest.raises(ValueError, match="type 9"):
            wire.head()


def test_a_packet_in_small_pieces_is_put_together_once() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        wire, sent = mqtt_wire.Wire(ours), packet(b"t", b"x" * 2000, 7)
        first = begin = length = 0
        for at in range(len(sent)):
            theirs.send(sent[at : at + 1])
            wire.fill()
            first, begin, length = wire.head()
            assert bool(begin) == (at == len(sent) - 1)
            assert begin or len(wire._in) <= 3, "the pieces are copied again and again"
        assert wire.publication(first, begin, length, False) == (b"t", b"x" * 2000, 7)


def test_long_topics_are_not_remembered() -> None:
    wild = replace(TIMED, topic="devices/#")
    found, health = lanes(wild)
    topic = "devices/" + "x" * 60_000
    lane = lane_of(found, topic)
    assert not found._by_topic
    assert not lane.enter(10, health, topic)
    assert health.waiting_bytes > 60_000
    lane.leave(10, health, topic)
    assert health.waiting_bytes == lane.waiting_bytes == 0
    source = JsonSource(replace(wild, same_path="id"))
    data = json.dumps({"n": 1, "ts": time.time(), "id": "y" * 50_000}).encode()
    source.take(Arrival(topic=topic, payload=data, at=now()))
    assert source._before
    assert source._seen
    assert len(repr((source._routes, source._before, source._seen))) < 1000
