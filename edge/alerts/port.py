"""What the outbox expects of a channel: one message to one receiver, and an honest answer.

A channel never retries, never queues and never decides who is told: the outbox does, from rows that outlive the
process. It says what the receiver's *own* answer was: HTTP 200, a closed socket or an "OK" of the system is none.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

from ...words import mono_s


class Outcome(enum.StrEnum):
    """What became of one attempt.

    ACCEPTED: the receiver's system took it and said so in its own words. Proof may come later (`Events.report`).
    DELIVERED: it is where a person notices it; nothing more will come.
    LATER: not sent, nobody is at fault: a rate budget is used up, a modem is registering. Costs no attempt.
    FAILED: not taken; may be next time. The outbox tries again with pauses.
    REFUSED: will never be taken as it is: no such number, the message is not allowed.
    """

    ACCEPTED = "accepted"
    DELIVERED = "delivered"
    LATER = "later"
    FAILED = "failed"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """The answer to one attempt.

    Attributes:
        detail: for the delivery log: the receiver's own code and words; no secret, no full phone number.
        receipt: what a later report names, unique within the channel; empty when none will come.
        retry_s: not before this many seconds (LATER, FAILED); 0 leaves it to the outbox.
        uncertain: FAILED, and yet it may have arrived: the next attempt is marked as sent again.
        receiver_only: LATER, for a reason of this receiver: what waits for others on the channel need not wait.
    """

    outcome: Outcome
    detail: str = ""
    receipt: str = ""
    retry_s: float = 0.0
    uncertain: bool = False
    receiver_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Whom a message is for. A group robot gets the person to be mentioned; a siren gets nobody.

    Attributes:
        person: id; empty for things.
        phone: E.164 or national digits, empty when unknown.
        email: empty when unknown.
        lang: `zh` or `en`.
    """

    person: str = ""
    name: str = ""
    phone: str = ""
    email: str = ""
    lang: str = "zh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """One message to one receiver.

    Attributes:
        key: identity of the delivery; the same at each attempt, so that a receiver can drop what it has.
        title: one line of at most 40 characters, the tag first: 【红】【一级】….
        text: the whole message; its first 70 characters say what, where and what to do.
        priority: 1 (highest) to 4.
        resent: it may have come before (a crash between sending and noting).
        is_test: of a proof test; shown to people as such.
        step: of a ladder: budgets keep something back for it.
        number: alarm number that a person names in a reply to acknowledge; 0 when there is nothing to acknowledge.
        mentions: of a message to a group: everyone it is for; `to` is the first of them.
        facts: for machines: the alarm or the subject as JSON; `step`, the number of the ladder's step, 0 for none;
            `keys` of every delivery that the message tells: a digest has several, and a key of its own.
    """

    key: str
    to: Receiver
    title: str
    text: str
    priority: int
    resent: bool = False
    is_test: bool = False
    step: bool = False
    number: int = 0
    mentions: tuple[Receiver, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Fault(enum.StrEnum):
    """Why a channel cannot work at all. Becomes an alarm of the system."""

    NONE = ""
    OFFLINE = "offline"  # nobody there: unplugged, no network, connection refused
    REFUSING = "refusing"  # there, and refuses us: password, signature, SIM, blocked
    SILENT = "silent"  # there, and does not answer


@dataclass(slots=True)
class ChannelHealth:
    """What pages show of a channel. The channel keeps it up to date.

    Attributes:
        beat_s: monotonic seconds; fresh while the channel's own loop turns (channels without one leave it).
        fault, detail: why it cannot work, for a person.
        facts: what this kind of channel knows: signal, operator, budget left.
    """

    fault: Fault = Fault.NONE
    detail: str = ""
    accepted: int = 0
    delivered: int = 0
    failed: int = 0
    beat_s: float = field(default_factory=mono_s)
    facts: dict[str, Any] = field(default_factory=dict[str, Any])


class Events(Protocol):
    """What a channel tells on its own, on the event loop. Implementations return at once and do not raise."""

    def report(self, receipt: str, delivered: bool, detail: str) -> None:
        """The proof of an ACCEPTED message, or that there will be none."""
        ...

    def reply(self, phone: str, text: str, sent_ms: int | None = None) -> None:
        """A person answered. `phone` is where it came from: proof enough to know who, as far as the network is.

        `sent_ms`: UTC milliseconds by the network's clock, which may be off by hours; None when it does not say.
        """
        ...


class Channel(Protocol):
    """A way to people. Constructors never connect; entering does, and must not fail because nobody is there."""

    health: ChannelHealth

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def send(self, notice: Notice) -> Sent:
        """One attempt. Bounded in time. Raises only for a defect."""
        ...
