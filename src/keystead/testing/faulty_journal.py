"""A journal that fails, or ends the process, at a named step of the commit protocol.

It wraps a real one: what it lets through is done by that. Faults come in both forms, before a step
is done and after, and at both a test may raise or have the process killed (design section 2).
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Any, NoReturn, cast

import msgspec

from keystead.errors import LogUnavailable
from keystead.ports import Fence, Journal, Transaction

__all__ = ["FaultyJournal", "Moment", "Step", "Trip", "Trips", "crash", "fail"]


class Step(StrEnum):
    """Every step from the beginning of a commit to the answer, in the order of a commit.

    All but three are the methods of the port ``Transaction``, by their names. ``ANSWER`` is not the
    journal's: whoever carries answers out passes it.
    """

    BEGIN = "begin"
    EXPECT = "expect"
    EPOCH = "epoch"
    OBJECTS_SINCE = "objects_since"
    LAST_SEQUENCE = "last_sequence"
    IDEMPOTENT = "idempotent"
    IDEMPOTENT_COUNT = "idempotent_count"
    SPENT = "spent"
    COUNTER = "counter"
    TENANT_KEY = "tenant_key"
    LEASE = "lease"
    PUT_LEASE = "put_lease"
    PUT_NODE = "put_node"
    PUT_META = "put_meta"
    PUT_TENANT_KEY = "put_tenant_key"
    PUT_MATERIAL = "put_material"
    PUT_HANDLE = "put_handle"
    PUT_RESERVATION = "put_reservation"
    PUT_CHECKPOINT = "put_checkpoint"
    PRUNE_CHECKPOINTS = "prune_checkpoints"
    PRUNE_IDEMPOTENT = "prune_idempotent"
    PUT_OBJECT = "put_object"
    PUT_HISTORY = "put_history"
    SET_EPOCH = "set_epoch"
    APPEND = "append"
    FORGET = "forget"
    PUT_IDEMPOTENT = "put_idempotent"
    PUT_SPENT = "put_spent"
    PUT_COUNTERS = "put_counters"
    COMMIT = "commit"
    ANSWER = "answer"


class Moment(StrEnum):
    """``BEFORE``: the step is not done. ``AFTER``: it is done, and nobody learns of it."""

    BEFORE = "before"
    AFTER = "after"


class Trip(msgspec.Struct, frozen=True):
    """What happens the ``nth`` time, from 1, that a step is at a moment."""

    step: Step
    moment: Moment
    do: Callable[[], None]
    nth: int = 1


def fail() -> NoReturn:
    """The database does not answer.

    Raises:
        LogUnavailable: as a journal does.
    """
    raise LogUnavailable("a step failed", hint="Send it again, under the same idempotency key")


def crash() -> None:
    """The process is gone, with all its threads: nothing is flushed, closed or rolled back."""
    os.kill(os.getpid(), signal.SIGKILL)


class Trips:
    """Counts steps and does what was planned; safe from any thread. ``hits``: as counted so far."""

    def __init__(self, *planned: Trip) -> None:
        self._planned = {(trip.step, trip.moment, trip.nth): trip.do for trip in planned}
        self._lock = threading.Lock()
        self.hits: Counter[tuple[Step, Moment]] = Counter()

    def at(self, step: Step, moment: Moment) -> None:
        """Pass a step; what is planned for it may raise, or not return."""
        with self._lock:
            self.hits[step, moment] += 1
            planned = self._planned.pop((step, moment, self.hits[step, moment]), None)
        if planned is not None:
            planned()


class FaultyJournal:
    """Behind the port ``Journal``; one thread at a time, as what it wraps."""

    def __init__(self, journal: Journal, trips: Trips) -> None:
        self._journal = journal
        self._trips = trips

    @contextmanager
    def transaction(self, fence: Fence = "exclusive") -> Iterator[Transaction]:
        """The wrapped journal's transaction, with trips at its steps.

        Raises:
            LogUnavailable: by a trip, or by the journal itself.
        """
        at = self._trips.at
        at(Step.BEGIN, Moment.BEFORE)
        with self._journal.transaction(fence) as tx:
            at(Step.BEGIN, Moment.AFTER)
            yield cast("Transaction", _FaultyTransaction(tx, at))
            at(Step.COMMIT, Moment.BEFORE)
        at(Step.COMMIT, Moment.AFTER)


class _FaultyTransaction:
    """All of ``Transaction``: a method that is no step raises ValueError, so none is missed."""

    def __init__(self, tx: Transaction, at: Callable[[Step, Moment], None]) -> None:
        self._tx = tx
        self._at = at

    def __getattr__(self, name: str) -> Callable[..., Any]:
        step = Step(name)
        method = getattr(self._tx, name)

        def passing(*args: object, **kwargs: object) -> object:
            self._at(step, Moment.BEFORE)
            result = method(*args, **kwargs)
            self._at(step, Moment.AFTER)
            return result

        return passing
