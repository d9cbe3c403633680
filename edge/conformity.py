"""Whether a site has what headquarters' baseline asks for: sensors of each type, and that they speak. Pure.

Light: the daemon keeps `Standard` and asks `judge` again and again; the baseline itself was read by another process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..words import Quality, Reading

OK, MISSING, SILENT = "ok", "missing", "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """One type of sensor that an area must have. `points`: ids of those that it has, with how old a value may be."""

    type: str
    points: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaNeeds:
    """What the baseline asks of one area.

    Attributes:
        kind: of room; `room`, `room_en`: what it is called.
        equipment: id, name and English name of what must stand there, the site's own included.
    """

    area: str
    name: str
    name_en: str
    kind: str
    room: str
    room_en: str
    needs: tuple[Need, ...]
    equipment: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standard:
    """The baseline as far as the running gateway needs it.

    Attributes:
        revision, digest: of the order it came with.
        tightened: as `baseline_merge.Tightened` says, in JSON.
        problems: what of it cannot be used here, in Chinese and English.
        no_kind: areas that name no kind of room: nothing is asked of them.
    """

    revision: int
    digest: str
    name: str
    name_en: str
    areas: tuple[AreaNeeds, ...] = ()
    tightened: tuple[dict[str, Any], ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    no_kind: tuple[str, ...] = field(default=())


def judge(standard: Standard, reading_of: Callable[[str], Reading | None], now_s: float) -> dict[str, Any]:
    """How the site stands, as the page shows it and headquarters is told.

    Args:
        reading_of: newest reading of a point; None when there was none since the start.
        now_s: monotonic seconds.
    """
    rooms = [_room(area, reading_of, now_s) for area in standard.areas]
    missing = sum(sensor["state"] == MISSING for room in rooms for sensor in room["sensors"])
    silent = sum(sensor["state"] == SILENT for room in rooms for sensor in room["sensors"])
    return {
        "revision": standard.revision,
        "digest": standard.digest,
        "name": standard.name,
        "name_en": standard.name_en,
        "rooms": rooms,
        "missing": missing,
        "silent": silent,
        "tightened": list(standard.tightened),
        "problems": [{"zh": zh, "en": en} for zh, en in standard.problems],
        "no_kind": list(standard.no_kind),
    }


def _room(area: AreaNeeds, reading_of: Callable[[str], Reading | None], now_s: float) -> dict[str, Any]:
    return {
        "area": area.area,
        "name": area.name,
        "name_en": area.name_en,
        "kind": area.kind,
        "room": area.room,
        "room_en": area.room_en,
        "sensors": [
            {"type": need.type, "state": _state(need, reading_of, now_s), "points": list(need.points)}
            for need in area.needs
        ],
        "equipment": [{"id": name, "name": zh, "name_en": en} for name, zh, en in area.equipment],
    }


def _state(need: Need, reading_of: Callable[[str], Reading | None], now_s: float) -> str:
    if not need.points:
        return MISSING
    return OK if any(_speaks(reading_of(name), stale_s, now_s) for name, stale_s in need.points.items()) else SILENT


def _speaks(reading: Reading | None, stale_s: float, now_s: float) -> bool:
    return reading is not None and reading.quality is not Quality.BAD and now_s - reading.at.mono_s <= stale_s
