"""A day of polls under random faults, in virtual time: nothing sticks, nothing leaks, everything is counted.

`SITEWARDEN_SEED` repeats a run: same faults at the same moments.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import random
import socket
import sys
import threading
import time
import tracemalloc
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sitewarden import words
from sitewarden.sensors import owner
from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, UnitSpec
from sitewarden.sensors.modbus import run_bus
from sitewarden.sensors.registers import Register, Table, ValueType
from sitewarden.tests.peers.faulty import CLOCK_ADDRESS, Fault, PtyWire, TcpWire, Wire, word
from sitewarden.tests.peers.virtual_time import START_S, VirtualLoop, run_virtual, within
from sitewarden.words import Quality, Reading

HOUR_S = 3600.0
RECOVERY_S = 180.0  # the longest breaker pause (60 s) or reconnect pause (30 s) with jitter, a poll, a few retries
OLDEST_S = 3.0  # a value that is older than a poll with each of its reads timed out was not read by it
MOST_TIMERS = 300
MEMORY_BYTES = 128 * 1024
MORE_BLOCKS = 1000
MORE_OBJECTS = 200
ADDRESSES = (0, 1, 2, 100, CLOCK_ADDRESS)  # three reads
WIRE_FAULTS = ("down", "silent", "hang", "restart", "cuts", "noise")


@dataclass(kw_only=True)
class Seen:
    """What came of one unit."""

    good: int = 0
    bad: int = 0
    skipped: int = 0
    good_s: float = 0.0
    widest_s: float = 0.0


@dataclass(kw_only=True)
class Bus:
    """One bus and its peer; `blamed` units may fail now."""

    spec: BusSpec
    wire: Wire
    health: BusHealth
    seen: dict[str, Seen]
    blamed: frozenset[str] = frozenset()
    history: deque[str] = field(default_factory=lambda: deque(maxlen=6))
    faults: Counter[str] = field(default_factory=Counter)

    def take(self, readings: list[Reading]) -> None:
        """The sink: every reading is true, every failure has its reason, every counter adds up."""
        device = readings[0].point.rpartition(".")[0]
        seen, counted = self.seen[device], self.health.units[device]
        at_s = readings[0].at.mono_s
        assert len(readings) == len(ADDRESSES)
        self.check_values(device, readings, at_s)
        if all(r.quality is Quality.GOOD for r in readings):
            seen.good += 1
            if seen.good_s and device not in self.blamed:
                seen.widest_s = max(seen.widest_s, at_s - seen.good_s)
            seen.good_s = at_s
        else:
            assert device in self.blamed, f"{device} lost a poll: {counted}\n{self.tell()}"
            seen.bad += 1
        assert counted.skipped == seen.skipped or device in self.blamed, f"{device} skipped: {counted}\n{self.tell()}"
        seen.skipped = counted.skipped
        self.check_counters()

    def check_values(self, device: str, readings: list[Reading], at_s: float) -> None:
        unit = self.health.units[device].unit_id
        for reading in readings:
            if reading.quality is not Quality.GOOD:
                assert reading.value is None
                assert reading.why not in {"", "driver_error"}, f"{reading}\n{self.tell()}"
                continue
            assert reading.value is not None
            address = int(reading.point.rpartition(".r")[2])
            if address == CLOCK_ADDRESS:
                age_s = (at_s - reading.value) % 65536
                assert age_s < OLDEST_S, f"{reading} is {age_s:.1f} s old\n{self.tell()}"
            else:
                held = word(self.wire.number, unit, address)
                assert reading.value == held, f"{reading}, but {held} is held\n{self.tell()}"

    def check_counters(self) -> None:
        for device, counted in self.health.units.items():
            assert counted.polls == counted.good + counted.bad + counted.skipped, counted
            assert counted.good == self.seen[device].good, counted
        whole = self.health
        assert whole.polls == whole.good + whole.bad + whole.skipped

    def tell(self) -> str:
        now_s = asyncio.get_running_loop().time() - START_S
        return f"bus {self.spec.id} at {now_s:.3f} s, blamed {sorted(self.blamed)}; " + "; ".join(self.history)

    def well(self, since_s: float) -> bool:
        """Each unit has answered after `since_s`, and is called well."""
        return all(s.good_s > since_s and self.health.units[d].state == "ok" for d, s in self.seen.items())


def units(bus: str, count: int) -> tuple[UnitSpec, ...]:
    registers = tuple(Register(name=f"r{a}", table=Table.HOLDING, address=a, type=ValueType.U16) for a in ADDRESSES)
    polls_s = (5.0, 6.0, 7.5, 10.0)
    return tuple(
        UnitSpec(device=f"{bus}.u{i}", unit_id=i, registers=registers, poll_s=polls_s[i % len(polls_s)])
        for i in range(1, count + 1)
    )


def make_bus(name: str, wire: Wire, kind: BusKind) -> Bus:
    where: dict[str, Any] = (
        {"serial": str(wire.link), "baud": 115200} if isinstance(wire, PtyWire) else {"host": "127.0.0.1"}
    )
    if isinstance(wire, TcpWire):
        where["port"] = wire.port
    spec = BusSpec(id=name, kind=kind, units=units(name, len(wire.units)), timeout_ms=500, late_max_ms=1500, **where)
    seen = {u.device: Seen() for u in spec.units}
    return Bus(spec=spec, wire=wire, health=BusHealth.of(spec), seen=seen, blamed=frozenset(seen))


# --- what goes wrong ---


async def torment(bus: Bus, dice: random.Random, end_s: float, *, hours_long: bool) -> None:
    """Fault after fault; each ends, and then every unit must be well within `RECOVERY_S`."""
    loop = asyncio.get_running_loop()
    long = deque(["down", "silent"] if hours_long else [])
    while True:
        await all_well(bus)
        await asyncio.sleep(dice.uniform(20, 300))
        length_s = min(dice.choice((0.2, 3, 20, 60, 300)) * dice.uniform(0.5, 2), end_s - loop.time() - RECOVERY_S)
        if length_s <= 0:
            return
        if long and loop.time() > START_S + 2 * HOUR_S:
            await wire_fault(bus, long.popleft(), HOUR_S, dice)
        elif dice.random() < 0.5:
            await wire_fault(bus, dice.choice(WIRE_FAULTS), length_s, dice)
        else:
            await unit_fault(bus, length_s, dice)


async def all_well(bus: Bus) -> None:
    """From here on nobody is blamed."""
    since_s = asyncio.get_running_loop().time()
    await within(RECOVERY_S, lambda: bus.well(since_s), lambda: f"every unit well: {bus.tell()}\n{bus.health}")
    bus.blamed = frozenset()


def note(bus: Bus, what: str, blamed: frozenset[str], length_s: float, kind: str) -> None:
    at_s = asyncio.get_running_loop().time() - START_S
    bus.history.append(f"{what} {at_s:.3f} s .. {at_s + length_s:.3f} s")
    bus.faults[kind] += 1
    bus.blamed = blamed


async def unit_fault(bus: Bus, length_s: float, dice: random.Random) -> None:
    """Some units fail. The others are blamed only when the connection, which all share, is cut with them."""
    ids = dice.sample(bus.wire.units, dice.choice((1, 1, 2, 3)))
    faults = {i: dice.choice(tuple(Fault)) for i in ids}
    cuts = {Fault.CUT, Fault.MIXED} & set(faults.values()) and isinstance(bus.wire, TcpWire)
    blamed = frozenset(bus.seen) if cuts else frozenset(f"{bus.spec.id}.u{i}" for i in ids)
    note(bus, str({i: f.value for i, f in faults.items()}), blamed, length_s, "units")
    bus.wire.faults.update(faults)
    await asyncio.sleep(length_s)
    bus.wire.faults.clear()


async def wire_fault(bus: Bus, kind: str, length_s: float, dice: random.Random) -> None:
    note(bus, kind, frozenset(bus.seen), length_s, kind)
    wire = bus.wire
    end_s = asyncio.get_running_loop().time() + length_s
    match kind:
        case "silent":
            wire.faults.update(dict.fromkeys(wire.units, Fault.DEAD))
            await asyncio.sleep(length_s)
            wire.faults.clear()
        case "noise" | "cuts":
            while asyncio.get_running_loop().time() < end_s:
                wire.babble() if kind == "noise" else wire.cut()
                await asyncio.sleep(dice.choice((0.02, 0.3, 5)))
        case "restart":
            await wire.down()
            await wire.up()
        case "hang" if isinstance(wire, TcpWire):
            await wire.hang()
            await asyncio.sleep(length_s)
            await wire.up()
        case _:
            await wire.down()
            await asyncio.sleep(length_s)
            await wire.up()


# --- the day ---


@dataclass(kw_only=True)
class Footprint:
    """What must not grow. `memory`, bytes, is 0 unless tracemalloc runs, which makes all of it three times slower."""

    memory: int
    blocks: int
    objects: int
    tasks: int
    files: int

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        return cls(
            memory=tracemalloc.get_traced_memory()[0],
            blocks=sys.getallocatedblocks(),
            objects=len(gc.get_objects()),
            tasks=len(asyncio.all_tasks()),
            files=sum(1 for _ in Path("/proc/self/fd").iterdir()),
        )


@dataclass(kw_only=True)
class Day:
    """The house: four wires; the first one has no faults and must not notice those of the others."""

    buses: list[Bus]
    prints: list[Footprint] = field(default_factory=list)
    most_timers: int = 0

    @property
    def polls(self) -> int:
        return sum(b.health.polls for b in self.buses)


def make_day(folder: Path, seed: int) -> Day:
    dice = [random.Random(f"{seed} wire {i}") for i in range(4)]
    calm = TcpWire(0, rtu=False, units=4, dice=dice[0])
    tcp = TcpWire(1, rtu=False, units=8, dice=dice[1])
    converter = TcpWire(2, rtu=True, units=6, dice=dice[2])
    serial = PtyWire(3, folder / "usb-485", units=6, dice=dice[3])
    return Day(
        buses=[
            make_bus("calm", calm, BusKind.TCP),
            make_bus("hall", tcp, BusKind.TCP),
            make_bus("yard", converter, BusKind.RTU_TCP),
            make_bus("pit", serial, BusKind.RTU),
        ]
    )


async def live(day: Day, loop: VirtualLoop, ends_h: Sequence[float], seed: int, budget_s: float) -> float:
    """Torment until each of `ends_h`, and look at the footprint there, with every unit well and no fault.

    Returns the hours that were lived: fewer when `budget_s` real seconds are over.
    """
    unhandled: list[object] = []
    loop.set_exception_handler(lambda _, context: unhandled.append(context))
    calm, *others = day.buses
    dice = [random.Random(f"{seed} {b.spec.id}") for b in others]
    deadline_s = time.monotonic() + budget_s
    lived_h = 0.0
    long_turn = 1 if len(ends_h) > 3 else None  # with an hour of each of the slow faults
    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        for bus in day.buses:
            await bus.wire.up()
            stack.callback(bus.wire.close)
            stack.push_async_callback(bus.wire.down)
        timers = group.create_task(count_timers(day, loop), name="timers")
        owners = [group.create_task(run_bus(b.spec, b.take, b.health), name=f"bus {b.spec.id}") for b in day.buses]
        await all_well(calm)
        for turn, end_h in enumerate(ends_h):
            end_s = START_S + end_h * HOUR_S
            async with asyncio.TaskGroup() as chaos:
                for bus, die in zip(others, dice, strict=True):
                    chaos.create_task(
                        torment(bus, die, end_s, hours_long=turn == long_turn), name=f"chaos {bus.spec.id}"
                    )
            await asyncio.sleep(max(end_s - loop.time(), 5.0))
            lived_h = end_h
            day.prints.append(Footprint.now())
            if time.monotonic() > deadline_s:
                break
        for task in (timers, *owners):
            task.cancel()
    check_calm(calm, loop.time() - START_S)
    assert unhandled == []
    return lived_h


async def count_timers(day: Day, loop: VirtualLoop) -> None:
    while True:
        await asyncio.sleep(7.3)
        day.most_timers = max(day.most_timers, loop.timers)
        for bus in day.buses:
            for counted in bus.health.units.values():
                under_way = counted.polls - counted.good - counted.bad - counted.skipped
                assert under_way in (0, 1), counted


def check_calm(calm: Bus, lived_s: float) -> None:
    """The bus without faults polled on time, all the time."""
    for unit in calm.spec.units:
        counted, seen = calm.health.units[unit.device], calm.seen[unit.device]
        assert (counted.bad, counted.skipped) == (0, 0), counted
        assert abs(counted.polls - lived_s / unit.poll_s) <= 2, counted  # the phase, the last one under way
        assert seen.widest_s <= unit.poll_s + 0.5, seen


def check_footprints(day: Day) -> None:
    first, *later = day.prints
    for print_ in later:
        assert print_.memory - first.memory < MEMORY_BYTES, day.prints
        assert print_.blocks - first.blocks < MORE_BLOCKS, day.prints
        assert print_.objects - first.objects < MORE_OBJECTS, day.prints
        assert print_.tasks == first.tasks, day.prints
        assert print_.files == first.files, day.prints
    assert day.most_timers < MOST_TIMERS, day.most_timers


def run_day(folder: Path, ends_h: Sequence[float], budget_s: float, say: Callable[[str], None]) -> None:
    seed = int(os.environ.get("SITEWARDEN_SEED") or random.randrange(2**32))
    say(f"SITEWARDEN_SEED={seed}")
    day = make_day(folder, seed)
    started_s = time.monotonic()
    lived_h = run_virtual(lambda loop: live(day, loop, ends_h, seed, budget_s), seed=seed)
    say(f"{lived_h:g} h in {time.monotonic() - started_s:.0f} s: {day.polls} polls, at most {day.most_timers} timers")
    for bus in day.buses:
        h = bus.health
        widest_s = max(s.widest_s for s in bus.seen.values())
        say(
            f"{bus.spec.id}: {h.polls} polls = {h.good} good + {h.bad} bad + {h.skipped} skipped, "
            f"{h.reconnects} reconnects, {h.resyncs} resyncs, {h.strays} strays; widest {widest_s:.1f} s; "
            f"faults {dict(bus.faults)}"
        )
    say("\n".join(map(str, day.prints)))
    check_footprints(day)


@pytest.fixture(autouse=True)
def _log_keeps_no_records(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL, "sitewarden")


def test_two_hours_of_faults(tmp_path: Path) -> None:
    run_day(tmp_path, (0.5, 1, 2), 1e9, print)


@pytest.mark.soak
def test_a_day_of_faults(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """24 hours, or as many as fit into SITEWARDEN_SOAK_S real seconds."""
    tracemalloc.start()
    try:
        with capsys.disabled():
            run_day(tmp_path, (1, 4, 8, 12, 16, 20, 24), float(os.environ.get("SITEWARDEN_SOAK_S", "60")), print)
    finally:
        tracemalloc.stop()


def test_a_seed_repeats_its_day(tmp_path: Path) -> None:
    seen = []
    for _ in range(2):
        day = make_day(tmp_path, 1)
        run_virtual(lambda loop, day=day: live(day, loop, (0.2,), 1, 1e9), seed=1)
        seen.append(
            [(u.device, u.good, u.bad, u.timeouts, u.last_good_at) for b in day.buses for u in b.health.units.values()]
        )
    assert sum(bad for _, _, bad, _, _ in seen[0]) > 0
    assert seen[0] == seen[1]


# --- the clock ---


def test_an_hour_is_over_at_once_in_the_words_too() -> None:
    held = vars(owner)  # as imported there, by name

    async def hour(_: VirtualLoop) -> tuple[float, float, int]:
        before, before_s = held["now"](), held["mono_s"]()
        await asyncio.sleep(HOUR_S)
        after = held["now"]()
        return held["mono_s"]() - before_s, after.mono_s - before.mono_s, after.utc_ms - before.utc_ms

    assert run_virtual(hour, seed=1) == (pytest.approx(3600), pytest.approx(3600), pytest.approx(3_600_000, abs=1))
    assert held["mono_s"] is words.mono_s
    assert abs(words.mono_s() - time.clock_gettime(time.CLOCK_BOOTTIME)) < HOUR_S


def test_time_waits_for_a_thread() -> None:
    async def main(_: VirtualLoop) -> str:
        async with asyncio.timeout(0.001):
            return await asyncio.to_thread(lambda: (time.sleep(0.02), "done")[1])

    assert run_virtual(main, seed=1) == "done"


def test_time_waits_for_bytes_that_the_kernel_delivers_late() -> None:
    async def main(loop: VirtualLoop) -> list[str]:
        here, there = socket.socketpair()
        order: list[str] = []
        with here, there:
            loop.add_reader(here, lambda: (order.append(here.recv(9).decode()), loop.remove_reader(here)))
            loop.call_later(0.001, order.append, "timer")
            loop.jumping.flight.sent("there", "here", 5)
            threading.Timer(0.005, there.send, (b"bytes",)).start()
            await asyncio.sleep(1)
            assert not loop.jumping.flight.expected, "bytes that never come are waited for once"
        return order

    assert run_virtual(main, seed=1) == ["bytes", "timer"]


def test_connections_account_for_every_byte() -> None:
    async def main(loop: VirtualLoop) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(100):
                writer.write(data)
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert len(loop.jumping.flight.connections) >= 1
            for count in (1, 99, 5000):
                writer.write(bytes(count))
                assert loop.jumping.flight.expected
                await reader.readexactly(count)
                assert not loop.jumping.flight.expected
            writer.close()
            await asyncio.sleep(0.1)
            assert not loop.jumping.flight.expected
            assert not loop.jumping.flight.connections

    run_virtual(main, seed=1)
