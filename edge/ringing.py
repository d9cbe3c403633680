"""Who of those that must act can be rung: by a channel that rings a locked phone, or a sounder at the post. Pure.

Pages, MQTT, group robots and e-mail are ways too, and none of them wakes anybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..serving.people import ROLES, Person, with_role
from ..words import Point
from .alert_building import build_ladders, choose_ladders
from .alert_models import BeaconTable, SpeechTable
from .alerts.roster import stand_ins
from .alerts.routing import RINGING, Way, order_of
from .config import Document
from .reach import rules_of

_WAIVER = "unreachable_ok"
_WIDEN = 'widen siren or priorities of what sounds there, or add "sms" and a phone number for everybody who must act'
_REMEDY = 'add a [[channel]] of kind "sms", or of kind "beacon" (with a siren) or "speech" there, to alerts.channels'


def find_unrung(document: Document, points: Mapping[str, Point]) -> Iterator[str]:
    """Problems, where the site has an `[alerts]` table and does not put up with them.

    Args:
        document: nothing is said while channels or people are broken.
        points: those that stand in an area of the file, by id.
    """
    alerts = document.single["alerts"]
    if "alerts" in document.raw and alerts is not None and not alerts.unreachable_ok:
        yield from _unrung(document, points)


def warn_of_unrung(document: Document, points: Mapping[str, Point]) -> Iterator[str]:
    """The same as a warning, where the site puts up with it. Args: points: of every device, by id."""
    if "alerts" not in document.raw:
        if points:
            yield "alerts: there is no [alerts] table: nobody is told of an alarm but by looking at a page"
    elif document.single["alerts"].unreachable_ok:
        found = "; ".join(_unrung(document, points))
        if found:
            yield f"alerts.{_WAIVER}: PEOPLE WHO MUST ACT CANNOT BE RUNG: {found}"


def warn_of_unsounded(document: Document, points: Mapping[str, Point]) -> Iterator[str]:
    """Priorities that the sounders of an area do not sound for, where somebody has no phone that rings instead."""
    people, alerts = document.people, document.single["alerts"]
    if people is None or "alerts" not in document.raw or alerts.unreachable_ok:
        return
    order = order_of(document.entries("channel"), alerts.channels)
    sounds = {channel.id: _sounds_for(channel) for channel in document.entries("channel")}
    phones = [way for way in order if way.kind == RINGING]
    silent: dict[int, dict[str, None]] = {}
    for rule in rules_of(document, points, alerts.required_acks):
        heard = frozenset[int]().union(*(sounds[way.id] for way in order if way.covers(rule.area)))
        quiet = {level.priority for level in rule.levels} - heard if heard else set[int]()
        asked = [(role, rule.area) for role in rule.required_acks if role in ROLES] if quiet else []
        if any(_phoneless(document, people, phones, asked)):
            for priority in quiet:
                silent.setdefault(priority, {})[rule.area] = None
    for priority, areas in sorted(silent.items()):
        where = ", ".join(f'"{area}"' for area in areas)
        yield f"alerts.channels: an alarm of priority {priority} rings nobody in {where}: {_WIDEN}"


def warn_of_unheld(document: Document) -> Iterator[str]:
    """Roles that a ladder in use tells, and that nobody holds."""
    if document.people is None or "alerts" not in document.raw:
        return
    ladders = build_ladders(document)
    of_priority, system = choose_ladders(document.single["alerts"])
    used = dict.fromkeys([*of_priority.values(), system])
    held = {role for person in document.people.values() for role in person.roles}
    asked = dict.fromkeys(role for name in used for rung in ladders[name].rungs for role in rung.to)
    for role in asked:
        if role not in held:
            names = ", ".join(name for name in used if any(role in rung.to for rung in ladders[name].rungs))
            yield f"alerts.ladders: nobody is {role}, whom {names} would tell: give somebody the role in people.csv"


def _unrung(document: Document, points: Mapping[str, Point]) -> Iterator[str]:
    raw, people, alerts = document.raw.get("channel", []), document.people, document.single["alerts"]
    if people is None or not isinstance(raw, list) or len(raw) != len(document.repeated["channel"]):
        return
    order = order_of(document.entries("channel"), alerts.channels)
    loud = {channel.id for channel in document.entries("channel") if _sounds_for(channel)}
    sounders = [way for way in order if way.id in loud]
    phones = [way for way in order if way.kind == RINGING]
    asked: dict[tuple[str, str], None] = {}
    for rule in rules_of(document, points, alerts.required_acks):
        if not any(way.covers(rule.area) for way in sounders):
            asked |= dict.fromkeys((role, rule.area) for role in rule.required_acks if role in ROLES)
    if asked and not phones:
        areas = ", ".join(dict.fromkeys(f'"{area}"' for _, area in asked))
        yield f"alerts.channels: nothing rings a phone and nothing sounds at the post for {areas}: {_REMEDY}"
        return
    yield from _phoneless(document, people, phones, asked)


def _sounds_for(channel: object) -> frozenset[int]:
    """Priorities that it makes a sound for: a beacon of lamps alone makes none."""
    match channel:
        case BeaconTable() if "siren" in channel.parts:
            return frozenset(channel.siren)
        case SpeechTable():
            return frozenset(channel.priorities)
        case _:
            return frozenset()


def _phoneless(
    document: Document, people: Mapping[str, Person], phones: list[Way], asked: Iterable[tuple[str, str]]
) -> Iterator[str]:
    pairs = [(absence.person, absence.substitute) for absence in document.entries("absence")]
    missing: dict[str, dict[str, None]] = {}
    for role, area in asked:
        for holder in with_role(people, role, area):
            for name in (holder.id, *stand_ins(holder.id, pairs)):
                person = people.get(name)
                if person is not None and not any(way.reaches(person, (role,), area) for way in phones):
                    missing.setdefault(name, {})[role if name == holder.id else f"{role} instead of {holder.id}"] = None
    for name, roles in missing.items():
        yield (
            f"{document.people_file}: {name} ({', '.join(roles)}) has no phone number, so nothing rings:"
            " write it into the column phone"
        )
