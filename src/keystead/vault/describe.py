"""Keys and records as operators and the public see them."""

from __future__ import annotations

from typing import Literal

import msgspec

from keystead.crypto.public import jwk, pem
from keystead.crypto.x509 import pem as armour
from keystead.errors import MalformedRequest, NotFound
from keystead.keys.algorithms import ALGORITHMS, Kind
from keystead.keys.commands import KeyInfo, RecordInfo, TenantInfo, VersionInfo
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Version
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.caching import told_ms
from keystead.keys.rollout.model import Rotation, live, rotation_of
from keystead.keys.tenants import Tenant, budget_of
from keystead.ports import RecordRow

__all__ = [
    "cache_s",
    "certificate",
    "jwks",
    "key_info",
    "public_view",
    "published",
    "record_info",
    "role",
    "tenant_info",
]

_SERVED = frozenset({State.PRE_ACTIVATION, State.ACTIVE, State.SUSPENDED, State.DEACTIVATED})
"""States whose public keys verifiers still need; what a compromised one signed must not verify."""


def _version_info(version: Version) -> VersionInfo:
    signs = ALGORITHMS[version.algorithm].kind is Kind.SIGNATURE
    return VersionInfo(
        number=version.number,
        state=str(version.state),
        algorithm=version.algorithm,
        kid=version.kid,
        created_ms=version.created_ms,
        public_pem=tuple(pem(spki) for spki in version.public) if signs else (),
        certificate_pem=armour(version.certificate, "CERTIFICATE") if version.certificate else None,
        compromised_epoch=version.compromised_epoch,
    )


def key_info(key: Key) -> KeyInfo:
    """A key, as an operator sees it."""
    return KeyInfo(
        id=key.id,
        name=key.name,
        tenant=key.tenant,
        labels=key.labels,
        purpose=str(key.purpose),
        algorithms=key.algorithms,
        prehashed=key.prehashed,
        policy=key.policy,
        generation=key.generation,
        primary=key.primary,
        versions=tuple(map(_version_info, key.versions)),
        revision=key.revision,
        epoch=key.epoch,
        created_ms=key.created_ms,
    )


def role(key: Key, rotation: Rotation | None, version: Version) -> str:
    """What a version is to verifiers: ``current``, ``next``, ``previous``, or nothing of these."""
    rollout = live(rotation)
    if version.number == key.primary:
        return "current"
    if rollout is not None and version.number == rollout.next:
        return "next"
    if version.state in {State.ACTIVE, State.DEACTIVATED}:
        return "previous"
    return ""


def published(key: Key, rotation: Rotation | None) -> tuple[Version, ...]:
    """Versions that verifiers may meet: the current one, the next, then the others, latest first.

    A reader that takes the first one only has the one that does most of the work.
    """
    gone = frozenset(() if rotation is None else rotation.unpublished)
    versions = [v for v in key.versions if v.state in _SERVED and v.number not in gone]
    rank = {"current": 0, "next": 1}
    return tuple(
        sorted(versions, key=lambda v: (rank.get(role(key, rotation, v), len(rank)), -v.number))
    )


def cache_s(key: Key, rotation: Rotation | None) -> int:
    """How long a reader may keep a publication, by the plan that is in force (I12)."""
    return told_ms(key, rotation) // 1000


def public_view(key: Key, rotation: Rotation | None) -> bytes:
    """A key, as anyone may see it: versions with their states, so that verifiers can refuse. JSON.

    ``rules``: of dual versions, until when one good signature is enough.
    """
    rotation = rotation_of(rotation, key.id)
    versions = [
        msgspec.structs.asdict(_version_info(v)) | {"role": role(key, rotation, v)}
        for v in key.versions
    ]
    return msgspec.json.encode(
        {
            "id": key.id,
            "name": key.name,
            "purpose": str(key.purpose),
            "tenant": key.tenant,
            "prehashed": key.prehashed,
            "primary": key.primary,
            "epoch": key.epoch,
            "versions": versions,
            "rules": rotation.rules,
            "unpublished": rotation.unpublished,
        }
    )


def jwks(key: Key, rotation: Rotation | None) -> bytes:
    """The JWK Set (RFC 7517) of a `jwt` key: every version that verifiers may still meet.

    Raises:
        MalformedRequest: a key of another purpose: it is published under no other (I1).
    """
    if key.purpose is not Purpose.JWT:
        raise MalformedRequest(f"key {key.name} is for {key.purpose!s}: it has no JWK Set")
    keys = [
        jwk(ALGORITHMS[v.algorithm].jose or "", v.public[0], v.kid)
        for v in published(key, rotation)
    ]
    return msgspec.json.encode({"keys": keys})


def certificate(key: Key, rotation: Rotation | None) -> bytes:
    """PEM of an authority's certificates: the current one's first, then the next and previous.

    Raises:
        NotFound: the key's versions have none, or none that may be relied on.
    """
    bundle = [
        armour(v.certificate, "CERTIFICATE") for v in published(key, rotation) if v.certificate
    ]
    if not bundle:
        raise NotFound(
            f"key {key.name} has no certificate to rely on",
            hint="Keys for ca have one, unless all their versions are compromised or destroyed",
        )
    return "".join(bundle).encode("ascii")


def tenant_info(name: str, tenant: Tenant | None, keys: int) -> TenantInfo:
    """A tenant's budget and its number of keys, for an operator."""
    rate = budget_of(tenant)
    return TenantInfo(
        tenant=name, count=rate.count, per_s=rate.per_s, own=tenant is not None, keys=keys
    )


def record_info(row: RecordRow, name: str, *, with_body: bool) -> RecordInfo:
    """A record for an auditor; ``name``: its key's."""
    state: Literal["kept", "forgotten", "withheld"] = "kept"
    if row.body is None:
        state = "forgotten"
    elif not with_body:
        state = "withheld"
    return RecordInfo(
        seq=row.seq,
        body=msgspec.json.decode(row.body) if row.body is not None and with_body else {},
        entry=row.entry.hex(),
        leaf=row.leaf.hex(),
        state=state,
        time_ms=row.time_ms,
        epoch=row.epoch,
        operation=row.op,
        outcome=row.outcome,
        key=row.key_id,
        name=name,
        version=row.version,
        purpose=row.purpose,
        handle=row.handle_id,
        principal=row.principal,
        request=row.request_id,
    )
