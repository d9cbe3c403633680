"""The link to a broker: messages in order from the connection to the sources, readings to the sink, then the PUBACK.

Delivery. The session is persistent and the subscriptions have QoS 1: what is published while the link is down comes
afterwards. A message is acknowledged, in the order of arrival, only after the sink has taken its readings (`accepted`:
rules are evaluated, the history writes them within its `flush_s`) or after they are on the disk (`stored`). What is
delivered again because the acknowledgement was lost counts once.

Backlog. What waited at the broker is old and must not be taken for fresh. When the broker has kept our session, a
marker is published to a topic of our own that we subscribe with QoS 1: it queues up behind what waits, and everything
that comes before it is `backlog`. A broker that loses it must forget the session, which begins anew; one that refuses
the marker, or loses it again, gets clean sessions for a while: it keeps nothing for us, so there is nothing to mistake;
what is published during an outage is then lost, and said so.

Old readings (`delayed`: backlog, and what a device's own time shows to be old) go to `late`, the history alone. The
alarms must not see them: the engine takes any reading as a sign of life, an uncertain value can clear an alarm, and
even a bad one ends the silence that `stale` watches. Without `late` they go to the sink as bad ones, which freezes the
conditions. After a loss every point is bad `no_connection` until a fresh value comes, whatever the backlog holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn
from urllib.parse import urlsplit

import msgspec

from ..errors import ConfigError
from ..words import Instant, Quality, Reading, mono_s, now
from .mqtt_delivery import Acks, Done, Fence
from .mqtt_lanes import Lane, Lanes, Listed
from .mqtt_link import Connection, forget_session
from .mqtt_payloads import shorten
from .mqtt_sources import check_devices
from .mqtt_wire import LinkLostError, check_url
from .mqtt_words import (
    DELAYED,
    MAX_PAYLOAD_BYTES,
    Arrival,
    LinkSpec,
    MqttCredentials,
    MqttDevice,
    MqttDeviceHealth,
    MqttHealth,
    MqttPoint,
    Sink,
    Taken,
)

__all__ = [
    "MAX_PAYLOAD_BYTES",
    "LinkSpec",
    "MqttCredentials",
    "MqttDevice",
    "MqttDeviceHealth",
    "MqttHealth",
    "MqttLink",
    "MqttPoint",
    "check_link",
    "run_link",
    "run_mqtt",
]

logger = logging.getLogger(__name__)

RECONNECT_FIRST_S = 0.25
RECONNECT_CAP_S = 30.0
BEAT_S = 1.0
SHARE_S = 0.02  # of the loop's time at once
LARGE_BYTES = 4096  # a message that is looked at by itself
LAST_S = 1.5  # to store what was taken, at the end
STRANGERS = 2048  # topics


_Waiting = tuple[Lane | None, str, bytes, Instant, bool, bool, bool, int, Connection | None]
"""Lane (None: it only wants its acknowledgement), topic, payload, arrival, retained, backlog, dup, number."""


class MqttLink:
    """One broker. `run` owns it and can be called again after it failed; `change` is safe from the loop at any time.

    Args:
        spec: which broker.
        devices: behind it, expanded (`mqtt_presets.expand`).
        sink: takes the readings of one message; called in the event loop, must not block. What it raises ends `run`,
            and the message is not acknowledged.
        health: made by `MqttHealth.of(devices)`; updated in place.
        stored: brings what the sink has taken to the disk; needed for `ack = "stored"`.
        late: takes old readings instead of the sink.

    Raises:
        ConfigError: the url or a topic cannot be used.
    """

    def __init__(
        self,
        spec: LinkSpec,
        devices: Sequence[MqttDevice],
        sink: Sink,
        health: MqttHealth,
        *,
        stored: Callable[[], Awaitable[None]] | None = None,
        late: Sink | None = None,
    ) -> None:
        check_link(spec, devices)
        if spec.ack == "stored" and stored is None:
            raise ConfigError("mqtt", ['ack: "stored" needs a store'])
        self.spec = spec
        self.health = health
        self._name = f"mqtt {urlsplit(spec.url).netloc}"
        self._sink = sink
        self._late = late
        self._stored = stored if spec.ack == "stored" else None
        self._listed: dict[str, Listed] = {}
        self._lanes = Lanes(())
        self._queue: deque[_Waiting] = deque()
        self._busy = False
        self._at: Instant | None = None
        self._connection: Connection | None = None
        self._wake = asyncio.Event()
        self._failed: asyncio.Future[NoReturn] | None = None
        self._sink_error: Exception | None = None
        self._lost = False
        self._connected_before = False
        self._at_broker: set[str] = set()
        self._refused: frozenset[str] = frozenset()
        self._strangers: set[str] = set()
        self._done = Done()
        self._acks = Acks()
        self._fence = Fence(spec.client_id, self._name)
        self.change(devices)

    # --- what is listened to ---

    def change(self, devices: Sequence[MqttDevice]) -> None:
        """Listen to these devices. Those that stay as they are go on as if nothing had happened.

        Raises:
            ConfigError: a device cannot be used; nothing is changed.
        """
        check_devices(devices)
        listed: dict[str, Listed] = {}
        for device in devices:
            old = self._listed.get(device.device)
            listed[device.device] = old if old is not None and old.device == device else Listed.of(device, self.health)
        before, self._listed = self._listed, listed
        for name, old in before.items():
            if listed.get(name) is not old:
                old.here = False
            if name not in listed:
                self.health.devices.pop(name, None)
        self._lanes = Lanes(listed.values())
        self._wake.set()
        if self._lost:
            for name, one in listed.items():
                if before.get(name) is not one:
                    self._blame(one, "no_connection")

    # --- the life of the link ---

    async def run(self) -> NoReturn:
        """Listen until cancelled; connects again for ever. Ends only with what the sink or `stored` raises."""
        self._failed = asyncio.get_running_loop().create_future()
        self._queue.clear()
        self._lanes = Lanes(self._listed.values())
        self._acks = Acks()
        self.health.waiting_bytes = 0
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(), name=f"{self._name} beat")
            group.create_task(self._stay_connected(), name=f"{self._name} link")
            group.create_task(self._fail(), name=f"{self._name} sink")
            if self._stored is not None:
                group.create_task(self._store(self._stored), name=f"{self._name} store")
        raise AssertionError("the tasks of a link never end")

    async def _fail(self) -> NoReturn:
        """Raise what the sink raised: it is called where nobody waits."""
        assert self._failed is not None
        await self._failed
        raise AssertionError

    async def _beat(self) -> NoReturn:
        while True:
            at = now()
            self.health.beat_s = at.mono_s
            for lane in self._lanes:
                lane.end_flood(at.mono_s)
            for one in self._listed.values():
                self._hand_over(one, self._ask(one, one.source.tick, at))
            if self._connection is not None and self.health.connected:
                self._fence.watch(self._connection, at.mono_s, self._quiet_s(at.mono_s))
                self.health.catching_up = self._fence.is_up
            await asyncio.sleep(BEAT_S)

    def _quiet_s(self, now_s: float) -> float:
        """How long nothing has come although the broker owes us nothing that it waits with."""
        last = self.health.last_message_at
        return 0.0 if self._queue or self._acks.owed else now_s - (last.mono_s if last is not None else 0.0)

    async def _stay_connected(self) -> NoReturn:
        attempt = 0
        while True:
            began_s = mono_s()
            try:
                await self._session()
            except LinkLostError as error:
                self._note_loss(error)
            except Exception as error:
                if error is self._sink_error:
                    raise
                logger.exception("%s: unexpected", self._name)
                self._note_loss(error)
            attempt = 0 if mono_s() - began_s > RECONNECT_CAP_S else attempt + 1
            pause_s = min(RECONNECT_FIRST_S * 2 ** min(attempt - 1, 16), RECONNECT_CAP_S) if attempt else 0.1
            await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret

    async def _session(self) -> NoReturn:
        clean = not self.spec.client_id or self._fence.is_useless(mono_s())
        if not clean and self._fence.begins_anew:
            await forget_session(self.spec)
            self._done.clear()
            self._at_broker.clear()
        self._fence.begins_anew = False
        connection = Connection(self.spec, clean=clean, arrived=self._arrived, drained=self._drained)
        self._fence.lower()
        if not clean:
            self._fence.is_up = True  # until the broker says that it kept nothing
        try:
            self._connection = connection  # messages come before `open` returns
            kept = await connection.open()
            if not kept:
                self._done.clear()  # the numbers begin anew
                self._at_broker.clear()
                self._fence.is_up = False
            if not clean:
                refused = await connection.subscribe([self._fence.topic])
                self._fence.raise_behind(connection, refused=bool(refused))
                self.health.catching_up = self._fence.is_up
            await self._listen(connection)
        finally:
            self._work(everything=True)
            if self._stored is not None and self._acks.owed and not connection.lost.done():
                await self._store_last(self._stored)
            self._connection = None
            self.health.connected = self.health.catching_up = False
            connection.close()

    async def _listen(self, connection: Connection) -> NoReturn:
        connection.lost.add_done_callback(lambda _: self._wake.set())
        self._refused = frozenset()
        asked: set[str] = set()
        while not connection.lost.done():
            self._wake.clear()
            await self._subscribe(connection, asked)
            lacking = {id(one) for one in self._lanes.listeners(self._refused)}
            for one in self._listed.values():
                if id(one) not in lacking and one.told_by is not connection:
                    one.told_by = connection
                    self._hand_over(one, self._ask(one, one.source.connected, now()))
            if not self.health.connected:
                self._note_connection()
            await self._wake.wait()
        raise LinkLostError(connection.lost.result())

    async def _subscribe(self, connection: Connection, asked: set[str]) -> None:
        """Bring the broker's list in line with ours.

        Args:
            connection: open.
            asked: what was subscribed on it; updated.
        """
        while True:
            wanted = self._lanes.filters(self._refused)
            new = [name for name in wanted if name not in asked]
            refused = frozenset(await connection.subscribe(new)) if new else frozenset[str]()
            asked |= set(new)
            self._at_broker |= set(new) - refused
            gone = self._at_broker - set(wanted)
            if gone:
                await connection.unsubscribe(sorted(gone))
                self._at_broker -= gone
                asked -= gone
            for name in sorted(refused):
                self._note_refusal(name)
            self._refused |= refused
            if not new:
                return

    # --- messages ---

    def _arrived(self, topic: str, payload: bytes, mid: int, retained: bool, dup: bool, size: int) -> None:
        """Called by the connection with each message: to the queue, or dropped and counted."""
        health = self.health
        if self._at is None:
            self._at = health.last_message_at = now()
        health.messages += 1
        lane = self._lanes.find(topic)
        if lane is None or topic == self._fence.topic:
            lane = None
            self._take_other(topic, payload)
        elif lane.enter(size, health, topic):
            lane = None
        backlog = self._fence.is_up
        if lane is not None:
            health.backlog += backlog
        elif mid:
            topic, payload = "", b""
        else:
            return
        self._queue.append((lane, topic, payload, self._at, retained, backlog, dup, mid, self._connection))
        if len(self._queue) & 15 == 0 or size > LARGE_BYTES:
            self._pause_when_crowded()

    def _take_other(self, topic: str, payload: bytes) -> None:
        """The marker, or what nobody asked for: a session may remember the topics of an earlier configuration."""
        if topic == self._fence.topic:
            if self._fence.returns(payload):
                self.health.catching_up = False
                logger.info("%s: what waited at the broker is delivered", self._name)
            return
        self.health.strangers += 1
        known = shorten(topic)
        if topic and known not in self._strangers and len(self._strangers) < STRANGERS and self._connection:
            self._strangers.add(known)
            self._connection.forget([topic])

    def _drained(self) -> None:
        self._at = None
        if self._queue and not self._busy:
            self._work()

    def _work_on(self) -> None:
        self._busy = False
        self._work()

    def _work(self, *, everything: bool = False) -> None:
        """Take messages from the queue, for a share of the loop's time."""
        if self._failed is None or self._failed.done():
            return
        end_s = time.monotonic() + SHARE_S
        queue = self._queue
        while queue:
            try:
                self._take(queue.popleft())
            except Exception as error:  # of the sink: it comes again after the restart
                self._failed.set_exception(error)
                return
            if not everything and queue and time.monotonic() > end_s:
                self._busy = True
                asyncio.get_running_loop().call_soon(self._work_on)
                break
        self._pause_when_crowded()

    def _pause_when_crowded(self) -> None:
        if self._connection is not None:
            self._connection.pause(self._lanes.are_crowded(self.health.waiting_bytes, waits=self._fence.is_up))

    def _take(self, waiting: _Waiting) -> None:
        """A message in its turn."""
        lane, topic, payload, at, retained, backlog, dup, mid, connection = waiting
        handed = False
        if lane is not None:
            lane.leave(len(payload), self.health, topic)
            mark = hash((topic, payload)) if mid else 0
            if dup and self._done.has(mid, mark):
                handed = True  # perhaps not on the disk yet
                self.health.duplicates += 1
                for one in lane.listed:
                    one.health.duplicates += 1
            else:
                arrival = Arrival(topic=topic, payload=payload, at=at, retained=retained, backlog=backlog)
                handed = self._deliver(lane, arrival)
                if mid:
                    self._done.note(mid, mark)
        if mid and connection is not None:
            if self._stored is None or not (handed or self._acks.owed):
                connection.acknowledge(mid)
            else:
                self._acks.put(connection, mid)

    def _deliver(self, lane: Lane, arrival: Arrival) -> bool:
        """Whether somebody got readings."""
        handed = False
        for listed in lane.listed:
            one = listed if listed.here else self._listed.get(listed.device.device)
            if one is None:  # its device was taken away while it waited
                listed.health.reject("gone")
                self.health.strangers += 1
                continue
            taken = self._ask(one, one.source.take, arrival)
            if taken.reject:
                one.health.reject(taken.reject)
            else:
                one.health.messages += 1
                one.health.backlog += arrival.backlog
            handed = self._hand_over(one, taken, arrival.at) or handed
        return handed

    def _ask(self, one: Listed, what: Callable[..., Taken], *args: object) -> Taken:
        """What a source makes of it; one that fails costs its message, and nobody else."""
        try:
            return what(*args)
        except Exception:
            if not one.defect:
                logger.exception("mqtt device %s: a message could not be interpreted", one.device.device)
            one.defect = True
            return Taken(reject="defect")

    def _hand_over(self, one: Listed, taken: Taken, came: Instant | None = None) -> bool:
        """Readings to the sink, old ones to the history; whether there were any."""
        if taken.publish and self._connection is not None:
            for outgoing in taken.publish:
                self._connection.publish(outgoing.topic, outgoing.payload, outgoing.qos)
        readings = list(taken.readings)
        if not readings:
            return False
        old = [reading for reading in readings if reading.why == DELAYED]
        if old:
            one.health.delayed += 1
            readings = [reading for reading in readings if reading.why != DELAYED]
            self._hand_over_old(old)
        if readings:
            first = readings[0]
            bad = first.quality is Quality.BAD and all(r.quality is Quality.BAD for r in readings)
            one.health.why = first.why if bad else ""
            if came is not None:
                one.health.last_message_at = came
            self._give(self._sink, readings)
        return True

    def _hand_over_old(self, old: list[Reading]) -> None:
        if self._late is not None:
            self._give(self._late, old)
        else:
            self._give(self._sink, [msgspec.structs.replace(reading, quality=Quality.BAD) for reading in old])

    def _give(self, sink: Sink, readings: list[Reading]) -> None:
        try:
            sink(readings)
        except Exception as error:
            self._sink_error = error
            raise

    async def _store(self, stored: Callable[[], Awaitable[None]]) -> NoReturn:
        while True:
            await self._acks.due()
            mids = self._acks.begin()
            await stored()
            for connection, mid in mids:
                connection.acknowledge(mid)
            self._acks.end()

    async def _store_last(self, stored: Callable[[], Awaitable[None]]) -> None:
        """At the end of `run`: what was taken need not come again. Bounded; what fails comes again."""
        mids = self._acks.begin_last()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LAST_S):
                await stored()
            for connection, mid in mids:
                connection.acknowledge(mid)

    # --- what people see ---

    def _note_connection(self) -> None:
        self.health.connected = True
        self.health.reconnects += int(self._connected_before)
        self._connected_before = True
        if self._lost:
            logger.info("%s: connected again", self._name)
        self._lost = False

    def _note_loss(self, error: Exception) -> None:
        self.health.last_error = f"{self._name}: {error}"
        if self._lost:
            return
        self._lost = True
        logger.warning("%s; trying again for ever", self.health.last_error)
        for one in self._listed.values():
            self._blame(one, "no_connection")

    def _note_refusal(self, name: str) -> None:
        self.health.last_error = f"{self._name}: the broker refuses topic {name!r}; check its ACL"
        logger.warning("%s", self.health.last_error)
        for one in self._listed.values():
            if name in one.filters:
                self._blame(one, "subscription_refused")

    def _blame(self, one: Listed, why: str) -> None:
        self._hand_over(one, self._ask(one, one.source.lost, why, now()))


def check_link(spec: LinkSpec, devices: Sequence[MqttDevice]) -> None:
    """Raises ConfigError when a link could not be made."""
    check_url(spec.url)
    check_devices(devices)


async def run_link(
    link: LinkSpec,
    devices: Sequence[MqttDevice],
    sink: Sink,
    health: MqttHealth,
    *,
    stored: Callable[[], Awaitable[None]] | None = None,
    late: Sink | None = None,
) -> NoReturn:
    """As `MqttLink(...).run()`, for a list of devices that does not change.

    Raises:
        ConfigError: the url or a topic cannot be used; before anything is opened.
    """
    await MqttLink(link, devices, sink, health, stored=stored, late=late).run()


async def run_mqtt(
    url: str,
    credentials: MqttCredentials | None,
    devices: Sequence[MqttDevice],
    sink: Sink,
    health: MqttHealth,
) -> NoReturn:
    """Listen with a session that the broker does not keep; see `run_link`."""
    await run_link(LinkSpec(url=url, credentials=credentials), devices, sink, health)
