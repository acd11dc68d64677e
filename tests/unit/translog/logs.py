"""Small logs for tests: a tree written a second, naive way, tiles in a dict, and fixed keys."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache

from cryptography.hazmat.primitives.asymmetric import mldsa
from nacl.signing import SigningKey

from keystead.errors import NotFound
from keystead.translog.heads import Checkpoint
from keystead.translog.notes import (
    ED25519,
    ED25519_COSIGNATURE,
    MLDSA44_COSIGNATURE,
    Note,
    VerifierKey,
    sign_note,
    vkey_of,
)
from keystead.translog.tiles import Tile, TileEdge
from keystead.translog.tree import node_hash

ORIGIN = "keys.example/node-1"
Sign = Callable[[bytes], bytes]


class Naive:
    """RFC 6962 section 2.1, word for word, over leaf hashes."""

    def __init__(self, leaves: list[bytes]) -> None:
        self.leaves = leaves
        self.root = cache(self._root)

    def _root(self, low: int, high: int) -> bytes:
        if low == high:
            return hashlib.sha256().digest()
        if high - low == 1:
            return self.leaves[low]
        k = self.k(high - low)
        left, right = self.root(low, low + k), self.root(low + k, high)
        return hashlib.sha256(b"\1" + left + right).digest()

    def k(self, n: int) -> int:
        k = 1
        while k * 2 < n:
            k *= 2
        return k

    def path(self, m: int, low: int, high: int) -> list[bytes]:
        if high - low == 1:
            return []
        k = self.k(high - low)
        if m < k:
            return [*self.path(m, low, low + k), self.root(low + k, high)]
        return [*self.path(m - k, low + k, high), self.root(low, low + k)]

    def proof(self, m: int, n: int) -> list[bytes]:
        return self.subproof(m, 0, n, True) if m else []  # noqa: FBT003  RFC 6962's own SUBPROOF

    def subproof(self, m: int, low: int, high: int, b: bool) -> list[bytes]:  # noqa: FBT001  as it
        if m == high - low:
            return [] if b else [self.root(low, high)]
        k = self.k(high - low)
        if m <= k:
            return [*self.subproof(m, low, low + k, b), self.root(low + k, high)]
        return [*self.subproof(m - k, low + k, high, False), self.root(low, low + k)]  # noqa: FBT003  as it

    def read(self, level: int, index: int) -> bytes:
        """A ``ReadNode``, of perfect subtrees within the leaves only."""
        low, high = index << level, index + 1 << level
        if high > len(self.leaves):
            raise NotFound(f"no node {level} {index} over {len(self.leaves)} leaves")
        return self.root(low, high)


def leaves_of(count: int) -> list[bytes]:
    return [hashlib.sha256(b"\0%d" % at).digest() for at in range(count)]


class TileStore:
    """Tiles in a dict by path, as a log of several sizes left them."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.edge = TileEdge()
        self.fetched: list[str] = []

    def append(self, leaves: list[bytes]) -> None:
        self.edge, written = self.edge.extended(leaves)
        self.files.update({tile.path: data for tile, data in written})

    def fetch(self, tile: Tile) -> bytes:
        self.fetched.append(tile.path)
        return self.files[tile.path]


@cache
def subtree_root(leaf: bytes, level: int) -> bytes:
    """The root over 2**level equal leaves, so that trees of 2**60 can be had."""
    if level == 0:
        return leaf
    half = subtree_root(leaf, level - 1)
    return node_hash(half, half)


def ed25519(name: str, seed: int, algorithm: int = ED25519) -> tuple[VerifierKey, Sign]:
    private = SigningKey(bytes([seed]) * 32)
    key = vkey_of(name, algorithm, bytes(private.verify_key))
    return key, lambda message: private.sign(message).signature


def mldsa44(name: str, seed: int) -> tuple[VerifierKey, Sign]:
    private = mldsa.MLDSA44PrivateKey.from_seed_bytes(bytes([seed]) * 32)
    return vkey_of(name, MLDSA44_COSIGNATURE, private.public_key().public_bytes_raw()), private.sign


LOG, LOG_SIGN = ed25519(ORIGIN, 1)
W1, W1_SIGN = ed25519("w1.example", 2, ED25519_COSIGNATURE)
W2, W2_SIGN = mldsa44("w2.example", 3)
W3, W3_SIGN = ed25519("w3.example", 4, ED25519_COSIGNATURE)
STRANGER, STRANGER_SIGN = ed25519(ORIGIN, 5)


def head(size: int = 7, *extensions: str, origin: str = ORIGIN) -> Checkpoint:
    leaves = leaves_of(size)
    return Checkpoint(origin, size, Naive(leaves).root(0, size), extensions)


def signed(checkpoint: Checkpoint, key: VerifierKey = LOG, sign: Sign = LOG_SIGN) -> Note:
    text = checkpoint.encode()
    return Note(text, (sign_note(text, key, sign),))
