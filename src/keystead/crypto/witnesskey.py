"""A witness's own signing key. Never a key of the vault: what it signs is public, and so is when.

A witness stands apart from the node whose log it watches, so it has no custody to keep a key in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric import ed25519

from keystead.errors import MalformedRequest

__all__ = ["WITNESS_SEED_BYTES", "WitnessKey", "witness_key"]

WITNESS_SEED_BYTES = 32
"""An Ed25519 private key is any 32 bytes that nobody can guess (RFC 8032 section 5.1.5)."""


class WitnessKey(NamedTuple):
    """The raw Ed25519 public key, and a function that signs under its private part."""

    public: bytes
    sign: Callable[[bytes], bytes]


def witness_key(seed: bytes) -> WitnessKey:
    """The key that 32 random bytes are.

    Raises:
        MalformedRequest: another length.
    """
    if len(seed) != WITNESS_SEED_BYTES:
        raise MalformedRequest(
            f"expected {WITNESS_SEED_BYTES} bytes of an Ed25519 private key, met {len(seed)}"
        )
    private = ed25519.Ed25519PrivateKey.from_private_bytes(seed)
    return WitnessKey(private.public_key().public_bytes_raw(), private.sign)
