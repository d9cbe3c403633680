"""What somebody did to a journal, as far as the records that are left can tell. Reads only."""

from __future__ import annotations

import enum
import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .journal import next_chain

_LOOK = 2_000
"""Rows behind the first wrong one that are looked at."""


class Deed(enum.StrEnum):
    """What was done."""

    ALTERED = "altered"
    REMOVED = "removed"
    INSERTED = "inserted"
    REORDERED = "reordered"
    RENAMED = "renamed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """The first thing that was done.

    Attributes:
        seq: number of the first record that is not what it was.
        count: how many records, of those removed or inserted.
    """

    deed: Deed
    seq: int
    count: int = 1


def what_happened(connection: sqlite3.Connection, seq: int, before: bytes, epoch: str) -> Change:
    """Judge the first record that does not fit.

    A record that belongs at a place can be recognised: its chain value follows from the one before. So a record that
    is found behind its place was pushed back or moved, one that is found nowhere was removed or altered.

    Args:
        seq: its place, from 1. before: chain value of the record before it.
        epoch: what the file says of itself.
    """
    sql = "SELECT seq, data, chain FROM record ORDER BY seq LIMIT ? OFFSET ?"
    rows = [_Row(*row) for row in connection.execute(sql, (_LOOK, seq - 1))]
    first = rows[0]
    place = next((i for i, row in enumerate(rows) if row.follows(before)), None)
    if first.epoch not in ("", epoch) and first.number == seq:
        return Change(deed=Deed.RENAMED, seq=seq)
    if place is not None:
        return _before_its_record(rows, seq, place, before)
    if first.number is None or first.number == seq:
        return Change(deed=Deed.ALTERED, seq=seq)
    if first.number > seq:
        return Change(deed=Deed.REMOVED, seq=seq, count=first.number - seq)
    if len(rows) == 1:
        return Change(deed=Deed.INSERTED, seq=seq)
    if rows[1].number == first.number + 1:  # everything behind was moved on, the stranger's own chain value was right
        return Change(deed=Deed.INSERTED, seq=first.number, count=seq - first.number)
    return Change(deed=Deed.ALTERED, seq=seq)


class _Row:
    """A row of the table, and what the record in it says of itself: None and "" when it cannot be read."""

    def __init__(self, _: int, data: Any, chain: Any) -> None:
        self.data, self.chain = data, chain
        self.number: int | None = None
        self.epoch = ""
        try:
            fields = json.loads(data)
            self.number, self.epoch = int(fields["seq"]), str(fields["epoch"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return

    def follows(self, chain: bytes) -> bool:
        """Whether it is the record that was written after `chain`."""
        return isinstance(self.data, bytes) and next_chain(chain, self.data) == self.chain


def _before_its_record(rows: Sequence[_Row], seq: int, place: int, before: bytes) -> Change:
    """The record that belongs first stands at `place`: those before it are strangers, or were only moved."""
    if place == 0:
        is_twice = len(rows) > 1 and rows[1].follows(before)
        return Change(deed=Deed.INSERTED if is_twice else Deed.ALTERED, seq=seq)
    chains = {row.number: row.chain for row in rows if isinstance(row.chain, bytes)}
    strangers = 0
    for row in rows[:place]:
        follows = row.number is not None and row.number > seq and row.follows(chains.get(row.number - 1, b""))
        strangers += not follows
    if strangers:
        return Change(deed=Deed.INSERTED, seq=seq, count=strangers)
    return Change(deed=Deed.REORDERED, seq=seq)
