"""Verification of signatures by component, and the two encodings of ECDSA signatures."""

from __future__ import annotations

from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from keystead.errors import MalformedRequest, SignatureInvalid

__all__ = ["ECDSA_HASHES", "ecdsa_der", "ecdsa_raw", "pss_sha256", "verify"]

ECDSA_HASHES: dict[str, tuple[type[ec.EllipticCurve], hashes.HashAlgorithm, int]] = {
    "ecdsa-p256-sha256": (ec.SECP256R1, hashes.SHA256(), 32),
    "ecdsa-p384-sha384": (ec.SECP384R1, hashes.SHA384(), 48),
}
"""Component to curve, hash and length of one coordinate in bytes."""


def pss_sha256() -> padding.PSS:
    """RSASSA-PSS as RFC 8446 and RFC 7518 have it: MGF1-SHA-256, salt as long as the hash."""
    return padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)


def verify(component: str, spki: bytes, message: bytes, signature: bytes) -> None:
    """Check one component's raw signature (ECDSA as DER) under a DER SubjectPublicKeyInfo.

    Raises:
        SignatureInvalid: it does not verify, or the key is of another kind than the component.
        MalformedRequest: the public key does not parse.
    """
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedRequest("expected a DER SubjectPublicKeyInfo (RFC 5280)") from exc
    try:
        _verify(component, key, message, signature)
    except InvalidSignature as exc:
        raise SignatureInvalid(f"the {component} signature does not verify") from exc


def _verify(component: str, key: Any, message: bytes, signature: bytes) -> None:  # noqa: ANN401  one of pyca's public key types; each case narrows it
    if component in ECDSA_HASHES and isinstance(key, ec.EllipticCurvePublicKey):
        curve, digest, _ = ECDSA_HASHES[component]
        if isinstance(key.curve, curve):
            return key.verify(signature, message, ec.ECDSA(digest))
    elif component == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
        return key.verify(signature, message)
    elif component.startswith("rsa-") and isinstance(key, rsa.RSAPublicKey):
        scheme = padding.PKCS1v15() if component.startswith("rsa-pkcs1") else pss_sha256()
        return key.verify(signature, message, scheme, hashes.SHA256())
    elif (component == "ml-dsa-44" and isinstance(key, mldsa.MLDSA44PublicKey)) or (
        component == "ml-dsa-65" and isinstance(key, mldsa.MLDSA65PublicKey)
    ):
        return key.verify(signature, message)
    raise SignatureInvalid(f"the public key is not one that makes {component} signatures")


def ecdsa_raw(component: str, signature: bytes) -> bytes:
    """R || s, as RFC 7518 section 3.4 has ECDSA; other components' signatures as they are.

    Raises:
        SignatureInvalid: not a DER ECDSA-Sig-Value.
    """
    if component not in ECDSA_HASHES:
        return signature
    size = ECDSA_HASHES[component][2]
    try:
        r, s = decode_dss_signature(signature)
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")
    except (ValueError, OverflowError) as exc:
        raise SignatureInvalid("expected a DER ECDSA signature (RFC 3279)") from exc


def ecdsa_der(component: str, raw: bytes) -> bytes:
    """The DER of r || s; other components' signatures as they are.

    Raises:
        SignatureInvalid: r || s of another length than the curve's.
    """
    if component not in ECDSA_HASHES:
        return raw
    size = ECDSA_HASHES[component][2]
    if len(raw) != 2 * size:
        raise SignatureInvalid(f"expected an ECDSA signature of {2 * size} bytes, met {len(raw)}")
    return encode_dss_signature(
        int.from_bytes(raw[:size], "big"), int.from_bytes(raw[size:], "big")
    )
