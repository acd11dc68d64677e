"""JSON Web Tokens (RFC 7519): claims come as parsed values; header and encoding are the vault's."""

from __future__ import annotations

import json
from typing import Any, Literal

import msgspec

from keystead import limits
from keystead.crypto.signatures import ecdsa_raw
from keystead.encoding import b64u_encode
from keystead.errors import LimitExceeded, MalformedRequest, PermissionDenied
from keystead.keys.framing.base import Facts, Framed, Framing, Result, Scene
from keystead.keys.model import JwtPolicy

__all__ = ["JWT", "JwtResult", "SignJwt"]

_TIMES = ("exp", "nbf", "iat")


class SignJwt(Facts, frozen=True):
    """``claims``: as RFC 7519; ``iss`` and ``iat`` may be left out, the vault sets them."""

    claims: dict[str, Any]
    typ: Literal["JWT", "at+jwt"] = "JWT"


class JwtResult(Result, frozen=True):
    """``token``: the JWS compact serialisation (RFC 7515)."""

    token: str


def _check_times(claims: dict[str, Any], policy: JwtPolicy, now_s: int) -> None:
    for name in _TIMES:
        value = claims.get(name, 0)
        if type(value) is not int or not 0 <= value < 2**53:
            raise MalformedRequest(f"expected {name} as whole seconds since 1970 (RFC 7519)")
    if claims["exp"] - now_s > policy.lifetime_max_s:
        raise LimitExceeded(
            f"the key's policy allows {policy.lifetime_max_s} s of life,"
            f" the claims ask for {claims['exp'] - now_s} s"
        )
    if claims["exp"] <= now_s:
        raise MalformedRequest("expected exp after now, met a token that has already expired")
    if claims["iat"] > now_s:
        raise MalformedRequest("expected iat not after now")


def _check_audience(claims: dict[str, Any], policy: JwtPolicy) -> None:
    audience = claims.get("aud", [])
    named = audience if isinstance(audience, list) else [audience]
    if not all(isinstance(item, str) for item in named):
        raise MalformedRequest("expected aud as a string or a list of strings (RFC 7519, 4.1.3)")
    if policy.audiences and (not named or not set(named) <= set(policy.audiences)):
        raise PermissionDenied(
            "the key's policy does not allow this audience",
            hint="It allows: " + ", ".join(policy.audiences),
        )


def _check_shape(value: dict[Any, Any] | list[Any], depth_left: int) -> None:
    """Hold the vault's own bound on nesting; msgpack, unlike JSON, also has members named 1."""
    if not depth_left:
        raise MalformedRequest(f"expected claims nested at most {limits.JSON_DEPTH_MAX} deep")
    if isinstance(value, dict):
        for name in value:
            if not isinstance(name, str):
                raise MalformedRequest("expected claims whose members are named by strings")
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            _check_shape(item, depth_left - 1)


def _complete(claims: dict[str, Any], policy: JwtPolicy, now_s: int) -> dict[str, Any]:
    if claims.get("iss", policy.issuer) != policy.issuer:
        raise PermissionDenied(f"the key signs as issuer {policy.issuer!r} only")
    full = {
        "iss": policy.issuer,
        **claims,
        "iat": claims.get("iat", now_s),
        "exp": claims.get("exp", now_s + policy.lifetime_max_s),
    }
    _check_times(full, policy, now_s)
    _check_audience(full, policy)
    return full


def _frame(facts: SignJwt, scene: Scene) -> Framed:
    policy = scene.key.policy.jwt
    if policy is None:
        raise MalformedRequest(f"key {scene.key.name} has no claim policy")
    jose = scene.algorithm.jose
    _check_shape(facts.claims, limits.JSON_DEPTH_MAX)
    claims = _complete(facts.claims, policy, scene.now_ms // 1000)
    try:
        payload = json.dumps(claims, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
        encoded = payload.encode()
    except (TypeError, ValueError) as exc:
        raise MalformedRequest("expected claims of JSON values in valid Unicode") from exc
    if len(encoded) > limits.JWT_CLAIMS_BYTES_MAX:
        raise LimitExceeded(f"expected claims of at most {limits.JWT_CLAIMS_BYTES_MAX} bytes")
    header = msgspec.json.encode({"alg": jose, "kid": scene.version.kid, "typ": facts.typ})
    signing_input = f"{b64u_encode(header)}.{b64u_encode(encoded)}"

    def finish(signatures: tuple[bytes, ...]) -> JwtResult:
        raw = ecdsa_raw(scene.version.algorithm, signatures[0])  # RFC 7518 section 3.4
        return JwtResult(token=f"{signing_input}.{b64u_encode(raw)}")

    return Framed(message=signing_input.encode(), finish=finish)


JWT = Framing(facts=SignJwt, result=JwtResult, frame=_frame)
