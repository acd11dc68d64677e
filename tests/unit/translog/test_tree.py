"""The tree against RFC 6962 written a second time, at every size up to 300, and far beyond."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import pytest

from keystead.errors import MalformedRequest, ProofInvalid
from keystead.limits import LOG_SIZE_MAX, MERKLE_PROOF_HASHES_MAX
from keystead.translog.tree import (
    EMPTY_ROOT,
    Frontier,
    consistency_proof,
    frontier_of,
    inclusion_proof,
    node_hash,
    parents,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from unit.translog.logs import Naive, leaves_of, subtree_root

MOST = 300
LEAVES = leaves_of(MOST)
NAIVE = Naive(LEAVES)
ROOTS = [NAIVE.root(0, size) for size in range(MOST + 1)]
SIZES = range(MOST + 1)
HUGE = (2**40 + 12345, 2**62 - 1, 2**62, LOG_SIZE_MAX)


def refuses_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    try:
        verify_inclusion(leaf, index, size, proof, root)
    except ProofInvalid:
        return True
    return False


def refuses_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    try:
        verify_consistency(old, old_root, new, new_root, proof)
    except ProofInvalid:
        return True
    return False


def flipped(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert hashlib.sha256(b"").digest() == EMPTY_ROOT
    assert Frontier().root() == EMPTY_ROOT == root_of(0, NAIVE.read) == ROOTS[0]


def test_roots_and_frontiers_at_every_size() -> None:
    frontier = Frontier()
    for size in SIZES:
        frontier.check()
        assert frontier.root() == ROOTS[size] == root_of(size, NAIVE.read)
        assert frontier == frontier_of(size, NAIVE.read) == Frontier().extended(LEAVES[:size])
        frontier = frontier.extended(LEAVES[size : size + 1])


def test_inclusion_of_every_leaf_at_every_size() -> None:
    for size in SIZES:
        for index in range(size):
            proof = inclusion_proof(index, size, NAIVE.read)
            assert list(proof) == NAIVE.path(index, 0, size)
            verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


def test_consistency_of_every_pair_of_sizes() -> None:
    for new in SIZES:
        for old in range(new + 1):
            proof = consistency_proof(old, new, NAIVE.read)
            assert list(proof) == NAIVE.proof(old, new)
            verify_consistency(old, ROOTS[old], new, ROOTS[new], proof)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 11, 16])
def test_an_inclusion_proof_is_of_one_leaf_and_place_and_root(size: int) -> None:
    for index in range(size):
        proof = inclusion_proof(index, size, NAIVE.read)
        for other in range(size + 2):
            right = other == index
            assert refuses_inclusion(LEAVES[index], other, size, proof, ROOTS[size]) is not right
            assert refuses_inclusion(LEAVES[other], index, size, proof, ROOTS[size]) is not right
        for other in range(2 * size + 2):
            right = other == size
            assert refuses_inclusion(LEAVES[index], index, size, proof, ROOTS[other]) is not right


@pytest.mark.parametrize("size", [2, 3, 5, 8, 11])
def test_a_changed_inclusion_proof_is_refused(size: int) -> None:
    for index in range(size):
        proof = inclusion_proof(index, size, NAIVE.read)
        changed = [(), proof[:-1], proof[1:], (*proof, LEAVES[0]), (LEAVES[0], *proof)]
        changed += [
            (*proof[:at], flipped(item, bit), *proof[at + 1 :])
            for at, item in enumerate(proof)
            for bit in (0, 100, 255)
        ]
        changed += [(*proof[:at], item[:31], *proof[at + 1 :]) for at, item in enumerate(proof)]
        for bad in changed:
            assert refuses_inclusion(LEAVES[index], index, size, bad, ROOTS[size])


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 3), (3, 7), (4, 7), (6, 8), (7, 7), (8, 13)])
def test_a_changed_consistency_proof_is_refused(old: int, new: int) -> None:
    proof = consistency_proof(old, new, NAIVE.read)
    changed = [(*proof, LEAVES[0]), (LEAVES[0], *proof)]
    changed += [proof[1:], proof[:-1]] if proof else []
    changed += [
        (*proof[:at], flipped(item, bit), *proof[at + 1 :])
        for at, item in enumerate(proof)
        for bit in (0, 100, 255)
    ]
    for bad in changed:
        assert refuses_consistency(old, ROOTS[old], new, ROOTS[new], bad)
    for other in range(2 * new):
        right_old, right_new = other == old, other == new
        assert refuses_consistency(old, ROOTS[other], new, ROOTS[new], proof) is not right_old
        assert refuses_consistency(old, ROOTS[old], new, ROOTS[other], proof) is not right_new


def test_another_history_is_not_consistent() -> None:
    """A fork that shares all but one early leaf."""
    forked = Naive([*LEAVES[:2], LEAVES[9], *LEAVES[3:16]])
    for old in range(3, 16):
        proof = consistency_proof(old, 16, forked.read)
        assert refuses_consistency(old, ROOTS[old], 16, forked.root(0, 16), proof)


def test_trees_never_shrink_and_the_empty_tree_has_one_root() -> None:
    assert refuses_consistency(5, ROOTS[5], 4, ROOTS[4], ())
    assert refuses_consistency(-1, ROOTS[5], 4, ROOTS[4], ())
    assert refuses_consistency(0, ROOTS[1], 4, ROOTS[4], ())
    assert refuses_consistency(0, EMPTY_ROOT, 0, ROOTS[1], ())
    assert refuses_consistency(0, ROOTS[1], 0, ROOTS[1], ())
    assert refuses_consistency(0, EMPTY_ROOT, 4, ROOTS[4], (ROOTS[4],))
    assert not refuses_consistency(0, EMPTY_ROOT, 4, ROOTS[4], ())


def test_a_node_does_not_pass_for_a_leaf() -> None:
    """The prefixes of RFC 6962 keep the two apart; a leaf of 64 bytes would not."""
    inner = node_hash(LEAVES[0], LEAVES[1])
    assert not refuses_inclusion(inner, 0, 2, [node_hash(LEAVES[2], LEAVES[3])], ROOTS[4])
    assert refuses_inclusion(inner, 0, 4, [node_hash(LEAVES[2], LEAVES[3])], ROOTS[4])
    assert refuses_inclusion(b"", 0, 1, [], b"")


@pytest.mark.parametrize("size", HUGE)
def test_proofs_of_huge_trees(size: int) -> None:
    def read(level: int, index: int) -> bytes:
        assert index + 1 << level <= size
        return subtree_root(LEAVES[0], level)

    root = root_of(size, read)
    for index in (0, 1, size // 3, size // 2, size - 2, size - 1):
        proof = inclusion_proof(index, size, read)
        assert len(proof) <= MERKLE_PROOF_HASHES_MAX
        verify_inclusion(LEAVES[0], index, size, proof, root)
        assert refuses_inclusion(LEAVES[1], index, size, proof, root)
    for old in (1, 2**39, size // 3, size - 1):
        proof = consistency_proof(old, size, read)
        verify_consistency(old, root_of(old, read), size, root, proof)
        assert refuses_consistency(old, root_of(old + 1, read), size, root, proof)


def test_no_proof_of_what_is_not_there() -> None:
    for index, size in ((0, 0), (-1, 5), (5, 5), (0, LOG_SIZE_MAX + 1)):
        with pytest.raises(MalformedRequest):
            inclusion_proof(index, size, NAIVE.read)
        assert refuses_inclusion(LEAVES[0], index, size, (), LEAVES[0])
    for old, new in ((-1, 5), (6, 5), (1, LOG_SIZE_MAX + 1)):
        with pytest.raises(MalformedRequest):
            consistency_proof(old, new, NAIVE.read)
        assert refuses_consistency(old, LEAVES[0], new, LEAVES[0], ())


@pytest.mark.parametrize(
    "frontier",
    [
        Frontier(1, ()),
        Frontier(3, (LEAVES[0],)),
        Frontier(0, (LEAVES[0],)),
        Frontier(4, (LEAVES[0], LEAVES[1])),
        Frontier(1, (LEAVES[0][:31],)),
        Frontier(-1, ()),
        Frontier(LOG_SIZE_MAX + 1, (LEAVES[0],)),
    ],
)
def test_a_frontier_of_another_shape_is_refused(frontier: Frontier) -> None:
    with pytest.raises(MalformedRequest):
        frontier.check()
    with pytest.raises(MalformedRequest):
        frontier.extended(LEAVES[:1])


def test_a_tree_ends_at_its_bound() -> None:
    full = Frontier(LOG_SIZE_MAX, tuple(subtree_root(LEAVES[0], 62 - at) for at in range(63)))
    full.check()
    assert full.extended([]) == full
    with pytest.raises(MalformedRequest, match="tree size"):
        full.extended(LEAVES[:1])


def test_frontiers_take_any_iterable_in_any_runs() -> None:
    many = leaves_of(70_000)  # past one chunk
    whole = Frontier().extended(iter(many))
    parts = Frontier().extended(many[:1]).extended(many[1:65_537]).extended(many[65_537:])
    assert whole == parts
    assert whole.root() == Naive(many).root(0, len(many))


def test_an_odd_last_hash_has_no_parent() -> None:
    pairs = [node_hash(LEAVES[0], LEAVES[1]), node_hash(LEAVES[2], LEAVES[3])]
    assert parents(LEAVES[:5]) == parents(LEAVES[:4]) == pairs
    assert parents(LEAVES[:1]) == parents([]) == []


def test_a_refusal_says_where() -> None:
    with pytest.raises(ProofInvalid, match="leaf 3 in the tree of 8"):
        verify_inclusion(LEAVES[0], 3, 8, inclusion_proof(3, 8, NAIVE.read), ROOTS[8])
    with pytest.raises(ProofInvalid, match="the trees of 3 and 8 are not consistent at size 3"):
        verify_consistency(3, ROOTS[4], 8, ROOTS[8], consistency_proof(3, 8, NAIVE.read))
