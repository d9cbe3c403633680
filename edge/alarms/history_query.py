"""The alarm history as people search it: a narrow table beside the records, and its SQL.

A record is a kilobyte of JSON; what filters and statistics look at is a hundred bytes. They stand in a table of their
own, derived from the records, so that a filter that fits nothing reads 200,000 of them in a moment. Readings are cut
into chunks of `CHUNK` rows: between two of them others get their turn at the journal, and no reading lasts long enough
to keep the writer from checkpointing.
"""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...sync.journal import Record, StateTable
from ...words import utc_from_text
from .statistics import Event
from .table import event_json

CHUNK = 20_000
"""Rows that one reading looks at."""
NEVER = 2**62
"""Higher than every number of a record."""

SCHEMA = """
CREATE TABLE alarm_history (
    seq INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    alarm TEXT NOT NULL,
    occurrence INTEGER NOT NULL,
    change TEXT NOT NULL,
    area TEXT NOT NULL,
    point TEXT NOT NULL,
    kind TEXT NOT NULL,
    priority INTEGER NOT NULL,
    state TEXT NOT NULL,
    active INTEGER NOT NULL,
    covered INTEGER NOT NULL,
    acked INTEGER NOT NULL,
    actor TEXT NOT NULL,
    names TEXT NOT NULL
);
CREATE INDEX alarm_history_at ON alarm_history (at_ms)
"""


def apply(connection: sqlite3.Connection, record: Record) -> None:
    """One row for each record."""
    alarm, at_ms = record.body["alarm"], utc_from_text(record.at["utc"])
    event = Event.of_record(record.kind, at_ms, alarm, "")
    row = (
        record.seq,
        at_ms,
        alarm["id"],
        alarm["occurrence"],
        record.kind.removeprefix("alarm."),
        alarm["area"],
        alarm["point"],
        alarm["kind"] or "",
        alarm["priority"],
        alarm["state"],
        event.active,
        event.covered,
        event.acked,
        record.actor,
        f"{alarm['id']}\n{alarm['name']}\n{alarm['name_en']}",
    )
    connection.execute(f"INSERT INTO alarm_history VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608


TABLE = StateTable(
    name="alarm_history", version=1, schema=SCHEMA, tables=("alarm_history",), kinds=("alarm.",), apply=apply
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a search asks for; empty fields ask for nothing. Several values of one field: any of them.

    Attributes:
        from_ms, to_ms: UTC milliseconds, the end excluded.
        kinds: `hihi`, `hi` …; changes: `raised`, `acked` …; persons: ids, or `gateway`.
        text: part of the alarm's name in either language, or of its id; case does not count in ASCII.
    """

    from_ms: int | None = None
    to_ms: int | None = None
    areas: tuple[str, ...] = ()
    points: tuple[str, ...] = ()
    alarms: tuple[str, ...] = ()
    priorities: tuple[int, ...] = ()
    kinds: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    persons: tuple[str, ...] = ()
    text: str = ""

    def sql(self) -> tuple[str, list[Any]]:
        """A condition on a row, and its values."""
        parts, values = ["1"], list[Any]()
        for column, compared, value in (("at_ms", ">=", self.from_ms), ("at_ms", "<", self.to_ms)):
            if value is not None:
                parts.append(f"{column} {compared} ?")
                values.append(value)
        for column, any_of in (
            ("area", self.areas),
            ("point", self.points),
            ("alarm", self.alarms),
            ("priority", self.priorities),
            ("kind", self.kinds),
            ("change", self.changes),
            ("actor", self.persons),
        ):
            if any_of:
                parts.append(f"{column} IN ({', '.join('?' * len(any_of))})")
                values += any_of
        if self.text:
            parts.append(r"names LIKE ? ESCAPE '\'")
            values.append(f"%{_literal(self.text)}%")
        return " AND ".join(parts), values


class Way(enum.StrEnum):
    """Where a reading goes from its cursor."""

    OLDER = "older"
    NEWER = "newer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Numbers of records, both included, between which everything lies that fits a time."""

    low: int = 0
    high: int = NEVER


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one reading found.

    Attributes:
        events: in the order of the reading.
        reached: the cursor to go on with; None when there is nothing further.
    """

    events: list[dict[str, Any]]
    reached: int | None


def span(connection: sqlite3.Connection, from_ms: int | None, to_ms: int | None) -> Span:
    """Where the records of a time lie. Clocks step: between `low` and `high` there may be others."""
    if from_ms is None and to_ms is None:
        return Span()
    sql = "SELECT min(seq), max(seq) FROM alarm_history WHERE at_ms >= ? AND at_ms < ?"
    values = (-NEVER if from_ms is None else from_ms, NEVER if to_ms is None else to_ms)
    low, high = connection.execute(sql, values).fetchone()
    return Span(low=1, high=0) if low is None else Span(low=low, high=high)


def search(connection: sqlite3.Connection, wanted: Wanted, within: Span, way: Way, cursor: int, limit: int) -> Chunk:
    """Look at the next `CHUNK` rows from `cursor` (excluded) on.

    Args:
        within: of `wanted`'s time.
        way: OLDER counts down from the cursor, NEWER up.
        limit: events, at most.
    """
    older = way is Way.OLDER
    order = "DESC" if older else "ASC"
    low, high = (within.low, min(within.high, cursor - 1)) if older else (max(within.low, cursor + 1), within.high)
    where, values = wanted.sql()
    rows = f"FROM alarm_history WHERE seq BETWEEN ? AND ? ORDER BY seq {order} LIMIT {CHUNK}"
    sql = f"SELECT seq FROM (SELECT * {rows}) WHERE {where} ORDER BY seq {order} LIMIT ?"  # noqa: S608
    found = [seq for (seq,) in connection.execute(sql, (low, high, *values, limit))]
    if len(found) == limit:
        return Chunk(events=_events(connection, found), reached=found[-1])
    last = f"SELECT seq FROM (SELECT seq {rows}) ORDER BY seq {order} LIMIT 1 OFFSET {CHUNK - 1}"  # noqa: S608
    row = connection.execute(last, (low, high)).fetchone()
    return Chunk(events=_events(connection, found), reached=row[0] if row else None)


_EVENT = "at_ms, change, alarm, occurrence, area, priority, active, covered, acked"


def open_before(connection: sqlite3.Connection, t0_ms: int, position: Callable[[str], str]) -> list[Event]:
    """What was open at `t0_ms`: the events of those occurrences from before it, oldest first.

    Args:
        position: of an area.
    """
    sql = f"""
        WITH newest AS (
            SELECT alarm, occurrence, state, max(seq) FROM alarm_history WHERE at_ms < ? GROUP BY alarm
        )
        SELECT {_EVENT} FROM alarm_history JOIN newest USING (alarm, occurrence)
        WHERE newest.state <> 'NORM' AND at_ms < ? ORDER BY seq
    """  # noqa: S608
    return [_event(row, position) for row in connection.execute(sql, (t0_ms, t0_ms))]


def events_within(
    connection: sqlite3.Connection, from_ms: int, to_ms: int, within: Span, after: int, position: Callable[[str], str]
) -> tuple[list[Event], int | None]:
    """Up to `CHUNK` events of a time, oldest first; and the number of the last one, None at the end.

    Args:
        within: of that time.
        after: numbers above this one alone.
        position: of an area.
    """
    # `+` keeps SQLite from the index of times, whose rows it would have to sort for each chunk.
    sql = (
        f"SELECT seq, {_EVENT} FROM alarm_history"  # noqa: S608
        " WHERE seq BETWEEN ? AND ? AND +at_ms >= ? AND +at_ms < ? ORDER BY seq LIMIT ?"
    )
    values = (max(within.low, after + 1), within.high, from_ms, to_ms, CHUNK)
    rows = connection.execute(sql, values).fetchall()
    return [_event(row[1:], position) for row in rows], rows[-1][0] if len(rows) == CHUNK else None


def names_of(connection: sqlite3.Connection, alarms: Sequence[str]) -> dict[str, dict[str, str]]:
    """`name` and `name_en` of alarms as their newest records have them."""
    named: dict[str, dict[str, str]] = {}
    for alarm in alarms:
        row = connection.execute("SELECT data FROM alarm_state WHERE id = ?", (alarm,)).fetchone()
        fields = json.loads(row[0]) if row else {"name": alarm, "name_en": alarm}
        named[alarm] = {"name": fields["name"], "name_en": fields["name_en"]}
    return named


def _events(connection: sqlite3.Connection, seqs: Sequence[int]) -> list[dict[str, Any]]:
    read = "SELECT data FROM record WHERE seq = ?"
    return [event_json(json.loads(connection.execute(read, (seq,)).fetchone()[0])) for seq in seqs]


def _event(row: Sequence[Any], position: Callable[[str], str]) -> Event:
    at_ms, change, alarm, occurrence, area, priority, active, covered, acked = row
    return Event(
        at_ms=at_ms,
        kind=f"alarm.{change}",
        alarm=alarm,
        occurrence=occurrence,
        position=position(area),
        priority=priority,
        active=bool(active),
        covered=bool(covered),
        acked=bool(acked),
    )


def _literal(text: str) -> str:
    return text.replace("\\", r"\\").replace("%", r"\%").replace("_", r"\_")
