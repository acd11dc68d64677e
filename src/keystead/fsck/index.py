"""The log's own index, which searches go by: each record is in it, and nothing else is.

There are two ways through, as with records: one statement a column gives all entries of a stretch,
and only where they are not those that its records make is each looked for, and what is wrong named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import add

import msgspec

from keystead import limits
from keystead.errors import StartupError
from keystead.fsck.findings import Finding
from keystead.fsck.records import fits
from keystead.fsck.rows import COLUMNS, FIELDS, Row, Rows

__all__ = ["Index"]

_SEQ = 0
_DAMAGED = "the database is damaged: searches fail"
_AT = {column: COLUMNS.index(column) for column in FIELDS}


class Index:
    """Holds the index against a stretch of records, as far as it goes.

    Entries that name a value which no record of the stretch has are not seen: they lead nowhere.
    """

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._stops = rows.indexed()
        self._seqs: list[int] = []
        self._values: dict[str, list[str]] = {column: [] for column in FIELDS}
        self._odd: set[int] = set()

    def take(self, rows: Sequence[Row], first: int, stop: int, *, sound: bool) -> None:
        """Some of its records. ``sound``: nothing is wrong with them, and none is forgotten.

        What is altered in a record itself is a finding already, and the index may be right.
        """
        if not sound:
            rows = [row for row in rows if fits(row)]
            self._odd |= set(range(first, stop)) - {row[_SEQ] for row in rows}
        self._seqs += [row[_SEQ] for row in rows]
        for column, at in _AT.items():
            self._values[column] += [row[at] for row in rows]

    def end(self, first: int, stop: int) -> Iterator[Finding]:
        """What does not fit of a stretch, all records of which were taken."""
        for column in FIELDS.keys() - self._stops.keys() if not first else ():
            yield Finding(
                f"log_indexed, {column}",
                "a row that says how far the index goes",
                "none",
                "it was removed: commits and searches fail; restore the registry from a backup",
            )
        for column in self._stops:
            upto = min(stop, self._stops[column])
            if first >= upto:
                continue
            try:
                wanted, expected = self._entries(column, first, upto)
                if self._rows.indexed_of(FIELDS[column], wanted, first, upto) != expected:
                    yield from self._named(column, first, upto)
            except StartupError as exc:
                place = f"log_index, {column} of records {first} to {upto - 1}"
                yield Finding(place, "entries that can be read", exc.message, _DAMAGED)

    def _entries(self, column: str, first: int, stop: int) -> tuple[bytes, list[int]]:
        """The values of the records in JSON, and the entries as ``Rows.indexed_of`` gives them."""
        values, seqs = self._values[column], self._seqs
        distinct = {*values}
        if "" in distinct or (seqs and seqs[-1] >= stop):
            pairs = zip(values, seqs, strict=True)
            kept = [(value, seq) for value, seq in pairs if value and seq < stop]
            values, seqs = [value for value, _ in kept], [seq for _, seq in kept]
            distinct = {*values}
        ranked = sorted(distinct)
        bases = {value: rank * (stop - first) - first for rank, value in enumerate(ranked)}
        entries = sorted(map(add, map(bases.__getitem__, values), seqs))
        return msgspec.json.encode(ranked), entries

    def _named(self, column: str, first: int, stop: int) -> Iterator[Finding]:
        """Each of one column, by the records and the index as they are together in one moment."""
        missing, foreign = self._rows.misindexed(column, first, stop, limits.FSCK_FINDINGS_MAX)
        for seq in missing:
            if seq not in self._odd:
                yield Finding(
                    f"log_index, {column} of record {seq}",
                    "an entry",
                    "none",
                    "an entry was removed: searches leave the record out",
                )
        for seq in foreign:
            if seq not in self._odd:
                yield Finding(
                    f"log_index, {column} of record {seq}",
                    "what the record has",
                    "another entry",
                    "an entry was made up, or left when the record was forgotten",
                )
