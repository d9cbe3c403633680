"""Scenario E1 on the whole engine: readings, silence, people, overlays, restarts and new configurations in any order.

What is checked is what a journal would hold: no event is undefined, closed means that everybody acknowledged or that
the record says why not, one raise for each occurrence and severity, and a restart from the records changes nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from sitewarden.edge.alarms.codec import alarm_from_json
from sitewarden.edge.alarms.engine import Engine, close_orphans
from sitewarden.edge.alarms.machine import Alarm, State
from sitewarden.edge.alarms.overlay import Overlay, OverlayKind
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alarms.sources import Deviation, Discrepancy, Discrete, Frozen, Rate, Source
from sitewarden.edge.alarms.suppression import Suppression
from sitewarden.errors import RefusedError
from sitewarden.sync.journal import Draft, canonical
from sitewarden.words import Instant, Quality, Reading

GAS, PUMP = "pit.d1.gas", "pit.d1.pump"
PUMP_OFF = Suppression(id="pump_off", point=PUMP, why="泵停", equals=0.0)
BAD = ("timeout", "warm_up", "not_a_number")
EXCUSED = ("superseded_unacked", "cleared_while_suppressed", "rule_removed")
PERSONS = ("li", "wang", "zhou")


def make(side: Side, *levels: Level, point: str = GAS, source: Source | None = None, **fields: Any) -> Rule:
    base = Rule(
        id="pit.d1.comm" if side is Side.COMM else f"{point}.{side}",
        point="pit.d1" if side is Side.COMM else point,
        area="pit",
        side=side,
        name="甲烷",
        name_en="Methane",
        unit="%LEL",
        levels=levels,
        source=source,
        first_out_group="pit",
    )
    return replace(base, **fields)


HI = Level(kind=Kind.HI, limit=25, deadband=2, priority=2, off_delay_s=30)
HIHI = Level(kind=Kind.HIHI, limit=50, deadband=2, priority=1, off_delay_s=30, latching=True)
RULES = (
    make(Side.HIGH, HI, HIHI, suppressions=(PUMP_OFF,)),
    make(Side.LOW, Level(kind=Kind.LO, limit=1, priority=3, on_delay_s=20), life_safety=True, suppressions=(PUMP_OFF,)),
    make(Side.ROC, Level(kind=Kind.ROC, limit=30, deadband=3, priority=2), source=Rate(period_s=20, min_samples=2)),
    make(Side.DEVIATION, Level(kind=Kind.DEVIATION, limit=40, priority=3, on_delay_s=10), source=Deviation(ref=PUMP)),
    make(Side.DISCRETE, Level(kind=Kind.DISCRETE, limit=0, priority=3), source=Discrete(on=(2.0,)), point=PUMP),
    make(
        Side.DISCREPANCY,
        Level(kind=Kind.DISCREPANCY, limit=10, priority=3, on_delay_s=10),
        source=Discrepancy(ref=GAS, tolerance=30),
        point=PUMP,
    ),
    make(Side.FROZEN, Level(kind=Kind.FROZEN, limit=100, priority=3), source=Frozen(after_s=100, gap_s=60)),
    make(Side.STALE, Level(kind=Kind.STALE, limit=60, priority=3)),
    make(Side.QUALITY, Level(kind=Kind.QUALITY, limit=0, priority=3, on_delay_s=30)),
    make(Side.STALE, Level(kind=Kind.STALE, limit=60, priority=3), point=PUMP),
    make(Side.COMM, Level(kind=Kind.COMM_LOSS, limit=30, priority=2)),
)
OTHERS = (
    replace(RULES[0], levels=(replace(HI, limit=20), HIHI), suppressions=()),
    replace(RULES[2], source=Rate(period_s=30)),
    *RULES[3:],
)
FAULT = make(
    Side.SYSTEM, Level(kind=Kind.DISK, limit=90, priority=2), point="", id="system.disk", required_acks=("it",)
)
IDS = (*(one.id for one in RULES), FAULT.id)
PROCESS = ("high", "low", "roc", "deviation", "discrete", "discrepancy", "frozen")


NOON_S = 1_795_000_000
CLOCKS_S = (0.0, 7200.0, -7200.0, -NOON_S + 60.0)  # right, hours off, and as it comes up without a battery


def instant(at_s: float, boot: int = 0, booted_s: float = 0.0, off_s: float = 0.0) -> Instant:
    return Instant(utc_ms=round((NOON_S + at_s + off_s) * 1000), mono_s=at_s - booted_s, boot=f"b{boot}")


class Gateway(RuleBasedStateMachine):
    """An engine, its journal, and everything that may happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.at_s, self.boot, self.is_bad = 0.0, 0, {GAS: False, PUMP: False}
        self.booted_s, self.off_s = 0.0, 0.0
        self.shelved: dict[str, tuple[float, int]] = {}
        self.configured = RULES
        self.stored: dict[str, dict[str, Any]] = {}
        self.raises: dict[tuple[str, int, str], int] = {}
        self.engine = Engine(self.configured, {}, self.now)

    @property
    def now(self) -> Instant:
        return instant(self.at_s, self.boot, self.booted_s, self.off_s)

    def keep(self, drafts: list[Draft]) -> list[str]:
        for draft in drafts:
            canonical(draft.body)
            self.check(draft)
            alarm = draft.body["alarm"]
            self.stored[alarm["id"]] = alarm
        return [draft.body["alarm"]["id"] for draft in drafts]

    def check(self, draft: Draft) -> None:
        alarm, change, reason = draft.body["alarm"], draft.kind.removeprefix("alarm."), draft.body["reason"]
        before = self.stored.get(alarm["id"])
        occurrence = before["occurrence"] if before else 0
        if change == "raised":
            assert before is None or before["state"] == "NORM"
            assert alarm["occurrence"] > max((one["occurrence"] for one in self.stored.values()), default=0)
        else:
            assert alarm["occurrence"] == occurrence, "only a raise begins an occurrence"
        if change == "raised" or reason == "severity_up":
            key = (alarm["id"], alarm["occurrence"], alarm["kind"])
            self.raises[key] = self.raises.get(key, 0) + 1
            assert self.raises[key] == 1, "one raise for each occurrence and severity"
            assert (alarm["state"], alarm["acks"]) == ("UNACK", [])
        if change == "closed":
            assert alarm["state"] == "NORM"
            if reason not in EXCUSED:
                persons = {ack["role"]: ack["person"] for ack in alarm["acks"]}
                assert set(persons) == set(alarm["required_acks"])
                assert len(set(persons.values())) == len(persons)
            assert not alarm["latched"] or reason in ("reset", "rule_removed")
        if alarm["overlay"] and alarm["overlay"]["kind"] == "by_design":
            assert not alarm["life_safety"]
        self.check_shelf(change, reason, before, alarm)
        if draft.body.get("quiet"):
            assert change == "reopened"
            assert alarm["acks"] == before["acks"] if before else False

    def check_shelf(self, change: str, reason: str, before: dict[str, Any] | None, alarm: dict[str, Any]) -> None:
        if change in ("shelved", "out_of_service"):
            self.shelved[alarm["id"]] = (self.at_s, self.boot)
        if change == "unshelved" and reason == "time_up" and before is not None:
            since_s, boot = self.shelved[alarm["id"]]
            assert boot != self.boot or self.at_s - since_s >= before["overlay"]["for_s"], "a clock that is set ends it"

    # --- what happens ---

    @rule(point=st.sampled_from([GAS, PUMP]), value=st.sampled_from([0.0, 0.5, 1.0, 2.0, 24.0, 26.0, 49.0, 60.0]))
    def good(self, point: str, value: float) -> None:
        self.is_bad[point] = False
        self.keep(self.engine.read(Reading(point=point, value=value, quality=Quality.GOOD, at=self.now), self.now))

    @rule(point=st.sampled_from([GAS, PUMP]), why=st.sampled_from(BAD))
    def bad(self, point: str, why: str) -> None:
        self.is_bad[point] = True
        reading = Reading(point=point, value=None, quality=Quality.BAD, why=why, at=self.now)
        touched = self.keep(self.engine.read(reading, self.now))
        suppression_ends = {RULES[0].id} if point == PUMP else set()
        assert {name for name in touched if name.endswith(PROCESS)} <= suppression_ends

    @rule(seconds=st.sampled_from([0.5, 1.0, 11.0, 31.0, 61.0, 301.0, 1000.0]))
    def wait(self, seconds: float) -> None:
        self.at_s += seconds
        before = {name: self.engine.alarm(name).active for name in self.known()}
        self.keep(self.engine.tick(self.now))
        self.no_shelf_outlives_its_time()
        if all(self.is_bad.values()):
            for name in self.known():
                assert not name.endswith(PROCESS) or self.engine.alarm(name).active is before[name]

    @rule(off_s=st.sampled_from(CLOCKS_S))
    def set_clock(self, off_s: float) -> None:
        self.off_s = off_s

    @rule(name=st.sampled_from(IDS), role=st.sampled_from(["keeper", "officer", "it"]), person=st.sampled_from(PERSONS))
    def acknowledge(self, name: str, role: str, person: str) -> None:
        self.attempt(lambda: self.engine.acknowledge(name, self.occurrence(name), role, person, self.now))

    @rule(name=st.sampled_from(IDS))
    def acknowledge_all(self, name: str) -> None:
        roles = self.engine.alarm(name).required_acks if name in self.known() else ()
        for role, person in zip(roles, PERSONS, strict=False):
            self.attempt(
                lambda role=role, person=person: self.engine.acknowledge(
                    name, self.occurrence(name), role, person, self.now
                )
            )

    @rule(name=st.sampled_from(IDS))
    def reset(self, name: str) -> None:
        self.attempt(lambda: self.engine.reset(name, self.occurrence(name), "wang", self.now))

    @rule(
        name=st.sampled_from(IDS),
        kind=st.sampled_from([OverlayKind.SHELVED, OverlayKind.OUT_OF_SERVICE]),
        for_s=st.sampled_from([60.0, 1200.0]),
        one_shot=st.booleans(),
    )
    def cover(self, name: str, kind: OverlayKind, for_s: float, one_shot: bool) -> None:
        overlay = Overlay(
            kind=kind, who="wang", why="is being cleaned", since=self.now, for_s=for_s, permit="p1", one_shot=one_shot
        )
        self.attempt(lambda: self.engine.cover(name, overlay, ("officer",), self.now))

    @rule(name=st.sampled_from(IDS), kind=st.sampled_from([OverlayKind.SHELVED, OverlayKind.OUT_OF_SERVICE]))
    def uncover(self, name: str, kind: OverlayKind) -> None:
        self.attempt(lambda: self.engine.uncover(name, kind, "wang", self.now))

    @rule(on=st.booleans())
    def fault(self, on: bool) -> None:
        self.keep(self.engine.set_fault(FAULT, on, self.now, 95.0 if on else None))
        assert self.engine.set_fault(FAULT, on, self.now) == []

    @rule(other=st.booleans())
    def configure(self, other: bool) -> None:
        self.configured = rules = OTHERS if other else RULES
        self.keep(self.engine.change(rules, self.now))

    @rule(
        seconds=st.sampled_from([0.0, 5.0, 400.0]),
        boots=st.booleans(),
        other=st.booleans(),
        off_s=st.sampled_from(CLOCKS_S),
    )
    def restart(self, seconds: float, boots: bool, other: bool, off_s: float) -> None:
        self.at_s += seconds
        if boots:
            self.boot, self.booted_s, self.off_s = self.boot + 1, self.at_s, off_s
        self.configured = rules = OTHERS if other else RULES
        alarms = {name: alarm_from_json(fields) for name, fields in self.stored.items()}
        self.engine = Engine(rules, alarms, self.now)
        self.is_bad = {GAS: False, PUMP: False}
        self.keep(close_orphans((one.id for one in rules), self.stored, self.now))

    def no_shelf_outlives_its_time(self) -> None:
        """Whatever the wall clock says: the time since the boot counts at least."""
        for name in self.known():
            overlay = self.engine.alarm(name).overlay
            if overlay is not None and overlay.for_s is not None:
                since_s, boot = self.shelved.get(name, (self.at_s, self.boot))
                assert self.at_s - (since_s if boot == self.boot else self.booted_s) < overlay.for_s

    # --- what holds always ---

    @invariant()
    def the_records_are_the_state(self) -> None:
        for name in self.known():
            alarm = self.engine.alarm(name)
            fields = self.stored.get(name)
            stored = alarm_from_json(fields) if fields is not None else Alarm(id=name)
            assert (stored.state, stored.overlay) == (alarm.state, alarm.overlay)
            assert stored == alarm or alarm.state is State.NORM

    @invariant()
    def the_state_makes_sense(self) -> None:
        for name in self.known():
            self.judge(self.engine.alarm(name))

    def judge(self, alarm: Alarm) -> None:
        assert (alarm.active is not None) == (alarm.state in (State.UNACK, State.ACKED))
        if alarm.state in (State.LATU, State.LATA):
            assert alarm.latched
        if alarm.state in (State.ACKED, State.LATA):
            assert {ack.role for ack in alarm.acks} == set(alarm.required_acks)

    def known(self) -> list[str]:
        own = [FAULT.id] if FAULT.id in self.stored and self.has_fault() else []
        return [*(one.id for one in self.configured), *own]

    def has_fault(self) -> bool:
        try:
            self.engine.alarm(FAULT.id)
        except RefusedError:
            return False
        return True

    def occurrence(self, name: str) -> int:
        return self.engine.alarm(name).occurrence

    def attempt(self, command: Any) -> None:
        """A person's command: it makes records or is refused; nothing else may happen."""
        with contextlib.suppress(RefusedError):
            self.keep(command())


STEPS = st.lists(
    st.tuples(
        st.sampled_from([0.5, 1.0, 11.0, 31.0, 61.0]),
        st.sampled_from([GAS, GAS, PUMP, ""]),  # "": only time passes
        st.sampled_from([0.0, 0.5, 2.0, 20.0, 21.0, 26.0, 60.0, "timeout", "warm_up"]),
    ),
    max_size=40,
)


@settings(max_examples=100, deadline=None)
@given(STEPS)
def test_what_is_passed_over_would_have_changed_nothing(steps: list[tuple[float, str, float | str]]):
    """Shortcuts of the engine against one that judges every rule with every reading and every tick."""
    quick, slow = (Engine(RULES, {}, instant(0)) for _ in range(2))
    at_s = 0.0
    for passed_s, point, value in steps:
        at_s += passed_s
        now = instant(at_s)
        for watched in slow._plant.points.values():
            watched.calm = watched.still = False
        if not point:
            assert quick.tick(now) == slow.tick(now)
            continue
        number, why = (None, value) if isinstance(value, str) else (value, "")
        quality = Quality.BAD if why else Quality.GOOD
        reading = Reading(point=point, value=number, quality=quality, why=why, at=now)
        assert quick.read(reading, now) == slow.read(reading, now)
        conditions = [[live.condition for live in engine._plant.rules.values()] for engine in (quick, slow)]
        assert conditions[0] == conditions[1]


Gateway.TestCase.settings = settings(max_examples=120, stateful_step_count=50, deadline=None, derandomize=True)
TestWhateverHappens = Gateway.TestCase
