"""Charts at headquarters: every reading counts once; minutes and hours say what the readings say."""

from __future__ import annotations

import asyncio
import math
import random
from pathlib import Path

import pytest
from sitewarden.cloud.charts import DAY_MS, HOUR_MS, MINUTE_MS, STEPS, Charts, Fold
from sitewarden.cloud.engine import SqliteDatabase
from sitewarden.cloud.parcels import open_parcel
from sitewarden.cloud.store import STEPS as STORE_STEPS
from sitewarden.cloud.store import Store
from sitewarden.sync.columns import compress, pack, unpack
from sitewarden.sync.streams import batch_chain, stream_genesis
from sitewarden.words import ClockState, Instant, Quality, Reading

BEGIN_MS = 1_795_000_000_000 - 1_795_000_000_000 % DAY_MS
EPOCH = "ab" * 8


def reading(point: str, utc_ms: int, value: float | None, quality: Quality = Quality.GOOD) -> Reading:
    at = Instant(utc_ms=utc_ms, mono_s=utc_ms / 1000, boot="b", clock=ClockState.SYNCED)
    return Reading(point=point, value=value, quality=quality, why="", at=at)


class Gateway:
    """Sends segments straight into the store."""

    def __init__(self, store: Store, name: str = "gw1") -> None:
        self._store, self._name = store, name
        self._n, self._chain = 0, stream_genesis(name, "history", EPOCH)

    async def send(self, readings: list[Reading]) -> None:
        self._n += 1
        payload = pack(readings)
        self._chain = batch_chain(self._chain, self._n, payload)
        parcel = open_parcel(self._name, "history", EPOCH, self._n, self._chain, compress(payload), 1)
        assert (await self._store.take(parcel)).problem == ""


@pytest.fixture
async def database(tmp_path: Path):
    async with SqliteDatabase(tmp_path / "cloud.db", [*STORE_STEPS, *STEPS]) as made:
        yield made


async def settle(charts: Charts) -> None:
    while await charts.step():
        pass


async def test_a_chart_says_what_the_readings_say(database: SqliteDatabase):
    dice, store = random.Random(5), Store(database)
    gateway, charts = Gateway(store), Charts(database)
    sent: list[Reading] = []
    for segment in range(90):
        batch = [
            reading("a.b.c", BEGIN_MS + (segment * 50 + i) * 7_000, round(dice.uniform(-50, 50), 2)) for i in range(50)
        ]
        if segment % 10 == 0:
            batch.append(reading("a.b.c", BEGIN_MS + segment * 350_000, None, Quality.BAD))
        sent += batch
        await gateway.send([*batch, reading("a.b.other", BEGIN_MS + segment, 1.0)])
    await settle(charts)
    (one, other) = await charts.points("gw1")
    assert (one[0], one[1], one[2]) == ("a.b.c", sent[0].at.utc_ms, max(r.at.utc_ms for r in sent))
    assert other[0] == "a.b.other"
    for span_ms, width_ms in ((9 * HOUR_MS, MINUTE_MS), (400 * DAY_MS, 3 * HOUR_MS)):
        buckets = await charts.buckets("gw1", "a.b.c", BEGIN_MS, BEGIN_MS + span_ms, 100_000)
        good = [r for r in sent if r.value is not None]
        assert sum(bucket.count for bucket in buckets) == len(good)
        assert sum(bucket.bad for bucket in buckets) == len(sent) - len(good)
        for bucket in buckets:
            own = [r.value for r in good if bucket.at_ms <= r.at.utc_ms < bucket.at_ms + width_ms]
            values = [value for value in own if value is not None]
            if not values:
                continue
            assert (bucket.low, bucket.high) == (min(values), max(values))
            assert bucket.mean == pytest.approx(math.fsum(values) / len(values))


async def test_every_reading_counts_once_also_when_two_work_at_once(database: SqliteDatabase):
    gateway, charts = Gateway(Store(database)), Charts(database)
    for n in range(100):
        await gateway.send([reading("a.b.c", BEGIN_MS + n * 1000, float(n))])
    await asyncio.gather(*(Charts(database).step() for _ in range(6)))
    await settle(charts)
    await gateway.send([reading("a.b.c", BEGIN_MS + 500, 1000.0)])  # late: an hour that was worked out already
    await settle(charts)
    (bucket,) = await charts.buckets("gw1", "a.b.c", BEGIN_MS, BEGIN_MS + DAY_MS, 1)
    assert (bucket.count, bucket.low, bucket.high) == (101, 0.0, 1000.0)


async def test_gateways_and_points_do_not_mix_and_a_range_ends_where_it_ends(database: SqliteDatabase):
    store, charts = Store(database), Charts(database)
    one, two = Gateway(store), Gateway(store, "gw2")
    await one.send([reading("a.b.c", BEGIN_MS + hour * HOUR_MS, float(hour)) for hour in range(48)])
    await two.send([reading("a.b.c", BEGIN_MS, 99.0)])
    await settle(charts)
    buckets = await charts.buckets("gw1", "a.b.c", BEGIN_MS + 3 * HOUR_MS, BEGIN_MS + 5 * HOUR_MS, 10)
    assert [bucket.mean for bucket in buckets] == [3.0, 4.0]
    assert await charts.buckets("gw1", "nobody", BEGIN_MS, BEGIN_MS + DAY_MS, 10) == []
    (bucket,) = await charts.buckets("gw2", "a.b.c", BEGIN_MS, BEGIN_MS + DAY_MS, 10)
    assert bucket.mean == 99.0


async def test_a_batch_in_quarantine_does_not_hold_the_charts_up(database: SqliteDatabase):
    store, charts = Store(database), Charts(database)
    gateway = Gateway(store)
    await gateway.send([reading("a.b.c", BEGIN_MS, 1.0)])
    gateway._n += 1
    gateway._chain = batch_chain(gateway._chain, gateway._n, b"poison")
    await store.take(open_parcel("gw1", "history", EPOCH, gateway._n, gateway._chain, compress(b"poison"), 1))
    await gateway.send([reading("a.b.c", BEGIN_MS + 60_000, 3.0)])
    await settle(charts)
    (bucket,) = await charts.buckets("gw1", "a.b.c", BEGIN_MS, BEGIN_MS + DAY_MS, 1)
    assert (bucket.count, bucket.mean) == (2, 2.0)


def test_a_year_is_a_few_hundred_rows():
    fold = Fold()
    for hour in range(0, 24 * 365, 6):
        fold.take(unpack(pack([reading("a.b.c", BEGIN_MS + hour * HOUR_MS, 1.0)])))
    fold.add_hours()
    assert len([row for row in fold.rows if row[1] == HOUR_MS]) == 365


async def test_while_gateways_wait_a_step_takes_one_segment(database: SqliteDatabase):
    gateway, charts = Gateway(Store(database)), Charts(database)
    for n in range(10):
        await gateway.send([reading("a.b.c", BEGIN_MS + n * 1000, float(n))])
    await charts.step(lambda: True)
    (bucket,) = await charts.buckets("gw1", "a.b.c", BEGIN_MS, BEGIN_MS + DAY_MS, 1)
    assert bucket.count == 1
    await charts.step()
    (bucket,) = await charts.buckets("gw1", "a.b.c", BEGIN_MS, BEGIN_MS + DAY_MS, 1)
    assert bucket.count == 10
