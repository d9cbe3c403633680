"""`sitewarden replay`: a data folder's readings through changed rules, beside what the journal says happened.

Reads a site.toml and the stores of a gateway, also while it runs, and writes nothing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from ..errors import PermanentError
from ..sensors.mqtt_words import DELAYED
from ..sync.journal import Draft
from ..sync.recorded import Event, RecordedHistory, newest_record, recorded_events
from ..words import Instant, Quality, Reading
from .alarms.codec import alarm_from_json
from .alarms.machine import Alarm
from .alarms.replay import Replay, seed
from .alarms.rules import Rule, Side
from .alarms.trial import Tally, comes_from_readings
from .rule_changes import changed_site
from .site import Site

WARM_UP_MS = 3_600_000
"""Readings before `--from` that are replayed and not counted: what was on then is on at the beginning."""
_HOLD_S = 60.0
"""Readings of one moment may lie in two segments: so long the end of one waits for the next."""
_PHASE_MS = 250
_ALONE = (Side.HIGH, Side.LOW, Side.STALE, Side.QUALITY)

Against = Literal["journal", "rules"]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to try.

    Attributes:
        data: folder of the gateway's stores.
        from_ms, to_ms: UTC milliseconds; None: as far as there is something. last_ms: so long before the end instead.
        points: ids of points, devices or areas; empty: all.
        changes: `POINT.KEY=VALUE`.
        against: what it is compared with: the journal's records, or the unchanged rules.
    """

    data: Path
    from_ms: int | None = None
    to_ms: int | None = None
    last_ms: int | None = None
    points: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    against: Against = "journal"
    ack_after_s: float = 0.0


@dataclass(slots=True, kw_only=True)
class Trial:
    """What came out.

    Attributes:
        t0_ms, t1_ms: the time that is counted.
        readings: that were replayed. delayed: that came too late for the rules, then and now. lost: damaged segments.
        restarts: of the gateway within the time.
        was, would: what happened, or would have with the rules as they are; what would have with the changed ones.
    """

    site: Site
    order: Order
    t0_ms: int
    t1_ms: int
    readings: int = 0
    delayed: int = 0
    lost: int = 0
    restarts: int = 0
    was: Tally
    would: Tally


@dataclass(slots=True, kw_only=True)
class _Journal:
    """What the journal says.

    Attributes:
        before: the newest record of each alarm before the time that is replayed.
        alarms: records of alarms within it, in order.
        starts, stops: of the gateway, by boot.
        end: when the newest record was made; None: there is none.
    """

    before: dict[str, Event] = field(default_factory=dict[str, Event])
    alarms: deque[Event] = field(default_factory=deque[Event])
    starts: dict[str, deque[Instant]] = field(default_factory=dict[str, deque[Instant]])
    stops: dict[str, list[Instant]] = field(default_factory=dict[str, list[Instant]])
    end: Instant | None = None

    def read(self, path: Path, points: frozenset[str] | None, from_ms: int, to_ms: int) -> None:
        """Take in what lies between `from_ms` and `to_ms`, UTC milliseconds, of `points` (None: all)."""
        for event in recorded_events(path, ("alarm.", "gateway.started", "gateway.stopped")):
            if event.kind == "gateway.started":
                self.starts.setdefault(event.at.boot, deque()).append(event.at)
            elif event.kind == "gateway.stopped":
                self.stops.setdefault(event.at.boot, []).append(event.at)
            elif _is_about(event, points):
                if event.at.utc_ms < from_ms:
                    self.before[event.body["alarm"]["id"]] = event
                elif event.at.utc_ms <= to_ms:
                    self.alarms.append(event)


def _is_about(event: Event, points: frozenset[str] | None) -> bool:
    alarm = event.body["alarm"]
    return comes_from_readings(alarm["id"]) and (points is None or alarm["point"] in points)


def run_trial(order: Order, site: Site, progress: Progress = lambda _done, _total: None) -> Trial:
    """Replay.

    Args:
        order: what to try.
        site: with the rules as they are.
        progress: gets how many readings of how many were looked at.

    Raises:
        ConfigError: a change makes rules that site.toml could not have.
        PermanentError: no history, no journal, no such point, or no readings in the time.
    """
    changed = changed_site(site, order.changes)
    points = _chosen(order.points, site)
    with RecordedHistory(order.data / "history.db") as history:
        return _Run(order, site, changed, points, history, progress).run()


def _chosen(names: Sequence[str], site: Site) -> frozenset[str] | None:
    """Ids of the points that are meant; None: all."""
    from .wording import nearest

    if not names:
        return None
    points = [meta.point.id for meta in site.points]
    chosen: set[str] = set()
    for name in names:
        found = [point for point in points if point == name or point.startswith(f"{name}.")]
        if not found:
            raise PermanentError(f"no point, device or area {name!r}", hint=f"did you mean {nearest(name, points)}?")
        chosen.update(found)
    return frozenset(chosen)


class _Run:
    """One trial: readings, restarts and the journal's alarms side by side in the order of time."""

    def __init__(
        self,
        order: Order,
        site: Site,
        changed: Site,
        points: frozenset[str] | None,
        history: RecordedHistory,
        progress: Progress,
    ) -> None:
        self._order, self._points = order, points
        self._history, self._progress = history, progress
        self._rules, self._changed_rules = _rules(site, points), _rules(changed, points)
        alone = all(rule.side in _ALONE for rule in (*self._rules, *self._changed_rules))
        self._read = points if alone else None  # other rules look at other points too
        path = order.data / "journal.db"
        newest = newest_record(path)
        self._journal = journal = _Journal(end=newest.at if newest is not None else None)
        t0_ms, t1_ms = self._time()
        journal.read(path, points, t0_ms - WARM_UP_MS, t1_ms)
        self._trial = Trial(
            site=site, order=order, t0_ms=t0_ms, t1_ms=t1_ms, was=Tally(t0_ms=t0_ms), would=Tally(t0_ms=t0_ms)
        )
        self._replays: list[Replay] = []

    def run(self) -> Trial:
        """Replay everything; then let the time pass in which nothing was read any more."""
        last: Instant | None = None
        after: Instant | None = None
        for at, batch in _moments(self._runs()):
            if at.utc_ms > self._trial.t1_ms:
                after = after or at
                continue
            last, after = self._arrive(last or self._begin(at), at), None
            self._feed(last, batch)
        if last is None:
            raise PermanentError("no readings in this time", hint="see --from, --to and --last")
        self._finish(last, after)
        self._trial.lost = self._history.lost
        return self._trial

    # --- time ---

    def _time(self) -> tuple[int, int]:
        """From and to, in UTC milliseconds; as far as anything was recorded."""
        spans, tail = self._history.spans, [r.at.utc_ms for run in self._history.tail() for r in run]
        starts = [span.t0_ms for span in spans] + tail
        ends = [span.t1_ms for span in spans] + tail
        if not starts:
            raise PermanentError(f"{self._history.path}: holds no readings yet", hint="let the gateway run for a while")
        if self._journal.end is not None:
            ends.append(self._journal.end.utc_ms)
        order, first_ms = self._order, min(starts)
        t1_ms = max(ends) if order.to_ms is None else min(order.to_ms, max(ends))
        from_ms = order.from_ms if order.last_ms is None else t1_ms - order.last_ms
        return max(first_ms, from_ms or first_ms), t1_ms

    def _begin(self, at: Instant) -> Instant:
        """Where the replays begin: with the start of the gateway before the first reading, or with that."""
        starts = self._started(at, None)
        start = starts[-1] if starts and starts[-1].utc_ms >= self._trial.t0_ms - WARM_UP_MS else _just_before(at)
        journal = self._journal
        while journal.alarms and journal.alarms[0].at.utc_ms < start.utc_ms:
            event = journal.alarms.popleft()
            journal.before[event.body["alarm"]["id"]] = event
        known = [alarm_from_json(event.body["alarm"]) for event in journal.before.values()]
        same = {rule.id: rule for rule in self._rules}
        others = [rule.id for rule in self._changed_rules if rule != same.get(rule.id)]
        self._add(self._changed_rules, seed(known, self._changed_rules, others), start, self._trial.would)
        if self._order.against == "rules":
            self._add(self._rules, seed(known, self._rules, ()), start, self._trial.was)
        else:
            _take(self._trial.was, journal.before.values())
        return start

    def _add(self, rules: Sequence[Rule], seeds: dict[str, Alarm], start: Instant, tally: Tally) -> None:
        _take(tally, [self._journal.before[alarm] for alarm in seeds])
        self._replays.append(Replay(rules, seeds, start, _sink(tally), ack_after_s=self._order.ack_after_s))

    def _arrive(self, last: Instant, at: Instant) -> Instant:
        """Bring the replays to the moment of a reading, through the restarts before it; when the reading counts."""
        for start in self._started(at, last):
            last = self._restart(last, start)
        if at.boot != last.boot:
            last = self._restart(last, _just_before(at))
        return at if at.mono_s >= last.mono_s else last

    def _started(self, at: Instant, last: Instant | None) -> list[Instant]:
        """Starts of the gateway after `last` and up to `at`, in the boot of `at`."""
        waiting, found = self._journal.starts.get(at.boot, deque[Instant]()), list[Instant]()
        while waiting and waiting[0].mono_s <= at.mono_s:
            start = waiting.popleft()
            if last is None or last.boot != at.boot or start.mono_s > last.mono_s:
                found.append(start)
        return found

    def _restart(self, last: Instant, start: Instant) -> Instant:
        self._live_on(last, start)
        for replay in self._replays:
            replay.restart(start)
        self._trial.restarts += start.utc_ms >= self._trial.t0_ms
        return start

    def _live_on(self, last: Instant, start: Instant) -> None:
        """Up to when the gateway was stopped; of one that was killed nobody knows more than its last reading."""
        stops = self._journal.stops.get(last.boot, [])
        stop = next((stop for stop in stops if stop.mono_s >= last.mono_s), None)
        if stop is not None and (stop.boot != start.boot or stop.mono_s <= start.mono_s):
            self._pass_time(last, stop.mono_s - last.mono_s)

    def _finish(self, last: Instant, after: Instant | None) -> None:
        """Until the end of the time, as far as the gateway is known to have run: it left a reading or a record."""
        end, t1_ms = after or self._journal.end, self._trial.t1_ms
        if end is None or end.boot != last.boot:
            end = last
        for start in self._started(end, last):
            if start.utc_ms > t1_ms:
                self._live_on(last, start)
                end = last
                break
            last = self._restart(last, start)
        self._pass_time(last, end.mono_s - last.mono_s)
        self._follow_journal(t1_ms)

    # --- readings ---

    def _runs(self) -> Iterator[list[Reading]]:
        """Of the segments in which the time lies, in order, then of the tail."""
        t0_ms, t1_ms = self._trial.t0_ms - WARM_UP_MS, self._trial.t1_ms
        spans = [span for span in self._history.spans if span.t1_ms >= t0_ms and span.t0_ms <= t1_ms]
        total, done = sum(span.count for span in spans) or 1, 0
        only = next(iter(self._read)) if self._read is not None and len(self._read) == 1 else None
        for span in spans:
            yield self._wanted(self._history.read(span, only), t0_ms)
            done += span.count
            self._progress(done, total)
        for run in self._history.tail(only):
            yield self._wanted(run, t0_ms)

    def _wanted(self, run: Iterable[Reading], t0_ms: int) -> list[Reading]:
        read, kept = self._read, []
        for reading in run:
            if reading.at.utc_ms < t0_ms or (read is not None and reading.point not in read):
                continue
            if reading.why == DELAYED:
                self._trial.delayed += reading.at.utc_ms >= self._trial.t0_ms
            else:
                kept.append(reading)
        return kept

    def _feed(self, at: Instant, batch: list[Reading]) -> None:
        trial = self._trial
        self._follow_journal(at.utc_ms)
        for replay in self._replays:
            replay.feed(batch, at)
        if at.utc_ms >= trial.t0_ms:
            trial.readings += len(batch)
        for reading in batch:
            if reading.value is not None and reading.quality is not Quality.BAD:
                trial.was.see(reading.point, reading.value)
                trial.would.see(reading.point, reading.value)

    def _pass_time(self, last: Instant, ahead_s: float) -> None:
        """Nothing was read for so many seconds after `last`, or until the end of the time."""
        ahead_s = min(ahead_s, (self._trial.t1_ms - last.utc_ms) / 1000)
        if ahead_s <= 0:
            return
        to = replace(last, utc_ms=last.utc_ms + round(ahead_s * 1000), mono_s=last.mono_s + ahead_s)
        self._follow_journal(to.utc_ms)
        for replay in self._replays:
            replay.pass_time(to)

    def _follow_journal(self, to_ms: int) -> None:
        alarms = self._journal.alarms
        while alarms and alarms[0].at.utc_ms <= min(to_ms, self._trial.t1_ms):
            event = alarms.popleft()
            if self._order.against == "journal":
                _take(self._trial.was, [event])


def _rules(site: Site, points: frozenset[str] | None) -> tuple[Rule, ...]:
    return tuple(rule for rule in site.rules if points is None or rule.point in points)


def _take(tally: Tally, events: Iterable[Event]) -> None:
    for event in events:
        tally.record(event.kind, event.at.utc_ms, event.body["alarm"])


def _just_before(at: Instant) -> Instant:
    """Where a daemon of which nobody knows when it began looks at the time: between two readings, not with one."""
    return replace(at, utc_ms=at.utc_ms - _PHASE_MS, mono_s=at.mono_s - _PHASE_MS / 1000)


def _sink(tally: Tally) -> Callable[[Draft], None]:
    return lambda draft: tally.record(draft.kind, draft.at.utc_ms, draft.body["alarm"])


def _moments(runs: Iterable[list[Reading]]) -> Iterator[tuple[Instant, list[Reading]]]:
    """Readings of one moment together, in the order of time within a boot; boots in the order of the file."""
    waiting: list[Reading] = []
    for run in runs:
        for boot in dict.fromkeys(reading.at.boot for reading in run):
            if waiting and waiting[0].at.boot != boot:
                yield from _grouped(waiting)
                waiting = []
            waiting += [reading for reading in run if reading.at.boot == boot]
            waiting.sort(key=lambda reading: reading.at.mono_s)
        if waiting:
            until_s = waiting[-1].at.mono_s - _HOLD_S
            ready = [reading for reading in waiting if reading.at.mono_s < until_s]
            waiting = waiting[len(ready) :]
            yield from _grouped(ready)
    yield from _grouped(waiting)


def _grouped(readings: Iterable[Reading]) -> Iterator[tuple[Instant, list[Reading]]]:
    group: list[Reading] = []
    for reading in readings:
        if group and group[0].at.mono_s != reading.at.mono_s:
            yield group[0].at, group
            group = []
        group.append(reading)
    if group:
        yield group[0].at, group
