"""Looks at both ends of the link from outside and notes when what was there: databases, and packets where it may.

    link_watch.py JOURNAL HISTORY CLOUD [DEVICE]

Both ends are looked at every few milliseconds, read-only, so a time is late by no more than that. Prints `ready`. Each
line on standard input is answered:

- `seen`: since the line `seen` before, JSON of `{"edge": [[seconds, newest record], …], "cloud": …, "sealed": …,
  "segments": …, "snapshot": …}`; seconds of the machine's monotonic clock, and only when the number changed
- `tries`: when TCP packets left on DEVICE since the line `tries` before, no two within 5 ms
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sqlite3
import sys
import time
from pathlib import Path

LOOK_S = 0.003
_TCP, _OUTGOING = 6, 4
_ETH_P_IP, _ETH_P_ALL = 0x0800, 3
_APART_S = 0.005

_SQL = {
    "edge": (0, "SELECT max(seq) FROM record"),
    "sealed": (1, "SELECT value FROM meta WHERE key = 'sealed'"),
    "cloud": (2, "SELECT max(seq) FROM ack WHERE stream = 'journal'"),
    "segments": (2, "SELECT max(ack) FROM ack WHERE stream = 'history'"),
    "snapshot": (2, "SELECT max(seq) FROM snapshot"),
}


class File:
    """One database that another process writes; it may be there later."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite3.Connection | None = None
        self._version = -1

    def changed(self) -> bool:
        """Whether there is something that was not there at the last look."""
        try:
            if self._connection is None:
                self._connection = sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, isolation_level=None)
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.OperationalError:
            return False
        changed, self._version = version != self._version, version
        return changed

    def newest(self, sql: str) -> int:
        assert self._connection is not None
        with contextlib.suppress(sqlite3.OperationalError):  # a table that is not there yet
            row = self._connection.execute(sql).fetchone()
            return row[0] or 0 if row else 0
        return 0


class Watch:
    def __init__(self, paths: list[Path], device: str) -> None:
        self._files = [File(path) for path in paths]
        self._last = dict.fromkeys(_SQL, 0)
        self._packets: socket.socket | None = None
        if device:
            self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
            self._packets.bind((device, _ETH_P_ALL))
            self._packets.setblocking(False)
        self._forget()
        self._tries: list[float] = []

    def _forget(self) -> None:
        self._seen: dict[str, list[tuple[float, int]]] = {name: [] for name in _SQL}

    def look(self) -> None:
        changed = [file.changed() for file in self._files]
        for name, (at, sql) in _SQL.items():
            if changed[at]:
                number = self._files[at].newest(sql)
                if number != self._last[name]:
                    self._last[name] = number
                    self._seen[name].append((time.monotonic(), number))
        if self._packets is not None:
            self._hear(self._packets)

    def _hear(self, packets: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, OSError):  # OSError: the device is down
            while True:
                data, where = packets.recvfrom(64)
                now_s = time.monotonic()
                ours = where[1] == _ETH_P_IP and where[2] == _OUTGOING and data[9] == _TCP
                if ours and now_s - (self._tries[-1] if self._tries else 0.0) > _APART_S:
                    self._tries.append(now_s)

    def answer(self, word: str) -> None:
        if word == "tries":
            print("tries", json.dumps(self._tries), flush=True)
            self._tries = []
        else:
            print("seen", json.dumps(self._seen), flush=True)
            self._forget()


def main() -> None:
    watch = Watch([Path(name) for name in sys.argv[1:4]], sys.argv[4] if len(sys.argv) > 4 else "")
    print("ready", flush=True)
    while True:
        watch.look()
        if select.select([sys.stdin], [], [], LOOK_S)[0]:
            word = sys.stdin.readline()
            if not word:
                return
            watch.answer(word.strip())


if __name__ == "__main__":
    main()
