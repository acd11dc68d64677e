"""Certificates and CRLs of an authority, built by the vault from a profile (RFC 5280).

A caller brings a request signed by the key it is for, or a list of revoked serial numbers; subject,
extensions, serial number and times are the vault's own. Every DNS name stands under a suffix of the
key's policy, and the authority's certificate says the same as name constraints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from keystead import limits
from keystead.crypto.x509 import (
    CertificateFacts,
    CrlFields,
    LeafFields,
    Profile,
    Reason,
    Revoked,
    RootFields,
    Unsigned,
    assemble_signed,
    crl_tbs,
    leaf_tbs,
    parse_certificate,
    parse_request,
    pem,
    root_tbs,
)
from keystead.errors import (
    InvariantViolation,
    KeyStateError,
    LimitExceeded,
    MalformedRequest,
    PermissionDenied,
)
from keystead.keys.framing.base import CounterStep, Facts, Framed, Framing, Result, Scene
from keystead.keys.model import CaPolicy, Key, Version

__all__ = [
    "CA",
    "CaResult",
    "CertificateRequest",
    "CrlRequest",
    "RevokedEntry",
    "SignCa",
    "check_dns_name",
    "is_under",
    "self_signed_frame",
]

_COUNTER = "crl"
_COUNTER_BYTES = 8
_COMMON_NAME_MAX = 64  # ub-common-name of RFC 5280 appendix A.1
_DNS_BYTES_MAX = 253  # RFC 1035 section 2.3.4, written with dots
_SERIAL_BYTES = 20
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\Z")  # RFC 1123 section 2.1
_SERIAL = re.compile(r"[0-9a-fA-F]{1,40}\Z")

_Seconds = Annotated[int, Meta(ge=1, le=2**40)]


class CertificateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the certificate is to say.

    ``csr``: PKCS#10 in PEM (RFC 2986). ``dns``, ``ip``: the names; left out, the request's own.
    ``lifetime_s``: from now to ``notAfter``.
    """

    csr: str
    profile: Profile = "server"
    dns: tuple[str, ...] | None = None
    ip: tuple[str, ...] | None = None
    lifetime_s: _Seconds


class RevokedEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One revoked certificate: serial number in hex, seconds since 1970, CRLReason."""

    serial: str
    revoked_at_s: Annotated[int, Meta(ge=0, le=2**40)]
    reason: Reason = "unspecified"


class CrlRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is revoked: a CRL stands alone. ``lifetime_s``: from now to ``nextUpdate``."""

    revoked: tuple[RevokedEntry, ...]
    lifetime_s: _Seconds = 24 * 3600


class SignCa(Facts, frozen=True, kw_only=True):
    """A certificate or a CRL: exactly one of them."""

    certificate: CertificateRequest | None = None
    crl: CrlRequest | None = None


class CaResult(Result, frozen=True, kw_only=True):
    """What was issued, as DER in ``certificate`` or ``crl`` and as PEM in ``pem``.

    Of a certificate, ``serial`` is lower-case hex and ``not_after_ms`` its end; of a CRL,
    ``number`` is its CRL number and ``next_update_ms`` when the next is due.
    """

    pem: str
    certificate: bytes | None = None
    serial: str | None = None
    not_after_ms: int | None = None
    crl: bytes | None = None
    number: int | None = None
    next_update_ms: int | None = None


def check_dns_name(name: str, *, wildcard: bool = True) -> str:
    """The name in lower case, of letters, digits and hyphens (RFC 5280 4.2.1.6, RFC 1123 2.1).

    ``*`` is allowed as the whole leftmost label only (RFC 6125 section 6.4.3), if at all.

    Raises:
        MalformedRequest: other characters, an empty or overlong label, or a bare ``*``.
    """
    lower = name.lower()
    base = lower.removeprefix("*.") if wildcard else lower
    if len(lower) > _DNS_BYTES_MAX or not all(map(_LABEL.match, base.split("."))):
        raise MalformedRequest(
            f"expected a DNS name such as www.shop.example, met {name[:80]!r}",
            hint="Write international names in their xn-- form; * stands only as the first label",
        )
    return lower


def is_under(name: str, suffixes: Iterable[str]) -> bool:
    """Whether a lower-case name is a suffix or below one, by whole labels; ``*.`` is below."""
    base = name.removeprefix("*.")
    return any(base == suffix or base.endswith("." + suffix) for suffix in suffixes)


def self_signed_frame(key: Key, version: Version, now_ms: int, random: bytes) -> Framed:
    """The certificate of a new version for itself: pathLen 0, key and CRL signing, constrained.

    ``version`` has no certificate yet; the result's ``certificate`` becomes it. ``random``: 32
    fresh bytes. DNS suffixes of the policy become name constraints (RFC 5280 section 4.2.1.10).

    Raises:
        MalformedRequest: the policy's common name, suffixes or life do not fit a certificate.
    """
    policy = _policy(key)
    now_s = now_ms // 1000
    not_after_s = now_s + policy.own_lifetime_s
    if not 1 <= len(policy.common_name) <= _COMMON_NAME_MAX or not policy.common_name.isprintable():
        raise MalformedRequest(
            f"expected a printable common_name of 1 to {_COMMON_NAME_MAX} characters"
        )
    if policy.own_lifetime_s <= 0:
        raise MalformedRequest(f"expected own_lifetime_s above 0, met {policy.own_lifetime_s}")
    fields = RootFields(
        spki=version.public[0],
        serial=_serial(random),
        common_name=policy.common_name,
        dns_suffixes=_suffixes(policy),
        not_before_s=now_s - limits.CERT_BACKDATE_S,
        not_after_s=not_after_s,
    )
    unsigned = root_tbs(fields, algorithm=version.algorithm)
    return _framed_certificate(unsigned, fields.serial, not_after_s)


# --- certificates --------------------------------------------------------------------------------


def _certificate(asked: CertificateRequest, scene: Scene) -> Framed:
    policy = _policy(scene.key)
    issuer_der, issuer = _issuer(scene)
    now_s = scene.now_ms // 1000
    not_after_s = now_s + asked.lifetime_s
    _check_lifetime(asked.lifetime_s, policy, issuer.not_after_s - now_s)
    request = parse_request(asked.csr)
    if request.spki == issuer.spki:
        raise PermissionDenied("the authority's own key gets no certificate of another profile")
    dns = _check_names(
        request.dns if asked.dns is None else asked.dns,
        request.ip if asked.ip is None else asked.ip,
        policy,
        issuer,
    )
    fields = LeafFields(
        spki=request.spki,
        serial=_serial(scene.random),
        profile=asked.profile,
        dns=dns,
        common_name=_kept_common_name(request.common_name, dns),
        not_before_s=now_s - limits.CERT_BACKDATE_S,
        not_after_s=not_after_s,
    )
    unsigned = leaf_tbs(fields, issuer=issuer_der, algorithm=scene.version.algorithm)
    return _framed_certificate(unsigned, fields.serial, not_after_s)


def _check_names(
    dns: tuple[str, ...], ip: tuple[str, ...], policy: CaPolicy, issuer: CertificateFacts
) -> tuple[str, ...]:
    """The DNS names in lower case, each once and in their order."""
    if ip:
        raise PermissionDenied(
            "the key's policy allows no IP addresses in certificates",
            hint='Leave them out of the request, or override them with "ip": []',
        )
    if not 1 <= len(dns) <= limits.CERT_SANS_MAX:
        raise MalformedRequest(
            f"expected 1 to {limits.CERT_SANS_MAX} DNS names, met {len(dns)}",
            hint='Name them in the request\'s subjectAltName or in "dns"; a common name is not one',
        )
    names = tuple(dict.fromkeys(check_dns_name(name) for name in dns))
    suffixes = _suffixes(policy)
    for name in names:
        if not is_under(name, suffixes):
            raise PermissionDenied(
                f"the key's policy does not allow the name {name!r}",
                hint="It allows names under: " + (", ".join(suffixes) or "none"),
            )
        if issuer.permitted_dns is not None and not is_under(name, issuer.permitted_dns):
            raise PermissionDenied(
                f"the authority's certificate is constrained to names other than {name!r}",
                hint="It is older than the policy: rotate the key, then ask again",
            )
    return names


def _check_lifetime(lifetime_s: int, policy: CaPolicy, issuer_left_s: int) -> None:
    if issuer_left_s <= 0:
        raise KeyStateError(
            "the authority's own certificate has ended", hint="Rotate the key, then ask again"
        )
    if lifetime_s > policy.lifetime_max_s:
        raise LimitExceeded(
            f"the key's policy allows {policy.lifetime_max_s} s of life, the request asks for"
            f" {lifetime_s} s"
        )
    if lifetime_s > issuer_left_s:
        raise LimitExceeded(
            f"the authority's own certificate ends in {issuer_left_s} s, the request asks for"
            f" {lifetime_s} s",
            hint="Ask for less, or rotate the key",
        )


def _kept_common_name(common_name: str | None, dns: tuple[str, ...]) -> str | None:
    """A common name is a second place for a name: kept if it repeats one, dropped otherwise."""
    if common_name is None or len(common_name) > _COMMON_NAME_MAX:
        return None
    return common_name.lower() if common_name.lower() in dns else None


def _framed_certificate(unsigned: Unsigned, serial: int, not_after_s: int) -> Framed:
    def finish(signatures: tuple[bytes, ...]) -> CaResult:
        der = assemble_signed(unsigned.tbs, unsigned.algorithm, signatures[0])
        return CaResult(
            pem=pem(der, "CERTIFICATE"),
            certificate=der,
            serial=f"{serial:0{2 * _SERIAL_BYTES}x}",
            not_after_ms=not_after_s * 1000,
        )

    return Framed(message=unsigned.tbs, finish=finish)


# --- CRLs ----------------------------------------------------------------------------------------


def _crl(asked: CrlRequest, scene: Scene) -> Framed:
    if asked.lifetime_s > limits.CRL_LIFETIME_MAX_S:
        raise LimitExceeded(
            f"expected a CRL of at most {limits.CRL_LIFETIME_MAX_S} s, met {asked.lifetime_s} s"
        )
    now_s = scene.now_ms // 1000
    number = _number(scene.counter) + 1
    next_update_s = now_s + asked.lifetime_s
    fields = CrlFields(
        number=number,
        this_update_s=now_s - limits.CERT_BACKDATE_S,
        next_update_s=next_update_s,
        revoked=_entries(asked.revoked, now_s),
    )
    unsigned = crl_tbs(fields, issuer=_issuer(scene)[0], algorithm=scene.version.algorithm)

    def finish(signatures: tuple[bytes, ...]) -> CaResult:
        der = assemble_signed(unsigned.tbs, unsigned.algorithm, signatures[0])
        return CaResult(
            pem=pem(der, "X509 CRL"), crl=der, number=number, next_update_ms=next_update_s * 1000
        )

    step = CounterStep(_COUNTER, scene.counter, number.to_bytes(_COUNTER_BYTES, "big"))
    return Framed(message=unsigned.tbs, finish=finish, step=step)


def _entries(revoked: tuple[RevokedEntry, ...], now_s: int) -> tuple[Revoked, ...]:
    if len(revoked) > limits.CRL_REVOKED_MAX:
        raise LimitExceeded(
            f"expected a CRL of at most {limits.CRL_REVOKED_MAX} entries, met {len(revoked)}",
            hint="Leave out what has expired (RFC 5280 section 3.3)",
        )
    found: dict[int, Revoked] = {}
    for entry in revoked:
        serial = int(entry.serial, 16) if _SERIAL.match(entry.serial) else 0
        if not 0 < serial < 2**limits.SERIAL_BITS_MAX or serial in found:
            raise MalformedRequest(
                "expected serial numbers in hex, positive, of at most 20 octets, each once; met"
                f" {entry.serial[:48]!r}"
            )
        if entry.revoked_at_s > now_s:
            raise MalformedRequest("expected revoked_at_s not after now")
        found[serial] = Revoked(serial=serial, revoked_at_s=entry.revoked_at_s, reason=entry.reason)
    return tuple(found.values())


def _number(counter: bytes | None) -> int:
    if counter is None:
        return 0
    if len(counter) != _COUNTER_BYTES:
        raise InvariantViolation(
            f"expected a CRL counter of {_COUNTER_BYTES} bytes, met {len(counter)}"
        )
    return int.from_bytes(counter, "big")


# --- both ----------------------------------------------------------------------------------------


def _policy(key: Key) -> CaPolicy:
    if key.policy.ca is None:
        raise MalformedRequest(f"key {key.name} has no policy of an authority")
    return key.policy.ca


def _suffixes(policy: CaPolicy) -> tuple[str, ...]:
    """The policy's suffixes as names; ``.shop.example`` is taken for ``shop.example``."""
    return tuple(
        check_dns_name(suffix.removeprefix("."), wildcard=False) for suffix in policy.dns_suffixes
    )


def _serial(random: bytes) -> int:
    """158 random bits under a set one: 20 octets, positive (RFC 5280 section 4.1.2.2)."""
    top = 1 << (limits.SERIAL_BITS_MAX - 1)
    return int.from_bytes(random[:_SERIAL_BYTES], "big") % top | top


def _issuer(scene: Scene) -> tuple[bytes, CertificateFacts]:
    """The version's own certificate, and what it says."""
    certificate = scene.version.certificate
    if certificate is None:
        raise KeyStateError(
            f"version {scene.version.number} of key {scene.key.name} has no certificate of its own"
        )
    facts = parse_certificate(certificate)
    if facts.spki != scene.version.public[0]:
        raise InvariantViolation(
            f"the certificate of version {scene.version.number} of key {scene.key.name} is for"
            " another public key"
        )
    return certificate, facts


def _frame(facts: SignCa, scene: Scene) -> Framed:
    if facts.certificate is not None and facts.crl is None:
        return _certificate(facts.certificate, scene)
    if facts.crl is not None and facts.certificate is None:
        return _crl(facts.crl, scene)
    raise MalformedRequest("expected exactly one of certificate and crl")


def _counter_name(facts: SignCa) -> str | None:
    return None if facts.crl is None else _COUNTER


CA = Framing(facts=SignCa, result=CaResult, frame=_frame, counter_name=_counter_name)
