"""What headquarters' last answer by USB stick said: how far it has each stream. Kept in the journal's file."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence

from .wire import Cursor

_SCHEMA = """CREATE TABLE IF NOT EXISTS bundle_ack (stream TEXT NOT NULL, epoch TEXT NOT NULL, ack INTEGER NOT NULL,
             durable INTEGER NOT NULL, made_ms INTEGER NOT NULL, PRIMARY KEY (stream, epoch)) WITHOUT ROWID"""


def known_acks(connection: sqlite3.Connection) -> dict[tuple[str, str], int]:
    """(stream, epoch) to the last batch that headquarters has; empty before the first answer."""
    if not _has_table(connection):
        return {}
    return {
        (stream, epoch): ack for stream, epoch, ack in connection.execute("SELECT stream, epoch, ack FROM bundle_ack")
    }


def newest_answer_ms(connection: sqlite3.Connection) -> int:
    """When the answer that was taken last was made; 0 when none was."""
    if not _has_table(connection):
        return 0
    return connection.execute("SELECT coalesce(max(made_ms), 0) FROM bundle_ack").fetchone()[0]


def note_acks(connection: sqlite3.Connection, made_ms: int, cursors: Mapping[str, Sequence[Cursor]]) -> None:
    """Remember an answer. Args: cursors: by stream, of the epochs that are ours."""
    connection.execute(_SCHEMA)
    every = ((stream, cursor) for stream, known in cursors.items() for cursor in known)
    rows = [(stream, cursor.epoch, cursor.ack, cursor.durable, made_ms) for stream, cursor in every]
    connection.executemany("INSERT OR REPLACE INTO bundle_ack VALUES (?, ?, ?, ?, ?)", rows)


def _has_table(connection: sqlite3.Connection) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'bundle_ack'"
    return connection.execute(sql).fetchone() is not None
