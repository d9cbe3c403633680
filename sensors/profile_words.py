"""Problems of a profile's file in words, as those of site.toml are told, and the variants that they hide in. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from ..toml_file import entry_at
from ..wording import Dialect, add_key, as_written, say_shape, show, suggest
from .profile_files import CheckFile, DefaultsFile, OutputFile, ProfileFile, TextFile, VariantFile
from .register_files import (
    FRACTION_PATTERN,
    NAME_PATTERN,
    WHY_PATTERN,
    FactorFile,
    HeartbeatFile,
    PartFile,
    RegisterFile,
    StateFile,
    StatusFile,
    TableError,
)

TABLES: dict[str, type[BaseModel]] = {
    "the top of the file": ProfileFile,
    "[defaults]": DefaultsFile,
    "[[registers]]": RegisterFile,
    "[[registers.status]]": StatusFile,
    "registers.status.states": StateFile,
    "registers.unit_factors": FactorFile,
    "registers.parts": PartFile,
    "registers.heartbeat": HeartbeatFile,
    "[[outputs]]": OutputFile,
    "[[texts]]": TextFile,
    "[[identify]]": CheckFile,
    "[[variants]]": VariantFile,
}
"""Every table of a profile, by where its keys stand."""

_MARKS = re.compile(r"(registers|outputs|texts|variants)\[(\d+)\](?:\.(registers)\[(\d+)\])?")
_REGISTER = re.compile(r"registers\[(\d+)\](.*)")
_IDS = {"registers": "name", "outputs": "name", "texts": "name", "variants": "id"}


def _homes(key: str) -> list[str]:
    """The tables that know a key: one that is written below the wrong header is a frequent mistake."""
    known = [where for where, model in TABLES.items() if key in model.model_fields]
    return known if len(known) <= 3 else []


def _right(loc: tuple[Any, ...], item: Mapping[str, Any]) -> str:
    if item["type"] == "model_type" and isinstance(item["input"], list):
        return f"must be one table: write [{loc[-1]}] instead of [[{loc[-1]}]]"
    return str(item["msg"]) if item["type"] == "too_far" else ""


_LOWER = "must be lower-case letters, digits and _"
PROFILE = Dialect(
    patterns={
        NAME_PATTERN: _LOWER,
        WHY_PATTERN: _LOWER,
        FRACTION_PATTERN: 'must be a fraction in quotes, such as "5/9"',
    },
    homes=_homes,
    also={"ProfileFile": ("variants",)},
    right=_right,
    suggests=True,
)
VARIANT = Dialect(
    patterns=PROFILE.patterns, homes=_homes, also={"RegisterFile": ("rename",)}, right=PROFILE.right, suggests=True
)


def whose(path: str, raw: Mapping[str, Any]) -> Iterable[str]:
    """What a path belongs to: `register "lel"`."""
    found = _MARKS.match(path)
    outer: Any = raw
    for key, index in () if found is None else ((found[1], found[2]), (found[3], found[4])):
        if key is None:
            continue
        outer = entry_at(outer.get(key), int(index))
        name = outer.get(_IDS[key])
        if isinstance(name, str) and name.isprintable():
            yield f'{key.removesuffix("s")} "{name}"'


def judge(data: Mapping[str, Any]) -> tuple[ProfileFile | None, list[str]]:
    """A profile without its variants, and each problem as `path: what would be right (got value)`."""
    try:
        return ProfileFile.model_validate(data), []
    except ValidationError as error:
        items = error.errors(include_url=False)
    return None, [text for item in items for text in _say(ProfileFile, "", data, dict(item), PROFILE)]


def judge_variants(
    raw: Any, data: Mapping[str, Any], told: Collection[str] = ()
) -> tuple[list[tuple[VariantFile, ProfileFile]], list[str]]:
    """The variants of a profile, each with the profile that it makes, and every problem.

    Args:
        raw: `variants` as the file has it. data: the rest of the file.
        told: problems of the rest; they are not told again of the variants.
    """
    if not isinstance(raw, list):
        return [], ["variants: must be a list of tables: begin each with [[variants]]"]
    found: list[tuple[VariantFile, ProfileFile]] = []
    problems: list[str] = []
    ids: list[str] = []
    paths = frozenset(problem.partition(": ")[0] for problem in told)
    for index, entry in enumerate(raw):
        where = f"variants[{index}]"
        try:
            file = VariantFile.model_validate(entry)
        except ValidationError as error:
            items = error.errors(include_url=False)
            problems += [t for item in items for t in _say(VariantFile, where, entry, dict(item), PROFILE)]
            continue
        if file.id in ids:
            problems.append(f"{where}.id: must be unique: variants[{ids.index(file.id)}] has it too {show(file.id)}")
        ids.append(file.id)
        model, wrong = _merged(file, data, where, paths)
        problems += wrong
        if model is not None:
            found.append((file, model))
    return found, problems


def _merged(
    file: VariantFile, data: Mapping[str, Any], where: str, told: frozenset[str]
) -> tuple[ProfileFile | None, list[str]]:
    """Args: told: paths of the profile that are wrong without the variant."""
    base = _tables(data.get("registers"))
    names: list[str] = [name for r in base if isinstance(name := r.get("name"), str)]
    if len(set(names)) < len(base):
        return None, []  # nobody knows which register is meant
    problems = [*_names(file, names, where)]
    if problems:
        return None, problems
    line = data.get("defaults")
    merged = file.merge({**data, "registers": base, "defaults": line if isinstance(line, dict) else {}})
    try:
        return ProfileFile.model_validate(merged), []
    except ValidationError as error:
        items: list[dict[str, Any]] = [dict(item) for item in error.errors(include_url=False)]
    return None, list(dict.fromkeys(_Merge(file=file, where=where, names=names, told=told).say(items, merged)))


def _names(file: VariantFile, names: list[str], where: str) -> Iterator[str]:
    """Registers are changed and dropped by name."""
    for i, name in enumerate(file.drop):
        if name not in names:
            yield f"{where}.drop[{i}]: must name a register{suggest(name, names)} {_known(names)} {show(name)}"
    given = [entry.get("name") for entry in file.registers]
    for i, name in enumerate(given):
        path = f"{where}.registers[{i}].name"
        if name is None:
            yield f"{path}: is required: which register it is about {_known(names)}"
        elif not isinstance(name, str):
            yield f"{path}: must be text in quotes {show(name)}"
        elif name in given[:i]:
            yield f"{path}: must be unique: {where}.registers[{given.index(name)}] has it too {show(name)}"


def _known(names: Iterable[str]) -> str:
    return f"(known: {', '.join(names) or 'none'})"


def _tables(entries: Any) -> list[dict[str, Any]]:
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merge:
    """A variant and the profile that it changes; tells errors of the two together as those of the variant's own keys.

    Attributes:
        where: path of the variant.
        names: of the profile's registers.
        told: paths of the profile that are wrong without the variant.
    """

    file: VariantFile
    where: str
    names: list[str]
    told: frozenset[str]

    def say(self, items: list[dict[str, Any]], merged: Mapping[str, Any]) -> Iterator[str]:
        """Every error of pydantic; `merged`: what it was given."""
        for index in range(len(self.file.registers)):
            own = [item for item in items if self._own(item["loc"]) == index]
            missing = [str(item["loc"][2]) for item in own if item["type"] == "missing" and len(item["loc"]) == 3]
            if missing:
                yield self._no_register(index, missing)
                items = [item for item in items if item not in own]
        for item in items:
            refusal = _refusal(item)
            if refusal is None:
                yield from self._shape(item, merged)
            for key, text in refusal.problems if refusal else ():
                yield from self._sense(_path(item["loc"], merged, key), text)

    def _order(self) -> list[str]:
        """Registers of the two together, by the names that they have without the variant."""
        kept = [name for name in self.names if name not in self.file.drop]
        return kept + [entry["name"] for entry in self.file.registers if entry["name"] not in kept]

    def _own(self, loc: tuple[Any, ...]) -> int | None:
        """Which of the variant's registers a path is in; None where it is in none."""
        if len(loc) < 2 or loc[0] != "registers":
            return None
        given = [entry["name"] for entry in self.file.registers]
        name = self._order()[loc[1]]
        return given.index(name) if name in given else None

    def _no_register(self, index: int, missing: list[str]) -> str:
        name = self.file.registers[index]["name"]
        right = f"must name a register of the profile{suggest(name, self.names)} {_known(self.names)}"
        new = f"or be a new one with {', '.join(missing)} too"
        return f"{self.where}.registers[{index}].name: {right}, {new} {show(name)}"

    def _shape(self, item: dict[str, Any], merged: Mapping[str, Any]) -> Iterator[str]:
        """Of a key that the variant gives; the profile's own are told without it."""
        loc, own = item["loc"], self._own(item["loc"])
        is_line = loc[0] == "defaults" and len(loc) > 1 and loc[1] in self.file.defaults
        if own is not None and len(loc) > 2 and loc[2] in self.file.registers[own]:
            item = {**item, "loc": ("registers", own, *loc[2:])}
            yield from _say(ProfileFile, self.where, {"registers": self.file.registers}, item, VARIANT)
        elif is_line or (loc[0] == "identify" and self.file.identify is not None):
            yield from _say(ProfileFile, self.where, merged, item, VARIANT)

    def _sense(self, path: str, text: str) -> Iterator[str]:
        """Of keys that have the right shape and do not go together."""
        found = _REGISTER.fullmatch(path)
        own = self._own(("registers", int(found[1]))) if found else None
        if found and own is not None:
            name = self.file.registers[own]["name"]
            base = f"registers[{self.names.index(name)}]{found[2]}" if name in self.names else ""
            if base not in self.told:
                yield f"{self.where}.registers[{own}]{found[2]}: {text}"
        elif path.startswith("identify") and self.file.identify is not None:
            yield f"{self.where}.{path}: {text}"
        elif not self.told:
            yield f"{self.where}: makes the profile wrong: {path}: {text}"


def _say(model: type[BaseModel], where: str, raw: Any, item: dict[str, Any], dialect: Dialect) -> Iterator[str]:
    refusal = _refusal(item)
    if refusal is None:
        yield say_shape(model, where, raw, item, dialect)
        return
    for key, text in refusal.problems:
        yield f"{_path(item['loc'], raw, key, where) or 'file'}: {text}"


def _path(loc: tuple[Any, ...], raw: Any, key: str, where: str = "") -> str:
    for part in as_written(loc, raw):
        where = add_key(where, part)
    return f"{where}.{key}" if where and key else where or key


def _refusal(item: Mapping[str, Any]) -> TableError | None:
    error = item.get("ctx", {}).get("error")
    return error if isinstance(error, TableError) else None
