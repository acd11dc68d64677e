"""Ledger entries: byte-equal documents, a chain that sha256sum recomputes, and openssl verifies."""

import hashlib
import json
import shutil
from itertools import pairwise
from pathlib import Path
from subprocess import run

from keystead import limits
from keystead.crypto.signatures import verify
from keystead.keys.framing.base import Framed
from keystead.keys.framing.ledger import GENESIS, LEDGER, AppendLedger, LedgerResult
from keystead.keys.model import Policy
from keystead.keys.purposes import Purpose
from keystead.keys.verify import SignedEntry, verify_ledger
from vectors.openssl import UNKNOWN, verifies
from vectors.reading import (
    Given,
    Hex,
    Strict,
    in_components,
    key_of,
    published,
    read,
    refusal,
    scene_of,
    shows,
    signatures_of,
)


class Asked(Strict, frozen=True):
    """``counter``: the durable state of the ledger's head before, null at its beginning."""

    algorithm: str
    entry: Hex
    counter: Hex | None = None


class Document(Strict, frozen=True):
    """``counter``: the state after."""

    sequence: int
    document: str
    head: Hex
    signatures: dict[str, Hex]
    counter: Hex


class Vector(Strict, frozen=True):
    shows: str
    given: Asked
    expected: Document


class RefusedGiven(Strict, frozen=True):
    """``length``: of an entry of zeros."""

    algorithm: str
    length: int


class Refused(Strict, frozen=True):
    shows: str
    failure: str
    given: RefusedGiven


class Signed(Strict, frozen=True):
    document: str
    signatures: dict[str, Hex]
    entry: Hex | None = None


class ForgedGiven(Strict, frozen=True):
    chain: tuple[Signed, ...]


class Forged(Strict, frozen=True):
    shows: str
    failure: str
    given: ForgedGiven


class Expected(Strict, frozen=True):
    chain: tuple[Vector, ...]
    refused: tuple[Refused, ...]
    forged: tuple[Forged, ...]


class File(Strict, frozen=True):
    about: str
    given: Given
    expected: Expected


FILE = read("ledger", File)
KEY = key_of(Purpose.LEDGER, FILE.given, Policy())
PUBLIC = published(KEY)
CHAIN = FILE.expected.chain


def frame(given: Asked) -> Framed:
    scene = scene_of(KEY, given.algorithm, given.counter)
    return LEDGER.frame(AppendLedger(entry=given.entry), scene)


def assert_foreign_tools_verify(
    folder: Path, algorithm: str, message: bytes, signatures: dict[str, Hex]
) -> None:
    assert set(signatures)
    for component, spki, signature in in_components(FILE.given, algorithm, signatures):
        if component in UNKNOWN:  # openssl 3.0 has no ML-DSA
            verify(component, spki, message, signature)
        else:
            assert verifies(folder, component, spki, message, signature)
            assert not verifies(folder, component, spki, message + b"\n", signature)


def sha256sum(data: bytes) -> str:
    """By coreutils where there are any, which is everywhere that CI runs."""
    program = shutil.which("sha256sum")
    if program is None:
        return hashlib.sha256(data).hexdigest()
    return run([program], input=data, capture_output=True, check=True).stdout.split()[0].decode()


@shows(CHAIN)
def test_the_document_is_byte_equal(vector: Vector) -> None:
    framed = frame(vector.given)
    assert framed.message.decode() == vector.expected.document
    assert framed.step is not None
    assert (framed.step.old, framed.step.new) == (vector.given.counter, vector.expected.counter)
    parts = in_components(FILE.given, vector.given.algorithm, vector.expected.signatures)
    result = framed.finish(tuple(signature for _, _, signature in parts))
    expected = vector.expected
    assert result == LedgerResult(
        sequence=expected.sequence,
        document=framed.message,
        head=expected.head,
        signatures=dict(expected.signatures),
    )


@shows(CHAIN)
def test_foreign_tools_verify_the_vector(vector: Vector, tmp_path: Path) -> None:
    message = vector.expected.document.encode()
    algorithm = vector.given.algorithm
    assert_foreign_tools_verify(tmp_path, algorithm, message, vector.expected.signatures)


@shows(CHAIN)
def test_foreign_tools_verify_what_custody_signs(vector: Vector, tmp_path: Path) -> None:
    framed = frame(vector.given)
    algorithm = vector.given.algorithm
    result = framed.finish(signatures_of(FILE.given, algorithm, framed.message))
    assert isinstance(result, LedgerResult)
    signatures = {name: Hex(value) for name, value in result.signatures.items()}
    message = vector.expected.document.encode()
    assert_foreign_tools_verify(tmp_path, algorithm, message, signatures)


def test_sha256sum_recomputes_the_chain() -> None:
    previous = "0" * 64
    for place, vector in enumerate(CHAIN, start=1):
        document = json.loads(vector.expected.document)
        assert document["previous"] == previous
        assert document["sequence"] == vector.expected.sequence == place
        assert document["entry_sha256"] == sha256sum(vector.given.entry)
        previous = sha256sum(vector.expected.document.encode())
        assert vector.expected.head.hex() == previous
    assert bytes(32) == GENESIS


def test_each_entry_builds_on_the_state_after_the_last() -> None:
    assert CHAIN[0].given.counter is None
    for last, following in pairwise(CHAIN):
        assert following.given.counter == last.expected.counter


def test_the_whole_chain_verifies() -> None:
    verified = verify_ledger(
        [
            SignedEntry(
                document=vector.expected.document.encode(),
                signatures=vector.expected.signatures,
                entry=vector.given.entry,
            )
            for vector in CHAIN
        ],
        PUBLIC,
    )
    assert (verified.head, verified.sequence) == (CHAIN[-1].expected.head, len(CHAIN))


@shows(FILE.expected.refused)
def test_refusals(vector: Refused) -> None:
    given = Asked(algorithm=vector.given.algorithm, entry=Hex(bytes(vector.given.length)))
    assert refusal(lambda: frame(given)) == vector.failure


def test_the_longest_entry_is_taken() -> None:
    longest = Asked(algorithm="ed25519", entry=Hex(bytes(limits.LEDGER_ENTRY_BYTES_MAX)))
    assert refusal(lambda: frame(longest)) == "(not refused)"


@shows(FILE.expected.forged)
def test_forgeries(vector: Forged) -> None:
    entries = [
        SignedEntry(
            document=signed.document.encode(), signatures=signed.signatures, entry=signed.entry
        )
        for signed in vector.given.chain
    ]
    assert refusal(lambda: verify_ledger(entries, PUBLIC)) == vector.failure
