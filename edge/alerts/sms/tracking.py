"""What belongs together over time: status reports to the messages they prove, parts to a message. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from .pdu import Delivered, Place, StatusReport, Verdict, joined

_EARLY = 8  # reports kept that came before the modem's own answer
_SAME_DIGITS = 7
_SETTLE_S = 1.0  # who sent it must first have noted the receipt
_MESSAGES = 50  # incomplete ones kept; beyond that the oldest goes


@dataclass(slots=True, kw_only=True)
class Sending:
    """A message of which parts were handed to the network.

    Attributes:
        waiting: message reference of each part whose report is awaited, by its number; None when it is unknown.
        complete_s: monotonic seconds when every part was accepted; before that no report settles it.
        failed: why a part will never arrive.
    """

    receipt: str
    phone: str
    parts: int
    waiting: dict[int, int | None] = field(default_factory=dict[int, int | None])
    delivered: set[int] = field(default_factory=set[int])
    complete_s: float | None = None
    failed: str = ""
    trying: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What became of an accepted message."""

    receipt: str
    delivered: bool
    detail: str


class Reports:
    """Matches status reports by message reference and recipient, and says when one is overdue."""

    def __init__(self) -> None:
        self._sendings: list[Sending] = []
        self._early: list[StatusReport] = []

    def __len__(self) -> int:
        return len(self._sendings)

    def begin(self, receipt: str, phone: str, parts: int) -> Sending:
        """A message whose parts are handed over from now on; what came earlier is not for it."""
        self._early.clear()
        sending = Sending(receipt=receipt, phone=phone, parts=parts)
        self._sendings.append(sending)
        return sending

    def accepted(self, sending: Sending, part: int, reference: int | None) -> None:
        """The network took a part. Its report may be here already."""
        sending.waiting[part] = reference
        for report in list(self._early):
            if self._belongs(sending, report):
                self._early.remove(report)
                self._note(sending, report)

    def complete(self, sending: Sending, now_s: float) -> None:
        """All parts were accepted."""
        sending.complete_s = now_s

    def drop(self, sending: Sending) -> None:
        """The message failed: its reports mean nothing."""
        self._sendings = [one for one in self._sendings if one is not sending]

    def take(self, report: StatusReport) -> bool:
        """Whether a message waits for it; a second one for the same part has none. The oldest message comes first."""
        for sending in self._sendings:
            if self._belongs(sending, report):
                self._note(sending, report)
                return True
        self._early = [*self._early, report][-_EARLY:]
        return False

    def settled(self, now_s: float, limit_s: float) -> list[Proof]:
        """Messages that are proven, or whose reports did not come within `limit_s`; they are forgotten."""
        proofs = [proof for sending in self._sendings if (proof := _proof(sending, now_s, limit_s))]
        names = {proof.receipt for proof in proofs}
        self._sendings = [sending for sending in self._sendings if sending.receipt not in names]
        return proofs

    def _belongs(self, sending: Sending, report: StatusReport) -> bool:
        return report.reference in sending.waiting.values() and same_phone(sending.phone, report.recipient)

    def _note(self, sending: Sending, report: StatusReport) -> None:
        part = next(number for number, reference in sending.waiting.items() if reference == report.reference)
        match report.verdict:
            case Verdict.TRYING:
                sending.trying = report.words
                return
            case Verdict.DELIVERED:
                sending.delivered.add(part)
            case Verdict.FAILED:
                sending.failed = report.words
        del sending.waiting[part]


def _proof(sending: Sending, now_s: float, limit_s: float) -> Proof | None:
    if sending.complete_s is None or now_s < sending.complete_s + _SETTLE_S:
        return None
    if sending.failed:
        return Proof(receipt=sending.receipt, delivered=False, detail=sending.failed)
    have, all_parts = len(sending.delivered), sending.parts
    if have == all_parts:
        return Proof(receipt=sending.receipt, delivered=True, detail="received by the phone")
    if now_s < sending.complete_s + limit_s:
        return None
    some = f", {have} of {all_parts} parts arrived" if all_parts > 1 else ""
    last = f"; last {sending.trying}" if sending.trying else ""
    return Proof(receipt=sending.receipt, delivered=False, detail=f"no status report within {limit_s:g} s{some}{last}")


def same_phone(one: str, other: str) -> bool:
    """Whether two spellings are one number: with the country's code, with a zero, or with neither."""
    a, b = (phone.removeprefix("+").lstrip("0") for phone in (one, other))
    short = min(len(a), len(b))
    return a == b or (short >= _SAME_DIGITS and a[-short:] == b[-short:])


@dataclass(slots=True, kw_only=True)
class _Message:
    first_s: float
    total: int
    sender: str
    sent_ms: int | None = None
    parts: dict[int, str] = field(default_factory=dict[int, str])
    marks: list[int] = field(default_factory=list[int])


@dataclass(frozen=True, slots=True, kw_only=True)
class Whole:
    """A message that somebody sent, with all its parts.

    Attributes:
        marks: what `Parts.add` was given with its parts.
        sent_ms: UTC milliseconds by the message centre's clock, of the part that came first; None: it does not say.
    """

    sender: str
    text: str
    marks: tuple[int, ...]
    sent_ms: int | None = None


class Parts:
    """Puts the parts of received messages together, in whatever order they come."""

    def __init__(self) -> None:
        self._messages: dict[tuple[str, int, int, bool], _Message] = {}

    def add(self, message: Delivered, now_s: float, mark: int | None = None) -> Whole | None:
        """The whole message, once its last part is there. A part that came before changes nothing.

        Args:
            mark: kept with the part, such as its place in the storage.
        """
        place = message.place
        marks = [] if mark is None else [mark]
        if place is None or place.total == 1:
            text = joined(message.text)
            return Whole(sender=message.sender, text=text, marks=tuple(marks), sent_ms=_sent_ms(message))
        key = _key(message.sender, place)
        if key not in self._messages and len(self._messages) >= _MESSAGES:
            self._messages.pop(next(iter(self._messages)))
        fresh = _Message(first_s=now_s, total=place.total, sender=message.sender, sent_ms=_sent_ms(message))
        held = self._messages.setdefault(key, fresh)
        held.parts.setdefault(place.number, message.text)
        held.marks += [one for one in marks if one not in held.marks]
        return self._whole(key) if len(held.parts) == held.total else None

    def overdue(self, now_s: float, limit_s: float) -> list[Whole]:
        """Messages whose missing parts are no longer waited for, … in the gaps. They are forgotten."""
        late = [key for key, held in self._messages.items() if now_s - held.first_s >= limit_s]
        return [self._whole(key) for key in late]

    def _whole(self, key: tuple[str, int, int, bool]) -> Whole:
        held = self._messages.pop(key)
        text = joined(*(held.parts.get(number, "…") for number in range(1, held.total + 1)))
        return Whole(sender=held.sender, text=text, marks=tuple(held.marks), sent_ms=held.sent_ms)


def _sent_ms(message: Delivered) -> int | None:
    return int(message.sent_at.timestamp() * 1000) if message.sent_at is not None else None


def _key(sender: str, place: Place) -> tuple[str, int, int, bool]:
    return (sender, place.reference, place.total, place.wide)
