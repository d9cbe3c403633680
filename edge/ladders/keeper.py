"""Every ladder and every freeze of a gateway, in memory. The caller commits the drafts that it returns, in order.

Deterministic: the same drafts, ticks and commands at the same instants give the same records. What is committed alone
rebuilds it (`table.py`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ...errors import RefusedError
from ...sync.journal import Draft
from ...words import Instant
from . import deviation as reports
from .climb import Climb, Step, Subject, Wall, begin, climbed, dated, due, fail_early, replan
from .deviation import Deviation
from .freeze import Freeze, of_ladder, release
from .plan import Action, Basis, Plan

CHECK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a subject's record says of it, as far as a ladder cares.

    Attributes:
        open, unacked, on: the three bases.
        begins, worse: this record begins an occurrence, or makes it worse.
        suppressed: nobody is to be told for now.
    """

    subject: Subject
    open: bool
    unacked: bool
    on: bool
    begins: bool = False
    worse: bool = False
    suppressed: bool = False


class Ladders:
    """Begins, climbs, pauses and ends ladders; sets and releases freezes; opens and closes reports of deviations.

    Args:
        climbs, freezes: as committed, by key and id.
        plan_of: the plan for a subject that begins now, None for one without a ladder.
        wall: what is believed of the wall clock.
        deviations: reports as committed, by id.
    """

    def __init__(
        self,
        climbs: Mapping[str, Climb],
        freezes: Mapping[str, Freeze],
        plan_of: Callable[[Subject], Plan | None],
        wall: Wall,
        deviations: Mapping[str, Deviation] | None = None,
    ) -> None:
        self.plan_of = plan_of
        self.wall = wall
        self._climbs = dict(climbs)
        self._freezes = dict(freezes)
        self._deviations = dict(deviations or {})

    @property
    def climbs(self) -> Mapping[str, Climb]:
        """Ladders under way, by the subject's key."""
        return self._climbs

    @property
    def freezes(self) -> Mapping[str, Freeze]:
        """Every freeze that holds, and those that were released, by id."""
        return self._freezes

    @property
    def deviations(self) -> Mapping[str, Deviation]:
        """Every report, open or closed, by id."""
        return self._deviations

    def start(self, now: Instant) -> list[Draft]:
        """After a restart: what is overdue, and what must be told early because downtime is unknowable."""
        drafts: list[Draft] = []
        for key in list(self._climbs):
            step = fail_early(self._climbs[key], now, self.wall)
            if step is not None:
                drafts += self._climb(key, step, now)
        return drafts + self.tick(now)

    def follow(self, standing: Standing, now: Instant) -> list[Draft]:
        """A record of a subject is about to be committed: what its ladder makes of that."""
        key = standing.subject.key
        climb = self._climbs.get(key)
        if climb is None:
            return self._begin(standing, now) if standing.begins and standing.open else []
        if not standing.open:
            del self._climbs[key]
            return [_draft("ladder.stopped", now, {"subject": climb.subject.to_json(), "why": "closed"})]
        drafts = self._worse(climb, standing, now) if standing.worse else []
        climb = self._climbs[key]
        paused = _why_paused(climb.basis, standing)
        if paused == climb.paused:
            return drafts
        self._climbs[key] = replace(climb, paused=paused)
        kind = "ladder.paused" if paused else "ladder.resumed"
        return [*drafts, _draft(kind, now, {"ladder": self._climbs[key].to_json()})]

    def restart(self, standing: Standing, now: Instant) -> list[Draft]:
        """People are told afresh, after nobody was to be told: a ladder of its own from here on."""
        climb = self._climbs.pop(standing.subject.key, None)
        drafts: list[Draft] = []
        if climb is not None:
            drafts = [_draft("ladder.stopped", now, {"subject": climb.subject.to_json(), "why": "restarted"})]
        return drafts + self._begin(standing, now)

    def tick(self, now: Instant) -> list[Draft]:
        """Time has passed: the rungs that are due, each once, ladder by ladder in the order of their time."""
        found: list[tuple[float, str, Step]] = []
        for key, climb in self._climbs.items():
            found += [(climb.t0_utc_ms + step.rung.at_s * 1000, key, step) for step in due(climb, now, self.wall)]
        heapq.heapify(found)
        drafts: list[Draft] = []
        while found:
            _, key, step = heapq.heappop(found)
            drafts += self._climb(key, step, now)
        return drafts

    def clock_stepped(self, boot: str, mono_s: float, believed_ms: int) -> None:
        """The wall clock was set: what is believed of it then. The record `clock.stepped` says so to the table."""
        self._climbs = {key: dated(climb, boot, mono_s, believed_ms) for key, climb in self._climbs.items()}

    def release(self, freeze_id: str, person: str, roles: Iterable[str], reason: str, now: Instant) -> list[Draft]:
        """A person releases a freeze. Raises RefusedError: `no_such_freeze`, `not_allowed`, `reason_missing`."""
        freeze = self._freezes.get(freeze_id)
        if freeze is None:
            raise RefusedError("no_such_freeze", f"there is no freeze {freeze_id!r}")
        after = release(freeze, person, roles, reason, now)
        if after == freeze:
            return []
        self._freezes[freeze_id] = after
        return [_draft("freeze.released", now, {"freeze": after.to_json()}, person)]

    def close_deviation(
        self, report_id: str, person: str, roles: Iterable[str], cause: str, measure: str, now: Instant
    ) -> list[Draft]:
        """A person closes a report; the work must have been released before.

        Raises:
            RefusedError: `no_such_deviation`, `still_frozen`, `not_allowed`, `reason_missing`.
        """
        report = self._deviations.get(report_id)
        if report is None:
            raise RefusedError("no_such_deviation", f"there is no report {report_id!r}")
        after = reports.close(report, person, roles, cause, measure, now)
        if after == report:
            return []
        freeze = self._freezes.get(f"freeze/{report.subject.key}")
        if freeze is not None and freeze.released is None:
            hint = "release the freeze first, then close the report"
            raise RefusedError("still_frozen", f"{report_id}: its work is still frozen", hint=hint)
        self._deviations[report_id] = after
        return [_draft("deviation.closed", now, after.to_json(), person)]

    # --- inside ---

    def _begin(self, standing: Standing, now: Instant) -> list[Draft]:
        plan = self.plan_of(standing.subject)
        if plan is None:
            return []
        climb = begin(standing.subject, plan, now, self.wall)
        climb = replace(climb, paused=_why_paused(plan.basis, standing))
        self._climbs[climb.subject.key] = climb
        return [_draft("ladder.started", now, {"ladder": climb.to_json()})]

    def _worse(self, climb: Climb, standing: Standing, now: Instant) -> list[Draft]:
        plan = self.plan_of(standing.subject)
        if plan is None or plan.id == climb.plan:
            return []
        after = replan(climb, standing.subject, plan)
        self._climbs[after.subject.key] = after
        return [_draft("ladder.replanned", now, {"ladder": after.to_json()})]

    def _climb(self, key: str, step: Step, now: Instant) -> list[Draft]:
        climb = climbed(self._climbs[key], step.n)
        self._climbs[key] = climb
        body: dict[str, Any] = {"ladder": climb.to_json(), "step": step_json(climb, step)}
        drafts = [_draft("ladder.step", now, body)]
        if step.rung.action is Action.FREEZE and not climb.subject.is_fault:
            drafts += self._freeze(climb.subject, now)
        return drafts

    def _freeze(self, subject: Subject, now: Instant) -> list[Draft]:
        freeze = of_ladder(subject, now)
        before = self._freezes.get(freeze.id)
        if before is not None and before.released is None:
            return []
        report = reports.of_ladder(subject)
        self._freezes[freeze.id], self._deviations[report.id] = freeze, report
        return [
            _draft("freeze.set", now, {"freeze": freeze.to_json()}),
            _draft("deviation.opened", now, report.to_json()),
        ]


def step_json(climb: Climb, step: Step) -> dict[str, Any]:
    """As the record `ladder.step` carries it. `fence` is the identity of the step: whoever acts on it acts once."""
    return {
        "n": step.n,
        "fence": f"{climb.subject.key}/{climb.t0.utc_ms}/{climb.plan}/{step.n}",
        "rung": step.rung.to_json(),
        "late_s": step.late_s,
        "early": step.early,
    }


def _why_paused(basis: Basis, standing: Standing) -> str:
    if standing.suppressed:
        return "suppressed"
    match basis:
        case Basis.UNACKED if not standing.unacked:
            return "acked"
        case Basis.CONDITION if not standing.on:
            return "returned"
        case _:
            return ""


def _draft(kind: str, now: Instant, body: dict[str, Any], actor: str = "gateway") -> Draft:
    return Draft(kind=kind, at=now, actor=actor, body=body)
