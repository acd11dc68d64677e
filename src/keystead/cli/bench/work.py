"""The one piece of work that every subject does: an ECDSA P-256 signature for a TLS 1.3 handshake.

What is signed is 64 spaces, a label, a zero byte and a hash of 32 bytes (RFC 8446 section 4.4.3),
130 bytes in all; OpenBao gets the same bytes.
"""

from __future__ import annotations

import base64
import hashlib

from keystead.keys.commands import CreateKey
from keystead.keys.framing.tls import certificate_verify_content
from keystead.keys.purposes import Purpose

__all__ = [
    "ALGORITHM",
    "BATCH",
    "CONTEXT",
    "KEY",
    "OPERATION",
    "PURPOSE",
    "TENANT",
    "create_key",
    "facts_json",
    "message",
    "transcript_hash",
]

KEY, TENANT = "bench", "bench"
PURPOSE, OPERATION, ALGORITHM = "tls", "sign", "ecdsa-p256-sha256"
CONTEXT = "bench/one"
BATCH = 100
"""Signatures in one batch."""


def transcript_hash() -> bytes:
    """The hash that stands in the message."""
    return hashlib.sha256(b"keystead bench").digest()


def message() -> bytes:
    """The bytes that are signed."""
    return certificate_verify_content("server", transcript_hash())


def facts_json() -> dict[str, str]:
    """The facts of the use, as HTTP has them."""
    return {
        "role": "server",
        "transcript_hash": base64.b64encode(transcript_hash()).decode(),
    }


def create_key() -> CreateKey:
    """The command that makes the key."""
    return CreateKey(name=KEY, purpose=Purpose(PURPOSE), tenant=TENANT, algorithm=ALGORITHM)
