"""OpenSSH's formats as values: wire strings, public keys, signatures (RFC 4251, 4253, 5656, 8709).

What an SSH certificate says is ``keys.framing.ssh_ca``'s; here is what its parts look like.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from keystead import limits
from keystead.errors import MalformedRequest

__all__ = [
    "SshCertificate",
    "SshPublicKey",
    "parse_certificate_line",
    "parse_public_key_line",
    "public_key_blob",
    "public_key_line",
    "signature_blob",
    "wire_mpint",
    "wire_string",
    "wire_strings",
]

_UINT32_BYTES = 4
_TYPE = re.compile(r"[A-Za-z0-9@.-]+\Z")
_CERTIFIED_FIELDS = {
    "ssh-ed25519-cert-v01@openssh.com": 1,
    "ecdsa-sha2-nistp256-cert-v01@openssh.com": 2,
    "ecdsa-sha2-nistp384-cert-v01@openssh.com": 2,
    "ecdsa-sha2-nistp521-cert-v01@openssh.com": 2,
    "ssh-rsa-cert-v01@openssh.com": 2,
    "sk-ssh-ed25519-cert-v01@openssh.com": 2,
    "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com": 3,
}
"""Type of certificate to the number of strings that the certified key is made of."""
_SIGNERS = {"ed25519": "ssh-ed25519", "ecdsa-p256-sha256": "ecdsa-sha2-nistp256"}


class SshPublicKey(msgspec.Struct, frozen=True, kw_only=True):
    """A checked public key: ``blob`` is its wire form, which begins with its type as a string."""

    type: str
    blob: bytes
    comment: str = ""

    @property
    def fields(self) -> bytes:
        """The blob behind its type: the part that a certificate repeats."""
        return self.blob[_UINT32_BYTES + len(self.type) :]

    @property
    def certificate_type(self) -> str:
        """The type of a certificate for such a key (OpenSSH PROTOCOL.certkeys)."""
        return self.type.removesuffix("@openssh.com") + "-cert-v01@openssh.com"


class SshCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """What a certificate says of its own signature; whether it holds is for the caller to find out.

    ``signed``: the bytes that were signed. ``authority``: the wire form of the key that it names as
    its signer. ``algorithm``: SSH's name; ``signature``: ECDSA as DER, all else as it is.
    """

    signed: bytes
    authority: bytes
    algorithm: str
    signature: bytes
    serial: int
    valid_after_s: int
    valid_before_s: int


def wire_string(data: bytes | str) -> bytes:
    """A ``string`` of RFC 4251 section 5: its length in 4 bytes, then its bytes; text is UTF-8."""
    raw = data.encode() if isinstance(data, str) else data
    return len(raw).to_bytes(_UINT32_BYTES, "big") + raw


def wire_strings(*items: bytes | str) -> bytes:
    """Several ``string``, one behind the other."""
    return b"".join(map(wire_string, items))


def wire_mpint(value: int) -> bytes:
    """A non-negative ``mpint`` of RFC 4251 section 5: shortest, its top bit kept clear."""
    return wire_string(value.to_bytes(value.bit_length() // 8 + 1, "big") if value else b"")


def public_key_blob(spki: bytes) -> bytes:
    """The SSH wire form of an Ed25519 (RFC 8709) or P-256 (RFC 5656) DER SubjectPublicKeyInfo.

    Raises:
        MalformedRequest: another kind of key, or not a SubjectPublicKeyInfo.
    """
    try:
        key = load_der_public_key(spki)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise MalformedRequest("expected a DER SubjectPublicKeyInfo (RFC 5280)") from exc
    if isinstance(key, ed25519.Ed25519PublicKey):
        return wire_strings("ssh-ed25519", key.public_bytes_raw())
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        return wire_strings("ecdsa-sha2-nistp256", "nistp256", point)
    raise MalformedRequest("expected an Ed25519 or P-256 key for SSH, met another")


def public_key_line(spki: bytes, comment: str = "") -> str:
    """The line of ``authorized_keys`` and ``known_hosts`` for a DER SubjectPublicKeyInfo.

    Raises:
        MalformedRequest: as :func:`public_key_blob`.
    """
    blob = public_key_blob(spki)
    kind = _Reader(blob).string().decode("ascii")
    return f"{kind} {base64.b64encode(blob).decode('ascii')} {comment}".rstrip()


def parse_public_key_line(line: str) -> SshPublicKey:
    """Read one OpenSSH public key line, ``TYPE BASE64 [COMMENT]``, and check the key itself.

    Types: ``ssh-ed25519``, ``ecdsa-sha2-nistp256``, their ``sk-`` kinds for security keys, and
    ``ssh-rsa`` of 2,048 bits and more. Options before the type, and certificates, are refused.

    Raises:
        MalformedRequest: too long, another type, or a key that is weak, not on its curve, or not
            in its one canonical encoding.
    """
    if len(line) > limits.SSH_LINE_BYTES_MAX:
        raise MalformedRequest(
            f"expected a public key line of at most {limits.SSH_LINE_BYTES_MAX} characters"
        )
    text = line.strip().replace("\t", " ")
    kind, encoded, comment = [*text.split(maxsplit=2), "", "", ""][:3]
    check = _CHECKS.get(kind)
    if check is None or not text.isprintable():  # a second line is not printable either
        shown = kind[:64] if _TYPE.match(kind) else "something else"
        raise MalformedRequest(
            f"expected one line of an OpenSSH public key, met {shown}",
            hint="Take the line of the .pub file; known types: " + ", ".join(_CHECKS),
        )
    try:
        blob = base64.b64decode(encoded, validate=True)
        reader = _Reader(blob)
        fits = reader.string() == kind.encode()
        canonical = fits and check(reader)
    except (binascii.Error, ValueError, EOFError) as exc:
        raise _broken(kind) from exc
    if canonical != blob:  # also what follows the key, and unused bits
        raise _broken(kind)
    return SshPublicKey(type=kind, blob=blob, comment=comment)


def signature_blob(algorithm: str, raw: bytes) -> bytes:
    """A raw signature of a Keystead component as an SSH signature.

    ECDSA comes as DER ECDSA-Sig-Value and becomes two ``mpint`` (RFC 5656 section 3.1.2); Ed25519
    stays as it is (RFC 8709 section 6).

    Raises:
        MalformedRequest: SSH has no such signature here, or it does not parse.
    """
    kind = _SIGNERS.get(algorithm)
    if kind is None:
        raise MalformedRequest(
            f"no SSH signature by {algorithm[:64]!r}", hint="Known: " + ", ".join(_SIGNERS)
        )
    if kind == "ssh-ed25519":
        return wire_strings(kind, raw)
    try:
        r, s = decode_dss_signature(raw)
    except ValueError as exc:
        raise MalformedRequest("expected a DER ECDSA-Sig-Value (RFC 3279)") from exc
    return wire_strings(kind, wire_mpint(r) + wire_mpint(s))


def parse_certificate_line(line: str) -> SshCertificate:
    """Read the line of a ``-cert.pub`` file (OpenSSH PROTOCOL.certkeys).

    Raises:
        MalformedRequest: too long, another type, or bytes that are not one.
    """
    kind, encoded = [*line.split(maxsplit=2), "", ""][:2]
    if len(line) > limits.ARTEFACT_BYTES_MAX or kind not in _CERTIFIED_FIELDS:
        raise MalformedRequest(
            "expected one line of an OpenSSH certificate",
            hint="Take the line of the -cert.pub file",
        )
    try:
        blob = base64.b64decode(encoded, validate=True)
        return _certificate(blob, kind)
    except (binascii.Error, ValueError, EOFError) as exc:
        raise MalformedRequest(f"expected an OpenSSH certificate of type {kind}") from exc


def _certificate(blob: bytes, kind: str) -> SshCertificate:
    reader = _Reader(blob)
    if reader.string() != kind.encode():
        raise ValueError("another type inside than outside")
    for _nonce_and_key in range(1 + _CERTIFIED_FIELDS[kind]):
        reader.string()
    serial, _type = reader.number(8), reader.number(4)
    _key_id, _principals = reader.string(), reader.string()
    valid_after_s, valid_before_s = reader.number(8), reader.number(8)
    _options, _extensions, _reserved = reader.string(), reader.string(), reader.string()
    authority = reader.string()
    signed = reader.taken
    signature = _Reader(reader.string())
    if reader.taken != blob:
        raise ValueError("something follows the signature")
    algorithm, raw = signature.string().decode("ascii"), signature.string()
    return SshCertificate(
        signed=signed,
        authority=authority,
        algorithm=algorithm,
        signature=_ecdsa_as_der(raw) if algorithm.startswith("ecdsa-") else raw,
        serial=serial,
        valid_after_s=valid_after_s,
        valid_before_s=valid_before_s,
    )


def _ecdsa_as_der(raw: bytes) -> bytes:
    pair = _Reader(raw)
    r, s = (int.from_bytes(pair.string(), "big") for _ in range(2))
    return encode_dss_signature(r, s)


class _Reader:
    """Takes ``string`` after ``string`` off a blob; ``EOFError`` when it is too short."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def string(self) -> bytes:
        start = self._at + _UINT32_BYTES
        end = start + int.from_bytes(self._data[self._at : start], "big")
        if end > len(self._data) or start > len(self._data):
            raise EOFError("a string ends behind the end")
        self._at = end
        return self._data[start:end]

    def number(self, size: int) -> int:
        """A big-endian number of so many bytes."""
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise EOFError("a number ends behind the end")
        return int.from_bytes(self._data[start : self._at], "big")

    @property
    def taken(self) -> bytes:
        """All that was taken so far."""
        return self._data[: self._at]


# Each check reads a key behind its type and gives the canonical blob: equal to what came, or wrong.


def _ed25519(reader: _Reader) -> bytes:
    return wire_strings("ssh-ed25519", _ed25519_key(reader))


def _sk_ed25519(reader: _Reader) -> bytes:
    key, application = _ed25519_key(reader), reader.string()
    return wire_strings("sk-ssh-ed25519@openssh.com", key, application)


def _ecdsa(reader: _Reader) -> bytes:
    return wire_strings("ecdsa-sha2-nistp256", "nistp256", _p256_point(reader))


def _sk_ecdsa(reader: _Reader) -> bytes:
    point, application = _p256_point(reader), reader.string()
    return wire_strings("sk-ecdsa-sha2-nistp256@openssh.com", "nistp256", point, application)


def _rsa(reader: _Reader) -> bytes:
    exponent = int.from_bytes(reader.string(), "big")
    modulus = int.from_bytes(reader.string(), "big")
    bits = modulus.bit_length()
    fits = limits.SSH_RSA_BITS_MIN <= bits <= limits.SSH_RSA_BITS_MAX
    if not fits or not limits.RSA_EXPONENT_MIN <= exponent < 2**256:
        raise MalformedRequest(
            f"expected an RSA key of {limits.SSH_RSA_BITS_MIN} to {limits.SSH_RSA_BITS_MAX} bits"
            f" with an exponent of at least {limits.RSA_EXPONENT_MIN}, met {bits} bits",
            hint="Make a new key with: ssh-keygen -t ed25519",
        )
    rsa.RSAPublicNumbers(exponent, modulus).public_key()  # ValueError: even, or out of range
    return wire_string("ssh-rsa") + wire_mpint(exponent) + wire_mpint(modulus)


def _ed25519_key(reader: _Reader) -> bytes:
    return ed25519.Ed25519PublicKey.from_public_bytes(reader.string()).public_bytes_raw()


def _p256_point(reader: _Reader) -> bytes:
    """The point of an ECDSA key, uncompressed and on the curve; ``ValueError`` if it is not."""
    reader.string()  # the curve's name: the canonical blob compares it
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), reader.string())
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


_CHECKS: dict[str, Callable[[_Reader], bytes]] = {
    "ssh-ed25519": _ed25519,
    "ecdsa-sha2-nistp256": _ecdsa,
    "ssh-rsa": _rsa,
    "sk-ssh-ed25519@openssh.com": _sk_ed25519,
    "sk-ecdsa-sha2-nistp256@openssh.com": _sk_ecdsa,
}


def _broken(kind: str) -> MalformedRequest:
    return MalformedRequest(
        f"expected an OpenSSH public key of type {kind}, met bytes that are not one",
        hint="Take the whole line of the .pub file; ssh-keygen -l -f FILE reads it if it is",
    )
