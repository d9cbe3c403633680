"""Modbus buses: one owner task per wire. The only file that imports pymodbus.

pymodbus carries the bytes (its TCP and serial transports); what is sent and what counts as a reply is decided in
`frames`. Its client is not used (docs/decisions/0005-modbus-wire.md): it takes any frame of the right unit for the
reply, retries and reopens on its own, leaves a request waiting when the connection goes, and costs twice the time.
"""

from __future__ import annotations

import asyncio
import logging
import termios
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NoReturn

from pymodbus.transport import CommParams, CommType, ModbusProtocol

from ..words import mono_s
from .buses import Answer, BusHealth, BusKind, BusSpec, ReplyError, UnitHealth, UnitSpec
from .frames import EXCEPTION_FLAG, Gate, Request, RtuGate, TcpGate
from .owner import Owner, Sink
from .registers import Block

__all__ = ["Bus", "BusHealth", "BusKind", "BusSpec", "Sink", "UnitHealth", "UnitSpec", "guest_link", "run_bus"]

# The owner reports each loss and recovery once; pymodbus would log every failed opening.
logging.getLogger("pymodbus").setLevel(logging.CRITICAL)

CONNECT_S = 3.0


async def run_bus(spec: BusSpec, sink: Sink, health: BusHealth) -> NoReturn:
    """Own one bus until cancelled; see `Bus`."""
    await Bus(spec, sink, health).run()


class Bus:
    """One wire with one owner. `run` in a task; the other calls from the same loop at any time.

    A poll that fails gives a reading without a value for each point: quality bad, `why` one of `timeout`, `bad_frame`,
    `no_connection`, `bus_noise`, `exception_<code>`, `driver_error`, or what the decoder found. While a unit's breaker
    is open its points stay bad with the last of these.

    Args:
        sink: takes the readings of one poll of one unit; they share one `at`. Called in the event loop, must not block.
            What it raises ends `run`.
        health: counters made by `BusHealth.of(spec)`; updated in place.
    """

    def __init__(self, spec: BusSpec, sink: Sink, health: BusHealth) -> None:
        self.health = health
        self._link = Link(spec)
        self._owner = Owner(spec, self._link, sink, health)

    @property
    def spec(self) -> BusSpec:
        """As it was given, or changed to, last."""
        return self._owner.coming or self._owner.spec

    async def run(self) -> NoReturn:
        """Own the bus until cancelled."""
        try:
            await self._owner.run()
        finally:
            self._owner.close()
            self._link.close()
            self.health.connected = False

    async def read(self, unit_id: int, block: Block, timeout_s: float | None = None) -> Answer:
        """A guest's read of any unit, between two polls. Raises ReplyError."""
        return await self._owner.read(unit_id, block, timeout_s)

    async def write(self, device: str, output: str, state: str) -> Answer:
        """Write a listed output to one of its states and read it back, before the next request of any poll.

        Raises:
            RefusedError: `no_such_output`, `no_such_state`: nothing was sent.
            ReplyError: it was not confirmed; `not_taken` when it reads back otherwise.
        """
        return await self._owner.write(device, output, state)

    def change(self, spec: BusSpec) -> None:
        """Other units or times. Units that stay the same go on without a missed poll.

        Raises:
            ValueError: another wire; that needs another Bus.
        """
        if not spec.same_wire(self._owner.spec):
            raise ValueError(f"bus {spec.id} is on another wire now")
        self._owner.change(spec)


class Guest:
    """A wire used by a person's tool alone."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def read(self, unit_id: int, block: Block, timeout_s: float | None = None) -> Answer:
        """One read of any unit. Raises ReplyError."""
        return await self._bus.read(unit_id, block, timeout_s)


@asynccontextmanager
async def guest_link(spec: BusSpec) -> AsyncIterator[Guest]:
    """Use a wire without the daemon; the units of `spec` are not polled. It is opened by the first read."""
    quiet = BusSpec(
        id=spec.id,
        kind=spec.kind,
        units=(),
        host=spec.host,
        port=spec.port,
        serial=spec.serial,
        baud=spec.baud,
        parity=spec.parity,
        stopbits=spec.stopbits,
        timeout_ms=spec.timeout_ms,
        late_max_ms=spec.late_max_ms,
        inter_frame_ms=spec.inter_frame_ms,
    )
    bus = Bus(quiet, lambda _: None, BusHealth.of(quiet))
    async with asyncio.TaskGroup() as group:
        owner = group.create_task(bus.run(), name=f"guest of bus {spec.id}")
        try:
            yield Guest(bus)
        finally:
            owner.cancel()


class _Wire(ModbusProtocol):
    """pymodbus' transport, with its bytes handed to the link as they come."""

    def __init__(self, params: CommParams, link: Link) -> None:
        super().__init__(params, is_server=False)
        self._link = link

    def data_received(self, data: bytes) -> None:
        self._link.received(data)

    def callback_new_connection(self) -> ModbusProtocol:
        raise AssertionError("a client has no listener")

    def callback_connected(self) -> None:
        """The link knows: it opened."""

    def callback_disconnected(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._link.lost(self)

    def callback_data(self, data: bytes, addr: tuple | None = None) -> int:  # noqa: ARG002
        raise AssertionError("data_received is ours")


class Link:
    """One serial port or socket; one request at a time."""

    def __init__(self, spec: BusSpec) -> None:
        self._spec = spec
        self._wire: _Wire | None = None
        self._reply: asyncio.Future[bytes | None] | None = None
        self.gate: Gate = RtuGate() if spec.kind.is_rtu else TcpGate()
        self.last_byte_s = 0.0

    @property
    def connected(self) -> bool:
        return self._wire is not None and self._wire.transport is not None

    async def open(self) -> None:
        """Connect. Raises ReplyError."""
        self.close()
        self.gate = RtuGate() if self._spec.kind.is_rtu else TcpGate()
        wire = _Wire(_params(self._spec), self)
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, _ = await wire.call_create()
        except (OSError, TimeoutError, ValueError, termios.error) as error:
            wire.close()
            why = "no answer" if isinstance(error, TimeoutError) else str(error)
            traceback.clear_frames(error.__traceback__)  # a half-opened serial port would keep its lock
            raise ReplyError("no_connection", f"bus {self._spec.id}: cannot open {self._place()}: {why}") from error
        except BaseException:
            wire.close()
            raise
        if self._spec.kind is BusKind.RTU:
            wire.transport = transport
        if wire.transport is None:  # it took the connection and closed it at once
            raise ReplyError("no_connection", f"bus {self._spec.id}: {self._place()} closed the connection")
        self._wire = wire
        self.last_byte_s = mono_s()

    def close(self) -> None:
        """Close at once; harmless when closed."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.close()
        self._end(None)

    async def call(self, request: Request, timeout_s: float) -> bytes:
        """The PDU of the reply. Raises ReplyError."""
        wire = self._wire
        if wire is None or wire.transport is None:
            raise ReplyError("no_connection", f"bus {self._spec.id}: {self._place()} is closed")
        loop = wire.loop
        reply = self._reply = loop.create_future()
        timer = loop.call_later(timeout_s, self._end, None)
        try:
            wire.transport.write(self.gate.send(request))  # pyright: ignore[reportAttributeAccessIssue]
            pdu = await reply
        except OSError as error:
            raise ReplyError("no_connection", f"{self._what(request)}: {error}", asked=True) from error
        finally:
            timer.cancel()
            self._reply = None
            self.gate.disarm()
        if pdu is None:
            raise self._no_reply(request, timeout_s)
        if pdu[0] & EXCEPTION_FLAG:
            what = f"{self._what(request)}: Modbus exception {pdu[1]}"
            raise ReplyError(f"exception_{pdu[1]}", what, asked=True, code=pdu[1] or 255)
        return pdu

    def received(self, data: bytes) -> None:
        """Bytes came from the wire."""
        self.last_byte_s = mono_s()
        pdu = self.gate.feed(data)
        if pdu is not None or self.gate.poisoned:
            self._end(pdu)

    def lost(self, wire: _Wire) -> None:
        """The peer closed, or the port went away."""
        if wire is self._wire:
            self._end(None)

    def _end(self, pdu: bytes | None) -> None:
        """End the wait for a reply."""
        if self._reply is not None and not self._reply.done():
            self._reply.set_result(pdu)

    def _no_reply(self, request: Request, timeout_s: float) -> ReplyError:
        what = self._what(request)
        if not self.connected:
            return ReplyError("no_connection", f"{what}: {self._place()} was closed before the reply", asked=True)
        if self.gate.pending:
            return ReplyError("bad_frame", f"{what}: not the reply, but {self.gate.tail.hex(' ')}", asked=True)
        return ReplyError("timeout", f"{what}: no reply within {timeout_s * 1000:.0f} ms", asked=True)

    def _what(self, request: Request) -> str:
        return f"bus {self._spec.id} unit {request.unit_id} {request.what}"

    def _place(self) -> str:
        return self._spec.serial if self._spec.kind is BusKind.RTU else f"{self._spec.host}:{self._spec.port}"


def _params(spec: BusSpec) -> CommParams:
    if spec.kind is BusKind.RTU:
        return CommParams(
            comm_name=spec.id,
            comm_type=CommType.SERIAL,
            host=spec.serial,
            baudrate=spec.baud,
            bytesize=8,
            parity=spec.parity,
            stopbits=spec.stopbits,
            timeout_connect=CONNECT_S,
        )
    return CommParams(
        comm_name=spec.id, comm_type=CommType.TCP, host=spec.host, port=spec.port, timeout_connect=CONNECT_S
    )
