"""Which received bytes may be the reply to the request that is out. Pure: bytes in, bytes out.

pymodbus 3.16 hands over frames that are not the reply: another byte count, another function, an exception to another
function, a TCP frame with transaction id 0; and a frame that it cannot decode raises inside the transport's callback. A
gate stands before its framer and lets through one exact reply or nothing. It learns what to expect from the request as
it is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

EXCEPTION_FLAG = 0x80
BIT_FUNCTIONS = (1, 2)
RTU_EXCEPTION_SIZE = 5
MBAP = 6  # bytes before the unit id
TAIL = 24  # bytes kept for an error text
FLOOD = 2048  # more bytes than this are no reply and what came before it


class Gate(Protocol):
    """What the owner of a link asks of a gate.

    Attributes:
        armed: a request is out.
        pending: bytes that came since the request and are not its reply.
        stray: bytes that came while no request was out.
        tail: the first of the bytes that were not the reply.
        on_poison: called when waiting longer cannot help.
    """

    armed: bool
    pending: int
    stray: int
    tail: bytes
    on_poison: Callable[[], None]

    def sent(self, packet: bytes) -> None: ...
    def received(self, buffer: bytes) -> bytes: ...
    def disarm(self) -> None: ...
    def reset(self) -> None: ...


def reply_bytes(function: int, count: int) -> int:
    """Data bytes of the reply to a read of `count` with `function` 1..4."""
    return (count + 7) // 8 if function in BIT_FUNCTIONS else 2 * count


class _GateState:
    """State that both gates share."""

    def __init__(self) -> None:
        self.armed = False
        self.pending = 0
        self.stray = 0
        self.tail = b""
        self.on_poison: Callable[[], None] = _nothing

    def disarm(self) -> None:
        """The request is over; what comes from now on is stray."""
        self.armed = False

    def reset(self) -> None:
        """Forget what came; called on a quiet line."""
        self.pending = self.stray = 0
        self.tail = b""

    def _idle(self, buffer: bytes) -> bytes:
        self.stray = max(self.stray, len(buffer))
        self.tail = buffer[:TAIL]
        return b""

    def _arm(self) -> None:
        self.armed, self.pending, self.tail = True, 0, b""

    def _keep(self, buffer: bytes, pending: int) -> bytes:
        self.pending, self.tail = pending, buffer[:TAIL]
        return b""

    def _poisoned(self, buffer: bytes) -> bytes:
        self._keep(buffer, len(buffer))
        self.on_poison()
        return b""


def _nothing() -> None:
    pass


class RtuGate(_GateState):
    """RTU: unit, function, byte count, length and CRC must be those of the reply; the rest is passed over."""

    def __init__(self) -> None:
        super().__init__()
        self._header = b""
        self._exception = b""
        self._size = 0

    def sent(self, packet: bytes) -> None:
        """Arm for the reply to `packet`: unit, function, address (2), count (2), CRC (2)."""
        data = reply_bytes(packet[1], int.from_bytes(packet[4:6], "big"))
        self._header = bytes((packet[0], packet[1], data))
        self._exception = bytes((packet[0], packet[1] | EXCEPTION_FLAG))
        self._size = 3 + data + 2
        self._arm()

    def received(self, buffer: bytes) -> bytes:
        """The reply inside of `buffer`, or nothing yet. The buffer is everything since the request."""
        if not self.armed:
            return self._idle(buffer)
        if buffer.startswith(self._header):
            if len(buffer) == self._size:  # the usual case; pymodbus checks the CRC
                self.pending, self.tail = len(buffer), buffer[:TAIL]
                return buffer
            if len(buffer) < self._size:
                return self._keep(buffer, len(buffer))
        if len(buffer) > FLOOD:
            return self._poisoned(buffer)
        frames = list(self._frames(buffer))
        if len(frames) == 1:
            return frames[0]
        return self._keep(buffer, len(buffer))  # none, or two and no way to tell which

    def _frames(self, buffer: bytes) -> Iterator[bytes]:
        for at in range(len(buffer) - RTU_EXCEPTION_SIZE + 1):
            if buffer.startswith(self._header, at):
                size = self._size
            elif buffer.startswith(self._exception, at):
                size = RTU_EXCEPTION_SIZE
            else:
                continue
            frame = buffer[at : at + size]
            if len(frame) == size and crc16(frame[:-2]) == int.from_bytes(frame[-2:], "little"):
                yield frame


class TcpGate(_GateState):
    """Modbus TCP: the MBAP header must answer ours. Replies to earlier requests are known by their transaction id."""

    def __init__(self) -> None:
        super().__init__()
        self._header = b""
        self._exception = b""
        self._transaction = b""
        self._size = 0

    def sent(self, packet: bytes) -> None:
        """Arm for the reply to `packet`: transaction, 0, length (2 each), unit, function, address, count (2 each)."""
        self._transaction, unit, function = packet[:2], packet[6], packet[7]
        data = reply_bytes(function, int.from_bytes(packet[10:12], "big"))
        start = self._transaction + b"\0\0"
        self._header = start + (3 + data).to_bytes(2, "big") + bytes((unit, function, data))
        self._exception = start + b"\0\3" + bytes((unit, function | EXCEPTION_FLAG))
        self._size = 9 + data
        self._arm()

    def received(self, buffer: bytes) -> bytes:
        """The reply inside of `buffer`, or nothing yet."""
        if not self.armed:
            return self._idle(buffer)
        if len(buffer) == self._size and buffer.startswith(self._header):
            return buffer
        at = 0
        while len(buffer) - at > MBAP:
            size = MBAP + int.from_bytes(buffer[at + 4 : at + 6], "big")
            if buffer[at + 2 : at + 4] != b"\0\0" or not MBAP + 2 < size <= MBAP + 254:
                return self._poisoned(buffer[at:])
            frame = buffer[at : at + size]
            if len(frame) < size:
                break
            if frame[:2] == self._transaction:
                return frame if self._answers(frame) else self._poisoned(buffer[at:])
            at += size
        return self._keep(buffer[at:], len(buffer) - at)

    def _answers(self, frame: bytes) -> bool:
        return frame.startswith((self._header, self._exception))


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = (value >> 1) ^ 0xA001 if value & 1 else value >> 1  # noqa: PLW2901
        table.append(value)
    return tuple(table)


_CRC = _crc_table()


def crc16(data: bytes) -> int:
    """CRC-16/MODBUS (Modbus over serial line v1.02 §6.2.2); sent low byte first."""
    crc = 0xFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC[(crc ^ byte) & 0xFF]
    return crc
