"""The Merkle tree of RFC 6962 section 2.1 (RFC 9162 section 2.1): roots, proofs, their checks.

A node is named (level, index): the root of the perfect subtree over the 2**level leaves from
``index << level`` on. Leaves are leaf hashes (:func:`keystead.translog.entries.leaf_hash`), never
entries. Everything else of a tree is folded from perfect subtrees, which never change once full.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from itertools import islice

import msgspec

from keystead.errors import MalformedRequest, ProofInvalid
from keystead.limits import LOG_SIZE_MAX
from keystead.translog.lines import HASH_BYTES

__all__ = [
    "EMPTY_ROOT",
    "Frontier",
    "ReadNode",
    "check_size",
    "consistency_proof",
    "frontier_of",
    "inclusion_proof",
    "node_hash",
    "parents",
    "root_of",
    "verify_consistency",
    "verify_inclusion",
]

EMPTY_ROOT = hashlib.sha256(b"").digest()
"""The root of the tree of no leaves."""
_NODE = b"\x01"
_CHUNK_LEAVES = 1 << 16  # held at a time: 64 Ki objects of 65 bytes are 4 MB

ReadNode = Callable[[int, int], bytes]
"""(level, index) to the hash of that perfect subtree; raises where the tree does not reach."""


def node_hash(left: bytes, right: bytes) -> bytes:
    """SHA-256(0x01 || left || right) (RFC 6962 section 2.1)."""
    return hashlib.sha256(_NODE + left + right).digest()


def parents(hashes: Sequence[bytes]) -> list[bytes]:
    """The hashes of the pairs, from left to right; an odd last one is left out."""
    sha256 = hashlib.sha256
    pairs = iter(hashes)
    return [sha256(b"\x01" + left + right).digest() for left, right in zip(pairs, pairs)]  # noqa: B905  an odd last one has no pair


class Frontier(msgspec.Struct, frozen=True):
    """All that appending needs of a tree: ``hashes`` are the roots of its maximal perfect subtrees.

    From left to right, greatest first, one for each bit of ``size``.
    """

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def check(self) -> None:
        """Hold the shape against the size.

        Raises:
            MalformedRequest: a size out of bounds, or other hashes than it has bits.
        """
        check_size(self.size)
        if len(self.hashes) != self.size.bit_count():
            raise MalformedRequest(
                f"expected {self.size.bit_count()} hashes in the frontier of a tree of"
                f" {self.size}, met {len(self.hashes)}"
            )
        if any(len(item) != HASH_BYTES for item in self.hashes):
            raise MalformedRequest(f"expected {HASH_BYTES} bytes in each hash of a frontier")

    def extended(self, leaves: Iterable[bytes]) -> Frontier:
        """The frontier after these leaf hashes, 32 bytes each, have been appended in order.

        Raises:
            MalformedRequest: the frontier's shape is wrong, or the tree would grow past its bound.
        """
        self.check()
        source = iter(leaves)
        size, stack = self.size, list(self.hashes)
        while chunk := list(islice(source, _CHUNK_LEAVES)):
            stack = _appended(size, stack, chunk)
            size += len(chunk)
        check_size(size)
        return Frontier(size, tuple(stack))

    def root(self) -> bytes:
        """The root of the tree, 32 bytes."""
        return _folded(self.hashes) if self.hashes else EMPTY_ROOT


def _appended(size: int, stack: list[bytes], leaves: list[bytes]) -> list[bytes]:
    """The stack after a chunk, level by level: a loop a level is far quicker than one a leaf."""
    kept: list[bytes] = []
    level, row = 0, leaves
    while row or size >> level:
        if size >> level & 1:
            row = [stack.pop(), *row]
        if len(row) & 1:
            kept.append(row[-1])
        row = parents(row)
        level += 1
    kept.reverse()
    return kept


def check_size(size: int) -> None:
    """Hold a tree size against its bound.

    Raises:
        MalformedRequest: negative, or past ``LOG_SIZE_MAX``.
    """
    if not 0 <= size <= LOG_SIZE_MAX:
        raise MalformedRequest(f"expected a tree size from 0 to {LOG_SIZE_MAX}, met {size}")


def _folded(hashes: Sequence[bytes]) -> bytes:
    root = hashes[-1]
    for left in reversed(hashes[:-1]):
        root = node_hash(left, root)
    return root


def _cover(low: int, high: int, read: ReadNode) -> tuple[bytes, ...]:
    """The maximal perfect subtrees over [low, high); ``low`` is a multiple of the first's width."""
    found: list[bytes] = []
    while low < high:
        level = (high - low).bit_length() - 1
        found.append(read(level, low >> level))
        low += 1 << level
    return tuple(found)


def _split(width: int) -> int:
    """The greatest power of two below ``width`` (RFC 6962's k)."""
    return 1 << (width - 1).bit_length() - 1


def root_of(size: int, read: ReadNode) -> bytes:
    """The root of the tree of the first ``size`` leaves."""
    return frontier_of(size, read).root()


def frontier_of(size: int, read: ReadNode) -> Frontier:
    """The frontier of the tree of the first ``size`` leaves.

    Raises:
        MalformedRequest: a size out of bounds, or ``read`` gives no hashes.
    """
    check_size(size)
    frontier = Frontier(size, _cover(0, size, read))
    frontier.check()
    return frontier


def inclusion_proof(index: int, size: int, read: ReadNode) -> tuple[bytes, ...]:
    """The audit path of leaf ``index`` in the tree of ``size``: sibling first (RFC 6962 2.1.1).

    Raises:
        MalformedRequest: the tree has no such leaf.
    """
    check_size(size)
    if not 0 <= index < size:
        raise MalformedRequest(f"expected an index from 0 to {size - 1}, met {index}")
    path: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            path.append(_folded(_cover(middle, high, read)))
            high = middle
        else:
            path.append(_folded(_cover(low, middle, read)))
            low = middle
    path.reverse()
    return tuple(path)


def consistency_proof(old: int, new: int, read: ReadNode) -> tuple[bytes, ...]:
    """The proof that the tree of ``old`` is a prefix of that of ``new`` (RFC 6962 2.1.2).

    Empty where nothing is to be shown: ``old`` is 0, or the sizes are equal.

    Raises:
        MalformedRequest: ``old`` is greater than ``new``, or either is out of bounds.
    """
    check_size(new)
    if not 0 <= old <= new:
        raise MalformedRequest(f"expected an old size from 0 to {new}, met {old}")
    if old in (0, new):
        return ()
    path: list[bytes] = []
    low, high = 0, new
    while high != old:
        middle = low + _split(high - low)
        if old <= middle:
            path.append(_folded(_cover(middle, high, read)))
            high = middle
        else:
            path.append(_folded(_cover(low, middle, read)))
            low = middle
    if low:
        path.append(_folded(_cover(low, high, read)))
    path.reverse()
    return tuple(path)


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None:
    """Check that ``leaf``, a leaf hash, stands at ``index`` in the tree of ``size`` and ``root``.

    Raises:
        ProofInvalid: it does not, or the proof has another shape than this place has.
    """
    where = f"leaf {index} in the tree of {size}"
    if not 0 <= index < size <= LOG_SIZE_MAX:
        raise ProofInvalid(f"there is no {where}")
    inner = (index ^ (size - 1)).bit_length()
    length = inner + (index >> inner).bit_count()
    _check_path(proof, length, where)
    met = leaf
    for level, sibling in enumerate(proof):
        on_right = level >= inner or index >> level & 1
        met = node_hash(sibling, met) if on_right else node_hash(met, sibling)
    if met != root or len(leaf) != HASH_BYTES:
        raise ProofInvalid(
            f"the proof of {where} does not lead to the root: expected {root.hex()},"
            f" met {met.hex()}",
            hint="the leaf, the place or the proof is not the one that was logged",
        )


def verify_consistency(
    old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]
) -> None:
    """Check that the tree of ``old`` and ``old_root`` is a prefix of that of ``new``.

    Raises:
        ProofInvalid: it is not, or the proof has another shape than these sizes have.
    """
    where = f"the trees of {old} and {new}"
    if not 0 <= old <= new <= LOG_SIZE_MAX:
        raise ProofInvalid(f"expected the old tree to be the smaller, met {where}")
    if 0 < old < new:
        met = _roots_by(old, new, old_root, proof, where)
    else:
        _check_path(proof, 0, where)
        met = (EMPTY_ROOT if old == 0 else new_root, EMPTY_ROOT if new == 0 else new_root)
    for size, expected, found in zip((old, new), (old_root, new_root), met, strict=True):
        if expected != found:
            raise ProofInvalid(
                f"{where} are not consistent at size {size}: expected the root"
                f" {expected.hex()}, met {found.hex()}",
                hint="keep both checkpoints: if both are signed, the log has forked",
            )


def _roots_by(
    old: int, new: int, old_root: bytes, proof: Sequence[bytes], where: str
) -> tuple[bytes, bytes]:
    """Both roots as the proof has them, for 0 < old < new (RFC 9162 section 2.1.4.2)."""
    shift = (old & -old).bit_length() - 1  # up to the last perfect subtree of the old tree
    last_old, last_new = old - 1 >> shift, new - 1 >> shift
    inner = (last_old ^ last_new).bit_length()
    whole = last_old == 0  # then the old root is itself that subtree, and is not in the proof
    length = inner + (last_old >> inner).bit_count() + (not whole)
    _check_path(proof, length, where)
    path = iter(proof)
    old_met = new_met = old_root if whole else next(path)
    for level, sibling in enumerate(path):
        if level >= inner or last_old >> level & 1:
            old_met = node_hash(sibling, old_met)
            new_met = node_hash(sibling, new_met)
        else:
            new_met = node_hash(new_met, sibling)
    return old_met, new_met


def _check_path(proof: Sequence[bytes], length: int, where: str) -> None:
    if len(proof) != length:
        raise ProofInvalid(f"expected {length} hashes in the proof for {where}, met {len(proof)}")
    if any(len(item) != HASH_BYTES for item in proof):
        raise ProofInvalid(f"expected {HASH_BYTES} bytes in each hash of the proof for {where}")
