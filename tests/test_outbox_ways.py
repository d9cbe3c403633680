"""Nothing is given up silently: deadlines, other ways, proofs and clears, in virtual time on a real journal."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge.alerts.port import Events, Notice, Outcome, Sent
from sitewarden.edge.alerts.rows import Settings
from sitewarden.tests.peers.alert_doubles import (
    OK,
    FakeChannel,
    Running,
    attempts,
    climbed,
    closed,
    failed,
    in_virtual_time,
    raised,
    rows,
    running,
    states,
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


async def at_s(made: Running, kind: str) -> list[float]:
    """When records of this kind were written, seconds after the first record."""
    records = await made.journal.read(0, 10_000)
    return [round(record.at["mono"] - records[0].at["mono"], 1) for record in records if record.kind == kind]


# --- late ---


def test_a_late_message_goes_on_the_next_way_within_the_deadline_and_is_still_tried(path: Path):
    robot, sms = FakeChannel(lambda _: failed("HTTP 502")), FakeChannel()

    async def main() -> None:
        async with running(path, {"robot": robot, "sms": sms}, ways=ways(*BOTH), settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot")])
            await seconds(29)
            assert sms.got == []
            await seconds(3)
            (notice,) = sms.got
            assert (notice.number, notice.to.person, notice.resent) == (1, "li", False)
            assert notice.key != "1-1-li@robot"
            await seconds(600)
            assert await at_s(made, "delivery.fallback") == [30.0]
            assert await at_s(made, "delivery.failing") == [60.0]
            (body,) = await made.bodies("delivery.failing")
            assert (body["channel"], body["all_ways"], body["error"]) == ("robot", False, "HTTP 502")
            assert 10 < len(robot.got) < 30, "tried while the alarm is open, about once a minute"
            assert states(path)["1-1-li@robot"] == "RETRY"
            assert (made.health.failing, made.health.unreached) == (1, ())

    in_virtual_time(main)


def test_when_all_ways_fail_it_is_said_once_and_everything_is_tried_until_somebody_is_reached(path: Path):
    up: set[str] = set()

    def answer(notice: Notice) -> Sent:
        return OK if up else failed("no network")

    robot, sms, mail = (FakeChannel(answer) for _ in range(3))

    async def main() -> None:
        channels = {"robot": robot, "sms": sms, "mail": mail}
        async with running(path, channels, ways=ways("robot", "sms", "mail"), settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot")])
            await seconds(300)
            assert await at_s(made, "delivery.fallback") == [20.0, 40.0]
            failing = await made.bodies("delivery.failing")
            assert [(body["channel"], body["all_ways"]) for body in failing] == [
                ("robot", False),
                ("sms", False),
                ("mail", True),
            ]
            assert set(await at_s(made, "delivery.failing")) == {60.0}
            assert made.health.unreached == ("li",)
        async with running(path, channels, ways=ways("robot", "sms", "mail"), settings=SETTINGS) as made:
            await seconds(300)
            assert len(await made.bodies("delivery.failing")) == 3, "once, also over a restart"
            assert made.health.unreached == ("li",)
            up.add("all")
            await seconds(120)
            assert set(states(path).values()) == {"ACCEPTED"}
            assert (made.health.pending, made.health.unreached) == (0, ())

    in_virtual_time(main)


def test_with_one_way_only_the_deadline_is_the_end_of_the_ways(path: Path):
    robot = FakeChannel(lambda _: failed())

    async def main() -> None:
        async with running(path, {"robot": robot}, ways=ways("robot"), settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot")])
            await seconds(70)
            (body,) = await made.bodies("delivery.failing")
            assert (body["all_ways"], body["unreached"]) == (True, ["li"])
            assert await at_s(made, "delivery.failing") == [60.0]

    in_virtual_time(main)


def test_a_message_that_arrived_on_one_of_two_first_ways_takes_no_third(path: Path):
    robot, sms, mail = FakeChannel(lambda _: failed()), FakeChannel(), FakeChannel()

    async def main() -> None:
        channels = {"robot": robot, "sms": sms, "mail": mail}
        async with running(path, channels, ways=ways("robot", "sms", "mail"), settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot", "li@sms")])
            await seconds(100)
            assert (len(sms.got), mail.got) == (1, [])
            assert [body["all_ways"] for body in await made.bodies("delivery.failing")] == [False]

    in_virtual_time(main)


def test_the_deadline_passes_also_while_an_attempt_hangs(path: Path):
    """And for the rows that wait behind it: the deadline is of the row, not of its attempts."""
    robot = FakeChannel(lambda _: asyncio.Event().wait())

    async def main() -> None:
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot", n=n, priority=1) for n in range(5)])
            await seconds(61)
            assert made.health.failing == 5
            assert len(await made.bodies("delivery.failing")) == 5
            assert sum(row["failing"] for row in rows(path)) == 5

    in_virtual_time(main)


def test_the_deadline_counts_through_a_restart(path: Path):
    robot = FakeChannel(lambda _: failed())

    async def main() -> None:
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot")])
            await seconds(40)
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            await seconds(22)
            assert await at_s(made, "delivery.failing") == [60.0]

    in_virtual_time(main)


def test_a_refused_message_takes_the_next_way_at_once_and_costs_the_lane_nothing(path: Path):
    robot = FakeChannel(lambda notice: REFUSED if notice.key.startswith("1-") else OK)
    sms = FakeChannel()

    async def main() -> None:
        async with running(path, {"robot": robot, "sms": sms}, ways=ways(*BOTH), settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot")])
            await seconds(0.1)
            assert len(sms.got) == 1
            assert states(path)["1-1-li@robot"] == "DEAD"
            (body,) = await made.bodies("delivery.dead")
            assert (body["why"], body["error"], body["n"]) == ("refused", "no such number", 1)
            await made.journal.append([raised("li@robot", n=2)])
            await seconds(0.1)
            assert states(path)["2-1-li@robot"] == "ACCEPTED"
            assert await made.bodies("delivery.failing") == []
        assert attempts(path, "1-1-li@robot") == ["refused"]

    in_virtual_time(main)


def test_refused_on_every_way_is_said_at_once(path: Path):
    def refusing() -> FakeChannel:
        return FakeChannel(lambda _: REFUSED)

    async def main() -> None:
        channels = {"robot": refusing(), "sms": refusing()}
        async with running(path, channels, ways=ways(*BOTH), settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot")])
            await seconds(0.1)
            assert set(states(path).values()) == {"DEAD"}
            (body,) = await made.bodies("delivery.failing")
            assert (body["channel"], body["all_ways"], body["unreached"]) == ("sms", True, ["li"])

    in_virtual_time(main)


def test_a_channel_that_was_taken_out_hands_over_to_the_next_way(path: Path):
    robot, sms = FakeChannel(lambda _: failed()), FakeChannel()
    live = {"robot": robot, "sms": sms}

    async def main() -> None:
        async with running(path, live, ways=ways(*BOTH), settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot")])
            await seconds(5)
            del live["robot"]
            await seconds(10)
            (body,) = await made.bodies("delivery.dead")
            assert (body["why"], body["error"]) == ("no_channel", "the channel is no longer in site.toml")
            assert len(sms.got) == 1
            assert made.health.pending == 0

    in_virtual_time(main)


def test_everyone_whom_a_group_message_mentions_has_ways_of_their_own(path: Path):
    robot, sms = FakeChannel(lambda _: failed()), FakeChannel()
    own: Mapping[str, tuple[str, ...]] = {"li": ("robot", "sms"), "wang": ("robot",)}

    async def main() -> None:
        channels = {"robot": robot, "sms": sms}
        async with running(path, channels, ways=lambda _, person: own[person], settings=SETTINGS) as made:
            await made.journal.append([raised("li+wang@robot")])
            await seconds(100)
            assert [person.person for person in robot.got[0].mentions] == ["li", "wang"]
            assert robot.got[0].to.person == "li"
            assert [notice.to.person for notice in sms.got] == ["li"]
            (body,) = await made.bodies("delivery.failing")
            assert (body["all_ways"], body["unreached"]) == (True, ["wang"])
            assert made.health.unreached == ("wang",)

    in_virtual_time(main)


# --- proofs ---


def receipt(name: str) -> Sent:
    return Sent(outcome=Outcome.ACCEPTED, receipt=name)


def test_proof_makes_it_delivered_and_may_come_before_the_commit(path: Path):
    sms = FakeChannel()

    async def main() -> None:
        async with running(path, {"sms": sms}, settings=SETTINGS) as made:
            events: Events = made.outbox

            def answer(_: Notice) -> Sent:
                events.report("r1", True, "received by the phone")
                return receipt("r1")

            sms.answer = answer
            await made.journal.append([raised("li@sms")])
            await seconds(1)
            (body,) = await made.bodies("delivery.delivered")
            assert (body["key"], body["detail"]) == ("1-1-li@sms", "received by the phone")
            assert states(path) == {"1-1-li@sms": "DELIVERED"}

    in_virtual_time(main)


@pytest.mark.parametrize("how", ["refused", "missing", "restart"])
def test_without_proof_the_message_takes_the_next_way_and_is_not_sent_again(path: Path, how: str):
    sms, mail = FakeChannel(lambda _: receipt("r1")), FakeChannel()
    live = {"sms": sms, "mail": mail}

    async def main() -> None:
        async with running(path, live, ways=ways("sms", "mail"), settings=SETTINGS) as made:
            await made.journal.append([raised("li@sms")])
            await seconds(100)
            assert mail.got == []
            if how == "refused":
                made.outbox.report("r1", False, "expired")
            await seconds(0.1 if how != "missing" else 210)
            if how != "restart":
                await check(made)
        async with running(path, live, ways=ways("sms", "mail"), settings=SETTINGS) as made:
            await seconds(210)
            await check(made)
            made.outbox.report("r1", True, "received after all")
            await seconds(1)
            assert states(path)["1-1-li@sms"] == ("DELIVERED" if how == "restart" else "ACCEPTED")

    async def check(made: Running) -> None:
        assert (len(sms.got), len(mail.got)) == (1, 1)
        (body,) = await made.bodies("delivery.failing")
        wanted = "expired" if how == "refused" else "no proof that it arrived"
        assert (body["channel"], body["error"], body["all_ways"]) == ("sms", wanted, False)

    in_virtual_time(main)


def test_every_row_of_a_digest_is_proven_also_over_a_restart(path: Path):
    sms = FakeChannel(lambda _: receipt("r1"))

    async def main() -> None:
        async with running(path, {"sms": sms}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@sms", n=n, priority=3) for n in range(3)])
            await seconds(31)
            assert len(sms.got) == 1
        async with running(path, {"sms": sms}, settings=SETTINGS) as made:
            made.outbox.report("r1", True, "received by the phone")
            await seconds(1)
            assert set(states(path).values()) == {"DELIVERED"}

    in_virtual_time(main)


def test_a_missing_proof_on_the_last_way_leaves_nobody_reached(path: Path):
    sms = FakeChannel(lambda _: receipt("r1"))

    async def main() -> None:
        async with running(path, {"sms": sms}, ways=ways("sms"), settings=SETTINGS) as made:
            await made.journal.append([raised("li@sms")])
            await seconds(1)
            made.outbox.report("r1", False, "no such phone")
            await seconds(1)
            assert [body["all_ways"] for body in await made.bodies("delivery.failing")] == [True]

    in_virtual_time(main)


def test_a_missing_proof_of_an_alarm_that_is_over_troubles_nobody(path: Path):
    sms, mail = FakeChannel(lambda n: OK if is_clear(n) else receipt("r1")), FakeChannel()

    async def main() -> None:
        async with running(path, {"sms": sms, "mail": mail}, ways=ways("sms", "mail"), settings=SETTINGS) as made:
            await made.journal.append([raised("li@sms")])
            await seconds(1)
            await made.journal.append([closed()])
            await seconds(1000)
            assert await made.bodies("delivery.failing") == []
            assert mail.got == []

    in_virtual_time(main)


# --- clears (C10) ---


def test_a_clear_goes_once_to_each_who_was_told_where_they_were_told(path: Path):
    robot, sms = FakeChannel(), FakeChannel(lambda n: OK if n.to.person != "wang" else failed())

    async def main() -> None:
        async with running(path, {"robot": robot, "sms": sms}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot", "li@sms", "wu@robot", "wang@sms"), climbed("zhao@robot")])
            await seconds(5)
            await made.journal.append([closed()])
            await seconds(60)
            clears = [(name, n.to.person) for name, c in (("robot", robot), ("sms", sms)) for n in c.got if is_clear(n)]
            assert sorted(clears) == [("robot", "wu"), ("robot", "zhao"), ("sms", "li")]
            assert {row["priority"] for row in rows(path) if row["kind"] == "delivery.clear"} == {3}

    in_virtual_time(main)


def is_clear(notice: Notice) -> bool:
    return notice.facts["kind"] == "delivery.clear" or any(
        other["kind"] == "delivery.clear" for other in notice.facts.get("others", ())
    )


def test_who_was_not_told_yet_is_told_both_in_one_message_on_one_channel(path: Path):
    up = False
    robot, sms = (FakeChannel(lambda _: OK if up else failed()) for _ in range(2))

    async def main() -> None:
        nonlocal up
        async with running(path, {"robot": robot, "sms": sms}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot", "li@sms")])
            await seconds(20)
            await made.journal.append([closed()])
            up = True
            await seconds(60)
            (notice,) = robot.arrived + sms.arrived
            assert "已恢复" in notice.title
            assert notice.number == 0
            assert sorted(states(path).values()) == ["ACCEPTED", "DEAD"]
            assert [body["why"] for body in await made.bodies("delivery.dead")] == ["told"]

    in_virtual_time(main)


def test_a_raise_that_was_under_way_when_the_alarm_closed_is_cleared_afterwards(path: Path):
    async def slow() -> Sent:
        await asyncio.sleep(10)
        return OK

    robot, sms = FakeChannel(lambda n: OK if is_clear(n) else slow()), FakeChannel(lambda _: failed())

    async def main() -> None:
        async with running(path, {"robot": robot, "sms": sms}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot", "li@sms")])
            await seconds(5)
            await made.journal.append([closed()])
            await seconds(60)
            assert [is_clear(notice) for notice in robot.got] == [False, True]
            assert len(sms.arrived) == 0
            assert made.health.pending == 0

    in_virtual_time(main)


def test_an_alarm_that_comes_again_is_not_cleared_but_raised(path: Path):
    robot = FakeChannel()

    async def main() -> None:
        async with running(path, {"robot": robot}, settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot")])
            await seconds(1)
            await made.journal.append([closed(reason="superseded_unacked"), raised("li@robot", occurrence=2)])
            await seconds(60)
            assert [notice.number for notice in robot.got] == [1, 2]

    in_virtual_time(main)


def test_old_news_of_what_is_over_is_given_up_after_its_time_and_is_nobodys_alarm(path: Path):
    robot, sms = FakeChannel(lambda _: failed()), FakeChannel(lambda _: failed())

    async def main() -> None:
        async with running(path, {"robot": robot, "sms": sms}, ways=ways(*BOTH), settings=SETTINGS) as made:
            await made.journal.append([raised("li@robot")])
            await seconds(10)
            await made.journal.append([closed()])
            await seconds(3500)
            assert made.health.pending == 1
            await seconds(200)
            assert made.health.pending == 0
            assert [body["why"] for body in await made.bodies("delivery.dead")] == ["old"]
            assert await made.bodies("delivery.failing") == []
            assert sms.got == []

    in_virtual_time(main)
