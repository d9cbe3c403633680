"""The Merkle tree of RFC 6962 over records: append, root, proofs and their checks. Pure.

A log of n leaves is known by a *compact range*: the roots of the perfect subtrees that n is made of, largest first.
That is all that appending needs, at most one hash for each binary digit of n; the leaves stay where they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

HASH_BYTES = 32


@dataclass(frozen=True, slots=True)
class Range:
    """What is left of `size` leaves when all that follows is another one.

    Attributes:
        nodes: roots of the perfect subtrees, largest first: as many as `size` has binary ones.
    """

    size: int
    nodes: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """The nodes, one after the other."""
        return b"".join(self.nodes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> Range:
        """Inverse of `to_bytes`. Raises ValueError when the nodes are not as many as `size` needs."""
        if size < 0 or len(data) != HASH_BYTES * size.bit_count():
            raise ValueError(f"{len(data)} bytes are no compact range of {size} leaves")
        nodes = tuple(data[start : start + HASH_BYTES] for start in range(0, len(data), HASH_BYTES))
        return cls(size, nodes)


EMPTY = Range(0, ())


def leaf_hash(data: bytes) -> bytes:
    """SHA-256(0x00 ‖ data): RFC 6962 §2.1."""
    return hashlib.sha256(b"\0" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 ‖ left ‖ right): RFC 6962 §2.1."""
    return hashlib.sha256(b"\1" + left + right).digest()


def append(tree: Range, data: bytes) -> Range:
    """One more leaf."""
    return extend(tree, (data,))


def extend(tree: Range, leaves: Iterable[bytes]) -> Range:
    """More leaves, in order; `leaves` are the data, not their hashes."""
    sha256 = hashlib.sha256
    level = [sha256(b"\0" + data).digest() for data in leaves]
    size, left, old, new = tree.size + len(level), tree.size, list(tree.nodes), []
    while level:  # from the smallest subtrees up: two of a kind make one of the next
        if left & 1:
            level.insert(0, old.pop())
        if len(level) & 1:
            new.append(level.pop())
        level = [sha256(b"\1" + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=True)]
        left >>= 1
    return Range(size, (*old, *reversed(new)))


def root(tree: Range) -> bytes:
    """The root over all leaves; of none it is SHA-256 of nothing."""
    if not tree.nodes:
        return hashlib.sha256(b"").digest()
    *others, result = tree.nodes
    for node in reversed(others):
        result = node_hash(node, result)
    return result


# --- proofs ------------------------------------------------------------------------------------------------------


def inclusion_proof(hashes: Sequence[bytes], index: int) -> list[bytes]:
    """What leads from leaf `index` (from 0) to the root over all of them: RFC 6962 §2.1.1.

    Args:
        hashes: of every leaf, as `leaf_hash` gives them.

    Raises:
        ValueError: there is no such leaf.
    """
    if not 0 <= index < len(hashes):
        raise ValueError(f"there is no leaf {index} among {len(hashes)}")
    if len(hashes) == 1:
        return []
    k = _split(len(hashes))
    if index < k:
        return [*inclusion_proof(hashes[:k], index), _root_of(hashes[k:])]
    return [*inclusion_proof(hashes[k:], index - k), _root_of(hashes[:k])]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether the leaf with hash `leaf` is number `index` of the `size` leaves under `root`: RFC 9162 §2.1.3.2."""
    if not 0 <= index < size:
        return False
    position, last, result = index, size - 1, leaf
    for node in proof:
        if last == 0:
            return False
        if position & 1 or position == last:
            result = node_hash(node, result)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            result = node_hash(result, node)
        position, last = position >> 1, last >> 1
    return last == 0 and result == root


def consistency_proof(hashes: Sequence[bytes], old: int) -> list[bytes]:
    """What shows that the first `old` leaves are still the first ones: RFC 6962 §2.1.2.

    Raises:
        ValueError: `old` is not from 1 to the number of leaves.
    """
    if not 0 < old <= len(hashes):
        raise ValueError(f"the first {old} of {len(hashes)} leaves cannot be compared")
    return _consistency(hashes, old, whole=True)


def _consistency(hashes: Sequence[bytes], old: int, *, whole: bool) -> list[bytes]:
    """`whole`: the old leaves are a log that the other side knows the root of."""
    if old == len(hashes):
        return [] if whole else [_root_of(hashes)]
    k = _split(len(hashes))
    if old <= k:
        return [*_consistency(hashes[:k], old, whole=whole), _root_of(hashes[k:])]
    return [*_consistency(hashes[k:], old - k, whole=False), _root_of(hashes[:k])]


def check_consistency(old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]) -> bool:
    """Whether the log of `new` leaves begins with the log of `old` leaves: RFC 9162 §2.1.4.2."""
    if not 0 < old <= new:
        return False
    if old == new:
        return not proof and old_root == new_root
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    if not path:
        return False
    position, last = old - 1, new - 1
    while position & 1:
        position, last = position >> 1, last >> 1
    before = after = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if position & 1 or position == last:
            before, after = node_hash(node, before), node_hash(node, after)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            after = node_hash(after, node)
        position, last = position >> 1, last >> 1
    return last == 0 and before == old_root and after == new_root


def _split(count: int) -> int:
    """The largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def _root_of(hashes: Sequence[bytes]) -> bytes:
    """The root over leaf hashes; there is at least one."""
    if len(hashes) == 1:
        return hashes[0]
    k = _split(len(hashes))
    return node_hash(_root_of(hashes[:k]), _root_of(hashes[k:]))
