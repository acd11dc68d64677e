"""Public keys as others read them: what goes in comes out, and what is none is refused."""

import datetime as dt
import json
from collections.abc import Callable

import jwt as pyjwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes

from keystead.crypto.public import (
    certificate_key,
    ed25519_spki,
    jwk,
    key_id,
    mldsa44_spki,
    pem,
    raw_public,
    spki_from_pem,
)
from keystead.encoding import b64u_decode
from keystead.errors import MalformedRequest
from unit.crypto.keys import P521, PRIVATE, RSA_2048, pkcs8, spki

DAY = dt.timedelta(days=1)


def certificate_of(key: CertificateIssuerPrivateKeyTypes) -> bytes:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    own_hash = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + DAY)
    return builder.sign(key, own_hash).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize(
    ("component", "length", "read"),
    [("ed25519", 32, ed25519_spki), ("ml-dsa-44", 1312, mldsa44_spki)],
)
def test_raw_keys_and_back(component: str, length: int, read: Callable[[bytes], bytes]) -> None:
    der = spki(PRIVATE[component])
    raw = raw_public(der)
    assert len(raw) == length
    assert read(raw) == der
    with pytest.raises(MalformedRequest, match=f"expected {length} bytes"):
        read(raw[:-1])


@pytest.mark.parametrize("der", [b"", b"no DER", spki(P521), spki(PRIVATE["ml-dsa-65"])])
def test_other_keys_have_no_raw_form(der: bytes) -> None:
    with pytest.raises(MalformedRequest):
        raw_public(der)


@pytest.mark.parametrize("component", PRIVATE)
def test_pem_and_back(component: str) -> None:
    der = spki(PRIVATE[component])
    text = pem(der)
    assert text.startswith("-----BEGIN PUBLIC KEY-----\n")
    assert spki_from_pem(text) == der


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no PEM",
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        "\ud800",
        # an algorithm that no one knows: 1.2.3.4
        "-----BEGIN PUBLIC KEY-----\nMAwwBQYDKgMEAwMAAAA=\n-----END PUBLIC KEY-----\n",
    ],
)
def test_what_is_no_pem_key_is_refused(text: str) -> None:
    with pytest.raises(MalformedRequest, match="PEM public key"):
        spki_from_pem(text)


def test_a_private_key_is_no_public_key() -> None:
    key = PRIVATE["ed25519"]
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
    with pytest.raises(MalformedRequest) as caught:
        spki_from_pem(text)
    assert text.splitlines()[1] not in str(caught.value)
    assert bytes(pkcs8(key)).hex() not in str(caught.value)


def test_key_ids_tell_lists_apart() -> None:
    one, other = spki(PRIVATE["ed25519"]), spki(P521)
    lists = [(one,), (other,), (one, other), (other, one), (one + other,), (one, b"", other), ()]
    ids = {key_id(publics) for publics in lists}
    assert len(ids) == len(lists)
    assert {len(found) for found in ids} == {22}
    assert key_id((b"abc",)) == by_hand(b"\x00\x00\x00\x03abc")


def by_hand(data: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    number = int.from_bytes(digest.finalize(), "big")
    return "".join(alphabet[number >> shift & 63] for shift in range(250, 118, -6))


def test_a_raw_ed25519_key_gets_its_der() -> None:
    key = PRIVATE["ed25519"]
    assert isinstance(key, ed25519.Ed25519PrivateKey)
    raw = key.public_key().public_bytes_raw()
    assert ed25519_spki(raw) == spki(key)
    for bad in (b"", raw[:-1], raw + b"\0"):
        with pytest.raises(MalformedRequest, match="32 bytes"):
            ed25519_spki(bad)


@pytest.mark.parametrize(
    "component", ["ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519", "rsa-pss-2048-sha256"]
)
def test_a_certificate_names_its_key(component: str) -> None:
    key = PRIVATE[component]
    assert isinstance(
        key, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
    )
    assert certificate_key(certificate_of(key)) == (component, spki(key))


def test_a_longer_rsa_key_signs_the_same_way() -> None:
    key = rsa.generate_private_key(65537, 3072)
    assert certificate_key(certificate_of(key)) == ("rsa-pss-2048-sha256", spki(key))


@pytest.mark.parametrize(
    "key",
    [P521, rsa.generate_private_key(65537, 1024)],  # noqa: S505  too short on purpose
    ids=["P-521", "RSA of 1024 bits"],
)
def test_a_weak_or_unknown_key_proves_nothing(
    key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey,
) -> None:
    with pytest.raises(MalformedRequest, match="2048 bits"):
        certificate_key(certificate_of(key))


@pytest.mark.parametrize("der", [b"", b"\x30\x00", bytes(100), spki(RSA_2048)])
def test_what_is_no_certificate_is_refused(der: bytes) -> None:
    with pytest.raises(MalformedRequest, match="DER certificate"):
        certificate_key(der)


@pytest.mark.parametrize(
    ("component", "jose", "members"),
    [
        ("ecdsa-p256-sha256", "ES256", {"kty": "EC", "crv": "P-256"}),
        ("ecdsa-p384-sha384", "ES384", {"kty": "EC", "crv": "P-384"}),
        ("ed25519", "EdDSA", {"kty": "OKP", "crv": "Ed25519"}),
        ("rsa-pss-2048-sha256", "PS256", {"kty": "RSA", "e": "AQAB"}),
    ],
)
def test_pyjwt_reads_our_keys(component: str, jose: str, members: dict[str, str]) -> None:
    found = jwk(jose, spki(PRIVATE[component]), "kid")
    assert found.items() >= {"alg": jose, "kid": "kid", "use": "sig", **members}.items()
    read = pyjwt.PyJWK.from_json(json.dumps(found))
    assert read.key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    ) == spki(PRIVATE[component])


@pytest.mark.parametrize("component", ["ml-dsa-44", "ml-dsa-65"])
def test_ml_dsa_keys_are_akp(component: str) -> None:
    found = jwk(component.upper(), spki(PRIVATE[component]), "kid")
    assert found["kty"] == "AKP"
    assert spki(PRIVATE[component]).endswith(b64u_decode(found["pub"]))


def test_coordinates_keep_leading_zeros() -> None:
    """RFC 7518 section 6.2.1.2: as long as the curve's field, whatever the number."""
    keys = (ec.derive_private_key(number, ec.SECP256R1()) for number in range(1, 2_000))
    short = next(key for key in keys if key.public_key().public_numbers().x < 2**248)
    found = jwk("ES256", spki(short), "kid")
    assert len(b64u_decode(found["x"])) == len(b64u_decode(found["y"])) == 32


@pytest.mark.parametrize(
    "key",
    [
        spki(P521),
        x25519.X25519PrivateKey.from_private_bytes(b"\1" * 32)
        .public_key()
        .public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["P-521", "X25519"],
)
def test_other_keys_have_no_jwk(key: bytes) -> None:
    with pytest.raises(MalformedRequest, match="no JSON Web Key"):
        jwk("ES512", key, "kid")
