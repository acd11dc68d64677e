"""How a rollout stands, for whoever looks after the key."""

from __future__ import annotations

from keystead.keys.lifecycle import State
from keystead.keys.model import Key
from keystead.keys.rollout.caching import as_of
from keystead.keys.rollout.choosing import share_ppm
from keystead.keys.rollout.commands import RolloutInfo, ShareInfo
from keystead.keys.rollout.gates import Seen, Signals, evaluate
from keystead.keys.rollout.machine import due_ms, waits_for
from keystead.keys.rollout.model import Rollout, Rotation, Stage, live
from keystead.keys.rollout.plan import WHOLE_PPM, Plan
from keystead.keys.rollout.table import Asked, Wish

__all__ = ["rollout_info"]

_GONE = frozenset({State.DESTROYED, State.COMPROMISED})


def rollout_info(
    rotation: Rotation,
    key: Key,
    signals: Signals,
    *,
    plan: Plan,
    now_ms: int,
    starts_ms: int,
    uses_left: int,
) -> RolloutInfo:
    """The rollout that is under way, or the last one; ``plan``: the one in force for the next."""
    rotation = as_of(rotation, now_ms) or rotation
    rollout, running = rotation.rollout, live(rotation)
    asked = Asked(wish=Wish.TICK, now_ms=now_ms, epoch=rotation.epoch + 1)
    return RolloutInfo(
        key=key.name,
        purpose=str(key.purpose),
        status="none" if rollout is None else str(rollout.status),
        stage="" if rollout is None else str(rollout.stage),
        ramp=0 if rollout is None else rollout.ramp,
        number=0 if rollout is None else rollout.number,
        previous=0 if rollout is None else rollout.previous,
        next=0 if rollout is None else rollout.next,
        incident=rollout is not None and rollout.incident,
        reason="" if rollout is None else rollout.reason,
        began_ms=0 if rollout is None else rollout.began_ms,
        entered_ms=0 if rollout is None else rollout.entered_ms,
        paused_ms=0 if rollout is None else rollout.paused_ms,
        due_ms=0 if running is None else due_ms(running),
        now_ms=now_ms,
        versions=_shares(rotation, key, signals),
        gates=() if running is None else evaluate(running, key, signals),
        waits=() if running is None else waits_for(rotation, key, asked, signals),
        steps=() if rollout is None else rollout.steps,
        plan=plan if running is None else running.plan,
        own_plan=rotation.plan is not None,
        starts_ms=starts_ms,
        uses_left=uses_left,
        revision=rotation.revision,
        epoch=rotation.epoch,
    )


def _shares(rotation: Rotation, key: Key, signals: Signals) -> tuple[ShareInfo, ...]:
    rollout = live(rotation)
    shown = {key.primary} if rollout is None else {rollout.previous, rollout.next, key.primary}
    gone = rotation.unpublished
    found = []
    for version in key.versions:
        if version.number not in shown and version.number not in _last(rotation.rollout):
            continue
        found.append(
            ShareInfo(
                version=version.number,
                state=str(version.state),
                algorithm=version.algorithm,
                kid=version.kid,
                share_ppm=_share(rollout, key, version.number),
                published=version.state not in _GONE and version.number not in gone,
                seen=_seen(rollout, signals, version.number),
            )
        )
    return tuple(found)


def _last(rollout: Rollout | None) -> frozenset[int]:
    return frozenset() if rollout is None else frozenset({rollout.previous, rollout.next})


def _share(rollout: Rollout | None, key: Key, number: int) -> int:
    if rollout is None or rollout.stage is Stage.PUBLISH:
        return WHOLE_PPM if number == key.primary else 0
    share = share_ppm(rollout)
    if number == rollout.next:
        return share
    return WHOLE_PPM - share if number == rollout.previous else 0


def _seen(rollout: Rollout | None, signals: Signals, number: int) -> Seen:
    if rollout is None:
        return Seen()
    if number == rollout.next:
        return signals.window_next
    return signals.window_previous if number == rollout.previous else Seen()
