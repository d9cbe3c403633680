"""The owner of a bus: whom to ask when, what to do when nobody answers, and what people want written or read meanwhile.

Dead units cost time, so a bus with many of them goes by trust (`Owner.pick`): a unit that answers is trusted, and
between two units that are not, every trusted one that is due has its turn. When a trusted unit misses a reply, others
may have died with it, so each must answer again; until then the dead among them cost the others one missed reply each.

Writes (a siren, a lamp) go before the next request of any poll; reads for a guest (`probe`) only between two polls.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ..errors import RefusedError
from ..words import Instant, Quality, Reading, mono_s, now
from .breaker import Breaker, BreakerPolicy, BreakerState
from .buses import Answer, BusHealth, BusSpec, ReplyError, UnitHealth, UnitSpec
from .decoding import BlockReader, compile_block
from .frames import Request, read_request, write_request
from .line import IDLE_S, Line, Link, Peer
from .registers import Block, Output, plan, resync_reads

logger = logging.getLogger(__name__)

Sink = Callable[[list[Reading]], None]

RETRY_S = 1.0  # a unit that has just failed is asked again so soon, if its poll is slower
GATEWAY_EXCEPTIONS = (10, 11)  # gateway path unavailable, gateway target failed to respond: as slow as silence
WRITE_TRIES = 2
GUEST_TIMEOUT_S = 1.0
GUEST_MOST_S = 5.0  # nobody else is asked meanwhile
# One waking of the processor serves many: the polls of all buses begin on a grid, and those of one TCP bus come by the
# ten; a serial line, on which a poll takes long, has them spread evenly.
GRID_S = 0.1
TOGETHER = 10
EARLY_S = 0.001  # what a timer may miss


@dataclass(slots=True, kw_only=True)
class _Unit:
    """One unit and what its owner knows of it.

    Attributes:
        reads: the reads of a poll, each with the points that it answers and what turns its words into readings.
        due_s: when it is polled next, `words.mono_s()`. turn_s: when its last poll was made or skipped.
        trusted: it answered, and no trusted unit has missed a reply since.
    """

    spec: UnitSpec
    peer: Peer
    blocks: tuple[Block, ...]
    reads: tuple[tuple[Request, tuple[str, ...], BlockReader], ...]
    due_s: float
    policy: BreakerPolicy
    turn_s: float = 0.0
    trusted: bool = False
    breaker: Breaker = field(default_factory=Breaker)

    @property
    def health(self) -> UnitHealth:
        return self.peer.health

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
    blocks = blocks or tuple(_read_back(output) for output in spec.outputs)  # else nobody would know that it lives
    return _Unit(
        spec=spec,
        peer=Peer(
            timeout_s=bus.timeout_s(spec),
            resyncs=_resyncs(spec.unit_id, blocks),
            needs_resync=bus.kind.is_rtu,
            health=health,
        ),
        blocks=blocks,
        reads=tuple(_reader(spec, block) for block in blocks),
        due_s=due_s,
        policy=_policy(bus, spec),
    )


def _resyncs(unit_id: int, blocks: Sequence[Block]) -> tuple[Request, ...]:
    return tuple(read_request(unit_id, block) for block in resync_reads(blocks))


def _policy(bus: BusSpec, spec: UnitSpec) -> BreakerPolicy:
    """Pauses, before jitter, of five missed replies or more: a dead unit costs at most about 1/5 of the time."""
    miss_s = max(bus.late_s, bus.timeout_s(spec))
    return BreakerPolicy(base_s=max(2.0, 5 * miss_s), cap_s=max(60.0, 5 * miss_s))


def _reader(spec: UnitSpec, block: Block) -> tuple[Request, tuple[str, ...], BlockReader]:
    points = [(f"{spec.device}.{register.name}", register) for register in block.registers]
    read = compile_block(points, block.address)
    return read_request(spec.unit_id, block), tuple(point for point, _ in points), read


def _read_back(output: Output) -> Block:
    return Block(table=output.table, address=output.address, count=1)


@dataclass(frozen=True, slots=True)
class _Errand:
    """What somebody asked of the owner, and where the answer goes."""

    run: Callable[[], Awaitable[Answer]]
    answer: asyncio.Future[Answer]


class Owner:
    """The one task that uses the bus."""

    def __init__(self, spec: BusSpec, link: Link, sink: Sink, health: BusHealth) -> None:
        start_s = _grid(mono_s())
        self.spec = spec
        self.sink = sink
        self.health = health
        self.line = Line(spec, link, health)
        self.units = [
            _unit(spec, u, health.units[u.device], start_s + _phase_s(u, i, spec)) for i, u in enumerate(spec.units)
        ]
        self.suspect_s = 0.0  # when the last poll of a unit that was not trusted ended
        self.writes: deque[_Errand] = deque()
        self.guests: deque[_Errand] = deque()
        self.guest_peers: dict[int, Peer] = {}
        self.coming: BusSpec | None = None
        self.nap: asyncio.Future[None] | None = None

    async def run(self) -> NoReturn:
        task = asyncio.current_task()
        assert task is not None
        while True:
            if task.cancelling():  # Python 3.11's wait_for, used by libraries, can swallow a cancellation
                raise asyncio.CancelledError
            now_s = self.health.beat_s = mono_s()
            if self.coming is not None:
                self.adopt(self.coming)
            if self.writes:
                await self.serve(self.writes)
            unit = self.pick(now_s) if self.units else None
            if unit is not None and unit.due_s <= now_s + EARLY_S:
                if readings := await self.turn(unit):
                    self.sink(readings)
            elif not self.guests:
                await self.rest(IDLE_S if unit is None else min(unit.due_s - now_s, IDLE_S))
                continue
            if self.guests:
                await self.serve(self.guests)

    async def rest(self, pause_s: float) -> None:
        """Sleep, until `wake`."""
        loop = asyncio.get_running_loop()
        self.nap = nap = loop.create_future()
        timer = loop.call_later(pause_s, self.wake)
        try:
            await nap
        finally:
            timer.cancel()
            self.nap = None

    def wake(self) -> None:
        """End the present sleep."""
        if self.nap is not None and not self.nap.done():
            self.nap.set_result(None)

    def pick(self, now_s: float) -> _Unit:
        """Whose turn is next; it may not have come yet.

        A suspect waits until each of the others that is due has had one turn since the suspect was due and since the
        last suspect was asked: many dead units do not starve the living, and a bus that is always busy not the dead.
        """
        first = min(self.units, key=_due_s)
        if first.due_s > now_s:
            return first
        due = [u for u in self.units if u.due_s <= now_s]
        suspects = [u for u in due if u.suspect(now_s)]
        if not suspects:
            return first
        suspect = min(suspects, key=_hopeful_first)
        since_s = max(suspect.due_s, self.suspect_s)
        others = (u for u in due if u.turn_s < since_s and not u.suspect(now_s))
        return min(others, key=_due_s, default=suspect)

    async def turn(self, unit: _Unit) -> list[Reading]:
        """One due poll of one unit: made or skipped, counted, scheduled again."""
        start_s = mono_s()
        unit.turn_s = start_s
        suspect = unit.suspect(start_s)
        if start_s - unit.due_s >= unit.spec.poll_s:
            unit.skip_missed(start_s)
        unit.due_s += unit.spec.poll_s
        health = unit.health
        health.breaker = unit.breaker.state(start_s)
        if health.breaker is BreakerState.OPEN:
            health.polls += 1
            health.skipped += 1
            return _bad(unit, health.why, now())
        readings, fault, at = await self.poll_safely(unit)
        self.judge(unit, fault, at)
        if suspect:
            self.suspect_s = mono_s()
        return readings

    async def poll_safely(self, unit: _Unit) -> tuple[list[Reading], ReplyError | None, Instant]:
        """A defect of a driver must not blind a site: it becomes a fault of this unit, and the port is opened again."""
        try:
            return await self.poll(unit)
        except Exception as error:
            fault, at = self.broken(unit.peer, error), now()
            return _bad(unit, fault.why, at), fault, at

    def broken(self, peer: Peer, error: Exception) -> ReplyError:
        """A defect of ours or of a library: note it and open the port again."""
        logger.error("bus %s: driver error", self.spec.id, exc_info=error, extra={"bus": self.spec.id})
        self.line.drop()
        self.line.unsettle(peer, mono_s() + self.spec.late_s)
        return ReplyError("driver_error", f"bus {self.spec.id}: {type(error).__name__}: {error}", asked=True)

    async def poll(self, unit: _Unit) -> tuple[list[Reading], ReplyError | None, Instant]:
        """Read every block; the first reply that does not come ends the poll, an exception only its own block."""
        fault: ReplyError | None = None
        answers: list[Sequence[int] | str] = []
        line, peer = self.line, unit.peer
        peer.is_hopeless = unit.breaker.until_s is not None
        try:
            for request, _, _ in unit.reads:
                if self.writes:
                    await self.serve(self.writes)
                if not line.is_ready:  # at first, and after a write that went wrong
                    await line.ready()
                if peer.needs_resync:
                    await line.resync(peer)
                try:
                    answers.append(request.words(await line.ask(peer, request)))
                except ReplyError as refused:
                    if not refused.code:
                        raise
                    fault = refused
                    answers.append(refused.why)
        except ReplyError as missed:
            fault = missed
            answers += [missed.why] * (len(unit.reads) - len(answers))
        at = now()
        return _readings(unit, answers, at), fault, at

    # --- the verdict ---

    def judge(self, unit: _Unit, fault: ReplyError | None, at: Instant) -> None:
        """Count the poll and move the breaker."""
        health = unit.health
        health.polls += 1  # not before its outcome is known: the counters add up at every moment
        if fault is None:
            health.good += 1
            health.last_good_at = at
            if unit.trusted and not health.why and unit.breaker.failures == 0:
                return  # as nearly always
        else:
            health.bad += 1
            health.last_error = self.health.last_error = str(fault)
        now_s = mono_s()
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
            # Nobody can be asked before the line is opened again.
            again_s = now_s + RETRY_S if fault.asked else max(now_s + RETRY_S, self.line.reopen_s)
            unit.due_s = min(unit.due_s, again_s)

    def answered(self, unit: _Unit, now_s: float) -> None:
        if all(u.breaker.until_s is not None for u in self.units):  # the whole bus was silent and is back
            for other in self.units:
                other.breaker = other.breaker.woken(now_s)
        unit.breaker = Breaker()
        unit.trusted = True

    # --- what people ask for ---

    async def read(self, unit_id: int, block: Block, timeout_s: float | None) -> Answer:
        """A guest's read, between two polls."""
        return await self._submit(self.guests, lambda: self._read(unit_id, block, timeout_s))

    async def write(self, device: str, output: str, state: str) -> Answer:
        """Write an output and read it back, before the next request of any poll.

        Raises:
            RefusedError: `no_such_output`, `no_such_state`: nothing was sent.
            ReplyError: not confirmed; `not_taken` when it reads back otherwise.
        """
        self._output(device, output, state)
        return await self._submit(self.writes, lambda: self._write(device, output, state))

    def _output(self, device: str, output: str, state: str) -> tuple[_Unit, Output, int]:
        """What is meant, as the units are now. Raises RefusedError."""
        unit = next((u for u in self.units if u.spec.device == device), None)
        found = next((o for o in unit.spec.outputs if o.name == output), None) if unit else None
        if unit is None or found is None:
            raise RefusedError("no_such_output", f"{device} has no output {output!r} on bus {self.spec.id}")
        states = dict(found.states)
        if state not in states:
            known = ", ".join(states)
            raise RefusedError("no_such_state", f"{device}.{output} can be {known} (got {state!r})")
        return unit, found, states[state]

    async def _submit(self, queue: deque[_Errand], run: Callable[[], Awaitable[Answer]]) -> Answer:
        errand = _Errand(run, asyncio.get_running_loop().create_future())
        queue.append(errand)
        self.wake()
        return await errand.answer

    async def serve(self, queue: deque[_Errand]) -> None:
        """The first errand of `queue`; nothing that goes wrong in it ends the owner."""
        errand = queue.popleft()
        if errand.answer.done():  # whoever asked has gone
            return
        try:
            answer = await errand.run()
        except BaseException as error:
            known = isinstance(error, ReplyError | RefusedError)
            if not errand.answer.done():
                ended = ReplyError("driver_error", f"bus {self.spec.id}: {type(error).__name__}: {error}")
                errand.answer.set_exception(error if known else ended)
            if not isinstance(error, Exception):
                raise
        else:
            if not errand.answer.done():
                errand.answer.set_result(answer)

    async def _read(self, unit_id: int, block: Block, timeout_s: float | None) -> Answer:
        request = read_request(unit_id, block)
        unit = next((u for u in self.units if u.spec.unit_id == unit_id), None)
        if unit is None:
            return await self._ask(self._guest(unit_id, block, timeout_s), request)
        peer, usual_s = unit.peer, unit.peer.timeout_s
        peer.timeout_s = min(timeout_s or usual_s, max(usual_s, GUEST_MOST_S))
        try:
            return await self._ask(peer, request)
        finally:
            peer.timeout_s = usual_s
            if peer.needs_resync:
                peer.resyncs = _resyncs(unit_id, (*unit.blocks, block))

    def _guest(self, unit_id: int, block: Block, timeout_s: float | None) -> Peer:
        health = UnitHealth(device=f"unit {unit_id}", unit_id=unit_id)
        peer = self.guest_peers.setdefault(  # at most 256
            unit_id, Peer(timeout_s=0.0, resyncs=(), needs_resync=False, health=health, is_guest=True)
        )
        peer.timeout_s = min(timeout_s or GUEST_TIMEOUT_S, GUEST_MOST_S)
        peer.resyncs = _resyncs(unit_id, (block,))
        return peer

    async def _ask(self, peer: Peer, request: Request) -> Answer:
        try:
            if not self.line.is_ready:
                await self.line.ready()
            if peer.needs_resync:
                await self.line.resync(peer)
            asked_s = mono_s()
            pdu = await self.line.ask(peer, request)
        except ReplyError:
            raise
        except Exception as error:
            raise self.broken(peer, error) from error
        return Answer(words=request.words(pdu), reply_ms=(self.line.link.last_byte_s - asked_s) * 1000)

    async def _write(self, device: str, name: str, state: str) -> Answer:
        """A write is the same however often it is made, so one that is not confirmed is made again."""
        unit, output, raw = self._output(device, name, state)  # the units may have changed while it waited
        self.line.reopen_s = 0.0  # a siren does not wait for the back-off
        for tries_left in reversed(range(WRITE_TRIES)):
            try:
                if not self.line.is_ready:
                    await self.line.ready()
                await self.line.ask(unit.peer, write_request(unit.spec.unit_id, output, raw))
                answer = await self._ask(unit.peer, read_request(unit.spec.unit_id, _read_back(output)))
            except ReplyError as fault:
                if not tries_left or fault.code:
                    raise
                continue
            if answer.words[0] == raw:
                return answer
            if not tries_left:
                names = {value: word for word, value in output.states}
                found = names.get(answer.words[0], str(answer.words[0]))
                what = f"{state} was written, {found} reads back: check the device and its wiring"
                raise ReplyError("not_taken", what, asked=True)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Nobody waits for an answer that cannot come any more."""
        for errand in (*self.writes, *self.guests):
            if not errand.answer.done():
                errand.answer.set_exception(ReplyError("no_connection", f"bus {self.spec.id} is being stopped"))
        self.writes.clear()
        self.guests.clear()

    # --- other units ---

    def change(self, spec: BusSpec) -> None:
        """Other units or times on the same wire, from the next turn on."""
        self.coming = spec
        self.wake()

    def adopt(self, spec: BusSpec) -> None:
        """Units that are the same go on as if nothing had happened; the counters of those that changed as well."""
        self.coming = None
        start_s, before = _grid(mono_s()), {u.spec.device: u for u in self.units}
        self.spec = spec
        self.line.use(spec)
        self.health.units = {u.device: _health_of(self.health, u) for u in spec.units}
        self.units = [
            self._adopted(before.get(u.device), u, start_s + _phase_s(u, i, spec)) for i, u in enumerate(spec.units)
        ]

    def _adopted(self, old: _Unit | None, spec: UnitSpec, due_s: float) -> _Unit:
        if old is None:
            return _unit(self.spec, spec, self.health.units[spec.device], due_s)
        if old.spec == spec:
            old.peer.timeout_s, old.policy = self.spec.timeout_s(spec), _policy(self.spec, spec)
            return old
        same_phase = old.spec.poll_s == spec.poll_s
        unit = _unit(self.spec, spec, self.health.units[spec.device], old.due_s if same_phase else due_s)
        if old.spec.unit_id == spec.unit_id:
            unit.breaker, unit.trusted = old.breaker, old.trusted
            peer, before = unit.peer, old.peer
            peer.needs_resync, peer.missed_resyncs = before.needs_resync, before.missed_resyncs
            peer.open_resyncs, peer.quiet_s = before.open_resyncs, before.quiet_s
            if unit.blocks == old.blocks and old.spec.device == spec.device:
                unit.reads = old.reads  # a heartbeat that stands still is not forgotten
        return unit


def _health_of(bus: BusHealth, spec: UnitSpec) -> UnitHealth:
    health = bus.units.get(spec.device) or UnitHealth(device=spec.device, unit_id=spec.unit_id)
    health.unit_id = spec.unit_id
    return health


def _phase_s(unit: UnitSpec, index: int, bus: BusSpec) -> float:
    """Units are spread over the period."""
    together = 1 if bus.kind.is_rtu else TOGETHER
    slots = math.ceil(len(bus.units) / together)
    return unit.poll_s * (index // together) / slots


def _grid(moment_s: float) -> float:
    return math.floor(moment_s / GRID_S) * GRID_S


def _due_s(unit: _Unit) -> float:
    return unit.due_s


def _hopeful_first(unit: _Unit) -> tuple[bool, float]:
    return unit.breaker.failures > 0, unit.due_s


def _readings(unit: _Unit, answers: Sequence[Sequence[int] | str], at: Instant) -> list[Reading]:
    readings: list[Reading] = []
    for (_, points, read), answer in zip(unit.reads, answers, strict=True):
        if isinstance(answer, str):
            readings += [Reading(point=p, value=None, quality=Quality.BAD, why=answer, at=at) for p in points]
        else:
            readings += read(answer, at)
    return readings


def _bad(unit: _Unit, why: str, at: Instant) -> list[Reading]:
    return _readings(unit, [why] * len(unit.reads), at)


def _log_change(unit: _Unit, fault: ReplyError | None) -> None:
    if fault is not None and not unit.health.why:
        logger.warning("%s: lost: %s", unit.spec.device, fault, extra={"device": unit.spec.device, "reason": fault.why})
    elif fault is None and unit.health.why:
        logger.info("%s: answers again after %s", unit.spec.device, unit.health.why, extra={"device": unit.spec.device})
