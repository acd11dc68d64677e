"""Proof of possession for handles that are bound to a key, without that key: the caller signs.

The SDK imports no private-key work; :class:`Bound` takes a function, so the key may live in a file,
an agent or a security token.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from keystead.encoding import b64u_encode
from keystead.keys.caveats import BoundTo
from keystead.keys.handles import Handle
from keystead.keys.use import Asked, proof_message

__all__ = ["Bound", "Proof", "is_bound", "proof_header", "prove"]


class Proof(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A proof on the wire; byte strings are standard base64 in its JSON."""

    time_ms: int
    signature: bytes
    certificate: bytes | None = None


class Bound:
    """Who a bound handle's holder is.

    ``sign``: takes the bytes of ``keys.use.proof_message`` and gives the raw signature: Ed25519 for
    a handle bound to such a key, or the certificate key's own. ``certificate``: its DER, for
    handles bound to one. Both shells call ``sign`` as it is, so it should not take long.
    """

    __slots__ = ("certificate", "sign")

    def __init__(self, sign: Callable[[bytes], bytes], *, certificate: bytes | None = None) -> None:
        self.sign = sign
        self.certificate = certificate

    def __repr__(self) -> str:
        return f"<Bound to a {'certificate' if self.certificate else 'key'}>"


def is_bound(handle: Handle) -> bool:
    """Whether uses of the handle need a proof; a binding to a unix peer needs none."""
    return any(isinstance(c, BoundTo) and c.kind != "unix" for c in handle.caveats)


def prove(
    bound: Bound,
    handle: Handle,
    asked: Asked,
    facts: bytes,
    *,
    deployment: str,
    nonce: str,
    now_ms: int,
) -> Proof:
    """Sign one request; ``facts`` are its facts in msgpack, ``nonce`` its idempotency key."""
    message = proof_message(deployment, handle.chain_id, asked, facts, nonce, now_ms)
    by_certificate = any(isinstance(c, BoundTo) and c.kind == "certificate" for c in handle.caveats)
    return Proof(
        time_ms=now_ms,
        signature=bound.sign(message),
        certificate=bound.certificate if by_certificate else None,
    )


def proof_header(proof: Proof) -> str:
    """The ``Keystead-Proof`` header."""
    return b64u_encode(msgspec.json.encode(proof))
