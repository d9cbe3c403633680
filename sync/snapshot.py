"""How a gateway stands now, beside the ordered streams: headquarters sees a fire while weeks of records still drain.

A small signed message with the open alarms and the gateway's health, posted at once when an alarm record is committed
and every minute, best effort, on a connection of its own. It proves nothing and replaces nothing: the records come all
the same, and an older snapshot never hides a newer one. It is compressed: hundreds of open alarms pass a narrow link in
under a second, and do not take it from the records.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, Protocol

from .columns import compress
from .journal import Journal, Record, canonical
from .retrying import LinkError
from .sqlite import StoreError
from .wire import snapshot_path

_log = logging.getLogger(__name__)

EVERY_S = 60.0
GATHER_S = 0.2
"""What comes within this time travels together."""
MOST_ALARMS = 300
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 15.0


class Poster(Protocol):
    """What is needed of the uplink's client."""

    back: asyncio.Event

    def session(self) -> AbstractAsyncContextManager[Any]:
        """A connection of its own."""
        ...

    async def post(self, session: Any, path: str, body: bytes, chain: bytes) -> Any:
        """Signed as every request; returns the answer. Raises LinkError."""
        ...


class Snapshots:
    """Sends snapshots of a gateway. `run` is given to the uplink.

    Args:
        alarms: every open alarm as pages show it; called off the records' way.
        health: a few words about the gateway, as JSON.
    """

    def __init__(
        self,
        journal: Journal,
        alarms: Callable[[], Awaitable[list[dict[str, Any]]]],
        health: Callable[[], dict[str, Any]],
    ) -> None:
        self._journal, self._alarms, self._health = journal, alarms, health
        self._news = asyncio.Event()
        journal.subscribe(self._notice)

    async def run(self, client: Poster) -> NoReturn:
        """For ever; what cannot be sent now is sent anew, with what is true then, at once when the link is back."""
        pause_s = _PAUSE_S
        async with client.session() as session:
            while True:
                self._news.clear()
                client.back.clear()
                try:
                    await self._send(client, session)
                except StoreError:
                    raise
                except LinkError as error:
                    await _pause(client, pause_s, error.retry_s)
                    pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
                    continue
                pause_s = _PAUSE_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S):
                        await self._news.wait()
                await asyncio.sleep(GATHER_S)

    async def _send(self, client: Poster, session: Any) -> None:
        epoch, seq = self._place()  # before what is read: the alarms are at least as new
        alarms = sorted(await self._alarms(), key=lambda alarm: (alarm.get("priority", 4), -alarm.get("rev", 0)))
        fields = {
            "epoch": epoch,
            "seq": seq,
            "open": len(alarms),
            "alarms": alarms[:MOST_ALARMS],
            "health": self._health(),
        }
        body = compress(canonical(fields))
        await client.post(session, snapshot_path(self._journal.gateway), body, hashlib.sha256(body).digest())

    def _place(self) -> tuple[str, int]:
        """In memory, the disk's newest record: headquarters knows no other numbers, and takes the epoch for the same
        machine's."""
        mark = self._journal.not_recorded
        if mark is not None and mark.seq:
            return mark.epoch, mark.seq
        return self._journal.epoch, self._journal.head()[0]

    def _notice(self, records: list[Record]) -> None:
        if any(record.kind.startswith("alarm.") for record in records):
            self._news.set()


async def _pause(client: Poster, seconds: float, asked_s: float) -> None:
    """Before the next try: as long as the cloud asked for, or until the link is back."""
    if asked_s:
        await asyncio.sleep(max(seconds, asked_s))
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await client.back.wait()
