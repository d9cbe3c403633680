"""Evidence for headquarters' pages: `GET /api/v1/sites/{gateway}/blobs/{sha256}`."""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator
from typing import IO

from aiohttp import web

from ..errors import RefusedError
from ..serving.people import Person
from ..serving.web import PERSON, signed_in
from ..sync.media import HEAD_BYTES, media_type, safe_headers
from ..sync.wire import SHA256
from .blob_port import READ_BYTES, BlobStore, UnavailableError
from .blob_store import BlobRecords
from .blobs import Blobs
from .config import CloudConfig

ROLES = ("officer", "control_room", "manager", "vice_president", "inspector", "admin")
_IN_MEMORY_BYTES = 8 * 2**20
_AT_ONCE = 4


class BlobPages:
    """The handler. What is shown was read in full and found right just before."""

    def __init__(self, config: CloudConfig, records: BlobRecords, store: BlobStore, blobs: Blobs) -> None:
        self._config, self._records, self._store, self._blobs = config, records, store, blobs
        self._turn = asyncio.Semaphore(_AT_ONCE)

    def add_routes(self, app: web.Application) -> None:
        """Under /api/v1."""
        app.router.add_get("/api/v1/sites/{gateway}/blobs/{sha256}", signed_in(self._show))

    async def _show(self, request: web.Request) -> web.StreamResponse:
        _may_see(request[PERSON])
        gateway, sha256 = request.match_info["gateway"], request.match_info["sha256"]
        known = self._config.find(gateway) is not None and SHA256.fullmatch(sha256)
        stored = await self._records.stored(gateway, sha256) if known else None
        if stored is None:
            raise RefusedError(
                "no_such_blob", "this file is not here (yet)", hint="the gateway may still be sending it"
            )
        async with self._turn:
            with tempfile.SpooledTemporaryFile(_IN_MEMORY_BYTES) as file:
                if not await self._copy(sha256, file):
                    await self._blobs.check(sha256)
                    hint = "the gateway is asked for it; try again when it was online"
                    raise RefusedError("unavailable", "this file is lost or damaged here", hint=hint)
                return await _send(request, sha256, file)

    async def _copy(self, sha256: str, file: IO[bytes]) -> bool:
        """Whether what was copied is what its name says."""
        found, start = hashlib.sha256(), 0
        try:
            while data := await self._store.read(sha256, start, READ_BYTES):
                found.update(data)
                await asyncio.to_thread(file.write, data)
                start += len(data)
        except KeyError:
            return False
        except UnavailableError as error:
            raise RefusedError("unavailable", error.message, hint=error.hint) from error
        return found.hexdigest() == sha256


def _may_see(person: Person) -> None:
    if not set(ROLES) & set(person.roles):
        raise RefusedError("not_your_role", f"{person.id} is none of {', '.join(ROLES)}", hint="call a person who is")


async def _send(request: web.Request, sha256: str, file: IO[bytes]) -> web.StreamResponse:
    size = file.tell()
    file.seek(0)
    response = web.StreamResponse(headers=safe_headers(sha256, media_type(file.read(HEAD_BYTES))))
    response.content_length = size
    await response.prepare(request)
    async for piece in _pieces(file):
        await response.write(piece)
    await response.write_eof()
    return response


async def _pieces(file: IO[bytes]) -> AsyncIterator[bytes]:
    file.seek(0)
    while data := await asyncio.to_thread(file.read, READ_BYTES):
        yield data
