"""What keys make as it is met in the world: what was signed of it, how, and by which key it says.

Reading is lenient where a verifier must be strict: whoever has stolen a key sets what the vault
never would. Nothing here verifies; :mod:`keystead.keys.signers` finds out who signed.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from enum import StrEnum

import msgspec

from keystead import limits
from keystead.crypto.foreign import (
    COMPONENTS,
    JOSE,
    Scheme,
    SignedObject,
    ecdsa_from_raw,
    read_certificate,
    read_crl,
)
from keystead.crypto.ssh import parse_certificate_line
from keystead.encoding import DECODE_ERRORS
from keystead.errors import MalformedRequest
from keystead.keys.purposes import Purpose

__all__ = [
    "KINDS",
    "Artefact",
    "Kind",
    "Window",
    "certificate",
    "crl",
    "firmware",
    "jwt",
    "ledger_entry",
    "ssh_certificate",
]

_JWT_PARTS = 3
_TIME_MAX_S = 2**53
_B64U = re.compile(r"[A-Za-z0-9_-]+\Z")
_SSH_SCHEMES = {
    "ssh-ed25519": Scheme("ed25519"),
    "ecdsa-sha2-nistp256": Scheme("ecdsa", "sha256"),
}


class Kind(StrEnum):
    """What an artefact is."""

    JWT = "jwt"
    X509 = "x509"
    SSH = "ssh"
    FIRMWARE = "firmware"
    LEDGER = "ledger"


KINDS = {
    Kind.JWT: Purpose.JWT,
    Kind.X509: Purpose.CA,
    Kind.SSH: Purpose.SSH_CA,
    Kind.FIRMWARE: Purpose.FIRMWARE,
    Kind.LEDGER: Purpose.LEDGER,
}
"""Kind of artefact to the purpose of the keys that make it."""


class Window(msgspec.Struct, frozen=True):
    """When it was signed, if the vault signed it: Unix ms, from the first to before the second."""

    since_ms: int
    until_ms: int


class Artefact(msgspec.Struct, frozen=True, kw_only=True):
    """One artefact.

    ``digest``: SHA-256 of it, to name it by. ``message``: what was signed. ``names``: how it names
    its signer: a key id, a hex key identifier, or a wire key in base64; ``bound``: a signature by
    any other key is none. ``close``: where the record nearly always is; ``wide``: where it must be
    by how the vault frames; both None where the artefact has no time.
    """

    kind: Kind
    label: str
    digest: str
    message: bytes
    signatures: tuple[tuple[Scheme, bytes], ...]
    names: tuple[str, ...] = ()
    bound: bool = False
    close: Window | None = None
    wide: Window | None = None


def jwt(token: str) -> Artefact:
    """A JWS in compact serialisation (RFC 7515); claims need be no JSON.

    Raises:
        MalformedRequest: too long, not of three parts, or a header that does not parse.
    """
    parts = token.split(".")
    if len(token) > limits.ARTEFACT_BYTES_MAX or len(parts) != _JWT_PARTS:
        raise MalformedRequest(
            f"expected a token of {_JWT_PARTS} parts and at most {limits.ARTEFACT_BYTES_MAX} bytes"
        )
    header = _members(_loose_b64u(parts[0]))
    if header is None:
        raise MalformedRequest("expected a token whose header is a JSON object (RFC 7515)")
    named, kid = header.get("alg"), header.get("kid")
    names = (kid,) if isinstance(kid, str) else ()
    scheme = JOSE.get(named) if isinstance(named, str) else None
    signatures: tuple[tuple[Scheme, bytes], ...] = ()
    if scheme is not None:
        raw = _loose_b64u(parts[2])
        signatures = ((scheme, ecdsa_from_raw(raw) if scheme.family == "ecdsa" else raw),)
    close, wide = _claimed(parts[1])
    return Artefact(
        kind=Kind.JWT,
        label=f"token, kid {names[0][:64]}" if names else "token without kid",
        digest=_digest(token.encode()),
        message=f"{parts[0]}.{parts[1]}".encode(),
        signatures=signatures,
        names=names,
        close=close,
        wide=wide,
    )


def _claimed(part: str) -> tuple[Window | None, Window | None]:
    """The vault sets ``iat`` to its clock, or takes one that is past, and ``exp`` lies ahead."""
    try:
        claims = _members(_loose_b64u(part)) or {}
    except MalformedRequest:
        return None, None
    issued, expires = claims.get("iat"), claims.get("exp")
    if type(issued) is not int or type(expires) is not int:
        return None, None
    return _windows(issued, issued, expires)


def certificate(der: bytes) -> Artefact:
    """An X.509 certificate (RFC 5280), DER.

    Raises:
        MalformedRequest: too long, or none.
    """
    read = read_certificate(_bounded(der))
    return _x509(read, der, f"certificate {read.serial:x}")


def crl(der: bytes) -> Artefact:
    """A CRL (RFC 5280), DER.

    Raises:
        MalformedRequest: too long, or none.
    """
    return _x509(read_crl(_bounded(der)), der, "CRL")


def _x509(read: SignedObject, der: bytes, label: str) -> Artefact:
    close: Window | None = None
    wide: Window | None = None
    if read.until_s is not None:
        close, wide = _windows(read.from_s + limits.CERT_BACKDATE_S, read.from_s, read.until_s)
    named = read.authority_key_id or read.issuer
    return Artefact(
        kind=Kind.X509,
        label=label,
        digest=_digest(der),
        message=read.tbs,
        signatures=() if read.scheme is None else ((read.scheme, read.signature),),
        names=(named.hex(),),
        close=close,
        wide=wide,
    )


def ssh_certificate(line: str) -> Artefact:
    """The line of an OpenSSH ``-cert.pub`` file. sshd takes a signature by the key in it only.

    Raises:
        MalformedRequest: too long, or none.
    """
    read = parse_certificate_line(line)
    scheme = _SSH_SCHEMES.get(read.algorithm)
    close, wide = _windows(
        read.valid_after_s + limits.CERT_BACKDATE_S, read.valid_after_s, read.valid_before_s
    )
    return Artefact(
        kind=Kind.SSH,
        label=f"certificate, serial {read.serial}",
        digest=_digest(line.encode()),
        message=read.signed,
        signatures=() if scheme is None else ((scheme, read.signature),),
        names=(base64.b64encode(read.authority).decode("ascii"),),
        bound=True,
        close=close,
        wide=wide,
    )


def firmware(manifest: bytes, signatures: Mapping[str, bytes]) -> Artefact:
    """A manifest and its signatures by component; one good signature makes it the key's.

    Raises:
        MalformedRequest: too long.
    """
    members = _members(_bounded(manifest)) or {}
    label = f"manifest of {members.get('name')} version {members.get('version')}"
    return _document(Kind.FIRMWARE, label, manifest, members, signatures)


def ledger_entry(document: bytes, signatures: Mapping[str, bytes]) -> Artefact:
    """A ledger's signed document and its signatures by component.

    Raises:
        MalformedRequest: too long.
    """
    members = _members(_bounded(document)) or {}
    return _document(
        Kind.LEDGER, f"ledger entry {members.get('sequence')}", document, members, signatures
    )


def _document(
    kind: Kind,
    label: str,
    document: bytes,
    members: Mapping[str, object],
    signatures: Mapping[str, bytes],
) -> Artefact:
    kid = members.get("key")
    return Artefact(
        kind=kind,
        label=label[:80],
        digest=_digest(document),
        message=document,
        signatures=tuple(
            (COMPONENTS[name], signature)
            for name, signature in signatures.items()
            if name in COMPONENTS
        ),
        names=(kid,) if isinstance(kid, str) else (),
    )


# --- pieces --------------------------------------------------------------------------------------


def _windows(at_s: int, from_s: int, until_s: int) -> tuple[Window | None, Window | None]:
    """The second ``at_s``, and all of the artefact's life; its ends are the artefact's own word."""
    if not 0 <= from_s < until_s or from_s > _TIME_MAX_S:
        return None, None
    wide = Window(from_s * 1000, min(until_s, _TIME_MAX_S) * 1000)
    return Window(at_s * 1000, (at_s + 1) * 1000), wide


def _bounded(data: bytes) -> bytes:
    if len(data) > limits.ARTEFACT_BYTES_MAX:
        raise MalformedRequest(
            f"expected an artefact of at most {limits.ARTEFACT_BYTES_MAX} bytes, met {len(data)}"
        )
    return data


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _members(data: bytes) -> dict[str, object] | None:
    """The members of a JSON object, as far as a hint needs them; None if it is none."""
    try:
        return msgspec.json.decode(data, type=dict[str, object])
    except DECODE_ERRORS:
        return None


def _loose_b64u(text: str) -> bytes:
    """Base64url as lenient readers take it: padded or not, unused bits as they are."""
    text = text.rstrip("=")
    if not _B64U.match(text):
        raise MalformedRequest("expected base64url (RFC 4648 section 5), met other characters")
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as exc:
        raise MalformedRequest("expected base64url (RFC 4648 section 5)") from exc
