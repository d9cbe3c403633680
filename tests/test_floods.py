"""Floods, chatter and standing alarms: by hand, as scenarios 5 and 6, and against an independent recount."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.edge.alarms.engine import Engine
from sitewarden.edge.alarms.floods import AlarmLoad, Keys, Seen
from sitewarden.edge.alarms.overlay import Overlay, OverlayKind
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alarms.statistics import Event, count
from sitewarden.edge.alarms.system import MEANINGS, Sight
from sitewarden.edge.positions import CONTROL_ROOM
from sitewarden.sync.journal import Draft
from sitewarden.words import Instant, Quality, Reading

NOON_MS = 1_790_000_000_000
MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0


def at(seconds: float) -> Instant:
    return Instant(utc_ms=NOON_MS + round(seconds * 1000), mono_s=100.0 + seconds, boot="b")


def raised(at_s: float, alarm: str = "store.th1.t.high", kind: str = "raised", **changes: Any) -> Seen:
    fields = {"at_s": at_s, "kind": f"alarm.{kind}", "alarm": alarm, "area": alarm.partition(".")[0], "name": "温度"}
    return Seen(**{**fields, "name_en": "temperature", **changes})


def load(*seen: Seen, **changes: Any) -> AlarmLoad:
    made = AlarmLoad(**changes)
    for each in seen:
        made.see(each)
    return made


def ids(sights: list[Sight]) -> list[str]:
    return [sight.rule.id for sight in sights]


# --- floods ---


def test_a_flood_begins_with_the_eleventh_in_ten_minutes_and_ends_below_five() -> None:
    made = load(*(raised(n, f"a.{n}.t.high") for n in range(10)))
    assert made.floods.open(9) == []
    made.see(raised(10, "a.10.t.high"))
    (flood,) = made.floods.open(10)
    assert (flood.position, flood.first.alarm, flood.told) == (CONTROL_ROOM, "a.0.t.high", 11)
    for n in (200, 400, 600):
        made.see(raised(n, f"b.{n}.t.high"))
    assert made.floods.open(608.9), "9, 10 and the three later ones are within ten minutes"
    assert not made.floods.open(609.0), "four"


def test_ten_in_ten_minutes_are_none_however_long_it_goes_on() -> None:
    made = load(*(raised(n * 60.0, f"a.{n}.t.high") for n in range(1000)))
    assert made.floods.open(999 * 60.0) == []


def test_the_alarm_names_position_first_out_and_number() -> None:
    made = load(*(raised(n, f"a.{n}.t.high") for n in range(15)))
    (sight,) = made.sights(15)
    assert sight.rule.id == "system.flood.control_room"
    assert sight.rule.name == "报警泛滥：control_room，首发 温度（a.0.t.high）"
    assert sight.rule.name_en == "Alarm flood: control_room, first-out temperature (a.0.t.high)"
    assert sight.value == 15
    assert sight.facts["first_out"] == "a.0.t.high"


@pytest.mark.parametrize(
    "changes", [{"kind": "repeated"}, {"kind": "acked"}, {"covered": True}, {"is_system": True}, {"kind": "recurred"}]
)
def test_what_tells_nobody_of_anything_new_is_no_load(changes: dict[str, Any]) -> None:
    assert load(*(raised(n, f"a.{n}.t.high", **changes) for n in range(100))).sights(99) == []


@pytest.mark.parametrize("kind", ["raised", "reraised", "reopened"])
def test_what_is_annunciated_is_load(kind: str) -> None:
    made = load(*(raised(n, f"a.{n}.t.high", kind) for n in range(11)))
    assert ids(made.floods.sights(11)) == ["system.flood.control_room"]


def test_each_position_has_its_own_floods() -> None:
    positions = {"store": "east", "boiler": "west"}
    seen = [raised(n, f"{area}.{n}.t.high") for n in range(10) for area in ("store", "boiler")]
    made = load(*seen, position_of=lambda area: positions[area])
    assert made.floods.open(10) == [], "ten each"
    made.see(raised(11, "boiler.x.t.high"))
    assert ids(made.sights(11)) == ["system.flood.west"]


def test_scenario_6_three_hundred_alarms_in_a_minute_are_one_flood_with_the_right_first_out() -> None:
    """As far as the flood is concerned: it begins once, names the first, and ends below five in ten minutes."""
    made = AlarmLoad()
    rules = [_rule(f"store.d{n}.t") for n in range(300)]
    engine, edges, was = Engine(rules, {}, at(0)), [], False
    now_s, n = 0.0, 0
    while now_s < 2000:
        due = []
        if now_s < 60:  # five each second, one of them in every two hundred milliseconds
            due = [engine.read(_reading(f"store.d{n}.t", 30.0, at(now_s)), at(now_s))]
            n += 1
        elif now_s % 150 == 0:  # then four in ten minutes
            name = f"store.d{round(now_s) // 150}.t"
            due = [engine.read(_reading(name, 0.0, at(now_s)), at(now_s))]
            due += [engine.read(_reading(name, 30.0, at(now_s)), at(now_s))]
        for draft in (draft for drafts in due for draft in drafts):
            made.see(Seen.of_record(draft.kind, draft.body["alarm"], draft.at.mono_s))
        is_on = bool(made.floods.open(100 + now_s))
        if is_on and not was:
            assert made.floods.open(100 + now_s)[0].first.alarm == "store.d0.t.high"
        if is_on != was:
            edges.append((round(now_s, 1), is_on))
        was = is_on
        now_s = round(now_s + 0.2, 1)
    assert n == 300
    assert edges[0] == (2.0, True), "the eleventh"
    assert [on for _, on in edges] == [True, False], "once"
    told_ms = [k * 200 for k in range(300)] + [150_000 * k for k in range(1, 14)]
    end_ms = round(edges[1][0] * 1000)
    assert sum(end_ms - 600_000 < each <= end_ms for each in told_ms) < 5
    assert sum(end_ms - 600_200 < each <= end_ms - 200 for each in told_ms) >= 5


# --- chatter ---


def test_scenario_5_chatter_by_the_third_activation_within_a_minute() -> None:
    """With deadband and delays at 0: noise around the limit once a second."""
    made, engine = AlarmLoad(), Engine([_rule("store.th1.t")], {}, at(0))
    activations = 0
    for n in range(3600):
        value = 20.4 if n % 2 else 19.6
        drafts = engine.read(_reading("store.th1.t", value, at(n)), at(n))
        for draft in drafts:
            made.see(Seen.of_record(draft.kind, draft.body["alarm"], draft.at.mono_s))
            activations += draft.kind in ("alarm.raised", "alarm.reopened")
        chatters = ids(made.chatter.sights(100.0 + n))
        assert chatters == (["system.chatter.store.th1.t.high"] if activations >= 3 else []), n
    assert made.chatter.sights(100 + 3599)[0].rule.name == "报警抖动：温度"


def test_three_in_more_than_a_minute_are_no_chatter_and_quiet_for_ten_minutes_ends_it() -> None:
    made = load(*(raised(at_s) for at_s in (0, 30, 60.5)))
    assert made.chatter.open(60.5) == []
    made.see(raised(89.9, kind="reopened"))
    assert ids(made.sights(90)) == ["system.chatter.store.th1.t.high"], "30, 60.5 and 89.9"
    made.see(raised(600, kind="reopened"))
    assert made.chatter.open(1199.9), "one activation within the ten minutes is not quiet"
    assert made.chatter.open(1200) == []
    made.see(raised(1201, kind="reopened"))
    assert made.chatter.open(1201) == [], "anew"


def test_exactly_a_minute_is_within_a_minute_and_quiet_ends_it_although_nobody_looked() -> None:
    made = load(*(raised(at_s) for at_s in (0, 30, 60)))
    assert made.chatter.open(60)
    made.see(raised(660, kind="reopened"))
    assert made.chatter.open(660) == []


def test_what_is_shelved_may_chatter() -> None:
    assert load(*(raised(n, covered=True) for n in range(10))).chatter.open(10) == []


def test_alarms_chatter_one_by_one() -> None:
    made = load(*(raised(n, f"store.d{n % 2}.t.high") for n in range(5)))
    assert ids(made.sights(5)) == ["system.chatter.store.d0.t.high"]


# --- standing ---


def test_one_alarm_for_all_that_are_on_for_more_than_a_day() -> None:
    made = load(*(raised(n * HOUR, f"store.d{n}.t.high") for n in range(3)))
    assert made.standing.sights(DAY) == []
    (sight,) = made.standing.sights(DAY + HOUR + 1)
    assert (sight.rule.id, sight.value) == ("system.standing", 2)
    assert sight.facts == {"count": 2, "alarms": ["store.d0.t.high", "store.d1.t.high"]}
    made.see(raised(DAY + HOUR + 2, "store.d0.t.high", "returned", active=False))
    assert made.standing.open(DAY + HOUR + 2) == ["store.d1.t.high"]
    made.see(raised(DAY + HOUR + 3, "store.d0.t.high", "reopened"))
    assert made.standing.open(DAY + HOUR + 3) == ["store.d1.t.high"], "on anew"
    for n in (1, 2):
        made.see(raised(DAY + HOUR + 4, f"store.d{n}.t.high", "closed", active=False))
    assert made.standing.sights(DAY + 3 * HOUR) == []


def test_an_acknowledgement_does_not_make_it_younger_and_a_cover_takes_it_out_for_now() -> None:
    made = load(raised(0), raised(HOUR, kind="acked"))
    assert made.standing.open(DAY + 1)
    made.see(raised(DAY + 2, kind="shelved", covered=True))
    assert made.standing.open(DAY + 2) == []
    made.see(raised(DAY + 3, kind="reraised"))
    assert made.standing.open(DAY + 3) == ["store.th1.t.high"]


def test_alarms_of_the_system_never_stand_chatter_or_flood() -> None:
    made = load(*(raised(n, f"system.chatter.a{n}", is_system=True) for n in range(50)))
    assert made.sights(2 * DAY) == []
    made.resume([{**_stored("system.disk"), "kind": "disk"}], 2 * DAY, lambda _: 2 * DAY)
    assert made.sights(2 * DAY) == []


def test_a_restart_knows_what_is_on_for_longer_than_the_records_it_saw() -> None:
    made = load(raised(2 * DAY - 60, "store.young.t.high", "reopened"))
    young, old = _stored("store.young.t.high"), _stored("store.old.t.high")
    made.resume([young, old, {**_stored("store.gone.t.high"), "active": None}], 2 * DAY, lambda _: 1.5 * DAY)
    assert made.standing.open(2 * DAY) == ["store.old.t.high"]


# --- against a recount, on records that the engine made ---

MOVES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(["on", "off", "worse", "ack", "shelve", "unshelve", "wait"]),
        st.sampled_from([0.0, 0.5, 1.0, 5.0, 19.5, 20.0, 60.0, 150.0, 599.0, 4000.0, 50_000.0]),
    ),
    max_size=120,
)


TOGGLES = st.lists(
    st.tuples(
        st.just(0), st.sampled_from(["on", "off", "on", "off", "shelve"]), st.sampled_from([0.0, 10.0, 20.0, 590])
    ),
    max_size=60,
)


@settings(max_examples=400, deadline=None)
@given(moves=st.one_of(MOVES, TOGGLES))
def test_at_every_moment_the_detectors_say_what_a_recount_of_all_records_says(
    moves: list[tuple[int, str, float]],
) -> None:
    positions = {"a0": "east", "a1": "east", "a2": "west", "a3": "west"}
    keys = Keys(flood_enter=4, flood_exit=2)
    made = AlarmLoad(position_of=lambda area: positions[area], keys=keys)
    engine = Engine([_rule(f"a{n}.d.t") for n in range(4)], {}, at(0))
    drafts: list[Draft] = []
    checks: list[float] = []
    now_s = 0.0
    for n, move, pause_s in moves:
        now_s += pause_s
        new = _move(engine, f"a{n}.d.t", move, at(now_s))
        drafts += new
        for draft in new:
            made.see(Seen.of_record(draft.kind, draft.body["alarm"], draft.at.mono_s))
        checks.append(now_s + 100)
        told = drafts
        assert {f.position: (f.first.at_s, f.told) for f in made.floods.open(checks[-1])} == {
            position: flood
            for position in ("east", "west")
            if (flood := _recount_flood(told, positions, position, keys, checks[-1])) is not None
        }
        assert {seen.alarm for seen in made.chatter.open(checks[-1])} == _recount_chatter(told, checks[-1])
        assert sorted(made.standing.open(checks[-1])) == sorted(_recount_standing(told, checks[-1]))


@settings(max_examples=100, deadline=None)
@given(pauses=st.lists(st.sampled_from([0.0, 1.0, 30.0, 61.0, 119.0, 300.0, 601.0]), min_size=1, max_size=150))
def test_the_alarm_and_the_report_count_the_same_floods(pauses: list[float]) -> None:
    made, events, begun, was, now_s = AlarmLoad(), [], 0, False, 0.0
    for n, pause_s in enumerate(pauses):
        was = was and bool(made.floods.open(now_s + pause_s))
        now_s += pause_s
        made.see(raised(now_s, f"a.d{n}.t.high"))
        is_on = bool(made.floods.open(now_s))
        begun, was = begun + (is_on and not was), is_on
        events.append(
            Event(
                at_ms=round(now_s * 1000),
                kind="alarm.raised",
                alarm=f"a.d{n}.t.high",
                occurrence=n,
                position=CONTROL_ROOM,
                priority=3,
                active=True,
            )
        )
    assert count(events, CONTROL_ROOM, 0, round(now_s * 1000) + 1).floods == begun


def test_every_kind_has_its_words_in_both_languages() -> None:
    for kind, meaning in MEANINGS.items():
        assert meaning.name, kind
        assert meaning.name_en.isascii(), kind
        assert 1 <= meaning.priority <= 4


def _rule(point: str) -> Rule:
    return Rule(
        id=f"{point}.high",
        point=point,
        area=point.partition(".")[0],
        side=Side.HIGH,
        name="温度",
        name_en="temperature",
        unit="°C",
        levels=(Level(kind=Kind.HI, limit=20.0, priority=3), Level(kind=Kind.HIHI, limit=25.0, priority=2)),
        required_acks=("keeper",),
    )


def _reading(point: str, value: float, when: Instant) -> Reading:
    return Reading(point=point, value=value, quality=Quality.GOOD, at=when)


def _stored(alarm: str) -> dict[str, Any]:
    return {"id": alarm, "kind": "hi", "active": "hi", "raised": {}, "overlay": None, "state": "ACKED"}


def _move(engine: Engine, point: str, move: str, when: Instant) -> list[Draft]:
    alarm = engine.alarm(f"{point}.high")
    match move:
        case "on" | "off" | "worse":
            value = {"on": 21.0, "off": 10.0, "worse": 30.0}[move]
            return engine.tick(when) + engine.read(_reading(point, value, when), when)
        case "ack" if alarm.state.value in ("UNACK", "RTNUN"):
            if any(ack.role == "keeper" for ack in alarm.acks):
                return engine.tick(when)
            return engine.tick(when) + engine.acknowledge(alarm.id, alarm.occurrence, "keeper", "li", when)
        case "shelve":
            overlay = Overlay(kind=OverlayKind.SHELVED, who="li", why="probe is dirty", since=when, for_s=3600.0)
            return engine.tick(when) + engine.cover(alarm.id, overlay, ("officer",), when)
        case "unshelve" if alarm.overlay is not None and not alarm.overlay.is_over(when):
            return engine.tick(when) + engine.uncover(alarm.id, OverlayKind.SHELVED, "li", when)
        case _:
            return engine.tick(when)


def _recount_flood(
    drafts: list[Draft], positions: dict[str, str], position: str, keys: Keys, now_s: float
) -> tuple[float, int] | None:
    """From the definition alone: walk over every moment at which the number in the window changes."""
    told = [
        draft.at.mono_s
        for draft in drafts
        if draft.kind.rpartition(".")[2] in ("raised", "reraised", "reopened")
        and positions[draft.body["alarm"]["area"]] == position
        and draft.body["alarm"]["overlay"] is None
    ]
    flood: tuple[float, int] | None = None
    for moment in sorted({now_s, *told, *(t + keys.flood_s for t in told)}):
        if moment > now_s:
            break
        # what leaves the window at this moment is gone before what comes at this moment is there, one by one
        older = [t for t in told if moment - keys.flood_s < t < moment]
        here = [t for t in told if t == moment]
        for n in range(len(here) + 1):
            window = older + here[:n]
            if flood is not None and len(window) < keys.flood_exit:
                flood = None
            if n and flood is not None:
                flood = flood[0], flood[1] + 1
            elif n and len(window) > keys.flood_enter:
                flood = min(window), len(window)
    return flood


def _recount_chatter(drafts: list[Draft], now_s: float) -> set[str]:
    found = set()
    for alarm in {draft.body["alarm"]["id"] for draft in drafts}:
        was_on, times = False, []
        for draft in (draft for draft in drafts if draft.body["alarm"]["id"] == alarm):
            is_on = draft.body["alarm"]["active"] is not None
            if is_on and not was_on and draft.body["alarm"]["overlay"] is None:
                times.append(draft.at.mono_s)
            was_on = is_on
        last_s = None  # of the chatter that goes on
        for n, time_s in enumerate(times):
            if last_s is not None and time_s - last_s >= 600:
                last_s = None
            if last_s is not None or (n >= 2 and time_s - times[n - 2] <= 60):
                last_s = time_s
        if last_s is not None and now_s - last_s < 600:
            found.add(alarm)
    return found


def _recount_standing(drafts: list[Draft], now_s: float) -> set[str]:
    found = set()
    for alarm in {draft.body["alarm"]["id"] for draft in drafts}:
        own = [draft for draft in drafts if draft.body["alarm"]["id"] == alarm]
        last_off = max([-1, *(n for n, draft in enumerate(own) if draft.body["alarm"]["active"] is None)])
        if last_off + 1 == len(own) or own[-1].body["alarm"]["overlay"] is not None:
            continue
        if now_s - own[last_off + 1].at.mono_s > DAY:
            found.add(alarm)
    return found
