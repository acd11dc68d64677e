"""Signed checkpoints: a tree head that its log has put its name to (C2SP tlog-checkpoint)."""

from __future__ import annotations

from keystead.errors import MalformedRequest, NotFound, SignatureInvalid
from keystead.translog.cosignatures import verify_cosignature
from keystead.translog.heads import Checkpoint, parse_checkpoint
from keystead.translog.notes import (
    ED25519,
    MLDSA44_COSIGNATURE,
    Note,
    VerifierKey,
    parse_note,
    verify_note,
)

__all__ = ["LOG_TYPES", "Checkpoint", "check_log_signature", "open_checkpoint", "parse_checkpoint"]

LOG_TYPES = frozenset({ED25519, MLDSA44_COSIGNATURE})
"""Signature types that a log signs its own checkpoints with; 0x04 is for witnesses."""


def open_checkpoint(data: bytes | str, key: VerifierKey) -> tuple[Checkpoint, Note]:
    """The tree head in a signed note, once its log's signature has been checked.

    Raises:
        MalformedRequest: no note, or no checkpoint in it.
        SignatureInvalid: as :func:`check_log_signature`.
    """
    note = parse_note(data)
    return check_log_signature(note, key), note


def check_log_signature(note: Note, key: VerifierKey) -> Checkpoint:
    """The tree head, if the log of this key signed it: Ed25519, or ML-DSA-44 as a cosignature.

    Raises:
        MalformedRequest: the note holds no checkpoint, or the key is of another type.
        SignatureInvalid: not signed by this key, of another origin than the key's name, or with
            extension lines that its kind of signature does not cover.
    """
    if key.algorithm not in LOG_TYPES:
        raise MalformedRequest(
            f"expected a log's key of type 0x01 or 0x06, met 0x{key.algorithm:02x}"
        )
    checkpoint = parse_checkpoint(note.text)
    if checkpoint.origin != key.name:
        raise SignatureInvalid(
            f"expected a checkpoint of {key.name}, met one of {checkpoint.origin}",
            hint="use the verifier key of that log",
        )
    if key.algorithm == ED25519:
        verify_note(note, (key,))
        return checkpoint
    if checkpoint.extensions:
        raise SignatureInvalid(
            f"expected no extension lines under a signature of type 0x{key.algorithm:02x}, which"
            f" does not speak for them, met {len(checkpoint.extensions)}"
        )
    try:
        verify_cosignature(note, key)
    except NotFound as exc:
        raise SignatureInvalid(f"expected a checkpoint signed by {key.name}: {exc}") from exc
    return checkpoint
