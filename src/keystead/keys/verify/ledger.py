"""Ledgers: verify a run of entries, each signed and chained to the one before it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec

from keystead.errors import MalformedRequest, SignatureInvalid, SignedByCompromised
from keystead.keys.framing.ledger import GENESIS, entry_hash
from keystead.keys.purposes import Purpose
from keystead.keys.verify.base import (
    Hex256,
    PublicKey,
    Verified,
    check_named,
    check_purpose,
    check_signatures,
    check_state,
    one_is_enough,
    parse_document,
    version_of_kid,
)

__all__ = ["SignedEntry", "VerifiedLedger", "verify_ledger"]


class SignedEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One append's ``document`` and ``signatures``; ``entry``: the bytes entered, if at hand."""

    document: bytes
    signatures: Mapping[str, bytes]
    entry: bytes | None = None


class VerifiedLedger(msgspec.Struct, frozen=True, kw_only=True):
    """``head`` and ``sequence``: of the last entry; give them as ``previous`` to go on from there.

    ``signers``: who signed, once a version, in order of first use, each with the components whose
    signatures hold in all of its entries.
    """

    ledger: str
    head: bytes
    sequence: int
    entries: int
    signers: tuple[Verified, ...]


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    algorithms: tuple[str, ...]
    entry_sha256: Hex256
    key: str
    ledger: str
    previous: Hex256
    sequence: Annotated[int, msgspec.Meta(ge=1)]
    type: Literal["keystead-ledger-v1"]


def verify_ledger(
    entries: Iterable[SignedEntry],
    key: PublicKey,
    *,
    previous: bytes = GENESIS,
    sequence: int = 0,
    now_ms: int | None = None,
) -> VerifiedLedger:
    """Verify entries in order, from after the head ``previous`` with number ``sequence``.

    The defaults stand for the beginning of a ledger. ``now_ms`` (Unix milliseconds): until a rule
    of the key for a dual version is over, one good signature an entry is enough; without it all are
    due. An error names the place of the first entry that does not hold, counted from 1 in
    ``entries``, and the sequence that was expected there.

    Raises:
        SignatureInvalid: a signature, hash, sequence or link of the chain does not hold.
        SignedByCompromised: a right signature, but by a version that is compromised.
        PurposeMismatch: not a ledger key.
        MalformedRequest: a document does not parse.
    """
    check_purpose(key, Purpose.LEDGER)
    head, count, ledger = previous, 0, key.id
    signers: dict[int, Verified] = {}
    for count, signed in enumerate(entries, start=1):
        try:
            document = parse_document(signed.document, _Document)
            _check_link(document, head, sequence + count, ledger)
            signer = _check_entry(document, signed, key, now_ms)
            signers[signer.version] = _in_all(signer, signers.get(signer.version))
        except (SignatureInvalid, MalformedRequest) as exc:
            raise _located(exc, count, sequence + count) from exc
        head, ledger = entry_hash(signed.document), document.ledger
    return VerifiedLedger(
        ledger=ledger,
        head=head,
        sequence=sequence + count,
        entries=count,
        signers=tuple(signers.values()),
    )


def _check_link(document: _Document, head: bytes, sequence: int, ledger: str) -> None:
    if ledger and document.ledger != ledger:
        raise SignatureInvalid(f"it is of ledger {document.ledger[:64]!r}, not of {ledger!r}")
    if document.sequence != sequence:
        raise SignatureInvalid(f"expected sequence {sequence}, met {document.sequence}")
    if document.previous != head.hex():
        raise SignatureInvalid(
            f"it follows {document.previous[:16]}..., the entry before it is {head.hex()[:16]}...",
            hint="The entry before it was altered, or entries were left out or exchanged",
        )


def _check_entry(
    document: _Document, signed: SignedEntry, key: PublicKey, now_ms: int | None
) -> Verified:
    if signed.entry is not None:
        digest = hashlib.sha256(signed.entry).hexdigest()
        if digest != document.entry_sha256:
            raise SignatureInvalid("the entered bytes are not those whose hash was signed")
    version = version_of_kid(key, document.key)
    one = one_is_enough(key, version, now_ms)
    check_named(version, document.algorithms, signed.signatures, one=one)
    held = check_signatures(version, signed.document, signed.signatures, one=one)
    return check_state(key, version, held)


def _in_all(signer: Verified, before: Verified | None) -> Verified:
    """The signer with the components that hold here and held in its entries before."""
    if before is None:
        return signer
    held = tuple(name for name in before.components if name in signer.components)
    return msgspec.structs.replace(before, components=held)


def _located(
    exc: SignatureInvalid | MalformedRequest, place: int, sequence: int
) -> SignatureInvalid | MalformedRequest:
    located = type(exc)(f"entry {place} (sequence {sequence}): {exc.message}", hint=exc.hint)
    if isinstance(exc, SignedByCompromised) and isinstance(located, SignedByCompromised):
        located.version, located.compromised_epoch = exc.version, exc.compromised_epoch
    return located
