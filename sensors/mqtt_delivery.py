"""What a link must remember to deliver well: the marker behind the backlog, and what is owed to the broker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections import deque

from ..words import mono_s
from .mqtt_link import ANSWER_S, Connection

logger = logging.getLogger(__name__)

FENCE_S = 300.0  # the marker must be back by then
REFUSED_S = 10.0  # what waits may take so long when the broker has refused the marker
QUIET_S = 2.0  # a broker that owes us nothing and sends nothing for so long has lost the marker, or the line stalls
RETRY_S = 3600.0  # after so long a broker that refused or lost the marker is tried again
STORE_S = 1.0  # the oldest message waits at most so long for its acknowledgement
REMEMBERED = 2048  # more than any broker lets be unacknowledged
WINDOW = 20  # messages that a broker lets be unacknowledged, until more were seen: mosquitto's limit


class Fence:
    """The marker that is published behind the backlog. Once raised it is lowered by the marker alone: silence proves
    nothing, a line that stalls is as silent as an empty queue. A marker that stays away is published once more; when
    that one is acknowledged and stays away too, the connection is dropped and the session begins anew, empty.

    Args:
        client_id: of the session.
        name: of the link, for people.

    Attributes:
        name: of the link.
        is_up: what comes is backlog.
        begins_anew: the broker must forget the session before it is used again.
    """

    def __init__(self, client_id: str, name: str) -> None:
        self.topic = f"sw/v1/_/marker/{client_id}"  # `_` is no site; gateways may use sw/v1/#
        self.is_up = False
        self.begins_anew = False
        self.name = name
        self._gave_up_s: float | None = None
        self._losses = 0
        self._began_s = 0.0
        self._again = False
        self._acknowledged_s: float | None = None
        self._token = b""
        self._mid = 0

    def is_useless(self, now_s: float) -> bool:
        """Whether the broker has refused the marker, or lost it in two sessions, within RETRY_S: clean ones then."""
        return self._gave_up_s is not None and now_s - self._gave_up_s < RETRY_S

    def raise_behind(self, connection: Connection, *, refused: bool) -> None:
        """Publish it: in every session, so that a broker that loses it is known before it matters."""
        self._began_s, self._gave_up_s, self._again = mono_s(), None, False
        if refused:
            self._give_up("its subscription is refused")
        else:
            self._token = secrets.token_hex(8).encode()
            self._publish(connection)

    def _publish(self, connection: Connection) -> None:
        self._acknowledged_s = None
        self._mid = connection.publish(self.topic, self._token, 1)

    def returns(self, payload: bytes) -> bool:
        """Whether this is the marker of this connection and ends the backlog; older ones may still be on their way."""
        if not self._token or payload != self._token:
            return False
        was_up = self.is_up
        self.lower()
        self._losses = 0
        return was_up

    def lower(self) -> None:
        """Nothing is waited for."""
        self.is_up, self._token, self._acknowledged_s = False, b"", None

    def watch(self, connection: Connection, now_s: float, quiet_s: float) -> None:
        """Notice that it does not come back; call it about every second.

        Args:
            connection: dropped when old messages cannot be told from new ones any more.
            now_s: monotonic seconds.
            quiet_s: so long nothing has come although the broker owes us nothing.
        """
        if self.begins_anew:
            return  # it is dropped
        if self._gave_up_s is None and self._token:
            self._look(connection, now_s, quiet_s)
        elif self.is_up:  # refused: what waits goes to the history while it comes
            waited_s = now_s - self._began_s
            if min(quiet_s, waited_s) > QUIET_S or waited_s > REFUSED_S:
                self._begin_anew(connection)

    def _look(self, connection: Connection, now_s: float, quiet_s: float) -> None:
        answer = connection.published.get(self._mid)
        if answer:
            self._give_up(answer)
            return
        if answer is not None and self._acknowledged_s is None:
            self._acknowledged_s = now_s
        since_s = 0.0 if self._acknowledged_s is None else now_s - self._acknowledged_s
        # in a new session nothing is before it
        is_away = min(quiet_s, since_s) > QUIET_S if self.is_up else since_s > ANSWER_S
        if is_away and not self._again:
            self._again = True
            self._publish(connection)  # its PUBACK shows that the line is alive
        elif is_away or (self.is_up and now_s - self._began_s > FENCE_S):
            self._losses += 1
            if self._losses > 1 or not self.is_up:
                self._give_up("it does not come back")
            if self.is_up:
                self._begin_anew(connection)

    def _begin_anew(self, connection: Connection) -> None:
        self.begins_anew = True
        connection.drop("old messages cannot be told from new ones without the marker; the session begins anew")

    def _give_up(self, why: str) -> None:
        self._gave_up_s = mono_s()
        logger.warning(
            "%s: the marker %s: %s: what is published while the link is down will be lost; let this client publish and"
            " subscribe that topic",
            self.name,
            self.topic,
            why,
        )


class Done:
    """Messages that were taken, by their number: what the broker delivers again is told by it and by its content."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque(maxlen=REMEMBERED)

    def note(self, mid: int, mark: int) -> None:
        """It is taken. `mark`: hash of topic and payload."""
        self._marks.append((mid, mark))

    def has(self, mid: int, mark: int) -> bool:
        """Whether it was taken, and no other one with its number since."""
        return next((noted for number, noted in reversed(self._marks) if number == mid), None) == mark

    def clear(self) -> None:
        """The numbers begin anew."""
        self._marks.clear()


class Acks:
    """Messages that are acknowledged as soon as they are stored, and the broker's limit of such messages.

    The limit is not told: it is the most that was ever seen, or what a broker stops at twice.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[Connection, int]] = []
        self._storing: list[tuple[Connection, int]] = []
        self._oldest_s = 0.0
        self._window = WINDOW
        self._stopped_at = 0
        self._some = asyncio.Event()
        self._full = asyncio.Event()

    @property
    def owed(self) -> int:
        return len(self._waiting) + len(self._storing)

    def put(self, connection: Connection, mid: int) -> None:
        if not self._waiting:
            self._oldest_s = mono_s()
        self._waiting.append((connection, mid))
        self._window = max(self._window, self.owed)
        self._some.set()
        if len(self._waiting) >= -(-self._window * 4 // 5):
            self._full.set()

    async def due(self) -> None:
        """Until the limit is nearly reached, or the oldest has waited for STORE_S."""
        await self._some.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._oldest_s + STORE_S - mono_s())):
                await self._full.wait()
        if not self._full.is_set():
            count = len(self._waiting)
            self._window = count if count == self._stopped_at else self._window
            self._stopped_at = count

    def begin(self) -> list[tuple[Connection, int]]:
        self._storing, self._waiting = self._waiting, []
        self._some.clear()
        self._full.clear()
        return self._storing

    def begin_last(self) -> list[tuple[Connection, int]]:
        """As `begin`, with those that were being stored when that was given up."""
        return [*self._storing, *self.begin()]

    def end(self) -> None:
        self._storing = []
