"""Searches of the log on PostgreSQL: sessions of their own, and bounded statements.

Each search is held to one index by its words, not by the planner's guesses: it compares rows of
(what the index begins with, sequence), and wants them in that order, which no other index gives.
The driver takes all rows of an answer at once, so that pages need not come as one row.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import psycopg

from keystead import limits
from keystead.errors import LogUnavailable, StartupError
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
from keystead.store import statements as sql
from keystead.store.log_layout import DENIED
from keystead.store.log_look import COUNTED, Look
from keystead.store.postgres import (
    LOG_SCHEMA,
    SCHEMA,
    Session,
    Target,
    connect,
    log_schema,
    quoted,
    unavailable,
)
from keystead.store.postgres_history import history

__all__ = ["PostgresLogReader"]

_SEARCH_S = 10.0
"""How long one search may take, all its statements together."""
_BEGINS = {
    "records_denied": f"({DENIED})",
    "records_refused": "outcome",
    "records_by_change": "op",
}
"""What an index of the table begins with, before the sequence."""
_PLANNER = "; ".join(
    f"SET {name} = {value}"
    for name, value in (
        ("enable_seqscan", "off"),
        ("enable_bitmapscan", "off"),
        ("enable_sort", "off"),
        ("max_parallel_workers_per_gather", "0"),
    )
)
"""What reads more than it is asked for is left for where nothing else gives the answer."""
_FORGOTTEN = (
    "SELECT count(*) FROM unnest(?::bigint[], ?::bigint[]) AS wanted(low, high)"
    " JOIN records AS r ON r.seq BETWEEN wanted.low AND wanted.high WHERE r.body IS NULL"
)
_OTHERS = (
    "SELECT substr(nspname::text, length(?) + 1) FROM pg_namespace"
    " WHERE starts_with(nspname::text, ?) AND nspname <> ?"
    " AND has_schema_privilege(oid, 'USAGE')"
    " AND to_regclass(quote_ident(nspname::text) || '.records') IS NOT NULL ORDER BY nspname"
)


class _Sessions:
    """As many sessions as there are searches at a time, shared by the readers of all logs."""

    def __init__(self, target: Target, now_s: Callable[[], float]) -> None:
        self._target = target
        self._now_s = now_s
        self._room = threading.BoundedSemaphore(limits.LOG_SEARCH_THREADS)
        self._lock = threading.Lock()
        self._idle: list[tuple[str, Session]] = []
        self._closed = False
        with self.session(log_schema(target.node)):
            pass

    def close(self) -> None:
        """Close the sessions; one that is in use, when it is given back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for _, session in idle:
            session.end()

    @contextmanager
    def session(self, schema: str) -> Iterator[Session]:
        """A session that sees a log.

        Raises:
            LogUnavailable: the database fails, does not answer, or has no such log.
        """
        if not self._room.acquire(timeout=_SEARCH_S):
            raise LogUnavailable(
                "the searches that run do not end",
                hint="Look at the database server; then ask again",
                retry_after_s=1.0,
            )
        session: Session | None = None
        try:
            session = self._take(schema)
            with session.within(_SEARCH_S):
                yield session
        except psycopg.Error as exc:
            raise unavailable(exc) from exc
        finally:
            if session is not None:
                self._give_back(schema, session)
            self._room.release()

    def _take(self, schema: str) -> Session:
        """One that is idle and alive, or a new one."""
        while True:
            with self._lock:
                if not self._idle:
                    break
                seen, session = self._idle.pop()
            try:
                with session.within(_SEARCH_S):
                    if seen != schema:
                        session.execute(
                            f"SET search_path = {quoted(schema)}, {quoted(SCHEMA)}".encode()
                        )
                    else:
                        session.execute(b"")  # whether it is still there
            except psycopg.OperationalError:
                session.end()
                if session.deadline <= self._now_s():
                    raise
                continue
            return session
        session, _ = connect(self._target, schema, "search", read_only=True)
        with session.within(_SEARCH_S):
            session.execute(_PLANNER.encode())
        return session

    def _give_back(self, schema: str, session: Session) -> None:
        with self._lock:
            if not self._closed and not session.closed:
                self._idle.append((schema, session))
                return
        session.end()


class PostgresLogReader:
    """Behind the port ``LogReader``."""

    def __init__(
        self,
        target: Target,
        now_s: Callable[[], float] = time.monotonic,
        sessions: _Sessions | None = None,
    ) -> None:
        self._target = target
        self._schema = log_schema(target.node)
        self._now_s = now_s
        self._sessions = sessions or _Sessions(target, now_s)

    def close(self) -> None:
        """Close the sessions, also those of :meth:`others`."""
        self._sessions.close()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        try:
            with self._sessions.session(self._schema) as session:
                yield session
        except StartupError as exc:
            raise LogUnavailable(exc.message, hint=exc.hint, retry_after_s=1.0) from exc

    # --- the port ----------------------------------------------------------------------------

    def search(self, query: RecordsQuery) -> RecordsPage:
        """A page of records."""
        with self._session() as session:
            look = _Look(session, query)
            statement = f"SELECT {sql.RECORD_COLUMNS} FROM ({look.found(query.limit)}) AS found"  # noqa: S608  constants, values are bound
            rows = [RecordRow(*row) for row in session.ask(statement, look.values)]
            return RecordsPage(rows, look.reach([row.seq for row in rows], query.limit))

    def count(self, query: RecordsQuery, by: CountBy) -> RecordsCount:
        """Counts by a column, of fewer records if they have too many values."""
        with self._session() as session:
            scan = limits.LOG_SCAN_ROWS_MAX
            while True:
                look = _Look(session, query, scan)
                statement = (
                    f"SELECT value, count(*) FROM (SELECT {COUNTED[by]} AS value"  # noqa: S608  as in search
                    f" FROM ({look.found(None)}) AS found) AS valued GROUP BY value"
                    f" LIMIT {limits.LIST_ITEMS_MAX + 1:d}"
                )
                counts = dict(session.ask(statement, look.values))
                if len(counts) <= limits.LIST_ITEMS_MAX:
                    return RecordsCount(counts, look.reach([], None))
                scan = max(scan // 4, 1)

    def choose(self, query: RecordsQuery) -> RecordsChoice:
        """Sequences and the times they span."""
        with self._session() as session:
            look = _Look(session, query)
            statement = f"SELECT seq, time_ms FROM ({look.found(query.limit)}) AS found"  # noqa: S608  as in search
            rows = session.ask(statement, look.values)
            seqs, times = [seq for seq, _ in rows], [time_ms for _, time_ms in rows] or [0]
            return RecordsChoice(seqs, min(times), max(times), look.reach(seqs, query.limit))

    def record(self, seq: int) -> RecordRow | None:
        """One record."""
        page = self.search(RecordsQuery(after=seq - 1, before=seq + 1, limit=1))
        return page.rows[0] if page.rows else None

    def history(self, query: HistoryQuery) -> list[HistoryRow]:
        """Revisions of authority rows."""
        with self._session() as session:
            return history(session.ask, query)

    def others(self) -> dict[str, LogReader]:
        """Readers of the other nodes' logs."""
        with self._session() as session:
            found = session.ask(_OTHERS, (LOG_SCHEMA, LOG_SCHEMA, self._schema))
        return {
            name: PostgresLogReader(
                msgspec.structs.replace(self._target, node=name), self._now_s, self._sessions
            )
            for (name,) in found
        }

    def forgotten_in(self, ranges: Sequence[tuple[int, int]]) -> int:
        """How many records of the ranges are forgotten."""
        values = ([low for low, _ in ranges], [high for _, high in ranges])
        with self._session() as session:
            return int(session.ask(_FORGOTTEN, values)[0][0]) if ranges else 0

    def scrub(self) -> bool:
        """Have the table's dead rows removed. False: what they were made of may still lie there.

        Bytes of a removed row stay in its page until others are written there, and in the
        write-ahead log until that is recycled, or archived for ever: only the server's operator
        can see to those.
        """
        try:
            with self._session() as session:
                session.execute(b"VACUUM records")
        except LogUnavailable:
            return False
        return False


class _Look(Look):
    def __init__(self, session: Session, query: RecordsQuery, scan: int | None = None) -> None:
        self._session = session
        super().__init__(query, scan)

    def ask(self, sql: str, values: Sequence[object]) -> Any:  # noqa: ANN401  a row of the driver's
        rows = self._session.ask(sql, values)
        return rows[0] if rows else None

    def _extent(self) -> tuple[int, int]:
        """An index of the table's is always whole."""
        [(top,)] = self._session.ask(sql.LAST_SEQUENCE)
        return top, top

    def _begin(self) -> str:
        plan = self._plan
        return plan.column or _BEGINS.get(plan.index or "", "")

    def _beside_index(self, low: int, high: int, indexed_to: int) -> tuple[object, ...]:
        return self._from_to(low, min(high, indexed_to))

    def _from_to(self, low: int, high: int) -> tuple[object, ...]:
        value = self._plan.values
        return (*value, low, *value, high)

    def _rows(self, most: int) -> str:
        columns = f"{sql.RECORD_COLUMNS}, body IS NULL AS gone"
        return f"SELECT {columns} {self._along()} LIMIT {most:d}"

    def _along(self) -> str:
        plan, direction = self._plan, "ASC" if self._oldest_first else "DESC"
        begin = self._begin()
        if not begin:
            return f"FROM records WHERE seq >= ? AND seq <= ? ORDER BY seq {direction}"
        value = "?" if plan.values else "TRUE"
        # Each index is of some records only: its condition has to stand here too.
        condition = f"{plan.column} <> ''" if plan.column else plan.terms[-1]
        return (
            f"FROM records WHERE {condition} AND ({begin}, seq) >= ({value}, ?)"
            f" AND ({begin}, seq) <= ({value}, ?) ORDER BY {begin} {direction}, seq {direction}"
        )
