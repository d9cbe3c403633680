"""Modbus buses behind pymodbus: one owner task per wire. The only file that imports pymodbus.

What pymodbus 3.16 would do by itself, and what is done here instead:

- it takes any frame of the right unit for the reply (other function, other byte count, transaction id 0), and a frame
  that it cannot decode raises inside the transport: a `frames` gate, hung in its documented `trace_packet` hook, passes
  the exact reply or nothing;
- it throws away what does not fit its buffer, unseen: the buffer is made larger than any one read;
- it retries inside a call, closes the connection after some silence and opens it again: its retries and its opening are
  switched off, and its timeout never ends before ours, so it never counts a silence;
- it leaves a request waiting when the connection goes: here the wait ends at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import NoReturn

from pymodbus import FramerType, ModbusException
from pymodbus.client import AsyncModbusSerialClient, AsyncModbusTcpClient
from pymodbus.pdu import ModbusPDU

from ..words import mono_s
from .buses import BusHealth, BusKind, BusSpec, ReplyError, UnitHealth, UnitSpec
from .frames import Gate, RtuGate, TcpGate
from .owner import Owner, Sink
from .registers import Block, Table

__all__ = ["BusHealth", "BusKind", "BusSpec", "Sink", "UnitHealth", "UnitSpec", "run_bus"]

# The owner reports each loss and recovery once; pymodbus would log every missed reply.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

CONNECT_S = 3.0
BUFFER_BYTES = 1 << 19


async def run_bus(spec: BusSpec, sink: Sink, health: BusHealth) -> NoReturn:
    """Own one bus until cancelled.

    A poll that fails gives a reading without a value for each point: quality bad, `why` one of `timeout`, `bad_frame`,
    `no_connection`, `bus_noise`, `exception_<code>`, `driver_error`, or what the decoder found. While a unit's breaker
    is open its points stay bad with the last of these.

    Args:
        sink: takes the readings of one poll of one unit; they share one `at`. Called in the event loop, must not block.
            What it raises ends this task.
        health: counters made by `BusHealth.of(spec)`; updated in place.
    """
    link = Link(spec)
    try:
        await Owner(spec, link, sink, health).run()
    finally:
        link.close()
        health.connected = False


class Link:
    """One serial port or socket; one request at a time."""

    def __init__(self, spec: BusSpec) -> None:
        self._spec = spec
        self._client: AsyncModbusTcpClient | AsyncModbusSerialClient | None = None
        self._deadline: asyncio.Timeout | None = None
        self.gate: Gate = _gate(spec, self._give_up)
        self.last_byte_s = 0.0

    @property
    def connected(self) -> bool:
        return self._client is not None and self._client.connected

    async def open(self) -> None:
        """Connect. Raises ReplyError."""
        self.close()
        self.gate = _gate(self._spec, self._give_up)
        self._client = client = self._new_client()
        client.ctx.max_buffer_size = BUFFER_BYTES  # else pymodbus drops a flood before the gate has seen it
        try:
            async with asyncio.timeout(CONNECT_S):
                opened = await client.connect()
        except TimeoutError:
            opened = False
        if not opened:
            self.close()
            raise ReplyError("no_connection", f"bus {self._spec.id}: cannot open {self._place()}")
        self.last_byte_s = mono_s()

    def close(self) -> None:
        """Close at once; harmless when closed."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    async def read(self, unit_id: int, block: Block, timeout_s: float) -> Sequence[int]:
        """The words (bits as 0/1) of `block`. Raises ReplyError."""
        client, gate = self._client, self.gate
        if client is None or not client.connected:
            raise ReplyError("no_connection", f"bus {self._spec.id}: {self._place()} is closed")
        try:
            async with asyncio.timeout(timeout_s) as self._deadline:
                reply = await _CALLS[block.table](client, block.address, block.count, unit_id)
        except TimeoutError:
            raise self._no_reply(unit_id, block, timeout_s) from None
        except (ModbusException, OSError) as error:
            why = "bad_frame" if self.connected else "no_connection"
            raise ReplyError(why, f"{self._what(unit_id, block)}: {error}", asked=True) from error
        finally:
            self._deadline = None
            gate.disarm()
        return self._checked(unit_id, block, reply)

    def _checked(self, unit_id: int, block: Block, reply: ModbusPDU) -> Sequence[int]:
        if reply.isError():
            code = reply.exception_code
            what = f"{self._what(unit_id, block)}: Modbus exception {code}"
            raise ReplyError(f"exception_{code}", what, asked=True, code=code or 255)
        words = reply.bits[: block.count] if block.table.is_bits else reply.registers
        if len(words) != block.count or reply.dev_id != unit_id:
            what = f"{self._what(unit_id, block)}: unit {reply.dev_id} sent {len(words)} values"
            raise ReplyError("bad_frame", what, asked=True)
        return words

    def _no_reply(self, unit_id: int, block: Block, timeout_s: float) -> ReplyError:
        what = self._what(unit_id, block)
        if not self.connected:
            return ReplyError("no_connection", f"{what}: {self._place()} was closed before the reply", asked=True)
        if self.gate.pending:
            return ReplyError("bad_frame", f"{what}: not the reply, but {self.gate.tail.hex(' ')}", asked=True)
        return ReplyError("timeout", f"{what}: no reply within {timeout_s * 1000:.0f} ms", asked=True)

    def _what(self, unit_id: int, block: Block) -> str:
        return f"bus {self._spec.id} unit {unit_id} {block.table} {block.address}+{block.count}"

    def _place(self) -> str:
        return self._spec.serial if self._spec.kind is BusKind.RTU else f"{self._spec.host}:{self._spec.port}"

    def _give_up(self) -> None:
        """End the wait for a reply that cannot come."""
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(0)

    def _trace_packet(self, sending: bool, data: bytes) -> bytes:
        if sending:
            self.gate.sent(data)
            return data
        self.last_byte_s = mono_s()
        return self.gate.received(data)

    def _trace_connect(self, connected: bool) -> None:
        if not connected:
            self._give_up()

    def _new_client(self) -> AsyncModbusTcpClient | AsyncModbusSerialClient:
        spec = self._spec
        # pymodbus's own timeout serves connecting and replies alike; ours (asyncio.timeout) always ends first.
        timeout_s = CONNECT_S + max(spec.timeout_s(u) for u in spec.units)
        if spec.kind is BusKind.RTU:
            return AsyncModbusSerialClient(
                spec.serial,
                framer=FramerType.RTU,
                baudrate=spec.baud,
                parity=spec.parity,
                stopbits=spec.stopbits,
                name=spec.id,
                timeout=timeout_s,
                retries=0,
                reconnect_delay=0,
                trace_packet=self._trace_packet,
                trace_connect=self._trace_connect,
            )
        return AsyncModbusTcpClient(
            spec.host,
            port=spec.port,
            framer=FramerType.SOCKET if spec.kind is BusKind.TCP else FramerType.RTU,
            name=spec.id,
            timeout=timeout_s,
            retries=0,
            reconnect_delay=0,
            trace_packet=self._trace_packet,
            trace_connect=self._trace_connect,
        )


def _gate(spec: BusSpec, on_poison: Callable[[], None]) -> Gate:
    gate = RtuGate() if spec.kind.is_rtu else TcpGate()
    gate.on_poison = on_poison
    return gate


_CALLS = {
    Table.COIL: lambda c, address, count, unit: c.read_coils(address, count=count, device_id=unit),
    Table.DISCRETE: lambda c, address, count, unit: c.read_discrete_inputs(address, count=count, device_id=unit),
    Table.HOLDING: lambda c, address, count, unit: c.read_holding_registers(address, count=count, device_id=unit),
    Table.INPUT: lambda c, address, count, unit: c.read_input_registers(address, count=count, device_id=unit),
}
