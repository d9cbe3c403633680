"""The gateways' door: `GET …/sync` and `PUT …/batches/{n}`. Who it is first, what it is second, the store last."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ipaddress
import logging
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from ..errors import RefusedError
from ..sync.columns_count import content_size
from ..sync.several import MAX_BYTES as MAX_SEVERAL_BYTES
from ..sync.streams import JOURNAL, STREAMS
from ..sync.wire import (
    MAX_BODY_BYTES,
    MAX_CHUNK_BYTES,
    Claim,
    Message,
    SyncReply,
    bytes_text,
    check_digest,
    claim_of,
)
from .checking import Checkers
from .config import CloudConfig, GatewayTable
from .contacts import Contacts as Contacts
from .engine import UnavailableError
from .outages import AWAY_S
from .parcels import EPOCH, NUMBER, Address, open_parcel
from .several import Several
from .signatures import holds
from .store import OutOfStepError, Parcel, Store, Taken
from .turns import Turns

log = logging.getLogger(__name__)

_STATUS = {
    "unsigned": 401,
    "wrong_profile": 401,
    "wrong_key": 401,
    "bad_signature": 401,
    "clock": 401,
    "revoked": 401,
    "key_ended": 401,
    "unknown_gateway": 403,
    "not_enrolled": 403,
    "no_such_request": 404,
    "too_large": 413,
    "bad_request": 400,
    "digest": 400,
    "wrong_host": 421,
    "busy": 429,
    "unavailable": 503,
    "gap": 409,
    "fork": 409,
    "key_taken": 409,
    "too_many_keys": 409,
}
_INLINE_BYTES = 16 * 1024
_LARGE_BYTES = 128 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Asked = Callable[[web.Request, GatewayTable], Awaitable[web.Response]]
Pieced = Callable[[web.Request, GatewayTable, bytes], Awaitable[web.Response]]
Posted = Callable[[GatewayTable, bytes], Awaitable[web.StreamResponse]]


class Ingest:
    """Handlers of the sync protocol.

    Args:
        changed: called with the gateway's id whenever pages have something new to show.
        clock: UTC seconds; signatures are judged by it.

    Attributes:
        refusals: how many requests were refused, by reason.
    """

    def __init__(
        self,
        config: CloudConfig,
        store: Store,
        contacts: Contacts,
        changed: Callable[[str], None],
        clock: Callable[[], float] = time.time,
        turns: Turns | None = None,
        checkers: Checkers | None = None,
    ) -> None:
        self._config, self._store, self._contacts = config, store, contacts
        self._changed, self._clock = changed, clock
        self.incarnation = ""
        self._refused: dict[tuple[str, str], str] = {}
        self.refusals: Counter[str] = Counter()
        self._turns = turns or Turns()
        self._checkers = checkers or Checkers(0)
        self._large = asyncio.Lock()

    def busy(self) -> bool:
        """Whether gateways have work for this process: what can wait should."""
        return self._turns.busy

    def add_routes(self, app: web.Application) -> None:
        """Under /v1; the pages' API has its own."""
        app.router.add_get("/v1/gateways/{gateway}/sync", self.answering(self._where))
        path = "/v1/gateways/{gateway}/streams/{stream}/epochs/{epoch}/batches/{n}"
        app.router.add_put(path + r"-{last:[0-9]{1,15}}", self.answering(self._put_several))
        app.router.add_put(path, self.answering(self._put))
        app.router.add_get(f"{path}/chain", self.answering(self._chain))

    def add_post(self, app: web.Application, path: str, handler: Posted) -> None:
        """A further door: `handler(gateway, body)` answers requests that a gateway has signed as it signs batches."""

        async def post(request: web.Request) -> web.StreamResponse:
            digest, chain = request.headers.get("Content-Digest", ""), request.headers.get("SW-Chain", "")
            gateway = await self._authenticated(request, digest=digest, chain=chain)
            async with self._turns.room(gateway.id, _size(request)):
                body = await _checked_body(request, digest)
                async with self._turns.turn(gateway.id, urgent=True):
                    await self._contacts.note(gateway.id, self._now_ms())
                    return await handler(gateway, body)

        app.router.add_post(path, self.answering(post))

    def add_get(self, app: web.Application, path: str, handler: Asked) -> None:
        """A further door: `handler(request, gateway)` answers requests that a gateway has signed."""

        async def get(request: web.Request) -> web.StreamResponse:
            gateway = await self._authenticated(request, digest="", chain="")
            await self._contacts.note(gateway.id, self._now_ms())
            return await handler(request, gateway)

        app.router.add_get(path, self.answering(get))

    def add_patch(self, app: web.Application, path: str, handler: Pieced) -> None:
        """A further door: `handler(request, gateway, piece)` answers signed pieces of something larger."""

        async def patch(request: web.Request) -> web.StreamResponse:
            digest = request.headers.get("Content-Digest", "")
            upload = (request.headers.get("Upload-Offset", ""), request.headers.get("Upload-Length", ""))
            gateway = await self._authenticated(request, digest=digest, chain="", upload=upload)
            async with self._turns.room(gateway.id, min(request.content_length or MAX_CHUNK_BYTES, MAX_CHUNK_BYTES)):
                piece = await read_body(request, MAX_CHUNK_BYTES)
                check_digest(digest, piece)
                await self._contacts.note(gateway.id, self._now_ms())
                return await handler(request, gateway, piece)

        app.router.add_patch(path, self.answering(patch))

    async def _where(self, request: web.Request) -> web.Response:
        gateway = await self._authenticated(request, digest="", chain="")
        await self._contacts.note(gateway.id, self._now_ms())
        self._changed(gateway.id)
        cursors = await self._store.cursors(gateway.id)
        several = len(cursors.get(JOURNAL, ())) > 1
        reply = SyncReply(
            time_ms=self._now_ms(),
            streams=cursors,
            incarnation=self.incarnation,
            machines=await self._store.machines(gateway.id) if several else 1,
        )
        return web.json_response(reply.to_json())

    async def _chain(self, request: web.Request) -> web.Response:
        """Where two histories parted is found by asking for chain values."""
        gateway = await self._authenticated(request, digest="", chain="")
        stream, epoch, number = (request.match_info[name] for name in ("stream", "epoch", "n"))
        if stream not in STREAMS or not EPOCH.fullmatch(epoch) or not NUMBER.fullmatch(number):
            raise RefusedError("bad_request", "there is no such batch in this protocol")
        chain = await self._store.chain_at(gateway.id, stream, epoch, int(number))
        return web.json_response({"n": int(number), "chain": bytes_text(chain) if chain else None})

    async def _put(self, request: web.Request) -> web.Response:
        digest, chain = request.headers.get("Content-Digest", ""), request.headers.get("SW-Chain", "")
        gateway = await self._authenticated(request, digest=digest, chain=chain)
        address = Address.named(request.match_info, gateway.id, chain)
        urgent = address.stream == JOURNAL
        async with self._turns.room(gateway.id, _size(request)):
            body = await _checked_body(request, digest)
            async with self._turns.turn(gateway.id, urgent=urgent):
                received_ms = self._now_ms()
                if self._turns.busy:
                    self._checkers.want()
                size = max(len(body), content_size(body))
                async with self._large if size > _LARGE_BYTES else contextlib.nullcontext():
                    taken = await self._store.take(await self._parcel(address, body, size, received_ms))
        return await self._taken(request, gateway, [taken], received_ms)

    async def _put_several(self, request: web.Request) -> web.Response:
        digest, chain = request.headers.get("Content-Digest", ""), request.headers.get("SW-Chain", "")
        gateway = await self._authenticated(request, digest=digest, chain=chain)
        Address.named(request.match_info, gateway.id, chain)
        several = Several.named(request.match_info)
        async with self._turns.room(gateway.id, _size(request)):
            body = await _checked_body(request, digest, MAX_SEVERAL_BYTES)
            async with self._turns.turn(gateway.id, urgent=False):
                received_ms = self._now_ms()
                bodies = several.open(body, chain)

                def parcels() -> list[Parcel]:
                    key = gateway.id, several.stream, several.epoch
                    return [open_parcel(*key, n, own, one, received_ms) for n, own, one in bodies]

                async with self._large:  # one after the other: unpacked, each may be a hundred times as large
                    opened = await asyncio.to_thread(parcels)
                taken = await self._store.take_several(opened)
        return await self._taken(request, gateway, taken, received_ms)

    async def _taken(
        self, request: web.Request, gateway: GatewayTable, taken: Sequence[Taken], received_ms: int
    ) -> web.Response:
        await self._contacts.note(gateway.id, received_ms)
        problems = [one.problem for one in taken if one.problem]
        for problem in problems:
            what = "%s: %s went to quarantine: %s"
            log.warning(what, gateway.id, request.path, problem, extra={"gateway": gateway.id})
        self._changed(gateway.id)
        credit, retry_ms = self._turns.credit(gateway.id, MAX_BODY_BYTES)
        answer = taken[-1].cursor.to_json() | {"time_ms": received_ms, "credit_bytes": credit, "retry_ms": retry_ms}
        if problems:
            answer["quarantined"] = True
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json", charset="utf-8")

    async def _parcel(self, address: Address, body: bytes, size: int, received_ms: int) -> Parcel:
        """What a body holds. Small ones are worth no thread; large ones no way to another process.

        Args:
            size: of the body or of what is in it, whatever is more. The caller holds `_large` where it is large: of
                those there is never more than one, until it is stored. Unpacked, a batch that means harm is a hundred
                times as large.
        """
        if size > _LARGE_BYTES:
            return await asyncio.to_thread(address.opened, body, received_ms)
        if address.stream != JOURNAL and self._checkers.running:
            looked = await self._checkers.looked(body)
            return address.opened(body, received_ms) if looked is None else address.counted(body, received_ms, *looked)
        if size > _INLINE_BYTES:
            return await asyncio.to_thread(address.opened, body, received_ms)
        return address.opened(body, received_ms)

    async def _authenticated(
        self, request: web.Request, *, digest: str, chain: str, upload: tuple[str, str] | None = None
    ) -> GatewayTable:
        """Judged before the body is read: who is not known cannot make us hold anything."""
        if request.method in ("PUT", "POST") and not (digest and chain):
            raise RefusedError("bad_request", "Content-Digest and SW-Chain are required")
        if upload is not None and not (digest and all(upload)):
            raise RefusedError("bad_request", "Content-Digest, Upload-Offset and Upload-Length are required")
        name = request.match_info["gateway"]
        gateway = self._config.find(name)
        if gateway is None:
            raise RefusedError("unknown_gateway", f"no gateway {name[:40]!r} here", hint="approve its claim code")
        keys, ended = gateway.keys(), gateway.ended()
        if not keys and not ended:
            hint = "approve its claim code, or enter the public key that it shows into cloud.toml"
            raise RefusedError("not_enrolled", f"gateway {name} has no key here yet", hint=hint)
        try:
            await self._verified(self._claim(request, keys, digest=digest, chain=chain, upload=upload))
        except RefusedError as refused:
            if refused.reason != "wrong_key" or not ended:
                raise
            kid = await self._verified(self._claim(request, ended, digest=digest, chain=chain, upload=upload))
            raise gateway.why_ended(kid) from refused
        return gateway

    def verified(
        self, request: web.Request, keys: Mapping[str, Ed25519PublicKey], *, digest: str = "", chain: str = ""
    ) -> str:
        """Id of the key that signed this request, one of `keys`. Raises as `wire.verify`."""
        claim = self._claim(request, keys, digest=digest, chain=chain)
        is_right = holds(claim.key.public_bytes_raw(), claim.signature, claim.base)
        return claim.judged(is_right, self._clock())

    async def _verified(self, claim: Claim) -> str:
        """The same, by a helping process where there is one."""
        return claim.judged(await self._checkers.holds(claim), self._clock())

    def _claim(
        self,
        request: web.Request,
        keys: Mapping[str, Ed25519PublicKey],
        *,
        digest: str,
        chain: str,
        upload: tuple[str, str] | None = None,
    ) -> Claim:
        uri = self._target(request)
        message = Message(method=request.method, target_uri=uri, digest=digest, chain=chain, upload=upload)
        return claim_of(message, request.headers, keys)

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

    def answering(self, handler: Handler) -> Handler:
        """Refusals as JSON with the reason; logged when a gateway's reason changes."""

        async def answering(request: web.Request) -> web.StreamResponse:
            try:
                response = await handler(request)
            except UnavailableError as error:
                self._log_refusal(request, RefusedError("unavailable", error.message, hint=error.hint))
                message = "the database is away for a moment"
                retry_s = AWAY_S * (1 + random.random())  # noqa: S311 - spreads load
                return self._refused_with(RefusedError("unavailable", message, hint="send it again", retry_s=retry_s))
            except RefusedError as refused:
                self._log_refusal(request, refused)
                return self._refused_with(refused)
            self._log_refusal(request, None)
            return response

        return answering

    def _refused_with(self, refused: RefusedError) -> web.Response:
        headers = {"SW-Reason": refused.reason}  # an answer to HEAD has no body
        if refused.retry_s:
            headers["Retry-After"] = str(math.ceil(refused.retry_s))
        return web.json_response(self._refusal(refused), status=_STATUS[refused.reason], headers=headers)

    def _refusal(self, refused: RefusedError) -> dict[str, Any]:
        error = {"reason": refused.reason, "message": refused.message, "hint": refused.hint}
        step = {"ack": refused.ack} if isinstance(refused, OutOfStepError) else {}
        return {"error": error, "time_ms": self._now_ms(), **step}

    def _log_refusal(self, request: web.Request, refused: RefusedError | None) -> None:
        if refused is None and not self._refused:
            return
        name, stream = request.match_info["gateway"], request.match_info.get("stream", "sync")
        if refused is not None:
            self.refusals[refused.reason] += 1
        if self._config.find(name) is None or (stream != "sync" and stream not in STREAMS):
            log.debug("%s was refused", request.path[:120])  # anyone can make up names: never remembered
            return
        if refused is not None and refused.reason == "busy":
            log.debug("gateway %s, %s: %s", name, stream, refused)  # it passes, and comes with many others
            return
        reason = refused.reason if refused else ""
        if self._refused.get((name, stream), "") != reason:
            self._refused[name, stream] = reason
            what, more = f"refused: {refused}" if refused else "accepted again", {"gateway": name, "stream": stream}
            log.warning("gateway %s, %s: %s", name, stream, what, extra=more)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


@functools.lru_cache(maxsize=64)
def _is_own_name(host: str, configured: str) -> bool:
    """Whether a Host field names the configured host or a loopback address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in (configured.lower(), "localhost") or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _size(request: web.Request) -> int:
    """Bytes that a body may take until it is read."""
    size = request.content_length
    return MAX_BODY_BYTES if size is None else min(size, MAX_BODY_BYTES)


async def _checked_body(request: web.Request, digest: str, most: int | None = None) -> bytes:
    """What was sent, as its Content-Digest says. Raises RefusedError: as `read_body`, and `digest`."""
    body = await read_body(request, most)
    check_digest(digest, body)
    return body


async def read_body(request: web.Request, most: int | None = None) -> bytes:
    """The whole body, never more than the limit in memory. Raises RefusedError `too_large`, `bad_request`."""
    most = MAX_BODY_BYTES if most is None else most
    size = request.content_length
    if size is not None and size > most:
        raise RefusedError("too_large", f"a batch or piece may have {most} bytes, this one has {size}")
    body = bytearray()
    try:
        while chunk := await request.content.readany():
            body += chunk
            if len(body) > most:
                raise RefusedError("too_large", f"a batch or piece may have {most} bytes")
    except ConnectionError:  # links break every day; nobody hears this answer
        raise web.HTTPBadRequest(reason="the body broke off") from None
    return bytes(body)
