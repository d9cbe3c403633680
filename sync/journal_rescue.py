"""A damaged journal is set aside, never thrown away, and what of it can be read goes on in a new file.

Carried over is every record that can be read and fits the one before it, under its number: open alarms, ladders and
freezes follow from them. What is missing is named in the record that the new epoch begins with; `sitewarden verify`
shows the hole. State tables follow from the records. Tables beside them (attempts, cursors of the uplink, checkpoints)
are copied where they can be read: without them things are asked anew, not lost.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sqlite3
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from .columns import DamagedError
from .damage import Make, look_at, set_aside
from .record import Record, genesis_chain, next_chain
from .sqlite import connect_for_reading, connect_for_writing, schema_in
from .state import StateTable, transaction

_log = logging.getLogger(__name__)

DAMAGED = "journal.damaged"
"""Why a new epoch begins: the reason in the record that it begins with."""
_CHECKED_BYTES = 8 * 2**20
_TAIL = 2_000
_AT_ONCE = 500
_MOST_HASHED = 4 * 2**30
_LEAST_BYTES = 64
_SKIPPED = ("record", "meta", "module", "epoch", "sqlite_sequence")

_NOT_READ = (sqlite3.Error, TypeError, ValueError, KeyError, AttributeError, OverflowError)
"""What comes of rows that are not what they should be."""
_ROWS = "SELECT rowid, * FROM record"
"""Names of columns may have gone bad, and then the first may hold nothing: the number is SQLite's own."""

Row = tuple[int, str, bytes, bytes]


def begins_as_of(connection: sqlite3.Connection, gateway: str) -> bool:
    """Whether its first record is one of this gateway's, whatever the file says elsewhere."""
    for row in filter(_is_record, _numbered(connection.execute(f"{_ROWS} WHERE rowid = 1"))):
        epoch = Record.from_bytes(row[2], row[3]).epoch
        return row[3] == next_chain(genesis_chain(gateway, epoch), row[2])
    return False


def suspicion_of(path: Path) -> Path:
    """A file beside the journal that says: look at all of it at the next start."""
    return path.with_name(f"{path.name}-suspect")


def check(connection: sqlite3.Connection, path: Path, make: Make) -> None:
    """What is looked at before each start: the structure of a small file, or of one under suspicion, and whether the
    newest records can be read. That none was altered is for `verify` to say: that keeps nothing from starting.

    Args:
        make: makes the tables of a new journal.

    Raises:
        DamagedError, sqlite3.DatabaseError: the file cannot be gone on with.
    """
    look_at(connection, path, make, sys.maxsize if suspicion_of(path).exists() else _CHECKED_BYTES)
    made = schema_in(connection)
    if made and (problem := _problem(connection, made)):
        raise DamagedError(f"{path}: {problem}")


def _problem(connection: sqlite3.Connection, made: Mapping[str, str]) -> str:
    if not {"record", "meta", "module"} <= made.keys():
        return "tables are missing"
    if not all(type(text) is str for row in connection.execute("SELECT key, value FROM meta") for text in row):
        return "meta says what is no text"
    rows = connection.execute("SELECT seq, kind, data, chain FROM record ORDER BY seq DESC LIMIT ?", (_TAIL,))
    return next((f"record {row[0]} cannot be read" for row in rows if not _is_record(row)), "")


def _is_record(row: Row) -> bool:
    """Whether it says to be what its row says."""
    try:
        seq, kind, data, chain = row
        record = Record.from_bytes(data, chain)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
    is_whole = isinstance(data, bytes) and isinstance(chain, bytes) and len(chain) == 32
    return is_whole and record.seq == seq and record.kind == kind


def rescue(path: Path, gateway: str, tables: Sequence[StateTable], make: Make) -> dict[str, Any]:
    """Set `path` aside and begin it anew with what can be carried over. Blocks.

    Args:
        tables: the state tables; they are not carried over.
        make: makes the tables of a new journal.

    Returns:
        For the record that says so: `kept_as`, `sha256`, `bytes`, `carried` (how many records), `last`, `missing`
        (first and last of each hole), and `problem` or `tables_lost` where there is one.
    """
    aside = set_aside(path)
    suspicion_of(path).unlink(missing_ok=True)
    facts: dict[str, Any] = {"kept_as": aside.name, "bytes": aside.stat().st_size, "sha256": _hash(aside)}
    derived = {name for table in tables for name in table.tables if name not in table.beside}
    with contextlib.closing(connect_for_writing(path)) as new:
        make(new)
        try:
            with contextlib.closing(connect_for_reading(aside)) as old:
                facts |= _carry(old, new, gateway, derived, facts["bytes"])
        except _NOT_READ as error:
            facts |= {"carried": 0, "last": 0, "missing": [], "problem": str(error)}
    _log.error("%s is damaged; kept as %s; %d records were carried over", path, aside.name, facts["carried"])
    return facts


def _carry(
    old: sqlite3.Connection, new: sqlite3.Connection, gateway: str, derived: set[str], size: int
) -> dict[str, Any]:
    meta = dict(_readable(old, "SELECT * FROM meta"))
    if meta.get("gateway") != gateway and not begins_as_of(old, gateway):
        return {"carried": 0, "last": 0, "missing": [], "problem": f"it is the journal of {meta.get('gateway')!r}"}
    carried, last, missing = 0, 0, list[list[int]]()
    epochs: list[tuple[int, str]] = []
    before: Row | None = None
    with transaction(new):
        for row in _records(old, size):
            epoch = Record.from_bytes(row[2], row[3]).epoch
            if before is not None and before[0] == row[0] - 1 and not _follows(before[3], row, gateway, epoch):
                continue  # altered: it counts as missing
            if row[0] > last + 1:
                missing.append([last + 1, row[0] - 1])
            if not epochs or epochs[-1][1] != epoch:
                epochs.append((row[0] if epochs else 1, epoch))
            new.execute("INSERT INTO record VALUES (?, ?, ?, ?)", row)
            carried, last, before = carried + 1, row[0], row
        newest = epochs[-1][1] if epochs else str(meta["epoch"])
        new.executemany("INSERT INTO epoch VALUES (?, ?)", epochs)
        kept = {name: value for name, value in meta.items() if name not in ("epoch", "identity")}
        kept = {name: value for name, value in kept.items() if isinstance(name, str) and isinstance(value, str)}
        new.executemany("INSERT INTO meta VALUES (?, ?)", (kept | {"epoch": newest, "gateway": gateway}).items())
    lost = list(_copy_beside(old, new, derived, last))
    return {"carried": carried, "last": last, "missing": missing} | ({"tables_lost": lost} if lost else {})


def _follows(chain: bytes, row: Row, gateway: str, epoch: str) -> bool:
    """Behind a record with this chain value, or as the first of an epoch."""
    return row[3] in (next_chain(chain, row[2]), next_chain(genesis_chain(gateway, epoch), row[2]))


def _records(old: sqlite3.Connection, size: int) -> Iterator[Row]:
    """Those that can be read and say their own number, in order; `size`: of the file.

    A damaged number may be anything: only a row that is what it says moves the search on, and where rows cannot be
    read together each number is asked for, as far as there can be one.
    """
    most = size // _LEAST_BYTES
    end = _newest(old) or most
    after = 0
    while True:
        try:
            sql = f"{_ROWS} WHERE rowid > ? ORDER BY rowid LIMIT ?"
            rows = _numbered(old.execute(sql, (after, _AT_ONCE)))
            is_end = len(rows) < _AT_ONCE
            found = _ascending(rows, after)
            if not found and not is_end:
                raise DamagedError("not one of them is a record")
            after = found[-1][0] if found else after
        except (sqlite3.Error, DamagedError):
            after = max(after, end - most)
            found = _ascending(_one_by_one(old, after), after)
            after += _AT_ONCE
            is_end = after >= end
        yield from found
        if is_end:
            return


def _ascending(rows: Sequence[Row], after: int) -> list[Row]:
    """The records among them, each with a higher number than the one before."""
    found: list[Row] = []
    for row in rows:
        if row[0] > (found[-1][0] if found else after) and _is_record(row):
            found.append(row)
    return found


def _numbered(rows: Iterable[tuple[Any, ...]]) -> list[Row]:
    """What `_ROWS` gave."""
    return [(row[0], *row[2:]) for row in rows]


def _one_by_one(old: sqlite3.Connection, after: int) -> list[Row]:
    """Of the next numbers, those whose row can be read."""
    found: list[Row] = []
    for seq in range(after + 1, after + _AT_ONCE + 1):
        with contextlib.suppress(sqlite3.Error):
            found += _numbered(old.execute(f"{_ROWS} WHERE rowid = ?", (seq,)))
    return found


def _newest(old: sqlite3.Connection) -> int:
    """The highest number of a record that can be read from the end; 0 when that cannot be told."""
    for count in (_AT_ONCE, 50, 5, 1):
        sql = f"{_ROWS} ORDER BY rowid DESC LIMIT {count}"
        rows = _numbered(_readable(old, sql))
        if found := [row[0] for row in rows if _is_record(row)]:
            return max(found)
    return 0


def _copy_beside(old: sqlite3.Connection, new: sqlite3.Connection, derived: set[str], carried: int) -> Iterator[str]:
    """Copy what does not follow from records, each table whole or not at all; names of those that are lost.

    Rows that name a record which was not carried over stay behind: its number will be that of another one.
    """
    for name, sql in _readable(old, "SELECT name, sql FROM sqlite_master WHERE type = 'table' ORDER BY name"):
        if name in _SKIPPED or name in derived or name.startswith(("sqlite_", "_sqlite")):
            continue
        quoted = '"' + name.replace('"', '""') + '"'
        try:
            names = [row[1] for row in old.execute(f"PRAGMA table_info({quoted})")]
            told = [place for place, column in enumerate(names) if column in ("seq", "last")]
            rows = old.execute(f"SELECT * FROM {quoted}").fetchall()  # noqa: S608 - quoted
            rows = [row for row in rows if all(type(row[at]) is not int or row[at] <= carried for at in told)]
            with transaction(new):
                if new.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (name,)).fetchone() is None:
                    new.execute(sql)
                marks = ", ".join("?" * len(names))
                new.executemany(f"INSERT INTO {quoted} VALUES ({marks})", rows)  # noqa: S608 - quoted
        except _NOT_READ:
            yield str(name)


def _readable(old: sqlite3.Connection, sql: str) -> list[Any]:
    try:
        return old.execute(sql).fetchall()
    except sqlite3.Error:
        return []


def _hash(path: Path) -> str:
    """Of the file as it was kept; "" for one that is too large to be read while people wait."""
    if path.stat().st_size > _MOST_HASHED:
        return ""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
