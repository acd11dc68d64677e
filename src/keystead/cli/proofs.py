"""Proof keys from files: who a bound handle's holder is."""

from __future__ import annotations

from keystead.client import Bound
from keystead.crypto.proofkey import certificate_der, load_proof_signer

__all__ = ["load_bound"]


def load_bound(key_pem: bytes, certificate_pem: bytes | None) -> Bound:
    """A holder who proves possession by a private key, and a certificate of it if bound to one.

    Raises:
        MalformedRequest: a file that is not what it should be.
    """
    certificate = None if certificate_pem is None else certificate_der(certificate_pem)
    return Bound(load_proof_signer(key_pem), certificate=certificate)
