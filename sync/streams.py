"""The streams of a gateway and the chain of their batches. Pure, and light: the history needs no more of the wire."""

from __future__ import annotations

import hashlib

JOURNAL = "journal"
HISTORY = "history"
STREAMS = (JOURNAL, HISTORY)

UNKNOWN_CHAIN = bytes(32)
"""The chain value behind a declared gap: what follows it begins anew."""


def stream_genesis(gateway: str, stream: str, epoch: str) -> bytes:
    """The chain value before batch 1."""
    return hashlib.sha256(f"sitewarden stream v1\0{gateway}\0{stream}\0{epoch}".encode()).digest()


def batch_chain(previous: bytes, number: int, payload: bytes) -> bytes:
    """The chain value of batch `number` with the uncompressed `payload`."""
    return link(previous, number, hashlib.sha256(payload).digest())


def link(previous: bytes, number: int, digest: bytes) -> bytes:
    """`batch_chain` when only the SHA-256 of the payload is at hand."""
    return hashlib.sha256(previous + number.to_bytes(8, "big") + digest).digest()
