"""A record's row, made of its draft, its place and its salt."""

from __future__ import annotations

from collections.abc import Iterable

from keystead.encoding import length_prefixed
from keystead.ports import ObjectRow, RecordRow
from keystead.translog.entries import Draft, encode_draft, entry_of, leaf_hash, place

__all__ = ["record_row", "rows_message"]


def record_row(
    seq: int, epoch: int, draft: Draft, salt: bytes, encoded: bytes | None = None
) -> RecordRow:
    """The row of a draft at its place; ``encoded`` is the draft's JSON if it was made before."""
    body = place(seq, epoch, encoded or encode_draft(draft))
    entry = entry_of(salt, body)
    return RecordRow(
        seq,
        draft.time_ms,
        epoch,
        draft.op,
        draft.outcome,
        draft.key,
        draft.version,
        draft.handle,
        draft.principal,
        draft.request,
        body,
        salt,
        entry,
        leaf_hash(entry),
        draft.purpose,
    )


def rows_message(rows: Iterable[ObjectRow]) -> bytes:
    """What a change's record commits to: the rows that it wrote, in their order."""
    return length_prefixed(
        part
        for row in rows
        for part in (
            row.kind.encode(),
            row.id.encode(),
            row.name.encode(),
            f"{row.revision}/{row.epoch}".encode(),
            row.doc,
        )
    )
