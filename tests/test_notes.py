"""Signed notes, checkpoints and cosignatures: byte for byte what C2SP describes, checked against others' signatures."""

from __future__ import annotations

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sitewarden.sync.notes import (
    Checkpoint,
    Note,
    NoteError,
    cosign,
    gateway_and_epoch,
    origin_of,
    parse_note,
    parse_signature,
    sign_note,
    verify_cosignature,
    verify_note,
    witness_name,
)

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
# The example of Go's package sumdb/note: a key of a test, its text, its signature.
PETER = Ed25519PrivateKey.from_private_bytes(base64.b64decode("AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz")[1:])
PETERS_TEXT = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
PETERS_LINE = (
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# The example of c2sp.org/tlog-cosignature.
BEHIND_THE_SOFA = """example.com/behind-the-sofa
20852163
CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=
— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==
"""  # noqa: E501

CHECKPOINT = Checkpoint(
    origin="sitewarden/gw1/0123456789abcdef",
    size=4096,
    root=hashlib.sha256(b"root").digest(),
    chain=hashlib.sha256(b"chain").digest(),
)


def test_the_signature_of_gos_own_example_is_made_and_verified():
    note = sign_note(PETERS_TEXT, "PeterNeumann", PETER)
    assert str(note) == f"{PETERS_TEXT}\n{PETERS_LINE}"
    assert verify_note(parse_note(str(note)), "PeterNeumann", [KEY.public_key(), PETER.public_key()])


def test_c2sps_own_example_is_read():
    note = parse_note(BEHIND_THE_SOFA.encode())
    assert str(note) == BEHIND_THE_SOFA
    assert note.text.count("\n") == 3
    log, witness = note.signatures
    assert (log.name, log.key.hex(), len(log.value)) == ("example.com/behind-the-sofa", "033de0ae", 64)
    assert (witness.name, witness.key.hex(), len(witness.value)) == ("witness.example.com/w1", "8d66cf3f", 72)
    assert int.from_bytes(witness.value[:8], "big") == 1679315147


def test_a_checkpoint_has_the_documented_form():
    root, chain = (base64.b64encode(value).decode() for value in (CHECKPOINT.root, CHECKPOINT.chain))
    text = f"sitewarden/gw1/0123456789abcdef\n4096\n{root}\nchain {chain}\n"
    assert CHECKPOINT.text() == text
    assert Checkpoint.parse(text) == CHECKPOINT
    assert Checkpoint.parse(text + "from a later version\n") == CHECKPOINT
    assert gateway_and_epoch(origin_of("gw1", "0123456789abcdef")) == ("gw1", "0123456789abcdef")


GOOD = CHECKPOINT.text().splitlines()
BAD_TEXTS = {
    "no chain": GOOD[:3],
    "another size": [GOOD[0], "04096", *GOOD[2:]],
    "no number": [GOOD[0], "many", *GOOD[2:]],
    "half a root": [*GOOD[:2], "aGFsZg==", GOOD[3]],
    "no base64": [*GOOD[:2], "?" * 44, GOOD[3]],
    "an empty line": [*GOOD[:2], "", *GOOD[2:]],
    "no chain word": [*GOOD[:3], GOOD[2]],
}


@pytest.mark.parametrize("name", BAD_TEXTS)
def test_what_is_no_checkpoint_is_refused(name: str):
    with pytest.raises(NoteError):
        Checkpoint.parse("\n".join(BAD_TEXTS[name]) + "\n")


@pytest.mark.parametrize("origin", ["", "gw1", "sitewarden/gw1", "sitewarden/GW1/01234567", "sitewarden/a/b/c"])
def test_an_origin_names_gateway_and_epoch(origin: str):
    with pytest.raises(NoteError):
        gateway_and_epoch(origin)


def test_a_cosignature_has_the_documented_form():
    line = cosign(CHECKPOINT.text(), "witness.example.com/w1", KEY, 1679315147)
    raw = base64.b64decode(line.line().split(" ")[2])
    key_id = hashlib.sha256(b"witness.example.com/w1\n\x04" + KEY.public_key().public_bytes_raw()).digest()[:4]
    assert raw[:12] == key_id + (1679315147).to_bytes(8, "big")
    KEY.public_key().verify(raw[12:], b"cosignature/v1\ntime 1679315147\n" + CHECKPOINT.text().encode())


def both_signed() -> Note:
    origin, text = CHECKPOINT.origin, CHECKPOINT.text()
    lines = (*sign_note(text, origin, KEY).signatures, cosign(text, witness_name(OTHER), OTHER, 1_795_000_000))
    return Note(text, lines)


def test_gateway_and_witness_sign_one_note():
    note = parse_note(str(both_signed()))
    assert verify_note(note, CHECKPOINT.origin, [KEY.public_key()])
    assert verify_cosignature(note, witness_name(OTHER), OTHER.public_key()) == 1_795_000_000
    assert parse_signature(note.signatures[1].line()) == note.signatures[1]


def test_neither_passes_for_the_other():
    """The same key under the same name for both purposes: the kind is part of the key's id, and of what is signed."""
    note = sign_note(CHECKPOINT.text(), "n", KEY)
    with pytest.raises(NoteError, match="not countersigned"):
        verify_cosignature(note, "n", KEY.public_key())
    cosigned = Note(note.text, (cosign(note.text, "n", KEY, 5),))
    with pytest.raises(NoteError, match="not signed by a known key"):
        verify_note(cosigned, "n", [KEY.public_key()])


def test_one_byte_changed_and_nothing_fits():
    text = str(both_signed()).replace("\n4096\n", "\n4097\n")
    note = parse_note(text)
    with pytest.raises(NoteError, match="does not fit"):
        verify_note(note, CHECKPOINT.origin, [KEY.public_key()])
    with pytest.raises(NoteError, match="does not fit"):
        verify_cosignature(note, witness_name(OTHER), OTHER.public_key())


def test_another_time_does_not_fit():
    note = both_signed()
    late = cosign(note.text, witness_name(OTHER), OTHER, 5)
    forged = type(late)(late.name, late.key, (6).to_bytes(8, "big") + late.value[8:])
    with pytest.raises(NoteError, match="does not fit"):
        verify_cosignature(Note(note.text, (forged,)), witness_name(OTHER), OTHER.public_key())


def test_signatures_of_strangers_are_ignored():
    note = both_signed()
    stranger = sign_note(note.text, "somebody", OTHER).signatures
    assert verify_note(Note(note.text, (*stranger, *note.signatures)), CHECKPOINT.origin, [KEY.public_key()])
    with pytest.raises(NoteError, match="not signed by a known key"):
        verify_note(Note(note.text, stranger), CHECKPOINT.origin, [KEY.public_key()])


BAD_NOTES = {
    "nothing": "",
    "no signature": CHECKPOINT.text() + "\n",
    "no empty line": CHECKPOINT.text() + PETERS_LINE,
    "no last newline": str(both_signed())[:-1],
    "a hyphen": str(both_signed()).replace("—", "-"),
    "a control character": str(both_signed()).replace("4096", "40\t96"),
    "a carriage return": str(both_signed()).replace("\n", "\r\n"),
    "a plus in a name": str(both_signed()).replace("— sitewarden/gw1", "— site+warden/gw1"),
    "no base64": CHECKPOINT.text() + "\n— name !!!!\n",
    "only a key": CHECKPOINT.text() + "\n— name AAAAAA==\n",
    "too long": "x" * 20_000,
    "too many": CHECKPOINT.text() + "\n" + PETERS_LINE * 17,
}


@pytest.mark.parametrize("name", BAD_NOTES)
def test_what_is_no_note_is_refused(name: str):
    with pytest.raises(NoteError):
        parse_note(BAD_NOTES[name])


def test_bytes_that_are_no_text_are_refused():
    with pytest.raises(NoteError, match="UTF-8"):
        parse_note(b"\xff\xfe")
    for text, name in (("no newline", "n"), ("a\x07\n", "n"), ("a\n", "a b"), ("a\n", "a+b"), ("a\n", "")):
        with pytest.raises(NoteError):
            sign_note(text, name, KEY)
