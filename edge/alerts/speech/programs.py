"""Other programs, bounded in time: what hangs is killed with everything that it started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ....errors import TransientError
from ....words import mono_s
from ..port import Fault

_DIES_S = 5.0
_LOOK_S = 1.0
_TOLD_BYTES = 200


class ProgramError(TransientError):
    """A program did not do what it is for. `fault`: what that means for the channel."""

    def __init__(self, fault: Fault, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.fault = fault


@dataclass(slots=True)
class Programs:
    """Runs programs one after the other.

    Attributes:
        beat: called at least every second while one runs.
        undead: killed, and still there: a driver that hangs in the kernel. Nothing is started beside them.
    """

    beat: Callable[[], None]
    undead: list[asyncio.subprocess.Process] = field(default_factory=list)

    async def run(self, command: Sequence[str], limit_s: float, *, text: str = "") -> bytes:
        """What it wrote to its standard output.

        Args:
            command: program and arguments.
            limit_s: then it is killed.
            text: its standard input.

        Raises:
            ProgramError: OFFLINE: it is not there, or ended with another code than 0; SILENT: it hung.
        """
        name = Path(command[0]).name
        self.undead = [process for process in self.undead if process.returncode is None]
        if self.undead:
            hint = "look at the sound device, and at the kernel's log; then start the gateway's machine again"
            raise ProgramError(Fault.SILENT, f"a {name} that was killed does not end", hint=hint)
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as told:
            given.write(text.encode())
            given.seek(0)
            try:
                process = await asyncio.create_subprocess_exec(
                    *command, stdin=given, stdout=out, stderr=told, start_new_session=True
                )
            except OSError as error:
                message = f"{command[0]} cannot be started: {error.strerror or error}"
                raise ProgramError(Fault.OFFLINE, message, hint=f"is {name} installed?") from error
            try:
                code = await self._ended(process, limit_s)
            finally:
                await self._kill(process)
            if code is None:
                raise ProgramError(Fault.SILENT, f"{name} hung and was killed after {limit_s:.0f} s")
            if code:
                told.seek(0)
                words = " ".join(told.read()[-_TOLD_BYTES:].decode(errors="replace").split())
                raise ProgramError(Fault.OFFLINE, f"{name} ended with {code}: {words or 'it says nothing'}")
            out.seek(0)
            return out.read()

    async def _ended(self, process: asyncio.subprocess.Process, limit_s: float) -> int | None:
        """Its code, None when the time is over."""
        end_s = mono_s() + limit_s
        while (left_s := end_s - mono_s()) > 0:
            self.beat()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left_s, _LOOK_S)):
                    return await process.wait()
        return None

    async def _kill(self, process: asyncio.subprocess.Process) -> None:
        """With all that it has started. One that has ended is left alone: its number may be another's by now."""
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        if await self._ended(process, _DIES_S) is None:
            self.undead.append(process)
