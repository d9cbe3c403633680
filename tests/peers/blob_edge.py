"""A gateway with blobs and an uplink, in a process of its own, to be killed at any moment.

`python -m sitewarden.tests.peers.blob_edge FOLDER PORT SEED`: makes blobs and records that name them for ever, and
prints `named SHA256` after each record was committed.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.sync.blob_refs import state_table
from sitewarden.sync.blob_stream import BlobStream
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.cloud_client import UplinkOptions
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.uplink import run_uplink
from sitewarden.words import now

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
_MOST_WAITING = 6


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 50_000):
        yield data[at : at + 50_000]


async def _make(journal: Journal, blobs: Blobs, dice: random.Random) -> None:
    while True:
        data = b"\xff\xd8\xff" + dice.randbytes(dice.choice([1_000, 300_000, 900_000]))
        sha256 = hashlib.sha256(data).hexdigest()
        here = await blobs.here(sha256)
        await blobs.append(sha256, here.offset, len(data), _pieces(data[here.offset :]))
        await journal.append([Draft(kind="note.made", at=now(), actor="gateway", body={}, blobs=(sha256,))])
        sys.stdout.write(f"named {sha256}\n")
        sys.stdout.flush()
        while len(await blobs.waiting()) > _MOST_WAITING:
            await asyncio.sleep(0.02)


async def main(folder: Path, port: int, seed: int) -> None:
    """Never returns."""
    options = UplinkOptions(url=f"http://127.0.0.1:{port}", gateway="gw1", backoff_max_s=0.05, contact_s=0.2)
    async with (
        Journal(folder / "journal.db", "gw1", (state_table(),)) as journal,
        Blobs(folder / "blobs", journal) as blobs,
        asyncio.TaskGroup() as group,
    ):
        stream = BlobStream(blobs, look_s=0.5)
        group.create_task(run_uplink(journal, None, KEY, options, UplinkHealth(), also=[stream.run]))
        if seed >= 0:
            group.create_task(_make(journal, blobs, random.Random(seed)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
