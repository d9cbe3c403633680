"""One message through the modem: all its parts or FAILED."""

from __future__ import annotations

import asyncio
import secrets
from dataclasses import dataclass

from ....words import mono_s
from ..port import Outcome, Sent
from ..threads import apart
from . import dialogue
from .line import Line
from .memory import Memory
from .pdu import Submit, cut, mask, split, submits
from .tracking import Reports, Sending
from .troubles import Cure, NoAnswerError, Refusal, RefusedCommandError, UnknownFateError, explain

LEAST_S = 5.0  # a part is not begun with less time
_TRIES = 3
_PAUSE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SendTimes:
    """Seconds: see `SmsSettings`."""

    validity_s: float
    report_s: float
    submit_s: float


@dataclass(slots=True, kw_only=True)
class Job:
    """One message on its way through the modem.

    Attributes:
        deadline_s: monotonic seconds.
        done: takes the answer; cancelled when nobody waits for it.
    """

    phone: str
    text: str
    deadline_s: float
    done: asyncio.Future[Sent]
    started: bool = False

    @property
    def rest_s(self) -> float:
        """Seconds left; none when nobody waits for the answer."""
        return -1.0 if self.done.done() else self.deadline_s - mono_s()

    def end(self, sent: Sent) -> None:
        """Answer it, unless it was answered."""
        if not self.done.done():
            self.done.set_result(sent)


class NotSentError(Exception):
    """A part was not taken. `refusal`: the modem's answer, None when it gave none. `uncertain`: it may have been."""

    def __init__(self, message: str, refusal: Refusal | None, *, uncertain: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.refusal = refusal
        self.uncertain = uncertain

    @property
    def sent(self) -> Sent:
        """The answer to who sent it."""
        if self.refusal is not None and self.refusal.cure is Cure.WAIT and not self.uncertain:
            return Sent(outcome=Outcome.LATER, detail=self.message, retry_s=5.0)
        return Sent(outcome=Outcome.FAILED, detail=self.message, uncertain=self.uncertain)


async def submit(line: Line, job: Job, times: SendTimes, parts_max: int, memory: Memory, reports: Reports) -> Sent:
    """Hand every part over; ACCEPTED.

    Raises:
        NotSentError: a part was not taken; none or some of the others were.
        LineLostError.
    """
    text = cut(job.text, parts_max)
    reference = await apart(memory.next_reference) if len(split(text)) > 1 else 0
    wants = times.report_s > 0
    pdus = submits(job.phone, text, reference=reference, validity_s=times.validity_s, report=wants)
    sending = reports.begin(secrets.token_hex(8), job.phone, len(pdus))
    try:
        await _submit_all(line, job, times, pdus, reports, sending)
    except BaseException:
        reports.drop(sending)
        raise
    reports.complete(sending, mono_s())
    if not wants:
        reports.drop(sending)
    shortened = "" if text == job.text else f", cut to {len(text)} of {len(job.text)} characters"
    detail = f"{len(pdus)} part{'s' * (len(pdus) > 1)} to {mask(job.phone)} taken by the network{shortened}"
    return Sent(outcome=Outcome.ACCEPTED, detail=detail, receipt=sending.receipt if wants else "")


async def _submit_all(
    line: Line, job: Job, times: SendTimes, pdus: tuple[Submit, ...], reports: Reports, sending: Sending
) -> None:
    """Every part; once one was taken, those that were not are tried again, under the same reference."""
    missing, uncertain = dict(enumerate(pdus, 1)), False
    for tries in range(1, _TRIES + 1):
        try:
            for number, pdu in list(missing.items()):
                reports.accepted(sending, number, await _submit_one(line, job, times, pdu))
                del missing[number]
            return
        except NotSentError as failure:
            uncertain = uncertain or failure.uncertain
            none_taken = len(missing) == len(pdus)
            hopeless = failure.refusal is not None and failure.refusal.cure is Cure.PERSON
            if none_taken or hopeless or tries == _TRIES or job.rest_s < LEAST_S:
                which = f"part {min(missing)} of {len(pdus)}: " if len(pdus) > 1 else ""
                raise NotSentError(which + failure.message, failure.refusal, uncertain=uncertain) from None
            if failure.refusal is None:
                await line.settle()
        await dialogue.pause(line, _PAUSE_S)


async def _submit_one(line: Line, job: Job, times: SendTimes, pdu: Submit) -> int | None:
    """The network's reference of one part. Raises NotSentError, LineLostError."""
    rest_s = job.rest_s
    if rest_s < LEAST_S:
        raise NotSentError("the time for sending was over", None)
    try:
        return await line.submit(pdu.length, pdu.hex, min(times.submit_s, rest_s))
    except RefusedCommandError as error:
        refusal = explain(error.said)
        raise NotSentError(str(refusal), refusal, uncertain=refusal.leaves_open) from None
    except NoAnswerError as error:
        raise NotSentError(error.message, None, uncertain=isinstance(error, UnknownFateError)) from None
