"""A TOML file that people write: read as their editors leave it, and where in it a path stands.

tomllib tells no line numbers of what it has read; a line that is not found costs only the hint.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ConfigError
from .wording import say_toml

AS_UTF8 = "save the file as UTF-8"
_MOST_BYTES = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_HEADER = re.compile(r"\s*(\[\[?)\s*([A-Za-z0-9_-]+(?:\s*\.\s*[A-Za-z0-9_-]+)*)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"\s*\"?([A-Za-z0-9_-]+)\"?\s*[.=]")
_LIST = re.compile(r"\s*\"?([A-Za-z0-9_-]+)\"?\s*=\s*\[\s*(?:#.*)?$")
_LAST = re.compile(r"(?:\.[^.\[\]]*|\[\d+\])$")


@dataclass(frozen=True, slots=True, kw_only=True)
class TomlFile:
    """A file as it was read.

    Attributes:
        data: its bytes. text: as text, with `\\n` at the ends of lines. raw: as TOML.
    """

    data: bytes
    text: str
    raw: dict[str, Any]


def read_toml(path: Path, *, example: str, missing: str = "", parse_float: Callable[[str], Any] = float) -> TomlFile:
    """Read a file.

    Args:
        example: what such a file is called, `site.toml`.
        missing: what to do where there is none.

    Raises:
        ConfigError: the file cannot be read, or is not TOML; with one problem, `file: …` or `line 7: …`.
    """
    data = _read(path, example, missing)
    text = _decode(path, data)
    try:
        return TomlFile(data=data, text=text, raw=tomllib.loads(text, parse_float=parse_float))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [say_toml(error)]) from error
    except (ValueError, ArithmeticError, RecursionError) as error:
        what = "too many lists in one another" if isinstance(error, RecursionError) else "a number with too many digits"
        raise ConfigError(str(path), [f"file: holds {what}"]) from error


def _read(path: Path, example: str, missing: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(str(path), [f"file: is missing{missing and f' ({missing})'}"]) from None
    except IsADirectoryError:
        raise ConfigError(str(path), [f"file: is a folder: name the file in it, such as {example}"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"file: cannot be read: {error.strerror}"]) from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(str(path), [f"file: is no {example}: it is larger than {_MOST_BYTES >> 10} KiB"])
    return data


def _decode(path: Path, data: bytes) -> str:
    """UTF-8, with or without a byte order mark; editors of Windows write one."""
    if data.startswith(_UTF16):
        raise ConfigError(str(path), [f"line 1: must be UTF-8 text, not UTF-16: {AS_UTF8}"])
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        got = f"(got byte 0x{data[error.start]:02x})"
        raise ConfigError(str(path), [f"line {line}: must be UTF-8 text: {AS_UTF8} {got}"]) from error


# --- lines ---


def number_lines(text: str) -> dict[str, int]:
    """Path (`bus[0]`, `bus[0].port`) to the line that it begins on, counted from 1.

    Of a list over several lines each entry in { } has its own: `status[1]`.
    """
    found: dict[str, int] = {}
    arrays: Counter[str] = Counter()
    table = fence = entries = ""
    for number, line in enumerate(text.split("\n"), 1):
        if fence:
            fence = "" if fence in line else fence
            continue
        header = _HEADER.match(line)
        if entries and not line.lstrip().startswith(("{", "#")) and line.strip():
            entries = ""
        if entries and line.lstrip().startswith("{"):
            found[f"{entries}[{arrays[entries]}]"] = number
            arrays[entries] += 1
        elif header:
            parts = re.split(r"\s*\.\s*", header.group(2))
            table = _open(parts, arrays, repeated=header.group(1) == "[[")
            found.setdefault(table, number)
        elif key := _KEY.match(line):
            path = f"{table}.{key.group(1)}" if table else key.group(1)
            found.setdefault(path, number)
            entries = path if _LIST.match(line) else ""
        if not line.lstrip().startswith("#"):
            fence = next((mark for mark in ('"""', "'''") if line.count(mark) % 2), "")
    return found


def place(
    problems: Iterable[str], text: str, whose: Callable[[str], Iterable[str]], *, elsewhere: str = ""
) -> list[str]:
    """Each problem with whose it is and where it stands, `… [device "th1", line 48]`, in the order of the file.

    Args:
        problems: each begins with its path and a colon; one that stands nowhere in the file comes last.
        text: the file.
        whose: of a path: what it belongs to, in words.
        elsewhere: name of another file; what begins with it does not stand here.
    """
    lines = number_lines(text)
    placed: list[tuple[float, str]] = []
    for problem in problems:
        path = "" if elsewhere and problem.startswith(f"{elsewhere}: ") else problem.partition(": ")[0]
        line = _line(path, lines)
        marks = [*whose(path), *([f"line {line}"] if line else [])]
        placed.append((line or float("inf"), f"{problem} [{', '.join(marks)}]" if marks else problem))
    return [text for _, text in sorted(placed, key=lambda entry: entry[0])]


def entry_at(entries: Any, index: int) -> Mapping[str, Any]:
    """A table of a list as the file has it; empty where there is none."""
    entry = entries[index] if isinstance(entries, list) and index < len(entries) else None
    return entry if isinstance(entry, dict) else {}


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
