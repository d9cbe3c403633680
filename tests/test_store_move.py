"""From cloud.db to PostgreSQL: all of it, once, in spite of being broken off; and nobody goes on with the old one."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from click.testing import CliRunner
from sitewarden.cli import main
from sitewarden.cloud import moving
from sitewarden.cloud.app import SOCKET, database_of, run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, load_cloud_config, store_table
from sitewarden.cloud.engine import UnavailableError
from sitewarden.cloud.moving import move_store
from sitewarden.cloud.parcels import open_parcel
from sitewarden.cloud.store import Store
from sitewarden.errors import ConfigError, PermanentError
from sitewarden.sync.columns import compress
from sitewarden.sync.journal import Draft, Journal, verify_rows
from sitewarden.sync.outbox import JournalOutbox
from sitewarden.sync.streams import batch_chain
from sitewarden.tests.peers.ports import free_port
from sitewarden.tests.peers.postgres import PostgresServer
from sitewarden.tests.peers.stores import EPOCH, Stream, fresh, need_postgres
from sitewarden.words import now

CONFIG = CloudConfig(cloud=CloudTable(name="总部", name_en="HQ"))


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    need_postgres()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        made = PostgresServer(Path(folder) / "one", free_port())
        made.init()
        made.start("-c", "fsync=off")
        try:
            yield made
        finally:
            made.stop()


async def fill(folder: Path, gateways: int = 3, batches: int = 40) -> None:
    """A cloud.db with journals, history of several days, alarms, and what was set aside."""
    async with database_of(CONFIG, folder) as database:
        store = Store(database)
        for n in range(gateways):
            stream = Stream(f"gw{n}")
            for day in range(batches):
                parcel = stream.next(day / 10)
                object.__setattr__(parcel, "received_ms", parcel.received_ms + day * 40_000_000)
                await store.take(parcel)
            chain = batch_chain(stream.chain, batches + 1, b"poison")
            await store.take(open_parcel(f"gw{n}", "history", EPOCH, batches + 1, chain, compress(b"poison"), 5))
            await store.contacted(f"gw{n}", 1_795_000_000_000 + n)
        async with Journal(folder / "journal.db", "gw0") as journal:
            outbox = JournalOutbox(journal)
            await outbox.open()
            for n in range(12):
                body = {"alarm": {"id": f"a.b.c{n % 5}.high", "state": "UNACK", "名": "湿度"}}
                await journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body=body)])
                batch = await outbox.batch(n + 1)
                assert batch is not None
                await store.take(open_parcel("gw0", "journal", journal.epoch, n + 1, batch.chain, batch.body, 7))
                await outbox.acked(n + 1, n + 1)


async def content(config: CloudConfig, folder: Path) -> dict[str, list[Any]]:
    """What a store says of all gateways."""
    async with database_of(config, folder) as database:
        store = Store(database)
        found: dict[str, list[Any]] = {"gateways": sorted((await store.gateways()).items(), key=lambda item: item[0])}
        for name, _ in found["gateways"]:
            found[name] = [await store.cursors(name), await store.alarms(name), await store.events(name, 500, None)]
            sql = "SELECT n, chain, received_ms, count, body FROM batch WHERE gateway = ? ORDER BY stream, epoch, n"
            found[name].append(await database.read(lambda tx, sql=sql, name=name: tx.all(sql, name)))
        return found


@contextlib.asynccontextmanager
async def moved(folder: Path, server: PostgresServer) -> AsyncIterator[CloudConfig]:
    """The configuration after a move that is made here."""
    url = await fresh(server)
    await move_store(CONFIG, folder, store_table(url), "", lambda *_: None)
    yield CONFIG.model_copy(update={"store": store_table(url)})


async def test_everything_is_there_and_the_streams_go_on(server: PostgresServer, tmp_path: Path) -> None:
    await fill(tmp_path)
    before = await content(CONFIG, tmp_path)
    async with moved(tmp_path, server) as config:
        assert await content(config, tmp_path) == before
        async with database_of(config, tmp_path) as database:
            store = Store(database)
            ((cursor,), (journal,)) = [(await store.cursors("gw0"))[name] for name in ("history", "journal")]
            chain = batch_chain(cursor.chain, cursor.ack + 1, b"more")
            parcel = open_parcel("gw0", "history", EPOCH, cursor.ack + 1, chain, compress(b"more"), 9)
            assert (await store.take(parcel)).problem  # and quarantine goes on counting
            assert (await store.gateways())["gw0"]["quarantined"] == 2
            assert await database.read(lambda tx: tx.all("SELECT count(*), max(id) FROM quarantine")) == [(4, 4)]
            sql = "SELECT seq, data, chain FROM record WHERE gateway = 'gw0' ORDER BY seq"
            verdict = verify_rows("gw0", journal.epoch, await database.read(lambda tx: tx.all(sql)))
            assert (verdict.bad_seq, verdict.records) == (None, 12)
            parts = await database.read(lambda tx: tx.all("SELECT DISTINCT tableoid::regclass::text FROM batch"))
            assert ("batch_20261118",) in parts  # a part for each day on which batches had come


async def test_a_move_that_is_broken_off_again_and_again_is_whole_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed after every few pieces."""
    need_postgres()
    monkeypatch.setattr(moving, "PIECE_ROWS", 7)
    await fill(tmp_path)
    before = await content(CONFIG, tmp_path)
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder) / "one", free_port())
        server.init()
        server.start()
        store, pieces, breaks = store_table(server.url()), 0, 0

        def told(_table: str, _done: int, _rows: int) -> None:
            nonlocal pieces, breaks
            pieces += 1
            if pieces % 6 == 0 and breaks < 3:
                breaks += 1
                server.stop(signal.SIGKILL)

        try:
            while True:
                try:
                    await move_store(CONFIG, tmp_path, store, "", told)
                    break
                except UnavailableError:
                    server.start()
            assert breaks == 3
            assert pieces < 60  # what was there is not copied again
            assert await content(CONFIG.model_copy(update={"store": store}), tmp_path) == before
        finally:
            server.stop()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("DELETE FROM batch WHERE gateway = 'gw1' AND n = 7", "batch holds 134 rows instead of 135"),
        ("UPDATE open_alarm SET data = 'x'::bytea WHERE alarm = 'a.b.c1.high'", "open_alarm holds other bytes"),
    ],
)
async def test_what_differs_is_found(server: PostgresServer, tmp_path: Path, damage: str, said: str) -> None:
    await fill(tmp_path)
    url = await fresh(server)

    async def spoil() -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(damage)
        await connection.close()

    spoiling: list[asyncio.Task[None]] = []

    def told(table: str, done: int, rows: int) -> None:
        if table == "snapshot" or (table == "record" and done == rows):
            spoiling.append(asyncio.create_task(spoil()))

    compare = moving._compare

    async def late(*arguments: Any) -> None:
        await asyncio.gather(*spoiling)
        await compare(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving, "_compare", late)
        with pytest.raises(PermanentError, match=said):
            await move_store(CONFIG, tmp_path, store_table(url), "", told)
    assert not list(tmp_path.glob("*.moved"))


async def test_a_database_that_is_in_use_is_left_alone(server: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    await fill(tmp_path / "one", gateways=1, batches=2)
    await fill(tmp_path / "two", gateways=1, batches=3)
    async with moved(tmp_path / "one", server) as config:
        assert config.store is not None
        with pytest.raises(PermanentError, match="have sent to this database already"):
            await move_store(CONFIG, tmp_path / "two", config.store, "", lambda *_: None)


async def test_a_service_that_runs_is_not_moved(server: PostgresServer, tmp_path: Path) -> None:
    await fill(tmp_path, gateways=1, batches=1)
    listening = await asyncio.start_unix_server(lambda *_: None, tmp_path / SOCKET)
    async with listening:
        with pytest.raises(PermanentError, match="runs"):
            await move_store(CONFIG, tmp_path, store_table(await fresh(server)), "", lambda *_: None)


async def test_the_service_does_not_start_on_what_was_moved(server: PostgresServer, tmp_path: Path) -> None:
    await fill(tmp_path, gateways=1, batches=1)
    async with moved(tmp_path, server) as config:
        assert config.store is not None
        with pytest.raises(ConfigError) as refused:
            await run_cloud(CONFIG, tmp_path)
        assert refused.value.problems == [f'store.url: cloud.db was moved: write [store] url = "{config.store.url}"']


def test_the_command(server: PostgresServer, tmp_path: Path) -> None:
    url = asyncio.run(fresh(server))
    asyncio.run(fill(tmp_path, gateways=1, batches=2))
    (tmp_path / "people.csv").write_text("id,name,name_en,roles,areas,phone\n", "utf-8")
    (tmp_path / "cloud.toml").write_text('[cloud]\nname = "x"\nname_en = "x"\n', "utf-8")
    (tmp_path / "password").write_text("nobody asks\n", "utf-8")
    options = ["--config", str(tmp_path / "cloud.toml"), "--data", str(tmp_path)]
    secret = ["--password-file", str(tmp_path / "password")]
    run = CliRunner(env={"LANG": "C.UTF-8"}).invoke(main, ["cloud", "move", *options, "--to", url, *secret])
    assert run.exit_code == 0, run.output
    assert f'Write [store] url = "{url}"' in run.output
    assert load_cloud_config(tmp_path / "cloud.toml").store is None  # that is for a person to do
    wrong = CliRunner(env={"LANG": "C.UTF-8"}).invoke(main, ["cloud", "move", *options, "--to", "mysql://x/y"])
    assert wrong.exit_code == 1
    assert "must be postgresql://" in wrong.output
