"""MQTT discovery: what is announced on a real broker, and that a real Home Assistant understands it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from sitewarden.edge.alarms.rules import Rule, Side
from sitewarden.edge.discovery import Discovery, discovery_of
from sitewarden.tests.peers.mosquitto import Mosquitto, running
from sitewarden.tests.peers.mqtt_tree import UNITS, point, rule, site
from sitewarden.words import Quality

HERE = Path(__file__).parent
HOME = HERE.parent / ".peers" / "home-assistant"


def announced(names: Sequence[str], rules: Sequence[Rule] = (), prefix: str = "homeassistant") -> Discovery:
    return discovery_of(prefix, "s1", "gw1", "恒丰", [point(name) for name in names], rules)


def topic_of(discovery: Discovery, ending: str) -> str:
    (found,) = [topic for topic in discovery.configs if topic.endswith(f"{ending}/config")]
    return found


class Listener:
    """What is published below `homeassistant/`, and what is retained there now."""

    def __init__(self, port: int) -> None:
        self.port, self.seen = port, list[str]()
        self.retained: dict[str, Any] = {}

    async def run(self) -> None:
        async with self.client() as client:
            await client.subscribe("homeassistant/#", qos=1)
            async for message in client.messages:
                topic, data = message.topic.value, bytes(message.payload)
                if topic.endswith("/config"):
                    self.seen.append(topic)
                    self.retained.pop(topic, None)
                    if data:
                        self.retained[topic] = json.loads(data)

    def client(self) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", self.port, username="gw", password="secret", timeout=10)

    async def say(self, topic: str, what: str) -> None:
        async with self.client() as client:
            await client.publish(topic, what, qos=1)


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Mosquitto]:
    async with running(tmp_path / "broker") as made:
        yield made


@pytest.fixture
async def listener(broker: Mosquitto) -> AsyncIterator[Listener]:
    made = Listener(broker.port)
    task = asyncio.create_task(made.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_without_a_prefix_nothing_is_announced() -> None:
    assert announced(["humidity"], [rule("humidity")], prefix="") == Discovery()


def test_faults_of_the_gateway_come_and_go_and_are_counted_only() -> None:
    fault = replace(rule("humidity", point="", side=Side.SYSTEM), id="system.disk")
    faults = announced([], [fault])
    assert not any("disk" in topic for topic in faults.configs)
    assert topic_of(faults, "alarms_open")


async def test_what_is_there_is_announced_and_what_is_gone_is_taken_back(
    tmp_path: Path, broker: Mosquitto, listener: Listener, eventually
) -> None:
    names, rules = ["humidity", "h2s"], [rule("humidity")]
    wanted = announced(names, rules)
    async with site(tmp_path, broker.port, names, rules, wanted) as made:
        await eventually(lambda: listener.retained == json.loads(json.dumps(wanted.configs)), "all is announced")
        fewer = announced(["h2s"], [])
        made.change(["h2s"], [], fewer)
        await eventually(lambda: listener.retained == json.loads(json.dumps(fewer.configs)), "the rest is emptied")
        made.change(["h2s"], [], Discovery())
        await eventually(lambda: not listener.retained, "nothing is announced any more")


async def test_what_an_earlier_start_announced_is_taken_back(
    tmp_path: Path, broker: Mosquitto, listener: Listener, eventually
) -> None:
    wanted = announced(["humidity"])
    async with site(tmp_path, broker.port, ["humidity"], [], wanted):
        await eventually(lambda: len(listener.retained) == len(wanted.configs), "all is announced")
    async with site(tmp_path, broker.port, ["humidity"], [], Discovery()):
        await eventually(lambda: not listener.retained, "nothing is announced any more")


async def test_home_assistant_that_starts_anew_is_told_again(
    tmp_path: Path, broker: Mosquitto, listener: Listener, eventually
) -> None:
    wanted = announced(["humidity"])
    topic = topic_of(wanted, "_humidity")
    async with site(tmp_path, broker.port, ["humidity"], [], wanted):
        await eventually(lambda: listener.seen.count(topic) == 1, "announced")

        async def told_again() -> bool:
            await listener.say("homeassistant/status", "online")
            await asyncio.sleep(0.1)
            return listener.seen.count(topic) > 1

        for _ in range(200):  # who says it before the gateway listens is not heard
            if await told_again():
                break
        assert listener.seen.count(topic) > 1


class HomeAssistant:
    """The peer of `make peers`: its states by entity."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.states: dict[str, Any] = {}
        self.problems: list[str] = []

    async def follow(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            if line.startswith(b"{"):
                said = json.loads(line)
                self.states, self.problems = said["states"], said["problems"]

    def state(self, kind: str, name: str) -> str:
        return self.states.get(f"{kind}.sitewarden_s1_gw1_{name}", {}).get("state", "not there")

    def says(self, kind: str, name: str) -> dict[str, Any]:
        return self.states[f"{kind}.sitewarden_s1_gw1_{name}"]["attributes"]


@pytest.fixture
async def home_assistant(tmp_path: Path, broker: Mosquitto) -> AsyncIterator[HomeAssistant]:
    if not (HOME / ".sitewarden").exists():
        if os.environ.get("CI") and not (HOME / "unavailable").exists():
            pytest.fail("Home Assistant is missing: make peers")
        pytest.skip("Home Assistant is missing, or does not install here: make peers")
    command = [
        str(HOME / "bin" / "python"),
        str(HERE / "peers" / "home_assistant.py"),
        str(tmp_path / "ha"),
        str(broker.port),
    ]
    with (tmp_path / "ha.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=log, limit=1 << 24
        )
        made = HomeAssistant(process)
        following = asyncio.create_task(made.follow())
        yield made
        following.cancel()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_home_assistant_shows_the_plant(
    tmp_path: Path, broker: Mosquitto, home_assistant: HomeAssistant, eventually
) -> None:
    names, rules = list(UNITS), [rule("humidity"), rule("h2s", life_safety=True)]
    hass = home_assistant
    async with site(tmp_path, broker.port, names, rules, announced(names, rules)) as made:
        for number, name in enumerate(names):
            made.measure(name, 20.5 + number)
        await eventually(
            lambda: (
                [hass.state("sensor", f"store_th1_{name}") for name in names]
                == [str(20.5 + number) for number in range(len(names))]
            ),
            "every point is there with its value",
            bound_s=120,
        )
        assert hass.says("sensor", "store_th1_humidity")["device_class"] == "humidity"
        assert hass.says("sensor", "store_th1_humidity")["unit_of_measurement"] == "%"
        assert hass.says("sensor", "store_th1_temperature")["device_class"] == "temperature"
        assert "device_class" not in hass.says("sensor", "store_th1_pressure")  # it has no MPa
        assert hass.says("sensor", "store_th1_vacuum")["device_class"] == "pressure"
        assert hass.says("sensor", "store_th1_h2s")["unit_of_measurement"] == "ppm"
        assert hass.state("binary_sensor", "gateway") == "on"
        assert hass.state("binary_sensor", "alarm_store_th1_humidity_high") == "off"
        assert hass.says("binary_sensor", "alarm_store_th1_h2s_high")["device_class"] == "safety"
        await made.alarm("humidity", "raised", "UNACK")
        await eventually(lambda: hass.state("binary_sensor", "alarm_store_th1_humidity_high") == "on", "the alarm")
        await eventually(lambda: hass.state("sensor", "alarms_unacked") == "1", "it is counted")
        made.measure("humidity", None, Quality.BAD)
        await eventually(lambda: hass.state("sensor", "store_th1_humidity") == "unavailable", "bad is not shown")
        made.measure("humidity", 60.0)
        await eventually(lambda: hass.state("sensor", "store_th1_humidity") == "60.0", "good again")
        assert hass.problems == []
        made.change(["h2s"], [], announced(["h2s"]))
        await eventually(lambda: hass.state("sensor", "store_th1_humidity") == "not there", "it was taken out")
        await made.stop()
        await eventually(lambda: hass.state("sensor", "store_th1_h2s") == "unavailable", "the gateway has gone")
