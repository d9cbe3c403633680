"""The folder in memory that takes the data folder's place while its disk takes nothing.

It lies on a tmpfs: it outlives the process and is gone with the machine. Everything the gateway writes while it runs is
in it: journal, people's sessions, what the modem remembers, a short history. Large things stay behind.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from pathlib import Path

from ..sync.carrying import kinds_of, read_memory
from ..sync.journal import apply_schema
from ..sync.memory_journal import seed
from ..words import now
from .state_tables import TABLES

_log = logging.getLogger(__name__)

BESIDE = ("mqtt_cursor", "mqtt_topic", "alive_last", "delivery_attempt")
"""Tables in the journal's file that do not follow from records and must outlast a change of place."""
_OUTSIDE = ("delivery_attempt",)
"""Of those, what belongs to no state table's own tables."""
_NEEDED = (
    "SELECT seq FROM outbox WHERE state = 'PENDING'",
    "SELECT message FROM outbox WHERE state = 'PENDING'",
    "SELECT closed FROM outbox WHERE closed > 0 AND state = 'PENDING'",
)
"""Records that messages still refer to, however old they are."""
_SMALL = ("gateway.key", "headquarters.pub", "secrets.db", "sms-*.json", "baseline")
"""What is copied there, as far as it can be read."""
_BACK = ("secrets.db", "sms-*.json")
"""What is copied back: who is signed in, and which answers of the modem were seen."""
_MOST_SMALL_BYTES = 8 * 2**20


class MemoryHome:
    """Of one data folder; made when it is needed.

    Args:
        data: the data folder.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.folder = _base() / f"memory-{hashlib.sha256(os.fsencode(data.absolute())).hexdigest()[:16]}"
        self.journal = self.folder / "journal.db"

    def holds(self) -> bool:
        """Whether there is a journal in memory that can be gone on with. Does not raise. Blocks."""
        try:
            if not self.journal.exists() or not _is_ours(self.folder):
                return False
            read_memory(self.journal)
        except (OSError, ValueError) as error:
            _log.warning("%s: cannot be used: %s", self.folder, error)
            return False
        return True

    def make(self, gateway: str, why: str) -> None:
        """Take what can be read of the data folder. What an earlier memory held is counted as lost. Blocks.

        Raises:
            OSError: the memory takes nothing.
        """
        forgotten = kinds_of(self.journal) if self.journal.exists() else {}
        self.drop()
        self.folder.mkdir(mode=0o700, parents=True)
        if not _is_ours(self.folder):
            raise PermissionError(f"{self.folder} belongs to somebody else")
        self._copy_small(self.data, self.folder, _SMALL)
        part = self.folder / "journal.part"
        seed(
            self.data / "journal.db",
            part,
            gateway,
            TABLES,
            apply_schema,
            since_ms=now().utc_ms,
            why=why,
            forgotten=forgotten,
            beside=_OUTSIDE,
            also=_NEEDED,
        )
        part.rename(self.journal)

    def copy_back(self) -> None:
        """Bring small files to the disk that takes writes again. What does not go stays as it was there. Blocks."""
        self._copy_small(self.folder, self.data, _BACK)

    def drop(self) -> None:
        """All of it goes. Does not raise."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _copy_small(self, source: Path, target: Path, names: tuple[str, ...]) -> None:
        for pattern in names:
            for path in _found(source, pattern):
                try:
                    _copy(path, target / path.name)
                except OSError as error:
                    _log.warning("%s could not be copied: %s", path, error)


def _base() -> Path:
    """Where systemd gives the service a folder in memory; else where everybody has one."""
    given = os.environ.get("RUNTIME_DIRECTORY", "").split(":")[0]
    return Path(given) if given else Path("/dev/shm") / f"sitewarden-{os.geteuid()}"  # noqa: S108


def _found(folder: Path, pattern: str) -> list[Path]:
    with contextlib.suppress(OSError):
        return sorted(folder.glob(pattern))
    return []


def _copy(path: Path, target: Path) -> None:
    if path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
        return
    if path.stat().st_size > _MOST_SMALL_BYTES:
        raise OSError(f"it has {path.stat().st_size} bytes")
    part = target.with_name(f"{target.name}.part")
    shutil.copyfile(path, part)
    part.chmod(0o600)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _is_ours(folder: Path) -> bool:
    """Nobody else may have put it there: the folder above may be everybody's."""
    found = folder.lstat()
    return found.st_uid == os.geteuid() and not folder.is_symlink() and not found.st_mode & 0o077
