"""Where in site.toml a problem stands, and whose it is, for people. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .. import toml_file
from ..toml_file import entry_at

_ENTRY = re.compile(r"([a-z_]+)\[(\d+)\](?:\.point\[(\d+)\])?")


def place(problems: Iterable[str], raw: Mapping[str, Any], text: str, *, elsewhere: str = "") -> list[str]:
    """Each problem with whose it is and where it stands, `… [device "th1", line 48]`, in the order of the file.

    Args:
        problems: each begins with its path and a colon; one that stands nowhere in the file comes last.
        raw: the file as parsed.
        text: the file.
        elsewhere: name of another file; what begins with it does not stand here.
    """
    return toml_file.place(problems, text, lambda path: _whose(path, raw), elsewhere=elsewhere)


def _whose(path: str, raw: Mapping[str, Any]) -> Iterable[str]:
    """Ids beside the indexes, where there are any."""
    entry = _ENTRY.match(path)
    if entry is None:
        return
    table, index, inner = entry.group(1), int(entry.group(2)), entry.group(3)
    found = entry_at(raw.get(table), index)
    name = found.get("point" if table == "alarm" else "id")
    if isinstance(name, str) and name.isprintable():
        yield f'{table} "{name}"'
    if inner is not None:
        name = entry_at(found.get("point"), int(inner)).get("name")
        if isinstance(name, str) and name.isprintable():
            yield f'point "{name}"'
