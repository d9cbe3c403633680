"""The report of a deviation: a freeze opens it; a person closes it who says what caused it and what was done. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import RefusedError
from ...words import Instant, utc_text
from .climb import Subject

CLOSED_BY = ("officer", "vice_president", "manager")
"""Roles that may close a report: those who are told of it."""
SHORTEST = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Deviation:
    """A report.

    Attributes:
        id: unique on the gateway; of the subject whose ladder froze work.
        closed: who closed it as what, the cause, the measure, when; None while it is open.
    """

    id: str
    subject: Subject
    closed: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """As records and pages carry it."""
        closed = dict(self.closed) if self.closed is not None else None
        return {"id": self.id, "subject": self.subject.to_json(), "closed": closed}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Deviation:
        """Inverse of `to_json`; records of reports that were opened long ago say nothing of `closed`."""
        return cls(id=fields["id"], subject=Subject.from_json(fields["subject"]), closed=fields.get("closed"))


def of_ladder(subject: Subject) -> Deviation:
    """The report that is opened with a freeze."""
    return Deviation(id=f"deviation/{subject.key}", subject=subject)


def close(deviation: Deviation, person: str, roles: Iterable[str], cause: str, measure: str, now: Instant) -> Deviation:
    """`person` closes it. The same again changes nothing.

    Args:
        roles: in which the person may act.
        cause: why it came to that. measure: what was done so that it does not come again.

    Raises:
        RefusedError: `not_allowed`, `reason_missing`.
    """
    if deviation.closed is not None:
        return deviation
    role = next((role for role in CLOSED_BY if role in set(roles)), None)
    if role is None:
        hint = f"it takes one of: {', '.join(CLOSED_BY)}"
        raise RefusedError("not_allowed", f"{deviation.id}: {person} may not close it", hint=hint)
    if min(len(cause.strip()), len(measure.strip())) < SHORTEST:
        hint = "say what caused it, and what was done so that it does not come again"
        raise RefusedError("reason_missing", f"{deviation.id}: no cause or no measure was given", hint=hint)
    told = {"person": person, "role": role, "cause": cause.strip(), "measure": measure.strip()}
    return replace(deviation, closed={**told, "at": utc_text(now.utc_ms)})
