"""What the benchmarks share: CPU and memory of a process from /proc, medians, a table of ratios."""

from __future__ import annotations

import contextlib
import socket
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used, all its living threads, to the nanosecond of the scheduler's own count."""
    total_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total_ns += int((task / "schedstat").read_text().split()[0])
    return total_ns / 1e9


def memory_mib(pid: int) -> tuple[float, float]:
    """Resident and proportional memory of a process, MiB."""
    wanted = {"Rss:": 0.0, "Pss:": 0.0}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        name, _, rest = line.partition(" ")
        if name in wanted:
            wanted[name] = int(rest.split()[0]) / 1024
    return wanted["Rss:"], wanted["Pss:"]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def child(*command: str, until: str = "", log: Path | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that is killed at the end; with `until`, only after it printed a line that begins so."""
    errors = log.open("w") if log else subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        if until:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(until):
                    break
            else:
                raise SystemExit(f"{' '.join(command[:4])} ended before it printed {until!r}")
        yield process
    finally:
        process.kill()
        process.wait()


def python(file: Path, *arguments: object) -> tuple[str, ...]:
    """The command that runs a file of this folder."""
    return (sys.executable, str(file), *map(str, arguments))


class Counter:
    """The newest `count N` line that a process printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.value = 0
        self._out = process.stdout
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._out is not None
        for line in self._out:
            if line.startswith("count "):
                self.value = int(line.split()[1])


def table(title: str, rows: Sequence[tuple[str, Sequence[float]]], unit: str) -> None:
    """Print medians (min, max) and each median's ratio to the first row's."""
    print(f"\n{title}")
    base = statistics.median(rows[0][1])
    for name, values in rows:
        median = statistics.median(values)
        print(f"  {name:<46} {median:8.2f} {unit}  ({min(values):.2f} to {max(values):.2f})  x{median / base:.2f}")
