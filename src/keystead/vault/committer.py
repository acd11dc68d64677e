"""The committer: one thread that makes records durable, in groups, and releases results after.

While one fsync runs, uses gather; the next commit takes them all. The loop hands over what one of
its turns has gathered at once: a group of one costs as much as one of a hundred, and wakes the loop
as often. The committer, not the caller, assigns log sequence numbers, in commit order. Changes of
authority commit alone, each under the next epoch, and stand in the same queue, so that a change is
behind every use that came before it.
"""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import msgspec

from keystead import limits
from keystead.errors import (
    CommitContended,
    InvariantViolation,
    KeysteadError,
    LogUnavailable,
    Overloaded,
    StateRolledBack,
)
from keystead.frames.messages import Receipt
from keystead.keys.epochs import Accepted, Candidate, Replayed, decide
from keystead.ports import (
    Fence,
    HistoryRow,
    IdempotencyRow,
    Journal,
    ObjectRow,
    Random,
    RecordRow,
    Transaction,
)
from keystead.translog.entries import SALT_BYTES, Draft, commitment, encode_draft
from keystead.vault.authority import Snapshot
from keystead.vault.faults import fault
from keystead.vault.leaves import CommittedLeaves
from keystead.vault.macs import VaultSecrets
from keystead.vault.rows import record_row, rows_message
from keystead.vault.view import TransactionView

__all__ = ["Applied", "Change", "Committed", "Committer", "Pending"]

_T = TypeVar("_T")
_HAND_OVER = 256
"""Items of one turn that are handed over before it ends: a giant frame does not leave the disk idle
while it is worked off."""
_TRIES = 8
"""How often a commit is begun anew because another node's came between. Each time one of the two
has got through."""


class Committed(msgspec.Struct, frozen=True):
    """Where a record stands."""

    seq: int
    epoch: int


class Pending:
    """A use, or a denial (no candidate), that waits for its record.

    ``deliver`` is called on the loop, once, with the commit's outcome. ``released``: a best-effort
    use whose answer is out already; its record may be late but must not be lost. ``receipt`` and
    ``result`` are what an idempotency row keeps; ``result`` is None where it would be a secret.
    """

    __slots__ = (
        "candidate",
        "deliver",
        "draft",
        "encoded",
        "receipt",
        "released",
        "result",
        "salt",
    )

    def __init__(
        self,
        *,
        draft: Draft,
        salt: bytes,
        deliver: Callable[[Committed | IdempotencyRow | KeysteadError], None],
        candidate: Candidate | None = None,
        receipt: Receipt | None = None,
        result: bytes | None = None,
        released: bool = False,
    ) -> None:
        self.draft = draft
        self.salt = salt
        self.encoded = encode_draft(draft)
        self.deliver = deliver
        self.candidate = candidate
        self.receipt = receipt
        self.result = result
        self.released = released


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What a change writes: (row, previous revision) each, and a record each draft."""

    rows: tuple[tuple[ObjectRow, int], ...] = ()
    drafts: tuple[Draft, ...] = ()
    value: object = None
    pruned: bool = False


class Change:
    """A change of authority. ``apply`` runs inside the commit, on the state as it is there.

    It gets the transaction, the snapshot and the epoch its rows shall bear; what it raises rolls
    everything back, and it may be called again after another node's commit came between.
    ``deliver`` is called on the loop with (value, place) or the error. ``fence``: shared only where
    no row of authority is written.
    """

    __slots__ = ("apply", "deliver", "fence")

    def __init__(
        self,
        apply: Callable[[Transaction, Snapshot, int, int], Applied],
        deliver: Callable[[tuple[object, Committed] | KeysteadError], None],
        fence: Fence = "exclusive",
    ) -> None:
        self.apply = apply
        self.deliver = deliver
        self.fence = fence


class Committer:
    """Owns the journal and its thread. ``submit`` and ``change`` are called on the loop only."""

    def __init__(
        self,
        *,
        journal: Journal,
        secrets: VaultSecrets,
        snapshot: Snapshot,
        random: Random,
        loop: asyncio.AbstractEventLoop,
        on_snapshot: Callable[[Snapshot], None],
        on_trouble: Callable[[KeysteadError | None], None],
    ) -> None:
        self._journal = journal
        self._secrets = secrets
        self._snapshot = snapshot
        self._random = random
        self._loop = loop
        self._on_snapshot = on_snapshot
        self._on_trouble = on_trouble
        self._gathered: list[Pending | Change] = []
        self._queue: deque[Pending | Change] = deque()
        self._late: list[Pending] = []
        self._wake = threading.Condition()
        self._stopping = False
        self._next_seq: int | None = None
        self._counts: dict[str, int] = {}
        self._pruned: set[str] = set()
        self.leaves = CommittedLeaves()
        self.commits = 0
        self.records = 0
        self._thread = threading.Thread(target=self._run, name="committer", daemon=True)

    # --- the loop's side ---------------------------------------------------------------------

    def start(self) -> None:
        """Begin to commit."""
        self._thread.start()

    def submit(self, pending: Pending) -> None:
        """Queue a use or denial.

        Raises:
            Overloaded: the queue is full; nothing was queued, the result must be dropped.
        """
        if self.waiting >= limits.VAULT_QUEUE_MAX and not pending.released:
            raise Overloaded(
                f"{limits.VAULT_QUEUE_MAX} uses are waiting to be recorded", retry_after_s=1.0
            )
        self._gather(pending)

    def change(self, change: Change) -> None:
        """Queue a change; never refused, so that stop commands get through."""
        self._gather(change)

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return len(self._queue) + len(self._gathered)

    def stop(self) -> None:
        """Commit what is queued, then end; called when nothing submits any more."""
        self._hand_over()
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    def _gather(self, item: Pending | Change) -> None:
        self._gathered.append(item)
        count = len(self._gathered)
        if count == 1:
            self._loop.call_soon(self._hand_over)
        elif count >= _HAND_OVER:
            self._hand_over()

    def _hand_over(self) -> None:
        with self._wake:
            if self._gathered:
                self._queue.extend(self._gathered)
                self._gathered.clear()
                self._wake.notify()

    # --- the thread's side -------------------------------------------------------------------

    def _run(self) -> None:
        while self.step():
            pass

    def step(self, *, wait: bool = True) -> bool:
        """One commit, by whichever thread is the committer's; False: there is nothing more to do.

        Not ``wait``: only what is queued already, for who runs a vault without a thread of its own.
        """
        work = self._take(wait=wait)
        if work is None:
            return False
        try:
            if isinstance(work, Change):
                self._commit_late(work)
            else:
                self._commit_uses(work)
        except Exception as exc:  # noqa: BLE001  whatever it is, no result may be released
            self._fail(work, fault(exc))
        return True

    def _take(self, *, wait: bool) -> Change | list[Pending] | None:
        with self._wake:
            while wait and not self._queue and not self._stopping:
                if self._late:
                    self._wake.wait(limits.BEST_EFFORT_FLUSH_S)
                    return []
                self._wake.wait()
            if not self._queue:
                return [] if self._late and not self._stopping else None
            first = self._queue[0]
            if isinstance(first, Change):
                self._queue.popleft()
                return first
            group: list[Pending] = []
            while self._queue and len(group) < limits.COMMIT_GROUP_MAX:
                item = self._queue[0]
                if isinstance(item, Change):
                    break
                group.append(item)
                self._queue.popleft()
            return group

    def _commit_uses(self, group: list[Pending]) -> None:
        group = self._late + group
        self._late = []
        if not group:
            return
        try:
            settled = _through(partial(self._commit_group, group), self._counts.clear)
        except KeysteadError as exc:
            self._fail(group, exc)
            return
        except Exception as exc:  # noqa: BLE001  the late ones are in this group only: keep them
            self._fail(group, fault(exc))
            return
        self._deliver(settled, None)

    def _commit_group(
        self, group: list[Pending]
    ) -> list[tuple[Pending, Committed | IdempotencyRow | KeysteadError]]:
        """One transaction; what came of each use of the group, once it is durable."""
        settled: list[tuple[Pending, Committed | IdempotencyRow | KeysteadError]] = []
        with self._journal.transaction("shared") as tx:
            _expect(tx, group)  # first, as a store may read the epoch along with it
            snapshot = self._refresh(tx)
            view = TransactionView(tx, snapshot, self._secrets, self._counts, self._pruned)
            rows: list[RecordRow] = []
            seq = self._sequence(tx)
            for pending in group:
                outcome = self._settle(pending, view, seq, rows)
                seq += 0 if isinstance(outcome, IdempotencyRow) else 1
                settled.append((pending, outcome))
            tx.append(rows)
            view.flush()
        self._next_seq = seq
        self._counts = view.counts
        self._pruned &= self._counts.keys()
        self._count(rows)
        return settled

    def _settle(
        self, pending: Pending, view: TransactionView, seq: int, rows: list[RecordRow]
    ) -> Committed | IdempotencyRow | KeysteadError:
        """Decide one use, and append its record: the use's own, or a denial's."""
        encoded, draft = pending.encoded, pending.draft
        refusal: KeysteadError | None = None
        candidate = pending.candidate
        if candidate is not None:
            outcome = decide(candidate, view)
            if isinstance(outcome, Replayed):
                return view.replayed(outcome.scope, outcome.key)
            if isinstance(outcome, Accepted):
                view.accept(candidate.key_id, outcome)
                if candidate.idempotency is not None:
                    view.remember(self._idempotency_row(pending, candidate, seq, view.epoch))
            else:
                refusal = outcome
                draft = msgspec.structs.replace(
                    draft, outcome=refusal.code or "internal", signed=""
                )
                encoded = encode_draft(draft)
        rows.append(record_row(seq, view.epoch, draft, pending.salt, encoded))
        return refusal if refusal is not None else Committed(seq, view.epoch)

    def _idempotency_row(
        self, pending: Pending, candidate: Candidate, seq: int, epoch: int
    ) -> IdempotencyRow:
        if candidate.idempotency is None or pending.receipt is None:
            raise InvariantViolation("an idempotent use has no receipt")
        scope, key, fingerprint = candidate.idempotency
        receipt = msgspec.structs.replace(pending.receipt, seq=seq, epoch=epoch)
        row = IdempotencyRow(
            scope=scope,
            key=key,
            fingerprint=fingerprint,
            seq=seq,
            result=pending.result,
            receipt=msgspec.msgpack.encode(receipt),
            expires_ms=pending.draft.time_ms + limits.IDEMPOTENCY_TTL_MS,
        )
        return self._secrets.seal_outcome(row, self._random)

    def _commit_late(self, change: Change) -> None:
        """Released uses whose record is late stand before any change, or the change fails (I4)."""
        if self._late:
            self._commit_uses([])
        if self._late:
            unavailable = LogUnavailable(
                "records of best-effort uses cannot be made durable, and stand before any change",
                hint="Look at the disk of the data folder; then send it again",
                retry_after_s=1.0,
            )
            self._loop.call_soon_threadsafe(change.deliver, unavailable)
            return
        self._commit_change(change)

    def _commit_change(self, change: Change) -> None:
        try:
            applied, after, seq = _through(partial(self._apply, change), self._counts.clear)
        except LogUnavailable as exc:
            self._next_seq = None
            self._loop.call_soon_threadsafe(self._on_trouble, exc)
            self._loop.call_soon_threadsafe(change.deliver, exc)
            return
        except KeysteadError as exc:
            self._loop.call_soon_threadsafe(change.deliver, exc)
            return
        self._snapshot = after
        if applied.pruned:
            self._pruned.update(self._counts)
        self._loop.call_soon_threadsafe(self._on_trouble, None)
        self._loop.call_soon_threadsafe(self._on_snapshot, after)
        self._loop.call_soon_threadsafe(
            change.deliver, (applied.value, Committed(seq, after.epoch))
        )

    def _apply(self, change: Change) -> tuple[Applied, Snapshot, int]:
        """One transaction: what was applied, the state after it, and where its records begin."""
        with self._journal.transaction(change.fence) as tx:
            snapshot = self._refresh(tx)
            seq = self._sequence(tx)
            applied = change.apply(tx, snapshot, snapshot.epoch + 1, seq)
            after = snapshot
            if applied.rows:
                if change.fence != "exclusive":
                    raise InvariantViolation("a shared transaction changes authority")
                after = snapshot.with_rows(snapshot.epoch + 1, [row for row, _ in applied.rows])
                for row, previous in applied.rows:
                    tx.put_object(row, previous_revision=previous)
                tx.put_history(_revisions(applied, seq))
                root = self._secrets.root_digest(after.digests)
                tx.set_epoch(self._secrets.epoch_row(after.epoch, root))
            rows = self._change_rows(applied, seq, after.epoch)
            tx.append(rows)
        self._next_seq = seq + len(applied.drafts)
        self._count(rows)
        return applied, after, seq

    def _change_rows(self, applied: Applied, seq: int, epoch: int) -> list[RecordRow]:
        """The change's records; the first commits to the rows: history is held to the log by it."""
        rows: list[RecordRow] = []
        written = rows_message(row for row, _ in applied.rows)
        for offset, draft in enumerate(applied.drafts):
            salt = self._random.bytes(SALT_BYTES)
            signed = commitment(salt, written) if written and not offset else draft.signed
            placed = msgspec.structs.replace(draft, signed=signed)
            rows.append(record_row(seq + offset, epoch, placed, salt))
        return rows

    def _refresh(self, tx: Transaction) -> Snapshot:
        """The snapshot as of this transaction; what another node wrote is read and checked."""
        row = tx.epoch()
        if row.epoch == self._snapshot.epoch:
            return self._snapshot
        self._secrets.check_epoch(row)
        if row.epoch < self._snapshot.epoch:
            raise StateRolledBack(
                f"the registry is at epoch {row.epoch}, this vault has seen {self._snapshot.epoch}:"
                " an older copy was put back under it",
                hint="Stop the node and restore the registry that was there",
            )
        rows = list(tx.objects_since(self._snapshot.epoch))
        for item in rows:
            self._secrets.check_object(item)
        after = self._snapshot.with_rows(row.epoch, rows)
        if not hmac.compare_digest(self._secrets.root_digest(after.digests), row.root):
            # Whoever removed a row here would else have its absence signed by the next change.
            raise StateRolledBack(
                f"the registry's rows are not those of epoch {row.epoch}: one was removed, or an"
                " older one put back in its place",
                hint="Stop the nodes, find out who wrote to the database, and restore the registry"
                " from a backup",
            )
        self._snapshot = after
        self._loop.call_soon_threadsafe(self._on_snapshot, self._snapshot)
        return self._snapshot

    def _sequence(self, tx: Transaction) -> int:
        if self._next_seq is None:
            self._next_seq = tx.last_sequence() + 1
        return self._next_seq

    def _count(self, rows: list[RecordRow]) -> None:
        self.commits += 1
        self.records += len(rows)
        if rows:
            self.leaves.add(rows[0].seq, [row.leaf for row in rows])

    def _fail(self, work: Change | list[Pending], error: KeysteadError) -> None:
        """Tell all whose result was withheld; keep what was released, to record it later."""
        self._next_seq = None
        self._counts.clear()
        if isinstance(work, Change):
            self._loop.call_soon_threadsafe(self._on_trouble, error)
            self._loop.call_soon_threadsafe(work.deliver, error)
            return
        self._late = [pending for pending in work if pending.released]
        self._deliver([(pending, error) for pending in work if not pending.released], error)

    def _deliver(
        self,
        settled: list[tuple[Pending, Committed | IdempotencyRow | KeysteadError]],
        trouble: KeysteadError | None,
    ) -> None:
        """Wake the loop once for a whole group."""
        self._loop.call_soon_threadsafe(self._deliver_all, settled, trouble)

    def _deliver_all(
        self,
        settled: list[tuple[Pending, Committed | IdempotencyRow | KeysteadError]],
        trouble: KeysteadError | None,
    ) -> None:
        self._on_trouble(trouble)
        for pending, outcome in settled:
            try:
                pending.deliver(outcome)
            except Exception as exc:  # noqa: BLE001  the others of the group wait behind this one
                fault(exc)


def _through(commit: Callable[[], _T], come_between: Callable[[], None]) -> _T:
    """Commit, and begin anew while another node's commit comes between.

    Raises:
        CommitContended: each time.
    """
    for _ in range(_TRIES - 1):
        try:
            return commit()
        except CommitContended:
            come_between()
    return commit()


def _expect(tx: Transaction, group: list[Pending]) -> None:
    """Tell the store what the group's uses will read, in an order that all nodes keep to."""
    candidates = [pending.candidate for pending in group if pending.candidate is not None]
    once = {use.idempotency[:2] for use in candidates if use.idempotency is not None}
    budgets = {counted for use in candidates for counted, _ in use.budgets}
    steps = {(use.key_id, use.step.name) for use in candidates if use.step is not None}
    if once or budgets or steps:
        tx.expect(idempotent=sorted(once), spent=sorted(budgets), counters=sorted(steps))


def _revisions(applied: Applied, seq: int) -> list[HistoryRow]:
    """What a change makes of its rows' history: each with the place and time of its record."""
    time_ms = applied.drafts[0].time_ms if applied.drafts else 0
    return [
        HistoryRow(
            kind=row.kind,
            id=row.id,
            name=row.name,
            revision=row.revision,
            epoch=row.epoch,
            seq=seq,
            time_ms=time_ms,
            doc=row.doc,
            mac=row.mac,
        )
        for row, _ in applied.rows
    ]
