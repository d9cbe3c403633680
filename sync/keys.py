"""The gateway's Ed25519 key: made on the gateway, kept in a file of mode 0600, shown as one line of text."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import os
import secrets
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from ..errors import PermanentError

PREFIX = "ed25519:"
_RESTORE = "restore it from a copy, or remove it: a new one is made and must be enrolled"


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """The key in `path` (PKCS#8 PEM); made, durable and complete or not at all, when there is none.

    Raises:
        PermanentError: the file is not an Ed25519 key, or others may read it.
    """
    with contextlib.suppress(FileExistsError):
        if not path.exists():
            _create(path)
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise PermanentError(f"{path}: others can read the gateway's key", hint=f"chmod 600 {path}")
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except ValueError as error:
        raise PermanentError(f"{path}: not a private key: {error}", hint=_RESTORE) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PermanentError(f"{path}: not an Ed25519 key", hint=_RESTORE)
    return key


def _create(path: Path) -> None:
    """A hard link from a finished file: whoever comes second keeps the first one's key."""
    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def public_key_text(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """`ed25519:` and the 32 bytes in base64: what headquarters is told."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return PREFIX + base64.b64encode(public.public_bytes_raw()).decode("ascii")


def parse_public_key(text: str) -> Ed25519PublicKey:
    """Inverse of `public_key_text`. Raises ValueError that says what would be right."""
    wrong = f"must be `{PREFIX}` and the base64 of 32 bytes, as the gateway shows it"
    if not text.startswith(PREFIX):
        raise ValueError(wrong)
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text.removeprefix(PREFIX), validate=True))
    except (ValueError, binascii.Error) as error:
        raise ValueError(wrong) from error


def key_id(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the public key."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    return hashlib.sha256(public.public_bytes_raw()).hexdigest()[:16]
