"""Who of the uplink's senders goes first. The journal before everything; of bulk: evidence of open cases, then history,
then other evidence."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from typing import Protocol

MOST_WAIT_S = 60.0
"""Bulk that has to wait for other bulk sends one request in this time all the same: nothing stands still for ever."""


class Pace(Protocol):
    """The link that all senders share, as bulk asks it."""

    @property
    def bulk_bytes(self) -> int:
        """How large a request of bulk may be now."""
        ...

    async def turn(self, size: int) -> None:
        """Before `size` bytes of bulk are sent: until the journal has nothing on its way."""
        ...


class Rank(enum.IntEnum):
    """Kinds of bulk, the first one first."""

    OPEN_CASES = 1
    HISTORY = 2
    CLOSED_CASES = 3


class Turns:
    """Bulk that comes later waits while bulk that comes earlier has something to send.

    Args:
        most_s: nobody waits longer than this for one request.
    """

    def __init__(self, most_s: float = MOST_WAIT_S) -> None:
        self._most_s = most_s
        self._busy: set[Rank] = set()
        self._news = asyncio.Event()

    def begin(self, rank: Rank) -> None:
        """There is something of this rank to send."""
        self._busy.add(rank)

    def end(self, rank: Rank) -> None:
        """There is nothing any more, or it cannot be sent."""
        if rank in self._busy:
            self._busy.discard(rank)
            self._news.set()

    async def turn(self, rank: Rank) -> None:
        """Before a request: until nothing that comes earlier is left."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._most_s):
                while any(other < rank for other in self._busy):
                    self._news.clear()
                    await self._news.wait()
