"""A key's rotation as a value: the registry stores exactly this, under a MAC, beside the key."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

import msgspec

from keystead.keys.rollout.plan import Plan

__all__ = [
    "GateFigure",
    "Leaving",
    "Rollout",
    "Rotation",
    "Stage",
    "Status",
    "Step",
    "VerifierRule",
    "live",
    "rotation_of",
]


class Stage(StrEnum):
    """How far a rollout has come."""

    PUBLISH = "publish"
    CANARY = "canary"
    RAMP = "ramp"
    PROMOTE = "promote"
    DRAIN = "drain"
    RETIRE = "retire"


class Status(StrEnum):
    """Whether a rollout moves. ``halted``: it waits for a person; nothing goes on, or back."""

    RUNNING = "running"
    PAUSED = "paused"
    HALTED = "halted"
    ROLLED_BACK = "rolled_back"
    FINISHED = "finished"


class GateFigure(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One gate as it stood: what was measured, what it is held to, of how many samples.

    ``hold``: too little is known; ``off``: it says nothing at this stage.
    """

    gate: str
    verdict: Literal["pass", "hold", "fail", "off"]
    value: int
    limit: int
    samples: int = 0


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One decision of a rollout: what it came to, when, by whom, why, and on which figures.

    ``ramp``: which ramp step, from 0. ``by``: a principal, or ``rollout`` where it moved by itself.
    """

    event: str
    stage: Stage
    status: Status
    ramp: int
    at_ms: int
    epoch: int
    by: str
    reason: str
    figures: tuple[GateFigure, ...] = ()


class Rollout(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rollout. Its plan is the one that was in force when it began.

    ``number``: of the key's rollouts, from 1. ``ramp``: the ramp step. ``entered_ms``: since when
    it is at its stage and step, the time it was paused not counted. ``paused_ms``: since when it
    is paused or halted.
    """

    number: int
    previous: int
    next: int
    plan: Plan
    stage: Stage
    status: Status
    incident: bool
    reason: str
    began_ms: int
    entered_ms: int
    ramp: int = 0
    paused_ms: int = 0
    steps: tuple[Step, ...] = ()


class VerifierRule(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Until ``until_ms`` one good signature of a dual version is enough; after it, all are due."""

    version: int
    until_ms: int


class Leaving(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version that signs no more, and is published until ``until_ms`` for what it signed."""

    version: int
    until_ms: int


class Rotation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a key rotates. ``plan``: the key's own; None: the default of its purpose.

    ``rollout``: the last one. ``unpublished``: versions that are in no JWK Set any more;
    ``leaving``: those that will not be, such as one that was rolled back, once its drain is over.
    ``promoted_ms``: when the primary version became that; 0: with the key. ``rules``: of dual
    versions, where the verifier's rule is not ``both``. ``kept_until_ms``: until
    when a reader may keep what was published while they were told a longer time than now.
    ``signed_until_ms``: until when something is good that was signed under a longer life than now.
    """

    key_id: str
    plan: Plan | None = None
    rollout: Rollout | None = None
    unpublished: tuple[int, ...] = ()
    leaving: tuple[Leaving, ...] = ()
    promoted_ms: int = 0
    rules: tuple[VerifierRule, ...] = ()
    kept_until_ms: int = 0
    signed_until_ms: int = 0
    revision: int = 0
    epoch: int = 0


def rotation_of(rotation: Rotation | None, key_id: str) -> Rotation:
    """The rotation of a key, of which none may be stored yet."""
    return Rotation(key_id=key_id) if rotation is None else rotation


def live(rotation: Rotation | None) -> Rollout | None:
    """The rollout that is under way, halted ones included."""
    if rotation is None or rotation.rollout is None:
        return None
    ended = rotation.rollout.status in {Status.ROLLED_BACK, Status.FINISHED}
    return None if ended else rotation.rollout
