"""A log to be witnessed: its tree in memory, its key, and submissions as a client makes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from keystead.crypto.witnesskey import witness_key
from keystead.translog.entries import leaf_hash
from keystead.translog.heads import Checkpoint
from keystead.translog.lines import b64_encode
from keystead.translog.notes import ED25519, Note, VerifierKey, encode_note, sign_note, vkey_of
from keystead.translog.tree import Frontier, consistency_proof

ORIGIN = "log.example/one"


class Log:
    """``seed``: of its key; ``history``: logs of one key and two histories are a fork."""

    def __init__(self, origin: str = ORIGIN, *, seed: int = 1, history: str = "a") -> None:
        self._signer = witness_key(hashlib.sha256(b"log key %d" % seed).digest())
        self.key: VerifierKey = vkey_of(origin, ED25519, self._signer.public)
        self._history = history

    def leaves(self, low: int, high: int) -> list[bytes]:
        return [leaf_hash(f"{self._history}{index}".encode()) for index in range(low, high)]

    def checkpoint(self, size: int, *extensions: str) -> Checkpoint:
        root = Frontier().extended(self.leaves(0, size)).root()
        return Checkpoint(self.key.name, size, root, extensions)

    def sign(self, checkpoint: Checkpoint) -> bytes:
        text = checkpoint.encode()
        return encode_note(Note(text, (sign_note(text, self.key, self._signer.sign),)))

    def note(self, size: int, *extensions: str) -> bytes:
        return self.sign(self.checkpoint(size, *extensions))

    def proof(self, old: int, new: int) -> tuple[bytes, ...]:
        def read(level: int, index: int) -> bytes:
            low = index << level
            return Frontier().extended(self.leaves(low, low + (1 << level))).root()

        return consistency_proof(old, new, read)

    def submission(self, old: int, new: int) -> bytes:
        return body(old, self.proof(old, new), self.note(new))


def body(old: int | str, proof: Sequence[bytes], note: bytes) -> bytes:
    lines = [f"old {old}", *map(b64_encode, proof), "", ""]
    return "\n".join(lines).encode() + note
