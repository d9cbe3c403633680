"""What edge and cloud say to each other: paths, messages, canonical payloads, signatures.

A batch is `zstd(payload)` with a Content-Digest (RFC 9530) over what is sent and a chain value over what is inside:
`chain_n = SHA-256(chain_{n-1} ‖ n as 8 bytes ‖ SHA-256(payload))`, so that packing it again with another zstd
changes nothing. The body goes without Content-Encoding: the frame is stored as it came, and no proxy may unpack it.

Signatures are one fixed profile of RFC 9421: label `sw`, Ed25519, `created`, `keyid`, `alg`, `nonce` in this order,
over `@method` and `@target-uri`, and with a body also `content-digest` and `sw-chain`; a piece of a blob, which is in
no chain, has `upload-offset` and `upload-length` instead of the last.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import RefusedError
from .columns import MAX_PACKED_BYTES, DamagedError, pack_msgpack, unpack_msgpack
from .epoch_table import record_epoch
from .journal import Record, next_chain
from .keys import key_id

CONTENT_TYPE = "application/vnd.sitewarden.batch+zstd"
PIECE_TYPE = "application/offset+octet-stream"
MAX_PAYLOAD_BYTES = MAX_PACKED_BYTES
"""A journal batch ends at 256 KiB and one record; the largest is an alarm with all who are told: some 100 KiB."""
MAX_BODY_BYTES = MAX_PAYLOAD_BYTES + 64 * 1024
"""zstd makes what it cannot compress larger by less than 1 %."""
MAX_CLOCK_ERROR_S = 300
SAFE_ID = re.compile(r"[a-z0-9_]{1,64}")

CHUNK_BYTES = 256 * 1024
"""A blob travels in pieces of this size, or smaller ones where the link is slow."""
MAX_CHUNK_BYTES = 1024 * 1024
SHA256 = re.compile(r"[0-9a-f]{64}")
BLOB_NONE, BLOB_PART, BLOB_STORED, BLOB_DURABLE = "none", "part", "stored", "durable"
"""What the cloud has of a blob: the `SW-Blob` field."""

_HEAD_FIELDS = ("Upload-Offset", "Upload-Length", "SW-Blob", "SW-Number")
_PAYLOAD_VERSION = 1
_PLAIN = ("@method", "@target-uri")
_WITH_BODY = (*_PLAIN, "content-digest", "sw-chain")
_INPUT = re.compile(
    r'sw=(?P<params>\((?P<covered>"[a-z@-]+"(?: "[a-z@-]+")*)\)'
    r';created=(?P<created>[0-9]{1,12});keyid="(?P<keyid>[0-9a-f]{16})";alg="ed25519";nonce="(?P<nonce>[0-9a-f]{32})")'
)


# --- where -------------------------------------------------------------------------------------------------------


def sync_path(gateway: str) -> str:
    """GET: where am I?"""
    return f"/v1/gateways/{gateway}/sync"


def batch_path(gateway: str, stream: str, epoch: str, number: int) -> str:
    """PUT: one batch."""
    return f"/v1/gateways/{gateway}/streams/{stream}/epochs/{epoch}/batches/{number}"


def config_path(gateway: str) -> str:
    """GET with `?have=R`: a newer order, or nothing after a while. `…/report`: POST how the site stands under it."""
    return f"/v1/gateways/{gateway}/config"


def snapshot_path(gateway: str) -> str:
    """POST: how the gateway stands now."""
    return f"/v1/gateways/{gateway}/snapshot"


def enrolments_path(gateway: str) -> str:
    """Path of requests to be enrolled."""
    return f"/v1/gateways/{gateway}/enrolments"


def keys_path(gateway: str) -> str:
    """Path of a gateway's keys: where another one is introduced."""
    return f"/v1/gateways/{gateway}/keys"


def checkpoint_path(gateway: str) -> str:
    """POST: a signed checkpoint of the journal. SW-Chain is the chain value that it claims."""
    return f"/v1/gateways/{gateway}/checkpoints"


def blobs_path(gateway: str) -> str:
    """GET: number of the newest blob that the cloud has of a gateway, and those that it wants again."""
    return f"/v1/gateways/{gateway}/blobs"


def blob_path(gateway: str, sha256: str) -> str:
    """HEAD: how much of a blob is there; PATCH: a piece of it; GET: the blob back."""
    return f"/v1/gateways/{gateway}/blobs/{sha256}"


# --- messages ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """How far the cloud has one epoch of a stream. `chain` is the chain value of batch `ack`."""

    epoch: str
    ack: int
    durable: int
    chain: bytes

    def to_json(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "ack": self.ack, "durable": self.durable, "chain": bytes_text(self.chain)}

    @classmethod
    def from_json(cls, data: Any) -> Cursor:
        """Raises DamagedError."""
        try:
            ack, durable, epoch = data["ack"], data["durable"], data["epoch"]
            whole = type(ack) is int and type(durable) is int
            if not whole or not 0 <= durable <= ack or not isinstance(epoch, str):
                raise ValueError(f"ack {ack!r}, durable {durable!r}, epoch {epoch!r}")
            return cls(epoch=epoch, ack=ack, durable=durable, chain=bytes_from_text(data["chain"]))
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"not a cursor: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncReply:
    """Answer to GET sync: the cloud's time and every epoch that it knows of each stream.

    Attributes:
        incarnation: born with the cloud's database, another one after it was restored; "" from an older cloud.
        machines: how many send with the gateway's key, as far as the cloud can tell.
    """

    time_ms: int
    streams: Mapping[str, tuple[Cursor, ...]]
    incarnation: str = ""
    machines: int = 1

    def known(self, stream: str) -> dict[str, Cursor]:
        """What the cloud has of a stream, by epoch."""
        return {cursor.epoch: cursor for cursor in self.streams.get(stream, ())}

    def cursor(self, stream: str, epoch: str, genesis: bytes) -> Cursor:
        """Where to go on: after batch 0 when the cloud has never seen the epoch."""
        known = [cursor for cursor in self.streams.get(stream, ()) if cursor.epoch == epoch]
        return known[0] if known else Cursor(epoch=epoch, ack=0, durable=0, chain=genesis)

    def to_json(self) -> dict[str, Any]:
        streams = {name: [cursor.to_json() for cursor in cursors] for name, cursors in self.streams.items()}
        about = {"incarnation": self.incarnation, "machines": self.machines}
        return {"time_ms": self.time_ms, "streams": streams, **about}

    @classmethod
    def from_json(cls, data: Any) -> SyncReply:
        """Raises DamagedError."""
        try:
            time_ms, streams = data["time_ms"], data["streams"]
            if type(time_ms) is not int or not all(isinstance(cursors, list) for cursors in streams.values()):
                raise ValueError("a field has a wrong type")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DamagedError(f"not an answer to `where am I`: {error}") from error
        read = {name: tuple(Cursor.from_json(cursor) for cursor in cursors) for name, cursors in streams.items()}
        incarnation, machines = str(data.get("incarnation", "")), data.get("machines", 1)
        machines = machines if type(machines) is int and 0 < machines < 1000 else 1
        return cls(time_ms=time_ms, streams=read, incarnation=incarnation, machines=machines)


# --- chains and payloads -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalPayload:
    """Consecutive records as they travel.

    Attributes:
        first: number of the first record.
        before: record chain before it.
        records: canonical bytes, in order.
        after: record chain after the last one, as the gateway has it stored.
    """

    epoch: str
    first: int
    before: bytes
    records: tuple[bytes, ...]
    after: bytes

    def pack(self) -> bytes:
        """Equal contents give equal bytes."""
        return pack_msgpack([_PAYLOAD_VERSION, self.epoch, self.first, self.before, list(self.records), self.after])

    @classmethod
    def unpack(cls, payload: bytes) -> JournalPayload:
        """Inverse of `pack`. Raises DamagedError."""
        data = unpack_msgpack(payload)
        if not isinstance(data, list) or len(data) != 6 or data[0] != _PAYLOAD_VERSION:
            raise DamagedError(f"not a journal batch of version {_PAYLOAD_VERSION}")
        _, epoch, first, before, records, after = data
        chains = isinstance(before, bytes) and isinstance(after, bytes) and len(before) == len(after) == 32
        if not chains or not isinstance(epoch, str) or type(first) is not int or not 0 < first < 2**53:
            raise DamagedError("the head of a journal batch has a wrong shape")
        if not isinstance(records, list) or not records or not all(isinstance(record, bytes) for record in records):
            raise DamagedError("a journal batch holds no list of records")
        return cls(epoch=epoch, first=first, before=before, records=tuple(records), after=after)

    def verified(self, epoch: str) -> list[Record]:
        """The records, each checked: canonical, numbered without a gap, chained up to `after`.

        Args:
            epoch: name of the stream; of a branch the records say that they are of the epoch that it is named after.

        Raises:
            DamagedError: naming the first record that does not fit.
        """
        result, chain = [], self.before
        for seq, data in enumerate(self.records, self.first):
            chain = next_chain(chain, data)
            record = _read_record(seq, data, chain)
            if self.epoch != epoch or record.epoch != record_epoch(epoch) or record.seq != seq:
                raise DamagedError(f"record {seq} says that it is record {record.seq} of epoch {record.epoch}")
            result.append(record)
        if chain != self.after:
            raise DamagedError(f"records {self.first} to {self.first + len(result) - 1} do not fit their chain")
        return result


def _read_record(seq: int, data: bytes, chain: bytes) -> Record:
    try:
        record = Record.from_bytes(data, chain)
        if record.to_bytes() == data:
            return record
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedError(f"record {seq} is not readable: {error}") from error
    raise DamagedError(f"record {seq} is not in canonical form")


# --- headers -----------------------------------------------------------------------------------------------------


def bytes_text(data: bytes) -> str:
    """Bytes as a structured field (RFC 8941 §3.3.5): `:base64:`."""
    return f":{base64.b64encode(data).decode('ascii')}:"


def bytes_from_text(text: str) -> bytes:
    """Inverse of `bytes_text`. Raises ValueError."""
    if len(text) < 2 or text[0] != ":" or text[-1] != ":":
        raise ValueError(f"{text[:80]!r} is not `:base64:`")
    try:
        return base64.b64decode(text[1:-1], validate=True)
    except binascii.Error as error:
        raise ValueError(f"{text[:80]!r} is not `:base64:`") from error


def content_digest(body: bytes) -> str:
    """The Content-Digest field of what is sent."""
    return f"sha-256={bytes_text(hashlib.sha256(body).digest())}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """The parts of a request that a signature covers.

    Attributes:
        target_uri: absolute, exactly as the client asked for it.
        digest: Content-Digest field, "" without a body.
        chain: SW-Chain field, "" without a body.
        upload: Upload-Offset and Upload-Length fields of a piece of a blob, which has no chain.
    """

    method: str
    target_uri: str
    digest: str = ""
    chain: str = ""
    upload: tuple[str, str] | None = None

    def covered(self) -> list[tuple[str, str]]:
        """(component, value) in the order of the profile."""
        parts = [("@method", self.method), ("@target-uri", self.target_uri)]
        if self.upload is not None:
            names = ("content-digest", "upload-offset", "upload-length")
            parts += zip(names, (self.digest, *self.upload), strict=True)
        elif self.digest:
            parts += [("content-digest", self.digest), ("sw-chain", self.chain)]
        return parts


def signature_base(covered: list[tuple[str, str]], params: str) -> bytes:
    """RFC 9421 §2.5: one line per component, then the parameters."""
    lines = [f'"{name}": {value}' for name, value in covered]
    return "\n".join([*lines, f'"@signature-params": {params}']).encode()


def sign(message: Message, key: Ed25519PrivateKey, *, created_s: int, nonce: str) -> dict[str, str]:
    """All headers that carry and protect `message`.

    Args:
        created_s: seconds since 1970 by the best clock there is.
        nonce: 32 hexadecimal digits, new for each request.
    """
    covered = message.covered()
    names = " ".join(f'"{name}"' for name, _ in covered)
    params = f'({names});created={created_s};keyid="{key_id(key)}";alg="ed25519";nonce="{nonce}"'
    signature = key.sign(signature_base(covered, params))
    headers = {"Signature-Input": f"sw={params}", "Signature": f"sw={bytes_text(signature)}"}
    if message.upload is not None:
        offset, length = message.upload
        headers |= {"Content-Digest": message.digest, "Upload-Offset": offset, "Upload-Length": length}
    elif message.digest:
        headers |= {"Content-Digest": message.digest, "SW-Chain": message.chain}
    return headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a request says of its signature, read but not believed yet.

    Attributes:
        key_id: of `key`, which belongs to the gateway.
        base: the bytes that were signed.
        created_s: when, as the gateway says.
    """

    key_id: str
    key: Ed25519PublicKey
    signature: bytes
    base: bytes
    created_s: int

    def holds(self) -> bool:
        """Whether the key made the signature. Takes a tenth of a millisecond and more."""
        try:
            self.key.verify(self.signature, self.base)
        except InvalidSignature:
            return False
        return True

    def judged(self, holds: bool, now_s: float) -> str:
        """Id of the key. Raises RefusedError: `bad_signature` or, if only the time is wrong, `clock`."""
        if not holds:
            raise RefusedError("bad_signature", "the signature does not fit the request")
        early_s = self.created_s - now_s
        if abs(early_s) > MAX_CLOCK_ERROR_S:
            hint = "set the gateway's clock, or sign by the time that this answer carries"
            raise RefusedError("clock", f"signed {early_s:+.0f} s from this service's time", hint=hint)
        return self.key_id


def claim_of(message: Message, headers: Mapping[str, str], keys: Mapping[str, Ed25519PublicKey]) -> Claim:
    """Read the signature of `message`.

    Args:
        headers: with `Signature-Input` and `Signature`.
        keys: key id to key, of this gateway alone.

    Raises:
        RefusedError: `unsigned`, `wrong_profile`, `wrong_key`, `bad_signature`.
    """
    if "Signature-Input" not in headers or "Signature" not in headers:
        raise RefusedError("unsigned", "the request is not signed")
    found = _INPUT.fullmatch(headers["Signature-Input"])
    covered = message.covered()
    if found is None or found["covered"] != " ".join(f'"{name}"' for name, _ in covered):
        raise RefusedError("wrong_profile", "the signature is not of the profile that this service speaks")
    key = keys.get(found["keyid"])
    if key is None:
        hint = "enter the public key that the gateway shows into cloud.toml"
        raise RefusedError("wrong_key", f"key {found['keyid']} does not belong to this gateway", hint=hint)
    try:
        signature = bytes_from_text(headers["Signature"].removeprefix("sw="))
    except ValueError as error:
        raise RefusedError("bad_signature", "the signature does not fit the request") from error
    return Claim(
        key_id=found["keyid"],
        key=key,
        signature=signature,
        base=signature_base(covered, found["params"]),
        created_s=int(found["created"]),
    )


def verify(message: Message, headers: Mapping[str, str], keys: Mapping[str, Ed25519PublicKey], now_s: float) -> str:
    """Check the signature of `message`; returns the id of the key that made it.

    Args and Raises: as `claim_of` and `Claim.judged`.
    """
    claim = claim_of(message, headers, keys)
    return claim.judged(claim.holds(), now_s)


def head_answer(headers: Mapping[str, str]) -> dict[str, Any]:
    """What the fields of an answer to HEAD say, as the body of any other answer would."""
    answer: dict[str, Any] = {name: headers[name] for name in _HEAD_FIELDS if name in headers}
    if "SW-Reason" in headers:
        answer["error"] = {"reason": headers["SW-Reason"], "message": headers["SW-Reason"]}
    return answer


def check_digest(field: str, body: bytes) -> None:
    """Compare a Content-Digest field with the body. Raises RefusedError `digest`."""
    if field != content_digest(body):
        raise RefusedError("digest", "the body is not what its Content-Digest says", hint="send it again")
