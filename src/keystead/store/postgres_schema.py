"""The tables as PostgreSQL has them: those that all nodes share, and those of one node's log.

Made of the same tables as SQLite's (``store.schema``), with what differs said here. Texts compare
by their bytes (collation C): so does SQLite, and no update of the system's locales reorders an
index. Imported by migrations and tests only.
"""

from __future__ import annotations

import sqlalchemy as sa

from keystead.store.log_layout import CHANGES, DENIED, FORGOTTEN
from keystead.store.schema import METADATA

__all__ = ["LOG", "SHARED"]

SHARED = sa.MetaData()
LOG = sa.MetaData()

_LOG_TABLES = ("records", "log_blocks", "checkpoints")
_SQLITE_ONLY = ("log_index", "log_indexed")
"""What SQLite keeps behind its commits is an index of the table here."""


def _copied(table: sa.Table, metadata: sa.MetaData, *, indexes: bool) -> sa.Table:
    copy = table.to_metadata(metadata)
    if not indexes:
        copy.indexes.clear()
    for column in copy.columns:
        if isinstance(column.type, sa.Text):
            column.type = sa.Text(collation="C")
        column.autoincrement = False  # sequences are the committer's, not the database's
    return copy


def _index(table: sa.Table, name: str, columns: tuple[str, ...], where: str) -> None:
    expressions = [sa.text(text) if " " in text else table.c[text] for text in columns]
    sa.Index(name, *expressions, postgresql_where=sa.text(where))


for _table in METADATA.sorted_tables:
    if _table.name in _LOG_TABLES:
        _copied(_table, LOG, indexes=False)
    elif _table.name not in _SQLITE_ONLY:
        _copied(_table, SHARED, indexes=True)

_records = LOG.tables["records"]
for _column in ("key_id", "handle_id", "principal", "request_id"):
    _index(_records, f"records_by_{_column}", (_column, "seq"), f"{_column} <> ''")
_index(_records, "records_refused", ("outcome", "seq"), DENIED)
_index(_records, "records_denied", (f"({DENIED})", "seq"), DENIED)
_index(_records, "records_by_change", ("op", "seq"), CHANGES)
_index(_records, "records_forgotten", ("seq",), FORGOTTEN)
