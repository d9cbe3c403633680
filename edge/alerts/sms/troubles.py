"""What goes wrong with a modem, in words that say what to do. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from ....errors import TransientError
from ..port import Fault


class LineLostError(TransientError):
    """The port is gone: unplugged, or the modem restarts."""


class NoAnswerError(TransientError):
    """The port is there and the modem says nothing, or nothing that ends."""


class UnknownFateError(NoAnswerError):
    """A message was handed to the modem, and nobody knows whether it went out."""


class UnreadableError(NoAnswerError):
    """The answer came, and makes no sense: rubbish on the line, or a modem with a way of its own."""


class RefusedCommandError(TransientError):
    """The modem answered with an error. `said`: in its own words, as `+CMS ERROR: 38`."""

    def __init__(self, command: str, said: str) -> None:
        super().__init__(f"AT{shown(command)}: {said}")
        self.said = said


def shown(command: str) -> str:
    """A command for logs: without its value, which may be a PIN."""
    return command.split("=")[0]


class TroubleError(TransientError):
    """The modem cannot send now.

    Args:
        fault: what pages show.
        resets: a reset may help; without it the modem is only asked again from time to time.
        by_send: a refused message showed it, and only an accepted one shows that it is over.
    """

    def __init__(
        self, fault: Fault, message: str, *, hint: str = "", resets: bool = True, by_send: bool = False
    ) -> None:
        super().__init__(message, hint=hint)
        self.fault = fault
        self.resets = resets
        self.by_send = by_send


_ZH = {
    Fault.OFFLINE: "短信模块没有接好或没有网络，请查USB线、供电和天线",
    Fault.REFUSING: "短信模块、SIM卡或运营商拒绝，请查SIM卡、PIN、话费和串口权限",
    Fault.SILENT: "短信模块没有应答，会自动复位；仍不行请拔下重插",
}


def said_zh(trouble: TroubleError) -> str:
    """What to look at, in Chinese, and the trouble's own words."""
    return f"{_ZH[trouble.fault]}：{trouble}" if trouble.fault in _ZH else str(trouble)


class Cure(enum.Enum):
    """What helps against an error of the modem.

    WAIT: it passes by itself within seconds.
    RETRY: the network or the receiver's phone; nothing to do with our modem.
    RESET: the modem or its registration is stuck.
    PERSON: somebody must do something; the modem is asked again from time to time.
    """

    WAIT = "wait"
    RETRY = "retry"
    RESET = "reset"
    PERSON = "person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error of the modem: its words, ours, and what helps."""

    said: str
    meaning: str
    hint: str
    cure: Cure

    @property
    def leaves_open(self) -> bool:
        """Nobody knows what became of the message: the network may have it, and its answer was lost."""
        return self.meaning == _TIMEOUT[0]

    def __str__(self) -> str:
        meaning = f" {self.meaning}" if self.meaning else ""
        return f"{self.said}{meaning}" + (f" ({self.hint})" if self.hint else "")


_NO_SIM = ("no SIM", "put a SIM in, contacts towards the contacts", Cure.PERSON)
_PIN = ("the SIM wants its PIN", "give the PIN in the settings, or switch the PIN off in a phone", Cure.PERSON)
_PUK = ("the SIM is locked and wants its PUK", "put it into a phone and enter the PUK", Cure.PERSON)
_LOCK = ("the modem is locked to another operator's SIM", "use a modem without a SIM lock", Cure.PERSON)
_BAD_SIM = ("the SIM does not work", "seat it again; else ask the operator for a new one", Cure.RESET)
_BUSY = ("the modem or its SIM is busy", "", Cure.WAIT)
_NO_NET = ("no network", "check the antenna and that the operator covers this place", Cure.RESET)
_NET = ("the network does not take it now", "", Cure.RETRY)
_TIMEOUT = ("the network did not answer in time", "", Cure.RETRY)
_STUCK = (
    "unknown error",
    'the modem is reset; if it comes back: AT+QCFG="IMS" on Quectel, and the SIM\'s SMS service',
    Cure.RESET,
)
_BARRED = (
    "the network bars SMS for this SIM",
    "ask the operator: SMS to persons must be on, the account paid; data SIMs for things often have none",
    Cure.PERSON,
)
_CENTRE = ("no message centre number", "set the operator's SMSC number: AT+CSCA, or smsc in the settings", Cure.PERSON)
_FULL = ("the storage is full", "empty it: AT+CMGD=1,4", Cure.RETRY)
_NUMBER = ("the network does not know this number", "check the receiver's number", Cure.RETRY)
_OURS = ("the modem refuses the command", "report the modem's model and firmware", Cure.RESET)

_CMS = {
    1: _NUMBER,
    8: _BARRED,
    10: _BARRED,
    17: _NET,
    21: ("the message was rejected", "", Cure.RETRY),
    22: _NET,
    27: ("the receiver's phone is out of order", "", Cure.RETRY),
    28: _NUMBER,
    29: _BARRED,
    30: _NUMBER,
    38: ("the network is out of order", "", Cure.RETRY),
    41: _NET,
    42: ("the network is congested", "", Cure.RETRY),
    47: _NET,
    50: _BARRED,
    69: _BARRED,
    300: ("the modem itself failed", "", Cure.RESET),
    301: ("the modem's SMS service is reserved", "", Cure.RESET),
    302: _OURS,
    303: _OURS,
    304: ("the modem takes our PDU for none", "check the receiver's number", Cure.RETRY),
    305: _OURS,
    310: _NO_SIM,
    311: _PIN,
    312: _LOCK,
    313: _BAD_SIM,
    314: _BUSY,
    315: _BAD_SIM,
    316: _PUK,
    317: _PIN,
    318: _PUK,
    320: ("the storage failed", "", Cure.RESET),
    321: ("no such place in the storage", "", Cure.RETRY),
    322: _FULL,
    330: _CENTRE,
    331: _NO_NET,
    332: _TIMEOUT,
    500: _STUCK,
    515: _BUSY,
}
_CME = {
    3: _OURS,
    4: _OURS,
    5: _LOCK,
    10: _NO_SIM,
    11: _PIN,
    12: _PUK,
    13: _BAD_SIM,
    14: _BUSY,
    15: _BAD_SIM,
    16: ("the PIN is wrong", "correct it in the settings; it is not tried again", Cure.PERSON),
    17: _PIN,
    18: _PUK,
    20: _FULL,
    30: _NO_NET,
    31: _TIMEOUT,
    32: _BARRED,
    100: _STUCK,
    515: _BUSY,
}
_TEXTS = {  # of modems that answer in words
    "sim not inserted": _NO_SIM,
    "sim pin required": _PIN,
    "sim puk required": _PUK,
    "sim failure": _BAD_SIM,
    "sim busy": _BUSY,
    "sim wrong": _BAD_SIM,
    "incorrect password": _CME[16],
    "no network service": _NO_NET,
    "network timeout": _TIMEOUT,
    "smsc address unknown": _CENTRE,
    "unknown error": _STUCK,
}


def explain(said: str) -> Refusal:
    """An error of the modem, as `+CMS ERROR: 38`, `+CME ERROR: SIM busy` or `ERROR`."""
    found = re.fullmatch(r"\+(CM[ES]) ERROR: *(.*?)\s*", said)
    if not found:
        return Refusal(said=said, meaning="", hint="", cure=Cure.RETRY)
    kind, reason = found.groups()
    numbers = _CMS if kind == "CMS" else _CME
    known = numbers.get(int(reason)) if reason.isdecimal() else _TEXTS.get(reason.lower())
    meaning, hint, cure = known or ("", "see the modem's manual", Cure.RETRY)
    return Refusal(said=said.strip(), meaning=meaning, hint=hint, cure=cure)


def fault_of(refusal: Refusal) -> Fault:
    """No network is nobody there; everything else is a modem that refuses."""
    return Fault.OFFLINE if refusal.meaning == _NO_NET[0] else Fault.REFUSING
