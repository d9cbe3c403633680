"""What site.toml says in words of its own, beside what every TOML file has in common (`sitewarden.wording`). Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from .. import wording
from ..wording import Dialect, add_key, nearest, say_toml, show, show_number, suggest, unquoted
from . import alert_models, model_base, models

__all__ = [
    "LIMITS",
    "add_key",
    "nearest",
    "say_shape",
    "say_toml",
    "say_unknown_table",
    "show",
    "show_number",
    "show_url",
    "suggest",
]

LIMITS = ("lolo", "lo", "hi", "hihi")
_SECRET_WORDS = frozenset(
    {"password", "passwd", "passphrase", "pwd", "token", "secret", "pin", "pins", "key", "apikey", "credentials"}
)
_SECRET_FILES = (
    "password_file",
    "url_file",
    "key_file",
    "secret_file",
    "pin_file",
    "proxy_login_file",
    "metrics_token_file",
)
_PATTERNS = {
    model_base.NAME: "must be lower-case letters, digits and _, beginning with a letter",
    model_base.VISIBLE: "must be text that can be seen, on one line",
    model_base.LINE: "must be text on one line",
    alert_models.CLOCK: 'must be a time of day such as "08:00"',
    alert_models.DATE: 'must be a date such as "2026-10-01", or empty',
    alert_models.MOMENT: 'must be a date, or a date and a time, such as "2026-10-01 08:00", by the clock of the site',
    alert_models.WEEKLY: 'must be a day and a time such as "mon 10:00", or empty',
}


def show_url(url: str) -> str:
    """As `show`, without what may be secret in an address: user, password and query."""
    bare = re.sub(r"//[^/]*@", "//...@", url)
    return show(re.sub(r"\?.*", "?...", bare, flags=re.DOTALL))


def say_shape(model: type[BaseModel], path: str, raw: Any, item: Mapping[str, Any]) -> str:
    """One error of pydantic: `path: what would be right (got value)`.

    Args:
        model: that refused.
        path: of the table in the file.
        raw: the table as it stands there.
        item: one of `ValidationError.errors()`.
    """
    kind = raw.get("kind") if model in alert_models.CHANNELS.values() else None
    return wording.say_shape(model, path, raw, item, _SITE if kind is None else _channel(str(kind)))


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


def _secret_key(key: str, known: list[str]) -> str:
    return _no_secrets(known) if _is_secret(key, known) else ""


def _is_secret(key: str, known: Iterable[str]) -> bool:
    misspelt = difflib.get_close_matches(key, list(known), n=1, cutoff=0.85)
    return not misspelt and not _SECRET_WORDS.isdisjoint(re.split(r"[^a-z]+", key.lower()))


def _no_secrets(known: Iterable[str]) -> str:
    files = [name for name in known if name in _SECRET_FILES]
    where = f": write it into a file that only the gateway can read, and name that file in {files[0]}" if files else ""
    return f"secrets never stand in site.toml{where or ': take it out'}"


def _channel(kind: str) -> Dialect:
    """What a key is that belongs to channels of other kinds."""

    def unknown(key: str, known: list[str]) -> str:
        own = f"{key}_file"
        if own in known and own in _SECRET_FILES:
            return _no_secrets([own])
        kinds = [f'"{name}"' for name, model in alert_models.CHANNELS.items() if key in model.model_fields]
        if kinds:
            return f'does not belong to kind "{kind}" but to {" or ".join(kinds)}: take it out'
        return _secret_key(key, known)

    return replace(_SITE, unknown=unknown)


def _homes(key: str) -> list[str]:
    """The tables that know a key."""
    single = [f"[{name}]" for name, model in models.SINGLE.items() if key in model.model_fields]
    return single + [f"[[{name}]]" for name, model in models.REPEATED.items() if key in model.model_fields]


def _limit(loc: tuple[Any, ...], item: Mapping[str, Any]) -> str:
    """A limit is a number, or a table."""
    if item["type"] == "model_type" and loc and loc[-1] in LIMITS:
        return f"must be a number{unquoted(item['input'])}, or a table such as {{ limit = 75.0, priority = 2 }}"
    if item["type"] == "model_type" and loc and loc[-1] in ("roc", "comm_loss"):
        return f"must be a number{unquoted(item['input'])}, or a table such as {{ limit = 2.0 }}"
    return ""


_SITE = Dialect(patterns=_PATTERNS, homes=_homes, unknown=_secret_key, right=_limit)
