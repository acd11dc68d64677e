"""One deadline for every open request, without a timer each."""

from __future__ import annotations

import asyncio

from keystead import limits

__all__ = ["RequestWatch"]

_PERIOD_MAX_S = 1.0


class RequestWatch:
    """Cancels the task of a request that is open for longer than ``timeout_s``.

    All requests have the same time, so they expire in the order in which they came: one timer
    looks at the oldest. A deadline is late by at most a second.
    """

    def __init__(self, timeout_s: float = limits.REQUEST_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._period_s = min(_PERIOD_MAX_S, timeout_s / 2)
        self._since: dict[asyncio.Task[object], float] = {}
        self._expired: set[asyncio.Task[object]] = set()
        self._armed = False

    def enter(self, task: asyncio.Task[object], now: float) -> None:
        """Watch the task from ``now``, in the loop's seconds."""
        self._since[task] = now
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_later(self._period_s, self._look)

    def leave(self, task: asyncio.Task[object]) -> None:
        """The request is answered, or is not waited for any more."""
        self._since.pop(task, None)

    def expired(self, task: asyncio.Task[object]) -> bool:
        """Whether a cancellation came from here; if so it is taken back, once."""
        if task not in self._expired:
            return False
        self._expired.discard(task)
        task.uncancel()
        return True

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for task, since in list(self._since.items()):
            if loop.time() - since < self._timeout_s:
                break
            del self._since[task]
            self._expired.add(task)
            task.cancel()
        self._armed = bool(self._since)
        if self._armed:
            loop.call_later(self._period_s, self._look)
