"""A batch as it came: its address, and what is in it. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from ..errors import RefusedError
from ..sync.columns import DamagedError, decompress
from ..sync.columns_count import count_readings
from ..sync.gaps import Gap, check_place, unpack_gap
from ..sync.streams import JOURNAL, STREAMS
from ..sync.wire import MAX_PAYLOAD_BYTES, JournalPayload, bytes_from_text
from .store import Parcel

EPOCH = re.compile(r"[0-9a-f]{8,64}")
NUMBER = re.compile(r"[1-9][0-9]{0,14}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Which batch a request brings, and the chain value that the gateway signed for it."""

    gateway: str
    stream: str
    epoch: str
    n: int
    chain: bytes

    @classmethod
    def named(cls, path: Mapping[str, str], gateway: str, chain: str) -> Self:
        """Of the parts of a path and the SW-Chain field. Raises RefusedError `bad_request`."""
        stream, epoch, number = path["stream"], path["epoch"], path["n"]
        try:
            claimed = bytes_from_text(chain)
        except ValueError as error:
            raise RefusedError("bad_request", f"SW-Chain: {error}") from error
        wrong = [
            what
            for what, right in (
                (f"stream {stream[:40]!r}", stream in STREAMS),
                (f"epoch {epoch[:80]!r}", EPOCH.fullmatch(epoch)),
                (f"batch {number[:40]!r}", NUMBER.fullmatch(number)),
                ("a chain value that is not 32 bytes", len(claimed) == 32),
            )
            if not right
        ]
        if wrong:
            raise RefusedError("bad_request", f"there is no {' and no '.join(wrong)} in this protocol")
        return cls(gateway=gateway, stream=stream, epoch=epoch, n=int(number), chain=claimed)

    def opened(self, body: bytes, received_ms: int) -> Parcel:
        """See `open_parcel`."""
        return open_parcel(self.gateway, self.stream, self.epoch, self.n, self.chain, body, received_ms)

    def counted(self, body: bytes, received_ms: int, digest: bytes | None, count: int, problem: str) -> Parcel:
        """A batch of readings that was looked into elsewhere."""
        return Parcel(
            gateway=self.gateway,
            stream=self.stream,
            epoch=self.epoch,
            n=self.n,
            chain=self.chain,
            body=body,
            received_ms=received_ms,
            digest=digest,
            problem=problem,
            count=count,
        )


def open_parcel(gateway: str, stream: str, epoch: str, n: int, chain: bytes, body: bytes, received_ms: int) -> Parcel:
    """Unpack and check a batch as far as that goes without the store. Bad content becomes `problem`."""
    digest: bytes | None = None
    records: tuple[Any, ...] = ()
    before, count, problem = b"", 0, ""
    gap: Gap | None = None
    try:
        payload = decompress(body, MAX_PAYLOAD_BYTES)
        digest = hashlib.sha256(payload).digest()
        if stream == JOURNAL:
            packed = JournalPayload.unpack(payload)
            before, records = packed.before, tuple(packed.verified(epoch))
            count = len(records)
        elif (gap := unpack_gap(payload)) is not None:
            check_place(gap, n, chain)
        else:
            count = count_readings(payload)
    except DamagedError as error:
        problem, gap = str(error), None
    return Parcel(
        gateway=gateway,
        stream=stream,
        epoch=epoch,
        n=n,
        chain=chain,
        body=body,
        received_ms=received_ms,
        digest=digest,
        problem=problem,
        before=before,
        records=records,
        count=count,
        gap=gap,
    )
