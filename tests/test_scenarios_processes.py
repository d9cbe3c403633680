"""Scenarios 3, 9 and 10 of docs/alarms.md on the whole gateway in real time: a robot and a modem that refuse, a broker
that loses its memory, a page that never reads, and a gateway of its own network without any route.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiomqtt
import argon2
import pytest
from sitewarden.demo.broker import USERS, prepare_broker
from sitewarden.serving import secrets as secrets_module
from sitewarden.tests.peers.fake_modem import FakeModem
from sitewarden.tests.peers.robot_servers import TOKEN, RobotServers
from sitewarden.tests.peers.whole_gateway import (
    DEVICE,
    QUIET,
    Gateway,
    Sensors,
    alarm_toml,
    process,
    query,
    reconcile,
)

Eventually = Callable[..., Awaitable[Any]]
HUMIDITY = "store.th1.humidity"
HUMID = f"{HUMIDITY}.high"
HUMID_TOML = alarm_toml(HUMIDITY, hi="{ limit = 75.0, priority = 3 }")
PASSWORDS = {user: f"password-of-{user}" for user in USERS}


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """PIN hashes cost what they must elsewhere."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(secrets_module, "_HASHER", hasher)


@pytest.fixture
async def sensors() -> AsyncIterator[Sensors]:
    async with Sensors().serving() as made:
        yield made


# --- scenario 3 ---


async def test_scenario_3_the_keeper_is_told_and_the_officer_is_not(
    tmp_path: Path, sensors: Sensors, free_port, eventually: Eventually
) -> None:
    """The officer's robot answers HTTP 200 with errcode 45009, the modem +CMS ERROR: 500."""
    servers = RobotServers()
    officers, keepers = servers.groups["wecom"], servers.groups["webhook"]
    officers.refusal = {"errcode": 45009, "errmsg": "api freq out of limit"}
    with FakeModem(tmp_path) as modem:
        modem.stuck, modem.cure = "+CMS ERROR: 500", "nothing cures it"
        async with servers.running():
            gateway = Gateway(tmp_path, free_port(), sensors, _split_site(tmp_path, servers, modem))
            gateway.prepare()
            async with gateway.running():
                sensors.registers[1] = [800, 240]
                await eventually(lambda: gateway.has(HUMID, "raised"), "raised")
                raised_s = time.monotonic()
                await eventually(lambda: _told(keepers.taken) == {"li"}, "the keeper's robot took it")
                failed = "system.delivery_failed.wang"
                await eventually(lambda: gateway.has(failed, "raised"), gateway.story, bound_s=60)
                assert time.monotonic() - raised_s <= 60
                await eventually(lambda: sensors.coils[0], "the horn", bound_s=60)
                assert await gateway.acknowledge(HUMID, "li") == "UNACK", "one of two"
                sql = "SELECT outcome FROM delivery_attempt WHERE channel = 'sms' ORDER BY n"
                await eventually(lambda: len(query(gateway.journal, sql)) > 1, "tried again", bound_s=120)
                assert modem.messages == []
                modem.stuck = ""
                await eventually(lambda: modem.messages, "told after all", bound_s=120)
                async with gateway.page("li") as page:
                    assert (await page.alarm(HUMID) or {})["state"] == "UNACK", "told is not acknowledged"
                assert await gateway.acknowledge(HUMID, "wang") == "ACKED"
                sensors.registers[1] = list(QUIET)
                await eventually(lambda: gateway.has(HUMID, "closed"), "closed")
    assert reconcile(gateway) == 1
    assert [body["person"] for body in _bodies(keepers.taken) if body["facts"]["kind"] == "alarm.raised"] == ["li"]


def _split_site(folder: Path, servers: RobotServers, modem: FakeModem) -> str:
    key = folder / "wecom.key"
    key.write_text(TOKEN, "utf-8")
    key.chmod(0o600)
    return f"""
[alerts]
channels = ["keepers", "officers", "sms", "post"]
delivery_deadline_s = 5.0
group_wait_s = {{ 3 = 0.0 }}
[[channel]]
id = "keepers"
kind = "webhook"
url = "{servers.url}/webhook/{TOKEN}"
roles = ["keeper"]
[[channel]]
id = "officers"
kind = "wecom"
key_file = "wecom.key"
base_url = "{servers.base("wecom")}"
roles = ["officer"]
[[channel]]
id = "sms"
kind = "sms"
serial = "{modem.path}"
answer_s = 3.0
submit_s = 10.0
register_s = 5.0
pause_s = 0.1
pause_max_s = 1.0
[[channel]]
id = "post"
kind = "beacon"
parts = {{ siren = "store.relay.siren", red = "store.relay.lamp" }}
[[device]]
id = "relay"
area = "store"
bus = "plant"
unit_id = 200
profile = "relay_siren"
poll_s = 1.0
{DEVICE.format(unit=1, poll_s=0.5)}
{HUMID_TOML}
"""


def _bodies(taken: list[Any]) -> list[dict[str, Any]]:
    return [message.body for message in taken]


def _told(taken: list[Any]) -> set[str]:
    return {body["person"] for body in _bodies(taken)}


# --- scenario 9 ---


class Mosquitto:
    """A broker that can be killed and robbed of its memory."""

    def __init__(self, folder: Path, port: int) -> None:
        self.broker = prepare_broker(folder / "broker", port, PASSWORDS, kind="mosquitto")
        self.folder = folder / "broker"
        self.started: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self.started = subprocess.Popen(self.broker.command, stdout=log, stderr=log)

    def kill(self) -> None:
        if self.started is not None:
            self.started.kill()
            self.started.wait(20)

    def wipe(self) -> None:
        for kept in self.folder.glob("*.db*"):
            kept.unlink()

    async def tree(self) -> dict[str, bytes]:
        """Everything retained, for somebody who comes now; nothing while it cannot be reached."""
        found: dict[str, bytes] = {}
        with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
            password = PASSWORDS["gateway"]
            known = aiomqtt.Client("127.0.0.1", self.broker.port, username="gateway", password=password, timeout=10)
            async with asyncio.timeout(15), known as client:
                await client.subscribe("sw/v1/s1/#", qos=1)
                await client.publish("sw/v1/s1/end", b"1", qos=1)
                async for message in client.messages:
                    if message.topic.value == "sw/v1/s1/end":
                        break
                    if message.retain:
                        found[message.topic.value] = bytes(message.payload)
        return found


def about(tree: dict[str, bytes], device: str) -> dict[str, bytes]:
    """What is retained of one device."""
    return {topic: data for topic, data in tree.items() if device in topic}


STATUS = "sw/v1/s1/gw/gw1/status"
RESTLESS = "store.th2.humidity.high"


async def test_scenario_9_a_broker_that_lost_its_memory_and_pages_that_never_read(
    tmp_path: Path, sensors: Sensors, free_port, need, eventually: Eventually
) -> None:
    need("mosquitto", "apt install mosquitto")
    mosquitto = Mosquitto(tmp_path, free_port())
    sensors.registers[1] = [800, 240]
    gateway = Gateway(tmp_path, free_port(), sensors, _dashboard_site(mosquitto))
    gateway.prepare()
    leaves = (
        *("store/th1/humidity/meta", "store/th1/humidity/value"),
        *(f"alarm/{HUMID}/state", f"alarm/{HUMID}/ladder", "gw/gw1/health"),
    )

    async def whole() -> dict[str, bytes]:
        tree = await mosquitto.tree()
        is_whole = (
            all(f"sw/v1/s1/{leaf}" in tree for leaf in leaves) and b"UNACK" in tree[f"sw/v1/s1/alarm/{HUMID}/state"]
        )
        return tree if is_whole else {}

    async def is_online(wanted: bool) -> bool:
        told = (await mosquitto.tree()).get(STATUS)
        return told is not None and json.loads(told)["online"] is wanted

    mosquitto.start()
    try:
        async with process(gateway) as edge:
            before = await eventually(whole, "the tree", bound_s=90)
            mosquitto.kill()
            mosquitto.wipe()
            async with never_reading(gateway, 10):
                await _alarms_come_in_time(gateway, sensors, eventually)
            mosquitto.start()
            await eventually(lambda: is_online(True), "connected again", bound_s=90)
            connected_s = time.monotonic()
            after = await eventually(whole, "the tree is back", bound_s=60)
            assert time.monotonic() - connected_s < 20, "5 s, on a machine that does nothing else"
            assert about(after, "th1") == about(before, "th1")
            assert [topic for topic in after.keys() ^ before.keys() if "th2" not in topic] == []
            edge.kill()
            await eventually(lambda: is_online(False), "the Will", bound_s=60)
    finally:
        mosquitto.kill()
    reconcile(gateway)


@contextlib.asynccontextmanager
async def never_reading(gateway: Gateway, count: int) -> AsyncIterator[None]:
    """So many open pages that take nothing of what they are sent."""
    async with gateway.page("zhao") as page, contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            answer = await stack.enter_async_context(page.http.get(f"{page.base}/live"))
            assert answer.status == 200
        yield


async def _alarms_come_in_time(gateway: Gateway, sensors: Sensors, eventually: Eventually) -> None:
    """From the wire to the journal, several times."""
    for _ in range(3):
        before_s, seen = time.monotonic(), len(gateway.of_alarm(RESTLESS))
        sensors.registers[2] = [800, 240] if sensors.registers[2][0] == QUIET[0] else list(QUIET)
        await eventually(lambda n=seen: len(gateway.of_alarm(RESTLESS)) > n, "it is committed", every_s=0.05)
        assert time.monotonic() - before_s < 5, "0.2 s to the next poll"


def _dashboard_site(mosquitto: Mosquitto) -> str:
    return f"""
[mqtt]
url = "mqtt://127.0.0.1:{mosquitto.broker.port}"
username = "gateway"
password_file = "{mosquitto.broker.password_files["gateway"].resolve()}"
{DEVICE.format(unit=1, poll_s=3600.0)}
{DEVICE.format(unit=2, poll_s=0.2)}
{HUMID_TOML}
{alarm_toml("store.th2.humidity", hi="{ limit = 75.0, priority = 3 }", reopen_s=0.0)}
"""


# --- scenario 10 ---


def _networks() -> str:
    """Why a network of one's own cannot be made here; empty when it can."""
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        return "unshare or ip is not installed: apt install util-linux iproute2"
    tried = subprocess.run(
        ["unshare", "-n", "ip", "link", "set", "lo", "up"], capture_output=True, text=True, check=False
    )
    return "" if tried.returncode == 0 else f"no network namespace can be made: {tried.stderr.strip()}"


def test_scenario_10_a_network_without_any_route(tmp_path: Path) -> None:
    """The gateway, its sensor, a robot of the house and both people are alone on the loopback of a network."""
    reason = _networks()
    if reason:
        pytest.skip(reason)
    script = 'ip link set lo up && exec "$@"'
    command = [
        "unshare",
        "-n",
        "sh",
        "-c",
        script,
        "sh",
        sys.executable,
        "-m",
        "sitewarden.tests.peers.alone",
        str(tmp_path),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=os.environ)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "route": "Network is unreachable",
        "told": ["li", "wang"],
        "states": ["UNACK", "ACKED"],
        "link": "down",
        "closed": 1,
    }
