"""Whether the vault may work at all, and on which snapshot: the little state its services share."""

from __future__ import annotations

from collections import Counter

from keystead.errors import KeysteadError
from keystead.vault.authority import Snapshot

__all__ = ["Standing"]


class Standing:
    """Changed on the loop only.

    ``tampered``: the registry was found altered: nothing is done any more until a restart.
    ``unanchored``: the log's anchors were not heard yet: no key is used, all else works.
    ``trouble``: the last commit failed; cleared by the next that does not. ``counters``: (name,
    label) to count.
    """

    def __init__(self, snapshot: Snapshot, *, deployment: str, node: str) -> None:
        self.snapshot = snapshot
        self.deployment = deployment
        self.node = node
        self.tampered: KeysteadError | None = None
        self.unanchored: KeysteadError | None = None
        self.trouble: KeysteadError | None = None
        self.counters: Counter[tuple[str, str]] = Counter()

    def check(self) -> None:
        """Raise what stands in the way of any work.

        Raises:
            StateRolledBack: the registry is not what its digest says.
        """
        if self.tampered is not None:
            raise self.tampered

    def check_use(self) -> None:
        """Raise what stands in the way of using a key.

        Raises:
            StateRolledBack: the registry is not what its digest says, or older than an anchor.
            LogUnavailable: nobody knows yet whether it is.
        """
        self.check()
        if self.unanchored is not None:
            raise self.unanchored

    def reasons(self) -> list[KeysteadError]:
        """Why keys are not used, if they are not."""
        if self.tampered is not None:
            return [self.tampered]
        return [error for error in (self.unanchored, self.trouble) if error is not None]

    def count(self, name: str, label: str = "", by: int = 1) -> None:
        """Count something for the metrics."""
        self.counters[name, label] += by
