"""What the engine keeps in memory of points, devices, rules and suppressions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ...words import Quality, Reading
from .due import condition_due_s
from .machine import Alarm, State
from .overlay import OverlayKind
from .rules import SYSTEM_PREFIX, Condition, Rule, Side, adopt, evaluate, evaluate_source, hold, is_quiet, quiet, resume
from .sources import Memory, measure, ref_of
from .suppression import Suppression

COMM_REASONS = frozenset(
    {
        "timeout",
        "no_connection",
        "bad_frame",
        "bus_noise",
        "driver_error",
        "offline",
        "no_birth",
        "subscription_refused",
        "exception_10",  # of a Modbus gateway: no path to the device
        "exception_11",  # of a Modbus gateway: the device did not answer
    }
)
"""Why a reading is bad when the device cannot be reached; every other reason is something that the device says."""
_HELD_WITH_DEVICE = (Side.STALE, Side.QUALITY)


@dataclass(slots=True, eq=False)
class Watched:
    """A point's newest reading and its rules.

    Attributes:
        rules: of this point: limits, silence and quality. An ordinary value changes nothing in them.
        each: rules that are judged with every reading: of this point, and of points that are compared with it.
        timed: every rule of this point: time passes for them.
        designs: suppressions that hang on it.
        last_s: when the newest reading came; before the first one, when the point began to be watched.
        asked_s: silence counts from here at the earliest: when the configuration made the patience shorter.
        stale_s: silence that makes it stale.
        lost_s: since when its readings say that the device cannot be reached; None when the newest does not.
        still: no rule counts, none of silence or quality is on: until the point is stale, time changes nothing.
        calm: while it is still, a value between `low` and `high`, both excluded, changes nothing either. Nearly every
            reading ends here, also one of a point that is over its limit and stays there.
    """

    rules: list[Live] = field(default_factory=list)
    each: list[Live] = field(default_factory=list)
    timed: list[Live] = field(default_factory=list)
    designs: list[Design] = field(default_factory=list)
    device: Device | None = None
    last: Reading | None = None
    last_s: float = 0.0
    asked_s: float = 0.0
    stale_s: float = math.inf
    lost_s: float | None = None
    still: bool = False
    calm: bool = False
    low: float = -math.inf
    high: float = math.inf

    @property
    def silent_s(self) -> float:
        """Since when nothing is heard, monotonic seconds."""
        return max(self.last_s, self.asked_s)

    @property
    def has_lost_contact(self) -> bool:
        """Whether the newest reading, or every point of the device, says that it cannot be reached."""
        return self.lost_s is not None or (self.device is not None and self.device.is_lost)

    def is_stale(self, now_s: float) -> bool:
        """Whether it has been silent for too long."""
        return now_s - self.silent_s >= self.stale_s

    def due_s(self, now_s: float) -> float:
        """When time alone may next change a condition, monotonic seconds; a silence that was seen changes no more."""
        patience_s = self.device.patience_s if self.device is not None else math.inf
        waits = (wait_s for wait_s in (self.stale_s, patience_s) if now_s - self.silent_s < wait_s)
        due_s = self.silent_s + min(waits, default=math.inf)
        return due_s if self.still else min(due_s, *[condition_due_s(live.rule, live.condition) for live in self.timed])

    def usable(self, now_s: float) -> float | None:
        """The value that may be judged: of a newest reading that is neither bad nor stale."""
        last = self.last
        if last is None or last.quality is Quality.BAD:
            return None
        return None if now_s - self.last_s >= self.stale_s and self.is_stale(now_s) else last.value

    def settle(self) -> None:
        """Say anew whether it is still and calm, and between which values nothing changes."""
        low, high, still = -math.inf, math.inf, True
        for live in self.timed:
            side = live.rule.side
            must_be_off = side in _HELD_WITH_DEVICE
            still = still and not live.unseen
            for level, track in zip(live.rule.levels, live.condition, strict=True):
                if track.since is not None or track.frozen_at is not None or (must_be_off and track.active):
                    still = False
                elif side is Side.HIGH and track.active:
                    low = max(low, math.nextafter(level.limit - level.deadband, -math.inf))
                elif side is Side.HIGH:
                    high = min(high, level.limit)
                elif side is Side.LOW and track.active:
                    high = min(high, math.nextafter(level.limit + level.deadband, math.inf))
                elif side is Side.LOW:
                    low = max(low, level.limit)
        self.low, self.high, self.still = low, high, still
        self.calm = still and not (self.each or self.designs or self.has_lost_contact)


_NOWHERE = Watched()


@dataclass(slots=True, eq=False)
class Live:
    """A rule with its condition and its alarm.

    Attributes:
        watched: its point; of the sides `comm` and `system` one that nothing is read of.
        unseen: on before a restart, and not seen on since.
        ref: the other point that its source takes.
        memory, measured: of its source; see `sources.measure`.
        designs: what may suppress it.
    """

    rule: Rule
    condition: Condition
    alarm: Alarm
    unseen: bool = False
    watched: Watched = _NOWHERE
    ref: Watched | None = None
    memory: Memory = None
    measured: float | None = None
    designs: list[Design] = field(default_factory=list)

    @property
    def is_held(self) -> bool:
        """The device cannot be reached: that is one alarm, and not one for each of its points."""
        device = self.watched.device
        return self.rule.side in _HELD_WITH_DEVICE and device is not None and device.is_lost

    @property
    def is_orphaned(self) -> bool:
        """What suppresses it by design does not hold any more, or is in the configuration no more."""
        overlay = self.alarm.overlay
        if overlay is None or overlay.kind is not OverlayKind.BY_DESIGN:
            return False
        return not any(design.what.id == overlay.who and design.holds is not False for design in self.designs)


@dataclass(slots=True, eq=False)
class Device:
    """One alarm stands for it while none of its points can be reached. `patience_s`: of the least patient point."""

    live: Live
    points: list[Watched] = field(default_factory=list)
    patience_s: float = math.inf
    is_lost: bool = False

    def gone_s(self, now_s: float) -> float | None:
        """Since when no point of it can be reached, monotonic seconds; None while one can."""
        since_s = -math.inf
        for point in self.points:
            if point.lost_s is not None:
                since_s = max(since_s, point.lost_s)
            elif now_s - point.silent_s >= self.patience_s:
                since_s = max(since_s, point.silent_s)
            else:
                return None
        return since_s if self.points else None

    @property
    def due_s(self) -> float:
        """When to look at it again, monotonic seconds: every time until its alarm is on."""
        return math.inf if any(track.active for track in self.live.condition) else -math.inf

    @property
    def is_heard(self) -> bool:
        """One of its points said something since the start."""
        return any(point.last is not None and point.lost_s is None for point in self.points)


@dataclass(slots=True, eq=False)
class Design:
    """A suppression and the alarms that it is for. `holds`: None until its point is known."""

    what: Suppression
    watched: Watched
    targets: list[Live] = field(default_factory=list)
    holds: bool | None = None

    @property
    def held(self) -> bool:
        """Whether it held before its point spoke: after a restart, as it was committed."""
        if self.holds is not None:
            return self.holds
        overlays = (live.alarm.overlay for live in self.targets)
        return any(
            one is not None and one.kind is OverlayKind.BY_DESIGN and one.who == self.what.id for one in overlays
        )


def as_stored(rule: Rule, alarm: Alarm | None) -> Live:
    """A rule that goes on with the alarm that was committed, or begins without one."""
    alarm = alarm or Alarm(id=rule.id)
    return Live(rule=rule, condition=resume(rule, alarm.active), alarm=alarm, unseen=alarm.active is not None)


def successor(before: Live | None, rule: Rule, closed: Alarm | None = None) -> Live:
    """`rule` with what is known of the one that had its id before; `closed`: its alarm, when it was taken out."""
    if before is None:
        return Live(rule=rule, condition=quiet(rule), alarm=closed or Alarm(id=rule.id))
    condition = adopt(before.rule, before.condition, rule)
    live = Live(rule=rule, condition=condition, alarm=before.alarm, unseen=before.unseen)
    if before.rule.source == rule.source:
        live.memory, live.measured = before.memory, before.measured
    return live


def sourced(live: Live, reading: Reading | None, now_s: float) -> Condition:
    """Of a rule with a source: the newest readings of its point and of `ref`, both good and fresh, or it is held."""
    value, ref, source = live.watched.usable(now_s), live.ref, live.rule.source
    other = None if ref is None else ref.usable(now_s)
    if value is None or source is None or (other is None and ref is not None):
        return hold(live.condition, now_s)
    if reading is None:
        return evaluate(live.rule, live.condition, None, now_s)
    live.memory, live.measured = measure(source, live.memory, value, other, now_s)
    if live.measured is None:
        return live.condition if is_quiet(live.condition) else hold(live.condition, now_s)
    return evaluate_source(live.rule, live.condition, live.measured, now_s)


class Plant:
    """Every rule, and what hangs on which point. Made anew for every configuration; points keep what was read."""

    def __init__(self, before: Plant | None = None) -> None:
        self.points: dict[str, Watched] = {}
        self.rules: dict[str, Live] = {}
        self.devices: dict[str, Device] = {}
        self.designs: dict[str, Design] = {}
        self._before: Mapping[str, Watched] = before.points if before is not None else {}

    def add(self, live: Live, now_s: float) -> None:
        """Another rule. Call `join` after the last one."""
        rule = live.rule
        self.rules[rule.id] = live
        if rule.side is Side.SYSTEM:
            return
        if rule.side is Side.COMM:
            self.devices[rule.point] = Device(live=live)
            return
        live.watched = watched = self.point(rule.point, now_s)
        watched.timed.append(live)
        (watched.rules if rule.source is None else watched.each).append(live)
        if rule.side is Side.STALE:
            before = self._before.get(rule.point)
            if before is not None and rule.levels[0].limit < before.stale_s and not before.is_stale(now_s):
                watched.asked_s = now_s
            watched.stale_s = rule.levels[0].limit

    def point(self, name: str, now_s: float) -> Watched:
        """The point, with what was read of it before."""
        watched = self.points.get(name)
        if watched is None:
            seen = self._before.get(name) or Watched(last_s=now_s)
            watched = Watched(last=seen.last, last_s=seen.last_s, asked_s=seen.asked_s, lost_s=seen.lost_s)
            self.points[name] = watched
        return watched

    def join(self, now_s: float) -> None:
        """Bind rules to the points that they take beside their own, points to devices, suppressions to alarms."""
        for live in self.rules.values():
            ref = ref_of(live.rule.source)
            if ref:
                live.ref = self.point(ref, now_s)
                live.ref.each.append(live)
            for suppression in () if live.rule.life_safety else live.rule.suppressions:
                design = self._design(suppression, now_s)
                design.targets.append(live)
                live.designs.append(design)
        for name, watched in self.points.items():
            device = self.devices.get(name.rpartition(".")[0])
            if device is not None:
                watched.device = device
                device.points.append(watched)
                device.patience_s = min(device.patience_s, watched.stale_s)
        self._before = {}

    def _design(self, suppression: Suppression, now_s: float) -> Design:
        design = self.designs.get(suppression.id)
        if design is None:
            watched = self.point(suppression.point, now_s)
            design = self.designs[suppression.id] = Design(what=suppression, watched=watched)
            watched.designs.append(design)
        return design

    def own(self) -> Iterator[Rule]:
        """The gateway's own rules."""
        return (live.rule for name, live in self.rules.items() if name.startswith(SYSTEM_PREFIX))


def waiting(alarms: Mapping[str, Alarm], rules: Iterable[Rule]) -> dict[str, Alarm]:
    """Alarms without a rule: of the gateway itself, as they are; of rules that were taken out, as `close_orphans` does.

    Both may have a rule again; the number of the last occurrence must not go back then.
    """
    known = {rule.id for rule in rules}
    gone = {name: alarm for name, alarm in alarms.items() if name not in known}
    return {name: alarm if name.startswith(SYSTEM_PREFIX) else _closed(alarm) for name, alarm in gone.items()}


def _closed(alarm: Alarm) -> Alarm:
    return replace(alarm, state=State.NORM, active=None, overlay=None)
