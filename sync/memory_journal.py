"""The journal's place in memory while its disk takes nothing: made from what can still be read of the file.

What is copied: the state tables and the newest records, so that alarms, ladders and messages go on under numbers that
follow. The epoch is another one: should the memory be lost, no number and no key of it is ever used again. What was
made here is carried over when the disk is back (`carrying.py`), and is never sent as a journal.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .damage import is_damage
from .record import genesis_chain
from .sqlite import connect_for_reading, connect_for_writing
from .state import StateTable

_log = logging.getLogger(__name__)

MARK = "not_recorded"
"""Row of `meta` that only a journal in memory has."""
BEGAN = "journal.not_recorded"
"""Kind of the first record in memory. On the disk the gap's record has its number."""
MOST_BYTES = 64 * 2**20
"""Of the file in memory: weeks of a site with alarms every few minutes."""
_NEWEST_RECORDS = 2_000
_MOST_ROWS = 50_000
"""Of one table, the newest: what is open and what waits is always among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NotRecorded:
    """Since when and why nothing is recorded.

    Attributes:
        since_ms: UTC milliseconds.
        why: what the disk answered.
        epoch, seq: of the newest record that could be read on the disk; "" and 0 when none could.
        chain: of that record, hexadecimal.
        forgotten: kinds of records, with their numbers, that an earlier memory held and that are lost.
    """

    since_ms: int
    why: str
    epoch: str = ""
    seq: int = 0
    chain: str = ""
    forgotten: dict[str, int] = field(default_factory=dict[str, int])

    @classmethod
    def of(cls, text: str | None) -> NotRecorded | None:
        """As `meta` holds it; None of a journal on a disk."""
        return cls(**json.loads(text)) if text else None

    def to_text(self) -> str:
        """Inverse of `of`."""
        return json.dumps(asdict(self))


def seed(
    source: Path,
    memory: Path,
    gateway: str,
    tables: Sequence[StateTable],
    apply_schema: Callable[[sqlite3.Connection], None],
    *,
    since_ms: int,
    why: str,
    forgotten: dict[str, int],
    beside: Iterable[str] = (),
    also: Iterable[str] = (),
) -> NotRecorded:
    """Make a journal in `memory`, which must not exist, from what can be read of `source`. Blocks.

    Args:
        beside: tables that belong to the state tables' modules and do not follow from records.
        also: SELECTs of the numbers of older records that are needed as well.

    Raises:
        OSError: the memory takes nothing either.
    """
    try:
        return _seed(source, memory, gateway, tables, apply_schema, since_ms, why, forgotten, beside, also)
    except sqlite3.Error as error:
        raise OSError(f"{memory}: {error}") from error


def _seed(
    source: Path,
    memory: Path,
    gateway: str,
    tables: Sequence[StateTable],
    apply_schema: Callable[[sqlite3.Connection], None],
    since_ms: int,
    why: str,
    forgotten: dict[str, int],
    beside: Iterable[str],
    also: Iterable[str],
) -> NotRecorded:
    with contextlib.closing(sqlite3.connect(memory, isolation_level=None)) as target:
        target.execute("PRAGMA journal_mode=WAL")
        apply_schema(target)
        found = NotRecorded(since_ms=since_ms, why=why, forgotten=forgotten)
        with contextlib.ExitStack() as stack:
            if (reading := _readable(source)) is not None:
                stack.enter_context(contextlib.closing(reading))
                found = _copy(reading, target, found, [*_names(tables), *beside], tables, also)
        epoch = secrets.token_hex(8)
        if not found.seq:
            found = _with(found, chain=genesis_chain(gateway, epoch).hex())
        rows = [("gateway", gateway), ("epoch", epoch), (MARK, found.to_text())]
        target.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)
    return found


def refusal_of(path: Path) -> str:
    """Why a journal on the disk takes no write, "" when it does, is damaged (that is for who opens it) or is not there.

    Nobody else may write it meanwhile. Blocks.
    """
    if not path.exists():
        return ""
    try:
        with contextlib.closing(connect_for_writing(path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT)")
            connection.execute("INSERT OR REPLACE INTO meta VALUES ('tried', ?)", (secrets.token_hex(8),))
            connection.execute("COMMIT")
            busy, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.Error as error:
        return "" if is_damage(error) else str(error)
    return "the journal's file is in use" if busy else ""


def _copy(
    reading: sqlite3.Connection,
    target: sqlite3.Connection,
    found: NotRecorded,
    names: Sequence[str],
    tables: Sequence[StateTable],
    also: Iterable[str],
) -> NotRecorded:
    copied = set[str]()
    for name in names:
        with _said(name):
            _copy_table(reading, target, name)
            copied.add(name)
    with _said("module"):  # a module without all of its tables is derived anew from the newest records
        versions = dict(reading.execute("SELECT name, version FROM module"))
        whole = [table.name for table in tables if table.name in versions and copied.issuperset(table.tables)]
        target.executemany("INSERT OR REPLACE INTO module VALUES (?, ?)", [(name, versions[name]) for name in whole])
    with _said("record"):
        wanted = " UNION ".join(["SELECT seq FROM newest", *also])
        newest = "WITH newest AS (SELECT seq FROM record ORDER BY seq DESC LIMIT ?)"
        sql = f"{newest} SELECT seq, kind, data, chain FROM record WHERE seq IN ({wanted}) ORDER BY seq"  # noqa: S608
        last: tuple[Any, ...] = ()
        for last in reading.execute(sql, (_NEWEST_RECORDS,)):
            target.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?, ?)", last)
        if last:
            epoch = str(json.loads(last[2])["epoch"])
            return _with(found, epoch=epoch, seq=last[0], chain=last[3].hex())
    return found


def _copy_table(reading: sqlite3.Connection, target: sqlite3.Connection, name: str) -> None:
    """With its indexes; the newest rows of a long one."""
    sql = "SELECT sql FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL ORDER BY type DESC"
    made = reading.execute(sql, (name,))
    statements = [sql for (sql,) in made]
    if not statements:
        return
    order = "" if "WITHOUT ROWID" in statements[0].upper() else "ORDER BY rowid DESC"
    target.execute("BEGIN")
    try:
        for sql in statements:
            target.execute(sql)
        rows = reading.execute(f"SELECT * FROM {name} {order} LIMIT {_MOST_ROWS}").fetchall()  # noqa: S608
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            target.executemany(f"INSERT INTO {name} VALUES ({marks})", reversed(rows))  # noqa: S608
    except BaseException:
        target.execute("ROLLBACK")
        raise
    target.execute("COMMIT")


@contextlib.contextmanager
def _said(what: str) -> Any:
    """What cannot be read is missing, and the rest goes on."""
    try:
        yield
    except (sqlite3.Error, ValueError, KeyError) as error:
        _log.error("%s cannot be read any more and begins anew in memory: %s", what, error)


def _readable(source: Path) -> sqlite3.Connection | None:
    """The file as it was committed last; on a card that takes no lock files, without what was not yet moved into it."""
    for connect in (connect_for_reading, _immutable):
        connection = None
        try:
            connection = connect(source)
            connection.execute("SELECT 1 FROM record LIMIT 1").fetchall()
        except sqlite3.Error as error:
            _log.warning("%s: %s", source, error)
            if connection is not None:
                connection.close()
        else:
            return connection
    return None


def _immutable(source: Path) -> sqlite3.Connection:
    uri = f"{source.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(uri, uri=True, check_same_thread=False)


def _names(tables: Sequence[StateTable]) -> list[str]:
    return [name for table in tables for name in table.tables]


def _with(found: NotRecorded, **changes: Any) -> NotRecorded:
    return NotRecorded(**{**asdict(found), **changes})
