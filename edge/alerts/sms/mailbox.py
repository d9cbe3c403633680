"""What comes in: status reports and answers of persons, directly or through the SIM's storage."""

from __future__ import annotations

import logging

from ....words import mono_s
from ..port import Events
from . import dialogue
from .answers import News
from .line import Line
from .pdu import PduError, StatusReport, decode, mask
from .tracking import Parts, Reports, Whole

_log = logging.getLogger(__name__)
_GATHER_S = 600.0  # for the parts of a message


class Mailbox:
    """Hands over what persons wrote and deletes it then: at least once, never lost while it is in the storage.

    Args:
        reports: take the status reports.

    Attributes:
        waiting: something is in the storage.
        foreign: stored messages that we did not receive (drafts, sent ones) and leave alone.
    """

    def __init__(self, reports: Reports, events: Events) -> None:
        self._reports = reports
        self._events = events
        self._parts = Parts()
        self._seen: dict[int, str] = {}
        self._handed: dict[int, str] = {}
        self.waiting = False
        self.foreign = 0

    def told(self, news: News) -> None:
        """The modem said something on its own."""
        if news.pdu:
            whole = self._take(news.pdu, None)
            if isinstance(whole, Whole):
                self._events.reply(whole.sender, whole.text, whole.sent_ms)
        elif news.name in ("+CMTI", "+CDSI") or "FULL" in f"{news.name} {news.value}".upper():
            self.waiting = True

    async def collect(self, line: Line) -> None:
        """Read the storage, hand over what is complete or will never be, delete what was handed over.

        Raises:
            NoAnswerError, LineLostError.
        """
        self.waiting = False
        messages = await dialogue.mail(line)
        self.foreign = sum(not message.is_received for message in messages)
        self._seen = {message.index: message.pdu for message in messages if message.is_received}
        for index, pdu in list(self._seen.items()):
            if index not in self._seen:
                continue  # went out with another part
            taken = self._handed.get(index) == pdu or self._take(pdu, index)
            if isinstance(taken, Whole):
                await self._hand_over(line, taken)
            elif taken:
                await self._erase(line, index)
        for whole in self._parts.overdue(mono_s(), _GATHER_S):
            await self._hand_over(line, whole)

    def _take(self, pdu: str, index: int | None) -> Whole | bool:
        """A whole message, or whether there is nothing to wait for."""
        try:
            message = decode(pdu)
        except PduError as error:
            _log.warning("sms: a received message of %d digits was thrown away: %s", len(pdu), error)
            return True
        if isinstance(message, StatusReport):
            self._reports.take(message)
            return True
        if message.is_named:  # anybody may choose a name, also one that looks like somebody's number
            _log.info("sms: a message of %s was thrown away: a name is no phone", mask(message.sender))
            return True
        return self._parts.add(message, mono_s(), index) or False

    async def _hand_over(self, line: Line, whole: Whole) -> None:
        self._events.reply(whole.sender, whole.text, whole.sent_ms)
        for index in whole.marks:
            await self._erase(line, index)

    async def _erase(self, line: Line, index: int) -> None:
        """What cannot be deleted now is known again and not handed over twice."""
        self._handed[index] = self._seen.pop(index, "")
        if await dialogue.erase(line, index):
            del self._handed[index]
