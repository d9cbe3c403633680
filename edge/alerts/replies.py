"""What people write back: an SMS with an alarm's number acknowledges it, in the role that is missing.

The network says where a message came from; that is as good as a phone in the right hand, and no better. Everything is
recorded as `reply.received`; its answer is a row of that record. What strangers write is not kept.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import RefusedError
from ...serving.people import Person
from ...sync.journal import Draft
from ...words import Instant, mono_s, now
from ..alarms.codec import instant_from_json
from ..alarms.overlay import seconds_between
from .lateness import Lateness
from .port import Channel, Notice, Receiver
from .rows import ANSWER, other_key

_YES = r"(?:已?(?:确认|收到|知道了?)|ACK|OK)"
_NUMBER = re.compile(
    rf"{_YES}?[\s:,#。.!]*(?:报警)?(?:号|NO\.?)?[\s:#]*(\d{{1,9}})\s*号?(?:报警)?[\s:,。.!]*{_YES}?[\s,。.!]*",
    re.IGNORECASE,
)
_TEXT_MOST = 160
_WORDS_MOST = 40  # of what may be an acknowledgement: the pattern takes its time with long ones
_HOUR_S = 3600.0
_PER_PERSON = 20
_STRANGERS = 10
_SHORTEST = 7  # shorter numbers are services; nobody answers them

ANSWERS: Mapping[str, tuple[str, str]] = {
    "acknowledged": ("已确认报警 {n}。", "Alarm {n} is acknowledged."),
    "already": ("报警 {n} 已由您或同岗人员确认。", "Alarm {n} was acknowledged before, by you or in your role."),
    "changed": (
        "您回复后报警 {n} 又加重或再次报警，请看清后再回复 {n}。",
        "Alarm {n} got worse, or was told anew, after you had answered: look again, then answer {n}.",
    ),
    "closed": ("报警 {n} 已关闭，不需要确认。", "Alarm {n} is closed: nothing to acknowledge."),
    "unknown_number": ("没有报警 {n}，请核对报警号。", "There is no alarm {n}: check the number."),
    "not_understood": ("请只回复报警号，例如 1234。", "Answer with the alarm's number alone, as 1234."),
    "not_yours": ("报警 {n} 不由您确认，或您不在班。", "Alarm {n} is not yours to acknowledge, or you are off duty."),
    "refused": ("报警 {n} 未能确认，请到大屏处理。", "Alarm {n} was not acknowledged: use the screen."),
    "stranger": ("本号码未登记，不能确认报警。", "This number is not known here; it cannot acknowledge alarms."),
}
_CODES = {
    "already_acked": "already",
    "distinct_persons": "already",
    "not_in_alarm": "closed",
    "old_occurrence": "closed",
    "no_such_alarm": "closed",
    "role_not_required": "not_yours",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What replies are judged by.

    Attributes:
        people: by id.
        find: the newest alarm object (JSON) of an occurrence's number, also a closed one; None when there was none.
        may_act: `may_act(person, role, area, at)`: whether a person may act in a role now.
        acknowledge: `(alarm, occurrence, role, person)`; raises RefusedError.
        record: commits a record.
        channel: id of the channel that answers go out on, empty when there is none.
        channels: by id.
    """

    people: Mapping[str, Person]
    find: Callable[[int], Awaitable[Mapping[str, Any] | None]]
    may_act: Callable[[str, str, str, Instant], bool]
    acknowledge: Callable[[str, int, str, str], Awaitable[object]]
    record: Callable[[Draft], Awaitable[object]]
    channel: Callable[[], str]
    channels: Mapping[str, Channel]


@dataclass(slots=True)
class _Rate:
    """At most `most` in an hour."""

    most: int
    at_s: deque[float] = field(default_factory=deque[float])

    def take(self, now_s: float) -> bool:
        while self.at_s and now_s - self.at_s[0] >= _HOUR_S:
            self.at_s.popleft()
        if len(self.at_s) >= self.most:
            return False
        self.at_s.append(now_s)
        return True


class Replies:
    """Takes replies one after the other; `take` is the outbox's `answer`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._persons: dict[str, _Rate] = {}
        self._strangers = _Rate(_STRANGERS)
        self._told: dict[str, float] = {}
        self._lateness = Lateness()

    async def take(self, phone: str, text: str, sent_ms: int | None = None) -> None:
        """Acknowledge, record and answer. Raises only what the store raises.

        Args:
            sent_ms: when it was written, by the network's clock; see `Events.reply`.
        """
        persons = [person for person in self._desk.people.values() if person.phone and same(person.phone, phone)]
        if not persons:
            await self._stranger(phone)
            return
        number, late_s = number_in(text), self._lateness.of(sent_ms, now())
        person, code = persons[0], "not_understood"
        if number is not None:
            person, code = await self._acknowledge(persons, number, late_s)
        await self._record(person, text, number, code)

    async def _acknowledge(self, persons: list[Person], number: int, late_s: float) -> tuple[Person, str]:
        """Who of those with this phone acknowledges, and what became of it. It was written `late_s` seconds ago."""
        alarm = await self._desk.find(number)
        if alarm is None:
            return persons[0], "unknown_number"
        if alarm["occurrence"] != number or alarm["state"] == "NORM":
            return persons[0], "closed"
        if late_s and _asked_ago_s(alarm) < late_s:
            return persons[0], "changed"
        acks = alarm.get("acks", ())
        for person in persons:
            if any(ack["person"] == person.id for ack in acks):
                return person, "already"
        done = {ack["role"] for ack in acks}
        for person in persons:
            for role in alarm["required_acks"]:
                if role not in done and self._desk.may_act(person.id, role, alarm["area"], now()):
                    return person, await self._try(alarm, role, person)
        return persons[0], "not_yours"

    async def _try(self, alarm: Mapping[str, Any], role: str, person: Person) -> str:
        try:
            await self._desk.acknowledge(alarm["id"], alarm["occurrence"], role, person.id)
        except RefusedError as error:
            return _CODES.get(error.reason, "refused")
        return "acknowledged"

    async def _record(self, person: Person, text: str, number: int | None, code: str) -> None:
        at, channel = now(), self._desk.channel()
        answer = _answer(code, number)
        entries: list[dict[str, Any]] = []
        if channel and self._persons.setdefault(person.id, _Rate(_PER_PERSON)).take(mono_s()):
            key = other_key(f"{person.id}\0{at.utc_ms}\0{at.mono_s}", f"reply\0{code}")
            entries = [{"key": key, "person": person.id, "role": "", "channel": channel, "step": 0, "kind": ANSWER}]
        body: dict[str, Any] = {
            "person": person.id,
            "text": text[:_TEXT_MOST],
            "number": number,
            "outcome": code,
            "answer": answer,
            "priority": 2,
            "notify": entries,
        }
        await self._desk.record(Draft(kind=ANSWER, at=at, actor=person.id, body=body))

    async def _stranger(self, phone: str) -> None:
        """Answered once an hour at most, and not stored beyond the last digits."""
        at, now_s = now(), mono_s()
        digits = national(phone)
        self._told = {known: told_s for known, told_s in self._told.items() if now_s - told_s < _HOUR_S}
        answers = len(digits) >= _SHORTEST and digits not in self._told and self._strangers.take(now_s)
        body = {"person": "", "phone": masked(phone), "outcome": "stranger", "answered": answers, "notify": []}
        await self._desk.record(Draft(kind=ANSWER, at=at, actor="gateway", body=body))
        channel = self._desk.channels.get(self._desk.channel())
        if not answers or channel is None:
            return
        self._told[digits] = now_s
        key = other_key(f"{digits}\0{at.utc_ms}", "stranger")
        said = _answer("stranger", None)
        text = f"{said['zh']}{said['en']}"
        await channel.send(Notice(key=key, to=Receiver(phone=phone), title="", text=text, priority=4))


def _asked_ago_s(alarm: Mapping[str, Any]) -> float:
    """Seconds since what people are asked to acknowledge; for ever where an older gateway did not note it."""
    asked = alarm.get("asked")
    return seconds_between(instant_from_json(asked), now()) if asked else math.inf


def number_in(text: str) -> int | None:
    """The alarm's number of a reply: `1234`, `确认1234`, `1234收到`, full-width digits; None else."""
    words = unicodedata.normalize("NFKC", text).strip()
    found = _NUMBER.fullmatch(words) if len(words) <= _WORDS_MOST else None
    return int(found[1]) if found else None


def same(one: str, other: str) -> bool:
    """Whether two numbers are of one phone, with or without the country."""
    return national(one) == national(other) != ""


def national(phone: str) -> str:
    """The digits without China's country code."""
    digits = re.sub(r"\D", "", phone).removeprefix("00")
    return digits[2:] if len(digits) == 13 and digits.startswith("86") else digits


def masked(phone: str) -> str:
    """The last four digits of a number that is longer than that."""
    digits = national(phone)
    return f"***{digits[-4:]}" if len(digits) >= _SHORTEST else "***"


def _answer(code: str, number: int | None) -> dict[str, str]:
    zh, en = ANSWERS[code]
    return {"zh": zh.format(n=number), "en": en.format(n=number)}
