"""Signed notes, checkpoints and cosignatures as C2SP describes them, with Ed25519 keys. Pure.

    sitewarden/gw1/5f0c2b1e9a3d4c77            origin: whose log
    4096                                       how many records
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=   Merkle root over them
    chain 3q2+7wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=   chain value of the last one

    — sitewarden/gw1/5f0c2b1e9a3d4c77 <key id and signature>     the gateway
    — sitewarden/witness/9f86d081884c7d65 <key id, time and signature>     headquarters

c2sp.org/signed-note, c2sp.org/tlog-checkpoint, c2sp.org/tlog-cosignature (`cosignature/v1`).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .keys import key_id

MAX_NOTE_BYTES = 16 * 1024
MAX_SIGNATURES = 16
"""A verifier must accept at least so many (c2sp.org/signed-note)."""

_DASH = "\N{EM DASH} "
_ED25519, _COSIGNATURE = b"\x01", b"\x04"
_ID_BYTES, _TIME_BYTES, _SIGNATURE_BYTES = 4, 8, 64
_NAME = re.compile(r"[^\s+]+")
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}")
_ORIGIN = re.compile(r"sitewarden/([a-z][a-z0-9_]{0,63})/([0-9a-f]{8,64})")
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f]")
_HASH_BYTES = 32


class NoteError(ValueError):
    """Not a note, not a checkpoint, or not signed by whom it should be."""


@dataclass(frozen=True, slots=True)
class Signature:
    """One line below a note.

    Attributes:
        key: id of the key, 4 bytes. value: what the key made.
    """

    name: str
    key: bytes
    value: bytes

    def line(self) -> str:
        """As it stands in the note, with its newline."""
        return f"{_DASH}{self.name} {base64.b64encode(self.key + self.value).decode('ascii')}\n"


@dataclass(frozen=True, slots=True)
class Note:
    """A text and who signed it. `text` ends with a newline; nothing is verified yet."""

    text: str
    signatures: tuple[Signature, ...]

    def __str__(self) -> str:
        return self.text + "\n" + "".join(signature.line() for signature in self.signatures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """How a journal stood: the text of a note.

    Attributes:
        size: number of records. root: of their Merkle tree. chain: chain value of the last one.
    """

    origin: str
    size: int
    root: bytes
    chain: bytes

    def text(self) -> str:
        """The note's text."""
        root, chain = (base64.b64encode(value).decode("ascii") for value in (self.root, self.chain))
        return f"{self.origin}\n{self.size}\n{root}\nchain {chain}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Inverse of `text`; other extension lines are allowed after ours. Raises NoteError."""
        lines = text.split("\n")
        if len(lines) < 5 or lines[-1] or not all(lines[:-1]):
            raise NoteError("a checkpoint has at least four lines, none of them empty")
        origin, size, root, chain = lines[:4]
        if not _SIZE.fullmatch(size) or not chain.startswith("chain "):
            raise NoteError("a checkpoint names its size, its root and the chain value of its last record")
        return cls(origin=origin, size=int(size), root=_hash(root), chain=_hash(chain.removeprefix("chain ")))


def origin_of(gateway: str, epoch: str) -> str:
    """The first line of a gateway's checkpoints, and the name of the key that signs them."""
    return f"sitewarden/{gateway}/{epoch}"


def gateway_and_epoch(origin: str) -> tuple[str, str]:
    """Inverse of `origin_of`. Raises NoteError."""
    found = _ORIGIN.fullmatch(origin)
    if found is None:
        raise NoteError(f"{origin[:80]!r} is not sitewarden/<gateway>/<epoch>")
    return found[1], found[2]


def witness_name(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """The name under which headquarters countersigns."""
    return f"sitewarden/witness/{key_id(key)}"


# --- notes -------------------------------------------------------------------------------------------------------


def parse_note(data: str | bytes) -> Note:
    """Read a note without verifying anything. Raises NoteError."""
    if len(data) > MAX_NOTE_BYTES:
        raise NoteError(f"a note has at most {MAX_NOTE_BYTES} bytes")
    try:
        whole = data.decode() if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise NoteError("a note is UTF-8 text") from error
    text, blank, below = whole.rpartition("\n\n")
    lines = below.split("\n")
    if not blank or lines.pop() or not lines or len(lines) > MAX_SIGNATURES or _CONTROL.search(whole):
        raise NoteError("a note is text, an empty line, and lines of signatures")
    return Note(text + "\n", tuple(map(_signature, lines)))


def parse_signature(line: str) -> Signature:
    """One line of a note, with its newline. Raises NoteError."""
    if not line.endswith("\n"):
        raise NoteError("a signature is a whole line")
    return _signature(line[:-1])


def _signature(line: str) -> Signature:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except (ValueError, binascii.Error) as error:
        raise NoteError(f"{line[:80]!r} is not a signature") from error
    if not line.startswith(_DASH) or not _NAME.fullmatch(name) or len(raw) <= _ID_BYTES:
        raise NoteError(f"{line[:80]!r} is not a signature")
    return Signature(name, raw[:_ID_BYTES], raw[_ID_BYTES:])


def sign_note(text: str, name: str, key: Ed25519PrivateKey) -> Note:
    """`text` (which ends with a newline) signed by `key` under `name`."""
    if not text.endswith("\n") or _CONTROL.search(text) or not _NAME.fullmatch(name):
        raise NoteError("a note is whole lines, the name of a key has no space and no plus sign")
    return Note(text, (Signature(name, _key_hash(name, key.public_key(), _ED25519), key.sign(text.encode())),))


def verify_note(note: Note, name: str, keys: Iterable[Ed25519PublicKey]) -> Ed25519PublicKey:
    """The key of `keys` that signed the note under `name`. Raises NoteError when none did, or one of them wrongly."""
    for key in keys:
        for signature in _by(note.signatures, name, key, _ED25519):
            _must_fit(key, signature.value, note.text.encode(), name)
            return key
    raise NoteError(f"the note is not signed by a known key of {name}")


# --- cosignatures ------------------------------------------------------------------------------------------------


def cosign(text: str, name: str, key: Ed25519PrivateKey, time_s: int) -> Signature:
    """A witness' statement that at `time_s` (seconds since 1970) this was the largest consistent state it had seen."""
    value = time_s.to_bytes(_TIME_BYTES, "big") + key.sign(_cosigned(text, time_s))
    return Signature(name, _key_hash(name, key.public_key(), _COSIGNATURE), value)


def verify_cosignature(note: Note, name: str, key: Ed25519PublicKey) -> int:
    """When the witness countersigned, in seconds since 1970. Raises NoteError when it did not."""
    for signature in _by(note.signatures, name, key, _COSIGNATURE):
        time_s = int.from_bytes(signature.value[:_TIME_BYTES], "big")
        _must_fit(key, signature.value[_TIME_BYTES:], _cosigned(note.text, time_s), name)
        return time_s
    raise NoteError(f"the note is not countersigned by {name}")


def _cosigned(text: str, time_s: int) -> bytes:
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _by(signatures: Iterable[Signature], name: str, key: Ed25519PublicKey, kind: bytes) -> list[Signature]:
    """Those that claim to be of this key. Name and id must both fit: others are ignored, whatever they say."""
    wanted = _key_hash(name, key, kind)
    return [signature for signature in signatures if signature.name == name and signature.key == wanted]


def _must_fit(key: Ed25519PublicKey, value: bytes, message: bytes, name: str) -> None:
    if len(value) != _SIGNATURE_BYTES:
        raise NoteError(f"the signature of {name} is not an Ed25519 signature")
    try:
        key.verify(value, message)
    except InvalidSignature as error:
        raise NoteError(f"the signature of {name} does not fit the note") from error


def _key_hash(name: str, key: Ed25519PublicKey, kind: bytes) -> bytes:
    """c2sp.org/signed-note: the first four bytes of SHA-256(name ‖ newline ‖ kind ‖ public key)."""
    return hashlib.sha256(name.encode() + b"\n" + kind + key.public_bytes_raw()).digest()[:_ID_BYTES]


def _hash(text: str) -> bytes:
    try:
        value = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error) as error:
        raise NoteError(f"{text[:80]!r} is not base64") from error
    if len(value) != _HASH_BYTES:
        raise NoteError(f"{text[:80]!r} is not a hash of {_HASH_BYTES} bytes")
    return value
