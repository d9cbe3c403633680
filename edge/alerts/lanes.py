"""Who is sent what now: one lane per recipient and channel: one who cannot be reached costs others nothing. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from .digest import Batch
from .rows import Row, Settings

_AT_ONCE = 2
_TOLERATED = 3
_MOST_DOUBLINGS = 10


@dataclass(slots=True)
class Lane:
    """One recipient on one channel.

    Attributes:
        sending: messages under way.
        failures: attempts in a row that were not accepted.
        due_s: monotonic seconds from when what failed may be tried again.
        lost: the log says that this recipient is not reached.
    """

    sending: int = 0
    failures: int = 0
    due_s: float = 0.0
    lost: bool = False

    def choose(self, batches: Sequence[Batch], now_s: float) -> list[Batch]:
        """What to send now. A new message does not wait for one that was refused, until everything is refused: then
        one at a time asks whether the recipient is back, each in its turn. A new one of priority 1 never waits."""
        room = max(0, _AT_ONCE - self.sending)
        if not self.failures:
            return sorted(batches, key=_urgency)[:room]
        fresh = [batch for batch in batches if not batch.attempts]
        if self.failures >= _TOLERATED:
            fresh = [batch for batch in fresh if batch.priority <= 1]
        if fresh:
            return sorted(fresh, key=_urgency)[:room]
        if self.sending or now_s < self.due_s or not batches:
            return []
        return [min(batches, key=lambda batch: (batch.attempts, *batch.urgency))]

    def failed(self, now_s: float, settings: Settings, at_least_s: float = 0.0) -> None:
        """Wait longer than last time, up to the cap, with jitter; not less than the channel asks for."""
        self.failures += 1
        pause_s = min(settings.retry_cap_s, settings.retry_base_s * 2 ** min(self.failures, _MOST_DOUBLINGS))
        self.due_s = now_s + max(at_least_s, random.uniform(0.5, 1.0) * pause_s)  # noqa: S311

    def reached(self) -> bool:
        """It was accepted. Whether the log must say that the recipient is back."""
        was_lost, self.failures, self.lost = self.lost, 0, False
        return was_lost


_RIGHTS = tuple(map(frozenset[str], ((), ("urgent",), ("step",), ("urgent", "step"))))


@dataclass(slots=True)
class Holds:
    """Channels that have no room now, each for one class of messages: urgent ones and steps of ladders have room of
    their own, and an urgent step has both."""

    _until_s: dict[tuple[str, frozenset[str]], float] = field(default_factory=dict[tuple[str, frozenset[str]], float])

    def hold(self, row: Row, until_s: float) -> None:
        """The channel said LATER to this row: what has no more room than it need not ask before."""
        for rights in _RIGHTS:
            if rights <= _rights(row):
                name = row.channel, rights
                self._until_s[name] = max(self._until_s.get(name, 0.0), until_s)

    def until_s(self, row: Row) -> float:
        """When the row may ask, monotonic seconds."""
        return self._until_s.get((row.channel, _rights(row)), 0.0)


def _rights(row: Row) -> frozenset[str]:
    """What it has beside the room that is everyone's."""
    return frozenset((["urgent"] if row.priority <= 1 else []) + (["step"] if row.step else []))


def one_at_a_time(batches: Iterable[Batch], under_way: Iterable[Row]) -> list[Batch]:
    """Without those that tell both that an alarm was raised and that it is over while its recipient is being told
    of it elsewhere: nobody is told twice."""
    busy = {_whom(row) for row in under_way}
    chosen: list[Batch] = []
    for batch in sorted(batches, key=_urgency):
        combined = {_whom(row) for row in batch.rows if row.closed is not None}
        if combined & busy:
            continue
        busy |= combined
        chosen.append(batch)
    return chosen


def _whom(row: Row) -> tuple[str, str, int]:
    return row.recipient, row.about, row.occurrence


def _urgency(batch: Batch) -> tuple[int, int]:
    return batch.urgency
