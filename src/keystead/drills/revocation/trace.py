"""What was seen of a drill, as values: everything that its checks and its picture are made of.

Times are nanoseconds of ``CLOCK_MONOTONIC``, which all processes of one machine share.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

from keystead.drills.revocation.targets import Target

__all__ = [
    "OK",
    "Change",
    "Front",
    "How",
    "Recorded",
    "Stopped",
    "Trace",
    "Use",
]

OK = "ok"
How = Literal["hot", "steady", "again", "last"]
"""``hot``: of a target around its end; ``steady``: of a handle that nobody revokes; ``again``: a
use that was answered, repeated under its idempotency key; ``last``: when all was over."""


class Use(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """One use, as whoever asked for it saw it. ``outcome``: ``ok``, or the code of the refusal.

    ``target``: -1 for a steady one. ``seq``: -1 where an answer does not tell it.
    """

    target: int
    front: int
    how: How
    began_ns: int
    ended_ns: int
    outcome: str
    ack: str = ""
    node: str = ""
    seq: int = -1
    epoch: int = 0
    request: str = ""


class Stopped(msgspec.Struct, frozen=True, kw_only=True):
    """One revocation. ``node``, ``seq``, ``epoch``: its record, as its answer says.

    ``commit_ms``: from taking the command to its commit, by the node's clock; None: not timed.
    ``bound_ms`` and ``ended_ms``: where something may answer before its record: the most that it
    may take after the commit, and has taken, until nothing was answered any more; else None.
    """

    target: int
    sent_ns: int
    answered_ns: int
    node: str
    seq: int
    epoch: int
    commit_ms: float | None
    bound_ms: float | None = None
    ended_ms: float | None = None

    @property
    def committed_ns(self) -> int:
        """When it was committed, at the earliest: the way to the node is not counted."""
        return self.sent_ns + round((self.commit_ms or 0.0) * 1e6)


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """One record of a use that was done, as a node's log holds it."""

    target: int
    node: str
    seq: int
    epoch: int
    request: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """The record that a revocation says is its own, as the log holds it.

    ``own``: it tells of the target's key, handle or link.
    """

    target: int
    operation: str
    epoch: int
    outcome: str
    own: bool


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """Where uses are sent, and the node that answers there."""

    url: str
    node: str


class Trace(msgspec.Struct, kw_only=True):
    """A whole drill. ``gave_up``: what did not come in time, and ended it early."""

    run: str
    fronts: tuple[Front, ...]
    targets: tuple[Target, ...]
    uses: list[Use] = []
    stopped: list[Stopped] = []
    recorded: list[Recorded] = []
    changes: list[Change] = []
    gave_up: str = ""

    def of(self, ack: str) -> Iterator[tuple[Target, Stopped]]:
        """What was stopped of the keys that answer in one way."""
        for one in self.stopped:
            target = self.targets[one.target]
            if target.work.ack == ack:
                yield target, one
