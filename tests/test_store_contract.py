"""What every engine under the cloud's store must do. The same tests on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.baseline_store import STEPS as BASELINE_STEPS
from sitewarden.cloud.baseline_store import BaselineStore
from sitewarden.cloud.blob_store import STEPS as BLOB_STEPS
from sitewarden.cloud.blob_store import BlobRecords, Limits
from sitewarden.cloud.charts import DAY_MS, Charts
from sitewarden.cloud.charts import STEPS as CHART_STEPS
from sitewarden.cloud.config import load_cloud_config
from sitewarden.cloud.engine import Database, SqliteDatabase, Step, Tx, UnavailableError
from sitewarden.cloud.engine_postgres import PostgresDatabase, numbered, translated
from sitewarden.cloud.parcels import open_parcel
from sitewarden.cloud.store import PARTITIONED, OutOfStepError, Parcel, Store, Taken
from sitewarden.cloud.store import STEPS as STORE_STEPS
from sitewarden.cloud.witness_store import STEPS as WITNESS_STEPS
from sitewarden.errors import ConfigError, PermanentError, RefusedError
from sitewarden.sync.columns import compress
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.outbox import JournalOutbox
from sitewarden.sync.streams import batch_chain
from sitewarden.tests.peers import killed_store
from sitewarden.tests.peers.ports import free_port
from sitewarden.tests.peers.postgres import PostgresServer
from sitewarden.tests.peers.stores import EPOCH, RECEIVED_MS, Stream, fresh, need_postgres
from sitewarden.words import now

STEPS = [*STORE_STEPS, *WITNESS_STEPS, *BASELINE_STEPS, *CHART_STEPS, *BLOB_STEPS]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    need_postgres()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        made = PostgresServer(Path(folder) / "one", free_port())
        made.init()
        made.start("-c", "fsync=off", "-c", "full_page_writes=off")  # durability is the matter of other tests
        try:
            yield made
        finally:
            made.stop()


Open = Callable[[], Any]


@pytest.fixture(params=["sqlite", "postgres"])
async def opens(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens the same database each time."""
    if request.param == "sqlite":
        return lambda: SqliteDatabase(tmp_path / "cloud.db", STEPS)
    url = await fresh(request.getfixturevalue("server"))
    return lambda: PostgresDatabase(url, STEPS, partitioned=PARTITIONED)


@pytest.fixture
async def database(opens: Open) -> AsyncIterator[Database]:
    async with opens() as made:
        yield made


async def journal_parcels(folder: Path, records: int, gateway: str = "gw1") -> tuple[str, list[Parcel]]:
    """Real batches of a real journal, with an alarm that comes and goes in them."""
    async with Journal(folder / f"{gateway}.db", gateway) as journal:
        outbox = JournalOutbox(journal)
        await outbox.open()
        parcels: list[Parcel] = []
        for n in range(records):
            state = "UNACK" if n % 2 == 0 else "NORM"
            body = {"alarm": {"id": "store.th1.humidity.high", "state": state, "n": n}}
            await journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body=body)])
            if n % 7 == 6 or n == records - 1:
                batch = await outbox.batch(len(parcels) + 1)
                assert batch is not None
                parcels.append(
                    open_parcel(gateway, "journal", journal.epoch, batch.n, batch.chain, batch.body, RECEIVED_MS)
                )
                await outbox.acked(batch.n, batch.n)
        return journal.epoch, parcels


async def test_a_batch_is_kept_once_and_known_again(database: Database, tmp_path: Path):
    store = Store(database)
    epoch, parcels = await journal_parcels(tmp_path, 15)
    for parcel in parcels:
        taken = await store.take(parcel)
        assert (taken.new, taken.cursor.ack, taken.problem) == (True, parcel.n, "")
    again = await store.take(parcels[0])
    assert (again.new, again.cursor.ack) == (False, len(parcels))
    (cursor,) = (await store.cursors("gw1"))["journal"]
    assert (cursor.epoch, cursor.ack, cursor.chain) == (epoch, len(parcels), parcels[-1].chain)
    assert (await store.last_record("gw1"))[0] == 15
    events = await store.events("gw1", 100, None)
    assert [event.seq for event in events] == list(range(15, 0, -1))
    assert [event.seq for event in await store.events("gw1", 3, 10)] == [9, 8, 7]
    (alarm,) = await store.alarms("gw1")
    assert (alarm["state"], alarm["n"]) == ("UNACK", 14)
    assert events[0].to_bytes() == (await store.events("gw1", 1, None))[0].to_bytes()


async def test_a_gap_and_another_history_are_refused_and_change_nothing(database: Database):
    store, stream = Store(database), Stream()
    first = stream.next()
    await store.take(first)
    stream.next()
    with pytest.raises(OutOfStepError) as gap:
        await store.take(stream.next())
    assert (gap.value.reason, gap.value.ack) == ("gap", 1)
    other = Stream()
    with pytest.raises(OutOfStepError) as fork:
        await store.take(other.next(value=2.0))
    assert fork.value.reason == "fork"
    assert (await store.cursors("gw1"))["history"][0].ack == 1


async def test_poison_is_set_aside_and_acknowledged(database: Database):
    store, stream = Store(database), Stream()
    stream.n, stream.chain = 1, batch_chain(stream.chain, 1, b"poison")
    poison = open_parcel("gw1", "history", EPOCH, 1, stream.chain, compress(b"poison"), 5)
    assert (await store.take(poison)).problem
    assert not (await store.take(stream.next())).problem
    assert (await store.gateways())["gw1"]["quarantined"] == 1


async def test_contact_goes_forward_alone(database: Database):
    store = Store(database)
    for at_ms in (5, 9, 7):
        await store.contacted("gw1", at_ms)
    assert (await store.gateways())["gw1"]["contact_ms"] == 9


async def test_many_gateways_at_once_each_in_order(database: Database):
    store = Store(database)

    async def send(name: str) -> None:
        stream = Stream(name)
        for _ in range(12):
            assert (await store.take(stream.next())).new

    await asyncio.gather(*(send(f"gw{n}") for n in range(50)))
    for n in range(50):
        assert (await store.cursors(f"gw{n}"))["history"][0].ack == 12


async def test_a_job_that_fails_takes_nothing_with_it_and_leaves_nothing_behind(database: Database):
    store = Store(database)

    async def broken(tx: Tx) -> None:
        await tx.run("INSERT INTO gateway (gateway, contact_ms) VALUES (?, ?)", "ghost", 1)
        raise ValueError("on purpose")

    async def senseless(tx: Tx) -> None:
        await tx.run("SELECT nothing FROM nowhere")

    jobs = [store.contacted(f"gw{n}", n) for n in range(20)]
    results = await asyncio.gather(
        *jobs, database.write(broken), database.write(senseless), *[store.contacted("late", 7)], return_exceptions=True
    )
    failed = [result for result in results if isinstance(result, BaseException)]
    assert len(failed) == 2
    assert sorted(await store.gateways()) == sorted([*(f"gw{n}" for n in range(20)), "late"])


async def test_what_was_committed_is_there_after_opening_again(opens: Open):
    stream = Stream()
    async with opens() as database:
        for _ in range(5):
            await Store(database).take(stream.next())
    async with opens() as database:
        assert (await Store(database).cursors("gw1"))["history"][0].ack == 5
        assert (await Store(database).take(stream.next())).new


async def test_charts_and_baselines_work_on_every_engine(database: Database):
    store, stream, charts = Store(database), Stream(), Charts(database)
    for value in (1.0, 2.0, 6.0):
        await store.take(stream.next(value))
    while await charts.step():
        pass
    begin_ms = RECEIVED_MS - RECEIVED_MS % DAY_MS
    (bucket,) = await charts.buckets("gw1", "a.b.c", begin_ms, begin_ms + DAY_MS, 1)
    assert (bucket.count, bucket.low, bucket.mean, bucket.high) == (3, 1.0, 3.0, 6.0)
    baselines = BaselineStore(database)
    assert [(await baselines.advance("{}", text, 1)).revision for text in ("a", "a", "b")] == [1, 1, 2]
    await baselines.note_report("gw1", 5, {"revision": 2})
    assert (await baselines.reports())["gw1"] == (5, {"revision": 2})


async def test_the_store_is_a_list(opens: Open):
    """Batches sent in any order, again and again, with restarts: what is kept is the list of what was sent."""
    dice = random.Random(20_261_123)
    sent: dict[str, list[Parcel]] = {name: [] for name in ("gw1", "gw2", "gw3")}
    streams = {name: Stream(name) for name in sent}
    acked, refusals = dict.fromkeys(sent, 0), list[tuple[str, bool]]()
    for _ in range(4):
        async with opens() as database:
            store = Store(database)
            for _ in range(60):
                name = dice.choice(list(sent))
                if dice.random() < 0.6:
                    sent[name].append(streams[name].next(dice.random()))
                if not sent[name]:
                    continue
                parcel = dice.choice(sent[name][-3:])
                try:
                    taken = await store.take(parcel)
                except OutOfStepError as error:
                    refusals.append((error.reason, parcel.n > acked[name] + 1))
                    continue
                assert taken.new == (parcel.n == acked[name] + 1)
                acked[name] = max(acked[name], parcel.n)
    assert set(refusals) == {("gap", True)}
    async with opens() as database:
        for name, n in acked.items():
            known = (await Store(database).cursors(name))["history"]
            assert (known[0].ack if known else 0) == n
            sql = "SELECT n, chain FROM batch WHERE gateway = ? ORDER BY n"
            rows = await database.read(lambda tx, sql=sql, name=name: tx.all(sql, name))
            assert rows == [(parcel.n, parcel.chain) for parcel in sent[name][:n]]


@pytest.fixture
async def where(request: pytest.FixtureRequest, opens: Open, tmp_path: Path) -> str:
    """What `opens` opens, for another process."""
    made = opens()
    return made.url if isinstance(made, PostgresDatabase) else str(tmp_path / "cloud.db")


async def test_a_process_that_is_killed_loses_nothing_that_it_acknowledged(opens: Open, where: str):
    """kill -9 at any moment of twelve lives: what was said is kept, nothing twice, nothing between."""
    dice, said = random.Random(7), dict.fromkeys((f"gw{n}" for n in range(6)), 0)
    for _ in range(12):
        process = await asyncio.create_subprocess_exec(
            sys.executable, killed_store.__file__, where, str(len(said)), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        lines, wanted = 0, dice.randrange(20, 200)
        while lines < wanted:
            line = (await asyncio.wait_for(process.stdout.readline(), 60)).decode()
            name, _, n = line.partition(" ")
            assert line.endswith("\n"), "the process ended by itself"
            said[name] = max(said[name], int(n))
            lines += 1
        await asyncio.sleep(dice.random() * 0.02)
        process.kill()
        rest = (await process.stdout.read()).decode()
        for line in rest.splitlines(keepends=True):
            if line.endswith("\n"):
                name, _, n = line.partition(" ")
                said[name] = max(said[name], int(n))
        await process.wait()
    async with opens() as database:
        for name, n in said.items():
            (cursor,) = (await Store(database).cursors(name))["history"]
            sql = "SELECT n FROM batch WHERE gateway = ? ORDER BY n"
            kept = [row[0] for row in await database.read(lambda tx, sql=sql, name=name: tx.all(sql, name))]
            assert kept == list(range(1, cursor.ack + 1))
            assert cursor.ack >= n > 0


async def test_jobs_of_one_key_come_one_after_the_other(database: Database):
    """Each sees what the one before it did, however many are committed together, and beside jobs of other keys."""

    async def add(tx: Tx, name: str) -> int:
        row = await tx.one("SELECT contact_ms FROM gateway WHERE gateway = ?", name)
        value = (row[0] if row else 0) + 1
        upsert = "INSERT INTO gateway (gateway, contact_ms) VALUES (?, ?)"
        await tx.many(f"{upsert} ON CONFLICT (gateway) DO UPDATE SET contact_ms = excluded.contact_ms", [(name, value)])
        return value

    names = [f"gw{n % 5}" for n in range(200)]
    found = await asyncio.gather(*(database.write(lambda tx, name=name: add(tx, name), key=name) for name in names))
    assert found == [n // 5 + 1 for n in range(200)]


async def test_a_job_that_fails_late_is_undone_alone(database: Database):
    """After it has changed something, amid others of its group that are kept."""
    store, stream = Store(database), Stream()

    async def late(tx: Tx) -> None:
        await tx.many("INSERT INTO gateway (gateway, contact_ms) VALUES (?, ?)", [("ghost", 1), ("other", 2)])
        await tx.run("UPDATE gateway SET contact_ms = 9 WHERE gateway = ?", "gw1")
        raise OutOfStepError("gap", "on purpose", 0, hint="")

    async def twice(tx: Tx) -> None:
        await tx.many("INSERT INTO gateway (gateway, contact_ms) VALUES (?, ?)", [("double", 1), ("double", 2)])

    for wrong, name in ((late, "gw2"), (twice, "gw3")):
        jobs = [store.take(stream.next()), database.write(wrong, key="x"), store.contacted(name, 5)]
        kept, failure, contact = await asyncio.gather(*jobs, return_exceptions=True)
        assert (isinstance(kept, Taken), contact) == (True, None)
        assert isinstance(failure, Exception)
        assert isinstance(failure, OutOfStepError) == (wrong is late)
        assert not isinstance(failure, UnavailableError)
    known = await store.gateways()
    assert {name: row["contact_ms"] for name, row in known.items()} == {"gw1": RECEIVED_MS, "gw2": 5, "gw3": 5}


async def test_what_is_locked_is_known_by_its_key(database: Database):
    """Rows that many jobs lock at the same time reach those that asked for them, and None those without one."""
    store = Store(database)
    await asyncio.gather(*(store.contacted(f"gw{n}", n) for n in range(0, 40, 2)))

    async def look(tx: Tx, name: str) -> Any:
        row = await tx.locked("gateway", "contact_ms", gateway=name)
        return row and row[:1]

    found = await asyncio.gather(
        *(database.write(lambda tx, n=n: look(tx, f"gw{n}"), key=f"k{n % 7}") for n in reversed(range(40)))
    )
    assert found == [(n,) if n % 2 == 0 else None for n in reversed(range(40))]


# --- a model -------------------------------------------------------------------------------------------------------

OPERATIONS = st.lists(
    st.sampled_from(["next", "next", "poison", "repeat", "old", "gap", "fork", "old fork", "open"]), max_size=25
)
_runs = itertools.count()


class Model:
    """What the store must be for one gateway: a list."""

    def __init__(self, gateway: str) -> None:
        self.gateway = gateway
        self.stream = Stream(gateway)
        self.kept: list[Parcel] = []
        self.poisoned = 0

    def other(self, n: int) -> Parcel:
        """A batch of another history."""
        chain, body = os.urandom(32), compress(b"another")
        return open_parcel(self.gateway, "history", EPOCH, n, chain, body, RECEIVED_MS)

    def poison(self) -> Parcel:
        """A batch that fits, and whose content is none."""
        stream = self.stream
        stream.n += 1
        stream.chain = batch_chain(stream.chain, stream.n, b"poison")
        return open_parcel(self.gateway, "history", EPOCH, stream.n, stream.chain, compress(b"poison"), RECEIVED_MS)

    async def apply(self, store: Store, operation: str) -> None:
        ack = len(self.kept)
        if operation in ("next", "poison"):
            parcel = self.stream.next() if operation == "next" else self.poison()
            taken = await store.take(parcel)
            assert (taken.new, taken.cursor.ack, bool(taken.problem)) == (True, ack + 1, operation == "poison")
            self.kept.append(parcel)
            self.poisoned += operation == "poison"
        elif operation in ("repeat", "old") and self.kept:
            taken = await store.take(self.kept[-1] if operation == "repeat" else self.kept[0])
            assert (taken.new, taken.cursor.ack, taken.cursor.chain) == (False, ack, self.kept[-1].chain)
        elif operation in ("gap", "fork", "old fork"):
            n = {"gap": ack + 2, "fork": ack + 1, "old fork": max(1, ack)}[operation]
            with pytest.raises(OutOfStepError) as refused:
                await store.take(self.other(n))
            assert (refused.value.reason, refused.value.ack) == ("gap" if operation == "gap" else "fork", ack)

    async def check(self, store: Store) -> None:
        sql = "SELECT n, chain FROM batch WHERE gateway = ? ORDER BY n"
        rows = await store.database.read(lambda tx: tx.all(sql, self.gateway))
        assert rows == [(n, parcel.chain) for n, parcel in enumerate(self.kept, 1)]
        known = (await store.cursors(self.gateway))["history"]
        assert [(c.ack, c.durable, c.chain) for c in known] == [
            (len(self.kept), len(self.kept), self.kept[-1].chain) for _ in known
        ]
        row = (await store.gateways()).get(self.gateway, {"quarantined": 0})
        assert (len(known), row["quarantined"]) == (bool(self.kept), self.poisoned)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=OPERATIONS)
def test_the_store_is_what_a_list_would_be(opens: Open, operations: list[str]):
    async def run() -> None:
        model = Model(f"model{next(_runs)}")
        async with contextlib.AsyncExitStack() as stack:
            store = Store(await stack.enter_async_context(opens()))
            for operation in operations:
                if operation == "open":
                    await stack.aclose()
                    store = Store(await stack.enter_async_context(opens()))
                await model.apply(store, operation)
            await model.check(store)

    asyncio.new_event_loop().run_until_complete(run())


# --- PostgreSQL alone ----------------------------------------------------------------------------------------------


def test_statements_are_translated():
    assert numbered("SELECT a FROM b WHERE c = ? AND d > ?") == "SELECT a FROM b WHERE c = $1 AND d > $2"
    assert translated("CREATE TABLE a (b INTEGER, c BLOB, PRIMARY KEY (b)) WITHOUT ROWID") == (
        "CREATE TABLE a (b BIGINT, c BYTEA, PRIMARY KEY (b))"
    )


async def test_several_processes_start_and_ingest_at_once(server: PostgresServer):
    """As behind a balancer: the same gateway's batches come in through any of them, some through two."""
    url = await fresh(server)
    async with contextlib.AsyncExitStack() as stack:
        opened = await asyncio.gather(
            *(stack.enter_async_context(PostgresDatabase(url, STEPS, partitioned=PARTITIONED)) for _ in range(4))
        )
        stores = [Store(database) for database in opened]

        async def send(name: str) -> int:
            stream, new = Stream(name), 0
            for _ in range(8):
                parcel = stream.next()
                tries = [replace(parcel, received_ms=RECEIVED_MS + 1000 * i) for i in range(3)]
                chosen = random.sample(stores, 3)
                taken = await asyncio.gather(*(store.take(one) for store, one in zip(chosen, tries, strict=True)))
                new += sum(one.new for one in taken)
            return new

        assert await asyncio.gather(*(send(f"gw{n}") for n in range(12))) == [8] * 12
        rows = await opened[0].read(lambda tx: tx.all("SELECT gateway, count(*) FROM batch GROUP BY gateway"))
        assert {row[1] for row in rows} == {8}


async def test_two_that_wait_for_each_other_are_both_done(server: PostgresServer):
    """The server ends one of two transactions that hold what the other needs; its jobs are done again, alone."""
    url = await fresh(server)
    async with PostgresDatabase(url, STEPS) as one, PostgresDatabase(url, STEPS) as other:

        def crossing(first: str, second: str) -> Callable[[Tx], Any]:
            async def job(tx: Tx) -> str:
                await tx.lock(first)
                await tx.all("SELECT pg_sleep(0.3)")
                await tx.lock(second)
                await tx.run("INSERT INTO gateway (gateway, contact_ms) VALUES (?, ?)", first, 1)
                return first

            return job

        assert await asyncio.gather(one.write(crossing("a", "b")), other.write(crossing("b", "a"))) == ["a", "b"]
        assert sorted(await Store(one).gateways()) == ["a", "b"]


async def test_batches_of_today_lie_in_the_part_of_today(server: PostgresServer):
    url = await fresh(server)
    async with PostgresDatabase(url, STEPS, partitioned=PARTITIONED) as database:
        stream = Stream()
        old = stream.next()
        payload_chain = stream.chain
        await Store(database).take(old)
        fresh_parcel = stream.next()
        await Store(database).take(replace(fresh_parcel, received_ms=int(time.time() * 1000)))
        sql = "SELECT tableoid::regclass::text, n FROM batch ORDER BY n"
        rows = await database.read(lambda tx: tx.all(sql))
        assert [row[0] for row in rows] == ["batch_rest", f"batch_{time.strftime('%Y%m%d', time.gmtime())}"]
        assert payload_chain == old.chain


async def test_a_server_that_is_away_is_waited_for_and_nothing_is_acknowledged_meanwhile(tmp_path: Path):
    need_postgres()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        server = PostgresServer(Path(folder) / "one", free_port())
        server.init()
        server.start()
        stream, acked = Stream(), 0
        try:
            async with PostgresDatabase(server.url(), STEPS, partitioned=PARTITIONED) as database:
                store = Store(database)
                for round_ in range(3):
                    for _ in range(10):
                        acked = (await store.take(stream.next())).cursor.ack
                    server.stop(signal.SIGKILL)
                    late = stream.next()
                    with pytest.raises(UnavailableError):
                        await store.take(late)
                    server.start()
                    async with asyncio.timeout(60):
                        while True:
                            with contextlib.suppress(UnavailableError):
                                assert (await store.take(late)).new
                                break
                            await asyncio.sleep(0.1)
                    acked += 1
                    assert (await store.cursors("gw1"))["history"][0].ack == acked == (round_ + 1) * 11
        finally:
            server.stop()


async def test_what_is_wrong_with_the_address_is_said(server: PostgresServer):
    for url, problem in (
        (f"postgresql://nobody_here@127.0.0.1:{server.port}/postgres", "nobody_here"),
        (server.url("no_such_database"), "no_such_database"),
        (f"postgresql://sitewarden@127.0.0.1:{free_port()}/postgres", "127.0.0.1"),
    ):
        with pytest.raises(PermanentError, match=problem):
            async with PostgresDatabase(url, STEPS):
                pass


async def test_a_step_that_fails_leaves_nothing(server: PostgresServer):
    url = await fresh(server)
    wrong = [Step("m900_good", ("CREATE TABLE good (a INTEGER)",)), Step("m901_bad", ("CREATE NONSENSE",))]
    with pytest.raises(PermanentError, match="the schema cannot be made"):
        async with PostgresDatabase(url, wrong):
            pass
    async with PostgresDatabase(url, wrong[:1]) as database:
        assert await database.read(lambda tx: tx.all("SELECT name FROM schema_step")) == [("m900_good",)]


async def test_the_service_runs_on_it(server: PostgresServer, tmp_path: Path):
    url = await fresh(server)
    (tmp_path / "people.csv").write_text("id,name,name_en,roles,areas,phone\n", "utf-8")
    (tmp_path / "cloud.toml").write_text(
        f'[cloud]\nname = "x"\nname_en = "x"\nport = 0\n[store]\nurl = "{url}"\n', "utf-8"
    )
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_cloud(load_cloud_config(tmp_path / "cloud.toml"), tmp_path, ready=up.set_result))
    try:
        port = await asyncio.wait_for(up, 60)
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{port}/api/v1/people") as answer:
            assert answer.status == 200
        assert not (tmp_path / "cloud.db").exists()
    finally:
        task.cancel()
        await asyncio.wait([task])


@pytest.mark.parametrize(
    ("store", "problem"),
    [
        ('url = "mysql://x/y"', "store.url: must be postgresql://user@host:port/database"),
        ('url = "postgresql://me:secret@x/y"', "store.url: must hold no password: write it into password_file"),
        ('url = "postgresql://me@x/y"\npassword_file = "gone"', "store.password_file: gone: cannot be read"),
    ],
)
def test_the_table_in_cloud_toml(tmp_path: Path, store: str, problem: str):
    (tmp_path / "people.csv").write_text("id,name,name_en,roles,areas,phone\n", "utf-8")
    (tmp_path / "cloud.toml").write_text(f'[cloud]\nname = "x"\nname_en = "x"\n[store]\n{store}\n', "utf-8")
    with pytest.raises(ConfigError) as caught:
        load_cloud_config(tmp_path / "cloud.toml")
    assert any(line.startswith(problem) for line in caught.value.problems), caught.value.problems
    assert "secret" not in str(caught.value)


# --- blobs -------------------------------------------------------------------------------------------------------


async def test_unfinished_blobs_advance_rewind_and_get_numbers(database: Database) -> None:
    records, limits = BlobRecords(database), Limits(size=10_000, quota=50_000)
    assert await records.stored("gw1", "a") is None
    assert await records.standing("gw1") == (0, [])
    assert (await records.begin("gw1", "a", 1000, limits, 1)).have == 0
    assert await records.advance("gw1", "a", 0, 600, 2)
    assert not await records.advance("gw1", "a", 0, 700, 2), "another request was faster"
    assert (await records.begin("gw1", "a", 1000, limits, 3)).have == 600
    await records.remember("gw1", "a", "upload", {2: "y", 1: "x"})
    part = await records.part("gw1", "a")
    assert part is not None
    assert (part.upload, part.parts) == ("upload", {1: "x", 2: "y"})
    await records.rewind("gw1", "a", 200)
    part = await records.part("gw1", "a")
    assert part is not None
    assert (part.have, part.upload, part.parts) == (200, "", {})
    assert (await records.begin("gw1", "a", 900, limits, 3)).have == 0, "another length begins anew"
    assert [(await records.finish("gw1", name, 900, 4)).n for name in ("a", "b", "a")] == [1, 2, 3]
    assert (await records.finish("gw2", "a", 900, 4)).n == 1
    assert await records.part("gw1", "a") is None
    assert sorted(await records.want("a")) == ["gw1", "gw2"]
    assert await records.want("a") == []
    assert await records.standing("gw1") == (3, ["a"])
    await records.finish("gw1", "a", 900, 5)
    assert await records.standing("gw1") == (4, [])


async def test_a_gateway_has_a_quota_and_a_number_of_unfinished_blobs(database: Database) -> None:
    records, limits = BlobRecords(database), Limits(size=1000, quota=2500, parts=2)

    async def refused(name: str, size: int) -> str:
        with pytest.raises(RefusedError) as error:
            await records.begin("gw1", name, size, limits, 0)
        return error.value.reason

    assert await refused("z", 1001) == "too_large"
    for name in ("a", "b"):
        await records.begin("gw1", name, 1000, limits, 0)
    assert await refused("c", 100) == "too_many_uploads"
    await records.finish("gw1", "a", 1000, 0)
    assert await refused("c", 501) == "quota"
    await records.begin("gw1", "c", 500, limits, 0)
    await records.begin("gw2", "c", 1000, limits, 0)
    await records.advance("gw1", "c", 0, 100, 5)
    assert sorted(await records.stale(5)) == [("gw1", "b"), ("gw2", "c")]
    await records.forget("gw1", "b")
    assert await records.stale(5) == [("gw2", "c")]
