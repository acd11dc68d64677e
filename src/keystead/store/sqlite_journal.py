"""The one writer, behind the port ``Journal``, on SQLite: hot statements by the driver directly."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from keystead.errors import Conflict
from keystead.ports import Fence, IdempotencyRow, ObjectRow, RecordRow, Transaction
from keystead.store import statements as sql
from keystead.store.log_blocks import block_times
from keystead.store.sql_transaction import SqlTransaction, object_change
from keystead.store.sqlite import connect, unavailable
from keystead.store.sqlite_forget import forget
from keystead.store.sqlite_log_index import LogIndex

__all__ = ["SqliteJournal"]

_APPEND = f"INSERT OR ROLLBACK INTO records ({sql.RECORD_COLUMNS}) VALUES "  # noqa: S608  made of constants
"""OR ROLLBACK: a row that is there already ends the whole commit, as it would anyway; so SQLite
keeps no journal of the statement, half of all that a commit writes, and in a file outside the data
folder (sqlite.org/tempfiles.html section 2.5)."""
_PUT_IDEMPOTENT = f"INSERT OR ROLLBACK INTO idempotency ({sql.IDEMPOTENT_COLUMNS}) VALUES "  # noqa: S608  made of constants
_PUT_BLOCK = (
    "INSERT INTO log_blocks (block, first_ms, last_ms) VALUES (?,?,?)"
    " ON CONFLICT (block) DO UPDATE SET first_ms = min(first_ms, excluded.first_ms),"
    " last_ms = max(last_ms, excluded.last_ms)"
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


class _SqliteTransaction(SqlTransaction):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._execute = connection.execute
        self.appended = 0

    def _one(self, statement: str, *values: object) -> Any:  # noqa: ANN401  a row of the driver's
        return self._execute(statement, values).fetchone()

    def _all(self, statement: str, *values: object) -> list[Any]:
        return self._execute(statement, values).fetchall()

    def _write(self, statement: str, rows: Iterable[Sequence[object]]) -> None:
        self._connection.executemany(statement, rows)

    def _change(self, statement: str, *values: object) -> int:
        return self._execute(statement, values).rowcount

    def expect(self, **_rows: object) -> None:
        """Each read is as good later: the file is at hand, and nobody else writes."""

    def put_object(self, row: ObjectRow, *, previous_revision: int) -> None:
        try:
            done = self._execute(*object_change(row, previous_revision))
        except sqlite3.IntegrityError as exc:
            raise Conflict(f"there is a {row.kind} named {row.name} already") from exc
        if done.rowcount != 1:
            raise Conflict(f"{row.kind} {row.name} has changed meanwhile")

    def append(self, rows: Sequence[RecordRow]) -> None:
        self._insert(_APPEND, rows)
        self._write(_PUT_BLOCK, block_times(rows))
        self.appended += len(rows)

    def forget(self, ranges: Sequence[tuple[int, int]], ops: Sequence[str]) -> int:
        return forget(self._connection, ranges, ops)

    def idempotent(self, scope: str, key: str) -> IdempotencyRow | None:
        row = self._one(sql.IDEMPOTENT, scope, key)
        return IdempotencyRow(*row) if row else None

    def put_idempotent(self, rows: Sequence[IdempotencyRow]) -> None:
        self._insert(_PUT_IDEMPOTENT, rows)

    def _insert(self, statement: str, rows: Sequence[RecordRow] | Sequence[IdempotencyRow]) -> None:
        """Many rows a statement.

        The driver lets go of the interpreter at each statement, and a busy loop then keeps it for
        a whole switch interval. Counts are powers of two, so that few statements are prepared.
        """
        at = 0
        while at < len(rows):
            count = min(_ROWS_MAX, 1 << ((len(rows) - at).bit_length() - 1))
            values = [msgspec.structs.astuple(row) for row in rows[at : at + count]]
            one = f"({','.join('?' * len(values[0]))})"
            self._execute(statement + ",".join([one] * count), tuple(chain.from_iterable(values)))
            at += count

    def spent(self, link: str) -> int:
        row = self._one(sql.SPENT, link)
        return int(row[0]) if row else 0

    def counter(self, key_id: str, name: str) -> bytes | None:
        row = self._one(sql.COUNTER, key_id, name)
        return row[0] if row else None
