"""One device of a Sparkplug B edge node: births, data and deaths to readings. The host application's side, pure.

Sparkplug 3.0 reports by exception: a value that does not change is not sent again, and is current for as long as the
session lives. That is why everything here asks "is the session whole?": a lost message may have held the value that
matters, or a birth that gives an alias to another metric. As soon as the order of the sequence numbers is broken:

- every point is bad `seq_gap` until a new birth says all values, because the last one may be outdated;
- a value by name with its datatype is still what was measured: it counts as uncertain `seq_gap`, so that it can raise;
- a value by alias is bad `seq_gap`: the alias may mean another metric by now, and no value is better than a wrong one;
- a rebirth is asked for.

Messages are not put in order again (a reorder timeout of zero): a broker keeps the order of one connection, and a late
message costs a rebirth, never a wrong value. STATE is not published, so an edge node that waits for a primary host
must be configured without one; the rebirth request needs the right to publish to `spBv1.0/<group>/NCMD/<edge node>`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from ..errors import ConfigError
from ..words import Instant, Quality, Reading
from .mqtt_payloads import LATE, SKEWED, DeviceClock, Meter
from .mqtt_words import (
    DELAYED,
    DUPLICATE,
    MAX_PAYLOAD_BYTES,
    Arrival,
    MqttDevice,
    MqttDeviceHealth,
    MqttPoint,
    Outgoing,
    Reject,
    Taken,
)
from .sparkplug_payload import BD_SEQ, SEQ_COUNT, Birth, Metric, Payload, decode, encode_rebirth, number

NAMESPACE = "spBv1.0"
NODE_KINDS = ("NBIRTH", "NDATA", "NDEATH")
DEVICE_KINDS = ("DBIRTH", "DDATA", "DDEATH")
ASK_FIRST_S = 10.0  # between two rebirth requests; doubles while there is trouble
ASK_CAP_S = 300.0
CALM_S = 60.0  # without trouble: the pauses are short again
BIRTH_WAIT_S = 5.0  # for our birth after the link is up, and for the device's birth after the node's


@dataclass(frozen=True, slots=True, kw_only=True)
class SparkplugDevice:
    """One device of an edge node, or the edge node itself.

    Attributes:
        device: `area.device`; a reading's point is `device.name`.
        group, edge_node: the edge node's ids in topics.
        unit: the Sparkplug device's id; "" for the metrics of the edge node itself.
        points: `path` is the metric's name as the birth writes it, `Inputs/CH4`; of the rest `scale`, `low`, `high`.
        refresh_s: when a point was not heard of for so long, a rebirth is asked for, so that a value that does not
            change is seen to be current; keep it well below the seconds of the `stale` alarm. 0: never.
        max_skew_s: a clock that is further off makes values uncertain `clock_skew`; a value that comes so much later
            than it was measured is `delayed`.
    """

    device: str
    group: str
    edge_node: str
    unit: str = ""
    points: tuple[MqttPoint, ...]
    refresh_s: float = 20.0
    max_skew_s: float = 30.0


@dataclass(slots=True, kw_only=True)
class _Asking:
    """When to ask for a rebirth: at most every ASK_FIRST_S, less and less often while there is trouble."""

    wanted: bool = False
    pause_s: float = ASK_FIRST_S
    next_s: float = -math.inf
    asked_s: float = -math.inf
    trouble_s: float = -math.inf

    def ask(self, now_s: float, *, trouble: bool = True) -> bool:
        """Whether to send it now; if not, `again` will say when."""
        self.wanted = True
        if trouble:
            self.trouble_s = now_s
        if now_s < self.next_s:
            return False
        self.asked_s, self.next_s = now_s, now_s + self.pause_s
        if trouble:
            self.pause_s = min(2 * self.pause_s, ASK_CAP_S)
        return True

    def later(self, now_s: float) -> None:
        """Ask, but not before a pause: whoever would answer is not there."""
        self.wanted, self.next_s = True, max(self.next_s, now_s + self.pause_s)

    def again(self, now_s: float) -> bool:
        """Whether one is wanted that can be sent by now."""
        return self.wanted and now_s >= self.next_s

    def calm(self, now_s: float) -> None:
        if not self.wanted and now_s - self.trouble_s > CALM_S:
            self.pause_s = ASK_FIRST_S
            self.next_s = min(self.next_s, self.asked_s + ASK_FIRST_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Message:
    """A decoded message and what holds for all of its values."""

    payload: Payload
    at: Instant
    birth: bool
    broken: bool
    late: bool
    skewed: bool


@dataclass(slots=True, kw_only=True)
class _Session:
    """What is known of the edge node since its birth."""

    bd_seq: int | None
    seq: int
    last: tuple[str, bytes]
    broken: bool = False

    def follow(self, seq: int | None, message: tuple[str, bytes]) -> bool:
        """Whether it is new; a number out of order breaks the session (tck-id-payloads-sequence-num-incrementing)."""
        seq = seq or 0  # senders with protobuf 3 leave zeros out
        if seq == self.seq and message == self.last:
            return False
        self.broken = self.broken or seq != (self.seq + 1) % SEQ_COUNT
        self.seq, self.last = seq, message
        return True


class SparkplugSource:
    """A `Source` (see mqtt_words.py) of one Sparkplug device or edge node.

    Several sources of one edge node each follow the whole node: sequence numbers count for all of its devices.
    A point is bad, without a value, for `no_birth`, `offline`, `seq_gap`, `missing` in the birth, `alias_clash`,
    `quality_<word>`, `no_value`, `wrong_type` (also text, data sets, templates), `not_a_number`, `out_of_range` and
    what the link says; uncertain for `seq_gap`, `clock_skew` and `delayed` (for the history alone).
    A message is refused: `retained`, `too_large`, `wrong_topic`, `not_sparkplug`, `duplicate`, `old_death`. What has
    more metrics, or longer names, than MOST_METRICS and MOST_NAME_BYTES is refused too, `too_many_metrics` or
    `names_too_long`: after such a birth every point is bad with that word, and such data counts as lost. Of the other
    devices of the edge node nothing is kept, and of their messages no metric is looked at.

    Args:
        device: what to listen to.
        health: gets what only the source knows: the clock.

    Raises:
        ConfigError: an id cannot be part of a topic, or there is no point.
    """

    def __init__(self, device: SparkplugDevice, health: MqttDeviceHealth | None = None) -> None:
        _check(device)
        self.device = device
        self.health = health
        self._points: dict[str, list[tuple[MqttPoint, Meter]]] = {}
        for point in device.points:
            meter = Meter(scale=point.scale, low=point.low, high=point.high, text=False, words={})
            self._points.setdefault(point.path, []).append((point, meter))
        self._session: _Session | None = None
        self._unit: Birth | None = None
        self._clock = DeviceClock(device.max_skew_s)
        self._bd_seq: int | None = None
        self._asking = _Asking()
        self._heard_s: dict[str, float] = {}
        self._linked = False
        self._wait_s: float | None = None  # since when a birth of ours is waited for
        self._unborn: Reject | Literal["no_birth"] = "no_birth"  # why there is no birth
        self._why = ""  # what makes all points bad now
        self._handlers: dict[str, Callable[[Arrival, Payload], Taken]] = {
            "NBIRTH": self._node_birth,
            "NDATA": self._data,
            "NDEATH": self._node_death,
            "DBIRTH": self._unit_birth,
            "DDATA": self._data,
            "DDEATH": self._unit_death,
        }

    def subscriptions(self) -> tuple[str, ...]:
        """The edge node's messages and those of all of its devices, whose sequence numbers are one series."""
        group, node = self.device.group, self.device.edge_node
        of_node = [f"{NAMESPACE}/{group}/{kind}/{node}" for kind in NODE_KINDS]
        return (*of_node, *(f"{NAMESPACE}/{group}/{kind}/{node}/+" for kind in DEVICE_KINDS))

    def take(self, arrival: Arrival) -> Taken:
        """Interpret one message of the edge node or one of its devices."""
        if arrival.retained:
            return Taken(reject="retained")
        if len(arrival.payload) > MAX_PAYLOAD_BYTES:
            return Taken(reject="too_large")
        kind = self._kind(arrival.topic)
        if not kind:
            return Taken(reject="wrong_topic")
        is_ours = self._is_ours(arrival.topic) or kind in ("NBIRTH", "NDEATH")
        payload = decode(arrival.payload, head=not is_ours)
        if payload is None:
            return Taken(reject="not_sparkplug")
        return self._handlers[kind](arrival, payload)

    def connected(self, at: Instant) -> Taken:
        """Nothing is known of a session that began without us: ask for its births."""
        self._forget()
        self._linked = True
        self._wait_s = at.mono_s
        return Taken(publish=self._ask(at))

    def lost(self, why: str, at: Instant) -> Taken:
        self._forget()
        self._linked = False
        self._why = ""
        return Taken(readings=self._blame(why, at))

    def tick(self, at: Instant) -> Taken:
        """Ask again, look for points that were not heard of, and give up waiting for a birth."""
        now_s = at.mono_s
        self._asking.calm(now_s)
        if not self._linked:
            return Taken()
        readings: tuple[Reading, ...] = ()
        if self._wait_s is not None and now_s - self._wait_s > BIRTH_WAIT_S:
            self._wait_s = None
            readings = self._blame("no_birth", at)
        if self._asking.again(now_s):
            return Taken(readings=readings, publish=self._ask(at))
        if self._quiet(now_s) and not self._asking.wanted:
            return Taken(readings=readings, publish=self._ask(at, trouble=False))
        return Taken(readings=readings)

    # --- messages ---

    def _kind(self, topic: str) -> str:
        parts = topic.split("/")
        kinds = {4: NODE_KINDS, 5: DEVICE_KINDS}.get(len(parts), ())
        known = parts[:2] == [NAMESPACE, self.device.group] and len(parts) > 3 and parts[3] == self.device.edge_node
        return parts[2] if known and parts[-1] and parts[2] in kinds else ""

    def _is_ours(self, topic: str) -> bool:
        parts = topic.split("/")
        return (parts[4] if len(parts) > 4 else "") == self.device.unit

    def _node_birth(self, arrival: Arrival, payload: Payload) -> Taken:
        at = arrival.at
        bd_seq = _bd_seq(payload)
        if bd_seq is None or bd_seq != self._bd_seq:
            self._clock = DeviceClock(self.device.max_skew_s)  # it may have been set meanwhile
        self._bd_seq = bd_seq
        self._session = _Session(bd_seq=bd_seq, seq=payload.seq or 0, last=(arrival.topic, arrival.payload))
        self._asking.wanted = False
        if not self.device.unit:
            return self._born(arrival, payload)
        self._unit, self._unborn = None, "no_birth"
        self._wait_s = at.mono_s
        self._message(arrival, payload, birth=True)  # its clock
        return Taken()

    def _unit_birth(self, arrival: Arrival, payload: Payload) -> Taken:
        stop = self._out_of_step(arrival, payload)
        if stop is not None or not self._is_ours(arrival.topic):
            return stop or Taken()
        return self._born(arrival, payload)

    def _born(self, arrival: Arrival, payload: Payload) -> Taken:
        self._wait_s = None
        if payload.refused:
            self._unit, self._unborn = None, payload.refused
            return Taken(reject=payload.refused, readings=self._blame(payload.refused, arrival.at))
        birth = self._unit = Birth.of(payload.metrics)
        self._unborn, self._why = "no_birth", ""
        readings = self._readings(self._message(arrival, payload, birth=True), birth)
        for metric, points in self._points.items():
            if metric not in birth.types:
                readings += [_bad(self.device, point, "missing", arrival.at) for point, _ in points]
        return Taken(readings=tuple(readings))

    def _data(self, arrival: Arrival, payload: Payload) -> Taken:
        stop = self._out_of_step(arrival, payload)
        if stop is not None and stop.reject:
            return stop
        if not self._is_ours(arrival.topic):
            return stop or Taken()
        before = stop or Taken()
        birth = self._unit
        if birth is None:
            readings = (*before.readings, *self._blame(self._unborn, arrival.at))
            return Taken(reject=payload.refused, readings=readings, publish=before.publish or self._ask(arrival.at))
        if payload.refused:
            before = stop or self._break(arrival)  # it is as good as lost
            return Taken(reject=payload.refused, readings=before.readings, publish=before.publish)
        message = self._message(arrival, payload)
        publish = before.publish
        if not publish and (message.late or any(len(birth.names(m)) != 1 for m in payload.metrics)):
            publish = self._ask(arrival.at)  # it was held up, or has a metric that the birth does not explain
        return Taken(readings=(*before.readings, *self._readings(message, birth)), publish=publish)

    def _node_death(self, arrival: Arrival, payload: Payload) -> Taken:
        """All points are bad `offline`; the Will of an earlier session is not a death of this one."""
        bd_seq = _bd_seq(payload)
        session = self._session
        if session is None and arrival.backlog:
            return Taken(reject="old_death")  # it died while we were away; nobody knows whether it is back
        if session is not None and bd_seq is not None and session.bd_seq is not None and bd_seq != session.bd_seq:
            return Taken(reject="old_death")
        self._forget()
        self._asking.later(arrival.at.mono_s)  # should it live, it says so
        return Taken(readings=self._blame("offline", arrival.at))

    def _unit_death(self, arrival: Arrival, payload: Payload) -> Taken:
        stop = self._out_of_step(arrival, payload)
        if (stop is not None and stop.reject) or not self._is_ours(arrival.topic):
            return stop or Taken()
        self._unit = None
        self._wait_s = None
        return Taken(readings=self._blame("offline", arrival.at), publish=stop.publish if stop else ())

    def _out_of_step(self, arrival: Arrival, payload: Payload) -> Taken | None:
        """What a message out of order brings with it; None for one in order."""
        session = self._session
        if session is None:
            return Taken(readings=self._blame("no_birth", arrival.at), publish=self._ask(arrival.at))
        if not session.follow(payload.seq, (arrival.topic, arrival.payload)):
            return Taken(reject=DUPLICATE)
        return self._break(arrival) if session.broken else None

    def _break(self, arrival: Arrival) -> Taken:
        """Something is lost, and perhaps the value that matters."""
        assert self._session is not None
        self._session.broken = True
        return Taken(readings=self._blame("seq_gap", arrival.at), publish=self._ask(arrival.at))

    # --- values ---

    def _message(self, arrival: Arrival, payload: Payload, *, birth: bool = False) -> _Message:
        sent_ms = payload.timestamp_ms
        said = "" if sent_ms is None else self._clock.judge(sent_ms, arrival.at)
        if said == LATE and birth and self._is_answer(arrival.at):
            self._clock = DeviceClock(self.device.max_skew_s)  # it did not wait: the clock was set back
            said = self._clock.judge(sent_ms or 0, arrival.at)
        if self.health is not None:
            self.health.skew_s, self.health.backwards = self._clock.skew_s, self._clock.backwards
        return _Message(
            payload=payload,
            at=arrival.at,
            birth=birth,
            broken=self._session is None or self._session.broken,
            late=arrival.backlog or said == LATE,
            skewed=said == SKEWED,
        )

    def _is_answer(self, at: Instant) -> bool:
        return at.mono_s - self._asking.asked_s <= self.device.max_skew_s

    def _readings(self, message: _Message, birth: Birth) -> list[Reading]:
        readings: list[Reading] = []
        unclear: set[str] = set()
        mixed = False  # a whole set of names at once, however often
        for metric in message.payload.metrics:
            names = birth.names(metric)
            if len(names) > 1:
                mixed = mixed or names is birth.unclear
                unclear.update(() if names is birth.unclear else names)
                continue
            for name in names:
                for point, meter in self._points.get(name, ()):
                    readings.append(self._reading(point, meter, metric, birth.types[name], message))
        unclear |= birth.unclear if mixed else set()
        for name in unclear.intersection(self._points):
            readings += [_bad(self.device, point, "alias_clash", message.at) for point, _ in self._points[name]]
        return readings

    def _reading(
        self, point: MqttPoint, meter: Meter, metric: Metric, declared: int | None, message: _Message
    ) -> Reading:
        old = self._is_old(metric, message)
        at = self._sampled(metric, message) if old else message.at
        if not old:
            self._heard_s[point.name] = message.at.mono_s
        is_sure = not message.broken or (bool(metric.name) and metric.datatype is not None)
        value, why = _measure(meter, metric, declared)
        why = metric.quality or ("" if is_sure else "seq_gap") or why
        if why or at is None:
            return _bad(self.device, point, DELAYED if old else why, message.at)
        doubt = DELAYED if old else "seq_gap" if message.broken else SKEWED if message.skewed else ""
        quality = Quality.UNCERTAIN if doubt else Quality.GOOD
        return Reading(point=f"{self.device.device}.{point.name}", value=value, quality=quality, why=doubt, at=at)

    def _is_old(self, metric: Metric, message: _Message) -> bool:
        """A value in a birth is current by definition, whenever it changed (…-nbirth-values, …-dbirth-values)."""
        captured_ms, sent_ms = metric.timestamp_ms, message.payload.timestamp_ms
        if metric.historical or message.late:
            return True
        if message.birth or captured_ms is None or sent_ms is None:
            return False
        return sent_ms - captured_ms > self.device.max_skew_s * 1000

    def _sampled(self, metric: Metric, message: _Message) -> Instant | None:
        device_ms = metric.timestamp_ms if metric.timestamp_ms is not None else message.payload.timestamp_ms
        return None if device_ms is None else self._clock.sampled(device_ms, message.at)

    # --- state ---

    def _forget(self) -> None:
        self._session = self._unit = self._wait_s = None
        self._unborn = "no_birth"
        self._asking.wanted = False

    def _quiet(self, now_s: float) -> bool:
        """Whether a session of ours lives and one of its points was not heard of for too long."""
        if self._unit is None or not self.device.refresh_s:
            return False
        heard = (self._heard_s.get(p.name, -math.inf) for p in self.device.points if p.path in self._unit.types)
        return now_s - max(min(heard, default=now_s), self._asking.asked_s) > self.device.refresh_s

    def _blame(self, why: str, at: Instant) -> tuple[Reading, ...]:
        """Every point without a value, once for each reason."""
        if why == self._why:
            return ()
        self._why = why
        return tuple([_bad(self.device, point, why, at) for point in self.device.points])

    def _ask(self, at: Instant, *, trouble: bool = True) -> tuple[Outgoing, ...]:
        if not self._asking.ask(at.mono_s, trouble=trouble):
            return ()
        topic = f"{NAMESPACE}/{self.device.group}/NCMD/{self.device.edge_node}"
        return (Outgoing(topic=topic, payload=encode_rebirth(at.utc_ms)),)


def make_sparkplug(device: MqttDevice, health: MqttDeviceHealth | None = None) -> SparkplugSource:
    """The source of a device of site.toml, whose topic is `group/edge node` or `group/edge node/device`.

    A value that does not change is asked for twice in the device's `stale_s`.
    """
    parts = device.topic.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        problem = f"topic: must be group/edge node or group/edge node/device (got {device.topic!r})"
        raise ConfigError(f"sparkplug {device.device}", [problem])
    spec = SparkplugDevice(
        device=device.device,
        group=parts[0],
        edge_node=parts[1],
        unit=parts[2] if len(parts) > 2 else "",
        points=device.points,
        refresh_s=device.stale_s / 2,
        max_skew_s=device.max_skew_s,
    )
    return SparkplugSource(spec, health)


def _check(device: SparkplugDevice) -> None:
    problems: list[str] = []
    for name, part in (("group", device.group), ("edge_node", device.edge_node), ("unit", device.unit)):
        if any(c in part for c in "+#/") or (not part and name != "unit"):
            problems.append(f"{name}: must be one part of a topic, without / + and # (got {part!r})")
    if not device.points:
        problems.append("points: must not be empty")
    nameless = [point.name for point in device.points if not point.path]
    problems += [f"points: {name} needs a path: the metric's name as in the birth" for name in nameless]
    if problems:
        raise ConfigError(f"sparkplug {device.device}", problems)


def _bd_seq(payload: Payload) -> int | None:
    for metric in payload.metrics:
        if metric.name == BD_SEQ and isinstance(metric.raw, int):
            return metric.raw
    return None


def _bad(device: SparkplugDevice, point: MqttPoint, why: str, at: Instant) -> Reading:
    return Reading(point=f"{device.device}.{point.name}", value=None, quality=Quality.BAD, why=why, at=at)


def _measure(meter: Meter, metric: Metric, declared: int | None) -> tuple[float | None, str]:
    if metric.datatype is not None and declared is not None and metric.datatype != declared:
        return None, "wrong_type"
    value, why = number(metric, declared if metric.datatype is None else metric.datatype)
    return (None, why) if why else meter.measure(value)
