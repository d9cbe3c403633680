"""Keeps every rule's condition and every alarm's state; turns readings, time and commands into transitions.

Deterministic: the same readings, ticks and commands at the same instants give the same transitions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from ...errors import RefusedError
from ...sync.journal import Draft
from ...words import Instant, Quality, Reading
from .codec import alarm_json
from .drafts import close_orphans, draft
from .due import alarm_due_s
from .machine import (
    Acknowledge,
    Alarm,
    Event,
    Off,
    On,
    Realarm,
    Reset,
    State,
    repeat_due,
    step,
)
from .overlay import Cover, Overlay, OverlayKind, Uncover
from .rules import (
    Condition,
    Level,
    Rule,
    Side,
    evaluate,
    evaluate_contact,
    evaluate_quality,
    evaluate_silence,
    hold,
    set_all,
    worst,
)
from .watched import (
    COMM_REASONS,
    Design,
    Device,
    Live,
    Plant,
    Watched,
    as_stored,
    sourced,
    successor,
    waiting,
)

__all__ = ["Engine", "close_orphans"]

_UNTIMED = (Side.COMM, Side.SYSTEM)
_OF_READING = (Side.HIGH, Side.LOW)


class Engine:
    """All alarms of a gateway, in memory. The caller commits the drafts that it returns, in order.

    Args:
        rules: of every point, and those of side `system` that are known already.
        alarms: live alarms by id, as committed before a restart.
        start: now; silence is counted from here.
    """

    def __init__(self, rules: Iterable[Rule], alarms: Mapping[str, Alarm], start: Instant) -> None:
        rules = list(rules)
        self._plant = Plant()
        self._points = self._plant.points
        self._busy: dict[str, Live] = {}  # open or covered: time alone may change them
        self._groups: dict[str, set[str]] = {}  # open alarms of each first-out group
        self._lost: dict[str, Device] = {}
        self._last_occurrence = max((alarm.occurrence for alarm in alarms.values()), default=0)
        self._waiting = waiting(alarms, rules)
        for rule in rules:
            self._add(as_stored(rule, alarms.get(rule.id)), start)
        self._plant.join(start.mono_s)

    def change(self, rules: Iterable[Rule], now: Instant) -> list[Draft]:
        """Go on with other rules: the records that follow.

        A rule that stays keeps its condition and its alarm; where its levels changed, the newest reading is judged
        again. An alarm whose rule is gone is closed. A new rule starts quiet; numbers of occurrences go on. The
        gateway's own alarms (side `system`) are no matter of the configuration: they stay.

        Args:
            rules: of every point from here on, also the unchanged ones.
            now: of the records.
        """
        known = self._plant.rules
        own = {rule.id: rule for rule in self._plant.own()}
        self._plant = Plant(self._plant)
        self._points, self._busy, self._groups, self._lost = self._plant.points, {}, {}, {}
        for rule in {**own, **{rule.id: rule for rule in rules}}.values():
            self._add(successor(known.get(rule.id), rule, self._waiting.pop(rule.id, None)), now)
        self._plant.join(now.mono_s)
        ids = self._plant.rules
        self._waiting |= waiting(
            {name: live.alarm for name, live in known.items()}, [live.rule for live in ids.values()]
        )
        gone = {name: alarm_json(live.rule, live.alarm, now) for name, live in known.items() if name not in ids}
        drafts = close_orphans(ids, gone, now)
        for device in self._plant.devices.values():
            self._check_contact(device, None, now, drafts)
        for live in ids.values():
            before = known.get(live.rule.id)
            if before is None or (before.rule.levels, before.rule.source) != (live.rule.levels, live.rule.source):
                self._judge_again(live, now, drafts)
        for design in self._plant.designs.values():
            if design.watched.last is not None:
                self._follow(design, now, drafts)
        return drafts

    def set_fault(self, rule: Rule, on: bool, now: Instant, value: float | None = None) -> list[Draft]:
        """A fault of the gateway itself is there or not: the records that follow; none when that is known already.

        Args:
            rule: of side `system`, with one level. The first call adds it, a later one may say it anew.
            on: whether the fault is there.
            now: of the records.
            value: what was counted or measured, if anything was.
        """
        live = self._plant.rules.get(rule.id)
        if live is None:
            live = as_stored(rule, self._waiting.pop(rule.id, None))
            self._add(live, now)
        live.rule = rule
        is_known = (live.alarm.active is not None) is on
        live.condition = set_all(rule, active=on)
        event = On(level=rule.levels[0], value=value) if on else Off(during_outage=live.unseen)
        live.unseen = False
        return [] if is_known else self._step(live, event, None, now)

    def knows(self, alarm_id: str) -> bool:
        """Whether there is a rule for it: an alarm that was taken out of the configuration leaves its records alone."""
        return alarm_id in self._plant.rules

    def rule(self, alarm_id: str) -> Rule:
        """The rule of an alarm. Raises RefusedError `no_such_alarm`."""
        return self._live(alarm_id).rule

    def alarm(self, alarm_id: str) -> Alarm:
        """The live alarm. Raises RefusedError `no_such_alarm`."""
        return self._live(alarm_id).alarm

    def busy(self) -> list[tuple[Rule, Alarm]]:
        """Every alarm that is open, or covered."""
        return [(live.rule, live.alarm) for live in self._busy.values()]

    # --- readings and time ---

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

    def tick(self, now: Instant) -> list[Draft]:
        """Time has passed: delays run out, silence is noticed."""
        drafts: list[Draft] = []
        now_s = now.mono_s
        for device in list(self._lost.values()):
            self._check_contact(device, None, now, drafts)
        for watched in self._points.values():
            if watched.still and now_s - watched.last_s < watched.stale_s:
                continue
            if watched.is_stale(now_s):
                self._grow_silent(watched, now, drafts)
            for live in watched.timed:
                self._set_condition(live, self._condition(live, None, now), watched.last, now, drafts)
            watched.settle()
        for live in list(self._busy.values()):
            drafts += self._time_up(live, now)
        return drafts

    def due_s(self, now: Instant, points: Iterable[str] | None = None) -> float:
        """From when on a tick may change something, monotonic seconds, unless a reading or a command comes first.

        Args:
            now: after a tick: what was due before it is not found again.
            points: look at the conditions that their readings change alone, and not at the alarms that are open.
        """
        known, now_s = self._points, now.mono_s
        lost_s = min((device.due_s for device in self._lost.values()), default=math.inf)
        if points is not None:
            read = {known[point] for point in points if point in known}
            read |= {live.watched for watched in list(read) for live in watched.each}
            return min(lost_s, min((watched.due_s(now_s) for watched in read), default=math.inf))
        conditions = min((watched.due_s(now_s) for watched in known.values()), default=math.inf)
        alarms = (alarm_due_s(live.rule, live.alarm, now) for live in self._busy.values())
        return min(lost_s, conditions, min(alarms, default=math.inf))

    def _judge(self, watched: Watched, reading: Reading, now: Instant, drafts: list[Draft]) -> None:
        is_bad, value = reading.quality is Quality.BAD, reading.value
        if is_bad or watched.has_lost_contact:
            self._note_contact(watched, is_bad and reading.why in COMM_REASONS, reading, now, drafts)
        for design in watched.designs:
            self._follow(design, now, drafts)
        was_still = watched.still
        if is_bad or value is None or not (was_still and watched.low < value < watched.high):
            for live in watched.rules:
                self._set_condition(live, self._condition(live, reading, now), reading, now, drafts, seen=not is_bad)
            was_still = False
        for live in watched.each:
            condition = sourced(live, reading, now.mono_s)
            if condition is live.condition and not live.unseen:
                continue
            self._set_condition(live, condition, reading, now, drafts, seen=not is_bad)
            live.watched.settle()
            was_still = False
        if not was_still:
            watched.settle()

    def _condition(self, live: Live, reading: Reading | None, now: Instant) -> Condition:
        """What `reading`, or time, makes of it."""
        rule, watched, now_s = live.rule, live.watched, now.mono_s
        match rule.side:
            case _ if live.is_held:
                return hold(live.condition, now_s)
            case Side.STALE:
                bad = watched.last is not None and watched.last.quality is Quality.BAD
                heard = watched.last is not None
                return evaluate_silence(rule, live.condition, watched.silent_s, now_s, bad=bad, heard=heard)
            case Side.QUALITY:
                return evaluate_quality(rule, live.condition, reading, now_s)
            case _ if rule.source is not None:
                return sourced(live, reading, now_s)
            case _ if reading is None and watched.is_stale(now_s):
                return hold(live.condition, now_s)  # what nobody has seen neither raises nor clears
            case _:
                return evaluate(rule, live.condition, reading, now_s)

    def _set_condition(
        self,
        live: Live,
        condition: Condition,
        trigger: Reading | None,
        now: Instant,
        drafts: list[Draft],
        *,
        seen: bool = False,
    ) -> None:
        """`seen`: by a reading that is not bad; what is still on then is neither returning nor gone."""
        if condition == live.condition:
            live.unseen = live.unseen and not seen
            return
        before, after = worst(live.rule, live.condition), worst(live.rule, condition)
        live.condition = condition
        if before is after:
            return
        event = self._event(live, after, trigger, now)
        live.unseen = False
        drafts.extend(self._step(live, event, trigger, now))

    def _event(self, live: Live, level: Level | None, trigger: Reading | None, now: Instant) -> Event:
        if level is None:
            return Off(during_outage=live.unseen)
        rule, last = live.rule, live.watched.last
        value = trigger.value if trigger is not None and rule.side in _OF_READING else None
        if rule.side in (Side.ROC, Side.DEVIATION):
            value = live.measured
        elif rule.side is Side.DISCRETE and last is not None:
            value = last.value
        group = rule.first_out_group
        is_first = bool(group) and not self._groups.get(group, set()) - {rule.id}
        return On(level=level, value=value, first_out=is_first, then=self._then(live, now))

    def _judge_again(self, live: Live, now: Instant, drafts: list[Draft]) -> None:
        """The newest reading under other levels. Only the difference from what the alarm says makes a record."""
        if live.rule.side in _UNTIMED:
            return
        newest = None if live.watched.is_stale(now.mono_s) else live.watched.last
        live.condition = self._condition(live, newest, now)
        level = worst(live.rule, live.condition)
        if (level.kind if level else None) is live.alarm.active:
            return
        event = self._event(live, level, live.watched.last, now)
        live.unseen = False
        drafts += self._step(live, event, live.watched.last, now)

    # --- devices that cannot be reached ---

    def _note_contact(
        self, watched: Watched, is_lost: bool, reading: Reading, now: Instant, drafts: list[Draft]
    ) -> None:
        was_lost = watched.lost_s is not None
        if not is_lost:
            watched.lost_s = None
        elif not was_lost:
            watched.lost_s = now.mono_s
        device = watched.device
        if device is not None and (is_lost or was_lost or device.is_lost):
            self._check_contact(device, reading, now, drafts)

    def _grow_silent(self, watched: Watched, now: Instant, drafts: list[Draft]) -> None:
        if watched.device is not None and not watched.device.is_lost:
            self._check_contact(watched.device, watched.last, now, drafts)

    def _check_contact(self, device: Device, trigger: Reading | None, now: Instant, drafts: list[Draft]) -> None:
        live = device.live
        gone_s = device.gone_s(now.mono_s)
        heard = device.is_heard
        if device.is_lost is not (gone_s is not None):
            device.is_lost = gone_s is not None
            for watched in device.points:
                watched.settle()
        if device.is_lost:
            self._lost[live.rule.id] = device
        else:
            self._lost.pop(live.rule.id, None)
        condition = evaluate_contact(live.rule, live.condition, gone_s, now.mono_s, heard=heard)
        self._set_condition(live, condition, trigger, now, drafts, seen=device.is_lost)

    # --- what lies over alarms, and what people do ---

    def _follow(self, design: Design, now: Instant, drafts: list[Draft]) -> None:
        """Its point says something: alarms are suppressed, or are not any more."""
        stale = design.watched.is_stale(now.mono_s)
        holds = design.what.holds(None if stale else design.watched.last, before=design.held)
        if holds is design.holds:
            return
        design.holds = holds
        for live in design.targets:
            if holds:
                drafts += self._step(live, Cover(overlay=design.what.overlay(now)), None, now)
            elif live.is_orphaned:
                drafts += self._take_off(live, OverlayKind.BY_DESIGN, "", now)

    def _time_up(self, live: Live, now: Instant) -> list[Draft]:
        """What lies over an alarm ends, or people are told of it again."""
        overlay = live.alarm.overlay
        if overlay is None:
            return self._step(live, Realarm(), None, now) if repeat_due(live.rule, live.alarm, now) else []
        for design in live.designs:
            if design.holds is not False and design.watched.is_stale(now.mono_s):
                design.holds = False  # nobody knows, so it suppresses nothing
        return self._take_off(live, overlay.kind, "", now) if overlay.is_over(now) or live.is_orphaned else []

    def _take_off(self, live: Live, kind: OverlayKind, person: str, now: Instant) -> list[Draft]:
        return self._step(live, Uncover(kind=kind, person=person, then=self._then(live, now)), None, now)

    def _then(self, live: Live, now: Instant) -> Overlay | None:
        """What lies over the alarm next when what does now ends: a rule of the site that holds."""
        return next((design.what.overlay(now) for design in live.designs if design.holds), None)

    def cover(self, alarm_id: str, overlay: Overlay, roles: Iterable[str], now: Instant) -> list[Draft]:
        """Nobody is told of an alarm for now. Raises RefusedError; see `overlay.check_cover`.

        Args:
            overlay: with who, why and for how long.
            roles: of that person; a rule has none.
        """
        return self._step(self._live(alarm_id), Cover(overlay=overlay, roles=tuple(roles)), None, now)

    def uncover(self, alarm_id: str, kind: OverlayKind, person: str, now: Instant) -> list[Draft]:
        """That comes to an end. Raises RefusedError `no_such_alarm`, `not_covered`."""
        drafts = self._take_off(self._live(alarm_id), kind, person, now)
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
        last = live.watched.last
        event = Reset(occurrence=occurrence, person=person, quality_good=self._is_good(live, now.mono_s))
        return self._step(live, event, last, now)

    def _is_good(self, live: Live, now_s: float) -> bool:
        """Whether the newest reading shows that the condition is off: fresh, good, and not standing still."""
        if live.rule.side in _UNTIMED:
            return True
        watched = live.watched
        frozen = self._plant.rules.get(f"{live.rule.point}.{Side.FROZEN}")
        if frozen is not None and frozen is not live and frozen.alarm.active is not None:
            return False
        fresh = now_s - watched.last_s <= live.rule.fresh_s and not watched.is_stale(now_s)
        return watched.last is not None and watched.last.quality is Quality.GOOD and fresh

    # --- bookkeeping ---

    def _add(self, live: Live, now: Instant) -> None:
        self._plant.add(live, now.mono_s)
        self._mind(live)

    def _mind(self, live: Live) -> None:
        name, group = live.rule.id, live.rule.first_out_group
        is_open = live.alarm.state is not State.NORM
        if is_open or live.alarm.overlay is not None:
            self._busy[name] = live
        else:
            self._busy.pop(name, None)
        if group:
            members = self._groups.setdefault(group, set())
            (members.add if is_open else members.discard)(name)

    def _live(self, alarm_id: str) -> Live:
        live = self._plant.rules.get(alarm_id)
        if live is None:
            raise RefusedError("no_such_alarm", f"there is no alarm {alarm_id!r}")
        return live

    def _step(self, live: Live, event: Event, trigger: Reading | None, now: Instant) -> list[Draft]:
        drafts = []
        for transition in step(live.rule, live.alarm, event, now, self._last_occurrence + 1):
            live.alarm = transition.alarm
            self._mind(live)
            self._last_occurrence = max(self._last_occurrence, transition.alarm.occurrence)
            drafts.append(draft(live.rule, transition, trigger, now))
        return drafts
