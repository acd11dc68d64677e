"""Keys, versions and their policies as values; the registry stores exactly these, under a MAC."""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from keystead import limits
from keystead.errors import KeyStateError, MalformedRequest, NotFound
from keystead.keys.lifecycle import State
from keystead.keys.purposes import Purpose

__all__ = [
    "Ack",
    "CaPolicy",
    "FirmwarePolicy",
    "JwtPolicy",
    "Key",
    "Policy",
    "Principal",
    "SshCaPolicy",
    "Version",
    "check_context",
    "check_labels",
    "check_name",
]

Ack = Literal["durable", "best_effort"]

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*\Z")
_SEGMENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@:-]*\Z")


class JwtPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the vault holds claims to: its own ``iss``, ``aud`` out of the list if there is one."""

    issuer: str
    audiences: tuple[str, ...] = ()
    lifetime_max_s: int = 3600


class FirmwarePolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Image names the key signs, and the largest step of a version counter."""

    names: tuple[str, ...]
    step_max: int = 1000


class CaPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Subject of the authority, DNS suffixes it issues under, and lives of certificates."""

    common_name: str
    dns_suffixes: tuple[str, ...]
    lifetime_max_s: int = 90 * 24 * 3600
    own_lifetime_s: int = 10 * 365 * 24 * 3600


class SshCaPolicy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Certificate types and principals of an SSH authority; a ``*.`` principal allows its hosts."""

    types: tuple[Literal["user", "host"], ...] = ("user",)
    principals: tuple[str, ...]
    lifetime_max_s: int = 24 * 3600


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key may do beyond its purpose. Exactly the part of its own purpose may be set."""

    ack: Ack = "durable"
    verify_before_release: bool = False
    jwt: JwtPolicy | None = None
    firmware: FirmwarePolicy | None = None
    ca: CaPolicy | None = None
    ssh_ca: SshCaPolicy | None = None


class Version(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One generated key pair or secret; numbered from 1, never reused.

    ``public``: one DER SubjectPublicKeyInfo (RFC 5280) a component, empty for a secret.
    ``kid``: published key id, the first 22 characters of base64url(SHA-256(...)) over the parts
    of ``public``, each behind its length.
    ``certificate``: DER of the authority's own certificate, for purpose ``ca``.
    ``compromised_epoch``: since when it counts as compromised, also once destroyed; 0: it does not.
    """

    number: int
    state: State
    algorithm: str
    public: tuple[bytes, ...]
    kid: str
    created_ms: int
    certificate: bytes | None = None
    compromised_epoch: int = 0


class Key(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A named thing with one purpose, one tenant, an algorithm policy and a list of versions.

    It takes no field that it does not know: a newer binary's would be lost when it is written back.

    ``generation`` grows when all handles of the key are revoked; ``revision`` with every change;
    ``epoch`` is that of the last change; ``primary`` is the version that does new work.
    """

    id: str
    name: str
    tenant: str
    labels: dict[str, str]
    purpose: Purpose
    algorithms: tuple[str, ...]
    prehashed: bool
    policy: Policy
    generation: int
    primary: int
    versions: tuple[Version, ...]
    revision: int
    epoch: int
    created_ms: int

    def version(self, number: int) -> Version:
        """The version of a number.

        Raises:
            NotFound: the key has no such version.
        """
        if not 1 <= number <= len(self.versions):
            raise NotFound(f"key {self.name} has no version {number}")
        return self.versions[number - 1]

    def primary_version(self) -> Version:
        """The version that does new work.

        Raises:
            KeyStateError: there is none.
        """
        if self.primary == 0:
            raise KeyStateError(f"key {self.name} has no primary version")
        return self.version(self.primary)


class Principal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who acts: a name in a tenant. Roles come from the `Guard`, never from the caller."""

    name: str
    tenant: str


def check_name(name: str, what: str) -> None:
    """Names of keys, tenants, principals and labels: lower case, digits, ``._-``.

    Raises:
        MalformedRequest: empty, too long, or other characters.
    """
    if len(name) > limits.NAME_BYTES_MAX or not _NAME.match(name):
        raise MalformedRequest(
            f"expected a {what} of a-z, 0-9, '.', '_', '-', at most {limits.NAME_BYTES_MAX} bytes",
        )


def check_labels(labels: dict[str, str]) -> None:
    """Labels: a few named values such as service, region, environment.

    Raises:
        MalformedRequest: too many, a bad name, or a value too long or not printable.
    """
    if len(labels) > limits.LABELS_MAX:
        raise MalformedRequest(f"expected at most {limits.LABELS_MAX} labels, met {len(labels)}")
    for name, value in labels.items():
        check_name(name, "label name")
        if not value.isprintable() or len(value.encode()) > limits.LABEL_BYTES_MAX:
            raise MalformedRequest(
                f"expected label values of {limits.LABEL_BYTES_MAX} bytes at most"
            )


def check_context(context: str) -> None:
    """A slash path such as ``web/eu/shop``; no empty, ``.`` or ``..`` part.

    Raises:
        MalformedRequest: empty, too long, too deep, or other characters.
    """
    if not context or len(context) > limits.CONTEXT_BYTES_MAX:
        raise MalformedRequest(
            f"expected a context of 1 to {limits.CONTEXT_BYTES_MAX} bytes, met {len(context)}"
        )
    segments = context.split("/")
    if len(segments) > limits.CONTEXT_SEGMENTS_MAX or not all(map(_SEGMENT.match, segments)):
        raise MalformedRequest(
            "expected a context like web/eu/shop: parts of letters, digits and ._@:- between"
            f" slashes, at most {limits.CONTEXT_SEGMENTS_MAX}",
        )
