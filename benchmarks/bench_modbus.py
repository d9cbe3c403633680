"""CPU per 1,000 Modbus readings: bare pymodbus, our sensors, the whole edge, in turn in one run; memory of the edge.

20 TCP devices with 10 registers each, one request for the 10, at 1 s and at 0.1 s. The ratio is what counts: machines
differ and are shared.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from meter import Counter, child, cpu_s, memory_mib, python, table

HERE = Path(__file__).resolve().parent
DEVICES = 20
ROUNDS = 3
CLIENTS = {
    "bare": "pymodbus, 10 registers in a request",
    "points": "pymodbus, register by register",
    "sensors": "sitewarden sensors, wire to Reading",
    "edge": "sitewarden edge, with rules and stores",
}


def run(client: str, ports: list[str], period_s: float, window_s: float) -> tuple[float, float, float]:
    """CPU ms per 1,000 readings, readings/s, resident MiB of one client over one window."""
    with child(*python(HERE / "modbus_clients.py", client, "--period", period_s, *ports), until="count") as process:
        counter = Counter(process)
        time.sleep(2.5)  # imports, connections, first polls
        cpu, first, began = cpu_s(process.pid), counter.value, time.monotonic()
        time.sleep(window_s)
        cpu, number = cpu_s(process.pid) - cpu, counter.value - first
        if process.poll() is not None or number == 0:
            raise SystemExit(f"{client}: no readings; run benchmarks/modbus_clients.py {client} by hand")
        return 1e6 * cpu / number, number / (time.monotonic() - began), memory_mib(process.pid)[0]


def main() -> None:
    """Print one table per period."""
    with subprocess.Popen(python(HERE / "modbus_server.py", DEVICES), stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        ports = server.stdout.readline().split()[1:]
        try:
            for period_s, window_s in ((1.0, 8.0), (0.1, 5.0)):
                found: dict[str, list[tuple[float, float, float]]] = {client: [] for client in CLIENTS}
                for _ in range(ROUNDS):
                    for client in CLIENTS:
                        found[client].append(run(client, ports, period_s, window_s))
                rows = [(CLIENTS[client], [values[0] for values in found[client]]) for client in CLIENTS]
                table(f"Modbus TCP, {DEVICES} devices x 10 registers every {period_s:g} s", rows, "ms CPU/1000")
                for client, values in found.items():
                    print(f"  {CLIENTS[client]:<46} {values[-1][1]:8.0f} readings/s, {values[-1][2]:.0f} MiB resident")
        finally:
            server.kill()


if __name__ == "__main__":
    main()
