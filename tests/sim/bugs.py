"""Faults that Keystead does not have: each patches one real function, and one profile catches it.

They show that the simulator sees what it is for. ``finds``: the invariant that the findings name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import msgspec

from keystead import limits
from keystead.errors import KeysteadError
from keystead.keys import epochs
from keystead.keys.epochs import Candidate
from keystead.ports import IdempotencyRow, Registry, ReservationRow, Transaction
from keystead.translog.entries import Draft
from keystead.vault import reservations, start
from keystead.vault.acknowledging import Acknowledgements
from keystead.vault.admission import Admission
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Applied, Change, Committed, Committer, Pending
from keystead.vault.following import Following
from keystead.vault.rotating import Rotating
from keystead.vault.running import Running
from keystead.vault.uses import Uses

__all__ = ["BUGS", "Bug"]


class Bug(msgspec.Struct, frozen=True, kw_only=True):
    """``name``: what went wrong in the code. ``profile``: whose faults bring it out.

    ``first``: the seed from which it is looked for, where it takes more than a few to meet it.
    """

    name: str
    profile: str
    finds: tuple[str, ...]
    patched: Callable[[], Any]
    first: int = 1


def _no_gaps(_registry: Registry, _node: str, _now_ms: int) -> list[tuple[ReservationRow, Draft]]:
    return []


def _no_check(*_args: object, **_named: object) -> None:
    """The fence is open."""


def _no_replay(_self: Admission, _running: Running) -> IdempotencyRow | None:
    return None


def _answers_all_the_same(
    self: Committer, work: Change | list[Pending], error: KeysteadError
) -> None:
    """A commit that failed is answered as if it had not."""
    self._next_seq = None
    self._counts.clear()
    if isinstance(work, Change):
        self._loop.call_soon_threadsafe(work.deliver, error)
        return
    for pending in work:
        self._loop.call_soon_threadsafe(pending.deliver, Committed(0, 1))


def _keeps_its_place(self: Committer, work: Change | list[Pending], error: KeysteadError) -> None:
    """A failure is taken for one that was not applied: the next record goes to the same place."""
    place = self._next_seq
    _FAIL(self, work, error)
    self._next_seq = place


_FAIL = Committer._fail  # noqa: SLF001  what the bug wraps
_SEQUENCE = Committer._sequence  # noqa: SLF001  as above
_CANDIDATE = Uses._candidate  # noqa: SLF001  as above


def _checked_just_now(self: Uses, running: Running) -> Candidate:
    """The epoch of the check is read when the signature is there, not before it was made."""
    made = _CANDIDATE(self, running)
    return msgspec.structs.replace(made, epoch=self._standing.snapshot.epoch)


def _wall_clock(self: Rotating) -> int:
    return self._clock.now_ms()


def _spends_for_ever(*, count: int, spent: int, **_times: int) -> bool:
    return spent < count


def _drops_released(self: Committer, work: Change | list[Pending], error: KeysteadError) -> None:
    """What was answered before its record is forgotten when its commit fails."""
    _FAIL(self, work, error)
    self._late = []


def _steps_early(self: Committer, tx: Transaction) -> int:
    """The next place is counted when a commit begins, not when it is through."""
    place = _SEQUENCE(self, tx)
    self._next_seq = place + 1
    return place


def _heard_at_once(_self: Acknowledgements, _epoch: int, _ids: frozenset[str]) -> bool:
    return False


def _confirms_at_once(self: Following, epoch: int) -> None:
    """Says that it holds to an epoch before it does: what it goes by is read a moment later."""
    node, beat = self._standing.node, epoch
    if epoch <= max(self.confirmed, self._confirming):
        return
    self._confirming = self.confirmed = epoch
    row = self._secrets.node_row(node, epoch, beat, "")

    def apply(tx: Transaction, _snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
        tx.put_node(row)
        return Applied()

    self._committer.change(Change(apply, _no_check, "shared"))


@contextmanager
def _set(target: object, name: str, value: object) -> Iterator[None]:
    with patch.object(target, name, value):
        yield


BUGS = (
    Bug(
        name="a start records no gap",
        profile="crash",
        finds=("I2",),
        patched=lambda: _set(start, "gaps", _no_gaps),
    ),
    Bug(
        name="the commit does not check again",
        profile="delay",
        finds=("I3", "I4"),
        patched=lambda: _set(epochs, "check_standing", _no_check),
    ),
    Bug(
        name="idempotency keys are not looked at",
        profile="duplicate",
        finds=("I6",),
        patched=lambda: _set(Admission, "replay", _no_replay),
    ),
    Bug(
        name="the commit does not compare counters",
        profile="reorder",
        finds=("I6",),
        patched=lambda: _set(epochs, "_check_step", _no_check),
    ),
    Bug(
        name="what failed to commit is answered",
        profile="disk_full",
        finds=("I2", "I6"),
        patched=lambda: _set(Committer, "_fail", _answers_all_the_same),
    ),
    Bug(
        name="a failed commit is taken for one that was not applied",
        profile="fsync",
        finds=("I2", "I11"),
        patched=lambda: _set(Committer, "_fail", _keeps_its_place),
    ),
    Bug(
        name="the epoch is read after the signature",
        profile="slow_custody",
        finds=("I3", "I4"),
        patched=lambda: _set(Uses, "_candidate", _checked_just_now),
    ),
    Bug(
        name="the overlap goes by the wall clock",
        profile="clock_jump",
        finds=("I12",),
        patched=lambda: _set(Rotating, "now_ms", _wall_clock),
    ),
    Bug(
        name="a reservation does not end by time",
        profile="suspend",
        finds=("I4",),
        patched=lambda: _set(reservations, "may_spend", _spends_for_ever),
    ),
    Bug(
        name="a stop is acknowledged at its commit",
        profile="lost_notice",
        finds=("I4",),
        patched=lambda: _set(Acknowledgements, "_outstanding", _heard_at_once),
    ),
    Bug(
        name="best-effort answers go on while a change is queued",
        profile="delay",
        finds=("I4",),
        patched=lambda: _set(reservations.Reservations, "freeze", _no_check),
        first=16,
    ),
    Bug(
        name="an epoch is confirmed before it is held to",
        profile="delay",
        finds=("I4",),
        patched=lambda: _set(Following, "moved", _confirms_at_once),
    ),
    Bug(
        name="released uses are dropped when a commit fails",
        profile="database",
        finds=("I2",),
        patched=lambda: _set(Committer, "_fail", _drops_released),
    ),
    Bug(
        name="the epoch is asked for once a minute",
        profile="lost_notice",
        finds=("I4",),
        patched=lambda: _set(limits, "EPOCH_POLL_S", 60.0),
    ),
    Bug(
        name="the next place is counted before the commit is through",
        profile="contention",
        finds=("I2",),
        patched=lambda: _set(Committer, "_sequence", _steps_early),
    ),
)
