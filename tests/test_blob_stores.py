"""Contract of the stores of blobs: a folder, and a real S3 service."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sitewarden.cloud.blob_files import FileBlobStore
from sitewarden.cloud.blob_port import BlobStore, Key, MissingError, UnavailableError, is_right
from sitewarden.cloud.blob_s3 import S3BlobStore
from sitewarden.cloud.blob_store import Part
from sitewarden.sync.blob_files import BlobFolder, WrongContentError
from sitewarden.tests.peers.seaweed import BUCKET, Seaweed

PIECE = 256 * 1024
PART_BYTES = 5 * 2**20


def some(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def key_of(data: bytes, gateway: str = "gw1") -> Key:
    return Key(gateway=gateway, sha256=hashlib.sha256(data).hexdigest())


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """One service for all tests of this file."""
    service = Seaweed(tmp_path_factory.mktemp("seaweed"))
    try:
        service.start()
        yield service
    finally:
        service.kill()


@dataclass
class Stand:
    """A store, and a way to break what is in it."""

    store: BlobStore
    overwrite: Callable[[str, bytes], None]
    lose_piece: Callable[[Key, int], None]
    names: Callable[[], list[str]]


@pytest.fixture(params=["folder", "s3"])
async def stand(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Stand]:
    if request.param == "folder":
        yield await _folder(tmp_path)
        return
    service: Seaweed = request.getfixturevalue("s3")
    async with S3BlobStore(service.options(secrets.token_hex(4), part_bytes=PART_BYTES)) as store:
        yield _bucket(store)


async def _folder(tmp_path: Path) -> Stand:
    files = BlobFolder(tmp_path / "blobs")
    store = await FileBlobStore(tmp_path / "blobs").__aenter__()

    def overwrite(sha256: str, data: bytes) -> None:
        files.path(sha256).write_bytes(data)

    def lose(key: Key, offset: int) -> None:
        path = files.incoming / f"{key.gateway}.{key.sha256}"
        with path.open("r+b") as file:
            file.truncate(offset)

    def names() -> list[str]:
        return sorted(path.name for path in files.root.rglob("*") if path.is_file())

    return Stand(store, overwrite, lose, names)


def _bucket(store: S3BlobStore) -> Stand:
    client: Any = store._client

    def overwrite(sha256: str, data: bytes) -> None:
        client.put_object(Bucket=BUCKET, Key=store._name(sha256), Body=data)

    def lose(key: Key, offset: int) -> None:
        client.delete_object(Bucket=BUCKET, Key=store._piece_name(key, offset))

    def names() -> list[str]:
        found = client.list_objects_v2(Bucket=BUCKET, Prefix=store._options.prefix).get("Contents", ())
        return sorted(entry["Key"].rpartition("/")[2] for entry in found)

    return Stand(store, overwrite, lose, names)


@dataclass
class Memory:
    """What the database would remember."""

    upload: str = ""
    parts: dict[int, str] = field(default_factory=dict)
    fail_after: int | None = None

    async def __call__(self, upload: str, parts: dict[int, str]) -> None:
        self.upload, self.parts = upload, dict(parts)
        if self.fail_after is not None and len(parts) >= self.fail_after:
            raise UnavailableError("the service ends here")

    def part(self, size: int) -> Part:
        return Part(size=size, have=size, upload=self.upload, parts=dict(self.parts))


async def send(store: BlobStore, key: Key, data: bytes, piece: int = PIECE, start: int = 0) -> None:
    for at in range(start, len(data), piece):
        await store.append(key, at, data[at : at + piece])


async def whole(store: BlobStore, data: bytes, gateway: str = "gw1", memory: Memory | None = None) -> None:
    key, memory = key_of(data, gateway), memory or Memory()
    await send(store, key, data)
    await store.finish(key, memory.part(len(data)), memory)


async def all_of(store: BlobStore, sha256: str) -> bytes:
    found = b""
    while data := await store.read(sha256, len(found), 1_000_000):
        found += data
    return found


@pytest.mark.parametrize("size", [1, PIECE, 3 * PIECE + 17])
async def test_pieces_become_a_blob_and_leave_nothing_else(stand: Stand, size: int) -> None:
    data = some(size)
    sha = key_of(data).sha256
    with pytest.raises(KeyError):
        await stand.store.read(sha, 0, 10)
    await whole(stand.store, data)
    assert await all_of(stand.store, sha) == data
    assert await stand.store.read(sha, size // 2, 5) == data[size // 2 : size // 2 + 5]
    assert await stand.store.read(sha, size, 5) == b""
    assert await is_right(stand.store, sha)
    assert stand.names() == [sha]


async def test_a_blob_of_many_parts(stand: Stand) -> None:
    data = some(2 * PART_BYTES + 3 * PIECE + 5)
    memory = Memory()
    await whole(stand.store, data, memory=memory)
    assert await all_of(stand.store, key_of(data).sha256) == data
    assert stand.names() == [key_of(data).sha256]


async def test_wrong_content_leaves_nothing_and_can_be_sent_again(stand: Stand) -> None:
    for size in (2 * PIECE, PART_BYTES + 2 * PIECE):
        data, other = some(size), some(size, 2)
        key = key_of(data)
        await send(stand.store, key, other)
        with pytest.raises(WrongContentError):
            await stand.store.finish(key, Memory().part(size), Memory())
        assert key.sha256 not in stand.names()
        assert not [name for name in stand.names() if name.endswith(key.sha256)]
        await whole(stand.store, data)
        assert await is_right(stand.store, key.sha256)


async def test_a_piece_that_comes_again_or_with_another_size_replaces_the_old_one(stand: Stand) -> None:
    data = some(4 * PIECE)
    key = key_of(data)
    await send(stand.store, key, data[: 3 * PIECE])
    await send(stand.store, key, data, piece=PIECE // 2 + 100, start=PIECE)
    await stand.store.finish(key, Memory().part(len(data)), Memory())
    assert await is_right(stand.store, key.sha256)


async def test_bytes_that_were_lost_are_named_by_their_offset(stand: Stand) -> None:
    data = some(4 * PIECE)
    key = key_of(data)
    await send(stand.store, key, data)
    stand.lose_piece(key, 2 * PIECE)
    with pytest.raises(MissingError) as missing:
        await stand.store.finish(key, Memory().part(len(data)), Memory())
    assert missing.value.offset == 2 * PIECE
    await send(stand.store, key, data, start=2 * PIECE)
    await stand.store.finish(key, Memory().part(len(data)), Memory())
    assert await is_right(stand.store, key.sha256)


async def test_finishing_again_is_harmless(stand: Stand) -> None:
    """The process ended after the blob had its name and before the database knew."""
    data = some(3 * PIECE)
    await whole(stand.store, data)
    await stand.store.finish(key_of(data), Memory().part(len(data)), Memory())
    await stand.store.drop(key_of(data))
    assert await is_right(stand.store, key_of(data).sha256)


async def test_two_gateways_send_the_same_blob_at_once(stand: Stand) -> None:
    data = some(5 * PIECE)
    await asyncio.gather(*(whole(stand.store, data, gateway) for gateway in ("gw1", "gw2", "gw3")))
    assert stand.names() == [key_of(data).sha256]
    assert await is_right(stand.store, key_of(data).sha256)


async def test_one_gateways_wrong_bytes_do_not_touch_anothers(stand: Stand) -> None:
    data = some(3 * PIECE)
    key, bad = key_of(data), Key(gateway="gw2", sha256=key_of(data).sha256)
    await send(stand.store, key, data)
    await send(stand.store, bad, some(3 * PIECE, 9))
    with pytest.raises(WrongContentError):
        await stand.store.finish(bad, Memory().part(len(data)), Memory())
    await stand.store.finish(key, Memory().part(len(data)), Memory())
    assert await is_right(stand.store, key.sha256)


@pytest.mark.parametrize("size", [3 * PIECE, PART_BYTES + 2 * PIECE])
async def test_a_damaged_blob_is_seen_and_healed_by_the_next_upload(stand: Stand, size: int) -> None:
    data = some(size)
    sha = key_of(data).sha256
    await whole(stand.store, data)
    stand.overwrite(sha, b"\0" + data[1:])
    assert not await is_right(stand.store, sha)
    await whole(stand.store, data, "gw2")
    assert await is_right(stand.store, sha)


async def test_what_is_dropped_is_gone(stand: Stand) -> None:
    data = some(3 * PIECE)
    await send(stand.store, key_of(data), data)
    await stand.store.drop(key_of(data))
    await stand.store.drop(key_of(data))
    assert stand.names() == []


# --- S3 alone -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def bucket(s3: Seaweed) -> AsyncIterator[S3BlobStore]:
    async with S3BlobStore(s3.options(secrets.token_hex(4), part_bytes=PART_BYTES)) as store:
        yield store


async def test_a_multipart_upload_goes_on_with_the_parts_that_are_there(
    s3: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = some(3 * PART_BYTES)
    async with bucket(s3) as store:
        memory, sent = Memory(fail_after=2), []
        put_part = store._put_part

        def counting(name: str, upload: str, number: int, part: bytes) -> str:
            sent.append(number)
            return put_part(name, upload, number, part)

        monkeypatch.setattr(store, "_put_part", counting)
        with pytest.raises(UnavailableError):
            await whole(store, data, memory=memory)
        memory.fail_after = None
        await store.finish(key_of(data), memory.part(len(data)), memory)
        assert sent == [1, 2, 3]
        assert await is_right(store, key_of(data).sha256)


async def test_an_upload_id_that_s3_forgot_begins_anew(s3: Seaweed) -> None:
    data = some(2 * PART_BYTES)
    async with bucket(s3) as store:
        memory = Memory(upload="0123456789abcdef_gone", parts={1: "tag"})
        await whole(store, data, memory=memory)
        assert await is_right(store, key_of(data).sha256)


async def test_wrong_credentials_are_told_with_a_hint(s3: Seaweed, tmp_path: Path) -> None:
    options = s3.options("x")
    other = tmp_path / "credentials"
    other.write_text("[default]\naws_access_key_id = nobody\naws_secret_access_key = nothing\n", "utf-8")
    async with S3BlobStore(type(options)(url=options.url, endpoint=options.endpoint, credentials_file=other)) as store:
        with pytest.raises(UnavailableError, match="credentials"):
            await store.append(key_of(b"x"), 0, b"x")


async def test_a_killed_s3_service_costs_no_byte_that_was_answered(tmp_path: Path) -> None:
    """kill -9 in the middle: what was answered is there when it is back, the rest is sent, the SHA-256 fits."""
    service = Seaweed(tmp_path / "seaweed")
    data, have = some(8 * PIECE), 0
    key = key_of(data)
    try:
        service.start()
        async with bucket(service) as store:
            for at in range(0, 5 * PIECE, PIECE):
                await store.append(key, at, data[at : at + PIECE])
                have = at + PIECE
            service.kill()
            with pytest.raises(UnavailableError):
                await store.append(key, have, data[have : have + PIECE])
            with pytest.raises(UnavailableError):
                await store.finish(key, Memory().part(len(data)), Memory())
            service.start()
            await send(store, key, data, start=have)
            await store.finish(key, Memory().part(len(data)), Memory())
            assert await all_of(store, key.sha256) == data
    finally:
        service.kill()
