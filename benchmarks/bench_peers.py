"""The edge and other gateways on the same work in one run: Modbus, a dead unit, start, rest, MQTT.

    bench_peers.py [--install] [--cache FOLDER]

A peer that is not installed is named with how to install it; `--install` does it (into the cache folder, collectd by
apt). Rows marked native are C. Readings are what the Modbus server answered: for the peers nobody checks what became of
them. On Modbus all run at the same time, each on a server of its own; on MQTT one after the other.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench_mqtt import Found, begin, client_on, load_on, look, settle
from broker import Broker
from meter import Child, Goals, child, columns, cpu_s, memory_mib, python, wait_for, written_bytes
from peers import PEERS, NodeRed, Start, ThingsBoard

CACHE = Path.home() / ".cache" / "sitewarden-bench"
WORKS = (("20 devices x 10 registers every 1 s", 1.0, 8.0), ("20 devices x 10 registers every 0.1 s", 0.1, 6.0))
SETTLE_S = 8.0  # a breaker has had the time to open
DEAD_S = 10.0
MQTT_S = 4.0
UNITS = 20
DEAD = 7
EARLIER = (
    (
        "Home Assistant 2024.3 (earlier figure; not measured in this run)",
        "314",
        "-",
        "1.002",
        "1.03-1.11",
        "101",
        "-",
    ),
)


@dataclass(slots=True)
class Look:
    """One window of one peer."""

    first_s: float
    cpu_s: float = 0.0
    written: int = 0
    took_s: float = 0.0
    resident_mib: float = 0.0
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def cpu_ms(self) -> float:
        """Per 1,000 readings."""
        return 1e6 * self.cpu_s / max(self.stats["registers"], 1)


def started(stack: contextlib.ExitStack, start: Start, log: Path) -> Child:
    return stack.enter_context(child(*start.command, log=log, env=start.env))


def modbus(stack: contextlib.ExitStack, peer: Any, folder: Path, shape: tuple[int, int, int], period_s: float):
    """A server of (ports, units, dead unit), an upstream, the peer: server, peer, seconds to the first poll."""
    server = stack.enter_context(child(*python("modbus_server.py", *shape)))
    ports = [int(port) for port in server.line("ready").split()]
    upstream = stack.enter_context(Broker(folder / "upstream")).port
    stack.enter_context(child(*python("peer_platform.py", upstream)))
    start = peer.modbus(folder / "peer", ports, shape[1], period_s, upstream)
    began_s = time.monotonic()
    gateway = started(stack, start, folder / "log")
    wait_for(f"poll by {peer.name}", lambda: server.ask("stats")["first_s"] or not gateway.alive, 30)
    if not gateway.alive:
        raise SystemExit(f"{peer.name} ended: {(folder / 'log').read_text()[-400:]}")
    return server, gateway, server.ask("stats")["first_s"] - began_s


def side_by_side(peers: list[Any], shape: tuple[int, int, int], period_s: float, window_s: float, folder: Path):
    """All peers at the same time, each on a server of its own: what each did in one window."""
    found: dict[str, Look] = {}
    with contextlib.ExitStack() as stack:
        running = {}
        for peer in peers:
            server, gateway, first_s = modbus(stack, peer, folder / type(peer).__name__, shape, period_s)
            running[peer.name] = (server, gateway)
            found[peer.name] = Look(first_s=first_s)
        time.sleep(SETTLE_S)
        for name, (server, gateway) in running.items():
            into = found[name]
            server.ask("stats")
            into.cpu_s, into.written = cpu_s(gateway.pid), written_bytes(gateway.pid)
            into.took_s = time.monotonic()
        time.sleep(window_s)
        for name, (server, gateway) in running.items():
            into = found[name]
            into.cpu_s, into.written = cpu_s(gateway.pid) - into.cpu_s, written_bytes(gateway.pid) - into.written
            into.stats, into.took_s = server.ask("stats"), time.monotonic() - into.took_s
            into.resident_mib = memory_mib(gateway.pid)
    return found


def paced_row(name: str, seen: Look) -> tuple[str, ...]:
    return (
        name,
        f"{seen.cpu_ms:.1f}",
        f"{seen.stats['registers'] / seen.took_s:.0f}",
        f"{seen.stats['p50_s']:.3f}",
        f"{seen.stats['p99_s']:.3f}",
        f"{seen.resident_mib:.0f}",
        f"{seen.written / max(seen.stats['registers'], 1):.0f}",
    )


def dead_row(name: str, seen: Look) -> tuple[str, ...]:
    stats = seen.stats
    lost = 1 - stats["registers"] / ((UNITS - 1) * 10 * seen.took_s)
    times = (f"{stats[key]:.3f}" for key in ("p50_s", "p99_s", "most_s"))
    return (name, *times, f"{100 * max(lost, 0):.1f} %")


def mqtt_edge(rate: int, window_s: float, folder: Path) -> tuple[str, ...]:
    found, count = {"edge": Found()}, int(rate * (window_s + 2))
    with contextlib.ExitStack() as stack:
        broker = stack.enter_context(Broker(folder))
        each = client_on(stack, "edge", broker)
        load = load_on(stack, broker.port, rate, count)
        begin(load)
        time.sleep(1)
        look(found_clients := {"edge": each}, window_s, found)
        settle(load, found_clients["edge"], found["edge"], count)
    into = found["edge"]
    lost, repeated = str(into.lost), str(into.repeated)
    return (
        "sitewarden edge (rules, history)",
        f"{into.cpu_us[0]:.0f}",
        f"{into.per_s[0]:.0f}",
        lost,
        repeated,
        f"{into.resident_mib:.0f}",
    )


def mqtt_peer(name: str, peer: Any, rate: int, window_s: float, folder: Path) -> tuple[str, ...]:
    """From a broker to another; `peer` None is the bridge of mosquitto itself."""
    count = int(rate * (window_s + 2))
    with contextlib.ExitStack() as stack:
        upstream = stack.enter_context(Broker(folder / "upstream"))
        bridge = f"connection b\naddress 127.0.0.1:{upstream.port}\ntopic devices/# out 1\ncleansession false\n"
        source = stack.enter_context(Broker(folder / "source", "" if peer else bridge))
        platform = stack.enter_context(child(*python("peer_platform.py", upstream.port)))
        if peer:
            gateway = started(stack, peer.mqtt(folder / "peer", source.port, upstream.port), folder / "log")
            wait_for(f"subscription of {name}", lambda: source.subscriptions() or not gateway.alive, 30)
        else:
            assert source.child is not None
            gateway = source.child
        time.sleep(2)
        load = load_on(stack, source.port, rate, count)
        begin(load)
        time.sleep(1)
        before, cpu, began_s = platform.ask("took")["messages"], cpu_s(gateway.pid), time.monotonic()
        time.sleep(window_s)
        cpu, took = cpu_s(gateway.pid) - cpu, platform.ask("took")["messages"] - before
        per_s = took / (time.monotonic() - began_s)
        into = Found()
        into.resident_mib = memory_mib(gateway.pid)
        end = settle_platform(load, platform, count)
        lost, repeated = count - end["distinct"], end["messages"] - end["distinct"]
        cpu_text = f"{1e6 * cpu / took:.0f}" if took else "-"
        return name, cpu_text, f"{per_s:.0f}", str(lost), str(repeated), f"{into.resident_mib:.0f}"


def settle_platform(load: Child, platform: Child, count: int) -> dict[str, int]:
    """Wait until all has come or nothing has for 3 s; a peer that is seconds behind is given 20 s in all."""
    newest, newest_s, until_s = -1, time.monotonic(), time.monotonic() + 20
    while True:
        took = platform.ask("took")
        if took["messages"] != newest:
            newest, newest_s = took["messages"], time.monotonic()
        idle_s = time.monotonic() - newest_s
        if (
            took["distinct"] >= count
            or time.monotonic() > until_s
            or (load.ask("sent")["acknowledged"] >= count and idle_s > 3)
        ):
            return took
        time.sleep(0.2)


def main() -> None:
    """Print one table per workload."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--install", action="store_true")
    parser.add_argument("--cache", type=Path, default=CACHE)
    options = parser.parse_args()
    goals, peers = Goals(), [kind(options.cache) for kind in PEERS]
    for peer in peers:
        if options.install and not peer.installed():
            peer.install()
    here = [peer for peer in peers if peer.installed()]
    absent = [peer for peer in peers if not peer.installed()]
    with tempfile.TemporaryDirectory() as name:
        _tables(here, Path(name), goals)
    for peer in absent:
        print(f"  {peer.name}: not installed; {peer.hint}, or run this with --install")
    goals.print()


def _tables(here: list[Any], folder: Path, goals: Goals) -> None:
    starts: dict[str, list[float]] = {peer.name: [] for peer in here}
    for number, (title, period_s, window_s) in enumerate(WORKS):
        order = here if number % 2 == 0 else here[::-1]
        found = side_by_side(order, (20, 1, 0), period_s, window_s, folder / f"w{number}")
        for name, seen in found.items():
            starts[name].append(seen.first_s)
        rows = [paced_row(peer.name, found[peer.name]) for peer in here]
        head = ("", "CPU ms/1000", "readings/s", "p50 s", "p99 s", "RSS MiB", "B written/reading")
        columns(f"Peers, Modbus TCP, side by side: {title}", head, [*rows, *(EARLIER if period_s == 1 else ())])
        beat(goals, title, {name: seen.cpu_ms for name, seen in found.items()})
        beat(goals, f"{title}, resident memory", {name: seen.resident_mib for name, seen in found.items()})
    found = side_by_side(here, (1, UNITS, DEAD), 1.0, DEAD_S, folder / "dead")
    for name, seen in found.items():
        starts[name].append(seen.first_s)
    title = f"Peers: {UNITS} units on one connection every 1 s, unit {DEAD} silent; the other {UNITS - 1}"
    rows = [dead_row(peer.name, found[peer.name]) for peer in here]
    columns(title, ("", "p50 s", "p99 s", "longest s", "readings lost"), rows)
    beat(goals, "silent unit on a shared bus, longest interval", {n: seen.stats["most_s"] for n, seen in found.items()})
    rows = [(name, *(f"{value:.2f}" for value in values)) for name, values in starts.items()]
    columns("Peers: exec to the first Modbus request, s, while others run", ("", "1st", "2nd", "3rd"), rows)
    beat(goals, "start, best of three", {name: min(values) for name, values in starts.items()})
    for rate in (500, 5000):
        rows = [mqtt_edge(rate, MQTT_S, folder / f"m{rate}")]
        for peer in here:
            if isinstance(peer, ThingsBoard | NodeRed):
                rows.append(mqtt_peer(peer.name, peer, rate, MQTT_S, folder / f"m{rate}" / type(peer).__name__))
        rows.append(mqtt_peer("mosquitto bridge (native)", None, rate, MQTT_S, folder / f"m{rate}" / "bridge"))
        head = ("", "CPU us/message", "messages/s", "lost or late", "repeated", "RSS MiB")
        columns(f"Peers, MQTT QoS 1: {rate} messages/s offered", head, rows)
        beat(goals, f"MQTT {rate}/s", {row[0]: float(row[1]) for row in rows if row[1] != "-"})


def beat(goals: Goals, title: str, found: dict[str, float]) -> None:
    """A goal line: ours against the best Python or Node peer."""
    ours = next(value for name, value in found.items() if name.startswith("sitewarden"))
    theirs = {
        name: value for name, value in found.items() if not name.startswith("sitewarden") and "native" not in name
    }
    if theirs:
        best = min(theirs, key=lambda name: theirs[name])
        goals.most(f"{title}: x {best}", ours / theirs[best], 1)


if __name__ == "__main__":
    main()
