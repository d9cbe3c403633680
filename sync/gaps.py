"""A declared gap of the history stream: what a gateway says in place of segments that it does not have any more. Pure.

A gap takes the place of the batches `first` to `last`. It is sent as batch `first`, and its chain value is the one that
the last of them had: the batch behind it follows as if nothing were missing. That it follows the batch before, `before`
says. It is signed with the request like any batch; what it declares cannot be checked, only who declared it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from .columns import DamagedError, pack_msgpack, unpack_msgpack

_MARK, _VERSION = "gap", 1
_PREFIX = pack_msgpack([_MARK, _VERSION, 0])[:-1]
_CHAIN_BYTES = 32


class Why(enum.StrEnum):
    """Why segments are not kept any more."""

    BUDGET = "budget"
    """The history was as large as `[disk].history_mb` allows."""
    DISK = "disk"
    """The file system was full."""
    KEPT_OUT = "kept_out"
    """They were older than `keep_days`, and headquarters had them; it has lost them since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Segments `first` to `last` of one epoch.

    Attributes:
        before, after: chain values of the batches `first` - 1 and `last`.
        t0_ms, t1_ms: UTC milliseconds of the first and last reading, as far as it is known; else 0.
        readings: how many they held, as far as it is known.
        why: one of `Why`, or a word of a later version.
    """

    first: int
    last: int
    before: bytes
    after: bytes
    t0_ms: int = 0
    t1_ms: int = 0
    readings: int = 0
    why: str = Why.DISK


def pack_gap(gap: Gap) -> bytes:
    """As the payload of a batch; equal gaps give equal bytes."""
    fields = [gap.first, gap.last, gap.before, gap.after, gap.t0_ms, gap.t1_ms, gap.readings, str(gap.why)]
    return pack_msgpack([_MARK, _VERSION, fields])


def unpack_gap(payload: bytes) -> Gap | None:
    """Inverse of `pack_gap`; None when the payload is none. Raises DamagedError when it says to be one and is not."""
    if not payload.startswith(_PREFIX):
        return None
    match unpack_msgpack(payload):
        case [_, _, [int(), int(), bytes(), bytes(), int(), int(), int(), str()] as fields]:
            values: dict[str, Any] = dict(zip(Gap.__slots__, fields, strict=True))
            gap = Gap(**values)
        case _:
            raise DamagedError("a gap has a wrong shape")
    if not 0 < gap.first <= gap.last < 2**53 or len(gap.before) != _CHAIN_BYTES or len(gap.after) != _CHAIN_BYTES:
        raise DamagedError(f"a gap of impossible bounds: {gap.first} to {gap.last}")
    if min(gap.readings, gap.t0_ms, gap.t1_ms) < 0 or max(gap.readings, gap.t0_ms, gap.t1_ms) >= 2**53:
        raise DamagedError("a gap of impossible times or readings")
    if not gap.why.isascii() or not 0 < len(gap.why) <= 40:
        raise DamagedError("a gap that does not say why")
    return gap


def check_place(gap: Gap, n: int, chain: bytes) -> None:
    """Raises DamagedError when the batch that carries it, `n` with `chain`, is another one than it says."""
    if gap.first != n or gap.after != chain:
        raise DamagedError(f"a gap from {gap.first} on in the place of batch {n}")
