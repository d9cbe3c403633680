"""SQL of `trends.db`: minutes and hours of every point, derived from the history's segments.

A row of `minutes` is an hour of a point, one of `hours` a day. Minutes lie in order of time, so that what is written
together lies together; hours lie point by point, so that a year of one is read in a few pages. An hour goes into
`hours` when a later one has begun, so that each is written once: `hours_from` in `meta` says from when on they are
still to be made of minutes. `cursor` and `mark` name the segment up to which every reading is counted.
"""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from .columns import DamagedError
from .sqlite import Schema
from .tallies import DAY_MS, HOUR_MS, MINUTE_MS, Pieces, Tally, pack_pieces, regroup, unpack_pieces

T = TypeVar("T")


def m001_trends(db: sqlite3.Connection) -> None:
    """Points have short numbers: their names would be half of each row."""
    for statement in (
        "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
        "CREATE TABLE point (name TEXT PRIMARY KEY, id INTEGER NOT NULL) WITHOUT ROWID",
        """CREATE TABLE minutes (at_ms INTEGER NOT NULL, point INTEGER NOT NULL, body BLOB NOT NULL,
           PRIMARY KEY (at_ms, point)) WITHOUT ROWID""",
        """CREATE TABLE hours (point INTEGER NOT NULL, at_ms INTEGER NOT NULL, body BLOB NOT NULL,
           PRIMARY KEY (point, at_ms)) WITHOUT ROWID""",
    ):
        db.execute(statement)


SCHEMA = Schema("trends", (m001_trends,))


def cursor(connection: sqlite3.Connection) -> tuple[int, str]:
    """Newest segment whose readings are in the file, and what it is known by; (0, empty) in a new file."""
    return _meta(connection, "cursor", 0), _meta(connection, "mark", "")


def _meta(connection: sqlite3.Connection, key: str, default: T) -> T:
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return default if row is None else row[0]


# --- writing, inside a transaction -------------------------------------------------------------------------------


def save(
    connection: sqlite3.Connection,
    pending: Mapping[str, Pieces],
    n: int,
    mark: str,
    rest: Callable[[], None] = lambda: None,
) -> None:
    """Add what the segments up to `n` brought since the last time.

    Args:
        pending: minutes by point.
        mark: what segment `n` is known by.
        rest: called now and then, so that others get their turn.
    """
    newest = max((max(pieces) for pieces in pending.values() if pieces), default=0)
    oldest = min((min(pieces) for pieces in pending.values() if pieces), default=0)
    hours_from = _meta(connection, "hours_from", oldest - oldest % HOUR_MS)
    for name, pieces in pending.items():
        number, late = _number(connection, name), Pieces()
        for at_ms, part in _parted(pieces, HOUR_MS).items():
            _add_minutes(connection, number, at_ms, part)
            if at_ms < hours_from:
                regroup(late, part, at_ms, HOUR_MS)
        _add_hours(connection, number, late)
        rest()
    until = max(hours_from, newest - newest % HOUR_MS)
    _close_hours(connection, hours_from, until, rest)
    values = {"cursor": n, "mark": mark, "hours_from": until}
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())


def _close_hours(connection: sqlite3.Connection, from_ms: int, until_ms: int, rest: Callable[[], None]) -> None:
    """Make hours of the minutes from `from_ms` up to `until_ms`."""
    made: dict[int, Pieces] = defaultdict(Pieces)
    sql = "SELECT point, at_ms, body FROM minutes WHERE at_ms >= ? AND at_ms < ?"
    for number, at_ms, body in connection.execute(sql, (from_ms, until_ms)):
        regroup(made[number], _unpacked(body, MINUTE_MS, at_ms), at_ms, HOUR_MS)
        rest()
    for number, pieces in sorted(made.items()):
        _add_hours(connection, number, pieces)
        rest()


def _add_minutes(connection: sqlite3.Connection, number: int, at_ms: int, fresh: Pieces) -> None:
    row = connection.execute("SELECT body FROM minutes WHERE at_ms = ? AND point = ?", (at_ms, number)).fetchone()
    body = pack_pieces(_joined(row, fresh, MINUTE_MS, at_ms), MINUTE_MS, at_ms)
    connection.execute("INSERT OR REPLACE INTO minutes VALUES (?, ?, ?)", (at_ms, number, body))


def _add_hours(connection: sqlite3.Connection, number: int, fresh: Pieces) -> None:
    for at_ms, part in _parted(fresh, DAY_MS).items():
        row = connection.execute("SELECT body FROM hours WHERE point = ? AND at_ms = ?", (number, at_ms)).fetchone()
        body = pack_pieces(_joined(row, part, HOUR_MS, at_ms), HOUR_MS, at_ms)
        connection.execute("INSERT OR REPLACE INTO hours VALUES (?, ?, ?)", (number, at_ms, body))


def _number(connection: sqlite3.Connection, name: str) -> int:
    row = connection.execute("SELECT id FROM point WHERE name = ?", (name,)).fetchone()
    if row is not None:
        return row[0]
    number = connection.execute("SELECT coalesce(max(id), 0) + 1 FROM point").fetchone()[0]
    connection.execute("INSERT INTO point VALUES (?, ?)", (name, number))
    return number


def _joined(row: tuple[bytes] | None, fresh: Pieces, unit_ms: int, at_ms: int) -> Pieces:
    kept = _unpacked(row[0], unit_ms, at_ms) if row is not None else Pieces()
    regroup(kept, fresh, at_ms, unit_ms)
    return kept


def _parted(pieces: Pieces, row_ms: int) -> dict[int, Pieces]:
    rows: dict[int, Pieces] = defaultdict(Pieces)
    for at_ms, tally in pieces.items():
        rows[at_ms - at_ms % row_ms][at_ms] = tally
    return rows


def trim(connection: sqlite3.Connection, from_ms: int) -> None:
    """Forget everything from the minute of `from_ms` on: it will be counted anew."""
    minute, hour, day = (from_ms - from_ms % unit for unit in (MINUTE_MS, HOUR_MS, DAY_MS))
    connection.execute("DELETE FROM minutes WHERE at_ms > ?", (hour,))
    sql = "SELECT point, body FROM minutes WHERE at_ms = ?"
    for number, body in connection.execute(sql, (hour,)).fetchall():
        kept = {at: tally for at, tally in _unpacked(body, MINUTE_MS, hour).items() if at < minute}
        row = (pack_pieces(kept, MINUTE_MS, hour), hour, number)
        connection.execute("UPDATE minutes SET body = ? WHERE at_ms = ? AND point = ?", row)
    for (number,) in connection.execute("SELECT id FROM point").fetchall():
        connection.execute("DELETE FROM hours WHERE point = ? AND at_ms > ?", (number, day))
        row = connection.execute("SELECT body FROM hours WHERE point = ? AND at_ms = ?", (number, day)).fetchone()
        if row is not None:
            kept = {at: tally for at, tally in _unpacked(row[0], HOUR_MS, day).items() if at < hour}
            body = pack_pieces(kept, HOUR_MS, day)
            connection.execute("UPDATE hours SET body = ? WHERE point = ? AND at_ms = ?", (body, number, day))
    hours_from = min(hour, _meta(connection, "hours_from", hour))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('hours_from', ?)", (hours_from,))


def forget(connection: sqlite3.Connection, minutes_before_ms: int, hours_before_ms: int) -> None:
    """Delete what is older. Hours that are not made yet keep their minutes."""
    before_ms = min(minutes_before_ms, _meta(connection, "hours_from", 0))
    connection.execute("DELETE FROM minutes WHERE at_ms <= ?", (before_ms - HOUR_MS,))
    for (number,) in connection.execute("SELECT id FROM point").fetchall():
        connection.execute("DELETE FROM hours WHERE point = ? AND at_ms <= ?", (number, hours_before_ms - DAY_MS))


# --- reading -----------------------------------------------------------------------------------------------------


def minutes(connection: sqlite3.Connection, point: str, from_ms: int, to_ms: int) -> Pieces:
    """Minutes of a point that begin from `from_ms` up to `to_ms`."""
    found = Pieces()
    number = _known(connection, point)
    sql = "SELECT body FROM minutes WHERE at_ms = ? AND point = ?"
    for at_ms in range(from_ms - from_ms % HOUR_MS, to_ms, HOUR_MS) if number is not None else ():
        row = connection.execute(sql, (at_ms, number)).fetchone()
        if row is not None:
            found.update(_within(_unpacked(row[0], MINUTE_MS, at_ms), from_ms, to_ms))
    return found


def hours(connection: sqlite3.Connection, point: str, from_ms: int, to_ms: int) -> Pieces:
    """Hours of a point that begin from `from_ms` up to `to_ms`, those that are not over included."""
    number = _known(connection, point)
    found = Pieces()
    if number is None:
        return found
    sql = "SELECT at_ms, body FROM hours WHERE point = ? AND at_ms > ? AND at_ms < ?"
    for at_ms, body in connection.execute(sql, (number, from_ms - DAY_MS, to_ms)):
        found.update(_within(_unpacked(body, HOUR_MS, at_ms), from_ms, to_ms))
    fresh = max(_meta(connection, "hours_from", 0), from_ms - from_ms % HOUR_MS)
    for at_ms, body in _from_minutes(connection, number, fresh, to_ms):
        regroup(found, _within(_unpacked(body, MINUTE_MS, at_ms), from_ms, to_ms), at_ms, HOUR_MS)
    return found


def pieces(connection: sqlite3.Connection, point: str, from_ms: int, to_ms: int, unit_ms: int) -> Pieces:
    """Minutes or hours, as `unit_ms` says; hours where minutes are not kept any more."""
    coarse = hours(connection, point, from_ms - from_ms % HOUR_MS, to_ms)
    if unit_ms == HOUR_MS:
        return coarse
    fine = minutes(connection, point, from_ms, to_ms)
    known = {at - at % HOUR_MS for at in fine}
    return {**{at: tally for at, tally in coarse.items() if at not in known and at >= from_ms}, **fine}


def _from_minutes(connection: sqlite3.Connection, number: int, from_ms: int, to_ms: int) -> Iterable[tuple[int, bytes]]:
    """Few: what is newer than the last hour that was made."""
    sql = "SELECT at_ms, body FROM minutes WHERE at_ms >= ? AND at_ms < ? AND point = ?"
    return connection.execute(sql, (from_ms, to_ms, number))


def oldest_ms(connection: sqlite3.Connection, point: str) -> int | None:
    """The oldest hour of a point; None where there is none."""
    number = _known(connection, point)
    sql = "SELECT at_ms, body FROM hours WHERE point = ? ORDER BY at_ms LIMIT 1"
    row = connection.execute(sql, (number,)).fetchone() if number is not None else None
    return min(_unpacked(row[1], HOUR_MS, row[0]), default=row[0]) if row is not None else None


def _known(connection: sqlite3.Connection, point: str) -> int | None:
    row = connection.execute("SELECT id FROM point WHERE name = ?", (point,)).fetchone()
    return row[0] if row is not None else None


def _within(pieces: Pieces, from_ms: int, to_ms: int) -> dict[int, Tally]:
    return {at: tally for at, tally in pieces.items() if from_ms <= at < to_ms}


def _unpacked(body: bytes, unit_ms: int, at_ms: int) -> Pieces:
    """A row that is damaged, which SQLite did not notice, counts as empty: the others stay readable."""
    try:
        return unpack_pieces(body, unit_ms, at_ms)
    except DamagedError:
        return {}
