"""How long a drill's stages are, and how much load it makes: plans as values, nothing done yet."""

from __future__ import annotations

import msgspec

from keystead.keys.rollout.plan import (
    WHOLE_PPM,
    Canary,
    Drain,
    Gates,
    Plan,
    Promote,
    Publish,
    Ramp,
    Retire,
)

__all__ = [
    "BATCH",
    "CONTEXTS",
    "PARTIES",
    "ROUND_MS",
    "SCALE_MAX",
    "SCALE_MIN",
    "TASKS",
    "USES_PER_S",
    "Lengths",
    "lengths",
]

ROUND_MS = 1_000
"""How often the steward has the vault look at a rollout: one evaluation period."""
SCALE_MIN, SCALE_MAX = 0.25, 4.0
"""Below it a stage is shorter than a round; above it the drill takes three minutes."""
CONTEXTS = 200
"""By context a share is a count of these: enough for bounds that say something."""
TASKS = 4
"""Tasks that sign, each in its own part of the contexts."""
BATCH = 10
"""Uses in one request of a task."""
USES_PER_S = 160
"""All tasks together; every context is used about once a second."""
PARTIES = 3
"""Relying parties, each a principal of its own."""

_SECOND_MS = 1_000
_CACHE_MS = _SECOND_MS
"""The least that a ``Cache-Control`` can say, other than nothing."""
_LIFETIME_MIN_S = 2
"""Times in tokens are whole seconds: one of a second's life may have none left on arrival."""
_PATIENCE_S = 20
"""What an act may take beside twice its planned time, on a machine that is busy."""
_FLOOR_US = 1_000_000
"""A drill is about moving, not about speed: a machine that is busy must not send it back."""


class Lengths(msgspec.Struct, frozen=True, kw_only=True):
    """A drill's timing. ``recovery``: of the rotation that ends a halt, as short as can be.

    ``act_s``: how long an act may take before it is given up. ``whole_s``: what the drill takes on
    a node that does as it should, for a progress bar.
    """

    lifetime_s: int
    plan: Plan
    recovery: Plan
    patience_ms: int
    act_s: float
    whole_s: float


def lengths(scale: float) -> Lengths:
    """The timing of a drill whose seconds are so many seconds long."""
    second_ms = round(_SECOND_MS * scale)
    lifetime_s = max(_LIFETIME_MIN_S, round(3 * scale))
    overlap_ms = max(_CACHE_MS, 3 * second_ms)
    drain = Drain(length_ms=max(3 * second_ms, lifetime_s * _SECOND_MS))
    plan = Plan(
        publish=Publish(overlap_ms=overlap_ms, cache_ms=_CACHE_MS),
        canary=Canary(share_ppm=200_000, length_ms=4 * second_ms),
        ramp=Ramp(steps_ppm=(400_000, 700_000), step_ms=2 * second_ms),
        promote=Promote(length_ms=2 * second_ms),
        drain=drain,
        retire=Retire(unpublish=True),
        gates=Gates(
            window_ms=max(_SECOND_MS, 2 * second_ms),
            samples=20,
            error_ppm=0,
            p99_floor_us=_FLOOR_US,
            reporters=1,
        ),
    )
    recovery = msgspec.structs.replace(
        plan,
        canary=Canary(share_ppm=WHOLE_PPM, length_ms=0),
        ramp=Ramp(steps_ppm=()),
        promote=Promote(length_ms=0),
    )
    # About half a round comes on top of each stage, and of what an act waits for.
    overlap_s = overlap_ms / _SECOND_MS
    healthy_s = _planned_ms(plan) / _SECOND_MS + 2
    fault_s = overlap_s + 6
    incident_s = overlap_s + 7 + _planned_ms(recovery) / _SECOND_MS + 3
    return Lengths(
        lifetime_s=lifetime_s,
        plan=plan,
        recovery=recovery,
        patience_ms=3 * ROUND_MS // 2,
        act_s=_PATIENCE_S + 2 * healthy_s,
        whole_s=healthy_s + fault_s + incident_s + lifetime_s,
    )


def _planned_ms(plan: Plan) -> int:
    return (
        plan.publish.overlap_ms
        + plan.canary.length_ms
        + len(plan.ramp.steps_ppm) * plan.ramp.step_ms
        + plan.promote.length_ms
        + plan.drain.length_ms
    )
