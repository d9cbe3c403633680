"""Files named by their SHA-256, and how one comes to be there: whole and durable, or not at all. Blocks: for threads.

`<root>/ab/cd/<sha256>` are whole blobs, `<root>/incoming/<owner>` unfinished ones. A piece is written and fsynced
before anybody hears of it; what could not be written is cut off again, so the size of an unfinished file is what is
durable of it. A finished one is hashed, renamed, and the folders of both names are fsynced.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import PermanentError, RefusedError
from .media import HEAD_BYTES
from .wire import CHUNK_BYTES, SHA256

ROOM_BYTES = 32 * 2**20
"""No blob takes the last bytes of a file system: the journal needs them."""
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_BUFFER = 1024 * 1024


class DiskFullError(RefusedError):
    """There is no room for a blob; nothing of the piece stayed."""

    def __init__(self, path: Path, detail: str) -> None:
        hint = "make room on the disk of the data folder; the upload goes on where it stopped"
        super().__init__("disk_full", f"no room for the file on {path.anchor or path}: {detail}", hint=hint, retry_s=60)


class WrongContentError(RefusedError):
    """What came is not what its name says; it was thrown away and can be sent again."""

    def __init__(self, sha256: str, found: str) -> None:
        message = f"blob {sha256[:16]}… : the content's SHA-256 is {found[:16]}…"
        super().__init__("wrong_content", message, hint="send it again from the beginning")


class DamagedBlobError(PermanentError):
    """A blob on this disk is not what its name says, or is gone."""


class OffsetError(RefusedError):
    """A piece does not begin where the durable bytes end. `offset`: there."""

    def __init__(self, offset: int, given: int) -> None:
        message = f"{offset} bytes are here, the piece begins at {given}"
        super().__init__("offset", message, hint=f"go on at {offset}")
        self.offset = offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A whole blob on the disk. `changed_s`: seconds since 1970, by the clock of then."""

    sha256: str
    size: int
    changed_s: float


class BlobFolder:
    """Blobs under one folder, and unfinished ones, each with one writer at a time.

    Args:
        room: bytes that must stay free on the file system.
    """

    def __init__(self, root: Path, *, room: int = ROOM_BYTES) -> None:
        self.root = root
        self.incoming = root / "incoming"
        self._room = room

    def open(self) -> None:
        """Make the folders, durably."""
        self.incoming.mkdir(mode=0o750, parents=True, exist_ok=True)
        _sync_folder(self.root)
        _sync_folder(self.root.parent)

    def tidy(self, keep_s: float) -> None:
        """Before the first upload: forget unfinished blobs that nobody touched for `keep_s`.

        Of the others the last piece is cut off: after a power cut it may be there in length and not in content.
        """
        for path in list(self.incoming.iterdir()):
            state = path.stat()
            sure = max(0, state.st_size - CHUNK_BYTES)
            if not sure or time.time() - state.st_mtime > keep_s:
                path.unlink()
            else:
                os.truncate(path, sure)
                os.utime(path, (state.st_atime, state.st_mtime))

    def path(self, sha256: str) -> Path:
        """Where the blob is, or would be. Raises ValueError for anything that is not a SHA-256."""
        if not SHA256.fullmatch(sha256):
            raise ValueError(f"{sha256[:80]!r} is not a SHA-256 in lower-case hexadecimal digits")
        return self.root / sha256[:2] / sha256[2:4] / sha256

    def size(self, sha256: str) -> int | None:
        """Bytes of a whole blob; None when it is not here."""
        return _size(self.path(sha256))

    def mark(self, sha256: str) -> object:
        """Changes when somebody writes to the file; what the disk itself does to it, it does not show."""
        try:
            state = self.path(sha256).stat()
        except FileNotFoundError:
            return None
        return state.st_ino, state.st_size, state.st_mtime_ns

    def offset(self, owner: str) -> int:
        """Durable bytes of an unfinished blob; 0 when there is none."""
        return _size(self.incoming / owner) or 0

    def write(self, owner: str, offset: int, data: bytes) -> None:
        """Put a piece at `offset`, which cuts off whatever lies behind; durable when this returns.

        Raises:
            OffsetError: there are fewer bytes than `offset`.
            DiskFullError: the file is as it was before.
            OSError: the disk failed; the same.
        """
        path = self.incoming / owner
        is_new = not path.exists()
        self._need(len(data))
        try:
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o640)
        except OSError as error:
            _raise_full(error, path)
            raise
        try:
            if (there := os.fstat(file).st_size) < offset:
                raise OffsetError(there, offset)
            _write_at(file, offset, data)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(file, offset)
            _raise_full(error, path)
            raise
        finally:
            os.close(file)
            if not _size(path):
                path.unlink(missing_ok=True)
        if is_new:
            _sync_folder(self.incoming)

    def finish(self, owner: str, sha256: str, check: Callable[[bytes], None] = lambda _: None) -> int:
        """Give a complete unfinished blob its name; returns its size. The same blob twice changes nothing.

        Args:
            check: gets the first bytes; what it raises is raised, and the unfinished blob is gone.

        Raises:
            WrongContentError: it is something else, and is gone.
        """
        part, path = self.incoming / owner, self.path(sha256)
        found = digest(part)
        if found != sha256:
            part.unlink()
            raise WrongContentError(sha256, found)
        with part.open("rb") as file:
            head = file.read(HEAD_BYTES)
        try:
            check(head)
        except BaseException:
            part.unlink()
            raise
        size = part.stat().st_size
        self._make_folders(path)
        part.rename(path)  # over what is there: the same content, or a damaged file that this one heals
        _sync_folder(path.parent)
        _sync_folder(self.incoming)
        return size

    def touch(self, sha256: str) -> None:
        """Somebody asked for it just now: it is not left over."""
        with contextlib.suppress(OSError):
            os.utime(self.path(sha256))

    def forget(self, owner: str) -> None:
        """Throw away an unfinished blob."""
        (self.incoming / owner).unlink(missing_ok=True)

    def verify(self, sha256: str) -> Path:
        """The path of a blob whose content was just found to be right. Raises DamagedBlobError."""
        path = self.path(sha256)
        try:
            found = digest(path)
        except FileNotFoundError:
            raise DamagedBlobError(f"blob {sha256[:16]}…: the file is gone") from None
        except OSError as error:
            raise DamagedBlobError(f"blob {sha256[:16]}… cannot be read: {error.strerror or error}") from error
        if found != sha256:
            raise DamagedBlobError(f"blob {sha256[:16]}…: the file's content has changed")
        return path

    def read(self, sha256: str, start: int, size: int) -> bytes:
        """Up to `size` bytes from `start`. Raises DamagedBlobError when they cannot be read."""
        try:
            with self.path(sha256).open("rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise DamagedBlobError(f"blob {sha256[:16]}… cannot be read: {error.strerror or error}") from error

    def remove(self, sha256: str) -> None:
        """Delete a whole blob, and make that durable."""
        path = self.path(sha256)
        path.unlink(missing_ok=True)
        if path.parent.is_dir():
            _sync_folder(path.parent)

    def walk(self) -> Iterator[Found]:
        """Every whole blob."""
        for first in sorted(self.root.iterdir()):
            if len(first.name) != 2 or not first.is_dir():
                continue
            for path in sorted(first.glob("*/*")):
                with contextlib.suppress(FileNotFoundError):
                    if SHA256.fullmatch(path.name):
                        state = path.stat()
                        yield Found(sha256=path.name, size=state.st_size, changed_s=state.st_mtime)

    def _need(self, size: int) -> None:
        found = os.statvfs(self.incoming)
        free = found.f_bavail * found.f_frsize
        if free < size + self._room:
            raise DiskFullError(self.incoming, f"{free // 2**20} MiB are free")

    def _make_folders(self, path: Path) -> None:
        for folder in (path.parent.parent, path.parent):
            if not folder.is_dir():
                folder.mkdir(mode=0o750, exist_ok=True)
                _sync_folder(folder.parent)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_at(file: int, offset: int, data: bytes) -> None:
    os.ftruncate(file, offset)
    view, at = memoryview(data), offset
    while view:
        written = os.pwrite(file, view[:_BUFFER], at)
        view, at = view[written:], at + written
    os.fsync(file)


def _raise_full(error: OSError, path: Path) -> None:
    if error.errno in _FULL:
        raise DiskFullError(path, error.strerror or str(error)) from error


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    """A name that was made or changed in it is on the disk afterwards."""
    file = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
