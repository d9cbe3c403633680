"""What time it is at headquarters, from its answers: a hint for a machine whose clock nobody sets.

An answer names its time, and was given between the request and its arrival: the middle is right to half of that. It is
believed as far as the connection is, which is TLS to the authority that site.toml pins, or this machine itself.
"""

from __future__ import annotations

from dataclasses import dataclass

MOST_ERROR_S = 2.0
FRESH_S = 3600.0
"""Crystals drift by less than half a second in this time."""


@dataclass(frozen=True, slots=True)
class ServerTime:
    """UTC milliseconds at headquarters, at a moment of the monotonic clock, which never steps."""

    utc_ms: int
    mono_s: float

    def at(self, mono_s: float) -> int | None:
        """UTC milliseconds at that moment; None when what is known is too old."""
        passed_s = mono_s - self.mono_s
        return self.utc_ms + round(passed_s * 1000) if 0 <= passed_s <= FRESH_S else None


def heard(time_ms: int, asked_s: float, answered_s: float) -> ServerTime | None:
    """From an answer that names `time_ms`; None when it took so long that it says little."""
    half_s = (answered_s - asked_s) / 2
    return ServerTime(time_ms, asked_s + half_s) if 0 <= half_s <= MOST_ERROR_S else None
