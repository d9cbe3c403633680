"""The alarms of a site as they will be judged: every limit, delay and unit of every rule. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from .alarms.overlay import SHELVE_LIFE_SAFETY_S
from .alarms.rules import Kind, Level, Rule
from .alarms.sources import Deviation, Direction, Discrepancy, Discrete, Rate
from .alarms.suppression import Suppression

_ROC = {Direction.BOTH: "", Direction.UP: " rising", Direction.DOWN: " falling"}
_DEVIATION = {Direction.BOTH: "", Direction.UP: " above it", Direction.DOWN: " below it"}


def describe_rule(rule: Rule) -> Iterator[str]:
    """One line for each level."""
    who = f"acknowledged by {' and '.join(rule.required_acks)}"
    if rule.distinct_persons and len(rule.required_acks) > 1:
        who += ", different persons"
    for level in rule.levels:
        latching = ", latching" if level.latching else ""
        back = f"reopens within {rule.reopen_s:g} s"
        yield (
            f"{rule.id}: {_when(rule, level)}, {back}, priority {level.priority}{latching}, {who}"
            f"{_again(rule, level)}{_class(rule)}"
        )


def describe_suppressions(rules: Iterable[Rule]) -> Iterator[str]:
    """One line for each suppression by design."""
    targets: dict[str, tuple[Suppression, list[str]]] = {}
    for rule in rules:
        for one in rule.suppressions:
            targets.setdefault(one.id, (one, []))[1].append(rule.id)
    for one, alarms in targets.values():
        yield f"suppress {one.id}: while {_holds(one)} nobody is told of {', '.join(alarms)}: {one.why}"


def _holds(one: Suppression) -> str:
    if one.equals is not None:
        return f"{one.point} is {one.equals:g}"
    until = f" (deadband {one.deadband:g})" if one.deadband else ""
    where = f"above {one.above:g}" if one.above is not None else f"below {one.below:g}"
    return f"{one.point} is {where}{until}"


def _again(rule: Rule, level: Level) -> str:
    """How often people are told again; nothing where they are not."""
    repeat_s, realarm_s = (_of(times, level) for times in (rule.repeat_s, rule.realarm_s))
    told = f", told again every {repeat_s:g} s until then" if repeat_s else ""
    return told + (f", asked again after {realarm_s:g} s while on" if realarm_s else "")


def _of(times: Mapping[int, float], level: Level) -> float:
    return times.get(level.priority, 0.0)


def _class(rule: Rule) -> str:
    lives = ", life safety" if rule.life_safety else ""
    group = f", first-out group {rule.first_out_group}" if rule.first_out_group else ""
    shelf_s = min(rule.shelve_max_s, SHELVE_LIFE_SAFETY_S) if rule.life_safety else rule.shelve_max_s
    return f"{lives}{group}, shelved for at most {shelf_s:g} s"


def _when(rule: Rule, level: Level) -> str:
    match level.kind:
        case Kind.STALE:
            return f"stale after {level.limit:g} s without a reading"
        case Kind.QUALITY:
            return f"quality after {level.on_delay_s:g} s of bad readings, off after {level.off_delay_s:g} s"
        case Kind.FROZEN:
            return f"frozen after {level.limit:g} s of the same value, off after {level.off_delay_s:g} s"
        case Kind.COMM_LOSS:
            out = f"comm_loss after {level.limit:g} s in which no point could be reached"
            return f"{out}, off after {level.off_delay_s:g} s"
        case _:
            return _of_source(rule, level)


def _of_source(rule: Rule, level: Level) -> str:
    unit = f" {rule.unit}".rstrip()
    delays = f"on after {level.on_delay_s:g} s, off after {level.off_delay_s:g} s"
    limit = f"at {level.limit:g}{unit}, deadband {level.deadband:g}{unit}"
    match rule.source:
        case Rate() as rate:
            how = f"{_ROC[rate.direction]} over {rate.period_s:g} s with at least {rate.min_samples} readings"
            return f"roc {limit}{how}, {delays}"
        case Deviation() as deviation:
            return f"deviation from {deviation.ref}{_DEVIATION[deviation.direction]} {limit}, {delays}"
        case Discrete() as discrete:
            return f"discrete at {', '.join(f'{state:g}' for state in discrete.on)}, {delays}"
        case Discrepancy() as discrepancy:
            other = f"{'the opposite of ' if discrepancy.inverted else ''}{discrepancy.ref}"
            return f"discrepancy from {other}, tolerance {discrepancy.tolerance:g}{unit}, {delays}"
        case _:
            return f"{level.kind} {limit}, {delays}"
