"""One process at a time writes a data folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ..errors import PermanentError


@contextlib.contextmanager
def only_one(data: Path) -> Iterator[None]:
    """Make the data folder and hold its lock: two writers of one journal would fork it.

    A disk that takes nothing has the lock of an earlier run, or its folder is locked.

    Raises:
        PermanentError: another process holds it.
        OSError: the folder cannot be used at all.
    """
    descriptor = _open(data)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            hint = "stop the other one, or give another --data"
            raise PermanentError(f"{data}: another gateway daemon uses this folder", hint=hint) from None
        yield
    finally:
        os.close(descriptor)


def _open(data: Path) -> int:
    place = data / "edge.lock"
    try:
        data.mkdir(mode=0o750, parents=True, exist_ok=True)
        return os.open(place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o640)
    except PermissionError:
        raise
    except OSError:
        for path in (place, data):
            with contextlib.suppress(OSError):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        raise
