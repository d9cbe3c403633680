"""The gateway's blobs: whole, durable and checked, whatever breaks off, fills up or flips."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from sitewarden.errors import RefusedError
from sitewarden.sync import blob_files, blob_refs, blob_table
from sitewarden.sync.blob_files import BlobFolder, DamagedBlobError, DiskFullError, OffsetError, WrongContentError
from sitewarden.sync.blob_refs import Case, CaseRule
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.journal import Draft, Journal, Record
from sitewarden.sync.media import EVIDENCE, UNKNOWN, media_type, safe_headers
from sitewarden.sync.wire import CHUNK_BYTES
from sitewarden.words import now

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF"


def picture(size: int, seed: int = 1) -> bytes:
    """Bytes that begin as a JPEG and are not like those of another seed."""
    return (JPEG + random.Random(seed).randbytes(size))[:size]


def name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _case(record: Record) -> Case | None:
    return Case(id=record.body["case"], is_open=record.kind != "hazard.closed") if "case" in record.body else None


RULES = (CaseRule(kinds="hazard.", version=1, case_of=_case),)


class Site:
    """A journal, and blobs beside it."""

    def __init__(self, journal: Journal, blobs: Blobs, told: list[tuple[str, dict[str, Any]]]) -> None:
        self.journal, self.blobs, self.told = journal, blobs, told

    async def put(self, data: bytes, offset: int = 0, *, sha256: str = "", size: int | None = None) -> Any:
        return await self.blobs.append(
            sha256 or name(data), offset, len(data) if size is None else size, pieces(data[offset:])
        )

    async def record(self, *blobs: str, kind: str = "hazard.reported", **body: Any) -> list[Record]:
        return await self.journal.append([Draft(kind=kind, at=now(), actor="p_li", body=body, blobs=blobs)])


@contextlib.asynccontextmanager
async def site(folder: Path, **options: Any) -> AsyncIterator[Site]:
    told: list[tuple[str, dict[str, Any]]] = []

    def tell(kind: str, body: dict[str, object]) -> None:
        told.append((kind, body))

    table = blob_refs.state_table(RULES)
    async with (
        Journal(folder / "journal.db", "gw1", (table,)) as journal,
        Blobs(folder / "blobs", journal, rules=RULES, tell=tell, **options) as blobs,
    ):
        yield Site(journal, blobs, told)


async def pieces(data: bytes, each: int = 70_000, breaks: int | None = None) -> AsyncIterator[bytes]:
    """What a phone sends; its connection breaks after `breaks` bytes."""
    for at in range(0, len(data), each):
        if breaks is not None and at >= breaks:
            raise ConnectionResetError("the phone went out of range")
        yield data[at : at + each]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- in and out --------------------------------------------------------------------------------------------------


async def test_a_blob_lies_under_its_sha256_in_two_levels_of_folders(tmp_path: Path) -> None:
    data = picture(700_000)
    async with site(tmp_path) as gateway:
        here = await gateway.put(data)
        assert (here.offset, here.size) == (700_000, 700_000)
        path = await gateway.blobs.verified(name(data))
        assert path.read_bytes() == data
    sha = name(data)
    assert files(tmp_path / "blobs") == [f"{sha[:2]}/{sha[2:4]}/{sha}"]


async def test_the_gateways_own_blob_is_named_at_its_end_or_not_at_all(tmp_path: Path) -> None:
    data = picture(600_000)
    async with site(tmp_path) as gateway:
        sha = await gateway.blobs.take(pieces(data))
        assert sha == name(data)
        with pytest.raises(ConnectionResetError):
            await gateway.blobs.take(pieces(picture(600_000, 2), breaks=200_000))
        with pytest.raises(RefusedError, match="at least one byte"):
            await gateway.blobs.take(pieces(b""))
    assert len(files(tmp_path / "blobs")) == 1


async def test_the_same_blob_twice_is_stored_once_and_needs_no_bytes_again(tmp_path: Path) -> None:
    data = picture(300_000)
    async with site(tmp_path) as gateway:
        await gateway.put(data)

        async def nothing() -> AsyncIterator[bytes]:
            pytest.fail("nobody reads what is here already")
            yield b""

        here = await gateway.blobs.append(name(data), 0, len(data), nothing())
        assert here.size == len(data)
        assert await gateway.blobs.take(pieces(data)) == name(data)
    assert len(files(tmp_path / "blobs")) == 1


async def test_an_upload_that_breaks_off_goes_on_where_the_durable_bytes_end(tmp_path: Path) -> None:
    data = picture(900_000)
    async with site(tmp_path) as gateway:
        with pytest.raises(ConnectionResetError):
            await gateway.blobs.append(name(data), 0, len(data), pieces(data, breaks=500_000))
        here = await gateway.blobs.here(name(data))
        assert here.size is None
        assert here.offset == 560_000, "what had arrived before the break is kept"
        with pytest.raises(OffsetError) as wrong:
            await gateway.put(data, here.offset + 1)
        assert wrong.value.offset == here.offset
        assert (await gateway.put(data, here.offset)).size == len(data)
        assert (await gateway.blobs.verified(name(data))).read_bytes() == data


async def test_only_fsynced_bytes_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every answer comes after the fsync of what it counts."""
    order: list[str] = []
    fsync, pwrite = os.fsync, os.pwrite
    monkeypatch.setattr(os, "fsync", lambda file: (order.append("fsync"), fsync(file))[1])
    monkeypatch.setattr(os, "pwrite", lambda *given: (order.append("write"), pwrite(*given))[1])
    folder = BlobFolder(tmp_path / "blobs")
    folder.open()
    order.clear()
    folder.write("a", 0, b"x" * 1000)
    assert order == ["write", "fsync", "fsync"], "the bytes, then the folder that has a new name in it"
    order.clear()
    folder.write("a", 1000, b"x" * 1000)
    assert order == ["write", "fsync"]


async def test_what_was_not_surely_on_the_disk_at_a_power_cut_is_sent_again(tmp_path: Path) -> None:
    """The last piece may be there in length and not in content: a start cuts it off."""
    data = picture(5 * CHUNK_BYTES + 1000)
    async with site(tmp_path) as gateway:
        with pytest.raises(ConnectionResetError):
            await gateway.blobs.append(name(data), 0, len(data), pieces(data, CHUNK_BYTES, breaks=4 * CHUNK_BYTES))
        assert (await gateway.blobs.here(name(data))).offset == 4 * CHUNK_BYTES
    part = tmp_path / "blobs/incoming" / name(data)
    torn = part.read_bytes()[: 3 * CHUNK_BYTES] + bytes(CHUNK_BYTES)
    part.write_bytes(torn)
    async with site(tmp_path) as gateway:
        assert (await gateway.blobs.here(name(data))).offset == 3 * CHUNK_BYTES
        assert (await gateway.put(data, 3 * CHUNK_BYTES)).size == len(data)


@pytest.mark.parametrize("damage", ["truncated", "longer", "garbage"])
async def test_a_torn_unfinished_file_never_becomes_a_blob(tmp_path: Path, damage: str) -> None:
    data = picture(3 * CHUNK_BYTES)
    async with site(tmp_path) as gateway:
        await gateway.blobs.append(name(data), 0, len(data), pieces(data[: 2 * CHUNK_BYTES], CHUNK_BYTES))
        part = tmp_path / "blobs/incoming" / name(data)
        if damage == "truncated":
            os.truncate(part, CHUNK_BYTES + 7)
            there = CHUNK_BYTES + 7
        elif damage == "longer":
            part.write_bytes(part.read_bytes() + bytes(2 * CHUNK_BYTES))
            there = 4 * CHUNK_BYTES
        else:
            part.write_bytes(bytes(2 * CHUNK_BYTES))
            there = 2 * CHUNK_BYTES
        assert (await gateway.blobs.here(name(data))).offset == there
        offset = there
        for _ in range(3):
            try:
                await gateway.put(data, min(offset, len(data)))
                break
            except OffsetError as error:
                offset = error.offset
            except WrongContentError:
                offset = 0
        assert (await gateway.blobs.verified(name(data))).read_bytes() == data


async def test_wrong_content_is_refused_and_can_be_sent_again(tmp_path: Path) -> None:
    data, other = picture(400_000), picture(400_000, 2)
    async with site(tmp_path) as gateway:
        with pytest.raises(WrongContentError):
            await gateway.put(other, sha256=name(data))
        assert (await gateway.blobs.here(name(data))).offset == 0
        assert files(tmp_path / "blobs") == []
        assert (await gateway.put(data)).size == len(data)


async def test_limits_are_told_and_leave_nothing(tmp_path: Path) -> None:
    async with site(tmp_path, max_bytes=100_000) as gateway:
        for data, size, reason in (
            (picture(100_001), None, "too_large"),
            (picture(50_000), 200_000, "too_large"),
            (picture(50_000), 40_000, "bad_request"),
            (b"<svg onload=alert(1)>" + bytes(100), None, "wrong_type"),
            (b"MZ" + bytes(90_000), None, "wrong_type"),
            (b"", None, "bad_request"),
        ):
            with pytest.raises(RefusedError) as refused:
                await gateway.put(data, size=size)
            assert refused.value.reason == reason, data[:10]
        with pytest.raises(RefusedError, match="not a SHA-256"):
            await gateway.put(picture(100), sha256="../../etc/passwd")
        with pytest.raises(RefusedError, match="may have"):
            await gateway.blobs.take(pieces(picture(100_001)))
        assert files(tmp_path / "blobs") == []
        assert (await gateway.put(picture(100_000))).size == 100_000


async def test_a_wrong_type_is_refused_with_the_first_piece(tmp_path: Path) -> None:
    data = b"PK\x03\x04" + bytes(3 * CHUNK_BYTES)
    async with site(tmp_path) as gateway:
        with pytest.raises(RefusedError) as refused:
            await gateway.blobs.append(name(data), 0, len(data), pieces(data[:CHUNK_BYTES]))
        assert refused.value.reason == "wrong_type"
        assert files(tmp_path / "blobs") == []


async def test_what_hides_its_type_behind_a_first_tiny_piece_is_refused_at_its_end(tmp_path: Path) -> None:
    data = b"<html><script>" + bytes(500)
    async with site(tmp_path) as gateway:
        await gateway.blobs.append(name(data), 0, len(data), pieces(data[:10]))
        with pytest.raises(RefusedError) as refused:
            await gateway.put(data, 10)
        assert refused.value.reason == "wrong_type"
        assert files(tmp_path / "blobs") == []


async def test_the_newer_of_two_uploads_of_one_blob_goes_on(tmp_path: Path) -> None:
    """A phone that lost its connection tries again before the gateway has noticed the loss."""
    data = picture(4 * CHUNK_BYTES)
    begun, go_on, go_on_too = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def hanging() -> AsyncIterator[bytes]:
        yield data[:CHUNK_BYTES]
        await go_on.wait()
        yield data[CHUNK_BYTES:]

    async def later() -> AsyncIterator[bytes]:
        begun.set()
        await go_on_too.wait()
        yield data[CHUNK_BYTES:]

    async with site(tmp_path) as gateway:
        old = asyncio.create_task(gateway.blobs.append(name(data), 0, len(data), hanging()))
        while (await gateway.blobs.here(name(data))).offset < CHUNK_BYTES:
            await asyncio.sleep(0.005)
        newer = asyncio.create_task(gateway.blobs.append(name(data), CHUNK_BYTES, len(data), later()))
        await begun.wait()
        go_on.set()
        with pytest.raises(RefusedError) as refused:
            await old
        assert refused.value.reason == "superseded"
        go_on_too.set()
        assert (await newer).size == len(data)
        assert (await gateway.blobs.verified(name(data))).read_bytes() == data


# --- disk ---------------------------------------------------------------------------------------------------------


async def test_a_full_disk_leaves_the_bytes_that_were_durable_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = picture(4 * CHUNK_BYTES)
    pwrite, room = os.pwrite, 2 * CHUNK_BYTES + 100

    def filling(file: int, view: Any, at: int) -> int:
        if at + len(view) > room:
            pwrite(file, bytes(view)[: max(0, room - at)], at)
            raise OSError(28, "No space left on device")
        return pwrite(file, view, at)

    async with site(tmp_path) as gateway:
        monkeypatch.setattr(os, "pwrite", filling)
        with pytest.raises(DiskFullError) as full:
            await gateway.put(data)
        assert full.value.reason == "disk_full"
        assert (tmp_path / "blobs/incoming" / name(data)).stat().st_size == 2 * CHUNK_BYTES, "no torn piece stays"
        with pytest.raises(DiskFullError):
            await gateway.blobs.take(pieces(picture(4 * CHUNK_BYTES, 3)))
        assert files(tmp_path / "blobs") == [f"incoming/{name(data)}"]
        monkeypatch.setattr(os, "pwrite", pwrite)
        assert (await gateway.put(data, 2 * CHUNK_BYTES)).size == len(data), "what stayed was right"


async def test_nothing_is_written_behind_a_piece_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has room again a moment later: what follows must not lie where the failed piece belongs."""
    data = picture(4 * CHUNK_BYTES)
    pwrite, failures = os.pwrite, [OSError(28, "No space left on device")]

    def failing_once(file: int, view: Any, at: int) -> int:
        if at == 2 * CHUNK_BYTES and failures:
            raise failures.pop()
        return pwrite(file, view, at)

    async with site(tmp_path) as gateway:
        monkeypatch.setattr(os, "pwrite", failing_once)
        with pytest.raises(DiskFullError):
            await gateway.put(data)
        assert (await gateway.blobs.here(name(data))).offset == 2 * CHUNK_BYTES
        assert (await gateway.put(data, 2 * CHUNK_BYTES)).size == len(data)


def test_a_real_limit_of_the_system_ends_an_upload_cleanly(tmp_path: Path) -> None:
    """RLIMIT_FSIZE in a process of its own: the kernel refuses in the middle of a piece."""
    code = """
import resource, signal, sys
from pathlib import Path
from sitewarden.sync.blob_files import BlobFolder, DiskFullError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
folder = BlobFolder(Path(sys.argv[1]))
folder.open()
folder.write("a", 0, bytes(200_000))
try:
    folder.write("a", 200_000, bytes(200_000))
except DiskFullError as error:
    print(folder.offset("a"), error.reason)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "blobs")], capture_output=True, check=False)
    assert done.stdout.split() == [b"200000", b"disk_full"], done.stderr.decode()
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 300_000
    assert signal.getsignal(signal.SIGXFSZ) is not None


async def test_the_last_room_of_the_disk_is_the_journals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with site(tmp_path) as gateway:
        monkeypatch.setattr(gateway.blobs.files, "_room", 2**60)
        with pytest.raises(DiskFullError):
            await gateway.put(picture(1000))
        assert files(tmp_path / "blobs") == []


@pytest.mark.parametrize("damage", ["flip", "gone", "short"])
async def test_damage_is_found_on_reading_marked_and_told_once(tmp_path: Path, damage: str) -> None:
    data = picture(300_000)
    async with site(tmp_path) as gateway:
        await gateway.put(data)
        await gateway.record(name(data), case="h1")
        path = gateway.blobs.files.path(name(data))
        if damage == "flip":
            flipped = bytearray(data)
            flipped[123_456] ^= 1
            path.write_bytes(flipped)
        elif damage == "short":
            os.truncate(path, 299_999)
        else:
            path.unlink()
        for _ in range(2):
            with pytest.raises(DamagedBlobError):
                await gateway.blobs.verified(name(data))
        assert [kind for kind, _ in gateway.told] == ["blob.lost"]
        assert (await gateway.blobs.here(name(data))).size is None, "it may be sent again"
        assert await gateway.blobs.waiting() == [], "what is damaged is not sent"
        assert (await gateway.put(data)).size == len(data)
        assert [kind for kind, _ in gateway.told] == ["blob.lost", "blob.restored"]
        assert (await gateway.blobs.verified(name(data))).read_bytes() == data


# --- order and cases ----------------------------------------------------------------------------------------------


async def test_evidence_of_open_cases_goes_first_then_as_records_came(tmp_path: Path) -> None:
    shots = [picture(1000, seed) for seed in range(4)]
    shas = [name(shot) for shot in shots]
    async with site(tmp_path) as gateway:
        for shot in shots:
            await gateway.put(shot)
        assert await gateway.blobs.waiting() == [], "nothing is sent before a record names it"
        await gateway.record(shas[0], kind="note.made")
        await gateway.record(shas[1], case="h1")
        await gateway.record(shas[2], case="h2")
        await gateway.record(shas[3], case="h1")
        order = [(row.sha256, row.is_open, row.size) for row in await gateway.blobs.waiting()]
        assert order == [(shas[1], True, 1000), (shas[2], True, 1000), (shas[3], True, 1000), (shas[0], False, 1000)]
        await gateway.record(kind="hazard.closed", case="h1")
        assert [row.sha256 for row in await gateway.blobs.waiting()] == [shas[2], shas[0], shas[1], shas[3]]
        row = (await gateway.blobs.waiting())[0]
        await gateway.blobs.sent(row, "stored", 1000, 1)
        assert [row.sha256 for row in await gateway.blobs.waiting()] == [shas[0], shas[1], shas[3]]


async def test_references_are_the_same_when_they_are_rebuilt(tmp_path: Path) -> None:
    def stored(connection: Any) -> tuple[list[Any], list[Any]]:
        refs = connection.execute("SELECT * FROM blob_ref ORDER BY 1, 2").fetchall()
        return refs, connection.execute("SELECT * FROM blob_case ORDER BY 1").fetchall()

    async with site(tmp_path) as gateway:
        for seed in range(3):
            await gateway.put(picture(500, seed))
            await gateway.record(name(picture(500, seed)), case=f"h{seed}")
        await gateway.record(kind="hazard.closed", case="h1")
        kept = await gateway.journal.query(stored)
        assert len(kept[0]) == 3
        assert kept[1] == [("h0",), ("h2",)]
    newer = blob_refs.state_table([CaseRule(kinds="hazard.", version=2, case_of=_case)])
    async with Journal(tmp_path / "journal.db", "gw1", (newer,)) as journal:
        assert await journal.query(stored) == kept


# --- cleaning -----------------------------------------------------------------------------------------------------


def _age(path: Path, days: float) -> None:
    at = time.time() - days * 86400
    os.utime(path, (at, at))


async def test_what_no_record_names_goes_after_the_grace_time_and_nothing_else(tmp_path: Path) -> None:
    named, orphan, fresh = (picture(500, seed) for seed in range(3))
    async with site(tmp_path) as gateway:
        for data in (named, orphan, fresh):
            await gateway.put(data)
        await gateway.record(name(named), case="h1")
        for data in (named, orphan):
            _age(gateway.blobs.files.path(name(data)), 8)
        await gateway.blobs.sweep()
        left = sorted(found.sha256 for found in gateway.blobs.files.walk())
        assert left == sorted([name(named), name(fresh)])
        assert await gateway.blobs.known(name(orphan)) is None
        assert (await gateway.blobs.here(name(orphan))).offset == 0


async def test_unfinished_uploads_go_after_the_grace_time(tmp_path: Path) -> None:
    data = picture(3 * CHUNK_BYTES)
    async with site(tmp_path) as gateway:
        await gateway.blobs.append(name(data), 0, len(data), pieces(data[: 2 * CHUNK_BYTES]))
    async with site(tmp_path) as gateway:
        assert (await gateway.blobs.here(name(data))).offset == CHUNK_BYTES
    _age(tmp_path / "blobs/incoming" / name(data), 8)
    async with site(tmp_path):
        assert files(tmp_path / "blobs") == []


async def test_a_record_that_is_committed_during_the_cleaning_keeps_its_blob(tmp_path: Path) -> None:
    """Many races: either the record is refused and the blob gone, or both stay."""
    dice, kept = random.Random(7), 0
    async with site(tmp_path) as gateway:
        for turn in range(60):
            data = picture(400, 1000 + turn)
            await gateway.put(data)
            _age(gateway.blobs.files.path(name(data)), 8)

            async def name_it(data: bytes = data) -> bool:
                for _ in range(dice.randrange(12)):
                    await asyncio.sleep(0)
                with contextlib.suppress(RefusedError):
                    return bool(await gateway.record(name(data), case="h"))
                return False

            async def clean() -> None:
                for _ in range(dice.randrange(12)):
                    await asyncio.sleep(0)
                await gateway.blobs.sweep()

            was_named, _ = await asyncio.gather(name_it(), clean())
            assert (gateway.blobs.files.size(name(data)) is not None) == was_named
            kept += was_named
        assert kept > 0, "at least some records won"


async def test_a_record_cannot_name_what_is_not_on_the_disk(tmp_path: Path) -> None:
    async with site(tmp_path) as gateway:
        with pytest.raises(RefusedError) as refused:
            await gateway.record(name(b"never sent"))
        assert refused.value.reason == "no_such_blob"
        assert gateway.journal.head()[0] == 0


async def test_a_named_blob_whose_file_is_gone_is_told_at_the_start(tmp_path: Path) -> None:
    data = picture(500)
    async with site(tmp_path) as gateway:
        await gateway.put(data)
        await gateway.record(name(data), case="h1")
        path = gateway.blobs.files.path(name(data))
    path.unlink()
    async with site(tmp_path) as gateway:
        await gateway.blobs.sweep()
        assert gateway.told == [("blob.lost", {"sha256": name(data), "local": "gone", "cloud": "none"})]
        row = await gateway.blobs.known(name(data))
        assert row is not None
        assert row.local == blob_table.GONE


# --- power cut ----------------------------------------------------------------------------------------------------


class PowerCutError(BaseException):
    """The machine is off from here on."""


def _cut_before(monkeypatch: pytest.MonkeyPatch, call: str, turn: int) -> Callable[[], list[str]]:
    """The `turn`-th fsync or rename never happens; gives what had happened before."""
    seen: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def step(word: str) -> None:
        seen.append(word)
        if seen.count(call) == turn and word == call:
            raise PowerCutError

    def syncing(file: int) -> None:
        step("fsync")
        fsync(file)

    def renaming(path: Path, target: Path) -> Path:
        step("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", syncing)
    monkeypatch.setattr(Path, "rename", renaming)
    return lambda: seen


@pytest.mark.parametrize("turn", range(1, 9))
async def test_a_power_cut_at_any_fsync_loses_no_blob_that_was_promised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """Before the promise anything may be lost; afterwards file, name and folders are on the disk.

    A rename whose folder was not fsynced is undone here, as a disk may do it.
    """
    data = picture(2 * CHUNK_BYTES)
    folder = BlobFolder(tmp_path / "blobs")
    folder.open()
    promised = False
    with monkeypatch.context() as patch:
        seen = _cut_before(patch, "fsync", turn)
        with contextlib.suppress(PowerCutError):
            for at in (0, CHUNK_BYTES):
                folder.write("phone", at, data[at : at + CHUNK_BYTES])
            folder.finish("phone", name(data))
            promised = True
    if not promised and "rename" in seen():
        folder.path(name(data)).rename(folder.incoming / "phone")
    after = BlobFolder(tmp_path / "blobs")
    after.open()
    after.tidy(3600)
    if promised:
        assert after.verify(name(data)).read_bytes() == data
        return
    offset = after.offset("phone")
    assert offset in (0, CHUNK_BYTES)
    for at in range(offset, len(data), CHUNK_BYTES):
        after.write("phone", at, data[at : at + CHUNK_BYTES])
    after.finish("phone", name(data))
    assert after.verify(name(data)).read_bytes() == data


async def test_folders_are_synced_after_the_name_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    rename, sync = Path.rename, blob_files._sync_folder
    monkeypatch.setattr(Path, "rename", lambda path, to: (order.append("rename"), rename(path, to))[1])
    monkeypatch.setattr(blob_files, "_sync_folder", lambda path: (order.append(path.name), sync(path))[1])
    data, folder = picture(100), BlobFolder(tmp_path / "blobs")
    folder.open()
    folder.write("phone", 0, data)
    order.clear()
    folder.finish("phone", name(data))
    sha = name(data)
    assert order == ["blobs", sha[:2], "rename", sha[2:4], "incoming"]


# --- types --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (JPEG, "image/jpeg"),
        (b"\x89PNG\r\n\x1a\n", "image/png"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", UNKNOWN),
        (b"\x00\x00\x00\x18ftypheic", "image/heic"),
        (b"\x00\x00\x00\x18ftypisom", "video/mp4"),
        (b"\x00\x00\x00\x18ftypqt  ", "video/quicktime"),
        (b"\x00\x00\x00\x18ftypM4A ", "audio/mp4"),
        (b"\x1aE\xdf\xa3", "video/webm"),
        (b"OggS", "audio/ogg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"%PDF-1.7", "application/pdf"),
        (b"<svg xmlns=", UNKNOWN),
        (b"<!DOCTYPE html>", UNKNOWN),
        (b"GIF89a", UNKNOWN),
        (b"PK\x03\x04", UNKNOWN),
        (b"", UNKNOWN),
        (b"\xff", UNKNOWN),
    ],
)
def test_the_first_bytes_tell_the_type(head: bytes, kind: str) -> None:
    assert media_type(head) == kind


def test_nothing_that_is_served_can_run() -> None:
    for kind in (*EVIDENCE, UNKNOWN):
        fields = safe_headers("ab" * 32, kind)
        assert "sandbox" in fields["Content-Security-Policy"]
        assert fields["X-Content-Type-Options"] == "nosniff"
        shown = fields["Content-Disposition"].startswith("inline")
        assert shown == kind.startswith(("image/", "video/", "audio/"))
