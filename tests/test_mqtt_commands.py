"""Commands over MQTT: a real broker with the demo's access list, real rules on a real journal."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiomqtt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.demo.broker import USERS, prepare_broker
from sitewarden.edge.acting import Acting
from sitewarden.edge.alarms import table as alarm_table
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.dashboards import TABLE, Broker, DashboardHealth, Dashboards
from sitewarden.edge.ladders import table as ladder_table
from sitewarden.edge.ladders.climb import Wall
from sitewarden.edge.ladders.keeper import Ladders
from sitewarden.edge.mqtt_commands import COMMANDS, LONGEST_S, MOST_BYTES, Commands, Judge
from sitewarden.edge.pipeline import Pipeline, PipelineHealth
from sitewarden.edge.values import Values
from sitewarden.errors import RefusedError
from sitewarden.serving.people import Person
from sitewarden.sync.history import History
from sitewarden.sync.journal import Journal
from sitewarden.words import Instant, Quality, Reading, now, utc_text

BASE = "sw/v1/s1"
ALARM = "store.th1.humidity.high"
PASSWORDS = {user: f"password-of-{user}" for user in USERS}
RULE = Rule(
    id=ALARM,
    point="store.th1.humidity",
    area="store",
    side=Side.HIGH,
    name="湿度",
    name_en="humidity",
    unit="%RH",
    levels=(Level(kind=Kind.HI, limit=75.0, priority=3, latching=True),),
    required_acks=("keeper", "officer"),
)
LI = Person(id="li", name="李", name_en="Li", roles=("keeper",), areas=("store",))
WANG = Person(id="wang", name="王", name_en="Wang", roles=("officer", "control_room"), areas=("*",))
SUN = Person(id="sun", name="孙", name_en="Sun", roles=("keeper",), areas=("pit",))


def command(nonce: str, *, valid_s: float = 60.0, **fields: Any) -> bytes:
    expires = utc_text(now().utc_ms + round(valid_s * 1000))
    return json.dumps({"nonce": nonce, "expires_at": expires, "id": ALARM, **fields}).encode()


# --- the judge alone ---------------------------------------------------------------------------------------------


def at(s: float = 0.0) -> Instant:
    return Instant(utc_ms=1_790_000_000_000 + round(s * 1000), mono_s=10 + s, boot="b")


def judged(judge: Judge, payload: bytes, what: str = "ack", *, retained: bool = False, s: float = 0.0) -> str:
    try:
        judge.judge("panel", what, payload, retained=retained, now=at(s))
    except RefusedError as error:
        return error.reason
    return "ok"


def payload(nonce: str = "nonce-0001", valid_s: float = 60.0, **fields: Any) -> bytes:
    body = {"id": ALARM, "occurrence": 1, "nonce": nonce, "expires_at": utc_text(at(valid_s).utc_ms), **fields}
    return json.dumps({key: value for key, value in body.items() if value != "left out"}).encode()


def test_a_command_of_now_that_comes_once_is_one() -> None:
    judge = Judge()
    assert judged(judge, payload()) == "ok"
    assert judged(judge, payload()) == "replayed"
    assert judged(judge, payload("nonce-0002")) == "ok"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (payload(valid_s=0), "expired"),
        (payload(valid_s=-3600), "expired"),
        (payload(valid_s=LONGEST_S + 1), "too_long"),
        (payload(expires_at="tomorrow"), "malformed"),
        (payload(expires_at="2026-11-22T13:06:31"), "malformed"),
        (payload(expires_at=7), "malformed"),
        (payload(nonce="short"), "malformed"),
        (payload(nonce="x" * 65), "malformed"),
        (payload(nonce="left out"), "malformed"),
        (payload(occurrence="1"), "malformed"),
        (payload(occurrence=True), "malformed"),
        (payload(role=7), "malformed"),
        (b"[]", "malformed"),
        (b"\xff", "malformed"),
        (b"[" * 2000, "malformed"),
        (payload(more="x" * MOST_BYTES), "malformed"),
    ],
)
def test_anything_else_is_refused_with_its_reason(message: bytes, reason: str) -> None:
    assert judged(Judge(), message) == reason


def test_retained_and_unknown_ones_are_refused() -> None:
    assert judged(Judge(), payload(), retained=True) == "retained"
    assert judged(Judge(), payload(), "freeze") == "unknown_command"


def test_a_nonce_is_remembered_as_long_as_its_command_could_be_valid() -> None:
    judge = Judge()
    assert judged(judge, payload(valid_s=LONGEST_S)) == "ok"
    assert judged(judge, payload(valid_s=LONGEST_S), s=LONGEST_S - 1) == "replayed"
    assert judged(judge, payload(valid_s=LONGEST_S), s=LONGEST_S + 1) == "expired"


@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(lambda v: json.dumps(v).encode())
)
def test_whatever_is_sent_is_judged_and_never_a_crash(message: bytes) -> None:
    for what in COMMANDS:
        assert judged(Judge(), message, what) == "malformed"


# --- over a broker -----------------------------------------------------------------------------------------------


@dataclass
class Desk:
    """A gateway's dashboards with commands, and a panel that signs in as `dashboard`."""

    pipeline: Pipeline
    port: int
    connect_again: Callable[[], Awaitable[None]]
    person: Person | None = WANG
    silenced: list[str] = field(default_factory=list)

    def client(self, user: str) -> aiomqtt.Client:
        return aiomqtt.Client("127.0.0.1", self.port, username=user, password=PASSWORDS[user], timeout=10)

    async def ask(self, what: str, message: bytes, *, retain: bool = False) -> dict[str, Any]:
        async with self.client("dashboard") as client:
            await client.subscribe(f"{BASE}/rsp/dashboard", qos=1)
            await client.publish(f"{BASE}/cmd/dashboard/{what}", message, qos=1, retain=retain)
            async with asyncio.timeout(20):
                async for answer in client.messages:
                    assert isinstance(answer.payload, bytes)
                    return json.loads(answer.payload)
        raise AssertionError("no answer")

    def state(self) -> str:
        return self.pipeline.engine.alarm(ALARM).state.value


@pytest.fixture
async def desk(tmp_path: Path, need, free_port, eventually) -> AsyncIterator[Desk]:
    need("mosquitto", "apt install mosquitto")
    prepared = prepare_broker(tmp_path / "broker", free_port(), PASSWORDS, kind="mosquitto")
    process = subprocess.Popen(prepared.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    async with (
        Journal(tmp_path / "journal.db", "gw1", (alarm_table.TABLE, ladder_table.TABLE, TABLE)) as journal,
        History(tmp_path / "history.db", "gw1", flush_s=60) as history,
    ):
        values, health = Values(), DashboardHealth()
        ladders = Ladders({}, {}, lambda _: None, Wall.at_start(None, now()))
        pipeline = Pipeline(
            Engine([RULE], {}, now()), journal, history, values, ladders, notify=lambda _: [], health=PipelineHealth()
        )
        made = Desk(pipeline, prepared.port, lambda: connect())

        commands = Commands(
            Judge(),
            Acting(pipeline),
            lambda user: made.person if user == "dashboard" else None,
            lambda person: made.silenced.append(person.id),
        )
        dashboards = Dashboards(
            site="s1",
            gateway="gw1",
            broker=Broker(url=f"mqtt://127.0.0.1:{prepared.port}", username="gateway", password=PASSWORDS["gateway"]),
            journal=journal,
            values=values,
            points=[],
            rules=[RULE],
            status=dict,
            health=health,
            answer=lambda user, what, message, retained: commands.answer(
                user, what, message, retained=retained, now=now()
            ),
        )
        running: dict[str, asyncio.Task[None]] = {"commit": asyncio.create_task(pipeline.commit())}

        async def connect() -> None:
            if (before := running.pop("dashboards", None)) is not None:
                before.cancel()
                await asyncio.wait([before], timeout=20)
                health.set("down")
            running["dashboards"] = asyncio.create_task(dashboards.run())
            await eventually(lambda: health.state == "up", "connected")

        try:
            await connect()
            pipeline.accept([Reading(point=RULE.point, value=80.0, quality=Quality.GOOD, at=now())])
            yield made
        finally:
            for task in running.values():
                task.cancel()
            await asyncio.wait(running.values(), timeout=20)
            process.kill()
            process.wait(20)


async def test_a_panel_acknowledges_as_the_person_it_stands_for(desk: Desk):
    said = await desk.ask("ack", command("nonce-0001", occurrence=1))
    assert said == {"what": "ack", "nonce": "nonce-0001", "ok": True}
    (ack,) = desk.pipeline.engine.alarm(ALARM).acks
    assert (ack.person, ack.role) == ("wang", "officer")


async def test_replayed_expired_retained_and_forged_acknowledgements_change_nothing(desk: Desk, eventually):
    first = command("nonce-0001", occurrence=1)
    assert (await desk.ask("ack", first))["ok"]
    assert (await desk.ask("ack", first))["reason"] == "replayed"
    desk.person = LI
    assert (await desk.ask("ack", command("nonce-0002", occurrence=1, valid_s=-1)))["reason"] == "expired"
    async with desk.client("dashboard") as forger:  # the access list drops what is published in somebody else's name
        await forger.publish(f"{BASE}/cmd/gateway/ack", command("nonce-0003", occurrence=1), qos=1)
    assert (await desk.ask("ack", command("nonce-0004", occurrence=7)))["reason"] == "old_occurrence"
    assert [ack.person for ack in desk.pipeline.engine.alarm(ALARM).acks] == ["wang"]
    desk.person = None
    assert (await desk.ask("ack", command("nonce-0005", occurrence=1)))["reason"] == "unknown_user"


async def test_a_retained_command_from_before_is_refused_when_the_gateway_comes(desk: Desk, eventually):
    """The broker hands it over as retained to whoever subscribes."""
    desk.person = None
    said = await desk.ask("ack", command("nonce-0009", occurrence=1), retain=True)
    assert said["reason"] == "unknown_user", "nobody yet; it stays at the broker"
    desk.person = LI
    async with desk.client("dashboard") as client:
        await client.subscribe(f"{BASE}/rsp/dashboard", qos=1)
        await desk.connect_again()
        async with asyncio.timeout(20):
            answer = await anext(aiter(client.messages))
    assert isinstance(answer.payload, bytes)
    assert json.loads(answer.payload)["reason"] == "retained"
    assert desk.pipeline.engine.alarm(ALARM).acks == ()


async def test_who_may_not_is_told_why(desk: Desk):
    desk.person = SUN
    said = await desk.ask("ack", command("nonce-0001", occurrence=1))
    assert (said["ok"], said["reason"]) == (False, "not_your_area")
    assert said["hint"] == "call the person who answers for this area"
    assert (await desk.ask("reset", command("nonce-0002", occurrence=1)))["reason"] == "not_your_role"
    assert (await desk.ask("shelve", command("nonce-0003", minutes=10, why="is cleaned")))["reason"] == "not_your_area"
    assert (await desk.ask("unshelve", command("nonce-0004")))["reason"] == "not_your_area"
    assert (await desk.ask("ack", command("nonce-0005", occurrence=1, id="no.such")))["reason"] == "no_such_alarm"
    assert desk.state() == "UNACK"


async def test_shelve_unshelve_reset_and_silence(desk: Desk, eventually):
    assert (await desk.ask("shelve", command("nonce-0001", minutes=10, why="is cleaned")))["ok"]
    overlay = desk.pipeline.engine.alarm(ALARM).overlay
    assert overlay is not None
    assert (overlay.for_s, overlay.why, overlay.who) == (600, "is cleaned", "wang")
    assert (await desk.ask("unshelve", command("nonce-0002")))["ok"]
    desk.person = LI
    assert (await desk.ask("ack", command("nonce-0003", occurrence=1)))["ok"]
    desk.person = WANG
    assert (await desk.ask("ack", command("nonce-0004", occurrence=1, role="officer")))["ok"]
    assert (await desk.ask("reset", command("nonce-0005", occurrence=1)))["reason"] == "still_on"
    desk.pipeline.accept([Reading(point=RULE.point, value=60.0, quality=Quality.GOOD, at=now())])
    assert (await desk.ask("reset", command("nonce-0006", occurrence=1)))["ok"]
    assert desk.state() == "NORM"
    assert (await desk.ask("silence", command("nonce-0007")))["ok"]
    assert desk.silenced == ["wang"]
