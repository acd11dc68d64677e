"""The log's own index: by key, handle, principal and request, kept behind the commits.

An index of the table would have a page changed for every record and column, as each record is of
another handle than the one before. Here a commit appends rows only, and one in some puts all that
came since into the index, sorted, so that many share a page: one column a commit, so that none is
held up for long. ``log_indexed`` says up to where the index goes, and is written in the commit that
fills it: what is past it is searched row by row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from keystead import limits
from keystead.store.log_layout import FIELDS

__all__ = ["LogIndex", "along_index", "erase_from_index", "through"]

_TOP = "(SELECT coalesce(max(seq), -1) FROM records)"


def through(column: str) -> str:
    """The sequence up to which all records are in the index by a column; it only grows."""
    return f"(SELECT through FROM log_indexed WHERE field = {FIELDS[column]})"  # noqa: S608  made of constants


def _fill(column: str) -> str:
    """OR IGNORE: what is there already, whoever put it there, keeps no commit from being made."""
    past = through(column)
    return (
        "INSERT OR IGNORE INTO log_index (field, value, seq)"  # noqa: S608  as above
        f" SELECT {FIELDS[column]}, {column}, seq"
        f" FROM records NOT INDEXED WHERE seq > {past} AND seq <= {past} + ?1 AND {column} <> ''"
        f" ORDER BY {column}, seq"
    )


def _filled(column: str) -> str:
    return (
        f"UPDATE log_indexed SET through = min(through + ?1, {_TOP})"  # noqa: S608  as above
        f" WHERE field = {FIELDS[column]} RETURNING {_TOP} - through"
    )


_STATEMENTS = {column: (_fill(column), _filled(column)) for column in FIELDS}
_WAITING = f"SELECT {', '.join(f'{_TOP} - {through(column)}' for column in FIELDS)}"


class LogIndex:
    """Keeps the index behind the commits of one connection.

    It counts what it has appended, and asks the database only where it cannot know.
    """

    def __init__(self) -> None:
        self._waiting: dict[str, int] = {}

    def unsettled(self) -> None:
        """A commit failed, or may have: count again."""
        self._waiting = {}

    def keep_up(self, connection: sqlite3.Connection, appended: int) -> None:
        """At the end of a commit's work: fill the index by one column if enough records wait.

        ``appended``: how many this commit adds.
        """
        if not appended:
            return
        if self._waiting:
            waiting = {column: count + appended for column, count in self._waiting.items()}
        else:
            counts = connection.execute(_WAITING).fetchone()
            waiting = dict(zip(FIELDS, counts, strict=True))
        column = max(waiting, key=waiting.__getitem__)
        if waiting[column] >= limits.LOG_INDEX_EVERY:
            fill, filled = _STATEMENTS[column]
            most = (limits.LOG_INDEX_ROWS_MAX,)
            connection.execute(fill, most)
            [(waiting[column],)] = connection.execute(filled, most).fetchall()
        self._waiting = waiting


def along_index(column: str, *, oldest_first: bool) -> str:
    """Sequences of the records with a value in a column, in order, from the index and behind it.

    Binds that value and two sequences for what the index has, then the same for what it has not.
    """
    direction = "ASC" if oldest_first else "DESC"
    return (
        f"SELECT seq FROM log_index WHERE field = {FIELDS[column]} AND value = ?"  # noqa: S608  constants, values are bound
        f" AND seq BETWEEN ? AND ? UNION ALL SELECT seq FROM records NOT INDEXED WHERE {column} = ?"
        f" AND seq BETWEEN ? AND ? ORDER BY seq {direction}"
    )


def erase_from_index(
    connection: sqlite3.Connection, columns: Sequence[str], chosen: str, values: tuple[str, ...]
) -> None:
    """Take what records hold in some columns out of the index, before it is erased in them.

    ``chosen``: the records, as ``r``, and what it binds.
    """
    for column in columns:
        connection.execute(
            f"DELETE FROM log_index WHERE field = {FIELDS[column]} AND (value, seq) IN"  # noqa: S608  as above
            f" (SELECT r.{column}, r.seq {chosen})",
            values,
        )
