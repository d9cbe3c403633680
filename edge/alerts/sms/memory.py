"""The little that must outlive the process: the last concatenation reference, and a PIN that was tried."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any, Protocol

_log = logging.getLogger(__name__)
_ANY_PIN = "*"


class Memory(Protocol):
    """Durable before a call returns; called on a thread, one call at a time. None of them raises OSError."""

    def next_reference(self) -> int:
        """0..255, another one at each call, and after a restart too: a phone joins parts by it."""
        ...

    def pin_is_spent(self, pin: str) -> bool:
        """This PIN was tried and never accepted. Trying a wrong one three times locks a SIM."""
        ...

    def note_pin(self, pin: str, *, accepted: bool) -> bool:
        """Before it is tried, and after it was accepted. False when it could not be kept: do not try."""
        ...


class FileMemory:
    """A small JSON file, replaced as a whole and fsynced.

    A file that is damaged or cannot be written costs the memory of references (the next one is then drawn by chance)
    and the right to try a PIN, never a message.

    Args:
        path: in the data folder; made with the rights of its owner alone.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held = _read(path)
        self._broken = False

    def next_reference(self) -> int:
        last = self._held.get("reference")
        reference = (last + 1) % 256 if type(last) is int else secrets.randbelow(256)
        self._keep(reference=reference)
        return reference

    def pin_is_spent(self, pin: str) -> bool:
        mark = self._held.get("pin_tried")
        return isinstance(mark, str) and mark in (_ANY_PIN, _mark(pin, mark.split(":")[0]))

    def note_pin(self, pin: str, *, accepted: bool) -> bool:
        return self._keep(pin_tried="" if accepted else _mark(pin, secrets.token_hex(8)))

    def _keep(self, **changes: Any) -> bool:
        """Whether it is on the disk."""
        self._held |= changes
        try:
            _replace(self._path, json.dumps(self._held))
        except OSError as error:
            if not self._broken:
                _log.error("sms: cannot keep %s: %s", self._path, error)
            self._broken = True
            return False
        self._broken = False
        return True


def _read(path: Path) -> dict[str, Any]:
    try:
        held = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        _log.warning("sms: cannot read %s: %s; references begin anew, no PIN is tried", path, error)
        return {"pin_tried": _ANY_PIN}
    return held if isinstance(held, dict) else {"pin_tried": _ANY_PIN}


def _replace(path: Path, text: str) -> None:
    """All of it or the old file. Raises OSError."""
    new = path.with_name(f"{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        new.unlink()
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _mark(pin: str, salt: str) -> str:
    """Knows a PIN again and does not show it. Whoever reads this file can read the PIN itself beside it."""
    return f"{salt}:{hashlib.sha256(f'{salt}:{pin}'.encode()).hexdigest()}"
