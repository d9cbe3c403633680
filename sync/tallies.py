"""What a piece of time held of one point: lowest, mean, highest, last, how many, how good. Pure.

Readings fold into minutes, minutes join into hours and into the buckets of a chart. Nothing is interpolated: a piece
without a good reading has no value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from itertools import compress as compress_by
from typing import Any, cast

from ..words import Quality
from .columns import DamagedError, Sample, compress, decompress, pack_msgpack, scale_values, unpack_msgpack

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000

QUALITIES = (Quality.GOOD, Quality.UNCERTAIN, Quality.BAD)
"""From the best to the worst."""
_RANK = {quality: rank for rank, quality in enumerate(QUALITIES)}
_VERSION = 1
_PLACES = 6
"""Decimals of a sum of values that have fewer: what adding floats leaves behind them is not kept."""


@dataclass(slots=True)
class Tally:
    """What a piece of time held.

    Attributes:
        count: readings with a value that can be trusted; `total`, `low`, `high`, `last` are theirs.
        last_ms: when `last` was measured, UTC milliseconds.
        bad: readings without such a value; they are in no number.
        worst: rank in `QUALITIES` of the worst reading.
    """

    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    last: float = math.nan
    last_ms: int = -1
    bad: int = 0
    worst: int = 0

    def take(self, times: Sequence[int], values: Sequence[float | None], qualities: Sequence[Quality]) -> None:
        """Add readings, given as columns; UTC milliseconds."""
        if None not in values and qualities.count(Quality.GOOD) == len(qualities):  # as nearly always
            numbers, stamps = cast("Sequence[float]", values), times
        else:
            numbers, stamps = self._trusted(times, values, qualities)
        if numbers and not math.isfinite(sum(numbers)):
            finite = [math.isfinite(number) for number in numbers]
            self.bad, self.worst = self.bad + finite.count(False), _RANK[Quality.BAD]
            numbers, stamps = list(compress_by(numbers, finite)), list(compress_by(stamps, finite))
        if numbers:
            self._add(stamps, numbers)

    def _trusted(
        self, times: Sequence[int], values: Sequence[float | None], qualities: Sequence[Quality]
    ) -> tuple[list[float], list[int]]:
        rows = zip(times, values, qualities, strict=True)
        good = [(time, value) for time, value, quality in rows if value is not None and quality is not Quality.BAD]
        missing = len(times) - len(good)
        self.bad += missing
        self.worst = max(self.worst, _RANK[Quality.BAD] if missing else 0, *(_RANK[one] for one in set(qualities)))
        return [value for _, value in good], [time for time, _ in good]

    def _add(self, times: Sequence[int], numbers: Sequence[float]) -> None:
        self.count += len(numbers)
        self.total += sum(numbers)
        self.low, self.high = min(self.low, *numbers), max(self.high, *numbers)
        last_ms = max(times)
        if last_ms >= self.last_ms:
            self.last, self.last_ms = numbers[len(times) - 1 - times[::-1].index(last_ms)], last_ms

    def join(self, other: Tally) -> None:
        """Add what another piece held."""
        self.bad += other.bad
        self.worst = max(self.worst, other.worst)
        if not other.count:
            return
        self.count += other.count
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        if other.last_ms >= self.last_ms:
            self.last, self.last_ms = other.last, other.last_ms

    @property
    def mean(self) -> float | None:
        """None where nothing good was measured."""
        return self.total / self.count if self.count else None


Pieces = dict[int, Tally]
"""By their beginning, UTC milliseconds."""


def fold(
    into: Pieces, unit_ms: int, times: Sequence[int], values: Sequence[float | None], qualities: Sequence[Quality]
) -> None:
    """Put the readings of a column, in any order of time, into pieces of `unit_ms`."""
    begin = 0
    for index, number in enumerate(times):
        piece = number - number % unit_ms
        until = index + 1
        if until < len(times) and 0 <= times[until] - piece < unit_ms:
            continue
        part = slice(begin, until)
        into.setdefault(piece, Tally()).take(times[part], values[part], qualities[part])
        begin = until


def fold_samples(into: Pieces, unit_ms: int, samples: Iterable[Sample]) -> None:
    """`fold` of single readings."""
    rows = list(samples)
    fold(into, unit_ms, [row[0] for row in rows], [row[1] for row in rows], [row[2] for row in rows])


def regroup(into: Pieces, pieces: Mapping[int, Tally], from_ms: int, width_ms: int) -> None:
    """Join pieces into buckets of `width_ms` that begin at `from_ms`; a piece lies in the bucket of its beginning."""
    for at_ms, tally in pieces.items():
        into.setdefault(at_ms - (at_ms - from_ms) % width_ms, Tally()).join(tally)


# --- rows of a file ----------------------------------------------------------------------------------------------


def pack_pieces(pieces: Mapping[int, Tally], unit_ms: int, begin_ms: int) -> bytes:
    """Pieces of `unit_ms` from `begin_ms` on as compact bytes."""
    order = sorted(pieces)
    found = [pieces[at] for at in order]
    good = [(at, tally) for at, tally in zip(order, found, strict=True) if tally.count]
    body = [
        _VERSION,
        _differences([(at - begin_ms) // unit_ms for at in order]),
        [tally.count for tally in found],
        [tally.bad for tally in found],
        [tally.worst for tally in found],
        _differences([tally.last_ms - at for at, tally in good]),
        *(
            _pack_numbers(numbers)
            for numbers in (
                [tally.low for _, tally in good],
                [tally.high for _, tally in good],
                [tally.last for _, tally in good],
                _sums([tally.total for _, tally in good]),
            )
        ),
    ]
    return compress(pack_msgpack(body))


def unpack_pieces(body: bytes, unit_ms: int, begin_ms: int) -> Pieces:
    """Inverse of `pack_pieces`. Raises DamagedError."""
    data = unpack_msgpack(decompress(body))
    if not isinstance(data, list) or len(data) != 10 or data[0] != _VERSION:
        raise DamagedError(f"not pieces of a trend of version {_VERSION}")
    try:
        return _unpack(data, unit_ms, begin_ms)
    except (ValueError, TypeError, IndexError, StopIteration, OverflowError, ZeroDivisionError) as error:
        raise DamagedError(f"pieces of a trend have a wrong shape: {error}") from error


def _unpack(data: list[Any], unit_ms: int, begin_ms: int) -> Pieces:
    _, places, counts, bads, worsts, offsets = data[:6]
    numbers = [_unpack_numbers(*packed) for packed in data[6:]]
    good = zip(accumulate(offsets), *numbers, strict=True)
    pieces: Pieces = {}
    for place, count, bad, worst in zip(accumulate(places), counts, bads, worsts, strict=True):
        at = begin_ms + place * unit_ms
        if count:
            offset, low, high, last, total = next(good)
            pieces[at] = Tally(count, total, low, high, last, at + offset, bad, worst)
        else:
            pieces[at] = Tally(bad=bad, worst=worst)
    return pieces


def _pack_numbers(values: Sequence[float]) -> list[Any]:
    """Scaled integers where they come back bit for bit, else floats."""
    scaled = scale_values(values)
    return [-1, list(values)] if scaled is None else [scaled[0], _differences(scaled[1])]


def _unpack_numbers(scale: int, numbers: list[Any]) -> list[float]:
    if scale < 0:
        return [float(number) for number in numbers]
    power = 10**scale
    return [number / power for number in accumulate(numbers)]


def _sums(totals: Sequence[float]) -> list[float]:
    """Sums of decimals as the decimals that they are: they take a quarter of the room."""
    rounded = [round(total, _PLACES) for total in totals]
    pairs = zip(rounded, totals, strict=True)
    return rounded if all(math.isclose(a, b, rel_tol=1e-12, abs_tol=1e-12) for a, b in pairs) else list(totals)


def _differences(numbers: Sequence[int]) -> list[int]:
    return [*numbers[:1], *(after - before for before, after in pairwise(numbers))]
