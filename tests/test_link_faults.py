"""Answers that are cut, lost or dribble, a link that flaps: both sides are equal afterwards, and nothing is twice."""

from __future__ import annotations

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sitewarden.sync.columns import decompress, readings, unpack
from sitewarden.sync.journal import verify_rows
from sitewarden.tests.peers.broken_link import BrokenLink, never, slowly, whole
from sitewarden.tests.peers.linked_site import Site, cloud, running, site

QUICK = {"backoff_max_s": 0.01, "timeout_s": 0.5}


def rows(folder: Path, sql: str, *values: Any) -> list[Any]:
    with contextlib.closing(sqlite3.connect(f"file:{folder / 'cloud.db'}?mode=ro", uri=True)) as connection:
        return connection.execute(sql, values).fetchall()


async def assert_equal(edge: Site, folder: Path) -> None:
    """Records and readings of both sides as lists."""
    sent = await edge.journal.raw(0, 1_000_000)
    kept = rows(folder, "SELECT seq, data, chain FROM record ORDER BY seq")
    assert kept == sent
    assert verify_rows("gw1", edge.journal.epoch, kept).bad_seq is None
    segments = await edge.history.sealed_after(0, 1_000_000)
    batches = rows(folder, "SELECT n, chain, body FROM batch WHERE stream = 'history' ORDER BY n")
    assert batches == [(one.n, one.chain, one.body) for one in segments]
    measured = [reading for _, _, body in batches for reading in readings(unpack(decompress(body)))]
    assert len(measured) == sum(one.count for one in segments)
    assert rows(folder, "SELECT count(*) FROM quarantine") == [(0,)]


@contextlib.asynccontextmanager
async def both(tmp_path: Path) -> AsyncIterator[tuple[BrokenLink, Site]]:
    """Headquarters, a link to break, and a gateway that is not linked yet."""
    async with (
        cloud(tmp_path / "cloud") as port,
        BrokenLink(port) as link,
        site(tmp_path / "edge") as edge,
    ):
        yield link, edge


async def working(edge: Site) -> None:
    """A site goes on, whatever the link does."""
    while True:
        await edge.say(3)
        await edge.measure()
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("region", ["status line", "headers", "body"])
async def test_an_answer_may_be_cut_at_any_byte(tmp_path: Path, eventually: Any, region: str) -> None:
    """Headquarters has committed, and the gateway does not know. Each answer is cut a little later than the last."""
    left: list[int] | None = None

    async def cut(what: str, answer: bytes) -> AsyncIterator[bytes]:
        nonlocal left
        if not what.startswith("PUT"):
            yield answer
            return
        ends = [answer.index(b"\r\n") + 2, answer.index(b"\r\n\r\n") + 4, len(answer)]
        begin, end = {"status line": (0, ends[0]), "headers": ends[:2], "body": ends[1:]}[region]
        left = list(range(begin, end, 1 if end - begin < 60 else 4)) if left is None else left
        yield answer[: left.pop(0)] if left else answer

    async with both(tmp_path) as (link, edge):
        link.answered = cut
        async with running(working(edge)), edge.linked(f"http://127.0.0.1:{link.port}", **QUICK):
            await eventually(lambda: left == [], "each byte had its turn")
        async with edge.linked(f"http://127.0.0.1:{link.port}", **QUICK):
            await eventually(edge.all_sent, "caught up")
        assert link.broken >= 17
        await assert_equal(edge, tmp_path / "cloud")


@pytest.mark.parametrize("lost", ["every answer", "answers to what was sent"])
async def test_requests_arrive_and_answers_do_not(
    tmp_path: Path, eventually: Any, caplog: pytest.LogCaptureFixture, lost: str
) -> None:
    deaf_to_all = lost == "every answer"

    async def deaf(what: str, answer: bytes) -> AsyncIterator[bytes]:
        async for part in never(what, answer) if deaf_to_all or what.startswith("PUT") else whole(what, answer):
            yield part

    async with both(tmp_path) as (link, edge), edge.linked(f"http://127.0.0.1:{link.port}", **QUICK):
        await edge.say()
        await eventually(edge.all_sent, "sent")
        link.answered = deaf
        await edge.say(5)
        await edge.measure(3)
        await eventually(lambda: rows(tmp_path / "cloud", "SELECT count(*) FROM record") == [(6,)], "they arrive")
        await eventually(lambda: re.search("uplink journal: .* took too long", caplog.text), "the gateway notices")
        if deaf_to_all:
            assert edge.health.backlog_records == 5, "what nobody confirmed waits"
        link.answered = whole
        await eventually(edge.all_sent, "caught up")
        await assert_equal(edge, tmp_path / "cloud")


async def test_an_answer_that_dribbles_is_given_up_and_holds_no_record_up(tmp_path: Path, eventually: Any) -> None:
    dribbles = 0

    async def dribbling(what: str, answer: bytes) -> AsyncIterator[bytes]:
        nonlocal dribbles
        slow = what.startswith("PUT") and (stream in what)
        dribbles += slow
        async for part in slowly(what, answer) if slow else whole(what, answer):
            yield part
        dribbles -= slow

    async with both(tmp_path) as (link, edge), edge.linked(f"http://127.0.0.1:{link.port}", timeout_s=2.0):
        link.answered, stream = dribbling, "/history/"
        await edge.measure(3)
        await eventually(lambda: dribbles == 1, "an answer to history")
        await edge.say(2)
        await eventually(lambda: not edge.health.backlog_records, "a record passes it by")
        assert (dribbles, edge.health.backlog_segments) == (1, 3)
        await eventually(lambda: not edge.health.backlog_segments, "it is given up, and asked for")
        stream = "/journal/"
        await edge.say(2)
        await eventually(lambda: dribbles == 2, "an answer to the journal")
        await eventually(edge.all_sent, "so is that")
        await assert_equal(edge, tmp_path / "cloud")


async def test_a_link_that_flaps_five_times_a_second_still_carries(tmp_path: Path, eventually: Any) -> None:
    async def flapping(link: BrokenLink) -> None:
        while True:
            await asyncio.sleep(0.2)
            link.up = not link.up

    async with both(tmp_path) as (link, edge), edge.linked(f"http://127.0.0.1:{link.port}", backoff_max_s=0.05):
        async with running(flapping(link)):
            async with running(working(edge)):
                await eventually(lambda: edge.journal.head()[0] >= 100, "a site at work")
            seen = edge.journal.head()[0]
            there = "SELECT count(*) >= ? FROM record"
            await eventually(lambda: rows(tmp_path / "cloud", there, seen) == [(1,)], "through, while it flaps")
        link.up = True
        await eventually(edge.all_sent, "caught up")
        await assert_equal(edge, tmp_path / "cloud")
