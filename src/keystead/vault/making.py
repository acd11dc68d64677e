"""New keys: material is made off the loop, then key, material and record commit together."""

from __future__ import annotations

import msgspec

from keystead.crypto.public import key_id
from keystead.errors import Conflict, InvariantViolation
from keystead.keys.administration import draft_key
from keystead.keys.commands import CreateKey
from keystead.keys.framing.ca import CaResult, self_signed_frame
from keystead.keys.lifecycle import State
from keystead.keys.model import Key, Version
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.model import Rotation
from keystead.keys.rollout.plan import Plan
from keystead.ports import Clock, Custody, Material, Random, Registry, Transaction
from keystead.translog.entries import Draft
from keystead.vault.authority import Snapshot, key_row, rotation_row
from keystead.vault.committer import Applied
from keystead.vault.macs import VaultSecrets

__all__ = ["KeyMaker", "Made", "commit_made"]

_ID_BYTES = 10
_RANDOM_BYTES = 32


class Made(msgspec.Struct, frozen=True):
    """A key, or a version of one, that is made and not yet committed."""

    key: Key
    material: Material
    tenant_key: bytes
    version: Version


class KeyMaker:
    """Makes keys; the methods that take long are called in a thread."""

    def __init__(self, custody: Custody, registry: Registry, clock: Clock, random: Random) -> None:
        self._custody = custody
        self._registry = registry
        self._clock = clock
        self._random = random

    def new_id(self) -> str:
        """A fresh key id."""
        return "k" + self._random.bytes(_ID_BYTES).hex()

    def draft(self, command: CreateKey) -> tuple[Key, str]:
        """The key without versions, and its algorithm; raises what is wrong with the command."""
        return draft_key(command, key_id=self.new_id(), now_ms=self._clock.now_ms())

    def tenant_key(self, tenant: str) -> bytes:
        """The tenant's sealed key-encryption key, a new one if it has none."""
        return self._registry.tenant_key(tenant) or self._custody.new_tenant_key(tenant)

    def make(self, key: Key, algorithm: str, tenant_key: bytes) -> Made:
        """Version 1 of a key. Slow for RSA: call it in a thread."""
        material = self._custody.generate(key, 1, algorithm, tenant_key)
        version = Version(
            number=1,
            state=State.ACTIVE,
            algorithm=algorithm,
            public=material.public,
            kid=key_id(material.public or (key.id.encode(), b"1")),
            created_ms=key.created_ms,
        )
        if key.purpose is Purpose.CA:
            version = self._certified(key, version, material, tenant_key)
        return Made(
            msgspec.structs.replace(key, versions=(version,)), material, tenant_key, version
        )

    def make_next(self, key: Key, algorithm: str, tenant_key: bytes) -> Made:
        """The key's next version, not active yet; the key itself as it is. As slow as the first."""
        number = len(key.versions) + 1
        material = self._custody.generate(key, number, algorithm, tenant_key)
        version = Version(
            number=number,
            state=State.PRE_ACTIVATION,
            algorithm=algorithm,
            public=material.public,
            kid=key_id(material.public or (key.id.encode(), str(number).encode())),
            created_ms=self._clock.now_ms(),
        )
        if key.purpose is Purpose.CA:
            version = self._certified(key, version, material, tenant_key)
        return Made(key, material, tenant_key, version)

    def _certified(
        self, key: Key, version: Version, material: Material, tenant_key: bytes
    ) -> Version:
        framed = self_signed_frame(
            key, version, version.created_ms, self._random.bytes(_RANDOM_BYTES)
        )
        opened = self._custody.open(key, version, material.sealed, tenant_key)
        try:
            result = framed.finish(opened.sign(framed.message, prehashed=False))
        finally:
            opened.close()
        if not isinstance(result, CaResult) or result.certificate is None:
            raise InvariantViolation("the framing of an authority gave no certificate")
        return msgspec.structs.replace(version, certificate=result.certificate)


def commit_made(
    made: Made,
    draft: Draft,
    secrets: VaultSecrets,
    *,
    tx: Transaction,
    snapshot: Snapshot,
    epoch: int,
    plan: Plan | None = None,
) -> Applied:
    """Inside the commit: the key, its plan, its material, and its tenant's key if that is new.

    Raises:
        Conflict: the name is taken, or another commit made the tenant's key meanwhile.
    """
    if made.key.name in snapshot.names:
        raise Conflict(
            f"there is a key named {made.key.name} already",
            hint="Names are for life; choose another, or use the key that there is",
        )
    stored = tx.tenant_key(made.key.tenant)
    if stored is None:
        tx.put_tenant_key(made.key.tenant, made.tenant_key)
    elif stored != made.tenant_key:
        raise Conflict("the tenant's first key was made at the same time", hint="Send it again")
    key = msgspec.structs.replace(made.key, epoch=epoch)
    tx.put_material(key.id, 1, made.material.sealed)
    draft = msgspec.structs.replace(draft, key=key.id, name=key.name, revision=key.revision)
    rows = [(key_row(key, secrets), 0)]
    if plan is not None:
        rotation = Rotation(key_id=key.id, plan=plan, revision=1, epoch=epoch)
        rows.append((rotation_row(rotation, key.name, secrets), 0))
    return Applied(rows=tuple(rows), drafts=(draft,), value=key)
