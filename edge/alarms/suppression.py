"""Suppressed by design: while a condition of the plant holds, nobody is told of certain alarms. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from ...words import Instant, Quality, Reading
from .overlay import Overlay, OverlayKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """One `[[suppress]]`: exactly one of `equals`, `above` and `below` is set, in the unit of `point`.

    Attributes:
        why: in the words of the site; the record of each alarm that it suppresses carries it.
    """

    id: str
    point: str
    why: str
    equals: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, reading: Reading | None) -> bool:
        """Whether the alarms are suppressed: what is not known for good suppresses nothing."""
        if reading is None or reading.value is None or reading.quality is not Quality.GOOD:
            return False
        value = reading.value
        if self.equals is not None:
            return value == self.equals
        return value > self.above if self.above is not None else self.below is not None and value < self.below

    def overlay(self, now: Instant) -> Overlay:
        """What lies over an alarm from now on."""
        return Overlay(kind=OverlayKind.BY_DESIGN, who=self.id, why=self.why, since=now)
