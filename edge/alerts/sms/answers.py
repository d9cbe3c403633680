"""What a modem says, taken apart: its answers, and what it says on its own between any two bytes of them. Pure.

A modem writes `<CR><LF>text<CR><LF>`. What it says unasked is cut out of the stream, and the answer around it is whole
again. Where a modem leaves a CR LF out, the same cut would join two lines: an answer is looked for in both readings.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

_END = b"\r\n"
_CUT = b"\x1e"
_LONGEST = 2048
_KEPT = 65_536  # of a modem that never stops talking
_NEWS = re.compile(
    rb"(?:\r\n|\A|\x1e)(?:(?P<name>[+^*%$][A-Z0-9]{2,12}): ?(?P<value>[^\r\n\x1e]*)|(?P<word>RING|RDY|NO CARRIER|"
    rb"SMS DONE|SMS READY|SMS Ready|PB DONE|CALL READY|Call Ready|NORMAL POWER DOWN|POWERED DOWN))(?=\r\n)"
)
_MESSAGE = re.compile(
    rb"(?:\r\n|\A|\x1e)(?P<name>\+CMT|\+CDS): ?(?P<value>[^\r\n\x1e]*)\r\n"
    rb"(?P<pdu>[0-9A-Fa-f]*)(?P<text>[^\r\n\x1e]*)(?=\r\n|\x1e)"
)
_FINAL = re.compile(rb"(?:\A|[\r\n])[^\x21-\x7e]*(?P<word>OK|ERROR|\+CM[ES] ERROR:[^\r\n]*)[^\x21-\x7e]*[\r\n]")
_LENGTH = re.compile(rb'(?:(?:"[^"]*")?, ?)?(\d+)\s*')  # what stands before a PDU; text mode has more
_PROMPT = re.compile(rb"(?:\A|[\r\n])[^\x21-\x7e]*>")
_REBOOTED = ("RDY", "^SYSSTART", "NORMAL POWER DOWN", "POWERED DOWN", "+CFUN")


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What the modem said on its own.

    Attributes:
        name: `+CMTI`, `+CDS`, `RING`.
        value: what stands behind the colon.
        pdu: hex of the message that came with it.
    """

    name: str
    value: str = ""
    pdu: str = ""

    @property
    def is_restart(self) -> bool:
        """It was reset and has forgotten what it was told. A message in text mode says so too."""
        return self.name in _REBOOTED or (self.name == "+CMT" and not self.pdu)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The end of an answer and what stood before it.

    Attributes:
        text: everything since the question.
        error: empty for OK, else `ERROR` or the whole `+CMS ERROR: 38`.
    """

    text: str
    error: str = ""


class Stream:
    """The modem's bytes as they come. `ask` before each question."""

    def __init__(self) -> None:
        self._held = b""
        self._cuts: list[int] = []  # where news stood
        self._begin = 0
        self._asked = ""

    def ask(self, name: str) -> None:
        """A question goes out whose answer is called `name`, as `+CSQ`; empty when it is `OK` alone."""
        self._drop(max(0, len(self._held) - _LONGEST))  # a message may have come by half
        self._begin = len(self._held)
        self._asked = name

    def feed(self, data: bytes) -> list[News]:
        """Take bytes; what they hold of news, in order."""
        self._held += data.translate(None, b"\0" + _CUT)
        news: list[News] = []
        while one := self._take():
            news.append(one)
        if len(self._held) > _KEPT:
            self._drop(len(self._held) - _KEPT // 2)
        return news

    @property
    def prompted(self) -> bool:
        """The modem waits for the PDU."""
        return any(_PROMPT.search(view) for view in self._answer_views())

    @property
    def text(self) -> str:
        """Since the question."""
        return self._held[self._begin :].decode("latin-1")

    @property
    def answer(self) -> Answer | None:
        """The answer, when it is complete."""
        for view in self._answer_views():
            if final := _FINAL.search(view):
                word = final["word"].decode("latin-1").strip()
                return Answer(text=view[: final.start()].decode("latin-1"), error="" if word == "OK" else word)
        return None

    def _answer_views(self) -> tuple[bytes, bytes]:
        return self._held[self._begin :], self._split(self._begin, _END)

    def _split(self, begin: int, mark: bytes) -> bytes:
        """From there, with a mark wherever news stood."""
        edges = [begin, *(cut for cut in self._cuts if cut > begin), len(self._held)]
        return mark.join(self._held[a:b] for a, b in itertools.pairwise(edges))

    def _take(self) -> News | None:
        """The next news, cut out. Short ones first, as they may stand within a message."""
        for finds in (_short, _message):
            found = [(one.start(), one.end(), one) for one in finds(self._held, self._asked)]
            if self._cuts:
                split = self._split(0, _CUT)
                found += [
                    (self._unsplit(one.start()), self._unsplit(one.end()), one) for one in finds(split, self._asked)
                ]
            if found:
                # The one that ends first; of two readings of it the shorter, as the line end before may be another's.
                begin, end, one = min(found, key=lambda each: (each[1], -each[0]))
                self._cut(begin, end)
                return _news(one)
        return None

    def _unsplit(self, at: int) -> int:
        """Where a place of `_split(0, _CUT)` is."""
        for cut in (cut for cut in self._cuts if cut > 0):
            if at <= cut:
                break
            at -= len(_CUT)
        return at

    def _cut(self, begin: int, end: int) -> None:
        if self._held.startswith(_END, end):  # looked at and not taken, as it may begin the next line
            end += len(_END)
        size = end - begin
        self._held = self._held[:begin] + self._held[end:]
        moved = {at if at <= begin else max(begin, at - size) for at in self._cuts}
        self._cuts = sorted(moved | {begin})
        self._begin = self._begin if self._begin <= begin else max(begin, self._begin - size)

    def _drop(self, count: int) -> None:
        self._held = self._held[count:]
        self._cuts = [at - count for at in self._cuts if at > count]
        self._begin = max(0, self._begin - count)


def _short(view: bytes, asked: str) -> list[re.Match[bytes]]:
    """The first news of one line, if any."""
    for found in _NEWS.finditer(view):
        if found["word"] or found["name"].decode() not in ("+CMT", "+CDS", asked):
            return [found]
    return []


def _message(view: bytes, _: str) -> list[re.Match[bytes]]:
    """The first message that is all there, if any."""
    return [found for found in _MESSAGE.finditer(view) if _whole(found)][:1]


def _whole(found: re.Match[bytes]) -> bool:
    """All of a PDU, as its header counts it; or a line in text mode."""
    length = _LENGTH.fullmatch(found["value"])
    if length is None:
        return found["value"].startswith(b'"')
    if found["text"] or len(found["pdu"]) < 2:
        return False
    return len(found["pdu"]) >= 2 * (1 + int(found["pdu"][:2], 16) + int(length[1]))


def _news(found: re.Match[bytes]) -> News:
    parts = {key: (raw or b"").decode("latin-1").strip() for key, raw in found.groupdict().items()}
    in_pdu_mode = _LENGTH.fullmatch(found["value"] or b"") is not None
    return News(
        name=parts["name"] or parts["word"],
        value=parts["value"],
        pdu=parts["pdu"] if "pdu" in parts and in_pdu_mode else "",
    )


# --- what is in an answer ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A message in the SIM's storage. `state`: 0 unread, 1 read, 2 unsent, 3 sent."""

    index: int
    state: int
    pdu: str

    @property
    def is_received(self) -> bool:
        return self.state in (0, 1)


REGISTERED = {1: "home", 5: "roaming", 6: "home, SMS only", 7: "roaming, SMS only", 9: "home", 10: "roaming"}
UNREGISTERED = {0: "not searching", 2: "searching", 3: "denied", 4: "unknown", 8: "emergency calls only"}
DENIED = 3


def registration(text: str) -> int | None:
    """The state of `+CREG: <n>,<state>`, None when there is none."""
    found = re.search(r"\+C(?:E|G)?REG: ?\d, ?(\d+)", text)
    return int(found[1]) if found else None


def signal(text: str) -> dict[str, int | None] | None:
    """Facts of `+CSQ: <rssi>,<ber>`; bars as a telephone shows them: below -93 dBm messages begin to fail."""
    found = re.search(r"\+CSQ: ?(\d+), ?\d+", text)
    if not found:
        return None
    rssi = int(found[1])
    dbm = -113 + 2 * rssi if rssi <= 31 else rssi - 216 if 100 <= rssi <= 191 else None
    bars = 0 if dbm is None else sum(dbm >= limit for limit in (-109, -93, -83, -73))
    return {"signal_dbm": dbm, "signal_bars": bars}


def operator(text: str) -> str | None:
    """The name in `+COPS: 0,0,"CHINA MOBILE",7`, empty when there is none."""
    return _quoted(r"\+COPS: ?\d, ?\d, ?", text) if "+COPS:" in text else None


def centre(text: str) -> str | None:
    """The number in `+CSCA: "+8613800100500",145`; None when the answer is none. Some modems write it in UCS2."""
    if not re.search(r'\+CSCA: ?"[^"]*"', text):
        return None
    number = _quoted(r"\+CSCA: ?", text)
    if re.fullmatch(r"(?:00[0-9A-Fa-f]{2})+", number) and len(number) > 12:
        return bytes.fromhex(number).decode("utf-16-be", "replace")
    return number


def room(text: str) -> tuple[int, int] | None:
    """Used and total places of `+CPMS: 3,50,…`, or of the answer to a question, which names them."""
    found = re.search(r'\+CPMS: ?(?:"\w+",)?(\d+), ?(\d+)', text)
    return (int(found[1]), int(found[2])) if found else None


def stored(text: str) -> list[Stored]:
    """The messages of AT+CMGL in PDU mode."""
    return [
        Stored(index=int(found[1]), state=int(found[2]), pdu=found[3])
        for found in re.finditer(r"\+CMGL: ?(\d+), ?(\d+),[^\r\n]*[\r\n]+([0-9A-Fa-f]+)", text)
    ]


def sim_state(text: str) -> str | None:
    """Of `+CPIN: READY`."""
    found = re.search(r"\+CPIN: ?([A-Z0-9 -]+)", text)
    return found[1].strip() if found else None


def subscriber(text: str) -> str:
    """The IMSI, a line of digits; its middle is left out, for people to know which SIM it is."""
    found = re.search(r"(?:\A|[\r\n])(\d{14,15})\s*(?:[\r\n]|\Z)", text)
    return f"{found[1][:5]}…{found[1][-4:]}" if found else ""


def message_reference(text: str) -> int | None:
    """The number that `+CMGS: 12` gives a message; None when it cannot be read, as when rubbish stands behind it."""
    found = re.search(r"\+CMGS: ?(\d{1,3})(?:,[^\r\n]*)?\s*\Z", text)
    return int(found[1]) & 0xFF if found else None


def _quoted(before: str, text: str) -> str:
    found = re.search(before + r'"([^"\r\n]*)"', text)
    return found[1] if found else ""
