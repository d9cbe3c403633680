"""Processes that check signatures and contents beside the one that serves, when many gateways come at once.

Python computes on one core at a time: half of what a batch costs is its signature and the look into its content, and
both need nothing but bytes. While few requests are under way nothing of this runs; a helper that dies is replaced, and
what it had in hand is worked out here.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from asyncio.subprocess import PIPE
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import msgspec

from ..sync.wire import Claim
from .checker import HOLDS, LOOK, looked_into
from .signatures import holds

log = logging.getLogger(__name__)

_MOST_BY_ITSELF = 2  # one core and more stay with the service and its database
_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_LASTS_S = 30.0
_PATIENCE_S = 10.0  # for an answer; a request takes milliseconds
_MOST_JOBS = 16  # of one request: several helpers share what comes at once

Looked = tuple[bytes | None, int, str]


class Checkers:
    """Up to `count` helping processes. `run` must run in a task.

    Args:
        count: None: what this machine's cores suggest, none where there is one.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = min(_MOST_BY_ITSELF, max(0, _cores() - 1)) if count is None else count
        self._wanted = asyncio.Event()
        self._helpers: list[_Helper] = []

    @property
    def running(self) -> int:
        """Processes that take jobs now."""
        return len(self._helpers)

    def want(self) -> None:
        """Say that there is more to do than one core can: the processes are started, and stay."""
        self._wanted.set()

    async def holds(self, claim: Claim) -> bool:
        """Whether the key of a claim made its signature."""
        job = claim.key.public_bytes_raw(), claim.signature, claim.base
        done = await self._asked([HOLDS, *job]) if self._helpers else None
        return holds(*job) if done is None else bool(done[0])

    async def looked(self, body: bytes) -> Looked | None:
        """`checker.looked_into(body)`."""
        done = await self._asked([LOOK, body]) if self._helpers else None
        if done is None:
            return looked_into(body)
        return None if done[0] is None else (done[0][0], done[0][1], done[0][2])

    async def run(self) -> NoReturn:
        """Start the processes once they are wanted, and again when one has died; ends them when cancelled."""
        await self._wanted.wait()
        async with asyncio.TaskGroup() as group:
            for number in range(self.count):
                group.create_task(self._keep(number), name=f"cloud checker {number}")
            await asyncio.Event().wait()
        raise AssertionError("the group's tasks never return")

    async def _keep(self, number: int) -> NoReturn:
        pause_s = _PAUSE_S
        while True:
            begun_s = time.monotonic()
            try:
                await self._live()
                what = "ended"
            except OSError as error:
                what = f"could not be started: {error.strerror or error}"
            if time.monotonic() - begun_s > _LASTS_S:
                pause_s = _PAUSE_S
            log.warning("helping process %d %s; again in %.0f s, its work is done here", number, what, pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(_LONGEST_PAUSE_S, 2 * pause_s)

    async def _live(self) -> None:
        """From the start of one process to its end. Raises OSError: it could not be started."""
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", f"{__package__}.checker", stdin=PIPE, stdout=PIPE
        )
        assert process.stdin is not None
        assert process.stdout is not None
        helper = _Helper(process.stdin)
        try:
            self._helpers.append(helper)
            async with asyncio.TaskGroup() as group:
                watching = group.create_task(helper.watch(process.kill), name="cloud checker's watch")
                await helper.hear(process.stdout)
                watching.cancel()
        finally:
            self._helpers.remove(helper)
            helper.give_up()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _asked(self, job: Sequence[Any]) -> tuple[Any] | None:
        """The result in a tuple; None: its process has gone."""
        return await min(self._helpers, key=lambda helper: helper.load).ask(job)


class _Helper:
    """What one process has in hand. Jobs of one turn of the loop go together: each crossing costs as much as a job."""

    def __init__(self, requests: asyncio.StreamWriter) -> None:
        self._requests = requests
        self._waiting: list[tuple[Sequence[Any], asyncio.Future[tuple[Any] | None]]] = []
        self._asked: deque[list[asyncio.Future[tuple[Any] | None]]] = deque()
        self._encode = msgspec.msgpack.Encoder().encode
        self._heard_s = time.monotonic()
        self.load = 0

    def ask(self, job: Sequence[Any]) -> asyncio.Future[tuple[Any] | None]:
        """Resolves to the result in a tuple, or to None when the process has gone."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Any] | None] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._send)
        self._waiting.append((job, future))
        self.load += 1
        return future

    async def hear(self, answers: asyncio.StreamReader) -> None:
        """Give out what comes back, until nothing more can come."""
        decode = msgspec.msgpack.Decoder(list[Any]).decode
        with contextlib.suppress(EOFError, ConnectionError, ValueError, IndexError, msgspec.MsgspecError):
            while True:
                size = int.from_bytes(await answers.readexactly(4), "big")
                results = decode(await answers.readexactly(size))
                self._heard_s = time.monotonic()
                for future, result in zip(self._asked.popleft(), results, strict=True):
                    self._give(future, (result,))

    async def watch(self, end: Callable[[], None]) -> NoReturn:
        """Call `end` when an answer does not come."""
        while True:
            await asyncio.sleep(_PATIENCE_S / 2)
            if self._asked and time.monotonic() - self._heard_s > _PATIENCE_S:
                log.warning("a helping process does not answer")
                with contextlib.suppress(ProcessLookupError):
                    end()

    def give_up(self) -> None:
        """The process has gone: whoever waits works it out without it."""
        waiting = [future for _, future in self._waiting]
        self._waiting.clear()
        for future in [*waiting, *(future for group in self._asked for future in group)]:
            self._give(future, None)
        self._asked.clear()
        self._requests.close()

    def _send(self) -> None:
        if not self._asked:
            self._heard_s = time.monotonic()
        for begin in range(0, len(self._waiting), _MOST_JOBS):
            some = self._waiting[begin : begin + _MOST_JOBS]
            request = self._encode([job for job, _ in some])
            self._asked.append([future for _, future in some])
            self._requests.write(len(request).to_bytes(4, "big") + request)
        self._waiting.clear()

    def _give(self, future: asyncio.Future[tuple[Any] | None], result: tuple[Any] | None) -> None:
        self.load -= 1
        if not future.done():  # whoever asked may have gone
            future.set_result(result)


def _cores() -> int:
    """That this process may use."""
    return len(os.sched_getaffinity(0))
