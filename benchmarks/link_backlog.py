"""Weeks without a link, made in seconds by the gateway's own writers: history, journal, evidence.

Two hundred different segments are packed from readings; in the others only the time differs, as the times in a segment
are counted from its first reading. Every segment is chained and compressed by itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from sitewarden.edge.cases import CASES
from sitewarden.edge.ladders.climb import Subject
from sitewarden.edge.ladders.deviation import of_ladder
from sitewarden.edge.state_tables import TABLES
from sitewarden.sync.blobs import Blobs
from sitewarden.sync.columns import compress, pack, pack_msgpack
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.streams import batch_chain, stream_genesis
from sitewarden.words import ClockState, Instant, Quality, Reading, now

POINTS, SECONDS = 200, 10
"""Of a segment: every point once a second, 2,000 readings (the workload of the facts: 200 readings/s)."""
READINGS = POINTS * SECONDS
_SEGMENTS_AT_ONCE, _DIFFERENT = 2_000, 200
_RECORDS_AT_ONCE = 1_000


async def history(path: Path, segments: int) -> None:
    """`segments` sealed segments that end now, `SECONDS` each."""
    begin_ms = int(time.time() * 1000) - segments * SECONDS * 1000
    async with History(path, "gw1") as made:
        templates = list(_templates(begin_ms))
        chain = stream_genesis("gw1", "history", made.epoch)
        for first in range(1, segments + 1, _SEGMENTS_AT_ONCE):
            rows, bodies = [], []
            for n in range(first, min(first + _SEGMENTS_AT_ONCE, segments + 1)):
                t0_ms = begin_ms + (n - 1) * SECONDS * 1000
                head, tail = templates[n % _DIFFERENT]
                payload = head + pack_msgpack(t0_ms) + tail
                chain = batch_chain(chain, n, payload)
                rows.append((n, t0_ms, t0_ms + (SECONDS - 1) * 1000, READINGS, "b", 1, chain))
                bodies.append((n, compress(payload)))

            def store(connection, rows=rows, bodies=bodies, chain=chain) -> None:
                connection.executemany("INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
                connection.executemany("INSERT INTO body VALUES (?, ?)", bodies)
                newest = (("chain", chain), ("sealed", rows[-1][0]))
                connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", newest)

            await made._write(store)


def _templates(begin_ms: int) -> Iterator[tuple[bytes, bytes]]:
    """Packed segments, cut where the time of the first reading stands."""
    dice = random.Random(5)
    values = [20 + 5 * dice.random() for _ in range(POINTS)]
    for _ in range(_DIFFERENT):
        found = []
        for second in range(SECONDS):
            at = Instant(utc_ms=begin_ms + 1000 * second, mono_s=float(second), boot="b", clock=ClockState.SYNCED)
            for index in range(POINTS):
                values[index] += dice.gauss(0, 0.05)
                name = f"area.device{index // 10}.point{index}"
                found.append(Reading(point=name, value=round(values[index], 1), quality=Quality.GOOD, at=at))
        head, _, tail = pack(found).partition(pack_msgpack(begin_ms))
        assert tail
        yield head, tail


async def journal(path: Path, records: int) -> None:
    """`records` notes of about 500 bytes."""
    dice = random.Random(6)
    async with Journal(path, "gw1", TABLES) as made:
        for first in range(0, records, _RECORDS_AT_ONCE):
            count = min(_RECORDS_AT_ONCE, records - first)
            await made.append([note(dice) for _ in range(count)])


def note(dice: random.Random) -> Draft:
    """What a person writes down: half of it never the same."""
    text = "巡检:库房门窗完好,温湿度正常。" + dice.randbytes(80).hex()
    body = {"area": "area", "person": "k", "text": text, "text_en": "Round: doors and windows in order." * 2}
    return Draft(kind="note.made", at=now(), actor="k", body=body)


async def evidence(data: Path, count: int, size: int, *, is_open: bool) -> None:
    """`count` pictures of `size` bytes, each named by a record; with `is_open` of a case that nobody has closed."""
    dice = random.Random(size)
    async with (
        Journal(data / "journal.db", "gw1", TABLES) as made,
        Blobs(data / "blobs", made, rules=CASES) as blobs,
    ):
        for n in range(count):
            sha256 = await blobs.take(_pieces(b"\xff\xd8\xff\xe0" + dice.randbytes(size - 4)))
            report = of_ladder(Subject(kind="alarm", id=f"area.d1.r{n}.high")).to_json()
            kind, body = ("deviation.opened", report) if is_open else ("note.made", {})
            await made.append([Draft(kind=kind, at=now(), actor="k", body=body, blobs=(sha256,))])


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(data), 1 << 18):
        yield data[at : at + (1 << 18)]
