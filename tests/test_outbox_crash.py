"""Scenario 2 at the outbox: it dies at every commit and every send, and no row is lost or doubled more than once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sitewarden.edge.alerts.port import Channel, Notice, Outcome, Sent
from sitewarden.edge.alerts.rows import Settings
from sitewarden.edge.alerts.webhook_channel import WebhookChannel, WebhookSettings
from sitewarden.sync.journal import Draft, Journal, verify_file
from sitewarden.tests.peers.alert_doubles import (
    OK,
    TABLES,
    FakeChannel,
    climbed,
    closed,
    failed,
    raised,
    rows,
    running,
    states,
)

QUICK = Settings(retry_base_s=0.001, retry_cap_s=0.002, group_wait_s={3: 0.0})


class Died(BaseException):
    """The process is gone from here on."""


class Doom:
    """Counts the boundaries: before and after each commit and each send. At number `at` the process dies."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.passed = 0
        self.dead = False
        self.died = asyncio.Event()

    async def boundary(self) -> None:
        if self.dead:
            await asyncio.Event().wait()  # nothing moves any more
        self.passed += 1
        if self.passed == self.at:
            self.dead = True
            self.died.set()
            await asyncio.Event().wait()


def doomed(doom: Doom) -> type[Journal]:
    """A journal whose process dies. What was committed before stays."""

    class DoomedJournal(Journal):
        async def append(self, drafts: Sequence[Draft]) -> Any:
            await doom.boundary()
            records = await super().append(drafts)
            await doom.boundary()
            return records

        async def write(self, change: Callable[[Any], Any]) -> Any:
            await doom.boundary()
            value = await super().write(change)
            await doom.boundary()
            return value

    return DoomedJournal


class Receiver:
    """What arrived of each row, alone or in a digest, over all lives of the gateway."""

    def __init__(self) -> None:
        self.copies: Counter[str] = Counter()
        self.unmarked: Counter[str] = Counter()

    def take(self, notice: Notice) -> None:
        for key in notice.facts["keys"]:
            self.copies[key] += 1
            self.unmarked[key] += not notice.resent


def channel(receiver: Receiver, doom: Doom, answers: list[Sent]) -> FakeChannel:
    async def answer(notice: Notice) -> Sent:
        await doom.boundary()
        sent = answers.pop(0) if answers else OK
        if sent.outcome is Outcome.ACCEPTED:
            receiver.take(notice)
        await doom.boundary()
        return sent

    return FakeChannel(answer)


async def prepare(path: Path) -> None:
    """The gateway was stopped with work to do: alone, as a digest, and one that is over."""
    async with Journal(path, "gw1", TABLES) as journal:
        drafts = [raised("li@robot", "wang@sms", n=1, priority=1), raised("wang@robot", n=2)]
        drafts += [raised("wu@robot", n=n, priority=3) for n in range(3, 6)]
        drafts += [raised("li@sms", n=7), closed(7), climbed("wang@robot", "zhao@robot")]
        drafts += [raised("li+wang@group", n=8), raised("@siren", n=9, priority=1), raised("wu@sms", n=10)]
        await journal.append(drafts)


async def live(path: Path, receiver: Receiver, at: int, answers: list[Sent]) -> bool:
    """One life. Whether the process died at boundary `at`; else everything is delivered."""
    doom = Doom(at)
    both = channel(receiver, doom, answers)
    channels: dict[str, Channel] = dict.fromkeys(("robot", "sms", "group", "siren", "mail"), both)
    ways = lambda _facts, _person: ("robot", "sms", "mail")  # noqa: E731
    async with running(path, channels, ways=ways, settings=QUICK, journal=doomed(doom)) as made:
        finished = asyncio.ensure_future(delivered(path))
        died = asyncio.ensure_future(doom.died.wait())
        done, _ = await asyncio.wait([finished, died], timeout=30, return_when=asyncio.FIRST_COMPLETED)
        finished.cancel()
        died.cancel()
        assert done or made.task.done(), states(path)
        return doom.dead


async def delivered(path: Path) -> None:
    while any(row["state"] == "PENDING" for row in rows(path)):
        await asyncio.sleep(0.005)


SCRIPTS: dict[str, list[Sent]] = {
    "all well": [],
    "refused first": [failed("busy")] * 6,
    "uncertain first": [failed("no answer", uncertain=True)] * 2,
    "no room first": [Sent(outcome=Outcome.LATER, retry_s=0.001)] * 4,
    "never will": [Sent(outcome=Outcome.REFUSED, detail="no")] * 3,
}


@pytest.mark.parametrize("script", SCRIPTS)
async def test_scenario_2_death_at_every_boundary(tmp_path: Path, script: str):
    template = tmp_path / "template.db"
    await prepare(template)
    before = {row["key"] for row in rows(template)}
    at, died = 0, True
    while died:
        at += 1
        path = tmp_path / f"journal{at}.db"
        shutil.copy(template, path)
        receiver = Receiver()
        died = await live(path, receiver, at, list(SCRIPTS[script]))
        if died:
            await live(path, receiver, 0, [])
        check(path, receiver, before, crashes=int(died))
        for left in tmp_path.glob(f"journal{at}.db*"):
            left.unlink()
    assert at > 50, "and four more scripts: more than 250 points"


def check(path: Path, receiver: Receiver, before: set[str], crashes: int) -> None:
    """Every row is there and was accepted; a message came at most once more than it had to, and then marked."""
    found = rows(path)
    assert before <= {row["key"] for row in found}
    arrived = {row["key"] for row in found if row["state"] == "ACCEPTED"}
    assert arrived == set(receiver.copies)
    assert all(row["state"] == "ACCEPTED" or row["fell"] or row["error"] == "no" for row in found), found
    assert all(copies <= 1 + crashes for copies in receiver.copies.values()), receiver.copies
    assert all(unmarked <= 1 for unmarked in receiver.unmarked.values()), "a copy is marked"
    assert verify_file(path).bad_seq is None


async def test_many_deaths_in_one_delivery(tmp_path: Path):
    """One crash after the other, at points that chance picks: at most one duplicate for each."""
    chance = random.Random(7)
    path = tmp_path / "journal.db"
    await prepare(path)
    before, receiver, crashes = {row["key"] for row in rows(path)}, Receiver(), 0
    for _ in range(12):
        crashes += await live(path, receiver, chance.randint(1, 25), [])
    await live(path, receiver, 0, [])
    assert crashes >= 3
    check(path, receiver, before, crashes)


KILLED = """
import asyncio, pathlib, sys
from sitewarden.edge.alerts.webhook_channel import WebhookChannel, WebhookSettings
from sitewarden.tests.peers.alert_doubles import raised, running

async def main(path, url, first):
    async with WebhookChannel(WebhookSettings(url=url)) as hook, running(pathlib.Path(path), {"robot": hook}) as made:
        for n in range(int(first), int(first) + 60):
            await made.journal.append([raised("li@robot", n=n, priority=1)])
            print(n, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_kill_9_while_it_sends(tmp_path: Path, eventually):
    """Real processes, killed at random moments, each while it commits and sends."""
    path, copies = tmp_path / "journal.db", Counter[str]()
    unmarked, kills, committed = Counter[str](), 4, set[str]()

    async def handler(request: web.Request) -> web.Response:
        body = await request.json()
        copies[body["key"]] += 1
        unmarked[body["key"]] += not body["resent"]
        return web.json_response({"errcode": 0})

    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    chance = random.Random(3)
    try:
        for life in range(kills):
            wanted = len(copies) + chance.randint(3, 25)
            arguments = (sys.executable, "-c", KILLED, str(path), url, str(life * 100))
            process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
            try:
                await eventually(lambda wanted=wanted: len(copies) >= wanted, "some were sent", every_s=0.001)
            finally:
                os.kill(process.pid, signal.SIGKILL)
                out, _ = await process.communicate()
            committed |= {f"{n}-1-li@robot" for n in out.decode().split()}
        async with WebhookChannel(WebhookSettings(url=url)) as hook, running(path, {"robot": hook}):
            await eventually(lambda: set(states(path).values()) == {"ACCEPTED"}, "all accepted", every_s=0.05)
    finally:
        with contextlib.suppress(Exception):
            await runner.cleanup()
    assert committed <= set(states(path)), "a committed row was lost"
    assert set(states(path)) == set(copies)
    assert sum(copies.values()) - len(copies) <= 2 * kills, "at most what was under way at each kill"
    assert all(count <= 1 for count in unmarked.values())
    assert verify_file(path).bad_seq is None
