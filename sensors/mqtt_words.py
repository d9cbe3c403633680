"""What a link to a broker and the interpreters of payloads tell each other. Pure values; no client in sight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Final, Literal, Protocol

import msgspec

from ..words import Instant, Reading

Sink = Callable[[list[Reading]], None]

DELAYED = "delayed"
"""Why of a reading that is old: it waited at the broker or in the device. It is for the history alone."""
DUPLICATE: Final = "duplicate"
"""Reject of a message that was taken before: it is no fault."""
Reject = Literal[
    "",
    "retained",
    "duplicate",
    "too_large",
    "flooded",
    "not_utf8",
    "not_json",
    "duplicate_key",
    "not_an_object",
    "other_port",
    "no_points",
    "unknown_availability",
    "wrong_topic",
    "not_sparkplug",
    "too_many_metrics",
    "names_too_long",
    "old_death",
    "gone",
    "defect",
]
"""Why a message is not taken, "" when it is; docs/configuration.md has them all."""
MAX_PAYLOAD_BYTES = 64 * 1024


class Arrival(msgspec.Struct, frozen=True, kw_only=True):
    """One message as it came.

    Attributes:
        retained: the broker had kept it; nobody knows how old it is.
        backlog: it was waiting at the broker while the link was down.
        at: when it came.
    """

    topic: str
    payload: bytes
    at: Instant
    retained: bool = False
    backlog: bool = False


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a source wants published (a request for rebirth)."""

    topic: str
    payload: bytes
    qos: int = 0


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a message: readings, or why it was refused, and what must be published for it."""

    readings: tuple[Reading, ...] = ()
    reject: Reject = ""
    publish: tuple[Outgoing, ...] = ()


class Source(Protocol):
    """One device behind a broker: its topics in, readings out.

    Holds state, does no I/O, never raises on any payload. Readings that are old have the why `DELAYED`; a message that
    was taken before has the reject `DUPLICATE`.
    """

    def subscriptions(self) -> tuple[str, ...]:
        """Topic filters, wildcards allowed."""
        ...

    def take(self, arrival: Arrival) -> Taken:
        """Interpret one message of one of the filters."""
        ...

    def connected(self, at: Instant) -> Taken:
        """The link is up and the subscriptions are granted."""
        ...

    def lost(self, why: str, at: Instant) -> Taken:
        """The link is lost, or a filter was refused: every point is bad with `why`."""
        ...

    def tick(self, at: Instant) -> Taken:
        """About a second has passed."""
        ...


# --- what is decided ---


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttPoint:
    """One number of a device.

    Attributes:
        name: last part of the point id.
        path: where in the JSON it stands (`mqtt_payloads.compile_path`); the name of the metric in Sparkplug.
        topic: its own topic or filter instead of the device's.
        unit: of the value; a payload that names another unit is refused.
        text: a number in quotes is a number too.
        words: what words mean, `(("on", 1.0), ("off", 0.0))`; also true and false.
        low, high: outside of them the value is bad `out_of_range`.
    """

    name: str
    path: str = ""
    topic: str = ""
    unit: str = ""
    text: bool = False
    words: tuple[tuple[str, float], ...] = ()
    scale: Decimal = Decimal(1)
    low: float | None = None
    high: float | None = None


Shape = Literal["json", "number", "vuqt", "sparkplug_b"]
TimeFormat = Literal["auto", "rfc3339", "epoch_s", "epoch_ms", "local"]
ONLINE = ("online", "Online", "ONLINE", "1", "true", "connected")
OFFLINE = ("offline", "Offline", "OFFLINE", "0", "false", "disconnected")


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttDevice:
    """One device on the broker.

    Attributes:
        device: `area.device`; a reading's point is `device.name`.
        topic: a topic, or a filter with + and #; "" when every point has its own.
        shape: what a payload looks like.
        stale_s: silent for longer, the device is shown as a fault. Alarms on silence are the rules' business.
        status_path, status_ok: where the device says whether it measures, and the words (or numbers, as text) that mean
            yes. Any other makes every point bad `status_<word>`.
        time_path: where the device says when it measured; None: it does not.
        time_format: how; `auto` tells RFC 3339, epoch seconds and milliseconds apart. `local` is a time of day in
            `zone`, a name of the tz database.
        time_needed: a message without a time that can be read is uncertain `no_time`; else it counts as it comes.
        max_skew_s: a clock that is further off makes values uncertain `clock_skew`; a message that comes so much later
            than others is old.
        same_path: where a number stands that tells repetitions apart (`deduplicationId`).
        only_path, only: messages that hold something else there are not for us.
        partial: a message need not hold every point.
        availability_topic, online, offline: where the device, or its Last Will, says that it is there.
    """

    device: str
    points: tuple[MqttPoint, ...]
    topic: str = ""
    shape: Shape = "json"
    stale_s: float = 30.0
    status_path: str | None = None
    status_ok: frozenset[str] = frozenset({"ok"})
    time_path: str | None = None
    time_format: TimeFormat = "auto"
    zone: str = "UTC"
    time_needed: bool = True
    max_skew_s: float = 30.0
    same_path: str | None = None
    only_path: str | None = None
    only: frozenset[str] = frozenset()
    partial: bool = False
    availability_topic: str = ""
    online: frozenset[str] = frozenset(ONLINE)
    offline: frozenset[str] = frozenset(OFFLINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MqttCredentials:
    """What the broker knows us by; comes from a file or a systemd credential."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSpec:
    """One broker and how to reach it.

    Attributes:
        url: `mqtt://host[:port]` or `mqtts://host[:port]`.
        client_id: of the session that the broker keeps while we are away; "": it keeps none.
        version: of the protocol.
        ca_file: certificates to trust instead of the system's, PEM. cert_file, key_file: of this client.
        ack: when a message is acknowledged: `accepted`, after the sink has taken it; `stored`, after it is on the disk.
    """

    id: str = "mqtt"
    url: str
    credentials: MqttCredentials | None = None
    client_id: str = ""
    version: Literal["3.1.1", "5"] = "3.1.1"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    ack: Literal["accepted", "stored"] = "accepted"


# --- what is counted ---


@dataclass(slots=True, kw_only=True)
class MqttDeviceHealth:
    """Counters of one device.

    Attributes:
        messages: taken; `rejects` counts the others by reason, `duplicates` those that were taken before.
        backlog: of `messages`, those that had waited at the broker. delayed: those whose values are old.
        skew_s: how far the device's clock is behind ours; None while that is not known.
        backwards: how often its time went back.
    """

    device: str
    stale_s: float
    messages: int = 0
    rejects: Counter[Reject] = field(default_factory=Counter)
    duplicates: int = 0
    backlog: int = 0
    delayed: int = 0
    skew_s: float | None = None
    backwards: int = 0
    last_message_at: Instant | None = None
    why: str = ""

    def reject(self, reason: Reject) -> None:
        """Count a message that was not taken."""
        if reason == DUPLICATE:
            self.duplicates += 1
            return
        self.rejects[reason] += 1

    def state(self, now_s: float) -> str:
        """`ok` or `fault`: refused, bad in every point, or silent for longer than `stale_s`."""
        at = self.last_message_at
        return "fault" if self.why or at is None or now_s - at.mono_s > self.stale_s else "ok"


@dataclass(slots=True, kw_only=True)
class MqttHealth:
    """Counters of the link to one broker; written by its task alone.

    Attributes:
        messages: everything that came, also what nobody asked for (`strangers`).
        duplicates: deliveries of a message that was taken before the link was lost.
        backlog: messages that had waited at the broker.
        catching_up: they are still coming.
        waiting_bytes, most_waiting_bytes: size of the messages that wait for the loop, now and at its worst.
    """

    id: str = "mqtt"
    devices: dict[str, MqttDeviceHealth] = field(default_factory=dict)
    connected: bool = False
    reconnects: int = 0
    last_error: str = ""
    beat_s: float = 0.0
    messages: int = 0
    strangers: int = 0
    duplicates: int = 0
    backlog: int = 0
    catching_up: bool = False
    last_message_at: Instant | None = None
    waiting_bytes: int = 0
    most_waiting_bytes: int = 0

    @classmethod
    def of(cls, devices: Iterable[MqttDevice], link: str = "mqtt") -> MqttHealth:
        """Zeroed counters."""
        known = {d.device: MqttDeviceHealth(device=d.device, stale_s=d.stale_s) for d in devices}
        return cls(id=link, devices=known)
