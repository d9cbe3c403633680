"""What a proof test asks of each step of the chain, and what came of it. Pure: facts and time in, verdicts out.

The steps of one run are a tuple that grows when people are to be told. A step begins when what comes before it is
done; its seconds are counted from there, on the monotonic clock.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ...words import Quality, Reading
from ..alarms.rules import Rule, Side


class Part(enum.StrEnum):
    """A link of the chain, in the order of a message.

    SOURCE: the point's own readings come, and its rules turn. ALARM: the rules raise it. JOURNAL: its record is read
    back. RECIPIENTS: everybody is to be told who holds a required role. ACCEPTED: a receiver's system took the message.
    DELIVERED: and the network says that it arrived. SOUNDED: a siren or lamp was read back. PAGE: it was sent to every
    open page. MQTT: the plant's broker has it. CLOUD: headquarters has its record.
    """

    SOURCE = "source"
    ALARM = "alarm"
    JOURNAL = "journal"
    RECIPIENTS = "recipients"
    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    SOUNDED = "sounded"
    PAGE = "page"
    MQTT = "mqtt"
    CLOUD = "cloud"


WITNESSED = (Part.PAGE, Part.MQTT, Part.CLOUD)
_OF_A_DELIVERY = (Part.ACCEPTED, Part.DELIVERED, Part.SOUNDED)


class Verdict(enum.StrEnum):
    """What came of a step. NOT_THERE: the site has no such thing. LEFT_OUT: it could not be tried this time."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_THERE = "not_there"
    LEFT_OUT = "left_out"


class Result(enum.StrEnum):
    """What came of a run. INCOMPLETE: nothing failed, but not everything could be tried. OVERRIDDEN: a real alarm came.
    INTERRUPTED: the gateway stopped."""

    PASSED = "passed"
    FAILED = "failed"
    INCOMPLETE = "incomplete"
    OVERRIDDEN = "overridden"
    INTERRUPTED = "interrupted"


class Evidence(enum.StrEnum):
    """How far a channel can say what became of a message: its receiver's system took it; the network reports later that
    it arrived; the thing itself was read back."""

    TAKEN = "taken"
    REPORT = "report"
    READ_BACK = "read_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A channel as a test sees it.

    Attributes:
        kind: as in site.toml: `sms`, `beacon`, `wecom`.
        report_s: for a REPORT; how long it is waited for.
    """

    kind: str
    evidence: Evidence = Evidence.TAKEN
    report_s: float = 0.0


_EVIDENCE: Mapping[str, Evidence] = {"sms": Evidence.REPORT, "beacon": Evidence.READ_BACK}
_REPORT_MARGIN_S = 30.0


def way_of(kind: str, report_s: float = 0.0) -> Way:
    """A channel of a kind. `report_s`: how long it waits for reports itself; 0: it asks for none."""
    evidence = _EVIDENCE.get(kind, Evidence.TAKEN)
    if evidence is Evidence.REPORT and not report_s:
        evidence = Evidence.TAKEN
    return Way(kind=kind, evidence=evidence, report_s=report_s + _REPORT_MARGIN_S)


LOOKED_FOR: Mapping[str, Part] = {"sms": Part.DELIVERED, "beacon": Part.SOUNDED}
"""Kinds of channels whose absence is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Seconds that each step may take; ALARM beside the delays of its levels. ACCEPTED: semantics C4."""

    alarm_s: float = 5.0
    journal_s: float = 5.0
    accepted_s: float = 60.0
    sounded_s: float = 90.0
    page_s: float = 10.0
    mqtt_s: float = 30.0
    cloud_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a run.

    Attributes:
        key: of the delivery that it is about, empty for the others.
        bound_s: it failed when it takes longer.
        began_s: monotonic seconds; None while what comes before it is not done.
        seconds: that it took; None without a verdict, and where nothing was tried.
        detail: for a person: what was seen, or why not.
    """

    part: Part
    bound_s: float
    key: str = ""
    channel: str = ""
    kind: str = ""
    person: str = ""
    role: str = ""
    began_s: float | None = None
    verdict: Verdict | None = None
    seconds: float | None = None
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """As records carry it."""
        return {
            "part": self.part.value,
            "key": self.key,
            "channel": self.channel,
            "kind": self.kind,
            "person": self.person,
            "role": self.role,
            "verdict": self.verdict.value if self.verdict else None,
            "seconds": None if self.seconds is None else round(self.seconds, 1),
            "bound_s": self.bound_s,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """The steps of one run. Every change makes a new one.

    Attributes:
        ways: channels by id.
        required: for each role that must acknowledge, the persons who hold it now.
        told: persons to whom a message of the run goes, by name or within a group.
    """

    bounds: Bounds
    ways: Mapping[str, Way]
    required: Mapping[str, Collection[str]]
    steps: tuple[Step, ...] = ()
    told: frozenset[str] = frozenset()

    @property
    def is_over(self) -> bool:
        return all(step.verdict for step in self.steps)

    @property
    def result(self) -> Result:
        verdicts = {step.verdict for step in self.steps}
        if Verdict.FAILED in verdicts:
            return Result.FAILED
        return Result.INCOMPLETE if Verdict.LEFT_OUT in verdicts else Result.PASSED


def rule_to_test(rules: Iterable[Rule]) -> Rule | None:
    """The alarm of a point that is tested: the high one, else the low one; None when it has neither."""
    by_side = {rule.side: rule for rule in rules}
    return by_side.get(Side.HIGH) or by_side.get(Side.LOW)


def begin(rule: Rule, ways: Mapping[str, Way], required: Mapping[str, Collection[str]], bounds: Bounds) -> Course:
    """The steps of every run. None has begun. Args: ways, required: see `Course`."""
    delay_s = max(level.on_delay_s for level in rule.levels)
    limits = {
        Part.SOURCE: 0.0,
        Part.ALARM: bounds.alarm_s + delay_s,
        Part.JOURNAL: bounds.journal_s,
        Part.RECIPIENTS: 0.0,
        Part.PAGE: bounds.page_s,
        Part.MQTT: bounds.mqtt_s,
        Part.CLOUD: bounds.cloud_s,
    }
    steps = tuple(Step(part=part, bound_s=bound_s) for part, bound_s in limits.items())
    return Course(bounds=bounds, ways=ways, required=required, steps=steps)


def started(course: Course, parts: Collection[Part], now_s: float) -> Course:
    """These steps begin."""
    return _each(course, lambda step: step.part in parts, lambda step: replace(step, began_s=now_s))


def settled(course: Course, part: Part, verdict: Verdict, now_s: float, detail: str = "") -> Course:
    """The step of the run's own has its verdict; the first one counts."""
    return _each(
        course, lambda step: step.part is part and not step.key, lambda step: _end(step, verdict, now_s, detail)
    )


def source_trouble(reading: Reading | None, now_s: float, fresh_s: float, turned_s: float) -> str:
    """Why readings of the point do not reach its rules; empty when they do.

    Args:
        reading: the newest that the pipeline took.
        fresh_s: how old it may be.
        turned_s: when the rules turned last, monotonic seconds.
    """
    if reading is None:
        return "no reading since the gateway has started"
    if reading.quality is Quality.BAD:
        return f"its newest reading is bad: {reading.why}"
    if now_s - reading.at.mono_s > fresh_s:
        return f"its newest reading is {now_s - reading.at.mono_s:.0f} s old"
    return f"the rules have not turned for {now_s - turned_s:.0f} s" if now_s - turned_s > 5.0 else ""


def told(course: Course, entries: Sequence[Mapping[str, Any]], now_s: float) -> Course:
    """A record of the test names whom to tell: each entry has its steps from here on."""
    known = {step.key for step in course.steps}
    fresh = [step for entry in entries if entry["key"] not in known for step in _steps_of(course, entry, now_s)]
    names = {name for entry in entries for name in (entry["person"], *entry.get("mentions", ())) if name}
    return replace(course, steps=(*course.steps, *fresh), told=course.told | names)


def all_told(course: Course, now_s: float) -> Course:
    """No more recipients come: is everybody told who must be, and what is not there at all."""
    nobody = [role for role, persons in course.required.items() if not persons]
    untold = {person for persons in course.required.values() for person in persons} - course.told
    problems = [f"nobody is {role} now" for role in nobody] + [f"{person} is not told" for person in sorted(untold)]
    verdict = Verdict.FAILED if problems else Verdict.PASSED
    words = "; ".join(problems) or ", ".join(course.required)
    course = settled(course, Part.RECIPIENTS, verdict, now_s, words)
    used = {step.kind for step in course.steps}
    absent = [
        Step(part=part, kind=kind, bound_s=0.0, verdict=Verdict.NOT_THERE, detail=f"no channel of kind {kind} was used")
        for kind, part in LOOKED_FOR.items()
        if kind not in used
    ]
    return replace(course, steps=(*course.steps, *absent))


def progressed(course: Course, record: str, key: str, error: str, now_s: float) -> Course:
    """A delivery came further.

    Args:
        record: kind of the record; `delivery.*`.
        key: of the delivery; others than the run's change nothing.
        error: what the record says of the reason.
    """
    match record:
        case "delivery.accepted":
            return _follows(_row(course, key, (Part.ACCEPTED,), Verdict.PASSED, now_s), key, now_s)
        case "delivery.delivered":
            return _row(_follows(course, key, now_s), key, _OF_A_DELIVERY, Verdict.PASSED, now_s)
        case "delivery.dead":
            return _row(course, key, _OF_A_DELIVERY, Verdict.FAILED, now_s, error)
        case "delivery.failing":
            return _each(course, lambda step: step.key == key, lambda step: replace(step, detail=error or step.detail))
        case _:
            return course


def is_late(step: Step, now_s: float) -> bool:
    """Whether it has no verdict and took too long."""
    return step.verdict is None and step.began_s is not None and now_s - step.began_s >= step.bound_s


def overdue(course: Course, now_s: float, *, alarms_open: bool) -> Course:
    """What took too long has failed; what cannot begin any more is left out.

    Args:
        alarms_open: real alarms are open somewhere: a beacon that shows one does not show a test.
    """

    def fail(step: Step) -> Step:
        if step.part is Part.SOUNDED and alarms_open:
            return _end(step, Verdict.LEFT_OUT, now_s, "an alarm is open: a test neither hides it nor is taken for one")
        why = f"; {step.detail}" if step.detail else ""
        return _end(step, Verdict.FAILED, now_s, f"not within {step.bound_s:g} s{why}")

    course = _each(course, lambda step: is_late(step, now_s), fail)
    failed = {(step.part, step.key) for step in course.steps if step.verdict is Verdict.FAILED}
    if (Part.ALARM, "") in failed:
        course = left_out(course, "there was no alarm", now_s)
    return _each(
        course,
        lambda step: step.part is Part.DELIVERED and (Part.ACCEPTED, step.key) in failed,
        lambda step: _end(step, Verdict.LEFT_OUT, now_s, "it was not accepted"),
    )


def left_out(course: Course, why: str, now_s: float) -> Course:
    """Nothing more is tried."""
    return _each(course, lambda _: True, lambda step: _end(step, Verdict.LEFT_OUT, now_s, why))


# --- inside ---


def _steps_of(course: Course, entry: Mapping[str, Any], now_s: float) -> list[Step]:
    way = course.ways.get(entry["channel"], Way(kind=""))
    bounds = course.bounds
    first = Step(
        part=Part.ACCEPTED,
        bound_s=bounds.accepted_s,
        key=entry["key"],
        channel=entry["channel"],
        kind=way.kind,
        person=entry["person"],
        role=entry["role"],
        began_s=now_s,
    )
    match way.evidence:
        case Evidence.READ_BACK:
            return [replace(first, part=Part.SOUNDED, bound_s=bounds.sounded_s)]
        case Evidence.REPORT:
            return [first, replace(first, part=Part.DELIVERED, bound_s=way.report_s, began_s=None)]
        case Evidence.TAKEN:
            return [first]


def _row(course: Course, key: str, parts: Collection[Part], verdict: Verdict, now_s: float, detail: str = "") -> Course:
    return _each(
        course, lambda step: step.key == key and step.part in parts, lambda step: _end(step, verdict, now_s, detail)
    )


def _follows(course: Course, key: str, now_s: float) -> Course:
    """What waited for the acceptance of a delivery begins."""
    waits = lambda step: step.key == key and step.began_s is None  # noqa: E731
    return _each(course, waits, lambda step: replace(step, began_s=now_s))


def _end(step: Step, verdict: Verdict, now_s: float, detail: str) -> Step:
    seconds = None if step.began_s is None or verdict in (Verdict.NOT_THERE, Verdict.LEFT_OUT) else now_s - step.began_s
    return replace(step, verdict=verdict, seconds=seconds, detail=detail)


def _each(course: Course, which: Callable[[Step], bool], change: Callable[[Step], Step]) -> Course:
    """Steps that have their verdict stay as they are."""
    steps = tuple(change(step) if step.verdict is None and which(step) else step for step in course.steps)
    return replace(course, steps=steps)
