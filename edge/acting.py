"""What a person does with an alarm, whichever way the wish comes: page, MQTT, SMS. Rights are judged here alone."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import RefusedError
from ..serving.people import Person
from ..sync.journal import Record
from ..words import Instant
from .alarms.machine import missing_roles, required_roles
from .alarms.overlay import Overlay, OverlayKind
from .pipeline import Pipeline

MayAct = Callable[[Person, str, str], bool]
"""Whether a person may act in a role for an area now."""

_CALL = "call the person who is"
_CALL_AREA = "call the person who answers for this area"


def holds(person: Person, role: str, area: str) -> bool:
    """The plain rule: the role is theirs, and so is the area."""
    return role in person.roles and person.answers_for(area)


class Acting:
    """Commands of persons.

    Args:
        pipeline: decides and commits.
        may_act: who may act in which role where; substitutes do while they substitute.
    """

    def __init__(self, pipeline: Pipeline, may_act: MayAct = holds) -> None:
        self._pipeline = pipeline
        self._may_act = may_act

    async def acknowledge(
        self, person: Person, alarm_id: str, occurrence: int, role: str | None = None
    ) -> list[Record]:
        """`person` acknowledges, as `role` or as the first required role that is theirs.

        Raises:
            RefusedError: `not_your_role`, `not_your_area`, and what `machine.step` refuses.
        """
        role = role or self.pick_role(person, alarm_id)
        self.check(person, role, alarm_id)
        return await self._pipeline.command(
            lambda engine, at: engine.acknowledge(alarm_id, occurrence, role, person.id, at)
        )

    async def reset(self, person: Person, alarm_id: str, occurrence: int) -> list[Record]:
        """An officer unlatches. Raises RefusedError as `acknowledge`."""
        self.check(person, "officer", alarm_id)
        return await self._pipeline.command(lambda engine, at: engine.reset(alarm_id, occurrence, person.id, at))

    async def cover(
        self,
        person: Person,
        alarm_id: str,
        kind: OverlayKind,
        why: str,
        *,
        for_s: float | None = None,
        permit: str = "",
        one_shot: bool = False,
    ) -> list[Record]:
        """`person` shelves an alarm, or takes it out of service. Raises RefusedError; see `overlay.check_cover`."""
        area = self._pipeline.engine.rule(alarm_id).area
        roles = tuple(role for role in ("keeper", "officer", "control_room") if self._may_act(person, role, area))

        def at(instant: Instant) -> Overlay:
            return Overlay(
                kind=kind, who=person.id, why=why, since=instant, for_s=for_s, permit=permit, one_shot=one_shot
            )

        return await self._pipeline.command(lambda engine, instant: engine.cover(alarm_id, at(instant), roles, instant))

    async def uncover(self, person: Person, alarm_id: str, kind: OverlayKind) -> list[Record]:
        """People are told again. Whoever may act for the alarm at all may do that. Raises RefusedError."""
        area = self._pipeline.engine.rule(alarm_id).area
        if not any(self._may_act(person, role, area) for role in ("keeper", "officer", "control_room")):
            raise RefusedError("not_your_role", f"{person.id} may not end that for {alarm_id}", hint=_CALL)
        return await self._pipeline.command(lambda engine, instant: engine.uncover(alarm_id, kind, person.id, instant))

    async def release(self, person: Person, freeze_id: str, reason: str) -> list[Record]:
        """`person` releases a freeze. Raises RefusedError: `no_such_freeze`, `not_allowed`, `reason_missing`."""
        ladders = self._pipeline.ladders
        freeze = ladders.freezes.get(freeze_id)
        area = freeze.area if freeze is not None else ""
        roles = [role for role in (freeze.by if freeze is not None else ()) if self._may_act(person, role, area)]
        return await self._pipeline.command(
            lambda _, instant: ladders.release(freeze_id, person.id, roles, reason, instant)
        )

    def pick_role(self, person: Person, alarm_id: str) -> str:
        """The first required role that the person may act in; one that is still missing before one that is not."""
        engine = self._pipeline.engine
        rule, alarm = engine.rule(alarm_id), engine.alarm(alarm_id)
        required = required_roles(rule, alarm)
        for role in (*missing_roles(rule, alarm), *required):
            if self._may_act(person, role, rule.area):
                return role
        held = [role for role in required if role in person.roles]
        if held:
            raise RefusedError(
                "not_your_area", f"{person.id} does not answer for {rule.area or 'the whole site'}", hint=_CALL_AREA
            )
        raise RefusedError("not_your_role", f"{person.id} is none of {', '.join(required)}", hint=_CALL)

    def check(self, person: Person, role: str, alarm_id: str) -> None:
        """Raises RefusedError: `no_such_alarm`, `not_your_role`, `not_your_area`."""
        area = self._pipeline.engine.rule(alarm_id).area
        if self._may_act(person, role, area):
            return
        if role not in person.roles:
            raise RefusedError("not_your_role", f"{person.id} is not {role}", hint=_CALL)
        raise RefusedError(
            "not_your_area", f"{person.id} does not answer for {area or 'the whole site'}", hint=_CALL_AREA
        )
