"""Hot reload with a real broker: what is gone is emptied there, and devices that stay lose no message."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from sitewarden.edge import app as app_module
from sitewarden.edge.app import run_edge
from sitewarden.edge.control import ask_gateway
from sitewarden.edge.status import Health
from sitewarden.sensors.mqtt_ingest import MqttHealth

BASE = "sw/v1/s1"
PEOPLE = "id,name,name_en,roles,areas,phone\nli,李,Li,keeper,*,\nwang,王,Wang,officer,*,\n"
SITE = """
[site]
id = "s1"
name = "印染"
name_en = "Dyeing"
[gateway]
id = "gw1"
[web]
port = {port}
[[area]]
id = "pit"
name = "池"
name_en = "Pit"
"""


def device(name: str, scale: float = 1.0) -> str:
    return f"""
[[mqtt_device]]
id = "{name}"
area = "pit"
topic = "devices/{name}"
every_s = 5
  [[mqtt_device.point]]
  name = "ch4"
  label = "甲烷"
  label_en = "methane"
  path = "v"
  unit = "%LEL"
  quantity = "gas"
  scale = {scale}
"""


def limits(name: str, hi: float) -> str:
    return f'\n[[alarm]]\npoint = "pit.{name}.ch4"\nhi = {hi}\non_delay_s = 0\noff_delay_s = 0\n'


@dataclass
class Rig:
    """A site with brokers and its daemon; `health` is what pages would see."""

    folder: Path
    port: int
    program: str
    free_port: Callable[[], int]
    task: asyncio.Task[None] | None = None
    brokers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    health: Health | None = None

    @property
    def up(self) -> bool:
        """The dashboards and every link are connected."""
        assert self.health is not None
        return self.health.broker.state == "up" and all(link.connected for link in self.health.links.values())

    async def broker(self) -> int:
        """Start one; its port."""
        port = self.free_port()
        folder = self.folder / f"broker-{port}"
        folder.mkdir()
        conf = folder / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        conf.write_text(f"{user}listener {port} 127.0.0.1\nallow_anonymous true\npersistence false\n", "utf-8")
        with (folder / "log").open("wb") as log:
            self.brokers.append(subprocess.Popen([self.program, "-c", str(conf)], stdout=log, stderr=log))
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    return port
                await asyncio.sleep(0.02)

    def write(self, mqtt: int | None, *parts: str) -> None:
        (self.folder / "people.csv").write_text(PEOPLE, "utf-8")
        table = f'[mqtt]\nurl = "mqtt://127.0.0.1:{mqtt}"\n' if mqtt else ""
        (self.folder / "site.toml").write_text(SITE.format(port=self.port) + table + "".join(parts), "utf-8")

    async def start(self) -> None:
        said: list[str] = []
        run = run_edge(self.folder / "site.toml", self.folder / "data", say=said.append)
        self.task = asyncio.create_task(run, name="edge")
        async with asyncio.timeout(30):
            while not said:
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.01)

    async def reload(self) -> list[str]:
        status, answer = await ask_gateway(self.folder / "data", "POST", "/v1/reload", {})
        assert status == 200, answer
        return answer["changes"]

    def link(self) -> MqttHealth:
        assert self.health is not None
        (link,) = self.health.links.values()
        return link

    async def tree(self, port: int) -> dict[str, Any]:
        """What the broker holds now, for somebody who comes anew."""
        found: dict[str, Any] = {}
        async with aiomqtt.Client("127.0.0.1", port, timeout=10) as client:
            await client.subscribe("sw/#", qos=1)
            await client.publish("sw/end", b"1", qos=1)
            async for message in client.messages:
                if str(message.topic) == "sw/end":
                    return found
                if message.retain:
                    found[str(message.topic).removeprefix(f"{BASE}/")] = json.loads(bytes(message.payload))
        raise AssertionError


@pytest.fixture
async def rig(tmp_path: Path, need, free_port, monkeypatch) -> AsyncIterator[Rig]:
    made = Rig(tmp_path, free_port(), need("mosquitto", "apt install mosquitto"), free_port)

    def spied(**parts: Any) -> Health:
        made.health = Health(**parts)
        return made.health

    monkeypatch.setattr(app_module, "Health", spied)
    try:
        yield made
    finally:
        if made.task is not None:
            made.task.cancel()
            await asyncio.wait([made.task], timeout=30)
        for process in made.brokers:
            process.kill()
            process.wait(20)


async def test_what_is_gone_is_emptied_and_devices_that_stay_lose_nothing(rig: Rig, eventually):
    port = await rig.broker()
    rig.write(port, device("gas1"), device("gas2"), limits("gas2", 50.0))
    await rig.start()
    sent = 0
    stop = asyncio.Event()

    async def publish() -> None:
        nonlocal sent
        async with aiomqtt.Client("127.0.0.1", port, timeout=10) as client:
            await client.publish("devices/gas2", json.dumps({"v": 80}), qos=1)
            while not stop.is_set():
                await client.publish("devices/gas1", json.dumps({"v": sent % 40}), qos=1)
                sent += 1
                await asyncio.sleep(0.005)

    async def has(*leaves: str) -> bool:
        return set(leaves) <= (await rig.tree(port)).keys()

    await eventually(lambda: rig.up, "connected")
    task = asyncio.create_task(publish(), name="publish")
    old = ("pit/gas2/ch4/meta", "pit/gas2/ch4/value", "alarm/pit.gas2.ch4.high/state", "alarm/pit.gas2.ch4.stale/state")
    await eventually(lambda: has(*old, "pit/gas1/ch4/value"), "everything is retained")
    assert (await rig.tree(port))["alarm/pit.gas2.ch4.high/state"]["state"] == "UNACK"
    for turn in range(8):
        rig.write(port, device("gas1"), device("gas3", scale=1 + turn))
        changes = await rig.reload()
        assert changes[0].startswith(
            "mqtt_device pit.gas3: point ch4: scale" if turn else "mqtt_device pit.gas2: removed"
        )
    await eventually(lambda: has("pit/gas3/ch4/meta", "alarm/pit.gas3.ch4.stale/state"), "the new one is described")
    tree = await rig.tree(port)
    assert not [topic for topic in tree if "gas2" in topic]
    assert tree["alarm/summary"]["open"] == 0
    stop.set()
    await task
    link = rig.link()
    await eventually(lambda: link.devices["pit.gas1"].messages == sent, lambda: f"{link.devices} of {sent}")
    assert link.reconnects == 0
    assert not link.devices["pit.gas1"].rejects
    assert link.devices.keys() == {"pit.gas1", "pit.gas3"}


async def test_limits_are_published_again(rig: Rig, eventually):
    port = await rig.broker()
    rig.write(port, device("gas1"))
    await rig.start()

    async def hi() -> Any:
        return (await rig.tree(port)).get("pit/gas1/ch4/meta", {}).get("limits", {}).get("hi")

    rig.write(port, device("gas1"), limits("gas1", 30.0))
    await eventually(lambda: rig.up, "up")
    await rig.reload()
    await eventually(lambda: _is(hi, 30.0), "the limit")
    rig.write(port, device("gas1"), limits("gas1", 40.0))
    await rig.reload()
    await eventually(lambda: _is(hi, 40.0), "the other limit")


async def _is(ask: Callable[[], Any], value: Any) -> bool:
    return await ask() == value


async def test_another_broker_none_and_one_again(rig: Rig, eventually):
    first, second = await rig.broker(), await rig.broker()
    rig.write(first, device("gas1"))
    await rig.start()

    async def published(port: int) -> bool:
        """What a device tells this broker comes back from it."""
        async with aiomqtt.Client("127.0.0.1", port, timeout=10) as client:
            await client.publish("devices/gas1", json.dumps({"v": port}), qos=1)
        return (await rig.tree(port)).get("pit/gas1/ch4/value", {}).get("v") == port

    await eventually(lambda: published(first), "on the first")
    rig.write(second, device("gas1"))
    assert await rig.reload() == [f"mqtt.url mqtt://127.0.0.1:{first} -> mqtt://127.0.0.1:{second}"]
    await eventually(lambda: published(second), "on the second")
    assert (await rig.tree(first))["gw/gw1/status"] == {"online": False}
    rig.write(None)
    assert await rig.reload() == ["[mqtt]: removed", "mqtt_device pit.gas1: removed"]
    await eventually(lambda: _offline(rig, second), "off")
    rig.write(first, device("gas1"))
    await rig.reload()
    await eventually(lambda: published(first), "on the first again")
    assert rig.task is not None
    assert not rig.task.done()


async def _offline(rig: Rig, port: int) -> bool:
    return (await rig.tree(port))["gw/gw1/status"] == {"online": False}
