"""Reads outside the commit, behind the port ``Registry``, on SQLite."""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
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
from keystead.store.sqlite import connect, unavailable

__all__ = ["SqliteRegistry"]

_RECORD_COLUMNS = (
    "seq, time_ms, epoch, op, outcome, key_id, version, handle_id, principal, request_id,"
    " body, salt, entry, leaf, purpose"
)

_CHECKPOINT_COLUMNS = "size, root, frontier, note, time_ms, mac"

_SURROGATES, _AFTER_SURROGATES = 0xD800, 0xE000
"""Code points from the first to before the second are in no text (RFC 3629 section 3)."""


class SqliteRegistry:
    """One read-only connection, used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, read_only=True)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _one(self, sql: str, *values: object) -> Any:  # noqa: ANN401  a row of the driver's
        try:
            return self._connection.execute(sql, values).fetchone()
        except sqlite3.Error as exc:
            raise unavailable(exc) from exc

    def _all(self, sql: str, values: Iterable[object] = ()) -> list[Any]:
        try:
            return self._connection.execute(sql, tuple(values)).fetchall()
        except sqlite3.Error as exc:
            raise unavailable(exc) from exc

    def meta(self, name: str) -> bytes | None:
        """A deployment-wide value."""
        row = self._one("SELECT value FROM meta WHERE name = ?", name)
        return row[0] if row else None

    def epoch(self) -> EpochRow | None:
        """The epoch row."""
        row = self._one("SELECT epoch, root, mac FROM epoch WHERE id = 1")
        return EpochRow(*row) if row else None

    def objects(self) -> Iterable[ObjectRow]:
        """All authority rows."""
        sql = "SELECT kind, id, name, revision, epoch, doc, mac FROM objects"
        return [ObjectRow(*row) for row in self._all(sql)]

    def material(self, key_id: str, version: int) -> bytes | None:
        """A version's sealed material."""
        row = self._one(
            "SELECT sealed FROM materials WHERE key_id = ? AND version = ?", key_id, version
        )
        return row[0] if row else None

    def tenant_key(self, tenant: str) -> bytes | None:
        """A tenant's sealed key-encryption key."""
        row = self._one("SELECT sealed FROM tenant_keys WHERE tenant = ?", tenant)
        return row[0] if row else None

    def handle(self, handle_id: str) -> HandleRow | None:
        """Whom a handle was issued to."""
        row = self._one(
            "SELECT id, key_id, tenant, principal, issued_ms, mac FROM handles WHERE id = ?",
            handle_id,
        )
        return HandleRow(*row) if row else None

    def idempotent(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key."""
        row = self._one(
            "SELECT scope, key, fingerprint, seq, result, receipt, expires_ms FROM idempotency"
            " WHERE scope = ? AND key = ?",
            scope,
            key,
        )
        return IdempotencyRow(*row) if row else None

    def idempotent_at_hand(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key: the file is at hand."""
        return self.idempotent(scope, key)

    def counter(self, key_id: str, name: str) -> bytes | None:
        """A durable counter's state."""
        row = self._one("SELECT value FROM counters WHERE key_id = ? AND name = ?", key_id, name)
        return row[0] if row else None

    def counters(self, key_id: str, prefix: str) -> dict[str, bytes]:
        """All counters of a key whose names begin so."""
        sql = "SELECT name, value FROM counters WHERE key_id = ? AND name >= ?"
        end = _after_all(prefix)
        if end is None:
            return dict(self._all(sql, (key_id, prefix)))
        return dict(self._all(f"{sql} AND name < ?", (key_id, prefix, end)))

    def spent(self, link: str) -> int:
        """Uses spent under a link."""
        row = self._one("SELECT uses FROM spent WHERE link = ?", link)
        return int(row[0]) if row else 0

    def records_from(self, seq: int, limit: int) -> list[RecordRow]:
        """Records in order from a sequence on."""
        sql = f"SELECT {_RECORD_COLUMNS} FROM records WHERE seq >= ? ORDER BY seq LIMIT ?"  # noqa: S608  columns are constants
        return [RecordRow(*row) for row in self._all(sql, (seq, limit))]

    def entries_from(self, seq: int, limit: int) -> list[EntryRow]:
        """What the tree is made of, in order."""
        sql = (
            "SELECT seq, epoch, salt, body, entry, leaf FROM records WHERE seq >= ?"
            " ORDER BY seq LIMIT ?"
        )
        return [EntryRow(*row) for row in self._all(sql, (seq, limit))]

    def checkpoint(self, size: int | None = None) -> CheckpointRow | None:
        """The checkpoint of a size, or the last one."""
        where = "" if size is None else " WHERE size = ?"
        sql = f"SELECT {_CHECKPOINT_COLUMNS} FROM checkpoints{where} ORDER BY size DESC LIMIT 1"  # noqa: S608  constants, and the size is bound
        row = self._one(sql, *(() if size is None else (size,)))
        return CheckpointRow(*row) if row else None

    def checkpoints_from(self, size: int, limit: int) -> list[CheckpointRow]:
        """Checkpoints that are kept, in order."""
        sql = f"SELECT {_CHECKPOINT_COLUMNS} FROM checkpoints WHERE size >= ? ORDER BY size LIMIT ?"  # noqa: S608  columns are constants
        return [CheckpointRow(*row) for row in self._all(sql, (size, limit))]

    def record_of(self, node: str, seq: int) -> RecordRow | None:  # noqa: ARG002  there is one log
        """One record."""
        rows = self.records_from(seq, 1)
        return rows[0] if rows and rows[0].seq == seq else None

    def reservations_open(self, node: str | None) -> list[ReservationRow]:
        """Reservations of a node, or of all, that are not closed."""
        sql = (
            "SELECT id, node, key_id, epoch, count, expires_boot_ms, opened_seq, closed"
            " FROM reservations WHERE closed = 0 AND node = coalesce(?, node)"
        )
        return [
            ReservationRow(*(*values, bool(closed))) for *values, closed in self._all(sql, (node,))
        ]

    def nodes(self) -> list[NodeRow]:
        """How far each node has come."""
        sql = "SELECT node, seen_epoch, beat, url, mac FROM nodes ORDER BY node"
        return [NodeRow(*row) for row in self._all(sql)]

    def lease(self, name: str) -> LeaseRow | None:
        """Who leads."""
        row = self._one("SELECT name, holder, fence, beat, mac FROM leases WHERE name = ?", name)
        return LeaseRow(*row) if row else None

    def last_sequence(self) -> int:
        """The greatest sequence, -1 if there is none."""
        return int(self._one("SELECT coalesce(max(seq), -1) FROM records")[0])


def _after_all(prefix: str) -> str | None:
    """The least text after all that begin so, in the order of code points; None: there is none.

    SQLite compares the bytes of UTF-8, which is the same order; LIKE has wildcards, and takes
    upper case for lower.
    """
    stem = prefix.rstrip(chr(sys.maxunicode))
    if not stem:
        return None
    after = ord(stem[-1]) + 1
    return stem[:-1] + chr(_AFTER_SURROGATES if after == _SURROGATES else after)
