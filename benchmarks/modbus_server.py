"""A fast Modbus TCP server for the benchmarks: many ports, 16 registers each, values that change.

Prints `ready PORT PORT …`, then runs until it is killed.
"""

from __future__ import annotations

import asyncio
import struct
import sys

_REQUEST = struct.Struct(">HHHBBHH")


class Device(asyncio.Protocol):
    """Answers function codes 3 and 4; register r reads (r + 100 + number of the request) mod 1000."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._buffer = b""
        self._asked = 0

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _REQUEST.size:
            number, _, _, unit, function, address, count = _REQUEST.unpack_from(self._buffer)
            self._buffer = self._buffer[_REQUEST.size :]
            self._asked += 1
            words = [(address + i + 100 + self._asked) % 1000 for i in range(count)]
            head = struct.pack(">HHHBBB", number, 0, 3 + 2 * count, unit, function, 2 * count)
            self._transport.write(head + struct.pack(f">{count}H", *words))


async def main(ports: int) -> None:
    """Listen on `ports` free ports."""
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Device, "127.0.0.1", 0) for _ in range(ports)]
    print("ready", *(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
