"""JSON Web Tokens: byte-equal from the given scene, and PyJWT takes them with our JWKS.

PyJWT does not know ML-DSA-65 (RFC 9964): pyca verifies that token's signature.
"""

import json
from typing import Any

import jwt as pyjwt
import msgspec
import pytest

from keystead.crypto.public import jwk
from keystead.crypto.signatures import ecdsa_der, ecdsa_raw, verify
from keystead.encoding import b64u_decode, b64u_encode
from keystead.errors import SignatureInvalid
from keystead.keys.algorithms import ALGORITHMS
from keystead.keys.framing.jwt import JWT, JwtResult, SignJwt
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.purposes import Purpose
from keystead.keys.verify import verify_jwt
from vectors.openssl import UNKNOWN
from vectors.reading import (
    SIGNATURE_INVALID,
    Given,
    Strict,
    key_of,
    published,
    read,
    refusal,
    scene_of,
    shows,
    signatures_of,
    version_of,
)


class SharedGiven(Given, frozen=True):
    policy: JwtPolicy


class Asked(Strict, frozen=True):
    algorithm: str
    facts: dict[str, Any]


class Token(Strict, frozen=True):
    message: str
    token: str


class Vector(Strict, frozen=True):
    shows: str
    given: Asked
    expected: Token


class Refused(Strict, frozen=True):
    shows: str
    failure: str
    given: Asked


class ForgedGiven(Strict, frozen=True):
    algorithm: str
    token: str


class Forged(Strict, frozen=True):
    shows: str
    failure: str
    given: ForgedGiven


class Expected(Strict, frozen=True):
    jwks: dict[str, dict[str, str]]
    tokens: tuple[Vector, ...]
    refused: tuple[Refused, ...]
    forged: tuple[Forged, ...]


class File(Strict, frozen=True):
    about: str
    given: SharedGiven
    expected: Expected


FILE = read("jwt", File)
KEY = key_of(Purpose.JWT, FILE.given, Policy(jwt=FILE.given.policy))
PUBLIC = published(KEY)
PYJWT = ("ES256", "EdDSA", "PS256")


def ask(given: Asked) -> str:
    """The token, signed by the code that custody signs with."""
    facts = msgspec.convert(given.facts, SignJwt)
    framed = JWT.frame(facts, scene_of(KEY, given.algorithm))
    result = framed.finish(signatures_of(FILE.given, given.algorithm, framed.message))
    assert isinstance(result, JwtResult)
    return result.token


def taken_by_pyjwt(token: str, algorithm: str) -> dict[str, Any]:
    """The claims, if PyJWT takes the token; times do not count, as the vectors' clock stands."""
    [found] = [key for key in key_set().keys if key.key_id == version_of(KEY, algorithm).kid]
    claims: dict[str, Any] = pyjwt.decode(
        token,
        found,
        algorithms=[str(ALGORITHMS[algorithm].jose)],
        issuer=FILE.given.policy.issuer,
        audience=list(FILE.given.policy.audiences),
        options={"verify_exp": False, "verify_iat": False, "verify_nbf": False},
    )
    return claims


def key_set() -> pyjwt.PyJWKSet:
    """Our JWKS document, as PyJWT reads it."""
    keys = [
        jwk(str(ALGORITHMS[version.algorithm].jose), version.public[0], version.kid)
        for version in KEY.versions
    ]
    known = [key for key in keys if key["alg"] in PYJWT]
    return pyjwt.PyJWKSet.from_json(json.dumps({"keys": known}))


def test_the_key_set_is_byte_equal() -> None:
    found = {
        version.algorithm: jwk(
            str(ALGORITHMS[version.algorithm].jose), version.public[0], version.kid
        )
        for version in KEY.versions
    }
    assert found == FILE.expected.jwks


@shows(FILE.expected.tokens)
def test_the_message_is_byte_equal(vector: Vector) -> None:
    facts = msgspec.convert(vector.given.facts, SignJwt)
    framed = JWT.frame(facts, scene_of(KEY, vector.given.algorithm))
    assert framed.message.decode() == vector.expected.message
    raw = b64u_decode(vector.expected.token.rpartition(".")[2])
    result = framed.finish((ecdsa_der(vector.given.algorithm, raw),))
    assert isinstance(result, JwtResult)
    assert result.token == vector.expected.token


@shows(tuple(v for v in FILE.expected.tokens if v.given.algorithm not in UNKNOWN))
def test_pyjwt_takes_the_vector_and_what_custody_signs(vector: Vector) -> None:
    for token in (vector.expected.token, ask(vector.given)):
        claims = taken_by_pyjwt(token, vector.given.algorithm)
        assert claims.items() >= vector.given.facts["claims"].items()
        assert claims["iss"] == FILE.given.policy.issuer
        assert pyjwt.get_unverified_header(token)["typ"] == vector.given.facts.get("typ", "JWT")


@shows(tuple(v for v in FILE.expected.tokens if v.given.algorithm in UNKNOWN))
def test_pyca_takes_what_pyjwt_does_not_know(vector: Vector) -> None:
    for token in (vector.expected.token, ask(vector.given)):
        message, _, signature = token.rpartition(".")
        spki = version_of(KEY, vector.given.algorithm).public[0]
        verify(vector.given.algorithm, spki, message.encode(), b64u_decode(signature))
        assert message == vector.expected.message


def test_every_algorithm_of_the_purpose_has_a_vector() -> None:
    shown = {ALGORITHMS[vector.given.algorithm].jose for vector in FILE.expected.tokens}
    assert shown == {*PYJWT, "ML-DSA-65"}


@shows(FILE.expected.refused)
def test_refusals(vector: Refused) -> None:
    assert refusal(lambda: ask(vector.given)) == vector.failure


@shows(FILE.expected.forged)
def test_forgeries(vector: Forged) -> None:
    given = vector.given
    code = refusal(
        lambda: verify_jwt(
            given.token,
            PUBLIC,
            audience=FILE.given.policy.audiences[0],
            now_ms=FILE.given.now_ms,
        )
    )
    assert code == vector.failure
    with pytest.raises(pyjwt.PyJWTError):
        taken_by_pyjwt(given.token, given.algorithm)


def test_a_der_signature_is_not_a_jose_one() -> None:
    """RFC 7518 section 3.4: r || s; the DER that OpenSSL gives is no token's signature."""
    [vector] = [v for v in FILE.expected.tokens if v.given.algorithm == "ecdsa-p256-sha256"][:1]
    message, _, signature = vector.expected.token.rpartition(".")
    der = ecdsa_der("ecdsa-p256-sha256", b64u_decode(signature))
    assert ecdsa_raw("ecdsa-p256-sha256", der) == b64u_decode(signature)
    token = f"{message}.{b64u_encode(der)}"
    audience, now_ms = FILE.given.policy.audiences[0], FILE.given.now_ms
    code = refusal(lambda: verify_jwt(token, PUBLIC, audience=audience, now_ms=now_ms))
    assert code == SIGNATURE_INVALID
    with pytest.raises(SignatureInvalid):
        ecdsa_der("ecdsa-p256-sha256", der)
