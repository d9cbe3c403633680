"""Sync by USB stick, the gateway's side: what headquarters does not have goes out, its answer comes in.

The daemon alone writes its stores, so `sitewarden bundle` asks it over the control socket; where no daemon runs, the
command opens the stores itself, under the daemon's lock.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO, Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import PermanentError, RefusedError
from ..serving.web import body
from ..sync.bundle import ANSWER, BATCHES, MOST_BATCHES, BundleReader, BundleWriter
from ..sync.bundle_acks import known_acks, newest_answer_ms, note_acks
from ..sync.columns import DamagedError
from ..sync.history import History
from ..sync.journal import Journal
from ..sync.outbox import HistoryOutbox, JournalOutbox, Outbox
from ..sync.streams import HISTORY, JOURNAL
from ..sync.wire import Cursor

MOST_ANSWER_BYTES = 64 * 1024 * 1024

Put = Callable[[bytes], Awaitable[None]]


class _Sink(io.RawIOBase):
    """Collects what a writer writes until it is taken."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        parts, self._parts = self._parts, []
        return b"".join(parts)


class Bundling:
    """Bundles of one gateway.

    Args:
        key: of the gateway.
        trusted: id to key of those whose answers count.
    """

    def __init__(
        self,
        journal: Journal,
        history: History,
        key: Ed25519PrivateKey,
        trusted: Callable[[], Mapping[str, Ed25519PublicKey]],
    ) -> None:
        self._journal, self._history, self._key, self._trusted = journal, history, key, trusted
        self._outboxes: tuple[Outbox, ...] = (JournalOutbox(journal), HistoryOutbox(history))
        self._turn = asyncio.Lock()

    def add_to(self, app: web.Application) -> None:
        """Routes of the control socket."""
        app.router.add_get("/v1/bundle", self._begin)
        app.router.add_post("/v1/bundle", self._export)
        app.router.add_post("/v1/bundle/answer", self._answer)

    async def begin(self, *, everything: bool = False) -> dict[str, int]:
        """Seal what is in the buffers; by stream the last batch that need not travel.

        Args:
            everything: from the first one that is kept, not from what headquarters is known to have.
        """
        await self._history.flush(seal=True)
        gone = await self._history.oldest() - 1
        if everything:
            return {JOURNAL: 0, HISTORY: gone}
        known = await self._journal.query(known_acks)
        acks = {outbox.stream: known.get((outbox.stream, outbox.epoch), 0) for outbox in self._outboxes}
        return acks | {HISTORY: max(acks[HISTORY], gone)}  # it went because it was durable there

    async def export(self, since: Mapping[str, int], put: Put) -> None:
        """One file with at most `MOST_BATCHES` batches above `since`, in pieces as they come.

        Args:
            since: by stream, the last batch that need not be in it.

        Raises:
            PermanentError: a batch that should be in it is not kept any more.
        """
        async with self._turn:
            sink = _Sink()
            made_ms = int(time.time() * 1000)
            writer = BundleWriter(sink, self._key, kind=BATCHES, gateway=self._journal.gateway, made_ms=made_ms)  # pyright: ignore[reportArgumentType] - a raw file is enough
            try:
                await self._pour(writer, since, lambda: put(sink.take()))
                writer.finish()
            except BaseException:
                writer.abandon()
                raise
            await put(sink.take())

    async def _pour(self, writer: BundleWriter, since: Mapping[str, int], put: Callable[[], Awaitable[None]]) -> None:
        room = MOST_BATCHES
        for outbox in self._outboxes:
            await outbox.open()
            n = since.get(outbox.stream, 0) + 1
            while room and (batch := await outbox.batch(n)) is not None:
                writer.add_batch(outbox.stream, outbox.epoch, n, batch.chain, batch.body)
                await put()
                n, room = n + 1, room - 1

    async def take_answer(self, reader: BundleReader) -> dict[str, Any]:
        """Believe an answer of headquarters: what it has need not be sent, what it calls durable may go.

        Raises:
            RefusedError: `not_an_answer`, `other_gateway`, `wrong_key`, `bad_signature`, `old_answer`, `fork`.
        """
        manifest = reader.manifest
        if manifest.kind != ANSWER:
            hint = "take it to headquarters; the answer that is made there comes back"
            raise RefusedError("not_an_answer", "this file goes to headquarters", hint=hint)
        if manifest.gateway != self._journal.gateway:
            raise RefusedError("other_gateway", f"this answer is for gateway {manifest.gateway}")
        reader.verify(self._trusted())
        if manifest.made_ms < (newest := await self._journal.query(newest_answer_ms)):
            raise RefusedError("old_answer", "an answer that was made later was taken already")
        found: dict[str, Cursor] = {}
        for outbox in self._outboxes:
            await outbox.open()
            cursor = _cursor_of(manifest.cursors.get(outbox.stream, ()), outbox.epoch)
            if cursor is None:
                continue
            if not await outbox.agrees(cursor.ack, cursor.chain):
                hint = "this gateway's data was restored or cloned: it needs a new epoch"
                raise RefusedError("fork", f"{outbox.stream}: batch {cursor.ack} is not the one made here", hint=hint)
            found[outbox.stream] = cursor
        await self._journal.write(lambda connection: note_acks(connection, max(manifest.made_ms, newest), found))
        for outbox in self._outboxes:
            if (cursor := found.get(outbox.stream)) is not None:
                await outbox.acked(cursor.ack, cursor.durable)
        return {stream: {"ack": cursor.ack, "durable": cursor.durable} for stream, cursor in found.items()}

    async def _begin(self, request: web.Request) -> web.Response:
        since = await self.begin(everything=request.query.get("all") == "1")
        return web.json_response({"gateway": self._journal.gateway, "since": since})

    async def _export(self, request: web.Request) -> web.StreamResponse:
        fields = await body(request, {"since": dict})
        since = {str(name): n for name, n in fields["since"].items() if type(n) is int and 0 <= n < 2**53}
        await self._first_are_kept(since)
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(request)
        await self.export(since, response.write)
        await response.write_eof()
        return response

    async def _first_are_kept(self, since: Mapping[str, int]) -> None:
        """Once the answer has begun it can only break off."""
        try:
            for outbox in self._outboxes:
                await outbox.open()
                await outbox.batch(since.get(outbox.stream, 0) + 1)
        except PermanentError as error:
            raise RefusedError("not_kept", error.message, hint=error.hint) from error

    async def _answer(self, request: web.Request) -> web.Response:
        with tempfile.TemporaryFile() as file:
            await _spool(request, file)
            try:
                reader = await asyncio.to_thread(BundleReader, file)
            except DamagedError as error:
                raise RefusedError("damaged", str(error)) from error
            return web.json_response({"streams": await self.take_answer(reader)})


async def _spool(request: web.Request, file: IO[bytes]) -> None:
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > MOST_ANSWER_BYTES:
            raise RefusedError("too_large", f"an answer may have {MOST_ANSWER_BYTES} bytes")
        file.write(chunk)


def _cursor_of(known: tuple[Cursor, ...], epoch: str) -> Cursor | None:
    return next((cursor for cursor in known if cursor.epoch == epoch), None)


@contextlib.asynccontextmanager
async def stopped_gateway(data: Path, trusted: Callable[[], Mapping[str, Ed25519PublicKey]]) -> AsyncIterator[Bundling]:
    """The same of a gateway whose daemon does not run.

    Raises:
        PermanentError: it runs, or the folder holds no journal.
    """
    from ..sync.keys import load_or_create_key
    from ..sync.recorded import gateway_of
    from .lock import only_one

    path = data / "journal.db"
    if not path.is_file():
        raise PermanentError(f"{data}: there is no journal.db", hint="name the data folder of a gateway")
    gateway = await asyncio.to_thread(gateway_of, path)
    with only_one(data):
        async with Journal(path, gateway) as journal, History(data / "history.db", gateway) as history:
            yield Bundling(journal, history, load_or_create_key(data / "gateway.key"), trusted)
