"""X.509 as values: what an authority signs, built without its key, and strangers' requests, read.

The authority's private key lives behind a port, so nothing here signs with it. :func:`leaf_tbs`,
:func:`root_tbs` and :func:`crl_tbs` have `cryptography`'s builders sign with a stand-in key, keep
the to-be-signed part with the AlgorithmIdentifier of the real signature written into it, and drop
the rest; :func:`assemble_signed` puts the real signature behind it (RFC 5280 sections 4.1.1 and
5.1.1).

The stand-in is one fixed Ed25519 key, known to everybody. No output depends on it: neither a
TBSCertificate nor a TBSCertList says anything of the issuer's key but names and key ids, which are
arguments. So nothing here draws randomness, and no authority waits for RSA to make a TBS.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime
from typing import Literal, TypeVar

import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from keystead import limits
from keystead.errors import MalformedRequest

__all__ = [
    "CertificateFacts",
    "CrlFields",
    "LeafFields",
    "Profile",
    "Reason",
    "RequestFacts",
    "Revoked",
    "RootFields",
    "Unsigned",
    "assemble_signed",
    "crl_tbs",
    "leaf_tbs",
    "parse_certificate",
    "parse_request",
    "pem",
    "root_tbs",
]

Profile = Literal["server", "client"]
"""What a certificate is for; it decides the extended key usage."""
Reason = Literal[
    "unspecified",
    "keyCompromise",
    "cACompromise",
    "affiliationChanged",
    "superseded",
    "cessationOfOperation",
    "certificateHold",
    "privilegeWithdrawn",
    "aACompromise",
]
"""CRLReason of RFC 5280 section 5.3.1, without ``removeFromCRL``, which is for delta CRLs."""

_T = TypeVar("_T", bound=x509.ExtensionType)

_SEQUENCE, _BIT_STRING = 0x30, 0x03
_PEM_LINE = 64  # RFC 7468 section 2
_USAGES = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
_SIGNATURES = {
    "ecdsa-p256-sha256": bytes.fromhex("300a06082a8648ce3d040302"),  # RFC 5758 section 3.2
    "ecdsa-p384-sha384": bytes.fromhex("300a06082a8648ce3d040303"),
    "ed25519": bytes.fromhex("300506032b6570"),  # RFC 8410 section 3
    "rsa-pkcs1-3072-sha256": bytes.fromhex("300d06092a864886f70d01010b0500"),  # RFC 4055 section 5
    "ml-dsa-65": bytes.fromhex("300b0609608648016503040312"),  # RFC 9881 section 2
}
_STAND_IN_SEED = bytes(32)
_PYCA_ERRORS = (
    ValueError,  # also InvalidVersion's and most of what the parser says
    TypeError,
    OverflowError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


class Unsigned(msgspec.Struct, frozen=True):
    """What is to be signed, and the DER AlgorithmIdentifier to stand beside the signature."""

    tbs: bytes
    algorithm: bytes


class LeafFields(msgspec.Struct, frozen=True, kw_only=True):
    """An end-entity certificate; ``spki`` is a DER SubjectPublicKeyInfo.

    Without ``common_name`` the subject is empty and the names alone say who it is.
    """

    spki: bytes
    serial: int
    profile: Profile
    dns: tuple[str, ...]
    common_name: str | None
    not_before_s: int
    not_after_s: int


class RootFields(msgspec.Struct, frozen=True, kw_only=True):
    """An authority's certificate for itself; ``dns_suffixes`` become its name constraints."""

    spki: bytes
    serial: int
    common_name: str
    dns_suffixes: tuple[str, ...]
    not_before_s: int
    not_after_s: int


class Revoked(msgspec.Struct, frozen=True, kw_only=True):
    """One entry of a CRL (RFC 5280 section 5.3)."""

    serial: int
    revoked_at_s: int
    reason: Reason = "unspecified"


class CrlFields(msgspec.Struct, frozen=True, kw_only=True):
    """A complete CRL (RFC 5280 section 5); ``number`` grows with every CRL of the authority."""

    number: int
    this_update_s: int
    next_update_s: int
    revoked: tuple[Revoked, ...]


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A request whose signature by its own key held; other requested extensions are not here."""

    spki: bytes
    common_name: str | None
    dns: tuple[str, ...]
    ip: tuple[str, ...]


class CertificateFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate says; whether its signature holds is for the caller to find out.

    ``permitted_dns``: the DNS subtrees of its name constraints, ``None`` where it has none.
    """

    spki: bytes
    serial: int
    common_name: str | None
    dns: tuple[str, ...]
    is_ca: bool
    permitted_dns: tuple[str, ...] | None
    subject_key_id: bytes | None
    authority_key_id: bytes | None
    not_before_s: int
    not_after_s: int


def leaf_tbs(fields: LeafFields, *, issuer: bytes, algorithm: str) -> Unsigned:
    """The TBSCertificate of an end entity, with the extensions of RFC 5280 section 4.2.

    ``issuer`` is the DER certificate of the authority, ``algorithm`` the component it signs with.
    Key usage is ``digitalSignature`` alone: TLS 1.3 and the ECDHE suites of TLS 1.2 need no other.

    Raises:
        MalformedRequest: a field that X.509 cannot carry.
    """
    authority = _certificate(issuer)
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in fields.dns])
    try:
        builder = (
            x509.CertificateBuilder()
            .issuer_name(authority.subject)
            .subject_name(_name(fields.common_name))
            .public_key(_public_key(fields.spki))
            .serial_number(fields.serial)
            .not_valid_before(_utc(fields.not_before_s))
            .not_valid_after(_utc(fields.not_after_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(digital_signature=True), critical=True)
            .add_extension(x509.ExtendedKeyUsage([_USAGES[fields.profile]]), critical=False)
            # section 4.2.1.6: critical exactly where the subject is empty
            .add_extension(names, critical=fields.common_name is None)
            .add_extension(_authority_key_id(authority), critical=False)
            .add_extension(_subject_key_id(fields.spki), critical=False)
        )
    except _PYCA_ERRORS as exc:
        raise _unfit("certificate") from exc
    return _unsigned(builder, algorithm)


def root_tbs(fields: RootFields, *, algorithm: str) -> Unsigned:
    """The TBSCertificate of an authority about itself: it issues end entities and CRLs, no more.

    DNS suffixes become critical permitted subtrees (RFC 5280 section 4.2.1.10), so that whoever
    trusts the authority trusts it for those names only.

    Raises:
        MalformedRequest: a field that X.509 cannot carry, such as a CN over 64 characters.
    """
    try:
        name = _name(fields.common_name)
        builder = (
            x509.CertificateBuilder()
            .issuer_name(name)
            .subject_name(name)
            .public_key(_public_key(fields.spki))
            .serial_number(fields.serial)
            .not_valid_before(_utc(fields.not_before_s))
            .not_valid_after(_utc(fields.not_after_s))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(issues=True), critical=True)
            .add_extension(_subject_key_id(fields.spki), critical=False)
        )
        if fields.dns_suffixes:
            permitted = [x509.DNSName(suffix) for suffix in fields.dns_suffixes]
            builder = builder.add_extension(
                x509.NameConstraints(permitted_subtrees=permitted, excluded_subtrees=None),
                critical=True,
            )
    except _PYCA_ERRORS as exc:
        raise _unfit("authority's certificate") from exc
    return _unsigned(builder, algorithm)


def crl_tbs(fields: CrlFields, *, issuer: bytes, algorithm: str) -> Unsigned:
    """The TBSCertList of a complete CRL, its entries in the order of their serial numbers.

    A reason of ``unspecified`` is left out, as RFC 5280 section 5.3.1 has it.

    Raises:
        MalformedRequest: a field that X.509 cannot carry.
    """
    authority = _certificate(issuer)
    try:
        # Handed over at once: adding them one by one copies the list each time.
        entries = [_revoked(entry) for entry in sorted(fields.revoked, key=lambda e: e.serial)]
        builder = (
            x509.CertificateRevocationListBuilder(revoked_certificates=entries)
            .issuer_name(authority.subject)
            .last_update(_utc(fields.this_update_s))
            .next_update(_utc(fields.next_update_s))
            .add_extension(_authority_key_id(authority), critical=False)
            .add_extension(x509.CRLNumber(fields.number), critical=False)
        )
    except _PYCA_ERRORS as exc:
        raise _unfit("CRL") from exc
    return _unsigned(builder, algorithm)


def assemble_signed(tbs: bytes, alg_der: bytes, signature: bytes) -> bytes:
    """The DER of ``SEQUENCE { tbs, algorithm, BIT STRING }`` (RFC 5280 sections 4.1 and 5.1)."""
    return _der(_SEQUENCE, tbs + alg_der + _der(_BIT_STRING, b"\0" + signature))


def parse_request(data: bytes | str) -> RequestFacts:
    """Read a PKCS#10 request (RFC 2986), PEM or DER, and hold it to its proof of possession.

    Of the requested extensions only the subject's alternative names count; the rest is the
    profile's to decide.

    Raises:
        MalformedRequest: too long, does not parse, is not signed by its own key, a key too weak or
            of a kind not issued for, names that are neither DNS nor IP, or more than one CN.
    """
    raw = data.encode(errors="replace") if isinstance(data, str) else data
    if len(raw) > limits.CSR_BYTES_MAX:
        raise MalformedRequest(
            f"expected a certificate request of at most {limits.CSR_BYTES_MAX} bytes,"
            f" met {len(raw)}"
        )
    try:
        is_pem = raw.lstrip().startswith(b"-----BEGIN")
        request = (x509.load_pem_x509_csr if is_pem else x509.load_der_x509_csr)(raw)
        key, names = request.public_key(), _alternative_names(request.extensions)
        common_name = _common_name(request.subject)
        _check_strength(key)
        holds = _is_modern(request) and request.is_signature_valid
    except _PYCA_ERRORS as exc:
        raise MalformedRequest(
            "expected a PKCS#10 certificate request (RFC 2986), PEM or DER; it does not parse",
            hint="Make one with: openssl req -new -key KEY -subj / -addext subjectAltName=DNS:NAME",
        ) from exc
    if not holds:
        raise MalformedRequest(
            "expected a request signed by the key in it with SHA-2, Ed25519 or ML-DSA; it is not",
            hint="Make the request with the private key that the certificate is for",
        )
    return RequestFacts(spki=_spki(key), common_name=common_name, dns=names[0], ip=names[1])


def parse_certificate(der: bytes) -> CertificateFacts:
    """The facts of a DER certificate (RFC 5280 section 4) that issuing and verifying need.

    Raises:
        MalformedRequest: not a certificate, or a key, name or extension that does not parse.
    """
    certificate = _certificate(der)
    try:
        extensions = certificate.extensions
        constraints = _extension(extensions, x509.BasicConstraints)
        subject_key_id = _extension(extensions, x509.SubjectKeyIdentifier)
        authority_key_id = _extension(extensions, x509.AuthorityKeyIdentifier)
        return CertificateFacts(
            spki=_spki(certificate.public_key()),
            serial=certificate.serial_number,
            common_name=_common_name(certificate.subject),
            dns=_alternative_names(extensions)[0],
            is_ca=constraints is not None and constraints.ca,
            permitted_dns=_permitted_dns(extensions),
            subject_key_id=subject_key_id.digest if subject_key_id else None,
            authority_key_id=authority_key_id.key_identifier if authority_key_id else None,
            not_before_s=int(certificate.not_valid_before_utc.timestamp()),
            not_after_s=int(certificate.not_valid_after_utc.timestamp()),
        )
    except _PYCA_ERRORS as exc:
        raise MalformedRequest("expected an X.509 certificate (RFC 5280), DER") from exc


def pem(der: bytes, label: str) -> str:
    """DER in the armour of RFC 7468, such as label ``CERTIFICATE`` or ``X509 CRL``."""
    text = base64.b64encode(der).decode("ascii")
    lines = [text[at : at + _PEM_LINE] for at in range(0, len(text), _PEM_LINE)]
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""])


# --- the stand-in signature ----------------------------------------------------------------------


def _unsigned(
    builder: x509.CertificateBuilder | x509.CertificateRevocationListBuilder, algorithm: str
) -> Unsigned:
    identifier = _SIGNATURES.get(algorithm)
    if identifier is None:
        raise MalformedRequest(
            f"no X.509 signature by {algorithm[:64]!r}", hint="Known: " + ", ".join(_SIGNATURES)
        )
    signed = builder.sign(ed25519.Ed25519PrivateKey.from_private_bytes(_STAND_IN_SEED), None)
    if isinstance(signed, x509.Certificate):
        tbs = signed.tbs_certificate_bytes
    else:
        tbs = signed.tbs_certlist_bytes
    # The first SEQUENCE inside either is `signature`: only [0] and INTEGERs stand before it.
    start, end = _content(tbs, 0)
    at = start
    while tbs[at] != _SEQUENCE:
        at = _content(tbs, at)[1]
    behind = _content(tbs, at)[1]
    return Unsigned(_der(_SEQUENCE, tbs[start:at] + identifier + tbs[behind:end]), identifier)


# --- DER, as far as it is needed -----------------------------------------------------------------


def _der(tag: int, body: bytes) -> bytes:
    """One tag-length-value with the shortest length (ITU-T X.690 section 10.1)."""
    if len(body) < 0x80:  # noqa: PLR2004  the short form ends at 127
        return bytes([tag, len(body)]) + body
    size = len(body).to_bytes((len(body).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + body


def _content(der: bytes, at: int) -> tuple[int, int]:
    """Where the content of the element at ``at`` begins and ends; only for bytes pyca encoded."""
    first = der[at + 1]
    if first < 0x80:  # noqa: PLR2004  as in _der
        return at + 2, at + 2 + first
    start = at + 2 + (first & 0x7F)
    return start, start + int.from_bytes(der[at + 2 : start], "big")


# --- pieces --------------------------------------------------------------------------------------


def _certificate(der: bytes) -> x509.Certificate:
    try:
        return x509.load_der_x509_certificate(der)
    except _PYCA_ERRORS as exc:
        raise MalformedRequest("expected an X.509 certificate (RFC 5280), DER") from exc


def _public_key(spki: bytes) -> CertificatePublicKeyTypes:
    key = serialization.load_der_public_key(spki)
    _check_strength(key)
    return key  # type: ignore[return-value]  # the kinds that _check_strength lets through


def _spki(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _check_strength(key: object) -> None:
    if isinstance(key, rsa.RSAPublicKey):
        exponent = key.public_numbers().e
        fits = limits.RSA_BITS_MIN <= key.key_size <= limits.RSA_BITS_MAX
        if not fits or exponent < limits.RSA_EXPONENT_MIN:
            raise MalformedRequest(
                f"expected an RSA key of {limits.RSA_BITS_MIN} to {limits.RSA_BITS_MAX} bits with"
                f" an exponent of at least {limits.RSA_EXPONENT_MIN},"
                f" met {key.key_size} bits and {min(exponent, 2**64)}"
            )
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if not isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
            raise MalformedRequest(f"expected curve P-256 or P-384, met {key.curve.name}")
    elif not isinstance(
        key,
        ed25519.Ed25519PublicKey
        | mldsa.MLDSA44PublicKey
        | mldsa.MLDSA65PublicKey
        | mldsa.MLDSA87PublicKey,
    ):
        raise MalformedRequest("expected an RSA, P-256, P-384, Ed25519 or ML-DSA key, met another")


def _is_modern(request: x509.CertificateSigningRequest) -> bool:
    """Whether the request's own signature does without MD5 and SHA-1."""
    used = request.signature_hash_algorithm
    return used is None or isinstance(used, hashes.SHA256 | hashes.SHA384 | hashes.SHA512)


def _alternative_names(extensions: x509.Extensions) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names = _extension(extensions, x509.SubjectAlternativeName)
    if names is None:
        return (), ()
    if not all(isinstance(name, x509.DNSName | x509.IPAddress) for name in names):
        raise MalformedRequest(
            "expected alternative names that are DNS names or IP addresses, met another kind"
        )
    addresses = names.get_values_for_type(x509.IPAddress)
    return tuple(names.get_values_for_type(x509.DNSName)), tuple(map(str, addresses))


def _permitted_dns(extensions: x509.Extensions) -> tuple[str, ...] | None:
    constraints = _extension(extensions, x509.NameConstraints)
    if constraints is None or constraints.permitted_subtrees is None:
        return None
    found = [n.value for n in constraints.permitted_subtrees if isinstance(n, x509.DNSName)]
    return tuple(found) or None  # subtrees of other kinds say nothing of DNS names


def _extension(extensions: x509.Extensions, kind: type[_T]) -> _T | None:
    try:
        return extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _common_name(name: x509.Name) -> str | None:
    found = name.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(found) > 1:
        raise MalformedRequest(f"expected at most one common name, met {len(found)}")
    return str(found[0].value) if found else None


def _name(common_name: str | None) -> x509.Name:
    if common_name is None:
        return x509.Name([])
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _utc(seconds: int) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except OSError as exc:  # gmtime(3) fails past the years an int holds: EOVERFLOW
        raise OverflowError("no such instant") from exc


def _key_usage(*, digital_signature: bool = False, issues: bool = False) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=issues,
        encipher_only=False,
        decipher_only=False,
    )


def _subject_key_id(spki: bytes) -> x509.SubjectKeyIdentifier:
    """RFC 7093 section 2, method 1: 160 bits of the SHA-256 of the key's bit string."""
    start, _ = _content(spki, 0)
    _, bits = _content(spki, start)  # behind the AlgorithmIdentifier
    content, end = _content(spki, bits)
    unused_bits_octet = 1
    digest = hashlib.sha256(spki[content + unused_bits_octet : end]).digest()
    return x509.SubjectKeyIdentifier(digest[:20])


def _authority_key_id(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    found = _extension(issuer.extensions, x509.SubjectKeyIdentifier)
    if found is None:
        raise MalformedRequest("expected an authority's certificate with a subject key identifier")
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(found)


def _revoked(entry: Revoked) -> x509.RevokedCertificate:
    builder = (
        x509.RevokedCertificateBuilder()
        .serial_number(entry.serial)
        .revocation_date(_utc(entry.revoked_at_s))
    )
    if entry.reason != "unspecified":
        builder = builder.add_extension(
            x509.CRLReason(x509.ReasonFlags(entry.reason)), critical=False
        )
    return builder.build()


def _unfit(what: str) -> MalformedRequest:
    return MalformedRequest(
        f"expected names, dates and numbers that a {what} can carry (RFC 5280), met others"
    )
