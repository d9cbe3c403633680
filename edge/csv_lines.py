"""Lines of CSV that a spreadsheet opens as it should: Chinese included, and no cell that it would compute. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

BOM = "\ufeff"
"""Without it Excel reads UTF-8 as the code page of the computer."""
_COMPUTED = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""The wide ones are typed with a Chinese keyboard; spreadsheets of some languages take them for the narrow ones."""


def cell(value: object) -> object:
    """A text that a spreadsheet would take for a formula gets an apostrophe; numbers stay numbers."""
    if isinstance(value, str) and value.lstrip(" \xa0\u3000").startswith(_COMPUTED):
        return f"'{value}"
    return value


def lines(rows: Iterable[Sequence[object]]) -> bytes:
    """Rows as UTF-8 with CRLF (RFC 4180)."""
    text = io.StringIO()
    csv.writer(text).writerows([cell(value) for value in row] for row in rows)
    return text.getvalue().encode()
