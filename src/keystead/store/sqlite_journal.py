"""The one writer, behind the port ``Journal``, on SQLite: hot statements by the driver directly."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import msgspec

from keystead.errors import Conflict
from keystead.ports import (
    CheckpointRow,
    EpochRow,
    Fence,
    HandleRow,
    HistoryRow,
    IdempotencyRow,
    LeaseRow,
    NodeRow,
    ObjectRow,
    RecordRow,
    ReservationRow,
    Transaction,
)
from keystead.store.sqlite import connect, unavailable
from keystead.store.sqlite_blocks import note_blocks
from keystead.store.sqlite_forget import forget
from keystead.store.sqlite_history import keep
from keystead.store.sqlite_log_index import LogIndex

__all__ = ["SqliteJournal"]

_APPEND = (
    "INSERT OR ROLLBACK INTO records (seq, time_ms, epoch, op, outcome, key_id, version, handle_id,"
    " principal, request_id, body, salt, entry, leaf, purpose) VALUES "
)
"""OR ROLLBACK: a row that is there already ends the whole commit, as it would anyway; so SQLite
keeps no journal of the statement, half of all that a commit writes, and in a file outside the data
folder (sqlite.org/tempfiles.html section 2.5)."""
_PUT_IDEMPOTENT = (
    "INSERT OR ROLLBACK INTO idempotency (scope, key, fingerprint, seq, result, receipt,"
    " expires_ms) VALUES "
)
_ROWS_MAX = 512
"""Rows of one INSERT; with 15 columns far below SQLite's bound on variables
(sqlite.org/limits.html number 9)."""


class SqliteJournal:
    """One connection, one thread; the write lock is taken when a transaction begins."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path)
        self._index = LogIndex()

    def close(self) -> None:
        """Close the connection, after a checkpoint of the write-ahead log."""
        self._connection.close()

    @contextmanager
    def transaction(self, fence: Fence = "exclusive") -> Iterator[Transaction]:  # noqa: ARG002  one writer, so each is
        """One commit, durable when the block has ended.

        Raises:
            LogUnavailable: the database failed; whatever was not yet committed is rolled back.
        """
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            tx = _SqliteTransaction(connection)
            yield tx
            self._index.keep_up(connection, tx.appended)
            connection.execute("COMMIT")
        except sqlite3.Error as exc:
            self._roll_back()
            raise unavailable(exc) from exc
        except BaseException:
            self._roll_back()
            raise

    def _roll_back(self) -> None:
        self._index.unsettled()
        # Where even that fails the next BEGIN does too, so nothing is ever done on top of it.
        with suppress(sqlite3.Error):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")


class _SqliteTransaction:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        self._many = connection.executemany
        self.appended = 0

    def expect(self, **_rows: object) -> None:
        """Each read is as good later: the file is at hand, and nobody else writes."""

    def epoch(self) -> EpochRow:
        row = self._execute("SELECT epoch, root, mac FROM epoch WHERE id = 1").fetchone()
        return EpochRow(*row) if row else EpochRow(0, b"", b"")

    def set_epoch(self, row: EpochRow) -> None:
        self._execute(
            "INSERT INTO epoch (id, epoch, root, mac) VALUES (1,?,?,?) ON CONFLICT (id) DO UPDATE"
            " SET epoch = excluded.epoch, root = excluded.root, mac = excluded.mac",
            (row.epoch, row.root, row.mac),
        )

    def objects_since(self, epoch: int) -> Iterable[ObjectRow]:
        sql = "SELECT kind, id, name, revision, epoch, doc, mac FROM objects WHERE epoch > ?"
        return [ObjectRow(*row) for row in self._execute(sql, (epoch,))]

    def put_object(self, row: ObjectRow, *, previous_revision: int) -> None:
        try:
            if previous_revision == 0:
                self._execute(
                    "INSERT INTO objects (kind, id, name, revision, epoch, doc, mac)"
                    " VALUES (?,?,?,?,?,?,?)",
                    msgspec.structs.astuple(row),
                )
                return
            done = self._execute(
                "UPDATE objects SET name = ?, revision = ?, epoch = ?, doc = ?, mac = ?"
                " WHERE kind = ? AND id = ? AND revision = ?",
                (
                    row.name,
                    row.revision,
                    row.epoch,
                    row.doc,
                    row.mac,
                    row.kind,
                    row.id,
                    previous_revision,
                ),
            )
        except sqlite3.IntegrityError as exc:
            raise Conflict(f"there is a {row.kind} named {row.name} already") from exc
        if done.rowcount != 1:
            raise Conflict(f"{row.kind} {row.name} has changed meanwhile")

    def put_history(self, rows: Sequence[HistoryRow]) -> None:
        keep(self._connection, rows)

    def put_meta(self, name: str, value: bytes) -> None:
        self._execute("INSERT INTO meta (name, value) VALUES (?,?)", (name, value))

    def put_material(self, key_id: str, version: int, sealed: bytes | None) -> None:
        if sealed is None:
            self._execute(
                "DELETE FROM materials WHERE key_id = ? AND version = ?", (key_id, version)
            )
        else:
            self._execute(
                "INSERT INTO materials (key_id, version, sealed) VALUES (?,?,?)",
                (key_id, version, sealed),
            )

    def put_tenant_key(self, tenant: str, sealed: bytes) -> None:
        self._execute("INSERT INTO tenant_keys (tenant, sealed) VALUES (?,?)", (tenant, sealed))

    def tenant_key(self, tenant: str) -> bytes | None:
        row = self._execute("SELECT sealed FROM tenant_keys WHERE tenant = ?", (tenant,)).fetchone()
        return row[0] if row else None

    def put_handle(self, row: HandleRow) -> None:
        self._execute(
            "INSERT INTO handles (id, key_id, tenant, principal, issued_ms, mac)"
            " VALUES (?,?,?,?,?,?)",
            msgspec.structs.astuple(row),
        )

    def last_sequence(self) -> int:
        return int(self._execute("SELECT coalesce(max(seq), -1) FROM records").fetchone()[0])

    def append(self, rows: Sequence[RecordRow]) -> None:
        self._insert(_APPEND, rows)
        note_blocks(self._connection, rows)
        self.appended += len(rows)

    def forget(self, ranges: Sequence[tuple[int, int]], ops: Sequence[str]) -> int:
        return forget(self._connection, ranges, ops)

    def idempotent(self, scope: str, key: str) -> IdempotencyRow | None:
        row = self._execute(
            "SELECT scope, key, fingerprint, seq, result, receipt, expires_ms FROM idempotency"
            " WHERE scope = ? AND key = ?",
            (scope, key),
        ).fetchone()
        return IdempotencyRow(*row) if row else None

    def idempotent_count(self, scope: str) -> int:
        row = self._execute("SELECT count(*) FROM idempotency WHERE scope = ?", (scope,)).fetchone()
        return int(row[0])

    def put_idempotent(self, rows: Sequence[IdempotencyRow]) -> None:
        self._insert(_PUT_IDEMPOTENT, rows)

    def _insert(self, sql: str, rows: Sequence[RecordRow] | Sequence[IdempotencyRow]) -> None:
        """Many rows a statement.

        The driver lets go of the interpreter at each statement, and a busy loop then keeps it for
        a whole switch interval. Counts are powers of two, so that few statements are prepared.
        """
        at = 0
        while at < len(rows):
            count = min(_ROWS_MAX, 1 << ((len(rows) - at).bit_length() - 1))
            values = [msgspec.structs.astuple(row) for row in rows[at : at + count]]
            one = f"({','.join('?' * len(values[0]))})"
            self._execute(sql + ",".join([one] * count), tuple(chain.from_iterable(values)))
            at += count

    def prune_idempotent(self, now_ms: int, limit: int) -> int:
        done = self._execute(
            "DELETE FROM idempotency WHERE (scope, key) IN"
            " (SELECT scope, key FROM idempotency WHERE expires_ms <= ? LIMIT ?)",
            (now_ms, limit),
        )
        return done.rowcount

    def spent(self, link: str) -> int:
        row = self._execute("SELECT uses FROM spent WHERE link = ?", (link,)).fetchone()
        return int(row[0]) if row else 0

    def put_spent(self, spent: dict[str, int]) -> None:
        self._many(
            "INSERT INTO spent (link, uses) VALUES (?,?)"
            " ON CONFLICT (link) DO UPDATE SET uses = excluded.uses",
            spent.items(),
        )

    def counter(self, key_id: str, name: str) -> bytes | None:
        row = self._execute(
            "SELECT value FROM counters WHERE key_id = ? AND name = ?", (key_id, name)
        ).fetchone()
        return row[0] if row else None

    def put_counters(self, values: dict[tuple[str, str], bytes]) -> None:
        self._many(
            "INSERT INTO counters (key_id, name, value) VALUES (?,?,?)"
            " ON CONFLICT (key_id, name) DO UPDATE SET value = excluded.value",
            ((key_id, name, value) for (key_id, name), value in values.items()),
        )

    def put_reservation(self, row: ReservationRow) -> None:
        self._execute(
            "INSERT INTO reservations (id, node, key_id, epoch, count, expires_boot_ms, opened_seq,"
            " closed) VALUES (?,?,?,?,?,?,?,?)"
            " ON CONFLICT (id) DO UPDATE SET closed = excluded.closed",
            msgspec.structs.astuple(row),
        )

    def reservations_open(self) -> list[ReservationRow]:
        sql = (
            "SELECT id, node, key_id, epoch, count, expires_boot_ms, opened_seq, closed"
            " FROM reservations WHERE closed = 0"
        )
        return [ReservationRow(*(*values, False)) for *values, _ in self._execute(sql)]

    def put_node(self, row: NodeRow) -> None:
        self._execute(
            "INSERT INTO nodes (node, seen_epoch, beat, url, mac) VALUES (?,?,?,?,?)"
            " ON CONFLICT (node) DO UPDATE SET seen_epoch = excluded.seen_epoch,"
            " beat = excluded.beat, url = excluded.url, mac = excluded.mac",
            msgspec.structs.astuple(row),
        )

    def lease(self, name: str) -> LeaseRow | None:
        row = self._execute(
            "SELECT name, holder, fence, beat, mac FROM leases WHERE name = ?", (name,)
        ).fetchone()
        return LeaseRow(*row) if row else None

    def put_lease(self, row: LeaseRow) -> None:
        self._execute(
            "INSERT INTO leases (name, holder, fence, beat, mac) VALUES (?,?,?,?,?)"
            " ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, fence = excluded.fence,"
            " beat = excluded.beat, mac = excluded.mac",
            msgspec.structs.astuple(row),
        )

    def put_checkpoint(self, row: CheckpointRow) -> None:
        self._execute(
            "INSERT INTO checkpoints (size, root, frontier, note, time_ms, mac)"
            " VALUES (?,?,?,?,?,?) ON CONFLICT (size) DO NOTHING",
            msgspec.structs.astuple(row),
        )

    def prune_checkpoints(self, before_ms: int, limit: int) -> int:
        done = self._execute(
            "DELETE FROM checkpoints WHERE size IN (SELECT size FROM checkpoints AS old"
            " WHERE time_ms < ?1 AND EXISTS (SELECT 1 FROM checkpoints AS later"
            " WHERE later.size > old.size"
            " AND later.time_ms / 3600000 = old.time_ms / 3600000) ORDER BY size LIMIT ?2)",
            (before_ms, limit),
        )
        return done.rowcount
