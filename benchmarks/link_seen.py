"""What bench_link.py sees of both ends from outside, and what it does to the plant."""

from __future__ import annotations

import contextlib
import math
import os
import sqlite3
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from link_rig import OVER, REGISTERS, UNDER, UNITS, Rig
from meter import Child, child, python


class Watch:
    """What link_watch.py has seen so far. Numbers of records and segments only grow."""

    def __init__(self, process: Child) -> None:
        self._process = process
        self._seen: dict[str, list[tuple[float, int]]] = {}

    def refresh(self) -> None:
        for name, rows in self._process.ask("seen").items():
            self._seen.setdefault(name, []).extend((at_s, number) for at_s, number in rows)

    def packets(self) -> list[float]:
        """When the gateway sent packets to headquarters, since the last question."""
        return self._process.ask("tries")

    def newest(self, name: str) -> int:
        """The last number that was seen."""
        self.refresh()
        return self._seen[name][-1][1] if self._seen[name] else 0

    def at(self, name: str, when_s: float) -> int:
        """The number as it was then."""
        rows = self._seen[name]
        place = bisect_right(rows, (when_s, math.inf))
        return rows[place - 1][1] if place else 0

    def when(self, name: str, number: int) -> float:
        """When at least that number was reached; infinite when it was not, and since ever for 0."""
        rows = self._seen[name] if number else [(-math.inf, 0)]
        place = bisect_left(rows, number, key=lambda row: row[1])
        return rows[place][0] if place < len(rows) else math.inf

    def rate(self, name: str) -> float:
        """Numbers a second, from the first one to the last."""
        (begin_s, first), (end_s, last) = self._seen[name][0], self._seen[name][-1]
        return (last - first) / max(end_s - begin_s, 1e-9)


@contextlib.contextmanager
def watching(made: Rig) -> Iterator[Watch]:
    files = (made.data / "journal.db", made.data / "history.db", made.hq / "cloud.db")
    with child(*python("link_watch.py", *files, *made.link.watches)) as process:
        process.line("ready")
        yield Watch(process)


def load() -> str:
    """What else the machine does: processes that want a core, over the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def rows_of(path: Path, sql: str, *values: object) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


class Toggles:
    """Points of the plant that go over their limit, one after the other; when all are over, back again.

    No point comes and goes within a minute: the gateway would find that it chatters.
    """

    def __init__(self, made: Rig) -> None:
        self._made, self._turn = made, 0

    def next(self) -> None:
        """One of them changes sides."""
        turn, register = divmod(self._turn // UNITS, REGISTERS)
        self._made.hold(self._turn % UNITS + 1, register, OVER if turn % 2 == 0 else UNDER)
        self._turn += 1

    def during(self, seconds: float, every_s: float = 1.0) -> None:
        """Changes for a time."""
        until_s = time.monotonic() + seconds
        while (left_s := until_s - time.monotonic()) > 0:
            self.next()
            time.sleep(min(every_s, left_s))
