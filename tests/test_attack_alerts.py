"""People are told and faults stay what they are: also by odd ways, with odd words, and with clocks that jump."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sitewarden.edge import auditor
from sitewarden.edge.acting import Acting
from sitewarden.edge.alarms.overlay import SHELVE_MOST_S, Overlay
from sitewarden.edge.alerts.digest import Batch
from sitewarden.edge.alerts.message import Composer
from sitewarden.edge.alerts.outbox import Outbox
from sitewarden.edge.alerts.port import Notice, Receiver
from sitewarden.edge.alerts.recipients import NO_WAY, Addressing, recipients
from sitewarden.edge.alerts.robots import (
    DingtalkRobot,
    DingtalkSettings,
    FeishuRobot,
    FeishuSettings,
    Robot,
    WecomRobot,
    WecomSettings,
)
from sitewarden.edge.alerts.roster import Roster
from sitewarden.edge.alerts.routing import Way
from sitewarden.edge.alerts.rows import ANSWER, Row, Settings
from sitewarden.edge.alerts.unreached import Unreached
from sitewarden.edge.control import ask_gateway
from sitewarden.edge.ladders.climb import Subject, Wall
from sitewarden.edge.ladders.keeper import Ladders, Standing
from sitewarden.edge.ladders.plan import STANDARD, SYSTEM
from sitewarden.edge.mqtt_commands import Commands, Judge
from sitewarden.edge.running import Current
from sitewarden.edge.site_reader import read_site
from sitewarden.edge.watching import Watching
from sitewarden.errors import ConfigError
from sitewarden.serving.people import Person
from sitewarden.tests.peers.alert_doubles import OK, QUICK, FakeChannel, alarm, failed, in_virtual_time, raised, running
from sitewarden.tests.test_edge_api import PEOPLE, SITE, Site
from sitewarden.words import ClockState, Instant, now, utc_text

MODEM = """
[[channel]]
id = "sms"
kind = "sms"
serial = "/dev/modem"
"""
GROUP = """
[[channel]]
id = "group"
kind = "wecom"
key_file = "key"
[[channel]]
id = "hook"
kind = "webhook"
url = "http://127.0.0.1:9/"
roles = ["officer"]
"""


def current(folder: Path, port: int, extra: str, channels: str) -> Current:
    """A site that runs."""
    text = SITE.format(port=port, modbus=1, hi=75.0).replace("[alerts]", f"[alerts]\nchannels = {channels}")
    (folder / "site.toml").write_text(text + extra, "utf-8")
    (folder / "people.csv").write_text(PEOPLE.replace("aux_store,\n", "aux_store,13800138001\n"), "utf-8")
    (folder / "key").write_text("693a91f6-7xxx-4bc4-97a0-0ec2sifa5aaa", "utf-8")
    (folder / "key").chmod(0o600)
    return Current(read_site(folder / "site.toml", folder), "epoch")


def test_an_answer_to_a_reply_has_ways_though_it_is_about_nothing(tmp_path: Path, free_port: Callable[[], int]):
    """Else whoever answers by SMS would end the daemon, and its row would end it again at each start."""
    made = current(tmp_path, free_port(), MODEM, '["sms"]')
    facts = {"person": "li", "text": "1", "answer": {}, "priority": 2, "kind": ANSWER, "role": ""}
    assert made.ways(facts, "li") == ("sms",)


def test_who_was_told_in_a_group_is_reached_by_a_channel_for_their_role(tmp_path: Path, free_port: Callable[[], int]):
    made = current(tmp_path, free_port(), GROUP, '["group", "hook"]')
    facts = {"alarm": {"area": "aux_store"}, "kind": "alarm.raised", "role": ""}
    assert made.ways(facts, "wang") == ("group", "hook")


# --- commands over MQTT ---


class Engine:
    """Takes what commands ask for."""

    def __init__(self) -> None:
        self.covered: list[Overlay] = []

    async def cover(self, _person: Person, _alarm: str, overlay: Callable[[Instant], Overlay]) -> None:
        self.covered.append(overlay(now()))


async def shelved(minutes: str, why: str) -> tuple[dict[str, Any], list[Overlay]]:
    engine = Engine()
    person = Person(id="li", name="李", name_en="Li", roles=("keeper",), areas=("*",))
    commands = Commands(Judge(), cast("Acting", engine), lambda _: person, lambda _: None)
    until = utc_text(now().utc_ms + 60_000)
    payload = f'{{"id":"a","minutes":{minutes},"why":"{why}","nonce":"nonce-0001","expires_at":"{until}"}}'
    return await commands.answer("u", "shelve", payload.encode(), retained=False, now=now()), engine.covered


async def test_a_command_with_half_a_character_is_refused():
    """Nothing can store it: the commit would end the daemon."""
    said, covered = await shelved("5", "\\ud800\\ud800\\ud800\\ud800")
    assert (said["ok"], said["reason"]) == (False, "malformed")
    assert not covered


async def test_a_command_for_more_minutes_than_a_number_holds_is_judged_like_others():
    """Else it would end the link to the broker."""
    _, (overlay,) = await shelved("1" + "0" * 3000, "sensor is cleaned")
    assert overlay.for_s is not None
    assert overlay.for_s > SHELVE_MOST_S


# --- whom nobody reaches ---


def test_who_is_not_reached_stays_so_while_the_next_reminder_is_on_its_way():
    """Else `delivery_failed` would return and come again with each repeat and each step of a ladder."""
    made = Unreached()
    alarm = {"id": "a.b.c.high", "occurrence": 1, "state": "UNACK"}
    late = {"about": "a.b.c.high", "occurrence": 1, "unreached": ["li"]}
    made.see("alarm.raised", 1, {"alarm": alarm, "notify": [{"key": "first", "person": "li"}]})
    made.see("delivery.failing", 2, {"key": "first", **late})
    assert list(made.failed()) == ["li"]
    made.see("alarm.repeated", 3, {"alarm": alarm, "notify": [{"key": "again", "person": "li"}]})
    assert list(made.failed()) == ["li"], "told again is not reached"
    made.see("delivery.accepted", 4, {"key": "again", "person": "li"})
    assert not made.failed()


def test_a_way_that_is_opened_with_the_refusal_of_another_is_no_failure_yet():
    made = Unreached()
    alarm = {"id": "a.b.c.high", "occurrence": 1, "state": "UNACK"}
    made.see("alarm.raised", 1, {"alarm": alarm, "notify": [{"key": "first", "person": "li"}]})
    made.see("delivery.dead", 2, {"key": "first", "person": "li"})
    made.see("delivery.fallback", 3, {"key": "first", "notify": [{"key": "sms", "person": "li"}]})
    assert not made.failed()


# --- clocks that jump ---

NOON_MS, HOUR_MS, YEAR_MS = 1_790_000_000_000, 3_600_000, 365 * 86_400_000
HUMID = Subject(kind="alarm", id="a.b.c.high", occurrence=1, area="a")


def at(utc_ms: int, mono_s: float, boot: str, clock: ClockState = ClockState.UNSYNCED) -> Instant:
    return Instant(utc_ms=utc_ms, mono_s=mono_s, boot=boot, clock=clock)


def begun(wall: Wall, instant: Instant) -> Ladders:
    ladders = Ladders({}, {}, lambda _: STANDARD, wall)
    ladders.follow(Standing(subject=HUMID, open=True, unacked=True, on=True, begins=True), instant)
    return ladders


def stepped(ladders: Ladders, instant: Instant) -> None:
    ladders.clock_stepped(instant.boot, instant.mono_s, ladders.wall.believed_ms(instant))


def rebooted(ladders: Ladders, alive: Instant, instant: Instant) -> list[int]:
    """Which rungs are climbed at the next start."""
    after = Ladders(ladders.climbs, {}, lambda _: STANDARD, Wall.at_start(alive, instant))
    return [draft.body["step"]["n"] for draft in after.start(instant) if draft.kind == "ladder.step"]


def test_a_clock_that_was_set_back_ten_years_freezes_nothing_at_the_next_boot():
    first = at(NOON_MS, 100, "b1")
    ladders = begun(Wall.at_start(None, first), first)
    set_back = at(NOON_MS - 10 * YEAR_MS, 700, "b1", ClockState.STEPPED)
    stepped(ladders, set_back)
    alive = ladders.wall.alive(set_back)
    assert rebooted(ladders, alive, at(NOON_MS - 10 * YEAR_MS + 60_000, 20, "b2")) == [1], "the next one that tells"


def test_a_ladder_that_began_before_the_clock_was_known_climbs_after_a_boot():
    """A board without a clock begins in 1970, until the network says what time it is."""
    ladders = begun(Wall.at_start(at(NOON_MS, 100, "b0"), at(0, 10, "b1")), at(1_000, 11, "b1"))
    stepped(ladders, at(NOON_MS + HOUR_MS, 20, "b1", ClockState.SYNCED))
    alive = at(NOON_MS + 2 * HOUR_MS, 3_600, "b1", ClockState.SYNCED)
    assert rebooted(ladders, alive, at(NOON_MS + 4 * HOUR_MS, 30, "b2", ClockState.SYNCED)) == [1]


def test_no_less_has_passed_than_the_machine_is_up_whatever_its_clock_says():
    first = at(NOON_MS + 10 * YEAR_MS, 100, "b1")
    ladders = begun(Wall.at_start(None, first), first)
    alive = at(NOON_MS + 10 * YEAR_MS + 60_000, 160, "b1")
    synced = at(NOON_MS, 2 * HOUR_MS / 1000, "b2", ClockState.SYNCED)
    assert rebooted(ladders, alive, synced) == [1]


# --- who is told ---

BOTH = Person(id="both", name="双", name_en="Both", roles=("keeper", "officer"), areas=("*",), phone="13800138003")
MUTE = Person(id="mute", name="默", name_en="Mute", roles=("officer",), areas=("*",))
SMS = Way(id="sms", kind="sms", roles=("officer",))
HORN = Way(id="horn", kind="beacon")


def told(*order: Way, kind: str = "alarm.raised", people: tuple[Person, ...] = (BOTH,)) -> list[tuple[str, str]]:
    addressing = Addressing(
        scope="s1",
        roster=Roster(people={person.id: person for person in people}),
        order=order,
        plans={3: STANDARD},
        system=SYSTEM,
        must_reach=True,
    )
    if kind == "ladder.step":
        climb = begun(Wall.at_start(None, now()), now()).climbs[HUMID.key]
        step = {"n": 1, "fence": "f", "rung": STANDARD.rungs[1].to_json(), "late_s": 0.0, "early": False}
        entries = recipients(kind, {"ladder": climb.to_json(), "step": step}, now(), addressing)
    else:
        alarm = {"id": HUMID.id, "area": "a", "kind": "hi", "count": 1, "occurrence": 1, "priority": 3}
        entries = recipients(kind, {"alarm": {**alarm, "required_acks": ["keeper", "officer"]}}, now(), addressing)
    return [(entry["person"], entry["channel"]) for entry in entries]


def test_who_holds_two_roles_is_told_by_a_channel_for_either():
    assert told(SMS) == [("both", "sms")]


def test_whom_no_channel_reaches_is_a_delivery_that_fails_and_not_one_that_is_forgotten():
    assert told(SMS, people=(MUTE,)) == [("mute", NO_WAY)]
    assert told(SMS, HORN, people=(MUTE,)) == [], "it sounds at the post"
    assert told(SMS, HORN, kind="ladder.step", people=(MUTE,)) == [("mute", NO_WAY)], "who is called is not there"


def test_a_delivery_without_a_way_is_told_as_a_person_who_is_not_reached(tmp_path: Path):
    async def main() -> None:
        async with running(tmp_path / "j.db", {"sms": FakeChannel()}) as made:
            await made.journal.append([raised(f"li@{NO_WAY}")])
            while not await made.records("delivery.failing"):
                await asyncio.sleep(0.1)
            (body,) = await made.bodies("delivery.failing")
            assert body["unreached"] == ["li"]
            (body,) = await made.bodies("delivery.dead")
            assert body["why"] == "no_way"

    in_virtual_time(main)


def test_no_area_is_called_as_the_alarms_of_the_gateway_begin(tmp_path: Path, free_port: Callable[[], int]):
    """Its alarms would be faults of the gateway: told to IT, and freezing nothing."""
    text = SITE.format(port=free_port(), modbus=1, hi=75.0).replace("aux_store", "system")
    (tmp_path / "site.toml").write_text(text, "utf-8")
    (tmp_path / "people.csv").write_text(PEOPLE.replace("aux_store", "system"), "utf-8")
    with pytest.raises(ConfigError) as refused:
        read_site(tmp_path / "site.toml", tmp_path)
    assert refused.value.problems[0].startswith("area[0].id: must be another one: alarms of the gateway itself")


# --- settings ---


def test_a_deadline_that_was_changed_counts_for_what_waits_already(tmp_path: Path):
    async def main() -> None:
        async with running(tmp_path / "j.db", {"sms": FakeChannel(lambda _: failed())}) as made:
            await made.journal.append([raised("li@sms")])
            await asyncio.sleep(10)
            assert not await made.records("delivery.failing")
            made.outbox.use(replace(QUICK, deadline_s=5.0))
            await asyncio.sleep(1)
            assert await made.records("delivery.failing")

    in_virtual_time(main)


async def test_a_changed_deadline_reaches_the_outbox_and_the_auditor(
    tmp_path: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
):
    used: list[Settings] = []
    monkeypatch.setattr(Outbox, "use", lambda _, settings: used.append(settings))
    patience: list[float] = []
    monkeypatch.setattr(auditor, "audit", lambda _connection, _at, patience_s: patience.append(patience_s) or [])
    made: list[auditor.Auditor] = []
    monkeypatch.setattr(Watching, "start", lambda watching: made.append(watching.auditor))
    site = Site(tmp_path, free_port(), modbus_port=free_port())
    site.write()
    await site.start()
    slow = "[alerts]\ndelivery_deadline_s = 300\ngroup_wait_s = { 3 = 600 }"
    site.config.write_text(site.config.read_text("utf-8").replace("[alerts]", slow), "utf-8")
    status, answer = await ask_gateway(site.data, "POST", "/v1/reload", {})
    assert status == 200, answer
    assert [(settings.deadline_s, settings.group_wait_s[3]) for settings in used] == [(300.0, 600.0)]
    await made[0].look()
    await site.stop()
    assert patience[0] > 900, "a message that waits for others is not overdue: the daemon would be started again"


# --- groups ---


@pytest.mark.parametrize(
    ("robot", "mentioned"),
    [
        (
            WecomRobot(WecomSettings(key="key-of-robot")),
            "mentioned_mobile_list",
        ),
        (DingtalkRobot(DingtalkSettings(key="key-of-robot")), "atMobiles"),
    ],
)
def test_a_group_message_mentions_everyone_whom_it_is_for(robot: Robot, mentioned: str):
    """It is the proof of delivery of each of them."""
    both = tuple(Receiver(person=f"p{n}", phone=f"+861380013800{n}") for n in (1, 2))
    _, body = robot._request(Notice(key="k", to=both[0], title="", text="x", priority=1, mentions=both), now())
    found = {**body, **body.get("text", {}), **body.get("at", {})}[mentioned]
    assert found == ["13800138001", "13800138002"]


def test_a_feishu_group_message_mentions_everyone_who_is_known_there():
    robot = FeishuRobot(FeishuSettings(key="key-of-robot", open_ids={"p1": "ou_1", "p2": "ou_2"}))
    all_three = tuple(Receiver(person=f"p{n}", name=f"n{n}") for n in (1, 2, 3))
    notice = Notice(key="k", to=all_three[0], title="", text="x", priority=1, mentions=all_three)
    _, body = robot._request(notice, now())
    assert body["content"]["text"] == 'x <at user_id="ou_1">n1</at> <at user_id="ou_2">n2</at>'


def test_a_digest_to_a_group_mentions_who_any_of_its_messages_is_for(tmp_path: Path):
    async def main() -> None:
        robot = FakeChannel()
        async with running(tmp_path / "j.db", {"robot": robot}, settings=replace(QUICK, group_wait_s={3: 5.0})) as made:
            await made.journal.append([raised("li+wu@robot", priority=3)])
            await made.journal.append([raised("wang+wu@robot", n=2, priority=3)])
            await asyncio.sleep(20)
        (notice,) = robot.got
        assert {receiver.person for receiver in notice.mentions} == {"li", "wu", "wang"}

    in_virtual_time(main)


def test_a_group_of_two_languages_is_told_in_the_sites_own():
    english = Person(id="john", name="约翰", name_en="John", roles=("keeper",), areas=("*",), lang="en")
    chinese = Person(id="li", name="李", name_en="Li", roles=("officer",), areas=("*",))
    composer = Composer(site="s", timezone="Asia/Shanghai", people={"john": english, "li": chinese})

    def told_to(*persons: str) -> Notice:
        row = Row(
            **dict.fromkeys(("person", "role"), ""),
            key="k",
            seq=1,
            message=1,
            origin="k",
            kind="alarm.raised",
            priority=1,
            channel="g",
            step=0,
            mentions=persons,
            about="a",
            occurrence=1,
            born_s=0,
            first_s=0,
            body={"alarm": alarm()},
        )
        return composer(Batch("k", (row,)))

    assert "助剂库" in told_to("john", "li").text
    assert told_to("john", "li").to.lang == "zh"
    assert "Aux store" in told_to("john").text


def test_who_could_not_be_reminded_is_reminded_once_when_the_channel_is_back(tmp_path: Path):
    """A day without a modem is 288 reminders of one alarm of priority 1, for each person."""

    async def main() -> None:
        modem = FakeChannel(lambda _: failed())
        async with running(tmp_path / "j.db", {"sms": modem}, settings=Settings()) as made:
            await made.journal.append([raised("li@sms", "wang@sms", priority=1)])
            for n in range(20):
                again = raised("li@sms", "wang@sms", kind="alarm.repeated", event=f"again{n}", priority=1)
                await made.journal.append([again])
                await asyncio.sleep(300)
            assert made.health.pending == 4, "what was raised, and the last reminder, of two persons"
            modem.answer, modem.arrived = lambda _: OK, []
            await asyncio.sleep(600)
            assert made.health.pending == 0
        assert len(modem.arrived) == 4

    in_virtual_time(main)
