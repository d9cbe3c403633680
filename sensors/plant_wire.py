"""The simulated plant's Modbus wires: a TCP server and an RTU slave on a pseudo-terminal.

Its own small server code, so that the gateway's client library is tested against something that it did not bring
along. Reads (FC03, FC04) are answered, and of boards writes of one register (FC06); everything else is an exception, as
simple devices do.
(Modbus Application Protocol V1.1b3; Modbus over Serial Line V1.02; Modbus Messaging on TCP/IP V1.0b.)
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import tty
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from ..errors import PermanentError
from .plant_board import Board
from .plant_devices import Image, Wire
from .plant_model import DeviceMode, DeviceState, Plant

_LOG = logging.getLogger(__name__)

_ILLEGAL_FUNCTION = 1
_ILLEGAL_ADDRESS = 2
_ILLEGAL_VALUE = 3
_TARGET_SILENT = 11
_MAX_READ = 125
_MAX_FRAME = 256
_WRITE_ONE = 6
QUIET_S = 0.05


def answer(pdu: bytes, image: Image) -> bytes:
    """The response PDU of a device whose registers hold `image`. Pure; never raises."""
    function = pdu[0] if pdu else 0
    table = {3: image.holding, 4: image.input}.get(function)
    if table is None:
        return bytes((function | 0x80, _ILLEGAL_FUNCTION))
    if len(pdu) != 5:
        return bytes((function | 0x80, _ILLEGAL_VALUE))
    address, count = struct.unpack(">HH", pdu[1:])
    if not 1 <= count <= _MAX_READ:
        return bytes((function | 0x80, _ILLEGAL_VALUE))
    words = [table.get(address + offset) for offset in range(count)]
    known = [item for item in words if item is not None]
    if len(known) != count:
        return bytes((function | 0x80, _ILLEGAL_ADDRESS))
    return struct.pack(f">BB{count}H", function, 2 * count, *known)


def answer_write(pdu: bytes, board: Board, *, obeys: bool) -> bytes:
    """The response PDU of a board to a write of one register. Args: obeys: see `Board.write`."""
    if len(pdu) != 5:
        return bytes((_WRITE_ONE | 0x80, _ILLEGAL_VALUE))
    address, code = struct.unpack(">HH", pdu[1:])
    error = board.write(address, code, obeys=obeys)
    return bytes((_WRITE_ONE | 0x80, error)) if error else pdu


def crc16(frame: bytes) -> bytes:
    """Modbus CRC, low byte first (Modbus over Serial Line V1.02, appendix B)."""
    crc = 0xFFFF
    for byte in frame:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ 0xA001 if crc & 1 else crc >> 1
    return struct.pack("<H", crc)


def is_frame(frame: bytes) -> bool:
    """Whether these bytes are one RTU frame with a right CRC."""
    return 4 <= len(frame) <= _MAX_FRAME and crc16(frame[:-2]) == frame[-2:]


def _request_length(buffer: bytes, at: int) -> int | None:
    """Length of the request that starts at `at`; None while unknown (the quiet time must decide)."""
    function = buffer[at + 1] if at + 1 < len(buffer) else 0
    if 1 <= function <= 6:
        return 8
    if function in (15, 16) and at + 6 < len(buffer):
        return 9 + buffer[at + 6]
    return None


def take_frames(buffer: bytes) -> tuple[list[bytes], bytes]:
    """Split what arrived so far into requests with a right CRC and the rest that may still become one.

    A pseudo-terminal has no 3.5-character silence, so frames are found by their known length and their CRC; bytes
    before a valid frame are noise and go away. Pure.
    """
    frames: list[bytes] = []
    start = at = 0
    while at < len(buffer):
        length = _request_length(buffer, at)
        if length is not None and at + length <= len(buffer) and is_frame(buffer[at : at + length]):
            frames.append(buffer[at : at + length])
            start = at = at + length
        else:
            at += 1
    return frames, buffer[start:][-_MAX_FRAME:]


def reply_to(state: DeviceState | None, pdu: bytes, plant: Plant, *, silent_target: bool = False) -> bytes | None:
    """What the unit answers now; None is silence. An unknown unit is silent, or exception 11 behind a TCP gateway."""
    if state is None:
        return bytes((pdu[0] | 0x80, _TARGET_SILENT)) if silent_target else None
    state.requests += 1
    if state.mode is DeviceMode.DEAD:
        return None
    if state.board is not None and pdu[:1] == bytes((_WRITE_ONE,)):
        if state.mode is DeviceMode.DEAF:
            return None
        return answer_write(pdu, state.board, obeys=state.mode is not DeviceMode.STUCK)
    return answer(pdu, plant.image(state.spec))


def _send_after(delay_s: float, send: Callable[[bytes], None], frame: bytes) -> None:
    if delay_s > 0:
        asyncio.get_running_loop().call_later(delay_s, send, frame)
    else:
        send(frame)


class ModbusTcpServer:
    """Modbus TCP with the units of one wire. `async with` listens; `port` is then the port in use."""

    def __init__(self, plant: Plant, host: str, port: int) -> None:
        self._plant = plant
        self._host = host
        self.port = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> ModbusTcpServer:
        self._server = await asyncio.start_server(self._talk, self._host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
            for writer in list(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away; it comes back when it wants
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request. Returns whether the stream still makes sense."""
        transaction, protocol, length, unit = struct.unpack(">HHHB", await reader.readexactly(7))
        if protocol != 0 or not 2 <= length <= 254:
            return False
        pdu = await reader.readexactly(length - 1)
        state = self._plant.units(Wire.TCP).get(unit)
        reply = reply_to(state, pdu, self._plant, silent_target=True)
        if reply is not None:
            frame = struct.pack(">HHHB", transaction, 0, len(reply) + 1, unit) + reply

            def send(frame: bytes) -> None:
                if not writer.is_closing():
                    writer.write(frame)

            _send_after(state.delay_s if state else 0.0, send, frame)
        return True


class RtuSlave:
    """Modbus RTU units behind a pseudo-terminal whose slave side is reachable at `link`.

    The plant keeps the slave side open itself: a reader may close and open it again without the line hanging up.
    What nobody reads is lost once the line's buffer is full, as on a real wire.
    """

    def __init__(self, plant: Plant, link: Path) -> None:
        self._plant = plant
        self._link = link
        self._master = -1
        self._slave = -1
        self._buffer = b""
        self._quiet: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> RtuSlave:
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        _point_link(self._link, os.ttyname(self._slave))
        asyncio.get_running_loop().add_reader(self._master, self._readable)
        return self

    async def __aexit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._master)
        if self._quiet is not None:
            self._quiet.cancel()
        with suppress(OSError):
            if self._link.is_symlink() and self._link.readlink() == Path(os.ttyname(self._slave)):
                self._link.unlink()
        for fd in (self._master, self._slave):
            os.close(fd)
        self._master = self._slave = -1

    def _readable(self) -> None:
        try:
            self._buffer += os.read(self._master, 4096)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            _LOG.exception("rs485: the pseudo-terminal is broken")
            asyncio.get_running_loop().remove_reader(self._master)
            return
        frames, self._buffer = take_frames(self._buffer)
        for frame in frames:
            self._serve(frame)
        if self._quiet is not None:
            self._quiet.cancel()
        self._quiet = asyncio.get_running_loop().call_later(QUIET_S, self._line_quiet) if self._buffer else None

    def _line_quiet(self) -> None:
        """The line fell silent: what is left is one frame of a function with unknown length, or noise."""
        frame, self._buffer, self._quiet = self._buffer, b"", None
        if is_frame(frame):
            self._serve(frame)

    def _serve(self, frame: bytes) -> None:
        state = self._plant.units(Wire.RS485).get(frame[0])
        reply = reply_to(state, frame[1:-2], self._plant)
        if reply is not None and state is not None:
            body = frame[:1] + reply
            _send_after(state.delay_s, self._send, body + crc16(body))

    def _send(self, frame: bytes) -> None:
        if self._master >= 0:
            with suppress(OSError):  # the line's buffer is full: nobody listens
                os.write(self._master, frame)


def _point_link(link: Path, target: str) -> None:
    """Make `link` a symlink to `target`, in place of an older one. Raises PermanentError when it is something else."""
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        raise PermanentError(
            f"{link} is not a symlink, so the serial line cannot be put there",
            hint="choose another serial_link or move the file away",
        )
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(target)
