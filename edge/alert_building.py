"""The roster and the ladders of a site, from what site.toml says."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

from ..serving.people import Person
from .alarms.defaults import Again
from .alarms.rules import REALARM_S, REPEAT_S
from .alerts.roster import DAYS, Absence, Duty, Quiet, Roster, Shift
from .config import Document
from .ladders.plan import BY_PRIORITY, PRESETS, SYSTEM, Action, Basis, Colour, Plan, Rung
from .models import AlertsTable, LadderTable

GROUP_WAIT_S: Mapping[int, float] = {1: 0.0, 2: 0.0, 3: 30.0, 4: 30.0}
"""How long messages of a priority wait for others of their kind, when `[alerts].group_wait_s` says nothing."""
SYSTEM_KEY = "system"
"""In `[alerts].ladders`: the alarms of the system itself."""


def build_roster(document: Document, people: Mapping[str, Person], timezone: str) -> Roster:
    """The duty plan of a document without problems."""
    shifts = {shift.id: _shift(shift) for shift in document.entries("shift")}
    return Roster(
        people=people,
        timezone=timezone,
        duties=tuple(_duty(duty, shifts) for duty in document.entries("duty")),
        absences=tuple(map(build_absence, document.entries("absence"))),
        quiets=tuple(Quiet(person=table.person, shift=shifts[table.shift]) for table in document.entries("quiet")),
    )


def build_absence(table: Any) -> Absence:
    """Raises ValueError for a day that does not exist."""
    return Absence(
        person=table.person,
        begin=parse_moment(getattr(table, "from")),
        end=parse_moment(table.to, is_end=True),
        substitute=table.substitute or "",
    )


def parse_moment(text: str, *, is_end: bool = False) -> dt.datetime:
    """`2026-10-01`, `2026-10-01 08:00`, by the site's clock; a day that is an end is meant with all its hours.

    Raises ValueError for a day that does not exist.
    """
    if " " in text:
        return dt.datetime.fromisoformat(text)
    day = dt.datetime.combine(dt.date.fromisoformat(text), dt.time())
    return day + dt.timedelta(days=1) if is_end else day


def build_ladders(document: Document) -> dict[str, Plan]:
    """Every ladder by id: the presets, and those of the file."""
    return {**PRESETS, **{table.id: build_plan(table) for table in document.entries("ladder")}}


def build_plan(table: LadderTable) -> Plan:
    """Raises ValueError when the steps do not ascend."""
    return Plan(id=table.id, basis=Basis(table.basis), rungs=tuple(_rungs(table)))


def choose_ladders(alerts: AlertsTable) -> tuple[dict[int, str], str]:
    """The ladder of each priority, and that of the system's own alarms."""
    said: dict[Any, str] = dict(alerts.ladders or {})
    system = said.get(SYSTEM_KEY, SYSTEM.id)
    return {priority: said.get(str(priority), preset) for priority, preset in BY_PRIORITY.items()}, system


def choose_waits(alerts: AlertsTable) -> dict[int, float]:
    """How long messages of each priority wait for others, in seconds."""
    said = {int(priority): float(wait_s) for priority, wait_s in (alerts.group_wait_s or {}).items()}
    return {**GROUP_WAIT_S, **said}


def choose_again(alerts: AlertsTable) -> Again:
    """When people are told again of an alarm of each priority, in seconds."""
    repeat_s, realarm_s = (
        {int(priority): float(after_s) for priority, after_s in (said or {}).items()}
        for said in (alerts.repeat_s, alerts.realarm_s)
    )
    return Again(repeat_s={**REPEAT_S, **repeat_s}, realarm_s={**REALARM_S, **realarm_s})


def _shift(table: Any) -> Shift:
    days = range(len(DAYS)) if table.days is None else map(DAYS.index, table.days)
    begin, end = dt.time.fromisoformat(getattr(table, "from")), dt.time.fromisoformat(table.to)
    return Shift(id=table.id, begin=begin, end=end, days=frozenset(days))


def _duty(table: Any, shifts: Mapping[str, Shift]) -> Duty:
    first = getattr(table, "from")
    return Duty(
        person=table.person,
        role=table.role,
        shift=shifts[table.shift],
        areas=tuple(table.areas),
        first=dt.date.fromisoformat(first) if first else None,
        last=dt.date.fromisoformat(table.to) if table.to else None,
        every_weeks=table.every_weeks,
    )


def _rungs(table: LadderTable) -> Iterator[Rung]:
    for step in table.steps:
        yield Rung(
            at_s=step.at_s,
            to=tuple(step.to),
            add=tuple(step.add),
            colour=Colour(step.colour),
            action=Action(step.action),
        )
