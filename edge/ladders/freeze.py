"""A freeze: work that must not go on until somebody with the right to do so releases it, with a reason. Pure.

It is latched, idempotent and survives restarts. It never blocks what keeps people alive or ends work: ventilation,
lighting, exits, suspending, signing out, closing.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...errors import RefusedError
from ...words import Instant, utc_text
from .climb import Subject

ANY = "*"
NEVER_BLOCKED = frozenset({"ventilation", "lighting", "exit", "suspend", "sign_out", "close"})
"""Acts that no freeze blocks."""
RELEASED_BY = ("vice_president", "manager")
"""Roles that may release: never whoever only reported or acknowledged."""
REASON_SHORTEST = 4


class Scope(enum.StrEnum):
    """What is frozen: one permit, or a kind of work in an area (`*` = every kind)."""

    PERMIT = "permit"
    WORK = "work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """Work that is frozen.

    Attributes:
        id: unique on the gateway; the ladder that froze it.
        scope, what, area: a permit's id; or a kind of work (`stock`, `hot_work` …, `*`) in an area; "" is everywhere.
        why: the subject of the ladder.
        since: UTC, RFC 3339.
        by: roles that may release it.
        released: how it ended; None while it holds.
    """

    id: str
    scope: Scope
    what: str
    area: str
    why: Subject
    since: str
    by: tuple[str, ...] = RELEASED_BY
    released: Mapping[str, Any] | None = None

    def blocks(self, act: str, *, work: str = "", area: str = "", permit: str = "") -> bool:
        """Whether it stands in the way of `act` on that work, in that area, under that permit."""
        if self.released is not None or act in NEVER_BLOCKED:
            return False
        if self.scope is Scope.PERMIT:
            return permit != "" and permit == self.what
        return self.area in (ANY, "", area) and self.what in (ANY, work)

    def to_json(self) -> dict[str, Any]:
        """As records, pages and MQTT carry it."""
        return {
            "id": self.id,
            "scope": self.scope.value,
            "what": self.what,
            "area": self.area,
            "why": self.why.to_json(),
            "since": self.since,
            "by": list(self.by),
            "released": dict(self.released) if self.released is not None else None,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Freeze:
        """Inverse of `to_json`."""
        return cls(
            id=fields["id"],
            scope=Scope(fields["scope"]),
            what=fields["what"],
            area=fields["area"],
            why=Subject.from_json(fields["why"]),
            since=fields["since"],
            by=tuple(fields["by"]),
            released=fields["released"],
        )


def of_ladder(subject: Subject, now: Instant) -> Freeze:
    """What a ladder's last rung freezes: the permit itself, else every kind of work in the subject's area."""
    is_permit = subject.kind == "permit"
    return Freeze(
        id=f"freeze/{subject.key}",
        scope=Scope.PERMIT if is_permit else Scope.WORK,
        what=subject.id if is_permit else ANY,
        area=subject.area,
        why=subject,
        since=utc_text(now.utc_ms),
    )


def release(freeze: Freeze, person: str, roles: Iterable[str], reason: str, now: Instant) -> Freeze:
    """`person` releases it. The same release twice changes nothing.

    Raises:
        RefusedError: `not_allowed`, `reason_missing`.
    """
    if freeze.released is not None:
        return freeze
    if not set(roles) & set(freeze.by):
        raise RefusedError(
            "not_allowed", f"{freeze.id}: {person} may not release it", hint=f"it takes one of: {', '.join(freeze.by)}"
        )
    if len(reason.strip()) < REASON_SHORTEST:
        raise RefusedError("reason_missing", f"{freeze.id}: no reason was given", hint="say what was done, and why")
    told = {"person": person, "reason": reason.strip(), "at": utc_text(now.utc_ms)}
    return Freeze(
        id=freeze.id,
        scope=freeze.scope,
        what=freeze.what,
        area=freeze.area,
        why=freeze.why,
        since=freeze.since,
        by=freeze.by,
        released=told,
    )


def in_the_way(
    freezes: Iterable[Freeze], act: str, *, work: str = "", area: str = "", permit: str = ""
) -> Freeze | None:
    """The freeze that blocks `act`, None when none does."""
    return next((f for f in freezes if f.blocks(act, work=work, area=area, permit=permit)), None)
