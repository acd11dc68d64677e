"""What operators read of keys, handles and tenants: the snapshot as it stands, nothing else."""

from __future__ import annotations

from collections import Counter

from keystead import limits
from keystead.errors import MalformedRequest, NotFound
from keystead.keys.commands import (
    HandleInfo,
    KeyInfo,
    ListKeys,
    ListTenants,
    ShowHandle,
    ShowKey,
    TenantInfo,
)
from keystead.keys.model import Key
from keystead.ports import Registry
from keystead.vault.describe import key_info, tenant_info
from keystead.vault.macs import VaultSecrets
from keystead.vault.standing import Standing

__all__ = ["Readings"]


class Readings:
    """All methods run on the loop."""

    def __init__(self, standing: Standing, registry: Registry, secrets: VaultSecrets) -> None:
        self._standing = standing
        self._registry = registry
        self._secrets = secrets

    def seen(
        self, command: ListTenants | ListKeys | ShowKey | ShowHandle, target: Key | None
    ) -> object:
        """The answer to a command that changes nothing; ``target``: the key that it names.

        Raises:
            NotFound, MalformedRequest, StateRolledBack: what is asked for is not there, or is none.
        """
        match command:
            case ListTenants():
                return self._tenants(command)
            case ListKeys():
                return self._list(command)
            case ShowHandle():
                return self._handle_info(command.handle_id)
            case ShowKey():
                return key_info(target or self._standing.snapshot.named(command.name))

    def _list(self, command: ListKeys) -> list[KeyInfo]:
        _check_limit(command.limit)
        snapshot = self._standing.snapshot
        names = sorted(name for name in snapshot.names if name > command.after)
        known = (name for name in names if snapshot.names[name] not in snapshot.foreign)
        keys = (snapshot.named(name) for name in known)
        chosen = [
            key
            for key in keys
            if command.tenant in (None, key.tenant) and command.purpose in (None, key.purpose)
        ]
        return [key_info(key) for key in chosen[: command.limit]]

    def _handle_info(self, handle_id: str) -> HandleInfo:
        row = self._registry.handle(handle_id)
        if row is None:
            raise NotFound(f"no handle {handle_id[:64]!r} was issued")
        self._secrets.check_handle(row)
        snapshot = self._standing.snapshot
        return HandleInfo(
            handle_id=row.id,
            key=snapshot.key(row.key_id).name,
            tenant=row.tenant,
            principal=row.principal,
            issued_ms=row.issued_ms,
        )

    def _tenants(self, command: ListTenants) -> list[TenantInfo]:
        _check_limit(command.limit)
        snapshot = self._standing.snapshot
        keys = Counter(key.tenant for key in snapshot.keys.values())
        names = sorted(name for name in {*keys, *snapshot.tenants} if name > command.after)
        return [
            tenant_info(name, snapshot.tenants.get(name), keys[name])
            for name in names[: command.limit]
        ]


def _check_limit(limit: int) -> None:
    if not 1 <= limit <= limits.LIST_ITEMS_MAX:
        raise MalformedRequest(f"expected a limit from 1 to {limits.LIST_ITEMS_MAX}, met {limit}")
