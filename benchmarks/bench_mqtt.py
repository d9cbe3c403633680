"""CPU per 1,000 MQTT messages (6 readings each): bare paho and aiomqtt + json, our ingest, the whole edge, in one run.

Needs mosquitto. The ratio is what counts: machines differ and are shared.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from meter import Counter, child, cpu_s, free_port, memory_mib, python, table

HERE = Path(__file__).resolve().parent
ROUNDS = 3
WINDOW_S = 5.0
CLIENTS = {
    "paho": "paho-mqtt + json",
    "aiomqtt": "aiomqtt + json",
    "sensors": "sitewarden ingest, message to Readings",
    "edge": "sitewarden edge, with rules and stores",
}


def run(client: str, port: int) -> tuple[float, float, float]:
    """CPU ms per 1,000 messages, messages/s, resident MiB of one client over one window."""
    with child(*python(HERE / "mqtt_clients.py", client, port), until="count") as process:
        counter = Counter(process)
        time.sleep(2.5)
        cpu, first, began = cpu_s(process.pid), counter.value, time.monotonic()
        time.sleep(WINDOW_S)
        cpu, number = cpu_s(process.pid) - cpu, counter.value - first
        if process.poll() is not None or number == 0:
            raise SystemExit(f"{client}: no messages; run benchmarks/mqtt_clients.py {client} {port} by hand")
        return 1e6 * cpu / number, number / (time.monotonic() - began), memory_mib(process.pid)[0]


def main() -> None:
    """Print one table per rate."""
    mosquitto = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if mosquitto is None:
        raise SystemExit("mosquitto is not installed: apt install mosquitto")
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        conf = Path(folder) / "mosquitto.conf"
        conf.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n")
        with child(mosquitto, "-c", str(conf)):
            for rate in (500, 2000):
                time.sleep(0.5)
                _one_rate(port, rate)


def _one_rate(port: int, rate: int) -> None:
    found: dict[str, list[tuple[float, float, float]]] = {client: [] for client in CLIENTS}
    with child(*python(HERE / "mqtt_clients.py", "load", port, "--rate", rate), until="count"):
        for _ in range(ROUNDS):
            for client in CLIENTS:
                found[client].append(run(client, port))
    rows = [(CLIENTS[client], [values[0] for values in found[client]]) for client in CLIENTS]
    table(f"MQTT QoS 1, {rate} messages/s offered, 6 numbers each", rows, "ms CPU/1000 messages")
    for client, values in found.items():
        each = values[-1]
        print(
            f"  {CLIENTS[client]:<46} {each[1]:8.0f} messages/s, {each[0] / 6:.2f} ms/1000 readings, {each[2]:.0f} MiB"
        )


if __name__ == "__main__":
    main()
