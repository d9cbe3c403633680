"""The journal: what happened, append-only, numbered, hash-chained; and the one transaction.

One SQLite file per gateway. A transaction holds the records, the state tables that they change and the rows of
what must be delivered: a `StateTable` derives the latter two from the record alone, so all of them can be
rebuilt from the records. Records are immutable; a correction is a new record.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError, PermanentError
from ..words import Instant
from .sqlite import Schema, Writer, connect_for_reading

T = TypeVar("T")

_log = logging.getLogger(__name__)

_GENESIS = b"sitewarden journal v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A record before it has a number.

    Attributes:
        kind: dotted noun and verb, `alarm.raised`.
        at: when it was decided.
        actor: id of the person, or `gateway`.
        body: JSON-able fields; finite numbers only.
        blobs: SHA-256 (hex) of the evidence that it names.
    """

    kind: str
    at: Instant
    actor: str
    body: dict[str, Any]
    blobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An immutable record. `chain` = SHA-256(previous chain ‖ `to_bytes()`)."""

    seq: int
    epoch: str
    kind: str
    at: dict[str, Any]
    actor: str
    body: dict[str, Any]
    blobs: tuple[str, ...]
    chain: bytes

    def to_bytes(self) -> bytes:
        """Canonical JSON of everything but the chain."""
        return canonical(
            {
                "seq": self.seq,
                "epoch": self.epoch,
                "kind": self.kind,
                "at": self.at,
                "actor": self.actor,
                "body": self.body,
                "blobs": list(self.blobs),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, chain: bytes) -> Record:
        """Inverse of `to_bytes`. Raises ValueError or KeyError on anything that is not a record."""
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError("a record is a JSON object")
        return cls(
            seq=int(fields["seq"]),
            epoch=str(fields["epoch"]),
            kind=str(fields["kind"]),
            at=dict(fields["at"]),
            actor=str(fields["actor"]),
            body=dict(fields["body"]),
            blobs=tuple(fields["blobs"]),
            chain=chain,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTable:
    """A module's tables, derived from records alone.

    Attributes:
        name: of the module; its tables start with it.
        version: raise it when `schema` or `apply` change: the tables are then rebuilt from the journal.
        schema: creates the tables (CREATE TABLE statements).
        tables: names of the tables, to drop and to compare.
        kinds: prefixes of the record kinds that `apply` wants.
        apply: `(connection, record)`, deterministic, inside the transaction of the record.
        beside: of `tables`, those that do not follow from records: a comparison leaves them out.
    """

    name: str
    version: int
    schema: str
    tables: tuple[str, ...]
    kinds: tuple[str, ...]
    apply: Callable[[sqlite3.Connection, Record], None]
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify_file` found. `bad_seq` is the first record that is missing or does not fit, None when all do."""

    gateway: str
    epoch: str
    records: int
    bad_seq: int | None = None
    problem: str = ""


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, no white space, UTF-8. Raises ValueError on NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def genesis_chain(gateway: str, epoch: str) -> bytes:
    """The chain value before record 1."""
    return hashlib.sha256(_GENESIS + gateway.encode() + b"\0" + epoch.encode()).digest()


def next_chain(previous: bytes, data: bytes) -> bytes:
    """The chain value of the record whose canonical bytes are `data`."""
    return hashlib.sha256(previous + data).digest()


def m001_records(db: sqlite3.Connection) -> None:
    """The log itself and what identifies it."""
    for statement in (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT)",
        "CREATE TABLE module (name TEXT PRIMARY KEY, version INTEGER)",
        "CREATE TABLE record (seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, data BLOB NOT NULL, chain BLOB NOT NULL)",
    ):
        db.execute(statement)


def m002_alarm_index(db: sqlite3.Connection) -> None:
    """The alarm history reads backwards through alarm records alone, however rare they are."""
    db.execute("CREATE INDEX record_alarm ON record (seq) WHERE kind GLOB 'alarm.*'")


_SCHEMA = Schema("journal", (m001_records, m002_alarm_index))


class Journal:
    """The only writer of `journal.db`. Open it, append drafts, subscribe to what was committed.

    Args:
        path: the database file.
        gateway: id of the gateway that the journal belongs to.
        tables: state tables to keep.
    """

    def __init__(self, path: Path, gateway: str, tables: Sequence[StateTable] = ()) -> None:
        self.path = path
        self.gateway = gateway
        self.epoch = ""
        self._tables = tuple(tables)
        self._head: tuple[int, bytes] = (0, b"")
        self._subscribers: list[Callable[[list[Record]], None]] = []
        self._guard: Callable[[Sequence[str]], None] = lambda _: None
        self._writer = Writer(path, self._prepare)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-read")
        self._reading: sqlite3.Connection | None = None

    async def __aenter__(self) -> Journal:
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self._writer.open)
        self._reading = connect_for_reading(self.path)
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._readers.shutdown)
        if self._reading is not None:
            self._reading.close()
        await asyncio.to_thread(self._writer.close)  # last, so that it leaves one file without a -wal

    def head(self) -> tuple[int, bytes]:
        """Number and chain of the newest committed record."""
        return self._head

    def subscribe(self, callback: Callable[[list[Record]], None]) -> None:
        """Call `callback` on the loop with each committed group, in commit order."""
        self._subscribers.append(callback)

    def guard(self, check: Callable[[Sequence[str]], None]) -> None:
        """Call `check` with the blobs that records name, just before these take their place among the commits.

        It raises RefusedError when one is not on the disk: then nothing is committed.
        """
        self._guard = check

    async def append(self, drafts: Sequence[Draft]) -> list[Record]:
        """Commit `drafts` and what follows from them, all or none; returns after the device has them.

        Raises:
            StoreError: nothing was committed; the process must end.
            RefusedError: `no_such_blob`, from the guard.
        """
        named = tuple(sha256 for draft in drafts for sha256 in draft.blobs)
        if named:
            self._guard(named)
        future = self._writer.submit(self._job(drafts))
        future.add_done_callback(self._committed)
        return await asyncio.shield(asyncio.wrap_future(future))

    async def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """Run `change` in a transaction on the writer's thread (delivery states, cursors: never records)."""
        return await self._writer.run(change)

    async def query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        """Run `read` on the read-only connection, off the loop."""
        reading = self._reading
        assert reading is not None, "the journal is not open"
        return await asyncio.get_running_loop().run_in_executor(self._readers, read, reading)

    async def raw(self, after: int, limit: int) -> list[tuple[int, bytes, bytes]]:
        """(seq, canonical bytes, chain) of up to `limit` records after `after`, in order."""
        sql = "SELECT seq, data, chain FROM record WHERE seq > ? ORDER BY seq LIMIT ?"
        return await self.query(lambda connection: connection.execute(sql, (after, limit)).fetchall())

    async def read(self, after: int, limit: int) -> list[Record]:
        """Up to `limit` records after `after`, in order."""
        return [Record.from_bytes(data, chain) for _, data, chain in await self.raw(after, limit)]

    def _job(self, drafts: Sequence[Draft]) -> Callable[[sqlite3.Connection], list[Record]]:
        def job(connection: sqlite3.Connection) -> list[Record]:
            records = self._insert(connection, drafts)
            for record in records:
                for table in self._tables:
                    if record.kind.startswith(table.kinds):
                        table.apply(connection, record)
            return records

        return job

    def _insert(self, connection: sqlite3.Connection, drafts: Sequence[Draft]) -> list[Record]:
        seq, chain = _read_head(connection, self.gateway, self.epoch)
        records = []
        for draft in drafts:
            seq += 1
            record = Record(
                seq=seq,
                epoch=self.epoch,
                kind=draft.kind,
                at=draft.at.to_json(),
                actor=draft.actor,
                body=draft.body,
                blobs=draft.blobs,
                chain=b"",
            )
            data = record.to_bytes()
            chain = next_chain(chain, data)
            record = Record.from_bytes(data, chain)
            connection.execute("INSERT INTO record VALUES (?, ?, ?, ?)", (seq, draft.kind, data, chain))
            records.append(record)
        return records

    def _committed(self, future: Future[list[Record]]) -> None:
        """On the writer's thread, in commit order."""
        if future.exception() is None and future.result() and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(self._announce, future.result())

    def _announce(self, records: list[Record]) -> None:
        self._head = (records[-1].seq, records[-1].chain)
        for callback in self._subscribers:
            try:
                callback(records)
            except Exception:  # the records are committed; the others must hear of them
                _log.exception("a subscriber failed at records %d to %d", records[0].seq, records[-1].seq)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        _SCHEMA.apply(connection)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        if meta.get("gateway", self.gateway) != self.gateway:
            problem = f"gateway.id: must be {meta['gateway']!r}, whose journal this is (got {self.gateway!r})"
            raise ConfigError(str(self.path), [problem])
        self.epoch = meta.get("epoch") or secrets.token_hex(8)
        if not meta:
            rows = [("gateway", self.gateway), ("epoch", self.epoch)]
            with _transaction(connection):
                connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        for table in self._tables:
            bring_up_to_date(connection, table)
        self._head = _read_head(connection, self.gateway, self.epoch)


def bring_up_to_date(connection: sqlite3.Connection, table: StateTable) -> None:
    """Create the tables of `table`, or rebuild them from the records when its version changed."""
    row = connection.execute("SELECT version FROM module WHERE name = ?", (table.name,)).fetchone()
    if row is not None and row[0] == table.version:
        return
    with _transaction(connection):
        rebuild(connection, table)
        connection.execute("INSERT OR REPLACE INTO module VALUES (?, ?)", (table.name, table.version))


def rebuild(connection: sqlite3.Connection, table: StateTable) -> None:
    """Drop the tables of `table` and apply every record again. The caller holds the transaction."""
    for name in table.tables:
        connection.execute(f"DROP TABLE IF EXISTS {name}")
    for statement in filter(str.strip, table.schema.split(";")):
        connection.execute(statement)
    for record in _records(connection):
        if record.kind.startswith(table.kinds):
            table.apply(connection, record)


def verify_file(
    path: Path,
    progress: Callable[[int], None] = lambda _: None,
    see: Callable[[str, bytes, bytes], None] | None = None,
) -> Verdict:
    """Walk the chain of a journal file and name the first record that does not fit.

    A missing end shows as far as another table of the file names a record beyond it; without such a trace only
    headquarters knows.

    Args:
        path: a `journal.db`, also while the daemon runs.
        progress: called with the number of records checked so far, now and then.
        see: called with kind, canonical bytes and chain of each record, just before it is checked.

    Raises:
        PermanentError: the file is not a journal.
    """
    try:
        with contextlib.closing(connect_for_reading(path)) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            known, table = _newest_trace(connection)  # before the records, which may become more meanwhile
            rows = connection.execute("SELECT seq, data, chain, kind FROM record ORDER BY seq")
            rows = rows if see is None else _shown(rows, see)
            verdict = verify_rows(meta["gateway"], meta["epoch"], rows, progress)
    except (sqlite3.Error, KeyError) as error:
        raise PermanentError(f"{path}: not a journal: {error}", hint="name the journal.db of a gateway") from error
    end = verdict.records
    if verdict.bad_seq is not None or known <= end:
        return verdict
    problem = f"record {known} is missing: the journal ends at {end}, but table {table} knows record {known}"
    return replace(verdict, bad_seq=end + 1, problem=problem)


def _shown(rows: Iterable[tuple[Any, ...]], see: Callable[[str, bytes, bytes], None]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        see(row[3], row[1], row[2])
        yield row


def _newest_trace(connection: sqlite3.Connection) -> tuple[int, str]:
    """The highest record number that a table beside the records names, and the table; 0 and "" when none does."""
    newest = (0, "")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'record' ORDER BY name")
    for (table,) in names.fetchall():
        quoted = '"' + table.replace('"', '""') + '"'
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({quoted})")}
        where = "AND stream = 'journal'" if "stream" in columns else ""
        for column in sorted(columns & {"seq", "last"}):
            sql = f"SELECT max({column}) FROM {quoted} WHERE typeof({column}) = 'integer' {where}"  # noqa: S608 - quoted
            newest = max(newest, (connection.execute(sql).fetchone()[0] or 0, table), key=lambda trace: trace[0])
    return newest


def verify_rows(
    gateway: str,
    epoch: str,
    rows: Iterable[tuple[Any, ...]],
    progress: Callable[[int], None] = lambda _: None,
) -> Verdict:
    """Check numbers, epoch and chain of `(seq, canonical bytes, chain[, kind beside them])` rows in order."""
    chain = genesis_chain(gateway, epoch)
    expected = 0
    for seq, data, stored, *kind in rows:
        expected += 1
        if isinstance(data, bytes):  # whoever wrote with other tools may have left text or a number
            chain = next_chain(chain, data)
        problem = _problem(expected, epoch, seq, data, isinstance(data, bytes) and stored == chain, kind)
        if problem:
            return Verdict(gateway=gateway, epoch=epoch, records=expected - 1, bad_seq=expected, problem=problem)
        if expected % 1000 == 0:
            progress(expected)
    return Verdict(gateway=gateway, epoch=epoch, records=expected)


def _problem(expected: int, epoch: str, seq: int, data: bytes, chain_fits: bool, kind: Sequence[str]) -> str:
    if seq != expected:
        return f"record {expected} is missing: the next one is {seq}"
    if not chain_fits:
        return f"record {expected} or its chain value was altered"
    try:
        record = Record.from_bytes(data, b"")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"record {expected} is not readable: {error}"
    if record.seq != expected or record.epoch != epoch:
        return f"record {expected} says that it is record {record.seq} of epoch {record.epoch}"
    return f"record {expected}: the kind beside it was altered" if any(k != record.kind for k in kind) else ""


def _records(connection: sqlite3.Connection) -> Iterator[Record]:
    for data, chain in connection.execute("SELECT data, chain FROM record ORDER BY seq"):
        yield Record.from_bytes(data, chain)


def _read_head(connection: sqlite3.Connection, gateway: str, epoch: str) -> tuple[int, bytes]:
    row = connection.execute("SELECT seq, chain FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, genesis_chain(gateway, epoch))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
