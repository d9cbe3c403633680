"""When the gateway was last alive, so that the next start knows how long it was off, and whether the clock went back.

A table and no record: it changes every ten seconds for ever, and nothing that was decided depends on its history.
"""

from __future__ import annotations

import json
import sqlite3

from ...sync.journal import Record, StateTable
from ...words import ClockState, Instant, utc_from_text

EVERY_S = 10.0

SCHEMA = "CREATE TABLE alive_last (id INTEGER PRIMARY KEY CHECK (id = 1), data TEXT NOT NULL)"


def _nothing(_: sqlite3.Connection, __: Record) -> None:
    """It does not follow from records."""


TABLE = StateTable(
    name="alive",
    version=1,
    schema=SCHEMA,
    tables=("alive_last",),
    kinds=("alive.",),
    apply=_nothing,
    beside=("alive_last",),
)


def last_alive(connection: sqlite3.Connection) -> Instant | None:
    """What was saved last; None before the first time."""
    row = connection.execute("SELECT data FROM alive_last").fetchone()
    if row is None:
        return None
    at = json.loads(row[0])
    return Instant(utc_ms=utc_from_text(at["utc"]), mono_s=at["mono"], boot=at["boot"], clock=ClockState(at["clock"]))


def save_alive(connection: sqlite3.Connection, at: Instant) -> None:
    """`at`: as `Wall.alive` believes it."""
    connection.execute("INSERT OR REPLACE INTO alive_last VALUES (1, ?)", (json.dumps(at.to_json()),))
