"""What operators ask for, and what anyone may read, one function each; each makes an :class:`Ask`.

A client has a method of the same name that runs it. Those that change something go out under an
idempotency key, and again under the same one: a change has one effect, and its first answer. Only
a handle's token is in no second answer: after a lost one that is a ``Conflict``, which says where
the handle is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, cast
from urllib.parse import quote, urlencode

import msgspec

from keystead.client.core import Call, Flow, Reply, Request, Session, Turn, decode, exchange
from keystead.client.operations import new_idempotency_key
from keystead.errors import MalformedRequest, Unauthenticated
from keystead.keys.commands import (
    CountBy,
    CreateKey,
    Disclosed,
    DiscloseRecord,
    ForgetRecords,
    Forgotten,
    GoOn,
    HandleInfo,
    IssuedHandle,
    IssueHandle,
    KeyInfo,
    LimitTenant,
    LogCounts,
    LogPage,
    MoveVersion,
    Reconciled,
    ReconcileRecords,
    RecordInfo,
    RevokedLink,
    RevokeHandle,
    RevokeKeyHandles,
    SeenMessage,
    Tally,
    TenantInfo,
    WentOn,
)
from keystead.keys.handles import Handle, parse
from keystead.keys.lifecycle import Move
from keystead.keys.model import Policy
from keystead.keys.narrowing import Narrowing
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import (
    ChangedPolicy,
    ChangePolicy,
    EvidenceInfo,
    HistoryPage,
    RolloutInfo,
    RotateKey,
    SetPlan,
    SteerRollout,
)
from keystead.keys.rollout.plan import Plan
from keystead.keys.verify import PublicKey

__all__ = [
    "Ask",
    "Filters",
    "Issued",
    "RevokedLink",
    "Search",
    "certificate",
    "change_policy",
    "count_log",
    "create_key",
    "disclose",
    "forget_records",
    "go_on",
    "history",
    "issue_handle",
    "jwks",
    "limit_tenant",
    "list_keys",
    "list_tenants",
    "log",
    "move_version",
    "public_key",
    "reconcile_records",
    "revoke_handle",
    "revoke_key_handles",
    "rollout_evidence",
    "rollout_status",
    "rotate_key",
    "search_log",
    "set_plan",
    "show_handle",
    "show_key",
    "steer_rollout",
    "tally_reconciled",
]

R = TypeVar("R")
_E = TypeVar("_E", bound=StrEnum)
_Change = (
    CreateKey
    | MoveVersion
    | IssueHandle
    | RevokeHandle
    | RevokeKeyHandles
    | LimitTenant
    | DiscloseRecord
    | ForgetRecords
    | GoOn
    | ReconcileRecords
    | RotateKey
    | SteerRollout
    | SetPlan
    | ChangePolicy
)


class Issued(msgspec.Struct, frozen=True, kw_only=True):
    """A new handle. Its token leaves only by ``handle.reveal()``, and is told this once."""

    handle: Handle
    handle_id: str
    link: str
    key: str
    purpose: str
    operations: tuple[str, ...]
    principal: str


class Ask(Call[R], Generic[R], frozen=True, kw_only=True):
    """One request that is no use of a key. ``operator``: it takes an operator's token.

    ``of_log``: it is of one node's log, so it goes to the first front of the client and to no
    other: there the same sequence is another record.
    """

    method: Literal["GET", "POST"]
    path: str
    read: Callable[[Reply], R]
    body: bytes = b""
    operator: bool = True
    idempotency_key: str | None = None
    of_log: bool = False

    def flow(self, session: Session, turn: Turn) -> Flow[R]:
        """Send it, again as far as the session's policy goes."""
        headers: dict[str, str] = {}
        if self.operator:
            if session.operator is None:
                raise Unauthenticated(
                    "an operator's token is needed", hint="Make the client with operator='kso1...'"
                )
            headers["authorization"] = f"Bearer {session.operator}"
        if self.method == "POST":
            headers["content-type"] = "application/json"
        if self.idempotency_key is not None:
            headers["idempotency-key"] = self.idempotency_key
        request = Request(
            method=self.method,
            path=self.path,
            headers=headers,
            body=self.body,
            repeatable=self.method == "GET" or self.idempotency_key is not None,
        )
        until_s = turn.monotonic_s + session.retry.deadline_s
        only = session.fronts.urls[0] if self.of_log else ""
        reply, _ = yield from exchange(session, lambda _: request, turn, until_s, only=only)
        return self.read(reply)


# --- what anyone may read ------------------------------------------------------------------------


def public_key(name: str) -> Ask[PublicKey]:
    """The public part of a key and of all its versions, to verify with (``keys.verify``)."""
    return _get(f"/v1/keys/{_part(name)}/public", PublicKey, operator=False)


def jwks(name: str) -> Ask[dict[str, Any]]:
    """A key's JSON Web Key Set (RFC 7517)."""
    return _get(f"/v1/keys/{_part(name)}/jwks.json", dict[str, Any], operator=False)


def certificate(name: str) -> Ask[str]:
    """The certificate of an authority's primary version, PEM (RFC 7468)."""
    return Ask(
        method="GET",
        path=f"/v1/keys/{_part(name)}/certificate",
        read=lambda reply: reply.body.decode("ascii", errors="replace"),
        operator=False,
    )


# --- what operators may do -----------------------------------------------------------------------


def create_key(
    name: str,
    purpose: str,
    *,
    policy: Policy | None = None,
    algorithm: str | None = None,
    tenant: str = "default",
    labels: dict[str, str] | None = None,
    prehashed: bool = False,
    plan: Plan | None = None,
) -> Ask[KeyInfo]:
    """Make a key and its first version, active at once; ``plan``: of its rollouts, if its own.

    Raises:
        MalformedRequest: no such purpose.
    """
    command = CreateKey(
        name=name,
        purpose=_one_of(Purpose, purpose),
        tenant=tenant,
        algorithm=algorithm,
        prehashed=prehashed,
        labels=labels or {},
        policy=policy or Policy(),
        plan=plan,
    )
    return _post("/v1/keys", command, KeyInfo)


def list_keys(
    *, tenant: str | None = None, purpose: str | None = None, after: str = "", limit: int = 100
) -> Ask[list[KeyInfo]]:
    """Keys in order of their names, ``limit`` at a time, from after the name ``after``."""
    asked = {"tenant": tenant, "purpose": purpose, "after": after or None, "limit": limit}
    return _get("/v1/keys" + _query(asked), list[KeyInfo])


def show_key(name: str) -> Ask[KeyInfo]:
    """One key with its versions."""
    return _get(f"/v1/keys/{_part(name)}", KeyInfo)


def move_version(name: str, move: str, *, reason: str, version: int | None = None) -> Ask[KeyInfo]:
    """Suspend, resume, deactivate, compromise or destroy a version, or all that may be.

    Raises:
        MalformedRequest: no such move.
    """
    command = MoveVersion(name=name, move=_one_of(Move, move), version=version, reason=reason)
    return _post(f"/v1/keys/{_part(name)}/moves", command, KeyInfo, without="name")


def rotate_key(
    name: str,
    *,
    reason: str,
    plan: Plan | None = None,
    algorithm: str | None = None,
    incident: bool = False,
    weaker: bool = False,
) -> Ask[KeyInfo]:
    """Make the next version of a key and start its rollout; :func:`rollout_status` tells of it.

    ``plan``: for this one rollout; None: the key's own, or its purpose's default. ``incident``: it
    never goes back to the version that it replaces. ``weaker``: that the plan holds this rollout
    to less than the one in force is meant.
    """
    command = RotateKey(
        name=name,
        plan=plan,
        algorithm=algorithm,
        incident=incident,
        weaker=weaker,
        reason=reason,
    )
    return _post(f"/v1/keys/{_part(name)}/rotate", command, KeyInfo, without="name")


def rollout_status(name: str) -> Ask[RolloutInfo]:
    """How a key's rollout stands, and what it waits for."""
    return _get(f"/v1/keys/{_part(name)}/rollout", RolloutInfo)


def steer_rollout(
    name: str, move: Literal["pause", "resume", "promote", "roll_back"], *, reason: str
) -> Ask[KeyInfo]:
    """Move the rollout that is under way; gives the key as it is then."""
    command = SteerRollout(name=name, move=move, reason=reason)
    return _post(f"/v1/keys/{_part(name)}/rollout", command, KeyInfo, without="name")


def set_plan(
    name: str, plan: Plan | None, *, reason: str, weaker: bool = False
) -> Ask[ChangedPolicy]:
    """Set the plan of a key's coming rollouts; None: its purpose's default again.

    ``weaker``: you know that it holds rollouts to less; else such a plan is refused.
    """
    command = SetPlan(name=name, plan=plan, weaker=weaker, reason=reason)
    return _post(f"/v1/keys/{_part(name)}/plan", command, ChangedPolicy, without="name")


def change_policy(
    name: str, policy: Policy, *, reason: str, weaker: bool = False
) -> Ask[ChangedPolicy]:
    """Set a key's policy, whole; ``weaker``: you know that it allows more than before."""
    command = ChangePolicy(name=name, policy=policy, weaker=weaker, reason=reason)
    return _post(f"/v1/keys/{_part(name)}/policy", command, ChangedPolicy, without="name")


def rollout_evidence(name: str, *, number: int | None = None) -> Ask[EvidenceInfo]:
    """All that one rollout of a key was decided on; ``number``: which; None: the last one."""
    return _get(f"/v1/keys/{_part(name)}/evidence" + _query({"number": number}), EvidenceInfo)


def history(
    name: str | None = None,
    *,
    kind: str | None = None,
    at_seq: int | None = None,
    at_ms: int | None = None,
    before: int | None = None,
    limit: int = 50,
) -> Ask[HistoryPage]:
    """Changes of authority and policy, newest first, a page; go on with its ``next``.

    ``at_seq``, ``at_ms``: in place of that, what was in force when that record was made, or then.
    """
    asked: dict[str, str | int | None] = {"kind": kind, "name": name}
    asked |= {"at_seq": at_seq, "at_ms": at_ms, "before": before, "limit": limit}
    return _get("/v1/history" + _query(asked), HistoryPage, of_log=True)


def issue_handle(
    key: str,
    principal: str,
    *,
    operations: tuple[str, ...] | None = None,
    ttl_s: int | None = None,
    narrowing: Narrowing | None = None,
) -> Ask[Issued]:
    """Issue a handle of a key to a principal; ``ttl_s`` seconds from now by the vault's clock."""
    command = IssueHandle(
        key=key,
        principal=principal,
        operations=operations,
        ttl_s=ttl_s,
        narrowing=narrowing or Narrowing(),
    )
    made = _post("/v1/handles", command, IssuedHandle)
    return Ask(
        method=made.method,
        path=made.path,
        body=made.body,
        idempotency_key=made.idempotency_key,
        read=_issued,
    )


def show_handle(handle_id: str) -> Ask[HandleInfo]:
    """What is known of a handle by its id."""
    return _get(f"/v1/handles/{_part(handle_id)}", HandleInfo)


def revoke_handle(link: str, *, reason: str) -> Ask[RevokedLink]:
    """Revoke a handle and all its children, by the id of a link of its chain."""
    return _post("/v1/handles/revoke", RevokeHandle(link=link, reason=reason), RevokedLink)


def revoke_key_handles(key: str, *, reason: str) -> Ask[KeyInfo]:
    """Revoke all handles of a key: its generation grows."""
    command = RevokeKeyHandles(key=key, reason=reason)
    path = f"/v1/keys/{_part(key)}/handles/revoke"
    return _post(path, command, KeyInfo, without="key")


def limit_tenant(tenant: str, count: int, *, reason: str, per_s: int = 1) -> Ask[TenantInfo]:
    """Set a tenant's budget: at most ``count`` uses in ``per_s`` seconds, on each node."""
    command = LimitTenant(tenant=tenant, count=count, per_s=per_s, reason=reason)
    return _post(f"/v1/tenants/{_part(tenant)}/budget", command, TenantInfo, without="tenant")


def list_tenants(*, after: str = "", limit: int = 100) -> Ask[list[TenantInfo]]:
    """Tenants that have a key or a budget of their own, in order of name from after ``after``."""
    asked: dict[str, str | int | None] = {"after": after or None, "limit": limit}
    return _get("/v1/tenants" + _query(asked), list[TenantInfo])


class Filters(TypedDict, total=False):
    """Which records; what is left out does not matter.

    ``outcome``: a code, or ``denied`` for all but ``ok``. Times in Unix milliseconds, from
    ``since_ms`` to before ``until_ms``; sequences between ``after`` and ``before``, neither
    included.
    """

    key: str | None
    version: int | None
    purpose: str | None
    handle_id: str | None
    principal: str | None
    outcome: str | None
    operation: str | None
    request_id: str | None
    since_ms: int | None
    until_ms: int | None
    after: int | None
    before: int | None


def search_log(
    *, oldest_first: bool = False, limit: int = 50, **filters: Unpack[Filters]
) -> Ask[LogPage]:
    """One page of a search: as far as the node looked, and where to go on."""
    order = {"oldest_first": "true" if oldest_first else None, "limit": limit}
    return _get("/v1/log" + _query({**_asked(filters), **order}), LogPage, of_log=True)


def count_log(by: CountBy, **filters: Unpack[Filters]) -> Ask[LogCounts]:
    """Counts by a column, newest first, as far as the node looked at once."""
    asked = _query({"by": by, **_asked(filters)})
    return _get("/v1/log/counts" + asked, LogCounts, of_log=True)


class Search(Call[list[RecordInfo]], frozen=True, kw_only=True):
    """Pages of a search, one after the other, until there are as many records as wanted."""

    filters: Filters
    oldest_first: bool
    limit: int

    def flow(self, session: Session, turn: Turn) -> Flow[list[RecordInfo]]:
        """Ask for page after page."""
        found: list[RecordInfo] = []
        filters = self.filters
        while True:
            ask = search_log(
                oldest_first=self.oldest_first, limit=self.limit - len(found), **filters
            )
            page = yield from ask.flow(session, turn)
            found.extend(page.records)
            if page.end or len(found) >= self.limit:
                return found
            way: Filters = {"after": page.next} if self.oldest_first else {"before": page.next}
            filters = {**filters, **way}


def log(*, oldest_first: bool = False, limit: int = 50, **filters: Unpack[Filters]) -> Search:
    """Records of the log, newest first unless told otherwise, up to ``limit`` (1,000 at most).

    It asks for as many pages as that takes; on a long log without an index for the question
    :func:`search_log` lets its caller see how far it has come.
    """
    return Search(filters=filters, oldest_first=oldest_first, limit=limit)


def disclose(seq: int, *, reason: str = "") -> Ask[Disclosed]:
    """One record's exact body and salt. It is not asked again by itself: each time is recorded."""
    command = DiscloseRecord(seq=seq, reason=reason)
    return _post("/v1/log/disclose", command, Disclosed, once=False, of_log=True)


def forget_records(
    *,
    reason: str,
    before_ms: int | None = None,
    key: str | None = None,
    handle_id: str | None = None,
    principal: str | None = None,
    after: int = -1,
    through: int | None = None,
    dry_run: bool = False,
) -> Ask[Forgotten]:
    """Forget one batch of records, or (``dry_run``) say what would be; go on after ``next``."""
    command = ForgetRecords(
        before_ms=before_ms,
        key=key,
        handle_id=handle_id,
        principal=principal,
        after=after,
        through=through,
        dry_run=dry_run,
        reason=reason,
    )
    return _post("/v1/log/forget", command, Forgotten, once=False, of_log=True)


def go_on(*, reason: str) -> Ask[WentOn]:
    """Have a node use its keys although an anchor of its log was not heard since its start."""
    return _post("/v1/log/go-on", GoOn(reason=reason), WentOn, of_log=True)


def reconcile_records(
    key: str,
    seen: Sequence[SeenMessage],
    *,
    version: int = 0,
    after: int = -1,
    before: int | None = None,
) -> Ask[Reconciled]:
    """Which records of a key are of these messages, as far as one look comes; 256 at the most."""
    command = ReconcileRecords(
        key=key, version=version, seen=tuple(seen), after=after, before=before
    )
    return _post("/v1/log/reconcile", command, Reconciled, of_log=True)


def tally_reconciled(key: str, tally: Tally, *, version: int = 0) -> Ask[Reconciled]:
    """Have what came of it recorded: one without a record is an alert. It is not asked again."""
    command = ReconcileRecords(key=key, version=version, tally=tally)
    return _post("/v1/log/reconcile", command, Reconciled, once=False, of_log=True)


# --- how ---------------------------------------------------------------------------------------


def _get(path: str, form: type[R], *, operator: bool = True, of_log: bool = False) -> Ask[R]:
    return Ask(
        method="GET",
        path=path,
        read=lambda reply: decode(reply.body, form),
        operator=operator,
        of_log=of_log,
    )


def _post(
    path: str,
    command: _Change,
    form: type[R],
    *,
    without: str = "",
    once: bool = True,
    of_log: bool = False,
) -> Ask[R]:
    """A change; ``without``: the member that the path says already.

    ``once``: it has one effect however often it is sent. ``of_log``: as in :class:`Ask`.
    """
    members = msgspec.to_builtins(command)
    left_out = {"do", without}
    body = {name: value for name, value in members.items() if name not in left_out}
    return Ask(
        method="POST",
        path=path,
        body=msgspec.json.encode(body),
        read=lambda reply: decode(reply.body, form),
        idempotency_key=new_idempotency_key() if once else None,
        of_log=of_log,
    )


def _one_of(kind: type[_E], name: str) -> _E:
    try:
        return kind(name)
    except ValueError:
        raise MalformedRequest(
            f"no {kind.__name__.lower()} {name[:32]!r}", hint="Known: " + ", ".join(kind)
        ) from None


def _part(name: str) -> str:
    return quote(name, safe="")


def _asked(filters: Filters) -> dict[str, str | int | None]:
    names = Filters.__annotations__
    return {name: cast("str | int | None", filters.get(name)) for name in names}


def _query(asked: dict[str, str | int | None]) -> str:
    given = {name: value for name, value in asked.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""


def _issued(reply: Reply) -> Issued:
    told = decode(reply.body, IssuedHandle)
    return Issued(
        handle=parse(told.token),
        handle_id=told.handle_id,
        link=told.link,
        key=told.key,
        purpose=told.purpose,
        operations=told.operations,
        principal=told.principal,
    )
