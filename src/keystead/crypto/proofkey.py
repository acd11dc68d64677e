"""Proof keys: a client's own private key, with which it proves who it is. Never a key of the vault.

Bound handles (design section 4) name a public key or a certificate; whoever holds its private part
signs each request with it. This is the client's side of that, from a PEM file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from keystead.crypto.signatures import ECDSA_HASHES, pss_sha256
from keystead.errors import MalformedRequest

__all__ = ["certificate_der", "certificate_digest", "ed25519_raw", "load_proof_signer"]

_RAW = (serialization.Encoding.Raw, serialization.PublicFormat.Raw)
_CURVE_HASHES = {curve().name: digest for curve, digest, _ in ECDSA_HASHES.values()}


def load_proof_signer(pem: bytes) -> Callable[[bytes], bytes]:
    """A function that signs what proves possession, by an unencrypted PEM private key (PKCS#8).

    Ed25519 for handles bound to such a key; Ed25519, P-256, P-384 or RSA for a certificate's.

    Raises:
        MalformedRequest: no such key.
    """
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except TypeError as exc:  # pyca's word for an encrypted key
        raise MalformedRequest("expected a proof key that is not encrypted") from exc
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedRequest("expected a proof key as PEM (PKCS#8)") from exc
    match key:
        case ed25519.Ed25519PrivateKey():
            return key.sign
        case ec.EllipticCurvePrivateKey() if key.curve.name in _CURVE_HASHES:
            return _ecdsa_signer(key, _CURVE_HASHES[key.curve.name])
        case rsa.RSAPrivateKey():
            return _rsa_signer(key)
        case _:
            raise MalformedRequest("expected an Ed25519, P-256, P-384 or RSA proof key")


def ed25519_raw(pem: bytes) -> bytes:
    """The 32 raw bytes of a PEM Ed25519 public key, to bind a handle to.

    Raises:
        MalformedRequest: no such key.
    """
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise MalformedRequest("expected an Ed25519 public key as PEM (RFC 8410)") from exc
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise MalformedRequest("expected an Ed25519 public key, met one of another kind")
    return key.public_bytes(*_RAW)


def certificate_der(pem: bytes) -> bytes:
    """The DER of the first certificate in a PEM file.

    Raises:
        MalformedRequest: it holds none.
    """
    try:
        certificate = x509.load_pem_x509_certificate(pem)
    except ValueError as exc:
        raise MalformedRequest("expected a certificate as PEM (RFC 7468)") from exc
    return certificate.public_bytes(serialization.Encoding.DER)


def certificate_digest(pem: bytes) -> bytes:
    """SHA-256 of a PEM certificate's DER, to bind a handle to.

    Raises:
        MalformedRequest: no certificate.
    """
    return hashlib.sha256(certificate_der(pem)).digest()


def _ecdsa_signer(
    key: ec.EllipticCurvePrivateKey, digest: hashes.HashAlgorithm
) -> Callable[[bytes], bytes]:
    return lambda message: key.sign(message, ec.ECDSA(digest))


def _rsa_signer(key: rsa.RSAPrivateKey) -> Callable[[bytes], bytes]:
    return lambda message: key.sign(message, pss_sha256(), hashes.SHA256())
