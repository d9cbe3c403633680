"""site.toml to Site: every problem at once, each with its path, the value and what would be right.

Works offline and touches no device: `sitewarden check FILE` is this module and nothing else.
"""

from __future__ import annotations

import difflib
import hashlib
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from ..sensors.profiles import Profile, load_catalogue
from ..serving.people import Person, load_people
from .models import REPEATED, REQUIRED, SINGLE

_SECRET_KEYS = ("password", "token", "secret", "pin", "key")
_KINDS = {
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "model_type": "must be a table",
    "finite_number": "must be a finite number",
    "string_too_short": "must not be empty",
    "too_short": "must have at least one entry",
}
_PATTERNS = {
    "^[a-z][a-z0-9_]*$": "must be lower-case letters, digits and _, beginning with a letter",
    r"^[a-z0-9_]+\.[a-z0-9_]+\.[a-z0-9_]+$": "must be area.device.name",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """site.toml, parsed as far as it could be: what is broken is missing here and named in the problems.

    Attributes:
        single: one model for each `[table]` that is there.
        repeated: for each `[[table]]`, (index in the file, model) of the entries that are well-formed.
        raw: the TOML as it stands.
        people: by id; empty when people.csv is broken.
        catalogue: device profiles by id.
        revision: of the file's bytes; every record of an alarm carries it.
    """

    path: Path
    single: Mapping[str, Any]
    repeated: Mapping[str, tuple[tuple[int, Any], ...]]
    raw: Mapping[str, Any]
    people: Mapping[str, Person]
    catalogue: Mapping[str, Profile]
    revision: str

    def entries(self, table: str) -> list[Any]:
        """The well-formed entries of a `[[table]]`."""
        return [model for _, model in self.repeated[table]]


def read_document(path: Path) -> tuple[Document, list[str]]:
    """Read site.toml and what it names.

    Returns:
        The document and the problems of shape; what refers to what is for `rules_of_site`.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    data = _read(path)
    try:
        raw = tomllib.loads(data.decode())
    except UnicodeDecodeError as error:
        raise ConfigError(str(path), [f"byte {error.start}: must be UTF-8 text; save the file as UTF-8"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(str(path), [f"is not TOML: {error}"]) from error
    problems: list[str] = []
    single = {name: _single(name, raw, problems) for name in SINGLE}
    repeated = {name: _repeated(name, raw, problems) for name in REPEATED}
    problems += _unknown_tables(raw)
    document = Document(
        path=path,
        single=single,
        repeated=repeated,
        raw=raw,
        people=_people(path, single, problems),
        catalogue=load_catalogue(),
        revision=hashlib.sha256(data).hexdigest()[:12],
    )
    return document, problems


def show(value: Any) -> str:
    """`(got …)` as the file's author wrote it, short."""
    text = f'"{value}"' if isinstance(value, str) else str(value).replace("True", "true").replace("False", "false")
    return f"(got {text if len(text) <= 60 else text[:57] + '...'})"


def suggest(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean …?` when something known is close."""
    close = difflib.get_close_matches(wrong, list(known), n=1, cutoff=0.6)
    return f'; did you mean "{close[0]}"?' if close else ""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ConfigError(str(path), ["file is missing: copy config/site.toml and edit it"]) from None
    except OSError as error:
        raise ConfigError(str(path), [f"cannot be read: {error.strerror}"]) from error


def _single(name: str, raw: Mapping[str, Any], problems: list[str]) -> Any:
    value = raw.get(name)
    if value is None:
        if name in REQUIRED:
            problems.append(f"{name}: is required: add a [{name}] table")
            return None
        return None if name in ("mqtt", "cloud") else SINGLE[name]()
    if isinstance(value, list):
        problems.append(f"{name}: must be one table: write [{name}] instead of [[{name}]]")
        return None
    return _validate(SINGLE[name], value, name, problems)


def _repeated(name: str, raw: Mapping[str, Any], problems: list[str]) -> tuple[tuple[int, Any], ...]:
    value = raw.get(name, [])
    if not isinstance(value, list):
        problems.append(f"{name}: must be a list of tables: write [[{name}]] instead of [{name}]")
        return ()
    found = [(i, _validate(REPEATED[name], entry, f"{name}[{i}]", problems)) for i, entry in enumerate(value)]
    return tuple((i, model) for i, model in found if model is not None)


def _unknown_tables(raw: Mapping[str, Any]) -> list[str]:
    known = [*SINGLE, *REPEATED]
    return [f"{name}: unknown table{suggest(name, known)}" for name in raw if name not in known]


def _people(path: Path, single: Mapping[str, Any], problems: list[str]) -> dict[str, Person]:
    if single["people"] is None:
        return {}
    file = path.parent / single["people"].file
    try:
        return load_people(file)
    except ConfigError as error:
        problems += [f"{file.name}: {problem}" for problem in error.problems]
        return {}


def _validate(model: type[BaseModel], value: Any, path: str, problems: list[str]) -> Any:
    try:
        return model.model_validate(value)
    except ValidationError as error:
        problems.extend(_say(model, path, dict(item)) for item in error.errors(include_url=False))
        return None


def _say(model: type[BaseModel], path: str, item: Mapping[str, Any]) -> str:
    loc = item["loc"]
    where = path + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc)
    kind, context, got = item["type"], item.get("ctx", {}), item["input"]
    if kind == "missing":
        return f"{where}: is required"
    if kind == "extra_forbidden":
        return f"{where}: {_unknown_key(model, loc)}"
    return f"{where}: {_right(model, loc, kind, context)} {show(got)}"


def _unknown_key(model: type[BaseModel], loc: tuple[Any, ...]) -> str:
    key = str(loc[-1])
    owner = _owner(model, loc[:-1])
    known = list(owner.model_fields) if owner else []
    if key in _SECRET_KEYS:
        return "secrets never stand in site.toml: put it into a file that only the gateway can read and name that file"
    return f"unknown key{suggest(key, known)} (known: {', '.join(known)})"


def _right(model: type[BaseModel], loc: tuple[Any, ...], kind: str, context: Mapping[str, Any]) -> str:
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        return _range(model, loc, context)
    if kind == "string_pattern_mismatch":
        return _PATTERNS[context["pattern"]]
    if kind == "literal_error":
        return f"must be one of {context['expected'].replace(chr(39), chr(34)).replace(' or ', ', ')}"
    if kind == "string_too_long":
        return f"must be at most {context['max_length']} characters"
    if kind == "model_type" and loc and loc[-1] in ("lolo", "lo", "hi", "hihi"):
        return "must be a number, or a table such as { limit = 75.0, priority = 2 }"
    return _KINDS[kind]


def _range(model: type[BaseModel], loc: tuple[Any, ...], context: Mapping[str, Any]) -> str:
    owner = _owner(model, loc[:-1])
    field = owner.model_fields.get(str(loc[-1])) if owner else None
    low = high = None
    for bound in _bounds(field.annotation, field.metadata) if field else ():
        low = bound.ge if isinstance(bound, Ge) else low
        high = bound.le if isinstance(bound, Le) else high
        if isinstance(bound, Gt) and str(bound.gt) == "0":
            return "must be more than 0" + (f" and at most {context['le']}" if "le" in context else "")
    if low is not None and high is not None:
        return f"must be {low}..{high}"
    return f"must be {low} or more" if low is not None else f"must be {high} or less"


def _bounds(annotation: Any, metadata: Iterable[Any]) -> list[Any]:
    """The interval of a field: in its own metadata, or inside `X | None`."""
    found: list[Any] = []
    for part in (*metadata, *getattr(annotation, "__metadata__", ())):
        inner = getattr(part, "metadata", None)
        found += inner if isinstance(inner, list) else [part]
    for argument in getattr(annotation, "__args__", ()):
        if hasattr(argument, "__metadata__"):
            found += _bounds(argument, ())
    return [part for part in found if isinstance(part, Ge | Le | Gt | Lt)]


def _owner(model: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model that holds the last key of a path: follows fields through lists, optionals and unions."""
    owner: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int) or owner is None:
            continue
        field = owner.model_fields.get(str(part))
        owner = _model_in(field.annotation) if field else None
    return owner


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
