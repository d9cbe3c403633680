"""Jobs of one transaction side by side: what several of them ask for at the same time goes to the server as one.

A server that is asked one thing after the other mostly waits for the next question. Jobs of the same key stay one after
the other; the others must not mind what their neighbours have not finished, since they hold the same locks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from .transactions import Job, Row, select_locked

Outcome = tuple[Any, Exception | None]
"""What a job returned, or what it raised; a job that raised changed nothing."""
Kind = Literal["all", "one", "run", "many", "locked", "lock"]


class SpoiltError(Exception):
    """A job failed after it had changed something: all of the transaction must be undone."""


@dataclass(slots=True)
class Ask:
    """A statement that a job waits for. `values`: its parameters; of `many`, a sequence of them for each row."""

    kind: Kind
    sql: str
    values: Sequence[Any]

    def __await__(self) -> Generator[Ask, Any, Any]:
        return (yield self)


Execute = Callable[[Kind, str, Sequence[Sequence[Any]]], Awaitable[list[Any]]]
"""Kind, statement, the `values` of each that asks; the answer to each."""


class AskingTx:
    """A `Tx` that passes on what it is asked."""

    async def all(self, sql: str, *values: Any) -> list[Row]:
        return await Ask("all", sql, values)

    async def one(self, sql: str, *values: Any) -> Row | None:
        return await Ask("one", sql, values)

    async def locked(self, table: str, columns: str, **key: Any) -> Row | None:
        return await Ask("locked", select_locked(table, columns, tuple(key)), tuple(key.values()))

    async def run(self, sql: str, *values: Any) -> int:
        return await Ask("run", sql, values)

    async def many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        if rows:
            await Ask("many", sql, rows)

    async def lock(self, name: str) -> None:
        await Ask("lock", "", (name,))


@dataclass(slots=True)
class _Working:
    place: int
    coroutine: Coroutine[Any, Any, Any]
    ask: Ask | None = None
    answer: Any = None
    wrote: bool = False


@dataclass(slots=True)
class Waves:
    """Args: execute: asks the server."""

    execute: Execute
    _done: dict[int, Outcome] = field(default_factory=dict)

    async def run(self, jobs: Sequence[tuple[str, Job[Any]]]) -> list[Outcome]:
        """Outcome of each (key, job).

        Raises:
            SpoiltError: see there. And what `execute` raises; then nothing is known of any job.
        """
        queues: dict[str, list[tuple[int, Job[Any]]]] = {}
        for place, (key, job) in enumerate(jobs):
            queues.setdefault(key, []).append((place, job))
        working = {key: _begun(queue) for key, queue in queues.items()}
        try:
            while working:
                for key in list(working):
                    self._go_on(working, key, queues[key])
                await self._wave([one for one in working.values() if one.ask is not None])
        finally:
            for one in working.values():
                one.coroutine.close()
        return [self._done[place] for place in range(len(jobs))]

    def _go_on(self, working: dict[str, _Working], key: str, queue: list[tuple[int, Job[Any]]]) -> None:
        """Give a job its answer, and let it and those behind it go on until one asks again."""
        while True:
            one = working[key]
            try:
                one.ask = one.coroutine.send(one.answer)
                return
            except StopIteration as end:
                self._done[one.place] = end.value, None
            except Exception as error:
                if one.wrote:
                    raise SpoiltError from error
                self._done[one.place] = None, error
            del working[key]
            if not queue:
                return
            working[key] = _begun(queue)

    async def _wave(self, asking: Sequence[_Working]) -> None:
        groups: dict[tuple[Kind, str], list[_Working]] = {}
        for one in asking:
            assert one.ask is not None
            groups.setdefault((one.ask.kind, one.ask.sql), []).append(one)
        for (kind, sql), group in groups.items():
            answers = await self.execute(kind, sql, [one.ask.values for one in group if one.ask is not None])
            for one, answer in zip(group, answers, strict=True):
                one.ask, one.answer = None, answer
                one.wrote = one.wrote or kind in ("run", "many")


def _begun(queue: list[tuple[int, Job[Any]]]) -> _Working:
    place, job = queue.pop(0)
    return _Working(place, job(AskingTx()))
