"""The journal: what happened, append-only, numbered, hash-chained; and the one transaction.

One SQLite file per gateway. A transaction holds the records, the state tables that they change and the rows of
what must be delivered: a `StateTable` derives the latter two from the record alone, so all of them can be
rebuilt from the records. Records are immutable; a correction is a new record.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ConfigError
from ..words import now
from .carrying import carry_over
from .columns import DamagedError
from .damage import is_damage, reading_of
from .epoch_table import RESTORED, began_with, epochs_of, m003_epochs, predecessor_json
from .identity import Identity, identity_of, identity_text, moved
from .journal_rescue import DAMAGED, begins_as_of, check, rescue, suspicion_of
from .memory_journal import MARK, MOST_BYTES, NotRecorded
from .record import Draft, Record, canonical, genesis_chain, next_chain
from .sqlite import Schema, StoreError, Writer, connect_for_reading
from .state import StateTable, bring_up_to_date, rebuild, transaction
from .verifying import Verdict, verify_file, verify_rows

__all__ = [
    "Draft",
    "Journal",
    "Record",
    "StateTable",
    "StoreError",
    "Verdict",
    "apply_schema",
    "bring_up_to_date",
    "canonical",
    "genesis_chain",
    "next_chain",
    "rebuild",
    "verify_file",
    "verify_rows",
]

T = TypeVar("T")

_log = logging.getLogger(__name__)


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


_SCHEMA = Schema("journal", (m001_records, m002_alarm_index, m003_epochs))
apply_schema = _SCHEMA.apply
_PATIENCE_S = (0.1, 0.4, 1.0)
"""A disk that refuses for longer than this together is given up."""


class Journal:
    """The only writer of `journal.db`. Open it, append drafts, subscribe to what was committed.

    Args:
        path: the database file.
        gateway: id of the gateway that the journal belongs to.
        tables: state tables to keep.
        where: says where the file lies; elsewhere than when it was last opened, a new epoch begins.
        carried: what is open at that moment, for the record that begins an epoch: others see that record alone.
        relief: asked for room when the device is full; True when there is some now.

    Attributes:
        not_recorded: of a journal in memory, since when and why; None on a disk.
        unkept: drafts that the disk refused, in order: who goes on elsewhere commits them there first.
        epoch: of new records.
        epochs: (epoch, number of its first record), the newest last.
        began: body of the record that the newest epoch began with; empty for the first.
    """

    def __init__(
        self,
        path: Path,
        gateway: str,
        tables: Sequence[StateTable] = (),
        *,
        where: Callable[[Path, str], Identity] | None = None,
        carried: Callable[[sqlite3.Connection], dict[str, Any]] = lambda _: {},
        relief: Callable[[], bool] = lambda: False,
    ) -> None:
        self.path = path
        self.gateway = gateway
        self.epoch = ""
        self.epochs: list[tuple[str, int]] = []
        self.began: dict[str, Any] = {}
        self.not_recorded: NotRecorded | None = None
        self.unkept: list[Draft] = []
        self._where, self._carried = where, carried
        self._identity: Identity = {}
        self._rescued: dict[str, Any] = {}
        self._tables = tuple(tables)
        self._head: tuple[int, bytes] = (0, b"")
        self._subscribers: list[Callable[[list[Record]], None]] = []
        self._guard: Callable[[Sequence[str]], None] = lambda _: None
        self._relief = relief
        self._writer = self._make_writer()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal-read")
        self._reading: sqlite3.Connection | None = None

    async def __aenter__(self) -> Journal:
        self._loop = asyncio.get_running_loop()
        if self._where is not None:
            self.path.touch(0o640)
            self._identity = await asyncio.to_thread(self._where, self.path, self.gateway)
        await asyncio.to_thread(self._open)
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
        future.add_done_callback(lambda done: self._note_refused(done, drafts))
        return await asyncio.shield(asyncio.wrap_future(future))

    async def carry_over(self, memory: Path, beside: Sequence[str], readings: int | None) -> list[Record]:
        """Append what was made in memory while the disk took nothing; see `carrying.carry_over`.

        Raises:
            StoreError: nothing was committed, and the memory is as it was.
            sqlite3.Error, ValueError, KeyError, TypeError: it cannot be read, or does not fit; nothing was committed.
        """

        def insert(connection: sqlite3.Connection, drafts: Sequence[Draft]) -> list[Record]:
            return self._job(drafts)(connection)

        def job(connection: sqlite3.Connection) -> list[Record]:
            return carry_over(connection, insert, memory, beside, readings)

        future = self._writer.submit(job)
        future.add_done_callback(self._committed)
        return await asyncio.shield(asyncio.wrap_future(future))

    async def begin_epoch(
        self,
        reason: str,
        facts: dict[str, Any],
        also: Callable[[sqlite3.Connection, int], None] = lambda _, __: None,
    ) -> Record:
        """Begin a new epoch; returns the committed record that it begins with. Nothing that was accepted is changed.

        Args:
            facts: why, for the record's body.
            also: run in the same transaction, with the number of that record.

        Raises:
            StoreError: nothing was committed; the process must end.
        """

        def job(connection: sqlite3.Connection) -> list[Record]:
            before = self.epoch, list(self.epochs), self.began
            try:
                record = self._begin(connection, reason, facts)
                also(connection, record.seq)
            except BaseException:
                self.epoch, self.epochs, self.began = before
                raise
            return [record]

        future = self._writer.submit(job)
        future.add_done_callback(self._committed)
        return (await asyncio.shield(asyncio.wrap_future(future)))[0]

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

    def _note_refused(self, future: Future[list[Record]], drafts: Sequence[Draft]) -> None:
        if isinstance(future.exception(), StoreError):
            self.unkept += drafts

    def _job(self, drafts: Sequence[Draft]) -> Callable[[sqlite3.Connection], list[Record]]:
        def job(connection: sqlite3.Connection) -> list[Record]:
            return self._insert(connection, drafts, *_read_head(connection, self.gateway, self.epoch))

        return job

    def _insert(self, connection: sqlite3.Connection, drafts: Sequence[Draft], seq: int, chain: bytes) -> list[Record]:
        """Append behind record `seq`, and apply what follows."""
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
        for record in records:
            for table in self._tables:
                if record.kind.startswith(table.kinds):
                    table.apply(connection, record)
        return records

    def _begin(self, connection: sqlite3.Connection, reason: str, facts: dict[str, Any]) -> Record:
        """In a transaction: end this epoch where it is, and append the first record of the next."""
        seq, chain = _read_head(connection, self.gateway, self.epoch)
        predecessor = predecessor_json(self.epoch, seq, chain)
        body = {"reason": str(reason), "predecessor": predecessor, **facts, **self._carried(connection)}
        new = secrets.token_hex(8)
        connection.execute("INSERT OR REPLACE INTO epoch VALUES (?, ?)", (seq + 1, new))  # over one without a record
        connection.execute("UPDATE meta SET value = ? WHERE key = 'epoch'", (new,))
        before, self.epoch = self.epoch, new
        draft = Draft(kind=RESTORED, at=now(), actor="gateway", body=body)
        (record,) = self._insert(connection, [draft], seq, genesis_chain(self.gateway, new))
        self.epochs = epochs_of(connection)
        self.began = record.body
        _log.warning("%s: epoch %s begins behind record %d of epoch %s: %s", self.path, new, seq, before, reason)
        return record

    def _committed(self, future: Future[list[Record]]) -> None:
        """On the writer's thread, in commit order."""
        error = future.exception()
        if error is not None and is_damage(error):
            with contextlib.suppress(OSError):
                suspicion_of(self.path).touch()  # the next start looks at all of the file
        if error is None and future.result() and self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
                self._loop.call_soon_threadsafe(self._announce, future.result())

    def _announce(self, records: list[Record]) -> None:
        self._head = (records[-1].seq, records[-1].chain)
        for callback in self._subscribers:
            try:
                callback(records)
            except Exception:  # the records are committed; the others must hear of them
                _log.exception("a subscriber failed at records %d to %d", records[0].seq, records[-1].seq)

    def _make_writer(self) -> Writer:
        return Writer(self.path, self._prepare, lambda _: self._relief(), patience=_PATIENCE_S)

    def _open(self) -> None:
        """A damaged file is set aside; what can be proven of it goes on. Blocks."""
        try:
            self._writer.open()
        except (sqlite3.DatabaseError, DamagedError) as error:
            if not is_damage(error):
                raise
            self._rescued = rescue(self.path, self.gateway, self._tables, _SCHEMA.apply)
            self._rescued["found"] = str(error)
            self._writer = self._make_writer()
            self._writer.open()
        suspicion_of(self.path).unlink(missing_ok=True)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with reading_of(self.path):
            meta = self._read(connection)
        for table in self._tables:
            bring_up_to_date(connection, table)
        if self._rescued:
            with transaction(connection):
                self._begin(connection, DAMAGED, {"damaged": self._rescued})
        self._look_where(connection, identity_of(meta.get("identity")))
        self._head = _read_head(connection, self.gateway, self.epoch)

    def _read(self, connection: sqlite3.Connection) -> dict[str, str]:
        """What the file says of itself; made when it is new."""
        check(connection, self.path, _SCHEMA.apply)
        _SCHEMA.apply(connection)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        if meta.get("gateway", self.gateway) != self.gateway:
            if begins_as_of(connection, self.gateway):
                raise DamagedError(f"{self.path}: its first record is of {self.gateway}, it says {meta['gateway']!r}")
            problem = f"gateway.id: must be {meta['gateway']!r}, whose journal this is (got {self.gateway!r})"
            raise ConfigError(str(self.path), [problem])
        self.epoch = meta.get("epoch") or secrets.token_hex(8)
        self.not_recorded = NotRecorded.of(meta.get(MARK))
        if self.not_recorded is not None:
            size = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={MOST_BYTES // size}")
        if not meta:
            rows = [("gateway", self.gateway), ("epoch", self.epoch)]
            with transaction(connection):
                connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)
        with transaction(connection):
            connection.execute(
                "INSERT OR IGNORE INTO epoch SELECT 1, ? WHERE NOT EXISTS (SELECT 1 FROM epoch)", (self.epoch,)
            )
        self.epochs = epochs_of(connection)
        self.began = began_with(connection, self.epochs)
        return meta

    def _look_where(self, connection: sqlite3.Connection, stored: Identity) -> None:
        """Begin a new epoch when the file lies elsewhere than it did; what could not be read then is stored now."""
        known = {**stored, **self._identity}
        if known == stored:
            return
        with transaction(connection):
            reason = moved(stored, self._identity)
            if reason is not None and _read_head(connection, self.gateway, self.epoch)[0]:
                self._begin(connection, reason, {"identity": dict(self._identity), "was": dict(stored)})
            row = ("identity", identity_text(known))
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", row)


def _read_head(connection: sqlite3.Connection, gateway: str, epoch: str) -> tuple[int, bytes]:
    row = connection.execute("SELECT seq, chain FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    return (row[0], row[1]) if row else (0, genesis_chain(gateway, epoch))
