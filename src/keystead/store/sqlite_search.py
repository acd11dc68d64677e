"""Searches of the log on SQLite: read-only connections of their own, and bounded statements.

Each search is a few statements that give one row each. The driver takes the interpreter's lock for
every row it fetches, and beside a busy loop waits a whole switch interval each time: a page of
1,000 rows took 8.5 s so, and takes 25 ms as one row.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from keystead import limits
from keystead.errors import LogUnavailable
from keystead.keys.commands import CountBy
from keystead.ports import (
    HistoryQuery,
    HistoryRow,
    LogReader,
    RecordRow,
    RecordsChoice,
    RecordsCount,
    RecordsPage,
    RecordsQuery,
)
from keystead.store.log_look import COUNTED, FOUND_COLUMNS, Look
from keystead.store.sqlite import connect, unavailable
from keystead.store.sqlite_forget import forgotten_in
from keystead.store.sqlite_history import history
from keystead.store.sqlite_log_index import along_index, through

__all__ = ["SqliteLogReader"]

_ROW_AS_JSON = (
    "json_array(r.seq, r.time_ms, r.epoch, r.op, r.outcome, r.key_id, r.version, r.handle_id,"
    " r.principal, r.request_id, hex(r.body), hex(r.salt), hex(r.entry), hex(r.leaf), r.purpose,"
    " r.body IS NULL, r.salt IS NULL)"
)
_NOWHERE = (0, -1)
_SCRUB_BUSY_MS = 250
"""How long emptying the write-ahead log waits for commits and searches that are under way."""


class _Read(msgspec.Struct, frozen=True, array_like=True):
    """A row as :data:`_ROW_AS_JSON` has it."""

    seq: int
    time_ms: int
    epoch: int
    op: str
    outcome: str
    key_id: str
    version: int
    handle_id: str
    principal: str
    request_id: str
    body: str
    salt: str
    entry: str
    leaf: str
    purpose: str
    bodiless: int
    saltless: int

    def row(self) -> RecordRow:
        return RecordRow(
            self.seq,
            self.time_ms,
            self.epoch,
            self.op,
            self.outcome,
            self.key_id,
            self.version,
            self.handle_id,
            self.principal,
            self.request_id,
            None if self.bodiless else bytes.fromhex(self.body),
            None if self.saltless else bytes.fromhex(self.salt),
            bytes.fromhex(self.entry),
            bytes.fromhex(self.leaf),
            self.purpose,
        )


_ROWS = msgspec.json.Decoder(list[_Read])
_SEQS = msgspec.json.Decoder(list[int])
_COUNTS = msgspec.json.Decoder(dict[str, int])


class SqliteLogReader:
    """Behind the port ``LogReader``: as many connections as there are searches at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._idle: list[sqlite3.Connection] = [connect(path, read_only=True)]
        self._closed = False

    def close(self) -> None:
        """Close the connections; one that is in use, when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    # --- the port ----------------------------------------------------------------------------

    def search(self, query: RecordsQuery) -> RecordsPage:
        """A page of records."""
        with self._connection() as connection:
            look = _Look(connection, query)
            data = look.one(
                f"SELECT json_group_array({_ROW_AS_JSON}) FROM ({look.found(query.limit)}) AS found"  # noqa: S608  constants, values are bound
                " CROSS JOIN records AS r ON r.seq = found.seq"
            )
            rows = [read.row() for read in _ROWS.decode(data)]
            return RecordsPage(rows, look.reach([row.seq for row in rows], query.limit))

    def count(self, query: RecordsQuery, by: CountBy) -> RecordsCount:
        """Counts by a column, of fewer records if they have too many values."""
        with self._connection() as connection:
            scan = limits.LOG_SCAN_ROWS_MAX
            while True:
                look = _Look(connection, query, scan)
                data = look.one(
                    "SELECT json_group_object(value, number) FROM (SELECT"  # noqa: S608  as in search
                    f" {COUNTED[by]} AS value, count(*) AS number FROM ({look.found(None)})"
                    " GROUP BY value)"
                )
                counts = _COUNTS.decode(data)
                if len(counts) <= limits.LIST_ITEMS_MAX:
                    return RecordsCount(counts, look.reach([], None))
                scan = max(scan // 4, 1)

    def choose(self, query: RecordsQuery) -> RecordsChoice:
        """Sequences and the times they span."""
        with self._connection() as connection:
            look = _Look(connection, query)
            data, first_ms, last_ms = look.ask(
                "SELECT json_group_array(seq), coalesce(min(time_ms), 0), coalesce(max(time_ms), 0)"  # noqa: S608  as in search
                f" FROM ({look.found(query.limit)})",
                look.values,
            )
            seqs = _SEQS.decode(data)
            return RecordsChoice(seqs, first_ms, last_ms, look.reach(seqs, query.limit))

    def record(self, seq: int) -> RecordRow | None:
        """One record."""
        page = self.search(RecordsQuery(after=seq - 1, before=seq + 1, limit=1))
        return page.rows[0] if page.rows else None

    def history(self, query: HistoryQuery) -> list[HistoryRow]:
        """Revisions of authority rows."""
        with self._connection() as connection:
            return history(connection, query)

    def others(self) -> dict[str, LogReader]:
        """None: an embedded store has one log."""
        return {}

    def forgotten_in(self, ranges: Sequence[tuple[int, int]]) -> int:
        """How many records of the ranges are forgotten."""
        with self._connection() as connection:
            return forgotten_in(connection, ranges)

    def scrub(self) -> bool:
        """Have all that is in the write-ahead log moved into the database, and empty it."""
        with suppress(sqlite3.Error):
            connection = connect(self._path)
            try:
                connection.execute(f"PRAGMA busy_timeout={_SCRUB_BUSY_MS}")
                busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                return not busy
            finally:
                connection.close()
        return False

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            connection = self._idle.pop() if self._idle else None
        try:
            if connection is None:
                connection = connect(self._path, read_only=True)
            yield connection
        except sqlite3.Error as exc:
            raise unavailable(exc) from exc
        except msgspec.MsgspecError as exc:
            raise LogUnavailable(
                "the log holds a row that no node wrote",
                hint="`keystead log fsck` says which; restore the registry from a backup",
            ) from exc
        finally:
            if connection is not None:
                self._give_back(connection)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        with self._lock:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


class _Look(Look):
    def __init__(
        self, connection: sqlite3.Connection, query: RecordsQuery, scan: int | None = None
    ) -> None:
        self._connection = connection
        super().__init__(query, scan)

    def ask(self, sql: str, values: Sequence[object]) -> Any:  # noqa: ANN401  a row of the driver's
        return self._connection.execute(sql, values).fetchone()

    def one(self, sql: str) -> Any:  # noqa: ANN401  as ask
        return self.ask(sql, self.values)[0]

    def _extent(self) -> tuple[int, int]:
        indexed = "-1" if self._plan.column is None else through(self._plan.column)
        row: tuple[int, int] = self.ask(
            f"SELECT coalesce(max(seq), -1), {indexed} FROM records",  # noqa: S608  as in search
            (),
        )
        return row

    def _beside_index(self, low: int, high: int, indexed_to: int) -> tuple[object, ...]:
        """What to bind for a search by the log's own index and by the rows past it.

        These are few, and each of them counts as looked at. Where they are not, because commits
        have not caught up yet with a log from before the index, the look is at one side alone.
        ``indexed_to``: up to where the index goes; what it said a moment ago is as true.
        """
        indexed, past = (low, min(high, indexed_to)), (max(low, indexed_to + 1), high)
        count = max(past[1] - past[0] + 1, 0)
        if 2 * count <= self._most:
            self._most -= count
        elif self._oldest_first and indexed[0] <= indexed[1]:
            self._edge, past = indexed_to, _NOWHERE
        else:
            if indexed[0] <= indexed[1]:
                self._edge, indexed = past[0], _NOWHERE
            past = self._cut(*past)
        value = self._plan.values
        return (*value, *indexed, *value, *past)

    def _rows(self, most: int) -> str:
        """The first rows along the index, so many at most."""
        columns = f"{FOUND_COLUMNS}, body IS NULL AS gone"
        if self._plan.column is None:
            return f"SELECT {columns} {self._along()} LIMIT {most:d}"
        seqs = f"{self._along()} LIMIT {most:d}"
        return f"SELECT {columns} FROM ({seqs}) CROSS JOIN records USING (seq)"  # noqa: S608  as in search

    def _seqs(self) -> str:
        return super()._seqs() if self._plan.column is None else self._along()

    def _along(self) -> str:
        plan = self._plan
        if plan.column is not None:
            return along_index(plan.column, oldest_first=self._oldest_first)
        source = "NOT INDEXED" if plan.index is None else f"INDEXED BY {plan.index}"
        terms = " AND ".join((*plan.terms, "seq BETWEEN ? AND ?"))
        direction = "ASC" if self._oldest_first else "DESC"
        return f"FROM records {source} WHERE {terms} ORDER BY seq {direction}"
