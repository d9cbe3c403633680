"""The demo's siren and stack light with real processes: broker, plant and gateway, and the site.toml that is shipped.

What stands at the post is read where a person sees it, on the simulated plant's page.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime as dt
import json
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import pytest
from sitewarden.demo.broker import USERS, prepare_broker
from sitewarden.demo.config import Addresses, Ports, fit_site
from sitewarden.demo.keep import plain_files
from sitewarden.edge import app
from sitewarden.edge.alerts.channels import Channels

PINS = {"keeper_sun": "246813", "officer_wang": "975312"}
H2S, CO = "sewage_pit.gas4.h2s", "sewage_pit.gas4.co"
DARK = {"siren": "off", "red": "off", "amber": "off", "green": "off"}
CALM = {**DARK, "green": "on"}
RINGING = {**DARK, "siren": "on", "red": "fast"}
SILENCED = {**DARK, "red": "fast"}
ACKNOWLEDGED = {**DARK, "red": "on"}
GATEWAY_GONE = {**DARK, "amber": "slow"}
SOUNDS_WITHIN_S = 5.0
WATCHDOG_S = 15.0


@dataclass
class Person:
    """Signed in to the gateway's pages."""

    http: aiohttp.ClientSession
    base: str
    csrf: str

    async def get(self, path: str) -> Any:
        async with self.http.get(f"{self.base}/api/v1/{path}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def alarm(self, point: str) -> dict[str, Any] | None:
        """What is open at a point's upper limit."""
        alarms = (await self.get("alarms"))["alarms"]
        return next((alarm for alarm in alarms if alarm["id"] == f"{point}.high"), None)

    async def acknowledge(self, point: str) -> str:
        alarm = await self.alarm(point)
        assert alarm is not None
        url, body = f"{self.base}/api/v1/alarms/{alarm['id']}/ack", {"occurrence": alarm["occurrence"], "role": None}
        async with self.http.post(url, json=body, headers={"X-CSRF-Token": self.csrf}) as answer:
            assert answer.status == 200, await answer.text()
            return (await answer.json())["alarm"]["state"]

    async def fault(self) -> tuple[str, str]:
        """Of the channel `siren`: what is wrong, and what is said of it."""
        (channel,) = [one for one in (await self.get("status"))["channels"] if one["id"] == "siren"]
        return channel["fault"], channel["error_zh"]


@dataclass
class Post:
    """The tower, and everything that runs behind it."""

    data: Path
    ports: Ports
    dashboard_password: str
    http: aiohttp.ClientSession
    eventually: Callable[..., Any]
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        with (self.data / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command or (sys.executable, "-m", "sitewarden", "edge", *self._edge()), stdout=log, stderr=log
            )

    def _edge(self) -> tuple[str, ...]:
        return ("--config", str(self.data / "site.toml"), "--data", str(self.data / "edge"))

    async def end(self, name: str, number: int) -> int:
        """Send a signal, and wait for the end. Returns the exit code."""
        self.processes[name].send_signal(number)
        return await asyncio.to_thread(self.processes[name].wait, 40)

    def log(self, name: str = "edge") -> str:
        return (self.data / f"{name}.log").read_text(errors="replace")[-3000:]

    async def tower(self) -> dict[str, Any]:
        (tower,) = [d for d in (await self._plant("points"))["devices"] if d["id"] == "sewage_pit.tower1"]
        return tower

    async def shown(self) -> dict[str, str]:
        return {output["id"]: output["state"] for output in (await self.tower())["outputs"]}

    async def shows(self, wanted: dict[str, str], bound_s: float = 30.0) -> float:
        """Wait for a picture. Returns how long it took, in seconds."""
        began_s, seen = time.monotonic(), {}

        async def right() -> bool:
            nonlocal seen
            seen = await self.shown()
            return seen == wanted

        await self.eventually(right, lambda: f"{wanted}, is {seen}: {self.log()}", bound_s=bound_s, every_s=0.02)
        return time.monotonic() - began_s

    async def gas(self, point: str, value: float | None) -> None:
        await self._plant(f"points/{point}", {"value": value})

    async def board(self, mode: str) -> None:
        await self._plant("devices/tower1", {"mode": mode})

    async def silence(self) -> dict[str, Any]:
        """A panel of the control room silences. Returns the gateway's answer."""
        nonce = uuid.uuid4().hex
        until = dt.datetime.now(dt.UTC) + dt.timedelta(minutes=1)
        client = aiomqtt.Client(
            "127.0.0.1", self.ports.mqtt, username="dashboard", password=self.dashboard_password, timeout=20
        )
        base = "sw/v1/hengfeng_dyeing"
        async with asyncio.timeout(30), client:
            await client.subscribe(f"{base}/rsp/dashboard", qos=1)
            command = {"nonce": nonce, "expires_at": until.isoformat(timespec="seconds").replace("+00:00", "Z")}
            await client.publish(f"{base}/cmd/dashboard/silence", json.dumps(command), qos=1)
            async for message in client.messages:
                answer = json.loads(bytes(message.payload))
                if answer["nonce"] == nonce:
                    return answer
        raise AssertionError("no answer")

    @contextlib.asynccontextmanager
    async def person(self, who: str) -> AsyncIterator[Person]:
        base = f"http://127.0.0.1:{self.ports.edge}"
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            body = {"person": who, "pin": PINS[who]}
            async with http.post(f"{base}/api/v1/session", json=body) as answer:
                assert answer.status == 200, await answer.text()
                csrf = (await answer.json())["csrf"]
            yield Person(http, base, csrf)

    async def _plant(self, path: str, body: Any = None) -> Any:
        url = f"http://127.0.0.1:{self.ports.plant}/api/{path}"
        async with self.http.get(url) if body is None else self.http.post(url, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def plant_answers(self) -> bool:
        with contextlib.suppress(aiohttp.ClientError):
            return bool(await self._plant("points"))
        return False


@pytest.fixture
async def post(tmp_path: Path, root: Path, need, free_port, eventually) -> AsyncIterator[Post]:
    """The plant runs; the gateway is configured and not started. Nobody is at headquarters, and no robot answers."""
    need("mosquitto", "apt install mosquitto")
    ports = Ports(**{name: free_port() for name in ("mqtt", "modbus", "plant", "receiver", "cloud", "edge")})
    passwords = {user: f"password-of-{user}" for user in USERS}
    broker = prepare_broker(tmp_path / "broker", ports.mqtt, passwords, kind="mosquitto")
    async with aiohttp.ClientSession() as http:
        made = Post(tmp_path, ports, passwords["dashboard"], http, eventually)
        _configure(made, root / "config", {name: str(path.resolve()) for name, path in broker.password_files.items()})
        try:
            made.start("broker", *broker.command)
            plant = ("plant", "--config", str(tmp_path / "plant.json"))
            made.start("plant", sys.executable, "-m", "sitewarden", *plant)
            await eventually(made.plant_answers, lambda: made.log("plant"))
            yield made
        finally:
            for process in made.processes.values():
                process.kill()
                process.wait(20)


def _configure(post: Post, config: Path, password_files: dict[str, str]) -> None:
    data, ports = post.data, post.ports
    for name in plain_files(config):
        (data / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(config / name, data / name)
    addresses = Addresses(
        ports=ports,
        serial=str(data / "rs485"),
        mqtt_username="gateway",
        mqtt_password_file=password_files["gateway"],
        public_key="",
    )
    (data / "site.toml").write_text(fit_site((config / "site.toml").read_text("utf-8"), addresses), "utf-8")
    plant = {
        "http_port": ports.plant,
        "modbus_port": ports.modbus,
        "serial_link": str(data / "rs485"),
        "mqtt_url": f"mqtt://127.0.0.1:{ports.mqtt}",
        "mqtt_username": "devices",
        "mqtt_password_file": password_files["devices"],
        "publish_s": 0.5,
        "seed": 7,
    }
    (data / "plant.json").write_text(json.dumps(plant), "utf-8")
    (data / "edge").mkdir()
    for person, pin in PINS.items():
        secrets = ("--secrets", str(data / "edge" / "secrets.db"), "--pin-stdin")
        command = (sys.executable, "-m", "sitewarden", "pin", "set", person, *secrets)
        subprocess.run(command, input=pin, text=True, check=True, timeout=60, capture_output=True)


def test_the_example_of_the_document_is_the_profile_that_the_demo_uses(root: Path) -> None:
    (example,) = re.findall(
        r"^```toml\n(.*?)^```", (root / "docs" / "beacon.md").read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    assert example == (root / "config" / "profiles" / "stack_light.toml").read_text("utf-8")


async def test_gas_sounds_until_it_is_silenced_or_two_persons_know(post: Post) -> None:
    assert await post.shown() == DARK, "nobody has written yet"
    post.start("edge")
    await post.shows(CALM)
    async with post.person("keeper_sun") as keeper, post.person("officer_wang") as officer:
        await post.gas(H2S, 20.0)
        assert await post.shows(RINGING) < SOUNDS_WITHIN_S

        assert (await post.silence())["ok"]
        await post.shows(SILENCED)
        silenced = await keeper.alarm(H2S)
        assert silenced is not None
        assert (silenced["state"], silenced["priority"], silenced["acks"]) == ("UNACK", 1, [])
        assert (await post.silence())["reason"] == "nothing_sounds"

        await post.gas(CO, 50.0)
        assert await post.shows(RINGING) < SOUNDS_WITHIN_S, "what is new sounds again"
        assert [await keeper.acknowledge(point) for point in (H2S, CO)] == ["UNACK", "UNACK"]
        assert [await officer.acknowledge(H2S)] == ["ACKED"]
        assert await post.shown() == RINGING, "one of two who must know is not enough"
        assert [await officer.acknowledge(CO)] == ["ACKED"]
        await post.shows(ACKNOWLEDGED)
        assert await keeper.fault() == ("", "")


async def test_a_board_that_is_unplugged_is_a_fault_of_the_channel_until_it_is_back(post: Post) -> None:
    post.start("edge")
    await post.shows(CALM)
    async with post.person("officer_wang") as officer:
        assert await officer.fault() == ("", "")
        await post.board("dead")

        async def silent() -> bool:
            return (await officer.fault())[0] == "silent"

        await post.eventually(silent, "the channel says that nobody answers")
        _, said = await officer.fault()
        assert "sewage_pit.tower1." in said
        assert "设备没有应答" in said
        assert await post.shows(GATEWAY_GONE) < 2 * WATCHDOG_S, "the board has its own way to say it"

        await post.gas(H2S, 20.0)
        await post.eventually(lambda: officer.alarm(H2S), "an alarm that the board cannot know")
        assert (await post.shown())["siren"] == "off"
        await post.board("ok")
        await post.shows(RINGING, bound_s=90.0)

        async def well() -> bool:
            return await officer.fault() == ("", "")

        await post.eventually(well, "the channel is well again")


@pytest.mark.parametrize(("mode", "said"), [("deaf", "设备没有应答"), ("stuck", "设备没有照做")])
async def test_a_siren_that_does_not_do_what_is_written_is_not_believed(post: Post, mode: str, said: str) -> None:
    post.start("edge")
    await post.shows(CALM)
    await post.board(mode)
    async with post.person("officer_wang") as officer:
        await post.gas(H2S, 20.0)

        async def told() -> bool:
            return said in (await officer.fault())[1]

        await post.eventually(told, lambda: f"{said}: {post.log()}")
        assert (await post.shown())["siren"] == "off"
        await post.board("ok")
        await post.shows(RINGING, bound_s=90.0)


async def test_a_gateway_that_dies_leaves_amber_and_a_siren_that_sounds(post: Post) -> None:
    post.start("edge")
    await post.gas(H2S, 20.0)
    await post.shows(RINGING)
    await post.end("edge", signal.SIGKILL)
    assert await post.shown() == RINGING, "the tower cannot know yet"
    assert await post.shows({**RINGING, "amber": "slow"}) < 2 * WATCHDOG_S
    assert (await post.tower())["lost"]
    post.start("edge")
    await post.shows(RINGING)


async def test_a_gateway_that_is_stopped_lights_amber_where_the_board_has_no_watchdog(post: Post) -> None:
    site = post.data / "site.toml"
    text, count = re.subn(r"^has_watchdog = true", "has_watchdog = false", site.read_text("utf-8"), flags=re.MULTILINE)
    assert count == 1
    site.write_text(text, "utf-8")
    post.start("edge")
    await post.shows(CALM)
    assert await post.end("edge", signal.SIGTERM) == 0, post.log()
    assert await post.shown() == GATEWAY_GONE
    assert not (await post.tower())["lost"], "it was written, not guessed by the board"


async def test_channels_close_after_the_outbox_and_before_the_wires(post: Post, monkeypatch) -> None:
    """A message that waits would else look for other ways while there are none, and no lamp could say goodbye."""
    turning: list[set[str]] = []

    class Watched(Channels):
        async def __aexit__(self, *error: object) -> None:
            turning.append({task.get_name() for task in asyncio.all_tasks()})
            await super().__aexit__(*error)

    monkeypatch.setattr(app, "Channels", Watched)
    gateway = asyncio.create_task(app.run_edge(post.data / "site.toml", post.data / "edge"))
    try:
        await post.shows(CALM)
    finally:
        gateway.cancel()
        await asyncio.wait([gateway], timeout=40)
    assert gateway.cancelled()
    (names,) = turning
    assert "outbox" not in names
    assert {"bus-plant_tcp", "bus-rs485", "commit", "tick"} <= names
