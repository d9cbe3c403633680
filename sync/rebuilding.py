"""State tables made again from the records, beside those that stand in the file: do both say the same?

The journal is attached read-only to a database of its own in a temporary folder; the tables are built there. One
consistent state is read throughout, so the daemon may run; its log is not emptied meanwhile.
"""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import PermanentError
from .journal import Record, StateTable, rebuild
from .sqlite import Writer

Row = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One table.

    Attributes:
        rows: how many follow from the records. differing: how many keys are not the same in both.
        stands, follows: the first differing row as it stands in the file and as it follows from the records; None when
            there is none with its key.
        missing: the file has no such table, or one of another shape.
    """

    module: str
    table: str
    rows: int = 0
    differing: int = 0
    stands: Row | None = None
    follows: Row | None = None
    missing: bool = False

    @property
    def is_equal(self) -> bool:
        """Row by row."""
        return not (self.differing or self.missing)


def compare(
    path: Path,
    tables: Sequence[StateTable],
    *,
    folder: Path | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Compared]:
    """Build every table of `tables` from the records of a journal.db, and compare. Changes nothing.

    Args:
        folder: for the temporary file, which becomes about as large as the tables; None: the system's.
        progress: called with the number of records applied so far, now and then.

    Raises:
        PermanentError: the file is not a journal, or one of its records cannot be applied.
    """
    with tempfile.TemporaryDirectory(dir=folder) as temporary, _beside(path, Path(temporary) / "rebuilt.db") as db:
        for table in tables:
            for statement in filter(str.strip, table.schema.split(";")):
                db.execute(statement)
        _apply_all(db, tables, progress)
        return [_compare(db, table.name, name) for table in tables for name in table.tables if name not in table.beside]


def write(path: Path, tables: Sequence[StateTable]) -> None:
    """Put the tables into the file as they follow from the records. Nobody else may have it open.

    Raises:
        StoreError: the file could not be written; it is as it was.
    """

    def again(connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for table in tables:
                if not table.beside:
                    rebuild(connection, table)
        except BaseException:
            connection.execute("ROLLBACK")
            raise
        connection.execute("COMMIT")

    writer = Writer(path, again)
    try:
        writer.open()
    finally:
        writer.close()


@contextlib.contextmanager
def _beside(path: Path, temporary: Path) -> Iterator[sqlite3.Connection]:
    """A new database with the journal attached as `log`; what is not found in the one is found in the other."""
    db = sqlite3.connect(temporary.as_uri(), uri=True, isolation_level=None)
    try:
        for pragma in ("journal_mode = OFF", "synchronous = OFF"):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.execute("ATTACH DATABASE ? AS log", (f"{path.absolute().as_uri()}?mode=ro",))
        db.execute("BEGIN")
        db.execute("SELECT 1 FROM log.record LIMIT 1").fetchone()
        yield db
    except sqlite3.Error as error:
        raise PermanentError(f"{path}: not a journal: {error}", hint="name the journal.db of a gateway") from error
    finally:
        db.close()


def _apply_all(db: sqlite3.Connection, tables: Sequence[StateTable], progress: Callable[[int], None]) -> None:
    rows = db.execute("SELECT seq, data, chain FROM log.record ORDER BY seq")
    for count, (seq, data, chain) in enumerate(rows, 1):
        try:
            record = Record.from_bytes(data, chain)
            for table in tables:
                if record.kind.startswith(table.kinds):
                    table.apply(db, record)
        except Exception as error:
            problem = f"record {seq} cannot be applied: {type(error).__name__}: {error}"
            raise PermanentError(problem, hint="run sitewarden verify") from error
        if count % 1000 == 0:
            progress(count)


def _compare(db: sqlite3.Connection, module: str, table: str) -> Compared:
    columns = _columns(db, "main", table)
    if _columns(db, "log", table) != columns:
        return Compared(module=module, table=table, missing=True)
    key = [name for name, is_key in columns if is_key] or [name for name, _ in columns]
    names = ", ".join(key)
    differing = (
        f"SELECT {names} FROM (SELECT * FROM main.{table} EXCEPT SELECT * FROM log.{table})"  # noqa: S608 - ours
        f" UNION SELECT {names} FROM (SELECT * FROM log.{table} EXCEPT SELECT * FROM main.{table})"
    )
    (rows,) = db.execute(f"SELECT count(*) FROM main.{table}").fetchone()  # noqa: S608
    (many,) = db.execute(f"SELECT count(*) FROM ({differing})").fetchone()  # noqa: S608
    first = db.execute(f"SELECT * FROM ({differing}) ORDER BY {names} LIMIT 1").fetchone()  # noqa: S608
    if first is None:
        return Compared(module=module, table=table, rows=rows)
    where = " AND ".join(f"{name} IS ?" for name in key)
    stands, follows = (
        _row(db, f"SELECT * FROM {side}.{table} WHERE {where}", first, columns)  # noqa: S608
        for side in ("log", "main")
    )
    return Compared(module=module, table=table, rows=rows, differing=many, stands=stands, follows=follows)


def _row(db: sqlite3.Connection, sql: str, key: Sequence[Any], columns: Sequence[tuple[str, bool]]) -> Row | None:
    row = db.execute(sql, key).fetchone()
    return None if row is None else dict(zip((name for name, _ in columns), row, strict=True))


def _columns(db: sqlite3.Connection, side: str, table: str) -> list[tuple[str, bool]]:
    """Name of each column, and whether it is part of the key."""
    return [(row[1], bool(row[5])) for row in db.execute(f"PRAGMA {side}.table_info({table})")]
