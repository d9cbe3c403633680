"""The room that a history takes: how much, how much it may, and what goes when it may not have it.

The oldest segments go. Headquarters takes them in order, so what it has already is among them. In place of those that
it never had the uplink declares a gap; the journal is told of each drop, also after a restart in between.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from .gaps import Why
from .sqlite import is_full
from .state import transaction

T = TypeVar("T")

_log = logging.getLogger(__name__)

_LEAST_PAGES, _LEAST_DROP, _PART = 256, 256 * 1024, 50
"""Room is made for a fiftieth of the file, at least 256 KiB: not a record for each segment."""
_KEPT_ROWS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Dropped:
    """A run of segments that went, for one reason.

    Attributes:
        first, last: numbers. t0_ms, t1_ms: UTC milliseconds of the oldest and newest reading.
        segments, readings, bytes: how many they were and held.
        durable: of the segments, how many headquarters keeps for good.
    """

    id: int
    first: int
    last: int
    t0_ms: int
    t1_ms: int
    segments: int
    readings: int
    bytes: int
    durable: int
    why: str

    @property
    def lost(self) -> int:
        """How many segments nobody has any more."""
        return self.segments - self.durable

    def to_json(self) -> dict[str, Any]:
        """For the record."""
        names = ("first", "last", "t0_ms", "t1_ms", "segments", "readings", "bytes")
        return {**{name: getattr(self, name) for name in names}, "lost": self.lost, "reason": self.why}


def m003_dropped(db: sqlite3.Connection) -> None:
    """`told`: the journal says so."""
    db.execute(
        """CREATE TABLE dropped (id INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL,
           t0_ms INTEGER NOT NULL, t1_ms INTEGER NOT NULL, segments INTEGER NOT NULL, readings INTEGER NOT NULL,
           bytes INTEGER NOT NULL, durable INTEGER NOT NULL, why TEXT NOT NULL, told INTEGER NOT NULL DEFAULT 0)"""
    )


def drop_oldest(connection: sqlite3.Connection, wanted: int, durable: int, why: str) -> bool:
    """Delete the oldest segments until `wanted` bytes of bodies went; False when there is none to delete.

    Args:
        durable: newest segment that headquarters keeps for good.
    """
    size, last = 0, 0
    rows = connection.execute("SELECT n, length(body) FROM body ORDER BY n")
    for n, length in rows:
        if size >= wanted and last:
            break
        last, size = n, size + length
    rows.close()
    if not last:
        return False
    sql = "SELECT min(n), max(n), min(t0_ms), max(t1_ms), count(*), sum(count), sum(n <= ?) FROM segment WHERE n <= ?"
    first, last, t0_ms, t1_ms, segments, readings, kept = connection.execute(sql, (durable, last)).fetchone()
    connection.execute("DELETE FROM body WHERE n <= ?", (last,))  # before anything is added: there is no room for it
    connection.execute("DELETE FROM segment WHERE n <= ?", (last,))
    row = (first, last, t0_ms, t1_ms, segments, readings, size, kept, str(why))
    sql = (
        "INSERT INTO dropped (first, last, t0_ms, t1_ms, segments, readings, bytes, durable, why)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
    )
    connection.execute(sql, row)
    connection.execute("DELETE FROM dropped WHERE told AND id <= (SELECT max(id) FROM dropped) - ?", (_KEPT_ROWS,))
    return True


class HistoryRoom:
    """What `History` does about its size.

    Args:
        relief: asked for room on the device, on the writer's thread, before anything is dropped for it.
    """

    path: Path
    durable: int

    def __init__(self, relief: Callable[[], bool]) -> None:
        self._relief = relief
        self._most_bytes = 0

    async def _write(self, job: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def _query(self, read: Callable[[sqlite3.Connection], T]) -> T:
        raise NotImplementedError

    async def size(self) -> int:
        """Bytes that are used in the file."""
        return await self._query(_used_bytes)

    async def can_shrink(self) -> bool:
        """Whether the file gives space back; those that older versions made do not."""
        return await self._query(lambda connection: _pragma(connection, "auto_vacuum")) == 2

    async def limit(self, most_bytes: int) -> None:
        """The file may not grow beyond this: the oldest makes room for the new. A larger file stays as it is."""
        if most_bytes != self._most_bytes:
            self._most_bytes = most_bytes
            await self._write(self._set_limit)

    async def drop_oldest(self, wanted: int, why: str = Why.DISK) -> bool:
        """Delete the oldest segments; False when there is none. The journal must be told: see `untold`."""

        def job(connection: sqlite3.Connection) -> bool:
            dropped = drop_oldest(connection, wanted, self.durable, why)
            if why == Why.DISK:
                for _ in range(_pragma(connection, "freelist_count")):  # Python steps it once: one page
                    connection.execute("PRAGMA incremental_vacuum")
            return dropped

        return await self._write(job)

    async def untold(self) -> list[Dropped]:
        """Drops that the journal does not know of yet, also of an earlier process."""
        sql = (
            "SELECT id, first, last, t0_ms, t1_ms, segments, readings, bytes, durable, why FROM dropped"
            " WHERE NOT told ORDER BY id"
        )
        rows = await self._query(lambda connection: connection.execute(sql).fetchall())
        return [Dropped(**dict(zip(Dropped.__slots__, row, strict=True))) for row in rows]

    async def told(self, dropped: Sequence[Dropped]) -> None:
        """The journal knows of these."""
        numbers = [(one.id,) for one in dropped]
        await self._write(
            lambda connection: connection.executemany("UPDATE dropped SET told = 1 WHERE id = ?", numbers)
        )

    async def why_gone(self, n: int) -> str:
        """Why segment `n` is not kept any more."""
        sql = "SELECT why FROM dropped WHERE first <= ? AND last >= ? ORDER BY id DESC LIMIT 1"
        row = await self._query(lambda connection: connection.execute(sql, (n, n)).fetchone())
        return row[0] if row else Why.KEPT_OUT

    def _set_limit(self, connection: sqlite3.Connection) -> None:
        if self._most_bytes:
            pages = max(_LEAST_PAGES, self._most_bytes // _pragma(connection, "page_size"))
            connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    def _make_room(self, connection: sqlite3.Connection) -> bool:
        """On the writer's thread. A file at its own limit drops its oldest; on a full device room is asked for as well,
        because dropping takes some until it is done."""
        pages, most = _pragma(connection, "page_count"), _pragma(connection, "max_page_count")
        is_limited = pages >= most - max(8, most // _PART)  # a blob takes several pages
        released = not is_limited and self._relief()
        why = Why.BUDGET if is_limited else Why.DISK
        wanted = max(_LEAST_DROP, pages * _pragma(connection, "page_size") // _PART)
        try:
            with transaction(connection):
                dropped = drop_oldest(connection, wanted, self.durable, why)
            if not is_limited:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        except sqlite3.OperationalError as error:
            if not is_full(error):
                raise
            return released or self._relief()
        if dropped:
            _log.warning("%s: its oldest segments make room: %s", self.path, why)
        return dropped or released


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return connection.execute(f"PRAGMA {name}").fetchone()[0]


def _used_bytes(connection: sqlite3.Connection) -> int:
    used = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
    return used * _pragma(connection, "page_size")
