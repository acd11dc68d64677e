"""Public keys as others read them: PEM, key ids, and JSON Web Keys."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

from keystead.encoding import b64u_encode, length_prefixed
from keystead.errors import MalformedRequest

__all__ = [
    "certificate_key",
    "ed25519_spki",
    "jwk",
    "key_id",
    "mldsa44_spki",
    "pem",
    "raw_public",
    "spki_from_pem",
]

_KEY_ID_CHARS = 22
_CURVE_COMPONENTS = {"secp256r1": "ecdsa-p256-sha256", "secp384r1": "ecdsa-p384-sha384"}
_RSA_BITS_MIN = 2048  # NIST SP 800-131A Rev. 2, section 3
_JWK_CURVES = {"secp256r1": "P-256", "secp384r1": "P-384"}
_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
_SPKI = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
_PEM = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def pem(spki: bytes) -> str:
    """PEM (RFC 7468) of a DER SubjectPublicKeyInfo."""
    return serialization.load_der_public_key(spki).public_bytes(*_PEM).decode("ascii")


def spki_from_pem(text: str) -> bytes:
    """The DER SubjectPublicKeyInfo of a PEM public key.

    Raises:
        MalformedRequest: it does not parse.
    """
    try:
        return serialization.load_pem_public_key(text.encode()).public_bytes(*_SPKI)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedRequest("expected a PEM public key (RFC 7468)") from exc


def key_id(publics: tuple[bytes, ...]) -> str:
    """The key id of a version: 132 bits of SHA-256 over its public keys, in base64url."""
    return b64u_encode(hashlib.sha256(length_prefixed(publics)).digest())[:_KEY_ID_CHARS]


def ed25519_spki(raw: bytes) -> bytes:
    """The DER SubjectPublicKeyInfo of a raw Ed25519 public key, 32 bytes (RFC 8410).

    Raises:
        MalformedRequest: another length.
    """
    try:
        return ed25519.Ed25519PublicKey.from_public_bytes(raw).public_bytes(*_SPKI)
    except ValueError as exc:
        raise MalformedRequest("expected 32 bytes of an Ed25519 public key") from exc


def mldsa44_spki(raw: bytes) -> bytes:
    """The DER SubjectPublicKeyInfo of a raw ML-DSA-44 public key, 1,312 bytes (RFC 9881).

    Raises:
        MalformedRequest: another length.
    """
    try:
        return mldsa.MLDSA44PublicKey.from_public_bytes(raw).public_bytes(*_SPKI)
    except ValueError as exc:
        raise MalformedRequest("expected 1312 bytes of an ML-DSA-44 public key") from exc


def raw_public(spki: bytes) -> bytes:
    """The raw public key in a DER SubjectPublicKeyInfo of Ed25519 or ML-DSA-44.

    Raises:
        MalformedRequest: it does not parse, or is of another kind.
    """
    try:
        key = serialization.load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedRequest("expected a DER SubjectPublicKeyInfo (RFC 5280)") from exc
    if not isinstance(key, ed25519.Ed25519PublicKey | mldsa.MLDSA44PublicKey):
        raise MalformedRequest("expected an Ed25519 or ML-DSA-44 public key")
    return key.public_bytes(*_RAW)


def certificate_key(der: bytes) -> tuple[str, bytes]:
    """The component and DER SubjectPublicKeyInfo of a client certificate's key.

    Raises:
        MalformedRequest: no certificate, or a kind of key that signs no requests here.
    """
    try:
        key = x509.load_der_x509_certificate(der).public_key()
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as exc:
        raise MalformedRequest("expected a DER certificate (RFC 5280)") from exc
    match key:
        case ec.EllipticCurvePublicKey() if key.curve.name in _CURVE_COMPONENTS:
            return _CURVE_COMPONENTS[key.curve.name], key.public_bytes(*_SPKI)
        case ed25519.Ed25519PublicKey():
            return "ed25519", key.public_bytes(*_SPKI)
        case rsa.RSAPublicKey() if key.key_size >= _RSA_BITS_MIN:
            return "rsa-pss-2048-sha256", key.public_bytes(*_SPKI)
        case _:
            raise MalformedRequest(
                "expected a certificate of a P-256, P-384, Ed25519 or RSA key, RSA of at least"
                f" {_RSA_BITS_MIN} bits"
            )


def jwk(jose: str, spki: bytes, kid: str) -> dict[str, str]:
    """A JSON Web Key for verification (RFC 7517; RFC 8037 for OKP, RFC 9964 for AKP).

    Raises:
        MalformedRequest: a kind of key that has no JWK.
    """
    key = serialization.load_der_public_key(spki)
    common = {"alg": jose, "kid": kid, "use": "sig"}
    match key:
        case ec.EllipticCurvePublicKey() if key.curve.name in _JWK_CURVES:
            size = (key.curve.key_size + 7) // 8
            point = key.public_numbers()
            curve = _JWK_CURVES[key.curve.name]
            return {"kty": "EC", "crv": curve, **common} | {
                "x": b64u_encode(point.x.to_bytes(size, "big")),
                "y": b64u_encode(point.y.to_bytes(size, "big")),
            }
        case rsa.RSAPublicKey():
            numbers = key.public_numbers()
            return {"kty": "RSA", **common, "n": _uint(numbers.n), "e": _uint(numbers.e)}
        case ed25519.Ed25519PublicKey():
            raw = key.public_bytes(*_RAW)
            return {"kty": "OKP", "crv": "Ed25519", **common, "x": b64u_encode(raw)}
        case mldsa.MLDSA44PublicKey() | mldsa.MLDSA65PublicKey():
            return {"kty": "AKP", **common, "pub": b64u_encode(key.public_bytes(*_RAW))}
        case _:
            raise MalformedRequest("this kind of key has no JSON Web Key")


def _uint(value: int) -> str:
    return b64u_encode(value.to_bytes((value.bit_length() + 7) // 8, "big"))
