"""The writer: one thread, group commit, a bad job alone, a broken store for everybody."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sitewarden.sync.sqlite import Schema, StoreError, Writer, connect_for_reading

BOUND_S = 30


def schema(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, filler BLOB)")


def insert(n: int, filler: bytes = b"") -> Callable[[sqlite3.Connection], int]:
    def job(connection: sqlite3.Connection) -> int:
        connection.execute("INSERT INTO t VALUES (?, ?)", (n, filler))
        return n

    return job


def stored(path: Path) -> list[int]:
    connection = connect_for_reading(path)
    try:
        return [n for (n,) in connection.execute("SELECT n FROM t ORDER BY n")]
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Callable[..., Writer]]:
    """`opened(prepare=schema)`: a writer that is closed after the test."""
    writers: list[Writer] = []

    def make(prepare: Callable[[sqlite3.Connection], None] = schema) -> Writer:
        writer = Writer(path, prepare)
        writer.open()
        writers.append(writer)
        return writer

    yield make
    for writer in writers:
        writer.close()


@contextmanager
def busy(writer: Writer) -> Iterator[None]:
    """While it is held, jobs wait; they are then gathered into one group."""
    started, go = threading.Event(), threading.Event()

    def job(_: sqlite3.Connection) -> None:
        started.set()
        assert go.wait(BOUND_S)

    held = writer.submit(job)
    assert started.wait(BOUND_S)
    try:
        yield
    finally:
        go.set()
    held.result(BOUND_S)


def test_a_job_is_committed_when_its_future_resolves(opened, path: Path):
    writer = opened()
    for n in range(1, 6):
        assert writer.submit(insert(n)).result(BOUND_S) == n
        assert stored(path)[-1] == n  # another connection sees it at once


def test_jobs_run_in_order_on_the_one_thread(opened):
    writer, seen = opened(), []
    futures = [writer.submit(lambda _, n=n: seen.append((n, threading.current_thread().name))) for n in range(50)]
    for future in futures:
        future.result(BOUND_S)
    assert seen == [(n, "writer-store") for n in range(50)]


def test_full_sync_wal_and_foreign_keys(opened):
    def pragmas(connection: sqlite3.Connection) -> list[object]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert opened().submit(pragmas).result(BOUND_S) == ["wal", 2, 1]


def test_what_waits_shares_one_commit(opened):
    statements: list[str] = []

    def prepare(connection: sqlite3.Connection) -> None:
        schema(connection)
        connection.set_trace_callback(statements.append)

    writer = opened(prepare)
    with busy(writer):
        futures = [writer.submit(insert(n)) for n in range(600)]
    assert [future.result(BOUND_S) for future in futures] == list(range(600))
    assert statements.count("COMMIT") == 3  # the one that was held, 512, 88


def test_a_job_that_raises_is_rolled_back_alone(opened, path: Path):
    writer = opened()

    def bad(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO t VALUES (99, NULL)")
        raise ValueError("no")

    with busy(writer):
        futures = [writer.submit(job) for job in (insert(1), bad, insert(2), insert(2), insert(3))]
    assert [futures[i].result(BOUND_S) for i in (0, 2, 4)] == [1, 2, 3]
    with pytest.raises(ValueError, match="no"):
        futures[1].result(BOUND_S)
    with pytest.raises(sqlite3.IntegrityError):
        futures[3].result(BOUND_S)
    assert stored(path) == [1, 2, 3]


@pytest.mark.parametrize("sql", ["INSERT INTO nowhere VALUES (1)", "SELEKT", "INSERT INTO t VALUES (1, 2, 3)"])
def test_a_mistake_in_a_jobs_sql_is_its_own(opened, path: Path, sql: str):
    writer = opened()
    with busy(writer):
        wrong, right = writer.submit(lambda connection: connection.execute(sql)), writer.submit(insert(1))
    with pytest.raises(sqlite3.OperationalError):
        wrong.result(BOUND_S)
    assert right.result(BOUND_S) == 1
    assert stored(path) == [1]


def test_a_full_disk_fails_the_whole_group_and_everything_after(opened, path: Path):
    def small(connection: sqlite3.Connection) -> None:
        schema(connection)
        connection.execute("PRAGMA max_page_count = 20")

    writer = opened(small)
    writer.submit(insert(1)).result(BOUND_S)
    with busy(writer):
        futures = [writer.submit(job) for job in (insert(2), insert(3, b"x" * 200_000), insert(4))]
    for future in futures:
        with pytest.raises(StoreError, match=r"store\.db: database or disk is full") as failure:
            future.result(BOUND_S)
        assert "free space" in failure.value.hint
    # what comes later could have room, but must not be stored without what came before it
    with pytest.raises(StoreError, match="full"):
        writer.submit(insert(5)).result(BOUND_S)
    assert stored(path) == [1]


def test_a_store_that_became_read_only_is_a_store_error(opened):
    def locked(connection: sqlite3.Connection) -> None:
        schema(connection)
        connection.execute("PRAGMA query_only = ON")

    with pytest.raises(StoreError, match="readonly"):
        opened(locked).submit(insert(1)).result(BOUND_S)


def test_a_damaged_file_is_a_store_error_not_the_jobs(path: Path):
    writer = Writer(path, schema)
    writer.open()
    for n in range(200):
        writer.submit(insert(n, bytes(1000)))
    writer.close()
    content = bytearray(path.read_bytes())
    for page in range(2, len(content) // 4096, 3):
        content[page * 4096 : page * 4096 + 200] = b"\xa5" * 200
    path.write_bytes(content)

    writer = Writer(path, lambda _: None)
    writer.open()
    try:
        with pytest.raises(StoreError, match="malformed"):
            writer.submit(lambda c: c.execute("SELECT sum(length(filler)) FROM t").fetchall()).result(BOUND_S)
    finally:
        writer.close()


def test_a_job_that_is_done_is_let_go(opened) -> None:
    """It may hold megabytes of readings, and the next one may come in ten seconds."""

    class Readings:
        pass

    held = Readings()
    gone = weakref.ref(held)
    writer = opened()
    future = writer.submit(lambda _, held=held: id(held))
    del held
    future.result(BOUND_S)
    del future
    end_s = time.monotonic() + BOUND_S
    while gone() is not None:
        assert time.monotonic() < end_s, "the writer still holds it"
        time.sleep(0.01)


async def test_cancelling_the_caller_does_not_withdraw_the_job(opened, path: Path):
    writer = opened()
    with busy(writer):
        task = asyncio.create_task(writer.run(insert(1)), name="caller")
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not writer.submit(insert(2)).cancel()
    await asyncio.to_thread(writer.submit(insert(3)).result, BOUND_S)
    assert stored(path) == [1, 2, 3]


def test_prepare_that_raises_surfaces_and_lets_go_of_the_file(path: Path):
    held: list[sqlite3.Connection] = []

    def refuse(connection: sqlite3.Connection) -> None:
        schema(connection)
        held.append(connection)
        raise ValueError("not mine")

    writer = Writer(path, refuse)
    with pytest.raises(ValueError, match="not mine"):
        writer.open()
    writer.close()
    assert not path.with_name("store.db-wal").exists()  # the only connection was closed
    with pytest.raises(sqlite3.ProgrammingError):
        held[0].execute("SELECT 1")


def test_a_folder_that_is_missing_surfaces(tmp_path: Path):
    with pytest.raises(sqlite3.OperationalError):
        Writer(tmp_path / "nowhere" / "store.db", schema).open()


def test_close_commits_what_waits_and_refuses_what_comes_later(opened, path: Path):
    writer = opened()
    with busy(writer):
        futures = [writer.submit(insert(n)) for n in range(20)]
    writer.close()
    writer.close()
    assert [future.result(0) for future in futures] == list(range(20))
    assert stored(path) == list(range(20))
    with pytest.raises(StoreError, match="closed"):
        writer.submit(insert(99)).result(BOUND_S)


def test_readers_cannot_write(opened, path: Path):
    opened()
    reading = connect_for_reading(path)
    try:
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reading.execute("INSERT INTO t VALUES (1, NULL)")
    finally:
        reading.close()


def test_a_schema_is_applied_once_and_step_by_step(tmp_path: Path) -> None:
    seen: list[str] = []

    def m001_first(db: Any) -> None:
        seen.append("first")
        db.execute("CREATE TABLE a (x)")

    def m002_second(db: Any) -> None:
        seen.append("second")
        db.execute("CREATE TABLE b (x)")

    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    Schema("one", (m001_first,)).apply(connection)
    Schema("one", (m001_first,)).apply(connection)
    assert seen == ["first"]
    Schema("one", (m001_first, m002_second)).apply(connection)
    assert seen == ["first", "second"]
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"a", "b"} <= names
    connection.close()


def test_a_schema_is_applied_whole_or_not_at_all(tmp_path: Path) -> None:
    def m001_first(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE a (x)")

    def m002_broken(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE b (x)")
        raise OSError("the power is gone")

    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    with pytest.raises(OSError, match="power"):
        Schema("one", (m001_first, m002_broken)).apply(connection)
    assert list(connection.execute("SELECT name FROM sqlite_master")) == []
    Schema("one", (m001_first,)).apply(connection)
    with pytest.raises(OSError, match="power"):
        Schema("one", (m001_first, m002_broken)).apply(connection)
    assert [name for (name,) in connection.execute("SELECT name FROM _sqlite_migrations")] == ["m001_first"]
    connection.close()


def test_sets_of_steps_do_not_know_each_other(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    for name in ("one", "two"):

        def m001_first(db: sqlite3.Connection, table: str = name) -> None:
            db.execute(f"CREATE TABLE {table} (x)")

        Schema(name, (m001_first,)).apply(connection)
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert {"one", "two"} <= names
    connection.close()


FIRST_FILES = """
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);
CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
INSERT INTO _sqlite_migrations VALUES (1, 'one', 'm001_first', '2026-11-22 12:00:00.000000+00:00');
"""


def test_files_of_version_0_1_are_known(tmp_path: Path) -> None:
    """As the library made them that kept this table then."""
    seen: list[str] = []

    def m001_first(db: sqlite3.Connection) -> None:
        seen.append("first")

    def m002_second(db: sqlite3.Connection) -> None:
        seen.append("second")

    connection = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    connection.executescript(FIRST_FILES)
    Schema("one", (m001_first, m002_second)).apply(connection)
    assert seen == ["second"]
    assert list(connection.execute("SELECT id, name FROM _sqlite_migrations")) == [
        (1, "m001_first"),
        (2, "m002_second"),
    ]
    connection.close()


# --- on the loop's thread ---


@pytest.fixture
def near(path: Path) -> Iterator[Writer]:
    writer = Writer(path, schema, near=True)
    writer.open()
    yield writer
    writer.close()


def threads(seen: list[str], then: Callable[[sqlite3.Connection], Any]) -> Callable[[sqlite3.Connection], Any]:
    def job(connection: sqlite3.Connection) -> Any:
        seen.append(threading.current_thread().name)
        return then(connection)

    return job


async def test_a_quick_job_runs_here_and_is_committed(near: Writer, path: Path):
    seen: list[str] = []
    for n in range(3):
        assert await near.run_here(threads(seen, insert(n))) == n
        assert stored(path)[-1] == n
    assert set(seen) == {threading.main_thread().name}


async def test_a_quick_job_that_raises_leaves_nothing(near: Writer, path: Path):
    def job(connection: sqlite3.Connection) -> None:
        insert(1)(connection)
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await near.run_here(job)
    assert await near.run_here(insert(2)) == 2
    assert stored(path) == [2]


async def test_a_quick_job_comes_after_those_that_wait(near: Writer):
    order: list[int] = []
    with busy(near):
        first = near.submit(lambda _: order.append(1))
        second = asyncio.create_task(near.run_here(lambda _: order.append(2)))
        await asyncio.sleep(0)
    await second
    first.result(BOUND_S)
    assert order == [1, 2]


async def test_where_the_file_is_busy_the_loop_does_not_wait(near: Writer, path: Path):
    seen: list[str] = []
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    task = asyncio.create_task(near.run_here(threads(seen, insert(1))))
    for _ in range(5):
        await asyncio.sleep(0.01)
    assert not task.done()
    other.execute("ROLLBACK")
    other.close()
    assert await task == 1
    assert seen == ["writer-store"]


class Refuses:
    """A connection whose commits fail with a code of SQLite."""

    def __init__(self, connection: sqlite3.Connection, code: int) -> None:
        self._connection, self.code = connection, code

    def execute(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        if sql == "COMMIT" and self.code:
            error = sqlite3.OperationalError("no")
            error.sqlite_errorcode = self.code
            raise error
        return self._connection.execute(sql, parameters)


async def test_after_a_commit_that_failed_nothing_more_is_taken(near: Writer, path: Path):
    near._near = Refuses(near._near, sqlite3.SQLITE_IOERR)  # type: ignore[arg-type,assignment]
    with pytest.raises(StoreError):
        await near.run_here(insert(1))
    with pytest.raises(StoreError):
        await near.run_here(insert(2))
    with pytest.raises(StoreError):
        await near.run(insert(3))
    assert stored(path) == []


async def test_without_room_the_writers_thread_makes_some(near: Writer, path: Path):
    seen: list[str] = []
    near._near = Refuses(near._near, sqlite3.SQLITE_FULL)  # type: ignore[arg-type,assignment]
    assert await near.run_here(threads(seen, insert(1))) == 1
    assert seen == [threading.main_thread().name, "writer-store"]
    assert stored(path) == [1]


async def test_a_cancelled_caller_withdraws_no_commit(near: Writer, path: Path, eventually):
    task = asyncio.create_task(near.run_here(insert(1)))
    await asyncio.sleep(0)
    task.cancel()
    await eventually(lambda: stored(path) == [1], "it is committed all the same")
    assert await near.run_here(insert(2)) == 2


async def test_quick_and_other_jobs_at_once_are_all_there(near: Writer, path: Path):
    async def one(n: int) -> int:
        return await (near.run_here if n % 3 else near.run)(insert(n))

    assert sorted(await asyncio.gather(*(one(n) for n in range(300)))) == list(range(300))
    assert stored(path) == list(range(300))


def test_a_first_page_that_lies_in_the_wal_alone_is_no_damage(opened, path: Path, tmp_path: Path):
    """What a power cut in the middle of a checkpoint leaves."""
    opened().submit(insert(1)).result(BOUND_S)
    cut = tmp_path / "cut.db"
    cut.write_bytes(bytes(path.stat().st_size or 4096))
    cut.with_name("cut.db-wal").write_bytes(path.with_name(f"{path.name}-wal").read_bytes())
    writer = Writer(cut, schema)
    writer.open()
    writer.close()
    assert stored(cut) == [1]
