"""What a data folder holds, read while its gateway runs or not: nothing here writes.

Short reads, one segment at a time: a long one would keep the daemon's log from being emptied. Readings that the daemon
still holds in memory (`flush_s`) are not seen.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PermanentError
from ..words import ClockState, Instant, Reading, utc_from_text
from .columns import Block, Column, DamagedError, decompress, readings, unpack
from .sqlite import connect_for_reading

_SPANS = "SELECT n, t0_ms, t1_ms, count FROM segment ORDER BY n"
_KINDS = "SELECT data FROM record WHERE {} ORDER BY seq"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A sealed run of readings: its number, its time (UTC ms), how many readings."""

    n: int
    t0_ms: int
    t1_ms: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A record as far as a replay needs it."""

    seq: int
    kind: str
    at: Instant
    body: dict[str, Any]


class RecordedHistory:
    """A `history.db`, as it was when it was opened: `spans`, and the readings that were in no segment yet.

    Args:
        path: the file.

    Attributes:
        spans: of the segments, in the order in which they were sealed.
        lost: segments that could not be read, or were deleted meanwhile.

    Raises:
        PermanentError: on entering: there is no such file, or it is not a history.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spans: list[Span] = []
        self.lost = 0
        self._tail: list[bytes] = []
        self._connection: sqlite3.Connection | None = None

    def __enter__(self) -> RecordedHistory:
        with _named(self.path, "history"):
            connection = connect_for_reading(self.path)
            try:
                with _snapshot(connection):
                    rows = connection.execute(_SPANS)
                    self.spans = [Span(n=n, t0_ms=t0, t1_ms=t1, count=count) for n, t0, t1, count in rows]
                    self._tail = [body for (body,) in connection.execute("SELECT body FROM tail ORDER BY id")]
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self

    def __exit__(self, *_: object) -> None:
        assert self._connection is not None
        self._connection.close()

    def read(self, span: Span, point: str | None = None) -> list[Reading]:
        """Its readings, point by point; empty when it cannot be read. With `point`, of that point alone."""
        return readings(self._blocks(span, _only(point)))

    def tail(self, point: str | None = None) -> Iterator[list[Reading]]:
        """The readings that were in no segment yet, in runs."""
        for body in self._tail:
            yield readings(self._unpack(body, _only(point)))

    def columns(self, span: Span, points: Collection[str]) -> list[Column]:
        """As `read`, of some points, without a Reading for each."""
        return [column for block in self._blocks(span, points) for column in block.columns]

    def tail_columns(self, points: Collection[str]) -> Iterator[Column]:
        """As `tail`."""
        for body in self._tail:
            for block in self._unpack(body, points):
                yield from block.columns

    def _blocks(self, span: Span, points: Collection[str] | None) -> list[Block]:
        assert self._connection is not None, "the history is not open"
        row = self._connection.execute("SELECT body FROM body WHERE n = ?", (span.n,)).fetchone()
        if row is None:
            self.lost += 1
            return []
        return self._unpack(row[0], points)

    def _unpack(self, body: bytes, points: Collection[str] | None) -> list[Block]:
        try:
            return unpack(decompress(body), points=points)
        except DamagedError:
            self.lost += 1
            return []


def _only(point: str | None) -> tuple[str] | None:
    return None if point is None else (point,)


def recorded_events(path: Path, prefixes: Sequence[str]) -> Iterator[Event]:
    """Records of a `journal.db` whose kind begins with one of `prefixes`, in order.

    Raises:
        PermanentError: there is no such file, or it is not a journal.
    """
    where = " OR ".join("kind GLOB ?" for _ in prefixes)
    with _named(path, "journal"), contextlib.closing(connect_for_reading(path)) as connection:
        for (data,) in connection.execute(_KINDS.format(where), [f"{prefix}*" for prefix in prefixes]):
            yield _event(json.loads(data))


def newest_record(path: Path) -> Event | None:
    """The newest record of a `journal.db`, None when it has none. Raises PermanentError."""
    with _named(path, "journal"), contextlib.closing(connect_for_reading(path)) as connection:
        row = connection.execute("SELECT data FROM record ORDER BY seq DESC LIMIT 1").fetchone()
    return _event(json.loads(row[0])) if row else None


def gateway_of(path: Path) -> str:
    """Whose journal this is. Raises PermanentError when it is none."""
    with _named(path, "journal"), contextlib.closing(connect_for_reading(path)) as connection:
        row = connection.execute("SELECT value FROM meta WHERE key = 'gateway'").fetchone()
    if row is None:
        raise PermanentError(f"{path}: an empty journal", hint="name the data folder of a gateway that has run")
    return row[0]


def _event(fields: dict[str, Any]) -> Event:
    at = fields["at"]
    clock = ClockState(at["clock"])
    instant = Instant(utc_ms=utc_from_text(at["utc"]), mono_s=at["mono"], boot=at["boot"], clock=clock)
    return Event(seq=fields["seq"], kind=fields["kind"], at=instant, body=fields["body"])


@contextlib.contextmanager
def _snapshot(connection: sqlite3.Connection) -> Iterator[None]:
    """What is read inside belongs together: a segment and the tail that it was are never both seen."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


@contextlib.contextmanager
def _named(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, KeyError, ValueError) as error:
        hint = f"name the data folder of a gateway: its {what}.db must be there, and this user may read it"
        raise PermanentError(f"{path}: not a {what} that can be read: {error}", hint=hint) from error
