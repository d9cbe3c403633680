"""Several batches in one request, taken apart again: see `sync/several.py`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from ..errors import RefusedError
from ..sync.columns import DamagedError
from ..sync.several import MAX_BATCHES, unpack_several
from ..sync.streams import JOURNAL
from ..sync.wire import bytes_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Several:
    """What the address of such a request names."""

    stream: str
    epoch: str
    first: int
    count: int

    @classmethod
    def named(cls, address: Mapping[str, str]) -> Self:
        """Of an address whose parts are checked already, but for its end. Raises RefusedError `bad_request`."""
        stream, first = address["stream"], int(address["n"])
        count = int(address["last"]) - first + 1
        if stream == JOURNAL:
            raise RefusedError("bad_request", "batches of the journal come one by one")
        if not 1 <= count <= MAX_BATCHES:
            raise RefusedError("bad_request", f"a request may have {MAX_BATCHES} batches, this one names {count}")
        return cls(stream=stream, epoch=address["epoch"], first=first, count=count)

    def open(self, body: bytes, chain: str) -> list[tuple[int, bytes, bytes]]:
        """(number, chain, body) of each batch. Args: chain: SW-Chain field of the request.

        Raises:
            RefusedError: `bad_request`; the signature held, so a gateway made it wrong.
        """
        try:
            batches = unpack_several(body, self.count)
        except DamagedError as error:
            raise RefusedError("bad_request", str(error)) from error
        if bytes_text(batches[-1][0]) != chain:
            raise RefusedError("bad_request", "SW-Chain must be that of the last batch")
        return [(n, own, one) for n, (own, one) in enumerate(batches, self.first)]
