"""How long readers may keep a publication, and so how long a new version must stand before its use.

Whoever fetched a JWK Set just before a version was published keeps it for as long as they were told
then: by the plan in force then, not by that of the rollout (I12).
"""

from __future__ import annotations

import msgspec

from keystead.errors import Conflict
from keystead.keys.model import Key
from keystead.keys.rollout.model import Leaving, Rotation, live
from keystead.keys.rollout.plan import Plan, default_plan, longest_life_ms

__all__ = [
    "after_signing",
    "after_telling",
    "as_of",
    "check_drain",
    "check_overlap",
    "kept_ms",
    "left",
    "told_ms",
]


def as_of(rotation: Rotation | None, now_ms: int) -> Rotation | None:
    """The rotation with those versions unpublished whose drain is over by now."""
    if rotation is None or not rotation.leaving:
        return rotation
    over = tuple(item.version for item in rotation.leaving if now_ms >= item.until_ms)
    return msgspec.structs.replace(rotation, unpublished=(*rotation.unpublished, *over))


def left(rotation: Rotation, plan: Plan, version: int, now_ms: int) -> Rotation:
    """The rotation once a version has done its last work: it is published until the drain is over.

    Where the plan keeps retired versions published, it keeps this one, too.
    """
    if not plan.retire.unpublish:
        return rotation
    leaving = Leaving(version=version, until_ms=now_ms + plan.drain.length_ms)
    return msgspec.structs.replace(rotation, leaving=(*rotation.leaving, leaving))


def told_ms(key: Key, rotation: Rotation | None) -> int:
    """How long readers are told that they may keep what is published now."""
    rollout = live(rotation)
    own = None if rotation is None else rotation.plan
    plan = rollout.plan if rollout is not None else own or default_plan(key)
    return plan.publish.cache_ms


def kept_ms(key: Key, rotation: Rotation, now_ms: int) -> int:
    """How long from now on a reader may keep a publication that was fetched up to now."""
    return max(told_ms(key, rotation), rotation.kept_until_ms - now_ms)


def check_overlap(plan: Plan, key: Key, rotation: Rotation, now_ms: int) -> None:
    """A rollout that begins now must publish for as long as anyone may keep what is published now.

    Raises:
        Conflict: its overlap is shorter.
    """
    kept = kept_ms(key, rotation, now_ms)
    if plan.publish.overlap_ms < kept:
        raise Conflict(
            f"expected publish.overlap of at least {kept / 1000:.0f} s,"
            f" met {plan.publish.overlap_ms / 1000:.0f} s: so long may readers keep what they"
            f" fetched of {key.name} until now, and would not know the new version",
            hint="Lengthen the overlap; or give the key a plan with a shorter publish.cache, and"
            " wait until what was fetched under the old one has run out",
        )


def check_drain(plan: Plan, key: Key, rotation: Rotation, now_ms: int) -> None:
    """What was signed under a longer life than the policy's now must verify until it ends, too.

    Raises:
        Conflict: the plan's drain is shorter.
    """
    left_ms = rotation.signed_until_ms - now_ms
    if plan.drain.length_ms < left_ms:
        raise Conflict(
            f"expected drain.length of at least {left_ms / 1000:.0f} s,"
            f" met {plan.drain.length_ms / 1000:.0f} s: so long is good what {key.name} signed"
            " before its policy's lifetime was shortened",
            hint="Lengthen the drain for this rollout, or wait",
        )


def after_signing(rotation: Rotation, before: Key, after: Key, now_ms: int) -> Rotation:
    """The rotation after a change of the key's policy: how long what was signed before is good."""
    was = longest_life_ms(before)
    if longest_life_ms(after) >= was:
        return rotation
    until = max(rotation.signed_until_ms, now_ms + was)
    return msgspec.structs.replace(rotation, signed_until_ms=until)


def after_telling(before: Rotation, after: Rotation, key: Key, now_ms: int) -> Rotation:
    """The rotation after a change, with how long what readers were told before it still holds."""
    was = told_ms(key, before)
    if told_ms(key, after) >= was:
        return after
    return msgspec.structs.replace(after, kept_until_ms=max(after.kept_until_ms, now_ms + was))
