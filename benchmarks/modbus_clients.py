"""The clients that `bench_modbus.py` compares, each a process of its own: `bare`, `points`, `sensors`, `edge`.

All read 10 holding registers of every port, `--period` seconds apart, and print `count N` twice a second.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from decimal import Decimal
from pathlib import Path
from unittest import mock

REGISTERS = 10
_count = 0


def _more(number: int) -> None:
    global _count  # noqa: PLW0603
    _count += number


async def _report() -> None:
    while True:
        print("count", _count, flush=True)
        await asyncio.sleep(0.5)


async def _bare(port: int, period_s: float, *, one_by_one: bool) -> None:
    """pymodbus alone: read, keep the registers, sleep until the next period."""
    from pymodbus.client import AsyncModbusTcpClient

    client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=1, retries=0)
    await client.connect()
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        if one_by_one:
            for address in range(REGISTERS):
                await client.read_holding_registers(address, count=1, device_id=1)
        else:
            await client.read_holding_registers(0, count=REGISTERS, device_id=1)
        _more(REGISTERS)
        due += period_s
        await asyncio.sleep(max(0, due - loop.time()))


async def _sensors(port: int, period_s: float) -> None:
    """Our acquisition layer up to the Reading."""
    from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, UnitSpec
    from sitewarden.sensors.modbus import run_bus
    from sitewarden.sensors.registers import Register, Table, ValueType

    registers = tuple(
        Register(name=f"r{i}", table=Table.HOLDING, address=i, type=ValueType.U16, scale=Decimal("0.1"))
        for i in range(REGISTERS)
    )
    unit = UnitSpec(device=f"area.d{port}", unit_id=1, registers=registers, poll_s=period_s)
    spec = BusSpec(id=f"b{port}", kind=BusKind.TCP, host="127.0.0.1", port=port, units=(unit,))
    await run_bus(spec, lambda readings: _more(len(readings)), BusHealth.of(spec))


async def _edge(ports: list[int], period_s: float, folder: Path) -> None:
    """The whole daemon: rules with two limits on every point, history, journal, pages; no broker, no cloud."""
    from sitewarden.edge.app import run_edge
    from sitewarden.edge.pipeline import Pipeline
    from sitewarden.sensors.profiles import load_catalogue

    (folder / "catalogue").mkdir()
    (folder / "catalogue" / "bench.toml").write_text(_profile())
    (folder / "people.csv").write_text(
        "id,name,name_en,roles,areas,phone\nk,K,K,keeper,*,\no,O,O,officer,*,\n", "utf-8"
    )
    (folder / "site.toml").write_text(_site(ports, period_s), "utf-8")
    accept = Pipeline.accept

    def counted(self: Pipeline, readings: list) -> None:
        _more(len(readings))
        accept(self, readings)

    Pipeline.accept = counted
    with mock.patch("sitewarden.edge.config.load_catalogue", return_value=load_catalogue(folder / "catalogue")):
        await run_edge(folder / "site.toml", folder / "data", say=lambda _: None)


def _profile() -> str:
    head = 'id = "bench"\nname = "bench"\nname_en = "bench"\nsource = "benchmarks"\n'
    one = '\n[[registers]]\nname = "r{0}"\nname_zh = "r{0}"\nname_en = "r{0}"\nunit = "x"\nquantity = "other"\n'
    return head + "".join(
        one.format(i) + f'decimals = 1\naddress = {i}\ntype = "u16"\nscale = 0.1\n' for i in range(REGISTERS)
    )


def _site(ports: list[int], period_s: float) -> str:
    from meter import free_port

    text = f'[site]\nid = "bench"\nname = "b"\nname_en = "b"\n[gateway]\nid = "gw1"\n[web]\nport = {free_port()}\n'
    text += '[[area]]\nid = "area"\nname = "a"\nname_en = "a"\n'
    for i, port in enumerate(ports):
        text += f'[[bus]]\nid = "b{i}"\nkind = "tcp"\nhost = "127.0.0.1"\nport = {port}\n'
        text += f'[[device]]\nid = "d{i}"\narea = "area"\nbus = "b{i}"\nunit_id = 1\nprofile = "bench"\n'
        text += f"poll_s = {period_s:.3f}\n"
        for r in range(REGISTERS):
            text += f'[[alarm]]\npoint = "area.d{i}.r{r}"\nhi = 200.0\nhihi = 300.0\n'
    return text


async def main() -> None:
    """Run one client until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=["bare", "points", "sensors", "edge"])
    parser.add_argument("--period", type=float, required=True)
    parser.add_argument("ports", type=int, nargs="+")
    options = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    async with asyncio.TaskGroup() as group:
        group.create_task(_report(), name="report")
        if options.client == "edge":
            with tempfile.TemporaryDirectory() as folder:
                await _edge(options.ports, options.period, Path(folder))
        for port in options.ports:
            match options.client:
                case "sensors":
                    group.create_task(_sensors(port, options.period), name=f"sensors {port}")
                case _:
                    one_by_one = options.client == "points"
                    group.create_task(_bare(port, options.period, one_by_one=one_by_one), name=f"bare {port}")


if __name__ == "__main__":
    asyncio.run(main())
