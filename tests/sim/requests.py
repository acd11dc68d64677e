"""What each operation asks for, on the wire: the facts of a use, or an operator's command."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from keystead.keys.commands import (
    Command,
    IssueHandle,
    MoveVersion,
    RevokeHandle,
    RevokeKeyHandles,
)
from keystead.keys.framing.base import Facts
from keystead.keys.framing.data import Derive, Unwrap, Wrap
from keystead.keys.framing.firmware import SignFirmware
from keystead.keys.framing.jwt import SignJwt
from keystead.keys.framing.ledger import AppendLedger
from keystead.keys.framing.tls import SignTls
from keystead.keys.lifecycle import Move
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.commands import RotateKey, SteerRollout
from keystead.keys.stops import EmergencyEnd, EmergencyStop, Revoke
from sim.prepared import IMAGES, PREFIX, SECRET, SHARED_CONTEXT, TENANT, Prepared
from sim.scenario import Op, What

__all__ = ["CHANGES", "OPERATIONS", "STOPS", "command_of", "context_of", "facts_of"]

OPERATIONS: dict[What, str] = {
    "jwt": "jwt.sign",
    "slow": "jwt.sign",
    "budget": "jwt.sign",
    "child": "jwt.sign",
    "narrow": "jwt.sign",
    "outside": "jwt.sign",
    "other": "jwt.sign",
    "edge": "tls.sign",
    "strict": "tls.sign",
    "ledger": "ledger.append",
    "firmware": "firmware.sign",
    "wrap": "data.wrap",
    "unwrap": "data.unwrap",
    "derive": "data.derive",
    "off": "data.wrap",
}


def facts_of(op: Op, prepared: Prepared) -> Facts:
    """The facts of a use; each operation has its own, so that no two are one by accident."""
    digest = hashlib.sha256(f"{op.number}".encode()).digest()
    facts: Facts
    match op.what:
        case "edge" | "strict":
            facts = SignTls(role="server", transcript_hash=digest)
        case "ledger":
            facts = AppendLedger(entry=digest)
        case "firmware":
            image = IMAGES[op.number % len(IMAGES)]
            facts = SignFirmware(name=image, version=op.value, sha256=digest, size=1)
        case "wrap" | "off":
            facts = Wrap(plaintext=SECRET)
        case "unwrap":
            facts = Unwrap(wrapped=prepared.wrapped)
        case "derive":
            facts = Derive(length=16, info=digest[:8])
        case _:
            facts = SignJwt(claims={"sub": f"s{op.number}"})
    return facts


def context_of(op: Op) -> str:
    """The context of a use."""
    match op.what:
        case "unwrap":
            return SHARED_CONTEXT
        case "narrow":
            return f"{PREFIX}/{op.number % 5}"
        case _:
            return f"shop/{op.number % 11}"


def command_of(op: Op, prepared: Prepared) -> Command:
    """The command of a change."""
    return CHANGES[op.what](op, prepared, f"op {op.number}")


def _moving(move: Move) -> Callable[[Op, Prepared, str], Command]:
    return lambda op, _prepared, reason: MoveVersion(
        name=op.key, move=move, version=1, reason=reason
    )


def _many(op: Op, _prepared: Prepared, reason: str) -> Command:
    """All handles of a tenant; or all keys of a purpose, suspended."""
    if op.key == TENANT:
        return Revoke(what="handles", tenant=TENANT, reason=reason)
    return Revoke(what="versions", state="suspended", purpose=Purpose(op.key), reason=reason)


CHANGES: dict[What, Callable[[Op, Prepared, str], Command]] = {
    "suspend": _moving(Move.SUSPEND),
    "resume": _moving(Move.RESUME),
    "compromise": _moving(Move.COMPROMISE),
    "revoke_link": lambda op, prepared, reason: RevokeHandle(
        link=prepared.tokens[op.token].chain_id, reason=reason
    ),
    "revoke_key": lambda op, _prepared, reason: RevokeKeyHandles(key=op.key, reason=reason),
    "revoke_many": _many,
    "emergency": lambda op, _prepared, reason: EmergencyStop(tenant=op.key or None, reason=reason),
    "emergency_end": lambda op, _prepared, reason: EmergencyEnd(
        tenant=op.key or None, reason=reason
    ),
    "issue": lambda op, _prepared, _reason: IssueHandle(key=op.key, principal="sim"),
    "rotate": lambda op, _prepared, reason: RotateKey(name=op.key, weaker=True, reason=reason),
    "roll_back": lambda op, _prepared, reason: SteerRollout(
        name=op.key, move="roll_back", reason=reason
    ),
    "promote": lambda op, _prepared, reason: SteerRollout(
        name=op.key, move="promote", reason=reason
    ),
}
STOPS: frozenset[What] = frozenset(
    {"suspend", "compromise", "revoke_link", "revoke_key", "revoke_many", "emergency"}
)
"""Changes after whose answer nothing of what they stopped goes out any more."""
