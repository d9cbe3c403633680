"""Exports of the history while the daemon runs: each in a process of its own, its file streamed as it is made."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec

from ..errors import RefusedError, TransientError
from .history_export import Order

MOST = 2
"""At the same time: a third one is asked to wait."""
_CHUNK_BYTES = 64 * 1024
_REMEMBERED = 50
_MODULE = f"{__package__}.history_export"


@dataclass(slots=True)
class Progress:
    """How far an export is. `state`: running, done, failed."""

    done: int = 0
    total: int = 0
    state: str = "running"


class Export:
    """A running one. `progress` says how far it is."""

    def __init__(self, process: asyncio.subprocess.Process, progress: Progress) -> None:
        self._process, self.progress = process, progress
        self._error = ""

    async def read(self) -> bytes:
        """The next piece of the file; empty at its end. Raises TransientError when it cannot be finished."""
        assert self._process.stdout is not None
        if piece := await self._process.stdout.read(_CHUNK_BYTES):
            return piece
        if await self._process.wait() != 0:
            self.progress.state = "failed"
            raise TransientError(self._error or f"the export ended with {self._process.returncode}")
        self.progress.state = "done"
        return b""

    async def listen(self) -> None:
        """Follow what the process says of itself, to its end."""
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            match line.decode(errors="replace").split():
                case [done, total] if done.isdecimal() and total.isdecimal():
                    self.progress.done, self.progress.total = int(done), int(total)
                case words if words:
                    self._error = " ".join(words)


class Exports:
    """Starts exports, at most two at a time, and knows how far they are."""

    def __init__(self) -> None:
        self._running = 0
        self._progress: dict[str, Progress] = {}

    def progress(self, key: str) -> Progress | None:
        """Of one of the newest exports; None where it is not known."""
        return self._progress.get(key)

    def require_room(self) -> None:
        """Raises RefusedError `busy`."""
        if self._running >= MOST:
            hint = "wait until one of them is done"
            raise RefusedError("busy", f"{MOST} exports are running", hint=hint, retry_s=5.0)

    @asynccontextmanager
    async def start(self, order: Order, key: str = "") -> AsyncIterator[Export]:
        """An export for the length of the block; what is left of it ends with the block.

        Args:
            key: that `progress` will be asked with; empty: nobody will.

        Raises:
            RefusedError: `busy`.
        """
        self.require_room()
        progress = Progress()
        if key:
            self._progress[key] = progress
            for old in list(self._progress)[:-_REMEMBERED]:
                del self._progress[old]
        self._running += 1
        try:
            async with _process(order) as process:
                export = Export(process, progress)
                listening = asyncio.create_task(export.listen(), name="export-progress")
                try:
                    yield export
                finally:
                    listening.cancel()
        finally:
            self._running -= 1
            if progress.state == "running":
                progress.state = "failed"


@asynccontextmanager
async def _process(order: Order) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", _MODULE),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # a Ctrl-C is the daemon's to answer
    )
    try:
        assert process.stdin is not None
        process.stdin.write(msgspec.json.encode(order))
        process.stdin.close()
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
