"""One line and what may still be under way on it: the late-reply rule of RTU.

A reply of RTU (`rtu`, `rtu_tcp`) has no transaction id, so after a missed one the line stays silent until `late_max_ms`
after the request, is drained until quiet, is opened again when it is TCP, and the unit must answer a read of a
different length (`registers.resync_reads`) before its values count again. The same holds for every unit at start: the
process before this one may have left a request behind.

A unit that has been silent again and again is only asked to see whether it is back: the line does not wait for it, only
the unit itself is not asked again before `late_max_ms`. Its late reply has its own unit id: it can spoil a neighbour's
reply, but not be taken for it. (Behind a converter that answers strictly in order, a unit that is always late makes its
neighbours wait for it as well.)

What remains, while a read of the same unit, function and length is out: a reply later than `late_max_ms`; and, without
a timeout before, a *second* (duplicate) reply within `late_max_ms`, which cannot be told from the reply to the next
block. A Modbus TCP gateway that mixes up late replies on *its* serial side is not seen from here.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from typing import Protocol

from ..words import mono_s
from .buses import BusHealth, BusKind, BusSpec, ReplyError, UnitHealth
from .frames import RTU_EXCEPTION_SIZE, Gate, Request

logger = logging.getLogger(__name__)

RECONNECT_FIRST_S = 0.5
RECONNECT_CAP_S = 30.0
IDLE_S = 5.0  # a loop turns at least so often
QUIET_S = 0.05  # no byte for so long: the line is drained
DRAIN_MAX_S = 2.0
RESYNC_TRIES = 3  # in one poll, as long as the answers prove nothing
FORGET_S = 60.0  # a resynchronizing read that was missed so long ago is not answered any more
SILENT_LIMIT = 3  # missed TCP replies in a row, from any unit, that suggest a dead connection


class Link(Protocol):
    """One serial port or socket; one request at a time."""

    gate: Gate
    last_byte_s: float

    @property
    def connected(self) -> bool: ...

    async def open(self) -> None:
        """Connect. Raises ReplyError."""

    def close(self) -> None:
        """Close at once; harmless when closed."""

    async def call(self, request: Request, timeout_s: float) -> bytes:
        """The PDU of the reply. Raises ReplyError."""
        ...


@dataclass(slots=True, kw_only=True)
class Peer:
    """A unit as its line knows it.

    Attributes:
        resyncs: reads of a different length; the one that is known to be answered comes first.
        missed_resyncs: resynchronizing reads in a row that were not answered.
        open_resyncs: bytes of the replies to those of the last FORGET_S, and when they were asked for.
        owed: how many of them may still be answered by an exception.
        is_guest: no unit of ours, asked by a person: its silence says nothing about the line.
        is_hopeless: nobody expects an answer: it is asked to see whether it is back.
        quiet_s: until then a late reply of its own may come, although the line went on.
    """

    timeout_s: float
    resyncs: tuple[Request, ...]
    needs_resync: bool
    health: UnitHealth
    missed_resyncs: int = 0
    open_resyncs: dict[int, float] = field(default_factory=dict)
    owed: int = 0
    is_guest: bool = False
    is_hopeless: bool = False
    quiet_s: float = 0.0

    def resync_read(self, now_s: float) -> Request:
        """The best read every other time, the others in turn: a device may stay silent at some of them.

        None of a length whose reply may still come, as long as there is another: it would prove nothing.
        """
        self.open_resyncs = {size: asked_s for size, asked_s in self.open_resyncs.items() if now_s - asked_s < FORGET_S}
        free = [read for read in self.resyncs if read.reply_size not in self.open_resyncs] or list(self.resyncs)
        turn, is_other = divmod(self.missed_resyncs, 2)
        others = free[1:]
        return others[turn % len(others)] if is_other and others else free[0]

    def missed_resync(self, read: Request, now_s: float) -> None:
        """Its reply may still come."""
        self.missed_resyncs += 1
        self.owed += 1
        self.open_resyncs[read.reply_size] = now_s

    def answers_owed(self) -> bool:
        """Whether an exception that has just come may be the answer to an earlier resynchronizing read.

        One more than were missed is proof, and so is any when the missed ones are long ago.
        """
        self.missed_resyncs += 1
        if not self.open_resyncs or self.owed <= 0:
            return False
        self.owed -= 1
        return True


class Line:
    """Asks units, one request at a time, and knows when the line can be trusted."""

    def __init__(self, spec: BusSpec, link: Link, health: BusHealth) -> None:
        self.spec = spec
        self.link = link
        self.health = health
        self.last_asked: Peer | None = None
        self.up = False  # as far as we know
        self.heard_since_open = False
        self.opened = False
        self.failed_opens = 0
        self.reopen_s = 0.0
        self.silent = 0
        # RTU: a late reply may be under way until quiet_s; nobody is asked before.
        self.unsettled = spec.kind.is_rtu
        self.quiet_s = mono_s() + spec.late_s
        self.gap_s = spec.gap_s

    def use(self, spec: BusSpec) -> None:
        """Other times, on the same wire."""
        self.spec, self.gap_s = spec, spec.gap_s

    # --- asking ---

    async def ask(self, peer: Peer, request: Request) -> bytes:
        """One request, the PDU of its reply. Raises ReplyError; whatever it leaves behind on the wire is noted."""
        if (gap_s := self.link.last_byte_s + self.gap_s - mono_s()) > 0:
            await asyncio.sleep(gap_s)
        self.last_asked = peer
        asked_s = self.health.beat_s = mono_s()
        try:
            pdu = await self.link.call(request, peer.timeout_s)
        except ReplyError as fault:
            if fault.code:
                peer.health.exceptions += 1
                self.heard()
            elif fault.asked:
                self.missed(peer, fault, asked_s)
            raise
        peer.health.replied((self.link.last_byte_s - asked_s) * 1000)
        self.silent = self.failed_opens = 0
        self.heard_since_open = True
        return pdu

    async def resync(self, peer: Peer) -> None:
        """One answered read of a different length proves that every earlier reply of the unit has passed."""
        await self.wait_until(peer.quiet_s)
        for _ in range(RESYNC_TRIES):
            read = peer.resync_read(mono_s())
            try:
                await self.ask(peer, read)
            except ReplyError as fault:
                if not fault.code:
                    peer.missed_resync(read, mono_s())
                    raise
                if peer.answers_owed():  # exceptions are all alike: this one may answer an earlier read
                    continue
            peer.resyncs = (read, *(r for r in peer.resyncs if r is not read))
            peer.missed_resyncs = peer.owed = 0
            peer.open_resyncs.clear()
            peer.needs_resync = False
            peer.health.resyncs += 1
            return
        raise ReplyError("timeout", f"{self.spec.id}: its exceptions may still be the answers to earlier reads")

    def heard(self) -> None:
        self.silent = self.failed_opens = 0
        self.heard_since_open = True

    def missed(self, peer: Peer, fault: ReplyError, asked_s: float) -> None:
        if fault.why == "timeout":
            peer.health.timeouts += 1
        elif fault.why == "bad_frame":
            peer.health.bad_frames += 1
        if (peer.is_guest or peer.is_hopeless) and self.spec.kind.is_rtu:
            peer.needs_resync, peer.quiet_s = True, asked_s + self.spec.late_s
            return
        if self.spec.kind.is_rtu:
            self.unsettle(peer, asked_s + self.spec.late_s)
            return
        self.silent += int(not peer.is_guest)
        if fault.why == "bad_frame" or self.silent >= SILENT_LIMIT:  # the stream's position is lost, or the peer is
            self.drop()

    def unsettle(self, peer: Peer, quiet_s: float) -> None:
        """RTU: a reply of `peer` may still come until `quiet_s`."""
        if self.spec.kind.is_rtu:
            peer.needs_resync = self.unsettled = True
            self.quiet_s = max(self.quiet_s, quiet_s)

    # --- the wire ---

    @property
    def is_ready(self) -> bool:
        """Whether `ready` has nothing to do."""
        return self.up and not self.unsettled and not self.link.gate.stray and self.link.connected

    async def ready(self) -> None:
        """Connected, and on RTU nothing late under way. Raises ReplyError."""
        self.notice_strays()
        if self.unsettled:
            await self.wait_until(self.quiet_s)
            self.count_strays()
            if self.spec.kind is BusKind.RTU_TCP:
                self.drop()
        if not self.link.connected:
            await self.connect()
        if self.unsettled:
            await self.drain()
            self.unsettled = False

    def notice_strays(self) -> None:
        """Bytes on an idle RTU bus: the unit asked last may have answered twice, or one reply behind."""
        if self.count_strays() >= RTU_EXCEPTION_SIZE and self.last_asked is not None:
            self.unsettle(self.last_asked, mono_s())

    def count_strays(self) -> int:
        """How many bytes came that nobody had asked for; they are forgotten."""
        stray = self.link.gate.stray
        self.health.strays += int(stray > 0)
        self.link.gate.reset()
        return stray

    async def connect(self) -> None:
        if self.up:  # we did not close it
            self.up = self.health.connected = False
            if not self.heard_since_open:
                self.back_off()
        if mono_s() < self.reopen_s:
            raise ReplyError("no_connection", self.health.last_error or f"bus {self.spec.id}: closed by the peer")
        try:
            await self.link.open()
        except ReplyError as fault:
            if not self.failed_opens:
                logger.warning("%s; trying again for ever", fault, extra={"bus": self.spec.id, "reason": fault.why})
            self.health.last_error = str(fault)
            self.back_off()
            raise
        self.health.reconnects += int(self.opened)
        self.up = self.health.connected = self.opened = True
        self.heard_since_open = False

    def back_off(self) -> None:
        pause_s = min(RECONNECT_FIRST_S * 2 ** min(self.failed_opens, 16), RECONNECT_CAP_S)
        self.reopen_s = mono_s() + pause_s * random.uniform(0.8, 1.2)  # noqa: S311 - not a secret
        self.failed_opens += 1

    def drop(self) -> None:
        """Close by our own will: no back-off."""
        self.link.close()
        self.up = self.health.connected = False

    async def drain(self) -> None:
        """Let the loop read until the line is quiet. Raises ReplyError when it never is."""
        start_s = mono_s()
        quiet_s = max(QUIET_S, self.gap_s)
        while (left_s := max(self.link.last_byte_s, start_s) + quiet_s - mono_s()) > 0:
            if mono_s() - start_s > DRAIN_MAX_S:
                seen = self.link.gate.tail.hex(" ")
                raise ReplyError("bus_noise", f"bus {self.spec.id}: bytes come without a request: {seen}")
            await asyncio.sleep(left_s)
        self.count_strays()

    async def wait_until(self, moment_s: float) -> None:
        while (left_s := moment_s - mono_s()) > 0:
            await asyncio.sleep(min(left_s, IDLE_S))
            self.health.beat_s = mono_s()
