"""Follows the epoch that other nodes move, and says how far this node has come.

No use of a durable key needs this: the commit reads the epoch itself. It is for what happens before
a commit: best-effort answers, admission, publications; and for whoever waits until a revocation
holds here, too. A notification only wakes; the epoch that is read is the truth.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial

import structlog

from keystead import limits
from keystead.errors import KeysteadError, LogUnavailable
from keystead.ports import EpochWatch, Transaction
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Applied, Change, Committed, Committer
from keystead.vault.macs import VaultSecrets
from keystead.vault.standing import Standing

__all__ = ["Following"]


class Following:
    """All methods run on the loop, but the watch, which has a thread of its own.

    ``confirmed``: the epoch that this node has said to hold to.
    """

    def __init__(
        self,
        *,
        standing: Standing,
        secrets: VaultSecrets,
        committer: Committer,
        watch: EpochWatch,
        loop: asyncio.AbstractEventLoop,
        url: str = "",
    ) -> None:
        self._standing = standing
        self._secrets = secrets
        self._committer = committer
        self._watch = watch
        self._loop = loop
        self._url = url
        self._beat = 0
        self._refreshing = False
        self._confirming = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="following", daemon=True)
        self.confirmed = 0

    def start(self) -> None:
        """Begin to watch, in a thread."""
        self._thread.start()

    def close(self) -> None:
        """Watch no more."""
        self._stopping.set()
        self._watch.close()
        if self._thread.is_alive():
            self._thread.join()

    def moved(self, epoch: int) -> None:
        """The epoch is committed: take over what has changed, then say so.

        In this order: what is confirmed is what the loop holds its uses to from now on. Records of
        best-effort uses that were answered before stand in the committer's queue, ahead of the
        confirmation.
        """
        if epoch > self._standing.snapshot.epoch:
            if not self._refreshing:
                self._refreshing = True
                self._committer.change(Change(_nothing, self._refreshed, "shared"))
            return
        self._confirm()

    def _refreshed(self, outcome: tuple[object, Committed] | KeysteadError) -> None:
        """The committer has read what is new, and gave it to the loop before this."""
        self._refreshing = False
        if not isinstance(outcome, KeysteadError):
            self._confirm()

    def _confirm(self) -> None:
        epoch = self._standing.snapshot.epoch
        if epoch <= max(self.confirmed, self._confirming):
            return
        self._confirming = epoch
        self._beat += 1
        row = self._secrets.node_row(self._standing.node, epoch, self._beat, self._url)

        def apply(tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
            tx.put_node(row)
            return Applied()

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            if self._confirming == epoch:
                self._confirming = 0
            if not isinstance(outcome, KeysteadError):
                self.confirmed = max(self.confirmed, epoch)

        self._committer.change(Change(apply, deliver, "shared"))

    # --- the thread's side -------------------------------------------------------------------

    def _run(self) -> None:
        log = structlog.get_logger("vault")
        silent = False
        while not self._stopping.is_set():
            try:
                epoch = self._watch.wait(limits.EPOCH_POLL_S)
            except LogUnavailable as exc:
                if not silent and not self._stopping.is_set():
                    log.warning("epoch_watch", error=str(exc))
                silent = True
                self._stopping.wait(limits.EPOCH_POLL_S)
                continue
            silent = False
            self._tell(partial(self.moved, epoch))

    def _tell(self, call: Callable[[], None]) -> None:
        try:
            self._loop.call_soon_threadsafe(call)
        except RuntimeError:  # the loop has ended
            self._stopping.set()


def _nothing(_tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
    """A transaction reads the epoch, and what has changed with it, before it does anything."""
    return Applied()
