"""The files of certificates in the data folder: private, written whole or not at all, never through a link.

A key and its certificates are one file: they are never seen apart. Owner and mode are mended where they are too wide.
"""

from __future__ import annotations

import fcntl
import logging
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ...errors import PermanentError

_log = logging.getLogger(__name__)

AUTHORITY, LEAF, PUBLIC, REQUEST = "ca.pem", "leaf.pem", "public.pem", "request.key"
_LARGEST = 256 * 1024


@dataclass(frozen=True, slots=True)
class TlsFolder:
    """`tls` in the data folder. Args: data: the gateway's data folder; it exists."""

    data: Path

    @property
    def path(self) -> Path:
        """Where the files are."""
        return self.data / "tls"

    def read(self, name: str) -> bytes | None:
        """What a file holds; None when there is none.

        Raises:
            PermanentError: it is a link or no plain file, belongs to somebody else, or cannot be read.
        """
        path = self.path / name
        self._check_folder()
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            what = f"{path}: cannot be read: {error.strerror}"
            raise PermanentError(what, hint="it must be a plain file of the gateway's user, no link") from error
        with os.fdopen(fd, "rb") as file:
            _check_private(path, file.fileno())
            return file.read(_LARGEST)

    def write(self, name: str, content: bytes) -> None:
        """Replace a file as a whole, mode 0600; what was a link is replaced, not followed. Raises PermanentError."""
        self._make()
        path, beside = self.path / name, self.path / f".{name}.{secrets.token_hex(6)}"
        try:
            fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with os.fdopen(fd, "wb") as file:
                os.fchmod(file.fileno(), 0o600)
                self._give(file.fileno())
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
            self._sync()
        except OSError as error:
            beside.unlink(missing_ok=True)
            raise PermanentError(f"{path}: cannot be written: {error.strerror}", hint="is the disk full?") from error

    def remove(self, name: str) -> None:
        """Harmless when it is not there."""
        (self.path / name).unlink(missing_ok=True)

    def signature(self) -> tuple[tuple[str, int, int, int], ...]:
        """Differs when a file was replaced."""
        found: list[tuple[str, int, int, int]] = []
        for name in (AUTHORITY, LEAF, PUBLIC):
            try:
                held = os.lstat(self.path / name)
            except OSError:
                continue
            found.append((name, held.st_ino, held.st_mtime_ns, held.st_size))
        return tuple(found)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Daemon and command never issue at once."""
        self._make()
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.path / "lock", flags, 0o600)
        except OSError as error:
            raise PermanentError(f"{self.path / 'lock'}: cannot be opened: {error.strerror}") from error
        try:
            self._give(fd)
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _make(self) -> None:
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            what = f"{self.path}: cannot be made: {error.strerror}"
            raise PermanentError(what, hint="is the data folder there, and may this user write in it?") from error
        self._check_folder()
        if os.geteuid() == 0:
            held = self.data.stat()
            os.chown(self.path, held.st_uid, held.st_gid, follow_symlinks=False)

    def _check_folder(self) -> None:
        try:
            held = os.lstat(self.path)
        except FileNotFoundError:
            return
        if not stat.S_ISDIR(held.st_mode):
            raise PermanentError(f"{self.path}: must be a folder, no link or file", hint="remove it")
        if stat.S_IMODE(held.st_mode) & 0o077 and held.st_uid in (os.geteuid(), 0):
            self.path.chmod(0o700)

    def _give(self, fd: int) -> None:
        """What root makes belongs to the owner of the data folder: the daemon must read it."""
        if os.geteuid() == 0:
            held = self.data.stat()
            os.fchown(fd, held.st_uid, held.st_gid)

    def _sync(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def _check_private(path: Path, fd: int) -> None:
    held = os.fstat(fd)
    if not stat.S_ISREG(held.st_mode):
        raise PermanentError(f"{path}: must be a plain file", hint="remove it")
    if os.geteuid() != 0 and held.st_uid not in (os.geteuid(), 0):
        raise PermanentError(f"{path}: belongs to another user", hint="chown it to the gateway's user")
    if stat.S_IMODE(held.st_mode) & 0o077:
        _log.warning("%s could be read by others: mode is 0600 now; make a new key when somebody may have", path)
        os.fchmod(fd, 0o600)
