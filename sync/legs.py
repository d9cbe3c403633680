"""In which order and under which names the journal's records travel: one leg for each epoch, and for each branch.

A leg is a stream of its own at the cloud: batches from 1, chained from its genesis. All legs but the last one have an
end. Records that can no longer go on under their own epoch, because the cloud knows others there, or because a clone's
original may still send under it, go as a *branch*: the same records, byte for byte, under the epoch's name and 8 digits
more.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from .epoch_table import record_epoch
from .streams import JOURNAL

_SENDING = """CREATE TABLE IF NOT EXISTS sending (first INTEGER NOT NULL, epoch TEXT NOT NULL UNIQUE, last INTEGER,
              done INTEGER NOT NULL DEFAULT 0, apart INTEGER NOT NULL DEFAULT 0, acked INTEGER NOT NULL DEFAULT 0)"""
_BATCH = """CREATE TABLE {} (stream TEXT NOT NULL, epoch TEXT NOT NULL, n INTEGER NOT NULL, first INTEGER NOT NULL,
            last INTEGER NOT NULL, chain BLOB NOT NULL, PRIMARY KEY (stream, epoch, n)) WITHOUT ROWID"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """Records `first` to `last` under the name `epoch`.

    Attributes:
        last: None while records are still added.
        done: the cloud had all of it.
        apart: it must go on as a branch as soon as it is known how far the cloud has it.
        acked: how many the cloud was known to have when the newest one was made.
        batches: how many were made.
    """

    first: int
    epoch: str
    last: int | None
    done: bool
    apart: bool
    acked: int
    batches: int


def prepare(connection: sqlite3.Connection, epochs: Sequence[tuple[str, int]], *, apart: bool) -> None:
    """Bring the tables up to the journal's epochs.

    Args:
        apart: the newest epoch began because the file was copied away from its machine.
    """
    _with_epochs(connection, epochs[0][0])
    connection.execute(_SENDING)
    known = {epoch for (epoch,) in connection.execute("SELECT epoch FROM sending")}
    for epoch, first in epochs:
        if epoch in known:
            continue
        _end(connection, first)
        if apart and epoch == epochs[-1][0]:
            connection.execute("UPDATE sending SET apart = 1 WHERE done = 0")
        connection.execute("INSERT INTO sending (first, epoch) VALUES (?, ?)", (first, epoch))


def legs_of(connection: sqlite3.Connection) -> list[Leg]:
    """In the order in which they travel."""
    sql = (
        "SELECT first, epoch, last, done, apart, acked, (SELECT coalesce(max(n), 0) FROM batch WHERE stream = ?"
        " AND batch.epoch = sending.epoch AND (sending.last IS NULL OR batch.last <= sending.last))"
        " FROM sending ORDER BY first, rowid"
    )
    rows = connection.execute(sql, (JOURNAL,)).fetchall()
    return [
        Leg(first=first, epoch=epoch, last=last, done=bool(done), apart=bool(apart), acked=acked, batches=batches)
        for first, epoch, last, done, apart, acked, batches in rows
    ]


def finish(connection: sqlite3.Connection, epoch: str, *, done: bool = True) -> None:
    """The cloud has all of a leg; or has lost some of it again."""
    connection.execute("UPDATE sending SET done = ? WHERE epoch = ?", (done, epoch))


def note_acked(connection: sqlite3.Connection, epoch: str, acked: int) -> None:
    """The cloud has so many batches of a leg."""
    connection.execute("UPDATE sending SET acked = ? WHERE epoch = ?", (acked, epoch))


def branch(connection: sqlite3.Connection, epoch: str, kept: int, end: int) -> None:
    """End a leg behind record `kept`, which the cloud has; what follows up to `end` goes as a branch.

    Args:
        end: last record of the leg.
    """
    connection.execute("UPDATE sending SET last = ?, done = 1, apart = 0 WHERE epoch = ?", (kept, epoch))
    connection.execute("DELETE FROM batch WHERE stream = ? AND epoch = ? AND last > ?", (JOURNAL, epoch, kept))
    if kept < end:
        name = record_epoch(epoch) + secrets.token_hex(4)
        connection.execute("INSERT INTO sending (first, epoch, last) VALUES (?, ?, ?)", (kept + 1, name, end))


def begin(connection: sqlite3.Connection, epoch: str, first: int) -> None:
    """A new epoch goes as a leg of its own."""
    _end(connection, first)
    connection.execute("INSERT INTO sending (first, epoch) VALUES (?, ?)", (first, epoch))


def _end(connection: sqlite3.Connection, first: int) -> None:
    """The leg that was open ends before record `first`; one without a record is done."""
    connection.execute("UPDATE sending SET last = ? WHERE last IS NULL", (first - 1,))
    connection.execute("UPDATE sending SET done = 1 WHERE last < first")


def _with_epochs(connection: sqlite3.Connection, first_epoch: str) -> None:
    """Make the table of batches, or give the one of earlier versions, which knew one epoch, that epoch."""
    columns = {row[1] for row in connection.execute("PRAGMA table_info(batch)")}
    if "epoch" in columns:
        return
    if not columns:
        connection.execute(_BATCH.format("batch"))
        return
    connection.execute(_BATCH.format("batch_of_epoch"))
    copy = "INSERT INTO batch_of_epoch SELECT stream, ?, n, first, last, chain FROM batch"
    connection.execute(copy, (first_epoch,))
    connection.execute("DROP TABLE batch")
    connection.execute("ALTER TABLE batch_of_epoch RENAME TO batch")
