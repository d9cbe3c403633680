"""A bus that people use while it polls: outputs, guests' reads, other units while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest
from sitewarden.errors import ConfigError, RefusedError
from sitewarden.sensors.breaker import BreakerState
from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, ReplyError, UnitSpec
from sitewarden.sensors.frames import crc16
from sitewarden.sensors.modbus import Bus, guest_link
from sitewarden.sensors.registers import Block, Heartbeat, Output, Register, Table, ValueType
from sitewarden.words import Quality, Reading, mono_s

BOUND_S = 20.0
SIREN = Output(name="siren", table=Table.COIL, address=3, states=(("off", 0), ("on", 1)))
LAMP = Output(
    name="lamp", table=Table.HOLDING, address=70, states=(("off", 0), ("red", 2), ("green", 4)), multiple=True
)


@dataclass(slots=True)
class Asked:
    """One request as the peer saw it."""

    unit: int
    function: int
    address: int
    at_s: float
    connection: int


@dataclass
class Plant:
    """A Modbus TCP (or RTU over TCP) peer: register = 1000 * unit + address, coils and writes are kept.

    Attributes:
        silent: units that do not answer. silent_next: so many requests are not answered.
        late: reads of these addresses are answered so many seconds later. only: reads that are not refused.
        stubborn: writes are confirmed and not done.
    """

    rtu: bool = False
    port: int = 0
    asked: list[Asked] = field(default_factory=list)
    written: dict[tuple[int, int], int] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)
    silent_next: int = 0
    late: dict[int, float] = field(default_factory=dict)
    only: set[tuple[int, int]] = field(default_factory=set)
    stubborn: bool = False
    refused: set[int] = field(default_factory=set)
    delay_s: float = 0.0
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        number = self.connections
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head, body = await self._take(reader)
                unit, function, address, value = struct.unpack(">BBHH", body[:6])
                self.asked.append(Asked(unit, function, address, mono_s(), number))
                if unit in self.silent or self.silent_next:
                    self.silent_next = max(0, self.silent_next - 1)
                    continue
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if address in self.late and function == 3:
                    reply = bytes((unit,)) + self._answer(unit, function, address, value, body)
                    frame = self._seal(head, reply)
                    asyncio.get_running_loop().call_later(self.late[address], writer.write, frame)
                    continue
                reply = bytes((unit,)) + self._answer(unit, function, address, value, body)
                writer.write(self._seal(head, reply))
        writer.close()

    async def _take(self, reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
        if not self.rtu:
            head = await reader.readexactly(6)
            return head, await reader.readexactly(int.from_bytes(head[4:6], "big"))
        body = await reader.readexactly(6)
        if body[1] in (15, 16):
            size = await reader.readexactly(1)
            body += size + await reader.readexactly(size[0])
        await reader.readexactly(2)
        return b"", body

    def _seal(self, head: bytes, reply: bytes) -> bytes:
        if self.rtu:
            return reply + crc16(reply).to_bytes(2, "little")
        return head[:4] + len(reply).to_bytes(2, "big") + reply

    def _answer(self, unit: int, function: int, address: int, value: int, body: bytes) -> bytes:
        if address in self.refused or (self.only and (address, value) not in self.only):
            return bytes((function | 0x80, 2))
        if function in (5, 6, 15, 16):
            raw = {5: int(value == 0xFF00), 6: value, 15: body[-1] & 1, 16: int.from_bytes(body[-2:], "big")}[function]
            if not self.stubborn:
                self.written[unit, address] = raw
            return body[1:6]
        values = [self.written.get((unit, a), (1000 * unit + a) % 65536) for a in range(address, address + value)]
        if function in (1, 2):
            bits = sum(
                (v & 1) << i for i, v in enumerate(self.written.get((unit, address + i), 0) for i in range(value))
            )
            size = (value + 7) // 8
            return bytes((function, size)) + bits.to_bytes(size, "little")
        return bytes((function, 2 * value)) + struct.pack(f">{value}H", *values)


@asynccontextmanager
async def plant(*, rtu: bool = False) -> AsyncIterator[Plant]:
    peer = Plant(rtu=rtu)
    server = await asyncio.start_server(peer.serve, "127.0.0.1", 0)
    peer.port = server.sockets[0].getsockname()[1]
    async with server:
        yield peer


def unit(number: int, *, poll_s: float = 0.1, count: int = 2, outputs: tuple[Output, ...] = ()) -> UnitSpec:
    registers = tuple(
        Register(name=f"r{a}", table=Table.HOLDING, address=a, type=ValueType.U16) for a in range(10, 10 + count)
    )
    return UnitSpec(
        device=f"area.u{number}", unit_id=number, registers=registers, poll_s=poll_s, max_gap=0, outputs=outputs
    )


def spec_of(peer: Plant, *units: UnitSpec) -> BusSpec:
    kind = BusKind.RTU_TCP if peer.rtu else BusKind.TCP
    return BusSpec(id="b", kind=kind, host="127.0.0.1", port=peer.port, units=units, timeout_ms=800, late_max_ms=850)


@dataclass
class Running:
    bus: Bus
    health: BusHealth
    readings: list[Reading] = field(default_factory=list)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running(spec: BusSpec) -> AsyncIterator[Running]:
    health = BusHealth.of(spec)
    readings: list[Reading] = []
    bus = Bus(spec, readings.extend, health)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(bus.run(), name="bus")
        try:
            yield Running(bus, health, readings)
        finally:
            task.cancel()


WIRES = pytest.mark.parametrize("rtu", [False, True], ids=["tcp", "rtu_tcp"])


# --- outputs ---


@WIRES
@pytest.mark.parametrize(("output", "state", "raw"), [(SIREN, "on", 1), (SIREN, "off", 0), (LAMP, "green", 4)])
async def test_an_output_is_written_and_read_back(rtu: bool, output: Output, state: str, raw: int) -> None:
    async with plant(rtu=rtu) as peer, running(spec_of(peer, unit(1, outputs=(SIREN, LAMP)))) as run:
        peer.written[1, output.address] = 1 - raw
        answer = await run.bus.write("area.u1", output.name, state)
        assert answer.words == (raw,)
        assert peer.written[1, output.address] == raw
        health = run.health.units["area.u1"]
        seen = health.good
        await run.until(lambda: health.good > seen)
        assert health.polls == health.good + health.bad + health.skipped


@pytest.mark.parametrize(
    ("device", "output", "state", "reason"),
    [
        ("area.u1", "siren", "loud", "no_such_state"),
        ("area.u1", "valve", "on", "no_such_output"),
        ("area.u2", "siren", "on", "no_such_output"),
        ("area.u9", "siren", "on", "no_such_output"),
    ],
)
async def test_nothing_that_is_not_listed_is_written(device: str, output: str, state: str, reason: str) -> None:
    async with plant() as peer, running(spec_of(peer, unit(1, outputs=(SIREN,)), unit(2))) as run:
        await run.until(lambda: run.health.good >= 2)
        with pytest.raises(RefusedError) as refused:
            await run.bus.write(device, output, state)
        assert refused.value.reason == reason
        assert {a.function for a in peer.asked} == {3}


async def test_a_device_that_confirms_and_does_not_act_is_found_out() -> None:
    async with plant() as peer, running(spec_of(peer, unit(1, outputs=(SIREN,)))) as run:
        peer.stubborn = True
        with pytest.raises(ReplyError, match="reads back") as fault:
            await run.bus.write("area.u1", "siren", "on")
        assert fault.value.why == "not_taken"
        assert [a.function for a in peer.asked if a.function in (1, 5)] == [5, 1, 5, 1]  # tried twice


@WIRES
async def test_a_silent_and_a_refusing_output_say_so(rtu: bool) -> None:
    async with plant(rtu=rtu) as peer, running(spec_of(peer, unit(1, outputs=(SIREN, LAMP)))) as run:
        peer.refused = {SIREN.address}
        with pytest.raises(ReplyError) as fault:
            await run.bus.write("area.u1", "siren", "on")
        assert fault.value.why == "exception_2"
        peer.silent = {1}
        with pytest.raises(ReplyError) as fault:
            await run.bus.write("area.u1", "lamp", "red")
        assert fault.value.why == "timeout"
        peer.silent.clear()
        assert (await run.bus.write("area.u1", "lamp", "red")).words == (2,)


async def test_a_write_goes_before_the_next_request_of_a_poll() -> None:
    many = replace(unit(1, poll_s=60.0, outputs=(SIREN,)), max_count=1, registers=unit(1, count=30).registers)
    async with plant() as peer, running(spec_of(peer, many)) as run:
        peer.delay_s = 0.05
        await run.until(lambda: len(peer.asked) >= 3)
        await run.bus.write("area.u1", "siren", "on")
        functions = [a.function for a in peer.asked]
        assert functions.index(5) <= 6  # of a poll of 30 requests
        await run.until(lambda: run.health.good == 1)
        assert {r.value for r in run.readings} == {float(1000 + a) for a in range(10, 40)}


async def test_a_write_that_was_not_confirmed_is_made_again() -> None:
    async with plant() as peer, running(spec_of(peer, unit(1, poll_s=60.0, outputs=(SIREN,)))) as run:
        await run.until(lambda: run.health.good == 1)
        peer.silent_next = 1
        assert (await run.bus.write("area.u1", "siren", "on")).words == (1,)
        assert [a.function for a in peer.asked if a.function != 3] == [5, 5, 1]


@pytest.mark.parametrize("delay_s", [0.4, 0.5])
async def test_late_reply_to_a_write_is_no_value(delay_s: float) -> None:
    """A lamp of the device is switched between two blocks of its poll, and the read-back comes too late."""
    many = replace(unit(1, poll_s=1.0, outputs=(replace(LAMP, multiple=False),)), max_count=1)
    many = replace(many, registers=unit(1, count=12).registers)
    async with plant(rtu=True) as peer:
        spec = replace(spec_of(peer, many), timeout_ms=400, late_max_ms=900)
        async with running(spec) as run:
            for _ in range(3):
                health = run.health.units["area.u1"]
                seen = health.good
                await run.until(lambda seen=seen, health=health: health.good > seen)
                peer.delay_s = 0.05
                asked = len(peer.asked)
                await run.until(lambda asked=asked: len(peer.asked) > asked + 2)  # in the middle of a poll
                peer.late[LAMP.address] = delay_s
                with pytest.raises(ReplyError):
                    await run.bus.write("area.u1", "lamp", "red")
                peer.late.clear()
            seen = run.health.good
            await run.until(lambda: run.health.good > seen)
            wrong = [r for r in run.readings if r.value is not None and r.value != 1000 + int(r.point[-2:])]
            assert wrong == []


async def test_a_write_whose_output_was_taken_out_meanwhile_is_not_sent() -> None:
    async with plant() as peer, running(spec_of(peer, unit(1, outputs=(SIREN,)))) as run:
        await run.until(lambda: run.health.good >= 1)
        run.bus.change(spec_of(peer, unit(1)))
        with pytest.raises(RefusedError) as refused:
            await run.bus.write("area.u1", "siren", "on")
        assert refused.value.reason == "no_such_output"
        assert {a.function for a in peer.asked} == {3}


async def test_a_unit_that_refuses_every_other_read_comes_back_after_a_silence() -> None:
    """One register, an exception for anything else; it was off when the first resynchronizing reads were made."""
    async with plant(rtu=True) as peer:
        peer.silent, peer.only = {1}, {(10, 1)}
        async with running(replace(spec_of(peer, unit(1, count=1)), timeout_ms=200, late_max_ms=250)) as run:
            health = run.health.units["area.u1"]
            await run.until(lambda: health.timeouts >= 2)
            peer.silent.clear()
            await run.until(lambda: health.good >= 2)


async def test_a_slow_poll_and_a_patient_guest_do_not_stop_the_heartbeat() -> None:
    slow = replace(unit(1, poll_s=60.0, count=30), max_count=1)
    async with plant() as peer, running(spec_of(peer, slow)) as run:
        peer.delay_s = 0.1
        beats = set[float]()
        await run.until(lambda: beats.add(run.health.beat_s) or run.health.good == 1)
        assert len(beats) > 10


async def test_a_device_that_stands_still_is_not_forgotten_by_a_change() -> None:
    beat = Heartbeat(address=40, frozen_s=0.3)
    registers = tuple(replace(register, heartbeat=beat) for register in unit(1, count=1).registers)
    frozen = replace(unit(1, poll_s=0.05), registers=registers, max_gap=100)
    async with plant() as peer, running(spec_of(peer, frozen)) as run:
        await run.until(lambda: bool(run.readings) and run.readings[-1].why == "frozen")
        seen = len(run.readings)
        run.bus.change(spec_of(peer, replace(frozen, poll_s=0.06)))
        await run.until(lambda: len(run.readings) > seen + 4)
        assert {r.why for r in run.readings[seen:]} == {"frozen"}


async def test_the_counters_add_up_while_a_poll_is_under_way() -> None:
    async with plant() as peer, running(spec_of(peer, unit(1, poll_s=0.05))) as run:
        peer.delay_s = 0.3
        seen = set[tuple[bool, int]]()

        def asked_and_added_up() -> bool:
            health = run.health.units["area.u1"]
            seen.add((len(peer.asked) > health.good, health.polls - health.good - health.bad - health.skipped))
            return health.good >= 2

        await run.until(asked_and_added_up)
        assert seen == {(True, 0), (False, 0)} or seen == {(True, 0)}


async def test_commands_do_not_wait_for_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sitewarden.sensors.owner.IDLE_S", 3600.0)
    async with plant() as peer, running(spec_of(peer, unit(1, poll_s=3600.0, outputs=(SIREN,)))) as run:
        await run.until(lambda: run.health.good == 1)
        async with asyncio.timeout(BOUND_S):
            await run.bus.write("area.u1", "siren", "on")
            await run.bus.read(1, Block(table=Table.HOLDING, address=0, count=1))
        run.bus.change(spec_of(peer, unit(2)))
        await run.until(lambda: "area.u2" in run.health.units)


async def test_whoever_has_gone_is_not_served() -> None:
    async with plant() as peer, running(spec_of(peer, unit(1, outputs=(SIREN,)))) as run:
        peer.delay_s = 0.1
        await run.until(lambda: len(peer.asked) >= 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await run.bus.write("area.u1", "siren", "on")
        seen = run.health.good
        await run.until(lambda: run.health.good > seen + 1)
        assert {a.function for a in peer.asked} == {3}


async def test_a_board_of_outputs_alone_is_known_to_live() -> None:
    board = replace(unit(1, outputs=(SIREN,)), registers=())
    async with plant() as peer, running(spec_of(peer, board)) as run:
        await run.until(lambda: run.health.good >= 2)
        assert run.health.units["area.u1"].state == "ok"
        peer.silent = {1}
        await run.until(lambda: run.health.units["area.u1"].why == "timeout")
        assert run.readings == []


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (replace(SIREN, table=Table.INPUT), "only coils and holding registers"),
        (replace(SIREN, states=()), "states must not be empty"),
        (replace(SIREN, states=(("on", 2),)), r"must be 0\.\.1 \(got 2\)"),
        (replace(LAMP, states=(("on", 70000),)), r"must be 0\.\.65535 \(got 70000\)"),
        (replace(LAMP, address=70000), r"address must be 0\.\.65535"),
    ],
)
def test_impossible_outputs_are_refused(output: Output, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BusSpec(id="b", kind=BusKind.TCP, host="h", units=(unit(1, outputs=(output,)),))


async def test_whoever_waits_is_told_when_the_bus_stops() -> None:
    async with plant() as peer:
        peer.silent = {1}
        async with running(spec_of(peer, unit(1, outputs=(SIREN,)))) as run, asyncio.TaskGroup() as group:
            calls = [group.create_task(_outcome(run.bus.write("area.u1", "siren", "on")), name="w") for _ in "abc"]
            await run.until(lambda: any(a.function == 5 for a in peer.asked))
            for task in asyncio.all_tasks():
                if task.get_name() == "bus":
                    task.cancel()
        assert [await call for call in calls][1:] == ["no_connection", "no_connection"]


async def _outcome(call) -> str:
    try:
        await call
    except ReplyError as fault:
        return fault.why
    return "done"


# --- guests ---


@WIRES
async def test_a_guest_reads_between_the_polls(rtu: bool) -> None:
    async with plant(rtu=rtu) as peer, running(spec_of(peer, unit(1))) as run:
        own = await run.bus.read(1, Block(table=Table.HOLDING, address=500, count=3))
        assert own.words == (1500, 1501, 1502)
        other = await run.bus.read(7, Block(table=Table.INPUT, address=2, count=1))
        assert other.words == (7002,)
        assert other.reply_ms > 0
        bits = await run.bus.read(7, Block(table=Table.DISCRETE, address=2, count=11))
        assert bits.words == (0,) * 11
        peer.refused = {9}
        with pytest.raises(ReplyError, match="exception 2"):
            await run.bus.read(1, Block(table=Table.HOLDING, address=9, count=1))
        await run.until(lambda: run.health.good >= 3)


@WIRES
async def test_a_guest_that_is_not_there_costs_the_others_no_poll(rtu: bool) -> None:
    async with plant(rtu=rtu) as peer, running(spec_of(peer, unit(1, poll_s=1.0))) as run:
        peer.silent = set(range(20, 40))
        await run.until(lambda: run.health.good >= 1)
        for number in range(20, 28):
            with pytest.raises(ReplyError) as fault:
                await run.bus.read(number, Block(table=Table.HOLDING, address=0, count=1), 0.05)
            assert fault.value.why == "timeout"
        health = run.health.units["area.u1"]
        seen = health.good
        await run.until(lambda: health.good >= seen + 2)
        assert (health.bad, health.skipped, health.timeouts) == (0, 0, 0)
        assert peer.connections == 1


async def test_a_guest_alone() -> None:
    async with plant() as peer:
        async with guest_link(spec_of(peer, unit(1))) as guest:
            assert (await guest.read(5, Block(table=Table.HOLDING, address=1, count=2), 1.0)).words == (5001, 5002)
            peer.silent = {6}
            with pytest.raises(ReplyError):
                await guest.read(6, Block(table=Table.HOLDING, address=1, count=2), 0.05)
        assert {a.unit for a in peer.asked} == {5, 6}  # the units of the spec are not polled
    async with guest_link(spec_of(peer, unit(1))) as guest:
        with pytest.raises(ReplyError, match="cannot open"):
            await guest.read(5, Block(table=Table.HOLDING, address=1, count=2))


# --- change ---


@WIRES
async def test_units_that_stay_go_on_while_others_change(rtu: bool) -> None:
    async with plant(rtu=rtu) as peer, running(spec_of(peer, unit(1), unit(2), unit(3))) as run:
        await run.until(lambda: run.health.good >= 6)
        kept = run.health.units["area.u1"]
        polls, lost = kept.polls, kept.skipped
        changed = spec_of(peer, unit(1), replace(unit(2, count=4), timeout_ms=150), unit(4))
        run.bus.change(changed)
        assert run.bus.spec == changed
        await run.until(lambda: "area.u4" in run.health.units and run.health.units["area.u4"].good >= 2)
        assert list(run.health.units) == ["area.u1", "area.u2", "area.u4"]
        assert run.health.units["area.u1"] is kept
        asked = len(peer.asked)
        await run.until(lambda: kept.polls > polls + 5)
        assert 3 not in {a.unit for a in peer.asked[asked:]}
        assert (kept.bad, kept.skipped) == (0, lost)
        assert {a.connection for a in peer.asked if a.unit == 1} == {a.connection for a in peer.asked}
        assert "area.u2.r13" in {r.point for r in run.readings if r.quality is Quality.GOOD}


async def test_a_dead_unit_stays_known_as_dead_through_a_change() -> None:
    async with plant() as peer, running(spec_of(peer, unit(1), unit(2), unit(3))) as run:
        peer.silent = {2, 3}
        await run.until(lambda: all(run.health.units[u].breaker is BreakerState.OPEN for u in ("area.u2", "area.u3")))
        asked = len(peer.asked)
        run.bus.change(spec_of(peer, unit(1, count=3), unit(2), unit(3, count=3)))
        polls = run.health.units["area.u1"].good
        await run.until(lambda: run.health.units["area.u1"].good > polls + 3)
        assert {a.unit for a in peer.asked[asked:]} == {1}


async def test_a_change_takes_effect_in_a_long_sleep() -> None:
    async with plant() as peer, running(spec_of(peer, unit(1, poll_s=3600.0))) as run:
        await run.until(lambda: run.health.good == 1)
        run.bus.change(spec_of(peer, unit(1, poll_s=0.05)))
        await run.until(lambda: run.health.good >= 4)
        run.bus.change(spec_of(peer))
        await run.until(lambda: not run.health.units)
        run.bus.change(spec_of(peer, unit(2)))
        await run.until(lambda: run.health.good >= 2)


async def test_another_wire_needs_another_bus() -> None:
    async with plant() as peer, running(spec_of(peer, unit(1))) as run:
        with pytest.raises(ValueError, match="another wire"):
            run.bus.change(replace(spec_of(peer, unit(1)), port=1))
