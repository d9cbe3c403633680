"""The alarm object as JSON: in records, on MQTT, in the API and at the cloud."""

from __future__ import annotations

from typing import Any

from ...words import ClockState, Instant, Reading, utc_from_text, utc_text
from .machine import Ack, Alarm, State
from .overlay import Overlay, OverlayKind
from .rules import Kind, Rule


def alarm_json(rule: Rule, alarm: Alarm, changed_at: Instant) -> dict[str, Any]:
    """Everything that a receiver needs to show the alarm, and everything that a restart needs to go on."""
    return {
        "id": alarm.id,
        "point": rule.point,
        "area": rule.area,
        "name": rule.name,
        "name_en": rule.name_en,
        "unit": rule.unit,
        "kind": alarm.kind.value if alarm.kind else None,
        "state": alarm.state.value,
        "priority": alarm.priority,
        "limit": alarm.limit,
        "value": alarm.value,
        "active": alarm.active.value if alarm.active else None,
        "occurrence": alarm.occurrence,
        "count": alarm.count,
        "latched": alarm.latched,
        "raised_at": utc_text(alarm.raised_at.utc_ms) if alarm.raised_at else None,
        "raised": alarm.raised_at.to_json() if alarm.raised_at else None,
        "returned": alarm.returned_at.to_json() if alarm.returned_at else None,
        "changed_at": utc_text(changed_at.utc_ms),
        "required_acks": list(alarm.required_acks),
        "distinct_persons": alarm.distinct_persons,
        "acks": [_ack_json(ack) for ack in alarm.acks],
        "first_out": alarm.first_out,
        "group": rule.first_out_group,
        "life_safety": rule.life_safety,
        "noticed": alarm.noticed_at.to_json() if alarm.noticed_at else None,
        "asked": alarm.asked_at.to_json() if alarm.asked_at else None,
        "overlay": _overlay_json(alarm.overlay) if alarm.overlay else None,
    }


def alarm_from_json(fields: dict[str, Any]) -> Alarm:
    """Inverse of `alarm_json`. Raises KeyError or ValueError on anything else."""
    acks = tuple(Ack(role=a["role"], person=a["person"], at=instant_from_json(a["instant"])) for a in fields["acks"])
    return Alarm(
        id=fields["id"],
        state=State(fields["state"]),
        kind=Kind(fields["kind"]) if fields["kind"] else None,
        priority=fields["priority"],
        limit=fields["limit"],
        active=Kind(fields["active"]) if fields["active"] else None,
        occurrence=fields["occurrence"],
        count=fields["count"],
        latched=fields["latched"],
        value=fields["value"],
        raised_at=instant_from_json(fields["raised"]) if fields["raised"] else None,
        returned_at=instant_from_json(fields["returned"]) if fields["returned"] else None,
        required_acks=tuple(fields["required_acks"]),
        distinct_persons=bool(fields["distinct_persons"]),
        acks=acks,
        first_out=bool(fields.get("first_out")),
        noticed_at=instant_from_json(fields["noticed"]) if fields.get("noticed") else None,
        asked_at=instant_from_json(fields["asked"]) if fields.get("asked") else None,
        overlay=_overlay(fields["overlay"]) if fields.get("overlay") else None,
    )


def reading_json(reading: Reading) -> dict[str, Any]:
    """A trigger reading as records carry it."""
    return {
        "point": reading.point,
        "v": reading.value,
        "q": reading.quality.value,
        "why": reading.why,
        "at": reading.at.to_json(),
    }


def _ack_json(ack: Ack) -> dict[str, Any]:
    return {"role": ack.role, "person": ack.person, "at": utc_text(ack.at.utc_ms), "instant": ack.at.to_json()}


def _overlay_json(overlay: Overlay) -> dict[str, Any]:
    return {
        "kind": overlay.kind.value,
        "who": overlay.who,
        "why": overlay.why,
        "permit": overlay.permit,
        "since": overlay.since.to_json(),
        "for_s": overlay.for_s,
        "one_shot": overlay.one_shot,
        "over": overlay.over.value if overlay.over is not None else None,
    }


def _overlay(fields: dict[str, Any]) -> Overlay:
    return Overlay(
        kind=OverlayKind(fields["kind"]),
        who=fields["who"],
        why=fields["why"],
        permit=fields["permit"],
        since=instant_from_json(fields["since"]),
        for_s=fields["for_s"],
        one_shot=fields["one_shot"],
        over=Kind(fields["over"]) if fields.get("over") else None,
    )


def instant_from_json(fields: dict[str, Any]) -> Instant:
    """Inverse of `Instant.to_json`. Raises KeyError or ValueError on anything else."""
    return Instant(
        utc_ms=utc_from_text(fields["utc"]),
        mono_s=fields["mono"],
        boot=fields["boot"],
        clock=ClockState(fields["clock"]),
    )
