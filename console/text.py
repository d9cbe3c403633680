"""Text in a terminal, where a Chinese character takes two columns: widths, tables, wrapping. Pure but for `to_json`."""

from __future__ import annotations

import difflib
import json
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence

_WIDE = r"\u1100-\uffdc"
_PIECE = re.compile(rf"\s+|[（“《]*(?:[{_WIDE}]|[^\s{_WIDE}]+)[，。：；、）！？”》]*")
"""What stays together on a line: one Chinese character, or a word, with the stops around it."""


def width(text: str) -> int:
    """Columns that it takes in a terminal: two for a Chinese character."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text if not unicodedata.combining(c))


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """`text` filled up with spaces to `columns` of a terminal."""
    space = " " * max(0, columns - width(text))
    return space + text if right else text + space


def cut(text: str, columns: int) -> str:
    """As much of its beginning as fits."""
    while width(text) > columns:
        text = text[:-1]
    return text


def table(rows: Sequence[Sequence[str]], *, right: str = "", indent: int = 2) -> Iterator[str]:
    """Lines with aligned columns; `right` has an `r` at the place of each column that is aligned right."""
    widths = [max(width(cell) for cell in column) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (pad(c, w, right=right[i : i + 1] == "r") for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        yield (" " * indent + "  ".join(cells)).rstrip()


def wrap(text: str, columns: int) -> list[str]:
    """Lines of at most `columns`, broken at spaces and between Chinese characters; a longer word stays whole."""
    lines = [""]
    for piece in _PIECE.findall(text):
        if lines[-1] and width(lines[-1] + piece.rstrip()) > columns:
            lines.append("")
        lines[-1] += piece if lines[-1] else piece.lstrip()
    return [line.rstrip() for line in lines]


def nearest(wrong: str, known: Iterable[str]) -> str:
    """The name that was probably meant: its last part alone, or a slip of the pen; "" when nothing is close."""
    names = list(known)
    front, dot, end = wrong.rpartition(".")
    same_end = [name for name in names if name.rpartition(".")[2] == end]
    if len(same_end) == 1:
        return same_end[0]
    siblings = [name for name in names if dot and name.startswith(f"{front}.")]
    spelt = {name[len(front) + 1 if siblings else 0 :].lower(): name for name in siblings or names}
    close = difflib.get_close_matches((end if siblings else wrong)[:60].lower(), list(spelt), n=1, cutoff=0.6)
    return spelt[close[0]] if close else ""


def to_json(value: object, indent: int | None = None) -> str:
    """JSON for the standard output; pure ASCII where that is not UTF-8, whose replaced characters would break it."""
    is_utf8 = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "") == "utf8"
    return json.dumps(value, ensure_ascii=not is_utf8, indent=indent)
