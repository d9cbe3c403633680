"""What pages show of ladders: those under way, freezes, deviation reports. A journal without these tables has none."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from typing import Any

from ...sync.journal import Record, StateTable
from ...words import Instant, utc_text
from .climb import Climb
from .deviation import Deviation
from .freeze import Freeze
from .plan import Colour, Rung
from .table import stored_climbs, stored_freezes

_SET_MS = 1000
"""Two clocks that are read one after the other differ by less; one that was set differs by more."""

SCHEMA = (
    "CREATE TABLE deviation_report (id TEXT PRIMARY KEY, seq INTEGER NOT NULL, at TEXT NOT NULL, data TEXT NOT NULL)"
)


def apply(connection: sqlite3.Connection, record: Record) -> None:
    """Keep each report: with the record that opened it, as the newest one has it."""
    if record.kind == "deviation.closed":
        fields = (json.dumps(record.body, ensure_ascii=False), record.body["id"])
        connection.execute("UPDATE deviation_report SET data = ? WHERE id = ?", fields)
        return
    row = (record.body["id"], record.seq, record.at["utc"], json.dumps(record.body, ensure_ascii=False))
    connection.execute("INSERT OR REPLACE INTO deviation_report VALUES (?, ?, ?, ?)", row)


TABLE = StateTable(
    name="deviation", version=1, schema=SCHEMA, tables=("deviation_report",), kinds=("deviation.",), apply=apply
)


def climbs(connection: sqlite3.Connection) -> dict[str, Climb]:
    """Ladders under way, by the subject's key."""
    return stored_climbs(connection) if _has(connection, "ladder_state") else {}


def freezes(connection: sqlite3.Connection) -> list[Freeze]:
    """Those that hold, then those that were released; the newest first."""
    found = stored_freezes(connection).values() if _has(connection, "ladder_freeze") else ()
    newest = sorted(found, key=lambda freeze: freeze.since, reverse=True)
    return sorted(newest, key=lambda freeze: freeze.released is not None)


def deviations(connection: sqlite3.Connection, limit: int = -1) -> list[dict[str, Any]]:
    """Reports that are open, then those that were closed, the newest first; with `seq` and `at` of their opening."""
    if not _has(connection, "deviation_report"):
        return []
    closed = "json_extract(data, '$.closed') IS NOT NULL"
    sql = f"SELECT seq, at, data FROM deviation_report ORDER BY {closed}, seq DESC LIMIT ?"  # noqa: S608
    rows = connection.execute(sql, (limit,))
    return [{**Deviation.from_json(json.loads(data)).to_json(), "seq": seq, "at": at} for seq, at, data in rows]


def stored_deviations(connection: sqlite3.Connection) -> dict[str, Deviation]:
    """Every report, by id."""
    rows = connection.execute("SELECT id, data FROM deviation_report ORDER BY id")
    return {report_id: Deviation.from_json(json.loads(data)) for report_id, data in rows}


def climb_view(climb: Climb, now: Instant) -> dict[str, Any]:
    """What a page says of a ladder: where it stands, and when it does what next."""
    behind = climb.rungs[: climb.climbed]
    colour = next((rung.colour for rung in reversed(behind) if rung.colour), Colour.NONE)
    return {
        "subject": climb.subject.to_json(),
        "plan": climb.plan,
        "basis": climb.basis.value,
        "since": utc_text(climb.t0_utc_ms),
        "climbed": climb.climbed,
        "rungs": [_rung_view(climb, rung, now) for rung in climb.rungs],
        "colour": colour.value,
        "paused": climb.paused,
        "next": _rung_view(climb, climb.next, now) if climb.next is not None else None,
    }


def _rung_view(climb: Climb, rung: Rung, now: Instant) -> Mapping[str, Any]:
    """`at`: when its time comes on the clock as it is set now; within one boot the monotonic clock decides."""
    at_ms = climb.t0_utc_ms + round(rung.at_s * 1000)
    if now.boot == climb.t0.boot:
        set_ms = now.utc_ms + round((climb.t0.mono_s + rung.at_s - now.mono_s) * 1000)
        at_ms = set_ms if abs(set_ms - at_ms) >= _SET_MS else at_ms
    return {**rung.to_json(), "at": utc_text(at_ms)}


def _has(connection: sqlite3.Connection, table: str) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    return connection.execute(sql, (table,)).fetchone() is not None
