"""What `[alerts]`, `[[channel]]` and `[[ladder]]` refer to, and whether it works. Offline; reads only files it names.

The roster is judged in `roster_checks.py`, who can be rung in `ringing.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import ConfigError
from ..serving.people import ROLES
from ..words import Point
from .addresses import check_file, check_url, has_secret, is_here, split
from .alert_building import SYSTEM_KEY
from .alert_models import CHANNELS, BeaconTable, ChannelTable, MailTable, WebhookTable
from .alerts import channel_tables
from .alerts.routing import RINGING, SIREN
from .config import Document, Ids, Part
from .fitted import fit_device
from .ladders.plan import EVERY, PRESETS, Action
from .references import all_of, check_reference, once_each
from .ringing import find_unrung, warn_of_unheld, warn_of_unrung, warn_of_unsounded
from .roster_checks import find_roster_problems
from .tables import plain
from .wording import show, show_number, show_url

__all__ = ["find_alert_problems", "find_alert_warnings", "find_unrung"]

_SCHEMES = ("https", "http")
_WATCHDOG = "let the device's own watchdog light amber, and say has_watchdog = true"


def find_alert_problems(document: Document) -> Iterator[str]:
    """Every problem of channels, ladders, the roster and `[alerts]`."""
    yield from _channels(document)
    yield from _ladders(document)
    yield from _alerts(document)
    yield from find_roster_problems(document)


def find_alert_warnings(document: Document, points: Mapping[str, Point]) -> Iterator[str]:
    """What works but will hurt. Args: points: of every device, by id."""
    told = document.single["alerts"].channels
    for i, channel in document.repeated["channel"]:
        parts = split(channel.url) if isinstance(channel, WebhookTable) else None
        if parts and parts.scheme == "http" and not is_here(parts):
            yield f"channel[{i}].url: alarms cross the network unencrypted: use https:// {show_url(channel.url)}"
        if isinstance(channel, MailTable) and channel.security == "plain_anywhere":
            yield f"channel[{i}].security: alarms cross the network unencrypted {show(channel.security)}"
        if channel.id not in told:
            yield f"channel[{i}]: nobody is told through it: alerts.channels does not name it"
        if isinstance(channel, BeaconTable) and not channel.has_watchdog and channel.parts.keys() & {"amber", "green"}:
            yield f"channel[{i}].has_watchdog: when the gateway dies, its lamps stay as they are: {_WATCHDOG}"
    yield from _phoneless_channels(document)
    yield from warn_of_unrung(document, points)
    yield from warn_of_unsounded(document, points)
    yield from warn_of_unheld(document)


def _phoneless_channels(document: Document) -> Iterator[str]:
    people, told = document.people, document.single["alerts"].channels
    if people is None or any(person.phone for person in people.values()):
        return
    for i, channel in document.repeated["channel"]:
        if channel.id in told and channel.kind == RINGING:
            yield f"channel[{i}]: reaches nobody: no person has a phone number: write them into the column phone"


# --- channels ---


def _channels(document: Document) -> Iterator[str]:
    outputs = _outputs(document)
    lines: dict[str, int] = {}
    used: dict[str, str] = {}
    for part in document.parts["channel"]:
        path, table = f"channel[{part.index}]", part.entry
        if isinstance(table, ChannelTable):
            continue
        found = [
            *_files(document, path, part),
            *_names(document, path, part),
            *_uses(path, part, outputs, used),
        ]
        if isinstance(table, WebhookTable) and part.broken.isdisjoint(("url", "url_file")):
            found += _webhook(document, path, table)
        serial = getattr(table, "serial", None)
        other = lines.setdefault(serial, part.index) if serial else part.index
        if other != part.index:
            found.append(f"{path}.serial: must be unique: channel[{other}] has it too {show(serial)}")
        yield from found
        if not found and not part.broken:
            yield from _settings(document, path, part, outputs)


def _files(document: Document, path: str, part: Part) -> Iterator[str]:
    folder = document.path.parent
    for key in (*channel_tables.SECRETS, "ca_file"):
        if key != "url_file" and key in type(part.entry).model_fields:
            yield from check_file(folder, f"{path}.{key}", getattr(part.entry, key) or "")
    clips = getattr(part.entry, "clips", None)
    if clips and not (folder / clips).is_dir():
        yield f"{path}.clips: must be a folder, relative to site.toml {show(clips)}"


def _names(document: Document, path: str, part: Part) -> Iterator[str]:
    """Areas, roles, persons."""
    for key, ids, what in (("areas", document.ids("area"), "[[area]]"), ("roles", all_of(ROLES), "role")):
        names = getattr(part.entry, key, None) or ()
        for j, name in enumerate(names):
            yield from check_reference(f"{path}.{key}[{j}]", name, ids, what)
        yield from once_each(f"{path}.{key}", names)
    people = all_of(document.people) if document.people is not None else None
    for name in getattr(part.entry, "open_ids", None) or ():
        yield from check_reference(f"{path}.open_ids.{name}", name, people, "person of people.csv")


def _uses(path: str, part: Part, outputs: Ids | None, used: dict[str, str]) -> Iterator[str]:
    """Outputs that a channel switches: they are there, and nothing else switches them."""
    parts: Mapping[str, str] = getattr(part.entry, "parts", None) or {}
    named = {f"{path}.parts.{key}": name for key, name in parts.items()}
    if power := getattr(part.entry, "power_output", None):
        named[f"{path}.power_output"] = power
    for place, name in named.items():
        yield from check_reference(place, name, outputs, "writable output, as area.device.output")
        other = used.setdefault(name, place)
        if other != place:
            yield f"{place}: must be unique: {other} switches it too {show(name)}"


def _settings(document: Document, path: str, part: Part, outputs: Ids | None) -> Iterator[str]:
    """What the channel itself finds wrong, with what its files hold."""
    states = dict(_states(document))
    if outputs is None and "parts" in part.raw:
        return
    try:
        table = channel_tables.complete(plain(part.entry), document.path.parent, states, timezone="UTC")
    except ConfigError as error:
        yield f"{path}: {error.problems[0]}"
        return
    for problem in channel_tables.check(table):
        key = problem.partition(":")[0].partition(".")[0]
        yield f"{path}.{problem}" if key in type(part.entry).model_fields else f"{path}: {problem}"


def _webhook(document: Document, path: str, channel: WebhookTable) -> Iterator[str]:
    if bool(channel.url) == bool(channel.url_file):
        yield f"{path}.url: is required, or else url_file: exactly one of the two"
    elif has_secret(channel.url):
        yield (
            f"{path}.url: secrets never stand in site.toml: write the address into a file that only the gateway"
            f" can read, and name that file in url_file {show_url(channel.url)}"
        )
    elif channel.url:
        yield from check_url(f"{path}.url", channel.url, _SCHEMES)
    else:
        problems = list(check_file(document.path.parent, f"{path}.url_file", channel.url_file))
        yield from problems
        if not problems:
            url = channel_tables.read_secret(document.path.parent / channel.url_file)
            yield from check_url(f"{path}.url_file", url, _SCHEMES)


def _outputs(document: Document) -> Ids | None:
    """Outputs that may be named; None where a device is not known well enough."""
    for part in document.parts["device"]:
        if None in (part.entry.id, part.entry.area) or part.entry.profile not in document.catalogue:
            return None
    return all_of(name for name, _ in _states(document))


def _states(document: Document) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Every output, and what it can be."""
    for part in document.parts["device"]:
        device = part.entry
        if None in (device.id, device.area) or device.profile not in document.catalogue:
            continue
        for output in fit_device(document, part)[0].outputs:
            yield f"{device.area}.{device.id}.{output.name}", tuple(state for state, _ in output.states)


# --- ladders ---


def _ladders(document: Document) -> Iterator[str]:
    adds = all_of((*CHANNELS, SIREN, EVERY))
    for part in document.parts["ladder"]:
        path, ladder = f"ladder[{part.index}]", part.entry
        if ladder.id in PRESETS:
            yield f"{path}.id: is the name of a ladder that is there already: choose another one {show(ladder.id)}"
        steps = ladder.steps if "steps" not in part.broken else None
        for (_, before), (j, after) in itertools.pairwise(enumerate(steps or ())):
            if after.at_s <= before.at_s:
                least = f"must be later than the step before it, {before.at_s:g}"
                yield f"{path}.steps[{j}].at_s: {least} {show_number(after.at_s)}"
        for j, step in enumerate(steps or ()):
            for key, ids, what in (("to", all_of(ROLES), "role"), ("add", adds, "kind of channel, siren or *")):
                for k, name in enumerate(getattr(step, key)):
                    yield from check_reference(f"{path}.steps[{j}].{key}[{k}]", name, ids, what)
                yield from once_each(f"{path}.steps[{j}].{key}", getattr(step, key))
        if steps and not any(step.to for step in steps):
            yield f"{path}.steps: tell nobody: name roles in `to`"


def _alerts(document: Document) -> Iterator[str]:
    for alerts in (part.entry for part in document.parts["alerts"]):
        for j, name in enumerate(alerts.channels or ()):
            yield from check_reference(f"alerts.channels[{j}]", name, document.ids("channel"), "[[channel]]")
        yield from once_each("alerts.channels", alerts.channels or ())
        for j, role in enumerate(alerts.required_acks or ()):
            yield from check_reference(f"alerts.required_acks[{j}]", role, all_of(ROLES), "role")
        yield from once_each("alerts.required_acks", alerts.required_acks or ())
        yield from _chosen(document, alerts.ladders or {})


def _chosen(document: Document, ladders: Mapping[str, str]) -> Iterator[str]:
    own = document.ids("ladder")
    known = Ids(
        good=(*PRESETS, *(own.good if own else ())),
        broken=own.broken if own else frozenset(),
        sure=own is not None and own.sure,
    )
    for key, name in ladders.items():
        yield from check_reference(f"alerts.ladders.{key}", name, known, "[[ladder]]")
    if ladders.get(SYSTEM_KEY) in _freezing(document):
        yield (
            f"alerts.ladders.{SYSTEM_KEY}: must not freeze work: a fault of the system is no danger in the plant"
            f" {show(ladders[SYSTEM_KEY])}"
        )


def _freezing(document: Document) -> set[str]:
    """Ladders with a step that freezes work."""
    found = {plan.id for plan in PRESETS.values() if any(rung.action is Action.FREEZE for rung in plan.rungs)}
    tables: list[Any] = document.entries("ladder")
    return found | {table.id for table in tables if any(step.action == Action.FREEZE.value for step in table.steps)}
