"""Rows of trends: what is written comes back, what is damaged costs itself alone, minutes go before hours; a kill."""

from __future__ import annotations

import contextlib
import math
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.sync import trend_file, trends
from sitewarden.sync.columns import DamagedError, compress, pack_msgpack
from sitewarden.sync.tallies import DAY_MS, HOUR_MS, MINUTE_MS, Pieces, Tally, fold, pack_pieces, unpack_pieces
from sitewarden.tests.test_trends import POINT, T0, numbers, opened, reading, same, settle, whole
from sitewarden.words import ClockState, Instant, Quality, set_clock_state

# --- keeping and forgetting --------------------------------------------------------------------------------------


async def test_minutes_go_before_hours_and_only_by_a_clock_that_can_be_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    old = [reading(T0 + i * MINUTE_MS, float(i % 50)) for i in range(3 * 1440)]
    now = Instant(utc_ms=T0 + 10 * DAY_MS, mono_s=0.0, boot="b", clock=ClockState.UNSYNCED)
    monkeypatch.setattr(trends, "now", lambda: now)
    async with opened(tmp_path, minutes_days=9) as (history, found):
        history.add(old)
        await history.flush(seal=True)
        await settle(found)
        await found.save()
        await history.delete_through(history.sealed_head())
        await found._follow()
        assert minutes_kept(tmp_path) == 72
        now = Instant(utc_ms=T0 + 10 * DAY_MS, mono_s=0.0, boot="b", clock=ClockState.SYNCED)
        await found._follow()
        assert minutes_kept(tmp_path) == 48, "those of the last nine days"
        assert same(await whole(found, old), numbers(old)), "hours have it all"
        chart = await found.chart(POINT, T0 + HOUR_MS, T0 + 3 * HOUR_MS, 1000)
        assert [tally.count for _, tally in chart.buckets] == [60, 60], "hours where there are no minutes any more"
    set_clock_state(ClockState.UNSYNCED)


def minutes_kept(folder: Path) -> int:
    with contextlib.closing(sqlite3.connect(folder / "trends.db")) as connection:
        return connection.execute("SELECT count(*) FROM minutes").fetchone()[0]


async def test_a_year_of_a_point_is_a_few_hundred_rows_that_lie_together(tmp_path: Path):
    sent = [reading(T0 + i * HOUR_MS // 2, float(i % 30)) for i in range(365 * 48)]
    async with opened(tmp_path) as (history, found):
        history.add([one for r in sent for one in (r, reading(r.at.utc_ms, 1.0, point="store.th1.other"))])
        await history.flush(seal=True)
        await settle(found)
        await found.save()
        chart = await found.chart(POINT, T0, T0 + 365 * DAY_MS, 1000)
        assert 900 < len(chart.buckets) <= 1000
        assert sum(tally.count for _, tally in chart.buckets) == len(sent)
    with contextlib.closing(sqlite3.connect(tmp_path / "trends.db")) as connection:
        assert connection.execute("SELECT count(*) FROM hours WHERE point = 1").fetchone()[0] in (365, 366)
        plan = connection.execute("EXPLAIN QUERY PLAN SELECT body FROM hours WHERE point = 1 AND at_ms > 2").fetchall()
        assert "SEARCH" in plan[0][3]


async def test_many_points_do_not_wait_in_memory_for_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(trends, "_SAVE_PIECES", 500)
    sent = [reading(T0 + i * 1000, 1.0, point=f"a.b.p{i % 300}") for i in range(6_000)]
    async with opened(tmp_path) as (history, found):
        history.add(sent)
        await history.flush(seal=True)
        await settle(found)
        assert sum(len(pieces) for pieces in found._pending.values()) < 2_500
        assert minutes_kept(tmp_path) > 100


# --- rows --------------------------------------------------------------------------------------------------------

finite = st.floats(allow_nan=False, allow_infinity=False, width=32)


@given(st.lists(st.tuples(st.integers(0, 3_599_999), st.none() | finite | st.just(0.1)), max_size=60))
def test_a_row_comes_back_as_it_was(samples: list[tuple[int, float | None]]):
    times = [T0 + offset for offset, _ in samples]
    values = [value for _, value in samples]
    pieces = Pieces()
    fold(pieces, MINUTE_MS, times, values, [Quality.BAD if v is None else Quality.GOOD for v in values])
    found = unpack_pieces(pack_pieces(pieces, MINUTE_MS, T0), MINUTE_MS, T0)
    assert found.keys() == pieces.keys()
    for at, tally in pieces.items():
        assert same(found[at], tally)
        assert tally.count == 0 or found[at].last == tally.last


def test_sums_of_small_and_of_long_numbers_come_back(tmp_path: Path):
    for value in (1e-9, 1 / 3, 1e12 + 1 / 3, 0.1):
        pieces = {T0: Tally(3, 3 * value, value, value, value, T0)}
        (found,) = unpack_pieces(pack_pieces(pieces, MINUTE_MS, T0), MINUTE_MS, T0).values()
        assert found.total == pytest.approx(3 * value, rel=1e-11, abs=0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_bad(value: float):
    tally = Tally()
    tally.take([1, 2, 3], [1.0, value, 3.0], [Quality.GOOD] * 3)
    assert (tally.count, tally.bad, tally.worst, tally.total, tally.last) == (2, 1, 2, 4.0, 3.0)


@pytest.mark.parametrize("body", [[], [2] * 10, [1, [0], [1], [0], [0], [0], [0, []], [0, []], [0, []], [0, []]], "x"])
def test_damaged_rows_are_refused(body: object):
    with pytest.raises(DamagedError):
        unpack_pieces(compress(pack_msgpack(body)), MINUTE_MS, T0)


async def test_a_damaged_row_costs_only_its_own_hour(tmp_path: Path):
    async with opened(tmp_path) as (history, found):
        history.add([reading(T0 + hour * HOUR_MS, 1.0) for hour in range(10)])
        await history.flush(seal=True)
        await settle(found)
        await found.save()
        await history.delete_through(history.sealed_head())
        sql = "UPDATE minutes SET body = x'00' WHERE at_ms = ?"
        await found._write(lambda connection: connection.execute(sql, (T0 + 3 * HOUR_MS,)).close())
        chart = await found.chart(POINT, T0, T0 + 10 * HOUR_MS, 600)
        assert len(chart.buckets) == 10, "the hour stands in for its minutes"


def test_trimming_keeps_what_is_older(tmp_path: Path):
    with contextlib.closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as connection:
        trend_file.SCHEMA.apply(connection)
        pieces = {T0 + i * MINUTE_MS: Tally(1, 1.0, 1.0, 1.0, 1.0, T0 + i * MINUTE_MS) for i in range(3000)}
        trend_file.save(connection, {POINT: pieces}, 1, "m")
        trend_file.trim(connection, T0 + 1234 * MINUTE_MS)
        for unit in (HOUR_MS, MINUTE_MS):
            found = trend_file.pieces(connection, POINT, T0, T0 + 30 * DAY_MS, unit)
            assert sum(tally.count for tally in found.values()) == 1234


# --- a real process ----------------------------------------------------------------------------------------------

FLUSH_S = 0.5
WRITER = f"""
import asyncio, sys, time
from pathlib import Path
from sitewarden.sync.history import History
from sitewarden.sync.trends import Trends
from sitewarden.words import Quality, Reading, now

async def main(folder, number):
    async with History(folder / "history.db", "gw1", flush_s={FLUSH_S}, seal_readings=600) as history:
        async with Trends(folder / "trends.db", history) as trends, asyncio.TaskGroup() as group:
            group.create_task(history.run())
            group.create_task(trends.run())
            while True:
                number += 1
                at = now()
                history.add([Reading(point="{POINT}", value=float(number), quality=Quality.GOOD, at=at)])
                print(number, at.mono_s, flush=True)
                if number % 150 == 0:
                    await trends.save()
                await asyncio.sleep(0.002)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


async def test_a_killed_process_loses_at_most_what_waited_and_its_trends_go_on(tmp_path: Path):
    dice = random.Random(8)
    number, lost = 0, 0.0
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(number)], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            said: list[tuple[int, float]] = []
            wanted = dice.randrange(200, 900)
            while len(said) < wanted:
                fields = process.stdout.readline().split()
                assert fields, "the writer ended by itself"
                said.append((int(fields[0]), float(fields[1])))
            process.send_signal(signal.SIGKILL)
            said += [(int(a), float(b)) for a, b in (line.split() for line in process.stdout if len(line.split()) == 2)]
        async with opened(tmp_path) as (history, found):
            await settle(found)
            kept = [value for _, value, _ in await history.read(POINT, 0, 2**50)]
            assert len(kept) == len(set(kept)), "nothing twice"
            newest = max(value for value in kept if value is not None)
            at = dict(said)
            lost = max(lost, said[-1][1] - at.get(int(newest), said[0][1]))
            chart = await found.chart(POINT, 1_700_000_000_000, 2_700_000_000_000, 1)
            assert sum(tally.count for _, tally in chart.buckets) == len(kept)
            assert sum(tally.total for _, tally in chart.buckets) == math.fsum(v for v in kept if v is not None)
        number = said[-1][0]
    assert lost <= FLUSH_S + 0.5, f"{lost:.2f} s were lost"  # half a second for a machine that does other work
