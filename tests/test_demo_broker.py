"""The demo's broker: one set of expectations over the real mosquitto and over the embedded one."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import stat
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiomqtt
import pytest
from sitewarden.demo.broker import (
    MESSAGE_BYTES,
    USERS,
    Broker,
    find_mosquitto,
    mosquitto_hash,
    new_password,
    prepare_broker,
)
from sitewarden.demo.embedded import topic_matches
from sitewarden.errors import PermanentError
from sitewarden.sensors.mqtt_ingest import MAX_PAYLOAD_BYTES
from sitewarden.tests.peers.ports import free_port

needs_mosquitto = pytest.mark.skipif(
    find_mosquitto() is None and not os.environ.get("CI"), reason="mosquitto is not installed: apt install mosquitto"
)
KINDS = [pytest.param("mosquitto", marks=needs_mosquitto), "amqtt"]
BOUND_S = 20.0
VALUE = "sw/v1/hengfeng_dyeing/aux_store/th1/humidity/value"
STATUS = "sw/v1/hengfeng_dyeing/gw/gw1/status"
HEALTH = "sw/v1/hengfeng_dyeing/gw/gw1/health"
SUMMARY = "sw/v1/hengfeng_dyeing/alarm/summary"


def client(broker: Broker, user: str, **changes: str) -> aiomqtt.Client:
    password = changes.get("password") or broker.password_files[user].read_text().strip()
    return aiomqtt.Client("127.0.0.1", broker.port, username=user, password=password, timeout=5)


@asynccontextmanager
async def serving(broker: Broker) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(*broker.command, stderr=subprocess.PIPE)
    try:
        async with asyncio.timeout(BOUND_S):
            while True:
                assert process.returncode is None, (await process.communicate())[1].decode()
                try:
                    async with client(broker, "gateway"):
                        break
                except aiomqtt.MqttError:
                    await asyncio.sleep(0.05)
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.communicate(), BOUND_S)


def prepared(folder: Path, kind: str) -> Broker:
    return prepare_broker(folder / "broker", free_port(), {user: new_password() for user in USERS}, kind=kind)


async def collect(subscriber: aiomqtt.Client, until_topic: str) -> list[tuple[str, bool]]:
    """(topic, retained) of what arrives, up to the message that marks the end."""
    seen: list[tuple[str, bool]] = []
    async with asyncio.timeout(BOUND_S):
        async for message in subscriber.messages:
            seen.append((str(message.topic), message.retain))
            if str(message.topic) == until_topic:
                return seen
    raise AssertionError(f"{until_topic} never came; {seen}")


@pytest.mark.parametrize("kind", KINDS)
async def test_wrong_password_unknown_user_and_nobody_are_refused(kind: str, tmp_path: Path) -> None:
    broker = prepared(tmp_path, kind)
    async with serving(broker):
        for attempt in (
            client(broker, "gateway", password="wrong"),
            client(broker, "root", password="x"),
            aiomqtt.Client("127.0.0.1", broker.port, timeout=5),
        ):
            with pytest.raises(aiomqtt.MqttError):
                async with attempt:
                    pass


@pytest.mark.parametrize("kind", KINDS)
async def test_each_user_has_its_own_rights(kind: str, tmp_path: Path) -> None:
    """Dashboards see values, alarms and status, never commands; devices reach the gateway alone."""
    broker = prepared(tmp_path, kind)
    async with serving(broker), client(broker, "gateway") as gateway, client(broker, "dashboard") as dashboard:
        await gateway.publish(VALUE, "{}", qos=1, retain=True)
        if kind == "mosquitto":  # amqtt hands out retained messages without asking for rights
            await gateway.publish("sw/v1/hengfeng_dyeing/cmd/dashboard/retained", "secret", qos=1, retain=True)
        await dashboard.subscribe("sw/v1/#", qos=1)
        await dashboard.subscribe("devices/#", qos=1)
        await gateway.subscribe("#", qos=1)
        async with client(broker, "devices") as devices:
            await devices.publish(VALUE, "forged", qos=1)
            await devices.publish("devices/gas4", "{}", qos=1)
        await dashboard.publish(VALUE, "forged", qos=1)
        await dashboard.publish("sw/v1/hengfeng_dyeing/cmd/gateway/ack", "forged", qos=1)
        await dashboard.publish("sw/v1/hengfeng_dyeing/cmd/dashboard/ack", "{}", qos=1)
        await gateway.publish("sw/v1/hengfeng_dyeing/cmd/p_li/ack", "secret", qos=1)
        await gateway.publish("sw/v1/hengfeng_dyeing/rsp/dashboard", "{}", qos=1)
        await gateway.publish("sw/v1/hengfeng_dyeing/alarm/aux_store.th1.humidity.high/state", "{}", qos=1)
        await gateway.publish(HEALTH, "{}", qos=1)
        await gateway.publish(SUMMARY, "{}", qos=1)
        await gateway.publish(STATUS, "{}", qos=1)

        dashboard_saw = await collect(dashboard, STATUS)
        assert dashboard_saw == [
            (VALUE, True),
            ("sw/v1/hengfeng_dyeing/rsp/dashboard", False),
            ("sw/v1/hengfeng_dyeing/alarm/aux_store.th1.humidity.high/state", False),
            (HEALTH, False),
            (SUMMARY, False),
            (STATUS, False),
        ]
        gateway_saw = [topic for topic, retained in await collect(gateway, STATUS) if not retained]
        assert gateway_saw[:2] == ["devices/gas4", "sw/v1/hengfeng_dyeing/cmd/dashboard/ack"]
        assert VALUE not in gateway_saw


@pytest.mark.parametrize("kind", KINDS)
async def test_last_will_reaches_the_dashboard(kind: str, tmp_path: Path) -> None:
    broker = prepared(tmp_path, kind)
    password = broker.password_files["gateway"].read_text().strip()
    will = aiomqtt.Will(STATUS, '{"online":false}', qos=1, retain=True)
    dying = aiomqtt.Client("127.0.0.1", broker.port, username="gateway", password=password, will=will, timeout=5)
    async with serving(broker), client(broker, "dashboard") as dashboard:
        await dashboard.subscribe("sw/v1/#", qos=1)
        await dying.__aenter__()
        dying._client.socket().shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        assert await collect(dashboard, STATUS) == [(STATUS, False)]
        with suppress(aiomqtt.MqttError):
            await dying.__aexit__(None, None, None)


@needs_mosquitto
async def test_mosquitto_keeps_retained_values_over_a_restart(tmp_path: Path) -> None:
    broker = prepared(tmp_path, "mosquitto")
    async with serving(broker), client(broker, "gateway") as gateway:
        await gateway.publish(VALUE, "{}", qos=1, retain=True)
    async with serving(broker), client(broker, "dashboard") as dashboard:
        await dashboard.subscribe("sw/v1/#", qos=1)
        assert await collect(dashboard, VALUE) == [(VALUE, True)]


@needs_mosquitto
async def test_mosquitto_passes_on_no_larger_payload_than_the_gateway_takes(tmp_path: Path) -> None:
    assert MESSAGE_BYTES == MAX_PAYLOAD_BYTES
    broker = prepared(tmp_path, "mosquitto")
    async with serving(broker), client(broker, "gateway") as gateway, client(broker, "devices") as devices:
        await gateway.subscribe("devices/#", qos=1)
        await devices.publish("devices/large", b"x" * (MAX_PAYLOAD_BYTES + 1), qos=1)
        await devices.publish("devices/largest", b"x" * MAX_PAYLOAD_BYTES, qos=1)
        assert await collect(gateway, "devices/largest") == [("devices/largest", False)]


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_private_and_hold_no_clear_password_but_one(kind: str, tmp_path: Path) -> None:
    passwords = {user: new_password() for user in USERS}
    prepare_broker(tmp_path / "broker", 1883, {user: new_password() for user in USERS}, kind=kind)
    broker = prepare_broker(tmp_path / "broker", 1883, passwords, kind=kind)  # a second start overwrites
    assert broker.name == kind
    assert stat.S_IMODE((tmp_path / "broker").stat().st_mode) == 0o700
    for path in (tmp_path / "broker").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        clear = [user for user, password in passwords.items() if password in path.read_text()]
        assert clear == [user for user in USERS if path == broker.password_files[user]]
    assert all(broker.password_files[user].read_text().strip() == passwords[user] for user in USERS)


def test_hash_has_mosquittos_form() -> None:
    kind, rounds, salt, digest = mosquitto_hash("secret", b"0123456789ab").split("$")[1:]
    assert (kind, int(rounds) >= 100, base64.b64decode(salt)) == ("7", True, b"0123456789ab")
    assert len(base64.b64decode(digest)) == 64


def test_no_broker_at_all_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sitewarden.demo.broker.find_mosquitto", lambda: None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(PermanentError, match="apt-get install mosquitto"):
        prepared(tmp_path, "auto")
    with pytest.raises(PermanentError, match="apt-get install mosquitto"):
        prepared(tmp_path, "mosquitto")


def test_without_mosquitto_the_embedded_one_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sitewarden.demo.broker.find_mosquitto", lambda: None)
    broker = prepared(tmp_path, "auto")
    assert broker.name == "amqtt"
    assert json.loads(Path(broker.command[-1]).read_text())["port"] == broker.port
    assert os.access(broker.command[0], os.X_OK)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "matches"),
    [
        ("sw/v1/#", "sw/v1/a/b", True),
        ("sw/v1/#", "sw/v1", True),
        ("sw/v1/#", "sw/v2/a", False),
        ("sw/+/a", "sw/v1/a", True),
        ("sw/+/a", "sw/v1/b", False),
        ("sw/+", "sw/v1/a", False),
        ("sw/+/a", "sw/v1", False),
        ("devices/gas4", "devices/gas4", True),
    ],
)
def test_topic_matches(topic_filter: str, topic: str, matches: bool) -> None:
    assert topic_matches(topic_filter, topic) is matches
