"""Child processes that are started, watched, started again, and never outlive their parent."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from ..console.language import Say
from ..errors import PermanentError
from .words import phrases

_PR_SET_PDEATHSIG = 1
_AGAIN_S = (1.0, 2.0)
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """One child.

    Attributes:
        log: file that takes its output.
        healthy: whether it answers; asked again and again while it starts.
        start_s: how long it may take until it answers.
    """

    name: str
    command: tuple[str, ...]
    log: Path
    healthy: Callable[[], Awaitable[bool]]
    start_s: float = 30.0


class Child:
    """One running child. `changed` is called whenever its process id changes."""

    def __init__(self, spec: ChildSpec, say: Callable[[str], None], changed: Callable[[], None]) -> None:
        self.spec = spec
        self._say = say
        self._changed = changed
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process; None when none runs."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start it and wait until it answers.

        Raises:
            PermanentError: it ended at once or does not answer; the hint holds the end of its log.
        """
        tr = phrases()
        with suppress(FileNotFoundError):
            self.spec.log.replace(self.spec.log.with_suffix(".log.1"))
        process = await self._spawn()
        try:
            async with asyncio.timeout(self.spec.start_s):
                while not await self.spec.healthy():
                    if process.returncode is not None:
                        what = tr("ended_starting", self.spec.name, _ending(process, tr))
                        raise PermanentError(what, hint=self._tail(tr))
                    await asyncio.sleep(0.1)
        except TimeoutError:
            what = tr("silent_after", self.spec.name, f"{self.spec.start_s:.0f}")
            raise PermanentError(what, hint=self._tail(tr)) from None

    async def watch(self) -> NoReturn:
        """Start it again whenever it ends, after 1 s at first and 2 s from then on, for ever."""
        times, tr = 0, phrases()
        while True:
            if self._process is not None:
                await self._process.wait()
                ending, times = _ending(self._process, tr), times + 1
                pause_s = _AGAIN_S[min(times, len(_AGAIN_S)) - 1]
                self._say(tr("again", self.spec.name, ending, f"{pause_s:g}", self.spec.log))
                self._changed()
                await asyncio.sleep(pause_s)
            try:
                await self._spawn()
            except OSError as error:
                self._say(tr("cannot_start", self.spec.name, error))

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then SIGKILL after `grace_s`."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(grace_s):
                await process.wait()
        except TimeoutError:
            self._say(phrases()("was_killed", self.spec.name, f"{grace_s:.1f}"))
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _spawn(self) -> asyncio.subprocess.Process:
        self.spec.log.parent.mkdir(parents=True, exist_ok=True)
        with self.spec.log.open("ab") as log:
            self._process = await spawn(self.spec.command, output=log.fileno())
        self._changed()
        return self._process

    def _tail(self, tr: Say) -> str:
        lines = self.spec.log.read_text("utf-8", errors="replace").splitlines()[-12:]
        return f"{tr('end_of', self.spec.log)}\n  " + "\n  ".join(lines or [tr("empty")])


async def spawn(command: Sequence[str], *, output: int, stdin: int = subprocess.DEVNULL) -> asyncio.subprocess.Process:
    """Start a process in its own session (Ctrl-C does not reach it) that the kernel kills when this one dies."""
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=stdin,
        stdout=output,
        stderr=subprocess.STDOUT if output != subprocess.PIPE else subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_dying_with(os.getpid()),
    )


async def ask(command: Sequence[str], *, given: str = "", bound_s: float = 60.0) -> str:
    """Run a short command and return its output. Raises PermanentError with its complaint."""
    process = await spawn(command, output=subprocess.PIPE, stdin=subprocess.PIPE)
    try:
        async with asyncio.timeout(bound_s):
            out, complaint = await process.communicate(given.encode())
    except TimeoutError:
        raise PermanentError(f"`{' '.join(command[-4:])}` does not end after {bound_s:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        hint = complaint.decode(errors="replace").strip()[-2000:]
        raise PermanentError(f"`{' '.join(command)}` {_ending(process, phrases())}", hint=hint)
    return out.decode()


async def stop_all(children: Sequence[Child], bound_s: float = 5.0) -> None:
    """Stop children one after the other, the last started first, all within about `bound_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + bound_s
    for child in reversed(children):
        await child.stop(max(0.2, min(2.5, deadline - loop.time())))


def _dying_with(parent: int) -> Callable[[], None] | None:
    """What a child does first: ask to be killed when the parent dies (Linux), unless it died already."""
    libc = _LIBC
    if libc is None:
        return None

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return prepare


def _ending(process: asyncio.subprocess.Process, tr: Say) -> str:
    code = process.returncode or 0
    return tr("killed_by", signal.Signals(-code).name) if code < 0 else tr("ended_with", code)
