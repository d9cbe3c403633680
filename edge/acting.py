"""What a person does with an alarm, whichever way the wish comes: page, MQTT, SMS. Rights are judged here alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..errors import RefusedError
from ..serving.people import Person
from ..sync.journal import Draft, Record
from ..words import Instant
from .alarms.engine import Engine
from .alarms.machine import missing_roles, required_roles
from .alarms.overlay import SHELVES, TAKES_OUT, Overlay, OverlayKind
from .ladders.deviation import CLOSED_BY
from .pipeline import Pipeline

MayAct = Callable[[Person, str, str], bool]
"""Whether a person may act in a role for an area now."""

_COVERS = tuple(dict.fromkeys((*SHELVES, *TAKES_OUT)))
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
        self, person: Person, alarm_id: str, overlay: Callable[[Instant], Overlay], occurrence: int | None = None
    ) -> list[Record]:
        """`person` shelves an alarm, or takes it out of service.

        Args:
            overlay: made at the moment of the decision.
            occurrence: the one that the person saw; None where they saw none.

        Raises:
            RefusedError: `not_your_area`, `old_occurrence`, and what `overlay.check_cover` refuses.
        """

        def decide(engine: Engine, at: Instant) -> list[Draft]:
            area = engine.rule(alarm_id).area
            roles = self._roles(person, _COVERS, area)
            if not roles:
                _check_area(person, area)
            _check_seen(engine, alarm_id, occurrence)
            return engine.cover(alarm_id, overlay(at), roles, at)

        return await self._pipeline.command(decide)

    async def uncover(self, person: Person, alarm_id: str, kind: OverlayKind) -> list[Record]:
        """People are told again. Raises RefusedError: `not_your_area`, `not_your_role`, `not_covered`."""
        needed = TAKES_OUT if kind is OverlayKind.OUT_OF_SERVICE else SHELVES

        def decide(engine: Engine, at: Instant) -> list[Draft]:
            area = engine.rule(alarm_id).area
            if not self._roles(person, needed, area):
                _check_area(person, area)
                raise RefusedError("not_your_role", f"{person.id} is none of {', '.join(needed)}", hint=_CALL)
            return engine.uncover(alarm_id, kind, person.id, at)

        return await self._pipeline.command(decide)

    async def release(self, person: Person, freeze_id: str, reason: str) -> list[Record]:
        """`person` releases a freeze. Raises RefusedError: `no_such_freeze`, `not_allowed`, `reason_missing`."""
        ladders = self._pipeline.ladders
        freeze = ladders.freezes.get(freeze_id)
        area = freeze.area if freeze is not None else ""
        roles = self._roles(person, freeze.by if freeze is not None else (), area)
        return await self._pipeline.command(
            lambda _, instant: ladders.release(freeze_id, person.id, roles, reason, instant)
        )

    async def close_deviation(self, person: Person, report_id: str, cause: str, measure: str) -> list[Record]:
        """`person` closes the report of a deviation. Raises RefusedError as `Ladders.close_deviation`."""
        ladders = self._pipeline.ladders
        report = ladders.deviations.get(report_id)
        roles = self._roles(person, CLOSED_BY, report.subject.area if report is not None else "")
        return await self._pipeline.command(
            lambda _, instant: ladders.close_deviation(report_id, person.id, roles, cause, measure, instant)
        )

    def knows(self, alarm_id: str) -> bool:
        """Whether anything can be done with that alarm: it has a rule."""
        return self._pipeline.engine.knows(alarm_id)

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
            raise _other_area(person, rule.area)
        raise RefusedError("not_your_role", f"{person.id} is none of {', '.join(required)}", hint=_CALL)

    def _roles(self, person: Person, among: Iterable[str], area: str) -> tuple[str, ...]:
        return tuple(role for role in among if self._may_act(person, role, area))

    def check(self, person: Person, role: str, alarm_id: str) -> None:
        """Raises RefusedError: `no_such_alarm`, `not_your_role`, `not_your_area`."""
        area = self._pipeline.engine.rule(alarm_id).area
        if self._may_act(person, role, area):
            return
        if role not in person.roles:
            raise RefusedError("not_your_role", f"{person.id} is not {role}", hint=_CALL)
        raise _other_area(person, area)


def _other_area(person: Person, area: str) -> RefusedError:
    where = area or "the whole site"
    return RefusedError("not_your_area", f"{person.id} does not answer for {where}", hint=_CALL_AREA)


def _check_area(person: Person, area: str) -> None:
    if not person.answers_for(area):
        raise _other_area(person, area)


def _check_seen(engine: Engine, alarm_id: str, occurrence: int | None) -> None:
    """Who names the occurrence that they saw does not cover another one."""
    current = engine.alarm(alarm_id).occurrence
    if occurrence is not None and occurrence != current:
        message = f"{alarm_id}: occurrence {occurrence} is not the current one ({current})"
        raise RefusedError("old_occurrence", message, hint="look at the alarm again, then shelve what is on now")
