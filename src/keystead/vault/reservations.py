"""Best-effort uses of `tls` keys: reserved durably first, spent in memory, recorded after (I2).

A crash can lose the records of at most what one reservation held; the next start records that gap.
While a change of authority is on its way to the commit nothing is spent: a use that was checked
before it could otherwise be recorded behind it (I4).
"""

from __future__ import annotations

import msgspec

from keystead import limits
from keystead.errors import KeysteadError
from keystead.keys.model import Key
from keystead.ports import Clock, Random, Registry, ReservationRow, Transaction
from keystead.translog.entries import Draft, decode_body
from keystead.vault.authority import Snapshot
from keystead.vault.committer import Applied, Change, Committed, Committer
from keystead.vault.standing import Standing

__all__ = ["Reservations", "gaps"]

_SCAN = 1_000


class _Active:
    __slots__ = ("row", "spent")

    def __init__(self, row: ReservationRow) -> None:
        self.row = row
        self.spent = 0


class Reservations:
    """One active reservation a key, and the next one asked for when half of it is gone."""

    def __init__(
        self, standing: Standing, committer: Committer, clock: Clock, random: Random
    ) -> None:
        self._standing = standing
        self._committer = committer
        self._clock = clock
        self._random = random
        self._active: dict[str, _Active] = {}
        self._next: dict[str, ReservationRow] = {}
        self._asked: set[str] = set()
        self._frozen = 0

    def freeze(self) -> None:
        """A change is queued: spend nothing until it has committed, or failed."""
        self._frozen += 1

    def thaw(self) -> None:
        """The change is through."""
        self._frozen -= 1

    def spend(self, key_id: str) -> str | None:
        """Spend one use; gives the reservation's id, or None: then the use must be durable."""
        if self._frozen or self._standing.trouble is not None:
            return None
        now = self._clock.boottime_ms()
        active = self._usable(key_id, now)
        if active is None:
            self._ask(key_id, now)
            return None
        active.spent += 1
        half_life = limits.RESERVATION_LIFE_MS // 2
        if active.spent * 2 >= active.row.count or active.row.expires_boot_ms - now < half_life:
            self._ask(key_id, now)
        return active.row.id

    def tend(self) -> None:
        """Close what has ended; called by the steward's rounds and at the end."""
        now = self._clock.boottime_ms()
        for key_id in list(self._active):
            self._usable(key_id, now)

    def close(self) -> None:
        """Close all, at the end of the process."""
        for active in self._active.values():
            self._close(active)
        self._active.clear()

    def _usable(self, key_id: str, now: int) -> _Active | None:
        active = self._active.get(key_id)
        if active is not None:
            if active.spent < active.row.count and now < active.row.expires_boot_ms:
                return active
            del self._active[key_id]
            self._close(active)
        row = self._next.pop(key_id, None)
        if row is None:
            return None
        fresh = _Active(row)
        if now >= row.expires_boot_ms:
            self._close(fresh)
            return None
        self._active[key_id] = fresh
        return fresh

    def _ask(self, key_id: str, now: int) -> None:
        if key_id in self._asked or key_id in self._next:
            return
        self._asked.add(key_id)
        reservation_id = self._random.bytes(8).hex()

        def apply(tx: Transaction, snapshot: Snapshot, _epoch: int, seq: int) -> Applied:
            row = ReservationRow(
                reservation_id,
                self._standing.node,
                key_id,
                snapshot.epoch,
                limits.RESERVATION_USES,
                now + limits.RESERVATION_LIFE_MS,
                seq,
                closed=False,
            )
            tx.put_reservation(row)
            key = snapshot.key(key_id)
            draft = self._draft("reservation.open", row, key, row.count)
            return Applied(drafts=(draft,), value=row)

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            self._asked.discard(key_id)
            if not isinstance(outcome, KeysteadError) and isinstance(outcome[0], ReservationRow):
                self._next[key_id] = outcome[0]

        self._committer.change(Change(apply, deliver))

    def _close(self, active: _Active) -> None:
        row = msgspec.structs.replace(active.row, closed=True)

        def apply(tx: Transaction, snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
            tx.put_reservation(row)
            key = snapshot.key(row.key_id)
            return Applied(drafts=(self._draft("reservation.close", row, key, active.spent),))

        self._committer.change(Change(apply, lambda _outcome: None))

    def _draft(self, op: str, row: ReservationRow, key: Key, count: int) -> Draft:
        return Draft(
            time_ms=self._clock.now_ms(),
            node=row.node,
            op=op,
            outcome="ok",
            request=row.id,
            key=key.id,
            name=key.name,
            purpose=str(key.purpose),
            tenant=key.tenant,
            ack="best_effort",
            reservation=row.id,
            count=count,
        )


def gaps(registry: Registry, node: str, now_ms: int) -> list[tuple[ReservationRow, Draft]]:
    """What a crash left open: each reservation, closed, with the record of its gap (I2).

    The gap is what was reserved less what was recorded: at most the reservation.
    """
    found: list[tuple[ReservationRow, Draft]] = []
    for row in registry.reservations_open(node):
        recorded = _recorded(registry, row)
        draft = Draft(
            time_ms=now_ms,
            node=node,
            op="reservation.gap",
            outcome="ok",
            request=row.id,
            key=row.key_id,
            ack="best_effort",
            reservation=row.id,
            count=row.count - recorded,
            detail=f"{recorded} of {row.count} reserved uses were recorded before the node stopped",
        )
        found.append((msgspec.structs.replace(row, closed=True), draft))
    return found


def _recorded(registry: Registry, row: ReservationRow) -> int:
    count, seq = 0, row.opened_seq + 1
    while True:
        records = registry.records_from(seq, _SCAN)
        for record in records:
            body = decode_body(record.body)
            count += body.reservation == row.id and not body.op.startswith("reservation.")
        if len(records) < _SCAN:
            return count
        seq = records[-1].seq + 1
