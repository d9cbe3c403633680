"""CPU per 1,000 Modbus readings: bare pymodbus, our sensors, the whole edge, on the same registers in one run.

With a period all clients work at the same time, each on a server of its own, and are looked at in the same windows:
what the machine does besides meets them alike. Flat out they take turns. A ratio is the median of the windows' ratios.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field

from meter import Child, Goals, child, columns, cpu_s, median, memory_mib, python, ratio_rows, wait_for, written_bytes

CLIENTS = {
    "bare": "pymodbus, same requests",
    "points": "pymodbus, register by register",
    "sensors": "sitewarden sensors, wire to Reading",
    "edge": "sitewarden edge, with rules and stores",
}
SETTLE_S = 3.0
ROUNDS = 5
TOLERANCE = 0.12  # a poll at the edge of a window counts on one side alone: one in eight at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Who is read how often; `window_s` is one look."""

    title: str
    ports: int
    units: int
    registers: int
    period_s: float
    window_s: float


@dataclass(slots=True)
class Found:
    """One client's windows."""

    cpu_ms: list[float] = field(default_factory=list)  # per 1,000 readings
    per_s: list[float] = field(default_factory=list)
    p50_s: list[float] = field(default_factory=list)
    p99_s: list[float] = field(default_factory=list)
    written: list[float] = field(default_factory=list)  # bytes per reading
    resident_mib: float = 0.0


WORKS = (
    Work(title="20 devices x 10 registers every 1 s", ports=20, units=1, registers=10, period_s=1, window_s=3),
    Work(
        title="1,000 points every 1 s on one bus (10 units x 100)",
        ports=1,
        units=10,
        registers=100,
        period_s=1,
        window_s=4,
    ),
    Work(title="20 devices x 10 registers every 0.1 s", ports=20, units=1, registers=10, period_s=0.1, window_s=2),
)
FLAT_OUT = Work(title="20 devices x 10 registers, flat out", ports=20, units=1, registers=10, period_s=0, window_s=2)


def start(stack: contextlib.ExitStack, client: str, work: Work) -> tuple[Child, Child]:
    """A server and a client of its own on it."""
    server = stack.enter_context(child(*python("modbus_server.py", work.ports, work.units)))
    ports = server.line("ready").split()
    shape = ("--units", work.units, "--registers", work.registers, "--period", work.period_s)
    return server, stack.enter_context(child(*python("modbus_clients.py", client, *shape, *ports)))


def look(pairs: dict[str, tuple[Child, Child]], window_s: float, found: dict[str, Found]) -> None:
    """One window of all clients that run."""
    before: dict[str, tuple[float, float, int, int]] = {}
    for name, (server, client) in pairs.items():
        good = client.ask("good")
        server.ask("stats")
        before[name] = (time.monotonic(), cpu_s(client.pid), written_bytes(client.pid), good)
    time.sleep(window_s)
    for name, (server, client) in pairs.items():
        cpu, stats = cpu_s(client.pid), server.ask("stats")
        began_s, cpu_before, written, good = before[name]
        number, into = client.ask("good") - good, found[name]
        if not number or abs(stats["registers"] / number - 1) > TOLERANCE:
            raise SystemExit(f"{name}: {stats['registers']} registers answered, but {number} good readings: void")
        into.cpu_ms.append(1e6 * (cpu - cpu_before) / number)
        into.per_s.append(number / (time.monotonic() - began_s))
        into.p50_s.append(stats["p50_s"])
        into.p99_s.append(stats["p99_s"])
        into.written.append((written_bytes(client.pid) - written) / number)
        into.resident_mib = memory_mib(client.pid)


def side_by_side(work: Work) -> dict[str, Found]:
    """All clients at the same time."""
    found = {client: Found() for client in CLIENTS}
    with contextlib.ExitStack() as stack:
        pairs = {client: start(stack, client, work) for client in CLIENTS}
        for server, client in pairs.values():
            wait_for(f"poll by {client.name}", lambda server=server: server.ask("stats")["registers"])
        time.sleep(SETTLE_S)
        for _ in range(ROUNDS):
            look(pairs, work.window_s, found)
    return found


def in_turn(work: Work, clients: list[str]) -> dict[str, Found]:
    """One client after the other, again and again."""
    found = {client: Found() for client in clients}
    for _ in range(ROUNDS):
        for client in clients:
            with contextlib.ExitStack() as stack:
                pair = start(stack, client, work)
                wait_for(f"poll by {client}", lambda pair=pair: pair[0].ask("stats")["registers"])
                look({client: pair}, work.window_s, found)
    return found


def show(work: Work, found: dict[str, Found]) -> dict[str, float]:
    """Print a table; returns the ratios to `bare`."""
    ratios = ratio_rows({client: each.cpu_ms for client, each in found.items()}, "bare")
    head = ("", "CPU ms/1000", "(from", "to)", "x bare", "readings/s", "p50 s", "p99 s", "RSS MiB", "B written/reading")
    rows = [
        (
            CLIENTS[client],
            f"{median(each.cpu_ms):.2f}",
            f"{min(each.cpu_ms):.2f}",
            f"{max(each.cpu_ms):.2f}",
            f"{ratios[client]:.2f}",
            f"{median(each.per_s):.0f}",
            f"{median(each.p50_s):.4f}",
            f"{median(each.p99_s):.4f}",
            f"{each.resident_mib:.0f}",
            f"{median(each.written):.0f}",
        )
        for client, each in found.items()
    ]
    columns(f"Modbus TCP: {work.title}", head, rows)
    return ratios


def main() -> None:
    """Print one table per workload, then the goals."""
    goals = Goals()
    for work in WORKS:
        found = side_by_side(work)
        ratios = show(work, found)
        goals.most(f"{work.title}: sensors, CPU x bare", ratios["sensors"], 1.5)
        goals.most(f"{work.title}: edge, CPU x bare", ratios["edge"], 3)
        goals.most(f"{work.title}: edge, CPU x register by register", ratios["edge"] / ratios["points"], 0.7)
        goals.most(f"{work.title}: edge, resident", found["edge"].resident_mib, 90, " MiB")
        if work.period_s == 1:
            goals.most(f"{work.title}: edge, p99 of the interval", median(found["edge"].p99_s), 1.03, " s")
    found = in_turn(FLAT_OUT, ["bare", "points", "sensors"])
    ratios = show(FLAT_OUT, found)
    goals.most(f"{FLAT_OUT.title}: sensors, CPU x bare", ratios["sensors"], 1.5)
    goals.print()


if __name__ == "__main__":
    main()
