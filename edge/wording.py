"""Problems of shape in words: what pydantic and tomllib found, as the author of site.toml needs it. Pure."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel

from . import models

_SHOWN = 60
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "token", "secret", "pin", "pins", "key", "apikey", "credentials"}
)
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
}
_PATTERNS = {
    models.NAME: "must be lower-case letters, digits and _, beginning with a letter",
    models.VISIBLE: "must be text that can be seen, on one line",
    models.LINE: "must be text on one line",
}
LIMITS = ("lolo", "lo", "hi", "hihi")
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


def show(value: Any) -> str:
    """`(got …)` as the file's author wrote it, on one line and short."""
    text = _toml(value)
    return f"(got {text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'})"


def show_number(value: float) -> str:
    """As `show`, of a number that was read as a decimal one: 70, not 70.0."""
    return f"(got {value:.12g})"


def show_url(url: str) -> str:
    """As `show`, without what may be secret in an address: user, password and query."""
    bare = re.sub(r"//[^/]*@", "//...@", url)
    return show(re.sub(r"\?.*", "?...", bare, flags=re.DOTALL))


def suggest(wrong: str, known: Iterable[str]) -> str:
    """`; did you mean …?` when something known is close."""
    close = nearest(wrong, known)
    return f'; did you mean "{close}"?' if close else ""


def nearest(wrong: str, known: Iterable[str]) -> str:
    """What was probably meant, "" when nothing known is close."""
    return next(iter(difflib.get_close_matches(wrong[:_SHOWN].lower(), list(known), n=1, cutoff=0.65)), "")


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


def say_shape(model: type[BaseModel], path: str, raw: Any, item: Mapping[str, Any]) -> str:
    """One error of pydantic: `path: what would be right (got value)`.

    Args:
        model: that refused.
        path: of the table in the file.
        raw: the table as it stands there.
        item: one of `ValidationError.errors()`.
    """
    loc, kind = _as_written(item["loc"], raw), item["type"]
    where = path
    for part in loc:
        where = add_key(where, part)
    if kind == "missing":
        return f"{where}: is required{_wanted(model, path, loc)}"
    if kind == "extra_forbidden":
        return f"{where}: {_unknown_key(model, loc)}"
    return f"{where}: {_right(model, path, loc, item)} {show(item['input'])}"


def say_unknown_table(name: str, value: Any) -> str:
    """A name at the top of the file that means nothing."""
    known = [*models.SINGLE, *models.REPEATED]
    is_table = isinstance(value, dict) or (isinstance(value, list) and any(isinstance(v, dict) for v in value))
    path = add_key("", name)
    if is_table:
        return f"{path}: unknown table{suggest(name, known)} (known: {', '.join(known)})"
    if _is_secret(name, ()):
        return f"{path}: {_no_secrets(())}"
    homes = _homes(name)
    return f"{path}: stands in no table: write it under {' or '.join(homes) if homes else 'the [table] it belongs to'}"


def _as_written(loc: tuple[Any, ...], raw: Any) -> tuple[Any, ...]:
    """`hi = inf` is refused as hi.limit: the path ends where the file does."""
    for i, part in enumerate(loc[:-1]):
        raw = raw.get(part) if isinstance(raw, dict) else raw[part] if isinstance(raw, list) else None
        if not isinstance(raw, dict | list):
            return loc[: i + 1]
    return loc


def _unknown_key(model: type[BaseModel], loc: tuple[Any, ...]) -> str:
    key, owner = str(loc[-1]), _owner(model, loc[:-1])
    known = list(owner.model_fields) if owner else []
    if _is_secret(key, known):
        return _no_secrets(known)
    homes = _homes(key)
    better = suggest(key, known) or (f"; it belongs to {' or '.join(homes)}" if homes else "")
    return f"unknown key{better} (known: {', '.join(known)})"


def _is_secret(key: str, known: Iterable[str]) -> bool:
    misspelt = difflib.get_close_matches(key, list(known), n=1, cutoff=0.85)
    return not misspelt and not _SECRET_WORDS.isdisjoint(re.split(r"[^a-z]+", key.lower()))


def _no_secrets(known: Iterable[str]) -> str:
    files = [name for name in known if name in ("password_file", "url_file")]
    where = f": write it into a file that only the gateway can read, and name that file in {files[0]}" if files else ""
    return f"secrets never stand in site.toml{where or ': take it out'}"


def _homes(key: str) -> list[str]:
    """The tables that know a key."""
    single = [f"[{name}]" for name, model in models.SINGLE.items() if key in model.model_fields]
    return single + [f"[[{name}]]" for name, model in models.REPEATED.items() if key in model.model_fields]


def _right(model: type[BaseModel], path: str, loc: tuple[Any, ...], item: Mapping[str, Any]) -> str:
    kind, context, got = item["type"], item.get("ctx", {}), item["input"]
    key = loc[-1] if loc else ""
    if kind in ("greater_than_equal", "less_than_equal", "greater_than", "less_than"):
        return _range(model, loc)
    if kind == "string_pattern_mismatch" and context.get("pattern") in _PATTERNS:
        return _PATTERNS[context["pattern"]]
    if kind == "literal_error":
        return f"must be one of {str(context.get('expected')).replace(chr(39), chr(34)).replace(' or ', ', ')}"
    if kind == "string_too_long":
        return f"must be at most {context.get('max_length')} characters"
    if kind == "model_type" and key in LIMITS:
        return f"must be a number{_unquoted(got)}, or a table such as {{ limit = 75.0, priority = 2 }}"
    if kind == "list_type":
        return _listed(model, path, loc)
    if kind not in _KINDS:
        return f"is refused: {item.get('msg', kind)}"
    return _KINDS[kind] + (_unquoted(got) if kind in ("int_type", "float_type", "bool_type") else "")


def _unquoted(got: Any) -> str:
    """A number in quotes is the most frequent mistake."""
    quoted = isinstance(got, str) and re.fullmatch(r"\s*([-+]?[0-9][0-9.]*|true|false)\s*", got)
    return ", without quotes" if quoted else ""


def _listed(model: type[BaseModel], path: str, loc: tuple[Any, ...]) -> str:
    field = _field(model, loc)
    if field is not None and _model_in(field.annotation) is not None:
        return f"must be a list of tables: begin each with [[{_header(path, loc)}]]"
    return 'must be a list in [ ], such as ["one", "two"]'


def _header(path: str, loc: tuple[Any, ...]) -> str:
    """`mqtt_device[0]` and `point` make `mqtt_device.point`."""
    return ".".join([re.sub(r"\[\d+\]", "", path), *(str(part) for part in loc if not isinstance(part, int))])


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
    return {str: ": text in quotes", int: f": a whole number{_span(field)}", float: ": a number"}.get(kind, "")


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
    """The interval of a field: in its own metadata, or inside `X | None`."""
    found: list[Any] = []
    for part in (*metadata, *getattr(annotation, "__metadata__", ())):
        inner = getattr(part, "metadata", None)
        found += inner if isinstance(inner, list) else [part]
    for argument in getattr(annotation, "__args__", ()):
        if hasattr(argument, "__metadata__"):
            found += _bounds(argument, ())
    return [part for part in found if isinstance(part, Ge | Le | Gt | Lt)]


def _field(model: type[BaseModel], loc: tuple[Any, ...]) -> Any:
    """The field that a path ends in; an index at its end means the list."""
    names = [part for part in loc if not isinstance(part, int)]
    owner = _owner(model, tuple(names[:-1])) if names else None
    return owner.model_fields.get(str(names[-1])) if owner else None


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


def _toml(value: Any, depth: int = 0) -> str:
    """A value as TOML writes it; deep inside it only dots."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value) if abs(value) < 10**_SHOWN else f"{'-' * (value < 0)}0x{abs(value):x}"
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
