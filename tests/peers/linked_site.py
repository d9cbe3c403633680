"""Both ends of the link in one process: a cloud on a real socket, and a journal with a history that send to it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.cloud.app import run_cloud
from sitewarden.cloud.config import CloudConfig, CloudTable, GatewayTable
from sitewarden.sync.cloud_client import UplinkOptions
from sitewarden.sync.history import History
from sitewarden.sync.journal import Draft, Journal
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.link_state import UplinkHealth
from sitewarden.sync.uplink import run_uplink
from sitewarden.words import Quality, Reading, now

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
BOUND_S = 60.0


@contextlib.asynccontextmanager
async def running(coroutine: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A task for the length of the block; when it fails, so does the block."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(coroutine)
        yield task
        task.cancel()


@contextlib.asynccontextmanager
async def cloud(data: Path, port: int = 0, *, token: str = "", **table: Any) -> AsyncIterator[int]:
    """The service on a real socket; gives its port."""
    gateway = GatewayTable(id="gw1", name="一厂", name_en="Plant 1", public_key=public_key_text(KEY))
    config = CloudConfig(
        cloud=CloudTable(name="总部", name_en="HQ", port=port, **table), gateway=(gateway,), metrics_token=token
    )
    up: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    async with running(run_cloud(config, data, ready=up.set_result)) as task:
        await asyncio.wait([task, up], return_when=asyncio.FIRST_COMPLETED, timeout=BOUND_S)
        yield up.result()


@dataclass
class Site:
    """One gateway's stores."""

    journal: Journal
    history: History
    health: UplinkHealth = field(default_factory=UplinkHealth)

    async def say(self, count: int = 1, **body: Any) -> None:
        """Append records."""
        drafts = [Draft(kind="test.said", at=now(), actor="gateway", body=body | {"i": i}) for i in range(count)]
        await self.journal.append(drafts)

    async def measure(self, segments: int = 1, readings: Sequence[float] = tuple(range(20))) -> None:
        """Seal segments."""
        for _ in range(segments):
            at = now()
            self.history.add(
                [
                    Reading(point=f"a.b.p{i}", value=value / 10, quality=Quality.GOOD, at=at)
                    for i, value in enumerate(readings)
                ]
            )
            await self.history.flush(seal=True)

    def linked(self, url: str, **options: Any) -> contextlib.AbstractAsyncContextManager[asyncio.Task[Any]]:
        """Sending, for the length of the block."""
        given = {"backoff_max_s": 0.2, "contact_s": 0.2, "timeout_s": 5.0, **options}
        chosen = UplinkOptions(url=url, gateway="gw1", **given)
        return running(run_uplink(self.journal, self.history, KEY, chosen, self.health))

    def all_sent(self) -> bool:
        """Whether the cloud has everything."""
        return self.health.state == "up" and not (self.health.backlog_records or self.health.backlog_segments)


@contextlib.asynccontextmanager
async def site(folder: Path) -> AsyncIterator[Site]:
    """A gateway's stores in `folder`."""
    folder.mkdir(exist_ok=True)
    async with Journal(folder / "journal.db", "gw1") as journal, History(folder / "history.db", "gw1") as history:
        yield Site(journal, history)
