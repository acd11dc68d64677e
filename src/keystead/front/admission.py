"""Admission to the data plane: how much may be open at a time, in all and by handle (I11).

Three bounds of different kinds: fixed ones that keep memory bounded, one that follows the vault's
queue delay, and within that one a fair share for each handle that is in use.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import Hashable

from keystead import limits
from keystead.errors import Overloaded
from keystead.front.pressure import ConcurrencyLimit
from keystead.front.problems import Rejection

__all__ = ["BODY_BYTES_FREE", "BODY_BYTES_OPEN_MAX", "RETRY_AFTER_S", "Admission", "OpenBody"]

RETRY_AFTER_S = 1.0
"""When a refused client may ask again: many turns of any queue that the limit lets grow."""
BODY_BYTES_FREE = 16 * 1024
"""Of each body, what counts towards no common bound: single uses are smaller, so that strangers who
send large bodies and never end them hold up other large bodies only."""
BODY_BYTES_OPEN_MAX = 4 * limits.FRAME_BYTES_MAX
"""Bytes of data-plane bodies that a front holds at a time: four full frames, so that a few large
batches do not cost gigabytes."""
_KEY_BYTES = 16
_REFUSED_MAX = limits.FRONT_IN_FLIGHT_MAX
"""Refused clients that are remembered; past it the longest ago is forgotten."""


class Admission:
    """Counts what is open; past a bound the next one is refused before the vault hears of it.

    A request is open from the end of its body: what a client announces, or begins and does not
    end, costs the others nothing, and only as much memory as it has really sent. Health, metrics
    and admin commands do not pass here, so that the data plane cannot hold up a stop command; they
    are bounded by the number of connections.
    """

    def __init__(
        self,
        *,
        in_flight_max: int = limits.FRONT_IN_FLIGHT_MAX,
        per_handle_max: int = limits.HANDLE_IN_FLIGHT_MAX,
        body_bytes_max: int = BODY_BYTES_OPEN_MAX,
        body_bytes_free: int = BODY_BYTES_FREE,
        batch_items_max: int = limits.VAULT_QUEUE_MAX,
        pressure: ConcurrencyLimit | None = None,
    ) -> None:
        self.pressure = pressure or ConcurrencyLimit()
        self._in_flight_max = in_flight_max
        self._per_handle_max = per_handle_max
        self.body_bytes_max = body_bytes_max
        self.body_bytes_free = body_bytes_free
        self._batch_items_max = batch_items_max
        # Tokens are counted under a keyed hash: what stands here opens nothing, and compares with
        # nothing outside this process.
        self._salt = secrets.token_bytes(_KEY_BYTES)
        self._by_handle: dict[bytes, int] = {}
        self._refused: dict[tuple[Hashable, bytes], float] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self.in_flight = 0
        self.body_bytes = 0
        self.batch_items = 0

    async def enter(self, token: bytes, *, client: Hashable = None) -> bytes:
        """Admit one request under a handle (empty: none), whose body is here.

        The result goes to :meth:`leave`. ``client``: address and port of the
        connection. Whoever was refused and is back on the same connection before ``Retry-After``
        is over waits for the rest of it first: a refusal costs nearly as much as a use, and those
        who ask again at once would otherwise take the time of those who are served.

        Raises:
            Rejection: ``overloaded``, with the bound that it would pass.
        """
        key = hashlib.blake2b(token, digest_size=_KEY_BYTES, key=self._salt).digest()
        if self._refused:
            until_s = self._refused.pop((client, key), 0.0)
            wait_s = until_s - asyncio.get_running_loop().time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
        try:
            self._admit(key)
        except Rejection:
            if client is not None:
                self._remember((client, key))
            raise
        return key

    def _remember(self, who: tuple[Hashable, bytes]) -> None:
        if len(self._refused) >= _REFUSED_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[who] = asyncio.get_running_loop().time() + RETRY_AFTER_S

    def _admit(self, key: bytes) -> None:
        if self._draining:
            raise _overloaded("draining", "the front is stopping")
        if self.in_flight >= self._in_flight_max:
            raise _overloaded("front_in_flight", f"{self._in_flight_max} requests are open here")
        held = self._by_handle.get(key, 0)
        if held >= self._per_handle_max:
            raise _overloaded("handle_in_flight", f"{held} requests are open under this handle")
        limit = self.pressure.limit
        # A handle below its share is let in above the limit: a flood under one does not keep the
        # others out, and all of them together are at most twice the limit.
        if self.in_flight >= limit and held >= limit // (len(self._by_handle) + (not held)):
            self.pressure.opened(self.in_flight)
            raise _overloaded(
                "queue_delay", "the vault's queue is longer than it works off in time"
            )
        self._by_handle[key] = held + 1
        self.in_flight += 1
        self.pressure.opened(self.in_flight)

    def leave(self, key: bytes) -> None:
        """Let go of what :meth:`enter` admitted."""
        self.in_flight -= 1
        held = self._by_handle[key]
        if held > 1:
            self._by_handle[key] = held - 1
        else:
            del self._by_handle[key]
        if self._draining and not self.in_flight:
            self._idle.set()

    def enter_items(self, count: int) -> None:
        """Admit the items of a batch, all or none; more than the vault's queue would fail there.

        Raises:
            Rejection: as for :meth:`enter`.
        """
        if self.batch_items + count > self._batch_items_max:
            raise _overloaded("batch_items", f"{self.batch_items} items of batches are open here")
        self.batch_items += count

    def leave_items(self, count: int) -> None:
        """Let go of what :meth:`enter_items` admitted."""
        self.batch_items -= count

    async def drain(self, grace_s: float) -> None:
        """Admit nothing from now on, and let what is open finish, for so many seconds at most."""
        self._draining = True
        if self.in_flight:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._idle.wait(), grace_s)


class OpenBody:
    """The bytes of one request's body, counted as they arrive and until the request is answered."""

    __slots__ = ("_admission", "_counted")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._counted = 0

    def grown(self, size: int) -> None:
        """The body has so many bytes now.

        Raises:
            Rejection: ``overloaded``: all bodies together would be too much.
        """
        admission = self._admission
        more = size - admission.body_bytes_free - self._counted
        if more <= 0:
            return
        if admission.body_bytes + more > admission.body_bytes_max:
            raise _overloaded("body_bytes", f"{admission.body_bytes} bytes of bodies are open here")
        admission.body_bytes += more
        self._counted += more

    def gone(self) -> None:
        """The request is answered."""
        self._admission.body_bytes -= self._counted
        self._counted = 0


def _overloaded(reason: str, message: str) -> Rejection:
    error = Overloaded(
        message, hint="Wait for answers before sending more", retry_after_s=RETRY_AFTER_S
    )
    return Rejection(error, status=error.status, reason=reason)
