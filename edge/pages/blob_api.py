"""Photos, video and speech that people hand in: sent in pieces, resumable, and shown again. No active content ever."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from aiohttp import ClientError, web

from ...errors import RefusedError
from ...serving.people import ROLES, Person
from ...serving.web import PERSON, signed_in
from ...sync.blob_files import DamagedBlobError, OffsetError
from ...sync.blobs import Blobs, Here
from ...sync.media import HEAD_BYTES, media_type, safe_headers
from ..plan.drawing import Drawing, Drawn
from . import asked

SENDERS = tuple(role for role in ROLES if role != "inspector")
"""An inspector reads only."""
VIEWERS = tuple(role for role in ROLES if role != "contractor")
"""A contractor sees what that person has sent, and nothing else."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,14}")
_PATH = "/api/v1/blobs/{sha256}"
PICTURES = ("image/jpeg", "image/png", "image/webp")
"""What can be drawn anew."""
LEAST_SIDE, MOST_SIDE = 64, 2048
_WAITERS = 32
_KEPT_BYTES = 8 * 2**20
_CACHED = "private, max-age=86400, immutable"


class BlobApi:
    """Handlers of `/api/v1/blobs`. Args: check_room: raises RefusedError when there is no room for so many bytes."""

    def __init__(self, blobs: Blobs, check_room: Callable[[int], None] = lambda _: None) -> None:
        self._blobs, self._check_room = blobs, check_room
        self._drawing = Drawing()
        self._drawn: OrderedDict[tuple[str, int], Drawn] = OrderedDict()

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        app.router.add_head(_PATH, signed_in(self._head))
        app.router.add_get(_PATH, signed_in(self._get), allow_head=False)
        app.router.add_get(f"{_PATH}/picture", signed_in(self._picture), allow_head=False)
        app.router.add_put(_PATH, signed_in(_with_offset(self._put)))
        app.router.add_patch(_PATH, signed_in(_with_offset(self._patch)))

    async def _head(self, request: web.Request) -> web.Response:
        """How much is here; 200 also when nothing is: an upload begins at 0."""
        await self._check_viewer(request)
        here = await self._blobs.here(request.match_info["sha256"])
        return web.Response(headers=_fields(here))

    async def _put(self, request: web.Request) -> web.Response:
        """The whole blob in one request. What came of one that broke off stays: go on with PATCH."""
        size = request.content_length
        if size is None:
            raise RefusedError("bad_request", "Content-Length is required")
        return await self._take(request, 0, size)

    async def _patch(self, request: web.Request) -> web.Response:
        """From Upload-Offset on, of Upload-Length bytes in all."""
        return await self._take(request, _whole(request, "Upload-Offset"), _whole(request, "Upload-Length"))

    async def _take(self, request: web.Request, offset: int, size: int) -> web.Response:
        person = request[PERSON]
        asked.require_role(person, SENDERS)
        self._check_room(size - offset)
        pieces = request.content.iter_any()
        try:
            here = await self._blobs.append(request.match_info["sha256"], offset, size, pieces, person=person.id)
        except (ClientError, ConnectionError) as error:  # the phone went away; nobody hears this answer
            raise RefusedError("bad_request", f"the upload broke off: {error}") from error
        answer = {"offset": here.offset, "size": here.size, "whole": here.size is not None}
        return web.json_response(answer, status=201 if here.size is not None else 200, headers=_fields(here))

    async def _get(self, request: web.Request) -> web.StreamResponse:
        """The blob, read in full and found right before the first byte is sent. Ranges are answered."""
        await self._check_viewer(request)
        sha256 = request.match_info["sha256"]
        try:
            path = await self._blobs.verified(sha256)
            kind = media_type(await self._blobs.piece(sha256, 0, HEAD_BYTES))
        except DamagedBlobError as error:
            hint = error.hint or "headquarters is asked for it when it has it"
            raise RefusedError("unavailable", error.message, hint=hint) from error
        return web.FileResponse(path, headers=safe_headers(sha256, kind))

    async def _picture(self, request: web.Request) -> web.Response:
        """A photo as pages show it: drawn anew, pixel by pixel, `side` at most; nothing of the file itself."""
        await self._check_viewer(request)
        sha256 = request.match_info["sha256"]
        side = asked.number(request, "side", default=640, low=LEAST_SIDE, high=MOST_SIDE)
        drawn = self._drawn.get((sha256, side)) or await self._draw(sha256, side)
        self._drawn[sha256, side] = drawn
        self._drawn.move_to_end((sha256, side))
        while sum(len(one.data) for one in self._drawn.values()) > _KEPT_BYTES:
            self._drawn.popitem(last=False)
        headers = {**safe_headers(sha256, media_type(drawn.data[:HEAD_BYTES])), "Cache-Control": _CACHED}
        return web.Response(body=drawn.data, headers=headers)

    async def _draw(self, sha256: str, side: int) -> Drawn:
        try:
            path = await self._blobs.verified(sha256)
            kind = media_type(await self._blobs.piece(sha256, 0, HEAD_BYTES))
        except DamagedBlobError as error:
            hint = error.hint or "headquarters is asked for it when it has it"
            raise RefusedError("unavailable", error.message, hint=hint) from error
        if kind not in PICTURES:
            raise RefusedError("wrong_type", f"{kind} is no picture that can be drawn", hint="take the file itself")
        return await self._drawing.draw(await asyncio.to_thread(path.read_bytes), side=side, waiters=_WAITERS)

    async def _check_viewer(self, request: web.Request) -> None:
        person: Person = request[PERSON]
        if set(VIEWERS) & set(person.roles):
            return
        row = await self._blobs.known(request.match_info["sha256"])
        if row is not None and row.person != person.id:
            raise RefusedError("not_your_role", f"{person.id} has not sent this file", hint="call a person who may")


def _with_offset(
    handler: Callable[[web.Request], Awaitable[web.Response]],
) -> Callable[[web.Request], Awaitable[web.Response]]:
    """A piece that does not fit is answered with where to go on, as HEAD would say it."""

    async def told(request: web.Request) -> web.Response:
        try:
            return await handler(request)
        except OffsetError as refused:
            error = {"reason": refused.reason, "message": refused.message, "hint": refused.hint}
            fields = {"Upload-Offset": str(refused.offset)}
            return web.json_response({"error": error, "offset": refused.offset}, status=409, headers=fields)

    return told


def _fields(here: Here) -> dict[str, str]:
    length = {} if here.size is None else {"Upload-Length": str(here.size)}
    return {"Upload-Offset": str(here.offset), **length}


def _whole(request: web.Request, name: str) -> int:
    text = request.headers.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise RefusedError("bad_request", f"{name}: must be a whole number of bytes (got {text[:40]!r})")
    return int(text)
