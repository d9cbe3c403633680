"""What the edge has to send: batches of the journal and of the history, numbered, chained, the same at each try.

Where a batch of the journal begins and ends is committed before it is sent for the first time; a batch of the history
is a sealed segment.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ..errors import PermanentError
from ..words import mono_s
from .columns import compress
from .history import History
from .journal import Journal, genesis_chain
from .several import MAX_BATCHES
from .streams import HISTORY, JOURNAL, batch_chain, stream_genesis
from .wire import JournalPayload

MAX_RECORDS = 500
MAX_RECORD_BYTES = 256 * 1024
"""A journal batch ends after the record that reaches this many bytes."""
SETTLE_EVERY_S = 600
_PACKED = 0.3
"""What zstd leaves of records, until it is known; then what it left of the newest batch counts as much as before."""
_SAMPLE = 100

_SCHEMA = """CREATE TABLE IF NOT EXISTS batch (stream TEXT NOT NULL, n INTEGER NOT NULL, first INTEGER NOT NULL,
             last INTEGER NOT NULL, chain BLOB NOT NULL, PRIMARY KEY (stream, n)) WITHOUT ROWID"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One numbered piece of a stream, ready to send. `count`: records or readings in it."""

    n: int
    chain: bytes
    body: bytes
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """What the cloud does not have yet.

    Attributes:
        bytes: about, as it will travel.
        oldest_ms: UTC milliseconds of the oldest record or reading by the clock of its time; None when nothing waits.
    """

    bytes: int = 0
    oldest_ms: int | None = None


class Outbox(Protocol):
    """One stream's side of the edge's stores."""

    stream: str

    @property
    def epoch(self) -> str: ...

    async def open(self) -> None:
        """Make ready; before anything else."""
        ...

    async def batch(self, n: int) -> Batch | None:
        """Batch `n`, durable here and the same each time; None when there is nothing to put into it yet.

        Raises PermanentError when it was deleted or its predecessor is not known.
        """
        ...

    async def batches(self, n: int, most_bytes: int) -> list[Batch]:
        """Batches from `n` on that together have about `most_bytes`; at least one when there is one.

        Raises as `batch` does.
        """
        ...

    async def lag(self) -> Lag:
        """What waits; reads a little of it."""
        ...

    async def agrees(self, n: int, chain: bytes) -> bool:
        """Whether batch `n` was made here and has this chain value, as far as this side still knows."""
        ...

    async def acked(self, ack: int, durable: int) -> None:
        """The cloud has batches up to `ack` and will not lose those up to `durable`: what need not stay may go."""
        ...

    def waiting(self) -> int:
        """How many records or segments the cloud does not have yet, as far as this side knows."""
        ...

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` on the loop when there may be more to send."""
        ...


class JournalOutbox:
    """The journal in batches of at most 500 records and about 256 KiB. Records are never deleted."""

    stream = JOURNAL

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._acked_record = 0
        self._most_bytes = MAX_RECORD_BYTES
        self._packed = _PACKED

    @property
    def epoch(self) -> str:
        return self._journal.epoch

    async def open(self) -> None:
        """Create the table of batches where it is missing. A batch is only made when the one before it was taken."""
        await self._journal.write(lambda connection: connection.execute(_SCHEMA).close())
        newest = "SELECT coalesce(max(n), 1) FROM batch WHERE stream = ?"
        n = await self._journal.query(lambda connection: connection.execute(newest, (JOURNAL,)).fetchone()[0])
        await self.acked(n - 1, 0)

    async def batch(self, n: int) -> Batch | None:
        bounds = await self._bounds(n) or await self._plan(n)
        if bounds is None:
            return None
        first, last, chain = bounds
        payload = await self._payload(first, last)
        body = compress(payload)
        self._packed = (self._packed + len(body) / len(payload)) / 2
        return Batch(n=n, chain=chain, body=body, count=last - first + 1)

    async def batches(self, n: int, most_bytes: int) -> list[Batch]:
        """One at most: a batch that is chosen now is chosen so that it fits."""
        self._most_bytes = min(int(most_bytes / self._packed), MAX_RECORD_BYTES)
        found = await self.batch(n)
        return [] if found is None else [found]

    async def lag(self) -> Lag:
        waiting = self.waiting()
        rows = await self._journal.raw(self._acked_record, min(waiting, _SAMPLE)) if waiting > 0 else []
        if not rows:
            return Lag()
        size = sum(len(data) for _, data, _ in rows) / len(rows) * waiting * self._packed
        return Lag(bytes=round(size), oldest_ms=_time_of(rows[0][1]))

    async def agrees(self, n: int, chain: bytes) -> bool:
        return await self._chain_at(n) == chain

    async def acked(self, ack: int, durable: int) -> None:  # noqa: ARG002 - nothing is deleted
        """Nothing goes: after a restore of the cloud batches are sent again as they were."""
        bounds = await self._bounds(ack)
        self._acked_record = bounds[1] if bounds else 0

    def waiting(self) -> int:
        return self._journal.head()[0] - self._acked_record

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._journal.subscribe(lambda _: wake())

    async def _chain_at(self, n: int) -> bytes | None:
        if n == 0:
            return stream_genesis(self._journal.gateway, JOURNAL, self.epoch)
        bounds = await self._bounds(n)
        return bounds[2] if bounds else None

    async def _bounds(self, n: int) -> tuple[int, int, bytes] | None:
        sql = "SELECT first, last, chain FROM batch WHERE stream = ? AND n = ?"
        return await self._journal.query(lambda connection: connection.execute(sql, (JOURNAL, n)).fetchone())

    async def _plan(self, n: int) -> tuple[int, int, bytes] | None:
        """Choose where batch `n` ends and commit that."""
        before = await self._bounds(n - 1)
        chain = await self._chain_at(n - 1)
        if chain is None:
            raise PermanentError(f"journal batch {n - 1} was never made here", hint="was the gateway's data restored?")
        first = before[1] + 1 if before else 1
        count = _fitting(await self._journal.raw(first - 1, MAX_RECORDS), self._most_bytes)
        if count == 0:
            return None
        last = first + count - 1
        row = (JOURNAL, n, first, last, batch_chain(chain, n, await self._payload(first, last)))

        def insert(connection: sqlite3.Connection) -> None:
            """Whoever comes second, link or bundle, takes what the first one chose."""
            connection.execute("INSERT OR IGNORE INTO batch VALUES (?, ?, ?, ?, ?)", row)

        await self._journal.write(insert)
        return await self._bounds(n)

    async def _payload(self, first: int, last: int) -> bytes:
        journal = self._journal
        rows = await journal.raw(max(0, first - 2), last - max(0, first - 2))
        before = rows.pop(0)[2] if first > 1 else genesis_chain(journal.gateway, self.epoch)
        if [row[0] for row in rows] != list(range(first, last + 1)):
            raise PermanentError(f"records {first} to {last} are not all in the journal", hint="run sitewarden verify")
        records = tuple(row[1] for row in rows)
        return JournalPayload(epoch=self.epoch, first=first, before=before, records=records, after=rows[-1][2]).pack()


def _time_of(data: bytes) -> int | None:
    """UTC milliseconds of a record; None when it does not say: `verify` complains of that, not a status page."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return round(datetime.fromisoformat(json.loads(data)["at"]["utc"]).timestamp() * 1000)
    return None


def _fitting(rows: Sequence[tuple[int, bytes, bytes]], most_bytes: int) -> int:
    """How many of the records go into one batch: it ends with the one that reaches `most_bytes`."""
    size = 0
    for count, (_, data, _) in enumerate(rows, 1):
        size += len(data)
        if size >= most_bytes:
            return count
    return len(rows)


class HistoryOutbox:
    """Sealed segments as they lie in the history."""

    stream = HISTORY

    def __init__(self, history: History) -> None:
        self._history = history
        self._next_settling_s = 0.0
        self._ack = 0
        self._mean = 0

    @property
    def epoch(self) -> str:
        return self._history.epoch

    async def open(self) -> None:
        self._ack = self._history.durable

    async def batch(self, n: int) -> Batch | None:
        if n > self._history.sealed_head():
            return None
        return (await self._kept(n, 1))[0]

    async def batches(self, n: int, most_bytes: int) -> list[Batch]:
        """Neighbours that fit together, as far as they are known to; how many that will be, the last ones tell."""
        if n > self._history.sealed_head():
            return []
        likely = most_bytes // self._mean if self._mean else 1
        found = await self._kept(n, max(1, min(likely, MAX_BATCHES)))
        taken, size = [], 0
        for batch in found:
            size += len(batch.body)
            if taken and size > most_bytes:
                break
            taken.append(batch)
        self._mean = max(1, sum(len(batch.body) for batch in found) // len(found))
        return taken

    async def lag(self) -> Lag:
        waiting = self.waiting()
        found = await self._history.sealed_after(self._ack, 2) if waiting else []
        if not found:
            return Lag()
        size = sum(len(segment.body) for segment in found) / len(found) * waiting
        return Lag(bytes=round(size), oldest_ms=found[0].t0_ms)

    async def _kept(self, n: int, count: int) -> list[Batch]:
        found = await self._history.sealed_after(n - 1, count)
        if not found or found[0].n != n:
            hint = "it was deleted after the cloud had called it durable; the cloud lost it"
            raise PermanentError(f"history segment {n} is not kept any more", hint=hint)
        found = [segment for at, segment in enumerate(found) if segment.n == n + at]
        return [Batch(n=one.n, chain=one.chain, body=one.body, count=one.count) for one in found]

    async def agrees(self, n: int, chain: bytes) -> bool:
        """A segment that is deleted cannot be compared; the cloud still checks that the next one follows it."""
        return n <= self._history.sealed_head() and await self._history.chain_at(n) in (None, chain)

    async def acked(self, ack: int, durable: int) -> None:
        """Deletes now and then: each time is a search through the segments and a write to the card."""
        self._ack = ack
        if mono_s() >= self._next_settling_s:
            self._next_settling_s = mono_s() + SETTLE_EVERY_S
            await self._history.delete_through(durable)

    def waiting(self) -> int:
        return max(0, self._history.sealed_head() - self._ack)

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._history.subscribe(lambda _: wake())
