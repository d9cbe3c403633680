"""Where in site.toml a path stands, for people: tomllib tells no line numbers. Pure; a miss costs only the hint."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"\s*\"?([A-Za-z0-9_-]+)\"?\s*[.=]")
_LAST = re.compile(r"(?:\.[^.\[\]]*|\[\d+\])$")
_ENTRY = re.compile(r"([a-z_]+)\[(\d+)\](?:\.point\[(\d+)\])?")


def number_lines(text: str) -> dict[str, int]:
    """Path (`bus[0]`, `bus[0].port`) to the line that it begins on, counted from 1."""
    found: dict[str, int] = {}
    arrays: Counter[str] = Counter()
    table = fence = ""
    for number, line in enumerate(text.split("\n"), 1):
        if fence:
            fence = "" if fence in line else fence
            continue
        header = _HEADER.match(line)
        if header:
            parts = re.split(r"\s*\.\s*", header.group(2))
            table = _open(parts, arrays, repeated=header.group(1) == "[[")
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            found.setdefault(f"{table}.{key.group(1)}" if table else key.group(1), number)
        if not line.lstrip().startswith("#"):
            fence = next((mark for mark in ('"""', "'''") if line.count(mark) % 2), "")
    return found


def place(problems: Iterable[str], raw: Mapping[str, Any], text: str, *, elsewhere: str = "") -> list[str]:
    """Each problem with whose it is and where it stands, `… [device "th1", line 48]`, in the order of the file.

    Args:
        problems: each begins with its path and a colon; one that stands nowhere in the file comes last.
        raw: the file as parsed.
        text: the file.
        elsewhere: name of another file; what begins with it does not stand here.
    """
    lines = number_lines(text)
    placed: list[tuple[float, str]] = []
    for problem in problems:
        path = "" if elsewhere and problem.startswith(f"{elsewhere}: ") else problem.partition(": ")[0]
        line = _line(path, lines)
        marks = [*_whose(path, raw), *([f"line {line}"] if line else [])]
        placed.append((line or float("inf"), f"{problem} [{', '.join(marks)}]" if marks else problem))
    return [text for _, text in sorted(placed, key=lambda entry: entry[0])]


def _open(parts: list[str], arrays: Counter[str], *, repeated: bool) -> str:
    path = ""
    for i, part in enumerate(parts):
        path = f"{path}.{part}" if path else part
        if repeated and i == len(parts) - 1:
            arrays[path] += 1
        if arrays[path]:
            path = f"{path}[{arrays[path] - 1}]"
    return path


def _line(path: str, lines: Mapping[str, int]) -> int | None:
    """Of the path, or of the nearest table around it."""
    while path and path not in lines and f"{path}[0]" not in lines:
        shorter = _LAST.sub("", path)
        path = shorter if shorter != path else ""
    return lines.get(path, lines.get(f"{path}[0]"))


def _whose(path: str, raw: Mapping[str, Any]) -> Iterable[str]:
    """Ids beside the indexes, where there are any."""
    entry = _ENTRY.match(path)
    if entry is None:
        return
    table, index, inner = entry.group(1), int(entry.group(2)), entry.group(3)
    found = _at(raw.get(table), index)
    name = found.get("point" if table == "alarm" else "id")
    if isinstance(name, str) and name.isprintable():
        yield f'{table} "{name}"'
    if inner is not None:
        name = _at(found.get("point"), int(inner)).get("name")
        if isinstance(name, str) and name.isprintable():
            yield f'point "{name}"'


def _at(entries: Any, index: int) -> Mapping[str, Any]:
    entry = entries[index] if isinstance(entries, list) and index < len(entries) else None
    return entry if isinstance(entry, dict) else {}
