"""Start, rest and size of the edge: the real command, from exec to the first Modbus request; idle CPU; memory.

The first poll is measured from just before the process is made until the server sees the first request. A first start
makes the stores and the key of the gateway; the later ones open them, as after every power cut.
"""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from meter import Child, Goals, child, columns, cpu_s, median, memory_mib, python, wait_for
from sites import empty_site

STARTS = 5
IDLE_S = 30.0


def a_device(port: int) -> str:
    """One unit of the catalogue; every register reads something."""
    bus = f'[[bus]]\nid = "b"\nkind = "tcp"\nhost = "127.0.0.1"\nport = {port}\n'
    return bus + '[[device]]\nid = "d"\narea = "area"\nbus = "b"\nunit_id = 1\nprofile = "rs_ws_n01"\npoll_s = 1.0\n'


def command(site: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "sitewarden", "edge", "--config", str(site), "--data", str(site.parent / "data"))


def first_poll(folder: Path) -> tuple[float, float]:
    """Seconds from exec to the first request, CPU seconds until then."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(child(*python("modbus_server.py", 1, 255)))
        site = empty_site(folder, a_device(int(server.line("ready"))))
        began_s = time.monotonic()
        edge = stack.enter_context(child(*command(site), log=folder / "log"))
        wait_for("first request", lambda: server.ask("stats")["first_s"] or not edge.alive)
        cpu, first_s = cpu_s(edge.pid), server.ask("stats")["first_s"]
        if first_s is None:
            raise SystemExit((folder / "log").read_text())
        edge.stop()
        return first_s - began_s, cpu


def run_cpu_s(*arguments: str) -> float:
    """CPU seconds that this Python takes for something."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run((sys.executable, *arguments), check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def starts(goals: Goals) -> None:
    """First and later starts, and what importing is of them."""
    fresh, again, cpus, imports, bare = [], [], [], [], []
    for _ in range(STARTS):
        with tempfile.TemporaryDirectory() as folder:
            fresh.append(first_poll(Path(folder))[0])
            seconds, cpu = first_poll(Path(folder))
            again.append(seconds)
            cpus.append(cpu)
        bare.append(run_cpu_s("-c", "pass"))
        imports.append(run_cpu_s("-c", "import sitewarden.cli, sitewarden.edge.app"))
    rows = [
        (name, f"{median(values):.3f}", f"{min(values):.3f}", f"{max(values):.3f}")
        for name, values in (
            ("exec to the first Modbus request, stores there", again),
            ("the same, first start of all", fresh),
            ("CPU of python -c pass", bare),
            ("CPU of importing cli and edge.app, Python included", imports),
            ("CPU until the first request was seen (stores there)", cpus),
        )
    ]
    columns(f"Start, s ({STARTS} of each)", ("", "median", "(from", "to)"), rows)
    goals.most("exec to the first Modbus request, stores there", median(again), 0.6, " s")
    goals.most("exec to the first Modbus request, first start", median(fresh), 0.6, " s")


def idle(goals: Goals) -> None:
    """A site without devices."""
    with tempfile.TemporaryDirectory() as folder:
        site = empty_site(Path(folder))
        with contextlib.closing(_Running(Child(*command(site)))) as running:
            running.edge.line("sitewarden edge")
            time.sleep(3)
            cpu, began_s = cpu_s(running.edge.pid), time.monotonic()
            time.sleep(IDLE_S)
            share = 100 * (cpu_s(running.edge.pid) - cpu) / (time.monotonic() - began_s)
            goals.most(f"idle, empty site, {IDLE_S:g} s: CPU", share, 0.5, " % of a core")
            goals.most("idle, empty site: resident", memory_mib(running.edge.pid), 90, " MiB")


class _Running:
    def __init__(self, edge: Child) -> None:
        self.edge = edge

    def close(self) -> None:
        self.edge.stop()


def main() -> None:
    """Print the starts, then the goals."""
    goals = Goals()
    starts(goals)
    idle(goals)
    goals.print()


if __name__ == "__main__":
    main()
