"""A gateway's new key, introduced by the old one: what is sent to headquarters, and stands in the journal. Pure.

Both keys sign: the old one says who comes next, the new one that it is there. `introduced` reads the records again, so
that a journal whose checkpoints were signed by one key and then by the next can be verified from the first key alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import RefusedError
from .claims import in_context, must_fit
from .columns import DamagedError
from .journal import canonical
from .keys import key_id, parse_public_key, public_key_text
from .wire import bytes_from_text, bytes_text

FORMAT = "sitewarden rotation 1"
ROTATED, ENROLLED, REPLACED = "gateway.key_rotated", "gateway.enrolled", "gateway.key_replaced"
"""Kinds of records. `REPLACED`: a new key that no old one could introduce: the gateway only says so."""
_MOST_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """`new` follows `old`. `body` is what both sign."""

    body: bytes
    by_old: bytes
    by_new: bytes
    gateway: str
    old: str
    new: str

    @property
    def kid(self) -> str:
        """Id of the new key."""
        return key_id(parse_public_key(self.new))

    def to_json(self) -> dict[str, Any]:
        """As it travels and stands in the record."""
        return {"body": bytes_text(self.body), "by_old": bytes_text(self.by_old), "by_new": bytes_text(self.by_new)}

    @classmethod
    def from_json(cls, fields: Any) -> Rotation:
        """Inverse of `to_json`, both signatures checked. Raises DamagedError; RefusedError `bad_signature`."""
        try:
            body = bytes_from_text(fields["body"])
            by_old, by_new = bytes_from_text(fields["by_old"]), bytes_from_text(fields["by_new"])
            said = json.loads(body)
            if said["format"] != FORMAT or len(body) > _MOST_BYTES or not isinstance(said["gateway"], str):
                raise ValueError(f"format {said['format']!r:.60}")
            old, new = parse_public_key(said["old"]), parse_public_key(said["new"])
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DamagedError(f"not a rotation of keys: {error!r:.200}") from error
        must_fit(old, by_old, FORMAT, body)
        must_fit(new, by_new, FORMAT, body)
        return cls(body=body, by_old=by_old, by_new=by_new, gateway=said["gateway"], old=said["old"], new=said["new"])


def make_rotation(old: Ed25519PrivateKey, new: Ed25519PrivateKey, *, gateway: str, made_ms: int) -> Rotation:
    """Signed by both."""
    fields = {"format": FORMAT, "gateway": gateway, "made_ms": made_ms}
    body = canonical({**fields, "old": public_key_text(old), "new": public_key_text(new)})
    signed = in_context(FORMAT, body)
    return Rotation.from_json(
        {"body": bytes_text(body), "by_old": bytes_text(old.sign(signed)), "by_new": bytes_text(new.sign(signed))}
    )


@dataclass(frozen=True, slots=True)
class Since:
    """A key of the gateway, and the number of the first record that a checkpoint of it may count: the one that
    introduces it."""

    key: Ed25519PublicKey
    seq: int = 0


def introduced(
    first: Sequence[Ed25519PublicKey], gateway: str, records: Iterable[tuple[int, str, bytes]], *, own: bool
) -> list[Since]:
    """Keys whose checkpoints count.

    Args:
        first: believed from the beginning.
        records: (number, kind, canonical bytes) of `ROTATED` and `REPLACED`, in order.
        own: a record of `REPLACED` is enough: nothing but the file itself is believed.
    """
    known = [Since(key) for key in first]
    for seq, kind, data in records:
        try:
            body = json.loads(data)["body"]
            if kind == REPLACED:
                if own:
                    known.append(Since(parse_public_key(body["new"]), seq))
                continue
            rotation = Rotation.from_json(body["rotation"])
        except (DamagedError, RefusedError, KeyError, TypeError, ValueError, RecursionError):
            continue
        old = parse_public_key(rotation.old)
        if rotation.gateway == gateway and any(since.key == old and since.seq < seq for since in known):
            known.append(Since(parse_public_key(rotation.new), seq))
    return known
