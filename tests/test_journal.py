"""The journal: what was reported is there, in order, once; and whoever touches it is found out."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge.alarms.table import TABLE as ALARMS
from sitewarden.errors import ConfigError, PermanentError
from sitewarden.sync.journal import Draft, Journal, Record, StateTable, canonical, rebuild, verify_file
from sitewarden.sync.sqlite import StoreError
from sitewarden.words import ClockState, Instant

AT = Instant(utc_ms=1_795_000_000_004, mono_s=12.3456, boot="boot-1", clock=ClockState.SYNCED)


def draft(n: int | str, kind: str = "test.noted", **body: Any) -> Draft:
    return Draft(kind=kind, at=AT, actor="gateway", body={"n": n, **body})


def alarm_draft(alarm: str, state: str = "UNACK", occurrence: int = 1) -> Draft:
    body = {"alarm": {"id": alarm, "state": state, "occurrence": occurrence, "name": "湿度"}}
    return Draft(kind="alarm.raised", at=AT, actor="gateway", body=body)


def count(connection: sqlite3.Connection, record: Record) -> None:
    if record.body["n"] == "refused":
        connection.execute("INSERT INTO counted VALUES (-1, 'gone again')")
        raise ValueError("this record cannot be applied")
    connection.execute("INSERT INTO counted VALUES (?, ?)", (record.seq, json.dumps(record.body)))


COUNTED = StateTable(
    name="counted",
    version=1,
    schema="CREATE TABLE counted (seq INTEGER PRIMARY KEY, body TEXT)",
    tables=("counted",),
    kinds=("test.",),
    apply=count,
)


def sql(path: Path, *statements: str) -> list[tuple[Any, ...]]:
    """Run statements beside the journal, as somebody with the file could; rows of the last one."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        return [connection.execute(statement).fetchall() for statement in statements][-1]
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def filled(path: Path, records: int, tables: tuple[StateTable, ...] = ()) -> None:
    async with Journal(path, "gw1", tables) as journal:
        await journal.append([draft(n) for n in range(1, records + 1)])


class Held:
    """`async with Held(journal):` the writer is busy, so what is appended meanwhile becomes one group."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._go = threading.Event()
        self._started = threading.Event()

    async def __aenter__(self) -> None:
        def job(_: sqlite3.Connection) -> None:
            self._started.set()
            assert self._go.wait(30)

        self._task = asyncio.create_task(self._journal.write(job), name="held")
        assert await asyncio.to_thread(self._started.wait, 30)

    async def __aexit__(self, *_: object) -> None:
        await asyncio.sleep(0)  # tasks that were made meanwhile run up to their append
        self._go.set()
        await self._task


# --- what a record is ------------------------------------------------------------------------------------------


def test_the_canonical_form_is_fixed():
    record = Record(
        seq=7,
        epoch="e1",
        kind="alarm.raised",
        at=AT.to_json(),
        actor="p_li",
        body={"value": 78.2, "name": "湿度", "a": None},
        blobs=("ab" * 32,),
        chain=b"",
    )
    assert (
        record.to_bytes()
        == (
            '{"actor":"p_li","at":{"boot":"boot-1","clock":"synced","mono":12.346,"utc":"2026-11-18T11:06:40.004Z"},'
            '"blobs":["' + "ab" * 32 + '"],"body":{"a":null,"name":"湿度","value":78.2},'
            '"epoch":"e1","kind":"alarm.raised","seq":7}'
        ).encode()
    )
    assert Record.from_bytes(record.to_bytes(), b"") == record


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_does_not_know_are_refused(value: float):
    with pytest.raises(ValueError, match="JSON"):
        canonical({"value": value})


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"{}", b'{"seq":1}', b"\xff\xfe", b'{"seq":"x"}'])
def test_what_is_not_a_record_is_refused(data: bytes):
    with pytest.raises((ValueError, KeyError)):
        Record.from_bytes(data, b"")


# --- appending -------------------------------------------------------------------------------------------------


async def test_numbers_are_gapless_and_the_chain_is_the_documented_one(path: Path):
    async with Journal(path, "gw1") as journal:
        first = await journal.append([draft(1), draft(2)])
        second = await journal.append([draft(3)])
        assert [record.seq for record in first + second] == [1, 2, 3]
        assert await journal.read(0, 10) == first + second
        assert await journal.read(1, 1) == [first[1]]
        assert journal.head() == (3, second[0].chain)

        chain = hashlib.sha256(b"sitewarden journal v1\0gw1\0" + journal.epoch.encode()).digest()
        for seq, data, stored in await journal.raw(0, 10):
            chain = hashlib.sha256(chain + data).digest()
            assert stored == chain, seq
            assert json.loads(data)["seq"] == seq


async def test_it_goes_on_where_it_was(path: Path):
    async with Journal(path, "gw1") as journal:
        await journal.append([draft(1)])
        before = journal.epoch, journal.head()
    async with Journal(path, "gw1") as journal:
        assert (journal.epoch, journal.head()) == before
        assert (await journal.append([draft(2)]))[0].seq == 2
    assert verify_file(path).records == 2


async def test_every_file_has_its_own_epoch(tmp_path: Path):
    epochs = set()
    for name in ("a.db", "b.db"):
        async with Journal(tmp_path / name, "gw1") as journal:
            epochs.add(journal.epoch)
    assert len(epochs) == 2


async def test_nothing_appended_is_nothing(path: Path):
    async with Journal(path, "gw1") as journal:
        announced: list[Any] = []
        journal.subscribe(announced.append)
        assert await journal.append([]) == []
        await journal.append([draft(1)])
        assert [[record.seq for record in group] for group in announced] == [[1]]


async def test_another_gateways_journal_is_refused(path: Path):
    await filled(path, 2)
    with pytest.raises(ConfigError, match=r"gateway\.id: must be 'gw1'.*got 'gw2'"):
        async with Journal(path, "gw2"):
            pass
    async with Journal(path, "gw1") as journal:
        assert journal.head()[0] == 2


async def test_after_the_end_everything_is_in_the_one_file(path: Path):
    async with Journal(path, "gw1") as journal:
        await journal.append([draft(1)])
        await journal.read(0, 1)
    assert [file.name for file in path.parent.iterdir()] == ["journal.db"]  # no -wal that a copy would forget


async def test_a_job_that_raises_is_alone(path: Path):
    """In one group: a body that is not JSON, an infinite number, a state table that refuses; and good ones."""
    drafts = [[draft(1)], [draft(2), draft(3, when={1, 2})], [draft(4), draft("refused")], [draft(5, x=math.inf)]]
    drafts.append([draft(6), draft(7)])
    async with Journal(path, "gw1", (COUNTED,)) as journal:
        async with Held(journal):
            tasks = [asyncio.create_task(journal.append(some), name=f"append-{i}") for i, some in enumerate(drafts)]
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in done] == [list, TypeError, ValueError, ValueError, list]
        assert [record.body["n"] for record in await journal.read(0, 99)] == [1, 6, 7]
        assert [record.seq for record in await journal.read(0, 99)] == [1, 2, 3]
        assert isinstance(done[4], list)
        assert [record.seq for record in done[4]] == [2, 3]
        rows = await journal.query(lambda connection: connection.execute("SELECT seq FROM counted").fetchall())
        assert rows == [(1,), (2,), (3,)]
    assert verify_file(path).bad_seq is None


async def test_a_store_that_fails_surfaces_and_nothing_is_announced(path: Path):
    async with Journal(path, "gw1", (COUNTED,)) as journal:
        announced: list[Any] = []
        journal.subscribe(announced.append)
        await journal.append([draft(1)])
        await journal.write(lambda connection: connection.execute("PRAGMA max_page_count = 30").fetchall())
        async with Held(journal):
            wide = asyncio.create_task(journal.append([draft(2, x="x" * 500_000)]), name="wide")
            small = asyncio.create_task(journal.append([draft(3)]), name="small")
        for task in (wide, small):
            with pytest.raises(StoreError, match="full"):
                await task
        with pytest.raises(StoreError):
            await journal.append([draft(4)])
        assert journal.head()[0] == 1
        assert [record.body["n"] for record in await journal.read(0, 99)] == [1]
        assert [record.body["n"] for group in announced for record in group] == [1]
    assert verify_file(path).records == 1


async def test_cancelling_the_caller_does_not_withdraw_the_append(path: Path, eventually):
    async with Journal(path, "gw1") as journal:
        announced: list[Any] = []
        journal.subscribe(announced.extend)
        async with Held(journal):
            task = asyncio.create_task(journal.append([draft(1)]), name="append")
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        await eventually(lambda: journal.head()[0] == 1, "the record is committed")
        assert [record.body["n"] for record in announced] == [1]


# --- announcing ------------------------------------------------------------------------------------------------


async def test_announced_after_the_commit_in_its_order(path: Path):
    async with Journal(path, "gw1") as journal:
        announced: list[int] = []
        seen_by_another: list[int] = []

        def hear(records: list[Record]) -> None:
            announced.extend(record.seq for record in records)
            seen_by_another.append(sql(path, "SELECT max(seq) FROM record")[0][0])
            assert seen_by_another[-1] >= records[-1].seq

        journal.subscribe(hear)
        chooser = random.Random(5)

        async def some(worker: int) -> None:
            for n in range(20):
                records = await journal.append([draft(f"{worker}-{n}-{i}") for i in range(chooser.randint(1, 3))])
                assert records[-1].seq in announced  # heard before the caller goes on
                assert journal.head()[0] >= records[-1].seq

        async with asyncio.TaskGroup() as group:
            for worker in range(8):
                group.create_task(some(worker), name=f"worker-{worker}")
        assert announced == list(range(1, journal.head()[0] + 1))
        assert len(announced) >= 160


async def test_a_subscriber_that_fails_does_not_silence_the_others(path: Path, caplog):
    def bad(_: list[Record]) -> None:
        raise RuntimeError("page trouble")

    async with Journal(path, "gw1") as journal:
        heard: list[Record] = []
        journal.subscribe(bad)
        journal.subscribe(heard.extend)
        await journal.append([draft(1)])
        assert [record.seq for record in heard] == [1]
        assert "page trouble" in caplog.text


async def test_what_was_committed_does_not_change_with_the_draft(path: Path):
    body: dict[str, Any] = {"n": 1, "list": [1]}
    async with Journal(path, "gw1") as journal:
        records = await journal.append([Draft(kind="test.noted", at=AT, actor="gateway", body=body)])
        body["list"].append(2)
        assert records[0].body == {"n": 1, "list": [1]}
        assert await journal.read(0, 1) == records


# --- state tables ----------------------------------------------------------------------------------------------


def rows_of(connection: sqlite3.Connection, tables: tuple[StateTable, ...]) -> dict[str, list[Any]]:
    names = [name for table in tables for name in table.tables]
    return {name: connection.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in names}


async def some_history(journal: Journal) -> None:
    chooser = random.Random(11)
    for n in range(60):
        drafts = [draft(n)] if chooser.random() < 0.5 else []
        for _ in range(chooser.randint(0, 3)):
            state = chooser.choice(["UNACK", "ACKED", "NORM"])
            drafts.append(alarm_draft(f"a.b.c{chooser.randint(1, 6)}.high", state, chooser.randint(1, 9)))
        await journal.append(drafts)


async def test_rebuilt_tables_equal_the_live_ones(path: Path):
    tables = (ALARMS, COUNTED)
    async with Journal(path, "gw1", tables) as journal:
        await some_history(journal)
        live = await journal.query(lambda connection: rows_of(connection, tables))
        assert len(live["alarm_state"]) == 6
        assert len(live["counted"]) > 20

        def again(connection: sqlite3.Connection) -> dict[str, list[Any]]:
            for table in tables:
                rebuild(connection, table)
            return rows_of(connection, tables)

        assert await journal.write(again) == live


async def test_a_new_version_or_a_new_table_is_built_from_the_records(path: Path):
    async with Journal(path, "gw1", (ALARMS,)) as journal:
        await some_history(journal)
        live = await journal.query(lambda connection: rows_of(connection, (ALARMS,)))
    sql(path, "DELETE FROM alarm_state WHERE id < 'a.b.c3'")
    async with Journal(path, "gw1", (ALARMS,)) as journal:  # same version: nobody looks
        assert await journal.query(lambda connection: rows_of(connection, (ALARMS,))) != live

    newer = StateTable(
        name="alarm", version=2, schema=ALARMS.schema, tables=ALARMS.tables, kinds=ALARMS.kinds, apply=ALARMS.apply
    )
    async with Journal(path, "gw1", (newer, COUNTED)) as journal:
        assert await journal.query(lambda connection: rows_of(connection, (ALARMS,))) == live
        counted = await journal.query(lambda connection: rows_of(connection, (COUNTED,))["counted"])
        wanted = [record.seq for record in await journal.read(0, 999) if record.kind.startswith("test.")]
        assert [seq for seq, _ in counted] == wanted


# --- tampering -------------------------------------------------------------------------------------------------

RECORDS = 8
CHANGED = "CAST(replace(CAST(data AS TEXT), '\"n\":4', '\"n\":44') AS BLOB)"
TAMPERS: dict[str, tuple[tuple[str, ...], int]] = {
    "alter a body": ((f"UPDATE record SET data = {CHANGED} WHERE seq = 4",), 4),
    "alter a body, stored as text": (
        ("UPDATE record SET data = replace(CAST(data AS TEXT), 'noted', 'dated') WHERE seq = 4",),
        4,
    ),
    "the same body as text": (("UPDATE record SET data = CAST(data AS TEXT) WHERE seq = 4",), 4),
    "a number for a body": (("UPDATE record SET data = 4 WHERE seq = 4",), 4),
    "cut a body": (("UPDATE record SET data = substr(data, 1, 20) WHERE seq = 4",), 4),
    "alter the first": (("UPDATE record SET data = x'7b7d' WHERE seq = 1",), 1),
    "alter the last": (("UPDATE record SET data = x'7b7d' WHERE seq = 8",), 8),
    "alter a chain value": (("UPDATE record SET chain = zeroblob(32) WHERE seq = 5",), 5),
    "a chain value as text": (("UPDATE record SET chain = hex(chain) WHERE seq = 5",), 5),
    "alter a kind": (("UPDATE record SET kind = 'alarm.closed' WHERE seq = 6",), 6),
    "remove one": (("DELETE FROM record WHERE seq = 3",), 3),
    "remove the first": (("DELETE FROM record WHERE seq = 1",), 1),
    "remove one and close the gap": (
        (
            "DELETE FROM record WHERE seq = 3",
            *(f"UPDATE record SET seq = {n - 1} WHERE seq = {n}" for n in range(4, 9)),
        ),
        3,
    ),
    "insert a copy at the end": (("INSERT INTO record SELECT 9, kind, data, chain FROM record WHERE seq = 8",), 9),
    "insert one between": (
        (
            *(f"UPDATE record SET seq = {n + 1} WHERE seq = {n}" for n in range(8, 4, -1)),
            "INSERT INTO record SELECT 5, kind, data, chain FROM record WHERE seq = 2",
        ),
        5,
    ),
    "insert before the first": (("INSERT INTO record SELECT 0, kind, data, chain FROM record WHERE seq = 1",), 1),
    "swap two": (
        (
            "UPDATE record SET seq = 99 WHERE seq = 3",
            "UPDATE record SET seq = 3 WHERE seq = 6",
            "UPDATE record SET seq = 6 WHERE seq = 99",
        ),
        3,
    ),
    "another epoch": (("UPDATE meta SET value = 'ffff' WHERE key = 'epoch'",), 1),
    "another gateway": (("UPDATE meta SET value = 'gw9' WHERE key = 'gateway'",), 1),
}


@pytest.mark.parametrize("name", TAMPERS)
async def test_a_touched_journal_names_the_first_record(path: Path, name: str):
    await filled(path, RECORDS)
    assert verify_file(path).bad_seq is None
    statements, bad_seq = TAMPERS[name]
    sql(path, *statements)
    verdict = verify_file(path)
    assert verdict.bad_seq == bad_seq, verdict
    assert f"record {bad_seq}" in verdict.problem
    assert verdict.records == bad_seq - 1


async def test_a_record_whose_chain_was_computed_again_is_found_at_the_next(path: Path):
    await filled(path, RECORDS)
    ((previous,),) = sql(path, "SELECT chain FROM record WHERE seq = 3")
    ((data,),) = sql(path, f"SELECT {CHANGED} FROM record WHERE seq = 4")
    chain = hashlib.sha256(previous + data).hexdigest()
    sql(path, f"UPDATE record SET data = x'{data.hex()}', chain = x'{chain}' WHERE seq = 4")
    assert verify_file(path).bad_seq == 5


BATCH = "CREATE TABLE batch (stream TEXT, n INTEGER, first INTEGER, last INTEGER, chain BLOB)"
TRACES: dict[str, tuple[str, ...]] = {
    "alarm_state": ("CREATE TABLE alarm_state (id TEXT, seq INTEGER)", "INSERT INTO alarm_state VALUES ('a', 8)"),
    "outbox": ("CREATE TABLE outbox (key TEXT, seq INTEGER)", "INSERT INTO outbox VALUES ('k', 3), ('l', 8)"),
    "mqtt_cursor": ("CREATE TABLE mqtt_cursor (id INTEGER, seq INTEGER)", "INSERT INTO mqtt_cursor VALUES (1, 8)"),
    "batch": (BATCH, "INSERT INTO batch VALUES ('journal', 1, 1, 8, x'')"),
}


@pytest.mark.parametrize("left", [6, 0])
@pytest.mark.parametrize("table", TRACES)
async def test_a_removed_end_shows_where_another_table_knows_it(path: Path, table: str, left: int):
    await filled(path, RECORDS)
    sql(path, *TRACES[table])
    assert verify_file(path).bad_seq is None, "every trace is of a record that is there"
    sql(path, f"DELETE FROM record WHERE seq > {left}")
    verdict = verify_file(path)
    assert (verdict.bad_seq, verdict.records) == (left + 1, left)
    assert verdict.problem == f"record 8 is missing: the journal ends at {left}, but table {table} knows record 8"


async def test_the_end_of_a_real_journal_that_was_removed(path: Path):
    async with Journal(path, "gw1", (ALARMS,)) as journal:
        await journal.append([draft(1), alarm_draft("a.b.c.high"), draft(3), alarm_draft("a.b.d.high")])
    sql(path, "DELETE FROM record WHERE seq > 3")
    assert "journal ends at 3, but table alarm_state knows record 4" in verify_file(path).problem


async def test_what_is_no_trace_of_a_record_is_none(path: Path):
    """Numbers of history's batches; text in a table of strangers; names that need quotes."""
    await filled(path, RECORDS)
    sql(path, BATCH, "INSERT INTO batch VALUES ('history', 1, 1, 900, x''), ('journal', 1, 1, 8, x'')")
    sql(path, 'CREATE TABLE "own "" notes" (last TEXT)', 'INSERT INTO "own "" notes" VALUES (\'Monday\')')
    assert (verify_file(path).bad_seq, verify_file(path).records) == (None, RECORDS)


async def test_an_end_removed_with_every_trace_shows_only_elsewhere(path: Path):
    await filled(path, RECORDS)
    sql(path, "DELETE FROM record WHERE seq > 6")
    assert (verify_file(path).bad_seq, verify_file(path).records) == (None, 6)


async def test_verify_beside_the_running_daemon(path: Path):
    async with Journal(path, "gw1") as journal:
        await journal.append([draft(n) for n in range(2500)])
        told: list[int] = []
        verdict = await asyncio.to_thread(verify_file, path, told.append)
        assert (verdict.records, verdict.bad_seq, verdict.epoch) == (2500, None, journal.epoch)
        assert told == [1000, 2000]


def test_what_is_not_a_journal_is_said(tmp_path: Path):
    other = tmp_path / "other.db"
    sql(other, "CREATE TABLE meta (key TEXT, value TEXT)")
    text = tmp_path / "notes.txt"
    text.write_text("not a database at all" * 100)
    for path in (other, text, tmp_path / "missing.db"):
        with pytest.raises(PermanentError, match="not a journal"):
            verify_file(path)


# --- kill -9 ---------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, os, sys
from pathlib import Path
from sitewarden.edge.alarms.table import TABLE
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import now

def draft(name):
    alarm = {"id": name, "state": "UNACK", "occurrence": 1}
    return Draft(kind="alarm.raised", at=now(), actor="gateway", body={"alarm": alarm, "filler": "x" * 300})

async def main(path, run):
    async with Journal(Path(path), "gw1", (TABLE,)) as journal:
        async def worker(w):
            n = 0
            while True:
                n += 1
                name = f"{run}-{w}-{n}"
                records = await journal.append([draft(name + "-a"), draft(name + "-b")])
                os.write(1, f"{name} {records[0].seq} {records[1].seq}\\n".encode())
        await asyncio.gather(*(worker(w) for w in range(4)))

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""
KILLS = 10


def run_and_kill(path: Path, run: int, reports: int, wait_s: float) -> list[list[str]]:
    """What the child reported before it was killed: after `reports` lines and `wait_s` more."""
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path), str(run)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    lines = [child.stdout.readline() for _ in range(reports)]
    time.sleep(wait_s)  # the random point of the cut, not a wait for anything
    child.kill()
    lines += child.stdout.readlines()
    errors = child.stderr.read()
    child.stdout.close()
    child.stderr.close()
    assert child.wait() == -9, errors
    assert lines[0], errors
    return [line.decode().split() for line in lines if line.endswith(b"\n")]


@pytest.mark.timeout(120)
def test_killed_at_random_points_nothing_reported_is_lost_and_nothing_is_there_twice(path: Path):
    chooser = random.Random(20_261_122)
    reported: dict[str, tuple[int, int]] = {}
    for run in range(KILLS):
        for name, first, second in run_and_kill(path, run, chooser.randint(1, 60), chooser.uniform(0, 0.01)):
            reported[name] = (int(first), int(second))

        verdict = verify_file(path)
        assert verdict.bad_seq is None, verdict
        stored = {alarm: seq for seq, alarm in records_of(path)}
        assert len(stored) == verdict.records, "an append is there twice"
        for name, (first, second) in reported.items():
            assert (stored.get(f"{name}-a"), stored.get(f"{name}-b")) == (first, second), f"{name} was reported"
        halves = {alarm[:-2] for alarm in stored}
        assert len(stored) == 2 * len(halves), "half an append is there"
        assert sql(path, "SELECT seq, id FROM alarm_state ORDER BY seq") == records_of(path)
    assert len(reported) > KILLS
    rebuilt = asyncio.run(rebuilt_alarms(path))
    assert rebuilt == records_of(path)


def records_of(path: Path) -> list[tuple[int, str]]:
    rows = sql(path, "SELECT seq, data FROM record ORDER BY seq")
    return [(seq, json.loads(data)["body"]["alarm"]["id"]) for seq, data in rows]


async def rebuilt_alarms(path: Path) -> list[tuple[int, str]]:
    def again(connection: sqlite3.Connection) -> list[tuple[int, str]]:
        rebuild(connection, ALARMS)
        return connection.execute("SELECT seq, id FROM alarm_state ORDER BY seq").fetchall()

    async with Journal(path, "gw1", (ALARMS,)) as journal:
        return await journal.write(again)


def test_killed_before_anything_was_ready_it_opens_again(tmp_path: Path):
    """A power cut between the steps of making the file: schema, identity, state tables."""
    for step in range(1, 9):
        path = tmp_path / f"{step}.db"
        cut_after(path, step)
        asyncio.run(filled(path, 1, (COUNTED,)))
        assert verify_file(path).records == 1


def cut_after(path: Path, commits: int) -> None:
    """Make a journal in a child that is killed after `commits` commits of the set-up."""
    code = f"""
import asyncio, os, sqlite3
from pathlib import Path
from sitewarden.edge.alarms.table import TABLE
from sitewarden.sync import journal, sqlite
left = [{commits}]
class Cut(sqlite3.Connection):
    def execute(self, sql, *a):
        cursor = super().execute(sql, *a)
        if not self.in_transaction and not sql.upper().startswith(("SELECT", "PRAGMA")):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), 9)
        return cursor
real = sqlite3.connect
sqlite3.connect = lambda *a, **k: real(*a, factory=Cut, **k)
async def main():
    async with journal.Journal(Path({str(path)!r}), "gw1", (TABLE,)) as j:
        pass
asyncio.run(main())
"""
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, timeout=60)
