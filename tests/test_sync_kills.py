"""kill -9 of gateway and cloud at random moments, over a link that breaks in the middle of requests and answers: in the
end both hold the same lists, and what was told was kept."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sitewarden.sync.columns import decompress, unpack
from sitewarden.sync.journal import verify_file
from sitewarden.sync.keys import public_key_text
from sitewarden.tests.peers.linked_site import KEY
from sitewarden.tests.peers.sync_edge import POINT

BOUND_S = 120.0
SOAK_S = float(os.environ.get("SITEWARDEN_SOAK_S", "600"))


@dataclass
class Breaking:
    """A relay that ends each connection after some bytes, either way: in a head, in a body, in an answer."""

    far: int
    dice: random.Random
    port: int
    is_breaking: bool = True
    broken: int = 0
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)

    async def relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        most = self.dice.choice([300, 3_000, 30_000, 300_000]) if self.is_breaking else 10**9
        left = [self.dice.randrange(most) + 1]

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while left[0] > 0 and (data := await source.read(min(4096, left[0]))):
                left[0] -= len(data)
                sink.write(data)
                await sink.drain()
            self.broken += left[0] <= 0

        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.far)
            ways = [asyncio.create_task(pump(reader, far_writer)), asyncio.create_task(pump(far_reader, writer))]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
                far_writer.close()
        writer.close()


@dataclass
class Plant:
    """The two processes, what they said, and how often each was killed."""

    folder: Path
    cloud_port: int
    link: Breaking
    told: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    _processes: dict[str, asyncio.subprocess.Process] = field(default_factory=dict)
    _hearing: asyncio.Task[None] | None = None

    async def start(self, who: str, seed: int = 0) -> None:
        if who == "cloud":
            command = ["sitewarden", "cloud", "--config", str(self.folder / "cloud.toml")]
            command += ["--data", str(self.folder / "cloud")]
        else:
            command = ["sitewarden.tests.peers.sync_edge", str(self.folder / "edge"), str(self.link.port), str(seed)]
        log = (self.folder / f"{who}.log").open("ab")
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", *command, stdout=asyncio.subprocess.PIPE, stderr=log
        )
        log.close()
        self._processes[who] = process
        if who == "edge":
            self._hearing = asyncio.create_task(self._hear(process))

    async def kill(self, who: str) -> None:
        self.kills[who] += 1
        process = self._processes.pop(who)
        try:
            process.kill()
        except ProcessLookupError:
            pytest.fail(f"{who} ended by itself: {self.log(who)()}")
        await process.wait()
        if who == "edge" and self._hearing is not None:
            await self._hearing

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while (line := await process.stdout.readline()).endswith(b"\n"):
            what, count = line.decode().split()
            self.told[what] = max(self.told[what], int(count))

    async def heard_more(self, what: str) -> None:
        """Until the gateway committed something."""
        before = self.told[what]
        await until(lambda: self.told[what] > before, self.log("edge"))

    def log(self, who: str) -> Callable[[], str]:
        return lambda: (self.folder / f"{who}.log").read_text("utf-8", "replace")[-2000:]

    async def end(self) -> None:
        for who in list(self._processes):
            await self.kill(who)


async def until(condition: Callable[[], bool], more: Callable[[], str] = str) -> None:
    end_s = time.monotonic() + BOUND_S
    while not condition():
        if time.monotonic() > end_s:
            pytest.fail(f"never happened; {more()}")
        await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def planted(folder: Path, ports: Callable[[], int], dice: random.Random) -> AsyncIterator[Plant]:
    port = ports()
    (folder / "edge").mkdir()
    (folder / "people.csv").write_text("id,name,name_en,roles,areas,phone\n", "utf-8")
    (folder / "cloud.toml").write_text(
        f'[cloud]\nname = "总部"\nname_en = "HQ"\nport = {port}\n'
        f'[[gateway]]\nid = "gw1"\nname = "一厂"\nname_en = "Plant"\npublic_key = "{public_key_text(KEY)}"\n',
        "utf-8",
    )
    link = Breaking(port, dice, ports())
    server = await asyncio.start_server(link.relay, "127.0.0.1", link.port)
    plant = Plant(folder, port, link)
    try:
        yield plant
    finally:
        await plant.end()
        server.close()


def rows(path: Path, sql: str) -> list[tuple[Any, ...]]:
    if not path.exists():
        return []
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


RECORDS = "SELECT seq, data, chain FROM record ORDER BY seq"


def lists(folder: Path) -> tuple[list[Any], list[Any]]:
    """What the gateway has, and what the cloud has: records, then segments."""
    edge, cloud = folder / "edge", folder / "cloud" / "cloud.db"
    segments = rows(edge / "history.db", "SELECT n, body FROM segment JOIN body USING (n) ORDER BY n")
    with contextlib.suppress(sqlite3.OperationalError):  # the cloud has no tables yet
        batches = rows(cloud, "SELECT n, body FROM batch WHERE stream = 'history' ORDER BY n")
        theirs = [*rows(cloud, RECORDS), *((n, decompress(body)) for n, body in batches)]
        return [*rows(edge / "journal.db", RECORDS), *((n, decompress(body)) for n, body in segments)], theirs
    return [None], []


async def fault(plant: Plant, dice: random.Random, victim: str) -> None:
    """Some work, then one of the two is killed and comes back, perhaps after the other has worked alone."""
    await plant.heard_more(dice.choice(["records", "readings"]))
    await asyncio.sleep(dice.random() * 0.3)
    await plant.kill(victim)
    if victim == "cloud":
        await plant.heard_more("records")
    await plant.start(victim, dice.randrange(10**6))


async def settle(plant: Plant) -> None:
    """The link holds, nothing new comes: both ends must become equal."""
    await plant.kill("edge")
    plant.link.is_breaking = False
    await plant.start("edge", -1)
    await until(lambda: plant.told["sealed"] == 1, plant.log("edge"))
    mine, theirs = [], []

    def is_equal() -> bool:
        nonlocal mine, theirs
        mine, theirs = lists(plant.folder)
        return mine == theirs

    await until(is_equal, lambda: f"{len(mine)} here, {len(theirs)} there; {plant.log('edge')()}")
    await plant.end()
    assert lists(plant.folder)[0] == mine
    edge = plant.folder / "edge"
    assert verify_file(edge / "journal.db").problem == ""
    assert len(rows(edge / "journal.db", RECORDS)) >= plant.told["records"], "what was told was kept"
    segments = rows(edge / "history.db", "SELECT body FROM segment JOIN body USING (n) ORDER BY n")
    blocks = [block for (body,) in segments for block in unpack(decompress(body))]
    values = [value for block in blocks for column in block.columns for value in column.values]
    assert values == [float(n) for n in range(len(values))], f"{POINT}: each reading once, in order"
    assert len(values) >= plant.told["readings"]
    assert not rows(plant.folder / "cloud" / "cloud.db", "SELECT * FROM quarantine")


async def test_twelve_kills_and_a_link_that_breaks_lose_nothing(tmp_path: Path, free_port: Callable[[], int]) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    async with planted(tmp_path, free_port, dice) as plant:
        await plant.start("cloud")
        await plant.start("edge")
        for victim in dice.sample(["edge", "cloud"] * 6, 12):
            await fault(plant, dice, victim)
        await settle(plant)
        assert min(plant.kills.values()) >= 6
        assert plant.link.broken


@pytest.mark.soak
@pytest.mark.timeout(0)
async def test_kills_for_long(tmp_path: Path, free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]) -> None:
    """SITEWARDEN_SOAK_S seconds, 20 kills a run; SITEWARDEN_SEED repeats the first run."""
    seed = int(os.environ.get("SITEWARDEN_SEED") or random.SystemRandom().randrange(2**32))
    end_s, kills, runs, records = time.monotonic() + SOAK_S, Counter[str](), 0, 0
    with capsys.disabled():
        print(f"\nSITEWARDEN_SEED={seed}")
    while time.monotonic() < end_s:
        dice, folder = random.Random(seed + runs), tmp_path / str(runs)
        folder.mkdir()
        async with planted(folder, free_port, dice) as plant:
            await plant.start("cloud")
            await plant.start("edge")
            for _ in range(20):
                await fault(plant, dice, dice.choice(["edge", "cloud"]))
            await settle(plant)
            kills += plant.kills
        records += len(rows(folder / "edge" / "journal.db", RECORDS))
        runs += 1
    with capsys.disabled():
        print(f"{runs} runs, kills {dict(kills)}, {records} records")
