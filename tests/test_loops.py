"""Loops come and go while others run; one that hangs costs a bounded time, one that fails ends them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from sitewarden.edge import loops as loops_module
from sitewarden.edge import wires as wires_module
from sitewarden.edge.loops import Loops
from sitewarden.edge.wires import Wires
from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, ReplyError, UnitSpec
from sitewarden.sensors.registers import Register, Table, ValueType


@asynccontextmanager
async def running(loops: Loops) -> AsyncIterator[asyncio.Task[Any]]:
    task = asyncio.create_task(loops.run(), name="loops")
    await asyncio.sleep(0)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task], timeout=20)


async def test_loops_start_and_stop_by_name():
    loops, turning = Loops(), set[str]()

    def loop(name: str) -> Any:
        async def turn() -> None:
            turning.add(name)
            try:
                await asyncio.Future()
            finally:
                turning.discard(name)

        return turn

    loops.start("a", loop("a"), lambda: 1.0)
    loops.start("b", loop("b"))
    assert turning == set()
    assert "a" in loops
    async with running(loops):
        await asyncio.sleep(0)
        assert turning == {"a", "b"}
        loops.start("c", loop("c"), lambda: 2.0)
        assert loops.beats.keys() == {"a", "c"}
        await loops.stop("a", "nobody")
        assert turning == {"b", "c"}
        assert loops.beats.keys() == {"c"}
        loops.start("a", loop("a2"))
        await asyncio.sleep(0)
        assert turning == {"a2", "b", "c"}
        with pytest.raises(AssertionError, match="runs already"):
            loops.start("a", loop("a"))
    assert turning == set()


async def test_what_is_stopped_before_the_beginning_never_runs():
    loops = Loops()
    loops.start("a", lambda: pytest.fail("it ran"), lambda: 1.0)
    await loops.stop("a")
    assert "a" not in loops
    assert loops.beats == {}
    async with running(loops):
        await asyncio.sleep(0)


async def test_a_loop_that_needs_the_others_for_its_end_is_ended_before_them():
    loops, ended = Loops(), list[str]()

    def loop(name: str, goodbye: Any) -> Any:
        async def turn() -> None:
            try:
                await asyncio.Future()
            finally:
                await goodbye()
                ended.append(name)

        return turn

    async def ask_the_wire() -> None:
        await asyncio.sleep(0.05)

    loops.start("wire", loop("wire", lambda: asyncio.sleep(0)))
    loops.start("front", loop("front", ask_the_wire))
    task = asyncio.create_task(loops.run(first="front"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert ended == ["front", "wire"]


async def test_a_loop_that_does_not_end_first_holds_the_others_for_a_bounded_time(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loops_module, "_FIRST_S", 0.05)
    loops, let_go, ended = Loops(), asyncio.Event(), asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.Future()
        finally:
            await let_go.wait()

    async def other() -> None:
        try:
            await asyncio.Future()
        finally:
            ended.set()

    loops.start("front", stubborn)
    loops.start("other", other)
    task = asyncio.create_task(loops.run(first="front"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    async with asyncio.timeout(10):
        await ended.wait()
        let_go.set()
        await asyncio.wait([task])
    assert task.cancelled()


async def test_a_loop_that_fails_ends_all():
    loops, ended = Loops(), asyncio.Event()

    async def other() -> None:
        try:
            await asyncio.Future()
        finally:
            ended.set()

    async def fails() -> None:
        raise ValueError("a defect")

    loops.start("other", other)
    async with running(loops) as task:
        await asyncio.sleep(0)
        loops.start("fails", fails)
        await asyncio.wait([task], timeout=20)
        assert ended.is_set()
        with pytest.raises(ExceptionGroup):
            task.result()


async def test_a_swallowed_cancellation_is_made_again_and_a_loop_that_hangs_is_left_behind(monkeypatch, caplog):
    monkeypatch.setattr(loops_module, "_STOP_TRY_S", 0.05)
    loops, let_go = Loops(), asyncio.Event()

    async def swallows() -> None:
        try:
            await asyncio.Future()
        except asyncio.CancelledError:
            await asyncio.Future()

    async def hangs() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    loops.start("swallows", swallows)
    loops.start("hangs", hangs)
    async with running(loops):
        await asyncio.sleep(0)
        await loops.stop("swallows")
        assert caplog.records == []
        await loops.stop("hangs")
        assert [record.getMessage() for record in caplog.records] == ["hangs does not end; it is left behind"]
        assert "hangs" not in loops
        let_go.set()


def spec(*devices: str, poll_s: float = 1.0) -> BusSpec:
    register = Register(name="t", table=Table.HOLDING, address=0, type=ValueType.U16)
    units = tuple(
        UnitSpec(device=name, unit_id=i + 1, registers=(register,), poll_s=poll_s) for i, name in enumerate(devices)
    )
    return BusSpec(id="a", kind=BusKind.TCP, host="127.0.0.1", port=9, units=units)


async def test_a_bus_that_failed_comes_back_as_the_site_is_then(monkeypatch, eventually):
    """A change that comes while it waits to be started again is not lost, and nobody waits for an answer meanwhile."""
    made: list[BusSpec] = []

    class Bus:
        def __init__(self, spec: BusSpec, sink: object, health: BusHealth) -> None:
            made.append(spec)
            assert health.units.keys() == {unit.device for unit in spec.units}

        async def run(self) -> None:
            if len(made) == 1:
                raise ValueError("a defect")
            await asyncio.Future()

        def change(self, spec: BusSpec) -> None:
            made.append(spec)

    monkeypatch.setattr(wires_module, "Bus", Bus)
    loops = Loops()
    wires = Wires(loops, lambda _: None)
    wires.start(spec("x", "y"))
    async with running(loops):
        await asyncio.sleep(0)
        wires.health["a"].units["x"].polls = 7
        with pytest.raises(ReplyError, match="does not run"):
            wires.bus("a")
        wires.change(spec("x", "z"))
        await eventually(lambda: len(made) == 2, "made again")
        assert [unit.device for unit in made[1].units] == ["x", "z"]
        assert wires.health["a"].units["x"].polls == 7
        assert wires.bus("a")
        assert wires.specs["a"] == made[1]
        await wires.stop(["a", "gone"])
        assert wires.health == {}
        assert loops.beats == {}
        with pytest.raises(ReplyError):
            wires.bus("a")
