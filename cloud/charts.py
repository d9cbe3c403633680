"""Charts at headquarters, from the history that gateways sent: minutes and hours of each point.

A projection of the stored segments: it keeps its own cursor in the transaction that writes its rows, so every reading
counts once, and all of it can be dropped and made again. A row holds an hour in minutes, another a day in hours: a year
of a point is 366 small rows.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ..sync.columns import Block, Column, DamagedError, decompress, pack_msgpack, unpack, unpack_msgpack
from ..words import Quality
from .engine import Database, Step, Tx

log = logging.getLogger(__name__)

MINUTE_MS, HOUR_MS, DAY_MS = 60_000, 3_600_000, 86_400_000
MOST_PIXELS = 4_000
FINE_SPAN_MS = 14 * DAY_MS
"""Longer ranges are drawn from hours."""
_SEGMENTS = 40
_IDLE_S = 2.0

STEPS = (
    Step(
        "m020_charts",
        (
            """CREATE TABLE chart_cursor (gateway TEXT NOT NULL, epoch TEXT NOT NULL, n INTEGER NOT NULL,
               PRIMARY KEY (gateway, epoch)) WITHOUT ROWID""",
            """CREATE TABLE chart_point (gateway TEXT NOT NULL, point TEXT NOT NULL, first_ms INTEGER NOT NULL,
               last_ms INTEGER NOT NULL, PRIMARY KEY (gateway, point)) WITHOUT ROWID""",
            """CREATE TABLE chart_row (gateway TEXT NOT NULL, point TEXT NOT NULL, unit_ms INTEGER NOT NULL,
               at_ms INTEGER NOT NULL, body BLOB NOT NULL, PRIMARY KEY (gateway, point, unit_ms, at_ms))
               WITHOUT ROWID""",
        ),
    ),
)


@dataclass(slots=True)
class Tally:
    """What a piece of time held. `bad` counts readings without a value that can be trusted; they are in no number."""

    count: int = 0
    total: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    bad: int = 0

    def add(self, value: float | None, quality: Quality) -> None:
        if value is None or quality is Quality.BAD:
            self.bad += 1
            return
        self.count += 1
        self.total += value
        if value < self.low:
            self.low = value
        if value > self.high:
            self.high = value

    def join(self, other: Tally) -> None:
        self.count += other.count
        self.total += other.total
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.bad += other.bad


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """One pixel of a chart. `mean`, `low`, `high` are None where nothing good was measured."""

    at_ms: int
    count: int
    mean: float | None
    low: float | None
    high: float | None
    bad: int


Row = tuple[str, int, int]
"""Point, length of its pieces in ms, beginning in ms."""


@dataclass(slots=True)
class Fold:
    """Segments worked out, before they are written."""

    rows: dict[Row, dict[int, Tally]] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)

    def take(self, blocks: Iterable[Block]) -> None:
        """Add the readings of a segment."""
        for block in blocks:
            for column in block.columns:
                if column.utc_ms:
                    self._add(column)
                    self._span(column.point, min(column.utc_ms), max(column.utc_ms))

    def add_hours(self) -> None:
        """Of all minutes that were taken; once, at the end."""
        for (point, _, row_ms), minutes in list(self.rows.items()):
            hour = row_ms % DAY_MS // HOUR_MS
            tally = self.rows.setdefault((point, HOUR_MS, row_ms - row_ms % DAY_MS), {}).setdefault(hour, Tally())
            for minute in minutes.values():
                tally.join(minute)

    def _add(self, column: Column) -> None:
        """A look-up for each minute, not for each reading: this is most of the work."""
        tally, minute = Tally(), -1
        for utc_ms, value, quality in zip(column.utc_ms, column.values, column.qualities, strict=True):
            if utc_ms // MINUTE_MS != minute:
                minute = utc_ms // MINUTE_MS
                row = self.rows.setdefault((column.point, MINUTE_MS, utc_ms - utc_ms % HOUR_MS), {})
                tally = row.setdefault(utc_ms % HOUR_MS // MINUTE_MS, Tally())
            tally.add(value, quality)

    def _span(self, point: str, first_ms: int, last_ms: int) -> None:
        first, last = self.spans.get(point, (first_ms, last_ms))
        self.spans[point] = (min(first, first_ms), max(last, last_ms))


class Charts:
    """Keeps the projection up, and answers for pages."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def run(self, busy: Callable[[], bool] = lambda: False) -> NoReturn:
        """Follow what comes in, for ever; rests as long as it works, so that ingest comes first.

        Args:
            busy: whether gateways wait; it then rests ten times as long.
        """
        while True:
            begun_s = time.monotonic()
            more = await self.step(busy)
            rest_s = (time.monotonic() - begun_s) * (10 if busy() else 1)
            await asyncio.sleep(rest_s if more else _IDLE_S)

    async def step(self, busy: Callable[[], bool] = lambda: False) -> bool:
        """Work out up to some segments of the gateway that is furthest behind, one while gateways wait; whether there
        was something."""
        found = await self._database.read(_furthest_behind)
        if found is None:
            return False
        gateway, epoch, n = found
        bodies = await self._database.read(lambda tx: _segments(tx, gateway, epoch, n))
        fold, done = await asyncio.to_thread(_folded, gateway, bodies, busy)
        last = bodies[done - 1][0] if bodies else n + 1
        await self._database.write(lambda tx: _store(tx, gateway, epoch, n, last, fold), key=gateway)
        return True

    async def points(self, gateway: str) -> list[tuple[str, int, int]]:
        """Id, first and last reading (UTC ms) of each point that ever came."""
        sql = "SELECT point, first_ms, last_ms FROM chart_point WHERE gateway = ? ORDER BY point"
        return [(row[0], row[1], row[2]) for row in await self._database.read(lambda tx: tx.all(sql, gateway))]

    async def buckets(self, gateway: str, point: str, from_ms: int, to_ms: int, pixels: int) -> list[Bucket]:
        """A point from `from_ms` up to `to_ms` in at most `pixels` buckets; those without readings are left out."""
        unit_ms, row_ms = (MINUTE_MS, HOUR_MS) if to_ms - from_ms <= FINE_SPAN_MS else (HOUR_MS, DAY_MS)
        sql = (
            "SELECT at_ms, body FROM chart_row WHERE gateway = ? AND point = ? AND unit_ms = ?"
            " AND at_ms > ? AND at_ms < ? ORDER BY at_ms"
        )
        rows = await self._database.read(lambda tx: tx.all(sql, gateway, point, unit_ms, from_ms - row_ms, to_ms))
        width_ms = width_of(to_ms - from_ms, pixels)
        return await asyncio.to_thread(_bucketed, rows, unit_ms, from_ms, to_ms, width_ms)


def width_of(span_ms: int, pixels: int) -> int:
    """Milliseconds of a bucket: whole minutes, or hours for a long span."""
    unit_ms = MINUTE_MS if span_ms <= FINE_SPAN_MS else HOUR_MS
    return max(unit_ms, math.ceil(span_ms / max(1, min(pixels, MOST_PIXELS)) / unit_ms) * unit_ms)


# --- inside the transaction --------------------------------------------------------------------------------------


async def _furthest_behind(tx: Tx) -> tuple[str, str, int] | None:
    sql = (
        "SELECT ack.gateway, ack.epoch, coalesce(chart_cursor.n, 0) FROM ack LEFT JOIN chart_cursor"
        " ON chart_cursor.gateway = ack.gateway AND chart_cursor.epoch = ack.epoch"
        " WHERE ack.stream = 'history' AND ack.ack > coalesce(chart_cursor.n, 0)"
        " ORDER BY ack.ack - coalesce(chart_cursor.n, 0) DESC LIMIT 1"
    )
    row = await tx.one(sql)
    return (row[0], row[1], row[2]) if row else None


async def _segments(tx: Tx, gateway: str, epoch: str, n: int) -> list[tuple[int, bytes | None]]:
    sql = (
        "SELECT n, body FROM batch WHERE gateway = ? AND stream = 'history' AND epoch = ? AND n > ? ORDER BY n LIMIT ?"
    )
    return [(row[0], row[1]) for row in await tx.all(sql, gateway, epoch, n, _SEGMENTS)]


async def _store(tx: Tx, gateway: str, epoch: str, before: int, last: int, fold: Fold) -> None:
    """Add what was worked out, unless another process was there first."""
    await tx.lock(f"charts/{gateway}")
    row = await tx.one("SELECT n FROM chart_cursor WHERE gateway = ? AND epoch = ?", gateway, epoch)
    if (row[0] if row else 0) != before:
        return
    for (point, unit_ms, at_ms), fresh in fold.rows.items():
        key = (gateway, point, unit_ms, at_ms)
        sql = "SELECT body FROM chart_row WHERE gateway = ? AND point = ? AND unit_ms = ? AND at_ms = ?"
        kept = await tx.one(sql, *key)
        body = _packed(_joined(_unpacked(kept[0]) if kept else {}, fresh))
        upsert = (
            "INSERT INTO chart_row VALUES (?, ?, ?, ?, ?)"
            " ON CONFLICT (gateway, point, unit_ms, at_ms) DO UPDATE SET body = excluded.body"
        )
        await tx.run(upsert, *key, body)
    for point, (first_ms, last_ms) in fold.spans.items():
        await _span(tx, gateway, point, first_ms, last_ms)
    upsert = "INSERT INTO chart_cursor VALUES (?, ?, ?) ON CONFLICT (gateway, epoch) DO UPDATE SET n = excluded.n"
    await tx.run(upsert, gateway, epoch, last)


async def _span(tx: Tx, gateway: str, point: str, first_ms: int, last_ms: int) -> None:
    sql = "SELECT first_ms, last_ms FROM chart_point WHERE gateway = ? AND point = ?"
    if (known := await tx.one(sql, gateway, point)) is not None:
        first_ms, last_ms = min(first_ms, known[0]), max(last_ms, known[1])
    upsert = (
        "INSERT INTO chart_point VALUES (?, ?, ?, ?) ON CONFLICT (gateway, point) DO UPDATE SET"
        " first_ms = excluded.first_ms, last_ms = excluded.last_ms"
    )
    await tx.run(upsert, gateway, point, first_ms, last_ms)


# --- pure --------------------------------------------------------------------------------------------------------


def _folded(gateway: str, bodies: Sequence[tuple[int, bytes | None]], busy: Callable[[], bool]) -> tuple[Fold, int]:
    """What the segments hold, and how many of them were taken: it ends early, but not before the first, when busy."""
    fold, done = Fold(), 0
    for n, body in bodies:
        if done and busy():
            break
        done += 1
        if body is None:
            continue  # set aside, or dropped by the gateway
        try:
            fold.take(unpack(decompress(body)))
        except DamagedError as error:  # it was whole when it was taken
            log.warning("%s: segment %d is damaged here: %s", gateway, n, error)
    fold.add_hours()
    return fold, done


def _joined(kept: dict[int, Tally], fresh: Mapping[int, Tally]) -> dict[int, Tally]:
    for piece, tally in fresh.items():
        kept.setdefault(piece, Tally()).join(tally)
    return kept


def _packed(pieces: Mapping[int, Tally]) -> bytes:
    rows = [[p, t.count, t.bad, *([t.total, t.low, t.high] if t.count else [])] for p, t in sorted(pieces.items())]
    return pack_msgpack(rows)


def _unpacked(body: bytes) -> dict[int, Tally]:
    found: dict[int, Tally] = {}
    for piece, count, bad, *numbers in unpack_msgpack(body):
        total, low, high = numbers or (0.0, math.inf, -math.inf)
        found[piece] = Tally(count=count, total=total, low=low, high=high, bad=bad)
    return found


def _bucketed(rows: Sequence[tuple[int, bytes]], unit_ms: int, from_ms: int, to_ms: int, width_ms: int) -> list[Bucket]:
    found: dict[int, Tally] = {}
    for row_ms, body in rows:
        for piece, tally in _unpacked(body).items():
            at_ms = row_ms + piece * unit_ms
            if from_ms - unit_ms < at_ms < to_ms:
                place = max(from_ms, at_ms)
                found.setdefault(place - (place - from_ms) % width_ms, Tally()).join(tally)
    return [
        Bucket(
            at_ms=at_ms,
            count=tally.count,
            mean=tally.total / tally.count if tally.count else None,
            low=tally.low if tally.count else None,
            high=tally.high if tally.count else None,
            bad=tally.bad,
        )
        for at_ms, tally in sorted(found.items())
    ]
