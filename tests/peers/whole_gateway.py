"""A gateway as it is (`run_edge`), with sensors, a relay board and people around it; and what its stores must say."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import pkgutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from sitewarden.edge.alarms import history_query
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alerts import outbox_table
from sitewarden.edge.app import run_edge
from sitewarden.edge.ladders import table as ladder_table
from sitewarden.serving.secrets import Secrets
from sitewarden.sync.journal import rebuild, verify_file

PIN = "246813"
QUIET = (600, 240)
"""Humidity and temperature in tenths: nothing is wrong."""
PEOPLE = """id,name,name_en,roles,areas,phone
li,李,Li,keeper,*,+8613800138001
wang,王,Wang,officer,*,+8613800138002
zhao,赵,Zhao,control_room,*,
chen,陈,Chen,vice_president,*,
it,信息,It,it,*,
"""
SITE = """
[site]
id = "s1"
name = "测试厂"
name_en = "Test plant"
[gateway]
id = "gw1"
flush_s = 10
[web]
port = {web}
[[area]]
id = "store"
name = "库"
name_en = "Store"
[[bus]]
id = "plant"
kind = "tcp"
host = "127.0.0.1"
port = {modbus}
"""
DEVICE = """
[[device]]
id = "th{unit}"
area = "store"
bus = "plant"
unit_id = {unit}
profile = "rs_ws_n01"
poll_s = {poll_s}
"""
EXCEPTIONS = {"superseded_unacked", "cleared_while_suppressed", "rule_removed"}
"""Why an alarm may close that not everybody has acknowledged."""
_OVER = {"ACCEPTED", "DELIVERED", "DEAD"}


@dataclass
class Sensors:
    """Modbus TCP: a temperature and humidity transmitter at each unit id, and a relay board at any.

    Attributes:
        registers: by unit id: humidity and temperature, tenths.
        coils: of the relay board: siren, lamp.
        asked: requests that were answered.
    """

    registers: dict[int, list[int]] = field(default_factory=dict)
    coils: list[int] = field(default_factory=lambda: [0] * 8)
    asked: int = 0
    port: int = 0

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Sensors]:
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(12)
                transaction, _, _, unit, function, address, value = struct.unpack(">HHHBBHH", head)
                answer = self._answer(unit, function, address, value, head[7:])
                self.asked += 1
                writer.write(struct.pack(">HHHB", transaction, 0, len(answer) + 1, unit) + answer)
        writer.close()

    def _answer(self, unit: int, function: int, address: int, value: int, request: bytes) -> bytes:
        match function:
            case 1:
                bits = sum(bit << n for n, bit in enumerate(self.coils[address : address + value]))
                return struct.pack(">BBB", 1, 1, bits)
            case 5:
                self.coils[address] = int(value == 0xFF00)
                return request
            case _:
                registers = self.registers.setdefault(unit, list(QUIET))[address : address + value]
                return struct.pack(f">BB{value}H", function, 2 * value, *registers)


@dataclass
class Page:
    """A person who is signed in."""

    http: aiohttp.ClientSession
    base: str
    csrf: str

    async def get(self, path: str) -> Any:
        async with self.http.get(f"{self.base}/{path}") as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def post(self, path: str, body: Any) -> Any:
        async with self.http.post(f"{self.base}/{path}", json=body, headers={"X-CSRF-Token": self.csrf}) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def alarm(self, alarm_id: str) -> dict[str, Any] | None:
        return next((alarm for alarm in (await self.get("alarms"))["alarms"] if alarm["id"] == alarm_id), None)

    async def acknowledge(self, alarm_id: str) -> str:
        """Of everything that the person may. Returns the state afterwards."""
        alarm = await self.alarm(alarm_id)
        assert alarm is not None, alarm_id
        body = {"occurrence": alarm["occurrence"], "role": None}
        return (await self.post(f"alarms/{alarm_id}/ack", body))["alarm"]["state"]


@dataclass
class Gateway:
    """A site's folder and its daemon, in this process.

    Args:
        extra: of site.toml, beside the plant.
    """

    folder: Path
    web: int
    sensors: Sensors
    extra: str = ""
    task: asyncio.Task[None] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def journal(self) -> Path:
        return self.data / "journal.db"

    @property
    def config(self) -> Path:
        return self.folder / "site.toml"

    def prepare(self) -> None:
        """Write what people have written before the first start."""
        self.data.mkdir(exist_ok=True)
        text = SITE.format(web=self.web, modbus=self.sensors.port) + self.extra
        self.config.write_text(text, "utf-8")
        (self.folder / "people.csv").write_text(PEOPLE, "utf-8")
        secrets = Secrets(self.data / "secrets.db")
        for person in ("li", "wang", "zhao", "chen", "it"):
            secrets.set_pin(person, PIN)
        secrets.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Gateway]:
        """It runs inside the block, and ends in order."""
        said: list[str] = []
        self.task = task = asyncio.create_task(run_edge(self.config, self.data, say=said.append), name="edge")
        try:
            async with asyncio.timeout(60):
                while not said:
                    if task.done():
                        await task
                    await asyncio.sleep(0.02)
            yield self
            assert not task.done(), "the gateway ended by itself"
        finally:
            task.cancel()
            end_s = time.monotonic() + 60  # the loop's own minute may be over in no time
            while not (await asyncio.wait([task], timeout=60))[0]:
                assert time.monotonic() < end_s, "the gateway does not end"
            with contextlib.suppress(asyncio.CancelledError):
                task.result()

    @asynccontextmanager
    async def page(self, person: str) -> AsyncIterator[Page]:
        base = f"http://127.0.0.1:{self.web}/api/v1"
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http:
            async with http.post(f"{base}/session", json={"person": person, "pin": PIN}) as answer:
                assert answer.status == 200, await answer.text()
                csrf = (await answer.json())["csrf"]
            yield Page(http, base, csrf)

    async def acknowledge(self, alarm_id: str, *people: str) -> str:
        """Each of them, on a page of their own. Returns the state afterwards."""
        state = ""
        for person in people:
            async with self.page(person) as page:
                state = await page.acknowledge(alarm_id)
        return state

    def records(self, *kinds: str) -> list[dict[str, Any]]:
        """Whole records, in order; all of them, or those of these kinds."""
        found = [json.loads(data) for (data,) in query(self.journal, "SELECT data FROM record ORDER BY seq")]
        return [record for record in found if not kinds or record["kind"] in kinds]

    def has(self, alarm_id: str, change: str) -> bool:
        """Whether that is committed. Cheap."""
        sql = "SELECT 1 FROM alarm_history WHERE alarm = ? AND change = ? LIMIT 1"
        return bool(query(self.journal, sql, alarm_id, change))

    def story(self) -> str:
        """What was recorded, a line each, for whoever waited in vain."""
        lines = [
            f"{r['at']['utc']} {r['kind']} "
            + " ".join(
                str(r["body"][key]) for key in ("key", "person", "channel", "error", "detail") if r["body"].get(key)
            )
            for r in self.records()
        ]
        return "\n".join(["what was awaited is not among:", *lines[-40:]])

    def of_alarm(self, alarm_id: str, *kinds: str) -> list[dict[str, Any]]:
        return [r for r in self.records(*kinds) if r["body"].get("alarm") and r["body"]["alarm"]["id"] == alarm_id]


@asynccontextmanager
async def process(gateway: Gateway, *before: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The gateway as `sitewarden edge`, until the end of the block."""
    command = [*before, sys.executable, "-m", "sitewarden", "edge", "--config", str(gateway.config)]
    with (gateway.folder / "edge.log").open("ab") as log:
        started = subprocess.Popen([*command, "--data", str(gateway.data)], stdout=log, stderr=log)
    try:
        yield started
    finally:
        if started.poll() is None:
            started.terminate()
        await asyncio.to_thread(started.wait, 60)


def alarm_toml(point: str, **keys: Any) -> str:
    """An `[[alarm]]` without delays; `keys` as TOML values."""
    given = {"on_delay_s": 0.0, "off_delay_s": 0.0, **keys}
    lines = [f"{key} = {value}" for key, value in given.items()]
    return "\n".join(["[[alarm]]", f'point = "{point}"', *lines, ""])


def import_everything() -> None:
    """What the gateway loads late is loaded now: a clock that is put in place must be found by all of it."""
    for name in ("edge", "serving", "sync", "sensors"):
        package = importlib.import_module(f"sitewarden.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)


def query(path: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What is committed, seen from outside."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


# --- what a journal must say, whatever has happened ---


def check_closed_means_acknowledged(records: Sequence[dict[str, Any]]) -> int:
    """Every alarm that closed was acknowledged by each required role, by persons whose acknowledgements are records
    of their own; or the record says which exception it is.

    Returns:
        How many closed acknowledged.
    """
    acked: set[tuple[str, int, str, str]] = set()
    closed = 0
    for record in records:
        alarm = record["body"].get("alarm") or {}
        match record["kind"]:
            case "alarm.acked":
                acked |= {(alarm["id"], alarm["occurrence"], ack["role"], ack["person"]) for ack in alarm["acks"]}
                assert record["actor"] in {ack["person"] for ack in alarm["acks"]}
            case "alarm.closed" if record["body"]["reason"] not in EXCEPTIONS:
                roles = [ack["role"] for ack in alarm["acks"]]
                assert sorted(roles) == sorted(alarm["required_acks"]), record
                for ack in alarm["acks"]:
                    assert (alarm["id"], alarm["occurrence"], ack["role"], ack["person"]) in acked, record
                if alarm["distinct_persons"]:
                    assert len({ack["person"] for ack in alarm["acks"]}) == len(roles), record
                closed += 1
    return closed


def reconcile(gateway: Gateway) -> int:
    """The journal is whole, each table follows from it, and their counts agree. The gateway does not run.

    Returns:
        How many alarms closed acknowledged.
    """
    path = gateway.journal
    verdict = verify_file(path)
    assert verdict.bad_seq is None, verdict
    records = gateway.records()
    assert verdict.records == len(records)
    kinds = Counter(record["kind"] for record in records)
    alarms = sum(count for kind, count in kinds.items() if kind.startswith("alarm."))
    assert query(path, "SELECT count(*) FROM alarm_history") == [(alarms,)]
    newest = {r["body"]["alarm"]["id"]: r["body"]["alarm"] for r in records if r["kind"].startswith("alarm.")}
    stored = {name: json.loads(data) for name, data in query(path, "SELECT id, data FROM alarm_state")}
    assert {name: alarm["state"] for name, alarm in stored.items()} == {n: a["state"] for n, a in newest.items()}
    born = [who["key"] for record in records for who in record["body"].get("notify", ())]
    rows = dict(query(path, "SELECT key, state FROM outbox"))
    told = [key for (key,) in query(path, "SELECT key FROM outbox WHERE kind <> 'delivery.clear'")]
    assert sorted(born) == sorted(told), "one row for each whom a record must reach"
    ends = {kind: _keys(records, f"delivery.{kind}") for kind in ("accepted", "delivered", "dead")}
    assert {key for key, state in rows.items() if state == "DEAD"} == ends["dead"]
    assert {key for key, state in rows.items() if state in ("ACCEPTED", "DELIVERED")} == (
        ends["accepted"] | ends["delivered"]
    )
    for table in (alarm_table.TABLE, history_query.TABLE, outbox_table.TABLE, ladder_table.TABLE):
        _compare_with_the_journal(path, table)
    return check_closed_means_acknowledged(records)


def everything_told(path: Path) -> bool:
    """Nothing waits to be delivered."""
    return all(state in _OVER for (state,) in query(path, "SELECT state FROM outbox"))


def _keys(records: Sequence[dict[str, Any]], kind: str) -> set[str]:
    return {record["body"]["key"] for record in records if record["kind"] == kind}


def _compare_with_the_journal(path: Path, table: Any) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        with contextlib.closing(sqlite3.connect(path)) as db:
            db.backup(copy)
        before = [copy.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in table.tables]
        rebuild(copy, table)
        assert [copy.execute(f"SELECT * FROM {name} ORDER BY 1, 2").fetchall() for name in table.tables] == before
