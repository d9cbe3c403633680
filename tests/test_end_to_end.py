"""The main job with real processes: plant, broker, robot, edge and cloud; a link is cut, the edge is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import aiomqtt
import pytest
from sitewarden.demo.broker import USERS, prepare_broker
from sitewarden.demo.config import Addresses, Ports, fit_cloud, fit_site
from sitewarden.demo.keep import plain_files
from sitewarden.sync.journal import verify_file

HUMIDITY = "aux_store.th1.humidity"
ALARM = f"{HUMIDITY}.high"
PINS = {"keeper_li": "246813", "officer_wang": "975312"}
QUICKER = {
    "poll_s = 2.0": "poll_s = 0.5",
    "flush_s = 10": "flush_s = 1",
    "[alerts]\n": "[alerts]\ngroup_wait_s = { 3 = 1.0 }\n",  # the humidity's priority
}


@dataclass
class Link:
    """A TCP proxy between edge and cloud that can be cut."""

    target: int
    up: bool = True
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        self.up = False
        for writer in list(self._writers):
            writer.transport.abort()

    async def stop(self) -> None:
        self.cut()
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.up:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        self._writers -= {writer, far_writer}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError, RuntimeError):
        writer.close()


@dataclass
class Rig:
    """Everything that runs, and how to reach it."""

    data: Path
    ports: Ports
    link: Link
    dashboard_password: str
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self, name: str, *command: str) -> None:
        with (self.data / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "sitewarden", *command], stdout=log, stderr=log, cwd=self.data
            )

    def start_edge(self) -> None:
        self.start("edge", "edge", "--config", str(self.data / "site.toml"), "--data", str(self.data / "edge"))

    def start_cloud(self) -> None:
        self.start("cloud", "cloud", "--config", str(self.data / "cloud.toml"), "--data", str(self.data / "cloud"))

    def kill(self, name: str, number: int) -> None:
        self.processes[name].send_signal(number)
        self.processes[name].wait(20)

    def url(self, name: str, path: str) -> str:
        return f"http://127.0.0.1:{getattr(self.ports, name)}{path}"

    def log(self, name: str) -> str:
        return (self.data / f"{name}.log").read_text(errors="replace")[-3000:]


def _command(*words: str, given: str = "") -> str:
    done = subprocess.run(
        [sys.executable, "-m", "sitewarden", *words],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
async def rig(tmp_path, root, need, free_port, eventually) -> AsyncIterator[Rig]:
    """The demo's configuration on free ports, with a cuttable link between edge and cloud."""
    need("mosquitto", "apt install mosquitto")
    ports = Ports(**{name: free_port() for name in ("mqtt", "modbus", "plant", "receiver", "cloud", "edge")})
    passwords = {user: f"password-of-{user}" for user in USERS}
    broker = prepare_broker(tmp_path / "broker", ports.mqtt, passwords, kind="mosquitto")
    link = Link(target=ports.cloud)
    await link.start()
    rig = Rig(data=tmp_path, ports=ports, link=link, dashboard_password=passwords["dashboard"])
    _configure(rig, root / "config", broker.password_files)
    try:
        with (tmp_path / "broker.log").open("ab") as log:
            rig.processes["broker"] = subprocess.Popen(broker.command, stdout=log, stderr=log)
        rig.start("plant", "plant", "--config", str(tmp_path / "plant.json"))
        rig.start("receiver", "receiver", "--port", str(ports.receiver))
        rig.start_cloud()
        async with aiohttp.ClientSession() as http:
            for name, path in (("plant", "/api/points"), ("receiver", "/api/messages"), ("cloud", "/api/v1/people")):
                await eventually(
                    lambda n=name, p=path: _answers(http, rig.url(n, p)), lambda n=name: f"{n} answers: {rig.log(n)}"
                )
        rig.start_edge()
        yield rig
    finally:
        for process in rig.processes.values():
            process.kill()
        for process in rig.processes.values():
            process.wait(20)
        await link.stop()


def _configure(rig: Rig, config: Path, password_files: Any) -> None:
    data, ports = rig.data, rig.ports
    for name in plain_files(config):
        (data / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(config / name, data / name)
    addresses = Addresses(
        ports=ports,
        serial=str(data / "rs485"),
        mqtt_username="gateway",
        mqtt_password_file=str(password_files["gateway"].resolve()),
        public_key=_command("key", "--data", str(data / "edge")).split()[-1],
    )
    site = fit_site((config / "site.toml").read_text("utf-8"), addresses)
    site = site.replace(f'url = "http://127.0.0.1:{ports.cloud}"', f'url = "http://127.0.0.1:{rig.link.port}"')
    assert str(rig.link.port) in site
    for said, quicker in QUICKER.items():
        assert said in site
        site = site.replace(said, quicker)
    (data / "site.toml").write_text(site)
    plant = {
        "http_port": ports.plant,
        "modbus_port": ports.modbus,
        "serial_link": str(data / "rs485"),
        "mqtt_url": f"mqtt://127.0.0.1:{ports.mqtt}",
        "mqtt_username": "devices",
        "mqtt_password_file": str(password_files["devices"].resolve()),
        "publish_s": 0.5,
        "seed": 7,
    }
    (data / "plant.json").write_text(json.dumps(plant))
    cloud = fit_cloud((config / "cloud.toml").read_text("utf-8"), addresses, "gw1")
    cloud = cloud.replace('public_url = ""', f'public_url = "http://127.0.0.1:{rig.link.port}"')
    assert str(rig.link.port) in cloud
    (data / "cloud.toml").write_text(cloud)
    (data / "cloud").mkdir(exist_ok=True)
    for server in ("edge", "cloud"):
        for person, pin in PINS.items():
            _command("pin", "set", person, "--secrets", str(data / server / "secrets.db"), "--pin-stdin", given=pin)


async def _answers(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


class Page:
    """What an open page does: signs in, listens, acknowledges."""

    def __init__(self, base: str, person: str) -> None:
        self.base = base
        self.person = person
        self.events: list[tuple[int | None, str, Any]] = []
        self.csrf = ""
        self.http = aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))

    async def sign_in(self) -> None:
        body = {"person": self.person, "pin": PINS[self.person]}
        async with self.http.post(f"{self.base}/api/v1/session", json=body) as answer:
            assert answer.status == 200, await answer.text()
            self.csrf = (await answer.json())["csrf"]

    async def get(self, path: str) -> Any:
        async with self.http.get(f"{self.base}/api/v1/{path}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def ack(self, alarm: dict[str, Any]) -> dict[str, Any]:
        url = f"{self.base}/api/v1/alarms/{alarm['id']}/ack"
        body = {"occurrence": alarm["occurrence"], "role": None}
        async with self.http.post(url, json=body, headers={"X-CSRF-Token": self.csrf}) as answer:
            assert answer.status == 200, await answer.text()
            return (await answer.json())["alarm"]

    async def listen(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None)
        async with self.http.get(f"{self.base}/api/v1/live", timeout=timeout) as answer:
            number, event = None, ""
            async for line in answer.content:
                name, _, value = line.decode().rstrip("\n").partition(": ")
                if name == "id":
                    number = int(value)
                elif name == "event":
                    event = value
                elif name == "data":
                    self.events.append((number, event, json.loads(value)))
                    number = None

    def alarm(self, alarm_id: str, change: str) -> dict[str, Any] | None:
        for _, event, data in self.events:
            if event == "alarm" and data["kind"] == f"alarm.{change}" and data["alarm"]["id"] == alarm_id:
                return data["alarm"]
        return None


@contextlib.asynccontextmanager
async def opened(base: str, person: str) -> AsyncIterator[Page]:
    page = Page(base, person)
    try:
        await page.sign_in()
        yield page
    finally:
        await page.http.close()


@contextlib.asynccontextmanager
async def listening(page: Page) -> AsyncIterator[None]:
    task = asyncio.create_task(page.listen(), name=f"listen {page.person}")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _push(rig: Rig, value: float | None) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(rig.url("plant", f"/api/points/{HUMIDITY}"), json={"value": value}) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def _messages(rig: Rig) -> list[dict[str, Any]]:
    async with aiohttp.ClientSession() as http, http.get(rig.url("receiver", "/api/messages")) as answer:
        return (await answer.json())["messages"]


async def _open_at_cloud(headquarters: Page) -> dict[str, dict[str, Any]]:
    (site,) = (await headquarters.get("sites"))["sites"]
    return {alarm["id"]: alarm for alarm in site["open_alarms"]}


def _rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(sql).fetchall()


async def _retained(rig: Rig, topic: str) -> dict[str, Any]:
    client = aiomqtt.Client(
        "127.0.0.1", rig.ports.mqtt, username="dashboard", password=rig.dashboard_password, timeout=20
    )
    async with asyncio.timeout(30), client:
        await client.subscribe(topic, qos=1)
        async for message in client.messages:
            return json.loads(bytes(message.payload))
    raise AssertionError


async def test_alarm_reaches_both_people_and_the_cloud_through_a_cut_link_and_a_killed_edge(rig, eventually):
    async with aiohttp.ClientSession() as http:
        await eventually(
            lambda: _answers(http, rig.url("edge", "/api/v1/people")), lambda: f"edge answers: {rig.log('edge')}"
        )
    edge = rig.url("edge", "")
    async with (
        opened(edge, "keeper_li") as keeper,
        opened(edge, "officer_wang") as officer,
        opened(rig.url("cloud", ""), "officer_wang") as headquarters,
    ):
        async with listening(keeper), listening(officer):
            await eventually(lambda: _value_is_good(keeper, HUMIDITY), lambda: f"a good humidity: {rig.log('edge')}")
            await _push(rig, 82.0)
            raised = await eventually(lambda: keeper.alarm(ALARM, "raised"), "the keeper's page has the alarm")
            await eventually(lambda: officer.alarm(ALARM, "raised"), "the officer's page has the alarm")
            assert raised["state"] == "UNACK"
            assert (raised["value"], raised["limit"]) == (82.0, 75.0)

            told = await eventually(lambda: _told(rig, raised["occurrence"]), "the robot told both", bound_s=90)
            assert sorted(message["person"] for message in told) == ["keeper_li", "officer_wang"]
            state = await _retained(rig, f"sw/v1/hengfeng_dyeing/alarm/{ALARM}/state")
            assert state["state"] == "UNACK"
            await eventually(lambda: _has(headquarters, ALARM), "headquarters sees the alarm")

            rig.link.cut()
            half = await keeper.ack(raised)
            assert (half["state"], [ack["role"] for ack in half["acks"]]) == ("UNACK", ["keeper"])

        rig.kill("edge", signal.SIGKILL)
        rig.start_edge()
        await eventually(lambda: _answers(keeper.http, f"{edge}/api/v1/people"), "the edge is back")
        (still,) = [alarm for alarm in (await keeper.get("alarms"))["alarms"] if alarm["id"] == ALARM]
        assert (still["state"], still["occurrence"]) == ("UNACK", raised["occurrence"])
        assert [ack["role"] for ack in still["acks"]] == ["keeper"]

        both = await officer.ack(still)
        assert both["state"] == "ACKED"
        assert (await _open_at_cloud(headquarters))[ALARM]["state"] == "UNACK", "the link is cut: the cloud cannot know"
        status = await keeper.get("status")
        assert status["link"]["state"] == "down"

        rig.link.up = True
        await eventually(lambda: _state_at_cloud(headquarters, "ACKED"), "headquarters sees both acks", bound_s=90)
        roles = sorted(ack["role"] for ack in (await _open_at_cloud(headquarters))[ALARM]["acks"])
        assert roles == ["keeper", "officer"]
        await _push(rig, 55.0)
        await eventually(lambda: _gone(headquarters), "the alarm is closed at headquarters", bound_s=60)

    await eventually(lambda: _same_records(rig), "edge and cloud hold the same records", bound_s=60)
    quarantined = _rows(rig.data / "cloud" / "cloud.db", "SELECT seq, reason FROM quarantine")
    assert not quarantined
    verdict = verify_file(rig.data / "edge" / "journal.db")
    assert verdict.bad_seq is None
    assert "good" in _command("verify", str(rig.data / "edge" / "journal.db"))
    witnessed = _rows(rig.data / "edge" / "journal.db", "SELECT max(size) FROM checkpoint WHERE cosignatures <> ''")
    assert witnessed[0][0], "headquarters has countersigned a checkpoint"
    keys = [message["key"] for message in await _messages(rig)]
    assert len(keys) == len(set(keys)), "a delivery came twice"


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_random_kills_cuts_and_faults_lose_nothing(rig, eventually, capsys):
    """Long form: SITEWARDEN_SOAK_S seconds of random faults; SITEWARDEN_SEED repeats a run."""
    seed = int(os.environ.get("SITEWARDEN_SEED") or random.randrange(2**32))
    with capsys.disabled():
        print(f"\nSITEWARDEN_SEED={seed}")
    dice = random.Random(seed)
    edge = rig.url("edge", "/api/v1/people")
    async with aiohttp.ClientSession() as http:
        await eventually(lambda: _answers(http, edge), lambda: f"edge answers: {rig.log('edge')}")
        kills = 0
        end_s = time.monotonic() + float(os.environ.get("SITEWARDEN_SOAK_S", "60"))
        while time.monotonic() < end_s:
            match dice.choice(["edge", "cloud", "cut", "mend", "wet", "wet", "dry", "dry", "dead", "alive"]):
                case "edge":
                    kills += 1
                    rig.kill("edge", signal.SIGKILL)
                    rig.start_edge()
                case "cloud":
                    rig.kill("cloud", signal.SIGKILL)
                    rig.start_cloud()
                case "cut":
                    rig.link.cut()
                case "mend":
                    rig.link.up = True
                case "wet" | "dry" as way:
                    await _push(rig, 82.0 if way == "wet" else 55.0)
                case mode:
                    await _set_device(rig, "th1", "dead" if mode == "dead" else "ok")
            await asyncio.sleep(dice.uniform(0.1, 8.0))
        rig.link.up = True
        await _set_device(rig, "th1", "ok")
        await eventually(lambda: _answers(http, edge), lambda: f"edge answers: {rig.log('edge')}", bound_s=60)
        await eventually(lambda: _same_records(rig), "edge and cloud hold the same records", bound_s=180)
    verdict = verify_file(rig.data / "edge" / "journal.db")
    assert verdict.bad_seq is None, verdict
    assert not _rows(rig.data / "cloud" / "cloud.db", "SELECT seq, reason FROM quarantine")
    bodies = [message["body"] for message in await _messages(rig)]
    seen: set[str] = set()
    again = [body for body in bodies if body["key"] in seen or seen.add(body["key"])]
    assert all(body["resent"] for body in again), "a message came twice without saying so"
    assert len(again) <= kills * 2, "at most one duplicate per crash and row"
    with capsys.disabled():
        print(f"{kills} kills of the edge, {verdict.records} records, {len(bodies)} messages, {len(again)} sent again")


async def _set_device(rig: Rig, device: str, mode: str) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(rig.url("plant", f"/api/devices/{device}"), json={"mode": mode}) as answer,
    ):
        assert answer.status == 200, await answer.text()


async def _value_is_good(page: Page, point: str) -> bool:
    points = {entry["id"]: entry for entry in (await page.get("points"))["points"]}
    return points.get(point, {}).get("q") == "good"


async def _told(rig: Rig, occurrence: int) -> list[dict[str, Any]] | None:
    bodies = [message["body"] for message in await _messages(rig)]
    alarms = [(body["facts"].get("alarm", {}), body) for body in bodies]
    about = [body for alarm, body in alarms if (alarm.get("id"), alarm.get("occurrence")) == (ALARM, occurrence)]
    return about if len(about) == 2 else None


async def _has(page: Page, alarm: str) -> bool:
    return alarm in await _open_at_cloud(page)


async def _state_at_cloud(page: Page, state: str) -> bool:
    return (await _open_at_cloud(page)).get(ALARM, {}).get("state") == state


async def _gone(page: Page) -> bool:
    return ALARM not in await _open_at_cloud(page)


def _same_records(rig: Rig) -> bool:
    """List equality: nothing lost, nothing twice, nothing in another order."""
    mine = _rows(rig.data / "edge" / "journal.db", "SELECT seq, data, chain FROM record ORDER BY seq")
    theirs = _rows(rig.data / "cloud" / "cloud.db", "SELECT seq, data, chain FROM record ORDER BY seq")
    assert len(theirs) == len(set(theirs))
    assert theirs == mine[: len(theirs)]
    return len(theirs) == len(mine)
