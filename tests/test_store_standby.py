"""A primary and its synchronous standby: what is durable outlives the primary, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sitewarden.cloud import engine_postgres
from sitewarden.cloud.engine import UnavailableError
from sitewarden.cloud.engine_postgres import PostgresDatabase
from sitewarden.cloud.standby import Position, Standby, safe_position
from sitewarden.cloud.store import PARTITIONED, STEPS, Store
from sitewarden.tests.peers.ports import free_port
from sitewarden.tests.peers.postgres import USER, PostgresServer
from sitewarden.tests.peers.stores import Stream, need_postgres

Eventually = Callable[..., Awaitable[object]]


@dataclass
class Pair:
    primary: PostgresServer
    standby: PostgresServer

    @property
    def url(self) -> str:
        """Both of them; whichever is the primary answers."""
        return f"postgresql://{USER}@127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}/postgres"


@pytest.fixture
def pair() -> Iterator[Pair]:
    need_postgres()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        primary = PostgresServer(Path(folder) / "primary", free_port())
        standby = PostgresServer(Path(folder) / "standby", free_port(), like=primary)
        primary.init()
        primary.start("-c", "synchronous_standby_names=FIRST 1 (other)")
        try:
            standby.copy_of(primary, "other")
            standby.start()
            yield Pair(primary, standby)
        finally:
            standby.stop()
            primary.stop()


@contextlib.asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[Store]:
    async with PostgresDatabase(url, STEPS, partitioned=PARTITIONED, **options) as database:
        yield Store(database)


async def test_durable_is_what_the_standby_has(
    pair: Pair, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait for the standby that an administrator cancels ends with "committed": here alone, so not durable."""
    monkeypatch.setattr(engine_postgres, "_TIMEOUT_S", 60.0)
    stream = Stream()
    async with opened(pair.url) as store:
        taken = await store.take(stream.next())
        assert (taken.cursor.ack, taken.cursor.durable) == (1, 1)
        pair.standby.stop()
        watcher = await asyncpg.connect(pair.primary.url())
        late = asyncio.create_task(store.take(stream.next()))
        cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
        await eventually(lambda: watcher.fetch(cancel), "a commit that waits for the standby")
        taken = await late
        assert (taken.cursor.ack, taken.cursor.durable) == (2, 1)
        (cursor,) = (await store.cursors("gw1"))["history"]
        assert (cursor.ack, cursor.durable) == (2, 1)
        pair.standby.start()
        await watcher.close()

        async def caught_up() -> bool:
            (cursor,) = (await store.cursors("gw1"))["history"]
            return (cursor.ack, cursor.durable) == (2, 2)

        await eventually(caught_up, "the standby has it too")


async def test_what_was_acknowledged_outlives_the_primary(pair: Pair) -> None:
    """kill -9 of the primary amid batches of eight gateways; the standby is promoted; nobody does anything else."""
    acked = dict.fromkeys((f"gw{n}" for n in range(8)), 0)
    dying, killed = asyncio.Event(), asyncio.Event()

    async def send(store: Store, name: str) -> None:
        stream, after = Stream(name), 0
        while after < 5:
            parcel = stream.next()
            while True:
                with contextlib.suppress(UnavailableError):
                    cursor = (await store.take(parcel)).cursor
                    assert cursor.ack == parcel.n
                    assert cursor.durable == parcel.n or dying.is_set()  # one server alone makes nothing durable
                    break
                await asyncio.sleep(0.05)
            acked[name] = parcel.n
            after += killed.is_set()

    async def fail_over() -> None:
        while min(acked.values()) < 10:
            await asyncio.sleep(0.01)
        dying.set()
        pair.primary.stop(signal.SIGKILL)
        before = dict(acked)
        await asyncio.to_thread(pair.standby.promote)
        async with opened(pair.url) as other:
            for name, n in before.items():
                (cursor,) = (await other.cursors(name))["history"]
                assert cursor.ack >= n
        killed.set()

    async with opened(pair.url) as store, asyncio.timeout(120):
        async with asyncio.TaskGroup() as group:
            for name in acked:
                group.create_task(send(store, name))
            group.create_task(fail_over())
        sql = "SELECT gateway, count(*), max(n) FROM batch GROUP BY gateway"
        kept = {row[0]: (row[1], row[2]) for row in await store.database.read(lambda tx: tx.all(sql))}
        assert kept == {name: (n, n) for name, n in acked.items()}


async def test_a_connection_to_what_became_a_standby_is_given_up(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when roles are exchanged in order: the old primary goes on answering, and reads only."""
    monkeypatch.setattr(engine_postgres, "_TIMEOUT_S", 5.0)
    stream = Stream()
    async with opened(pair.url) as store:
        await store.take(stream.next())
        pair.primary.stop()
        pair.standby.promote()  # nobody looks for a new connection meanwhile
        (pair.primary.data / "standby.signal").touch()
        pair.primary.start("-c", f"primary_conninfo=host=127.0.0.1 port={pair.standby.port} user={USER}")
        parcel = stream.next()
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(UnavailableError):
                    assert (await store.take(parcel)).cursor.ack == 2
                    break
                await asyncio.sleep(0.05)


async def test_a_user_who_may_not_see_the_standbys_is_told_so(pair: Pair) -> None:
    admin = await asyncpg.connect(pair.primary.url())
    await admin.execute("CREATE ROLE small LOGIN")
    await admin.execute("GRANT ALL ON SCHEMA public TO small")
    await admin.close()
    url = f"postgresql://small@127.0.0.1:{pair.primary.port}/postgres"
    with pytest.raises(Exception, match="may not see how far the standbys are") as caught:
        async with opened(url):
            pass
    assert "GRANT pg_read_all_stats" in str(caught.value)


# --- without a server ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "flushed", "safe"),
    [
        ("", [50], 0),
        ("a", [], 0),
        ("a", [50], 50),
        ("a, b", [50, 70], 70),
        ("FIRST 2 (a, b)", [50, 70], 50),
        ("FIRST 2 (a, b)", [70], 0),
        ("2 (a, b, c)", [10, 50, 70], 50),
        ("ANY 1 (a, b)", [10, 70], 70),
        ("any 2(*)", [10, 70], 10),
    ],
)
def test_enough_standbys_must_have_it(names: str, flushed: list[int], safe: int) -> None:
    assert safe_position(names, flushed) == safe


async def test_many_that_ask_are_answered_with_few_looks() -> None:
    position, looks = Position(local=100, safe=90), 0

    async def look() -> Position:
        nonlocal position, looks
        looks += 1
        position = Position(local=100, safe=min(100, position.safe + 2))
        return position

    standby = Standby(look)
    assert await asyncio.gather(*(standby.passed() for _ in range(200))) == [True] * 200
    assert looks < 20
    await standby.close()


async def test_a_server_that_does_not_say_makes_nothing_durable() -> None:
    async def look() -> Position:
        raise UnavailableError("gone")

    standby = Standby(look)
    assert await standby.passed() is False
    await standby.close()


async def test_what_is_written_later_need_not_be_safe() -> None:
    """Each is judged by the position of the moment it asked; the log goes on meanwhile."""
    local = 100

    async def look() -> Position:
        nonlocal local
        local += 1_000
        return Position(local=local, safe=local - 500)

    standby = Standby(look)
    assert await standby.passed() is True
    await standby.close()
