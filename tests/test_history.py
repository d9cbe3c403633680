"""The history file and its codec: exact to the bit, nothing twice, nothing lost but the last `flush_s`."""

from __future__ import annotations

import asyncio
import math
import os
import random
import sqlite3
import struct
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.sync import columns
from sitewarden.sync.columns import DamagedError, compress, decompress, pack, readings, thin, unpack
from sitewarden.sync.history import History
from sitewarden.sync.streams import batch_chain, stream_genesis
from sitewarden.tests.peers.bad_bytes import flip
from sitewarden.words import ClockState, Instant, Quality, Reading

SOAK_S = float(os.environ.get("SITEWARDEN_SOAK_S", "600"))
T0 = 1_600_000_000_000
POINT = "aux_store.th1.humidity"


def instant(
    utc_ms: int, mono_s: float | None = None, boot: str = "b1", clock: ClockState = ClockState.SYNCED
) -> Instant:
    return Instant(
        utc_ms=utc_ms, mono_s=(utc_ms - T0) / 1000 + 50 if mono_s is None else mono_s, boot=boot, clock=clock
    )


def reading(utc_ms: int, value: float | None, point: str = POINT, why: str = "", boot: str = "b1") -> Reading:
    quality = Quality.GOOD if value is not None and not why else Quality.BAD
    return Reading(point=point, value=value, quality=quality, why=why, at=instant(utc_ms, boot=boot))


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack("<d", value)


def per_point(batch: list[Reading]) -> dict[str, list[tuple[object, ...]]]:
    result: dict[str, list[tuple[object, ...]]] = {}
    for r in batch:
        row = (r.at.utc_ms, r.at.boot, r.at.clock, bits(r.value), r.quality, r.why)
        result.setdefault(r.point, []).append(row)
    return result


# --- codec -------------------------------------------------------------------------------------------------------

decimals = st.builds(lambda n, d: n / 10**d, st.integers(-(10**7), 10**7), st.integers(0, 6))
values = st.one_of(st.none(), decimals, st.floats(), st.sampled_from([-0.0, 0.1 + 0.2, 1e300, 5e-324, 2.0**53 + 2]))
instants = st.builds(
    Instant,
    utc_ms=st.integers(0, 4_000_000_000_000),
    mono_s=st.floats(0, 1e8),
    boot=st.sampled_from(["b1", "b2"]),
    clock=st.sampled_from(ClockState),
)
any_reading = st.builds(
    Reading,
    point=st.sampled_from(["a.b.c", "a.b.d", "x.y.z"]),
    value=values,
    quality=st.sampled_from(Quality),
    why=st.sampled_from(["", "timeout", "sentinel", "过期"]),
    at=instants,
)


@given(st.lists(any_reading, max_size=60))
@settings(max_examples=300, deadline=None)
def test_whatever_was_read_comes_back_bit_for_bit(batch: list[Reading]) -> None:
    back = readings(unpack(decompress(compress(pack(batch)))))
    assert len(back) == len(batch)
    # Blocks keep the order of time; inside a block readings are sorted by point, so compare per point.
    assert per_point(back) == per_point(batch)


@given(st.lists(any_reading, min_size=1, max_size=60))
@settings(max_examples=200, deadline=None)
def test_monotonic_time_comes_back_within_the_drift(batch: list[Reading]) -> None:
    back: dict[str, list[Reading]] = {}
    for r in readings(unpack(pack(batch))):
        back.setdefault(r.point, []).append(r)
    for r in batch:
        assert abs(back[r.point].pop(0).at.mono_s - r.at.mono_s) <= columns.DRIFT_MS / 1000 + 0.002


@given(st.lists(decimals, min_size=1))
def test_decimal_values_are_stored_as_integers(numbers: list[float]) -> None:
    scaled = columns.scale_values(numbers)
    if any(bits(n) == bits(-0.0) for n in numbers):
        assert scaled is None
    else:
        assert scaled is not None
        assert [bits(n / 10 ** scaled[0]) for n in scaled[1]] == [bits(n) for n in numbers]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.0, 1 / 3, 1e18, 0.1 + 0.2])
def test_what_decimal_scaling_cannot_hold_stays_a_float(value: float) -> None:
    assert columns.scale_values([20.5, value]) is None


@pytest.mark.parametrize(
    ("numbers", "scale"),
    [([58.3, 58.4], 1), ([0.35, 7.0], 2), ([3.0, -4.0], 0), ([0.000001], 6), ([1.0, 0.5, 2.25], 2)],
)
def test_the_smallest_scale_is_found(numbers: list[float], scale: int) -> None:
    found = columns.scale_values(numbers)
    assert found is not None
    assert found[0] == scale


def test_a_clock_step_begins_a_new_block() -> None:
    batch = [reading(T0 + ms, 1.0) for ms in (0, 1000, 2000)]
    stepped = Reading(point=POINT, value=2.0, quality=Quality.GOOD, at=instant(T0 - 3_600_000, mono_s=53.0))
    blocks = unpack(pack([*batch, stepped]))
    assert [block.utc_ms for block in blocks] == [T0, T0 - 3_600_000]
    assert blocks[1].mono_ms == 53_000


def test_packing_is_small() -> None:
    batch = [
        reading(T0 + s * 1000 + s % 3, round(20 + tag + math.sin(s / 9 + tag), 1), f"area.dev{tag}.t")
        for s in range(100)
        for tag in range(20)
    ]
    assert len(compress(pack(batch))) / len(batch) < 2.5


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        columns.pack_msgpack([2, []]),
        columns.pack_msgpack([1, [[1]]]),
        columns.pack_msgpack([1, [["b", 0, 0, 0, [[0]], [["p", 0, [[2, 0, True, ""]], 0, [1]]]]]]),  # runs > times
        columns.pack_msgpack([1, [["b", 0, 0, 0, [[0]], [["p", 1, [[1, 0, True, ""]], 0, [1]]]]]]),  # no such times
        columns.pack_msgpack([1, [["b", 0, 0, 0, [[0]], [["p", 0, [[1, 0, True, ""]], 9, [1]]]]]]),  # no such scale
        columns.pack_msgpack([1, [["b", 0, 0, 0, [[0]], [["p", 0, [[1, 0, True, ""]], -1, b"1234"]]]]]),  # half a float
        columns.pack_msgpack([1, [["b", 7, 0, 0, [[0]], []]]]),
        columns.pack_msgpack([1, [["b", 0, 0, 0, [["x"]], []]]]),
        columns.pack_msgpack([1, 5]),
    ],
)
def test_damaged_payloads_are_refused(payload: bytes) -> None:
    with pytest.raises(DamagedError):
        unpack(payload)


@given(st.binary(max_size=200))
def test_random_bytes_never_do_more_than_raise_damaged(data: bytes) -> None:
    for function in (decompress, unpack):
        try:
            function(data)
        except DamagedError:
            pass


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_flipped_bit_never_gives_other_values(data: st.DataObject) -> None:
    body = bytearray(compress(pack([reading(T0 + i, i / 10) for i in range(50)])))
    at = data.draw(st.integers(0, len(body) * 8 - 1))
    before = decompress(bytes(body))
    body[at // 8] ^= 1 << at % 8
    try:
        assert decompress(bytes(body)) == before  # an unused bit of the frame's header
    except DamagedError:
        pass


def test_threads_pack_at_the_same_time() -> None:
    """The writer of the history and the uplink do."""
    payloads = [random.Random(n).randbytes(200_000) for n in range(4)]

    def work(payload: bytes) -> bool:
        return all(decompress(compress(payload)) == payload for _ in range(50))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, payloads))


def test_a_decompression_bomb_is_refused_before_it_is_unpacked() -> None:
    bomb = zstandard.ZstdCompressor().compress(bytes(50_000_000))
    with pytest.raises(DamagedError, match="at most 1000 are allowed"):
        decompress(bomb, 1000)
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(2000))
    with pytest.raises(DamagedError, match="does not say how large"):
        decompress(unsized, 1000)
    with pytest.raises(DamagedError):
        decompress(compress(b"one") + compress(b"two"))


def test_columns_that_share_their_times_stand_for_a_bounded_number_of_readings() -> None:
    column = ["p", 0, [[2000, 0, False, ""]], 0, []]

    def payload(count: int) -> bytes:
        return columns.pack_msgpack([1, [["b", 0, 0, 0, [[0] * 2000], [column] * count]]])

    assert len(readings(unpack(payload(10)))) == columns.MAX_ITEMS
    with pytest.raises(DamagedError, match="22000 readings in one run, at most 20000"):
        unpack(payload(11))


def test_thinning_keeps_peaks_and_gaps() -> None:
    curve: list[columns.Sample] = [(T0 + i, 20.0, Quality.GOOD) for i in range(10_000)]
    curve[5_000] = (T0 + 5_000, 99.0, Quality.GOOD)
    curve[7_001] = (T0 + 7_001, None, Quality.BAD)
    thinned = thin(curve, 600)
    assert len(thinned) <= 600
    assert curve[5_000] in thinned
    assert curve[7_001] in thinned
    assert thinned == sorted(thinned, key=lambda sample: sample[0])


# --- file --------------------------------------------------------------------------------------------------------


def history(path: Path, **options: object) -> History:
    return History(path / "history.db", "gw1", **{"flush_s": 0.01, "seal_readings": 100, **options})


async def everything(store: History, point: str = POINT) -> list[tuple[int, float | None, Quality]]:
    return await store.read(point, 0, T0 * 2)


async def test_reads_cover_buffer_tail_and_segments(tmp_path: Path) -> None:
    async with history(tmp_path) as store:
        expected = []
        for i in range(250):
            store.add(
                [reading(T0 + i * 1000, i / 10), reading(T0 + i * 1000, None, "aux_store.th1.temperature", "timeout")]
            )
            expected.append((T0 + i * 1000, i / 10, Quality.GOOD))
            if i % 20 == 0:
                await store.flush()
            assert await everything(store) == expected
        assert store.sealed_head() == 4  # 482 readings were flushed
        missing = await everything(store, "aux_store.th1.temperature")
        assert missing[-1] == (T0 + 249_000, None, Quality.BAD)
        assert await store.read(POINT, T0 + 5_000, T0 + 7_000) == expected[5:8]


async def test_readings_are_seen_while_they_are_being_written(tmp_path: Path) -> None:
    async with history(tmp_path) as store:
        store.add([reading(T0, 1.0)])
        flushing = asyncio.create_task(store.flush())
        while store._buffer:
            await asyncio.sleep(0)
        assert await everything(store) == [(T0, 1.0, Quality.GOOD)]
        await flushing


async def test_what_is_sealed_is_not_in_the_tail_any_more(tmp_path: Path) -> None:
    async with history(tmp_path) as store:
        for i in range(5):
            store.add([reading(T0 + 30 * i + k, k) for k in range(30)])
            await store.flush()
        assert tail_rows(store.path) == 2  # 20 that the segment had no room for, and the last 30
    async with history(tmp_path) as store:
        assert [row[0] for row in await everything(store)] == [T0 + i for i in range(150)]


async def test_nothing_but_the_buffer_is_lost_when_the_process_dies(tmp_path: Path) -> None:
    store = history(tmp_path)
    await store.__aenter__()
    store.add([reading(T0 + i, i) for i in range(30)])
    await store.flush()
    store.add([reading(T0 + 30 + i, i) for i in range(7)])  # never flushed
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("history.db", "history.db-wal"):  # what a dead process leaves behind
        (copy / name).write_bytes((tmp_path / name).read_bytes())
    async with history(copy) as again:
        assert again.epoch == store.epoch
        assert [row[0] for row in await everything(again)] == [T0 + i for i in range(30)]
        assert [segment.count for segment in await again.sealed_after(0, 10)] == [30]
    await store.__aexit__()


async def test_closing_writes_what_waits(tmp_path: Path) -> None:
    async with history(tmp_path) as store:
        store.add([reading(T0, 1.5)])
    async with history(tmp_path) as store:
        assert await everything(store) == [(T0, 1.5, Quality.GOOD)]


async def test_segments_are_sealed_by_count_and_by_age(tmp_path: Path) -> None:
    now_s = 0.0
    async with history(tmp_path, seal_s=900, clock=lambda: now_s) as store:
        told: list[int] = []
        store.subscribe(told.append)
        store.add([reading(T0 + i, i) for i in range(250)])
        await store.flush()
        assert [segment.count for segment in await store.sealed_after(0, 10)] == [100, 100]
        now_s = 899.0
        await store.flush()
        assert store.sealed_head() == 2
        now_s = 900.0
        await store.flush()
        assert [segment.count for segment in await store.sealed_after(2, 10)] == [50]
        assert told == [2, 3]


async def test_segments_are_chained_over_what_is_inside(tmp_path: Path) -> None:
    async with history(tmp_path) as store:
        store.add([reading(T0 + i, i) for i in range(300)])
        await store.flush()
        chain = stream_genesis("gw1", "history", store.epoch)
        assert await store.chain_at(0) == chain
        for segment in await store.sealed_after(0, 10):
            chain = batch_chain(chain, segment.n, decompress(segment.body))
            assert segment.chain == chain == await store.chain_at(segment.n)
        assert await store.chain_at(4) is None


async def test_numbers_go_on_after_everything_was_deleted(tmp_path: Path) -> None:
    async with history(tmp_path, keep_days=0, settle_days=0) as store:
        store.add([reading(T0 + i, i) for i in range(200)])
        await store.flush()
        old = await store.chain_at(2)
        assert await store.delete_through(2) == 2
    async with history(tmp_path, keep_days=0, settle_days=0) as store:
        assert store.sealed_head() == 2
        assert await store.chain_at(2) == old
        store.add([reading(T0 + i, i) for i in range(100)])
        await store.flush()
        assert [segment.n for segment in await store.sealed_after(2, 10)] == [3]


async def test_acked_segments_stay_for_trends_and_others_stay_anyway(tmp_path: Path) -> None:
    now_ms = int(time.time() * 1000)
    async with history(tmp_path, keep_days=10, settle_days=0) as store:
        for age_days in (30, 20, 5):
            store.add([reading(now_ms - age_days * 86_400_000 + i, i) for i in range(100)])
            await store.flush()
        assert await store.delete_through(1) == 1
        assert [segment.n for segment in await store.sealed_after(0, 10)] == [2, 3]  # 2 is old, but nobody has it
        assert await store.delete_through(3) == 1
        assert [segment.n for segment in await store.sealed_after(0, 10)] == [3]  # 3 is young


async def test_run_flushes_by_time_and_by_amount(tmp_path: Path) -> None:
    async with history(tmp_path, flush_s=0.01) as store, asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(store.run(), name="history")
        store.add([reading(T0 + i, i) for i in range(5)])
        while await asyncio.to_thread(tail_rows, store.path) != 1:
            await asyncio.sleep(0.01)
        task.cancel()
    async with history(tmp_path, flush_s=3600) as store, asyncio.timeout(20), asyncio.TaskGroup() as group:
        task = group.create_task(store.run(), name="history")
        sealed = asyncio.Event()
        store.subscribe(lambda _: sealed.set())
        await asyncio.sleep(0)
        store.add([reading(T0 + i, i) for i in range(100)])
        await sealed.wait()
        task.cancel()


@pytest.mark.parametrize("turns", range(4))
async def test_run_ends_when_it_is_cancelled_while_it_wakes(tmp_path: Path, turns: int) -> None:
    async with history(tmp_path, flush_s=3600) as store:
        task = asyncio.create_task(store.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        store.add([reading(T0 + i, i) for i in range(100)])
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=10)
        task.cancel()
        assert done
        assert task.cancelled()


def tail_rows(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return connection.execute("SELECT count(*) FROM tail").fetchone()[0]


async def test_a_cancelled_flush_stores_nothing_twice(tmp_path: Path) -> None:
    async with history(tmp_path) as store:
        for i in range(40):
            store.add([reading(T0 + i, i)])
            task = asyncio.create_task(store.flush())
            for _ in range(i % 4):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
    async with history(tmp_path) as store:
        assert [row[0] for row in await everything(store)] == [T0 + i for i in range(40)]


@pytest.mark.parametrize("damage", ["garbage", "torn", "body", "tail"])
async def test_a_damaged_file_is_set_aside_and_a_new_one_begun(tmp_path: Path, damage: str) -> None:
    async with history(tmp_path) as store:
        epoch = store.epoch
        store.add([reading(T0 + i, i / 7) for i in range(400)])
    path = tmp_path / "history.db"
    if damage == "garbage":
        path.write_bytes(b"not a database, and rather long" * 50)
    elif damage == "torn":
        raw = bytearray(path.read_bytes())
        for at in range(4096, len(raw), 4096):
            raw[at : at + 64] = bytes(64)
        path.write_bytes(raw)
    elif damage == "body":  # a page that is not read at start
        with sqlite3.connect(path) as connection:
            page = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'body'").fetchone()[0]
        raw = bytearray(path.read_bytes())
        raw[(page - 1) * 4096 : page * 4096] = bytes(4096)
        path.write_bytes(raw)
    else:
        with sqlite3.connect(path) as connection:
            connection.execute("INSERT INTO tail (body) VALUES (x'00')")
    lost: list[Path] = []
    async with history(tmp_path, on_damage=lost.append) as store:
        assert store.epoch != epoch
        assert len(lost) == 1
        assert lost[0].exists()
        store.add([reading(T0, 1.0)])
        await store.flush(seal=True)
        assert [segment.n for segment in await store.sealed_after(0, 9)] == [1]


async def _goes_on(folder: Path, seed: int, whole: bytes) -> str:
    """Start on a file with damaged bytes: it is gone on with, without what cannot be read, or set aside."""
    path, lost = folder / "history.db", list[Path]()
    for file in folder.iterdir():
        file.unlink()
    path.write_bytes(whole)
    flip(path, random.Random(seed), head_pages=10)
    async with history(folder, on_damage=lost.append) as store:
        store.add([reading(T0 + 10**6 + i, i) for i in range(150)])
        await store.flush()
        rows = await everything(store)
        assert [row[0] for row in rows][-150:] == [T0 + 10**6 + i for i in range(150)], f"seed {seed}"
    return "set aside" if lost else "some unread" if len(rows) < 600 else "as it was"


async def _whole(folder: Path) -> bytes:
    folder.mkdir()
    async with history(folder) as store:
        for turn in range(9):
            store.add([reading(T0 + 50 * turn + i, i) for i in range(50)])
            await store.flush()
    return (folder / "history.db").read_bytes()


async def test_bytes_that_went_bad_keep_no_history_from_going_on(tmp_path: Path) -> None:
    whole = await _whole(tmp_path / "h")
    found = Counter([await _goes_on(tmp_path / "h", seed, whole) for seed in range(80)])
    assert min(found[one] for one in ("set aside", "as it was")) > 5, found


@pytest.mark.soak
async def test_bytes_that_went_bad_for_long(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, end_s, found = random.SystemRandom().randrange(10**9), time.monotonic() + SOAK_S, Counter[str]()
    whole, seed = await _whole(tmp_path / "h"), first
    try:
        while time.monotonic() < end_s:
            found[await _goes_on(tmp_path / "h", seed, whole)] += 1
            seed += 1
    finally:
        with capsys.disabled():
            print(f"\nseeds {first} to {seed}: {dict(found)}")


async def test_damage_found_while_running_does_not_stop_the_history(tmp_path: Path) -> None:
    lost: list[Path] = []
    async with history(tmp_path, on_damage=lost.append) as store:
        store.add([reading(T0 + i, i) for i in range(150)])
        await store.flush()
        assert store._writer is not None
        failing = iter([sqlite3.DatabaseError("database disk image is malformed")])
        store_rows = store._store

        def malformed_once(*args: object) -> object:
            for error in failing:
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
            return store_rows(*args)  # type: ignore[arg-type]

        store._store = malformed_once  # type: ignore[method-assign,assignment]
        store.add([reading(T0 + 150 + i, i) for i in range(60)])
        await store.flush()
        assert len(lost) == 1
        assert [row[0] for row in await everything(store)] == [T0 + i for i in range(100, 210)]
        assert store.sealed_head() == 1


async def test_a_damaged_segment_is_skipped_and_counted(tmp_path: Path) -> None:
    async with history(tmp_path) as store:
        store.add([reading(T0 + i, i) for i in range(300)])
    with sqlite3.connect(tmp_path / "history.db") as connection:
        body = bytearray(connection.execute("SELECT body FROM body WHERE n = 2").fetchone()[0])
        body[len(body) // 2] ^= 4
        connection.execute("UPDATE body SET body = ? WHERE n = 2", (bytes(body),))
    async with history(tmp_path) as store:
        rows = [row[0] - T0 for row in await everything(store)]
        assert rows == [*range(100), *range(200, 300)]
        assert store.damaged_segments == 1


async def test_packing_leaves_the_interpreter_to_others_now_and_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float] = []
    monkeypatch.setattr("sitewarden.sync.resting.time.sleep", rests.append)
    async with history(tmp_path, seal_readings=20_000) as store:
        store.add([reading(T0, 1.0, f"a.d.p{i}") for i in range(10_000)])
        await store.flush(seal=True)
    assert len(rests) > 5
    assert max(rests) < 0.01


def test_a_pack_can_be_interrupted_after_each_column() -> None:
    calls: list[None] = []
    batch = [reading(T0 + i, 1.0, f"a.d.p{i % 7}") for i in range(21)]
    assert pack(batch, lambda: calls.append(None)) == pack(batch)
    assert len(calls) == 7


async def test_it_says_when_it_is_behind(tmp_path: Path) -> None:
    async with History(tmp_path / "history.db", "gw1") as history:
        history.add([reading(T0 + i, 1.0) for i in range(9_999)])
        assert not history.is_behind()
        history.add([reading(T0 + 9_999, 1.0)])
        assert history.is_behind()
        await history.flush()
        assert not history.is_behind()
    large = History(tmp_path / "large.db", "gw1", seal_readings=8_000)
    large.add([reading(T0 + i, 1.0) for i in range(15_999)])
    assert not large.is_behind()
    large.add([reading(T0, 1.0)])
    assert large.is_behind()


async def test_an_epoch_of_which_nothing_is_anywhere_gives_its_place_to_the_next(tmp_path: Path) -> None:
    async with history(tmp_path) as store:
        for turn in range(2):
            store.add([reading(T0 + turn * 1000 + i, i) for i in range(3)])
            await store.flush(seal=True)
        first = store.epoch
        second = await store.part(first, 1)
        store.add([reading(T0 + 9000, 1.0)])
        await store.flush(seal=True)
        assert [(span.first, span.epoch) for span in await store.spans()] == [(1, first), (2, second)]
        assert await store.part(first, 0) == second
        assert [(span.first, span.epoch) for span in await store.spans()] == [(1, second)]
        assert [segment.n for segment in await store.sealed_after(0, 9)] == [1, 2, 3]
