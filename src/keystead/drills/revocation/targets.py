"""What a drill stops, and how: a plan of revocations as values, nothing done yet."""

from __future__ import annotations

from typing import Literal

import msgspec

from keystead.keys.purposes import Purpose

__all__ = [
    "COMBINATIONS",
    "HOT_PER_S",
    "HOT_TASKS",
    "KINDS",
    "REFUSALS",
    "REVOCATIONS_MAX",
    "REVOCATIONS_MIN",
    "STEADY_BATCH",
    "STEADY_PER_S",
    "WARM_USES",
    "Kind",
    "Target",
    "Work",
    "key_name",
    "targets",
]

Kind = Literal["link", "handle", "handles", "suspended", "compromised"]
KINDS: tuple[Kind, ...] = ("link", "handle", "handles", "suspended", "compromised")
"""A link of a handle, a handle, all handles of a key, or its versions: for now, or for good."""

REVOCATIONS_MIN, REVOCATIONS_MAX = 15, 1_000
"""Fifteen are every kind with every work, once."""
HOT_TASKS = 4
"""Tasks on each front that use what is about to be stopped, each waiting for its answer."""
HOT_PER_S = 160
"""Uses a second of them all, on each front."""
STEADY_PER_S = 100
"""Uses a second, on each front, of handles that nobody revokes."""
STEADY_BATCH = 10
"""Of those, in one request."""
WARM_USES = 4
"""A target is in use on a front once it was used there so often, the way that its key promises."""
REFUSALS = 4
"""Refusals in a row on a front, of uses begun after the acknowledgement, that end a target."""


class Work(msgspec.Struct, frozen=True):
    """What a key does, and whether it answers before its record."""

    purpose: Literal["tls", "jwt"]
    ack: Literal["durable", "best_effort"]


_SHARED = frozenset({"link", "handle"})
WORKS: tuple[Work, ...] = (
    Work("tls", "durable"),
    Work("tls", "best_effort"),
    Work("jwt", "durable"),
)
COMBINATIONS = len(KINDS) * len(WORKS)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to stop. ``via``: the front that is asked; ``key``: its key's name.

    Links and handles of one work share a key, of which another handle stays in use: it must not
    notice.
    """

    number: int
    kind: Kind
    work: Work
    via: int
    key: str


def targets(run: str, count: int, fronts: int) -> tuple[Target, ...]:
    """So many targets: each combination of kind and work in turn, through each front in turn."""
    made: list[Target] = []
    for number in range(count):
        kind = KINDS[number // len(WORKS) % len(KINDS)]
        work = WORKS[number % len(WORKS)]
        own = "shared" if kind in _SHARED else f"{number:03}"
        made.append(
            Target(
                number=number,
                kind=kind,
                work=work,
                via=(number % COMBINATIONS + number // COMBINATIONS) % fronts,
                key=key_name(run, work, own),
            )
        )
    return tuple(made)


def key_name(run: str, work: Work, own: str) -> str:
    """The name of a drill's key."""
    return f"drill-{run}-{Purpose(work.purpose)}-{work.ack.replace('_', '-')}-{own}"
