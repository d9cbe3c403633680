"""The service while its PostgreSQL is away, and several services on one PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from sitewarden.cloud import contacts, engine_postgres, outages
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.config import load_cloud_config
from sitewarden.cloud.contacts import Contacts
from sitewarden.cloud.engine import UnavailableError
from sitewarden.cloud.engine_postgres import PostgresDatabase
from sitewarden.cloud.outages import through_outages
from sitewarden.cloud.store import STEPS, Store
from sitewarden.sync.keys import public_key_text
from sitewarden.tests.peers.ports import free_port
from sitewarden.tests.peers.postgres import PostgresServer
from sitewarden.tests.peers.stores import KEY, Stream, need_postgres, put

Eventually = Callable[..., Awaitable[object]]


@contextlib.asynccontextmanager
async def service(folder: Path, url: str) -> AsyncIterator[int]:
    """A whole service of its own; its port. It must not end before it is told to."""
    folder.mkdir()
    (folder / "people.csv").write_text("id,name,name_en,roles,areas,phone\n", "utf-8")
    gateway = f'[[gateway]]\nid = "gw1"\nname = "x"\nname_en = "x"\npublic_key = "{public_key_text(KEY)}"\n'
    head = '[cloud]\nname = "x"\nname_en = "x"\nport = 0\n'
    (folder / "cloud.toml").write_text(f'{head}[store]\nurl = "{url}"\n{gateway}', "utf-8")
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_cloud(load_cloud_config(folder / "cloud.toml"), folder, ready=up.set_result))
    try:
        await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED, timeout=60)
        yield up.result()
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.wait([task])


async def test_the_service_outlives_its_server_and_loses_nothing(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests get 503 and Retry-After, background work waits, and all goes on by itself."""
    need_postgres()
    monkeypatch.setattr(contacts, "_LOOK_S", 0.05)
    monkeypatch.setattr(outages, "AWAY_S", 0.1)
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder) / "one", free_port())
        server.init()
        server.start()
        stream = Stream()
        try:
            async with service(tmp_path / "cloud", server.url()) as port, aiohttp.ClientSession() as session:

                async def send() -> bool:
                    status, answer, headers = await put(session, port, "gw1", parcel.n, parcel.body, parcel.chain)
                    if status == 200:
                        assert answer["ack"] == parcel.n
                        return True
                    assert (status, answer["error"]["reason"]) == (503, "unavailable")
                    assert int(headers["Retry-After"]) >= 1
                    return False

                for _ in range(3):
                    parcel = stream.next()
                    await eventually(send, "it is taken")
                    server.stop()
                    parcel = stream.next()
                    assert not await send()
                    await asyncio.sleep(0.3)  # all that looks at the server every moment has done so
                    server.start()
                    await eventually(send, "it is taken after the outage")
            async with PostgresDatabase(server.url(), STEPS) as database:
                (cursor,) = (await Store(database).cursors("gw1"))["history"]
                assert (cursor.ack, cursor.chain) == (stream.n, stream.chain)
        finally:
            server.stop()


async def test_a_server_that_hangs_is_given_up_and_nothing_is_lost_or_taken_twice(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds its connections and says nothing; what was on its way may be committed when it wakes up, or not."""
    need_postgres()
    monkeypatch.setattr(engine_postgres, "_TIMEOUT_S", 1.0)
    monkeypatch.setattr(outages, "AWAY_S", 0.1)
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder) / "one", free_port())
        server.init()
        server.start("-c", "fsync=off")
        stream, acked = Stream(), 0
        refused, done = Counter[int](), asyncio.Event()

        async def gateway(session: aiohttp.ClientSession, port: int) -> None:
            nonlocal acked
            while not done.is_set():
                parcel = stream.next()
                while True:
                    status, answer, _ = await put(session, port, "gw1", parcel.n, parcel.body, parcel.chain)
                    if status == 200:
                        assert answer["ack"] == parcel.n
                        break
                    refused[status] += 1
                    await asyncio.sleep(0.1)
                acked = parcel.n

        async def served() -> None:
            goal = acked + 5
            await eventually(lambda: acked >= goal, "it is served")

        try:
            async with service(tmp_path / "cloud", server.url()) as port, aiohttp.ClientSession() as session:
                async with asyncio.timeout(120), asyncio.TaskGroup() as group:
                    group.create_task(gateway(session, port))
                    for _ in range(3):
                        await served()
                        server.freeze()
                        before = refused.total()
                        await eventually(lambda before=before: refused.total() > before, "nobody waits for ever")
                        server.thaw()
                    await served()
                    done.set()
                assert set(refused) == {503}
            async with PostgresDatabase(server.url(), STEPS) as database:
                kept = await database.read(lambda tx: tx.one("SELECT count(*), max(n) FROM batch"))
                assert tuple(kept or ()) == (acked, acked)
        finally:
            server.stop()


async def test_what_one_process_takes_the_pages_of_the_other_show(
    tmp_path: Path, eventually: Eventually, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A balancer gives each request to any of them; the same gateway's batches go through both."""
    need_postgres()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder) / "one", free_port())
        server.init()
        server.start("-c", "fsync=off")
        try:
            async with (
                service(tmp_path / "a", server.url()) as one,
                service(tmp_path / "b", server.url()) as other,
                aiohttp.ClientSession() as session,
                PostgresDatabase(server.url(), STEPS) as database,
            ):
                store, stream, told = Store(database), Stream(), list[str]()
                monkeypatch.setattr(contacts, "_LOOK_S", 0.01)
                seen = Contacts(store, {})
                await seen.follow(told.append)
                assert (seen.latest_ms("gw1"), told) == (None, [""])
                for turn in range(20):
                    parcel = stream.next()
                    status, answer, _ = await put(
                        session, (one, other)[turn % 2], "gw1", parcel.n, parcel.body, parcel.chain
                    )
                    assert (status, answer["ack"]) == (200, parcel.n)
                await seen.follow(told.append)
                assert seen.latest_ms("gw1") is not None
                assert told == ["", ""]
                await seen.follow(told.append)
                assert told == ["", ""]  # nothing new
        finally:
            server.stop()


async def test_what_runs_for_ever_is_begun_again_after_an_outage(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outages, "AWAY_S", 0)
    done = asyncio.Event()
    begun = 0

    async def work() -> None:
        nonlocal begun
        begun += 1
        if begun in (2, 3, 4):
            raise UnavailableError("away")
        if begun == 6:
            done.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(through_outages(work, "charts"))
    await asyncio.wait_for(done.wait(), 10)
    task.cancel()
    assert [record.message for record in caplog.records] == ["charts waits: away", "charts goes on"]
