"""The state table of alarms: the newest committed object of each, rebuilt from `alarm.*` records alone."""

from __future__ import annotations

import json
import sqlite3
from typing import Any

from ...sync.journal import Record, StateTable
from .machine import State

SCHEMA = """
CREATE TABLE alarm_state (
    id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    occurrence INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    data TEXT NOT NULL
)
"""


_ALARMS = "SELECT data FROM record INDEXED BY record_alarm WHERE kind GLOB 'alarm.*'"


def apply(connection: sqlite3.Connection, record: Record) -> None:
    """Keep the object of the newest record."""
    alarm = record.body["alarm"]
    row = (alarm["id"], alarm["state"], alarm["occurrence"], record.seq, json.dumps(alarm, ensure_ascii=False))
    connection.execute("INSERT OR REPLACE INTO alarm_state VALUES (?, ?, ?, ?, ?)", row)


TABLE = StateTable(name="alarm", version=1, schema=SCHEMA, tables=("alarm_state",), kinds=("alarm.",), apply=apply)


def stored_alarms(connection: sqlite3.Connection) -> dict[str, dict[str, Any]]:
    """Committed alarm objects by id, each with `rev`, the number of its record."""
    rows = connection.execute("SELECT id, data, seq FROM alarm_state")
    return {alarm_id: {**json.loads(data), "rev": seq} for alarm_id, data, seq in rows}


def open_alarms(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    """Committed alarm objects that somebody still has to do with."""
    return [alarm for alarm in stored_alarms(connection).values() if alarm["state"] != State.NORM.value]


def alarm_events_after(connection: sqlite3.Connection, after: int, limit: int) -> list[dict[str, Any]]:
    """`alarm.*` records after number `after`, oldest first."""
    rows = connection.execute(f"{_ALARMS} AND seq > ? ORDER BY seq LIMIT ?", (after, limit))
    return [event_json(json.loads(data)) for (data,) in rows]


def event_json(fields: dict[str, Any]) -> dict[str, Any]:
    """What pages, dashboards and exports show of a record (its JSON)."""
    return {
        "seq": fields["seq"],
        "kind": fields["kind"],
        "at": fields["at"]["utc"],
        "actor": fields["actor"],
        "reason": fields["body"].get("reason", ""),
        "alarm": {**fields["body"]["alarm"], "rev": fields["seq"]},
    }
