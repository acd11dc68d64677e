"""What operators ask for: one struct an admin command, the same in JSON, frames and records."""

from __future__ import annotations

from typing import Literal

import msgspec

from keystead.keys.commandbase import CommandBase
from keystead.keys.lifecycle import Move
from keystead.keys.model import Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import (
    ChangePolicy,
    ListHistory,
    RotateKey,
    SetPlan,
    ShowEvidence,
    ShowRollout,
    SteerRollout,
)
from keystead.keys.rollout.plan import Plan
from keystead.keys.stops import (
    EmergencyEnd,
    EmergencyStop,
    PreviewRevoke,
    Revoke,
    ShowEmergency,
)

__all__ = [
    "Command",
    "CountBy",
    "CountRecords",
    "CreateKey",
    "DiscloseRecord",
    "Disclosed",
    "ForgetRecords",
    "Forgotten",
    "FoundRecord",
    "GoOn",
    "HandleInfo",
    "IssueHandle",
    "IssuedHandle",
    "KeyInfo",
    "LimitTenant",
    "ListKeys",
    "ListRecords",
    "ListTenants",
    "LogCounts",
    "LogPage",
    "MoveVersion",
    "ReconcileRecords",
    "Reconciled",
    "RecordInfo",
    "RevokeHandle",
    "RevokeKeyHandles",
    "RevokedLink",
    "SeenMessage",
    "ShowHandle",
    "ShowKey",
    "Tally",
    "TenantInfo",
    "VersionInfo",
    "WentOn",
]


class CreateKey(CommandBase, tag="key.create", frozen=True, kw_only=True):
    """Make a key and its version 1, active at once, as nothing relies on an earlier one.

    ``plan``: of its rollouts, from its first publication on; None: the default of its purpose.
    """

    name: str
    purpose: Purpose
    tenant: str = "default"
    algorithm: str | None = None
    prehashed: bool = False
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    policy: Policy = Policy()
    plan: Plan | None = None


class ListKeys(CommandBase, tag="key.list", frozen=True, kw_only=True):
    """Keys in order of their names, ``limit`` at a time, from after the name ``after``."""

    tenant: str | None = None
    purpose: Purpose | None = None
    after: str = ""
    limit: int = 100


class ShowKey(CommandBase, tag="key.show", frozen=True, kw_only=True):
    """One key with its versions."""

    name: str


class MoveVersion(CommandBase, tag="key.move", frozen=True, kw_only=True):
    """Suspend, resume, deactivate, compromise or destroy one version, or all that may be."""

    name: str
    move: Move
    version: int | None = None
    reason: str


class IssueHandle(CommandBase, tag="handle.issue", frozen=True, kw_only=True):
    """A handle of a key for a principal; ``ttl_s`` is a ``not_after`` by the vault's clock."""

    key: str
    principal: str
    operations: tuple[str, ...] | None = None
    ttl_s: int | None = None
    narrowing: Narrowing = Narrowing()


class RevokeHandle(CommandBase, tag="handle.revoke", frozen=True, kw_only=True):
    """Revoke a handle and all its children, by the id of a link of its chain."""

    link: str
    reason: str


class RevokeKeyHandles(CommandBase, tag="handle.revoke_all", frozen=True, kw_only=True):
    """Revoke all handles of a key: its generation grows."""

    key: str
    reason: str


class ShowHandle(CommandBase, tag="handle.show", frozen=True, kw_only=True):
    """What is known of a handle by its id."""

    handle_id: str


class LimitTenant(CommandBase, tag="tenant.limit", frozen=True, kw_only=True):
    """Set a tenant's budget: at most ``count`` uses in ``per_s`` seconds, on each node."""

    tenant: str
    count: int
    per_s: int = 1
    reason: str


class ListTenants(CommandBase, tag="tenant.list", frozen=True, kw_only=True):
    """Tenants that have a key or a budget of their own, in order of name from after ``after``."""

    after: str = ""
    limit: int = 100


class _Records(CommandBase, frozen=True, kw_only=True):
    """Which records. ``outcome``: a code, or ``denied`` for all but ``ok``.

    Times are Unix milliseconds, from ``since_ms`` to before ``until_ms``; sequences lie between
    ``after`` and ``before``, neither included.
    """

    key: str | None = None
    version: int | None = None
    purpose: Purpose | None = None
    handle_id: str | None = None
    principal: str | None = None
    outcome: str | None = None
    operation: str | None = None
    request_id: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    after: int | None = None
    before: int | None = None


class ListRecords(_Records, tag="log.search", frozen=True, kw_only=True):
    """Records, newest first unless told otherwise, ``limit`` at a time."""

    oldest_first: bool = False
    limit: int = 50


CountBy = Literal["key", "principal", "outcome", "operation", "handle", "purpose", "hour"]
"""What records can be counted by; an hour is named by its first millisecond."""


class CountRecords(_Records, tag="log.count", frozen=True, kw_only=True):
    """How many records have each key, principal, and so on; newest first, a stretch at a time."""

    by: CountBy


class DiscloseRecord(CommandBase, tag="log.disclose", frozen=True, kw_only=True):
    """One record's exact body and its salt, which prove what its entry stands for."""

    seq: int
    reason: str = ""


class ForgetRecords(CommandBase, tag="log.forget", frozen=True, kw_only=True):
    """Erase bodies and salts of uses that are old enough, a batch at a time from after ``after``.

    All that is given narrows, and something must be. ``through``: the last sequence to look at.
    ``dry_run``: only say what it would be.
    """

    before_ms: int | None = None
    key: str | None = None
    handle_id: str | None = None
    principal: str | None = None
    after: int = -1
    through: int | None = None
    dry_run: bool = False
    reason: str


class GoOn(CommandBase, tag="log.go_on", frozen=True, kw_only=True):
    """Use keys although an anchor of the log was not heard: it cannot be had any more."""

    reason: str


class SeenMessage(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an artefact says was signed (base64 in JSON), and when, if it says that.

    Unix milliseconds, from ``since_ms`` to before ``until_ms``; both or neither.
    """

    message: bytes
    since_ms: int | None = None
    until_ms: int | None = None


class Tally(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How many artefacts of one version have a record, have none, or may have had one."""

    recorded: int = 0
    unrecorded: int = 0
    forgotten: int = 0


class ReconcileRecords(CommandBase, tag="log.reconcile", frozen=True, kw_only=True):
    """Which records of a key's uses are of these messages, oldest first, a stretch at a time.

    ``version``: 0 stands for all. Sequences lie between ``after`` and ``before``, neither included.
    With a ``tally`` in place of messages: what came of it all, which becomes a record, and an alert
    if something has none.
    """

    key: str
    version: int = 0
    seen: tuple[SeenMessage, ...] = ()
    after: int = -1
    before: int | None = None
    tally: Tally | None = None


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
    | CountRecords
    | DiscloseRecord
    | ForgetRecords
    | GoOn
    | ReconcileRecords
    | RotateKey
    | SteerRollout
    | SetPlan
    | ChangePolicy
    | ShowRollout
    | ShowEvidence
    | ListHistory
    | Revoke
    | PreviewRevoke
    | EmergencyStop
    | EmergencyEnd
    | ShowEmergency
)


class WentOn(msgspec.Struct, frozen=True, kw_only=True):
    """``without``: what was not heard; empty if the node did not wait for anything."""

    without: str


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
    """One record: its columns, its parsed body, and what the log holds of it, in hex.

    ``state``: ``withheld``: who asks may not read bodies; ``forgotten``: nobody can any more. Of a
    forgotten record handle, principal and request are empty.
    """

    seq: int
    body: dict[str, str | int | bool | None]
    entry: str
    leaf: str
    state: Literal["kept", "forgotten", "withheld"] = "kept"
    time_ms: int = 0
    epoch: int = 0
    operation: str = ""
    outcome: str = ""
    key: str = ""
    name: str = ""
    version: int = 0
    purpose: str = ""
    handle: str = ""
    principal: str = ""
    request: str = ""


class LogPage(msgspec.Struct, frozen=True, kw_only=True):
    """Records as far as one search looked. An empty page may have a next one.

    ``next``: what ``before`` (oldest first: ``after``) is to go on; ``end``: nothing more lies that
    way as of now. ``top``: the last sequence in the log, -1 if it is empty.
    """

    records: tuple[RecordInfo, ...]
    next: int
    end: bool
    top: int


class LogCounts(msgspec.Struct, frozen=True, kw_only=True):
    """Counts by value as far as one look came; ``next``, ``end`` and ``top`` as in a page."""

    counts: dict[str, int]
    next: int
    end: bool
    top: int


class Disclosed(msgspec.Struct, frozen=True, kw_only=True):
    """A record opened: ``entry`` is SHA-256(salt || body); the three are base64 in JSON."""

    seq: int
    body: bytes
    salt: bytes
    entry: bytes


class Forgotten(msgspec.Struct, frozen=True, kw_only=True):
    """What one batch forgot, or would: how many, which sequences and times they span (0 if none).

    ``next``: what ``after`` is to go on, unless ``end``. ``before_ms``: what is younger stays.
    ``scrubbed``: at the end, nothing of it is left in the write-ahead log either.
    """

    count: int
    first_seq: int
    last_seq: int
    first_ms: int
    last_ms: int
    before_ms: int
    next: int
    end: bool
    scrubbed: bool = False


class FoundRecord(msgspec.Struct, frozen=True, array_like=True):
    """The record of a message, which is named by its place in the request."""

    place: int
    seq: int


class Reconciled(msgspec.Struct, frozen=True, kw_only=True):
    """What one look found. ``forgotten``: messages that a record whose salt is gone may be of.

    ``next``: what ``after`` is to go on, unless ``end``. ``top``: the last sequence in the log.
    """

    found: tuple[FoundRecord, ...] = ()
    forgotten: tuple[int, ...] = ()
    next: int = -1
    end: bool = True
    top: int = -1
