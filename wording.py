"""Problems of shape in words: what pydantic and tomllib found, as the author of a TOML file needs it. Pure."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

_SHOWN = 60
_KEY_OF_TABLE = "[key]"  # how pydantic's paths end where a key itself is refused
_KINDS = {
    "string_type": "must be text in quotes",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "finite_number": "must be a finite number",
    "string_too_short": "must not be empty",
    "too_short": "must have at least one entry",
    "model_type": "must be a table",
    "dict_type": "must be a table",
}
_TOML = {
    "Invalid value": 'is not a value: text needs straight quotes, as in name = "..."',
    "Cannot overwrite a value": "has what is there already; where there are several, each begins with [[name]]",
    "Duplicate inline table key": "has a key for the second time in one { }",
    "Cannot declare": "opens a table that is there already; where there are several, each begins with [[name]]",
    "Expected '=' after a key": "must be key = value",
    "Invalid statement": "must be key = value, [table] or # remark",
    "Invalid initial character for a key": "must begin with a key of letters, digits and _",
    "Expected newline or end of document": "has more behind the value: one key = value on each line, remarks behind #",
    "Expected ']": "must end its table's name with ] or ]], as it began",
    "Unclosed array": "stands where a list is still open: close it with ]",
    "Unclosed inline table": "stands where a { is still open: close it with } on the same line",
    "Unterminated string": "comes before the quotes that close a text",
    'Expected "\'"': "opens text that is never closed with a quote",
    "Illegal character '\\n'": "opens text that is not closed with a quote on the same line",
    "Unescaped '\\'": "has a \\ in double quotes: write single quotes, '...', or \\\\",
    "Found invalid character": "has a character that cannot be seen: write the line anew",
    "Illegal character": "has a character that cannot be seen: write the line anew",
    "Invalid date or datetime": "has a date that does not exist",
}


def _nothing(*_: Any) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """What one kind of file says in words of its own.

    Attributes:
        patterns: regular expressions of its fields, and what would be right.
        homes: the tables that know a key, as `[site]` or `[[bus]]`.
        unknown: of an unknown key and the known ones: what to say instead, or "".
        also: keys that a model (by its name) does not have although its tables may.
        right: of a path in a table and pydantic's error: what would be right, or "".
        suggests: whether a value that is no choice is answered with the nearest one.
    """

    patterns: Mapping[str, str] = field(default_factory=dict[str, str])
    homes: Callable[[str], list[str]] = lambda _key: []
    unknown: Callable[[str, list[str]], str] = _nothing
    also: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])
    right: Callable[[tuple[Any, ...], Mapping[str, Any]], str] = _nothing
    suggests: bool = False


def show(value: Any) -> str:
    """`(got …)` as the file's author wrote it, on one line and short."""
    text = _toml(value)
    return f"(got {text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'})"


def show_number(value: float) -> str:
    """As `show`, of a number that was read as a decimal one: 70, not 70.0."""
    return f"(got {value:.12g})"


def suggest(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean …?` when something known is close."""
    close = nearest(wrong, known)
    return f'; did you mean "{close}"?' if close else ""


def nearest(wrong: str, known: Iterable[str]) -> str:
    """What was probably meant, "" when nothing known is close."""
    spelt = {name.lower(): name for name in known}
    close = difflib.get_close_matches(wrong[:_SHOWN].lower(), list(spelt), n=1, cutoff=0.65)
    return spelt[close[0]] if close else ""


def add_key(path: str, key: str | int) -> str:
    """The path one step further: `bus` and 0 and `port` make `bus[0].port`."""
    if isinstance(key, int):
        return f"{path}[{key}]"
    bare = key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)
    return f"{path}.{bare}" if path else bare


def say_toml(error: Exception) -> str:
    """What tomllib refused: `line 7: what is wrong`."""
    text = str(error)
    line = re.search(r"\(at line (\d+), column \d+\)", text)
    where = f"line {line.group(1)}" if line else "end of file"
    right = next((say for begin, say in _TOML.items() if text.startswith(begin)), f"is not TOML: {text}")
    return f"{where}: {right}"


def say_shape(model: type[BaseModel], path: str, raw: Any, item: Mapping[str, Any], dialect: Dialect) -> str:
    """One error of pydantic: `path: what would be right (got value)`.

    Args:
        model: that refused.
        path: of the table in the file; "" is the file itself.
        raw: the table as it stands there.
        item: one of `ValidationError.errors()`.
    """
    loc, kind = as_written(item["loc"], raw), item["type"]
    where = path
    for part in loc:
        where = add_key(where, part)
    if kind == "missing":
        return f"{where}: is required{_wanted(model, path, loc)}"
    if kind == "extra_forbidden":
        return f"{where}: {_unknown_key(model, loc, dialect)}"
    return f"{where}: {_right(model, path, loc, item, dialect)} {show(item['input'])}"


def as_written(loc: tuple[Any, ...], raw: Any) -> tuple[Any, ...]:
    """A path of pydantic as the file has it: `hi = inf` is refused as hi.limit, one table as the first of a list."""
    written: list[Any] = []
    for part in loc:
        if part == _KEY_OF_TABLE or (isinstance(part, int) and isinstance(raw, dict)):
            continue
        written.append(part)
        raw = raw.get(part) if isinstance(raw, dict) else raw[part] if isinstance(raw, list) else None
        if not isinstance(raw, dict | list):
            break
    return tuple(written)


def names_of(model: type[BaseModel]) -> list[str]:
    """The keys of a table as the file has them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _unknown_key(model: type[BaseModel], loc: tuple[Any, ...], dialect: Dialect) -> str:
    key, owner = str(loc[-1]), _owner(model, loc[:-1])
    known = [*names_of(owner), *dialect.also.get(owner.__name__, ())] if owner else []
    if instead := dialect.unknown(key, known):
        return instead
    homes = dialect.homes(key)
    better = suggest(key, known) or (f"; it belongs to {' or '.join(homes)}" if homes else "")
    return f"unknown key{better} (known: {', '.join(known)})"


def _right(model: type[BaseModel], path: str, loc: tuple[Any, ...], item: Mapping[str, Any], dialect: Dialect) -> str:
    kind, context, got = item["type"], item.get("ctx", {}), item["input"]
    if own := dialect.right(loc, item):
        return own
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        return _range(model, loc)
    if kind == "string_pattern_mismatch" and context.get("pattern") in dialect.patterns:
        return dialect.patterns[context["pattern"]]
    if kind == "literal_error":
        one_of = f"must be one of {str(context.get('expected')).replace(chr(39), chr(34)).replace(' or ', ', ')}"
        return one_of + (suggest(got, _choices(model, loc)) if dialect.suggests and isinstance(got, str) else "")
    if kind == "string_too_long":
        return f"must be at most {context.get('max_length')} characters"
    if kind == "list_type":
        return _listed(model, path, loc)
    if kind not in _KINDS:
        return f"is refused: {item.get('msg', kind)}"
    return _KINDS[kind] + (unquoted(got) if kind in ("int_type", "float_type", "bool_type") else "")


def unquoted(got: Any) -> str:
    """A number in quotes is the most frequent mistake."""
    quoted = isinstance(got, str) and re.fullmatch(r"\s*([-+]?[0-9][0-9.]*|true|false)\s*", got)
    return ", without quotes" if quoted else ""


def _choices(model: type[BaseModel], loc: tuple[Any, ...]) -> list[str]:
    field = _field(model, loc)
    return [value for value in _literals(field.annotation) if isinstance(value, str) and value] if field else []


def _literals(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
        return
    for argument in getattr(annotation, "__args__", ()):
        yield from _literals(argument)


def _listed(model: type[BaseModel], path: str, loc: tuple[Any, ...]) -> str:
    field = _field(model, loc)
    entries = _entries(field.annotation) if field is not None else None
    if entries is not None and (get_origin(entries) is dict or _model_in(entries) is not None):
        return f"must be a list of tables: begin each with [[{_header(path, loc)}]]"
    if entries is int or (get_origin(entries) is Annotated and get_args(entries)[0] is int):
        return "must be a list in [ ], such as [1, 2]"
    return 'must be a list in [ ], such as ["one", "two"]'


def _entries(annotation: Any) -> Any:
    """What a list holds, also inside `X | None`."""
    if get_origin(annotation) is list:
        return get_args(annotation)[0]
    return next((found for part in get_args(annotation) if (found := _entries(part)) is not None), None)


def _header(path: str, loc: tuple[Any, ...]) -> str:
    """`mqtt_device[0]` and `point` make `mqtt_device.point`."""
    outer = [re.sub(r"\[\d+\]", "", path)] if path else []
    return ".".join([*outer, *(str(part) for part in loc if not isinstance(part, int))])


def _wanted(model: type[BaseModel], path: str, loc: tuple[Any, ...]) -> str:
    """What a missing key would have to hold, in words."""
    field = _field(model, loc)
    if field is None:
        return ""
    kind = field.annotation
    if get_origin(kind) is Literal:
        return f": one of {', '.join(_toml(value) for value in get_args(kind))}"
    if get_origin(kind) is list:
        return f": add a [[{_header(path, loc)}]] table" if _model_in(kind) else ": a list"
    if get_origin(kind) is dict:
        return ": a table { name = value }"
    numbers = {int: f": a whole number{_span(field)}", float: ": a number", Decimal: ": a number"}
    return {str: ": text in quotes", **numbers}.get(kind, "")


def _span(field: Any) -> str:
    bounds = _bounds(field.annotation, field.metadata)
    low = next((bound.ge for bound in bounds if isinstance(bound, Ge)), None)
    high = next((bound.le for bound in bounds if isinstance(bound, Le)), None)
    return f", {low}..{high}" if low is not None and high is not None else ""


def _range(model: type[BaseModel], loc: tuple[Any, ...]) -> str:
    field = _field(model, loc)
    found: dict[str, Any] = {}
    for bound in _bounds(field.annotation, field.metadata) if field else ():
        for side in ("ge", "gt", "le", "lt"):
            if hasattr(bound, side):
                found[side] = getattr(bound, side)
    if "ge" in found and "le" in found:
        return f"must be {found['ge']}..{found['le']}"
    words = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
    return "must be " + (" and ".join(f"{word} {found[side]}" for side, word in words.items() if side in found))


def _bounds(annotation: Any, metadata: Iterable[Any]) -> list[Any]:
    """The interval of a field: in its own metadata, or inside `X | None`, `list[X]`, `dict[str, X]`."""
    found: list[Any] = []
    for part in (*metadata, *getattr(annotation, "__metadata__", ())):
        inner = getattr(part, "metadata", None)
        found += inner if isinstance(inner, list) else [part]
    for argument in getattr(annotation, "__args__", ()):
        if hasattr(argument, "__metadata__"):
            found += _bounds(argument, ())
    return [part for part in found if isinstance(part, Ge | Le | Gt | Lt)]


def _field(model: type[BaseModel], loc: tuple[Any, ...]) -> Any:
    """The field that a path ends in; an index at its end means the list, a name in a table of names that table."""
    names = [part for part in loc if not isinstance(part, int)]
    for cut in (1, 2):
        owner = _owner(model, tuple(names[:-cut])) if len(names) >= cut else None
        if owner is not None and (found := _named(owner, names[-cut])) is not None:
            return found
    return None


def _named(owner: type[BaseModel], key: Any) -> Any:
    fields = owner.model_fields
    return fields.get(str(key)) or next((one for one in fields.values() if one.alias == str(key)), None)


def _owner(model: type[BaseModel], loc: tuple[Any, ...]) -> type[BaseModel] | None:
    """The model that holds the last key of a path: follows fields through lists, optionals and unions."""
    owner: type[BaseModel] | None = model
    for part in loc:
        if isinstance(part, int) or owner is None:
            continue
        field = _named(owner, part)
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


def _toml(value: Any, depth: int = 0) -> str:
    """A value as TOML writes it; deep inside it only dots."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < 10**_SHOWN else f"{'-' * (value < 0)}0x{abs(value):x}"
    if isinstance(value, Decimal):
        return str(value).lower()
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else str(value).lower()
    if isinstance(value, list | dict) and depth > 2:
        return "..."
    if isinstance(value, list):
        return f"[{', '.join(_toml(entry, depth + 1) for entry in value[:_SHOWN])}]"
    if isinstance(value, dict):
        entries = list(value.items())[:_SHOWN]
        return "{ " + ", ".join(f"{add_key('', key)} = {_toml(entry, depth + 1)}" for key, entry in entries) + " }"
    return str(value)
