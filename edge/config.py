"""site.toml to a checked document: every problem at once, each with its path, the value and what would be right.

Works offline and touches no device. Shapes are judged here, what refers to what in `checks.py`.
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from ..sensors.profiles import Profile, load_catalogue
from ..serving.people import Person, load_people
from .models import REPEATED, REQUIRED, SINGLE
from .wording import add_key, say_shape, say_toml, say_unknown_table, show

_MOST_BYTES = 1 << 20
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_AS_UTF8 = "save the file as UTF-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """site.toml, parsed as far as it could be: what is broken is missing here and named in the problems.

    Attributes:
        single: one model for each `[table]` that is there.
        repeated: for each `[[table]]`, (index in the file, model) of the entries that are well-formed.
        text, raw: the file as it stands, and as TOML.
        people: by id; None when people.csv is broken.
        catalogue: device profiles by id.
        revision: of the file's bytes; every record of an alarm carries it.
    """

    path: Path
    single: Mapping[str, Any]
    repeated: Mapping[str, tuple[tuple[int, Any], ...]]
    text: str
    raw: Mapping[str, Any]
    people: Mapping[str, Person] | None
    catalogue: Mapping[str, Profile]
    revision: str

    def entries(self, table: str) -> list[Any]:
        """The well-formed entries of a `[[table]]`."""
        return [model for _, model in self.repeated[table]]

    @property
    def people_file(self) -> str:
        """Name of people.csv as site.toml gives it; "" when that table is broken."""
        return self.single["people"].file if self.single["people"] is not None else ""


def read_document(path: Path) -> tuple[Document, list[str]]:
    """Read site.toml and what it names.

    Returns:
        The document and the problems of shape; what refers to what is for `checks.find_problems`.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    data = _read(path)
    text = _decode(path, data)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [say_toml(error)]) from error
    except (ValueError, RecursionError) as error:
        what = "a number with too many digits" if isinstance(error, ValueError) else "too many lists in one another"
        raise ConfigError(str(path), [f"file: holds {what}"]) from error
    problems: list[str] = []
    single = {name: _single(name, raw, problems) for name in SINGLE}
    repeated = {name: _repeated(name, raw, problems) for name in REPEATED}
    problems += [say_unknown_table(name, raw[name]) for name in raw if name not in SINGLE and name not in REPEATED]
    document = Document(
        path=path,
        single=single,
        repeated=repeated,
        text=text,
        raw=raw,
        people=_people(path, single, problems),
        catalogue=load_catalogue(),
        revision=hashlib.sha256(data).hexdigest()[:12],
    )
    return document, problems


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        raise ConfigError(str(path), ["file: is missing: copy config/site.toml and edit it"]) from None
    except IsADirectoryError:
        raise ConfigError(str(path), ["file: is a folder: name the file in it, such as site.toml"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"file: cannot be read: {error.strerror}"]) from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(str(path), [f"file: is no site.toml: it is larger than {_MOST_BYTES >> 10} KiB"])
    return data


def _decode(path: Path, data: bytes) -> str:
    """UTF-8, with or without a byte order mark; editors of Windows write one."""
    if data.startswith(_UTF16):
        raise ConfigError(str(path), [f"line 1: must be UTF-8 text, not UTF-16: {_AS_UTF8}"])
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        got = f"(got byte 0x{data[error.start]:02x})"
        raise ConfigError(str(path), [f"line {line}: must be UTF-8 text: {_AS_UTF8} {got}"]) from error


def _single(name: str, raw: Mapping[str, Any], problems: list[str]) -> Any:
    value = raw.get(name)
    if value is None:
        if name in REQUIRED:
            problems.append(f"{name}: is required: add a [{name}] table")
            return None
        return None if name in ("mqtt", "cloud") else SINGLE[name]()
    if isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        problems.append(f"{name}: must be one table: write [{name}] instead of [[{name}]]")
        return None
    if not isinstance(value, dict):
        problems.append(f"{name}: must be a table: write [{name}] and its keys below it {show(value)}")
        return None
    return _validate(SINGLE[name], value, name, problems)


def _repeated(name: str, raw: Mapping[str, Any], problems: list[str]) -> tuple[tuple[int, Any], ...]:
    value = raw.get(name, [])
    if not isinstance(value, list):
        problems.append(f"{name}: must be a list of tables: begin each with [[{name}]]")
        return ()
    if not value and name in REQUIRED:
        problems.append(f"{name}: is required: add at least one [[{name}]] table")
    found = [(i, _validate(REPEATED[name], entry, add_key(name, i), problems)) for i, entry in enumerate(value)]
    return tuple((i, model) for i, model in found if model is not None)


def _validate(model: type[BaseModel], value: Any, path: str, problems: list[str]) -> Any:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems.extend(say_shape(model, path, value, dict(item)) for item in error.errors(include_url=False))
        return None


def _people(path: Path, single: Mapping[str, Any], problems: list[str]) -> Mapping[str, Person] | None:
    if single["people"] is None:
        return None
    name = single["people"].file
    try:
        return load_people(path.parent / name)
    except ConfigError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            problems.append(f"{name}: must be UTF-8 text: {_AS_UTF8}; a spreadsheet calls it CSV UTF-8")
        else:
            problems += [_people_problem(name, problem) for problem in error.problems]
    return None


def _people_problem(name: str, problem: str) -> str:
    """Of a line of people.csv, or of the file as a whole: then the key that names it is the place to look."""
    return f"{name}: {problem}" if problem.startswith("line ") else f"people.file: {problem} {show(name)}"
