"""What a plan holds, and what is no plan. Pure.

Places are fractions of the picture, 0..1 from its upper left corner: a better picture of the same plan moves nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn, cast

from ...errors import RefusedError
from ...words import is_text

KINDS = ("point", "checkpoint", "zone", "fence", "camera")
LEAST_PLACES = {"point": 1, "checkpoint": 1, "camera": 1, "zone": 3, "fence": 2}
MOST_PLACES = {"point": 1, "checkpoint": 1, "camera": 1, "zone": 200, "fence": 200}
MOST_ITEMS = 2000
MOST_PLANS = 50
_LONGEST_NAME = 80
_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}")
_REF = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_DIGITS = 6
_SIDE = 65_536


def plan_id(text: str) -> str:
    """`text` where it can be the id of a plan. Raises RefusedError `bad_request`."""
    if not _ID.fullmatch(text):
        _refuse("id", "must be a-z, 0-9, _ or -, 40 characters at most", text)
    return text


def checked_plan(given: Mapping[str, Any]) -> dict[str, Any]:
    """`name`, `name_en`, `picture` and `items` as a record carries them.

    Raises:
        RefusedError: `bad_request`, naming the field.
    """
    items = given["items"]
    if not isinstance(items, list) or len(cast("list[Any]", items)) > MOST_ITEMS:
        _refuse("items", f"must be a list of at most {MOST_ITEMS}", len(items) if isinstance(items, list) else items)
    made = [_item(f"items[{n}]", item) for n, item in enumerate(cast("list[Any]", items))]
    ids = [item["id"] for item in made]
    twice = next((id_ for id_ in ids if ids.count(id_) > 1), None) if len(set(ids)) < len(ids) else None
    if twice is not None:
        _refuse("items", "two have the same id", twice)
    return {
        "name": _name("name", given["name"], least=1),
        "name_en": _name("name_en", given["name_en"]),
        "picture": _picture(given["picture"]),
        "items": made,
    }


def _item(where: str, given: Any) -> dict[str, Any]:
    fields = _object(where, given, ("id", "kind", "ref", "name", "name_en", "at", "angle"))
    kind = fields["kind"]
    if kind not in KINDS:
        _refuse(f"{where}.kind", f"must be one of {', '.join(KINDS)}", kind)
    ref = fields["ref"]
    if not isinstance(ref, str) or (ref and not _REF.fullmatch(ref)) or (kind == "point" and not ref):
        _refuse(f"{where}.ref", "must be the id of what it shows" + ("" if kind == "point" else ", or empty"), ref)
    angle = fields["angle"] or 0
    if not _is_number(angle) or not 0 <= angle < 360:
        _refuse(f"{where}.angle", "must be 0 to below 360 degrees", angle)
    id_ = fields["id"]
    if not isinstance(id_, str) or not _REF.fullmatch(id_):
        _refuse(f"{where}.id", "must be letters, digits, _ . or -", id_)
    return {
        "id": id_,
        "kind": kind,
        "ref": ref,
        "name": _name(f"{where}.name", fields["name"]),
        "name_en": _name(f"{where}.name_en", fields["name_en"]),
        "at": _places(f"{where}.at", kind, fields["at"]),
        "angle": round(float(angle), 1),
    }


def _places(where: str, kind: str, given: Any) -> list[list[float]]:
    places = cast("list[Any]", given) if isinstance(given, list) else []
    if not LEAST_PLACES[kind] <= len(places) <= MOST_PLACES[kind]:
        _refuse(where, f"a {kind} has {LEAST_PLACES[kind]} to {MOST_PLACES[kind]} places", len(places))
    return [_place(f"{where}[{n}]", place) for n, place in enumerate(places)]


def _place(where: str, given: Any) -> list[float]:
    pair = cast("Sequence[Any]", given) if isinstance(given, list) else ()
    if len(pair) != 2 or not all(_is_number(value) and 0 <= value <= 1 for value in pair):
        _refuse(where, "must be [x, y], fractions of the picture from 0 to 1", given)
    return [round(float(value), _DIGITS) for value in pair]


def _picture(given: Any) -> dict[str, Any] | None:
    if given is None:
        return None
    fields = _object("picture", given, ("sha256", "width", "height"))
    if not isinstance(fields["sha256"], str) or not _SHA256.fullmatch(fields["sha256"]):
        _refuse("picture.sha256", "must be what the import answered", fields["sha256"])
    for side in ("width", "height"):
        value = fields[side]
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _SIDE:
            _refuse(f"picture.{side}", "must be a number of pixels", value)
    return fields


def _object(where: str, given: Any, known: tuple[str, ...]) -> dict[str, Any]:
    """The fields of an object; those that may be left out are empty."""
    if not isinstance(given, dict):
        _refuse(where, "must be an object", given)
    fields = cast("dict[str, Any]", given)
    unknown = sorted(set(fields) - set(known))
    if unknown:
        _refuse(f"{where}.{unknown[0]}", f"unknown field (known: {', '.join(known)})", fields[unknown[0]])
    empty = {"ref": "", "name": "", "name_en": ""}
    return {name: fields.get(name, empty.get(name)) for name in known}


def _name(where: str, given: Any, least: int = 0) -> str:
    if not isinstance(given, str) or not is_text(given) or not least <= len(given.strip()) <= _LONGEST_NAME:
        _refuse(where, f"must be a text of {least} to {_LONGEST_NAME} characters", given)
    return given.strip()


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _refuse(where: str, what: str, given: Any) -> NoReturn:
    raise RefusedError("bad_request", f"{where}: {what} (got {given!r:.60})")
