"""State tables: what follows from the records of a journal, kept in its file beside them."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .record import Record
from .sqlite import schema_in, schema_made_by


@dataclass(frozen=True, slots=True, kw_only=True)
class StateTable:
    """A module's tables, derived from records alone.

    Attributes:
        name: of the module; its tables start with it.
        version: raise it when `schema` or `apply` change: the tables are then rebuilt from the journal.
        schema: creates the tables (CREATE TABLE statements).
        tables: names of the tables, to drop and to compare.
        kinds: prefixes of the record kinds that `apply` wants.
        apply: `(connection, record)`, deterministic, inside the transaction of the record.
        beside: of `tables`, those that do not follow from records: a comparison leaves them out.
    """

    name: str
    version: int
    schema: str
    tables: tuple[str, ...]
    kinds: tuple[str, ...]
    apply: Callable[[sqlite3.Connection, Record], None]
    beside: tuple[str, ...] = ()


def bring_up_to_date(connection: sqlite3.Connection, table: StateTable) -> None:
    """Create the tables of `table`, or rebuild them from the records: when its version changed, or they are damaged."""
    row = connection.execute("SELECT version FROM module WHERE name = ?", (table.name,)).fetchone()
    if row is not None and row[0] == table.version:
        made = schema_in(connection)
        wanted = schema_made_by(lambda memory: memory.executescript(table.schema))
        if all(made.get(name) == sql for name, sql in wanted.items()):
            return
    with transaction(connection):
        rebuild(connection, table)
        connection.execute("INSERT OR REPLACE INTO module VALUES (?, ?)", (table.name, table.version))


def rebuild(connection: sqlite3.Connection, table: StateTable) -> None:
    """Drop the tables of `table` and apply every record again. The caller holds the transaction."""
    for name in table.tables:
        connection.execute(f"DROP TABLE IF EXISTS {name}")
    for statement in filter(str.strip, table.schema.split(";")):
        connection.execute(statement)
    for record in _records(connection):
        if record.kind.startswith(table.kinds):
            table.apply(connection, record)


def _records(connection: sqlite3.Connection) -> Iterator[Record]:
    for data, chain in connection.execute("SELECT data, chain FROM record ORDER BY seq"):
        yield Record.from_bytes(data, chain)


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All or nothing."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")
