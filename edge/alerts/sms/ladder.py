"""How a modem is brought back: what is tried, after what pause. Pure."""

from __future__ import annotations

import enum

from .troubles import TroubleError

_CALM_S = 300.0
_GAP_S, _GAP_MAX_S = 60.0, 1800.0


class Rung(enum.StrEnum):
    """What is done, one after the other, for ever."""

    REOPEN = "reopen"
    RADIO = "AT+CFUN=0/1"
    RESTART = "AT+CFUN=1,1"
    POWER = "power cycle"


_ORDER = tuple(Rung)


class Ladder:
    """Climbs with every trouble. Back at its foot when a message was sent, or after five minutes without trouble.

    Args:
        pause_s, pause_max_s: before the first try, and at most.
    """

    def __init__(self, pause_s: float, pause_max_s: float) -> None:
        self._pause_s = pause_s
        self._pause_max_s = pause_max_s
        self._troubles = self._rung = 0
        self._well_s: float | None = None
        self._reset_s = 0.0
        self._gap_s = _GAP_S

    def next(self, trouble: TroubleError, chance: float) -> tuple[Rung, float]:
        """What to do, and the pause before it.

        Args:
            chance: 0..1, the jitter.
        """
        self._well_s = None
        pause_s = min(self._pause_max_s, self._pause_s * 2.0 ** min(self._troubles, 30)) * (0.5 + chance / 2)
        self._troubles += 1
        if not trouble.resets:
            return Rung.REOPEN, pause_s
        if trouble.by_send:  # the line is good: opening it again changes nothing
            self._rung = max(self._rung, 1)
        rung = _ORDER[self._rung % len(_ORDER)]
        self._rung += 1
        return rung, pause_s

    def may_reset(self, now_s: float) -> bool:
        """Whether messages that are refused are worth a reset now. It may be the receiver's number: resets, which cost
        the other receivers half a minute, become rare while no message goes out. A yes counts as done."""
        if now_s < self._reset_s:
            return False
        self._reset_s, self._gap_s = now_s + self._gap_s, min(_GAP_MAX_S, self._gap_s * 3)
        return True

    def well(self, now_s: float) -> None:
        """The modem is ready, or still is."""
        if self._well_s is None:
            self._well_s = now_s
        elif now_s - self._well_s >= _CALM_S:
            self._troubles = self._rung = 0

    def proven(self) -> None:
        """The network took a message."""
        self._troubles = self._rung = 0
        self._reset_s, self._gap_s = 0.0, _GAP_S
