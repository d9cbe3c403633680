"""The history as CSV or Parquet, row by row: what `sitewarden history` writes and the pages offer.

The daemon has it done in a process of its own, `python -m sitewarden.edge.history_export`: a year of readings takes a
while and, as Parquet, a library that would stay in memory. The order comes on standard input, the file goes to
standard output, and lines of `done total` go to standard error.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import BinaryIO
from zoneinfo import ZoneInfo

import msgspec

from ..errors import PermanentError
from ..sync.columns import Column
from ..sync.recorded import RecordedHistory
from ..sync.recorded_trends import RecordedTrends
from ..sync.tallies import DAY_MS, HOUR_MS, MINUTE_MS, QUALITIES, Pieces, Tally, regroup
from ..words import utc_text
from .csv_lines import BOM, lines

RAW_HEADER = ("时间 Time", "UTC", "测点 Point", "名称 Name", "数值 Value", "单位 Unit", "质量 Quality", "原因 Why")
BUCKET_HEADER = (
    *("时间 Time", "UTC", "测点 Point", "名称 Name", "单位 Unit", "个数 Count"),
    *("最小 Min", "平均 Mean", "最大 Max", "最后 Last", "坏值个数 Bad", "最差质量 Worst quality"),
)
_MEAN_DIGITS = 12
_NICE = 10
"""Alarms come first."""

Progress = Callable[[int, int], None]
Row = tuple[object, ...]


class ExportPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A point as the file names it."""

    id: str
    name: str = ""
    unit: str = ""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be written.

    Attributes:
        data: folder of the stores.
        from_ms, to_ms: UTC milliseconds; `to_ms` is not included.
        bucket_ms: 0: every reading; else whole minutes.
        format: `csv` or `parquet`.
        timezone: of the local times, an IANA name.
    """

    data: str
    points: tuple[ExportPoint, ...]
    from_ms: int
    to_ms: int
    bucket_ms: int = 0
    format: str = "csv"
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """How many rows, and how many segments could not be read."""

    rows: int
    lost: int


def has_parquet() -> bool:
    """Whether the optional library is there."""
    return importlib.util.find_spec("pyarrow") is not None


def require_parquet() -> None:
    """Raises PermanentError that says what to install."""
    if not has_parquet():
        raise PermanentError("Parquet needs the library pyarrow", hint="pip install 'sitewarden[parquet]', or use CSV")


def write_history(order: Order, out: BinaryIO, progress: Progress = lambda _done, _total: None) -> Written:
    """Write the file that is ordered, as it is read.

    Args:
        out: gets bytes; need not be seekable.
        progress: gets how much of how much is done, now and then.

    Raises:
        PermanentError: no history in the folder, or no library for Parquet.
        OSError: of `out`.
    """
    counted = Counted()
    rows = _bucket_rows(order, progress) if order.bucket_ms else _raw_rows(order, progress, counted)
    if order.format == "parquet":
        require_parquet()
        from .parquet_file import write_parquet

        write_parquet(out, counted.of(rows), is_raw=not order.bucket_ms)
    else:
        first, zone = next(rows, []), ZoneInfo(order.timezone)  # what cannot be read is told before anything is written
        out.write(BOM.encode() + lines([BUCKET_HEADER if order.bucket_ms else RAW_HEADER]))
        out.writelines(_csv_lines(part, zone) for part in counted.of(chain([first], rows)))
    return Written(rows=counted.rows, lost=counted.lost)


def _csv_lines(rows: Sequence[Row], zone: ZoneInfo) -> bytes:
    return lines((_local(row[0], zone), utc_text(_ms(row[0])), *row[1:]) for row in rows)


@dataclass(slots=True)
class Counted:
    """What went through."""

    rows: int = 0
    lost: int = 0

    def of(self, parts: Iterator[list[Row]]) -> Iterator[list[Row]]:
        """The same, counted."""
        for part in parts:
            self.rows += len(part)
            yield part


def _ms(value: object) -> int:
    assert isinstance(value, int)
    return value


def _local(value: object, zone: ZoneInfo) -> str:
    return datetime.fromtimestamp(_ms(value) / 1000, zone).isoformat(" ", "milliseconds")


# --- every reading -----------------------------------------------------------------------------------------------


def _raw_rows(order: Order, progress: Progress, counted: Counted) -> Iterator[list[Row]]:
    """(UTC ms, point, name, value, unit, quality, why), segment by segment; within one in order of time."""
    points = {point.id: point for point in order.points}
    with RecordedHistory(Path(order.data) / "history.db") as history:
        spans = [span for span in history.spans if span.t1_ms >= order.from_ms and span.t0_ms < order.to_ms]
        for done, span in enumerate(spans):
            progress(done, len(spans))
            yield _readings(history.columns(span, points), points, order)
        yield _readings(list(history.tail_columns(points)), points, order)
        counted.lost = history.lost
    progress(len(spans), len(spans))


def _readings(columns: Sequence[Column], points: dict[str, ExportPoint], order: Order) -> list[Row]:
    rows: list[Row] = []
    for column in columns:
        point = points[column.point]
        for utc_ms, value, quality, why in zip(
            column.utc_ms, column.values, column.qualities, column.whys, strict=True
        ):
            if order.from_ms <= utc_ms < order.to_ms:
                rows.append((utc_ms, point.id, point.name, value, point.unit, quality.value, why))
    rows.sort(key=lambda row: (_ms(row[0]), str(row[1])))
    return rows


# --- buckets -----------------------------------------------------------------------------------------------------


def _bucket_rows(order: Order, progress: Progress) -> Iterator[list[Row]]:
    """(UTC ms, point, name, unit, count, min, mean, max, last, bad, worst quality), point by point.

    Buckets begin at multiples of their length on the local clock as it stands at the beginning: a day at midnight.
    """
    width_ms = order.bucket_ms
    offset = datetime.fromtimestamp(order.from_ms / 1000, ZoneInfo(order.timezone)).utcoffset()
    shift_ms = round(offset.total_seconds() * 1000) if offset is not None else 0
    begin_ms = order.from_ms - (order.from_ms + shift_ms) % width_ms
    unit_ms = HOUR_MS if width_ms % HOUR_MS == 0 and begin_ms % HOUR_MS == 0 else MINUTE_MS
    begin_ms -= begin_ms % MINUTE_MS
    step_ms = max(width_ms, DAY_MS - DAY_MS % width_ms)
    chunks = [(point, at) for point in order.points for at in range(begin_ms, order.to_ms, step_ms)]
    ids = [point.id for point in order.points]
    until_ms = order.to_ms + -order.to_ms % unit_ms
    with RecordedTrends(Path(order.data), ids, begin_ms, until_ms, progress) as trends:
        for done, (point, at) in enumerate(chunks):
            progress(done, len(chunks))
            pieces = trends.pieces(point.id, at, min(at + step_ms, until_ms), unit_ms)
            buckets = Pieces()
            regroup(buckets, pieces, begin_ms, width_ms)
            yield [_bucket_row(utc_ms, point, tally) for utc_ms, tally in sorted(buckets.items())]
    progress(len(chunks), len(chunks))


def _bucket_row(utc_ms: int, point: ExportPoint, tally: Tally) -> Row:
    numbers = (None, None, None, None)
    if tally.mean is not None:
        mean = float(f"{tally.mean:.{_MEAN_DIGITS}g}")
        numbers = (tally.low, mean, tally.high, tally.last)
    worst = QUALITIES[tally.worst].value
    return (utc_ms, point.id, point.name, point.unit, tally.count, *numbers, tally.bad, worst)


# --- the process -------------------------------------------------------------------------------------------------


def main() -> int:
    """Do what standard input orders; 0 when it was done."""

    def progress(done: int, total: int) -> None:
        percent = done * 100 // total if total else 100
        if percent != told[0]:
            told[0] = percent
            print(done, total, file=sys.stderr, flush=True)

    told = [-1]
    os.nice(_NICE)
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        write_history(order, sys.stdout.buffer, progress)
        sys.stdout.buffer.flush()
    except (PermanentError, OSError) as error:
        print(f"error {error}", file=sys.stderr, flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
