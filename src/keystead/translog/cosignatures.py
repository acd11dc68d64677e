"""Cosignatures: a witness's dated word that a log only ever grew (C2SP tlog-cosignature)."""

from __future__ import annotations

from collections.abc import Callable

from keystead.errors import MalformedRequest, NotFound, SignatureInvalid
from keystead.translog.heads import parse_checkpoint
from keystead.translog.notes import (
    ED25519_COSIGNATURE,
    MLDSA44_COSIGNATURE,
    Note,
    Signature,
    VerifierKey,
    check_signature,
    signatures_by,
)

__all__ = ["COSIGNATURE_TYPES", "cosign", "cosigned_message", "verify_cosignature"]

COSIGNATURE_TYPES = frozenset({ED25519_COSIGNATURE, MLDSA44_COSIGNATURE})
_TIME_BYTES = 8
_TIME_MAX_S = 2**63 - 1  # tlog-cosignature, "Format"
_SIGNATURE_BYTES = {ED25519_COSIGNATURE: 64, MLDSA44_COSIGNATURE: 2420}
_SUBTREE_LABEL = b"subtree/v1\n\x00"


def cosigned_message(text: str, witness: VerifierKey, time_s: int) -> bytes:
    """What a witness of this type signs for a checkpoint's text at a POSIX time.

    Ed25519 signs the whole text. ML-DSA-44 signs the witness's name, origin, size and root: no
    extension lines.

    Raises:
        MalformedRequest: no checkpoint, a time out of bounds, or a key that is no cosigner's.
    """
    checkpoint = parse_checkpoint(text)
    if not 0 <= time_s <= _TIME_MAX_S:
        raise MalformedRequest(f"expected a POSIX time from 0 to {_TIME_MAX_S} s, met {time_s}")
    _check_cosigner(witness)
    if witness.algorithm == ED25519_COSIGNATURE:
        return f"cosignature/v1\ntime {time_s}\n{text}".encode()
    name, origin = witness.name.encode(), checkpoint.origin.encode()
    return b"".join(
        (
            _SUBTREE_LABEL,
            bytes([len(name)]),
            name,
            time_s.to_bytes(_TIME_BYTES, "big"),
            bytes([len(origin)]),
            origin,
            bytes(8),  # the start: a checkpoint's tree begins at leaf 0
            checkpoint.size.to_bytes(8, "big"),
            checkpoint.root,
        )
    )


def _check_cosigner(key: VerifierKey) -> None:
    if key.algorithm not in COSIGNATURE_TYPES:
        raise MalformedRequest(
            f"expected a cosigner's key of type 0x04 or 0x06, met 0x{key.algorithm:02x}"
        )


def cosign(
    checkpoint_text: str, witness: VerifierKey, time_s: int, sign: Callable[[bytes], bytes]
) -> Signature:
    """A cosignature; ``sign`` is the private part of ``witness``.

    The caller has checked the log's signature and the consistency with all it cosigned before.

    Raises:
        MalformedRequest: as :func:`cosigned_message`.
    """
    signature = sign(cosigned_message(checkpoint_text, witness, time_s))
    return Signature(witness.name, witness.key_id, time_s.to_bytes(_TIME_BYTES, "big") + signature)


def verify_cosignature(note: Note, witness: VerifierKey) -> int:
    """When the witness cosigned this checkpoint, in POSIX seconds; of several times the latest.

    0 is possible with ML-DSA-44 only: then the witness does not say that the tree was the largest.

    Raises:
        NotFound: the note has no signature of this name and key id.
        SignatureInvalid: it has one, and that does not verify.
        MalformedRequest: the text is no checkpoint, or the key no cosigner's.
    """
    _check_cosigner(witness)
    mine = signatures_by(note, witness)
    if not mine:
        raise NotFound(
            f"expected a cosignature by {witness.name} ({witness.key_id.hex()}), met none"
        )
    return max(_verified_time(note.text, witness, item.data) for item in mine)


def _verified_time(text: str, witness: VerifierKey, data: bytes) -> int:
    length = _TIME_BYTES + _SIGNATURE_BYTES[witness.algorithm]
    time_s = int.from_bytes(data[:_TIME_BYTES], "big")
    if len(data) != length or time_s > _TIME_MAX_S:
        raise SignatureInvalid(
            f"expected a time and a signature of {length} bytes by {witness.name}, met"
            f" {len(data)} bytes"
        )
    check_signature(witness, cosigned_message(text, witness, time_s), data[_TIME_BYTES:])
    return time_s
