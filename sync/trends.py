"""Trends: what charts are drawn from, min/mean/max/last of any range in buckets, a year in a fraction of a second.

Minutes and hours of every point are worked out of the sealed segments and kept in `trends.db`. They are derived: a file
that is missing, damaged or behind is caught up from the segments that are kept, each of which counts once. They outlast
the segments that they came from.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import sqlite3
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn, TypeVar

from ..errors import TransientError
from ..words import ClockState, mono_s, now
from . import trend_file
from .columns import DamagedError, Sample, decompress, unpack
from .damage import is_damage, set_aside
from .history import History, Segment, mark_of, to_the_end
from .resting import Rests
from .sqlite import StoreError, Writer, connect_for_reading
from .tallies import DAY_MS, HOUR_MS, MINUTE_MS, Pieces, Tally, fold, fold_samples, regroup

T = TypeVar("T")

_log = logging.getLogger(__name__)

MOST_PIXELS = 4_000
HOURS_DAYS = 3_660
_SECOND_MS = 1_000
_COARSE_MS = 20 * MINUTE_MS
"""Buckets that are longer are whole hours."""
_RAW_SEGMENTS, _RAW_READINGS = 600, 1_500_000
"""A chart in seconds unpacks at most so many; else it has minutes."""
_AT_ONCE = 16
"""Segments between two looks at what else wants to be done."""
_SAVE_S = 3600.0
_SAVE_PIECES, _SAVE_EACH = 20_000, 6
"""Minutes that may wait in memory, and of each point where there are many; 1,000 take a quarter of a megabyte."""
_AGAIN_S = 60.0
_TIDY_S = 86_400.0


class FileError(TransientError):
    """`trends.db` cannot be read or written now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A point from `from_ms` up to `to_ms`, in buckets of `width_ms`.

    Attributes:
        buckets: by their beginning, in order; those in which nothing came are left out.
        behind: sealed segments that are not in it yet, while a file is caught up.
    """

    from_ms: int
    to_ms: int
    width_ms: int
    buckets: list[tuple[int, Tally]]
    behind: int


class Trends:
    """The only writer of `trends.db`. `run` must be awaited in a task while it is open.

    It never ends the process: without a file that can be written, charts have what the segments say.

    Args:
        path: the database file; a damaged one is renamed to `*.damaged-<time>` and a new one begun.
        history: whose segments are followed.
        minutes_days: minutes are kept so long; hours for ten years.
        on_damage: called on the loop with the renamed file, so that the loss is recorded.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        path: Path,
        history: History,
        *,
        minutes_days: float = 92,
        on_damage: Callable[[Path], None] = lambda _: None,
        clock: Callable[[], float] = mono_s,
    ) -> None:
        self.path = path
        self._history, self._minutes_days, self._clock = history, minutes_days, clock
        self._on_damage = on_damage
        self._pending: dict[str, Pieces] = {}
        self._pieces = 0
        self._n, self._mark = 0, ""
        self._saved_s = clock()
        self._tidied_s = -math.inf
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._failing = False
        self._writer: Writer | None = None
        self._reading: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="trends")

    async def __aenter__(self) -> Trends:
        await self._try(self._open)
        self._history.subscribe(lambda _: self._news.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._try(self.save)
        await self._close()
        self._thread.shutdown(wait=True)

    # --- following -----------------------------------------------------------------------------------------------

    async def run(self) -> NoReturn:
        """Follow the history, for ever."""
        while True:
            self._news.clear()
            await self._try(self._follow)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_AGAIN_S):
                    await (asyncio.sleep(_AGAIN_S) if self._failing else self._news.wait())

    async def _follow(self) -> None:
        if self._writer is None:
            await self._open()
        more = True
        while more:
            more = await self.step()
        if self._clock() - self._saved_s >= _SAVE_S:
            await self.save()
        if self._clock() - self._tidied_s >= _TIDY_S and now().clock is ClockState.SYNCED:
            await self._tidy()

    async def step(self) -> bool:
        """Take in some segments; whether there were any. Raises FileError."""
        async with self._turn:
            return await self._step()

    async def save(self) -> None:
        """Bring what is counted to the device. Raises FileError."""
        async with self._turn:
            await self._save()

    async def _step(self) -> bool:
        if not await self._goes_on():
            await self._begin_anew()
        head = self._history.sealed_head()  # what is newer may be counted among the unsealed
        segments = [one for one in await self._history.sealed_after(self._n, _AT_ONCE) if one.n <= head]
        if not segments:
            return False
        self._pieces += await self._work(lambda: self._fold(segments))
        self._n, self._mark = segments[-1].n, mark_of(segments[-1])
        if self._pieces >= max(_SAVE_PIECES, _SAVE_EACH * len(self._pending)):
            await self._save()
        return True

    async def _goes_on(self) -> bool:
        """Whether the history is still the one whose segments were counted."""
        if not self._n:
            return True
        mark = await self._history.mark_at(self._n)
        return mark == self._mark or (not mark and self._n <= self._history.sealed_head())

    async def _begin_anew(self) -> None:
        """Another history: what its segments say is counted again, what is older than they stays."""
        _log.warning("%s: the history is another one: its segments are counted again", self.path)
        begins_ms = await self._history.begins_ms()
        self._pending, self._pieces = {}, 0

        def job(connection: sqlite3.Connection) -> None:
            if begins_ms is not None:
                trend_file.trim(connection, begins_ms)
            trend_file.save(connection, {}, 0, "")

        await self._write(job)
        self._n, self._mark = 0, ""

    def _fold(self, segments: list[Segment]) -> int:
        before, rest = sum(map(len, self._pending.values())), Rests()
        for segment in segments:
            try:
                blocks = unpack(decompress(segment.body))
            except DamagedError as error:
                _log.warning("%s: segment %d of the history is damaged: %s", self.path, segment.n, error)
                continue
            for block in blocks:
                for column in block.columns:
                    pieces = self._pending.setdefault(column.point, {})
                    fold(pieces, MINUTE_MS, column.utc_ms, column.values, column.qualities)
                    rest()
        return sum(map(len, self._pending.values())) - before

    async def _save(self) -> None:
        if not self._pending:
            return
        pending, n, mark = self._pending, self._n, self._mark
        await self._write(lambda connection: trend_file.save(connection, pending, n, mark, Rests()))
        self._pending, self._pieces, self._saved_s = {}, 0, self._clock()

    async def _tidy(self) -> None:
        """The clock can be believed: nothing is deleted by one that cannot."""
        today_ms = now().utc_ms
        minutes_ms, hours_ms = (round(today_ms - days * DAY_MS) for days in (self._minutes_days, HOURS_DAYS))
        async with self._turn:
            await self._write(lambda connection: trend_file.forget(connection, minutes_ms, hours_ms))
        self._tidied_s = self._clock()

    # --- asking --------------------------------------------------------------------------------------------------

    async def chart(self, point: str, from_ms: int, to_ms: int, pixels: int) -> Chart:
        """A point in at most about `pixels` buckets, the newest readings included.

        Buckets are multiples of a second, a minute or an hour, and begin at multiples of their width, so that they stay
        the same while time passes. Where finer pieces are not kept any more, coarser ones stand at their beginning.
        """
        width_ms = width_of(to_ms - from_ms, pixels)
        if width_ms < MINUTE_MS:
            segments, readings = await self._history.extent(from_ms, to_ms)
            if segments > _RAW_SEGMENTS or readings > _RAW_READINGS:
                width_ms = MINUTE_MS
        from_ms, to_ms = from_ms - from_ms % width_ms, to_ms + -to_ms % width_ms
        unit_ms = HOUR_MS if width_ms % HOUR_MS == 0 else MINUTE_MS
        pieces, behind = await self._pieces_of(point, from_ms - from_ms % unit_ms, to_ms, unit_ms)
        if width_ms < MINUTE_MS and (samples := await self._history.read(point, from_ms, to_ms - 1)):
            pieces = await asyncio.to_thread(_fine, samples, pieces, width_ms)
        buckets = Pieces()
        regroup(buckets, {at: tally for at, tally in pieces.items() if at >= from_ms}, from_ms, width_ms)
        return Chart(from_ms=from_ms, to_ms=to_ms, width_ms=width_ms, buckets=sorted(buckets.items()), behind=behind)

    async def _pieces_of(self, point: str, from_ms: int, to_ms: int, unit_ms: int) -> tuple[Pieces, int]:
        async with self._turn:
            await self._catch_up()
            fresh = self._history.unsealed(point, from_ms, to_ms - 1)
            behind = max(0, self._history.sealed_head() - self._n)
            return await self._work(lambda: self._collect(point, from_ms, to_ms, unit_ms, fresh)), behind

    async def _catch_up(self) -> None:
        """Up to the newest segment, unless there are many: then `run` is at it."""
        before = -1
        while before < self._n and 0 < self._history.sealed_head() - self._n <= _AT_ONCE and self._writer is not None:
            before = self._n
            await self._try(self._step)

    def _collect(self, point: str, from_ms: int, to_ms: int, unit_ms: int, fresh: list[Sample]) -> Pieces:
        """On the thread: rows, what waits for its row, and what is in no segment yet."""
        reading = self._reading
        stored = trend_file.pieces(reading, point, from_ms, to_ms, unit_ms) if reading is not None else Pieces()
        waiting = {at: tally for at, tally in self._pending.get(point, {}).items() if from_ms <= at < to_ms}
        minutes = Pieces()
        fold_samples(minutes, MINUTE_MS, fresh)
        for pieces in (waiting, minutes):
            regroup(stored, pieces, 0, unit_ms)
        return stored

    # --- the file ------------------------------------------------------------------------------------------------

    async def _work(self, job: Callable[[], T]) -> T:
        """On the thread; to its end, also when cancelled: what was counted is known to be."""
        return await to_the_end(self._thread.submit(job))

    async def _write(self, job: Callable[[sqlite3.Connection], None]) -> None:
        if self._writer is None:
            raise FileError(f"{self.path}: is closed")
        try:
            await to_the_end(self._writer.submit(job))
        except (StoreError, sqlite3.Error) as error:
            raise FileError(str(error)) from error

    async def _try(self, work: Callable[[], Awaitable[object]]) -> None:
        """A file that fails is told once, and tried again later; nobody else notices."""
        try:
            await work()
        except FileError as error:
            await self._fail(error)
        except sqlite3.Error as error:  # the history's: its own loop says what is to be done
            _log.warning("%s: the history cannot be followed: %s", self.path, error)
        else:
            if self._failing and self._writer is not None:
                self._failing = False
                _log.info("%s: works again", self.path)

    async def _fail(self, error: FileError) -> None:
        if not self._failing:
            _log.error("charts have no minutes and hours for now: %s", error)
        self._failing = True
        await self._close()
        if is_damage(error):
            self._on_damage(set_aside(self.path))

    async def _open(self) -> None:
        """Go on where the file is. Raises FileError."""
        writer = Writer(self.path, trend_file.SCHEMA.apply)
        try:
            await asyncio.to_thread(writer.open)
            self._reading = reading = connect_for_reading(self.path)
            self._n, self._mark = await self._work(lambda: trend_file.cursor(reading))
        except (sqlite3.Error, OSError) as error:
            await asyncio.to_thread(writer.close)
            raise FileError(f"{self.path}: {error}") from error
        self._writer = writer
        self._pending, self._pieces, self._saved_s = {}, 0, self._clock()

    async def _close(self) -> None:
        reading, writer = self._reading, self._writer
        self._reading = self._writer = None
        self._pending, self._pieces, self._n, self._mark = {}, 0, 0, ""
        if reading is not None:
            await self._work(reading.close)
        if writer is not None:
            await asyncio.to_thread(writer.close)


def width_of(span_ms: int, pixels: int) -> int:
    """Milliseconds of a bucket: a multiple of a second, a minute or an hour, so that at most `pixels` fill the span."""
    least_ms = span_ms / max(1, min(pixels, MOST_PIXELS))
    unit_ms = _SECOND_MS if least_ms <= 30 * _SECOND_MS else MINUTE_MS if least_ms <= _COARSE_MS else HOUR_MS
    return max(1, math.ceil(least_ms / unit_ms)) * unit_ms


def _fine(samples: list[Sample], pieces: Pieces, width_ms: int) -> Pieces:
    """Readings; before the first of them minutes, and hours, of which no reading is kept any more."""
    fine, first_ms = Pieces(), samples[0][0]
    fold_samples(fine, width_ms, samples)
    regroup(fine, {at: tally for at, tally in pieces.items() if _ends_before(at, tally, first_ms)}, 0, width_ms)
    return fine


def _ends_before(at_ms: int, tally: Tally, first_ms: int) -> bool:
    return at_ms + MINUTE_MS <= first_ms and tally.last_ms < first_ms
