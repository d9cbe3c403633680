"""What headquarters sends down to one gateway: signed, numbered upwards, never taken back to an earlier number.

An order is canonical JSON; its Ed25519 signature covers a context, so that it can be nothing else that the same key
signs. It travels over the link (`GET …/config?have=R`, long poll) or in the answer on a USB stick.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import RefusedError
from .columns import DamagedError
from .journal import canonical
from .keys import key_id, parse_public_key, public_key_text
from .wire import bytes_from_text, bytes_text

FORMAT = "sitewarden order 1"
MOST_BYTES = 1 << 20
_CONTEXT = FORMAT.encode() + b"\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order, as bytes and as what they say.

    Attributes:
        body: what is signed.
        signature: of headquarters' key `key`.
        revision: grows with every order of one headquarters.
        gateway: whom it is for.
        made_ms: UTC milliseconds by headquarters' clock.
        baseline: as `baseline.parse_baseline` reads it.
    """

    body: bytes
    signature: bytes
    key: str
    revision: int
    gateway: str
    made_ms: int
    baseline: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """SHA-256 of the body in hex: names the order in records and reports."""
        return hashlib.sha256(self.body).hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As it travels and lies on disk."""
        return {"body": bytes_text(self.body), "signature": bytes_text(self.signature), "key": self.key}

    @classmethod
    def from_json(cls, fields: Any) -> Order:
        """Inverse of `to_json`; says nothing about the signature. Raises DamagedError."""
        try:
            body, signature = bytes_from_text(fields["body"]), bytes_from_text(fields["signature"])
            said = json.loads(body)
            if said["format"] != FORMAT or len(body) > MOST_BYTES:
                raise ValueError(f"format {said['format']!r:.60}, {len(body)} bytes")
            revision, made_ms, baseline = said["revision"], said["made_ms"], said["baseline"]
            if type(revision) is not int or not 0 < revision < 2**53 or type(made_ms) is not int:
                raise ValueError("revision or made_ms is no number")
            if not isinstance(baseline, dict) or not isinstance(said["gateway"], str):
                raise ValueError("baseline is no table")
            return cls(
                body=body,
                signature=signature,
                key=str(fields["key"]),
                revision=revision,
                gateway=said["gateway"],
                made_ms=made_ms,
                baseline=baseline,
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise DamagedError(f"not an order: {error!r:.200}") from error

    def verify(self, trusted: Mapping[str, Ed25519PublicKey]) -> None:
        """Check who signed. Args: trusted: key id to key.

        Raises:
            RefusedError: `wrong_key`, `bad_signature`.
        """
        try:
            name = key_id(parse_public_key(self.key))
        except ValueError as error:
            raise RefusedError("wrong_key", f"the order names no key: {error}") from error
        key = trusted.get(name)
        if key is None:
            hint = "is it another headquarters? Its key stands in [cloud] public_key"
            raise RefusedError("wrong_key", f"the order is signed by key {name}, which is not trusted here", hint=hint)
        try:
            key.verify(self.signature, _CONTEXT + self.body)
        except InvalidSignature as error:
            raise RefusedError("bad_signature", "the order was altered: its signature does not fit") from error


def make_order(
    key: Ed25519PrivateKey, *, gateway: str, revision: int, made_ms: int, baseline: Mapping[str, Any]
) -> Order:
    """Sign an order for one gateway."""
    fields = {
        "format": FORMAT,
        "gateway": gateway,
        "revision": revision,
        "made_ms": made_ms,
        "baseline": dict(baseline),
    }
    body = canonical(fields)
    return Order(
        body=body,
        signature=key.sign(_CONTEXT + body),
        key=public_key_text(key),
        revision=revision,
        gateway=gateway,
        made_ms=made_ms,
        baseline=baseline,
    )
