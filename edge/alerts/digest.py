"""What goes together: messages of one recipient that wait for one another, as one digest. Pure.

Priority 1, steps of ladders, tests and things always go alone. Priorities 3 and 4 wait `group_wait_s` for one another;
in a flood priority 2 is merged with them, and nobody waits. What quiet hours kept goes
as one when they end. Every row keeps its own end.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .rows import CLEAR, REPEAT, Row, Settings

MOST = 200
_GROUPED = 3
_FLOODED = 2


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows of one recipient that one message tells. `rows[0]`: what the message names, the first-out or the oldest."""

    key: str
    rows: tuple[Row, ...]

    @property
    def first(self) -> Row:
        return self.rows[0]

    @property
    def is_digest(self) -> bool:
        return len(self.rows) > 1

    @property
    def priority(self) -> int:
        return min(row.priority for row in self.rows)

    @property
    def attempts(self) -> int:
        return max(row.attempts for row in self.rows)

    @property
    def resent(self) -> bool:
        return any(row.resent for row in self.rows)

    @property
    def urgency(self) -> tuple[int, int]:
        """The most urgent one first, then the oldest."""
        return self.priority, min(row.seq for row in self.rows)


@dataclass(frozen=True, slots=True)
class Waiting:
    """What one lane holds. `due_s`: monotonic seconds when more may go, infinite when nothing waits for the time."""

    ready: tuple[Batch, ...]
    due_s: float


def gather(rows: Sequence[Row], now_s: float, settings: Settings) -> Waiting:
    """The messages that could go now, of the rows that wait in one lane."""
    awake = [row for row in rows if row.not_before_s <= now_s]
    due_s = min((row.not_before_s for row in rows if row.not_before_s > now_s), default=math.inf)
    least = _FLOODED if is_flood([row for row in rows if not row.is_held(now_s)], settings) else _GROUPED
    group = [row for row in awake if row.is_mergeable and row.priority >= least]
    merged = {row.key for row in group}
    ready = [Batch(row.key, (row,)) for row in awake if row.key not in merged and not row.batch]
    ready += _resent(awake)
    if group:
        group_s = min(row.born_s + row.hold_s + row.wait_s(settings) for row in group)
        if group_s <= now_s:
            ready.append(_merge(group))
        else:
            due_s = min(due_s, group_s)
    return Waiting(tuple(ready), due_s)


def is_flood(rows: Sequence[Row], settings: Settings) -> bool:
    """More wait than a person reads one by one, or the channel has no room."""
    return len(rows) > settings.flood_rows or any(row.later for row in rows)


def _merge(group: Sequence[Row]) -> Batch:
    chosen = _in_order(group)[:MOST]
    if len(chosen) == 1:
        return Batch(chosen[0].key, (chosen[0],))
    keys = "\0".join(sorted(row.key for row in chosen))
    return Batch(hashlib.sha256(keys.encode()).hexdigest(), tuple(chosen))


def _resent(rows: Sequence[Row]) -> list[Batch]:
    """What may have arrived as one message is sent again as the same one."""
    known: dict[str, list[Row]] = {}
    for row in rows:
        if row.batch:
            known.setdefault(row.batch, []).append(row)
    return [Batch(key, tuple(_in_order(rows))) for key, rows in known.items()]


def _in_order(rows: Iterable[Row]) -> list[Row]:
    """The first-out, most often the cause, whatever its priority; then the most urgent ones, then the oldest."""
    oldest = sorted(rows, key=_age)
    return [oldest[0], *sorted(oldest[1:], key=lambda row: (_is_over(row), row.priority > _FLOODED))]


def _age(row: Row) -> tuple[bool, bool, bool, str, int]:
    """What is on before what is over, news before what people know, the first-out of a group, the one raised first."""
    alarm = row.body.get("alarm") or {}
    return _is_over(row), row.kind == REPEAT, not alarm.get("first_out"), alarm.get("raised_at") or "", row.message


def _is_over(row: Row) -> bool:
    return row.kind == CLEAR or row.closed is not None
