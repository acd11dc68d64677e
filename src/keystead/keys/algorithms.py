"""Algorithms as one table: what a name means, which components sign, and its names elsewhere.

A *component* is one primitive key pair or secret that ``crypto`` knows. Most algorithms have one;
a dual algorithm has two, and every signature of it is one per component.
"""

from __future__ import annotations

from enum import StrEnum, auto

import msgspec

from keystead.errors import MalformedRequest

__all__ = ["ALGORITHMS", "Algorithm", "Kind", "algorithm_named"]


class Kind(StrEnum):
    """What a key of the algorithm is made of."""

    SIGNATURE = auto()
    SECRET = auto()
    KEM = auto()


class Algorithm(msgspec.Struct, frozen=True, kw_only=True):
    """One row.

    ``jose``: RFC 7518, RFC 8037 and RFC 9964 names. ``tls_scheme``: SignatureScheme of RFC 8446
    section 4.2.3 and the IANA registry. ``blocking``: slow enough to run off the vault's loop.
    ``bits``: security strength (NIST SP 800-57 Part 1 Rev. 5, table 2, and the categories of FIPS
    204 and 203). ``quantum_safe``: also against a quantum computer.
    """

    name: str
    kind: Kind
    components: tuple[str, ...]
    jose: str | None = None
    tls_scheme: int | None = None
    blocking: bool = False
    bits: int = 128
    quantum_safe: bool = False


def _row(
    name: str,
    kind: Kind = Kind.SIGNATURE,
    *,
    components: tuple[str, ...] = (),
    jose: str | None = None,
    tls: int | None = None,
    blocking: bool = False,
    bits: int = 128,
    quantum_safe: bool = False,
) -> Algorithm:
    return Algorithm(
        name=name,
        kind=kind,
        components=components or (name,),
        jose=jose,
        tls_scheme=tls,
        blocking=blocking,
        bits=bits,
        quantum_safe=quantum_safe,
    )


ALGORITHMS: dict[str, Algorithm] = {
    row.name: row
    for row in (
        _row("ecdsa-p256-sha256", jose="ES256", tls=0x0403),
        _row("ecdsa-p384-sha384", jose="ES384", tls=0x0503, bits=192),
        _row("ed25519", jose="EdDSA", tls=0x0807),
        _row("rsa-pss-2048-sha256", jose="PS256", tls=0x0804, blocking=True, bits=112),
        _row("rsa-pss-3072-sha256", jose="PS256", tls=0x0804, blocking=True),
        _row("rsa-pkcs1-3072-sha256", blocking=True),
        _row("ml-dsa-44", jose="ML-DSA-44", tls=0x0904, blocking=True, quantum_safe=True),
        _row("ml-dsa-65", jose="ML-DSA-65", tls=0x0905, blocking=True, bits=192, quantum_safe=True),
        _row(
            "dual-ecdsa-p256-ml-dsa-65",
            components=("ecdsa-p256-sha256", "ml-dsa-65"),
            blocking=True,
            bits=192,
            quantum_safe=True,
        ),
        _row("aes-256-gcm-siv", Kind.SECRET, bits=256, quantum_safe=True),
        _row("hmac-sha256", Kind.SECRET, bits=256, quantum_safe=True),
        _row("hkdf-sha256", Kind.SECRET, bits=256, quantum_safe=True),
        _row("hpke-mlkem768-x25519", Kind.KEM, blocking=True, bits=192, quantum_safe=True),
    )
}
"""Name to row. Signature components are verified by ``crypto.public`` under the same names."""


def algorithm_named(name: str) -> Algorithm:
    """The row of a name.

    Raises:
        MalformedRequest: no such algorithm.
    """
    try:
        return ALGORITHMS[name]
    except KeyError:
        raise MalformedRequest(
            f"no algorithm {name[:64]!r}", hint="Known: " + ", ".join(ALGORITHMS)
        ) from None
