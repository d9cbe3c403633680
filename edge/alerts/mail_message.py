"""A notice as an e-mail (RFC 5322). It is ASCII through and through: no server on its way needs to know more. Pure."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import format_datetime

from .port import Notice, Receiver
from .robots.texts import clean, marked, words_of

_PLAIN = re.compile(r"[A-Za-z0-9 ]+")  # may stand as it is, also as a name before an address
_SHORT = 60
_WORD_BYTES = 39  # of UTF-8 in one encoded word: with the longest field name, 76 columns (RFC 2047 §2)
_MAILBOX = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_KEY = re.compile(r"[A-Za-z0-9._-]{16,64}")
_URGENCY = {1: ("1 (Highest)", "high"), 2: ("2 (High)", "high"), 3: ("3 (Normal)", "normal")}
_NOT_URGENT = ("4 (Low)", "low")


def is_mailbox(address: str) -> bool:
    """Whether it is one plain address, `name@domain`, that can stand in a command and a header."""
    return _MAILBOX.fullmatch(address) is not None


def compose(notice: Notice, *, sender: Receiver, utc_ms: int) -> bytes:
    """The whole message, lines ended with CR LF.

    The subject is the title, the body the whole text. `Message-ID` follows from the key of the notice: a program that
    has the message already can tell.

    Args:
        notice: `to.email` is a mailbox.
        sender: `name` and `email`, a mailbox.
        utc_ms: now.
    """
    priority, importance = _URGENCY.get(notice.priority, _NOT_URGENT)
    fields = [
        ("Date", format_datetime(datetime.fromtimestamp(utc_ms // 1000, UTC))),
        ("From", _mailbox(sender)),
        ("To", _mailbox(notice.to)),
        ("Subject", encoded(marked(notice.title, notice))),
        ("Message-ID", f"<{message_id(notice.key)}@{sender.email.rpartition('@')[2]}>"),
        ("Auto-Submitted", "auto-generated"),  # RFC 3834: no absence notes, please
        ("X-Priority", priority),
        ("Importance", importance),
        ("MIME-Version", "1.0"),
        ("Content-Type", 'text/plain; charset="utf-8"'),
        ("Content-Transfer-Encoding", "base64"),
        ("Content-Language", "en" if notice.to.lang == "en" else "zh-CN"),
    ]
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    body = base64.encodebytes("\r\n".join(words_of(notice).splitlines()).encode() + b"\r\n")
    return head.encode("ascii") + b"\r\n" + body.replace(b"\n", b"\r\n")


def message_id(key: str) -> str:
    """The part before the @: the key itself where it can stand there, else its SHA-256."""
    return key if _KEY.fullmatch(key) else hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def encoded(text: str) -> str:
    """One line of any text as the value of a header: itself, or encoded words on folded lines (RFC 2047)."""
    line = " ".join(clean(text).split())
    if len(line) <= _SHORT and _PLAIN.fullmatch(line):
        return line
    return "\r\n ".join(f"=?utf-8?b?{base64.b64encode(word.encode()).decode()}?=" for word in _words(line))


def _mailbox(person: Receiver) -> str:
    return f"{encoded(person.name)}\r\n <{person.email}>" if person.name.strip() else f"<{person.email}>"


def _words(line: str) -> Iterator[str]:
    """Pieces of whole characters."""
    word, size = "", 0
    for char in line:
        more = len(char.encode())
        if size + more > _WORD_BYTES:
            yield word
            word, size = "", 0
        word, size = word + char, size + more
    yield word
