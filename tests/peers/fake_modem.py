"""A GSM modem on a pty, with a network behind it. Nothing in here is the product's: it decodes and encodes PDUs itself.

It answers on a thread of its own, keeps what it was sent, and misbehaves on command.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import threading
import time
import tty
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# 3GPP TS 23.038 table 6.2.1, a row for each high nibble, by code point.
ROWS = """
0040 00A3 0024 00A5 00E8 00E9 00F9 00EC 00F2 00C7 000A 00D8 00F8 000D 00C5 00E5
0394 005F 03A6 0393 039B 03A9 03A0 03A8 03A3 0398 039E 001B 00C6 00E6 00DF 00C9
0020 0021 0022 0023 00A4 0025 0026 0027 0028 0029 002A 002B 002C 002D 002E 002F
0030 0031 0032 0033 0034 0035 0036 0037 0038 0039 003A 003B 003C 003D 003E 003F
00A1 0041 0042 0043 0044 0045 0046 0047 0048 0049 004A 004B 004C 004D 004E 004F
0050 0051 0052 0053 0054 0055 0056 0057 0058 0059 005A 00C4 00D6 00D1 00DC 00A7
00BF 0061 0062 0063 0064 0065 0066 0067 0068 0069 006A 006B 006C 006D 006E 006F
0070 0071 0072 0073 0074 0075 0076 0077 0078 0079 007A 00E4 00F6 00F1 00FC 00E0
"""
TABLE = [chr(int(point, 16)) for point in ROWS.split()]
ESCAPED = dict(zip(bytes.fromhex("0A1428292F3C3D3E4065"), "\f^{}\\[~]|\u20ac", strict=True))


# --- PDUs ---


@dataclass(frozen=True, kw_only=True)
class Submit:
    """An SMS-SUBMIT as a message centre sees it. `reference` is the modem's own number for it."""

    phone: str
    text: str
    dcs: int
    header: bytes
    validity: int
    wants_report: bool
    hex: str
    reference: int = -1

    @property
    def joint(self) -> tuple[int, int, int] | None:
        """Reference, total and number of a part."""
        if not self.header:
            return None
        assert self.header[:3] == b"\x05\x00\x03", self.header.hex()
        return self.header[3], self.header[4], self.header[5]


def bits_to_septets(octets: bytes) -> list[int]:
    """All septets, by way of one long string of bits."""
    bits = "".join(f"{octet:08b}"[::-1] for octet in octets)
    return [int(bits[at : at + 7][::-1], 2) for at in range(0, len(bits) - 6, 7)]


def septets_to_bits(codes: list[int], fill: int = 0) -> bytes:
    bits = "0" * fill + "".join(f"{code:07b}"[::-1] for code in codes)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[at : at + 8][::-1], 2) for at in range(0, len(bits), 8))


def gsm_text(codes: list[int]) -> str:
    told, rest = "", iter(codes)
    for code in rest:
        told += ESCAPED[next(rest)] if code == 0x1B else TABLE[code]
    return told


def gsm_codes(text: str) -> list[int] | None:
    """None when the text does not fit."""
    codes: list[int] = []
    for char in text:
        if char in TABLE and char != "\x1b":
            codes.append(TABLE.index(char))
        elif char in ESCAPED.values():
            codes += [0x1B, next(code for code, one in ESCAPED.items() if one == char)]
        else:
            return None
    return codes


def decode_submit(line: str) -> Submit:
    """Strict: what is not exactly an SMS-SUBMIT fails."""
    octets = bytes.fromhex(line)
    first, at = octets[octets[0] + 1], octets[0] + 3
    assert first & 0b11 == 0b01, "SUBMIT"
    assert first & 0b11000 == 0b10000, "relative validity"
    digits, kind = octets[at], octets[at + 1]
    raw = octets[at + 2 : at + 2 + (digits + 1) // 2].hex()
    number = "".join(raw[n + 1] + raw[n] for n in range(0, len(raw), 2))
    if digits % 2:
        assert number[-1] == "f"
    phone = {0x91: "+", 0x81: ""}[kind] + number[:digits]
    assert re.fullmatch(r"\+?\d{3,20}", phone), phone
    at += 2 + (digits + 1) // 2
    assert octets[at] == 0, "protocol"
    dcs, validity, length = octets[at + 1], octets[at + 2], octets[at + 3]
    data = octets[at + 4 :]
    header = data[: data[0] + 1] if first & 0x40 else b""
    if dcs == 8:
        assert length == len(data) <= 140
        text = data[len(header) :].decode("utf-16-be")  # strict: each part by itself
    else:
        assert dcs == 0
        assert length <= 160
        assert len(data) == -(-length * 7 // 8)
        before = -(-len(header) * 8 // 7)
        text = gsm_text(bits_to_septets(data)[before:length])
    return Submit(
        phone=phone, text=text, dcs=dcs, header=header, validity=validity, wants_report=bool(first & 0x20), hex=line
    )


def swapped(digits: str) -> bytes:
    digits += "f" * (len(digits) % 2)
    return bytes.fromhex("".join(digits[n + 1] + digits[n] for n in range(0, len(digits), 2)))


def encode_address(phone: str, *, named: bool = False) -> bytes:
    if named:
        codes = gsm_codes(phone) or []
        packed = septets_to_bits(codes)
        return bytes([-(-len(codes) * 7 // 4), 0xD0]) + packed
    bare = phone.removeprefix("+")
    return bytes([len(bare), 0x91 if phone.startswith("+") else 0x81]) + swapped(bare)


SCA = bytes.fromhex("0891683108010005F0")
STAMP = bytes.fromhex("62112231410523")  # 2026-11-22 13:14:50 +08:00


def encode_deliver(
    sender: str,
    text: str | bytes,
    *,
    joint: tuple[int, int, int] | None = None,
    wide: bool = False,
    ucs2: bool = False,
    named: bool = False,
    stamp: bytes = STAMP,
    dcs: int | None = None,
) -> str:
    """Hex of an SMS-DELIVER with its SMSC. `text` as bytes goes out as 8-bit data, or as UCS2 with `ucs2`."""
    header = b""
    if joint:
        reference, total, number = joint
        element = (
            bytes([8, 4, *reference.to_bytes(2), total, number]) if wide else bytes([0, 3, reference, total, number])
        )
        header = bytes([len(element)]) + element
    codes = None if isinstance(text, bytes) or ucs2 else gsm_codes(text)
    if codes is not None:
        before = -(-len(header) * 8 // 7)
        body, length = septets_to_bits(codes, before * 7 - len(header) * 8), before + len(codes)
        coding = 0
    else:
        body = text if isinstance(text, bytes) else text.encode("utf-16-be")
        length, coding = len(header) + len(body), 4 if isinstance(text, bytes) and not ucs2 else 8
    head = bytes([0x44 if header else 0x04]) + encode_address(sender, named=named)
    tail = bytes([0, coding if dcs is None else dcs]) + stamp + bytes([length])
    return (SCA + head + tail + header + body).hex().upper()


def encode_report(reference: int, phone: str, status: int) -> str:
    """Hex of an SMS-STATUS-REPORT with its SMSC."""
    return (SCA + bytes([0x06, reference]) + encode_address(phone) + STAMP + STAMP + bytes([status])).hex().upper()


def tpdu_length(line: str) -> int:
    return len(line) // 2 - 1 - int(line[:2], 16)


# --- the modem ---


@dataclass
class Settings:
    """What a reset forgets."""

    echo: bool = True
    pdu_mode: bool = False
    numeric_errors: bool = False
    stored: int = 0  # CNMI: mt
    reports: int = 0  # CNMI: ds


@dataclass
class FakeModem:
    """`with FakeModem(folder) as modem:` is plugged in as `modem.path`.

    Attributes:
        sent: what the network took, in order.
        commands: what was said to it; PDUs as hex.
        replies: text of answers by command, for what a test wants to be different.
        mute: commands that are carried out and not answered.
        submits: what becomes of the coming messages: an error, "lost" (taken, but no answer), None for OK.
        stuck: an error for every message until `cure` is said.
        status: of the reports; None sends none. Twice with `twice`, before the modem's own answer with `early`.
        interrupt: bytes that come in the middle of every answer, each time somewhere else.
    """

    folder: Path
    path: Path = field(init=False)
    sent: list[Submit] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    replies: dict[str, str] = field(default_factory=dict)
    mute: set[str] = field(default_factory=set[str])
    submits: list[str | None] = field(default_factory=list)
    stuck: str = ""
    cure: str = "+CFUN=1"
    status: int | None = 0
    twice: bool = False
    early: bool = False
    lost_prompts: int = 0
    interrupt: bytes = b""
    slow_s: float = 0.0
    hangs: bool = False
    hang_cure: str = ""
    echo_always: bool = False
    registration: int = 1
    sim: str = "READY"
    pin: str = "1234"
    pin_tries: int = 3
    smsc: str = "+8613800100500"
    capacity: int = 10
    undeletable: bool = False
    storage: dict[int, tuple[int, str]] = field(default_factory=dict)
    waiting: list[str] = field(default_factory=list)
    next_reference: int = 250
    reboot_s: float = 0.2

    def __post_init__(self) -> None:
        self.path = self.folder / "modem"
        self._lock = threading.RLock()
        self._settings = Settings()
        self._master = self._slave = -1
        self._heard = b""
        self._pdu_length: int | None = None
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._answers = 0
        self._over = False
        self._bell = os.pipe()
        self._thread = threading.Thread(target=self._work, name="fake modem")
        self.plug()
        self._thread.start()

    def __enter__(self) -> FakeModem:
        return self

    def __exit__(self, *_: object) -> None:
        self._over = True
        self._ring()
        self._thread.join(10)
        self.unplug()
        for end in self._bell:
            os.close(end)

    # --- what a test does ---

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Phone and text of what arrived whole, as the receiving phones show it: parts joined by their reference."""
        with self._lock:
            whole: list[tuple[str, str]] = []
            held: dict[tuple[str, int, int], dict[int, str]] = {}
            for submit in self.sent:
                if submit.joint is None:
                    whole.append((submit.phone, submit.text))
                    continue
                reference, total, number = submit.joint
                parts = held.setdefault((submit.phone, reference, total), {})
                parts.setdefault(number, submit.text)
                if len(parts) == total:
                    del held[submit.phone, reference, total]
                    whole.append((submit.phone, "".join(parts[n] for n in range(1, total + 1))))
            return whole

    def said(self, start: str) -> list[str]:
        """The commands that begin so."""
        with self._lock:
            return [command for command in self.commands if command.startswith(start)]

    def say(self, raw: bytes) -> None:
        """Something unasked."""
        with self._lock:
            self._write(raw)

    def receive(self, line: str) -> None:
        """The network brings a message (hex of `encode_deliver`): stored, or straight to the host, as CNMI says."""
        with self._lock:
            if self._settings.stored == 2:
                self._write(f"\r\n+CMT: ,{tpdu_length(line)}\r\n{line}\r\n".encode())
            elif len(self.storage) >= self.capacity:
                self.waiting.append(line)
                self._write(b'\r\n^SMMEMFULL: "SM"\r\n')
            else:
                index = next(n for n in range(1, self.capacity + 1) if n not in self.storage)
                self.storage[index] = (0, line)
                if self._settings.stored == 1:
                    self._write(f'\r\n+CMTI: "SM",{index}\r\n'.encode())

    def report(self, reference: int, phone: str, status: int) -> None:
        """The network brings a status report."""
        with self._lock:
            line = encode_report(reference, phone, status)
            if self._settings.reports == 1:
                self._write(f"\r\n+CDS: {tpdu_length(line)}\r\n{line}\r\n".encode())
            elif self._settings.reports == 2:
                index = next(n for n in range(1, self.capacity + 1) if n not in self.storage)
                self.storage[index] = (0, line)
                self._write(f'\r\n+CDSI: "SM",{index}\r\n'.encode())

    def unplug(self) -> None:
        """The port goes away."""
        with self._lock:
            self.path.unlink(missing_ok=True)
            for end in (self._master, self._slave):
                if end >= 0:
                    os.close(end)
            self._master = self._slave = -1

    def plug(self) -> None:
        """The port comes back under the same name, and the modem has forgotten what it was told."""
        with self._lock:
            self.unplug()
            self.reset()
            self._master, self._slave = os.openpty()
            tty.setraw(self._slave)
            os.set_blocking(self._master, False)
            self.path.symlink_to(os.ttyname(self._slave))
        self._ring()

    def reset(self) -> None:
        """As after a power loss; the port stays."""
        with self._lock:
            self._settings = Settings(echo=True)
            self._pdu_length, self._heard = None, b""
            if self.cure == "power":
                self.stuck = ""

    def after(self, seconds: float, work: Callable[[], None]) -> None:
        with self._lock:
            self._later.append((time.monotonic() + seconds, work))
        self._ring()

    # --- the thread ---

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            os.write(self._bell[1], b"x")

    def _work(self) -> None:
        while not self._over:
            with self._lock:
                master = self._master
                wait_s = min([0.5, *(max(0.0, due - time.monotonic()) for due, _ in self._later)])
            watched = [self._bell[0]] + ([master] if master >= 0 else [])
            with contextlib.suppress(OSError, ValueError):
                ready, _, _ = select.select(watched, [], [], wait_s)
                if self._bell[0] in ready:
                    os.read(self._bell[0], 100)
            self._run_due()
            with self._lock:
                self._hear()

    def _run_due(self) -> None:
        with self._lock:
            now = time.monotonic()
            due = [work for at, work in self._later if at <= now]
            self._later = [(at, work) for at, work in self._later if at > now]
            for work in due:
                work()

    def _hear(self) -> None:
        if self._master < 0:
            return
        with contextlib.suppress(OSError):
            data = os.read(self._master, 4096)
            if self._settings.echo or self.echo_always:
                self._write(data)
            self._heard += data
        while self._master >= 0 and self._step():
            pass

    def _step(self) -> bool:
        """Whether a whole command or PDU was heard and done."""
        if self._pdu_length is not None:
            found = re.search(rb"[\x1a\x1b]", self._heard)
            if not found:
                return False
            pdu, self._heard = self._heard[: found.start()], self._heard[found.end() :]
            length, self._pdu_length = self._pdu_length, None
            if found[0] == b"\x1b":
                self._answer("\r\nOK\r\n")
            else:
                self._submit(pdu.decode("ascii", "replace").strip(), length)
            return True
        line, mark, rest = self._heard.partition(b"\r")
        if not mark:
            return False
        self._heard = rest
        command = re.search(rb"AT([^\x1b\n]*)$", line)
        if command:
            self._do(command[1].decode("ascii", "replace"))
        return True

    def _write(self, raw: bytes) -> None:
        if self._master < 0:
            return
        with contextlib.suppress(OSError):
            os.write(self._master, raw)

    def _answer(self, text: str) -> None:
        if self.hangs or (self.commands and self.commands[-1] in self.mute):
            return
        if self.slow_s:
            time.sleep(self.slow_s)
        raw = text.encode("latin-1")
        if self.interrupt:
            at = self._answers * 3 % (len(raw) + 1)
            raw = raw[:at] + self.interrupt + raw[at:]
        self._answers += 1
        self._write(raw)

    def _ok(self, *lines: str) -> None:
        self._answer("".join(f"\r\n{line}\r\n" for line in (*lines, "OK")))

    def _cms(self, number: int) -> None:
        self._answer(f"\r\n+CMS ERROR: {number}\r\n")

    def _cme(self, number: int) -> None:
        self._answer(f"\r\n+CME ERROR: {number}\r\n" if self._settings.numeric_errors else "\r\nERROR\r\n")

    # --- what it understands ---

    def _do(self, command: str) -> None:
        self.commands.append(command)
        if self.hangs:
            self.hangs = command != self.hang_cure or not command
            return
        if self.stuck and command == self.cure:
            self.stuck = ""
        name, sign, value = command.partition("=") if "=" in command else (command, "", "")
        if command in self.replies:
            self._answer(self.replies[command])
        elif name in _HANDLERS:
            _HANDLERS[name](self, value)
        elif command in _WORDS:
            self._ok(_WORDS[command])
        elif name.upper() in ("", "Z", "&F", "S0") or (sign and name in ("+CREG", "+CEREG", "+COPS", "+CSMS", "+CSCS")):
            self._ok()
        else:
            self._cme(4)

    def _set_echo(self, on: bool) -> None:
        self._settings.echo = on
        self._ok()

    def _set_errors(self, value: str) -> None:
        self._settings.numeric_errors = value == "1"
        self._ok()

    def _set_mode(self, value: str) -> None:
        if value not in ("0", "1"):
            self._ok("+CMGF: (0,1)")
            return
        self._settings.pdu_mode = value == "0"
        self._ok()

    def _set_notices(self, value: str) -> None:
        parts = value.split(",")
        if value == "?" or len(parts) != 5:
            self._ok("+CNMI: (0,1,2),(0,1,2),(0),(0,1,2),(0)")
            return
        self._settings.stored, self._settings.reports = int(parts[1]), int(parts[3])
        self._ok()

    def _set_store(self, value: str) -> None:
        if value == "?":
            self._ok('+CPMS: ("SM"),("SM"),("SM")')
        elif '"ME"' in value or '"MT"' in value:
            self._cms(302)
        else:
            self._ok("+CPMS: " + ",".join([f"{len(self.storage)},{self.capacity}"] * 3))

    def _tell_store(self, _: str) -> None:
        self._ok("+CPMS: " + ",".join([f'"SM",{len(self.storage)},{self.capacity}'] * 3))

    def _set_function(self, value: str) -> None:
        self._ok()
        if value == "1,1":
            self.unplug()
            self.after(self.reboot_s, self.plug)

    def _tell_sim(self, _: str) -> None:
        if self.sim == "absent":
            self._cme(10)
        elif self.sim == "busy":
            self.sim = "READY"
            self._cme(14)
        else:
            self._ok(f"+CPIN: {self.sim}")

    def _set_pin(self, value: str) -> None:
        if self.sim != "SIM PIN":
            self._cme(3)
        elif value.strip('"') == self.pin:
            self.sim, self.pin_tries = "READY", 3
            self._ok()
        else:
            self.pin_tries -= 1
            self.sim = "SIM PIN" if self.pin_tries else "SIM PUK"
            self._cme(16)

    def _set_centre(self, value: str) -> None:
        self.smsc = value.split('"')[1]
        self._ok()

    def _list(self, value: str) -> None:
        wanted = {"0": (0,), "1": (1,), "2": (2,), "3": (3,), "4": (0, 1, 2, 3)}.get(value)
        if not self._settings.pdu_mode or wanted is None:
            self._cms(302 if value != "?" else 303)
            return
        lines = ""
        for index, (state, line) in sorted(self.storage.items()):
            if state in wanted:
                lines += f"\r\n+CMGL: {index},{state},,{tpdu_length(line)}\r\n{line}"
                self.storage[index] = (state or 1, line)
        self._answer(lines + ("\r\n" if lines else "") + "\r\nOK\r\n")

    def _read_one(self, value: str) -> None:
        held = self.storage.get(int(value)) if value.isdecimal() else None
        if held is None:
            self._cms(321)
            return
        self.storage[int(value)] = (held[0] or 1, held[1])
        self._ok(f"+CMGR: {held[0]},,{tpdu_length(held[1])}\r\n{held[1]}")

    def _delete(self, value: str) -> None:
        if self.undeletable:
            self._cms(320)
            return
        if value == "?":
            self._ok(f"+CMGD: ({','.join(map(str, self.storage))}),(0-4)")
            return
        self.storage.pop(int(value.split(",")[0]), None)
        self._ok()
        while self.waiting and len(self.storage) < self.capacity:
            self.receive(self.waiting.pop(0))

    def _begin_submit(self, value: str) -> None:
        if not self._settings.pdu_mode:
            self._cms(302)
            return
        self._pdu_length = int(value)
        if self.lost_prompts:
            self.lost_prompts -= 1
        else:
            self._answer("\r\n> ")

    def _submit(self, line: str, length: int) -> None:
        self.commands.append(line)
        scripted = self.submits.pop(0) if self.submits else None
        if self.stuck or (scripted and scripted != "lost"):
            self._answer(f"\r\n{self.stuck or scripted}\r\n")
            return
        if self.registration not in (1, 5):
            self._cms(331)
            return
        try:
            submit = decode_submit(line)
        except (AssertionError, ValueError, LookupError) as error:
            self.commands.append(f"cannot decode: {error}")
            self._cms(304)
            return
        if tpdu_length(line) != length:
            self._cms(304)
            return
        reference, self.next_reference = self.next_reference, (self.next_reference + 1) % 256
        self.sent.append(Submit(**{**vars(submit), "reference": reference}))
        if self.early:
            self._report_back(submit, reference)
        if scripted != "lost":
            self._ok(f"+CMGS: {reference}")
        if not self.early:
            self._report_back(submit, reference)

    def _report_back(self, submit: Submit, reference: int) -> None:
        status = self.status
        if status is None or not submit.wants_report:
            return
        for _ in range(1 + self.twice):
            if self.early:
                self.report(reference, submit.phone, status)
            else:
                self.after(0.05, lambda: self.report(reference, submit.phone, status))


_WORDS = {
    "I": "Fake modem",
    "+CGMI": "Sitewarden",
    "+CGMM": "Fake",
    "+CGMR": "1.0",
    "+CGSN": "490154203237518",
    "+CIMI": "460001234567890",
    "+CSQ": "+CSQ: 20,99",
    "+COPS?": '+COPS: 0,0,"OK",7',
    "+CSMS?": "+CSMS: 0,1,1,1",
    "+CSCS?": '+CSCS: "GSM"',
    "+CSCS=?": '+CSCS: ("GSM")',
    "+CMGF?": "+CMGF: 0",
    "+CFUN?": "+CFUN: 1",
    "+CBC": "+CBC: 0,100",
}
_HANDLERS: dict[str, Callable[[FakeModem, str], None]] = {
    "E0": lambda modem, _: modem._set_echo(False),
    "E1": lambda modem, _: modem._set_echo(True),
    "+CMEE": FakeModem._set_errors,
    "+CMGF": FakeModem._set_mode,
    "+CNMI": FakeModem._set_notices,
    "+CPMS": FakeModem._set_store,
    "+CPMS?": FakeModem._tell_store,
    "+CFUN": FakeModem._set_function,
    "+CPIN?": FakeModem._tell_sim,
    "+CPIN": FakeModem._set_pin,
    "+CSCA?": lambda modem, _: modem._ok(f'+CSCA: "{modem.smsc}",{145 if modem.smsc else 129}'),
    "+CSCA": FakeModem._set_centre,
    "+CREG?": lambda modem, _: modem._ok(f"+CREG: 0,{modem.registration}"),
    "+CEREG?": lambda modem, _: modem._ok(f"+CEREG: 0,{modem.registration}"),
    "+CMGL": FakeModem._list,
    "+CMGR": FakeModem._read_one,
    "+CMGD": FakeModem._delete,
    "+CMGS": FakeModem._begin_submit,
}


@contextlib.contextmanager
def plugged(folder: Path) -> Iterator[FakeModem]:
    """A modem for a test."""
    with FakeModem(folder) as modem:
        yield modem
