"""Ed25519 by libsodium, which takes half the time of OpenSSL: what the cloud does with every request of a gateway."""

from __future__ import annotations

from nacl.bindings import crypto_sign_BYTES, crypto_sign_open, crypto_sign_PUBLICKEYBYTES
from nacl.exceptions import BadSignatureError


def holds(key: bytes, signature: bytes, signed: bytes) -> bool:
    """Whether `signature` was made for `signed` with the private half of `key` (32 bytes).

    RFC 8032 §5.1.7; keys of small order and other spellings of a number are refused, which OpenSSL lets pass in part.
    """
    if len(key) != crypto_sign_PUBLICKEYBYTES or len(signature) != crypto_sign_BYTES:
        return False
    try:
        crypto_sign_open(signature + signed, key)
    except BadSignatureError:
        return False
    return True
