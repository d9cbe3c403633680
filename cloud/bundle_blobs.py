"""Evidence that comes on a USB stick: into the same store as over the link, and named in the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from ..errors import RefusedError
from ..sync.bundle import BLOBS_KNOWN, BundleReader, BundleWriter
from ..sync.columns import DamagedError
from ..sync.journal import canonical
from .blob_port import UnavailableError
from .blobs import Blobs


@dataclass(slots=True, kw_only=True)
class Brought:
    """What became of the evidence of a bundle.

    Attributes:
        new, known: pieces that were stored, and that were there already. refused: those that were not taken.
        problem: why the first one was refused; "" when none was.
        names: SHA-256, state and number of those that are here.
    """

    new: int = 0
    known: int = 0
    refused: int = 0
    problem: str = ""
    names: list[tuple[str, str, int]] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """For pages and the command."""
        return {"new": self.new, "known": self.known, "refused": self.refused, "problem": self.problem}


async def take_blobs(
    blobs: Blobs, reader: BundleReader, gateway: str, tell: Callable[[int], Awaitable[None]]
) -> Brought:
    """Keep every piece of evidence of a bundle; what cannot be taken holds nothing else up.

    Args:
        tell: called with how many are done.
    """
    brought = Brought()
    for done, (sha256, size) in enumerate(reader.manifest.blobs.items(), 1):

        def pieces(start: int, name: str = sha256) -> AsyncIterator[bytes]:
            return _pieces(reader, name, start)

        try:
            stored, is_new = await blobs.bring(gateway, sha256, size, pieces)
        except (RefusedError, DamagedError, UnavailableError) as error:
            brought.refused += 1
            reason = error.reason if isinstance(error, RefusedError) else type(error).__name__
            brought.problem = brought.problem or f"{reason}: {error.message}"
        else:
            brought.new, brought.known = brought.new + is_new, brought.known + (not is_new)
            brought.names.append((sha256, blobs.state(stored), stored.n))
        await tell(done)
    return brought


async def name_blobs(blobs: Blobs, writer: BundleWriter, gateway: str, brought: Brought) -> None:
    """Into the answer: what is here, what was lost, and how far the numbers go, if this cloud was restored."""
    last, wanted = await blobs.standing(gateway)
    writer.add_file(BLOBS_KNOWN, canonical({"last": last, "wanted": wanted, "known": brought.names}))


async def _pieces(reader: BundleReader, sha256: str, start: int) -> AsyncIterator[bytes]:
    pieces = reader.blob(sha256, start)
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece
