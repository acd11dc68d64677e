"""The database as it lies there: read only, in order, in short transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from keystead.errors import LogUnavailable, StartupError

__all__ = ["COLUMNS", "FIELDS", "Row", "Rows", "StoredHead"]

Row = tuple[Any, ...]
"""A record's columns in the order of :data:`COLUMNS`, of whatever type they are stored as."""

COLUMNS = (
    "seq",
    "epoch",
    "time_ms",
    "op",
    "outcome",
    "request_id",
    "key_id",
    "version",
    "purpose",
    "handle_id",
    "principal",
    "salt",
    "body",
    "entry",
    "leaf",
)
FIELDS = {"key_id": 1, "handle_id": 2, "principal": 3, "request_id": 4}
"""Columns that ``log_index`` has, by their numbers there; empty values are not in it."""

_SELECT = f"SELECT {', '.join(COLUMNS)} FROM records"  # noqa: S608  made of constants
_IN_ORDER = f"{_SELECT} WHERE seq >= ? AND seq < ? ORDER BY seq"
_ONE = f"{_SELECT} WHERE seq = ?"
_NUMBERS = msgspec.json.Decoder(list[int])
_BUSY_MS = 5_000
_CACHE_KIB = 4_096
_BUSY_CODES = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


class StoredHead(msgspec.Struct, frozen=True):
    """A row of the kept checkpoints, of whatever types it holds."""

    size: Any
    root: Any
    frontier: Any
    note: Any


class Rows:
    """One connection of one thread.

    Raises:
        StartupError: the file is missing, or no registry of this version.
        LogUnavailable: the database is held by another for too long.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._connection = _connected(path, "mode=ro")
        except sqlite3.Error as exc:
            if exc.sqlite_errorcode != sqlite3.SQLITE_CANTOPEN or not _rests(path):
                raise self._error(exc) from exc
            # On a medium that cannot be written: nobody else can write there, either.
            try:
                self._connection = _connected(path, "mode=ro&immutable=1")
            except sqlite3.Error as again:
                raise self._error(again) from again
        self._execute = self._connection.execute

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _error(self, exc: sqlite3.Error) -> LogUnavailable | StartupError:
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF in _BUSY_CODES:
            return LogUnavailable(
                f"the registry {self._path} is held by another process ({exc})",
                hint="Run it again when that has ended",
                retry_after_s=1.0,
            )
        return StartupError(
            f"the registry {self._path} cannot be read: {exc}",
            hint="Check that it is a Keystead registry of this version and may be read. One that"
            " was not closed must be in a folder that can be written: copy all of registry.db*",
        )

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as exc:
            raise self._error(exc) from exc

    def _all(self, sql: str, *values: object) -> list[Any]:
        with self._asking():
            return self._execute(sql, values).fetchall()

    # --- records -----------------------------------------------------------------------------

    def in_order(self, first: int, stop: int) -> sqlite3.Cursor:
        """A cursor over the records of some sequences: what reading raises is the driver's own."""
        return self._execute(_IN_ORDER, (first, stop))

    def one_by_one(self, first: int, stop: int) -> tuple[list[Row], dict[int, str]]:
        """The records of some sequences where reading them in order failed.

        Text that is no UTF-8 comes as bytes. Also gives those that cannot be read, and why.
        """
        rows: list[Row] = []
        unread: dict[int, str] = {}
        self._connection.text_factory = _text_or_bytes
        try:
            for seq in range(first, stop):
                try:
                    rows += self._execute(_ONE, (seq,)).fetchall()
                except sqlite3.Error as exc:
                    error = self._error(exc)
                    if isinstance(error, LogUnavailable):
                        raise error from exc
                    unread[seq] = str(exc)
        finally:
            self._connection.text_factory = str
        return rows, unread

    def count(self) -> int:
        """Records that there are."""
        return int(self._all("SELECT count(*) FROM records")[0][0])

    def size(self) -> int:
        """The greatest sequence, and one."""
        return int(self._all("SELECT coalesce(max(seq), -1) + 1 FROM records")[0][0])

    def outside(self, size: int, limit: int) -> list[int]:
        """Sequences below 0 or from a size on."""
        below = "SELECT seq FROM records WHERE seq < 0 ORDER BY seq LIMIT ?"
        above = "SELECT seq FROM records WHERE seq >= ? ORDER BY seq LIMIT ?"
        return [row[0] for row in (*self._all(below, limit), *self._all(above, size, limit))]

    def entries(self, first: int, stop: int) -> list[tuple[Any, Any]]:
        """Entry and leaf of each; none where the database is damaged, which reading it has shown.

        Raises:
            LogUnavailable: the database is held by another for too long.
        """
        sql = "SELECT entry, leaf FROM records WHERE seq >= ? AND seq < ? ORDER BY seq"
        try:
            return self._all(sql, first, stop)
        except StartupError:
            return []

    def changes_from(self, seq: int, op: str) -> list[tuple[Any, Any]]:
        """Sequence and body of the records of an operation from a sequence on."""
        sql = "SELECT seq, body FROM records WHERE seq >= ? AND op = ? AND outcome = 'ok'"
        return self._all(sql, seq, op)

    def kept(self, ranges: Sequence[tuple[int, int]], limit: int) -> list[int]:
        """Which records of some ranges have a body."""
        found: list[int] = []
        sql = "SELECT seq FROM records WHERE seq BETWEEN ? AND ? AND body IS NOT NULL LIMIT ?"
        for first, last in ranges:
            found += [row[0] for row in self._all(sql, first, last, limit - len(found))]
            if len(found) >= limit:
                break
        return found

    # --- what stands beside them -------------------------------------------------------------

    def heads(self, after: int, upto: int) -> list[StoredHead]:
        """The kept checkpoints of some sizes, in order."""
        sql = (
            "SELECT size, root, frontier, note FROM checkpoints WHERE size > ? AND size <= ?"
            " ORDER BY size"
        )
        return [StoredHead(*row) for row in self._all(sql, after, upto)]

    def last_head(self) -> int:
        """The greatest size of a kept checkpoint, or 0."""
        return int(self._all("SELECT coalesce(max(size), 0) FROM checkpoints")[0][0])

    def heads_outside(self, size: int, limit: int) -> list[int]:
        """Sizes of kept checkpoints below 1 or above a size."""
        sql = "SELECT size FROM checkpoints WHERE size < 1 OR size > ? ORDER BY size LIMIT ?"
        return [row[0] for row in self._all(sql, size, limit)]

    def indexed(self) -> dict[str, int]:
        """By column the sequence from which on records are not in the log's index yet."""
        found = dict(self._all("SELECT field, through + 1 FROM log_indexed"))
        stops = {column: found.get(field) for column, field in FIELDS.items()}
        return {column: stop for column, stop in stops.items() if isinstance(stop, int)}

    def indexed_of(self, field: int, values: bytes, first: int, stop: int) -> list[int]:
        """The entries that the index has of some sequences and values, a list in JSON.

        Each as one number: the place of its value in the list times how many sequences there are,
        and how far behind the first its own is. In rising order, if the list is.
        """
        sql = (
            "SELECT json_group_array(wanted.key * (?4 - ?3) + i.seq - ?3)"
            " FROM json_each(?1) AS wanted CROSS JOIN log_index AS i ON i.field = ?2"
            " AND i.value = wanted.value AND i.seq >= ?3 AND i.seq < ?4"
        )
        found = self._all(sql, values.decode(), field, first, stop)[0][0]
        return sorted(_NUMBERS.decode(found))

    def misindexed(
        self, column: str, first: int, stop: int, limit: int
    ) -> tuple[list[int], list[int]]:
        """Records of some sequences that the index lacks; entries that no record has.

        ``column``: a name of :data:`FIELDS`. Both as of one moment. Entries are looked for in all
        of the column's.
        """
        values = (FIELDS[column], first, stop, limit)
        entry = f"i.field = ?1 AND i.value = r.{column} AND i.seq = r.seq"
        missing = (
            f"SELECT 0, r.seq FROM records AS r WHERE r.seq >= ?2 AND r.seq < ?3"  # noqa: S608  made of constants
            f" AND r.{column} <> '' AND NOT EXISTS (SELECT 1 FROM log_index AS i WHERE {entry})"
        )
        foreign = (
            "SELECT 1, i.seq FROM log_index AS i WHERE i.field = ?1 AND i.seq >= ?2 AND i.seq < ?3"  # noqa: S608  as above
            f" AND NOT EXISTS (SELECT 1 FROM records AS r WHERE {entry})"
        )
        found = self._all(
            f"SELECT * FROM ({missing} LIMIT ?4) UNION ALL SELECT * FROM ({foreign} LIMIT ?4)",  # noqa: S608  as above
            *values,
        )
        return [seq for kind, seq in found if not kind], [seq for kind, seq in found if kind]

    def times(self, block: int) -> tuple[Any, Any] | None:
        """Between which times the records of a block are searched for."""
        found = self._all("SELECT first_ms, last_ms FROM log_blocks WHERE block = ?", block)
        return found[0] if found else None


def _connected(path: Path, how: str) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{how}", uri=True, isolation_level=None
    )
    try:
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MS}")
        connection.execute(f"PRAGMA cache_size=-{_CACHE_KIB}")
        connection.execute(f"{_SELECT} LIMIT 0")
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _rests(path: Path) -> bool:
    """Whether all of a database is in its file: it is there, and its write-ahead log is empty."""
    ahead = path.with_name(f"{path.name}-wal")
    return path.is_file() and not (ahead.exists() and ahead.stat().st_size)


def _text_or_bytes(data: bytes) -> str | bytes:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data
