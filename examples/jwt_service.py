"""A login service that signs tokens by a handle, and an API that checks them without asking it.

Run it against a node: ``python examples/jwt_service.py``. KEYSTEAD_URL names the node, and the
operator's token is in KEYSTEAD_TOKEN or in the file KEYSTEAD_TOKEN_FILE. The operator's part runs
once in a deployment; the two services never see that token.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import jwt

from keystead.client import Client, Handle, Narrowing, RateLimit, attenuate
from keystead.errors import ContextMismatch
from keystead.keys.model import JwtPolicy, Policy

URL = os.environ.get("KEYSTEAD_URL", "http://127.0.0.1:7410")
ISSUER, AUDIENCE = "https://id.shop.example", "https://api.shop.example"


def operator_token() -> str:
    """The operator's token, from the environment or from its file."""
    given = os.environ.get("KEYSTEAD_TOKEN")
    return (given or Path(os.environ["KEYSTEAD_TOKEN_FILE"]).read_text()).strip()


def set_up(key: str) -> Handle:
    """The operator's part: a key for tokens, and a handle of it for the login service."""
    policy = Policy(jwt=JwtPolicy(issuer=ISSUER, audiences=(AUDIENCE,), lifetime_max_s=600))
    with Client(URL, operator=operator_token()) as operator:
        operator.create_key(key, "jwt", policy=policy, labels={"service": "login"})
        narrowing = Narrowing(context_prefix="shop", rate=RateLimit(count=100, per_s=1))
        return operator.issue_handle(key, "login", ttl_s=86_400, narrowing=narrowing).handle


class LoginService:
    """Holds a handle, no key; in its own region only."""

    def __init__(self, handle: Handle, region: str) -> None:
        self._context = f"shop/{region}"
        self._handle = attenuate(handle, Narrowing(context_prefix=self._context))
        self._client = Client(URL)

    def log_in(self, user: str) -> str:
        """A token for a user; the record of it says why."""
        claims = {"sub": user, "aud": AUDIENCE, "jti": secrets.token_urlsafe(16)}
        used = self._client.sign_jwt(
            self._handle, claims, context=self._context, reason="password login"
        )
        print(f"signed: record {used.receipt.seq}, request {used.receipt.request_id}")
        return used.result.token

    def stray(self) -> None:
        """What a bug or a thief would meet: another region's context is refused."""
        try:
            self._client.sign_jwt(self._handle, {"aud": AUDIENCE}, context="shop/elsewhere")
        except ContextMismatch as refusal:
            print(f"refused: {refusal}")

    def close(self) -> None:
        """End its connections."""
        self._client.close()


def check(token: str, key: str) -> dict[str, Any]:
    """The API's part: PyJWT and the served key set, no Keystead."""
    keys = jwt.PyJWKClient(f"{URL}/v1/keys/{key}/jwks.json")
    signer = keys.get_signing_key_from_jwt(token)
    claims: dict[str, Any] = jwt.decode(
        token, signer.key, algorithms=["ES256"], audience=AUDIENCE, issuer=ISSUER
    )
    return claims


def main() -> None:
    """Set up, log in, check, and be refused once."""
    key = f"example-tokens-{secrets.token_hex(4)}"
    service = LoginService(set_up(key), "eu")
    try:
        print(f"verified: {check(service.log_in('u1'), key)['sub']}")
        service.stray()
    finally:
        service.close()


if __name__ == "__main__":
    main()
