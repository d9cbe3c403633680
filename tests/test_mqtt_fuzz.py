"""Any bytes, any JSON, any topic, any time: the interpreters of MQTT payloads never raise, and never call a value good
that is not finite, in range and of now. The same seeds in each run; the soak form takes new ones."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sitewarden.sensors.mqtt_payloads import (
    FRESH,
    LATE,
    MISSING,
    SKEWED,
    WINDOW_S,
    DeviceClock,
    Meter,
    RefusedPayloadError,
    compile_path,
    decode_json,
    decode_text,
    find,
    parse_time,
    read_number,
)
from sitewarden.sensors.mqtt_presets import FORMATS, expand, find_problem, path_problem
from sitewarden.sensors.mqtt_sources import make_source, matches
from sitewarden.sensors.mqtt_words import Arrival, MqttDevice, MqttDeviceHealth, MqttPoint, Taken, TimeFormat
from sitewarden.words import ClockState, Instant, Quality, Reading, utc_text

NOW_MS = 1_800_000_000_000
JSON_FORMATS = tuple(name for name in FORMATS if name != "sparkplug_b")  # that has its own, tests/test_sparkplug.py
FUZZ = settings(
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
LONG: list[tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...]]] = []


def fuzz(examples: int, *strategies: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """`@given`, with the same examples in each run; the long form takes new ones."""

    def wrap(body: Callable[..., None]) -> Callable[..., None]:
        LONG.append((body, strategies))
        return settings(FUZZ, max_examples=examples)(given(*strategies)(body))

    return wrap


# --- documents ---

KEYS = ("v", "u", "q", "ts", "why", "ch4", "a", "a.b", "list", "name", "Time", "ENERGY", "object", "fPort", "state", "")
numbers = st.integers() | st.integers(-200, 200) | st.floats() | st.sampled_from([1e308, -0.0, 5e-324, 10**400])
moments = st.integers(NOW_MS - 700_000_000, NOW_MS + 60_000).map(utc_text) | st.integers(0, 2 * NOW_MS)
words = st.sampled_from(
    ["good", "bad", "uncertain", "ok", "online", "OFF", "on", "21,5", "+3", "1e5", "NaN", "ppm", "%"]
)
leaves = st.none() | st.booleans() | numbers | words | moments | st.text(max_size=6)
keys = st.sampled_from(KEYS) | st.text(max_size=4)
documents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=12,
)
likely = st.fixed_dictionaries(
    {},
    optional={
        "v": numbers | words,
        "ch4": numbers | words,
        "u": st.sampled_from(["ppm", "%", None]),
        "q": st.sampled_from(["good", "uncertain", "bad", "x", 1]),
        "why": words | st.integers(),
        "ts": moments,
        "Time": moments,
        "time": moments,
        "last_seen": moments,
        "status": words,
        "object": st.fixed_dictionaries({}, optional={"ch4": numbers, "a": documents}),
        "list": st.lists(st.fixed_dictionaries({"name": words, "v": numbers}), max_size=4),
        "fPort": st.integers(0, 3),
        "deduplicationId": st.sampled_from(["1", "2", 3, None]),
    },
)


def dumped(document: Any) -> bytes:
    return json.dumps(document).encode()  # with NaN and Infinity, as some devices write them


payloads = (
    st.binary(max_size=40)
    | documents.map(dumped)
    | likely.map(dumped)
    | likely.map(dumped)
    | leaves.map(lambda leaf: str(leaf).encode("utf-8", "surrogatepass"))
    | st.sampled_from([b"", b"{", b"[" * 5000, b'{"v":1,"v":2}', b"\xff", b'{"v":' + b"9" * 5000 + b"}", b'"\\ud800"'])
)

# --- devices ---

PATHS = (
    "ch4",
    "v",
    "a.b",
    '"a.b"',
    "a[0]",
    "list[name=on].v",
    'list[name="21,5"].v',
    "[0]",
    "[0].v",
    "object.ch4",
    "list[3]",
)
TOPICS = ("t", "t/+", "t/#", "t/1", "+/1")
points = st.builds(
    MqttPoint,
    name=st.just("p"),
    path=st.sampled_from(PATHS),
    topic=st.sampled_from(("", "", *TOPICS)),
    unit=st.sampled_from(["", "ppm"]),
    text=st.booleans(),
    words=st.sampled_from([(), (("on", 1.0), ("OFF", 0.0), ("true", 7.0)), (("ok", math.inf),)]),
    scale=st.sampled_from([Decimal(1), Decimal("0.1"), Decimal("-1e300"), Decimal("1e-300")]),
    low=st.sampled_from([None, 0.0, -10.0]),
    high=st.sampled_from([None, 100.0, 1e9]),
)
devices = st.builds(
    MqttDevice,
    device=st.just("pit.gas"),
    topic=st.sampled_from(TOPICS),
    points=st.lists(points, min_size=1, max_size=4).map(
        lambda some: tuple(replace(point, name=f"p{i}") for i, point in enumerate(some))
    ),
    status_path=st.sampled_from([None, None, "status", "list[0].name"]),
    time_path=st.sampled_from([None, "ts", "list[0].v"]),
    time_format=st.sampled_from(get_args(TimeFormat)),
    zone=st.sampled_from(["UTC", "Asia/Shanghai", "America/New_York"]),
    time_needed=st.booleans(),
    same_path=st.sampled_from([None, "deduplicationId", "v"]),
    partial=st.booleans(),
    only_path=st.sampled_from([None, None, "fPort"]),
    only=st.sampled_from([frozenset({"1"}), frozenset({"1", "2"})]),
    availability_topic=st.sampled_from(["", "t/state", "t/+"]),
)
topics = st.sampled_from(["t", "t/1", "t/state", "t/1/2", "x/1", "", "$SYS/x"]) | st.text(max_size=5)
arrivals = st.tuples(
    topics, payloads, st.floats(0, 700), st.booleans() | st.just(False), st.booleans() | st.just(False)
)


def instant(after_s: float, clock: ClockState = ClockState.SYNCED) -> Instant:
    return Instant(utc_ms=NOW_MS + round(after_s * 1000), mono_s=5000 + after_s, boot="b", clock=clock)


def check(device: MqttDevice, arrival: Arrival, taken: Taken) -> None:
    """What holds for whatever came of a message."""
    assert not (taken.reject and taken.readings), taken
    limits = {f"{device.device}.{point.name}": point for point in device.points}
    for reading in taken.readings:
        point = limits[reading.point]
        check_reading(reading, arrival)
        if reading.value is not None:
            assert point.low is None or reading.value >= point.low, reading
            assert point.high is None or reading.value <= point.high, reading


def check_reading(reading: Reading, arrival: Arrival) -> None:
    good = reading.quality is Quality.GOOD
    assert good == (reading.why == ""), reading
    assert re.fullmatch(r"[a-z0-9_]{0,40}", reading.why), reading
    if reading.why != "delayed":  # for the history alone: a value of an unknown time is bad, and is kept
        assert (reading.quality is Quality.BAD) == (reading.value is None), reading
    assert reading.value is None or math.isfinite(reading.value), reading
    if good or reading.why not in ("delayed", "offline"):
        assert reading.at == arrival.at, reading
        assert not arrival.retained, reading
        assert not arrival.backlog, reading
    assert reading.at.mono_s <= arrival.at.mono_s, "nothing is measured after it came"
    assert reading.at.utc_ms <= arrival.at.utc_ms


def play(form: str, device: MqttDevice, messages: list[tuple[str, bytes, float, bool, bool]]) -> list[Taken]:
    full = expand(form, device)
    source = make_source(full, MqttDeviceHealth(device=full.device, stale_s=full.stale_s))
    at_s = 0.0
    took: list[Taken] = []
    filters = source.subscriptions()
    assert all(filters)
    for topic, payload, pause_s, retained, backlog in messages:
        at_s += pause_s
        fitting = (
            topic if any(matches(name, topic) for name in filters) else filters[0].replace("+", "1").replace("#", "1")
        )
        arrival = Arrival(topic=fitting, payload=payload, at=instant(at_s), retained=retained, backlog=backlog)
        took.append(source.take(arrival))
        check(full, arrival, took[-1])
        if retained:
            assert all(reading.why == "offline" for reading in took[-1].readings)
    stray = Arrival(topic="nobody/asked", payload=b"1", at=instant(at_s))
    check(full, stray, source.take(stray))
    for taken in (source.connected(instant(at_s)), source.tick(instant(at_s))):
        check(full, stray, taken)
    lost = source.lost("no_connection", instant(at_s))
    assert {r.why for r in lost.readings} == {"no_connection"}
    assert {r.point for r in lost.readings} == {f"{full.device}.{p.name}" for p in full.points}
    return took


@fuzz(400, st.sampled_from(JSON_FORMATS), devices, st.lists(arrivals, max_size=8))
def test_any_message_of_any_device(form: str, device: MqttDevice, messages: list[Any]) -> None:
    play(form, device, messages)


@pytest.mark.parametrize("form", JSON_FORMATS)
def test_the_fuzz_reaches_good_values(form: str) -> None:
    """Else the tests above would say little."""
    body = {"v": 5, "q": "good", "u": "ppm", "ch4": 5, "object": {"ch4": 5}, "fPort": 1}
    path = "v" if form == "vuqt" else "ch4"
    point = MqttPoint(name="p", path=path, unit="ppm", low=0, high=9)
    device = MqttDevice(device="pit.gas", topic="0011223344556677" if form == "chirpstack" else "t", points=(point,))
    data = b"5" if form == "number" else dumped(body)
    (taken,) = play(form, device, [("", data, 1.0, False, False)])
    assert [(r.value, r.quality) for r in taken.readings] == [(5.0, Quality.GOOD)]
    (taken,) = play(form, device, [("", data.replace(b"5", b"99"), 1.0, False, False)])
    assert [(r.value, r.why) for r in taken.readings] == [(None, "out_of_range")]


@pytest.mark.parametrize("path", ["ch4", "a.b", '"a.b"'])
def test_a_list_for_a_device_that_has_keys_too(path: str) -> None:
    points = (MqttPoint(name="key", path=path), MqttPoint(name="first", path="[0]"))
    device = MqttDevice(device="pit.gas", topic="t", points=points)
    (taken,) = play("json", device, [("t", b"[5]", 0.0, False, False)])
    assert [(r.value, r.why) for r in taken.readings] == [(None, "missing"), (5.0, "")]


@fuzz(
    300,
    st.fixed_dictionaries({"ts": st.integers(NOW_MS - 3_600_000, NOW_MS - 31_000), "ch4": st.integers(0, 9)}),
    st.integers(0, 600),
)
def test_a_message_that_came_much_later_than_another_is_never_good(body: dict[str, int], after_s: int) -> None:
    """Both clocks are right: the first message shows it, the second one is old."""
    point = MqttPoint(name="p", path="ch4")
    device = MqttDevice(device="pit.gas", topic="t", points=(point,), time_path="ts", max_skew_s=30)
    source = make_source(device, MqttDeviceHealth(device="pit.gas", stale_s=30))
    now_body = dumped({"ts": NOW_MS, "ch4": 1})
    first = source.take(Arrival(topic="t", payload=now_body, at=instant(0)))
    assert [r.quality for r in first.readings] == [Quality.GOOD]
    late = source.take(Arrival(topic="t", payload=dumped(body), at=instant(after_s)))
    assert [(r.quality, r.why) for r in late.readings] == [(Quality.UNCERTAIN, "delayed")]
    (reading,) = late.readings
    assert reading.at.utc_ms == pytest.approx(body["ts"], abs=2)


said = st.sampled_from(["good", "uncertain", "bad", "Good", "", 1, None]) | words | st.text(max_size=40)


@fuzz(200, said, said, said)
def test_whatever_a_device_says_of_itself(judged: Any, why: Any, status: Any) -> None:
    device = MqttDevice(device="pit.gas", topic="t", points=(MqttPoint(name="p", path="v"),))
    data = dumped({"v": 5, "q": judged, "why": why, "status": status})
    (taken,) = play("vuqt", device, [("t", data, 0.0, False, False)])
    assert (taken.readings[0].quality is Quality.GOOD) == (judged == "good")
    (taken,) = play("json", replace(device, status_path="status"), [("t", data, 0.0, False, False)])
    assert (taken.readings[0].quality is Quality.GOOD) == (status == "ok")


# --- the pieces ---


@fuzz(500, st.text(max_size=20) | st.text(alphabet='ab.[]="\\0 1', max_size=12), documents)
@example('"', {})
@example("a[", {})
@example("a[999999999]", {"a": []})
def test_any_text_as_a_path(path: str, document: Any) -> None:
    try:
        steps = compile_path(path)
    except ValueError:
        assert path_problem(path) or path.startswith("$.")
        return
    assert steps
    find(document, steps)


def walks(document: Any, path: str = "") -> list[tuple[str, Any]]:
    """Every path of a document, with what stands there; keys in quotes."""
    found = [(path, document)] if path else []
    if isinstance(document, dict):
        for key, inner in document.items():
            if key:
                quoted = '"' + key.replace("\\", "\\\\").replace('"', '\\"') + '"'
                found += walks(inner, f"{path}.{quoted}" if path else quoted)
    if isinstance(document, list):
        for i, inner in enumerate(document):
            found += walks(inner, f"{path}[{i}]")
    return found


@fuzz(300, documents)
def test_every_place_of_a_document_has_a_path(document: Any) -> None:
    for path, wanted in walks(document):
        assert "\n" in path or find(document, compile_path(path)) is wanted, path


@fuzz(
    300, st.lists(st.fixed_dictionaries({"name": words | st.integers(0, 3) | st.booleans(), "v": numbers}), max_size=5)
)
def test_a_selector_that_fits_several_finds_none(items: list[dict[str, Any]]) -> None:
    for item in items:
        name = item["name"]
        word = str(name).lower() if isinstance(name, bool) else str(name)
        fitting = [
            i for i in items if (str(i["name"]).lower() if isinstance(i["name"], bool) else str(i["name"])) == word
        ]
        found = find({"list": items}, compile_path(f'list[name="{word}"].v'))
        assert found is (item["v"] if len(fitting) == 1 else MISSING)


@fuzz(300, payloads)
def test_decoding_refuses_or_is_what_json_says(payload: bytes) -> None:
    said, document = outcome(decode_json, payload)
    assert said in ("", "not_utf8", "not_json", "duplicate_key")
    if not said:
        assert json.dumps(document) == json.dumps(json.loads(payload))
    said, text = outcome(decode_text, payload)
    assert (said == "not_utf8") == (payload.decode("utf-8", "replace").strip() != text)
    assert said in ("", "not_utf8")


def written(pairs: list[tuple[str, Any]], escaped: bool) -> bytes:
    """An object as a device may write it: keys twice, colons in texts, escaped or not."""
    text = "{" + ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in pairs) + "}"
    return (text.replace("a:b", "a\\u003ab") if escaped else text).encode()


def damaged(payload: bytes, place: int, byte: int) -> bytes:
    place %= len(payload) + 1
    return payload[:place] + bytes([byte]) + payload[place + 1 :]


few_keys = st.sampled_from(["a", "b", "c", "a:b", ":", "", "é"])
few_values = (
    leaves | st.sampled_from(["a:b", ":", "12:30:00", "\\"]) | st.dictionaries(few_keys, st.just(1), max_size=2)
)
objects = st.builds(written, st.lists(st.tuples(few_keys, few_values), max_size=4), st.booleans())
digits = st.from_regex(r"-?[0-9]{1,25}(\.[0-9]{1,25})?([eE][-+]?[0-9]{1,3})?", fullmatch=True).map(str.encode)


def plainly(payload: bytes) -> Any:
    """The same by the standard library alone, key by key."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise RefusedPayloadError("duplicate_key")
        return dict(pairs)

    try:
        text = payload.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedPayloadError("not_utf8") from None
    try:
        return json.loads(text, object_pairs_hook=unique)
    except RefusedPayloadError:
        raise
    except (ValueError, RecursionError):
        raise RefusedPayloadError("not_json") from None


@fuzz(
    1000,
    payloads
    | objects
    | digits
    | st.builds(damaged, objects | documents.map(dumped), st.integers(0), st.integers(0, 255)),
)
@example(b'{"a":1,"a":2,"s":"\\u003a"}')
@example(b'{"a":"x:y","a":2}')
@example(b'{"a":{"b":1,"b":2}}')
@example(b'[{"a":1,"a":2}]')
@example(b'{"t":"12:30","a":{"b":1,"b":2}}')
@example(b'{"t":"12:30","a":[{"b":1,"b":2}]}')
def test_the_fast_decoder_takes_nothing_that_the_standard_library_does_not(payload: bytes) -> None:
    assert repr(outcome(decode_json, payload)) == repr(outcome(plainly, payload))


def outcome(decode: Callable[[bytes], Any], payload: bytes) -> tuple[str, Any]:
    try:
        return "", decode(payload)
    except RefusedPayloadError as refused:
        return str(refused), None


@fuzz(500, points, leaves | documents)
def test_measured_is_finite_and_in_range(point: MqttPoint, found: Any) -> None:
    table = {word.lower(): value for word, value in point.words}
    meter = Meter(scale=point.scale, low=point.low, high=point.high, text=point.text, words=table)
    value, why = meter.measure(found)
    assert (value is None) == bool(why)
    if value is None:
        return
    assert math.isfinite(value)
    assert point.low is None or value >= point.low
    assert point.high is None or value <= point.high
    if isinstance(found, int | float) and not isinstance(found, bool):
        assert value == float(Decimal(repr(found)) * point.scale)
    else:
        assert point.text or point.words, "text and truth values are no numbers unless the point says so"


@fuzz(400, st.text(max_size=12) | st.text(alphabet="0123456789+-.eE ,_xnaif", max_size=10) | numbers.map(repr))
@example("٣")
@example("1_000")
@example("9" * 401)
def test_text_is_a_number_or_not(text: str) -> None:
    value, why = read_number(text)
    assert (value is None) == (why == "not_a_number")
    if value is not None:
        assert value == (float(text) if isinstance(value, float) else int(text))
        assert text.strip().isascii()
        assert "_" not in text


@fuzz(400, leaves | documents | moments, st.sampled_from(get_args(TimeFormat)), st.integers(-14, 14))
@example("0001-01-01T00:00:00", "local", 14)
@example("9999-12-31T23:59:59", "local", -14)
@example("2026-11-22T13:06:31.004Z", "rfc3339", 0)
@example(math.nan, "auto", 0)
def test_any_time(value: Any, form: TimeFormat, hours: int) -> None:
    found = parse_time(value, form, timezone(timedelta(hours=hours)))
    assert found is None or (type(found) is int and 0 <= found <= 4_102_444_800_000)


@fuzz(300, st.integers(100_000_000_000, 4_102_444_800_000))  # before 1973 `auto` takes it for seconds
def test_times_round_trip(utc_ms: int) -> None:
    assert parse_time(utc_text(utc_ms), "auto") == parse_time(utc_text(utc_ms), "rfc3339") == utc_ms
    assert parse_time(utc_ms, "epoch_ms") == parse_time(utc_ms / 1000, "epoch_s") == utc_ms
    assert parse_time(utc_ms, "auto") == parse_time(str(utc_ms), "auto") == utc_ms
    assert parse_time(utc_ms // 1000, "auto") == utc_ms // 1000 * 1000


clock_steps = st.lists(
    st.tuples(
        st.floats(0, 400),
        st.integers(-60_000, 60_000) | st.integers(-(10**13), 10**13) | st.sampled_from([0, 29_000, 31_000, -31_000]),
        st.sampled_from([ClockState.SYNCED, ClockState.SYNCED, ClockState.UNSYNCED, ClockState.STEPPED]),
    ),
    max_size=20,
)


@fuzz(300, clock_steps, st.sampled_from([1.0, 30.0, 300.0]))
def test_any_device_clock(steps: list[tuple[float, int, ClockState]], max_skew_s: float) -> None:
    """Whatever its time says: a message that came later than another by more than what is allowed is not fresh."""
    clock = DeviceClock(max_skew_s)
    at_s = 0.0
    seen: list[tuple[float, float]] = []
    for pause_s, behind_ms, state in steps:
        at_s += pause_s
        at = instant(at_s, state)
        device_ms = max(0, at.utc_ms - behind_ms)
        verdict = clock.judge(device_ms, at)
        assert verdict in (FRESH, SKEWED, LATE)
        offset_s = at.mono_s - device_ms / 1000
        seen.append((at.mono_s, offset_s))
        least = min(offset for mono_s, offset in seen if mono_s >= at.mono_s - WINDOW_S)
        age_s = (at.utc_ms - device_ms) / 1000
        if offset_s - least > max_skew_s + 1e-6 and verdict != LATE:
            assert state is ClockState.SYNCED, "only a clock that is right can say that the other was set right"
            assert abs(age_s) <= max_skew_s
            seen = seen[-1:]
        if verdict == FRESH and state is ClockState.SYNCED:
            assert clock.skew_s is not None
            assert abs(clock.skew_s) <= max_skew_s
            assert age_s <= 2 * max_skew_s + 1e-6
        sampled = clock.sampled(device_ms, at)
        assert sampled is None or (sampled.mono_s <= at.mono_s and sampled.utc_ms <= at.utc_ms)


def model_matches(pattern: str, topic: str) -> bool:
    """MQTT 5.0 §4.7 as a regular expression."""
    if topic.startswith("$") and pattern[:1] in ("+", "#"):
        return False
    regex = "/".join(
        "[^/]*" if level == "+" else level if level == "#" else re.escape(level) for level in pattern.split("/")
    )
    regex = regex.replace("/#", "(/.*)?") if regex != "#" else ".*"
    return re.fullmatch(regex, topic, re.DOTALL) is not None


levels = st.sampled_from(["a", "b", "", "$x", "é"])
filters = st.tuples(
    st.lists(levels | st.just("+"), min_size=1, max_size=4), st.booleans()
).map(lambda parts: "/".join([*parts[0], "#"] if parts[1] else parts[0]))  # fmt: skip


@fuzz(500, filters | st.just("#"), st.lists(levels, min_size=1, max_size=5).map("/".join))
@example("a/#", "a")
@example("#", "$x")
@example("+/a", "$x/a")
def test_filters_match_as_the_standard_says(pattern: str, topic: str) -> None:
    assert matches(pattern, topic) == model_matches(pattern, topic)


@fuzz(300, st.sampled_from(FORMATS), st.text(max_size=20) | st.text(alphabet="a/+#%0f", max_size=20), devices)
def test_any_topic_of_any_format(form: str, topic: str, device: MqttDevice) -> None:
    assert isinstance(find_problem(form, topic), str)
    full = expand(form, replace(device, topic=topic))
    assert [p.name for p in full.points] == [p.name for p in device.points]


# --- the long form ---


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_new_seeds_for_long() -> None:
    """SITEWARDEN_SOAK_S seconds, new examples each round; a failure prints the example."""
    end_s = time.monotonic() + float(os.environ.get("SITEWARDEN_SOAK_S", "60"))
    rounds = 0
    while time.monotonic() < end_s:
        for body, strategies in LONG:
            settings(FUZZ, derandomize=False, max_examples=1000)(given(*strategies)(body))()
        rounds += 1
    assert rounds
