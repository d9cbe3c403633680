"""Payloads, pure: paths into JSON, numbers, units, device times, and how far a device's clock can be believed."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from decimal import Decimal
from typing import Any

import msgspec

from ..words import ClockState, Instant, utc_from_text
from .mqtt_words import Reject, TimeFormat

MISSING: Any = object()
"""What a path finds where there is nothing."""

Step = str | int | tuple[str, str]
"""A key, an index, or (key, text) of the one list element that holds it."""

_STEP = re.compile(
    r"""(?P<dot>\.)?(?:
        "(?P<quoted>(?:[^"\\]|\\.)+)"
        | (?P<key>[^.\[\]"]+)
        | \[(?P<index>[0-9]{1,9})\]
        | \[(?P<by>[^=\[\]"]+)=(?:"(?P<words>(?:[^"\\]|\\.)*)"|(?P<word>[^\[\]"]+))\]
    )""",
    re.VERBOSE,
)


class RefusedPayloadError(ValueError):
    """A payload that is not taken."""

    def __init__(self, reason: Reject) -> None:
        super().__init__(reason)
        self.reason: Reject = reason


def compile_path(path: str) -> tuple[Step, ...]:
    """A path as `find` walks it: `ch4`, `more.co`, `list[0].v`, `sensors[name=ch4].value`, `"a.b".c`.

    Raises:
        ValueError: it is no path.
    """
    steps: list[Step] = []
    at = 0
    while at < len(path):
        match = _STEP.match(path, at)
        bracket = match is not None and match.end() > at and path[match.start() + len(match["dot"] or "")] == "["
        if match is None or (match["dot"] is None) == (at > 0 and not bracket) or (match["dot"] and bracket):
            raise ValueError(f"is no path from character {at + 1} on: keys with dots between, list[0], list[name=ch4]")
        steps.append(_step(match))
        at = match.end()
    if not steps:
        raise ValueError("is empty")
    return tuple(steps)


def _step(match: re.Match[str]) -> Step:
    if match["index"] is not None:
        return int(match["index"])
    if match["by"] is not None:
        word = match["word"] if match["word"] is not None else _unescape(match["words"])
        return match["by"], word
    return match["key"] if match["key"] is not None else _unescape(match["quoted"])


def _unescape(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def find(document: Any, steps: tuple[Step, ...]) -> Any:
    """What stands there, or MISSING; also when a selector fits more than one element: which would be meant?"""
    for step in steps:
        if isinstance(step, str):
            if not isinstance(document, dict):
                return MISSING
            document = document.get(step, MISSING)
            if document is MISSING:
                return MISSING
        elif not isinstance(document, list):
            return MISSING
        elif isinstance(step, int):
            if step >= len(document):
                return MISSING
            document = document[step]
        else:
            key, word = step
            fitting = [item for item in document if isinstance(item, dict) and as_word(item.get(key)) == word]
            if len(fitting) != 1:
                return MISSING
            document = fitting[0]
    return document


def as_word(value: Any) -> str | None:
    """Text, a whole number or a truth value as the word that it is; None of everything else."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int) else None


def filter_problem(name: str) -> str:
    """What is wrong with a topic filter (MQTT 5.0 §4.7.1); "" of a good one."""
    levels = name.split("/")
    if not name or "\0" in name or len(name.encode()) > 65535:
        return "must be a topic such as plant/gas4"
    if any(("#" in level and (level != "#" or i != len(levels) - 1)) for i, level in enumerate(levels)):
        return "must have # only as the whole last level"
    if any("+" in level and level != "+" for level in levels):
        return "must have + only as a whole level"
    return ""


REMEMBERED_CHARS = 512


def shorten(text: str) -> str:
    """A text as it is remembered: by itself, or a long one by its digest."""
    return text if len(text) <= REMEMBERED_CHARS else digest(text.encode("utf-8", "surrogatepass")).hex()


def digest(data: bytes) -> bytes:
    """Sixteen bytes that stand for many."""
    return hashlib.blake2b(data, digest_size=16).digest()


# --- decoding ---


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):  # which one would be meant?
        raise _DuplicateKeyError
    return document


_decode = json.JSONDecoder(object_pairs_hook=_unique).decode
_decode_fast = msgspec.json.Decoder().decode


def decode_json(payload: bytes) -> Any:
    """UTF-8 JSON. Raises RefusedPayloadError `not_utf8`, `not_json`, `duplicate_key`."""
    try:
        document = _decode_fast(payload)
    except (msgspec.DecodeError, ValueError, RecursionError):  # also NaN and 1e400, which `_decode` takes
        return _decode_well(payload)
    return document if _is_plain(document, payload) else _decode_well(payload)


def _is_plain(document: Any, payload: bytes) -> bool:
    """Whether it surely has no key twice: it has one colon for each of its keys, and others only in its texts."""
    if type(document) is not dict:
        return False
    colons = payload.count(b":") - len(document)
    if not colons or b"\\" in payload:
        return not colons
    return colons == sum([value.count(":") for value in document.values() if type(value) is str])


def _decode_well(payload: bytes) -> Any:
    try:
        return _decode(payload.decode("utf-8"))
    except UnicodeDecodeError:
        raise RefusedPayloadError("not_utf8") from None
    except _DuplicateKeyError:
        raise RefusedPayloadError("duplicate_key") from None
    except (ValueError, RecursionError):
        raise RefusedPayloadError("not_json") from None


def decode_text(payload: bytes) -> str:
    """One word or number. Raises RefusedPayloadError `not_utf8`."""
    try:
        return payload.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise RefusedPayloadError("not_utf8") from None


# --- numbers ---

_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Meter:
    """How one number is read; compiled once from a point.

    Attributes:
        words: by the word in small letters.
        is_plain: the scale is 1.
    """

    scale: Decimal
    low: float | None
    high: float | None
    text: bool
    words: Mapping[str, float]
    is_plain: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_plain", self.scale == 1)

    def measure(self, found: Any) -> tuple[float | None, str]:
        """The value, or None and why: `missing`, `no_value` (null), `wrong_type`, `unknown_word`, `not_a_number`
        (NaN, Infinity, text that is none), `out_of_range`."""
        kind = type(found)
        if kind is not float and kind is not int:
            if found is MISSING:
                return None, "missing"
            if found is None:
                return None, "no_value"
            found, why = self._read(found)
            if why:
                return None, why
        try:
            value = float(found) if self.is_plain else float(Decimal(repr(found)) * self.scale)
        except (ArithmeticError, ValueError):  # an integer beyond every float
            return None, "not_a_number"
        if not math.isfinite(value):
            return None, "not_a_number"
        if (self.low is not None and value < self.low) or (self.high is not None and value > self.high):
            return None, "out_of_range"
        return value, ""

    def _read(self, found: Any) -> tuple[Any, str]:
        """A word or a number in quotes as a number."""
        word = as_word(found)
        if word is None or not (self.words or (self.text and isinstance(found, str))):
            return None, "wrong_type"
        if word.lower() in self.words:
            return self.words[word.lower()], ""
        if not self.text or isinstance(found, bool):
            return None, "unknown_word"
        return read_number(word)


def read_number(text: str) -> tuple[int | float | None, str]:
    """Text in the form of a JSON number, with a sign or without; `21,5` is none."""
    text = text.strip()
    if len(text) > 400 or not _NUMBER.fullmatch(text):
        return None, "not_a_number"
    return (int(text) if text.lstrip("+-").isdigit() else float(text)), ""


# --- times ---

_LATEST_MS = 4_102_444_800_000  # the year 2100
_SECONDS_BELOW = 100_000_000_000  # as seconds the year 5138, as milliseconds 1973


def parse_time(value: Any, form: TimeFormat, zone: tzinfo | None = None) -> int | None:
    """Milliseconds since 1970 UTC, None of what is no such time.

    Args:
        value: as it stands in the JSON.
        form: `auto` takes RFC 3339 text with an offset, and numbers (also in quotes) as seconds or, when they are too
            large for that, milliseconds.
        zone: of `local`, a time of day without an offset.
    """
    if isinstance(value, str) and form in ("auto", "rfc3339", "local"):
        moment = _parse_text(value, zone if form == "local" else None)
        if moment is not None or form != "auto":
            return moment
    if isinstance(value, str):
        value, _ = read_number(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or form in ("rfc3339", "local"):
        return None
    if not 0 <= value <= _LATEST_MS:  # NaN too
        return None
    in_seconds = form == "epoch_s" or (form == "auto" and value < _SECONDS_BELOW)
    found = round(value * 1000) if in_seconds else round(value)
    return found if found <= _LATEST_MS else None


def _parse_text(text: str, zone: tzinfo | None) -> int | None:
    if len(text) > 40 or not re.match(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ]", text):
        return None
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None and zone is not None:
            found = round(moment.replace(tzinfo=zone).timestamp() * 1000)
        else:
            found = utc_from_text(text)
    except (ValueError, OverflowError):
        return None
    return found if 0 <= found <= _LATEST_MS else None


# --- clocks ---

FRESH, SKEWED, LATE = "", "clock_skew", "delayed"
WINDOW_S = 600.0
PLAUSIBLE_S = 7 * 86400.0


class DeviceClock:
    """Tells an old message from a clock that is wrong: both look alike in one message, not in many.

    The smallest of (arrival - device time) over ten minutes is the offset of the clock: no message arrives before it
    was sent. A message that is later than that by more than `max_skew_s` is old. An offset beyond `max_skew_s` that
    stays the same for `max_skew_s` is a wrong clock; one that does not stay (a burst of stored messages, each with
    another age) is taken for old messages, which is the safe side. A clock that is ahead is simply wrong, and is
    believed again `max_skew_s` after it was set right. The last known offset is kept through an outage, as long as the
    monotonic clock runs: what is later than that is old, whatever our wall clock is worth, until the offset has stayed
    the same for ten minutes.

    Args:
        max_skew_s: what is allowed.

    Attributes:
        skew_s: how far the device's clock is behind ours; None at first.
        backwards: how often its time went back.
    """

    def __init__(self, max_skew_s: float) -> None:
        self.max_skew_s = max_skew_s
        self.skew_s: float | None = None
        self.backwards = 0
        self._least: deque[tuple[float, float]] = deque()  # (arrival, offset), offsets rising: the first is the least
        self._level = math.inf
        self._level_s = 0.0
        self._last_ms = 0
        self._known: float | None = None  # the offset; outlives the window, as an outage does
        self._boot = ""

    def judge(self, device_ms: int, at: Instant) -> str:
        """`FRESH`, `SKEWED` or `LATE`: what a message of now says of itself.

        Args:
            device_ms: its own time.
            at: its arrival. Delays count on the monotonic clock; while our wall clock cannot be believed it does not
                accuse the device's.
        """
        offset, age_s = at.mono_s - device_ms / 1000, (at.utc_ms - device_ms) / 1000
        least = self._note(offset, at)
        self.backwards += device_ms < self._last_ms
        self._last_ms = device_ms
        synced = at.clock is ClockState.SYNCED
        steady = at.mono_s - self._level_s >= self.max_skew_s
        if offset - least > self.max_skew_s and steady and synced and abs(age_s) <= self.max_skew_s:
            self._known = None  # it was ahead and is set right
            least = self._note(offset, at)
            if offset - least > self.max_skew_s:
                self._least.clear()
                self._known = None
                least = self._note(offset, at)
        self.skew_s = age_s - (offset - least)
        if offset - least > self.max_skew_s:
            return LATE
        if not synced or abs(self.skew_s) <= self.max_skew_s:
            return FRESH
        return SKEWED if self.skew_s < 0 or steady else LATE

    def _note(self, offset: float, at: Instant) -> float:
        """The offset of the clock."""
        least, mono_s = self._least, at.mono_s
        if at.boot != self._boot:
            self._boot, self._known = at.boot, None
            least.clear()
        while least and least[-1][1] >= offset:
            least.pop()
        least.append((mono_s, offset))
        while least[0][0] < mono_s - WINDOW_S:
            least.popleft()
        if abs(offset - self._level) > self.max_skew_s / 2:
            self._level, self._level_s = offset, mono_s
        found = least[0][1]
        has_jumped = self._known is not None and found - self._known > self.max_skew_s
        if self._known is None or not has_jumped or mono_s - self._level_s >= WINDOW_S:
            self._known = found
        return self._known

    def sampled(self, device_ms: int, at: Instant) -> Instant | None:
        """When an old message was measured, on our clocks; None when its time cannot be believed.

        With a clock that is known to be right: by that. Else the time must at least be within the last week, or too
        late by no more than `max_skew_s`, of a wall clock that can be believed.
        """
        age_s = (at.utc_ms - device_ms) / 1000
        if self._known is not None and self.skew_s is not None and abs(self.skew_s) <= self.max_skew_s:
            age_s = at.mono_s - device_ms / 1000 - self._known
        elif at.clock is not ClockState.SYNCED:
            return None
        if not -self.max_skew_s <= age_s <= PLAUSIBLE_S:
            return None
        age_s = max(0.0, age_s)
        utc_ms, mono_s = at.utc_ms - round(age_s * 1000), at.mono_s - age_s
        return Instant(utc_ms=utc_ms, mono_s=mono_s, boot=at.boot, clock=at.clock)
