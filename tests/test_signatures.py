"""Our fixed profile of RFC 9421 against a library that knows all of it: what one signs the other verifies."""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from http_message_signatures._algorithms import ED25519
from http_message_signatures._components import _parse_component_ids
from http_message_signatures.exceptions import InvalidSignature
from http_message_signatures.resolvers import HTTPSignatureKeyResolver
from http_message_signatures.signatures import HTTPMessageSigner, HTTPMessageVerifier
from sitewarden.errors import RefusedError
from sitewarden.sync.keys import key_id
from sitewarden.sync.wire import Message, bytes_text, content_digest, sign, verify

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
URI = "https://hq.example/v1/gateways/gw1/streams/journal/epochs/aabbccdd/batches/7"
BODY = b"some bytes"
NONCE = "0123456789abcdef" * 2
PLAIN = ("@method", "@target-uri")
WITH_BODY = (*PLAIN, "content-digest", "sw-chain")
WITH_PIECE = (*PLAIN, "content-digest", "upload-offset", "upload-length")


@dataclass
class Request:
    """What the library takes for a request."""

    method: str
    url: str
    headers: dict[str, str] = field(default_factory=dict)


class Keys(HTTPSignatureKeyResolver):
    """One key, by the id that we give it."""

    def __init__(self, key: Ed25519PrivateKey = KEY) -> None:
        self._key = key

    def resolve_public_key(self, key_id: str) -> Ed25519PublicKey:
        return self._key.public_key()

    def resolve_private_key(self, key_id: str) -> Ed25519PrivateKey:
        return self._key


def now_s() -> int:
    return int(dt.datetime.now(dt.UTC).timestamp())


def message(kind: str) -> Message:
    digest = content_digest(BODY)
    match kind:
        case "plain":
            return Message(method="GET", target_uri=URI)
        case "batch":
            return Message(method="PUT", target_uri=URI, digest=digest, chain=bytes_text(bytes(32)))
        case _:
            return Message(method="PATCH", target_uri=URI, digest=digest, upload=("262144", "900000"))


COVERED = {"plain": PLAIN, "batch": WITH_BODY, "piece": WITH_PIECE}


def ours(kind: str) -> Request:
    """Signed by us."""
    said = message(kind)
    return Request(said.method, said.target_uri, sign(said, KEY, created_s=now_s(), nonce=NONCE))


def theirs(kind: str, key: Ed25519PrivateKey = KEY, covered: tuple[str, ...] = (), **params: Any) -> Request:
    """Signed by the library, parameters in the order of our profile."""
    said = message(kind)
    fields = {"Content-Digest": said.digest, "SW-Chain": said.chain}
    if said.upload is not None:
        fields |= {"Upload-Offset": said.upload[0], "Upload-Length": said.upload[1]}
    request = Request(said.method, said.target_uri, {name: value for name, value in fields.items() if value})
    signer = HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=Keys(key))
    given = {"created": now_s(), "keyid": key_id(key), "alg": "ed25519", "nonce": NONCE, **params}
    base, node, _ = signer._build_signature_base(
        request,
        covered_component_ids=_parse_component_ids(covered or COVERED[kind]),
        signature_params=OrderedDict((name, value) for name, value in given.items() if value is not None),
    )
    signature = ED25519(private_key=key).sign(base.encode())
    request.headers |= {"Signature-Input": f"sw={node}", "Signature": f"sw={bytes_text(signature)}"}
    return request


def they_verify(request: Request, kind: str) -> None:
    verifier = HTTPMessageVerifier(signature_algorithm=ED25519, key_resolver=Keys())
    (result,) = verifier.verify(request, require_components=COVERED[kind], body=BODY if kind != "plain" else None)
    assert result.label == "sw"
    assert result.nonce == NONCE


def we_verify(request: Request, kind: str, now: float | None = None) -> str:
    said = message(kind)
    taken = Message(
        method=request.method, target_uri=request.url, digest=said.digest, chain=said.chain, upload=said.upload
    )
    return verify(taken, request.headers, {key_id(KEY): KEY.public_key()}, now if now is not None else now_s())


@pytest.mark.parametrize("kind", COVERED)
def test_what_we_sign_the_library_verifies(kind: str) -> None:
    they_verify(ours(kind), kind)


@pytest.mark.parametrize("kind", COVERED)
def test_what_the_library_signs_we_verify(kind: str) -> None:
    assert we_verify(theirs(kind), kind) == key_id(KEY)


@pytest.mark.parametrize("kind", COVERED)
def test_both_make_the_same_bytes(kind: str) -> None:
    mine, given = ours(kind), theirs(kind)
    created = given.headers["Signature-Input"].partition("created=")[2].partition(";")[0]
    mine.headers = sign(message(kind), KEY, created_s=int(created), nonce=NONCE)
    assert mine.headers["Signature-Input"] == given.headers["Signature-Input"]
    assert mine.headers["Signature"] == given.headers["Signature"]


def change(request: Request, name: str, value: str) -> None:
    request.headers[name] = value


CHANGES: dict[str, Callable[[Request], None]] = {
    "another method": lambda request: setattr(request, "method", "DELETE"),
    "another host": lambda request: setattr(request, "url", URI.replace("hq.", "evil.")),
    "another batch": lambda request: setattr(request, "url", URI[:-1] + "8"),
    "another scheme": lambda request: setattr(request, "url", URI.replace("https", "http")),
    "another time": lambda request: change(
        request, "Signature-Input", request.headers["Signature-Input"].replace("created=1", "created=2")
    ),
    "another nonce": lambda request: change(
        request, "Signature-Input", request.headers["Signature-Input"].replace(NONCE, NONCE[::-1])
    ),
    "another signature": lambda request: change(request, "Signature", f"sw={bytes_text(bytes(64))}"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_both_refuse_what_was_changed_on_the_way(what: str) -> None:
    request = ours("batch")
    CHANGES[what](request)
    with pytest.raises(InvalidSignature):
        they_verify(request, "batch")
    with pytest.raises(RefusedError) as refused:
        we_verify(request, "batch")
    assert refused.value.reason == "bad_signature"


@pytest.mark.parametrize("what", ["Content-Digest", "SW-Chain"])
def test_both_refuse_another_digest_or_chain(what: str) -> None:
    request, said = ours("batch"), message("batch")
    request.headers[what] = content_digest(b"other") if what == "Content-Digest" else bytes_text(bytes([1] * 32))
    with pytest.raises(InvalidSignature):
        they_verify(request, "batch")
    digest, chain = request.headers["Content-Digest"], request.headers["SW-Chain"]
    taken = Message(method=said.method, target_uri=said.target_uri, digest=digest, chain=chain)
    with pytest.raises(RefusedError) as refused:
        verify(taken, request.headers, {key_id(KEY): KEY.public_key()}, now_s())
    assert refused.value.reason == "bad_signature"


def test_both_refuse_another_key() -> None:
    request = theirs("batch", OTHER)
    with pytest.raises(InvalidSignature):
        they_verify(request, "batch")
    with pytest.raises(RefusedError) as refused:
        we_verify(request, "batch")
    assert refused.value.reason == "wrong_key"
    request = theirs("batch", OTHER, keyid=key_id(KEY))
    with pytest.raises(RefusedError) as refused:
        we_verify(request, "batch")
    assert refused.value.reason == "bad_signature"


@pytest.mark.parametrize(
    ("kind", "changed"),
    [
        ("batch", {"covered": PLAIN}),
        ("batch", {"covered": (*PLAIN, "content-digest")}),
        ("batch", {"covered": ("@method", "@authority", "content-digest", "sw-chain")}),
        ("batch", {"covered": ("@target-uri", "@method", "content-digest", "sw-chain")}),
        ("batch", {"expires": 4_000_000_000}),
        ("batch", {"tag": "other"}),
        ("batch", {"nonce": None}),
        ("batch", {"nonce": "short"}),
        ("batch", {"created": None}),
        ("batch", {"alg": None}),
        ("plain", {"covered": ("@method",)}),
    ],
)
def test_a_good_signature_of_another_profile_is_refused(kind: str, changed: dict[str, Any]) -> None:
    request = theirs(kind, **changed)
    with pytest.raises(RefusedError) as refused:
        we_verify(request, kind)
    assert refused.value.reason == "wrong_profile"


def test_what_the_library_signs_by_its_own_interface_is_of_our_profile() -> None:
    said = message("batch")
    request = Request("PUT", URI, {"Content-Digest": said.digest, "SW-Chain": said.chain})
    signer = HTTPMessageSigner(signature_algorithm=ED25519, key_resolver=Keys())
    signer.sign(
        request, key_id=key_id(KEY), nonce=NONCE, label="sw", covered_component_ids=WITH_BODY, use_existing_digest=True
    )
    assert we_verify(request, "batch") == key_id(KEY)


@pytest.mark.parametrize(("off_s", "accepted"), [(-299, True), (299, True), (-301, False), (301, False)])
def test_a_signature_is_good_for_five_minutes_either_way(off_s: int, accepted: bool) -> None:
    request = ours("plain")
    if accepted:
        assert we_verify(request, "plain", now_s() + off_s) == key_id(KEY)
        return
    with pytest.raises(RefusedError) as refused:
        we_verify(request, "plain", now_s() + off_s * 1.01)
    assert refused.value.reason == "clock"
