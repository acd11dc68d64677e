"""How one revision of an object differs from the one before: typed where its kind has rules."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from keystead.differences import Difference
from keystead.encoding import DECODE_ERRORS
from keystead.keys.emergency import Emergency
from keystead.keys.model import Key, Version
from keystead.keys.rollout.differ import (
    algorithm_differences,
    budget_differences,
    plan_differences,
    policy_differences,
)
from keystead.keys.rollout.model import Rotation
from keystead.keys.tenants import Tenant

__all__ = ["differences_of"]

_T = TypeVar("_T")


def differences_of(kind: str, before: bytes, after: bytes) -> tuple[Difference, ...]:
    """What changed between two revisions, as they are stored; empty of kinds that never change.

    A document of a newer Keystead is compared member by member, and says only that.
    """
    try:
        match kind:
            case "key":
                return _keys(_read(before, Key), _read(after, Key))
            case "rotation":
                return _rotations(_read(before, Rotation), _read(after, Rotation))
            case "tenant":
                return budget_differences(_read(before, Tenant).rate, _read(after, Tenant).rate)
            case "emergency":
                return _emergencies(_read(before, Emergency), _read(after, Emergency))
            case _:
                return ()
    except DECODE_ERRORS:
        return _members(msgspec.msgpack.decode(before), msgspec.msgpack.decode(after))


def _read(document: bytes, kind: type[_T]) -> _T:
    return msgspec.msgpack.decode(document, type=kind)


def _emergencies(before: Emergency, after: Emergency) -> tuple[Difference, ...]:
    if before.stopped == after.stopped:
        return ()
    return (
        Difference(
            path="stopped",
            before=str(before.stopped).lower(),
            after=str(after.stopped).lower(),
            direction="stronger" if after.stopped else "weaker",
            reason="nothing is used" if after.stopped else "what was stopped is used again",
        ),
    )


def _keys(before: Key, after: Key) -> tuple[Difference, ...]:
    found = list(policy_differences(before.policy, after.policy))
    if before.primary != after.primary:
        found.append(_plain("primary", before.primary, after.primary, "another version signs"))
    if before.generation != after.generation:
        found.append(
            Difference(
                path="generation",
                before=str(before.generation),
                after=str(after.generation),
                direction="stronger",
                reason="all handles issued before are revoked",
            )
        )
    found += _algorithms(before, after)
    old = {version.number: version for version in before.versions}
    found += [
        difference
        for version in after.versions
        if (difference := _version(old.get(version.number), version)) is not None
    ]
    return tuple(found)


def _algorithms(before: Key, after: Key) -> tuple[Difference, ...]:
    """The algorithm of a new version against that of the one it is to replace."""
    if len(after.versions) <= len(before.versions) or not before.primary:
        return ()
    new = after.versions[-1]
    return algorithm_differences(before.primary_version().algorithm, new.algorithm)


def _version(before: Version | None, after: Version) -> Difference | None:
    path = f"versions.{after.number}"
    if before is None:
        return _plain(path, "", f"{after.state} {after.algorithm}", "a new version")
    if before.state is after.state:
        return None
    return _plain(path, str(before.state), str(after.state), "the version's lifecycle")


def _rotations(before: Rotation, after: Rotation) -> tuple[Difference, ...]:
    found: list[Difference] = []
    if before.plan is not None and after.plan is not None:
        found += plan_differences(before.plan, after.plan)
    elif before.plan != after.plan:
        own = ("own plan", "default of the purpose")
        was, now = own if after.plan is None else reversed(own)
        found.append(_plain("plan", was, now, "its record says how the two differ"))
    was, now = _stage(before), _stage(after)
    if was != now:
        found.append(_plain("rollout", was, now, "the rollout moved"))
    return tuple(found)


def _stage(rotation: Rotation) -> str:
    rollout = rotation.rollout
    return "" if rollout is None else f"{rollout.number} {rollout.stage} {rollout.status}"


def _plain(path: str, before: object, after: object, reason: str) -> Difference:
    return Difference(
        path=path, before=str(before), after=str(after), direction="neutral", reason=reason
    )


def _members(before: dict[str, Any], after: dict[str, Any]) -> tuple[Difference, ...]:
    return tuple(
        Difference(
            path=name,
            before=str(before.get(name, ""))[:64],
            after=str(after.get(name, ""))[:64],
            direction="incomparable",
            reason="a newer Keystead wrote it; this one does not know its rules",
        )
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )
