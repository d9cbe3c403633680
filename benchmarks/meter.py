"""What the benchmarks share: CPU, memory and writes of a process, children that end with us, tables of ratios, goals.

CPU is the process's own clock of the kernel (all threads, also ended ones, to the nanosecond): on a machine that does
other work at the same time it is what can be compared; wall time is not.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that children are stopped when we are


def cpu_s(pid: int) -> float:
    """CPU seconds that a process has used."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's clock id of another process: CPUCLOCK_SCHED


def memory_mib(pid: int) -> float:
    """Resident memory of a process, MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"no Rss in smaps_rollup of {pid}")


def written_bytes(pid: int) -> int:
    """Bytes that a process has had written to storage (pages that it made dirty)."""
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return int(fields["write_bytes"])


def fingerprint() -> str:
    """Hash of the Python sources of sitewarden that the children import."""
    found = importlib.util.find_spec("sitewarden")
    assert found is not None
    assert found.origin is not None
    root, digest = Path(found.origin).resolve().parent, hashlib.sha256()
    for folder in ("", "sensors", "edge", "edge/alarms", "edge/alerts", "edge/pages", "serving", "sync"):
        for file in sorted((root / folder).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what: str, met: Callable[[], object], limit_s: float = 20.0) -> None:
    """Look ten times a second until `met()`; ends the benchmark when it takes longer than `limit_s`."""
    until_s = time.monotonic() + limit_s
    while not met():
        if time.monotonic() > until_s:
            raise SystemExit(f"no {what} within {limit_s:g} s")
        time.sleep(0.1)


def listens(port: int) -> bool:
    """Whether something answers on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def python(file: str, *arguments: object) -> tuple[str, ...]:
    """The command that runs a file of this folder."""
    return (sys.executable, str(HERE / file), *map(str, arguments))


class Child:
    """A process in a group of its own, and what it printed.

    Args:
        command: program and arguments.
        log: gets standard output and error; without it lines can be read with `line` and errors are dropped.
    """

    def __init__(self, *command: str, log: Path | None = None, env: Mapping[str, str] | None = None) -> None:
        errors = log.open("ab") if log else subprocess.DEVNULL
        self.name = " ".join(Path(part).name for part in command[:3])
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=errors if log else subprocess.PIPE,
            stderr=errors,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
        if log:
            assert not isinstance(errors, int)
            errors.close()
        self.pid = self.process.pid

    def line(self, begins: str) -> str:
        """The rest of the next line that begins so."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(begins.encode()):
                return line.decode()[len(begins) :].strip()
        raise SystemExit(f"{self.name} ended before it printed {begins!r}; run it by hand")

    def ask(self, word: str) -> Any:
        """Send a line and return the JSON of the line that answers it."""
        assert self.process.stdin is not None
        self.process.stdin.write(word.encode() + b"\n")
        self.process.stdin.flush()
        return json.loads(self.line(f"{word} "))

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self, by: int = signal.SIGTERM, patience_s: float = 10.0) -> None:
        """End it and its children; by force when it takes too long."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(by)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(patience_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()


@contextlib.contextmanager
def child(*command: str, log: Path | None = None, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """A process that is killed, with its children, at the end."""
    running = Child(*command, log=log, env=env)
    try:
        yield running
    finally:
        running.stop(signal.SIGKILL)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


@dataclass(slots=True)
class Goals:
    """Goal lines, collected while a benchmark runs and printed as one table at its end."""

    lines: list[tuple[str, str, str, str]] = field(default_factory=list)
    sources: str = field(default_factory=fingerprint)

    def most(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """`value` must be at most `limit`."""
        self._add(what, value, f"<= {limit:g}{unit}", unit, value <= limit)

    def least(self, what: str, value: float, limit: float, unit: str = "") -> None:
        """`value` must be at least `limit`."""
        self._add(what, value, f">= {limit:g}{unit}", unit, value >= limit)

    def _add(self, what: str, value: float, goal: str, unit: str, met: bool) -> None:
        text = f"{value:.4g}" if value < 1000 else f"{value:.0f}"
        self.lines.append((what, text + unit, goal, "yes" if met else "NO"))

    def print(self) -> None:
        """Print the table. Children import the sources when they start: figures of two versions are no figures.

        Raises:
            SystemExit: the sources were edited while this ran.
        """
        if fingerprint() != self.sources:
            raise SystemExit("\nVOID: sitewarden was edited while it was measured; run this again")
        columns(f"Goals (sources {self.sources})", ("", "measured", "goal", "met"), self.lines)


def columns(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    print(f"\n{title}")
    for row in (head, *rows):
        cells = (cell.ljust(widths[i]) if i == 0 else cell.rjust(widths[i]) for i, cell in enumerate(row))
        print("  " + "  ".join(cells).rstrip(), flush=True)


def ratio_rows(found: Mapping[str, Sequence[float]], base: str) -> dict[str, float]:
    """Median of each against the median of `base`, pair by pair: what both met in the same round cancels."""
    return {
        name: median([value / against for value, against in zip(values, found[base], strict=True)])
        for name, values in found.items()
    }
