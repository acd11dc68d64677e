"""Revisions of authority rows on SQLite: read newest first.

A look chooses revisions in an index that holds all it needs, so that no document is read but those
it gives; and it gives them as one row: see ``sqlite_search`` on what many cost.
"""

from __future__ import annotations

import sqlite3

import msgspec

from keystead.errors import LogUnavailable
from keystead.ports import HistoryQuery, HistoryRow

__all__ = ["asked", "history"]

_ROW_AS_JSON = (
    "json_array(h.kind, h.id, h.name, h.revision, h.epoch, h.seq, h.time_ms, hex(h.doc),"
    " hex(h.mac))"
)


class _Read(msgspec.Struct, frozen=True, array_like=True):
    """A row as :data:`_ROW_AS_JSON` has it."""

    kind: str
    id: str
    name: str
    revision: int
    epoch: int
    seq: int
    time_ms: int
    doc: str
    mac: str

    def row(self) -> HistoryRow:
        return HistoryRow(
            self.kind,
            self.id,
            self.name,
            self.revision,
            self.epoch,
            self.seq,
            self.time_ms,
            bytes.fromhex(self.doc),
            bytes.fromhex(self.mac),
        )


_ROWS = msgspec.json.Decoder(list[_Read])


def asked(query: HistoryQuery) -> dict[str, object]:
    """What revisions are held to before the last one is taken: terms, and the value of each."""
    terms = {
        "id = ?": query.object_id,
        "kind = ?": query.kind,
        "revision = ?": query.revision,
        "seq <= ?": query.at_seq,
        "time_ms <= ?": query.at_ms,
    }
    return {term: value for term, value in terms.items() if value is not None}


def history(connection: sqlite3.Connection, query: HistoryQuery) -> list[HistoryRow]:
    """Revisions that a query names, as of one committed state.

    Raises:
        LogUnavailable: a row that no node wrote.
    """
    found, values = _found(query)
    data = connection.execute(
        f"SELECT json_group_array({_ROW_AS_JSON}) FROM ({found}) AS found CROSS JOIN"  # noqa: S608  constants, values are bound
        " object_history AS h ON h.kind = found.kind AND h.id = found.id"
        " AND h.revision = found.revision",
        values,
    ).fetchone()[0]
    try:
        return [read.row() for read in _ROWS.decode(data)]
    except msgspec.MsgspecError as exc:
        raise LogUnavailable(
            "the history holds a row that no node wrote",
            hint="Find out who wrote to the database, and restore the registry from a backup",
        ) from exc


def _found(query: HistoryQuery) -> tuple[str, list[object]]:
    """Which revisions, in their order, with the values to bind."""
    chosen, values = _chosen(query)
    if query.at_seq is not None or query.at_ms is not None:
        # A bare column beside max() is of the row that has it (sqlite.org/lang_select.html 2.5).
        chosen = f"SELECT id, kind, max(revision) AS revision, epoch {chosen} GROUP BY id, kind"
    else:
        chosen = f"SELECT id, kind, revision, epoch {chosen}"
    below = ""
    if query.before_epoch is not None:
        # Only now: an object whose last revision is too new is left out, not shown as it was.
        below = " WHERE epoch < ?"
        values.append(query.before_epoch)
    order = f"ORDER BY epoch DESC, kind, id, revision DESC LIMIT {query.limit:d}"
    return f"SELECT kind, id, revision FROM ({chosen}){below} {order}", values  # noqa: S608  as above


def _chosen(query: HistoryQuery) -> tuple[str, list[object]]:
    terms = asked(query)
    whole = query.object_id is None and query.at_seq is None and query.at_ms is None
    index = "history_newest" if whole else "history_by_object"
    where = f" WHERE {' AND '.join(terms)}" if terms else ""
    return f"FROM object_history INDEXED BY {index}{where}", list(terms.values())
