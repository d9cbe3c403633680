"""How often one robot may be told something: a bucket whose tokens come back one window after they were taken. Pure.

No window of time ever holds more than `limit` takes; a bucket that is filled up steadily would allow a full bucket and
what has flowed in since. Two parts are kept back, one for priority 1 and one for steps of a ladder: ordinary messages
use up neither, and a storm of priority 1 leaves the ladder its own.

A new bucket does not know what the process before it has sent. It begins half full, each part of it, and the other half
comes back after one window: at most one and a half times `limit` around a restart.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence

from .port import Notice

LIMIT = 18
WINDOW_S = 60.0


class _Part(enum.Enum):
    COMMON = "common"
    URGENT = "urgent"
    LADDER = "ladder"


class Budget:
    """Requests to one receiver.

    Args:
        limit: takes within `window_s`, all together.
        urgent, ladder: how many of them are kept for priority 1, and for steps of a ladder; the rest is for everyone.
            None: two ninths of the limit each.
        born_s: now, in monotonic seconds, as every `now_s` of it.
    """

    def __init__(
        self,
        *,
        limit: int = LIMIT,
        window_s: float = WINDOW_S,
        urgent: int | None = None,
        ladder: int | None = None,
        born_s: float,
    ) -> None:
        share = limit * 2 // 9
        urgent, ladder = share if urgent is None else urgent, share if ladder is None else ladder
        if min(urgent, ladder, limit - urgent - ladder - 1) < 0 or window_s <= 0:
            raise ValueError(f"limit {limit} in {window_s:g} s must leave something beside {urgent} and {ladder} kept")
        self._sizes = {_Part.COMMON: limit - urgent - ladder, _Part.URGENT: urgent, _Part.LADDER: ladder}
        self._window_s = window_s
        self._now_s = born_s
        self._away = {part: deque([born_s + window_s] * (size // 2)) for part, size in self._sizes.items()}

    def take(self, priority: int, is_escalation: bool, now_s: float) -> float:
        """Take one token.

        Returns:
            0.0 when it was taken, else the seconds until it is worth asking again; nothing was taken then.
        """
        wait_s = self.wait_s(priority, is_escalation, now_s)
        if not wait_s:
            part = next(part for part in _parts(priority, is_escalation) if self._free(part))
            self._away[part].append(self._now_s + self._window_s)
        return wait_s

    def wait_s(self, priority: int, is_escalation: bool, now_s: float) -> float:
        """What `take` would return; takes nothing."""
        self._bring_back(now_s)
        parts = _parts(priority, is_escalation)
        if any(self._free(part) for part in parts):
            return 0.0
        return min(self._away[part][0] for part in parts if self._sizes[part]) - self._now_s

    def left(self, now_s: float) -> int:
        """Tokens that are there, all parts together."""
        self._bring_back(now_s)
        return sum(map(self._free, _Part))

    def _free(self, part: _Part) -> int:
        return self._sizes[part] - len(self._away[part])

    def _bring_back(self, now_s: float) -> None:
        self._now_s = max(self._now_s, now_s)
        for away in self._away.values():
            while away and away[0] <= self._now_s:
                away.popleft()


def take_all(budgets: Sequence[Budget], priority: int, is_escalation: bool, now_s: float) -> float:
    """As `Budget.take` of each, or of none: the longest wait of them."""
    wait_s = max((budget.wait_s(priority, is_escalation, now_s) for budget in budgets), default=0.0)
    if not wait_s:
        for budget in budgets:
            budget.take(priority, is_escalation, now_s)
    return wait_s


def is_escalation(notice: Notice) -> bool:
    """Whether it is a step of a ladder: `step` in its facts is above 0."""
    step = notice.facts.get("step", 0)
    return isinstance(step, int) and step > 0


def _parts(priority: int, is_escalation: bool) -> list[_Part]:
    """Where a token may come from, what everyone may use first."""
    kept = ([_Part.URGENT] if priority <= 1 else []) + ([_Part.LADDER] if is_escalation else [])
    return [_Part.COMMON, *kept]
