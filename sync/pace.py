"""Who of the uplink's senders may send now: the journal at once, bulk when there is room. One for all of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import payload
from aiohttp.abc import AbstractStreamWriter

from ..words import mono_s
from .pacing import FIRST_LOWEST, HEAD_BYTES, HIGHEST, LOWEST, Cap, LinkRate, Share, batch_bytes

_PIECES = 8
_PIECE, _LARGEST_PIECE = 2 * 1024, 64 * 1024
_UNPACED_BYTES_S = 1_000_000
_HASTE = 1.25
_HOLD_S = 2.0
_MOST_RETRY_MS = 60_000


class Pace:
    """The one link that all senders share.

    Args:
        cap: bytes a second that may be used now; None: no cap. Asked each time, because it may hold for some hours.
        clock: monotonic seconds.

    Attributes:
        rate: of the link, as measured by whoever sends.
    """

    def __init__(self, cap: Callable[[], float | None] = lambda: None, clock: Callable[[], float] = mono_s) -> None:
        self.rate = LinkRate()
        self._cap_of, self._clock = cap, clock
        self._cap = Cap(clock())
        self._share = Share()
        self._journal_sends, self._urgent = False, 0
        self._credit: int | None = None
        self._not_before_s = float("-inf")
        self._news = asyncio.Event()

    # --- the journal ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The journal looks what it has to send: bulk waits until it knows."""
        self._journal_sends = True

    async def first(self, size: int) -> None:
        """Before a request of the journal: from now on bulk waits. Bytes that a cap allows go at once."""
        self._journal_sends = True
        await self._allowed(size + HEAD_BYTES, urgent=True)

    def sent(self, size: int) -> None:
        """A request of the journal was answered: a part of it was earned by bulk."""
        self._share.journal_sent(size + HEAD_BYTES)
        self._tell()

    def rest(self) -> None:
        """The journal has nothing to send, or cannot."""
        self._journal_sends = False
        self._tell()

    @contextlib.contextmanager
    def urgent(self) -> Iterator[None]:
        """Something small that bulk waits for, beside the journal: the snapshot of open alarms."""
        self._urgent += 1
        try:
            yield
        finally:
            self._urgent -= 1
            self._tell()

    # --- bulk ----------------------------------------------------------------------------------------------------

    async def turn(self, size: int) -> None:
        """Before a request of bulk with `size` bytes: until what is urgent has gone or bulk has earned them, the cap
        allows them, and the cloud wants more."""
        while not (self._is_quiet or self._share.spend(size)):
            self._news.clear()
            await self._news.wait()
        await self._allowed(size + HEAD_BYTES)
        if (early_s := self._not_before_s - self._clock()) > 0:
            await asyncio.sleep(early_s)

    async def hold(self, most_s: float) -> None:
        """In the middle of a request of bulk: until what is urgent has gone, for a bounded time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(most_s):
                while not self._is_quiet:
                    self._news.clear()
                    await self._news.wait()

    def told(self, credit_bytes: Any, retry_ms: Any) -> None:
        """What the cloud says of the next request of bulk: how large it may be, and when it may come."""
        self._credit = credit_bytes if type(credit_bytes) is int and credit_bytes > 0 else None
        if type(retry_ms) is int and 0 < retry_ms <= _MOST_RETRY_MS:
            self._not_before_s = self._clock() + retry_ms / 1000

    def body(self, data: bytes, content_type: str) -> PacedBody:
        """A request's body that goes in pieces, so that the journal passes it by when it is half sent."""
        return PacedBody(data, self, content_type)

    # --- both ----------------------------------------------------------------------------------------------------

    @property
    def bulk_bytes(self) -> int:
        """How large a request of bulk may be now."""
        return min(batch_bytes(self._usable(), LOWEST), self._credit or HIGHEST)

    @property
    def first_bytes(self) -> int:
        """How large a request of the journal may be now."""
        return batch_bytes(self._usable(), FIRST_LOWEST) if self.rate.bytes_s is not None else LOWEST

    def took(self, size: int, elapsed_s: float) -> None:
        """A request with `size` bytes of body was answered; `elapsed_s` without what it was held up here."""
        self.rate.took(size, elapsed_s, self._clock())

    def piece(self) -> int:
        """How many bytes go at once."""
        return min(max(self.bulk_bytes // _PIECES, _PIECE), _LARGEST_PIECE)

    def pause_s(self, size: int) -> float:
        """How long to wait after a piece of `size` bytes so that no queue grows on the way: a little faster than the
        link was measured, else it would never be found faster. 0 on links where that does not matter."""
        rate = self.rate.bytes_s
        return size / (rate * _HASTE) if rate is not None and rate < _UNPACED_BYTES_S else 0.0

    def _usable(self) -> float | None:
        rate, cap = self.rate.bytes_s, self._cap_of()
        return rate if cap is None else min(rate or cap, cap)

    async def _allowed(self, size: int, *, urgent: bool = False) -> None:
        """Until the cap lets so many bytes through."""
        while True:
            wait_s = self._cap.wait_s(size, self._cap_of(), self._clock(), urgent=urgent)
            if not wait_s:
                return
            await asyncio.sleep(wait_s)

    @property
    def _is_quiet(self) -> bool:
        return not (self._journal_sends or self._urgent)

    def _tell(self) -> None:
        self._news.set()


class PacedBody(payload.Payload):
    """Bytes that are sent in pieces; between them what is urgent passes by. `Pace.turn` was waited for already.

    Attributes:
        held_s: how long the pieces waited for their turn.
    """

    def __init__(self, data: bytes, pace: Pace, content_type: str) -> None:
        super().__init__(data, content_type=content_type)
        self._size = len(data)
        self._pace = pace
        self.held_s = 0.0

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        return self._value.decode(encoding, errors)

    async def write(self, writer: AbstractStreamWriter) -> None:
        data, at = self._value, 0
        while at < len(data):
            piece = data[at : at + self._pace.piece()]
            if at:
                await self._hold()
            await writer.write(piece)
            await writer.drain()
            at += len(piece)
            if at < len(data):
                await asyncio.sleep(self._pace.pause_s(len(piece)))

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:  # noqa: ARG002
        """As `write`: the length that is announced is that of the bytes."""
        await self.write(writer)

    async def _hold(self) -> None:
        since_s = mono_s()
        await self._pace.hold(max(0.0, _HOLD_S - self.held_s))
        self.held_s += mono_s() - since_s
