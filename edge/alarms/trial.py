"""What alarmed, when, for how long and how badly: the same count for a journal's records and a replay's. Pure.

Counted is the condition, from coming on to going off, whatever people did meanwhile: so a journal with its late
acknowledgements and a replay with its perfect operators can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

HOUR_MS = 3_600_000
_HIGH, _LOW = ("hi", "hihi"), ("lo", "lolo")
_SEVERE = ("hihi", "lolo")


@dataclass(slots=True, kw_only=True)
class Episode:
    """One time that an alarm was on.

    Attributes:
        kind: the worst level that it reached.
        start_ms, end_ms: UTC; None: still on at the end.
        worst: the highest value of hi and hihi, the lowest of lo and lolo; None of others.
    """

    alarm: str
    point: str
    name: str
    name_en: str
    unit: str
    kind: str
    priority: int
    start_ms: int
    end_ms: int | None = None
    worst: float | None = None

    def duration_s(self, t0_ms: int, t1_ms: int) -> float:
        """Seconds that it was on between `t0_ms` and `t1_ms`."""
        end_ms = t1_ms if self.end_ms is None else min(self.end_ms, t1_ms)
        return max(0, end_ms - max(self.start_ms, t0_ms)) / 1000

    def see(self, value: float) -> None:
        """A value while it was on."""
        if self.kind in _HIGH:
            self.worst = value if self.worst is None else max(self.worst, value)
        elif self.kind in _LOW:
            self.worst = value if self.worst is None else min(self.worst, value)


@dataclass(slots=True)
class Tally:
    """Follows one side, records and readings in the order of time.

    Attributes:
        episodes: in the order in which they began.
        announced: records that told people: raised, made worse, come back, repeated.
    """

    t0_ms: int
    episodes: list[Episode] = field(default_factory=list[Episode])
    announced: int = 0
    _on: dict[str, Episode] = field(default_factory=dict[str, Episode])
    _by_point: dict[str, dict[str, Episode]] = field(default_factory=dict[str, dict[str, Episode]])

    def record(self, kind: str, at_ms: int, alarm: Mapping[str, Any]) -> None:
        """An `alarm.*` record, with the alarm as it is after it."""
        self.announced += at_ms >= self.t0_ms and tells(kind, alarm)
        episode, active = self._on.get(alarm["id"]), alarm["active"]
        if active is None:
            if episode is not None:
                self._end(episode, at_ms)
        elif episode is None:
            self._begin(alarm, at_ms)
        elif active in _SEVERE and episode.kind not in _SEVERE:
            episode.kind, episode.priority = active, alarm["priority"]

    def see(self, point: str, value: float) -> None:
        """A reading that is not bad."""
        for episode in self._by_point.get(point, {}).values():
            episode.see(value)

    def _begin(self, alarm: Mapping[str, Any], at_ms: int) -> None:
        episode = Episode(
            alarm=alarm["id"],
            point=alarm["point"],
            name=alarm["name"],
            name_en=alarm["name_en"],
            unit=alarm["unit"],
            kind=alarm["active"],
            priority=alarm["priority"],
            start_ms=at_ms,
        )
        if alarm["value"] is not None:
            episode.see(alarm["value"])
        self.episodes.append(episode)
        self._on[episode.alarm] = episode
        if episode.kind in (*_HIGH, *_LOW):
            self._by_point.setdefault(episode.point, {})[episode.alarm] = episode

    def _end(self, episode: Episode, at_ms: int) -> None:
        episode.end_ms = at_ms
        del self._on[episode.alarm]
        self._by_point.get(episode.point, {}).pop(episode.alarm, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """One alarm, or all of them, on one side.

    Attributes:
        times: how often it came on within the time.
        on_s: how long it was on, seconds; also when it came on before.
        longest_s: of one episode.
        worst: value of the worst episode; None where there is none.
    """

    times: int = 0
    on_s: float = 0.0
    longest_s: float = 0.0
    worst: float | None = None

    def to_json(self, hours: float) -> dict[str, Any]:
        """As `--json` prints it."""
        return {
            "times": self.times,
            "per_hour": round(self.times / hours, 4) if hours else None,
            "on_s": round(self.on_s, 3),
            "longest_s": round(self.longest_s, 3),
            "worst": self.worst,
        }


def count(episodes: Iterable[Episode], t0_ms: int, t1_ms: int) -> dict[str, Count]:
    """By alarm: what lies at least in part between `t0_ms` and `t1_ms`, UTC milliseconds."""
    own: dict[str, list[Episode]] = {}
    for episode in within(episodes, t0_ms, t1_ms):
        own.setdefault(episode.alarm, []).append(episode)
    return {alarm: _count(found, t0_ms, t1_ms) for alarm, found in own.items()}


def _count(episodes: list[Episode], t0_ms: int, t1_ms: int) -> Count:
    durations = [episode.duration_s(t0_ms, t1_ms) for episode in episodes]
    worst = [episode.worst for episode in episodes if episode.worst is not None]
    is_low = any(episode.kind in _LOW for episode in episodes)
    return Count(
        times=sum(episode.start_ms >= t0_ms for episode in episodes),
        on_s=sum(durations),
        longest_s=max(durations),
        worst=(min(worst) if is_low else max(worst)) if worst else None,
    )


def within(episodes: Iterable[Episode], t0_ms: int, t1_ms: int) -> list[Episode]:
    """Those that were on between `t0_ms` and `t1_ms`, both included."""
    return [e for e in episodes if e.start_ms <= t1_ms and (e.end_ms is None or e.end_ms >= t0_ms)]


def tells(kind: str, alarm: Mapping[str, Any]) -> bool:
    """Whether people are told by a record: nobody is while something lies over the alarm."""
    told = kind in ("alarm.raised", "alarm.reraised", "alarm.reopened", "alarm.repeated")
    return told and alarm.get("overlay") is None


def comes_from_readings(alarm_id: str) -> bool:
    """Whether readings alone decide an alarm; the gateway's own faults do not come from them."""
    return not alarm_id.startswith("system.")
