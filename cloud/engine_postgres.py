"""The cloud's database on PostgreSQL, for more than one machine's load: the same jobs as on SQLite.

Jobs that wait are committed together, in lanes: those of one gateway stay in order. A lost connection, a failover or a
server that only reads fails what was asked with `UnavailableError`; the next one tries again by itself. Nothing wrong
can come of that: whether a commit that broke off had happened is asked anew by whoever sends the batch again.

asyncpg loads where a site uses PostgreSQL (extra `postgres`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from ..errors import PermanentError, TransientError
from .engine import Job, Row, Step

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")

log = logging.getLogger(__name__)

LANES = 4
OLDEST_VERSION = 13
_MOST_JOBS_IN_A_COMMIT = 128
_MOST_WAITING = 2_000
_READERS = 4
_TIMEOUT_S = 30.0
_SCHEMA_LOCK = 0x517E_3A6D  # any number that nothing else uses
_RETRIES = 3
_DAY_S = 86_400.0
_DAYS_AHEAD = 8

_APPLIED = (
    "CREATE TABLE IF NOT EXISTS schema_step (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL)",
    "SELECT name FROM schema_step",
)
_TYPES = (
    (re.compile(r"\bINTEGER PRIMARY KEY\b"), "BIGSERIAL PRIMARY KEY"),
    (re.compile(r"\bINTEGER\b"), "BIGINT"),
    (re.compile(r"\bBLOB\b"), "BYTEA"),
    (re.compile(r"\)\s*WITHOUT ROWID"), ")"),
)


class UnavailableError(TransientError):
    """The database cannot be used now; nothing is known to have been committed."""


class PostgresDatabase:
    """A `Database` on a PostgreSQL server.

    Args:
        url: `postgresql://user@host:port/database`; without a password.
        steps: of the schema.
        password: of the user; "" where the server asks for none.
        lanes: how many groups are committed at the same time.
        partitioned: tables with a part for each day; those of the coming days are made in time.

    Raises:
        PermanentError: on entering: asyncpg is missing, the server is too old, or may not be used.
    """

    def __init__(
        self,
        url: str,
        steps: Sequence[Step],
        *,
        password: str = "",
        lanes: int = LANES,
        partitioned: Sequence[str] = (),
    ) -> None:
        self.url = url
        self._steps, self._password, self._partitioned = tuple(steps), password, tuple(partitioned)
        self._lanes = [_Lane(self) for _ in range(lanes)]
        self._pool: asyncpg.Pool | None = None
        self._tasks: list[asyncio.Task[NoReturn]] = []

    async def __aenter__(self) -> Self:
        self._pool = await self._connect()
        try:
            async with self._pool.acquire() as connection:
                await _apply(connection, self._steps)
        except _errors() as error:
            await self._pool.close()
            hint = "the user must be allowed to create tables in the database"
            raise PermanentError(f"{self.url}: the schema cannot be made: {error}", hint=hint) from error
        await self._make_days()
        self._tasks = [asyncio.create_task(lane.run(), name="cloud lane") for lane in self._lanes]
        self._tasks.append(asyncio.create_task(self._keep_days(), name="cloud days"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for lane in self._lanes:
            await lane.drained()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._pool is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._pool.close()

    async def write(self, job: Job[T], *, key: str = "") -> T:
        """See `Database.write`. Raises UnavailableError instead of StoreError: the process goes on."""
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % len(self._lanes)
        return await self._lanes[place].put(job)

    async def read(self, job: Job[T]) -> T:
        try:
            async with (
                self.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                return await job(_PostgresTx(connection))
        except _errors() as error:
            raise unavailable(self.url, error) from error

    async def until_broken(self) -> NoReturn:
        """Returns never: a server that went away comes back."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    @contextlib.asynccontextmanager
    async def connection(self):
        """One of the pool, made anew where it was lost."""
        assert self._pool is not None, "the store is not open"
        async with self._pool.acquire(timeout=_TIMEOUT_S) as connection:
            yield connection

    async def _keep_days(self) -> NoReturn:
        while True:
            await asyncio.sleep(_DAY_S / 4)
            try:
                await self._make_days()
            except _errors() as error:
                log.warning("%s: the parts of the coming days were not made: %s", self.url, error)

    async def _make_days(self) -> None:
        """A missing part costs nothing but order: what belongs to no part goes into the rest."""
        today = int(time.time() // _DAY_S)
        async with self.connection() as connection:
            for table in self._partitioned:
                for day in range(today, today + _DAYS_AHEAD):
                    name = f"{table}_{datetime.fromtimestamp(day * _DAY_S, UTC):%Y%m%d}"
                    begin_ms, end_ms = int(day * _DAY_S * 1000), int((day + 1) * _DAY_S * 1000)
                    try:
                        await connection.execute(
                            f"CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table}"
                            f" FOR VALUES FROM ({begin_ms}) TO ({end_ms})"
                        )
                    except _postgres_error() as error:  # rows of that day lie in the rest already
                        log.warning("%s: %s was not made: %s", self.url, name, error)

    async def _connect(self) -> asyncpg.Pool:
        try:
            import asyncpg
        except ImportError as error:
            hint = "pip install 'sitewarden[postgres]'"
            raise PermanentError("asyncpg is missing, which PostgreSQL needs", hint=hint) from error
        try:
            pool = await asyncpg.create_pool(
                self.url,
                password=self._password or None,
                min_size=1,
                max_size=len(self._lanes) + _READERS,
                timeout=_TIMEOUT_S,
                command_timeout=_TIMEOUT_S,
                server_settings={"application_name": "sitewarden", "synchronous_commit": "on"},
            )
            async with pool.acquire() as connection:
                version = connection.get_server_version()
        except _errors() as error:
            hint = "check [store] in cloud.toml: address, database, user, password file, pg_hba.conf"
            raise PermanentError(f"{self.url}: {error or type(error).__name__}", hint=hint) from error
        if version.major < OLDEST_VERSION:
            await pool.close()
            hint = f"use version {OLDEST_VERSION} or newer"
            raise PermanentError(f"{self.url}: PostgreSQL {version.major} is too old", hint=hint)
        return pool


class _Lane:
    """Commits what waits, in order, on one connection."""

    def __init__(self, database: PostgresDatabase) -> None:
        self._database = database
        self._jobs: asyncio.Queue[tuple[Job[Any], asyncio.Future[Any]]] = asyncio.Queue(_MOST_WAITING)

    async def put(self, job: Job[T]) -> T:
        """Queue a job and await its commit. Nobody can cancel it once it has begun."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        await self._jobs.put((job, future))
        return await asyncio.shield(future)

    async def drained(self) -> None:
        """Until nothing waits."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_TIMEOUT_S):
                await self._jobs.join()

    async def run(self) -> NoReturn:
        """For ever."""
        while True:
            group = [await self._jobs.get()]
            while len(group) < _MOST_JOBS_IN_A_COMMIT and not self._jobs.empty():
                group.append(self._jobs.get_nowait())
            try:
                await self._commit(group)
            finally:
                for _ in group:
                    self._jobs.task_done()

    async def _commit(self, group: list[tuple[Job[Any], asyncio.Future[Any]]]) -> None:
        try:
            done = await self._together([job for job, _ in group])
        except _Conflict:
            for job, future in group:  # alone each of them holds fewer locks
                await self._alone(job, future)
            return
        except BaseException as error:
            failed = _failed(self._database.url, error)
            for _, future in group:
                _settle(future, None, failed)
            if not isinstance(error, Exception):
                raise
            return
        for (_, future), (value, failure) in zip(group, done, strict=True):
            _settle(future, value, failure)

    async def _alone(self, job: Job[Any], future: asyncio.Future[Any]) -> None:
        for _ in range(_RETRIES):
            try:
                ((value, failure),) = await self._together([job])
            except _Conflict:
                continue
            except Exception as error:
                _settle(future, None, _failed(self._database.url, error))
                return
            _settle(future, value, failure)
            return
        _settle(future, None, UnavailableError(f"{self._database.url}: others held what was needed, again and again"))

    async def _together(self, jobs: Sequence[Job[Any]]) -> list[tuple[Any, Exception | None]]:
        done: list[tuple[Any, Exception | None]] = []
        async with self._database.connection() as connection, _transaction(connection):
            tx = _PostgresTx(connection)
            for job in jobs:
                await connection.execute("SAVEPOINT job")
                try:
                    done.append((await job(tx), None))
                except Exception as error:
                    if not _is_the_jobs(error):
                        raise
                    await connection.execute("ROLLBACK TO SAVEPOINT job")
                    done.append((None, error))
                await connection.execute("RELEASE SAVEPOINT job")
        return done


class _Conflict(Exception):  # noqa: N818 - never leaves this module
    """Two transactions held what the other needed; the server ended ours."""


@contextlib.asynccontextmanager
async def _transaction(connection: Any):
    import asyncpg

    try:
        async with connection.transaction():
            yield
    except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
        raise _Conflict from error


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
        future.exception()  # whoever asked may have gone


def _failed(url: str, error: BaseException) -> BaseException:
    return unavailable(url, error) if isinstance(error, _errors()) else error


def unavailable(url: str, error: BaseException) -> UnavailableError:
    """What is said of a server that cannot be used now."""
    return UnavailableError(f"{url}: {error or type(error).__name__}", hint="is the database up, and the primary?")


def _errors() -> tuple[type[BaseException], ...]:
    import asyncpg

    return (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError)


def _postgres_error() -> type[BaseException]:
    import asyncpg

    return asyncpg.PostgresError


def _is_the_jobs(error: Exception) -> bool:
    """The job's own mistake or decision; what concerns the server, its transactions or the connection is not."""
    import asyncpg

    if isinstance(error, (asyncpg.InterfaceError, OSError, TimeoutError)):
        return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)
    if not isinstance(error, asyncpg.PostgresError):
        return True
    return (getattr(error, "sqlstate", "") or "")[:2] in ("22", "23", "42")


class _PostgresTx:
    """A `Tx` on a connection in a transaction."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def all(self, sql: str, *values: Any) -> list[Row]:
        return [tuple(row) for row in await self._connection.fetch(numbered(sql), *values)]

    async def one(self, sql: str, *values: Any) -> Row | None:
        row = await self._connection.fetchrow(numbered(sql), *values)
        return tuple(row) if row is not None else None

    async def run(self, sql: str, *values: Any) -> int:
        count = (await self._connection.execute(numbered(sql), *values)).rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    async def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        await self._connection.executemany(numbered(sql), rows)

    async def lock(self, name: str) -> None:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        await self._connection.execute("SELECT pg_advisory_xact_lock($1)", number)


@functools.lru_cache(maxsize=512)
def numbered(sql: str) -> str:
    """`?` as `$1`, `$2` …; the statements of this house have no ? in their texts."""
    parts = sql.split("?")
    return "".join(f"{part}${i}" for i, part in enumerate(parts[:-1], 1)) + parts[-1]


def translated(statement: str) -> str:
    """A CREATE statement in SQLite's words as PostgreSQL says it."""
    for pattern, instead in _TYPES:
        statement = pattern.sub(instead, statement)
    return statement


async def _apply(connection: Any, steps: Sequence[Step]) -> None:
    """Every step that the database has not seen; several processes may start at once."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
        await connection.execute(_APPLIED[0])
        known = {row[0] for row in await connection.fetch(_APPLIED[1])}
        for step in steps:
            if step.name in known:
                continue
            for statement in step.postgres if step.postgres is not None else map(translated, step.sqlite):
                await connection.execute(statement)
            await connection.execute(
                "INSERT INTO schema_step VALUES ($1, $2)", step.name, datetime.now(UTC).isoformat(timespec="seconds")
            )
