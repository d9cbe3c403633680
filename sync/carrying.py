"""Brings what was made in memory to the disk that takes writes again: one declared gap, then every record under the
number that it had, marked `recovered`.

The gap's record takes the number of the record that the memory began with, so all numbers stay: open alarms, ladders
and messages are on the disk what people saw. It is one transaction: a power cut leaves all of it undone, or done.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..words import ClockState, Instant, now, utc_from_text, utc_text
from .memory_journal import BEGAN, MARK, NotRecorded
from .record import Draft, Record
from .sqlite import connect_for_reading

GAP = "journal.gap"
"""Kind of the record that says from when to when nothing was recorded, and why."""
CARRIED = "carried_over"
"""Row of `meta`: epoch of the memory that was carried over last, so that it is not done twice."""

Insert = Callable[[sqlite3.Connection, Sequence[Draft]], list[Record]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a journal in memory holds beyond the disk's."""

    epoch: str
    began: NotRecorded
    records: list[Record]

    @property
    def kinds(self) -> dict[str, int]:
        """How many records of each kind were made."""
        return dict(sorted(Counter(record.kind for record in self.records).items()))


def read_memory(path: Path) -> Memory:
    """Raises ValueError when it is no journal in memory, or cannot be read. Blocks."""
    try:
        with contextlib.closing(connect_for_reading(path)) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            began = NotRecorded.of(meta.get(MARK))
            if began is None:
                raise ValueError(f"{path} is no journal in memory")
            rows = connection.execute("SELECT data, chain FROM record WHERE seq > ? ORDER BY seq", (began.seq,))
            records = [Record.from_bytes(data, chain) for data, chain in rows]
    except (sqlite3.Error, KeyError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error
    return Memory(epoch=meta["epoch"], began=began, records=[one for one in records if one.kind != BEGAN])


def carry_over(
    connection: sqlite3.Connection,
    insert: Insert,
    memory: Path,
    beside: Iterable[str],
    readings: int | None,
) -> list[Record]:
    """In a transaction of the disk's journal: declare the gap and append what was made in memory.

    Args:
        insert: appends drafts in that transaction.
        memory: file of the journal in memory, closed.
        beside: tables that do not follow from records: they become as they are in memory.
        readings: how many were not kept meanwhile; None when nobody knows.

    Returns:
        The records; none when this memory was carried over already.
    """
    held = read_memory(memory)
    done = connection.execute("SELECT value FROM meta WHERE key = ?", (CARRIED,)).fetchone()
    if done is not None and done[0] == held.epoch:
        return []
    left = held.records[_already(connection, held) :]
    records = insert(connection, [_gap(held, len(left), readings), *map(_again, left)])
    with contextlib.closing(connect_for_reading(memory)) as reading:
        for name in beside:
            _same(connection, reading, name)
    connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (CARRIED, held.epoch))
    return records


def unknown_gap(since: Instant, until: Instant) -> Draft:
    """Of a process that did not end in order and whose memory, if it had any, is gone."""
    body = {
        "reason": "unknown",
        "from": utc_text(since.utc_ms),
        "to": utc_text(until.utc_ms),
        "from_ms": since.utc_ms,
        "to_ms": until.utc_ms,
        "records": None,
        "readings": None,
    }
    return Draft(kind=GAP, at=until, actor="gateway", body=body)


def is_same(draft: Draft, record: Record) -> bool:
    """Whether a record is what became of a draft."""
    return (draft.kind, draft.at.to_json(), draft.actor, draft.body) == (
        record.kind,
        record.at,
        record.actor,
        record.body,
    )


def _already(connection: sqlite3.Connection, held: Memory) -> int:
    """How many of the first records in memory the disk has all the same: a commit can fail and yet arrive."""
    sql = "SELECT data, chain FROM record WHERE seq > ? ORDER BY seq"
    arrived = [Record.from_bytes(*row) for row in connection.execute(sql, (held.began.seq,))]
    equal = [is_same(_draft(one), other) for one, other in zip(held.records, arrived, strict=False)]
    return len(equal) if all(equal) and len(equal) == len(arrived) else 0


def _gap(held: Memory, carried: int, readings: int | None) -> Draft:
    at, began = now(), held.began
    body: dict[str, Any] = {
        "reason": "not_recorded",
        "why": began.why,
        "from": utc_text(began.since_ms),
        "to": utc_text(at.utc_ms),
        "from_ms": began.since_ms,
        "to_ms": at.utc_ms,
        "behind": {"epoch": began.epoch, "seq": began.seq},
        "memory": held.epoch,
        "records": held.kinds,
        "carried": carried,
        "lost": began.forgotten,
        "readings": readings,
    }
    return Draft(kind=GAP, at=at, actor="gateway", body=body)


def _again(record: Record) -> Draft:
    draft = _draft(record)
    return Draft(
        kind=draft.kind, at=draft.at, actor=draft.actor, body={**draft.body, "recovered": True}, blobs=draft.blobs
    )


def _draft(record: Record) -> Draft:
    at = record.at
    instant = Instant(
        utc_ms=utc_from_text(at["utc"]), mono_s=float(at["mono"]), boot=at["boot"], clock=ClockState(at["clock"])
    )
    return Draft(kind=record.kind, at=instant, actor=record.actor, body=record.body, blobs=record.blobs)


def _same(connection: sqlite3.Connection, reading: sqlite3.Connection, name: str) -> None:
    """Rows that are new or other in memory; one that went there goes here, where all of the table was in memory."""
    exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
    if not all(one.execute(exists, (name,)).fetchone() for one in (connection, reading)):
        return
    here = set(connection.execute(f"SELECT * FROM {name}"))  # noqa: S608
    there = set(reading.execute(f"SELECT * FROM {name}"))  # noqa: S608
    for row in there - here:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT OR REPLACE INTO {name} VALUES ({marks})", row)  # noqa: S608


def kinds_of(memory: Path) -> dict[str, int]:
    """What a memory holds that will be lost with it; nothing when it cannot be read."""
    with contextlib.suppress(ValueError):
        held = read_memory(memory)
        return dict(sorted((Counter(held.kinds) + Counter(held.began.forgotten)).items()))
    return {}
