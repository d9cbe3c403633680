"""Bundles from USB sticks by way of the page: in pieces onto the disk, then taken in, and an answer to carry back.

A piece has to arrive within the time that any request has, so a large file over a slow network takes no privilege and
goes on where it broke off. What nobody goes on with is thrown away.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from aiohttp import web

from ..errors import RefusedError
from ..serving.web import PERSON, body, signed_in
from ..words import mono_s
from .bundles import MOST_BYTES, Bundles

log = logging.getLogger(__name__)

ROLES = ("officer", "manager", "it", "admin")
PIECE_BYTES = 8 << 20
MOST_UPLOADS = 4
STALE_S = 3600.0
ROOM_BYTES = 1 << 30
"""What must stay free on the disk beside a bundle and what becomes of it."""
_FOLDER = "uploads"
_LOOK_S = 60.0
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(slots=True, kw_only=True)
class Upload:
    """A file that comes.

    Attributes:
        person: whose it is; nobody else can go on with it.
        have: bytes on the disk.
        seen_s: monotonic seconds of the last piece.
        taking: it is taken in now.
    """

    person: str
    path: Path
    size: int
    have: int = 0
    seen_s: float = field(default_factory=mono_s)
    taking: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class BundlePages:
    """POST /api/v1/bundles, then pieces, then the taking in.

    Args:
        data: folder of the service; files lie in `uploads` of it, which is emptied at the start.
    """

    def __init__(self, bundles: Bundles, data: Path) -> None:
        self._bundles, self._folder = bundles, data / _FOLDER
        self._uploads: dict[str, Upload] = {}

    def add_routes(self, app: web.Application) -> None:
        """All need a session of somebody who may, and its CSRF token."""
        app.router.add_post("/api/v1/bundles", signed_in(self._begin))
        app.router.add_put("/api/v1/bundles/{upload}/{offset}", signed_in(self._put))
        app.router.add_post("/api/v1/bundles/{upload}", signed_in(self._take))

    async def open(self) -> None:
        """Before the first request: nobody goes on with what an earlier process began."""
        await asyncio.to_thread(shutil.rmtree, self._folder, ignore_errors=True)

    async def run(self) -> NoReturn:
        """Throw away what nobody goes on with, for ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = mono_s()
            for name, upload in list(self._uploads.items()):
                if not upload.taking and now_s - upload.seen_s > STALE_S:
                    await self._drop(name)

    async def _begin(self, request: web.Request) -> web.Response:
        person = _may(request)
        size = (await body(request, {"size": int}))["size"]
        if size < 1:
            raise RefusedError("bad_request", "size: must be the bytes of the file")
        if size > MOST_BYTES:
            raise RefusedError("too_large", f"a bundle may have {MOST_BYTES >> 20} MiB, this one has {size >> 20}")
        for name in [name for name, other in self._uploads.items() if other.person == person and not other.taking]:
            await self._drop(name)  # begun anew in another tab, or after a reload
        if len(self._uploads) >= MOST_UPLOADS:
            raise RefusedError("busy", "others bring bundles just now", hint="try again in some minutes", retry_s=60)
        coming = sum(other.size - other.have for other in self._uploads.values())
        await asyncio.to_thread(self._folder.mkdir, mode=0o750, exist_ok=True)
        free = (await asyncio.to_thread(shutil.disk_usage, self._folder)).free
        if free < coming + 2 * size + ROOM_BYTES:
            hint = "tell IT: make room on the disk of headquarters"
            raise RefusedError("disk_full", f"{free >> 20} MiB are free here, too little for this file", hint=hint)
        name = secrets.token_hex(16)
        log.info("%s brings a bundle of %d bytes", person, size)
        self._uploads[name] = Upload(person=person, path=self._folder / name, size=size)
        return web.json_response({"upload": name, "offset": 0, "piece_bytes": PIECE_BYTES})

    async def _put(self, request: web.Request) -> web.Response:
        upload = self._mine(request)
        offset = request.match_info["offset"]
        length = request.content_length
        if not offset.isascii() or not offset.isdecimal() or len(offset) > 15:
            raise RefusedError("bad_request", "offset: must be a whole number of bytes")
        if length is not None and length > PIECE_BYTES:
            raise RefusedError("too_large", f"a piece may have {PIECE_BYTES} bytes, this one has {length}")
        async with upload.turn:
            if length is not None and int(offset) + length <= upload.have and not upload.taking:
                return web.json_response({"offset": upload.have})  # it came before, and the answer was lost
            if int(offset) != upload.have or upload.taking:
                raise RefusedError("offset", f"{upload.have} bytes are here", hint="ask for them behind these")
            upload.have += await self._keep(request, upload)
            upload.seen_s = mono_s()
        return web.json_response({"offset": upload.have})

    async def _keep(self, request: web.Request, upload: Upload) -> int:
        """Write one piece behind what is there; all of it counts, or nothing. How long it is."""
        most, size = min(PIECE_BYTES, upload.size - upload.have), 0
        file = await asyncio.to_thread(upload.path.open, "r+b" if upload.path.exists() else "x+b")
        try:
            await asyncio.to_thread(file.seek, upload.have)
            while chunk := await request.content.readany():
                size += len(chunk)
                if size > most:
                    raise RefusedError("too_large", f"{most} bytes are awaited at the most")
                await asyncio.to_thread(file.write, chunk)
            await asyncio.to_thread(file.flush)
        except ConnectionError:  # links break every day; nobody hears this answer
            raise web.HTTPBadRequest(reason="the body broke off") from None
        except OSError as error:
            if error.errno in _FULL:
                hint = "tell IT: make room on the disk of headquarters"
                raise RefusedError("disk_full", "headquarters' disk is full", hint=hint) from error
            raise
        finally:
            await asyncio.to_thread(file.close)
        return size

    async def _take(self, request: web.Request) -> web.StreamResponse:
        upload = self._mine(request)
        async with self._taking(request.match_info["upload"], upload):
            with upload.path.open("rb") as file:
                return await self._bundles.answer(request, file)

    @contextlib.asynccontextmanager
    async def _taking(self, name: str, upload: Upload) -> AsyncIterator[None]:
        """Afterwards the file is gone, whatever became of it: taken once more, it would bring nothing new."""
        if upload.taking or upload.have != upload.size:
            raise RefusedError("offset", f"{upload.have} of {upload.size} bytes are here", hint="send the rest first")
        upload.taking = True
        try:
            yield
        finally:
            await self._drop(name)

    def _mine(self, request: web.Request) -> Upload:
        person = _may(request)
        upload = self._uploads.get(request.match_info["upload"])
        if upload is None or upload.person != person:
            raise RefusedError("not_found", "no such upload of yours", hint="choose the file again")
        return upload

    async def _drop(self, name: str) -> None:
        upload = self._uploads.pop(name, None)
        if upload is not None:
            await asyncio.to_thread(upload.path.unlink, missing_ok=True)


def _may(request: web.Request) -> str:
    person = request[PERSON]
    if not set(ROLES) & set(person.roles):
        raise RefusedError("not_your_role", f"{person.id} is none of {', '.join(ROLES)}", hint="call a person who is")
    return person.id
