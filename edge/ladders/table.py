"""The state tables of ladders and freezes, rebuilt from their records alone."""

from __future__ import annotations

import json
import sqlite3

from ...sync.journal import Record, StateTable
from ...words import utc_from_text
from .climb import Climb, dated
from .freeze import Freeze

SCHEMA = """
CREATE TABLE ladder_state (key TEXT PRIMARY KEY, data TEXT NOT NULL);
CREATE TABLE ladder_step (fence TEXT PRIMARY KEY, seq INTEGER NOT NULL, at TEXT NOT NULL, data TEXT NOT NULL);
CREATE TABLE ladder_freeze (id TEXT PRIMARY KEY, holds INTEGER NOT NULL, data TEXT NOT NULL)
"""


def apply(connection: sqlite3.Connection, record: Record) -> None:
    """Keep the newest of each ladder and freeze, and every step."""
    match record.kind:
        case "clock.stepped":
            _date(connection, record)
        case "freeze.set" | "freeze.released":
            freeze = record.body["freeze"]
            row = (freeze["id"], freeze["released"] is None, _text(freeze))
            connection.execute("INSERT OR REPLACE INTO ladder_freeze VALUES (?, ?, ?)", row)
        case "ladder.stopped":
            key = Climb.key_of(record.body["subject"])
            connection.execute("DELETE FROM ladder_state WHERE key = ?", (key,))
        case _:
            ladder = record.body["ladder"]
            row = (Climb.key_of(ladder["subject"]), _text(ladder))
            connection.execute("INSERT OR REPLACE INTO ladder_state VALUES (?, ?)", row)
            if record.kind == "ladder.step":
                step = record.body["step"]
                row = (step["fence"], record.seq, record.at["utc"], _text(step))
                connection.execute("INSERT INTO ladder_step VALUES (?, ?, ?, ?)", row)


TABLE = StateTable(
    name="ladder",
    version=1,
    schema=SCHEMA,
    tables=("ladder_state", "ladder_step", "ladder_freeze"),
    kinds=("ladder.", "freeze.", "clock.stepped"),
    apply=apply,
)


def stored_climbs(connection: sqlite3.Connection) -> dict[str, Climb]:
    """Ladders under way, by the subject's key."""
    rows = connection.execute("SELECT key, data FROM ladder_state ORDER BY key")
    return {key: Climb.from_json(json.loads(data)) for key, data in rows}


def stored_freezes(connection: sqlite3.Connection, *, only_holding: bool = False) -> dict[str, Freeze]:
    """Freezes by id, also those that were released."""
    rows = connection.execute("SELECT id, data FROM ladder_freeze WHERE holds >= ? ORDER BY id", (int(only_holding),))
    return {freeze_id: Freeze.from_json(json.loads(data)) for freeze_id, data in rows}


def _date(connection: sqlite3.Connection, record: Record) -> None:
    believed_ms = record.body.get("believed_ms", utc_from_text(record.at["utc"]))
    for key, climb in stored_climbs(connection).items():
        after = dated(climb, record.at["boot"], record.at["mono"], believed_ms)
        if after != climb:
            connection.execute("UPDATE ladder_state SET data = ? WHERE key = ?", (_text(after.to_json()), key))


def _text(fields: object) -> str:
    return json.dumps(fields, ensure_ascii=False)
