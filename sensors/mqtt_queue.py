"""The queue between a connection and the devices: what arrives at once is taken in turns, so that the loop stays alive.

Its bounds are those of the lanes; when all of them fill, the broker is left to wait. It also waits while the sinks have
more than they can store, but not for longer than PAUSE_S: alarms must not wait for a disk that hangs.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from ..words import Instant, mono_s, now
from .mqtt_delivery import Fence
from .mqtt_handover import HandOver
from .mqtt_lanes import Lane
from .mqtt_link import Connection
from .mqtt_payloads import shorten
from .mqtt_subscriptions import Subscriptions
from .mqtt_words import Arrival, MqttHealth

logger = logging.getLogger(__name__)

SHARE_S = 0.02  # of the loop's time at once
LARGE_BYTES = 4096  # a message that is looked at by itself
STRANGERS = 2048  # topics
PAUSE_S = 2.0  # well below ANSWER_S and KEEPALIVE_S
LOOK_S = 0.01  # between two looks at sinks that are full

_Waiting = tuple[Lane | None, Arrival | None, int, bool, Connection | None]
"""Lane and message (None: it only wants its acknowledgement), number, dup, the connection that it came by."""


class Queue:
    """Messages that wait for their turn, in the order of arrival.

    Args:
        subscriptions: whom a topic is for.
        fence: behind the backlog.
        handover: takes a message in its turn.
        health: of the link.
        full: whether the sinks have more than they can store.
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        fence: Fence,
        handover: HandOver,
        health: MqttHealth,
        full: Callable[[], bool],
    ) -> None:
        self._subscriptions = subscriptions
        self._fence = fence
        self._handover = handover
        self._health = health
        self._full = full
        self._full_since_s: float | None = None
        self._look: asyncio.TimerHandle | None = None
        self._heard_s = 0.0
        self._waiting: deque[_Waiting] = deque()
        self._failed: asyncio.Future[NoReturn] | None = None
        self._busy = False
        self._at: Instant | None = None
        self._strangers: set[str] = set()

    def begin(self) -> None:
        """A run begins: nothing waits."""
        self._failed = asyncio.get_running_loop().create_future()
        self._waiting.clear()
        self._full_since_s = None
        self._subscriptions.empty_lanes()
        self._health.waiting_bytes = 0

    async def failed(self) -> NoReturn:
        """Raise what a sink raised: it is called where nobody waits."""
        assert self._failed is not None
        await self._failed
        raise AssertionError

    def quiet_s(self, now_s: float) -> float:
        """How long nothing has come although the broker could have sent: it waits neither for us nor for its due."""
        if self._waiting or self._handover.owed or self._look is not None:
            self._heard_s = now_s
        last = self._health.last_message_at
        return now_s - max(self._heard_s, last.mono_s if last is not None else 0.0)

    # --- in ---

    def arrived(self, topic: str, payload: bytes, mid: int, retained: bool, dup: bool, size: int) -> None:
        """Called by the connection with each message: it waits, or is dropped and counted."""
        health = self._health
        if self._at is None:
            self._at = health.last_message_at = now()
        health.messages += 1
        lane = self._subscriptions.lanes.find(topic)
        if lane is None or topic == self._fence.topic:
            lane = None
            self._take_other(topic, payload)
        elif lane.enter(size, health, topic):
            lane = None
        arrival = None
        if lane is not None:
            backlog = self._fence.is_up
            health.backlog += backlog
            arrival = Arrival(topic=topic, payload=payload, at=self._at, retained=retained, backlog=backlog)
        elif not mid:
            return
        self._waiting.append((lane, arrival, mid, dup, self._handover.connection))
        if len(self._waiting) & 15 == 0 or size > LARGE_BYTES:
            self._pause_when_crowded()

    def _take_other(self, topic: str, payload: bytes) -> None:
        """The marker, or what nobody asked for: a session may remember the topics of an earlier configuration."""
        if topic == self._fence.topic:
            if self._fence.returns(payload):
                self._health.catching_up = False
                logger.info("%s: what waited at the broker is delivered", self._fence.name)
            return
        self._health.strangers += 1
        known, connection = shorten(topic), self._handover.connection
        if topic and known not in self._strangers and len(self._strangers) < STRANGERS and connection:
            self._strangers.add(known)
            connection.forget([topic])

    # --- out ---

    def drained(self) -> None:
        """Called by the connection after a piece of what has come."""
        self._at = None
        if self._waiting and not self._busy:
            self.work()

    def _work_on(self) -> None:
        self._busy = False
        self.work()

    def work(self, *, everything: bool = False) -> None:
        """Take messages, for a share of the loop's time."""
        if self._failed is None or self._failed.done():
            return
        end_s = time.monotonic() + SHARE_S
        waiting, handover, health = self._waiting, self._handover, self._health
        while waiting:
            lane, arrival, mid, dup, connection = waiting.popleft()
            try:
                if lane is None or arrival is None:
                    handover.acknowledge(mid, connection)
                else:
                    lane.leave(len(arrival.payload), health, arrival.topic)
                    handover.take(lane, arrival, mid, dup, connection)
            except Exception as error:  # of a sink: it comes again after the restart
                self._failed.set_exception(error)
                return
            if not everything and waiting and time.monotonic() > end_s:
                self._busy = True
                asyncio.get_running_loop().call_soon(self._work_on)
                break
        self._pause_when_crowded()

    # --- pauses ---

    def _pause_when_crowded(self) -> None:
        connection = self._handover.connection
        if connection is not None:
            lanes = self._subscriptions.lanes
            crowded = lanes.are_crowded(self._health.waiting_bytes, waits=self._fence.is_up)
            connection.pause(crowded or self._is_full())

    def _is_full(self) -> bool:
        """Whether the sinks must be waited for; it is looked at again soon, because nothing else tells when not."""
        if not self._full():
            self._full_since_s = None
            return False
        now_s = mono_s()
        if self._full_since_s is None:
            self._full_since_s = now_s
        if now_s - self._full_since_s > PAUSE_S:
            return False
        if self._look is None:
            self._look = asyncio.get_running_loop().call_later(LOOK_S, self._look_again)
        return True

    def _look_again(self) -> None:
        self._look = None
        self._heard_s = mono_s()
        self._pause_when_crowded()
