"""pymodbus' own simulated devices, as a process: `pymodbus_server.py KIND PLACE IMAGE`.

KIND is tcp, rtu_tcp (PLACE: a port) or rtu (PLACE: a device). IMAGE is described in `libmodbus_server.py`. Prints
`ready` when it listens, ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

from pymodbus import FramerType
from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusSerialServer, ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

COIL_WRITES = (5, 15)
REGISTER_READS = (3, 4)


async def act(
    image: dict[str, Any],
    function: int,
    start: int,
    address: int,
    count: int,
    registers: list[int],
    values: list[int] | list[bool] | None,
) -> ExcCodes | None:
    """`SimDevice.action`: refuse some reads, do not take some writes."""
    if values is None:
        refused = function in REGISTER_READS and address <= image["refuse"] < address + count
        return ExcCodes.ILLEGAL_VALUE if refused else None
    table = "coil" if function in COIL_WRITES else "holding"
    if (stuck := image["stuck"].get(table, -1)) in range(address, address + len(values)):
        at = stuck - address
        held = registers[stuck // 16 - start] >> stuck % 16 & 1 if table == "coil" else registers[stuck - start]
        values[at] = bool(held) if table == "coil" else held
    return None


def device(unit_id: int, unit: dict[str, Any], image: dict[str, Any]) -> SimDevice:
    def bits(table: str) -> list[SimData]:
        values = [bool(v) for v in unit[table]["values"]]
        return [SimData(unit[table]["start"], values=values, datatype=DataType.BITS)]

    def words(table: str) -> list[SimData]:
        return [SimData(unit[table]["start"], values=unit[table]["values"], datatype=DataType.REGISTERS)]

    blocks = (bits("coil"), bits("discrete"), words("holding"), words("input"))
    return SimDevice(id=unit_id, simdata=blocks, action=partial(act, image))


async def main() -> None:
    kind, place, image_file = sys.argv[1:]
    image = json.loads(Path(image_file).read_text())
    devices = [device(int(unit_id), unit, image) for unit_id, unit in image["units"].items()]
    if kind == "rtu":
        server = ModbusSerialServer(devices, port=place, baudrate=image["baud"], parity=image["parity"])
    else:
        framer = FramerType.RTU if kind == "rtu_tcp" else FramerType.SOCKET
        server = ModbusTcpServer(devices, framer=framer, address=("127.0.0.1", int(place)))
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
