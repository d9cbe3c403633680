"""What everybody in the control room must see now, from every part of the product. A source is a pure function.

A part that has something of this kind (patrols, permits …) adds its function to `SOURCES` in `notice_api.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ..words import Instant
from .ladders import reports
from .ladders.climb import Climb, Subject
from .ladders.plan import Colour


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One thing that fills the screen until somebody there has seen it.

    Attributes:
        id: unique among those that stand; the same thing that comes anew has another `since`.
        kind: a word that the pages translate: `freeze`, `escalation` …
        name, name_en: what it is about.
        area: empty when it is about the whole site.
        since: UTC, RFC 3339.
        page: of the control room, where something can be done about it.
        facts: more that the pages say of this kind.
    """

    id: str
    kind: str
    name: str
    name_en: str
    area: str
    since: str
    page: str
    facts: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """As `GET notices` answers it."""
        return {name: getattr(self, name) for name in self.__slots__}


Source = Callable[[sqlite3.Connection, Instant], Iterable[Notice]]


def freezes(connection: sqlite3.Connection, _: Instant) -> Iterable[Notice]:
    """Work that is frozen now."""
    for freeze in reports.freezes(connection):
        if freeze.released is None:
            facts = {"scope": freeze.scope.value, "what": freeze.what, "by": list(freeze.by)}
            yield _about(freeze.why, freeze.id, "freeze", freeze.area, freeze.since, facts)


def escalations(connection: sqlite3.Connection, now: Instant) -> Iterable[Notice]:
    """Ladders to which nobody has reacted until they turned red, or until their last rung; what froze work says so."""
    frozen = {freeze.why.key for freeze in reports.freezes(connection) if freeze.released is None}
    for key, climb in reports.climbs(connection).items():
        if climb.paused or key in frozen or not _is_overdue(climb):
            continue
        view = reports.climb_view(climb, now)
        facts = {name: view[name] for name in ("colour", "climbed", "next")} | {"of": len(climb.rungs)}
        yield _about(climb.subject, f"escalation/{key}", "escalation", climb.subject.area, view["since"], facts)


def _is_overdue(climb: Climb) -> bool:
    behind = climb.rungs[: climb.climbed]
    return bool(behind) and (len(behind) == len(climb.rungs) or any(rung.colour is Colour.RED for rung in behind))


def _about(subject: Subject, id_: str, kind: str, area: str, since: str, facts: dict[str, Any]) -> Notice:
    names = subject.to_json()
    return Notice(
        id=id_,
        kind=kind,
        name=names["name"],
        name_en=names["name_en"],
        area=area,
        since=since,
        page="ladders",
        facts={**facts, "priority": names["priority"]},
    )
