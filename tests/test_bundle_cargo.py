"""Sync by USB stick, beside the batches: evidence goes along, and configuration comes back."""

from __future__ import annotations

import base64
import hashlib
import io
import random
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sitewarden.bundle_files import write_files
from sitewarden.cloud.blob_files import FileBlobStore
from sitewarden.cloud.blob_store import STEPS as BLOB_STEPS
from sitewarden.cloud.blob_store import BlobRecords
from sitewarden.cloud.blobs import Blobs as CloudBlobs
from sitewarden.cloud.bundles import Bundles
from sitewarden.cloud.config import BlobsTable, CloudConfig, CloudTable
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.store import STEPS, Store
from sitewarden.console.language import translator
from sitewarden.console.words import WORDS
from sitewarden.edge.bundle_cargo import order_of_stopped
from sitewarden.edge.bundling import Bundling
from sitewarden.edge.cases import CASES
from sitewarden.errors import RefusedError
from sitewarden.serving.web import answer_refusals
from sitewarden.sync.blob_refs import state_table
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.bundle import BATCHES, BLOBS_KNOWN, BundleError, BundleReader, BundleWriter
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.keys import key_id
from sitewarden.sync.orders import Order, make_order
from sitewarden.words import Quality, Reading, now

KEY, CLOUD_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
KEYS, CLOUD_KEYS = ({key_id(key): key.public_key()} for key in (KEY, CLOUD_KEY))
BASELINE = {"name": "基线", "name_en": "Baseline"}


def picture(size: int, seed: int = 1) -> bytes:
    return (b"\xff\xd8\xff\xe0" + random.Random(seed).randbytes(size))[:size]


def name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def _piece(data: bytes) -> AsyncIterator[bytes]:
    yield data


@dataclass
class Site:
    journal: Journal
    history: History
    blobs: Blobs
    bundling: Bundling

    async def report(self, data: bytes, *, case: str = "", closed: bool = False) -> str:
        """A picture, and a record that names it; of a deviation report when `case` is given."""
        sha256 = await self.blobs.take(_piece(data))
        kind = ("deviation.closed" if closed else "deviation.opened") if case else "note.made"
        body = {"id": case, "closed": "now" if closed else None} if case else {}
        await self.journal.append([Draft(kind=kind, at=now(), actor="gateway", body=body, blobs=(sha256,))])
        return sha256

    async def export(self, **limits: int) -> bytes:
        file = io.BytesIO()

        async def put(piece: bytes) -> None:
            file.write(piece)

        await self.bundling.export(await self.bundling.begin(), put, **limits)
        return file.getvalue()

    async def cloud_state(self, sha256: str) -> str:
        known = await self.blobs.known(sha256)
        return known.cloud if known is not None else ""


@asynccontextmanager
async def gateway(folder: Path, take_order: Any = order_of_stopped) -> AsyncIterator[Site]:
    folder.mkdir(exist_ok=True)
    async with (
        Journal(folder / "journal.db", "gw1", (state_table(CASES),)) as journal,
        History(folder / "history.db", "gw1") as history,
        Blobs(folder / "blobs", journal, rules=CASES) as blobs,
    ):
        bundling = Bundling(journal, history, KEY, lambda: CLOUD_KEYS, blobs, take_order)
        yield Site(journal, history, blobs, bundling)


@dataclass
class Headquarters:
    folder: Path
    records: BlobRecords
    blobs: CloudBlobs
    bundles: Bundles

    async def bring(self, data: bytes) -> dict[str, Any]:
        async def tell(_: dict[str, Any]) -> None: ...

        return await self.bundles.take(io.BytesIO(data), tell)

    def kept(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (self.folder / "blobs").glob("??/??/*")}


@asynccontextmanager
async def headquarters(folder: Path, **limits: Any) -> AsyncIterator[Headquarters]:
    folder.mkdir(exist_ok=True)
    config = CloudConfig(cloud=CloudTable(name="总部", name_en="HQ"), blobs=BlobsTable(**limits))

    async def keys_of(_: str) -> dict[str, Any]:
        return KEYS

    async with (
        SqliteDatabase(folder / "cloud.db", [*STEPS, *BLOB_STEPS]) as database,
        FileBlobStore(folder / "blobs") as store,
    ):
        records = BlobRecords(database)
        blobs = CloudBlobs(config, records, store)
        bundles = Bundles(Store(database), keys_of, CLOUD_KEY, X25519PrivateKey.generate(), folder, lambda _: None)
        bundles.blobs = blobs
        yield Headquarters(folder, records, blobs, bundles)


def answer_of(result: dict[str, Any]) -> BundleReader:
    return BundleReader(io.BytesIO(base64.b64decode(result["answer"])))


def evidence_in(stick: bytes) -> list[str]:
    return list(BundleReader(io.BytesIO(stick)).manifest.blobs)


# --- evidence ----------------------------------------------------------------------------------------------------


async def test_evidence_goes_along_is_stored_once_and_need_not_travel_again(tmp_path: Path):
    pictures = [picture(300_000, 1), picture(2_500_000, 2)]
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as hq:
        names = [await site.report(data) for data in pictures]
        stick = await site.export()
        result = await hq.bring(stick)
        assert result["blobs"] == {"new": 2, "known": 0, "refused": 0, "problem": ""}
        assert hq.kept() == {name(data): data for data in pictures}
        again = await hq.bring(stick)
        assert again["blobs"] == {"new": 0, "known": 2, "refused": 0, "problem": ""}
        assert evidence_in(await site.export()) == names, "nobody has told the gateway yet"
        taken = await site.bundling.take_answer(answer_of(again))
        assert taken["blobs"] == {"arrived": 2, "waiting": 0}
        assert {await site.cloud_state(sha256) for sha256 in names} == {"durable"}
        assert evidence_in(await site.export()) == []


async def test_evidence_of_open_cases_goes_first_and_what_does_not_fit_goes_next_time(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as hq:
        closed = await site.report(picture(400_000, 1), case="d1", closed=True)
        opened = await site.report(picture(400_000, 2), case="d2")
        site.history.add([Reading(point="a.b.c", value=1.0, quality=Quality.GOOD, at=now())])
        first = await site.export(max_bytes=500_000)
        manifest = BundleReader(io.BytesIO(first)).manifest
        assert (list(manifest.blobs), manifest.more) == ([opened], True)
        assert {packed.stream for packed in manifest.batches} == {"journal", "history"}
        assert len(first) < 500_000
        second = await site.export(max_bytes=500_000, blobs_skip=1)
        assert evidence_in(second) == [closed]
        assert not BundleReader(io.BytesIO(second)).manifest.more
        await site.bundling.take_answer(answer_of(await hq.bring(first)))
        assert evidence_in(await site.export(max_bytes=500_000)) == [closed]
        assert (await hq.bring(second))["blobs"]["new"] == 1


async def test_what_is_too_much_for_one_file_goes_into_several_and_no_more_than_there_is_room_for(tmp_path: Path):
    (tmp_path / "stick").mkdir()
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as hq:
        names = [await site.report(picture(100_000, seed)) for seed in range(5)]

        async def pour(since: Any, put: Any, blobs: int, left: int) -> None:
            await site.bundling.export(since, put, blobs_skip=blobs, max_bytes=min(left, 250_000))

        def write(most: int | None) -> Any:
            return write_files(tmp_path / "stick" / "plant.swx", known, pour, None, translator("en", WORDS), most)

        known = await site.bundling.begin()
        written, is_all = await write(None)
        assert [path.name for path, _ in written] == ["plant.swx", "plant-2.swx", "plant-3.swx"]
        assert ([len(manifest.blobs) for _, manifest in written], is_all) == ([2, 2, 1], True)
        for path, _ in written:
            await hq.bring(path.read_bytes())
        assert sorted(hq.kept()) == sorted(names)
        written, is_all = await write(260_000)
        assert (sum(len(manifest.blobs) for _, manifest in written), is_all) == (2, False)
        assert sum(path.stat().st_size for path, _ in written) <= 260_000
        assert await write(300) == ([], False), "not one batch fits"


async def test_a_gateway_that_runs_is_asked_for_the_same(tmp_path: Path):
    app = web.Application(middlewares=[answer_refusals])
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as hq:
        site.bundling.add_to(app)
        first, second = [await site.report(picture(50_000, seed)) for seed in (1, 2)]
        async with TestClient(TestServer(app)) as client:
            asked = {"since": (await (await client.get("/v1/bundle")).json())["since"]}
            whole = await (await client.post("/v1/bundle", json=asked)).read()
            assert evidence_in(whole) == [first, second]
            part = await client.post("/v1/bundle", json=asked | {"blobs_skip": 1, "max_bytes": 100_000})
            assert evidence_in(await part.read()) == [second]
            answer = base64.b64decode((await hq.bring(whole))["answer"])
            told = await (await client.post("/v1/bundle/answer", data=answer)).json()
            assert told["blobs"] == {"arrived": 2, "waiting": 0}


async def test_an_import_that_broke_off_goes_on_at_the_durable_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    data = picture(3_000_000)
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as hq:
        await site.report(data)
        stick, offsets = await site.export(), list[int]()
        append = hq.blobs._store.append

        async def dying(key: Any, offset: int, piece: bytes) -> None:
            if len(offsets) == 2:
                raise OSError("the power went")
            offsets.append(offset)
            await append(key, offset, piece)

        with monkeypatch.context() as patch:
            patch.setattr(hq.blobs._store, "append", dying)
            with pytest.raises(OSError, match="power"):
                await hq.bring(stick)

        async def watched(key: Any, offset: int, piece: bytes) -> None:
            offsets.append(offset)
            await append(key, offset, piece)

        monkeypatch.setattr(hq.blobs._store, "append", watched)
        assert (await hq.bring(stick))["blobs"]["new"] == 1
        assert offsets == [0, 1 << 20, 2 << 20], "each piece was written once"
        assert hq.kept() == {name(data): data}


async def test_what_headquarters_does_not_take_holds_nothing_up(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud", max_mb=1) as hq:
        large, small = await site.report(picture(1_500_000, 1)), await site.report(picture(1_000, 2))
        result = await hq.bring(await site.export())
        assert (result["blobs"]["new"], result["blobs"]["refused"]) == (1, 1)
        assert result["blobs"]["problem"].startswith("too_large: a blob may have")
        assert [stream["problem"] for stream in result["streams"]] == [""]
        taken = await site.bundling.take_answer(answer_of(result))
        assert taken["blobs"] == {"arrived": 1, "waiting": 1}
        assert (await site.cloud_state(large), await site.cloud_state(small)) == ("none", "durable")


async def test_what_headquarters_has_lost_goes_again(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as hq:
        sha256 = await site.report(picture(5_000))
        await site.bundling.take_answer(answer_of(await hq.bring(await site.export())))
        (tmp_path / "cloud" / "blobs" / sha256[:2] / sha256[2:4] / sha256).unlink()
        assert not await hq.blobs.check(sha256)
        await site.bundling.take_answer(answer_of(await hq.bring(await site.export())))
        stick = await site.export()
        assert evidence_in(stick) == [sha256]
        assert (await hq.bring(stick))["blobs"]["new"] == 1
        assert list(hq.kept()) == [sha256]


async def test_a_damaged_file_stays_at_home_and_the_rest_goes(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site:
        damaged, whole = await site.report(picture(5_000, 1)), await site.report(picture(5_000, 2))
        site.blobs.files.path(damaged).write_bytes(b"\xff\xd8\xff\xe0 something else")
        assert evidence_in(await site.export()) == [whole]


def _with_blob(entry: str, data: bytes, sha256: str) -> io.BytesIO:
    """A signed bundle whose evidence is `data` under the name `entry`, as a gateway that means harm would make it."""
    file = io.BytesIO()
    writer = BundleWriter(file, KEY, kind=BATCHES, gateway="gw1", made_ms=1)
    writer._put(f"blobs/{entry}", data)
    writer._files[f"blobs/{entry}"] = [len(data), sha256]
    writer.finish()
    return file


def test_evidence_under_another_name_is_no_bundle():
    with pytest.raises(BundleError, match="under another name"):
        BundleReader(_with_blob("0" * 64, b"data", name(b"data")))
    with pytest.raises(BundleError, match="under another name"):
        BundleReader(_with_blob("a.jpg", b"data", name(b"data")))


async def test_evidence_that_is_something_else_is_not_kept(tmp_path: Path):
    async with headquarters(tmp_path / "cloud") as hq:
        result = await hq.bring(_with_blob("0" * 64, b"data", "0" * 64).getvalue())
        assert result["blobs"]["refused"] == 1
        assert result["blobs"]["problem"].startswith("wrong_content: ")
        assert hq.kept() == {}


def test_evidence_in_a_file_that_was_cut_or_changed_is_found(tmp_path: Path):
    data = picture(200_000)
    good = _with_blob(name(data), data, name(data)).getvalue()
    at = good.index(data) + 100_000
    bad = BundleReader(io.BytesIO(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]))
    with pytest.raises(BundleError, match="cannot be read"):
        bad.check(f"blobs/{name(data)}")
    with zipfile.ZipFile(io.BytesIO(good)) as source:
        assert source.getinfo(f"blobs/{name(data)}").compress_type == zipfile.ZIP_STORED


async def test_an_answer_about_evidence_that_makes_no_sense_changes_nothing(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site:
        sha256 = await site.report(picture(5_000))
        for n, text in enumerate((b"[]", b'{"last":0,"wanted":[],"known":[["..","stored",1]]}', b"[" * 9000), 1):
            file = io.BytesIO()
            writer = BundleWriter(file, CLOUD_KEY, kind="answer", gateway="gw1", made_ms=n)
            writer.add_file(BLOBS_KNOWN, text)
            writer.finish()
            with pytest.raises(Exception, match="is not readable"):
                await site.bundling.take_answer(BundleReader(file))
        assert await site.cloud_state(sha256) == "none"


# --- configuration -----------------------------------------------------------------------------------------------


def order(revision: int = 3, gateway: str = "gw1") -> Order:
    return make_order(CLOUD_KEY, gateway=gateway, revision=revision, made_ms=1, baseline=BASELINE)


async def test_the_answer_brings_the_signed_configuration(tmp_path: Path):
    taken: list[Order] = []

    async def take(one: Order) -> dict[str, Any]:
        one.verify(CLOUD_KEYS)
        taken.append(one)
        return {"revision": one.revision, "state": "trial", "problems": []}

    async with gateway(tmp_path / "edge", take) as site, headquarters(tmp_path / "cloud") as hq:
        await site.report(picture(1_000))
        without = await hq.bring(await site.export())
        assert without["config"] is None
        assert (await site.bundling.take_answer(answer_of(without)))["config"] is None
        hq.bundles.order_for = lambda name: order(gateway=name)
        result = await hq.bring(await site.export())
        assert result["config"] == 3
        said = await site.bundling.take_answer(answer_of(result))
        assert said["config"] == {"revision": 3, "state": "trial", "problems": []}
        assert [(one.gateway, one.baseline) for one in taken] == [("gw1", BASELINE)]


async def test_where_no_daemon_runs_the_configuration_waits_and_that_is_said(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as hq:
        hq.bundles.order_for = lambda name: order(gateway=name)
        await site.report(picture(1_000))
        answer = answer_of(await hq.bring(await site.export()))
        for _ in range(2):  # the same answer may be imported again when the daemon runs
            assert (await site.bundling.take_answer(answer))["config"]["state"] == "not_running"


async def test_an_answer_of_somebody_else_brings_nothing(tmp_path: Path):
    async def take(_: Order) -> dict[str, Any]:
        raise AssertionError("nobody may get here")

    async with gateway(tmp_path / "edge", take) as site, headquarters(tmp_path / "cloud") as hq:
        hq.bundles.order_for = lambda name: order(gateway=name)
        hq.bundles._key = KEY
        await site.report(picture(1_000))
        with pytest.raises(RefusedError, match="not known here"):
            await site.bundling.take_answer(answer_of(await hq.bring(await site.export())))
