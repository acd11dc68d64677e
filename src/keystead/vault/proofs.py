"""Proof of possession: the vault verifies by itself who sent a request under a bound handle."""

from __future__ import annotations

import hashlib

from keystead.crypto.public import certificate_key, ed25519_spki
from keystead.crypto.signatures import verify
from keystead.errors import MalformedRequest, PermissionDenied, SignatureInvalid
from keystead.frames.messages import Use
from keystead.keys.caveats import BoundTo
from keystead.keys.handles import Grant
from keystead.keys.use import Asked, Bearer, proof_is_fresh, proof_message

__all__ = ["bearer_of"]

_NOBODY = Bearer()


def bearer_of(use: Use, asked: Asked, grant: Grant, *, deployment: str, now_ms: int) -> Bearer:
    """Whom the request proves to come from.

    Raises:
        PermissionDenied: a proof that does not hold, is stale, or has no nonce.
        MalformedRequest: a certificate or key that does not parse.
    """
    if use.proof is None:
        return Bearer(unix_peer=use.unix_peer) if use.unix_peer is not None else _NOBODY
    if use.idempotency_key is None:
        raise PermissionDenied(
            "a proof of possession needs an idempotency key: it is the proof's nonce",
            hint="Send Idempotency-Key; a repeated proof then has one effect",
        )
    if not proof_is_fresh(use.proof.time_ms, now_ms):
        raise PermissionDenied(
            "the proof's time is too far from the vault's", hint="Set the client's clock"
        )
    message = proof_message(
        deployment, grant.chain_id, asked, use.facts, use.idempotency_key, use.proof.time_ms
    )
    try:
        return _verified(use, grant, message)
    except SignatureInvalid as exc:
        raise PermissionDenied("the proof of possession does not verify") from exc


def _verified(use: Use, grant: Grant, message: bytes) -> Bearer:
    if use.proof is None:
        raise MalformedRequest("expected a proof")
    if use.proof.certificate is not None:
        digest = hashlib.sha256(use.proof.certificate).digest()
        if BoundTo("certificate", digest) not in grant.caveats:
            return _NOBODY  # nobody asked for it: no arithmetic on a stranger's key
        component, spki = certificate_key(use.proof.certificate)
        verify(component, spki, message, use.proof.signature)
        return Bearer(certificate_digest=digest, unix_peer=use.unix_peer)
    for caveat in grant.caveats:
        if isinstance(caveat, BoundTo) and caveat.kind == "ed25519":
            verify("ed25519", ed25519_spki(caveat.value), message, use.proof.signature)
            return Bearer(ed25519=caveat.value, unix_peer=use.unix_peer)
    return _NOBODY
