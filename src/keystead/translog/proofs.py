"""Proof files: that an entry is in a log whose tree head others have seen (C2SP tlog-proof).

tlog-proof leaves the leaf to the application and gives it one line of opaque extra data. Keystead
puts an :class:`Evidence` there: the entry, and with it the record's body and salt where they are
disclosed. So one file is enough, and a foreign verifier skips the line. Nothing in it is trusted
by itself: the entry must hash to the proven leaf, the body and salt to the entry.
"""

from __future__ import annotations

import msgspec

from keystead.encoding import DECODE_ERRORS
from keystead.errors import MalformedRequest, ProofInvalid
from keystead.limits import (
    LOG_BODY_BYTES_MAX,
    LOG_SIZE_MAX,
    MERKLE_PROOF_HASHES_MAX,
    PROOF_BYTES_MAX,
)
from keystead.translog.entries import ENTRY_BYTES, SALT_BYTES, entry_of, leaf_hash
from keystead.translog.heads import parse_checkpoint
from keystead.translog.lines import (
    b64_decode,
    b64_encode,
    decimal,
    decode_text,
    hash_line,
    quoted,
)
from keystead.translog.notes import parse_note
from keystead.translog.policy import Satisfied, WitnessPolicy
from keystead.translog.tree import verify_inclusion

__all__ = [
    "Disclosure",
    "Evidence",
    "LogProof",
    "evidence_of",
    "parse_proof",
    "verify_proof",
]

_HEADER = "c2sp.org/tlog-proof@v1"
_EXTRA = "extra "
_INDEX = "index "
_HEAD_LINES = 3
"""Before the hashes: header, extra, index."""


class Disclosure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record laid open: the exact bytes of its body, and its salt of 16 bytes."""

    body: bytes
    salt: bytes


class Evidence(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
    tag_field="type",
    tag="keystead-evidence/v1",
):
    """Keystead's extra data: what the proven leaf is the hash of; as JSON, bytes in base64."""

    entry: bytes
    disclosure: Disclosure | None = None

    def encode(self) -> bytes:
        """The extra data of a proof.

        Raises:
            MalformedRequest: lengths out of bounds.
            ProofInvalid: the body and salt are not the entry's.
        """
        self.check()
        return msgspec.json.encode(self)

    def check(self) -> None:
        """Hold the parts against their bounds and against each other.

        Raises:
            MalformedRequest: lengths out of bounds.
            ProofInvalid: the body and salt are not the entry's.
        """
        if len(self.entry) != ENTRY_BYTES:
            raise MalformedRequest(
                f"expected an entry of {ENTRY_BYTES} bytes, met {len(self.entry)}"
            )
        shown = self.disclosure
        if shown is None:
            return
        if len(shown.salt) != SALT_BYTES or len(shown.body) > LOG_BODY_BYTES_MAX:
            raise MalformedRequest(
                f"expected a salt of {SALT_BYTES} bytes and a body of at most"
                f" {LOG_BODY_BYTES_MAX}, met {len(shown.salt)} and {len(shown.body)}"
            )
        if entry_of(shown.salt, shown.body) != self.entry:
            raise ProofInvalid(
                "the disclosed body and salt do not hash to the entry:"
                f" expected {self.entry.hex()}",
                hint="the record shown is not the one that was logged",
            )


_DECODER = msgspec.json.Decoder(Evidence)


class LogProof(msgspec.Struct, frozen=True):
    """A proof file: ``hashes`` from the leaf's sibling up, ``checkpoint`` the whole signed note."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: str
    extra: bytes = b""

    def encode(self) -> bytes:
        """The file.

        Raises:
            MalformedRequest: it would not read back.
        """
        lines = [_HEADER]
        if self.extra:
            lines.append(_EXTRA + b64_encode(self.extra))
        lines.append(f"{_INDEX}{self.index}")
        lines += map(b64_encode, self.hashes)
        data = ("\n".join(lines) + "\n\n" + self.checkpoint).encode()
        parse_proof(data)
        return data


def parse_proof(data: bytes | str) -> LogProof:
    """A proof from its file; nothing in it is verified.

    Raises:
        MalformedRequest: too long, or not of tlog-proof's format.
    """
    text = decode_text(data, PROOF_BYTES_MAX, "a proof file")
    head, gap, checkpoint = text.partition("\n\n")
    lines = head.split("\n", MERKLE_PROOF_HASHES_MAX + _HEAD_LINES)
    if not gap or lines.pop(0) != _HEADER:
        raise MalformedRequest(
            f"expected a proof file that begins with {_HEADER}, met {quoted(text)}"
        )
    parse_checkpoint(parse_note(checkpoint).text)
    extra = b""
    if lines and lines[0].startswith(_EXTRA):
        extra = b64_decode(lines.pop(0).removeprefix(_EXTRA), "a proof's extra data")
        if not extra:
            raise MalformedRequest("expected no extra line in a proof without extra data")
    if not lines or not lines[0].startswith(_INDEX):
        raise MalformedRequest(
            f"expected an index line in a proof, met {quoted(''.join(lines[:1]))}"
        )
    index = decimal(lines.pop(0).removeprefix(_INDEX), LOG_SIZE_MAX - 1, "a proof's index")
    if len(lines) > MERKLE_PROOF_HASHES_MAX:
        raise MalformedRequest(f"expected at most {MERKLE_PROOF_HASHES_MAX} hashes in a proof")
    hashes = tuple(hash_line(line, "a hash of a proof") for line in lines)
    return LogProof(index, hashes, checkpoint, extra)


def evidence_of(proof: LogProof) -> Evidence:
    """Keystead's extra data in a proof, its body and salt held against its entry.

    It says nothing of the log until :func:`verify_proof` has taken the entry.

    Raises:
        MalformedRequest: the proof has other extra data, or none.
        ProofInvalid: the body and salt are not the entry's.
    """
    try:
        evidence = _DECODER.decode(proof.extra)
    except DECODE_ERRORS as exc:
        raise MalformedRequest(
            "expected the entry of a Keystead log in the proof's extra line",
            hint="for a proof by another tool, give the entry or the record itself",
        ) from exc
    if msgspec.json.encode(evidence) != proof.extra:
        raise MalformedRequest("expected the extra line of a proof as Keystead writes it")
    evidence.check()
    return evidence


def verify_proof(proof: LogProof, entry: bytes, policy: WitnessPolicy) -> Satisfied:
    """Check that ``entry`` is in a log of the policy, under a checkpoint that its quorum has seen.

    Raises:
        MalformedRequest: the proof's checkpoint does not parse.
        SignatureInvalid: no log of the policy signed it, or a known signature is wrong.
        QuorumMissing: too few witnesses have cosigned.
        ProofInvalid: the entry is not at the proof's index under that checkpoint.
    """
    satisfied = policy.check(parse_note(proof.checkpoint))
    head = satisfied.checkpoint
    verify_inclusion(leaf_hash(entry), proof.index, head.size, proof.hashes, head.root)
    return satisfied
