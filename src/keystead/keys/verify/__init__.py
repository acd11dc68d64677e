"""Verification of what Keystead signed, from public facts alone: no node asked, no clock read.

Each function raises, or returns a frozen struct of the facts that now hold; none returns a bool.
X.509 certificates, CRLs and SSH certificates are standard objects: the tools that use them verify
them.
"""

from __future__ import annotations

from keystead.keys.verify.base import PublicKey, Verified, before_compromise
from keystead.keys.verify.firmware import VerifiedFirmware, verify_firmware
from keystead.keys.verify.jwt import VerifiedJwt, verify_jwt
from keystead.keys.verify.ledger import SignedEntry, VerifiedLedger, verify_ledger
from keystead.keys.verify.tls import VerifiedTls, verify_tls

__all__ = [
    "PublicKey",
    "SignedEntry",
    "Verified",
    "VerifiedFirmware",
    "VerifiedJwt",
    "VerifiedLedger",
    "VerifiedTls",
    "before_compromise",
    "verify_firmware",
    "verify_jwt",
    "verify_ledger",
    "verify_tls",
]
