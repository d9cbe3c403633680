"""What the outbox delivers: one row is one message to one recipient on one channel. Pure values.

A row is born with a record and ends with a record. Several rows may go as one digest; each keeps its own end.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...words import Instant, utc_from_text

RAISES = frozenset({"alarm.raised", "alarm.reraised", "alarm.reopened"})
REPEAT = "alarm.repeated"
CLEAR = "delivery.clear"
ANSWER = "reply.received"
_LASTING = ("alarm.", "ladder.", "freeze.set")
_FIRST_IN_A_FLOOD = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How the outbox delivers. Times in seconds.

    Attributes:
        deadline_s: a message that nobody accepted by then is failing; all ways of its recipient are tried within it.
        retry_base_s, retry_cap_s: pauses between attempts that failed, doubled each time, with jitter.
        group_wait_s: how long messages of a priority wait for others of their recipient; those not named do not.
        flood_rows: more rows than this for one recipient on one channel are a flood: priority 2 is merged as well.
        send_limit_s: an attempt that takes longer is given up; it may have arrived.
        proof_s: an accepted message whose channel promised proof and gave none by then is not proven.
        clear_s: how long the news that an alarm is over is worth sending.
        keep_s: how long other news that nothing ends is worth sending.
    """

    deadline_s: float = 60.0
    retry_base_s: float = 2.0
    retry_cap_s: float = 60.0
    group_wait_s: Mapping[int, float] = field(default_factory=lambda: {3: 30.0, 4: 30.0})
    flood_rows: int = 10
    send_limit_s: float = 120.0
    proof_s: float = 300.0
    clear_s: float = 3600.0
    keep_s: float = 86_400.0


@dataclass(slots=True, kw_only=True)
class Row:
    """A row that has not ended, or was accepted and waits for its proof.

    Attributes:
        seq: number of the record that it was born with.
        message: number of the record that it tells; a row on another way tells the same one.
        origin: key of the first row of this recipient's message: its own, or of the row whose channel failed.
        kind, body: of that record.
        person: empty for things and for groups; `mentions` are the persons of a group's message.
        step: number of the ladder's step, 0 for none.
        about, occurrence: the alarm or other subject that the row is about.
        born_s, first_s: monotonic seconds of its own record and of the message's.
        attempts: that were made; being told to come later is none.
        resent: it may have arrived before.
        failing: recorded as late. unreached: for whom no way was left then.
        fell: its message goes on another way as well. No other: `no_way`.
        error: what the channel said last.
        over: why it need not be sent any more: `closed`, `acked`, `released`, `told`.
        closed, closed_s: body and monotonic seconds of the record that closed its alarm; it then tells both.
        ways: how many channels its recipient has.
        batch: key of the digest that it may have arrived with: it is resent with the same rows.
        not_before_s: monotonic seconds. later: the channel had no room for it.
        hold_s: seconds after its birth in which its recipient's quiet hours keep it.
    """

    key: str
    seq: int
    message: int
    origin: str
    kind: str
    priority: int
    person: str
    role: str
    channel: str
    step: int
    mentions: tuple[str, ...]
    about: str
    occurrence: int
    body: Mapping[str, Any]
    born_s: float
    first_s: float
    attempts: int = 0
    resent: bool = False
    failing: bool = False
    unreached: tuple[str, ...] = ()
    fell: bool = False
    no_way: bool = False
    error: str = ""
    over: str = ""
    closed: Mapping[str, Any] | None = None
    closed_s: float = 0.0
    ways: int = 1
    batch: str = ""
    not_before_s: float = 0.0
    later: bool = False
    hold_s: float = 0.0

    def is_held(self, now_s: float) -> bool:
        """Its recipient's quiet hours keep it."""
        return now_s < self.born_s + self.hold_s

    @property
    def is_needless(self) -> bool:
        """What it tells was over within the quiet hours that kept it."""
        return self.hold_s > 0 and self.closed is not None and self.closed_s < self.born_s + self.hold_s

    @property
    def lane(self) -> tuple[str, str]:
        """Who waits behind whom: one recipient on one channel."""
        return self.channel, self.person

    @property
    def is_thing(self) -> bool:
        """A siren, a loudspeaker: nobody who reads."""
        return not self.person and not self.mentions

    @property
    def is_test(self) -> bool:
        return is_test(self.kind, self.body)

    @property
    def persons(self) -> tuple[str, ...]:
        return (self.person,) if self.person else self.mentions

    @property
    def recipient(self) -> str:
        """A person, or a group by its channel."""
        return recipient(self.person, self.channel)

    @property
    def must_arrive(self) -> bool:
        """Whether its lateness is recorded and another way is taken. Old news and tests of a channel are not."""
        return self.closed is None and self.kind not in (CLEAR, ANSWER) and not self.is_test

    @property
    def is_mergeable(self) -> bool:
        """Whether it may be part of a digest. Priority 1, steps of ladders, things and tests never are."""
        kinds = self.kind in RAISES or self.kind in (REPEAT, CLEAR)
        plain = kinds and not self.step and not self.is_thing and not self.is_test
        return plain and self.priority >= _FIRST_IN_A_FLOOD and not self.batch

    def wait_s(self, settings: Settings) -> float:
        """How long it waits for others."""
        return settings.group_wait_s.get(self.priority, 0.0) if self.is_mergeable else 0.0

    def late_s(self, settings: Settings) -> float:
        """When it is failing: the message's deadline; a way that was opened late still gets its share of it."""
        wait_s = self.wait_s(settings)
        told_s = max(self.first_s + wait_s + settings.deadline_s, self.born_s + settings.deadline_s / self.ways)
        return told_s + self.hold_s

    def fall_s(self, settings: Settings) -> float:
        """When another way is taken: the recipient's ways share the deadline, so that all are tried within it."""
        return self.born_s + self.hold_s + self.wait_s(settings) + settings.deadline_s / self.ways

    def end_s(self, settings: Settings) -> float:
        """When it is too old to be sent; infinite while its subject is open."""
        if self.kind == CLEAR:
            return self.first_s + settings.clear_s
        if self.closed is not None:
            return self.closed_s + settings.clear_s
        return math.inf if self.kind.startswith(_LASTING) else self.first_s + settings.keep_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """What became of one message on one of a recipient's channels. `state`: of its row."""

    channel: str
    state: str
    failing: bool

    @property
    def is_reached(self) -> bool:
        return self.state in ("ACCEPTED", "DELIVERED") and not self.failing

    @property
    def is_lost(self) -> bool:
        return self.state == "DEAD" or self.failing


def next_way(ways: Iterable[str], used: Iterable[Way], live: Iterable[str]) -> str:
    """The recipient's next channel for a message; empty when none is left, or the message has arrived already.

    Args:
        ways: the recipient's channels, the best first.
        used: those that it goes or went on.
        live: the channels that there are.
    """
    used = list(used)
    if any(way.is_reached for way in used):
        return ""
    taken, there = {way.channel for way in used}, set(live)
    return next((channel for channel in ways if channel in there and channel not in taken), "")


def is_unreached(used: Iterable[Way]) -> bool:
    """Whether a message is late or dead on every way that it went."""
    return all(way.is_lost for way in used)


def subject_of(kind: str, body: Mapping[str, Any]) -> tuple[str, int, int]:
    """What a record that tells people is about: id, occurrence, priority.

    A step of an alarm's ladder is about the alarm. Other subjects are `kind/id`; a freeze is its own.
    """
    if "alarm" in body and isinstance(body["alarm"], Mapping):
        alarm = body["alarm"]
        return alarm["id"], alarm["occurrence"], alarm["priority"]
    subject = (body.get("ladder") or body).get("subject") or (body.get("freeze") or {}).get("why")
    priority = int((subject or body).get("priority", 3))
    if kind.startswith("freeze."):
        return body["freeze"]["id"], 0, priority
    if subject is None:
        return str(body.get("id", kind)), 0, priority
    if kind.startswith("ladder."):
        return subject_id(subject), subject["occurrence"], priority
    return str(body.get("id") or subject_id(subject)), 0, priority


def subject_id(subject: Mapping[str, Any]) -> str:
    """An alarm's id, else `kind/id`."""
    return subject["id"] if subject["kind"] == "alarm" else f"{subject['kind']}/{subject['id']}"


def is_test(kind: str, body: Mapping[str, Any]) -> bool:
    """Whether it is of a proof test."""
    return bool(body.get("is_test")) or kind.startswith("proof.")


def recipient(person: str, channel: str) -> str:
    """Who gets one message about a thing and not two: a person, or a group by its channel."""
    return person or f"@{channel}"


def other_key(key: str, what: str) -> str:
    """The key of a row that follows from another one: its message on another channel, its clear. SHA-256, hex."""
    return hashlib.sha256(f"{key}\0{what}".encode()).hexdigest()


def since_s(at: Mapping[str, Any], now: Instant) -> float:
    """Seconds since a record: exact within a boot; by the wall clock, and never negative, across boots."""
    if at.get("boot") == now.boot:
        return max(0.0, now.mono_s - float(at["mono"]))
    return max(0.0, (now.utc_ms - utc_from_text(at["utc"])) / 1000)
