"""What the alarms do to the people who must answer them: floods, chatter, standing alarms. Pure and deterministic.

Fed with `alarm.*` records in the order of their commit and with time. Definitions and numbers are those of the
statistics (`statistics.py`; ISA-18.2 / IEC 62682, EEMUA 191), so that the alarm and the report say the same. Alarms of
the system itself never count, and neither does what is shelved, suppressed or out of service: somebody has decided
that nobody need be told, and that decision is recorded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..positions import CONTROL_ROOM
from .rules import Kind
from .statistics import (
    ANNUNCIATED,
    CHATTER_COUNT,
    CHATTER_MS,
    COMES_ON,
    FLOOD_ENTERS,
    FLOOD_EXITS,
    PERIOD_MS,
    STANDING_MS,
)
from .system import Sight, is_system, system_rule

_MOST_IDS = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Numbers of table B of docs/alarms.md; seconds and counts.

    Attributes:
        flood_enter: more annunciations than this within `flood_s` begin a flood. flood_exit: fewer than this end it.
        chatter_count: so many activations within `chatter_s` are chatter, which ends after `quiet_s` without one.
        standing_s: an alarm that is on for longer stands.
    """

    flood_enter: int = FLOOD_ENTERS
    flood_exit: int = FLOOD_EXITS
    flood_s: float = PERIOD_MS / 1000
    chatter_count: int = CHATTER_COUNT
    chatter_s: float = CHATTER_MS / 1000
    quiet_s: float = 600.0
    standing_s: float = STANDING_MS / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the detectors need of one `alarm.*` record. `at_s`: monotonic seconds; never less than the one before."""

    at_s: float
    kind: str
    alarm: str
    area: str = ""
    name: str = ""
    name_en: str = ""
    active: bool = True
    covered: bool = False
    is_system: bool = False

    @classmethod
    def of_record(cls, kind: str, alarm: Mapping[str, Any], at_s: float) -> Seen:
        """Of the record's kind and the alarm object (JSON) that it carries."""
        return cls(
            at_s=at_s,
            kind=kind,
            alarm=alarm["id"],
            area=alarm["area"],
            name=alarm["name"],
            name_en=alarm["name_en"],
            active=alarm["active"] is not None,
            covered=alarm.get("overlay") is not None,
            is_system=is_system(alarm),
        )


@dataclass(slots=True, kw_only=True)
class Flood:
    """A flood that goes on.

    Attributes:
        first: the first-out: the first of the annunciations that made the flood, most often the cause.
        told: annunciations since, the first included.
    """

    position: str
    first: Seen
    told: int


@dataclass(slots=True)
class _Position:
    recent: deque[Seen] = field(default_factory=deque[Seen])
    flood: Flood | None = None


class Floods:
    """More annunciations than one operating position can follow.

    Args:
        position_of: the position that answers for an area.
    """

    def __init__(self, keys: Keys, position_of: Callable[[str], str]) -> None:
        self._keys = keys
        self._position_of = position_of
        self._positions: dict[str, _Position] = {}

    def see(self, seen: Seen) -> None:
        """A record was committed."""
        if seen.kind not in ANNUNCIATED or seen.covered:
            return
        name = self._position_of(seen.area)
        position = self._positions.setdefault(name, _Position())
        self._forget(position, seen.at_s)
        position.recent.append(seen)
        if position.flood is not None:
            position.flood.told += 1
        elif len(position.recent) > self._keys.flood_enter:
            position.flood = Flood(position=name, first=position.recent[0], told=len(position.recent))

    def open(self, now_s: float) -> list[Flood]:
        """Floods that go on."""
        for position in self._positions.values():
            self._forget(position, now_s)
        return [position.flood for position in self._positions.values() if position.flood is not None]

    def sights(self, now_s: float) -> list[Sight]:
        """One for each flood; its value is how many were annunciated since it began."""
        return [_flood_sight(flood) for flood in self.open(now_s)]

    def _forget(self, position: _Position, now_s: float) -> None:
        recent = position.recent
        while recent and recent[0].at_s + self._keys.flood_s <= now_s:
            recent.popleft()
        if len(recent) < self._keys.flood_exit:
            position.flood = None


class Chatter:
    """Alarms that come and go so fast that nobody can answer them."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._times: dict[str, deque[float]] = {}
        self._open: dict[str, Seen] = {}

    def see(self, seen: Seen) -> None:
        """A record was committed."""
        if seen.kind not in COMES_ON or seen.covered:
            return
        self._forget(seen.at_s)
        times = self._times.setdefault(seen.alarm, deque(maxlen=self._keys.chatter_count))
        times.append(seen.at_s)
        often = len(times) == self._keys.chatter_count and times[-1] - times[0] <= self._keys.chatter_s
        if often or seen.alarm in self._open:
            self._open[seen.alarm] = seen

    def open(self, now_s: float) -> list[Seen]:
        """The last activation of each alarm that chatters."""
        self._forget(now_s)
        return list(self._open.values())

    def sights(self, now_s: float) -> list[Sight]:
        """One for each alarm that chatters; its value is the number of activations that made it so."""
        return [
            Sight(
                rule=system_rule(Kind.CHATTER, seen.alarm, about=seen.name, about_en=seen.name_en),
                value=self._keys.chatter_count,
                facts={"alarm": seen.alarm},
            )
            for seen in self.open(now_s)
        ]

    def _forget(self, now_s: float) -> None:
        for alarm in [n for n, last in self._open.items() if now_s - last.at_s >= self._keys.quiet_s]:
            del self._open[alarm]


class Standing:
    """Alarms that are on for so long that nobody sees them any more."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._since: dict[str, float] = {}
        self._covered: set[str] = set()

    def begin(self, alarm: str, since_s: float, *, covered: bool) -> None:
        """It is on since then, as far as the store knows; what a record says later or said before is not changed."""
        self._since.setdefault(alarm, since_s)
        if covered:
            self._covered.add(alarm)

    def see(self, seen: Seen) -> None:
        """A record was committed."""
        self._covered.discard(seen.alarm)
        if not seen.active:
            self._since.pop(seen.alarm, None)
            return
        self.begin(seen.alarm, seen.at_s, covered=seen.covered)

    def open(self, now_s: float) -> list[str]:
        """Ids of the alarms that stand, the oldest first."""
        over = [(since, n) for n, since in self._since.items() if now_s - since > self._keys.standing_s]
        return [alarm for _, alarm in sorted(over) if alarm not in self._covered]

    def sights(self, now_s: float) -> list[Sight]:
        """One for all of them; its value is how many they are."""
        ids = self.open(now_s)
        facts = {"count": len(ids), "alarms": ids[:_MOST_IDS]}
        return [Sight(rule=system_rule(Kind.STANDING), value=len(ids), facts=facts)] if ids else []


class AlarmLoad:
    """The three of them.

    Args:
        position_of: the position that answers for an area; default: one position for the whole site.
    """

    def __init__(self, position_of: Callable[[str], str] = lambda _: CONTROL_ROOM, keys: Keys | None = None) -> None:
        self.keys = keys or Keys()
        self.floods = Floods(self.keys, position_of)
        self.chatter = Chatter(self.keys)
        self.standing = Standing(self.keys)

    def see(self, seen: Seen) -> None:
        """A record was committed."""
        if not seen.is_system:
            self.floods.see(seen)
            self.chatter.see(seen)
            self.standing.see(seen)

    def resume(self, stored: Iterable[Mapping[str, Any]], now_s: float, age_s: Callable[[Any], float]) -> None:
        """After the records of the last day were seen: what is on for longer than they reach.

        Args:
            stored: committed alarm objects (JSON).
            now_s: monotonic seconds.
            age_s: how long ago an instant of such an object (JSON) was.
        """
        for alarm in stored:
            if alarm["active"] is not None and not is_system(alarm):
                covered = alarm.get("overlay") is not None
                self.standing.begin(alarm["id"], now_s - age_s(alarm["raised"]), covered=covered)

    def sights(self, now_s: float) -> list[Sight]:
        """What is wrong now."""
        return [*self.floods.sights(now_s), *self.chatter.sights(now_s), *self.standing.sights(now_s)]


def _flood_sight(flood: Flood) -> Sight:
    first = flood.first
    rule = system_rule(
        Kind.FLOOD,
        flood.position,
        about=f"{flood.position}，首发 {first.name}（{first.alarm}）",
        about_en=f"{flood.position}, first-out {first.name_en} ({first.alarm})",
    )
    facts = {"position": flood.position, "first_out": first.alarm, "first_at_s": first.at_s, "told": flood.told}
    return Sight(rule=rule, value=flood.told, facts=facts)
