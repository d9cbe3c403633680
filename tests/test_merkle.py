"""The Merkle tree of RFC 6962: the same roots and proofs as pymerkle's, and nothing else passes."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pymerkle import InmemoryTree, verify_consistency, verify_inclusion
from sitewarden.sync.merkle import (
    EMPTY,
    Range,
    append,
    check_consistency,
    check_inclusion,
    consistency_proof,
    extend,
    inclusion_proof,
    leaf_hash,
    node_hash,
    root,
)

SIZES = range(1, 36)


def leaves(count: int) -> list[bytes]:
    return [b"record %d" % n for n in range(count)]


def oracle(count: int) -> InmemoryTree:
    tree = InmemoryTree(algorithm="sha256")
    for leaf in leaves(count):
        tree.append_entry(leaf)
    return tree


def root_of(count: int) -> bytes:
    return root(extend(EMPTY, leaves(count)))


def test_the_hashes_are_those_of_rfc_6962():
    assert root(EMPTY) == hashlib.sha256(b"").digest()
    assert leaf_hash(b"L123456").hex() == "395aa064aa4c29f7010acfe3f25db9485bbd4b91897b6ad7ad547639252b4d56"
    one, two, three = (leaf_hash(leaf) for leaf in leaves(3))
    assert root_of(3) == node_hash(node_hash(one, two), three)


@pytest.mark.parametrize("size", SIZES)
def test_every_root_is_the_oracles(size: int):
    assert root_of(size) == oracle(size).get_root()


@given(st.lists(st.binary(max_size=40), max_size=80), st.integers(0, 80))
def test_appending_one_by_one_or_in_any_parts_is_the_same(data: list[bytes], cut: int):
    one_by_one = EMPTY
    for leaf in data:
        one_by_one = append(one_by_one, leaf)
    assert extend(extend(EMPTY, data[:cut]), data[cut:]) == one_by_one
    assert Range.from_bytes(one_by_one.size, one_by_one.to_bytes()) == one_by_one


@pytest.mark.parametrize(("size", "data"), [(3, bytes(32)), (4, bytes(64)), (2, b"short"), (-1, b""), (0, bytes(32))])
def test_what_is_no_compact_range_of_that_size_is_refused(size: int, data: bytes):
    with pytest.raises(ValueError, match="compact range"):
        Range.from_bytes(size, data)


@pytest.mark.parametrize("size", SIZES)
def test_every_inclusion_proof_is_the_oracles_and_passes_both_checks(size: int):
    hashes, tree = [leaf_hash(leaf) for leaf in leaves(size)], oracle(size)
    for index in range(size):
        proof, theirs = inclusion_proof(hashes, index), tree.prove_inclusion(index + 1, size)
        assert [hashes[index], *proof] == theirs.path
        verify_inclusion(hashes[index], root_of(size), theirs)
        assert check_inclusion(hashes[index], index, size, proof, root_of(size))


@pytest.mark.parametrize("size", SIZES)
def test_every_consistency_proof_passes_and_the_oracle_agrees_that_it_is_true(size: int):
    hashes, tree = [leaf_hash(leaf) for leaf in leaves(size)], oracle(size)
    for old in range(1, size + 1):
        verify_consistency(root_of(old), root_of(size), tree.prove_consistency(old, size))
        assert check_consistency(old, size, root_of(old), root_of(size), consistency_proof(hashes, old))


@given(st.integers(1, 70), st.data())
def test_a_proof_of_something_else_does_not_pass(size: int, data: st.DataObject):
    hashes = [leaf_hash(leaf) for leaf in leaves(size)]
    index = data.draw(st.integers(0, size - 1))
    proof, truth = inclusion_proof(hashes, index), root_of(size)
    assert not check_inclusion(leaf_hash(b"another"), index, size, proof, truth)
    assert not check_inclusion(hashes[index], index, size, proof, bytes(32))
    assert not check_inclusion(hashes[index], index, size, [*proof, bytes(32)], truth)
    assert not check_inclusion(hashes[index], size, size, proof, truth)
    if proof:
        assert not check_inclusion(hashes[index], index, size, proof[:-1], truth)
        assert not check_inclusion(hashes[index], (index + 1) % size, size, proof, truth)


@given(st.integers(2, 70), st.data())
def test_a_log_that_was_changed_has_no_proof_of_consistency(size: int, data: st.DataObject):
    old = data.draw(st.integers(1, size - 1))
    touched = data.draw(st.integers(0, old - 1))
    other = leaves(size)
    other[touched] = b"altered"
    hashes = [leaf_hash(leaf) for leaf in other]
    proof = consistency_proof(hashes, old)
    new_root = root(extend(EMPTY, other))
    assert not check_consistency(old, size, root_of(old), new_root, proof)
    shuffled = random.Random(size).sample(proof, len(proof))
    assert not check_consistency(old, size, root_of(old), new_root, shuffled)
    assert not check_consistency(old, size, root_of(old), root_of(size), [*proof, bytes(32)])
    assert not check_consistency(size, old, root_of(size), root_of(old), proof)


def test_a_proof_in_a_smaller_log_is_none_in_a_larger_one():
    hashes = [leaf_hash(leaf) for leaf in leaves(4)]
    assert not check_inclusion(hashes[0], 0, 8, inclusion_proof(hashes, 0), root_of(4))


def test_two_logs_of_one_size_are_the_same_or_not():
    assert check_consistency(3, 3, root_of(3), root_of(3), [])
    assert not check_consistency(3, 3, root_of(3), bytes(32), [])
    assert not check_consistency(3, 3, root_of(3), root_of(3), [bytes(32)])


@pytest.mark.parametrize("index", [-1, 3, 4])
def test_there_is_no_proof_of_what_is_not_there(index: int):
    hashes = [leaf_hash(leaf) for leaf in leaves(3)]
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof(hashes, index)
    with pytest.raises(ValueError, match="cannot be compared"):
        consistency_proof(hashes, 4 if index == 3 else 0)
