"""What waits for the loop: bounded in bytes, in total and for each subscription, so that one device's flood does not
cost its neighbours a message. What does not fit is dropped, counted and, in its turn, acknowledged.

A lane is what the same devices listen to. What is too large does not even wait (`mqtt_link.MOST_BYTES`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..words import mono_s
from .mqtt_payloads import REMEMBERED_CHARS
from .mqtt_sources import make_source, matches
from .mqtt_words import MAX_PAYLOAD_BYTES, MqttDevice, MqttDeviceHealth, MqttHealth, Reject, Source

logger = logging.getLogger(__name__)

# A size is the payload, a long topic, and MESSAGE_BYTES for what Python needs around it.
MESSAGE_BYTES = 1024
WAITING_BYTES = 4 * 1024 * 1024
TOPIC_BYTES = 512 * 1024
TOPIC_MESSAGES = 256
RESERVED_BYTES = 8 * 1024  # of each subscription, also when the others have taken all of WAITING_BYTES
FLOOD_DROPS = 10  # so many drops, with no pause of FLOOD_PAUSE_S between them, are called a flood
FLOOD_PAUSE_S = 10.0
CROWD_BYTES = 1024 * 1024
_FILLING_BYTES = min(TOPIC_MESSAGES * MESSAGE_BYTES, TOPIC_BYTES) // 2  # less cannot be half of a share
_TOPICS, _TOPIC_CHARS = 4096, 256 * 1024  # remembered


@dataclass(slots=True, kw_only=True)
class Listed:
    """A device behind the link. `here`: it was not taken away by a change; `told_by`: the connection that it has
    heard of; kept, so that no later one can be taken for it."""

    device: MqttDevice
    source: Source
    health: MqttDeviceHealth
    filters: tuple[str, ...]
    here: bool = True
    defect: bool = False
    told_by: object = None

    @classmethod
    def of(cls, device: MqttDevice, health: MqttHealth) -> Listed:
        """A new source; counters of a device that was there before go on."""
        new = MqttDeviceHealth(device=device.device, stale_s=device.stale_s)
        own = health.devices.setdefault(device.device, new)
        own.stale_s = device.stale_s
        source = make_source(device, own)
        return cls(device=device, source=source, health=own, filters=source.subscriptions())


@dataclass(slots=True, kw_only=True)
class Lane:
    """What the same devices listen to: one topic, or all topics of a filter with wildcards."""

    name: str
    listed: tuple[Listed, ...]
    waiting: int = 0
    waiting_bytes: int = 0
    drops: int = 0  # with no pause between them
    dropped_s: float = 0.0

    @property
    def is_filling(self) -> bool:
        """Half of its share is taken."""
        return 2 * self.waiting >= TOPIC_MESSAGES or 2 * self.waiting_bytes >= TOPIC_BYTES

    def enter(self, payload_bytes: int, health: MqttHealth, topic: str = "") -> Reject:
        """ "" when a message may wait, else why it is dropped: `too_large`, `flooded`."""
        size = payload_bytes + MESSAGE_BYTES
        if len(topic) > REMEMBERED_CHARS:
            size += 4 * len(topic)
        mine = self.waiting_bytes + size
        has_room = mine <= TOPIC_BYTES and health.waiting_bytes + size <= WAITING_BYTES
        if payload_bytes > MAX_PAYLOAD_BYTES:
            return self._drop("too_large")
        if self.waiting >= TOPIC_MESSAGES or not (has_room or mine <= RESERVED_BYTES):
            return self._drop("flooded")
        self.waiting += 1
        self.waiting_bytes = mine
        health.waiting_bytes += size
        if health.waiting_bytes > health.most_waiting_bytes:
            health.most_waiting_bytes = health.waiting_bytes
        return ""

    def leave(self, payload_bytes: int, health: MqttHealth, topic: str = "") -> None:
        """A message that waited is taken."""
        size = payload_bytes + MESSAGE_BYTES
        if len(topic) > REMEMBERED_CHARS:
            size += 4 * len(topic)
        self.waiting -= 1
        self.waiting_bytes -= size
        health.waiting_bytes -= size

    def _drop(self, reason: Reject) -> Reject:
        for listed in self.listed:
            listed.health.reject(reason)
        self.drops += 1
        self.dropped_s = mono_s()
        if self.drops == FLOOD_DROPS:
            logger.warning("mqtt topic %s: a flood, %s: messages are dropped; check the device", self.name, reason)
        return reason

    def end_flood(self, now_s: float) -> None:
        """Forget the drops after a pause."""
        if not self.drops or now_s - self.dropped_s < FLOOD_PAUSE_S:
            return
        if self.drops >= FLOOD_DROPS:
            logger.info("mqtt topic %s: the flood is over; %d messages were dropped", self.name, self.drops)
        self.drops = 0


class Lanes:
    """Which devices a topic is for. Made anew when the devices change."""

    def __init__(self, devices: Iterable[Listed]) -> None:
        self._devices = tuple(devices)
        self._by_topic: dict[str, Lane | None] = {}
        self._chars = 0  # of its keys
        self._by_filters: dict[tuple[str, ...], Lane] = {}
        self._by_filter: dict[str, list[Listed]] = {}
        for listed in self._devices:
            for name in listed.filters:
                self._by_filter.setdefault(name, []).append(listed)
        self._wild = [name for name in self._by_filter if "+" in name or "#" in name]

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._by_filters.values())

    def find(self, topic: str) -> Lane | None:
        """None for a topic that nobody asked for."""
        try:
            return self._by_topic[topic]
        except KeyError:
            pass
        exact = (topic,) if topic in self._by_filter else ()
        fitting = (*exact, *(name for name in self._wild if matches(name, topic)))
        lane = self._by_filters.get(fitting)
        if lane is None and fitting:
            listed = {id(one): one for name in fitting for one in self._by_filter[name]}
            lane = self._by_filters[fitting] = Lane(name=fitting[0], listed=tuple(listed.values()))
        if len(topic) <= REMEMBERED_CHARS:
            self._remember(topic, lane)
        return lane

    def _remember(self, topic: str, lane: Lane | None) -> None:
        if len(self._by_topic) >= _TOPICS or self._chars + len(topic) > _TOPIC_CHARS:
            self._by_topic.clear()
            self._chars = 0
        self._by_topic[topic] = lane
        self._chars += len(topic)

    def are_crowded(self, waiting_bytes: int, *, waits: bool) -> bool:
        """Whether what comes must wait at the broker: all are too fast for us. One that floods the others is not
        waited for: its lane overflows.

        Args:
            waiting_bytes: in all lanes.
            waits: nothing may overflow: it is backlog, and has an end.
        """
        if waiting_bytes < _FILLING_BYTES:
            return False
        lanes = self._by_filters.values()
        if not any(lane.is_filling for lane in lanes) and waiting_bytes < CROWD_BYTES:
            return False
        if waits or len(lanes) == 1:
            return True
        count = sum(lane.waiting for lane in lanes)
        return not any(4 * lane.waiting > 3 * count or 4 * lane.waiting_bytes > 3 * waiting_bytes for lane in lanes)

    def filters(self, refused: frozenset[str] = frozenset()) -> list[str]:
        """What must be subscribed: a filter that another one covers would bring everything twice."""
        names = [name for name in self._by_filter if name not in refused]
        wild = [name for name in self._wild if name not in refused]
        return [name for name in names if not any(other != name and matches(other, name) for other in wild)]

    def listeners(self, refused: frozenset[str]) -> list[Listed]:
        """Devices that lack a subscription."""
        return [one for one in self._devices if any(name in refused for name in one.filters)]
