"""Open alarms as sirens, lights and the loudspeaker see them, and what somebody has silenced. Pure.

Everything here is made of the committed alarm objects alone, so a restart begins with the right picture. A silence is
not kept: after a restart an alarm that nobody acknowledged sounds again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ..alarms.machine import State
from ..alarms.rules import Kind
from ..alarms.system import system_id

Key = tuple[str, int, int]
Silenced = Mapping[Key, float]
"""What is silenced, and until when (monotonic seconds)."""

NOBODY: Silenced = {}
_UNREACHED = f"{system_id(Kind.DELIVERY_FAILED)}."
_CHANNEL = f"{_UNREACHED}channel."
_UNACKNOWLEDGED = frozenset({State.UNACK.value, State.RTNUN.value, State.LATU.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """One alarm that is not closed.

    Attributes:
        priority: 1 (highest) to 4, of the most severe level of this occurrence.
        area: empty: it concerns the whole site.
        point: empty for a fault of the system itself (a modem, a disk, a channel).
        acked: nobody waits for an acknowledgement: every required role has given it, or the alarm is covered.
        covered: shelved, suppressed by design or out of service: nobody is told.
        active: the condition is on.
        kind: as in `alarms.rules.Kind`, or of a fault of the system.
        raised_at: RFC 3339 UTC; empty when unknown.
    """

    id: str
    occurrence: int
    priority: int
    area: str = ""
    point: str = ""
    acked: bool = False
    covered: bool = False
    active: bool = True
    kind: str = ""
    name: str = ""
    name_en: str = ""
    unit: str = ""
    value: float | None = None
    limit: float | None = None
    raised_at: str = ""

    @property
    def is_system(self) -> bool:
        return not self.point

    @property
    def tells_unreached(self) -> bool:
        """It says that a person who must be told is not reached on any way."""
        return self.id.startswith(_UNREACHED) and not self.id.startswith(_CHANNEL)

    @property
    def key(self) -> Key:
        """What a silence names: the same occurrence at a higher priority is another one, and sounds."""
        return self.id, self.occurrence, self.priority


def opened(objects: Iterable[Mapping[str, Any]]) -> tuple[Open, ...]:
    """Those of the alarm objects (`alarms.codec.alarm_json`) that are open."""
    return tuple(_open(fields) for fields in objects if fields["state"] != State.NORM.value)


def open_of(facts: Mapping[str, Any]) -> Open | None:
    """The alarm that a notice is about; None when it is about none."""
    fields = facts.get("alarm")
    return _open(fields) if isinstance(fields, Mapping) and "id" in fields else None


def concerning(alarms: Iterable[Open], areas: Iterable[str]) -> tuple[Open, ...]:
    """Those of these areas, and of the whole site. No areas: all."""
    wanted = frozenset(areas)
    return tuple(a for a in alarms if not wanted or not a.area or a.area in wanted)


def heard(
    alarms: Iterable[Open],
    silenced: Silenced,
    priorities: frozenset[int],
    now_s: float,
    *,
    unreached: bool = False,
) -> frozenset[Key]:
    """What must be heard now: unacknowledged, of one of these priorities, and not silenced.

    Args:
        unreached: that a person is not reached on any way is heard as well, where anything is: nobody else rings then.
    """
    return frozenset(
        a.key
        for a in alarms
        if not a.acked
        and (a.priority in priorities or (unreached and bool(priorities) and a.tells_unreached))
        and not _is_quiet(silenced.get(a.key), now_s)
    )


def still_silenced(silenced: Silenced, alarms: Iterable[Open], now_s: float) -> Silenced:
    """Without what is over: a silence ends with its time and with the acknowledgement, so an alarm that needs a new
    acknowledgement sounds again."""
    unacked = {a.key for a in alarms if not a.acked}
    return {key: until_s for key, until_s in silenced.items() if key in unacked and _is_quiet(until_s, now_s)}


def silence(silenced: Silenced, sounding: Iterable[Key], until_s: float) -> Silenced:
    """What sounds now is quiet until then; what comes later is not."""
    return {**silenced, **dict.fromkeys(sounding, until_s)}


def _is_quiet(until_s: float | None, now_s: float) -> bool:
    return until_s is not None and now_s < until_s


def _open(fields: Mapping[str, Any]) -> Open:
    covered = fields.get("overlay") is not None
    return Open(
        id=fields["id"],
        occurrence=fields["occurrence"],
        priority=fields["priority"],
        area=fields["area"],
        point=fields["point"],
        acked=covered or fields["state"] not in _UNACKNOWLEDGED,
        covered=covered,
        active=fields["active"] is not None,
        kind=fields["kind"] or "",
        name=fields["name"],
        name_en=fields["name_en"],
        unit=fields["unit"],
        value=fields["value"],
        limit=fields["limit"],
        raised_at=fields["raised_at"] or "",
    )
