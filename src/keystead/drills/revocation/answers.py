"""Revocations as the drill asks for them, and what their answers say of the fence."""

from __future__ import annotations

from keystead.client import Issued
from keystead.client.admin import Ask
from keystead.client.revoking import revoke
from keystead.drills.revocation.targets import Target
from keystead.drills.revocation.trace import Stopped
from keystead.keys.stops import Revoked

__all__ = ["OPERATION", "revocation", "stopped"]

OPERATION = "revoke"
"""What the record of a revocation is called."""


def revocation(target: Target, issued: Issued, reason: str) -> Ask[Revoked]:
    """The request that stops a target. ``issued``: its handle."""
    match target.kind:
        case "link":
            return revoke(what="handles", handle=issued.link, reason=reason)
        case "handle":
            return revoke(what="handles", handle=issued.handle_id, reason=reason)
        case "handles":
            return revoke(what="handles", key=target.key, reason=reason)
        case "suspended" | "compromised":
            return revoke(key=target.key, state=target.kind, reason=reason)


def stopped(target: Target, told: Revoked, *, sent_ns: int, answered_ns: int) -> Stopped:
    """What an answer says, with the times that it was measured at."""
    fence, best_effort = told.fence, told.best_effort
    return Stopped(
        target=target.number,
        sent_ns=sent_ns,
        answered_ns=answered_ns,
        node=fence.node,
        seq=fence.seq,
        epoch=fence.epoch,
        commit_ms=fence.commit_ms,
        bound_ms=None if best_effort is None else best_effort.bound_ms,
        ended_ms=None if best_effort is None else best_effort.ended_ms,
    )
