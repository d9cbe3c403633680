"""Faults of the gateway itself as alarms: `Engine.set_fault`, and what a restart and a new configuration leave."""

from __future__ import annotations

from typing import Any

import pytest
from sitewarden.edge.alarms.codec import alarm_from_json
from sitewarden.edge.alarms.engine import Engine, close_orphans
from sitewarden.edge.alarms.machine import State
from sitewarden.edge.alarms.overlay import Overlay, OverlayKind
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.errors import RefusedError
from sitewarden.sync.journal import Draft
from sitewarden.words import Instant

DISK = Rule(
    id="system.disk",
    point="",
    area="",
    side=Side.SYSTEM,
    name="磁盘空间不足",
    name_en="Disk nearly full",
    unit="%",
    levels=(Level(kind=Kind.DISK, limit=90, priority=2),),
    required_acks=("it", "control_room"),
    distinct_persons=False,
)


def at(seconds: float) -> Instant:
    return Instant(utc_ms=1_795_000_000_000 + round(seconds * 1000), mono_s=seconds, boot="b1")


def words(drafts: list[Draft]) -> list[str]:
    return [f"{draft.kind[6:]} {draft.body['alarm']['state']} {draft.body['reason']}" for draft in drafts]


def stored(drafts: list[Draft]) -> dict[str, dict[str, Any]]:
    return {draft.body["alarm"]["id"]: draft.body["alarm"] for draft in drafts}


def ack_both(engine: Engine, occurrence: int, seconds: float) -> list[Draft]:
    drafts = engine.acknowledge(DISK.id, occurrence, "it", "p_zhou", at(seconds))
    return drafts + engine.acknowledge(DISK.id, occurrence, "control_room", "p_zhou", at(seconds))


def test_a_fault_is_an_alarm_and_is_said_once():
    engine = Engine((), {}, at(0))
    assert engine.set_fault(DISK, on=False, now=at(1)) == []
    (raised,) = engine.set_fault(DISK, on=True, now=at(2), value=93.5)
    alarm = raised.body["alarm"]
    assert (raised.kind, alarm["id"], alarm["kind"], alarm["point"]) == ("alarm.raised", DISK.id, "disk", "")
    assert (alarm["value"], alarm["limit"], alarm["required_acks"]) == (93.5, 90, ["it", "control_room"])
    assert engine.set_fault(DISK, on=True, now=at(3), value=94) == []
    assert words(ack_both(engine, 1, 4)) == ["acked UNACK person", "acked ACKED person"]
    assert words(engine.set_fault(DISK, on=False, now=at(5))) == ["closed NORM acked_and_normal"]
    assert engine.set_fault(DISK, on=False, now=at(6)) == []


def test_a_fault_repeats_and_can_be_shelved_as_any_alarm():
    engine = Engine((), {}, at(0))
    engine.set_fault(DISK, on=True, now=at(0))
    assert words(engine.tick(at(899))) == []
    assert words(engine.tick(at(900))) == ["repeated UNACK realarm"]
    shelf = Overlay(kind=OverlayKind.SHELVED, who="p_zhou", why="disk is ordered", since=at(901), for_s=600)
    assert words(engine.cover(DISK.id, shelf, ["control_room"], at(901))) == ["shelved UNACK person"]
    assert words(engine.set_fault(DISK, on=False, now=at(1000))) == ["returned RTNUN condition"]
    assert words(engine.tick(at(1501))) == ["unshelved RTNUN time_up", "closed NORM cleared_while_suppressed"]


def test_a_latched_fault_is_reset_without_a_reading():
    level = Level(kind=Kind.DISK, limit=0, priority=2, latching=True)
    rule = Rule(
        id=DISK.id, point="", area="", side=Side.SYSTEM, name="", name_en="", unit="", levels=(level,), required_acks=()
    )
    engine = Engine((), {}, at(0))
    engine.set_fault(rule, on=True, now=at(0))
    with pytest.raises(RefusedError, match="still in alarm"):
        engine.reset(DISK.id, 1, "p_wang", at(1))


@pytest.mark.parametrize("rules", [(), (DISK,)], ids=["rule added later", "rule given at start"])
@pytest.mark.parametrize(("on", "wanted"), [(True, []), (False, ["returned RTNUN during_outage"])])
def test_after_a_restart_it_goes_on_with_the_stored_alarm(rules: tuple[Rule, ...], on: bool, wanted: list[str]):
    kept = stored(Engine((), {}, at(0)).set_fault(DISK, on=True, now=at(1)))
    engine = Engine(rules, {name: alarm_from_json(fields) for name, fields in kept.items()}, at(50))
    assert words(engine.set_fault(DISK, on=on, now=at(51))) == wanted
    assert engine.alarm(DISK.id).occurrence == 1
    assert words(engine.set_fault(DISK, on=not on, now=at(52))) == (
        ["reopened UNACK condition"] if not on else ["returned RTNUN condition"]
    )


def test_numbers_of_occurrences_go_on_although_the_rule_is_not_known_yet():
    kept = stored(Engine((), {}, at(0)).set_fault(DISK, on=True, now=at(1)))
    engine = Engine((), {name: alarm_from_json(fields) for name, fields in kept.items()}, at(50))
    other = Rule(
        id="system.modem_down", point="", area="", side=Side.SYSTEM, name="", name_en="", unit="", levels=DISK.levels
    )
    (raised,) = engine.set_fault(other, on=True, now=at(51))
    assert raised.body["alarm"]["occurrence"] == 2


def test_a_new_configuration_is_no_matter_of_the_gateways_own_alarms():
    engine = Engine((), {}, at(0))
    engine.set_fault(DISK, on=True, now=at(1))
    assert engine.change((), at(2)) == []
    assert engine.alarm(DISK.id).state is State.UNACK
    assert engine.set_fault(DISK, on=True, now=at(3)) == []
    assert words(engine.tick(at(901))) == ["repeated UNACK realarm"]


def test_no_orphan_is_the_gateways_own():
    kept = stored(Engine((), {}, at(0)).set_fault(DISK, on=True, now=at(1)))
    assert close_orphans((), kept, at(2)) == []
    other = {"store.th1.humidity.high": {**kept[DISK.id], "id": "store.th1.humidity.high"}}
    assert len(close_orphans((), other, at(2))) == 1
