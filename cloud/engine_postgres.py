"""The cloud's database on PostgreSQL, for more than one machine's load: the same jobs as on SQLite.

A lost connection, a failover or a server that only reads fails what was asked with `UnavailableError`; the next one
tries again by itself. Nothing wrong can come of that: whether a commit that broke off had happened is asked anew by
whoever sends the batch again.

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
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, Self, TypeVar

from ..errors import PermanentError
from .lanes import ConflictError, Lanes
from .standby import Position, Standby, safe_position
from .transactions import Job, Row, Step, UnavailableError, select_locked
from .waves import Kind, Outcome, SpoiltError, Waves

if TYPE_CHECKING:
    import asyncpg

T = TypeVar("T")

log = logging.getLogger(__name__)

LANES = 2
OLDEST_VERSION = 13
_READERS = 4
_TIMEOUT_S = 15.0
_SCHEMA_LOCK = 0x517E_3A6D  # any number that nothing else uses
_DAY_S = 86_400.0
_DAYS_AHEAD = 8

_STEPS_TABLE = "CREATE TABLE IF NOT EXISTS schema_step (name TEXT PRIMARY KEY, applied_at TEXT NOT NULL)"
_TYPES = (
    (re.compile(r"\bINTEGER PRIMARY KEY\b"), "BIGSERIAL PRIMARY KEY"),
    (re.compile(r"\bINTEGER\b"), "BIGINT"),
    (re.compile(r"\bREAL\b"), "DOUBLE PRECISION"),
    (re.compile(r"\bBLOB\b"), "BYTEA"),
    (re.compile(r"\)\s*WITHOUT ROWID"), ")"),
)
_POSITION = """SELECT pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint,
    current_setting('synchronous_standby_names'),
    array(SELECT pg_wal_lsn_diff(flush_lsn, '0/0')::bigint FROM pg_stat_replication
          WHERE sync_state IN ('sync', 'quorum') AND flush_lsn IS NOT NULL)"""
_MAY_LOOK = "SELECT pg_has_role(current_user, 'pg_read_all_stats', 'usage')"


class PostgresDatabase:
    """A `Database` on a PostgreSQL server.

    Args:
        url: `postgresql://user@host:port/database`, or several `host:port,host:port` of which one is the primary;
            without a password.
        steps: of the schema.
        password: of the user; "" where the server asks for none.
        lanes: how many groups are committed at the same time.
        partitioned: tables with a part for each day; those of the coming days are made in time.
        standby: only what a synchronous standby has is durable. Set by itself where the server has such standbys.

    Raises:
        PermanentError: on entering: asyncpg is missing, the server is too old, or may not be used.
    """

    shared = True

    def __init__(
        self,
        url: str,
        steps: Sequence[Step],
        *,
        password: str = "",
        lanes: int = LANES,
        partitioned: Sequence[str] = (),
        standby: bool = False,
    ) -> None:
        self.url, self.replicated = url, standby
        self._steps, self._password, self._partitioned = tuple(steps), password, tuple(partitioned)
        self._size = lanes + _READERS
        self._lanes = Lanes(self._together, lanes)
        self._standby = Standby(self._position)
        self._pool: asyncpg.Pool | None = None
        self._days: asyncio.Task[NoReturn] | None = None

    async def __aenter__(self) -> Self:
        self._pool = await self._connect()
        try:
            async with self._pool.acquire() as connection:
                await self._prepare(connection)
        except _errors() as error:
            self._pool.terminate()
            hint = "the user must own the database, or: GRANT CREATE ON SCHEMA public TO the user"
            raise PermanentError(f"{self.url}: the schema cannot be made: {error}", hint=hint) from error
        except BaseException:
            self._pool.terminate()
            raise
        self._lanes.start()
        self._days = asyncio.create_task(self._keep_days(), name="cloud days")
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._lanes.close()
        await self._standby.close()
        if self._days is not None:
            self._days.cancel()
            await asyncio.gather(self._days, return_exceptions=True)
        if self._pool is not None:
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    async def write(self, job: Job[T], *, key: str = "") -> T:
        """See `Database.write`. Raises UnavailableError instead of StoreError: the process goes on."""
        return await self._lanes.put(job, key)

    async def read(self, job: Job[T]) -> T:
        """See `Database.read`. Raises UnavailableError."""
        async with (
            self._connection() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            return await job(_PostgresTx(connection))
        raise AssertionError("unreachable")

    async def settled(self) -> bool:
        """See `Database.settled`."""
        return await self._standby.passed() if self.replicated else True

    async def until_broken(self) -> NoReturn:
        """Returns never: a server that went away comes back."""
        await asyncio.get_running_loop().create_future()
        raise AssertionError("unreachable")

    async def make_days(self, days: Sequence[int]) -> None:
        """Parts for days in the past, counted from 1970. Raises UnavailableError."""
        async with self._connection() as connection:
            await _make_days(connection, self._partitioned, days)

    # --- connections ---------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        """One of the pool, made anew where it was lost. What is wrong with the server becomes UnavailableError."""
        assert self._pool is not None, "the store is not open"
        try:
            async with self._pool.acquire(timeout=_TIMEOUT_S) as connection:
                try:
                    yield connection
                except (TimeoutError, asyncio.CancelledError):
                    connection.terminate()  # to cancel politely, the server would have to answer
                    raise
        except _errors() as error:
            raise _unavailable(self.url, error) from error

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
                min_size=0,
                max_size=self._size,
                timeout=_TIMEOUT_S,
                command_timeout=_TIMEOUT_S,
                target_session_attrs="primary",  # a primary that becomes a standby ends its connections
                reset=_nothing,  # what is set here is set for a transaction alone
                server_settings={"application_name": "sitewarden", "synchronous_commit": "on"},
            )
            async with pool.acquire() as connection:
                version = connection.get_server_version()
        except (*_errors(), ValueError) as error:
            raise PermanentError(f"{self.url}: {error or type(error).__name__}", hint=_hint(error)) from error
        if version.major < OLDEST_VERSION:
            pool.terminate()
            hint = f"use version {OLDEST_VERSION} or newer"
            raise PermanentError(f"{self.url}: PostgreSQL {version.major} is too old", hint=hint)
        return pool

    async def _prepare(self, connection: Any) -> None:
        """Schema, the parts of the coming days, and whether there are standbys to wait for."""
        await _apply(connection, self._steps)
        await _make_days(connection, self._partitioned, _coming_days())
        names = await connection.fetchval("SHOW synchronous_standby_names")
        self.replicated = self.replicated or bool(names.strip())
        if self.replicated and not await connection.fetchval(_MAY_LOOK):
            hint = "as superuser: GRANT pg_read_all_stats TO the user"
            raise PermanentError(f"{self.url}: the user may not see how far the standbys are", hint=hint)
        if self.replicated and not names.strip():
            log.warning("%s: synchronous_standby_names is empty: nothing is durable until it is set", self.url)

    async def _keep_days(self) -> NoReturn:
        while True:
            await asyncio.sleep(_DAY_S / 4)
            try:
                async with self._connection() as connection:
                    await _make_days(connection, self._partitioned, _coming_days())
            except UnavailableError as error:  # there are enough for a week
                log.warning("the parts of the coming days were not made: %s", error)

    # --- what lanes and standbys ask for -------------------------------------------------------------------------

    async def _together(self, jobs: Sequence[tuple[str, Job[Any]]], guarded: bool) -> list[Outcome]:
        """See `lanes.Together`."""
        async with self._connection() as connection:
            tx = _PostgresTx(connection)
            try:
                async with connection.transaction():
                    if guarded:
                        return [await _behind_savepoint(tx, job) for _, job in jobs]
                    return await Waves(tx.execute).run(jobs)
            except _conflicts() as error:
                raise ConflictError(error if _is_double(error) else None) from error
            except _postgres_error() as error:
                if not guarded and _is_the_jobs(error):
                    raise SpoiltError from error
                raise
        raise AssertionError("unreachable")

    async def _position(self) -> Position:
        async with self._connection() as connection:
            local, names, flushed = await connection.fetchrow(_POSITION)
        return Position(local=local, safe=safe_position(names, flushed))


async def _nothing(_connection: Any) -> None:
    """A connection that goes back to the pool needs no cleaning."""


async def _behind_savepoint(tx: _PostgresTx, job: Job[Any]) -> Outcome:
    await tx.connection.execute("SAVEPOINT job")
    try:
        value = await job(tx)
    except Exception as error:
        if not _is_the_jobs(error):
            raise
        await tx.connection.execute("ROLLBACK TO SAVEPOINT job; RELEASE SAVEPOINT job")
        return None, error
    await tx.connection.execute("RELEASE SAVEPOINT job")
    return value, None


class _PostgresTx:
    """A `Tx` on a connection in a transaction."""

    def __init__(self, connection: Any) -> None:
        self.connection = connection

    async def all(self, sql: str, *values: Any) -> list[Row]:
        return [tuple(row) for row in await self.connection.fetch(numbered(sql), *values)]

    async def one(self, sql: str, *values: Any) -> Row | None:
        row = await self.connection.fetchrow(numbered(sql), *values)
        return tuple(row) if row is not None else None

    async def locked(self, table: str, columns: str, **key: Any) -> Row | None:
        return (await self._locked(select_locked(table, columns, tuple(key)), [tuple(key.values())]))[0]

    async def run(self, sql: str, *values: Any) -> int:
        count = (await self.connection.execute(numbered(sql), *values)).rpartition(" ")[2]
        return int(count) if count.isdecimal() else 0

    async def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        await self.connection.executemany(numbered(sql), rows)

    async def lock(self, name: str) -> None:
        number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
        await self.connection.execute("SELECT pg_advisory_xact_lock($1)", number)

    async def execute(self, kind: Kind, sql: str, values: Sequence[Sequence[Any]]) -> list[Any]:
        """See `waves.Execute`."""
        if kind == "locked":
            return await self._locked(sql, values)
        if kind == "many":
            await self.many(sql, [row for rows in values for row in rows])
            return [None] * len(values)
        if kind == "lock":
            for (name,) in sorted(values, key=tuple):
                await self.lock(name)
            return [None] * len(values)
        method = {"all": self.all, "one": self.one, "run": self.run}[kind]
        return [await method(sql, *row) for row in values]

    async def _locked(self, sql: str, keys: Sequence[Sequence[Any]]) -> list[Row | None]:
        """In the order of the keys, as every transaction takes them."""
        found = await self.connection.fetchmany(f"{numbered(sql)} FOR UPDATE", sorted(keys, key=tuple))
        size = len(keys[0])
        rows = {tuple(row)[-size:]: tuple(row) for row in found}
        return [rows.get(tuple(key)) for key in keys]


@functools.lru_cache(maxsize=512)
def numbered(sql: str) -> str:
    """`?` as `$1`, `$2` …; the statements of this house have no ? in their texts."""
    parts = sql.split("?")
    return "".join(f"{part}${i}" for i, part in enumerate(parts[:-1], 1)) + parts[-1]


# --- schema ------------------------------------------------------------------------------------------------------


def translated(statement: str) -> str:
    """A CREATE statement in SQLite's words as PostgreSQL says it."""
    for pattern, instead in _TYPES:
        statement = pattern.sub(instead, statement)
    return statement


async def _apply(connection: Any, steps: Sequence[Step]) -> None:
    """Every step that the database has not seen; several processes may start at once."""
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
        await connection.execute(_STEPS_TABLE)
        known = {row[0] for row in await connection.fetch("SELECT name FROM schema_step")}
        for step in steps:
            if step.name in known:
                continue
            for statement in step.postgres if step.postgres is not None else map(translated, step.sqlite):
                await connection.execute(statement)
            await connection.execute(
                "INSERT INTO schema_step VALUES ($1, $2)", step.name, datetime.now(UTC).isoformat(timespec="seconds")
            )


def _coming_days() -> range:
    today = int(time.time() // _DAY_S)
    return range(today, today + _DAYS_AHEAD)


async def _make_days(connection: Any, tables: Sequence[str], days: Iterable[int]) -> None:
    """A missing part costs nothing but order: what belongs to no part goes into the rest."""
    days = tuple(days)
    for table in tables:
        for day in days:
            name = f"{table}_{datetime.fromtimestamp(day * _DAY_S, UTC):%Y%m%d}"
            begin_ms, end_ms = int(day * _DAY_S * 1000), int((day + 1) * _DAY_S * 1000)
            try:
                async with connection.transaction():
                    await connection.execute("SELECT pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
                    if await connection.fetchval("SELECT to_regclass($1)", name) is None:
                        await connection.execute(
                            f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ({begin_ms}) TO ({end_ms})"
                        )
            except _postgres_error() as error:  # rows of that day lie in the rest already
                log.warning("%s was not made: %s", name, error)


# --- what went wrong ---------------------------------------------------------------------------------------------


def _unavailable(url: str, error: BaseException) -> UnavailableError:
    return UnavailableError(f"{url}: {error or type(error).__name__}", hint="is the database up, and the primary?")


def _errors() -> tuple[type[BaseException], ...]:
    import asyncpg

    return (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


def _postgres_error() -> type[Exception]:
    import asyncpg

    return asyncpg.PostgresError


def _conflicts() -> tuple[type[Exception], ...]:
    import asyncpg

    return (asyncpg.DeadlockDetectedError, asyncpg.SerializationError, asyncpg.UniqueViolationError)


def _state(error: BaseException) -> str:
    return getattr(error, "sqlstate", None) or ""


def _is_double(error: BaseException) -> bool:
    return _state(error) == "23505"


def _is_the_jobs(error: BaseException) -> bool:
    """The job's own mistake or decision; what concerns the server, its transactions or the connection is not."""
    import asyncpg

    if isinstance(error, _conflicts()):
        return False
    if isinstance(error, (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)):
        return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)
    if not isinstance(error, asyncpg.PostgresError):
        return True
    return _state(error)[:2] in ("22", "23", "42")


def _hint(error: BaseException) -> str:
    """What to do about a server that cannot be used at the start."""
    state = _state(error)
    if state.startswith("28"):
        return "check user and password_file in [store] of cloud.toml, and the server's pg_hba.conf"
    if state == "3D000":
        return "make it: createdb --owner USER NAME"
    if type(error).__name__ == "TargetServerAttributeNotMatched":
        return "only standbys answered: name the primary in [store] url, or all of the servers"
    if isinstance(error, (OSError, TimeoutError)):
        return "is the server running, and are host and port in [store] of cloud.toml right?"
    return "check [store] in cloud.toml"
