"""What goes together (C12): groups that wait, floods, digests and their ends; in virtual time on a real journal."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge.alerts.budget import WINDOW_S, Budget
from sitewarden.edge.alerts.port import Notice, Outcome, Sent
from sitewarden.edge.alerts.rows import Settings
from sitewarden.sync.journal import Draft
from sitewarden.tests.peers.alert_doubles import (
    OK,
    FakeChannel,
    alarm,
    closed,
    failed,
    in_virtual_time,
    raised,
    running,
)

REFUSED = Sent(outcome=Outcome.REFUSED, detail="no such number")
SETTINGS = Settings()
BOTH = ("robot", "sms")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def ways(*channels: str) -> Any:
    return lambda _facts, _person: channels


async def seconds(count: float) -> None:
    """So long, and what it starts."""
    await asyncio.sleep(count)


def test_messages_of_priority_3_wait_for_one_another_and_go_as_one(path: Path):
    robot = FakeChannel()

    async def main() -> None:
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            for n in range(5):
                times = {"raised_at": f"2026-11-22T15:04:0{9 - n}.000Z"}
                await made.journal.append([raised("li@robot", n=n, occurrence=n + 1, priority=3, **times)])
                await seconds(4)
            assert robot.got == []
            await seconds(11)
            (notice,) = robot.got
            assert "等5条" in notice.title
            assert notice.number == 5, "named after the oldest"
            assert [other["occurrence"] for other in notice.facts["others"]] == [4, 3, 2, 1]
            assert len(await made.keys("delivery.accepted")) == 5
            assert {body["batch"] for body in await made.bodies("delivery.accepted")} == {notice.key}
            await made.journal.append([raised("li@robot", n=9, occurrence=9, priority=3)])
            await seconds(31)
            assert robot.got[1].key == "9-9-li@robot", "one alone is no digest"

    in_virtual_time(main)


def test_the_first_out_of_a_group_names_the_digest(path: Path):
    robot = FakeChannel()

    async def main() -> None:
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            flags = (False, False, True)
            drafts = [raised("li@robot", n=n, occurrence=n, priority=3, first_out=flags[n]) for n in range(3)]
            await made.journal.append(drafts)
            await seconds(31)
            assert robot.got[0].number == 2

    in_virtual_time(main)


def test_a_storm_is_named_by_what_came_first_and_not_by_the_most_urgent(path: Path):
    robot = FakeChannel()

    async def main() -> None:
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            old = {"raised_at": "2026-11-22T09:00:00.000Z"}
            storm = [raised("li@robot", kind="alarm.repeated", n=0, occurrence=1, priority=2, **old)]
            for n in range(1, 14):
                times = {"raised_at": f"2026-11-22T15:04:{n:02}.000Z"}
                storm.append(raised("li@robot", n=n, occurrence=n + 1, priority=3 if n < 3 else 2, **times))
            await made.journal.append(storm)
            await seconds(31)
            (notice,) = robot.got
            assert notice.number == 2, "the first news, though of priority 3; what is only repeated caused nothing"
            others = [other["occurrence"] for other in notice.facts["others"]]
            assert others == [*range(4, 15), 1, 3], "then the most urgent ones, news first"

    in_virtual_time(main)


def held(draft: Draft, hold_s: float) -> Draft:
    """The same, kept by the quiet hours of those whom it tells."""
    for entry in draft.body["notify"]:
        entry["hold_s"] = hold_s
    return draft


def test_what_quiet_hours_keep_goes_as_one_digest_when_they_end_if_it_is_still_open(path: Path):
    phone, hours = FakeChannel(), 7 * 3600.0

    async def main() -> None:
        async with running(path, {"sms": phone}, settings=SETTINGS) as made:
            for n in range(3):
                kept = raised("li@sms", n=n, occurrence=n + 1, priority=3)
                await made.journal.append([held(kept, hours - n * 3600.0 + n)])  # clocks drift
                await seconds(3600)
            await made.journal.append([raised("li@sms", n=7, occurrence=8, priority=2)])
            await made.journal.append([raised("li@sms", n=8, occurrence=9, priority=3)])
            await seconds(40)
            assert [notice.number for notice in phone.got] == [8, 9], "what they do not keep comes as always"
            await made.journal.append([closed(n=1, occurrence=2)])
        async with running(path, {"sms": phone}, settings=SETTINGS) as made:
            await seconds(hours - 3 * 3600 - 60)
            assert len(phone.got) == 2, "also after a restart"
            assert (made.health.failing, await made.keys("delivery.failing")) == (0, [])
            await seconds(120)
            (digest,) = phone.got[2:]
            assert (digest.number, [other["occurrence"] for other in digest.facts["others"]]) == (1, [3])
            assert {body["why"] for body in await made.bodies("delivery.dead")} == {"closed"}
            assert made.health.pending == 0

    in_virtual_time(main)


def test_a_message_that_nobody_takes_after_the_quiet_hours_is_late_from_their_end_on(path: Path):
    phone = FakeChannel(lambda _: failed())

    async def main() -> None:
        async with running(path, {"sms": phone}, settings=SETTINGS) as made:
            await made.journal.append([held(raised("li@sms", priority=3), 3600.0)])
            await seconds(3600 + 30 + 55)
            assert await made.keys("delivery.failing") == []
            await seconds(10)
            assert len(await made.keys("delivery.failing")) == 1

    in_virtual_time(main)


@pytest.mark.parametrize(("count", "messages"), [(10, 10), (11, 1)])
def test_priority_2_goes_alone_until_more_than_ten_wait(path: Path, count: int, messages: int):
    robot = FakeChannel()

    async def main() -> None:
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot", n=n, priority=2) for n in range(count)])
            await seconds(1)
            assert len(robot.got) == messages
            assert made.health.pending == 0

    in_virtual_time(main)


def test_a_channel_without_room_makes_a_flood_too_and_priority_1_goes_alone_and_first(path: Path):
    room = False

    def answer(notice: Notice) -> Sent:
        return OK if room or notice.priority == 1 else Sent(outcome=Outcome.LATER, retry_s=20.0)

    robot = FakeChannel(answer)

    async def main() -> None:
        nonlocal room
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot", n=1, occurrence=1, priority=2)])
            await seconds(1)
            others = [raised("li@robot", n=n, occurrence=n, priority=1 if n > 3 else 2) for n in range(2, 6)]
            await made.journal.append(others)
            await seconds(1)
            assert [notice.number for notice in robot.arrived] == [4, 5], "they do not wait for the room of others"
            assert [notice.number for notice in robot.got] == [1, 4, 5], "and the others need not ask"
            room = True
            await seconds(20)
            assert "等3条" in robot.got[-1].title
            assert len(robot.got) == 4

    in_virtual_time(main)


def test_a_digest_that_may_have_arrived_is_sent_again_as_the_same_one(path: Path):
    answers = [failed(uncertain=True), OK]
    robot = FakeChannel(lambda _: answers.pop(0) if answers else OK)

    async def main() -> None:
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot", n=n, priority=3) for n in range(3)])
            await seconds(30.5)
            await made.journal.append([raised("li@robot", n=7, priority=3)])
            await seconds(60)
            assert [(notice.key, notice.resent) for notice in robot.got[:2]] == [
                (robot.got[0].key, False),
                (robot.got[0].key, True),
            ]
            assert len(robot.got[1].facts["others"]) == 2
            assert robot.got[2].key == "7-1-li@robot"
            assert len(robot.got) == 3

    in_virtual_time(main)


def test_each_row_of_a_refused_digest_ends_and_goes_on(path: Path):
    robot, sms = FakeChannel(lambda _: REFUSED), FakeChannel()

    async def main() -> None:
        async with running(path, {"robot": robot, "sms": sms}, ways=ways(*BOTH), settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot", n=n, priority=3) for n in range(3)])
            await seconds(62)
            assert len(await made.keys("delivery.dead")) == 3
            (notice,) = sms.got
            assert len(notice.facts["others"]) == 2

    in_virtual_time(main)


def test_a_flood_of_300_in_a_minute_keeps_to_the_budget_and_loses_nothing(path: Path):
    """Scenario 6 at the outbox: priority 1 alone within 2 s, the others in digests as the robot has room."""
    born: dict[int, float] = {}
    told: dict[int, float] = {}

    async def main() -> None:
        loop = asyncio.get_running_loop()
        budget = Budget(born_s=loop.time() - WINDOW_S)

        def answer(notice: Notice) -> Sent:
            wait_s = budget.take(notice.priority, notice.step, loop.time())
            if wait_s:
                return Sent(outcome=Outcome.LATER, retry_s=wait_s)
            if notice.priority == 1:
                assert "others" not in notice.facts
                told[notice.number] = loop.time()
            return OK

        robot = FakeChannel(answer)
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            for n in range(1, 301):
                priority = 1 if n in (100, 200, 300) else 2 if n % 3 == 0 else 3
                born[n] = loop.time()
                await made.journal.append([raised("li@robot", n=n, occurrence=n, priority=priority)])
                await seconds(0.2)
            await seconds(150)
            assert made.health.pending == 0
            assert len(await made.keys("delivery.accepted")) == 300
        assert sorted(told) == [100, 200, 300]
        assert max(told[n] - born[n] for n in told) <= 2.0
        assert len(robot.arrived) <= 3 * 18
        assert len(robot.got) < 100, "what has no room does not ask all the time"

    in_virtual_time(main)


def test_settings_are_what_the_facts_say() -> None:
    assert (SETTINGS.deadline_s, SETTINGS.retry_base_s, SETTINGS.retry_cap_s) == (60.0, 2.0, 60.0)
    assert SETTINGS.group_wait_s == {3: 30.0, 4: 30.0}
    assert alarm()["priority"] == 2
    assert replace(SETTINGS, deadline_s=5.0).deadline_s == 5.0
