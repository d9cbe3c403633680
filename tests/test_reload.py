"""Hot reload on the running daemon: what stays the same is not touched, what is wrong changes nothing.

The devices are a Modbus server of our own that writes down who was asked, when, and on which connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import argon2
import pytest
from aiohttp import web
from sitewarden.edge import reloading
from sitewarden.edge.app import run_edge
from sitewarden.edge.control import ask_gateway
from sitewarden.edge.reloading import Reloader
from sitewarden.errors import RefusedError
from sitewarden.sensors.plant_wire import crc16
from sitewarden.serving import secrets as secrets_module
from sitewarden.serving.secrets import Secrets
from sitewarden.sync.journal import Record
from sitewarden.sync.sqlite import connect_for_reading
from sitewarden.words import mono_s

PIN = "246813"
HUMIDITY = "store.th1.humidity"
ALARM = f"{HUMIDITY}.high"
PEOPLE = {
    "li": "李,Li,keeper,*,13800000001",
    "wang": "王,Wang,officer,*,",
    "it1": "网,Net,it,*,",
}
HEAD = """
[site]
id = "s1"
name = "{name}"
name_en = "Dyeing"
[gateway]
id = "gw1"
flush_s = 1
[web]
port = {port}
[[area]]
id = "store"
name = "库"
name_en = "Store"
"""


@dataclass
class Peer:
    """A Modbus server: TCP, or RTU frames over TCP. `asks`: (monotonic seconds, connection, unit)."""

    rtu: bool = False
    port: int = 0
    asks: list[tuple[float, int, int]] = field(default_factory=list)
    connections: int = 0
    words: dict[int, list[int]] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    server: asyncio.Server | None = None
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def open(self) -> None:
        self.server = await asyncio.start_server(self.talk, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
            self.server = None
        for writer in self.writers:
            writer.transport.abort()

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        self.writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = b"" if self.rtu else await reader.readexactly(6)
                unit, function, address, count = struct.unpack(">BBHH", await reader.readexactly(6))
                if self.rtu:
                    await reader.readexactly(2)
                self.asks.append((mono_s(), number, unit))
                if unit in self.silent:
                    continue
                words = (self.words.get(unit, [583, 241]) * 70)[address : address + count]
                body = struct.pack(f">BBB{count}H", unit, function, 2 * count, *words)
                frame = body + crc16(body) if self.rtu else head[:4] + struct.pack(">H", len(body)) + body
                writer.write(frame)
        self.writers.discard(writer)
        writer.close()

    def count(self, unit: int) -> int:
        return sum(ask[2] == unit for ask in self.asks)

    def lines(self, unit: int) -> set[int]:
        """Connections on which the unit was asked."""
        return {line for _, line, asked in self.asks if asked == unit}


def device(name: str, unit: int, bus: str = "a", poll_s: float = 0.1, **more: Any) -> str:
    extra = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f"""
[[device]]
id = "{name}"
area = "store"
bus = "{bus}"
unit_id = {unit}
profile = "rs_ws_n01"
poll_s = {poll_s}
{extra}"""


def bus(name: str, port: int, kind: str = "tcp", **more: Any) -> str:
    extra = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f'\n[[bus]]\nid = "{name}"\nkind = "{kind}"\nhost = "127.0.0.1"\nport = {port}\n{extra}'


def limits(point: str = HUMIDITY, hi: float = 75.0, **more: Any) -> str:
    extra = "".join(f"{key} = {value}\n" for key, value in {"on_delay_s": 0.0, "off_delay_s": 0.0, **more}.items())
    return f'\n[[alarm]]\npoint = "{point}"\nhi = {hi}\n{extra}'


@dataclass
class Rig:
    """A folder with a site and its daemon."""

    folder: Path
    port: int
    peer: Peer = field(default_factory=Peer)
    said: list[str] = field(default_factory=list)
    task: asyncio.Task[None] | None = None
    people: dict[str, str] = field(default_factory=lambda: dict(PEOPLE))

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def config(self) -> Path:
        return self.folder / "site.toml"

    def write(self, *parts: str, name: str = "印染", **head: Any) -> None:
        rows = [f"{key},{row}\n" for key, row in self.people.items()]
        (self.folder / "people.csv").write_text("id,name,name_en,roles,areas,phone\n" + "".join(rows), "utf-8")
        self.config.write_text(HEAD.format(port=head.get("port", self.port), name=name) + "".join(parts), "utf-8")

    async def start(self) -> None:
        self.said.clear()
        self.task = asyncio.create_task(run_edge(self.config, self.data, say=self.said.append), name="edge")
        async with asyncio.timeout(30):
            while not self.said:
                if self.task.done():
                    await self.task
                await asyncio.sleep(0.01)

    async def stop(self) -> None:
        assert self.task is not None
        self.task.cancel()
        done, _ = await asyncio.wait([self.task], timeout=30)
        assert done, "the daemon does not stop"

    async def reload(self) -> dict[str, Any]:
        """Over the control socket; what it answers."""
        status, answer = await ask_gateway(self.data, "POST", "/v1/reload", {})
        assert status == (422 if "problems" in answer else 200), answer
        return answer

    async def units(self) -> dict[str, dict[str, Any]]:
        _, answer = await ask_gateway(self.data, "GET", "/v1/buses")
        return {unit["device"]: unit for one in answer["buses"] for unit in one["units"]}

    async def records(self, prefix: str = "config.") -> list[Record]:
        """Of the journal file as it is now, read beside the daemon."""
        with contextlib.closing(connect_for_reading(self.data / "journal.db")) as connection:
            rows = connection.execute("SELECT data FROM record ORDER BY seq").fetchall()
        found = [Record.from_bytes(data, b"") for (data,) in rows]
        return [record for record in found if record.kind.startswith(prefix)]

    @asynccontextmanager
    async def page(self, person: str = "li") -> AsyncIterator[Page]:
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            page = Page(self, http)
            status, answer = await page.ask("POST", "session", {"person": person, "pin": PIN})
            assert status == 200, answer
            page.csrf = answer["csrf"]
            yield page


@dataclass
class Page:
    """One signed-in person."""

    rig: Rig
    http: aiohttp.ClientSession
    csrf: str = ""

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"X-CSRF-Token": self.csrf} if method != "GET" else {}
        url = f"http://127.0.0.1:{self.rig.port}/api/v1/{path}"
        async with self.http.request(method, url, json=body, headers=headers) as answer:
            return answer.status, await answer.json()

    async def get(self, path: str) -> Any:
        status, answer = await self.ask("GET", path)
        assert status == 200, answer
        return answer

    async def values(self) -> dict[str, Any]:
        return {point["id"]: point["v"] for point in (await self.get("points"))["points"] if point["q"] == "good"}

    async def alarm(self) -> dict[str, Any] | None:
        found = [alarm for alarm in (await self.get("alarms"))["alarms"] if alarm["id"] == ALARM]
        return found[0] if found else None


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    hasher = argon2.PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(secrets_module, "_HASHER", hasher)


@pytest.fixture
async def rig(tmp_path: Path, free_port, cheap: None) -> AsyncIterator[Rig]:
    made = Rig(tmp_path, free_port())
    await made.peer.open()
    made.data.mkdir()
    secrets = Secrets(made.data / "secrets.db")
    for person in ("li", "wang", "it1", "zhao"):
        secrets.set_pin(person, PIN)
    secrets.close()
    try:
        yield made
    finally:
        if made.task is not None and not made.task.done():
            await made.stop()
        made.peer.close()


@asynccontextmanager
async def peers(*made: Peer) -> AsyncIterator[tuple[Peer, ...]]:
    for peer in made:
        await peer.open()
    try:
        yield made
    finally:
        for peer in made:
            peer.close()


def hang_up() -> None:
    os.kill(os.getpid(), signal.SIGHUP)


async def test_devices_come_go_and_change_and_the_others_miss_nothing(rig: Rig, eventually):
    async with peers(Peer()) as (other,):
        buses = bus("a", rig.peer.port) + bus("b", other.port)
        stays = device("th1", 1, poll_s=0.5) + device("th9", 9, "b", poll_s=0.5)
        rig.write(buses, stays, device("th2", 2, poll_s=0.5), device("th3", 3))
        await rig.start()
        async with rig.page() as page:
            await eventually(lambda: rig.peer.count(1) > 1 and rig.peer.count(3) > 1 and other.count(9) > 1, "polled")
            await eventually(lambda: page.values(), "values")
            before = await rig.units()
            rig.write(buses, stays, device("th2", 2, poll_s=0.2), device("th4", 4, poll_s=0.2))
            answer = await rig.reload()
            assert answer["changes"] == [
                "device store.th2: poll_s 0.5 -> 0.2",
                "device store.th3: removed",
                "device store.th4: added",
            ]
            asked, third = rig.peer.count(2), rig.peer.count(3)
            await eventually(lambda: rig.peer.count(2) > asked + 5 and rig.peer.count(4) > 2, "the changed and the new")
            assert rig.peer.count(3) <= third + 1, "at most the one that was under way"
            after = await rig.units()
            values = await page.values()
        for name in ("store.th1", "store.th9"):
            polls = after[name]["polls"] - before[name]["polls"]
            assert polls > 0
            assert after[name]["skipped"] <= before[name]["skipped"] + 1, "but for a machine that stalls for a poll"
            assert after[name]["good"] - before[name]["good"] >= polls - 1, "but for one that is under way"
        assert (rig.peer.connections, other.connections) == (1, 1), "nothing was opened again"
        assert after.keys() == {"store.th1", "store.th2", "store.th4", "store.th9"}
        assert values.keys() >= {HUMIDITY, "store.th4.humidity"}
        assert not [point for point in values if point.startswith("store.th3")]
        (record,) = await rig.records()
        assert (record.kind, record.actor) == ("config.applied", "gateway")
        assert (record.body["changes"], record.body["more"]) == (answer["changes"], 0)
        assert record.body["revision"] == answer["revision"] != record.body["before"]
        assert record.body["by"].startswith("console uid ")


async def test_an_acknowledged_alarm_stays_acknowledged(rig: Rig, eventually):
    rig.peer.words[1] = [800, 241]
    wires = bus("a", rig.peer.port) + device("th1", 1)
    rig.write(wires, limits())
    await rig.start()
    async with rig.page("li") as li, rig.page("wang") as wang:
        alarm = await eventually(li.alarm, "the alarm")
        assert isinstance(alarm, dict)
        for page in (li, wang):
            status, _ = await page.ask("POST", f"alarms/{ALARM}/ack", {"occurrence": alarm["occurrence"]})
            assert status == 200
        acked = await li.alarm()
        assert acked is not None
        assert acked["state"] == "ACKED"
        rig.write(wires, limits(deadband=1.0, on_delay_s=30.0, hi=76.0))
        assert (await rig.reload())["changes"] == [
            f"alarm {HUMIDITY}: hi 75 -> 76",
            f"alarm {HUMIDITY}: deadband none -> 1",
            f"alarm {HUMIDITY}: on_delay_s 0 -> 30",
        ]
        seen = rig.peer.count(1)
        await eventually(lambda: rig.peer.count(1) > seen + 3, "readings under the new limits")
        assert await li.alarm() == acked
        points = (await li.get("site"))["areas"][0]["points"]
        assert [point["limits"]["hi"] for point in points if point["id"] == HUMIDITY] == [76.0]
        rig.write(wires, limits(hi=90.0))
        await rig.reload()
        await eventually(lambda: _gone(li), "the limit moved away")
        rig.write(wires, limits(hi=60.0))
        await rig.reload()
        again = await eventually(li.alarm, "raised anew")
        assert isinstance(again, dict)
        assert (again["occurrence"], again["state"]) == (acked["occurrence"] + 1, "UNACK")
        rig.write(bus("a", rig.peer.port), device("th2", 2))
        assert "alarm store.th1.humidity: removed" in (await rig.reload())["changes"]
        assert await li.alarm() is None
        newest = (await li.get("alarms/history"))["events"][0]
        assert (newest["kind"], newest["reason"]) == ("alarm.closed", "rule_removed")
        status, trend = await li.ask("GET", f"points/{HUMIDITY}/trend")
        assert status == 200
        assert trend["samples"], "what was measured stays readable"
        assert (await li.ask("GET", "points/store.never.humidity/trend"))[0] == 404
    revisions = [record.body["rule"] for record in await rig.records("alarm.raised")]
    applied = [record.body["revision"] for record in await rig.records("config.applied")]
    assert revisions[1] == applied[2], "each record carries the revision that it was decided by"


async def _gone(page: Page) -> bool:
    return await page.alarm() is None


BROKEN = {
    "toml": lambda text: text + "\n[[device\n",
    "unknown": lambda text: text.replace('kind = "tcp"', 'kind = "tpc"').replace("unit_id = 1", "unit_id = 999"),
    "people": lambda text: text + '\n[people]\nfile = "nobody.csv"\n',
    "empty": lambda text: "",
}


@pytest.mark.parametrize("name", BROKEN)
async def test_a_bad_file_changes_nothing_and_says_why(rig: Rig, eventually, name: str):
    rig.write(bus("a", rig.peer.port), device("th1", 1, poll_s=0.5), limits())
    await rig.start()
    await eventually(lambda: rig.peer.count(1) > 1, "polled")
    good = rig.config.read_text("utf-8")
    rig.config.write_text(BROKEN[name](good), "utf-8")
    async with rig.page("it1") as page:
        revision = (await page.get("status"))["config"]
        answer = await rig.reload()
        assert len(answer["problems"]) >= (2 if name in ("unknown", "empty") else 1)
        assert (answer["file"], answer["revision"]) == (str(rig.config.resolve()), revision)
        assert await page.ask("POST", "config/reload", {}) == (422, {"problems": answer["problems"]})
        await rig.reload()
        await rig.reload()
        seen = rig.peer.count(1)
        await eventually(lambda: rig.peer.count(1) > seen + 1, "polled as before")
        assert (await page.get("status"))["config"] == revision
        assert (await rig.units())["store.th1"]["skipped"] == 0
        assert rig.peer.connections == 1
        rig.config.write_text(good, "utf-8")
        assert (await page.ask("POST", "config/reload", {}))[1]["changes"] == []
        records = await rig.records()
    assert [(record.kind, record.actor) for record in records] == [
        ("config.refused", "gateway"),
        ("config.refused", "it1"),
        ("config.refused", "gateway"),
    ]
    assert all("(got" not in problem for record in records for problem in record.body["problems"])


async def test_records_tell_no_private_value(rig: Rig):
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    await rig.start()
    rig.people |= {"li": "李,Li,keeper,*,13900000009", "zhao": "赵,Zhao,manager,*,13700000000"}
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    assert (await rig.reload())["changes"] == ["person li: phone changed", "person zhao: added"]
    rig.people["li"] = "李,Li,keeper,*,call 13912345678"
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    assert "13912345678" in (await rig.reload())["problems"][0]
    applied, refused = await rig.records()
    assert (applied.body["before"], refused.kind) == (applied.body["revision"], "config.refused")
    assert refused.body["problems"] == ["people.csv: line 2: phone: must be digits, or empty"]


async def test_nothing_changed_leaves_no_record_and_a_comment_leaves_one(rig: Rig):
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    await rig.start()
    assert (await rig.reload())["changes"] == []
    rig.config.touch()
    await rig.reload()
    assert await rig.records() == []
    with rig.config.open("a", encoding="utf-8") as file:
        file.write("# a remark\n")
    answer = await rig.reload()
    (record,) = await rig.records()
    assert (record.body["changes"], record.body["revision"]) == ([], answer["revision"])


async def test_keys_that_need_a_restart_are_told_each_time_and_not_applied(rig: Rig, free_port):
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    await rig.start()
    rig.write(bus("a", rig.peer.port), device("th1", 1, timeout_ms=400), port=free_port())
    answer = await rig.reload()
    assert (answer["changes"], answer["needs_restart"]) == (["device store.th1: timeout_ms none -> 400"], ["web.port"])
    again = await rig.reload()
    assert (again["changes"], again["needs_restart"]) == ([], ["web.port"])
    async with rig.page() as page:
        assert (await page.get("site"))["revision"] == answer["revision"]
    assert len(await rig.records()) == 1


async def test_people_come_go_and_get_other_roles_at_once(rig: Rig):
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    await rig.start()
    async with rig.page("it1") as page, rig.page("li") as li:
        assert (await li.ask("POST", "config/reload", {}))[0] == 403
        del rig.people["it1"]
        rig.people["zhao"] = "赵,Zhao,manager,*,"
        rig.people["li"] = "李,Li,keeper admin,*,13800000001"
        rig.write(bus("a", rig.peer.port), device("th1", 1))
        status, answer = await page.ask("POST", "config/reload", {})
        assert (status, answer["changes"]) == (
            200,
            ["person li: roles keeper -> keeper, admin", "person it1: removed", "person zhao: added"],
        )
        assert (await page.ask("GET", "status"))[0] == 401
        assert (await li.ask("POST", "config/reload", {}))[0] == 200
        async with rig.page("zhao") as zhao:
            assert (await zhao.get("session"))["person"]["roles"] == ["manager"]
    assert [record.actor for record in await rig.records()] == ["it1"]


async def test_a_storm_of_hang_ups_ends_with_the_last_file(rig: Rig, monkeypatch, eventually):
    at_once: list[int] = []
    most = 0
    read = Reloader._read

    def counted(self: Reloader, old: Any) -> Any:
        nonlocal most
        at_once.append(1)
        most = max(most, len(at_once))
        try:
            return read(self, old)
        finally:
            at_once.pop()

    monkeypatch.setattr(Reloader, "_read", counted)
    wires = bus("a", rig.peer.port) + device("th1", 1, poll_s=0.5)
    rig.write(wires, limits())
    await rig.start()
    await eventually(lambda: rig.peer.count(1) > 1, "polled")
    for turn in range(60):
        rig.write(wires, limits(hi=76.0 + turn % 7), device("th2", 2) if turn % 2 else "")
        hang_up()
        if turn % 5 == 0:
            await asyncio.sleep(0)
    rig.write(wires, limits(hi=70.0), device("th7", 7))
    hang_up()

    async def last() -> bool:
        return (await rig.units()).keys() == {"store.th1", "store.th7"}

    await eventually(last, "the last file")
    assert most == 1
    records: Any = await eventually(rig.records, "committed, a moment after the switch")
    assert {record.body["by"] for record in records} == {"signal"}
    assert len(records) < 60
    assert (await rig.units())["store.th1"]["skipped"] == 0
    assert rig.peer.connections == 1


async def test_hang_ups_that_come_together_are_one(rig: Rig, monkeypatch):
    reads: list[Any] = []
    read = Reloader._read
    monkeypatch.setattr(Reloader, "_read", lambda self, old: (reads.append(1), read(self, old))[1])
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    await rig.start()
    for _ in range(20):
        hang_up()
    await rig.reload()
    assert len(reads) <= 3, "the one under way, the one after it, and this"


async def test_who_asks_too_often_is_told_so(rig: Rig):
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    nothing: Any = None
    waiting = Reloader(rig.config, rig.data, nothing, nothing, nothing, nothing)  # it does not run
    tasks = [asyncio.create_task(waiting.reload("test"), name=f"reload {i}") for i in range(20)]
    await asyncio.sleep(0)
    with pytest.raises(RefusedError) as caught:
        await waiting.reload("test")
    assert caught.value.reason == "busy"
    for task in tasks:
        task.cancel()


async def test_a_hang_up_while_the_daemon_starts_is_remembered(rig: Rig, eventually):
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    task = asyncio.create_task(rig.start(), name="start")
    await eventually(lambda: (rig.data / "edge.lock").exists(), "it has begun", every_s=0.001)
    hang_up()
    rig.write(bus("a", rig.peer.port), device("th2", 2))
    await task
    await eventually(lambda: rig.peer.count(2) > 1, "the new device")


async def test_a_defect_while_applying_ends_the_process(rig: Rig, monkeypatch):
    """A site that is half changed must not go on; the supervisor starts the process again, with the new file."""
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    await rig.start()
    monkeypatch.setattr("sitewarden.edge.alarms.engine.Engine.change", lambda *_: 1 / 0)
    rig.write(bus("a", rig.peer.port), device("th2", 2))
    hang_up()
    assert rig.task is not None
    done, _ = await asyncio.wait([rig.task], timeout=30)
    assert done
    assert isinstance(rig.task.exception(), ExceptionGroup)


async def test_a_defect_while_reading_changes_nothing(rig: Rig, monkeypatch):
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    await rig.start()
    monkeypatch.setattr(reloading, "read_site", lambda *_: 1 / 0)
    assert (await rig.reload())["problems"] == ["file: cannot be used: ZeroDivisionError: division by zero"]
    assert (await rig.units()).keys() == {"store.th1"}


async def test_another_wire_is_opened_and_the_old_one_closed(rig: Rig, eventually):
    async with peers(Peer(), Peer()) as (second, third):
        stays = bus("b", second.port) + device("th9", 9, "b", poll_s=0.5)
        rig.write(bus("a", rig.peer.port), stays, device("th1", 1))
        await rig.start()
        await eventually(lambda: rig.peer.count(1) > 1 and second.count(9) > 0, "polled")
        rig.write(bus("a", third.port), stays, device("th1", 1))
        assert (await rig.reload())["changes"] == [f"bus a: port {rig.peer.port} -> {third.port}"]
        await eventually(lambda: third.count(1) > 1 and not rig.peer.writers, "moved")
        rig.write(stays)
        assert (await rig.reload())["changes"][:1] == ["bus a: removed"]
        await eventually(lambda: not third.writers, "closed")
        rig.write(bus("a", rig.peer.port), stays, device("th1", 1))
        before = rig.peer.count(1)
        await rig.reload()
        await eventually(lambda: rig.peer.count(1) > before + 1, "there again")
        assert second.connections == 1
        assert (await rig.units())["store.th9"]["skipped"] <= 1, "but for a machine that stalls for a poll"


async def test_wires_that_swap_their_ports(rig: Rig, eventually):
    async with peers(Peer()) as (other,):
        devices = device("th1", 1) + device("th2", 2, "b")
        rig.write(bus("a", rig.peer.port), bus("b", other.port), devices)
        await rig.start()
        await eventually(lambda: rig.peer.count(1) > 1 and other.count(2) > 1, "polled")
        rig.write(bus("a", other.port), bus("b", rig.peer.port), devices)
        await rig.reload()
        await eventually(lambda: rig.peer.count(2) > 1 and other.count(1) > 1, "swapped")


async def test_a_bus_that_waits_to_connect_again_takes_the_change(rig: Rig, eventually):
    async with peers(Peer()) as (other,):
        stays = bus("b", other.port) + device("th9", 9, "b", poll_s=0.5)
        rig.write(bus("a", rig.peer.port), stays, device("th1", 1))
        await rig.start()
        await eventually(lambda: rig.peer.count(1) > 1 and other.count(9) > 0, "polled")
        rig.peer.close()

        async def lost() -> bool:
            return (await rig.units())["store.th1"]["why"] == "no_connection"

        await eventually(lost, "lost")
        rig.write(bus("a", rig.peer.port), stays, device("th1", 1, poll_s=0.3), device("th5", 5))
        assert len((await rig.reload())["changes"]) == 2
        await rig.peer.open()
        await eventually(lambda: rig.peer.count(5) > 1, "back, with the new device", bound_s=90)
        assert (await rig.units())["store.th9"]["skipped"] <= 1, "but for a machine that stalls for a poll"


async def test_a_bus_that_waits_for_a_late_reply_takes_the_change(rig: Rig, eventually):
    """RTU: after a missed reply the line is silent for `late_max_ms`; a reload neither waits for that nor ends it."""
    async with peers(Peer(rtu=True)) as (line,):
        line.silent = {2}
        wire = bus("r", line.port, "rtu_tcp", late_max_ms=4000, timeout_ms=200)
        rig.write(bus("a", rig.peer.port), device("th1", 1, poll_s=0.5), wire, device("th2", 2, "r"))
        await rig.start()
        await eventually(lambda: line.count(2) > 0 and rig.peer.count(1) > 0, "asked", every_s=0.02)
        asked = line.count(2)
        rig.write(
            bus("a", rig.peer.port),
            device("th1", 1, poll_s=0.5),
            wire,
            device("th2", 2, "r", poll_s=60),
            device("th3", 3, "r"),
        )
        assert "device store.th3: added" in (await rig.reload())["changes"]
        assert line.count(2) == asked, "answered while the line was silent"
        await eventually(lambda: line.count(3) > 1, "the new device after the silence")
        quiet_s = min(at for at, _, unit in line.asks if unit == 3) - max(
            at for at, _, unit in line.asks[: asked + 1] if unit == 2
        )
        assert quiet_s > 1.0, "the silence was kept"
        assert (await rig.units())["store.th1"]["skipped"] == 0


async def test_open_pages_are_told(rig: Rig, eventually):
    rig.write(bus("a", rig.peer.port), device("th1", 1))
    await rig.start()
    async with rig.page() as page:
        seen: list[tuple[str, Any]] = []

        async def follow() -> None:
            async with page.http.get(f"http://127.0.0.1:{rig.port}/api/v1/live") as stream:
                name = ""
                async for line in stream.content:
                    key, _, value = line.decode().strip().partition(": ")
                    name = value if key == "event" else name
                    if key == "data":
                        seen.append((name, json.loads(value)))

        task = asyncio.create_task(follow(), name="follow")
        await eventually(lambda: any(name == "values" for name, _ in seen), "the stream")
        rig.write(bus("a", rig.peer.port), device("th1", 1), device("th2", 2), name="印染二厂")
        answer = await rig.reload()
        await eventually(lambda: ("site", {"revision": answer["revision"]}) in seen, "the event")
        described = await page.get("site")
        assert described["site"]["name"] == "印染二厂"
        assert len(described["areas"][0]["points"]) == 4
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    (renamed,) = await rig.records("gateway.renamed")
    assert renamed.body["site"]["name"] == "印染二厂"


async def test_headquarters_moves(rig: Rig, eventually):
    """What is asked of it before anything else: where the streams are."""
    asked: list[str] = []

    async def refuse(request: web.Request) -> web.Response:
        asked.append(str(request.url.port))
        return web.json_response({"error": {"reason": "not_enrolled", "message": "", "hint": ""}}, status=403)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    runner = web.AppRunner(app)
    await runner.setup()
    ports: list[int] = []
    for _ in range(2):
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        ports.append(runner.addresses[-1][1])

    def cloud(port: int) -> str:
        return f'\n[cloud]\nurl = "http://127.0.0.1:{port}"\n'

    wires = bus("a", rig.peer.port) + device("th1", 1)
    try:
        rig.write(cloud(ports[0]), wires)
        await rig.start()
        await eventually(lambda: str(ports[0]) in asked, "the first")
        rig.write(cloud(ports[1]), wires)
        await rig.reload()
        await eventually(lambda: str(ports[1]) in asked, "the second")
        rig.write(wires)
        assert await rig.reload()
        asked.clear()
        async with rig.page() as page:
            assert (await page.get("status"))["link"]["state"] == "off"
        rig.write(cloud(ports[0]), wires)
        await rig.reload()
        await eventually(lambda: asked, "the first again")
        assert set(asked) == {str(ports[0])}
    finally:
        await rig.stop()
        await runner.cleanup()


async def test_messages_go_where_the_new_file_says(rig: Rig, free_port, eventually):
    got: list[str] = []

    async def take(request: web.Request) -> web.Response:
        got.append(request.path)
        return web.json_response({"errcode": 0})

    app = web.Application()
    app.router.add_post("/{name}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port := free_port()).start()

    def site(hi: float, *names: str) -> Iterable[str]:
        head = f"\n[alerts]\nunreachable_ok = true\ngroup_wait_s = {{ 3 = 0 }}\nchannels = {json.dumps(list(names))}\n"
        url = f"http://127.0.0.1:{port}"
        rest = "".join(f'\n[[channel]]\nid = "{n}"\nkind = "webhook"\nurl = "{url}/{n}"\n' for n in names)
        return head, bus("a", rig.peer.port), device("th1", 1), limits(hi=hi, reopen_s=0.0), rest

    try:
        rig.peer.words[1] = [800, 241]
        rig.write(*site(75.0, "first"))
        await rig.start()
        await eventually(lambda: got.count("/first") == 2, "both were told")
        rig.write(*site(90.0, "second"))
        await rig.reload()
        rig.write(*site(70.0, "second"))
        await rig.reload()
        await eventually(lambda: got.count("/second") == 2, "by the new channel")
        assert got.count("/first") == 2
    finally:
        await rig.stop()
        await runner.cleanup()
