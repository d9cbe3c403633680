"""Group commit over a database that is waited for: jobs of one key stay in order, others go beside them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from .transactions import Job, UnavailableError
from .waves import Outcome, SpoiltError

T = TypeVar("T")

MOST_IN_A_COMMIT = 128
_MOST_WAITING = 2_000
_RETRIES = 4
_PATIENCE_S = 30.0

Together = Callable[[Sequence[tuple[str, Job[Any]]], bool], Awaitable[list[Outcome]]]
"""Runs (key, job) in one transaction. The second argument: one after the other, each behind a savepoint of its own.

Raises `ConflictError`, `SpoiltError`; UnavailableError and others: nothing is known to have been committed.
"""


class ConflictError(Exception):
    """Two transactions held what the other needed, or made the same row; ours was undone.

    Args:
        own: what the job raises when that comes again and again; None: others are to blame.
    """

    def __init__(self, own: Exception | None = None) -> None:
        super().__init__("others were in the way")
        self.own = own


@dataclass(frozen=True, slots=True)
class _Waiting:
    key: str
    job: Job[Any]
    future: asyncio.Future[Any]


class Lanes:
    """Commits what waits, on as many connections as there are lanes.

    Within a group, jobs go in the order of their keys: two processes then take the rows that they lock in one order,
    and neither waits for the other for long.
    """

    def __init__(self, together: Together, lanes: int) -> None:
        self._together = together
        self._queues: list[asyncio.Queue[_Waiting]] = [asyncio.Queue(_MOST_WAITING) for _ in range(lanes)]
        self._tasks: list[asyncio.Task[NoReturn]] = []

    def start(self) -> None:
        """Begin to work, until `close`."""
        self._tasks = [asyncio.create_task(self._run(queue), name="cloud lane") for queue in self._queues]

    async def close(self) -> None:
        """Commit what waits; what a dead server keeps waiting is given up after a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                for queue in self._queues:
                    await queue.join()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for queue in self._queues:
            while not queue.empty():
                _settle(queue.get_nowait().future, None, UnavailableError("the store was closed"))

    async def put(self, job: Job[T], key: str) -> T:
        """Await a job's commit. Whoever asked may go: the job is done all the same."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        place = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % len(self._queues)
        await self._queues[place].put(_Waiting(key, job, future))
        return await asyncio.shield(future)

    async def _run(self, queue: asyncio.Queue[_Waiting]) -> NoReturn:
        while True:
            group = [await queue.get()]
            while len(group) < MOST_IN_A_COMMIT and not queue.empty():
                group.append(queue.get_nowait())
            try:
                await self._commit(sorted(group, key=lambda waiting: waiting.key))
            finally:
                for _ in group:
                    queue.task_done()
            del group  # what the jobs hold, perhaps megabytes, while the next one is waited for

    async def _commit(self, group: Sequence[_Waiting]) -> None:
        jobs = [(waiting.key, waiting.job) for waiting in group]
        try:
            try:
                done = await self._together(jobs, False)
            except SpoiltError:
                done = await self._together(jobs, True)
        except ConflictError:
            for waiting in group:  # alone each of them holds fewer locks
                await self._alone(waiting)
        except BaseException as error:
            for waiting in group:
                _settle(waiting.future, None, error if isinstance(error, Exception) else _given_up())
            if not isinstance(error, Exception):
                raise
        else:
            for waiting, (value, failure) in zip(group, done, strict=True):
                _settle(waiting.future, value, failure)

    async def _alone(self, waiting: _Waiting) -> None:
        problem: Exception = UnavailableError("others held what was needed, again and again")
        for _ in range(_RETRIES):
            try:
                ((value, failure),) = await self._together([(waiting.key, waiting.job)], True)
            except ConflictError as error:
                problem = error.own or problem
                continue
            except BaseException as error:
                _settle(waiting.future, None, error if isinstance(error, Exception) else _given_up())
                if not isinstance(error, Exception):
                    raise
                return
            _settle(waiting.future, value, failure)
            return
        _settle(waiting.future, None, problem)


def _given_up() -> UnavailableError:
    return UnavailableError("the store was closed while it worked")


def _settle(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
        future.exception()  # whoever asked may have gone
