"""The clients that `bench_modbus.py` compares, each a process of its own: `bare`, `points`, `sensors`, `edge`.

    modbus_clients.py CLIENT --units 1 --registers 10 --period 1 PORT PORT …

All read the holding registers of every unit behind every port, `--period` seconds apart (0: at once again). A port is
one connection, on which one request is under way at a time. Each line `good` on standard input is answered by `good N`:
the good readings that arrived so far (the server counts what it answered; the two must agree).
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from decimal import Decimal
from pathlib import Path
from typing import Any
from unittest import mock

from sites import modbus_site
from told import listen

FLAT_OUT_S = 0.001  # our engine takes a period, not a loop: so short that a poll is always due


_good = 0


def _took(readings: list[Any]) -> None:
    """Count one poll; a poll that failed has `why` in its last reading."""
    global _good  # noqa: PLW0603
    if not readings[-1].why:
        _good += len(readings)


async def _bare(port: int, options: argparse.Namespace) -> None:
    """pymodbus alone: read every unit, keep the registers, sleep until the next period."""
    from pymodbus.client import AsyncModbusTcpClient

    global _good  # noqa: PLW0603
    client = AsyncModbusTcpClient("127.0.0.1", port=port, timeout=1, retries=0)
    await client.connect()
    step = 1 if options.client == "points" else options.registers
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    while True:
        for unit in range(1, options.units + 1):
            for address in range(0, options.registers, step):
                reply = await client.read_holding_registers(address, count=step, device_id=unit)
                assert len(reply.registers) == step
                _good += step
        if options.period:
            due_s += options.period
            await asyncio.sleep(max(0, due_s - loop.time()))


async def _sensors(port: int, options: argparse.Namespace) -> None:
    """Our acquisition layer up to the Reading."""
    from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, UnitSpec
    from sitewarden.sensors.modbus import run_bus
    from sitewarden.sensors.registers import Register, Table, ValueType

    registers = tuple(
        Register(name=f"r{i}", table=Table.HOLDING, address=i, type=ValueType.U16, scale=Decimal("0.1"))
        for i in range(options.registers)
    )
    units = tuple(
        UnitSpec(device=f"area.d{port}_{unit}", unit_id=unit, registers=registers, poll_s=options.period or FLAT_OUT_S)
        for unit in range(1, options.units + 1)
    )
    spec = BusSpec(id=f"b{port}", kind=BusKind.TCP, host="127.0.0.1", port=port, units=units)
    await run_bus(spec, _took, BusHealth.of(spec))


async def _edge(options: argparse.Namespace, folder: Path) -> None:
    """The whole daemon: rules with two limits on every point, history, journal, pages; no broker, no cloud."""
    from sitewarden.edge.app import run_edge
    from sitewarden.edge.pipeline import Pipeline

    site = modbus_site(folder, options.ports, options.units, options.registers, options.period)
    accept = Pipeline.accept

    def counted(self: Pipeline, readings: list[Any]) -> None:
        accept(self, readings)
        _took(readings)

    with mock.patch.object(Pipeline, "accept", counted):
        await run_edge(site, folder / "data", say=lambda _: None)


async def main() -> None:
    """Run one client until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("client", choices=["bare", "points", "sensors", "edge"])
    parser.add_argument("--units", type=int, default=1)
    parser.add_argument("--registers", type=int, default=10)
    parser.add_argument("--period", type=float, default=1.0)
    parser.add_argument("--folder", type=Path, help="of the edge's site and stores; by default a temporary one")
    parser.add_argument("ports", type=int, nargs="+")
    options = parser.parse_args()
    listen(lambda _: print("good", _good, flush=True))
    async with asyncio.TaskGroup() as group:
        if options.client == "edge":
            with tempfile.TemporaryDirectory() as folder:
                await _edge(options, options.folder or Path(folder))
        for port in options.ports:
            work = _sensors if options.client == "sensors" else _bare
            group.create_task(work(port, options), name=f"{options.client} {port}")


if __name__ == "__main__":
    asyncio.run(main())
