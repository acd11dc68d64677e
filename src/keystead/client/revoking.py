"""What operators ask for in an incident: revocations, their dry run, and emergency stops.

A revocation is one change however often it is sent, and is answered once it holds on every node.
"""

from __future__ import annotations

from typing import Literal, TypedDict, TypeVar, Unpack

import msgspec

from keystead.client.admin import Ask
from keystead.client.core import decode
from keystead.client.operations import new_idempotency_key
from keystead.errors import MalformedRequest
from keystead.keys.commandbase import CommandBase
from keystead.keys.purposes import Purpose
from keystead.keys.stops import (
    EmergencyEnd,
    EmergencyInfo,
    EmergencyList,
    EmergencyStop,
    Previewed,
    PreviewRevoke,
    Revoke,
    Revoked,
    What,
)

__all__ = [
    "Chosen",
    "emergency_end",
    "emergency_status",
    "emergency_stop",
    "preview_revoke",
    "revoke",
]

R = TypeVar("R")


class Chosen(TypedDict, total=False):
    """What is revoked, chosen in exactly one way.

    ``what``: ``versions`` (the default), which become ``state``, ``suspended`` or ``compromised``;
    or ``handles``, for good. ``key``: one, with all its versions or one ``version``; ``handle``:
    one handle, by its id or that of a link of its chain; ``purpose`` or ``labels`` (all of them),
    which ``tenant`` narrows; or ``tenant`` alone.
    """

    what: What
    state: Literal["suspended", "compromised"] | None
    key: str | None
    version: int | None
    handle: str | None
    purpose: str | None
    tenant: str | None
    labels: dict[str, str]


def revoke(*, reason: str, **chosen: Unpack[Chosen]) -> Ask[Revoked]:
    """Stop all that is chosen, in one commit under one epoch.

    Raises:
        MalformedRequest: no such purpose or state.
    """
    command = _command({"reason": reason, **chosen}, Revoke)
    return _ask("/v1/revocations", command, Revoked)


def preview_revoke(
    *, after: str = "", handles_after: str = "", **chosen: Unpack[Chosen]
) -> Ask[Previewed]:
    """What a revocation would stop, and how often that was used in 24 h; a page of keys.

    Go on with ``after`` as ``next`` of the page before, until its ``end``. ``handles_after``: the
    id of the handle behind which those of one key go on.

    Raises:
        MalformedRequest: no such purpose or state.
    """
    members: dict[str, object] = {"after": after, "handles_after": handles_after, **chosen}
    command = _command(members, PreviewRevoke)
    return _ask("/v1/revocations/preview", command, Previewed)


def emergency_stop(*, tenant: str | None, reason: str) -> Ask[EmergencyInfo]:
    """No key of the tenant, or (None) of any, is used from now on, and nothing of it started."""
    command = EmergencyStop(tenant=tenant, reason=reason)
    return _ask("/v1/emergency/stop", command, EmergencyInfo)


def emergency_end(*, tenant: str | None, reason: str) -> Ask[EmergencyInfo]:
    """Take a stop back, as it was asked for: a tenant's, or (None) that of all."""
    command = EmergencyEnd(tenant=tenant, reason=reason)
    return _ask("/v1/emergency/end", command, EmergencyInfo)


def emergency_status() -> Ask[EmergencyList]:
    """The emergency stops that are in force."""
    return Ask(
        method="GET", path="/v1/emergency", read=lambda reply: decode(reply.body, EmergencyList)
    )


_C = TypeVar("_C", bound=CommandBase)


def _command(members: dict[str, object], form: type[_C]) -> _C:
    given = {"as" if name == "state" else name: value for name, value in members.items()}
    purpose = given.get("purpose")
    if isinstance(purpose, str) and purpose not in set(Purpose):
        raise MalformedRequest(f"no purpose {purpose[:32]!r}", hint="Known: " + ", ".join(Purpose))
    try:
        return msgspec.convert({"do": form.__struct_config__.tag, **given}, form)
    except msgspec.ValidationError as exc:
        raise MalformedRequest(f"expected what can be revoked: {exc}") from None


def _ask(path: str, command: CommandBase, form: type[R]) -> Ask[R]:
    """All of it may be sent again: a change under its key has one effect, a preview has none."""
    members = msgspec.to_builtins(command)
    del members["do"]
    return Ask(
        method="POST",
        path=path,
        body=msgspec.json.encode(members),
        read=lambda reply: decode(reply.body, form),
        idempotency_key=new_idempotency_key(),
    )
