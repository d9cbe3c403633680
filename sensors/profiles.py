"""The catalogue: one TOML file for each kind of device, read strictly, and only when it is asked for."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..errors import ConfigError
from .profile import Check, Defaults, Label, Profile, Variant
from .profile_files import NAME, ProfileFile, VariantFile

__all__ = [
    "CATALOGUE",
    "NAME",
    "Catalogue",
    "Check",
    "Defaults",
    "Label",
    "Profile",
    "Variant",
    "load_catalogue",
    "open_catalogue",
]

CATALOGUE = Path(__file__).with_name("catalogue")


class Catalogue(Mapping[str, Profile]):
    """Profiles by id. The shipped ones are read when they are asked for: their ids are the names of their files.

    Attributes:
        broken: ids of a site's own profiles that could not be read; they are no keys.
    """

    def __init__(self, own: Mapping[str, Profile] | None = None, broken: frozenset[str] = frozenset()) -> None:
        self._own = dict(own or {})
        self._ids = dict.fromkeys((*_shipped_ids(), *self._own))
        self.broken = broken

    def __getitem__(self, name: str) -> Profile:
        if name in self._own:
            return self._own[name]
        if name not in self._ids:
            raise KeyError(name)
        return _shipped(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, name: object) -> bool:
        return name in self._ids


def open_catalogue(folder: Path | None = None) -> tuple[Catalogue, list[str]]:
    """The shipped catalogue, with a site's own profiles beside it.

    Args:
        folder: of the site's own profiles; None when it has none.

    Returns:
        The catalogue and every problem of the site's files, each `file: path: what (got value)`.
    """
    if folder is None:
        return Catalogue(), []
    if not folder.is_dir():
        return Catalogue(), ["must be a folder with *.toml profiles"]
    own, broken, problems = _read_folder(folder)
    for name in sorted(set(own) & set(_shipped_ids())):
        del own[name]
        problems.append(f"{name}.toml: id: {name!r} is in the shipped catalogue already: give file and id another name")
    return Catalogue(own, frozenset(broken)), problems


def load_catalogue(folder: Path | None = None) -> dict[str, Profile]:
    """Every profile of a folder (default: the one that is shipped), by id.

    Raises:
        ConfigError: with every problem of every file, each `file: path: what (got value)`.
    """
    folder = CATALOGUE if folder is None else folder
    if not folder.is_dir():
        raise ConfigError(str(folder), ["must be a folder with *.toml profiles"])
    profiles, _, problems = _read_folder(folder)
    if problems:
        raise ConfigError(str(folder), problems)
    return profiles


@functools.cache
def _shipped_ids() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in CATALOGUE.glob("*.toml")))


@functools.cache
def _shipped(name: str) -> Profile:
    profile, problems = _load(CATALOGUE / f"{name}.toml")
    if profile is None:
        raise ConfigError(str(CATALOGUE), [f"{name}.toml: {text}" for text in problems])
    return profile


def _read_folder(folder: Path) -> tuple[dict[str, Profile], list[str], list[str]]:
    profiles: dict[str, Profile] = {}
    broken: list[str] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        found, wrong = _load(path)
        problems += [f"{path.name}: {text}" for text in wrong]
        if found is not None:
            profiles[found.id] = found
        else:
            broken.append(path.stem)
    return profiles, broken, problems


def _load(path: Path) -> tuple[Profile | None, list[str]]:
    try:
        data = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return None, [f"cannot be read: {error}"]
    raw_variants = data.pop("variants", [])
    model, problems = _validate(data)
    if model is None:
        return None, problems
    if model.id != path.stem:
        return None, [f"id: must be the file's name, {path.stem!r} (got {model.id!r})"]
    variants, problems = _variants(raw_variants, data)
    return (None, problems) if problems else (model.build(variants), [])


def _variants(raw: Any, data: Mapping[str, Any]) -> tuple[tuple[Variant, ...], list[str]]:
    if not isinstance(raw, list):
        return (), ["variants: must be a list of tables: begin each with [[variants]]"]
    found: list[Variant] = []
    problems: list[str] = []
    for index, entry in enumerate(raw):
        where = f"variants[{index}]"
        try:
            file = VariantFile.model_validate(entry)
        except ValidationError as error:
            problems += [_problem(e, where) for e in error.errors()]
            continue
        names = {register["name"] for register in data["registers"]}
        problems += [f"{where}.drop: must name a register (got {n!r})" for n in file.drop if n not in names]
        if any(file.id == other.id for other in found):
            problems.append(f"{where}.id: must be unique (got {file.id!r} again)")
        model, wrong = _validate(file.merge(data), where)
        problems += wrong
        if model is not None:
            found.append(Variant(id=file.id, differs=file.differs, tell=file.tell, profile=model.build()))
    return tuple(found), problems


def _validate(data: Mapping[str, Any], where: str = "") -> tuple[ProfileFile | None, list[str]]:
    try:
        return ProfileFile.model_validate(data), []
    except ValidationError as error:
        return None, [_problem(e, where) for e in error.errors()]


def _problem(error: Any, where: str = "") -> str:
    path = where + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error["loc"])
    path = path.lstrip(".")
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] in {"missing", "value_error"} or isinstance(error["input"], dict):
        return f"{path}: {text}" if path else text
    got = float(error["input"]) if isinstance(error["input"], Decimal) else error["input"]
    return f"{path}: {text} (got {got!r})"
