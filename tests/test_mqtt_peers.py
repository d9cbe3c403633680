"""mosquitto and its own clients: TLS, versions, QoS, retained, Last Will, kill -9. None of these peers is ours."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge import supervision
from sitewarden.edge.alarms.table import TABLE, stored_alarms
from sitewarden.edge.app import run_edge
from sitewarden.edge.pipeline import Pipeline
from sitewarden.sensors.mqtt_ingest import LinkSpec, MqttCredentials, MqttDevice, MqttHealth, MqttLink, MqttPoint
from sitewarden.sensors.mqtt_presets import expand
from sitewarden.sync.history import History
from sitewarden.sync.journal import Journal
from sitewarden.tests.peers.mosquitto import Mosquitto, Wire, make_certificates, running, until
from sitewarden.words import ClockState, Quality, Reading, set_clock_state

VERSIONS = pytest.mark.parametrize("version", ["3.1.1", "5"])
PEER_VERSION = {"3.1.1": "311", "5": "5"}
POINT = (MqttPoint(name="n", path="n"),)
DEVICE = MqttDevice(device="a.d", topic="plant/d", points=POINT, time_path="ts", time_needed=False)


@pytest.fixture(autouse=True)
def synced() -> Any:
    """Our own clock can be believed."""
    set_clock_state(ClockState.SYNCED)
    yield
    set_clock_state(ClockState.UNSYNCED)


class Watch:
    """Readings of a link, and its health."""

    def __init__(self, *devices: MqttDevice) -> None:
        self.health = MqttHealth.of(devices)
        self.readings: list[Reading] = []
        self.late: list[Reading] = []

    @property
    def values(self) -> list[float]:
        return [r.value for r in self.readings if r.value is not None]


def spec_of(port: int, **changes: Any) -> LinkSpec:
    known = MqttCredentials(username="gw", password="secret")
    given = {"url": f"mqtt://127.0.0.1:{port}", "credentials": known, "client_id": "sitewarden-p"}
    return LinkSpec(**{**given, **changes})


@contextlib.asynccontextmanager
async def linked(spec: LinkSpec, *devices: MqttDevice, connects: bool = True) -> AsyncIterator[Watch]:
    watch = Watch(*devices)
    link = MqttLink(spec, devices, watch.readings.extend, watch.health, late=watch.late.extend)
    task = asyncio.create_task(link.run(), name="link")
    try:
        if connects:
            await until(lambda: watch.health.connected, lambda: f"the link: {watch.health}")
        yield watch
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def timed(n: int) -> bytes:
    return json.dumps({"n": n, "ts": time.time()}).encode()


# --- versions, QoS, retained, Last Will ---


@VERSIONS
@pytest.mark.parametrize("theirs", ["3.1.1", "5"])
@pytest.mark.parametrize("qos", ["0", "1", "2"])
async def test_every_version_and_qos(version: Any, theirs: str, qos: str, tmp_path: Path) -> None:
    async with running(tmp_path) as broker, linked(spec_of(broker.port, version=version), DEVICE) as watch:
        args = ("-V", PEER_VERSION[theirs], "-q", qos)
        await broker.publish(DEVICE.topic, *[timed(n) for n in range(40)], args=args)
        await until(lambda: watch.values == list(range(40)), lambda: str(watch.readings))
        assert {r.quality for r in watch.readings} == {Quality.GOOD}
        assert f"as sitewarden-p (p{5 if version == '5' else 2}, c0, k20" in broker.log


async def test_properties_of_version_5_are_stepped_over(tmp_path: Path) -> None:
    async with running(tmp_path) as broker, linked(spec_of(broker.port, version="5"), DEVICE) as watch:
        for names in (
            ("content-type", "application/json"),
            ("response-topic", "x" * 200),
            ("message-expiry-interval", "60"),
        ):
            args = ("-V", "5", "-q", "1", "-D", "publish", *names)
            await broker.publish(DEVICE.topic, timed(len(watch.readings)), args=args)
        args = ("-V", "5", "-q", "1", "-D", "publish", "user-property", "k", "v" * 300)
        await broker.publish(DEVICE.topic, timed(3), args=args)
        await until(lambda: len(watch.readings) == 4, lambda: str(watch.readings))
        assert watch.health.devices["a.d"].rejects == {}


@VERSIONS
async def test_retained_is_not_fresh_and_the_next_one_is(version: Any, tmp_path: Path) -> None:
    async with running(tmp_path) as broker:
        await broker.publish(DEVICE.topic, timed(1), args=("-q", "1", "-r"))
        async with linked(spec_of(broker.port, version=version), DEVICE) as watch:
            await until(lambda: watch.health.devices["a.d"].rejects["retained"] == 1, "the retained one")
            await broker.publish(DEVICE.topic, timed(2), args=("-q", "1", "-r"))
            await until(lambda: watch.values == [2], lambda: str(watch.readings))


@VERSIONS
async def test_last_will_spoils_every_point_at_once(version: Any, tmp_path: Path) -> None:
    device = expand("tasmota", MqttDevice(device="a.d", topic="gasroom", points=POINT))
    will = ("--will-topic", "tele/gasroom/LWT", "--will-payload", "Offline", "--will-retain", "--will-qos", "1")
    async with running(tmp_path) as broker:
        async with linked(spec_of(broker.port, version=version), device) as watch:
            peer = await broker.start_client("mosquitto_pub", "-t", "tele/gasroom/SENSOR", "-l", "-q", "1", *will)
            assert peer.stdin is not None
            peer.stdin.write(b'{"Time": "2026-01-01T00:00:00", "n": 1}\n')
            await until(lambda: watch.values == [1], lambda: str(watch.readings))
            peer.kill()
            await peer.wait()
            await until(lambda: len(watch.readings) == 2, "the will")
            bad = watch.readings[-1]
            assert (bad.value, bad.quality, bad.why) == (None, Quality.BAD, "offline")
            assert watch.health.devices["a.d"].state(bad.at.mono_s) == "fault"
            await broker.publish("tele/gasroom/LWT", b"Online")
            await broker.publish("tele/gasroom/SENSOR", b'{"n": 2}')
            await until(lambda: watch.values == [1, 2], "a value")
            assert watch.health.devices["a.d"].why == ""
        async with linked(spec_of(broker.port, version=version, client_id="other"), device) as watch:
            await until(lambda: [r.why for r in watch.readings] == ["offline"], "the retained will")


async def test_patterns_bring_what_they_name(tmp_path: Path) -> None:
    points = (MqttPoint(name="all", path="n", topic="plant/#"), MqttPoint(name="one", path="n", topic="plant/+/x"))
    device = MqttDevice(device="a.d", points=points)
    async with running(tmp_path) as broker, linked(spec_of(broker.port), device) as watch:
        for topic in ("plant/a/x", "plant/a/y", "plant", "other/a/x"):
            await broker.publish(topic, b'{"n": 1}')
        await broker.publish("plant/b/x", b'{"n": 2}')
        await until(lambda: 2 in watch.values, "the last")
        found = [(r.point, r.value) for r in watch.readings]
        wanted = [
            ("a.d.all", 1.0),
            ("a.d.one", 1.0),
            ("a.d.all", 1.0),
            ("a.d.all", 1.0),
            ("a.d.all", 2.0),
            ("a.d.one", 2.0),
        ]
        assert found == wanted


async def test_several_brokers_do_not_notice_one_another(tmp_path: Path) -> None:
    other = replace(DEVICE, device="b.d")
    async with running(tmp_path / "1") as one, running(tmp_path / "2") as two:  # noqa: SIM117 - one after the other
        async with linked(spec_of(one.port), DEVICE) as first, linked(spec_of(two.port), other) as second:
            one.kill()
            await until(lambda: not first.health.connected, "the loss")
            await two.publish(DEVICE.topic, timed(1))
            await until(lambda: second.values == [1], "a value")
            assert [r.why for r in first.readings] == ["no_connection"]
            assert second.health.last_error == ""


# --- TLS ---


@contextlib.asynccontextmanager
async def secure(folder: Path, *lines: str) -> AsyncIterator[tuple[Mosquitto, Path]]:
    files = folder / "tls"
    make_certificates(files)
    own = (f"cafile {files}/ca.pem", f"certfile {files}/server.pem", f"keyfile {files}/server.key")
    async with running(folder, *own, *lines) as broker:
        broker.client_args += (
            "--cafile",
            f"{files}/ca.pem",
            "--cert",
            f"{files}/client.pem",
            "--key",
            f"{files}/client.key",
        )
        yield broker, files


@VERSIONS
async def test_tls(version: Any, tmp_path: Path) -> None:
    async with secure(tmp_path) as (broker, files):
        spec = spec_of(broker.port, url=f"mqtts://127.0.0.1:{broker.port}", ca_file=f"{files}/ca.pem", version=version)
        async with linked(spec, DEVICE) as watch:
            await broker.publish(DEVICE.topic, *[timed(n) for n in range(200)])
            await until(lambda: watch.values == list(range(200)), lambda: str(len(watch.values)))


async def test_tls_with_a_certificate_of_ours(tmp_path: Path) -> None:
    async with secure(tmp_path, "require_certificate true") as (broker, files):
        url = f"mqtts://127.0.0.1:{broker.port}"
        spec = spec_of(broker.port, url=url, ca_file=f"{files}/ca.pem")
        async with linked(spec, DEVICE, connects=False) as watch:
            await until(lambda: watch.health.last_error, "a refusal")
            assert not watch.health.connected
        full = replace(spec, cert_file=f"{files}/client.pem", key_file=f"{files}/client.key")
        async with linked(full, DEVICE) as watch:
            await broker.publish(DEVICE.topic, timed(1))
            await until(lambda: watch.values == [1], "a value")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ca_file": "other-ca.pem"}, ["not trusted", "other-ca.pem"]),
        ({"ca_file": ""}, ["not trusted", "give its ca_file"]),
        ({"ca_file": "missing.pem"}, ["cannot be used", "missing.pem"]),
        ({"ca_file": "server.key"}, ["cannot be used", "server.key"]),
        ({"url": "mqtts://localhost", "ca_file": "ca.pem"}, ["not trusted", "localhost"]),
    ],
)
async def test_tls_errors_say_what_to_do(changes: dict[str, str], says: list[str], tmp_path: Path) -> None:
    async with secure(tmp_path) as (broker, files):
        url = f"{changes.get('url', 'mqtts://127.0.0.1')}:{broker.port}"
        ca_file = f"{files}/{changes['ca_file']}" if changes["ca_file"] else ""
        async with linked(spec_of(broker.port, url=url, ca_file=ca_file), DEVICE, connects=False) as watch:
            await until(lambda: watch.health.last_error, "an error")
            assert all(word in watch.health.last_error for word in says), watch.health.last_error
            assert [r.why for r in watch.readings] == ["no_connection"]


async def test_tls_and_plain_mixed_up(tmp_path: Path) -> None:
    async with secure(tmp_path) as (broker, _), linked(spec_of(broker.port), DEVICE, connects=False) as watch:
        await until(lambda: watch.health.last_error, "an error")
    async with running(tmp_path / "plain") as plain:
        spec = spec_of(plain.port, url=f"mqtts://127.0.0.1:{plain.port}")
        async with linked(spec, DEVICE, connects=False) as watch:
            await until(lambda: watch.health.last_error, "an error")
            assert not watch.health.connected


# --- nothing lost ---


@VERSIONS
async def test_cuts_of_the_wire_lose_nothing_and_count_nothing_twice(version: Any, tmp_path: Path) -> None:
    """The publisher counts: every message that the broker has is delivered, once, old or fresh."""
    async with running(tmp_path, "max_queued_messages 0") as broker, Wire(broker.port).open() as wire:  # noqa: SIM117
        async with linked(spec_of(wire.port, version=version), DEVICE) as watch:

            def got() -> list[float]:
                return sorted([r.value for r in (*watch.readings, *watch.late) if r.value is not None])

            for turn in range(6):
                await until(lambda: watch.health.connected, lambda: str(watch.health))
                sending = asyncio.create_task(
                    broker.publish(DEVICE.topic, *[timed(turn * 500 + n) for n in range(500)]), name="publisher"
                )
                await until(lambda turn=turn: len(got()) > turn * 500, "some of them")
                wire.deaf = turn % 2 == 0  # acknowledgements are lost with it
                if wire.deaf:
                    await until(lambda turn=turn: len(got()) > turn * 500 + 5, "more of them")
                wire.cut()
                wire.deaf = False
                await sending
                wanted = (turn + 1) * 500
                await until(lambda wanted=wanted: len(got()) >= wanted, lambda: f"{len(got())} {watch.health}")
            assert got() == list(range(3000))
            await until(lambda: watch.health.reconnects >= 6, lambda: str(watch.health))
            assert watch.health.devices["a.d"].rejects == {}


@VERSIONS
async def test_broker_that_is_killed_and_comes_back(version: Any, tmp_path: Path) -> None:
    """kill -9; what it had written down comes, and what the publisher sends again."""
    lines = ("persistence true", f"persistence_location {tmp_path}/", "autosave_interval 1", "autosave_on_changes true")
    async with running(tmp_path, *lines) as broker, linked(spec_of(broker.port, version=version), DEVICE) as watch:
        for turn in range(3):
            for n in range(10):
                await broker.publish(DEVICE.topic, timed(turn * 100 + n))
            await until(lambda turn=turn: watch.values[-1:] == [turn * 100 + 9], lambda: str(watch.values))
            broker.kill()
            await until(lambda: not watch.health.connected, "the loss")
            assert watch.readings[-1].why == "no_connection"
            await broker.start()
            await until(lambda: watch.health.connected, "the link")
        await broker.publish(DEVICE.topic, timed(999))
        await until(lambda: watch.values[-1:] == [999], "the last")
        found = [*watch.values, *(r.value for r in watch.late)]
        assert sorted(found) == sorted([*(turn * 100 + n for turn in range(3) for n in range(10)), 999])
        assert [r.why for r in watch.readings if r.quality is Quality.BAD] == ["no_connection"] * 3


# --- the whole gateway ---

SITE = """
[site]
id = "plant"
name = "工厂"
name_en = "Plant"
[gateway]
id = "gw1"
[web]
port = {web}
[mqtt]
url = "mqtt://127.0.0.1:{main}"
username = "gw"
password_file = "pw"
ack = "stored"
[[broker]]
id = "remote"
url = "mqtts://127.0.0.1:{remote}"
username = "gw"
password_file = "pw"
ca_file = "tls/ca.pem"
version = "5"
[[area]]
id = "pit"
name = "池"
name_en = "Pit"
[[mqtt_device]]
id = "gas"
area = "pit"
topic = "plant/gas"
time_path = "ts"
  [[mqtt_device.point]]
  name = "ch4"
  label = "甲烷"
  label_en = "methane"
  path = "n"
  unit = "%LEL"
  quantity = "gas"
[[mqtt_device]]
id = "far"
area = "pit"
broker = "remote"
format = "tasmota"
topic = "far"
  [[mqtt_device.point]]
  name = "t"
  label = "温度"
  label_en = "temperature"
  path = "n"
  unit = "°C"
  quantity = "temperature"
[[alarm]]
point = "pit.gas.ch4"
hi = 25.0
on_delay_s = 0.0
"""
PEOPLE = "id,name,name_en,roles,areas,phone\nk,K,K,keeper,*,\no,O,O,officer,*,\n"


@contextlib.asynccontextmanager
async def gateway(folder: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[list[list[Reading]]]:
    """The daemon in this process, and what its rules were shown."""
    shown: list[list[Reading]] = []
    accept = Pipeline.accept

    def spy(self: Pipeline, readings: list[Reading]) -> None:
        shown.append(readings)
        accept(self, readings)

    with monkeypatch.context() as patch:
        patch.setattr(Pipeline, "accept", spy)
        patch.setattr(supervision, "_kernel_synced", lambda: True)  # the machine's clock can be believed
        task = asyncio.create_task(run_edge(folder / "site.toml", folder / "data", say=lambda _: None), name="edge")
        try:
            yield shown
            assert not task.done(), task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def test_gateway_keeps_what_was_published_while_it_was_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: Any
) -> None:
    """Into the history at its own time; no alarm is raised by it. Two brokers, one of them by TLS."""
    (tmp_path / "pw").write_text("secret\n", "utf-8")
    (tmp_path / "people.csv").write_text(PEOPLE, "utf-8")
    async with running(tmp_path / "1") as broker, secure(tmp_path) as (remote, _):
        text = SITE.format(web=free_port(), main=broker.port, remote=remote.port)
        (tmp_path / "site.toml").write_text(text, "utf-8")

        def values(shown: list[list[Reading]]) -> list[float]:
            return [r.value for readings in shown for r in readings if r.value is not None]

        async with gateway(tmp_path, monkeypatch) as shown:
            await until(
                lambda: "plant/gas (QoS 1)" in broker.log and "tele/far/LWT (QoS 1)" in remote.log, "both links"
            )
            await broker.publish("plant/gas", timed(1))
            await remote.publish("tele/far/SENSOR", b'{"n": 20}')
            await until(lambda: sorted(values(shown)) == [1, 20], lambda: str(shown))
        old_s = time.time() - 100
        await broker.publish("plant/gas", *[json.dumps({"n": 90 + n, "ts": old_s + n}).encode() for n in range(3)])
        async with gateway(tmp_path, monkeypatch) as shown:
            await until(lambda: broker.log.count("as sitewarden-plant-gw1-mqtt ") == 2, "the link")
            await broker.publish("plant/gas", timed(2))
            await until(lambda: values(shown) == [2], lambda: str(shown))
    async with History(tmp_path / "data" / "history.db", "gw1") as history:
        found = await history.read("pit.gas.ch4", 0, round(time.time() * 1000) + 60_000)
    kept = [(value, quality) for _, value, quality in found if value is not None]
    late = [(90.0 + n, Quality.UNCERTAIN) for n in range(3)]
    assert sorted(kept) == sorted([*late, (1.0, Quality.GOOD), (2.0, Quality.GOOD)])
    times = [at for at, value, _ in found if value is not None and value >= 90]
    assert times == [pytest.approx((old_s + n) * 1000, abs=2000) for n in range(3)]
    async with Journal(tmp_path / "data" / "journal.db", "gw1", (TABLE,)) as journal:
        alarms = await journal.query(stored_alarms)
    assert not [name for name in alarms if name.startswith("pit.gas.ch4.high")]
