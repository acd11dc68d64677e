"""Sealing and derivation: AES-256-GCM-SIV (RFC 8452), HKDF and HMAC with SHA-256 (RFC 5869, 2104).

Nonces are arguments. Plaintext that is a secret is opened into a buffer of the caller's, which can
be wiped; see docs/limitations.md for what Python cannot promise.
"""

from __future__ import annotations

import hashlib
import hmac

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from keystead.errors import SignatureInvalid

__all__ = ["KEY_BYTES", "NONCE_BYTES", "TAG_BYTES", "hkdf", "mac", "open_into", "seal"]

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


def seal(key: bytes | bytearray, nonce: bytes, plaintext: bytes | bytearray, aad: bytes) -> bytes:
    """Ciphertext and tag of a plaintext under a 32-byte key and a 12-byte nonce."""
    return AESGCMSIV(key).encrypt(nonce, plaintext, aad)


def open_into(
    key: bytes | bytearray, nonce: bytes, ciphertext: bytes, aad: bytes, into: bytearray
) -> None:
    """Decrypt into a buffer of exactly ``len(ciphertext) - TAG_BYTES``; on an error it is zeros.

    Raises:
        SignatureInvalid: another key, nonce or associated data, or the ciphertext was altered.
    """
    try:
        AESGCMSIV(key).decrypt_into(nonce, ciphertext, aad, into)
    except (InvalidTag, ValueError) as exc:
        into[:] = bytes(len(into))  # OpenSSL decrypts before it knows that the tag does not hold
        raise SignatureInvalid(
            "the ciphertext does not open under this key and associated data"
        ) from exc


def hkdf(secret: bytes | bytearray, info: bytes, length: int = KEY_BYTES) -> bytes:
    """HKDF-SHA-256 without salt: the secret is uniformly random already (RFC 5869 section 3.1)."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=None, info=info).derive(secret)


def mac(key: bytes, message: bytes) -> bytes:
    """HMAC-SHA-256, 32 bytes; compare with ``hmac.compare_digest``."""
    return hmac.digest(key, message, hashlib.sha256)
