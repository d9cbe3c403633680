"""The mark beside a cloud.db whose content lies on a PostgreSQL now: nobody starts the service on the old one."""

from __future__ import annotations

from pathlib import Path

_MARK = "cloud.db.moved"


def mark_moved(data: Path, url: str) -> None:
    """From now on the service starts on `url` alone; to undo that, remove the file."""
    (data / _MARK).write_text(f"{url}\n", "utf-8")


def moved_to(data: Path) -> str:
    """Where cloud.db was moved to; "" when it was not."""
    try:
        return (data / _MARK).read_text("utf-8").strip()
    except FileNotFoundError:
        return ""
