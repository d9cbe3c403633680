"""Shares the disk between journal, history and evidence while the gateway runs; see `sync/disk_policy.py`.

The history gives way, oldest first, and each drop becomes a record. Nothing here stops an alarm: of what people hand
in, files are refused when the disk or the evidence's budget is nearly full, and they are told why.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ..errors import RefusedError
from ..sync.disk_policy import MB, Budgets, Judged, Level, Use, budgets, history_excess, history_limit, judge
from ..sync.gaps import Why
from ..sync.history import History
from ..sync.reserve import Reserve
from .disk import Space, look

if TYPE_CHECKING:
    from .models import DiskTable

_log = logging.getLogger(__name__)

EVERY_S = 15.0
_WALK_EVERY = 20
"""Evidence lies in many files: their sizes are added up every so many looks."""
DROPPED = "history.dropped"

Record = Callable[[str, dict[str, Any]], Awaitable[object]]


@dataclass(slots=True)
class DiskHealth:
    """What was found at the last look; nothing before the first."""

    use: Use | None = None
    limits: Budgets | None = None
    judged: Judged = field(default_factory=lambda: Judged(level=Level.ENOUGH, about="device", pct=0.0))
    reserve: bool = False
    dropped: int = 0

    def to_json(self) -> dict[str, Any] | None:
        """For the status; None before the first look."""
        if self.use is None or self.limits is None:
            return None
        use, limits = self.use, self.limits
        return {
            "level": self.judged.level.name.lower(),
            "about": self.judged.about,
            "pct": self.judged.pct,
            "free_bytes": use.free,
            "usable_bytes": use.usable,
            "journal": {"bytes": use.journal, "most": limits.journal},
            "history": {"bytes": use.history + use.trends, "most": limits.history},
            "blobs": {"bytes": use.blobs, "most": limits.blobs},
            "reserve": self.reserve,
            "dropped_segments": self.dropped,
        }


class DiskKeeper:
    """Looks now and then, and acts.

    Args:
        data: folder of the stores.
        table: [disk] as it is now.
        record: commits a record: (kind, body).
        health: is kept up.
    """

    def __init__(
        self,
        data: Path,
        history: History,
        reserve: Reserve,
        table: Callable[[], DiskTable],
        record: Record,
        health: DiskHealth,
    ) -> None:
        self._data, self._history, self._reserve = data, history, reserve
        self._table, self._record, self._health = table, record, health
        self._looks, self._blobs_bytes = 0, 0

    async def run(self) -> NoReturn:
        """For ever."""
        while True:
            await self.step()
            await asyncio.sleep(EVERY_S)

    async def step(self) -> None:
        """One look, and what follows from it."""
        space = await asyncio.to_thread(look, self._data)
        if not space.error and not space.is_read_only:
            use, limits = await self._measure(space), self._limits(space)
            await self._share(use, limits)
            self._note(use, limits)
            self._health.reserve = await asyncio.to_thread(self._reserve.keep, space.free_bytes)
        await self.tell()

    async def tell(self) -> None:
        """What was dropped becomes records, also what an earlier process dropped."""
        for one in await self._history.untold():
            await self._record(DROPPED, one.to_json())
            self._health.dropped += one.segments
            await self._history.told([one])

    def check_room(self, size: int) -> None:
        """Before a file is taken in. Raises RefusedError `disk_full` when what is left is kept for the journal."""
        health = self._health
        if health.use is None or health.limits is None or health.judged.level < Level.REFUSING:
            return
        if health.judged.about == "journal" and size <= health.use.free // 2:
            return
        hint = "tell IT: make room on the gateway's disk; records and alarms go on"
        raise RefusedError("disk_full", f"the gateway's disk is nearly full ({health.judged.pct:.0f} %)", hint=hint)

    def check_sign_off(self) -> None:
        """Before somebody puts a name under something new. Raises RefusedError `disk_full`: from 95 % on what is left
        is kept for alarms and what people do about them, which are never refused."""
        if self._health.use is not None and self._health.judged.level >= Level.REFUSING:
            what = f"the gateway's disk is nearly full ({self._health.judged.pct:.0f} %)"
            hint = "磁盘将满：通知信息员清理后再签；报警照常。 Tell IT to make room, then sign; alarms go on"
            raise RefusedError("disk_full", what, hint=hint)

    async def _measure(self, space: Space) -> Use:
        if self._looks % _WALK_EVERY == 0:
            self._blobs_bytes = await asyncio.to_thread(_size_below, self._data / "blobs")
        self._looks += 1
        return Use(
            journal=await asyncio.to_thread(_size_of, self._data / "journal.db"),
            history=await self._history.size(),
            trends=await asyncio.to_thread(_size_of, self._data / "trends.db"),
            blobs=self._blobs_bytes,
            free=space.free_bytes,
            usable=space.usable_bytes,
        )

    def _limits(self, space: Space) -> Budgets:
        table = self._table()
        return budgets(
            space.usable_bytes,
            journal_mb=table.journal_mb,
            history_mb=table.history_mb,
            blobs_mb=table.blobs_mb,
            reserve_mb=table.reserve_mb,
        )

    async def _share(self, use: Use, limits: Budgets) -> None:
        await self._history.limit(history_limit(use, limits))
        excess = history_excess(use, limits, can_shrink=await self._history.can_shrink())
        if excess is not None:
            await self._history.drop_oldest(excess.bytes, Why.BUDGET if excess.is_budget else Why.DISK)

    def _note(self, use: Use, limits: Budgets) -> None:
        before = self._health.judged
        judged = judge(use, limits, before.level)
        self._health.use, self._health.limits, self._health.judged = use, limits, judged
        if judged.level != before.level:
            say = _log.warning if judged.level > before.level else _log.info
            say("%s is %.0f %% full: %s", judged.about, judged.pct, judged.level.name.lower())


def refuse(_: int = 0) -> NoReturn:
    """What cannot be kept is not taken in. Raises RefusedError `not_recorded`."""
    hint = "磁盘写不进：请保存原件，恢复后重新提交；通知信息员。 Keep it, send it again when the disk is back; tell IT"
    raise RefusedError("not_recorded", "the gateway's disk takes nothing: nothing can be kept now", hint=hint)


def reserve_of(data: Path, table: DiskTable) -> Reserve:
    """The reserve of a data folder."""
    return Reserve(data / "reserve", table.reserve_mb * MB)


def _size_of(path: Path) -> int:
    """Of a database and its log."""
    return sum(_stat_size(path.with_name(path.name + suffix)) for suffix in ("", "-wal"))


def _stat_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _size_below(folder: Path) -> int:
    return sum(_stat_size(Path(where) / name) for where, _, names in os.walk(folder) for name in names)
