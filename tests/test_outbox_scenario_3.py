"""Scenario 3: one of two cannot be reached. Real robot over HTTP, a modem on a pty; the clock jumps."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from sitewarden import words
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.machine import State
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alerts.replies import Desk, Replies
from sitewarden.edge.alerts.robots import WecomRobot, WecomSettings
from sitewarden.edge.alerts.rows import Settings
from sitewarden.edge.alerts.sms.memory import FileMemory
from sitewarden.edge.alerts.sms.modem import SmsModem, SmsSettings
from sitewarden.sync.journal import Draft
from sitewarden.tests.peers.alert_doubles import (
    PEOPLE,
    FakeChannel,
    Running,
    failed,
    in_virtual_time,
    notify,
    running,
    states,
)
from sitewarden.tests.peers.fake_modem import FakeModem, encode_deliver
from sitewarden.tests.peers.robot_servers import TOKEN, RobotServers
from sitewarden.words import Quality, Reading

LEVEL = Level(kind=Kind.HI, limit=75.0, priority=2)
RULE = Rule(
    id="aux_store.th1.humidity.high",
    point="aux_store.th1.humidity",
    area="aux_store",
    side=Side.HIGH,
    name="助剂库湿度",
    name_en="Aux store humidity",
    unit="%RH",
    levels=(LEVEL,),
)


class Alarms:
    """The alarm engine; its records name whom to tell: the keeper and the officer, each on their first way."""

    def __init__(self) -> None:
        self.engine = Engine([RULE], {}, words.now())
        self.journal: Any = None

    async def commit(self, drafts: list[Draft]) -> None:
        for draft in drafts:
            told = ["li@keepers", "wang@officers"] if draft.kind == "alarm.raised" else []
            draft.body["notify"] = notify(draft.kind, told)
        await self.journal.append(drafts)

    async def raise_it(self) -> None:
        reading = Reading(point=RULE.point, value=80.0, quality=Quality.GOOD, at=words.now())
        await self.commit(self.engine.read(reading, words.now()))

    async def acknowledge(self, alarm_id: str, occurrence: int, role: str, person: str) -> None:
        await self.commit(self.engine.acknowledge(alarm_id, occurrence, role, person, words.now()))

    async def find(self, number: int) -> dict[str, Any] | None:
        alarm = self.engine.alarm(RULE.id)
        acks = [{"role": ack.role, "person": ack.person} for ack in alarm.acks]
        fields = {"id": alarm.id, "occurrence": number, "state": alarm.state.value, "area": RULE.area}
        return {**fields, "required_acks": list(alarm.required_acks), "acks": acks}

    @property
    def state(self) -> State:
        return self.engine.alarm(RULE.id).state

    def desk(self, **channels: Any) -> Replies:
        async def record(draft: Draft) -> None:
            await self.journal.append([draft])

        return Replies(
            Desk(
                people=PEOPLE,
                find=self.find,
                may_act=lambda person, role, _area, _at: role in PEOPLE[person].roles,
                acknowledge=self.acknowledge,
                record=record,
                channel=lambda: "sms",
                channels=channels,
            )
        )


def ways(_: object, person: str) -> tuple[str, ...]:
    return ("keepers", "sms") if person == "li" else ("officers", "sms")


async def seconds_after(made: Running, kind: str) -> list[tuple[float, str, bool]]:
    records = await made.journal.read(0, 10_000)
    began = records[0].at["mono"]
    return [
        (round(record.at["mono"] - began, 1), record.body["channel"], record.body.get("all_ways", False))
        for record in records
        if record.kind == kind
    ]


def test_scenario_3_one_of_two_is_not_reached_and_the_horn_sounds_within_a_minute(tmp_path: Path):
    """The officer's robot answers HTTP 200 and errcode 45009, the modem +CMS ERROR 500."""
    path = tmp_path / "journal.db"

    async def main() -> None:
        servers = RobotServers()
        servers.groups["wecom"].refusal = {"errcode": 45009, "errmsg": "api freq out of limit"}
        sms = FakeChannel(lambda _: failed("+CMS ERROR: 500"))
        keepers = FakeChannel()
        async with servers.running():
            officers = WecomRobot(WecomSettings(key=TOKEN, base_url=servers.base("wecom")), clock=lambda: words.now())
            alarms = Alarms()
            channels = {"keepers": keepers, "officers": officers, "sms": sms}
            desk = alarms.desk(**channels)
            async with officers, running(path, channels, ways=ways, settings=Settings(), answer=desk.take) as made:
                alarms.journal = made.journal
                await alarms.raise_it()
                await asyncio.sleep(5)
                assert states(path)["alarm.raised-li@keepers"] == "ACCEPTED", "the keeper is done"
                made.outbox.reply("13800138001", "1")
                await asyncio.sleep(60)
                failing = await seconds_after(made, "delivery.failing")
                assert failing == [(60.0, "officers", False), (60.0, "sms", True)], "the horn: within a minute"
                assert made.health.unreached == ("wang",)
                asked, tried = servers.groups["wecom"].asked, len(sms.got)
                await asyncio.sleep(600)
                assert servers.groups["wecom"].asked > asked, "the officer's robot is tried again"
                assert len(sms.got) > tried, "and so is the SMS"
                assert len(keepers.got) == 1, "the keeper is not told again"
                assert alarms.state is State.UNACK, "one acknowledgement of two"
                servers.groups["wecom"].refusal = None
                await asyncio.sleep(130)
                assert states(path)["alarm.raised-wang@officers"] == "ACCEPTED"
                assert alarms.state is State.UNACK, "told is not acknowledged"
                made.outbox.reply("+8613800138002", "确认 1")
                await asyncio.sleep(5)
                assert alarms.state is State.ACKED
                assert len(servers.groups["wecom"].taken) == 1

    in_virtual_time(main)


@pytest.mark.parametrize("answer", ["1", "确认 1"])
async def test_the_modem_refuses_then_takes_proves_and_brings_the_acknowledgement(
    tmp_path: Path, eventually, answer: str
):
    """+CMS ERROR 500 for both tries of the first attempt; then the SMS arrives, is proven, and answered."""
    path = tmp_path / "journal.db"
    with FakeModem(tmp_path) as modem:
        modem.submits = ["+CMS ERROR: 500"]
        alarms = Alarms()
        holder: list[Any] = []

        class Events:
            def report(self, receipt: str, delivered: bool, detail: str) -> None:
                holder[0].report(receipt, delivered, detail)

            def reply(self, phone: str, text: str, sent_ms: int | None = None) -> None:
                holder[0].reply(phone, text, sent_ms)

        memory = FileMemory(tmp_path / "sms.json")
        settings = SmsSettings(
            port=str(modem.path), memory=memory, answer_s=3.0, submit_s=10.0, register_s=1.0, pause_s=0.05
        )
        quick = Settings(retry_base_s=0.2, retry_cap_s=0.5)
        async with SmsModem(settings, Events()) as sms:
            channels = {"keepers": sms, "officers": FakeChannel(), "sms": sms}
            desk = alarms.desk(**channels)
            async with running(path, channels, ways=ways, settings=quick, answer=desk.take) as made:
                holder.append(made.outbox)
                alarms.journal = made.journal
                await alarms.raise_it()
                key = "alarm.raised-li@keepers"
                await eventually(lambda: states(path)[key] == "DELIVERED", "proven by the phone", bound_s=60)
                (_, text), *_ = modem.messages
                assert text.startswith("【橙】【二级】")
                assert "报警号1" in text[:70]
                modem.receive(encode_deliver("+8613800138001", answer))
                await eventually(lambda: alarms.engine.alarm(RULE.id).acks, "acknowledged by SMS", bound_s=60)
                await eventually(lambda: len(modem.messages) == 2, "answered", bound_s=60)
                assert modem.messages[1] == ("+8613800138001", "【回复】已确认报警 1。")
                assert (await made.bodies("reply.received"))[0]["outcome"] == "acknowledged"
        assert sms.health.failed == 1
        assert [ack.person for ack in alarms.engine.alarm(RULE.id).acks] == ["li"]
