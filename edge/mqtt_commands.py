"""Commands of persons over MQTT: `cmd/<user>/<what>`, answered on `rsp/<user>`. Judging is pure.

The broker proves who speaks: its access list lets a user publish below `cmd/<user>/` alone, and site.toml says whom a
user stands for. What the broker cannot prove is judged here: a command is of now, comes once, and was never retained.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import RefusedError
from ..serving.people import Person
from ..words import Instant, is_text, utc_from_text
from .acting import Acting
from .alarms.overlay import Overlay, OverlayKind

LONGEST_S = 300.0
"""A command may be valid for this long at most; also the longest that its nonce is remembered."""
MOST_BYTES = 4_096
MOST_MINUTES = 1_000_000  # longer than any shelf may last; an integer of JSON has no end
_MOST_NONCES = 10_000
_SHORTEST_NONCE, _LONGEST_NONCE = 8, 64

Fields = Mapping[str, tuple[type, ...]]
COMMANDS: Mapping[str, Fields] = {
    "ack": {"id": (str,), "occurrence": (int,), "role": (str, type(None))},
    "reset": {"id": (str,), "occurrence": (int,)},
    "shelve": {"id": (str,), "minutes": (int, float), "why": (str,)},
    "unshelve": {"id": (str,)},
    "silence": {},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One that may be carried out. `nonce` names it in the answer."""

    user: str
    what: str
    nonce: str
    fields: Mapping[str, Any]


class Judge:
    """Says which messages are commands. Remembers nonces as long as their commands could be valid."""

    def __init__(self) -> None:
        self._seen: dict[tuple[str, str], float] = {}

    def judge(self, user: str, what: str, payload: bytes, *, retained: bool, now: Instant) -> Command:
        """The command in a message.

        Raises:
            RefusedError: `retained`, `unknown_command`, `malformed`, `expired`, `too_long`, `replayed`, `busy`.
        """
        if retained:
            raise RefusedError("retained", "a command must not be retained", hint="publish it without the retain flag")
        if what not in COMMANDS:
            raise RefusedError("unknown_command", f"{what!r:.40} is no command", hint=f"one of {', '.join(COMMANDS)}")
        fields = _fields(payload, COMMANDS[what])
        nonce = fields["nonce"]
        self._check_time(fields["expires_at"], now)
        self._check_new((user, nonce), now.mono_s)
        return Command(user=user, what=what, nonce=nonce, fields=fields)

    def _check_time(self, expires_at: str, now: Instant) -> None:
        try:
            expires_ms = utc_from_text(expires_at)
        except ValueError as error:
            hint = "an RFC 3339 time, such as 2026-11-22T13:06:31Z"
            raise RefusedError("malformed", f"expires_at: {error}", hint=hint) from error
        left_s = (expires_ms - now.utc_ms) / 1000
        if left_s <= 0:
            raise RefusedError("expired", f"expired {-left_s:.0f} s ago", hint="set the clock of whoever sends it")
        if left_s > LONGEST_S:
            hint = "a minute from now is usual; set the clock of whoever sends it"
            raise RefusedError("too_long", f"valid for {left_s:.0f} s, more than {LONGEST_S:.0f}", hint=hint)

    def _check_new(self, name: tuple[str, str], now_s: float) -> None:
        self._seen = {key: until_s for key, until_s in self._seen.items() if until_s > now_s}
        if name in self._seen:
            raise RefusedError("replayed", "this nonce was used before", hint="a new nonce for each command")
        if len(self._seen) >= _MOST_NONCES:
            raise RefusedError("busy", "too many commands", hint="slow down", retry_s=LONGEST_S)
        self._seen[name] = now_s + LONGEST_S


class Commands:
    """Carries commands out and answers them.

    Args:
        judge: says what is a command.
        acting: does what persons may do.
        person_of: whom a broker's user stands for now; None for nobody.
        silence: stops what sounds in the person's areas; raises RefusedError where nothing does.
    """

    def __init__(
        self,
        judge: Judge,
        acting: Acting,
        person_of: Callable[[str], Person | None],
        silence: Callable[[Person], object],
    ) -> None:
        self._judge = judge
        self._acting = acting
        self._person_of = person_of
        self._silence = silence

    async def answer(self, user: str, what: str, payload: bytes, *, retained: bool, now: Instant) -> dict[str, Any]:
        """What is published on `rsp/<user>`: `ok`, or why not. Never raises for what somebody sent."""
        said: dict[str, Any] = {"what": what[:40], "nonce": _nonce(payload)}
        try:
            command = self._judge.judge(user, what, payload, retained=retained, now=now)
            person = self._person_of(user)
            if person is None:
                hint = "name it in site.toml: [[mqtt_user]]"
                raise RefusedError("unknown_user", f"nobody is known for the user {user!r:.40}", hint=hint)
            await self._do(command, person)
        except RefusedError as error:
            return {**said, "ok": False, "reason": error.reason, "message": error.message, "hint": error.hint}
        return {**said, "ok": True}

    async def _do(self, command: Command, person: Person) -> None:
        fields = command.fields
        match command.what:
            case "ack":
                await self._acting.acknowledge(person, fields["id"], fields["occurrence"], fields["role"])
            case "reset":
                await self._acting.reset(person, fields["id"], fields["occurrence"])
            case "shelve":
                await self._acting.cover(person, fields["id"], lambda at: _shelf(person, fields, at))
            case "unshelve":
                await self._acting.uncover(person, fields["id"], OverlayKind.SHELVED)
            case _:
                self._silence(person)


def _shelf(person: Person, fields: Mapping[str, Any], at: Instant) -> Overlay:
    for_s = min(fields["minutes"], MOST_MINUTES) * 60.0
    return Overlay(kind=OverlayKind.SHELVED, who=person.id, why=fields["why"], since=at, for_s=for_s)


def _fields(payload: bytes, wanted: Fields) -> dict[str, Any]:
    try:
        given = json.loads(payload) if len(payload) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise RefusedError("malformed", f"must be a JSON object of at most {MOST_BYTES} bytes")
    found: dict[str, Any] = {}
    for name, types in {**wanted, "nonce": (str,), "expires_at": (str,)}.items():
        value = given.get(name)
        if not isinstance(value, types) or isinstance(value, bool):
            raise RefusedError("malformed", f"{name}: must be {' or '.join(map(_type_name, types))}")
        if isinstance(value, str) and not is_text(value):
            raise RefusedError("malformed", f"{name}: is not text")
        found[name] = value
    if not _SHORTEST_NONCE <= len(found["nonce"]) <= _LONGEST_NONCE:
        raise RefusedError("malformed", f"nonce: must have {_SHORTEST_NONCE} to {_LONGEST_NONCE} characters")
    return found


def _type_name(kind: type) -> str:
    return {str: "text", int: "a whole number", float: "a number", type(None): "left out"}[kind]


def _nonce(payload: bytes) -> str:
    """As far as it can be read, so that whoever asked knows the answer."""
    try:
        nonce = json.loads(payload[:MOST_BYTES])["nonce"]
    except (ValueError, RecursionError, KeyError, TypeError, IndexError):
        return ""
    return nonce[:_LONGEST_NONCE] if isinstance(nonce, str) and is_text(nonce) else ""
