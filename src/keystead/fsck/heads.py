"""Signed tree heads: the kept rows, the published file, the anchor; each under the log's key."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.fsck.findings import Finding, differs
from keystead.fsck.rows import StoredHead
from keystead.translog.checkpoints import check_log_signature
from keystead.translog.heads import Checkpoint, parse_checkpoint
from keystead.translog.lines import HASH_BYTES
from keystead.translog.notes import VerifierKey, parse_note
from keystead.translog.tree import Frontier

__all__ = ["Head", "check_stored", "open_head"]


class Head(msgspec.Struct, frozen=True):
    """A size at which the tree must have a root. ``place``: who says so.

    ``inner``: the frontier of the leaves behind the last full tile of that size.
    """

    size: int
    root: bytes
    place: str
    inner: tuple[bytes, ...] = ()


def open_head(
    place: str, data: bytes, key: VerifierKey | None
) -> tuple[Checkpoint | None, list[Finding]]:
    """The tree head in a note, if it is signed; without a key it is taken as it is."""
    try:
        note = parse_note(data)
        if key is None:
            return parse_checkpoint(note.text), []
        return check_log_signature(note, key), []
    except (MalformedRequest, SignatureInvalid) as exc:
        finding = Finding(
            place, "a checkpoint that the log has signed", exc.message, "it is altered, or forged"
        )
        return None, [finding]


def check_stored(row: StoredHead, key: VerifierKey | None) -> tuple[Head | None, list[Finding]]:
    """A kept checkpoint by itself: signature, size, root and frontier; the tree is not asked."""
    place = f"checkpoint row of size {row.size}"
    if not isinstance(row.note, bytes):
        return None, [differs(f"{place}, column note", "bytes", row.note, "it was altered")]
    signed, findings = open_head(f"{place}, column note", row.note, key)
    if signed is not None and signed.size != row.size:
        findings.append(
            differs(f"{place}, column size", signed.size, row.size, "the row was altered or moved")
        )
        signed = None
    root = row.root if signed is None else signed.root
    if row.root != root or not _is_hash(root):
        findings.append(
            differs(f"{place}, column root", root, row.root, "it is not the root that was signed")
        )
    if not _is_hash(root):
        return None, findings
    findings += _frontier(place, row, root)
    return Head(row.size, root, place), findings


def _is_hash(value: object) -> bool:
    return isinstance(value, bytes) and len(value) == HASH_BYTES


def _frontier(place: str, row: StoredHead, root: bytes) -> Iterator[Finding]:
    where = f"{place}, column frontier"
    data, count = row.frontier, row.size.bit_count()
    if not isinstance(data, bytes) or len(data) != count * HASH_BYTES:
        yield differs(where, f"{count} hashes", data, "it was altered")
        return
    hashes = tuple(data[at : at + HASH_BYTES] for at in range(0, len(data), HASH_BYTES))
    met = Frontier(row.size, hashes).root()
    if met != root:
        yield differs(
            where,
            root,
            met,
            "its hashes do not fold to the root: the next checkpoint would have been false",
        )
