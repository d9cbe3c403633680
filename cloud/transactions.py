"""The database under the cloud's store: a transaction with three verbs, whatever the engine is.

What the cloud does is written once, as coroutines over a `Tx`: `async def take(tx, parcel): row = await tx.one(…)`.
On PostgreSQL they wait for the server; on SQLite nothing waits, and the coroutine runs through: on the writer's
thread, or, when it is `Quick`, on the loop's.
SQL is what both understand: `?` for parameters, `ON CONFLICT … DO UPDATE`, `LIKE`; no `GLOB`, `max(a, b)`, `INSERT OR`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Protocol, Self, TypeVar

from ..errors import TransientError

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


class Quick(Generic[T]):
    """A job of a few statements, each of which takes microseconds."""

    __slots__ = ("_job",)

    def __init__(self, job: Job[T]) -> None:
        self._job = job

    def __call__(self, tx: Tx) -> Coroutine[Any, Any, T]:
        return self._job(tx)


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
