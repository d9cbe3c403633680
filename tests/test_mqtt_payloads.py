"""Payloads as tables: paths, numbers, units, times, clocks, and what a source makes of a message."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.sensors.mqtt_payloads import (
    FRESH,
    LATE,
    MISSING,
    SKEWED,
    DeviceClock,
    compile_path,
    filter_problem,
    find,
    parse_time,
    read_number,
)
from sitewarden.sensors.mqtt_sources import JsonSource, matches
from sitewarden.sensors.mqtt_words import MAX_PAYLOAD_BYTES, Arrival, MqttDevice, MqttPoint, Reject, Taken
from sitewarden.words import ClockState, Instant, Quality, Reading

UTC_MS = 1_800_000_000_000
AT = Instant(utc_ms=UTC_MS, mono_s=5000.0, boot="b", clock=ClockState.SYNCED)
GAS4 = MqttDevice(
    device="pit.gas4",
    topic="devices/gas4",
    points=(
        MqttPoint(name="ch4", path="ch4", low=0, high=100),
        MqttPoint(name="co", path="more.co", scale=Decimal("0.1")),
    ),
    status_path="status",
)


def after(seconds: float) -> Instant:
    return replace(AT, utc_ms=UTC_MS + round(seconds * 1000), mono_s=AT.mono_s + seconds)


def payload(**changes: Any) -> bytes:
    return json.dumps({"ch4": 0.4, "more": {"co": 3}, "status": "ok", **changes}).encode()


def take(source: JsonSource, data: bytes, at: Instant = AT, topic: str = "", **flags: bool) -> Taken:
    return source.take(Arrival(topic=topic or source.device.topic, payload=data, at=at, **flags))


def seen(data: bytes, device: MqttDevice = GAS4) -> dict[str, tuple[float | None, str]]:
    taken = take(JsonSource(device), data)
    assert not taken.reject
    assert all((r.quality is Quality.GOOD) == (r.why == "") == (r.value is not None) for r in taken.readings)
    assert all(r.at is AT for r in taken.readings)
    return {r.point.rpartition(".")[2]: (r.value, r.why) for r in taken.readings}


def one(**changes: Any) -> JsonSource:
    """A device with the point x."""
    point = {key: changes.pop(key) for key in list(changes) if key in MqttPoint.__slots__ and key != "topic"}
    points = (MqttPoint(**{"name": "x", "path": "x", **point}),)
    return JsonSource(MqttDevice(**{"device": "a.d", "topic": "t", "points": points, **changes}))


def reading(taken: Taken) -> Reading:
    assert not taken.reject, taken
    (found,) = taken.readings
    return found


def said(taken: Taken) -> tuple[float | None, Quality, str]:
    found = reading(taken)
    return found.value, found.quality, found.why


# --- JSON ---


def test_good_payload() -> None:
    assert seen(payload(other=[1, "x"])) == {"ch4": (0.4, ""), "co": (0.3, "")}
    assert seen(payload(ch4=7)) == {"ch4": (7.0, ""), "co": (0.3, "")}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("NaN", "not_a_number"),
        ("Infinity", "not_a_number"),
        ("-Infinity", "not_a_number"),
        ("1e999", "not_a_number"),
        ("1" + "0" * 400, "not_a_number"),
        ("null", "no_value"),
        ('"0.4"', "wrong_type"),
        ("true", "wrong_type"),
        ("[0.4]", "wrong_type"),
        ("{}", "wrong_type"),
        ("-0.1", "out_of_range"),
        ("100.1", "out_of_range"),
    ],
)
def test_bad_number_spoils_only_its_point(value: str, why: str) -> None:
    data = f'{{"ch4": {value}, "more": {{"co": {value if why == "not_a_number" else 3}}}, "status": "ok"}}'.encode()
    assert seen(data)["ch4"] == (None, why)
    assert seen(data)["co"] == ((None, why) if why == "not_a_number" else (0.3, ""))


def test_missing_paths() -> None:
    assert seen(b'{"status": "ok"}') == {"ch4": (None, "missing"), "co": (None, "missing")}
    assert seen(payload(more=[3]))["co"] == (None, "missing")


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ("warm_up", "status_warm_up"),
        ("Fault", "status_fault"),
        ("out of order!", "status_unknown"),
        ("x" * 33, "status_unknown"),
        (3, "status_3"),
        (None, "status_unknown"),
        (["ok"], "status_unknown"),
    ],
)
def test_status_spoils_every_point(status: object, why: str) -> None:
    assert seen(payload(status=status)) == {"ch4": (None, why), "co": (None, why)}


def test_status_may_be_missing_a_number_or_not_asked_for() -> None:
    assert set(seen(b'{"ch4": 1}').values()) == {(None, "status_missing")}
    assert seen(payload(status=1), replace(GAS4, status_ok=frozenset({"1"})))["ch4"] == (0.4, "")
    assert seen(payload(status=True), replace(GAS4, status_ok=frozenset({"true"})))["ch4"] == (0.4, "")
    assert seen(payload(status="broken"), replace(GAS4, status_path=None))["ch4"] == (0.4, "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"ch4": "\xff"}', "not_utf8"),
        (b"\x00\x01garbage", "not_json"),
        (b'{"ch4": 1, "x": "' + b"x" * MAX_PAYLOAD_BYTES + b'"}', "too_large"),
        (b"[0.4]", "not_an_object"),
        (b'{"ch4": 0.4, "ch4": 90, "status": "ok"}', "duplicate_key"),
        (b"", "not_json"),
        (b'{"ch4": 0.4', "not_json"),
        (b"[" * 60_000, "not_json"),
        (b'{"ch4": ' + b"9" * 5000 + b"}", "not_json"),
        ('{"ch4": 0.4}'.encode("utf-16"), "not_utf8"),
        (b"null", "not_an_object"),
        (b"0.4", "not_an_object"),
    ],
)
def test_rejects(data: bytes, reason: Reject) -> None:
    assert take(JsonSource(GAS4), data) == Taken(reject=reason)


def test_retained_is_not_fresh() -> None:
    assert take(JsonSource(GAS4), payload(), retained=True) == Taken(reject="retained")


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["ch4", "more", "co", "status", "v", "u", "q", "ts"]), inner, max_size=4),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_no_payload_raises_and_every_point_or_none_is_told(data: bytes) -> None:
    shapes = ("json", "number", "vuqt")
    for device in (
        GAS4,
        replace(GAS4, time_path="ts", availability_topic="gone"),
        *(replace(GAS4, shape=s) for s in shapes),
    ):
        for topic in ("devices/gas4", "gone"):
            taken = take(JsonSource(device), data, topic=topic)
            assert len(taken.readings) in (0, 2)
            assert all(r.value is None or r.quality is not Quality.BAD for r in taken.readings)


# --- paths ---

DOCUMENT = {
    "a": {"b": 1, "c.d": 2},
    "list": [{"v": 3}, {"v": 4}],
    "sensors": [{"name": "co", "value": 5}, {"name": "ch4", "value": 6}, {"name": 7, "value": 8}, 9],
    "twice": [{"n": "x", "v": 1}, {"n": "x", "v": 2}],
    "grid": [[1, 2], [3, 4]],
    "m³": 10,
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("a.b", 1),
        ('a."c.d"', 2),
        ('"a"."c.d"', 2),
        ("list[0].v", 3),
        ("list[1].v", 4),
        ("list[2].v", MISSING),
        ("a[0]", MISSING),
        ("list.v", MISSING),
        ("sensors[name=ch4].value", 6),
        ('sensors[name="ch4"].value', 6),
        ("sensors[name=7].value", 8),
        ("sensors[name=h2s].value", MISSING),
        ("twice[n=x].v", MISSING),
        ("grid[1][0]", 3),
        ("m³", 10),
        ("a.b.c", MISSING),
    ],
)
def test_paths(path: str, found: Any) -> None:
    assert find(DOCUMENT, compile_path(path)) is found or find(DOCUMENT, compile_path(path)) == found


@pytest.mark.parametrize(
    "path", ["", ".", "a.", ".a", "a..b", "a[", "a[x]", "a[-1]", "a.[0]", 'a"b"', "a]", "[n=]", '""']
)
def test_broken_paths(path: str) -> None:
    with pytest.raises(ValueError, match="is"):
        compile_path(path)


@given(
    st.lists(
        st.text(min_size=1, max_size=4).filter(lambda key: "\\" not in key and '"' not in key), min_size=1, max_size=4
    )
)
def test_quoted_keys_find_what_they_name(keys: list[str]) -> None:
    document: Any = 1
    for key in reversed(keys):
        document = {key: document}
    assert find(document, compile_path(".".join(f'"{key}"' for key in keys))) == 1


def test_list_at_the_top() -> None:
    points = (MqttPoint(name="a", path="[0].v"), MqttPoint(name="b", path="v"))
    source = JsonSource(MqttDevice(device="a.d", topic="t", points=points))
    assert [r.why for r in take(source, b'[{"v": 1}]').readings] == ["", "missing"]
    assert [r.why for r in take(source, b'{"v": 1}').readings] == ["missing", ""]
    assert said(take(one(path="[1].v"), b'[{"v": 1}, {"v": 2}]')) == (2.0, Quality.GOOD, "")


# --- numbers and words ---


@pytest.mark.parametrize(
    ("found", "value", "why"),
    [
        ('"21.5"', 21.5, ""),
        ('" -3 "', -3.0, ""),
        ('"21,5"', None, "not_a_number"),
        ('"nan"', None, "not_a_number"),
        ('"1_000"', None, "not_a_number"),
        ('"0x10"', None, "not_a_number"),
        ('"٣"', None, "not_a_number"),
        ("21.5", 21.5, ""),
        ("true", None, "wrong_type"),
    ],
)
def test_text_counts_where_it_is_said(found: str, value: float | None, why: str) -> None:
    taken = take(one(text=True), f'{{"x": {found}}}'.encode())
    assert (reading(taken).value, reading(taken).why) == (value, why)


@pytest.mark.parametrize(
    ("found", "value", "why"),
    [
        ('"ON"', 1.0, ""),
        ('"off"', 0.0, ""),
        ("true", 1.0, ""),
        ("false", 0.0, ""),
        ('"open"', None, "unknown_word"),
        ("5", 5.0, ""),
        ("[]", None, "wrong_type"),
    ],
)
def test_words(found: str, value: float | None, why: str) -> None:
    words = (("on", 1.0), ("off", 0.0), ("true", 1.0), ("False", 0.0))
    taken = take(one(words=words), f'{{"x": {found}}}'.encode())
    assert (reading(taken).value, reading(taken).why) == (value, why)


@given(st.integers(-(10**9), 10**9), st.sampled_from(["0.1", "0.01", "0.001", "10", "1"]))
def test_scale_is_exact(number: int, scale: str) -> None:
    taken = take(one(scale=Decimal(scale)), f'{{"x": {number}}}'.encode())
    assert reading(taken).value == float(Decimal(number) * Decimal(scale))


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_numbers_in_text_come_back(value: float) -> None:
    assert read_number(repr(value)) == (value, "")


@pytest.mark.parametrize(
    ("data", "value", "why"),
    [
        (b"21.5", 21.5, ""),
        (b" 21.5\n", 21.5, ""),
        (b"+2e1", 20.0, ""),
        (b"ON", 1.0, ""),
        (b"21,5", None, "not_a_number"),
        (b"21.5 C", None, "not_a_number"),
        (b"nan", None, "not_a_number"),
        (b"", None, "not_a_number"),
        (b"101", None, "out_of_range"),
        (b"9" * 401, None, "not_a_number"),
    ],
)
def test_bare_numbers(data: bytes, value: float | None, why: str) -> None:
    taken = take(one(shape="number", high=100, words=(("on", 1.0),)), data)
    assert (reading(taken).value, reading(taken).why) == (value, why)


@pytest.mark.parametrize(
    ("data", "value", "quality", "why"),
    [
        ({"v": 21.5}, 21.5, Quality.GOOD, ""),
        ({"v": 21.5, "u": "°C", "q": "good"}, 21.5, Quality.GOOD, ""),
        ({"v": 21.5, "u": "°F"}, None, Quality.BAD, "unit_mismatch"),
        ({"v": 21.5, "q": "uncertain"}, 21.5, Quality.UNCERTAIN, "source"),
        ({"v": 21.5, "q": "uncertain", "why": "warm_up"}, 21.5, Quality.UNCERTAIN, "warm_up"),
        ({"v": 21.5, "q": "bad", "why": "No Sensor!"}, None, Quality.BAD, "source"),
        ({"v": 21.5, "q": "bad", "why": "timeout"}, None, Quality.BAD, "timeout"),
        ({"v": 21.5, "q": "superb"}, None, Quality.BAD, "quality_unknown"),
        ({"v": 21.5, "q": ["good"]}, None, Quality.BAD, "quality_unknown"),
        ({"v": None, "q": "uncertain"}, None, Quality.BAD, "no_value"),
        ({}, None, Quality.BAD, "missing"),
    ],
)
def test_vuqt(data: dict[str, Any], value: float | None, quality: Quality, why: str) -> None:
    taken = take(one(shape="vuqt", unit="°C", time_path="ts", time_needed=False), json.dumps(data).encode())
    assert said(taken) == (value, quality, why)


# --- topics ---


@pytest.mark.parametrize(
    ("pattern", "topic", "fits"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("+/+", "/x", True),
        ("a/+", "a/#", False),
        ("a/#", "a/+", True),
    ],
)
def test_filters(pattern: str, topic: str, fits: bool) -> None:
    assert matches(pattern, topic) is fits


@pytest.mark.parametrize(("name", "good"), [("a", True), ("+/b/#", True), ("", False), ("a/#/b", False), ("a#", False),
                                            ("a+", False), ("a\0", False)])  # fmt: skip
def test_filter_problems(name: str, good: bool) -> None:
    assert (filter_problem(name) == "") is good


def test_points_with_topics_of_their_own() -> None:
    points = (
        MqttPoint(name="a", path="v", topic="plant/+/a"),
        MqttPoint(name="b", path="v"),
        MqttPoint(name="c", path="v", topic="plant/#"),
    )
    source = JsonSource(MqttDevice(device="x.d", topic="main", points=points, status_path="s"))
    assert source.subscriptions() == ("plant/+/a", "main", "plant/#")
    found = {
        topic: {r.point: r.value for r in take(source, b'{"v": 1, "s": "ok"}', topic=topic).readings}
        for topic in ("plant/1/a", "plant/2", "main")
    }
    assert found == {"plant/1/a": {"x.d.a": 1.0, "x.d.c": 1.0}, "plant/2": {"x.d.c": 1.0}, "main": {"x.d.b": 1.0}}
    assert [r.value for r in take(source, b'{"v": 1}', topic="plant/2").readings] == [1.0]  # no status there


def test_partial_messages_leave_the_rest_alone() -> None:
    source = JsonSource(replace(GAS4, status_path=None, partial=True))
    assert [r.point for r in take(source, b'{"ch4": 1}').readings] == ["pit.gas4.ch4"]
    assert [r.why for r in take(source, b'{"ch4": null}').readings] == ["no_value"]
    assert take(source, b'{"other": 1}').reject == "no_points"


# --- times ---


@pytest.mark.parametrize(
    ("value", "form", "moment"),
    [
        ("2027-01-15T08:00:00Z", "auto", UTC_MS),
        ("2027-01-15T16:00:00.000+08:00", "auto", UTC_MS),
        ("2027-01-15 08:00:00+00:00", "rfc3339", UTC_MS),
        ("2027-01-15T08:00:00.123456789Z", "auto", UTC_MS + 123),
        ("2027-01-15T08:00:00", "auto", None),
        ("2027-01-15T16:00:00", "local", UTC_MS),
        ("2027-01-15T08:00:00Z", "local", UTC_MS),
        ("20270115", "rfc3339", None),
        ("2027-13-15T08:00:00Z", "auto", None),
        (1_800_000_000, "auto", UTC_MS),
        (1_800_000_000.25, "auto", UTC_MS + 250),
        (1_800_000_000_000, "auto", UTC_MS),
        ("1800000000", "auto", UTC_MS),
        ("1800000000000", "epoch_ms", UTC_MS),
        (1_800_000_000, "epoch_s", UTC_MS),
        (1_800_000_000, "epoch_ms", 1_800_000_000),
        (1_800_000_000_000, "epoch_s", None),
        (1_800_000_000_000_000, "auto", None),
        (-1, "auto", None),
        (float("nan"), "auto", None),
        (True, "auto", None),
        (None, "auto", None),
        (MISSING, "auto", None),
        ([1], "auto", None),
        (1_800_000_000, "rfc3339", None),
    ],
)
def test_times(value: Any, form: Any, moment: int | None) -> None:
    assert parse_time(value, form, ZoneInfo("Asia/Shanghai")) == moment


@given(
    st.text(max_size=45) | st.floats() | st.integers() | st.none(),
    st.sampled_from(["auto", "rfc3339", "epoch_s", "local"]),
)
def test_no_time_raises(value: Any, form: Any) -> None:
    moment = parse_time(value, form, ZoneInfo("Asia/Shanghai"))
    assert moment is None or 0 <= moment <= 4_102_444_800_000


def judge(clock: DeviceClock, ages: dict[float, float], state: ClockState = ClockState.SYNCED) -> list[str]:
    """Verdicts of messages that arrive after so many seconds, each so old by its own clock."""
    return [clock.judge(UTC_MS + round((s - age) * 1000), replace(after(s), clock=state)) for s, age in ages.items()]


def test_right_clock_and_a_late_message() -> None:
    clock = DeviceClock(30)
    assert judge(clock, {0: 0.2, 10: 0.1, 20: 29, 30: 31, 40: 3600, 50: 0.1}) == [
        FRESH,
        FRESH,
        FRESH,
        LATE,
        LATE,
        FRESH,
    ]
    assert clock.skew_s == pytest.approx(0.1)


def test_wrong_clock_is_told_from_old_messages_when_it_stays_wrong() -> None:
    clock = DeviceClock(30)
    assert judge(clock, dict.fromkeys(range(0, 60, 10), 7200)) == [LATE, LATE, LATE, SKEWED, SKEWED, SKEWED]
    assert clock.skew_s == pytest.approx(7200)
    assert judge(clock, {70: 7300}) == [LATE], "late by its own clock"
    assert judge(clock, {80: 0}) == [FRESH], "it was set right"


def test_burst_of_stored_messages_is_old() -> None:
    clock = DeviceClock(30)
    stored = {i * 0.01: 7200 - 10.0 * i for i in range(700)}
    assert set(judge(clock, stored)) == {LATE}
    assert judge(clock, {10: 0.1, 20: 0.1}) == [FRESH, FRESH]


def test_clock_that_is_ahead_is_wrong_at_once() -> None:
    clock = DeviceClock(30)
    assert judge(clock, {0: -60, 10: -60}) == [SKEWED, SKEWED]
    assert judge(clock, {20: 0, 40: 0, 50: 0, 60: 0}) == [LATE, LATE, FRESH, FRESH], "it was set right"


def test_our_own_wrong_clock_accuses_nobody() -> None:
    clock = DeviceClock(30)
    assert judge(clock, {0: 7200, 10: 7200, 20: 7300}, ClockState.UNSYNCED) == [FRESH, FRESH, LATE]


def test_our_step_makes_nothing_late() -> None:
    clock = DeviceClock(30)
    clock.judge(UTC_MS, AT)
    stepped = replace(after(10), utc_ms=UTC_MS + 3_600_000, clock=ClockState.STEPPED)
    assert clock.judge(UTC_MS + 10_000, stepped) == FRESH


def test_offset_is_forgotten_after_ten_minutes() -> None:
    clock = DeviceClock(30)
    judge(clock, {0: 0})
    assert judge(clock, dict.fromkeys(range(10, 700, 10), 3600))[-1] == SKEWED


def test_time_that_goes_back_is_counted() -> None:
    clock = DeviceClock(30)
    judge(clock, {0: 0, 1: 5, 2: 0})
    assert clock.backwards == 1


@pytest.mark.parametrize(
    ("age_s", "state", "sampled_s"),
    [
        (100, ClockState.SYNCED, -100),
        (-10, ClockState.SYNCED, 0),
        (-31, ClockState.SYNCED, None),
        (8 * 86400, ClockState.SYNCED, None),
        (100, ClockState.UNSYNCED, None),
    ],
)
def test_moment_of_an_old_message(age_s: float, state: ClockState, sampled_s: float | None) -> None:
    at = replace(AT, clock=state)
    sampled = DeviceClock(30).sampled(UTC_MS - round(age_s * 1000), at)
    wanted = None if sampled_s is None else replace(after(sampled_s), clock=state)
    assert sampled == wanted


@pytest.mark.parametrize("state", [ClockState.SYNCED, ClockState.UNSYNCED])
def test_stored_messages_after_an_outage_are_late_with_or_without_our_clock(state: ClockState) -> None:
    clock = DeviceClock(30)
    assert set(judge(clock, dict.fromkeys(range(0, 300, 10), 0.0), state)) == {FRESH}
    assert set(judge(clock, {1500 + k: 1200 - 9 * k for k in range(120)}, state)) == {LATE}
    assert judge(clock, {1700: 0.0}, state) == [FRESH]


def test_moment_by_a_known_clock() -> None:
    clock = DeviceClock(30)
    judge(clock, {0: 5.0})  # five seconds behind
    found = clock.sampled(UTC_MS - 100_000, replace(after(10), clock=ClockState.UNSYNCED))
    assert found is not None
    assert (found.utc_ms, found.mono_s) == (UTC_MS - 95_000, AT.mono_s - 95)


# --- times and what waited, in a source ---


def timed(seconds: float, value: float = 1) -> bytes:
    return json.dumps({"x": value, "ts": UTC_MS / 1000 + seconds}).encode()


def test_backlog_is_uncertain_at_its_own_time_and_bad_without_one() -> None:
    source = one(time_path="ts")
    taken = take(source, timed(-600), backlog=True)
    assert said(taken) == (1.0, Quality.UNCERTAIN, "delayed")
    assert reading(taken).at == after(-600)
    taken = take(source, b'{"x": 2}', backlog=True)
    assert (said(taken), reading(taken).at) == ((2.0, Quality.BAD, "delayed"), AT)
    taken = take(one(), b'{"x": 2}', backlog=True)
    assert (said(taken), reading(taken).at) == ((2.0, Quality.BAD, "delayed"), AT)


def test_everything_in_old_messages_is_old() -> None:
    points = (MqttPoint(name="a", path="a", high=1), MqttPoint(name="b", path="b"))
    source = JsonSource(MqttDevice(device="a.d", topic="t", points=points, status_path="s"))
    for data in (b'{"a": 2, "s": "ok"}', b'{"a": 1, "b": 1, "s": "fault"}'):
        readings = take(source, data, backlog=True).readings
        assert [(r.value, r.quality, r.why) for r in readings] == [(None, Quality.BAD, "delayed")] * 2


def test_late_messages_while_the_link_is_up() -> None:
    source = one(time_path="ts")
    assert said(take(source, timed(0))) == (1.0, Quality.GOOD, "")
    taken = take(source, timed(-50), at=after(10))
    assert said(taken) == (1.0, Quality.UNCERTAIN, "delayed")
    assert reading(taken).at == after(-50)
    assert source.health.backwards == 1
    assert source.health.skew_s == pytest.approx(0)


def test_wrong_clock_still_alarms() -> None:
    source = one(time_path="ts")
    found = [said(take(source, timed(s - 7200), at=after(s))) for s in (0, 20, 40)]
    assert found == [(1.0, Quality.UNCERTAIN, "delayed")] * 2 + [(1.0, Quality.UNCERTAIN, "clock_skew")]


@pytest.mark.parametrize("data", [b'{"x": 1}', b'{"x": 1, "ts": "noon"}'])
def test_time_that_is_not_there(data: bytes) -> None:
    assert said(take(one(time_path="ts"), data)) == (1.0, Quality.UNCERTAIN, "no_time")
    assert said(take(one(time_path="ts", time_needed=False), data)) == (1.0, Quality.GOOD, "")


def test_sent_twice_by_the_publisher() -> None:
    source = one(time_path="ts")
    assert [take(source, timed(s, v)).reject for s, v in ((0, 1), (0, 1), (0, 2), (1, 2))] == ["", "duplicate", "", ""]
    assert [take(one(), b'{"x": 1}').reject for _ in range(2)] == ["", ""], "a value may stay the same"


def test_sent_twice_by_number() -> None:
    source = one(same_path="id")
    found = [take(source, json.dumps({"x": 1, "id": name}).encode()).reject for name in ("a", "b", "a", None, None)]
    assert found == ["", "", "duplicate", "", ""]


# --- availability ---


@pytest.mark.parametrize("retained", [False, True])
@pytest.mark.parametrize("data", [b"offline", b"Offline", b'{"state": "offline"}', b'"offline"', b"0", b"false"])
def test_offline_spoils_every_point_at_once(data: bytes, retained: bool) -> None:
    source = JsonSource(replace(GAS4, availability_topic="gas4/status"))
    taken = take(source, data, topic="gas4/status", retained=retained)
    assert [(r.point, r.value, r.quality, r.why) for r in taken.readings] == [
        ("pit.gas4.ch4", None, Quality.BAD, "offline"),
        ("pit.gas4.co", None, Quality.BAD, "offline"),
    ]


@pytest.mark.parametrize("data", [b"online", b"Online", b'{"state":"online"}'])
def test_online_makes_no_value(data: bytes) -> None:
    source = JsonSource(replace(GAS4, availability_topic="gas4/status"))
    for retained in (False, True):
        assert take(source, data, topic="gas4/status", retained=retained) == Taken()


@pytest.mark.parametrize("data", [b"perhaps", b"\xff", b"{", b"[]", b'{"state": {}}', b""])
def test_other_words_of_availability_are_counted(data: bytes) -> None:
    source = JsonSource(replace(GAS4, availability_topic="gas4/status"))
    assert take(source, data, topic="gas4/status") == Taken(reject="unknown_availability")


def test_words_of_availability_can_be_given() -> None:
    words = {"online": frozenset({"alive"}), "offline": frozenset({"dead"})}
    source = JsonSource(replace(GAS4, availability_topic="s", **words))
    assert [take(source, data, topic="s").reject for data in (b"alive", b"dead", b"offline")] == [
        "",
        "",
        "unknown_availability",
    ]
