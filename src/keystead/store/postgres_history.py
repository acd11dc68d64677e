"""Revisions of authority rows on PostgreSQL, newest first: see ``sqlite_history``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from keystead.ports import HistoryQuery, HistoryRow
from keystead.store.sqlite_history import asked

__all__ = ["history"]

_COLUMNS = ", ".join(f"h.{name}" for name in HistoryRow.__struct_fields__)
_ORDER = "epoch DESC, kind, id, revision DESC"


def history(
    ask: Callable[[str, Sequence[object]], list[tuple[Any, ...]]], query: HistoryQuery
) -> list[HistoryRow]:
    """Revisions that a query names, as of one committed state. ``ask`` gives a statement's rows."""
    terms = asked(query)
    where = f" WHERE {' AND '.join(terms)}" if terms else ""
    values: list[object] = list(terms.values())
    chosen = f"SELECT kind, id, revision, epoch FROM object_history{where}"  # noqa: S608  constants, values are bound
    if query.at_seq is not None or query.at_ms is not None:
        chosen = chosen.replace("SELECT", "SELECT DISTINCT ON (id, kind)", 1)
        chosen += " ORDER BY id, kind, revision DESC"
    below = ""
    if query.before_epoch is not None:
        # Only now: an object whose last revision is too new is left out, not shown as it was.
        below = " WHERE epoch < ?"
        values.append(query.before_epoch)
    found = f"SELECT * FROM ({chosen}) AS chosen{below} ORDER BY {_ORDER} LIMIT {query.limit:d}"  # noqa: S608  as above
    rows = ask(
        f"SELECT {_COLUMNS} FROM ({found}) AS found JOIN object_history AS h"  # noqa: S608  as above
        " USING (kind, id, revision)",
        values,
    )
    return sorted((HistoryRow(*row) for row in rows), key=_newest)


def _newest(row: HistoryRow) -> tuple[int, bytes, bytes, int]:
    return -row.epoch, row.kind.encode(), row.id.encode(), -row.revision
