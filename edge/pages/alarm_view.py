"""An alarm as pages get it: the record's object, with today's names, what is missing and what its ladder does. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...serving.people import Person, named
from ...words import utc_from_text, utc_text
from ..alarms.machine import State

AWAITING = frozenset({State.UNACK.value, State.RTNUN.value, State.LATU.value})


def alarm_view(alarm: Mapping[str, Any], people: Mapping[str, Person]) -> dict[str, Any]:
    """The object of a record for pages.

    Args:
        alarm: as `codec.alarm_json` made it.
        people: whose names stand beside the ids that records carry.
    """
    acks = [{**ack, **named(people, ack["person"])} for ack in alarm.get("acks", ())]
    given = {ack["role"] for ack in acks}
    missing = [role for role in alarm["required_acks"] if role not in given] if alarm["state"] in AWAITING else []
    overlay = alarm.get("overlay")
    return {
        **alarm,
        "acks": acks,
        "missing_roles": missing,
        "first_out": bool(alarm.get("first_out", False)),
        "overlay": _overlay(overlay, people) if overlay else None,
    }


def _overlay(overlay: Mapping[str, Any], people: Mapping[str, Person]) -> dict[str, Any]:
    """With `since` and `until` as times of the wall clock; `until` is None where only a person or a rule ends it."""
    since_ms, for_s = utc_from_text(overlay["since"]["utc"]), overlay["for_s"]
    who = named(people, overlay["who"])
    return {
        **{key: overlay[key] for key in ("kind", "who", "why", "permit", "one_shot")},
        "who_name": who["name"],
        "who_name_en": who["name_en"],
        "since": utc_text(since_ms),
        "until": utc_text(since_ms + round(for_s * 1000)) if for_s is not None else None,
    }
