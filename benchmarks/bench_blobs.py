"""How fast evidence travels, beside a bare aiohttp handler that only reads the same pieces, in the same run.

One client sends blobs in pieces of 256 KiB over loopback; a round sends the same bytes to both, taking
turns; the ratio is the median over rounds. Headquarters' side hashes, fsyncs each piece, commits the offset and names
the blob; two fsyncs for each piece bound the rate. The other rows: what the gateway's own intake and its
verification on reading do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meter import Goals
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.serving.listen import serving
from sitewarden.sync import wire
from sitewarden.sync.blob_refs import state_table
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.journal import Journal
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.wire import CHUNK_BYTES

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
ROUNDS = 7
BLOB_BYTES = 32 * CHUNK_BYTES
MIB = 2**20

Send = Callable[[aiohttp.ClientSession, str, bytes], Awaitable[None]]


def blob() -> bytes:
    return b"\xff\xd8\xff\xe0" + os.urandom(BLOB_BYTES - 4)


async def send_signed(session: aiohttp.ClientSession, base: str, data: bytes) -> None:
    """As the uplink does, without its store."""
    sha256 = hashlib.sha256(data).hexdigest()
    uri = base + wire.blob_path("gw1", sha256)
    for at in range(0, len(data), CHUNK_BYTES):
        piece = data[at : at + CHUNK_BYTES]
        message = wire.Message(
            method="PATCH", target_uri=uri, digest=wire.content_digest(piece), upload=(str(at), str(len(data)))
        )
        headers = wire.sign(message, KEY, created_s=int(time.time()), nonce=os.urandom(16).hex())
        async with session.patch(uri, data=piece, headers=headers) as answer:
            assert answer.status == 200, await answer.text()


async def send_bare(session: aiohttp.ClientSession, base: str, data: bytes) -> None:
    for at in range(0, len(data), CHUNK_BYTES):
        async with session.patch(f"{base}/bare", data=data[at : at + CHUNK_BYTES]) as answer:
            assert answer.status == 200


@contextlib.asynccontextmanager
async def cloud(folder: Path) -> AsyncIterator[str]:
    gateway = GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(KEY))
    config = CloudConfig(cloud=CloudTable(name="总部", name_en="HQ", port=0), gateway=(gateway,))
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(run_cloud(config, folder, ready=up.set_result))
        yield f"http://127.0.0.1:{await up}"
        task.cancel()


@contextlib.asynccontextmanager
async def bare() -> AsyncIterator[str]:
    async def read(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response({})

    app = web.Application(client_max_size=2 * CHUNK_BYTES)
    app.router.add_patch("/bare", read)
    async with serving(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}"


async def rate(send: Send, session: aiohttp.ClientSession, base: str, data: bytes) -> float:
    """MiB a second."""
    since = time.perf_counter()
    await send(session, base, data)
    return len(data) / MIB / (time.perf_counter() - since)


async def uploads(folder: Path) -> tuple[float, float, float]:
    """Rates of ours and of the bare handler, and the median ratio."""
    ours, theirs = [], []
    async with cloud(folder) as ours_at, bare() as bare_at, aiohttp.ClientSession() as session:
        for _ in range(ROUNDS):
            data = blob()
            theirs.append(await rate(send_bare, session, bare_at, data))
            ours.append(await rate(send_signed, session, ours_at, data))
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return statistics.median(ours), statistics.median(theirs), statistics.median(ratios)


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 64 * 1024):
        yield data[at : at + 64 * 1024]


async def gateway(folder: Path) -> tuple[float, float]:
    """MiB a second of the intake, and of a verification on reading."""
    intake, check = [], []
    async with (
        Journal(folder / "journal.db", "gw1", (state_table(),)) as journal,
        Blobs(folder / "b", journal) as blobs,
    ):
        for _ in range(ROUNDS):
            data = blob()
            sha256, since = hashlib.sha256(data).hexdigest(), time.perf_counter()
            await blobs.append(sha256, 0, len(data), _pieces(data))
            intake.append(len(data) / MIB / (time.perf_counter() - since))
            since = time.perf_counter()
            await blobs.verified(sha256)
            check.append(len(data) / MIB / (time.perf_counter() - since))
    return statistics.median(intake), statistics.median(check)


async def main() -> None:
    """Print the rates, then the goal."""
    goals = Goals()
    with tempfile.TemporaryDirectory(prefix="bench-blobs-", dir=Path.cwd()) as folder:
        (Path(folder) / "edge").mkdir()
        ours, theirs, ratio = await uploads(Path(folder) / "cloud")
        intake, check = await gateway(Path(folder) / "edge")
    print(f"upload to headquarters, pieces of 256 KiB, fsync and commit each: {ours:.0f} MiB/s")
    print(f"bare aiohttp PATCH of the same pieces: {theirs:.0f} MiB/s")
    print(f"intake on the gateway, fsync each 256 KiB: {intake:.0f} MiB/s; verified on reading: {check:.0f} MiB/s")
    goals.least("upload / bare aiohttp PATCH, each piece durable and committed", ratio, 0.05)
    goals.print()


if __name__ == "__main__":
    asyncio.run(main())
