"""Evidence from the gateway to headquarters over real sockets: whatever breaks in between, whole or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import shutil
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.cloud import blobs as cloud_blobs
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.config import BlobsTable, CloudConfig, CloudTable, GatewayTable
from sitewarden.serving.people import Person
from sitewarden.serving.secrets import Secrets
from sitewarden.sync import wire
from sitewarden.sync.blob_refs import Case, CaseRule, state_table
from sitewarden.sync.blob_stream import BlobStream
from sitewarden.sync.blob_table import Known
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.cloud_client import CloudClient, UplinkOptions
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal, Record
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.pace import Pace
from sitewarden.sync.turns import Rank, Turns
from sitewarden.sync.uplink import run_uplink
from sitewarden.sync.wire import CHUNK_BYTES
from sitewarden.tests.peers.seaweed import Seaweed
from sitewarden.words import Quality, Reading, now

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY_2 = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
LI = Person(id="p_li", name="李敏", name_en="Li Min", roles=("officer",), areas=("*",))
WU = Person(id="p_wu", name="吴强", name_en="Wu Qiang", roles=("worker",), areas=("*",))
PIN = "135790"
BOUND_S = 60


def _case(record: Record) -> Case | None:
    return Case(id=record.body["case"], is_open=record.kind != "hazard.closed") if "case" in record.body else None


RULES = (CaseRule(kinds="hazard.", version=1, case_of=_case),)


def picture(size: int, seed: int = 1) -> bytes:
    return (b"\xff\xd8\xff\xe0" + random.Random(seed).randbytes(size))[:size]


def name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- the two ends ------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine)
        yield task
        task.cancel()


@contextlib.asynccontextmanager
async def cloud(data: Path, port: int = 0, **blobs: Any) -> AsyncIterator[int]:
    """Headquarters on a real socket; gives its port."""
    gateways = (
        GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(KEY)),
        GatewayTable(id="gw2", name="二厂", name_en="Plant 2", public_key=public_key_text(KEY_2)),
    )
    config = CloudConfig(
        cloud=CloudTable(name="总部", name_en="HQ", port=port),
        blobs=BlobsTable(**blobs),
        gateway=gateways,
        people={LI.id: LI, WU.id: WU},
    )
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with running(run_cloud(config, data, ready=up.set_result)) as task:
        await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED, timeout=BOUND_S)
        yield up.result()


@dataclass
class Edge:
    journal: Journal
    blobs: Blobs
    gateway: str = "gw1"
    key: Ed25519PrivateKey = KEY
    health: UplinkHealth = field(default_factory=UplinkHealth)
    history: History | None = None

    async def put(self, data: bytes, **body: Any) -> str:
        """A blob, and a record that names it."""
        sha256 = await self.blobs.take(_pieces(data))
        await self.record(sha256, **body)
        return sha256

    async def record(self, *blobs: str, kind: str = "hazard.reported", **body: Any) -> None:
        await self.journal.append([Draft(kind=kind, at=now(), actor="p_li", body=body, blobs=blobs)])

    def linked(self, port: int, **stream: Any) -> contextlib.AbstractAsyncContextManager[Any]:
        options = UplinkOptions(
            url=f"http://127.0.0.1:{port}", gateway=self.gateway, backoff_max_s=0.05, contact_s=0.2, timeout_s=10
        )
        also = [BlobStream(self.blobs, **({"look_s": 0.3} | stream)).run]
        return running(run_uplink(self.journal, self.history, self.key, options, self.health, also=also))

    async def state(self, sha256: str) -> Known | None:
        return await self.blobs.known(sha256)

    async def is_sent(self, *blobs: str) -> bool:
        rows = [await self.blobs.known(sha256) for sha256 in blobs]
        return all(row is not None and row.cloud == "durable" for row in rows)


@contextlib.asynccontextmanager
async def edge(folder: Path, gateway: str = "gw1", **options: Any) -> AsyncIterator[Edge]:
    folder.mkdir(exist_ok=True)
    key = KEY if gateway == "gw1" else KEY_2
    async with (
        Journal(folder / "journal.db", gateway, (state_table(RULES),)) as journal,
        Blobs(folder / "blobs", journal, rules=RULES, **options) as blobs,
    ):
        yield Edge(journal, blobs, gateway, key)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def until(condition: Callable[[], Any], what: str = "") -> None:
    end_s = asyncio.get_running_loop().time() + BOUND_S
    while True:
        met = condition()
        if asyncio.iscoroutine(met):
            met = await met
        if met:
            return
        if asyncio.get_running_loop().time() > end_s:
            pytest.fail(f"never happened: {what or condition}")
        await asyncio.sleep(0.01)


def rows(data: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(data / "cloud.db")) as connection:
        return connection.execute(sql, values).fetchall()


def stored(data: Path) -> dict[str, bytes]:
    """Whole blobs in the cloud's folder."""
    found = (path for path in (data / "blobs").glob("??/??/*"))
    return {path.name: path.read_bytes() for path in found}


def assert_all_right(data: Path, *sent: str) -> None:
    """Each of `sent` once and right, nothing else, nothing unfinished."""
    whole = stored(data)
    assert sorted(whole) == sorted(set(sent))
    assert all(name(content) == sha256 for sha256, content in whole.items())
    kept = {row[0] for row in rows(data, "SELECT sha256 FROM blob WHERE gateway = 'gw1' AND state = 'stored'")}
    assert kept == set(sent)
    assert rows(data, "SELECT count(*) FROM blob_part") == [(0,)]
    assert list((data / "blobs/incoming").iterdir()) == []


class Cutter:
    """A proxy that resets connections after so many bytes upwards, downwards; 0 downwards: the reply is lost."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.plan: Callable[[], tuple[int | None, int | None]] = lambda: (None, None)
        self.broken = 0
        self.upwards = 0

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[int]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = self.plan()
        ends, pumps = [writer], []
        try:
            other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target)
            ends.append(other_writer)
            pumps = [
                asyncio.ensure_future(self._pump(reader, other_writer, up, True)),
                asyncio.ensure_future(self._pump(other_reader, writer, down, False)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass
        finally:
            for pump in pumps:
                pump.cancel()
            for end in ends:
                end.transport.abort()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, limit: int | None, is_up: bool
    ) -> None:
        left = limit
        while data := await reader.read(8192):
            self.upwards += len(data) if is_up else 0
            if left is not None and len(data) > left:
                self.broken += 1
                writer.write(data[:left])
                with contextlib.suppress(OSError):
                    await writer.drain()
                return
            left = None if left is None else left - len(data)
            writer.write(data)
            await writer.drain()


async def ask(
    port: int, method: str, sha256: str, *, gateway: str = "gw1", key: Ed25519PrivateKey = KEY, **options: Any
) -> tuple[int, Any, Any]:
    """One signed request; options change one thing about it. (status, fields, body)"""
    uri = f"http://127.0.0.1:{port}{wire.blob_path(gateway, sha256) if sha256 else wire.blobs_path(gateway)}"
    body, upload = options.get("body"), options.get("upload")
    signed = tuple(map(str, options.get("signed_upload", upload))) if upload else None
    digest = wire.content_digest(options.get("digest_of", body)) if body is not None else ""
    message = wire.Message(method=method, target_uri=uri, digest=digest, upload=signed)  # type: ignore[arg-type]
    headers = wire.sign(message, key, created_s=int(time.time()) + options.get("late_s", 0), nonce="0" * 32)
    if upload:
        headers |= {"Upload-Offset": str(upload[0]), "Upload-Length": str(upload[1])}
    headers |= options.get("headers", {})
    for field_name in options.get("without", ()):
        headers.pop(field_name)
    async with aiohttp.ClientSession() as session, session.request(method, uri, data=body, headers=headers) as reply:
        binary = reply.status == 206
        return reply.status, reply.headers, await reply.read() if binary else await reply.json(content_type=None)


async def send(port: int, data: bytes, at: int, end: int, **options: Any) -> tuple[int, Any]:
    """PATCH `data[at:end]`."""
    upload = options.pop("upload", (at, len(data)))
    status, _, answer = await ask(
        port, "PATCH", options.pop("sha256", name(data)), body=data[at:end], upload=upload, **options
    )
    return status, answer


# --- the way that it should be -----------------------------------------------------------------------------------


async def test_what_records_name_arrives_whole_and_is_known_to_be_durable(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        shots = [picture(size, seed) for seed, size in enumerate((10, CHUNK_BYTES, 3 * CHUNK_BYTES + 5))]
        sent = [await site.put(shot, case="h1") for shot in shots]
        unnamed = await site.blobs.take(_pieces(picture(500, 99)))
        async with site.linked(port):
            await until(lambda: site.is_sent(*sent))
            await until(lambda: site.health.blobs.waiting == 0)
        assert_all_right(tmp_path / "cloud", *sent)
        assert unnamed not in stored(tmp_path / "cloud"), "what no record names stays where it is"
        assert [(await site.state(sha)).n for sha in sent] == [1, 2, 3]  # type: ignore[union-attr]
        assert site.health.last_error == ""


async def test_health_tells_what_waits(tmp_path: Path) -> None:
    async with edge(tmp_path / "edge") as site:
        await site.put(picture(700_000, 1), case="h1")
        await site.put(picture(50_000, 2), case="h2")
        await site.record(kind="hazard.closed", case="h2")
        async with cloud(tmp_path / "cloud") as port:
            cutter = Cutter(port)
            cutter.plan = lambda: (300_000, None)
            async with cutter.listening() as door, site.linked(door):
                await until(lambda: site.health.blobs.waiting == 2)
                assert (site.health.blobs.open, site.health.blobs.bytes) == (1, 750_000)
                assert set(site.health.blobs.to_json()) == {
                    "waiting",
                    "bytes",
                    "open",
                    "refused",
                    "refusal",
                    "damaged",
                }
                cutter.plan = lambda: (None, None)
                await until(lambda: site.health.blobs.waiting == 0)
                assert (site.health.blobs.bytes, site.health.blobs.open) == (0, 0)


async def test_open_cases_go_before_history_and_history_before_closed_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    asked = CloudClient._ask

    async def noting(client: Any, session: Any, request: Any) -> Any:
        answer = await asked(client, session, request)
        if request.method == "PATCH" or "/history/" in request.path:
            order.append("history" if "/history/" in request.path else request.path.rpartition("/")[2])
        return answer

    monkeypatch.setattr(CloudClient, "_ask", noting)
    async with edge(tmp_path / "edge") as site, History(tmp_path / "edge/history.db", "gw1") as history:
        site.history = history
        closed = await site.put(picture(CHUNK_BYTES, 1), case="h1")
        await site.record(kind="hazard.closed", case="h1")
        opened = [await site.put(picture(2 * CHUNK_BYTES, seed), case="h2") for seed in (2, 3)]
        for _ in range(12):
            at = now()
            history.add([Reading(point=f"a.b.p{i}", value=i / 10, quality=Quality.GOOD, at=at) for i in range(20)])
            await history.flush(seal=True)
        async with cloud(tmp_path / "cloud") as port, site.linked(port):
            await until(lambda: site.is_sent(closed, *opened))
            await until(lambda: site.health.backlog_segments == 0)
    assert order.index(closed) > max(at for at, what in enumerate(order) if what in opened)
    assert order.index(closed) > max(at for at, what in enumerate(order) if what == "history")
    # one or two segments may have been on their way before the first blob was looked at
    assert sum(what == "history" for what in order[: order.index(opened[1])]) <= 3


async def test_a_new_open_case_overtakes_what_is_half_sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    go_on = asyncio.Event()
    patch = CloudClient.patch

    async def noting(client: Any, session: Any, path: str, offset: int, length: int, piece: bytes) -> Any:
        order.append(path.rpartition("/")[2])
        if len(order) == 2:
            await go_on.wait()
        return await patch(client, session, path, offset, length, piece)

    monkeypatch.setattr(CloudClient, "patch", noting)
    monkeypatch.setattr(Pace, "bulk_bytes", CHUNK_BYTES)
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site, site.linked(port):
        video = await site.put(picture(8 * CHUNK_BYTES, 1))
        await until(lambda: len(order) == 2)
        urgent = await site.put(picture(2 * CHUNK_BYTES, 2), case="h1")
        go_on.set()
        await until(lambda: site.is_sent(video, urgent))
        assert order == [video] * 2 + [urgent] * 2 + [video] * 6
        assert_all_right(tmp_path / "cloud", video, urgent)


async def test_blobs_wait_while_the_journal_sends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = asyncio.Event()
    seen: list[str] = []
    where, put, patch = CloudClient.where, CloudClient.put, CloudClient.patch

    async def slow_where(client: Any, *given: Any) -> Any:
        await asyncio.sleep(0.3)  # bulk would have the time to go first
        return await where(client, *given)

    async def slow_put(client: Any, *given: Any) -> Any:
        seen.append("journal")
        await busy.wait()
        return await put(client, *given)

    async def noting(client: Any, *given: Any) -> Any:
        seen.append("blob")
        return await patch(client, *given)

    monkeypatch.setattr(CloudClient, "where", slow_where)
    monkeypatch.setattr(CloudClient, "put", slow_put)
    monkeypatch.setattr(CloudClient, "patch", noting)
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        sha = await site.put(picture(1000), case="h1")
        async with site.linked(port):
            await until(lambda: site.health.blobs.waiting == 1)
            await until(lambda: seen)
            for _ in range(50):
                await asyncio.sleep(0)
            assert "blob" not in seen
            busy.set()
            await until(lambda: site.is_sent(sha))


async def test_bulk_that_comes_later_is_not_held_up_for_ever() -> None:
    turns = Turns(most_s=0.05)
    turns.begin(Rank.OPEN_CASES)
    await turns.turn(Rank.OPEN_CASES)
    async with asyncio.timeout(5):
        await turns.turn(Rank.HISTORY)
    turns = Turns(most_s=60)
    turns.begin(Rank.HISTORY)
    waiting = asyncio.create_task(turns.turn(Rank.CLOSED_CASES))
    await asyncio.sleep(0)
    assert not waiting.done()
    turns.end(Rank.HISTORY)
    async with asyncio.timeout(5):
        await waiting


# --- chaos -------------------------------------------------------------------------------------------------------


async def test_after_cuts_everywhere_every_blob_is_whole(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice = random.Random(seed)

    def plan() -> tuple[int | None, int | None]:
        kind = dice.choice(["cut request", "cut reply", "lost reply", "later"])
        if kind == "cut request":
            return dice.randrange(400_000), None
        if kind == "cut reply":
            return None, dice.randrange(600)
        if kind == "lost reply":
            return None, 0
        return dice.randrange(300_000, 900_000), None

    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        cutter = Cutter(port)
        cutter.plan = plan
        async with cutter.listening() as door, site.linked(door):
            sent: list[str] = []
            while cutter.broken < 25:
                assert len(sent) < 60, f"connections break (seed {seed})"
                data = picture(dice.randrange(1, 1_500_000), seed + len(sent))
                sent.append(await site.put(data, case=f"h{len(sent)}"))
                await until(lambda: site.is_sent(sent[-1]), f"sent (seed {seed})")
            cutter.plan = lambda: (None, None)
            await until(lambda: site.is_sent(*sent), f"caught up (seed {seed})")
        assert_all_right(tmp_path / "cloud", *sent)
        # The oracle sees a loss and a flip.
        for damage in (lambda path: path.unlink(), lambda path: path.write_bytes(b"x" + path.read_bytes()[1:])):
            copy = tmp_path / "copy"
            shutil.copytree(tmp_path / "cloud", copy, ignore=shutil.ignore_patterns("*.sock"))
            damage(next((copy / "blobs").glob("??/??/*")))
            with pytest.raises(AssertionError):
                assert_all_right(copy, *sent)
            shutil.rmtree(copy)


async def test_a_cut_goes_on_at_the_clouds_offset(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        cutter = Cutter(port)
        cutter.plan = lambda: (5 * CHUNK_BYTES, None)  # each connection carries four pieces, and breaks in the fifth
        data = picture(20 * CHUNK_BYTES)
        async with cutter.listening() as door, site.linked(door):
            sha = await site.put(data, case="h1")
            await until(lambda: site.is_sent(sha))
        assert cutter.broken >= 4
        assert cutter.upwards < 1.5 * len(data), "what was durable is never sent again"
        assert_all_right(tmp_path / "cloud", sha)


@pytest.mark.parametrize("victim", ["edge", "cloud"])
async def test_kill_9_at_random_points_loses_no_named_blob(tmp_path: Path, victim: str, free_port: Any) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    dice, named, data = random.Random(seed), set[str](), tmp_path / "cloud"
    (tmp_path / "edge").mkdir()

    async def life(port: int, turn: int) -> None:
        script = "sitewarden.tests.peers.blob_edge"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", script, str(tmp_path / "edge"), str(port), str(turn), stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            for _ in range(dice.randrange(1, 9)):
                async with asyncio.timeout(BOUND_S):
                    line = await process.stdout.readline()
                named.add(line.decode().removeprefix("named ").strip())
            await asyncio.sleep(dice.random() * 0.2)
        finally:
            process.kill()
            rest, _ = await process.communicate()
            whole = rest.decode().rpartition("\n")[0].splitlines()
            named.update(line.removeprefix("named ") for line in whole)

    port = free_port()
    if victim == "edge":
        async with cloud(data, port):
            for turn in range(6):
                await life(port, turn)
    else:
        for turn in range(6):
            killed = await _cloud_process(tmp_path, port)
            killer = asyncio.create_task(life(port, turn))
            await asyncio.sleep(0.5 + dice.random())
            killed.kill()
            await killed.wait()
            again = await _cloud_process(tmp_path, port)
            await killer
            again.kill()
            await again.wait()
    async with cloud(data, port), edge(tmp_path / "edge") as site:
        with contextlib.closing(sqlite3.connect(tmp_path / "edge/journal.db")) as connection:
            wanted = {row[0] for row in connection.execute("SELECT sha256 FROM blob_ref")}
        assert named <= wanted, "what was told was committed"
        async with site.linked(port):
            await until(lambda: site.is_sent(*wanted), f"caught up (seed {seed})")
        assert len(wanted) >= 6
        assert_all_right(data, *wanted)


async def _cloud_process(tmp_path: Path, port: int) -> asyncio.subprocess.Process:
    """The service in a process of its own; returns when it answers."""
    (tmp_path / "people.csv").write_text("id,name,name_en,roles,areas,phone\n", "utf-8")
    (tmp_path / "cloud.toml").write_text(
        f'[cloud]\nname = "总部"\nname_en = "HQ"\nport = {port}\n'
        f'[[gateway]]\nid = "gw1"\nname = "一厂"\nname_en = "Plant"\npublic_key = "{public_key_text(KEY)}"\n',
        "utf-8",
    )
    command = ["-m", "sitewarden", "cloud", "--config", str(tmp_path / "cloud.toml"), "--data", str(tmp_path / "cloud")]
    log = (tmp_path / "cloud.log").open("ab")
    with log:
        process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=log, stderr=log)

    async def answers() -> bool:
        assert process.returncode is None, (tmp_path / "cloud.log").read_text("utf-8")
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            return False
        writer.close()
        return True

    await until(answers, "the cloud answers")
    return process


async def test_a_killed_s3_service_in_the_middle_of_a_blob_costs_nothing(tmp_path: Path) -> None:
    service = Seaweed(tmp_path / "seaweed")
    try:
        service.start()
        options = service.options("evidence")
        place: dict[str, Any] = {
            "url": options.url,
            "endpoint": options.endpoint,
            "credentials_file": str(service.credentials),
        }
        async with cloud(tmp_path / "cloud", **place) as port, edge(tmp_path / "edge") as site:
            data = picture(36 * CHUNK_BYTES + 3)
            sha = await site.put(data, case="h1")
            async with site.linked(port):

                async def have(least: int) -> bool:
                    found = rows(tmp_path / "cloud", "SELECT have FROM blob_part")
                    return bool(found) and found[0][0] >= least

                await until(lambda: have(6 * CHUNK_BYTES), "some pieces")
                service.kill()
                await until(lambda: site.health.reasons.get("blobs") == "unavailable", "the gateway is told")
                before = rows(tmp_path / "cloud", "SELECT have FROM blob_part")[0][0]
                await asyncio.to_thread(service.start)
                await until(lambda: site.is_sent(sha))
                assert before >= 6 * CHUNK_BYTES
            status, fields, piece = await ask(port, "GET", sha, headers={"Range": "bytes=0-99"})
            assert (status, fields["Content-Range"]) == (206, f"bytes 0-99/{len(data)}")
            assert piece == data[:100]
    finally:
        service.kill()


# --- loss on either side -----------------------------------------------------------------------------------------


async def test_a_flipped_bit_on_the_gateway_is_fetched_back_from_the_cloud(tmp_path: Path) -> None:
    told: list[str] = []

    def tell(kind: str, body: dict[str, object]) -> None:
        told.append(kind)

    data = picture(3 * CHUNK_BYTES + 9)
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge", tell=tell) as site, site.linked(port):
        sha = await site.put(data, case="h1")
        gone = await site.put(picture(40_000, 2), case="h1")
        await until(lambda: site.is_sent(sha, gone))
        path = site.blobs.files.path(sha)
        path.write_bytes(data[:1000] + bytes([data[1000] ^ 4]) + data[1001:])
        site.blobs.files.path(gone).unlink()
        with pytest.raises(Exception, match="has changed"):
            await site.blobs.verified(sha)
        await site.blobs.sweep()

        async def healed() -> bool:
            found = [await site.state(each) for each in (sha, gone)]
            return all(row is not None and row.local == "whole" for row in found)

        await until(healed, "fetched back")
        assert path.read_bytes() == data
        assert sorted(told) == ["blob.lost", "blob.lost", "blob.restored", "blob.restored"]
        await until(lambda: site.health.blobs.damaged == 0)


async def test_a_blob_that_is_damaged_before_it_was_sent_is_not_carried_over(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port, edge(tmp_path / "edge") as site:
        bad, good = await site.put(picture(5000, 1), case="h1"), await site.put(picture(5000, 2), case="h1")
        path = site.blobs.files.path(bad)
        path.write_bytes(b"\0" + path.read_bytes()[1:])
        async with site.linked(port):
            await until(lambda: site.is_sent(good))
            await until(lambda: site.health.blobs.damaged == 1)
        assert_all_right(tmp_path / "cloud", good)


async def test_what_a_restored_cloud_lost_is_sent_again(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    async with edge(tmp_path / "edge") as site:
        async with cloud(data) as port, site.linked(port):
            first = await site.put(picture(5000, 1), case="h1")
            await until(lambda: site.is_sent(first))
        shutil.copytree(data, tmp_path / "backup", ignore=shutil.ignore_patterns("*.sock"))
        async with cloud(data) as port, site.linked(port):
            later = [await site.put(picture(9000, seed), case="h1") for seed in (2, 3)]
            await until(lambda: site.is_sent(*later))
        shutil.rmtree(data)
        shutil.copytree(tmp_path / "backup", data)
        async with cloud(data) as port, site.linked(port):
            await until(lambda: sorted(stored(data)) == sorted([first, *later]), "sent again")
            await until(lambda: site.is_sent(first, *later))
        assert_all_right(data, first, *later)


async def test_what_is_damaged_in_the_store_is_asked_for_again(tmp_path: Path) -> None:
    data = tmp_path / "cloud"
    async with cloud(data) as port, edge(tmp_path / "edge") as site, site.linked(port):
        sha = await site.put(picture(5000, 1), case="h1")
        await until(lambda: site.is_sent(sha))
        path = next((data / "blobs").glob("??/??/*"))
        path.write_bytes(b"\0" + path.read_bytes()[1:])
        async with signed_in(port, data, LI) as page:
            async with page.get(f"/api/v1/sites/gw1/blobs/{sha}") as answer:
                assert (answer.status, (await answer.json())["error"]["reason"]) == (503, "unavailable")
            await until(lambda: name(path.read_bytes()) == sha, "sent again")

            async def shown() -> bool:
                async with page.get(f"/api/v1/sites/gw1/blobs/{sha}") as answer:
                    return answer.status == 200 and name(await answer.read()) == sha

            await until(shown)


async def test_what_is_damaged_in_the_store_is_never_given_back(tmp_path: Path) -> None:
    data = picture(5000)
    async with cloud(tmp_path / "cloud") as port:
        await send(port, data, 0, 5000)
        path = next((tmp_path / "cloud/blobs").glob("??/??/*"))
        path.write_bytes(b"\0" + data[1:])
        status, _, answer = await ask(port, "GET", name(data))
        assert (status, answer["error"]["reason"]) == (404, "no_such_blob")
        assert (await ask(port, "GET", ""))[2]["wanted"] == [name(data)]
        assert (await ask(port, "HEAD", name(data)))[1]["SW-Blob"] == "none"
        assert (await send(port, data, 0, 5000))[1]["n"] == 2
        assert (await ask(port, "GET", name(data)))[0] == 206


async def test_a_blob_that_the_cloud_does_not_take_holds_nothing_up(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud", max_mb=1) as port, edge(tmp_path / "edge") as site, site.linked(port):
        large = await site.put(picture(2**20 + 1, 1), case="h1")
        small = [await site.put(picture(5000, seed), case="h1") for seed in (2, 3)]
        await until(lambda: site.is_sent(*small))
        await until(lambda: site.health.blobs.refused == 1)
        assert site.health.blobs.refusal == "too_large"
        assert not await site.is_sent(large)
        assert "blobs" not in site.health.reasons, "the link is well"


# --- the protocol ------------------------------------------------------------------------------------------------


async def test_a_blob_in_pieces_by_hand(tmp_path: Path) -> None:
    data = picture(600_000)
    async with cloud(tmp_path / "cloud") as port:
        status, fields, _ = await ask(port, "HEAD", name(data))
        assert (status, fields["Upload-Offset"], fields["SW-Blob"]) == (200, "0", "none")
        assert (await send(port, data, 0, 256_000))[1]["state"] == "part"
        status, fields, _ = await ask(port, "HEAD", name(data))
        assert (fields["Upload-Offset"], fields["Upload-Length"], fields["SW-Blob"]) == ("256000", "600000", "part")
        status, answer = await send(port, data, 100_000, 300_000)
        assert (status, answer["error"]["reason"], answer["offset"]) == (409, "offset", 256_000)
        part = next((tmp_path / "cloud/blobs/incoming").iterdir())
        assert part.stat().st_size == 256_000, "nothing was touched"
        status, answer = await send(port, data, 256_000, 600_000)
        assert (status, answer["state"], answer["offset"], answer["n"]) == (200, "durable", 600_000, 1)
        assert (await send(port, data, 0, 256_000))[1]["state"] == "durable", "a repeat changes nothing"
        status, fields, _ = await ask(port, "HEAD", name(data))
        assert (fields["Upload-Offset"], fields["SW-Blob"], fields["SW-Number"]) == ("600000", "durable", "1")
        back = b""
        while len(back) < len(data):
            status, fields, piece = await ask(port, "GET", name(data), headers={"Range": f"bytes={len(back)}-999999"})
            assert status == 206
            back += piece
        assert back == data
        assert (await ask(port, "GET", ""))[2]["last"] == 1


async def test_wrong_content_is_refused_and_begins_again(tmp_path: Path) -> None:
    data, other = picture(5000, 1), picture(5000, 2)
    async with cloud(tmp_path / "cloud") as port:
        status, answer = await send(port, other, 0, 5000, sha256=name(data))
        assert (status, answer["error"]["reason"]) == (409, "wrong_content")
        _, fields, _ = await ask(port, "HEAD", name(data))
        assert fields["Upload-Offset"] == "0"
        assert (await send(port, data, 0, 5000))[1]["state"] == "durable"
        assert_all_right(tmp_path / "cloud", name(data))


async def test_two_gateways_send_the_same_blob_and_neither_sees_the_others(tmp_path: Path) -> None:
    data = picture(3 * CHUNK_BYTES)
    two: dict[str, Any] = {"gateway": "gw2", "key": KEY_2}
    async with cloud(tmp_path / "cloud") as port:
        async with (
            edge(tmp_path / "a") as one,
            edge(tmp_path / "b", "gw2") as other,
            one.linked(port),
            other.linked(port),
        ):
            sha = await one.put(data, case="h1")
            assert await other.put(data, case="h1") == sha
            await until(lambda: one.is_sent(sha))
            await until(lambda: other.is_sent(sha))
        assert list(stored(tmp_path / "cloud")) == [sha]
        mine = picture(5000, 7)
        await send(port, mine, 0, 5000)
        _, fields, _ = await ask(port, "HEAD", name(mine), **two)
        assert (fields["SW-Blob"], fields["Upload-Offset"]) == ("none", "0"), "it has to send every byte itself"
        status, _, answer = await ask(port, "GET", name(mine), **two)
        assert (status, answer["error"]["reason"]) == (404, "no_such_blob")
        assert (await send(port, mine, 0, 5000, **two))[1]["state"] == "durable"


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    [
        ({"key": KEY_2}, 401, "wrong_key"),
        ({"gateway": "gw2"}, 401, "wrong_key"),
        ({"gateway": "gw9"}, 403, "unknown_gateway"),
        ({"signed_upload": (7, 5000)}, 401, "bad_signature"),
        ({"signed_upload": (0, 6000)}, 401, "bad_signature"),
        ({"digest_of": b"something else"}, 400, "digest"),
        ({"late_s": 1000}, 401, "clock"),
        ({"without": ["Signature"]}, 401, "unsigned"),
        ({"without": ["Upload-Offset"]}, 400, "bad_request"),
        ({"without": ["Content-Digest"]}, 400, "bad_request"),
        ({"upload": (-1, 5000)}, 400, "bad_request"),
        ({"upload": (0, 4999)}, 400, "bad_request"),
        ({"upload": (0, 0)}, 400, "bad_request"),
        ({"upload": (5000, 10_000)}, 409, "offset"),
        ({"upload": (0, 600 * 2**20)}, 413, "too_large"),
        ({"sha256": "ABC"}, 400, "bad_request"),
        ({"sha256": "a" * 63 + "G"}, 400, "bad_request"),
    ],
)
async def test_a_piece_that_is_not_right_changes_nothing(
    tmp_path: Path, change: dict[str, Any], status: int, reason: str
) -> None:
    data = picture(5000)
    async with cloud(tmp_path / "cloud") as port:
        got, answer = await send(port, data, 0, 5000, **change)
        assert (got, answer["error"]["reason"]) == (status, reason)
        assert rows(tmp_path / "cloud", "SELECT have FROM blob_part WHERE have > 0") == []
        assert stored(tmp_path / "cloud") == {}


async def test_refusals_of_head_say_why_in_a_field(tmp_path: Path) -> None:
    async with cloud(tmp_path / "cloud") as port:
        wrong: dict[str, dict[str, Any]] = {"wrong_key": {"key": KEY_2}, "unknown_gateway": {"gateway": "gw9"}}
        for reason, options in wrong.items():
            _, fields, _ = await ask(port, "HEAD", name(b"x"), **options)
            assert fields["SW-Reason"] == reason


async def test_a_piece_has_a_largest_size(tmp_path: Path) -> None:
    data = picture(wire.MAX_CHUNK_BYTES + 1)
    async with cloud(tmp_path / "cloud") as port:
        status, answer = await send(port, data, 0, len(data))
        assert (status, answer["error"]["reason"]) == (413, "too_large")
        assert (await send(port, data, 0, wire.MAX_CHUNK_BYTES))[0] == 200


async def test_what_nobody_goes_on_with_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = picture(5000)
    async with cloud(tmp_path / "cloud") as port:
        await send(port, data, 0, 2000)
    monkeypatch.setattr(cloud_blobs, "STALE_S", -1.0)
    async with cloud(tmp_path / "cloud"):
        await until(lambda: not list((tmp_path / "cloud/blobs/incoming").iterdir()))
        await until(lambda: rows(tmp_path / "cloud", "SELECT count(*) FROM blob_part") == [(0,)])


# --- headquarters' page ------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def signed_in(port: int, data: Path, person: Person) -> AsyncIterator[aiohttp.ClientSession]:
    secrets = Secrets(data / "secrets.db")
    secrets.set_pin(person.id, PIN)
    secrets.close()
    jar = aiohttp.CookieJar(unsafe=True)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", cookie_jar=jar) as session:
        async with session.post("/api/v1/session", json={"person": person.id, "pin": PIN}) as answer:
            assert answer.status == 200
        yield session


async def test_evidence_is_shown_to_those_who_may_see_it(tmp_path: Path) -> None:
    data = picture(300_000)
    path = f"/api/v1/sites/gw1/blobs/{name(data)}"
    async with cloud(tmp_path / "cloud") as port:
        await send(port, data, 0, len(data))
        async with aiohttp.ClientSession() as nobody, nobody.get(f"http://127.0.0.1:{port}{path}") as answer:
            assert answer.status == 401
        async with signed_in(port, tmp_path / "cloud", WU) as page, page.get(path) as answer:
            assert (answer.status, (await answer.json())["error"]["reason"]) == (403, "not_your_role")
        async with signed_in(port, tmp_path / "cloud", LI) as page:
            async with page.get(path) as answer:
                assert (answer.status, await answer.read()) == (200, data)
                assert answer.headers["Content-Type"] == "image/jpeg"
                assert "sandbox" in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
            for other in (path.replace("gw1", "gw2"), path.replace("gw1", "gw9"), f"{path[:-1]}Z"):
                async with page.get(other) as answer:
                    assert (answer.status, (await answer.json())["error"]["reason"]) == (404, "no_such_blob")
