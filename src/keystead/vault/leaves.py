"""Leaves that were committed since the last checkpoint, as the committer made them.

The tree is built of these, not of what the database says they are: whoever writes the database
between a commit and its checkpoint does not alter what the vault signs.
"""

from __future__ import annotations

import threading
from collections import deque

from keystead import limits

__all__ = ["CommittedLeaves"]


class CommittedLeaves:
    """Runs of leaves by their first sequence. One thread adds, another takes."""

    def __init__(self, *, most: int = limits.LOG_LEAVES_HELD_MAX) -> None:
        self._most = most
        self._runs: deque[tuple[int, list[bytes]]] = deque()
        self._held = 0
        self._lock = threading.Lock()

    def add(self, first: int, leaves: list[bytes]) -> None:
        """Take a run; past the bound the oldest go, and are read from the database instead."""
        with self._lock:
            self._runs.append((first, leaves))
            self._held += len(leaves)
            while self._held > self._most:
                self._held -= len(self._runs.popleft()[1])

    def take(self, most: int) -> list[tuple[int, list[bytes]]]:
        """The oldest runs, up to so many leaves, but one run at least if there is any."""
        taken: list[tuple[int, list[bytes]]] = []
        count = 0
        with self._lock:
            while self._runs and (not taken or count + len(self._runs[0][1]) <= most):
                run = self._runs.popleft()
                taken.append(run)
                count += len(run[1])
            self._held -= count
        return taken
