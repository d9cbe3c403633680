"""`POINT.KEY=VALUE`: a site with other alarm rules, without editing its site.toml; checked as the file is."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Any

from ..errors import ConfigError
from .site import Site

_ENTRY = re.compile(r"^alarm\[(\d+)\]")
_PLACE = re.compile(r' \[alarm "[^"]*"(?:, line \d+)?\]$')


def changed_site(site: Site, changes: Sequence[str]) -> Site:
    """The site with `POINT.KEY=VALUE` laid over its `[[alarm]]` tables, checked as site.toml is.

    Raises:
        ConfigError: of source `--set`, with every problem.
    """
    from .site_building import build_site

    if not changes:
        return site
    points = [meta.point.id for meta in site.points]
    problems: list[str] = []
    edits = [edit for change in changes if (edit := _edit(change, points, problems)) is not None]
    if problems:
        raise ConfigError("--set", problems)
    tables: list[str] = []

    def lay_over(raw: dict[str, Any]) -> None:
        for point, keys, value in edits:
            _set(raw, point, keys, value)
        tables.extend(entry.get("point", "") for entry in raw["alarm"])

    try:
        return build_site(site.path, change=lay_over)
    except ConfigError as error:
        raise ConfigError("--set", [_of_point(problem, tables) for problem in error.problems]) from error


def _of_point(problem: str, tables: Sequence[str]) -> str:
    """A problem of `alarm[3].hi`, line 48, is one of `store.th1.humidity.hi`, which stands in no line."""
    return _PLACE.sub("", _ENTRY.sub(lambda found: tables[int(found.group(1))], problem))


def _edit(change: str, points: Sequence[str], problems: list[str]) -> tuple[str, list[str], Any] | None:
    from .wording import nearest, show

    name, equals, text = change.partition("=")
    name, text = name.strip(), text.strip()
    if not equals or not text:
        problems.append(f"{name or change}: must be POINT.KEY=VALUE, as in {points[0]}.hi=75 {show(change)}")
        return None
    point = max((one for one in points if name.startswith(f"{one}.")), key=len, default="")
    if name in points:
        problems.append(f"{name}: must be POINT.KEY=VALUE, as in {name}.hi=75 {show(change)}")
        return None
    if not point:
        close = nearest(".".join(name.split(".")[:3]), points)
        meant = f"; did you mean {close}?" if close in points else ""
        problems.append(f"{name}: must begin with a point{meant} {show(name)}")
        return None
    try:
        value = None if text == "none" else tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        problems.append(f"{name}: must be a value as in site.toml, or none {show(text)}")
        return None
    return point, name[len(point) + 1 :].split("."), value


def _set(raw: dict[str, Any], point: str, keys: Sequence[str], value: Any) -> None:
    """In its `[[alarm]]` table, which is added when there is none; None takes the key away."""
    tables: list[dict[str, Any]] = raw.setdefault("alarm", [])
    table: dict[str, Any] = next((entry for entry in tables if entry.get("point") == point), {"point": point})
    if table not in tables:
        tables.append(table)
    *outer, last = keys
    for key in outer:
        inner = table.get(key, {})
        table[key] = table = inner if isinstance(inner, dict) else {"limit": inner}
    if value is None:
        table.pop(last, None)
    else:
        table[last] = value
