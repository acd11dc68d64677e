"""Erasing records in place: what stands for them in the tree stays, what they said is gone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence

from keystead.store.log_layout import FORGOTTEN

__all__ = ["forget", "forgotten_in"]

_BLANK = "body = NULL, salt = NULL, handle_id = '', principal = '', request_id = ''"
_IN_RANGES = "wanted.value ->> 0 AND wanted.value ->> 1"
_KEPT = (
    "SELECT r.seq FROM json_each(?) AS wanted CROSS JOIN records AS r"  # noqa: S608  constants, nothing of a caller
    f" WHERE r.seq BETWEEN {_IN_RANGES} AND r.body IS NOT NULL"
    " AND r.op IN (SELECT value FROM json_each(?))"
)
"""CROSS JOIN: each range is sought by its ends, and no more is read."""
_FORGET = f"UPDATE records SET {_BLANK} WHERE seq IN ({_KEPT})"  # noqa: S608  as above
_COUNT = (
    "SELECT count(*) FROM json_each(?) AS wanted CROSS JOIN records AS r"  # noqa: S608  as above
    f" INDEXED BY records_forgotten WHERE r.seq BETWEEN {_IN_RANGES} AND r.{FORGOTTEN}"
)


def forget(
    connection: sqlite3.Connection, ranges: Sequence[tuple[int, int]], ops: Sequence[str]
) -> int:
    """Erase what the ranges hold of these operations; how many records that were.

    One statement: see ``sqlite_journal`` on what several cost. The connection's ``secure_delete``
    has SQLite overwrite what it frees.
    """
    return connection.execute(_FORGET, (json.dumps(ranges), json.dumps(ops))).rowcount


def forgotten_in(connection: sqlite3.Connection, ranges: Sequence[tuple[int, int]]) -> int:
    """How many records of the ranges are forgotten, from an index of those alone."""
    return int(connection.execute(_COUNT, (json.dumps(ranges),)).fetchone()[0])
