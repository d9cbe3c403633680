"""Bundles that come on a USB stick: the same batches, the same ingest, and an answer to take back.

A bundle is known by its gateway's signature, not by who brings it. It comes over the service's own socket
(`sitewarden bundle import`) or the page of somebody who may (`bundle_pages.py`). The answer says how far headquarters
has each stream, what it has of the evidence, and brings the configuration.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ..errors import RefusedError, TransientError
from ..sync.bundle import ANSWER, BATCHES, ORDER, BundleError, BundleReader, BundleWriter, Packed
from ..sync.columns import DamagedError
from ..sync.journal import canonical
from ..sync.orders import Order
from ..sync.seal import SEALED_BYTES, is_sealed, unseal
from ..sync.streams import STREAMS
from .blobs import Blobs
from .bundle_blobs import Brought, name_blobs, take_blobs
from .parcels import open_parcel
from .store import OutOfStepError, Store

MOST_BYTES = 4 << 30
_TELL_EVERY = 50

KeysOf = Callable[[str], Awaitable[Mapping[str, Ed25519PublicKey]]]
Told = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What became of one stream of a bundle.

    Attributes:
        new, known: batches that were stored, and that were there already. quarantined: those of `new` that could not
            be used and lie aside.
        problem: why the others were not taken; empty when all were.
    """

    stream: str
    epoch: str
    ack: int = 0
    new: int = 0
    known: int = 0
    quarantined: int = 0
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Bundles:
    """Takes bundles in.

    Args:
        keys_of: id to key of a gateway that may send; empty for others.
        key: signs the answers. seal_key: opens sealed files.
        spool: folder for a bundle while it is looked at.
        changed: called with the gateway when pages have something new.

    Attributes:
        blobs: takes evidence in; None: it is not taken. order_for: the configuration that goes back with an answer.
    """

    def __init__(
        self,
        store: Store,
        keys_of: KeysOf,
        key: Ed25519PrivateKey,
        seal_key: X25519PrivateKey,
        spool: Path,
        changed: Callable[[str], None],
    ) -> None:
        self._store, self._keys_of, self._key, self._seal_key = store, keys_of, key, seal_key
        self._spool, self._changed = spool, changed
        self._turn = asyncio.Lock()
        self.blobs: Blobs | None = None
        self.order_for: Callable[[str], Order | None] = lambda _: None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """POST of a file: a line of JSON for each step, at last the result with the answer, or an error."""
        with tempfile.TemporaryFile(dir=self._spool) as file:
            await _receive(request, file)
            return await self.answer(request, file)

    async def answer(self, request: web.Request, file: IO[bytes]) -> web.StreamResponse:
        """Take a file in, and say so line by line. It is taken to its end, also when whoever brought it has gone.

        Raises:
            RefusedError: as `take`, and `damaged`, before anything was taken.
        """
        async with self._turn, self._judged(file) as reader:
            response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
            await response.prepare(request)

            async def tell(fields: dict[str, Any]) -> None:
                with contextlib.suppress(ConnectionError):
                    await response.write(json.dumps(fields).encode() + b"\n")

            try:
                await tell(await self._take(reader, tell))
            except (RefusedError, DamagedError, TransientError) as error:
                kinds = "damaged" if isinstance(error, DamagedError) else "unavailable"
                reason = error.reason if isinstance(error, RefusedError) else kinds
                await tell({"error": {"reason": reason, "message": error.message, "hint": error.hint}})
            except OSError as error:
                await tell({"error": {"reason": "unavailable", "message": error.strerror or str(error), "hint": ""}})
            with contextlib.suppress(ConnectionError):
                await response.write_eof()
            return response

    async def take(self, file: IO[bytes], tell: Told) -> dict[str, Any]:
        """Take a bundle in; what was taken stays, whatever comes after it.

        Returns:
            `gateway`, `streams` (see `Outcome`), `blobs` (see `Brought`; None without any), `config` (revision of the
            configuration that goes back, or None), `more` (another file follows), `answer` (base64 of a bundle).

        Raises:
            RefusedError: `not_for_here`, `unknown_gateway`, `wrong_key`, `bad_signature`, `damaged`.
            DamagedError: it is not as it was made.
        """
        async with self._judged(file) as reader:
            return await self._take(reader, tell)

    async def _take(self, reader: BundleReader, tell: Told) -> dict[str, Any]:
        gateway, count = reader.manifest.gateway, len(reader.manifest.batches)
        of = count + (len(reader.manifest.blobs) if self.blobs is not None else 0)

        async def told(done: int) -> None:
            if done % _TELL_EVERY == 0 or done in (count, of) or done > count:
                await tell({"done": done, "of": of})

        outcomes = await self._take_batches(reader, gateway, told)
        brought: Brought | None = None
        if self.blobs is not None and reader.manifest.blobs:
            brought = await take_blobs(self.blobs, reader, gateway, lambda done: told(count + done))
        order = self.order_for(gateway)
        answer = await self._answer(gateway, order, brought)
        self._changed(gateway)
        return {
            "gateway": gateway,
            "streams": [outcome.to_json() for outcome in outcomes],
            "blobs": brought.to_json() if brought is not None else None,
            "config": order.revision if order is not None else None,
            "more": reader.manifest.more,
            "answer": base64.b64encode(answer).decode(),
        }

    @contextlib.asynccontextmanager
    async def _judged(self, file: IO[bytes]) -> AsyncIterator[BundleReader]:
        """The bundle, when it is one that counts here."""
        try:
            clear = await asyncio.to_thread(self._unsealed, file)
        except DamagedError as error:
            raise _damaged(error) from error
        try:
            try:
                reader = await asyncio.to_thread(BundleReader, clear)
            except BundleError as error:
                raise _damaged(error) from error
            manifest = reader.manifest
            if manifest.kind != BATCHES:
                raise RefusedError("not_for_here", "this is an answer: it goes to the gateway that it is for")
            keys = await self._keys_of(manifest.gateway)
            if not keys:
                hint = "enrol it first"
                raise RefusedError("unknown_gateway", f"gateway {manifest.gateway} has no key here", hint=hint)
            await asyncio.to_thread(reader.verify, keys)
            yield reader
        finally:
            if clear is not file:
                clear.close()

    async def _take_batches(
        self, reader: BundleReader, gateway: str, told: Callable[[int], Awaitable[None]]
    ) -> list[Outcome]:
        outcomes: dict[tuple[str, str], Outcome] = {}
        batches = sorted(reader.manifest.batches, key=lambda packed: (packed.stream, packed.epoch, packed.n))
        for done, packed in enumerate(batches, 1):
            key = (packed.stream, packed.epoch)
            outcome = outcomes.setdefault(key, Outcome(stream=packed.stream, epoch=packed.epoch))
            if not outcome.problem:
                await self._take_one(reader, gateway, packed, outcome)
            await told(done)
        return list(outcomes.values())

    async def _take_one(self, reader: BundleReader, gateway: str, packed: Packed, outcome: Outcome) -> None:
        if packed.stream not in STREAMS:
            outcome.problem = f"stream {packed.stream} is not known here"
            return
        body = await asyncio.to_thread(reader.body, packed)
        parcel = await asyncio.to_thread(
            open_parcel, gateway, packed.stream, packed.epoch, packed.n, packed.chain, body, int(time.time() * 1000)
        )
        try:
            taken = await self._store.take(parcel)
        except OutOfStepError as error:
            outcome.ack, outcome.problem = error.ack, f"{error.reason}: {error.message}"
            return
        outcome.ack = taken.cursor.ack
        outcome.new += taken.new
        outcome.known += not taken.new
        outcome.quarantined += bool(taken.new and taken.problem)

    async def _answer(self, gateway: str, order: Order | None, brought: Brought | None) -> bytes:
        file = io.BytesIO()
        writer = BundleWriter(file, self._key, kind=ANSWER, gateway=gateway, made_ms=int(time.time() * 1000))
        writer.set_cursors(await self._store.cursors(gateway))
        if order is not None:
            writer.add_file(ORDER, canonical(order.to_json()))
        if self.blobs is not None:
            await name_blobs(self.blobs, writer, gateway, brought or Brought())
        writer.finish()
        return file.getvalue()

    def _unsealed(self, file: IO[bytes]) -> IO[bytes]:
        """The file itself, or what was sealed in it, which the caller closes."""
        file.seek(0)
        sealed = is_sealed(file.read(SEALED_BYTES))
        file.seek(0)
        if not sealed:
            return file
        clear = tempfile.TemporaryFile(dir=self._spool)  # noqa: SIM115 - the caller closes it
        try:
            for piece in unseal(file, self._seal_key):
                clear.write(piece)
        except BaseException:
            clear.close()
            raise
        return clear


def _damaged(error: DamagedError) -> RefusedError:
    return RefusedError("damaged", error.message, hint=error.hint or "copy the file again, from the gateway if need be")


async def _receive(request: web.Request, file: IO[bytes]) -> None:
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > MOST_BYTES:
            raise RefusedError("too_large", f"a bundle may have {MOST_BYTES >> 20} MiB")
        await asyncio.to_thread(file.write, chunk)
