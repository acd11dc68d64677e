"""JSON Web Tokens: the key decides the algorithm, never the token (RFC 8725 section 3.1)."""

from __future__ import annotations

from typing import Any

import msgspec

from keystead import limits
from keystead.crypto.signatures import ecdsa_der
from keystead.encoding import b64u_decode, strict_json
from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.keys.algorithms import algorithm_named
from keystead.keys.commands import VersionInfo
from keystead.keys.purposes import Purpose
from keystead.keys.verify.base import (
    PublicKey,
    Verified,
    check_purpose,
    check_signatures,
    check_state,
    version_of_kid,
)

__all__ = ["TOKEN_BYTES_MAX", "VerifiedJwt", "verify_jwt"]

TOKEN_BYTES_MAX = 2 * limits.JWT_CLAIMS_BYTES_MAX
"""Claims in base64url, and header and signature of any algorithm (ML-DSA-65: 4,412 characters)."""

_HEADER = frozenset({"alg", "kid", "typ"})


class VerifiedJwt(msgspec.Struct, frozen=True, kw_only=True):
    """``claims``: as signed; ``expires_s``: their ``exp``, Unix seconds."""

    signer: Verified
    claims: dict[str, Any]
    typ: str
    expires_s: int


def verify_jwt(
    token: str,
    key: PublicKey,
    *,
    audience: str | None,
    now_ms: int,
    leeway_s: int = 0,
    issuer: str | None = None,
    typ: str = "JWT",
) -> VerifiedJwt:
    """Verify a token in JWS compact serialisation (RFC 7515, RFC 7519).

    ``audience``: who is asking; ``None`` refuses any token that is for an audience. ``now_ms``:
    Unix milliseconds; ``leeway_s``: how far the two clocks may differ. ``issuer``: held against
    ``iss`` if given. ``typ``: the one header type that is accepted, so that an access token
    (``at+jwt``, RFC 9068) never passes for another.

    Raises:
        SignatureInvalid: the signature, or a claim or header member, does not hold.
        SignedByCompromised: the signature is right, but its version is compromised.
        PurposeMismatch: not a JWT key.
        MalformedRequest: the token does not parse.
    """
    check_purpose(key, Purpose.JWT)
    if len(token) > TOKEN_BYTES_MAX or not token.isascii():
        raise MalformedRequest(f"expected a token of at most {TOKEN_BYTES_MAX} ASCII characters")
    parts = token.split(".")
    if len(parts) != 3:  # noqa: PLR2004  RFC 7515 section 7.1
        raise MalformedRequest(f"expected a token of 3 parts (RFC 7515), met {len(parts)}")
    header = _object(parts[0], "header")
    version = version_of_kid(key, _text(header, "kid"))
    component = _check_header(header, version, typ)
    signature = ecdsa_der(component, b64u_decode(parts[2]))
    signed = f"{parts[0]}.{parts[1]}".encode()
    signer = check_state(key, version, check_signatures(version, signed, {component: signature}))
    claims = _object(parts[1], "claims")
    expires_s = _check_times(claims, now_ms // 1000, leeway_s)
    _check_parties(claims, audience, issuer)
    return VerifiedJwt(signer=signer, claims=claims, typ=typ, expires_s=expires_s)


def _object(part: str, what: str) -> dict[str, Any]:
    value = strict_json(b64u_decode(part), depth_max=limits.JSON_DEPTH_MAX)
    if not isinstance(value, dict):
        raise MalformedRequest(f"expected the {what} of the token to be a JSON object")
    return value


def _text(members: dict[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str):
        raise MalformedRequest(f"expected the header's {name} as a string")
    return value


def _check_header(header: dict[str, Any], version: VersionInfo, typ: str) -> str:
    """Hold the header to the version, and return the component that signs."""
    algorithm = algorithm_named(version.algorithm)
    named = _text(header, "alg")
    if algorithm.jose is None or named != algorithm.jose:
        raise SignatureInvalid(
            f"the token says {named[:32]!r}; version {version.number} signs by {algorithm.jose}",
            hint="The algorithm is the key's, never the token's (RFC 8725 section 3.1)",
        )
    if _text(header, "typ") != typ:
        raise SignatureInvalid(f"expected typ {typ!r}, met {header['typ'][:32]!r}")
    if not header.keys() <= _HEADER:
        # crit, jwk, jku, x5c and their like are means to choose another key: Keystead sets none.
        raise SignatureInvalid(
            f"expected the header members {', '.join(sorted(_HEADER))} only, met others"
        )
    return algorithm.components[0]


def _check_times(claims: dict[str, Any], now_s: int, leeway_s: int) -> int:
    times = {name: claims.get(name) for name in ("exp", "nbf", "iat")}
    for name, value in times.items():
        if value is not None and type(value) is not int:
            raise MalformedRequest(f"expected {name} as whole seconds since 1970")
    expires_s, not_before_s, issued_s = times["exp"], times["nbf"], times["iat"]
    if expires_s is None:
        raise SignatureInvalid("expected a token that expires, met none of exp")
    if now_s >= expires_s + leeway_s:  # RFC 7519 section 4.1.4: on or after
        raise SignatureInvalid(f"the token expired {now_s - expires_s} s ago")
    for name, value in (("nbf", not_before_s), ("iat", issued_s)):
        if value is not None and value > now_s + leeway_s:
            raise SignatureInvalid(
                f"the token's {name} is {value - now_s} s ahead", hint="Check both clocks"
            )
    return int(expires_s)


def _check_parties(claims: dict[str, Any], audience: str | None, issuer: str | None) -> None:
    if issuer is not None and claims.get("iss") != issuer:
        raise SignatureInvalid(f"expected a token of issuer {issuer!r}, met another")
    meant = claims.get("aud")
    named = meant if isinstance(meant, list) else [] if meant is None else [meant]
    if audience is None and named:
        raise SignatureInvalid(
            "the token is for an audience, and none was given to check", hint="Pass audience="
        )
    if audience is not None and audience not in named:
        raise SignatureInvalid(f"the token is not for {audience!r}")
