"""How much may be sent now: the link's rate as measured, a cap, and the part that bulk has for sure. Pure.

A request carries at most half a second of the measured rate, so that what is urgent waits no longer than that for what
is on its way; while the journal sends, bulk gets one byte of twenty (facts of sync: alarm latency on 256 kbit/s).
"""

from __future__ import annotations

from dataclasses import dataclass, field

LOWEST, HIGHEST = 16 * 1024, 512 * 1024
FIRST_LOWEST = 4 * 1024
"""Bytes in a request of bulk, at least and at most, and in one of the journal, at least."""
SLICE_S = 0.5
SHARE = 0.05
HEAD_BYTES = 800
"""What a signed request has besides its body; counts against a cap."""

_MEASURABLE = 2 * 1024
_HALF_LIFE_S = 20.0
_MEMORY_S = 1.0
"""What was measured before counts as much as a second of sending."""
_TRIP_WINDOW_S = 300.0
_FLOW_S = 10.0
_SHORTEST_S = 0.001


class LinkRate:
    """Bytes a second from what was acknowledged and how long that took, the newest counting most.

    Sums are compared, not single requests, so neither a burst that a shaper lets through nor one slow answer decides.
    A request's time has a round trip in it which does not grow with its size: the shortest of the last minutes is taken
    off. Small requests tell that round trip alone.
    """

    def __init__(self) -> None:
        self._bytes = self._seconds = 0.0
        self._at_s: float | None = None
        self._trips: list[tuple[float, float]] = []

    def took(self, size: int, elapsed_s: float, now_s: float) -> None:
        """A request with a body of `size` bytes was answered after `elapsed_s`; `now_s`: monotonic."""
        if size < _MEASURABLE or elapsed_s < self.trip_s:
            self._note_trip(elapsed_s, now_s)
        if size < _MEASURABLE:
            return
        idle_s = max(0.0, now_s - self._at_s) if self._at_s is not None else 0.0
        faded = min(0.5 ** (idle_s / _HALF_LIFE_S), _MEMORY_S / self._seconds if self._seconds else 1.0)
        self._at_s = now_s
        self._bytes = self._bytes * faded + size
        self._seconds = self._seconds * faded + max(elapsed_s - self.trip_s, elapsed_s / 4, 1e-6)

    @property
    def bytes_s(self) -> float | None:
        """None until something large enough was acknowledged."""
        return self._bytes / self._seconds if self._seconds else None

    @property
    def trip_s(self) -> float:
        """The shortest answer of the last minutes to something small; 0 while none is known."""
        return min((trip for _, trip in self._trips), default=0.0)

    def forget(self) -> None:
        """The link broke: what comes back may be another one."""
        self.__init__()

    def _note_trip(self, elapsed_s: float, now_s: float) -> None:
        """A window's minimum: entries that are older and longer than a newer one can never be it again. What is known
        stays known until something new is."""
        kept = [(at, trip) for at, trip in self._trips if now_s - at <= _TRIP_WINDOW_S and trip < elapsed_s]
        self._trips = [*kept, (now_s, elapsed_s)]


def batch_bytes(rate: float | None, lowest: int = LOWEST) -> int:
    """How large a request may be on a link of `rate` bytes a second; careful while that is not known."""
    return int(min(max(SLICE_S * rate, lowest), HIGHEST)) if rate is not None else lowest


@dataclass(slots=True)
class Cap:
    """A bandwidth cap: a balance of bytes that fills with time. What is urgent may overdraw it by half a second.

    Args:
        now_s: monotonic.
    """

    now_s: float
    _balance: float = 0.0

    def wait_s(self, size: int, rate: float | None, now_s: float, *, urgent: bool = False) -> float:
        """0 when `size` bytes may go now, and are counted; else how long to wait before asking again."""
        if rate is None:
            self.now_s, self._balance = now_s, 0.0
            return 0.0
        self._balance = min(self._balance + rate * max(0.0, now_s - self.now_s), rate * SLICE_S / 2)
        self.now_s = now_s
        least = -rate * SLICE_S if urgent else 0.0
        if self._balance < least:
            return max((least - self._balance) / rate, _SHORTEST_S)
        self._balance -= size
        return 0.0


@dataclass(slots=True)
class Share:
    """What bulk may send although the journal is sending: for every 19 bytes of the journal one is earned."""

    _earned: float = 0.0

    def journal_sent(self, size: int) -> None:
        self._earned = min(self._earned + size * SHARE / (1 - SHARE), HIGHEST)

    def spend(self, size: int) -> bool:
        """Whether `size` bytes of bulk may go; they are taken off then."""
        if self._earned < size:
            return False
        self._earned -= size
        return True


@dataclass(slots=True)
class Flow:
    """How much of something comes a second, over about the last ten seconds."""

    _amount: float = 0.0
    _at_s: float | None = field(default=None)

    def add(self, amount: float, now_s: float) -> None:
        self._amount, self._at_s = self._faded(now_s) + amount, now_s

    def per_s(self, now_s: float) -> float:
        return self._faded(now_s) / _FLOW_S

    def _faded(self, now_s: float) -> float:
        idle_s = max(0.0, now_s - self._at_s) if self._at_s is not None else 0.0
        return self._amount * 2.718281828 ** (-idle_s / _FLOW_S)
