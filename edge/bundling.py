"""Sync by USB stick, the gateway's side: what headquarters does not have goes out, its answer comes in.

In the order of the link: the journal, evidence of open cases, the history, other evidence.

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
from ..sync.blob_table import Waiting
from ..sync.blobs import Blobs
from ..sync.bundle import ANSWER, BATCHES, MOST_BATCHES, PART_BYTES, BundleReader, BundleWriter
from ..sync.bundle_acks import known_acks, newest_answer_ms, note_acks
from ..sync.columns import DamagedError
from ..sync.epochs import agree, noting
from ..sync.history import History
from ..sync.history_outbox import HistoryOutbox
from ..sync.journal import Journal
from ..sync.outbox import JournalOutbox, Outbox
from ..sync.streams import JOURNAL
from ..sync.wire import Cursor, SyncReply
from .bundle_cargo import Evidence, Room, TakeOrder, order_of_stopped, take_order_of
from .cases import CASES

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
        blobs: evidence; None: it does not travel.
        take_order: gets the configuration that an answer brings.
    """

    def __init__(
        self,
        journal: Journal,
        history: History,
        key: Ed25519PrivateKey,
        trusted: Callable[[], Mapping[str, Ed25519PublicKey]],
        blobs: Blobs | None = None,
        take_order: TakeOrder = order_of_stopped,
    ) -> None:
        self._journal, self._history, self._key, self._trusted = journal, history, key, trusted
        self._evidence = Evidence(blobs) if blobs is not None else None
        self._take_order = take_order
        self._outboxes: tuple[Outbox, ...] = (JournalOutbox(journal), HistoryOutbox(history, noting(journal)))
        self._turn = asyncio.Lock()

    def use(self, key: Ed25519PrivateKey) -> None:
        """Sign with `key` from now on."""
        self._key = key

    def add_to(self, app: web.Application) -> None:
        """Routes of the control socket."""
        app.router.add_get("/v1/bundle", self._begin)
        app.router.add_post("/v1/bundle", self._export)
        app.router.add_post("/v1/bundle/answer", self._answer)

    async def begin(self, *, everything: bool = False) -> dict[str, int]:
        """Seal what is in the buffers; by `stream/epoch` the last batch that need not travel, in the order of travel.

        Args:
            everything: from the first one that is kept, not from what headquarters is known to have.
        """
        if self._journal.not_recorded is not None:
            hint = "wait until the disk takes writes again; what is in memory travels afterwards"
            raise RefusedError(
                "not_recorded", "the gateway's disk takes nothing: there is no journal to export", hint=hint
            )
        await self._history.flush(seal=True)
        known = {} if everything else await self._journal.query(known_acks)
        since: dict[str, int] = {}
        async with self._turn:
            for outbox in self._outboxes:
                async for epoch in _each(outbox):
                    ack = known.get((outbox.stream, epoch))
                    if ack is None or everything:  # what is gone was durable there
                        ack = await outbox.kept_from() - 1
                    since[f"{outbox.stream}/{epoch}"] = max(ack, await outbox.gone())  # a link may have brought it
        return since

    async def export(
        self, since: Mapping[str, int], put: Put, *, blobs_skip: int = 0, max_bytes: int = PART_BYTES
    ) -> None:
        """One file with what is above `since`, in pieces as they come. Its manifest says when there is more.

        Args:
            since: by `stream/epoch`, the last batch that need not be in it; others are left out.
            blobs_skip: how many pieces of evidence lie in files before this one.
            max_bytes: about, of the file.

        Raises:
            PermanentError: a batch that should be in it is not kept any more.
        """
        async with self._turn:
            sink = _Sink()
            made_ms = int(time.time() * 1000)
            writer = BundleWriter(sink, self._key, kind=BATCHES, gateway=self._journal.gateway, made_ms=made_ms)  # pyright: ignore[reportArgumentType] - a raw file is enough
            room = Room(bytes=min(max_bytes, PART_BYTES), batches=MOST_BATCHES)
            try:
                await self._pour(writer, since, blobs_skip, room, lambda: put(sink.take()))
                writer.finish(more=room.full)
            except BaseException:
                writer.abandon()
                raise
            await put(sink.take())

    async def _pour(
        self,
        writer: BundleWriter,
        since: Mapping[str, int],
        blobs_skip: int,
        room: Room,
        put: Callable[[], Awaitable[None]],
    ) -> None:
        rows = await self._evidence.waiting(blobs_skip) if self._evidence is not None else []
        for outbox in self._outboxes:
            await self._pour_batches(writer, outbox, since, room, put)
            await self._pour_evidence(
                [row for row in rows if row.is_open == (outbox.stream == JOURNAL)], writer, room, put
            )

    async def _pour_evidence(
        self, rows: list[Waiting], writer: BundleWriter, room: Room, put: Callable[[], Awaitable[None]]
    ) -> None:
        if self._evidence is not None and rows:
            await self._evidence.pour(rows, writer, room, put)

    async def _pour_batches(
        self,
        writer: BundleWriter,
        outbox: Outbox,
        since: Mapping[str, int],
        room: Room,
        put: Callable[[], Awaitable[None]],
    ) -> None:
        async for epoch in _each(outbox):
            if (done := since.get(f"{outbox.stream}/{epoch}")) is None:
                continue
            n = done + 1
            while (batch := await outbox.batch(n)) is not None and room.take_batch(len(batch.body)):
                writer.add_batch(outbox.stream, epoch, n, batch.chain, batch.body)
                await put()
                n = batch.through + 1

    async def take_answer(self, reader: BundleReader) -> dict[str, Any]:
        """Believe an answer of headquarters: what it has need not be sent, what it calls durable may go, and the
        configuration that it brings is tried.

        Returns:
            `streams`: by name, how far it has each. `blobs`, `config`: what became of them, None without any.

        Raises:
            RefusedError: `not_an_answer`, `other_gateway`, `wrong_key`, `bad_signature`, `old_answer`.
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
        reply = SyncReply(time_ms=manifest.made_ms, streams=manifest.cursors)
        known = await self._journal.query(known_acks)
        found: dict[str, list[Cursor]] = {}
        async with self._turn:
            for outbox in self._outboxes:
                found[outbox.stream] = await self._believe(outbox, reply, known)
        await self._journal.write(lambda connection: note_acks(connection, max(manifest.made_ms, newest), found))
        newest_of = {stream: cursors[-1] for stream, cursors in found.items() if cursors}
        return {
            "streams": {name: {"ack": cursor.ack, "durable": cursor.durable} for name, cursor in newest_of.items()},
            "blobs": await self._evidence.believe(reader) if self._evidence is not None else None,
            "config": await take_order_of(reader, self._take_order),
        }

    async def _believe(self, outbox: Outbox, reply: SyncReply, known: Mapping[tuple[str, str], int]) -> list[Cursor]:
        """What an answer says of each of our epochs; where it knows another history, the next one begins."""
        stream = outbox.stream

        async def same(epoch: str, n: int) -> bool:
            """No answer says where histories parted; up to the last one that was believed they were the same."""
            return n <= known.get((stream, epoch), 0)

        await outbox.open()
        outbox.stand("")
        said: list[Cursor] = []
        while (epoch := outbox.epoch) in reply.known(stream) or outbox.is_apart:
            cursor = await agree(outbox, reply, self._journal.gateway, same)
            if cursor.epoch in reply.known(stream):
                said.append(cursor)
            await outbox.acked(cursor.ack, cursor.durable)
            if outbox.epoch == epoch:
                break
        return said

    async def _begin(self, request: web.Request) -> web.Response:
        since = await self.begin(everything=request.query.get("all") == "1")
        return web.json_response({"gateway": self._journal.gateway, "since": since})

    async def _export(self, request: web.Request) -> web.StreamResponse:
        fields = await body(request, {"since": dict, "blobs_skip": (int, type(None)), "max_bytes": (int, type(None))})
        since = {str(name): n for name, n in fields["since"].items() if type(n) is int and 0 <= n < 2**53}
        await self._first_are_kept(since)
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(request)
        skip, most = max(0, fields["blobs_skip"] or 0), fields["max_bytes"] or PART_BYTES
        await self.export(since, response.write, blobs_skip=skip, max_bytes=most)
        await response.write_eof()
        return response

    async def _first_are_kept(self, since: Mapping[str, int]) -> None:
        """Once the answer has begun it can only break off."""
        try:
            async with self._turn:
                for outbox in self._outboxes:
                    async for epoch in _each(outbox):
                        if (done := since.get(f"{outbox.stream}/{epoch}")) is not None:
                            await outbox.batch(done + 1)
        except PermanentError as error:
            raise RefusedError("not_kept", error.message, hint=error.hint) from error

    async def _answer(self, request: web.Request) -> web.Response:
        with tempfile.TemporaryFile() as file:
            await _spool(request, file)
            try:
                reader = await asyncio.to_thread(BundleReader, file)
            except DamagedError as error:
                raise RefusedError("damaged", str(error)) from error
            return web.json_response(await self.take_answer(reader))


async def _spool(request: web.Request, file: IO[bytes]) -> None:
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > MOST_ANSWER_BYTES:
            raise RefusedError("too_large", f"an answer may have {MOST_ANSWER_BYTES} bytes")
        file.write(chunk)


async def _each(outbox: Outbox) -> AsyncIterator[str]:
    """Every epoch in turn, with the outbox standing there."""
    await outbox.open()
    try:
        for epoch in outbox.names():
            outbox.stand(epoch)
            yield epoch
    finally:
        outbox.stand("")


@contextlib.asynccontextmanager
async def stopped_gateway(data: Path, trusted: Callable[[], Mapping[str, Ed25519PublicKey]]) -> AsyncIterator[Bundling]:
    """The same of a gateway whose daemon does not run.

    Raises:
        PermanentError: it runs, or the folder holds no journal.
    """
    from ..sync.keys import load_or_create_key
    from ..sync.recorded import gateway_of
    from .lock import only_one
    from .stores import open_history, open_journal

    path = data / "journal.db"
    if not path.is_file():
        raise PermanentError(f"{data}: there is no journal.db", hint="name the data folder of a gateway")
    gateway = await asyncio.to_thread(gateway_of, path)
    with only_one(data):
        key = load_or_create_key(data / "gateway.key")
        async with (
            open_journal(data, gateway) as journal,
            open_history(data, gateway) as history,
            Blobs(data / "blobs", journal, rules=CASES) as blobs,
        ):
            yield Bundling(journal, history, key, trusted, blobs)
