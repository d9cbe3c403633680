"""A damaged journal keeps no gateway from starting: it is set aside, and what can be proven of it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import shutil
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from sitewarden.sync import journal_rescue
from sitewarden.sync.journal import Draft, Journal, Record, StateTable, verify_file
from sitewarden.sync.journal_rescue import suspicion_of
from sitewarden.sync.sqlite import StoreError
from sitewarden.tests.peers.bad_bytes import flip
from sitewarden.words import now

SOAK_S = float(os.environ.get("SITEWARDEN_SOAK_S", "600"))
RECORDS = 300


def _count(connection: sqlite3.Connection, record: Record) -> None:
    connection.execute("INSERT INTO said VALUES (?, ?)", (record.seq, record.body["i"]))


SAID = StateTable(
    name="said",
    version=1,
    schema="CREATE TABLE said (seq INTEGER PRIMARY KEY, i INTEGER NOT NULL)",
    tables=("said",),
    kinds=("test.said",),
    apply=_count,
)


def opened(folder: Path) -> Journal:
    return Journal(folder / "journal.db", "gw1", (SAID,))


async def say(journal: Journal, first: int, last: int) -> None:
    for at in range(first, last + 1, 10):
        drafts = [
            Draft(kind="test.said", at=now(), actor="gateway", body={"i": i, "text": "x" * (i * 37 % 900)})
            for i in range(at, min(at + 10, last + 1))
        ]
        await journal.append(drafts)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with some hundred records and a table beside them, closed."""
    folder = tmp_path_factory.mktemp("whole")

    async def fill() -> None:
        async with opened(folder) as journal:
            await say(journal, 1, RECORDS)
            await journal.write(lambda c: c.execute("CREATE TABLE cursor_of (name TEXT PRIMARY KEY, seq INTEGER)"))
            await journal.write(lambda c: c.execute("INSERT INTO cursor_of VALUES ('robot', 40), ('mqtt', 299)"))

    asyncio.run(fill())
    return folder


def rows(path: Path, sql: str) -> list[tuple[object, ...]]:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


ALL = "SELECT seq, kind, data, chain FROM record ORDER BY seq"


async def starts(folder: Path, was: Path) -> int:
    """Start on what is there, and say something. How many of the old records are there; -1: it was not set aside."""
    before = (folder / "journal.db").read_bytes()
    async with opened(folder) as journal:
        begun = dict(journal.began)
        await say(journal, 1000, 1000)
    old, new = rows(was / "journal.db", ALL), rows(folder / "journal.db", ALL)
    said = rows(folder / "journal.db", "SELECT seq, i FROM said ORDER BY seq")
    assert len(said) == sum(row[1] == "test.said" for row in new), "what follows from the records is there"
    if not begun:
        assert [row[0] for row in new[:-1]] == [row[0] for row in old]
        return -1
    told = begun["damaged"]
    carried, holes = told["carried"], [n for first, last in told["missing"] for n in range(first, last + 1)]
    assert begun["reason"] == journal_rescue.DAMAGED
    behind_a_hole = {last + 1 for _, last in told["missing"]}  # nothing can show that these are as they were
    assert {row for row in new[:carried] if row[0] not in behind_a_hole} <= set(old), "what was altered is missing"
    assert [row[0] for row in new[:carried]] == [n for n in range(1, told["last"] + 1) if n not in holes]
    assert [row[1] for row in new[carried:]] == ["journal.restored", "test.said"]
    assert new[carried][0] == told["last"] + 1
    verdict = verify_file(folder / "journal.db")
    assert verdict.bad_seq == (holes[0] if holes else None), verdict
    kept = folder / told["kept_as"]
    assert kept.read_bytes() == before, "the damaged file is kept as it was"
    assert told["sha256"] == hashlib.sha256(before).hexdigest()
    return carried


async def one(whole: Path, folder: Path, seed: int) -> str:
    dice = random.Random(seed)
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    flip(folder / "journal.db", dice)
    carried = await starts(folder, whole)
    return "as it was" if carried < 0 else "all" if carried == RECORDS else "a part" if carried else "nothing"


async def test_bytes_that_went_bad_keep_nothing_from_starting(whole: Path, tmp_path: Path) -> None:
    found = Counter([await one(whole, tmp_path / "flipped", seed) for seed in range(60)])
    assert found["a part"] > 5, found


@pytest.mark.soak
async def test_bytes_that_went_bad_for_long(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, end_s, found = random.SystemRandom().randrange(10**9), time.monotonic() + SOAK_S, Counter[str]()
    seed = first
    try:
        while time.monotonic() < end_s:
            found[await one(whole, tmp_path / "flipped", seed)] += 1
            seed += 1
    finally:
        with capsys.disabled():
            print(f"\nseeds {first} to {seed}: {dict(found)}")


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"this is no database, and it is long enough to be looked at" * 20),
        lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
        lambda path: path.write_bytes(bytes(path.stat().st_size)),
    ],
    ids=["text", "cut", "zeros"],
)
async def test_what_is_no_database_any_more_is_kept_and_begun_anew(
    whole: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    shutil.copytree(whole, tmp_path / "d")
    damage(tmp_path / "d" / "journal.db")
    assert await starts(tmp_path / "d", whole) >= 0


async def test_tables_beside_the_records_are_carried_over(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "d")
    path = tmp_path / "d" / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE record SET data = x'00' WHERE seq IN (280, 281, 300)")
    assert await starts(tmp_path / "d", whole) == 297
    assert rows(path, "SELECT * FROM cursor_of") == [("robot", 40), ("mqtt", 299)]


async def test_a_schema_that_is_no_text_is_damage(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "d")
    path = tmp_path / "d" / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET name = CAST(x'6361c5' AS TEXT), sql = 'x' WHERE name = 'cursor_of'"
        )
    assert await starts(tmp_path / "d", whole) >= 0


async def test_a_note_of_what_was_done_that_went_bad_is_damage(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "d")
    with contextlib.closing(sqlite3.connect(tmp_path / "d" / "journal.db")) as connection, connection:
        connection.execute("UPDATE _sqlite_migrations SET name = 'm003_epocis' WHERE name = 'm003_epochs'")
    assert await starts(tmp_path / "d", whole) == RECORDS


async def test_a_name_of_the_gateway_that_went_bad_is_damage(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "d")
    with contextlib.closing(sqlite3.connect(tmp_path / "d" / "journal.db")) as connection, connection:
        connection.execute("UPDATE meta SET value = 'gwq' WHERE key = 'gateway'")
    assert await starts(tmp_path / "d", whole) == RECORDS


@pytest.mark.parametrize("seq", [2**40, -7])
async def test_a_number_that_went_bad_leads_nowhere(whole: Path, tmp_path: Path, seq: int) -> None:
    shutil.copytree(whole, tmp_path / "d")
    path = tmp_path / "d" / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE record SET kind = CAST(x'ff' AS TEXT) WHERE seq = 290")
        connection.execute("UPDATE record SET seq = ?, kind = CAST(x'ff' AS TEXT) WHERE seq = 299", (seq,))
    assert await starts(tmp_path / "d", whole) == 298


async def test_an_epoch_that_was_there_goes_on_under_its_name(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "d")
    path = tmp_path / "d" / "journal.db"
    async with opened(tmp_path / "d") as journal:
        await journal.begin_epoch("test", {})
        await say(journal, 2000, 2020)
        epochs = list(journal.epochs)
    last = rows(path, "SELECT max(seq) FROM record")[0][0]
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE record SET chain = zeroblob(31) WHERE seq = ?", (last,))
    async with opened(tmp_path / "d") as journal:
        assert journal.epochs[:2] == epochs
        assert journal.began["predecessor"]["epoch"] == epochs[-1][0]
        assert journal.began["damaged"]["carried"] == int(str(last)) - 1
    assert verify_file(path).problem == ""


async def test_a_cursor_never_names_a_record_that_will_be_another_one(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "d")
    path = tmp_path / "d" / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE record SET data = x'00' WHERE seq > 298")
    assert await starts(tmp_path / "d", whole) == 298
    assert rows(path, "SELECT * FROM cursor_of") == [("robot", 40)]


async def test_a_large_file_is_looked_at_as_a_whole_once_it_failed(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Damage far from the newest records shows when it is met: the process ends, and the next start looks at all."""
    monkeypatch.setattr(journal_rescue, "_CHECKED_BYTES", 0)
    shutil.copytree(whole, tmp_path / "d")
    path = tmp_path / "d" / "journal.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        ((page,),) = connection.execute(
            "SELECT pageno FROM dbstat WHERE name = 'said' AND pagetype = 'leaf' LIMIT 1"
        ).fetchall() or [(0,)]
    size = 4096
    data = bytearray(path.read_bytes())
    data[(page - 1) * size : page * size] = b"\xff" * size
    path.write_bytes(data)
    async with opened(tmp_path / "d") as journal:
        assert not journal.began
        with pytest.raises(StoreError):
            await say(journal, 3000, 3000)
    assert suspicion_of(path).exists()
    assert await starts(tmp_path / "d", whole) == RECORDS
    assert not suspicion_of(path).exists()


async def test_a_whole_journal_begins_nothing(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "d")
    assert await starts(tmp_path / "d", whole) == -1
    assert not list((tmp_path / "d").glob("*damaged*"))
