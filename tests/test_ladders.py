"""Ladders and freezes on a machine whose power, process and clocks are ours: scenario 4, and more."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sitewarden.edge.ladders import reports
from sitewarden.edge.ladders.climb import Climb, Subject, Wall, climbed
from sitewarden.edge.ladders.freeze import NEVER_BLOCKED, Freeze, Scope, in_the_way
from sitewarden.edge.ladders.keeper import Ladders, Standing
from sitewarden.edge.ladders.plan import BY_PRIORITY, PRESETS, STANDARD, Action, Basis, Plan, Rung
from sitewarden.edge.ladders.table import TABLE, stored_climbs, stored_freezes
from sitewarden.errors import RefusedError
from sitewarden.sync.journal import Draft, Record
from sitewarden.words import ClockState, Instant

HOUR = 3600.0
CAUSE = "steam valve leaked"
NOON_MS = 1_790_000_000_000
PLANT = Subject(kind="alarm", id="store.th1.humidity.high", occurrence=7, area="store", name="湿度", name_en="humidity")


def plan_of(subject: Subject) -> Plan:
    return PRESETS[BY_PRIORITY[subject.priority]]


@dataclass(slots=True)
class Machine:
    """A gateway without a gateway: true seconds, a clock that can be wrong, boots, and what was committed."""

    true_s: float = 0.0
    clock_off_s: float = 0.0
    synced: bool = False
    plan: Any = plan_of
    boots: int = 1
    boot_at_s: float = -10.0
    alive: Instant | None = None
    seq: int = 0
    drafts: list[Draft] = field(default_factory=list)
    db: sqlite3.Connection = field(default_factory=lambda: sqlite3.connect(":memory:"))
    ladders: Ladders = field(init=False)

    def __post_init__(self) -> None:
        for table in (TABLE, reports.TABLE):
            self.db.executescript(table.schema)
        self.start()

    def now(self) -> Instant:
        return Instant(
            utc_ms=NOON_MS + round((self.true_s + self.clock_off_s) * 1000),
            mono_s=self.true_s - self.boot_at_s,
            boot=f"boot{self.boots}",
            clock=ClockState.SYNCED if self.synced else ClockState.UNSYNCED,
        )

    def commit(self, drafts: list[Draft]) -> list[Draft]:
        for draft in drafts:
            self.seq += 1
            record = Record(
                seq=self.seq,
                epoch="e",
                kind=draft.kind,
                at=draft.at.to_json(),
                actor=draft.actor,
                body=draft.body,
                blobs=(),
                chain=b"",
            )
            for table in (TABLE, reports.TABLE):
                if record.kind.startswith(table.kinds):
                    table.apply(self.db, Record.from_bytes(record.to_bytes(), b""))
        self.drafts += drafts
        return drafts

    def start(self) -> list[Draft]:
        """The process starts on what was committed."""
        wall = Wall.at_start(self.alive, self.now())
        self.ladders = Ladders(
            stored_climbs(self.db), stored_freezes(self.db), self.plan, wall, reports.stored_deviations(self.db)
        )
        drafts = self.commit(self.ladders.start(self.now()))
        self.save()
        return drafts

    def save(self) -> None:
        self.alive = self.ladders.wall.alive(self.now())

    def run(self, seconds: float, step_s: float = 30.0) -> list[Draft]:
        until, drafts = self.true_s + seconds, list[Draft]()
        while self.true_s < until:
            self.true_s = min(until, self.true_s + step_s)
            drafts += self.commit(self.ladders.tick(self.now()))
            self.save()
        return drafts

    def power_off(self, seconds: float, clock_off_s: float | None = None) -> list[Draft]:
        """Without power; then the machine boots, its clock off by `clock_off_s` when it lost the time."""
        self.true_s += seconds
        started_s = self.true_s - min(10.0, seconds)  # a machine is not up for longer than it was off and on again
        self.boots, self.boot_at_s, self.synced = self.boots + 1, started_s, False
        if clock_off_s is not None:
            self.clock_off_s = clock_off_s
        return self.start()

    def set_clock(self, off_s: float, *, synced: bool = True) -> None:
        by_s, self.clock_off_s, self.synced = off_s - self.clock_off_s, off_s, synced
        at = self.now()
        believed_ms = self.ladders.wall.believed_ms(at)
        self.ladders.clock_stepped(at.boot, at.mono_s, believed_ms)
        body = {"by_s": by_s, "believed_ms": believed_ms}
        self.commit([Draft(kind="clock.stepped", at=at, actor="gateway", body=body)])

    def follow(self, **said: Any) -> list[Draft]:
        subject = said.pop("subject", PLANT)
        facts = {"open": True, "unacked": True, "on": True, **said}
        return self.commit(self.ladders.follow(Standing(subject=subject, **facts), self.now()))

    def steps(self) -> list[tuple[int, float, bool]]:
        found = [draft.body["step"] for draft in self.drafts if draft.kind == "ladder.step"]
        return [(step["n"], step["late_s"], step["early"]) for step in found]

    def kinds(self) -> list[str]:
        return [draft.kind for draft in self.drafts]


def raised(**changes: Any) -> Machine:
    machine = Machine(**changes)
    machine.follow(begins=True)
    return machine


def test_two_hours_red_and_sms_four_hours_the_vice_president_eight_hours_freeze() -> None:
    machine = raised()
    assert machine.kinds() == ["ladder.started"], "the raise itself tells both"
    machine.run(2 * HOUR - 1)
    assert machine.steps() == []
    (two,) = machine.run(1)
    assert two.body["step"]["rung"] == {"at_s": 7200.0, "to": [], "add": ["sms"], "colour": "red", "action": ""}
    machine.run(2 * HOUR)
    assert machine.drafts[-1].body["step"]["rung"]["to"] == ["vice_president"]
    machine.run(4 * HOUR)
    assert machine.kinds()[-3:] == ["ladder.step", "freeze.set", "deviation.opened"]
    assert machine.steps() == [(1, 0.0, False), (2, 0.0, False), (3, 0.0, False)]
    machine.run(100 * HOUR, 600)
    assert len(machine.steps()) == 3


def test_scenario_4_ladder_across_an_outage_with_a_good_clock() -> None:
    machine = raised()
    machine.run(110 * 60)
    drafts = machine.power_off(140 * 60)  # off at 1 h 50, back at 4 h 10
    assert [d.body["step"]["n"] for d in drafts] == [1, 2]
    assert machine.steps() == [(1, 7800.0, False), (2, 600.0, False)]
    machine.run(4 * HOUR - 10 * 60 - 60)
    assert "freeze.set" not in machine.kinds()
    machine.run(60)
    assert machine.kinds().count("freeze.set") == 1, "on time"
    machine.power_off(30)
    machine.run(HOUR)
    assert machine.kinds().count("freeze.set") == 1
    (freeze,) = machine.ladders.freezes.values()
    assert freeze.blocks("start", work="hot_work", area="store"), "still frozen after another restart"
    assert [n for n, _, _ in machine.steps()] == [1, 2, 3]


def test_scenario_4_ladder_across_an_outage_with_a_clock_reset_to_1970() -> None:
    machine = raised()
    machine.run(110 * 60)
    drafts = machine.power_off(140 * 60, clock_off_s=-NOON_MS / 1000)
    assert machine.ladders.wall.behind
    assert [d.body["step"]["n"] for d in drafts] == [1]
    assert machine.steps() == [(1, 0.0, True)], "the next step that tells people, at boot"
    machine.run(60)
    assert len(machine.steps()) == 1
    machine.set_clock(0.0)  # 4 h 11 after the raise
    machine.run(60)
    assert machine.steps()[1:] == [(2, 690.0, False)], "what time shows to be overdue; nothing twice"
    machine.run(4 * HOUR)
    assert machine.kinds().count("freeze.set") == 1
    assert [n for n, _, _ in machine.steps()] == [1, 2, 3]


def test_a_freeze_is_never_climbed_early() -> None:
    machine = raised()
    machine.run(5 * HOUR)
    machine.power_off(60, clock_off_s=-NOON_MS / 1000)
    assert [n for n, _, _ in machine.steps()] == [1, 2]
    machine.run(2 * HOUR)
    assert "freeze.set" not in machine.kinds()
    machine.run(HOUR)
    assert machine.kinds().count("freeze.set") == 1, "what the gateway has seen itself is eight hours"


def test_a_restart_of_the_process_alone_is_no_unknown_downtime() -> None:
    machine = raised(clock_off_s=-NOON_MS / 1000)
    machine.run(HOUR)
    machine.start()
    assert not machine.ladders.wall.behind
    assert machine.steps() == []
    machine.run(HOUR)
    assert machine.steps() == [(1, 0.0, False)]


@pytest.mark.parametrize("jump_s", [-3 * 24 * HOUR, 3 * 24 * HOUR])
def test_a_clock_that_is_set_moves_no_rung(jump_s: float) -> None:
    machine = raised()
    machine.run(HOUR)
    machine.set_clock(jump_s)
    machine.run(HOUR - 30)
    assert machine.steps() == []
    machine.run(30)
    assert machine.steps() == [(1, 0.0, False)]
    machine.power_off(10 * 60)
    machine.run(2 * HOUR - 10 * 60 - 30)
    assert machine.steps() == [(1, 0.0, False)], "nor after a boot: the first moment was moved with the clock"
    machine.run(60)
    assert [n for n, _, _ in machine.steps()] == [1, 2]


def test_a_jump_that_nobody_has_noticed_yet_moves_no_rung_either() -> None:
    machine = raised()
    machine.run(HOUR)
    machine.clock_off_s = 3 * 24 * HOUR
    machine.run(30)
    assert machine.steps() == []


def test_a_clock_set_back_and_a_restart_of_the_process_are_no_unknown_downtime() -> None:
    machine = raised()
    machine.run(HOUR)
    machine.set_clock(-24 * HOUR, synced=False)
    machine.start()
    assert not machine.ladders.wall.behind
    assert machine.steps() == []
    assert machine.ladders.wall.believed_ms(machine.now()) == NOON_MS + 3_600_000


def test_a_clock_lost_at_each_boot_counts_what_the_gateway_has_lived_and_fails_early_each_time() -> None:
    machine = raised()
    for _ in range(3):
        machine.run(HOUR / 2)
        machine.power_off(60, clock_off_s=-NOON_MS / 1000 - machine.true_s)
        assert machine.ladders.wall.behind
    assert machine.steps() == [(1, 0.0, True), (2, 0.0, True)], "no freeze at the third"
    machine.run(6.5 * HOUR)
    assert machine.kinds().count("freeze.set") == 1
    assert machine.steps()[-1] == (3, 0.0, False)


def test_a_clock_that_was_ahead_is_forgotten_when_it_is_synchronized() -> None:
    machine = raised()
    machine.power_off(60, clock_off_s=5 * HOUR)
    assert [n for n, _, _ in machine.steps()] == [1, 2], "nobody can tell it from five hours without power"
    machine.set_clock(0.0)
    machine.run(60)
    machine.power_off(60)
    assert not machine.ladders.wall.behind, "what was saved last is the right time"
    machine.run(7 * HOUR)
    assert "freeze.set" not in machine.kinds()


def test_what_is_due_by_any_clock_is_late_and_not_early() -> None:
    machine = raised()
    machine.run(HOUR)
    saved = machine.alive
    machine.run(HOUR - 30)
    machine.alive = saved
    machine.true_s += 100
    machine.boots, machine.boot_at_s = machine.boots + 1, machine.true_s
    machine.clock_off_s = -HOUR - 70
    machine.start()
    assert not machine.steps(), "the clock is just ahead of what was saved"
    machine.clock_off_s = 0.0
    machine.run(30)
    assert machine.steps() == [(1, 100.0, False)]


@pytest.mark.parametrize(
    ("basis", "acked", "returned"),
    [(Basis.OPEN, "", ""), (Basis.UNACKED, "acked", ""), (Basis.CONDITION, "", "returned")],
)
def test_each_basis_pauses_for_its_own_reason_and_keeps_the_first_moment(
    basis: Basis, acked: str, returned: str
) -> None:
    machine = raised(plan=lambda _: Plan(id="p", basis=basis, rungs=STANDARD.rungs))
    key = PLANT.key
    machine.follow(unacked=False)
    assert machine.ladders.climbs[key].paused == acked
    machine.follow(unacked=True, on=False)
    assert machine.ladders.climbs[key].paused == returned
    machine.run(3 * HOUR)
    assert len(machine.steps()) == (1 if not returned else 0)
    machine.follow()
    assert machine.ladders.climbs[key].paused == ""
    machine.run(30)
    assert [n for n, _, _ in machine.steps()] == [1]
    machine.start()
    assert machine.ladders.climbs[key].t0_utc_ms == NOON_MS


def test_what_is_suppressed_stands_still_visibly() -> None:
    machine = raised()
    machine.follow(suppressed=True)
    assert machine.kinds()[-1] == "ladder.paused"
    machine.run(9 * HOUR)
    assert machine.steps() == []


def test_what_becomes_worse_goes_on_with_the_other_plan_from_the_same_first_moment() -> None:
    machine = raised()
    machine.run(30 * 60)
    worse = Subject(**{**{s: getattr(PLANT, s) for s in Subject.__slots__}, "priority": 1})
    drafts = machine.follow(subject=worse, worse=True)
    assert [d.kind for d in drafts] == ["ladder.replanned"]
    machine.run(30)
    assert machine.steps() == [(1, 1770.0, False), (2, 1530.0, False)], "control room and vice president at once"
    assert machine.follow(subject=worse, worse=True) == []


def test_closed_ends_the_ladder_and_leaves_the_freeze() -> None:
    machine = raised()
    machine.run(8 * HOUR)
    machine.follow(open=False, on=False, unacked=False)
    assert machine.kinds()[-1] == "ladder.stopped"
    assert machine.ladders.climbs == {}
    assert stored_climbs(machine.db) == {}
    machine.start()
    (freeze,) = stored_freezes(machine.db, only_holding=True).values()
    assert freeze.why == PLANT


def test_a_deviation_is_closed_by_those_who_may_with_cause_and_measure_once_the_work_is_released() -> None:
    machine = frozen()
    (report,), (freeze,) = machine.ladders.deviations, machine.ladders.freezes

    def close(role: str, cause: str = CAUSE, measure: str = "valve replaced", of: str = report) -> list[Draft]:
        return machine.commit(machine.ladders.close_deviation(of, "sun", (role,), cause, measure, machine.now()))

    refusals = [
        (lambda: close("officer"), "still_frozen"),
        (lambda: close("keeper"), "not_allowed"),
        (lambda: close("officer", cause=" dry "), "reason_missing"),
        (lambda: close("officer", measure="   "), "reason_missing"),
        (
            lambda: machine.ladders.close_deviation("deviation/x", "sun", ("officer",), "cause", "done", machine.now()),
            "no_such_deviation",
        ),
    ]
    for ask, reason in refusals:
        with pytest.raises(RefusedError) as refused:
            ask()
        assert refused.value.reason == reason
    machine.commit(machine.ladders.release(freeze, "chen", ("manager",), "dried", machine.now()))
    machine.start()
    (draft,) = close("officer", f" {CAUSE} ")
    assert (draft.kind, draft.actor, draft.body["id"]) == ("deviation.closed", "sun", report)
    closed = draft.body["closed"]
    assert {key: closed[key] for key in ("person", "role", "cause", "measure")} == {
        "person": "sun", "role": "officer", "cause": CAUSE, "measure": "valve replaced",
    }  # fmt: skip
    machine.start()
    assert close("manager", "another") == [], "closed is closed, also after a restart"
    (shown,) = reports.deviations(machine.db)
    assert shown["closed"] == closed
    machine.follow(open=False)
    machine.follow(begins=True)
    machine.run(8 * HOUR)
    assert reports.deviations(machine.db)[0]["closed"] is None, "another freeze opens it again"


def test_a_freeze_that_holds_is_one_and_one_that_was_released_comes_again() -> None:
    machine = frozen()
    for released in (False, True):
        if released:
            (name,) = machine.ladders.freezes
            machine.commit(machine.ladders.release(name, "chen", ("manager",), "dried", machine.now()))
        machine.follow(open=False)
        machine.follow(begins=True)
        machine.run(8 * HOUR)
        assert machine.kinds().count("freeze.set") == 1 + released
    assert len(stored_freezes(machine.db, only_holding=True)) == 1


def test_what_was_closed_and_begins_again_under_its_number_has_a_ladder_of_its_own() -> None:
    machine = raised()
    machine.run(3 * HOUR)
    machine.follow(open=False)
    machine.follow(begins=True)
    machine.run(2 * HOUR)
    assert machine.steps() == [(1, 0.0, False), (1, 0.0, False)]


def test_faults_of_the_system_never_freeze() -> None:
    assert all(rung.action is not Action.FREEZE for rung in PRESETS["system"].rungs)
    machine = raised(plan=lambda _: PRESETS["system"])
    machine.run(1000 * HOUR, 3600)
    assert "freeze.set" not in machine.kinds()
    assert len(machine.steps()) == 2


def test_a_fault_freezes_nothing_whatever_ladder_it_was_given() -> None:
    machine = Machine(plan=lambda _: STANDARD)
    machine.follow(begins=True, subject=replace(PLANT, is_fault=True))
    machine.run(9 * HOUR)
    assert [n for n, _, _ in machine.steps()] == [1, 2, 3]
    assert not {"freeze.set", "deviation.opened"} & set(machine.kinds())


def test_presets_are_the_plants_rules() -> None:
    assert [(r.at_s, r.colour, r.action) for r in STANDARD.rungs[1:]] == [
        (7200, "red", ""),
        (14400, "red", ""),
        (28800, "red", "freeze"),
    ]
    assert STANDARD.rungs[2].to == ("vice_president",)
    first, control, vice = PRESETS["priority_1"].rungs[:3]
    assert first.add == ("*", "siren")
    assert (control.at_s, control.to) == (60, ("control_room",))
    assert (vice.at_s, vice.to) == (300, ("vice_president",))


# --- freezes ---


def frozen() -> Machine:
    machine = raised()
    machine.run(8 * HOUR)
    return machine


def test_a_freeze_blocks_work_in_its_area_and_never_what_keeps_people_alive() -> None:
    (freeze,) = frozen().ladders.freezes.values()
    assert in_the_way([freeze], "start", work="stock", area="store") is freeze
    assert in_the_way([freeze], "start", work="stock", area="boiler_room") is None
    for act in NEVER_BLOCKED:
        assert in_the_way([freeze], act, work="stock", area="store", permit="p") is None
    assert {"ventilation", "lighting", "exit", "suspend", "sign_out", "close"} == NEVER_BLOCKED


def test_what_is_about_the_whole_site_freezes_every_area() -> None:
    machine = Machine()
    machine.follow(subject=Subject(kind="hazard", id="h1"), begins=True)
    machine.run(8 * HOUR)
    (freeze,) = machine.ladders.freezes.values()
    assert freeze.blocks("start", work="stock", area="store")
    assert not freeze.blocks("close", work="stock", area="store")


def test_a_permits_ladder_freezes_that_permit_alone() -> None:
    permit = Subject(kind="permit", id="p1", area="store")
    machine = Machine()
    machine.follow(subject=permit, begins=True)
    machine.run(8 * HOUR)
    (freeze,) = machine.ladders.freezes.values()
    assert freeze.scope is Scope.PERMIT
    assert freeze.blocks("start", permit="p1")
    assert not freeze.blocks("start", permit="p2", area="store")
    assert not freeze.blocks("start", area="store")


def test_only_the_right_role_releases_with_a_reason_and_once() -> None:
    machine = frozen()
    (name,) = machine.ladders.freezes
    for roles, reason, why in (
        (("keeper", "officer"), "dried and checked", "not_allowed"),
        (("vice_president",), "   ", "reason_missing"),
    ):
        with pytest.raises(RefusedError) as refused:
            machine.ladders.release(name, "li", roles, reason, machine.now())
        assert refused.value.reason == why
    with pytest.raises(RefusedError, match="no freeze"):
        machine.ladders.release("freeze/x", "chen", ("vice_president",), "dried", machine.now())
    (draft,) = machine.commit(machine.ladders.release(name, "chen", ("vice_president",), " dried ", machine.now()))
    assert draft.actor == "chen"
    assert machine.ladders.release(name, "chen", ("vice_president",), "again", machine.now()) == []
    machine.start()
    (freeze,) = machine.ladders.freezes.values()
    assert freeze.released is not None
    assert freeze.released["reason"] == "dried"
    assert not freeze.blocks("start", work="stock", area="store")
    assert Freeze.from_json(freeze.to_json()) == freeze


# --- the pure core ---


def test_a_rung_is_climbed_once_and_none_is_left_out() -> None:
    machine = raised()
    climb = machine.ladders.climbs[PLANT.key]
    assert Climb.from_json(climb.to_json()) == climb
    for n in (0, 2):
        with pytest.raises(ValueError, match="is not the next"):
            climbed(climb, n)


def test_a_plan_ascends() -> None:
    with pytest.raises(ValueError, match="must ascend"):
        Plan(id="p", basis=Basis.OPEN, rungs=(Rung(at_s=10), Rung(at_s=5)))


EVENTS = st.lists(
    st.one_of(
        st.tuples(st.just("run"), st.integers(1, 4 * 3600)),
        st.tuples(st.just("restart"), st.just(0)),
        st.tuples(st.just("off"), st.integers(1, 6 * 3600)),
        st.tuples(st.just("off_lost"), st.integers(1, 6 * 3600)),
        st.tuples(st.just("set"), st.integers(-100 * 3600, 100 * 3600)),
        st.tuples(st.just("right"), st.just(0)),
        st.tuples(st.just("raise"), st.integers(1, 3)),
        st.tuples(st.just("close"), st.integers(1, 3)),
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(events=EVENTS)
def test_each_rung_once_in_order_and_memory_equals_what_was_committed(events: list[tuple[str, int]]) -> None:
    machine = Machine()
    for kind, amount in events:
        subject = Subject(kind="alarm", id="a", occurrence=amount, area="store")
        match kind:
            case "run":
                machine.run(amount, 600)
            case "restart":
                machine.start()
            case "off":
                machine.power_off(amount)
            case "off_lost":
                machine.power_off(amount, clock_off_s=-NOON_MS / 1000)
            case "set":
                machine.set_clock(float(amount), synced=False)
            case "right":
                machine.set_clock(0.0)
            case "raise":
                machine.follow(subject=subject, begins=True)
            case _:
                machine.follow(subject=subject, open=False)
        assert stored_climbs(machine.db) == dict(machine.ladders.climbs)
        assert stored_freezes(machine.db) == dict(machine.ladders.freezes)
    fences = [d.body["step"]["fence"] for d in machine.drafts if d.kind == "ladder.step"]
    assert len(fences) == len(set(fences))
    lives = {fence.rpartition("/")[0] for fence in fences}
    for life in lives:
        own = [int(fence.rpartition("/")[2]) for fence in fences if fence.startswith(f"{life}/")]
        assert own == list(range(1, 1 + len(own)))


@settings(max_examples=200, deadline=None)
@example(events=[("off", 1), ("run", 7190)])
@given(events=st.lists(st.tuples(st.sampled_from(["run", "restart", "off"]), st.integers(1, 5 * 3600)), max_size=12))
def test_with_an_honest_clock_every_rung_comes_at_its_time_or_at_the_next_moment_of_life(
    events: list[tuple[str, int]],
) -> None:
    machine = raised()
    for kind, amount in events:
        seen = len(machine.drafts)
        if kind == "run":
            machine.run(amount, 60)
        elif kind == "off":
            machine.power_off(amount)
        else:
            machine.start()
        for draft in machine.drafts[seen:]:
            if draft.kind == "ladder.step":
                at_s = (draft.at.utc_ms - NOON_MS) / 1000
                step = draft.body["step"]
                assert at_s >= step["rung"]["at_s"]
                assert kind == "off" or at_s - step["rung"]["at_s"] <= 60
    due = sum(rung.at_s <= machine.true_s for rung in STANDARD.rungs[1:])
    assert len(machine.steps()) == due
