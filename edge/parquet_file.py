"""Rows of the history as Parquet; the only file that imports pyarrow, which loads where somebody asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

_TEXT = pa.dictionary(pa.int32(), pa.string())
_TIME = pa.timestamp("ms", tz="UTC")
_RAW = pa.schema(
    [
        ("time", _TIME),
        ("point", _TEXT),
        ("name", _TEXT),
        ("value", pa.float64()),
        ("unit", _TEXT),
        ("quality", _TEXT),
        ("why", _TEXT),
    ]
)
_BUCKETS = pa.schema(
    [
        ("time", _TIME),
        ("point", _TEXT),
        ("name", _TEXT),
        ("unit", _TEXT),
        ("count", pa.int64()),
        ("min", pa.float64()),
        ("mean", pa.float64()),
        ("max", pa.float64()),
        ("last", pa.float64()),
        ("bad", pa.int64()),
        ("worst_quality", _TEXT),
    ]
)
_GROUP_ROWS = 65_536
"""Of a row group: what is in memory at once."""


def write_parquet(out: BinaryIO, parts: Iterable[Sequence[Sequence[object]]], *, is_raw: bool) -> None:
    """Write rows in row groups of 65,536, compressed with zstd.

    Args:
        out: gets bytes in order; need not be seekable.
        parts: rows in the order of the columns, times as UTC milliseconds.
        is_raw: readings, not buckets.
    """
    schema = _RAW if is_raw else _BUCKETS
    waiting: list[Sequence[object]] = []
    with pq.ParquetWriter(pa.PythonFile(out, mode="w"), schema, compression="zstd") as writer:
        for part in parts:
            waiting.extend(part)
            if len(waiting) >= _GROUP_ROWS:
                writer.write_table(_table(waiting, schema))
                waiting.clear()
        if waiting:
            writer.write_table(_table(waiting, schema))


def _table(rows: Sequence[Sequence[object]], schema: Any) -> Any:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, type=field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
