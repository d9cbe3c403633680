"""The history: what was measured, in packed segments. One SQLite file, one writer, no secondary index.

Readings wait in memory for up to `flush_s`, which is all that a power cut can lose, then in `tail` rows until 2,000
of them or 15 minutes make a segment. Segments are numbered at sealing, without gaps, and chained like the batches that
carry them (streams.batch_chain): batch n of the history stream is segment n, byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from ..words import Reading, mono_s
from .columns import DamagedError, Sample, compress, decompress, pack, readings, thin, unpack
from .damage import is_damage, look_at, reading_of, set_aside
from .history_epochs import Span, begin, m002_epochs, part, read_marks, settle, spans_of
from .history_room import HistoryRoom, m003_dropped
from .identity import Identity, identity_of, identity_text, is_elsewhere, moved
from .resting import Rests
from .sqlite import Schema, StoreError, Writer, connect_for_reading, is_refusal
from .streams import HISTORY, batch_chain, stream_genesis

T = TypeVar("T")

log = logging.getLogger(__name__)

DAY_MS = 86_400_000
_CHECKED_BYTES = 64 * 1024 * 1024
"""Files up to this size are checked as a whole at start; it takes a second on a slow card."""
_BEHIND, _BEHIND_LEAST = 2, 10_000
"""Segments, and readings, that may wait while others are written; 10,000 readings take about a megabyte."""


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


_SCHEMA = Schema("history", (m001_segments, m002_epochs, m003_dropped))


class History(HistoryRoom):
    """The only writer of `history.db`. `run` must be awaited in a task while it is open.

    Args:
        path: the database file; a damaged one is renamed to `*.damaged-<time>` and a new one begun.
        gateway: id that the stream's chain begins with.
        flush_s: how long readings may wait in memory; wear of the SD card against loss at a power cut.
        seal_readings, seal_s: a segment is sealed at this many readings or this age of its first one.
        keep_days: segments that the cloud has are kept this long for trends.
        settle_days: and this long after it called them durable, in case it is restored to an earlier state.
        on_damage: called on the loop with the renamed file, so that the loss is recorded.
        where: says where the file lies; elsewhere than when it was last opened, a new epoch begins.
        relief: asked for room on the device, before anything is dropped for it.
        clock: monotonic seconds.

    Attributes:
        epoch: of new segments.
        began: `reason`, `epoch`, `before` and `last` segment, when an epoch began as the file was opened; else empty.
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
        settle_days: float = 7,
        where: Callable[[Path, str], Identity] | None = None,
        on_damage: Callable[[Path], None] = lambda _: None,
        relief: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = mono_s,
    ) -> None:
        super().__init__(relief)
        self.path = path
        self.gateway = gateway
        self.epoch = ""
        self.began: dict[str, Any] = {}
        self._base = 0
        self._settle_ms, self._where = round(settle_days * DAY_MS), where
        self._identity: Identity = {}
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
        rest = Rests()
        for batch in full:
            n += 1
            payload = pack(batch, rest)
            chain = batch_chain(chain, n - self._base, payload)
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
        recent, limit = self.unsealed(point, t0_ms, t1_ms), self._sealed[0]
        sealed = await self._query(lambda connection: self._read_sealed(connection, point, t0_ms, t1_ms, limit))
        return sorted([*sealed, *recent], key=lambda sample: sample[0])

    def unsealed(self, point: str, t0_ms: int, t1_ms: int) -> list[Sample]:
        """As `read`, of what is in no segment yet, in the order in which it came."""
        return [
            (reading.at.utc_ms, reading.value, reading.quality)
            for reading in (*self._tail, *self._flushing, *self._buffer)
            if reading.point == point and t0_ms <= reading.at.utc_ms <= t1_ms
        ]

    async def extent(self, t0_ms: int, t1_ms: int) -> tuple[int, int]:
        """Segments, and readings in them, from `t0_ms` to `t1_ms`: what a `read` of it has to unpack."""
        sql = "SELECT count(*), coalesce(sum(count), 0) FROM segment WHERE t1_ms >= ? AND t0_ms <= ?"
        return await self._query(lambda connection: connection.execute(sql, (t0_ms, t1_ms)).fetchone())

    async def mark_at(self, n: int) -> str:
        """What segment `n` is known by (`mark_of`); empty when it is not kept."""
        sql = "SELECT t0_ms, t1_ms, count FROM segment WHERE n = ?"
        row = await self._query(lambda connection: connection.execute(sql, (n,)).fetchone())
        return _mark(*row) if row else ""

    async def begins_ms(self) -> int | None:
        """The oldest reading in a segment; None when there is no segment."""
        sql = "SELECT min(t0_ms) FROM segment"
        return (await self._query(lambda connection: connection.execute(sql).fetchone()))[0]

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
        if n == self._sealed[0] and n > self._base:
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

    async def spans(self) -> list[Span]:
        """The epochs in order; the newest has no end."""
        return await self._query(spans_of)

    async def finish(self, epoch: str, *, done: bool = True) -> None:
        """The cloud has all of an epoch; or has lost some of it again."""
        sql = "UPDATE epoch SET done = ? WHERE epoch = ?"
        await self._write(lambda connection: connection.execute(sql, (done, epoch)).close())

    async def part(self, epoch: str, kept: int) -> str:
        """What follows segment `kept`, the last of `epoch` that the cloud has, goes under the next epoch; its name."""

        def job(connection: sqlite3.Connection) -> tuple[int, str, bytes]:
            if epoch == self.epoch:
                connection.execute("UPDATE epoch SET done = 1, apart = 0 WHERE epoch = ?", (epoch,))
                self._begin(connection, kept + 1)
            else:
                name, chain = part(connection, self.gateway, epoch, kept)
                if name == self.epoch:
                    self._keep_chain(connection, kept, chain)
            n, chain = _last(connection, self.gateway, self.epoch)
            return n, next(span.epoch for span in spans_of(connection) if span.first > kept), chain

        async with self._turn:
            n, name, chain = await self._write(job)
            self._sealed = n, chain
        return name

    async def delete_through(self, n: int) -> int:
        """Delete segments up to `n`, which the cloud calls durable, that are older than `keep_days` and were durable
        `settle_days` ago; returns how many."""
        now_ms = int(time.time() * 1000)
        before_ms = int(now_ms - self._keep_days * DAY_MS)

        def job(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('durable', ?)", (n,))
            row = connection.execute("SELECT value FROM meta WHERE key = 'settled'").fetchone()
            marks, old = settle(read_marks(row and row[0]), n, now_ms, self._settle_ms)
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('settled', ?)", (json.dumps(marks),))
            bodies = "DELETE FROM body WHERE n IN (SELECT n FROM segment WHERE n <= ? AND t1_ms < ?)"
            connection.execute(bodies, (old, before_ms))
            return connection.execute("DELETE FROM segment WHERE n <= ? AND t1_ms < ?", (old, before_ms)).rowcount

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
            return await to_the_end(self._writer.submit(job))
        except Exception as error:
            if not is_damage(error):
                raise
        await self._close()
        self._quarantine()
        await self._open()
        return await to_the_end(self._writer.submit(job))

    async def _query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        reading = self._reading
        assert reading is not None, "the history is not open"
        return await asyncio.get_running_loop().run_in_executor(self._readers, read, reading)

    async def _open(self) -> None:
        for last_try in (False, True):
            if self._where is not None:
                self.path.touch(0o640)
                self._identity = await asyncio.to_thread(self._where, self.path, self.gateway)
            writer = Writer(self.path, self._prepare, self._make_room, shrinks=True)
            try:
                await asyncio.to_thread(writer.open)
                self._reading = connect_for_reading(self.path)
            except (sqlite3.DatabaseError, DamagedError) as error:
                if is_refusal(error):
                    raise StoreError(f"{self.path}: {error}", path=self.path) from error
                if last_try or not is_damage(error):
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
        aside = set_aside(self.path)
        log.error("%s is damaged; kept as %s, a new history begins", self.path, aside.name)
        self._on_damage(aside)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with reading_of(self.path):
            look_at(connection, self.path, _SCHEMA.apply, _CHECKED_BYTES)
            self._read(connection)

    def _read(self, connection: sqlite3.Connection) -> None:
        """What the file says of itself; made when it is new."""
        _SCHEMA.apply(connection)
        self._set_limit(connection)
        meta = dict(connection.execute("SELECT key, value FROM meta"))
        self.epoch, self.durable = meta.get("epoch") or secrets.token_hex(8), meta.get("durable", 0)
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT OR IGNORE INTO meta VALUES ('epoch', ?)", (self.epoch,))
        first = "INSERT INTO epoch (first, epoch) SELECT 1, ? WHERE NOT EXISTS (SELECT 1 FROM epoch)"
        connection.execute(first, (self.epoch,))
        self._base = spans_of(connection)[-1].first - 1
        self._look_where(connection, identity_of(meta.get("identity")))
        left = [body for (body,) in connection.execute("SELECT body FROM tail ORDER BY id")]
        waiting = [reading for body in left for reading in readings(unpack(decompress(body)))]
        full = [waiting[at : at + self._seal_readings] for at in range(0, len(waiting), self._seal_readings)]
        self._sealed = self._store(connection, full, [])
        connection.execute("COMMIT")

    def _look_where(self, connection: sqlite3.Connection, stored: Identity) -> None:
        known, reason = {**stored, **self._identity}, moved(stored, self._identity)
        if reason is not None:
            before, last = self.epoch, _last(connection, self.gateway, self.epoch)[0]
            self._begin(connection, last + 1, apart=is_elsewhere(reason))
            self.began = {"reason": reason.value, "epoch": self.epoch, "before": before, "last": last}
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('identity', ?)", (identity_text(known),))

    def _begin(self, connection: sqlite3.Connection, first: int, *, apart: bool = False) -> None:
        epoch = secrets.token_hex(8)
        chain = begin(connection, self.gateway, epoch, first, apart=apart)
        self._keep_chain(connection, first - 1, chain)
        log.warning("%s: epoch %s begins with segment %d", self.path, epoch, first)
        self.epoch = epoch

    def _keep_chain(self, connection: sqlite3.Connection, base: int, chain: bytes) -> None:
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('chain', ?)", (chain,))
        self._base = base


def _last(connection: sqlite3.Connection, gateway: str, epoch: str) -> tuple[int, bytes]:
    meta: dict[str, Any] = dict(connection.execute("SELECT key, value FROM meta WHERE key IN ('sealed', 'chain')"))
    n, chain = meta.get("sealed", 0), meta.get("chain", stream_genesis(gateway, HISTORY, epoch))
    ((newest,),) = connection.execute("SELECT max(n) FROM segment").fetchall()
    if not (isinstance(n, int) and isinstance(chain, bytes) and len(chain) == 32 and n >= (newest or 0)):
        raise DamagedError("it does not know its newest segment")
    return n, chain


def _insert_segment(connection: sqlite3.Connection, n: int, batch: list[Reading], chain: bytes, body: bytes) -> None:
    stamps = [reading.at.utc_ms for reading in batch]
    first = batch[0].at
    row = (n, min(stamps), max(stamps), len(batch), first.boot, round(first.mono_s * 1000), chain)
    connection.execute("INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?)", row)
    connection.execute("INSERT INTO body VALUES (?, ?)", (n, body))


async def to_the_end(future: Future[T]) -> T:
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


def mark_of(segment: Segment) -> str:
    """Tells a segment from those of another file with its number; stays when an epoch begins, unlike its chain."""
    return _mark(segment.t0_ms, segment.t1_ms, segment.count)


def _mark(t0_ms: int, t1_ms: int, count: int) -> str:
    return f"{t0_ms}-{t1_ms}-{count}"
