"""May this handle do this use? Pure checks at the boundary: I1, I3, I5, and proof of possession."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Any

import msgspec

from keystead import limits
from keystead.encoding import length_prefixed
from keystead.errors import (
    AlgorithmForbidden,
    ContextMismatch,
    HandleExpired,
    HandleInvalid,
    HandleRevoked,
    KeyStateError,
    PermissionDenied,
)
from keystead.keys.algorithms import ALGORITHMS
from keystead.keys.caveats import (
    Algorithms,
    BoundTo,
    Caveat,
    ContextPrefix,
    NotAfter,
    Operations,
    Rate,
    Uses,
    Versions,
)
from keystead.keys.handles import Grant
from keystead.keys.lifecycle import check_may_process, check_may_protect
from keystead.keys.model import Key, Version, check_context
from keystead.keys.purposes import SIGNALS, check_operation, effective_algorithm
from keystead.keys.rollout.choosing import reproduces, served
from keystead.keys.rollout.model import Rotation
from keystead.keys.standing import check_not_stopped

__all__ = [
    "Asked",
    "Bearer",
    "Decided",
    "check_grant",
    "check_standing",
    "decide_use",
    "proof_is_fresh",
    "proof_message",
]

_PROCESSING = frozenset({"unwrap"})
"""Operations that read what a version protected before; all others protect anew."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request asks for: version 0 means the primary one.

    ``revokes``: it is a revocation list, which the version that issued signs as long as it can.
    """

    purpose: str
    operation: str
    context: str
    version: int = 0
    revokes: bool = False


class Bearer(msgspec.Struct, frozen=True, kw_only=True):
    """What the vault itself established about the sender.

    ``certificate_digest``, ``ed25519``: whose signature over the request it verified.
    ``unix_peer``: ``name:uid`` of the socket's owner.
    """

    certificate_digest: bytes | None = None
    ed25519: bytes | None = None
    unix_peer: bytes | None = None


class Decided(msgspec.Struct, frozen=True, kw_only=True):
    """A use that the handle, the key's policy and the lifecycle allow."""

    version: Version
    algorithm: str


def decide_use(  # noqa: PLR0913  a use, and all of the state that it is held against
    grant: Grant,
    key: Key,
    asked: Asked,
    bearer: Bearer,
    *,
    now_ms: int,
    revoked: frozenset[str],
    stopped: frozenset[str],
    rotation: Rotation | None = None,
    chosen: int | None = None,
) -> Decided:
    """Decide one use against its handle and the key as it stands.

    ``revoked``: ids of links and of handles. ``stopped``: tenants that an emergency stop is for.
    ``chosen``: the version that the rollout has for this subject, if the caller names none; None:
    the primary one.

    Raises:
        HandleInvalid, PurposeMismatch, HandleRevoked, HandleExpired, PermissionDenied,
        ContextMismatch, AlgorithmForbidden, KeyStateError, NotFound, MalformedRequest: the first
            rule it breaks.
    """
    if grant.body.key_id != key.id or grant.body.purpose is not key.purpose:
        raise HandleInvalid("the handle names another key or purpose than the one it is used for")
    check_operation(key.purpose, asked.purpose, asked.operation)
    check_context(asked.context)
    number = asked.version or (key.primary if chosen is None else chosen)
    version = key.version(number) if number else key.primary_version()
    algorithm = effective_algorithm(key.purpose, asked.operation, version.algorithm)
    check_grant(grant, asked, bearer, algorithm=algorithm, version=version.number, now_ms=now_ms)
    check_standing(
        grant,
        key,
        asked.operation,
        version.number,
        revoked,
        rotation,
        stopped=stopped,
        revokes=asked.revokes,
    )
    _check_prehashed(grant, key, asked.operation)
    return Decided(version=version, algorithm=algorithm)


def _check_prehashed(grant: Grant, key: Key, operation: str) -> None:
    if operation in SIGNALS:
        return
    if (operation == "sign_digest") != key.prehashed:
        raise PermissionDenied(
            f"key {key.name} was {'' if key.prehashed else 'not '}created as prehashed",
            hint="A prehashed key signs digests only, any other key signs none",
        )
    if key.prehashed and not any(
        isinstance(caveat, BoundTo) and caveat.kind == "unix" for caveat in grant.caveats
    ):
        raise PermissionDenied(
            "a prehashed key signs for socket-bound handles only",
            hint="Use it through `keystead remote`, whose socket the handle is bound to",
        )


def check_grant(
    grant: Grant, asked: Asked, bearer: Bearer, *, algorithm: str, version: int, now_ms: int
) -> None:
    """Hold a use to every caveat, each by itself, so that none can widen another (I5).

    Raises:
        PermissionDenied, ContextMismatch, AlgorithmForbidden, HandleExpired.
    """
    if asked.operation not in grant.body.operations:
        raise _operation_denied(asked.operation)
    if grant.caveats:
        use = _Use(asked.operation, asked.context, bearer, algorithm, version, now_ms)
        for caveat in grant.caveats:
            _NARROWED[type(caveat)](caveat, use)


def check_standing(  # noqa: PLR0917  a use, and the state that it is held against
    grant: Grant,
    key: Key,
    operation: str,
    version: int,
    revoked: frozenset[str],
    rotation: Rotation | None = None,
    *,
    stopped: frozenset[str],
    revokes: bool = False,
) -> None:
    """What a change of epoch can take away; checked again in the commit (I3, I4).

    Raises:
        HandleRevoked: the key's generation, the handle, or a link of its chain.
        KeyStateError: an emergency stop, the version's state, or the key's rollout does not allow
            the operation.
    """
    if (
        grant.body.generation != key.generation
        or grant.body.handle_id in revoked
        or not revoked.isdisjoint(grant.links)
    ):
        raise HandleRevoked(
            "the handle was revoked", hint="Ask whoever issued it for a new one, and for the reason"
        )
    if operation in SIGNALS:
        return  # it uses no version, and tells what people need to know in an emergency, too
    check_not_stopped(key.tenant, stopped)
    _check_version(key, operation, version, rotation, revokes=revokes)
    if ALGORITHMS[key.version(version).algorithm].name not in key.algorithms:
        raise AlgorithmForbidden(f"the key's policy no longer allows version {version}'s algorithm")


def _check_version(
    key: Key, operation: str, number: int, rotation: Rotation | None, *, revokes: bool
) -> None:
    """The lifecycle and the rollout both allow it (I3); what an older version gave is given again.

    What an authority's older version issued, only that one can revoke: its list is of its name.

    Raises:
        KeyStateError: one of them does not.
    """
    state = key.version(number).state
    if operation in _PROCESSING:
        check_may_process(state)
    elif number in served(key, rotation):
        check_may_protect(state)
    elif revokes or reproduces(key.purpose, operation):
        check_may_process(state)
    else:
        raise KeyStateError(
            f"version {number} of {key.name} does no new work: version {key.primary} does",
            hint="Name no version, and the key's rollout chooses; `keystead key status` shows it",
        )


def proof_message(  # noqa: PLR0917  in the order of the bytes, as every caller has them
    deployment: str, chain_id: str, asked: Asked, facts: bytes, nonce: str, time_ms: int
) -> bytes:
    """The bytes that a bound handle's holder signs for one request.

    ``nonce`` is the request's idempotency key, so that a replayed proof has no second effect;
    ``facts`` are the request's facts, as canonical msgpack; ``time_ms`` must be within
    ``limits.PROOF_SKEW_MS`` of the vault's clock.
    """
    return length_prefixed(
        (
            b"keystead/proof/v1",
            deployment.encode(),
            chain_id.encode(),
            f"{asked.purpose}.{asked.operation}.{asked.version}".encode(),
            asked.context.encode(),
            hashlib.sha256(facts).digest(),
            nonce.encode(),
            str(time_ms).encode(),
        )
    )


def proof_is_fresh(time_ms: int, now_ms: int) -> bool:
    """Whether a proof's time is close enough to the vault's."""
    return abs(now_ms - time_ms) <= limits.PROOF_SKEW_MS


# --- one check a type of caveat ------------------------------------------------------------------


class _Use(msgspec.Struct, frozen=True, gc=False):
    """What caveats are held against."""

    operation: str
    context: str
    bearer: Bearer
    algorithm: str
    version: int
    now_ms: int


def _operation_denied(operation: str) -> PermissionDenied:
    return PermissionDenied(f"the handle does not allow {operation!r}")


def _operations(caveat: Operations, use: _Use) -> None:
    if use.operation not in caveat.operations:
        raise _operation_denied(use.operation)


def _context_prefix(caveat: ContextPrefix, use: _Use) -> None:
    prefix = caveat.prefix
    if use.context != prefix and not use.context.startswith(prefix + "/"):
        raise ContextMismatch(
            f"the handle is for {prefix!r} and below, the context is {use.context!r}"
        )


def _algorithms(caveat: Algorithms, use: _Use) -> None:
    if use.algorithm not in caveat.algorithms:
        raise AlgorithmForbidden(f"the handle does not allow {use.algorithm}")


def _versions(caveat: Versions, use: _Use) -> None:
    if use.version not in caveat.versions:
        raise PermissionDenied(f"the handle does not allow version {use.version}")


def _not_after(caveat: NotAfter, use: _Use) -> None:
    if use.now_ms > caveat.not_after_ms:
        raise HandleExpired(f"the handle ended {(use.now_ms - caveat.not_after_ms) // 1000} s ago")


def _bound_to(caveat: BoundTo, use: _Use) -> None:
    shown = {
        "certificate": use.bearer.certificate_digest,
        "ed25519": use.bearer.ed25519,
        "unix": use.bearer.unix_peer,
    }[caveat.kind]
    if shown is None or not hmac.compare_digest(shown, caveat.value):
        raise PermissionDenied(
            f"the handle is bound to a {caveat.kind} that this request does not prove",
            hint="Sign the request with the bound key: SDK option `bound`, CLI option --proof-key",
        )


def _budget(_caveat: Rate | Uses, _use: _Use) -> None:
    """Budgets are counted in the commit or by the node, not compared here."""


_NARROWED: dict[type[Caveat], Callable[[Any, _Use], None]] = {
    Operations: _operations,
    ContextPrefix: _context_prefix,
    Algorithms: _algorithms,
    Versions: _versions,
    NotAfter: _not_after,
    BoundTo: _bound_to,
    Rate: _budget,
    Uses: _budget,
}
"""Caveat type to its check. A type that is missing here ends every use with a KeyError."""
