"""Suppressed by design: while a condition of the plant holds, nobody is told of certain alarms. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ...words import Instant, Quality, Reading
from .overlay import Overlay, OverlayKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """One `[[suppress]]`: exactly one of `equals`, `above` and `below` is set, in the unit of `point`.

    Attributes:
        deadband: of `above` and `below`: noise at the limit must not tell people anew each time.
        why: in the words of the site; the record of each alarm that it suppresses carries it.
    """

    id: str
    point: str
    why: str
    equals: float | None = None
    above: float | None = None
    below: float | None = None
    deadband: float = 0.0

    def holds(self, reading: Reading | None, *, before: bool = False) -> bool:
        """Whether the alarms are suppressed: what is not known for good suppresses nothing.

        Args:
            before: whether they were: then it ends past the limit by the deadband.
        """
        if reading is None or reading.value is None or reading.quality is not Quality.GOOD:
            return False
        value = reading.value
        if self.equals is not None:
            return value == self.equals
        slack = self.deadband if before else 0.0
        if self.above is not None:
            return value > self.above - slack
        return self.below is not None and value < self.below + slack

    def overlay(self, now: Instant) -> Overlay:
        """What lies over an alarm from now on."""
        return Overlay(kind=OverlayKind.BY_DESIGN, who=self.id, why=self.why, since=now)
