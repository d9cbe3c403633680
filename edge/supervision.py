"""What systemd is told, and the clock that everything is dated by."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import socket
from collections.abc import Callable, Mapping

from ..words import ClockState, mono_s, now, set_clock_state

_log = logging.getLogger(__name__)
STEP_S = 5.0
_TIME_ERROR = 5


class Notifier:
    """sd_notify: one datagram to `$NOTIFY_SOCKET`; silent when systemd did not start us."""

    def __init__(self, address: str | None = None) -> None:
        given = os.environ.get("NOTIFY_SOCKET", "") if address is None else address
        self._address = "\0" + given[1:] if given.startswith("@") else given

    def tell(self, state: str) -> None:
        """Send `READY=1`, `WATCHDOG=1`, `STATUS=…` or `STOPPING=1`."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto(state.encode(), self._address)
        except OSError as error:
            _log.warning("systemd does not listen: %s", error)


async def feed_watchdog(notifier: Notifier, beats: Mapping[str, Callable[[], float]], fresh_s: float = 20.0) -> None:
    """Ping at half of `WATCHDOG_USEC`, only while every loop's heartbeat is fresh.

    Args:
        notifier: to systemd.
        beats: for each critical loop, its last heartbeat in monotonic seconds.
        fresh_s: how old a heartbeat may be.
    """
    period_s = int(os.environ.get("WATCHDOG_USEC", "20000000")) / 2_000_000
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
