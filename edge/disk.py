"""Whether the file system that holds the stores can still take what happens."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

from .alarms.rules import Kind
from .alarms.system import Delays, Sight, system_rule

LOW_PCT = 10.0
LOW_BYTES = 500 * 2**20
ENOUGH_PCT = 12.0
ENOUGH_BYTES = 600 * 2**20
"""Less than the lower pair begins the fault; it ends with the upper pair, so that one log file does not toggle it."""
EVERY_S = 30.0
DELAYS = Delays(on_s=60.0, off_s=60.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """What statvfs says, as far as a process without privileges may use it. `error`: why it says nothing."""

    free_bytes: int = 0
    usable_bytes: int = 0
    is_read_only: bool = False
    error: str = ""

    @property
    def free_pct(self) -> float:
        """Of what may be used at all."""
        return 100 * self.free_bytes / self.usable_bytes if self.usable_bytes else 0.0


def look(folder: Path) -> Space:
    """The file system of `folder`. Does not raise. Blocks while the device does: not on the loop."""
    try:
        found = os.statvfs(folder)
    except OSError as error:
        return Space(error=error.strerror or str(error))
    used = found.f_blocks - found.f_bfree
    return Space(
        free_bytes=found.f_bavail * found.f_frsize,
        usable_bytes=(used + found.f_bavail) * found.f_frsize,
        is_read_only=bool(found.f_flag & os.ST_RDONLY),
    )


def is_short(space: Space, *, was_short: bool) -> bool:
    """Whether there is too little room."""
    if was_short:
        return space.free_pct < ENOUGH_PCT or space.free_bytes < ENOUGH_BYTES
    return space.free_pct < LOW_PCT or space.free_bytes < LOW_BYTES


class DiskWatch:
    """Looks at the data folder now and then.

    Args:
        folder: of the stores.

    Attributes:
        space: what was found last; None before the first look.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._short = False
        self.space: Space | None = None
        self._sights: list[Sight] = []

    async def run(self) -> None:
        """Look for ever."""
        while True:
            self.note(await asyncio.to_thread(look, self._folder))
            await asyncio.sleep(EVERY_S)

    def note(self, space: Space) -> None:
        """What was found."""
        self.space = space
        self._short = not space.error and is_short(space, was_short=self._short)
        facts = {"free_bytes": space.free_bytes, "usable_bytes": space.usable_bytes, "error": space.error}
        if space.error:
            rule = system_rule(Kind.DISK, name="磁盘无法访问", name_en="Disk cannot be read")
            self._sights = [Sight(rule=rule, delays=DELAYS, facts=facts)]
        elif space.is_read_only:
            rule = system_rule(Kind.DISK, name="磁盘只读", name_en="Disk is read-only")
            self._sights = [Sight(rule=rule, delays=DELAYS, facts=facts)]
        elif self._short:
            value = round(space.free_pct, 1)
            self._sights = [Sight(rule=system_rule(Kind.DISK), value=value, delays=DELAYS, facts=facts)]
        else:
            self._sights = []

    def sights(self) -> list[Sight]:
        """What is wrong now."""
        return self._sights
