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

Here is the life of a link, and what people see of it. `mqtt_subscriptions` knows what is listened to, `mqtt_queue` what
waits, `mqtt_handover` what becomes of it, `mqtt_delivery` marker and acknowledgements, `mqtt_link` the connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from typing import NoReturn
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..words import mono_s, now
from .mqtt_delivery import Fence
from .mqtt_handover import HandOver, Stored
from .mqtt_link import Connection, forget_session
from .mqtt_queue import Queue
from .mqtt_sources import check_devices
from .mqtt_subscriptions import Subscriptions
from .mqtt_wire import LinkLostError, check_url
from .mqtt_words import (
    MAX_PAYLOAD_BYTES,
    LinkSpec,
    MqttCredentials,
    MqttDevice,
    MqttDeviceHealth,
    MqttHealth,
    MqttPoint,
    Sink,
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
        full: whether the sinks have more than they can store; what comes waits at the broker then, for a while.

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
        stored: Stored | None = None,
        late: Sink | None = None,
        full: Callable[[], bool] = lambda: False,
    ) -> None:
        check_link(spec, devices)
        if spec.ack == "stored" and stored is None:
            raise ConfigError("mqtt", ['ack: "stored" needs a store'])
        self.spec = spec
        self.health = health
        self._name = f"mqtt {urlsplit(spec.url).netloc}"
        self._is_stored = spec.ack == "stored"
        self._fence = Fence(spec.client_id, self._name)
        self._subscriptions = Subscriptions(health)
        self._handover = HandOver(self._subscriptions, sink, late, stored if self._is_stored else None, health)
        self._queue = Queue(self._subscriptions, self._fence, self._handover, health, full)
        self._wake = asyncio.Event()
        self._lost = False
        self._connected_before = False
        self.change(devices)

    def change(self, devices: Sequence[MqttDevice]) -> None:
        """Listen to these devices. Those that stay as they are go on as if nothing had happened.

        Raises:
            ConfigError: a device cannot be used; nothing is changed.
        """
        changed = self._subscriptions.change(devices)
        self._wake.set()
        if self._lost:
            for one in changed:
                self._handover.blame(one, "no_connection")

    async def run(self) -> NoReturn:
        """Listen until cancelled; connects again for ever. Ends only with what the sink or `stored` raises."""
        self._queue.begin()
        self._handover.begin()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._beat(), name=f"{self._name} beat")
            group.create_task(self._stay_connected(), name=f"{self._name} link")
            group.create_task(self._queue.failed(), name=f"{self._name} sink")
            if self._is_stored:
                group.create_task(self._handover.store(), name=f"{self._name} store")
        raise AssertionError("the tasks of a link never end")

    async def _beat(self) -> NoReturn:
        while True:
            at = now()
            self.health.beat_s = at.mono_s
            for lane in self._subscriptions.lanes:
                lane.end_flood(at.mono_s)
            for one in self._subscriptions.listed.values():
                self._handover.tick(one, at)
            connection = self._handover.connection
            if connection is not None and self.health.connected:
                self._fence.watch(connection, at.mono_s, self._queue.quiet_s(at.mono_s))
                self.health.catching_up = self._fence.is_up
            await asyncio.sleep(BEAT_S)

    # --- connections ---

    async def _stay_connected(self) -> NoReturn:
        attempt = 0
        while True:
            began_s = mono_s()
            try:
                await self._session()
            except LinkLostError as error:
                self._note_loss(error)
            except Exception as error:
                if error is self._handover.error:
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
            self._forgotten()
        self._fence.begins_anew = False
        connection = Connection(self.spec, clean=clean, arrived=self._queue.arrived, drained=self._queue.drained)
        self._fence.lower()
        if not clean:
            self._fence.is_up = True  # until the broker says that it kept nothing
        try:
            self._handover.connection = connection  # messages come before `open` returns
            kept = await connection.open()
            if not kept:
                self._forgotten()
                self._fence.is_up = False
            if not clean:
                refused = await connection.subscribe([self._fence.topic])
                self._fence.raise_behind(connection, refused=bool(refused))
                self.health.catching_up = self._fence.is_up
            await self._listen(connection)
        finally:
            self._queue.work(everything=True)
            if not connection.lost.done():
                await self._handover.store_last()
            self._handover.connection = None
            self.health.connected = self.health.catching_up = False
            connection.close()

    def _forgotten(self) -> None:
        """The broker's session is empty."""
        self._handover.forgotten()
        self._subscriptions.forgotten()

    async def _listen(self, connection: Connection) -> NoReturn:
        connection.lost.add_done_callback(lambda _: self._wake.set())
        self._subscriptions.begin()
        while not connection.lost.done():
            self._wake.clear()
            await self._subscriptions.ask(connection, self._note_refusal)
            for one in self._subscriptions.told(connection):
                self._handover.greet(one)
            if not self.health.connected:
                self._note_connection()
            await self._wake.wait()
        raise LinkLostError(connection.lost.result())

    # --- what people see ---

    def _note_connection(self) -> None:
        self.health.connected = True
        self.health.reconnects += int(self._connected_before)
        self._connected_before = True
        if self._lost:
            logger.info("%s: connected again", self._name, extra={"broker": self.health.id})
        self._lost = False

    def _note_loss(self, error: Exception) -> None:
        self.health.last_error = f"{self._name}: {error}"
        if self._lost:
            return
        self._lost = True
        logger.warning("%s; trying again for ever", self.health.last_error, extra={"broker": self.health.id})
        for one in self._subscriptions.listed.values():
            self._handover.blame(one, "no_connection")

    def _note_refusal(self, name: str) -> None:
        self.health.last_error = f"{self._name}: the broker refuses topic {name!r}; check its ACL"
        logger.warning("%s", self.health.last_error, extra={"broker": self.health.id})
        for one in self._subscriptions.listed.values():
            if name in one.filters:
                self._handover.blame(one, "subscription_refused")


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
    stored: Stored | None = None,
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
