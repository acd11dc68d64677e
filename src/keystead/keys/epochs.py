"""The commit fence and what else is decided inside the commit: pure, and the point that counts.

Design section 7: every use commits in a transaction that reads the epoch. If the epoch moved since
the request was checked, the use is checked again here, before its record is written. Budgets,
counters and idempotency keys are decided here too, because only here all nodes agree on them.
"""

from __future__ import annotations

import hmac
from typing import Protocol

import msgspec

from keystead import limits
from keystead.errors import Conflict, KeysteadError, LimitExceeded, ReplayConflict
from keystead.keys.framing.base import CounterStep
from keystead.keys.handles import Grant
from keystead.keys.model import Key
from keystead.keys.rollout.model import Rotation
from keystead.keys.use import check_standing

__all__ = [
    "Accepted",
    "Candidate",
    "CommitView",
    "Outcome",
    "Replayed",
    "check_idempotent",
    "decide",
]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A use that has been done and not yet committed; its result has not been released.

    ``epoch``: under which it was checked. ``idempotency``: (scope, key, fingerprint) if it has one.
    ``budgets``: (what is counted, most uses) of each durable budget that the use spends one of.
    ``revokes``: as in ``keys.use.Asked``.
    """

    grant: Grant
    key_id: str
    operation: str
    version: int
    epoch: int
    budgets: tuple[tuple[str, int], ...] = ()
    idempotency: tuple[str, str, bytes] | None = None
    step: CounterStep | None = None
    revokes: bool = False


class StoredOutcome(Protocol):
    """What a view gives for an idempotency key."""

    @property
    def fingerprint(self) -> bytes: ...


class CommitView(Protocol):
    """The state inside the transaction, with what this transaction has already accepted.

    ``revoked``: ids of links and handles. ``stopped``: tenants that an emergency stop is for.
    """

    epoch: int
    revoked: frozenset[str]
    stopped: frozenset[str]

    def key(self, key_id: str) -> Key:
        """The key as of this commit; raises NotFound."""
        ...

    def rotation(self, key_id: str) -> Rotation | None:
        """How the key rotates, as of this commit."""
        ...

    def spent(self, link: str) -> int:
        """Uses spent under a link, or under another durable budget's name."""
        ...

    def counter(self, key_id: str, name: str) -> bytes | None:
        """A durable counter's state; ``None`` before its first step."""
        ...

    def stored(self, scope: str, key: str) -> StoredOutcome | None:
        """The outcome under an idempotency key."""
        ...

    def stored_count(self, scope: str) -> int:
        """Live idempotency keys of a scope."""
        ...


class Accepted(msgspec.Struct, frozen=True):
    """Write the record; spend these; step this."""

    spend: tuple[str, ...]
    step: CounterStep | None


class Replayed(msgspec.Struct, frozen=True):
    """Another commit has done it already: give that outcome, write nothing."""

    scope: str
    key: str


Outcome = Accepted | Replayed | KeysteadError


def decide(candidate: Candidate, view: CommitView) -> Outcome:
    """Decide one use inside its commit. An error is returned, not raised: it becomes a denial."""
    try:
        if candidate.epoch != view.epoch:  # the fence: I3 and I4
            check_standing(
                candidate.grant,
                view.key(candidate.key_id),
                candidate.operation,
                candidate.version,
                view.revoked,
                view.rotation(candidate.key_id),
                stopped=view.stopped,
                revokes=candidate.revokes,
            )
        if candidate.idempotency is not None:
            scope, name, fingerprint = candidate.idempotency
            if check_idempotent(view.stored(scope, name), fingerprint):
                return Replayed(scope, name)
            _check_room(view.stored_count(scope))
        spend = _affordable(candidate, view)
        _check_step(candidate, view)
    except KeysteadError as refusal:
        return refusal
    return Accepted(spend, candidate.step)


def check_idempotent(stored: StoredOutcome | None, fingerprint: bytes) -> bool:
    """Whether this request was already done.

    Raises:
        ReplayConflict: the idempotency key was used for another payload (I6).
    """
    if stored is None:
        return False
    if not hmac.compare_digest(stored.fingerprint, fingerprint):
        raise ReplayConflict(
            "the idempotency key was used before for another request",
            hint="Make a new key for each new request; repeat a key only to retry the same one",
        )
    return True


def _check_room(live: int) -> None:
    if live >= limits.IDEMPOTENCY_KEYS_PER_HANDLE_MAX:
        raise LimitExceeded(
            f"the handle has {live} live idempotency keys",
            hint="Use several handles, or send no idempotency key where a repeat is harmless",
        )


def _affordable(candidate: Candidate, view: CommitView) -> tuple[str, ...]:
    for counted, most in candidate.budgets:
        if view.spent(counted) >= most:
            raise LimitExceeded(
                f"all uses that were allowed are spent, {most} in number",
                hint="Ask the handle's issuer for a new one (a child spends its parents' budget"
                " too); if it is the key version's own limit, rotate the key",
            )
    return tuple(counted for counted, _ in candidate.budgets)


def _check_step(candidate: Candidate, view: CommitView) -> None:
    step = candidate.step
    if step is not None and view.counter(candidate.key_id, step.name) != step.old:
        raise Conflict(
            f"{step.name} has moved on while this use was under way", hint="Send the request again"
        )
