"""A file that only the holder of one X25519 key can read, for bundles that travel through many hands.

HKDF-SHA256 over an exchange with a key made for this file, then ChaCha20-Poly1305 in pieces of 64 KiB whose nonces
count and mark the last one: none can be moved, repeated or left out.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key

from ..errors import PermanentError
from .bundle import BundleError

SEAL_PREFIX = "x25519:"
_SEALED = b"sitewarden sealed 1\n"
SEALED_BYTES = len(_SEALED)
_PIECE = 64 * 1024
_TAG = 16


def load_or_create_seal_key(path: Path) -> X25519PrivateKey:
    """The key in `path` (PKCS#8 PEM, mode 0600); made when there is none. Raises PermanentError when it is none."""
    with contextlib.suppress(FileExistsError):
        pem = X25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise PermanentError(f"{path}: not a private key: {error}", hint="restore it from a copy") from error
    if not isinstance(key, X25519PrivateKey):
        raise PermanentError(f"{path}: not an X25519 key", hint="restore it from a copy")
    return key


def seal_key_text(key: X25519PublicKey) -> str:
    """`x25519:` and the 32 bytes in base64."""
    return SEAL_PREFIX + base64.b64encode(key.public_bytes_raw()).decode("ascii")


def parse_seal_key(text: str) -> X25519PublicKey:
    """Inverse of `seal_key_text`. Raises ValueError that says what would be right."""
    try:
        if not text.startswith(SEAL_PREFIX):
            raise ValueError("prefix")
        return X25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix(SEAL_PREFIX), validate=True))
    except (ValueError, binascii.Error) as error:
        raise ValueError(f"must be `{SEAL_PREFIX}` and the base64 of 32 bytes, as headquarters shows it") from error


class Sealer:
    """A binary file that encrypts what is written to it for `to` and passes it on to `file`."""

    def __init__(self, file: IO[bytes], to: X25519PublicKey) -> None:
        once = X25519PrivateKey.generate()
        self._file = file
        self._cipher = _cipher(once.exchange(to), once.public_key().public_bytes_raw(), to.public_bytes_raw())
        self._waiting = bytearray()
        self._count = 0
        file.write(_SEALED + once.public_key().public_bytes_raw())

    def write(self, data: bytes) -> int:
        self._waiting += data
        while len(self._waiting) > _PIECE:  # never the last one: that is marked
            self._put(bytes(self._waiting[:_PIECE]), last=False)
            del self._waiting[:_PIECE]
        return len(data)

    def flush(self) -> None:
        self._file.flush()

    def finish(self) -> None:
        """The last piece; nothing may be written after it."""
        self._put(bytes(self._waiting), last=True)
        self.flush()

    def _put(self, piece: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._count, last=last), piece, None))
        self._count += 1


def is_sealed(head: bytes) -> bool:
    """Whether a file that begins like this is encrypted."""
    return head.startswith(_SEALED)


def unseal(file: IO[bytes], key: X25519PrivateKey) -> Iterator[bytes]:
    """The content of a sealed file, piece by piece: each is genuine, the whole is complete when it ends without error.

    Raises:
        BundleError: it is for another key, or damaged, or cut off.
    """
    if file.read(len(_SEALED)) != _SEALED:
        raise BundleError("the file is not sealed")
    once = file.read(32)
    if len(once) != 32:
        raise BundleError("the file is cut off")
    shared = key.exchange(X25519PublicKey.from_public_bytes(once))
    cipher = _cipher(shared, once, key.public_key().public_bytes_raw())
    count, piece = 0, file.read(_PIECE + _TAG)
    while True:
        following = file.read(_PIECE + _TAG)
        try:
            yield cipher.decrypt(_nonce(count, last=not following), piece, None)
        except InvalidTag as error:
            what = "it is sealed for another key, or damaged" if count == 0 else f"it is damaged or cut off at {count}"
            raise BundleError(f"the file cannot be opened: {what}") from error
        if not following:
            return
        count, piece = count + 1, following


def _cipher(shared: bytes, once: bytes, to: bytes) -> ChaCha20Poly1305:
    key = HKDF(algorithm=SHA256(), length=32, salt=once + to, info=b"sitewarden bundle seal 1").derive(shared)
    return ChaCha20Poly1305(key)


def _nonce(count: int, *, last: bool) -> bytes:
    return count.to_bytes(11, "big") + (b"\1" if last else b"\0")
