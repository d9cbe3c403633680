"""Stores at work on a disk that fails now and then (failing_disk.c): begun again after each failure, as the daemon is.
At every start what was acknowledged before must be there. Says so in one line of JSON.

    python -m sitewarden.tests.peers.failing_disk_work FOLDER edge|cloud SEED FAILURES SECONDS
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sqlite3
import sys
import time
from pathlib import Path

from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.store import STEPS, Store
from sitewarden.errors import SitewardenError
from sitewarden.sync.blob_refs import state_table
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal, verify_file
from sitewarden.tests.peers.power_cut_work import AT_MS, GATEWAY, POINT, _pieces, blob_of
from sitewarden.tests.peers.stores import Stream
from sitewarden.words import ClockState, Instant, Quality, Reading, now

FAILED = (OSError, sqlite3.OperationalError, SitewardenError)


class Edge:
    """Records, readings and photos; what of them was acknowledged."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder, self.dice = folder, dice
        self.records: dict[int, bytes] = {}
        self.photos: list[str] = []
        self.readings = 0

    async def life(self) -> None:
        """Until the disk fails."""
        damaged: list[Path] = []
        async with (
            Journal(self.folder / "journal.db", GATEWAY, (state_table(()),)) as journal,
            History(
                self.folder / "history.db", GATEWAY, flush_s=3600, seal_readings=50, on_damage=damaged.append
            ) as history,
            Blobs(self.folder / "blobs", journal, rules=()) as blobs,
        ):
            assert not damaged
            await self._look(journal, history, blobs)
            while True:
                await self._append(journal)
                await self._read(history)
                if self.dice.random() < 0.1:
                    photo = blob_of(self.dice)
                    self.photos.append(await blobs.take(_pieces(photo)))
                    assert self.photos[-1] == hashlib.sha256(photo).hexdigest()
                    await self._append(journal, self.photos[-1])

    async def _append(self, journal: Journal, *named: str) -> None:
        body = {"text": "x" * self.dice.randrange(10, 3000)}
        drafts = [Draft(kind="hazard.reported", at=now(), actor="p_li", body=body, blobs=named)]
        (record,) = await journal.append(drafts)
        self.records[record.seq] = record.chain

    async def _read(self, history: History) -> None:
        fresh: list[Reading] = []
        for n in range(self.readings, self.readings + self.dice.randrange(5, 40)):
            at = Instant(utc_ms=AT_MS + n * 1000, mono_s=float(n), boot="b", clock=ClockState.SYNCED)
            fresh.append(Reading(point=POINT, value=float(n), quality=Quality.GOOD, at=at))
        history.add(fresh)
        await history.flush()
        self.readings += len(fresh)

    async def _look(self, journal: Journal, history: History, blobs: Blobs) -> None:
        kept = {seq: chain for seq, _, chain in await journal.raw(0, 10**6)}
        assert self.records.items() <= kept.items(), "an acknowledged record is not there"
        self.records = kept
        assert not (verdict := verify_file(self.folder / "journal.db")).problem, verdict
        values = [value for _, value, _ in await history.read(POINT, 0, AT_MS + 10**12)]
        assert values == [float(n) for n in range(len(values))], "other readings than were written"
        assert len(values) >= self.readings, "acknowledged readings are not there"
        self.readings = len(values)
        for sha256 in self.photos:
            await blobs.verified(sha256)

    def counts(self) -> dict[str, int]:
        return {"records": len(self.records), "readings": self.readings, "photos": len(self.photos)}


class Cloud:
    """Batches of three gateways; what of them was acknowledged."""

    def __init__(self, folder: Path, dice: random.Random) -> None:
        self.folder, self.dice = folder, dice
        self.streams = {name: Stream(name) for name in ("gw0", "gw1", "gw2")}
        self.sent = {name: [stream.next()] for name, stream in self.streams.items()}
        self.acked = dict.fromkeys(self.streams, 0)

    async def life(self) -> None:
        """Until the disk fails."""
        async with SqliteDatabase(self.folder / "cloud.db", STEPS) as database:
            store = Store(database)
            for name in self.streams:
                await self._look(database, store, name)
            async with asyncio.TaskGroup() as group:
                for name in self.streams:
                    group.create_task(self._send(store, name))

    async def _send(self, store: Store, name: str) -> None:
        while True:
            n = self.acked[name] + 1
            if n > len(self.sent[name]):
                self.sent[name].append(self.streams[name].next())
            taken = await store.take(self.sent[name][n - 1])
            assert taken.cursor.ack == n
            self.acked[name] = n

    async def _look(self, database: SqliteDatabase, store: Store, name: str) -> None:
        found = (await store.cursors(name))["history"]
        ack = found[0].ack if found else 0
        assert ack >= self.acked[name], "an acknowledged batch is not there"
        sql = "SELECT n, chain FROM batch WHERE gateway = ? ORDER BY n"
        kept = await database.read(lambda tx: tx.all(sql, name))
        assert [(n, bytes(chain)) for n, chain in kept] == [(p.n, p.chain) for p in self.sent[name][:ack]]
        self.acked[name] = ack

    def counts(self) -> dict[str, int]:
        return dict(self.acked)


async def run(work: Edge | Cloud, count: Path, most: int, seconds: float) -> dict[str, int]:
    """Lives one after the other."""
    end_s, lives = time.monotonic() + seconds, 0
    while count.stat().st_size < most and time.monotonic() < end_s:
        lives += 1
        try:
            await work.life()
        except* FAILED as group:
            for error in group.exceptions:
                if isinstance(error, SitewardenError) and error.__cause__ is None:
                    raise
    return {"lives": lives, "failures": count.stat().st_size, **work.counts()}


if __name__ == "__main__":
    where, what, seed = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    kind = {"edge": Edge, "cloud": Cloud}[what]
    counted = where.with_suffix(".count")
    found = asyncio.run(run(kind(where, random.Random(seed)), counted, int(sys.argv[4]), float(sys.argv[5])))
    print(json.dumps(found))
