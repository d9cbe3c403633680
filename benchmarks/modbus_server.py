"""A fast Modbus TCP server for the benchmarks: many ports, many units behind each, values that change.

    modbus_server.py PORTS UNITS [DEAD_UNIT]

Prints `ready PORT PORT …` and runs until it is killed. `DEAD_UNIT` (of every port) never answers. Each line `hold UNIT
REGISTER WORD` on standard input fixes a register, and is answered with the same words and `null`. Each line `stats` is
answered by `stats {json}` about the time since the line before:

- `registers`: answered, of all units; `by_unit`: of each unit
- `p50_s`, `p99_s`, `most_s`: time between two polls of the same living unit (a poll begins with register 0)
- `first_s`: when the first request of all came, on the machine's monotonic clock; null before it
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
import time
from collections import defaultdict

from told import listen

_REQUEST = struct.Struct(">HHHBBHH")
_REPLY = struct.Struct(">HHHBBB")


class Wire:
    """What all units answered since the last look."""

    def __init__(self, dead: int) -> None:
        self.dead = dead
        self.first_s: float | None = None
        self.held: dict[tuple[int, int], int] = {}
        self.last_s: dict[tuple[int, int], float] = {}
        self.forget()

    def forget(self) -> None:
        self.registers: defaultdict[str, int] = defaultdict(int)
        self.gaps_s: list[float] = []

    def asked(self, port: int, unit: int, address: int) -> None:
        now_s = time.monotonic()
        self.first_s = self.first_s or now_s
        if address == 0 and unit != self.dead:
            before_s = self.last_s.get((port, unit))
            self.last_s[port, unit] = now_s
            if before_s is not None:
                self.gaps_s.append(now_s - before_s)

    def told(self, line: str) -> None:
        """A line of standard input."""
        word, *numbers = line.split()
        if word == "hold":
            unit, register, held = map(int, numbers)
            self.held[unit, register] = held
            print(line, "null", flush=True)
        else:
            print("stats", json.dumps(self.stats()), flush=True)

    def stats(self) -> dict[str, object]:
        gaps_s = sorted(self.gaps_s) or [0.0]
        found = {
            "registers": sum(self.registers.values()),
            "by_unit": dict(self.registers),
            "p50_s": gaps_s[len(gaps_s) // 2],
            "p99_s": gaps_s[int(0.99 * (len(gaps_s) - 1))],
            "most_s": gaps_s[-1],
            "first_s": self.first_s,
        }
        self.forget()
        return found


class Connection(asyncio.Protocol):
    """Answers function codes 3 and 4; register r reads (r + 100 + number of the request) mod 1000."""

    def __init__(self, wire: Wire, port: int, units: int) -> None:
        self._wire, self._port, self._units = wire, port, units
        self._buffer = b""
        self._requests = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _REQUEST.size:
            request = _REQUEST.unpack_from(self._buffer)
            self._buffer = self._buffer[_REQUEST.size :]
            self._answer(*request)

    def _answer(self, number: int, _protocol: int, _length: int, unit: int, function: int, address: int, count: int):
        self._wire.asked(self._port, unit, address)
        if unit == self._wire.dead or not 1 <= unit <= self._units:
            return
        self._requests += 1
        words = [(address + i + 100 + self._requests) % 1000 for i in range(count)]
        for at in range(count) if self._wire.held else ():
            words[at] = self._wire.held.get((unit, address + at), words[at])
        self._wire.registers[f"{self._port}/{unit}"] += count
        head = _REPLY.pack(number, 0, 3 + 2 * count, unit, function, 2 * count)
        self._transport.write(head + struct.pack(f">{count}H", *words))


async def main(ports: int, units: int, dead: int) -> None:
    """Listen on `ports` free ports of 127.0.0.1."""
    loop = asyncio.get_running_loop()
    wire = Wire(dead)
    servers = [
        await loop.create_server(lambda port=port: Connection(wire, port, units), "127.0.0.1", 0)
        for port in range(ports)
    ]

    listen(wire.told)
    print("ready", *(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else 0))
