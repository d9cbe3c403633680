"""The database under the cloud's store: a transaction with three verbs, whatever the engine is.

What the cloud does is written once, as coroutines over a `Tx`: `async def take(tx, parcel): row = await tx.one(…)`.
On PostgreSQL they wait for the server; on SQLite nothing waits, and the coroutine runs through on the writer's thread.
SQL is what both understand: `?` for parameters, `ON CONFLICT … DO UPDATE`, `LIKE`; no `GLOB`, `max(a, b)`, `INSERT OR`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol, Self, TypeVar

from ..errors import TransientError
from ..sync.sqlite import Schema, StoreError, Writer, connect_for_reading

T = TypeVar("T")

Row = tuple[Any, ...]


class Tx(Protocol):
    """A transaction. Jobs may await its methods and nothing else."""

    async def all(self, sql: str, *values: Any) -> list[Row]:
        """Every row that a statement gives."""
        ...

    async def one(self, sql: str, *values: Any) -> Row | None:
        """The first row; None when there is none."""
        ...

    async def locked(self, table: str, columns: str, **key: Any) -> Row | None:
        """`columns` and key of the row with this key; nobody else changes it until this transaction ends."""
        ...

    async def run(self, sql: str, *values: Any) -> int:
        """Change something; returns how many rows were changed."""
        ...

    async def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """The same statement for each of `rows`."""
        ...

    async def lock(self, name: str) -> None:
        """Nobody else decides about `name` until this transaction ends; where there is one writer it is so anyway."""
        ...


Job = Callable[[Tx], Coroutine[Any, Any, T]]


@dataclass(frozen=True, slots=True)
class Step:
    """A numbered, all-or-nothing step of a schema; known by its name and never changed once it was released.

    Attributes:
        sqlite: its statements.
        postgres: the same for PostgreSQL; None: those of SQLite with the types' names translated.
    """

    name: str
    sqlite: tuple[str, ...]
    postgres: tuple[str, ...] | None = None


class Database(Protocol):
    """One database: jobs that write are committed in groups, each all or none; they return when the device has them.

    Attributes:
        shared: other processes may write too.
        replicated: a commit alone is not durable: `settled` says when it is.
    """

    shared: bool
    replicated: bool

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def write(self, job: Job[T], *, key: str = "") -> T:
        """Run `job` in a transaction; what it raises is rolled back alone and raised here.

        Args:
            job: may be run again, on the state as it is then, when others were in its way.
            key: jobs of the same key, such as a gateway's, stay in order; others may run side by side in one
                transaction, where a lock of one does not hold up the other.

        Raises:
            StoreError: nothing was committed; the process must end.
            UnavailableError: nothing is known to have been committed; ask again later.
        """
        ...

    async def read(self, job: Job[T]) -> T:
        """Run `job`, which only reads, on one consistent state."""
        ...

    async def settled(self) -> bool:
        """Whether all that was committed before this call outlives the loss of the machine that committed it.

        Waits a moment for standbys. Without any, what is on the device counts (docs/scale.md says what that means).
        """
        ...

    async def until_broken(self) -> NoReturn:
        """Returns never; raises StoreError after a commit failed, so that the process ends and is started again."""
        ...


def select_locked(table: str, columns: str, key: Sequence[str]) -> str:
    """The statement of `Tx.locked` without its lock. The key's columns come last: they say whose row it is."""
    return f"SELECT {columns}, {', '.join(key)} FROM {table} WHERE {' AND '.join(f'{name} = ?' for name in key)}"  # noqa: S608


class UnavailableError(TransientError):
    """The database cannot be used now; nothing is known to have been committed."""


class SqliteDatabase:
    """A `Database` in one file: one writing thread, one reading thread."""

    shared = False
    replicated = False

    def __init__(self, path: Path, steps: Sequence[Step]) -> None:
        self.path = path
        schema = Schema("cloud", [_step(step) for step in steps])
        self._writer = Writer(path, schema.apply)
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="cloud-read")
        self._reading: sqlite3.Connection | None = None
        self._broken = asyncio.Event()

    async def __aenter__(self) -> Self:
        await asyncio.to_thread(self._writer.open)
        self._reading = connect_for_reading(self.path)
        self._reading.isolation_level = None
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._writer.close)
        self._readers.shutdown(wait=True)
        if self._reading is not None:
            self._reading.close()

    async def write(self, job: Job[T], *, key: str = "") -> T:  # noqa: ARG002 - one thread keeps the order of all
        try:
            return await self._writer.run(lambda connection: through(job(_SqliteTx(connection))))
        except StoreError:
            self._broken.set()
            raise

    async def read(self, job: Job[T]) -> T:
        reading = self._reading
        assert reading is not None, "the store is not open"
        return await asyncio.get_running_loop().run_in_executor(self._readers, _read, reading, job)

    async def settled(self) -> bool:
        return True

    async def until_broken(self) -> NoReturn:
        await self._broken.wait()
        raise StoreError(f"{self.path}: a commit failed", hint="check free space and the health of the disk")


class _SqliteTx:
    """A `Tx` whose methods never wait."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    async def all(self, sql: str, *values: Any) -> list[Row]:
        return self._connection.execute(sql, values).fetchall()

    async def one(self, sql: str, *values: Any) -> Row | None:
        return self._connection.execute(sql, values).fetchone()

    async def locked(self, table: str, columns: str, **key: Any) -> Row | None:
        return self._connection.execute(select_locked(table, columns, tuple(key)), tuple(key.values())).fetchone()

    async def run(self, sql: str, *values: Any) -> int:
        return self._connection.execute(sql, values).rowcount

    async def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
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
