"""What a helping process does: signatures and contents of batches, for `checking`. It knows no store and no network.

Requests and answers go through its standard input and output: four bytes of length (big-endian), then msgpack. A
request is a list of jobs, its answer the list of their results in the same order. It ends where its input ends, so that
it never outlives the service, and no other signal ends it: what the service has begun, it can finish.
"""

from __future__ import annotations

import hashlib
import signal
import sys
from typing import Any, BinaryIO

import msgspec

from ..sync.columns import DamagedError, decompress
from ..sync.columns_count import count_readings
from ..sync.gaps import unpack_gap
from ..sync.wire import MAX_PAYLOAD_BYTES
from .signatures import holds

HOLDS, LOOK = 0, 1
"""Kinds of jobs: [HOLDS, raw public key, signature, what was signed] gives whether it fits; [LOOK, body of a history
batch] gives [SHA-256 of the payload or None, readings, problem], or None where the content is not readings."""


def looked_into(body: bytes) -> tuple[bytes | None, int, str] | None:
    """Digest of the payload, readings in it, and why it cannot be used; None: it declares a gap. Pure."""
    digest: bytes | None = None
    try:
        payload = decompress(body, MAX_PAYLOAD_BYTES)
        digest = hashlib.sha256(payload).digest()
        if unpack_gap(payload) is not None:
            return None
        return digest, count_readings(payload), ""
    except DamagedError as error:
        return digest, 0, str(error)


def serve(requests: BinaryIO, answers: BinaryIO) -> None:
    """Answer until the input ends."""
    decode, encode = msgspec.msgpack.Decoder(list[list[Any]]).decode, msgspec.msgpack.Encoder().encode
    while len(head := requests.read(4)) == 4:
        jobs = decode(requests.read(int.from_bytes(head, "big")))
        answer = encode([_DONE_BY[job[0]](*job[1:]) for job in jobs])
        answers.write(len(answer).to_bytes(4, "big") + answer)
        answers.flush()


_DONE_BY = {HOLDS: holds, LOOK: looked_into}


if __name__ == "__main__":
    for quiet in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(quiet, signal.SIG_IGN)
    serve(sys.stdin.buffer, sys.stdout.buffer)
