"""What the edge has to send: batches of the journal and of the history, numbered, chained, the same at each try.

Where a batch of the journal begins and ends is committed before it is sent for the first time; a batch of the history
is a sealed segment.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from ..errors import PermanentError
from ..words import now
from . import legs
from .columns import compress
from .epoch_table import record_epoch
from .identity import Reason, is_elsewhere
from .journal import Draft, Journal, genesis_chain
from .legs import Leg
from .streams import JOURNAL, batch_chain, stream_genesis
from .wire import Cursor, JournalPayload

MAX_RECORDS = 500
MAX_RECORD_BYTES = 256 * 1024
"""A journal batch ends after the record that reaches this many bytes."""
FORKED = "sync.forked"
"""Kind of the record of a leg that has ended that the cloud knows otherwise; of the newest it is a new epoch."""
_PACKED = 0.3
"""What zstd leaves of records, until it is known; then what it left of the newest batch counts as much as before."""
_SAMPLE = 100

Note = Callable[[str, dict[str, Any]], Awaitable[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One numbered piece of a stream, ready to send.

    Attributes:
        count: records or readings in it.
        last: of a declared gap, the last number that it stands for.
    """

    n: int
    chain: bytes
    body: bytes
    count: int = 0
    last: int = 0

    @property
    def through(self) -> int:
        """The last number that it stands for."""
        return self.last or self.n


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
    def epoch(self) -> str:
        """Under which batches go now: the oldest that the cloud does not have all of, or the newest."""
        ...

    async def open(self) -> None:
        """Make ready; before anything else."""
        ...

    def names(self) -> list[str]:
        """Every epoch that travels, in order, also those that the cloud has all of."""
        ...

    def stand(self, epoch: str) -> None:
        """Look at this epoch, whichever is the oldest; "": at the oldest again. For those who send no link's way."""
        ...

    async def kept_from(self) -> int:
        """The first batch of the epoch that is kept here."""
        ...

    async def gone(self) -> int:
        """The last batch of the epoch that is not kept any more because the cloud called it durable; 0: none."""
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

    @property
    def is_apart(self) -> bool:
        """Whether what is left under this epoch must travel under another name, also when the cloud agrees so far."""
        ...

    async def look_back(self, known: Mapping[str, Cursor]) -> list[dict[str, Any]]:
        """Before anything is sent: what the cloud had and has no more is sent again; what that is, once each.

        Args:
            known: the cloud's cursors by epoch.
        """
        ...

    async def newest(self) -> int:
        """Number of the newest batch that was made under this epoch."""
        ...

    async def part(self, cursor: Cursor, common: int) -> None:
        """Go on under another name behind batch `common`, the last one that both sides have.

        Args:
            cursor: where the cloud is under this one.
        """
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
        self._legs: list[Leg] = []
        self._stands = ""
        self._heard = Heard()
        self._most_bytes = MAX_RECORD_BYTES
        self._packed = _PACKED

    @property
    def epoch(self) -> str:
        return self._leg.epoch if self._legs else self._journal.epoch

    @property
    def is_apart(self) -> bool:
        return self._leg.apart

    @property
    def _leg(self) -> Leg:
        found = (leg for leg in self._legs if (leg.epoch == self._stands if self._stands else not leg.done))
        return next(found, self._legs[-1])

    def names(self) -> list[str]:
        return [leg.epoch for leg in self._legs]

    def stand(self, epoch: str) -> None:
        self._stands = epoch

    async def kept_from(self) -> int:
        return 1

    async def gone(self) -> int:
        return 0

    async def open(self) -> None:
        """Make the tables where they are missing. A batch is only made when the one before it was taken."""
        epochs, apart = list(self._journal.epochs), is_elsewhere(self._journal.began.get("reason", ""))
        await self._journal.write(lambda connection: legs.prepare(connection, epochs, apart=apart))
        await self._read_legs()
        bounds = await self._bounds(self._leg.batches - 1)
        self._acked_record = bounds[1] if bounds else self._leg.first - 1

    async def look_back(self, known: Mapping[str, Cursor]) -> list[dict[str, Any]]:
        had = {leg.epoch: leg.batches if leg.done else leg.acked for leg in self._legs}
        again = [leg.epoch for leg in self._legs if leg.done and ack_of(known, leg.epoch) < leg.batches]
        for epoch in again:
            await self._journal.write(lambda connection, e=epoch: legs.finish(connection, e, done=False))
        lost = self._heard.lost(had, known)
        for one in lost:
            await self._journal.write(lambda connection, o=one: legs.note_acked(connection, o["epoch"], o["has"]))
        await self._read_legs()
        return lost

    async def newest(self) -> int:
        return self._leg.batches

    async def part(self, cursor: Cursor, common: int) -> None:
        leg, bounds = self._leg, await self._bounds(common)
        kept = bounds[1] if bounds else leg.first - 1
        cloud = {"stream": JOURNAL, "epoch": leg.epoch, "ack": cursor.ack, "chain": cursor.chain.hex()}
        facts = {"cloud": cloud, "common": {"batch": common, "seq": kept}}
        if leg.last is None:

            def also(connection: sqlite3.Connection, first: int) -> None:
                legs.begin(connection, self._journal.epoch, first)
                legs.branch(connection, leg.epoch, kept, first - 1)

            reason = Reason.CLOUD_AHEAD if cursor.ack > await self.newest() else Reason.FORK
            await self._journal.begin_epoch(reason, facts, also)
        else:
            end = leg.last
            await self._journal.write(lambda connection: legs.branch(connection, leg.epoch, kept, end))
            if common < cursor.ack:
                await self._journal.append([Draft(kind=FORKED, at=now(), actor="gateway", body=facts)])
        await self._read_legs()

    async def _read_legs(self) -> None:
        self._legs = await self._journal.query(legs.legs_of)
        self._acked_record = self._leg.first - 1

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
        leg, bounds = self._leg, await self._bounds(ack)
        self._heard.acks[leg.epoch] = ack
        self._acked_record = bounds[1] if bounds else leg.first - 1
        if leg.last is not None and self._acked_record >= leg.last and not leg.apart:
            await self._journal.write(lambda connection: legs.finish(connection, leg.epoch))
            await self._read_legs()

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
        sql = "SELECT first, last, chain FROM batch WHERE stream = ? AND epoch = ? AND n = ?"
        key = (JOURNAL, self.epoch, n)
        return await self._journal.query(lambda connection: connection.execute(sql, key).fetchone())

    async def _plan(self, n: int) -> tuple[int, int, bytes] | None:
        """Choose where batch `n` ends and commit that."""
        leg, before = self._leg, await self._bounds(n - 1)
        chain = await self._chain_at(n - 1)
        if chain is None:
            raise PermanentError(f"journal batch {n - 1} was never made here", hint="was the gateway's data restored?")
        first = before[1] + 1 if before else leg.first
        room = MAX_RECORDS if leg.last is None else min(MAX_RECORDS, leg.last - first + 1)
        count = _fitting(await self._journal.raw(first - 1, room), self._most_bytes) if room > 0 else 0
        if count == 0:
            return None
        last = first + count - 1
        row = (JOURNAL, leg.epoch, n, first, last, batch_chain(chain, n, await self._payload(first, last)))

        def insert(connection: sqlite3.Connection) -> None:
            """Whoever comes second, link or bundle, takes what the first one chose."""
            connection.execute("INSERT OR IGNORE INTO batch VALUES (?, ?, ?, ?, ?, ?)", row)
            if leg.epoch in self._heard.acks:
                legs.note_acked(connection, leg.epoch, self._heard.acks[leg.epoch])

        await self._journal.write(insert)
        return await self._bounds(n)

    async def _payload(self, first: int, last: int) -> bytes:
        journal = self._journal
        rows = await journal.raw(max(0, first - 2), last - max(0, first - 2))
        before = rows.pop(0)[2] if first > 1 else b""
        if any(first == began for _, began in journal.epochs):
            before = genesis_chain(journal.gateway, record_epoch(self.epoch))
        if [row[0] for row in rows] != list(range(first, last + 1)):
            raise PermanentError(f"records {first} to {last} are not all in the journal", hint="run sitewarden verify")
        records = tuple(row[1] for row in rows)
        return JournalPayload(epoch=self.epoch, first=first, before=before, records=records, after=rows[-1][2]).pack()


class Heard:
    """What the cloud said last that it has, by epoch. A loss is told once."""

    def __init__(self) -> None:
        self.acks: dict[str, int] = {}

    def lost(self, had: Mapping[str, int], known: Mapping[str, Cursor]) -> list[dict[str, Any]]:
        """What the cloud has less of. `had`: what it must have had, from before this process."""
        found = []
        for epoch, least in had.items():
            before, has = self.acks.get(epoch, least), ack_of(known, epoch)
            if has < before:
                found.append({"epoch": epoch, "had": before, "has": has})
            self.acks[epoch] = has
        return found


def ack_of(known: Mapping[str, Cursor], epoch: str) -> int:
    return known[epoch].ack if epoch in known else 0


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
