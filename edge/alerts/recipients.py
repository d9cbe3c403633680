"""Pure: which persons and things a record must reach, on which channels, with which keys.

Each entry becomes one outbox row in the transaction of the record:

- a person on a channel of their own (sms, mail, webhook): `person`, and the `role` in which they are told;
- a group on its robot: one row for everybody, `person` empty, `mentions` names every person who is accounted for by it;
- a thing (beacon, speech): `person` and `mentions` empty;
- a person whom no channel reaches: `channel` empty, so that the delivery fails and is not forgotten.

`step` is 0, or the number of a ladder's rung counted from 1; `kind` is that of the record. `instead_of` and `because`
(see `roster.Holder`) are there only where they say something; so is `hold_s`, for how many seconds after the record the
person's quiet hours keep the message.

What a ladder asks for at 0 s is told by the alarm's own record (`climb.begin`): no step of it follows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...words import Instant
from ..ladders.plan import Plan, Rung
from .roster import Holder, Roster
from .routing import Way, at_once, next_way, order_of, things, ways

if TYPE_CHECKING:
    from ..site import Site

ALERTING = ("alarm.raised", "alarm.reraised", "alarm.reopened", "alarm.repeated")
COVERING = ("alarm.shelved", "alarm.out_of_service")
"""Somebody has decided that nobody need be told: the officer always hears of it."""
FREEZING = ("freeze.set", "freeze.released", "deviation.opened")
TELLING = frozenset({*ALERTING, *COVERING, *FREEZING, "ladder.step"})
"""Kinds of records that tell somebody."""
COVERED_TO = ("officer",)
FROZEN_TO = ("officer", "vice_president", "manager")
_SYSTEM = "system."
_CAN_WAIT = 3
"""Quiet hours keep alarms of this priority, and of lower ones, from persons; never more urgent ones."""
NO_WAY = ""
"""In place of a channel."""

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressing:
    """How people of a site are reached.

    Attributes:
        scope: what makes numbers of occurrences unique: site, gateway and epoch of its journal.
        order: the channels in use, as `[alerts].channels` has them.
        plans: the ladder of each priority. system: that of the system's own alarms.
        must_reach: who must be told and has no way is a failed delivery; but for the steps of ladders, something that
            sounds or shines there is a way.
    """

    scope: str
    roster: Roster
    order: tuple[Way, ...]
    plans: Mapping[int, Plan]
    system: Plan
    must_reach: bool = False

    def plan_of(self, alarm: str, priority: int) -> Plan | None:
        """The ladder of an alarm, None for one without."""
        return self.system if alarm.startswith(_SYSTEM) else self.plans.get(priority)

    def next(self, person: str, role: str, area: str, tried: Iterable[str]) -> str:
        """The id of the channel that is used for `person` when those of `tried` fail; empty when there is none."""
        known = self.roster.people.get(person)
        way = next_way(self.order, known, (role,), area, tried) if known is not None else None
        return way.id if way is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    """What happened, as far as keys and people are concerned. `repeat`: what tells two equal events apart.
    `can_wait`: quiet hours keep it from persons."""

    kind: str
    subject: str
    area: str
    occurrence: int = 0
    what: str = ""
    step: int = 0
    repeat: str = ""
    can_wait: bool = False


def addressing_of(site: Site, scope: str) -> Addressing:
    """How people of this site are reached. Args: scope: see `Addressing`."""
    return Addressing(
        scope=scope,
        roster=site.roster,
        order=order_of(site.channels, site.alerts.channels),
        plans={priority: site.ladders[name] for priority, name in site.ladder_of.items()},
        system=site.ladders[site.system_ladder],
        must_reach=bool(site.alerts.channels) and not site.alerts.unreachable_ok,
    )


def recipients(kind: str, body: Mapping[str, Any], at: Instant, addressing: Addressing) -> list[Entry]:
    """Whom a record must reach.

    Args:
        kind: of the record; only `TELLING` kinds tell anyone.
        body: of the record, without its `notify`.
        at: when; decides who is on duty.
        addressing: of the site.
    """
    if kind in COVERING:
        return _told(_covered(kind, body["alarm"]), COVERED_TO, (), at, addressing)
    if kind in ALERTING:
        return _alarm(kind, body, at, addressing)
    if kind == "ladder.step":
        return _step(kind, body, at, addressing)
    if kind in FREEZING:
        return _told(_frozen(kind, body), FROZEN_TO, (), at, addressing)
    return []


def delivery_key(
    scope: str, subject: str, occurrence: int, event: str, step: int, repeat: str, recipient: str, channel: str
) -> str:
    """The identity of one delivery; receivers drop what they have seen. SHA-256, hex.

    Args:
        recipient: a person's id; empty for groups and things.
    """
    parts = (scope, subject, str(occurrence), event, str(step), repeat, recipient, channel)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


# --- kinds of records ---


def _alarm(kind: str, body: Mapping[str, Any], at: Instant, addressing: Addressing) -> list[Entry]:
    alarm = body["alarm"]
    if alarm.get("overlay") is not None or body.get("quiet"):
        return []
    event = _Event(
        kind=kind,
        subject=alarm["id"],
        area=alarm["area"],
        occurrence=alarm["occurrence"],
        what=f"{alarm['kind']}:{alarm['count']}",
        repeat=(alarm.get("noticed") or {}).get("utc", ""),
        can_wait=alarm["priority"] >= _CAN_WAIT and not alarm.get("life_safety"),
    )
    first = _first_rungs(addressing.plan_of(alarm["id"], alarm["priority"]))
    add = _gather(rung.add for rung in first)
    if kind == "alarm.repeated":
        acked = {ack["person"] for ack in alarm.get("acks", ())}
        return _told(event, alarm["required_acks"], add, at, addressing, acked)
    roles = _gather([alarm["required_acks"], *(rung.to for rung in first)])
    return _told(event, roles, add, at, addressing)


def _step(kind: str, body: Mapping[str, Any], at: Instant, addressing: Addressing) -> list[Entry]:
    ladder, step = body["ladder"], body["step"]
    subject, n = ladder["subject"], step["n"]
    rungs = [Rung.from_json(fields) for fields in ladder["rungs"][: n + 1]]
    event = _Event(
        kind=kind,
        subject=f"{subject['kind']}/{subject['id']}",
        area=subject["area"],
        occurrence=subject["occurrence"],
        what=step["fence"],
        step=n + 1,
    )
    roles, add = _gather(rung.to for rung in rungs), _gather(rung.add for rung in rungs)
    return _told(event, roles, add, at, addressing)


def _covered(kind: str, alarm: Mapping[str, Any]) -> _Event:
    since = alarm["overlay"]["since"]["utc"]
    return _Event(
        kind=kind, subject=alarm["id"], area=alarm["area"], occurrence=alarm["occurrence"], what=kind, repeat=since
    )


def _frozen(kind: str, body: Mapping[str, Any]) -> _Event:
    if kind == "deviation.opened":
        subject = body["subject"]
        return _Event(kind=kind, subject=body["id"], area=subject["area"], occurrence=subject["occurrence"], what=kind)
    freeze = body["freeze"]
    when = freeze["since"] if freeze["released"] is None else freeze["released"]["at"]
    return _Event(
        kind=kind,
        subject=freeze["id"],
        area=freeze["area"],
        occurrence=freeze["why"]["occurrence"],
        what=kind,
        repeat=when,
    )


def _first_rungs(plan: Plan | None) -> list[Rung]:
    """What a ladder asks for at once."""
    return [rung for rung in plan.rungs if rung.at_s == 0] if plan is not None else []


def _gather(lists: Iterable[Iterable[str]]) -> tuple[str, ...]:
    """Each name once, in the order in which they come."""
    return tuple(dict.fromkeys(name for names in lists for name in names))


# --- rows ---


def _told(
    event: _Event,
    roles: Iterable[str],
    add: Sequence[str],
    at: Instant,
    addressing: Addressing,
    without: frozenset[str] | set[str] = frozenset(),
) -> list[Entry]:
    """One entry for each person and channel, for each group, and for each thing."""
    groups: dict[str, list[str]] = {}
    entries: list[Entry] = []
    for told_as, holder in _holders(event, roles, at, addressing.roster):
        if holder.person in without:
            continue
        found = ways(addressing.order, addressing.roster.people[holder.person], told_as, event.area)
        for way in at_once(found, add):
            if way.is_group:
                groups.setdefault(way.id, []).append(holder.person)
            else:
                quiet_s = addressing.roster.quiet_s(holder.person, at) if event.can_wait else 0.0
                held = {"hold_s": round(quiet_s, 3)} if quiet_s else {}
                entries.append({**_entry(event, addressing, way.id, holder, told_as[0]), **held})
        if not found and addressing.must_reach and (event.step or not _sounds(addressing.order, event.area)):
            entries.append(_entry(event, addressing, NO_WAY, holder, told_as[0]))
    entries += [{**_entry(event, addressing, name), "mentions": names} for name, names in groups.items()]
    return entries + [_entry(event, addressing, way.id) for way in things(addressing.order, event.area, add)]


def _sounds(order: Iterable[Way], area: str) -> bool:
    """Whether something stands there that sounds or shines."""
    return any(way.is_thing and way.covers(area) for way in order)


def _holders(
    event: _Event, roles: Iterable[str], at: Instant, roster: Roster
) -> Iterator[tuple[tuple[str, ...], Holder]]:
    """Each person once, with every role in which they are told, the first one first."""
    found: dict[str, tuple[list[str], Holder]] = {}
    for role in roles:
        for holder in roster.holders(role, event.area, at):
            found.setdefault(holder.person, ([], holder))[0].append(role)
    return ((tuple(told_as), holder) for told_as, holder in found.values())


def _entry(event: _Event, addressing: Addressing, channel: str, holder: Holder | None = None, role: str = "") -> Entry:
    person = holder.person if holder is not None else ""
    key = delivery_key(
        addressing.scope,
        event.subject,
        event.occurrence,
        f"{event.kind}:{event.what}",
        event.step,
        event.repeat,
        person,
        channel,
    )
    entry: Entry = {
        "key": key,
        "person": person,
        "role": role,
        "channel": channel,
        "step": event.step,
        "kind": event.kind,
    }
    if holder is not None:
        told = {"instead_of": holder.instead_of, "because": holder.because}
        entry |= {name: value for name, value in told.items() if value}
    return entry
