"""What travels on a stick beside records and readings: evidence there, configuration and what has arrived back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from ..errors import RefusedError
from ..sync.blob_files import DamagedBlobError
from ..sync.blob_table import Waiting
from ..sync.blobs import Blobs
from ..sync.bundle import BLOBS_KNOWN, MOST_BLOBS, ORDER, BundleReader, BundleWriter
from ..sync.columns import DamagedError
from ..sync.orders import Order
from ..sync.wire import BLOB_DURABLE, BLOB_STORED, CHUNK_BYTES, SHA256
from .baseline_keeping import BaselineKeeper

_HEAD_BYTES = 512
"""About what a file costs in a zip and its manifest, beside its content."""


@dataclass(slots=True)
class Room:
    """What may still go into a file.

    Attributes:
        bytes, batches, blobs: left.
        full: something did not fit.
    """

    bytes: int
    batches: int
    blobs: int = MOST_BLOBS
    full: bool = False

    def take_batch(self, size: int) -> bool:
        """Whether a batch of so many bytes still fits; then it is counted."""
        return self._take(size, "batches")

    def take_blob(self, size: int) -> bool:
        """The same of a piece of evidence. One that is too large leaves room for smaller ones behind it."""
        return self._take(size, "blobs")

    def _take(self, size: int, what: str) -> bool:
        left = getattr(self, what)
        if left < 1 or size + _HEAD_BYTES > self.bytes:
            self.full = True
            return False
        self.bytes -= size + _HEAD_BYTES
        setattr(self, what, left - 1)
        return True


class Evidence:
    """Photos and other files that records name, on their way to headquarters by stick."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    async def waiting(self, skip: int) -> list[Waiting]:
        """What headquarters does not have, of open cases first. Args: skip: so many lie in files before this one."""
        return (await self._blobs.waiting())[skip:]

    async def pour(
        self, rows: list[Waiting], writer: BundleWriter, room: Room, put: Callable[[], Awaitable[None]]
    ) -> None:
        """Write as much of it as there is room for. What is damaged here is left out, and marked."""
        for row in rows:
            if not room.take_blob(row.size):
                continue
            try:
                await self._blobs.verified(row.sha256)
            except DamagedBlobError:
                continue
            with writer.blob(row.sha256, row.size) as file:
                for start in range(0, row.size, CHUNK_BYTES):
                    file.write(await self._blobs.piece(row.sha256, start, min(CHUNK_BYTES, row.size - start)))
                    await put()

    async def believe(self, reader: BundleReader) -> dict[str, int] | None:
        """What an answer says that headquarters has: it need not be sent. How much; None when it says nothing."""
        if BLOBS_KNOWN not in reader.manifest.files:
            return None
        last, wanted, known = _known(await asyncio.to_thread(reader.file, BLOBS_KNOWN))
        await self._blobs.cloud_has(last, wanted)
        rows = {row.sha256: row for row in await self._blobs.waiting()}
        found = [(rows[sha256], state, n) for sha256, state, n in known if sha256 in rows]
        for row, state, n in found:
            await self._blobs.sent(row, state, row.size, n)
        return {"arrived": len(known), "waiting": len(rows) - len(found)}


def _known(text: bytes) -> tuple[int, list[str], list[tuple[str, str, int]]]:
    """The newest number at headquarters, what it has lost, and (SHA-256, state, number) of what came."""
    try:
        fields = json.loads(text)
        last, wanted = fields["last"], [str(name) for name in fields["wanted"]]
        known = [(str(sha256), str(state), n) for sha256, state, n in fields["known"]]
        right = all(state in (BLOB_STORED, BLOB_DURABLE) and type(n) is int for _, state, n in known)
        if type(last) is not int or not right or not all(map(SHA256.fullmatch, [*wanted, *(k[0] for k in known)])):
            raise ValueError("a field has a wrong type")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"{BLOBS_KNOWN} is not readable: {error!r:.200}") from error
    return last, wanted, known


TakeOrder = Callable[[Order], Awaitable[dict[str, Any]]]


def take_order(keeper: BaselineKeeper) -> TakeOrder:
    """Put the configuration that an answer brings in force, as if it had come over the link."""

    async def take(order: Order) -> dict[str, Any]:
        about: dict[str, Any] = {"revision": order.revision, "problems": []}
        if order.revision <= keeper.have():
            return about | {"state": "known"}
        try:
            await keeper.take(order)
        except RefusedError as error:
            return about | {"state": "refused", "problems": [error.message]}
        report = keeper.report()
        return about | {"state": report["state"], "problems": [problem["en"] for problem in report["problems"]]}

    return take


async def order_of_stopped(order: Order) -> dict[str, Any]:
    """Where no daemon runs nothing can be tried, and nothing is put in force untried."""
    return {"revision": order.revision, "state": "not_running", "problems": []}


async def take_order_of(reader: BundleReader, take: TakeOrder) -> dict[str, Any] | None:
    """What became of the configuration in an answer; None when it brings none."""
    if ORDER not in reader.manifest.files:
        return None
    text = await asyncio.to_thread(reader.file, ORDER)
    try:
        order = Order.from_json(json.loads(text))
    except ValueError as error:
        raise DamagedError(f"{ORDER} is not readable: {error!r:.200}") from error
    return await take(order)
