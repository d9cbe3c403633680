"""Minutes and hours of points, read from a data folder while its gateway runs or not: nothing here writes.

What `trends.db` does not have yet is worked out of the segments of `history.db`. Readings that the daemon still holds
in memory (`flush_s`) are not seen.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from . import trend_file
from .columns import Column
from .recorded import RecordedHistory
from .sqlite import connect_for_reading
from .tallies import MINUTE_MS, Pieces, fold, regroup


class RecordedTrends:
    """Of some points, within a time; as they were when it was entered.

    Args:
        data: folder of the stores.
        points: ids.
        from_ms, to_ms: UTC milliseconds; `to_ms` is not included.
        progress: gets how many of how many segments were worked out.

    Raises:
        PermanentError: on entering: there is no history in that folder.
    """

    def __init__(
        self, data: Path, points: Sequence[str], from_ms: int, to_ms: int, progress: Callable[[int, int], None]
    ) -> None:
        self._data, self._points = data, points
        self._from_ms, self._to_ms, self._progress = from_ms, to_ms, progress
        self._fresh: dict[str, Pieces] = {}
        self._file: sqlite3.Connection | None = None
        self._stack = ExitStack()

    def __enter__(self) -> RecordedTrends:
        path, n = self._data / "trends.db", 0
        with ExitStack() as stack:
            if path.exists():
                self._file = connect_for_reading(path)
                stack.callback(self._file.close)
                self._file.execute("BEGIN")  # what comes in meanwhile is in no row, and not counted twice
                n = trend_file.cursor(self._file)[0]
            with RecordedHistory(self._data / "history.db") as history:
                self._count(history, n)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _count(self, history: RecordedHistory, n: int) -> None:
        spans = [
            span for span in history.spans if span.n > n and span.t1_ms >= self._from_ms and span.t0_ms < self._to_ms
        ]
        for done, span in enumerate(spans):
            self._progress(done, len(spans))
            for column in history.columns(span, self._points):
                self._fold(column)
        for column in history.tail_columns(self._points):
            self._fold(column)

    def _fold(self, column: Column) -> None:
        pieces = self._fresh.setdefault(column.point, {})
        fold(pieces, MINUTE_MS, column.utc_ms, column.values, column.qualities)

    def pieces(self, point: str, from_ms: int, to_ms: int, unit_ms: int) -> Pieces:
        """What began from `from_ms` up to `to_ms`, which are multiples of `unit_ms`: a minute or an hour.

        Hours where minutes are not kept any more.
        """
        found = trend_file.pieces(self._file, point, from_ms, to_ms, unit_ms) if self._file is not None else Pieces()
        fresh = self._fresh.get(point, {})
        regroup(found, {at: tally for at, tally in fresh.items() if from_ms <= at < to_ms}, 0, unit_ms)
        return found


def known_points(data: Path) -> frozenset[str]:
    """Ids of all points that `trends.db` has ever had; empty without one."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_opened(data)) as connection:
        return frozenset(name for (name,) in connection.execute("SELECT name FROM point"))
    return frozenset()


def oldest_ms(data: Path, points: Sequence[str]) -> int | None:
    """The hour of the oldest reading of these points in `trends.db`; None where there is none."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_opened(data)) as connection:
        found = [trend_file.oldest_ms(connection, point) for point in points]
        return min((at for at in found if at is not None), default=None)
    return None


def _opened(data: Path) -> sqlite3.Connection:
    return connect_for_reading(data / "trends.db")
