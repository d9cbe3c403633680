"""Work that may hang in the kernel or in a resolver, each on a daemon thread of its own.

Not on the loop's own pool: that has a handful of threads, everything shares it, and a network whose name server does
not answer fills it for minutes. One channel's trouble must not cost the others, nor the stop of the gateway.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ...words import mono_s

TURN_S = 1.0  # who waits looks up that often

T = TypeVar("T")
Places = list[tuple[Any, Any, int, str, Any]]
"""As `socket.getaddrinfo` answers."""


async def apart(
    work: Callable[[], T],
    limit_s: float = math.inf,
    *,
    turn: Callable[[], None] = lambda: None,
    late: Callable[[T], object] = lambda _: None,
) -> T:
    """`work()` on a thread of its own.

    Args:
        limit_s: then nobody waits any more; the thread is left to itself.
        turn: called at least every `TURN_S` seconds meanwhile.
        late: given what `work` returned when nobody waited any more, on another thread.

    Raises:
        TimeoutError: `limit_s` is over.
        Exception: what `work` raised.
    """
    done = _begin(work, late)
    end_s = mono_s() + limit_s
    try:
        while not done.done():
            turn()
            rest_s = end_s - mono_s()
            if rest_s <= 0:
                raise TimeoutError
            await asyncio.wait([done], timeout=min(rest_s, TURN_S))
        return done.result()
    finally:
        done.cancel()


def _begin(work: Callable[[], T], late: Callable[[T], object] = lambda _: None) -> asyncio.Future[T]:
    """Its result to come."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[T] = loop.create_future()

    def succeed(value: T) -> None:
        if done.done():
            threading.Thread(target=late, args=(value,), daemon=True).start()
        else:
            done.set_result(value)

    def fail(error: BaseException) -> None:
        if not done.done():
            done.set_exception(error)

    def run() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is gone
            try:
                value = work()
            except BaseException as error:
                loop.call_soon_threadsafe(fail, error)
            else:
                loop.call_soon_threadsafe(succeed, value)

    threading.Thread(target=run, name="apart", daemon=True).start()
    return done


class Names:
    """Looks up names of hosts. Who asks for one that is being looked up waits for the same answer, so that a name
    server which does not answer holds one thread for each name and no more."""

    def __init__(self) -> None:
        self._asked: dict[tuple[str, int, int, int], asyncio.Future[Places]] = {}

    async def find(self, host: str, port: int, *, family: int = 0, flags: int = 0) -> Places:
        """The addresses of a host. Takes as long as the system's resolver does. Raises OSError, UnicodeError."""
        name = host, port, family, flags
        asked = self._asked.get(name)
        if asked is None:
            asked = self._asked[name] = _begin(
                lambda: socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, flags=flags)
            )
            asked.add_done_callback(lambda _: self._asked.pop(name, None))
        return await asyncio.shield(asked)
