"""Ledger: sequence and previous hash are the vault's, and each entry follows the last."""

import hashlib
import json

import pytest

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.keys.framing.base import Framed
from keystead.keys.framing.ledger import GENESIS, LEDGER, AppendLedger, LedgerResult, entry_hash
from keystead.keys.purposes import Purpose
from unit.keys.sample import key_of, scene_of


def frame(entry: bytes, counter: bytes | None = None, algorithm: str = "ed25519") -> Framed:
    key = key_of(Purpose.LEDGER, algorithm)
    return LEDGER.frame(AppendLedger(entry=entry), scene_of(key, counter=counter))


def test_the_first_document_is_canonical_and_follows_the_genesis() -> None:
    framed = frame(b"entry")
    digest = hashlib.sha256(b"entry").hexdigest()
    assert framed.message.decode() == (
        f'{{"algorithms":["ed25519"],"entry_sha256":"{digest}","key":"kid-1","ledger":"k-1",'
        f'"previous":"{GENESIS.hex()}","sequence":1,"type":"keystead-ledger-v1"}}'
    )
    assert framed.finish((b"sig",)) == LedgerResult(
        sequence=1,
        document=framed.message,
        head=hashlib.sha256(framed.message).digest(),
        signatures={"ed25519": b"sig"},
    )


def test_entries_form_a_chain() -> None:
    counter, previous = None, GENESIS
    for sequence in range(1, 6):
        framed = frame(b"entry", counter)  # equal entries are different documents
        document = json.loads(framed.message)
        assert (document["sequence"], document["previous"]) == (sequence, previous.hex())
        assert framed.step is not None
        assert (framed.step.name, framed.step.old) == (LEDGER.counter_name(None), counter)
        counter, previous = framed.step.new, entry_hash(framed.message)
    assert previous != GENESIS


def test_a_dual_document_binds_both_algorithms() -> None:
    framed = frame(b"entry", algorithm="dual-ecdsa-p256-ml-dsa-65")
    assert json.loads(framed.message)["algorithms"] == ["ecdsa-p256-sha256", "ml-dsa-65"]
    result = framed.finish((b"a", b"b"))
    assert isinstance(result, LedgerResult)
    assert result.signatures == {"ecdsa-p256-sha256": b"a", "ml-dsa-65": b"b"}


def test_an_entry_is_bounded_and_not_empty() -> None:
    assert frame(b"a" * limits.LEDGER_ENTRY_BYTES_MAX).step is not None
    for entry in (b"", b"a" * (limits.LEDGER_ENTRY_BYTES_MAX + 1)):
        with pytest.raises(MalformedRequest, match=f"met {len(entry)}"):
            frame(entry)
