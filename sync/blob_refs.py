"""Which records name which blobs, and whether the case that they belong to is open. Derived from records alone.

Evidence of an open case goes to headquarters before everything else in bulk. What a case is, the modules that have them
say: each registers a `CaseRule`, from a record to the id of its case and whether that is open after it.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .journal import Record, StateTable

_VERSION = 1
_SCHEMA = """
CREATE TABLE blob_ref (sha256 TEXT NOT NULL, seq INTEGER NOT NULL, kind TEXT NOT NULL, case_id TEXT NOT NULL,
    PRIMARY KEY (sha256, seq)) WITHOUT ROWID;
CREATE TABLE blob_case (case_id TEXT PRIMARY KEY) WITHOUT ROWID
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a record says of its case: `hazard/17`, open after this record or not."""

    id: str
    is_open: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseRule:
    """How one module's records tell of cases.

    Attributes:
        kinds: prefix of the kinds that the rule reads: `hazard.`.
        version: raise it when `case_of` changes: the tables are rebuilt then.
        case_of: pure; None when the record belongs to no case.
    """

    kinds: str
    version: int
    case_of: Callable[[Record], Case | None]


def state_table(rules: Sequence[CaseRule] = ()) -> StateTable:
    """`blob_ref` (blob, record, kind, case) and `blob_case` (the open ones)."""
    by_kind = {rule.kinds: rule.case_of for rule in rules}
    prefixes = tuple(by_kind)

    def apply(connection: sqlite3.Connection, record: Record) -> None:
        if not record.blobs and not record.kind.startswith(prefixes):
            return
        case = next((of(record) for kinds, of in by_kind.items() if record.kind.startswith(kinds)), None)
        _apply(connection, record, case)

    versions = repr(sorted((rule.kinds, rule.version) for rule in rules))
    return StateTable(
        name="blob_ref",
        version=_VERSION << 32 | zlib.crc32(versions.encode()),
        schema=_SCHEMA,
        tables=("blob_ref", "blob_case"),
        kinds=("",),
        apply=apply,
    )


def _apply(connection: sqlite3.Connection, record: Record, case: Case | None) -> None:
    case_id = case.id if case else ""
    for sha256 in set(record.blobs):
        connection.execute("INSERT INTO blob_ref VALUES (?, ?, ?, ?)", (sha256, record.seq, record.kind, case_id))
    if case is not None and case.is_open:
        connection.execute("INSERT OR IGNORE INTO blob_case VALUES (?)", (case.id,))
    elif case is not None:
        connection.execute("DELETE FROM blob_case WHERE case_id = ?", (case.id,))


def changes_order(records: Sequence[Record], rules: Sequence[CaseRule]) -> bool:
    """Whether any of `records` may change which blob is sent next."""
    prefixes = tuple(rule.kinds for rule in rules)
    return any(record.blobs or record.kind.startswith(prefixes) for record in records)


def is_named(connection: sqlite3.Connection, sha256: str) -> bool:
    """Whether any record names the blob."""
    return connection.execute("SELECT 1 FROM blob_ref WHERE sha256 = ? LIMIT 1", (sha256,)).fetchone() is not None
