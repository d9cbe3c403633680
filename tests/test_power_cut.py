"""The power fails at any moment: what was acknowledged is there, whole and in order, and nothing stands in the way of
the next start."""

from __future__ import annotations

import contextlib
import os
import random
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.store import STEPS, Store
from sitewarden.sync.blob_refs import state_table
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.history import History
from sitewarden.sync.journal import Journal, verify_file
from sitewarden.tests.peers.disk_trace import Step, build, compiler, cut, lay_out, record
from sitewarden.tests.peers.power_cut_work import AT_MS, GATEWAY, POINT

CUTS = 100
SOAK_S = float(os.environ.get("SITEWARDEN_SOAK_S", "600"))
WORK = "sitewarden.tests.peers.power_cut_work"


@dataclass
class Trace:
    """A run: what it did to its folder, and that folder as it was in the end."""

    folder: Path
    steps: Sequence[Step]

    def acked(self, most: int) -> list[list[str]]:
        """What was acknowledged within the first steps."""
        told = b"".join(step.data for step in self.steps[:most] if step.name.endswith("/ACK") and step.kind == "W")
        return [line.split() for line in told.decode().splitlines()]

    def after_cut(self, dice: random.Random, folder: Path) -> list[list[str]]:
        """Lay out what a cut at any moment leaves; what had been acknowledged before it."""
        most = dice.randrange(1, len(self.steps) + 1)
        lay_out(cut([step for step in self.steps[:most] if not step.name.endswith("/ACK")], dice), self.folder, folder)
        return self.acked(most)


Make = Callable[..., Trace]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Make:
    if compiler() is None:
        why = "no C compiler: apt-get install gcc libc6-dev"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(why)
    library = build(tmp_path_factory.mktemp("library"))

    def make(*work: str) -> Trace:
        folder = tmp_path_factory.mktemp("-".join(work))
        trace = record(library, folder, folder.with_suffix(".trace"), WORK, *work)
        assert trace
        return Trace(folder, trace)

    return make


@contextlib.asynccontextmanager
async def restarted(folder: Path) -> AsyncIterator[tuple[Journal, History, Blobs]]:
    damaged: list[Path] = []
    async with (
        Journal(folder / "journal.db", GATEWAY, (state_table(()),)) as journal,
        History(folder / "history.db", GATEWAY, on_damage=damaged.append) as history,
        Blobs(folder / "blobs", journal, rules=()) as blobs,
    ):
        assert not damaged
        yield journal, history, blobs


def records(folder: Path) -> list[tuple[int, bytes, bytes]]:
    with contextlib.closing(sqlite3.connect(folder / "journal.db")) as connection:
        return connection.execute("SELECT seq, data, chain FROM record ORDER BY seq").fetchall()


async def lost_at_the_edge(trace: Trace, whole: Sequence[tuple[int, bytes, bytes]], seed: int, folder: Path) -> str:
    """Cut, start again, look: what is wrong, "" when nothing is."""
    acked = trace.after_cut(random.Random(seed), folder)
    latest = {kind: int(value) for kind, value in acked if kind != "blob"}
    async with restarted(folder) as (journal, history, blobs):
        kept = await journal.raw(0, 10**6)
        if (verdict := verify_file(folder / "journal.db")).problem:
            return f"the chain is broken: {verdict.problem}"
        if [*whole[: len(kept)]] != kept:
            return "other records than were written"
        if len(kept) < latest.get("journal", 0):
            return f"{latest['journal'] - len(kept)} acknowledged records are lost"
        values = [value for _, value, _ in await history.read(POINT, 0, AT_MS + 10**9)]
        if values != [float(n) for n in range(len(values))]:
            return "other readings than were written"
        if len(values) < latest.get("history", 0):
            return f"{latest['history'] - len(values)} acknowledged readings are lost"
        for kind, sha256 in acked:
            if kind == "blob" and (await blobs.verified(sha256)).stat().st_size == 0:
                return f"photo {sha256} is empty"
    return ""


async def lost_in_the_cloud(trace: Trace, seed: int, folder: Path) -> str:
    acked = trace.after_cut(random.Random(seed), folder)
    latest = {name: int(n) for _, name, n in acked}
    async with SqliteDatabase(folder / "cloud.db", STEPS) as database:
        for name, n in latest.items():
            (cursor,) = (await Store(database).cursors(name))["history"]
            sql = "SELECT count(*), max(n) FROM batch WHERE gateway = ?"
            count, newest = await database.read(lambda tx, sql=sql, name=name: tx.one(sql, name)) or (0, 0)
            if cursor.ack < n or count != newest != cursor.ack:
                return f"{name}: {n} were acknowledged, the cursor says {cursor.ack}, {count} batches are kept"
    with contextlib.closing(sqlite3.connect(folder / "cloud.db")) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    return "" if found == "ok" else found


async def test_no_cut_loses_what_the_gateway_acknowledged(made: Make, tmp_path: Path) -> None:
    trace = made("edge", "1")
    whole = records(trace.folder)
    for seed in range(CUTS):
        assert not await lost_at_the_edge(trace, whole, seed, tmp_path / "cut"), f"cut {seed}"


async def test_no_cut_loses_what_the_cloud_acknowledged(made: Make, tmp_path: Path) -> None:
    trace = made("cloud", "1")
    for seed in range(CUTS):
        assert not await lost_in_the_cloud(trace, seed, tmp_path / "cut"), f"cut {seed}"


async def test_commits_that_are_not_synced_would_be_seen(made: Make, tmp_path: Path) -> None:
    """The control: without full sync the same cuts lose an acknowledged end, and still nothing in the middle."""
    trace = made("edge", "1", "NORMAL")
    whole = records(trace.folder)
    found = Counter([await lost_at_the_edge(trace, whole, seed, tmp_path / "cut") for seed in range(CUTS)])
    lost = sum(count for problem, count in found.items() if problem.endswith("are lost"))
    assert lost > CUTS // 10
    assert lost + found[""] == CUTS, found


@pytest.mark.soak
async def test_cuts_for_long(made: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = random.SystemRandom().randrange(10**9)
    end_s, cuts = time.monotonic() + SOAK_S, Counter[str]()
    try:
        while time.monotonic() < end_s:
            work = str(first + cuts["runs"])
            edge, cloud = made("edge", work), made("cloud", work)
            whole = records(edge.folder)
            for seed in range(first, first + 200):
                assert not await lost_at_the_edge(edge, whole, seed, tmp_path / "cut"), f"run {work}, cut {seed}"
                assert not await lost_in_the_cloud(cloud, seed, tmp_path / "cut"), f"run {work}, cut {seed}"
                cuts["edge"] += 1
                cuts["cloud"] += 1
                if time.monotonic() > end_s:
                    break
            cuts["runs"] += 1
    finally:
        with capsys.disabled():
            print(f"\nseed {first}: {dict(cuts)}")
