"""Erasing records in place: what stands for them in the tree stays, what they said is gone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from keystead.store.log_layout import FORGOTTEN
from keystead.store.sqlite_log_index import erase_from_index

__all__ = ["forget", "forgotten_in"]

_EMPTIED = ("handle_id", "principal", "request_id")
_BLANK = ", ".join(["body = NULL", "salt = NULL", *[f"{name} = ''" for name in _EMPTIED]])
_IN_RANGES = "wanted.value ->> 0 AND wanted.value ->> 1"
_KEPT = (
    "FROM json_each(?) AS wanted CROSS JOIN records AS r"  # noqa: S608  constants, nothing of a caller
    f" WHERE r.seq BETWEEN {_IN_RANGES} AND r.body IS NOT NULL"
    " AND r.op IN (SELECT value FROM json_each(?))"
)
"""CROSS JOIN: each range is sought by its ends, and no more is read."""
_FORGET = f"UPDATE records SET {_BLANK} WHERE seq IN (SELECT r.seq {_KEPT})"  # noqa: S608  as above
_COUNT = (
    "SELECT count(*) FROM json_each(?) AS wanted CROSS JOIN records AS r"  # noqa: S608  as above
    f" INDEXED BY records_forgotten WHERE r.seq BETWEEN {_IN_RANGES} AND r.{FORGOTTEN}"
)


def forget(
    connection: sqlite3.Connection, ranges: Sequence[tuple[int, int]], ops: Sequence[str]
) -> int:
    """Erase what the ranges hold of these operations; how many records that were.

    Few statements, however many records: see ``sqlite_journal`` on what more cost. The connection's
    ``secure_delete`` has SQLite overwrite what it frees.
    """
    values = (json.dumps(ranges), json.dumps(ops))
    erase_from_index(connection, _EMPTIED, _KEPT, values)
    return connection.execute(_FORGET, values).rowcount


def forgotten_in(connection: sqlite3.Connection, ranges: Sequence[tuple[int, int]]) -> int:
    """How many records of the ranges are forgotten, from an index of those alone."""
    return int(connection.execute(_COUNT, (json.dumps(ranges),)).fetchone()[0])
