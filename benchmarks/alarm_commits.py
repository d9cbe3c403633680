"""What a commit of SQLite costs in a folder just now, without anything of ours: one row, 50 times a second.

    alarm_commits.py FOLDER

Prints `ready`. Each line `bare` on standard input is answered by `bare [p50, p99, most]`, milliseconds.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from meter import child, python

_ROW = b"x" * 1500
_PAUSE_S = 0.02


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[Callable[[], list[float]]]:
    """Commits in another process while the block runs; gives what asks for p50, p99 and the most, milliseconds."""
    with child(*python("alarm_commits.py", folder)) as running:
        running.line("ready")
        yield lambda: running.ask("bare")


def commit(folder: Path, took_ms: list[float], until: threading.Event) -> None:
    """Append to `took_ms` what each commit took."""
    with contextlib.closing(sqlite3.connect(folder / "bare.db", isolation_level=None)) as connection:
        for statement in ("PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE t (body BLOB)"):
            connection.execute(statement)
        print("ready", flush=True)
        while not until.wait(_PAUSE_S):
            began_s = time.monotonic()
            connection.execute("INSERT INTO t VALUES (?)", (_ROW,))
            took_ms.append((time.monotonic() - began_s) * 1000)


def main(folder: Path) -> None:
    took_ms: list[float] = []
    until = threading.Event()
    worker = threading.Thread(target=commit, args=(folder, took_ms, until))
    worker.start()
    for _ in sys.stdin:
        cuts = statistics.quantiles(took_ms, n=100, method="inclusive")
        print("bare", json.dumps([cuts[49], cuts[98], max(took_ms)]), flush=True)
    until.set()
    worker.join()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
