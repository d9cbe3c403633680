"""The serial line to a modem, and one dialogue at a time on it. The only file of the alerts that imports pyserial.

Opening and closing a USB serial port may block for seconds when the stick hangs, so each happens on a thread of its
own; reading and writing are on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import termios
from collections.abc import Callable
from typing import TypeVar

import serial

from ....words import mono_s
from ..port import Fault
from ..threads import TURN_S, apart
from . import answers
from .answers import Answer, News, Stream
from .troubles import (
    LineLostError,
    NoAnswerError,
    RefusedCommandError,
    TroubleError,
    UnknownFateError,
    UnreadableError,
    shown,
)

OPEN_S = 15.0
CLOSE_S = 2.0
_QUIET_S = 0.2
_QUIET_LIMIT_S = 3.0
_WRITE_S = 5.0
_SLOW = 3.0  # times longer than the modem alone: what the SIM or the network has a part in
_ESCAPE, _SEND = b"\x1b", b"\x1a"
_PIECE = 4096

T = TypeVar("T")


class Line:
    """An open port. `open` makes one; `close` ends it. Not for two callers at a time.

    Args:
        port: of pyserial, open.
        answer_s: for an answer of the modem alone; three times as long where SIM or network have a part in it.
        told: called with what the modem says on its own, on the event loop.
        turn: called at least every `TURN_S` seconds while something is waited for.
    """

    def __init__(
        self, port: serial.Serial, answer_s: float, told: Callable[[News], None], turn: Callable[[], None]
    ) -> None:
        self._port = port
        self._answer_s = answer_s
        self._fd: int = port.fileno()
        self._name = port.port
        self._told = told
        self._turn = turn
        self._stream = Stream()
        self._arrived = asyncio.Event()
        self._lost = ""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._fd, self._read)

    @classmethod
    async def open(
        cls, path: str, baud: int, answer_s: float, told: Callable[[News], None], turn: Callable[[], None]
    ) -> Line:
        """Open the port for us alone. Raises TroubleError."""
        try:
            port = await apart(lambda: _open(path, baud), OPEN_S, turn=turn, late=serial.Serial.close)
        except TimeoutError:
            raise TroubleError(Fault.SILENT, f"{path}: opening takes longer than {OPEN_S:g} s") from None
        except (OSError, ValueError, termios.error) as error:
            raise _cannot_open(path, error) from error
        return cls(port, answer_s, told, turn)

    async def close(self) -> None:
        """Close within `CLOSE_S`, or leave it to its thread."""
        self._loop.remove_reader(self._fd)
        self._lost = self._lost or "closed"
        with contextlib.suppress(OSError, TimeoutError, termios.error):
            await apart(self._port.close, CLOSE_S, turn=self._turn)

    async def wait(self, wake: asyncio.Event, limit_s: float) -> None:
        """Until `wake` is set or the time is over. Raises LineLostError."""
        if self._lost:
            raise LineLostError(f"{self._name}: {self._lost}")
        self._turn()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(limit_s, TURN_S)):
                await wake.wait()
        if self._lost:
            raise LineLostError(f"{self._name}: {self._lost}")

    async def ask(self, command: str, *, name: str = "", slow: bool = False, tries: int = 2) -> str:
        """The text of an answer that ended with OK. Asks again when none comes, so only for what may be said twice.

        Args:
            command: without `AT`.
            name: of the answer's lines, as `+CSQ`.
            slow: SIM or network have a part in the answer.

        Raises:
            RefusedCommandError, NoAnswerError, LineLostError.
        """
        timeout_s = self._answer_s * (_SLOW if slow else 1.0)
        for last in range(tries):
            answer = await self._try(command, name, timeout_s)
            if answer is not None:
                if answer.error:
                    raise RefusedCommandError(command, answer.error)
                return answer.text
            if last < tries - 1:
                await self.settle()
        raise NoAnswerError(f"{self._name}: no answer to AT{shown(command)} within {timeout_s:g} s")

    async def read(self, command: str, reads: Callable[[str], T | None], *, name: str, slow: bool = False) -> T:
        """What `reads` finds in the answer; asks again when rubbish made it unreadable.

        Raises:
            UnreadableError: it found nothing, three times.
            RefusedCommandError, NoAnswerError, LineLostError.
        """
        for _ in range(3):
            value = reads(await self.ask(command, name=name, slow=slow))
            if value is not None:
                return value
        raise UnreadableError(f"{self._name}: the answer to AT{command} cannot be read")

    async def submit(self, length: int, pdu: str, timeout_s: float) -> int | None:
        """AT+CMGS: hand one PDU over; the network may take `timeout_s`.

        Returns:
            the message reference; None when the modem took the PDU and its number was lost.

        Raises:
            RefusedCommandError: the modem or the network refuses it.
            NoAnswerError: no prompt: nothing was sent.
            UnknownFateError: the PDU was written and no answer came.
            LineLostError.
        """
        await self._prompt(f"+CMGS={length}")
        await self._write(pdu.encode("ascii") + _SEND)
        try:
            answer = await self._until(lambda: self._stream.answer, timeout_s)
        except NoAnswerError:
            answer = Answer(text=self._stream.text)  # its OK may be lost
        if answer.error:
            raise RefusedCommandError("+CMGS", answer.error)
        if "+CMGS:" not in answer.text:  # an OK alone may be a late one, of another command
            raise UnknownFateError(f"{self._name}: no answer to a message within {timeout_s:g} s")
        return answers.message_reference(answer.text)

    async def settle(self) -> None:
        """After silence: leave a prompt that may be open, and wait until nothing more comes. Raises LineLostError."""
        await self._write(_ESCAPE + b"\r")
        end_s = mono_s() + _QUIET_LIMIT_S
        while mono_s() < end_s:
            self._arrived.clear()
            await self.wait(self._arrived, _QUIET_S)
            if not self._arrived.is_set():
                return

    async def _try(self, command: str, name: str, timeout_s: float) -> Answer | None:
        self._stream.ask(name)
        await self._write(f"AT{command}\r".encode("ascii"))
        try:
            return await self._until(lambda: self._stream.answer, timeout_s)
        except NoAnswerError:
            return None

    async def _prompt(self, command: str) -> None:
        """Until the modem wants the PDU; once more when the prompt was lost."""
        for _ in range(2):
            self._stream.ask("+CMGS")
            await self._write(f"AT{command}\r".encode("ascii"))
            with contextlib.suppress(NoAnswerError):
                end = await self._until(lambda: self._stream.prompted or self._stream.answer, self._answer_s)
                if isinstance(end, Answer):
                    raise RefusedCommandError(command, end.error or "OK instead of a prompt")
                return
            await self.settle()
        raise NoAnswerError(f"{self._name}: no prompt for a message within {self._answer_s:g} s")

    async def _until(self, found: Callable[[], T | None], timeout_s: float) -> T:
        """What `found` returns first. Raises NoAnswerError, LineLostError."""
        end_s = mono_s() + timeout_s
        while True:
            if value := found():
                return value
            rest_s = end_s - mono_s()
            if rest_s <= 0:
                raise NoAnswerError(f"{self._name}: no answer within {timeout_s:g} s")
            self._arrived.clear()
            await self.wait(self._arrived, rest_s)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, _PIECE)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            data, self._lost = b"", error.strerror or "the port is gone"
        if data:
            for news in self._stream.feed(data):
                self._told(news)
        else:
            self._lost = self._lost or "the port is gone"
            self._loop.remove_reader(self._fd)
        self._arrived.set()

    async def _write(self, data: bytes) -> None:
        end_s = mono_s() + _WRITE_S
        while data:
            try:
                data = data[os.write(self._fd, data) :]
            except (BlockingIOError, InterruptedError):
                if mono_s() > end_s:
                    raise NoAnswerError(f"{self._name}: the modem takes no more bytes") from None
                await self.wait(asyncio.Event(), 0.05)
            except OSError as error:
                raise LineLostError(f"{self._name}: {error.strerror}") from error


def _open(path: str, baud: int) -> serial.Serial:
    return serial.Serial(path, baud, timeout=0, write_timeout=0, exclusive=True)


def _cannot_open(path: str, error: Exception) -> TroubleError:
    """Nobody there, not for us, or another program has it."""
    number = getattr(error, "errno", None)
    match number:
        case 2 | 6 | 19:  # ENOENT, ENXIO, ENODEV
            return TroubleError(Fault.OFFLINE, f"{path} is not there", hint="plug the modem in; see /dev/serial/by-id")
        case 1 | 13:  # EPERM, EACCES
            return TroubleError(Fault.REFUSING, f"{path}: no permission", hint="the service's user needs group dialout")
        case 11 | 16:  # EAGAIN, EBUSY
            return TroubleError(
                Fault.REFUSING, f"{path}: another program has it", hint="ModemManager? systemd/60-sitewarden.rules"
            )
    return TroubleError(Fault.OFFLINE, f"{path}: {error}", hint="it must be the modem's AT port")
