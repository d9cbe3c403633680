"""The delivery log: what was told to whom, each way and each attempt of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sitewarden.edge.alerts.deliveries import deliveries
from sitewarden.edge.alerts.outbox_queries import alarm_numbered
from sitewarden.edge.alerts.port import Outcome, Sent
from sitewarden.tests.peers.alert_doubles import (
    OK,
    QUICK,
    FakeChannel,
    Running,
    alarm,
    climbed,
    closed,
    failed,
    raised,
    running,
    states,
)


@pytest_asyncio.fixture
async def log(tmp_path: Path, eventually: Any) -> AsyncIterator[Running]:
    """li by robot at the second try, wang by SMS after his robot refused; three more as a digest; one not yet."""
    path = tmp_path / "journal.db"
    first = [failed("errcode 45009")]

    def robot(notice: Any) -> Sent:
        if notice.to.person == "wang":
            return Sent(outcome=Outcome.REFUSED, detail="not in the group")
        return first.pop() if first else OK

    channels = {
        "robot": FakeChannel(robot),
        "sms": FakeChannel(lambda _: Sent(outcome=Outcome.ACCEPTED, receipt="r1")),
        "dead": FakeChannel(lambda _: failed("offline")),
    }
    settings = replace(QUICK, group_wait_s={3: 0.0})
    async with running(path, channels, ways=lambda _f, _p: ("robot", "sms"), settings=settings) as made:
        await made.journal.append([raised("li@robot", "wang@robot", "li+wang@robot", occurrence=7)])
        await eventually(lambda: sorted(states(path).values()) == ["ACCEPTED", "ACCEPTED", "ACCEPTED", "DEAD"], "told")
        made.outbox.report("r1", True, "received by the phone")
        await made.journal.append([raised("wu@robot", n=n, occurrence=n, priority=3) for n in range(11, 14)])
        await eventually(lambda: sum(state == "ACCEPTED" for state in states(path).values()) == 5, "the digest")
        await made.journal.append([raised("wu@dead", n=20, occurrence=20), climbed("zhao@robot")])
        await eventually(lambda: states(path)["20-20-wu@dead"] == "RETRY", "tried")
        channels["dead"].answer = lambda _: Sent(outcome=Outcome.LATER, retry_s=600.0)
        await eventually(lambda: made.health.channels["dead"].later, "it rests")
        await eventually(lambda: states(path)["s1-zhao@robot"] == "ACCEPTED", "the step")
        yield made


async def read(log: Running, **filters: Any) -> list[dict[str, Any]]:
    return await log.journal.query(lambda connection: deliveries(connection, **filters))


async def test_a_message_has_its_ways_and_their_attempts(log: Running):
    (message,) = await read(log, occurrence=7)
    assert (message["kind"], message["priority"], message["name"]) == ("alarm.raised", 2, "助剂库 1号湿度")
    assert message["about"] == alarm()["id"]
    told = [(row["person"], row["channel"], row["state"]) for row in message["rows"]]
    assert told == [
        ("li", "robot", "ACCEPTED"),
        ("wang", "robot", "DEAD"),
        ("", "robot", "ACCEPTED"),
        ("wang", "sms", "DELIVERED"),
    ]
    li, wang, group, sms = message["rows"]
    assert [(attempt["n"], attempt["outcome"]) for attempt in li["attempts"]] == [(1, "failed"), (2, "accepted")]
    assert li["attempts"][0]["detail"] == "errcode 45009"
    assert (wang["why"], wang["error"]) == ("refused", "not in the group")
    assert group["mentions"] == ["li", "wang"]
    assert not any(row["failing"] or row["unreached"] or row["resent"] for row in message["rows"])
    assert sms["ended"] >= sms["born"] >= message["at"]


async def test_rows_of_a_digest_say_which(log: Running):
    messages = await read(log, person="wu", state="ACCEPTED")
    assert [message["occurrence"] for message in messages] == [13, 12, 11]
    digests = {row["attempts"][-1]["digest"] for message in messages for row in message["rows"]}
    assert len(digests) == 1
    assert digests != {""}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"person": "li"}, [("li", "robot"), ("", "robot")]),
        ({"channel": "sms"}, [("wang", "sms")]),
        ({"state": "DEAD"}, [("wang", "robot")]),
        ({"state": "RETRY"}, [("wu", "dead")]),
        ({"state": "SENDING"}, []),
        ({"occurrence": 20}, [("wu", "dead")]),
        ({"occurrence": 99}, []),
        ({"person": "zhao", "occurrence": 1}, [("zhao", "robot")]),
    ],
)
async def test_filters_leave_the_rows_that_fit(log: Running, filters: dict[str, Any], found: list[tuple[str, str]]):
    rows = [row for message in await read(log, **filters) for row in message["rows"]]
    assert [(row["person"], row["channel"]) for row in rows] == found


async def test_pages_go_backwards(log: Running):
    everything = [message["seq"] for message in await read(log)]
    assert everything == sorted(everything, reverse=True)
    page = await read(log, limit=2)
    rest = await read(log, before=page[-1]["seq"])
    assert [message["seq"] for message in page + rest] == everything


async def test_an_alarm_is_found_by_the_number_that_people_know(log: Running):
    async def find(number: int) -> Any:
        return await log.journal.query(lambda connection: alarm_numbered(connection, number))

    await log.journal.append([closed(20, 20), raised(n=20, occurrence=21)])
    assert (await find(12))["id"] == alarm(12)["id"]
    assert await find(20) == {"id": alarm(20)["id"], "occurrence": 20, "state": "NORM"}
    assert (await find(21))["state"] == "UNACK"
    assert await find(99) is None
    assert await find(0) is None
