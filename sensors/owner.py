"""The owner of a bus: whom to ask when, what to do when nobody answers.

Late replies of RTU (`rtu`, `rtu_tcp`): a reply has no transaction id, so after a missed one the bus stays silent until
`late_max_ms` after the request, is drained until quiet, is opened again when it is TCP, and the unit must answer a read
of a different length (`registers.resync_reads`) before its values count again. The same holds for every unit at start:
the process before this one may have left a request behind. What remains, while a read of the same unit, function and
length is out: a reply later than `late_max_ms`; and, without a timeout before, a *second* (duplicate) reply within
`late_max_ms`, which cannot be told from the reply to the next block. A Modbus TCP gateway that mixes up late replies on
*its* serial side is not seen from here.

Dead units cost time, so a bus with many of them goes by trust (`Owner.pick`): a unit that answers is trusted, and
between two units that are not, every trusted one that is due has its turn. When a trusted unit misses a reply, others
may have died with it, so each must answer again; until then the dead among them cost the others one missed reply each.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

from ..words import Instant, Quality, Reading, mono_s, now
from .breaker import Breaker, BreakerPolicy, BreakerState
from .buses import BusHealth, BusKind, BusSpec, ReplyError, UnitHealth, UnitSpec
from .frames import RTU_EXCEPTION_SIZE, Gate
from .registers import Block, Decoder, compile_decoder, plan, resync_reads

logger = logging.getLogger(__name__)

Sink = Callable[[list[Reading]], None]

RECONNECT_FIRST_S = 0.5
RECONNECT_CAP_S = 30.0
IDLE_S = 1.0  # the loop turns at least so often
RETRY_S = 1.0  # a unit that has just failed is asked again so soon, if its poll is slower
QUIET_S = 0.05  # no byte for so long: the line is drained
DRAIN_MAX_S = 2.0
SILENT_LIMIT = 3  # missed TCP replies in a row, from any unit, that suggest a dead connection
GATEWAY_EXCEPTIONS = (10, 11)  # gateway path unavailable, gateway target failed to respond: as slow as silence


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

    async def read(self, unit_id: int, block: Block, timeout_s: float) -> Sequence[int]:
        """The words (bits as 0/1) of `block`, exactly `block.count`. Raises ReplyError."""
        ...


@dataclass(slots=True, kw_only=True)
class _Unit:
    """One unit and what its owner knows of it.

    Attributes:
        blocks: the reads of a poll, each with (point, decoder) of its registers.
        resyncs: reads of a different length; the one that is known to be answered comes first.
        missed_resyncs: resynchronizing reads in a row that were not answered.
        due_s: when it is polled next, `words.mono_s()`. turn_s: when its last poll was made or skipped.
        trusted: it answered, and no trusted unit has missed a reply since.
    """

    spec: UnitSpec
    health: UnitHealth
    blocks: tuple[tuple[Block, tuple[tuple[str, Decoder], ...]], ...]
    resyncs: tuple[Block, ...]
    timeout_s: float
    due_s: float
    needs_resync: bool
    policy: BreakerPolicy
    missed_resyncs: int = 0
    turn_s: float = 0.0
    trusted: bool = False
    breaker: Breaker = field(default_factory=Breaker)

    def resync_read(self) -> Block:
        """The best read every other time, the others in turn: a device may stay silent at some of them."""
        turn, is_other = divmod(self.missed_resyncs, 2)
        others = self.resyncs[1:]
        return others[turn % len(others)] if is_other and others else self.resyncs[0]

    def suspect(self, now_s: float) -> bool:
        """Asking it may cost the bus a missed reply. While the breaker is open nobody asks, so nothing is at stake."""
        return not self.trusted and self.breaker.allows(now_s)

    def skip_missed(self, now_s: float) -> None:
        """Polls whose whole period has gone by are skipped, not made up for."""
        missed = max(0, int((now_s - self.due_s) / self.spec.poll_s))
        self.health.polls += missed
        self.health.skipped += missed
        self.due_s += missed * self.spec.poll_s


def _unit(bus: BusSpec, spec: UnitSpec, health: UnitHealth, due_s: float) -> _Unit:
    blocks = plan(spec.registers, max_gap=spec.max_gap, max_count=spec.max_count)
    return _Unit(
        spec=spec,
        health=health,
        blocks=tuple((b, _points(spec, b)) for b in blocks),
        resyncs=resync_reads(blocks),
        timeout_s=bus.timeout_s(spec),
        policy=_policy(max(_late_s(bus), bus.timeout_s(spec))),
        due_s=due_s,
        needs_resync=bus.kind.is_rtu,
    )


def _policy(miss_s: float) -> BreakerPolicy:
    """Pauses, before jitter, of five missed replies or more: a dead unit costs at most about 1/5 of the time."""
    return BreakerPolicy(base_s=max(2.0, 5 * miss_s), cap_s=max(60.0, 5 * miss_s))


def _points(spec: UnitSpec, block: Block) -> tuple[tuple[str, Decoder], ...]:
    return tuple((f"{spec.device}.{r.name}", compile_decoder(r, block.address)) for r in block.registers)


def _late_s(bus: BusSpec) -> float:
    return bus.late_max_ms / 1000 if bus.kind.is_rtu else 0.0


class Owner:
    """The one task that uses the bus."""

    def __init__(self, spec: BusSpec, link: Link, sink: Sink, health: BusHealth) -> None:
        start_s = mono_s()
        self.spec = spec
        self.sink = sink
        self.health = health
        self.link = link
        self.units = [  # phases spread over the period
            _unit(spec, u, health.units[u.device], start_s + u.poll_s * i / len(spec.units))
            for i, u in enumerate(spec.units)
        ]
        self.last_asked: _Unit | None = None
        self.suspect_s = 0.0  # when the last poll of a unit that was not trusted ended
        self.up = False  # as far as we know
        self.heard_since_open = False
        self.opened = False
        self.failed_opens = 0
        self.reopen_s = 0.0
        self.silent = 0
        # RTU: a late reply may be under way until quiet_s; nobody is asked before.
        self.unsettled = spec.kind.is_rtu
        self.quiet_s = start_s + _late_s(spec)

    async def run(self) -> NoReturn:
        task = asyncio.current_task()
        assert task is not None
        while True:
            if task.cancelling():  # Python 3.11's wait_for, used by pymodbus, can swallow a cancellation
                raise asyncio.CancelledError
            self.health.beat_s = mono_s()
            unit = self.pick(mono_s())
            if (wait_s := unit.due_s - mono_s()) > 0:
                await asyncio.sleep(min(wait_s, IDLE_S))
                continue
            self.sink(await self.turn(unit))

    def pick(self, now_s: float) -> _Unit:
        """Whose turn is next; it may not have come yet.

        A suspect waits until each of the others that is due has had one turn since the suspect was due and since the
        last suspect was asked: many dead units do not starve the living, and a bus that is always busy not the dead.
        """
        due = [u for u in self.units if u.due_s <= now_s]
        suspects = [u for u in due if u.suspect(now_s)]
        if not suspects:
            return min(self.units, key=_due_s)
        suspect = min(suspects, key=_hopeful_first)
        since_s = max(suspect.due_s, self.suspect_s)
        others = (u for u in due if u.turn_s < since_s and not u.suspect(now_s))
        return min(others, key=_due_s, default=suspect)

    async def turn(self, unit: _Unit) -> list[Reading]:
        """One due poll of one unit: made or skipped, counted, scheduled again."""
        start_s = mono_s()
        unit.turn_s = start_s
        suspect = unit.suspect(start_s)
        unit.skip_missed(start_s)
        unit.due_s += unit.spec.poll_s
        unit.health.polls += 1
        unit.health.breaker = unit.breaker.state(start_s)
        if unit.health.breaker is BreakerState.OPEN:
            unit.health.skipped += 1
            return _bad(unit, unit.health.why, now())
        readings, fault = await self.poll_safely(unit)
        self.judge(unit, fault, readings[0].at)
        if suspect:
            self.suspect_s = mono_s()
        return readings

    async def poll_safely(self, unit: _Unit) -> tuple[list[Reading], ReplyError | None]:
        """A defect of a driver must not blind a site: it becomes a fault of this unit, and the port is opened again."""
        try:
            return await self.poll(unit)
        except Exception as error:
            logger.exception("bus %s unit %s: driver error", self.spec.id, unit.spec.unit_id)
            self.drop()
            self.unsettle(unit, mono_s() + _late_s(self.spec))
            fault = ReplyError("driver_error", f"bus {self.spec.id}: {type(error).__name__}: {error}", asked=True)
            return _bad(unit, fault.why, now()), fault

    async def poll(self, unit: _Unit) -> tuple[list[Reading], ReplyError | None]:
        """Read every block; the first reply that does not come ends the poll, an exception only its own block."""
        fault: ReplyError | None = None
        answers: list[Sequence[int] | str] = []
        try:
            await self.ready()
            await self.resync(unit)
            for block, _ in unit.blocks:
                try:
                    answers.append(await self.ask(unit, block))
                except ReplyError as refused:
                    if not refused.code:
                        raise
                    fault = refused
                    answers.append(refused.why)
        except ReplyError as missed:
            fault = missed
            answers += [missed.why] * (len(unit.blocks) - len(answers))
        return _readings(unit, answers, now()), fault

    async def ask(self, unit: _Unit, block: Block) -> Sequence[int]:
        """One request. Raises ReplyError; whatever it leaves behind on the wire is noted."""
        if (gap_s := self.link.last_byte_s + self.spec.gap_s - mono_s()) > 0:
            await asyncio.sleep(gap_s)
        self.last_asked = unit
        asked_s = mono_s()
        try:
            words = await self.link.read(unit.spec.unit_id, block, unit.timeout_s)
        except ReplyError as fault:
            if fault.code:
                unit.health.exceptions += 1
                self.heard()
            elif fault.asked:
                self.missed(unit, fault, asked_s)
            raise
        self.heard()
        return words

    def heard(self) -> None:
        self.silent = self.failed_opens = 0
        self.heard_since_open = True

    def missed(self, unit: _Unit, fault: ReplyError, asked_s: float) -> None:
        if fault.why == "timeout":
            unit.health.timeouts += 1
        elif fault.why == "bad_frame":
            unit.health.bad_frames += 1
        if self.spec.kind.is_rtu:
            self.unsettle(unit, asked_s + _late_s(self.spec))
            return
        self.silent += 1
        if fault.why == "bad_frame" or self.silent >= SILENT_LIMIT:  # the stream's position is lost, or the peer is
            self.drop()

    def unsettle(self, unit: _Unit, quiet_s: float) -> None:
        """RTU: a reply to `unit` may still come until `quiet_s`."""
        if self.spec.kind.is_rtu:
            unit.needs_resync = self.unsettled = True
            self.quiet_s = max(self.quiet_s, quiet_s)

    async def resync(self, unit: _Unit) -> None:
        """One answered read of a different length proves that every earlier reply of the unit has passed."""
        if not unit.needs_resync:
            return
        read = unit.resync_read()
        try:
            await self.ask(unit, read)
        except ReplyError as fault:
            if not fault.code:
                unit.missed_resyncs += 1
                raise
        unit.resyncs = (read, *(r for r in unit.resyncs if r != read))
        unit.missed_resyncs = 0
        unit.needs_resync = False
        unit.health.resyncs += 1

    # --- the wire ---

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
                logger.warning("%s; trying again for ever", fault)
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
        quiet_s = max(QUIET_S, self.spec.gap_s)
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

    # --- the verdict ---

    def judge(self, unit: _Unit, fault: ReplyError | None, at: Instant) -> None:
        """Count the poll and move the breaker."""
        health, now_s = unit.health, mono_s()
        if fault is None:
            health.good += 1
            health.last_good_at = at
        else:
            health.bad += 1
            health.last_error = self.health.last_error = str(fault)
        _log_change(unit, fault)
        health.why = fault.why if fault else ""
        if fault is None or (fault.code and fault.code not in GATEWAY_EXCEPTIONS):
            self.answered(unit, now_s)
        elif fault.asked:
            if unit.trusted:  # a surprise: who else has died?
                for other in self.units:
                    other.trusted = False
            unit.breaker = unit.breaker.failed(now_s, unit.policy, random.random())  # noqa: S311 - not a secret
        health.breaker = unit.breaker.state(now_s)
        if fault is not None and health.breaker is BreakerState.CLOSED:
            unit.due_s = min(unit.due_s, now_s + RETRY_S)

    def answered(self, unit: _Unit, now_s: float) -> None:
        if all(u.breaker.until_s is not None for u in self.units):  # the whole bus was silent and is back
            for other in self.units:
                other.breaker = other.breaker.woken(now_s)
        unit.breaker = Breaker()
        unit.trusted = True


def _due_s(unit: _Unit) -> float:
    return unit.due_s


def _hopeful_first(unit: _Unit) -> tuple[bool, float]:
    return unit.breaker.failures > 0, unit.due_s


def _readings(unit: _Unit, answers: Sequence[Sequence[int] | str], at: Instant) -> list[Reading]:
    readings: list[Reading] = []
    for (_, points), answer in zip(unit.blocks, answers, strict=True):
        if isinstance(answer, str):
            readings += [Reading(point=p, value=None, quality=Quality.BAD, why=answer, at=at) for p, _ in points]
            continue
        for point, decode in points:
            value, quality, why = decode(answer)
            readings.append(Reading(point=point, value=value, quality=quality, why=why, at=at))
    return readings


def _bad(unit: _Unit, why: str, at: Instant) -> list[Reading]:
    return _readings(unit, [why] * len(unit.blocks), at)


def _log_change(unit: _Unit, fault: ReplyError | None) -> None:
    if fault is not None and not unit.health.why:
        logger.warning("%s: lost: %s", unit.spec.device, fault)
    elif fault is None and unit.health.why:
        logger.info("%s: answers again after %s", unit.spec.device, unit.health.why)
