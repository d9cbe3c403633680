"""What a ladder is: rungs with absolute distances from the first moment, and the presets. Pure values.

Source: the plant's rule for approvals, hazards and unhandled alarms (2 h red and SMS, 4 h vice president, 8 h freeze
and deviation report), and docs/alarms.md for the alarms of priority 1 and 2.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Basis(enum.StrEnum):
    """How long a ladder climbs: while its subject is open, while someone has not acknowledged, while it is still on."""

    OPEN = "open"
    UNACKED = "unacked"
    CONDITION = "condition"


class Action(enum.StrEnum):
    """What a rung does beside telling people. FREEZE also makes a deviation report."""

    NONE = ""
    FREEZE = "freeze"


class Colour(enum.StrEnum):
    """How the subject is shown from this rung on."""

    NONE = ""
    YELLOW = "yellow"
    RED = "red"


EVERY = "*"
"""In `add`: every channel that the person has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One step.

    Attributes:
        at_s: seconds after the first moment of the subject.
        to: roles that are told from this rung on, beside those of the rungs below.
        add: kinds of channels that are used from this rung on (`sms`, `siren` …), beside each person's first one.
    """

    at_s: float
    to: tuple[str, ...] = ()
    add: tuple[str, ...] = ()
    colour: Colour = Colour.NONE
    action: Action = Action.NONE

    def to_json(self) -> dict[str, Any]:
        """As records carry it."""
        return {
            "at_s": self.at_s,
            "to": list(self.to),
            "add": list(self.add),
            "colour": self.colour.value,
            "action": self.action.value,
        }

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Rung:
        """Inverse of `to_json`."""
        return cls(
            at_s=float(fields["at_s"]),
            to=tuple(fields["to"]),
            add=tuple(fields["add"]),
            colour=Colour(fields["colour"]),
            action=Action(fields["action"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A ladder as it was decided. `rungs` ascend."""

    id: str
    basis: Basis
    rungs: tuple[Rung, ...]

    def __post_init__(self) -> None:
        if any(after.at_s < before.at_s for before, after in zip(self.rungs, self.rungs[1:], strict=False)):
            raise ValueError(f"ladder {self.id}: the rungs must ascend")


HOUR_S = 3600.0

STANDARD = Plan(
    id="standard",
    basis=Basis.OPEN,
    rungs=(
        Rung(at_s=0, to=("keeper", "officer"), colour=Colour.YELLOW),
        Rung(at_s=2 * HOUR_S, add=("sms",), colour=Colour.RED),
        Rung(at_s=4 * HOUR_S, to=("vice_president",), add=("sms",), colour=Colour.RED),
        Rung(at_s=8 * HOUR_S, colour=Colour.RED, action=Action.FREEZE),
    ),
)
"""Approvals, hazards and alarms of priority 3."""

PRIORITY_2 = Plan(
    id="priority_2",
    basis=Basis.OPEN,
    rungs=(
        Rung(at_s=0, to=("keeper", "officer"), colour=Colour.YELLOW),
        Rung(at_s=300, to=("control_room",), add=("sms",), colour=Colour.YELLOW),
        Rung(at_s=HOUR_S / 2, add=(EVERY,), colour=Colour.RED),
        Rung(at_s=HOUR_S, to=("vice_president",), add=(EVERY,), colour=Colour.RED),
        Rung(at_s=8 * HOUR_S, colour=Colour.RED, action=Action.FREEZE),
    ),
)

PRIORITY_1 = Plan(
    id="priority_1",
    basis=Basis.OPEN,
    rungs=(
        Rung(at_s=0, to=("keeper", "officer"), add=(EVERY, "siren"), colour=Colour.RED),
        Rung(at_s=60, to=("control_room",), add=(EVERY, "siren"), colour=Colour.RED),
        Rung(at_s=300, to=("vice_president",), add=(EVERY, "siren"), colour=Colour.RED),
        Rung(at_s=8 * HOUR_S, colour=Colour.RED, action=Action.FREEZE),
    ),
)
"""Gas of level 2, hihi and lolo of what is dangerous at once."""

SYSTEM = Plan(
    id="system",
    basis=Basis.OPEN,
    rungs=(
        Rung(at_s=0, to=("it",)),
        Rung(at_s=HOUR_S / 2, to=("control_room",), colour=Colour.YELLOW),
        Rung(at_s=4 * HOUR_S, to=("officer",), add=("sms",), colour=Colour.RED),
    ),
)
"""Faults of the system itself. They never freeze a plant."""

NOTICE = Plan(id="notice", basis=Basis.OPEN, rungs=(Rung(at_s=0, to=("keeper", "officer")),))
"""Priority 4: told once."""

PRESETS: Mapping[str, Plan] = {plan.id: plan for plan in (STANDARD, PRIORITY_1, PRIORITY_2, SYSTEM, NOTICE)}
BY_PRIORITY: Mapping[int, str] = {1: PRIORITY_1.id, 2: PRIORITY_2.id, 3: STANDARD.id, 4: NOTICE.id}
