"""A record's row, made of its draft, its place and its salt."""

from __future__ import annotations

from keystead.ports import RecordRow
from keystead.translog.entries import Draft, encode_draft, entry_of, leaf_hash, place

__all__ = ["record_row"]


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
