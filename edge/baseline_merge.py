"""A site under headquarters' baseline: what is stricter counts, whoever said it. Pure.

Nothing here refuses a site: a limit that the site set too loosely is tightened and told as a finding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ..sensors.gases import UNITS, convert, spell
from ..sync.baseline import HIGH, LOW, QUANTITIES, Baseline, Bound, Step
from ..words import Point
from .ladders.plan import Action, Colour, Plan, Rung
from .models import AlarmTable, LevelTable

_DIGITS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tightened:
    """What the baseline changed at one point, for `--effective`, the page and headquarters.

    Attributes:
        key: `hi`, `hi.priority`, `on_delay_s`, `required_acks`.
        site: what site.toml or its defaults had; None: nothing.
        now: what counts.
    """

    point: str
    key: str
    site: float | str | None
    now: float | str

    @property
    def was_loose(self) -> bool:
        """Whether the site had said something looser, rather than nothing."""
        return self.site is not None


def sensor_type(quantity: str, gas: str) -> str:
    """The type that a baseline knows a point by; "" for one that it cannot name."""
    if quantity == "gas":
        return gas
    return quantity if quantity in QUANTITIES else ""


def tighten(table: AlarmTable, point: Point, gas: str, bounds: Iterable[Bound]) -> tuple[AlarmTable, list[Tightened]]:
    """The limits of a point under the bounds of its room.

    Args:
        table: as the site has it, presets filled in.
        gas: that the point measures; "" when it is none, or not known.
    """
    found: list[Tightened] = []
    for bound in bounds:
        table = _under(table, point, gas, bound, found)
    return table, found


def convertible(bound: Bound, point: Point, gas: str) -> bool:
    """Whether the bound's unit can be compared with the point's."""
    return _in_unit(0.0, bound, point, gas) is not None


def _under(table: AlarmTable, point: Point, gas: str, bound: Bound, found: list[Tightened]) -> AlarmTable:
    changes: dict[str, object] = {}
    for key in (*LOW, *HIGH):
        wanted = getattr(bound, key)
        limit = None if wanted is None else _in_unit(wanted, bound, point, gas)
        if limit is not None:
            changes[key] = _level(getattr(table, key), key, limit, bound, point.id, found)
    if not changes:
        return table
    if bound.on_delay_s is not None and table.on_delay_s is not None and table.on_delay_s > bound.on_delay_s:
        found.append(Tightened(point=point.id, key="on_delay_s", site=table.on_delay_s, now=bound.on_delay_s))
        changes["on_delay_s"] = bound.on_delay_s
    missing = [role for role in bound.required_acks if role not in (table.required_acks or ())]
    if table.required_acks is not None and missing:
        roles = [*table.required_acks, *missing]
        said = " ".join(table.required_acks)
        found.append(Tightened(point=point.id, key="required_acks", site=said, now=" ".join(roles)))
        changes["required_acks"] = roles
    return table.model_copy(update=changes)


def _level(
    level: LevelTable | None, key: str, limit: float, bound: Bound, point: str, found: list[Tightened]
) -> LevelTable:
    is_looser = level is None or (level.limit > limit if key in HIGH else level.limit < limit)
    priority = {str(name): number for name, number in bound.priorities.items()}.get(key, bound.priority)
    fresh = level or LevelTable(limit=limit)
    changes: dict[str, object] = {}
    if is_looser:
        found.append(Tightened(point=point, key=key, site=level.limit if level else None, now=limit))
        changes["limit"] = limit
    if priority is not None and (fresh.priority is None or fresh.priority > priority):
        if fresh.priority is not None:
            found.append(Tightened(point=point, key=f"{key}.priority", site=fresh.priority, now=priority))
        changes["priority"] = priority
    if bound.on_delay_s is not None and (fresh.on_delay_s is None or fresh.on_delay_s > bound.on_delay_s):
        if fresh.on_delay_s is not None:
            found.append(Tightened(point=point, key=f"{key}.on_delay_s", site=fresh.on_delay_s, now=bound.on_delay_s))
        changes["on_delay_s"] = bound.on_delay_s
    return fresh.model_copy(update=changes) if changes else fresh


def _in_unit(limit: float, bound: Bound, point: Point, gas: str) -> float | None:
    """A limit of the bound in the point's unit; None when they cannot be compared."""
    if spell(bound.unit) == spell(point.unit):
        return limit
    if spell(bound.unit) not in UNITS or spell(point.unit) not in UNITS:
        return None
    try:
        return round(float(convert(limit, bound.unit, point.unit, gas)), _DIGITS)
    except ValueError:
        return None


def tighten_plan(plan: Plan, steps: Iterable[Step], priority: int) -> Plan:
    """A ladder on which every step of the baseline for this priority has happened in time.

    A step that the site's ladder does as early, or earlier, changes nothing; else a rung is added.
    """
    rungs = list(plan.rungs)
    for step in sorted((step for step in steps if step.priority == priority), key=lambda step: step.by_s):
        if not _is_done(rungs, step):
            rungs.append(
                Rung(
                    at_s=step.by_s,
                    to=tuple(step.to),
                    add=tuple(step.add),
                    colour=Colour(step.colour),
                    action=Action(step.action) if step.action else Action.NONE,
                )
            )
    if len(rungs) == len(plan.rungs):
        return plan
    return replace(plan, id=f"{plan.id}+baseline", rungs=_in_colour(sorted(rungs, key=lambda rung: rung.at_s)))


def _is_done(rungs: Iterable[Rung], step: Step) -> bool:
    by_then = [rung for rung in rungs if rung.at_s <= step.by_s]
    told = {role for rung in by_then for role in rung.to}
    ways = {kind for rung in by_then for kind in rung.add}
    red = any(rung.colour is Colour.RED for rung in by_then)
    colour = not step.colour or red or any(rung.colour.value == step.colour for rung in by_then)
    action = not step.action or any(rung.action.value == step.action for rung in by_then)
    return told.issuperset(step.to) and ("*" in ways or ways.issuperset(step.add)) and colour and action


def _in_colour(rungs: list[Rung]) -> tuple[Rung, ...]:
    """An added rung without a colour, or a later yellow one, keeps the colour that was reached before it."""
    shown, found = Colour.NONE, []
    order = (Colour.NONE, Colour.YELLOW, Colour.RED)
    for rung in rungs:
        shown = max(shown, rung.colour, key=order.index)
        found.append(replace(rung, colour=shown) if rung.colour is not shown and shown is not Colour.NONE else rung)
    return tuple(found)


def ladders_under(
    baseline: Baseline, ladders: Mapping[str, Plan], ladder_of: Mapping[int, str]
) -> tuple[dict[str, Plan], dict[int, str]]:
    """Ladders by id and the ladder of each priority, with the baseline's steps."""
    plans, chosen = dict(ladders), dict(ladder_of)
    for priority, name in ladder_of.items():
        plan = tighten_plan(ladders[name], baseline.step, priority)
        if plan is not ladders[name]:
            plan = replace(plan, id=f"{plan.id}_{priority}")
            plans[plan.id], chosen[priority] = plan, plan.id
    return plans, chosen
