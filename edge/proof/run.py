"""Runs proof tests: by a person's button or the weekly schedule, one at a time, beside the real alarms.

The loop alone changes a run; what the journal announces (rows of the test, deliveries, real alarms) is noted at once
and acted on by the loop. Everything that is decided is a record first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from ...errors import RefusedError
from ...sync.journal import Draft, Record
from ...words import Instant, mono_s
from ..alarms.rules import Rule, Side
from . import plan, refusals, shadow, table, weekly
from .chain import Chain
from .plan import Bounds, Course, Part, Result, Verdict
from .refusals import Refusal
from .shadow import Shadow
from .weekly import Schedule, Turn, Week

_log = logging.getLogger(__name__)
_LOOK_S = 0.25  # while a test runs
_IDLE_S = 10.0
_RAISING = ("alarm.raised", "alarm.reraised", "alarm.reopened")
_HINTS = {
    Refusal.ALREADY_RUNNING: "wait until it is over",
    Refusal.REAL_ALARM: "test when it is closed, or acknowledged and of priority 3 or 4",
    Refusal.PERMIT_ACTIVE: "test when the work is signed out",
    Refusal.FLOOD: "test when the flood is over",
}


@dataclass(slots=True, kw_only=True)
class _Run:
    """The run that is under way.

    Attributes:
        area: of the real alarm.
        seq: number of the newest record of its alarm.
        recorded: how many of the steps' verdicts are recorded, by step.
        override: the real alarm that ends it.
    """

    number: int
    area: str
    began: Instant
    shadow: Shadow
    course: Course
    seq: int = 0
    alarm: dict[str, Any] | None = None
    recorded: set[tuple[Part, str, str]] = field(default_factory=set[tuple[Part, str, str]])
    override: str = ""

    @property
    def is_raised(self) -> bool:
        """The record that says so is committed; an earlier one may be of a milder level."""
        return self.alarm is not None and self.alarm["active"] == self.shadow.rule.levels[-1].kind.value

    def has_begun(self, part: Part) -> bool:
        return any(step.part is part and step.began_s is not None for step in self.course.steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    point: str
    person: str
    day: str
    answer: asyncio.Future[int]


class ProofTest:
    """One at a time. `run` must run in a task.

    Args:
        chain: what it goes through.
        bounds: of its steps.

    Attributes:
        beat_s: monotonic seconds; fresh while the loop turns.
    """

    def __init__(self, chain: Chain, bounds: Bounds | None = None) -> None:
        self.beat_s = mono_s()
        self._chain = chain
        self._bounds = bounds or Bounds()
        self._run: _Run | None = None
        self._asked: _Asked | None = None
        self._schedule: Schedule | None = None
        self._timezone = "UTC"
        self._retry_s = 0.0
        self._wake = asyncio.Event()
        chain.journal.subscribe(self._committed)

    def use(self, schedule: Schedule | None, timezone: str) -> None:
        """The schedule from now on; `timezone` of the site, an IANA name."""
        self._schedule, self._timezone, self._retry_s = schedule, timezone, 0.0
        self._wake.set()

    @property
    def is_running(self) -> bool:
        return self._run is not None or self._asked is not None

    async def ask(self, point: str, person: str) -> int:
        """A person wants a test of a point's alarm. Returns the run's number when its beginning is committed.

        Raises:
            RefusedError: `already_running`, `no_such_alarm`, `real_alarm`, `permit_active`, `flood`.
        """
        self._check(point, running=self.is_running)
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asked = _Asked(point=point, person=person, day="", answer=answer)
        self._wake.set()
        return await asyncio.shield(answer)

    async def run(self) -> NoReturn:
        """Run what is asked for and what is due, for ever. Ends only with the store's error."""
        self._run = None
        await self._bury()
        while True:
            self.beat_s = mono_s()
            self._wake.clear()
            if self._run is not None:
                await self._advance(self._run)
            elif self._asked is not None:
                await self._begin(self._asked)
            else:
                await self._look_at_the_week()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S if self.is_running else _IDLE_S):
                    await self._wake.wait()

    # --- beginning ---

    def _check(self, point: str, *, running: bool) -> Rule:
        chain = self._chain
        rule = plan.rule_to_test(chain.rules(point))
        if rule is None:
            hint = "name a point that has a limit"
            raise RefusedError(Refusal.NO_SUCH_ALARM.value, f"{point} has no alarm of a limit", hint=hint)
        area = rule.area
        permit, flood = chain.permit_active(area), chain.in_flood()
        refused = refusals.refusal(area, chain.open_alarms(), running=running, permit=permit, flood=flood)
        if refused is not None:
            reason, words = refused
            raise RefusedError(reason.value, f"no proof test now: {words}", hint=_HINTS[reason])
        return rule

    async def _begin(self, asked: _Asked) -> None:
        """Check again, as something may have come between; record the beginning."""
        chain = self._chain
        try:
            number = await chain.journal.query(table.newest_run) + 1
            rule = self._check(asked.point, running=False)
        except RefusedError as error:
            _answer(asked, error)
            return
        finally:
            self._asked = None
        instant = chain.instant()
        made = Shadow(rule, number, chain.notify, instant)
        required = {role: tuple(chain.holders(role, rule.area)) for role in rule.required_acks}
        course = plan.begin(rule, dict(chain.ways()), required, self._bounds)
        self._run = _Run(number=number, area=rule.area, began=instant, shadow=made, course=course)
        body = {
            "run": number,
            "point": asked.point,
            "area": rule.area,
            "test": made.rule.id,
            "value": shadow.test_value(rule),
            "day": asked.day,
        }
        try:
            await chain.commit([Draft(kind="proof.started", at=instant, actor=asked.person, body=body)])
        except BaseException as error:
            _answer(asked, error)
            raise
        _answer(asked, number)

    async def _bury(self) -> None:
        """Runs that the last process left."""
        instant = self._chain.instant()
        drafts: list[Draft] = []
        for left in await self._chain.journal.query(table.unfinished):
            if left["alarm"] is not None:
                drafts.append(shadow.closed(left["run"], left["alarm"], instant))
            body = {
                "run": left["run"],
                "result": Result.INTERRUPTED.value,
                "why": "the gateway stopped before it was over",
                "seconds": None,
                "steps": left["steps"],
            }
            drafts.append(Draft(kind="proof.finished", at=instant, actor="gateway", body=body))
        if drafts:
            await self._chain.commit(drafts)

    # --- under way ---

    async def _advance(self, run: _Run) -> None:
        if not run.has_begun(Part.ALARM):  # one that is decided and not committed yet counts, too
            run.override = run.override or refusals.overriding(run.area, self._chain.open_alarms())
        if run.override:
            await self._finish(run, Result.OVERRIDDEN, run.override)
            return
        instant = self._chain.instant()
        if not run.has_begun(Part.ALARM):
            self._look_at_source(run, instant)
            drafts = run.shadow.accept([run.shadow.reading(instant)], instant)
        else:
            drafts = run.shadow.tick(instant)
        if drafts:
            await self._chain.commit(drafts)
        if run.is_raised:
            await self._look_around(run)
        now_s = self._chain.instant().mono_s
        await self._ask_why(run, now_s)
        alarms_open = bool(tuple(self._chain.open_alarms()))
        run.course = plan.overdue(run.course, now_s, alarms_open=alarms_open)
        await self._record(run)
        if run.course.is_over and not run.override:
            await self._finish(run, run.course.result, "")

    def _look_at_source(self, run: _Run, instant: Instant) -> None:
        chain = self._chain
        point = run.shadow.rule.point.removeprefix(f"{shadow.TEST}.")
        rules = chain.rules(point)
        patience_s = [rule.levels[0].limit for rule in rules if rule.side is Side.STALE]
        fresh_s = min([run.shadow.rule.fresh_s, *patience_s])
        trouble = plan.source_trouble(chain.reading(point), instant.mono_s, fresh_s, chain.turned_s())
        run.course = plan.started(run.course, (Part.SOURCE, Part.ALARM), instant.mono_s)
        verdict = Verdict.FAILED if trouble else Verdict.PASSED
        run.course = plan.settled(run.course, Part.SOURCE, verdict, instant.mono_s, trouble)

    async def _look_around(self, run: _Run) -> None:
        """What no record tells: is it in the journal, and who else has it."""
        chain, seq = self._chain, run.seq
        if not run.has_begun(Part.RECIPIENTS):
            now_s = chain.instant().mono_s
            run.course = plan.settled(run.course, Part.ALARM, Verdict.PASSED, now_s, run.shadow.rule.id)
            begun = (Part.JOURNAL, Part.RECIPIENTS, *plan.WITNESSED)
            run.course = plan.all_told(plan.started(run.course, begun, now_s), now_s)
            stored = await chain.journal.read(seq - 1, 1)
            right = len(stored) == 1 and stored[0].kind == shadow.KIND and stored[0].body["alarm"] == run.alarm
            verdict = Verdict.PASSED if right else Verdict.FAILED
            words = f"record {seq}" if right else f"record {seq} is not what was written"
            run.course = plan.settled(run.course, Part.JOURNAL, verdict, chain.instant().mono_s, words)
        for part in plan.WITNESSED:
            if any(step.part is part and step.verdict is None for step in run.course.steps):
                await self._ask_witness(run, part, seq)

    async def _ask_why(self, run: _Run, now_s: float) -> None:
        """What the channels said of messages that are late."""
        for step in run.course.steps:
            if step.key and plan.is_late(step, now_s):
                said = await self._chain.said(step.key)
                run.course = plan.progressed(run.course, "delivery.failing", step.key, said, now_s)

    async def _ask_witness(self, run: _Run, part: Part, seq: int) -> None:
        witness = self._chain.witnesses.get(part)
        seen = await witness(seq) if witness is not None else None
        now_s = self._chain.instant().mono_s
        if seen is None:
            run.course = plan.settled(run.course, part, Verdict.NOT_THERE, now_s)
        elif seen:
            run.course = plan.settled(run.course, part, Verdict.PASSED, now_s, f"record {seq}")

    def _committed(self, records: list[Record]) -> None:
        """On the loop, in commit order: so the rows of the test are known before their deliveries."""
        run = self._run
        if run is None:
            return
        for record in records:
            if record.kind == shadow.KIND and record.body["run"] == run.number:
                run.seq, run.alarm = record.seq, record.body["alarm"]
                run.course = plan.told(run.course, record.body["notify"], self._chain.instant().mono_s)
            elif record.kind.startswith("delivery."):
                self._delivered(run, record)
            elif record.kind in _RAISING and _ends(record.body["alarm"], run.area):
                run.override = run.override or record.body["alarm"]["id"]
            else:
                continue
            self._wake.set()

    def _delivered(self, run: _Run, record: Record) -> None:
        key, error = record.body.get("key", ""), record.body.get("error", "")
        if any(step.key == key for step in run.course.steps):
            run.course = plan.progressed(run.course, record.kind, key, error, self._chain.instant().mono_s)

    async def _record(self, run: _Run) -> None:
        """Every verdict that is new."""
        drafts = self._step_drafts(run)
        if drafts:
            await self._chain.commit(drafts)

    def _step_drafts(self, run: _Run) -> list[Draft]:
        instant = self._chain.instant()
        drafts: list[Draft] = []
        for step in run.course.steps:
            name = (step.part, step.key, step.kind)
            if step.verdict is not None and name not in run.recorded:
                run.recorded.add(name)
                body = {"run": run.number, "step": step.to_json()}
                drafts.append(Draft(kind="proof.step", at=instant, actor="gateway", body=body))
        return drafts

    async def _finish(self, run: _Run, result: Result, why: str) -> None:
        """The test's alarm ends and with it what is not delivered yet; then the run."""
        instant = self._chain.instant()
        run.course = plan.left_out(run.course, f"{result.value}: {why}", instant.mono_s)
        drafts = self._step_drafts(run)
        if run.alarm is not None:
            drafts.append(shadow.closed(run.number, run.alarm, instant))
        seconds = round(instant.mono_s - run.began.mono_s, 1)
        steps = [step.to_json() for step in run.course.steps]
        body = {"run": run.number, "result": result.value, "why": why, "seconds": seconds, "steps": steps}
        drafts.append(Draft(kind="proof.finished", at=instant, actor="gateway", body=body))
        await self._chain.commit(drafts)
        self._run = None  # not before: who sees that none runs finds the result of the last
        level = logging.INFO if result is Result.PASSED else logging.WARNING
        _log.log(level, "proof test %d: %s %s", run.number, result.value, why)

    # --- the week ---

    async def _look_at_the_week(self) -> None:
        chain, instant = self._chain, self._chain.instant()
        week = await chain.journal.query(table.stored_week)
        schedule = self._schedule
        wanted = schedule.to_json() if schedule is not None else None
        if week.schedule != wanted:
            await chain.commit([_note("proof.scheduled", instant, schedule=wanted)])
        elif schedule is not None:
            await self._turn(schedule, week, instant)

    async def _turn(self, schedule: Schedule, week: Week, instant: Instant) -> None:
        asked = weekly.turn(schedule, week, instant.utc_ms, self._timezone)
        match asked:
            case (Turn.MISSED, day):
                why = weekly.why_missed(week, day)
                _log.warning("the proof test of %s was missed: %s", day, why)
                await self._chain.commit([_note("proof.missed", instant, day=day, why=why)])
            case (Turn.DUE, day) if instant.mono_s >= self._retry_s:
                await self._try_slot(schedule.point, week, day, instant)
            case _:
                pass

    async def _try_slot(self, point: str, week: Week, day: str, instant: Instant) -> None:
        if self._asked is not None:
            return  # a person came first
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._asked = _Asked(point=point, person="gateway", day=day, answer=answer)
        await self._begin(self._asked)
        error = answer.exception()
        if not isinstance(error, RefusedError):
            return
        self._retry_s = instant.mono_s + weekly.RETRY_S
        if (week.refused_day, week.refused) != (day, error.reason):
            await self._chain.commit([_note("proof.refused", instant, day=day, why=error.reason)])


def _answer(asked: _Asked, answer: int | BaseException) -> None:
    if asked.answer.done():
        return
    if isinstance(answer, int):
        asked.answer.set_result(answer)
    else:
        asked.answer.set_exception(answer if isinstance(answer, Exception) else ConnectionAbortedError())
        asked.answer.exception()  # whoever asked may be gone


def _ends(alarm: Mapping[str, Any], area: str) -> bool:
    near = alarm["area"] in ("", area)
    return near and refusals.overrides(alarm["priority"], alarm.get("overlay") is not None)


def _note(kind: str, instant: Instant, **body: Any) -> Draft:
    return Draft(kind=kind, at=instant, actor="gateway", body=body)
