"""Headquarters' page of one site: what the database knows of it, on both engines, and who may have what lies aside."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.cloud import bundle_pages
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.blob_store import STEPS as BLOB_STEPS
from sitewarden.cloud.blob_store import BlobRecords, Limits
from sitewarden.cloud.charts import STEPS as CHART_STEPS
from sitewarden.cloud.charts import Charts
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.cloud.engine import Database, SqliteDatabase
from sitewarden.cloud.engine_postgres import PostgresDatabase
from sitewarden.cloud.parcels import open_parcel
from sitewarden.cloud.site_store import Counts, SiteStore
from sitewarden.cloud.store import PARTITIONED, Parcel, Store
from sitewarden.cloud.store import STEPS as STORE_STEPS
from sitewarden.cloud.witness_store import STEPS as WITNESS_STEPS
from sitewarden.cloud.witness_store import Witnessed, WitnessStore
from sitewarden.serving.people import Person
from sitewarden.serving.secrets import Secrets
from sitewarden.sync.bundle import BATCHES, BundleReader, BundleWriter
from sitewarden.sync.columns import compress
from sitewarden.sync.gaps import Gap, pack_gap
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.merkle import EMPTY
from sitewarden.sync.outbox import JournalOutbox
from sitewarden.sync.streams import batch_chain, stream_genesis
from sitewarden.tests.peers.ports import free_port
from sitewarden.tests.peers.postgres import PostgresServer
from sitewarden.tests.peers.stores import EPOCH, RECEIVED_MS, Stream, fresh, need_postgres
from sitewarden.words import now

STEPS = [*STORE_STEPS, *WITNESS_STEPS, *CHART_STEPS, *BLOB_STEPS]
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
IT = Person(id="p_it", name="刘信", name_en="Liu", roles=("it",), areas=("*",))
LI = Person(id="p_li", name="李敏", name_en="Li Min", roles=("officer",), areas=("*",))
WU = Person(id="p_wu", name="吴强", name_en="Wu Qiang", roles=("worker",), areas=("*",))
PIN = "135790"
BOUND_S = 60


# --- the database ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    need_postgres()
    with tempfile.TemporaryDirectory(prefix="pg", ignore_cleanup_errors=True) as folder:
        made = PostgresServer(Path(folder) / "one", free_port())
        made.init()
        made.start("-c", "fsync=off", "-c", "full_page_writes=off")
        try:
            yield made
        finally:
            made.stop()


@pytest.fixture(params=["sqlite", "postgres"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Database]:
    if request.param == "sqlite":
        async with SqliteDatabase(tmp_path / "cloud.db", STEPS) as made:
            yield made
    else:
        url = await fresh(request.getfixturevalue("server"))
        async with PostgresDatabase(url, STEPS, partitioned=PARTITIONED) as made:
            yield made


def poisoned(n: int, chain: bytes, text: bytes = b"poison") -> Parcel:
    """A journal batch whose content nobody can read."""
    after = batch_chain(chain, n, text)
    return open_parcel("gw1", "journal", EPOCH, n, after, compress(text), RECEIVED_MS + n)


async def test_nothing_is_known_of_a_site_that_never_sent(database: Database) -> None:
    store = SiteStore(database)
    nothing = {"epochs": [], "gaps": [], "checkpoints": [], "quarantine": []}
    evidence = {"count": 0, "bytes": 0, "wanted": 0, "unfinished": 0}
    assert await store.details("gw1") == {**nothing, "evidence": evidence}
    assert await store.counts() == {}
    assert await store.set_aside("gw1", 1) is None


async def test_what_was_set_aside_is_found_as_it_came_and_by_its_own_gateway_alone(database: Database) -> None:
    store, pages = Store(database), SiteStore(database)
    first = poisoned(1, stream_genesis("gw1", "journal", EPOCH))
    await store.take(first)
    await store.take(poisoned(2, first.chain, b"another"))
    newest, oldest = (await pages.details("gw1"))["quarantine"]
    assert (newest["n"], oldest["n"], oldest["stream"], oldest["epoch"]) == (2, 1, "journal", EPOCH)
    assert (oldest["seq"], oldest["bytes"]) == (None, len(first.body))
    assert oldest["reason"]
    assert oldest["at"].startswith("2026-11-")
    found = await pages.set_aside("gw1", oldest["id"])
    assert found is not None
    assert (found.body, found.n) == (first.body, 1)
    assert await pages.set_aside("gw2", oldest["id"]) is None


async def test_a_single_record_that_was_set_aside_is_found_among_the_records(
    database: Database, tmp_path: Path
) -> None:
    store, pages = Store(database), SiteStore(database)
    async with Journal(tmp_path / "gw1.db", "gw1") as journal:
        await journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body={"alarm": "odd"})])
        outbox = JournalOutbox(journal)
        await outbox.open()
        batch = await outbox.batch(1)
        assert batch is not None
        await store.take(open_parcel("gw1", "journal", outbox.epoch, 1, batch.chain, batch.body, RECEIVED_MS))
    (aside,) = (await pages.details("gw1"))["quarantine"]
    assert (aside["seq"], aside["bytes"]) == (1, None)
    found = await pages.set_aside("gw1", aside["id"])
    assert found is not None
    assert b'"alarm":"odd"' in (found.body or b"")


async def test_gaps_are_listed_and_counted(database: Database) -> None:
    store, pages, stream = Store(database), SiteStore(database), Stream()
    await store.take(stream.next())
    gap = Gap(
        first=2, last=5, before=stream.chain, after=b"\7" * 32, t0_ms=1_000, t1_ms=61_000, readings=70, why="disk"
    )
    await store.take(open_parcel("gw1", "history", EPOCH, 2, gap.after, compress(pack_gap(gap)), RECEIVED_MS))
    (told,) = (await pages.details("gw1"))["gaps"]
    assert (told["first"], told["last"], told["readings"], told["why"]) == (2, 5, 70, "disk")
    assert (told["from"], told["to"]) == ("1970-01-01T00:00:01.000Z", "1970-01-01T00:01:01.000Z")
    await Charts(database).step()
    assert await pages.counts() == {"gw1": Counts(reading_ms=RECEIVED_MS + 1, gaps=1, gap_readings=70)}


async def test_epochs_checkpoints_and_evidence_are_told(database: Database) -> None:
    store, pages, witness, blobs = Store(database), SiteStore(database), WitnessStore(database), BlobRecords(database)
    await store.take(replace(poisoned(1, stream_genesis("gw1", "journal", EPOCH)), received_ms=RECEIVED_MS))
    for size, time_s in ((5, 1_700_000_000), (9, 1_700_009_000)):
        one = Witnessed(epoch=EPOCH, size=size, note="note", cosignature="line", time_s=time_s)
        await witness.keep("gw1", one, EMPTY)
    await blobs.finish("gw1", "a" * 64, 500, RECEIVED_MS)
    await blobs.finish("gw1", "b" * 64, 70, RECEIVED_MS)
    await blobs.want("b" * 64)
    await blobs.begin("gw1", "c" * 64, 10, Limits(size=1000, quota=10_000), RECEIVED_MS)
    details = await pages.details("gw1")
    (epoch,) = details["epochs"]
    assert (epoch["epoch"], epoch["alive"], epoch["reason"], epoch["predecessor"]) == (EPOCH, True, "", None)
    assert [one["records"] for one in details["checkpoints"]] == [9, 5]
    assert details["evidence"] == {"count": 2, "bytes": 570, "wanted": 1, "unfinished": 1}


# --- over HTTP ---------------------------------------------------------------------------------------------------


@dataclass
class Cloud:
    url: str
    data: Path

    @contextlib.asynccontextmanager
    async def as_(self, person: Person) -> AsyncIterator[Client]:
        async with aiohttp.ClientSession(self.url, cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.post("/api/v1/session", json={"person": person.id, "pin": PIN}) as reply:
                token = {"X-CSRF-Token": (await reply.json())["csrf"]}
            yield Client(session, token)


@dataclass
class Client:
    session: aiohttp.ClientSession
    token: dict[str, str]

    async def ask(self, method: str, path: str, **more: Any) -> tuple[int, Any]:
        headers = {**self.token, **more.pop("headers", {})}
        async with self.session.request(method, f"/api/v1{path}", headers=headers, **more) as reply:
            return reply.status, await reply.json(content_type=None)

    async def bring(self, data: bytes, piece: int = 1 << 20) -> list[dict[str, Any]]:
        """A bundle in pieces, taken in; the lines of the answer."""
        status, begun = await self.ask("POST", "/bundles", json={"size": len(data)})
        assert status == 200, begun
        for at in range(0, len(data), piece):
            status, told = await self.ask("PUT", f"/bundles/{begun['upload']}/{at}", data=data[at : at + piece])
            assert (status, told) == (200, {"offset": min(at + piece, len(data))})
        async with self.session.post(f"/api/v1/bundles/{begun['upload']}", headers=self.token) as reply:
            if reply.status != 200:
                return [{"status": reply.status, **await reply.json()}]
            return [json.loads(line) async for line in reply.content]


@pytest.fixture
async def cloud(tmp_path: Path) -> AsyncIterator[Cloud]:
    config = CloudConfig(
        cloud=CloudTable(name="总部", name_en="HQ", port=0),
        gateway=(GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(KEY)),),
        people={person.id: person for person in (IT, LI, WU)},
    )
    with contextlib.closing(Secrets(tmp_path / "secrets.db")) as secrets:
        for person in config.people:
            secrets.set_pin(person, PIN)
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_cloud(config, tmp_path, ready=up.set_result))
    try:
        await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED, timeout=BOUND_S)
        yield Cloud(f"http://127.0.0.1:{up.result()}", tmp_path)
    finally:
        task.cancel()
        await asyncio.wait([task])


def stick(*texts: bytes, key: Ed25519PrivateKey = KEY, first: int = 1) -> bytes:
    """A bundle of journal batches that nobody can read: they are stored, and set aside."""
    file, chain = io.BytesIO(), stream_genesis("gw1", "journal", EPOCH)
    writer = BundleWriter(file, key, kind=BATCHES, gateway="gw1", made_ms=1)
    for n, text in enumerate(texts, 1):
        chain = batch_chain(chain, n, text)
        if n >= first:
            writer.add_batch("journal", EPOCH, n, chain, compress(text))
    writer.finish()
    return file.getvalue()


def uploads(cloud: Cloud) -> list[Path]:
    return list((cloud.data / "uploads").glob("*"))


async def test_a_bundle_comes_in_pieces_is_taken_in_and_answered(cloud: Cloud, eventually: Callable[..., Any]) -> None:
    data = stick(b"one", b"two")
    async with cloud.as_(LI) as li:
        *steps, result = await li.bring(data, piece=300)
        assert steps == [{"done": 2, "of": 2}]
        (stream,) = result["streams"]
        assert (stream["new"], stream["known"], stream["quarantined"], stream["ack"]) == (2, 0, 2, 2)
        answer = BundleReader(io.BytesIO(base64.b64decode(result["answer"])))
        assert (answer.manifest.gateway, answer.manifest.cursors["journal"][0].ack) == ("gw1", 2)
        *_, again = await li.bring(data)
        assert [(one["new"], one["known"]) for one in again["streams"]] == [(0, 2)]
        await eventually(lambda: uploads(cloud) == [], "the file is gone")
        status, page = await li.ask("GET", "/sites/gw1")
        assert (status, len(page["quarantine"]), page["site"]["quarantined"]) == (200, 2, 2)


async def test_what_is_set_aside_is_given_to_it_alone(cloud: Cloud) -> None:
    async with cloud.as_(LI) as li, cloud.as_(IT) as it:
        await li.bring(stick(b"one"))
        _, page = await li.ask("GET", "/sites/gw1")
        path = f"/sites/gw1/quarantine/{page['quarantine'][0]['id']}"
        status, told = await li.ask("GET", path)
        assert (status, told["error"]["reason"]) == (403, "not_your_role")
        async with it.session.get(f"/api/v1{path}") as reply:
            assert await reply.read() == compress(b"one")
            assert reply.headers["Content-Disposition"] == f'attachment; filename="gw1-journal-{EPOCH}-batch-1.zst"'
        for wrong in ("/sites/gw1/quarantine/99", "/sites/gw1/quarantine/x", "/sites/gw9/quarantine/1", "/sites/gw9"):
            assert (await it.ask("GET", wrong))[0] == 404


@pytest.mark.parametrize(
    ("make", "status", "reason"),
    [
        (lambda: b"PK no zip at all", 400, "damaged"),
        (lambda: stick(b"one")[:-40], 400, "damaged"),
        (lambda: stick(b"one", key=Ed25519PrivateKey.generate()), 409, "wrong_key"),
    ],
)
async def test_a_file_that_is_no_good_says_why_and_leaves_nothing(
    cloud: Cloud, make: Callable[[], bytes], status: int, reason: str
) -> None:
    async with cloud.as_(LI) as li:
        (told,) = await li.bring(make())
        assert (told["status"], told["error"]["reason"]) == (status, reason)
        assert uploads(cloud) == []
        assert (await li.ask("GET", "/sites/gw1"))[1]["epochs"] == []


async def test_a_later_file_before_the_earlier_one_says_so_and_keeps_what_it_can(cloud: Cloud) -> None:
    async with cloud.as_(LI) as li:
        *_, result = await li.bring(stick(b"one", b"two", first=2))
        assert [one["problem"] for one in result["streams"]] == ["gap: batch 1 comes first"]


async def test_a_piece_counts_once_and_in_its_place(cloud: Cloud) -> None:
    data = stick(b"one")
    async with cloud.as_(LI) as li, cloud.as_(IT) as it:
        _, begun = await li.ask("POST", "/bundles", json={"size": len(data)})
        path = f"/bundles/{begun['upload']}"
        assert (await li.ask("PUT", f"{path}/0", data=data[:100])) == (200, {"offset": 100})
        assert (await li.ask("PUT", f"{path}/0", data=data[:100])) == (200, {"offset": 100}), "the answer had been lost"
        status, told = await li.ask("PUT", f"{path}/50", data=data[50:150])
        assert (status, told["error"]["reason"]) == (409, "offset")
        status, told = await li.ask("PUT", f"{path}/100", data=data[100:] + b"more")
        assert (status, told["error"]["reason"]) == (413, "too_large")
        status, told = await li.ask("POST", path)
        assert (status, told["error"]["reason"]) == (409, "offset")
        assert (await it.ask("PUT", f"{path}/100", data=b"x"))[0] == 404, "another person's"
        assert (await li.ask("PUT", f"{path}/100", data=data[100:])) == (200, {"offset": len(data)})
        async with li.session.post(f"/api/v1{path}", headers=li.token) as reply:
            assert b'"answer"' in await reply.read()


async def test_who_may_not_and_what_is_too_much_is_refused_before_a_byte(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with cloud.as_(WU) as wu, cloud.as_(LI) as li:
        for method, path in (("POST", "/bundles"), ("PUT", "/bundles/x/0"), ("POST", "/bundles/x")):
            status, told = await wu.ask(method, path, json={"size": 1})
            assert (status, told["error"]["reason"]) == (403, "not_your_role")
            status, told = await li.ask(method, path, json={"size": 1}, headers={"X-CSRF-Token": "x"})
            assert (status, told["error"]["reason"]) == (403, "csrf")
        assert (await li.ask("POST", "/bundles", json={"size": 1 << 40}))[1]["error"]["reason"] == "too_large"
        assert (await li.ask("POST", "/bundles", json={"size": 0}))[0] == 400
        monkeypatch.setattr(bundle_pages, "ROOM_BYTES", 1 << 60)
        status, told = await li.ask("POST", "/bundles", json={"size": 10})
        assert (status, told["error"]["reason"]) == (507, "disk_full")


async def test_what_nobody_goes_on_with_is_thrown_away(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, eventually: Callable[..., Any]
) -> None:
    async with cloud.as_(LI) as li:
        for _ in range(2):  # beginning anew throws away what the same person had begun
            _, begun = await li.ask("POST", "/bundles", json={"size": 10})
            await li.ask("PUT", f"/bundles/{begun['upload']}/0", data=b"12345")
            assert len(uploads(cloud)) == 1
        monkeypatch.setattr(bundle_pages, "STALE_S", 0.0)
        monkeypatch.setattr(bundle_pages, "_LOOK_S", 0.01)
        pages = bundle_pages.BundlePages(None, cloud.data)  # pyright: ignore[reportArgumentType] - takes nothing in
        name = "ab" * 16
        path = cloud.data / "uploads" / name
        path.write_bytes(b"x")
        pages._uploads[name] = bundle_pages.Upload(person="p_li", path=path, size=9, have=1)
        task = asyncio.create_task(pages.run())
        await eventually(lambda: not path.exists(), "thrown away")
        task.cancel()


async def test_every_fact_of_the_list_is_there(cloud: Cloud) -> None:
    async with cloud.as_(WU) as wu:
        _, fleet = await wu.ask("GET", "/sites")
        (site,) = fleet["sites"]
        assert site["journal"] == {"epoch": None, "ack": 0, "records": 0, "newest": None}
        assert (site["gap_count"], site["gap_readings"], site["history"]["newest"]) == (0, 0, None)
