"""How long a message of a person was under way, by a network's clock that may be wrong by hours. No I/O."""

from __future__ import annotations

from ...words import ClockState, Instant

_QUARTER_S = 900.0
_SLACK_S = 60.0
"""Seconds that a message takes when nothing is wrong; what is quicker is never called late."""


class Lateness:
    """Centres stamp in a time zone that some of them get wrong, and with clocks of their own.

    The quickest message so far shows how far the centre's clock is off; the first one as far as that is whole quarters
    of an hour, which zones are.
    """

    def __init__(self) -> None:
        self._off_s: float | None = None

    def of(self, sent_ms: int | None, at: Instant) -> float:
        """Seconds that a message was under way which came at `at`; 0 when that was short or cannot be told."""
        if sent_ms is None or at.clock is not ClockState.SYNCED:
            return 0.0
        age_s = (at.utc_ms - sent_ms) / 1000
        known_s = round(age_s / _QUARTER_S) * _QUARTER_S if self._off_s is None else self._off_s
        self._off_s = min(known_s, age_s)
        late_s = age_s - self._off_s
        return late_s if late_s > _SLACK_S else 0.0
