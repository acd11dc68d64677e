"""Best-effort uses of `tls` keys: reserved durably first, spent in memory, recorded after (I2).

A crash can lose the records of at most what one reservation held; the next start records that gap.
While a change of authority is on its way to the commit nothing is spent: a use that was checked
before it could otherwise be recorded behind it (I4).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from keystead import limits
from keystead.errors import KeysteadError
from keystead.keys.model import Key
from keystead.keys.reservations import may_spend
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
        self._asked: dict[str, list[ReservationRow]] = {}
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
        """Close what has ended, spent or not; called by the steward's rounds."""
        now = self._clock.boottime_ms()
        for key_id in {**self._active, **self._next}:
            self._usable(key_id, now)

    def close(self) -> None:
        """Close all, at the end of the process; also what is granted or asked for, and not used.

        What stayed open would count as a gap at the next start.
        """
        for active in self._active.values():
            self._close((active.row,), active.spent)
        for row in self._next.values():
            self._close((row,), 0)
        for made in self._asked.values():
            self._close(made, 0)
        self._active.clear()
        self._next.clear()

    def _usable(self, key_id: str, now: int) -> _Active | None:
        active = self._active.get(key_id)
        if active is not None:
            if _spendable(active.row, active.spent, now):
                return active
            del self._active[key_id]
            self._close((active.row,), active.spent)
        row = self._next.pop(key_id, None)
        if row is None:
            return None
        if not _spendable(row, 0, now):
            self._close((row,), 0)
            return None
        self._active[key_id] = fresh = _Active(row)
        return fresh

    def _ask(self, key_id: str, now: int) -> None:
        if key_id in self._asked or key_id in self._next:
            return
        made: list[ReservationRow] = []
        self._asked[key_id] = made
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
            made[:] = [row]  # it may be called again
            tx.put_reservation(row)
            key = snapshot.key(key_id)
            draft = self._draft("reservation.open", row, key, row.count)
            return Applied(drafts=(draft,), value=row)

        def deliver(outcome: tuple[object, Committed] | KeysteadError) -> None:
            self._asked.pop(key_id, None)
            if not isinstance(outcome, KeysteadError) and isinstance(outcome[0], ReservationRow):
                self._next[key_id] = outcome[0]

        self._committer.change(Change(apply, deliver, "shared"))

    def _close(self, rows: Sequence[ReservationRow], spent: int) -> None:
        """Close in turn behind what was queued before: ``rows`` is read there, not here."""

        def apply(tx: Transaction, snapshot: Snapshot, _epoch: int, _seq: int) -> Applied:
            drafts: list[Draft] = []
            for row in rows:
                tx.put_reservation(msgspec.structs.replace(row, closed=True))
                key = snapshot.key(row.key_id)
                drafts.append(self._draft("reservation.close", row, key, spent))
            return Applied(drafts=tuple(drafts))

        self._committer.change(Change(apply, lambda _outcome: None, "shared"))

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


def _spendable(row: ReservationRow, spent: int, now: int) -> bool:
    return may_spend(
        count=row.count,
        spent=spent,
        expires_boot_ms=row.expires_boot_ms,
        now_boot_ms=now,
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
    """How many uses have a record: one whose commit was reported as failed may have two."""
    uses: set[str] = set()
    seq = row.opened_seq + 1
    while True:
        records = registry.records_from(seq, _SCAN)
        for record in records:
            if record.body is None:  # forgotten, so far older than a reservation lives
                continue
            body = decode_body(record.body)
            if body.reservation == row.id and not body.op.startswith("reservation."):
                uses.add(body.request)
        if len(records) < _SCAN:
            return len(uses)
        seq = records[-1].seq + 1
