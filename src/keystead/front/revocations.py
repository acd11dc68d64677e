"""What a person asks for in an incident: revocations, their dry run, and emergency stops."""

from __future__ import annotations

import msgspec
from litestar import Response, get, post
from litestar.handlers import HTTPRouteHandler

from keystead.front.desk import TheDesk
from keystead.keys.stops import (
    EmergencyEnd,
    EmergencyInfo,
    EmergencyList,
    EmergencyStop,
    Previewed,
    PreviewRevoke,
    Revoke,
    Revoked,
    ShowEmergency,
)

__all__ = ["BODIES", "HANDLERS"]


@post("/v1/revocations", status_code=200, summary="Revoke keys or handles")
async def revoke(desk: TheDesk) -> Response[Revoked]:
    """Stop all that is chosen in one commit; answered once it holds on every node."""
    return await desk.ask(await desk.body(Revoke))


@post("/v1/revocations/preview", status_code=200, summary="See what a revocation would stop")
async def preview_revoke(desk: TheDesk) -> Response[Previewed]:
    """A page of the keys and handles that would stop, and how often each was used in 24 h."""
    return await desk.ask(await desk.body(PreviewRevoke))


@get("/v1/emergency", summary="List emergency stops")
async def show_emergency(desk: TheDesk) -> Response[EmergencyList]:
    """The emergency stops that are in force."""
    return await desk.ask(ShowEmergency())


@post("/v1/emergency/stop", status_code=200, summary="Stop a tenant, or everything")
async def stop_emergency(desk: TheDesk) -> Response[EmergencyInfo]:
    """No key of the tenant, or of any, is used from now on; nothing of it is started."""
    return await desk.ask(await desk.body(EmergencyStop))


@post("/v1/emergency/end", status_code=200, summary="End an emergency stop")
async def end_emergency(desk: TheDesk) -> Response[EmergencyInfo]:
    """Take a stop back, as it was asked for."""
    return await desk.ask(await desk.body(EmergencyEnd))


HANDLERS: tuple[HTTPRouteHandler, ...] = (
    revoke,
    preview_revoke,
    show_emergency,
    stop_emergency,
    end_emergency,
)
BODIES: dict[str, type[msgspec.Struct]] = {
    "/v1/revocations": Revoke,
    "/v1/revocations/preview": PreviewRevoke,
    "/v1/emergency/stop": EmergencyStop,
    "/v1/emergency/end": EmergencyEnd,
}
"""Path of each `POST` to the type of its body."""
