"""JWT: header, issuer and times are the vault's; whatever the policy does not allow is refused."""

import json
from typing import Any

import msgspec
import pytest

from keystead import limits
from keystead.encoding import b64u_decode, b64u_encode
from keystead.errors import LimitExceeded, MalformedRequest, PermissionDenied
from keystead.keys.algorithms import ALGORITHMS
from keystead.keys.framing.base import Framed
from keystead.keys.framing.jwt import JWT, JwtResult, SignJwt
from keystead.keys.model import JwtPolicy, Policy
from keystead.keys.purposes import PURPOSES, Purpose
from unit.keys.sample import NOW_S, key_of, scene_of

ISSUER = "https://id.example"
POLICY = JwtPolicy(issuer=ISSUER, audiences=("shop", "mail"), lifetime_max_s=600)


def frame(
    claims: dict[str, Any], policy: JwtPolicy | None = POLICY, algorithm: str = "ed25519"
) -> Framed:
    key = key_of(Purpose.JWT, algorithm, policy=Policy(jwt=policy))
    return JWT.frame(SignJwt(claims=claims), scene_of(key))


def claims_in(framed: Framed) -> Any:  # noqa: ANN401  any JSON there is
    return json.loads(b64u_decode(framed.message.split(b".")[1].decode()))


@pytest.mark.parametrize("algorithm", PURPOSES[Purpose.JWT].algorithms)
def test_the_header_is_the_vaults(algorithm: str) -> None:
    framed = frame({"aud": "shop", "alg": "none", "kid": "mine"}, algorithm=algorithm)
    header = json.loads(b64u_decode(framed.message.split(b".")[0].decode()))
    assert header == {"alg": ALGORITHMS[algorithm].jose, "kid": "kid-1", "typ": "JWT"}


def test_the_token_is_the_signing_input_and_the_signature() -> None:
    framed = frame({"aud": "shop"})
    assert framed.finish((b"sig",)) == JwtResult(token=f"{framed.message.decode()}.c2ln")
    assert framed.step is None


def test_an_ecdsa_signature_is_written_as_rfc_7518_has_it() -> None:
    framed = frame({"aud": "shop"}, algorithm="ecdsa-p256-sha256")
    der = bytes.fromhex("3006020101020102")
    raw = (1).to_bytes(32, "big") + (2).to_bytes(32, "big")
    assert framed.finish((der,)) == JwtResult(token=f"{framed.message.decode()}.{b64u_encode(raw)}")


def test_what_is_left_out_is_filled_in() -> None:
    full = {"iss": ISSUER, "iat": NOW_S, "exp": NOW_S + 600, "aud": "shop"}
    assert claims_in(frame({"aud": "shop"})) == full
    given = {"aud": ["mail", "shop"], "iat": NOW_S - 5, "exp": NOW_S + 1, "nbf": NOW_S, "x": [1]}
    assert claims_in(frame(given)) == {"iss": ISSUER, **given}
    assert claims_in(frame({"iss": ISSUER, "aud": []}, JwtPolicy(issuer=ISSUER)))["aud"] == []


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"iss": None},
        {"aud": "bank"},
        {"aud": ["shop", "bank"]},
        {"aud": []},
        {"aud": ""},
    ],
)
def test_another_issuer_or_audience_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(PermissionDenied):
        frame({"aud": "shop"} | claims)


def test_an_audience_must_be_given_where_there_is_a_list() -> None:
    with pytest.raises(PermissionDenied, match="audience"):
        frame({})


@pytest.mark.parametrize("audience", [None, 1, {"shop": 1}, [["shop"]], ["shop", None], True])
def test_an_audience_is_text(audience: object) -> None:
    for policy in (POLICY, JwtPolicy(issuer=ISSUER)):
        with pytest.raises(MalformedRequest, match="aud"):
            frame({"aud": audience}, policy)


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize("value", [None, "1", 1.5, True, -1, 2**53, [], float("nan")])
def test_times_are_whole_seconds(name: str, value: object) -> None:
    with pytest.raises(MalformedRequest, match=name):
        frame({"aud": "shop", name: value})


@pytest.mark.parametrize(
    ("claims", "refusal"),
    [
        ({"exp": NOW_S + 601}, LimitExceeded),
        ({"exp": NOW_S}, MalformedRequest),
        ({"exp": NOW_S - 1}, MalformedRequest),
        ({"iat": NOW_S + 1}, MalformedRequest),
    ],
)
def test_a_life_is_within_the_policy_and_begins_now(
    claims: dict[str, Any], refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        frame({"aud": "shop"} | claims)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [
        nested(limits.JSON_DEPTH_MAX),
        nested(5000),
        {1: "a", "1": "b"},
        {"a": {None: 1}},
        b"bytes",
        float("nan"),
        float("inf"),
        "\ud800",
    ],
)
def test_claims_are_json_that_every_reader_takes_alike(value: object) -> None:
    with pytest.raises(MalformedRequest):
        frame({"aud": "shop", "x": value})


def test_claims_may_nest_up_to_the_limit_and_be_in_any_script() -> None:
    value = nested(limits.JSON_DEPTH_MAX - 1)
    assert claims_in(frame({"aud": "shop", "x": value, "y": "\u20ac"}))["y"] == "\u20ac"


def test_claims_are_bounded_in_bytes() -> None:
    room = limits.JWT_CLAIMS_BYTES_MAX - len(
        json.dumps(claims_in(frame({"aud": "shop", "x": ""})), separators=(",", ":"))
    )
    assert claims_in(frame({"aud": "shop", "x": "a" * room}))["x"] == "a" * room
    with pytest.raises(LimitExceeded, match="claims of at most"):
        frame({"aud": "shop", "x": "a" * (room + 1)})


def test_a_key_without_a_claim_policy_signs_nothing() -> None:
    with pytest.raises(MalformedRequest, match="no claim policy"):
        frame({"aud": "shop"}, None)


@pytest.mark.parametrize(
    "facts", [{}, {"claims": []}, {"claims": {}, "alg": "none"}, {"claims": {}, "typ": "x"}]
)
def test_facts_are_claims_and_a_known_type(facts: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(facts, SignJwt)
