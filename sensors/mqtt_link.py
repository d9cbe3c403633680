"""One connection to an MQTT broker on the event loop. The only file of the sensors with the MQTT client.

paho-mqtt speaks the protocol, with these exceptions. The socket is ours (`mqtt_wire`): it is connected without blocking
the loop, and one read or write of the operating system carries many packets, where paho reads each in three pieces.
And PUBLISH and PUBACK, which are nearly all of the traffic, are decoded and made here: paho spends more on a message
than everything that follows. So are pings: paho does not see what comes. A message beyond MOST_BYTES is skipped as it
comes and never held.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from .mqtt_wire import MOST_BYTES, PORTS, PUBLISH, LinkLostError, Wire, connect
from .mqtt_words import LinkSpec

KEEPALIVE_S = 20
PING_S = KEEPALIVE_S / 2
SILENCE_S = 1.5 * KEEPALIVE_S  # whatever comes breaks it: the answer to a ping may be far behind in a queue
ANSWER_S = 5.0  # for the broker's part of connecting and subscribing
SESSION_S = 3600  # MQTT 5: how long the broker keeps our session; MQTT 3.1.1 knows no limit
RECEIVE_MAXIMUM = 256  # MQTT 5: messages without our acknowledgement; brokers have a limit of their own, often 20
_PUBACK = b"\x40\x02"
_PINGREQ = b"\xc0\x00"
_FILTERS = 200  # in one SUBSCRIBE
_PIECES = 16  # read in one turn of the loop

Arrived = Callable[[str, bytes, int, bool, bool, int], None]
"""Topic ("" when it is no UTF-8), payload, message number (0: wants no acknowledgement), retained, duplicate, size."""


class _Client(mqtt.Client):
    """paho with our socket: this is the one place where it makes its own."""

    wire: Wire

    def _create_socket(self) -> Any:
        return self.wire


class Connection:
    """A connection from CONNECT to its end; for the next one make another.

    Args:
        spec: which broker.
        clean: the broker forgets what it kept for us.
        arrived: called with each message, in order; must not raise.
        drained: called after a piece of what has come was told by `arrived`; may call `pause`.

    Attributes:
        lost: done when the connection is over; says why.
        published: what the broker said to our publications, by their number: "" or why not; the newest only.
    """

    def __init__(self, spec: LinkSpec, *, clean: bool, arrived: Arrived, drained: Callable[[], None]) -> None:
        self._spec = spec
        self._clean = clean
        self._arrived = arrived
        self._drained = drained
        self._five = spec.version == "5"
        self._loop = asyncio.get_running_loop()
        self._accepted: asyncio.Future[bool] = self._loop.create_future()
        self.lost: asyncio.Future[str] = self._loop.create_future()
        self.published: dict[int, str] = {}
        self._answers: dict[int, asyncio.Future[list[ReasonCode]]] = {}
        self._wire: Wire | None = None
        self._number = -1
        self._write_due = False
        self._blocked = False
        self._timer: asyncio.TimerHandle | None = None
        self._reading = False
        self._heard = False
        self._heard_s = self._pinged_s = self._loop.time()
        self._paused = False
        self._client = self._make_client()

    def _make_client(self) -> _Client:
        spec = self._spec
        client = _Client(
            CallbackAPIVersion.VERSION2,
            client_id=spec.client_id,
            clean_session=None if self._five else self._clean,
            protocol=MQTTProtocolVersion.MQTTv5 if self._five else MQTTProtocolVersion.MQTTv311,
            reconnect_on_failure=False,
        )
        if spec.credentials is not None:
            client.username_pw_set(spec.credentials.username, spec.credentials.password)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_subscribe = client.on_unsubscribe = self._on_answer
        client.on_publish = self._on_publish
        client.on_socket_register_write = lambda *_: self._write_soon()
        return client

    async def open(self) -> bool:
        """Connect. Returns whether the broker has kept our session. Raises LinkLostError."""
        spec = self._spec
        self._wire = self._client.wire = Wire(await connect(spec))
        self._number = self._wire.fileno()
        properties = None
        if self._five:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = SESSION_S if spec.client_id else 0
            properties.ReceiveMaximum = RECEIVE_MAXIMUM
        url = urlsplit(spec.url)
        clean_start = self._clean if self._five else mqtt.MQTT_CLEAN_START_FIRST_ONLY
        self._client.connect_async(
            url.hostname or "",
            url.port or PORTS[url.scheme],
            KEEPALIVE_S,
            clean_start=clean_start,
            properties=properties,
        )
        self._loop.add_reader(self._number, self._read)
        self._client.reconnect()
        self._heard = True
        self._tick()
        await self._first(self._accepted, "the broker accepts the connection but does not answer")
        return self._accepted.result()

    async def subscribe(self, filters: Sequence[str]) -> list[str]:
        """Those that the broker refuses. Raises LinkLostError."""
        refused: list[str] = []
        for at in range(0, len(filters), _FILTERS):
            some = filters[at : at + _FILTERS]
            wanted: Any = [(name, SubscribeOptions(qos=1) if self._five else 1) for name in some]
            codes = await self._ask(self._client.subscribe(wanted))
            if len(codes) != len(some):
                raise LinkLostError(f"the broker answers {len(some)} subscriptions with {len(codes)} codes")
            refused += [name for name, code in zip(some, codes, strict=True) if code.is_failure]
        return refused

    async def unsubscribe(self, filters: Sequence[str]) -> None:
        """Raises LinkLostError."""
        for at in range(0, len(filters), _FILTERS):
            await self._ask(self._client.unsubscribe(list(filters[at : at + _FILTERS])))

    def forget(self, filters: Iterable[str]) -> None:
        """As `unsubscribe`, without waiting for the answer."""
        self._client.unsubscribe(list(filters))

    def publish(self, topic: str, payload: bytes, qos: int) -> int:
        """The number under which `published` will hold the answer of the broker."""
        return self._client.publish(topic, payload, qos).mid

    def acknowledge(self, mid: int) -> None:
        """Acknowledge a message of QoS 1; nothing after the end."""
        if self._wire is not None and not self.lost.done():
            self._wire.send(_PUBACK + mid.to_bytes(2, "big"))
            self._write_soon()

    def pause(self, wanted: bool) -> None:
        """Leave what comes at the broker for a while, or go on; a pause must be shorter than KEEPALIVE_S."""
        if wanted == self._paused or self._number < 0:
            return
        self._paused = wanted
        if wanted:
            self._loop.remove_reader(self._number)
        else:
            self._loop.add_reader(self._number, self._read)
            self._loop.call_soon(self._read)  # TLS may hold more, which makes the socket no more readable

    def drop(self, why: str) -> None:
        """End it; `lost` says why."""
        self._end(why)

    def close(self) -> None:
        """Say goodbye and close; what was acknowledged leaves first."""
        if self._timer is not None:
            self._timer.cancel()
        if self._wire is None:
            return
        if not self.lost.done():
            self._end("closed by us")
            with contextlib.suppress(Exception):
                self._client.disconnect()
                self._client.loop_write()
        self._detach()
        self._wire.close()

    # --- on the loop ---

    def _read(self) -> None:
        """Take what has come, up to a share of the loop's time."""
        wire = self._wire
        if wire is None or self._paused or self.lost.done():
            return
        self._reading = True
        more = False
        try:
            for _ in range(_PIECES):
                self._take_packets(wire)  # what a pause has left
                if self._paused or self.lost.done():
                    break
                more = wire.fill()
                self._heard = True
                self._take_packets(wire)
                if not more:
                    break
        except (ValueError, IndexError, struct.error) as error:
            self._end(f"the broker sent what cannot be read: {error}")
        except OSError as error:
            self._end(error.strerror or str(error))
        except Exception as error:  # of the client: what it makes of a packet is not ours to foresee
            self._end(f"the broker sent what cannot be read: {error!r}")
        finally:
            self._reading = False
        self._drained()
        if self._write_due:
            self._write()
        if more:
            self._loop.call_soon(self._read)

    def _take_packets(self, wire: Wire) -> None:
        while not self._paused:
            first, begin, length = wire.head()
            if not begin:
                return
            if first >> 4 != PUBLISH:
                self._take_other(wire, first, begin, length)
                continue
            raw, payload, mid = wire.publication(first, begin, length, self._five)
            try:
                topic = raw.decode("utf-8")
            except UnicodeDecodeError:
                topic = ""
            size = len(payload) if length <= MOST_BYTES else length
            self._arrived(topic, payload, mid, bool(first & 1), bool(first & 8), size)

    def _take_other(self, wire: Wire, first: int, begin: int, length: int) -> None:
        """A packet for paho. Raises ValueError when it makes nothing of it."""
        wire.lend(begin, length)
        code = self._client.loop_read()
        if self.lost.done() or code not in (MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_AGAIN):
            raise ValueError(f"a packet of type {first >> 4}")

    def _write_soon(self) -> None:
        """Send what waits at the end of this turn: all of it in one write."""
        if not self._write_due:
            self._write_due = True
            if not self._reading:
                self._loop.call_soon(self._write)

    def _write(self) -> None:
        if not self._write_due and not self._blocked:
            return
        self._write_due = False
        if self._wire is None or self.lost.done():
            return
        try:
            if self._client.want_write():
                self._client.loop_write()
            gone = self._wire.flush()
        except OSError as error:
            self._end(error.strerror or str(error))
            return
        if gone == self._blocked and self._number >= 0:  # what cannot leave now leaves when the socket can take it
            self._blocked = not gone
            if gone:
                self._loop.remove_writer(self._number)
            else:
                self._loop.add_writer(self._number, self._write)

    def _tick(self) -> None:
        """Keep alive: the broker by pings, and ourselves from a broker that is gone without a word."""
        if self.lost.done():
            return
        now_s = self._loop.time()
        if self._heard or self._paused:
            self._heard, self._heard_s = False, now_s
        if now_s - self._heard_s > SILENCE_S:
            self._end(f"the broker says nothing for {SILENCE_S:g} s")
            return
        if self._wire is not None and self._accepted.done() and now_s - self._pinged_s >= PING_S:
            self._pinged_s = now_s
            self._wire.send(_PINGREQ)
            self._write_soon()
        self._timer = self._loop.call_later(1.0, self._tick)

    def _end(self, why: str) -> None:
        if not self.lost.done():
            self.lost.set_result(why)
            self._detach()

    def _detach(self) -> None:
        if self._number >= 0:
            self._loop.remove_reader(self._number)
            self._loop.remove_writer(self._number)
            self._number = -1

    async def _ask(self, sent: tuple[MQTTErrorCode, int | None]) -> list[ReasonCode]:
        code, mid = sent
        if code != MQTTErrorCode.MQTT_ERR_SUCCESS or mid is None:
            raise LinkLostError(mqtt.error_string(code))
        answer = self._answers[mid] = self._loop.create_future()
        try:
            await self._first(answer, "the broker does not answer a subscription")
        finally:
            del self._answers[mid]
        return answer.result()

    async def _first(self, answer: asyncio.Future[Any], otherwise: str) -> None:
        """Wait for an answer of the broker. Raises LinkLostError."""
        try:
            async with asyncio.timeout(ANSWER_S):
                await asyncio.wait((answer, self.lost), return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            raise LinkLostError(f"{otherwise} within {ANSWER_S:g} s") from None
        if not answer.done():
            raise LinkLostError(self.lost.result())

    # --- what paho calls ---

    def _on_connect(self, _client: Any, _data: Any, flags: mqtt.ConnectFlags, code: ReasonCode, _more: Any) -> None:
        if code.is_failure:
            self._end(f"the broker refuses the connection: {code}")
        elif not self._accepted.done():
            self._accepted.set_result(flags.session_present)

    def _on_disconnect(self, _client: Any, _data: Any, flags: Any, code: ReasonCode, _more: Any) -> None:
        by = "the broker ended the connection: " if flags.is_disconnect_packet_from_server else ""
        self._end(f"{by}{code}" if by or str(code) != "Unspecified error" else "the connection was cut")

    def _on_answer(self, _client: Any, _data: Any, mid: int, codes: list[ReasonCode], _more: Any) -> None:
        answer = self._answers.get(mid)
        if answer is not None and not answer.done():
            answer.set_result(codes)

    def _on_publish(self, _client: Any, _data: Any, mid: int, code: ReasonCode, _more: Any) -> None:
        self.published[mid] = str(code) if code.is_failure else ""
        if len(self.published) > 64:
            del self.published[next(iter(self.published))]


async def forget_session(spec: LinkSpec) -> None:
    """Let the broker forget what it keeps for us. Raises LinkLostError."""
    connection = Connection(spec, clean=True, arrived=lambda *_: None, drained=lambda: None)
    try:
        await connection.open()
    finally:
        connection.close()
