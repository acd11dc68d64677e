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
    Reach,
    RecordRow,
    RecordsChoice,
    RecordsCount,
    RecordsPage,
    RecordsQuery,
)
from keystead.store.log_layout import CHANGES, DENIED, HAS_PRINCIPAL, HAS_REQUEST
from keystead.store.sqlite import connect, unavailable
from keystead.store.sqlite_blocks import narrowed
from keystead.store.sqlite_forget import forgotten_in
from keystead.store.sqlite_history import history

__all__ = ["SqliteLogReader"]

_USES = frozenset(CHANGES.split("'")[1::2])
_ROW_AS_JSON = (
    "json_array(r.seq, r.time_ms, r.epoch, r.op, r.outcome, r.key_id, r.version, r.handle_id,"
    " r.principal, r.request_id, hex(r.body), hex(r.salt), hex(r.entry), hex(r.leaf), r.purpose,"
    " r.body IS NULL, r.salt IS NULL)"
)
_COLUMNS = "seq, time_ms, op, outcome, key_id, version, handle_id, principal, request_id, purpose"
_COUNTED = {
    "key": "key_id",
    "principal": "principal",
    "outcome": "outcome",
    "operation": "op",
    "handle": "handle_id",
    "purpose": "purpose",
    "hour": "CAST(time_ms / 3600000 * 3600000 AS TEXT)",
}
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


class _Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a question is answered: along an index (or the log itself), and what each row is held to.

    ``terms`` are what the index gives, ``rest`` what is left to look at in each row.
    """

    index: str | None
    terms: tuple[str, ...] = ()
    values: tuple[object, ...] = ()
    rest: tuple[str, ...] = ()
    rest_values: tuple[object, ...] = ()


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
                    f" {_COUNTED[by]} AS value, count(*) AS number FROM ({look.found(None)})"
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


class _Look:
    """One bounded look at the log: its statements, and how far it came."""

    def __init__(
        self, connection: sqlite3.Connection, query: RecordsQuery, scan: int | None = None
    ) -> None:
        self._connection = connection
        self._plan = plan = _plan(query)
        self._oldest_first = query.oldest_first
        self._scan = limits.LOG_SCAN_ROWS_MAX if scan is None else scan
        self._top = int(self.one("SELECT coalesce(max(seq), -1) FROM records", ()))
        low = 0 if query.after is None else query.after + 1
        self._high = high = self._top if query.before is None else min(self._top, query.before - 1)
        self._low = low
        if low <= high and (query.since_ms, query.until_ms) != (None, None):
            low, high = narrowed(self.ask, low, high, query.since_ms, query.until_ms)
        self._edge: int | None = None
        if plan.index is None and plan.rest and high - low >= self._scan:
            # No index: the look ends so many records on, whatever it found.
            self._edge = low + self._scan - 1 if self._oldest_first else high - self._scan + 1
            low, high = (low, self._edge) if self._oldest_first else (self._edge, high)
        self.values = (*plan.values, low, high, *plan.rest_values)

    def ask(self, sql: str, values: Sequence[object]) -> Any:  # noqa: ANN401  a row of the driver's
        return self._connection.execute(sql, values).fetchone()

    def one(self, sql: str, values: Sequence[object] | None = None) -> Any:  # noqa: ANN401  as ask
        return self.ask(sql, self.values if values is None else values)[0]

    def found(self, limit: int | None) -> str:
        """The columns of what matches, in order: along the index, then what the rest leaves."""
        plan = self._plan
        if not plan.rest and limit is not None:
            return f"SELECT {_COLUMNS}, body IS NULL AS gone {self._along()} LIMIT {limit:d}"
        along = f"SELECT {_COLUMNS}, body IS NULL AS gone {self._along()} LIMIT {self._scan:d}"
        rest = f" WHERE {' AND '.join(plan.rest)}" if plan.rest else ""
        most = "" if limit is None else f" LIMIT {limit:d}"
        return f"SELECT * FROM ({along}){rest}{most}"  # noqa: S608  as in search

    def _along(self) -> str:
        plan = self._plan
        source = "NOT INDEXED" if plan.index is None else f"INDEXED BY {plan.index}"
        terms = " AND ".join((*plan.terms, "seq BETWEEN ? AND ?"))
        direction = "ASC" if self._oldest_first else "DESC"
        return f"FROM records {source} WHERE {terms} ORDER BY seq {direction}"

    def reach(self, seqs: Sequence[int], limit: int | None) -> Reach:
        """Where to go on. ``seqs``: what was found; ``limit``: how many of it were wanted."""
        if limit is not None and len(seqs) >= limit:
            return Reach(next=seqs[-1], end=False, top=self._top)
        edge = self._edge
        if edge is None and (self._plan.rest or limit is None):
            bound = len(self._plan.values) + 2
            row = self.ask(
                f"SELECT seq {self._along()} LIMIT 1 OFFSET {self._scan - 1:d}",
                self.values[:bound],
            )
            edge = None if row is None else row[0]
        if edge is not None:
            return Reach(next=edge, end=False, top=self._top)
        end = max(self._high, self._low - 1) if self._oldest_first else self._low
        return Reach(next=end, end=True, top=self._top)


def _plan(query: RecordsQuery) -> _Plan:
    """Along the index that gives the fewest; refusals are few, and changes beside the uses."""
    asked: dict[str, object] = {
        "request_id": query.request_id,
        "handle_id": query.handle_id,
        "principal": query.principal,
        "key_id": query.key_id,
        "op": query.op,
        "version": query.version,
        "purpose": query.purpose,
    }
    rest = {f"{name} = ?": value for name, value in asked.items() if value is not None}
    if query.outcome is not None and query.outcome != "denied":
        rest["outcome = ?"] = query.outcome
    index, terms, values = _index(query, rest)
    more, more_values = _other_terms(query)
    if query.outcome == "denied" and index != "records_denied":
        more.append(DENIED)
    return _Plan(
        index=index,
        terms=terms,
        values=values,
        rest=(*rest, *more),
        rest_values=(*rest.values(), *more_values),
    )


def _index(
    query: RecordsQuery, rest: dict[str, object]
) -> tuple[str | None, tuple[str, ...], tuple[object, ...]]:
    """An index, its terms and values; what it answers is taken out of ``rest``."""
    refusal = query.outcome not in (None, "ok", "denied")
    change = query.op is not None and query.op not in _USES
    for index, column, condition, fits in (
        ("records_by_request", "request_id", HAS_REQUEST, bool(query.request_id)),
        ("records_denied", None, DENIED, query.outcome == "denied"),
        ("records_refused", "outcome", DENIED, refusal),
        ("records_by_change", "op", CHANGES, change),
        ("records_by_handle", "handle_id", None, query.handle_id is not None),
        ("records_by_principal", "principal", HAS_PRINCIPAL, bool(query.principal)),
        ("records_by_key", "key_id", None, query.key_id is not None),
    ):
        if fits:
            term = None if column is None else f"{column} = ?"
            values = () if term is None else (rest.pop(term),)
            return index, tuple(text for text in (term, condition) if text), values
    return None, (), ()


def _other_terms(query: RecordsQuery) -> tuple[list[str], list[object]]:
    terms: list[str] = []
    values: list[object] = []
    if query.ops is not None:
        terms.append(f"op IN ({','.join('?' * len(query.ops))})")
        values.extend(query.ops)
    if query.since_ms is not None:
        terms.append("time_ms >= ?")
        values.append(query.since_ms)
    if query.until_ms is not None:
        terms.append("time_ms < ?")
        values.append(query.until_ms)
    if query.kept is not None:
        terms.append("NOT gone" if query.kept else "gone")
    return terms, values
