"""Who answers for a role now: the duty plan, and who stands in for whom. Pure.

No question is left without an answer: where the plan leaves nobody, everybody who holds the role is told, and the
answer says so. Shifts and absences are told by the site's clock, also on days that have 23 or 25 hours.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from zoneinfo import ZoneInfo

from ...serving.people import Person
from ...words import Instant

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
NOBODY_ON_DUTY = "nobody_on_duty"
EVERYBODY_AWAY = "everybody_away"
_WEEK = 7
_LONGEST_QUIET_S = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """Hours of the site's clock. It belongs to the day on which it begins, and ends on the next one where `end` is not
    later than `begin`. `days`: 0 is Monday."""

    id: str
    begin: dt.time
    end: dt.time
    days: frozenset[int] = frozenset(range(_WEEK))

    def hours(self, day: dt.date, zone: ZoneInfo) -> tuple[float, float]:
        """From when until when (seconds of 1970, the end not included) the shift of `day` lasts."""
        last = day if self.end > self.begin else day + dt.timedelta(days=1)
        return _seconds(dt.datetime.combine(day, self.begin), zone), _seconds(dt.datetime.combine(last, self.end), zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Duty:
    """A person is on duty in a role, in one shift.

    Attributes:
        areas: for which; none: all that the person answers for.
        first, last: days on which its shift may begin, both included; None: no bound.
        every_weeks: in the week of `first`, and in every n-th after it.
    """

    person: str
    role: str
    shift: Shift
    areas: tuple[str, ...] = ()
    first: dt.date | None = None
    last: dt.date | None = None
    every_weeks: int = 1

    def is_for(self, area: str) -> bool:
        """Whether the plan of `area` has this duty. Empty is the whole site."""
        return not area or not self.areas or area in self.areas

    def holds(self, at_s: float, zone: ZoneInfo) -> bool:
        """Whether the person is on duty at that moment (seconds of 1970)."""
        today = dt.datetime.fromtimestamp(at_s, zone).date()
        for day in (today, today - dt.timedelta(days=1)):
            begin_s, end_s = self.shift.hours(day, zone)
            if self._is_on(day) and begin_s <= at_s < end_s:
                return True
        return False

    def _is_on(self, day: dt.date) -> bool:
        if day.weekday() not in self.shift.days:
            return False
        if (self.first and day < self.first) or (self.last and day > self.last):
            return False
        return self.first is None or (_monday(day) - _monday(self.first)).days // _WEEK % self.every_weeks == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Quiet:
    """Hours in which a person is not woken by what can wait (docs/delivery.md)."""

    person: str
    shift: Shift

    def end_s(self, at_s: float, zone: ZoneInfo) -> float:
        """When the hours end that hold at that moment (both seconds of 1970); that moment where none do."""
        today = dt.datetime.fromtimestamp(at_s, zone).date()
        for day in (today, today - dt.timedelta(days=1)):
            begin_s, end_s = self.shift.hours(day, zone)
            if day.weekday() in self.shift.days and begin_s <= at_s < end_s:
                return end_s
        return at_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """A person is away. `begin`, `end`: of the site's clock, the end not included. `substitute`: empty: nobody."""

    person: str
    begin: dt.datetime
    end: dt.datetime
    substitute: str = ""

    def holds(self, at_s: float, zone: ZoneInfo) -> bool:
        """Whether the person is away at that moment (seconds of 1970)."""
        return _seconds(self.begin, zone) <= at_s < _seconds(self.end, zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Somebody who answers for a role now.

    Attributes:
        instead_of: who is away; empty: the person holds the role.
        because: why the plan was not followed: `NOBODY_ON_DUTY`, `EVERYBODY_AWAY`; empty when it was.
    """

    person: str
    instead_of: str = ""
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The duty plan of a site.

    Attributes:
        people: by id, as people.csv has them.
        timezone: of every time of day, an IANA name.
    """

    people: Mapping[str, Person]
    timezone: str = "Asia/Shanghai"
    duties: tuple[Duty, ...] = ()
    absences: tuple[Absence, ...] = field(default=())
    quiets: tuple[Quiet, ...] = ()

    def holders(self, role: str, area: str, at: Instant) -> tuple[Holder, ...]:
        """Who answers for `role` in `area` (empty: anywhere on the site) at that moment, each person once.

        Empty only when nobody holds the role there at all.
        """
        real = self._real(role, area)
        at_s, zone = at.utc_ms / 1000, ZoneInfo(self.timezone)
        planned = [duty for duty in self.duties if duty.role == role and duty.is_for(area) and duty.person in real]
        on_duty = {duty.person for duty in planned if duty.holds(at_s, zone)}
        if found := self._present([name for name in real if name in on_duty] if planned else real, at_s, zone, ""):
            return found
        because = NOBODY_ON_DUTY if planned else EVERYBODY_AWAY
        if found := self._present(real, at_s, zone, because):
            return found
        return tuple(Holder(person=name, because=EVERYBODY_AWAY) for name in real)

    def may_act(self, person: str, role: str, area: str, at: Instant) -> bool:
        """Whether `person` may act in `role` there: who holds it always may, a substitute while the other is away."""
        real = self._real(role, area)
        if person in real:
            return True
        at_s, zone = at.utc_ms / 1000, ZoneInfo(self.timezone)
        return any(self._stand_in(name, at_s, zone) == person for name in real)

    def stands_in_for(self, person: str, at: Instant) -> tuple[Person, ...]:
        """Everybody in whose roles `person` may act at that moment, because they are away."""
        at_s, zone = at.utc_ms / 1000, ZoneInfo(self.timezone)
        others = (one for one in self.people.values() if one.id != person)
        return tuple(one for one in others if self._stand_in(one.id, at_s, zone) == person)

    def quiet_s(self, person: str, at: Instant) -> float:
        """For how long, from that moment on, what can wait is kept from `person`; seconds. Hours that follow upon one
        another are one; they never last longer than a day."""
        begin_s, zone = at.utc_ms / 1000, ZoneInfo(self.timezone)
        own = [quiet for quiet in self.quiets if quiet.person == person]
        end_s = begin_s
        for _ in range(len(own)):
            end_s = max((quiet.end_s(end_s, zone) for quiet in own), default=end_s)
        return min(end_s - begin_s, _LONGEST_QUIET_S)

    # --- inside ---

    def _real(self, role: str, area: str) -> list[str]:
        return [
            person.id
            for person in self.people.values()
            if role in person.roles and (not area or person.answers_for(area))
        ]

    def _present(self, names: Sequence[str], at_s: float, zone: ZoneInfo, because: str) -> tuple[Holder, ...]:
        """These, or who stands in for them. Who is there in person comes before who stands in for somebody."""
        there = {name: self._stand_in(name, at_s, zone) for name in names}
        found = {name: Holder(person=name, because=because) for name, who in there.items() if who == name}
        for name, who in there.items():
            if who:
                found.setdefault(who, Holder(person=who, instead_of=name, because=because))
        return tuple(found.values())

    def _stand_in(self, name: str, at_s: float, zone: ZoneInfo) -> str:
        """The person, or the first of the chain of substitutes who is there; empty when there is none."""
        asked: set[str] = set()
        while name not in asked:
            asked.add(name)
            away = next((a for a in self.absences if a.person == name and a.holds(at_s, zone)), None)
            if away is None:
                return name
            if away.substitute not in self.people:
                return ""
            name = away.substitute
        return ""


def stand_ins(person: str, pairs: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Everybody who may at some time stand in for `person`, directly or in turn.

    Args:
        pairs: of every absence: who is away, and the substitute (empty: nobody).
    """
    known = tuple(pairs)
    found: dict[str, None] = {}
    waiting = [person]
    while waiting:
        name = waiting.pop()
        for away, other in known:
            if away == name and other and other != person and other not in found:
                found[other] = None
                waiting.append(other)
    return tuple(found)


def find_loops(absences: Iterable[Absence]) -> Iterator[tuple[int, str]]:
    """Absences (by index) from whose beginning on, for a time, a chain of substitutes comes back to where it began.

    Yields:
        The index of the absence with which the loop begins, and the loop: `li -> sun -> li`.
    """
    known = list(absences)
    for i, first in enumerate(known):
        chain, name = [first.person], first.substitute
        while name and name not in chain:
            chain.append(name)
            name = next((a.substitute for a in known if a.person == name and a.begin <= first.begin < a.end), "")
        if name == first.person:
            yield i, " -> ".join([*chain, name])


def _seconds(local: dt.datetime, zone: ZoneInfo) -> float:
    """A time of the site's clock as seconds of 1970. One that comes twice is the first of the two; one that does not
    come is as long after the last one before the gap."""
    return local.replace(tzinfo=zone).timestamp()


def _monday(day: dt.date) -> dt.date:
    return day - dt.timedelta(days=day.weekday())
