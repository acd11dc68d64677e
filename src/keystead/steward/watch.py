"""Reads records after their commit and says what does not fit: invariants I2 and I10."""

from __future__ import annotations

from collections.abc import Iterable

from keystead.ports import EntryRow
from keystead.translog.entries import ENTRY_BYTES, entry_of, leaf_hash

__all__ = ["RecordWatch"]


class RecordWatch:
    """Pure but for what it remembers: the next sequence it expects."""

    def __init__(self, next_seq: int = 0) -> None:
        self.next_seq = next_seq

    def check(self, rows: Iterable[EntryRow]) -> list[str]:
        """Findings, each beginning with its invariant's number; rows in order of sequence."""
        findings: list[str] = []
        for row in rows:
            if row.seq != self.next_seq:
                findings.append(f"I10 expected record {self.next_seq}, met {row.seq}")
            self.next_seq = row.seq + 1
            findings += _findings(row)
        return findings


def _findings(row: EntryRow) -> list[str]:
    forgotten = row.body is None or row.salt is None  # its entry stays
    if len(row.entry) != ENTRY_BYTES or not (
        forgotten or entry_of(row.salt or b"", row.body or b"") == row.entry
    ):
        return [f"I10 record {row.seq}: the body is not that of its entry"]
    if leaf_hash(row.entry) != row.leaf:
        return [f"I10 record {row.seq}: the leaf is not that of its entry"]
    place = b'{"seq":%d,"epoch":%d,' % (row.seq, row.epoch)
    if not forgotten and not (row.body or b"").startswith(place):
        return [f"I10 record {row.seq}: the body is of another place"]
    return []
