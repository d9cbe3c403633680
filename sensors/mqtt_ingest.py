"""Devices that publish JSON to an MQTT broker: topics and payloads to readings. The only sensor file with aiomqtt.

A retained message is refused: nobody knows how old it is, and a device that is gone must look silent. So a value counts
only when it is published while we listen; a device with a long period is silent until then.

A flood is refused as it arrives, before it can fill the memory: what waits for the loop is bounded in bytes, in total
and for each topic, so that one device's flood does not cost its neighbours a message. One message on its way in is held
whole by the MQTT client before we see it: only the broker (mosquitto's `message_size_limit`) bounds that.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import random
import re
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NoReturn, cast
from urllib.parse import urlsplit

import aiomqtt

from ..errors import ConfigError
from ..words import Instant, Quality, Reading, mono_s, now

logger = logging.getLogger(__name__)

MAX_PAYLOAD_BYTES = 64 * 1024
# What may wait for the loop. A size is the payload and MESSAGE_BYTES for what Python needs around it.
MESSAGE_BYTES = 1024
WAITING_BYTES = 4 * 1024 * 1024
TOPIC_BYTES = 512 * 1024
TOPIC_MESSAGES = 256
RESERVED_BYTES = 8 * 1024  # of each topic, also when the others have taken all of WAITING_BYTES
FLOOD_DROPS = 10  # so many drops, with no pause of FLOOD_PAUSE_S between them, are called a flood
FLOOD_PAUSE_S = 10.0
KEEPALIVE_S = 20
ANSWER_S = 5.0  # for the broker's part of connecting, subscribing, leaving
RECONNECT_FIRST_S = 0.5
RECONNECT_CAP_S = 30.0
BEAT_S = 1.0
PORTS = {"mqtt": 1883, "mqtts": 8883}

Sink = Callable[[list[Reading]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttPoint:
    """One number in a payload.

    Attributes:
        name: last part of the point id.
        path: keys from the top of the JSON object, separated by dots: `ch4`, `sensor.co`.
        low, high: outside of them the value is bad `out_of_range`.
    """

    name: str
    path: str
    scale: Decimal = Decimal(1)
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttDevice:
    """One device on the broker.

    Attributes:
        device: `area.device`; a reading's point is `device.name`.
        topic: without wildcards.
        stale_s: silent for longer, the device is shown as a fault. Alarms on silence are the rules' business.
        status_path, status_ok: where the device says whether it measures, and the words (or numbers, as text) that mean
            yes. Any other makes every point bad `status_<word>`.
    """

    device: str
    topic: str
    points: tuple[MqttPoint, ...]
    stale_s: float = 30.0
    status_path: str | None = None
    status_ok: frozenset[str] = frozenset({"ok"})


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttCredentials:
    """What the broker knows us by; comes from a file or a systemd credential."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """Why a payload is not taken.

    `too_large`, `not_utf8`, `not_json`, `duplicate_key`, `not_an_object`, `retained`; `flooded`: too many wait already.
    """

    reason: str


@dataclass(slots=True, kw_only=True)
class MqttDeviceHealth:
    """Counters of one device. `messages` were taken; `rejects` counts the others by reason."""

    device: str
    stale_s: float
    messages: int = 0
    rejects: Counter[str] = field(default_factory=Counter)
    last_reject: str = ""
    last_message_at: Instant | None = None
    why: str = ""

    def reject(self, reason: str) -> None:
        """Count a message that was not taken."""
        self.rejects[reason] += 1
        self.last_reject = reason

    def state(self, now_s: float) -> str:
        """`ok` or `fault`: refused, bad in every point, or silent for longer than `stale_s`."""
        at = self.last_message_at
        return "fault" if self.why or at is None or now_s - at.mono_s > self.stale_s else "ok"


@dataclass(slots=True, kw_only=True)
class MqttHealth:
    """Counters of the link to the broker; written by its task alone.

    Attributes:
        waiting_bytes, most_waiting_bytes: size of the messages that wait for the loop, now and at its worst.
    """

    devices: dict[str, MqttDeviceHealth] = field(default_factory=dict)
    connected: bool = False
    reconnects: int = 0
    last_error: str = ""
    beat_s: float = 0.0
    waiting_bytes: int = 0
    most_waiting_bytes: int = 0

    @classmethod
    def of(cls, devices: Iterable[MqttDevice]) -> MqttHealth:
        """Zeroed counters."""
        return cls(devices={d.device: MqttDeviceHealth(device=d.device, stale_s=d.stale_s) for d in devices})


# --- payloads, pure ---


def parse(device: MqttDevice, payload: bytes, at: Instant, retained: bool) -> list[Reading] | Reject:
    """A payload to one reading for each point of the device, or why it is refused as a whole.

    A point is bad, without a value, for: `missing` path, `no_value` (null), `wrong_type`, `not_a_number` (NaN,
    Infinity), `out_of_range`, `status_<word>`.
    """
    if retained:
        return Reject(reason="retained")
    if len(payload) > MAX_PAYLOAD_BYTES:
        return Reject(reason="too_large")
    try:
        document = json.loads(payload.decode("utf-8"), object_pairs_hook=_unique)
    except UnicodeDecodeError:
        return Reject(reason="not_utf8")
    except _DuplicateKeyError:
        return Reject(reason="duplicate_key")
    except (ValueError, RecursionError):
        return Reject(reason="not_json")
    if not isinstance(document, dict):
        return Reject(reason="not_an_object")
    if why := _status_fault(device, document):
        return bad_readings(device, why, at)
    return [_reading(device, point, document, at) for point in device.points]


def bad_readings(device: MqttDevice, why: str, at: Instant) -> list[Reading]:
    """Every point of the device without a value."""
    points = (f"{device.device}.{p.name}" for p in device.points)
    return [Reading(point=p, value=None, quality=Quality.BAD, why=why, at=at) for p in points]


class _DuplicateKeyError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):  # which one would be meant?
        raise _DuplicateKeyError
    return document


_MISSING = object()


def _find(document: Any, path: str) -> Any:
    for key in path.split("."):
        if not isinstance(document, dict) or key not in document:
            return _MISSING
        document = document[key]
    return document


def _status_fault(device: MqttDevice, document: dict[str, Any]) -> str:
    if device.status_path is None:
        return ""
    status = _find(document, device.status_path)
    if status is _MISSING:
        return "status_missing"
    if isinstance(status, str | int) and str(status) in device.status_ok:
        return ""
    word = str(status).lower() if isinstance(status, str | int) else ""
    return f"status_{word}" if re.fullmatch(r"[a-z0-9_]{1,32}", word) else "status_unknown"


def _reading(device: MqttDevice, point: MqttPoint, document: dict[str, Any], at: Instant) -> Reading:
    value, why = _measure(point, _find(document, point.path))
    quality = Quality.BAD if why else Quality.GOOD
    return Reading(point=f"{device.device}.{point.name}", value=value, quality=quality, why=why, at=at)


def _measure(point: MqttPoint, found: Any) -> tuple[float | None, str]:
    if found is _MISSING:
        return None, "missing"
    if found is None:
        return None, "no_value"
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None, "wrong_type"
    try:
        value = float(found) if point.scale == 1 else float(Decimal(repr(found)) * point.scale)
    except OverflowError:  # an integer beyond every float
        return None, "not_a_number"
    if not math.isfinite(value):
        return None, "not_a_number"
    if (point.low is not None and value < point.low) or (point.high is not None and value > point.high):
        return None, "out_of_range"
    return value, ""


# --- what waits for the loop ---


@dataclass(slots=True, kw_only=True)
class _Topic:
    """One topic: its devices, its share of what waits, and whether it floods."""

    name: str
    devices: list[MqttDevice] = field(default_factory=list)
    waiting: int = 0
    waiting_bytes: int = 0
    drops: int = 0  # with no pause between them
    dropped_s: float = 0.0

    def fits(self, size: int, total: int) -> bool:
        """Whether `size` more bytes may wait while `total` bytes of all topics do."""
        mine = self.waiting_bytes + size
        has_room = mine <= TOPIC_BYTES and total + size <= WAITING_BYTES
        return self.waiting < TOPIC_MESSAGES and (has_room or mine <= RESERVED_BYTES)

    def note_drop(self, reason: str) -> None:
        self.drops += 1
        self.dropped_s = mono_s()
        if self.drops == FLOOD_DROPS:
            logger.warning("mqtt topic %s: a flood, %s: messages are dropped; check the device", self.name, reason)

    def end_flood(self, now_s: float) -> None:
        """Forget the drops after a pause."""
        if not self.drops or now_s - self.dropped_s < FLOOD_PAUSE_S:
            return
        if self.drops >= FLOOD_DROPS:
            logger.info("mqtt topic %s: the flood is over; %d messages were dropped", self.name, self.drops)
        self.drops = 0


class _Arrived(aiomqtt.Message):
    """A message and the moment it came."""

    def __init__(self, message: aiomqtt.Message, at: Instant) -> None:
        super().__init__(message.topic, message.payload, message.qos, message.retain, message.mid, message.properties)
        self.at = at


class _Arrivals(asyncio.Queue[aiomqtt.Message]):
    """aiomqtt's queue of one connection, with a door: what does not fit is dropped and counted, never raised."""

    def __init__(self, topics: Mapping[str, _Topic], health: MqttHealth) -> None:
        super().__init__()
        self.topics = topics
        self.health = health
        health.waiting_bytes = 0
        for topic in topics.values():
            topic.waiting = topic.waiting_bytes = 0

    def put_nowait(self, item: aiomqtt.Message) -> None:
        topic = self.topics.get(str(item.topic))
        if topic is None:
            return
        size = len(item.payload) + MESSAGE_BYTES
        if len(item.payload) > MAX_PAYLOAD_BYTES:
            self._drop(topic, "too_large")
        elif not topic.fits(size, self.health.waiting_bytes):
            self._drop(topic, "flooded")
        else:
            self._count(topic, 1, size)
            super().put_nowait(_Arrived(item, now()))

    def _drop(self, topic: _Topic, reason: str) -> None:
        for device in topic.devices:
            self.health.devices[device.device].reject(reason)
        topic.note_drop(reason)

    def _count(self, topic: _Topic, messages: int, size: int) -> None:
        topic.waiting += messages
        topic.waiting_bytes += size
        self.health.waiting_bytes += size
        self.health.most_waiting_bytes = max(self.health.most_waiting_bytes, self.health.waiting_bytes)

    def _get(self) -> aiomqtt.Message:
        item = super()._get()
        self._count(self.topics[str(item.topic)], -1, -len(item.payload) - MESSAGE_BYTES)
        return item


# --- the link ---


async def run_mqtt(
    url: str,
    credentials: MqttCredentials | None,
    devices: Sequence[MqttDevice],
    sink: Sink,
    health: MqttHealth,
) -> NoReturn:
    """Listen to the devices until cancelled; connects again for ever.

    When the link is lost, or cannot be made at first, every point gets one bad reading `no_connection`; the points of a
    topic that the broker refuses get `subscription_refused`.

    Args:
        url: `mqtt://host[:port]` or `mqtts://host[:port]`.
        sink: takes the readings of one message; they share one `at`. Called in the event loop, must not block. What it
            raises ends this task.
        health: made by `MqttHealth.of(devices)`; updated in place.

    Raises:
        ConfigError: the url or a topic cannot be used; before anything is opened.
    """
    _check(url, devices)
    listener = _Listener(url, credentials, devices, sink, health)
    async with asyncio.TaskGroup() as group:
        group.create_task(listener.beat(), name="mqtt beat")
        group.create_task(listener.run(), name="mqtt ingest")
    raise AssertionError("the tasks of run_mqtt never end")


def _check(url: str, devices: Sequence[MqttDevice]) -> None:
    problems: list[str] = []
    try:
        parts = urlsplit(url)
        usable = parts.scheme in PORTS and bool(parts.hostname) and parts.port != 0
    except ValueError:
        problems.append("url: must be mqtt://host[:port] or mqtts://host[:port]")
    else:
        if not usable or parts.path not in {"", "/"} or parts.query:
            problems.append("url: must be mqtt://host[:port] or mqtts://host[:port]")
        if parts.username is not None:
            problems.append("url: must not hold a user or password; they come from the credentials")
    for index, device in enumerate(devices):
        if not device.topic or "+" in device.topic or "#" in device.topic:
            problems.append(f"devices[{index}].topic: must be one topic without + and # (got {device.topic!r})")
        if not device.points:
            problems.append(f"devices[{index}].points: must not be empty")
    if problems:
        raise ConfigError("mqtt", problems)


class _Listener:
    """One link to the broker and what is lost with it."""

    def __init__(
        self,
        url: str,
        credentials: MqttCredentials | None,
        devices: Sequence[MqttDevice],
        sink: Sink,
        health: MqttHealth,
    ) -> None:
        self.url = urlsplit(url)
        self.credentials = credentials
        self.devices = devices
        self.topics: dict[str, _Topic] = {}
        for device in devices:
            self.topics.setdefault(device.topic, _Topic(name=device.topic)).devices.append(device)
        self.sink = sink
        self.health = health
        self.lost = False

    async def beat(self) -> NoReturn:
        while True:
            self.health.beat_s = mono_s()
            for topic in self.topics.values():
                topic.end_flood(self.health.beat_s)
            await asyncio.sleep(BEAT_S)

    async def run(self) -> NoReturn:
        attempt = 0
        connected_before = False
        while True:
            start_s = mono_s()
            try:
                async with self.client() as client:
                    self.health.reconnects += int(connected_before)
                    connected_before = True
                    await self.listen(client)
            except aiomqtt.MqttError as error:
                self.note_loss(error)
            finally:
                self.health.connected = False
            attempt = 0 if mono_s() - start_s > RECONNECT_CAP_S else attempt + 1
            pause_s = min(RECONNECT_FIRST_S * 2 ** min(attempt, 16), RECONNECT_CAP_S)
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret

    def client(self) -> aiomqtt.Client:
        """A fresh client: a clean session, so that the broker keeps no old values for us."""
        known = self.credentials
        return aiomqtt.Client(
            self.url.hostname or "",
            self.url.port or PORTS[self.url.scheme],
            username=known.username if known else None,
            password=known.password if known else None,
            clean_session=True,
            keepalive=KEEPALIVE_S,
            timeout=ANSWER_S,
            queue_type=cast("type[asyncio.Queue[aiomqtt.Message]]", self.arrivals),
            tls_context=ssl.create_default_context() if self.url.scheme == "mqtts" else None,
        )

    def arrivals(self, maxsize: int = 0) -> _Arrivals:
        """A fresh queue, called by aiomqtt; its limits are ours."""
        assert maxsize == 0, maxsize
        return _Arrivals(self.topics, self.health)

    async def listen(self, client: aiomqtt.Client) -> None:
        topics = list(self.topics)
        codes = await client.subscribe([(topic, 1) for topic in topics]) if topics else ()
        for topic, code in zip(topics, codes, strict=True):
            if _refused(code):
                self.note_refusal(topic)
        self.health.connected = True
        if self.lost:
            logger.info("mqtt %s: connected again", self.url.netloc)
        self.lost = False
        async for message in client.messages:
            assert isinstance(message, _Arrived)
            self.take(message)

    def take(self, message: _Arrived) -> None:
        """One message to readings or counted rejects."""
        at = message.at
        for device in self.topics[str(message.topic)].devices:
            parsed = parse(device, message.payload, at, message.retain)
            health = self.health.devices[device.device]
            if isinstance(parsed, Reject):
                health.reject(parsed.reason)
                continue
            health.messages += 1
            health.last_message_at = at
            health.why = parsed[0].why if all(r.quality is Quality.BAD for r in parsed) else ""
            self.sink(parsed)

    def note_loss(self, error: Exception) -> None:
        self.health.last_error = f"mqtt {self.url.netloc}: {error}"
        if self.lost:
            return
        self.lost = True
        logger.warning("%s; trying again for ever", self.health.last_error)
        for device in self.devices:
            self.blame(device, "no_connection")

    def note_refusal(self, topic: str) -> None:
        self.health.last_error = f"mqtt {self.url.netloc}: the broker refuses topic {topic!r}; check its ACL"
        logger.warning("%s", self.health.last_error)
        for device in self.topics[topic].devices:
            self.blame(device, "subscription_refused")

    def blame(self, device: MqttDevice, why: str) -> None:
        self.health.devices[device.device].why = why
        self.sink(bad_readings(device, why, now()))


def _refused(code: Any) -> bool:
    return code >= 0x80 if isinstance(code, int) else bool(code.is_failure)
