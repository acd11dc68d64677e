"""Reads outside the commit, behind the port ``Registry``, on SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from keystead.ports import IdempotencyRow, RecordRow
from keystead.store.sql_registry import SqlRegistry
from keystead.store.sqlite import connect, unavailable

__all__ = ["SqliteRegistry"]


class SqliteRegistry(SqlRegistry):
    """One read-only connection, used from one thread at a time."""

    def __init__(self, path: Path) -> None:
        self._connection = connect(path, read_only=True)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _all(self, statement: str, values: Sequence[object] = ()) -> list[Any]:
        try:
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as exc:
            raise unavailable(exc) from exc

    def idempotent_at_hand(self, scope: str, key: str) -> IdempotencyRow | None:
        """The outcome under an idempotency key: the file is at hand."""
        return self.idempotent(scope, key)

    def record_of(self, node: str, seq: int) -> RecordRow | None:  # noqa: ARG002  there is one log
        """One record."""
        rows = self.records_from(seq, 1)
        return rows[0] if rows and rows[0].seq == seq else None
