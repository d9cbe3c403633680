"""Whether the records of a journal are all there and as they were written: numbers, epochs, chain. Reads only."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import PermanentError
from .epoch_table import begins_epoch, epochs_of
from .record import Record, genesis_chain, next_chain
from .sqlite import connect_for_reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What `verify_file` found. `bad_seq` is the first record that is missing or does not fit, None when all do."""

    gateway: str
    epoch: str
    records: int
    bad_seq: int | None = None
    problem: str = ""


def verify_file(
    path: Path,
    progress: Callable[[int], None] = lambda _: None,
    see: Callable[[str, bytes, bytes], None] | None = None,
) -> Verdict:
    """Walk the chain of a journal file and name the first record that does not fit.

    A missing end shows as far as another table of the file names a record beyond it; without such a trace only
    headquarters knows.

    Args:
        path: a `journal.db`, also while the daemon runs.
        progress: called with the number of records checked so far, now and then.
        see: called with kind, canonical bytes and chain of each record, just before it is checked.

    Raises:
        PermanentError: the file is not a journal.
    """
    try:
        with contextlib.closing(connect_for_reading(path)) as connection:
            meta = dict(connection.execute("SELECT key, value FROM meta"))
            known, table = _newest_trace(connection)  # before the records, which may become more meanwhile
            rows = connection.execute("SELECT seq, data, chain, kind FROM record ORDER BY seq")
            rows = rows if see is None else _shown(rows, see)
            epochs = epochs_of(connection)
            first = epochs[0][0] if len(epochs) > 1 else ""
            verdict = verify_rows(meta["gateway"], meta["epoch"], rows, progress, first_epoch=first)
    except (sqlite3.Error, KeyError) as error:
        raise PermanentError(f"{path}: not a journal: {error}", hint="name the journal.db of a gateway") from error
    end = verdict.records
    if verdict.bad_seq is not None or known <= end:
        return verdict
    problem = f"record {known} is missing: the journal ends at {end}, but table {table} knows record {known}"
    return replace(verdict, bad_seq=end + 1, problem=problem)


def _shown(rows: Iterable[tuple[Any, ...]], see: Callable[[str, bytes, bytes], None]) -> Iterator[tuple[Any, ...]]:
    for row in rows:
        see(row[3], row[1], row[2])
        yield row


def _newest_trace(connection: sqlite3.Connection) -> tuple[int, str]:
    """The highest record number that a table beside the records names, and the table; 0 and "" when none does."""
    newest = (0, "")
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name <> 'record' ORDER BY name")
    for (table,) in names.fetchall():
        quoted = '"' + table.replace('"', '""') + '"'
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({quoted})")}
        where = "AND stream = 'journal'" if "stream" in columns else ""
        for column in sorted(columns & {"seq", "last"}):
            sql = f"SELECT max({column}) FROM {quoted} WHERE typeof({column}) = 'integer' {where}"  # noqa: S608 - quoted
            newest = max(newest, (connection.execute(sql).fetchone()[0] or 0, table), key=lambda trace: trace[0])
    return newest


def verify_rows(
    gateway: str,
    epoch: str,
    rows: Iterable[tuple[Any, ...]],
    progress: Callable[[int], None] = lambda _: None,
    *,
    first_epoch: str = "",
    first_seq: int = 1,
) -> Verdict:
    """Check numbers, epoch and chain of `(seq, canonical bytes, chain[, kind beside them])` rows in order.

    Args:
        epoch: of the last record.
        first_epoch: of the first one, when it is another: each epoch must name where the one before ended.
        first_seq: number of the first row.
    """
    current = first_epoch or epoch
    chain = genesis_chain(gateway, current)
    expected = first_seq - 1
    for seq, data, stored, *kind in rows:
        expected += 1
        if isinstance(data, bytes):  # whoever wrote with other tools may have left text or a number
            if successor := begins_epoch(data, current, expected - 1, chain):
                current, chain = successor, genesis_chain(gateway, successor)
            chain = next_chain(chain, data)
        problem = _problem(expected, current, seq, data, isinstance(data, bytes) and stored == chain, kind)
        if problem:
            return Verdict(gateway=gateway, epoch=current, records=expected - 1, bad_seq=expected, problem=problem)
        if expected % 1000 == 0:
            progress(expected)
    if current != epoch and expected:
        problem = f"record {expected + 1}, which begins epoch {epoch}, is missing"
        return Verdict(gateway=gateway, epoch=current, records=expected, bad_seq=expected + 1, problem=problem)
    return Verdict(gateway=gateway, epoch=epoch, records=expected)


def _problem(expected: int, epoch: str, seq: int, data: bytes, chain_fits: bool, kind: Sequence[str]) -> str:
    if seq != expected:
        return f"record {expected} is missing: the next one is {seq}"
    if not chain_fits:
        return f"record {expected} or its chain value was altered"
    try:
        record = Record.from_bytes(data, b"")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        return f"record {expected} is not readable: {error}"
    if record.seq != expected or record.epoch != epoch:
        return f"record {expected} says that it is record {record.seq} of epoch {record.epoch}"
    return f"record {expected}: the kind beside it was altered" if any(k != record.kind for k in kind) else ""
