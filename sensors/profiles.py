"""The catalogue: one TOML file for each kind of device, read strictly, and only when it is asked for."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..toml_file import place, read_toml
from ..wording import show
from .profile import Check, Defaults, Label, Profile, Variant
from .profile_files import NAME, ProfileFile, VariantFile
from .profile_words import judge, judge_variants, whose

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
        The catalogue and every problem of the site's files, each `file: path: what (got value) [line 7]`.
    """
    if folder is None:
        return Catalogue(), []
    if not folder.is_dir():
        return Catalogue(), ["must be a folder with *.toml profiles"]
    own, broken, problems = _read_folder(folder, taken=_shipped_ids())
    return Catalogue(own, frozenset(broken) - set(_shipped_ids())), problems


def load_catalogue(folder: Path | None = None) -> dict[str, Profile]:
    """Every profile of a folder (default: the one that is shipped), by id.

    Raises:
        ConfigError: with every problem of every file, each `file: path: what (got value) [line 7]`.
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


def _read_folder(folder: Path, taken: Collection[str] = ()) -> tuple[dict[str, Profile], list[str], list[str]]:
    profiles: dict[str, Profile] = {}
    broken: list[str] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.toml")):
        found, wrong = _load(path, taken)
        problems += [f"{path.name}: {text}" for text in wrong]
        if found is not None:
            profiles[found.id] = found
        else:
            broken.append(path.stem)
    return profiles, broken, problems


def _load(path: Path, taken: Collection[str] = ()) -> tuple[Profile | None, list[str]]:
    """The profile of a file, or its problems, each with the line that it stands on."""
    if not NAME.fullmatch(path.stem):
        wrong = f"its name must be lower-case letters, digits and _: it is the profile's id {show(path.name)}"
        return None, [f"file: {wrong}"]
    try:
        file = read_toml(path, example="my_head.toml", parse_float=Decimal)
    except ConfigError as error:
        return None, error.problems
    data = {key: value for key, value in file.raw.items() if key != "variants"}
    model, problems = judge(data)
    problems += _name_problems(path.stem, data.get("id"), taken)
    variants, wrong = judge_variants(file.raw.get("variants", []), data, problems)
    problems += wrong
    if problems or model is None:
        return None, place(problems, file.text, lambda where: whose(where, file.raw))
    return model.build(tuple(_variant(variant, whole) for variant, whole in variants)), []


def _name_problems(stem: str, name: Any, taken: Collection[str]) -> Iterator[str]:
    if isinstance(name, str) and NAME.fullmatch(name) and name != stem:
        yield f'id: must be the name of the file, "{stem}" {show(name)}'
    elif name in taken:
        yield f"id: is in the shipped catalogue already: give file and id another name {show(name)}"


def _variant(file: VariantFile, whole: ProfileFile) -> Variant:
    return Variant(
        id=file.id, differs=file.differs, tell=file.tell, tell_zh=file.tell_zh or file.tell, profile=whole.build()
    )
