"""What the inner processes need of the outside, with the guarantee that each port gives.

Shells in ``custody``, ``store`` and ``net`` implement these; so do the fakes in ``testing``, and
one contract suite a port runs on all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Literal, Protocol

import msgspec

from keystead.keys.commands import CountBy
from keystead.keys.framing.data import (
    Derive,
    DeriveResult,
    Mac,
    MacResult,
    UnwrapResult,
    WrapResult,
)
from keystead.keys.model import Key, Principal, Version
from keystead.ports.rows import (
    CheckpointRow,
    EntryRow,
    EpochRow,
    HandleRow,
    HistoryQuery,
    HistoryRow,
    IdempotencyRow,
    LeaseRow,
    NodeRow,
    ObjectRow,
    Reach,
    RecordRow,
    RecordsChoice,
    RecordsCount,
    RecordsPage,
    RecordsQuery,
    ReservationRow,
)

__all__ = [
    "Anchor",
    "CheckpointRow",
    "Clock",
    "Custody",
    "EntryRow",
    "EpochRow",
    "EpochWatch",
    "Fence",
    "Guard",
    "HandleRow",
    "HistoryQuery",
    "HistoryRow",
    "IdempotencyRow",
    "Journal",
    "LeaseRow",
    "LogReader",
    "Material",
    "NodeRow",
    "ObjectRow",
    "OpenKey",
    "Random",
    "Reach",
    "RecordRow",
    "RecordsChoice",
    "RecordsCount",
    "RecordsPage",
    "RecordsQuery",
    "Registry",
    "ReservationRow",
    "Seal",
    "Transaction",
]


class Clock(Protocol):
    """Time. ``boottime_ms`` never goes back and counts suspended time (CLOCK_BOOTTIME)."""

    def now_ms(self) -> int:
        """Unix time in milliseconds; may jump; for people and expiries only."""
        ...

    def boottime_ms(self) -> int:
        """Milliseconds since boot, for leases."""
        ...

    def ticks_us(self) -> int:
        """Microseconds of a clock that never goes back, to measure how long something took."""
        ...


class Random(Protocol):
    """Bytes no one can predict (the operating system's generator)."""

    def bytes(self, count: int) -> bytes:
        """``count`` fresh bytes."""
        ...


# --- custody -------------------------------------------------------------------------------------


class Seal(Protocol):
    """What wraps the root key of software custody."""

    kind: str

    def open(self) -> bytearray:
        """The 32-byte sealing key, the caller's to wipe.

        Raises:
            StartupError: missing or damaged; says where, and what to restore.
        """
        ...


class Material(msgspec.Struct, frozen=True):
    """Public parts of a new version and its sealed private part, as it may lie on a disk."""

    public: tuple[bytes, ...]
    sealed: bytes


class OpenKey(Protocol):
    """One version, opened. Calls are thread-safe; after :meth:`close` they raise.

    All raise CustodyUnavailable when the custody fails, and never return a partial result.
    """

    def sign(self, message: bytes, *, prehashed: bool) -> tuple[bytes, ...]:
        """One raw signature a component; ECDSA as DER."""
        ...

    def wrap(self, plaintext: bytes, info: bytes, aad: bytes) -> WrapResult:
        """Encrypt under the subkey of ``info``, bound to ``aad``."""
        ...

    def unwrap(self, wrapped: str, info: bytes, aad: bytes) -> UnwrapResult:
        """Decrypt; raises ContextMismatch when subkey or ``aad`` are others."""
        ...

    def derive(self, facts: Derive, info: bytes) -> DeriveResult:
        """A secret under ``info``, deterministic."""
        ...

    def mac(self, facts: Mac, info: bytes) -> MacResult:
        """HMAC under the subkey of ``info``; raises ContextMismatch if a given tag differs."""
        ...

    def close(self) -> None:
        """Wipe what can be wiped."""
        ...


class Custody(Protocol):
    """Where key material lives. It seals, opens and uses; it never gives a private key out."""

    def new_tenant_key(self, tenant: str) -> bytes:
        """A fresh key-encryption key of a tenant, sealed under the root key."""
        ...

    def generate(self, key: Key, number: int, algorithm: str, tenant_key: bytes) -> Material:
        """A new version's material; may take seconds (RSA): call it off the loop."""
        ...

    def open(self, key: Key, version: Version, sealed: bytes, tenant_key: bytes) -> OpenKey:
        """Open a version's material, bound to key id, number and purpose.

        Raises:
            CustodyUnavailable: it does not open: damaged, or another key's.
        """
        ...

    def close(self) -> None:
        """Wipe the root key; nothing opens any more."""
        ...


# --- registry and log ----------------------------------------------------------------------------


class Registry(Protocol):
    """Reads outside a commit: each call sees one consistent committed state, maybe a moment old.

    All raise StateRolledBack if the store is not this deployment's, LogUnavailable if it fails.
    """

    def meta(self, name: str) -> bytes | None:
        """A deployment-wide value (deployment id, sealed root)."""
        ...

    def epoch(self) -> EpochRow | None:
        """The epoch row; None before the first start."""
        ...

    def objects(self) -> Iterable[ObjectRow]:
        """All authority rows."""
        ...

    def material(self, key_id: str, version: int) -> bytes | None:
        """A version's sealed material."""
        ...

    def tenant_key(self, tenant: str) -> bytes | None:
        """A tenant's sealed key-encryption key."""
        ...

    def handle(self, handle_id: str) -> HandleRow | None:
        """Whom a handle was issued to."""
        ...

    def handles_of(self, key_id: str, after: str, limit: int) -> list[HandleRow]:
        """Handles of a key that were issued, in order of their ids from after one."""
        ...

    def idempotent(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key."""
        ...

    def idempotent_at_hand(self, scope: str, key: str) -> IdempotencyRow | None:
        """As :meth:`idempotent`, where that costs microseconds; else None: the commit decides."""
        ...

    def counter(self, key_id: str, name: str) -> bytes | None:
        """A durable counter's state (ledger head, firmware version)."""
        ...

    def counters(self, key_id: str, prefix: str) -> dict[str, bytes]:
        """All counters of a key whose names begin so, by name."""
        ...

    def spent(self, link: str) -> int:
        """Uses spent under a link of a handle's chain."""
        ...

    def records_from(self, seq: int, limit: int) -> list[RecordRow]:
        """Records in order, from a sequence on."""
        ...

    def entries_from(self, seq: int, limit: int) -> list[EntryRow]:
        """What the tree is made of, in order, from a sequence on."""
        ...

    def checkpoint(self, size: int | None = None) -> CheckpointRow | None:
        """The checkpoint of a size, or the last one that was signed."""
        ...

    def checkpoints_from(self, size: int, limit: int) -> list[CheckpointRow]:
        """Checkpoints that are kept, in order, from a size on."""
        ...

    def record_of(self, node: str, seq: int) -> RecordRow | None:
        """One record of a node's log, this one's or another's.

        An embedded store holds one log, whatever its node was called.
        """
        ...

    def reservations_open(self, node: str | None) -> list[ReservationRow]:
        """Reservations of a node, or of all, that no record closes."""
        ...

    def nodes(self) -> list[NodeRow]:
        """How far each node has come."""
        ...

    def lease(self, name: str) -> LeaseRow | None:
        """Who leads; None: nobody ever did."""
        ...

    def last_sequence(self) -> int:
        """The greatest sequence in the log, -1 if it is empty."""
        ...


class LogReader(Protocol):
    """Searches of the log, from any number of threads; never in the way of a commit.

    Each call looks at no more than ``limits.LOG_SCAN_ROWS_MAX`` records and says where to go on. It
    sees committed records only. All raise LogUnavailable if the store fails.
    """

    def search(self, query: RecordsQuery) -> RecordsPage:
        """A page of records that match."""
        ...

    def count(self, query: RecordsQuery, by: CountBy) -> RecordsCount:
        """Counts of what matches, whatever its ``limit``; of at most ``LIST_ITEMS_MAX`` values."""
        ...

    def choose(self, query: RecordsQuery) -> RecordsChoice:
        """Which records match, without them; ``limit`` may be ``LOG_SCAN_ROWS_MAX``."""
        ...

    def record(self, seq: int) -> RecordRow | None:
        """One record."""
        ...

    def history(self, query: HistoryQuery) -> list[HistoryRow]:
        """Revisions of authority rows."""
        ...

    def others(self) -> dict[str, LogReader]:
        """Readers of the logs of the deployment's other nodes, by node; closed with this one."""
        ...

    def forgotten_in(self, ranges: Sequence[tuple[int, int]]) -> int:
        """How many records of the ranges, both ends included, are forgotten."""
        ...

    def scrub(self) -> bool:
        """Leave nothing beside the database of what was erased in it; False: busy, or failed."""
        ...

    def close(self) -> None:
        """End; nothing is read any more."""
        ...


class Transaction(Protocol):
    """Reads and writes of one commit: serialisable against every other node's commits.

    Sequences, records and checkpoints are of this node's own log, which no other node writes.
    """

    def expect(
        self,
        *,
        idempotent: Sequence[tuple[str, str]],
        spent: Sequence[str],
        counters: Sequence[tuple[str, str]],
    ) -> None:
        """What this transaction will read of these, so that a store can read it all at once.

        From here on no other node changes what stands under ``spent`` and ``counters`` until this
        transaction ends.
        """
        ...

    def epoch(self) -> EpochRow:
        """The epoch row as of this commit; epoch 0 before the first start."""
        ...

    def set_epoch(self, row: EpochRow) -> None:
        """Replace the epoch row."""
        ...

    def objects_since(self, epoch: int) -> Iterable[ObjectRow]:
        """Authority rows changed after an epoch."""
        ...

    def put_object(self, row: ObjectRow, *, previous_revision: int) -> None:
        """Insert (previous 0) or replace; raises Conflict if the revision or name is taken."""
        ...

    def put_history(self, rows: Sequence[HistoryRow]) -> None:
        """Keep revisions for good; one that is kept already stays as it is."""
        ...

    def put_meta(self, name: str, value: bytes) -> None:
        """Set a deployment-wide value, once."""
        ...

    def put_material(self, key_id: str, version: int, sealed: bytes | None) -> None:
        """Keep a new version's sealed material; ``None`` erases it."""
        ...

    def put_tenant_key(self, tenant: str, sealed: bytes) -> None:
        """Keep a new tenant's sealed key-encryption key."""
        ...

    def tenant_key(self, tenant: str) -> bytes | None:
        """A tenant's sealed key-encryption key."""
        ...

    def put_handle(self, row: HandleRow) -> None:
        """Keep whom a handle is issued to."""
        ...

    def last_sequence(self) -> int:
        """The greatest sequence in the log, -1 if it is empty."""
        ...

    def append(self, rows: Sequence[RecordRow]) -> None:
        """Add records; their sequences follow the last one's without a gap."""
        ...

    def forget(self, ranges: Sequence[tuple[int, int]], ops: Sequence[str]) -> int:
        """Erase body and salt of records of these operations; how many had not been forgotten.

        Handle, principal and request id become empty. Ranges include both their ends.
        """
        ...

    def idempotent(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key."""
        ...

    def idempotent_count(self, scope: str) -> int:
        """Idempotency keys kept of a scope."""
        ...

    def put_idempotent(self, rows: Sequence[IdempotencyRow]) -> None:
        """Keep outcomes under their idempotency keys."""
        ...

    def prune_idempotent(self, now_ms: int, limit: int) -> int:
        """Drop at most ``limit`` outcomes that have expired; how many were dropped."""
        ...

    def spent(self, link: str) -> int:
        """Uses spent under a link of a handle's chain."""
        ...

    def put_spent(self, spent: dict[str, int]) -> None:
        """Set the uses spent, by link."""
        ...

    def counter(self, key_id: str, name: str) -> bytes | None:
        """A durable counter's state."""
        ...

    def put_counters(self, values: dict[tuple[str, str], bytes]) -> None:
        """Set counters, by (key id, name)."""
        ...

    def put_checkpoint(self, row: CheckpointRow) -> None:
        """Keep a checkpoint; one of its size is not replaced."""
        ...

    def prune_checkpoints(self, before_ms: int, limit: int) -> int:
        """Drop at most ``limit`` signed before then, but the last of each hour; how many."""
        ...

    def put_reservation(self, row: ReservationRow) -> None:
        """Open a reservation, or close the one of its id."""
        ...

    def put_node(self, row: NodeRow) -> None:
        """Say how far this node has come."""
        ...

    def lease(self, name: str) -> LeaseRow | None:
        """Who leads, as of this commit; no other node changes it until this transaction ends."""
        ...

    def put_lease(self, row: LeaseRow) -> None:
        """Take, keep or renew a lease."""
        ...


Fence = Literal["shared", "exclusive"]
"""How a transaction stands to those of other nodes. ``exclusive``: it may change authority, and
from its beginning to its end nobody else commits. ``shared``: beside others that are shared."""


class Journal(Protocol):
    """The one writer of its node: one transaction at a time, called from one thread.

    A transaction is durable (fsync, or the database's commit) when its ``with`` block has ended
    without an error; if it ends with one, nothing of it is applied, except that after
    LogUnavailable it may have been: who asked must ask again under the same idempotency key.
    """

    def transaction(self, fence: Fence = "exclusive") -> AbstractContextManager[Transaction]:
        """Begin; commit at the end of the block.

        What has committed before it began is seen by it, whichever node it was: this is the fence
        of design section 7.

        Raises:
            CommitContended: another node did the same thing meanwhile; nothing was applied.
            LogUnavailable: full disk, failing disk, or database gone; nothing was released.
        """
        ...


class EpochWatch(Protocol):
    """Tells that another node may have changed something; called from one thread of its own."""

    def wait(self, timeout_s: float) -> int:
        """The epoch as it is committed now, as soon as it may have moved, or after the timeout.

        Raises:
            LogUnavailable: the store does not answer.
        """
        ...

    def close(self) -> None:
        """End, also while another thread waits: that one raises LogUnavailable at once."""
        ...


class Anchor(Protocol):
    """What remembers the log's last checkpoint outside the data folder. ``name``: for people."""

    name: str

    def read(self) -> bytes | None:
        """What it remembers; None if it was never written.

        Raises:
            LogUnavailable: it cannot be asked now.
        """
        ...

    def write(self, note: bytes) -> None:
        """Remember a checkpoint; durable when this returns.

        Raises:
            LogUnavailable: it could not; what it remembered before stays.
        """
        ...


# --- authority -----------------------------------------------------------------------------------


class Guard(Protocol):
    """Decides who may do what; the vault asks it, never the front."""

    def decide(self, principal: Principal, action: str, target: Key | None) -> None:
        """Return if allowed.

        Raises:
            PermissionDenied: not this principal's to do.
            ApprovalRequired: only with other people's approval.
        """
        ...
