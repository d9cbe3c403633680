"""A gateway's stores with their uplink, and headquarters on a real socket, for what may happen between them."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.sync.cloud_client import UplinkOptions
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.legs import legs_of
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.uplink import run_uplink
from sitewarden.words import ClockState, Instant, Quality, Reading, now

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BOUND_S = 60
_OLD_MS = 1_600_000_000_000  # older than any retention


@contextlib.asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task for the length of the block; when it fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine)
        yield task
        task.cancel()


def cloud_config(port: int = 0, **cloud: Any) -> CloudConfig:
    """Headquarters that knows gateway gw1."""
    gateway = GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(KEY))
    table = CloudTable(name="总部", name_en="HQ", port=port, **{"durable": "committed", **cloud})
    return CloudConfig(cloud=table, gateway=(gateway,))


@contextlib.asynccontextmanager
async def headquarters(data: Path, **table: Any) -> AsyncIterator[int]:
    """The service; gives its port."""
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with running(run_cloud(cloud_config(**table), data, ready=up.set_result)) as task:
        await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED, timeout=BOUND_S)
        yield up.result()


@dataclass
class Site:
    """A gateway's stores."""

    journal: Journal
    history: History
    health: UplinkHealth = field(default_factory=UplinkHealth)

    async def say(self, count: int = 1, kind: str = "test.said", **body: Any) -> None:
        """Commit records."""
        drafts = [Draft(kind=kind, at=now(), actor="gateway", body=body | {"i": i}) for i in range(count)]
        await self.journal.append(drafts)

    async def alarm(self, name: str, state: str) -> None:
        """Commit a record of an alarm."""
        await self.say(1, "alarm.raised" if state != "NORM" else "alarm.closed", alarm={"id": name, "state": state})

    async def measure(self, segments: int = 1) -> None:
        """Seal segments of readings that are older than any retention."""
        for _ in range(segments):
            n = self.history.sealed_head()
            at = Instant(utc_ms=_OLD_MS + n, mono_s=float(n), boot="b", clock=ClockState.SYNCED)
            self.history.add([Reading(point=f"a.b.p{i}", value=n + i, quality=Quality.GOOD, at=at) for i in range(20)])
            await self.history.flush(seal=True)

    def linked(self, port: int, **options: Any) -> contextlib.AbstractAsyncContextManager[asyncio.Task[Any]]:
        """Its uplink, for the length of the block."""
        url = f"http://127.0.0.1:{port}"
        chosen = UplinkOptions(url=url, gateway="gw1", backoff_max_s=0.05, contact_s=0.2, timeout_s=5)
        return running(run_uplink(self.journal, self.history, KEY, replace(chosen, **options), self.health))

    def all_sent(self) -> bool:
        """The link says that nothing waits."""
        waits = self.health.backlog_records or self.health.backlog_segments
        return self.health.state == "up" and not (waits or self.health.errors)

    async def sync(self, port: int) -> None:
        """Until all is sent: the link has asked anew since, and still nothing waits."""
        async with self.linked(port):
            for _ in range(2):
                self.health.last_ok = None
                await until(lambda: self.health.last_ok is not None and self.all_sent(), "all sent")


@contextlib.asynccontextmanager
async def site(folder: Path, identity: Mapping[str, str] | None = None, **history: Any) -> AsyncIterator[Site]:
    """Stores in a folder. Args: identity: where they lie; None: nobody looks."""
    folder.mkdir(exist_ok=True)
    where = None if identity is None else (lambda _path, _gateway: identity)
    async with (
        Journal(folder / "journal.db", "gw1", where=where) as journal,
        History(folder / "history.db", "gw1", where=where, **history) as kept,
    ):
        yield Site(journal, kept)


async def until(condition: Callable[[], Any], what: str = "") -> None:
    """Wait for it, with a bound."""
    try:
        async with asyncio.timeout(BOUND_S):
            while not condition():
                await asyncio.sleep(0.01)
    except TimeoutError:
        pytest.fail(f"never happened: {what or condition}")


def rows(data: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """Of headquarters' database."""
    with contextlib.closing(sqlite3.connect(data / "cloud.db")) as connection:
        return connection.execute(sql, values).fetchall()


async def assert_all_there(at: Site, data: Path, gaps: int = 0) -> None:
    """Every record and segment of a gateway is at headquarters once, byte for byte, under the name that it went by."""
    expected = 1
    for leg in await at.journal.query(legs_of):
        assert leg.first == expected, "each record travels, once"
        last = leg.last if leg.last is not None else at.journal.head()[0]
        here = await at.journal.raw(leg.first - 1, last - leg.first + 1) if last >= leg.first else []
        sql = "SELECT seq, data, chain FROM record WHERE epoch = ? AND seq >= ? AND seq <= ? ORDER BY seq"
        assert rows(data, sql, leg.epoch, leg.first, last) == here, leg
        expected = last + 1
    assert expected == at.journal.head()[0] + 1
    missing = 0
    for span in await at.history.spans():
        last = span.last if span.last is not None else at.history.sealed_head()
        kept = [s for s in await at.history.sealed_after(span.first - 1, 100_000) if s.n <= last]
        here = {s.n - span.first + 1: (s.chain, s.body) for s in kept}
        sql = "SELECT n, chain, body FROM batch WHERE stream = 'history' AND epoch = ? AND n <= ? AND body IS NOT NULL"
        there = {n: (chain, body) for n, chain, body in rows(data, sql, span.epoch, last - span.first + 1)}
        assert here.items() <= there.items(), span
        sql = "SELECT first_n, last_n FROM declared_gap WHERE stream = 'history' AND epoch = ?"
        absent = {n for first, end in rows(data, sql, span.epoch) for n in range(first, end + 1)}
        assert there.keys() | absent == set(range(1, last - span.first + 2)), span
        missing += len(absent)
    assert missing == gaps
    assert rows(data, "SELECT * FROM quarantine") == []
