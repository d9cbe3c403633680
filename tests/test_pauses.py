"""Nothing keeps the event loop for long: slices, turns of threads, and a collection that leaves out what stays."""

from __future__ import annotations

import asyncio
import gc
import sys
import weakref
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from sitewarden.edge import pauses
from sitewarden.edge.pages.api import Pages
from sitewarden.edge.pages.parts import Parts
from sitewarden.edge.pauses import SWITCH_S, in_slices, spare_what_stays, take_turns
from sitewarden.edge.values import Values
from sitewarden.sync.journal import Journal
from sitewarden.words import Instant, Quality, Reading


class Ring:
    """Refers to itself: only a collection finds it."""

    def __init__(self) -> None:
        self.me = self


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(pauses, "gc", gc)
    switch_s = sys.getswitchinterval()
    yield
    sys.setswitchinterval(switch_s)
    gc.unfreeze()


async def test_what_is_ready_runs_between_two_slices() -> None:
    seen: list[object] = []
    async for some in in_slices(range(7), 3):
        seen.append(list(some))
        asyncio.get_running_loop().call_soon(seen.append, "another")
    assert seen == [[0, 1, 2], "another", [3, 4, 5], "another", [6]]


async def test_nothing_has_no_slices() -> None:
    assert [some async for some in in_slices([])] == []


def test_threads_take_turns_sooner_than_python_lets_them() -> None:
    take_turns()
    assert sys.getswitchinterval() == pytest.approx(SWITCH_S)


def test_what_stays_is_left_out_of_collections() -> None:
    kept = Ring()
    spare_what_stays()
    assert not any(one is kept for one in gc.get_objects())


def test_what_was_spared_and_is_not_used_any_more_goes_with_the_next_change() -> None:
    ring = Ring()
    spare_what_stays()
    gone = weakref.ref(ring)
    del ring
    gc.collect()
    assert gone() is not None
    spare_what_stays()
    assert gone() is None


class Told:
    """A hub with one open page."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def __len__(self) -> int:
        return 1

    def send(self, event: str, _: object) -> None:
        self.events.append(event)


async def test_an_alarm_reaches_the_pages_between_the_points_of_a_large_site(
    eventually: Callable[..., Awaitable[object]],
) -> None:
    names = [f"a.d.p{i}" for i in range(500)]
    told, loop = Told(), asyncio.get_running_loop()

    class Asked(Values):
        def get(self, point: str) -> Reading | None:
            loop.call_soon(told.send, "alarm", {})
            return super().get(point)

    values = Asked()
    metas = [SimpleNamespace(point=SimpleNamespace(id=name)) for name in names]
    journal = Journal(Path("unused.db"), "gw1")
    parts = SimpleNamespace(site=SimpleNamespace(points=metas), values=values, hub=told, journal=journal)
    pages = Pages(cast("Parts", parts))
    at = Instant(utc_ms=0, mono_s=0.0, boot="b")
    values.put([Reading(point=name, value=1.0, quality=Quality.GOOD, at=at) for name in names])
    live = asyncio.create_task(pages.live())
    await eventually(lambda: "values" in told.events, "the values are told")
    live.cancel()
    assert told.events[0] == "alarm"
