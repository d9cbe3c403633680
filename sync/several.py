"""Several batches of one stream in one request: an optional form of the PUT, for streams of small batches.

A history segment has some kilobytes, so on a link with long round trips one request for each leaves the link idle most
of the time. Each batch keeps its number, chain and bytes, and is judged alone, as if it had come alone: the answer's
`ack` says how far the cloud went. The journal is not sent so: its batches are made as large as the link carries.
"""

from __future__ import annotations

from collections.abc import Sequence

from .columns import DamagedError, pack_msgpack, unpack_msgpack

CONTENT_TYPE = "application/vnd.sitewarden.batches+msgpack"
MAX_BATCHES = 128
MAX_BYTES = 768 * 1024
"""Of the whole body. A batch that is larger goes alone."""

_VERSION = 1


def several_path(gateway: str, stream: str, epoch: str, first: int, last: int) -> str:
    """PUT: batches `first` to `last`."""
    return f"/v1/gateways/{gateway}/streams/{stream}/epochs/{epoch}/batches/{first}-{last}"


def pack_several(batches: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Consecutive (chain, body) in one body. The SW-Chain field of the request is that of the last one."""
    return pack_msgpack([_VERSION, [[chain, body] for chain, body in batches]])


def unpack_several(data: bytes, count: int) -> list[tuple[bytes, bytes]]:
    """Inverse of `pack_several`. Raises DamagedError when it does not hold `count` batches."""
    packed = unpack_msgpack(data)
    if not isinstance(packed, list) or len(packed) != 2 or packed[0] != _VERSION or not isinstance(packed[1], list):
        raise DamagedError(f"not several batches of version {_VERSION}")
    if len(packed[1]) != count:
        raise DamagedError(f"the address names {count} batches, the body holds {len(packed[1])}")
    return [_one(entry) for entry in packed[1]]


def _one(entry: object) -> tuple[bytes, bytes]:
    match entry:
        case [bytes() as chain, bytes() as body] if len(chain) == 32:
            return chain, body
        case _:
            raise DamagedError("a batch among several has a wrong shape")
