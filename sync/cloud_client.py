"""One gateway's way to talk to its cloud: signed requests, bounded answers, failures that say why."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from yarl import URL

from ..errors import ConfigError
from ..words import mono_s
from .dialing import (
    CONNECT_S,
    PATIENT_CONNECT_S,
    Names,
    open_socket,
    read_json,
    read_most,
    retry_after_s,
    timed,
    trouble,
    trusted,
)
from .link_state import UplinkHealth
from .outbox import Batch
from .pace import Pace
from .retrying import LinkError
from .several import CONTENT_TYPE as SEVERAL_TYPE
from .several import pack_several, several_path
from .streams import JOURNAL
from .turns import Turns
from .wire import (
    CONTENT_TYPE,
    PIECE_TYPE,
    Cursor,
    Message,
    SyncReply,
    batch_path,
    bytes_from_text,
    bytes_text,
    content_digest,
    head_answer,
    sign,
    sync_path,
)


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
        proxy: `http://[user:password@]host:port` that https goes through (CONNECT), "" for none.
        cap: bytes a second that may be used now; None: as many as there are.

    Raises:
        ConfigError: from `check`.
    """

    url: str
    gateway: str
    ca_file: str | None = None
    timeout_s: float = 60
    contact_s: float = 15
    backoff_max_s: float = 60
    proxy: str = field(default="", repr=False)
    cap: Callable[[], float | None] = lambda: None

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


class CloudClient:
    """Signs requests and reads answers.

    Attributes:
        pace: how much may be sent now; senders of bulk ask it before each request.
        turns: who of bulk comes first.
        try_now: ends the pause of who looks for the link.
        back: set when the journal comes through again after a fault; whoever waits for the link clears it first.
    """

    def __init__(self, options: UplinkOptions, key: Ed25519PrivateKey, health: UplinkHealth) -> None:
        self.options, self.health = options, health
        self.pace, self.turns = Pace(options.cap), Turns()
        self.back = asyncio.Event()
        self.try_now: Callable[[], None] = lambda: None
        self._key = key
        self._base = options.url.rstrip("/")
        self._ssl = trusted(options.ca_file) if self._base.startswith("https:") else None
        self._proxy = self.options.proxy or None if self._ssl else None  # plain http is this machine's own
        self._names = Names()
        self._dialed = 0

    def use(self, key: Ed25519PrivateKey) -> None:
        """Sign with `key` from the next request on."""
        self._key = key

    def session(self) -> aiohttp.ClientSession:
        """A connection of its own."""
        self._dialed += 1
        connector = aiohttp.TCPConnector(
            limit=1,
            ssl=self._ssl or True,
            keepalive_timeout=2 * self.options.contact_s,
            socket_factory=lambda address: open_socket(address, self.pace.rate.trip_s),
            resolver=self._names,
            use_dns_cache=False,
        )
        connect_s = PATIENT_CONNECT_S if self._dialed % 8 == 0 else CONNECT_S
        timeout = aiohttp.ClientTimeout(total=self.options.timeout_s, sock_connect=connect_s)
        return aiohttp.ClientSession(
            connector=connector, timeout=timeout, auto_decompress=False, trace_configs=[timed()]
        )

    async def where(self, session: aiohttp.ClientSession) -> SyncReply:
        """GET sync."""
        answer = await self._ask(session, _Ask(method="GET", path=sync_path(self.options.gateway)))
        return SyncReply.from_json(answer)

    async def chain_at(self, session: aiohttp.ClientSession, stream: str, epoch: str, n: int) -> bytes | None:
        """GET the chain value of a batch; None when the cloud has no such batch."""
        path = f"{batch_path(self.options.gateway, stream, epoch, n)}/chain"
        answer = await self._ask(session, _Ask(method="GET", path=path))
        return bytes_from_text(answer["chain"]) if answer["chain"] else None

    async def put(self, session: aiohttp.ClientSession, stream: str, epoch: str, batches: Sequence[Batch]) -> Cursor:
        """PUT one batch, or several consecutive ones, when it is their turn; the cursor of the stream afterwards."""
        gateway, first, last = self.options.gateway, batches[0], batches[-1]
        if first is last:
            path, data, kind = batch_path(gateway, stream, epoch, first.n), first.body, CONTENT_TYPE
        else:
            path = several_path(gateway, stream, epoch, first.n, last.n)
            data, kind = pack_several([(batch.chain, batch.body) for batch in batches]), SEVERAL_TYPE
        bulk = stream != JOURNAL
        asked = _Ask(method="PUT", path=path, body=data, chain=bytes_text(last.chain), kind=kind, bulk=bulk)
        answer = await self._ask(session, asked)
        cursor = Cursor.from_json(answer)
        if bulk:
            self.pace.told(answer.get("credit_bytes"), answer.get("retry_ms"))
        return cursor

    async def get(self, session: aiohttp.ClientSession, path: str) -> Any:
        """GET what is not part of a stream. Args: path: with its query."""
        return await self._ask(session, _Ask(method="GET", path=path))

    async def post(self, session: aiohttp.ClientSession, path: str, body: bytes, chain: bytes) -> Any:
        """POST what is small and of no stream; bulk waits for it. `chain`: value that the signature covers with it."""
        with self.pace.urgent():
            return await self._ask(session, _Ask(method="POST", path=path, body=body, chain=bytes_text(chain)))

    async def head(self, session: aiohttp.ClientSession, path: str) -> Mapping[str, str]:
        """HEAD; the fields of the answer."""
        return await self._ask(session, _Ask(method="HEAD", path=path))

    async def patch(
        self, session: aiohttp.ClientSession, path: str, offset: int, length: int, piece: bytes
    ) -> Mapping[str, Any]:
        """PATCH a piece of something that has `length` bytes; the answer."""
        upload = str(offset), str(length)
        asked = _Ask(method="PATCH", path=path, body=piece, upload=upload, kind=PIECE_TYPE, bulk=True)
        return await self._ask(session, asked)

    async def fetch(self, session: aiohttp.ClientSession, path: str, start: int, size: int) -> bytes:
        """GET up to `size` bytes from `start`."""
        return await self._ask(session, _Ask(method="GET", path=path, fetched=(start, size)))

    async def _ask(self, session: aiohttp.ClientSession, asked: _Ask) -> Any:
        uri = URL(self._base + asked.path)
        body = self.pace.body(asked.body, asked.kind) if asked.body and asked.bulk else None
        clock = [mono_s()]
        try:
            async with session.request(
                asked.method,
                uri,
                data=body or asked.body or None,
                headers=self._headers(uri, asked),
                allow_redirects=False,
                proxy=self._proxy,
                trace_request_ctx=clock,
            ) as reply:
                answer = await self._answer(reply, asked, clock[0])
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            found = trouble(error, self._base)
            raise LinkError(found.reason, found.text, hint=found.hint, near=found.near) from error
        if asked.is_measured:
            self.pace.took(len(asked.body), mono_s() - clock[0] - (body.held_s if body else 0.0))
        return answer

    def _headers(self, uri: URL, asked: _Ask) -> dict[str, str]:
        target = f"{uri.scheme}://{uri.host_port_subcomponent}{uri.raw_path_qs}"  # as the Host header will say it
        digest = content_digest(asked.body) if asked.body or asked.upload else ""
        message = Message(method=asked.method, target_uri=target, digest=digest, chain=asked.chain, upload=asked.upload)
        created_s = int(time.time() + self.health.clock_offset_s)
        headers = sign(message, self._key, created_s=created_s, nonce=secrets.token_hex(16))
        if asked.body:
            headers["Content-Type"] = asked.kind
        if asked.fetched is not None:
            headers["Range"] = f"bytes={asked.fetched[0]}-{sum(asked.fetched) - 1}"
        return headers

    async def _answer(self, reply: aiohttp.ClientResponse, asked: _Ask, asked_s: float) -> Any:
        if asked.fetched is not None and reply.status == 206:
            return await read_most(reply, asked.fetched[1])
        if asked.method == "HEAD":
            return self._judge(reply, head_answer(reply.headers))
        data = await read_json(reply)
        if isinstance(data, dict) and type(data.get("time_ms")) is int:
            self.health.told_time(data["time_ms"], asked_s)
        return self._judge(reply, data)

    def _judge(self, reply: aiohttp.ClientResponse, data: Any) -> Any:
        if reply.status == 200:
            return data
        error = data.get("error", {}) if isinstance(data, dict) else {}
        reason = str(error.get("reason", "")) if isinstance(error, dict) else ""
        if reason == "clock" and type(data.get("time_ms")) is int:
            self.health.clock_offset_s = round(data["time_ms"] / 1000 - time.time(), 3)
        hint = str(error.get("hint", "")) if isinstance(error, dict) else ""
        what = error.get("message", reply.reason) if isinstance(error, dict) else reply.reason
        retry_s = retry_after_s(reply.headers.get("Retry-After", ""))
        word = reason or ("proxy_login" if reply.status == 407 else str(reply.status))
        raise LinkError(word, f"the cloud answered {reply.status} {reason}: {what}", hint=hint, retry_s=retry_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ask:
    """One request.

    Attributes:
        chain: SW-Chain field, "" without one.
        upload: of a piece: Upload-Offset and Upload-Length.
        fetched: first byte and how many, of something large that the cloud has.
        bulk: goes in pieces, and stops for what is urgent. Its turn was waited for already.
    """

    method: str
    path: str
    body: bytes = b""
    chain: str = ""
    kind: str = CONTENT_TYPE
    upload: tuple[str, str] | None = None
    fetched: tuple[int, int] | None = None
    bulk: bool = False

    @property
    def is_measured(self) -> bool:
        """Whether its time says something of the link: not that of a long poll, nor of what comes down."""
        return self.method != "GET" or self.path.endswith("/sync")
