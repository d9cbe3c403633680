"""Messages between edge and cloud: byte-exact forms, and signatures that cover what they must."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from hypothesis import given
from hypothesis import strategies as st
from sitewarden.errors import PermanentError, RefusedError
from sitewarden.sync import streams, wire
from sitewarden.sync.columns import DamagedError, pack_msgpack, unpack_msgpack
from sitewarden.sync.journal import canonical, genesis_chain, next_chain
from sitewarden.sync.keys import key_id, load_or_create_key, parse_public_key, public_key_text
from sitewarden.sync.wire import Cursor, JournalPayload, Message, SyncReply, sign, verify

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEYS = {key_id(KEY): KEY.public_key()}
NOW = 1_790_000_000
NONCE = "0123456789abcdef" * 2
URI = "https://cloud.example/v1/gateways/gw1/sync"
PUT = Message(method="PUT", target_uri=URI, digest=wire.content_digest(b"body"), chain=wire.bytes_text(bytes(32)))
GET = Message(method="GET", target_uri=URI)


def signed(message: Message) -> dict[str, str]:
    return sign(message, KEY, created_s=NOW, nonce=NONCE)


# --- signatures --------------------------------------------------------------------------------------------------


def test_the_signature_base_is_that_of_rfc_9421() -> None:
    """RFC 9421 appendix B.2.6, with the key of B.1.4."""
    pem = (
        b"-----BEGIN PRIVATE KEY-----\n"
        b"MC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n"
        b"-----END PRIVATE KEY-----\n"
    )
    covered = [
        ("date", "Tue, 20 Apr 2021 02:07:55 GMT"),
        ("@method", "POST"),
        ("@path", "/foo"),
        ("@authority", "example.com"),
        ("content-type", "application/json"),
        ("content-length", "18"),
    ]
    names = " ".join(f'"{name}"' for name, _ in covered)
    key = load_pem_private_key(pem, password=None)
    assert isinstance(key, Ed25519PrivateKey)
    base = wire.signature_base(covered, f'({names});created=1618884473;keyid="test-key-ed25519"')
    expected = "wqcAqbmYJ2ji2glfAMaRy4gruYYnx2nEFN2HN6jrnDnQCK1u02Gb04v9EDgwUPiu4A0w6vuQv5lIp5WPpBKRCw=="
    assert base64.b64encode(key.sign(base)).decode() == expected


def test_the_content_digest_is_that_of_rfc_9530() -> None:
    """RFC 9530 appendix B.1 (with the line feed that ends its content)."""
    assert wire.content_digest(b'{"hello": "world"}\n') == "sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"


@pytest.mark.parametrize("message", [GET, PUT])
def test_what_was_signed_is_verified(message: Message) -> None:
    assert verify(message, signed(message), KEYS, NOW) == key_id(KEY)
    assert verify(message, signed(message), KEYS, NOW + 300) == key_id(KEY)
    assert verify(message, signed(message), KEYS, NOW - 300) == key_id(KEY)


def reason(message: Message, headers: dict[str, str], now_s: float = NOW, keys: object = KEYS) -> str:
    with pytest.raises(RefusedError) as refused:
        verify(message, headers, keys, now_s)  # pyright: ignore[reportArgumentType]
    return refused.value.reason


@pytest.mark.parametrize(
    "other",
    [
        Message(method="DELETE", target_uri=URI, digest=PUT.digest, chain=PUT.chain),
        Message(method="PUT", target_uri=URI + "2", digest=PUT.digest, chain=PUT.chain),
        Message(method="PUT", target_uri=URI, digest=wire.content_digest(b"other"), chain=PUT.chain),
        Message(method="PUT", target_uri=URI, digest=PUT.digest, chain=wire.bytes_text(b"\1" * 32)),
    ],
)
def test_every_covered_part_matters(other: Message) -> None:
    assert reason(other, signed(PUT)) == "bad_signature"


def test_a_body_cannot_travel_under_a_signature_without_digest() -> None:
    assert reason(PUT, signed(GET)) == "wrong_profile"
    assert reason(GET, signed(PUT)) == "wrong_profile"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (("created=1790000000", "created=1790000001"), "bad_signature"),
        (('nonce="01', 'nonce="11'), "bad_signature"),
        (('"@method" "@target-uri"', '"@target-uri" "@method"'), "wrong_profile"),
        (('"@method" "@target-uri"', '"@method"'), "wrong_profile"),
        (('alg="ed25519"', 'alg="hmac-sha256"'), "wrong_profile"),
        (("sw=", "sig1="), "wrong_profile"),
    ],
)
def test_parameters_are_covered_and_the_profile_is_fixed(change: tuple[str, str], expected: str) -> None:
    headers = signed(GET)
    assert change[0] in headers["Signature-Input"]
    headers["Signature-Input"] = headers["Signature-Input"].replace(*change)
    assert reason(GET, headers) == expected


def test_refusals_say_why() -> None:
    assert reason(GET, {}) == "unsigned"
    assert reason(GET, signed(GET), NOW + 301) == "clock"
    assert reason(GET, signed(GET), NOW - 301) == "clock"
    assert reason(GET, signed(GET), keys={}) == "wrong_key"
    assert reason(GET, signed(GET) | {"Signature": "sw=:AAAA:"}) == "bad_signature"
    assert reason(GET, signed(GET) | {"Signature": "sw=AAAA"}) == "bad_signature"


def test_a_stranger_never_learns_that_only_the_clock_is_wrong() -> None:
    """`clock` is said to those alone whose signature fits: its answer moves the clock that a gateway signs by."""
    headers = signed(GET) | {"Signature": f"sw={wire.bytes_text(bytes(64))}"}
    assert reason(GET, headers, NOW + 10_000) == "bad_signature"


def test_the_digest_is_compared_with_the_body() -> None:
    wire.check_digest(wire.content_digest(b"x"), b"x")
    with pytest.raises(RefusedError, match="Content-Digest"):
        wire.check_digest(wire.content_digest(b"x"), b"y")


# --- messages ----------------------------------------------------------------------------------------------------

digests = st.binary(min_size=32, max_size=32)
cursors = st.builds(
    lambda ack, gap, chain, epoch: Cursor(epoch=epoch, ack=ack + gap, durable=ack, chain=chain),
    st.integers(0, 2**50),
    st.integers(0, 99),
    digests,
    st.text("0123456789abcdef", min_size=8, max_size=16),
)


@given(st.integers(0, 2**45), st.lists(cursors, max_size=3))
def test_answers_survive_the_way(time_ms: int, known: list[Cursor]) -> None:
    reply = SyncReply(time_ms=time_ms, streams={"journal": tuple(known), "history": ()})
    assert SyncReply.from_json(reply.to_json()) == reply


def test_an_unknown_epoch_begins_at_nothing() -> None:
    known = Cursor(epoch="aaaaaaaa", ack=7, durable=7, chain=b"\1" * 32)
    reply = SyncReply(time_ms=1, streams={"journal": (known,)})
    assert reply.cursor("journal", "aaaaaaaa", bytes(32)) == known
    assert reply.cursor("journal", "bbbbbbbb", bytes(32)).ack == 0
    assert reply.cursor("history", "aaaaaaaa", bytes(32)).ack == 0


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"time_ms": "1", "streams": {}}, {"time_ms": 1, "streams": []}, {"time_ms": 1, "streams": {"j": 1}},
     {"time_ms": 1, "streams": {"j": [{}]}},
     {"time_ms": 1, "streams": {"j": [{"epoch": "e", "ack": 1, "durable": 2, "chain": ":AA==:"}]}},
     {"time_ms": 1, "streams": {"j": [{"epoch": "e", "ack": True, "durable": 0, "chain": ":AA==:"}]}},
     {"time_ms": 1, "streams": {"j": [{"epoch": "e", "ack": 1, "durable": 1, "chain": "AA=="}]}}],
)  # fmt: skip
def test_odd_answers_are_refused(data: object) -> None:
    with pytest.raises(DamagedError):
        SyncReply.from_json(data)


def test_the_batch_chain_is_what_the_document_says() -> None:
    first = streams.batch_chain(bytes(32), 1, b"payload")
    assert first == hashlib.sha256(bytes(32) + b"\0\0\0\0\0\0\0\1" + hashlib.sha256(b"payload").digest()).digest()
    assert streams.batch_chain(first, 2, b"payload") != streams.batch_chain(first, 3, b"payload")
    geneses = {
        streams.stream_genesis(*ids) for ids in [("a", "b", "c"), ("a", "c", "b"), ("ab", "c", ""), ("a", "bc", "")]
    }
    assert len(geneses) == 4


# --- journal payloads --------------------------------------------------------------------------------------------

EPOCH = "00112233aabbccdd"


def record(seq: int, epoch: str = EPOCH, **body: object) -> bytes:
    at = {"utc": "2026-11-22T13:00:00.000Z", "mono": 1.0, "boot": "b", "clock": "synced"}
    fields = {"seq": seq, "epoch": epoch, "kind": "test", "at": at, "actor": "gateway", "body": body, "blobs": []}
    return canonical(fields)


def payload(first: int, *records: bytes) -> JournalPayload:
    before = genesis_chain("gw1", EPOCH)
    after = before
    for data in records:
        after = next_chain(after, data)
    return JournalPayload(epoch=EPOCH, first=first, before=before, records=records, after=after)


def test_journal_payloads_survive_the_way_and_are_equal_when_made_again() -> None:
    original = payload(5, record(5, name="助剂库"), record(6))
    assert original.pack() == payload(5, record(5, name="助剂库"), record(6)).pack()
    assert JournalPayload.unpack(original.pack()) == original
    records = original.verified(EPOCH)
    assert [(r.seq, r.body) for r in records] == [(5, {"name": "助剂库"}), (6, {})]
    assert records[-1].chain == original.after


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (payload(1, record(1), record(3)), "record 2 says that it is record 3"),
        (payload(2, record(1)), "record 2 says that it is record 1"),
        (payload(1, record(1, epoch="ffffffffffffffff")), "of epoch ffffffffffffffff"),
        (payload(1, b"{}"), "record 1 is not readable"),
        (payload(1, b"\xff"), "record 1 is not readable"),
        (payload(1, b'"' + b"[" * 3000), "record 1 is not readable"),
        (payload(1, b"[" * 100_000), "record 1 is not readable"),
        (payload(1, record(1).replace(b',"blobs"', b', "blobs"')), "record 1 is not in canonical form"),
        (payload(1, record(1).replace(b'"body":{}', b'"body":{"a":NaN}')), "record 1 is not readable"),
        (payload(1, record(1).replace(b'"body":{}', b'"body":{"a":"\\ud800"}')), "record 1 is not readable"),
        (payload(1, record(1, a=1)[:-1] + b',"extra":1}'), "record 1 is not in canonical form"),
    ],
)
def test_records_that_do_not_fit_are_named(bad: JournalPayload, problem: str) -> None:
    with pytest.raises(DamagedError, match=problem):
        bad.verified(EPOCH)


def test_a_record_that_was_altered_in_the_gateways_file_does_not_fit_its_chain() -> None:
    good = payload(1, record(1, limit=75), record(2))
    altered = JournalPayload(
        epoch=EPOCH, first=1, before=good.before, records=(record(1, limit=99), record(2)), after=good.after
    )
    with pytest.raises(DamagedError, match="do not fit their chain"):
        altered.verified(EPOCH)


@pytest.mark.parametrize(
    "data",
    [
        [],
        [2, EPOCH, 1, bytes(32), [b"{}"], bytes(32)],
        [1, EPOCH, 0, bytes(32), [b"{}"], bytes(32)],
        [1, EPOCH, 2**63, bytes(32), [b"{}"], bytes(32)],
        [1, EPOCH, 1, bytes(31), [b"{}"], bytes(32)],
        [1, EPOCH, 1, bytes(32), [], bytes(32)],
        [1, EPOCH, 1, bytes(32), ["{}"], bytes(32)],
        [1, 5, 1, bytes(32), [b"{}"], bytes(32)],
    ],
)
def test_misshapen_payloads_are_refused(data: list[object]) -> None:
    with pytest.raises(DamagedError):
        JournalPayload.unpack(pack_msgpack(data))


# --- keys --------------------------------------------------------------------------------------------------------


def test_the_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "data" / "gateway.key"
    key = load_or_create_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_key_text(load_or_create_key(path)) == public_key_text(key)
    assert [entry.name for entry in path.parent.iterdir()] == ["gateway.key"]
    parsed = parse_public_key(public_key_text(key))
    assert key_id(parsed) == key_id(key)


def test_a_key_that_others_can_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gateway.key"
    load_or_create_key(path)
    path.chmod(0o644)
    with pytest.raises(PermanentError, match="chmod 600"):
        load_or_create_key(path)
    path.write_bytes(b"")
    path.chmod(0o600)
    with pytest.raises(PermanentError, match="not a private key"):
        load_or_create_key(path)


def test_two_that_make_the_key_at_once_end_up_with_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "gateway.key"
    other = tmp_path / "other.key"
    load_or_create_key(other)
    link = os.link

    def late(draft: object, target: object) -> None:
        if not path.exists():
            link(other, path)  # somebody else was faster
        link(draft, target)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(os, "link", late)
    assert public_key_text(load_or_create_key(path)) == public_key_text(load_or_create_key(other))


@pytest.mark.parametrize("text", ["", "ed25519:", "ed25519:AAAA", "rsa:AAAA", "ed25519:" + "!" * 44])
def test_odd_public_keys_are_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(ValueError, match="must be `ed25519:` and the base64 of 32 bytes"):
        parse_public_key(text)


@pytest.mark.parametrize(
    "payload",
    [b"\x80", b"\x91\x80", b"\x81\x01\x01", b"\xc7\x00\x05", b"\xd6\xff\x00\x00\x00\x00", b"\xdd\x00\x00\x4e\x21"],
    ids=["empty map", "map in a list", "map", "extension", "timestamp", "list too long"],
)
def test_a_payload_has_neither_maps_nor_extensions_nor_endless_lists(payload: bytes) -> None:
    with pytest.raises(DamagedError):
        unpack_msgpack(payload)


def test_lists_of_a_payload_are_counted() -> None:
    assert unpack_msgpack(b"\xdc\x4e\x20" + b"\x90" * 20_000) == [[]] * 20_000
    with pytest.raises(DamagedError, match="more than 100000 lists"):
        unpack_msgpack(b"\x96" + (b"\xdc\x4e\x20" + b"\x90" * 20_000) * 6)
