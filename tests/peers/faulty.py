"""Modbus peers that fail on purpose: units behind a TCP socket, a serial-to-Ethernet converter or a pseudo-terminal.

Own code, of the wire's standards alone, so that the gateway meets something it did not bring along. A register holds
`word(wire, unit, address)`, so that a mixed-up value shows itself; the one at `CLOCK_ADDRESS` holds the whole seconds
of the loop's time when the request came, so that an old value does.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import os
import random
import socket
import struct
import tty
from abc import ABC, abstractmethod
from pathlib import Path

CLOCK_ADDRESS = 250
TIMEOUT_S = 0.5  # what the peers take for the asker's timeout
LATE_MAX_S = 1.5  # no reply is later


class Fault(enum.StrEnum):
    """What a unit does to a request. `mixed`: any of them, or nothing wrong, at each request."""

    DEAD = "dead"
    SLOW = "slow"
    LATE = "late"
    EXCEPTION = "exception"
    DAMAGED = "damaged"  # RTU: a wrong CRC; TCP: a wrong protocol id
    TRUNCATED = "truncated"
    OTHER = "other"  # a sound frame that answers another question
    NOISE_BEFORE = "noise_before"
    CUT = "cut"  # the connection is closed instead of a reply (on a pseudo-terminal: silence)
    MIXED = "mixed"


SINGLE = tuple(f for f in Fault if f is not Fault.MIXED)


def word(wire: int, unit: int, address: int) -> int:
    """What a register holds: wire 0..3, unit 0..63, address 0..255."""
    return wire << 14 | unit << 8 | address


def crc16(data: bytes) -> bytes:
    """CRC-16/MODBUS, low byte first (Modbus over serial line v1.02 §6.2.2)."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return crc.to_bytes(2, "little")


class Wire(ABC):
    """Units on one wire. `faults[unit]` is what a unit does now.

    Attributes:
        number: the wire's part of each value.
        rtu: RTU frames, else Modbus TCP.
        asked: requests that came.
    """

    def __init__(self, number: int, *, rtu: bool, units: int, dice: random.Random) -> None:
        self.number = number
        self.rtu = rtu
        self.units = range(1, units + 1)
        self.dice = dice
        self.faults: dict[int, Fault] = {}
        self.asked = 0
        self._buffer = b""
        self._free_s: dict[int, float] = {}

    @abstractmethod
    async def up(self) -> None:
        """Reachable again, at the same place."""

    @abstractmethod
    async def down(self) -> None:
        """Gone: port closed, pseudo-terminal hung up."""

    @abstractmethod
    def close(self) -> None:
        """After the last `down`: give the place back."""

    @abstractmethod
    def send(self, data: bytes, asker: asyncio.Transport | None = None) -> None:
        """To whoever is there; a reply of Modbus TCP goes to its asker alone."""

    @abstractmethod
    def cut(self) -> None:
        """Close each connection; new ones are welcome."""

    def babble(self) -> None:
        """Bytes that nobody asked for."""
        self.send(self.dice.randbytes(self.dice.randint(1, 60)))

    def _feed(self, data: bytes, asker: asyncio.Transport | None = None) -> None:
        """Split what came into requests (reads: their length is fixed)."""
        self._buffer += data
        size = 8 if self.rtu else 12
        while len(self._buffer) >= size:
            request, self._buffer = self._buffer[:size], self._buffer[size:]
            assert not self.rtu or crc16(request[:-2]) == request[-2:], request.hex(" ")
            self.asked += 1
            if self.rtu:
                self._answer(request, b"", None)
            else:
                self._answer(request[6:], request[:2], asker)

    def _answer(self, request: bytes, transaction: bytes, asker: asyncio.Transport | None) -> None:
        unit, function, address, count = struct.unpack(">BBHH", request[:6])
        fault = self.faults.get(unit) if unit in self.units else Fault.DEAD
        if fault is Fault.MIXED:
            fault = self.dice.choice((None, None, *SINGLE))
        frame, delay_s = self._right(transaction, unit, function, address, count), self.dice.uniform(0.005, 0.04)
        match fault:
            case Fault.DEAD:
                return
            case Fault.CUT:
                self.cut()
                return
            case Fault.SLOW:
                delay_s = self.dice.uniform(0.1, 0.8 * TIMEOUT_S)
            case Fault.LATE:
                delay_s = self.dice.uniform(TIMEOUT_S + 0.05, LATE_MAX_S - 0.05)
            case None:
                pass
            case _:
                frame = self._spoiled(fault, frame, transaction, (unit, function, address, count))
        loop = asyncio.get_running_loop()
        self._free_s[unit] = free_s = max(self._free_s.get(unit, 0.0), loop.time() + delay_s)  # a unit keeps its order
        loop.call_at(free_s, self.send, frame, asker)

    def _spoiled(self, fault: Fault, frame: bytes, transaction: bytes, asked: tuple[int, int, int, int]) -> bytes:
        unit, function, address, count = asked
        match fault:
            case Fault.EXCEPTION:
                return self._frame(transaction, unit, bytes((function | 0x80, self.dice.choice((2, 4, 6, 10, 11)))))
            case Fault.DAMAGED if self.rtu:
                at = self.dice.randrange(len(frame))
                return frame[:at] + bytes((frame[at] ^ self.dice.randint(1, 255),)) + frame[at + 1 :]
            case Fault.DAMAGED:
                return frame[:2] + b"\x55\xaa" + frame[4:]
            case Fault.TRUNCATED:
                return frame[: self.dice.randrange(1, len(frame))]
            case Fault.OTHER:
                more = self.dice.choice(((1, 0, 0), (0, 1, 0), (0, 0, 1)))
                return self._right(transaction, unit + more[0], function + more[1], address, count + more[2])
            case _:
                return self.dice.randbytes(self.dice.randint(1, 5)) + frame

    def _right(self, transaction: bytes, unit: int, function: int, address: int, count: int) -> bytes:
        clock = int(asyncio.get_running_loop().time()) % 65536
        addresses = range(address, address + count)
        held = [clock if a == CLOCK_ADDRESS else word(self.number, unit, a) & 0xFFFF for a in addresses]
        return self._frame(transaction, unit, struct.pack(f">BB{count}H", function, 2 * count, *held))

    def _frame(self, transaction: bytes, unit: int, pdu: bytes) -> bytes:
        body = bytes((unit,)) + pdu
        return body + crc16(body) if self.rtu else transaction + struct.pack(">HH", 0, len(body)) + body


class TcpWire(Wire):
    """A server on a port below the ephemeral range: no client of this machine ends up on it while it is closed."""

    def __init__(self, number: int, *, rtu: bool, units: int, dice: random.Random) -> None:
        super().__init__(number, rtu=rtu, units=units, dice=dice)
        self._claim = _claim_low_port()
        self.port = self._claim.getsockname()[1]
        self._server: asyncio.Server | None = None
        self._hole: list[socket.socket] = []
        self._clients: set[asyncio.Transport] = set()

    async def up(self) -> None:
        self._close_hole()
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Client(self), "127.0.0.1", self.port)

    async def down(self) -> None:
        self._close_hole()
        self.cut()
        if self._server is not None:
            self._server.close()
            self._server = None

    def close(self) -> None:
        self._claim.close()

    async def hang(self) -> None:
        """Connects neither succeed nor fail: a listening socket whose queue is full."""
        await self.deaf(0)
        for _ in range(2):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", self.port))
            self._hole.append(filler)

    async def deaf(self, backlog: int = 100) -> None:
        """Connects succeed, and nobody ever accepts them."""
        await self.down()
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(backlog)
        self._hole = [listener]

    def _close_hole(self) -> None:
        for held in self._hole:
            held.close()
        self._hole = []

    def cut(self) -> None:
        for client in list(self._clients):
            client.abort()
        self._clients.clear()
        self._buffer = b""

    def send(self, data: bytes, asker: asyncio.Transport | None = None) -> None:
        for client in self._clients:
            if asker in (None, client):
                client.write(data)


class _Client(asyncio.Protocol):
    def __init__(self, wire: TcpWire) -> None:
        self.wire = wire

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.wire._clients.add(transport)
        self.wire._buffer = b""

    def data_received(self, data: bytes) -> None:
        self.wire._feed(data, self.transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.wire._clients.discard(self.transport)


class PtyWire(Wire):
    """A pseudo-terminal behind a symlink, which stays the same when the terminal is another one."""

    def __init__(self, number: int, link: Path, *, units: int, dice: random.Random) -> None:
        super().__init__(number, rtu=True, units=units, dice=dice)
        self.link = link
        self._master = self._slave = -1

    async def up(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._buffer = b""
        asyncio.get_running_loop().add_reader(self._master, self._readable)
        self.link.symlink_to(os.ttyname(self._slave))

    async def down(self) -> None:
        if self._master < 0:
            return
        self.link.unlink()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._slave)
        os.close(self._master)
        self._master = self._slave = -1

    def close(self) -> None:
        """The symlink is gone already."""

    def cut(self) -> None:
        """A serial line has no connection."""

    def send(self, data: bytes, asker: asyncio.Transport | None = None) -> None:
        if self._master >= 0:
            with contextlib.suppress(BlockingIOError):  # nobody reads
                os.write(self._master, data)

    def _readable(self) -> None:
        self._feed(os.read(self._master, 4096))


def _claim_low_port() -> socket.socket:
    """Bound to a port of nobody's; a listener may share it, another claim cannot."""
    dice = random.SystemRandom()  # the port is no part of what a seed repeats
    while True:
        claim = socket.socket()
        try:
            claim.bind(("127.0.0.1", dice.randrange(20_000, 32_000)))
        except OSError:
            claim.close()
            continue
        claim.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return claim
