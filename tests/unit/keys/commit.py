"""A commit's state in memory, with the locking and the steps of the real one left out."""

import msgspec

from keystead.errors import NotFound
from keystead.keys.epochs import Accepted, Candidate, Outcome, Replayed, decide
from keystead.keys.model import Key
from keystead.keys.rollout.model import Rotation


class Stored(msgspec.Struct, frozen=True):
    """What is kept under an idempotency key; ``effect`` numbers the accepted use."""

    fingerprint: bytes
    effect: int


class MemoryCommit:
    """Behind ``keys.epochs.CommitView``; ``commit`` applies what ``decide`` accepts.

    ``effects`` holds every accepted candidate in order, with the epoch of its commit.
    """

    def __init__(self, *keys: Key, epoch: int = 1) -> None:
        self.epoch = epoch
        self.revoked: frozenset[str] = frozenset()
        self.stopped: frozenset[str] = frozenset()
        self.keys = {key.id: key for key in keys}
        self.rotations: dict[str, Rotation] = {}
        self.uses: dict[str, int] = {}
        self.counters: dict[tuple[str, str], bytes] = {}
        self.outcomes: dict[tuple[str, str], Stored] = {}
        self.effects: list[tuple[int, Candidate]] = []

    def key(self, key_id: str) -> Key:
        if key_id not in self.keys:
            raise NotFound(f"no key {key_id}")
        return self.keys[key_id]

    def rotation(self, key_id: str) -> Rotation | None:
        return self.rotations.get(key_id)

    def spent(self, link: str) -> int:
        return self.uses.get(link, 0)

    def counter(self, key_id: str, name: str) -> bytes | None:
        return self.counters.get((key_id, name))

    def stored(self, scope: str, key: str) -> Stored | None:
        return self.outcomes.get((scope, key))

    def stored_count(self, scope: str) -> int:
        return sum(1 for kept, _ in self.outcomes if kept == scope)

    def commit(self, candidate: Candidate) -> Outcome:
        """Decide, and if accepted do: spend, step, remember, record."""
        outcome = decide(candidate, self)
        if isinstance(outcome, Accepted):
            for link in outcome.spend:
                self.uses[link] = self.spent(link) + 1
            if outcome.step is not None:
                self.counters[candidate.key_id, outcome.step.name] = outcome.step.new
            if candidate.idempotency is not None:
                scope, name, fingerprint = candidate.idempotency
                self.outcomes[scope, name] = Stored(fingerprint, len(self.effects))
            self.effects.append((self.epoch, candidate))
        return outcome

    def effect_of(self, replayed: Replayed) -> int:
        """Which accepted use a replay is answered with."""
        return self.outcomes[replayed.scope, replayed.key].effect

    def revoke(self, *links: str) -> None:
        """Revoke links under the next epoch."""
        self.revoked |= set(links)
        self.epoch += 1

    def emergency(self, *tenants: str) -> None:
        """Stop these tenants, and no others, under the next epoch."""
        self.stopped = frozenset(tenants)
        self.epoch += 1

    def replace(self, key: Key) -> None:
        """Put a changed key under the next epoch."""
        self.keys[key.id] = key
        self.epoch += 1
