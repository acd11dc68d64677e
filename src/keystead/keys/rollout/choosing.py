"""Which version does a use: a pure function of plan, stage and subject (I3, I12)."""

from __future__ import annotations

from keystead.keys.model import Key
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.model import Rollout, Rotation, Stage, live
from keystead.keys.rollout.plan import WHOLE_PPM, pinned

__all__ = ["SUBJECT_BYTES", "chosen", "reproduces", "served", "share_ppm"]

SUBJECT_BYTES = 8
"""Of the HMAC of a subject that are held against the share."""

_WHOLE = 1 << (8 * SUBJECT_BYTES)
_BOTH_STAGES = frozenset({Stage.CANARY, Stage.RAMP})


def share_ppm(rollout: Rollout) -> int:
    """The share of subjects that the new version signs for. It only grows within a rollout."""
    match rollout.stage:
        case Stage.PUBLISH:
            return 0
        case Stage.CANARY:
            return rollout.plan.canary.share_ppm
        case Stage.RAMP:
            return rollout.plan.ramp.steps_ppm[rollout.ramp]
        case _:
            return WHOLE_PPM


def chosen(key: Key, rotation: Rotation | None, subject: bytes) -> int:
    """The version that does new work for a subject; 0 if the key has none.

    ``subject``: the first :data:`SUBJECT_BYTES` of its HMAC under the rollout's secret. A subject
    below the threshold is on the new version's side, and stays there as the threshold grows.
    """
    rollout = live(rotation)
    if rollout is None or rollout.stage not in _BOTH_STAGES or pinned(key.purpose):
        return key.primary
    below = int.from_bytes(subject, "big") * WHOLE_PPM < share_ppm(rollout) * _WHOLE
    return rollout.next if below else rollout.previous


def served(key: Key, rotation: Rotation | None) -> frozenset[int]:
    """Versions that the rollout lets do new work; the lifecycle must allow it, too (I3).

    Where the caller names the version, both do until the previous one is retired.
    """
    rollout = live(rotation)
    if rollout is None:
        return frozenset({key.primary})
    if rollout.stage is Stage.PUBLISH:
        return frozenset({key.primary})
    if rollout.stage in _BOTH_STAGES or pinned(key.purpose):
        return frozenset({rollout.previous, rollout.next})
    return frozenset({rollout.next})


def reproduces(purpose: Purpose, operation: str) -> bool:
    """Whether the operation gives again what a version gave before: it is no new work of it."""
    return purpose is Purpose.DATA and operation in {"unwrap", "derive", "mac"}
