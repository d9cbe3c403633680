"""site.toml to a checked document: every problem at once, each with its path, the value and what would be right.

Works offline and touches no device. Shapes are judged here, what refers to what in `checks.py`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from ..sensors.profiles import Catalogue, open_catalogue
from ..serving.people import EVERYWHERE, Person, load_people
from ..toml_file import AS_UTF8, read_toml
from .alert_models import CHANNELS, ROSTER, native
from .baseline_reading import Reference, read_reference
from .models import (
    INNER,
    OPTIONAL,
    REPEATED,
    REQUIRED,
    SINGLE,
    AlarmTable,
    DeviceChannelTable,
    LevelTable,
    MqttPointTable,
    SuppressTable,
    WhenTable,
    inner_table,
)
from .wording import LIMITS, add_key, nearest, say_shape, say_unknown_table, show, suggest


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One table as far as its keys are right: what refers to what is judged although other keys are wrong.

    Attributes:
        index: of a `[[table]]` in the file; 0 of a `[table]`.
        entry: its model, with None for every key in `broken`.
        broken: keys whose value is not known: refused, missing or misspelt; `hi.deadband` inside a limit.
        raw: as it stands in the file.
    """

    index: int
    entry: Any
    broken: frozenset[str]
    raw: Mapping[str, Any]

    @property
    def name(self) -> str | None:
        """The id as it stands in the file, also a malformed one."""
        name = self.raw.get("id")
        return name if isinstance(name, str) else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ids:
    """What references to a `[[table]]` may name.

    Attributes:
        good: well-formed ids, the only ones to propose.
        broken: malformed ids: a reference to one is right as soon as the id is.
        sure: every entry has an id; else an unknown name may be the one that an entry lacks.
    """

    good: tuple[str, ...]
    broken: frozenset[str]
    sure: bool

    def may_be(self, name: str) -> bool:
        """Whether a reference to `name` is right, or nothing can be said of it."""
        return name in self.good or not self.sure or any(name in (bad, _mend(bad)) for bad in self.broken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """site.toml, parsed as far as it could be: what is broken is missing here and named in the problems.

    Attributes:
        single: one model for each `[table]` that is there.
        repeated: for each `[[table]]`, (index in the file, model) of the entries that are well-formed.
        parts: for every table and `[[table]]` in the file its entries, also broken ones.
        text, raw: the file as it stands, and as TOML.
        people: by id; None when people.csv is broken.
        catalogue: device profiles by id, the shipped ones and those of the site.
        revision: of the file's bytes; every record of an alarm carries it.
        reference: headquarters' baseline, where there is one.
        reference_problem: why the baseline that lies there is not used; "" when it is.
    """

    path: Path
    single: Mapping[str, Any]
    repeated: Mapping[str, tuple[tuple[int, Any], ...]]
    parts: Mapping[str, tuple[Part, ...]]
    text: str
    raw: Mapping[str, Any]
    people: Mapping[str, Person] | None
    catalogue: Catalogue
    revision: str
    reference: Reference | None = None
    reference_problem: str = ""

    def entries(self, table: str) -> list[Any]:
        """The well-formed entries of a `[[table]]`."""
        return [model for _, model in self.repeated[table]]

    def ids(self, table: str) -> Ids | None:
        """Ids that a reference may name; None when the table is no list, or is missed already."""
        return _ids(self.raw, table)

    @property
    def people_file(self) -> str:
        """Name of people.csv as site.toml gives it; "" when that table is broken."""
        return self.single["people"].file if self.single["people"] is not None else ""


def read_document(
    path: Path,
    change: Callable[[dict[str, Any]], None] | None = None,
    *,
    data: Path | None = None,
    baseline: Path | None = None,
) -> tuple[Document, list[str]]:
    """Read site.toml and what it names.

    Args:
        path: of the file.
        data: folder with the baseline in force.
        baseline: a file that is tried instead.
        change: is given what the file holds, and may change it before it is checked.

    Returns:
        The document and the problems of shape; what refers to what is for `checks.find_problems`.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    file = read_toml(path, example="site.toml", missing="a first one: copy config/site.toml and edit it")
    raw = file.raw
    if change is not None:
        change(raw)
    problems: list[str] = []
    reference, reference_problem = read_reference(data, baseline)
    single = {name: _single(name, raw, problems) for name in SINGLE}
    repeated = {name: _repeated(name, raw, problems) for name in REPEATED}
    problems += [say_unknown_table(name, raw[name]) for name in raw if name not in SINGLE and name not in REPEATED]
    document = Document(
        path=path,
        single=single,
        repeated=repeated,
        parts={name: _parts(name, raw) for name in (*SINGLE, *REPEATED)},
        text=file.text,
        raw=raw,
        people=_people(path, single, raw, problems),
        catalogue=_catalogue(path, single, problems),
        revision=hashlib.sha256(file.data + (reference.digest if reference else "").encode()).hexdigest()[:12],
        reference=reference,
        reference_problem=reference_problem,
    )
    return document, problems


def _single(name: str, raw: Mapping[str, Any], problems: list[str]) -> Any:
    value = raw.get(name)
    if value is None:
        if name in REQUIRED:
            problems.append(f"{name}: is required: add a [{name}] table")
            return None
        return None if name in OPTIONAL else SINGLE[name]()
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
    found = [(i, _validate(_model(name, entry), entry, add_key(name, i), problems)) for i, entry in enumerate(value)]
    return tuple((i, model) for i, model in found if model is not None)


def _model(name: str, entry: Any) -> type[BaseModel]:
    """Of an entry of a `[[table]]`: a channel has the keys of its kind."""
    kind = entry.get("kind") if name == "channel" and isinstance(entry, dict) else None
    return CHANNELS.get(kind, REPEATED[name]) if isinstance(kind, str) else REPEATED[name]


def _validate(model: type[BaseModel], value: Any, path: str, problems: list[str]) -> Any:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems.extend(say_shape(model, path, value, dict(item)) for item in error.errors(include_url=False))
        return None


# --- entries that are broken in shape ---


def _parts(name: str, raw: Mapping[str, Any]) -> tuple[Part, ...]:
    value = raw.get(name, [])
    entries = value if isinstance(value, list) else [value]
    return tuple(
        _part(SINGLE.get(name) or _model(name, entry), i, entry)
        for i, entry in enumerate(entries)
        if isinstance(entry, dict)
    )


def split_points(device: Part) -> tuple[Part, ...]:
    """The `[[mqtt_device.point]]` tables of a device."""
    value = device.raw.get("point", [])
    entries = value if isinstance(value, list) else []
    return tuple(_part(MqttPointTable, j, entry) for j, entry in enumerate(entries) if isinstance(entry, dict))


def split_channels(device: Part) -> tuple[Part, ...]:
    """The `[[device.channel]]` tables of a device."""
    value = device.raw.get("channel", [])
    entries = value if isinstance(value, list) else []
    return tuple(_part(DeviceChannelTable, j, entry) for j, entry in enumerate(entries) if isinstance(entry, dict))


def _part(model: type[BaseModel], index: int, raw: dict[str, Any]) -> Part:
    try:
        return Part(index=index, entry=model.model_validate(raw), broken=frozenset(), raw=raw)
    except ValidationError as error:
        broken = {_broken_key(item["loc"], raw) for item in error.errors(include_url=False)}
    fields = model.model_fields
    broken |= {nearest(key, fields) for key in raw if key not in fields}
    values: dict[str, Any] = {}
    for key, field in fields.items():
        if key in broken or (key not in raw and field.is_required()):
            values[key] = None
        elif key not in raw:
            values[key] = field.get_default(call_default_factory=True)
        else:
            values[key] = _meant(model, key, raw[key])
    entry = model.model_construct(set(raw) & set(fields) - broken, **values)
    return Part(index=index, entry=entry, broken=frozenset(broken), raw=raw)


def _meant(model: type[BaseModel], key: str, value: Any) -> Any:
    """A value as the model makes it."""
    if model is AlarmTable:
        return _level(value) if key in LIMITS else inner_table(key, value) if key in INNER else value
    if model is SuppressTable and key == "when":
        return WhenTable.model_validate(value)
    return native(value) if model in ROSTER else value


def _broken_key(loc: tuple[int | str, ...], raw: Mapping[str, Any]) -> str:
    """`hi.deadband` where the limit itself can be used, else the key of the table."""
    key = str(loc[0]) if loc else ""
    if key not in LIMITS or len(loc) < 2 or loc[1] == "limit" or not isinstance(raw.get(key), dict):
        return key
    inner = str(loc[1])
    return f"{key}.{inner if inner in LevelTable.model_fields else nearest(inner, LevelTable.model_fields)}"


def _level(raw: Any) -> LevelTable:
    """A limit whose number is right; what is wrong beside it counts as not given."""
    if not isinstance(raw, dict):
        return LevelTable(limit=raw)
    part = _part(LevelTable, 0, raw)
    return part.entry


def _ids(raw: Mapping[str, Any], table: str) -> Ids | None:
    entries = raw.get(table, [])
    if not isinstance(entries, list) or (not entries and table in REQUIRED):
        return None
    parts = _parts(table, raw)
    good = tuple(part.entry.id for part in parts if part.entry.id is not None)
    broken = frozenset(part.name for part in parts if part.entry.id is None and part.name is not None)
    sure = len(parts) == len(entries) and all(part.name is not None for part in parts)
    return Ids(good=good, broken=broken, sure=sure)


def _mend(name: str) -> str:
    """A malformed id as its author will write it: `Store 1` as store_1."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


# --- profiles of the site ---


def _catalogue(path: Path, single: Mapping[str, Any], problems: list[str]) -> Catalogue:
    name = single["profiles"].folder if single["profiles"] is not None else ""
    if not name:
        return open_catalogue()[0]
    folder = path.parent / name
    if not folder.is_dir():
        problems.append(f"profiles.folder: must be a folder with *.toml profiles, relative to site.toml {show(name)}")
        return open_catalogue()[0]
    catalogue, found = open_catalogue(folder)
    problems += [f"{name.rstrip('/')}/{problem}" for problem in found]
    return catalogue


# --- people ---


def _people(
    path: Path, single: Mapping[str, Any], raw: Mapping[str, Any], problems: list[str]
) -> Mapping[str, Person] | None:
    if single["people"] is None:
        return None
    name = single["people"].file
    areas = _ids(raw, "area")

    def judge(area: str) -> str:
        if areas is None or area == EVERYWHERE or areas.may_be(area):
            return ""
        return f"must name an [[area]], or *{suggest(area, areas.good)} {show(area)}"

    try:
        return load_people(path.parent / name, judge)
    except ConfigError as error:
        if isinstance(error.__cause__, UnicodeDecodeError):
            problems.append(f"{name}: must be UTF-8 text: {AS_UTF8}; a spreadsheet calls it CSV UTF-8")
            return None
        problems += [_people_problem(name, problem) for problem in error.problems]
    return _people_as_meant(path.parent / name, judge)


def _people_as_meant(path: Path, judge: Callable[[str], str]) -> Mapping[str, Person] | None:
    """The persons when nothing but areas is wrong; who names an unknown one may be meant for any."""
    try:
        people = load_people(path)
    except ConfigError:
        return None
    unsure = {person.id for person in people.values() if any(map(judge, person.areas))}
    return {name: replace(person, areas=(EVERYWHERE,)) if name in unsure else person for name, person in people.items()}


def _people_problem(name: str, problem: str) -> str:
    """Of a line of people.csv, or of the file as a whole: then the key that names it is the place to look."""
    return f"{name}: {problem}" if problem.startswith("line ") else f"people.file: {problem} {show(name)}"
