"""A reading's way: history buffer and alarm rules, one transaction, then the announcement.

Everything that changes an alarm passes through here on the loop, in order; records are committed in that order.
What was not committed is not announced: when the store or a rule fails, `commit` raises and the process ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from ..sync.history import History
from ..sync.journal import Draft, Journal, Record, StoreError
from ..words import Instant, Reading, mono_s, now
from .alarms.engine import Engine
from .ladders.alarms import with_ladders
from .ladders.keeper import CHECK_S, Ladders
from .values import Values

TICK_S = 0.5
_BEAT_S = 5.0
_MOST_DRAFTS = 500
_TELLING = ("alarm.", "ladder.step", "freeze.", "deviation.")
"""Kinds of records that may tell people."""


@dataclass(slots=True)
class PipelineHealth:
    """Heartbeats (monotonic seconds) of the two loops, and counters."""

    tick_s: float = field(default_factory=mono_s)
    commit_s: float = field(default_factory=mono_s)
    readings: int = 0
    records: int = 0


class Pipeline:
    """Owns the alarm engine.

    Args:
        engine: all alarms.
        journal: open.
        history: open.
        values: newest readings.
        ladders: of everything that is open.
        notify: for a draft that may tell people, the `notify` list of its body.
        health: heartbeats and counters.
        instant: the clock; tests give their own.
    """

    def __init__(
        self,
        engine: Engine,
        journal: Journal,
        history: History,
        values: Values,
        ladders: Ladders,
        *,
        notify: Callable[[Draft], list[dict[str, Any]]],
        health: PipelineHealth,
        instant: Callable[[], Instant] = now,
    ) -> None:
        self.engine = engine
        self.ladders = ladders
        self._journal = journal
        self._history = history
        self._values = values
        self._notify = notify
        self._health = health
        self._instant = instant
        self._queue: asyncio.Queue[tuple[list[Draft], asyncio.Future[list[Record]] | None]] = asyncio.Queue()
        self._defect: Exception | None = None
        self._failed = False

    def accept(self, readings: list[Reading]) -> None:
        """The sink of every driver. Cheap, never waits, never raises: what fails here is no fault of the driver."""
        if self._defect is not None:
            return
        instant = self._instant()
        self._health.readings += len(readings)
        drafts: list[Draft] = []
        try:
            self._values.put(readings)
            self._history.add(readings)
            self.engine.read_all(readings, instant, drafts)
        except Exception as error:
            self._defect = error  # `commit` raises it, after what was decided before
        if drafts or self._defect is not None:
            self.record(drafts)

    def record(self, drafts: list[Draft]) -> None:
        """Commit `drafts`, and what ladders make of them, after everything that was queued before; nobody waits."""
        self._queue.put_nowait((with_ladders(drafts, self.ladders), None))

    async def command(self, decide: Callable[[Engine, Instant], list[Draft]]) -> list[Record]:
        """Run a person's command and wait until its records are committed.

        Args:
            decide: called on the loop, so in order with everything else; raises RefusedError to refuse.

        Returns:
            The committed records; empty when the command changed nothing: then what it found is committed.
        """
        drafts = with_ladders(decide(self.engine, self._instant()), self.ladders)
        future: asyncio.Future[list[Record]] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((drafts, future))
        return await future

    async def tick(self) -> None:
        """Let time pass in the rules and on the ladders, for ever."""
        climbed_s = -CHECK_S
        while True:
            instant = self._instant()
            self._health.tick_s = mono_s()
            drafts = self.engine.tick(instant)
            if drafts:
                self.record(drafts)
            if instant.mono_s - climbed_s >= CHECK_S:
                climbed_s = instant.mono_s
                self._climb(self.ladders.tick(instant))
            await asyncio.sleep(TICK_S)

    def start_ladders(self) -> None:
        """After a restart, before `tick`: what is overdue is climbed."""
        self._climb(self.ladders.start(self._instant()))

    def _climb(self, drafts: list[Draft]) -> None:
        if drafts:
            self._queue.put_nowait((drafts, None))

    async def commit(self) -> None:
        """Commit what is queued, for ever. Raises StoreError when the store fails, and what a rule raised."""
        while True:
            self._health.commit_s = mono_s()
            try:
                async with asyncio.timeout(_BEAT_S):
                    first = await self._queue.get()
            except TimeoutError:
                continue
            group = [first]
            while not self._queue.empty() and sum(len(drafts) for drafts, _ in group) < _MOST_DRAFTS:
                group.append(self._queue.get_nowait())
            await self._commit(group)
            if self._defect is not None:
                raise self._defect

    async def flush(self) -> None:
        """Commit what is still queued, for the end. Nothing when a rule failed: what it did not decide came before.

        A journal that failed keeps it for the one that takes its place (`Journal.unkept`).
        """
        group = []
        while not self._queue.empty():
            group.append(self._queue.get_nowait())
        if group and not self._failed:
            await self._commit(group)

    async def _commit(self, group: list[tuple[list[Draft], asyncio.Future[list[Record]] | None]]) -> None:
        try:
            drafts = [self._with_notify(draft) for drafts, _ in group for draft in drafts]
            records = await self._journal.append(drafts) if drafts else []
        except BaseException as error:
            self._failed = self._failed or (isinstance(error, Exception) and not isinstance(error, StoreError))
            for _, future in group:
                if future is not None and not future.done():
                    future.set_exception(error if isinstance(error, Exception) else ConnectionAbortedError())
            raise
        self._health.records += len(records)
        start = 0
        for own, future in group:
            if future is not None and not future.done():
                future.set_result(records[start : start + len(own)])
            start += len(own)

    def _with_notify(self, draft: Draft) -> Draft:
        if not draft.kind.startswith(_TELLING):
            return draft
        body: dict[str, Any] = {**draft.body, "notify": self._notify(draft)}
        return replace(draft, body=body)
