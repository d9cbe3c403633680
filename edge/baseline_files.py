"""The orders of headquarters on disk: in force, the one before, and whether the newest is on trial. No libraries.

`order.json` is in force. While `trial.json` is there it is on trial, and `previous.json` (where there was one) comes
back when the trial fails: when the daemon started too often during it, or by a decision.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER, IN_FORCE, PREVIOUS, TRIAL, LAST = "baseline", "order.json", "previous.json", "trial.json", "last.json"
MOST_STARTS = 3
"""So often a daemon may start while an order is on trial: then the order is to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """The folder of one gateway. Every step is one rename, so that a power cut leaves the state before or after it."""

    folder: Path

    @classmethod
    def of(cls, data: Path) -> Shelf:
        return cls(folder=data / FOLDER)

    def read(self, name: str) -> Any:
        """What a file holds; None when it is missing or damaged."""
        with contextlib.suppress(OSError, ValueError):
            return json.loads((self.folder / name).read_bytes())
        return None

    def is_on_trial(self) -> bool:
        return (self.folder / TRIAL).exists()

    def begin_trial(self, order: dict[str, Any], revision: int) -> None:
        """Put an order in force, on trial. The mark comes first: an order is never in force unmarked and untried."""
        self.folder.mkdir(mode=0o750, exist_ok=True)
        if not self.is_on_trial():
            before = self.read(IN_FORCE)
            if before is not None:
                self._write(PREVIOUS, before)
            else:
                self._drop(PREVIOUS)  # of a trial whose end was cut short
        self._write(TRIAL, {"revision": revision, "starts": 0, "order": order})
        self._write(IN_FORCE, order)

    def confirm(self) -> None:
        """The trial went well."""
        self._drop(TRIAL)
        self._drop(PREVIOUS)

    def roll_back(self) -> None:
        """The order before is in force again, or none where there was none. Does nothing without a trial."""
        if not self.is_on_trial():
            return
        trial = self.read(TRIAL)
        if not isinstance(trial, dict) or self.read(IN_FORCE) == trial.get("order"):  # else the one before is back
            if (self.folder / PREVIOUS).exists():
                (self.folder / PREVIOUS).replace(self.folder / IN_FORCE)
                self._settle()
            else:
                self._drop(IN_FORCE)
        self._drop(TRIAL)
        self._drop(PREVIOUS)

    def count_start(self) -> bool:
        """A daemon starts: True when the order on trial was taken back because it starts too often."""
        trial = self.read(TRIAL)
        if not self.is_on_trial():
            return False
        starts = trial.get("starts", 0) + 1 if isinstance(trial, dict) else MOST_STARTS + 1
        if starts > MOST_STARTS:
            revision = trial.get("revision", 0) if isinstance(trial, dict) else 0
            self.note_last(revision, "rolled_back", [])
            self.roll_back()
            return True
        self._write(TRIAL, {**trial, "starts": starts})
        return False

    def note_last(self, revision: int, state: str, problems: list[str]) -> None:
        """Remember what became of the newest order, so that it is not taken again at every poll."""
        self.folder.mkdir(mode=0o750, exist_ok=True)
        self._write(LAST, {"revision": revision, "state": state, "problems": problems})

    def _write(self, name: str, value: Any) -> None:
        draft = self.folder / f".{name}"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.folder / name)
        self._settle()

    def _drop(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        self._settle()

    def _settle(self) -> None:
        """The names are on the device, too."""
        with contextlib.suppress(FileNotFoundError):
            folder = os.open(self.folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
