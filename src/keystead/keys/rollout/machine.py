"""How a rollout moves, and what each transition does to the key.

``decide(rotation, key, asked, signals) -> Decision``: pure; the vault commits what it gives, key
and rotation in one transaction under the next epoch. Nothing is kept between calls but what it
returns, so a crash between two decisions loses nothing but counted samples, and those hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from keystead import limits
from keystead.errors import (
    Conflict,
    InvariantViolation,
    KeyStateError,
    KeysteadError,
    LimitExceeded,
)
from keystead.keys.lifecycle import TRANSITIONS, Move, State, move
from keystead.keys.model import Key, Version
from keystead.keys.purposes import Purpose
from keystead.keys.rollout.caching import after_telling, check_drain, check_overlap, left
from keystead.keys.rollout.gates import Signals, evaluate
from keystead.keys.rollout.model import (
    GateFigure,
    Rollout,
    Rotation,
    Stage,
    Status,
    Step,
    VerifierRule,
    live,
)
from keystead.keys.rollout.plan import Plan, check_rotates
from keystead.keys.rollout.table import (
    GUARDS,
    TABLE,
    Asked,
    Check,
    Guard,
    Row,
    Scene,
    Wish,
    length_ms,
    next_ramp,
)

__all__ = ["STEPS_MAX", "Decision", "begin", "decide", "due_ms", "waits_for"]

STEPS_MAX = 64
"""Decisions that a rollout keeps with it, the last ones; its history keeps all."""


_STATES = frozenset({Guard.NEXT_READY, Guard.PREVIOUS_ELIGIBLE})
"""Guards that wait for the state of a version."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be committed. ``destroyed``: versions whose material is erased with it."""

    rotation: Rotation
    key: Key
    step: Step
    destroyed: tuple[int, ...] = ()


def begin(
    rotation: Rotation, key: Key, version: Version, plan: Plan, asked: Asked, *, incident: bool
) -> Decision:
    """A new rollout, with its new version, which stands published from now on.

    Raises:
        Conflict: one is under way already, and is not halted.
        KeyStateError: the key has no version that it could replace.
    """
    under_way = live(rotation)
    if under_way is not None and under_way.status is not Status.HALTED:
        raise Conflict(
            f"rollout {under_way.number} of {key.name} is under way, at {under_way.stage}",
            hint="Let it end, or roll it back; `keystead key status` shows it",
        )
    key.primary_version()  # raises where there is none
    check_rotates(key)
    check_drain(plan, key, rotation, asked.now_ms)
    if version.number != len(key.versions) + 1:
        raise Conflict("the key got another version meanwhile", hint="Send it again")
    if len(key.versions) >= limits.KEY_VERSIONS_MAX:
        raise LimitExceeded(
            f"{key.name} has {limits.KEY_VERSIONS_MAX} versions already",
            hint="Make another key",
        )
    check_overlap(plan, key, rotation, asked.now_ms)
    if under_way is not None:
        # What replaces a halted incident must not go back to where that came from.
        incident = incident or (under_way.incident and key.primary == under_way.previous)
        key, rotation = _abandoned(key, rotation, under_way, asked)
    algorithms = key.algorithms
    if version.algorithm not in algorithms:
        algorithms = (*algorithms, version.algorithm)
    rollout = Rollout(
        number=1 if rotation.rollout is None else rotation.rollout.number + 1,
        previous=key.primary,
        next=version.number,
        plan=plan,
        stage=Stage.PUBLISH,
        status=Status.RUNNING,
        incident=incident,
        reason=asked.reason,
        began_ms=asked.now_ms,
        entered_ms=asked.now_ms,
    )
    key = msgspec.structs.replace(key, algorithms=algorithms, versions=(*key.versions, version))
    return _decision(rotation, key, rollout, "publish", asked, ())


def _abandoned(key: Key, rotation: Rotation, halted: Rollout, asked: Asked) -> tuple[Key, Rotation]:
    """Both without the other version of a halted rollout: the primary one is replaced next."""
    other = halted.previous if key.primary == halted.next else halted.next
    if key.version(other).state is not State.ACTIVE:  # stopped already; no halt finds it unused
        return key, rotation
    ending = Move.DEACTIVATE if other == halted.previous else _out_of_use(key)
    key = _with_state(key, other, ending, asked.epoch)
    return key, left(rotation, halted.plan, other, asked.now_ms)


def decide(
    rotation: Rotation,
    key: Key,
    asked: Asked,
    signals: Signals,
    *,
    guards: Mapping[Guard, Check] = GUARDS,
) -> Decision | None:
    """What comes of it; None: nothing is due.

    Raises:
        Conflict: a person asked for what cannot be now; says what it waits for.
        KeyStateError: the same, because of a version's state.
    """
    rollout = live(rotation)
    if rollout is None:
        if asked.wish is Wish.TICK:
            return None
        raise Conflict(
            f"no rollout of {key.name} is under way", hint="`keystead key rotate` starts one"
        )
    scene = Scene(rollout=rollout, key=key, asked=asked, figures=evaluate(rollout, key, signals))
    waits: dict[Guard, str] = {}
    for row in TABLE:
        if row.wish is not asked.wish or rollout.stage not in row.at:
            continue
        unmet = {guard: said for guard in row.guards if (said := guards[guard](scene))}
        if not unmet:
            return _taken(rotation, scene, row)
        waits |= unmet
    if asked.wish is Wish.TICK:
        return None
    raise _refusal(scene, waits)


def waits_for(rotation: Rotation, key: Key, asked: Asked, signals: Signals) -> tuple[str, ...]:
    """What the rollout's next stage waits for, as a person would say it."""
    rollout = live(rotation)
    if rollout is None:
        return ()
    scene = Scene(rollout=rollout, key=key, asked=asked, figures=evaluate(rollout, key, signals))
    rows = [row for row in TABLE if row.wish is Wish.TICK and row.to and rollout.stage in row.at]
    unmet = (
        said
        for row in rows[-1:]
        for guard in row.guards
        if guard is not Guard.MORE_RAMP and (said := GUARDS[guard](scene))
    )
    return tuple(unmet)


def due_ms(rollout: Rollout) -> int:
    """When the stage's length is over, in Unix milliseconds, if it is not paused."""
    return rollout.entered_ms + length_ms(rollout)


def _refusal(scene: Scene, waits: Mapping[Guard, str]) -> KeysteadError:
    why = "; ".join(waits.values()) or f"it is at {scene.rollout.stage}"
    said = f"cannot {scene.asked.wish.replace('_', ' ')} the rollout of {scene.key.name}: {why}"
    hint = "`keystead key status` shows where it stands"
    stopped = not _STATES.isdisjoint(waits)
    return KeyStateError(said, hint=hint) if stopped else Conflict(said, hint=hint)


def _taken(rotation: Rotation, scene: Scene, row: Row) -> Decision:
    rollout, asked = scene.rollout, scene.asked
    if row.wish in {Wish.PAUSE, Wish.RESUME}:  # nothing is decided on them
        scene = msgspec.structs.replace(scene, figures=())
    stage = rollout.stage if row.to is None else row.to
    moved = row.to is not None
    entered = asked.now_ms if moved else rollout.entered_ms
    paused = 0
    if row.status in {Status.PAUSED, Status.HALTED}:
        paused = rollout.paused_ms or asked.now_ms
    elif not moved and rollout.paused_ms:  # what was paused does not count
        entered += max(0, asked.now_ms - rollout.paused_ms)
    ramp = rollout.ramp
    if row.to is Stage.RAMP:
        following = next_ramp(rollout)
        if following is None:
            raise InvariantViolation("a ramp went past its last step")
        ramp = following
    after = msgspec.structs.replace(
        rollout, stage=stage, status=row.status, ramp=ramp, entered_ms=entered, paused_ms=paused
    )
    return _EFFECTS[row.event](rotation, scene, after, row.event)


# --- what a transition does to the key -----------------------------------------------------------


def _only(rotation: Rotation, scene: Scene, after: Rollout, event: str) -> Decision:
    return _decision(rotation, scene.key, after, event, scene.asked, scene.figures)


def _use(rotation: Rotation, scene: Scene, after: Rollout, event: str) -> Decision:
    rotation, key = _in_use(rotation, scene)
    return _decision(rotation, key, after, event, scene.asked, scene.figures)


def _promote(rotation: Rotation, scene: Scene, after: Rollout, event: str) -> Decision:
    rotation, key = _in_use(rotation, scene)
    key = msgspec.structs.replace(key, primary=after.next)
    rotation = msgspec.structs.replace(rotation, promoted_ms=scene.asked.now_ms)
    return _decision(rotation, key, after, event, scene.asked, scene.figures)


def _in_use(rotation: Rotation, scene: Scene) -> tuple[Rotation, Key]:
    """The new version does work from now on: it is active, if nobody activated it before."""
    key = scene.key
    if scene.next.state is not State.ACTIVE:
        key = _with_state(key, scene.rollout.next, Move.ACTIVATE, scene.asked.epoch)
    if scene.rollout.stage is Stage.PUBLISH:
        rotation = _ruled(rotation, scene)
    return rotation, key


def _retire(rotation: Rotation, scene: Scene, after: Rollout, event: str) -> Decision:
    key = scene.key
    if (scene.previous.state, Move.DEACTIVATE) in TRANSITIONS:
        key = _with_state(key, after.previous, Move.DEACTIVATE, scene.asked.epoch)
    if after.plan.retire.unpublish:
        gone = (*rotation.unpublished, after.previous)
        rotation = msgspec.structs.replace(rotation, unpublished=gone)
    return _decision(rotation, key, after, event, scene.asked, scene.figures)


def _out_of_use(key: Key) -> Move:
    """How a version that went back ends: nothing new, and what it protected is not taken away."""
    return Move.DEACTIVATE if key.purpose is Purpose.DATA else Move.SUSPEND


def _roll_back(rotation: Rotation, scene: Scene, after: Rollout, event: str) -> Decision:
    """The previous version is primary again; the new one never signs any more, nor comes back."""
    key, number = scene.key, after.next
    destroyed: tuple[int, ...] = ()
    state = scene.next.state
    if state is State.ACTIVE:
        key = _with_state(key, number, _out_of_use(key), scene.asked.epoch)
        rotation = left(rotation, after.plan, number, scene.asked.now_ms)
    elif state is State.PRE_ACTIVATION:  # it has signed nothing
        key = _with_state(key, number, Move.DESTROY, scene.asked.epoch)
        destroyed = (number,)
    if key.primary != after.previous:
        rotation = msgspec.structs.replace(rotation, promoted_ms=scene.asked.now_ms)
    key = msgspec.structs.replace(key, primary=after.previous)
    decision = _decision(rotation, key, after, event, scene.asked, scene.figures)
    return msgspec.structs.replace(decision, destroyed=destroyed)


_EFFECTS: dict[str, Callable[[Rotation, Scene, Rollout, str], Decision]] = {
    "canary": _use,
    "ramp": _only,
    "promote": _promote,
    "drain": _only,
    "retire": _retire,
    "rolled back": _roll_back,
    "halted": _only,
    "paused": _only,
    "resumed": _only,
}


def _ruled(rotation: Rotation, scene: Scene) -> Rotation:
    """The verifier's rule of the new version, which counts from its first use."""
    dual = scene.rollout.plan.dual
    if dual.rule == "both":
        return rotation
    until = scene.asked.now_ms + dual.window_ms
    rule = VerifierRule(version=scene.rollout.next, until_ms=until)
    return msgspec.structs.replace(rotation, rules=(*rotation.rules, rule))


def _with_state(key: Key, number: int, what: Move, epoch: int) -> Key:
    """The key after a move of one version."""
    versions = tuple(
        msgspec.structs.replace(v, state=move(v.state, what)) if v.number == number else v
        for v in key.versions
    )
    return msgspec.structs.replace(key, versions=versions, epoch=epoch)


def _decision(  # noqa: PLR0917  what was, what is, and why
    rotation: Rotation,
    key: Key,
    rollout: Rollout,
    event: str,
    asked: Asked,
    figures: tuple[GateFigure, ...],
) -> Decision:
    step = Step(
        event=event,
        stage=rollout.stage,
        status=rollout.status,
        ramp=rollout.ramp,
        at_ms=asked.now_ms,
        epoch=asked.epoch,
        by=asked.by,
        reason=asked.reason,
        figures=figures,
    )
    rollout = msgspec.structs.replace(rollout, steps=(*rollout.steps, step)[-STEPS_MAX:])
    after = msgspec.structs.replace(
        rotation, rollout=rollout, revision=rotation.revision + 1, epoch=asked.epoch
    )
    return Decision(
        rotation=after_telling(rotation, after, key, asked.now_ms),
        key=msgspec.structs.replace(key, revision=key.revision + 1, epoch=asked.epoch),
        step=step,
    )
