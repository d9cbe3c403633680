"""What goes into a robot's message: marks, cuts by bytes, phone numbers. Pure."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any

from ..port import Notice, Receiver

_IS_TEST = re.compile(r"[【\[(（](测试|演练|test)[】\])）]", re.IGNORECASE)  # a plant may have a 测试间
_IS_RESENT = re.compile(r"[【\[(（](重发|resent)[】\])）]", re.IGNORECASE)
HEAD = 70
"""So many characters say what, where and what to do; they are never cut."""

_DRAWN_MOST = 16
_MENTIONED_MOST = 50  # room for the text itself, however many a plant has

Size = Callable[[str], int]


def utf8(text: str) -> int:
    """Bytes of a text."""
    return len(text.encode())


def as_json(body: Mapping[str, Any]) -> bytes:
    """A body as it is sent."""
    return json.dumps(body, ensure_ascii=False).encode("utf-8", "replace")


def in_json(text: str) -> int:
    """Bytes of a text inside a JSON body, without the quotes."""
    return len(json.dumps(text, ensure_ascii=False).encode()) - 2


def clean(text: str) -> str:
    """The text without what is no character: halves of surrogate pairs and control characters; lines stay."""
    return "".join(" " if char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs") else char for char in text)


def words_of(notice: Notice) -> str:
    """The whole message, marked."""
    return marked(notice.text, notice)


def marked(text: str, notice: Notice) -> str:
    """A text of a notice, marked as a test or as sent again where its beginning does not say so itself."""
    text, zh = clean(text), notice.to.lang != "en"
    head = text[:HEAD]
    if notice.resent and not _IS_RESENT.search(head):
        text = ("（重发）" if zh else "(resent) ") + text
    if notice.is_test and not _IS_TEST.search(head):
        text = ("【测试】" if zh else "[TEST] ") + text
    return text


def fit(text: str, limit: int, lang: str, size: Size = utf8) -> str:
    """The text within `limit` bytes, cut between two characters and ended visibly where it is longer."""
    if size(text[: limit + 1]) <= limit:  # a character is at least a byte
        return text
    end = _end(text, lang)
    room, kept = limit - size(end), 0
    for at, char in enumerate(text):
        kept += size(char)
        if kept > room:
            return text[: _whole(text, at)].rstrip() + end
    raise AssertionError("a text that is too long fits")


def fit_with(text: str, limit: int, lang: str, *, end: str = "", keyword: str = "", size: Size = utf8) -> str:
    """As `fit`, with `end` behind it, and the keyword where it would not hold it."""
    whole = fit(text, limit - size(end), lang, size) + end
    if keyword in whole:
        return whole
    return fit(text, limit - size(f"{end} {keyword}"), lang, size) + f"{end} {keyword}"


def _end(text: str, lang: str) -> str:
    lines = text.count("\n") + 1
    if lang == "en":
        return f"… ({lines} lines in all: see the screen)" if lines > 1 else "… (more on the screen)"
    return f"…（共{lines}行，见大屏）" if lines > 1 else "…（未完，见大屏）"


def _whole(text: str, at: int) -> int:
    """Not between a character and what is drawn onto it."""
    least = max(HEAD, at - _DRAWN_MOST)
    while at > least and (unicodedata.combining(text[at]) or text[at] in "\u200d\ufe0f" or text[at - 1] == "\u200d"):
        at -= 1
    return at


def mentioned(notice: Notice) -> tuple[Receiver, ...]:
    """Everybody whom a message to a group is for, each once; of another one its receiver."""
    return tuple(dict.fromkeys(notice.mentions or (notice.to,)))[:_MENTIONED_MOST]


def phones_of(notice: Notice) -> list[str]:
    """National numbers of those who are mentioned, each once; who has none is left out."""
    return list(dict.fromkeys(phone for person in mentioned(notice) if (phone := national(person.phone))))


def national(phone: str) -> str:
    """The number as the chat systems know it: +86 138 0000 0000 is 13800000000; foreign ones with their country."""
    digits = re.sub(r"\D", "", phone).removeprefix("00")
    return digits[2:] if len(digits) == 13 and digits.startswith("86") else digits
