"""The edge's side of sync: sends what the cloud does not have yet, for ever, and never twice to any effect.

The journal goes first, on its own connection; history waits while the journal is being sent. One batch per stream is
in flight. After any error the cursor is forgotten and the cloud is asked where it is. Nothing is deleted here that the
cloud has not called durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import logging
import secrets
import sqlite3
import ssl
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential
from yarl import URL

from ..errors import ConfigError, PermanentError, RefusedError, TransientError
from ..words import mono_s
from .history import History
from .journal import Journal
from .link_state import UplinkHealth
from .outbox import Batch, HistoryOutbox, JournalOutbox, Outbox
from .sqlite import StoreError
from .streams import JOURNAL, stream_genesis
from .turns import Quiet, Rank, Turns
from .wire import (
    CONTENT_TYPE,
    PIECE_TYPE,
    Cursor,
    Message,
    SyncReply,
    batch_path,
    bytes_text,
    content_digest,
    head_answer,
    sign,
    sync_path,
)

log = logging.getLogger(__name__)

MAX_REPLY_BYTES = 256 * 1024
_MAX_RETRY_AFTER_S = 300.0


class LinkError(TransientError):
    """The cloud could not be reached or did not accept.

    Args:
        reason: a word that stays the same while the cause does: logs speak when it changes.
        retry_s: not before this many seconds, if the cloud said so.
    """

    def __init__(self, reason: str, message: str, *, hint: str = "", retry_s: float = 0.0) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.retry_s = retry_s


@dataclass(frozen=True, slots=True, kw_only=True)
class UplinkOptions:
    """Where to and how.

    Attributes:
        url: `https://host[:port][/prefix]`; plain http only to the own machine.
        gateway: id that the cloud knows this gateway by.
        ca_file: the only certificate authority that is trusted, instead of the system's.
        timeout_s: of one request, from connecting to the end of the reply.
        contact_s: an idle link asks this often, so that the cloud knows that the gateway is there.
        backoff_max_s: longest pause between tries; they grow from under a second, at random.

    Raises:
        ConfigError: from `check`.
    """

    url: str
    gateway: str
    ca_file: str | None = None
    timeout_s: float = 60
    contact_s: float = 15
    backoff_max_s: float = 60

    def check(self) -> None:
        """Raises ConfigError when secrets would travel in the clear, or the address is none."""
        parts = urlsplit(self.url)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.query
            or parts.fragment
            or parts.username
        ):
            raise ConfigError("uplink", [f"uplink.url: must be https://host[:port] (got {self.url!r})"])
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            problem = f"uplink.url: must begin with https:// unless the cloud runs on this machine (got {self.url!r})"
            raise ConfigError("uplink", [problem])


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


async def run_uplink(
    journal: Journal,
    history: History | None,
    key: Ed25519PrivateKey,
    options: UplinkOptions,
    health: UplinkHealth,
    also: Sequence[Callable[[Any], Coroutine[Any, Any, Any]]] = (),
) -> NoReturn:
    """Send for ever; returns only by cancellation.

    Args:
        also: further senders, each a task that gets the client.

    Raises:
        ConfigError: the address or the certificate cannot be used.
        StoreError: the journal's or history's own file failed.
    """
    options.check()
    client = _Client(options, key, health)
    outboxes: list[Outbox] = [JournalOutbox(journal), *([HistoryOutbox(history)] if history else [])]
    for outbox in outboxes:
        await outbox.open()
    health.started()
    async with asyncio.TaskGroup() as group:
        for outbox in outboxes:
            group.create_task(_Stream(outbox, client).run(), name=f"uplink {outbox.stream}")
        for sender in also:
            group.create_task(sender(client), name=f"uplink {sender.__qualname__}")
    raise AssertionError("the uplink's tasks never return")


class _Client:
    """Signs requests and reads answers.

    Attributes:
        pace: whose turn it is: bulk waits for the journal.
        turns: who of bulk comes first.
    """

    def __init__(self, options: UplinkOptions, key: Ed25519PrivateKey, health: UplinkHealth) -> None:
        self.options, self.health = options, health
        self.pace, self.turns = Quiet(), Turns()
        self._key = key
        self._base = options.url.rstrip("/")
        self._ssl = _ssl_context(options) if self._base.startswith("https:") else None

    def session(self) -> aiohttp.ClientSession:
        """A connection of its own."""
        connector = aiohttp.TCPConnector(limit=1, ssl=self._ssl or True, keepalive_timeout=2 * self.options.contact_s)
        timeout = aiohttp.ClientTimeout(total=self.options.timeout_s)
        return aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)

    async def where(self, session: aiohttp.ClientSession) -> SyncReply:
        """GET sync."""
        path = sync_path(self.options.gateway)
        return SyncReply.from_json(await self._ask(session, "GET", path, None, ""))

    async def put(self, session: aiohttp.ClientSession, stream: str, epoch: str, batch: Batch) -> Cursor:
        """PUT one batch; the cursor of the stream afterwards."""
        path = batch_path(self.options.gateway, stream, epoch, batch.n)
        return Cursor.from_json(await self._ask(session, "PUT", path, batch.body, bytes_text(batch.chain)))

    async def get(self, session: aiohttp.ClientSession, path: str) -> Any:
        """GET what is not part of a stream. Args: path: with its query."""
        return await self._ask(session, "GET", path, None, "")

    async def post(self, session: aiohttp.ClientSession, path: str, body: bytes, chain: bytes) -> Any:
        """POST what is not part of a stream; the answer. `chain`: value that the signature covers with it."""
        return await self._ask(session, "POST", path, body, bytes_text(chain))

    async def head(self, session: aiohttp.ClientSession, path: str) -> Mapping[str, str]:
        """HEAD; the fields of the answer."""
        return await self._ask(session, "HEAD", path, None, "")

    async def patch(
        self, session: aiohttp.ClientSession, path: str, offset: int, length: int, piece: bytes
    ) -> Mapping[str, Any]:
        """PATCH a piece of something that has `length` bytes; the answer."""
        return await self._ask(session, "PATCH", path, piece, "", (str(offset), str(length)))

    async def fetch(self, session: aiohttp.ClientSession, path: str, start: int, size: int) -> bytes:
        """GET up to `size` bytes from `start`."""
        return await self._ask(session, "GET", path, None, "", fetched=(start, size))

    async def _ask(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        body: bytes | None,
        chain: str,
        upload: tuple[str, str] | None = None,
        fetched: tuple[int, int] | None = None,
    ) -> Any:
        uri = URL(self._base + path)
        target = f"{uri.scheme}://{uri.host_port_subcomponent}{uri.raw_path_qs}"  # as the Host header will say it
        digest = content_digest(body or b"") if body or upload else ""
        message = Message(method=method, target_uri=target, digest=digest, chain=chain, upload=upload)
        created_s = int(time.time() + self.health.clock_offset_s)
        headers = sign(message, self._key, created_s=created_s, nonce=secrets.token_hex(16))
        if body:
            headers["Content-Type"] = CONTENT_TYPE if upload is None else PIECE_TYPE
        if fetched is not None:
            headers["Range"] = f"bytes={fetched[0]}-{sum(fetched) - 1}"
        try:
            async with session.request(method, uri, data=body, headers=headers, allow_redirects=False) as reply:
                if fetched is not None and reply.status == 206:
                    return await _read_most(reply, fetched[1])
                return self._judge(reply, await _read(reply) if method != "HEAD" else head_answer(reply.headers))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            text = str(error) or type(error).__name__
            hint = "check network, address and certificate"
            raise LinkError("unreachable", f"cannot reach {self._base}: {text}", hint=hint) from error

    def _judge(self, reply: aiohttp.ClientResponse, data: Any) -> Any:
        if reply.status == 200:
            return data
        error = data.get("error", {}) if isinstance(data, dict) else {}
        reason = str(error.get("reason", "")) if isinstance(error, dict) else ""
        if reason == "clock" and type(data.get("time_ms")) is int:
            self.health.clock_offset_s = round(data["time_ms"] / 1000 - time.time(), 3)
        hint = str(error.get("hint", "")) if isinstance(error, dict) else ""
        what = error.get("message", reply.reason) if isinstance(error, dict) else reply.reason
        retry_s = _retry_after(reply.headers.get("Retry-After", ""))
        word = reason or str(reply.status)
        raise LinkError(word, f"the cloud answered {reply.status} {reason}: {what}", hint=hint, retry_s=retry_s)


def _ssl_context(options: UplinkOptions) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=options.ca_file)
    except (OSError, ssl.SSLError) as error:
        problem = f"uplink.ca_file: must be a readable PEM certificate: {error} (got {options.ca_file!r})"
        raise ConfigError("uplink", [problem]) from error


async def _read(reply: aiohttp.ClientResponse) -> Any:
    """A bounded JSON answer; anything else is None and judged by its status."""
    try:
        return json.loads(await _read_most(reply, MAX_REPLY_BYTES))
    except ValueError:
        return None


async def _read_most(reply: aiohttp.ClientResponse, most: int) -> bytes:
    raw = b""
    while len(raw) <= most and (chunk := await reply.content.read(most)):
        raw += chunk
    return raw[:most]


def _retry_after(text: str) -> float:
    return min(float(text), _MAX_RETRY_AFTER_S) if text.isdecimal() and len(text) < 9 else 0.0


def _reason(error: Exception) -> str:
    return error.reason if isinstance(error, RefusedError) else type(error).__name__


class _Stream:
    """One stream's endless drain.

    The journal goes at once; other streams wait until it has nothing on its way.
    """

    def __init__(self, outbox: Outbox, client: _Client) -> None:
        self._outbox, self._client, self._pace = outbox, client, client.pace
        self._health = client.health
        self._first = outbox.stream == JOURNAL
        self._wake = asyncio.Event()
        self._random = wait_random_exponential(multiplier=1, max=client.options.backoff_max_s)
        outbox.subscribe(self._notice)
        self._show_waiting()

    async def run(self) -> NoReturn:
        """First retry within a second; pauses grow to `backoff_max_s` and are random in full (no thundering herd)."""
        async for attempt in AsyncRetrying(wait=self._pause, retry=retry_if_exception_type(LinkError)):
            with attempt:
                await self._attempt(attempt.retry_state)
        raise AssertionError("retries never end")

    def _pause(self, state: RetryCallState) -> float:
        self._health.beat_s = mono_s()
        error = state.outcome.exception() if state.outcome else None
        return max(self._random(state), error.retry_s if isinstance(error, LinkError) else 0.0)

    async def _attempt(self, state: RetryCallState) -> NoReturn:
        """Everything but a store that cannot commit is a fault of the link or of one stream, and is tried again."""
        try:
            async with self._client.session() as session:
                await self._drain(session, state)
        except StoreError:
            raise
        except (TransientError, PermanentError, sqlite3.DatabaseError) as error:
            link = error if isinstance(error, LinkError) else LinkError(_reason(error), str(error))
            self._health.failed(self._outbox.stream, link.reason, str(error))
            raise link from error
        finally:
            self._rest()

    async def _drain(self, session: aiohttp.ClientSession, state: RetryCallState) -> NoReturn:
        cursor = await self._where(session)
        while True:
            self._wake.clear()
            self._health.beat_s = mono_s()
            if (batch := await self._outbox.batch(cursor.ack + 1)) is not None:
                cursor = await self._send(session, batch)
            elif not await self._woken():
                cursor = await self._where(session)
            state.attempt_number = 1

    async def _where(self, session: aiohttp.ClientSession) -> Cursor:
        outbox = self._outbox
        reply = await self._client.where(session)
        genesis = stream_genesis(self._client.options.gateway, outbox.stream, outbox.epoch)
        cursor = reply.cursor(outbox.stream, outbox.epoch, genesis)
        if not await outbox.agrees(cursor.ack, cursor.chain):
            hint = "this gateway's data was restored or cloned: it needs a new epoch"
            raise RefusedError("fork", f"fork: the cloud's batch {cursor.ack} is not the one made here", hint=hint)
        await self._acked(cursor)
        return cursor

    async def _send(self, session: aiohttp.ClientSession, batch: Batch) -> Cursor:
        if self._first:
            self._pace.first()
        else:
            self._client.turns.begin(Rank.HISTORY)
            await self._client.turns.turn(Rank.HISTORY)
            await self._pace.turn(len(batch.body))
        cursor = await self._client.put(session, self._outbox.stream, self._outbox.epoch, batch)
        if cursor.ack < batch.n or (cursor.ack == batch.n and cursor.chain != batch.chain):
            raise LinkError("odd_answer", f"the cloud's answer to batch {batch.n} does not fit: it names {cursor.ack}")
        await self._acked(cursor)
        return cursor

    async def _acked(self, cursor: Cursor) -> None:
        await self._outbox.acked(cursor.ack, cursor.durable)
        self._health.succeeded(self._outbox.stream)
        self._show_waiting()

    async def _woken(self) -> bool:
        """True when there is more; False when it is time to show that the gateway is there."""
        self._rest()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._client.options.contact_s):  # wait_for can lose a cancellation (gh-86296)
                return await self._wake.wait()
        return False

    def _rest(self) -> None:
        """Nothing to send, or no link: others need not wait."""
        if self._first:
            self._pace.rest()
        else:
            self._client.turns.end(Rank.HISTORY)

    def _notice(self) -> None:
        self._wake.set()
        self._show_waiting()

    def _show_waiting(self) -> None:
        if self._first:
            self._health.backlog_records = self._outbox.waiting()
        else:
            self._health.backlog_segments = self._outbox.waiting()
