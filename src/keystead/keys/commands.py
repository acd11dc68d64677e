"""What operators ask for: one struct an admin command, the same in JSON, frames and records."""

from __future__ import annotations

from typing import Literal

import msgspec

from keystead.keys.lifecycle import Move
from keystead.keys.model import Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose

__all__ = [
    "Command",
    "CreateKey",
    "HandleInfo",
    "IssueHandle",
    "IssuedHandle",
    "KeyInfo",
    "LimitTenant",
    "ListKeys",
    "ListRecords",
    "ListTenants",
    "MoveVersion",
    "RecordInfo",
    "RevokeHandle",
    "RevokeKeyHandles",
    "RevokedLink",
    "ShowHandle",
    "ShowKey",
    "TenantInfo",
    "VersionInfo",
]


class _Command(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="do"
):
    pass


class CreateKey(_Command, tag="key.create", frozen=True, kw_only=True):
    """Make a key and its version 1, active at once, as nothing relies on an earlier one."""

    name: str
    purpose: Purpose
    tenant: str = "default"
    algorithm: str | None = None
    prehashed: bool = False
    labels: dict[str, str] = {}
    policy: Policy = Policy()


class ListKeys(_Command, tag="key.list", frozen=True, kw_only=True):
    """Keys in order of their names, ``limit`` at a time, from after the name ``after``."""

    tenant: str | None = None
    purpose: Purpose | None = None
    after: str = ""
    limit: int = 100


class ShowKey(_Command, tag="key.show", frozen=True, kw_only=True):
    """One key with its versions."""

    name: str


class MoveVersion(_Command, tag="key.move", frozen=True, kw_only=True):
    """Suspend, resume, deactivate, compromise or destroy one version, or all that may be."""

    name: str
    move: Move
    version: int | None = None
    reason: str


class IssueHandle(_Command, tag="handle.issue", frozen=True, kw_only=True):
    """A handle of a key for a principal; ``ttl_s`` is a ``not_after`` by the vault's clock."""

    key: str
    principal: str
    operations: tuple[str, ...] | None = None
    ttl_s: int | None = None
    narrowing: Narrowing = Narrowing()


class RevokeHandle(_Command, tag="handle.revoke", frozen=True, kw_only=True):
    """Revoke a handle and all its children, by the id of a link of its chain."""

    link: str
    reason: str


class RevokeKeyHandles(_Command, tag="handle.revoke_all", frozen=True, kw_only=True):
    """Revoke all handles of a key: its generation grows."""

    key: str
    reason: str


class ShowHandle(_Command, tag="handle.show", frozen=True, kw_only=True):
    """What is known of a handle by its id."""

    handle_id: str


class LimitTenant(_Command, tag="tenant.limit", frozen=True, kw_only=True):
    """Set a tenant's budget: at most ``count`` uses in ``per_s`` seconds, on each node."""

    tenant: str
    count: int
    per_s: int = 1
    reason: str


class ListTenants(_Command, tag="tenant.list", frozen=True, kw_only=True):
    """Tenants that have a key or a budget of their own, in order of name from after ``after``."""

    after: str = ""
    limit: int = 100


class ListRecords(_Command, tag="log.search", frozen=True, kw_only=True):
    """Records, newest first, from before sequence ``before``."""

    key: str | None = None
    handle_id: str | None = None
    outcome: str | None = None
    operation: str | None = None
    request_id: str | None = None
    before: int | None = None
    limit: int = 50


Command = (
    CreateKey
    | ListKeys
    | ShowKey
    | MoveVersion
    | IssueHandle
    | RevokeHandle
    | RevokeKeyHandles
    | ShowHandle
    | LimitTenant
    | ListTenants
    | ListRecords
)


class VersionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A version, as anyone may see it; ``public_pem`` is one PEM a component."""

    number: int
    state: str
    algorithm: str
    kid: str
    created_ms: int
    public_pem: tuple[str, ...]
    certificate_pem: str | None = None
    compromised_epoch: int = 0


class KeyInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A key, as an operator sees it."""

    id: str
    name: str
    tenant: str
    labels: dict[str, str]
    purpose: str
    algorithms: tuple[str, ...]
    prehashed: bool
    policy: Policy
    generation: int
    primary: int
    versions: tuple[VersionInfo, ...]
    revision: int
    epoch: int
    created_ms: int


class IssuedHandle(msgspec.Struct, frozen=True, kw_only=True):
    """The one answer that holds a handle's token."""

    token: str
    handle_id: str
    link: str
    key: str
    purpose: str
    operations: tuple[str, ...]
    principal: str

    def __repr__(self) -> str:
        return f"<IssuedHandle {self.handle_id} of {self.key}>"


class HandleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A handle, without its token."""

    handle_id: str
    key: str
    tenant: str
    principal: str
    issued_ms: int


class TenantInfo(msgspec.Struct, frozen=True, kw_only=True):
    """A tenant's budget; ``own``: somebody set it, else it is the default one."""

    tenant: str
    count: int
    per_s: int
    own: bool
    keys: int


class RevokedLink(msgspec.Struct, frozen=True, kw_only=True):
    """The id of the link that no handle may hold any more."""

    revoked: str


class RecordInfo(msgspec.Struct, frozen=True, kw_only=True):
    """One record: its parsed body, and what the log holds of it, in hex."""

    seq: int
    body: dict[str, str | int | bool | None]
    entry: str
    leaf: str
    state: Literal["kept", "forgotten"] = "kept"
