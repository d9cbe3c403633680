"""Scenario 2: killed at commit and send boundaries, again and again on one data folder, while alarms come and go.

No row is lost, no row is told twice in one life, what may have come before says so, and ladders keep their times.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alerts import outbox_table
from sitewarden.edge.ladders import table as ladder_table
from sitewarden.sync.journal import rebuild, verify_file
from sitewarden.tests.peers.whole_gateway import check_closed_means_acknowledged

SITE = """
[site]
id = "s1"
name = "测试厂"
name_en = "Test plant"
[gateway]
id = "gw1"
flush_s = 1
[web]
port = {port}
[[area]]
id = "store"
name = "库"
name_en = "Store"
[[bus]]
id = "plant"
kind = "tcp"
host = "127.0.0.1"
port = {modbus}
[[device]]
id = "th1"
area = "store"
bus = "plant"
unit_id = 1
profile = "rs_ws_n01"
poll_s = 0.1
[[alarm]]
point = "store.th1.humidity"
hi = {{ limit = 75.0, priority = 1 }}
on_delay_s = 0.0
off_delay_s = 0.0
reopen_s = 0.0
[[alarm]]
point = "store.th1.temperature"
hi = {{ limit = 35.0, priority = 2 }}
on_delay_s = 0.0
off_delay_s = 0.0
reopen_s = 0.0
[alerts]
channels = ["robot"]
unreachable_ok = true
[[channel]]
id = "robot"
kind = "webhook"
url = "http://127.0.0.1:{robot}/robot"
timeout_s = 5.0
"""
PEOPLE = (
    "id,name,name_en,roles,areas,phone\n"
    "li,李,Li,keeper,*,\nwang,王,Wang,officer,*,\nzhao,赵,Zhao,control_room,*,\nchen,陈,Chen,vice_president,*,\n"
)
QUIET, LOUD = (600, 240), (800, 400)


@dataclass
class Bench:
    """A sensor and a robot that outlive the gateway, and every message with the life in which it came."""

    folder: Path
    ports: dict[str, int]
    registers: list[int] = field(default_factory=lambda: list(QUIET))
    life: int = 0
    told: list[tuple[int, str, bool]] = field(default_factory=list)
    refuse: bool = False
    kills: int = 0

    @property
    def data(self) -> Path:
        return self.folder / "data"

    async def sensor(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readexactly(12)
                transaction, _, _, unit, function, address, count = struct.unpack(">HHHBBHH", head)
                words = struct.pack(f">{count}H", *(self.registers[address : address + count]))
                body = struct.pack(">BBB", unit, function, len(words)) + words
                writer.write(struct.pack(">HHH", transaction, 0, len(body)) + body)
        writer.close()

    async def robot(self, request: web.Request) -> web.Response:
        message = await request.json()
        if self.refuse:
            return web.json_response({"errcode": 45009, "errmsg": "api freq out of limit"})
        self.told.append((self.life, message["key"], message["resent"]))
        return web.json_response({"errcode": 0})

    async def live(self, at: int, until: Callable[[], Any] | None = None, bound_s: float = 60.0) -> int:
        """One life of the gateway, with alarms that come and go; at 0 with neither, until `until`.

        Returns:
            Its exit code: -9 when it was killed at boundary `at`.
        """
        self.life += 1
        program = (sys.executable, "-m", "sitewarden.tests.peers.killed_edge")
        arguments = (str(self.folder / "site.toml"), str(self.data), str(at))
        with (self.folder / "edge.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(*program, *arguments, stdout=log, stderr=log, env=os.environ)
        self.registers[:], self.refuse = QUIET, False
        swings = asyncio.create_task(self.swing() if at else asyncio.sleep(0))
        try:
            async with asyncio.timeout(bound_s):
                while process.returncode is None:
                    if until is not None and await until():
                        break
                    await asyncio.sleep(0.05)
        finally:
            swings.cancel()
            if process.returncode is None:
                process.terminate()
            await asyncio.wait_for(process.wait(), 30)
        assert process.returncode is not None
        self.kills += process.returncode == -9
        return process.returncode

    async def swing(self) -> None:
        """Alarms come and go."""
        while True:
            self.registers[:] = LOUD if self.registers[0] == QUIET[0] else QUIET
            self.refuse = random.random() < 0.3
            await asyncio.sleep(0.25)

    def log(self) -> str:
        return (self.folder / "edge.log").read_text("utf-8", "replace")

    async def is_settled(self) -> bool:
        """Nothing waits to be delivered."""
        url = f"http://127.0.0.1:{self.ports['web']}/api/v1/session"
        with contextlib.suppress(aiohttp.ClientError, OSError):
            async with aiohttp.ClientSession() as http, http.get(url):
                rows = self.query("SELECT count(*) FROM outbox WHERE state IN ('PENDING', 'SENDING', 'RETRY')")
                return rows == [(0,)]
        return False

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with contextlib.closing(sqlite3.connect(self.data / "journal.db")) as db:
            return db.execute(sql).fetchall()

    def records(self, prefix: str) -> list[dict[str, Any]]:
        return [json.loads(data) for (data,) in self.query(f"SELECT data FROM record WHERE kind GLOB '{prefix}*'")]


@pytest.fixture
async def bench(tmp_path: Path, free_port) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, {name: free_port() for name in ("web", "modbus", "robot")})
    text = SITE.format(port=made.ports["web"], modbus=made.ports["modbus"], robot=made.ports["robot"])
    (tmp_path / "site.toml").write_text(text, "utf-8")
    (tmp_path / "people.csv").write_text(PEOPLE, "utf-8")
    made.data.mkdir()
    sensor = await asyncio.start_server(made.sensor, "127.0.0.1", made.ports["modbus"])
    app = web.Application()
    app.router.add_post("/robot", made.robot)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", made.ports["robot"]).start()
    try:
        yield made
    finally:
        await runner.cleanup()
        sensor.close()


async def sweep(bench: Bench, boundaries: list[int]) -> None:
    """Die at each of these, then live until everything is told; then look."""
    for at in boundaries:
        assert await bench.live(at) in (-9, 0)
        assert verify_file(bench.data / "journal.db").bad_seq is None
    await settle(bench)
    check(bench)


async def settle(bench: Bench) -> None:
    assert await bench.live(0, bench.is_settled, bound_s=240.0) == -15


def check(bench: Bench) -> None:
    """What every sweep must leave behind."""
    born = {who["key"] for record in bench.records("*") for who in record["body"].get("notify", ())}
    rows = dict(bench.query("SELECT key, state FROM outbox"))
    assert born == rows.keys(), "a row for each whom a record must reach, and no other"
    assert set(rows.values()) <= {"ACCEPTED", "DELIVERED", "DEAD"}
    told = Counter(key for _, key, _ in bench.told)
    accepted = {record["body"]["key"]: record["body"]["batch"] for record in bench.records("delivery.accepted")}
    assert accepted.keys() == {key for key, state in rows.items() if state == "ACCEPTED"}
    assert set(accepted.values()) <= told.keys(), "alone or with others, it was told"
    assert max(Counter((life, key) for life, key, _ in bench.told).values()) == 1, "never twice in one life"
    first: set[str] = set()
    for _, key, resent in bench.told:
        assert key not in first or resent, "what may have come before says so"
        first.add(key)
    check_closed_means_acknowledged(bench.records("alarm."))
    began = {record["body"]["ladder"]["subject"]["occurrence"]: record for record in bench.records("ladder.started")}
    for (text,) in bench.query("SELECT data FROM ladder_state"):
        ladder = json.loads(text)
        assert ladder["t0"] == began[ladder["subject"]["occurrence"]]["body"]["ladder"]["t0"], "a ladder keeps its time"
    for table in (alarm_table.TABLE, outbox_table.TABLE, ladder_table.TABLE):
        compare_with_the_journal(bench, table)


def compare_with_the_journal(bench: Bench, table: Any) -> None:
    with contextlib.closing(sqlite3.connect(":memory:")) as copy:
        with contextlib.closing(sqlite3.connect(bench.data / "journal.db")) as db:
            db.backup(copy)
        before = [copy.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in table.tables]
        rebuild(copy, table)
        assert [copy.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in table.tables] == before


async def test_killed_at_boundaries(bench: Bench):
    dice = random.Random(20_261_122)
    await sweep(bench, [dice.randrange(3, 60) for _ in range(10)])
    assert bench.kills >= 8


@pytest.mark.soak
@pytest.mark.timeout(1200)
async def test_killed_at_every_boundary(bench: Bench, capsys):
    """Every boundary from the first on, in lives that go on from each other."""
    bound_s = float(os.environ.get("SITEWARDEN_SOAK_S", "600"))
    loop = asyncio.get_running_loop()
    end_s, at = loop.time() + bound_s * 0.8, 0
    while loop.time() < end_s:
        at += 1
        assert await bench.live(at) == -9, f"boundary {at} was not reached:\n{bench.log()[-4000:]}"
    await settle(bench)
    check(bench)
    with capsys.disabled():
        print(f"\nkilled {bench.kills} times at boundaries 1..{at}, {len(bench.told)} messages")
