"""Decisions about keys: pure, from the key as it is to the key as it shall be."""

from __future__ import annotations

import msgspec

from keystead import limits
from keystead.errors import AlgorithmForbidden, KeyStateError, MalformedRequest
from keystead.keys.algorithms import algorithm_named
from keystead.keys.commands import CreateKey, MoveVersion
from keystead.keys.lifecycle import TRANSITIONS, Move, State, move
from keystead.keys.model import Key, Policy, Version, check_labels, check_name
from keystead.keys.purposes import PURPOSES, Purpose, default_algorithm
from keystead.keys.rollout.plan import check_plan

__all__ = [
    "audit_key",
    "check_algorithm",
    "check_policy",
    "check_reason",
    "draft_key",
    "moved",
    "new_generation",
]

_POLICY_PARTS = {
    Purpose.JWT: "jwt",
    Purpose.FIRMWARE: "firmware",
    Purpose.CA: "ca",
    Purpose.SSH_CA: "ssh_ca",
}

_OWN_TENANT = "keystead"
_PREHASHED_FAMILIES = ("ecdsa-", "rsa-pss-")
"""Ed25519 and ML-DSA hash within the signature: a digest of theirs is no message."""


def draft_key(command: CreateKey, *, key_id: str, now_ms: int) -> tuple[Key, str]:
    """The key a command asks for, without versions, and the algorithm of its first.

    Raises:
        MalformedRequest: names, labels or a policy that is not its purpose's.
        AlgorithmForbidden: an algorithm the purpose does not have.
    """
    check_name(command.name, "key name")
    check_name(command.tenant, "tenant")
    check_labels(command.labels)
    row = PURPOSES[command.purpose]
    if not row.offered:
        raise MalformedRequest(
            f"keys for {command.purpose!s} cannot be made by this version",
            hint="See docs/limitations.md for what is built and what is to come",
        )
    algorithm = command.algorithm or default_algorithm(command.purpose)
    check_algorithm(command.purpose, algorithm, prehashed=command.prehashed)
    check_policy(command.purpose, command.policy, prehashed=command.prehashed)
    drafted = Key(
        id=key_id,
        name=command.name,
        tenant=command.tenant,
        labels=command.labels,
        purpose=command.purpose,
        algorithms=(algorithm,),
        prehashed=command.prehashed,
        policy=command.policy,
        generation=1,
        primary=1,
        versions=(),
        revision=1,
        epoch=0,
        created_ms=now_ms,
    )
    if command.plan is not None:
        check_plan(command.plan, drafted)
    return drafted, algorithm


def check_algorithm(purpose: Purpose, algorithm: str, *, prehashed: bool) -> None:
    """Whether a version of a key may be of an algorithm.

    Raises:
        AlgorithmForbidden: the purpose does not have it.
        MalformedRequest: there is none of that name, or it does not sign digests.
    """
    row = PURPOSES[purpose]
    algorithm_named(algorithm)
    if algorithm not in row.algorithms:
        raise AlgorithmForbidden(
            f"purpose {purpose!s} does not use {algorithm}",
            hint="It uses: " + ", ".join(row.algorithms),
        )
    if prehashed and not (row.prehashed_allowed and algorithm.startswith(_PREHASHED_FAMILIES)):
        raise MalformedRequest(f"{purpose!s} keys of {algorithm} cannot be prehashed")


def audit_key(name: str, labels: dict[str, str], *, key_id: str, now_ms: int) -> tuple[Key, str]:
    """The key of a node's own log, without versions, and its algorithm: made by no command."""
    algorithm = default_algorithm(Purpose.AUDIT)
    key = Key(
        id=key_id,
        name=name,
        tenant=_OWN_TENANT,
        labels=labels,
        purpose=Purpose.AUDIT,
        algorithms=(algorithm,),
        prehashed=False,
        policy=Policy(),
        generation=1,
        primary=1,
        versions=(),
        revision=1,
        epoch=0,
        created_ms=now_ms,
    )
    return key, algorithm


def check_policy(purpose: Purpose, policy: Policy, *, prehashed: bool) -> None:
    """Hold a key's policy to its purpose and to its bounds.

    Raises:
        MalformedRequest: a part of another purpose, none of its own, or a value out of bounds.
    """
    if prehashed and policy.verify_before_release:
        raise MalformedRequest(
            "a prehashed key's signatures are not verified before release",
            hint="Leave verify_before_release out, or the key not prehashed",
        )
    for owner, part in _POLICY_PARTS.items():
        present = getattr(policy, part) is not None
        if present and owner is not purpose:
            raise MalformedRequest(
                f"policy.{part} is for {owner!s} keys, this one is for {purpose!s}"
            )
        if owner is purpose and not present:
            raise MalformedRequest(
                f"a {purpose!s} key needs policy.{part}",
                hint="See docs/purposes.md for its fields; the CLI has an option for each",
            )
    if policy.ack == "best_effort" and purpose is not Purpose.TLS:
        raise MalformedRequest(
            "ack best_effort is for tls keys only: all else waits for its record"
        )
    if policy.firmware is not None:
        _check_bounds(len(policy.firmware.names), "firmware names", limits.FIRMWARE_NAMES_MAX)
        _check_bounds(policy.firmware.step_max, "step_max", limits.FIRMWARE_STEP_MAX)
        for name in policy.firmware.names:
            check_name(name, "firmware image name")
    if policy.jwt is not None and not policy.jwt.issuer:
        raise MalformedRequest("expected policy.jwt.issuer, met an empty one")
    lives = [
        part.lifetime_max_s for part in (policy.jwt, policy.ca, policy.ssh_ca) if part is not None
    ]
    for life in lives:
        _check_bounds(life, "lifetime_max_s", 10 * 366 * 24 * 3600)


def _check_bounds(value: int, what: str, most: int) -> None:
    if not 1 <= value <= most:
        raise MalformedRequest(f"expected {what} from 1 to {most}, met {value}")


def check_reason(reason: str) -> None:
    """Changes that stop or start keys need a reason, for the record.

    Raises:
        MalformedRequest: empty, too long, or not printable.
    """
    if not reason or not reason.isprintable() or len(reason.encode()) > limits.REASON_BYTES_MAX:
        raise MalformedRequest(
            f"expected a printable reason of 1 to {limits.REASON_BYTES_MAX} bytes",
        )


def moved(key: Key, command: MoveVersion, *, epoch: int) -> tuple[Key, tuple[int, ...]]:
    """The key after a move of one version, or of all that may make it; and which moved.

    Raises:
        KeyStateError: the lifecycle has no such move. NotFound: no such version.
    """
    check_reason(command.reason)
    after = {v.number: _moved_version(v, command.move, epoch) for v in _targets(key, command)}
    return (
        msgspec.structs.replace(
            key,
            versions=tuple(after.get(v.number, v) for v in key.versions),
            revision=key.revision + 1,
            epoch=epoch,
        ),
        tuple(after),
    )


def _targets(key: Key, command: MoveVersion) -> tuple[Version, ...]:
    if command.version is not None:
        return (key.version(command.version),)
    able = tuple(v for v in key.versions if (v.state, command.move) in TRANSITIONS)
    if not able:
        states = ", ".join(f"{v.number}: {v.state}" for v in key.versions)
        raise KeyStateError(f"no version of {key.name} can {command.move} ({states})")
    return able


def _moved_version(version: Version, what: Move, epoch: int) -> Version:
    state: State = move(version.state, what)
    lost = epoch if state is State.COMPROMISED else version.compromised_epoch
    return msgspec.structs.replace(version, state=state, compromised_epoch=lost)


def new_generation(key: Key, *, epoch: int) -> Key:
    """The key with all its handles revoked."""
    return msgspec.structs.replace(
        key, generation=key.generation + 1, revision=key.revision + 1, epoch=epoch
    )
