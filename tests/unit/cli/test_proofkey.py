"""Proof keys: what loads, and what they sign."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519

from keystead.crypto.proofkey import (
    certificate_der,
    certificate_digest,
    ed25519_raw,
    load_proof_signer,
)
from keystead.crypto.public import certificate_key
from keystead.crypto.signatures import verify
from keystead.errors import MalformedRequest

PLAIN = serialization.NoEncryption()
KINDS: dict[str, Callable[[], Any]] = {
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}


def private_pem(key: Any, encryption: Any = PLAIN) -> bytes:  # noqa: ANN401  any of pyca's keys
    data: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption
    )
    return data


def public_pem(key: Any) -> bytes:  # noqa: ANN401  any of pyca's keys
    data: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return data


def certificate_of(key: Any) -> bytes:  # noqa: ANN401  any of pyca's keys
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
    digest = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, digest).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_proof_key_signs_verifies_under_its_certificate(kind: str) -> None:
    key = KINDS[kind]()
    signature = load_proof_signer(private_pem(key))(b"message")
    pem = certificate_of(key)
    component, spki = certificate_key(certificate_der(pem))
    verify(component, spki, b"message", signature)
    assert certificate_digest(pem) == x509.load_pem_x509_certificate(pem).fingerprint(
        hashes.SHA256()
    )


def test_what_is_no_proof_key() -> None:
    key = KINDS["ed25519"]()
    locked = private_pem(key, serialization.BestAvailableEncryption(b"x"))
    other = private_pem(x25519.X25519PrivateKey.generate())
    curve = private_pem(ec.generate_private_key(ec.SECP521R1()))
    for bad in (b"", b"no key", public_pem(key), locked, other, curve):
        with pytest.raises(MalformedRequest):
            load_proof_signer(bad)


def test_public_parts_to_bind_to() -> None:
    key = KINDS["ed25519"]()
    assert ed25519_raw(public_pem(key)) == key.public_key().public_bytes_raw()
    for bad in (b"", public_pem(KINDS["p256"]()), private_pem(key)):
        with pytest.raises(MalformedRequest):
            ed25519_raw(bad)
        with pytest.raises(MalformedRequest):
            certificate_digest(bad)
