"""Disks that take nothing: a library that refuses writes (bad_disk.c), and real file systems where we may mount."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .disk_trace import compiler

__all__ = ["BadDisk", "build", "card", "compiler"]


def build(folder: Path) -> Path:
    """Compile the library that refuses."""
    library, source = folder / "bad_disk.so", Path(__file__).with_name("bad_disk.c")
    command = [str(compiler()), "-O1", "-Wall", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


@dataclass(frozen=True, slots=True)
class BadDisk:
    """Writes below `folder` fail while it is told so.

    Args:
        library: see `build`.
        switch: a file elsewhere.
    """

    library: Path
    folder: Path
    switch: Path

    def before(self) -> tuple[str, ...]:
        """What stands before the command of a process on this disk."""
        given = (f"LD_PRELOAD={self.library}", f"BAD_DISK_FOLDER={self.folder}", f"BAD_DISK_ERRNO={self.switch}")
        return ("env", *given)

    def refuse(self, code: int = errno.EIO) -> None:
        """Every write fails from now on."""
        part = self.switch.with_suffix(".part")
        part.write_text(str(code), "ascii")
        part.replace(self.switch)

    def heal(self) -> None:
        """Writes go through again."""
        self.switch.unlink(missing_ok=True)


@dataclass(slots=True)
class Card:
    """A file system of its own, ext4 on a loop device, at `folder`."""

    image: Path
    folder: Path

    def mount(self) -> bool:
        command = ["mount", "-o", "loop,errors=remount-ro", str(self.image), str(self.folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    def remount(self, how: str) -> None:
        """`ro` or `rw`, while nobody has a file open for writing."""
        subprocess.run(["mount", "-o", f"remount,{how}", str(self.folder)], check=True)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.folder)], check=True)

    def fail(self) -> None:
        """As a card that dies: the kernel lets nobody write any more, not even those who have files open."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.folder)], check=True)


@contextlib.contextmanager
def card(image: Path, folder: Path) -> Iterator[Card | None]:
    """A new one, mounted; None where we may not, or cannot."""
    made = Card(image, folder)
    folder.mkdir()
    if os.geteuid() or shutil.which("mkfs.ext4") is None:
        yield None
        return
    with image.open("wb") as file:
        file.truncate(48 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    if not made.mount():
        yield None
        return
    try:
        yield made
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, capture_output=True)
