"""People are told and faults stay what they are: also by odd ways, with odd words, and with clocks that jump."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from sitewarden.edge.acting import Acting
from sitewarden.edge.alarms.overlay import SHELVE_MOST_S, Overlay
from sitewarden.edge.alerts.rows import ANSWER
from sitewarden.edge.alerts.unreached import Unreached
from sitewarden.edge.ladders.climb import Subject, Wall
from sitewarden.edge.ladders.keeper import Ladders, Standing
from sitewarden.edge.ladders.plan import STANDARD
from sitewarden.edge.mqtt_commands import Commands, Judge
from sitewarden.edge.running import Current
from sitewarden.edge.site_reader import read_site
from sitewarden.serving.people import Person
from sitewarden.tests.test_edge_api import PEOPLE, SITE
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
