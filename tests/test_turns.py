"""Whose batch is taken next: every gateway in its turn, journals first, within bounds, and 429 for the others."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from sitewarden.cloud import turns
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.cloud.engine import UnavailableError
from sitewarden.cloud.ingest import Contacts, Ingest
from sitewarden.cloud.store import Parcel, Taken
from sitewarden.cloud.turns import MOST_OF_ONE, BusyError, Turns
from sitewarden.serving.listen import serving
from sitewarden.sync.columns import compress
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.wire import MAX_BODY_BYTES, Cursor
from sitewarden.tests.peers.stores import KEY, put

Eventually = Callable[..., Awaitable[object]]


class Work:
    """Requests that say when they are in work and end when they are told to."""

    def __init__(self, subject: Turns) -> None:
        self.subject = subject
        self.order: list[str] = []
        self.now: set[str] = set()
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: list[asyncio.Task[None]] = []

    def come(self, name: str, gateway: str, *, urgent: bool = False) -> None:
        self._ends[name] = asyncio.Event()
        self._tasks.append(asyncio.create_task(self._run(name, gateway, urgent)))

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
        await self.settle()

    async def end_all(self) -> None:
        while any(not task.done() for task in self._tasks):
            await self.end(*self.now)
        await asyncio.gather(*self._tasks)

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    async def _run(self, name: str, gateway: str, urgent: bool) -> None:
        async with self.subject.turn(gateway, urgent=urgent):
            self.order.append(name)
            self.now.add(name)
            await self._ends[name].wait()
            self.now.discard(name)


# --- turns -----------------------------------------------------------------------------------------------------------


async def test_a_gateway_that_floods_has_one_turn_like_the_others() -> None:
    work = Work(Turns(at_once=2))
    for n in range(50):
        work.come(f"flood{n}", "flood")
    await work.settle()
    assert work.now == {"flood0"}  # one of a gateway at a time, though there is room
    for n in range(5):
        work.come(f"other{n}", f"gw{n}")
    await work.settle()
    assert work.now == {"flood0", "other0"}
    while "other4" not in work.order:
        await work.end(*work.now)
    assert sum(name.startswith("flood") for name in work.order) <= 4
    await work.end_all()
    assert [name for name in work.order if name.startswith("flood")] == [f"flood{n}" for n in range(50)]


async def test_journals_go_first_and_history_is_not_forgotten() -> None:
    work = Work(Turns(at_once=1))
    work.come("first", "gw")
    await work.settle()
    for n in range(40):
        work.come(f"history{n}", f"gw{n}")
    for n in range(40):
        work.come(f"journal{n}", f"gw{n}", urgent=True)
    await work.end_all()
    order = work.order[1:]
    assert all(name.startswith("journal") for name in order[:15])
    assert order[15] == "history0"
    assert [name for name in order if name.startswith("journal")] == [f"journal{n}" for n in range(40)]
    assert order.index("journal39") < 45


async def test_a_journal_does_not_wait_for_the_history_of_its_gateway() -> None:
    work = Work(Turns(at_once=2))
    work.come("history", "gw1")
    await work.settle()
    work.come("journal", "gw1", urgent=True)
    await work.settle()
    assert work.now == {"history", "journal"}
    await work.end_all()


async def test_who_waits_too_long_is_told_to_come_back_and_leaves_nothing_behind() -> None:
    subject = Turns(at_once=1, patience_s=0.05)
    work = Work(subject)
    work.come("slow", "gw1")
    await work.settle()
    with pytest.raises(BusyError) as busy:
        async with subject.turn("gw2", urgent=True):
            pass
    assert busy.value.retry_s > 0
    assert subject.waiting == 0
    await work.end_all()
    async with subject.turn("gw2", urgent=True):
        pass


async def test_who_goes_away_gives_the_turn_to_the_next() -> None:
    """Also in the moment in which it was called."""
    subject = Turns(at_once=1)
    for moment in range(4):
        work = Work(subject)
        work.come("first", "gw1")
        await work.settle()

        async def wait() -> None:
            async with subject.turn("gw2", urgent=False):
                pass

        leaving = asyncio.create_task(wait())
        await work.settle()
        work.come("next", "gw3")
        work._ends["first"].set()
        for _ in range(moment):
            await asyncio.sleep(0)
        leaving.cancel()
        await work.settle()
        await asyncio.gather(leaving, return_exceptions=True)
        await work.settle()
        assert work.now == {"next"}
        await work.end_all()
        assert subject.waiting == 0


async def test_there_is_room_for_so_many_bytes() -> None:
    subject = Turns(room_bytes=100)
    async with subject.room("gw1", 60):
        with pytest.raises(BusyError):
            async with subject.room("gw2", 60):
                pass
        async with subject.room("gw2", 40):
            pass
    async with subject.room("gw2", 100):
        pass


async def test_one_gateway_has_a_share_of_the_room() -> None:
    subject = Turns()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(MOST_OF_ONE):
            await stack.enter_async_context(subject.room("gw1", 10))
        with pytest.raises(BusyError, match="of this gateway"):
            await stack.enter_async_context(subject.room("gw1", 10))
        await stack.enter_async_context(subject.room("gw2", 10))


async def test_credit_shrinks_and_the_pause_grows_with_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "AT_ONCE", 4)
    subject = Turns(at_once=1, room_bytes=1000)
    assert subject.credit("gw1", 400) == (400, 0)
    work = Work(subject)
    async with contextlib.AsyncExitStack() as stack:
        for n in range(9):
            await stack.enter_async_context(subject.room(f"gw{n}", 100))
            work.come(f"w{n}", f"gw{n}")
        await work.settle()
        credit, retry_ms = subject.credit("gw1", 400)
        assert credit < 100
        assert retry_ms > 0
        await work.end_all()
    assert subject.credit("gw1", 400) == (400, 0)


# --- as gateways see it ----------------------------------------------------------------------------------------------


class SlowStore:
    """Keeps batches when it is told to; counts what it holds."""

    class Database:
        shared = replicated = False

    database = Database()

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.holds: list[str] = []
        self.most = 0
        self.away = False

    async def take(self, parcel: Parcel) -> Taken:
        if self.away:
            raise UnavailableError("the server went away")
        self.holds.append(parcel.gateway)
        self.most = max(self.most, len(self.holds))
        await self.go.wait()
        self.holds.remove(parcel.gateway)
        cursor = Cursor(epoch=parcel.epoch, ack=parcel.n, durable=parcel.n, chain=parcel.chain)
        return Taken(cursor=cursor, new=True)

    async def contacted(self, *_: object) -> None:
        """Nothing."""


@contextlib.asynccontextmanager
async def service(subject: Turns, gateways: int) -> AsyncIterator[tuple[SlowStore, Any]]:
    """The door, and what asks it: `put(gateway, n, body)` gives status, answer, headers."""
    tables = tuple(
        GatewayTable(id=f"gw{n}", name="x", name_en="x", public_key=public_key_text(KEY)) for n in range(gateways)
    )
    config = CloudConfig(cloud=CloudTable(name="x", name_en="x"), gateway=tables)
    store: Any = SlowStore()
    app = web.Application()
    Ingest(config, store, Contacts(store, {}), lambda _: None, turns=subject).add_routes(app)
    async with (
        serving(app, "127.0.0.1") as port,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session,
    ):

        async def put_to(gateway: str, n: int = 1, body: bytes = compress(b"x")) -> tuple[int, Any, Any]:
            return await put(session, port, gateway, n, body)

        yield store, put_to


async def test_a_flood_of_one_gateway_is_answered_429_and_others_are_served(eventually: Eventually) -> None:
    async with service(Turns(at_once=4), 3) as (store, put):
        flood = [asyncio.create_task(put("gw0")) for _ in range(40)]
        await eventually(lambda: sum(task.done() for task in flood) == 40 - MOST_OF_ONE, "the others were refused")
        status, answer, headers = flood[[task.done() for task in flood].index(True)].result()
        assert (status, answer["error"]["reason"]) == (429, "busy")
        assert 1 <= int(headers["Retry-After"]) <= 60
        others = [asyncio.create_task(put(f"gw{n}")) for n in (1, 2)]
        await eventually(lambda: sorted(store.holds) == ["gw0", "gw1", "gw2"], "each has one in work")
        store.go.set()
        assert [(await task)[0] for task in others] == [200, 200]
        assert sum([(await task)[0] == 200 for task in flood]) == MOST_OF_ONE
        assert store.most == 3


async def test_the_answer_says_how_much_may_come_next() -> None:
    async with service(Turns(), 1) as (store, put):
        store.go.set()
        status, answer, _ = await put("gw0")
        assert status == 200
        assert (0 < answer["credit_bytes"] <= MAX_BODY_BYTES, answer["retry_ms"]) == (True, 0)


async def test_without_room_for_the_body_it_is_not_read() -> None:
    async with service(Turns(room_bytes=1000), 1) as (store, put):
        store.go.set()
        status, answer, headers = await put("gw0", body=bytes(5000))
        assert (status, answer["error"]["reason"]) == (429, "busy")
        assert int(headers["Retry-After"]) >= 1
        assert (await put("gw0"))[0] == 200


async def test_while_the_database_is_away_gateways_are_told_to_come_back() -> None:
    async with service(Turns(), 1) as (store, put):
        store.go.set()
        store.away = True
        status, answer, headers = await put("gw0")
        assert (status, answer["error"]["reason"]) == (503, "unavailable")
        assert 1 <= int(headers["Retry-After"]) <= 10
        store.away = False
        assert (await put("gw0"))[0] == 200


async def test_of_large_batches_one_is_unpacked_at_a_time(eventually: Eventually) -> None:
    """A batch that means harm is a hundred times as large unpacked."""
    large = compress(bytes(1 << 20))
    async with service(Turns(), 6) as (store, put):
        asked = [asyncio.create_task(put(f"gw{n}", body=large)) for n in range(3)]
        small = [asyncio.create_task(put(f"gw{n}")) for n in range(3, 6)]
        await eventually(lambda: len(store.holds) == 4, "the small ones and one large one")
        assert {"gw3", "gw4", "gw5"} <= set(store.holds)
        store.go.set()
        assert [(await task)[0] for task in [*asked, *small]] == [200] * 6
        assert store.most == 4
