"""The gateways' door for evidence: `HEAD`/`PATCH`/`GET /v1/gateways/{gw}/blobs/{sha256}`, resumable by offset.

A gateway proves that it has a blob by sending every byte of it; another gateway's upload of the same one neither helps
nor disturbs it, and it gets back only what it has sent itself. In the store equal blobs are one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, NoReturn
from weakref import WeakValueDictionary

from aiohttp import web

from ..errors import RefusedError
from ..sync.blob_files import WrongContentError
from ..sync.wire import BLOB_DURABLE, BLOB_NONE, BLOB_PART, BLOB_STORED, MAX_CHUNK_BYTES, SHA256
from .blob_files import FileBlobStore
from .blob_port import BlobStore, Key, MissingError, UnavailableError, is_right
from .blob_store import BlobRecords, Limits, Part, Stored
from .config import BlobsTable, CloudConfig, GatewayTable
from .ingest import Ingest

log = logging.getLogger(__name__)

LIST_PATH = "/v1/gateways/{gateway}/blobs"
PATH = "/v1/gateways/{gateway}/blobs/{sha256}"
STALE_S = 30 * 86400.0
_TIDY_EVERY_S = 86400.0
_AGAIN_S = 10
_STATUS = {
    "bad_request": 400,
    "too_large": 413,
    "no_such_blob": 404,
    "quota": 507,
    "too_many_uploads": 429,
    "unavailable": 503,
}
"""Everything else is 409: `offset`, `wrong_content`."""
Pieces = AsyncIterator[bytes]
_NUMBER = re.compile(r"0|[1-9][0-9]{0,14}")
_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{1,15})")


def make_store(table: BlobsTable, folder: Path, data: Path) -> BlobStore:
    """The store that cloud.toml names. Args: folder: of cloud.toml. data: of the service."""
    if not table.url.startswith("s3://"):
        return FileBlobStore(data / table.url)
    from .blob_s3 import S3BlobStore, S3Options

    credentials = folder / table.credentials_file if table.credentials_file else None
    return S3BlobStore(
        S3Options(url=table.url, endpoint=table.endpoint, region=table.region, credentials_file=credentials)
    )


class Blobs:
    """Handlers, and what keeps the store tidy.

    Args:
        is_durable: whether what was stored at that time (UTC ms) cannot be lost any more.
        clock: UTC seconds.
    """

    def __init__(
        self,
        config: CloudConfig,
        records: BlobRecords,
        store: BlobStore,
        *,
        is_durable: Callable[[int], bool] = lambda _: True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        table = config.blobs
        self._limits = Limits(size=table.max_mb * 2**20, quota=int(table.quota_gb * 2**30))
        self._records, self._store = records, store
        self._is_durable, self._clock = is_durable, clock
        self._locks: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()
        self._troubled = False

    def add_routes(self, app: web.Application, ingest: Ingest) -> None:
        """Behind the gateways' door."""
        ingest.add_get(app, LIST_PATH, self._answering(self._standing))
        ingest.add_get(app, PATH, self._answering(self._get))  # HEAD comes here as well
        piece = self._patch

        async def patch(request: web.Request, gateway: GatewayTable, body: bytes) -> web.Response:
            return await self._answering(lambda asked, known: piece(asked, known, body))(request, gateway)

        ingest.add_patch(app, PATH, patch)

    async def run(self) -> NoReturn:
        """Throw away what nobody went on with, once a day, for ever."""
        while True:
            with contextlib.suppress(UnavailableError):
                for gateway, sha256 in await self._records.stale(self._now_ms() - int(STALE_S * 1000)):
                    await self._store.drop(Key(gateway=gateway, sha256=sha256))
                    await self._records.forget(gateway, sha256)
            await asyncio.sleep(_TIDY_EVERY_S)

    # --- answers -------------------------------------------------------------------------------------------------

    async def _standing(self, _: web.Request, gateway: GatewayTable) -> web.Response:
        last, wanted = await self._records.standing(gateway.id)
        return web.json_response({"last": last, "wanted": wanted, "time_ms": self._now_ms()})

    async def _get(self, request: web.Request, gateway: GatewayTable) -> web.Response:
        sha256 = _name(request)
        stored = await self._records.stored(gateway.id, sha256)
        if request.method == "HEAD":
            return web.Response(headers=await self._head(gateway.id, sha256, stored))
        if stored is None or stored.is_wanted:
            raise RefusedError("no_such_blob", f"blob {sha256[:16]}… of this gateway is not here")
        start, size = _range(request, stored.size)
        if start == 0 and not await self.check(sha256):
            raise RefusedError("no_such_blob", f"blob {sha256[:16]}… is damaged here")
        try:
            data = await self._store.read(sha256, start, size)
        except KeyError:
            await self.check(sha256)
            raise RefusedError("no_such_blob", f"blob {sha256[:16]}… is not here any more") from None
        span = {"Content-Range": f"bytes {start}-{start + len(data) - 1}/{stored.size}"}
        return web.Response(status=206, body=data, content_type="application/octet-stream", headers=span)

    async def _head(self, gateway: str, sha256: str, stored: Stored | None) -> dict[str, str]:
        if stored is not None and not stored.is_wanted:
            size = str(stored.size)
            state = {"SW-Blob": self.state(stored), "SW-Number": str(stored.n)}
            return {"Upload-Offset": size, "Upload-Length": size, **state}
        part = await self._records.part(gateway, sha256)
        if part is None:
            return {"Upload-Offset": "0", "SW-Blob": BLOB_NONE}
        return {"Upload-Offset": str(part.have), "Upload-Length": str(part.size), "SW-Blob": BLOB_PART}

    async def _patch(self, request: web.Request, gateway: GatewayTable, body: bytes) -> web.Response:
        sha256, offset, size = _name(request), _whole(request, "Upload-Offset"), _whole(request, "Upload-Length")
        if size < 1 or offset + len(body) > size:
            raise RefusedError("bad_request", f"{len(body)} bytes at {offset} do not fit into a length of {size}")
        key = Key(gateway=gateway.id, sha256=sha256)
        async with self._locks.setdefault(key, asyncio.Lock()):
            stored = await self._records.stored(gateway.id, sha256)
            if stored is None or stored.is_wanted:
                stored = await self._take(key, offset, size, body)
        if stored is None:
            return self._answer({"state": BLOB_PART, "offset": offset + len(body), "n": 0})
        return self._answer({"state": self.state(stored), "offset": stored.size, "n": stored.n})

    async def _take(self, key: Key, offset: int, size: int, body: bytes) -> Stored | None:
        """Keep one piece; the blob when it was the last one. The caller holds the key's lock."""
        records, now_ms = self._records, self._now_ms()
        part = await records.begin(key.gateway, key.sha256, size, self._limits, now_ms)
        if part.have != offset:
            raise MissingError(part.have)
        try:
            if body:
                await self._store.append(key, offset, body)
                if not await records.advance(key.gateway, key.sha256, offset, offset + len(body), now_ms):
                    now = await records.part(key.gateway, key.sha256)
                    raise MissingError(now.have if now else 0)
            return await self._finish(key, size) if offset + len(body) == size else None
        except MissingError as error:
            await records.rewind(key.gateway, key.sha256, error.offset)
            raise
        except WrongContentError:
            await records.forget(key.gateway, key.sha256)
            raise

    async def bring(self, gateway: str, sha256: str, size: int, pieces: Callable[[int], Pieces]) -> tuple[Stored, bool]:
        """Keep a blob that came otherwise than over the link, from where it broke off; and whether it is new here.

        Args:
            pieces: gives the pieces from an offset on, each of at most `MAX_CHUNK_BYTES`.

        Raises:
            RefusedError: `too_large`, `quota`, `too_many_uploads`, `wrong_content`.
            UnavailableError: the store.
        """
        key = Key(gateway=gateway, sha256=sha256)
        async with self._locks.setdefault(key, asyncio.Lock()):
            stored = await self._records.stored(gateway, sha256)
            if stored is not None and not stored.is_wanted:
                return stored, False
            part = await self._records.part(gateway, sha256)
            offset = part.have if part is not None and part.size == size and part.have < size else 0
            if part is not None and not offset and part.have:
                await self._records.rewind(gateway, sha256, 0)
            stored = None
            async for piece in pieces(offset):
                stored = await self._take(key, offset, size, piece)
                offset += len(piece)
            if stored is None:
                raise MissingError(offset)
            return stored, True

    async def standing(self, gateway: str) -> tuple[int, list[str]]:
        """Number of the newest blob of a gateway, and those that are wanted again."""
        return await self._records.standing(gateway)

    async def _finish(self, key: Key, size: int) -> Stored:
        async def remember(upload: str, parts: dict[int, str]) -> None:
            await self._records.remember(key.gateway, key.sha256, upload, parts)

        part = await self._records.part(key.gateway, key.sha256) or Part(size=size, have=size, upload="", parts={})
        await self._store.finish(key, part, remember)
        return await self._records.finish(key.gateway, key.sha256, size, self._now_ms())

    async def check(self, sha256: str) -> bool:
        """Read a whole blob; when it is lost or damaged its gateways are asked for it. Raises UnavailableError."""
        if await is_right(self._store, sha256):
            return True
        asked = await self._records.want(sha256)
        if asked:
            log.error("blob %s is lost or damaged in the store: asked of %s", sha256, ", ".join(asked))
        return False

    def state(self, stored: Stored) -> str:
        """`durable`, or `stored`: it may still be lost here."""
        return BLOB_DURABLE if self._is_durable(stored.stored_ms) else BLOB_STORED

    def _answer(self, fields: dict[str, Any]) -> web.Response:
        return web.json_response(fields | {"time_ms": self._now_ms()}, headers={"Upload-Offset": str(fields["offset"])})

    def _answering(
        self, handler: Callable[[web.Request, GatewayTable], Awaitable[web.Response]]
    ) -> Callable[[web.Request, GatewayTable], Awaitable[web.Response]]:
        """Refusals as JSON; where the piece does not fit, with the offset to go on at."""

        async def answering(request: web.Request, gateway: GatewayTable) -> web.Response:
            try:
                response = await handler(request, gateway)
            except UnavailableError as error:
                if not self._troubled:
                    log.error("the store of blobs: %s", error)
                self._troubled = True
                return self._refusal(RefusedError("unavailable", error.message, hint=error.hint, retry_s=_AGAIN_S))
            except RefusedError as refused:
                return self._refusal(refused)
            if self._troubled and request.method == "PATCH":
                self._troubled = False
                log.warning("the store of blobs answers again")
            return response

        return answering

    def _refusal(self, refused: RefusedError) -> web.Response:
        headers = {"SW-Reason": refused.reason}
        told: dict[str, Any] = {"time_ms": self._now_ms()}
        if isinstance(refused, MissingError):
            told["offset"] = refused.offset
            headers["Upload-Offset"] = str(refused.offset)
        if refused.retry_s:
            headers["Retry-After"] = str(round(refused.retry_s))
        error = {"reason": refused.reason, "message": refused.message, "hint": refused.hint}
        return web.json_response({"error": error, **told}, status=_STATUS.get(refused.reason, 409), headers=headers)

    def _now_ms(self) -> int:
        return int(self._clock() * 1000)


def _name(request: web.Request) -> str:
    name = request.match_info["sha256"]
    if not SHA256.fullmatch(name):
        raise RefusedError("bad_request", f"{name[:80]!r} is not a SHA-256 in lower-case hexadecimal digits")
    return name


def _whole(request: web.Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise RefusedError("bad_request", f"{name}: must be a whole number of bytes (got {text[:40]!r})")
    return int(text)


def _range(request: web.Request, size: int) -> tuple[int, int]:
    """Where to begin and how much; a range must be asked for, and has at most 1 MiB."""
    found = _RANGE.fullmatch(request.headers.get("Range", ""))
    start, end = (int(found[1]), int(found[2])) if found else (0, MAX_CHUNK_BYTES - 1)
    if start > end or start >= size:
        raise RefusedError("bad_request", f"Range: must lie within the {size} bytes of the blob")
    return start, min(end - start + 1, MAX_CHUNK_BYTES, size - start)
