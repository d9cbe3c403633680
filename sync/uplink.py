"""The edge's side of sync: sends what the cloud does not have yet, for ever, and never twice to any effect.

The journal goes first, on its own connection; history waits while the journal is being sent, also in the middle of a
request (`pace.py`). One request per stream is in flight, as large as half a second of the measured link carries. After
any error the cursor is forgotten and the cloud is asked where it is. Nothing is deleted here that the cloud has not
called durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type

from ..errors import PermanentError, RefusedError, SitewardenError, TransientError
from ..words import mono_s
from .cloud_client import CloudClient, UplinkOptions
from .epochs import look_for_twins, noting, settle
from .history import History
from .history_outbox import HistoryOutbox
from .journal import Journal
from .link_state import UplinkHealth
from .link_watch import watching
from .outbox import Batch, JournalOutbox, Note, Outbox
from .retrying import LinkError, Patience
from .sqlite import StoreError
from .streams import JOURNAL
from .turns import Rank
from .wire import Cursor

log = logging.getLogger(__name__)

PART_EVERY_S = 600.0
"""A stream whose next batch headquarters refuses as another history goes on under another name, no more often."""
_SEVERAL_UNKNOWN = ("bad_request", "not_found", "too_large")
"""What a cloud answers that does not know several batches in one request."""


async def run_uplink(
    journal: Journal,
    history: History | None,
    key: Ed25519PrivateKey,
    options: UplinkOptions,
    health: UplinkHealth,
    also: Sequence[Callable[[Any], Coroutine[Any, Any, Any]]] = (),
) -> NoReturn:
    """Send for ever; returns only by cancellation.

    Args:
        also: further senders, each a task that gets the client.

    Raises:
        ConfigError: the address or the certificate cannot be used.
        StoreError: the journal's or history's own file failed.
    """
    options.check()
    client = CloudClient(options, key, health)
    note = noting(journal)
    outboxes: list[Outbox] = [JournalOutbox(journal), *([HistoryOutbox(history, note)] if history else [])]
    for outbox in outboxes:
        await outbox.open()
    health.started()
    patience = Patience(options.backoff_max_s)
    client.try_now = patience.look_again
    with watching(patience.look_again):
        async with asyncio.TaskGroup() as group:
            for outbox in outboxes:
                group.create_task(_Stream(outbox, client, patience, note).run(), name=f"uplink {outbox.stream}")
            for sender in also:
                group.create_task(sender(client), name=f"uplink {sender.__qualname__}")
    raise AssertionError("the uplink's tasks never return")


async def run_beside(
    key: Ed25519PrivateKey,
    options: UplinkOptions,
    health: UplinkHealth,
    senders: Sequence[Callable[[Any], Coroutine[Any, Any, Any]]],
) -> NoReturn:
    """Run senders without any stream, for ever: while nothing is recorded there is nothing to send in order.

    Raises:
        ConfigError: the address or the certificate cannot be used.
    """
    options.check()
    client = CloudClient(options, key, health)
    health.started()
    async with asyncio.TaskGroup() as group:
        for sender in senders:
            group.create_task(sender(client), name=f"uplink {sender.__qualname__}")
    raise AssertionError("the uplink's tasks never return")


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, RefusedError) else type(error).__name__


def _hint(error: Exception) -> str:
    return error.hint if isinstance(error, SitewardenError) else ""


class _Stream:
    """One stream's endless drain.

    Args:
        patience: the pauses between tries, of all streams.
    """

    def __init__(self, outbox: Outbox, client: CloudClient, patience: Patience, note: Note) -> None:
        self._outbox, self._client, self._pace, self._patience = outbox, client, client.pace, patience
        self._note, self._epoch = note, ""
        self._forked, self._parted_s = False, -PART_EVERY_S
        self._health = client.health
        self._first = outbox.stream == JOURNAL
        self._several = True
        self._wake = asyncio.Event()
        self._asked = False
        outbox.subscribe(self._notice)
        self._show_waiting()

    async def run(self) -> NoReturn:
        """Tries for ever; see `retrying.Patience` for when."""
        retrying = AsyncRetrying(wait=self._pause, sleep=self._sleep, retry=retry_if_exception_type(LinkError))
        async for attempt in retrying:
            with attempt:
                await self._attempt(attempt.retry_state)
        raise AssertionError("retries never end")

    def _pause(self, state: RetryCallState) -> float:
        self._health.beat_s = mono_s()
        error = state.outcome.exception() if state.outcome else None
        self._asked = isinstance(error, LinkError) and error.retry_s > 0
        return self._patience.pause_s(state, first=self._first)

    async def _sleep(self, seconds: float) -> None:
        await self._patience.pause(seconds, first=self._first, asked=self._asked)

    async def _attempt(self, state: RetryCallState) -> NoReturn:
        """Everything but a store that cannot commit is a fault of the link or of one stream, and is tried again."""
        if self._first:
            self._pace.begin()
        try:
            async with self._client.session() as session:
                await self._drain(session, state)
        except StoreError:
            raise
        except (TransientError, PermanentError, sqlite3.DatabaseError) as error:
            link = error if isinstance(error, LinkError) else LinkError(_reason(error), str(error), hint=_hint(error))
            self._forked = link.reason == "fork"
            self._health.failed(self._outbox.stream, link.reason, str(error), link.hint)
            await self._show_lag()
            raise link from error
        finally:
            self._rest()

    async def _drain(self, session: aiohttp.ClientSession, state: RetryCallState) -> NoReturn:
        cursor = await self._where(session)
        while True:
            self._wake.clear()
            self._health.beat_s = mono_s()
            if self._epoch != self._outbox.epoch:
                cursor = await self._where(session)
            elif batches := await self._outbox.batches(cursor.ack + 1, self._room()):
                cursor = await self._send(session, batches)
            elif not await self._woken():
                cursor = await self._where(session)
            state.attempt_number = 1

    async def _where(self, session: aiohttp.ClientSession) -> Cursor:
        outbox = self._outbox
        reply = await self._client.where(session)

        async def same(epoch: str, n: int) -> bool:
            chain = await self._client.chain_at(session, outbox.stream, epoch, n)
            return chain is not None and await outbox.agrees(n, chain)

        forked = self._forked and mono_s() - self._parted_s >= PART_EVERY_S
        if forked:
            self._forked, self._parted_s = False, mono_s()
        cursor = await settle(outbox, reply, self._client.options.gateway, same, self._note, forked=forked)
        self._epoch = cursor.epoch
        if self._first:
            await look_for_twins(self._health, reply.machines, self._note)
        await self._acked(cursor)
        return cursor

    def _room(self) -> int:
        """How many bytes the next request may have."""
        return self._pace.first_bytes if self._first else self._pace.bulk_bytes if self._several else 1

    async def _send(self, session: aiohttp.ClientSession, batches: Sequence[Batch]) -> Cursor:
        outbox, last = self._outbox, batches[-1]
        await self._turn(sum(len(batch.body) for batch in batches))
        try:
            cursor = await self._client.put(session, outbox.stream, outbox.epoch, batches)
        except LinkError as error:
            if len(batches) == 1 or error.reason not in _SEVERAL_UNKNOWN:
                raise
            self._several = False
            return await self._send(session, batches[:1])
        reached = next((batch for batch in batches if batch.through == cursor.ack), None)
        if cursor.ack < batches[0].through or (reached is not None and cursor.chain != reached.chain):
            raise LinkError("odd_answer", f"the cloud's answer to batch {last.n} does not fit: it names {cursor.ack}")
        size = sum(len(batch.body) for batch in batches if batch.through <= cursor.ack)
        if self._first:
            self._pace.sent(size)
        self._health.sent(outbox.stream, size, sum(batch.count for batch in batches if batch.through <= cursor.ack))
        await self._acked(cursor)
        return cursor

    async def _turn(self, size: int) -> None:
        if self._first:
            await self._pace.first(size)
            return
        self._client.turns.begin(Rank.HISTORY)
        await self._client.turns.turn(Rank.HISTORY)
        await self._pace.turn(size)

    async def _acked(self, cursor: Cursor) -> None:
        await self._outbox.acked(cursor.ack, cursor.durable)
        if self._health.succeeded(self._outbox.stream, cursor.ack, cursor.durable) and self._first:
            self._patience.is_back()
            self._client.back.set()
        self._health.link_bytes_s = self._pace.rate.bytes_s
        self._show_waiting()
        await self._show_lag()

    async def _woken(self) -> bool:
        """True when there is more; False when it is time to show that the gateway is there."""
        self._rest()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._client.options.contact_s):  # wait_for can lose a cancellation (gh-86296)
                return await self._wake.wait()
        return False

    def _rest(self) -> None:
        """Nothing to send, or no link: others need not wait."""
        if self._first:
            self._pace.rest()
        else:
            self._client.turns.end(Rank.HISTORY)

    def _notice(self) -> None:
        self._wake.set()
        self._show_waiting()

    def _show_waiting(self) -> None:
        self._health.waits(self._outbox.stream, self._outbox.waiting())

    async def _show_lag(self) -> None:
        """Bytes and age of what waits, now and then: it is read from the card."""
        if self._health.is_lag_due(self._outbox.stream):
            self._health.lags(self._outbox.stream, await self._outbox.lag())
