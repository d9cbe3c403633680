"""A reading's way: everything is committed before anything is announced, in order, and never after a failure."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.ladders.climb import Wall
from sitewarden.edge.ladders.keeper import Ladders
from sitewarden.edge.pipeline import Pipeline, PipelineHealth
from sitewarden.edge.values import Values, reading_view
from sitewarden.errors import RefusedError
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal, Record
from sitewarden.sync.sqlite import StoreError
from sitewarden.words import Instant, Quality, Reading, mono_s, now

POINT = "aux_store.th1.humidity"
RULE = Rule(
    id=f"{POINT}.high",
    point=POINT,
    area="aux_store",
    side=Side.HIGH,
    name="湿度",
    name_en="humidity",
    unit="%RH",
    levels=(Level(kind=Kind.HI, limit=75.0, priority=3), Level(kind=Kind.HIHI, limit=85.0, priority=2)),
)


def reading(value: float, point: str = POINT) -> Reading:
    return Reading(point=point, value=value, quality=Quality.GOOD, at=now())


@dataclass
class House:
    """A pipeline on real stores; what was announced is in `announced`."""

    journal: Journal
    history: History
    values: Values
    pipeline: Pipeline
    health: PipelineHealth
    commit: asyncio.Task[None]
    announced: list[Record] = field(default_factory=list)

    def kinds(self) -> list[str]:
        return [record.kind for record in self.announced]

    async def stored(self) -> list[str]:
        return [record.kind for record in await self.journal.read(0, 1000)]

    def ack(self, role: str, person: str):
        alarm = self.pipeline.engine.alarm(RULE.id)
        return self.pipeline.command(lambda e, at: e.acknowledge(RULE.id, alarm.occurrence, role, person, at))


@asynccontextmanager
async def house(folder: Path) -> AsyncIterator[House]:
    async with (
        Journal(folder / "journal.db", "gw1", (alarm_table.TABLE,)) as journal,
        History(folder / "history.db", "gw1", flush_s=60) as history,
    ):
        values, health = Values(), PipelineHealth()
        notify = lambda draft: [{"key": draft.kind}]  # noqa: E731
        engine = Engine([RULE], {}, now())
        ladders = Ladders({}, {}, lambda _: None, Wall.at_start(None, now()))
        pipeline = Pipeline(engine, journal, history, values, ladders, notify=notify, health=health)
        commit = asyncio.create_task(pipeline.commit(), name="commit")
        made = House(journal, history, values, pipeline, health, commit)
        journal.subscribe(made.announced.extend)
        try:
            yield made
        finally:
            commit.cancel()
            await asyncio.gather(commit, return_exceptions=True)


@asynccontextmanager
async def slow_disk(journal: Journal) -> AsyncIterator[None]:
    """The writer's thread does not come back from its commit while this is open."""
    begun, over = threading.Event(), threading.Event()
    stuck = asyncio.create_task(journal.write(lambda _: (begun.set(), over.wait(30))))
    await asyncio.to_thread(begun.wait, 30)
    try:
        yield
    finally:
        over.set()
        await stuck


async def break_disk(journal: Journal) -> None:
    """From here on every write fails as on a read-only card."""
    await journal.write(lambda c: c.execute("PRAGMA query_only=ON").close())


async def test_announced_only_after_the_commit_and_in_order(tmp_path: Path, eventually):
    async with house(tmp_path) as made:
        async with slow_disk(made.journal):
            made.pipeline.accept([reading(80.0)])
            made.pipeline.accept([reading(90.0)])
            made.pipeline.accept([reading(60.0)])
            made.pipeline.record([Draft(kind="gateway.note", at=now(), actor="gateway", body={})])
            await asyncio.sleep(0.1)  # nothing to wait for: nothing may happen
            assert made.announced == []
            assert await made.stored() == []
            assert made.pipeline.engine.alarm(RULE.id).state == "RTNUN", "rules do not wait for the disk"
        expected = ["alarm.raised", "alarm.reraised", "alarm.returned", "gateway.note"]
        await eventually(lambda: made.kinds() == expected, "all announced in order")
        assert [record.seq for record in made.announced] == [1, 2, 3, 4]
        assert await made.stored() == expected
        assert made.health.records == 4


async def test_alarm_records_say_who_must_know_and_others_do_not(tmp_path: Path, eventually):
    async with house(tmp_path) as made:
        made.pipeline.record([Draft(kind="gateway.note", at=now(), actor="gateway", body={"a": 1})])
        made.pipeline.accept([reading(80.0)])
        await eventually(lambda: len(made.announced) == 2, "both announced")
        note, raised = made.announced
        assert note.body == {"a": 1}
        assert raised.body["notify"] == [{"key": "alarm.raised"}]


async def test_a_failing_store_announces_nothing_and_ends_the_loop(tmp_path: Path):
    async with house(tmp_path) as made:
        await break_disk(made.journal)
        made.pipeline.accept([reading(80.0)])
        with pytest.raises(StoreError, match=r"journal\.db"):
            await asyncio.wait_for(made.commit, 20)
        assert made.announced == []
        assert made.journal.head()[0] == 0


async def test_nothing_is_committed_after_what_could_not_be(tmp_path: Path):
    """A return without its raise would be a lie: after a group that failed the journal stays as it is."""
    async with house(tmp_path) as made:
        made.pipeline.accept([reading(80.0)])
        made.pipeline.record([Draft(kind="gateway.note", at=now(), actor="gateway", body={"not_json": math.nan})])
        with pytest.raises(ValueError, match="not JSON compliant"):
            await asyncio.wait_for(made.commit, 20)
        made.pipeline.accept([reading(60.0)])
        await made.pipeline.flush()
        assert await made.stored() == []


async def test_a_command_waits_for_its_commit(tmp_path: Path, eventually):
    async with house(tmp_path) as made:
        made.pipeline.accept([reading(80.0)])
        await eventually(lambda: made.announced, "raised")
        async with slow_disk(made.journal):
            ack = asyncio.create_task(made.ack("keeper", "li"))
            again = asyncio.create_task(made.ack("keeper", "li"))
            await asyncio.sleep(0.1)  # nothing to wait for: neither may answer
            assert not ack.done()
            assert not again.done(), "what it found is not committed yet"
        records = await asyncio.wait_for(ack, 20)
        assert [(record.kind, record.actor) for record in records] == [("alarm.acked", "li")]
        assert await asyncio.wait_for(again, 20) == []
        assert await made.stored() == ["alarm.raised", "alarm.acked"]


async def test_each_command_of_a_group_gets_its_own_records(tmp_path: Path, eventually):
    async with house(tmp_path) as made:
        made.pipeline.accept([reading(80.0)])
        await eventually(lambda: made.announced, "raised")
        async with slow_disk(made.journal):
            acks = [asyncio.create_task(made.ack(*who)) for who in (("keeper", "li"), ("officer", "wang"))]
            await asyncio.sleep(0.05)
            made.pipeline.accept([reading(60.0)])
        first, second = await asyncio.wait_for(asyncio.gather(*acks), 20)
        assert [record.actor for record in first] == ["li"]
        assert [record.actor for record in second] == ["wang"]
        await eventually(lambda: made.kinds()[-1] == "alarm.closed", "closed")


async def test_refused_and_failed_commands(tmp_path: Path, eventually):
    async with house(tmp_path) as made:
        with pytest.raises(RefusedError, match="is not in alarm"):
            await made.ack("keeper", "li")
        made.pipeline.accept([reading(80.0)])
        await eventually(lambda: made.announced, "raised")
        await break_disk(made.journal)
        with pytest.raises(StoreError):
            await asyncio.wait_for(made.ack("keeper", "li"), 20)
        assert made.kinds() == ["alarm.raised"]


async def test_a_person_who_goes_away_does_not_take_back_the_command(tmp_path: Path, eventually):
    async with house(tmp_path) as made:
        made.pipeline.accept([reading(80.0)])
        await eventually(lambda: made.announced, "raised")
        async with slow_disk(made.journal):
            ack = asyncio.create_task(made.ack("keeper", "li"))
            await asyncio.sleep(0.05)
            ack.cancel()
        await eventually(lambda: made.kinds() == ["alarm.raised", "alarm.acked"], "committed all the same")


async def test_the_end_of_the_process_commits_what_was_decided(tmp_path: Path):
    async with house(tmp_path) as made:
        async with slow_disk(made.journal):
            made.pipeline.accept([reading(80.0)])
            await asyncio.sleep(0.05)
            made.pipeline.accept([reading(60.0)])
            made.commit.cancel()
            await asyncio.gather(made.commit, return_exceptions=True)
        await made.pipeline.flush()
        assert await made.stored() == ["alarm.raised", "alarm.returned"]


async def test_cancelling_at_any_moment_ends_the_commit_loop(tmp_path: Path):
    """Also in the very turn of the loop in which something was queued."""
    async with house(tmp_path) as made:
        for turns in range(6):
            task = asyncio.create_task(made.pipeline.commit())
            await asyncio.sleep(0.01)
            made.pipeline.record([Draft(kind="gateway.note", at=now(), actor="gateway", body={"n": turns})])
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=5)
            assert done, f"cancelled {turns} turns after a draft, the loop went on"


async def test_a_rule_that_raises_ends_the_process_not_the_driver(tmp_path: Path, monkeypatch):
    """A driver takes exceptions for its own faults and goes on: the alarm would be lost in silence."""
    async with house(tmp_path) as made:
        judge = made.pipeline.engine._judge

        def defect(watched: Any, given: Reading, at: Instant, drafts: list[Draft]) -> None:
            if given.value == 666.0:
                raise AssertionError("impossible state")
            judge(watched, given, at, drafts)

        monkeypatch.setattr(made.pipeline.engine, "_judge", defect)
        made.pipeline.accept([reading(80.0), reading(666.0)])
        with pytest.raises(AssertionError, match="impossible state"):
            await asyncio.wait_for(made.commit, 20)
        assert await made.stored() == ["alarm.raised"], "what was decided before it is committed"


async def test_a_tick_that_raises_ends_its_loop_and_time_raises_alarms(tmp_path: Path, monkeypatch, eventually):
    async with house(tmp_path) as made:
        draft = Draft(kind="gateway.note", at=now(), actor="gateway", body={})
        answers: list[Any] = [[draft], [], AssertionError("impossible state")]

        def tick(_: Instant) -> list[Draft]:
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        monkeypatch.setattr(made.pipeline.engine, "tick", tick)
        monkeypatch.setattr("sitewarden.edge.pipeline.TICK_S", 0.01)
        made.health.tick_s = 0.0
        with pytest.raises(AssertionError, match="impossible state"):
            await asyncio.wait_for(made.pipeline.tick(), 20)
        assert mono_s() - made.health.tick_s < 20
        await eventually(lambda: made.kinds() == ["gateway.note"], "what time decided is committed")


async def test_history_and_values_get_every_reading(tmp_path: Path):
    async with house(tmp_path) as made:
        cursor, other = made.values.cursor(), made.values.cursor()
        wanted = [float(n) for n in range(300)]
        start = now()
        for value in wanted:
            at = Instant(utc_ms=start.utc_ms + round(value), mono_s=start.mono_s + value, boot=start.boot)
            made.pipeline.accept([Reading(point=POINT, value=value, quality=Quality.GOOD, at=at)])
        made.pipeline.accept(
            [reading(1.0, "not.a.rule"), Reading(point="x.y.z", value=None, quality=Quality.BAD, at=start)]
        )
        samples = await made.history.read(POINT, start.utc_ms - 1, start.utc_ms + 1000)
        assert [sample[1] for sample in samples] == wanted
        assert made.health.readings == 302
        newest = made.values.get(POINT)
        assert newest is not None
        assert newest.value == 299.0
        assert cursor == {POINT, "not.a.rule", "x.y.z"}
        cursor.clear()
        assert other == {POINT, "not.a.rule", "x.y.z"}, "each consumer has a cursor of its own"


def test_age_is_monotonic():
    at = Instant(utc_ms=1_800_000_000_004, mono_s=100.0, boot="b")
    view = reading_view(
        Reading(point=POINT, value=58.3, quality=Quality.UNCERTAIN, why="retained", at=at),
        Instant(utc_ms=1_700_000_000_000, mono_s=103.25, boot="b"),
    )
    assert view == {
        "id": POINT,
        "v": 58.3,
        "q": "uncertain",
        "why": "retained",
        "ts": "2027-01-15T08:00:00.004Z",
        "age_s": 3.2,
    }
