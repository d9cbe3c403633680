"""Sync by USB stick: what is written, who is believed, and that a stick beside a link stores nothing twice."""

from __future__ import annotations

import asyncio
import io
import json
import random
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.bundles import Bundles
from sitewarden.cloud.config import load_cloud_config
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.parcels import open_parcel
from sitewarden.cloud.store import STEPS, Store
from sitewarden.edge.bundling import Bundling
from sitewarden.errors import RefusedError
from sitewarden.sync.bundle import ANSWER, BATCHES, BundleError, BundleReader, BundleWriter
from sitewarden.sync.history import History
from sitewarden.sync.history_outbox import HistoryOutbox
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.keys import key_id, load_or_create_key, public_key_text
from sitewarden.sync.outbox import JournalOutbox
from sitewarden.sync.seal import Sealer, parse_seal_key, seal_key_text, unseal
from sitewarden.tests.peers.ends import Site as Ends
from sitewarden.tests.peers.ends import assert_all_there
from sitewarden.words import ClockState, Instant, Quality, Reading, now

KEY, CLOUD_KEY = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
KEYS, CLOUD_KEYS = ({key_id(key): key.public_key()} for key in (KEY, CLOUD_KEY))


# --- the file ----------------------------------------------------------------------------------------------------


def made(*, kind: str = BATCHES, key: Ed25519PrivateKey = KEY, batches: int = 3) -> bytes:
    file = io.BytesIO()
    writer = BundleWriter(file, key, kind=kind, gateway="gw1", made_ms=1_795_000_000_000)
    for n in range(1, batches + 1):
        writer.add_batch("journal", "ab" * 8, n, bytes([n]) * 32, b"body %d" % n)
    writer.add_file("config/baseline.json", b"{}")
    writer.finish()
    return file.getvalue()


def read_all(file: io.BytesIO) -> None:
    reader = BundleReader(file)
    for packed in reader.manifest.batches:
        reader.body(packed)
    reader.verify(KEYS)


def test_what_was_packed_is_read_again():
    reader = BundleReader(io.BytesIO(made()))
    assert reader.verify(KEYS) == key_id(KEY)
    assert [(p.n, p.chain, reader.body(p)) for p in reader.manifest.batches] == [
        (n, bytes([n]) * 32, b"body %d" % n) for n in (1, 2, 3)
    ]
    assert reader.file("config/baseline.json") == b"{}"
    assert made() == made(), "the same content gives the same file"


def test_nobody_else_may_have_signed_it():
    with pytest.raises(RefusedError, match="not known here"):
        BundleReader(io.BytesIO(made(key=CLOUD_KEY))).verify(KEYS)


def _rewritten(change: Callable[[dict[str, bytes]], None]) -> io.BytesIO:
    with zipfile.ZipFile(io.BytesIO(made())) as source:
        files = {name: source.read(name) for name in source.namelist()}
    change(files)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as file:
        for name, data in files.items():
            file.writestr(name, data)
    return target


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: files.update({"batches/journal/abababababababab/2": b"body 9"}), "not what the manifest says"),
        (lambda files: files.update({"batches/journal/abababababababab/4": b"more"}), "not what its manifest names"),
        (lambda files: files.update({"../../etc/passwd": b"more"}), "not what its manifest names"),
        (lambda files: files.pop("batches/journal/abababababababab/2"), "not what its manifest names"),
        (lambda files: files.pop("manifest.sig"), "manifest.sig is missing"),
        (lambda files: files.update({"manifest.json": files["manifest.json"].replace(b'"n":2', b'"n":7')}), "names"),
        (lambda files: files.update({"manifest.json": b"[" * 100_000}), "not readable"),
        (lambda files: files.update({"manifest.json": b"{}"}), "not readable"),
    ],
)
def test_a_file_that_was_touched_is_no_bundle(change: Callable[[dict[str, bytes]], None], problem: str):
    with pytest.raises((BundleError, RefusedError), match=problem):
        read_all(_rewritten(change))


def test_a_manifest_that_was_altered_is_not_believed():
    def later(files: dict[str, bytes]) -> None:
        files["manifest.json"] = files["manifest.json"].replace(b"1795000000000", b"1795000000001")

    with pytest.raises(RefusedError, match="altered"):
        BundleReader(_rewritten(later)).verify(KEYS)


def test_what_could_explode_is_not_unpacked():
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("manifest.json", b" " * 10_000_000)
        file.writestr("manifest.sig", b"x" * 64)
    with pytest.raises(BundleError, match="compressed"):
        BundleReader(target)


@pytest.mark.parametrize("seed", range(40))
def test_garbage_is_a_bundle_error(seed: int):
    dice, good = random.Random(seed), bytearray(made())
    for _ in range(dice.randrange(1, 8)):
        good[dice.randrange(len(good))] = dice.randrange(256)
    if dice.random() < 0.3:
        del good[dice.randrange(len(good)) :]
    with suppress(BundleError, RefusedError):
        read_all(io.BytesIO(bytes(good)))


# --- sealed ------------------------------------------------------------------------------------------------------


def sealed(data: bytes, to: X25519PrivateKey) -> bytes:
    file = io.BytesIO()
    sealer = Sealer(file, parse_seal_key(seal_key_text(to.public_key())))
    for at in range(0, len(data), 10_001):
        sealer.write(data[at : at + 10_001])
    sealer.finish()
    return file.getvalue()


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_a_sealed_file_opens_for_its_key_alone(size: int):
    key, data = X25519PrivateKey.generate(), random.Random(size).randbytes(size)
    closed = sealed(data, key)
    assert b"".join(unseal(io.BytesIO(closed), key)) == data
    with pytest.raises(BundleError, match="another key"):
        list(unseal(io.BytesIO(closed), X25519PrivateKey.generate()))


def test_a_sealed_file_that_is_cut_or_mixed_does_not_open():
    key = X25519PrivateKey.generate()
    closed = sealed(bytes(200_000), key)
    head, piece = 20 + 32, 65_536 + 16
    for bad in (closed[: head + piece], closed[:-1], closed[:30], closed[:head] + closed[head + piece :]):
        with pytest.raises(BundleError):
            list(unseal(io.BytesIO(bad), key))
    swapped = closed[:head] + closed[head + piece : head + 2 * piece] + closed[head : head + piece]
    with pytest.raises(BundleError):
        list(unseal(io.BytesIO(swapped), key))


# --- from a gateway to headquarters, and back ---------------------------------------------------------------------


HERE = {"machine": "m1", "volume": "v1"}
OLD = Instant(utc_ms=1_600_000_000_000, mono_s=1.0, boot="b", clock=ClockState.SYNCED)


@asynccontextmanager
async def gateway(
    folder: Path, trusted: dict[str, Any] = CLOUD_KEYS, where: dict[str, str] | None = None, **kept: Any
) -> AsyncIterator[Any]:
    """Args: where: what its stores see of the place where they lie; None: nothing. kept: how long history is kept."""
    folder.mkdir(exist_ok=True)
    look = None if where is None else (lambda _path, _gateway: where)
    async with (
        Journal(folder / "journal.db", "gw1", where=look) as journal,
        History(folder / "history.db", "gw1", where=look, **kept) as history,
    ):

        class Site:
            bundling = Bundling(journal, history, KEY, lambda: trusted)

            @staticmethod
            async def write(records: int, readings: int = 0) -> None:
                drafts = [Draft(kind="test.done", at=now(), actor="gateway", body={"n": n}) for n in range(records)]
                await journal.append(drafts)
                history.add(
                    [Reading(point="a.b.c", value=n / 10, quality=Quality.GOOD, at=now()) for n in range(readings)]
                )

            @staticmethod
            async def export(*, everything: bool = False) -> bytes:
                parts: list[bytes] = []

                async def put(piece: bytes) -> None:
                    parts.append(piece)

                await Site.bundling.export(await Site.bundling.begin(everything=everything), put)
                return b"".join(parts)

        Site.journal, Site.history = journal, history  # pyright: ignore[reportAttributeAccessIssue]
        yield Site


@asynccontextmanager
async def headquarters(folder: Path) -> AsyncIterator[tuple[Store, Callable[[bytes], Any]]]:
    folder.mkdir(exist_ok=True)

    async def keys_of(name: str) -> dict[str, Any]:
        return KEYS if name == "gw1" else {}

    async def tell(_: dict[str, Any]) -> None: ...

    async with SqliteDatabase(folder / "cloud.db", STEPS) as database:
        store = Store(database)
        bundles = Bundles(store, keys_of, CLOUD_KEY, SEAL, folder, lambda _: None)
        yield store, lambda data: bundles.take(io.BytesIO(data), tell)


SEAL = X25519PrivateKey.generate()


def answer_of(result: dict[str, Any]) -> BundleReader:
    import base64

    return BundleReader(io.BytesIO(base64.b64decode(result["answer"])))


def same_on_both_sides(edge: Path, cloud: Path) -> int:
    """Compare records and segments as lists; returns how many records there are."""
    with closing(sqlite3.connect(edge / "journal.db")) as db:
        here = db.execute("SELECT seq, data, chain FROM record ORDER BY seq").fetchall()
    with closing(sqlite3.connect(cloud / "cloud.db")) as db:
        there = db.execute("SELECT seq, data, chain FROM record ORDER BY seq").fetchall()
        segments = db.execute("SELECT n, chain FROM batch WHERE stream = 'history' ORDER BY n").fetchall()
    with closing(sqlite3.connect(edge / "history.db")) as db:
        assert db.execute("SELECT n, chain FROM segment ORDER BY n").fetchall() == segments
    assert here == there
    return len(here)


async def test_a_stick_goes_there_and_its_answer_comes_back(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as (_, bring):
        await site.write(700, 4500)
        first = await site.export()
        result = await bring(first)
        assert {(s["stream"], s["new"], s["known"], s["problem"]) for s in result["streams"]} == {
            ("journal", 2, 0, ""),
            ("history", 3, 0, ""),
        }
        taken = await site.bundling.take_answer(answer_of(result))
        assert taken["streams"] == {"journal": {"ack": 2, "durable": 2}, "history": {"ack": 3, "durable": 3}}
        assert BundleReader(io.BytesIO(await site.export())).manifest.batches == ()
        await site.write(5)
        second = await site.export()
        assert [(p.stream, p.n) for p in BundleReader(io.BytesIO(second)).manifest.batches] == [("journal", 3)]
        assert (await bring(second))["streams"][0]["new"] == 1
    assert same_on_both_sides(tmp_path / "edge", tmp_path / "cloud") == 705


async def test_a_clone_and_a_restored_gateway_go_on_by_stick(tmp_path: Path):
    """A copied folder begins a new epoch by itself; an older one when the answer shows what it has forgotten."""
    edge, cloud = tmp_path / "edge", tmp_path / "cloud"
    async with headquarters(cloud) as (_, bring):
        async with gateway(edge, where=HERE) as site:
            await site.write(5, 2500)
            await site.bundling.take_answer(answer_of(await bring(await site.export())))
        shutil.copytree(edge, tmp_path / "backup")
        async with gateway(edge, where=HERE) as site:
            await site.write(7, 2500)
            await bring(await site.export())
        async with gateway(tmp_path / "backup", where=HERE) as site:
            await site.write(3, 2500)
            result = await bring(await site.export())
            assert {s["problem"].partition(":")[0] for s in result["streams"]} == {"fork"}, "two histories"
            await site.bundling.take_answer(answer_of(result))
            result = await bring(await site.export())
            assert {s["problem"] for s in result["streams"]} == {""}
            await site.bundling.take_answer(answer_of(result))
            assert BundleReader(io.BytesIO(await site.export())).manifest.batches == ()
            assert len(site.journal.epochs) == 2
            await assert_all_there(Ends(site.journal, site.history), cloud)
        async with gateway(tmp_path / "backup", where={"machine": "m2", "volume": "v2"}) as site:
            await site.write(2, 2500)
            result = await bring(await site.export())
            assert {s["problem"] for s in result["streams"]} == {""}
            await site.bundling.take_answer(answer_of(result))
            result = await bring(await site.export())
            assert {s["problem"] for s in result["streams"]} <= {""}
            assert len(site.journal.epochs) == 3
            await assert_all_there(Ends(site.journal, site.history), cloud)


async def test_what_the_link_has_brought_and_is_gone_is_no_gap_on_a_stick(tmp_path: Path):
    """The newest answer is older than what the link did since: the stick declares what headquarters has long had."""
    async with gateway(tmp_path / "edge", keep_days=0, settle_days=0) as site, headquarters(tmp_path / "cloud") as hq:
        store, bring = hq
        await site.write(3, 2500)
        await site.bundling.take_answer(answer_of(await bring(await site.export())))
        outbox = HistoryOutbox(site.history)
        for _ in range(4):
            site.history.add([Reading(point="a.b.c", value=1.0, quality=Quality.GOOD, at=OLD)])
            await site.history.flush(seal=True)
        await outbox.open()
        for n in range(3, 7):
            batch = await outbox.batch(n)
            assert batch is not None
            await store.take(open_parcel("gw1", "history", outbox.epoch, n, batch.chain, batch.body, 1))
        assert await site.history.delete_through(5) > 0
        await site.write(1, 100)
        result = await bring(await site.export())
        assert {s["stream"]: s["problem"] for s in result["streams"]} == {"history": "", "journal": ""}
        with closing(sqlite3.connect(tmp_path / "cloud" / "cloud.db")) as db:
            assert db.execute("SELECT * FROM declared_gap").fetchall() == []
            assert db.execute("SELECT max(n) FROM batch WHERE stream = 'history'").fetchone() == (7,)


async def test_sticks_shuffled_repeated_and_beside_a_link_end_in_the_same_state(tmp_path: Path):
    dice = random.Random(20_261_123)
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as (store, bring):
        sticks: list[bytes] = []
        outboxes = JournalOutbox(site.journal), HistoryOutbox(site.history)
        for round_ in range(12):
            await site.write(dice.randrange(1, 40), dice.randrange(0, 3000))
            sticks.append(await site.export(everything=dice.random() < 0.3))
            if round_ % 3 == 0:  # the link is up for a moment
                for outbox in outboxes:
                    await outbox.open()
                    known = (await store.cursors("gw1"))[outbox.stream]
                    n = known[-1].ack + 1 if known else 1
                    if (batch := await outbox.batch(n)) is not None:
                        parcel = open_parcel("gw1", outbox.stream, outbox.epoch, n, batch.chain, batch.body, 1)
                        assert (await store.take(parcel)).new
            for stick in dice.sample(sticks, dice.randrange(len(sticks))):
                result = await bring(stick)
                assert all(s["problem"].startswith(("", "gap")) for s in result["streams"])
                if dice.random() < 0.3:
                    await site.bundling.take_answer(answer_of(result))
        await bring(await site.export(everything=True))
    assert same_on_both_sides(tmp_path / "edge", tmp_path / "cloud") > 12


async def test_a_later_stick_without_the_earlier_one_says_what_is_missing(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as (_, bring):
        await site.write(10)
        first = await site.export()
        await site.bundling.export(dict.fromkeys(await site.bundling.begin(everything=True), 0), _nowhere)
        await site.write(10)
        everything = await site.export(everything=True)
        file = io.BytesIO()
        reader = BundleReader(io.BytesIO(everything))
        writer = BundleWriter(file, KEY, kind=BATCHES, gateway="gw1", made_ms=1)
        packed = reader.manifest.batches[1]
        writer.add_batch(packed.stream, packed.epoch, packed.n, packed.chain, reader.body(packed))
        writer.finish()
        (stream,) = (await bring(file.getvalue()))["streams"]
        assert stream["problem"] == "gap: batch 1 comes first"
        assert not (await bring(first))["streams"][0]["problem"]
        assert not (await bring(file.getvalue()))["streams"][0]["problem"]
    assert same_on_both_sides(tmp_path / "edge", tmp_path / "cloud") == 20


async def _nowhere(_: bytes) -> None: ...


async def test_a_poisoned_batch_is_set_aside_and_the_next_one_is_taken(tmp_path: Path):
    async with headquarters(tmp_path / "cloud") as (store, bring):
        from sitewarden.sync.columns import compress
        from sitewarden.sync.streams import batch_chain, stream_genesis

        file, chain = io.BytesIO(), stream_genesis("gw1", "journal", "ab" * 8)
        writer = BundleWriter(file, KEY, kind=BATCHES, gateway="gw1", made_ms=1)
        for n in (1, 2):
            chain = batch_chain(chain, n, b"poison %d" % n)
            writer.add_batch("journal", "ab" * 8, n, chain, compress(b"poison %d" % n))
        writer.finish()
        (stream,) = (await bring(file.getvalue()))["streams"]
        assert (stream["new"], stream["quarantined"], stream["ack"]) == (2, 2, 2)
        assert (await store.gateways())["gw1"]["quarantined"] == 2


async def test_headquarters_takes_from_gateways_it_knows_alone(tmp_path: Path):
    async with headquarters(tmp_path / "cloud") as (_, bring):
        with pytest.raises(RefusedError, match="not known here"):
            await bring(made(key=CLOUD_KEY))
        with pytest.raises(RefusedError, match="goes to the gateway"):
            await bring(made(kind=ANSWER))
        file = io.BytesIO()
        writer = BundleWriter(file, KEY, kind=BATCHES, gateway="gw2", made_ms=1)
        writer.finish()
        with pytest.raises(RefusedError, match="gw2 has no key here"):
            await bring(file.getvalue())


async def test_an_answer_is_believed_from_headquarters_alone_and_never_an_older_one(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as (_, bring):
        await site.write(3)
        stick = await site.export()
        old = answer_of(await bring(stick))
        await site.write(3)
        new = answer_of(await bring(await site.export(everything=True)))
        while new.manifest.made_ms <= old.manifest.made_ms:
            await asyncio.sleep(0.002)
            new = answer_of(await bring(stick))
        await site.bundling.take_answer(new)
        with pytest.raises(RefusedError, match="made later"):
            await site.bundling.take_answer(old)
        with pytest.raises(RefusedError, match="goes to headquarters"):
            await site.bundling.take_answer(BundleReader(io.BytesIO(stick)))
        forged = io.BytesIO()
        writer = BundleWriter(forged, KEY, kind=ANSWER, gateway="gw1", made_ms=2**50)
        writer.finish()
        with pytest.raises(RefusedError, match="not known here"):
            await site.bundling.take_answer(BundleReader(forged))


async def test_an_answer_about_other_data_begins_a_new_epoch(tmp_path: Path):
    async with gateway(tmp_path / "edge") as site, headquarters(tmp_path / "cloud") as (_, bring):
        await site.write(3)
        await site.export()
        cursors = (await bring(await site.export(everything=True)), {})[0]
        from dataclasses import replace

        reader = answer_of(cursors)
        wrong = {
            stream: tuple(replace(cursor, chain=bytes([7]) * 32) for cursor in known)
            for stream, known in reader.manifest.cursors.items()
        }
        file = io.BytesIO()
        writer = BundleWriter(file, CLOUD_KEY, kind=ANSWER, gateway="gw1", made_ms=2**50)
        writer.set_cursors(wrong)
        writer.finish()
        await site.bundling.take_answer(BundleReader(file))
        assert len(site.journal.epochs) == 2
        again = await bring(await site.export())
        assert [s["problem"] for s in again["streams"]] == [""] * len(again["streams"])
        with closing(sqlite3.connect(tmp_path / "cloud" / "cloud.db")) as db:
            counts = dict(db.execute("SELECT epoch, count(*) FROM record GROUP BY epoch"))
        (old, _), (new, _) = site.journal.epochs
        branch = (counts.keys() - {old, new}).pop()
        assert counts == {old: 3, branch: 3, new: 1}, (
            "headquarters said that it has others: ours came under another name"
        )
        assert branch.startswith(old)
        answer = answer_of(again)
        assert (await site.bundling.take_answer(answer))["streams"] == {"journal": {"ack": 1, "durable": 1}}


# --- the command -------------------------------------------------------------------------------------------------


def sitewarden(*words: Any, code: int = 0) -> str:
    command = [sys.executable, "-m", "sitewarden", *map(str, words), *(["--lang", "en"] if words[1] != "key" else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


async def test_the_command_from_a_stopped_gateway_to_a_running_cloud_and_back(tmp_path: Path):
    edge, cloud = tmp_path / "edge", tmp_path / "cloud"
    async with gateway(edge) as site:
        await site.write(30, 2500)
    text = (
        '[cloud]\nname = "总部"\nname_en = "HQ"\nport = 0\n'
        '[[gateway]]\nid = "gw1"\nname = "厂"\nname_en = "Plant"\n'
        f'public_key = "{public_key_text(load_or_create_key(edge / "gateway.key"))}"\n'
    )
    (tmp_path / "cloud.toml").write_text(text, "utf-8")
    (tmp_path / "people.csv").write_text("id,name,name_en,roles,areas,phone\n", "utf-8")
    keys = (await asyncio.to_thread(sitewarden, "bundle", "key", "--data", cloud)).split()
    public, seal = keys[2].strip('"'), keys[-1]
    stick = tmp_path / "plant.swx"
    said = await asyncio.to_thread(sitewarden, "bundle", "export", stick, "--data", edge, "--seal", seal)
    assert "written: 1 journal batches, 2 history segments" in said
    assert "sealed" in await asyncio.to_thread(lambda: sitewarden("bundle", "show", stick, code=1))
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(run_cloud(load_cloud_config(tmp_path / "cloud.toml"), cloud, ready=up.set_result))
    try:
        await asyncio.wait_for(up, 60)
        said = await asyncio.to_thread(sitewarden, "bundle", "import", stick, "--data", cloud)
        assert "1 new batches, 0 known ones, now up to 1" in said
        again = await asyncio.to_thread(sitewarden, "bundle", "import", stick, "--data", cloud)
        assert "0 new batches, 2 known ones, now up to 2" in again
    finally:
        task.cancel()
        await asyncio.wait([task])
    answer = tmp_path / "plant-answer.swx"
    shown = json.loads(await asyncio.to_thread(sitewarden, "bundle", "show", answer, "--key", public, "--json"))
    assert shown["cursors"]["history"][0]["ack"] == 2
    words = ("bundle", "import", answer, "--data", edge, "--key", public)
    assert "headquarters has batches up to 1, safe up to 1" in await asyncio.to_thread(sitewarden, *words)
    assert "no file was written" in await asyncio.to_thread(sitewarden, "bundle", "export", stick, "--data", edge)
    assert same_on_both_sides(edge, cloud) == 30


async def test_everything_begins_with_what_is_still_kept(tmp_path: Path):
    """History that headquarters has goes after a while; `--all` on such a gateway must not fail for ever."""
    async with gateway(tmp_path / "edge") as site:
        await site.write(3, 6500)
        await site.export()
        gone = "DELETE FROM segment WHERE n = 1", "DELETE FROM body WHERE n = 1"
        await site.history._write(lambda connection: [connection.execute(statement) for statement in gone] and None)
        reader = BundleReader(io.BytesIO(await site.export(everything=True)))
    assert [packed.n for packed in reader.manifest.batches if packed.stream == "history"] == [2, 3, 4]
