"""Scenarios of control rooms: chatter around a limit, a sensor that lies, an alarm that flickers."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from sitewarden.edge.alarms.defaults import build_device_rule, build_rules
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.machine import State
from sitewarden.edge.alarms.presets import fill
from sitewarden.edge.models import AlarmTable
from sitewarden.errors import RefusedError
from sitewarden.sync.journal import Draft
from sitewarden.words import Instant, Point, Quality, Reading

POINT = "pit.gas1.h2s"
HIGH = f"{POINT}.high"


def at(seconds: float) -> Instant:
    return Instant(utc_ms=1_795_000_000_000 + round(seconds * 1000), mono_s=seconds, boot="b1")


@dataclass
class Site:
    """One point with the rules that a site.toml gives it, and its device."""

    quantity: str
    unit: str
    table: Mapping[str, Any]
    gas: str = ""
    drafts: list[Draft] = field(default_factory=list)

    def __post_init__(self) -> None:
        table, problem = fill(
            AlarmTable.model_validate({"point": POINT, **self.table}), self.gas, self.unit, self.quantity
        )
        assert not problem
        point = Point(
            id=POINT, name="硫化氢", name_en="H2S", unit=self.unit, quantity=self.quantity, decimals=1, poll_s=1
        )
        acks = ["keeper", "officer"]
        rules = build_rules(point, table, area="pit", required_acks=acks, revision="r1")
        device = AlarmTable(point="pit.gas1")
        comm = build_device_rule(
            "pit.gas1", device, [(point, table)], place="池", place_en="Pit", required_acks=acks, revision="r1"
        )
        self.engine = Engine([*rules, comm], {}, at(0))

    def see(self, at_s: float, value: float | None, why: str = "") -> list[str]:
        quality = Quality.BAD if why else Quality.GOOD
        now = at(at_s)
        return self.keep(self.engine.read(Reading(point=POINT, value=value, quality=quality, why=why, at=now), now))

    def keep(self, drafts: list[Draft]) -> list[str]:
        self.drafts += drafts
        return [f"{d.body['alarm']['id'].rpartition('.')[2]} {d.kind[6:]} {d.body['alarm']['state']}" for d in drafts]

    def for_seconds(self, begin_s: int, end_s: int, value: float | None, why: str = "") -> list[str]:
        """A reading each second, and the ticks between."""
        lines = []
        for second in range(begin_s, end_s):
            lines += self.see(second, value, why)
            lines += self.keep(self.engine.tick(at(second + 0.5)))
        return lines

    def ack(self, at_s: float) -> list[str]:
        occurrence = self.engine.alarm(HIGH).occurrence
        drafts = self.engine.acknowledge(HIGH, occurrence, "keeper", "li", at(at_s))
        return self.keep(drafts + self.engine.acknowledge(HIGH, occurrence, "officer", "wang", at(at_s)))

    def reset(self, at_s: float) -> list[str]:
        return self.keep(self.engine.reset(HIGH, self.engine.alarm(HIGH).occurrence, "wang", at(at_s)))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("quantity", "unit", "limit", "deadband"), [("humidity", "%RH", 75.0, 2.0), ("gas", "ppm", 10.0, 0.5)]
)
def test_e5_an_hour_of_noise_within_the_deadband_is_one_occurrence(
    quantity: str, unit: str, limit: float, deadband: float, seed: int
):
    site = Site(quantity, unit, {"hi": {"limit": limit, "on_delay_s": 0}})
    noise = random.Random(seed)
    lines = []
    for second in range(3600):
        lines += site.see(second, limit + noise.uniform(-0.8, 0.8) * deadband)
        lines += [line for line in site.keep(site.engine.tick(at(second + 0.5))) if "repeated" not in line]
    assert lines == ["high raised UNACK"]
    assert site.engine.alarm(HIGH).count == 1


def test_e7_a_sensor_that_lies_clears_nothing_and_is_an_alarm_of_its_own():
    site = Site("gas", "ppm", {"preset": "gb50493", "frozen_s": 600}, gas="H2S")
    assert site.see(0, 20.0) == ["high raised UNACK"]
    assert site.drafts[0].body["alarm"]["kind"] == "hihi"
    assert site.ack(5) == ["high acked UNACK", "high acked ACKED"]
    lies = [
        (10, 70, None, "not_a_number", ["quality raised UNACK"]),
        (70, 100, 20.0, "", ["quality returned RTNUN"]),
        (100, 700, 20.0, "", ["frozen raised UNACK"]),  # the same value again and again
        (700, 800, None, "frozen", ["quality closed NORM", "quality raised UNACK"]),  # its heartbeat stands still
        (800, 900, None, "timeout", ["comm raised UNACK"]),
    ]
    for begin_s, end_s, value, why, wanted in lies:
        lines = [line for line in site.for_seconds(begin_s, end_s, value, why) if "repeated" not in line]
        assert lines == wanted, why or value
        alarm = site.engine.alarm(HIGH)
        assert (alarm.state, alarm.active) == (State.ACKED, "hihi")
        with pytest.raises(RefusedError, match="still in alarm"):
            site.reset(end_s)
    lines = site.for_seconds(900, 1000, 0.1)
    assert lines == ["comm returned RTNUN", "quality returned RTNUN", "frozen returned RTNUN", "high returned LATA"]
    site.see(1000, None, "timeout")
    with pytest.raises(RefusedError, match="not good"):
        site.reset(1000.5)
    site.see(1001, 0.2)
    assert site.for_seconds(1002, 1100, 0.1) == [], "latched until the officer resets it"
    assert site.reset(1100) == ["high closed NORM"]


def test_a_number_that_is_none_neither_raises_nor_clears():
    site = Site("gas", "ppm", {"hi": 10})
    assert site.for_seconds(0, 60, float("nan")) == []
    site.see(60, 12.0)
    assert site.for_seconds(61, 200, float("nan")) == []
    assert site.engine.alarm(HIGH).active == "hi"


def test_an_alarm_that_flickers_is_recorded_each_time_and_told_as_often_as_a_reminder():
    site = Site("gas", "ppm", {"hi": {"limit": 10, "off_delay_s": 0}})
    for second in range(0, 1900, 10):
        site.see(second, 12.0 if second % 20 == 0 else 2.0)
    told = [draft.at.mono_s for draft in site.drafts if "reopened" in draft.kind and "quiet" not in draft.body]
    assert sum("reopened" in draft.kind for draft in site.drafts) == 94
    assert told == [900, 1800], "priority 2"
    assert all("quiet" not in draft.body for draft in site.drafts if "reopened" not in draft.kind)


def test_what_comes_back_for_the_first_time_is_told_after_a_minute():
    site = Site("gas", "ppm", {"hi": {"limit": 10, "off_delay_s": 0}})
    for second, value in ((0, 12.0), (10, 2.0), (60, 12.0)):
        site.see(second, value)
    assert (site.drafts[-1].kind, "quiet" in site.drafts[-1].body) == ("alarm.reopened", False)


@pytest.mark.parametrize(("priority", "most"), [(1, 12), (2, 4), (3, 4)])
def test_e5_an_hour_of_chatter_without_deadband_and_delays_is_no_storm_of_messages(priority: int, most: int):
    levels = {"hi": {"limit": 75.0, "deadband": 0, "on_delay_s": 0, "off_delay_s": 0, "priority": priority}}
    site = Site("humidity", "%RH", levels)
    noise = random.Random(5)
    for second in range(3600):
        site.see(second, 75.0 + noise.uniform(-1.6, 1.6))
        site.keep(site.engine.tick(at(second + 0.5)))
    telling = ("alarm.raised", "alarm.reraised", "alarm.reopened", "alarm.repeated")
    told = [draft for draft in site.drafts if draft.kind in telling and not draft.body.get("quiet")]
    assert site.engine.alarm(HIGH).count > 500
    assert len(told) <= most


def test_what_reopens_worse_or_after_everybody_acknowledged_is_told_at_once():
    site = Site("gas", "ppm", {"hi": {"limit": 10, "off_delay_s": 0}, "hihi": {"limit": 20, "off_delay_s": 0}})
    site.see(0, 12.0)
    site.see(1, 2.0)
    site.see(2, 25.0)
    assert (site.drafts[-1].kind, "quiet" in site.drafts[-1].body) == ("alarm.reopened", False)
    site.ack(3)
    site.see(4, 2.0)
    assert site.engine.alarm(HIGH).state is State.LATA
    site.see(5, 12.0)
    assert (site.drafts[-1].kind, "quiet" in site.drafts[-1].body) == ("alarm.reopened", False)
