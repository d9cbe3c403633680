"""The uplink's blobs: what records name goes to the cloud, evidence of open cases first, and what is lost comes back.

Pieces go over a connection of their own, each when the journal rests, at the offset that the cloud says. Before every
piece the order is looked at again, so a new open case overtakes a video that is half sent. What is refused is left
alone for a while and holds nothing else up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NoReturn, Protocol

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from ..errors import PermanentError, RefusedError, TransientError
from ..words import mono_s
from . import blob_table
from .blob_files import DamagedBlobError
from .blob_table import Waiting
from .blobs import Blobs
from .cloud_client import UplinkOptions
from .columns import DamagedError
from .link_state import UplinkHealth
from .retrying import LinkError
from .sqlite import StoreError
from .turns import Pace, Rank, Turns
from .wire import (
    BLOB_DURABLE,
    BLOB_NONE,
    BLOB_PART,
    BLOB_STORED,
    CHUNK_BYTES,
    MAX_CHUNK_BYTES,
    SHA256,
    blob_path,
    blobs_path,
)

_log = logging.getLogger(__name__)

STREAM = "blobs"
LOOK_S = 600.0
AGAIN_S = 900.0
_NOTE_EVERY = 16
_SETTLE_AT_ONCE = 100
_OF_THIS_BLOB = frozenset(
    {"too_large", "quota", "too_many_uploads", "wrong_content", "wrong_type", "bad_request", "no_such_blob"}
)
"""Refusals that say something of one blob; all others are the link's."""


class Client(Protocol):
    """What is needed of the uplink's client."""

    options: UplinkOptions
    health: UplinkHealth
    turns: Turns

    @property
    def pace(self) -> Pace:
        """The link that all senders share."""
        ...

    def session(self) -> AbstractAsyncContextManager[Any]:
        """A connection of its own."""
        ...

    async def get(self, session: Any, path: str) -> Any: ...

    async def head(self, session: Any, path: str) -> Mapping[str, str]: ...

    async def patch(self, session: Any, path: str, offset: int, length: int, piece: bytes) -> Mapping[str, Any]: ...

    async def fetch(self, session: Any, path: str, start: int, size: int) -> bytes: ...


class BlobStream:
    """Sends and fetches. `run` is given to the uplink.

    Args:
        look_s: so often it asks what the cloud has lost, and whether what it has is durable.
        again_s: what was refused is tried again after this time.
    """

    def __init__(self, blobs: Blobs, *, look_s: float = LOOK_S, again_s: float = AGAIN_S) -> None:
        self._blobs, self._look_s, self._again_s = blobs, look_s, again_s
        self._news = asyncio.Event()
        self._refused: dict[str, float] = {}
        self._at: dict[str, int] = {}
        blobs.subscribe(self._news.set)

    async def run(self, client: Client) -> NoReturn:
        """For ever; pauses between tries grow to `backoff_max_s` and are random in full.

        Raises:
            StoreError: the journal's own file failed.
        """
        wait = wait_random_exponential(multiplier=1, max=client.options.backoff_max_s)

        def pause(state: RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            return max(wait(state), error.retry_s if isinstance(error, LinkError) else 0.0)

        async for attempt in AsyncRetrying(wait=pause, retry=retry_if_exception_type(LinkError)):
            with attempt:
                await self._attempt(client, attempt.retry_state)
        raise AssertionError("retries never end")

    async def _attempt(self, client: Client, state: RetryCallState) -> NoReturn:
        self._at.clear()  # after any error the cloud is asked
        try:
            async with client.session() as session:
                await _Round(self, client, session).drain(state)
        except StoreError:
            raise
        except (TransientError, PermanentError, OSError, sqlite3.DatabaseError) as error:
            reason = error.reason if isinstance(error, LinkError | RefusedError) else type(error).__name__
            link = error if isinstance(error, LinkError) else LinkError(reason, str(error))
            client.health.failed(STREAM, link.reason, str(error))
            raise link from error
        finally:
            for rank in (Rank.OPEN_CASES, Rank.CLOSED_CASES):
                client.turns.end(rank)
        raise AssertionError("unreachable")

    # What a round needs of it ------------------------------------------------------------------------------------

    @property
    def blobs(self) -> Blobs:
        """Of the gateway."""
        return self._blobs

    @property
    def offsets(self) -> dict[str, int]:
        """Where the cloud is, as far as it was asked in this connection."""
        return self._at

    async def pause(self) -> None:
        """Until there is news, or it is time to look."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._look_s):
                await self._news.wait()

    def looked(self) -> None:
        """What is news from now on comes after this."""
        self._news.clear()

    def refuse(self, sha256: str) -> None:
        """Leave it alone for a while."""
        self._refused[sha256] = mono_s() + self._again_s

    def refused(self) -> set[str]:
        """What is left alone now."""
        self._refused = {name: until for name, until in self._refused.items() if mono_s() < until}
        return set(self._refused)

    @property
    def look_s(self) -> float:
        return self._look_s


class _Round:
    """One connection's work."""

    def __init__(self, stream: BlobStream, client: Client, session: Any) -> None:
        self._stream, self._client, self._session = stream, client, session
        self._blobs, self._health = stream.blobs, client.health.blobs
        self._gateway = client.options.gateway
        self._pieces = 0
        self._asked_s = float("-inf")

    async def drain(self, state: RetryCallState) -> NoReturn:
        """Send and fetch until something fails."""
        while True:
            self._stream.looked()
            if mono_s() - self._asked_s >= self._stream.look_s:
                self._take_rank(await self._blobs.waiting(), self._stream.refused())
                await self._ask_cloud()
                self._asked_s = mono_s()
            if not (await self._send_next() or await self._fetch_next()):
                await self._stream.pause()
            state.attempt_number = 1

    async def _ask_cloud(self) -> None:
        """What it has lost, and whether it will keep the rest."""
        answer = await self._client.get(self._session, blobs_path(self._gateway))
        try:
            last, wanted = answer["last"], answer["wanted"]
            if type(last) is not int or not all(SHA256.fullmatch(name) for name in wanted):
                raise ValueError(f"last {last!r}")
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"not an answer about blobs: {error}") from error
        await self._blobs.cloud_has(last, list(wanted))
        for sha256 in await self._blobs.journal.query(lambda c: blob_table.unsettled(c, _SETTLE_AT_ONCE)):
            found = await self._client.head(self._session, blob_path(self._gateway, sha256))
            if found.get("SW-Blob") == BLOB_DURABLE:
                await self._blobs.journal.write(lambda c, name=sha256: blob_table.settled(c, name))
        self._client.health.succeeded(STREAM)

    async def _send_next(self) -> bool:
        """One piece; False when nothing is left to send."""
        rows = await self._blobs.waiting()
        left = self._stream.refused()
        await self._show(rows, left)
        row = next((row for row in rows if row.sha256 not in left), None)
        self._take_rank(rows, left)
        if row is None:
            return False
        try:
            await self._send_piece(row)
        except DamagedBlobError:
            return True  # it is marked, and not in the next list
        except LinkError as error:
            if error.reason == "offset":
                self._stream.offsets.pop(row.sha256, None)
                return True
            if error.reason not in _OF_THIS_BLOB:
                raise
            self._refuse(row.sha256, error)
        return True

    def _take_rank(self, rows: list[Waiting], left: set[str]) -> None:
        turns = self._client.turns
        for rank, is_open in ((Rank.OPEN_CASES, True), (Rank.CLOSED_CASES, False)):
            busy = any(row.is_open == is_open and row.sha256 not in left for row in rows)
            turns.begin(rank) if busy else turns.end(rank)

    async def _send_piece(self, row: Waiting) -> None:
        path, offsets = blob_path(self._gateway, row.sha256), self._stream.offsets
        if row.sha256 not in offsets:
            await self._blobs.verified(row.sha256)  # a damaged file is not carried over the link to be refused there
            offsets[row.sha256] = await self._where(row, path)
            if offsets[row.sha256] < 0:
                return
        at = offsets[row.sha256]
        size = max(1, min(self._client.pace.bulk_bytes, CHUNK_BYTES, MAX_CHUNK_BYTES, row.size - at))
        await self._client.turns.turn(Rank.OPEN_CASES if row.is_open else Rank.CLOSED_CASES)
        await self._client.pace.turn(size)
        piece = await self._blobs.piece(row.sha256, at, size)
        answer = await self._client.patch(self._session, path, at, row.size, piece)
        await self._taken(row, at + len(piece), answer)

    async def _where(self, row: Waiting, path: str) -> int:
        """Where to go on; -1 when the cloud has all of it already."""
        found = await self._client.head(self._session, path)
        self._client.health.succeeded(STREAM)
        cloud, offset = found.get("SW-Blob", ""), found.get("Upload-Offset", "")
        if cloud in (BLOB_STORED, BLOB_DURABLE):
            await self._blobs.sent(row, cloud, row.size, int(found.get("SW-Number", "0")))
            self._stream.offsets.pop(row.sha256, None)
            return -1
        if cloud not in (BLOB_NONE, BLOB_PART) or not offset.isdecimal() or int(offset) > row.size:
            raise LinkError("odd_answer", f"the cloud's answer about blob {row.sha256[:16]}… does not fit")
        return int(offset)

    async def _taken(self, row: Waiting, at: int, answer: Mapping[str, Any]) -> None:
        cloud, offset = str(answer.get("state", "")), answer.get("offset")
        if cloud not in (BLOB_PART, BLOB_STORED, BLOB_DURABLE) or type(offset) is not int or offset < at:
            raise LinkError("odd_answer", f"the cloud's answer to a piece of blob {row.sha256[:16]}… does not fit")
        self._client.health.succeeded(STREAM)
        if cloud == BLOB_PART:
            self._stream.offsets[row.sha256] = offset
            self._pieces += 1
            if self._pieces % _NOTE_EVERY != 1:
                return  # the cloud knows it exactly; the card need not be written each time
        else:
            self._stream.offsets.pop(row.sha256, None)
        await self._blobs.sent(row, cloud, offset, int(answer.get("n", 0)))

    def _refuse(self, sha256: str, error: LinkError) -> None:
        _log.warning("blob %s is not taken: %s", sha256, error)
        self._stream.refuse(sha256)
        self._stream.offsets.pop(sha256, None)
        self._health.refusal = error.reason

    async def _show(self, rows: list[Waiting], left: set[str]) -> None:
        health, offsets = self._health, self._stream.offsets
        health.waiting, health.open = len(rows), sum(row.is_open for row in rows)
        health.bytes = sum(row.size - offsets.get(row.sha256, min(row.sent, row.size)) for row in rows)
        health.refused = sum(row.sha256 in left for row in rows)
        health.refusal = health.refusal if health.refused else ""
        counts = await self._blobs.journal.query(blob_table.counts)
        health.damaged = counts.get(blob_table.DAMAGED, 0) + counts.get(blob_table.GONE, 0)

    async def _fetch_next(self) -> bool:
        """One blob that is damaged or gone here; False when there is none that the cloud may have."""
        left = self._stream.refused()
        names = await self._blobs.journal.query(blob_table.to_fetch)
        sha256 = next((name for name in names if name not in left), None)
        if sha256 is None:
            return False
        row = await self._blobs.known(sha256)
        assert row is not None, "a row is never deleted while a record names its blob"
        try:
            here = await self._blobs.here(sha256)
            await self._blobs.append(sha256, here.offset, row.size, self._pieces_of(sha256, here.offset, row.size))
        except (LinkError, RefusedError) as error:
            if error.reason not in _OF_THIS_BLOB:
                raise
            self._refuse(sha256, LinkError(error.reason, str(error)))
        return True

    async def _pieces_of(self, sha256: str, start: int, size: int) -> AsyncIterator[bytes]:
        path, turns = blob_path(self._gateway, sha256), self._client.turns
        while start < size:
            most = min(self._client.pace.bulk_bytes, CHUNK_BYTES, size - start)
            await turns.turn(Rank.CLOSED_CASES)
            await self._client.pace.turn(most)
            piece = await self._client.fetch(self._session, path, start, most)
            if not piece:
                raise LinkError("odd_answer", f"the cloud sent nothing of blob {sha256[:16]}…")
            start += len(piece)
            yield piece
