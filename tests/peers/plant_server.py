"""The simulated plant's wires with given registers, as a process: `plant_server.py KIND PLACE IMAGE`.

KIND is tcp (PLACE: a port) or rtu (PLACE: where the line shall appear). IMAGE is described in `libmodbus_server.py`;
the plant knows neither bits nor writes. Prints `ready` when it listens, ends when its standard input does.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from sitewarden.sensors.plant_devices import Image, SimDevice, Wire
from sitewarden.sensors.plant_model import Plant
from sitewarden.sensors.plant_wire import ModbusTcpServer, RtuSlave


def device(unit_id: int, unit: dict[str, Any], wire: Wire) -> SimDevice:
    def words(table: str) -> dict[int, int]:
        return dict(enumerate(unit[table]["values"], start=unit[table]["start"]))

    image = Image(holding=words("holding"), input=words("input"))
    name = f"u{unit_id}"
    return SimDevice(
        area="area",
        device=name,
        name_zh=name,
        name_en=name,
        wire=wire,
        points=(),
        unit_id=unit_id,
        image=lambda _: image,
    )


async def main() -> None:
    kind, place, image_file = sys.argv[1:]
    units = json.loads(Path(image_file).read_text())["units"]
    wire = Wire.TCP if kind == "tcp" else Wire.RS485
    plant = Plant(tuple(device(int(unit_id), unit, wire) for unit_id, unit in units.items()))
    server = ModbusTcpServer(plant, "127.0.0.1", int(place)) if kind == "tcp" else RtuSlave(plant, Path(place))
    async with server:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
