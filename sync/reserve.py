"""A file of nothing, kept for the moment when the disk is full.

On a full disk SQLite cannot even delete: DELETE and checkpoint write first. Giving this file back makes that room.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from pathlib import Path

_log = logging.getLogger(__name__)

_TIMES_FREE = 4
"""The file is made only when so many times its size is free."""


class Reserve:
    """May be used from any thread.

    Args:
        path: of the file, on the disk whose room it keeps.
        size: bytes; 0 keeps none.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path, self.size = path, size
        self._lock = threading.Lock()

    def is_kept(self) -> bool:
        """Whether the file is there in its full size."""
        with contextlib.suppress(OSError):
            return self.path.stat().st_size >= self.size
        return False

    def keep(self, free_bytes: int) -> bool:
        """Make the file where it is missing and there is enough room; whether it is there. Does not raise."""
        with self._lock:
            if self.is_kept() or free_bytes < self.size * _TIMES_FREE:
                return self.is_kept()
            try:
                with self.path.open("ab") as file:
                    os.posix_fallocate(file.fileno(), 0, self.size)
                    os.fsync(file.fileno())
            except OSError as error:
                _log.warning("%s: no reserve could be kept: %s", self.path, error.strerror or error)
                with contextlib.suppress(OSError):
                    self.path.unlink()
                return False
            return True

    def release(self) -> bool:
        """Give the room back; whether there was any."""
        with self._lock:
            try:
                if not self.path.stat().st_size:
                    return False
                os.truncate(self.path, 0)
                self.path.unlink()
            except OSError:
                return False
        _log.warning("the disk is full: the reserve of %d bytes was given back", self.size)
        return True
