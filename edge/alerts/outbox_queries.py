"""What the outbox asks of its tables, and what it notes that is no record: leases and the ends of single attempts."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...words import Instant, mono_s, now
from .rows import Row, Way, since_s

FIRST_KEPT, LAST_KEPT = 20, 180
"""Attempts of one row that are kept: the first ones and the newest ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """What became of the subject of a row that waits: see `Row.over`, `Row.closed`."""

    key: str
    over: str
    closed: Mapping[str, Any] | None
    closed_s: float


def end_interrupted(connection: sqlite3.Connection) -> int:
    """At start: attempts whose end nobody has seen. Their rows are sent again, marked."""
    sql = "UPDATE delivery_attempt SET outcome = 'interrupted', uncertain = 1 WHERE outcome = ''"
    return connection.execute(sql).rowcount


def new_rows(connection: sqlite3.Connection, after: int) -> list[Row]:
    """Rows that wait and were born after record number `after`, in the order of their birth."""
    return _rows(connection, "state = 'PENDING' AND seq > ? ORDER BY seq, rowid", (after,))


def unproven_rows(connection: sqlite3.Connection) -> dict[str, list[tuple[Row, float]]]:
    """Accepted rows whose proof has not come, by receipt, each with the monotonic seconds of its acceptance."""
    where = "state = 'ACCEPTED' AND receipt <> '' AND failing = 0 AND over = '' AND closed = 0 ORDER BY seq"
    rows = {row.key: row for row in _rows(connection, where, ())}
    told = connection.execute("SELECT key, receipt, ended FROM outbox WHERE state = 'ACCEPTED' AND receipt <> ''")
    instant = now()
    found: dict[str, list[tuple[Row, float]]] = {}
    for key, receipt, ended in told:
        if key in rows:
            at_s = instant.mono_s - since_s(json.loads(ended), instant)
            found.setdefault(receipt, []).append((rows[key], at_s))
    return found


def marks(connection: sqlite3.Connection) -> list[Mark]:
    """Rows that wait and whose subject is over."""
    sql = "SELECT key, over, closed FROM outbox WHERE state = 'PENDING' AND (over <> '' OR closed <> 0)"
    bodies = _Bodies(connection)
    found = connection.execute(sql).fetchall()
    return [Mark(key=key, over=over, closed=bodies.closed(seq), closed_s=bodies.at_s(seq)) for key, over, seq in found]


def last_said(connection: sqlite3.Connection, key: str) -> str:
    """What the channel said of the newest attempt; empty when there was none, or it is under way."""
    sql = "SELECT detail FROM delivery_attempt WHERE key = ? AND outcome <> '' ORDER BY n DESC LIMIT 1"
    found = connection.execute(sql, (key,)).fetchone()
    return found[0] if found is not None else ""


def still_open(connection: sqlite3.Connection, keys: Iterable[str]) -> set[str]:
    """Those of these rows whose subject is not over."""
    sql = "SELECT 1 FROM outbox WHERE key = ? AND over = '' AND closed = 0"
    return {key for key in keys if connection.execute(sql, (key,)).fetchone()}


def ways_of(connection: sqlite3.Connection, message: int, person: str) -> list[Way]:
    """On which channels a message to a person went, and what became of it."""
    sql = "SELECT channel, state, failing FROM outbox WHERE message = ? AND (person = ? OR instr(mentions, ?))"
    rows = connection.execute(sql, (message, person, json.dumps(person)))
    return [Way(channel=channel, state=state, failing=bool(failing)) for channel, state, failing in rows]


def alarm_numbered(connection: sqlite3.Connection, number: int) -> dict[str, Any] | None:
    """The newest alarm object with this number of an occurrence; of an older occurrence only that it is closed."""
    found = connection.execute("SELECT data FROM alarm_state WHERE occurrence = ?", (number,)).fetchone()
    if found is not None:
        return json.loads(found[0])
    sql = "SELECT about FROM outbox WHERE occurrence = ? AND kind GLOB 'alarm.*' LIMIT 1"
    older = connection.execute(sql, (number,)).fetchone() if number else None
    return {"id": older[0], "occurrence": number, "state": "NORM"} if older is not None else None


def lease(connection: sqlite3.Connection, rows: Sequence[Row], batch: str, at: Instant) -> None:
    """These rows are being sent, together: `batch` is their message's key. Committed before they are."""
    sql = "INSERT OR REPLACE INTO delivery_attempt (key, n, at, channel, outcome, batch) VALUES (?, ?, ?, ?, '', ?)"
    told = at.to_json()["utc"]
    connection.executemany(sql, [(row.key, row.attempts + 1, told, row.channel, batch) for row in rows])


def note(connection: sqlite3.Connection, rows: Sequence[Row], outcome: str, detail: str, uncertain: bool) -> None:
    """What became of the attempts that are leased, where it is no record."""
    sql = "UPDATE delivery_attempt SET outcome = ?, detail = ?, uncertain = ? WHERE key = ? AND n = ?"
    connection.executemany(sql, [(outcome, detail, uncertain, row.key, row.attempts + 1) for row in rows])
    forget = "DELETE FROM delivery_attempt WHERE key = ? AND n > ? AND n <= ?"
    old = [(row.key, FIRST_KEPT, row.attempts + 1 - LAST_KEPT) for row in rows]
    connection.executemany(forget, [each for each in old if each[2] > FIRST_KEPT])


class _Bodies:
    """Bodies of records by number, each read once; `recorded` in it is when."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._known: dict[int, dict[str, Any]] = {}

    def __getitem__(self, seq: int) -> dict[str, Any]:
        if seq not in self._known:
            (data,) = self._connection.execute("SELECT data FROM record WHERE seq = ?", (seq,)).fetchone()
            fields = json.loads(data)
            self._known[seq] = {**fields["body"], "recorded": fields["at"]}
        return self._known[seq]

    def closed(self, seq: int) -> dict[str, Any] | None:
        return self[seq] if seq else None

    def at_s(self, seq: int) -> float:
        """Monotonic seconds of a record, 0 of none."""
        return mono_s() - since_s(self[seq]["recorded"], now()) if seq else 0.0


_COLUMNS = (
    "key, seq, message, origin, kind, priority, person, role, channel, step, about, occurrence, over, error,"
    " failing, unreached, fell, mentions, at, first, closed"
)


def _rows(connection: sqlite3.Connection, where: str, values: Iterable[Any]) -> list[Row]:
    bodies, instant = _Bodies(connection), now()
    rows: list[Row] = []
    found = connection.execute(f"SELECT {_COLUMNS} FROM outbox WHERE {where}", tuple(values))  # noqa: S608
    names = [name for name, *_ in found.description]
    for values in found.fetchall():
        fields = dict(zip(names, values, strict=True))
        at, first, closed = json.loads(fields.pop("at")), json.loads(fields.pop("first")), fields.pop("closed")
        fields |= {flag: bool(fields[flag]) for flag in ("failing", "fell")}
        fields |= {name: tuple(json.loads(fields[name])) for name in ("mentions", "unreached")}
        row = Row(
            **fields,
            body=bodies[fields["message"]],
            born_s=instant.mono_s - since_s(at, instant),
            first_s=instant.mono_s - since_s(first, instant),
            closed=bodies.closed(closed),
            closed_s=bodies.at_s(closed),
        )
        row.hold_s = _hold_s(row)
        row.not_before_s = row.born_s + row.hold_s
        _add_attempts(connection, row)
        rows.append(row)
    return rows


def _hold_s(row: Row) -> float:
    """For how long its recipient's quiet hours keep it: the record that it was born with says so."""
    return next(
        (float(entry.get("hold_s", 0.0)) for entry in row.body.get("notify") or () if entry["key"] == row.key), 0.0
    )


def _add_attempts(connection: sqlite3.Connection, row: Row) -> None:
    sql = "SELECT n, outcome, detail, uncertain, batch FROM delivery_attempt WHERE key = ? ORDER BY n"
    for n, outcome, detail, uncertain, batch in connection.execute(sql, (row.key,)):
        row.later = outcome == "later"
        if row.later:
            continue
        row.attempts = n
        row.error = detail or row.error
        row.resent = row.resent or bool(uncertain)
        row.batch = batch if uncertain and batch != row.key else ""
