"""Verification by component: it raises or returns nothing, and takes one encoding only."""

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from hypothesis import given
from hypothesis import strategies as st

from keystead.crypto.hazmat import open_signer
from keystead.crypto.signatures import ECDSA_HASHES, ecdsa_der, ecdsa_raw, pss_sha256, verify
from keystead.errors import MalformedRequest, SignatureInvalid
from unit.crypto.keys import PRIVATE, RSA_2048, pkcs8, spki

MESSAGE = b"what is signed"
# RFC 8032 section 7.1, TEST 2
ED25519_SPKI = bytes.fromhex(
    "302a300506032b65700321003d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
)
ED25519_SIGNATURE = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def signed(component: str, message: bytes = MESSAGE) -> bytes:
    return open_signer(component, pkcs8(PRIVATE[component]))(message, False)  # noqa: FBT003  the signer's `prehashed`


def refused(component: str, key: bytes, signature: bytes, message: bytes = MESSAGE) -> bool:
    with pytest.raises(SignatureInvalid) as caught:
        verify(component, key, message, signature)
    return signature.hex()[:16] not in str(caught.value) or not signature


@pytest.mark.parametrize("component", PRIVATE)
def test_a_good_signature_verifies(component: str) -> None:
    key, signature = spki(PRIVATE[component]), signed(component)
    verify(component, key, MESSAGE, signature)
    assert refused(component, key, signature, MESSAGE + b"!")


@pytest.mark.parametrize("component", PRIVATE)
def test_an_altered_signature_does_not(component: str) -> None:
    key, signature = spki(PRIVATE[component]), signed(component)
    middle = len(signature) // 2
    altered = signature[:middle] + bytes([signature[middle] ^ 1]) + signature[middle + 1 :]
    for bad in (altered, signature[:-1], signature + b"\0", b"", bytes(len(signature))):
        assert refused(component, key, bad)


@pytest.mark.parametrize("component", PRIVATE)
def test_a_key_of_another_kind_does_not_verify(component: str) -> None:
    signature = signed(component)
    for other, key in PRIVATE.items():
        if other != component:
            assert refused(component, spki(key), signature)


def test_the_rfc_8032_vector_verifies() -> None:
    verify("ed25519", ED25519_SPKI, b"\x72", ED25519_SIGNATURE)
    assert refused("ed25519", ED25519_SPKI, ED25519_SIGNATURE, b"\x73")


@pytest.mark.parametrize(
    "scheme",
    [
        padding.PSS(padding.MGF1(hashes.SHA256()), 0),
        padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH),
        padding.PSS(padding.MGF1(hashes.SHA384()), padding.PSS.DIGEST_LENGTH),
        padding.PKCS1v15(),
    ],
    ids=["no salt", "longest salt", "another mask", "PKCS #1 v1.5"],
)
def test_pss_has_one_set_of_parameters(scheme: padding.AsymmetricPadding) -> None:
    signature = RSA_2048.sign(MESSAGE, scheme, hashes.SHA256())
    assert refused("rsa-pss-2048-sha256", spki(RSA_2048), signature)


def test_pkcs1_and_pss_are_two_components() -> None:
    pkcs1 = RSA_2048.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    verify("rsa-pkcs1-3072-sha256", spki(RSA_2048), MESSAGE, pkcs1)
    pss = RSA_2048.sign(MESSAGE, pss_sha256(), hashes.SHA256())
    assert refused("rsa-pkcs1-3072-sha256", spki(RSA_2048), pss)


@pytest.mark.parametrize("component", ["", "rsa", "ecdsa", "ed448", "ml-dsa-87", "none"])
def test_an_unknown_component_does_not_verify(component: str) -> None:
    for key in PRIVATE.values():
        assert refused(component, spki(key), ED25519_SIGNATURE)


@pytest.mark.parametrize("key", [b"", b"\x30", bytes(64), ED25519_SPKI[:-1], b"PEM?"])
def test_a_public_key_that_does_not_parse(key: bytes) -> None:
    with pytest.raises(MalformedRequest, match="SubjectPublicKeyInfo"):
        verify("ed25519", key, MESSAGE, ED25519_SIGNATURE)


# --- the two encodings of ECDSA ------------------------------------------------------------------


@pytest.mark.parametrize("component", ECDSA_HASHES)
def test_raw_and_der_are_two_ways_to_write_one_signature(component: str) -> None:
    der = signed(component)
    raw = ecdsa_raw(component, der)
    assert len(raw) == 2 * ECDSA_HASHES[component][2]
    assert ecdsa_der(component, raw) == der


@given(
    r=st.integers(min_value=1, max_value=2**256 - 1),
    s=st.integers(min_value=1, max_value=2**256 - 1),
)
def test_raw_keeps_leading_zeros(r: int, s: int) -> None:
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert ecdsa_raw("ecdsa-p256-sha256", ecdsa_der("ecdsa-p256-sha256", raw)) == raw


@pytest.mark.parametrize("size", [0, 1, 63, 65, 96])
def test_raw_of_another_length_is_refused(size: int) -> None:
    with pytest.raises(SignatureInvalid, match="64 bytes"):
        ecdsa_der("ecdsa-p256-sha256", bytes(size))


@pytest.mark.parametrize(
    "der",
    [
        b"",
        b"\x30\x00",
        bytes(70),
        signed("ecdsa-p384-sha384"),  # r and s too long for P-256
        bytes.fromhex("30060201ff020101"),  # r below zero
    ],
    ids=["empty", "no numbers", "zeros", "another curve", "negative"],
)
def test_what_is_no_der_signature_is_refused(der: bytes) -> None:
    with pytest.raises(SignatureInvalid, match="DER ECDSA"):
        ecdsa_raw("ecdsa-p256-sha256", der)


def test_other_signatures_have_one_encoding() -> None:
    assert ecdsa_raw("ed25519", ED25519_SIGNATURE) == ED25519_SIGNATURE
    assert ecdsa_der("ed25519", ED25519_SIGNATURE) == ED25519_SIGNATURE


def test_a_hash_is_part_of_the_component() -> None:
    key = PRIVATE["ecdsa-p256-sha256"]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(MESSAGE, ec.ECDSA(hashes.SHA384()))
    assert refused("ecdsa-p256-sha256", spki(key), signature)


def test_a_curve_is_part_of_the_component() -> None:
    key = PRIVATE["ecdsa-p384-sha384"]
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(MESSAGE, ec.ECDSA(hashes.SHA256()))
    assert refused("ecdsa-p256-sha256", spki(key), signature)
