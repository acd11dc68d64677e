"""What a transaction reads and writes by the same statements on SQLite and on PostgreSQL."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from keystead.ports import (
    CheckpointRow,
    EpochRow,
    HandleRow,
    HistoryRow,
    LeaseRow,
    NodeRow,
    ObjectRow,
    ReservationRow,
)
from keystead.store import statements as sql

__all__ = ["SqlTransaction", "object_change"]


def object_change(row: ObjectRow, previous_revision: int) -> tuple[str, tuple[Any, ...]]:
    """The statement that writes a row of authority if it stands where it is thought to."""
    if previous_revision == 0:
        return sql.NEW_OBJECT, msgspec.structs.astuple(row)
    values = (row.name, row.revision, row.epoch, row.doc, row.mac)
    return sql.CHANGE_OBJECT, (*values, row.kind, row.id, previous_revision)


class SqlTransaction(ABC):
    """Part of the port ``Transaction``; the rest is each database's own."""

    @abstractmethod
    def _one(self, statement: str, *values: object) -> Any:  # noqa: ANN401  a row of the driver's
        """The first row, or None."""

    @abstractmethod
    def _all(self, statement: str, *values: object) -> Sequence[Any]:
        """All rows."""

    @abstractmethod
    def _write(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        """Once for each row; done at the latest when something is read, or at the commit."""

    @abstractmethod
    def _change(self, statement: str, *values: object) -> int:
        """Now; gives how many rows it changed."""

    # --- authority ---------------------------------------------------------------------------

    def epoch(self) -> EpochRow:
        """The epoch row."""
        row = self._one(sql.EPOCH)
        return EpochRow(*row) if row else EpochRow(0, b"", b"")

    def set_epoch(self, row: EpochRow) -> None:
        """Replace the epoch row."""
        self._write(sql.SET_EPOCH, [(row.epoch, row.root, row.mac)])

    def objects_since(self, epoch: int) -> Iterable[ObjectRow]:
        """Authority rows changed after an epoch."""
        return [ObjectRow(*row) for row in self._all(sql.OBJECTS_SINCE, epoch)]

    def put_history(self, rows: Sequence[HistoryRow]) -> None:
        """Keep revisions."""
        self._write(sql.KEEP_REVISION, map(msgspec.structs.astuple, rows))

    def put_meta(self, name: str, value: bytes) -> None:
        """Set a deployment-wide value, once."""
        self._write(sql.PUT_META, [(name, value)])

    def put_material(self, key_id: str, version: int, sealed: bytes | None) -> None:
        """Keep a version's sealed material, or erase it."""
        if sealed is None:
            self._write(sql.DROP_MATERIAL, [(key_id, version)])
        else:
            self._write(sql.PUT_MATERIAL, [(key_id, version, sealed)])

    def put_tenant_key(self, tenant: str, sealed: bytes) -> None:
        """Keep a tenant's sealed key-encryption key."""
        self._write(sql.PUT_TENANT_KEY, [(tenant, sealed)])

    def tenant_key(self, tenant: str) -> bytes | None:
        """A tenant's sealed key-encryption key."""
        row = self._one(sql.TENANT_KEY, tenant)
        return row[0] if row else None

    def put_handle(self, row: HandleRow) -> None:
        """Keep whom a handle is issued to."""
        self._write(sql.PUT_HANDLE, [msgspec.structs.astuple(row)])

    # --- nodes -------------------------------------------------------------------------------

    def put_reservation(self, row: ReservationRow) -> None:
        """Open a reservation, or close the one of its id."""
        self._write(sql.PUT_RESERVATION, [msgspec.structs.astuple(row)])

    def put_node(self, row: NodeRow) -> None:
        """Say how far this node has come."""
        self._write(sql.PUT_NODE, [msgspec.structs.astuple(row)])

    def lease(self, name: str) -> LeaseRow | None:
        """Who leads."""
        row = self._one(sql.LEASE, name)
        return LeaseRow(*row) if row else None

    def put_lease(self, row: LeaseRow) -> None:
        """Take, keep or renew a lease."""
        self._write(sql.PUT_LEASE, [msgspec.structs.astuple(row)])

    # --- the log, and what is decided in the commit ------------------------------------------

    def last_sequence(self) -> int:
        """The greatest sequence, -1 if there is none."""
        return int(self._one(sql.LAST_SEQUENCE)[0])

    def put_checkpoint(self, row: CheckpointRow) -> None:
        """Keep a checkpoint."""
        self._write(sql.PUT_CHECKPOINT, [msgspec.structs.astuple(row)])

    def prune_checkpoints(self, before_ms: int, limit: int) -> int:
        """Drop old ones, but the last of each hour."""
        return self._change(sql.PRUNE_CHECKPOINTS, before_ms, limit)

    def idempotent_count(self, scope: str) -> int:
        """Idempotency keys kept of a scope."""
        return int(self._one(sql.COUNT_IDEMPOTENT, scope)[0])

    def prune_idempotent(self, now_ms: int, limit: int) -> int:
        """Drop outcomes that have expired."""
        return self._change(sql.PRUNE_IDEMPOTENT, now_ms, limit)

    def put_spent(self, spent: dict[str, int]) -> None:
        """Set the uses spent."""
        self._write(sql.PUT_SPENT, sorted(spent.items()))

    def put_counters(self, values: dict[tuple[str, str], bytes]) -> None:
        """Set counters."""
        self._write(sql.PUT_COUNTER, [(*at, value) for at, value in sorted(values.items())])
