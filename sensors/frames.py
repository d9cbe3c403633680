"""Requests as bytes, and which received bytes may be the reply to the one that is out. Pure: bytes in, bytes out.

What comes back on a wire may be the reply to an earlier request, another unit's, an echo, noise, or half of anything. A
gate is told what was asked and passes one exact reply (unit, function, byte count or echoed address, length, CRC or
transaction id) or nothing. Limits and layouts: Modbus Application Protocol v1.1b3 §6, Modbus over serial line v1.02 §2.
"""

from __future__ import annotations

import functools
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from .registers import Block, Output, Table

EXCEPTION_FLAG = 0x80
RTU_EXCEPTION_SIZE = 5
MBAP = 6  # bytes before the unit id
MBAP_LEAST, MBAP_MOST = 2, 254  # of its length field: more than the first, at most the second
TAIL = 24  # bytes kept for an error text
FLOOD = 2048  # more bytes than this are no reply and what came before it

_READ = {Table.COIL: 1, Table.DISCRETE: 2, Table.HOLDING: 3, Table.INPUT: 4}
_WRITE = {(Table.COIL, False): 5, (Table.HOLDING, False): 6, (Table.COIL, True): 15, (Table.HOLDING, True): 16}
_COIL_ON = 0xFF00


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, ready to be sent, and the only replies to it.

    Attributes:
        what: for error texts: `holding 10+2`.
        pdu: function code and data.
        head: what the reply's PDU begins with: function and byte count, or the echo of a write.
        reply_size: bytes of the reply's PDU.
        words: from the reply's PDU to words (bits as 0/1); a write has none.
        can_tell_echo: the request itself, come back, cannot be taken for its reply.
    """

    unit_id: int
    what: str
    pdu: bytes
    head: bytes
    reply_size: int
    words: Callable[[bytes], tuple[int, ...]]
    is_write: bool = False
    can_tell_echo: bool = field(init=False)
    rtu: bytes = field(init=False)
    rtu_head: bytes = field(init=False)
    rtu_exception: bytes = field(init=False)
    tcp_tail: bytes = field(init=False)
    tcp_head: bytes = field(init=False)
    tcp_exception: bytes = field(init=False)

    def __post_init__(self) -> None:
        unit, refused = bytes((self.unit_id,)), bytes((self.pdu[0] | EXCEPTION_FLAG,))
        body = unit + self.pdu
        place = functools.partial(object.__setattr__, self)
        place("rtu", body + crc16(body).to_bytes(2, "little"))
        place("rtu_head", unit + self.head)
        place("rtu_exception", unit + refused)
        place("can_tell_echo", not (self.rtu.startswith(self.rtu_head) and len(self.rtu) == self.reply_size + 3))
        place("tcp_tail", b"\0\0" + len(body).to_bytes(2, "big") + body)
        place("tcp_head", b"\0\0" + (1 + self.reply_size).to_bytes(2, "big") + unit + self.head)
        place("tcp_exception", b"\0\0\0\3" + unit + refused)


def read_request(unit_id: int, block: Block) -> Request:
    """A read of `block` (function codes 1 to 4)."""
    function, size = _READ[block.table], block.reply_bytes
    return Request(
        unit_id=unit_id,
        what=f"{block.table} {block.address}+{block.count}",
        pdu=struct.pack(">BHH", function, block.address, block.count),
        head=bytes((function, size)),
        reply_size=2 + size,
        words=_bits_of(block.count) if block.table.is_bits else _words_of(block.count),
    )


def write_request(unit_id: int, output: Output, raw: int) -> Request:
    """A write of `raw` to one coil or register (function codes 5, 6, 15, 16)."""
    function, is_coil = _WRITE[output.table, output.multiple], output.table is Table.COIL
    if output.multiple:
        data = bytes((1, raw)) if is_coil else b"\2" + raw.to_bytes(2, "big")
        head = struct.pack(">BHH", function, output.address, 1)
        pdu = head + data
    else:
        # Some devices answer with the value that they hold: the read-back tells.
        head = struct.pack(">BH", function, output.address)
        pdu = head + (_COIL_ON * raw if is_coil else raw).to_bytes(2, "big")
    what = f"write {output.table} {output.address}"
    return Request(unit_id=unit_id, what=what, pdu=pdu, head=head, reply_size=5, words=_no_words, is_write=True)


def _words_of(count: int) -> Callable[[bytes], tuple[int, ...]]:
    unpack = struct.Struct(f">{count}H").unpack_from
    return lambda pdu: unpack(pdu, 2)


def _bits_of(count: int) -> Callable[[bytes], tuple[int, ...]]:
    def read(pdu: bytes) -> tuple[int, ...]:
        number = int.from_bytes(pdu[2:], "little")
        return tuple((number >> i) & 1 for i in range(count))

    return read


def _no_words(_: bytes) -> tuple[int, ...]:
    return ()


class Gate(Protocol):
    """What the owner of a link asks of a gate.

    Attributes:
        pending: bytes that came since the request and are not its reply.
        stray: bytes that came while no request was out.
        tail: the first of the bytes that were not the reply.
        poisoned: waiting longer for the reply cannot help.
    """

    pending: int
    stray: int
    tail: bytes
    poisoned: bool

    def send(self, request: Request) -> bytes: ...
    def feed(self, data: bytes) -> bytes | None: ...
    def disarm(self) -> None: ...
    def reset(self) -> None: ...


class _GateState:
    """State that both gates share."""

    def __init__(self) -> None:
        self.pending = 0
        self.stray = 0
        self.tail = b""
        self.poisoned = False
        self._request: Request | None = None
        self._buffer = b""

    def disarm(self) -> None:
        """The request is over; what comes from now on is stray."""
        self._request = None
        self._buffer = b""

    def reset(self) -> None:
        """Forget what came; called on a quiet line."""
        self.pending = self.stray = 0
        self._buffer = self.tail = b""

    def _arm(self, request: Request) -> None:
        self._request = request
        self._buffer = self.tail = b""
        self.pending = 0
        self.poisoned = False

    def _idle(self, data: bytes) -> None:
        self.stray += len(data)
        self.tail = (self.tail + data)[:TAIL] if self.stray > len(data) else data[:TAIL]

    def _keep(self, buffer: bytes) -> None:
        self.pending, self.tail = len(buffer), buffer[:TAIL]

    def _poison(self, buffer: bytes) -> None:
        self._keep(buffer)
        self.poisoned = True


class RtuGate(_GateState):
    """RTU: unit, function, byte count, length and CRC must be those of the reply; the rest is passed over.

    Two-wire adapters may send every request back. Such an echo can look like a reply: of a write it always does, of a
    read of 17 to 24 bits at 0x0300..0x03FF as well. So the gate learns whether the line echoes.
    """

    def __init__(self) -> None:
        super().__init__()
        self._echoes: bool | None = None  # not known yet

    def send(self, request: Request) -> bytes:
        """The frame to send; from now on its reply is expected."""
        self._arm(request)
        return request.rtu

    def feed(self, data: bytes) -> bytes | None:
        """The PDU of the reply among what came since the request, or nothing yet."""
        request = self._request
        if request is None:
            return self._idle(data)
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if self.poisoned:
            return None
        at, size = self._echo_size(buffer, request), request.reply_size + 3
        if buffer.startswith(request.rtu_head, at):
            if len(buffer) - at == size and _is_sealed(buffer[at:]):  # the usual case
                if not at and request.can_tell_echo:
                    self._echoes = False
                return buffer[at + 1 : -2]
            if len(buffer) - at < size:
                return self._keep(buffer)
        if len(buffer) > FLOOD:
            return self._poison(buffer)
        frames = list(_rtu_frames(buffer[at:], request, size))
        if len(frames) == 1 or (frames and request.is_write and len(set(frames)) == 1):
            return frames[0][1:-2]
        return self._keep(buffer)  # none, or two and no way to tell which

    def _echo_size(self, buffer: bytes, request: Request) -> int:
        """Bytes at the start that are the request itself, come back."""
        if self._echoes is False or not buffer.startswith(request.rtu):
            return 0
        if request.can_tell_echo:
            self._echoes = True
        # Not known and not to be told: a write's echo is as good as its reply (it is read back), a read's is not.
        return len(request.rtu) if self._echoes or not request.is_write else 0


def _rtu_frames(buffer: bytes, request: Request, reply_size: int) -> Iterator[bytes]:
    for at in range(len(buffer) - RTU_EXCEPTION_SIZE + 1):
        if buffer.startswith(request.rtu_head, at):
            size = reply_size
        elif buffer.startswith(request.rtu_exception, at):
            size = RTU_EXCEPTION_SIZE
        else:
            continue
        frame = buffer[at : at + size]
        if len(frame) == size and _is_sealed(frame):
            yield frame


class TcpGate(_GateState):
    """Modbus TCP: the MBAP header must answer ours. Replies to earlier requests are known by their transaction id.

    Args:
        first: number before the first one; by default any, so that a reply to the connection before is known.
    """

    def __init__(self, first: int | None = None) -> None:
        super().__init__()
        self._number = random.randrange(0x10000) if first is None else first  # noqa: S311 - not a secret
        self._transaction = b""
        self._head = b""

    def send(self, request: Request) -> bytes:
        """The frame to send; from now on its reply is expected."""
        self._arm(request)
        self._number = (self._number + 1) & 0xFFFF
        self._transaction = self._number.to_bytes(2, "big")
        self._head = self._transaction + request.tcp_head
        return self._transaction + request.tcp_tail

    def feed(self, data: bytes) -> bytes | None:
        """The PDU of the reply among what came since the request, or nothing yet."""
        request = self._request
        if request is None:
            return self._idle(data)
        buffer = self._buffer = self._buffer + data if self._buffer else data
        if len(buffer) == request.reply_size + MBAP + 1 and buffer.startswith(self._head):
            return buffer[MBAP + 1 :]
        if self.poisoned:
            return None
        return self._search(buffer, request)

    def _search(self, buffer: bytes, request: Request) -> bytes | None:
        at = 0
        while len(buffer) - at > MBAP:
            size = MBAP + int.from_bytes(buffer[at + 4 : at + 6], "big")
            if buffer[at + 2 : at + 4] != b"\0\0" or not MBAP + MBAP_LEAST < size <= MBAP + MBAP_MOST:
                return self._poison(buffer[at:])
            frame = buffer[at : at + size]
            if len(frame) < size:
                break
            if frame[:2] == self._transaction:
                answers = frame.startswith((self._head, self._transaction + request.tcp_exception))
                answers = answers and _may_follow(buffer[at + size :])
                return frame[MBAP + 1 :] if answers else self._poison(buffer[at:])
            at += size
        self._buffer = buffer[at:]
        return self._keep(buffer[at:])


def _may_follow(rest: bytes) -> bool:
    """Whether `rest` can begin another frame. If not, the one before was cut short and filled up with the next."""
    return not rest[2:4].strip(b"\0") and (
        len(rest) < MBAP or MBAP_LEAST < int.from_bytes(rest[4:6], "big") <= MBAP_MOST
    )


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


def _is_sealed(frame: bytes) -> bool:
    return crc16(frame[:-2]) == frame[-2] | frame[-1] << 8
