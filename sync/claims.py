"""Enrolment: how a gateway that headquarters does not know becomes one that it knows, and the other way round. Pure.

The gateway makes a *claim code*, shows it, and sends a request that is bound to it; headquarters' operator, who was
told the code by whoever stands at that gateway, types it. The code never travels: what travels is a commitment. A code
of 40 bits under a plain hash falls to one graphics card in minutes, and whoever found it could forge the answer; so the
secret comes out of scrypt (32 MiB, a tenth of a second), with the gateway, its key and a salt of each request mixed in.
2^40 of those within a quarter of an hour are far beyond what anybody has. A request in a file lives for weeks: its code
has 60 bits. Headquarters' answer is authenticated by another part of that secret, so that the gateway believes the key
of the one who was told its code, whoever stands between.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import RefusedError
from ..words import is_text
from .columns import DamagedError
from .journal import canonical
from .keys import key_id, parse_public_key, public_key_text
from .wire import bytes_from_text, bytes_text

REQUEST, ANSWER = "sitewarden enrolment 1", "sitewarden enrolment answer 1"
MOST_BYTES = 8 * 1024
LINK_DIGITS, FILE_DIGITS = 8, 12
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: without I, L, O, U."""
_MEANT = str.maketrans({"I": "1", "L": "1", "O": "0", "-": None, " ": None})
_N, _R, _P = 2**15, 8, 1
_MEMORY = 64 * 1024 * 1024
_MOST_NAME = 80


def make_code(digits: int = LINK_DIGITS) -> str:
    """A claim code, as it is shown: `7K3D-Q0XN`."""
    return grouped("".join(secrets.choice(ALPHABET) for _ in range(digits)))


def plain_code(text: str) -> str:
    """What somebody typed as digits of the alphabet, in groups. Raises RefusedError `no_code`."""
    digits = text.strip().upper().translate(_MEANT)
    if len(digits) not in (LINK_DIGITS, FILE_DIGITS) or set(digits) - set(ALPHABET):
        hint = f"it has {LINK_DIGITS} letters and digits, {FILE_DIGITS} when it goes with a file, in groups of four"
        raise RefusedError("no_code", "that is not a claim code", hint=hint)
    return grouped(digits)


def grouped(digits: str) -> str:
    """In groups of four."""
    return "-".join(digits[at : at + 4] for at in range(0, len(digits), 4))


def fingerprint(key: Ed25519PrivateKey | Ed25519PublicKey) -> str:
    """128 bits of the SHA-256 of the public key, in groups to be read aloud; the first four are the key's id."""
    public = key.public_key() if isinstance(key, Ed25519PrivateKey) else key
    digits = hashlib.sha256(public.public_bytes_raw()).hexdigest()[:32]
    return " ".join(digits[at : at + 4] for at in range(0, len(digits), 4))


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What follows from a code. `commitment` travels; `proof` authenticates the answer and is secret."""

    commitment: bytes
    proof: bytes


def claim_of(code: str, gateway: str, key: str, salt: bytes) -> Claim:
    """Slow on purpose: for a thread. Args: code: from `plain_code`. key: as text."""
    about = hashlib.sha256(b"\0".join((REQUEST.encode(), gateway.encode(), key.encode(), salt))).digest()
    secret = hashlib.scrypt(code.replace("-", "").encode(), salt=about, n=_N, r=_R, p=_P, maxmem=_MEMORY, dklen=32)
    return Claim(commitment=_mac(secret, b"commitment"), proof=_mac(secret, b"answer"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A gateway asks to be known.

    Attributes:
        body: what is signed. signature: by `key`.
        id: of the request: 128 bits of the body's SHA-256.
        name, name_en: of its site, for headquarters' list.
        key: public key as text.
        salt, commitment: see `claim_of`.
        by_file: travels as a file.
        made_ms: UTC milliseconds by the gateway's clock.
    """

    body: bytes
    signature: bytes
    gateway: str
    name: str
    name_en: str
    key: str
    salt: bytes
    commitment: bytes
    by_file: bool
    made_ms: int

    @property
    def id(self) -> str:
        return hashlib.sha256(self.body).hexdigest()[:32]

    @property
    def public_key(self) -> Ed25519PublicKey:
        return parse_public_key(self.key)

    @property
    def kid(self) -> str:
        return key_id(self.public_key)

    def to_json(self) -> dict[str, Any]:
        """As it travels and lies on disk."""
        return {"body": bytes_text(self.body), "signature": bytes_text(self.signature)}

    @classmethod
    def from_json(cls, fields: Any) -> Request:
        """Inverse of `to_json`, its signature checked. Raises DamagedError; RefusedError `bad_signature`."""
        body, signature, said = _opened(fields, REQUEST)
        try:
            made = cls(
                body=body,
                signature=signature,
                gateway=_text(said["gateway"]),
                name=_text(said["name"]),
                name_en=_text(said["name_en"]),
                key=_text(said["key"]),
                salt=bytes_from_text(said["salt"]),
                commitment=bytes_from_text(said["commitment"]),
                by_file=bool(said["by_file"]),
                made_ms=_whole(said["made_ms"]),
            )
            public = made.public_key
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"not an enrolment request: {error!r:.200}") from error
        if len(made.salt) != 16 or len(made.commitment) != 32:
            raise DamagedError("not an enrolment request: its salt or commitment has another length")
        must_fit(public, signature, REQUEST, body)
        return made


def make_request(
    key: Ed25519PrivateKey, code: str, *, gateway: str, name: str, name_en: str, by_file: bool, made_ms: int
) -> tuple[Request, bytes]:
    """Sign a request, and the secret that its answer is proven by. Slow on purpose: for a thread."""
    text, salt = public_key_text(key), secrets.token_bytes(16)
    claim = claim_of(code, gateway, text, salt)
    body = canonical(
        {
            "format": REQUEST,
            "gateway": gateway,
            "name": name[:_MOST_NAME],
            "name_en": name_en[:_MOST_NAME],
            "key": text,
            "salt": bytes_text(salt),
            "commitment": bytes_text(claim.commitment),
            "by_file": by_file,
            "made_ms": made_ms,
        }
    )
    signed = {"body": bytes_text(body), "signature": bytes_text(key.sign(in_context(REQUEST, body)))}
    return Request.from_json(signed), claim.proof


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Headquarters knows the gateway from now on. `witness_key`: headquarters' own; `proof`: HMAC-SHA256 of `body`."""

    body: bytes
    proof: bytes
    request: str
    gateway: str
    kid: str
    witness_key: str

    def to_json(self) -> dict[str, Any]:
        """As it travels and lies on disk."""
        return {"body": bytes_text(self.body), "proof": bytes_text(self.proof)}

    @classmethod
    def from_json(cls, fields: Any, request: Request, secret: bytes) -> Answer:
        """Inverse of `to_json`.

        Raises:
            DamagedError: it is no answer.
            RefusedError: `other_gateway`: to another request. `forged`: not from whoever was told the code.
        """
        renamed = {**fields, "signature": fields.get("proof")} if isinstance(fields, dict) else fields
        body, proof, said = _opened(renamed, ANSWER)
        try:
            names = {name: _text(said[name]) for name in ("request", "gateway", "kid", "witness_key")}
            parse_public_key(names["witness_key"])
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"not an answer to an enrolment: {error!r:.200}") from error
        if not hmac.compare_digest(_mac(secret, in_context(ANSWER, body)), proof):
            hint = "somebody between here and headquarters may have changed it; ask for a new code"
            raise RefusedError("forged", "the answer is not from whoever was told the claim code", hint=hint)
        if (names["request"], names["gateway"], names["kid"]) != (request.id, request.gateway, request.kid):
            raise RefusedError("other_gateway", "the answer is to another request")
        return cls(body=body, proof=proof, **names)


def make_answer(request: Request, secret: bytes, witness_key: str, at_ms: int) -> Answer:
    """Args: secret: `Claim.proof` of the code that was typed."""
    said = {"request": request.id, "gateway": request.gateway, "kid": request.kid, "witness_key": witness_key}
    body = canonical({"format": ANSWER, "at_ms": at_ms, **said})
    return Answer(body=body, proof=_mac(secret, in_context(ANSWER, body)), **said)


def in_context(what: str, body: bytes) -> bytes:
    """What is signed: it can be nothing else that the same key signs."""
    return what.encode() + b"\0" + body


def must_fit(key: Ed25519PublicKey, signature: bytes, what: str, body: bytes) -> None:
    """Raises RefusedError `bad_signature`."""
    try:
        key.verify(signature, in_context(what, body))
    except InvalidSignature as error:
        raise RefusedError("bad_signature", "the signature does not fit") from error


def _opened(fields: Any, what: str) -> tuple[bytes, bytes, dict[str, Any]]:
    """Body, signature and what the body says. Raises DamagedError."""
    try:
        body, signature = bytes_from_text(fields["body"]), bytes_from_text(fields["signature"])
        if len(body) > MOST_BYTES:
            raise ValueError(f"{len(body)} bytes")
        said = json.loads(body)
        if said["format"] != what:
            raise ValueError(f"format {said['format']!r:.60}")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise DamagedError(f"not a {what!r}: {error!r:.200}") from error
    return body, signature, said


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4 * _MOST_NAME or not is_text(value):
        raise ValueError(f"no text: {value!r:.60}")
    return value


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 2**53:
        raise ValueError(f"no time: {value!r:.60}")
    return value


def _mac(secret: bytes, data: bytes) -> bytes:
    return hmac.digest(secret, data, "sha256")
