"""SQL of the gateway's blobs: what is known of each, and what is to be sent. In the journal's file, not records."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Any

WHOLE, DAMAGED, GONE = "whole", "damaged", "gone"
"""What of a blob is on this disk."""

SCHEMA = """CREATE TABLE IF NOT EXISTS blob (sha256 TEXT PRIMARY KEY, size INTEGER NOT NULL, local TEXT NOT NULL,
            cloud TEXT NOT NULL, sent INTEGER NOT NULL, n INTEGER NOT NULL, added_ms INTEGER NOT NULL,
            person TEXT NOT NULL) WITHOUT ROWID"""

_WAITING = """
SELECT r.sha256, coalesce(b.size, 0), coalesce(b.sent, 0), max(c.case_id IS NOT NULL) AS is_open, min(r.seq) AS first
FROM blob_ref r LEFT JOIN blob_case c ON c.case_id = r.case_id LEFT JOIN blob b ON b.sha256 = r.sha256
WHERE b.sha256 IS NULL OR (b.local = 'whole' AND b.cloud IN ('none', 'part'))
GROUP BY r.sha256 ORDER BY is_open DESC, first
"""
_KNOWN = "SELECT sha256, size, local, cloud, sent, n, added_ms, person FROM blob"


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A row.

    Attributes:
        local: `whole`, `damaged` or `gone`.
        cloud: `none`, `part` (of which `sent` bytes, about), `stored`, or `durable`: it will not be lost there.
        n: the cloud's number of it, 0 before it has one.
        person: who brought it, `gateway` for its own.
    """

    sha256: str
    size: int
    local: str
    cloud: str
    sent: int
    n: int
    added_ms: int
    person: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A blob that records name and the cloud does not have."""

    sha256: str
    size: int
    sent: int
    is_open: bool


def known(connection: sqlite3.Connection, sha256: str) -> Known | None:
    """What is known of one."""
    row = connection.execute(f"{_KNOWN} WHERE sha256 = ?", (sha256,)).fetchone()
    return _row(row) if row else None


def all_known(connection: sqlite3.Connection) -> dict[str, Known]:
    """What is known of every one."""
    return {row[0]: _row(row) for row in connection.execute(_KNOWN)}


def added(connection: sqlite3.Connection, sha256: str, size: int, person: str, now_ms: int) -> bool:
    """It is whole on this disk now; whether it had been here before and was damaged or gone."""
    before = known(connection, sha256)
    connection.execute(
        "INSERT INTO blob VALUES (?, ?, 'whole', 'none', 0, 0, ?, ?)"
        " ON CONFLICT (sha256) DO UPDATE SET local = 'whole', size = excluded.size",
        (sha256, size, now_ms, person),
    )
    return before is not None and before.local != WHOLE


def lost(connection: sqlite3.Connection, sha256: str, local: str, size: int, now_ms: int) -> bool:
    """It is damaged or gone here; whether that is new."""
    before = known(connection, sha256)
    connection.execute(
        "INSERT INTO blob VALUES (?, ?, ?, 'none', 0, 0, ?, '')"
        " ON CONFLICT (sha256) DO UPDATE SET local = excluded.local",
        (sha256, size, local, now_ms),
    )
    return before is None or before.local == WHOLE


def sent(connection: sqlite3.Connection, row: Waiting, cloud: str, done: int, n: int, now_ms: int) -> None:
    """The cloud has so much of it."""
    connection.execute(
        "INSERT INTO blob VALUES (?, ?, 'whole', ?, ?, ?, ?, '')"
        " ON CONFLICT (sha256) DO UPDATE SET cloud = excluded.cloud, sent = excluded.sent, n = excluded.n",
        (row.sha256, row.size, cloud, done, n, now_ms),
    )


def wanted(connection: sqlite3.Connection, last: int, missing: list[str]) -> int:
    """The cloud knows numbers up to `last` and has lost `missing`: what it had beyond that is sent again. How many."""
    again = "UPDATE blob SET cloud = 'none', sent = 0, n = 0 WHERE cloud IN ('stored', 'durable') AND "
    count = connection.execute(f"{again} n > ?", (last,)).rowcount
    for sha256 in missing:
        count += connection.execute(f"{again} sha256 = ?", (sha256,)).rowcount
    return count


def waiting(connection: sqlite3.Connection) -> list[Waiting]:
    """What is to be sent, in this order: of open cases first, each kind as records came to name it."""
    return [
        Waiting(sha256=row[0], size=row[1], sent=row[2], is_open=bool(row[3])) for row in connection.execute(_WAITING)
    ]


def to_fetch(connection: sqlite3.Connection) -> list[str]:
    """What is damaged or gone here, is named by a record, and the cloud may have; smallest first."""
    sql = (
        "SELECT b.sha256 FROM blob b WHERE b.local <> 'whole' AND b.cloud IN ('stored', 'durable')"
        " AND EXISTS (SELECT 1 FROM blob_ref r WHERE r.sha256 = b.sha256) ORDER BY b.size"
    )
    return [row[0] for row in connection.execute(sql)]


def unsettled(connection: sqlite3.Connection, limit: int) -> list[str]:
    """What the cloud has, but may still lose."""
    sql = "SELECT sha256 FROM blob WHERE cloud = 'stored' ORDER BY n LIMIT ?"
    return [row[0] for row in connection.execute(sql, (limit,))]


def settled(connection: sqlite3.Connection, sha256: str) -> None:
    """The cloud will not lose it any more."""
    connection.execute("UPDATE blob SET cloud = 'durable' WHERE sha256 = ?", (sha256,))


def forget(connection: sqlite3.Connection, sha256: str) -> bool:
    """Forget a blob that no record names; False when one does."""
    if connection.execute("SELECT 1 FROM blob_ref WHERE sha256 = ? LIMIT 1", (sha256,)).fetchone() is not None:
        return False
    connection.execute("DELETE FROM blob WHERE sha256 = ?", (sha256,))
    return True


def named(connection: sqlite3.Connection) -> set[str]:
    """Every blob that a record names."""
    return {row[0] for row in connection.execute("SELECT DISTINCT sha256 FROM blob_ref")}


def unnamed_bytes(connection: sqlite3.Connection) -> int:
    """How much lies here that no record names yet."""
    sql = (
        "SELECT coalesce(sum(size), 0) FROM blob b WHERE local = 'whole'"
        " AND NOT EXISTS (SELECT 1 FROM blob_ref r WHERE r.sha256 = b.sha256)"
    )
    return connection.execute(sql).fetchone()[0]


def counts(connection: sqlite3.Connection) -> dict[str, int]:
    """How many are damaged or gone."""
    rows: list[Any] = connection.execute("SELECT local, count(*) FROM blob GROUP BY local").fetchall()
    return dict(rows)


def _row(row: tuple[Any, ...]) -> Known:
    names = ("sha256", "size", "local", "cloud", "sent", "n", "added_ms", "person")
    return Known(**dict(zip(names, row, strict=True)))
