"""The state inside one transaction, with what that transaction has accepted so far on top."""

from __future__ import annotations

from keystead import limits
from keystead.errors import InvariantViolation
from keystead.keys.epochs import Accepted
from keystead.keys.model import Key
from keystead.keys.rollout.model import Rotation
from keystead.ports import IdempotencyRow, Transaction
from keystead.vault.authority import Snapshot
from keystead.vault.macs import VaultSecrets

__all__ = ["TransactionView"]


class TransactionView:
    """Behind ``keys.epochs.CommitView``. Reads each value through to the transaction once.

    ``counts`` holds live idempotency keys by scope, across transactions, as counting them is
    linear; the caller keeps it after a commit and drops it after a failure. Of the scopes in
    ``pruned`` it may be too high: they are counted anew once that would refuse a use.
    """

    def __init__(
        self,
        tx: Transaction,
        snapshot: Snapshot,
        secrets: VaultSecrets,
        counts: dict[str, int],
        pruned: set[str] | None = None,
    ) -> None:
        self._tx = tx
        self._snapshot = snapshot
        self._secrets = secrets
        self.epoch = snapshot.epoch
        self.revoked = snapshot.revoked
        self.stopped = snapshot.stopped
        self._pruned = set() if pruned is None else pruned
        self.counts = counts if len(counts) < limits.HANDLE_CACHE_MAX else {}
        self._spent: dict[str, int] = {}
        self._counters: dict[tuple[str, str], bytes | None] = {}
        self._stepped: dict[tuple[str, str], bytes] = {}
        self._stored: dict[tuple[str, str], IdempotencyRow] = {}

    def key(self, key_id: str) -> Key:
        """The key as of this commit."""
        return self._snapshot.key(key_id)

    def rotation(self, key_id: str) -> Rotation | None:
        """How the key rotates, as of this commit."""
        return self._snapshot.rotations.get(key_id)

    def spent(self, link: str) -> int:
        """Uses spent under a link, this transaction's included."""
        if link not in self._spent:
            self._spent[link] = self._tx.spent(link)
        return self._spent[link]

    def counter(self, key_id: str, name: str) -> bytes | None:
        """A counter's state, this transaction's steps included."""
        at = (key_id, name)
        if at not in self._counters:
            stored = self._tx.counter(key_id, name)
            self._counters[at] = self._secrets.open_counter(key_id, name, stored)
        return self._counters[at]

    def stored(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key, this transaction's included."""
        return self._stored.get((scope, key)) or self._tx.idempotent(scope, key)

    def stored_count(self, scope: str) -> int:
        """Live idempotency keys of a scope, this transaction's included."""
        known = self.counts.get(scope)
        full = known is not None and known >= limits.IDEMPOTENCY_KEYS_PER_HANDLE_MAX
        if known is None or (full and scope in self._pruned):
            self._pruned.discard(scope)
            in_this_one = sum(at[0] == scope for at in self._stored)
            self.counts[scope] = known = self._tx.idempotent_count(scope) + in_this_one
        return known

    def replayed(self, scope: str, key: str) -> IdempotencyRow:
        """The outcome that a replay is answered with."""
        row = self.stored(scope, key)
        if row is None:
            raise InvariantViolation("a replay has no stored outcome")
        return self._secrets.open_outcome(row)

    def accept(self, key_id: str, accepted: Accepted) -> None:
        """Spend and step what an accepted use does."""
        for link in accepted.spend:
            self._spent[link] = self.spent(link) + 1
        if accepted.step is not None:
            at = (key_id, accepted.step.name)
            self._counters[at] = accepted.step.new
            self._stepped[at] = self._secrets.seal_counter(*at, accepted.step.new)

    def remember(self, row: IdempotencyRow) -> None:
        """Keep an outcome under its idempotency key."""
        live = self.stored_count(row.scope)
        self._stored[row.scope, row.key] = row
        self.counts[row.scope] = live + 1

    def flush(self) -> None:
        """Write what was accepted, in an order that all nodes keep to: else two could block."""
        if self._stored:
            self._tx.put_idempotent([row for _, row in sorted(self._stored.items())])
        if self._spent:
            self._tx.put_spent(self._spent)
        if self._stepped:
            self._tx.put_counters(self._stepped)
