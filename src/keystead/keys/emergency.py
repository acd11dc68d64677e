"""Emergency stops: one order, and no key of a tenant, or of any, does anything until it is ended.

Nothing of a key changes by it, so that ending it brings everything back as it was. Stop commands,
the log, health and publications go on. The keys of the nodes' own logs are used by no handle and
sign on: an incident is when the log is needed most, and a log that stands still could be cut off.
"""

from __future__ import annotations

import msgspec

from keystead.errors import Conflict
from keystead.keys.administration import check_reason
from keystead.keys.commands import Command, CreateKey, IssueHandle, MoveVersion
from keystead.keys.lifecycle import Move
from keystead.keys.model import Key, check_name
from keystead.keys.rollout.commands import RotateKey, SteerRollout
from keystead.keys.standing import EVERYTHING
from keystead.keys.stops import EmergencyEnd, EmergencyStop

__all__ = ["Emergency", "ended", "starts_in", "stopped"]

_STARTING = frozenset({Move.ACTIVATE, Move.RESUME})


class Emergency(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The stop of one tenant (``*``: of all), in force or ended: since when, by whom, and why."""

    tenant: str
    stopped: bool
    since_ms: int
    by: str
    reason: str
    revision: int


def stopped(before: Emergency | None, command: EmergencyStop, *, by: str, now_ms: int) -> Emergency:
    """The order that a command gives.

    Raises:
        MalformedRequest: no reason, or no tenant's name. Conflict: it is in force already.
    """
    check_reason(command.reason)
    name = _named(command.tenant)
    if before is not None and before.stopped:
        raise Conflict(
            f"{_whose(name)} stopped already", hint="`keystead emergency status` shows since when"
        )
    return Emergency(
        tenant=name,
        stopped=True,
        since_ms=now_ms,
        by=by,
        reason=command.reason,
        revision=1 if before is None else before.revision + 1,
    )


def ended(before: Emergency | None, command: EmergencyEnd, *, by: str, now_ms: int) -> Emergency:
    """The order taken back.

    Raises:
        MalformedRequest: no reason, or no tenant's name. Conflict: none is in force.
    """
    check_reason(command.reason)
    name = _named(command.tenant)
    if before is None or not before.stopped:
        raise Conflict(
            f"{_whose(name)} not stopped by an order of its own",
            hint="`keystead emergency status` shows what is; each is ended as it was asked for",
        )
    return msgspec.structs.replace(
        before,
        stopped=False,
        since_ms=now_ms,
        by=by,
        reason=command.reason,
        revision=before.revision + 1,
    )


def starts_in(command: Command, key: Key | None) -> str | None:
    """The tenant in which a command would start something, which no stopped one lets it.

    ``key``: the key that it names. None: it starts nothing; all that stops is done in an emergency,
    too.
    """
    match command:
        case CreateKey():
            return command.tenant
        case IssueHandle() | RotateKey():
            return key.tenant if key else None
        case MoveVersion() if command.move in _STARTING:
            return key.tenant if key else None
        case SteerRollout() if command.move in {"resume", "promote"}:
            return key.tenant if key else None
        case _:
            return None


def _named(tenant: str | None) -> str:
    if tenant is None:
        return EVERYTHING
    check_name(tenant, "tenant")
    return tenant


def _whose(name: str) -> str:
    return "everything is" if name == EVERYTHING else f"tenant {name} is"
