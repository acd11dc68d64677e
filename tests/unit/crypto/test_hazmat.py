"""Raw private-key work: each component signs as itself and as nothing else; HPKE binds its info."""

import hashlib

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import mlkem, rsa, x25519
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    Suite,
)

from keystead.crypto import hazmat
from keystead.crypto.signatures import verify
from keystead.errors import CustodyUnavailable, SignatureInvalid
from keystead.keys.algorithms import ALGORITHMS, Kind
from unit.crypto.keys import P521, PRIVATE, pkcs8, spki

COMPONENTS = sorted(
    {
        component
        for row in ALGORITHMS.values()
        if row.kind is Kind.SIGNATURE
        for component in row.components
    }
)
MESSAGE = b"what is signed"
HPKE = "hpke-mlkem768-x25519"


@pytest.mark.parametrize("component", COMPONENTS)
def test_what_is_generated_signs(component: str) -> None:
    made = hazmat.generate(component)
    sign = hazmat.open_signer(component, made.private)
    verify(component, made.public, MESSAGE, sign(MESSAGE, False))  # noqa: FBT003  the signer's `prehashed`
    assert hazmat.generate(component).public != made.public


@pytest.mark.parametrize(
    ("component", "hashed"),
    [
        ("ecdsa-p256-sha256", "sha256"),
        ("ecdsa-p384-sha384", "sha384"),
        ("rsa-pss-2048-sha256", "sha256"),
    ],
)
def test_a_digest_is_signed_as_a_digest(component: str, hashed: str) -> None:
    digest = hashlib.new(hashed, MESSAGE).digest()
    sign = hazmat.open_signer(component, pkcs8(PRIVATE[component]))
    signature = sign(digest, True)  # noqa: FBT003  the signer's `prehashed`
    verify(component, spki(PRIVATE[component]), MESSAGE, signature)
    with pytest.raises(ValueError, match="digest"):
        sign(digest[:-1], True)  # noqa: FBT003  the signer's `prehashed`


@pytest.mark.parametrize("component", COMPONENTS)
def test_material_of_another_kind_does_not_open(component: str) -> None:
    others = {name: key for name, key in PRIVATE.items() if name != component}
    if component == "rsa-pss-2048-sha256":
        assert "rsa-pss-2048-sha256" not in others
    others["P-521"] = P521
    for key in others.values():
        with pytest.raises(CustodyUnavailable, match=component):
            hazmat.open_signer(component, pkcs8(key))


def test_an_rsa_key_of_another_length_does_not_open() -> None:
    short = pkcs8(rsa.generate_private_key(65537, 1024))  # noqa: S505  too short on purpose
    for component in ("rsa-pss-2048-sha256", "rsa-pss-3072-sha256", "rsa-pkcs1-3072-sha256"):
        with pytest.raises(CustodyUnavailable, match=component):
            hazmat.open_signer(component, bytearray(short))


@pytest.mark.parametrize("material", [b"", b"\x30\x00", bytes(48), b"-----BEGIN PRIVATE KEY-----"])
def test_what_is_no_key_does_not_open(material: bytes) -> None:
    with pytest.raises(CustodyUnavailable, match="does not parse"):
        hazmat.open_signer("ed25519", bytearray(material))


def test_the_buffer_may_be_wiped_after_opening() -> None:
    for component in ("ecdsa-p256-sha256", "ed25519", "ml-dsa-65"):
        material = pkcs8(PRIVATE[component])
        sign = hazmat.open_signer(component, material)
        material[:] = bytes(len(material))
        assert not any(material)
        verify(component, spki(PRIVATE[component]), MESSAGE, sign(MESSAGE, False))  # noqa: FBT003  the signer's `prehashed`


def test_an_unknown_component_is_not_generated() -> None:
    with pytest.raises(KeyError):
        hazmat.generate("rsa-pss-1024-sha1")


# --- HPKE ----------------------------------------------------------------------------------------


def test_what_is_sealed_opens() -> None:
    made = hazmat.generate(HPKE)
    for plain in (b"", b"x", bytes(5_000)):
        sealed = hazmat.hpke_seal(made.public, plain, b"info")
        assert hazmat.hpke_open(made.private, sealed, b"info") == plain
        assert hazmat.hpke_seal(made.public, plain, b"info") != sealed


def test_another_key_or_info_does_not_open() -> None:
    made = hazmat.generate(HPKE)
    sealed = hazmat.hpke_seal(made.public, b"plain", b"info")
    for key, text, info in (
        (hazmat.generate(HPKE).private, sealed, b"info"),
        (made.private, sealed, b""),
        (made.private, sealed, b"info "),
        (made.private, sealed[:-1], b"info"),
        (made.private, sealed + b"\0", b"info"),
        (made.private, bytes([sealed[0] ^ 1]) + sealed[1:], b"info"),
        (made.private, sealed[:-1] + bytes([sealed[-1] ^ 1]), b"info"),
        (made.private, sealed[:100], b"info"),
        (made.private, b"", b"info"),
    ):
        with pytest.raises(SignatureInvalid, match="does not open"):
            hazmat.hpke_open(key, text, info)


def test_both_halves_of_the_hybrid_count() -> None:
    """Neither ML-KEM nor X25519 alone opens it."""
    made, other = hazmat.generate(HPKE), hazmat.generate(HPKE)
    sealed = hazmat.hpke_seal(made.public, b"plain", b"info")
    for private in (
        made.private[:-32] + other.private[-32:],
        other.private[:-32] + made.private[-32:],
    ):
        with pytest.raises(SignatureInvalid):
            hazmat.hpke_open(private, sealed, b"info")


def test_pyca_opens_by_itself_what_is_sealed() -> None:
    """RFC 9180 base mode: enc and ciphertext, the suite by its three names."""
    made = hazmat.generate(HPKE)
    sealed = hazmat.hpke_seal(made.public, b"plain", b"info")
    suite = Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    private = MLKEM768X25519PrivateKey(
        mlkem.MLKEM768PrivateKey.from_seed_bytes(made.private[:64]),
        x25519.X25519PrivateKey.from_private_bytes(made.private[64:]),
    )
    assert len(sealed) == 1088 + 32 + len(b"plain") + 16
    assert suite.decrypt(sealed, private, info=b"info") == b"plain"
    with pytest.raises(InvalidTag):
        suite.decrypt(sealed, private, info=b"other")
