"""Verification by what an artefact says of its own signature, to find the uses of a stolen key.

Everywhere else the key decides how it signs (RFC 8725 section 3.1). Whoever has stolen a key is
held to no such rule, so here each scheme that a kind of key can carry out is tried as it is named.
That something verifies here says who made it, never that it may be trusted.
"""

from __future__ import annotations

from typing import Any

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from keystead.errors import MalformedRequest, SignatureInvalid

__all__ = [
    "COMPONENTS",
    "JOSE",
    "PublicPart",
    "Scheme",
    "SignedObject",
    "ecdsa_from_raw",
    "read_certificate",
    "read_crl",
]

_HASHES: dict[str, hashes.HashAlgorithm] = {
    kind.name: kind
    for kind in (hashes.SHA1(), hashes.SHA224(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512())  # noqa: S303  what thieves sign with is theirs to choose
}
_PYCA_ERRORS = (
    ValueError,
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_FAMILIES = {
    "1.2.840.10045.4": "ecdsa",  # RFC 5758
    "1.2.840.113549.1.1.10": "rsa-pss",  # RFC 4055
    "1.2.840.113549.1.1": "rsa-pkcs1",
    "1.3.101.112": "ed25519",  # RFC 8410
    "2.16.840.1.101.3.4.3.17": "ml-dsa-44",  # RFC 9881
    "2.16.840.1.101.3.4.3.18": "ml-dsa-65",
}
"""Beginnings of signature algorithms' OIDs, the longer ones first."""


class Scheme(msgspec.Struct, frozen=True):
    """A family of signatures, and the hash where the family does not have its own."""

    family: str
    digest: str = ""


JOSE: dict[str, Scheme] = {
    "ES256": Scheme("ecdsa", "sha256"),
    "ES384": Scheme("ecdsa", "sha384"),
    "ES512": Scheme("ecdsa", "sha512"),
    "EdDSA": Scheme("ed25519"),
    "Ed25519": Scheme("ed25519"),
    "PS256": Scheme("rsa-pss", "sha256"),
    "PS384": Scheme("rsa-pss", "sha384"),
    "PS512": Scheme("rsa-pss", "sha512"),
    "RS256": Scheme("rsa-pkcs1", "sha256"),
    "RS384": Scheme("rsa-pkcs1", "sha384"),
    "RS512": Scheme("rsa-pkcs1", "sha512"),
    "ML-DSA-44": Scheme("ml-dsa-44"),
    "ML-DSA-65": Scheme("ml-dsa-65"),
}
"""Names of RFC 7518, RFC 8037, RFC 9864 and RFC 9964."""
COMPONENTS: dict[str, Scheme] = {
    "ecdsa-p256-sha256": Scheme("ecdsa", "sha256"),
    "ecdsa-p384-sha384": Scheme("ecdsa", "sha384"),
    "ed25519": Scheme("ed25519"),
    "ml-dsa-44": Scheme("ml-dsa-44"),
    "ml-dsa-65": Scheme("ml-dsa-65"),
}
"""Keystead's own names, as firmware and ledger signatures have them."""


class SignedObject(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate or CRL: what was signed, how it says it was, and by whom it says it was.

    ``scheme``: None if it is one that no key here could carry out. ``until_s``: None if it names
    no end. ``issuer``, ``subject``: DER names.
    """

    tbs: bytes
    signature: bytes
    scheme: Scheme | None
    issuer: bytes
    authority_key_id: bytes | None
    from_s: int
    until_s: int | None
    serial: int = 0
    subject: bytes = b""
    subject_key_id: bytes | None = None


class PublicPart:
    """One public key, parsed once to try many signatures.

    Raises:
        MalformedRequest: it does not parse.
    """

    def __init__(self, pem: str) -> None:
        try:
            self._key: Any = load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm) as exc:
            raise MalformedRequest("expected a PEM public key (RFC 7468)") from exc
        self._families = _families_of(self._key)

    @property
    def spki(self) -> bytes:
        """Its DER SubjectPublicKeyInfo (RFC 5280)."""
        spki: bytes = self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return spki

    def fits(self, scheme: Scheme) -> bool:
        """Whether such a key can sign so at all."""
        return scheme.family in self._families

    def verify(self, scheme: Scheme, message: bytes, signature: bytes) -> None:
        """Check a signature; ECDSA as DER.

        Raises:
            SignatureInvalid: it is not this key's.
        """
        try:
            self._key.verify(signature, message, *self._parameters(scheme))
        except (InvalidSignature, *_PYCA_ERRORS) as exc:
            raise SignatureInvalid(f"the {scheme.family} signature is not this key's") from exc

    def _parameters(self, scheme: Scheme) -> tuple[object, ...]:
        if not self.fits(scheme):
            raise SignatureInvalid(f"the public key is not one that makes {scheme.family}")
        if not scheme.digest:
            return ()
        digest = _HASHES[scheme.digest]
        match scheme.family:
            case "ecdsa":
                return (ec.ECDSA(digest),)
            case "rsa-pss":
                salt = padding.PSS.AUTO
                return padding.PSS(mgf=padding.MGF1(digest), salt_length=salt), digest
            case _:
                return padding.PKCS1v15(), digest


def _families_of(key: object) -> tuple[str, ...]:
    match key:
        case ec.EllipticCurvePublicKey():
            return ("ecdsa",)
        case rsa.RSAPublicKey():
            return ("rsa-pss", "rsa-pkcs1")
        case ed25519.Ed25519PublicKey():
            return ("ed25519",)
        case mldsa.MLDSA44PublicKey():
            return ("ml-dsa-44",)
        case mldsa.MLDSA65PublicKey():
            return ("ml-dsa-65",)
        case _:
            return ()


def ecdsa_from_raw(raw: bytes) -> bytes:
    """DER of r || s of any curve.

    Raises:
        MalformedRequest: two halves of one length it has not.
    """
    size = len(raw) // 2
    if not raw or len(raw) % 2:
        raise MalformedRequest(f"expected r || s of an even number of bytes, met {len(raw)}")
    return encode_dss_signature(
        int.from_bytes(raw[:size], "big"), int.from_bytes(raw[size:], "big")
    )


def read_certificate(der: bytes) -> SignedObject:
    """Read a DER certificate of whatever issuer (RFC 5280 section 4).

    Raises:
        MalformedRequest: it is none.
    """
    try:
        read = x509.load_der_x509_certificate(der)
        own_id = _extension(read, x509.SubjectKeyIdentifier)
        return SignedObject(
            tbs=read.tbs_certificate_bytes,
            signature=read.signature,
            scheme=_scheme(read),
            issuer=read.issuer.public_bytes(),
            authority_key_id=_authority_key_id(read),
            from_s=int(read.not_valid_before_utc.timestamp()),
            until_s=int(read.not_valid_after_utc.timestamp()),
            serial=read.serial_number,
            subject=read.subject.public_bytes(),
            subject_key_id=own_id.digest if own_id else None,
        )
    except _PYCA_ERRORS as exc:
        raise MalformedRequest("expected an X.509 certificate (RFC 5280), DER") from exc


def read_crl(der: bytes) -> SignedObject:
    """Read a DER CRL of whatever issuer (RFC 5280 section 5).

    Raises:
        MalformedRequest: it is none.
    """
    try:
        read = x509.load_der_x509_crl(der)
        ends = read.next_update_utc
        return SignedObject(
            tbs=read.tbs_certlist_bytes,
            signature=read.signature,
            scheme=_scheme(read),
            issuer=read.issuer.public_bytes(),
            authority_key_id=_authority_key_id(read),
            from_s=int(read.last_update_utc.timestamp()),
            until_s=None if ends is None else int(ends.timestamp()),
        )
    except _PYCA_ERRORS as exc:
        raise MalformedRequest("expected an X.509 CRL (RFC 5280), DER") from exc


_Read = x509.Certificate | x509.CertificateRevocationList


def _scheme(read: _Read) -> Scheme | None:
    oid = read.signature_algorithm_oid.dotted_string
    family = next(
        (name for begin, name in _FAMILIES.items() if f"{oid}.".startswith(f"{begin}.")), ""
    )
    if family in {"", "ed25519", "ml-dsa-44", "ml-dsa-65"}:
        return Scheme(family) if family else None
    try:
        digest = read.signature_hash_algorithm
    except UnsupportedAlgorithm:
        return None
    return Scheme(family, digest.name) if digest is not None and digest.name in _HASHES else None


def _authority_key_id(read: _Read) -> bytes | None:
    found = _extension(read, x509.AuthorityKeyIdentifier)
    return found.key_identifier if found else None


def _extension(read: _Read, kind: type[Any]) -> Any:  # noqa: ANN401  the extension's own class
    """An extension, None if there is none or it cannot be read: it is a hint, no more."""
    try:
        return read.extensions.get_extension_for_class(kind).value
    except (x509.ExtensionNotFound, *_PYCA_ERRORS):
        return None
