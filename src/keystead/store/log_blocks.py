"""Between which times the records of each block lie: what a search by time has for an index.

Sequences follow the commits, times the clock of whoever asked, so no index by time gives records in
their order. A row for every 1,024 records costs next to nothing, and leaves out whole stretches of
the log, whatever the clock did.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from keystead.ports import RecordRow
from keystead.store.log_layout import BLOCK_ROWS

__all__ = ["block_times", "narrowed"]


def block_times(rows: Iterable[RecordRow]) -> list[tuple[int, int, int]]:
    """Of each block that records lie in: its number, their earliest and their latest time."""
    times: dict[int, tuple[int, int]] = {}
    for row in rows:
        first, last = times.get(row.seq // BLOCK_ROWS, (row.time_ms, row.time_ms))
        times[row.seq // BLOCK_ROWS] = min(first, row.time_ms), max(last, row.time_ms)
    return [(block, first, last) for block, (first, last) in times.items()]


def narrowed(
    ask: Callable[[str, Sequence[object]], Any],
    low: int,
    high: int,
    since_ms: int | None,
    until_ms: int | None,
) -> tuple[int, int]:
    """The part of the sequences from ``low`` to ``high`` that can hold such times.

    ``ask`` gives the one row of a statement. Empty: the second is less than the first.
    """
    terms, values = ["block BETWEEN ? AND ?"], [low // BLOCK_ROWS, high // BLOCK_ROWS]
    if since_ms is not None:
        terms.append("last_ms >= ?")
        values.append(since_ms)
    if until_ms is not None:
        terms.append("first_ms < ?")
        values.append(until_ms)
    sql = f"SELECT min(block), max(block) FROM log_blocks WHERE {' AND '.join(terms)}"  # noqa: S608  constants, values are bound
    first, last = ask(sql, values)
    if first is None:
        return low, low - 1
    return max(low, first * BLOCK_ROWS), min(high, (last + 1) * BLOCK_ROWS - 1)
