"""The proof test on the whole gateway: a button on one side; on the other a modem that reports, a tower that is read
back, a robot, a broker, headquarters and an open page (docs/proof-test.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import shutil
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import argon2
import pytest
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.edge.proof import run as run_module
from sitewarden.edge.proof.plan import Bounds
from sitewarden.serving import secrets as secrets_module
from sitewarden.sync.keys import load_or_create_key, public_key_text
from sitewarden.tests.peers import mosquitto
from sitewarden.tests.peers.alert_doubles import in_virtual_time
from sitewarden.tests.peers.fake_modem import FakeModem
from sitewarden.tests.peers.modbus_lamp import OUTPUTS, ModbusLamp
from sitewarden.tests.peers.robot_servers import TOKEN, RobotServers
from sitewarden.tests.peers.virtual_time import within
from sitewarden.tests.peers.whole_gateway import (
    DEVICE,
    Gateway,
    Page,
    Sensors,
    alarm_toml,
    everything_told,
    import_everything,
    process,
    query,
    reconcile,
)

Eventually = Callable[..., Awaitable[Any]]
POINT = "store.th1.humidity"
ALARM = f"{POINT}.high"
TEST = f"test.{ALARM}"
HIGH = {"hi": "{ limit = 75.0, priority = 3 }", "hihi": "{ limit = 90.0, priority = 1 }"}


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """PIN hashes cost what they must elsewhere."""
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(secrets_module, "_HASHER", hasher)


@dataclass
class Plant:
    """A gateway and everything that its alarms reach."""

    gateway: Gateway
    sensors: Sensors
    servers: RobotServers
    modem: FakeModem
    tower: ModbusLamp

    @property
    def texts(self) -> list[str]:
        """What people were sent."""
        robot = [json.dumps(message.body, ensure_ascii=False) for message in self.servers.groups["webhook"].taken]
        return [*robot, *(text for _, text in self.modem.messages)]


@contextlib.asynccontextmanager
async def headquarters(folder: Path, gateway: Path) -> AsyncIterator[int]:
    """Its port. It knows the key of the gateway with this data folder."""
    gateway.mkdir()
    key = load_or_create_key(gateway / "gateway.key")
    known = GatewayTable(id="gw1", name="厂", name_en="Plant", public_key=public_key_text(key))
    config = CloudConfig(cloud=CloudTable(name="总部", name_en="HQ", port=0), gateway=(known,), people={})
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_cloud(config, folder, ready=port.set_result))
        yield await port
        task.cancel()


@contextlib.asynccontextmanager
async def plant(folder: Path, root: Path, web: int) -> AsyncIterator[Plant]:
    """Everything runs; afterwards the stores are in order."""
    async with contextlib.AsyncExitStack() as stack:
        modem = stack.enter_context(FakeModem(folder))
        servers = RobotServers()
        await stack.enter_async_context(servers.running())
        sensors = await stack.enter_async_context(Sensors().serving())
        tower = await stack.enter_async_context(ModbusLamp())
        broker = await stack.enter_async_context(mosquitto.running(folder / "broker"))
        cloud = await stack.enter_async_context(headquarters(folder / "cloud", folder / "data"))
        (folder / "broker.password").write_text("secret", "utf-8")
        (folder / "broker.password").chmod(0o600)
        shutil.copytree(root / "config" / "profiles", folder / "profiles")
        site = f"""
[profiles]
folder = "profiles"
[mqtt]
url = "mqtt://127.0.0.1:{broker.port}"
username = "gw"
password_file = "broker.password"
[cloud]
url = "http://127.0.0.1:{cloud}"
{_channels(servers, "sms", "post")}
[[channel]]
id = "sms"
kind = "sms"
serial = "{modem.path}"
answer_s = 3.0
pause_s = 0.1
[[channel]]
id = "post"
kind = "beacon"
parts = {{ {", ".join(f'{part} = "store.tower.{part}"' for part in OUTPUTS)} }}
[[bus]]
id = "gate"
kind = "tcp"
host = "127.0.0.1"
port = {tower.port}
[[device]]
id = "tower"
area = "store"
bus = "gate"
unit_id = 1
profile = "stack_light"
poll_s = 1.0
{DEVICE.format(unit=1, poll_s=0.5)}
{alarm_toml(POINT, **HIGH)}
"""
        gateway = Gateway(folder, web, sensors, site)
        gateway.prepare()
        async with gateway.running():
            yield Plant(gateway, sensors, servers, modem, tower)
        reconcile(gateway)


def _channels(servers: RobotServers, *others: str) -> str:
    return f"""
[alerts]
channels = {json.dumps(["hall", *others])}
unreachable_ok = true
[[channel]]
id = "hall"
kind = "webhook"
url = "{servers.url}/webhook/{TOKEN}"
"""


@dataclass
class Screen:
    """An open page, and what it was sent."""

    page: Page
    events: list[tuple[str, Any]] = field(default_factory=list)

    async def watch(self) -> None:
        name = ""
        async with self.page.http.get(f"{self.page.base}/live", timeout=aiohttp.ClientTimeout(total=None)) as answer:
            async for line in answer.content:
                key, _, value = line.decode().rstrip("\n").partition(": ")
                if key == "event":
                    name = value
                elif key == "data":
                    self.events.append((name, json.loads(value)))


@contextlib.asynccontextmanager
async def open_page(gateway: Gateway, person: str, eventually: Eventually) -> AsyncIterator[Screen]:
    async with gateway.page(person) as page, asyncio.TaskGroup() as group:
        screen = Screen(page)
        task = group.create_task(screen.watch())
        await eventually(lambda: screen.events, "the page is open")
        yield screen
        task.cancel()


async def quiet(made: Plant, page: Page, eventually: Eventually) -> None:
    """All is as on a usual day: values come, the modem is ready, the tower is green, broker and headquarters are there,
    and no alarm is open."""

    async def is_quiet() -> Any:
        status, points = await page.get("status"), (await page.get("points"))["points"]
        values = any(point["id"] == POINT and point["q"] == "good" for point in points)
        links = (status["link"]["state"], status["broker"]["state"])
        alarms = (await page.get("alarms"))["alarms"]
        is_green = made.tower.seen == {"siren": "off", "red": "off", "amber": "off", "green": "on"}
        return values and links == ("up", "up") and not alarms and is_green and made.modem.said("+CNMI")

    await eventually(is_quiet, "a usual day", bound_s=60)


async def finished(page: Page, eventually: Eventually, bound_s: float = 120) -> dict[str, Any]:
    """The newest run, when none is under way."""

    async def over() -> Any:
        proof = await page.get("proof")
        if proof["running"] or not proof["runs"] or proof["runs"][0]["result"] == "running":
            return None  # the latter after a restart, before it is known that the test was interrupted
        return proof["runs"][0]

    return await eventually(over, "the end of the test", bound_s=bound_s)


async def begin(page: Page) -> int:
    return (await page.post("proof", {"point": POINT}))["run"]


async def refusal(page: Page) -> str:
    headers = {"X-CSRF-Token": page.csrf}
    async with page.http.post(f"{page.base}/proof", json={"point": POINT}, headers=headers) as answer:
        assert answer.status == 409, await answer.text()
        return (await answer.json())["error"]["reason"]


def verdicts(run: dict[str, Any]) -> dict[tuple[str, str, str], str]:
    """Of each step: by part, channel (or its kind, where none is there) and person."""
    return {(step["part"], step["channel"] or step["kind"], step["person"]): step["verdict"] for step in run["steps"]}


async def test_every_step_has_its_verdict_from_a_real_peer_and_no_list_of_alarms_knows_of_it(
    root: Path, tmp_path: Path, free_port, need, eventually: Eventually
) -> None:
    need("mosquitto", "apt install mosquitto")
    async with plant(tmp_path, root, free_port()) as made:
        gateway = made.gateway
        async with open_page(gateway, "wang", eventually) as screen:
            page = screen.page
            await quiet(made, page, eventually)
            statistics = await page.get("alarms/statistics")
            assert await begin(page) == 1
            run = await finished(page, eventually)
            assert verdicts(run) == {
                ("source", "", ""): "passed",
                ("alarm", "", ""): "passed",
                ("journal", "", ""): "passed",
                ("recipients", "", ""): "passed",
                ("accepted", "hall", "li"): "passed",
                ("accepted", "hall", "wang"): "passed",
                ("accepted", "sms", "li"): "passed",
                ("accepted", "sms", "wang"): "passed",
                ("delivered", "sms", "li"): "passed",
                ("delivered", "sms", "wang"): "passed",
                ("sounded", "post", ""): "passed",
                ("page", "", ""): "passed",
                ("mqtt", "", ""): "passed",
                ("cloud", "", ""): "passed",
            }, run["steps"]
            assert (run["result"], run["by"], run["by_name"]["name"]) == ("passed", "wang", "王")
            assert len(made.modem.messages) == 2
            assert all("测试" in text for text in made.texts), made.texts
            assert ("siren", "on") in made.tower.written
            assert ("red", "fast") not in made.tower.written, "it never looks like an alarm"
            await eventually(lambda: made.tower.seen["green"] == "on" and made.tower.seen["siren"] == "off", "calm")

            told = [body["kind"] for name, body in screen.events if name == "proof"]
            assert (told[0], told[-1]) == ("proof.started", "proof.finished")
            assert told.count("proof.step") == len(run["steps"])
            assert [body for name, body in screen.events if name == "alarm"] == []
            assert (await page.get("alarms"))["alarms"] == []
            assert (await page.get("alarms/history"))["events"] == []
            assert (await page.get("ladders"))["ladders"] == []
            after = await page.get("alarms/statistics")
            assert after["positions"] == statistics["positions"]
            assert TEST.rpartition(".")[0] not in {point["id"] for point in (await page.get("points"))["points"]}
        await eventually(lambda: everything_told(gateway.journal), "the outbox has ended its rows")
        rows = query(gateway.journal, "SELECT DISTINCT state FROM outbox ORDER BY 1")
        assert rows == [("ACCEPTED",), ("DELIVERED",)], "nothing is cleared that was delivered"
        assert gateway.records("alarm.raised", "ladder.started") == []


async def test_what_fails_is_named_by_its_step(
    root: Path, tmp_path: Path, free_port, need, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A siren that is stuck, and a robot that refuses with HTTP 200; each is waited for a few seconds only."""
    monkeypatch.setattr(run_module, "Bounds", functools.partial(Bounds, accepted_s=6.0, sounded_s=12.0))
    need("mosquitto", "apt install mosquitto")
    async with plant(tmp_path, root, free_port()) as made, made.gateway.page("zhao") as page:
        await quiet(made, page, eventually)
        made.servers.groups["webhook"].refusal = {"errcode": 1, "errmsg": "no"}
        made.tower.stuck = {"siren"}
        await begin(page)
        run = await finished(page, eventually)
        failed = {step for step, verdict in verdicts(run).items() if verdict == "failed"}
        assert run["result"] == "failed"
        assert failed == {("accepted", "hall", "li"), ("accepted", "hall", "wang"), ("sounded", "post", "")}
        assert verdicts(run)["page", "", ""] == "not_there", "no page is open"


async def test_a_real_alarm_ends_it_and_is_told_as_ever(
    root: Path, tmp_path: Path, free_port, need, eventually: Eventually
) -> None:
    need("mosquitto", "apt install mosquitto")
    async with plant(tmp_path, root, free_port()) as made, made.gateway.page("zhao") as page:
        await quiet(made, page, eventually)
        made.modem.status = None  # the network says nothing: the test would wait
        await begin(page)
        await eventually(lambda: len(made.modem.messages) == 2, "the messages of the test")
        assert await refusal(page) == "already_running"
        made.sensors.registers[1] = [950, 240]
        run = await finished(page, eventually)
        assert (run["result"], run["why"]) == ("overridden", ALARM)
        assert verdicts(run)["delivered", "sms", "li"] == "left_out"
        siren = lambda: (made.tower.seen["siren"], made.tower.seen["red"]) == ("on", "fast")  # noqa: E731
        await eventually(siren, "the tower shows the real one")
        real = lambda: [text for _, text in made.modem.messages if "测试】" not in text]  # noqa: E731
        await eventually(lambda: len(real()) == 2, "both are told", bound_s=60)
        assert (await page.alarm(ALARM) or {})["state"] == "UNACK"
        assert await refusal(page) == "real_alarm"


async def test_it_is_refused_while_an_alarm_of_the_area_is_out_of_service_under_a_permit(
    tmp_path: Path, free_port, eventually: Eventually
) -> None:
    servers = RobotServers()
    async with servers.running(), Sensors().serving() as sensors:
        temperature = alarm_toml("store.th1.temperature", hi="{ limit = 60.0, priority = 3 }")
        site = f"{_channels(servers)}{DEVICE.format(unit=1, poll_s=0.5)}{alarm_toml(POINT, **HIGH)}{temperature}"
        gateway = Gateway(tmp_path, free_port(), sensors, site)
        gateway.prepare()
        async with gateway.running(), gateway.page("wang") as page:
            await eventually(lambda: _has_value(page), "a value")
            other = "store.th1.temperature.high"
            await page.post(f"alarms/{other}/out-of-service", {"why": "动火作业", "permit": "DH-7"})
            assert await refusal(page) == "permit_active"
            await page.post(f"alarms/{other}/in-service", {})
            await begin(page)
            assert (await finished(page, eventually))["result"] == "passed"


async def test_a_gateway_that_is_killed_in_the_middle_says_that_it_was_interrupted(
    tmp_path: Path, free_port, eventually: Eventually
) -> None:
    servers = RobotServers()
    async with servers.running(), Sensors().serving() as sensors:
        site = f"{_channels(servers)}{DEVICE.format(unit=1, poll_s=0.5)}{alarm_toml(POINT, **HIGH)}"
        servers.groups["webhook"].refusal = {"errcode": 1, "errmsg": "busy"}
        gateway = Gateway(tmp_path, free_port(), sensors, site)
        gateway.prepare()
        async with process(gateway) as edge:
            await eventually(lambda: _listens(gateway.web), "its pages", bound_s=60)
            async with gateway.page("zhao") as page:
                await eventually(lambda: _has_value(page), "a value")
                await begin(page)
                await eventually(lambda: gateway.records("proof.alarm"), "under way")
                edge.kill()
                await asyncio.to_thread(edge.wait, 30)
        async with gateway.running(), gateway.page("zhao") as page:
            run = await finished(page, eventually)
            assert (run["run"], run["result"]) == (1, "interrupted")
            await eventually(lambda: everything_told(gateway.journal), "nothing of it is sent any more")
            assert await begin(page) == 2
    reconcile(gateway)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _has_value(page: Page) -> bool:
    return any(point["id"] == POINT and point["q"] == "good" for point in (await page.get("points"))["points"])


WEEKLY = f"""
[proof]
point = "{POINT}"
weekday = 4
hour = 16
minute = 5
"""


def test_it_begins_every_week_at_the_hour_of_the_site(tmp_path: Path, free_port) -> None:
    """Virtual time begins on Friday, 15 January 2027, at 16:00 in Shanghai."""
    import_everything()

    async def main() -> None:
        servers = RobotServers()
        async with servers.running(), Sensors().serving() as sensors:
            site = f"{_channels(servers)}{DEVICE.format(unit=1, poll_s=5.0)}{alarm_toml(POINT, **HIGH)}{WEEKLY}"
            gateway = Gateway(tmp_path, free_port(), sensors, site)
            gateway.prepare()
            async with gateway.running():
                await within(60, lambda: gateway.records("proof.scheduled"), lambda: "the schedule")
                await asyncio.sleep(200)
                assert gateway.records("proof.started") == [], "not before its minute"
                await within(120, lambda: gateway.records("proof.finished"), lambda: "the week's test")
                async with gateway.page("zhao") as page:
                    proof = await page.get("proof")
                (run,) = proof["runs"]
                assert (run["result"], run["by"], run["day"]) == ("passed", "gateway", "2027-01-15")
                assert run["at"].startswith("2027-01-15T08:05")
                assert (proof["schedule"]["weekday"], proof["schedule"]["hour"]) == (4, 16)
                await asyncio.sleep(600)
                assert len(gateway.records("proof.started")) == 1, "once"

    in_virtual_time(main)
