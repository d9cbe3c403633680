"""The gateways' door: `GET …/sync` and `PUT …/batches/{n}`. Who it is first, what it is second, the store last."""

from __future__ import annotations

import asyncio
import hashlib
import ipaddress
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from ..errors import RefusedError
from ..sync import columns
from ..sync.columns import DamagedError, decompress
from ..sync.streams import JOURNAL, STREAMS
from ..sync.wire import (
    MAX_BODY_BYTES,
    MAX_PAYLOAD_BYTES,
    JournalPayload,
    Message,
    SyncReply,
    bytes_from_text,
    check_digest,
    verify,
)
from .config import CloudConfig, GatewayTable
from .engine_postgres import UnavailableError
from .store import OutOfStepError, Parcel, Store

log = logging.getLogger(__name__)

_STATUS = {
    "unsigned": 401,
    "wrong_profile": 401,
    "wrong_key": 401,
    "bad_signature": 401,
    "clock": 401,
    "unknown_gateway": 403,
    "not_enrolled": 403,
    "too_large": 413,
    "bad_request": 400,
    "digest": 400,
    "wrong_host": 421,
    "gap": 409,
    "fork": 409,
}
_EPOCH = re.compile(r"[0-9a-f]{8,64}")
_NUMBER = re.compile(r"[1-9][0-9]{0,14}")
_AWAY_S = 2
_PERSIST_CONTACT_MS = 60_000

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Asked = Callable[[web.Request, GatewayTable], Awaitable[web.Response]]
Posted = Callable[[GatewayTable, bytes], Awaitable[web.StreamResponse]]


class Contacts:
    """When each gateway was last heard of: exact in memory, at most a minute old on disk."""

    def __init__(self, store: Store, known: dict[str, int]) -> None:
        self._store = store
        self._latest = dict(known)
        self._written = dict(known)

    def latest_ms(self, gateway: str) -> int | None:
        """UTC milliseconds of the last signed request; None when there was none."""
        return self._latest.get(gateway)

    async def note(self, gateway: str, now_ms: int) -> None:
        """A signed request came in."""
        self._latest[gateway] = now_ms
        if abs(now_ms - self._written.get(gateway, 0)) >= _PERSIST_CONTACT_MS:
            self._written[gateway] = now_ms
            await self._store.contacted(gateway, now_ms)


class Ingest:
    """Handlers of the sync protocol.

    Args:
        changed: called with the gateway's id whenever pages have something new to show.
        clock: UTC seconds; signatures are judged by it.
    """

    def __init__(
        self,
        config: CloudConfig,
        store: Store,
        contacts: Contacts,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._store, self._contacts = config, store, contacts
        self._changed, self._clock = changed, clock
        self._refused: dict[tuple[str, str], str] = {}
        self._turn = asyncio.Lock()

    def add_routes(self, app: web.Application) -> None:
        """Under /v1; the pages' API has its own."""
        app.router.add_get("/v1/gateways/{gateway}/sync", self._answering(self._where))
        path = "/v1/gateways/{gateway}/streams/{stream}/epochs/{epoch}/batches/{n}"
        app.router.add_put(path, self._answering(self._put))

    def add_post(self, app: web.Application, path: str, handler: Posted) -> None:
        """A further door: `handler(gateway, body)` answers requests that a gateway has signed as it signs batches."""

        async def post(request: web.Request) -> web.StreamResponse:
            digest, chain = request.headers.get("Content-Digest", ""), request.headers.get("SW-Chain", "")
            gateway = self._authenticated(request, digest=digest, chain=chain)
            body = await _read_body(request)
            check_digest(digest, body)
            await self._contacts.note(gateway.id, self._now_ms())
            return await handler(gateway, body)

        app.router.add_post(path, self._answering(post))

    def add_get(self, app: web.Application, path: str, handler: Asked) -> None:
        """A further door: `handler(request, gateway)` answers requests that a gateway has signed."""

        async def get(request: web.Request) -> web.StreamResponse:
            gateway = self._authenticated(request, digest="", chain="")
            await self._contacts.note(gateway.id, self._now_ms())
            return await handler(request, gateway)

        app.router.add_get(path, self._answering(get))

    async def _where(self, request: web.Request) -> web.Response:
        gateway = self._authenticated(request, digest="", chain="")
        await self._contacts.note(gateway.id, self._now_ms())
        self._changed(gateway.id)
        reply = SyncReply(time_ms=self._now_ms(), streams=await self._store.cursors(gateway.id))
        return web.json_response(reply.to_json())

    async def _put(self, request: web.Request) -> web.Response:
        digest, chain = request.headers.get("Content-Digest", ""), request.headers.get("SW-Chain", "")
        gateway = self._authenticated(request, digest=digest, chain=chain)
        parcel_of = _address(request, gateway.id, chain)
        body = await _read_body(request)
        check_digest(digest, body)
        received_ms = self._now_ms()
        async with self._turn:  # unpacked, a batch that means harm is a hundred times as large: never two at once
            taken = await self._store.take(await asyncio.to_thread(parcel_of, body, received_ms))
        await self._contacts.note(gateway.id, received_ms)
        if taken.problem:
            log.warning("%s: %s went to quarantine: %s", gateway.id, request.path, taken.problem)
        self._changed(gateway.id)
        answer = taken.cursor.to_json() | {"time_ms": received_ms}
        return web.json_response(answer | ({"quarantined": True} if taken.problem else {}))

    def _authenticated(self, request: web.Request, *, digest: str, chain: str) -> GatewayTable:
        """Judged before the body is read: who is not known cannot make us hold anything."""
        if request.method in ("PUT", "POST") and not (digest and chain):
            raise RefusedError("bad_request", "Content-Digest and SW-Chain are required")
        name = request.match_info["gateway"]
        gateway = self._config.find(name)
        if gateway is None:
            raise RefusedError("unknown_gateway", f"no gateway {name[:40]!r} here", hint="add it to cloud.toml")
        keys = gateway.keys()
        if not keys:
            hint = "enter the public key that the gateway shows into cloud.toml"
            raise RefusedError("not_enrolled", f"gateway {name} has no key here yet", hint=hint)
        message = Message(method=request.method, target_uri=self._target(request), digest=digest, chain=chain)
        verify(message, request.headers, keys, self._clock())
        return gateway

    def _target(self, request: web.Request) -> str:
        """The address as the client asked for it; only the configuration knows it, but for this machine's own names.

        Without that, a request that was signed for another service would be good here under that one's Host.
        """
        cloud = self._config.cloud
        if cloud.public_url:
            return f"{cloud.public_url.rstrip('/')}{request.raw_path}"
        if not _is_own_name(request.host, cloud.host):
            hint = "set public_url in cloud.toml to the address that gateways use"
            raise RefusedError("wrong_host", f"this service does not know itself as {request.host[:80]!r}", hint=hint)
        return f"{request.scheme}://{request.host}{request.raw_path}"

    def _answering(self, handler: Handler) -> Handler:
        """Refusals as JSON with the reason; logged when a gateway's reason changes."""

        async def answering(request: web.Request) -> web.StreamResponse:
            try:
                response = await handler(request)
            except UnavailableError as error:
                self._log_refusal(request, RefusedError("unavailable", error.message, hint=error.hint))
                return web.json_response(
                    self._refusal(
                        RefusedError("unavailable", "the database is away for a moment", hint="send it again")
                    ),
                    status=503,
                    headers={"Retry-After": str(_AWAY_S)},
                )
            except RefusedError as refused:
                self._log_refusal(request, refused)
                return web.json_response(self._refusal(refused), status=_STATUS[refused.reason])
            self._log_refusal(request, None)
            return response

        return answering

    def _refusal(self, refused: RefusedError) -> dict[str, Any]:
        error = {"reason": refused.reason, "message": refused.message, "hint": refused.hint}
        step = {"ack": refused.ack} if isinstance(refused, OutOfStepError) else {}
        return {"error": error, "time_ms": self._now_ms(), **step}

    def _log_refusal(self, request: web.Request, refused: RefusedError | None) -> None:
        name, stream = request.match_info["gateway"], request.match_info.get("stream", "sync")
        if self._config.find(name) is None or (stream != "sync" and stream not in STREAMS):
            log.debug("%s was refused", request.path[:120])  # anyone can make up names: never remembered
            return
        reason = refused.reason if refused else ""
        if self._refused.get((name, stream), "") != reason:
            self._refused[name, stream] = reason
            log.warning("gateway %s, %s: %s", name, stream, f"refused: {refused}" if refused else "accepted again")

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _is_own_name(host: str, configured: str) -> bool:
    """Whether a Host field names the configured host or a loopback address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in (configured.lower(), "localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _address(request: web.Request, gateway: str, chain: str) -> Callable[[bytes, int], Parcel]:
    """Check the path and the chain; returns what makes a parcel of a body, for a thread."""
    stream, epoch, number = (request.match_info[name] for name in ("stream", "epoch", "n"))
    try:
        claimed = bytes_from_text(chain)
    except ValueError as error:
        raise RefusedError("bad_request", f"SW-Chain: {error}") from error
    wrong = [
        what
        for what, right in (
            (f"stream {stream[:40]!r}", stream in STREAMS),
            (f"epoch {epoch[:80]!r}", _EPOCH.fullmatch(epoch)),
            (f"batch {number[:40]!r}", _NUMBER.fullmatch(number)),
            ("a chain value that is not 32 bytes", len(claimed) == 32),
        )
        if not right
    ]
    if wrong:
        raise RefusedError("bad_request", f"there is no {' and no '.join(wrong)} in this protocol")

    def parcel_of(body: bytes, received_ms: int) -> Parcel:
        return open_parcel(gateway, stream, epoch, int(number), claimed, body, received_ms)

    return parcel_of


def open_parcel(gateway: str, stream: str, epoch: str, n: int, chain: bytes, body: bytes, received_ms: int) -> Parcel:
    """Unpack and check a batch as far as that goes without the store. Pure; bad content becomes `problem`."""
    digest: bytes | None = None
    records: tuple[Any, ...] = ()
    before, count, problem = b"", 0, ""
    try:
        payload = decompress(body, MAX_PAYLOAD_BYTES)
        digest = hashlib.sha256(payload).digest()
        if stream == JOURNAL:
            packed = JournalPayload.unpack(payload)
            before, records = packed.before, tuple(packed.verified(epoch))
            count = len(records)
        else:
            count = sum(len(column.utc_ms) for block in columns.unpack(payload) for column in block.columns)
    except DamagedError as error:
        problem = str(error)
    return Parcel(
        gateway=gateway,
        stream=stream,
        epoch=epoch,
        n=n,
        chain=chain,
        body=body,
        received_ms=received_ms,
        digest=digest,
        problem=problem,
        before=before,
        records=records,
        count=count,
    )


async def _read_body(request: web.Request) -> bytes:
    """The whole body, never more than the limit in memory. Raises RefusedError `too_large`, `bad_request`."""
    size = request.content_length
    if size is not None and size > MAX_BODY_BYTES:
        raise RefusedError("too_large", f"a batch may have {MAX_BODY_BYTES} bytes, this one has {size}")
    body = bytearray()
    while chunk := await request.content.readany():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RefusedError("too_large", f"a batch may have {MAX_BODY_BYTES} bytes")
    return bytes(body)
