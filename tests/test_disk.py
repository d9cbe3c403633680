"""What gives way when there is no room: the oldest of the history, told to the journal and declared to headquarters."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.edge.disk_keeping import DiskHealth, DiskKeeper
from sitewarden.edge.models import DiskTable
from sitewarden.errors import RefusedError
from sitewarden.sync.columns import decompress
from sitewarden.sync.disk_policy import (
    MB,
    Budgets,
    Level,
    Use,
    budgets,
    history_excess,
    history_limit,
    judge,
    kept_free,
)
from sitewarden.sync.gaps import Why, unpack_gap
from sitewarden.sync.history import History
from sitewarden.sync.history_outbox import HistoryOutbox
from sitewarden.sync.journal import Draft, Journal, verify_file
from sitewarden.sync.reserve import Reserve
from sitewarden.sync.sqlite import StoreError
from sitewarden.words import ClockState, Instant, Quality, Reading, now

T0 = 1_600_000_000_000


def segment(n: int, readings: int = 10) -> list[Reading]:
    """Readings of the n-th minute, of values that no packing makes smaller."""
    at, dice = [T0 + n * 60_000 + i * 10 for i in range(readings)], random.Random(n)
    return [
        Reading(
            point="a.d.v",
            value=dice.random(),
            quality=Quality.GOOD,
            at=Instant(utc_ms=ms, mono_s=ms / 1000, boot="b1", clock=ClockState.SYNCED),
        )
        for ms in at
    ]


async def fill(history: History, first: int, last: int, readings: int = 10) -> None:
    for n in range(first, last + 1):
        history.add(segment(n, readings))
        await history.flush(seal=True)


@pytest.fixture
async def history(tmp_path: Path) -> AsyncIterator[History]:
    """Ten sealed segments of ten readings."""
    async with History(tmp_path / "history.db", "gw1", keep_days=36500) as history:
        await fill(history, 1, 10)
        yield history


# --- the history -------------------------------------------------------------------------------------------------


async def test_the_oldest_segments_go_and_it_is_told_what_they_were(history: History) -> None:
    assert await history.drop_oldest(1)
    (gone,) = await history.untold()
    assert (gone.first, gone.last, gone.readings, gone.lost, gone.why) == (1, 1, 10, 1, Why.DISK)
    assert gone.t0_ms == T0 + 60_000
    assert await history.oldest() == 2
    values = await history.read("a.d.v", 0, T0 * 2)
    assert len(values) == 90


async def test_what_headquarters_has_is_counted_apart(history: History) -> None:
    history.durable = 3
    assert await history.drop_oldest(10**9)
    (gone,) = await history.untold()
    assert (gone.segments, gone.durable, gone.lost) == (10, 3, 7)
    assert not await history.drop_oldest(1), "there is nothing left"


async def test_an_untold_drop_outlives_the_process(tmp_path: Path) -> None:
    async with History(tmp_path / "history.db", "gw1") as history:
        await fill(history, 1, 5)
        await history.drop_oldest(1)
    async with History(tmp_path / "history.db", "gw1") as history:
        told = await history.untold()
        assert [one.first for one in told] == [1]
        await history.told(told)
        assert not await history.untold()


async def test_a_file_at_its_limit_goes_on_without_its_oldest(tmp_path: Path) -> None:
    async with History(tmp_path / "history.db", "gw1") as history:
        await history.limit(2 * MB)
        await fill(history, 1, 120, readings=4000)
        newest = await history.read("a.d.v", T0 + 120 * 60_000, T0 * 2)
        assert len(newest) == 4000, "the newest is there"
        told = await history.untold()
        assert {one.why for one in told} == {Why.BUDGET}
        assert sum(one.segments for one in told) == await history.oldest() - 1
        assert (tmp_path / "history.db").stat().st_size <= 2.1 * MB


async def test_what_goes_for_the_disk_leaves_the_file(tmp_path: Path) -> None:
    async with History(tmp_path / "history.db", "gw1") as history:
        await fill(history, 1, 60, readings=4000)
        before = await history.size()
        assert await history.can_shrink()
        await history.drop_oldest(before // 2)
        assert await history.size() < 0.6 * before


async def test_headquarters_is_told_what_will_never_come(history: History) -> None:
    outbox = HistoryOutbox(history)
    await outbox.open()
    first = await outbox.batch(1)
    assert first is not None
    await history.drop_oldest(1, Why.BUDGET)
    await history.drop_oldest(1, Why.BUDGET)
    declared = await outbox.batch(1)
    assert declared is not None
    gap = unpack_gap(decompress(declared.body))
    assert gap is not None
    assert (gap.first, gap.last, gap.why, declared.through) == (1, 2, Why.BUDGET, 2)
    following = await outbox.batch(3)
    assert following is not None
    assert unpack_gap(decompress(following.body)) is None


# --- the policy --------------------------------------------------------------------------------------------------

SIZES = st.integers(0, 2**45)
USES = st.builds(Use, journal=SIZES, history=SIZES, blobs=SIZES, free=SIZES, usable=SIZES)
LIMITS = st.builds(budgets, st.integers(64 * MB, 2**45))


@given(use=USES, limits=LIMITS, before=st.sampled_from(Level))
def test_any_use_is_judged_and_never_asks_for_more_history_than_there_is(
    use: Use, limits: Budgets, before: Level
) -> None:
    assert judge(use, limits, before).level in Level
    assert history_limit(use, limits) <= max(1, limits.history)
    assert 0 <= kept_free(use, limits) <= use.usable // 4
    excess = history_excess(use, limits, can_shrink=True)
    assert excess is None or excess.bytes > 0


def test_the_history_gives_way_and_the_others_are_told_of() -> None:
    limits = budgets(1000 * MB)
    use = Use(journal=10 * MB, history=300 * MB, blobs=10 * MB, free=500 * MB, usable=1000 * MB)
    assert judge(use, limits).level is Level.ENOUGH
    assert history_excess(use, limits, can_shrink=True) is None
    tight = Use(journal=10 * MB, history=300 * MB, blobs=10 * MB, free=20 * MB, usable=1000 * MB)
    assert judge(tight, limits).level is Level.REFUSING
    excess = history_excess(tight, limits, can_shrink=True)
    assert excess is not None
    assert not excess.is_budget
    assert history_excess(tight, limits, can_shrink=False) is None, "it would lose readings and help nobody"
    grown = Use(journal=10 * MB, history=450 * MB, blobs=10 * MB, free=500 * MB, usable=1000 * MB)
    excess = history_excess(grown, limits, can_shrink=False)
    assert excess is not None
    assert excess.is_budget


def test_a_level_is_left_only_some_way_below_its_limit() -> None:
    limits = budgets(1000 * MB, journal_mb=100)
    use = Use(journal=89 * MB, history=0, blobs=0, free=900 * MB, usable=1000 * MB)
    assert judge(use, limits).level is Level.ENOUGH
    assert judge(use, limits, Level.SHORT).level is Level.SHORT
    assert judge(use, limits, Level.SHORT).about == "journal"


# --- a disk that is full -----------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own with 12 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(command, check=False, capture_output=True).returncode == 0
    if not mounted:
        pytest.skip("a small file system can only be mounted as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)


def eat(folder: Path) -> None:
    """Fill a disk to the last byte."""
    with (folder / "other").open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


def draft(text: str = "x") -> Draft:
    return Draft(kind="test.said", at=now(), actor="gateway", body={"text": text})


async def test_the_journal_gets_the_reserve_when_the_disk_is_full(small_disk: Path) -> None:
    reserve = Reserve(small_disk / "reserve", 2 * MB)
    assert reserve.keep(shutil.disk_usage(small_disk).free)
    async with Journal(small_disk / "journal.db", "gw1", relief=reserve.release) as journal:
        await journal.append([draft()])
        eat(small_disk)
        for _ in range(50):
            await journal.append([draft("y" * 4000)])
        assert not reserve.is_kept()
        assert journal.head()[0] == 51
    assert verify_file(small_disk / "journal.db").problem == ""


async def test_without_a_reserve_nothing_is_said_to_be_kept_that_is_not(small_disk: Path) -> None:
    acked = 0
    async with Journal(small_disk / "journal.db", "gw1") as journal:
        await journal.append([draft()])
        eat(small_disk)
        with contextlib.suppress(StoreError):
            for _ in range(10_000):
                await journal.append([draft("y" * 4000)])
                acked = journal.head()[0]
        with pytest.raises(StoreError):
            await journal.append([draft()])
    (small_disk / "other").unlink()
    async with Journal(small_disk / "journal.db", "gw1") as journal:
        assert journal.head()[0] >= acked
        await journal.append([draft()])
    assert verify_file(small_disk / "journal.db").problem == ""


async def test_a_full_disk_costs_the_oldest_history_and_no_record(small_disk: Path) -> None:
    reserve = Reserve(small_disk / "reserve", 3 * MB)
    assert reserve.keep(shutil.disk_usage(small_disk).free)
    async with (
        Journal(small_disk / "journal.db", "gw1", relief=reserve.release) as journal,
        History(small_disk / "history.db", "gw1", relief=reserve.release) as history,
    ):
        await fill(history, 1, 60, readings=4000)
        eat(small_disk)
        await fill(history, 61, 120, readings=4000)
        assert len(await history.read("a.d.v", T0 + 120 * 60_000, T0 * 2)) == 4000
        assert {one.why for one in await history.untold()} == {Why.DISK}
        assert await history.oldest() > 1
        await journal.append([draft()])
        assert journal.head()[0] == 1


def test_a_reserve_is_made_only_where_there_is_room(tmp_path: Path) -> None:
    reserve = Reserve(tmp_path / "reserve", MB)
    assert not reserve.keep(2 * MB)
    assert reserve.keep(8 * MB)
    assert reserve.is_kept()
    assert reserve.release()
    assert not reserve.release()
    assert not reserve.path.exists()


# --- the keeper --------------------------------------------------------------------------------------------------


async def test_the_keeper_makes_room_and_the_journal_says_what_went(small_disk: Path) -> None:
    health, records = DiskHealth(), list[tuple[str, dict[str, Any]]]()

    async def record(kind: str, body: dict[str, Any]) -> None:
        records.append((kind, body))

    reserve = Reserve(small_disk / "reserve", 2 * MB)
    async with History(small_disk / "history.db", "gw1", relief=reserve.release) as history:
        await fill(history, 1, 60, readings=4000)
        table = DiskTable(reserve_mb=1, history_mb=4)
        keeper = DiskKeeper(small_disk, history, reserve, lambda: table, record, health)
        await keeper.step()
        assert reserve.is_kept()
        assert not records
        keeper.check_room(10**6)
        table = DiskTable(reserve_mb=1, history_mb=4, blobs_mb=16)
        with (small_disk / "other").open("wb") as file:
            file.write(bytes(shutil.disk_usage(small_disk).free - 100_000))
        await keeper.step()
        (kind, body), *_ = records
        assert (kind, body["reason"], body["first"]) == ("history.dropped", Why.DISK, 1)
        assert body["lost"] == body["segments"]
        assert not await history.untold()
        said = health.to_json()
        assert said is not None
        assert (said["level"], said["about"]) == ("refusing", "device")
        assert said["dropped_segments"] == body["segments"]
        with pytest.raises(RefusedError) as refused:
            keeper.check_room(1000)
        assert refused.value.reason == "disk_full"
        (small_disk / "other").unlink()
        await keeper.step()
        keeper.check_room(1000)
        assert health.judged.level is Level.ENOUGH
