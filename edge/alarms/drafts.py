"""The records of alarms, before they are committed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...sync.journal import Draft
from ...words import Instant, Reading, utc_text
from .codec import alarm_json, reading_json
from .machine import ENDS, Change, Reason, State, Transition
from .overlay import OverlayKind
from .rules import SYSTEM_PREFIX, Rule


def draft(rule: Rule, transition: Transition, trigger: Reading | None, now: Instant) -> Draft:
    """The record of a transition; `quiet` is in its body when nobody is to be told of it."""
    body: dict[str, Any] = {
        "alarm": alarm_json(rule, transition.alarm, now),
        "reason": transition.reason.value,
        "rule": rule.revision,
        "trigger": reading_json(trigger) if trigger is not None else None,
    }
    if transition.quiet:
        body["quiet"] = True
    return Draft(kind=f"alarm.{transition.change}", at=now, actor=transition.actor, body=body)


def close_orphans(known: Iterable[str], stored: Mapping[str, dict[str, Any]], now: Instant) -> list[Draft]:
    """Close, with a record, alarms that are open or covered but whose rule is gone from the configuration.

    The gateway's own (`system.`) are left alone: no configuration has them.

    Args:
        known: ids of all rules.
        stored: committed alarm objects (JSON) by id.
        now: of the records.
    """
    ids = set(known)
    drafts = []
    for alarm_id, fields in stored.items():
        overlay, is_open = fields.get("overlay"), fields["state"] != State.NORM.value
        if alarm_id.startswith(SYSTEM_PREFIX) or alarm_id in ids or not (is_open or overlay):
            continue
        ended = {**fields, "state": State.NORM.value, "active": None, "overlay": None}
        ended["changed_at"] = utc_text(now.utc_ms)
        ended.pop("rev", None)  # the number of the record before; this one has its own
        change = ENDS[OverlayKind(overlay["kind"])] if overlay and not is_open else Change.CLOSED
        body = {"alarm": ended, "reason": Reason.RULE_REMOVED.value, "rule": "", "trigger": None}
        drafts.append(Draft(kind=f"alarm.{change}", at=now, actor="gateway", body=body))
    return drafts
