"""Journal and registry in memory: all that their ports promise, on a disk that is a value.

Faults come in both forms: a commit that fails and was not applied, and one that was applied and is
reported as failed, as when the connection to a database breaks while it commits.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TypeVar

import msgspec

from keystead.errors import Conflict, LogUnavailable
from keystead.keys.commands import CountBy
from keystead.ports import (
    CheckpointRow,
    EntryRow,
    EpochRow,
    Fence,
    HandleRow,
    HistoryQuery,
    HistoryRow,
    IdempotencyRow,
    LeaseRow,
    LogReader,
    NodeRow,
    ObjectRow,
    Reach,
    RecordRow,
    RecordsChoice,
    RecordsCount,
    RecordsPage,
    RecordsQuery,
    ReservationRow,
    Transaction,
)

__all__ = ["Fault", "Log", "MemoryDisk", "MemoryStore", "MemoryWatch", "Tables"]

_HOUR_MS = 3_600_000
_ASKED = ("key_id", "version", "purpose", "handle_id", "principal", "op", "request_id")
_COUNTED: dict[CountBy, Callable[[RecordRow], str]] = {
    "key": lambda row: row.key_id,
    "principal": lambda row: row.principal,
    "outcome": lambda row: row.outcome,
    "operation": lambda row: row.op,
    "handle": lambda row: row.handle_id,
    "purpose": lambda row: row.purpose,
    "hour": lambda row: str(row.time_ms // _HOUR_MS * _HOUR_MS),
}
_K = TypeVar("_K")
_V = TypeVar("_V")


class Fault(StrEnum):
    """How a commit fails."""

    NOT_APPLIED = "not applied"
    APPLIED = "applied but reported as failed"


class Log(msgspec.Struct, frozen=True, kw_only=True):
    """The log of one node."""

    records: dict[int, RecordRow] = {}
    checkpoints: dict[int, CheckpointRow] = {}


class Tables(msgspec.Struct, frozen=True, kw_only=True):
    """One committed state. Its dictionaries are never changed: a commit puts new ones in place.

    ``records`` and ``checkpoints``: of the node without a name; ``logs``: of those that have one.
    """

    epoch: EpochRow | None = None
    meta: dict[str, bytes] = {}
    objects: dict[tuple[str, str], ObjectRow] = {}
    history: dict[tuple[str, str, int], HistoryRow] = {}
    materials: dict[tuple[str, int], bytes] = {}
    tenant_keys: dict[str, bytes] = {}
    handles: dict[str, HandleRow] = {}
    records: dict[int, RecordRow] = {}
    idempotency: dict[tuple[str, str], IdempotencyRow] = {}
    spent: dict[str, int] = {}
    counters: dict[tuple[str, str], bytes] = {}
    reservations: dict[str, ReservationRow] = {}
    nodes: dict[str, NodeRow] = {}
    leases: dict[str, LeaseRow] = {}
    checkpoints: dict[int, CheckpointRow] = {}
    logs: dict[str, Log] = {}

    def of(self, node: str) -> Tables:
        """As a node sees them: its own log stands where the nameless node's does."""
        if not node:
            return self
        log = self.logs.get(node, Log())
        return msgspec.structs.replace(self, records=log.records, checkpoints=log.checkpoints)

    def back(self, node: str, before: Tables) -> Tables:
        """What a node saw and changed, as it lies on the disk; ``before``: what lay there."""
        if not node:
            return self
        own = {node: Log(records=self.records, checkpoints=self.checkpoints)}
        return msgspec.structs.replace(
            self,
            records=before.records,
            checkpoints=before.checkpoints,
            logs=before.logs | own,
        )


class MemoryDisk:
    """What survives a process: two stores on one disk are a node before and after, or two nodes.

    ``tables``: the committed state. A test may put another here, as whoever can write a database.
    """

    def __init__(self) -> None:
        self.tables = Tables()
        self.writing = threading.Lock()
        self.changed = threading.Condition()

    def committed(self) -> None:
        """Wake who watches."""
        with self.changed:
            self.changed.notify_all()


class MemoryWatch:
    """Behind the port ``EpochWatch``. ``deaf``: no notification comes, so that asking finds out."""

    def __init__(self, disk: MemoryDisk) -> None:
        self._disk = disk
        self._seen = -1
        self._closed = False
        self.deaf = False

    def wait(self, timeout_s: float) -> int:
        """The epoch as it is committed, once it has moved or the time is over."""
        with self._disk.changed:
            self._disk.changed.wait_for(self._woken, timeout_s)
        if self._closed:
            raise _unavailable("the watch was closed")
        self._seen = self._epoch()
        return self._seen

    def close(self) -> None:
        """End, and wake who waits."""
        self._closed = True
        self._disk.committed()

    def _woken(self) -> bool:
        return self._closed or (not self.deaf and self._epoch() != self._seen)

    def _epoch(self) -> int:
        row = self._disk.tables.epoch
        return row.epoch if row else 0


class MemoryStore:
    """Behind the ports ``Journal``, ``Registry`` and ``LogReader``; safe from any threads.

    ``before_commit``: called in the committing thread when a block has ended without an error;
    it may wait, which holds up the commit as a slow disk does. ``down``: while it is set, nothing
    can be begun or read. ``node``: whose log it is; stores of several nodes are on one disk.
    """

    def __init__(self, disk: MemoryDisk | None = None, node: str = "") -> None:
        self.disk = disk or MemoryDisk()
        self.node = node
        self.before_commit: Callable[[], None] | None = None
        self.down = False
        self._faults: deque[Fault] = deque()
        self._writer: int | None = None

    def fail_next(self, *faults: Fault) -> None:
        """The next commits fail, each in its way."""
        self._faults.extend(faults)

    # --- the journal -------------------------------------------------------------------------

    @contextmanager
    def transaction(self, fence: Fence = "exclusive") -> Iterator[Transaction]:  # noqa: ARG002  each is
        """One commit; whoever comes second waits.

        Raises:
            LogUnavailable: by a fault, or because this thread has a transaction open.
        """
        if self.down or self._writer == threading.get_ident():
            raise _unavailable("the transaction could not begin")
        with self.disk.writing:
            self._writer = threading.get_ident()
            try:
                transaction = _MemoryTransaction(self.disk.tables.of(self.node))
                yield transaction
                self._commit(transaction.tables)
            finally:
                self._writer = None

    def _commit(self, tables: Tables) -> None:
        if self.before_commit is not None:
            self.before_commit()
        fault = self._faults.popleft() if self._faults else None
        if fault is not Fault.NOT_APPLIED:
            self.disk.tables = tables.back(self.node, self.disk.tables)
            self.disk.committed()
        if fault is not None:
            raise _unavailable(f"the commit failed ({fault})")

    # --- the registry ------------------------------------------------------------------------

    def _read(self) -> Tables:
        if self.down:
            raise _unavailable("the registry does not answer")
        return self.disk.tables.of(self.node)

    def meta(self, name: str) -> bytes | None:
        """A deployment-wide value."""
        return self._read().meta.get(name)

    def epoch(self) -> EpochRow | None:
        """The epoch row."""
        return self._read().epoch

    def objects(self) -> Iterable[ObjectRow]:
        """All authority rows."""
        return list(self._read().objects.values())

    def material(self, key_id: str, version: int) -> bytes | None:
        """A version's sealed material."""
        return self._read().materials.get((key_id, version))

    def tenant_key(self, tenant: str) -> bytes | None:
        """A tenant's sealed key-encryption key."""
        return self._read().tenant_keys.get(tenant)

    def handle(self, handle_id: str) -> HandleRow | None:
        """Whom a handle was issued to."""
        return self._read().handles.get(handle_id)

    def handles_of(self, key_id: str, after: str, limit: int) -> list[HandleRow]:
        """Handles of a key, in order of their ids."""
        rows = sorted(self._read().handles.items())
        return [row for at, row in rows if row.key_id == key_id and at > after][:limit]

    def idempotent(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key."""
        return self._read().idempotency.get((scope, key))

    def idempotent_at_hand(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key."""
        return self.idempotent(scope, key)

    def counter(self, key_id: str, name: str) -> bytes | None:
        """A durable counter's state."""
        return self._read().counters.get((key_id, name))

    def counters(self, key_id: str, prefix: str) -> dict[str, bytes]:
        """All counters of a key whose names begin so."""
        return {
            name: value
            for (of, name), value in self._read().counters.items()
            if of == key_id and name.startswith(prefix)
        }

    def spent(self, link: str) -> int:
        """Uses spent under a link."""
        return self._read().spent.get(link, 0)

    def records_from(self, seq: int, limit: int) -> list[RecordRow]:
        """Records in order from a sequence on."""
        records = self._read().records
        return [records[number] for number in sorted(records) if number >= seq][:limit]

    def entries_from(self, seq: int, limit: int) -> list[EntryRow]:
        """What the tree is made of, in order."""
        return [
            EntryRow(row.seq, row.epoch, row.salt, row.body, row.entry, row.leaf)
            for row in self.records_from(seq, limit)
        ]

    def checkpoint(self, size: int | None = None) -> CheckpointRow | None:
        """The checkpoint of a size, or the last one."""
        rows = self._read().checkpoints
        return rows.get(max(rows, default=-1) if size is None else size)

    def checkpoints_from(self, size: int, limit: int) -> list[CheckpointRow]:
        """Checkpoints that are kept, in order."""
        rows = self._read().checkpoints
        return [rows[at] for at in sorted(rows) if at >= size][:limit]

    def record_of(self, node: str, seq: int) -> RecordRow | None:
        """One record of a node's log; of the one log there is, if that is nobody's."""
        tables = self._read()
        return tables.of(node if self.node else "").records.get(seq)

    def reservations_open(self, node: str | None) -> list[ReservationRow]:
        """Reservations of a node, or of all, that are not closed."""
        rows = self._read().reservations.values()
        return [row for row in rows if node in (None, row.node) and not row.closed]

    def nodes(self) -> list[NodeRow]:
        """How far each node has come."""
        return [row for _, row in sorted(self._read().nodes.items())]

    def lease(self, name: str) -> LeaseRow | None:
        """Who leads."""
        return self._read().leases.get(name)

    def last_sequence(self) -> int:
        """The greatest sequence, -1 if there is none."""
        return max(self._read().records, default=-1)

    # --- the log reader ----------------------------------------------------------------------

    def search(self, query: RecordsQuery) -> RecordsPage:
        """A page of records."""
        rows, reach = self._found(query, query.limit)
        return RecordsPage(rows, reach)

    def count(self, query: RecordsQuery, by: CountBy) -> RecordsCount:
        """Counts by a column."""
        rows, reach = self._found(query, None)
        return RecordsCount(dict(Counter(_COUNTED[by](row) for row in rows)), reach)

    def choose(self, query: RecordsQuery) -> RecordsChoice:
        """Sequences and the times they span."""
        rows, reach = self._found(query, query.limit)
        times = [row.time_ms for row in rows] or [0]
        return RecordsChoice([row.seq for row in rows], min(times), max(times), reach)

    def record(self, seq: int) -> RecordRow | None:
        """One record."""
        return self._read().records.get(seq)

    def history(self, query: HistoryQuery) -> list[HistoryRow]:
        """Revisions of authority rows."""
        rows = [row for row in self._read().history.values() if _revision_matches(query, row)]
        rows.sort(key=lambda row: (-row.epoch, row.kind, row.id, -row.revision))
        if query.at_seq is not None or query.at_ms is not None:
            last: dict[tuple[str, str], int] = {}
            for row in rows:
                last[row.kind, row.id] = max(row.revision, last.get((row.kind, row.id), 0))
            rows = [row for row in rows if row.revision == last[row.kind, row.id]]
        before = query.before_epoch
        return [row for row in rows if before is None or row.epoch < before][: query.limit]

    def others(self) -> dict[str, LogReader]:
        """Readers of the other nodes' logs."""
        names = sorted(self._read().logs.keys() - {self.node}) if self.node else []
        return {name: MemoryStore(self.disk, name) for name in names}

    def forgotten_in(self, ranges: Sequence[tuple[int, int]]) -> int:
        """How many records of the ranges are forgotten."""
        records = self._read().records
        seqs = (seq for low, high in ranges for seq in range(low, high + 1))
        return sum(seq in records and records[seq].body is None for seq in seqs)

    def scrub(self) -> bool:
        """Nothing lies beside this store."""
        return True

    def close(self) -> None:
        """Nothing is open."""

    def _found(self, query: RecordsQuery, limit: int | None) -> tuple[list[RecordRow], Reach]:
        records = self._read().records
        top = max(records, default=-1)
        low = 0 if query.after is None else query.after + 1
        high = top if query.before is None else min(top, query.before - 1)
        seqs = (
            seq for seq in sorted(records, reverse=not query.oldest_first) if low <= seq <= high
        )
        rows = [records[seq] for seq in seqs if _matches(query, records[seq])]
        if limit is not None and len(rows) >= limit:
            rows = rows[:limit]
            return rows, Reach(next=rows[-1].seq, end=False, top=top)
        end = max(high, low - 1) if query.oldest_first else low
        return rows, Reach(next=end, end=True, top=top)


class _MemoryTransaction:
    """Writes make new dictionaries, so what was committed stays as it was whatever happens here."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def _change(self, **tables: object) -> None:
        self.tables = msgspec.structs.replace(self.tables, **tables)

    def expect(self, **_rows: object) -> None:
        """All of it is at hand, and nobody else writes."""

    def epoch(self) -> EpochRow:
        return self.tables.epoch or EpochRow(0, b"", b"")

    def set_epoch(self, row: EpochRow) -> None:
        self._change(epoch=row)

    def objects_since(self, epoch: int) -> Iterable[ObjectRow]:
        return [row for row in self.tables.objects.values() if row.epoch > epoch]

    def put_object(self, row: ObjectRow, *, previous_revision: int) -> None:
        objects = self.tables.objects
        at = (row.kind, row.id)
        there = objects.get(at)
        if previous_revision != (there.revision if there else 0):
            raise Conflict(f"{row.kind} {row.name} has changed meanwhile")
        if any(
            (other.kind, other.name) == (row.kind, row.name) and other.id != row.id
            for other in objects.values()
        ):
            raise Conflict(f"there is a {row.kind} named {row.name} already")
        self._change(objects={**objects, at: row})

    def put_history(self, rows: Sequence[HistoryRow]) -> None:
        history = dict(self.tables.history)
        for row in rows:
            history.setdefault((row.kind, row.id, row.revision), row)
        self._change(history=history)

    def put_meta(self, name: str, value: bytes) -> None:
        self._change(meta=_inserted(self.tables.meta, {name: value}))

    def put_material(self, key_id: str, version: int, sealed: bytes | None) -> None:
        at, materials = (key_id, version), self.tables.materials
        if sealed is None:
            self._change(materials={key: value for key, value in materials.items() if key != at})
        else:
            self._change(materials=_inserted(materials, {at: sealed}))

    def put_tenant_key(self, tenant: str, sealed: bytes) -> None:
        self._change(tenant_keys=_inserted(self.tables.tenant_keys, {tenant: sealed}))

    def tenant_key(self, tenant: str) -> bytes | None:
        return self.tables.tenant_keys.get(tenant)

    def put_handle(self, row: HandleRow) -> None:
        self._change(handles=_inserted(self.tables.handles, {row.id: row}))

    def last_sequence(self) -> int:
        return max(self.tables.records, default=-1)

    def append(self, rows: Sequence[RecordRow]) -> None:
        new = {row.seq: row for row in rows}
        if len(new) != len(rows):
            raise _unavailable("a sequence is there twice")
        self._change(records=_inserted(self.tables.records, new))

    def forget(self, ranges: Sequence[tuple[int, int]], ops: Sequence[str]) -> int:
        gone = {
            row.seq: msgspec.structs.replace(
                row, body=None, salt=None, handle_id="", principal="", request_id=""
            )
            for row in _kept(self.tables.records, ranges, ops)
        }
        self._change(records=self.tables.records | gone)
        return len(gone)

    def idempotent(self, scope: str, key: str) -> IdempotencyRow | None:
        return self.tables.idempotency.get((scope, key))

    def idempotent_count(self, scope: str) -> int:
        return sum(row.scope == scope for row in self.tables.idempotency.values())

    def put_idempotent(self, rows: Sequence[IdempotencyRow]) -> None:
        new = {(row.scope, row.key): row for row in rows}
        if len(new) != len(rows):
            raise _unavailable("an idempotency key is there twice")
        self._change(idempotency=_inserted(self.tables.idempotency, new))

    def prune_idempotent(self, now_ms: int, limit: int) -> int:
        rows = self.tables.idempotency
        gone = {at for at, row in rows.items() if row.expires_ms <= now_ms}
        gone = set(sorted(gone)[:limit])
        self._change(idempotency={at: row for at, row in rows.items() if at not in gone})
        return len(gone)

    def spent(self, link: str) -> int:
        return self.tables.spent.get(link, 0)

    def put_spent(self, spent: dict[str, int]) -> None:
        self._change(spent=self.tables.spent | spent)

    def counter(self, key_id: str, name: str) -> bytes | None:
        return self.tables.counters.get((key_id, name))

    def put_counters(self, values: dict[tuple[str, str], bytes]) -> None:
        self._change(counters=self.tables.counters | values)

    def put_checkpoint(self, row: CheckpointRow) -> None:
        self._change(checkpoints={row.size: row} | self.tables.checkpoints)

    def prune_checkpoints(self, before_ms: int, limit: int) -> int:
        rows = self.tables.checkpoints
        last = {row.time_ms // _HOUR_MS: size for size, row in sorted(rows.items())}
        old = (size for size, row in sorted(rows.items()) if row.time_ms < before_ms)
        gone = {size for size in old if last[rows[size].time_ms // _HOUR_MS] != size}
        gone = set(sorted(gone)[:limit])
        self._change(checkpoints={size: row for size, row in rows.items() if size not in gone})
        return len(gone)

    def put_reservation(self, row: ReservationRow) -> None:
        rows = self.tables.reservations
        there = rows.get(row.id)
        if there is not None:
            row = msgspec.structs.replace(there, closed=row.closed)
        self._change(reservations=rows | {row.id: row})

    def put_node(self, row: NodeRow) -> None:
        self._change(nodes=self.tables.nodes | {row.node: row})

    def lease(self, name: str) -> LeaseRow | None:
        return self.tables.leases.get(name)

    def put_lease(self, row: LeaseRow) -> None:
        self._change(leases=self.tables.leases | {row.name: row})


def _kept(
    records: dict[int, RecordRow], ranges: Sequence[tuple[int, int]], ops: Sequence[str]
) -> list[RecordRow]:
    seqs = {seq for low, high in ranges for seq in range(low, high + 1)} & records.keys()
    rows = (records[seq] for seq in seqs)
    return [row for row in rows if row.body is not None and row.op in ops]


def _matches(query: RecordsQuery, row: RecordRow) -> bool:
    if any(getattr(query, name) not in (None, getattr(row, name)) for name in _ASKED):
        return False
    outcomes = (None, "denied" if row.outcome != "ok" else "ok", row.outcome)
    return (
        query.outcome in outcomes
        and (query.ops is None or row.op in query.ops)
        and query.kept in (None, row.body is not None)
        and (query.since_ms is None or row.time_ms >= query.since_ms)
        and (query.until_ms is None or row.time_ms < query.until_ms)
    )


def _revision_matches(query: HistoryQuery, row: HistoryRow) -> bool:
    return (
        query.kind in (None, row.kind)
        and query.object_id in (None, row.id)
        and query.revision in (None, row.revision)
        and (query.at_seq is None or row.seq <= query.at_seq)
        and (query.at_ms is None or row.time_ms <= query.at_ms)
    )


def _inserted(table: dict[_K, _V], rows: dict[_K, _V]) -> dict[_K, _V]:
    taken = table.keys() & rows.keys()
    if taken:
        raise _unavailable(f"a row of this name is there already: {min(map(repr, taken))}")
    return table | rows


def _unavailable(what: str) -> LogUnavailable:
    return LogUnavailable(what, hint="Send it again, under the same idempotency key")
