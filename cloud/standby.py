"""When what was committed is on a standby too: from how far the standbys are, never from the commit's own word.

A COMMIT that waits for a standby can be cancelled, by an administrator or a timeout: it then says that it is committed,
which it is here alone. So `durable` is judged by positions in the write-ahead log.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from .transactions import UnavailableError

log = logging.getLogger(__name__)

_EVERY_S = 0.005
_PATIENCE_S = 1.0
_NUMBER = re.compile(r"\s*(?:ANY|FIRST)?\s*(\d+)\s*\(", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Byte positions in the write-ahead log. `local`: flushed here. `safe`: flushed by enough standbys; 0: unknown."""

    local: int
    safe: int


def safe_position(names: str, flushed: Sequence[int]) -> int:
    """Up to where enough standbys have flushed.

    Args:
        names: the server's `synchronous_standby_names`.
        flushed: positions of the standbys that count (`sync_state` sync or quorum).
    """
    if not names.strip():
        return 0
    found = _NUMBER.match(names)
    needed = int(found[1]) if found else 1
    return sorted(flushed, reverse=True)[needed - 1] if 0 < needed <= len(flushed) else 0


class Standby:
    """Answers many that ask at the same time with few looks.

    Args:
        look: asks the server; UnavailableError means that nothing is known now.
    """

    def __init__(self, look: Callable[[], Awaitable[Position]]) -> None:
        self._look = look
        self._asking: list[asyncio.Future[bool]] = []
        self._task: asyncio.Task[None] | None = None

    async def passed(self) -> bool:
        """Whether everything that was committed before this call is safe; waits up to a second for it."""
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asking.append(future)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._answer(), name="cloud standby")
        return await future

    async def close(self) -> None:
        """Answer no to those who still ask."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _answer(self) -> None:
        waiting: list[tuple[int, float, asyncio.Future[bool]]] = []
        try:
            while self._asking or waiting:
                fresh, self._asking = self._asking, []
                waiting += [(-1, time.monotonic() + _PATIENCE_S, future) for future in fresh]
                position = await self._look()
                left = []
                for wanted, until_s, future in waiting:
                    target = position.local if wanted < 0 else wanted
                    if target > position.safe and time.monotonic() < until_s:
                        left.append((target, until_s, future))
                    elif not future.done():
                        future.set_result(target <= position.safe)
                waiting = left
                if waiting:
                    await asyncio.sleep(_EVERY_S)
        except UnavailableError as error:
            log.debug("how far the standbys are is not known: %s", error)  # the next write makes that known
        finally:
            for future in [*self._asking, *(future for _, _, future in waiting)]:
                if not future.done():
                    future.set_result(False)
            self._asking = []
