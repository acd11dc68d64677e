"""Inputs that are right, made from fixed keys: what hostile ones are bent from."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from functools import cache
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keystead.keys.framing.data import Wrapped, encode_wrapped

__all__ = ["ED25519", "certificates", "requests", "ssh_lines", "wrapped_texts"]

ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(b"\1" * 32)
_P256 = ec.derive_private_key(7, ec.SECP256R1())
_VECTORS = Path(__file__).parents[1] / "vectors" / "jwt.json"
_FROM, _TO = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
_NAMES = x509.SubjectAlternativeName(
    [x509.DNSName("www.shop.example"), x509.IPAddress(ip_address("192.0.2.1"))]
)


def _hash_for(key: CertificateIssuerPrivateKeyTypes) -> hashes.SHA256 | None:
    return (
        hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) else None
    )


@cache
def _keys() -> tuple[CertificateIssuerPrivateKeyTypes, ...]:
    stored = json.loads(_VECTORS.read_text())["given"]["keys"]["rsa-pss-2048-sha256"][0]
    known = serialization.load_pem_private_key(stored.encode(), None)
    if not isinstance(known, rsa.RSAPrivateKey):
        raise TypeError("expected the vectors' RSA key")
    return (
        _P256,
        ec.derive_private_key(7, ec.SECP384R1()),
        ED25519,
        mldsa.MLDSA65PrivateKey.from_seed_bytes(b"\1" * 32),
        known,
    )


@cache
def requests() -> tuple[bytes, ...]:
    """Certificate requests of every kind of key, DER and PEM."""
    found: list[bytes] = []
    for key in _keys():
        builder = x509.CertificateSigningRequestBuilder().subject_name(
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "www.shop.example")])
        )
        request = builder.add_extension(_NAMES, critical=False).sign(key, _hash_for(key))
        found += [
            request.public_bytes(serialization.Encoding.DER),
            request.public_bytes(serialization.Encoding.PEM),
        ]
    return tuple(found)


@cache
def certificates() -> tuple[bytes, ...]:
    """Certificates in DER: of an authority with name constraints, and of end entities."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Shop CA")])
    found: list[bytes] = []
    for key in _keys():
        builder = (
            x509.CertificateBuilder()
            .issuer_name(name)
            .subject_name(name)
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(_FROM)
            .not_valid_after(_TO)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_NAMES, critical=False)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
            .add_extension(
                x509.NameConstraints([x509.DNSName("shop.example")], None), critical=True
            )
            .add_extension(
                x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
            )
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(ED25519.public_key()),
                critical=False,
            )
        )
        certificate = builder.sign(ED25519, None)
        found.append(certificate.public_bytes(serialization.Encoding.DER))
    return tuple(found)


@cache
def ssh_lines() -> tuple[str, ...]:
    """Public key lines of every type that is taken, and of some that are not."""
    lines = [
        key.public_key()
        .public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        .decode()
        for key in _keys()
        if isinstance(
            key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
        )
    ]
    blob = base64.b64decode(lines[2].split()[1])[15:]  # behind its type
    security_key = _string(b"sk-ssh-ed25519@openssh.com") + blob + _string(b"ssh:")
    lines.append("sk-ssh-ed25519@openssh.com " + base64.b64encode(security_key).decode() + " a b")
    return tuple(lines)


def _string(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


@cache
def wrapped_texts() -> tuple[str, ...]:
    """Wrapped data as far as anyone can see from outside."""
    return tuple(
        encode_wrapped(Wrapped(kid, version, nonce, b"c" * size))
        for kid, version, nonce, size in (
            ("kid1", 1, b"n" * 12, 32),
            ("kid1", 1, b"", 1200),
            ("", 2**64 - 1, b"n" * 12, 0),
        )
    )
