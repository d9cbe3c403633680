"""The newest reading of every point, for pages and dashboards. Never a source of alarms or records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..words import Instant, Reading, utc_text


class Values:
    """Newest readings, and which points changed since somebody last looked.

    Each consumer takes its own `cursor()`, so that a slow one costs the others nothing.

    Args:
        points: the only ones to keep; None: all that come.
    """

    def __init__(self, points: Iterable[str] | None = None) -> None:
        self._known = frozenset(points) if points is not None else None
        self._last: dict[str, Reading] = {}
        self._cursors: list[set[str]] = []

    def know(self, points: Iterable[str]) -> None:
        """Forget every other point, and what still comes for it: an answer may be under way when a device goes."""
        self._known = known = frozenset(points)
        self._last = {point: reading for point, reading in self._last.items() if point in known}

    def put(self, readings: Iterable[Reading]) -> None:
        """Keep the newest of each point."""
        known, last, changed = self._known, self._last, []
        for reading in readings:
            point = reading.point
            if known is None or point in known:
                last[point] = reading
                changed.append(point)
        for cursor in self._cursors:
            cursor.update(changed)

    def get(self, point: str) -> Reading | None:
        """The newest reading, None when there was none since the start."""
        return self._last.get(point)

    def cursor(self) -> set[str]:
        """A set that fills with the ids of changed points; the owner empties it."""
        cursor: set[str] = set()
        self._cursors.append(cursor)
        return cursor


def reading_view(reading: Reading, now: Instant) -> dict[str, Any]:
    """A reading as pages show it. `age_s` is monotonic: a stepped wall clock does not make it fresh."""
    return {
        "id": reading.point,
        "v": reading.value,
        "q": reading.quality.value,
        "why": reading.why,
        "ts": utc_text(reading.at.utc_ms),
        "age_s": round(max(0.0, now.mono_s - reading.at.mono_s), 1),
    }
