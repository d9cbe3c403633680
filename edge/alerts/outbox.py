"""The outbox: what must be delivered, born in the transaction of its record, tried until it is accepted.

Rows go PENDING -> SENDING -> ACCEPTED -> DELIVERED, or RETRY and DEAD. What was being sent when the process died is
sent again with the same key and marked: at least once, at most one duplicate per crash and row. A message that nobody
took in its time goes on the recipient's next way as well; nothing is given up silently. docs/delivery.md has the rules.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...errors import PermanentError
from ...sync.journal import Draft, Journal, Record
from ...words import mono_s, now
from . import outbox_queries as queries
from .digest import Batch, gather
from .endings import LATE, Attempt, Onward, Ways, arrived, dead, facts_of, proven, refused
from .lanes import Holds, Lane, one_at_a_time
from .message import Compose
from .outbox_table import CHANGING
from .port import Channel, Notice, Outcome, Sent
from .proofs import Proof, Proofs
from .rows import Row, Settings

_log = logging.getLogger(__name__)

_DETAIL_LIMIT = 200
_LATER_S = 5.0
_TURN_S = 5.0
_LEAST_S = 0.05
_MOST_REPLIES = 100

Answer = Callable[[str, str, int | None], Awaitable[None]]
"""`answer(phone, text, sent_ms)`: a person wrote back. Refusals are its own matter."""


@dataclass(slots=True)
class ChannelCounts:
    """What pages show of one channel's deliveries, since the start. `later`: times that it had no room."""

    pending: int = 0
    failing: int = 0
    accepted: int = 0
    failed: int = 0
    refused: int = 0
    later: int = 0


@dataclass(slots=True)
class OutboxHealth:
    """What pages show. `beat_s` is fresh while the loop turns.

    Attributes:
        pending: rows that wait or are being sent.
        failing: those of them that are past their deadline.
        unreached: persons for whom a message failed on every way that they have.
        channels: by id.
    """

    pending: int = 0
    failing: int = 0
    beat_s: float = field(default_factory=mono_s)
    unreached: tuple[str, ...] = ()
    channels: dict[str, ChannelCounts] = field(default_factory=dict[str, ChannelCounts])


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the outbox works with.

    Attributes:
        journal: holds the rows.
        channels: by id, as they are now: the owner may add and remove some; what waits for one that is gone goes on.
        compose: the notice of a message, with today's names.
        ways: a person's channels for a message, the best first.
        health: counters for pages.
        settings: times and numbers.
        answer: takes what persons write back; None: nobody does.
    """

    journal: Journal
    channels: Mapping[str, Channel]
    compose: Compose
    ways: Ways
    health: OutboxHealth
    settings: Settings = field(default_factory=Settings)
    answer: Answer | None = None


class Outbox:
    """Delivers every open row on its channel. `Events` of every channel."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._journal = parts.journal
        self._settings = parts.settings
        self._rows: dict[str, Row] = {}
        self._sending: dict[str, Row] = {}
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._holds = Holds()
        self._proofs = Proofs()
        self._replies: asyncio.Queue[tuple[str, str, int | None]] = asyncio.Queue(_MOST_REPLIES)
        self._loaded = 0
        self._has_news = True
        self._due_s = math.inf
        self._wake = asyncio.Event()
        self._journal.subscribe(self._committed)

    def use(self, settings: Settings) -> None:
        """Deliver by these from now on, also what waits already."""
        self._settings = settings
        self._wake.set()

    async def run(self) -> None:
        """Deliver for ever. Ends only with the store's error."""
        await self._journal.write(queries.end_interrupted)
        for receipt, told in (await self._journal.write(queries.unproven_rows)).items():
            until_s = min(at_s for _, at_s in told) + self._settings.proof_s
            self._proofs.expect(receipt, [row for row, _ in told], until_s)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_replies(), name="replies")
            while True:
                self._parts.health.beat_s = mono_s()
                self._wake.clear()
                await self._catch_up()
                await self._settle()
                self._start_due(group)
                self._count()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._wake.wait()

    def report(self, receipt: str, delivered: bool, detail: str) -> None:
        """The proof of an ACCEPTED message, or that there will be none."""
        self._proofs.report(receipt, delivered, detail, mono_s())
        self._wake.set()

    def reply(self, phone: str, text: str, sent_ms: int | None = None) -> None:
        """A person answered."""
        try:
            self._replies.put_nowait((phone, text, sent_ms))
        except asyncio.QueueFull:
            _log.error("too many replies at once: one was dropped")

    # --- what there is to do ---

    def _committed(self, records: list[Record]) -> None:
        if any(record.kind in CHANGING or record.body.get("notify") for record in records):
            self._has_news = True
            self._wake.set()

    async def _catch_up(self) -> None:
        """Rows that were born, and what became of the subjects of those that wait: the table knows."""
        if not self._has_news:
            return
        self._has_news = False
        after = self._loaded
        rows, marks = await self._journal.write(lambda c: (queries.new_rows(c, after), queries.marks(c)))
        for row in rows:
            self._loaded = max(self._loaded, row.seq)
            row.ways = max(1, *(len({row.channel, *self._ways(row, person)}) for person in row.persons), 1)
            self._rows.setdefault(row.key, row)
        for mark in marks:
            if (row := self._rows.get(mark.key)) is not None:
                row.over, row.closed, row.closed_s = mark.over, mark.closed, mark.closed_s
        for row in self._rows.values():
            if row.is_needless:
                row.over = row.over or "closed"

    def _ways(self, row: Row, person: str) -> Sequence[str]:
        return self._parts.ways(facts_of(row), person)

    def _count(self) -> None:
        health = self._parts.health
        health.pending = len(self._rows)
        late = [row for row in self._rows.values() if row.failing and row.must_arrive]
        health.failing = len(late)
        health.unreached = tuple(sorted({person for row in late for person in row.unreached}))
        pending, failing = (Counter(row.channel for row in rows) for rows in (self._rows.values(), late))
        for name in {*health.channels, *pending}:
            counts = self._counts(name)
            counts.pending, counts.failing = pending[name], failing[name]

    def _counts(self, channel: str) -> ChannelCounts:
        return self._parts.health.channels.setdefault(channel, ChannelCounts())

    # --- ends and deadlines ---

    async def _settle(self) -> None:
        """Record which rows ended without a delivery, which are late, and where those go next."""
        now_s = mono_s()
        due = [row for row in self._rows.values() if self._is_due(row, now_s)]
        proofs = self._proofs.settled(now_s)
        if not due and not proofs:
            return
        onward = await self._onward([*due, *(proof.row for proof in proofs)])
        alive = await self._journal.write(lambda c: queries.still_open(c, [proof.row.key for proof in proofs]))
        for row in sorted(due, key=lambda row: row.seq):
            if row.key in self._rows:  # else it was accepted meanwhile
                self._judge(row, onward, now_s)
        for proof in proofs:
            self._prove(proof, onward, proof.row.key in alive)
        if onward.drafts:
            await self._append(onward.drafts)

    def _is_due(self, row: Row, now_s: float) -> bool:
        if row.key not in self._sending and self._why_over(row, now_s):
            return True
        return row.must_arrive and (self._is_late(row, now_s) or self._falls(row, now_s))

    def _is_late(self, row: Row, now_s: float) -> bool:
        return not row.failing and now_s >= row.late_s(self._settings)

    def _falls(self, row: Row, now_s: float) -> bool:
        return not row.fell and not row.no_way and row.ways > 1 and now_s >= row.fall_s(self._settings)

    def _why_over(self, row: Row, now_s: float) -> str:
        if row.over:
            return row.over
        if row.channel not in self._parts.channels:
            return "no_channel" if row.channel else "no_way"
        return "old" if now_s >= row.end_s(self._settings) else ""

    def _judge(self, row: Row, onward: Onward, now_s: float) -> None:
        why = "" if row.key in self._sending else self._why_over(row, now_s)
        error = row.error or LATE
        if why:
            del self._rows[row.key]
            onward.drafts.append(dead(row, why, onward.now))
            if why in ("no_channel", "no_way") and row.must_arrive:
                onward.lose(row, error)
            return
        if self._falls(row, now_s) or (self._is_late(row, now_s) and not row.fell):
            onward.fall(row, error)
        if self._is_late(row, now_s):
            self._note_lost(row)
            onward.fail(row, error)

    def _prove(self, proof: Proof, onward: Onward, is_open: bool) -> None:
        row = proof.row
        if proof.delivered:
            onward.drafts.append(proven(row, proof.detail, onward.now))
        elif is_open and row.must_arrive:
            _log.warning("%s: %s: no proof of a message: %s", row.channel, row.person, proof.detail)
            onward.doubt(row, proof.detail)

    async def _onward(self, rows: Iterable[Row]) -> Onward:
        wanted = {(row.message, person) for row in rows for person in row.persons}
        used = await self._journal.write(lambda c: {pair: queries.ways_of(c, *pair) for pair in wanted})
        return Onward(used=used, ways=self._parts.ways, live=self._parts.channels, now=now())

    async def _append(self, drafts: list[Draft]) -> None:
        await self._journal.append(drafts)
        self._has_news = True
        self._wake.set()

    def _note_lost(self, row: Row) -> None:
        lane = self._lane(row)
        if not lane.lost:
            lane.lost = True
            _log.error("%s: %s was not told of %s: %s", row.channel, row.person, row.about, row.error or LATE)

    # --- sending ---

    def _lane(self, row: Row) -> Lane:
        return self._lanes.setdefault(row.lane, Lane())

    def _start_due(self, group: asyncio.TaskGroup) -> None:
        waiting: dict[tuple[str, str], list[Row]] = {}
        for row in self._rows.values():
            if row.key not in self._sending and not row.over and row.channel in self._parts.channels:
                waiting.setdefault(row.lane, []).append(row)
        self._lanes = {name: lane for name, lane in self._lanes.items() if name in waiting or lane.sending}
        self._due_s, now_s = math.inf, mono_s()
        for rows in waiting.values():
            lane = self._lane(rows[0])
            for row in rows:
                row.not_before_s = max(row.not_before_s, self._holds.until_s(row))
            held = gather(rows, now_s, self._settings)
            for batch in lane.choose(one_at_a_time(held.ready, self._sending.values()), now_s):
                lane.sending += 1
                self._sending.update({row.key: row for row in batch.rows})
                group.create_task(self._deliver(batch, lane), name=f"deliver-{'-'.join(batch.first.lane)}")
            lane_s = lane.due_s if lane.failures and not lane.sending else math.inf
            self._due_s = min(self._due_s, held.due_s, lane_s)

    def _pause_s(self) -> float:
        """Until something is due by itself."""
        times = [self._due_s, self._proofs.next_s()]
        for row in self._rows.values():
            times.append(row.end_s(self._settings))
            if row.must_arrive:
                times += [] if row.failing else [row.late_s(self._settings)]
                times += [] if row.fell or row.no_way or row.ways < 2 else [row.fall_s(self._settings)]
        return min(_TURN_S, max(_LEAST_S, min(times) - mono_s()))

    async def _deliver(self, batch: Batch, lane: Lane) -> None:
        try:
            attempt = await self._attempt(batch)
            match attempt.sent.outcome:
                case Outcome.ACCEPTED | Outcome.DELIVERED:
                    await self._arrived(batch, attempt, lane)
                case Outcome.LATER:
                    await self._put_off(batch, attempt)
                case Outcome.FAILED:
                    await self._failed(batch, attempt, lane)
                case Outcome.REFUSED:
                    await self._refused(batch, attempt)
        finally:
            lane.sending -= 1
            for row in batch.rows:
                self._sending.pop(row.key, None)
            self._wake.set()

    async def _attempt(self, batch: Batch) -> Attempt:
        """One attempt, leased before. A channel that raises has failed this message alone."""
        at, channel = now(), self._parts.channels.get(batch.first.channel)
        combined = frozenset(row.key for row in batch.rows if row.closed is not None)  # as the notice says it
        sent = Sent(outcome=Outcome.LATER, detail="the channel is gone")
        notice: Notice | None = None
        try:
            notice = self._parts.compose(batch)
        except Exception as error:
            sent = self._defect(batch, error, uncertain=False)
        await self._journal.write(lambda c: queries.lease(c, batch.rows, batch.key, at))
        if channel is not None and notice is not None:
            sent = await self._send(batch, channel, notice)
        return Attempt(batch=batch.key, at=at, sent=sent, combined=combined)

    async def _send(self, batch: Batch, channel: Channel, notice: Notice) -> Sent:
        try:
            async with asyncio.timeout(self._settings.send_limit_s):
                return await channel.send(notice)
        except TimeoutError:
            return Sent(outcome=Outcome.FAILED, detail="no answer of the channel", uncertain=True)
        except Exception as error:
            return self._defect(batch, error, uncertain=True)

    def _defect(self, batch: Batch, error: Exception, *, uncertain: bool) -> Sent:
        if not batch.attempts:
            _log.error("%s: defect", batch.first.channel, exc_info=error)
        detail = f"{type(error).__name__}: {error}"[:_DETAIL_LIMIT]
        return Sent(outcome=Outcome.FAILED, detail=detail, uncertain=uncertain)

    async def _arrived(self, batch: Batch, attempt: Attempt, lane: Lane) -> None:
        first, sent = batch.first, attempt.sent
        if lane.reached():
            _log.warning("%s: %s is reached again", first.channel, first.person)
        for row in batch.rows:
            self._rows.pop(row.key, None)
        for row in self._rows.values():
            row.unreached = tuple(person for person in row.unreached if person not in first.persons)
        self._counts(first.channel).accepted += len(batch.rows)
        instant = now()
        await self._append([arrived(row, attempt, instant) for row in batch.rows])
        if sent.receipt and sent.outcome is Outcome.ACCEPTED:
            self._proofs.expect(sent.receipt, batch.rows, mono_s() + self._settings.proof_s)

    async def _put_off(self, batch: Batch, attempt: Attempt) -> None:
        """There was no room: no attempt."""
        sent = attempt.sent
        await self._note(batch, sent)
        until_s = mono_s() + (sent.retry_s or _LATER_S)
        if not sent.receiver_only:
            self._holds.hold(min(batch.rows, key=lambda row: row.priority), until_s)
        for row in batch.rows:
            row.later, row.not_before_s, row.error = True, until_s, sent.detail or row.error
        self._counts(batch.first.channel).later += 1

    async def _failed(self, batch: Batch, attempt: Attempt, lane: Lane) -> None:
        sent = attempt.sent
        lane.failed(mono_s(), self._settings, sent.retry_s)
        self._counts(batch.first.channel).failed += 1
        await self._note(batch, sent)
        for row in batch.rows:
            row.attempts, row.error, row.later = row.attempts + 1, sent.detail or "not accepted", False
            row.resent = row.resent or sent.uncertain
            row.batch = batch.key if sent.uncertain and batch.is_digest else ""

    async def _refused(self, batch: Batch, attempt: Attempt) -> None:
        self._counts(batch.first.channel).refused += 1
        onward = await self._onward(batch.rows)
        for row in batch.rows:
            self._rows.pop(row.key, None)
            onward.drafts.append(refused(row, attempt, onward.now))
            if row.must_arrive:
                onward.lose(row, attempt.sent.detail)
        await self._append(onward.drafts)

    async def _note(self, batch: Batch, sent: Sent) -> None:
        rows, outcome, detail = batch.rows, sent.outcome.value, sent.detail
        await self._journal.write(lambda c: queries.note(c, rows, outcome, detail, sent.uncertain))

    # --- replies ---

    async def _take_replies(self) -> None:
        while True:
            phone, text, sent_ms = await self._replies.get()
            if self._parts.answer is None:
                continue
            try:
                await self._parts.answer(phone, text, sent_ms)
            except PermanentError:
                raise  # the store's
            except Exception:
                _log.exception("a reply was not understood: defect")
