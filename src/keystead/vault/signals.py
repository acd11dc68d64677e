"""What the vault sees of the versions in a rollout: counted here, in memory, for its gates.

A restart forgets it, and what is not known holds a stage. Only keys whose rollout is under way are
watched, so that all others cost one look into a set.
"""

from __future__ import annotations

from collections import Counter

import msgspec

from keystead.errors import CustodyUnavailable, InvariantViolation, KeysteadError
from keystead.keys.rollout.gates import Seen
from keystead.keys.rollout.model import Rollout, live
from keystead.keys.rollout.reports import since_epoch
from keystead.ports import Clock
from keystead.vault.authority import Snapshot

__all__ = ["VersionSignals", "Watched"]

_SLOTS = 8
"""Pieces that a window slides by."""
_DENIED_MAX = 1_024
_NOTHING = Seen()
_FINE_BITS = 4
_FINE = 1 << _FINE_BITS


class _Tally:
    """Uses and errors of one version in one piece of time, and how long the uses took."""

    __slots__ = ("errors", "times")

    def __init__(self) -> None:
        self.errors = 0
        self.times: Counter[int] = Counter()

    def add(self, other: _Tally) -> None:
        self.errors += other.errors
        self.times.update(other.times)

    def seen(self) -> Seen:
        uses = self.times.total()
        return Seen(uses=uses, errors=self.errors, p99_us=_p99(self.times, uses))


class Watched(msgspec.Struct):
    """What is counted of one rollout. ``stage``: since it came to its stage and ramp step."""

    rollout: Rollout
    slots: dict[int, dict[int, _Tally]]
    stage: dict[int, _Tally]
    denied: set[str]


class VersionSignals:
    """All methods run on the loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._watched: dict[str, Watched] = {}

    def follow(self, snapshot: Snapshot) -> None:
        """Watch the keys whose rollout is under way in this snapshot, and no other."""
        kept: dict[str, Watched] = {}
        for key_id, rotation in snapshot.rotations.items():
            rollout = live(rotation)
            if rollout is None:
                continue
            before = self._watched.get(key_id)
            if before is None or _spoken(before.rollout) != _spoken(rollout):
                kept[key_id] = Watched(rollout, {}, {}, set())
                continue
            if _place(before.rollout) != _place(rollout):
                before.stage = {}
            before.rollout = rollout
            kept[key_id] = before
        self._watched = kept

    def watches(self, key_id: str) -> bool:
        """Whether the key's uses are counted."""
        return key_id in self._watched

    def used(self, key_id: str, version: int, took_us: int) -> None:
        """A use is recorded; the version's own work at it took so many microseconds."""
        for tally in self._tallies(key_id, version):
            tally.times[_bucket(took_us)] += 1

    def failed(self, key_id: str, version: int, error: KeysteadError) -> None:
        """A use failed; it counts if the version was at fault.

        A store that fails or a queue that is full fails all versions alike.
        """
        if isinstance(error, CustodyUnavailable | InvariantViolation):
            for tally in self._tallies(key_id, version):
                tally.errors += 1

    def denied(self, key_id: str, principal: str) -> None:
        """The new version refused a principal that the previous one would have served."""
        watched = self._watched.get(key_id)
        if watched is not None and len(watched.denied) < _DENIED_MAX:
            watched.denied.add(principal)

    def window(self, key_id: str, version: int) -> Seen:
        """What was seen of a version in the plan's window."""
        watched = self._watched.get(key_id)
        if watched is None:
            return _NOTHING
        self._drop_old(watched)
        whole = _Tally()
        for slot in watched.slots.values():
            if version in slot:
                whole.add(slot[version])
        return whole.seen()

    def stage(self, key_id: str, version: int) -> Seen:
        """What was seen of a version since the rollout came to its stage and step."""
        watched = self._watched.get(key_id)
        tally = None if watched is None else watched.stage.get(version)
        return _NOTHING if tally is None else tally.seen()

    def denied_count(self, key_id: str) -> int:
        """How many principals the new version alone refused."""
        watched = self._watched.get(key_id)
        return 0 if watched is None else len(watched.denied)

    def _tallies(self, key_id: str, version: int) -> tuple[_Tally, ...]:
        watched = self._watched.get(key_id)
        if watched is None:
            return ()
        number = self._clock.boottime_ms() // _slot_ms(watched.rollout)
        slot = watched.slots.get(number)
        if slot is None:
            self._drop_old(watched)
            slot = watched.slots[number] = {}
        return (
            slot.setdefault(version, _Tally()),
            watched.stage.setdefault(version, _Tally()),
        )

    def _drop_old(self, watched: Watched) -> None:
        first = self._clock.boottime_ms() // _slot_ms(watched.rollout) - _SLOTS
        for number in [number for number in watched.slots if number <= first]:
            del watched.slots[number]


def _spoken(rollout: Rollout) -> tuple[int, int]:
    """What was counted before a person moved the rollout on says nothing of what follows."""
    return rollout.number, since_epoch(rollout)


def _slot_ms(rollout: Rollout) -> int:
    return max(1, rollout.plan.gates.window_ms // _SLOTS)


def _place(rollout: Rollout) -> tuple[str, int]:
    return rollout.stage, rollout.ramp


def _bucket(us: int) -> int:
    """A bucket within a sixteenth of the value: its highest bit, and the four below it."""
    exponent = max(0, us.bit_length() - 1 - _FINE_BITS)
    return exponent * _FINE + (us >> exponent)


def _upper(bucket: int) -> int:
    """The greatest value of a bucket."""
    exponent = max(0, bucket // _FINE - 1)
    return ((bucket - exponent * _FINE + 1) << exponent) - 1


def _p99(times: Counter[int], uses: int) -> int:
    """The 99th percentile in microseconds, rounded up to its bucket's end; 0 of no uses."""
    above = uses // 100
    for bucket in sorted(times, reverse=True):
        if times[bucket] > above:
            return _upper(bucket)
        above -= times[bucket]
    return 0
