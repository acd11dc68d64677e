"""When a revocation holds everywhere: at its commit, but for answers that go out before records.

For durable uses there is nothing to wait for: the commit fence decides them. A best-effort answer
of another node, which has not heard of the revocation, may go out until that node confirms the
epoch, or its reservation has ended; so the answer to a revocation waits for that, and for no more
than the bound (design section 7). The clock is CLOCK_BOOTTIME of this machine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from keystead import limits
from keystead.errors import LogUnavailable, StateRolledBack
from keystead.keys.reservations import BOUND_MS, bound_is_over, outstanding
from keystead.ports import Clock, Registry
from keystead.vault.macs import VaultSecrets
from keystead.vault.standing import Standing

__all__ = ["Acknowledgements", "Then"]

Then = Callable[[int | None], None]


class Acknowledgements:
    """All methods run on the loop. ``alone``: no other node can be on this registry."""

    def __init__(
        self,
        *,
        standing: Standing,
        registry: Registry,
        secrets: VaultSecrets,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        alone: bool,
    ) -> None:
        self._standing = standing
        self._registry = registry
        self._secrets = secrets
        self._clock = clock
        self._loop = loop
        self._alone = alone
        self._waiting: dict[int, tuple[asyncio.TimerHandle, Then]] = {}
        self._count = 0

    def wait(self, epoch: int, key_ids: Iterable[str] | None, then: Then) -> None:
        """Call ``then`` once nothing can go out any more that the change of ``epoch`` took away.

        It is given the milliseconds from now until that was so, 0 if it is so already; None: this
        node ends before. Called when the change has committed; whatever was not heard of then is
        over after ``BOUND_MS``.

        ``key_ids``: of the keys that it was about; this node made the change and spent nothing
        meanwhile. None: it was made before, maybe by another node and of keys that this one has
        not heard of: all reservations count, this node's own until it has confirmed the epoch.
        """
        ids = None if key_ids is None else frozenset(key_ids)
        self._look(epoch, ids, then, self._clock.boottime_ms())

    def close(self) -> None:
        """The node ends, and can tell nobody any more when it was so."""
        waiting, self._waiting = self._waiting, {}
        for timer, then in waiting.values():
            timer.cancel()
            then(None)

    def _look(self, epoch: int, ids: frozenset[str] | None, then: Then, began: int) -> None:
        now = self._clock.boottime_ms()
        over = bound_is_over(committed_boot_ms=began, now_boot_ms=now)
        nothing = ids is not None and not ids
        if self._alone or nothing or over or not self._outstanding(epoch, ids):
            then(min(now - began, BOUND_MS))
            return
        self._count += 1
        number = self._count

        def again() -> None:
            self._waiting.pop(number, None)
            self._look(epoch, ids, then, began)

        timer = self._loop.call_later(limits.ACKNOWLEDGE_POLL_S, again)
        self._waiting[number] = (timer, then)

    def _outstanding(self, epoch: int, ids: frozenset[str] | None) -> bool:
        """Whether a node may still answer; also where that cannot be found out now."""
        own = "" if ids is None else self._standing.node
        try:
            rows = [row for row in self._registry.reservations_open(None) if row.node != own]
            if not rows:
                return False
            seen = self._seen()
        except LogUnavailable:
            return True
        about = {row.key_id for row in rows} if ids is None else ids
        return bool(outstanding(rows, seen, epoch=epoch, key_ids=about, own=own))

    def _seen(self) -> dict[str, int]:
        """Up to which epoch each node has confirmed; a row that none of them wrote says nothing."""
        seen: dict[str, int] = {}
        for row in self._registry.nodes():
            try:
                self._secrets.check_node(row)
            except StateRolledBack:
                self._standing.count("invariant_violations", "I10")
                continue
            seen[row.node] = row.seen_epoch
        return seen
