"""What `[[shift]]`, `[[duty]]`, `[[absence]]` and `[[quiet]]` refer to, and whether they make sense. Offline."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..serving.people import ROLES
from .alert_building import build_absence, parse_moment
from .alerts.roster import find_loops
from .config import Document, Ids, Part
from .references import all_of, check_reference, once_each
from .wording import show

_PERSON = "person of people.csv"


def find_roster_problems(document: Document) -> Iterator[str]:
    """Every problem of the duty plan; persons are judged only where people.csv can be read."""
    people = all_of(document.people) if document.people is not None else None
    for part in document.parts["shift"]:
        yield from once_each(f"shift[{part.index}].days", part.entry.days or ())
    for part in document.parts["duty"]:
        yield from _duty(document, f"duty[{part.index}]", part, people)
    for part in document.parts["absence"]:
        yield from _absence(f"absence[{part.index}]", part, people)
    for part in document.parts["quiet"]:
        yield from _quiet(document, f"quiet[{part.index}]", part, people)
    yield from _loops(document)


def _duty(document: Document, path: str, part: Part, people: Ids | None) -> Iterator[str]:
    duty = part.entry
    yield from check_reference(f"{path}.person", duty.person, people, _PERSON)
    yield from check_reference(f"{path}.role", duty.role, all_of(ROLES), "role")
    yield from check_reference(f"{path}.shift", duty.shift, document.ids("shift"), "[[shift]]")
    areas = document.ids("area")
    for j, area in enumerate(duty.areas or ()):
        yield from check_reference(f"{path}.areas[{j}]", area, areas, "[[area]]")
    yield from once_each(f"{path}.areas", duty.areas or ())
    person = (document.people or {}).get(duty.person or "")
    if person is not None and duty.role in ROLES and duty.role not in person.roles:
        yield f"{path}.role: {person.id} does not hold it in people.csv ({' '.join(person.roles)}) {show(duty.role)}"
    for j, area in enumerate(duty.areas or ()):
        if person is not None and areas is not None and area in areas.good and not person.answers_for(area):
            yield f"{path}.areas[{j}]: {person.id} does not answer for it in people.csv {show(area)}"
    yield from _days(path, duty)
    if (duty.every_weeks or 1) > 1 and not getattr(duty, "from") and "from" not in part.broken:
        yield f"{path}.from: is required beside every_weeks: the first week"


def _days(path: str, duty: Any) -> Iterator[str]:
    days: dict[str, dt.date] = {}
    for key in ("from", "to"):
        if not (text := getattr(duty, key)):
            continue
        try:
            days[key] = dt.date.fromisoformat(text)
        except ValueError:
            yield f"{path}.{key}: must be a day that exists {show(text)}"
    if len(days) == len(("from", "to")) and days["to"] < days["from"]:
        yield f"{path}.to: must not be before from, {days['from']} {show(duty.to)}"


def _absence(path: str, part: Part, people: Ids | None) -> Iterator[str]:
    absence = part.entry
    yield from check_reference(f"{path}.person", absence.person, people, _PERSON)
    if absence.substitute:
        yield from check_reference(f"{path}.substitute", absence.substitute, people, _PERSON)
    moments: dict[str, dt.datetime] = {}
    for key in ("from", "to"):
        if (text := getattr(absence, key)) is None:
            continue
        try:
            moments[key] = parse_moment(text, is_end=key == "to")
        except ValueError:
            yield f"{path}.{key}: must be a day that exists {show(text)}"
    if len(moments) == len(("from", "to")) and moments["to"] <= moments["from"]:
        yield f"{path}.to: must be later than from, {getattr(absence, 'from')} {show(absence.to)}"


def _quiet(document: Document, path: str, part: Part, people: Ids | None) -> Iterator[str]:
    quiet = part.entry
    yield from check_reference(f"{path}.person", quiet.person, people, _PERSON)
    yield from check_reference(f"{path}.shift", quiet.shift, document.ids("shift"), "[[shift]]")
    for i, duty in document.repeated["duty"]:
        if quiet.person is not None and (duty.person, duty.shift) == (quiet.person, quiet.shift):
            yield f"{path}.shift: {quiet.person} is on duty then, by duty[{i}] {show(quiet.shift)}"


def _loops(document: Document) -> Iterator[str]:
    """Substitutes who stand in for each other at the same time: then nobody would be told."""
    absences = []
    for i, table in document.repeated["absence"]:
        with suppress(ValueError):
            absences.append((i, build_absence(table)))
    for j, loop in find_loops(absence for _, absence in absences):
        i, absence = absences[j]
        what = f"goes round in a circle, {loop}: name somebody who is there"
        yield f"absence[{i}].substitute: {what} {show(absence.substitute)}"
