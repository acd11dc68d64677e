"""The admin API: every route builds one command for the vault, which alone decides who may."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Litestar, Response, get, post
from litestar.datastructures import State
from litestar.di import Provide
from litestar.exceptions import HTTPException, ValidationException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig
from litestar.params import FromPath, FromQuery, QueryParameter

from keystead import limits
from keystead.errors import MalformedRequest, NotFound
from keystead.front import revocations
from keystead.front.desk import AnyRequest, Desk, TheDesk, respond
from keystead.front.problems import Rejection, malformed, reply_of_error
from keystead.keys.commands import (
    CountBy,
    CountRecords,
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
    ListKeys,
    ListRecords,
    ListTenants,
    LogCounts,
    LogPage,
    MoveVersion,
    Reconciled,
    ReconcileRecords,
    RevokedLink,
    RevokeHandle,
    RevokeKeyHandles,
    ShowHandle,
    ShowKey,
    TenantInfo,
    WentOn,
)
from keystead.keys.lifecycle import Move
from keystead.keys.model import Policy
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import (
    ChangedPolicy,
    ChangePolicy,
    EvidenceInfo,
    HistoryPage,
    ListHistory,
    RolloutInfo,
    RotateKey,
    SetPlan,
    ShowEvidence,
    ShowRollout,
    SteerRollout,
)
from keystead.keys.rollout.plan import Plan
from keystead.net.link import VaultLink

__all__ = [
    "BODIES",
    "LONG_BODIES",
    "LimitTenantBody",
    "MoveBody",
    "PlanBody",
    "PolicyBody",
    "RevokeKeyHandlesBody",
    "RotateBody",
    "SteerBody",
    "build_admin",
]

_Limit = Annotated[int, QueryParameter(ge=1, le=limits.LIST_ITEMS_MAX)]
_Number = Annotated[int | None, QueryParameter(ge=0, le=2**63 - 1)]  # what a database can count to
_Ordinal = Annotated[int | None, QueryParameter(ge=1, le=2**63 - 1)]
_After = Annotated[int | None, QueryParameter(ge=-1, le=2**63 - 2)]


class MoveBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Move one version of the key in the path, or all that may be moved."""

    move: Move
    version: int | None = None
    reason: str


class RevokeKeyHandlesBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Revoke every handle of the key in the path."""

    reason: str


class LimitTenantBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the budget of the tenant in the path: ``count`` uses in ``per_s`` seconds a node."""

    count: int
    per_s: int = 1
    reason: str


class RotateBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Make the next version of the key in the path, and start its rollout."""

    plan: Plan | None = None
    algorithm: str | None = None
    incident: bool = False
    weaker: bool = False
    reason: str


class SteerBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Move the rollout of the key in the path that is under way."""

    move: Literal["pause", "resume", "promote", "roll_back"]
    reason: str


class PlanBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the plan of coming rollouts of the key in the path; null: its purpose's default."""

    plan: Plan | None
    weaker: bool = False
    reason: str


class PolicyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Set the policy of the key in the path, whole."""

    policy: Policy
    weaker: bool = False
    reason: str


@post("/v1/keys", status_code=201, summary="Create a key")
async def create_key(desk: TheDesk) -> Response[KeyInfo]:
    """Make a key with its version 1, active at once."""
    return await desk.ask(await desk.body(CreateKey), 201)


@get("/v1/keys", summary="List keys")
async def list_keys(
    desk: TheDesk,
    tenant: FromQuery[str | None] = None,
    purpose: FromQuery[Purpose | None] = None,
    after: FromQuery[str] = "",
    limit: _Limit = 100,
) -> Response[list[KeyInfo]]:
    """Keys in order of their names, from after one."""
    return await desk.ask(ListKeys(tenant=tenant, purpose=purpose, after=after, limit=limit))


@get("/v1/keys/{name:str}", summary="Show a key")
async def show_key(desk: TheDesk, name: FromPath[str]) -> Response[KeyInfo]:
    """One key with its versions."""
    return await desk.ask(ShowKey(name=name))


@post("/v1/keys/{name:str}/moves", status_code=200, summary="Move versions of a key")
async def move_version(desk: TheDesk, name: FromPath[str]) -> Response[KeyInfo]:
    """Suspend, resume, deactivate, compromise or destroy a version, or all that may be."""
    body = await desk.body(MoveBody)
    return await desk.ask(
        MoveVersion(name=name, move=body.move, version=body.version, reason=body.reason)
    )


@post("/v1/keys/{name:str}/rotate", status_code=201, summary="Rotate a key")
async def rotate_key(desk: TheDesk, name: FromPath[str]) -> Response[KeyInfo]:
    """Make the next version, publish it, and start the rollout that brings it into use."""
    body = await desk.body(RotateBody)
    return await desk.ask(
        RotateKey(
            name=name,
            plan=body.plan,
            algorithm=body.algorithm,
            incident=body.incident,
            weaker=body.weaker,
            reason=body.reason,
        ),
        201,
    )


@get("/v1/keys/{name:str}/rollout", summary="Show a rollout")
async def show_rollout(desk: TheDesk, name: FromPath[str]) -> Response[RolloutInfo]:
    """How a key's rollout stands, and what it waits for."""
    return await desk.ask(ShowRollout(name=name))


@post("/v1/keys/{name:str}/rollout", status_code=200, summary="Steer a rollout")
async def steer_rollout(desk: TheDesk, name: FromPath[str]) -> Response[KeyInfo]:
    """Pause, resume, promote or roll back the rollout that is under way."""
    body = await desk.body(SteerBody)
    return await desk.ask(SteerRollout(name=name, move=body.move, reason=body.reason))


@post("/v1/keys/{name:str}/plan", status_code=200, summary="Set a plan")
async def set_plan(desk: TheDesk, name: FromPath[str]) -> Response[ChangedPolicy]:
    """Set the plan of a key's coming rollouts. One that holds them to less must say so."""
    body = await desk.body(PlanBody)
    return await desk.ask(
        SetPlan(name=name, plan=body.plan, weaker=body.weaker, reason=body.reason)
    )


@post("/v1/keys/{name:str}/policy", status_code=200, summary="Change a policy")
async def change_policy(desk: TheDesk, name: FromPath[str]) -> Response[ChangedPolicy]:
    """Set what a key may do beyond its purpose. A policy that allows more must say so."""
    body = await desk.body(PolicyBody)
    return await desk.ask(
        ChangePolicy(name=name, policy=body.policy, weaker=body.weaker, reason=body.reason)
    )


@get("/v1/keys/{name:str}/evidence", summary="Show a rollout's evidence")
async def show_evidence(
    desk: TheDesk, name: FromPath[str], number: _Ordinal = None
) -> Response[EvidenceInfo]:
    """All that one rollout was decided on, by its number; else the last one."""
    return await desk.ask(ShowEvidence(name=name, number=number))


@get("/v1/history", summary="List history")
async def list_history(  # noqa: PLR0917  one argument a query parameter
    desk: TheDesk,
    kind: FromQuery[str | None] = None,
    name: FromQuery[str | None] = None,
    at_seq: _Number = None,
    at_ms: _Number = None,
    before: _Number = None,
    limit: _Limit = 50,
) -> Response[HistoryPage]:
    """Changes of authority and policy, newest first; or what was in force at one point."""
    return await desk.ask(
        ListHistory(kind=kind, name=name, at_seq=at_seq, at_ms=at_ms, before=before, limit=limit)
    )


@post("/v1/handles", status_code=201, summary="Issue a handle")
async def issue_handle(desk: TheDesk) -> Response[IssuedHandle]:
    """A handle of a key for a principal. Its token appears in this answer, and nowhere again."""
    return await desk.ask(await desk.body(IssueHandle), 201)


@get("/v1/handles/{handle_id:str}", summary="Show a handle")
async def show_handle(desk: TheDesk, handle_id: FromPath[str]) -> Response[HandleInfo]:
    """A handle by its id, without its token."""
    return await desk.ask(ShowHandle(handle_id=handle_id))


@post("/v1/handles/revoke", status_code=200, summary="Revoke a handle")
async def revoke_handle(desk: TheDesk) -> Response[RevokedLink]:
    """Revoke a handle and all its children, by the id of a link of its chain."""
    return await desk.ask(await desk.body(RevokeHandle))


@post("/v1/keys/{name:str}/handles/revoke", status_code=200, summary="Revoke a key's handles")
async def revoke_key_handles(desk: TheDesk, name: FromPath[str]) -> Response[KeyInfo]:
    """Revoke every handle of a key: its generation grows."""
    body = await desk.body(RevokeKeyHandlesBody)
    return await desk.ask(RevokeKeyHandles(key=name, reason=body.reason))


@get("/v1/tenants", summary="List tenants")
async def list_tenants(
    desk: TheDesk, after: FromQuery[str] = "", limit: _Limit = 100
) -> Response[list[TenantInfo]]:
    """Tenants that have a key or a budget of their own, in order of their names."""
    return await desk.ask(ListTenants(after=after, limit=limit))


@post("/v1/tenants/{tenant:str}/budget", status_code=200, summary="Limit a tenant")
async def limit_tenant(desk: TheDesk, tenant: FromPath[str]) -> Response[TenantInfo]:
    """Set what a tenant may spend of each node."""
    body = await desk.body(LimitTenantBody)
    return await desk.ask(
        LimitTenant(tenant=tenant, count=body.count, per_s=body.per_s, reason=body.reason)
    )


@get("/v1/log", summary="Search the log")
async def list_records(  # noqa: PLR0913, PLR0917  one argument a query parameter
    desk: TheDesk,
    key: FromQuery[str | None] = None,
    version: _Number = None,
    purpose: FromQuery[Purpose | None] = None,
    handle_id: FromQuery[str | None] = None,
    principal: FromQuery[str | None] = None,
    outcome: FromQuery[str | None] = None,
    operation: FromQuery[str | None] = None,
    request_id: FromQuery[str | None] = None,
    since_ms: _Number = None,
    until_ms: _Number = None,
    after: _After = None,
    before: _Number = None,
    oldest_first: FromQuery[bool] = False,  # noqa: FBT002  given by its name
    limit: _Limit = 50,
) -> Response[LogPage]:
    """A page of records, newest first or oldest first, and where to go on."""
    return await desk.ask(
        ListRecords(
            key=key,
            version=version,
            purpose=purpose,
            handle_id=handle_id,
            principal=principal,
            outcome=outcome,
            operation=operation,
            request_id=request_id,
            since_ms=since_ms,
            until_ms=until_ms,
            after=after,
            before=before,
            oldest_first=oldest_first,
            limit=limit,
        )
    )


@get("/v1/log/counts", summary="Count records")
async def count_records(  # noqa: PLR0913, PLR0917  one argument a query parameter
    desk: TheDesk,
    by: FromQuery[CountBy],
    key: FromQuery[str | None] = None,
    version: _Number = None,
    purpose: FromQuery[Purpose | None] = None,
    handle_id: FromQuery[str | None] = None,
    principal: FromQuery[str | None] = None,
    outcome: FromQuery[str | None] = None,
    operation: FromQuery[str | None] = None,
    request_id: FromQuery[str | None] = None,
    since_ms: _Number = None,
    until_ms: _Number = None,
    after: _After = None,
    before: _Number = None,
) -> Response[LogCounts]:
    """How many records have each value, newest first as far as one look comes; add them up."""
    return await desk.ask(
        CountRecords(
            by=by,
            key=key,
            version=version,
            purpose=purpose,
            handle_id=handle_id,
            principal=principal,
            outcome=outcome,
            operation=operation,
            request_id=request_id,
            since_ms=since_ms,
            until_ms=until_ms,
            after=after,
            before=before,
        )
    )


@post("/v1/log/disclose", status_code=200, summary="Disclose a record")
async def disclose_record(desk: TheDesk) -> Response[Disclosed]:
    """A record's exact body and its salt. The disclosure is a record itself."""
    return await desk.ask(await desk.body(DiscloseRecord))


@post("/v1/log/forget", status_code=200, summary="Forget records")
async def forget_records(desk: TheDesk) -> Response[Forgotten]:
    """Erase bodies and salts, one batch a request. What was forgotten is named in a record."""
    return await desk.ask(await desk.body(ForgetRecords))


@post("/v1/log/go-on", status_code=200, summary="Go on without an anchor")
async def go_on(desk: TheDesk) -> Response[WentOn]:
    """Use keys although an anchor of the log was not heard since the start: a record says so."""
    return await desk.ask(await desk.body(GoOn))


@post(
    "/v1/log/reconcile",
    status_code=200,
    summary="Look for records of what was seen",
    request_max_body_size=limits.LOG_RECONCILE_BODY_BYTES_MAX,
)
async def reconcile_records(desk: TheDesk) -> Response[Reconciled]:
    """Which records are of these messages, a stretch a request; at the end a tally, as a record."""
    return await desk.ask(await desk.body(ReconcileRecords))


_HANDLERS: tuple[HTTPRouteHandler, ...] = (
    create_key,
    list_keys,
    show_key,
    move_version,
    rotate_key,
    show_rollout,
    steer_rollout,
    set_plan,
    change_policy,
    show_evidence,
    list_history,
    issue_handle,
    show_handle,
    revoke_handle,
    revoke_key_handles,
    list_tenants,
    limit_tenant,
    list_records,
    count_records,
    disclose_record,
    forget_records,
    go_on,
    reconcile_records,
    *revocations.HANDLERS,
)
BODIES: dict[str, type[msgspec.Struct]] = {
    "/v1/keys": CreateKey,
    "/v1/keys/{name}/moves": MoveBody,
    "/v1/keys/{name}/rotate": RotateBody,
    "/v1/keys/{name}/rollout": SteerBody,
    "/v1/keys/{name}/plan": PlanBody,
    "/v1/keys/{name}/policy": PolicyBody,
    "/v1/handles": IssueHandle,
    "/v1/handles/revoke": RevokeHandle,
    "/v1/keys/{name}/handles/revoke": RevokeKeyHandlesBody,
    "/v1/tenants/{tenant}/budget": LimitTenantBody,
    "/v1/log/disclose": DiscloseRecord,
    "/v1/log/forget": ForgetRecords,
    "/v1/log/reconcile": ReconcileRecords,
    "/v1/log/go-on": GoOn,
    **revocations.BODIES,
}
"""Path of each `POST` to the type of its body, which the document shows."""
LONG_BODIES = {"/v1/log/reconcile": limits.LOG_RECONCILE_BODY_BYTES_MAX}
"""Paths whose bodies may be longer than an operator's other requests."""


async def _desk(request: AnyRequest, state: State) -> Desk:
    return Desk(state.link, request)


def build_admin(link: VaultLink | None, openapi: OpenAPIConfig | None = None) -> Litestar:
    """The admin API as an ASGI application, quiet; without a link it can only describe itself."""
    return Litestar(
        _HANDLERS,
        dependencies={"desk": Provide(_desk)},
        exception_handlers={Exception: _on_error},
        logging_config=None,
        openapi_config=openapi,
        request_max_body_size=limits.ADMIN_BODY_BYTES_MAX,
        state=State({"link": link}),
    )


def _on_error(request: AnyRequest, exc: Exception) -> Response[Any]:
    if isinstance(exc, HTTPException):
        exc = _translated(exc)
    return respond(request, reply_of_error(exc))


def _translated(exc: HTTPException) -> Exception:
    """Litestar's own refusals in the terms of `errors.py`; its texts may quote the request."""
    match exc.status_code:
        case 404:
            return NotFound("there is nothing at this path", hint="See /openapi.json")
        case 405:
            allow = (exc.headers or {}).get("allow", "")
            return Rejection(
                MalformedRequest("the path does not take this method"),
                status=405,
                reason="method",
                headers=[(b"allow", allow.encode())],
            )
        case status if 400 <= status < 500:  # noqa: PLR2004  the class of a caller's errors
            return MalformedRequest(_complaints(exc))
        case _:
            return exc


def _complaints(exc: HTTPException) -> str:
    found: list[str] = []
    if isinstance(exc, ValidationException) and isinstance(exc.extra, list):
        for item in exc.extra:
            if isinstance(item, dict) and "message" in item:
                said = malformed(msgspec.ValidationError(str(item["message"])))
                found.append(f"{item.get('key', 'request')}: {said.message}")
    return "; ".join(found) or "the request does not parse"
