"""The table of a rollout's transitions, and the guards that each waits behind."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

import msgspec

from keystead.keys.lifecycle import TRANSITIONS, Move, State
from keystead.keys.model import Key, Version
from keystead.keys.rollout.gates import failed, holding
from keystead.keys.rollout.model import GateFigure, Rollout, Stage, Status

__all__ = [
    "GUARDS",
    "ROLLOUT",
    "TABLE",
    "Asked",
    "Check",
    "Guard",
    "Row",
    "Scene",
    "Wish",
    "length_ms",
    "next_ramp",
]

ROLLOUT = "rollout"
"""Who moved it, where no person did."""


class Wish(StrEnum):
    """What is asked of a rollout: ``tick`` by time, the rest by a person."""

    TICK = "tick"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"


class Guard(StrEnum):
    """What a transition waits for."""

    RUNNING = "running"
    HELD = "held"
    NOT_HALTED = "not_halted"
    PUBLISHED = "published"
    LENGTH = "length"
    GATES = "gates"
    MORE_RAMP = "more_ramp"
    NEXT_READY = "next_ready"
    PREVIOUS_ELIGIBLE = "previous_eligible"
    GOES_BACK = "goes_back"
    FAILED = "failed"


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One thing asked: by whom, why, when (Unix milliseconds), under which epoch it would be."""

    wish: Wish
    now_ms: int
    epoch: int
    by: str = ROLLOUT
    reason: str = ""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """All a guard may look at."""

    rollout: Rollout
    key: Key
    asked: Asked
    figures: tuple[GateFigure, ...]

    @property
    def previous(self) -> Version:
        """The version that the rollout replaces."""
        return self.key.version(self.rollout.previous)

    @property
    def next(self) -> Version:
        """The version that it brings in."""
        return self.key.version(self.rollout.next)

    @property
    def spent_ms(self) -> int:
        """Time at this stage and step, pauses not counted."""
        until = self.rollout.paused_ms or self.asked.now_ms
        return max(0, until - self.rollout.entered_ms)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One transition: asked for what, at which stages, behind which guards, to where.

    ``to``: the stage after it; None: it stays. ``status``: the status after it.
    """

    wish: Wish
    at: frozenset[Stage]
    guards: tuple[Guard, ...]
    event: str
    to: Stage | None = None
    status: Status = Status.RUNNING


_PUBLISH, _CANARY, _RAMP = Stage.PUBLISH, Stage.CANARY, Stage.RAMP
_PROMOTE, _DRAIN = Stage.PROMOTE, Stage.DRAIN
_G = Guard
_ANY = frozenset({_PUBLISH, _CANARY, _RAMP, _PROMOTE, _DRAIN})


def _at(*stages: Stage) -> frozenset[Stage]:
    return frozenset(stages)


TABLE: tuple[Row, ...] = (
    # What has failed goes before what is due: a stage whose length is over may have failed.
    Row(
        wish=Wish.TICK,
        at=_ANY,
        guards=(_G.NOT_HALTED, _G.FAILED, _G.GOES_BACK, _G.PREVIOUS_ELIGIBLE),
        event="rolled back",
        status=Status.ROLLED_BACK,
    ),
    Row(
        wish=Wish.TICK,
        at=_ANY,
        guards=(_G.NOT_HALTED, _G.FAILED),
        event="halted",
        status=Status.HALTED,
    ),
    Row(
        wish=Wish.TICK,
        at=_at(_PUBLISH),
        guards=(_G.RUNNING, _G.PUBLISHED, _G.GATES),
        event="canary",
        to=_CANARY,
    ),
    Row(
        wish=Wish.TICK,
        at=_at(_CANARY, _RAMP),
        guards=(_G.RUNNING, _G.LENGTH, _G.GATES, _G.MORE_RAMP),
        event="ramp",
        to=_RAMP,
    ),
    Row(
        wish=Wish.TICK,
        at=_at(_CANARY, _RAMP),
        guards=(_G.RUNNING, _G.LENGTH, _G.GATES),
        event="promote",
        to=_PROMOTE,
    ),
    Row(
        wish=Wish.TICK,
        at=_at(_PROMOTE),
        guards=(_G.RUNNING, _G.LENGTH, _G.GATES),
        event="drain",
        to=_DRAIN,
    ),
    Row(
        wish=Wish.TICK,
        at=_at(_DRAIN),
        guards=(_G.RUNNING, _G.LENGTH),
        event="retire",
        to=Stage.RETIRE,
        status=Status.FINISHED,
    ),
    Row(
        wish=Wish.PAUSE,
        at=_ANY,
        guards=(_G.RUNNING,),
        event="paused",
        status=Status.PAUSED,
    ),
    Row(wish=Wish.RESUME, at=_ANY, guards=(_G.HELD,), event="resumed"),
    Row(
        wish=Wish.PROMOTE,
        at=_at(_PUBLISH, _CANARY, _RAMP),
        guards=(_G.PUBLISHED, _G.NEXT_READY),
        event="promote",
        to=_PROMOTE,
    ),
    Row(
        wish=Wish.ROLL_BACK,
        at=_ANY,
        guards=(_G.GOES_BACK, _G.PREVIOUS_ELIGIBLE),
        event="rolled back",
        status=Status.ROLLED_BACK,
    ),
)
"""Every legal move of a rollout; the first row whose guards all hold is taken."""

Check = Callable[[Scene], str]
"""Empty if the guard holds, else what it waits for, as a person would say it."""


def _running(scene: Scene) -> str:
    status = scene.rollout.status
    return "" if status is Status.RUNNING else f"it is {status}"


def _held(scene: Scene) -> str:
    status = scene.rollout.status
    return "" if status in {Status.PAUSED, Status.HALTED} else f"it is {status}, not paused"


def _not_halted(scene: Scene) -> str:
    return "it is halted" if scene.rollout.status is Status.HALTED else ""


def _published(scene: Scene) -> str:
    """I12: whoever asks for it, no version signs before it has been published for the overlap."""
    if scene.rollout.stage is not _PUBLISH:
        return ""
    left = scene.rollout.plan.publish.overlap_ms - scene.spent_ms
    return f"the new version must stand published for another {_seconds(left)}" * (left > 0)


def _length(scene: Scene) -> str:
    left = length_ms(scene.rollout) - scene.spent_ms
    return f"the stage lasts another {_seconds(left)}" * (left > 0)


def _seconds(ms: int) -> str:
    return f"{-(-ms // 1000)} s"


def _gates(scene: Scene) -> str:
    return ", ".join(
        f"gate {f.gate}: {f.value} of {f.limit}" if f.verdict == "hold" else f"gate {f.gate} failed"
        for f in holding(scene.figures)
    )


def _more_ramp(scene: Scene) -> str:
    return "" if next_ramp(scene.rollout) is not None else "the ramp is at its last step"


def _next_ready(scene: Scene) -> str:
    state = scene.next.state
    ready = state is State.ACTIVE or (state, Move.ACTIVATE) in TRANSITIONS
    return "" if ready else f"version {scene.rollout.next} is {state}"


def _previous_eligible(scene: Scene) -> str:
    state = scene.previous.state
    return "" if state is State.ACTIVE else f"version {scene.rollout.previous} is {state}"


def _goes_back(scene: Scene) -> str:
    """A rotation that began as an incident never goes back to the version it replaces."""
    return "it began as an incident: it never goes back" if scene.rollout.incident else ""


def _failed(scene: Scene) -> str:
    """A gate says so, or the new version was stopped under it."""
    able = {State.ACTIVE, State.PRE_ACTIVATION} if _is_unused(scene) else {State.ACTIVE}
    lost = scene.next.state not in able
    return "" if lost or failed(scene.figures) else "nothing failed"


def _is_unused(scene: Scene) -> bool:
    return scene.rollout.stage is _PUBLISH


GUARDS: dict[Guard, Check] = {
    Guard.RUNNING: _running,
    Guard.HELD: _held,
    Guard.NOT_HALTED: _not_halted,
    Guard.PUBLISHED: _published,
    Guard.LENGTH: _length,
    Guard.GATES: _gates,
    Guard.MORE_RAMP: _more_ramp,
    Guard.NEXT_READY: _next_ready,
    Guard.PREVIOUS_ELIGIBLE: _previous_eligible,
    Guard.GOES_BACK: _goes_back,
    Guard.FAILED: _failed,
}
"""Each guard's check. Tests take one away at a time, and must find the harm that does."""


def length_ms(rollout: Rollout) -> int:
    """How long the stage, or its ramp step, lasts."""
    plan = rollout.plan
    match rollout.stage:
        case Stage.PUBLISH:
            return plan.publish.overlap_ms
        case Stage.CANARY:
            return plan.canary.length_ms
        case Stage.RAMP:
            return plan.ramp.step_ms
        case Stage.PROMOTE:
            return plan.promote.length_ms
        case Stage.DRAIN:
            return plan.drain.length_ms
        case Stage.RETIRE:
            return 0


def next_ramp(rollout: Rollout) -> int | None:
    """The next ramp step's number, None behind the last."""
    step = 0 if rollout.stage is _CANARY else rollout.ramp + 1
    return step if step < len(rollout.plan.ramp.steps_ppm) else None
