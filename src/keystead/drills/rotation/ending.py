"""How a drill ends the use of its key, however far it came: nothing goes on without it."""

from __future__ import annotations

from keystead.client import Client
from keystead.drills.rotation.trace import Trace
from keystead.errors import KeysteadError
from keystead.keys.rollout.model import Status

__all__ = ["TENANT", "end_use"]

TENANT = "drill"
_OVER = frozenset({"none", Status.FINISHED, Status.ROLLED_BACK})


def end_use(client: Client, trace: Trace) -> str:
    """Take its rollout back, revoke its handles, destroy its versions; says what is left."""
    reason = f"drill {trace.run} is over"
    try:
        info = client.rollout_status(trace.key)
        if info.status not in _OVER and not info.incident:
            client.steer_rollout(trace.key, "roll_back", reason=reason)
        client.revoke_key_handles(trace.key, reason=reason)
        client.move_version(trace.key, "deactivate", reason=reason)
        client.move_version(trace.key, "destroy", reason=reason)
        left = client.rollout_status(trace.key)
    except KeysteadError as exc:
        return f"key {trace.key} of tenant {TENANT}, whose use could not be ended: {exc.message}"
    # An incident's rollout ends by going through only, which takes time that a person who stops
    # the drill does not have. Without a version that could do work it halts in the next round.
    under_way = "" if left.status in _OVER else f", rollout {left.number} without an end"
    return (
        f"key {trace.key} of tenant {TENANT}, every version destroyed and every handle revoked"
        f"{under_way}; and what the log recorded of it"
    )
