"""Bundles that come on a USB stick: the same batches, the same ingest, and an answer to take back.

A bundle is known by its gateway's signature, not by who brings it. It comes over the service's own socket
(`sitewarden bundle import`) or the page of somebody who may.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ..errors import RefusedError
from ..sync.bundle import ANSWER, BATCHES, BundleReader, BundleWriter, Packed
from ..sync.columns import DamagedError
from ..sync.seal import SEALED_BYTES, is_sealed, unseal
from ..sync.streams import STREAMS
from .ingest import open_parcel
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

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """POST of a file: a line of JSON for each step, at last the result with the answer, or an error."""
        async with self._turn:
            with tempfile.TemporaryFile(dir=self._spool) as file:
                await _receive(request, file)
                response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
                await response.prepare(request)

                async def tell(fields: dict[str, Any]) -> None:
                    await response.write(json.dumps(fields).encode() + b"\n")

                try:
                    await tell(await self.take(file, tell))
                except RefusedError as error:
                    await tell({"error": {"reason": error.reason, "message": error.message, "hint": error.hint}})
                except DamagedError as error:
                    await tell({"error": {"reason": "damaged", "message": error.message, "hint": error.hint}})
                await response.write_eof()
                return response

    async def take(self, file: IO[bytes], tell: Told) -> dict[str, Any]:
        """Take a bundle in; what was taken stays, whatever comes after it.

        Returns:
            `gateway`, `streams` (see `Outcome`), `answer` (base64 of a bundle).

        Raises:
            RefusedError: `not_for_here`, `unknown_gateway`, `wrong_key`, `bad_signature`.
            DamagedError: it is no bundle, or not as it was made.
        """
        with await asyncio.to_thread(self._unsealed, file) as clear:
            reader = await asyncio.to_thread(BundleReader, clear)
            manifest = reader.manifest
            if manifest.kind != BATCHES:
                raise RefusedError("not_for_here", "this is an answer: it goes to the gateway that it is for")
            keys = await self._keys_of(manifest.gateway)
            if not keys:
                hint = "enrol it first"
                raise RefusedError("unknown_gateway", f"gateway {manifest.gateway} has no key here", hint=hint)
            await asyncio.to_thread(reader.verify, keys)
            outcomes = await self._take_batches(reader, manifest.gateway, tell)
        answer = await self._answer(manifest.gateway)
        self._changed(manifest.gateway)
        streams = [outcome.to_json() for outcome in outcomes]
        return {"gateway": manifest.gateway, "streams": streams, "answer": base64.b64encode(answer).decode()}

    async def _take_batches(self, reader: BundleReader, gateway: str, tell: Told) -> list[Outcome]:
        outcomes: dict[tuple[str, str], Outcome] = {}
        batches = sorted(reader.manifest.batches, key=lambda packed: (packed.stream, packed.epoch, packed.n))
        for done, packed in enumerate(batches, 1):
            key = (packed.stream, packed.epoch)
            outcome = outcomes.setdefault(key, Outcome(stream=packed.stream, epoch=packed.epoch))
            if not outcome.problem:
                await self._take_one(reader, gateway, packed, outcome)
            if done % _TELL_EVERY == 0 or done == len(batches):
                await tell({"done": done, "of": len(batches)})
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

    async def _answer(self, gateway: str) -> bytes:
        file = io.BytesIO()
        writer = BundleWriter(file, self._key, kind=ANSWER, gateway=gateway, made_ms=int(time.time() * 1000))
        writer.set_cursors(await self._store.cursors(gateway))
        writer.finish()
        return file.getvalue()

    def _unsealed(self, file: IO[bytes]) -> IO[bytes]:
        file.seek(0)
        sealed = is_sealed(file.read(SEALED_BYTES))
        file.seek(0)
        clear = tempfile.TemporaryFile(dir=self._spool)  # noqa: SIM115 - the caller closes it
        try:
            if sealed:
                for piece in unseal(file, self._seal_key):
                    clear.write(piece)
            else:
                while piece := file.read(1 << 20):
                    clear.write(piece)
        except BaseException:
            clear.close()
            raise
        return clear


async def _receive(request: web.Request, file: IO[bytes]) -> None:
    size = 0
    while chunk := await request.content.readany():
        size += len(chunk)
        if size > MOST_BYTES:
            raise RefusedError("too_large", f"a bundle may have {MOST_BYTES >> 20} MiB")
        await asyncio.to_thread(file.write, chunk)
