"""Keeps every rule's condition and every alarm's state; turns readings, time and commands into transitions.

Deterministic: the same readings, ticks and commands at the same instants give the same transitions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import RefusedError
from ...sync.journal import Draft
from ...words import Instant, Quality, Reading, utc_text
from .codec import alarm_json, reading_json
from .machine import (
    Acknowledge,
    Alarm,
    Change,
    Event,
    Off,
    On,
    Realarm,
    Reason,
    Reset,
    State,
    Transition,
    repeat_due,
    step,
)
from .overlay import Cover, Overlay, OverlayKind, Uncover
from .rules import (
    Condition,
    Level,
    Rule,
    Side,
    adopt,
    evaluate,
    evaluate_quality,
    evaluate_silence,
    hold,
    is_quiet,
    quiet,
    resume,
    worst,
)


@dataclass(slots=True)
class _Watched:
    """A point's newest reading and its rules.

    Attributes:
        last_s: when the newest reading came; before the first one, when the point began to be watched.
        asked_s: silence counts from here at the earliest: when the configuration made the patience shorter.
        stale_s: silence that makes it stale.
        calm: no rule is on or counting: a value between `low` and `high`, both excluded,
            changes nothing, and neither does time until the point is stale. Nearly every reading ends here.
    """

    rules: list[_Live] = field(default_factory=list)
    last: Reading | None = None
    last_s: float = 0.0
    asked_s: float = 0.0
    stale_s: float = math.inf
    calm: bool = False
    low: float = -math.inf
    high: float = math.inf

    @property
    def silent_s(self) -> float:
        """Since when nothing is heard, monotonic seconds."""
        return max(self.last_s, self.asked_s)

    def is_stale(self, now_s: float) -> bool:
        return now_s - self.silent_s >= self.stale_s

    def narrow(self, rule: Rule) -> None:
        """No value that reaches a level of `rule` is between `low` and `high`."""
        limits = [level.limit for level in rule.levels]
        if rule.side is Side.HIGH:
            self.high = min(self.high, *limits)
        elif rule.side is Side.LOW:
            self.low = max(self.low, *limits)


@dataclass(slots=True)
class _Live:
    """A rule with its condition and its alarm. `unseen`: on before a restart, and not seen on since."""

    rule: Rule
    condition: Condition
    alarm: Alarm
    unseen: bool = False


class Engine:
    """All alarms of a gateway, in memory. The caller commits the drafts that it returns, in order.

    Args:
        rules: of every point.
        alarms: live alarms by id, as committed before a restart.
        start: now; silence is counted from here.
    """

    def __init__(self, rules: Iterable[Rule], alarms: Mapping[str, Alarm], start: Instant) -> None:
        self._points: dict[str, _Watched] = {}
        self._by_id: dict[str, _Live] = {}
        self._busy: dict[str, _Live] = {}  # open or covered: time alone may change them
        self._last_occurrence = max((alarm.occurrence for alarm in alarms.values()), default=0)
        for rule in rules:
            alarm = alarms.get(rule.id, Alarm(id=rule.id))
            unseen = alarm.active is not None
            live = _Live(rule=rule, condition=resume(rule, alarm.active), alarm=alarm, unseen=unseen)
            self._watch(live, start.mono_s)

    def change(self, rules: Iterable[Rule], now: Instant) -> list[Draft]:
        """Go on with other rules: the records that follow.

        A rule that stays keeps its condition and its alarm; where its levels changed, the newest reading is judged
        again. An alarm whose rule is gone is closed. A new rule starts quiet; numbers of occurrences go on.

        Args:
            rules: of every point from here on, also the unchanged ones.
            now: of the records.
        """
        points, known = self._points, self._by_id
        self._points, self._by_id, self._busy = {}, {}, {}
        for rule in rules:
            before = known.get(rule.id)
            live = _Live(rule=rule, condition=quiet(rule), alarm=Alarm(id=rule.id))
            if before is not None:
                condition = adopt(before.rule, before.condition, rule)
                live = _Live(rule=rule, condition=condition, alarm=before.alarm, unseen=before.unseen)
            self._watch(live, now.mono_s, points.get(rule.point))
        gone = {n: alarm_json(live.rule, live.alarm, now) for n, live in known.items() if n not in self._by_id}
        drafts = close_orphans(self._by_id, gone, now)
        for live in self._by_id.values():
            before = known.get(live.rule.id)
            if before is None or before.rule.levels != live.rule.levels:
                drafts += self._judge_again(live, now)
        return drafts

    def rule(self, alarm_id: str) -> Rule:
        """The rule of an alarm. Raises RefusedError `no_such_alarm`."""
        return self._live(alarm_id).rule

    def alarm(self, alarm_id: str) -> Alarm:
        """The live alarm. Raises RefusedError `no_such_alarm`."""
        return self._live(alarm_id).alarm

    def read(self, reading: Reading, now: Instant) -> list[Draft]:
        """A reading came: the records that follow, oldest first. Readings of unknown points make none."""
        drafts: list[Draft] = []
        self.read_all((reading,), now, drafts)
        return drafts

    def read_all(self, readings: Iterable[Reading], now: Instant, drafts: list[Draft]) -> None:
        """Readings came: the records that follow are appended to `drafts`, also those before a rule that fails."""
        points, now_s = self._points, now.mono_s
        for reading in readings:
            watched = points.get(reading.point)
            if watched is None:
                continue
            watched.last = reading
            watched.last_s = now_s
            value = reading.value
            ordinary = value is not None and watched.low < value < watched.high
            if not (ordinary and watched.calm and reading.quality is not Quality.BAD):
                self._judge(watched, reading, now, drafts)

    def _judge(self, watched: _Watched, reading: Reading, now: Instant, drafts: list[Draft]) -> None:
        for live in watched.rules:
            condition = self._evaluate(live, watched, reading, now)
            if condition != live.condition:
                self._set_condition(live, condition, reading, now, drafts)
            elif live.unseen and reading.quality is not Quality.BAD:
                live.unseen = False  # neither returning nor gone: it is on
        watched.calm = all(is_quiet(live.condition) for live in watched.rules)

    def tick(self, now: Instant) -> list[Draft]:
        """Time has passed: delays run out, silence is noticed."""
        drafts: list[Draft] = []
        now_s = now.mono_s
        for watched in self._points.values():
            if watched.calm and now_s - watched.last_s < watched.stale_s:
                continue
            for live in watched.rules:
                condition = self._evaluate(live, watched, None, now)
                if condition != live.condition:
                    self._set_condition(live, condition, watched.last, now, drafts)
            watched.calm = all(is_quiet(live.condition) for live in watched.rules)
        for live in list(self._busy.values()):
            drafts += self._time_up(live, now)
        return drafts

    def _time_up(self, live: _Live, now: Instant) -> list[Draft]:
        """What lies over an alarm ends, or people are told of it again."""
        overlay = live.alarm.overlay
        if overlay is not None:
            return self._step(live, Uncover(kind=overlay.kind), None, now) if overlay.is_over(now) else []
        return self._step(live, Realarm(), None, now) if repeat_due(live.rule, live.alarm, now) else []

    def cover(self, alarm_id: str, overlay: Overlay, roles: Iterable[str], now: Instant) -> list[Draft]:
        """Nobody is told of an alarm for now. Raises RefusedError; see `overlay.check_cover`.

        Args:
            overlay: with who, why and for how long.
            roles: of that person; a rule has none.
        """
        return self._step(self._live(alarm_id), Cover(overlay=overlay, roles=tuple(roles)), None, now)

    def uncover(self, alarm_id: str, kind: OverlayKind, person: str, now: Instant) -> list[Draft]:
        """That comes to an end. Raises RefusedError `no_such_alarm`, `not_covered`."""
        live = self._live(alarm_id)
        drafts = self._step(live, Uncover(kind=kind, person=person), None, now)
        if not drafts and person:
            raise RefusedError("not_covered", f"{alarm_id} is not {kind.value}")
        return drafts

    def acknowledge(self, alarm_id: str, occurrence: int, role: str, person: str, now: Instant) -> list[Draft]:
        """`person` acknowledges as `role`. Raises RefusedError; see `machine.step`."""
        live = self._live(alarm_id)
        return self._step(live, Acknowledge(occurrence=occurrence, role=role, person=person), None, now)

    def reset(self, alarm_id: str, occurrence: int, person: str, now: Instant) -> list[Draft]:
        """`person` unlatches. Raises RefusedError; see `machine.step`."""
        live = self._live(alarm_id)
        watched = self._points[live.rule.point]
        last = watched.last
        fresh = now.mono_s - watched.last_s <= live.rule.fresh_s and not watched.is_stale(now.mono_s)
        good = last is not None and last.quality is Quality.GOOD and fresh
        return self._step(live, Reset(occurrence=occurrence, person=person, quality_good=good), last, now)

    def _watch(self, live: _Live, now_s: float, before: _Watched | None = None) -> None:
        rule = live.rule
        self._by_id[rule.id] = live
        self._mind(live)
        watched = self._points.get(rule.point)
        if watched is None:
            seen = before or _Watched(last_s=now_s)
            watched = _Watched(last=seen.last, last_s=seen.last_s, asked_s=seen.asked_s)
            self._points[rule.point] = watched
        watched.rules.append(live)
        watched.narrow(rule)
        if rule.side is Side.STALE:
            if before is not None and rule.levels[0].limit < before.stale_s and not before.is_stale(now_s):
                watched.asked_s = now_s
            watched.stale_s = rule.levels[0].limit

    def _judge_again(self, live: _Live, now: Instant) -> list[Draft]:
        """The newest reading under other levels. Only the difference from what the alarm says makes a record."""
        watched = self._points[live.rule.point]
        newest = None if watched.is_stale(now.mono_s) else watched.last
        live.condition = self._evaluate(live, watched, newest, now)
        level = worst(live.rule, live.condition)
        if (level.kind if level else None) is live.alarm.active:
            return []
        event = self._event(live, level, watched.last)
        live.unseen = False
        return self._step(live, event, watched.last, now)

    def _mind(self, live: _Live) -> None:
        if live.alarm.state is State.NORM and live.alarm.overlay is None:
            self._busy.pop(live.rule.id, None)
        else:
            self._busy[live.rule.id] = live

    def _live(self, alarm_id: str) -> _Live:
        live = self._by_id.get(alarm_id)
        if live is None:
            raise RefusedError("no_such_alarm", f"there is no alarm {alarm_id!r}")
        return live

    @staticmethod
    def _evaluate(live: _Live, watched: _Watched, reading: Reading | None, now: Instant) -> Condition:
        rule = live.rule
        match rule.side:
            case Side.STALE:
                bad = watched.last is not None and watched.last.quality is Quality.BAD
                heard = watched.last is not None
                return evaluate_silence(rule, live.condition, watched.silent_s, now.mono_s, bad=bad, heard=heard)
            case Side.QUALITY:
                return evaluate_quality(rule, live.condition, reading, now.mono_s)
            case _ if reading is None and watched.is_stale(now.mono_s):
                return hold(live.condition, now.mono_s)  # what nobody has seen neither raises nor clears
            case _:
                return evaluate(rule, live.condition, reading, now.mono_s)

    def _set_condition(
        self, live: _Live, condition: Condition, trigger: Reading | None, now: Instant, drafts: list[Draft]
    ) -> None:
        before, after = worst(live.rule, live.condition), worst(live.rule, condition)
        live.condition = condition
        if before is after:
            return
        event = self._event(live, after, trigger)
        live.unseen = False
        drafts.extend(self._step(live, event, trigger, now))

    @staticmethod
    def _event(live: _Live, level: Level | None, trigger: Reading | None) -> Event:
        if level is None:
            return Off(during_outage=live.unseen)
        value = trigger.value if trigger is not None and live.rule.side in (Side.HIGH, Side.LOW) else None
        return On(level=level, value=value)

    def _step(self, live: _Live, event: Event, trigger: Reading | None, now: Instant) -> list[Draft]:
        drafts = []
        for transition in step(live.rule, live.alarm, event, now, self._last_occurrence + 1):
            live.alarm = transition.alarm
            self._mind(live)
            self._last_occurrence = max(self._last_occurrence, transition.alarm.occurrence)
            drafts.append(_draft(live.rule, transition, trigger, now))
        return drafts


def close_orphans(known: Iterable[str], stored: Mapping[str, dict[str, Any]], now: Instant) -> list[Draft]:
    """Close, with a record, alarms that are open but whose rule is gone from the configuration.

    Args:
        known: ids of all rules.
        stored: committed alarm objects (JSON) by id.
        now: of the records.
    """
    ids = set(known)
    drafts = []
    for alarm_id, fields in stored.items():
        if alarm_id in ids or fields["state"] == State.NORM.value:
            continue
        closed = {**fields, "state": State.NORM.value, "active": None, "changed_at": utc_text(now.utc_ms)}
        closed.pop("rev", None)  # the number of the record before; this one has its own
        body = {"alarm": closed, "reason": Reason.RULE_REMOVED.value, "rule": "", "trigger": None}
        drafts.append(Draft(kind=f"alarm.{Change.CLOSED}", at=now, actor="gateway", body=body))
    return drafts


def _draft(rule: Rule, transition: Transition, trigger: Reading | None, now: Instant) -> Draft:
    body: dict[str, Any] = {
        "alarm": alarm_json(rule, transition.alarm, now),
        "reason": transition.reason.value,
        "rule": rule.revision,
        "trigger": reading_json(trigger) if trigger is not None else None,
    }
    return Draft(kind=f"alarm.{transition.change}", at=now, actor=transition.actor, body=body)
