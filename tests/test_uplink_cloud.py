"""Edge to cloud over real sockets: whatever breaks in between, the cloud has everything once and nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import zstandard
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.cloud import app as cloud_app
from sitewarden.cloud import parcels
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable, load_cloud_config
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.ingest import Contacts, Ingest
from sitewarden.cloud.pages import Pages, contact_state
from sitewarden.cloud.project import open_alarms
from sitewarden.cloud.store import STEPS, Store
from sitewarden.errors import ConfigError
from sitewarden.serving.people import ROLES, Person
from sitewarden.serving.secrets import Secrets
from sitewarden.sync import streams, wire
from sitewarden.sync.cloud_client import UplinkOptions
from sitewarden.sync.columns import compress, decompress, pack_msgpack
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal, genesis_chain, next_chain, verify_rows
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.uplink import run_uplink
from sitewarden.words import Quality, Reading, now

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER_KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
LI = Person(id="p_li", name="李敏", name_en="Li Min", roles=("officer",), areas=("*",))
BOUND_S = 60


# --- the two ends ------------------------------------------------------------------------------------------------


def cloud_config(port: int = 0, **cloud: Any) -> CloudConfig:
    gateways = (
        GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(KEY)),
        GatewayTable(id="gw2", name="二厂", name_en="Plant 2"),
    )
    table = CloudTable(name="总部", name_en="HQ", port=port, **cloud)
    return CloudConfig(cloud=table, gateway=gateways, people={LI.id: LI})


@contextlib.asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task for the length of the block; when it fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine)
        yield task
        task.cancel()


@contextlib.asynccontextmanager
async def cloud(data: Path, port: int = 0, **table: Any) -> AsyncIterator[int]:
    """The service on a real socket; gives its port."""
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with running(cloud_app.run_cloud(cloud_config(port, **table), data, ready=up.set_result)) as task:
        await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED, timeout=BOUND_S)
        yield up.result()


@dataclass
class Edge:
    journal: Journal
    history: History
    health: UplinkHealth = field(default_factory=UplinkHealth)

    async def say(self, count: int = 1, kind: str = "test.said", **body: Any) -> None:
        await self.journal.append(
            [Draft(kind=kind, at=now(), actor="gateway", body=body | {"i": i}) for i in range(count)]
        )

    async def measure(self, segments: int = 1) -> None:
        for _ in range(segments):
            at = now()
            self.history.add([Reading(point=f"a.b.p{i}", value=i / 10, quality=Quality.GOOD, at=at) for i in range(20)])
            await self.history.flush(seal=True)

    def linked(self, port: int, **options: Any) -> contextlib.AbstractAsyncContextManager[asyncio.Task[Any]]:
        chosen = UplinkOptions(
            url=f"http://127.0.0.1:{port}", gateway="gw1", backoff_max_s=0.05, contact_s=0.2, timeout_s=5
        )
        return running(run_uplink(self.journal, self.history, KEY, replace(chosen, **options), self.health))

    def all_sent(self) -> bool:
        return self.health.state == "up" and not (self.health.backlog_records or self.health.backlog_segments)


@contextlib.asynccontextmanager
async def edge(folder: Path) -> AsyncIterator[Edge]:
    folder.mkdir(exist_ok=True)
    async with Journal(folder / "journal.db", "gw1") as journal, History(folder / "history.db", "gw1") as history:
        yield Edge(journal, history)


async def until(condition: Callable[[], Any], what: str = "") -> None:
    try:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never happened: {what or condition}")


def rows(data: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(data / "cloud.db")) as connection:
        return connection.execute(sql, values).fetchall()


async def assert_equal_streams(site: Edge, data: Path) -> None:
    """Every record and segment once, in order, byte for byte; both chains continue."""
    sent = await site.journal.raw(0, 1_000_000)
    kept = rows(data, "SELECT seq, data, chain FROM record WHERE epoch = ? ORDER BY seq", site.journal.epoch)
    assert kept == sent
    verdict = verify_rows("gw1", site.journal.epoch, kept)
    assert (verdict.bad_seq, verdict.records) == (None, len(sent))
    batches = rows(data, "SELECT n, chain FROM batch WHERE stream = 'journal' ORDER BY n")
    planned = await site.journal.query(lambda c: c.execute("SELECT n, chain FROM batch ORDER BY n").fetchall())
    assert batches == planned[: len(batches)]
    sql = "SELECT n, chain, body FROM batch WHERE stream = 'history' AND epoch = ? ORDER BY n"
    segments = [(s.n, s.chain, s.body) for s in await site.history.sealed_after(0, 100_000)]
    assert rows(data, sql, site.history.epoch) == segments
    assert rows(data, "SELECT count(*) FROM quarantine") == [(0,)]


def dump(data: Path) -> dict[str, list[tuple[Any, ...]]]:
    """All that the cloud keeps, but for when it last heard of a gateway."""
    tables = ("ack", "batch", "record", "quarantine", "open_alarm")
    return {table: rows(data, f"SELECT * FROM {table} ORDER BY 1, 2, 3, 4") for table in tables}


# --- what lies between -------------------------------------------------------------------------------------------


class Fault:
    """A TCP proxy that breaks connections as told.

    `plan()` gives, for each new connection, how many bytes may pass upwards and downwards (None: all of them) before it
    is reset. 0 downwards: the request arrives and is committed, its reply never comes back. `deaf` does so from
    the first PUT on, `refusing` resets at once.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.plan: Callable[[], tuple[int | None, int | None]] = lambda: (None, None)
        self.refusing = False
        self.deaf = False
        self.broken = 0
        self.upwards: list[bytearray] = []
        self._open: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    def break_all(self) -> None:
        """Reset what is open: `plan` and `refusing` count for new connections alone."""
        for writer in self._open:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        ends = [writer]
        self._open.add(writer)
        pumps: list[asyncio.Future[None]] = []
        try:
            up, down = self.plan()
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(other_writer)
            seen = bytearray()
            self.upwards.append(seen)
            pumps.append(asyncio.ensure_future(self._pump(reader, other_writer, up, seen, lambda: False)))
            pumps.append(asyncio.ensure_future(self._pump(other_reader, writer, down, bytearray(), self._is_deaf)))
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # nobody listens there now
        finally:
            for pump in pumps:
                pump.cancel()
            for end in ends:
                end.transport.abort()
            self._open.discard(writer)
            await asyncio.gather(*pumps, return_exceptions=True)

    def _is_deaf(self) -> bool:
        return self.deaf and any(b"PUT " in seen for seen in self.upwards)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limit: int | None,
        seen: bytearray,
        stop: Callable[[], bool],
    ) -> None:
        left = limit
        while data := await reader.read(4096):
            if stop() or (left is not None and len(data) > left):
                self.broken += 1
                writer.write(data[: left or 0])
                with contextlib.suppress(OSError):
                    await writer.drain()
                return
            left = None if left is None else left - len(data)
            seen += data
            writer.write(data)
            await writer.drain()


async def ask(port: int, method: str, path: str, body: bytes | None = None, **options: Any) -> tuple[int, Any]:
    """One signed request; options change one thing about it."""
    uri = f"http://127.0.0.1:{port}{path}"
    digest = wire.content_digest(options.get("digest_of", body)) if body is not None else ""
    chain = wire.bytes_text(options.get("chain", bytes(32))) if body is not None else ""
    message = wire.Message(method=method, target_uri=options.get("signed_uri", uri), digest=digest, chain=chain)
    created_s = int(time.time()) + options.get("late_s", 0)
    headers = wire.sign(message, options.get("key", KEY), created_s=created_s, nonce="0" * 32)
    headers |= options.get("headers", {})
    for name in options.get("without", ()):
        del headers[name]
    sent = options.get("sent", body)
    async with aiohttp.ClientSession() as session, session.request(method, uri, data=sent, headers=headers) as reply:
        return reply.status, await reply.json(content_type=None)


def journal_batch(site: Edge, records: list[tuple[int, bytes, bytes]], before: bytes) -> bytes:
    data = tuple(record[1] for record in records)
    packed = wire.JournalPayload(
        epoch=site.journal.epoch, first=records[0][0], before=before, records=data, after=records[-1][2]
    )
    return packed.pack()


# --- the way that it should be -----------------------------------------------------------------------------------


async def test_records_and_segments_arrive_and_new_ones_follow(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        assert site.health.state == "off"
        await site.say(1200)
        await site.measure(3)
        async with site.linked(port):
            await until(site.all_sent)
            await assert_equal_streams(site, tmp_path / "cloud")
            await site.say(1)
            await until(lambda: rows(tmp_path / "cloud", "SELECT count(*) FROM record") == [(1201,)])
            await site.measure(1)
            await until(lambda: rows(tmp_path / "cloud", "SELECT max(n) FROM batch WHERE stream = 'history'") == [(4,)])
            await until(site.all_sent)
        await assert_equal_streams(site, tmp_path / "cloud")
        assert rows(tmp_path / "cloud", "SELECT count(*) FROM batch WHERE stream = 'journal'")[0][0] >= 4


async def test_large_records_end_a_batch(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        await site.say(5, text="x" * 200_000)
        async with site.linked(port):
            await until(site.all_sent)
        counts = rows(tmp_path / "cloud", "SELECT count FROM batch WHERE stream = 'journal' ORDER BY n")
        assert sum(count for (count,) in counts) == 5
        assert max(counts) <= (2,), "a batch ends with the record that reaches 256 KiB, or what the link carries"
        await assert_equal_streams(site, tmp_path / "cloud")


async def test_health_tells_what_waits_while_the_link_is_down(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        proxy = Fault(port)
        async with proxy.listening() as door, site.linked(door):
            await site.say(3)
            await until(site.all_sent)
            assert site.health.last_ok is not None
            assert site.health.last_error == ""
            since = site.health.since
            proxy.refusing = True
            proxy.break_all()
            await until(lambda: site.health.state == "down")
            assert "journal: cannot reach" in site.health.last_error
            assert site.health.since >= since
            await site.say(7)
            await site.measure(2)
            await until(lambda: (site.health.backlog_records, site.health.backlog_segments) == (7, 2))
            json.dumps(site.health.to_json())
            proxy.refusing = False
            await until(site.all_sent)
            assert site.health.last_error == ""
        await assert_equal_streams(site, tmp_path / "cloud")


async def test_after_a_restart_without_a_link_the_backlog_is_known(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site, site.linked(port):
        await site.say(900)
        await until(site.all_sent)
        await site.say(20)
        await until(site.all_sent)
    async with edge(tmp_path / "edge") as site:
        await site.say(5)
        async with site.linked(port):
            await until(lambda: "refuses connections" in site.health.last_error)
            assert 5 <= site.health.backlog_records <= 25 + 500
            assert site.health.backlog_records < 920


# --- chaos -------------------------------------------------------------------------------------------------------


async def test_after_chaos_the_cloud_has_everything_exactly_once(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)

    def plan() -> tuple[int | None, int | None]:
        kind = dice.choice(["fine", "cut request", "cut reply", "lost reply", "later"])
        if kind == "cut request":
            return dice.randrange(2000), None
        if kind == "cut reply":
            return None, dice.randrange(400)
        if kind == "lost reply":
            return None, 0
        if kind == "later":
            return None, dice.randrange(500, 3000)
        return None, None

    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        proxy = Fault(port)
        proxy.plan = plan
        async with proxy.listening() as door, site.linked(door):
            for turn in range(60):
                await site.say(dice.randrange(1, 40))
                await site.measure(dice.randrange(2))
                proxy.refusing = turn % 10 == 9
                if turn % 7 == 6:
                    proxy.break_all()
                await asyncio.sleep(dice.random() * 0.05)
            proxy.refusing = False
            await until(lambda: proxy.broken >= 20, f"20 broken connections (seed {seed})")
            proxy.plan = lambda: (None, None)
            proxy.break_all()
            await until(site.all_sent, f"caught up (seed {seed})")
        await assert_equal_streams(site, tmp_path / "cloud")
        # The oracle sees a loss and a double: both are made on purpose in a copy.
        for damage in (
            "DELETE FROM record WHERE seq = 5",
            "INSERT INTO record SELECT gateway, epoch, seq + 90000, kind, data, chain FROM record WHERE seq = 5",
        ):
            copy = tmp_path / "copy"
            shutil.copytree(tmp_path / "cloud", copy, ignore=shutil.ignore_patterns("*.sock"))
            with contextlib.closing(sqlite3.connect(copy / "cloud.db")) as connection:
                connection.execute(damage)
                connection.commit()
            with pytest.raises(AssertionError):
                await assert_equal_streams(site, copy)
            shutil.rmtree(copy)


async def test_the_cloud_is_stopped_and_started_while_records_come_in(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    async with contextlib.AsyncExitStack() as stack:
        site = await stack.enter_async_context(edge(tmp_path / "edge"))
        proxy = Fault(0)
        door = await stack.enter_async_context(proxy.listening())
        await stack.enter_async_context(site.linked(door))
        for _ in range(4):
            async with cloud(data) as port:
                proxy.target = port
                before = rows(data, "SELECT count(*) FROM record")[0][0]
                for _ in range(20):
                    await site.say(5)
                await until(lambda seen=before: rows(data, "SELECT count(*) FROM record")[0][0] > seen)
        async with cloud(data) as port:
            proxy.target = port
            await until(site.all_sent)
        await assert_equal_streams(site, data)


async def test_the_edge_is_stopped_between_sending_and_hearing(tmp_path: Path) -> None:
    """The reply never comes; the next process asks and goes on after what was taken, with the same batches."""
    data = tmp_path / "cloud"
    async with cloud(data) as port:
        for turn in range(5):
            proxy = Fault(port)
            proxy.deaf = True
            async with edge(tmp_path / "edge") as site, proxy.listening() as door, site.linked(door):
                taken = rows(data, "SELECT count(*) FROM record")[0][0]
                await site.say(11)
                await until(lambda seen=taken: rows(data, "SELECT count(*) FROM record")[0][0] > seen, f"turn {turn}")
                assert site.health.backlog_records >= 11
        async with edge(tmp_path / "edge") as site, site.linked(port):
            await until(site.all_sent)
            await assert_equal_streams(site, data)


async def test_what_a_restored_cloud_lost_is_sent_again(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    async with edge(tmp_path / "edge") as site:
        for turn in range(2):
            async with cloud(data) as port, site.linked(port):
                await site.say(300)
                await site.measure(2)
                await until(site.all_sent)
            if turn == 0:
                shutil.copytree(data, tmp_path / "backup", ignore=shutil.ignore_patterns("*.sock"))
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "backup", data, ignore=shutil.ignore_patterns("*.sock"))
        assert rows(data, "SELECT count(*) FROM record") == [(300,)]
        async with cloud(data) as port, site.linked(port):
            await site.say(1)
            await until(lambda: rows(data, "SELECT count(*) FROM record WHERE kind = 'test.said'") == [(601,)])
            await until(site.all_sent)
        await assert_equal_streams(site, data)


# --- repeats, gaps, forks ----------------------------------------------------------------------------------------


async def test_a_replayed_put_answers_200_and_changes_nothing(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    async with cloud(data) as port, edge(tmp_path / "edge") as site:
        proxy = Fault(port)
        async with proxy.listening() as door, site.linked(door):
            for _ in range(3):
                await site.say(2)
                await until(site.all_sent)
        before = dump(data)
        requests = [b"PUT " + part for part in bytes(b"".join(proxy.upwards)).split(b"PUT ")[1:]]
        assert len(requests) >= 3
        for raw in requests:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(raw)
            status = await asyncio.wait_for(reader.readline(), BOUND_S)
            assert b" 200 " in status
            writer.close()
        assert dump(data) == before


async def test_a_gap_is_answered_with_the_acknowledgement(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        async with site.linked(port):
            await site.say(1)
            await until(site.all_sent)
        path = wire.batch_path("gw1", "journal", site.journal.epoch, 3)
        status, answer = await ask(port, "PUT", path, b"whatever")
        assert (status, answer["error"]["reason"], answer["ack"]) == (409, "gap", 1)
        assert rows(tmp_path / "cloud", "SELECT count(*) FROM batch") == [(1,)]


async def test_a_cloned_gateway_takes_nothing_from_the_original(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    async with cloud(data) as port:
        async with edge(tmp_path / "edge") as site, site.linked(port):
            await site.say(10)
            await site.measure(1)
            await until(site.all_sent)
        shutil.copytree(tmp_path / "edge", tmp_path / "clone", ignore=shutil.ignore_patterns("*.sock"))
        async with edge(tmp_path / "edge") as site, site.linked(port):
            await site.say(10, who="original")
            await site.measure(1)
            await until(site.all_sent)
        before = dump(data)
        async with edge(tmp_path / "clone") as clone, clone.linked(port):
            await clone.say(1, who="clone")
            await clone.measure(1)
            await until(lambda: len(clone.journal.epochs) == 2)
            await until(clone.all_sent)
            await clone.say(1, who="clone")
            await until(clone.all_sent)
        after = dump(data)
        assert all(set(before[table]) <= set(after[table]) for table in before), "under new epochs (test_epochs.py)"
        async with edge(tmp_path / "edge") as site, site.linked(port):
            await site.say(1)
            await until(site.all_sent)
            sent = await site.journal.raw(0, 1000)
        sql = "SELECT seq, data, chain FROM record WHERE epoch = ? ORDER BY seq"
        assert rows(data, sql, site.journal.epoch) == sent


async def test_another_batch_under_a_taken_or_the_next_number_is_a_fork(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    async with cloud(data) as port, edge(tmp_path / "edge") as site:
        await site.measure(2)
        async with site.linked(port):
            await until(site.all_sent)
        epoch = site.history.epoch
        other = compress(b"something else")
        before = dump(data)
        for n in (1, 2, 3):
            chain = streams.batch_chain(bytes(32), n, b"something else")
            status, answer = await ask(port, "PUT", wire.batch_path("gw1", "history", epoch, n), other, chain=chain)
            assert (status, answer["error"]["reason"], answer["ack"]) == (409, "fork", 2)
        assert dump(data) == before


# --- bad content -------------------------------------------------------------------------------------------------


async def test_a_poison_batch_goes_to_quarantine_and_the_next_flows(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    async with cloud(data) as port, edge(tmp_path / "edge") as site:
        await site.say(6)
        records = await site.journal.raw(0, 10)
        epoch, chain = site.journal.epoch, streams.stream_genesis("gw1", "journal", site.journal.epoch)
        first = genesis_chain("gw1", epoch)
        parts = [
            journal_batch(site, records[:2], first),
            journal_batch(site, [(3, b'{"poison":true}', records[2][2])], records[1][2]),
            journal_batch(site, records[3:5], records[2][2]),
            journal_batch(site, records[5:], records[4][2]),
        ]
        for n, payload in enumerate(parts, 1):
            chain = streams.batch_chain(chain, n, payload)
            body = compress(payload)
            status, answer = await ask(port, "PUT", wire.batch_path("gw1", "journal", epoch, n), body, chain=chain)
            assert (status, answer["ack"], answer.get("quarantined", False)) == (200, n, n == 2)
        assert rows(data, "SELECT n, reason, body FROM quarantine") == [
            (2, "record 3 is not readable: 'seq'", compress(parts[1]))
        ]
        assert [row[0] for row in rows(data, "SELECT seq FROM record ORDER BY seq")] == [1, 2, 4, 5, 6]
        repeat = await ask(port, "PUT", wire.batch_path("gw1", "journal", epoch, 4), compress(parts[3]), chain=chain)
        assert repeat[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"not zstd at all",
        zstandard.ZstdCompressor().compress(bytes(200_000_000)),
        compress(b"\xc1"),
        compress(b"") + b"trailing",
    ],
    ids=["garbage", "bomb", "not msgpack", "trailing"],
)
@pytest.mark.parametrize("stream", ["journal", "history"])
async def test_content_that_cannot_be_unpacked_blocks_nothing(tmp_path: Path, stream: str, body: bytes) -> None:
    async with cloud(tmp_path) as port:
        chain = b"\5" * 32
        with contextlib.suppress(Exception):
            payload = decompress(body)
            chain = streams.batch_chain(streams.stream_genesis("gw1", stream, "aabbccdd"), 1, payload)
        status, answer = await ask(port, "PUT", wire.batch_path("gw1", stream, "aabbccdd", 1), body, chain=chain)
        assert (status, answer["ack"], answer["quarantined"]) == (200, 1, True)
        assert rows(tmp_path, "SELECT body FROM quarantine") == [(body,)]
        after = streams.batch_chain(chain, 2, b"\xc1")
        path = wire.batch_path("gw1", stream, "aabbccdd", 2)
        assert (await ask(port, "PUT", path, compress(b"\xc1"), chain=after))[0] == 200


# In a child process: its highest memory is its own, and the limit keeps a bomb that works from taking the machine's.
UNPACK_IN_CHILD = """
import re, resource, sys
from pathlib import Path
from sitewarden.cloud.parcels import open_parcel

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
body = sys.stdin.buffer.read()
before = peak_kib()
parcel = open_parcel("gw1", sys.argv[1], "aabbccdd", 1, bytes(32), body, 0)
print(peak_kib() - before, bool(parcel.problem), parcel.problem[:200])
"""


def list_of(count: int, item: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def many_columns(count: int) -> bytes:
    """Each stands for 2,000 readings in a few bytes."""
    column = ["p", 0, [[2000, 0, False, ""]], 0, []]
    return pack_msgpack([1, [["b", 0, 0, 0, [[0] * 2000], [column] * count]]])


def nested_json() -> bytes:
    data = b'{"body":[' + b"[]," * 1_300_000 + b"[]]}"
    return wire.JournalPayload(epoch="aabbccdd", first=1, before=bytes(32), records=(data,), after=bytes(32)).pack()


BOMBS = {
    "16 million empty maps": lambda: list_of(16_000_000, b"\x80"),
    "maps": lambda: list_of(4_000_000, b"\x80"),
    "few maps": lambda: list_of(10_000, b"\x80"),
    "lists": lambda: list_of(4_000_000, b"\x90"),
    "lists in lists": lambda: list_of(200, list_of(19_000, b"\x90")),
    "reserved lists": lambda: b"\xdd\x00\x3f\xff\xff" * 500 + bytes(4_100_000),
    "extensions": lambda: list_of(19_000, b"\xc7\x00\x05"),
    "short texts": lambda: list_of(60, list_of(19_000, b"\xa2ab")),
    "columns that share their times": lambda: many_columns(19_000),
    "times": lambda: pack_msgpack([1, [["b", 0, 0, 0, [[1] * 19_000] * 200, []]]]),
    "nested JSON": nested_json,
}


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("stream", ["journal", "history"])
def test_a_small_batch_cannot_unpack_to_gigabytes(bomb: str, stream: str) -> None:
    command = (sys.executable, "-c", UNPACK_IN_CHILD, stream)
    done = subprocess.run(command, input=compress(BOMBS[bomb]()), capture_output=True, timeout=BOUND_S, check=False)
    assert done.returncode == 0, done.stderr.decode()
    grown_kib, bad, _ = done.stdout.decode().split(" ", 2)
    assert bad == "True"
    assert int(grown_kib) < 256 * 1024, done.stdout


async def test_batches_are_unpacked_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = [0], [0]
    really = parcels.open_parcel

    def slow(*arguments: Any) -> Any:
        running[0] += 1
        most[0] = max(most[0], running[0])
        time.sleep(0.1)
        running[0] -= 1
        return really(*arguments)

    monkeypatch.setattr(parcels, "open_parcel", slow)
    body = b"not zstd at all"
    async with cloud(tmp_path) as port, asyncio.TaskGroup() as group:
        paths = [wire.batch_path("gw1", "history", f"aabbccd{i}", 1) for i in range(6)]
        asked = [group.create_task(ask(port, "PUT", path, body), name="put") for path in paths]
        await asyncio.wait(asked, timeout=BOUND_S)
    assert [task.result()[0] for task in asked] == [200] * 6
    assert most[0] == 1


async def test_the_largest_honest_batches_pass(tmp_path: Path) -> None:
    """A record of 3 MiB at the end of a full batch; 2,000 readings, each of another boot."""
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        await site.say(499, text="x" * 400)
        await site.say(1, text=random.Random(1).randbytes(3 * 512 * 1024).hex())
        for i in range(2000):
            at = replace(now(), boot=f"{i:036}")
            site.history.add([Reading(point=f"a.b.p{i}", value=i / 7, quality=Quality.GOOD, why="limit_" * 5, at=at)])
        await site.history.flush(seal=True)
        async with site.linked(port):
            await until(site.all_sent)
        await assert_equal_streams(site, tmp_path / "cloud")
        assert rows(tmp_path / "cloud", "SELECT max(count) FROM batch WHERE stream = 'history'") == [(2000,)]


async def test_records_must_follow_the_ones_that_are_kept(tmp_path: Path) -> None:
    """A batch chain that fits does not excuse a record chain that does not."""
    data = tmp_path / "cloud"
    async with cloud(data) as port, edge(tmp_path / "edge") as site:
        await site.say(4)
        records = await site.journal.raw(0, 10)
        chain = streams.stream_genesis("gw1", "journal", site.journal.epoch)
        skipping = [
            journal_batch(site, records[:1], genesis_chain("gw1", site.journal.epoch)),
            journal_batch(site, records[2:3], records[1][2]),  # record 2 is missing
        ]
        for n, payload in enumerate(skipping, 1):
            chain = streams.batch_chain(chain, n, payload)
            path = wire.batch_path("gw1", "journal", site.journal.epoch, n)
            assert (await ask(port, "PUT", path, compress(payload), chain=chain))[0] == 200
        reasons = rows(data, "SELECT reason FROM quarantine")
        assert reasons == [("record 2 comes next, this batch begins with 3",)]
        assert rows(data, "SELECT seq FROM record") == [(1,)]


async def test_rewritten_records_do_not_follow_what_is_kept(tmp_path: Path) -> None:
    """A journal whose past was altered and chained anew is found out by its next batch."""
    data = tmp_path / "cloud"
    async with cloud(data) as port, edge(tmp_path / "edge") as site:
        await site.say(3)
        epoch, records = site.journal.epoch, await site.journal.raw(0, 10)
        forged = next_chain(genesis_chain("gw1", epoch), b"another past")
        last = (3, records[2][1], next_chain(forged, records[2][1]))
        chain = streams.stream_genesis("gw1", "journal", epoch)
        parts = [journal_batch(site, records[:2], genesis_chain("gw1", epoch)), journal_batch(site, [last], forged)]
        for n, payload in enumerate(parts, 1):
            chain = streams.batch_chain(chain, n, payload)
            path = wire.batch_path("gw1", "journal", epoch, n)
            assert (await ask(port, "PUT", path, compress(payload), chain=chain))[0] == 200
        reasons = rows(data, "SELECT reason FROM quarantine")
        assert reasons == [("record 3 does not follow the record 2 that is kept",)]


async def test_a_segment_that_rotted_on_the_card_stops_only_itself(tmp_path: Path) -> None:
    async with edge(tmp_path / "edge") as site:
        await site.measure(3)
    with contextlib.closing(sqlite3.connect(tmp_path / "edge" / "history.db")) as connection:
        body = bytearray(connection.execute("SELECT body FROM body WHERE n = 2").fetchone()[0])
        body[len(body) // 2] ^= 1
        connection.execute("UPDATE body SET body = ? WHERE n = 2", (bytes(body),))
        connection.commit()
    data = tmp_path / "cloud"
    async with cloud(data) as port, edge(tmp_path / "edge") as site, site.linked(port):
        await until(site.all_sent)
        assert rows(data, "SELECT n FROM quarantine") == [(2,)]
        assert rows(data, "SELECT n FROM batch WHERE body IS NOT NULL ORDER BY n") == [(1,), (3,)]


# --- who may send ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gateway", "options", "expected"),
    [
        ("gw1", {}, (200, None)),
        ("gw9", {}, (403, "unknown_gateway")),
        ("gw2", {}, (403, "not_enrolled")),
        ("gw1", {"key": OTHER_KEY}, (401, "wrong_key")),
        ("gw1", {"late_s": -400}, (401, "clock")),
        ("gw1", {"late_s": 400}, (401, "clock")),
        ("gw1", {"signed_uri": "http://elsewhere/v1/gateways/gw1/sync"}, (401, "bad_signature")),
        ("gw1", {"without": ["Signature"]}, (401, "unsigned")),
        ("gw1", {"headers": {"Signature-Input": "sw=()"}}, (401, "wrong_profile")),
    ],
)
async def test_only_enrolled_gateways_are_answered(
    tmp_path: Path, gateway: str, options: dict[str, Any], expected: tuple[int, str | None]
) -> None:
    async with cloud(tmp_path) as port:
        status, answer = await ask(port, "GET", wire.sync_path(gateway), **options)
        assert (status, answer.get("error", {}).get("reason")) == expected
        assert abs(answer["time_ms"] - time.time() * 1000) < 60_000


async def test_a_tampered_body_is_refused_and_nothing_is_kept(tmp_path: Path) -> None:
    async with cloud(tmp_path) as port:
        path = wire.batch_path("gw1", "history", "aabbccdd", 1)
        body = compress(b"measured")
        status, answer = await ask(port, "PUT", path, b"X" + body[1:], digest_of=body)
        assert (status, answer["error"]["reason"]) == (400, "digest")
        forged = {"Content-Digest": wire.content_digest(b"X" + body[1:])}
        status, answer = await ask(port, "PUT", path, b"X" + body[1:], digest_of=body, headers=forged)
        assert (status, answer["error"]["reason"]) == (401, "bad_signature")
        status, answer = await ask(port, "PUT", path, body, headers={"SW-Chain": wire.bytes_text(b"\1" * 32)})
        assert (status, answer["error"]["reason"]) == (401, "bad_signature")
        status, answer = await ask(port, "PUT", path, body, without=["Content-Digest"])
        assert (status, answer["error"]["reason"]) == (400, "bad_request")
        assert all(not table for table in dump(tmp_path).values())


@pytest.mark.parametrize(
    ("stream", "epoch", "n"),
    [
        ("blobs", "aabbccdd", "1"),
        ("journal", "AABBCCDD", "1"),
        ("journal", "aabbccdd", "0"),
        ("journal", "aabbccdd", "x"),
        ("journal", "aabbccdd", "9" * 30),
    ],
)
async def test_odd_addresses_are_refused(tmp_path: Path, stream: str, epoch: str, n: str) -> None:
    async with cloud(tmp_path) as port:
        path = f"/v1/gateways/gw1/streams/{stream}/epochs/{epoch}/batches/{n}"
        status, answer = await ask(port, "PUT", path, b"body")
        assert (status, answer["error"]["reason"]) == (400, "bad_request")


async def test_a_body_over_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sitewarden.cloud.ingest.MAX_BODY_BYTES", 1000)
    async with cloud(tmp_path) as port:
        path = wire.batch_path("gw1", "history", "aabbccdd", 1)
        status, answer = await ask(port, "PUT", path, bytes(1001))
        assert (status, answer["error"]["reason"]) == (413, "too_large")

        async def pieces() -> AsyncIterator[bytes]:  # without Content-Length
            yield bytes(600)
            yield bytes(600)

        status, answer = await ask(port, "PUT", path, bytes(1200), sent=pieces())
        assert (status, answer["error"]["reason"]) == (413, "too_large")
        assert (await ask(port, "PUT", path, bytes(1000)))[0] == 200


async def test_a_gateway_whose_clock_is_wrong_signs_by_the_clouds(tmp_path: Path) -> None:
    async with SqliteDatabase(tmp_path / "cloud.db", STEPS) as database, edge(tmp_path / "edge") as site:
        store = Store(database)
        app = web.Application()
        ahead = 5_000_000.0
        door = Ingest(cloud_config(), store, Contacts(store, {}), lambda _: None, clock=lambda: time.time() + ahead)
        door.add_routes(app)
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        await site.say(3)
        async with site.linked(runner.addresses[0][1]):
            await until(site.all_sent)
            assert abs(site.health.clock_offset_s - ahead) < 60
        await runner.cleanup()
        await assert_equal_streams(site, tmp_path)


async def test_signatures_cover_the_public_address_behind_a_proxy(tmp_path: Path) -> None:
    async with cloud(tmp_path, public_url="https://hq.example/up/") as port:
        path = wire.sync_path("gw1")
        assert (await ask(port, "GET", path, signed_uri=f"https://hq.example/up{path}"))[0] == 200
        assert (await ask(port, "GET", path))[0] == 401


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost:1", (200, None)),
        ("127.0.0.9", (200, None)),
        ("[::1]:8090", (200, None)),
        ("hq.example", (421, "wrong_host")),
        ("127.0.0.1.evil.example", (421, "wrong_host")),
        ("[::1", (421, "wrong_host")),
    ],
)
async def test_without_a_public_address_only_own_names_are_signed_for(
    tmp_path: Path, host: str, expected: tuple[int, str | None]
) -> None:
    async with cloud(tmp_path) as port:
        path = wire.sync_path("gw1")
        options = {"signed_uri": f"http://{host}{path}", "headers": {"Host": host}}
        status, answer = await ask(port, "GET", path, **options)
        assert (status, answer.get("error", {}).get("reason")) == expected
        assert status == 200 or "public_url" in answer["error"]["hint"]


async def test_history_waits_while_the_journal_is_on_its_way(tmp_path: Path) -> None:
    release, blocked, asked, puts = asyncio.Event(), asyncio.Event(), [0], []

    async def where(_: web.Request) -> web.Response:
        asked[0] += 1
        return web.json_response({"time_ms": 1, "streams": {}})

    async def put(request: web.Request) -> web.Response:
        stream, n = request.match_info["stream"], int(request.match_info["n"])
        puts.append(stream)
        if stream == "journal":
            blocked.set()
            await release.wait()
        cursor = {"epoch": "e", "ack": n, "durable": n, "chain": request.headers["SW-Chain"]}
        return web.json_response(cursor)

    app = web.Application()
    app.router.add_get("/v1/gateways/gw1/sync", where)
    app.router.add_put("/v1/gateways/gw1/streams/{stream}/epochs/{e}/batches/{n}", put)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with edge(tmp_path) as site, site.linked(runner.addresses[0][1], contact_s=60):
        await until(lambda: asked[0] == 2)
        await site.say(1)
        await asyncio.wait_for(blocked.wait(), BOUND_S)
        await site.measure(2)
        await asyncio.sleep(0.3)
        assert puts == ["journal"]
        release.set()
        await until(site.all_sent)
        assert puts == ["journal", "history", "history"]
    await runner.cleanup()


@pytest.mark.parametrize(
    ("url", "fine"),
    [("http://127.0.0.1:8090", True), ("http://localhost:8090", True), ("http://[::1]:1", True),
     ("https://hq.example/x", True), ("http://hq.example", False), ("http://10.0.0.5:8090", False),
     ("ftp://hq.example", False), ("hq.example", False), ("https://u:p@hq.example", False), ("https://h/?q", False)],
)  # fmt: skip
def test_plain_http_goes_only_to_the_own_machine(url: str, fine: bool) -> None:
    options = UplinkOptions(url=url, gateway="gw1")
    if fine:
        options.check()
        return
    with pytest.raises(ConfigError, match=r"uplink\.url: must b"):
        options.check()


async def test_a_certificate_that_cannot_be_read_is_a_configuration_problem(tmp_path: Path) -> None:
    async with edge(tmp_path) as site:
        options = UplinkOptions(url="https://hq.example", gateway="gw1", ca_file=str(tmp_path / "missing.pem"))
        with pytest.raises(ConfigError, match=r"uplink\.ca_file: must be a readable PEM"):
            await run_uplink(site.journal, None, KEY, options, UplinkHealth())


# --- what headquarters sees --------------------------------------------------------------------------------------


def alarm(identity: str, state: str, occurrence: int = 1) -> dict[str, Any]:
    return {"id": identity, "state": state, "occurrence": occurrence, "name": "助剂库湿度"}


async def test_headquarters_sees_contact_and_open_alarms(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    data.mkdir()
    secrets = Secrets(data / "secrets.db")
    secrets.set_pin(LI.id, "2468")
    secrets.close()
    async with contextlib.AsyncExitStack() as stack:
        port = await stack.enter_async_context(cloud(data))
        site = await stack.enter_async_context(edge(tmp_path / "edge"))
        base = f"http://127.0.0.1:{port}"
        jar = aiohttp.CookieJar(unsafe=True)
        browser = await stack.enter_async_context(aiohttp.ClientSession(base, cookie_jar=jar))
        for path in ("/api/v1/sites", "/api/v1/live", "/api/v1/sites/gw1/alarms"):
            async with browser.get(path) as reply:
                assert reply.status == 401
        async with browser.post("/api/v1/session", json={"person": "p_li", "pin": "2468"}) as reply:
            assert reply.status == 200
        never = (await get(browser, "/api/v1/sites"))["sites"]
        assert [(s["gateway"], s["state"], s["last_contact"], s["open_alarms"]) for s in never] == [
            ("gw1", "never", None, []),
            ("gw2", "never", None, []),
        ]
        live = await stack.enter_async_context(browser.get("/api/v1/live"))
        await read_changed(live)
        await stack.enter_async_context(site.linked(port))
        named = {"id": "hengfeng", "name": "恒丰", "name_en": "Hengfeng"}
        await site.say(kind="gateway.started", site=named, version="0.1.0")
        for identity, state in [("a.b.c.high", "UNACK"), ("a.b.d.high", "UNACK"), ("a.b.d.high", "NORM")]:
            await site.say(kind="alarm.raised", alarm=alarm(identity, state))
        await site.say(kind="alarm.acked", alarm=alarm("a.b.c.high", "ACKED"))
        await site.say(kind="alarm.raised", alarm={"id": "a.b.e.high", "state": "PURPLE"})
        await until(site.all_sent)
        await read_changed(live)
        first, second = (await get(browser, "/api/v1/sites"))["sites"]
        assert first["open_alarms"] == [alarm("a.b.c.high", "ACKED")]
        assert (first["state"], first["site"], first["version"]) == ("online", named, "0.1.0")
        assert first["journal"]["epoch"] == site.journal.epoch
        assert first["journal"]["ack"] >= 1
        assert first["quarantined"] == 1  # the alarm in an unknown state: kept as a record, and counted
        assert 0 <= first["contact_age_s"] < 60
        assert second["state"] == "never"
        events = (await get(browser, "/api/v1/sites/gw1/alarms?limit=2"))["events"]
        assert [(e["seq"], e["kind"]) for e in events] == [(6, "alarm.raised"), (5, "alarm.acked")]
        older = (await get(browser, "/api/v1/sites/gw1/alarms?limit=2&before=5"))["events"]
        assert [e["seq"] for e in older] == [4, 3]
        async with browser.get("/api/v1/sites/gw1/alarms?limit=-1") as reply:
            assert reply.status == 400
        async with browser.get("/api/v1/sites/gw9/alarms") as reply:
            assert reply.status == 404


@pytest.mark.parametrize("turns", range(4))
async def test_announcing_ends_when_it_is_cancelled_while_it_wakes(tmp_path: Path, turns: int) -> None:
    async with SqliteDatabase(tmp_path / "cloud.db", STEPS) as database:
        store = Store(database)
        pages = Pages(cloud_config(), store, Contacts(store, {}))
        task = asyncio.create_task(pages.announce())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        pages.changed("gw1")
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=10)
        task.cancel()
        assert done


async def get(browser: aiohttp.ClientSession, path: str) -> Any:
    async with browser.get(path) as reply:
        assert reply.status == 200
        return await reply.json()


async def read_changed(live: aiohttp.ClientResponse) -> None:
    async with asyncio.timeout(BOUND_S):
        while await live.content.readline() != b"event: changed\n":
            pass


async def test_the_last_contact_survives_a_restart(tmp_path: Path) -> None:
    async with cloud(tmp_path) as port:
        await ask(port, "GET", wire.sync_path("gw1"))
    assert rows(tmp_path, "SELECT gateway, contact_ms > 0 FROM gateway") == [("gw1", 1)]


async def test_open_alarms_in_the_store_are_those_of_a_replay(tmp_path: Path) -> None:
    dice = random.Random(7)
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site, site.linked(port):
        for i in range(150):
            states = ["UNACK", "ACKED", "RTNUN", "NORM", "LATU", "LATA"]
            shown = alarm(f"a.b.p{dice.randrange(8)}.high", dice.choice(states), i)
            await site.say(kind="alarm.changed", alarm=shown)
        await until(site.all_sent)
        replayed = open_alarms(await site.journal.read(0, 1000))
        stored = {row[0]: json.loads(row[1]) for row in rows(tmp_path / "cloud", "SELECT alarm, data FROM open_alarm")}
        assert stored == replayed
        assert 0 < len(stored) <= 8


@pytest.mark.parametrize(
    ("age_s", "state"),
    [(None, "never"), (0.0, "online"), (59.9, "online"), (60.0, "late"), (299.9, "late"), (300.0, "silent")],
)
def test_silence_is_shown(age_s: float | None, state: str) -> None:
    assert contact_state(age_s, CloudTable(name="n", name_en="n")) == state


async def test_the_data_folder_is_not_for_everybody(tmp_path: Path) -> None:
    async with cloud(tmp_path / "new"):
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) & 0o027 == 0


async def test_databases_are_not_for_everybody_where_no_unit_sets_the_umask(tmp_path: Path) -> None:
    shipped = Path(cloud_app.__file__).parent.parent / "config" / "cloud.toml"
    shutil.copy(shipped.with_name("baseline.toml"), tmp_path)
    load(tmp_path, shipped.read_text("utf-8").replace("port = 8090", "port = 0"))
    options = ("--config", tmp_path / "cloud.toml", "--data", tmp_path / "d")
    command = (sys.executable, "-m", "sitewarden", "cloud", *options)
    child = await asyncio.create_subprocess_exec(*command, umask=0, stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        async with asyncio.timeout(BOUND_S):
            assert b"sitewarden cloud" in await child.stdout.readline()
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "d").iterdir()}
        assert "cloud.db" in modes
        assert {name: oct(mode) for name, mode in modes.items() if mode & 0o007} == {}
        assert {name: oct(mode) for name, mode in modes.items() if mode & 0o020} == {"cloud.sock": "0o660"}
    finally:
        child.terminate()
        await child.wait()


async def test_a_store_that_cannot_commit_ends_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    monkeypatch.setattr("sitewarden.cloud.store._contact", broken)
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(cloud_app.run_cloud(cloud_config(), tmp_path, ready=up.set_result))
    port = await asyncio.wait_for(up, BOUND_S)
    with contextlib.suppress(aiohttp.ClientError, ValueError):
        await ask(port, "GET", wire.sync_path("gw1"))
    with pytest.raises(ExceptionGroup, match="unhandled errors") as raised:
        await asyncio.wait_for(task, BOUND_S)
    assert "a commit failed" in str(raised.value.exceptions[0])


# --- cloud.toml --------------------------------------------------------------------------------------------------

PEOPLE = "id,name,name_en,roles,areas,phone\np_li,李敏,Li Min,officer,*,\n"


def load(folder: Path, text: str, people: str = PEOPLE) -> CloudConfig:
    (folder / "people.csv").write_text(people, "utf-8")
    (folder / "cloud.toml").write_text(text, "utf-8")
    return load_cloud_config(folder / "cloud.toml")


def test_the_shipped_cloud_toml_is_right(tmp_path: Path) -> None:
    shipped = Path(cloud_app.__file__).parent.parent / "config" / "cloud.toml"
    shutil.copy(shipped.with_name("baseline.toml"), tmp_path)
    config = load(tmp_path, shipped.read_text("utf-8"))
    assert config.cloud.port == 8090
    assert [gateway.id for gateway in config.gateway] == ["gw1"]
    assert config.gateway[0].keys() == {}
    assert config.people["p_li"].name == "李敏"


def test_every_problem_is_named_at_once(tmp_path: Path) -> None:
    text = """
    [cloud]
    name = ""
    port = 70000
    public_url = "hq.example"
    late_s = 5
    silent_s = "soon"
    colour = "red"
    [[gateway]]
    id = "GW 1"
    name = "one"
    name_en = 7
    public_key = "ed25519:short"
    [[gateway]]
    id = "gw2"
    name = "two"
    name_en = "two"
    [[gateway]]
    id = "gw2"
    name = "three"
    name_en = "three"
    [extra]
    """
    key = "`ed25519:` and the base64 of 32 bytes, as the gateway shows it"
    roles = ", ".join(ROLES)
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text, PEOPLE + "p_li,again,again,king,*,\n")
    assert sorted(raised.value.problems) == sorted(
        [
            'cloud.name: must not be empty (got "")',
            "cloud.name_en: is required",
            "cloud.port: must be at most 65535 (got 70000)",
            'cloud.public_url: must be https://host[:port][/prefix], or empty (got "hq.example")',
            "cloud.late_s: must be at least 20 (got 5)",
            'cloud.silent_s: must be a number (got "soon")',
            "cloud.colour: is not a key of this table",
            'gateway[0].id: must be lower-case letters, digits and _, beginning with a letter (got "GW 1")',
            "gateway[0].name_en: must be text in quotes (got 7)",
            f'gateway[0].public_key: must be {key} (got "ed25519:short")',
            'gateway[2].id: must be its own, gateway[1] has it too (got "gw2")',
            "extra: is not a key of this table",
            "cloud.people: people.csv: line 3: id: must be unique (got 'p_li' again)",
            f"cloud.people: people.csv: line 3: roles: must be one of {roles} (got 'king')",
        ]
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "cloud: is required"),
        ("cloud = 3", "cloud: must be a table"),
        ("[cloud", "is not TOML: "),
        ('[cloud]\nname="a"\nname_en="a"\n[gateway]\nid="g"', "gateway: must be a list of tables: write [[gateway]]"),
        (
            '[cloud]\nname="a"\nname_en="a"\nlate_s=100\nsilent_s=50',
            "cloud: silent_s must not be less than late_s (got 50 and 100)",
        ),
    ],
)
def test_other_problems(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert raised.value.problems[0].startswith(problem)


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"copy config/cloud\.toml"):
        load_cloud_config(tmp_path / "none.toml")
