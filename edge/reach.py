"""Who can really answer: every alarm needs persons for its roles, different ones where it says so. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..serving.people import ROLES, Person, with_role
from ..words import Point
from .alarm_rules import list_rules
from .alarms.rules import Rule
from .config import Document

RESET_ROLE = "officer"


def find_unreachable(document: Document, points: Mapping[str, Point]) -> Iterator[str]:
    """Problems of people.csv that only show against site.toml.

    Args:
        document: with `people`; nothing is said when people.csv is broken.
        points: those that stand in an area of the file, by id.
    """
    people, alerts, source = document.people, document.single["alerts"], document.people_file
    if people is None or alerts is None:
        return
    nobody: dict[str, dict[str, str]] = {}
    crowded: dict[tuple[str, tuple[str, ...]], None] = {}
    for rule in rules_of(document, points, alerts.required_acks):
        needed = {role: "acknowledged" for role in rule.required_acks if role in ROLES}
        if any(level.latching for level in rule.levels):
            needed.setdefault(RESET_ROLE, "reset")
        empty = [role for role in needed if not with_role(people, role, rule.area)]
        for role in empty:
            nobody.setdefault(role, {}).setdefault(rule.area, needed[role])
        if rule.distinct_persons and not empty:
            crowded[(rule.area, tuple(role for role in rule.required_acks if role in ROLES))] = None
    for role, where in nobody.items():
        yield from _nobody(source, role, where)
    yield from _too_few(source, crowded, people)


def rules_of(document: Document, points: Mapping[str, Point], required_acks: Sequence[str]) -> Iterator[Rule]:
    """A table that is broken is left out: nobody knows which roles it asks for."""
    tables = {alarm.point for alarm in document.entries("alarm")}
    raw = document.raw.get("alarm", [])
    named = [entry.get("point") for entry in raw if isinstance(entry, dict)] if isinstance(raw, list) else []
    unknown = [name for name in named if isinstance(name, str) and name not in tables]
    yield from list_rules(document, points, required_acks=required_acks, unknown=unknown)


def _nobody(source: str, role: str, where: Mapping[str, str]) -> Iterator[str]:
    """One line for each role and what its absence would mean."""
    for done in ("acknowledged", "reset"):
        areas = ", ".join(f'"{area}"' for area, what in where.items() if what == done)
        if areas:
            yield f"{source}: nobody is {role} for {areas}: alarms there could never be {done}; give somebody the role"


def _too_few(source: str, asked: Iterable[tuple[str, tuple[str, ...]]], people: Mapping[str, Person]) -> Iterator[str]:
    """Roles of an area that different persons must hold, and cannot."""
    found: dict[str, list[str]] = {}
    for area, roles in asked:
        holders = {role: [person.id for person in with_role(people, role, area)] for role in roles}
        if not _each_has_own(holders):
            names = ", ".join(sorted({person for ids in holders.values() for person in ids}))
            who = f"{' and '.join(holders)} must be different persons, and only {names} can be"
            found.setdefault(who, []).append(f'"{area}"')
    for who, areas in found.items():
        yield f"{source}: {', '.join(areas)}: {who}: give one of the roles to somebody else too"


def _each_has_own(holders: Mapping[str, Sequence[str]]) -> bool:
    """Whether every role can have a person of its own: a bipartite matching, by augmenting paths (Kuhn)."""
    taken: dict[str, str] = {}

    def seat(role: str, tried: set[str]) -> bool:
        for person in holders[role]:
            if person not in tried:
                tried.add(person)
                if person not in taken or seat(taken[person], tried):
                    taken[person] = role
                    return True
        return False

    return all(seat(role, set()) for role in holders)
