"""TLS 1.3 CertificateVerify: the vault builds the signed content from role and transcript hash."""

from __future__ import annotations

from typing import Literal

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.keys.framing.base import Facts, Framed, Framing, Result, Scene

__all__ = [
    "TLS",
    "TLS_PREHASHED",
    "SignDigest",
    "SignTls",
    "TlsResult",
    "certificate_verify_content",
]

_LABEL = {
    "server": b"TLS 1.3, server CertificateVerify",
    "client": b"TLS 1.3, client CertificateVerify",
}
_DIGEST_BYTES = {"ecdsa-p256-sha256": 32, "ecdsa-p384-sha384": 48, "rsa-pss-2048-sha256": 32}
_DIGEST_BYTES["rsa-pss-3072-sha256"] = 32


class SignTls(Facts, frozen=True):
    """``transcript_hash``: Transcript-Hash(Handshake Context, Certificate), 32 or 48 bytes."""

    role: Literal["server", "client"]
    transcript_hash: bytes


class SignDigest(Facts, frozen=True):
    """``digest``: of the length of the key's hash; only for keys made as prehashed."""

    digest: bytes


class TlsResult(Result, frozen=True):
    """``scheme``: the SignatureScheme code point; ``signature``: as it stands in the message."""

    scheme: int
    signature: bytes


def certificate_verify_content(role: Literal["server", "client"], transcript_hash: bytes) -> bytes:
    """RFC 8446 section 4.4.3: 64 spaces, the context string, a zero byte, the transcript hash."""
    return b"\x20" * 64 + _LABEL[role] + b"\x00" + transcript_hash


def _result(scene: Scene, signatures: tuple[bytes, ...]) -> TlsResult:
    scheme = scene.algorithm.tls_scheme
    if scheme is None:
        raise MalformedRequest(f"{scene.algorithm.name} has no TLS signature scheme")
    return TlsResult(scheme=scheme, signature=signatures[0])


def _frame(facts: SignTls, scene: Scene) -> Framed:
    if len(facts.transcript_hash) not in limits.TLS_TRANSCRIPT_BYTES:
        raise MalformedRequest(
            "expected a transcript hash of 32 or 48 bytes (SHA-256 or SHA-384),"
            f" met {len(facts.transcript_hash)}"
        )
    return Framed(
        message=certificate_verify_content(facts.role, facts.transcript_hash),
        finish=lambda signatures: _result(scene, signatures),
    )


def _frame_digest(facts: SignDigest, scene: Scene) -> Framed:
    expected = _DIGEST_BYTES.get(scene.version.algorithm)
    if expected is None:
        raise MalformedRequest(f"{scene.version.algorithm} signs no digests")
    if len(facts.digest) != expected:
        raise MalformedRequest(f"expected a digest of {expected} bytes, met {len(facts.digest)}")
    return Framed(
        message=facts.digest,
        finish=lambda signatures: _result(scene, signatures),
        prehashed=True,
    )


TLS = Framing(facts=SignTls, result=TlsResult, frame=_frame)
TLS_PREHASHED = Framing(facts=SignDigest, result=TlsResult, frame=_frame_digest)
