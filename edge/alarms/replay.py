"""Recorded readings through a set of rules: what would have alarmed. Pure.

The engine is the daemon's own. It looks at the time twice a second; a replay jumps to the next of these moments that
can matter (`Engine.due_s`), which gives the same records. Nobody acknowledges in a replay: its operators are perfect,
acknowledge as every required role after `ack_after_s`, and reset what is latched as soon as the engine allows it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ...errors import RefusedError
from ...sync.journal import Draft
from ...words import Instant, Reading
from .engine import Engine
from .machine import Alarm, State, missing_roles
from .rules import Rule

TICK_S = 0.5
"""How often the daemon lets time pass in the rules (`pipeline.TICK_S`)."""
_ROUNDING_S = 1e-6
_ASKS_FOR_ACKS = frozenset({"alarm.raised", "alarm.reraised", "alarm.reopened", "alarm.repeated"})


class Replay:
    """One set of rules, from `start` on.

    Args:
        rules: of every point.
        alarms: live alarms by id, as the journal had them at the start.
        start: where the first reading, or the daemon's start, was.
        sink: gets each draft, in order.
        ack_after_s: how long the perfect operators wait.
        is_dense: let time pass at every tick, as the daemon does.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        alarms: Mapping[str, Alarm],
        start: Instant,
        sink: Callable[[Draft], None],
        *,
        ack_after_s: float = 0.0,
        is_dense: bool = False,
    ) -> None:
        self._rules = tuple(rules)
        self._sink = sink
        self._ack_after_s = ack_after_s
        self._is_dense = is_dense
        self._acks: list[tuple[float, str, int]] = []
        self._latched: set[str] = set()
        self._begin(alarms, start)

    def restart(self, start: Instant) -> None:
        """The gateway was started again: conditions are as they were committed, nobody counted meanwhile.

        An acknowledgement that was under way comes at once.
        """
        alarms = {rule.id: self._engine.alarm(rule.id) for rule in self._rules}
        self._acks = [(start.mono_s, alarm, occurrence) for _, alarm, occurrence in sorted(self._acks)]
        self._begin(alarms, start)

    def feed(self, readings: Sequence[Reading], at: Instant) -> None:
        """Readings of one moment, which is not before the one before."""
        self.pass_time(at)
        drafts: list[Draft] = []
        self._engine.read_all(readings, at, drafts)
        self._take(drafts, at)
        if self._latched:
            self._reset(at)
        self._due_s = min(self._due_s, self._engine.due_s(at, [reading.point for reading in readings]))

    def pass_time(self, to: Instant) -> None:
        """Nothing is read until `to`, included."""
        offset_ms = round(to.utc_ms - to.mono_s * 1000)
        if offset_ms != self._offset_ms:
            self._offset_ms, self._due_s = offset_ms, -math.inf  # what is counted by the wall clock may be due
        while self._is_dense or self._acks or self._due_s - _ROUNDING_S <= to.mono_s:
            tick_s = self._next_tick_s()
            ack_s = max(self._acks[0][0], self._passed_s) if self._acks else math.inf
            if min(tick_s, ack_s) > to.mono_s:
                break
            if tick_s <= ack_s:
                self._tick(_at(to, tick_s))
            else:
                _, alarm, occurrence = heapq.heappop(self._acks)
                self._acknowledge(alarm, occurrence, _at(to, ack_s))
        self._passed_s = max(self._passed_s, to.mono_s)

    def _begin(self, alarms: Mapping[str, Alarm], start: Instant) -> None:
        self._engine = Engine(self._rules, alarms, start)
        self._start_s, self._passed_s = start.mono_s, -math.inf
        self._offset_ms = round(start.utc_ms - start.mono_s * 1000)
        self._due_s = -math.inf

    def _next_tick_s(self) -> float:
        """The daemon's next tick that can matter: after everything that has passed, monotonic seconds."""
        if self._passed_s == -math.inf:
            return self._start_s
        if self._due_s == math.inf and not self._is_dense:
            return math.inf
        start_s, passed_s = self._start_s, self._passed_s
        number = math.floor((passed_s - start_s) / TICK_S)
        while start_s + number * TICK_S <= passed_s:
            number += 1
        if not self._is_dense and self._due_s > passed_s:
            number = max(number, math.ceil((self._due_s - _ROUNDING_S - start_s) / TICK_S))
        return start_s + number * TICK_S

    def _tick(self, at: Instant) -> None:
        self._passed_s = at.mono_s
        self._take(self._engine.tick(at), at)
        self._due_s = self._engine.due_s(at)

    def _take(self, drafts: Sequence[Draft], at: Instant) -> None:
        for draft in drafts:
            self._sink(draft)
            alarm = draft.body["alarm"]
            if alarm["state"] == State.LATA:
                self._latched.add(alarm["id"])
            if draft.kind in _ASKS_FOR_ACKS:
                heapq.heappush(self._acks, (at.mono_s + self._ack_after_s, alarm["id"], alarm["occurrence"]))
        if drafts:
            self._due_s = min(self._due_s, self._engine.due_s(at))

    def _acknowledge(self, alarm_id: str, occurrence: int, at: Instant) -> None:
        self._passed_s = at.mono_s
        engine = self._engine
        alarm = engine.alarm(alarm_id)
        if alarm.occurrence != occurrence or alarm.state is State.NORM:
            return
        for role in missing_roles(engine.rule(alarm_id), alarm):
            self._take(engine.acknowledge(alarm_id, occurrence, role, f"replay_{role}", at), at)

    def _reset(self, at: Instant) -> None:
        """What is latched, acknowledged and back to normal, as soon as the newest reading is good."""
        for alarm_id in sorted(self._latched):
            alarm = self._engine.alarm(alarm_id)
            if alarm.state is not State.LATA:
                self._latched.discard(alarm_id)
                continue
            try:
                drafts = self._engine.reset(alarm_id, alarm.occurrence, "replay_officer", at)
            except RefusedError:
                continue  # the newest reading is bad, or too old
            self._latched.discard(alarm_id)
            self._take(drafts, at)


def seed(alarms: Iterable[Alarm], rules: Iterable[Rule], changed: Iterable[str]) -> dict[str, Alarm]:
    """The alarms that a replay begins with: those that the journal had then, as far as their rule is still the same.

    A limit that is tried would inherit a condition that it never had. Nobody shelves in a replay.

    Args:
        alarms: live ones at the beginning.
        rules: of the replay.
        changed: ids of the rules that are other ones than the site's.
    """
    known, others = {rule.id: rule for rule in rules}, frozenset(changed)
    return {
        alarm.id: replace(alarm, overlay=None)
        for alarm in alarms
        if alarm.id in known and alarm.id not in others and _has_level(known[alarm.id], alarm)
    }


def _has_level(rule: Rule, alarm: Alarm) -> bool:
    """Whether the rule still has the limit that the alarm was about."""
    return any((level.kind, level.limit) == (alarm.kind, alarm.limit) for level in rule.levels)


def _at(base: Instant, mono_s: float) -> Instant:
    utc_ms = base.utc_ms + round((mono_s - base.mono_s) * 1000)
    return replace(base, utc_ms=utc_ms, mono_s=mono_s)
