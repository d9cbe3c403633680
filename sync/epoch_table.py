"""The epochs of one journal.db, and the record that each but the first begins with.

Records keep their numbers across epochs, without a gap: readers, state tables and cursors know one order. What begins
anew is the chain: from the genesis of the epoch, by a record that names where the one before ended, with its chain. So
an epoch can be checked alone, and its place behind the one before is under its own chain and signatures.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

RESTORED = "journal.restored"
"""Kind of the first record of every epoch but the first."""

_BRANCH_DIGITS = 16
_MARK = b'"kind":"journal.restored"'


def m003_epochs(db: sqlite3.Connection) -> None:
    """Which record each epoch begins with; what was one epoch until now is the first."""
    db.execute("CREATE TABLE epoch (first INTEGER PRIMARY KEY, epoch TEXT NOT NULL UNIQUE)")
    db.execute("INSERT INTO epoch SELECT 1, value FROM meta WHERE key = 'epoch'")


def epochs_of(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    """(epoch, number of its first record) in order; empty when the file knows one epoch alone and no table of them."""
    known = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'epoch'").fetchone()
    if known is None:
        return []
    return connection.execute("SELECT epoch, first FROM epoch ORDER BY first").fetchall()


def began_with(connection: sqlite3.Connection, epochs: Sequence[tuple[str, int]]) -> dict[str, Any]:
    """Body of the record that the newest epoch began with; empty for the first one."""
    if len(epochs) < 2:
        return {}
    row = connection.execute("SELECT data FROM record WHERE seq = ?", (epochs[-1][1],)).fetchone()
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return dict(json.loads(row[0])["body"])
    return {}


def record_epoch(stream_epoch: str) -> str:
    """The epoch that the records of a stream say they are of.

    A stream is named by the epoch of its records; a branch, which carries records that could not go on under it, by
    the epoch and 8 digits more.
    """
    return stream_epoch[:_BRANCH_DIGITS]


def is_branch(stream_epoch: str) -> bool:
    """Whether a stream carries records beside those that the cloud has of their epoch."""
    return len(stream_epoch) > _BRANCH_DIGITS


def predecessor_json(epoch: str, seq: int, chain: bytes) -> dict[str, Any]:
    """What the first record of an epoch says of the one before."""
    return {"epoch": epoch, "seq": seq, "chain": chain.hex()}


def begins_epoch(data: bytes, epoch: str, seq: int, chain: bytes) -> str:
    """The epoch that a record begins behind record `seq` of `epoch`, which has `chain`; "" when it begins none."""
    if _MARK not in data:
        return ""
    try:
        fields: Mapping[str, Any] = json.loads(data)
        fits = fields["kind"] == RESTORED and fields["seq"] == seq + 1 and fields["epoch"] != epoch
        return str(fields["epoch"]) if fits and _predecessor(fields) == predecessor_json(epoch, seq, chain) else ""
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return ""


def _predecessor(fields: Mapping[str, Any]) -> Any:
    return fields["body"]["predecessor"]
