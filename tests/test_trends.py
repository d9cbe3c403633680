"""Trends: charts say what the readings say, every reading once, whatever dies, is lost or comes late."""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import shutil
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sitewarden.sync.history import History, Segment
from sitewarden.sync.sqlite import StoreError
from sitewarden.sync.tallies import DAY_MS, HOUR_MS, MINUTE_MS, Tally
from sitewarden.sync.trends import Trends, width_of
from sitewarden.words import Instant, Quality, Reading

POINT = "store.th1.humidity"
T0 = 1_795_000_000_000 - 1_795_000_000_000 % DAY_MS + 7 * HOUR_MS


def reading(utc_ms: int, value: float | None, quality: Quality = Quality.GOOD, point: str = POINT) -> Reading:
    quality = Quality.BAD if value is None else quality
    at = Instant(utc_ms=utc_ms, mono_s=utc_ms / 1000, boot="b")
    return Reading(point=point, value=value, quality=quality, at=at)


def numbers(readings: Sequence[Reading], point: str = POINT) -> Tally:
    """What a chart must say of these readings, worked out plainly."""
    own = [r for r in readings if r.point == point]
    good = [(r.at.utc_ms, r.value) for r in own if r.value is not None and r.quality is not Quality.BAD]
    worst = max((["good", "uncertain", "bad"].index(r.quality.value) for r in own), default=0)
    tally = Tally(count=len(good), bad=len(own) - len(good), worst=worst)
    if good:
        values = [value for _, value in good]
        tally.total, tally.low, tally.high = math.fsum(values), min(values), max(values)
        tally.last_ms, tally.last = max(good, key=lambda pair: pair[0])
    return tally


def same(found: Tally, wanted: Tally) -> bool:
    exact = (found.count, found.bad, found.worst, found.low, found.high, found.last_ms) == (
        *(wanted.count, wanted.bad, wanted.worst, wanted.low, wanted.high, wanted.last_ms),
    )
    return exact and math.isclose(found.total, wanted.total, rel_tol=1e-9, abs_tol=1e-6)


@asynccontextmanager
async def opened(
    folder: Path, on_damage: Callable[[Path], None] = lambda _: None, *, minutes_days: float = 92
) -> AsyncIterator[tuple[History, Trends]]:
    history = History(folder / "history.db", "gw1", flush_s=0.01, seal_readings=100, keep_days=0, settle_days=0)
    found = Trends(folder / "trends.db", history, minutes_days=minutes_days, on_damage=on_damage)
    async with history, found:
        yield history, found


async def settle(found: Trends) -> None:
    """Until it knows every sealed segment."""
    while await found.step():
        pass


async def whole(found: Trends, sent: Sequence[Reading], pixels: int = 1) -> Tally:
    """Everything there is in one number."""
    times = [r.at.utc_ms for r in sent]
    chart = await found.chart(POINT, min(times), max(times) + 1, pixels)
    tally = Tally()
    for _, bucket in chart.buckets:
        tally.join(bucket)
    return tally


def day(seed: int = 1, step_ms: int = 20_000) -> list[Reading]:
    dice = random.Random(seed)
    made: list[Reading] = []
    for at in range(T0, T0 + 30 * HOUR_MS, step_ms):
        value = None if dice.random() < 0.02 else round(dice.uniform(-20, 50), 2)
        quality = Quality.UNCERTAIN if dice.random() < 0.02 else Quality.GOOD
        made.append(reading(at + dice.randrange(step_ms), value, quality))
    return made


# --- what a chart says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pixels", [7, 100, 1000, 4000])
async def test_every_bucket_says_what_its_readings_say(tmp_path: Path, pixels: int):
    sent = day()
    async with opened(tmp_path) as (history, found):
        for index, one in enumerate(sent):
            history.add([one, reading(one.at.utc_ms, 5.0, point="store.th1.other")])
            if index % 97 == 0:
                await history.flush()
            if index % 1000 == 0:
                await settle(found)
                await found.save()
        chart = await found.chart(POINT, T0, T0 + 30 * HOUR_MS, pixels)
        assert chart.behind == 0
        assert len(chart.buckets) <= pixels + 2
        for at_ms, tally in chart.buckets:
            assert at_ms % chart.width_ms == 0
            own = [r for r in sent if at_ms <= r.at.utc_ms < at_ms + chart.width_ms]
            assert same(tally, numbers(own)), (at_ms, tally, numbers(own))
        covered = sum(tally.count + tally.bad for _, tally in chart.buckets)
        assert covered == len(sent), "every reading is in one bucket"


def test_buckets_are_seconds_minutes_or_hours():
    for span_ms, pixels, width_ms in (
        (HOUR_MS, 1000, 4_000),
        (DAY_MS, 1000, 2 * MINUTE_MS),
        (7 * DAY_MS, 1000, 11 * MINUTE_MS),
        (30 * DAY_MS, 1000, HOUR_MS),
        (365 * DAY_MS, 1000, 9 * HOUR_MS),
        (1, 1000, 1_000),
    ):
        assert width_of(span_ms, pixels) == width_ms
        assert span_ms / width_ms <= pixels


async def test_nothing_is_drawn_where_nothing_good_was_measured(tmp_path: Path):
    async with opened(tmp_path) as (history, found):
        history.add([reading(T0, 1.0), reading(T0 + 10 * MINUTE_MS, None), reading(T0 + 20 * MINUTE_MS, 3.0)])
        await history.flush(seal=True)
        chart = await found.chart(POINT, T0, T0 + HOUR_MS, 60)
        assert [(at - T0, tally.mean) for at, tally in chart.buckets] == [
            (0, 1.0),
            (10 * MINUTE_MS, None),
            (20 * MINUTE_MS, 3.0),
        ]
        assert chart.buckets[1][1].worst == 2
        assert (await found.chart("nobody", T0, T0 + HOUR_MS, 60)).buckets == []


async def test_readings_are_seen_before_they_are_written_and_while_they_are(tmp_path: Path):
    async with opened(tmp_path) as (history, found):
        sent = [reading(T0 + i * 1000, float(i)) for i in range(1, 251)]
        for one in sent[:250]:
            history.add([one])
            if one.value == 120:
                await history.flush()
        flushing = asyncio.create_task(history.flush())
        while not flushing.done():
            assert (await whole(found, sent)).count == 250
        await flushing
        assert (await whole(found, sent)).count == 250


async def test_what_comes_late_is_counted_in_its_own_time(tmp_path: Path):
    async with opened(tmp_path) as (history, found):
        sent = [reading(T0 + hour * HOUR_MS, float(hour)) for hour in range(48)]
        history.add(sent)
        await history.flush(seal=True)
        await settle(found)
        await found.save()
        late = [reading(T0 + hour * HOUR_MS - 1, 100.0 + hour) for hour in range(2, 20)]
        history.add(late)
        await history.flush(seal=True)
        await settle(found)
        await found.save()
        chart = await found.chart(POINT, T0, T0 + 48 * HOUR_MS, 48)
        assert chart.width_ms == HOUR_MS
        for at_ms, tally in chart.buckets:
            own = [r for r in [*sent, *late] if at_ms <= r.at.utc_ms < at_ms + HOUR_MS]
            assert same(tally, numbers(own))


async def test_a_clock_that_jumps_ahead_and_back_spoils_nothing(tmp_path: Path):
    async with opened(tmp_path) as (history, found):
        ahead = 5 * 365 * DAY_MS
        times = [0, 60_000, ahead, ahead + HOUR_MS, 120_000, 3 * HOUR_MS, -400 * DAY_MS, 4 * HOUR_MS, -T0, 2**60]
        for number, offset in enumerate(times):
            history.add([reading(T0 + offset, float(number))])
            await history.flush(seal=True)
            await settle(found)
            await found.save()
        for unit, to in ((HOUR_MS, 30 * DAY_MS), (MINUTE_MS, 6 * HOUR_MS)):
            pieces = (await found.chart(POINT, T0, T0 + to, math.ceil(to / unit))).buckets
            assert sum(tally.total for _, tally in pieces) == 0 + 1 + 4 + 5 + 7


async def test_a_reading_that_comes_late_is_not_the_last(tmp_path: Path):
    async with opened(tmp_path) as (history, found):
        sent = [reading(T0 + 5_000, 5.0), reading(T0 + 2_000, 2.0)]
        for one in sent:
            history.add([one])
            await history.flush(seal=True)
            await settle(found)
        (bucket,) = (await found.chart(POINT, T0, T0 + MINUTE_MS, 1)).buckets
        assert (bucket[1].last, bucket[1].last_ms, bucket[1].count) == (5.0, T0 + 5_000, 2)


async def test_an_hour_does_not_stand_beside_its_own_minutes(tmp_path: Path):
    async with opened(tmp_path) as (history, found):
        history.add([reading(T0 + 5 * MINUTE_MS, 5.0), reading(T0 + 2 * HOUR_MS, 2.0)])
        await history.flush(seal=True)
        await settle(found)
        await found.save()
        chart = await found.chart(POINT, T0, T0 + HOUR_MS, 60)
        assert [(at - T0, tally.count) for at, tally in chart.buckets] == [(5 * MINUTE_MS, 1)]


async def test_a_segment_that_is_stored_but_not_yet_told_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    gate, stored = asyncio.Event(), asyncio.Event()
    write = History._write

    async def slow(self: History, job: object) -> object:
        done = await write(self, job)  # type: ignore[arg-type]
        stored.set()
        await gate.wait()
        return done

    sent = [reading(T0 + i * 1000, float(i)) for i in range(1, 251)]
    async with opened(tmp_path) as (history, found):
        monkeypatch.setattr(History, "_write", slow)
        history.add(sent)
        flushing = asyncio.create_task(history.flush())
        await stored.wait()
        await settle(found)
        assert (await whole(found, sent)).count == 250
        gate.set()
        await flushing
        assert (await whole(found, sent)).count == 250


async def test_minutes_stand_before_the_first_reading_that_is_kept(tmp_path: Path):
    sent = [reading(T0 + i * 1000, float(i % 60)) for i in range(3600)]
    async with opened(tmp_path) as (history, found):
        history.add(sent)
        await history.flush(seal=True)
        await settle(found)
        await history.delete_through(18)  # half an hour
        chart = await found.chart(POINT, T0, T0 + HOUR_MS, 1000)
        assert (chart.width_ms, len(chart.buckets)) == (4_000, 30 + 450)
        assert sum(tally.count for _, tally in chart.buckets) == 3600


# --- nothing twice, nothing lost -----------------------------------------------------------------------------------


async def test_a_process_that_dies_anywhere_leaves_a_file_that_goes_on(tmp_path: Path):
    """Copies of both files as they lie on the disk at many moments are what a dead process leaves behind."""
    sent = day(seed=3, step_ms=60_000)
    copies: list[tuple[Path, int]] = []
    async with opened(tmp_path) as (history, found):
        for index, one in enumerate(sent):
            history.add([one])
            if index % 50 == 0:
                await history.flush()
            if index % 130 == 0:
                await settle(found)
            if index % 400 == 0:
                await found.save()
            if index % 170 == 169:
                await history.flush()
                copy = tmp_path / f"copy{index}"
                copy.mkdir()
                for name in ("trends.db", "trends.db-wal", "history.db", "history.db-wal"):
                    with contextlib.suppress(FileNotFoundError):
                        shutil.copy(tmp_path / name, copy / name)
                copies.append((copy, index + 1))
    assert len(copies) >= 10
    for copy, count in copies:
        async with opened(copy) as (_, found):
            await settle(found)
            assert same(await whole(found, sent[:count]), numbers(sent[:count]))
            assert same(await whole(found, sent[:count], 500), numbers(sent[:count]))


async def test_a_step_or_save_that_is_cancelled_counts_once(tmp_path: Path):
    sent = day(seed=4, step_ms=60_000)
    async with opened(tmp_path) as (history, found):
        for index, one in enumerate(sent):
            history.add([one])
            if index % 100 == 0:
                await history.flush(seal=True)
                for work in (found.step, found.save):
                    task = asyncio.create_task(work())
                    for _ in range(index // 100 % 7):
                        await asyncio.sleep(0)
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await task
        await settle(found)
        assert same(await whole(found, sent), numbers(sent))
    async with opened(tmp_path) as (_, found):
        assert same(await whole(found, sent), numbers(sent))


async def test_counting_that_is_cancelled_in_the_middle_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun, gate, original = threading.Event(), threading.Event(), Trends._fold

    def slow(self: Trends, segments: list[Segment]) -> int:
        begun.set()
        assert gate.wait(20)
        return original(self, segments)

    monkeypatch.setattr(Trends, "_fold", slow)
    sent = day(seed=9, step_ms=600_000)
    async with opened(tmp_path) as (history, found):
        history.add(sent)
        await history.flush(seal=True)
        task = asyncio.create_task(found.step())
        await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        await asyncio.sleep(0)
        gate.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await settle(found)
        assert same(await whole(found, sent), numbers(sent))


@pytest.mark.parametrize("damage", ["missing", "garbage", "torn"])
async def test_a_file_that_is_lost_is_made_again_from_the_segments(tmp_path: Path, damage: str):
    sent = day(seed=5)
    async with opened(tmp_path) as (history, found):
        history.add(sent)
        await history.flush(seal=True)
        await settle(found)
    path = tmp_path / "trends.db"
    if damage == "missing":
        path.unlink()
    elif damage == "garbage":
        path.write_bytes(b"not a database, and rather long" * 500)
    else:
        raw = bytearray(path.read_bytes())
        for at in range(4096, len(raw), 4096):
            raw[at : at + 64] = bytes(64)
        path.write_bytes(raw)
    told: list[Path] = []
    async with opened(tmp_path, told.append) as (history, found):
        for _ in range(3):  # a damaged page may be seen only when it is used
            await found._try(found._follow)
        assert same(await whole(found, sent), numbers(sent))
    assert told == list(tmp_path.glob("trends.db.damaged-*"))
    assert len(told) == (0 if damage == "missing" else 1)


async def test_they_outlast_the_segments_that_they_came_from(tmp_path: Path):
    sent = day(seed=6)
    async with opened(tmp_path) as (history, found):
        history.add(sent)
        await history.flush(seal=True)
        await settle(found)
        assert await history.delete_through(history.sealed_head()) > 10
        assert await history.read(POINT, 0, T0 * 2) == []
        assert same(await whole(found, sent), numbers(sent))
        hour = [r for r in sent if T0 + 5 * HOUR_MS <= r.at.utc_ms < T0 + 6 * HOUR_MS]
        chart = await found.chart(POINT, T0 + 5 * HOUR_MS, T0 + 6 * HOUR_MS, 1000)
        assert chart.width_ms < MINUTE_MS
        assert sum(tally.count for _, tally in chart.buckets) == numbers(hour).count, "minutes, where readings were"


async def test_another_history_is_counted_anew_and_what_is_older_stays(tmp_path: Path):
    async with opened(tmp_path) as (history, found):
        history.add([reading(T0 + i * 1000, 1.0) for i in range(250)])
        await history.flush(seal=True)
        await settle(found)
    for name in ("history.db", "history.db-wal", "history.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    new = [reading(T0 + HOUR_MS + i * 1000, 3.0) for i in range(550)]
    async with opened(tmp_path) as (history, found):
        history.add(new)
        await history.flush(seal=True)
        await settle(found)
        chart = await found.chart(POINT, T0, T0 + 2 * HOUR_MS, 2)
        assert [(tally.count, tally.mean) for _, tally in chart.buckets] == [(250, 1.0), (550, 3.0)]


async def test_a_history_from_a_backup_counts_nothing_twice(tmp_path: Path):
    early = [reading(T0 + i * 1000, 1.0) for i in range(500)]
    async with opened(tmp_path) as (history, _):
        history.add(early)
        await history.flush(seal=True)
    with (
        contextlib.closing(sqlite3.connect(tmp_path / "history.db")) as source,
        contextlib.closing(sqlite3.connect(tmp_path / "backup.db")) as copy,
    ):
        source.backup(copy)
    async with opened(tmp_path) as (history, found):
        history.add([reading(T0 + 500_000 + i * 1000, 2.0) for i in range(900)])
        await history.flush(seal=True)
        await settle(found)
    for name in ("history.db-wal", "history.db-shm"):
        (tmp_path / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", tmp_path / "history.db")
    later = [reading(T0 + 600_000 + i * 1000, 3.0) for i in range(250)]
    async with opened(tmp_path) as (history, found):
        history.add(later)
        await history.flush(seal=True)
        await settle(found)
        await found.save()
        assert same(await whole(found, [*early, *later]), numbers([*early, *later]))


async def test_a_file_that_cannot_be_written_ends_nothing_and_is_tried_again(tmp_path: Path):
    sent = [reading(T0 + i * 1000, float(i)) for i in range(1, 301)]
    async with opened(tmp_path) as (history, found):
        history.add(sent)
        await history.flush(seal=True)
        await settle(found)
        assert found._writer is not None
        full = StoreError("disk full")
        found._writer.submit = lambda _job: (_ for _ in ()).throw(full)  # type: ignore[method-assign]
        await found._try(found.save)
        sent.append(reading(T0 + 400_000, 7.0))
        history.add(sent[-1:])
        assert (await whole(found, sent)).count == 1, "what waits is seen all the same"
        await found._try(found._follow)
        assert same(await whole(found, sent), numbers(sent))
