"""The gateway's blobs: photos, video, speech. Content-addressed, durable before a record names them.

A blob comes in pieces and goes on where it broke off; only fsynced bytes count. What no record names after a grace time
is deleted; what a record names never is. What is found damaged is marked, told, and fetched back from headquarters.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn
from weakref import WeakValueDictionary

from ..errors import RefusedError
from ..words import mono_s
from . import blob_refs, blob_table
from .blob_files import BlobFolder, DamagedBlobError, Found, OffsetError, digest
from .blob_refs import CaseRule
from .blob_table import DAMAGED, GONE, WHOLE, Known, Waiting
from .journal import Journal, Record
from .media import EVIDENCE, HEAD_BYTES, media_type
from .wire import CHUNK_BYTES, SHA256

_log = logging.getLogger(__name__)

MAX_BYTES = 200 * 2**20
GRACE_S = 7 * 86400.0
"""A phone may send a picture today and the form that names it when its shift ends, or after the weekend."""
UNNAMED_BYTES = 4 * 2**30
_SWEEP_EVERY_S = 86400.0
_SURE_S = 60.0

Tell = Callable[[str, dict[str, object]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """How much of a blob is here. `size`: None while it is not whole."""

    offset: int
    size: int | None = None


class Blobs:
    """The only writer of the blobs' folder. Its journal keeps `blob_refs.state_table(rules)`.

    Args:
        folder: made when missing.
        rules: how cases are known.
        max_bytes: of one blob.
        tell: gets the kind and body of what the journal must say of a blob that was lost or came back.
        grace_s: what no record names is kept so long.
    """

    def __init__(
        self,
        folder: Path,
        journal: Journal,
        *,
        rules: Sequence[CaseRule] = (),
        max_bytes: int = MAX_BYTES,
        tell: Tell = lambda kind, body: None,  # noqa: ARG005
        grace_s: float = GRACE_S,
    ) -> None:
        self.files = BlobFolder(folder)
        self.max_bytes = max_bytes
        self.journal = journal
        self._rules, self._tell, self._grace_s = rules, tell, grace_s
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tickets: dict[str, object] = {}
        self._leaving: set[str] = set()
        self._sure: dict[str, tuple[object, float]] = {}
        self._wakes: list[Callable[[], None]] = []

    async def __aenter__(self) -> Blobs:
        await asyncio.to_thread(self.files.open)
        await asyncio.to_thread(self.files.tidy, self._grace_s)
        await self.journal.write(lambda connection: connection.execute(blob_table.SCHEMA).close())
        self.journal.guard(self.require)
        self.journal.subscribe(self._committed)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.journal.guard(lambda _: None)

    async def run(self) -> NoReturn:
        """Look through the folder at start and once a day, for ever."""
        while True:
            await self.sweep()
            await asyncio.sleep(_SWEEP_EVERY_S)

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` on the loop when another blob may have to be sent."""
        self._wakes.append(wake)

    # --- in ------------------------------------------------------------------------------------------------------

    async def here(self, sha256: str) -> Here:
        """How much is here: where an upload goes on."""
        _check_name(sha256)

        def look() -> Here:
            size = self.files.size(sha256) if sha256 not in self._leaving else None
            if size is not None:
                self.files.touch(sha256)
                return Here(offset=size, size=size)
            return Here(offset=self.files.offset(sha256))

        row = await self.journal.query(lambda connection: blob_table.known(connection, sha256))
        if row is not None and row.local != WHOLE:
            return Here(offset=await asyncio.to_thread(self.files.offset, sha256))
        return await asyncio.to_thread(look)

    async def append(
        self, sha256: str, offset: int, size: int, pieces: AsyncIterable[bytes], *, person: str = "gateway"
    ) -> Here:
        """Take what comes from `offset` on; at `size` bytes the blob is checked and named.

        What came before `pieces` broke off stays, durable. Of two uploads of one blob the newer one goes on.

        Raises:
            RefusedError: `bad_request`, `too_large`, `wrong_type`, `offset` (where to go on), `superseded`,
                `wrong_content` (begin again), `too_many_unnamed`, `disk_full`.
        """
        _check_name(sha256)
        await self._check_size(offset, size)
        if (found := await self.here(sha256)).size is not None:
            return found
        ticket = self._tickets[sha256] = object()
        gathered = bytearray()

        async def put() -> None:
            nonlocal offset
            data = bytes(gathered[:CHUNK_BYTES])  # never more in one write: so much a start may have to cut off
            rest = gathered[CHUNK_BYTES:]
            gathered.clear()  # after a failure nothing may follow: it would lie where the failed piece belongs
            offset = await self._put(sha256, ticket, offset, size, data)
            gathered.extend(rest)

        try:
            try:
                async for piece in pieces:
                    gathered += piece
                    while len(gathered) >= CHUNK_BYTES:
                        await put()
            finally:
                if gathered:
                    await put()
            return await self._end(sha256, ticket, offset, size, person)
        finally:
            if self._tickets.get(sha256) is ticket:
                del self._tickets[sha256]

    async def take(self, pieces: AsyncIterable[bytes], *, person: str = "gateway") -> str:
        """A blob whose name is not known before its end, from the gateway itself; returns it. All or nothing.

        Raises:
            RefusedError: as `append`.
        """
        owner, size = f"own-{secrets.token_hex(8)}", 0
        try:
            async for piece in pieces:
                await self._check_size(size, size + len(piece))
                await asyncio.to_thread(self.files.write, owner, size, piece)
                size += len(piece)
            if not size:
                raise RefusedError("bad_request", "a blob has at least one byte")
            sha256 = await asyncio.to_thread(digest, self.files.incoming / owner)
            async with self._lock(sha256):
                await self._name(owner, sha256, person)
        except BaseException:
            await asyncio.to_thread(self.files.forget, owner)
            raise
        return sha256

    async def _check_size(self, offset: int, size: int) -> None:
        if size > self.max_bytes:
            message = f"a file may have {self.max_bytes} bytes, this one has {size}"
            raise RefusedError("too_large", message, hint="make the picture or video smaller")
        if size < 1 or not 0 <= offset <= size:
            raise RefusedError("bad_request", f"offset {offset} and length {size} do not fit")
        if not offset and await self.journal.query(blob_table.unnamed_bytes) + size > UNNAMED_BYTES:
            hint = "hand in the forms that belong to them, or wait a week"
            raise RefusedError("too_many_unnamed", "too much lies here that no record names", hint=hint)

    async def _put(self, sha256: str, ticket: object, offset: int, size: int, data: bytes) -> int:
        if offset + len(data) > size:
            raise RefusedError("bad_request", f"more than the {size} bytes that Upload-Length names")
        if not offset and (len(data) >= HEAD_BYTES or len(data) == size):
            _check_type(data)
        async with self._lock(sha256):
            if self._tickets.get(sha256) is not ticket:
                raise RefusedError("superseded", "another upload of this file began after this one")
            await asyncio.to_thread(self._write, sha256, offset, data)
        return offset + len(data)

    def _write(self, owner: str, offset: int, data: bytes) -> None:
        if (there := self.files.offset(owner)) != offset:
            raise OffsetError(there, offset)
        self.files.write(owner, offset, data)

    async def _end(self, sha256: str, ticket: object, offset: int, size: int, person: str) -> Here:
        """Name the blob when it is complete."""
        async with self._lock(sha256):
            there = await asyncio.to_thread(self.files.offset, sha256)
            if there > size:  # somebody had said another length
                await asyncio.to_thread(self.files.forget, sha256)
                raise OffsetError(0, offset)
            if there != offset or self._tickets.get(sha256) is not ticket:
                raise OffsetError(there, offset)
            if there < size:
                return Here(offset=there)
            await self._name(sha256, sha256, person)
            return Here(offset=size, size=size)

    async def _name(self, owner: str, sha256: str, person: str) -> None:
        """The caller holds the lock. Raises RefusedError `wrong_content`, `wrong_type`."""
        size = await asyncio.to_thread(self.files.finish, owner, sha256, _check_type)
        now_ms = _now_ms()
        came_back = await self.journal.write(lambda c: blob_table.added(c, sha256, size, person, now_ms))
        if came_back:
            _log.warning("blob %s is whole again", sha256)
            self._tell("blob.restored", {"sha256": sha256, "size": size})
        self._wake()

    # --- out -----------------------------------------------------------------------------------------------------

    async def verified(self, sha256: str) -> Path:
        """The file of a blob whose content was read and found right: now, or within a minute when it did not change.

        Raises:
            RefusedError: `no_such_blob`.
            DamagedBlobError: it is marked, and told; headquarters is asked for it.
        """
        _check_name(sha256)
        row = await self.journal.query(lambda connection: blob_table.known(connection, sha256))
        is_named = await self.journal.query(lambda connection: blob_refs.is_named(connection, sha256))
        if row is None and not is_named and await asyncio.to_thread(self.files.size, sha256) is None:
            raise RefusedError("no_such_blob", f"there is no file {sha256[:16]}… here")
        if row is not None and row.local != WHOLE:
            raise DamagedBlobError(f"blob {sha256[:16]}…: {row.local}", hint=_FETCHED)
        now_s, mark = mono_s(), await asyncio.to_thread(self.files.mark, sha256)
        if (sure := self._sure.get(sha256)) is not None and sure[0] == mark and now_s - sure[1] < _SURE_S:
            return self.files.path(sha256)
        try:
            path = await asyncio.to_thread(self.files.verify, sha256)
        except DamagedBlobError as error:
            await self._lost(sha256, str(error), row)
            raise
        self._sure = {name: seen for name, seen in self._sure.items() if now_s - seen[1] < _SURE_S}
        self._sure[sha256] = mark, now_s
        return path

    async def piece(self, sha256: str, start: int, size: int) -> bytes:
        """Some of its bytes. Raises DamagedBlobError."""
        return await asyncio.to_thread(self.files.read, sha256, start, size)

    def require(self, blobs: Sequence[str]) -> None:
        """Before a command is decided that names blobs; the journal's guard, too (`Journal.guard`).

        Raises:
            RefusedError: `no_such_blob`, `bad_request`.
        """
        for sha256 in blobs:
            _check_name(sha256)
            if sha256 in self._leaving or self.files.size(sha256) is None:
                hint = "send the file first, then what names it"
                raise RefusedError("no_such_blob", f"there is no file {sha256[:16]}… here", hint=hint)

    async def known(self, sha256: str) -> Known | None:
        """What is known of it, here and at the cloud."""
        return await self.journal.query(lambda connection: blob_table.known(connection, sha256))

    # --- for the uplink ------------------------------------------------------------------------------------------

    async def waiting(self) -> list[Waiting]:
        """What records name and the cloud does not have, in the order of sending."""

        def sized(rows: list[Waiting]) -> list[Waiting]:
            sizes = [row.size or self.files.size(row.sha256) or 0 for row in rows]
            return [
                Waiting(sha256=row.sha256, size=size, sent=row.sent, is_open=row.is_open)
                for row, size in zip(rows, sizes, strict=True)
            ]

        return await asyncio.to_thread(sized, await self.journal.query(blob_table.waiting))

    async def sent(self, row: Waiting, cloud: str, done: int, n: int) -> None:
        """The cloud has so much of it."""
        await self.journal.write(lambda c: blob_table.sent(c, row, cloud, done, n, _now_ms()))

    async def cloud_has(self, last: int, missing: list[str]) -> int:
        """What the cloud had and lost is sent again; how many."""
        count = await self.journal.write(lambda c: blob_table.wanted(c, last, missing))
        if count:
            _log.warning("headquarters lost %d blobs: they are sent again", count)
        return count

    # --- keeping -------------------------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """Delete what no record names after its grace time; find out what is gone."""
        names, rows = await self.journal.query(lambda c: (blob_table.named(c), blob_table.all_known(c)))
        files = {found.sha256: found for found in await asyncio.to_thread(lambda: list(self.files.walk()))}
        old = [found for name, found in files.items() if name not in names and self._is_old(found)]
        dropped = [found for found in old if await self._drop(found.sha256)]
        if dropped:
            size = sum(found.size for found in dropped)
            _log.info("%d files of %d bytes that no record names were deleted", len(dropped), size)
        for name in names - files.keys():
            row = rows.get(name)
            if row is None or row.local == WHOLE:
                await self._lost(name, f"blob {name[:16]}…: the file is gone", row)

    def _is_old(self, found: Found) -> bool:
        return time.time() - found.changed_s > self._grace_s

    async def _drop(self, sha256: str) -> bool:
        """Delete a blob unless a record names it. Commits are in the order in which they were asked for."""
        self._leaving.add(sha256)  # from here on no record can name it; one that waits for its commit comes before
        try:
            async with self._lock(sha256):
                if not await self.journal.write(lambda c: blob_table.forget(c, sha256)):
                    return False
                await asyncio.to_thread(self.files.remove, sha256)
                return True
        finally:
            self._leaving.discard(sha256)

    async def _lost(self, sha256: str, why: str, row: Known | None) -> None:
        size = row.size if row else 0
        local = DAMAGED if await asyncio.to_thread(self.files.size, sha256) is not None else GONE
        self._sure.pop(sha256, None)
        if await self.journal.write(lambda c: blob_table.lost(c, sha256, local, size, _now_ms())):
            _log.error("%s", why)
            self._tell("blob.lost", {"sha256": sha256, "local": local, "cloud": row.cloud if row else "none"})
        self._wake()

    def _lock(self, sha256: str) -> asyncio.Lock:
        return self._locks.setdefault(sha256, asyncio.Lock())

    def _committed(self, records: list[Record]) -> None:
        if blob_refs.changes_order(records, self._rules):
            self._wake()

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()


_FETCHED = "headquarters is asked for it when it has it"


def _check_name(sha256: str) -> None:
    if not SHA256.fullmatch(sha256):
        raise RefusedError("bad_request", f"{sha256[:80]!r} is not a SHA-256 in lower-case hexadecimal digits")


def _check_type(head: bytes) -> None:
    if media_type(head[:HEAD_BYTES]) not in EVIDENCE:
        hint = "JPEG, PNG, WebP, AVIF, HEIC, MP4, WebM, MOV, MP3, M4A, Ogg, WAV, FLAC or PDF"
        raise RefusedError("wrong_type", "this is no picture, video, speech or PDF", hint=hint)


def _now_ms() -> int:
    return int(time.time() * 1000)
