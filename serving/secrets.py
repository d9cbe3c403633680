"""secrets.db: PIN hashes and sessions. Never in records, never on a phone, never in site.toml."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import argon2

from ..errors import PermanentError, RefusedError

_log = logging.getLogger(__name__)

SESSION_S = 12 * 3600
_OF_THE_DISK = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}
_OF_THE_DISK |= {sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM}
"""Errors that say nothing about what the file holds."""
_FREE_TRIES = 5
_LONGEST_WAIT_S = 900.0
_FORGET_S = 3600.0
_TRIES_PER_PERSON = 25
_TRIES_OF_NOBODY = 40

# OWASP's second choice: 19 MiB, two passes; a Pi checks a PIN in well under a second.
_HASHER = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
_NOBODY = _HASHER.hash(secrets.token_hex(8))


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A signed-in person on one device. `csrf` goes into the header of every unsafe request."""

    person: str
    csrf: str


@dataclass(slots=True)
class _Tries:
    count: int = 0
    last_s: float = 0.0


class Secrets:
    """PINs and sessions of one server.

    Args:
        path: of secrets.db; made with mode 0600. A damaged one is set aside: the gateway watches and alarms without
            it, and PINs can be set anew.
        clock: monotonic seconds, for the waits after wrong PINs.

    Attributes:
        set_aside: where a damaged file lies now; None: there was none.

    Raises:
        OSError, sqlite3.DatabaseError: the file cannot be opened or written.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._tries: dict[str, _Tries] = {}
        self._checking = asyncio.Semaphore(2)
        self.set_aside: Path | None = None
        try:
            self._db = _opened(path)
        except sqlite3.DatabaseError as error:
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _OF_THE_DISK:
                raise
            self.set_aside = _set_aside(path)
            hint = "nobody can sign in before a PIN is set anew: sitewarden pin set PERSON --secrets FILE"
            _log.error("%s is damaged (%s) and was set aside as %s; %s", path, error, self.set_aside.name, hint)
            self._db = _opened(path)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def set_pin(self, person: str, pin: str) -> None:
        """Set a PIN of 4 to 12 digits and end the person's sessions. Raises PermanentError on any other PIN."""
        if not (pin.isascii() and pin.isdigit() and 4 <= len(pin) <= 12):
            raise PermanentError(f"PIN of {person}: must be 4 to 12 digits")
        hashed = _HASHER.hash(pin)
        self._db.execute("BEGIN IMMEDIATE")
        with self._db:
            self._db.execute("INSERT OR REPLACE INTO pin VALUES (?, ?)", (person, hashed))
            self._db.execute("DELETE FROM session WHERE person = ?", (person,))

    async def sign_in(self, person: str, pin: str, address: str) -> tuple[str, Session]:
        """Check the PIN and begin a session.

        Args:
            person: id from people.csv.
            pin: as typed.
            address: of the client, for its own limit.

        Returns:
            The cookie's token and the session.

        Raises:
            RefusedError: `wrong_pin`, or `too_many_tries` with `retry_s`.
        """
        row = self._db.execute("SELECT hash FROM pin WHERE person = ?", (person,)).fetchone()
        keys = _limits(person, address, known=row is not None)
        self._check_tries(keys)
        for key in keys:  # counted before the check: a burst of parallel guesses is no way round
            tries = self._tries.setdefault(key, _Tries())
            tries.count += 1
            tries.last_s = self._clock()
        async with self._checking:
            fits = await asyncio.to_thread(_fits, row[0] if row else _NOBODY, pin)
        if not (fits and row):
            _log.warning("wrong PIN for %.40r from %s", person, address)
            raise RefusedError("wrong_pin", "the person or the PIN is wrong")
        for key in keys:
            self._tries.pop(key, None)
        token = secrets.token_urlsafe(32)
        session = Session(person=person, csrf=secrets.token_urlsafe(24))
        self._db.execute("DELETE FROM session WHERE expires_utc < ?", (time.time(),))
        row = (_digest(token), person, session.csrf, time.time() + SESSION_S)
        self._db.execute("INSERT INTO session VALUES (?, ?, ?, ?)", row)
        return token, session

    def session(self, token: str) -> Session | None:
        """The session of a cookie, None when it is unknown or over."""
        sql = "SELECT person, csrf FROM session WHERE token = ? AND expires_utc > ?"
        row = self._db.execute(sql, (_digest(token), time.time())).fetchone()
        return Session(person=row[0], csrf=row[1]) if row else None

    def sign_out(self, token: str) -> None:
        """End the session of a cookie."""
        self._db.execute("DELETE FROM session WHERE token = ?", (_digest(token),))

    def _check_tries(self, keys: dict[str, int]) -> None:
        now_s = self._clock()
        self._tries = {key: t for key, t in self._tries.items() if now_s - t.last_s < _FORGET_S}
        for key, free in keys.items():
            tries = self._tries.get(key)
            if tries is None or tries.count < free:
                continue
            wait_s = min(30.0 * 2 ** min(tries.count - free, 10), _LONGEST_WAIT_S) - (now_s - tries.last_s)
            if wait_s > 0:
                raise RefusedError("too_many_tries", "too many wrong PINs", hint=f"wait {wait_s:.0f} s", retry_s=wait_s)


def _opened(path: Path) -> sqlite3.Connection:
    """The database with its tables. Raises OSError, sqlite3.DatabaseError."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    try:
        db.execute("PRAGMA journal_mode=DELETE")  # `pin set` may write beside the server
        db.execute("PRAGMA synchronous=FULL")
        (found,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(str(found).splitlines()[-1])
        db.execute("CREATE TABLE IF NOT EXISTS pin (person TEXT PRIMARY KEY, hash TEXT NOT NULL)")
        db.execute(
            "CREATE TABLE IF NOT EXISTS session"
            " (token BLOB PRIMARY KEY, person TEXT NOT NULL, csrf TEXT NOT NULL, expires_utc REAL NOT NULL)"
        )
        _fits_our_tables(db)
    except BaseException:
        db.close()
        raise
    return db


def _fits_our_tables(db: sqlite3.Connection) -> None:
    """Raises sqlite3.DatabaseError when its tables are others: bits of the schema went bad."""
    try:
        db.execute("SELECT person, hash FROM pin LIMIT 1").fetchone()
        db.execute("SELECT token, person, csrf, expires_utc FROM session LIMIT 1").fetchone()
    except sqlite3.OperationalError as error:
        raise sqlite3.DatabaseError(str(error)) from error


def _set_aside(path: Path) -> Path:
    """Move a damaged file away, and drop its journal, which would be played into the new one; the newest ten are kept.

    Nothing is carried over: a bit that went bad in a name would give one person the PIN of another.
    """
    mark = f"{path.name}.damaged-"
    numbers = [other.name.removeprefix(mark) for other in path.parent.glob(f"{mark}*")]
    taken = sorted(int(number) for number in numbers if number.isdecimal())
    place = path.with_name(f"{mark}{max(taken, default=0) + 1}")
    path.rename(place)
    for name in ("-journal", "-wal", "-shm"):
        path.with_name(path.name + name).unlink(missing_ok=True)
    for number in taken[:-9]:
        path.with_name(f"{mark}{number}").unlink(missing_ok=True)
    return place


def _limits(person: str, address: str, *, known: bool) -> dict[str, int]:
    """Counters of one attempt and how many wrong tries each forgives.

    A wait is per person *and* address first: nobody locks a colleague out from one phone. Ids that nobody has are
    counted apart and by address, so that guessing names neither grows the table nor costs anybody a sign-in.
    """
    if not known:
        return {f"nobody:{address}": _TRIES_OF_NOBODY}
    return {f"here:{person} {address}": _FREE_TRIES, f"person:{person}": _TRIES_PER_PERSON}


def _fits(stored: str, pin: str) -> bool:
    try:
        return _HASHER.verify(stored, pin)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return False


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()  # a cookie may be any bytes
