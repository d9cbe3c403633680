"""A record of the journal, and the chain that records hang on. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from ..words import Instant

_GENESIS = b"sitewarden journal v1\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A record before it has a number.

    Attributes:
        kind: dotted noun and verb, `alarm.raised`.
        at: when it was decided.
        actor: id of the person, or `gateway`.
        body: JSON-able fields; finite numbers only.
        blobs: SHA-256 (hex) of the evidence that it names.
    """

    kind: str
    at: Instant
    actor: str
    body: dict[str, Any]
    blobs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An immutable record. `chain` = SHA-256(previous chain ‖ `to_bytes()`)."""

    seq: int
    epoch: str
    kind: str
    at: dict[str, Any]
    actor: str
    body: dict[str, Any]
    blobs: tuple[str, ...]
    chain: bytes

    def to_bytes(self) -> bytes:
        """Canonical JSON of everything but the chain."""
        return canonical(
            {
                "seq": self.seq,
                "epoch": self.epoch,
                "kind": self.kind,
                "at": self.at,
                "actor": self.actor,
                "body": self.body,
                "blobs": list(self.blobs),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes, chain: bytes) -> Record:
        """Inverse of `to_bytes`. Raises ValueError or KeyError on anything that is not a record."""
        fields = json.loads(data)
        if not isinstance(fields, dict):
            raise ValueError("a record is a JSON object")
        return cls(
            seq=int(fields["seq"]),
            epoch=str(fields["epoch"]),
            kind=str(fields["kind"]),
            at=dict(fields["at"]),
            actor=str(fields["actor"]),
            body=dict(fields["body"]),
            blobs=tuple(fields["blobs"]),
            chain=chain,
        )


def canonical(value: Any) -> bytes:
    """JSON with sorted keys, no white space, UTF-8. Raises ValueError on NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def genesis_chain(gateway: str, epoch: str) -> bytes:
    """The chain value before record 1."""
    return hashlib.sha256(_GENESIS + gateway.encode() + b"\0" + epoch.encode()).digest()


def next_chain(previous: bytes, data: bytes) -> bytes:
    """The chain value of the record whose canonical bytes are `data`."""
    return hashlib.sha256(previous + data).digest()
