"""Purposes as one table: they fix a key's operations, algorithms and framing for life (I1)."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

import msgspec

from keystead.errors import AlgorithmForbidden, MalformedRequest, PurposeMismatch

__all__ = [
    "PURPOSES",
    "SIGNALS",
    "Purpose",
    "PurposeRow",
    "check_operation",
    "default_algorithm",
    "effective_algorithm",
    "misuse_pairs",
]


class Purpose(StrEnum):
    """What a key is for; design section 5."""

    TLS = "tls"
    CA = "ca"
    JWT = "jwt"
    FIRMWARE = "firmware"
    LEDGER = "ledger"
    VPN = "vpn"
    SSH = "ssh"
    SSH_CA = "ssh_ca"
    DATA = "data"
    TICKET = "ticket"
    AUDIT = "audit"


class PurposeRow(msgspec.Struct, frozen=True, kw_only=True):
    """Operations, and which algorithms a key may have, default first.

    ``by_operation`` names, where they differ from the key's, the algorithm an operation works with
    and the key algorithms that allow it: every operation of a secret has a subkey of its own.
    ``offered`` is false while the framing of the purpose is not built: such keys cannot be made.
    """

    operations: tuple[str, ...]
    algorithms: tuple[str, ...]
    by_operation: dict[str, dict[str, str]] = {}
    offered: bool = True
    prehashed_allowed: bool = False
    verify_before_release: bool = False


_P256, _P384, _ED = "ecdsa-p256-sha256", "ecdsa-p384-sha384", "ed25519"
_PSS2, _PSS3 = "rsa-pss-2048-sha256", "rsa-pss-3072-sha256"
_DSA44, _DSA65, _DUAL = "ml-dsa-44", "ml-dsa-65", "dual-ecdsa-p256-ml-dsa-65"
_SIV, _HMAC, _HKDF, _HPKE = "aes-256-gcm-siv", "hmac-sha256", "hkdf-sha256", "hpke-mlkem768-x25519"

PURPOSES: dict[Purpose, PurposeRow] = {
    Purpose.TLS: PurposeRow(
        operations=("sign", "sign_digest"),
        algorithms=(_P256, _ED, _PSS2, _PSS3, _P384, _DSA44, _DSA65),
        prehashed_allowed=True,
    ),
    Purpose.CA: PurposeRow(
        operations=("sign",),
        algorithms=(_P256, _P384, _ED, "rsa-pkcs1-3072-sha256", _DSA65),
        verify_before_release=True,
    ),
    Purpose.JWT: PurposeRow(operations=("sign",), algorithms=(_P256, _ED, _PSS2, _PSS3, _DSA65)),
    Purpose.FIRMWARE: PurposeRow(
        operations=("sign",),
        algorithms=(_P256, _ED, _DSA65, _DUAL),
        verify_before_release=True,
    ),
    Purpose.LEDGER: PurposeRow(operations=("append",), algorithms=(_ED, _P256, _DUAL)),
    Purpose.VPN: PurposeRow(
        operations=("sign", "sign_digest"),
        algorithms=(_P256, _PSS2, _PSS3),
        prehashed_allowed=True,
        offered=False,
    ),
    Purpose.SSH: PurposeRow(operations=("sign",), algorithms=(_ED, _P256), offered=False),
    Purpose.SSH_CA: PurposeRow(
        operations=("sign",), algorithms=(_ED, _P256), verify_before_release=True
    ),
    Purpose.DATA: PurposeRow(
        operations=("wrap", "unwrap", "derive", "mac"),
        algorithms=(_SIV, _HMAC, _HKDF, _HPKE),
        by_operation={
            "wrap": {_SIV: _SIV, _HPKE: _HPKE},
            "unwrap": {_SIV: _SIV, _HPKE: _HPKE},
            "derive": {_SIV: _HKDF, _HKDF: _HKDF},
            "mac": {_SIV: _HMAC, _HMAC: _HMAC},
        },
    ),
    Purpose.TICKET: PurposeRow(operations=("derive",), algorithms=(_HKDF,), offered=False),
    Purpose.AUDIT: PurposeRow(
        operations=("sign",), algorithms=(_ED, _DSA44), verify_before_release=True, offered=False
    ),
}
"""One row a purpose, in the order of design section 5."""


SIGNALS = ("report", "acknowledge")
"""Operations of every purpose that use no key: what relying parties tell of one. No handle has
them unless it was asked for."""


def default_algorithm(purpose: Purpose) -> str:
    """The algorithm a key of the purpose gets when none is asked for."""
    return PURPOSES[purpose].algorithms[0]


def check_operation(key_purpose: Purpose, asked_purpose: str, operation: str) -> None:
    """Hold invariant I1: the key's own purpose, and one of its operations.

    Raises:
        PurposeMismatch: the operation belongs to another purpose.
        MalformedRequest: no such purpose or operation at all.
    """
    if asked_purpose != key_purpose:
        raise PurposeMismatch(
            f"the key is for {key_purpose!s}, the operation asked for is of {asked_purpose[:32]!r}",
            hint="Use a handle of a key that was created for that purpose",
        )
    if operation not in PURPOSES[key_purpose].operations and operation not in SIGNALS:
        raise MalformedRequest(
            f"purpose {key_purpose!s} has no operation {operation[:32]!r}",
            hint="It has: " + ", ".join(PURPOSES[key_purpose].operations),
        )


def effective_algorithm(purpose: Purpose, operation: str, key_algorithm: str) -> str:
    """The algorithm that the operation runs under a key of this algorithm.

    Raises:
        AlgorithmForbidden: a key of this algorithm does not do this operation.
    """
    allowed = PURPOSES[purpose].by_operation.get(operation)
    if allowed is None:
        return key_algorithm
    try:
        return allowed[key_algorithm]
    except KeyError:
        raise AlgorithmForbidden(
            f"a {key_algorithm} key does not {operation}",
            hint="Keys that do: " + ", ".join(allowed),
        ) from None


def misuse_pairs() -> Iterator[tuple[Purpose, str, Purpose, str]]:
    """The matrix of I1 off its diagonal: (key purpose, key algorithm, asked purpose, operation)."""
    for own, row in PURPOSES.items():
        for algorithm in row.algorithms:
            for other, foreign in PURPOSES.items():
                if other is not own:
                    for operation in foreign.operations:
                        yield own, algorithm, other, operation
