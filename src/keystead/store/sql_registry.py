"""What a registry reads by the same statements on SQLite and on PostgreSQL."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from keystead.ports import (
    CheckpointRow,
    EntryRow,
    EpochRow,
    HandleRow,
    IdempotencyRow,
    LeaseRow,
    NodeRow,
    ObjectRow,
    RecordRow,
    ReservationRow,
)
from keystead.store import statements as sql

__all__ = ["SqlRegistry"]

_SURROGATES, _AFTER_SURROGATES = 0xD800, 0xE000
"""Code points from the first to before the second are in no text (RFC 3629 section 3)."""


class SqlRegistry(ABC):
    """Most of the port ``Registry``; the rest is each database's own."""

    @abstractmethod
    def _all(self, statement: str, values: Sequence[object] = ()) -> Sequence[Any]:
        """All rows."""

    def _one(self, statement: str, *values: object) -> Any:  # noqa: ANN401  a row of the driver's
        rows = self._all(statement, values)
        return rows[0] if rows else None

    def meta(self, name: str) -> bytes | None:
        """A deployment-wide value."""
        row = self._one("SELECT value FROM meta WHERE name = ?", name)
        return row[0] if row else None

    def epoch(self) -> EpochRow | None:
        """The epoch row."""
        row = self._one(sql.EPOCH)
        return EpochRow(*row) if row else None

    def objects(self) -> Iterable[ObjectRow]:
        """All authority rows."""
        return [ObjectRow(*row) for row in self._all(sql.OBJECTS)]

    def material(self, key_id: str, version: int) -> bytes | None:
        """A version's sealed material."""
        row = self._one(
            "SELECT sealed FROM materials WHERE key_id = ? AND version = ?", key_id, version
        )
        return row[0] if row else None

    def tenant_key(self, tenant: str) -> bytes | None:
        """A tenant's sealed key-encryption key."""
        row = self._one(sql.TENANT_KEY, tenant)
        return row[0] if row else None

    def handle(self, handle_id: str) -> HandleRow | None:
        """Whom a handle was issued to."""
        row = self._one(
            "SELECT id, key_id, tenant, principal, issued_ms, mac FROM handles WHERE id = ?",
            handle_id,
        )
        return HandleRow(*row) if row else None

    def handles_of(self, key_id: str, after: str, limit: int) -> list[HandleRow]:
        """Handles of a key, in order of their ids."""
        statement = (
            "SELECT id, key_id, tenant, principal, issued_ms, mac FROM handles"
            " WHERE key_id = ? AND id > ? ORDER BY id LIMIT ?"
        )
        return [HandleRow(*row) for row in self._all(statement, (key_id, after, limit))]

    def idempotent(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key."""
        row = self._one(sql.IDEMPOTENT, scope, key)
        return IdempotencyRow(*row) if row else None

    def counter(self, key_id: str, name: str) -> bytes | None:
        """A durable counter's state."""
        row = self._one(sql.COUNTER, key_id, name)
        return row[0] if row else None

    def counters(self, key_id: str, prefix: str) -> dict[str, bytes]:
        """All counters of a key whose names begin so."""
        statement = "SELECT name, value FROM counters WHERE key_id = ? AND name >= ?"
        end = _after_all(prefix)
        if end is None:
            return dict(self._all(statement, (key_id, prefix)))
        return dict(self._all(f"{statement} AND name < ?", (key_id, prefix, end)))

    def spent(self, link: str) -> int:
        """Uses spent under a link."""
        row = self._one(sql.SPENT, link)
        return int(row[0]) if row else 0

    def records_from(self, seq: int, limit: int) -> list[RecordRow]:
        """Records in order from a sequence on."""
        return [RecordRow(*row) for row in self._all(sql.RECORDS_FROM, (seq, limit))]

    def entries_from(self, seq: int, limit: int) -> list[EntryRow]:
        """What the tree is made of, in order."""
        return [EntryRow(*row) for row in self._all(sql.ENTRIES_FROM, (seq, limit))]

    def checkpoint(self, size: int | None = None) -> CheckpointRow | None:
        """The checkpoint of a size, or the last one."""
        where = "" if size is None else " WHERE size = ?"
        statement = (
            f"SELECT {sql.CHECKPOINT_COLUMNS} FROM checkpoints{where} ORDER BY size DESC LIMIT 1"  # noqa: S608  constants, and the size is bound
        )
        row = self._one(statement, *(() if size is None else (size,)))
        return CheckpointRow(*row) if row else None

    def checkpoints_from(self, size: int, limit: int) -> list[CheckpointRow]:
        """Checkpoints that are kept, in order."""
        statement = (
            f"SELECT {sql.CHECKPOINT_COLUMNS} FROM checkpoints WHERE size >= ?"  # noqa: S608  columns are constants
            " ORDER BY size LIMIT ?"
        )
        return [CheckpointRow(*row) for row in self._all(statement, (size, limit))]

    def reservations_open(self, node: str | None) -> list[ReservationRow]:
        """Reservations of a node, or of all, that are not closed."""
        statement = f"{sql.OPEN_RESERVATIONS} AND node = coalesce(?, node)"
        return [ReservationRow(*(*row[:-1], False)) for row in self._all(statement, (node,))]

    def nodes(self) -> list[NodeRow]:
        """How far each node has come."""
        statement = "SELECT node, seen_epoch, beat, url, mac FROM nodes ORDER BY node"
        return [NodeRow(*row) for row in self._all(statement)]

    def lease(self, name: str) -> LeaseRow | None:
        """Who leads."""
        row = self._one(sql.LEASE, name)
        return LeaseRow(*row) if row else None

    def last_sequence(self) -> int:
        """The greatest sequence, -1 if there is none."""
        return int(self._one(sql.LAST_SEQUENCE)[0])


def _after_all(prefix: str) -> str | None:
    """The least text after all that begin so, in the order of code points; None: there is none.

    Both databases compare the bytes of UTF-8 here, which is the same order; LIKE has wildcards,
    and SQLite's takes upper case for lower.
    """
    stem = prefix.rstrip(chr(sys.maxunicode))
    if not stem:
        return None
    after = ord(stem[-1]) + 1
    return stem[:-1] + chr(_AFTER_SURROGATES if after == _SURROGATES else after)
