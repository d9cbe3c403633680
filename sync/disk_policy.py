"""How the disk is shared between journal, history and blobs, and what gives way when it fills. Pure.

The history gives way first: it may not grow into what the journal needs, and loses its oldest segments. Journal and
evidence are never dropped inside their retention: at 90 % people are told, at 95 % new sign-offs are refused. Nothing
here ever stops an alarm.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

MB = 2**20
SHORT_PCT, REFUSE_PCT = 90.0, 95.0
"""Design §4. Of what may be used of the file system, or of a class's budget."""
BACK_PCT = 2.0
"""So far below its limit a state ends, so that one log file does not toggle it."""
_JOURNAL_PART, _HISTORY_PART, _BLOBS_PART = 0.15, 0.40, 0.30
_LEAST_JOURNAL, _LEAST_HISTORY, _LEAST_BLOBS = 32 * MB, 8 * MB, 32 * MB
_KEPT_FREE_PART, _KEPT_FREE_MOST = 0.10, 2048 * MB
_SQUEEZE = 0.5
_STEP = 4 * MB


class Level(enum.IntEnum):
    """How full."""

    ENOUGH = 0
    SHORT = 1
    REFUSING = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Bytes that each class may take. `reserve` is kept as a file, to be given back when nothing else helps."""

    journal: int
    history: int
    blobs: int
    reserve: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """Bytes that each class takes, and what the file system still has for us; `usable` is what it has at all.

    `trends`: minutes and hours of charts, which share the history's budget and go by their age alone.
    """

    journal: int
    history: int
    blobs: int
    free: int
    usable: int
    trends: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How full, and what is: `device`, `journal` or `blobs`. `pct`: of its limit."""

    level: Level
    about: str
    pct: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Excess:
    """Bytes of history that must go now; `is_budget`: because of its own budget, else because the disk is full."""

    bytes: int
    is_budget: bool


def budgets(
    usable: int,
    *,
    journal_mb: int | None = None,
    history_mb: int | None = None,
    blobs_mb: int | None = None,
    reserve_mb: int = 8,
) -> Budgets:
    """What site.toml says; for what it does not say, a part of the file system's `usable` bytes."""

    def chosen(megabytes: int | None, part: float, least: int) -> int:
        return megabytes * MB if megabytes is not None else max(least, int(usable * part))

    return Budgets(
        journal=chosen(journal_mb, _JOURNAL_PART, _LEAST_JOURNAL),
        history=chosen(history_mb, _HISTORY_PART, _LEAST_HISTORY),
        blobs=chosen(blobs_mb, _BLOBS_PART, _LEAST_BLOBS),
        reserve=min(reserve_mb * MB, usable // 8),
    )


def judge(use: Use, limits: Budgets, before: Level = Level.ENOUGH) -> Judged:
    """The fullest of device, journal and blobs.

    Args:
        before: the level until now: it is left only some way below the limit that began it.
    """
    parts = {
        "device": 100 - 100 * use.free / use.usable if use.usable else 0.0,
        "journal": 100 * use.journal / limits.journal,
        "blobs": 100 * use.blobs / limits.blobs,
    }
    about = max(parts, key=lambda name: parts[name])
    pct = parts[about]
    level = Level.ENOUGH
    for candidate, limit in ((Level.SHORT, SHORT_PCT), (Level.REFUSING, REFUSE_PCT)):
        if pct >= (limit - BACK_PCT if before >= candidate else limit):
            level = candidate
    return Judged(level=level, about=about, pct=round(pct, 1))


def kept_free(use: Use, limits: Budgets) -> int:
    """Bytes of the file system that the history leaves to the journal: a tenth, never more than 2 GiB."""
    wanted = max(int(use.usable * _KEPT_FREE_PART), 4 * limits.reserve)
    return min(wanted, _KEPT_FREE_MOST, use.usable // 4)


def history_limit(use: Use, limits: Budgets) -> int:
    """Bytes that the history's file may have now."""
    return max(1, min(_own_history(use, limits), use.history + max(0, use.free - kept_free(use, limits))))


def _own_history(use: Use, limits: Budgets) -> int:
    """What the trends leave of the history's budget; never less than a quarter."""
    return max(limits.history - use.trends, limits.history // 4)


def history_excess(use: Use, limits: Budgets, *, can_shrink: bool) -> Excess | None:
    """What of the history must go at this look: some megabytes, so that nothing else waits long.

    Args:
        can_shrink: the file gives space back to the file system; without that, dropping for the sake of others would
            lose readings and help nobody.
    """
    own = _own_history(use, limits)
    if use.history > own:
        return Excess(bytes=min(use.history - own + own // 50, _STEP), is_budget=True)
    short = int(kept_free(use, limits) * _SQUEEZE) - use.free
    if short > 0 and can_shrink and use.history > 0:
        return Excess(bytes=min(short, use.history, _STEP), is_budget=False)
    return None
