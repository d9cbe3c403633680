"""Deliveries on a real journal: born with their record, tried until accepted, one recipient never at another's cost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sqlite3
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alerts import outbox as outbox_module
from sitewarden.edge.alerts.channels import Channels
from sitewarden.edge.alerts.message import Composer
from sitewarden.edge.alerts.outbox import TABLE, Lane, Outbox, OutboxHealth
from sitewarden.edge.models import ChannelTable
from sitewarden.sync.journal import Draft, Journal, Record, rebuild
from sitewarden.sync.sqlite import StoreError
from sitewarden.words import now

TABLES = (alarm_table.TABLE, TABLE)


def alarm(n: int = 1, state: str = "UNACK", occurrence: int = 1, priority: int = 3) -> dict[str, Any]:
    return {
        "id": f"aux_store.th{n}.humidity.high",
        "point": f"aux_store.th{n}.humidity",
        "area": "aux_store",
        "kind": "hi",
        "state": state,
        "priority": priority,
        "changed_at": "2026-11-22T15:04:05.000Z",
        "occurrence": occurrence,
        "name": "湿度",
        "name_en": "humidity",
        "value": 78.2,
        "limit": 75.0,
        "unit": "%RH",
        "count": 1,
        "required_acks": ["keeper", "officer"],
        "acks": [],
    }


def raised(*who: str, n: int = 1, **changes: Any) -> Draft:
    """`who`: person@channel."""
    given = alarm(n, **changes)
    notify = [
        {
            "key": f"{n}-{given['occurrence']}-{name}",
            "person": name.partition("@")[0],
            "role": "keeper",
            "channel": name.partition("@")[2],
        }
        for name in who
    ]
    return Draft(kind="alarm.raised", at=now(), actor="gateway", body={"alarm": given, "notify": notify})


def closed(n: int = 1, occurrence: int = 1) -> Draft:
    body = {"alarm": alarm(n, "NORM", occurrence), "notify": []}
    return Draft(kind="alarm.closed", at=now(), actor="gateway", body=body)


class Robot:
    """A channel whose answer a test decides: "" accepts. It notes what the journal held when it was asked."""

    def __init__(self, path: Path, answer: Callable[[Mapping[str, Any]], Any] = lambda _: "") -> None:
        self.path = path
        self.answer = answer
        self.got: list[dict[str, Any]] = []
        self.states: list[str] = []

    async def send(self, message: Mapping[str, Any]) -> str:
        self.got.append(dict(message))
        self.states += [row["state"] for row in rows(self.path) if row["key"] == message["key"]]
        answer = self.answer(message)
        return await answer if asyncio.iscoroutine(answer) else answer

    def tries(self) -> Counter[str]:
        return Counter(message["key"] for message in self.got)


def rows(path: Path) -> list[dict[str, Any]]:
    """What is committed, seen from outside."""
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM outbox ORDER BY seq, key")]


def states(path: Path) -> dict[str, str]:
    return {row["key"]: row["state"] for row in rows(path)}


class Running:
    """An open journal and an outbox that runs on it."""

    def __init__(self, journal: Journal, health: OutboxHealth) -> None:
        self.journal = journal
        self.health = health
        self.task: asyncio.Task[None]

    async def records(self, kind: str) -> list[Record]:
        return [record for record in await self.journal.read(0, 10_000) if record.kind == kind]

    async def keys(self, kind: str) -> list[str]:
        return [record.body["key"] for record in await self.records(kind)]


@asynccontextmanager
async def running(path: Path, **channels: Any) -> AsyncIterator[Running]:
    async with Journal(path, "gw1", TABLES) as journal:
        made = Running(journal, OutboxHealth())
        outbox = Outbox(journal, channels, Composer(site="s", timezone="UTC", people={}), made.health)
        made.task = asyncio.create_task(outbox.run(), name="outbox")
        try:
            yield made
        finally:
            made.task.cancel()
            done, _ = await asyncio.wait([made.task], timeout=20)
            assert done, "the outbox does not end"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox_module, "RETRY_BASE_S", 0.02)
    monkeypatch.setattr(outbox_module, "RETRY_CAP_S", 0.1)


async def test_both_rows_exist_before_anything_is_sent(path: Path, eventually):
    robot = Robot(path)
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot", "wang@robot")])
        await eventually(lambda: set(states(path).values()) == {"ACCEPTED"}, "both accepted", every_s=0.02)
        assert robot.states == ["SENDING", "SENDING"]
        assert robot.tries() == {"1-1-li@robot": 1, "1-1-wang@robot": 1}
        assert not any(message["resent"] for message in robot.got)
        assert await made.keys("delivery.accepted") == [message["key"] for message in robot.got]
        await eventually(lambda: made.health.pending == 0, "nothing pending")


async def test_both_rows_exist_or_none_do(path: Path):
    robot = Robot(path)
    async with running(path, robot=robot) as made:
        draft = raised("li@robot", "wang@robot")
        del draft.body["notify"][1]["key"]
        with pytest.raises(KeyError):
            await made.journal.append([draft])
        assert rows(path) == []
        assert await made.journal.read(0, 10) == []
        assert robot.got == []


async def test_a_record_that_is_not_committed_is_not_sent(path: Path):
    robot = Robot(path)
    async with running(path, robot=robot) as made:
        await asyncio.sleep(0)
        await made.journal.write(lambda _: None)  # the outbox has begun
        await made.journal.write(lambda c: c.execute("PRAGMA query_only=ON").close())
        with pytest.raises(StoreError):
            await made.journal.append([raised("li@robot")])
        await asyncio.sleep(0.1)  # nothing to wait for: nothing may be sent
        assert robot.got == []


async def test_refused_then_accepted_keeps_its_key(path: Path, quick: None, eventually):
    robot = Robot(path, lambda _: "" if len(robot.got) > 3 else "errcode 45009")
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: states(path) == {"1-1-li@robot": "ACCEPTED"}, "accepted in the end", every_s=0.02)
        assert robot.tries() == {"1-1-li@robot": 4}
        assert [row["attempts"] for row in rows(path)] == [4]
        (record,) = await made.records("delivery.accepted")
        assert (record.body["person"], record.body["channel"], record.body["attempts"]) == ("li", "robot", 4)
        assert await made.records("delivery.failing") == []


async def test_one_recipients_failure_neither_cancels_nor_delays_the_other(path: Path, quick: None, eventually):
    """li's messages hang or are refused, or the channel breaks on them; each of wang's is accepted at its first try."""
    never = asyncio.Event()
    misdeeds = [never.wait(), never.wait()]

    def answer(message: Mapping[str, Any]) -> Any:
        if message["person"] == "wang":
            return ""
        if misdeeds:
            return misdeeds.pop()
        raise RuntimeError("a defect of the channel")

    robot = Robot(path, answer)
    async with running(path, robot=robot) as made:
        for n in range(20):
            await made.journal.append([raised("li@robot", "wang@robot", n=n)])
        await eventually(lambda: sum(m["person"] == "wang" for m in robot.got) == 20, "wang is told all", bound_s=10)
        await eventually(lambda: made.health.pending == 20, "only li's are left", bound_s=10)
        assert max(count for key, count in robot.tries().items() if "wang" in key) == 1
        assert not made.task.done()
    assert not misdeeds


async def test_a_channel_that_raises_is_a_failure_of_its_row(path: Path, quick: None, eventually):
    def answer(_: Mapping[str, Any]) -> str:
        if len(robot.got) < 3:
            raise ValueError("not a URL")
        return ""

    robot = Robot(path, answer)
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: states(path) == {"1-1-li@robot": "ACCEPTED"}, "accepted", every_s=0.02)
        assert not made.task.done()


async def test_a_dead_channel_does_not_delay_another(path: Path, quick: None, eventually):
    never = asyncio.Event()
    dead, good = Robot(path, lambda _: never.wait()), Robot(path)
    async with running(path, dead=dead, good=good) as made:
        await made.journal.append([raised("li@dead", "wang@dead", n=n) for n in range(30)])
        await eventually(lambda: len(dead.got) == 4, "the dead channel hangs")
        await made.journal.append([raised("li@good", n=99)])
        await eventually(
            lambda: states(path)["99-1-li@good"] == "ACCEPTED", "told on the other", every_s=0.02, bound_s=10
        )


async def test_five_hundred_pending_rows_cost_single_attempts_and_go_out_most_urgent_first(
    path: Path, monkeypatch: pytest.MonkeyPatch, eventually
):
    monkeypatch.setattr(outbox_module, "RETRY_BASE_S", 0.2)
    monkeypatch.setattr(outbox_module, "RETRY_CAP_S", 0.4)
    up = False
    robot = Robot(path, lambda _: "" if up else "HTTP 502")
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot", n=n, priority=1 if n == 400 else 3) for n in range(500)])
        await eventually(lambda: made.health.pending == 500, "all pending")
        await eventually(lambda: len(robot.got) >= 8, "some attempts")
        assert len(robot.got) < 20, "a dead channel is asked with one row at a time"
        assert max(robot.tries().values()) == 1, "each row in its turn"
        before, up = len(robot.got), True
        await eventually(lambda: made.health.pending == 0, "all delivered", bound_s=60)
        told = [message["alarm"]["priority"] for message in robot.got[before:]]
        assert 1 not in told or told.index(1) <= 3, "the most urgent one goes first, but for what asked first"
        assert len(robot.got) == before + 500
        assert len(await made.keys("delivery.accepted")) == 500


async def test_killed_between_sending_and_accepted(path: Path, eventually):
    """The process dies while the robot has the message: it comes again, once, with the same key, marked."""
    got: list[dict[str, Any]] = []
    hang = asyncio.Event()

    async def handler(request: web.Request) -> web.StreamResponse:
        got.append(await request.json())
        if len(got) == 1:
            await hang.wait()
        return web.json_response({"errcode": 0})

    app = web.Application()
    app.router.add_post("/", handler)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    dying = await asyncio.create_subprocess_exec(sys.executable, "-c", DYING, str(path), url, json.dumps(alarm()))
    try:
        await eventually(lambda: got, "the robot has it")
        assert states(path) == {"k1": "SENDING"}
        os.kill(dying.pid, signal.SIGKILL)
        await dying.wait()
        hang.set()
        table = ChannelTable(id="robot", kind="webhook", url=url)
        async with Channels([table]) as channels, running(path, **channels.live) as made:
            await eventually(lambda: states(path) == {"k1": "ACCEPTED"}, "accepted", every_s=0.02)
            assert len(await made.records("delivery.accepted")) == 1
        assert [(message["key"], message["resent"]) for message in got] == [("k1", False), ("k1", True)]
        assert "重发" in got[1]["text"]["content"]
        async with Channels([table]) as channels, running(path, **channels.live) as made:
            await made.journal.append([raised("li@robot", n=2)])
            await eventually(lambda: len(got) == 3, "the next one")
        assert [message["key"] for message in got] == ["k1", "k1", "2-1-li@robot"]
    finally:
        if dying.returncode is None:
            dying.kill()
        await runner.cleanup()


DYING = """
import asyncio, json, pathlib, sys
from sitewarden.edge.alarms import table
from sitewarden.edge.alerts.message import Composer
from sitewarden.edge.alerts.outbox import TABLE, Lane, Outbox, OutboxHealth
from sitewarden.edge.alerts.webhook import Webhook
from sitewarden.edge.models import ChannelTable
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import now

async def main(path, url, alarm):
    channel = Webhook(ChannelTable(id="robot", kind="webhook", url=url, timeout_s=60.0))
    async with Journal(pathlib.Path(path), "gw1", (table.TABLE, TABLE)) as journal, channel:
        outbox = Outbox(journal, {"robot": channel}, Composer(site="s", timezone="UTC", people={}), OutboxHealth())
        notify = [{"key": "k1", "person": "li", "role": "keeper", "channel": "robot"}]
        body = {"alarm": json.loads(alarm), "notify": notify}
        await journal.append([Draft(kind="alarm.raised", at=now(), actor="gateway", body=body)])
        await outbox.run()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_rows_survive_reopen_and_go_on_unmarked(path: Path, quick: None, eventually):
    async with running(path, robot=Robot(path, lambda _: "HTTP 500")) as made:
        await made.journal.append([raised("li@robot", "wang@robot")])
        await eventually(lambda: {row["state"] for row in rows(path)} == {"RETRY"}, "both refused", every_s=0.02)
        await eventually(lambda: min(row["attempts"] for row in rows(path)) >= 2, "tried again", every_s=0.02)
    robot = Robot(path)
    async with running(path, robot=robot):
        await eventually(lambda: set(states(path).values()) == {"ACCEPTED"}, "accepted after the restart", every_s=0.02)
    assert sorted(robot.tries()) == ["1-1-li@robot", "1-1-wang@robot"]


async def test_failing_is_recorded_exactly_once_also_over_a_restart(
    path: Path, quick: None, monkeypatch: pytest.MonkeyPatch, eventually
):
    monkeypatch.setattr(outbox_module, "DELIVERY_DEADLINE_S", 0.5)
    robot = Robot(path, lambda _: "errcode 45009: too fast")
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: len(robot.got) >= 2, "two tries")
        assert made.health.failing == 0
        await eventually(lambda: made.keys("delivery.failing"), "failing is recorded", every_s=0.05)
        (record,) = await made.records("delivery.failing")
        assert record.body["error"] == "errcode 45009: too fast"
        assert (made.health.pending, made.health.failing) == (1, 1)
        tries = len(robot.got)
        await eventually(lambda: len(robot.got) >= tries + 5, "five more tries")
        assert len(await made.keys("delivery.failing")) == 1
    async with running(path, robot=robot) as made:
        await eventually(lambda: made.health.failing == 1, "still failing after a restart")
        tries = len(robot.got)
        await eventually(lambda: len(robot.got) >= tries + 5, "five more tries")
        assert len(await made.keys("delivery.failing")) == 1
        robot.answer = lambda _: ""
        await eventually(lambda: made.health.pending == 0, "reached in the end")
        assert made.health.failing == 0
        assert len(await made.keys("delivery.accepted")) == 1


async def test_the_deadline_passes_also_while_an_attempt_hangs(path: Path, monkeypatch: pytest.MonkeyPatch, eventually):
    """And for the rows that wait behind it: the deadline is of the row, not of its attempts."""
    monkeypatch.setattr(outbox_module, "DELIVERY_DEADLINE_S", 0.3)
    never = asyncio.Event()
    async with running(path, robot=Robot(path, lambda _: never.wait())) as made:
        await made.journal.append([raised("li@robot", n=n) for n in range(5)])
        await eventually(lambda: made.health.failing == 5, "all are failing", bound_s=10)
        await eventually(lambda: sum(row["failing"] for row in rows(path)) == 5, "recorded")
        assert len(await made.keys("delivery.failing")) == 5


async def test_a_send_that_never_comes_back_is_given_up(path: Path, quick: None, monkeypatch, eventually):
    monkeypatch.setattr(outbox_module, "_SEND_LIMIT_S", 0.2)
    never = asyncio.Event()
    robot = Robot(path, lambda _: never.wait() if len(robot.got) < 2 else "")
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: states(path) == {"1-1-li@robot": "ACCEPTED"}, "second try", every_s=0.02)


async def test_a_channel_that_was_taken_out_is_dead_with_a_record(path: Path, quick: None, eventually):
    async with running(path, robot=Robot(path, lambda _: "HTTP 500"), sms=Robot(path)) as made:
        await made.journal.append([raised("li@robot", "li@sms")])
        await eventually(lambda: sorted(states(path).values()) == ["ACCEPTED", "RETRY"], "one is open", every_s=0.02)
    async with running(path, sms=Robot(path)) as made:
        await eventually(lambda: states(path)["1-1-li@robot"] == "DEAD", "given up", every_s=0.02)
        (record,) = await made.records("delivery.dead")
        assert (record.body["key"], record.body["error"]) == ("1-1-li@robot", "the channel is no longer in site.toml")
        await eventually(lambda: made.health.pending == 0, "nothing pending")


async def test_rows_of_a_closed_alarm_end_with_a_record(path: Path, quick: None, eventually):
    """Retry while open: a channel that is dead for weeks must not fill the memory, nor send old news on its return."""
    robot = Robot(path, lambda _: "HTTP 500")
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot"), raised("li@robot", n=2), raised("li@robot", n=3)])
        await eventually(lambda: len(robot.got) >= 3, "all were tried")
        await made.journal.append([closed()])
        await eventually(lambda: states(path)["1-1-li@robot"] == "DEAD", "the first one ended", every_s=0.02)
        assert states(path)["2-1-li@robot"] != "DEAD"
    async with Journal(path, "gw1", TABLES) as journal:  # closed, and superseded, while no outbox ran
        await journal.append([closed(2), closed(3), raised("li@robot", n=3, occurrence=5)])
    robot.answer = lambda _: ""
    robot.got.clear()
    async with running(path, robot=robot) as made:
        wanted = {"1-1-li@robot": "DEAD", "2-1-li@robot": "DEAD", "3-1-li@robot": "DEAD", "3-5-li@robot": "ACCEPTED"}
        await eventually(lambda: states(path) == wanted, "all ended", every_s=0.02)
        assert sorted(robot.tries()) == ["3-5-li@robot"]
        assert len(await made.keys("delivery.dead")) == 3


@pytest.mark.parametrize("failing_job", ["SENDING", "ACCEPTED"])
async def test_the_stores_error_ends_the_run(path: Path, failing_job: str, eventually):
    """With other deliveries under way; what is not committed must not go on in memory."""
    gate = asyncio.Event()
    robot = Robot(path, lambda _: passed(gate))
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot", "wang@robot", "wu@robot")])
        await eventually(lambda: len(robot.got) == 3, "three are under way")
        await made.journal.write(lambda c: c.execute("PRAGMA query_only=ON").close())
        if failing_job == "SENDING":
            with pytest.raises(StoreError):
                await made.journal.append([raised("li@robot", n=2)])
        gate.set()
        done, _ = await asyncio.wait([made.task], timeout=10)
        assert done, "the run goes on after the store has failed"
        error = made.task.exception()
        assert isinstance(error, ExceptionGroup)
        assert error.subgroup(StoreError) is not None


async def passed(gate: asyncio.Event) -> str:
    await gate.wait()
    return ""


async def test_the_table_is_rebuilt_from_records_alone(path: Path, quick: None, eventually):
    robot = Robot(path, lambda m: "" if m["person"] == "li" else "HTTP 500")
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot", "wang@robot", "wu@gone")])
        await eventually(lambda: sorted(states(path).values()) == ["ACCEPTED", "DEAD", "RETRY"], "ends", every_s=0.02)
    before = states(path)
    async with Journal(path, "gw1", TABLES) as journal:
        await journal.write(lambda connection: rebuild(connection, TABLE))
    assert states(path) == {**before, "1-1-wang@robot": "PENDING"}, "the state of an attempt is not a record"


async def test_the_heartbeat_turns_while_deliveries_hang(path: Path, eventually):
    never = asyncio.Event()
    robot = Robot(path, lambda _: never.wait())
    async with running(path, robot=robot) as made:
        await made.journal.append([raised("li@robot")])
        await eventually(lambda: robot.got, "sent")
        beat_s = made.health.beat_s
        await eventually(lambda: made.health.beat_s > beat_s, "the loop turns", bound_s=15)


def row(seq: int, *, attempts: int = 0, priority: int = 3) -> Any:
    return outbox_module._Row(
        key=str(seq),
        seq=seq,
        priority=priority,
        person="li",
        role="keeper",
        channel="robot",
        attempts=attempts,
        resent=False,
        failing=False,
        late_s=0.0,
        data={},
    )


@pytest.mark.parametrize(
    ("lane", "waiting", "chosen"),
    [
        (Lane(), [row(1), row(2), row(3, priority=1)], [3, 1]),
        (Lane(), [row(1, attempts=9), row(2)], [1, 2]),
        (Lane(sending=1), [row(1), row(2)], [1]),
        (Lane(sending=2), [row(1)], []),
        (Lane(failures=1, due_s=200.0), [row(1, attempts=1)], []),
        (Lane(failures=1, due_s=200.0), [row(1, attempts=1), row(2)], [2]),  # new: does not wait for the refused one
        (Lane(failures=2, due_s=100.0), [row(1, attempts=1), row(2, attempts=1)], [1]),
        (Lane(failures=2, due_s=100.0, sending=1), [row(1, attempts=1)], []),
        (Lane(failures=3, due_s=200.0), [row(1), row(2)], []),
        (Lane(failures=3, due_s=100.0), [row(1, attempts=4), row(2, attempts=1), row(3, attempts=1)], [2]),
        (Lane(failures=3, due_s=100.0), [row(1, attempts=4), row(2), row(3, priority=1)], [3]),
    ],
)
def test_what_a_lane_sends(lane: Lane, waiting: list[Any], chosen: list[int]):
    assert [picked.seq for picked in lane.choose(waiting, 100.0)] == chosen


def test_a_lane_waits_longer_each_time_up_to_the_cap():
    lane, pauses_s = Lane(), []
    for _ in range(40):
        lane.failed(100.0)
        pauses_s.append(lane.due_s - 100.0)
    assert 2 <= pauses_s[0] <= 4
    assert 4 <= pauses_s[1] <= 8
    assert all(30 <= pause_s <= 60 for pause_s in pauses_s[5:])
    assert len({round(pause_s, 3) for pause_s in pauses_s[10:]}) > 10, "jitter"
