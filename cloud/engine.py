"""The cloud's database in one SQLite file. What a database is: `transactions`; the other one: `engine_postgres`."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn, Self, TypeVar

from ..errors import PermanentError
from ..sync.sqlite import Schema, StoreError, Writer, connect_for_reading, is_the_stores
from .lanes import Lanes
from .transactions import Database, Job, Quick, Row, Step, Tx, UnavailableError, select_locked
from .waves import Outcome, SpoiltError

__all__ = [
    "CopyError",
    "Database",
    "Job",
    "Row",
    "SqliteDatabase",
    "Step",
    "Tx",
    "UnavailableError",
    "copy_database",
    "select_locked",
    "through",
]

T = TypeVar("T")


class SqliteDatabase:
    """A `Database` in one file: one writing thread, one reading thread.

    Args:
        replicated: only a backup makes durable; whoever makes one says so in the rows (`cloud.backups`).
    """

    shared = False

    def __init__(self, path: Path, steps: Sequence[Step], *, replicated: bool = False) -> None:
        self.path, self.replicated = path, replicated
        schema = Schema("cloud", [_step(step) for step in steps])
        self._writer = Writer(path, schema.apply, near=True)
        self._lanes = Lanes(self._together, 1)
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cloud-read")
        self._reading: sqlite3.Connection | None = None
        self._broken = asyncio.Event()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._writer.open)
        self._reading = connect_for_reading(self.path)
        self._reading.isolation_level = None
        self._lanes.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lanes.close()
        await asyncio.to_thread(self._writer.close)
        self._readers.shutdown(wait=True)
        if self._reading is not None:
            self._reading.close()

    async def write(self, job: Job[T], *, key: str = "") -> T:
        try:
            return await self._lanes.put(job, key)
        except StoreError:
            self._broken.set()
            raise

    async def read(self, job: Job[T]) -> T:
        reading = self._reading
        assert reading is not None, "the store is not open"
        return await asyncio.get_running_loop().run_in_executor(self._readers, _read, reading, job)

    async def settled(self) -> bool:
        return not self.replicated

    async def _together(self, jobs: Sequence[tuple[str, Job[Any]]], guarded: bool) -> list[Outcome]:
        """See `lanes.Together`. To the writer's thread a group is one job: each crossing costs as much as a batch."""
        run = self._writer.run_here if all(isinstance(job, Quick) for _, job in jobs) else self._writer.run
        return await run(lambda connection: _group(connection, [job for _, job in jobs], guarded))

    async def until_broken(self) -> NoReturn:
        await self._broken.wait()
        raise StoreError(f"{self.path}: a commit failed", hint="check free space and the health of the disk")


class _SqliteTx:
    """A `Tx` whose methods never wait. `wrote`: something was changed."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.wrote = False

    async def all(self, sql: str, *values: Any) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()

    async def one(self, sql: str, *values: Any) -> Row | None:
        return self._connection.execute(sql, values).fetchone()

    async def locked(self, table: str, columns: str, **key: Any) -> Row | None:
        return self._connection.execute(select_locked(table, columns, tuple(key)), tuple(key.values())).fetchone()

    async def run(self, sql: str, *values: Any) -> int:
        self.wrote = True
        return self._connection.execute(sql, values).rowcount

    async def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        self.wrote = True
        self._connection.executemany(sql, rows)

    async def lock(self, name: str) -> None:
        pass


def through(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that never waits to its end. Raises RuntimeError when it waits all the same."""
    try:
        job.send(None)
    except StopIteration as end:
        return end.value
    job.close()
    raise RuntimeError("a job of the store waited for something that is not its transaction")


def _group(connection: sqlite3.Connection, jobs: Sequence[Job[Any]], guarded: bool) -> list[Outcome]:
    """Run jobs in the writer's transaction. Raises SpoiltError; what the file failed with ends the writer."""
    done: list[Outcome] = []
    for job in jobs:
        tx = _SqliteTx(connection)
        if guarded:
            connection.execute("SAVEPOINT own")
        try:
            done.append((through(job(tx)), None))
        except Exception as error:
            if is_the_stores(error):
                raise
            if not guarded and tx.wrote:
                raise SpoiltError from error
            if guarded:
                connection.execute("ROLLBACK TO own")
            done.append((None, error))
        if guarded:
            connection.execute("RELEASE own")
    return done


def _read(connection: sqlite3.Connection, job: Job[T]) -> T:
    connection.execute("BEGIN")
    try:
        return through(job(_SqliteTx(connection)))
    finally:
        connection.execute("ROLLBACK")


def _step(step: Step) -> Callable[[sqlite3.Connection], None]:
    def run(connection: sqlite3.Connection) -> None:
        for statement in step.sqlite:
            connection.execute(statement)

    run.__name__ = step.name
    return run


class CopyError(PermanentError):
    """A database could not be copied."""


def copy_database(source: Path, target: Path, ask: str = "") -> list[Row]:
    """Copy one state of a database, also while it is written; in one go: a writer would make it begin anew. Blocks.

    Args:
        ask: a query to the copy; its rows are returned.

    Raises:
        CopyError: it could not be read or written, or the copy is damaged.
    """
    try:
        with (
            contextlib.closing(connect_for_reading(source)) as reading,
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as copy,
        ):
            reading.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE").fetchone()
            (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
            rows = copy.execute(ask).fetchall() if ask else []
    except sqlite3.Error as error:
        raise CopyError(f"{source}: {error}", hint="check free space and the health of the disk") from error
    if verdict != "ok":
        raise CopyError(f"{source}: {verdict}", hint="the file is damaged")
    return rows
