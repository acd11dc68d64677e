"""Records against what the tour did: pure, from what was expected and what a log search gave."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from keystead.cli.tour.report import RecordRow
from keystead.keys.commands import RecordInfo

__all__ = ["Expected", "judge"]

_SHA256_HEX = 64


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """What the record of one request shall say.

    ``principal``, ``handle``: empty for requests under no handle that the vault knows. ``seq``:
    what the receipt said, ``None`` if there was none.
    """

    op: str
    outcome: str
    principal: str = ""
    handle: str = ""
    seq: int | None = None


def judge(expected: Expected, found: Sequence[RecordInfo]) -> RecordRow:
    """The row of a request's record: there must be one, and it must say what happened.

    Its salt is the vault's own, so ``entry == SHA-256(salt || body)`` is not checked here; that the
    leaf is the entry's (RFC 6962 section 2.1) is.
    """
    if len(found) != 1:
        return RecordRow(
            seq=None,
            op=expected.op,
            outcome=expected.outcome,
            status="failed",
            note=f"expected one record of the request, met {len(found)}",
        )
    record = found[0]
    body = record.body

    def text(name: str) -> str:
        return str(body.get(name) or "")

    row = RecordRow(
        seq=record.seq,
        op=text("op"),
        outcome=text("outcome"),
        principal=text("principal"),
        handle=text("handle"),
        context=text("context"),
        entry=record.entry,
    )
    wrong = _wrong(expected, record, row)
    return msgspec.structs.replace(row, status="failed", note=wrong) if wrong else row


def _wrong(expected: Expected, record: RecordInfo, row: RecordRow) -> str:
    """The first thing that the record says otherwise than it should, or nothing."""
    met = {
        "op": (expected.op, row.op),
        "outcome": (expected.outcome, row.outcome),
        "handle": (expected.handle, row.handle),
        "seq": (record.seq if expected.seq is None else expected.seq, record.seq),
        "seq in its body": (record.seq, record.body.get("seq")),
    }
    if expected.handle:
        met["principal"] = (expected.principal, row.principal)
    for what, (wanted, got) in met.items():
        if wanted != got:
            return f"expected {what} {wanted!r}, met {got!r}"
    if len(record.entry) != _SHA256_HEX:
        return "expected an entry of 32 bytes"
    if hashlib.sha256(b"\x00" + bytes.fromhex(record.entry)).hexdigest() != record.leaf:
        return "the leaf is not the hash of the entry"
    if expected.outcome == "ok" and not record.body.get("signed"):
        return "expected a commitment to what was signed"
    return ""
