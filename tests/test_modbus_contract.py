"""One set of expectations, three kinds of wire, three peers: libmodbus, pymodbus' simulator, and the simulated plant.

The peers are processes (`tests/peers/`) and share no code with the gateway's drivers; the first two are not ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes.util
import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from sitewarden.errors import RefusedError
from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, ReplyError, UnitSpec
from sitewarden.sensors.modbus import Bus
from sitewarden.sensors.registers import Output, Part, Register, Table, ValueType, WordOrder, plan
from sitewarden.words import Quality, Reading

Need = Callable[[str, str], str]
Eventually = Callable[..., Awaitable[object]]

PEERS = Path(__file__).parent / "peers"
START_S = 30.0
BAUD, PARITY = 19200, "N"  # a pseudo-terminal takes no parity
START = 96  # of each table
BITS = [(3 * i * i + i) // 2 % 2 for i in range(64)]
SAMPLES: dict[ValueType, tuple[str, float]] = {  # struct's letter (none: decimal digits), value
    ValueType.U16: ("H", 65_432),
    ValueType.I16: ("h", -12_345),
    ValueType.U32: ("I", 3_456_789_012),
    ValueType.I32: ("i", -1_987_654_321),
    ValueType.U64: ("Q", 0x0102_0304_0506_0700),
    ValueType.I64: ("q", -0x0102_0304_0506_0700),
    ValueType.F32: ("f", -1234.5),
    ValueType.F64: ("d", 0.000_123_456_789),
    ValueType.BCD16: ("", 1_982),
    ValueType.BCD32: ("", 98_765_432),
}


def wire_words(kind: ValueType, order: WordOrder, value: float) -> list[int]:
    """The registers of `value`, from the definition of the four orders: ABCD, CDAB, BADC, DCBA."""
    code = SAMPLES[kind][0]
    data = struct.pack(f">{code}", value) if code else bytes.fromhex(f"{value:0{4 * kind.words}.0f}")
    words = [data[i : i + 2] for i in range(0, len(data), 2)]
    if order in (WordOrder.LITTLE, WordOrder.LITTLE_SWAPPED):
        words.reverse()
    if order in (WordOrder.BIG_SWAPPED, WordOrder.LITTLE_SWAPPED):
        words = [word[::-1] for word in words]
    return [int.from_bytes(word, "big") for word in words]


def layout(sign: int) -> tuple[list[tuple[Register, float]], list[int]]:
    """Every type in every order, one after the other, and all the words."""
    fields: list[tuple[Register, float]] = []
    words: list[int] = []
    for kind, (code, sample) in SAMPLES.items():
        value = sign * sample if code and code not in "HIQ" else sample
        for order in WordOrder:
            place = {"name": f"{kind}_{order}", "address": START + len(words), "type": kind, "word_order": order}
            fields.append((Register(table=Table.HOLDING, **place), value))
            words += wire_words(kind, order, value)
    at = START + len(words)
    nibbles = (Part(address=at, mask=0x0F00, times=10_000, most=9), Part(address=at + 1, mask=0x3FFF))
    parts = Register(name="parts", table=Table.HOLDING, address=at, type=ValueType.PARTS, parts=nibbles)
    return [*fields, (parts, 74_321.0)], [*words, 0xA7BC, 0xC000 + 4_321, UNUSED_WORD, REFUSED_WORD]


UNUSED_WORD, REFUSED_WORD = 0x0815, 0x4711  # the gap keeps what is refused in a block of its own
FIELDS = {1: layout(1), 2: layout(-1)}  # two units with different values
END = START + len(FIELDS[1][1])  # the first address that the device does not have
REFUSE = END - 1  # a read of this one is refused with exception 3
STUCK = {"coil": START + 9, "holding": START + 9}  # writes to them are answered, and not taken


def image(units: Sequence[int]) -> dict[str, Any]:
    tables: dict[int, dict[str, Any]] = {}
    for unit in units:
        words = FIELDS[unit][1]
        bits = BITS if unit == 1 else [1 - b for b in BITS]
        tables[unit] = {t: {"start": START, "values": bits} for t in ("coil", "discrete")}
        tables[unit] |= {t: {"start": START, "values": words} for t in ("holding", "input")}
    return {"baud": BAUD, "parity": PARITY, "refuse": REFUSE, "stuck": STUCK, "units": tables}


# --- peers and wires ---


@dataclass(frozen=True, kw_only=True)
class Maker:
    """What a peer can do.

    Attributes:
        rtu_units: units that one process serves on a serial line.
        absent: what asking for a unit that is not there gives, by kind of wire.
    """

    script: str
    absent: dict[BusKind, str]
    rtu_units: tuple[int, ...] = (1, 2)
    has_bits: bool = True
    makes_line: bool = False
    own_rtu_tcp: bool = False


MAKERS = {
    "libmodbus": Maker(
        script="libmodbus_server.py",
        rtu_units=(1,),
        absent=dict.fromkeys(BusKind, "timeout"),
    ),
    "pymodbus": Maker(
        script="pymodbus_server.py",
        own_rtu_tcp=True,
        absent=dict.fromkeys(BusKind, "exception_4"),
    ),
    "plant": Maker(
        script="plant_server.py",
        has_bits=False,
        makes_line=True,
        absent={BusKind.TCP: "exception_11", BusKind.RTU: "timeout", BusKind.RTU_TCP: "timeout"},
    ),
}


@dataclass(kw_only=True)
class Bench:
    """A peer behind a wire. `wire_up` and `start` may come after the bus was started."""

    maker: Maker
    kind: BusKind
    folder: Path
    port: int
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def units(self) -> tuple[int, ...]:
        return (1, 2) if self.kind is BusKind.TCP or self.maker.own_rtu_tcp else self.maker.rtu_units

    @property
    def place(self) -> dict[str, Any]:
        """Where the bus finds it."""
        if self.kind is BusKind.RTU:
            return {"serial": str(self.folder / "ours"), "baud": BAUD, "parity": PARITY}
        return {"host": "127.0.0.1", "port": self.port}

    def wire_up(self) -> None:
        """Lines between us and the peer, as far as it does not bring them."""
        if self.kind is BusKind.TCP or (self.maker.own_rtu_tcp and self.kind is BusKind.RTU_TCP):
            return
        if not self.maker.makes_line:
            ends = [f"pty,raw,echo=0,link={self.folder / end}" for end in ("ours", "theirs")]
            self.run("line", "socat", *ends)
            self.wait(lambda: all((self.folder / end).exists() for end in ("ours", "theirs")), "a pty pair of socat")

    def join(self) -> None:
        """RTU-over-TCP: a serial-to-Ethernet converter in front of the line, one client at a time."""
        if self.kind is BusKind.RTU_TCP and not self.maker.own_rtu_tcp:
            listen = f"tcp-listen:{self.port},bind=127.0.0.1,reuseaddr,fork,max-children=1"
            self.run("converter", "socat", "-t", "0.01", listen, f"{self.folder / 'ours'},raw,echo=0")

    def start(self) -> None:
        (self.folder / "image.json").write_text(json.dumps(image(self.units)))
        own = self.kind is BusKind.TCP or (self.maker.own_rtu_tcp and self.kind is BusKind.RTU_TCP)
        end = "ours" if self.maker.makes_line else "theirs"
        kind = self.kind if own else BusKind.RTU
        place = str(self.port) if own else str(self.folder / end)
        script = str(PEERS / self.maker.script)
        peer = self.run("peer", sys.executable, script, str(kind), place, str(self.folder / "image.json"))
        assert peer.stdout is not None
        said = peer.stdout.readline()
        assert said == b"ready\n", (said, (self.folder / "peer.log").read_text())

    def up(self) -> None:
        self.wire_up()
        self.start()
        self.join()

    def kill(self) -> None:
        """As a power cut would: nothing is said to anybody."""
        self.end("peer")

    def run(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            pipe = subprocess.PIPE
            self.processes[name] = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log)
        return self.processes[name]

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        end_s = time.monotonic() + START_S
        while not condition():
            assert time.monotonic() < end_s, f"not within {START_S} s: {what}"
            time.sleep(0.01)

    def end(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.communicate()

    def close(self) -> None:
        for name in list(self.processes):
            self.end(name)


CASES = [(peer, kind) for peer in MAKERS for kind in BusKind]
FOREIGN = [(peer, kind) for peer, kind in CASES if peer != "plant"]


def name_of(case: tuple[str, BusKind]) -> str:
    return "-".join(case)


@pytest.fixture(params=CASES, ids=name_of)
def bench(request: pytest.FixtureRequest, tmp_path: Path, need: Need, free_port: Callable[[], int]) -> Iterator[Bench]:
    with a_bench(request.param, tmp_path, need, free_port) as made:
        yield made


@contextlib.contextmanager
def a_bench(case: tuple[str, BusKind], tmp_path: Path, need: Need, free_port: Callable[[], int]) -> Iterator[Bench]:
    peer, kind = case
    if peer == "libmodbus":
        need_libmodbus()
    if kind is not BusKind.TCP:
        need("socat", "apt install socat")
    made = Bench(maker=MAKERS[peer], kind=kind, folder=tmp_path, port=free_port())
    try:
        yield made
    finally:
        made.close()


def need_libmodbus() -> None:
    if ctypes.util.find_library("modbus") is None:
        message = "libmodbus is not installed: apt install libmodbus5"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)


# --- the bus ---


def registers(bench: Bench, unit: int) -> tuple[Register, ...]:
    tables = [Table.HOLDING, Table.INPUT]
    found = [replace(register, name=f"{t}_{register.name}", table=t) for t in tables for register, _ in FIELDS[unit][0]]
    for t in (Table.COIL, Table.DISCRETE):
        found += [
            Register(name=f"{t}_{i}", table=t, address=START + i, type=ValueType.BIT)
            for i in (*range(11), *range(20, 64))
        ]
    found += [Register(name=f"{t}_refused", table=t, address=REFUSE, type=ValueType.U16) for t in tables]
    found += [Register(name=f"{t}_hole", table=t, address=END + 3, type=ValueType.U16) for t in Table if not t.is_bits]
    found += [Register(name="coil_hole", table=Table.COIL, address=START + 128, type=ValueType.BIT)]
    return tuple(found)


def wanted(bench: Bench, unit: int) -> dict[str, tuple[float | None, str]]:
    """(value, why) of every point."""
    values: dict[str, tuple[float | None, str]] = {}
    for register, value in FIELDS[unit][0]:
        values |= dict.fromkeys((f"holding_{register.name}", f"input_{register.name}"), (value, ""))
    for i in (*range(11), *range(20, 64)):
        bit = float(BITS[i] if unit == 1 else 1 - BITS[i])
        held = (bit, "") if bench.maker.has_bits else (None, "exception_1")
        values |= {f"coil_{i}": held, f"discrete_{i}": held}
    # The plant has no rule for the refused address.
    refused = (float(REFUSED_WORD), "") if bench.maker.makes_line else (None, "exception_3")
    values |= {"holding_refused": refused, "input_refused": refused}
    values |= {"holding_hole": (None, "exception_2"), "input_hole": (None, "exception_2")}
    values["coil_hole"] = (None, "exception_2" if bench.maker.has_bits else "exception_1")
    return {f"area.u{unit}.{name}": value for name, value in values.items()}


def unit_spec(bench: Bench, unit: int) -> UnitSpec:
    held = registers(bench, unit)
    return UnitSpec(device=f"area.u{unit}", unit_id=unit, registers=held, poll_s=0.2, max_count=24)


def simple_unit(unit: int) -> UnitSpec:
    """One value that is known to be there."""
    held = Register(name="a", table=Table.HOLDING, address=START, type=ValueType.U16)
    return UnitSpec(device=f"area.u{unit}", unit_id=unit, registers=(held,), poll_s=0.1)


def bus_spec(bench: Bench, *units: UnitSpec, **changes: Any) -> BusSpec:
    fields = {"id": "b", "kind": bench.kind, "units": units, "timeout_ms": 400, "late_max_ms": 450, **bench.place}
    return BusSpec(**{**fields, **changes})


class Watch:
    def __init__(self, spec: BusSpec) -> None:
        self.health = BusHealth.of(spec)
        self.polls: list[list[Reading]] = []
        self.bus = Bus(spec, self.polls.append, self.health)

    def of(self, unit: int) -> list[list[Reading]]:
        return [p for p in self.polls if p[0].point.startswith(f"area.u{unit}.")]

    def good(self, unit: int) -> int:
        return self.health.units[f"area.u{unit}"].good

    def whys(self, unit: int) -> set[str]:
        return {r.why for p in self.of(unit) for r in p}


@contextlib.asynccontextmanager
async def watching(spec: BusSpec) -> AsyncIterator[Watch]:
    watch = Watch(spec)
    task = asyncio.create_task(watch.bus.run(), name="bus")
    try:
        yield watch
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    for counted in watch.health.units.values():
        assert counted.polls - (counted.good + counted.bad + counted.skipped) in (0, 1)  # 1: cancelled in the middle
    assert all((r.value is None) == (r.quality is Quality.BAD) for p in watch.polls for r in p)


# --- the contract ---


def test_every_type_is_in_the_contract() -> None:
    assert {*SAMPLES, ValueType.BIT, ValueType.PARTS} == set(ValueType)


async def test_every_type_order_table_and_refusal(bench: Bench, eventually: Eventually) -> None:
    bench.up()
    units = [unit_spec(bench, u) for u in bench.units]
    assert all(len(plan(u.registers, max_gap=0, max_count=24)) > 14 for u in units)  # several blocks of each table
    expected = {u: wanted(bench, u) for u in bench.units}
    async with watching(bus_spec(bench, *units)) as watch:
        await eventually(
            lambda: (
                all(as_seen(poll) == expected[u] for u in bench.units for poll in watch.of(u)[-1:])
                and all(len(watch.of(u)) > 2 for u in bench.units)
            ),
            lambda: f"three polls of each unit, the last as expected: {differences(watch, expected)}",
        )
    for unit, points in expected.items():
        for reading in (r for poll in watch.of(unit) for r in poll):  # a slow machine may miss a reply
            assert (reading.value, reading.why) in (points[reading.point], (None, "timeout"))
        assert watch.health.units[f"area.u{unit}"].bad_frames == 0


def as_seen(poll: list[Reading]) -> dict[str, tuple[float | None, str]]:
    return {r.point: (r.value, r.why) for r in poll}


def differences(watch: Watch, expected: dict[int, dict[str, tuple[float | None, str]]]) -> Sequence[object]:
    last = {u: as_seen(watch.of(u)[-1]) if watch.of(u) else {} for u in expected}
    points = ((u, name, want) for u in expected for name, want in expected[u].items())
    return [(name, last[u].get(name), want) for u, name, want in points if last[u].get(name) != want][:5]


async def test_longest_reads(bench: Bench, eventually: Eventually) -> None:
    """The most that one request may ask for fits this device; one more address is a second request."""
    bench.up()
    held = [Register(name=f"r{a}", table=Table.INPUT, address=a, type=ValueType.U16) for a in range(START, REFUSE)]
    spec = UnitSpec(device="area.u1", unit_id=1, registers=tuple(held), poll_s=0.2, max_count=len(held))
    async with watching(bus_spec(bench, spec)) as watch:
        await eventually(lambda: watch.good(1) > 1, lambda: f"whole polls: {watch.health.last_error}")
    good = next(p for p in watch.polls if p[0].quality is Quality.GOOD)
    assert [r.value for r in good] == FIELDS[1][1][:-1]


async def test_unit_that_is_absent_costs_no_value_of_another(bench: Bench, eventually: Eventually) -> None:
    bench.up()
    async with watching(bus_spec(bench, simple_unit(1), simple_unit(9))) as watch:
        absent = watch.health.units["area.u9"]
        await eventually(lambda: absent.bad > 1 and watch.good(1) > 3, lambda: f"polls: {watch.health}")
        assert watch.whys(9) == {bench.maker.absent[bench.kind]}
        assert absent.good == 0
        assert {r.value for p in watch.of(1) for r in p} <= {65_432.0, None}


async def test_absent_at_start_then_killed_and_restarted(bench: Bench, eventually: Eventually) -> None:
    async with watching(bus_spec(bench, simple_unit(1))) as watch:
        counted = watch.health.units["area.u1"]
        await eventually(lambda: counted.bad > 0, "the peer is missed at start")
        assert watch.whys(1) == {"no_connection"}
        await asyncio.to_thread(bench.up)
        for _ in range(2):
            good = counted.good
            await eventually(
                lambda n=good: counted.good > n + 1, lambda: f"good polls: {watch.health.last_error}", bound_s=60
            )
            bench.kill()
            bad = counted.bad
            await eventually(lambda n=bad: counted.bad > n, "the loss is seen")
            assert counted.state != "ok"
            await asyncio.to_thread(bench.start)
        good = counted.good
        await eventually(lambda: counted.good > good, lambda: f"good again: {watch.health.last_error}", bound_s=60)
    assert {r.value for p in watch.polls for r in p} == {65_432.0, None}
    assert watch.whys(1) <= {"", "no_connection", "timeout", "bad_frame"}


# --- outputs ---

COIL, REGISTER, STUCK_COIL, STUCK_REGISTER = START + 1, START + 2, STUCK["coil"], STUCK["holding"]
COIL_STATES = (("off", 0), ("on", 1))
REGISTER_STATES = (("quiet", 0), ("loud", 258))


def output(name: str, address: int, *, multiple: bool) -> Output:
    is_coil = name.startswith("coil")
    states = COIL_STATES if is_coil else REGISTER_STATES
    table = Table.COIL if is_coil else Table.HOLDING
    return Output(name=name, table=table, address=address, states=states, multiple=multiple)


OUTPUTS = tuple(
    output(f"{name}_{'multiple' if multiple else 'single'}", address, multiple=multiple)
    for multiple in (False, True)
    for name, address in (
        ("coil", COIL),
        ("register", REGISTER),
        ("coil_stuck", STUCK_COIL),
        ("register_stuck", STUCK_REGISTER),
    )
)
OUTPUT_UNIT = UnitSpec(
    device="area.u1",
    unit_id=1,
    registers=(
        Register(name="coil", table=Table.COIL, address=COIL, type=ValueType.BIT),
        Register(name="before", table=Table.HOLDING, address=REGISTER - 1, type=ValueType.U16),
        Register(name="register", table=Table.HOLDING, address=REGISTER, type=ValueType.U16),
        Register(name="after", table=Table.HOLDING, address=REGISTER + 1, type=ValueType.U16),
    ),
    poll_s=0.1,
    outputs=OUTPUTS,
)


@pytest.fixture(params=FOREIGN, ids=name_of)
def foreign(
    request: pytest.FixtureRequest, tmp_path: Path, need: Need, free_port: Callable[[], int]
) -> Iterator[Bench]:
    with a_bench(request.param, tmp_path, need, free_port) as made:
        yield made


async def polled(watch: Watch, eventually: Eventually, **values: float) -> None:
    """A poll that began after now sees these values."""
    seen = len(watch.polls) + 1

    def last_poll_fits() -> bool:
        last = {r.point.rpartition(".")[2]: r.value for poll in watch.polls[-1:] for r in poll}
        return len(watch.polls) > seen and all(last[name] == value for name, value in values.items())

    await eventually(last_poll_fits, lambda: f"polled {values}: {watch.polls[-1:]}")


async def test_outputs_are_written_and_read_back(foreign: Bench, eventually: Eventually) -> None:
    foreign.up()
    first = FIELDS[1][1]
    async with watching(bus_spec(foreign, OUTPUT_UNIT, timeout_ms=4_000, late_max_ms=4_500)) as watch:
        for way in ("single", "multiple"):
            for coil, register in (("on", "loud"), ("off", "quiet"), ("on", "loud")):
                on, loud = dict(COIL_STATES)[coil], dict(REGISTER_STATES)[register]
                assert (await watch.bus.write("area.u1", f"coil_{way}", coil)).words == (on,)
                assert (await watch.bus.write("area.u1", f"register_{way}", register)).words == (loud,)
                await polled(watch, eventually, coil=on, register=loud, before=first[1], after=first[3])
            assert (await watch.bus.write("area.u1", f"coil_{way}", "off")).words == (0,)
            assert (await watch.bus.write("area.u1", f"register_{way}", "quiet")).words == (0,)


async def test_only_listed_outputs_and_states_are_written(foreign: Bench, eventually: Eventually) -> None:
    foreign.up()
    async with watching(bus_spec(foreign, OUTPUT_UNIT, timeout_ms=4_000, late_max_ms=4_500)) as watch:
        await watch.bus.write("area.u1", "register_single", "loud")
        for name, state in (("register_single", "1"), ("register_multiple", ""), ("nothing", "loud"), ("coil", "on")):
            with pytest.raises(RefusedError):
                await watch.bus.write("area.u1", name, state)
        with pytest.raises(RefusedError):
            await watch.bus.write("area.u2", "register_single", "quiet")
        await polled(watch, eventually, register=258.0)


async def test_write_that_is_answered_and_not_taken_is_an_error(foreign: Bench, eventually: Eventually) -> None:
    foreign.up()
    held = {"coil": BITS[STUCK_COIL - START], "register": FIELDS[1][1][STUCK_REGISTER - START]}
    async with watching(bus_spec(foreign, OUTPUT_UNIT, timeout_ms=4_000, late_max_ms=4_500)) as watch:
        for way in ("single", "multiple"):
            other = "off" if held["coil"] else "on"
            for name, state in ((f"coil_stuck_{way}", other), (f"register_stuck_{way}", "loud")):
                with pytest.raises(ReplyError) as caught:
                    await watch.bus.write("area.u1", name, state)
                # pymodbus answers function codes 5 and 6 with the value that it holds, not with the one that was sent.
                echoes_held = foreign.maker is MAKERS["pymodbus"] and way == "single"
                assert caught.value.why in ({"not_taken", "bad_frame"} if echoes_held else {"not_taken"})
        await polled(watch, eventually)


async def test_write_to_a_dead_peer_is_an_error(foreign: Bench, eventually: Eventually) -> None:
    foreign.up()
    async with watching(bus_spec(foreign, OUTPUT_UNIT, timeout_ms=4_000, late_max_ms=4_500)) as watch:
        await eventually(lambda: watch.good(1) > 0, "a good poll")
        foreign.kill()
        with pytest.raises(ReplyError) as caught:
            await watch.bus.write("area.u1", "coil_single", "on")
        assert caught.value.why in {"timeout", "no_connection", "bad_frame"}
