"""Database files that are broken: how to know, and where they go."""

from __future__ import annotations

import contextlib
import secrets
import sqlite3
import time
from pathlib import Path

from ..words import utc_text
from .columns import DamagedError

_DAMAGED_CODES = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite, anywhere in the chain of causes, says that the file itself is broken."""
    while error is not None:
        if isinstance(error, DamagedError) or getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED_CODES:
            return True
        error = error.__cause__
    return False


def set_aside(path: Path) -> Path:
    """Rename a damaged file, with what SQLite keeps beside it, for whoever can still read some of it; its new name."""
    stamp = utc_text(int(time.time() * 1000)).replace(":", "")
    aside = path.with_name(f"{path.name}.damaged-{stamp}-{secrets.token_hex(2)}")
    for suffix in ("-wal", "-shm", ""):
        with contextlib.suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    return aside
