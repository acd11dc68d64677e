"""How a question about the log is answered: along one index, within a bound, and where to go on.

What SQLite and PostgreSQL share of it; each says in its own words how rows are read in the order of
an index. A look is a few statements: how far the log goes, the rows, and where the look ended.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import msgspec

from keystead import limits
from keystead.ports import Reach, RecordsQuery
from keystead.store.log_blocks import narrowed
from keystead.store.log_layout import CHANGES, DENIED

__all__ = ["COUNTED", "FOUND_COLUMNS", "Look", "Plan", "plan_of"]

_USES = frozenset(CHANGES.split("'")[1::2])
FOUND_COLUMNS = (
    "seq, time_ms, op, outcome, key_id, version, handle_id, principal, request_id, purpose"
)
COUNTED = {
    "key": "key_id",
    "principal": "principal",
    "outcome": "outcome",
    "operation": "op",
    "handle": "handle_id",
    "purpose": "purpose",
    "hour": "CAST(time_ms / 3600000 * 3600000 AS TEXT)",
}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How a question is answered: along an index (or the log itself), and what each row is held to.

    ``column``: one whose value it goes by; ``index``: one of the table's, made for it. ``terms``
    are what that gives, ``rest`` what is left to look at in each row.
    """

    column: str | None = None
    index: str | None = None
    terms: tuple[str, ...] = ()
    values: tuple[object, ...] = ()
    rest: tuple[str, ...] = ()
    rest_values: tuple[object, ...] = ()


class Look(ABC):
    """One bounded look at the log: its statements, and how far it came.

    ``scan``: how many records it may look at, ``limits.LOG_SCAN_ROWS_MAX`` by itself.
    """

    def __init__(self, query: RecordsQuery, scan: int | None = None) -> None:
        self._plan = plan = plan_of(query)
        self._oldest_first = query.oldest_first
        self._most = limits.LOG_SCAN_ROWS_MAX if scan is None else scan
        self._top, indexed_to = self._extent()
        low = 0 if query.after is None else query.after + 1
        self._high = high = self._top if query.before is None else min(self._top, query.before - 1)
        self._low = low
        if low <= high and (query.since_ms, query.until_ms) != (None, None):
            low, high = narrowed(self.ask, low, high, query.since_ms, query.until_ms)
        self._edge: int | None = None
        if plan.column is not None:
            self._begin_values = self._beside_index(low, high, indexed_to)
        else:
            if plan.index is None and plan.rest:
                low, high = self._cut(low, high)
            self._begin_values = self._from_to(low, high)
        self.values = (*self._begin_values, *plan.rest_values)

    # --- each database's own -----------------------------------------------------------------

    @abstractmethod
    def ask(self, sql: str, values: Sequence[object]) -> Any:  # noqa: ANN401  a row of the driver's
        """The one row of a statement."""

    @abstractmethod
    def _extent(self) -> tuple[int, int]:
        """The last sequence, and up to where the index goes by the plan's column."""

    @abstractmethod
    def _beside_index(self, low: int, high: int, indexed_to: int) -> tuple[object, ...]:
        """What to bind for a search by a column's value."""

    @abstractmethod
    def _along(self) -> str:
        """What gives ``seq`` of the rows between two sequences in order: after a SELECT's columns.

        A plan's column may have a way of its own: see :meth:`_seqs`.
        """

    @abstractmethod
    def _rows(self, most: int) -> str:
        """The first rows along the index, so many at most, with :data:`FOUND_COLUMNS` and gone."""

    def _seqs(self) -> str:
        """The statement that gives their sequences only."""
        return f"SELECT seq {self._along()}"

    def _from_to(self, low: int, high: int) -> tuple[object, ...]:
        """What to bind for a search along an index of the table, or the log itself."""
        return (*self._plan.values, low, high)

    def _cut(self, low: int, high: int) -> tuple[int, int]:
        """As much of a stretch as may be looked at row by row; the look ends there, if not at all.

        The first of it in the order asked for, whatever is found there.
        """
        if high - low < self._most:
            return low, high
        if self._oldest_first:
            self._edge = high = low + self._most - 1
        else:
            self._edge = low = high - self._most + 1
        return low, high

    def found(self, limit: int | None) -> str:
        """The columns of what matches, in order: along the index, then what the rest leaves."""
        rest = self._plan.rest
        if not rest and limit is not None:
            return self._rows(min(limit, self._most))
        where = f" WHERE {' AND '.join(rest)}" if rest else ""
        most = "" if limit is None else f" LIMIT {limit:d}"
        return f"SELECT * FROM ({self._rows(self._most)}) AS looked{where}{most}"  # noqa: S608  constants, values are bound

    def reach(self, seqs: Sequence[int], limit: int | None) -> Reach:
        """Where to go on. ``seqs``: what was found; ``limit``: how many of it were wanted."""
        if limit is not None and len(seqs) >= limit:
            return Reach(next=seqs[-1], end=False, top=self._top)
        edge = self._last_looked_at(limit)
        if edge is not None:
            return Reach(next=edge, end=False, top=self._top)
        end = max(self._high, self._low - 1) if self._oldest_first else self._low
        return Reach(next=end, end=True, top=self._top)

    def _last_looked_at(self, limit: int | None) -> int | None:
        """The sequence at which the look ended, if it ended before the log."""
        plan = self._plan
        along_log = plan.index is None and plan.column is None
        if along_log and self._edge is not None:
            return self._edge
        if not plan.rest and limit is not None and limit <= self._most:
            return self._edge
        row = self.ask(f"{self._seqs()} LIMIT 1 OFFSET {self._most - 1:d}", self._begin_values)
        return self._edge if row is None else int(row[0])


def plan_of(query: RecordsQuery) -> Plan:
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
    way = _way(query)
    more, more_values = _other_terms(query)
    if query.outcome == "denied" and way.index != "records_denied":
        more.append(DENIED)
    column = way.column
    values = () if column is None else (rest.pop(f"{column} = ?"),)
    return Plan(
        column=column if way.index is None else None,
        index=way.index,
        terms=way.terms,
        values=values,
        rest=(*rest, *more),
        rest_values=(*rest.values(), *more_values),
    )


class _Way(msgspec.Struct, frozen=True):
    """An index of the table with its terms, or none; the column whose value it goes by, if any."""

    column: str | None = None
    index: str | None = None
    terms: tuple[str, ...] = ()


def _way(query: RecordsQuery) -> _Way:
    refusal = query.outcome not in (None, "ok", "denied")
    change = query.op is not None and query.op not in _USES
    ways = (
        (bool(query.request_id), _Way("request_id")),
        (query.outcome == "denied", _Way(None, "records_denied", (DENIED,))),
        (refusal, _Way("outcome", "records_refused", ("outcome = ?", DENIED))),
        (change, _Way("op", "records_by_change", ("op = ?", CHANGES))),
        (bool(query.handle_id), _Way("handle_id")),
        (bool(query.principal), _Way("principal")),
        (bool(query.key_id), _Way("key_id")),
    )
    return next((way for fits, way in ways if fits), _Way())


def _other_terms(query: RecordsQuery) -> tuple[list[str], list[object]]:
    terms: list[str] = []
    values: list[object] = []
    if query.ops is not None:
        terms.append(f"op IN ({','.join('?' * len(query.ops))})" if query.ops else "1 = 0")
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
