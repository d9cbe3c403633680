"""Pure: which persons an alarm must reach, on which channels, with which keys."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from ...serving.people import Person, with_role

ALERTING = ("alarm.raised", "alarm.reraised", "alarm.reopened", "alarm.repeated")
COVERING = ("alarm.shelved", "alarm.out_of_service")
"""Somebody has decided that nobody need be told: the officer always hears of it."""


def recipients(
    kind: str, alarm: Mapping[str, Any], *, site: str, people: Mapping[str, Person], channels: Sequence[str]
) -> list[dict[str, str]]:
    """One entry per (person, channel); each becomes one outbox row in the transaction of the record.

    Every holder of every required role who answers for the alarm's area is told. A person with two roles is told
    once per channel. Who has acknowledged is not told again (`repeated`). What is shelved, suppressed or out of service
    tells nobody.

    Args:
        kind: of the record; only `ALERTING` and `COVERING` kinds tell anyone.
        alarm: the alarm object (JSON) after the transition.
        site: what makes numbers of occurrences unique, part of the key: site, gateway and epoch of its journal.
        people: by id.
        channels: ids of the channels to use.
    """
    if kind in COVERING:
        roles, event = ["officer"], f"{kind}:{alarm['overlay']['since']['utc']}"
    elif kind in ALERTING and alarm.get("overlay") is None:
        roles = alarm["required_acks"]
        event = f"{kind}:{alarm['kind']}:{alarm['count']}:{(alarm.get('noticed') or {}).get('utc', '')}"
    else:
        return []
    acked = {ack["person"] for ack in alarm.get("acks", ())} if kind == "alarm.repeated" else set[str]()
    told: dict[str, str] = {}
    for role in roles:
        for person in with_role(people, role, alarm["area"]):
            if person.id not in acked:
                told.setdefault(person.id, role)
    return [
        {
            "person": person,
            "role": role,
            "channel": channel,
            "key": delivery_key(site, alarm["id"], alarm["occurrence"], event, person, channel),
        }
        for person, role in told.items()
        for channel in channels
    ]


def delivery_key(site: str, alarm_id: str, occurrence: int, event: str, person: str, channel: str) -> str:
    """The identity of one delivery; receivers drop what they have seen. SHA-256, hex."""
    parts = (site, alarm_id, str(occurrence), event, person, channel)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
