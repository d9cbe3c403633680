"""The outbox: what must be delivered, born in the transaction of its record, tried until it is accepted.

Rows go PENDING -> SENDING -> ACCEPTED, or back to RETRY. A row that was SENDING when the process died is sent
again with the same key and marked as resent: at least once, at most one duplicate per crash and row.

A row is tried while its alarm is open. Each recipient has a lane of its own, so that one who cannot be reached costs
the others nothing, and a channel that is dead for weeks costs one attempt a minute and no more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...sync.journal import Draft, Journal, Record, StateTable
from ...words import mono_s, now, utc_from_text
from ..alarms.table import stored_alarms

_log = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE outbox (
    key TEXT PRIMARY KEY,
    seq INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    person TEXT NOT NULL,
    role TEXT NOT NULL,
    channel TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    resent INTEGER NOT NULL DEFAULT 0,
    failing INTEGER NOT NULL DEFAULT 0,
    error TEXT NOT NULL DEFAULT '',
    created TEXT NOT NULL,
    data TEXT NOT NULL
)
"""
DELIVERY_DEADLINE_S = 60.0
RETRY_BASE_S = 2.0
RETRY_CAP_S = 60.0
_AT_ONCE = 2
_TOLERATED = 3
_SEND_LIMIT_S = 120.0
_ERROR_LIMIT = 200
_NO_CHANNEL = "the channel is no longer in site.toml"


def apply(connection: sqlite3.Connection, record: Record) -> None:
    """Rows are born with alerting records and end with `delivery.*` ones."""
    if record.kind.startswith("alarm."):
        data = json.dumps({"kind": record.kind, "alarm": record.body["alarm"]}, ensure_ascii=False)
        for who in record.body.get("notify", ()):
            connection.execute(
                "INSERT OR IGNORE INTO outbox (key, seq, priority, person, role, channel, state, created, data)"
                " VALUES (?, ?, ?, ?, ?, ?, 'PENDING', ?, ?)",
                (
                    who["key"],
                    record.seq,
                    record.body["alarm"]["priority"],
                    who["person"],
                    who["role"],
                    who["channel"],
                    record.at["utc"],
                    data,
                ),
            )
        return
    key, error = record.body["key"], record.body.get("error", "")
    match record.kind:
        case "delivery.accepted":
            connection.execute("UPDATE outbox SET state = 'ACCEPTED', error = '' WHERE key = ?", (key,))
        case "delivery.failing":
            connection.execute("UPDATE outbox SET failing = 1, error = ? WHERE key = ?", (error, key))
        case "delivery.dead":
            connection.execute("UPDATE outbox SET state = 'DEAD', error = ? WHERE key = ?", (error, key))


TABLE = StateTable(
    name="outbox", version=1, schema=SCHEMA, tables=("outbox",), kinds=("alarm.", "delivery."), apply=apply
)


class Channel(Protocol):
    """A way to a person. `send` returns "" when the receiver accepted the message, else why not."""

    async def send(self, message: Mapping[str, Any]) -> str: ...


@dataclass(slots=True)
class OutboxHealth:
    """What pages show. `beat_s` is fresh while the loop turns."""

    pending: int = 0
    failing: int = 0
    beat_s: float = field(default_factory=mono_s)


@dataclass(slots=True, kw_only=True)
class _Row:
    key: str
    seq: int
    priority: int
    person: str
    role: str
    channel: str
    attempts: int
    resent: bool
    failing: bool
    late_s: float
    data: dict[str, Any]
    error: str = ""
    over: bool = False


@dataclass(slots=True)
class Lane:
    """One person on one channel.

    Attributes:
        sending: deliveries under way.
        failures: attempts in a row that were not accepted.
        due_s: monotonic seconds from when a row that failed may be tried again.
        lost: the log says that this recipient is not reached.
    """

    sending: int = 0
    failures: int = 0
    due_s: float = 0.0
    lost: bool = False

    def choose(self, rows: Sequence[_Row], now_s: float) -> list[_Row]:
        """The rows to send now. A new message does not wait for one that was refused, until everything is refused:
        then one row at a time asks whether the recipient is back, each row in its turn."""
        room = max(0, _AT_ONCE - self.sending)
        if not self.failures:
            return sorted(rows, key=_urgency)[:room]
        fresh = [row for row in rows if not row.attempts]
        if fresh and self.failures < _TOLERATED:
            return sorted(fresh, key=_urgency)[:room]
        if self.sending or now_s < self.due_s or not rows:
            return []
        return [min(rows, key=lambda row: (row.attempts, *_urgency(row)))]

    def failed(self, now_s: float) -> None:
        """Wait longer than last time, up to the cap, with jitter."""
        self.failures += 1
        pause_s = min(RETRY_CAP_S, RETRY_BASE_S * 2 ** min(self.failures, 10))
        self.due_s = now_s + random.uniform(0.5, 1.0) * pause_s  # noqa: S311


class Outbox:
    """Delivers every open row on its channel.

    Args:
        journal: holds the rows.
        channels: by id, as they are now: the owner may add and remove some; what waits for one that is gone ends.
        message: builds what a channel sends from a row's person, role, alarm data and flags.
        health: counters for pages.
    """

    def __init__(
        self,
        journal: Journal,
        channels: Mapping[str, Channel],
        message: Callable[[dict[str, Any]], dict[str, Any]],
        health: OutboxHealth,
    ) -> None:
        self._journal = journal
        self._channels = channels
        self._message = message
        self._health = health
        self._rows: dict[str, _Row] = {}
        self._sending: set[str] = set()
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._wake = asyncio.Event()
        journal.subscribe(self._committed)

    async def run(self) -> None:
        """Deliver for ever. Ends only with the store's error."""
        await self._journal.write(_mark_interrupted)
        await self._load()
        async with asyncio.TaskGroup() as group:
            while True:
                self._health.beat_s = mono_s()
                self._wake.clear()
                await self._settle()
                self._start_due(group)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause_s()):
                        await self._wake.wait()

    def _committed(self, records: list[Record]) -> None:
        for record in records:
            if not record.kind.startswith("alarm."):
                continue
            if record.kind == "alarm.closed":
                self._close(record.body["alarm"])
            for who in record.body.get("notify", ()):
                self._rows.setdefault(who["key"], _row_of(record, who))
            self._wake.set()
        self._count()

    def _close(self, closed: Mapping[str, Any]) -> None:
        for row in self._rows.values():
            alarm = row.data["alarm"]
            if alarm["id"] == closed["id"] and alarm["occurrence"] <= closed["occurrence"]:
                row.over = True

    async def _load(self) -> None:
        for row in await self._journal.query(_open_rows):
            self._rows.setdefault(row.key, row)
        for alarm in (await self._journal.query(stored_alarms)).values():
            normal = alarm["state"] == "NORM"
            self._close(alarm if normal else {**alarm, "occurrence": alarm["occurrence"] - 1})
        self._count()

    def _count(self) -> None:
        self._health.pending = len(self._rows)
        self._health.failing = sum(row.failing for row in self._rows.values())

    async def _settle(self) -> None:
        """Record which rows ended without a delivery, and which are past their deadline."""
        now_s = mono_s()
        drafts: list[Draft] = []
        for row in list(self._rows.values()):
            ended = self._why_over(row)
            if ended and row.key not in self._sending:
                del self._rows[row.key]
                drafts.append(_draft(row, "delivery.dead", ended))
            elif not row.failing and now_s >= row.late_s:
                row.failing = True
                self._note_lost(row)
                drafts.append(_draft(row, "delivery.failing", row.error or "not accepted in time"))
        if drafts:
            self._count()
            await self._journal.append(drafts)

    def _why_over(self, row: _Row) -> str:
        if row.channel not in self._channels:
            return _NO_CHANNEL
        return "the alarm was closed before" if row.over else ""

    def _note_lost(self, row: _Row) -> None:
        lane = self._lane(row)
        if not lane.lost:
            lane.lost = True
            alarm, error = row.data["alarm"]["id"], row.error or "no answer yet"
            _log.error("%s: %s was not told of alarm %s: %s", row.channel, row.person, alarm, error)

    def _lane(self, row: _Row) -> Lane:
        return self._lanes.setdefault((row.channel, row.person), Lane())

    def _start_due(self, group: asyncio.TaskGroup) -> None:
        waiting: dict[tuple[str, str], list[_Row]] = {}
        for row in self._rows.values():
            if row.key not in self._sending:
                waiting.setdefault((row.channel, row.person), []).append(row)
        self._lanes = {name: lane for name, lane in self._lanes.items() if name in waiting or lane.sending}
        now_s = mono_s()
        for rows in waiting.values():
            lane = self._lane(rows[0])
            for row in lane.choose(rows, now_s):
                lane.sending += 1
                self._sending.add(row.key)
                group.create_task(self._deliver(row, lane), name=f"deliver-{row.channel}-{row.person}")

    def _pause_s(self) -> float:
        now_s = mono_s()
        dues_s = [lane.due_s - now_s for lane in self._lanes.values() if lane.failures and not lane.sending]
        lates_s = [row.late_s - now_s for row in self._rows.values() if not row.failing]
        return max(0.05, min([5.0, *dues_s, *lates_s]))

    async def _deliver(self, row: _Row, lane: Lane) -> None:
        try:
            await self._journal.write(lambda c: c.execute(_SENDING, (row.key,)).rowcount)
            row.error = await self._attempt(row)
            row.attempts += 1
            if row.error:
                lane.failed(mono_s())
                await self._journal.write(lambda c: c.execute(_RETRY, (row.error, row.attempts, row.key)).rowcount)
                return
            if lane.lost:
                _log.warning("%s: %s is reached again", row.channel, row.person)
            lane.failures, lane.lost = 0, False
            del self._rows[row.key]
            self._count()
            await self._journal.append([_draft(row, "delivery.accepted", "")])
        finally:
            lane.sending -= 1
            self._sending.discard(row.key)
            self._wake.set()

    async def _attempt(self, row: _Row) -> str:
        """Why the receiver did not accept it, "" when it did. A channel that raises has failed this row alone."""
        channel = self._channels.get(row.channel)
        if channel is None:
            return _NO_CHANNEL
        try:
            async with asyncio.timeout(_SEND_LIMIT_S):
                return await channel.send(self._message(_facts(row)))
        except Exception as error:
            if not row.attempts:
                _log.exception("%s: defect", row.channel)
            return f"{type(error).__name__}: {error}"[:_ERROR_LIMIT]


def _urgency(row: _Row) -> tuple[int, int]:
    return row.priority, row.seq


def _draft(row: _Row, kind: str, error: str) -> Draft:
    alarm = row.data["alarm"]
    body = {
        "key": row.key,
        "person": row.person,
        "role": row.role,
        "channel": row.channel,
        "alarm": alarm["id"],
        "occurrence": alarm["occurrence"],
        "attempts": row.attempts,
        "error": error,
    }
    return Draft(kind=kind, at=now(), actor="gateway", body=body)


_SENDING = "UPDATE outbox SET state = 'SENDING', attempts = attempts + 1 WHERE key = ?"
_RETRY = "UPDATE outbox SET state = 'RETRY', error = ?, attempts = ? WHERE key = ?"


def _mark_interrupted(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE outbox SET state = 'RETRY', resent = 1 WHERE state = 'SENDING'")


def _open_rows(connection: sqlite3.Connection) -> list[_Row]:
    sql = (
        "SELECT key, seq, priority, person, role, channel, attempts, resent, failing, created, data, error FROM outbox"
        " WHERE state IN ('PENDING', 'SENDING', 'RETRY') ORDER BY seq"
    )
    rows = connection.execute(sql)
    return [
        _Row(
            key=key,
            seq=seq,
            priority=priority,
            person=person,
            role=role,
            channel=channel,
            attempts=attempts,
            resent=bool(resent),
            failing=bool(failing),
            late_s=_late_s(utc_from_text(created)),
            data=json.loads(data),
            error=error,
        )
        for key, seq, priority, person, role, channel, attempts, resent, failing, created, data, error in rows
    ]


def _late_s(created_ms: int) -> float:
    """When the deadline of a stored row is over: by the wall clock, but never longer than the deadline from now."""
    age_s = (now().utc_ms - created_ms) / 1000
    return mono_s() + DELIVERY_DEADLINE_S - min(max(age_s, 0.0), DELIVERY_DEADLINE_S)


def _row_of(record: Record, who: Mapping[str, str]) -> _Row:
    return _Row(
        key=who["key"],
        seq=record.seq,
        priority=record.body["alarm"]["priority"],
        person=who["person"],
        role=who["role"],
        channel=who["channel"],
        attempts=0,
        resent=False,
        failing=False,
        late_s=mono_s() + DELIVERY_DEADLINE_S,
        data={"kind": record.kind, "alarm": record.body["alarm"]},
    )


def _facts(row: _Row) -> dict[str, Any]:
    return {
        "key": row.key,
        "seq": row.seq,
        "person": row.person,
        "role": row.role,
        "resent": row.resent,
        "kind": row.data["kind"],
        "alarm": row.data["alarm"],
    }
