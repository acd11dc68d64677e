"""Ledger entries: sequence and previous hash are the vault's, committed with the use's record."""

from __future__ import annotations

import hashlib

import msgspec

from keystead import limits
from keystead.encoding import canonical_json
from keystead.errors import MalformedRequest
from keystead.keys.framing.base import CounterStep, Facts, Framed, Framing, Result, Scene

__all__ = ["GENESIS", "LEDGER", "AppendLedger", "LedgerResult", "entry_hash"]

GENESIS = bytes(32)
"""Previous hash of the first entry of a ledger."""


class AppendLedger(Facts, frozen=True):
    """``entry``: what is entered; the ledger holds its SHA-256, the caller keeps the bytes."""

    entry: bytes


class LedgerResult(Result, frozen=True):
    """``document``: the exact bytes that are signed; ``head``: their hash, the next's previous."""

    sequence: int
    document: bytes
    head: bytes
    signatures: dict[str, bytes]


class _Head(msgspec.Struct, frozen=True, array_like=True):
    sequence: int
    head: bytes


def entry_hash(document: bytes) -> bytes:
    """What the next entry names as its previous: SHA-256 of the signed document."""
    return hashlib.sha256(document).digest()


def _frame(facts: AppendLedger, scene: Scene) -> Framed:
    size = len(facts.entry)
    if not 0 < size <= limits.LEDGER_ENTRY_BYTES_MAX:
        raise MalformedRequest(
            f"expected an entry of 1 to {limits.LEDGER_ENTRY_BYTES_MAX} bytes, met {size}",
            hint="Enter a bigger document by its hash",
        )
    last = msgspec.msgpack.decode(scene.counter, type=_Head) if scene.counter else _Head(0, GENESIS)
    components = scene.algorithm.components
    document = canonical_json(
        {
            "algorithms": list(components),
            "entry_sha256": hashlib.sha256(facts.entry).hexdigest(),
            "key": scene.version.kid,
            "ledger": scene.key.id,
            "previous": last.head.hex(),
            "sequence": last.sequence + 1,
            "type": "keystead-ledger-v1",
        }
    )
    new = _Head(last.sequence + 1, entry_hash(document))

    def finish(signatures: tuple[bytes, ...]) -> LedgerResult:
        return LedgerResult(
            sequence=new.sequence,
            document=document,
            head=new.head,
            signatures=dict(zip(components, signatures, strict=True)),
        )

    return Framed(
        message=document,
        finish=finish,
        step=CounterStep("ledger", scene.counter, msgspec.msgpack.encode(new)),
    )


def _counter_name(_facts: AppendLedger) -> str:
    return "ledger"


LEDGER = Framing(facts=AppendLedger, result=LedgerResult, frame=_frame, counter_name=_counter_name)
