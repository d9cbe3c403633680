"""The outbox: what must be delivered, born in the transaction of its record, tried until it is accepted.

Rows go PENDING -> SENDING -> ACCEPTED, or back to RETRY. A row that was SENDING when the process died is sent
again with the same key and marked as resent: at least once, at most one duplicate per crash and row.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from ...sync.journal import Draft, Journal, Record, StateTable
from ...words import mono_s, now, utc_from_text

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
_AT_ONCE = 8


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
    created_ms: int
    data: dict[str, Any]
    due_s: float = 0.0


class Outbox:
    """Delivers every open row on its channel, each on its own schedule.

    Args:
        journal: holds the rows.
        channels: by id.
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
                self._start_due(group)
                try:
                    await asyncio.wait_for(self._wake.wait(), self._pause_s())
                except TimeoutError:
                    continue

    def _committed(self, records: list[Record]) -> None:
        for record in records:
            if record.kind.startswith("alarm."):
                for who in record.body.get("notify", ()):
                    self._rows.setdefault(who["key"], _row_of(record, who))
                    self._wake.set()
        self._count()

    async def _load(self) -> None:
        rows = await self._journal.query(_open_rows)
        for row in rows:
            self._rows.setdefault(row.key, row)
        self._count()

    def _count(self) -> None:
        self._health.pending = len(self._rows)
        self._health.failing = sum(row.failing for row in self._rows.values())

    def _start_due(self, group: asyncio.TaskGroup) -> None:
        now_s = mono_s()
        due = [row for row in self._rows.values() if row.due_s <= now_s and row.key not in self._sending]
        due.sort(key=lambda row: (row.priority, row.seq))
        for row in due[: _AT_ONCE - len(self._sending)]:
            self._sending.add(row.key)
            group.create_task(self._deliver(row), name=f"deliver-{row.channel}-{row.person}")

    def _pause_s(self) -> float:
        waiting = [row.due_s for row in self._rows.values() if row.key not in self._sending]
        return max(0.05, min([5.0, *(due_s - mono_s() for due_s in waiting)])) if waiting else 5.0

    async def _deliver(self, row: _Row) -> None:
        try:
            channel = self._channels.get(row.channel)
            if channel is None:
                await self._end(row, "delivery.dead", "the channel is no longer in site.toml")
                return
            await self._journal.write(lambda c: c.execute(_SENDING, (row.key,)).rowcount)
            error = await channel.send(self._message(_facts(row)))
            row.attempts += 1
            if error:
                await self._retry(row, error)
            else:
                await self._end(row, "delivery.accepted", "")
        finally:
            self._sending.discard(row.key)
            self._wake.set()

    async def _retry(self, row: _Row, error: str) -> None:
        row.due_s = mono_s() + random.uniform(0.5, 1.0) * min(RETRY_CAP_S, RETRY_BASE_S * 2 ** min(row.attempts, 10))  # noqa: S311
        await self._journal.write(lambda c: c.execute(_RETRY, (error, row.attempts, row.key)).rowcount)
        late = now().utc_ms - row.created_ms >= DELIVERY_DEADLINE_S * 1000
        if late and not row.failing:
            row.failing = True
            _log.error("%s: %s was not told of alarm %s: %s", row.channel, row.person, row.data["alarm"]["id"], error)
            await self._record(row, "delivery.failing", error)
            self._count()

    async def _end(self, row: _Row, kind: str, error: str) -> None:
        if row.failing and kind == "delivery.accepted":
            _log.warning("%s: %s is reached again", row.channel, row.person)
        await self._record(row, kind, error)
        self._rows.pop(row.key, None)
        self._count()

    async def _record(self, row: _Row, kind: str, error: str) -> None:
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
        await self._journal.append([Draft(kind=kind, at=now(), actor="gateway", body=body)])


@asynccontextmanager
async def opened(channels: Mapping[str, Any]) -> AsyncIterator[dict[str, Channel]]:
    """Enter every channel, leave them all at the end."""
    async with AsyncExitStack() as stack:
        yield {name: await stack.enter_async_context(channel) for name, channel in channels.items()}


_SENDING = "UPDATE outbox SET state = 'SENDING', attempts = attempts + 1 WHERE key = ?"
_RETRY = "UPDATE outbox SET state = 'RETRY', error = ?, attempts = ? WHERE key = ?"


def _mark_interrupted(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE outbox SET state = 'RETRY', resent = 1 WHERE state = 'SENDING'")


def _open_rows(connection: sqlite3.Connection) -> list[_Row]:
    sql = (
        "SELECT key, seq, priority, person, role, channel, attempts, resent, failing, created, data FROM outbox"
        " WHERE state IN ('PENDING', 'SENDING', 'RETRY') ORDER BY seq"
    )
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
            created_ms=utc_from_text(created),
            data=json.loads(data),
        )
        for key, seq, priority, person, role, channel, attempts, resent, failing, created, data in connection.execute(
            sql
        )
    ]


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
        created_ms=utc_from_text(record.at["utc"]),
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
