"""Thousands of randomized faults on many wires at once: never a wrong value, and everything good again afterwards.

Each register holds a number that belongs to its unit, function and address alone, so a mix-up shows. The faulty peer
runs in the same event loop, and sends nothing later than it says even when the machine stalls: a reply that has become
later than `late_max_ms` is not sent at all.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import os
import random
import struct
import time
import tty
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sitewarden.sensors.breaker import BreakerPolicy
from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, ReplyError, UnitSpec
from sitewarden.sensors.frames import crc16
from sitewarden.sensors.modbus import Bus
from sitewarden.sensors.registers import Output, Register, Table, ValueType
from sitewarden.words import Quality, Reading

Eventually = Callable[..., Awaitable[object]]

TIMEOUT_MS, LATE_MAX_MS = 50, 120
TIMEOUT_S, LATE_MAX_S = TIMEOUT_MS / 1000, LATE_MAX_MS / 1000
MARGIN_S = 0.015  # nothing is sent later than so much before late_max
FAULTY = 0.4  # of all replies
CASES = 3000  # on each kind of wire
FUNCTIONS = {Table.COIL: 1, Table.DISCRETE: 2, Table.HOLDING: 3, Table.INPUT: 4}
READS = FUNCTIONS.values()


def held(unit: int, function: int, address: int) -> int:
    """What a register holds; different for all that are used here (a test says so)."""
    return crc16(struct.pack(">BBH", unit, function, address))


def bit(unit: int, function: int, address: int) -> int:
    return held(unit, function, address) & 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request as the peer sees it; `transaction` is of the MBAP header (TCP), `heard_s` of the loop's clock."""

    packet: bytes
    unit: int
    function: int
    address: int
    count: int
    transaction: bytes
    heard_s: float

    def pdu(self, *, unit: int = 0, function: int = 0, address: int = 0, count: int = 0) -> bytes:
        """The reply, or, with what is added to the question, the reply to another one."""
        unit, function = self.unit + unit, self.function + function
        address, count = self.address + address, self.count + count
        if function in (1, 2):
            bits = sum(bit(unit, function, address + i) << i for i in range(count))
            size = (count + 7) // 8
            return bytes((function, size)) + bits.to_bytes(size, "little")
        words = (held(unit, function, address + i) for i in range(count))
        return struct.pack(f">BB{count}H", function, 2 * count, *words)


def rtu(unit: int, pdu: bytes) -> bytes:
    body = bytes((unit,)) + pdu
    return body + crc16(body).to_bytes(2, "little")


def mbap(ask: Ask, pdu: bytes, *, transaction: bytes | None = None, length: int = 0, unit: int = 0) -> bytes:
    head = ask.transaction if transaction is None else transaction
    return head + struct.pack(">HHB", 0, len(pdu) + 1 + length, ask.unit + unit) + pdu


# --- faults: what goes on the wire, and when after the request ---

HANG_UP = b""  # in place of bytes: close the connection (on a pseudo-terminal: silence)
Sends = list[tuple[float, bytes]]
Fault = Callable[[Ask, random.Random], Sends]


def flipped(frame: bytes, dice: random.Random) -> bytes:
    """One to three bits wrong: the CRC finds all of these."""
    number = int.from_bytes(frame, "big")
    for position in dice.sample(range(8 * len(frame)), dice.randint(1, 3)):
        number ^= 1 << position
    return number.to_bytes(len(frame), "big")


def lateness(dice: random.Random) -> float:
    """Too late for the timeout, in time for late_max."""
    return dice.uniform(TIMEOUT_S + 0.005, LATE_MAX_S - MARGIN_S)


def split(frame: bytes, dice: random.Random, pause_s: float) -> Sends:
    at = dice.randrange(1, len(frame))
    return [(0.0, frame[:at]), (pause_s, frame[at:])]


def right_rtu(ask: Ask) -> bytes:
    return rtu(ask.unit, ask.pdu())


def exception(ask: Ask, dice: random.Random, function: int = 0) -> bytes:
    return bytes(((ask.function + function) | 0x80, dice.choice((1, 2, 3, 4, 6))))


def dribble(frame: bytes, dice: random.Random) -> Sends:
    moment_s, sends = 0.0, []
    for byte in frame:
        sends.append((moment_s, bytes((byte,))))
        moment_s += dice.uniform(0, 0.0015)
    return sends


# After these there is no reply in time: the poll must be bad.
FATAL_RTU: dict[str, Fault] = {
    "silence": lambda a, d: [],
    "late": lambda a, d: [(lateness(d), right_rtu(a))],
    "wrong_unit": lambda a, d: [(0.0, rtu(a.unit % 3 + 1, a.pdu(unit=a.unit % 3 + 1 - a.unit)))],
    "wrong_function": lambda a, d: [(0.0, rtu(a.unit, a.pdu(function=1 if a.function % 2 else -1)))],
    "wrong_length": lambda a, d: [(0.0, rtu(a.unit, a.pdu(count=16 if a.function < 3 else d.choice((-1, 1, 7)))))],
    "truncated": lambda a, d: [(0.0, right_rtu(a)[: d.randrange(1, len(right_rtu(a)))])],
    "crc": lambda a, d: [(0.0, flipped(right_rtu(a), d))],
    "exception": lambda a, d: [(0.0, rtu(a.unit, exception(a, d)))],
    "late_exception": lambda a, d: [(lateness(d), rtu(a.unit, exception(a, d)))],
    "foreign_exception": lambda a, d: [(0.0, rtu(a.unit, exception(a, d, function=1)))],
    "noise": lambda a, d: [(0.0, d.randbytes(d.randint(1, 40)))],
    "echo_alone": lambda a, d: [(0.0, a.packet)],
    "echo_then_late": lambda a, d: [(0.0, a.packet), (lateness(d), right_rtu(a))],
    "split_long": lambda a, d: split(right_rtu(a), d, lateness(d)),
}
# After these there may be one, or the connection is gone.
FAIR_RTU: dict[str, Fault] = {
    "hang_up": lambda a, d: [(d.uniform(0, 0.02), HANG_UP)],
    "late_or_not": lambda a, d: [(d.uniform(0, LATE_MAX_S - MARGIN_S), right_rtu(a))],
    "noise_before": lambda a, d: [(0.0, d.randbytes(d.randint(1, 12)) + right_rtu(a))],
    "noise_after": lambda a, d: [(0.0, right_rtu(a) + d.randbytes(d.randint(1, 12)))],
    "glued_to_another": lambda a, d: [(0.0, rtu(a.unit % 3 + 1, a.pdu(unit=a.unit % 3 + 1 - a.unit)) + right_rtu(a))],
    "glued_to_broken": lambda a, d: [(0.0, flipped(right_rtu(a), d) + right_rtu(a))],
    "dribble": lambda a, d: dribble(right_rtu(a), d),
    "echo": lambda a, d: [(0.0, a.packet), (d.uniform(0, 0.01), right_rtu(a))],
    "echo_glued": lambda a, d: [(0.0, a.packet + right_rtu(a))],
    "split": lambda a, d: split(right_rtu(a), d, d.uniform(0.001, 0.02)),
}
# A second reply cannot be told from the one to the next block of the same function and length (sensors/line.py), so
# these are for units that have no such blocks.
TWICE_RTU: dict[str, Fault] = {
    "glued_twice": lambda a, d: [(0.0, 2 * right_rtu(a))],
    "duplicate": lambda a, d: [(0.0, right_rtu(a)), (d.uniform(0, 0.01), right_rtu(a))],
}
TWIN_UNITS = (1, 5)  # whose blocks are alike; the siren is read back each time


def right_tcp(ask: Ask) -> bytes:
    return mbap(ask, ask.pdu())


def other_transaction(ask: Ask, dice: random.Random) -> bytes:
    number = int.from_bytes(ask.transaction, "big")
    return ((number + dice.randint(1, 0xFFFF)) & 0xFFFF).to_bytes(2, "big")


def older(ask: Ask, dice: random.Random) -> bytes:
    """The reply to another register, asked for some requests ago."""
    number = int.from_bytes(ask.transaction, "big")
    return mbap(ask, ask.pdu(address=7), transaction=((number - dice.randint(1, 9)) & 0xFFFF).to_bytes(2, "big"))


def foreign_garbage(dice: random.Random) -> bytes:
    """No protocol id of Modbus in it, at least where a header begins."""
    return dice.randbytes(2) + b"\x13" + dice.randbytes(dice.randint(4, 60))


FATAL_TCP: dict[str, Fault] = {
    "silence": lambda a, d: [],
    "transaction": lambda a, d: [(0.0, mbap(a, a.pdu(), transaction=other_transaction(a, d)))],
    "old_reply": lambda a, d: [(0.0, older(a, d))],
    "garbage": lambda a, d: [(0.0, foreign_garbage(d))],
    "length_too_big": lambda a, d: [(0.0, mbap(a, a.pdu(), length=d.randint(1, 300)))],
    "length_too_small": lambda a, d: [(0.0, mbap(a, a.pdu(), length=-d.randint(1, len(a.pdu()) + 1)))],
    "wrong_unit": lambda a, d: [(0.0, mbap(a, a.pdu(unit=1), unit=1))],
    "wrong_function": lambda a, d: [(0.0, mbap(a, a.pdu(function=1 if a.function % 2 else -1)))],
    "wrong_length": lambda a, d: [(0.0, mbap(a, a.pdu(count=16 if a.function < 3 else d.choice((-1, 1, 7)))))],
    "truncated": lambda a, d: [(0.0, right_tcp(a)[: d.randrange(1, len(right_tcp(a)))])],
    "exception": lambda a, d: [(0.0, mbap(a, exception(a, d)))],
    "foreign_exception": lambda a, d: [(0.0, mbap(a, exception(a, d, function=1)))],
    "late": lambda a, d: [(lateness(d), right_tcp(a))],
    "split_long": lambda a, d: split(right_tcp(a), d, lateness(d)),
}
FAIR_TCP: dict[str, Fault] = {
    "hang_up": lambda a, d: [(d.uniform(0, 0.02), HANG_UP)],
    "reply_and_hang_up": lambda a, d: [(0.0, right_tcp(a)), (d.uniform(0, 0.02), HANG_UP)],
    "late_or_not": lambda a, d: [(d.uniform(0, 2 * LATE_MAX_S), right_tcp(a))],
    "glued_to_old": lambda a, d: [(0.0, older(a, d) + right_tcp(a))],
    "glued_to_next": lambda a, d: [
        (0.0, right_tcp(a) + mbap(a, a.pdu(address=7), transaction=other_transaction(a, d)))
    ],
    "twice": lambda a, d: [(0.0, 2 * right_tcp(a))],
    "duplicate": lambda a, d: [(0.0, right_tcp(a)), (d.uniform(0, LATE_MAX_S), right_tcp(a))],
    "dribble": lambda a, d: dribble(right_tcp(a), d),
    "split": lambda a, d: split(right_tcp(a), d, d.uniform(0.001, 0.02)),
    "garbage_behind": lambda a, d: [(0.0, right_tcp(a) + foreign_garbage(d))],
}


# --- the faulty peer and its wires ---


@dataclass(kw_only=True)
class Device:
    """Answers every request it is given with a fault drawn by its dice, or with the right reply."""

    is_rtu: bool
    dice: random.Random
    faulty: float = FAULTY
    counts: collections.Counter[str] = field(default_factory=collections.Counter)
    fatal: int = 0  # after these there was no reply in time
    twice: int = 0
    unsent: int = 0
    latest_s: float = LATE_MAX_S  # what would be sent later is not sent at all (RTU)
    answer: Callable[[Device, Ask], Sends] | None = None
    understand: Callable[[Ask], Ask] = lambda ask: ask  # before anything is answered

    def sends(self, ask: Ask) -> Sends:
        if self.answer is not None:
            return self.answer(self, ask)
        if self.dice.random() >= self.faulty:
            return [(0.0, right_rtu(ask) if self.is_rtu else right_tcp(ask))]
        fatal = FATAL_RTU if self.is_rtu else FATAL_TCP
        fair = FAIR_RTU if self.is_rtu else FAIR_TCP
        if self.is_rtu and ask.unit not in TWIN_UNITS:
            fair = fair | TWICE_RTU
        name = self.dice.choice((*fatal, *fair))
        self.counts[name] += 1
        self.fatal += name in fatal
        self.twice += name in TWICE_RTU
        return (fatal | fair)[name](ask, self.dice)


class Wire:
    """Bytes of one connection, cut into requests; replies go back to where the request came from.

    A TCP peer writes its frames one after the other: while one is half written the others wait, and after one that is
    never completed nothing comes any more. (Bytes of two frames mixed into one another cannot be told apart by anybody:
    Modbus TCP has no checksum.)
    """

    def __init__(self, device: Device, write: Callable[[bytes], object]) -> None:
        self.device = device
        self.write = write
        self._buffer = b""
        self._half_written: Ask | None = None
        self._waiting: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self._buffer += data
        size = 8 if self.device.is_rtu else 12
        while len(self._buffer) >= size:
            packet, self._buffer = self._buffer[:size], self._buffer[size:]
            self.take(self.device.understand(self.parse(packet)))

    def parse(self, packet: bytes) -> Ask:
        if self.device.is_rtu:
            assert crc16(packet[:6]) == int.from_bytes(packet[6:], "little"), packet
        fields = struct.unpack(">BBHH", packet[:6] if self.device.is_rtu else packet[6:])
        unit, function, address, count = fields
        transaction = b"" if self.device.is_rtu else packet[:2]
        return Ask(
            packet=packet,
            unit=unit,
            function=function,
            address=address,
            count=count,
            transaction=transaction,
            heard_s=asyncio.get_running_loop().time(),
        )

    def take(self, ask: Ask) -> None:
        loop = asyncio.get_running_loop()
        sends = self.device.sends(ask)
        for number, (after_s, data) in enumerate(sends, start=1):
            if after_s:
                loop.call_at(ask.heard_s + after_s, self.send, data, ask, number == len(sends))
            else:
                self.send(data, ask, number == len(sends))

    def send(self, data: bytes, ask: Ask, is_last: bool) -> None:
        late_s = asyncio.get_running_loop().time() - ask.heard_s
        if self.device.is_rtu and late_s > self.device.latest_s:  # the machine stalled
            self.device.unsent += 1
        elif self.device.is_rtu:
            self.write(data)
        elif self._half_written is not None and self._half_written is not ask:
            self._waiting.append(data)
        else:
            self.write(data)
            self._frame_went_on(data, ask, is_last)

    def _frame_went_on(self, data: bytes, ask: Ask, is_last: bool) -> None:
        if self._half_written is None:
            whole = right_tcp(ask)
            self._half_written = ask if whole.startswith(data) and data != whole else None
        elif is_last:
            self._half_written = None
            self.write(b"".join(self._waiting))
            self._waiting.clear()


@contextlib.asynccontextmanager
async def on_pty(device: Device) -> AsyncIterator[dict[str, Any]]:
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    is_open = True

    def write(data: bytes) -> None:
        if is_open:
            with contextlib.suppress(BlockingIOError):  # nobody reads: lost, as on a real line
                os.write(master, data)

    wire = Wire(device, write)
    loop = asyncio.get_running_loop()
    loop.add_reader(master, lambda: wire.feed(os.read(master, 256)))
    try:
        yield {"kind": BusKind.RTU, "serial": os.ttyname(slave), "baud": 115200}
    finally:
        is_open = False
        loop.remove_reader(master)
        os.close(master)
        os.close(slave)


@contextlib.asynccontextmanager
async def on_tcp(device: Device) -> AsyncIterator[dict[str, Any]]:
    """Modbus TCP, or a serial-to-Ethernet converter that sends what comes from the line to whoever is connected now."""
    served: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    now: list[asyncio.StreamWriter] = []

    def to_line(data: bytes) -> None:
        if now:
            write(now[0], data)

    def write(writer: asyncio.StreamWriter, data: bytes) -> None:
        if data == HANG_UP:
            writer.close()
        elif not writer.is_closing():
            writer.write(data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        served[task] = writer
        now[:] = [writer]
        wire = Wire(device, to_line if device.is_rtu else functools.partial(write, writer))
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(256):
                wire.feed(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    kind = BusKind.RTU_TCP if device.is_rtu else BusKind.TCP
    try:
        yield {"kind": kind, "host": "127.0.0.1", "port": server.sockets[0].getsockname()[1]}
    finally:
        server.close()
        for writer in served.values():
            writer.close()
        await asyncio.gather(*served, return_exceptions=True)


# --- the bus under test ---


def words(table: Table, *addresses: int) -> tuple[Register, ...]:
    return tuple(Register(name=f"{table}_{a}", table=table, address=a, type=ValueType.U16) for a in addresses)


def bits(table: Table, first: int, count: int) -> tuple[Register, ...]:
    places = range(first, first + count)
    return tuple(Register(name=f"{table}_{a}", table=table, address=a, type=ValueType.BIT) for a in places)


REGISTERS = {
    1: words(Table.HOLDING, 0, 1, 100, 101, 200, 201),  # three blocks that are alike: the hard case
    2: words(Table.INPUT, 300, 301, 302),
    3: (*bits(Table.COIL, 768, 12), *words(Table.HOLDING, 0, 1, 2, 3), *words(Table.INPUT, 300, 301)),
}


def expected(point: str) -> float:
    """What `area.u<unit>.<table>_<address>` must be."""
    _, unit, name = point.split(".")
    table, _, address = name.rpartition("_")
    place = int(unit[1:]), FUNCTIONS[Table(table)], int(address)
    return float(bit(*place) if Table(table).is_bits else held(*place))


def test_no_two_registers_hold_the_same() -> None:
    places = [(u, FUNCTIONS[r.table], r.address) for u, rs in REGISTERS.items() for r in rs if not r.table.is_bits]
    assert len({held(*p) for p in places}) == len(places)


def units(poll_s: float = 0.05, registers: dict[int, tuple[Register, ...]] | None = None) -> tuple[UnitSpec, ...]:
    all_registers = REGISTERS if registers is None else registers
    return tuple(
        UnitSpec(device=f"area.u{u}", unit_id=u, registers=held_here, poll_s=poll_s)
        for u, held_here in all_registers.items()
    )


@dataclass(kw_only=True)
class Rig:
    """One bus against one faulty device, and everything that it reported."""

    device: Device
    bus: Bus
    health: BusHealth
    polls: dict[str, list[bool]]  # by device: was every reading good
    wrong: list[Reading]
    whys: collections.Counter[str]

    def take(self, readings: list[Reading]) -> None:
        if not readings:  # a unit with outputs alone
            return
        self.polls[readings[0].point.rpartition(".")[0]].append(all(r.quality is Quality.GOOD for r in readings))
        for reading in readings:
            if reading.quality is Quality.GOOD:
                if reading.value != expected(reading.point):
                    self.wrong.append(reading)
            else:
                self.whys[reading.why] += 1
                if reading.value is not None or not reading.why:
                    self.wrong.append(reading)


WIRES = {"rtu": (on_pty, True), "rtu_tcp": (on_tcp, True), "tcp": (on_tcp, False)}


@contextlib.asynccontextmanager
async def rig(wire: str, dice: random.Random, spec_units: tuple[UnitSpec, ...] | None = None) -> AsyncIterator[Rig]:
    connect, is_rtu = WIRES[wire]
    device = Device(is_rtu=is_rtu, dice=dice)
    async with connect(device) as where:
        times = {"timeout_ms": TIMEOUT_MS, "late_max_ms": LATE_MAX_MS}
        spec = BusSpec(id=wire, units=units() if spec_units is None else spec_units, **times, **where)
        health = BusHealth.of(spec)
        polls: dict[str, list[bool]] = {u.device: [] for u in spec.units}
        made: list[Rig] = []
        bus = Bus(spec, lambda readings: made[0].take(readings), health)
        made.append(
            Rig(device=device, bus=bus, health=health, polls=polls, wrong=[], whys=collections.Counter()),
        )
        task = asyncio.create_task(bus.run(), name=f"bus {wire}")
        try:
            yield made[0]
            assert not task.done(), task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.fixture
def quick_breakers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Breakers as they are, with short pauses: otherwise units that fail so often would hardly be asked."""
    quick = BreakerPolicy(base_s=0.1, cap_s=0.3)
    monkeypatch.setattr("sitewarden.sensors.owner.BreakerPolicy", lambda **_: quick)


@pytest.fixture
def seed(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> int:
    """SITEWARDEN_SEED repeats the faults of a run; without it the long form draws another, the short one does not."""
    is_soak = request.node.get_closest_marker("soak") is not None
    drawn = random.randrange(2**32) if is_soak else 20_261_122
    chosen = int(os.environ.get("SITEWARDEN_SEED") or drawn)
    with capsys.disabled() if is_soak else contextlib.nullcontext():
        print(f"\nSITEWARDEN_SEED={chosen}")
    return chosen


async def faults_for(rigs: list[Rig], enough: Callable[[int], bool], eventually: Eventually) -> int:
    """Let faults happen until it is enough, then no more; everything must become good. Returns their number."""

    def cases() -> int:
        return sum(r.device.counts.total() for r in rigs)

    def checked() -> bool:
        assert [w for r in rigs for w in r.wrong] == []
        return enough(cases())

    await eventually(checked, lambda: f"enough faults, {cases()} so far", bound_s=86_400)
    for r in rigs:
        r.device.faulty = 0.0
    good = [(u, u.good) for r in rigs for u in r.health.units.values()]
    await eventually(
        lambda: all(u.good > n + 1 and u.state == "ok" for u, n in good),
        lambda: f"good again: {[(u.device, u.state, u.last_error) for u, n in good if u.good <= n + 1]}",
        bound_s=60,
    )
    return cases()


def check(rigs: list[Rig]) -> None:
    """After the buses were stopped."""
    for r in rigs:
        assert r.wrong == []
        for name, counted in r.health.units.items():
            assert counted.polls - (counted.good + counted.bad + counted.skipped) in (
                0,
                1,
            )  # 1: cancelled in the middle
            polls = r.polls[name]
            assert counted.good == sum(polls)
            assert counted.bad <= polls.count(False) <= counted.bad + counted.skipped
            assert counted.bad >= 1
        refused = sum(u.timeouts + u.bad_frames + u.exceptions for u in r.health.units.values())
        # Each of them was seen, but for what the end of a connection, or the second of two replies, stood for.
        hidden = r.device.counts["hang_up"] + r.device.counts["reply_and_hang_up"] + r.device.twice
        assert refused >= r.device.fatal - hidden


def report(rigs: list[Rig], cases: int, capsys: pytest.CaptureFixture[str] | None = None) -> None:
    counts = sum((r.device.counts for r in rigs), collections.Counter())
    polls, good, bad, skipped = (sum(getattr(r.health, n) for r in rigs) for n in ("polls", "good", "bad", "skipped"))
    unsent = sum(r.device.unsent for r in rigs)
    whys = sum((r.whys for r in rigs), collections.Counter())
    with capsys.disabled() if capsys else contextlib.nullcontext():
        print(f"\n{cases} faults, {polls} polls = {good} good + {bad} bad + {skipped} skipped; {unsent} not sent")
        print(f"{dict(counts)}\n{dict(whys)}")


@contextlib.asynccontextmanager
async def many(
    wires: tuple[str, ...], each: int, seed: int, spec_units: tuple[UnitSpec, ...] | None = None
) -> AsyncIterator[list[Rig]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(rig(wire, random.Random(f"{seed} {wire} {number}"), spec_units))
            for wire in wires
            for number in range(each)
        ]


@pytest.mark.usefixtures("quick_breakers")
@pytest.mark.parametrize("wire", WIRES)
async def test_faults_give_no_wrong_value_and_pass(wire: str, seed: int, eventually: Eventually) -> None:
    async with many((wire,), 50, seed) as rigs:
        cases = await faults_for(rigs, lambda n: n >= CASES, eventually)
    report(rigs, cases)
    check(rigs)
    counts = sum((r.device.counts for r in rigs), collections.Counter())
    names = {*FATAL_TCP, *FAIR_TCP} if wire == "tcp" else {*FATAL_RTU, *FAIR_RTU, *TWICE_RTU}
    assert all(counts[name] >= 10 for name in names), counts
    assert sum(r.health.strays > 0 for r in rigs) > 10 or wire == "tcp"  # late replies did come


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.usefixtures("quick_breakers")
async def test_faults_for_long(seed: int, eventually: Eventually, capsys: pytest.CaptureFixture[str]) -> None:
    """Long form: SITEWARDEN_SOAK_S seconds of faults on all kinds of wires at once."""
    end_s = time.monotonic() + float(os.environ.get("SITEWARDEN_SOAK_S", "60"))
    async with many(tuple(WIRES), 12, seed) as rigs:
        cases = await faults_for(rigs, lambda _: time.monotonic() >= end_s, eventually)
    report(rigs, cases, capsys)
    check(rigs)


# --- what remains: the limits that sensors/line.py names, as they are ---

RTU_WIRES = ("rtu", "rtu_tcp")
TWINS = {a: tuple(held(1, 3, (a + step) % 300) for step in (100, 200)) for a in (0, 1, 100, 101, 200, 201)}


def is_twin(reading: Reading) -> bool:
    """The value of the register at the same place in another block of the same unit, function and length."""
    _, unit, name = reading.point.split(".")
    return unit == "u1" and reading.value in TWINS[int(name.rpartition("_")[2])]


async def until_settled(made: Rig, eventually: Eventually) -> None:
    """The device is sound from now on, and what it owes has come: then nothing is wrong any more."""
    made.device.answer = sound
    await asyncio.sleep(made.device.latest_s + LATE_MAX_S)  # what is still under way
    await more_good(made, 1, eventually)
    assert all(is_twin(w) for w in made.wrong), made.wrong
    made.wrong.clear()
    await more_good(made, 5, eventually)
    assert made.wrong == []


async def more_good(made: Rig, count: int, eventually: Eventually) -> None:
    good = [(u, u.good + count) for u in made.health.units.values()]
    await eventually(lambda: all(u.good >= n for u, n in good), f"{count} good polls of each unit", bound_s=60)


def sound(device: Device, ask: Ask) -> Sends:
    return [(0.002, right_rtu(ask))]


@pytest.mark.usefixtures("quick_breakers")
@pytest.mark.parametrize("wire", RTU_WIRES)
async def test_later_than_late_max_is_at_worst_a_twin(wire: str, seed: int, eventually: Eventually) -> None:
    """Replies up to three times `late_max_ms` late and in any order: only blocks that are alike can be mixed up."""

    def later(device: Device, ask: Ask) -> Sends:
        delay_s = device.dice.uniform(0, 3 * LATE_MAX_S) if device.dice.random() < 0.5 else 0.002
        device.counts["later"] += delay_s > LATE_MAX_S
        return [(delay_s, right_rtu(ask))]

    async with rig(wire, random.Random(f"{seed} later {wire}")) as made:
        made.device.answer, made.device.latest_s = later, 3 * LATE_MAX_S + MARGIN_S
        await eventually(lambda: made.device.counts["later"] >= 15, "replies later than late_max", bound_s=60)
        await until_settled(made, eventually)


@pytest.mark.usefixtures("quick_breakers")
@pytest.mark.parametrize("wire", RTU_WIRES)
async def test_later_than_late_max_in_order_is_never_wrong(wire: str, seed: int, eventually: Eventually) -> None:
    """A device that answers one request after the other: the resynchronizing read proves that old replies are out."""

    def in_order() -> Callable[[Device, Ask], Sends]:
        free_s = 0.0

        def answer(device: Device, ask: Ask) -> Sends:
            nonlocal free_s
            may_be_late = ask.count == 2 and device.dice.random() < 0.3  # not the resynchronizing reads: see below
            delay_s = device.dice.uniform(0, 3 * LATE_MAX_S) if may_be_late else 0.002
            device.counts["later"] += delay_s > LATE_MAX_S
            free_s = max(free_s, ask.heard_s) + delay_s
            return [(free_s - ask.heard_s, right_rtu(ask))]

        return answer

    alone = units(registers={1: REGISTERS[1]})  # beside others, it would be asked again after them, when all is over
    async with many((wire,), 30, seed, alone) as rigs:
        for made in rigs:
            made.device.answer, made.device.latest_s = in_order(), 3600.0
        await eventually(
            lambda: sum(r.device.counts["later"] for r in rigs) >= 300, "replies later than late_max", bound_s=120
        )
        assert [w for r in rigs for w in r.wrong] == []


class HeldBack:
    """Answers in order, and keeps replies back until later requests come: `RELEASES` on each, from the trigger on."""

    #  Asked are: block 200, resync 1, resync 2, block 0, resync 3, block 0 again, block 100, block 200.
    RELEASES = (0, 0, 2, 0, 1, 1, 2, 1)

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.step: int | None = None
        self.asked = 0

    def answer(self, device: Device, ask: Ask) -> Sends:
        self.asked += 1
        if self.step is None and self.asked > 9 and ask.address == 200:
            self.step = 0
        self.kept.append(right_rtu(ask))
        count = len(self.kept)
        if self.step is not None and self.step < len(self.RELEASES):
            count, self.step = self.RELEASES[self.step], self.step + 1
        released, self.kept = self.kept[:count], self.kept[count:]
        return [(0.002 * number, frame) for number, frame in enumerate(released, start=1)]


@pytest.mark.usefixtures("quick_breakers")
@pytest.mark.parametrize("wire", RTU_WIRES)
async def test_late_reply_to_a_resync_proves_nothing_of_what_was_asked_after_it(
    wire: str, eventually: Eventually
) -> None:
    """In order, but later than `late_max_ms`."""
    held_back = HeldBack()
    async with rig(wire, random.Random(0), units(registers={1: REGISTERS[1]})) as made:
        made.device.answer, made.device.latest_s = held_back.answer, 3600.0
        await eventually(lambda: held_back.step == len(HeldBack.RELEASES), "all was played", bound_s=60)
        await more_good(made, 3, eventually)
        assert made.wrong == []


@pytest.mark.parametrize("wire", RTU_WIRES)
async def test_second_reply_is_at_worst_a_twin(wire: str, seed: int, eventually: Eventually) -> None:
    """Every reply comes twice, the second time while the next block is out."""

    def twice(device: Device, ask: Ask) -> Sends:
        device.counts["twice"] += 1
        return [(0.010, right_rtu(ask)), (0.013, right_rtu(ask))]

    async with rig(wire, random.Random(f"{seed} twice {wire}")) as made:
        made.device.answer = twice
        await eventually(lambda: made.device.counts["twice"] >= 60, "second replies", bound_s=60)
        await until_settled(made, eventually)


# --- adapters with local echo: each request comes back before its reply ---


def echoes_alone(device: Device, ask: Ask) -> Sends:
    """The unit is dead, the adapter is not."""
    device.counts["echo"] += 1
    return [(0.001, ask.packet)]


def echoes_first(device: Device, ask: Ask) -> Sends:
    return [*echoes_alone(device, ask), (0.010, right_rtu(ask))]


ECHOED = {
    "registers": words(Table.HOLDING, 768, 769),
    "few_bits": bits(Table.COIL, 768, 16),
    # Request and reply: unit, function, 3 (high byte of the address; data bytes), three bytes, CRC.
    "bits_whose_reply_has_the_length_of_the_request": bits(Table.COIL, 768, 20),
}


@pytest.mark.parametrize("wire", RTU_WIRES)
@pytest.mark.parametrize("what", ECHOED)
async def test_echo_of_a_request_is_no_reply(wire: str, what: str, eventually: Eventually) -> None:
    async with rig(wire, random.Random(0), units(registers={1: ECHOED[what]})) as made:
        unit = made.health.units["area.u1"]
        made.device.answer = echoes_first
        await eventually(lambda: unit.good > 2, "good polls beside the echoes", bound_s=60)
        made.device.answer = echoes_alone
        echoes, bad = made.device.counts["echo"], unit.bad
        await eventually(
            lambda: made.device.counts["echo"] >= echoes + 3 and unit.bad > bad, "echoes of a dead unit", bound_s=10
        )
        assert made.wrong == []


SIREN = UnitSpec(
    device="area.siren",
    unit_id=5,
    registers=(),
    poll_s=0.5,
    outputs=(Output(name="siren", table=Table.COIL, address=4, states=(("off", 0), ("on", 1))),),
)


class Siren:
    """One coil behind an adapter with local echo; a dead one leaves the echo alone."""

    def __init__(self, *, gap_s: float | None, dead: bool = False) -> None:
        self.gap_s = gap_s
        self.dead = dead
        self.on = 0
        self.writes = 0

    def answer(self, device: Device, ask: Ask) -> Sends:
        if ask.function == 5:
            self.writes += 1
        if self.dead:
            return [(0.001, ask.packet)]
        if ask.function == 5:
            self.on = int(ask.count == 0xFF00)
            reply = ask.packet
        else:
            size = (ask.count + 7) // 8
            here = self.on << (4 - ask.address)  # the siren is coil 4
            reply = rtu(ask.unit, bytes((ask.function, size)) + here.to_bytes(size, "little"))
        return [(0.001, ask.packet + reply)] if self.gap_s is None else [(0.001, ask.packet), (self.gap_s, reply)]


@pytest.mark.parametrize("wire", RTU_WIRES)
@pytest.mark.parametrize("gap_s", [0.01, None], ids=["apart", "glued"])
async def test_output_behind_a_local_echo(wire: str, gap_s: float | None) -> None:
    siren = Siren(gap_s=gap_s)
    async with rig(wire, random.Random(0), (SIREN,)) as made:
        made.device.answer = siren.answer
        for state, raw in (("on", 1), ("off", 0)):
            assert (await made.bus.write("area.siren", "siren", state)).words == (raw,)
            assert siren.on == raw


@pytest.mark.parametrize("wire", RTU_WIRES)
async def test_echo_does_not_confirm_a_write(wire: str) -> None:
    siren = Siren(gap_s=None, dead=True)
    async with rig(wire, random.Random(0), (SIREN,)) as made:
        made.device.answer = siren.answer
        with pytest.raises(ReplyError):
            await made.bus.write("area.siren", "siren", "on")
        assert siren.writes > 0


# --- writes while the wire is faulty ---


@dataclass(frozen=True, slots=True, kw_only=True)
class SirenAsk(Ask):
    """A request to the siren; the reply to a write is its echo, to a read what the coil holds."""

    on: int

    def pdu(self, *, unit: int = 0, function: int = 0, address: int = 0, count: int = 0) -> bytes:
        del unit
        if self.function == 5:
            return struct.pack(">BHH", 5 + function, self.address + address, self.count ^ count)
        size = (self.count + count + 7) // 8
        here = self.on << (4 - self.address)
        return bytes((self.function + function, size)) + here.to_bytes(size, "little")


class FaultySiren:
    """A coil that takes three writes of five, whatever the device then answers."""

    def __init__(self, device: Device) -> None:
        self.on = 0
        self.dice = device.dice
        device.understand = self.understand

    def understand(self, ask: Ask) -> Ask:
        if ask.function == 5 and self.dice.random() < 0.6:
            self.on = int(ask.count == 0xFF00)
        return SirenAsk(on=self.on, **{name: getattr(ask, name) for name in Ask.__slots__})


@pytest.mark.usefixtures("quick_breakers")
@pytest.mark.parametrize("wire", WIRES)
async def test_write_that_was_confirmed_was_taken(wire: str, seed: int) -> None:
    """Retries included; and one that is not confirmed is an error, never a guess."""
    outcomes: collections.Counter[str] = collections.Counter()

    async def write_all(made: Rig, number: int) -> None:
        siren, dice = FaultySiren(made.device), random.Random(f"{seed} {number}")
        while outcomes.total() < 500:
            state, raw = dice.choice((("off", 0), ("on", 1)))
            try:
                answer = await made.bus.write("area.siren", "siren", state)
            except ReplyError as error:
                outcomes[error.why] += 1
                await asyncio.sleep(0.02)  # the connection may not be tried again yet
            else:
                assert answer.words == (raw,) == (siren.on,)
                outcomes["confirmed"] += 1

    async with many((wire,), 30, seed, (SIREN,)) as rigs, asyncio.TaskGroup() as group:
        for number, made in enumerate(rigs):
            group.create_task(write_all(made, number), name=f"writes {number}")
    print(dict(outcomes))
    assert outcomes["confirmed"] > 100
    assert min(outcomes[why] for why in ("timeout", "bad_frame", "not_taken")) > 5
