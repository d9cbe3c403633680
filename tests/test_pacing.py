"""How much goes at once and who goes first: tables with a fake clock."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

import pytest
from sitewarden.sync.pace import Pace
from sitewarden.sync.pacing import HIGHEST, LOWEST, Cap, Flow, LinkRate, Share, batch_bytes

NARROW = 32_000.0
"""256 kbit/s in bytes a second."""


def sent_over(rate: LinkRate, bytes_s: float, trip_s: float, *, since_s: float = 0.0, requests: int = 30) -> float:
    """Requests of the size that `rate` allows, over a link that is what it says; returns the end's time."""
    now_s = since_s + trip_s
    rate.took(0, trip_s, now_s)  # "where am I?" comes first
    for _ in range(requests):
        size = batch_bytes(rate.bytes_s)
        elapsed_s = trip_s + size / bytes_s
        now_s += elapsed_s
        rate.took(size, elapsed_s, now_s)
    return now_s


# --- the rate ----------------------------------------------------------------------------------------------------


def test_nothing_is_known_of_a_link_until_something_large_was_acknowledged() -> None:
    rate = LinkRate()
    rate.took(300, 0.08, 1.0)
    assert rate.bytes_s is None
    assert rate.trip_s == 0.08
    assert batch_bytes(rate.bytes_s) == LOWEST


@pytest.mark.parametrize("bytes_s", [8_000.0, NARROW, 250_000.0, 5_000_000.0])
@pytest.mark.parametrize("trip_s", [0.001, 0.05, 0.6])
def test_requests_take_about_half_a_second_of_the_link(bytes_s: float, trip_s: float) -> None:
    rate = LinkRate()
    sent_over(rate, bytes_s, trip_s)
    size = batch_bytes(rate.bytes_s)
    assert size >= min(bytes_s * 0.3, HIGHEST), "a long way does not look like a slow one"
    assert size <= max(bytes_s * 0.7, LOWEST), "what is urgent waits for no more than that"


def test_a_small_request_tells_the_round_trip_and_makes_the_link_no_slower() -> None:
    rate = LinkRate()
    now_s = sent_over(rate, NARROW, 0.3)
    before = rate.bytes_s
    for i in range(50):
        rate.took(200, 0.3, now_s + i)
    assert rate.bytes_s == before


def test_a_link_that_gets_slower_is_noticed_within_three_requests() -> None:
    rate = LinkRate()
    now_s = sent_over(rate, 1_000_000.0, 0.05)
    sent_over(rate, NARROW, 0.05, since_s=now_s, requests=3)
    assert batch_bytes(rate.bytes_s) < 0.7 * NARROW


def test_a_burst_that_a_shaper_lets_through_does_not_decide() -> None:
    rate = LinkRate()
    now_s = sent_over(rate, NARROW, 0.05)
    rate.took(16_000, 0.06, now_s)
    assert rate.bytes_s is not None
    assert rate.bytes_s < 1.6 * NARROW


def test_a_clock_that_stands_still_or_goes_back_breaks_nothing() -> None:
    rate = LinkRate()
    for now_s in (100.0, 100.0, 3.0, 3.0):
        rate.took(16_000, 0.5, now_s)
    assert rate.bytes_s == pytest.approx(NARROW)
    rate.took(16_000, 0.0, 3.0)
    assert rate.bytes_s is not None
    assert rate.bytes_s < 1e12


# --- the cap -----------------------------------------------------------------------------------------------------


def used(cap: Cap, size: int, rate: float, seconds: float) -> int:
    """Bytes that go in `seconds` when somebody always has `size` more."""
    now_s, total = 0.0, 0
    while now_s < seconds:
        wait_s = cap.wait_s(size, rate, now_s)
        if wait_s:
            now_s += wait_s
        else:
            total += size
    return total


@pytest.mark.parametrize("size", [500, 2_048, 60_000])
def test_a_cap_holds_over_time_whatever_the_size_of_the_pieces(size: int) -> None:
    assert used(Cap(0.0), size, 4_000.0, 600.0) == pytest.approx(4_000 * 600, rel=0.03)


def test_an_alarm_passes_a_cap_that_bulk_has_used_up() -> None:
    cap = Cap(0.0)
    now_s = 0.0
    while not cap.wait_s(2_000, 4_000.0, now_s):
        pass
    assert cap.wait_s(1_000, 4_000.0, now_s, urgent=True) == 0.0


def test_without_a_cap_nothing_waits_and_nothing_is_saved_up() -> None:
    cap = Cap(0.0)
    assert [cap.wait_s(10**9, None, float(i)) for i in range(3)] == [0.0, 0.0, 0.0]
    assert used(cap, 1_000, 1_000.0, 100.0) == pytest.approx(100_000, rel=0.05)


def test_after_a_quiet_night_a_cap_lets_no_more_than_a_quarter_of_a_second_through_at_once() -> None:
    cap = Cap(0.0)
    assert cap.wait_s(1, 8_000.0, 30_000.0) == 0.0
    at_once = 0
    while not cap.wait_s(500, 8_000.0, 30_000.0):
        at_once += 500
    assert at_once <= 2_500


# --- the share of bulk -------------------------------------------------------------------------------------------


def test_bulk_earns_one_byte_of_twenty_that_the_journal_sends() -> None:
    share, bulk, journal = Share(), 0, 0
    for _ in range(1_000):
        share.journal_sent(16_000)
        journal += 16_000
        while share.spend(2_048):
            bulk += 2_048
    assert bulk / (bulk + journal) == pytest.approx(0.05, abs=0.002)


def test_what_bulk_did_not_use_is_not_a_flood_later() -> None:
    share = Share()
    share.journal_sent(10**9)
    assert sum(1 for _ in itertools.takewhile(lambda _: share.spend(1024), itertools.count())) == HIGHEST // 1024


def test_a_flow_follows_within_some_seconds_and_fades() -> None:
    flow = Flow()
    for i in range(60):
        flow.add(100, float(i))
    assert flow.per_s(59.0) == pytest.approx(100, rel=0.1)
    assert flow.per_s(120.0) < 1


# --- whose turn it is --------------------------------------------------------------------------------------------


async def is_waiting(task: asyncio.Task[None]) -> bool:
    for _ in range(5):
        await asyncio.sleep(0)
    return not task.done()


async def test_bulk_goes_at_once_while_the_journal_rests() -> None:
    async with asyncio.timeout(5):
        await Pace().turn(100_000)


async def test_bulk_waits_while_the_journal_sends_and_goes_on_when_it_rests() -> None:
    pace = Pace()
    await pace.first(1_000)
    task = asyncio.create_task(pace.turn(2_048))
    assert await is_waiting(task)
    pace.rest()
    async with asyncio.timeout(5):
        await task


async def test_bulk_does_not_starve_while_the_journal_sends_for_weeks() -> None:
    pace, turns = Pace(), 0
    for _ in range(200):
        await pace.first(16_000)
        task = asyncio.create_task(pace.turn(2_048))
        pace.sent(16_000)
        turns += not await is_waiting(task)
        task.cancel()
    assert 50 <= turns <= 100


async def test_a_request_that_is_half_sent_is_held_up_for_a_bounded_time() -> None:
    pace = Pace()
    await pace.first(1_000)
    async with asyncio.timeout(5):
        await pace.hold(0.01)


@pytest.mark.parametrize(
    ("cap", "bytes_s", "largest"),
    [
        (None, None, LOWEST),
        (None, NARROW, LOWEST),
        (None, 1e9, HIGHEST),
        (2_000.0, 1e9, LOWEST),
        (64_000.0, 1e9, 32_000),
    ],
)
def test_requests_of_bulk_fit_the_link_and_the_cap(cap: float | None, bytes_s: float | None, largest: int) -> None:
    pace = Pace(cap=lambda: cap)
    if bytes_s is not None:
        for i in range(20):
            pace.rate.took(100_000, 100_000 / bytes_s + 0.05, float(i))
            pace.rate.took(100, 0.05, float(i))
    assert pace.bulk_bytes == pytest.approx(largest, rel=0.1)


class Writer:
    """Keeps the pieces, and calls `after` with each."""

    def __init__(self, after: Callable[[int], None]) -> None:
        self.pieces: list[bytes] = []
        self._after = after

    async def write(self, chunk: bytes) -> None:
        self.pieces.append(chunk)
        self._after(len(self.pieces))

    async def drain(self) -> None:
        return None


async def test_a_body_stops_in_the_middle_for_the_journal_and_then_goes_on() -> None:
    pace, data = Pace(), bytes(range(256)) * 64
    body = pace.body(data, "x/y")

    def journal_comes(pieces: int) -> None:
        if pieces == 3:
            pace._journal_sends = True

    writer = Writer(journal_comes)
    task = asyncio.create_task(body.write(writer))  # pyright: ignore[reportArgumentType]
    while len(writer.pieces) < 3:
        await asyncio.sleep(0)
    assert await is_waiting(task), "half sent"
    assert len(writer.pieces) == 3
    pace.rest()
    async with asyncio.timeout(5):
        await task
    assert b"".join(writer.pieces) == data
    assert body.size == len(data)
