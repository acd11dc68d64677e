"""What artefacts say of themselves, read leniently; and who signed them, whatever they say."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from hypothesis import example, given
from hypothesis import strategies as st

from keystead import limits
from keystead.crypto.signatures import ecdsa_raw
from keystead.encoding import b64u_encode, canonical_json
from keystead.errors import MalformedRequest
from keystead.keys import artefacts
from keystead.keys.artefacts import Artefact, Window
from keystead.keys.commands import VersionInfo
from keystead.keys.signers import Attribution, Keyring, Signer
from keystead.keys.verify import PublicKey
from unit.crypto.keys import PRIVATE

P256 = PRIVATE["ecdsa-p256-sha256"]
RSA = PRIVATE["rsa-pss-2048-sha256"]


def key_of(name: str, purpose: str, *components: str, state: str = "active") -> PublicKey:
    pems = tuple(
        PRIVATE[component]
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
        for component in components
    )
    version = VersionInfo(
        number=1,
        state=state,
        algorithm=components[0],
        kid=f"kid-{name}",
        created_ms=0,
        public_pem=pems,
    )
    return PublicKey(name=name, purpose=purpose, versions=(version,))


def signed(key: PrivateKeyTypes, alg: str, message: bytes) -> bytes:
    match alg:
        case "ES256":
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return ecdsa_raw("ecdsa-p256-sha256", key.sign(message, ec.ECDSA(hashes.SHA256())))
        case "PS512":
            pss = padding.PSS(padding.MGF1(hashes.SHA512()), 32)
            return key.sign(message, pss, hashes.SHA512())  # type: ignore[union-attr, call-arg, arg-type]  # an RSA key
        case "RS256":
            return key.sign(message, padding.PKCS1v15(), hashes.SHA256())  # type: ignore[union-attr, call-arg, arg-type]  # an RSA key
        case _:
            return key.sign(message)  # type: ignore[union-attr, call-arg]  # Ed25519 or ML-DSA


def token(key: PrivateKeyTypes, alg: str, kid: str | None, claims: bytes = b"{}") -> str:
    header: dict[str, Any] = {"alg": alg} if kid is None else {"alg": alg, "kid": kid}
    message = f"{b64u_encode(json.dumps(header).encode())}.{b64u_encode(claims)}"
    return f"{message}.{b64u_encode(signed(key, alg, message.encode()))}"


# --- reading -------------------------------------------------------------------------------------


@given(text=st.one_of(st.text(max_size=60), st.from_regex(r"[\w-]{0,9}\.[\w-]{0,9}\.[\w-]{0,9}")))
@example(text="eyJhbGciOiJFUzI1NiJ9.e30.AAA")
@example(text="." * 2)
def test_text_is_an_artefact_or_malformed(text: str) -> None:
    for read in (artefacts.jwt, artefacts.ssh_certificate):
        try:
            made = read(text)
        except MalformedRequest:
            continue
        assert isinstance(made, Artefact)


@given(data=st.binary(max_size=200))
def test_bytes_are_an_artefact_or_malformed(data: bytes) -> None:
    for read in (artefacts.certificate, artefacts.crl):
        with pytest.raises(MalformedRequest):
            read(data)
    assert artefacts.firmware(data, {"ed25519": data, "rot13": data}).message == data
    assert artefacts.ledger_entry(data, {}).signatures == ()


def test_what_is_too_long_is_malformed() -> None:
    long = b"\x30" * (limits.ARTEFACT_BYTES_MAX + 1)
    for read in (artefacts.certificate, artefacts.crl):
        with pytest.raises(MalformedRequest, match="at most"):
            read(long)
    with pytest.raises(MalformedRequest, match="at most"):
        artefacts.firmware(long, {})
    with pytest.raises(MalformedRequest, match="at most"):
        artefacts.jwt(f"e30.{'A' * limits.ARTEFACT_BYTES_MAX}.AA")


@pytest.mark.parametrize(
    ("claims", "close", "wide"),
    [
        (b'{"iat":5,"exp":9}', Window(5000, 6000), Window(5000, 9000)),
        (b'{"iat":5,"exp":5}', None, None),
        (b'{"iat":-1,"exp":5}', None, None),
        (b'{"iat":true,"exp":5}', None, None),
        (b'{"iat":"5","exp":9}', None, None),
        (b'{"iat":5}', None, None),
        (b'{"iat":5,"exp":1e400}', None, None),
        (
            b'{"iat":5,"exp":123456789012345678901}',
            Window(5000, 6000),
            Window(5000, 2**53 * 1000),
        ),
        (b'{"iat":123456789012345678900,"exp":123456789012345678901}', None, None),
        (b"no JSON", None, None),
        (b"[" * 5000, None, None),
    ],
)
def test_the_time_of_a_token_is_a_hint(
    claims: bytes, close: Window | None, wide: Window | None
) -> None:
    made = artefacts.jwt(f"e30.{b64u_encode(claims)}.AA")
    assert (made.close, made.wide) == (close, wide)


# --- signers -------------------------------------------------------------------------------------

KEYS = (
    key_of("ec", "jwt", "ecdsa-p256-sha256"),
    key_of("rsa", "jwt", "rsa-pss-2048-sha256", state="compromised"),
    key_of("image", "firmware", "ecdsa-p256-sha256", "ml-dsa-65"),
    key_of("web", "tls", "ed25519"),
)
EC, LOST_RSA = Signer("ec", 1, "active"), Signer("rsa", 1, "compromised")


@pytest.mark.parametrize(
    ("made", "attribution"),
    [
        (token(P256, "ES256", "kid-ec"), Attribution(signers=(EC,), named=EC)),
        (token(P256, "ES256", None), Attribution(signers=(EC,))),
        (token(P256, "ES256", "kid-rsa"), Attribution(signers=(EC,), named=LOST_RSA)),
        (token(RSA, "PS512", "kid-rsa"), Attribution(signers=(LOST_RSA,), named=LOST_RSA)),
        (token(RSA, "RS256", "theirs"), Attribution(signers=(LOST_RSA,))),
        (token(PRIVATE["ed25519"], "EdDSA", "theirs"), Attribution()),
        (token(PRIVATE["ed25519"], "EdDSA", "kid-ec"), Attribution(named=EC)),
        ("eyJhbGciOiJub25lIn0.e30.AA", Attribution()),
    ],
    ids=[
        "as the vault does",
        "without a name",
        "under another's name",
        "another scheme",
        "an older scheme",
        "a key for something else",
        "in a name of ours",
        "unsigned",
    ],
)
def test_who_signed_a_token(made: str, attribution: Attribution) -> None:
    assert Keyring(KEYS).attribute(artefacts.jwt(made)) == attribution


def test_one_good_signature_of_two_is_enough() -> None:
    document = canonical_json({"key": "kid-image", "name": "app", "version": 1})
    good = PRIVATE["ml-dsa-65"].sign(document)  # type: ignore[union-attr, call-arg]  # an ML-DSA key
    ring = Keyring(KEYS)
    image = Signer("image", 1, "active")
    for signatures, expected in (
        ({"ml-dsa-65": good}, (image,)),
        ({"ml-dsa-65": good, "ecdsa-p256-sha256": b"bad"}, (image,)),
        ({"ecdsa-p256-sha256": good}, ()),
        ({"rot13": good}, ()),
        ({}, ()),
    ):
        found = ring.attribute(artefacts.firmware(document, signatures))
        assert (found.signers, found.named) == (expected, image)


def test_a_ledger_entry_is_no_firmware() -> None:
    document = canonical_json({"key": "kid-image"})
    good = PRIVATE["ml-dsa-65"].sign(document)  # type: ignore[union-attr, call-arg]  # an ML-DSA key
    found = Keyring(KEYS).attribute(artefacts.ledger_entry(document, {"ml-dsa-65": good}))
    assert found == Attribution()
