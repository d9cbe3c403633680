"""Publishes numbered JSON messages, QoS 1, to devices/d0 … d19; sends again what was not acknowledged.

    mqtt_load.py PORT --rate 500 --count 6000

Prints `ready` when connected and begins with the first line on standard input. Each line `sent` is answered by
`sent {json}`: `published`, `acknowledged`. Message n carries the number n; a rate of 0 is as fast as the broker takes.
The wire is written here, not by a library: the publisher must cost less than what it measures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import time

from sites import MQTT_DEVICES
from told import listen

WINDOW = 1000  # unacknowledged at once
SLICE_S = 0.005
CONNECT = b"\x00\x04MQTT\x04\x00\x00\x3c\x00\x04load"  # 3.1.1, session kept, keep-alive 60 s, id "load"


def packet(number: int) -> bytes:
    """A PUBLISH of about 100 bytes; the packet id follows from the number."""
    wave = number % 50 / 10
    payload = b'{"n":%d,"a":%.1f,"b":%.1f,"c":%.1f,"d":%.1f,"e":%.1f}' % (
        number,
        20 + wave,
        30 + wave,
        40 + wave,
        50 + wave,
        60 + wave,
    )
    topic = b"devices/d%d" % (number % MQTT_DEVICES)
    body = struct.pack(">H", len(topic)) + topic + struct.pack(">H", packet_id(number)) + payload
    assert len(body) < 128  # one length byte
    return bytes((0x32, len(body))) + body


def packet_id(number: int) -> int:
    return number % 65535 + 1


class Wire(asyncio.Protocol):
    """One connection: acknowledgements come in, in any order."""

    def __init__(self, load: Load) -> None:
        self.load = load
        self.buffer = b""
        self.up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.down = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(bytes((0x10, len(CONNECT))) + CONNECT)

    def connection_lost(self, exc: Exception | None) -> None:
        self.down.set()
        self.load.room.set()
        if not self.up.done():
            self.up.set_exception(ConnectionError("closed before CONNACK"))

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while len(self.buffer) >= 4:  # CONNACK and PUBACK have four bytes; nothing else comes but PINGRESP
            if self.buffer[0] == 0xD0:
                self.buffer = self.buffer[2:]
                continue
            kind, _, number = struct.unpack_from(">BBH", self.buffer)
            self.buffer = self.buffer[4:]
            if kind == 0x40:
                self.load.acknowledged_id(number)
            elif kind == 0x20 and not self.up.done():
                self.up.set_result(None)


class Load:
    """What is published, what is not yet acknowledged."""

    def __init__(self, port: int, rate: float, count: int) -> None:
        self.port, self.rate, self.count = port, rate, count
        self.waiting: dict[int, int] = {}  # packet id -> number
        self.published = 0
        self.acknowledged = 0
        self.room = asyncio.Event()

    def acknowledged_id(self, number: int) -> None:
        if self.waiting.pop(number, None) is not None:
            self.acknowledged += 1
            self.room.set()

    async def connect(self) -> Wire:
        """Try until the broker is there; then send again what it may not have."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                _, wire = await loop.create_connection(lambda: Wire(self), "127.0.0.1", self.port)
                async with asyncio.timeout(5):
                    await wire.up
            except OSError:
                await asyncio.sleep(0.1)
                continue
            for number in self.waiting.values():
                again = packet(number)
                wire.transport.write(bytes((again[0] | 0x08,)) + again[1:])
            return wire

    async def run(self, began: asyncio.Event) -> None:
        wire = await self.connect()
        print("ready", flush=True)
        await began.wait()
        start_s = time.monotonic()
        while self.acknowledged < self.count:
            if wire.down.is_set():
                wire = await self.connect()
            self.publish(wire, start_s)
            self.room.clear()
            if self.rate:
                await asyncio.sleep(SLICE_S)
            elif len(self.waiting) >= WINDOW or self.published == self.count:
                await self.room.wait()
            else:
                await asyncio.sleep(0)
        await asyncio.Event().wait()

    def publish(self, wire: Wire, start_s: float) -> None:
        """What is due now and fits."""
        due = int((time.monotonic() - start_s) * self.rate) if self.rate else self.published + 100
        room = WINDOW - len(self.waiting)
        numbers = range(self.published, min(due, self.count, self.published + room))
        for number in numbers:
            self.waiting[packet_id(number)] = number
        if numbers and not wire.transport.is_closing():
            wire.transport.write(b"".join(map(packet, numbers)))
        self.published = max(self.published, numbers.stop)


async def main() -> None:
    """Run until killed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("--rate", type=float, default=500)
    parser.add_argument("--count", type=int, default=10**9)
    options = parser.parse_args()
    load, began = Load(options.port, options.rate, options.count), asyncio.Event()

    def told(word: str) -> None:
        if word == "sent":
            found = {"published": load.published, "acknowledged": load.acknowledged}
            print("sent", json.dumps(found), flush=True)
        else:
            began.set()

    listen(told)
    await load.run(began)


if __name__ == "__main__":
    asyncio.run(main())
