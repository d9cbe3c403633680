"""The history: what was measured, in packed segments. One SQLite file, one writer, no secondary index.

Readings wait in memory for up to `flush_s`, which is all that a power cut can lose, then in `tail` rows until 2,000
of them or 15 minutes make a segment. Segments are numbered at sealing, without gaps, and chained like the batches that
carry them (streams.batch_chain): batch n of the history stream is segment n, byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ..words import Reading, mono_s, utc_text
from .columns import DamagedError, Sample, compress, decompress, pack, readings, thin, unpack
from .sqlite import Schema, Writer, connect_for_reading
from .streams import HISTORY, batch_chain, stream_genesis

T = TypeVar("T")

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
_DAMAGED_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_CHECKED_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked as a whole at start; it takes a second on a slow card."""
_BEHIND, _BEHIND_LEAST = 2, 10_000
"""Segments, and readings, that may wait while others are written; 10,000 readings take about a megabyte."""
_WORK_S = 0.001
"""How long the packing of segments keeps the interpreter, and then leaves it to the event loop and to the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A sealed run of readings. `body` is `columns.compress(columns.pack(...))`, `chain` its place in the stream."""

    n: int
    t0_ms: int
    t1_ms: int
    count: int
    chain: bytes
    body: bytes


def m001_segments(db: sqlite3.Connection) -> None:
    """Small rows that are searched apart from the bodies that are read."""
    for statement in (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        "CREATE TABLE tail (id INTEGER PRIMARY KEY, body BLOB NOT NULL)",
        """CREATE TABLE segment (n INTEGER PRIMARY KEY, t0_ms INTEGER NOT NULL, t1_ms INTEGER NOT NULL,
           count INTEGER NOT NULL, boot TEXT NOT NULL, mono_ms INTEGER NOT NULL, chain BLOB NOT NULL)""",
        "CREATE TABLE body (n INTEGER PRIMARY KEY, body BLOB NOT NULL)",
    ):
        db.execute(statement)


_SCHEMA = Schema("history", (m001_segments,))


class History:
    """The only writer of `history.db`. `run` must be awaited in a task while it is open.

    Args:
        path: the database file; a damaged one is renamed to `*.damaged-<time>` and a new one begun.
        gateway: id that the stream's chain begins with.
        flush_s: how long readings may wait in memory; wear of the SD card against loss at a power cut.
        seal_readings, seal_s: a segment is sealed at this many readings or this age of its first one.
        keep_days: segments that the cloud has are kept this long for trends.
        on_damage: called on the loop with the renamed file, so that the loss is recorded.
        clock: monotonic seconds.

    Attributes:
        epoch: born with the file.
        durable: newest segment that the cloud was known to keep when `delete_through` was last called.
        damaged_segments: how often a segment could not be read.
    """

    def __init__(
        self,
        path: Path,
        gateway: str,
        *,
        flush_s: float = 10,
        seal_readings: int = 2000,
        seal_s: float = 900,
        keep_days: float = 30,
        on_damage: Callable[[Path], None] = lambda _: None,
        clock: Callable[[], float] = mono_s,
    ) -> None:
        self.path = path
        self.gateway = gateway
        self.epoch = ""
        self.beat_s = clock()
        self.durable = 0
        self.damaged_segments = 0
        self._flush_s, self._seal_readings, self._seal_s = flush_s, seal_readings, seal_s
        self._keep_days, self._on_damage, self._clock = keep_days, on_damage, clock
        self._buffer: list[Reading] = []
        self._flushing: list[Reading] = []
        self._tail: list[Reading] = []
        self._tail_since_s = 0.0
        self._sealed = (0, b"")
        self._due = asyncio.Event()
        self._turn = asyncio.Lock()
        self._subscribers: list[Callable[[int], None]] = []
        self._writer: Writer | None = None
        self._reading: sqlite3.Connection | None = None
        self._readers = ThreadPoolExecutor(max_workers=1, thread_name_prefix="history-read")

    async def __aenter__(self) -> History:
        await self._open()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Write what waits, then close; also when the last write fails."""
        try:
            await self.flush()
        finally:
            await self._close()
            self._readers.shutdown(wait=True)

    # --- writing -------------------------------------------------------------------------------------------------

    def add(self, batch: Sequence[Reading]) -> None:
        """Take readings in; cheap, on the loop. They are on the device within `flush_s`."""
        self._buffer.extend(batch)
        if len(self._buffer) >= self._seal_readings:
            self._due.set()

    def is_behind(self) -> bool:
        """More waits than is good for the memory: who can wait with the next readings should."""
        return len(self._buffer) >= max(_BEHIND * self._seal_readings, _BEHIND_LEAST)

    async def run(self) -> NoReturn:
        """Flush every `flush_s`, earlier when a segment is full. Raises StoreError when the device fails."""
        while True:
            self.beat_s = self._clock()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._flush_s):  # wait_for can lose a cancellation (gh-86296)
                    await self._due.wait()
            self._due.clear()
            await self.flush()

    async def flush(self, *, seal: bool = False) -> None:
        """Bring what waits to the device, sealing what is full, old, or everything with `seal`."""
        async with self._turn:
            self._flushing, self._buffer = self._buffer, []
            try:
                await self._flush(seal)
            except BaseException:
                self._buffer[:0] = self._flushing
                raise
            finally:
                self._flushing = []

    async def _flush(self, seal: bool) -> None:
        now_s = self._clock()
        since_s = self._tail_since_s if self._tail else now_s
        waiting = [*self._tail, *self._flushing]
        aged = bool(waiting) and now_s - since_s >= self._seal_s
        cut = len(waiting) if seal or aged else len(waiting) - len(waiting) % self._seal_readings
        if not self._flushing and not cut:
            return
        size = self._seal_readings
        full = [waiting[at : at + size] for at in range(0, cut, size)]
        fresh = waiting[cut:] if full else self._flushing
        sealed = await self._write(lambda connection: self._store(connection, full, fresh))
        self._tail, self._tail_since_s = waiting[cut:], now_s if full else since_s
        if full:
            self._sealed = sealed
            for callback in self._subscribers:
                callback(sealed[0])

    def _store(
        self, connection: sqlite3.Connection, full: list[list[Reading]], fresh: list[Reading]
    ) -> tuple[int, bytes]:
        """One transaction: new segments instead of the tail they were, then the new tail row."""
        n, chain = _last(connection, self.gateway, self.epoch)
        rest = _Rests()
        for batch in full:
            n += 1
            payload = pack(batch, rest)
            chain = batch_chain(chain, n, payload)
            _insert_segment(connection, n, batch, chain, compress(payload))
        if full:
            connection.execute("DELETE FROM tail")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('chain', ?)", (chain,))
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('sealed', ?)", (n,))
        if fresh:
            connection.execute("INSERT INTO tail (body) VALUES (?)", (compress(pack(fresh, rest)),))
        return n, chain

    # --- reading -------------------------------------------------------------------------------------------------

    async def read(self, point: str, t0_ms: int, t1_ms: int) -> list[Sample]:
        """(UTC ms, value or None, quality) of one point from `t0_ms` to `t1_ms`, in order of time, newest included."""
        recent = [
            (reading.at.utc_ms, reading.value, reading.quality)
            for reading in (*self._tail, *self._flushing, *self._buffer)
            if reading.point == point and t0_ms <= reading.at.utc_ms <= t1_ms
        ]
        limit = self._sealed[0]
        sealed = await self._query(lambda connection: self._read_sealed(connection, point, t0_ms, t1_ms, limit))
        return sorted([*sealed, *recent], key=lambda sample: sample[0])

    async def trend(self, point: str, t0_ms: int, t1_ms: int, limit: int = 600) -> list[Sample]:
        """`read`, thinned to about `limit` samples that keep highs, lows and gaps."""
        return thin(await self.read(point, t0_ms, t1_ms), limit)

    async def sealed_after(self, n: int, limit: int) -> list[Segment]:
        """Up to `limit` sealed segments numbered above `n`, in order."""
        sql = (
            "SELECT n, t0_ms, t1_ms, count, chain, body FROM segment JOIN body USING (n) WHERE n > ? ORDER BY n LIMIT ?"
        )
        rows = await self._query(lambda connection: connection.execute(sql, (n, limit)).fetchall())
        return [Segment(n=r[0], t0_ms=r[1], t1_ms=r[2], count=r[3], chain=r[4], body=r[5]) for r in rows]

    async def chain_at(self, n: int) -> bytes | None:
        """Chain value of segment `n`; None when it is not kept, or not there yet."""
        if n == 0:
            return stream_genesis(self.gateway, HISTORY, self.epoch)
        if n == self._sealed[0]:
            return self._sealed[1]
        sql = "SELECT chain FROM segment WHERE n = ?"
        row = await self._query(lambda connection: connection.execute(sql, (n,)).fetchone())
        return row[0] if row else None

    async def oldest(self) -> int:
        """Number of the oldest segment that is kept; the next one's when none is."""
        row = await self._query(lambda connection: connection.execute("SELECT min(n) FROM segment").fetchone())
        return row[0] if row[0] is not None else self._sealed[0] + 1

    def sealed_head(self) -> int:
        """Number of the newest sealed segment."""
        return self._sealed[0]

    def subscribe(self, callback: Callable[[int], None]) -> None:
        """Call `callback` on the loop with the number of the newest segment whenever some were sealed."""
        self._subscribers.append(callback)

    async def delete_through(self, n: int) -> int:
        """Delete segments up to `n` (which the cloud must have) that are older than `keep_days`; returns how many."""
        before_ms = int(time.time() * 1000 - self._keep_days * DAY_MS)

        def job(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('durable', ?)", (n,))
            bodies = "DELETE FROM body WHERE n IN (SELECT n FROM segment WHERE n <= ? AND t1_ms < ?)"
            connection.execute(bodies, (n, before_ms))
            return connection.execute("DELETE FROM segment WHERE n <= ? AND t1_ms < ?", (n, before_ms)).rowcount

        self.durable = n
        return await self._write(job)

    def _read_sealed(
        self, connection: sqlite3.Connection, point: str, t0_ms: int, t1_ms: int, limit: int
    ) -> list[Sample]:
        sql = "SELECT n, body FROM segment JOIN body USING (n) WHERE t1_ms >= ? AND t0_ms <= ? AND n <= ? ORDER BY n"
        samples: list[Sample] = []
        for n, body in connection.execute(sql, (t0_ms, t1_ms, limit)):
            try:
                blocks = unpack(decompress(body), point=point)
            except DamagedError as error:
                self.damaged_segments += 1
                log.warning("%s: segment %d cannot be read: %s", self.path, n, error)
                continue
            columns = [column for block in blocks for column in block.columns]
            rows = [row for c in columns for row in zip(c.utc_ms, c.values, c.qualities, strict=True)]
            samples += [row for row in rows if t0_ms <= row[0] <= t1_ms]
        return samples

    # --- the file ------------------------------------------------------------------------------------------------

    async def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        """Run `job` on the writer; when the file turns out to be damaged, once more on a new one."""
        assert self._writer is not None, "the history is not open"
        try:
            return await _to_the_end(self._writer.submit(job))
        except Exception as error:
            if not _is_damage(error):
                raise
        await self._close()
        self._quarantine()
        await self._open()
        return await _to_the_end(self._writer.submit(job))

    async def _query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        reading = self._reading
        assert reading is not None, "the history is not open"
        return await asyncio.get_running_loop().run_in_executor(self._readers, read, reading)

    async def _open(self) -> None:
        for last_try in (False, True):
            writer = Writer(self.path, self._prepare)
            try:
                await asyncio.to_thread(writer.open)
                self._reading = connect_for_reading(self.path)
            except (sqlite3.DatabaseError, DamagedError) as error:
                if last_try or not _is_damage(error):
                    raise
                self._quarantine()
            else:
                self._writer = writer
                return

    async def _close(self) -> None:
        if self._writer is not None:
            await asyncio.to_thread(self._writer.close)
        if self._reading is not None:
            await asyncio.get_running_loop().run_in_executor(self._readers, self._reading.close)
        self._reading = None

    def _quarantine(self) -> None:
        """Set the file aside, with what SQLite keeps beside it, for whoever can still read some of it."""
        stamp = utc_text(int(time.time() * 1000)).replace(":", "")
        aside = self.path.with_name(f"{self.path.name}.damaged-{stamp}-{secrets.token_hex(2)}")
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(aside.with_name(aside.name + suffix))
        log.error("%s is damaged; kept as %s, a new history begins", self.path, aside.name)
        self._on_damage(aside)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        if self.path.stat().st_size <= _CHECKED_BYTES:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise DamagedError(f"{self.path}: {verdict}")
        _SCHEMA.apply(connection)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        self.epoch, self.durable = meta.get("epoch") or secrets.token_hex(8), meta.get("durable", 0)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (self.epoch,))
        left = [body for (body,) in connection.execute("SELECT body FROM tail ORDER BY id")]
        waiting = [reading for body in left for reading in readings(unpack(decompress(body)))]
        full = [waiting[at : at + self._seal_readings] for at in range(0, len(waiting), self._seal_readings)]
        self._sealed = self._store(connection, full, [])
        connection.execute("COMMIT")


class _Rests:
    """Called now and then by a thread that works for long: lets the others have the interpreter half of the time."""

    __slots__ = ("_until_s",)

    def __init__(self) -> None:
        self._until_s = mono_s() + _WORK_S

    def __call__(self) -> None:
        if mono_s() >= self._until_s:
            time.sleep(_WORK_S)
            self._until_s = mono_s() + _WORK_S


def _last(connection: sqlite3.Connection, gateway: str, epoch: str) -> tuple[int, bytes]:
    meta: dict[str, Any] = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('sealed', 'chain')"))
    return meta.get("sealed", 0), meta.get("chain", stream_genesis(gateway, HISTORY, epoch))


def _insert_segment(connection: sqlite3.Connection, n: int, batch: list[Reading], chain: bytes, body: bytes) -> None:
    stamps = [reading.at.utc_ms for reading in batch]
    first = batch[0].at
    row = (n, min(stamps), max(stamps), len(batch), first.boot, round(first.mono_s * 1000), chain)
    connection.execute("INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO body VALUES (?, ?)", (n, body))


async def _to_the_end(future: Future[T]) -> T:
    """Await a job of the writer even when cancelled meanwhile (it commits all the same), then let the cancel through.

    Otherwise the caller would not know that its readings are stored, and store them twice.
    """
    waiting, task, cancelled = asyncio.wrap_future(future), asyncio.current_task(), False
    while not waiting.done():
        try:
            await asyncio.shield(waiting)
        except asyncio.CancelledError:
            assert task is not None
            task.uncancel()
            cancelled = True
        except Exception:
            break
    if cancelled and task is not None:
        task.cancel()
    return waiting.result()


def _is_damage(error: BaseException | None) -> bool:
    """Whether SQLite, anywhere in the chain of causes, says that the file itself is broken."""
    while error is not None:
        if isinstance(error, DamagedError) or getattr(error, "sqlite_errorcode", 0) in _DAMAGED_CODES:
            return True
        error = error.__cause__
    return False
