"""SMS PDUs (3GPP TS 23.040 and 23.038): SUBMIT is encoded, DELIVER and STATUS-REPORT are decoded. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone

from ....errors import PermanentError
from . import alphabet

PARTS_LIMIT = 255  # the number of a part is one octet
_SUBMIT, _RELATIVE_VALIDITY, _REPORT_WANTED, _HEADED = 0x01, 0x10, 0x20, 0x40
_INTERNATIONAL, _UNKNOWN, _ALPHANUMERIC = 0x91, 0x81, 5
_DIGITS = "0123456789*#abc"
_MINUTE, _HOUR, _DAY, _WEEK = 60, 3600, 86_400, 604_800


class PduError(PermanentError):
    """What cannot be a message: a number that is none, a text that is too long, octets that mean nothing."""


class Coding(enum.Enum):
    """How characters stand in the octets."""

    GSM7 = 0x00
    OCTETS = 0x04
    UCS2 = 0x08


_ROOM = {Coding.GSM7: (160, 153), Coding.UCS2: (70, 67)}  # alone, as one of several


@dataclass(frozen=True, slots=True, kw_only=True)
class Submit:
    """One SMS-SUBMIT: a message, or a part of one. `length` is what AT+CMGS wants: octets without the SMSC."""

    tpdu: bytes

    @property
    def length(self) -> int:
        return len(self.tpdu)

    @property
    def hex(self) -> str:
        """With an empty SMSC before it: the SIM's own is used."""
        return "00" + self.tpdu.hex().upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a part belongs: part `number` (from 1) of `total` of the sender's message `reference`.

    Attributes:
        wide: the reference has 16 bits; the 8-bit one of the same number is another.
    """

    reference: int
    total: int
    number: int
    wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """One SMS-DELIVER: what somebody sent us.

    Attributes:
        sender: `+` and digits when the network says so, else digits; the name where `is_named`.
        is_named: an alphanumeric sender. Anybody may choose one, also one that looks like a number: never a phone.
        text: a part may end in half of a surrogate pair; `joined` mends it.
        sent_at: by the message centre's clock; None when that is no time.
    """

    sender: str
    is_named: bool
    text: str
    place: Place | None
    sent_at: datetime | None


class Verdict(enum.StrEnum):
    """What a status report says of a message."""

    DELIVERED = "delivered"
    TRYING = "trying"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """One SMS-STATUS-REPORT.

    Attributes:
        reference: TP-MR, as AT+CMGS answered it.
        recipient: as `Delivered.sender`.
        status: the TP-ST octet.
    """

    reference: int
    recipient: str
    status: int

    @property
    def verdict(self) -> Verdict:
        """Only a centre that says "received" is proof; "forwarded, cannot say whether it came" is none."""
        if self.status == 0:
            return Verdict.DELIVERED
        return Verdict.TRYING if 0x20 <= self.status < 0x40 else Verdict.FAILED

    @property
    def words(self) -> str:
        """The network's reason, with its number."""
        return f"status 0x{self.status:02X}: {_STATUS.get(self.status) or _group(self.status)}"


# --- SUBMIT ---


def clean_number(phone: str) -> str:
    """`+` and digits, or digits; 0086… is +86…: not every message centre dials 00. Raises PduError for what is none."""
    bare = re.sub(r"^00(?=[1-9]\d{6})", "+", re.sub(r"[\s().-]", "", phone))
    if not re.fullmatch(r"\+?[0-9]{3,20}", bare):
        raise PduError(
            f"the phone number {mask(phone)} is none: {len(bare)} characters",
            hint="write + and the country's code, or the national number, 3 to 20 digits",
        )
    return bare


def mask(phone: str) -> str:
    """A number for logs: its last four characters."""
    return f"…{phone[-4:]}" if len(phone) > 4 else phone or '""'


def coding_of(text: str) -> Coding:
    """GSM 7-bit where it fits, else UCS2."""
    return Coding.GSM7 if alphabet.fits(text) else Coding.UCS2


def split(text: str) -> tuple[str, ...]:
    """The text as the parts that carry it, one when it fits. No surrogate pair and no escape pair is cut."""
    coding = coding_of(text)
    alone, shared = _ROOM[coding]
    if sum(_width(char, coding) for char in text) <= alone:
        return (text,)
    parts, begin, used = [], 0, 0
    for at, char in enumerate(text):
        width = _width(char, coding)
        if used + width > shared:
            parts.append(text[begin:at])
            begin, used = at, 0
        used += width
    return (*parts, text[begin:])


def cut(text: str, parts: int) -> str:
    """The text, or as much of its beginning as goes into `parts` parts with an ellipsis behind it."""
    if len(split(text)) <= parts:
        return text
    dots = "..." if coding_of(text) is Coding.GSM7 else "…"
    low, high = 0, len(text)
    while low < high:  # the longest beginning that fits
        middle = (low + high + 1) // 2
        fits = len(split(text[:middle].rstrip() + dots)) <= parts
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low].rstrip() + dots


def submits(phone: str, text: str, *, reference: int, validity_s: float, report: bool) -> tuple[Submit, ...]:
    """The PDUs of one message.

    Args:
        phone: international with `+`, or national.
        text: half a surrogate pair becomes U+FFFD.
        reference: joins the parts of a message at the receiver, 0..255; not used for a message of one part.
        validity_s: how long the network keeps trying; rounded up to what it can express, 5 minutes to 63 weeks.
        report: ask for status reports (TP-SRR).

    Raises:
        PduError: no such number, or the text needs more than 255 parts.
    """
    address = _address(clean_number(phone))
    text = joined(text)
    parts = split(text)
    if len(parts) > PARTS_LIMIT:
        raise PduError(f"the text needs {len(parts)} parts of an SMS", hint=f"at most {PARTS_LIMIT} are possible")
    coding = coding_of(text)
    first = _SUBMIT | _RELATIVE_VALIDITY | (_REPORT_WANTED if report else 0) | (_HEADED if len(parts) > 1 else 0)
    made = []
    for number, part in enumerate(parts, 1):
        header = bytes((5, 0, 3, reference & 0xFF, len(parts), number)) if len(parts) > 1 else b""
        head = bytes((first, 0)) + address + bytes((0, coding.value, _validity(validity_s)))
        made.append(Submit(tpdu=head + _user_data(part, coding, header)))
    return tuple(made)


def _width(char: str, coding: Coding) -> int:
    return len(alphabet.septets(char)) if coding is Coding.GSM7 else 2 if ord(char) > 0xFFFF else 1


def _user_data(text: str, coding: Coding, header: bytes) -> bytes:
    """TP-UDL and TP-UD: septets are counted with the header, octets too."""
    if coding is Coding.UCS2:
        octets = header + text.encode("utf-16-be")
        return bytes((len(octets),)) + octets
    codes = alphabet.septets(text)
    before, fill_bits = _header_septets(len(header))
    return bytes((before + len(codes),)) + header + alphabet.pack(codes, fill_bits)


def _header_septets(octets: int) -> tuple[int, int]:
    """Septets that a header takes, and the zero bits that fill it up to their end."""
    count = -(-octets * 8 // 7)
    return count, count * 7 - octets * 8


def _address(phone: str) -> bytes:
    digits = phone.removeprefix("+")
    kind = _INTERNATIONAL if phone.startswith("+") else _UNKNOWN
    padded = digits + "F" * (len(digits) % 2)
    swapped = "".join(padded[at + 1] + padded[at] for at in range(0, len(padded), 2))
    return bytes((len(digits), kind)) + bytes.fromhex(swapped)


def _validity(seconds: float) -> int:
    """TP-VP, relative (TS 23.040 §9.2.3.12.1)."""
    if seconds <= 12 * _HOUR:
        return max(0, _up(seconds, 5 * _MINUTE) - 1)
    if seconds <= _DAY:
        return 143 + _up(seconds - 12 * _HOUR, 30 * _MINUTE)
    if seconds <= 30 * _DAY:
        return 166 + _up(seconds, _DAY)
    return min(255, 192 + max(5, _up(seconds, _WEEK)))


def _up(seconds: float, unit: float) -> int:
    return int(-(-seconds // unit))


# --- DELIVER and STATUS-REPORT ---


def decode(pdu: str) -> Delivered | StatusReport:
    """What a modem shows after +CMT, +CDS, +CMGL: hex, with the SMSC before it.

    Raises:
        PduError: it is neither a DELIVER nor a STATUS-REPORT.
    """
    try:
        octets = _Octets(bytes.fromhex(pdu))
    except ValueError:
        raise PduError(f"not hex: {pdu[:20]!r}") from None
    octets.take(octets.one("the SMSC"), "the SMSC")
    first = octets.one("the type")
    match first & 0x03:
        case 0:
            return _deliver(octets, headed=bool(first & _HEADED))
        case 2:
            return _status_report(octets)
        case kind:
            raise PduError(f"a PDU of type {kind} is neither a received message nor a status report")


def joined(*texts: str) -> str:
    """The parts of a text as one; a surrogate pair that a sender cut in two is whole again, half a pair is U+FFFD."""
    return "".join(texts).encode("utf-16-be", "surrogatepass").decode("utf-16-be", "replace")


class _Octets:
    """Octets, taken from the front."""

    def __init__(self, octets: bytes) -> None:
        self._octets = octets
        self._at = 0

    def take(self, count: int, what: str) -> bytes:
        taken = self._octets[self._at : self._at + count]
        if len(taken) < count:
            raise PduError(f"the PDU ends within {what}: {len(taken)} of {count} octets")
        self._at += count
        return taken

    def one(self, what: str) -> int:
        return self.take(1, what)[0]


def _deliver(octets: _Octets, *, headed: bool) -> Delivered:
    sender, is_named = _sender(octets, "the sender")
    octets.one("the protocol")
    coding = _coding(octets.one("the coding"))
    sent_at = _time(octets.take(7, "the time"))
    length = octets.one("the length")
    data = octets.take(-(-length * 7 // 8) if coding is Coding.GSM7 else length, "the text")
    header = data[: data[0] + 1] if headed and data else b""
    if headed and (not data or len(header) < data[0] + 1):
        raise PduError("the header is longer than the message")
    text = _text(coding, data, length, len(header))
    return Delivered(sender=sender, is_named=is_named, text=text, place=_place(header[1:]), sent_at=sent_at)


def _status_report(octets: _Octets) -> StatusReport:
    reference = octets.one("the reference")
    recipient, _ = _sender(octets, "the recipient")
    octets.take(14, "the times")
    return StatusReport(reference=reference, recipient=recipient, status=octets.one("the status"))


def _sender(octets: _Octets, what: str) -> tuple[str, bool]:
    """An address: the number or name, and whether it is a name."""
    count, kind = octets.take(2, what)
    if count > 20:
        raise PduError(f"{what} has {count} digits; at most 20 are possible")
    raw = octets.take((count + 1) // 2, what)
    if kind >> 4 & 7 == _ALPHANUMERIC:
        return alphabet.text_of(alphabet.unpack(raw, count * 4 // 7)), True
    nibbles = [nibble for octet in raw for nibble in (octet & 15, octet >> 4)][:count]
    if any(nibble >= len(_DIGITS) for nibble in nibbles):
        raise PduError(f"{what} has digits that are none: {raw.hex()}")
    number = "".join(_DIGITS[nibble] for nibble in nibbles)
    return (f"+{number}" if kind >> 4 & 7 == 1 else number), False


def _coding(scheme: int) -> Coding:
    """TP-DCS (TS 23.038 §4)."""
    group = scheme >> 4
    if group < 8:
        if scheme & 0x20:
            raise PduError(f"the text is compressed (coding 0x{scheme:02X}), which nobody does")
        return (Coding.GSM7, Coding.OCTETS, Coding.UCS2, Coding.GSM7)[scheme >> 2 & 3]
    if group == 0xE:
        return Coding.UCS2
    return Coding.OCTETS if group == 0xF and scheme & 4 else Coding.GSM7


def _text(coding: Coding, data: bytes, length: int, header: int) -> str:
    if coding is Coding.GSM7:
        before, fill_bits = _header_septets(header)
        if length < before:
            raise PduError("the header is longer than the message")
        return alphabet.text_of(alphabet.unpack(data[header:], length - before, fill_bits))
    body = data[header:]
    if coding is Coding.OCTETS:
        return body.decode("latin-1")
    if len(body) % 2:
        raise PduError(f"a UCS2 text of {len(body)} octets: half a character")
    return body.decode("utf-16-be", "surrogatepass")


def _place(elements: bytes) -> Place | None:
    """The concatenation element of a user data header; None without one, or with one that makes no sense."""
    place, at = None, 0
    while at < len(elements):
        name, size = elements[at], elements[at + 1] if at + 1 < len(elements) else 0
        value = elements[at + 2 : at + 2 + size]
        at += 2 + size
        if (name, len(value)) in ((0x00, 3), (0x08, 4)):
            *reference, total, number = value
            if 1 <= number <= total:
                wide = name == 0x08
                place = Place(reference=int.from_bytes(reference), total=total, number=number, wide=wide)
    return place


def _time(raw: bytes) -> datetime | None:
    """TP-SCTS: swapped digits; the last octet counts quarters of an hour east of UTC, bit 3 means west."""
    pairs = [(octet & 15, octet >> 4) for octet in raw]
    year, month, day, hour, minute, second = (tens * 10 + ones for tens, ones in pairs[:6])
    tens, ones = pairs[6]
    quarters = ((tens & 7) * 10 + ones) * (-1 if tens & 8 else 1)
    try:
        zone = timezone(timedelta(minutes=15 * quarters))
        return datetime(2000 + year, month, day, hour, minute, second, tzinfo=zone).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


_STATUS = {
    0x00: "the phone has received it",
    0x01: "forwarded; the message centre cannot say whether it came",
    0x02: "replaced by the message centre",
    0x20: "congestion; still trying",
    0x21: "the phone is busy; still trying",
    0x22: "no response from the phone; still trying",
    0x23: "service rejected; still trying",
    0x24: "quality of service not available; still trying",
    0x25: "error in the phone; still trying",
    0x40: "remote procedure error",
    0x41: "incompatible destination",
    0x42: "connection rejected by the phone",
    0x43: "not obtainable: no such number in service",
    0x44: "quality of service not available",
    0x45: "no interworking with the other network",
    0x46: "validity period over: the phone was off or out of reach",
    0x47: "deleted by the sender",
    0x48: "deleted by the message centre",
    0x49: "the message does not exist",
    0x60: "congestion; given up",
    0x61: "the phone is busy; given up",
    0x62: "no response from the phone; given up",
    0x63: "service rejected; given up",
    0x64: "quality of service not available; given up",
    0x65: "error in the phone; given up",
}


_GROUPS = (
    (0x20, "completed, in words of the message centre's own: no proof"),
    (0x40, "temporary error; still trying"),
    (0x60, "permanent error"),
    (0x80, "temporary error; given up"),
)


def _group(status: int) -> str:
    return next((words for limit, words in _GROUPS if status < limit), "reserved; counts as rejected")
