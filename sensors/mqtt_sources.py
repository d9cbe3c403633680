"""One device's messages to readings: JSON, bare numbers and `{v,u,q,ts}`. Holds state, does no I/O.

What is old never counts as fresh. A retained message is refused: nobody knows how old it is, and a device that is gone
must look silent. A message that waited at the broker, or that the device's own time shows to be late, gives readings
with the why `delayed`: uncertain, at the time of measuring, when that time can be believed; else bad, at arrival. The
link keeps them from the alarms (`mqtt_ingest`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

from ..errors import ConfigError
from ..words import Instant, Quality, Reading
from .mqtt_payloads import (
    LATE,
    MISSING,
    REMEMBERED_CHARS,
    SKEWED,
    DeviceClock,
    Meter,
    RefusedPayloadError,
    Step,
    as_word,
    compile_path,
    decode_json,
    decode_text,
    digest,
    filter_problem,
    find,
    parse_time,
    read_number,
    shorten,
)
from .mqtt_words import (
    DELAYED,
    DUPLICATE,
    MAX_PAYLOAD_BYTES,
    Arrival,
    MqttDevice,
    MqttDeviceHealth,
    MqttPoint,
    Source,
    Taken,
)

_ROUTES = 256
_WORD = re.compile(r"[a-z0-9_]{1,32}")
_RETAINED = Taken(reject="retained")
_TOO_LARGE = Taken(reject="too_large")
_DUPLICATE = Taken(reject=DUPLICATE)
_NOTHING = Taken()


def make_source(device: MqttDevice, health: MqttDeviceHealth | None = None) -> Source:
    """The interpreter of a device's payloads; Sparkplug's library is loaded when it is used.

    Args:
        device: expanded (`mqtt_presets.expand`).
        health: gets what only the source knows: the clock.
    """
    if device.shape == "sparkplug_b":
        from .sparkplug import make_sparkplug

        return make_sparkplug(device, health)
    return JsonSource(device, health)


def check_devices(devices: Sequence[MqttDevice]) -> None:
    """Raises ConfigError for topics that are none, or points that are missing."""
    problems: list[str] = []
    for index, device in enumerate(devices):
        if not device.points:
            problems.append(f"devices[{index}].points: must not be empty")
        topics = [device.topic, *(p.topic for p in device.points), device.availability_topic]
        found = ((topic, filter_problem(topic)) for topic in dict.fromkeys(topics) if topic)
        problems += [f"devices[{index}].topic: {problem} (got {topic!r})" for topic, problem in found if problem]
        if not device.topic and not all(p.topic for p in device.points):
            problems.append(f"devices[{index}].topic: is required unless every point has its own")
    if problems:
        raise ConfigError("mqtt", problems)


def matches(pattern: str, topic: str) -> bool:
    """Whether a topic filter fits a topic, or covers another filter; MQTT 5.0 §4.7."""
    wanted, given = pattern.split("/"), topic.split("/")
    if topic.startswith("$") and wanted[0] in ("+", "#"):
        return False
    for i, level in enumerate(wanted):
        if level == "#":
            return True
        if i >= len(given) or given[i] == "#" or (level not in ("+", given[i])):
            return False
    return len(wanted) == len(given)


@dataclass(slots=True)
class _Point:
    """A point, compiled. `key`: its path when that is one key, the fast way."""

    id: str
    key: str
    steps: tuple[Step, ...]
    unit: str
    meter: Meter


@dataclass(slots=True)
class _Route:
    """What a topic is for. `points`: of its messages; `main`: it is the device's own, with its status."""

    points: tuple[_Point, ...] = ()
    main: bool = False
    availability: bool = False


class JsonSource:
    """See `mqtt_words.Source`.

    A point is bad, without a value, for what `Meter.measure` says, `unit_mismatch`, `quality_unknown`,
    `status_<word>`, `offline` (said by the device or its Last Will, also when that was retained) and what the link
    says; uncertain for `clock_skew`, `no_time`, `delayed` and what the device says.
    A whole message is refused: `retained`, `too_large`, `not_utf8`, `not_json`, `duplicate_key`, `not_an_object`,
    `other_port`, `no_points`, `unknown_availability`, `duplicate`.
    """

    def __init__(self, device: MqttDevice, health: MqttDeviceHealth | None = None) -> None:
        self.device = device
        self.health = health or MqttDeviceHealth(device=device.device, stale_s=device.stale_s)
        points = [(p.topic or device.topic, _compile(device, p)) for p in device.points]
        self._all = tuple(point for _, point in points)
        self._filters: dict[str, tuple[_Point, ...]] = {}
        for topic, point in points:
            self._filters[topic] = (*self._filters.get(topic, ()), point)
        self._routes: dict[str, _Route] = {}
        self._status = compile_path(device.status_path) if device.status_path else None
        self._time = compile_path(device.time_path) if device.time_path and device.shape != "number" else None
        self._same = compile_path(device.same_path) if device.same_path else None
        self._only = compile_path(device.only_path) if device.only_path else None
        self._lists = any(not isinstance(point.steps[0], str) for point in self._all if point.steps)
        self._zone = ZoneInfo(device.zone) if device.time_format == "local" else None
        self._clock = DeviceClock(device.max_skew_s)
        self._before: dict[str, tuple[int, bytes]] = {}
        self._seen: dict[str, None] = {}

    def subscriptions(self) -> tuple[str, ...]:
        """Topics of the points, and of the availability."""
        availability = (self.device.availability_topic,) if self.device.availability_topic else ()
        return tuple(dict.fromkeys((*self._filters, *availability)))

    def connected(self, at: Instant) -> Taken:  # noqa: ARG002
        """Values will come by themselves."""
        return _NOTHING

    def lost(self, why: str, at: Instant) -> Taken:
        """Every point is bad."""
        return Taken(readings=self._bad(self._all, why, at))

    def tick(self, at: Instant) -> Taken:  # noqa: ARG002
        """Silence is the rules' business."""
        return _NOTHING

    def take(self, arrival: Arrival) -> Taken:
        """One reading for each point of the topic, or why the message is refused as a whole."""
        route = self._routes.get(arrival.topic) or self._find_route(arrival.topic)
        if len(arrival.payload) > MAX_PAYLOAD_BYTES:
            return _TOO_LARGE
        if route.availability:
            return self._availability(arrival)
        if arrival.retained:
            return _RETAINED
        try:
            return self._interpret(route, arrival)
        except RefusedPayloadError as refused:
            return Taken(reject=refused.reason)

    def _find_route(self, topic: str) -> _Route:
        device = self.device
        route = _Route(availability=bool(device.availability_topic) and matches(device.availability_topic, topic))
        if not route.availability:
            fitting = [pattern for pattern in self._filters if matches(pattern, topic)]
            route.points = tuple(point for pattern in fitting for point in self._filters[pattern])
            route.main = device.topic in fitting
        if len(self._routes) >= _ROUTES:
            self._routes.clear()
        if len(topic) <= REMEMBERED_CHARS:
            self._routes[topic] = route
        return route

    # --- values ---

    def _interpret(self, route: _Route, arrival: Arrival) -> Taken:
        document = self._decode(arrival.payload)
        if self._only is not None and as_word(find(document, self._only)) not in self.device.only:
            return Taken(reject="other_port")
        device_ms = None if self._time is None else self._device_ms(document)
        if (device_ms is not None or self._same is not None) and self._is_repeated(document, device_ms, arrival):
            return _DUPLICATE
        verdict = self._judge(device_ms, arrival) if self._time is not None or arrival.backlog else ""
        at, quality, why = arrival.at, Quality.GOOD, ""
        if verdict == LATE:
            sampled = self._clock.sampled(device_ms, at) if device_ms is not None else None
            at = sampled or at
            quality, why = (Quality.UNCERTAIN if sampled else Quality.BAD), DELAYED
        elif verdict:
            quality, why = Quality.UNCERTAIN, verdict
        if route.main and self._status is not None and (fault := self._status_fault(document)):
            return Taken(readings=self._bad(route.points, DELAYED if why == DELAYED else fault, at))
        read = self._read if self.device.shape == "json" else self._read_alone
        readings = read(route.points, document, at, quality, why)
        return Taken(readings=tuple(readings)) if readings else Taken(reject="no_points")

    def _decode(self, payload: bytes) -> Any:
        if self.device.shape == "number":
            return decode_text(payload)
        document = decode_json(payload)
        if type(document) is not dict and not (self._lists and isinstance(document, list)):
            raise RefusedPayloadError("not_an_object")
        return document

    def _read(
        self, points: tuple[_Point, ...], document: Any, at: Instant, quality: Quality, why: str
    ) -> list[Reading]:
        """Of an object with several numbers; nearly every message."""
        readings: list[Reading] = []
        keyed = type(document) is dict
        for point in points:
            found = document.get(point.key, MISSING) if point.key and keyed else find(document, point.steps)
            value, fault = point.meter.measure(found)
            if not fault:
                readings.append(Reading(point=point.id, value=value, quality=quality, why=why, at=at))
            elif fault != "missing" or not self.device.partial:
                readings.append(_no_value(point, fault, why, at))
        return readings

    def _read_alone(
        self, points: tuple[_Point, ...], document: Any, at: Instant, quality: Quality, why: str
    ) -> list[Reading]:
        """Of a topic for each number."""
        readings: list[Reading] = []
        for point in points:
            own, said = quality, why
            if self.device.shape == "number":
                value, fault = _bare(point, document)
            else:
                value, fault, judged, reason = _vuqt(point, document)
                if judged is Quality.UNCERTAIN and quality is Quality.GOOD:
                    own, said = judged, reason
            if fault:
                readings.append(_no_value(point, fault, why, at))
            else:
                readings.append(Reading(point=point.id, value=value, quality=own, why=said, at=at))
        return readings

    def _bad(self, points: tuple[_Point, ...], why: str, at: Instant) -> tuple[Reading, ...]:
        return tuple(Reading(point=p.id, value=None, quality=Quality.BAD, why=why, at=at) for p in points)

    def _status_fault(self, document: Any) -> str:
        assert self._status is not None
        status = find(document, self._status)
        if status is MISSING:
            return "status_missing"
        word = as_word(status)
        if word is not None and (word in self.device.status_ok or str(status) in self.device.status_ok):
            return ""
        return f"status_{word.lower()}" if word is not None and _WORD.fullmatch(word.lower()) else "status_unknown"

    # --- times ---

    def _device_ms(self, document: Any) -> int | None:
        if self._time is None:
            return None
        return parse_time(find(document, self._time), self.device.time_format, self._zone)

    def _judge(self, device_ms: int | None, arrival: Arrival) -> str:
        if arrival.backlog:
            return LATE
        if device_ms is None:
            return "no_time" if self._time is not None and self.device.time_needed else ""
        verdict = self._clock.judge(device_ms, arrival.at)
        self.health.skew_s, self.health.backwards = self._clock.skew_s, self._clock.backwards
        assert verdict in ("", SKEWED, LATE), verdict
        return verdict

    def _is_repeated(self, document: Any, device_ms: int | None, arrival: Arrival) -> bool:
        """Sent twice by the publisher: the same number, or the same time and content as the one before."""
        if self._same is not None and (number := as_word(find(document, self._same))):
            number = shorten(number)
            if number in self._seen:
                return True
            self._seen[number] = None
            if len(self._seen) > _ROUTES:
                del self._seen[next(iter(self._seen))]
        if device_ms is None:
            return False
        topic, content = shorten(arrival.topic), (device_ms, digest(arrival.payload))
        before = self._before.get(topic)
        if before == content:
            return True
        if before is None and len(self._before) >= _ROUTES:
            self._before.clear()
        self._before[topic] = content
        return False

    # --- availability ---

    def _availability(self, arrival: Arrival) -> Taken:
        """`offline`, also a retained one: every point is bad at once. `online` makes no value: one must come."""
        word = _availability_word(arrival.payload)
        if word in self.device.offline:
            return Taken(readings=self._bad(self._all, "offline", arrival.at))
        return _NOTHING if word in self.device.online else Taken(reject="unknown_availability")


def _compile(device: MqttDevice, point: MqttPoint) -> _Point:
    steps = compile_path(point.path) if point.path and device.shape == "json" else ()
    key = steps[0] if len(steps) == 1 and isinstance(steps[0], str) else ""
    words = {word.lower(): value for word, value in point.words}
    meter = Meter(scale=point.scale, low=point.low, high=point.high, text=point.text, words=words)
    return _Point(id=f"{device.device}.{point.name}", key=key, steps=steps, unit=point.unit, meter=meter)


def _no_value(point: _Point, fault: str, why: str, at: Instant) -> Reading:
    """What is wrong with an old value is no news."""
    return Reading(point=point.id, value=None, quality=Quality.BAD, why=why if why == DELAYED else fault, at=at)


def _bare(point: _Point, text: str) -> tuple[float | None, str]:
    if text.lower() in point.meter.words:
        return point.meter.measure(text)
    number, why = read_number(text)
    return (None, why) if why else point.meter.measure(number)


def _vuqt(point: _Point, document: Any) -> tuple[float | None, str, Quality, str]:
    """Value, why it is bad, and the quality and reason that the device gives."""
    unit, judged = document.get("u"), document.get("q", "good")
    reason = document.get("why")
    reason = reason if isinstance(reason, str) and _WORD.fullmatch(reason) else "source"
    if unit is not None and unit != point.unit:
        return None, "unit_mismatch", Quality.BAD, ""
    if judged == "bad":
        return None, reason, Quality.BAD, ""
    if judged not in ("good", "uncertain"):
        return None, "quality_unknown", Quality.BAD, ""
    value, why = point.meter.measure(document.get("v", MISSING))
    return value, why, Quality(judged), reason if judged == "uncertain" else ""


def _availability_word(payload: bytes) -> str:
    """A bare word, a JSON text, or the `state` of a JSON object."""
    try:
        text = decode_text(payload)
        if text[:1] not in ("{", '"'):
            return text
        document = decode_json(payload)
    except RefusedPayloadError:
        return ""
    return as_word(document.get("state") if isinstance(document, dict) else document) or ""
