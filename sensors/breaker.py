"""A circuit breaker: a unit that does not answer is asked less and less often, but never given up. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace


class BreakerState(enum.StrEnum):
    """`half_open`: the pause is over and the next poll is the probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerPolicy:
    """When to open and how long to pause.

    Attributes:
        threshold: failures in a row that open it.
        base_s, cap_s: first and longest pause, before jitter.
        jitter: each pause is drawn from 1 +- this part of it, so that units do not probe in step.
    """

    threshold: int = 3
    base_s: float = 2.0
    cap_s: float = 60.0
    jitter: float = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """State of one unit: failures in a row, and the end of the present pause (None: closed)."""

    failures: int = 0
    until_s: float | None = None

    def state(self, now_s: float) -> BreakerState:
        if self.until_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if now_s < self.until_s else BreakerState.HALF_OPEN

    def allows(self, now_s: float) -> bool:
        """Whether the unit may be asked."""
        return self.until_s is None or now_s >= self.until_s

    def failed(self, now_s: float, policy: BreakerPolicy, draw: float) -> Breaker:
        """After one more failure. `draw` is a random number 0..1."""
        failures = self.failures + 1
        if failures < policy.threshold:
            return Breaker(failures=failures)
        doublings = min(failures - policy.threshold, 30)
        pause_s = min(policy.base_s * 2**doublings, policy.cap_s)
        return Breaker(failures=failures, until_s=now_s + pause_s * (1 + policy.jitter * (2 * draw - 1)))

    def woken(self, now_s: float) -> Breaker:
        """An open one probes at once: a neighbour answers again after the whole bus was silent."""
        return self if self.until_s is None else replace(self, until_s=min(self.until_s, now_s))
