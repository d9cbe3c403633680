"""Alarms as subjects of ladders: what each `alarm.*` record means for the ladder of its occurrence. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from ...sync.journal import Draft
from .climb import Subject
from .keeper import Ladders, Standing
from .plan import BY_PRIORITY, PRESETS, SYSTEM, Action, Plan

_FAULT_SIDES = frozenset({"stale", "quality", "comm", "frozen", "system"})
"""What these watch is the measuring itself, not the plant."""
_UNCOVERING = frozenset({"alarm.unshelved", "alarm.unsuppressed", "alarm.in_service"})


def plan_of(subject: Subject, ladders: Mapping[str, Plan], of: Mapping[int, str], system: Plan) -> Plan | None:
    """The ladder of an alarm that is raised now, by its priority; faults get one that never freezes.

    Args:
        ladders: of the site, by id.
        of: id of the ladder for each priority.
        system: of the faults of the gateway itself.
    """
    if subject.is_fault and not subject.area:
        return system
    plan = ladders.get(of.get(subject.priority, ""))
    return without_freeze(plan) if plan is not None and subject.is_fault else plan


def preset_plan_of(subject: Subject) -> Plan | None:
    """By the presets alone."""
    return plan_of(subject, PRESETS, BY_PRIORITY, SYSTEM)


def without_freeze(plan: Plan) -> Plan:
    """The same ladder for a fault of the system: it tells the same people, and freezes nothing."""
    rungs = tuple(replace(rung, action=Action.NONE) for rung in plan.rungs)
    return Plan(id=plan.id, basis=plan.basis, rungs=rungs)


def with_ladders(drafts: Iterable[Draft], ladders: Ladders) -> list[Draft]:
    """Each draft, and behind it what the ladders make of it: both are committed in one transaction."""
    found: list[Draft] = []
    for draft in drafts:
        found.append(draft)
        if draft.kind.startswith("alarm."):
            found += _follow(draft, ladders)
        elif draft.kind == "clock.stepped":
            ladders.clock_stepped(draft.at.boot, draft.at.mono_s, draft.body["believed_ms"])
    return found


def standing_of(draft: Draft) -> Standing:
    """What an `alarm.*` record says of its occurrence."""
    alarm, reason = draft.body["alarm"], draft.body["reason"]
    acked = {ack["role"] for ack in alarm["acks"]}
    uncovers = draft.kind in _UNCOVERING and alarm["active"] is not None  # raised afresh by the next record
    return Standing(
        subject=subject_of(alarm),
        open=alarm["state"] != "NORM",
        unacked=bool(set(alarm["required_acks"]) - acked),
        on=alarm["active"] is not None,
        begins=draft.kind == "alarm.raised",
        worse=reason == "severity_up",
        suppressed=alarm.get("overlay") is not None or uncovers,
    )


def subject_of(alarm: Mapping[str, Any]) -> Subject:
    """The subject of an alarm object (JSON)."""
    return Subject(
        kind="alarm",
        id=alarm["id"],
        occurrence=alarm["occurrence"],
        area=alarm["area"],
        name=alarm["name"],
        name_en=alarm["name_en"],
        priority=alarm["priority"],
        is_fault=alarm["id"].startswith("system.") or alarm["id"].rpartition(".")[2] in _FAULT_SIDES,
    )


def _follow(draft: Draft, ladders: Ladders) -> list[Draft]:
    standing = standing_of(draft)
    if draft.body["reason"] == "uncovered":
        return ladders.restart(standing, draft.at)
    return ladders.follow(standing, draft.at)
