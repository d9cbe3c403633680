"""Gateways without a gateway: signed batches made beforehand, and a client that costs little beside the service."""

from __future__ import annotations

import asyncio
import json
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.sync.columns import compress, pack
from sitewarden.sync.journal import canonical, genesis_chain, next_chain
from sitewarden.sync.keys import public_key_text
from sitewarden.sync.streams import HISTORY, JOURNAL, batch_chain, stream_genesis
from sitewarden.sync.wire import JournalPayload, Message, batch_path, bytes_text, content_digest, sign
from sitewarden.words import ClockState, Instant, Quality, Reading
from yarl import URL

EPOCH = "be" * 8
AT_MS = 1_795_000_000_000


def segment(readings: int, points: int, seed: int = 1) -> bytes:
    """A payload of `readings` that `points` points gave, once a second, with one digit after the point and noise."""
    dice = random.Random(seed)
    values = [20 + 5 * dice.random() for _ in range(points)]
    found: list[Reading] = []
    for second in range(readings // points):
        at_ms = AT_MS + 1000 * second + dice.randrange(5)
        at = Instant(utc_ms=at_ms, mono_s=float(second), boot="b", clock=ClockState.SYNCED)
        for index in range(points):
            values[index] += dice.gauss(0, 0.05)
            name, value = f"area.device{index // 10}.point{index}", round(values[index], 1)
            found.append(Reading(point=name, value=value, quality=Quality.GOOD, at=at))
    return pack(found)


@dataclass
class Gateway:
    """One gateway: its key, and requests ready to be sent."""

    id: str
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    requests: list[bytes] = field(default_factory=list)
    unsigned: list[tuple[str, bytes, bytes]] = field(default_factory=list)

    def clear(self) -> None:
        """Forget what was made."""
        self.requests.clear()
        self.unsigned.clear()

    def table(self) -> str:
        """Its part of cloud.toml."""
        lines = (f'id = "{self.id}"', 'name = "x"', 'name_en = "x"', f'public_key = "{public_key_text(self.key)}"')
        return "\n".join(("[[gateway]]", *lines, ""))

    def history(self, port: int, payload: bytes, count: int, epoch: str = EPOCH) -> None:
        """Make `count` batches with this content. Signatures hold for five minutes."""
        chain, body = stream_genesis(self.id, HISTORY, epoch), compress(payload)
        for n in range(1, count + 1):
            chain = batch_chain(chain, n, payload)
            self.requests.append(self._put(port, batch_path(self.id, HISTORY, epoch, n), body, chain))

    def journal(self, port: int, count: int, epoch: str = EPOCH, alarm: str = "store.th1.humidity.high") -> None:
        """Make `count` batches of one record each: an alarm that comes and goes."""
        chain, before = stream_genesis(self.id, JOURNAL, epoch), genesis_chain(self.id, epoch)
        at = {"utc_ms": AT_MS, "mono_s": 1.0, "boot": "b", "clock": "synced"}
        for n in range(1, count + 1):
            state = "UNACK" if n % 2 else "NORM"
            body = {"alarm": {"id": alarm, "state": state, "value": 81.5, "priority": 2, "name": "湿度高"}}
            record = {"at": at, "actor": "gateway", "blobs": [], "body": body, "epoch": epoch}
            data = canonical(record | {"kind": "alarm.raised", "seq": n})
            after = next_chain(before, data)
            packed = JournalPayload(epoch=epoch, first=n, before=before, records=(data,), after=after).pack()
            before, chain = after, batch_chain(chain, n, packed)
            self.requests.append(self._put(port, batch_path(self.id, JOURNAL, epoch, n), compress(packed), chain))

    def _put(self, port: int, path: str, body: bytes, chain: bytes) -> bytes:
        self.unsigned.append((path, body, chain))
        host = f"127.0.0.1:{port}"
        message = Message(
            method="PUT", target_uri=f"http://{host}{path}", digest=content_digest(body), chain=bytes_text(chain)
        )
        headers = sign(message, self.key, created_s=int(time.time()), nonce=secrets.token_hex(16))
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"PUT {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body


Heard = Callable[[Gateway, int, bytes, float], None]
"""Gateway, status, head of the answer, seconds from sending to hearing."""


async def send(port: int, gateway: Gateway, heard: Heard, *, patience: int = 0) -> None:
    """All requests of a gateway, one after the other on one connection.

    Args:
        patience: how often a request that was told to come back later is repeated.
    """
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for request in gateway.requests:
            for _ in range(patience + 1):
                begun_s = time.perf_counter()
                writer.write(request)
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                status = int(head[9:12])
                heard(gateway, status, head, time.perf_counter() - begun_s)
                if status not in (429, 503):
                    break
                await asyncio.sleep(float(head.lower().partition(b"retry-after: ")[2].partition(b"\r\n")[0] or 1))
    finally:
        writer.close()


async def as_gateways(port: int, gateways: Sequence[Gateway]) -> tuple[float, list[float]]:
    """`flood` with what the gateways' uplink uses: aiohttp's client, each request signed when it is sent."""
    took: list[float] = []

    async def put(gateway: Gateway) -> None:
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector, auto_decompress=False) as session:
            for path, body, chain in gateway.unsigned:
                begun_s = time.perf_counter()
                uri, digest = URL(f"http://127.0.0.1:{port}{path}"), content_digest(body)
                message = Message(method="PUT", target_uri=str(uri), digest=digest, chain=bytes_text(chain))
                headers = sign(message, gateway.key, created_s=int(time.time()), nonce=secrets.token_hex(16))
                async with session.put(uri, data=body, headers=headers, allow_redirects=False) as reply:
                    answer = json.loads(await reply.read())
                    if reply.status != 200:
                        raise SystemExit(f"{gateway.id}: {answer}")
                took.append(time.perf_counter() - begun_s)

    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for gateway in gateways:
            group.create_task(put(gateway))
    return time.perf_counter() - begun_s, took


async def flood(port: int, gateways: Sequence[Gateway]) -> tuple[float, list[float]]:
    """All gateways at once; wall seconds, and how long each request took. Every answer must be 200."""
    took: list[float] = []

    def heard(gateway: Gateway, status: int, head: bytes, seconds: float) -> None:
        if status != 200:
            raise SystemExit(f"{gateway.id}: {head.decode()}")
        took.append(seconds)

    begun_s = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for gateway in gateways:
            group.create_task(send(port, gateway, heard))
    return time.perf_counter() - begun_s, took
