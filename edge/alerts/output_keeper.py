"""Keeps the outputs of a beacon in the states that are wanted, for ever, and knows which of them are.

Each device has one task: its outputs are written one after the other, the most urgent first, each read back by whoever
writes it, and again every few seconds so that the device's own watchdog stays quiet. What a dead device costs its wire
is bounded by pauses; a changed state does not wait for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ...words import mono_s
from .picture import Part
from .port import ChannelHealth, Fault

_log = logging.getLogger(__name__)

SetOutput = Callable[[str, str], Awaitable[object]]
"""Brings an output (`area.device.output`) into a state; returns when that was read back, else raises. It is called with
the same state again and again: whoever implements it records changes, not repetitions."""

_RETRY_BASE_S = 1.0
_RETRY_CAP_S = 60.0
_AGAIN_S = 1.0  # a failing output is not tried more often, whatever happens
_SHARE = 4  # pauses of a failing device are so many times as long as its attempts keep the wire busy
_WHY_LIMIT = 200
_SILENT = frozenset({"timeout", "bad_frame", "TimeoutError"})
_OFFLINE = frozenset({"no_connection"})
_PART_ZH = {Part.SIREN: "警号", Part.RED: "红灯", Part.AMBER: "黄灯", Part.GREEN: "绿灯"}
_FAULT_ZH = {Fault.OFFLINE: "设备不在线", Fault.SILENT: "设备没有应答", Fault.REFUSING: "设备没有照做"}
_WORST_FIRST = (Fault.OFFLINE, Fault.SILENT, Fault.REFUSING)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRef:
    """An output of the site, `area.device.output`, and the states that its profile gives it."""

    id: str
    states: tuple[str, ...] = ("off", "on")

    @property
    def device(self) -> str:
        return self.id.rpartition(".")[0]


@dataclass(slots=True)
class Line:
    """One output and what is known of it.

    Attributes:
        wanted: None before anybody has wanted anything: then nothing is written.
        confirmed: as it was read back by the last write; None when that failed.
        due_s: when it is written next, monotonic seconds. tried_s: when the last write began.
        successes, misses: of writes, since the start. failures: misses since the last success.
        why, why_zh: the last miss, for a person; empty after a success.
    """

    part: Part
    ref: OutputRef
    wanted: str | None = None
    confirmed: str | None = None
    due_s: float = 0.0
    tried_s: float = -math.inf
    successes: int = 0
    misses: int = 0
    failures: int = 0
    fault: Fault = Fault.NONE
    why: str = ""
    why_zh: str = ""

    @property
    def is_right(self) -> bool:
        return self.confirmed is not None and self.confirmed == self.wanted


class OutputKeeper:
    """The outputs of one beacon. `run` must run in a task.

    Args:
        name: of the beacon, for the log.
        outputs: of the beacon.
        set_output: writes one and reads it back.
        refresh_s: every output is written so often though nothing has changed.
        write_s: the longest that one write may take.
        health: of the channel; its fault, and what is wanted and confirmed, are kept up to date.

    Attributes:
        lines: of the outputs, the most urgent first.
    """

    def __init__(
        self,
        name: str,
        outputs: Mapping[Part, OutputRef],
        set_output: SetOutput,
        *,
        refresh_s: float,
        write_s: float,
        health: ChannelHealth,
    ) -> None:
        self.lines = {part: Line(part, outputs[part]) for part in Part if part in outputs}
        self._name, self._set_output, self._health = name, set_output, health
        self._refresh_s, self._write_s = refresh_s, write_s
        self._wake = {line.ref.device: asyncio.Event() for line in self.lines.values()}
        self._waiters: list[asyncio.Future[None]] = []

    def want(self, states: Mapping[Part, str]) -> None:
        """From now on these states."""
        now_s = mono_s()
        for part, state in states.items():
            line = self.lines[part]
            if line.wanted != state:
                line.wanted = state
                line.due_s = max(now_s, line.tried_s + _AGAIN_S) if line.failures else now_s
        self.tell()

    def refresh(self) -> None:
        """Write again at once what does not fail: somebody wants a fresh read-back."""
        for line in self.lines.values():
            if line.wanted is not None and not line.failures:
                line.due_s = mono_s()
        self.tell()

    def tell(self) -> None:
        """Something has changed: wake the tasks and everybody who waits for news."""
        self._describe()
        for event in self._wake.values():
            event.set()
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def news(self, until_s: float) -> bool:
        """Wait until something has changed; False when the time is over (monotonic seconds)."""
        if (left_s := until_s - mono_s()) <= 0:
            return False
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(left_s):
                await waiter
        except TimeoutError:
            return False
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)
        return True

    async def set_once(self, states: Iterable[tuple[Part, str]]) -> None:
        """Write these once, while `run` does not run."""
        for part, state in states:
            output = self.lines[part].ref.id
            try:
                await self._set_output(output, state)
            except Exception as error:  # the others are to be written all the same
                _log.warning("beacon %s: %s did not become %s: %s", self._name, output, state, error)

    async def run(self) -> None:
        """Never returns."""
        async with asyncio.TaskGroup() as group:
            for device in self._wake:
                lines = [line for line in self.lines.values() if line.ref.device == device]
                group.create_task(self._keep(device, lines), name=f"beacon {self._name} {device}")

    async def _keep(self, device: str, lines: Sequence[Line]) -> None:
        """Write what is due, the most urgent first."""
        wake = self._wake[device]
        while True:
            wake.clear()
            now_s = mono_s()
            wanted = [line for line in lines if line.wanted is not None]
            due = next((line for line in wanted if line.due_s <= now_s), None)
            if due is not None:
                await self._write(due, len(lines))
                continue
            next_s = min((line.due_s for line in wanted), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if next_s is None else next_s - now_s):
                    await wake.wait()

    async def _write(self, line: Line, siblings: int) -> None:
        state = line.wanted
        assert state is not None
        line.tried_s = mono_s()
        try:
            async with asyncio.timeout(self._write_s):
                await self._set_output(line.ref.id, state)
        except Exception as error:  # whatever it was: a siren must be tried again
            self._missed(line, state, error, siblings)
        else:
            self._confirmed(line, state)
        self.tell()

    def _confirmed(self, line: Line, state: str) -> None:
        if line.failures:
            _log.info("beacon %s: %s takes what is written again", self._name, line.ref.id)
        line.successes += 1
        line.failures, line.fault, line.why, line.why_zh = 0, Fault.NONE, "", ""
        line.confirmed = state
        line.due_s = mono_s() + (self._refresh_s if line.is_right else 0.0)

    def _missed(self, line: Line, state: str, error: Exception, siblings: int) -> None:
        told = str(error) or f"no answer within {self._write_s:g} s"
        line.why = f"{line.part.value} ({line.ref.id}) did not become {state}: {told}"[:_WHY_LIMIT]
        line.fault, line.confirmed = _fault(error), None
        line.why_zh = f"{_PART_ZH[line.part]}（{line.ref.id}）没有变为 {state}：{_FAULT_ZH[line.fault]}"
        if not line.failures:
            _log.warning("beacon %s: %s", self._name, line.why)
        now_s = mono_s()
        pause_s = max(_RETRY_BASE_S * 2 ** min(line.failures, 10), _SHARE * siblings * (now_s - line.tried_s))
        line.misses += 1
        line.failures += 1
        line.due_s = now_s + (min(pause_s, _RETRY_CAP_S) if line.wanted == state else _AGAIN_S)

    def _describe(self) -> None:
        lines = self.lines.values()
        faults = {line.fault for line in lines}
        self._health.fault = next((fault for fault in _WORST_FIRST if fault in faults), Fault.NONE)
        self._health.detail = "; ".join(line.why for line in lines if line.why)
        self._health.facts["en"] = self._health.detail
        self._health.facts["zh"] = "；".join(line.why_zh for line in lines if line.why_zh)
        self._health.facts["outputs"] = {line.part.value: line.confirmed for line in lines}
        self._health.facts["wanted"] = {line.part.value: line.wanted for line in lines}


def _fault(error: Exception) -> Fault:
    why = getattr(error, "why", "") or type(error).__name__
    if why in _SILENT:
        return Fault.SILENT
    return Fault.OFFLINE if why in _OFFLINE else Fault.REFUSING
