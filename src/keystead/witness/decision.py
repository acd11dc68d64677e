"""What a witness answers to a submitted checkpoint (C2SP tlog-witness, ``add-checkpoint``). Pure.

:func:`admit` judges the request by itself, :func:`decide` against what is remembered of its log.
The checks stand in the order in which the specification has them: a request that fails several is
answered by the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from keystead import limits
from keystead.errors import MalformedRequest, ProofInvalid, SignatureInvalid
from keystead.translog.checkpoints import Checkpoint, check_log_signature, parse_checkpoint
from keystead.translog.lines import decimal, hash_line
from keystead.translog.notes import Note, Signature, VerifierKey, parse_note, signatures_by
from keystead.translog.tree import EMPTY_ROOT, verify_consistency
from keystead.witness.state import Stored

__all__ = ["Conflict", "Cosign", "Refuse", "Submission", "admit", "decide", "parse_body"]

_OLD = "old "


class Submission(msgspec.Struct, frozen=True):
    """A checkpoint that its log signed, and the proof that it grew from that of size ``old``.

    ``note``: the checkpoint under the signatures of the log alone; others' are left out.
    """

    old: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint
    note: Note


class Cosign(msgspec.Struct, frozen=True):
    """It holds: remember it, then cosign it."""


class Conflict(msgspec.Struct, frozen=True):
    """It does not start where the witness stands, which is at ``size``."""

    size: int


class Refuse(msgspec.Struct, frozen=True):
    """It is not cosigned; ``status`` is HTTP's, as the specification has it."""

    status: int
    reason: str


def parse_body(body: bytes) -> tuple[int, tuple[bytes, ...], Note]:
    """Old size, proof and note of an ``add-checkpoint`` request.

    Raises:
        MalformedRequest: it is none, or longer than its bounds.
    """
    if len(body) > limits.WITNESS_BODY_BYTES_MAX:
        raise MalformedRequest(
            f"expected a request of at most {limits.WITNESS_BODY_BYTES_MAX} bytes, met {len(body)}"
        )
    head, found, note = body.partition(b"\n\n")
    if not found:
        raise MalformedRequest("expected an empty line between the proof and the checkpoint")
    try:
        first, *hashes = head.decode("ascii").split("\n")
    except UnicodeDecodeError as exc:
        raise MalformedRequest("expected an ASCII old size line and proof lines") from exc
    if not first.startswith(_OLD):
        raise MalformedRequest("expected a first line 'old N'")
    if len(hashes) > limits.MERKLE_PROOF_HASHES_MAX:
        raise MalformedRequest(
            f"expected at most {limits.MERKLE_PROOF_HASHES_MAX} proof lines, met {len(hashes)}"
        )
    old = decimal(first.removeprefix(_OLD), limits.LOG_SIZE_MAX, "an old size")
    return old, tuple(hash_line(line, "a proof line") for line in hashes), parse_note(note)


def admit(body: bytes, logs: Mapping[str, Sequence[VerifierKey]]) -> Submission | Refuse:
    """The submission that a request is, if one of the logs has signed it.

    ``logs``: origin to the keys that sign for it.
    """
    try:
        old, proof, note = parse_body(body)
        checkpoint = parse_checkpoint(note.text)
    except MalformedRequest as exc:
        return Refuse(400, str(exc))
    keys = logs.get(checkpoint.origin)
    if keys is None:
        return Refuse(404, "this witness does not watch a log of this origin")
    try:
        own = _signatures_of_log(note, keys)
    except SignatureInvalid as exc:
        return Refuse(403, str(exc))
    if not own:
        return Refuse(403, "expected a signature by a key that this witness knows of the log")
    if old > checkpoint.size:
        return Refuse(
            400, f"expected an old size of at most the checkpoint's, {checkpoint.size}, met {old}"
        )
    return Submission(old, proof, checkpoint, Note(note.text, own))


def _signatures_of_log(note: Note, keys: Sequence[VerifierKey]) -> tuple[Signature, ...]:
    """The signatures of the log's keys, each of them checked."""
    signers = [key for key in keys if signatures_by(note, key)]
    for key in signers:
        check_log_signature(note, key)
    return tuple(found for key in signers for found in signatures_by(note, key))


def decide(stored: Stored | None, submission: Submission) -> Cosign | Conflict | Refuse:
    """Whether the checkpoint continues what is remembered of its log.

    ``stored``: the latest checkpoint that was cosigned, or None if none was.
    """
    size = 0 if stored is None else stored.size
    if submission.old != size:
        return Conflict(size)
    new = submission.checkpoint
    old_root = EMPTY_ROOT if stored is None else stored.root
    try:
        verify_consistency(size, old_root, new.size, new.root, submission.proof)
    except ProofInvalid as exc:
        return Refuse(422, str(exc))
    return Cosign()
