"""Checkpoints of the journal: what is signed and when, and what a start costs."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.sync import checkpoints as module
from sitewarden.sync.checkpoints import Checkpoints
from sitewarden.sync.evidence_state import EvidenceHealth
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.merkle import EMPTY, extend, root
from sitewarden.sync.notes import Checkpoint, parse_note, verify_note
from sitewarden.words import now

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


def drafts(count: int, kind: str = "test.noted") -> list[Draft]:
    return [Draft(kind=kind, at=now(), actor="gateway", body={"n": n}) for n in range(count)]


@contextlib.asynccontextmanager
async def signing(journal: Journal, **options: Any) -> AsyncIterator[Checkpoints]:
    """Checkpoints of `journal` for the length of the block. Without options they come by number alone."""
    chosen: dict[str, Any] = {"every_s": 3600.0} | options
    made = Checkpoints(journal, KEY, EvidenceHealth(), **chosen)
    task = asyncio.create_task(made.run(), name="checkpoints")
    try:
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def stored(path: Path) -> list[Checkpoint]:
    """Every checkpoint, its signature checked."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT note FROM checkpoint ORDER BY size").fetchall()
    found = []
    for (text,) in rows:
        note = parse_note(text)
        found.append(Checkpoint.parse(note.text))
        verify_note(note, found[-1].origin, [KEY.public_key()])
    return found


def sql(path: Path, *statements: str) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_a_checkpoint_is_the_tree_and_the_chain_of_the_records(path: Path, eventually):
    async with Journal(path, "gw1") as journal, signing(journal) as made:
        await journal.append(drafts(7))
        await eventually(lambda: made.health.signed == 7, "the first records are signed at once")
        rows = await journal.raw(0, 100)
    (found,) = stored(path)
    assert found.origin == f"sitewarden/gw1/{journal.epoch}"
    assert (found.size, found.chain) == (7, rows[-1][2])
    assert found.root == root(extend(EMPTY, (data for _, data, _ in rows)))


async def test_after_so_many_records_and_not_before(path: Path, eventually, monkeypatch):
    monkeypatch.setattr(module, "LEAST_S", 0.0)
    async with Journal(path, "gw1") as journal, signing(journal, every_records=256) as made:
        await journal.append(drafts(1))
        await eventually(lambda: made.health.signed == 1, "the first record")
        await journal.append(drafts(255))
        for _ in range(20):
            await asyncio.sleep(0)
            await journal.query(lambda c: c.execute("SELECT 1").fetchone())
        assert made.health.signed == 1
        await journal.append(drafts(1))
        await eventually(lambda: made.health.signed == 257, "256 records more")
    assert [checkpoint.size for checkpoint in stored(path)] == [1, 257]


async def test_after_so_much_time_when_there_is_something_new(path: Path, eventually):
    async with Journal(path, "gw1") as journal, signing(journal, every_s=0.05) as made:
        await journal.append(drafts(3))
        await eventually(lambda: made.health.signed == 3, "the first records")
        await asyncio.sleep(0.2)  # nothing new: nothing is signed, however long it takes
        await journal.append(drafts(2))
        await eventually(lambda: made.health.signed == 5, "the time has passed")
    assert [checkpoint.size for checkpoint in stored(path)] == [3, 5]


async def test_in_a_flood_one_checkpoint_covers_what_came_meanwhile(path: Path, eventually, monkeypatch):
    monkeypatch.setattr(module, "LEAST_S", 0.3)
    async with Journal(path, "gw1") as journal, signing(journal, every_records=10) as made:
        await journal.append(drafts(1))
        await eventually(lambda: made.health.signed == 1, "the first record")
        for _ in range(10):
            await journal.append(drafts(10))
        await eventually(lambda: made.health.signed == 101, "all of them, in the end")
    assert len(stored(path)) < 6


@pytest.mark.parametrize("way", ["kind", "request"])
async def test_a_sign_off_does_not_wait(path: Path, eventually, way: str):
    async with (
        Journal(path, "gw1") as journal,
        signing(journal, at_once=lambda record: record.kind == "permit.closed") as made,
    ):
        await journal.append(drafts(1))
        await eventually(lambda: made.health.signed == 1, "the first record")
        await journal.append(drafts(1, "permit.closed" if way == "kind" else "test.noted"))
        if way == "request":
            made.request()
        await eventually(lambda: made.health.signed == 2, "signed at once")


async def test_a_start_hashes_only_what_came_after_the_newest_checkpoint(path: Path, eventually, monkeypatch):
    async with Journal(path, "gw1") as journal, signing(journal) as made:
        await journal.append(drafts(2_000))
        await eventually(lambda: made.health.signed == 2_000, "all of them")
        await journal.append(drafts(3))
    hashed: list[int] = []
    slices = module._slice
    monkeypatch.setattr(module, "_slice", lambda c, base, tree, n: hashed.append(n) or slices(c, base, tree, n))
    async with Journal(path, "gw1") as journal, signing(journal) as made:
        await eventually(lambda: made.health.signed == 2_003, "the rest")
        rows = await journal.raw(0, 3_000)
    assert hashed == [3]
    assert stored(path)[-1].root == root(extend(EMPTY, (data for _, data, _ in rows)))


async def test_a_tree_that_was_damaged_is_made_again(path: Path, eventually):
    async with Journal(path, "gw1") as journal, signing(journal) as made:
        await journal.append(drafts(5))
        await eventually(lambda: made.health.signed == 5, "the first records")
    for wrong in ("UPDATE checkpoint_tree SET nodes = x'00'", "DELETE FROM checkpoint_tree"):
        sql(path, wrong)
        async with Journal(path, "gw1") as journal, signing(journal) as made:
            (record,) = await journal.append(drafts(1))
            await eventually(lambda n=record.seq, m=made: m.health.signed == n, "signed again")
            rows = await journal.raw(0, 100)
        assert stored(path)[-1].root == root(extend(EMPTY, (data for _, data, _ in rows)))


TOUCHED = {
    "the end removed": "DELETE FROM record WHERE seq > 4",
    "the last one altered": "UPDATE record SET chain = zeroblob(32) WHERE seq = 5",
}


@pytest.mark.parametrize("name", TOUCHED)
async def test_nothing_is_signed_that_contradicts_what_was_signed(path: Path, eventually, name: str):
    async with Journal(path, "gw1") as journal, signing(journal) as made:
        await journal.append(drafts(5))
        await eventually(lambda: made.health.signed == 5, "the first records")
    sql(path, TOUCHED[name])
    async with Journal(path, "gw1") as journal, signing(journal) as made:
        await journal.append(drafts(3))
        await eventually(lambda: made.health.problem, "it says so")
        assert "not the one whose 5 records" in made.health.problem
    assert [checkpoint.size for checkpoint in stored(path)] == [5]
