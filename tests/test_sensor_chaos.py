"""The daemon among broken wires: a dead address, a hanging one, a bus that comes later, a serial adapter pulled out.

A real `sitewarden edge` process; the peers live in this one. Nothing is restarted but the peers.
"""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from sitewarden.serving.secrets import Secrets
from sitewarden.tests.peers.faulty import PtyWire, TcpWire, Wire

PIN = "246813"
Eventually = Callable[..., Awaitable[Any]]
SITE = """
[site]
id = "plant"
name = "厂"
name_en = "Plant"
[gateway]
id = "gw1"
[web]
port = {port}
[[area]]
id = "hall"
name = "车间"
name_en = "Hall"
"""
BUS = """
[[bus]]
id = "{id}"
kind = "{kind}"
{place}
timeout_ms = {timeout_ms}
"""
DEVICE = """
[[device]]
id = "{bus}{unit}"
area = "hall"
bus = "{bus}"
unit_id = {unit}
profile = "xy_md02"
poll_s = {poll_s}
"""
CALM = {"timeout_ms": 1500, "poll_s": 2.0}  # so slow that a busy machine is not late
QUICK = {"timeout_ms": 400, "poll_s": 0.5}


@dataclass
class Plant:
    """The gateway, its peers, and what it says of them."""

    folder: Path
    api: str
    process: subprocess.Popen[bytes]
    http: aiohttp.ClientSession
    wires: dict[str, Wire]
    losses: list[Any] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)

    async def buses(self) -> dict[str, Any]:
        """Each bus of the status; none while the gateway starts. Counters are looked at each time."""
        assert self.process.poll() is None, self.log()
        try:
            async with self.http.get(f"{self.api}/status") as answer:
                if answer.status == 401:
                    await self.sign_in()
                    return {}
                buses = {bus["id"]: bus for bus in (await answer.json())["buses"]}
        except aiohttp.ClientError:
            return {}
        for unit in (unit for bus in buses.values() for unit in bus["units"]):
            assert unit["polls"] - unit["good"] - unit["bad"] - unit["skipped"] in (0, 1), unit
        self.losses += [u for u in buses["calm"]["units"] if u["bad"] or u["skipped"]]
        self.last = buses
        return buses

    async def sign_in(self) -> None:
        async with self.http.post(f"{self.api}/session", json={"person": "p_li", "pin": PIN}) as answer:
            assert answer.status == 200, await answer.text()

    async def is_so(self, wanted: dict[str, tuple[str, str]]) -> bool:
        """Whether each bus has one of these states, and each of its units one of those; `|` between."""
        buses = await self.buses()
        return bool(buses) and all(
            buses[name]["state"] in bus.split("|")
            and {u["state"] for u in buses[name]["units"]} <= set(unit.split("|"))
            for name, (bus, unit) in wanted.items()
        )

    async def blames(self, words: dict[str, str]) -> bool:
        """Whether the error of each bus says this."""
        buses = await self.buses()
        return bool(buses) and all(word in buses[name]["error"] for name, word in words.items())

    async def went_on(self, good: dict[str, list[int]]) -> bool:
        """Whether each unit has had more good polls than `good`."""
        buses = await self.buses()
        return bool(buses) and all(
            u["good"] > old for name, olds in good.items() for u, old in zip(buses[name]["units"], olds, strict=True)
        )

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")[-3000:]


def site_toml(port: int, wires: dict[str, Wire]) -> str:
    text = SITE.format(port=port)
    for name, wire in wires.items():
        speed = CALM if name in {"calm", "serial"} else QUICK
        place = f'host = "127.0.0.1"\nport = {wire.port}' if isinstance(wire, TcpWire) else ""
        place = f'serial = "{wire.link}"' if isinstance(wire, PtyWire) else place
        kind = "rtu" if isinstance(wire, PtyWire) else "rtu_tcp" if wire.rtu else "tcp"
        text += BUS.format(id=name, kind=kind, place=place, timeout_ms=speed["timeout_ms"])
        text += "late_max_ms = 1500\n" if wire.rtu else ""
        text += "".join(DEVICE.format(bus=name, unit=unit, poll_s=speed["poll_s"]) for unit in wire.units)
    return text


@asynccontextmanager
async def running(folder: Path, port: int) -> AsyncIterator[Plant]:
    """The gateway, with only the calm bus and the serial one alive."""
    dice = random.Random(1)
    by_id = folder / "by-id"
    by_id.mkdir()
    wires: dict[str, Wire] = {
        name: TcpWire(0, rtu=name == "converter", units=2, dice=dice)
        for name in ("calm", "deaf", "hanging", "later", "converter")
    }
    wires["serial"] = PtyWire(0, by_id / "usb-FTDI_485", units=2, dice=dice)
    (folder / "site.toml").write_text(site_toml(port, wires), "utf-8")
    (folder / "people.csv").write_text(
        "id,name,name_en,roles,areas,phone\np_li,李伟,Li Wei,keeper,*,\np_wang,王芳,,officer,*,\n", "utf-8"
    )
    (folder / "data").mkdir()
    secrets = Secrets(folder / "data" / "secrets.db")
    secrets.set_pin("p_li", PIN)
    secrets.close()
    command = [sys.executable, "-m", "sitewarden", "edge", "--config", str(folder / "site.toml")]
    async with AsyncExitStack() as stack:
        for wire in wires.values():
            stack.callback(wire.close)
            stack.push_async_callback(wire.down)
        await wires["calm"].up()
        await wires["serial"].up()
        await tcp(wires["deaf"]).deaf()
        await tcp(wires["hanging"]).hang()
        log = stack.enter_context((folder / "log").open("wb"))
        process = subprocess.Popen([*command, "--data", str(folder / "data")], stdout=log, stderr=log)
        stack.callback(process.wait, 30)
        stack.callback(process.kill)
        jar = aiohttp.CookieJar(unsafe=True)  # cookies of an address without a name
        http = await stack.enter_async_context(aiohttp.ClientSession(cookie_jar=jar))
        yield Plant(folder, f"http://127.0.0.1:{port}/api/v1", process, http, wires)


def tcp(wire: Wire) -> TcpWire:
    assert isinstance(wire, TcpWire)
    return wire


async def test_broken_wires_heal_without_a_restart_and_the_others_never_lose_a_poll(
    tmp_path: Path, free_port: Callable[[], int], eventually: Eventually
) -> None:
    async with running(tmp_path, free_port()) as plant:
        serial = plant.wires["serial"]

        async def become(what: str, **wanted: tuple[str, str]) -> None:
            await eventually(lambda: plant.is_so(wanted), lambda: f"{what}: {plant.last}\n{plant.log()}")

        well, gone = ("up", "ok"), ("down", "fault|breaker")
        await become(
            "the living poll and the dead are called so",
            calm=well,
            serial=well,
            deaf=("up|down", "fault|breaker"),
            hanging=gone,
            later=gone,
            converter=gone,
        )
        places = {name: str(tcp(plant.wires[name]).port) for name in ("hanging", "later", "converter")}
        await eventually(
            lambda: plant.blames({"deaf": "no reply within 400 ms", **places}), lambda: f"each is named: {plant.last}"
        )
        await eventually(lambda: plant.went_on({"calm": [3, 3]}), lambda: f"the calm bus goes on: {plant.last}")
        serial_units = plant.last["serial"]["units"]
        assert [u["bad"] + u["skipped"] for u in serial_units] == [0, 0], serial_units

        await serial.down()
        await become("the serial line is gone", serial=gone, calm=well)
        assert "usb-FTDI_485" in plant.last["serial"]["error"]

        for wire in plant.wires.values():
            if wire is not plant.wires["calm"]:
                await wire.up()
        await become("all is well", **dict.fromkeys(plant.wires, well))
        good = {name: [u["good"] for u in bus["units"]] for name, bus in plant.last.items()}
        await eventually(lambda: plant.went_on(good), "every unit goes on")
        assert plant.losses == []
        plant.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(plant.process.wait, 30) == 0, plant.log()
        assert "Traceback" not in plant.log()
