"""By which ways a person is told, in which order, and which things sound and shine. Pure.

A person's ways are the channels of `[alerts].channels` that can reach them, in that order. The first one is used at
once, the next one when it fails; a ladder adds others by their kind.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ...serving.people import Person
from ..ladders.plan import EVERY

SIREN = "siren"
"""In a ladder's `add`: everything that sounds or shines at the post."""
GROUPS = frozenset({"wecom", "dingtalk", "feishu", "lark"})
"""Kinds that post once for everybody in a group."""
THINGS = frozenset({"beacon", "speech"})
"""Kinds that reach nobody by name."""
RINGING = "sms"
"""The kind that rings a locked phone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A channel, as far as it matters who is told by it.

    Attributes:
        kind: of the channel.
        areas: whose messages it carries; none: those of the whole site.
        roles: who is told by it; none: everybody.
    """

    id: str
    kind: str
    areas: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()

    @property
    def is_group(self) -> bool:
        return self.kind in GROUPS

    @property
    def is_thing(self) -> bool:
        return self.kind in THINGS

    def covers(self, area: str) -> bool:
        """Whether messages about `area` go this way. What concerns the whole site (empty) goes every way."""
        return not area or not self.areas or area in self.areas

    def reaches(self, person: Person, roles: Collection[str], area: str) -> bool:
        """Whether it can tell `person`, as one of `roles`, of something in `area`."""
        if self.is_thing or not self.covers(area) or (self.roles and not set(roles) & set(self.roles)):
            return False
        match self.kind:
            case "sms":
                return bool(person.phone)
            case "mail":
                return bool(person.email)
            case _:
                return True

    def is_added_by(self, add: Iterable[str]) -> bool:
        """Whether a rung with this `add` uses it for everybody whom it reaches."""
        return any(word in (EVERY, self.kind) or (word == SIREN and self.is_thing) for word in add)


def order_of(channels: Iterable[Any], used: Sequence[str]) -> tuple[Way, ...]:
    """The ways of a site, in the order in which they are tried.

    Args:
        channels: its `[[channel]]` tables.
        used: `[alerts].channels`.
    """
    tables = {table.id: table for table in channels}
    return tuple(
        Way(
            id=name,
            kind=tables[name].kind,
            areas=tuple(getattr(tables[name], "areas", ())),
            roles=tuple(getattr(tables[name], "roles", ())),
        )
        for name in used
        if name in tables
    )


def ways(order: Iterable[Way], person: Person, roles: Collection[str], area: str) -> tuple[Way, ...]:
    """Every way to `person`, as one of `roles`, for something in `area`; the first one is used first."""
    return tuple(way for way in order if way.reaches(person, roles, area))


def at_once(found: Sequence[Way], add: Iterable[str]) -> tuple[Way, ...]:
    """Which of a person's ways are used together: the first one, and those that `add` names."""
    names = tuple(add)
    return tuple(way for i, way in enumerate(found) if i == 0 or way.is_added_by(names))


def next_way(
    order: Iterable[Way], person: Person, roles: Collection[str], area: str, tried: Iterable[str]
) -> Way | None:
    """The first way to the person that was not tried yet; None when there is none.

    Args:
        tried: ids of the channels that failed or are being tried.
    """
    gone = frozenset(tried)
    return next((way for way in ways(order, person, roles, area) if way.id not in gone), None)


def things(order: Iterable[Way], area: str, add: Iterable[str]) -> tuple[Way, ...]:
    """What sounds and shines for something in `area`, with a rung that has this `add`."""
    names = tuple(add)
    return tuple(way for way in order if way.is_thing and way.covers(area) and way.is_added_by(names))
