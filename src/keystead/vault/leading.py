"""Whether this node leads: drives rollouts on, begins scheduled rotations, prunes.

One of the nodes does, by a lease in the registry (``keys.leases``). What must be stopped any node
stops; only what goes on waits for the leader, whose every step checks the fence in its own commit.
"""

from __future__ import annotations

from keystead.errors import KeysteadError
from keystead.keys.leases import Lease, Sighting, check_leads, claim, sighted
from keystead.ports import Clock, LeaseRow, Transaction
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Applied, Change, Committed, Committer
from keystead.vault.macs import VaultSecrets
from keystead.vault.standing import Standing

__all__ = ["Leading"]

_NAME = "steward"


class Leading:
    """All methods run on the loop, but ``check``: that runs in the commit.

    ``alone``: no other node can be on this registry, so that this one leads without a lease.
    """

    def __init__(
        self,
        *,
        standing: Standing,
        secrets: VaultSecrets,
        committer: Committer,
        clock: Clock,
        alone: bool,
    ) -> None:
        self._standing = standing
        self._secrets = secrets
        self._committer = committer
        self._clock = clock
        self._alone = alone
        self._sighting: Sighting | None = None
        self._fence = 0
        self._asked = False

    @property
    def leads(self) -> bool:
        """Whether it led when it last looked; the commit knows better."""
        return self._alone or self._fence > 0

    @property
    def leader(self) -> str:
        """The node that led when this one last looked; empty: it has not looked yet."""
        if self._alone:
            return self._standing.node
        return "" if self._sighting is None else self._sighting.lease.holder

    def renew(self) -> None:
        """One round: renew the lease, or take it over if its holder does not any more."""
        if self._alone or self._asked:
            return
        self._asked = True
        now = self._clock.boottime_ms()

        def apply(tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
            lease = self._read(tx)
            wanted = claim(lease, self._sighting, node=self._standing.node, now_boot_ms=now)
            if wanted is not None:
                tx.put_lease(self._secrets.lease_row(_NAME, wanted))
            return Applied(value=wanted or lease)

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            self._asked = False
            if isinstance(outcome, KeysteadError) or not isinstance(outcome[0], Lease):
                return
            lease = outcome[0]
            # By the clock as it is now: the lease may have been renewed after this round began.
            self._sighting = sighted(self._sighting, lease, self._clock.boottime_ms())
            self._fence = lease.fence if lease.holder == self._standing.node else 0

        self._committer.change(Change(apply, deliver, "shared"))

    def check(self, tx: Transaction, fence: int) -> None:
        """Hold what a leader does to the lease, in its commit.

        Raises:
            Conflict: another node leads.
            StateRolledBack: the lease was altered.
        """
        if not self._alone:
            check_leads(self._read(tx), node=self._standing.node, fence=fence)

    @property
    def fence(self) -> int:
        """Under which what this node does as the leader is to be checked."""
        return self._fence

    def _read(self, tx: Transaction) -> Lease | None:
        row: LeaseRow | None = tx.lease(_NAME)
        if row is None:
            return None
        self._secrets.check_lease(row)
        return Lease(row.holder, row.fence, row.beat)
