"""TLS 1.3 CertificateVerify: find the version of a key that made the signature."""

from __future__ import annotations

from typing import Literal

import msgspec

from keystead import limits
from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.keys.algorithms import algorithm_named
from keystead.keys.framing.tls import certificate_verify_content
from keystead.keys.purposes import Purpose
from keystead.keys.verify.base import (
    PublicKey,
    Verified,
    check_purpose,
    check_signatures,
    check_state,
)

__all__ = ["VerifiedTls", "verify_tls"]


class VerifiedTls(msgspec.Struct, frozen=True, kw_only=True):
    """A handshake in that role, with that transcript, was signed by the version."""

    signer: Verified
    role: Literal["server", "client"]
    transcript_hash: bytes
    scheme: int


def verify_tls(
    role: Literal["server", "client"],
    transcript_hash: bytes,
    scheme: int,
    signature: bytes,
    key: PublicKey,
    *,
    version: int = 0,
) -> VerifiedTls:
    """Verify the signature of a CertificateVerify message (RFC 8446 section 4.4.3).

    The message names a scheme and no key, so every version whose algorithm has that scheme is
    tried, or only ``version`` if it is not 0.

    Raises:
        SignatureInvalid: no version of the key made it under that scheme.
        SignedByCompromised: a compromised version made it.
        PurposeMismatch: not a TLS key.
        MalformedRequest: a transcript hash of another length than 32 or 48 bytes.
    """
    check_purpose(key, Purpose.TLS)
    if len(transcript_hash) not in limits.TLS_TRANSCRIPT_BYTES:
        raise MalformedRequest(
            f"expected a transcript hash of 32 or 48 bytes, met {len(transcript_hash)}"
        )
    content = certificate_verify_content(role, transcript_hash)
    for candidate in key.versions:
        algorithm = algorithm_named(candidate.algorithm)
        if algorithm.tls_scheme != scheme or version not in (0, candidate.number):
            continue
        try:
            held = check_signatures(candidate, content, {algorithm.components[0]: signature})
        except SignatureInvalid:
            continue
        return VerifiedTls(
            signer=check_state(key, candidate, held),
            role=role,
            transcript_hash=transcript_hash,
            scheme=scheme,
        )
    raise SignatureInvalid(
        f"no version of {key.name} made this signature under scheme 0x{scheme:04x}",
        hint="Check the role, and that the transcript ends with the Certificate message",
    )
