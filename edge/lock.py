"""One process at a time writes a data folder."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from ..errors import PermanentError


@contextlib.contextmanager
def only_one(data: Path) -> Iterator[None]:
    """Make the data folder and hold its lock: two writers of one journal would fork it.

    Raises:
        PermanentError: another process holds it.
    """
    data.mkdir(mode=0o750, parents=True, exist_ok=True)
    with (data / "edge.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            hint = "stop the other one, or give another --data"
            raise PermanentError(f"{data}: another gateway daemon uses this folder", hint=hint) from None
        yield
