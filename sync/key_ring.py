"""The gateway's own key, which may be followed by another one while the gateway runs; and whom it believes at the top.

Files of the data folder: `gateway.key` signs. `gateway.key.next` is there while another key is being introduced: a
single rename makes it the key. `headquarters.pub` is the key that an enrolment gave.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .keys import key_id, load_or_create_key, parse_public_key

OWN, NEXT, HEADQUARTERS = "gateway.key", "gateway.key.next", "headquarters.pub"


class KeyRing:
    """Keys in a data folder. Reads and writes block: for a thread.

    Attributes:
        key: signs now.
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self.key: Ed25519PrivateKey = load_or_create_key(data / OWN)

    def next(self) -> Ed25519PrivateKey:
        """The key that is to follow; made when there is none."""
        return load_or_create_key(self.data / NEXT)

    def is_turning(self) -> bool:
        """Whether a key is being introduced."""
        return (self.data / NEXT).exists()

    def turn(self, key: Ed25519PrivateKey) -> None:
        """`key`, the next one, is the key from now on."""
        with contextlib.suppress(FileNotFoundError):  # was done just before a power cut
            (self.data / NEXT).replace(self.data / OWN)
            _settle(self.data)
        self.key = key

    def drop_next(self) -> None:
        """The next key will not be used."""
        (self.data / NEXT).unlink(missing_ok=True)
        _settle(self.data)


def pinned(data: Path) -> dict[str, Ed25519PublicKey]:
    """Id to key of the headquarters that enrolled this gateway; none when none did."""
    with contextlib.suppress(OSError, ValueError):
        key = parse_public_key((data / HEADQUARTERS).read_text("ascii").strip())
        return {key_id(key): key}
    return {}


def pin(data: Path, key: str) -> None:
    """Believe `key` (as text) from now on. Blocks."""
    write_file(data / HEADQUARTERS, f"{key}\n".encode(), 0o640)


def trusted(named: str, data: Path) -> Mapping[str, Ed25519PublicKey]:
    """Id to key of headquarters. Args: named: its public key in site.toml, which goes first; "" for none."""
    if named:
        key = parse_public_key(named)
        return {key_id(key): key}
    return pinned(data)


def write_file(path: Path, content: bytes, mode: int) -> None:
    """All of it or what was there before, also after a power cut."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)
    _settle(path.parent)


def _settle(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
