"""The port behind which the bytes of blobs lie: a folder, or S3. One contract suite runs on both."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, Self

from ..errors import RefusedError, TransientError
from .blob_store import Part

READ_BYTES = 1024 * 1024

Remember = Callable[[str, dict[int, str]], Awaitable[None]]


class UnavailableError(TransientError):
    """The store does not answer, or has no room; nothing was changed as far as anybody knows. To be tried again."""


class MissingError(RefusedError):
    """Bytes that were durable are gone. `offset`: how many of the unfinished blob are left, from the beginning."""

    def __init__(self, offset: int) -> None:
        super().__init__("offset", f"the store has lost what lies behind byte {offset}", hint=f"go on at {offset}")
        self.offset = offset


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """An unfinished blob of a gateway."""

    gateway: str
    sha256: str


class BlobStore(Protocol):
    """Unfinished blobs by gateway and SHA-256, whole ones by SHA-256 alone: equal ones are stored once.

    Every method raises UnavailableError; then it may be called again with the same arguments.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def append(self, key: Key, offset: int, data: bytes) -> None:
        """Durable when it returns. What lies behind `offset` is replaced. Raises MissingError: less is there."""
        ...

    async def finish(self, key: Key, part: Part, remember: Remember) -> None:
        """Check and name a blob that is complete; what is left of its unfinished form is gone. A repeat is harmless.

        Args:
            part: as it is known, with what `remember` was given last.
            remember: keeps upload id and parts over a restart.

        Raises:
            WrongContentError: it is something else; what is unfinished is gone.
            MissingError: bytes are gone.
        """
        ...

    async def drop(self, key: Key) -> None:
        """Throw away an unfinished blob."""
        ...

    async def read(self, sha256: str, start: int, size: int) -> bytes:
        """Up to `size` bytes of a whole blob. Raises KeyError when it is not there."""
        ...


async def is_right(store: BlobStore, sha256: str) -> bool:
    """Whether a whole blob is there and is what its name says. Reads all of it. Raises UnavailableError."""
    found, start = hashlib.sha256(), 0
    try:
        while data := await store.read(sha256, start, READ_BYTES):
            found.update(data)
            start += len(data)
    except KeyError:
        return False
    return found.hexdigest() == sha256
