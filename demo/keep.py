"""Files of the demo's folder that a person may edit: kept once that happened, renewed with the example else.

What was written last is remembered by its digest, so that an edit is known without a copy of the file.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Fit = Callable[[bytes], bytes]


class Fate(enum.StrEnum):
    """What became of a file."""

    WRITTEN = "written"
    RENEWED = "renewed"
    KEPT = "kept"
    KEPT_OLD = "kept_old"
    FRESH = "fresh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """What is remembered of a file: digests of what was `written` last, and of the `example` that it came from."""

    written: str
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """A file that is ready. `spare`: where an edited one was put when a fresh one was asked for."""

    fate: Fate
    note: Note
    spare: Path | None = None


def settle(path: Path, example: bytes, note: Note | None, *, fit: Fit, refit: Fit, fresh: bool = False) -> Settled:
    """Make `path` ready for this start.

    Args:
        example: what the file is made of.
        note: of the last start; None when nothing is known, and then the file counts as edited.
        fit: the example for this start.
        refit: an edited file for this start; changes only what the demo itself had written.
        fresh: the example, also in place of an edited file.
    """
    held = path.read_bytes() if path.exists() else None
    of_example, spare = digest(example), None
    if held is not None and (note is None or digest(held) != note.written):
        if not fresh:
            fitted = refit(held)
            if fitted != held:
                _replace(path, fitted)
            note = note or Note(written="", example=of_example)
            return Settled(fate=Fate.KEPT if note.example == of_example else Fate.KEPT_OLD, note=note)
        spare = next(_spares(path))
        path.rename(spare)
    fitted = fit(example)
    _replace(path, fitted)
    if spare is not None:
        fate = Fate.FRESH
    else:
        fate = Fate.WRITTEN if held is None or note is None or note.example == of_example else Fate.RENEWED
    return Settled(fate=fate, note=Note(written=digest(fitted), example=of_example), spare=spare)


def digest(data: bytes) -> str:
    """SHA-256, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def plain_files(folder: Path) -> Iterator[Path]:
    """What site.toml and cloud.toml refer to (people.csv, checklists), by its path in `folder`; not these two."""
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        is_config = len(inner.parts) > 1 or (path.suffix in (".csv", ".toml") and path.stem not in ("site", "cloud"))
        if path.is_file() and is_config and "__pycache__" not in inner.parts:
            yield inner


def _spares(path: Path) -> Iterator[Path]:
    names = (f"{path.name}.edited", *(f"{path.name}.edited-{n}" for n in range(2, 10_000)))
    return (spare for spare in map(path.with_name, names) if not spare.exists())


def _replace(path: Path, data: bytes) -> None:
    """All or nothing: whoever reads it meanwhile gets the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    if path.exists():
        new.chmod(path.stat().st_mode & 0o777)
    new.replace(path)
