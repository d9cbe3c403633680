"""The local MQTT tree `sw/v1/<site>/…` for any dashboard that the control room already has.

The gateway's stores are the truth: everything retained is published again at each connect, so a broker that lost its
memory has it back at once, and what was taken out of the configuration is emptied. Alarm events are announced after
their commit and repeated after a lost connection from a committed cursor; receivers drop by `key`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import sqlite3
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiomqtt

from ..sync.journal import Journal, Record, StateTable
from ..words import Instant, Reading, mono_s, now, utc_text
from .alarms.rules import Rule
from .alarms.table import alarm_events_after, stored_alarms
from .discovery import Discovery
from .metas import PointMeta
from .pauses import in_slices
from .proof_topics import ProofTopics
from .standing_topics import StandingTopics
from .values import Values, reading_view

_log = logging.getLogger(__name__)

REFRESH_S = 20.0
_PAUSE_CAP_S = 30.0

SCHEMA = """
CREATE TABLE mqtt_cursor (id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL);
CREATE TABLE mqtt_topic (topic TEXT PRIMARY KEY)
"""


def _nothing(_: sqlite3.Connection, __: Record) -> None:
    """Neither the cursor nor the list of retained topics follows from records."""


TABLE = StateTable(
    name="mqtt",
    version=2,
    schema=SCHEMA,
    tables=("mqtt_cursor", "mqtt_topic"),
    kinds=("mqtt.",),
    apply=_nothing,
    beside=("mqtt_cursor", "mqtt_topic"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Broker:
    """Where the broker is. `url`: mqtt://host:port or mqtts://host:port; `timeout_s` for each of its answers.

    Attributes:
        version: of the protocol, `3.1.1` or `5`.
        ca_file: certificates to trust instead of the system's, PEM. cert_file, key_file: of this client.
    """

    url: str
    username: str = ""
    password: str = ""
    timeout_s: float = 10.0
    version: str = "3.1.1"
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    def client(self, identifier: str, will: aiomqtt.Will) -> aiomqtt.Client:
        """A client that is not connected yet."""
        parts = urlsplit(self.url)
        secure = parts.scheme == "mqtts"
        return aiomqtt.Client(
            parts.hostname or "",
            parts.port or (8883 if secure else 1883),
            username=self.username or None,
            password=self.password or None,
            identifier=identifier,
            will=will,
            protocol=aiomqtt.ProtocolVersion.V5 if self.version == "5" else aiomqtt.ProtocolVersion.V311,
            tls_context=self._tls() if secure else None,
            timeout=self.timeout_s,
            keepalive=20,
        )

    def _tls(self) -> ssl.SSLContext:
        """Raises MqttError when a file cannot be used: the link is tried again, and says why."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
        except (OSError, ValueError) as error:
            names = ", ".join(name for name in (self.ca_file, self.cert_file, self.key_file) if name)
            raise aiomqtt.MqttError(f"TLS: the files cannot be used: {error}; check {names}") from error
        return context


Answer = Callable[[str, str, bytes, bool], Awaitable[dict[str, Any]]]


@dataclass(slots=True)
class DashboardHealth:
    """State of the broker link for pages. `beat_s` is fresh while the loop turns."""

    state: str = "down"
    since: Instant = field(default_factory=now)
    error: str = ""
    beat_s: float = field(default_factory=mono_s)

    def set(self, state: str, error: str = "") -> None:
        """Note a change, and log it once."""
        if state != self.state:
            self.since = now()
            _log.log(logging.INFO if state == "up" else logging.WARNING, "broker %s %s", state, error)
        self.state, self.error = state, error


class Dashboards:
    """Publishes the tree for ever; a lost broker costs nothing else.

    Args:
        site, gateway: ids in the topics.
        broker: where.
        journal, values: what to publish.
        points, rules: of the configuration.
        status: the gateway's status for `gw/<gw>/health`.
        health: for pages.
        answer: carries out a command: user, what, payload, retained; None: nobody commands over MQTT.
        discovery: what Home Assistant is told.
    """

    def __init__(
        self,
        *,
        site: str,
        gateway: str,
        broker: Broker,
        journal: Journal,
        values: Values,
        points: Sequence[PointMeta],
        rules: Sequence[Rule],
        status: Callable[[], dict[str, Any]],
        health: DashboardHealth,
        answer: Answer | None = None,
        discovery: Discovery | None = None,
    ) -> None:
        self._base = f"sw/v1/{site}"
        self._site = site
        self._gateway = gateway
        self._broker = broker
        self._journal = journal
        self._values = values
        self._points = {meta.point.id: meta for meta in points}
        self._known = frozenset(rule.id for rule in rules)
        self._status = status
        self._health = health
        self._answer = answer
        self._discovery = discovery or Discovery()
        self._announced: Mapping[str, Any] = {}
        self._birth = ""
        self._changed = values.cursor()
        self._sent: dict[str, tuple[Any, float]] = {}
        self._revs: dict[str, int] = {}
        self._seq = 0
        self._seqs: dict[str, tuple[Reading, int]] = {}
        self._committed = asyncio.Event()
        self._cursor: int | None = None
        self._told: dict[str, PointMeta] = {}
        self._used: set[str] = set()
        self._told_rules: frozenset[str] = frozenset()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._standing = StandingTopics(journal, self._note_topics)
        self._tests = ProofTopics(lambda seq: f"{site}/{gateway}/{journal.epoch}/{seq}")
        journal.subscribe(self._note_records)

    def change(
        self,
        *,
        broker: Broker,
        points: Sequence[PointMeta],
        rules: Sequence[Rule],
        discovery: Discovery | None = None,
    ) -> None:
        """Go on with another configuration: a session publishes the difference, and empties what is gone.

        Another `broker` counts from the next connection on: the caller runs `run` again.
        """
        self._broker = broker
        self._points = {meta.point.id: meta for meta in points}
        self._known = frozenset(rule.id for rule in rules)
        self._discovery = discovery or Discovery()
        self._news.set()

    def has_test(self, seq: int) -> bool:
        """Whether the broker has acknowledged this record of a proof test."""
        return self._tests.acknowledged >= seq

    def _note_records(self, records: list[Record]) -> None:
        self._tests.take(records)
        self._committed.set()

    async def run(self) -> None:
        """Connect, publish, reconnect with capped, jittered pauses; ends only with the store's error."""
        await self._load_cursor()
        pause_s = 0.5
        while True:
            started_s = mono_s()
            try:
                await _alone(self._session(), "mqtt-session")
            except* aiomqtt.MqttError as errors:
                self._health.set("down", str(errors.exceptions[0]))
            if mono_s() - started_s > _PAUSE_CAP_S:
                pause_s = 0.5
            pause_s = min(pause_s * 2, _PAUSE_CAP_S)
            self._health.beat_s = mono_s()
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311

    async def _session(self) -> None:
        topic = f"gw/{self._gateway}/status"
        will = aiomqtt.Will(f"{self._base}/{topic}", _dump({"online": False}), qos=1, retain=True)
        async with self._broker.client(f"sitewarden-{self._gateway}", will) as client:
            try:
                await self._publish_and_follow(client, topic)
            finally:  # an orderly end sends no Will, not even one in the middle of the first publications
                with contextlib.suppress(aiomqtt.MqttError, TimeoutError):
                    async with asyncio.timeout(2):
                        await client.publish(f"{self._base}/{topic}", _dump({"online": False}), qos=1, retain=True)

    async def _publish_and_follow(self, client: aiomqtt.Client, topic: str) -> None:
        boot = now()
        said: dict[str, Any] = {"online": True, "ts": utc_text(boot.utc_ms), "boot": boot.boot}
        if (mark := self._journal.not_recorded) is not None:
            said["not_recorded"] = {"since": utc_text(mark.since_ms)}
        await self._retain(client, topic, said)
        await self._publish_everything(client)
        await self._empty_what_is_gone(client)
        if self._answer is not None:
            await client.subscribe(f"{self._base}/cmd/+/+", qos=1)
        self._birth = ""
        await self._follow_birth(client)
        self._health.set("up")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._publish_values(client), name="mqtt-values")
            group.create_task(self._publish_events(client), name="mqtt-events")
            group.create_task(self._publish_news(client), name="mqtt-news")
            group.create_task(self._follow_commands(client), name="mqtt-commands")

    async def _publish_everything(self, client: aiomqtt.Client) -> None:
        self._sent.clear()
        self._news.clear()
        self._told, self._told_rules, self._announced = {}, frozenset(), {}
        await self._publish_metas(client)
        await self._announce(client)
        alarms = await self._journal.query(stored_alarms)
        self._revs = {alarm_id: alarm["rev"] for alarm_id, alarm in alarms.items()}
        known = self._known
        await self._publish_states(client, alarms, known | alarms.keys())
        self._told_rules = known
        await self._publish_summary(client, alarms)
        self._standing.begin()
        await self._publish_standing(client)
        await self._publish_health(client)

    async def _publish_metas(self, client: aiomqtt.Client) -> None:
        """Of every point that is new, or was changed since it was published last in this session."""
        points = self._points
        self._used |= self._topics()
        for name, meta in points.items():
            if self._told.get(name) != meta:
                await self._retain(client, f"{meta.point.topic}/meta", meta.to_json())
                self._sent.pop(name, None)
                await self._publish_value(client, name)
        self._told = points

    async def _follow_birth(self, client: aiomqtt.Client) -> None:
        birth = self._discovery.birth
        if birth and birth != self._birth:
            await client.subscribe(birth, qos=1)
        self._birth = birth

    async def _announce(self, client: aiomqtt.Client) -> None:
        """To Home Assistant, what is new or was changed since."""
        configs = self._discovery.configs
        self._used |= configs.keys()
        for topic, config in configs.items():
            if self._announced.get(topic) != config:
                await _publish(client, topic, _dump(config), retain=True)
        self._announced = configs

    async def _publish_states(self, client: aiomqtt.Client, alarms: Mapping[str, Any], ids: Iterable[str]) -> None:
        for alarm_id in ids:
            state = alarms.get(alarm_id, {"id": alarm_id, "state": "NORM"})
            await self._retain(client, f"alarm/{alarm_id}/state", self._shown(state))

    async def _publish_standing(self, client: aiomqtt.Client) -> None:
        await self._standing.publish(lambda topic, payload: self._retain(client, topic, payload))

    async def _note_topics(self, topics: set[str], retained: bool) -> None:
        names = [(f"{self._base}/{topic}",) for topic in topics]
        sql = "INSERT OR IGNORE INTO mqtt_topic VALUES (?)" if retained else "DELETE FROM mqtt_topic WHERE topic = ?"
        await self._journal.write(lambda c: c.executemany(sql, names).rowcount)

    def _shown(self, alarm: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """An alarm's retained state; None when there is nothing to show: its rule is gone, or a fault is over."""
        if alarm["id"].startswith("system."):
            return alarm if alarm["state"] != "NORM" else None
        return alarm if alarm["id"] in self._known else None

    async def _follow_commands(self, client: aiomqtt.Client) -> None:
        """Answer commands; without any, raise MqttError when the connection is lost."""
        async for message in client.messages:
            if message.topic.value == self._birth:
                if message.payload == b"online":  # Home Assistant has started, perhaps without what was retained
                    self._announced = {}
                    self._news.set()
                continue
            parts = message.topic.value.removeprefix(f"{self._base}/cmd/").split("/")
            if self._answer is None or len(parts) != 2:
                continue
            user, what = parts
            payload = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b""
            said = await self._answer(user, what, payload, bool(message.retain))
            await _publish(client, f"{self._base}/rsp/{user}", _dump(said))

    async def _publish_news(self, client: aiomqtt.Client) -> None:
        """Follow the configuration. Events wait meanwhile, so that no state overtakes a newer one."""
        while True:
            await self._news.wait()
            async with self._turn:
                self._news.clear()
                await self._publish_metas(client)
                await self._follow_birth(client)
                await self._announce(client)
                alarms, known = await self._journal.query(stored_alarms), self._known
                fresh = known - self._told_rules
                self._revs |= {alarm_id: alarms[alarm_id]["rev"] for alarm_id in fresh & alarms.keys()}
                await self._publish_states(client, alarms, fresh)
                self._told_rules = known
                await self._empty_what_is_gone(client)

    def _topics(self) -> set[str]:
        """Every retained topic of the configuration."""
        leaves = [f"{meta.point.topic}/{leaf}" for meta in self._points.values() for leaf in ("meta", "value")]
        leaves += [f"alarm/{alarm_id}/state" for alarm_id in self._known]
        leaves += self._standing.topics
        leaves += ["alarm/summary", f"gw/{self._gateway}/status", f"gw/{self._gateway}/health"]
        return {f"{self._base}/{leaf}" for leaf in leaves} | self._discovery.configs.keys()

    async def _empty_what_is_gone(self, client: aiomqtt.Client) -> None:
        """Points and rules that were taken out of the configuration leave nothing behind on the broker."""
        mine = self._topics()
        before = await self._journal.query(lambda c: {row[0] for row in c.execute("SELECT topic FROM mqtt_topic")})
        for topic in sorted((before | self._used) - mine):
            await _publish(client, topic, b"", retain=True)
        if before != mine:
            await self._journal.write(lambda c: _replace_topics(c, mine))
        self._used = set()

    async def _publish_values(self, client: aiomqtt.Client) -> None:
        health_s = mono_s()
        while True:
            self._health.beat_s = mono_s()
            if mono_s() - health_s >= REFRESH_S:
                await self._publish_health(client)
                health_s = mono_s()
            changed = list(self._changed)
            self._changed.clear()
            async for some in in_slices(changed):
                for point in some:
                    await self._publish_value(client, point)
            await asyncio.sleep(1.0)

    async def _publish_value(self, client: aiomqtt.Client, point: str) -> None:
        meta, reading = self._points.get(point), self._values.get(point)
        if meta is None or reading is None:
            return
        what = (reading.value, reading.quality, reading.why)
        before, at_s = self._sent.get(point, (None, -REFRESH_S))
        every_s = min(REFRESH_S, meta.stale_s / 3)
        if what == before and mono_s() - at_s < every_s:
            return
        view = reading_view(reading, now())
        payload = {"v": view["v"], "u": meta.point.unit, "q": view["q"], "why": view["why"], "ts": view["ts"]}
        await self._retain(client, f"{meta.point.topic}/value", {**payload, "seq": self._number(point, reading)})
        # The first one counts as older than it is, so that thousands that rest are not refreshed in the same second.
        self._sent[point] = (what, mono_s() - (random.uniform(0.0, every_s) if before is None else 0.0))  # noqa: S311

    def _number(self, point: str, reading: Reading) -> int:
        """Numbers the readings: the same one is published with the same bytes, also on another broker."""
        before, number = self._seqs.get(point, (None, 0))
        if reading is not before:
            self._seq = number = self._seq + 1
            self._seqs[point] = (reading, number)
        return number

    async def _publish_events(self, client: aiomqtt.Client) -> None:
        while True:
            self._committed.clear()
            async with self._turn:
                published = await self._publish_next_events(client)
                await self._publish_standing(client)
                await self._tests.publish(lambda topic, data: _publish(client, f"{self._base}/{topic}", _dump(data)))
            if not published:
                await self._committed.wait()

    async def _publish_next_events(self, client: aiomqtt.Client) -> bool:
        """Returns whether there were any."""
        assert self._cursor is not None
        after = self._cursor
        events = await self._journal.query(lambda connection: alarm_events_after(connection, after, 200))
        for event in events:
            await self._publish_event(client, event)
            self._cursor = event["seq"]
        if events:
            await self._publish_summary(client, await self._journal.query(stored_alarms))
            await self._save_cursor()
        return bool(events)

    async def _publish_event(self, client: aiomqtt.Client, event: dict[str, Any]) -> None:
        alarm, seq = event["alarm"], event["seq"]
        if seq >= self._revs.get(alarm["id"], 0):  # after an outage the retained state is newer than its events
            self._revs[alarm["id"]] = seq
            await self._retain(client, f"alarm/{alarm['id']}/state", self._shown(alarm))
        key = f"{self._site}/{self._gateway}/{self._journal.epoch}/{seq}"
        await _publish(client, f"{self._base}/event/{alarm['id']}", _dump({**event, "key": key}))

    async def _publish_summary(self, client: aiomqtt.Client, alarms: Mapping[str, Mapping[str, Any]]) -> None:
        live = [alarm for alarm in alarms.values() if alarm["state"] != "NORM"]
        counts = {str(priority): sum(a["priority"] == priority for a in live) for priority in (1, 2, 3, 4)}
        unacked = sum(alarm["state"] in ("UNACK", "RTNUN", "LATU") for alarm in live)
        summary = {"open": len(live), "unacked": unacked, "by_priority": counts}
        rev = max((alarm["rev"] for alarm in alarms.values()), default=0)
        await self._retain(client, "alarm/summary", {**summary, "rev": rev})

    async def _publish_health(self, client: aiomqtt.Client) -> None:
        await self._retain(client, f"gw/{self._gateway}/health", self._status())

    async def _retain(self, client: aiomqtt.Client, topic: str, payload: Any) -> None:
        data = b"" if payload is None else _dump(payload)
        await _publish(client, f"{self._base}/{topic}", data, retain=True)

    async def _load_cursor(self) -> None:
        row = await self._journal.query(lambda c: c.execute("SELECT seq FROM mqtt_cursor").fetchone())
        self._cursor = row[0] if row else self._journal.head()[0]
        await self._save_cursor()

    async def _save_cursor(self) -> None:
        row = (self._cursor,)
        await self._journal.write(lambda c: c.execute("INSERT OR REPLACE INTO mqtt_cursor VALUES (1, ?)", row).rowcount)


async def _alone(work: Coroutine[Any, Any, None], name: str) -> None:
    """Await `work` in a task of its own, and end it when cancelled. The cancellation is then raised whatever `work`
    raises: Python 3.11's TaskGroup forgets it when one of its tasks fails at the same time."""
    task = asyncio.create_task(work, name=name)
    try:
        await asyncio.wait([task])
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        raise
    await task


async def _publish(client: aiomqtt.Client, topic: str, data: bytes, *, retain: bool = False) -> None:
    await client.publish(topic, data, qos=1, retain=retain)
    task = asyncio.current_task()
    if task is not None and task.cancelling():  # Python 3.11's wait_for, used by aiomqtt, can swallow a cancellation
        raise asyncio.CancelledError


def _replace_topics(connection: sqlite3.Connection, topics: Iterable[str]) -> None:
    connection.execute("DELETE FROM mqtt_topic")
    connection.executemany("INSERT INTO mqtt_topic VALUES (?)", [(topic,) for topic in topics])


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
