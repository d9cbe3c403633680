"""Siren and stack light: what is shown is pure; what is written is read back from a real device, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sitewarden.edge.alarms.codec import alarm_json
from sitewarden.edge.alarms.machine import Acknowledge, Alarm, Event, Off, On, Realarm, Reset, State, step
from sitewarden.edge.alarms.overlay import Overlay, OverlayKind
from sitewarden.edge.alarms.rules import Kind, Level, Rule, Side
from sitewarden.edge.alerts.beacon import LOST, Beacon, BeaconSettings, LampTest, OutputRef, Weekly, is_due
from sitewarden.edge.alerts.opened import NOBODY, Open, concerning, heard, open_of, opened, silence, still_silenced
from sitewarden.edge.alerts.picture import (
    LAMP_TEST,
    PROOF_TEST,
    Light,
    Part,
    Picture,
    Step,
    fit,
    picture,
    wanted_states,
)
from sitewarden.edge.alerts.port import Channel, Fault, Notice, Outcome, Receiver, Sent
from sitewarden.errors import ConfigError, RefusedError
from sitewarden.sensors.buses import BusHealth, BusKind, BusSpec, UnitSpec
from sitewarden.sensors.modbus import Bus
from sitewarden.sensors.profiles import load_catalogue
from sitewarden.tests.peers.modbus_lamp import CODES, ModbusLamp
from sitewarden.tests.peers.virtual_time import START_UTC_MS, run_virtual, within
from sitewarden.words import Instant

DOC = Path(__file__).resolve().parent.parent / "docs" / "beacon.md"
TOWER = "gate.tower"
P1 = Open(id="pit.gas4.h2s.high", occurrence=1, priority=1, area="pit", point="pit.gas4.h2s")
P2 = Open(id="pit.gas4.ch4.high", occurrence=2, priority=2, area="pit", point="pit.gas4.ch4")
P3 = Open(id="store.th1.rh.high", occurrence=3, priority=3, area="store", point="store.th1.rh")
P4 = replace(P3, id="store.th1.t.high", occurrence=4, priority=4)
MODEM = Open(id="modem", occurrence=5, priority=2, kind="modem_down")


def mono_s() -> float:
    """Of the virtual loop."""
    return asyncio.get_running_loop().time()


def acked(alarm: Open) -> Open:
    return replace(alarm, acked=True)


# --- what is shown: rules ---------------------------------------------------------------------------------------------

ALARMS = st.lists(
    st.builds(
        Open,
        id=st.sampled_from("abcde"),
        occurrence=st.integers(1, 3),
        priority=st.integers(1, 4),
        area=st.sampled_from(("", "pit", "store")),
        point=st.sampled_from(("", "pit.d.p")),
        acked=st.booleans(),
        active=st.booleans(),
    ),
    max_size=6,
).map(tuple)
STEPS = st.sampled_from((None, *Step))
PRIORITIES = st.frozensets(st.integers(1, 4))
LAMP_STATES = st.sampled_from(
    (("off", "on"), ("off", "on", "slow"), ("off", "on", "fast"), ("off", "on", "slow", "fast"))
)
PARTS = st.dictionaries(st.sampled_from(list(Part)), LAMP_STATES).filter(lambda p: p.keys() & {Part.RED, Part.AMBER})


@st.composite
def silences(draw: st.DrawFn) -> tuple[tuple[Open, ...], dict[Any, float], float]:
    """Alarms, some of which were silenced until some time, and a moment."""
    alarms = draw(ALARMS)
    keys = st.sampled_from([a.key for a in alarms]) if alarms else st.just(("x", 1, 1))
    return alarms, draw(st.dictionaries(keys, st.floats(0, 100))), draw(st.floats(0, 100))


@given(silences(), STEPS, PRIORITIES, PARTS)
@settings(deadline=None)
def test_green_is_never_shown_beside_an_open_alarm(
    case: Any, lamp_test: Step | None, siren: frozenset[int], parts: dict[Part, tuple[str, ...]]
) -> None:
    alarms, silenced, now_s = case
    shown = picture(alarms, silenced, lamp_test, now_s, siren=siren)
    states = wanted_states(shown, parts)
    assert states.keys() == parts.keys()
    assert all(state in parts[part] for part, state in states.items() if part is not Part.SIREN)
    if alarms:
        assert shown.green is Light.OFF
        assert states.get(Part.GREEN, "off") == "off"
        assert {states.get(Part.RED, "off"), states.get(Part.AMBER, "off")} != {"off"}, "an open alarm is seen"
    elif lamp_test is None:
        assert shown == Picture(green=Light.ON)


@given(silences(), STEPS, PRIORITIES)
@settings(deadline=None)
def test_the_siren_sounds_for_what_nobody_acknowledged_or_silenced(
    case: Any, lamp_test: Step | None, siren: frozenset[int]
) -> None:
    alarms, silenced, now_s = case
    loud = any(not a.acked and a.priority in siren and not now_s < silenced.get(a.key, 0.0) for a in alarms)
    assert picture(alarms, silenced, None, now_s, siren=siren).siren is loud
    if alarms:
        assert picture(alarms, silenced, lamp_test, now_s, siren=siren).siren is loud, "a test changes nothing"


@given(silences(), PRIORITIES)
@settings(deadline=None)
def test_a_silence_stops_the_siren_and_not_the_light(case: Any, siren: frozenset[int]) -> None:
    alarms, silenced, now_s = case
    before = picture(alarms, silenced, None, now_s, siren=siren)
    quiet = silence(silenced, heard(alarms, silenced, siren, now_s), now_s + 1)
    after = picture(alarms, quiet, None, now_s, siren=siren)
    assert after == replace(before, siren=False)
    newer = Open(id="new", occurrence=9, priority=1, point="p")
    assert picture((*alarms, newer), quiet, None, now_s, siren=siren | {1}).siren, "a new alarm sounds"


@given(silences())
@settings(deadline=None)
def test_a_silence_ends_with_the_acknowledgement_and_with_its_time(case: Any) -> None:
    alarms, silenced, now_s = case
    kept = still_silenced(silenced, alarms, now_s)
    assert all(silenced[key] == until_s and until_s > now_s for key, until_s in kept.items())
    assert {a.key for a in alarms if not a.acked} >= kept.keys()
    everything = frozenset(range(1, 5))
    assert heard(alarms, kept, everything, now_s) == heard(alarms, silenced, everything, now_s)
    done = tuple(acked(a) for a in alarms)
    assert still_silenced(kept, done, now_s) == {}, "the next time it needs an acknowledgement it sounds"


@pytest.mark.parametrize(
    ("alarm", "siren", "sounds"),
    [
        ("system.delivery_failed.wang", {1}, True),
        ("system.delivery_failed.wang", set[int](), False),
        ("system.delivery_failed.channel.robot", {1}, False),
        ("system.modem_down.sms", {1}, False),
    ],
)
def test_a_person_who_is_not_reached_sounds_until_silenced(alarm: str, siren: set[int], sounds: bool) -> None:
    lost, which = replace(P2, id=alarm, point=""), frozenset(siren)
    assert picture((lost,), NOBODY, None, 0.0, siren=which).siren is sounds
    quiet = silence(NOBODY, heard((lost,), NOBODY, which, 0.0, unreached=True), 900.0)
    assert not picture((lost,), quiet, None, 1.0, siren=which).siren
    assert not picture((replace(lost, acked=True),), NOBODY, None, 0.0, siren=which).siren


def test_a_silenced_alarm_that_gets_worse_sounds_again() -> None:
    both = frozenset({1, 2})
    quiet = silence(NOBODY, heard((P2,), NOBODY, both, 0.0), 900.0)
    assert not picture((P2,), quiet, None, 1.0, siren=both).siren
    assert picture((replace(P2, priority=1),), quiet, None, 1.0, siren=both).siren


@given(ALARMS, STEPS)
@settings(deadline=None)
def test_a_test_is_never_taken_for_an_alarm_and_hides_none(alarms: tuple[Open, ...], lamp_test: Step | None) -> None:
    real = picture(alarms, NOBODY, None, 0.0)
    for shown in PROOF_TEST:
        pattern = picture((), NOBODY, shown, 0.0)
        assert Light.OFF not in (pattern.red, pattern.green)
        assert {fit(pattern, Part), replace(pattern, siren=False)}.isdisjoint({real, replace(real, siren=False)})
    if not all(a.acked for a in alarms):
        assert picture(alarms, NOBODY, lamp_test, 0.0) == real
    if alarms and lamp_test is not None:
        shown_ = picture(alarms, NOBODY, lamp_test, 0.0)
        assert shown_.red is not Light.OFF or real.red is Light.OFF
        assert shown_.amber is not Light.OFF or real.amber is Light.OFF


@given(ALARMS, st.frozensets(st.sampled_from(("pit", "store", "hall"))))
@settings(deadline=None)
def test_a_beacon_shows_its_own_areas_and_what_concerns_the_whole_site(
    alarms: tuple[Open, ...], areas: frozenset[str]
) -> None:
    found = concerning(alarms, areas)
    assert found == tuple(a for a in alarms if a.area in areas or a.area == "" or not areas)


CASES: dict[str, list[tuple[Open, ...]]] = {
    "nothing": [()],
    "priority 1, not acknowledged": [(P1,), (replace(P1, active=False),), (replace(MODEM, priority=1),)],
    "priority 2, not acknowledged": [(P2,)],
    "priority 3, not acknowledged": [(P3,)],
    "fault of the system (modem, disk, channel) of priority 2 to 4, not acknowledged": [
        (MODEM,),
        (replace(MODEM, priority=3),),
        (replace(MODEM, priority=4),),
    ],
    "priority 1 or 2, acknowledged and not closed": [(acked(P1),), (acked(P2),)],
    "priority 4; priority 3 and faults of the system, acknowledged and not closed; "
    "anything shelved, suppressed or out of service": [
        (replace(P1, acked=True, covered=True),),
        (P4,),
        (acked(P3),),
        (acked(P4),),
        (acked(MODEM),),
    ],
}


def test_the_document_says_what_is_shown() -> None:
    section = DOC.read_text("utf-8").split("## What is shown")[1].split("\n## ")[0]
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]
    assert table[0] == ["open in its areas", "red", "amber", "green", "siren"]
    rows = {cells[0]: cells[1:] for cells in table[2:]}
    assert rows.keys() == CASES.keys()
    for name, cells in rows.items():
        for alarms in CASES[name]:
            shown = picture(alarms, NOBODY, None, 0.0)
            told = [light.value for light in (shown.red, shown.amber, shown.green)] + ["on" if shown.siren else "off"]
            assert told == cells, name


def test_each_lamp_shows_its_most_urgent_alarm() -> None:
    for alarms in itertools.permutations((P1, P2, P3, acked(P4), MODEM)):
        assert picture(alarms, NOBODY, None, 0.0) == Picture(red=Light.FAST, amber=Light.FAST, siren=True)
    assert picture((acked(P1), P2, acked(P3), MODEM), NOBODY, None, 0.0) == Picture(red=Light.SLOW, amber=Light.SLOW)


@pytest.mark.parametrize(
    ("parts", "shown", "wanted"),
    [
        ({Part.RED: ("off", "on")}, Picture(amber=Light.FAST), {Part.RED: "on"}),
        ({Part.RED: ("off", "on", "slow", "fast")}, Picture(amber=Light.FAST), {Part.RED: "on"}),
        ({Part.RED: ("off", "on", "slow")}, Picture(red=Light.FAST, amber=Light.SLOW), {Part.RED: "slow"}),
        ({Part.AMBER: ("off", "on", "fast")}, Picture(red=Light.FAST, amber=Light.ON), {Part.AMBER: "fast"}),
        ({Part.AMBER: ("off", "on", "fast")}, Picture(red=Light.SLOW, amber=Light.OFF), {Part.AMBER: "on"}),
        (
            {Part.RED: ("off", "on"), Part.GREEN: ("off", "on")},
            Picture(green=Light.ON),
            {Part.RED: "off", Part.GREEN: "on"},
        ),
        ({Part.SIREN: ("off", "on")}, Picture(red=Light.FAST, siren=True), {Part.SIREN: "on"}),
    ],
)
def test_a_device_that_can_do_less_shows_what_comes_nearest(
    parts: dict[Part, tuple[str, ...]], shown: Picture, wanted: dict[Part, str]
) -> None:
    assert wanted_states(shown, parts) == wanted


# --- alarms as they are stored ----------------------------------------------------------------------------------------

RULE = Rule(
    id="pit.gas4.h2s.high",
    point="pit.gas4.h2s",
    area="pit",
    side=Side.HIGH,
    name="硫化氢",
    name_en="hydrogen sulphide",
    unit="ppm",
    levels=(Level(kind=Kind.HI, limit=7, priority=2), Level(kind=Kind.HIHI, limit=14, priority=1, latching=True)),
    required_acks=("keeper", "officer"),
)
EVENTS: dict[str, Event] = {
    "hi": On(level=RULE.levels[0], value=8.0),
    "hihi": On(level=RULE.levels[1], value=20.0),
    "off": Off(),
    "keeper": Acknowledge(occurrence=0, role="keeper", person="li"),
    "officer": Acknowledge(occurrence=0, role="officer", person="wang"),
    "reset": Reset(occurrence=0, person="wang", quality_good=True),
    "realarm": Realarm(),
}


@given(st.lists(st.sampled_from(list(EVENTS)), max_size=12))
@settings(deadline=None)
def test_a_restart_shows_the_same_from_the_stored_alarms_alone(names: list[str]) -> None:
    """Whatever happened to an alarm, its stored object is all that the picture needs."""
    at = Instant(utc_ms=START_UTC_MS, mono_s=5.0, boot="b")
    alarm, next_occurrence = Alarm(id=RULE.id), 1
    for name in names:
        event = EVENTS[name]
        if isinstance(event, Acknowledge | Reset):
            event = replace(event, occurrence=alarm.occurrence)
        try:
            transitions = step(RULE, alarm, event, at, next_occurrence)
        except RefusedError:
            continue
        for transition in transitions:
            alarm = transition.alarm
            next_occurrence = max(next_occurrence, alarm.occurrence + 1)
    stored = alarm_json(RULE, alarm, at)
    alarms = opened([stored])
    shown = picture(alarms, NOBODY, None, 0.0)
    waits = alarm.state in (State.UNACK, State.RTNUN, State.LATU)
    assert shown.siren is (waits and alarm.priority == 1)
    assert (shown.green is Light.ON) is (alarm.state is State.NORM)
    if alarm.state is not State.NORM:
        assert shown.red is (Light.ON if not waits else Light.FAST if alarm.priority == 1 else Light.SLOW)
        assert open_of({"alarm": stored}) == alarms[0]
        assert (alarms[0].name, alarms[0].value, alarms[0].unit) == ("硫化氢", alarm.value, "ppm")
    assert open_of({}) is None


def test_a_shelved_alarm_is_seen_and_not_heard() -> None:
    """Nobody is told, and still it is open: not green."""
    at = Instant(utc_ms=START_UTC_MS, mono_s=5.0, boot="b")
    (raised,) = step(RULE, Alarm(id=RULE.id), EVENTS["hihi"], at, 1)
    shelf = Overlay(kind=OverlayKind.SHELVED, who="wang", why="test of the sensor", since=at, for_s=600.0)
    alarms = opened([alarm_json(RULE, replace(raised.alarm, overlay=shelf), at)])
    assert picture(alarms, NOBODY, None, 0.0) == Picture(amber=Light.ON)
    quiet = silence(NOBODY, [alarms[0].key], 900.0)
    assert still_silenced(quiet, alarms, 1.0) == {}, "when the shelf ends it sounds"


# --- the schedule of lamp tests ---------------------------------------------------------------------------------------

ZONE = ZoneInfo("Asia/Shanghai")
WEEK = timedelta(days=7)


def ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


@pytest.mark.parametrize(
    ("now_", "tested", "due"),
    [
        ("2026-11-23 10:00", "2026-11-20 10:00", True),  # a Monday
        ("2026-11-23 10:59", "2026-11-20 10:00", True),
        ("2026-11-23 11:00", "2026-11-20 10:00", False),  # the hour is over
        ("2026-11-23 09:59", "2026-11-20 10:00", False),
        ("2026-11-23 10:30", "2026-11-23 10:00", False),  # done
        ("2026-11-24 10:30", "2026-11-20 10:00", False),  # a Tuesday
        ("2026-11-24 10:30", "2026-11-16 10:00", True),  # a Tuesday, and Monday's was prevented
        ("2026-11-24 03:30", "2026-11-01 10:00", False),  # nobody is woken by a test
    ],
)
def test_when_a_lamp_test_is_due(now_: str, tested: str, due: bool) -> None:
    moments = [ms(datetime.fromisoformat(text).replace(tzinfo=ZONE)) for text in (now_, tested)]
    assert is_due(Weekly(weekday=0, hour=10), moments[0], moments[1], "Asia/Shanghai") is due


def test_the_hour_that_comes_twice_has_one_test() -> None:
    """The end of summer time in Berlin, 2026-10-25: 02:35 comes at 00:35 and at 01:35 UTC."""
    first, second = (datetime(2026, 10, 25, hour, 35, tzinfo=ZoneInfo("UTC")) for hour in (0, 1))
    schedule = Weekly(weekday=6, hour=2, minute=30)
    assert is_due(schedule, ms(first), ms(first - WEEK), "Europe/Berlin")
    assert not is_due(schedule, ms(second), ms(first), "Europe/Berlin")


@given(
    st.integers(1_700_000_000, 2_050_000_000),
    st.builds(Weekly, weekday=st.integers(0, 6), hour=st.integers(0, 22), minute=st.integers(0, 59)),
    st.sampled_from(("Asia/Shanghai", "Europe/Berlin", "UTC")),
)
@settings(deadline=None)
def test_lamps_are_tested_once_a_week(start_s: int, schedule: Weekly, timezone: str) -> None:
    """Asked every ten minutes for three weeks, from any start."""
    tested = at = start = datetime.fromtimestamp(start_s, ZoneInfo("UTC"))
    tests: list[datetime] = []
    while at < start + 3 * WEEK:
        if is_due(schedule, ms(at), ms(tested), timezone):
            tests.append(at)
            tested = at
        at += timedelta(minutes=10)
    slack = timedelta(minutes=80)  # summer time, and how often it is asked
    for one, other in itertools.pairwise([start, *tests, at]):
        assert one in (start, tests[-1]) or abs(other - one - WEEK) <= slack
        assert other - one <= WEEK + slack
    for test in tests:
        assert test.astimezone(ZoneInfo(timezone)).weekday() == schedule.weekday


# --- a real device ----------------------------------------------------------------------------------------------------


def tower_profile(folder: Path) -> Any:
    """The example of the document."""
    text = re.findall(r"^```toml\n(.*?)^```", DOC.read_text("utf-8"), re.MULTILINE | re.DOTALL)[0]
    (folder / "stack_light.toml").write_text(text, "utf-8")
    return load_catalogue(folder)["stack_light"]


def refs(unit: UnitSpec, *parts: Part) -> dict[Part, OutputRef]:
    states = {o.name: tuple(name for name, _ in o.states) for o in unit.outputs}
    return {part: OutputRef(id=f"{unit.device}.{part.value}", states=states[part.value]) for part in parts or Part}


@dataclass
class Post:
    """A tower on a real bus, and the beacon that drives it."""

    lamp: ModbusLamp
    bus: Bus
    unit: UnitSpec
    beacon: Beacon
    asked: list[tuple[str, str]] = field(default_factory=list)
    tests: list[LampTest] = field(default_factory=list)

    async def shows(self, **wanted: str) -> None:
        whole = {"siren": "off", "red": "off", "amber": "off", "green": "off", **wanted}
        await within(70.0, lambda: self.lamp.seen == whole, lambda: f"{self.lamp.seen}, wanted {whole}")

    async def reports(self, fault: Fault) -> None:
        health = self.beacon.health
        await within(70.0, lambda: health.fault is fault, lambda: f"{health.fault} {health.detail}")


@asynccontextmanager
async def post(unit: UnitSpec, *, parts: Mapping[Part, OutputRef] | None = None, **more: Any) -> AsyncIterator[Post]:
    """Enter the beacon yourself."""
    async with AsyncExitStack() as stack:
        lamp = await stack.enter_async_context(ModbusLamp())
        spec = BusSpec(
            id="b", kind=BusKind.TCP, host="127.0.0.1", port=lamp.port, units=(unit,), timeout_ms=400, late_max_ms=500
        )
        bus = Bus(spec, lambda _: None, BusHealth.of(spec))
        made: Post

        async def set_output(name: str, state: str) -> None:
            made.asked.append((name, state))
            device, _, output = name.rpartition(".")
            await bus.write(device, output, state)

        settings_ = BeaconSettings(id="gate", parts=parts or refs(unit), **{"lamp_test": None, **more})
        made = Post(lamp, bus, unit, Beacon(settings_, set_output, lambda result: made.tests.append(result)))
        group = await stack.enter_async_context(asyncio.TaskGroup())
        task = group.create_task(bus.run(), name="bus")
        stack.callback(task.cancel)
        yield made


@pytest.fixture
def unit(tmp_path: Path) -> UnitSpec:
    return tower_profile(tmp_path).unit(TOWER, 1, 2.0)


def live(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """In virtual time; a device that hangs is waited for."""
    run_virtual(lambda _: main(), seed=1)


def notice(alarm: Open | None = P1, **more: Any) -> Notice:
    facts = {} if alarm is None else {"alarm": {**alarm_json(RULE, Alarm(id=alarm.id), AT), **_fields(alarm)}}
    given = {"key": "k", "to": Receiver(), "title": "t", "text": "t", "priority": alarm.priority if alarm else 1}
    return Notice(**{**given, "facts": facts, **more})


AT = Instant(utc_ms=START_UTC_MS, mono_s=5.0, boot="b")


def _fields(alarm: Open) -> dict[str, Any]:
    return {"occurrence": alarm.occurrence, "priority": alarm.priority, "state": "UNACK"}


def test_a_beacon_is_a_channel(unit: UnitSpec) -> None:
    channel: Channel = Beacon(BeaconSettings(id="g", parts=refs(unit)), lambda *_: asyncio.sleep(0))
    assert channel.health.fault is Fault.NONE


def test_an_alarm_from_the_first_light_to_green_again(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            await asyncio.sleep(20)
            assert made.lamp.written == [], "nobody has said yet what is open"
            beacon.show([])
            await made.shows(green="on")
            beacon.show([P1, P3])
            await made.shows(siren="on", red="fast", amber="fast")
            assert beacon.silence() == (P1.id,)
            await made.shows(red="fast", amber="fast")
            assert beacon.health.facts["silenced"] == [P1.id]
            again_ = replace(P1, id="pit.gas4.co.high", occurrence=9)
            beacon.show([P1, P3, again_])
            await made.shows(siren="on", red="fast", amber="fast")
            beacon.show([acked(P1), acked(again_), P3])
            await made.shows(red="on", amber="fast")
            beacon.show([P1])
            await made.shows(siren="on", red="fast")
            beacon.show([])
            await made.shows(green="on")
            assert beacon.health.fault is Fault.NONE
            assert beacon.health.facts["outputs"] == beacon.health.facts["wanted"]

    live(main)


def test_the_siren_is_written_first(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([P1])
            await made.shows(siren="on", red="fast")
            assert [name for name, _ in made.lamp.written[:2]] == ["siren", "red"]

    live(main)


def test_a_silence_that_is_over_sounds_again(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit, silence_s=300.0) as made, made.beacon as beacon:
            beacon.show([P1])
            await made.shows(siren="on", red="fast")
            beacon.silence()
            await made.shows(red="fast")
            silenced_s = mono_s()
            await asyncio.sleep(290 - (mono_s() - silenced_s))
            await made.shows(red="fast")
            await asyncio.sleep(15)
            await made.shows(siren="on", red="fast")
            assert beacon.health.facts["silenced"] == []

    live(main)


def test_the_devices_watchdog_stays_quiet_until_the_gateway_is_gone(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit, has_watchdog=True) as made:
            made.lamp.watchdog_s = 15.0
            async with made.beacon as beacon:
                beacon.show([acked(P1)])
                await made.shows(red="on")
                before = len(made.lamp.written)
                for _ in range(60):
                    await asyncio.sleep(10)
                    assert not made.lamp.lost
                refreshed = len(made.lamp.written) - before
                assert 450 <= refreshed <= 485, "four outputs every five seconds"
                written = len(made.lamp.written)
            assert len(made.lamp.written) == written, "it is left to its watchdog"
            await made.shows(red="on", amber="on")
            assert made.lamp.lost

    live(main)


@pytest.mark.parametrize("state", [LOST, "slow", "on"])
def test_without_a_watchdog_amber_says_that_the_gateway_stops(unit: UnitSpec, state: str) -> None:
    extra = (("lost", CODES["medium"]),) if state == LOST else ()
    names = ("off", "on") if state == "on" else ("off", "on", "slow")
    amber = tuple(s for s in unit.outputs[2].states if s[0] in names) + extra
    outputs = (*unit.outputs[:2], replace(unit.outputs[2], states=amber), unit.outputs[3])
    changed = replace(unit, outputs=outputs)

    async def main() -> None:
        async with post(changed) as made:
            async with made.beacon as beacon:
                beacon.show([])
                await made.shows(green="on")
            assert made.lamp.seen["green"] == "off"
            assert made.lamp.seen["amber"] == ("medium" if state == LOST else state)
            async with post(changed) as other:
                async with other.beacon as beacon:
                    beacon.show([P1])
                    await other.shows(siren="on", red="fast")
                assert (other.lamp.seen["siren"], other.lamp.seen["red"]) == ("on", "fast")
            async with post(changed) as silent:
                async with silent.beacon:
                    pass
                assert silent.lamp.written == [], "nothing was ever shown"

    live(main)


def test_a_device_that_comes_back_shows_what_happened_meanwhile(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            await made.lamp.die()
            await made.reports(Fault.OFFLINE)
            assert f"{TOWER}.green" in beacon.health.detail
            assert beacon.health.facts["outputs"]["green"] is None, "nobody knows"
            beacon.show([P1])
            await asyncio.sleep(600)
            await made.reports(Fault.OFFLINE)
            await made.lamp.live()
            await made.shows(siren="on", red="fast")
            await made.reports(Fault.NONE)
            assert beacon.health.detail == ""

    live(main)


@pytest.mark.parametrize(
    ("how", "fault", "word"),
    [
        ("stuck", Fault.REFUSING, "reads back"),
        ("refuses", Fault.REFUSING, "exception"),
        ("deaf", Fault.SILENT, "no reply"),
    ],
)
def test_a_lamp_that_does_not_take_it_is_a_fault_and_the_others_go_on(
    unit: UnitSpec, how: str, fault: Fault, word: str
) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            setattr(made.lamp, how, {"red"})
            beacon.show([P1])
            await made.shows(siren="on")
            await made.reports(fault)
            assert f"red ({TOWER}.red) did not become fast" in beacon.health.detail
            assert word in beacon.health.detail
            assert beacon.health.facts["en"] == beacon.health.detail
            assert beacon.health.facts["zh"].startswith(f"红灯（{TOWER}.red）没有变为 fast：设备没有")
            assert "siren" not in beacon.health.detail
            tries = made.asked.count((f"{TOWER}.red", "fast"))
            await asyncio.sleep(300)
            more = made.asked.count((f"{TOWER}.red", "fast")) - tries
            assert 4 <= more <= 30, "tried for ever, with pauses"
            refreshed = made.asked.count((f"{TOWER}.siren", "on"))
            assert refreshed >= 50, "the siren does not wait for the lamp"
            made.lamp.heal()
            await made.shows(siren="on", red="fast")
            await made.reports(Fault.NONE)

    live(main)


def test_a_dead_device_leaves_the_wire_to_the_others(unit: UnitSpec) -> None:
    """Its attempts take at most a quarter of the time, and a new alarm is tried at once all the same."""

    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            made.lamp.silent = True
            beacon.show([acked(P1)])
            await made.reports(Fault.SILENT)
            await asyncio.sleep(120)
            spent_s, asked = 0.0, len(made.asked)
            start_s = mono_s()
            await asyncio.sleep(900)
            spent_s = (len(made.asked) - asked) * 4 * 0.4  # two tries, each a write or a read that is not answered
            assert 0 < spent_s <= (mono_s() - start_s) / 4
            tries = made.asked.count((f"{TOWER}.siren", "off"))
            await within(70.0, lambda: made.asked.count((f"{TOWER}.siren", "off")) > tries, lambda: "the next try")
            await asyncio.sleep(5)
            asked = len(made.asked)
            beacon.show([P1])
            await within(8.0, lambda: (f"{TOWER}.siren", "on") in made.asked[asked:], lambda: str(made.asked[asked:]))

    live(main)


def test_a_port_that_hangs_or_breaks_is_a_fault_and_no_more(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made:
            hall = {Part.SIREN: OutputRef(id="hall.relay.siren"), Part.RED: OutputRef(id="yard.relay.lamp")}
            wired = refs(unit, Part.AMBER, Part.GREEN) | hall
            direct = made.beacon._keeper._set_output
            asked: list[str] = []
            hanging: list[str] = []

            async def set_output(name: str, state: str) -> None:
                asked.append(name)
                if name.startswith("hall"):
                    hanging.append(name)
                    assert len(hanging) == 1, "one write at a time"
                    try:
                        await asyncio.get_running_loop().create_future()
                    finally:
                        hanging.clear()
                elif name.startswith("yard"):
                    raise ZeroDivisionError("a defect")
                else:
                    await direct(name, state)

            beacon = Beacon(BeaconSettings(id="gate", parts=wired, lamp_test=None), set_output)
            async with beacon:
                beacon.show([replace(P3, acked=True)])
                await made.shows(amber="on")
                await within(90, lambda: "hall" in beacon.health.detail, lambda: beacon.health.detail)
                assert "yard.relay.lamp) did not become off: a defect" in beacon.health.detail
                assert beacon.health.fault is Fault.SILENT
                tried = asked.count("yard.relay.lamp")
                await asyncio.sleep(120)
                assert asked.count("yard.relay.lamp") > tried
                assert asked.count("hall.relay.siren") > 1
                assert "a defect" in beacon.health.detail
                assert "one write at a time" not in beacon.health.detail
                assert mono_s() - beacon.health.beat_s < 5

    live(main)


def test_a_relay_board_shows_an_alarm_as_far_as_it_can() -> None:
    unit = load_catalogue()["relay_siren"].unit("store.relay", 3, 2.0)
    siren, lamp = (OutputRef(id=f"store.relay.{name}") for name in ("siren", "lamp"))

    async def main() -> None:
        async with post(unit, parts={Part.SIREN: siren, Part.RED: lamp}) as made, made.beacon as beacon:
            beacon.show([MODEM])
            await made.shows(red="on")
            beacon.show([P1])
            await made.shows(red="on", siren="on")
            beacon.show([])
            await made.shows()
            assert beacon.health.fault is Fault.NONE

    live(main)


# --- notices ----------------------------------------------------------------------------------------------------------


async def sent(beacon: Beacon, what: Notice) -> Sent:
    async with asyncio.timeout(120):
        return await beacon.send(what)


def test_it_is_delivered_when_the_siren_was_read_back(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([P1])
            await made.shows(siren="on", red="fast")
            written = len(made.lamp.written)
            answer = await sent(beacon, notice())
            assert answer.outcome is Outcome.DELIVERED
            assert answer.detail == "read back: siren on"
            assert ("siren", "on") in made.lamp.written[written:], "an old read-back is no proof"
            beacon.silence()
            await made.shows(red="fast")
            assert (await sent(beacon, notice())).detail == "read back: red fast"
            beacon.show([P2, P3])
            assert (await sent(beacon, notice(P2))).detail == "read back: red slow, amber fast"
            assert (beacon.health.delivered, beacon.health.failed) == (3, 0)

    live(main)


def test_a_notice_waits_for_its_alarm(unit: UnitSpec) -> None:
    """Outbox and beacon hear of an alarm at the same time, in any order."""

    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            async with asyncio.TaskGroup() as group:
                answer = group.create_task(sent(beacon, notice()), name="send")
                await asyncio.sleep(2)
                assert not answer.done()
                beacon.show([P1])
            assert answer.result().outcome is Outcome.DELIVERED

    live(main)


@pytest.mark.parametrize(("how", "word"), [("stuck", "reads back"), ("deaf", "no reply"), ("refuses", "exception")])
def test_it_is_not_delivered_when_the_siren_does_not_sound(unit: UnitSpec, how: str, word: str) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            setattr(made.lamp, how, {"siren"})
            beacon.show([P1])
            answer = await sent(beacon, notice())
            assert answer.outcome is Outcome.FAILED
            assert word in answer.detail
            assert made.lamp.seen["siren"] == "off"
            answer = await sent(beacon, notice())
            assert answer.outcome is Outcome.FAILED, "and not the next time either"
            assert (beacon.health.delivered, beacon.health.failed) == (0, 2)
            made.lamp.heal()
            await made.shows(siren="on", red="fast")
            assert (await sent(beacon, notice())).outcome is Outcome.DELIVERED

    live(main)


def test_what_a_beacon_refuses(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit, areas=("pit",)) as made, made.beacon as beacon:
            beacon.show([P2, P3])
            await made.shows(red="slow")
            for what in (
                notice(P2, to=Receiver(person="li")),
                notice(P2, to=Receiver(person="li"), is_test=True),
                notice(P3),  # another area
                notice(P1),  # closed, or not shown yet
                notice(replace(P2, occurrence=1)),  # an older occurrence
                notice(None, priority=1),
            ):
                answer = await sent(beacon, what)
                assert answer.outcome is Outcome.REFUSED, what
                assert answer.detail
            assert (await sent(beacon, notice(None, priority=2))).outcome is Outcome.DELIVERED
            assert {name for name, state in made.lamp.written if state != "off"} == {"red"}

    live(main)


# --- tests of the device ----------------------------------------------------------------------------------------------


def changes(written: list[tuple[str, str]], before: dict[str, str]) -> list[dict[str, str]]:
    """What could be seen, one after the other, without the refreshes."""
    seen, now_ = [], dict(before)
    for name, state in written:
        if now_[name] != state:
            now_ = {**now_, name: state}
            seen.append({n: s for n, s in now_.items() if s != "off"})
    return seen


GREEN = {"siren": "off", "red": "off", "amber": "off", "green": "on"}


def test_a_lamp_test_shows_each_lamp_and_chirps(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            made.lamp.written.clear()
            result = await beacon.lamp_test()
            await made.shows(green="on")
            assert (result.failed, result.left_out, result.interrupted) == ({}, [], False)
            assert beacon.health.facts["lamp_test"]["at"] == result.at
            assert made.tests == [result]
            seen = changes(made.lamp.written, GREEN)
            shown = [{"red": "on"}, {"amber": "on"}, {"green": "on"}, {"siren": "on"}, {"green": "on"}]
            assert [s for s in seen if s in shown] == shown

    live(main)


def test_a_lamp_test_names_the_lamp_that_fails(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            made.lamp.stuck = {"amber"}
            result = await beacon.lamp_test()
            assert result.failed.keys() == {"amber"}
            assert f"amber ({TOWER}.amber) did not become on" in result.failed["amber"]
            await made.shows(green="on")

    live(main)


@pytest.mark.parametrize("when_s", [0.5, 2.0, 5.0, 8.0])
def test_a_real_alarm_ends_a_lamp_test_at_once(unit: UnitSpec, when_s: float) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            async with asyncio.TaskGroup() as group:
                test = group.create_task(beacon.lamp_test(), name="test")
                await asyncio.sleep(when_s)
                with pytest.raises(RefusedError) as refused:
                    await beacon.lamp_test()
                assert refused.value.reason == "busy"
                start_s = mono_s()
                beacon.show([P1])
                await made.shows(siren="on", red="fast")
                assert mono_s() - start_s <= 2
            assert test.result().interrupted
            with pytest.raises(RefusedError) as refused:
                await beacon.lamp_test()
            assert refused.value.reason == "in_alarm"
            await made.shows(siren="on", red="fast")

    live(main)


def test_beside_an_acknowledged_alarm_only_red_and_amber_are_tried(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([acked(P3)])
            await made.shows(amber="on")
            made.lamp.written.clear()
            result = await beacon.lamp_test()
            await made.shows(amber="on")
            assert result.left_out == ["green", "siren"]
            seen = changes(made.lamp.written, {**GREEN, "green": "off", "amber": "on"})
            assert seen == [{"red": "on", "amber": "on"}, {"amber": "on"}]

    live(main)


def test_what_may_not_be_tried_any_more_was_not_tried(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            async with asyncio.TaskGroup() as group:
                test = group.create_task(beacon.lamp_test(), name="test")
                await asyncio.sleep(1)
                beacon.show([acked(P3)])
            assert test.result().interrupted
            await made.shows(amber="on")

    live(main)


def test_the_weekly_test_comes_by_itself_and_once(unit: UnitSpec) -> None:
    local = datetime.fromtimestamp(START_UTC_MS / 1000, ZONE)
    schedule = Weekly(weekday=local.weekday(), hour=local.hour + 1, minute=0)

    async def main() -> None:
        async with post(unit, lamp_test=schedule) as made, made.beacon as beacon:
            beacon.show([P1])
            await asyncio.sleep(3600 + 600)
            assert made.tests == [], "an alarm prevents it"
            beacon.show([])
            await within(60, lambda: made.tests, lambda: "a test")
            await made.shows(green="on")
            assert not made.tests[0].interrupted
            await asyncio.sleep(3 * 3600)
            assert len(made.tests) == 1

    live(main)


def test_a_proof_test_looks_like_no_alarm_and_is_read_back(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            made.lamp.written.clear()
            answer = await sent(beacon, notice(None, is_test=True))
            assert answer.outcome is Outcome.DELIVERED
            await made.shows(green="on")
            seen = changes(made.lamp.written, GREEN)
            assert {"siren": "on", "red": "slow", "green": "slow"} in seen
            assert seen.index({"red": "slow", "green": "slow"}) > seen.index(
                {"siren": "on", "red": "slow", "green": "slow"}
            )
            made.lamp.stuck = {"siren"}
            answer = await sent(beacon, notice(None, is_test=True))
            assert answer.outcome is Outcome.FAILED
            assert f"siren ({TOWER}.siren) did not become on" in answer.detail
            made.lamp.heal()
            await made.reports(Fault.NONE)
            for alarms in ([acked(P1)], [P3]):
                beacon.show(alarms)
                answer = await sent(beacon, notice(None, is_test=True))
                assert answer.outcome is Outcome.LATER
                assert answer.detail.startswith("an alarm is open")
                assert answer.retry_s > 0

    live(main)


def test_a_real_alarm_ends_a_proof_test(unit: UnitSpec) -> None:
    async def main() -> None:
        async with post(unit) as made, made.beacon as beacon:
            beacon.show([])
            await made.shows(green="on")
            async with asyncio.TaskGroup() as group:
                answer = group.create_task(sent(beacon, notice(None, is_test=True)), name="send")
                await asyncio.sleep(1)
                later = await sent(beacon, notice(None, is_test=True))
                assert later.outcome is Outcome.LATER, "one at a time"
                beacon.show([P1])
            assert answer.result().outcome is Outcome.LATER
            await made.shows(siren="on", red="fast")

    live(main)


# --- settings ---------------------------------------------------------------------------------------------------------


def test_a_beacon_that_nobody_would_notice_is_refused() -> None:
    green = OutputRef(id="a.b.green")
    with pytest.raises(ConfigError, match="it has neither a siren nor a red or amber lamp"):
        BeaconSettings(id="x", parts={Part.GREEN: green})
    odd = OutputRef(id="a.b.red", states=("dark", "on"))
    with pytest.raises(ConfigError, match=r"red: a\.b\.red has no state 'off' \(it has dark, on\)") as wrong:
        BeaconSettings(id="x", parts={Part.RED: odd, Part.AMBER: OutputRef(id="a.b.red")})
    assert "a.b.red is named twice" in str(wrong.value)


def test_the_document_names_every_state_and_part() -> None:
    text = DOC.read_text("utf-8")
    assert all(f"`{word}`" in text for word in [*Light, *Part, LOST])
    section = text.split("## Settings")[1].split("\n## ")[0]
    keys = re.findall(
        r"`(\w+)`", "".join(line.split("|")[1] for line in section.splitlines() if line.startswith("| `"))
    )
    assert keys == [name for name in BeaconSettings.__dataclass_fields__ if name != "id"]
    assert set(LAMP_TEST + PROOF_TEST) == set(Step)
