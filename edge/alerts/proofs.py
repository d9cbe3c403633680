"""Accepted messages whose channel promised proof: which have it, and which have waited for it in vain. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .rows import Row

_EARLY_S = 60.0
_EARLY_MOST = 1000


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of one accepted row."""

    row: Row
    delivered: bool
    detail: str


@dataclass(frozen=True, slots=True)
class _Report:
    delivered: bool
    detail: str
    at_s: float


class Proofs:
    """Matches reports to messages by their receipt. A report may come before the acceptance is committed."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[tuple[Row, ...], float]] = {}
        self._late: dict[str, tuple[Row, ...]] = {}
        self._reports: dict[str, _Report] = {}

    def expect(self, receipt: str, rows: Sequence[Row], until_s: float) -> None:
        """These rows went as one message. Without a report until then they are not proven."""
        self._waiting[receipt] = tuple(rows), until_s

    def report(self, receipt: str, delivered: bool, detail: str, now_s: float) -> None:
        """A channel says what became of a message."""
        self._reports[receipt] = _Report(delivered, detail, now_s)
        if len(self._reports) > _EARLY_MOST:
            del self._reports[next(iter(self._reports))]

    def settled(self, now_s: float) -> list[Proof]:
        """What is known now and was not before. A message that is proven after all is told a second time."""
        proofs: list[Proof] = []
        for receipt, report in list(self._reports.items()):
            rows, _ = self._waiting.pop(receipt, ((), 0.0))
            late = self._late.pop(receipt, ()) if report.delivered else ()
            proofs += [Proof(row, report.delivered, report.detail) for row in (*rows, *late)]
            if rows or late or now_s - report.at_s > _EARLY_S:
                del self._reports[receipt]
        for receipt, (rows, until_s) in list(self._waiting.items()):
            if now_s >= until_s:
                del self._waiting[receipt]
                self._late[receipt] = rows
                proofs += [Proof(row, False, "no proof that it arrived") for row in rows]
        while len(self._late) > _EARLY_MOST:
            del self._late[next(iter(self._late))]
        return proofs

    def next_s(self) -> float:
        """When the next message has waited in vain; infinite when none waits."""
        return min((until_s for _, until_s in self._waiting.values()), default=math.inf)
