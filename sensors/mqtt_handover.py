"""The hand-over: a message to the devices that it is for, their readings to the sinks, and then its acknowledgement."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

import msgspec

from ..words import Instant, Quality, Reading, now
from .mqtt_delivery import Acks, Done
from .mqtt_lanes import Lane, Listed
from .mqtt_link import Connection
from .mqtt_subscriptions import Subscriptions
from .mqtt_words import DELAYED, Arrival, MqttHealth, Sink, Taken

logger = logging.getLogger(__name__)

LAST_S = 1.5  # to store what was taken, at the end

Stored = Callable[[], Awaitable[None]]


class HandOver:
    """What becomes of a message in its turn.

    Args:
        subscriptions: the devices.
        sink, late: of readings, and of old ones; see `mqtt_ingest.MqttLink`.
        stored: brings what the sinks have taken to the disk; a message is acknowledged after that. None: it is
            acknowledged after the sinks have taken it.
        health: of the link.

    Attributes:
        connection: the present one; what sources publish leaves by it.
        error: what a sink has raised.
    """

    def __init__(
        self, subscriptions: Subscriptions, sink: Sink, late: Sink | None, stored: Stored | None, health: MqttHealth
    ) -> None:
        self.connection: Connection | None = None
        self.error: Exception | None = None
        self._subscriptions = subscriptions
        self._sink = sink
        self._late = late
        self._stored = stored
        self._health = health
        self._done = Done()
        self._acks = Acks()

    def begin(self) -> None:
        """Nothing is owed: what was not acknowledged comes again."""
        self._acks = Acks()

    def forgotten(self) -> None:
        """The broker's session is empty: the numbers of its messages begin anew."""
        self._done.clear()

    # --- messages ---

    def take(self, lane: Lane, arrival: Arrival, mid: int, dup: bool, connection: Connection | None) -> None:
        """A message in its turn. What a sink raises goes through, and the message is not acknowledged.

        Args:
            lane: whom it is for.
            arrival: the message.
            mid: its number on the connection; 0: it wants no acknowledgement.
            dup: the broker delivers it again.
            connection: that it came by.
        """
        mark = hash((arrival.topic, arrival.payload)) if mid else 0
        if dup and self._done.has(mid, mark):
            handed = True  # perhaps not on the disk yet
            self._health.duplicates += 1
            for one in lane.listed:
                one.health.duplicates += 1
        else:
            handed = self.deliver(lane, arrival)
            if mid:
                self._done.note(mid, mark)
        if mid and connection is not None:
            if self._stored is None or not (handed or self._acks.owed):
                connection.acknowledge(mid)
            else:
                self._acks.put(connection, mid)

    def deliver(self, lane: Lane, arrival: Arrival) -> bool:
        """Whether somebody got readings."""
        handed = False
        for listed in lane.listed:
            one = listed if listed.here else self._subscriptions.listed.get(listed.device.device)
            if one is None:  # its device was taken away while it waited
                listed.health.reject("gone")
                self._health.strangers += 1
                continue
            taken = self._ask(one, one.source.take, arrival)
            if taken.reject:
                one.health.reject(taken.reject)
            else:
                one.health.messages += 1
                one.health.backlog += arrival.backlog
            handed = self._give(one, taken, arrival.at) or handed
        return handed

    def tick(self, one: Listed, at: Instant) -> None:
        """About a second has passed."""
        self._give(one, self._ask(one, one.source.tick, at))

    def greet(self, one: Listed) -> None:
        """Its subscriptions are granted."""
        self._give(one, self._ask(one, one.source.connected, now()))

    def blame(self, one: Listed, why: str) -> None:
        """Nothing comes for it: its points are bad."""
        self._give(one, self._ask(one, one.source.lost, why, now()))

    # --- sources and sinks ---

    def _ask(self, one: Listed, what: Callable[..., Taken], *args: object) -> Taken:
        """What a source makes of it; one that fails costs its message, and nobody else."""
        try:
            return what(*args)
        except Exception:
            if not one.defect:
                logger.exception("mqtt device %s: a message could not be interpreted", one.device.device)
            one.defect = True
            return Taken(reject="defect")

    def _give(self, one: Listed, taken: Taken, came: Instant | None = None) -> bool:
        """Readings to the sink, old ones to the history; whether there were any."""
        if taken.publish and self.connection is not None:
            for outgoing in taken.publish:
                self.connection.publish(outgoing.topic, outgoing.payload, outgoing.qos)
        readings = list(taken.readings)
        if not readings:
            return False
        old = [reading for reading in readings if reading.why == DELAYED]
        if old:
            one.health.delayed += 1
            readings = [reading for reading in readings if reading.why != DELAYED]
            self._give_old(old)
        if readings:
            first = readings[0]
            bad = first.quality is Quality.BAD and all(r.quality is Quality.BAD for r in readings)
            one.health.why = first.why if bad else ""
            if came is not None:
                one.health.last_message_at = came
            self._pour(self._sink, readings)
        return True

    def _give_old(self, old: list[Reading]) -> None:
        if self._late is not None:
            self._pour(self._late, old)
        else:
            self._pour(self._sink, [msgspec.structs.replace(reading, quality=Quality.BAD) for reading in old])

    def _pour(self, sink: Sink, readings: list[Reading]) -> None:
        try:
            sink(readings)
        except Exception as error:
            self.error = error
            raise

    # --- acknowledgements ---

    def acknowledge(self, mid: int, connection: Connection | None) -> None:
        """A message that nobody gets, in its turn."""
        if connection is not None:
            if self._acks.owed:
                self._acks.put(connection, mid)
            else:
                connection.acknowledge(mid)

    @property
    def owed(self) -> int:
        """Messages that are acknowledged as soon as they are stored."""
        return self._acks.owed

    async def store(self) -> NoReturn:
        """Acknowledge what is stored, for ever. Raises what `stored` raises."""
        assert self._stored is not None
        while True:
            await self._acks.due()
            mids = self._acks.begin()
            await self._stored()
            for connection, mid in mids:
                connection.acknowledge(mid)
            self._acks.end()

    async def store_last(self) -> None:
        """At the end: what was taken need not come again. Bounded; what fails comes again."""
        if self._stored is None or not self._acks.owed:
            return
        mids = self._acks.begin_last()
        with contextlib.suppress(Exception):
            async with asyncio.timeout(LAST_S):
                await self._stored()
            for connection, mid in mids:
                connection.acknowledge(mid)
