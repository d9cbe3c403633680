"""Whose request is worked on: few at a time, journals first, every gateway in its turn, never more than memory allows.

A request waits twice. Its body is read when there is room for it (`room`): how long that takes is the matter of its
link, so many are read at a time. Then it is unpacked and stored in its turn (`turn`): one of each gateway and kind at a
time, gateways one after the other, however much one of them sends. Whoever cannot be served soon is told when to come
back (`busy`, 429 with Retry-After) instead of waiting with an open connection.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, OrderedDict, deque
from contextlib import AbstractAsyncContextManager

from ..errors import RefusedError

AT_ONCE = 64
ROOM_BYTES = 256 << 20
MOST_OF_ONE = 8
"""Requests of one gateway that are read or wait; a gateway needs one for each of its streams."""
MOST_WAITING = 4_000
PATIENCE_S = 20.0
_URGENT_IN_A_ROW = 15
_BUSY = 4
_LONGEST_WAIT_S = 60


class BusyError(RefusedError):
    """Not now. `retry_s`: after which it may be tried again, spread by chance so that not all come at once."""

    def __init__(self, message: str, retry_s: float) -> None:
        super().__init__("busy", message, hint="send it again later", retry_s=retry_s)


class Turns:
    """The queue before the store.

    Args:
        at_once: requests in work.
        room_bytes: of bodies that are read, wait or are in work.
        patience_s: longest wait for a turn.
    """

    def __init__(self, at_once: int = AT_ONCE, room_bytes: int = ROOM_BYTES, patience_s: float = PATIENCE_S) -> None:
        self._free, self._room, self._room_bytes, self._patience_s = at_once, room_bytes, room_bytes, patience_s
        self._of_one: Counter[str] = Counter()
        self._urgent, self._bulk = _Ring(), _Ring()
        self._urgent_in_a_row = 0
        self._done = 0
        self._rate_hz, self._rated_s = 0.0, time.monotonic()

    @property
    def waiting(self) -> int:
        """Requests whose turn has not come."""
        return len(self._urgent) + len(self._bulk)

    @property
    def busy(self) -> bool:
        """Several requests are read, wait or are in work."""
        return sum(self._of_one.values()) >= _BUSY

    def room(self, gateway: str, size: int) -> AbstractAsyncContextManager[None]:
        """Room for a body of up to `size` bytes. To enter it raises BusyError."""
        return _Room(self, gateway, size)

    def turn(self, gateway: str, *, urgent: bool) -> AbstractAsyncContextManager[None]:
        """Until it is entered no other request of this gateway and kind is in work. To enter it raises BusyError."""
        return _Turn(self, self._urgent if urgent else self._bulk, gateway)

    def take_room(self, gateway: str, size: int) -> None:
        """See `room`."""
        if self._of_one[gateway] >= MOST_OF_ONE:
            raise BusyError(f"{MOST_OF_ONE} requests of this gateway are under way", self._spread(1.0))
        if size > self._room or self.waiting >= MOST_WAITING:
            raise BusyError("too much is under way", self._spread(self.wait_s()))
        self._of_one[gateway] += 1
        self._room -= size

    def leave_room(self, gateway: str, size: int) -> None:
        """See `room`."""
        self._room += size
        self._of_one[gateway] -= 1
        if not self._of_one[gateway]:
            del self._of_one[gateway]

    async def begin(self, ring: _Ring, gateway: str) -> None:
        """See `turn`."""
        if self._free > 0 and not self.waiting and ring.begin(gateway):
            self._free -= 1
        else:
            await self._queued(ring, gateway)

    def end(self, ring: _Ring, gateway: str) -> None:
        """See `turn`."""
        ring.end(gateway)
        self._free += 1
        self._count()
        self._call()

    def wait_s(self) -> float:
        """How long a request that comes now waits for its turn, roughly."""
        return self.waiting / self._rate_hz if self._rate_hz else float(self.waiting > 0)

    def credit(self, gateway: str, most: int) -> tuple[int, int]:
        """What a gateway may send next, in bytes, up to `most`, and after how many milliseconds: for its bulk."""
        share = self._room // (2 * max(1, len(self._of_one) - (gateway in self._of_one) + 1))
        busy = self.waiting > AT_ONCE or self._room < self._room_bytes // 4
        return max(1, min(most, share)), round(min(self.wait_s(), _LONGEST_WAIT_S) * 1000) if busy else 0

    async def _queued(self, ring: _Ring, gateway: str) -> None:
        """Wait until `_call` gives the turn."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        ring.add(gateway, future)
        self._call()
        try:
            async with asyncio.timeout(self._patience_s):
                await future
        except (TimeoutError, asyncio.CancelledError) as error:
            if not ring.withdraw(gateway, future):  # called in the same moment
                ring.end(gateway)
                self._free += 1
            self._call()
            if isinstance(error, TimeoutError):
                raise BusyError("others wait as well", self._spread(self.wait_s())) from error
            raise

    def _call(self) -> None:
        """Give free turns to those whose turn it is; bulk gets one of sixteen whatever waits before it."""
        while self._free > 0:
            bulk_first = self._urgent_in_a_row >= _URGENT_IN_A_ROW
            rings = (self._bulk, self._urgent) if bulk_first else (self._urgent, self._bulk)
            ring = next((ring for ring in rings if ring.call()), None)
            if ring is None:
                return
            self._urgent_in_a_row = self._urgent_in_a_row + 1 if ring is self._urgent else 0
            self._free -= 1

    def _count(self) -> None:
        self._done += 1
        spent_s = time.monotonic() - self._rated_s
        if spent_s >= 1.0:
            self._rate_hz = self._done / spent_s
            self._done, self._rated_s = 0, time.monotonic()

    def _spread(self, wait_s: float) -> float:
        return min(_LONGEST_WAIT_S, max(1.0, wait_s) * (0.5 + random.random()))  # noqa: S311 - spreads load


class _Room:
    """A generator in its place costs as much as the look at a signature's fields."""

    __slots__ = ("_gateway", "_size", "_turns")

    def __init__(self, turns: Turns, gateway: str, size: int) -> None:
        self._turns, self._gateway, self._size = turns, gateway, size

    async def __aenter__(self) -> None:
        self._turns.take_room(self._gateway, self._size)

    async def __aexit__(self, *_: object) -> None:
        self._turns.leave_room(self._gateway, self._size)


class _Turn:
    """The same for a turn."""

    __slots__ = ("_gateway", "_ring", "_turns")

    def __init__(self, turns: Turns, ring: _Ring, gateway: str) -> None:
        self._turns, self._ring, self._gateway = turns, ring, gateway

    async def __aenter__(self) -> None:
        await self._turns.begin(self._ring, self._gateway)

    async def __aexit__(self, *_: object) -> None:
        self._turns.end(self._ring, self._gateway)


class _Ring:
    """Gateways that wait, in turn: each has a queue, and at most one request in work."""

    def __init__(self) -> None:
        self._ready: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._held: dict[str, deque[asyncio.Future[None]]] = {}  # of gateways that have one in work
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def begin(self, gateway: str) -> bool:
        """Work without waiting; False when one of this gateway is in work."""
        if gateway in self._held:
            return False
        self._held[gateway] = self._ready.pop(gateway, None) or deque()
        return True

    def add(self, gateway: str, future: asyncio.Future[None]) -> None:
        """Wait."""
        queue = self._held.get(gateway)
        (queue if queue is not None else self._ready.setdefault(gateway, deque())).append(future)
        self._count += 1

    def call(self) -> bool:
        """Begin the next one; False when nobody waits who may."""
        if not self._ready:
            return False
        gateway, queue = self._ready.popitem(last=False)
        self._held[gateway] = queue
        self._count -= 1
        future = queue.popleft()
        if not future.done():  # given up in this very moment: whoever waited gives the turn back
            future.set_result(None)
        return True

    def end(self, gateway: str) -> None:
        """The one in work is done; the next one of this gateway goes behind all the others."""
        if queue := self._held.pop(gateway):
            self._ready[gateway] = queue

    def withdraw(self, gateway: str, future: asyncio.Future[None]) -> bool:
        """Wait no longer; False when it was called already."""
        for queues in (self._ready, self._held):
            queue = queues.get(gateway)
            if queue is not None and future in queue:
                queue.remove(future)
                self._count -= 1
                if not queue and queues is self._ready:
                    del self._ready[gateway]
                return True
        return False
