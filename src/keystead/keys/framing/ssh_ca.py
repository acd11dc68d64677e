"""SSH certificates, built by the vault from a profile (OpenSSH PROTOCOL.certkeys).

A caller brings a public key and says who may use it as whom, for how long; nonce, serial number,
times and the signed blob are the vault's own. OpenSSH takes an empty list of principals for *any*
principal and ``*`` in a host's for a pattern: neither is ever signed.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import Annotated, Literal

from msgspec import Meta

from keystead import limits
from keystead.crypto.ssh import (
    SshPublicKey,
    parse_public_key_line,
    public_key_blob,
    signature_blob,
    wire_string,
    wire_strings,
)
from keystead.errors import LimitExceeded, MalformedRequest, PermissionDenied
from keystead.keys.framing.base import Facts, Framed, Framing, Result, Scene
from keystead.keys.model import SshCaPolicy

__all__ = [
    "SSH_CA",
    "Extension",
    "SignSshCa",
    "SshCaResult",
]

Extension = Literal[
    "permit-X11-forwarding",
    "permit-agent-forwarding",
    "permit-port-forwarding",
    "permit-pty",
    "permit-user-rc",
]
"""What a user's certificate may permit; what it does not name, sshd refuses."""

_DEFAULT_EXTENSIONS: tuple[Extension, ...] = ("permit-pty",)
_TYPES = {"user": 1, "host": 2}  # SSH_CERT_TYPE_USER, SSH_CERT_TYPE_HOST
_NONCE_BYTES = 24
_PRINCIPAL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+:/=-]*\Z")
_HOST = re.compile(r"[a-z0-9][a-z0-9.:-]*\Z")


class SignSshCa(Facts, frozen=True, kw_only=True):
    """What the certificate is to say.

    ``public_key``: an OpenSSH line. ``principals``: login names of a user, names of a host.
    ``extensions``: left out, ``permit-pty`` for a user; a host's certificate has none.
    ``force_command``, ``source_address`` (networks such as 10.0.0.0/8): a user's critical options.
    """

    public_key: str
    type: Literal["user", "host"] = "user"
    key_id: str
    principals: tuple[str, ...]
    lifetime_s: Annotated[int, Meta(ge=1, le=2**40)]
    force_command: str | None = None
    source_address: tuple[str, ...] = ()
    extensions: tuple[Extension, ...] | None = None


class SshCaResult(Result, frozen=True, kw_only=True):
    """``certificate``: the line of a ``-cert.pub`` file; ``serial``: 64 bits in decimal.

    A string, as ssh-keygen shows it, because JSON numbers end at 53 bits for many readers.
    """

    certificate: str
    serial: str
    valid_before_ms: int


def _text(value: str, what: str, bytes_max: int) -> str:
    if not 1 <= len(value.encode(errors="replace")) <= bytes_max or not value.isprintable():
        raise MalformedRequest(f"expected a printable {what} of 1 to {bytes_max} bytes")
    return value


def _principals(facts: SignSshCa, policy: SshCaPolicy) -> tuple[str, ...]:
    """Each once, a host's in lower case; ``ssh`` looks hosts up in lower case."""
    if not 1 <= len(facts.principals) <= limits.SSH_PRINCIPALS_MAX:
        raise MalformedRequest(
            f"expected 1 to {limits.SSH_PRINCIPALS_MAX} principals, met {len(facts.principals)}",
            hint="OpenSSH would take none for any principal at all",
        )
    is_host = facts.type == "host"
    shape = _HOST if is_host else _PRINCIPAL
    names = tuple(dict.fromkeys(p.lower() if is_host else p for p in facts.principals))
    for name in names:
        if len(name) > limits.SSH_PRINCIPAL_BYTES_MAX or not shape.match(name):
            raise MalformedRequest(
                f"expected principals that are {facts.type} names, met {name[:80]!r}",
                hint="Patterns, commas and spaces are not allowed",
            )
        if not _is_allowed(name, policy, is_host=is_host):
            raise PermissionDenied(
                f"the key's policy does not allow the principal {name!r}",
                hint="It allows: " + ", ".join(policy.principals),
            )
    return names


def _is_allowed(name: str, policy: SshCaPolicy, *, is_host: bool) -> bool:
    for allowed in policy.principals:
        if name == (allowed.lower() if is_host else allowed):
            return True
        suffix = allowed[1:].lower()
        if is_host and allowed.startswith("*.") and name.endswith(suffix) and suffix != ".":
            return True
    return False


def _critical_options(facts: SignSshCa) -> bytes:
    """Names in order, each with its value as a string inside a string."""
    options: list[bytes] = []
    if facts.force_command is not None:
        command = _text(facts.force_command, "force_command", limits.SSH_FORCE_COMMAND_BYTES_MAX)
        options.append(wire_strings("force-command", wire_string(command)))
    if facts.source_address:
        options.append(wire_strings("source-address", wire_string(_networks(facts.source_address))))
    return b"".join(options)


def _networks(addresses: tuple[str, ...]) -> str:
    if len(addresses) > limits.SSH_SOURCE_ADDRESSES_MAX:
        raise MalformedRequest(
            f"expected at most {limits.SSH_SOURCE_ADDRESSES_MAX} networks, met {len(addresses)}"
        )
    try:
        networks = [ipaddress.ip_network(address) for address in addresses]
    except ValueError as exc:
        raise MalformedRequest(
            "expected source_address as networks such as 10.0.0.0/8, without host bits"
        ) from exc
    if any("%" in str(network) for network in networks):
        raise MalformedRequest("expected source_address without an interface")
    return ",".join(map(str, networks))


def _extensions(facts: SignSshCa) -> bytes:
    default = _DEFAULT_EXTENSIONS if facts.type == "user" else ()
    chosen = default if facts.extensions is None else facts.extensions
    return b"".join(wire_strings(name, b"") for name in sorted(set(chosen)))


def _check_policy(facts: SignSshCa, policy: SshCaPolicy) -> None:
    if facts.type not in policy.types:
        raise PermissionDenied(
            f"the key's policy allows no {facts.type} certificates",
            hint="It allows: " + ", ".join(policy.types),
        )
    if facts.lifetime_s > policy.lifetime_max_s:
        raise LimitExceeded(
            f"the key's policy allows {policy.lifetime_max_s} s of life, the request asks for"
            f" {facts.lifetime_s} s"
        )
    if facts.type == "host" and (
        facts.force_command is not None or facts.source_address or facts.extensions
    ):
        raise MalformedRequest(
            "expected a host certificate without options and extensions",
            hint="OpenSSH knows none for hosts, and refuses what it does not know",
        )


def _frame(facts: SignSshCa, scene: Scene) -> Framed:
    policy = scene.key.policy.ssh_ca
    if policy is None:
        raise MalformedRequest(f"key {scene.key.name} has no policy of an SSH authority")
    _check_policy(facts, policy)
    subject = parse_public_key_line(facts.public_key)
    authority = public_key_blob(scene.version.public[0])
    if subject.blob == authority:
        raise PermissionDenied("the authority's own key gets no certificate")
    now_s = scene.now_ms // 1000
    # Zero is OpenSSH's serial number for "none given": the top bit is set.
    serial = int.from_bytes(scene.random[_NONCE_BYTES:], "big") | 1 << 63
    message = (
        wire_strings(subject.certificate_type, scene.random[:_NONCE_BYTES])
        + subject.fields
        + serial.to_bytes(8, "big")
        + _TYPES[facts.type].to_bytes(4, "big")
        + wire_strings(
            _text(facts.key_id, "key_id", limits.SSH_KEY_ID_BYTES_MAX),
            wire_strings(*_principals(facts, policy)),
        )
        + (now_s - limits.CERT_BACKDATE_S).to_bytes(8, "big")
        + (now_s + facts.lifetime_s).to_bytes(8, "big")
        + wire_strings(_critical_options(facts), _extensions(facts), b"", authority)
    )

    def finish(signatures: tuple[bytes, ...]) -> SshCaResult:
        signature = signature_blob(scene.version.algorithm, signatures[0])
        return SshCaResult(
            certificate=_line(subject, message + wire_string(signature), facts.key_id),
            serial=str(serial),
            valid_before_ms=(now_s + facts.lifetime_s) * 1000,
        )

    return Framed(message=message, finish=finish)


def _line(subject: SshPublicKey, blob: bytes, key_id: str) -> str:
    encoded = base64.b64encode(blob).decode("ascii")
    return f"{subject.certificate_type} {encoded} {subject.comment or key_id}"


SSH_CA = Framing(facts=SignSshCa, result=SshCaResult, frame=_frame)
