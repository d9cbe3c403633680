"""Buses against a stub that misbehaves on purpose, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
import subprocess
import sys
import tty
from collections.abc import AsyncIterator, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from sitewarden.errors import ConfigError
from sitewarden.sensors.breaker import Breaker, BreakerState
from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, UnitSpec
from sitewarden.sensors.frames import crc16
from sitewarden.sensors.modbus import Link, run_bus
from sitewarden.sensors.owner import Owner
from sitewarden.sensors.registers import Register, Table, ValueType
from sitewarden.tests.peers.ports import free_port
from sitewarden.words import Quality, Reading

# A request as the stub sees it, and what goes back on the wire (nothing: None).
Ask = tuple[int, int, int, int]  # unit, function, address, count
Reply = Callable[["Stub", bytes, Ask], "bytes | None"]


class Stub:
    """A server for TCP or RTU frames; `behave[unit]` decides, else registers hold their own address."""

    def __init__(self, *, rtu: bool) -> None:
        self.rtu = rtu
        self.behave: dict[int, Reply] = {}
        self.asked: list[Ask] = []
        self.port = 0
        self.babble = False
        self.writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.hang_up()
        await asyncio.gather(*self.writers)
        await self._server.wait_closed()

    def hang_up(self) -> None:
        for writer in self.writers.values():
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.writers[task] = writer
        while self.babble and not writer.is_closing():
            writer.write(b"\x55\x55\x55")
            await asyncio.sleep(0.01)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                packet = await reader.readexactly(8 if self.rtu else 12)
                unit, function, address, count = struct.unpack(">BBHH", packet[:6] if self.rtu else packet[6:])
                ask = (unit, function, address, count)
                self.asked.append(ask)
                answer = self.behave.get(unit, right)(self, packet, ask)
                if answer is HANG_UP:
                    break
                if answer is not None:
                    writer.write(answer)
        writer.close()

    def frame(self, packet: bytes, unit: int, pdu: bytes, *, transaction: bytes | None = None) -> bytes:
        if self.rtu:
            body = bytes((unit,)) + pdu
            return body + crc16(body).to_bytes(2, "little")
        return (packet[:2] if transaction is None else transaction) + struct.pack(">HHB", 0, len(pdu) + 1, unit) + pdu

    def asked_of(self, unit: int) -> int:
        return sum(u == unit for u, *_ in self.asked)


HANG_UP = b"hang up"


def pdu(function: int, address: int, count: int) -> bytes:
    if function in (1, 2):
        bits = sum(1 << i for i in range(count) if (address + i) % 2)
        size = (count + 7) // 8
        return bytes((function, size)) + bits.to_bytes(size, "little")
    return struct.pack(f">BB{count}H", function, 2 * count, *range(address, address + count))


def right(stub: Stub, packet: bytes, ask: Ask) -> bytes | None:
    unit, function, address, count = ask
    return stub.frame(packet, unit, pdu(function, address, count))


def silent(stub: Stub, packet: bytes, ask: Ask) -> bytes | None:
    return None


def exception(code: int) -> Reply:
    return lambda stub, packet, ask: stub.frame(packet, ask[0], bytes((ask[1] | 0x80, code)))


def words(*values: int) -> Reply:
    def reply(stub: Stub, packet: bytes, ask: Ask) -> bytes | None:
        held = [*values, *range(125)]
        return stub.frame(packet, ask[0], struct.pack(f">BB{ask[3]}H", ask[1], 2 * ask[3], *held[: ask[3]]))

    return reply


def change(edit: Callable[[bytes], bytes]) -> Reply:
    """The right frame with its bytes altered after it was made (so an RTU CRC is wrong, unless the length is)."""
    return lambda stub, packet, ask: edit(right(stub, packet, ask) or b"")


def other(unit: int = 0, function: int = 0, count: int = 0) -> Reply:
    """A sound frame that answers another question: what is given is added to what was asked."""

    def reply(stub: Stub, packet: bytes, ask: Ask) -> bytes | None:
        return stub.frame(packet, ask[0] + unit, pdu(ask[1] + function, ask[2], ask[3] + count))

    return reply


def raw_pdu(make: Callable[[Ask], bytes]) -> Reply:
    return lambda stub, packet, ask: stub.frame(packet, ask[0], make(ask))


def u16(name: str, address: int, **more: object) -> Register:
    fields: dict[str, Any] = {"name": name, "table": Table.HOLDING, "address": address, "type": ValueType.U16}
    return Register(**{**fields, **more})


def unit(unit_id: int, *registers: Register, poll_s: float = 0.1) -> UnitSpec:
    held = registers or (u16("a", 10), u16("b", 11))
    return UnitSpec(device=f"area.u{unit_id}", unit_id=unit_id, registers=held, poll_s=poll_s)


def bus(stub: Stub, *units: UnitSpec, **more: object) -> BusSpec:
    kind = BusKind.RTU_TCP if stub.rtu else BusKind.TCP
    fields: dict[str, Any] = {"id": "b", "kind": kind, "host": "127.0.0.1", "port": stub.port, "units": units}
    return BusSpec(**{**fields, "timeout_ms": 400, "late_max_ms": 500, **more})


class Watch:
    def __init__(self, health: BusHealth) -> None:
        self.health = health
        self.polls: list[list[Reading]] = []

    def take(self, readings: list[Reading]) -> None:
        self.polls.append(readings)

    def of(self, device: str) -> list[list[Reading]]:
        return [p for p in self.polls if p[0].point.startswith(f"{device}.")]

    def good(self, device: str) -> int:
        return sum(all(r.quality is Quality.GOOD for r in p) for p in self.of(device))

    def whys(self, device: str) -> set[str]:
        return {r.why for p in self.of(device) for r in p if r.why}


@contextlib.asynccontextmanager
async def stub_server(*, rtu: bool = False) -> AsyncIterator[Stub]:
    stub = Stub(rtu=rtu)
    await stub.start()
    try:
        yield stub
    finally:
        await stub.stop()


@contextlib.asynccontextmanager
async def watching(spec: BusSpec) -> AsyncIterator[Watch]:
    """Run a bus; nothing may surface as an unhandled error of the loop, and the counters must add up."""
    watch = Watch(BusHealth.of(spec))
    unhandled: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    task = asyncio.create_task(run_bus(spec, watch.take, watch.health), name="bus")
    try:
        yield watch
        assert not task.done(), task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
    assert unhandled == []
    for counted in watch.health.units.values():
        assert counted.polls - (counted.good + counted.bad + counted.skipped) in (0, 1)  # 1: cancelled in the middle
    assert all(r.value is None for p in watch.polls for r in p if r.quality is Quality.BAD)
    assert all(r.at is p[0].at for p in watch.polls for r in p)


async def until(condition: Callable[[], bool], what: str, bound_s: float = 60) -> None:
    loop = asyncio.get_running_loop()
    end_s = loop.time() + bound_s
    while not condition():
        assert loop.time() < end_s, f"not within {bound_s} s: {what}"
        await asyncio.sleep(0.01)


@pytest.fixture(params=[False, True], ids=["tcp", "rtu_tcp"])
def rtu(request: pytest.FixtureRequest) -> bool:
    return request.param


async def test_values_of_two_units(rtu: bool) -> None:
    async with stub_server(rtu=rtu) as stub:
        registers = (u16("a", 10), u16("c", 20), Register(name="bit", table=Table.COIL, address=7, type=ValueType.BIT))
        async with watching(bus(stub, unit(1, *registers), unit(9))) as watch:
            await until(lambda: watch.good("area.u1") > 2 and watch.good("area.u9") > 2, "good polls")
    values = {r.point: r.value for p in watch.polls for r in p}
    assert values == {"area.u1.a": 10, "area.u1.c": 20, "area.u1.bit": 1, "area.u9.a": 10, "area.u9.b": 11}
    assert watch.whys("area.u1") == set()
    assert watch.health.units["area.u1"].state == "ok"
    assert not watch.health.connected  # closed with the task


BAD = {
    "exception": (exception(2), "exception_2"),
    "silence": (silent, "timeout"),
    "wrong_unit": (other(unit=5), "bad_frame"),
    "wrong_function": (other(function=1), "bad_frame"),
    "short_count": (other(count=-1), "bad_frame"),
    "long_count": (other(count=1), "bad_frame"),
    "odd_byte_count": (raw_pdu(lambda a: bytes((a[1], 5)) + b"\0\1\0\2\0"), "bad_frame"),
    "byte_count_lies": (raw_pdu(lambda a: bytes((a[1], 200)) + b"\0\1\0\2"), "bad_frame"),
    "no_data": (raw_pdu(lambda a: bytes((a[1], 0))), "bad_frame"),
    "foreign_exception": (raw_pdu(lambda a: b"\x90\2"), "bad_frame"),
    "unknown_function": (raw_pdu(lambda a: b"\x63\1\2\3\4"), "bad_frame"),
    "diagnostic_function": (raw_pdu(lambda a: b"\x2b\x0e\1\1\1"), "bad_frame"),
    "half_frame": (change(lambda f: f[: len(f) // 2]), "bad_frame"),
    "garbage": (change(lambda f: b"\xff\x00\x55" * 40), "bad_frame"),
    "too_much": (change(lambda f: bytes(1000)), "bad_frame"),
    "hang_up": (lambda s, p, a: HANG_UP, "no_connection"),
}
BAD_TCP = {
    "transaction_zero": (lambda s, p, a: s.frame(p, a[0], pdu(*a[1:]), transaction=b"\0\0"), "timeout"),
    "other_transaction": (lambda s, p, a: s.frame(p, a[0], pdu(*a[1:]), transaction=b"\xfe\xfe"), "timeout"),
    "protocol_id": (change(lambda f: f[:2] + b"\0\1" + f[4:]), "bad_frame"),
    "mbap_length_zero": (change(lambda f: f[:4] + b"\0\0" + f[6:]), "bad_frame"),
    "trailing_bytes": (raw_pdu(lambda a: pdu(*a[1:]) + b"\0\0"), "bad_frame"),
}
BAD_RTU = {
    "crc": (change(lambda f: f[:-1] + bytes((f[-1] ^ 1,))), "bad_frame"),
    "flipped_bit": (change(lambda f: f[:4] + bytes((f[4] ^ 1,)) + f[5:]), "bad_frame"),
    "two_replies": (change(lambda f: f + f), "bad_frame"),
}


@pytest.mark.parametrize(
    ("is_rtu", "case"),
    [*((False, c) for c in (*BAD, *BAD_TCP)), *((True, c) for c in (*BAD, *BAD_RTU))],
)
async def test_bad_replies_have_no_value_and_pass(is_rtu: bool, case: str) -> None:
    behaviour, why = {**BAD, **BAD_TCP, **BAD_RTU}[case]
    async with stub_server(rtu=is_rtu) as stub, watching(bus(stub, unit(1), unit(2))) as watch:
        await until(lambda: watch.good("area.u1") > 0, "good before")
        stub.behave[1] = behaviour
        counted = watch.health.units["area.u1"]
        await until(lambda: counted.bad > 1, "bad polls")
        assert watch.whys("area.u1") == {why}
        assert counted.state != "ok"
        assert "unit 1" in counted.last_error
        del stub.behave[1]
        good = watch.good("area.u1")
        await until(lambda: watch.good("area.u1") > good, "good after")
        assert watch.health.units["area.u2"].good > 0
        assert watch.whys("area.u2") <= ({"no_connection"} if case == "hang_up" else set())
        assert {r.value for p in watch.polls for r in p} <= {10, 11, None}


async def test_noise_around_an_rtu_reply_does_not_hide_it() -> None:
    async with stub_server(rtu=True) as stub:
        stub.behave[1] = change(lambda f: b"\x00\xff" + f + b"\x00")
        async with watching(bus(stub, unit(1))) as watch:
            await until(lambda: watch.good("area.u1") > 2, "good polls")
            assert watch.whys("area.u1") == set()


async def test_not_a_number_and_out_of_range(rtu: bool) -> None:
    f32 = Register(name="f", table=Table.INPUT, address=0, type=ValueType.F32, low=0, high=10)
    async with stub_server(rtu=rtu) as stub:
        stub.behave[1] = words(0x7FC0, 0)
        async with watching(bus(stub, unit(1, f32))) as watch:
            await until(lambda: "not_a_number" in watch.whys("area.u1"), "NaN is seen")
            stub.behave[1] = words(0x7F80, 0)
            await until(lambda: len(watch.polls) > 4, "infinity is polled")
            stub.behave[1] = words(0x42C8, 0)
            await until(lambda: "out_of_range" in watch.whys("area.u1"), "100.0 is seen")
            stub.behave[1] = words(0x3EB3, 0x3333)
            await until(lambda: watch.good("area.u1") > 0, "0.35 is seen")
            assert {r.value for p in watch.polls for r in p} <= {None, 0.35}


async def test_exception_costs_only_its_own_block() -> None:
    def refuse_second(stub: Stub, packet: bytes, ask: Ask) -> bytes | None:
        return (exception(2) if ask[2] == 50 else right)(stub, packet, ask)

    async with stub_server() as stub:
        stub.behave[1] = refuse_second
        async with watching(bus(stub, unit(1, u16("a", 10), u16("x", 50), u16("z", 90)))) as watch:
            await until(lambda: len(watch.polls) > 5, "polls")
            assert {(r.point, r.value, r.why) for p in watch.polls for r in p} == {
                ("area.u1.a", 10, ""),
                ("area.u1.x", None, "exception_2"),
                ("area.u1.z", 90, ""),
            }
            assert watch.health.units["area.u1"].breaker is BreakerState.CLOSED  # it answers, and at once


def longest_gap_s(watch: Watch, device: str) -> float:
    moments = [p[0].at.mono_s for p in watch.of(device) if p[0].quality is Quality.GOOD]
    return max(b - a for a, b in pairwise(moments))


async def test_dead_unit_does_not_slow_its_neighbours() -> None:
    async with stub_server() as stub:
        stub.behave[2] = silent
        spec = bus(stub, unit(1), unit(2), unit(3), timeout_ms=400)
        async with watching(spec) as watch:
            dead = watch.health.units["area.u2"]
            await until(lambda: dead.breaker is BreakerState.OPEN, "the breaker opens")
            asked, good, skipped = stub.asked_of(2), watch.good("area.u1"), dead.skipped
            assert asked == 3
            await until(lambda: dead.skipped >= skipped + 12, "polls are skipped")
            assert stub.asked_of(2) == asked
            assert watch.good("area.u1") >= good + 6  # 12 periods have passed; half is lost only on a very busy machine
            # No neighbour ever waited for more than one timeout (and what a busy machine adds).
            assert longest_gap_s(watch, "area.u1") < 0.4 + 0.1 + 0.5
            assert longest_gap_s(watch, "area.u3") < 0.4 + 0.1 + 0.5
            assert watch.whys("area.u1") == watch.whys("area.u3") == set()
            assert {r.why for p in watch.of("area.u2") for r in p} == {"timeout"}  # visible while it is not asked
            del stub.behave[2]
            await until(lambda: watch.good("area.u2") > 2, "the dead unit is found again")
            assert dead.state == "ok"


async def test_dead_rtu_unit_is_asked_less_and_less() -> None:
    async with stub_server(rtu=True) as stub:
        stub.behave[2] = silent
        async with watching(bus(stub, unit(1), unit(2))) as watch:
            dead = watch.health.units["area.u2"]
            await until(lambda: dead.skipped > 10, "polls are skipped")
            assert stub.asked_of(2) <= 4
            assert watch.whys("area.u1") == set()
            assert longest_gap_s(watch, "area.u1") < 0.5 + 0.05 + 0.1 + 0.5
            del stub.behave[2]
            await until(lambda: watch.good("area.u2") > 2, "the dead unit is found again")


DEAD = range(1, 9)
LIVING = (9, 10)


def hurried_rounds(asked: list[Ask]) -> list[int]:
    """Dead units that were asked before every living one had its turn after the dead one before."""
    hurried: list[int] = []
    since = set[int]()
    for asked_unit, *_ in asked:
        if asked_unit in DEAD and not since.issuperset(LIVING):
            hurried.append(asked_unit)
        since = set() if asked_unit in DEAD else since | {asked_unit}
    return hurried


@pytest.mark.parametrize("die_later", [False, True])
async def test_many_dead_rtu_units_do_not_starve_the_living(die_later: bool) -> None:
    """Each miss costs more than a poll period, so the living are always due again before the next dead one."""
    async with stub_server(rtu=True) as stub:
        units = [unit(i, poll_s=0.1) for i in (*DEAD, *LIVING)]
        stub.behave = {} if die_later else dict.fromkeys(DEAD, silent)
        async with watching(bus(stub, *units, timeout_ms=150, late_max_ms=200)) as watch:
            dead = [watch.health.units[f"area.u{i}"] for i in DEAD]
            living = [watch.health.units[f"area.u{i}"] for i in LIVING]
            await until(lambda: all(u.good > 1 for u in (living if not die_later else [*living, *dead])), "values")
            stub.behave = dict.fromkeys(DEAD, silent)
            # Only a first miss tells the dead from the living.
            await until(lambda: not die_later or all(u.timeouts for u in dead), "each has missed once")
            stub.asked.clear()
            watch.polls.clear()
            await until(lambda: all(u.breaker is not BreakerState.CLOSED for u in dead), "the breakers open")
            opening, opening_gap_s = list(stub.asked), max(longest_gap_s(watch, u.device) for u in living)
            stub.asked.clear()
            watch.polls.clear()
            probes = [u.timeouts for u in dead]
            await until(lambda: sum(u.timeouts for u in dead) >= sum(probes) + 6, "probes")
            probing, probing_gap_s = list(stub.asked), max(longest_gap_s(watch, u.device) for u in living)
    # The first of each list has nothing before it; one more may hurry where this machine made a living unit miss.
    assert sum(u in DEAD for u, *_ in opening) >= len(DEAD)
    assert len(hurried_rounds(opening)) <= 2, opening
    assert len(hurried_rounds(probing)) <= 2, probing
    assert opening_gap_s < 2 * 0.2 + 0.1 + 0.8
    assert probing_gap_s < 0.2 + 0.1 + 0.8


async def test_dead_unit_is_found_again_on_a_bus_that_is_always_busy() -> None:
    async with stub_server(rtu=True) as stub:
        stub.behave[3] = silent
        async with watching(bus(stub, unit(1, poll_s=0.0001), unit(2, poll_s=0.0001), unit(3))) as watch:
            await until(lambda: watch.health.units["area.u3"].breaker is BreakerState.OPEN, "the breaker opens")
            assert watch.health.units["area.u1"].skipped > 0  # never idle
            del stub.behave[3]
            await until(lambda: watch.good("area.u3") > 0, "the dead unit is found again")


@pytest.mark.parametrize(
    ("late_max_ms", "base_s", "cap_s"), [(100, 2.0, 60.0), (1500, 7.5, 60.0), (20_000, 100.0, 100.0)]
)
def test_pauses_outweigh_what_a_missed_reply_costs(late_max_ms: int, base_s: float, cap_s: float) -> None:
    spec = BusSpec(id="b", kind=BusKind.RTU, serial="x", units=(unit(1),), timeout_ms=100, late_max_ms=late_max_ms)
    policy = Owner(spec, Link(spec), list[list[Reading]]().append, BusHealth.of(spec)).units[0].policy
    assert (policy.base_s, policy.cap_s) == (base_s, cap_s)


@pytest.mark.parametrize("all_silent", [True, False])
async def test_silent_bus_wakes_together(all_silent: bool) -> None:
    async with stub_server() as stub:
        spec = bus(stub, unit(1), unit(2), unit(3))
        owner = Owner(spec, Link(spec), list[list[Reading]]().append, BusHealth.of(spec))
        for held in owner.units:
            held.breaker = Breaker(failures=9, until_s=1e9)
        if not all_silent:
            owner.units[2].breaker = Breaker()
        owner.answered(owner.units[0], 1000.0)
        assert owner.units[0].breaker == Breaker()
        assert owner.units[1].breaker.allows(1000.0) == all_silent  # one dead unit among living ones is not woken


async def test_failed_unit_with_a_slow_poll_is_asked_again_soon() -> None:
    async with stub_server() as stub:
        stub.behave[1] = silent
        async with watching(bus(stub, unit(1, poll_s=600.0))) as watch:
            await until(lambda: watch.health.bad > 0, "the miss")
            del stub.behave[1]
            await until(lambda: watch.health.good > 0, "a value long before the next period")


async def test_babbling_rtu_bus_is_a_fault_and_passes() -> None:
    async with stub_server(rtu=True) as stub:
        stub.babble = True
        async with watching(bus(stub, unit(1), unit(2))) as watch:
            await until(lambda: "bus_noise" in watch.whys("area.u1") | watch.whys("area.u2"), "the noise is named")
            assert "55 55" in watch.health.last_error
            assert watch.good("area.u1") == watch.good("area.u2") == 0
            stub.babble = False
            await until(lambda: watch.good("area.u1") > 0 and watch.good("area.u2") > 0, "good polls")


async def test_lost_connection_ends_the_wait_at_once() -> None:
    async with stub_server() as stub:
        stub.behave[1] = lambda s, p, a: HANG_UP
        async with watching(bus(stub, unit(1), timeout_ms=60_000)) as watch:
            await until(
                lambda: watch.whys("area.u1") == {"no_connection"}, "the loss, long before the timeout", bound_s=20
            )


async def test_dead_connection_is_opened_again() -> None:
    async with stub_server() as stub:
        stub.behave[1] = silent
        async with watching(bus(stub, unit(1))) as watch:
            await until(lambda: watch.health.reconnects > 0, "a new connection after silence")
            assert watch.whys("area.u1") == {"timeout"}


async def test_peer_down_at_start_and_gone_in_between(rtu: bool) -> None:
    stub = Stub(rtu=rtu)
    stub.port = free_port()
    async with watching(bus(stub, unit(1))) as watch:
        await until(lambda: watch.whys("area.u1") == {"no_connection"}, "no connection at start")
        assert str(stub.port) in watch.health.last_error
        for _ in range(2):
            good = watch.good("area.u1")
            await stub.start()
            try:
                await until(lambda n=good: watch.good("area.u1") > n, "good polls")
                assert watch.health.connected
                bad = watch.health.bad
            finally:
                await stub.stop()
            await until(lambda n=bad: watch.health.bad > n + 5, "the loss is seen")
        assert watch.health.reconnects > 0
        assert (
            watch.health.units["area.u1"].breaker is BreakerState.CLOSED
        )  # a bus that is down is not the unit's fault


async def test_missing_serial_port_is_a_fault(tmp_path: Path) -> None:
    spec = BusSpec(id="b", kind=BusKind.RTU, serial=str(tmp_path / "ttyNONE"), units=(unit(1),), late_max_ms=500)
    async with watching(spec) as watch:
        await until(lambda: watch.whys("area.u1") == {"no_connection"}, "no connection")
        assert "ttyNONE" in watch.health.last_error


async def test_serial_settings_that_the_port_refuses_are_a_fault_that_names_it() -> None:
    master, slave = os.openpty()  # a pseudo-terminal takes no parity
    tty.setraw(slave)
    try:
        port = os.ttyname(slave)
        spec = BusSpec(id="b", kind=BusKind.RTU, serial=port, parity="E", units=(unit(1),), late_max_ms=500)
        async with watching(spec) as watch:
            await until(lambda: len(watch.polls) > 12, "it is tried again")
            assert watch.whys("area.u1") == {"no_connection"}
            assert port in watch.health.last_error
            assert "lock" not in watch.health.last_error
    finally:
        os.close(master)
        os.close(slave)


async def test_breaker_pause_does_not_stop_the_heartbeat() -> None:
    async with stub_server() as stub, watching(bus(stub, unit(1, poll_s=30.0))) as watch:
        await until(lambda: watch.good("area.u1") == 1, "the first poll")
        beat_s = watch.health.beat_s
        await until(lambda: watch.health.beat_s > beat_s, "a turn without work", bound_s=10)
        assert watch.health.polls == 1


async def test_phases_are_spread_and_missed_periods_are_skipped() -> None:
    async with stub_server(rtu=True) as stub:
        spec = bus(stub, unit(1, poll_s=1.0), unit(2, poll_s=1.0))
        async with watching(spec) as watch:
            await until(lambda: watch.good("area.u1") > 2 and watch.good("area.u2") > 2, "three polls each")
            last = [watch.of(d)[-1][0].at.mono_s for d in ("area.u1", "area.u2")]
            assert 0.2 < (last[1] - last[0]) % 1.0 < 0.8
    async with (
        stub_server() as stub,
        watching(bus(stub, unit(1, poll_s=0.02), unit(3, poll_s=0.5), timeout_ms=300)) as watch,
    ):
        stub.behave[3] = silent
        await until(lambda: watch.health.units["area.u1"].skipped > 5, "periods gone by while the bus was busy")


async def test_what_the_sink_raises_ends_the_task() -> None:
    def broken(readings: list[Reading]) -> None:
        raise RuntimeError("pipeline")

    async with stub_server() as stub:
        spec = bus(stub, unit(1))
        with pytest.raises(RuntimeError, match="pipeline"):
            await asyncio.wait_for(run_bus(spec, broken, BusHealth.of(spec)), 30)


async def test_driver_defect_is_a_fault_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stub_server() as stub:
        spec = bus(stub, unit(1), unit(2))
        watch = Watch(BusHealth.of(spec))
        monkeypatch.setattr("sitewarden.sensors.owner._readings", _raise_once("area.u1"))
        task = asyncio.create_task(run_bus(spec, watch.take, watch.health), name="bus")
        await until(lambda: watch.good("area.u1") > 1 and watch.good("area.u2") > 1, "good polls")
        assert watch.whys("area.u1") == {"driver_error"}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def _raise_once(device: str) -> Callable[..., list[Reading]]:
    from sitewarden.sensors import owner

    real, left = owner._readings, [True]

    def readings(unit: owner._Unit, *rest: object) -> list[Reading]:
        if unit.spec.device == device and left and left.pop():
            raise ZeroDivisionError
        return real(unit, *rest)  # pyright: ignore[reportArgumentType]

    return readings


def test_every_problem_of_a_bus_at_once() -> None:
    bad = UnitSpec(device="area.x", unit_id=300, registers=(u16("a", 1), u16("a", 2)), poll_s=0)
    with pytest.raises(ConfigError) as caught:
        BusSpec(id="b", kind=BusKind.RTU, units=(bad, unit(5), unit(5)), parity="X", timeout_ms=0, late_max_ms=-1)
    assert caught.value.problems == [
        "serial: must be a device path (got '')",
        "parity: must be N, E or O (got 'X')",
        "timeout_ms: must be positive (got 0)",
        "late_max_ms: must be at least the timeout, 0 (got -1)",
        "units[0].unit_id: must be 1..247 (got 300)",
        "units[0].poll_s: must be positive (got 0)",
        "units[0].registers: name must be unique (got 'a' again)",
        "units[2].unit_id: must be unique on an RTU bus (got 5 again)",
        "units[2].device: must be unique (got 'area.u5' again)",
    ]


def test_only_one_file_imports_pymodbus() -> None:
    code = "import sys; from sitewarden.sensors import owner, profiles; print('pymodbus' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
