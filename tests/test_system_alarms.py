"""The system's own alarms: rules that outlive a restart, and states that become faults only when they last."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sitewarden.edge import disk
from sitewarden.edge.alarms.codec import alarm_from_json, alarm_json
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.machine import Acknowledge, Alarm, On, State, step
from sitewarden.edge.alarms.rules import Kind, Rule, Side
from sitewarden.edge.alarms.system import (
    MEANINGS,
    Delays,
    Sight,
    active_system_rules,
    is_system,
    stored_system_rules,
    system_rule,
)
from sitewarden.edge.alerts.port import ChannelHealth, Fault
from sitewarden.edge.dashboards import DashboardHealth
from sitewarden.edge.disk import DiskWatch, Space, is_short
from sitewarden.edge.faults import ChannelState, Steady, broker_sights, certificate_sights, channel_sights, link_sights
from sitewarden.edge.ladders.plan import PRESETS, Action
from sitewarden.sensors.mqtt_words import MqttHealth
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.words import Instant

NOON_MS = 1_790_000_000_000
DAY = 86_400.0


def at(seconds: float) -> Instant:
    return Instant(utc_ms=NOON_MS + round(seconds * 1000), mono_s=1000.0 + seconds, boot="b")


def ids(sights: Iterable[Sight]) -> list[str]:
    return [sight.rule.id for sight in sights]


# --- rules ---


@pytest.mark.parametrize("kind", list(MEANINGS))
def test_each_kind_is_an_alarm_that_it_and_the_control_room_acknowledge(kind: Kind) -> None:
    rule = system_rule(kind, "thing", about="thing")
    assert rule.id == f"system.{kind.value}.thing"
    assert (rule.side, rule.area, rule.point) == (Side.SYSTEM, "", "")
    assert rule.required_acks == ("it", "control_room")
    assert not rule.distinct_persons, "one person may be both at night"
    assert rule.name == f"{MEANINGS[kind].name}：thing"
    assert rule.name_en == f"{MEANINGS[kind].name_en}: thing"
    (level,) = rule.levels
    assert (level.kind, level.priority, level.latching) == (kind, MEANINGS[kind].priority, False)


def test_every_system_kind_of_the_contract_is_there_and_its_ladder_never_freezes() -> None:
    kinds = (
        "flood chatter standing delivery_failed modem_down broker_down clock_step disk ladder_overdue key_revoked"
        " certificate not_recorded"
    )
    assert {kind.value for kind in MEANINGS} == set(kinds.split())
    assert all(rung.action is not Action.FREEZE for rung in PRESETS["system"].rungs)


def test_the_document_has_a_row_and_a_piece_of_advice_for_each_kind(root: Path) -> None:
    text = (root / "docs" / "system-alarms.md").read_text("utf-8")
    table, advice = text.partition("## 怎么办")[::2]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `system.")]
    for kind, meaning in MEANINGS.items():
        own = [int(cells[1]) for cells in rows if f"`system.{kind.value}" in cells[0] and meaning.name in cells[0]]
        assert own == [meaning.priority], kind
        assert f"**{meaning.name}" in advice or f"· {meaning.name}" in advice, kind


def test_open_ones_are_rebuilt_from_the_store_and_go_on_after_a_restart() -> None:
    rules = [
        system_rule(Kind.FLOOD, "east", about="east，首发 x", about_en="east, first-out x"),
        system_rule(Kind.DISK, name="磁盘只读", name_en="Disk is read-only"),
        system_rule(Kind.CHATTER, "a.b.c.high"),
    ]
    stored = {rule.id: _stored(rule) for rule in rules}
    stored["system.chatter.a.b.c.high"] |= {"state": "NORM", "active": None}
    stored["a.b.c.high"] = {**stored["system.disk"], "id": "a.b.c.high", "kind": "hi"}
    assert stored_system_rules(stored) == rules[:2]
    returned = stored["system.disk"] | {"state": "RTNUN", "active": None}
    assert active_system_rules({**stored, "system.disk": returned}) == rules[:1]
    assert stored_system_rules({**stored, "system.disk": returned}) == rules[:2]
    alarms = {name: alarm_from_json(fields) for name, fields in stored.items() if is_system(fields)}
    engine = Engine(stored_system_rules(stored), alarms, at(60))
    assert engine.tick(at(100 * DAY)) is not None
    assert engine.alarm("system.disk").active is Kind.DISK, "time alone clears nothing"


def test_a_covered_one_that_is_closed_keeps_its_rule() -> None:
    rule = system_rule(Kind.CHATTER, "a.b.c.high")
    stored = _stored(rule) | {"state": "NORM", "active": None, "overlay": {"kind": "shelved"}}
    assert stored_system_rules({rule.id: stored}) == [rule]


# --- what lasts ---


def sight(kind: Kind = Kind.DISK, on_s: float = 60.0, off_s: float = 30.0) -> Sight:
    return Sight(rule=system_rule(kind), delays=Delays(on_s=on_s, off_s=off_s))


def told(steady: Steady, sights: list[Sight], now_s: float) -> list[tuple[str, bool]]:
    return [(each.rule.id, each.on) for each in steady.see(sights, now_s)]


def test_a_fault_is_told_once_when_it_has_lasted_and_over_once_when_it_is_away_for_long_enough() -> None:
    steady = Steady()
    assert told(steady, [sight()], 0) == []
    assert told(steady, [sight()], 59.9) == []
    assert told(steady, [sight()], 60) == [("system.disk", True)]
    assert told(steady, [sight()], 1000) == []
    assert told(steady, [], 1001) == []
    assert told(steady, [], 1030.9) == []
    assert told(steady, [], 1031) == [("system.disk", False)]
    assert told(steady, [], 2000) == []


def test_a_blip_is_no_alarm_and_a_short_recovery_is_none() -> None:
    steady = Steady()
    for n in range(100):
        assert told(steady, [sight()] if n % 2 else [], n * 50.0) == [], "each time anew"
    steady = Steady()
    told(steady, [sight()], 0)
    assert told(steady, [sight()], 60)
    for n in range(100):
        assert told(steady, [sight()] if n % 2 else [], 60 + n * 20.0) == []


def test_what_was_on_before_a_restart_goes_on_without_being_told_again() -> None:
    steady = Steady([system_rule(Kind.DISK), system_rule(Kind.FLOOD, "east")])
    assert told(steady, [sight()], 0) == []
    assert told(steady, [sight()], 119) == []
    assert told(steady, [sight()], 120) == [("system.flood.east", False)], "nobody sees it any more"
    assert told(steady, [], 121) == []
    assert told(steady, [], 151) == [("system.disk", False)], "by its own delay from here on"


def test_without_delays_it_is_told_at_once() -> None:
    steady = Steady()
    assert told(steady, [sight(on_s=0, off_s=0)], 0) == [("system.disk", True)]
    assert told(steady, [], 1) == [("system.disk", False)]


# --- sources ---


def test_brokers() -> None:
    down = MqttHealth(id="plc", connected=False, last_error="refused")
    up = MqttHealth(id="line", connected=True)
    dashboards = DashboardHealth(state="down", error="no route")
    assert ids(broker_sights(dashboards, {"plc": down, "line": up})) == [
        "system.broker_down",
        "system.broker_down.plc",
    ]
    assert ids(broker_sights(None, {})) == [], "a site without a broker misses none"
    assert ids(broker_sights(DashboardHealth(state="up"), {"line": up})) == []


def test_channels_a_modem_by_its_own_kind_and_the_others_apart_from_persons_of_the_same_id() -> None:
    def state(name: str, kind: str, fault: Fault) -> ChannelState:
        return ChannelState(id=name, kind=kind, health=ChannelHealth(fault=fault, detail="+CREG: 3"))

    modem, robot = state("sms1", "sms", Fault.OFFLINE), state("group", "wecom", Fault.REFUSING)
    found = channel_sights([modem, robot, state("mail", "mail", Fault.NONE)])
    assert ids(found) == ["system.modem_down.sms1", "system.delivery_failed.channel.group"]
    assert [each.delays.on_s for each in found] == [60.0, 300.0]
    assert found[0].facts == {"channel": "sms1", "fault": "offline", "detail": "+CREG: 3"}
    assert found[1].rule.name == "通知通道故障：group"


GB = 2**30


@pytest.mark.parametrize(
    ("free", "usable", "was", "short"),
    [
        (50 * GB, 100 * GB, False, False),
        (10 * GB, 100 * GB, False, False),
        (9 * GB, 100 * GB, False, True),
        (11 * GB, 100 * GB, True, True),
        (12 * GB, 100 * GB, True, False),
        (499 * 2**20, 2 * GB, False, True),
        (500 * 2**20, 2 * GB, False, False),
        (599 * 2**20, 2 * GB, True, True),
        (600 * 2**20, 2 * GB, True, False),
        (0, 0, False, True),
    ],
)
def test_too_little_room(free: int, usable: int, was: bool, short: bool) -> None:
    assert is_short(Space(free_bytes=free, usable_bytes=usable), was_short=was) is short


def test_disk_says_which_trouble_it_is() -> None:
    watch = DiskWatch(Path("/nowhere"))
    assert watch.sights() == [], "nobody has looked yet"
    watch.note(Space(free_bytes=5 * GB, usable_bytes=100 * GB))
    (low,) = watch.sights()
    assert (low.rule.id, low.rule.name, low.value, low.rule.unit) == ("system.disk", "磁盘空间不足", 5.0, "%")
    watch.note(Space(free_bytes=11 * GB, usable_bytes=100 * GB))
    assert watch.sights(), "not enough to end it"
    watch.note(Space(free_bytes=50 * GB, usable_bytes=100 * GB, is_read_only=True))
    assert [each.rule.name for each in watch.sights()] == ["磁盘只读"]
    watch.note(disk.look(Path("/nowhere")))
    assert [each.rule.name_en for each in watch.sights()] == ["Disk cannot be read"]
    watch.note(Space(free_bytes=11 * GB, usable_bytes=100 * GB))
    assert watch.sights() == []


async def test_the_real_file_system_is_looked_at(tmp_path: Path, eventually, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(tmp_path)
    space = disk.look(tmp_path)
    assert space.usable_bytes > 0
    assert not space.is_read_only
    assert 0 <= space.free_pct <= 100
    assert abs(space.free_bytes - found.f_bavail * found.f_frsize) < GB
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(**_statvfs(found), f_flag=os.ST_RDONLY))
    watch = DiskWatch(tmp_path)
    task = asyncio.create_task(watch.run())
    await eventually(watch.sights, "a read-only disk is seen", every_s=0.02)
    await _end(task)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _statvfs(found: os.statvfs_result) -> dict[str, int]:
    return {name: getattr(found, name) for name in ("f_blocks", "f_bfree", "f_bavail", "f_frsize")}


def _stored(rule: Rule, when: Instant | None = None) -> dict[str, Any]:
    """The committed object of an alarm that was raised and that IT has acknowledged."""
    when = when or at(0)
    (raised,) = step(rule, Alarm(id=rule.id), On(level=rule.levels[0], value=3.0), when, 1)
    (acked,) = step(rule, raised.alarm, Acknowledge(occurrence=1, role="it", person="zhao"), when, 2)
    assert acked.alarm.state is State.UNACK
    return alarm_json(rule, acked.alarm, when)


def test_a_certificate_that_ends_soon_or_is_passed_over_is_an_alarm() -> None:
    assert certificate_sights(21.0, "") == []
    (soon,) = certificate_sights(20.94, "")
    assert (soon.rule.id, soon.value, soon.delays.on_s) == ("system.certificate", 20.9, 60.0)
    (passed,) = certificate_sights(300.0, "the installed chain ended on 2026-01-01")
    assert passed.facts == {"error": "the installed chain ended on 2026-01-01", "days_left": 300.0}
    (nothing,) = certificate_sights(None, "")
    assert nothing.value is None


def test_a_revoked_key_is_an_alarm_until_headquarters_accepts_again() -> None:
    uplink = UplinkHealth()
    uplink.failed("journal", "unreachable", "no route")
    assert link_sights(uplink) == []
    uplink.failed("journal", "revoked", "the cloud answered 401 revoked: this key was revoked")
    (sight,) = link_sights(uplink)
    assert (sight.rule.id, sight.rule.name_en) == ("system.key_revoked", "Key revoked: ask headquarters")
    assert "revoked" in sight.facts["error"]
    uplink.succeeded("journal")
    assert link_sights(uplink) == []
