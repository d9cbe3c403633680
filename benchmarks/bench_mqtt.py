"""MQTT ingest beside the bare paho and aiomqtt loops: CPU per message, what each sustains, what faults cost.

- paced: 500 messages/s with all clients at the same time on one broker; 5,000/s in turn, each with a broker of its own
- sustained: the publisher offers as fast as mosquitto takes; messages / (last one in hand - first one in hand)
- faults, with the real command and its history.db: a broker that restarts, a link that is cut, a gateway killed by -9.
  Every message carries a number; what the broker acknowledged to the publisher and the history does not hold is lost.

Needs mosquitto: default settings (20 messages in flight to a client; 1,000 for `sustained`), queues without an end.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from broker import Broker, Relay
from meter import Child, Goals, child, columns, cpu_s, median, memory_mib, python, ratio_rows, wait_for
from sites import MQTT_DEVICES, mqtt_site

CLIENTS = {
    "paho": "paho-mqtt + json",
    "aiomqtt": "aiomqtt + json",
    "sensors": "sitewarden ingest, message to Readings",
    "edge": "sitewarden edge, with rules and stores",
}
IN_TURN = ("paho", "sensors", "edge")
ROUNDS = 3
FLAT_OUT_MESSAGES = 30_000
FAULT_RATE = 500
FAULT_S = 14
FLUSH_S = 2.0
PATIENCE_S = 30.0  # without a new message: the rest is lost
GOAL = 0.8
WIDE = "max_inflight_messages 1000\n"  # with the default of 20 every client waits for the broker, none for its own CPU


@dataclass(slots=True)
class Found:
    """One client's windows."""

    cpu_us: list[float] = field(default_factory=list)  # per message
    per_s: list[float] = field(default_factory=list)
    offered_per_s: list[float] = field(default_factory=list)
    lost: int = 0
    repeated: int = 0
    resident_mib: float = 0.0


def client_on(stack: contextlib.ExitStack, name: str, broker: Broker) -> Child:
    """A client that has subscribed."""
    before = broker.subscriptions()
    running = stack.enter_context(child(*python("mqtt_clients.py", name, broker.port)))
    wait_for(f"subscription of {name}", lambda: broker.subscriptions() > before or not running.alive)
    time.sleep(0.3)  # one of twenty topics was seen
    return running


def load_on(stack: contextlib.ExitStack, port: int, rate: float, count: int) -> Child:
    """A publisher that waits for its first line."""
    load = stack.enter_context(child(*python("mqtt_load.py", port, "--rate", rate, "--count", count)))
    load.line("ready")
    return load


def begin(load: Child) -> None:
    assert load.process.stdin is not None
    load.process.stdin.write(b"begin\n")
    load.process.stdin.flush()


def look(clients: dict[str, Child], window_s: float, found: dict[str, Found]) -> None:
    """One window of all clients that run."""
    before = {name: (each.ask("took")["messages"], cpu_s(each.pid), time.monotonic()) for name, each in clients.items()}
    time.sleep(window_s)
    for name, each in clients.items():
        cpu, now_s, took = cpu_s(each.pid), time.monotonic(), each.ask("took")["messages"]
        messages, cpu_before, began_s = before[name]
        if took == messages:
            raise SystemExit(f"{name}: no messages; run benchmarks/mqtt_clients.py {name} by hand")
        found[name].cpu_us.append(1e6 * (cpu - cpu_before) / (took - messages))
        found[name].per_s.append((took - messages) / (now_s - began_s))
        found[name].resident_mib = max(found[name].resident_mib, memory_mib(each.pid))


def settle(load: Child, client: Child, into: Found, count: int) -> dict[str, Any]:
    """Wait until everything is in hand, or nothing comes any more; counts what is lost."""
    newest, newest_s = -1, time.monotonic()
    begun_s, offered_s = newest_s, 0.0
    while True:
        took = client.ask("took")
        if took["messages"] != newest:
            newest, newest_s = took["messages"], time.monotonic()
        done = load.ask("sent")["acknowledged"] >= count
        if done and not offered_s:
            offered_s = time.monotonic() - begun_s
        if done and (took["distinct"] >= count or time.monotonic() - newest_s > 3):
            break
        if time.monotonic() - newest_s > PATIENCE_S:
            break
        time.sleep(0.1)
    into.offered_per_s.append(count / (offered_s or time.monotonic() - begun_s))
    into.lost += count - took["distinct"]
    into.repeated += took["messages"] - took["distinct"]
    into.resident_mib = max(into.resident_mib, memory_mib(client.pid))
    return took


def paced_together(rate: int, window_s: float, folder: Path) -> dict[str, Found]:
    """All clients at the same time."""
    found = {name: Found() for name in CLIENTS}
    count = int(rate * (window_s * ROUNDS + 3))
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Broker(folder))
        clients = {name: client_on(stack, name, broker) for name in CLIENTS}
        load = load_on(stack, broker.port, rate, count)
        begin(load)
        time.sleep(2)
        for _ in range(ROUNDS):
            look(clients, window_s, found)
        for name, each in clients.items():
            settle(load, each, found[name], count)
    return found


def paced_in_turn(rate: int, window_s: float, folder: Path) -> dict[str, Found]:
    """One client after the other, each with a broker of its own."""
    found = {name: Found() for name in IN_TURN}
    count = int(rate * (window_s + 1.5))
    for turn in range(ROUNDS):
        for name in IN_TURN:
            with contextlib.ExitStack() as stack:
                broker = stack.enter_context(Broker(folder / f"{turn}{name}"))
                each = client_on(stack, name, broker)
                load = load_on(stack, broker.port, rate, count)
                begin(load)
                time.sleep(1)
                look({name: each}, window_s, found)
                settle(load, each, found[name], count)
    return found


def flat_out(folder: Path) -> dict[str, Found]:
    """What each sustains, in turn."""
    found = {name: Found() for name in IN_TURN}
    for turn in range(ROUNDS):
        for name, into in found.items():
            with contextlib.ExitStack() as stack:
                broker = stack.enter_context(Broker(folder / f"{turn}{name}", WIDE))
                each = client_on(stack, name, broker)
                load = load_on(stack, broker.port, 0, FLAT_OUT_MESSAGES)
                cpu = cpu_s(each.pid)
                begin(load)
                took = settle(load, each, into, FLAT_OUT_MESSAGES)
                into.cpu_us.append(1e6 * (cpu_s(each.pid) - cpu) / max(took["messages"], 1))
                into.per_s.append(took["distinct"] / max(took["last_s"] - took["first_s"], 1e-9))
    return found


def show(title: str, found: dict[str, Found]) -> None:
    ratios = ratio_rows({name: each.cpu_us for name, each in found.items()}, "paho")
    head = (
        "",
        "CPU us/message",
        "(from",
        "to)",
        "x paho",
        "messages/s",
        "(from",
        "to)",
        "% of a core",
        "lost",
        "repeated",
        "RSS MiB",
    )
    rows = [
        (
            CLIENTS[name],
            f"{median(each.cpu_us):.0f}",
            f"{min(each.cpu_us):.0f}",
            f"{max(each.cpu_us):.0f}",
            f"{ratios[name]:.2f}",
            f"{median(each.per_s):.0f}",
            f"{min(each.per_s):.0f}",
            f"{max(each.per_s):.0f}",
            f"{median(each.cpu_us) * median(each.per_s) / 1e4:.0f}",
            str(each.lost),
            str(each.repeated),
            f"{each.resident_mib:.0f}",
        )
        for name, each in found.items()
    ]
    columns(f"MQTT QoS 1: {title}", head, rows)


# --- faults ---


class Gateway:
    """The real command on a site of its own."""

    def __init__(self, folder: Path, broker_port: int) -> None:
        self.folder = folder
        self.site = mqtt_site(folder, broker_port, FLUSH_S)
        self.child: Child | None = None

    def start(self) -> None:
        command = (sys.executable, "-m", "sitewarden", "edge", "--config", str(self.site))
        self.child = Child(*command, "--data", str(self.folder / "data"))
        self.child.line("sitewarden edge")

    def stop(self, by: int = signal.SIGTERM) -> None:
        if self.child is not None:
            self.child.stop(by)
        self.child = None


async def _held(database: Path) -> set[int]:
    from sitewarden.sync.history import History

    async with History(database, "gw1") as history:
        points = [f"area.d{i}.n" for i in range(MQTT_DEVICES)]
        return {
            int(value) for point in points for _, value, _ in await history.read(point, 0, 1 << 52) if value is not None
        }


def fault_run(folder: Path, faults: Callable[[Broker, Relay, Gateway], None]) -> int:
    """Publish through `faults`; returns how many that the broker acknowledged the history does not hold."""
    count = FAULT_RATE * FAULT_S
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Broker(folder / "broker"))
        relay = Relay(broker.port)
        gateway = Gateway(folder / "edge", relay.port)
        stack.callback(gateway.stop, signal.SIGKILL)
        gateway.start()
        wait_for("subscription of the gateway", broker.subscriptions)
        time.sleep(0.3)
        load = load_on(stack, broker.port, FAULT_RATE, count)
        begin(load)
        faults(broker, relay, gateway)
        wait_for("end of the load", lambda: load.ask("sent")["acknowledged"] >= count, FAULT_S + 30)
        time.sleep(12)  # reconnects, the queue of the broker, a flush
        gateway.stop()
        held = asyncio.run(_held(folder / "edge" / "data" / "history.db"))
        return count - len(held & set(range(count)))


def restart_and_cut(broker: Broker, relay: Relay, _gateway: Gateway) -> None:
    """The broker away for 1 s, later the link cut for 1 s."""
    time.sleep(3)
    broker.stop()
    time.sleep(1)
    broker.start()
    time.sleep(4)
    relay.cut()
    time.sleep(1)
    relay.mend()


def kill(_broker: Broker, _relay: Relay, gateway: Gateway) -> None:
    """kill -9 in the middle, started again after 1 s."""
    time.sleep(5)
    gateway.stop(signal.SIGKILL)
    time.sleep(1)
    gateway.start()


def main() -> None:
    """Print one table per workload, then the goals."""
    goals = Goals()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = paced_together(500, 4, folder / "paced")
        show("500 messages/s offered, all at the same time", found)
        goals.most("500/s: edge, lost", found["edge"].lost, 0)
        found = paced_in_turn(5000, 3, folder / "fast")
        show("5,000 messages/s offered, in turn", found)
        goals.most("5,000/s: edge, lost", found["edge"].lost, 0)
        found = flat_out(folder / "flat")
        show("as fast as the broker takes, in turn", found)
        offered = min(rate for each in found.values() for rate in each.offered_per_s)
        print(f"  the publisher offered {offered:.0f}/s or more: who reaches that could take more than was measured;")
        print("  the edge has not yet stored all of it when the last message is in its hands")
        sustained = ratio_rows({each: f.per_s for each, f in found.items()}, "paho")
        for client, what in (("sensors", "ingest"), ("edge", "edge")):
            goals.least(f"flat out: {what}, messages/s x bare paho + json", sustained[client], GOAL)
            goals.most(f"flat out: {what}, lost", found[client].lost, 0)
        goals.most("flat out: edge, resident", found["edge"].resident_mib, 90, " MiB")
        with ThreadPoolExecutor() as threads:  # two gateways, two brokers
            cut = threads.submit(fault_run, folder / "cut", restart_and_cut)
            killed = threads.submit(fault_run, folder / "kill", kill)
        lost = cut.result()
        goals.most(f"broker restarted, link cut at {FAULT_RATE}/s: lost", lost, 0)
        lost = killed.result()
        goals.most(f"kill -9 at {FAULT_RATE}/s: lost (flush_s = {FLUSH_S:g} s)", lost / FAULT_RATE, FLUSH_S, " s")
    goals.print()


if __name__ == "__main__":
    main()
