"""A late RTU reply is never taken for another register's value, over TCP and on a pseudo-terminal.

The stub's registers hold their own address, so a mixed-up value shows itself. It answers in order, as a device does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import tty
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest
from pymodbus import FramerType
from pymodbus.client import AsyncModbusTcpClient
from pymodbus.exceptions import ModbusIOException
from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, UnitSpec
from sitewarden.sensors.frames import crc16
from sitewarden.sensors.modbus import run_bus
from sitewarden.sensors.registers import Register, Table, ValueType
from sitewarden.words import Quality, Reading

ADDRESSES = (0, 100, 200, 300, 400)


class SlowDevice:
    """Units whose registers hold their own address. `delays` is used up, one for each request to `slow_unit`."""

    def __init__(self) -> None:
        self.delays: deque[float] = deque()
        self.slow_unit = 1
        self.write: Callable[[bytes], None] | None = None
        self.asked: list[tuple[int, int, int]] = []
        self._buffer = b""
        self._free_s = 0.0

    def feed(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 8:
            request, self._buffer = self._buffer[:8], self._buffer[8:]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        unit, function, address, count = struct.unpack(">BBHH", request[:6])
        self.asked.append((unit, address, count))
        delay_s = self.delays.popleft() if unit == self.slow_unit and self.delays else 0.005
        reply = struct.pack(f">BBB{count}H", unit, function, 2 * count, *range(address, address + count))
        loop = asyncio.get_running_loop()
        self._free_s = max(self._free_s, loop.time() + delay_s)
        loop.call_at(self._free_s, self._send, reply + crc16(reply).to_bytes(2, "little"))

    def _send(self, frame: bytes) -> None:
        if self.write is not None:
            self.write(frame)


@contextlib.asynccontextmanager
async def on_tcp(device: SlowDevice) -> AsyncIterator[dict[str, object]]:
    """A serial-to-Ethernet converter: what the device sends goes to whoever is connected now."""
    served: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served[task] = writer
        device.write = writer.write
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(256):
                device.feed(data)
        if device.write == writer.write:
            device.write = None
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield {"kind": BusKind.RTU_TCP, "host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}
    finally:
        server.close()
        for writer in served.values():
            writer.close()
        await asyncio.gather(*served)


@contextlib.asynccontextmanager
async def on_pty(device: SlowDevice) -> AsyncIterator[dict[str, object]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    loop = asyncio.get_running_loop()
    loop.add_reader(master, lambda: device.feed(os.read(master, 256)))
    device.write = lambda frame: (os.write(master, frame), None)[1]
    try:
        yield {"kind": BusKind.RTU, "serial": os.ttyname(slave), "baud": 115200}
    finally:
        loop.remove_reader(master)
        device.write = None
        os.close(master)
        os.close(slave)


WIRES = {"rtu_tcp": on_tcp, "pty": on_pty}


def registers() -> tuple[Register, ...]:
    return tuple(
        Register(name=f"r{a}", table=Table.HOLDING, address=a, type=ValueType.U16) for a in ADDRESSES
    )  # five reads of one length


def bus(wire: dict[str, object], **changes: object) -> BusSpec:
    units = tuple(UnitSpec(device=f"area.u{i}", unit_id=i, registers=registers(), poll_s=0.2) for i in (1, 2))
    fields: dict[str, Any] = {"id": "b", "units": units, "timeout_ms": 500, "late_max_ms": 1500}
    return BusSpec(**{**fields, **wire, **changes})


class Watch:
    """Everything that a bus reported; every good value must be its own address."""

    def __init__(self, health: BusHealth) -> None:
        self.health = health
        self.readings: list[Reading] = []

    def take(self, readings: list[Reading]) -> None:
        self.readings += readings

    @property
    def wrong(self) -> list[Reading]:
        return [r for r in self.readings if r.value is not None and r.value != int(r.point.rpartition("r")[2])]

    def good(self, device: str) -> int:
        return sum(r.quality is Quality.GOOD and r.point.startswith(device) for r in self.readings)


@contextlib.asynccontextmanager
async def watching(spec: BusSpec) -> AsyncIterator[Watch]:
    watch = Watch(BusHealth.of(spec))
    task = asyncio.create_task(run_bus(spec, watch.take, watch.health), name="bus")
    try:
        yield watch
        assert not task.done()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def until(condition: Callable[[], bool], what: str, bound_s: float = 60) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + bound_s
    while not condition():
        assert loop.time() < end_s, f"not within {bound_s} s: {what}"
        await asyncio.sleep(0.01)


async def rounds(watch: Watch, count: int) -> None:
    """Both units answer `count` more whole polls."""
    before = {d: watch.good(d) for d in ("area.u1", "area.u2")}
    await until(lambda: all(watch.good(d) >= n + count * len(ADDRESSES) for d, n in before.items()), "good polls")


@pytest.mark.parametrize("wire", WIRES)
async def test_value_is_address_ever_after(wire: str) -> None:
    device = SlowDevice()
    async with WIRES[wire](device) as where, watching(bus(where)) as watch:
        await rounds(watch, 2)
        unit = watch.health.units["area.u1"]
        for late_s in (0.7, 1.2):
            timeouts, resyncs = unit.timeouts, unit.resyncs
            device.delays.append(late_s)
            await until(lambda n=timeouts: unit.timeouts > n, "the late reply is missed")
            await until(lambda n=resyncs: unit.resyncs > n, "the unit is resynchronized")
            await rounds(watch, 3)
        assert watch.wrong == []
        assert watch.health.reconnects >= 2 if wire == "rtu_tcp" else watch.health.reconnects == 0
        assert any(r.why == "timeout" for r in watch.readings)
        assert watch.health.strays >= 2  # both late replies came and were thrown away
        assert all(r.value is None for r in watch.readings if r.quality is Quality.BAD)


@pytest.mark.parametrize("wire", WIRES)
async def test_later_than_late_max_is_caught_while_resynchronizing(wire: str) -> None:
    device = SlowDevice()
    async with WIRES[wire](device) as where, watching(bus(where)) as watch:
        await rounds(watch, 1)
        for late_s in (1.8, 2.3, 3.1):
            missed = watch.health.timeouts
            device.delays.append(late_s)
            await until(lambda n=missed: watch.health.timeouts > n, "the late reply is missed")
            await rounds(watch, 2)
        assert watch.wrong == []


async def test_resync_reads_another_length_and_first_of_all() -> None:
    device = SlowDevice()
    async with on_tcp(device) as where, watching(bus(where)) as watch:
        await rounds(watch, 1)
        first = {unit: next(count for u, _, count in device.asked if u == unit) for unit in (1, 2)}
        assert first == {1: 2, 2: 2}  # a process before this one may have left a request behind
        asked = len(device.asked)
        device.delays.append(0.7)
        await until(lambda: watch.health.timeouts > 0, "the late reply is missed")
        await rounds(watch, 1)
        to_unit_1 = [count for u, _, count in device.asked[asked:] if u == 1]
        missed = next(i for i, count in enumerate(to_unit_1) if count == 2)
        assert set(to_unit_1[:missed]) <= {1}
        assert to_unit_1[missed + 1] == 1  # values again only after it


async def test_a_reply_too_many_on_an_idle_bus_resynchronizes() -> None:
    device = SlowDevice()
    async with on_tcp(device) as where:
        spec = bus(where)
        slow = tuple(replace(u, poll_s=0.5) for u in spec.units)
        async with watching(bus(where, units=slow)) as watch:
            await rounds(watch, 1)
            resyncs, polled = watch.health.resyncs, len(watch.readings)
            await until(lambda: len(watch.readings) > polled, "the end of a poll: the bus is idle")
            frame = struct.pack(">BBBH", 1, 3, 2, 4711)
            assert device.write is not None
            device.write(frame + crc16(frame).to_bytes(2, "little"))
            await until(lambda: watch.health.resyncs > resyncs, "a resynchronizing read")
            assert watch.health.strays > 0
            assert watch.wrong == []


async def test_the_stub_does_fool_a_plain_client() -> None:
    """The danger is real: without the rule one late reply shifts every value."""
    device = SlowDevice()
    device.delays.extend([0.7, 0.3, 0.3])
    async with on_tcp(device) as where:
        client = AsyncModbusTcpClient(
            "127.0.0.1", port=int(str(where["port"])), framer=FramerType.RTU, timeout=0.5, retries=0, reconnect_delay=0
        )
        assert await client.connect()
        try:
            with pytest.raises(ModbusIOException):
                await client.read_holding_registers(0, count=1, device_id=1)
            reply = await client.read_holding_registers(100, count=1, device_id=1)
            assert reply.registers == [0]
        finally:
            client.close()
