"""Best-effort uses across nodes: what a reservation allows, and when a revocation is through.

Durable uses need none of this: the commit fence decides them (``keys.epochs``). A best-effort use
is answered before its record, out of a reservation that its node made durable before (I2); so a
node that has not heard of a revocation yet may still answer, for as long as its reservation lives,
and no longer. Time here is CLOCK_BOOTTIME of one machine, never compared with another's: a life is
measured from before it was asked for by whoever spends it, and from the revocation's commit by
whoever waits it out. All reservations it waits for were asked for before that commit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Protocol, TypeVar

from keystead import limits

__all__ = ["BOUND_MS", "bound_is_over", "may_spend", "outstanding"]

BOUND_MS = limits.RESERVATION_LIFE_MS + limits.RESERVATION_DRIFT_MS
"""After so many milliseconds from its commit a revocation holds everywhere, whoever was not heard:
the life of a reservation, and what two clocks may have drifted apart in that time."""


class Reserved(Protocol):
    """Of a reservation that is open in the registry: whose it is, and under which epoch."""

    @property
    def node(self) -> str: ...
    @property
    def key_id(self) -> str: ...
    @property
    def epoch(self) -> int: ...


_R = TypeVar("_R", bound=Reserved)


def may_spend(*, count: int, spent: int, expires_boot_ms: int, now_boot_ms: int) -> bool:
    """Whether one more use may be answered out of a reservation."""
    return spent < count and now_boot_ms < expires_boot_ms


def outstanding(
    open_rows: Iterable[_R],
    seen: Mapping[str, int],
    *,
    epoch: int,
    key_ids: Collection[str],
    own: str,
) -> tuple[_R, ...]:
    """Open reservations that could still allow what the change of ``epoch`` took away.

    Those of the keys that it was about, asked for under an earlier epoch, on nodes that have not
    confirmed it: ``seen`` says up to which epoch each has. ``own``: the node that changed it, which
    spends nothing while a change of its own is under way.
    """
    return tuple(
        row
        for row in open_rows
        if row.node != own
        and row.key_id in key_ids
        and row.epoch < epoch
        and seen.get(row.node, 0) < epoch
    )


def bound_is_over(*, committed_boot_ms: int, now_boot_ms: int) -> bool:
    """Whether every reservation from before a commit has ended, by the clock of who committed."""
    return now_boot_ms - committed_boot_ms >= BOUND_MS
