"""From cloud.db to PostgreSQL: every row once, checked row by row; may be broken off and goes on where it was.

Each table is copied in the order of its key, a piece in a transaction together with how far it went. At the end both
sides are read again: the same number of rows, the same bytes, and streams whose newest batch is the acknowledged one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgpack

from ..errors import PermanentError
from .app import SOCKET, database_of
from .config import CloudConfig, StoreTable
from .engine_postgres import PostgresDatabase
from .moved import mark_moved
from .transactions import Database, Row, Tx

PIECE_ROWS = 1_000
_DAYS = "SELECT DISTINCT received_ms / 86400000 FROM batch ORDER BY 1"
_OWN = ("_sqlite_migrations", "moved", "schema_step")

Told = Callable[[str, int, int], None]
"""Table, rows that are there now, rows that there will be."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of both sides. `key`: its primary key's columns, in order."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def key_of(self, row: Row) -> tuple[Any, ...]:
        return tuple(row[self.columns.index(name)] for name in self.key)


async def move(source: Database, target: PostgresDatabase, told: Told = lambda *_: None) -> dict[str, int]:
    """Copy all of `source` and check it; rows of each table. Both are open, and nobody else writes to them.

    Args:
        source: cloud.db, with the newest schema.
        target: empty, or what an earlier move left.

    Raises:
        PermanentError: the target holds something else, or is not what was copied.
        UnavailableError: the server went away; call it again.
    """
    tables = await _tables(source)
    await target.write(lambda tx: _begin(tx, target.url))
    await target.make_days([row[0] for row in await source.read(lambda tx: tx.all(_DAYS))])
    counts = {table.name: await _copy(source, target, table, told) for table in tables}
    for table in tables:
        await _compare(source, target, table)
    await _check_streams(target)
    await target.write(_finish)
    return counts


async def move_store(config: CloudConfig, data: Path, store: StoreTable, password: str, told: Told) -> dict[str, int]:
    """`move` for the service of a data folder, which must not run. Raises PermanentError, UnavailableError."""
    source = data / "cloud.db"
    if not source.exists():
        raise PermanentError(f"{source} is missing", hint="--data is the folder of the cloud service")
    await _must_not_run(data / SOCKET)
    target = database_of(config.model_copy(update={"store": store, "store_password": password}), data)
    assert isinstance(target, PostgresDatabase)
    async with database_of(config.model_copy(update={"store": None}), data) as kept, target:
        counts = await move(kept, target, told)
    mark_moved(data, store.url)
    return counts


async def _must_not_run(socket: Path) -> None:
    try:
        _, writer = await asyncio.open_unix_connection(socket)
    except OSError:
        return
    writer.close()
    raise PermanentError("the service of this folder runs", hint="stop it: systemctl stop sitewarden-cloud")


# --- what there is -----------------------------------------------------------------------------------------------


async def _tables(source: Database) -> list[Table]:
    sql = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name"
    names = [row[0] for row in await source.read(lambda tx: tx.all(sql))]
    return [await source.read(lambda tx, name=name: _table(tx, name)) for name in names if name not in _OWN]


async def _table(tx: Tx, name: str) -> Table:
    found = await tx.all(f"PRAGMA table_info({name})")
    key = sorted((place, column) for _, column, _, _, _, place in found if place)
    if not key:
        raise PermanentError(f"{name} has no primary key: it cannot be copied in pieces")
    return Table(name=name, columns=tuple(row[1] for row in found), key=tuple(column for _, column in key))


async def _begin(tx: Tx, url: str) -> None:
    """Raises PermanentError: what is there did not come from a move."""
    await tx.run("CREATE TABLE IF NOT EXISTS moved (name TEXT PRIMARY KEY, piece BYTEA, count BIGINT NOT NULL)")
    if await tx.one("SELECT name FROM moved LIMIT 1") is not None:
        return
    if await tx.one("SELECT gateway FROM ack LIMIT 1") is not None:
        hint = "move into an empty database"
        raise PermanentError(f"{url}: gateways have sent to this database already", hint=hint)
    await tx.run("INSERT INTO moved VALUES ('', NULL, 0)")


async def _finish(tx: Tx) -> None:
    """Numbers that the database gives go on after those that were copied; `moved` has done its work."""
    await tx.run("SELECT setval(pg_get_serial_sequence('quarantine', 'id'), (SELECT max(id) FROM quarantine))")
    await tx.run("DROP TABLE moved")


# --- copying -----------------------------------------------------------------------------------------------------


async def _copy(source: Database, target: PostgresDatabase, table: Table, told: Told) -> int:
    row = await source.read(lambda tx: tx.one(f"SELECT count(*) FROM {table.name}"))  # noqa: S608
    rows = row[0] if row else 0
    kept = await target.read(lambda tx: tx.one("SELECT piece, count FROM moved WHERE name = ?", table.name))
    last, count = (tuple(msgpack.unpackb(kept[0])), kept[1]) if kept else (None, 0)
    async for piece in _pieces(source, table, last):
        count += len(piece)
        place, done = msgpack.packb(table.key_of(piece[-1])) or b"", count
        await target.write(lambda tx, piece=piece, place=place, done=done: _put(tx, table, piece, place, done))
        told(table.name, count, rows)
    return rows


async def _pieces(
    database: Database, table: Table, after: tuple[Any, ...] | None = None
) -> AsyncIterator[Sequence[Row]]:
    """All rows behind a key, in the order of the key's index."""
    key, last = ", ".join(table.key), after
    while True:
        where = f"WHERE ({key}) > ({', '.join('?' * len(table.key))})" if last is not None else ""
        sql = f"SELECT {', '.join(table.columns)} FROM {table.name} {where} ORDER BY {key} LIMIT {PIECE_ROWS}"  # noqa: S608
        rows = await database.read(lambda tx, sql=sql, last=last: tx.all(sql, *(last or ())))
        if not rows:
            return
        yield rows
        last = table.key_of(rows[-1])


async def _put(tx: Tx, table: Table, rows: Sequence[Row], place: bytes, count: int) -> None:
    marks = ", ".join("?" * len(table.columns))
    await tx.many(f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES ({marks})", rows)  # noqa: S608
    upsert = "INSERT INTO moved VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET"
    await tx.run(f"{upsert} piece = excluded.piece, count = excluded.count", table.name, place, count)


# --- checking ----------------------------------------------------------------------------------------------------


async def _compare(source: Database, target: PostgresDatabase, table: Table) -> None:
    """Raises PermanentError: the two differ."""
    here, there = _Digest(), _Digest()
    async for rows in _pieces(source, table):
        here.add(rows)
    async for rows in _pieces(target, table):
        there.add(rows)
    if here != there:
        hint = "empty the database and move again"
        less = f"{there.rows} rows instead of {here.rows}"
        what = less if there.rows != here.rows else "other bytes than were copied"
        raise PermanentError(f"{target.url}: {table.name} holds {what}", hint=hint)


@dataclass(slots=True)
class _Digest:
    """Of rows in any order: servers order texts as a language does."""

    rows: int = 0
    total: int = 0

    def add(self, rows: Iterable[Row]) -> None:
        for row in rows:
            self.rows += 1
            self.total += int.from_bytes(hashlib.sha256(msgpack.packb(row) or b"").digest(), "big")


async def _check_streams(target: PostgresDatabase) -> None:
    """Raises PermanentError: a stream does not end where it is acknowledged."""
    sql = (
        "SELECT ack.gateway, ack.stream FROM ack LEFT JOIN batch ON batch.gateway = ack.gateway"
        " AND batch.stream = ack.stream AND batch.epoch = ack.epoch AND batch.n = ack.ack"
        " WHERE batch.chain IS DISTINCT FROM ack.chain LIMIT 1"
    )
    row = await target.read(lambda tx: tx.one(sql))
    if row is not None:
        raise PermanentError(f"{target.url}: {row[1]} of {row[0]} does not end with the batch that was acknowledged")
