"""Whether each `[[alarm]]` names a point, and its limits lie on the scale, in order, with deadbands that let it clear.
What the proof test tests as well. Offline."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..serving.people import ROLES
from ..words import Point
from .alarm_checks import Known, filled, find_comm_problems, find_point_problems
from .alarm_rules import fill_tables, find_gases, group_by_device
from .alarms.defaults import build_rules
from .alarms.rules import Level
from .config import Document, Part, split_points
from .fitted import knows_its_points
from .models import AlarmTable
from .references import all_of, check_reference, once_each
from .wording import LIMITS, show, show_number, suggest


def find_limit_problems(document: Document, points: Mapping[str, Point], placed: Mapping[str, Point]) -> Iterator[str]:
    """Of every `[[alarm]]`.

    Args:
        points: of every device whose id, area and profile can be read, by id.
        placed: those of them that stand in an area of the file.
    """
    seen: dict[str, int] = {}
    known, tables, devices = known_points(document, placed), fill_tables(document, points), group_by_device(points)
    for part in document.parts["alarm"]:
        path, alarm = f"alarm[{part.index}]", part.entry
        for j, role in enumerate(alarm.required_acks or ()):
            yield from check_reference(f"{path}.required_acks[{j}]", role, all_of(ROLES), "role")
        yield from once_each(f"{path}.required_acks", alarm.required_acks or ())
        if alarm.point is None:
            continue
        other = seen.setdefault(alarm.point, part.index)
        if other != part.index:
            yield f"{path}.point: must be unique: alarm[{other}] is about it too {show(alarm.point)}"
        if alarm.point in devices:
            yield from find_comm_problems(path, part, devices[alarm.point], tables)
            continue
        point = points.get(alarm.point)
        if point is None and (known.unsure is None or _device_of(alarm.point) in known.unsure):
            point = _meant(alarm.point, points)
        elif point is None:
            yield f"{path}.point: must name a point{_near(alarm.point, placed)} {show(alarm.point)}"
        if point is not None:
            yield from find_point_problems(path, part, point, known)
            yield from _limits(path, replace(part, entry=filled(part, point, known.gases)), point)


def known_points(document: Document, placed: Mapping[str, Point]) -> Known:
    """What a name of a point may mean. Args: placed: points that stand in an area of the file."""
    return Known(points=placed, gases=find_gases(document), unsure=_unsure_devices(document, placed))


def find_proof_problems(document: Document, points: Mapping[str, Point], placed: Mapping[str, Point]) -> Iterator[str]:
    """The point has a limit that can be tested."""
    unsure = _unsure_devices(document, placed)
    for part in document.parts["proof"]:
        name = part.entry.point
        if name is None or (name not in points and (unsure is None or _device_of(name) in unsure)):
            continue
        if name not in points:
            yield f"proof.point: must name a point{_near(name, placed)} {show(name)}"
        elif not any(alarm.entry.point in (name, None) and _has_limit(alarm) for alarm in document.parts["alarm"]):
            yield f"proof.point: must have a limit to be tested: add an [[alarm]] with hi or lo {show(name)}"


def _has_limit(alarm: Part) -> bool:
    """Also one that is broken: it is a problem of its own."""
    return any(getattr(alarm.entry, key) is not None or key in alarm.raw for key in LIMITS)


def _unsure_devices(document: Document, placed: Mapping[str, Point]) -> set[str] | None:
    """Devices whose points have no sure id because they are broken themselves; None when not even their ids are."""
    known = {_device_of(point) for point in placed}
    unsure: set[str] = set()
    for table in ("device", "mqtt_device"):
        ids = document.ids(table)
        if ids is None or not ids.sure or ids.broken:
            return None
        unsure |= set(ids.good) - known
    pointless = [part for part in document.parts["mqtt_device"] if not _knows_its_points(part)]
    pointless += [part for part in document.parts["device"] if not knows_its_points(document, part)]
    return unsure | {part.entry.id for part in pointless}


def _knows_its_points(device: Part) -> bool:
    raw, points = device.raw.get("point"), split_points(device)
    whole = isinstance(raw, list) and len(points) == len(raw)
    return whole and all(None not in (part.entry.name, part.entry.quantity) for part in points)


def _meant(name: str, points: Mapping[str, Point]) -> Point | None:
    """The point of that device and name, in whatever area: there the mistake is, not in the limits."""
    tail = name.partition(".")[2]
    found = [point for known, point in points.items() if tail and known.partition(".")[2] == tail]
    return found[0] if len(found) == 1 else None


def _device_of(point: str) -> str:
    """`th1` of `aux_store.th1.humidity`; "" of what is no such id."""
    return point.split(".")[1] if "." in point else ""


def _near(wrong: str, points: Mapping[str, Point]) -> str:
    device = _device_of(wrong)
    own = [point for point in points if _device_of(point) == device]
    if own:
        return f': device "{device}" has {", ".join(own)}'
    return suggest(wrong, points) or " as area.device.name"


def _limits(path: str, part: Part, point: Point) -> Iterator[str]:
    alarm: AlarmTable = part.entry
    levels = [(key, getattr(alarm, key)) for key in ("lolo", "lo", "hi", "hihi")]
    given = [(key, level) for key, level in levels if level is not None]
    for (low_key, low), (high_key, high) in itertools.pairwise(given):
        if low.limit >= high.limit:
            yield f"{path}.{high_key}: must be above {low_key}, {low.limit:g} {show_number(high.limit)}"
    broken = point.low is not None and point.high is not None and point.low >= point.high
    for key, level in () if broken else given:
        below = point.low is not None and level.limit < point.low
        above = point.high is not None and level.limit > point.high
        if below or above:
            what = f"what the device can measure, {_scale(point)}"
            yield f"{path}.{key}: must be within {what} {show_number(level.limit)}"
    if alarm.stale_s is not None and alarm.stale_s < 2 * point.poll_s:
        least = f"{2 * point.poll_s:g}, the time of two readings"
        yield f"{path}.stale_s: must be at least {least} {show_number(alarm.stale_s)}"
    if "deadband" not in part.broken:
        yield from _deadbands(path, part, point)


def _scale(point: Point) -> str:
    """`0..100 %RH`, `at most 100 ppm`."""
    if point.low is None:
        return f"at most {point.high:g} {point.unit}".rstrip()
    if point.high is None:
        return f"at least {point.low:g} {point.unit}".rstrip()
    return f"{point.low:g}..{point.high:g} {point.unit}".rstrip()


def _deadbands(path: str, part: Part, point: Point) -> Iterator[str]:
    """A deadband that reaches past the end of the scale, or from hi past lo, would never let the alarm clear."""
    alarm: AlarmTable = part.entry
    rules = build_rules(point, alarm, area="", required_acks=(), revision="")
    levels = [level for rule in rules for level in rule.levels]
    used = {level.kind.value: level for level in levels if f"{level.kind}.deadband" not in part.broken}
    for key in ("lolo", "lo", "hi", "hihi"):
        if key not in used:
            continue
        level, high = used[key], key in ("hi", "hihi")
        end = point.low if high else point.high
        if end is not None and level.deadband >= abs(level.limit - end):
            room = f"{abs(level.limit - end):g} {point.unit}".rstrip()
            where = f"the way from {key} to the end of the scale at {end:g}"
            yield f"{_deadband_path(path, alarm, key)}: must be less than {room}, {where}, {_else(alarm, key, level)}"
    if "lo" in used and "hi" in used:
        width = used["hi"].limit - used["lo"].limit
        for key in ("lo", "hi"):
            if 0 < width <= used[key].deadband:
                room = f"{width:g} {point.unit}".rstrip()
                yield (
                    f"{_deadband_path(path, alarm, key)}: must be less than {room}, the way from lo to hi,"
                    f" {_else(alarm, key, used[key])}"
                )


def _else(alarm: AlarmTable, key: str, level: Level) -> str:
    default = alarm.deadband is None and getattr(alarm, key).deadband is None
    got = f"(got {level.deadband:g}, its default)" if default else show_number(level.deadband)
    return f"or {key} never clears {got}"


def _deadband_path(path: str, alarm: AlarmTable, key: str) -> str:
    own = getattr(alarm, key).deadband is not None
    return f"{path}.{key}.deadband" if own else f"{path}.deadband"
