"""The daemon's loops: named tasks of one TaskGroup that come and go while it runs."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Any, NoReturn

from ..sync.sqlite import StoreError
from ..words import mono_s

_log = logging.getLogger(__name__)

Run = Callable[[], Awaitable[Any]]

_PAUSE_CAP_S = 15.0  # less than what the watchdog calls fresh: one bad bus does not end the process
_LASTED_S = 60.0
_STOP_TRIES = 5
_STOP_TRY_S = 2.0
_FIRST_S = 12.0  # systemd kills after 20


class Loops:
    """Starts and stops loops by name. What a loop raises ends all of them, and `run` with them.

    Attributes:
        beats: for each critical loop that runs, its last heartbeat in monotonic seconds.
    """

    def __init__(self) -> None:
        self.beats: dict[str, Callable[[], float]] = {}
        self._waiting: dict[str, Run] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._group: asyncio.TaskGroup | None = None

    def __contains__(self, name: str) -> bool:
        return name in self._tasks or name in self._waiting

    def start(self, name: str, run: Run, beat: Callable[[], float] | None = None) -> None:
        """Run it from now on; before `run`, from its beginning on.

        Args:
            name: of the task; none of that name may run.
            run: never returns by itself.
            beat: its heartbeat, when a loop that hangs must end the process.
        """
        assert name not in self, f"loop {name} runs already"
        if beat is not None:
            self.beats[name] = beat
        if self._group is None:
            self._waiting[name] = run
        else:
            self._tasks[name] = self._group.create_task(_call(run), name=name)

    async def stop(self, *names: str) -> None:
        """End these loops together; harmless for names that do not run. Bounded: what hangs is left behind."""
        for name in names:
            self._waiting.pop(name, None)
            self.beats.pop(name, None)
        tasks = {task for name in names if (task := self._tasks.pop(name, None)) is not None}
        for _ in range(_STOP_TRIES):
            if not tasks:
                return
            for task in tasks:
                task.cancel()  # again: Python 3.11's wait_for, used by libraries, can swallow a cancellation
            _, tasks = await asyncio.wait(tasks, timeout=_STOP_TRY_S)
        for task in tasks:
            _log.error("%s does not end; it is left behind", task.get_name())

    async def run(self, first: str = "", ending: Callable[[], None] = lambda: None) -> NoReturn:
        """Run until cancelled, or until a loop fails: then its error is raised in a group.

        Args:
            first: this loop comes to its end before the others are cancelled, because it needs them for that. Bounded.
            ending: called before that when this was cancelled, and not when a loop failed.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            waiting, self._waiting = self._waiting, {}
            for name, run in waiting.items():
                self._tasks[name] = group.create_task(_call(run), name=name)
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                if not any(task.cancelling() for task in self._tasks.values()):
                    ending()
                await self._end(self._tasks.get(first))
        raise AssertionError("unreachable")

    async def _end(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            if not task.cancelling():  # a loop that failed has cancelled it already: once is enough
                task.cancel()
            await asyncio.wait([task], timeout=_FIRST_S)


async def _call(run: Run) -> None:
    await run()


def again(name: str, run: Run) -> Run:
    """Start a source or channel again whenever it fails; the store's error goes through and ends the process."""

    async def forever() -> None:
        pause_s = 1.0
        while True:
            started_s = mono_s()
            try:
                await run()
            except StoreError:
                raise
            except BaseExceptionGroup as errors:
                if errors.subgroup((StoreError, asyncio.CancelledError)) is not None:
                    raise
                _log.exception("%s failed; tried again in %.0f s", name, pause_s)
            except Exception:
                _log.exception("%s failed; tried again in %.0f s", name, pause_s)
            if mono_s() - started_s > _LASTED_S:
                pause_s = 1.0
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            pause_s = min(pause_s * 2, _PAUSE_CAP_S)

    return forever
