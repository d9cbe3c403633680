"""The epochs of one history.db, and when what the cloud keeps may go.

Segments keep their numbers across epochs; batch n of an epoch is its n-th segment. Readings are no evidence: segments
that cannot go on under their epoch, because the cloud knows others there, move to the next one and are chained anew.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from .columns import DamagedError, decompress
from .streams import HISTORY, link, stream_genesis

DAY_MS = 86_400_000
_MARKS = 28


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Segments `first` to `last` of one epoch; `last` is None while some are added. See `legs.Leg`."""

    first: int
    epoch: str
    last: int | None
    done: bool
    apart: bool


def m002_epochs(db: sqlite3.Connection) -> None:
    """Which segment each epoch begins with; what was one epoch until now is the first."""
    db.execute(
        "CREATE TABLE epoch (first INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE,"
        " done INTEGER NOT NULL DEFAULT 0, apart INTEGER NOT NULL DEFAULT 0)"
    )
    db.execute("INSERT INTO epoch (first, epoch) SELECT 1, value FROM meta WHERE key = 'epoch'")


def spans_of(connection: sqlite3.Connection) -> list[Span]:
    """In order."""
    rows = connection.execute("SELECT first, epoch, done, apart FROM epoch ORDER BY first").fetchall()
    ends = [*(row[0] - 1 for row in rows[1:]), None]
    return [
        Span(first=first, epoch=epoch, last=last, done=bool(done), apart=bool(apart))
        for (first, epoch, done, apart), last in zip(rows, ends, strict=True)
    ]


def begin(connection: sqlite3.Connection, gateway: str, epoch: str, first: int, *, apart: bool) -> bytes:
    """Segments from `first` on, those that are there included, are of a new epoch; the chain value of the newest."""
    connection.execute("DELETE FROM epoch WHERE first >= ?", (first,))
    if apart:
        connection.execute("UPDATE epoch SET apart = 1 WHERE done = 0")
    connection.execute("INSERT INTO epoch (first, epoch) VALUES (?, ?)", (first, epoch))
    connection.execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (epoch,))
    return rechain(connection, gateway, epoch, first)


def part(connection: sqlite3.Connection, gateway: str, epoch: str, kept: int) -> tuple[str, bytes]:
    """End an epoch that is not the newest behind segment `kept`; the next one has what follows. Its name and chain."""
    spans = spans_of(connection)
    at = next(i for i, span in enumerate(spans) if span.epoch == epoch)
    following = spans[at + 1]
    connection.execute("UPDATE epoch SET done = 1, apart = 0 WHERE epoch = ?", (epoch,))
    if kept + 1 == spans[at].first:  # nothing of it is anywhere, and its place is the next one's
        connection.execute("DELETE FROM epoch WHERE epoch = ?", (epoch,))
    connection.execute("UPDATE epoch SET first = ? WHERE epoch = ?", (kept + 1, following.epoch))
    return following.epoch, rechain(connection, gateway, following.epoch, kept + 1, following.last)


def rechain(connection: sqlite3.Connection, gateway: str, epoch: str, first: int, last: int | None = None) -> bytes:
    """Give segments their places in an epoch; the chain value of the last one.

    Behind a gap it goes on from the one before it: the gap is declared with an unknown chain value.
    """
    chain = stream_genesis(gateway, HISTORY, epoch)
    sql = "SELECT n FROM segment WHERE n >= ? AND (? IS NULL OR n <= ?) ORDER BY n"
    for (n,) in connection.execute(sql, (first, last, last)).fetchall():
        (body,) = connection.execute("SELECT body FROM body WHERE n = ?", (n,)).fetchone()
        chain = link(chain, n - first + 1, _digest(body))
        connection.execute("UPDATE segment SET chain = ? WHERE n = ?", (chain, n))
    return chain


def _digest(body: bytes) -> bytes:
    """Of the payload; what cannot be unpacked goes to quarantine at the cloud, under any chain value."""
    try:
        return hashlib.sha256(decompress(body)).digest()
    except DamagedError:
        return hashlib.sha256(body).digest()


def settle(
    marks: Sequence[tuple[int, int]], durable: int, now_ms: int, settle_ms: int
) -> tuple[list[tuple[int, int]], int]:
    """Which segments have been durable for `settle_ms`. Pure.

    Args:
        marks: (UTC ms, number of the newest segment that was durable then), as returned last time.

    Returns:
        The marks to keep, and the newest segment that may go.
    """
    left = [(ms, n) for ms, n in marks if ms <= now_ms + DAY_MS and n <= durable]  # clock or cloud went back
    if not left or (durable > left[-1][1] and now_ms - left[-1][0] >= settle_ms // _MARKS):
        left.append((now_ms, durable))
    aged = [mark for mark in left if now_ms - mark[0] >= settle_ms]
    return [*aged[-1:], *left[len(aged) :]], aged[-1][1] if aged else 0


def read_marks(text: str | None) -> list[tuple[int, int]]:
    """As `settle` returned them and `json.dumps` wrote them."""
    return [(int(ms), int(n)) for ms, n in json.loads(text or "[]")]
