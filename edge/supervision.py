"""What systemd is told, and the clock that everything is dated by."""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Callable, Mapping

from ..serving.notify import Notifier, watchdog_period_s
from ..words import ClockState, mono_s, now, set_clock_state

_log = logging.getLogger(__name__)
STEP_S = 5.0
_TIME_ERROR = 5


async def feed_watchdog(notifier: Notifier, beats: Mapping[str, Callable[[], float]], fresh_s: float = 20.0) -> None:
    """Ping at half of `WATCHDOG_USEC`, only while every loop's heartbeat is fresh.

    Args:
        notifier: to systemd.
        beats: for each critical loop, its last heartbeat in monotonic seconds.
        fresh_s: how old a heartbeat may be.
    """
    period_s = watchdog_period_s()
    hung: list[str] = []
    while True:
        now_s = mono_s()
        stale = [name for name, beat in beats.items() if now_s - beat() > fresh_s]
        if stale != hung:
            _log.log(
                logging.ERROR if stale else logging.WARNING, "loops that do not turn: %s", ", ".join(stale) or "none"
            )
            hung = stale
        if not stale:
            notifier.tell("WATCHDOG=1")
        await asyncio.sleep(period_s)


class ClockWatch:
    """Notices a wall clock that steps against the monotonic one, and keeps the state that instants carry."""

    def __init__(self) -> None:
        self._offset_s = _offset_s()
        self._stepped = False
        self._tell()

    def step(self) -> float:
        """Seconds that the wall clock jumped since the last call, 0 when it did not (less than `STEP_S`)."""
        offset_s = _offset_s()
        jump_s, self._offset_s = offset_s - self._offset_s, offset_s
        jumped = abs(jump_s) >= STEP_S
        self._stepped = jumped or (self._stepped and not _kernel_synced())
        self._tell()
        return jump_s if jumped else 0.0

    def _tell(self) -> None:
        """`stepped` from a step until the kernel says that the clock is synchronized."""
        synced = ClockState.SYNCED if _kernel_synced() else ClockState.UNSYNCED
        set_clock_state(ClockState.STEPPED if self._stepped else synced)


def _offset_s() -> float:
    instant = now()
    return instant.utc_ms / 1000 - instant.mono_s


def _kernel_synced() -> bool:
    """Whether adjtimex says that NTP disciplines the clock; False where that cannot be asked."""
    try:
        buffer = ctypes.create_string_buffer(512)
        state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    except (OSError, AttributeError):
        return False
    return 0 <= state < _TIME_ERROR
