"""What is recorded for the power cuts: a gateway's stores, or the cloud's, at work. A line in `ACK` says what was
acknowledged, just after it was.

    python -m sitewarden.tests.peers.power_cut_work FOLDER edge|cloud SEED [NORMAL]
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.store import STEPS, Store
from sitewarden.sync import sqlite
from sitewarden.sync.blob_refs import state_table
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal
from sitewarden.tests.peers.stores import Stream
from sitewarden.words import ClockState, Instant, Quality, Reading, now

GATEWAY, POINT, AT_MS = "gw1", "store.th1.humidity", 1_795_000_000_000


class Told:
    """Says what was acknowledged."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / "ACK", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def __call__(self, *what: object) -> None:
        os.write(self._file, " ".join(map(str, what)).encode() + b"\n")


def blob_of(dice: random.Random) -> bytes:
    return b"\xff\xd8\xff\xe0" + dice.randbytes(dice.randrange(500, 40_000))


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 8192):
        yield data[at : at + 8192]


async def edge(folder: Path, told: Told, dice: random.Random) -> None:
    """Records one by one and in groups, readings that are flushed and sealed, photos that records name."""
    readings = 0
    async with (
        Journal(folder / "journal.db", GATEWAY, (state_table(()),)) as journal,
        History(folder / "history.db", GATEWAY, flush_s=3600, seal_readings=50) as history,
        Blobs(folder / "blobs", journal, rules=()) as blobs,
    ):

        async def append(*named: str) -> None:
            body = {"text": "x" * dice.randrange(10, 3000)}
            (record,) = await journal.append(
                [Draft(kind="hazard.reported", at=now(), actor="p_li", body=body, blobs=named)]
            )
            told("journal", record.seq)

        for turn in range(40):
            await asyncio.gather(*(append() for _ in range(dice.randrange(1, 6))))
            fresh: list[Reading] = []
            for _ in range(dice.randrange(5, 40)):
                at = Instant(utc_ms=AT_MS + readings * 1000, mono_s=float(readings), boot="b", clock=ClockState.SYNCED)
                fresh.append(Reading(point=POINT, value=float(readings), quality=Quality.GOOD, at=at))
                readings += 1
            history.add(fresh)
            await history.flush()
            told("history", readings)
            if turn % 4 == 0:
                photo = blob_of(dice)
                assert await blobs.take(_pieces(photo)) == hashlib.sha256(photo).hexdigest()
                await append(hashlib.sha256(photo).hexdigest())
                told("blob", hashlib.sha256(photo).hexdigest())


async def cloud(folder: Path, told: Told, dice: random.Random) -> None:
    """Batches of three gateways at once."""
    async with SqliteDatabase(folder / "cloud.db", STEPS) as database:
        store = Store(database)

        async def send(name: str) -> None:
            stream = Stream(name)
            for _ in range(dice.randrange(30, 60)):
                taken = await store.take(stream.next())
                told("ack", name, taken.cursor.ack)

        await asyncio.gather(*(send(f"gw{n}") for n in range(3)))


def unsafe() -> None:
    """As if commits were not synced: what the tests must notice."""
    real = sqlite.connect_for_writing

    def connect(path: Path, **more: Any) -> Any:
        connection = real(path, **more)
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    sqlite.connect_for_writing = connect


if __name__ == "__main__":
    where, what, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if "NORMAL" in sys.argv:
        unsafe()
    asyncio.run({"edge": edge, "cloud": cloud}[what](where, Told(where), random.Random(seed)))
