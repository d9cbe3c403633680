"""Which of a gateway's epochs are alive: one, unless two machines send with one key. Pure.

An epoch that begins ends the one before. Whatever brings something new of its own after that is another machine: the
original beside its clone. Then both are shown; nobody's alarms hide the other's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..sync.epoch_table import is_branch, record_epoch

ALIVE_MS = 7 * 86_400_000
"""A machine that has brought nothing for so long is gone; its last word is no longer shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What the first record of an epoch says.

    Attributes:
        predecessor: the epoch before. last: number of its last record, as the gateway knew it.
        at: time of that record, as text.
    """

    predecessor: str
    last: int
    reason: str
    at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochRow:
    """A journal's epoch as it lies at headquarters.

    Attributes:
        seq: number of its newest record here.
        begun_ms, last_ms: when the first and the last new batch came, UTC milliseconds.
    """

    epoch: str
    ack: int
    seq: int
    begun_ms: int
    last_ms: int


def heads(rows: Sequence[EpochRow], begun: Mapping[str, Begun], now_ms: int) -> list[EpochRow]:
    """The epochs that are alive, the newest first.

    Args:
        rows: in the order in which they began.
        begun: by epoch, of all but first ones.
    """
    if not rows:
        return []
    newest = _newest(rows, begun)
    ends = _ends(newest.epoch, begun)
    others = [
        row
        for row in rows
        if row is not newest
        and not is_branch(row.epoch)
        and row.last_ms > newest.begun_ms
        and row.last_ms > now_ms - ALIVE_MS
        and row.seq > ends.get(row.epoch, 0)
    ]
    return [newest, *reversed(others)]


def _newest(rows: Sequence[EpochRow], begun: Mapping[str, Begun]) -> EpochRow:
    """The one that came last, or what follows it: from a stick, or sent again, a later epoch may come first."""
    after = {start.predecessor: epoch for epoch, start in begun.items()}
    known = {row.epoch: row for row in rows}
    newest = rows[-1]
    for _ in rows:
        following = known.get(after.get(record_epoch(newest.epoch), ""))
        if following is None or following is newest:
            break
        newest = following
    return newest


def shown_of(epoch: str) -> tuple[str, ...]:
    """Whose alarms stand for a head: a branch knows only what changed since it left its epoch."""
    return (epoch, record_epoch(epoch)) if is_branch(epoch) else (epoch,)


def live(words: Iterable[tuple[str, int, int]], now_ms: int) -> list[str]:
    """The epochs of those who still speak, the newest first.

    Args:
        words: (epoch, UTC ms of its first word, of its last one).
    """
    known = sorted(words, key=lambda word: word[1], reverse=True)
    if not known:
        return []
    newest_ms = known[0][1]
    return [epoch for epoch, _, last_ms in known if last_ms >= newest_ms and last_ms > now_ms - ALIVE_MS] or [
        known[0][0]
    ]


def _ends(epoch: str, begun: Mapping[str, Begun]) -> dict[str, int]:
    """Of each epoch before this one, the record that it ended with: up to there it may still arrive."""
    found: dict[str, int] = {}
    while (start := begun.get(epoch)) is not None and start.predecessor not in found:
        found[start.predecessor] = start.last
        epoch = start.predecessor
    return found
