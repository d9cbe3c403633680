"""What systemd is told, and the clock that everything is dated by."""

from __future__ import annotations

import asyncio
import ctypes
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..serving.notify import Notifier, watchdog_period_s
from ..words import ClockState, Instant, mono_s, now, set_clock_shift, set_clock_state

if TYPE_CHECKING:
    from ..sync.server_time import ServerTime

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
    """Notices a wall clock that steps against the monotonic one, and keeps the state that instants carry.

    While the kernel is not synchronized, what headquarters says is believed: instants follow it, the machine's own
    clock stays as it is. Each correction is a step like any other, forward or back: it is returned, and recorded.

    Attributes:
        shift_ms: instants are so much later than the machine's clock.
        corrected: the last call of `step` changed that.
    """

    def __init__(self) -> None:
        self._offset_s = _offset_s()
        self._stepped = False
        self.shift_ms, self.corrected = 0, False
        self._tell(is_synced=_kernel_synced())

    def step(self, server: ServerTime | None = None) -> float:
        """Seconds that the wall clock jumped since the last call, 0 when it did not (less than `STEP_S`).

        Args:
            server: what time it is at headquarters, when it has said so.
        """
        kernel, instant = _kernel_synced(), now()
        server_ms = server.at(instant.mono_s) if server is not None and not kernel else None
        machine_jump_s = instant.utc_ms / 1000 - instant.mono_s - self._offset_s
        corrected_s = self._correct(instant, server_ms, kernel=kernel) / 1000
        self._offset_s += machine_jump_s + corrected_s
        jumps = (machine_jump_s + corrected_s, machine_jump_s)  # what was put right at once is told all the same
        jump_s = next((jump_s for jump_s in jumps if abs(jump_s) >= STEP_S), 0.0)
        is_synced = kernel or server_ms is not None
        self._stepped = bool(jump_s) or (self._stepped and not is_synced)
        self._tell(is_synced=is_synced)
        return jump_s

    def _correct(self, instant: Instant, server_ms: int | None, *, kernel: bool) -> int:
        """Follow headquarters where the kernel follows nobody; by how many milliseconds that moved instants."""
        before_ms = self.shift_ms
        if kernel:
            self.shift_ms = 0
        elif server_ms is not None and abs(server_ms - instant.utc_ms) >= STEP_S * 1000:
            self.shift_ms += server_ms - instant.utc_ms
        self.corrected = self.shift_ms != before_ms
        if self.corrected:
            set_clock_shift(self.shift_ms)
        return self.shift_ms - before_ms

    def _tell(self, *, is_synced: bool) -> None:
        """`stepped` from a step until the kernel or headquarters says what time it is."""
        synced = ClockState.SYNCED if is_synced else ClockState.UNSYNCED
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
