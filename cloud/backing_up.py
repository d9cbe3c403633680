"""`sitewarden cloud backup`: copy, then tell the service, or where none runs write it down."""

from __future__ import annotations

import asyncio
from pathlib import Path

import aiohttp

from ..errors import PermanentError
from .app import SOCKET, database_of
from .backups import PATH, Backups, Copied, copy, is_same_device
from .config import CloudConfig

_TOLD_S = 300


async def back_up(config: CloudConfig, data: Path, target: Path, *, same_disk: bool = False) -> tuple[Copied, int]:
    """What was copied, and how many streams are durable further than before.

    Args:
        same_disk: call it durable although the copy lies on the same file system.

    Raises:
        PermanentError: nothing was copied, or it was and nothing was called durable: it says which.
    """
    if config.store is not None:
        hint = "back up PostgreSQL with its own means: docs/scale.md"
        raise PermanentError("the database is a PostgreSQL server, not cloud.db", hint=hint)
    if not (data / "cloud.db").is_file():
        raise PermanentError(f"{data / 'cloud.db'} is missing", hint="--data is the folder of the cloud service")
    is_near = is_same_device(data, target)
    blobs = None if config.blobs.url.startswith("s3://") else data / config.blobs.url
    copied = await asyncio.to_thread(copy, data, target, blobs)
    if is_near and not same_disk:
        hint = "name a folder of another disk or machine, or --same-disk"
        raise PermanentError(f"{target} has the copy, but on the same disk: nothing is durable by it", hint=hint)
    return copied, await _tell(config, data, copied)


async def _tell(config: CloudConfig, data: Path, copied: Copied) -> int:
    fields = {"begun_ms": copied.begun_ms, "batches": copied.batches}
    connector = aiohttp.UnixConnector(path=str(data / SOCKET))
    timeout = aiohttp.ClientTimeout(total=_TOLD_S)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            async with session.post(f"http://cloud{PATH}", json=fields) as reply:
                answer = await reply.json()
            if reply.status != 200:
                raise PermanentError(f"the service answered {reply.status}: {answer}", hint="see its log")
            return int(answer["raised"])
    except aiohttp.ClientConnectorError:
        async with database_of(config, data) as database:
            return await Backups(database, counts=config.cloud.durable == "backup").complete(
                copied.begun_ms, copied.batches
            )
