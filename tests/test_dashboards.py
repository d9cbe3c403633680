"""The MQTT tree on a real broker: what is retained, what a lost broker or connection costs, what is emptied."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from sitewarden.demo.broker import USERS, prepare_broker
from sitewarden.demo.broker import Broker as DemoBroker
from sitewarden.edge import dashboards as dashboards_module
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.dashboards import TABLE, Broker, DashboardHealth, Dashboards
from sitewarden.edge.ladders import table as ladder_table
from sitewarden.edge.ladders.climb import Subject, Wall, begin
from sitewarden.edge.ladders.freeze import of_ladder
from sitewarden.edge.ladders.plan import STANDARD
from sitewarden.edge.metas import PointMeta
from sitewarden.edge.values import Values
from sitewarden.sync.journal import Draft, Journal
from sitewarden.words import Instant, Point, Quality, Reading, mono_s, now, utc_text

BASE = "sw/v1/s1"
HUMIDITY = "aux_store.th1.humidity"
PRESSURE = "boiler_room.boiler1.pressure"
VALUE = f"{BASE}/aux_store/th1/humidity/value"
META = f"{BASE}/aux_store/th1/humidity/meta"
STATUS = f"{BASE}/gw/gw1/status"
HEALTH = f"{BASE}/gw/gw1/health"
SUMMARY = f"{BASE}/alarm/summary"
STATE = f"{BASE}/alarm/{HUMIDITY}.high/state"
PASSWORDS = {user: f"password-of-{user}" for user in USERS}


def meta(point: str, **limits: float) -> PointMeta:
    area = point.partition(".")[0]
    return PointMeta(
        point=Point(id=point, name="湿度", name_en="humidity", unit="%RH", quantity="humidity", decimals=1, poll_s=2.0),
        area=area,
        area_name="助剂库",
        stale_s=180.0,
        limits={"lolo": None, "lo": None, "hi": None, "hihi": None, **limits},
    )


def rule(point: str) -> Rule:
    level = Level(kind=Kind.HI, limit=75.0, priority=3)
    return Rule(
        id=f"{point}.high", point=point, area="a", side=Side.HIGH, name="n", name_en="n", unit="", levels=(level,)
    )


def reading(value: float | None, point: str = HUMIDITY, quality: Quality = Quality.GOOD, why: str = "") -> Reading:
    return Reading(point=point, value=value, quality=quality, why=why, at=now())


def alarm(state: str, occurrence: int = 1, point: str = HUMIDITY, priority: int = 3) -> dict[str, Any]:
    return {"id": f"{point}.high", "state": state, "occurrence": occurrence, "priority": priority, "acks": []}


def draft(change: str, state: str, reason: str = "condition", **fields: Any) -> Draft:
    body = {"alarm": alarm(state, **fields), "reason": reason, "notify": []}
    return Draft(kind=f"alarm.{change}", at=now(), actor="gateway", body=body)


@dataclass
class Plant:
    """A mosquitto that can be stopped, and a dashboard that has seen it all."""

    broker: DemoBroker
    folder: Path
    process: subprocess.Popen[bytes] | None = None
    retained: dict[str, Any] = field(default_factory=dict)
    seen: list[tuple[str, Any]] = field(default_factory=list)

    def start(self) -> None:
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(self.broker.command, stdout=log, stderr=log)

    def stop(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(20)

    def wipe(self) -> None:
        (self.folder / "broker" / "mosquitto.db").unlink(missing_ok=True)

    def client(self, user: str) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", self.broker.port, username=user, password=PASSWORDS[user], timeout=10)

    async def watch(self) -> None:
        """A dashboard, with the rights of one; it comes back when the broker does."""
        while True:
            with contextlib.suppress(aiomqtt.MqttError):
                async with self.client("dashboard") as client:
                    await client.subscribe(f"{BASE}/#", qos=1)
                    async for message in client.messages:
                        topic, data = str(message.topic), bytes(message.payload)
                        payload = json.loads(data) if data else None
                        self.seen.append((topic, payload))
                        self.retained[topic] = payload
            await asyncio.sleep(0.05)

    async def tree(self) -> dict[str, Any]:
        """What the broker holds now, for somebody who comes anew."""
        found: dict[str, Any] = {}
        async with self.client("gateway") as client:
            await client.subscribe(f"{BASE}/#", qos=1)
            await client.publish(f"{BASE}/end", b"1", qos=1)
            async for message in client.messages:
                if str(message.topic) == f"{BASE}/end":
                    return found
                if message.retain:
                    found[str(message.topic)] = json.loads(bytes(message.payload))
        raise AssertionError

    def events(self) -> list[dict[str, Any]]:
        return [payload for topic, payload in self.seen if topic.startswith(f"{BASE}/event/")]


@pytest.fixture
async def plant(tmp_path: Path, need, free_port, eventually) -> AsyncIterator[Plant]:
    need("mosquitto", "apt install mosquitto")
    broker = prepare_broker(tmp_path / "broker", free_port(), PASSWORDS, kind="mosquitto")
    made = Plant(broker, tmp_path)
    made.start()
    watch = asyncio.create_task(made.watch(), name="dashboard")
    try:
        yield made
    finally:
        watch.cancel()
        await asyncio.gather(watch, return_exceptions=True)
        made.stop()


@dataclass
class Edge:
    """Dashboards on a real journal."""

    journal: Journal
    values: Values
    health: DashboardHealth
    task: asyncio.Task[None]
    status: dict[str, Any]


@asynccontextmanager
async def edge(
    folder: Path,
    port: int,
    *,
    points: Sequence[str] = (HUMIDITY, PRESSURE),
    rules: Sequence[str] = (HUMIDITY, PRESSURE),
    timeout_s: float = 10.0,
) -> AsyncIterator[Edge]:
    async with Journal(folder / "journal.db", "gw1", (alarm_table.TABLE, ladder_table.TABLE, TABLE)) as journal:
        values, health, status = Values(), DashboardHealth(), {"version": "1"}
        dashboards = Dashboards(
            site="s1",
            gateway="gw1",
            broker=Broker(
                url=f"mqtt://127.0.0.1:{port}", username="gateway", password=PASSWORDS["gateway"], timeout_s=timeout_s
            ),
            journal=journal,
            values=values,
            points=[meta(point, hi=75.0) for point in points],
            rules=[rule(point) for point in rules],
            status=lambda: dict(status),
            health=health,
        )
        task = asyncio.create_task(dashboards.run(), name="dashboards")
        try:
            yield Edge(journal, values, health, task, status)
        finally:
            task.cancel()
            done, _ = await asyncio.wait([task], timeout=20)
            assert done, "the dashboards do not end"


@asynccontextmanager
async def cuttable(port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A TCP link to the broker; setting the event cuts it."""
    cut = asyncio.Event()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.transport.abort()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if cut.is_set():
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        pumps = [asyncio.create_task(pump(reader, far_writer)), asyncio.create_task(pump(far_reader, writer))]
        await cut.wait()
        writer.transport.abort()
        far_writer.transport.abort()
        await asyncio.gather(*pumps, return_exceptions=True)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], cut
    finally:
        cut.set()
        server.close()


async def test_the_tree_of_a_site(plant: Plant, tmp_path: Path, eventually):
    async with edge(tmp_path, plant.broker.port) as made:
        at = now()
        made.values.put([Reading(point=HUMIDITY, value=58.3, quality=Quality.GOOD, at=at)])
        await eventually(lambda: VALUE in plant.retained, "the value")
        value = plant.retained[VALUE]
        assert value == {"v": 58.3, "u": "%RH", "q": "good", "why": "", "ts": utc_text(at.utc_ms), "seq": value["seq"]}
        tree = await plant.tree()
        assert tree[META]["limits"] == {"lolo": None, "lo": None, "hi": 75.0, "hihi": None}
        assert {key: tree[META][key] for key in ("id", "unit", "area", "area_name", "stale_s")} == {
            "id": HUMIDITY,
            "unit": "%RH",
            "area": "aux_store",
            "area_name": "助剂库",
            "stale_s": 180.0,
        }
        assert f"{BASE}/boiler_room/boiler1/pressure/meta" in tree
        assert f"{BASE}/boiler_room/boiler1/pressure/value" not in tree, "nothing was measured: nothing is invented"
        assert tree[STATUS]["online"] is True
        assert tree[STATUS]["boot"] == at.boot
        assert tree[STATUS]["ts"].endswith("Z")
        assert tree[STATE] == {"id": f"{HUMIDITY}.high", "state": "NORM"}
        assert tree[SUMMARY] == {"open": 0, "unacked": 0, "by_priority": dict.fromkeys("1234", 0), "rev": 0}
        assert tree[HEALTH] == {"version": "1"}
        await eventually(
            lambda: {STATUS, HEALTH, SUMMARY, META, STATE} <= set(plant.retained), "a dashboard may read it"
        )
        assert made.health.state == "up"


async def test_an_alarm_on_its_way(plant: Plant, tmp_path: Path, eventually):
    async with edge(tmp_path, plant.broker.port) as made:
        await eventually(lambda: made.health.state == "up", "connected")
        await made.journal.append([draft("raised", "UNACK", priority=2)])
        await eventually(lambda: plant.retained.get(SUMMARY, {}).get("open") == 1, "counted")
        assert plant.retained[STATE] == {**alarm("UNACK", priority=2), "rev": 1}
        assert plant.retained[SUMMARY] == {
            "open": 1,
            "unacked": 1,
            "by_priority": {"1": 0, "2": 1, "3": 0, "4": 0},
            "rev": 1,
        }
        await eventually(plant.events, "told")
        (event,) = plant.events()
        assert (event["seq"], event["kind"], event["key"]) == (1, "alarm.raised", f"s1/gw1/{made.journal.epoch}/1")
        assert f"{BASE}/event/{HUMIDITY}.high" not in await plant.tree(), "an event is not retained"
        await made.journal.append([draft("acked", "ACKED"), draft("closed", "NORM")])
        await eventually(lambda: plant.retained[SUMMARY]["open"] == 0, "closed")
        assert (await plant.tree())[STATE]["state"] == "NORM"


async def test_values_are_refreshed_and_bad_ones_are_shown_as_bad(
    plant: Plant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eventually
):
    monkeypatch.setattr(dashboards_module, "REFRESH_S", 1.5)
    async with edge(tmp_path, plant.broker.port) as made:
        made.values.put([reading(58.3)])
        await eventually(lambda: VALUE in plant.retained, "the value")
        first = plant.retained[VALUE]
        made.values.put([reading(None, quality=Quality.BAD, why="timeout")])
        await eventually(lambda: plant.retained[VALUE]["q"] == "bad", "bad is shown")
        bad = plant.retained[VALUE]
        assert (bad["v"], bad["why"], bad["seq"] > first["seq"]) == (None, "timeout", True)
        made.values.put([reading(58.3, quality=Quality.UNCERTAIN, why="warm_up")])
        await eventually(lambda: plant.retained[VALUE]["q"] == "uncertain", "uncertain is shown")

        def newer() -> bool:
            made.values.put([reading(58.3, quality=Quality.UNCERTAIN, why="warm_up")])
            return plant.retained[VALUE]["ts"] > bad["ts"] and len(values()) >= 5

        def values() -> list[Any]:
            return [payload for topic, payload in plant.seen if topic == VALUE]

        await eventually(newer, "an unchanged value gets a new time now and then", bound_s=15)
        made.status["version"] = "2"
        await eventually(lambda: plant.retained[HEALTH]["version"] == "2", "health is refreshed without any alarm")


async def test_a_silent_point_keeps_its_old_time(plant: Plant, tmp_path: Path, monkeypatch, eventually):
    """The page's rule: grey when `ts` is older than `stale_s`. A refresh must not make an old value look new."""
    monkeypatch.setattr(dashboards_module, "REFRESH_S", 0.1)
    async with edge(tmp_path, plant.broker.port) as made:
        old = now()
        made.values.put([Reading(point=HUMIDITY, value=58.3, quality=Quality.GOOD, at=old)])
        await eventually(lambda: VALUE in plant.retained, "the value")
        count = sum(topic == HEALTH for topic, _ in plant.seen)
        await eventually(lambda: sum(topic == HEALTH for topic, _ in plant.seen) >= count + 2, "two more turns")
        assert plant.retained[VALUE]["ts"] == utc_text(old.utc_ms)


async def test_the_will_says_offline_when_the_connection_is_cut(plant: Plant, tmp_path: Path, eventually):
    async with cuttable(plant.broker.port) as (port, cut), edge(tmp_path, port) as made:
        await eventually(lambda: plant.retained.get(STATUS, {}).get("online") is True, "online")
        cut.set()
        await eventually(lambda: plant.retained[STATUS] == {"online": False}, "the broker tells that we are gone")
        assert (await plant.tree())[STATUS] == {"online": False}, "retained"
        await eventually(lambda: made.health.state == "down", "and so do our pages")
        assert made.health.error


async def test_an_orderly_end_says_offline(plant: Plant, tmp_path: Path, eventually):
    async with edge(tmp_path, plant.broker.port):
        await eventually(lambda: plant.retained.get(STATUS, {}).get("online") is True, "online")
    await eventually(lambda: plant.retained[STATUS] == {"online": False}, lambda: str(plant.retained[STATUS]))


async def test_an_end_in_the_middle_of_the_first_publications_says_offline(plant: Plant, tmp_path: Path, eventually):
    many = [f"aux_store.th1.p{n}" for n in range(1000)]
    async with edge(tmp_path, plant.broker.port, points=many) as made:
        await eventually(lambda: plant.retained.get(STATUS, {}).get("online") is True, "online", every_s=0.005)
        assert made.health.state != "up", "or there is nothing to be seen here"
    await eventually(lambda: plant.retained[STATUS] == {"online": False}, lambda: str(plant.retained[STATUS]))


async def test_a_broker_that_lost_its_memory_has_everything_back(plant: Plant, tmp_path: Path, eventually):
    """Scenario 9 of docs/alarms.md: stopped, wiped, started; events of the outage come once, in order, by key."""
    async with edge(tmp_path, plant.broker.port) as made:
        made.values.put([reading(58.3), reading(0.8, PRESSURE)])
        await eventually(lambda: made.health.state == "up", "connected")
        await made.journal.append([draft("raised", "UNACK")])
        await eventually(lambda: len(plant.events()) == 1, "the first event")
        await eventually(lambda: plant.retained.get(VALUE), "the value")
        before = await plant.tree()
        plant.stop()
        plant.wipe()
        await eventually(lambda: made.health.state == "down", "the loss is noticed")
        changes = [("acked", "UNACK"), ("acked", "ACKED"), ("closed", "NORM")]
        for change, state in changes:
            await made.journal.append([draft(change, state)])
        await made.journal.append([draft("raised", "UNACK", point=PRESSURE)])
        plant.retained.clear()
        since = len(plant.seen)
        plant.start()
        await eventually(lambda: len(plant.events()) == 5, lambda: f"all events: {plant.events()}")
        after = await plant.tree()
        assert set(after) == set(before)
        for topic in before:
            if topic.endswith(("/meta", "/value")):
                assert after[topic] == before[topic], topic
        assert after[STATE]["state"] == "NORM"
        assert after[STATUS]["online"] is True
        keys = [event["key"] for event in plant.events()]
        assert keys == [f"s1/gw1/{made.journal.epoch}/{seq}" for seq in range(1, 6)]
        states = [payload["state"] for topic, payload in plant.seen[since:] if topic == STATE]
        assert set(states) == {"NORM"}, "the retained state never goes back in time"


async def test_events_of_a_time_when_no_edge_ran_are_published(plant: Plant, tmp_path: Path, eventually):
    """Committed, then killed before the announcement."""
    async with edge(tmp_path, plant.broker.port) as made:
        await eventually(lambda: made.health.state == "up", "connected")
        await made.journal.append([draft("raised", "UNACK")])
        await eventually(lambda: len(plant.events()) == 1, "the first event")
        sql = "SELECT seq FROM mqtt_cursor"
        await eventually(lambda: _first(made.journal, sql, 1), "the cursor is committed")
    async with Journal(tmp_path / "journal.db", "gw1", (alarm_table.TABLE, ladder_table.TABLE, TABLE)) as journal:
        await journal.append([draft("acked", "ACKED"), draft("closed", "NORM")])
    async with edge(tmp_path, plant.broker.port):
        await eventually(lambda: len(plant.events()) == 3, "the other two")
    assert [event["seq"] for event in plant.events()] == [1, 2, 3]


async def _first(journal: Journal, sql: str, wanted: int) -> bool:
    row = await journal.query(lambda c: c.execute(sql).fetchone())
    return row is not None and row[0] == wanted


async def test_what_was_taken_out_is_emptied(plant: Plant, tmp_path: Path, eventually):
    gone = f"{BASE}/alarm/{PRESSURE}.high/state"
    async with edge(tmp_path, plant.broker.port) as made:
        made.values.put([reading(58.3), reading(0.8, PRESSURE)])
        await eventually(lambda: made.health.state == "up", "connected")
        await made.journal.append([draft("raised", "UNACK")])
        await eventually(lambda: {VALUE, gone} <= set(plant.retained), "all there")
        pressure = f"{BASE}/boiler_room/boiler1/pressure"
        await eventually(lambda: f"{pressure}/value" in plant.retained, "all there")
        await eventually(lambda: _first(made.journal, "SELECT count(*) FROM mqtt_topic", 9), "the topics are noted")
    async with edge(tmp_path, plant.broker.port, points=[HUMIDITY], rules=[]) as made:
        await made.journal.append([draft("closed", "NORM", reason="rule_removed")])
        await eventually(lambda: [e["seq"] for e in plant.events()][-1:] == [2], "its end is told")
        await eventually(lambda: _first(made.journal, "SELECT count(*) FROM mqtt_topic", 5), "the topics are noted")
        tree = await plant.tree()
        assert gone not in tree, "a rule that never had an alarm"
        assert STATE not in tree, "a rule with an open alarm"
        assert f"{pressure}/value" not in tree
        assert f"{pressure}/meta" not in tree
        assert META in tree


def ladder(*kinds: str, number: int = 1) -> list[Draft]:
    """Records of one alarm's ladder, as the daemon makes them."""
    at = Instant(utc_ms=1_790_000_000_000, mono_s=5.0, boot="b")
    subject = Subject(kind="alarm", id=f"{HUMIDITY}.high", occurrence=number, area="a", name="n", name_en="n")
    climb = begin(subject, STANDARD, at, Wall.at_start(None, at))
    bodies: dict[str, dict[str, Any]] = {
        "ladder.started": {"ladder": climb.to_json()},
        "ladder.paused": {"ladder": replace(climb, paused="suppressed").to_json()},
        "ladder.stopped": {"subject": subject.to_json(), "why": "closed"},
        "freeze.set": {"freeze": of_ladder(subject, at).to_json()},
        "freeze.released": {"freeze": replace(of_ladder(subject, at), released={"person": "chen"}).to_json()},
    }
    return [Draft(kind=kind, at=at, actor="gateway", body=bodies[kind]) for kind in kinds]


LADDER = f"{BASE}/alarm/{HUMIDITY}.high/ladder"
FREEZE = f"{BASE}/freeze/alarm/{HUMIDITY}.high/1"


async def test_a_ladder_and_a_freeze_stand_as_long_as_they_do(plant: Plant, tmp_path: Path, eventually):
    async with edge(tmp_path, plant.broker.port) as made:
        await eventually(lambda: made.health.state == "up", "connected")
        await made.journal.append(ladder("ladder.started"))
        await eventually(lambda: plant.retained.get(LADDER), "the ladder is shown")
        shown = plant.retained[LADDER]
        assert (shown["colour"], shown["climbed"], shown["of"], shown["paused"]) == ("yellow", 1, 4, "")
        assert (shown["next"]["at"], shown["next"]["add"]) == ("2026-09-21T16:13:20.000Z", ["sms"])
        await made.journal.append(ladder("ladder.paused"))
        await eventually(lambda: plant.retained[LADDER]["paused"] == "suppressed", "paused, visibly")
        assert plant.retained[LADDER]["next"]["at"] is None
        await made.journal.append(ladder("freeze.set"))
        await eventually(lambda: plant.retained.get(FREEZE), "the freeze is shown")
        assert plant.retained[FREEZE]["area"] == "a"
        await made.journal.append(ladder("ladder.stopped"))
        await eventually(lambda: plant.retained[LADDER] is None, "the ladder is over")
        assert plant.retained[FREEZE], "a freeze outlives its ladder"
        await made.journal.append(ladder("freeze.released"))
        await eventually(lambda: plant.retained[FREEZE] is None, "released")
        assert not {LADDER, FREEZE} & set(await plant.tree())


async def test_a_ladder_that_ended_while_the_broker_was_away_leaves_nothing(plant: Plant, tmp_path: Path, eventually):
    async with edge(tmp_path, plant.broker.port) as made:
        await eventually(lambda: made.health.state == "up", "connected")
        await made.journal.append(ladder("ladder.started", "freeze.set"))
        await eventually(lambda: plant.retained.get(LADDER) and plant.retained.get(FREEZE), "both are shown")
    async with Journal(tmp_path / "journal.db", "gw1", (alarm_table.TABLE, ladder_table.TABLE, TABLE)) as journal:
        await journal.append(ladder("ladder.stopped"))
    async with edge(tmp_path, plant.broker.port):
        await eventually(lambda: plant.retained[LADDER] is None, "emptied by the next process")
        tree = await plant.tree()
        assert LADDER not in tree
        assert tree[FREEZE]["released"] is None


async def test_a_fault_of_the_system_is_shown_while_it_is_open(plant: Plant, tmp_path: Path, eventually):
    topic = f"{BASE}/alarm/system.disk/state"

    def fault(state: str) -> Draft:
        body = {"alarm": {**alarm(state), "id": "system.disk"}, "reason": "condition", "notify": []}
        return Draft(kind="alarm.raised", at=now(), actor="gateway", body=body)

    async with edge(tmp_path, plant.broker.port) as made:
        await made.journal.append([fault("UNACK")])
        await eventually(lambda: plant.retained.get(topic), "shown, although site.toml has no such rule")
    async with edge(tmp_path, plant.broker.port) as made:
        await eventually(lambda: made.health.state == "up", "connected")
        assert (await plant.tree())[topic]["state"] == "UNACK"
        await made.journal.append([fault("NORM")])
        await eventually(lambda: plant.retained[topic] is None, "over")


async def test_a_broker_that_accepts_but_never_confirms(tmp_path: Path, eventually):
    """It is down for us, and costs nobody else anything."""
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read(4096)
        writer.write(b"\x20\x02\x00\x00")
        with contextlib.suppress(OSError):
            while await reader.read(4096):
                pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        async with edge(tmp_path, server.sockets[0].getsockname()[1], timeout_s=0.3) as made:
            made.values.put([reading(58.3)])
            await eventually(lambda: connections >= 2, "it is tried again")
            assert made.health.state == "down"
            assert "timed out" in made.health.error
            beat_s = made.health.beat_s
            await eventually(lambda: made.health.beat_s > beat_s, "the loop turns")
            assert not made.task.done()
            await made.journal.append([draft("raised", "UNACK")])
    finally:
        server.close()


async def test_nobody_listens_and_a_wrong_password(plant: Plant, tmp_path: Path, monkeypatch, free_port, eventually):
    async with edge(tmp_path, free_port()) as made:
        await eventually(lambda: made.health.error, "the error is shown")
        assert made.health.state == "down"
    monkeypatch.setitem(PASSWORDS, "gateway", "wrong")
    async with edge(tmp_path, plant.broker.port) as made:
        await eventually(lambda: made.health.error, "the error is shown")
        assert "uthori" in made.health.error, made.health.error
        assert not made.task.done()


async def test_the_loss_is_logged_once(plant: Plant, tmp_path: Path, caplog, eventually):
    async with edge(tmp_path, plant.broker.port) as made:
        await eventually(lambda: made.health.state == "up", "up")
        plant.stop()
        await eventually(lambda: made.health.state == "down", "noticed with nothing to publish", bound_s=10)
        beat_s = made.health.beat_s
        await eventually(lambda: made.health.beat_s > beat_s + 1, "tried again")
        told = [each for each in caplog.records if each.name.endswith("dashboards") and each.levelname == "WARNING"]
        assert len(told) == 1
        plant.start()
        await eventually(lambda: made.health.state == "up", "up again")
        assert mono_s() - made.health.since.mono_s < 20
