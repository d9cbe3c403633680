"""The outbox in the journal's file: what must be delivered, and every attempt.

`outbox` is derived from records alone: a row is born in the transaction of its record and ends in that of a
`delivery.*` record. `delivery_attempt` is not: single attempts are no records, nothing is decided by them but whether
the next one is marked as sent again. It outlives a rebuild; an attempt without an outcome is the lease of a row that is
being sent, and one that the process did not live to see the end of may have arrived.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ...sync.journal import Record, StateTable
from .rows import CLEAR, RAISES, REPEAT, other_key, recipient, subject_id, subject_of

SCHEMA = """
CREATE TABLE outbox (
    key TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    message INTEGER NOT NULL,
    origin TEXT NOT NULL,
    kind TEXT NOT NULL,
    priority INTEGER NOT NULL,
    person TEXT NOT NULL,
    role TEXT NOT NULL,
    channel TEXT NOT NULL,
    step INTEGER NOT NULL,
    mentions TEXT NOT NULL,
    about TEXT NOT NULL,
    occurrence INTEGER NOT NULL,
    at TEXT NOT NULL,
    first TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'PENDING',
    told INTEGER NOT NULL DEFAULT 0,
    failing INTEGER NOT NULL DEFAULT 0,
    unreached TEXT NOT NULL DEFAULT '[]',
    fell INTEGER NOT NULL DEFAULT 0,
    over TEXT NOT NULL DEFAULT '',
    closed INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    receipt TEXT NOT NULL DEFAULT '',
    ended TEXT NOT NULL DEFAULT ''
);
CREATE INDEX outbox_seq ON outbox (seq);
CREATE INDEX outbox_message ON outbox (message);
CREATE INDEX outbox_about ON outbox (about, occurrence);
CREATE INDEX outbox_open ON outbox (seq) WHERE state = 'PENDING';
CREATE INDEX outbox_unproven ON outbox (seq) WHERE state = 'ACCEPTED' AND receipt <> '' AND failing = 0;
CREATE TABLE IF NOT EXISTS delivery_attempt (
    key TEXT NOT NULL,
    n INTEGER NOT NULL,
    at TEXT NOT NULL,
    channel TEXT NOT NULL,
    outcome TEXT NOT NULL,
    detail TEXT NOT NULL DEFAULT '',
    uncertain INTEGER NOT NULL DEFAULT 0,
    batch TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (key, n)
) WITHOUT ROWID
"""
CHANGING = ("alarm.closed", "alarm.acked", "ladder.stopped", "freeze.released", "deviation.closed", "proof.alarm")
"""Kinds of records that change rows which wait, beside those that tell people."""

_SUPERSEDED = "superseded_unacked"


def apply(connection: sqlite3.Connection, record: Record) -> None:
    """Rows are born with records that tell people, and end with `delivery.*` ones."""
    body = record.body
    match record.kind:
        case "alarm.closed":
            _close(connection, record)
        case "alarm.acked":
            _acked(connection, body["alarm"])
        case "ladder.stopped":
            subject = body["subject"]
            _end(connection, "closed", subject_id(subject), subject["occurrence"], "ladder.*")
        case "freeze.released":
            _end(connection, "released", body["freeze"]["id"], 0, "freeze.set")
        case "deviation.closed":
            _end(connection, "closed", body["id"], 0, "deviation.opened")
        case "proof.alarm" if body["change"] == "closed":
            _end(connection, "closed", body["alarm"]["id"], body["alarm"]["occurrence"], record.kind)
        case "delivery.accepted" | "delivery.delivered":
            _arrived(connection, record)
        case "delivery.failing":
            sql = "UPDATE outbox SET failing = 1, unreached = ?, error = ? WHERE key = ?"
            connection.execute(sql, (json.dumps(body.get("unreached", [])), body.get("error", ""), body["key"]))
        case "delivery.fallback":
            connection.execute("UPDATE outbox SET fell = 1 WHERE key = ?", (body["key"],))
        case "delivery.dead":
            _dead(connection, record)
        case _:
            pass
    for entry in body.get("notify") or ():
        _born(connection, record, entry)


TABLE = StateTable(name="outbox", version=2, schema=SCHEMA, tables=("outbox",), kinds=("",), apply=apply)


# --- births ---


def _born(connection: sqlite3.Connection, record: Record, entry: Mapping[str, Any]) -> None:
    kind, message, origin, first = record.kind, record.seq, entry["key"], json.dumps(record.at)
    if kind == "delivery.fallback":
        sql = "SELECT kind, message, origin, first, about, occurrence, priority FROM outbox WHERE key = ?"
        kind, message, origin, first, *subject = connection.execute(sql, (record.body["key"],)).fetchone()
    else:
        subject = subject_of(kind, record.body)
    about, occurrence, priority = subject
    if kind == REPEAT:
        _outdate(connection, about, occurrence, message, entry)
    _insert(
        connection,
        key=entry["key"],
        seq=record.seq,
        message=message,
        origin=origin,
        kind=kind,
        priority=priority,
        person=entry["person"],
        role=entry["role"],
        channel=entry["channel"],
        step=int(entry.get("step") or kind == "ladder.step"),
        mentions=json.dumps(entry.get("mentions", ())),
        about=about,
        occurrence=occurrence,
        at=json.dumps(record.at),
        first=first,
    )


def _outdate(
    connection: sqlite3.Connection, about: str, occurrence: int, message: int, entry: Mapping[str, Any]
) -> None:
    """Who could not be reminded in time is reminded once, not as often as it was tried."""
    where = "about = ? AND occurrence = ? AND kind = ? AND state = 'PENDING' AND over = ''"
    more = "person = ? AND channel = ? AND mentions = ? AND message < ?"
    mentions = json.dumps(entry.get("mentions", ()))
    values = (about, occurrence, REPEAT, entry["person"], entry["channel"], mentions, message)
    connection.execute(f"UPDATE outbox SET over = 'newer' WHERE {where} AND {more}", values)  # noqa: S608


def _insert(connection: sqlite3.Connection, **fields: Any) -> None:
    names = ", ".join(fields)
    marks_ = ", ".join("?" * len(fields))
    connection.execute(f"INSERT OR IGNORE INTO outbox ({names}) VALUES ({marks_})", tuple(fields.values()))  # noqa: S608


# --- ends ---


@dataclass(frozen=True, slots=True)
class _Stored:
    key: str
    kind: str
    priority: int
    person: str
    role: str
    channel: str
    mentions: str
    about: str
    occurrence: int
    state: str
    told: bool
    over: str
    closed: int
    seq: int
    step: int

    @property
    def recipient(self) -> str:
        return recipient(self.person, self.channel)

    @property
    def is_thing(self) -> bool:
        return not self.person and self.mentions == "[]"


_COLUMNS = ", ".join(_Stored.__slots__)


def _stored(connection: sqlite3.Connection, where: str, values: tuple[Any, ...]) -> list[_Stored]:
    return [_Stored(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM outbox WHERE {where}", values)]  # noqa: S608


def _close(connection: sqlite3.Connection, record: Record) -> None:
    """Who was told hears that it is over; who was not yet told is told both at once; the rest has no news to send.

    An alarm that closes because it comes again is not cleared: the new occurrence says all.
    """
    alarm = record.body["alarm"]
    about, occurrence = alarm["id"], alarm["occurrence"]
    where = "about = ? AND occurrence <= ? AND (state = 'PENDING' OR (told AND occurrence = ?)) ORDER BY seq, rowid"
    rows = _stored(connection, where, (about, occurrence, occurrence))
    again = record.body.get("reason") == _SUPERSEDED
    told = {} if again else {row.recipient: row for row in rows if row.told and not row.is_thing}
    waiting = [row for row in rows if row.state == "PENDING" and row.kind != CLEAR]
    for row in waiting:
        combined = row.kind in RAISES and not row.is_thing and not again and row.occurrence == occurrence
        over = "closed" if not combined else "told" if row.recipient in told else ""
        connection.execute("UPDATE outbox SET over = ? WHERE key = ?", (over, row.key))
    connection.executemany("UPDATE outbox SET closed = ? WHERE key = ?", [(record.seq, row.key) for row in rows])
    for row in told.values():
        _clear(connection, row, record, record.seq)


def _clear(connection: sqlite3.Connection, told: _Stored, record: Record, closed: int) -> None:
    """One message that it is over, on the channel where `told` arrived. `closed`: number of the record that says so."""
    _insert(
        connection,
        key=other_key(told.key, "clear"),
        seq=record.seq,
        message=closed,
        origin=other_key(told.key, "clear"),
        kind=CLEAR,
        priority=max(3, told.priority),
        person=told.person,
        role=told.role,
        channel=told.channel,
        step=0,
        mentions=told.mentions,
        about=told.about,
        occurrence=told.occurrence,
        at=json.dumps(record.at),
        first=json.dumps(record.at),
    )


def _arrived(connection: sqlite3.Connection, record: Record) -> None:
    body = record.body
    found = _stored(connection, "key = ?", (body["key"],))
    if not found:
        return
    if "n" not in body:  # a proof that came later, or a record of an older version
        state = "DELIVERED" if record.kind == "delivery.delivered" else "ACCEPTED"
        sql = "UPDATE outbox SET state = ?, failing = 0, unreached = '[]', error = '', ended = ? WHERE key = ?"
        connection.execute(sql, (state, json.dumps(record.at), body["key"]))
        return
    sql = (
        "UPDATE outbox SET state = ?, told = 1, failing = 0, unreached = '[]', error = '', receipt = ?, ended = ?"
        " WHERE key = ?"
    )
    state = body["outcome"].upper()
    connection.execute(sql, (state, body["receipt"], json.dumps(record.at), body["key"]))
    _attempted(connection, record)
    row = found[0]
    _reached(connection, row)
    if row.closed and row.kind != CLEAR and not row.is_thing:
        _told_after_all(connection, row, record, combined=bool(body["combined"]))


def _reached(connection: sqlite3.Connection, row: _Stored) -> None:
    """Nobody says any more that these persons are not reached."""
    persons = {row.person} if row.person else set(json.loads(row.mentions))
    sql = "SELECT key, unreached FROM outbox WHERE state = 'PENDING' AND unreached <> '[]'"
    for key, unreached in connection.execute(sql).fetchall():
        left = [person for person in json.loads(unreached) if person not in persons]
        connection.execute("UPDATE outbox SET unreached = ? WHERE key = ?", (json.dumps(left), key))


def _told_after_all(connection: sqlite3.Connection, row: _Stored, record: Record, *, combined: bool) -> None:
    """Its alarm was closed while it was being sent, or it told both at once: nobody hears twice that it is over."""
    where = "about = ? AND occurrence = ? AND kind <> ? AND state = 'PENDING' AND over = ''"
    for other in _stored(connection, where, (row.about, row.occurrence, CLEAR)):
        if other.recipient == row.recipient:
            connection.execute("UPDATE outbox SET over = 'told' WHERE key = ?", (other.key,))
    cleared = _stored(connection, "about = ? AND occurrence = ? AND kind = ?", (row.about, row.occurrence, CLEAR))
    if combined or any(other.recipient == row.recipient for other in cleared) or _is_superseded(connection, row):
        return
    _clear(connection, row, record, row.closed)


def _is_superseded(connection: sqlite3.Connection, row: _Stored) -> bool:
    (data,) = connection.execute("SELECT data FROM record WHERE seq = ?", (row.closed,)).fetchone()
    return json.loads(data)["body"].get("reason") == _SUPERSEDED


def _dead(connection: sqlite3.Connection, record: Record) -> None:
    body = record.body
    sql = "UPDATE outbox SET state = 'DEAD', over = ?, error = ?, ended = ? WHERE key = ?"
    connection.execute(sql, (body.get("why", ""), body.get("error", ""), json.dumps(record.at), body["key"]))
    if "n" in body:
        _attempted(connection, record)


def _attempted(connection: sqlite3.Connection, record: Record) -> None:
    """The attempt that ended with a record."""
    body = record.body
    sql = (
        "INSERT OR REPLACE INTO delivery_attempt (key, n, at, channel, outcome, detail, batch)"
        " VALUES (?, ?, ?, ?, ?, ?, ?)"
    )
    values = (body["key"], body["n"], body["sent"], body["channel"], body["outcome"], body["detail"], body["batch"])
    connection.execute(sql, values)


def _acked(connection: sqlite3.Connection, alarm: Mapping[str, Any]) -> None:
    """Who has acknowledged is not reminded any more; a group, when everyone in it has."""
    acked = {ack["person"] for ack in alarm["acks"]}
    where = "about = ? AND occurrence = ? AND kind = ? AND state = 'PENDING' AND over = ''"
    for row in _stored(connection, where, (alarm["id"], alarm["occurrence"], REPEAT)):
        persons = {row.person} if row.person else set(json.loads(row.mentions))
        if persons and persons <= acked:
            connection.execute("UPDATE outbox SET over = 'acked' WHERE key = ?", (row.key,))


def _end(connection: sqlite3.Connection, over: str, about: str, occurrence: int, kind: str) -> None:
    """Rows of this kind that wait have nothing to say any more. `kind`: as GLOB takes it."""
    where = "about = ? AND occurrence = ? AND kind GLOB ? AND state = 'PENDING' AND over = ''"
    connection.execute(f"UPDATE outbox SET over = ? WHERE {where}", (over, about, occurrence, kind))  # noqa: S608
