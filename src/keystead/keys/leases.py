"""Who leads: one lease a deployment, with a fence that grows whenever it changes hands.

The holder renews it by a beat. Another node takes it over once it has seen the same beat for so
long by its own CLOCK_BOOTTIME: no clock is compared with another's. Two may believe to lead for a
while, one of them suspended or slow; so whatever a leader does checks the fence inside its own
commit, where only one of them is right.
"""

from __future__ import annotations

import msgspec

from keystead import limits
from keystead.errors import Conflict

__all__ = ["Lease", "Sighting", "check_leads", "claim", "sighted"]


class Lease(msgspec.Struct, frozen=True):
    """``fence``: how often it has changed hands; ``beat``: how often its holder has renewed it."""

    holder: str
    fence: int
    beat: int


class Sighting(msgspec.Struct, frozen=True):
    """A lease as a node has seen it, unchanged since then (boot time in milliseconds)."""

    lease: Lease
    since_boot_ms: int


def sighted(before: Sighting | None, lease: Lease, now_boot_ms: int) -> Sighting:
    """What a node knows after another look: a lease that was renewed counts from now."""
    if before is not None and before.lease == lease:
        return before
    return Sighting(lease, now_boot_ms)


def claim(
    lease: Lease | None, sighting: Sighting | None, *, node: str, now_boot_ms: int
) -> Lease | None:
    """What a node makes of the lease as it stands in the commit; None: another one leads.

    Its own is renewed. One that nobody holds is taken, and so is one that it has seen unchanged for
    ``limits.LEASE_LIFE_MS``: under the next fence, so that the one before is locked out.
    """
    if lease is None:
        return Lease(node, 1, 1)
    if lease.holder == node:
        return Lease(node, lease.fence, lease.beat + 1)
    if (
        sighting is not None
        and sighting.lease == lease
        and now_boot_ms - sighting.since_boot_ms >= limits.LEASE_LIFE_MS
    ):
        return Lease(node, lease.fence + 1, lease.beat + 1)
    return None


def check_leads(lease: Lease | None, *, node: str, fence: int) -> None:
    """Hold what a leader does to the lease as it stands in the commit.

    Raises:
        Conflict: another node has taken it over, even if this one has it again since.
    """
    if lease is None or lease.holder != node or lease.fence != fence:
        raise Conflict(
            f"node {node} does not lead under fence {fence}",
            hint="Another node leads; what it does stands",
        )
