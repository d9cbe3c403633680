"""A gateway, headquarters and the link between them, for bench_link.py: daemons as shipped, a link that can be broken.

Where the kernel allows it the link is real: gateway and headquarters in network namespaces of their own, a bridge that
stands for the modem between them, and tbf at both its ends (a queue of one second, as modems have). Plain http goes to
loopback addresses alone, so the link's addresses are some of those. Elsewhere `tests/peers/narrow_link.py` relays.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from meter import Child, child, free_port, listens, python, wait_for
from sites import empty_site, profile
from sitewarden.sync.keys import load_or_create_key, public_key_text

UNITS, REGISTERS = 20, 10
"""Read once a second: 200 readings/s."""
OVER, UNDER = 25_000, 100
"""What a register says when its point is over its limit, and when it is not."""
_INSIDE = "SITEWARDEN_BENCH_NETNS"
_NEAR, _FAR = "127.1.0.1", "127.1.0.2"
_BURST = 3_000
_QUEUE_MS = 1_000
_LOOPBACK = """
ip link set lo up
ip route del local 127.0.0.0/8 dev lo table local 2>/dev/null || true
echo 1 > /proc/sys/net/ipv4/conf/all/route_localnet
for one in cubic reno; do echo $one 2>/dev/null > /proc/sys/net/ipv4/tcp_congestion_control && break; done || true
"""
"""Only 127.0.0.1 is the machine itself; other loopback addresses may lie behind a device. TCP fills the modem's queue,
as that of most gateways does, where the kernel lets us choose."""


class Link(Protocol):
    """What lies between gateway and headquarters.

    Attributes:
        says: what it is made of.
        watches: arguments of link_watch.py: how it sees the tries.
    """

    says: str
    watches: Sequence[object]

    def reach(self, port: int) -> str:
        """The address at which the gateway finds what listens there on `port`."""
        ...

    def there(self, *command: str) -> tuple[str, ...]:
        """`command`, run on headquarters' side."""
        ...

    @property
    def far(self) -> str:
        """The address that headquarters listens on."""
        ...

    def cut(self, *, here: bool = False) -> None:
        """Nothing passes; with `here` the cable is pulled out of the gateway itself."""
        ...

    def mend(self) -> float:
        """As it was; when that was, monotonic seconds."""
        ...


def enter(*, proxy: bool) -> bool:
    """Run this program again in a network namespace of its own; whether it is in one now."""
    if os.environ.get(_INSIDE):
        return os.environ[_INSIDE] == "yes"
    os.environ[_INSIDE] = "no"
    unshare = ("unshare", "-n") if os.getuid() == 0 else ("unshare", "-rn")
    try:
        test = "ip link add v0 type veth peer name v1 && ip link add br0 type bridge && tc qdisc add dev v0 root tbf "
        test += f"rate 256kbit burst {_BURST} latency 1s && nsenter -t $$ -n true"
        allowed = not proxy and _run(*unshare, "sh", "-c", test).returncode == 0
    except FileNotFoundError:
        allowed = False
    if allowed:
        os.environ[_INSIDE] = "yes"
        os.execvp(unshare[0], [*unshare, sys.executable, *sys.argv])
    return False


class Namespaces:
    """The gateway's is that of this process; `enter` made it. See `Link`."""

    says = "network namespaces, bridge, tbf"

    def __init__(self, modem: int, hq: int, kbit_s: int | None) -> None:
        self._modem = modem
        self._hq = ("nsenter", "-t", str(hq), "-n")
        self._here = False
        self.watches: Sequence[object] = ("v0",)
        self.far = _FAR
        for pid in ("", str(hq)):
            _sh(_LOOPBACK, pid=pid)
        _sh(f"ip link add v0 type veth peer name m0 netns {modem}")
        _sh(f"ip link add m1 type veth peer name v1 netns {hq}; ip link add br0 type bridge", pid=str(modem))
        _sh("for p in m0 m1; do ip link set $p master br0; ip link set $p up; done; ip link set br0 up", pid=str(modem))
        _sh(f"ip addr add {_FAR}/30 dev v1; ip link set v1 up", pid=str(hq))
        _sh(f"ip addr add {_NEAR}/30 dev v0; ip link set v0 up")
        congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
        self.says += f", {congestion}"
        if kbit_s is not None:
            shaped = f"root tbf rate {kbit_s}kbit burst {_BURST} latency {_QUEUE_MS}ms"
            _sh(f"for p in m0 m1; do tc qdisc add dev $p {shaped}; done", pid=str(modem))
        self._know()

    def reach(self, port: int) -> str:
        return f"http://{_FAR}:{port}"

    def there(self, *command: str) -> tuple[str, ...]:
        return (*self._hq, "--", *command)

    def cut(self, *, here: bool = False) -> None:
        self._here = here
        if here:
            _sh("ip link set v0 down")
        else:
            _sh("ip link set m1 nomaster", pid=str(self._modem))

    def mend(self) -> float:
        if self._here:
            _sh("ip link set v0 up")
        else:
            _sh("ip link set m1 master br0", pid=str(self._modem))
        mended_s = time.monotonic()
        if self._here:
            self._know()
        return mended_s

    def _know(self) -> None:
        """The neighbour's address: behind a modem that is dead the router of the site still answers."""
        said = _run(*self._hq, "ip", "-br", "link", "show", "v1").stdout
        (address,) = re.findall(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", said)
        _sh(f"ip neigh replace {_FAR} lladdr {address} dev v0 nud permanent")


class Relay:
    """A relay process on this machine's loopback. See `Link`."""

    far = "127.0.0.1"

    def __init__(self, process: Child, port: int, kbit_s: int | None, target: int) -> None:
        self._process, self._port, self._target = process, port, target
        self.says = "relay of tests/peers/narrow_link.py" + ("" if kbit_s is None else f", {kbit_s} kbit/s")
        self.watches: Sequence[object] = ()

    def reach(self, port: int) -> str:
        assert port == self._target, "the relay leads to one port"
        return f"http://127.0.0.1:{self._port}"

    def there(self, *command: str) -> tuple[str, ...]:
        return command

    def cut(self, *, here: bool = False) -> None:
        self._process.ask("cut")  # a relay has no cable

    def mend(self) -> float:
        return self._process.ask("mend")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True)


def _sh(script: str, pid: str = "") -> None:
    """Run as a shell of the namespace of process `pid`, or of our own."""
    inside = ("nsenter", "-t", pid, "-n") if pid else ()
    ran = _run(*inside, "sh", "-ec", script)
    if ran.returncode:
        raise SystemExit(f"{script}: {ran.stderr}")


@contextlib.contextmanager
def linked(kbit_s: int | None, port: int, *, namespaces: bool) -> Iterator[Link]:
    """A link of `kbit_s` each way, None: as fast as the machine is; it leads to headquarters on `port`."""
    with contextlib.ExitStack() as stack:
        if not namespaces:
            rate = kbit_s * 125 if kbit_s is not None else 10**9
            process = stack.enter_context(child(*python("link_relay.py", port, rate)))
            yield Relay(process, int(process.line("ready")), kbit_s, port)
            return
        holders = [stack.enter_context(child("unshare", "-n", "sleep", "infinity")) for _ in range(2)]
        ours = Path("/proc/self/ns/net").readlink()
        for one in holders:
            wait_for("network namespace", lambda one=one: Path(f"/proc/{one.pid}/ns/net").readlink() != ours)
        try:
            yield Namespaces(holders[0].pid, holders[1].pid, kbit_s)
        finally:
            with contextlib.suppress(SystemExit):
                _sh("ip link del v0")  # the kernel takes its time with a namespace


def link_site(folder: Path, plant: int, url: str) -> Path:
    """`UNITS` units on the plant's port, one limit without delays on each register."""
    (folder / "profiles").mkdir(parents=True, exist_ok=True)
    (folder / "profiles" / "bench.toml").write_text(profile(REGISTERS), "utf-8")
    text = f'[cloud]\nurl = "{url}"\n[profiles]\nfolder = "profiles"\n'
    text += f'[[bus]]\nid = "b"\nkind = "tcp"\nhost = "127.0.0.1"\nport = {plant}\n'
    for unit in range(1, UNITS + 1):
        text += f'[[device]]\nid = "d{unit}"\narea = "area"\nbus = "b"\nunit_id = {unit}\n'
        text += 'profile = "bench"\npoll_s = 1.0\n'
        for r in range(REGISTERS):
            text += f'[[alarm]]\npoint = "area.d{unit}.r{r}"\nhi = 2000.0\non_delay_s = 0\noff_delay_s = 0\n'
    return empty_site(folder, text)


class Rig:
    """Both daemons and the plant. Made by `rig`."""

    def __init__(self, folder: Path, link: Link, port: int, plant: Child, plant_port: int) -> None:
        self.folder, self.link, self.plant = folder, link, plant
        self.data, self.hq = folder / "edge" / "data", folder / "hq"
        self.url = link.reach(port)
        self.site = link_site(folder / "edge", plant_port, self.url)
        self._port = port
        self.edge: Child | None = None

    def hold(self, unit: int, register: int, word: int) -> None:
        """From its next poll on the register of the plant says this."""
        self.plant.ask(f"hold {unit} {register} {word}")

    @contextlib.contextmanager
    def headquarters(self) -> Iterator[Child]:
        """`sitewarden cloud`, which knows the gateway's key."""
        self.hq.mkdir()
        self.data.mkdir(parents=True, exist_ok=True)
        key = public_key_text(load_or_create_key(self.data / "gateway.key"))
        text = f'[cloud]\nname = "x"\nname_en = "x"\nhost = "{self.link.far}"\nport = {self._port}\n'
        text += f'public_url = "{self.url}"\n[[gateway]]\nid = "gw1"\nname = "x"\nname_en = "x"\npublic_key = "{key}"\n'
        (self.hq / "cloud.toml").write_text(text, "utf-8")
        (self.hq / "people.csv").write_text("id,name,name_en,roles,areas,phone\n", "utf-8")
        command = (sys.executable, "-m", "sitewarden", "cloud", "--config", str(self.hq / "cloud.toml"))
        log = self.hq / "log"
        with child(*self.link.there(*command, "--data", str(self.hq)), log=log) as process:
            wait_for("headquarters", lambda: b"http" in log.read_bytes() or not process.alive, 60)
            if not process.alive:
                raise SystemExit(log.read_text())
            yield process

    @contextlib.contextmanager
    def gateway(self) -> Iterator[Child]:
        """`sitewarden edge`; it is stopped in order."""
        command = (sys.executable, "-m", "sitewarden", "edge", "--config", str(self.site), "--data", str(self.data))
        log = self.folder / "edge" / "log"
        web = int(re.findall(r"port = (\d+)", self.site.read_text("utf-8").partition("[web]")[2])[0])
        with child(*command, log=log) as self.edge:
            wait_for("gateway", lambda: listens(web) or not self.alive, 120)
            if not self.alive:
                raise SystemExit(log.read_text())
            yield self.edge
            self.edge.stop()
        self.edge = None

    @property
    def alive(self) -> bool:
        return self.edge is not None and self.edge.alive


@contextlib.contextmanager
def rig(folder: Path, kbit_s: int | None, *, namespaces: bool) -> Iterator[Rig]:
    """A fresh one in `folder`; nothing of it runs yet but the plant."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    port = free_port()
    with linked(kbit_s, port, namespaces=namespaces) as link, child(*python("modbus_server.py", 1, UNITS)) as plant:
        yield Rig(folder, link, port, plant, int(plant.line("ready")))
