"""What the edge has to send of the history: sealed segments as they lie there, by epoch; gaps where some are gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..words import mono_s
from .columns import compress
from .gaps import Gap, pack_gap
from .history import History
from .history_epochs import Span
from .outbox import FORKED, Batch, Heard, Lag, Note, ack_of
from .several import MAX_BATCHES
from .streams import HISTORY, UNKNOWN_CHAIN, stream_genesis
from .wire import Cursor

GAP = "sync.gap"
"""Kind of the record of batches that the cloud does not have and that are not kept here any more."""
SETTLE_EVERY_S = 600


class HistoryOutbox:
    """Sealed segments as they lie in the history.

    Args:
        note: records what must be known: (kind, body).
    """

    stream = HISTORY

    def __init__(self, history: History, note: Note | None = None) -> None:
        self._history, self._note = history, note
        self._next_settling_s = 0.0
        self._ack = 0
        self._spans: list[Span] = []
        self._stands = ""
        self._durable: dict[str, int] = {}
        self._heard = Heard()
        self._cloud = (0, b"")
        self._given: dict[int, bytes] = {}
        self._declared = 0
        self._mean = 0

    @property
    def epoch(self) -> str:
        return self._span.epoch if self._spans else self._history.epoch

    @property
    def is_apart(self) -> bool:
        return self._span.apart

    @property
    def _span(self) -> Span:
        found = (span for span in self._spans if (span.epoch == self._stands if self._stands else not span.done))
        return next(found, self._spans[-1])

    @property
    def _base(self) -> int:
        """Number of the segment before batch 1 of what goes now."""
        return self._span.first - 1

    @property
    def _end(self) -> int:
        """Number of the last segment of what goes now."""
        last = self._span.last
        return self._history.sealed_head() if last is None else last

    def names(self) -> list[str]:
        return [span.epoch for span in self._spans]

    def stand(self, epoch: str) -> None:
        self._stands = epoch

    async def kept_from(self) -> int:
        return max(1, min(await self._history.oldest(), self._end + 1) - self._base)

    async def gone(self) -> int:
        return min(await self.kept_from() - 1, self._had(self._span))

    async def open(self) -> None:
        self._spans = await self._history.spans()
        self._ack = max(self._history.durable, self._base)

    async def look_back(self, known: Mapping[str, Cursor]) -> list[dict[str, Any]]:
        self._durable = {epoch: cursor.durable for epoch, cursor in known.items()}
        had = {span.epoch: self._had(span) for span in self._spans}
        for span in self._spans:
            if span.done and ack_of(known, span.epoch) < had[span.epoch]:
                await self._history.finish(span.epoch, done=False)
        await self.open()
        return self._heard.lost(had, known)

    def _had(self, span: Span) -> int:
        """How many batches of an epoch the cloud certainly had."""
        before = span.first - 1
        durable = max(0, self._history.durable - before)
        return durable if span.last is None else span.last - before if span.done else min(durable, span.last - before)

    async def newest(self) -> int:
        return self._end - self._base

    async def part(self, cursor: Cursor, common: int) -> None:
        span = self._span
        kept = self._base + common
        name = await self._history.part(span.epoch, kept)
        await self.open()
        if self._note is not None and common < cursor.ack:
            cloud = {"stream": HISTORY, "epoch": span.epoch, "ack": cursor.ack, "chain": cursor.chain.hex()}
            await self._note(FORKED, {"cloud": cloud, "common": {"batch": common, "segment": kept}, "epoch": name})

    async def batch(self, n: int) -> Batch | None:
        return next(iter(await self._from(n, 1)), None)

    async def batches(self, n: int, most_bytes: int) -> list[Batch]:
        """Neighbours that fit together, as far as they are known to; how many that will be, the last ones tell."""
        likely = most_bytes // self._mean if self._mean else 1
        found = await self._from(n, max(1, min(likely, MAX_BATCHES)))
        taken, size = [], 0
        for batch in found:
            size += len(batch.body)
            if taken and size > most_bytes:
                break
            taken.append(batch)
        if taken and taken[0].through == n:
            self._mean = max(1, sum(len(batch.body) for batch in found) // len(found))
        return taken

    async def lag(self) -> Lag:
        waiting = self.waiting()
        found = await self._history.sealed_after(self._ack, 2) if waiting else []
        if not found:
            return Lag()
        size = sum(len(segment.body) for segment in found) / len(found) * waiting
        return Lag(bytes=round(size), oldest_ms=found[0].t0_ms)

    async def agrees(self, n: int, chain: bytes) -> bool:
        """A segment that is deleted cannot be compared; the cloud still checks that the next one follows it."""
        self._cloud = n, chain
        if n == 0:
            return chain == stream_genesis(self._history.gateway, HISTORY, self._span.epoch)
        if self._base + n > self._end:
            return False
        return chain == UNKNOWN_CHAIN or await self._history.chain_at(self._base + n) in (None, chain)

    async def acked(self, ack: int, durable: int) -> None:
        """Deletes now and then: each time is a search through the segments and a write to the card."""
        span = self._span
        self._ack = self._base + ack
        if ack in self._given:
            self._cloud = ack, self._given[ack]
        self._durable[span.epoch], self._heard.acks[span.epoch] = durable, ack
        if mono_s() >= self._next_settling_s:
            self._next_settling_s = mono_s() + SETTLE_EVERY_S
            await self._history.delete_through(self._durable_through())
        if span.last is not None and self._ack >= span.last and not span.apart:
            await self._history.finish(span.epoch)
            await self.open()

    def waiting(self) -> int:
        return max(0, self._history.sealed_head() - self._ack)

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._history.subscribe(lambda _: wake())

    def _durable_through(self) -> int:
        """The newest segment up to which the cloud calls all of them durable."""
        for span in self._spans:
            durable = span.first - 1 + self._durable.get(span.epoch, 0)
            if span.last is None or durable < span.last:
                return durable
        raise AssertionError("the newest epoch has no end")

    async def _from(self, n: int, count: int) -> list[Batch]:
        found = await self._neighbours(n, count)
        self._given = {batch.through: batch.chain for batch in found}
        return found

    async def _neighbours(self, n: int, count: int) -> list[Batch]:
        """Up to `count`, or the gap that is in their place."""
        base, end = self._base, self._end
        if base + n > end:
            return []
        found = await self._history.sealed_after(base + n - 1, min(count, end - base - n + 1))
        if not found or found[0].n != base + n:
            last = found[0].n - 1 if found else end
            return [await self._gap(n, min(last, end) - base)]
        found = [segment for at, segment in enumerate(found) if segment.n == base + n + at]
        return [Batch(n=one.n - base, chain=one.chain, body=one.body, count=one.count) for one in found]

    async def _gap(self, first: int, last: int) -> Batch:
        """In place of batches that are not kept any more: it says so, and the stream goes on behind it.

        They went because the cloud had called them durable, or because there was no room for them.
        """
        base = self._base
        at, chain = self._cloud
        before = chain if at == first - 1 else await self._history.chain_at(base + first - 1)
        after = await self._history.chain_at(base + last) or UNKNOWN_CHAIN
        why = await self._history.why_gone(base + last)
        gap = Gap(first=first, last=last, before=before or UNKNOWN_CHAIN, after=after, why=why)
        if self._note is not None and base + last > self._declared:
            fields = {"stream": HISTORY, "epoch": self.epoch, "first": first, "last": last, "reason": gap.why}
            await self._note(GAP, fields)
            self._declared = base + last
        return Batch(n=first, last=last, chain=gap.after, body=compress(pack_gap(gap)))
