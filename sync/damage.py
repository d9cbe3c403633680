"""Database files that are broken: how to know, and where they go. And disks that take nothing."""

from __future__ import annotations

import contextlib
import errno
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ..words import utc_text
from .columns import DamagedError
from .sqlite import is_full, is_refusal, schema_in, schema_made_by

REFUSED = frozenset(
    {errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ENXIO, errno.ENODEV, errno.EUCLEAN, errno.ESTALE}
)
"""What the kernel says when a disk takes nothing. Not EACCES and EPERM: that is somebody's mistake."""
_DAMAGED_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_TOOBIG}  # of a row: no job writes one
_NOT_UNDERSTOOD = {sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH}

Make = Callable[[sqlite3.Connection], object]


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite, anywhere in the chain of causes, says that the file itself is broken."""
    while error is not None:
        if isinstance(error, DamagedError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED_CODES:
            return True
        error = error.__cause__
    return False


@contextlib.contextmanager
def reading_of(path: Path) -> Iterator[None]:
    """Whatever cannot be understood of what a file says is damage. What the disk, or a person, must mend is not.

    Raises DamagedError.
    """
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.IntegrityError, TypeError, ValueError, KeyError, OverflowError) as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF not in _NOT_UNDERSTOOD:
            raise
        raise DamagedError(f"{path}: {error}") from error


def look_at(connection: sqlite3.Connection, path: Path, make: Make, whole_bytes: int) -> None:
    """Look whether a file is what it should be, as far as that goes quickly.

    Args:
        make: makes the tables of a new file; tables and indexes of the same names must be made as these are.
        whole_bytes: the structure of a file up to this size is checked.

    Raises:
        DamagedError, sqlite3.DatabaseError: the file cannot be gone on with.
    """
    if path.stat().st_size <= whole_bytes:
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise DamagedError(f"{path}: {verdict}")
    made = schema_in(connection)
    if other := [name for name, sql in schema_made_by(make).items() if made.get(name, sql) != sql]:
        raise DamagedError(f"{path}: {other[0]} is not as it was made")


def why_refused(error: BaseException) -> str:
    """What the disk answered, anywhere in the chain of causes; "" when the error is not a disk's."""
    for cause in _causes(error):
        if is_refusal(cause) or (isinstance(cause, OSError) and cause.errno in REFUSED):
            return str(getattr(cause, "strerror", None) or cause)
    return ""


def is_out_of_room(error: BaseException) -> bool:
    """Whether SQLite found no room, anywhere in the chain of causes."""
    return any(map(is_full, _causes(error)))


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__


def set_aside(path: Path) -> Path:
    """Rename a damaged file, with what SQLite keeps beside it, for whoever can still read some of it; its new name."""
    stamp = utc_text(int(time.time() * 1000)).replace(":", "")
    aside = path.with_name(f"{path.name}.damaged-{stamp}-{secrets.token_hex(2)}")
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
