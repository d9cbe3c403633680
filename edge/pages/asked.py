"""What the handlers read out of a request: numbers, times, lists of words, reasons; and who may ask."""

from __future__ import annotations

import re

from aiohttp import web

from ...errors import RefusedError
from ...serving.people import Person
from ...words import utc_from_text

_MOST_DIGITS = 19
_MOST_VALUES = 50
_LONGEST_TEXT = 100
LONGEST_REASON = 500
_SPACE_FOR_PLUS = re.compile(r"(?<=\d) (?=\d\d:?\d\d$)")


def number(request: web.Request, name: str, *, default: int, low: int, high: int) -> int:
    """A whole number of the query. Raises RefusedError `bad_request`."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isdecimal() and len(text) <= _MOST_DIGITS and low <= int(text) <= high):
        raise RefusedError("bad_request", f"{name}: must be {low}..{high} (got {text!r:.40})")
    return int(text)


def moment_ms(request: web.Request, name: str) -> int | None:
    """A time of the query, RFC 3339 with an offset or milliseconds since 1970: UTC milliseconds, None when absent."""
    text = request.query.get(name, "")
    if not text:
        return None
    if text.isascii() and text.isdecimal():
        return number(request, name, default=0, low=0, high=253_402_300_799_999)
    try:
        # a + that was not encoded arrives as a space
        return utc_from_text(_SPACE_FOR_PLUS.sub("+", text))
    except (ValueError, OverflowError):
        hint = "as 2026-11-22T13:06:31+08:00, or as milliseconds since 1970"
        raise RefusedError(
            "bad_request", f"{name}: is not a time with an offset (got {text!r:.40})", hint=hint
        ) from None


def words(request: web.Request, name: str) -> tuple[str, ...]:
    """The values of a field of the query, separated by commas."""
    found = tuple(word for text in request.query.getall(name, ()) for word in text.split(",") if word)
    if len(found) > _MOST_VALUES:
        raise RefusedError("bad_request", f"{name}: at most {_MOST_VALUES} values (got {len(found)})")
    return found


def line(request: web.Request, name: str) -> str:
    """A short text of the query, without the white space around it."""
    text = request.query.get(name, "").strip()
    if len(text) > _LONGEST_TEXT:
        raise RefusedError("bad_request", f"{name}: at most {_LONGEST_TEXT} characters (got {len(text)})")
    return text


def reason(fields: dict[str, object], name: str) -> str:
    """What a person wrote. Raises RefusedError `bad_request` when it is longer than anyone reads."""
    text = str(fields[name]).strip()
    if len(text) > LONGEST_REASON:
        raise RefusedError("bad_request", f"{name}: at most {LONGEST_REASON} characters (got {len(text)})")
    return text


def require_role(person: Person, roles: tuple[str, ...]) -> None:
    """Raises RefusedError `not_your_role` unless the person has one of them."""
    if not set(roles) & set(person.roles):
        raise RefusedError("not_your_role", f"{person.id} is none of {', '.join(roles)}", hint="call a person who is")


def require_area(person: Person, area: str) -> None:
    """Raises RefusedError `not_your_area` unless the person answers for it."""
    if not person.answers_for(area):
        hint = "call the person who answers for this area"
        raise RefusedError("not_your_area", f"{person.id} does not answer for {area or 'the whole site'}", hint=hint)
