"""The SMS channel: one owner of the modem, which sends, listens, checks, and brings the modem back."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Self

from ....words import mono_s
from ..port import ChannelHealth, Events, Fault, Notice, Outcome, Sent
from ..robots.texts import words_of
from ..threads import TURN_S
from . import dialogue, sender
from .answers import News
from .ladder import Ladder, Rung
from .line import Line
from .mailbox import Mailbox
from .memory import Memory
from .pdu import PduError, clean_number
from .sender import LEAST_S, Job, NotSentError, SendTimes
from .tracking import Reports
from .troubles import Cure, LineLostError, NoAnswerError, Refusal, TroubleError, fault_of, said_zh

_log = logging.getLogger(__name__)
_GRACE_S = 5.0
_TOLERATED = 2  # messages in a row that the modem refuses before it is reset
_POWER_S = 60.0
_CLOSE_S = 8.0
_NO_ANSWER = "it is reset; if that does not help: is this the AT port? unplug the modem and plug it in"
_BUSY = Sent(outcome=Outcome.LATER, detail="the modem was busy with other messages or had no network", retry_s=5.0)
_STARTING = Sent(outcome=Outcome.LATER, detail="the modem is starting or looking for a network", retry_s=5.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SmsSettings:
    """Of one modem.

    Attributes:
        port: its AT port by a name that stays: /dev/serial/by-id/….
        memory: what must outlive the process.
        pin: of the SIM, empty when it has none.
        smsc: number of the message centre, where the SIM has none.
        power_cycle: takes the modem's power away and gives it back; the last rung of the ladder.
        validity_s: how long the network keeps trying to reach the phone.
        report_s: how long the status report is waited for; 0 asks for none.
        parts_max: longer texts are cut; 1..255.
        send_limit_s: of one `send`, waiting included.
        answer_s: for an answer of the modem alone; three times as long where SIM or network have a part in it.
        submit_s: for the network to take one part.
        check_s: between two looks at signal, network and SIM.
        register_s: without a network until that is a fault.
        pause_s, pause_max_s: before the first try to bring the modem back, and at most.
    """

    port: str
    memory: Memory
    baud: int = 115_200
    pin: str = field(default="", repr=False)
    smsc: str = ""
    power_cycle: Callable[[], Awaitable[None]] | None = None
    validity_s: float = 86_400.0
    report_s: float = 120.0
    parts_max: int = 6
    send_limit_s: float = 110.0
    answer_s: float = 5.0
    submit_s: float = 60.0
    check_s: float = 60.0
    register_s: float = 120.0
    pause_s: float = 1.0
    pause_max_s: float = 60.0


class SmsModem:
    """`Channel` over a 4G modem. Enter it to start its owner.

    ACCEPTED means that the network took every part. Proof comes as `events.report`, from the network's status reports:
    True when the phone has every part; False with the network's reason, or when none came within `report_s`. What was
    accepted before the channel was left gets no report.
    """

    def __init__(self, settings: SmsSettings, events: Events) -> None:
        self.health = ChannelHealth()
        self._settings = settings
        self._events = events
        self._times = SendTimes(
            validity_s=settings.validity_s,
            report_s=settings.report_s,
            submit_s=settings.submit_s,
        )
        self._jobs: list[tuple[int, int, Job]] = []
        self._numbers = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._ready = self._restarted = False
        self._link_trouble: TroubleError | None = None
        self._send_trouble: TroubleError | None = None
        self._refusals = 0
        self._ladder = Ladder(settings.pause_s, settings.pause_max_s)
        self._reports = Reports()
        self._mailbox = Mailbox(self._reports, events)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run(), name=f"sms {self._settings.port}")
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.wait([self._task], timeout=_CLOSE_S)
        self._fail_jobs("the channel is closed")

    async def send(self, notice: Notice) -> Sent:
        """One attempt, the most urgent message first. Bounded by `send_limit_s`."""
        assert self._task is not None, "enter the channel first"
        sent = await self._send(notice)
        if sent.outcome is Outcome.ACCEPTED:
            self.health.accepted += 1
        elif sent.outcome is not Outcome.LATER:
            self.health.failed += 1
        return sent

    async def _send(self, notice: Notice) -> Sent:
        try:
            phone = clean_number(notice.to.phone)
        except PduError as error:
            return Sent(outcome=Outcome.REFUSED, detail=str(error))
        if self._task is None or self._task.done():
            return Sent(outcome=Outcome.FAILED, detail="the channel is closed")
        if not self._ready:
            trouble = self._link_trouble
            return Sent(outcome=Outcome.FAILED, detail=str(trouble)) if trouble else _STARTING
        limit_s = self._settings.send_limit_s
        done: asyncio.Future[Sent] = asyncio.get_running_loop().create_future()
        job = Job(phone=phone, text=words_of(notice), deadline_s=mono_s() + limit_s, done=done)
        heapq.heappush(self._jobs, (notice.priority, next(self._numbers), job))
        self._wake.set()
        try:
            await asyncio.wait([done], timeout=limit_s)
            if job.started:
                await asyncio.wait([done], timeout=_GRACE_S)
            if done.done():
                return done.result()
        finally:
            done.cancel()  # nobody waits any more: no further part goes out
        late = Sent(outcome=Outcome.FAILED, detail=f"not sent within {limit_s:g} s", uncertain=True)
        return late if job.started else _BUSY

    # --- the owner ---

    async def _run(self) -> NoReturn:
        while True:
            try:
                await self._session()
            except TroubleError as error:
                trouble = error
            except LineLostError as error:
                trouble = TroubleError(Fault.OFFLINE, error.message, hint="unplugged, or the modem restarts")
            except NoAnswerError as error:
                trouble = TroubleError(Fault.SILENT, error.message, hint=_NO_ANSWER)
            except Exception as error:  # a defect must not end the way to people
                _log.exception("sms: %s: a defect", self._settings.port)
                trouble = TroubleError(Fault.SILENT, f"{type(error).__name__}: {error}", hint="please report this")
            self._blame(trouble)
            rung, pause_s = self._ladder.next(trouble, random.random())  # noqa: S311 - not a secret
            self.health.facts["recovery"] = str(rung)
            await self._pause(pause_s)
            await self._climb(rung)

    async def _session(self) -> NoReturn:
        """From opening the port to trouble."""
        settings = self._settings
        line = await Line.open(settings.port, settings.baud, settings.answer_s, self._told, self._turn)
        try:
            await self._start(line)
            await self._serve(line)
        finally:
            self._ready = False
            await line.close()

    async def _start(self, line: Line) -> None:
        settings, facts = self._settings, self.health.facts
        self._ready = self._restarted = False
        await dialogue.wake(line)
        await dialogue.prepare(line, facts)
        facts["sim"] = await dialogue.unlock(line, settings.pin, settings.memory, settings.register_s)
        await dialogue.identify(line, settings.smsc, facts)
        await dialogue.register(line, facts, settings.register_s)
        await dialogue.look(line, facts)
        await self._collect(line)
        self._well()

    async def _serve(self, line: Line) -> NoReturn:
        due_s = mono_s() + self._settings.check_s
        while True:
            self._wake.clear()
            if self._restarted:
                await self._start(line)
            elif self._jobs:
                await self._serve_job(line, heapq.heappop(self._jobs)[2])
            elif self._mailbox.waiting:
                await self._collect(line)
            elif mono_s() >= due_s:
                await self._check(line)
                due_s = mono_s() + self._settings.check_s
            else:
                await line.wait(self._wake, max(0.0, due_s - mono_s()))

    async def _serve_job(self, line: Line, job: Job) -> None:
        """Send it and answer it. What its failure says of the modem is raised."""
        settings = self._settings
        if job.rest_s < LEAST_S:
            job.end(_BUSY)
            return
        job.started = True
        try:
            sent = await sender.submit(line, job, self._times, settings.parts_max, settings.memory, self._reports)
        except NotSentError as failure:
            job.end(failure.sent)
            await self._suspect(line, failure.refusal)
        except LineLostError as error:
            job.end(Sent(outcome=Outcome.FAILED, detail=str(error), uncertain=True))
            raise
        else:
            job.end(sent)
            self._refusals, self._send_trouble = 0, None
            self._ladder.proven()
            self._show()
        finally:
            job.end(Sent(outcome=Outcome.FAILED, detail="the channel failed", uncertain=True))

    async def _suspect(self, line: Line, refusal: Refusal | None) -> None:
        """A message was not taken: does the modem need help? Raises TroubleError, NoAnswerError, LineLostError."""
        if refusal is None:
            await dialogue.wake(line)  # is it still there?
            return
        if refusal.cure not in (Cure.PERSON, Cure.RESET):
            return
        await self._check(line)  # SIM or network say more than the message did
        self._refusals += 1
        resets = refusal.cure is Cure.RESET
        if resets and self._refusals < _TOLERATED:
            return
        what = f"{refusal.said} {refusal.meaning}"
        self._send_trouble = TroubleError(fault_of(refusal), what, hint=refusal.hint, resets=resets, by_send=True)
        self._show()
        if resets and self._ladder.may_reset(mono_s()):
            raise self._send_trouble

    async def _check(self, line: Line) -> None:
        settings, facts = self._settings, self.health.facts
        await dialogue.prepare(line, facts)
        facts["sim"] = await dialogue.unlock(line, settings.pin, settings.memory, settings.register_s)
        if not await dialogue.is_registered(line, facts):
            self._ready = False
            await dialogue.register(line, facts, settings.register_s)
        await dialogue.look(line, facts)
        await self._collect(line)
        self._well()

    async def _collect(self, line: Line) -> None:
        await self._mailbox.collect(line)
        self.health.facts["storage_foreign"] = self._mailbox.foreign

    def _told(self, news: News) -> None:
        """The modem said something on its own."""
        self._restarted |= news.is_restart
        self._mailbox.told(news)
        self._wake.set()

    def _turn(self) -> None:
        """At least once a second: the loop turns, and proofs that are due are told."""
        self.health.beat_s = now_s = mono_s()
        for proof in self._reports.settled(now_s, self._settings.report_s):
            self.health.delivered += proof.delivered
            self._events.report(proof.receipt, proof.delivered, proof.detail)

    # --- trouble ---

    def _well(self) -> None:
        """Ready to send."""
        if self._link_trouble is not None:
            _log.warning("sms: %s works again", self._settings.port)
        self._ready, self._link_trouble = True, None
        self.health.facts.pop("recovery", None)
        self._ladder.well(mono_s())
        self._show()

    def _blame(self, trouble: TroubleError) -> None:
        """Not ready. Logged once for each kind of fault."""
        known = self._link_trouble
        if known is None or known.fault is not trouble.fault:
            _log.error("sms: %s: %s", self._settings.port, trouble)
        self._ready, self._link_trouble = False, trouble
        self._show()
        self._fail_jobs(str(trouble))

    def _show(self) -> None:
        trouble = self._link_trouble or self._send_trouble
        self.health.fault = trouble.fault if trouble else Fault.NONE
        self.health.detail = str(trouble) if trouble else ""
        self.health.facts.pop("zh", None)
        if trouble:
            self.health.facts["zh"] = said_zh(trouble)

    def _fail_jobs(self, why: str) -> None:
        jobs, self._jobs = self._jobs, []
        for *_, job in jobs:
            job.end(Sent(outcome=Outcome.FAILED, detail=why))

    async def _pause(self, seconds: float) -> None:
        """Wait without a line; a modem that is plugged in ends it."""
        path, end_s = Path(self._settings.port), mono_s() + seconds
        missing = not path.exists()
        while (rest_s := end_s - mono_s()) > 0 and not (missing and path.exists()):
            self._turn()
            await asyncio.sleep(min(rest_s, TURN_S))

    async def _climb(self, rung: Rung) -> None:
        settings = self._settings
        if rung is Rung.POWER and settings.power_cycle is not None:
            await self._cycle_power(settings.power_cycle)
            return
        if rung is Rung.REOPEN:
            return
        try:
            line = await Line.open(settings.port, settings.baud, settings.answer_s, self._told, self._turn)
        except TroubleError:
            return  # the next session says so
        try:
            await line.settle()
            await (dialogue.restart_radio(line) if rung is Rung.RADIO else dialogue.restart(line))
        except (LineLostError, NoAnswerError):
            pass  # that is how a restart looks
        finally:
            await line.close()

    async def _cycle_power(self, power_cycle: Callable[[], Awaitable[None]]) -> None:
        work = asyncio.ensure_future(power_cycle())
        end_s = mono_s() + _POWER_S
        try:
            while not work.done() and mono_s() < end_s:
                self._turn()
                await asyncio.wait([work], timeout=TURN_S)
            if work.done() and (error := work.exception()) is not None:
                _log.error("sms: %s: its power cannot be switched: %s", self._settings.port, error)
        finally:
            work.cancel()
