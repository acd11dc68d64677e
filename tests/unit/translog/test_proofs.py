"""Proof files: what one holds, that it verifies, and that nothing in it can be changed."""

from __future__ import annotations

import base64

import pytest

from keystead.errors import KeysteadError, MalformedRequest, ProofInvalid, QuorumMissing
from keystead.limits import LOG_BODY_BYTES_MAX, MERKLE_PROOF_HASHES_MAX, PROOF_BYTES_MAX
from keystead.translog.cosignatures import cosign
from keystead.translog.entries import entry_of, leaf_hash
from keystead.translog.heads import Checkpoint
from keystead.translog.notes import Note, encode_note, sign_note
from keystead.translog.policy import PolicyWitness, policy_of
from keystead.translog.proofs import (
    Disclosure,
    Evidence,
    LogProof,
    evidence_of,
    parse_proof,
    verify_proof,
)
from keystead.translog.tree import inclusion_proof
from unit.translog.logs import LOG, LOG_SIGN, ORIGIN, STRANGER, W1, W1_SIGN, W3, Naive

SALT = bytes(range(16))
BODIES = [b'{"seq":%d,"op":"jwt.sign"}' % at for at in range(7)]
ENTRIES = [entry_of(SALT, body) for body in BODIES]
TREE = Naive([leaf_hash(entry) for entry in ENTRIES])
HEAD = Checkpoint(ORIGIN, 7, TREE.root(0, 7))
POLICY = policy_of(LOG, (PolicyWitness("W1", W1),), 1)
INDEX = 4


def note_of(checkpoint: Checkpoint) -> str:
    text = checkpoint.encode()
    return encode_note(
        Note(text, (sign_note(text, LOG, LOG_SIGN), cosign(text, W1, 5, W1_SIGN)))
    ).decode()


def proof_of(index: int, extra: bytes = b"") -> LogProof:
    return LogProof(index, inclusion_proof(index, 7, TREE.read), note_of(HEAD), extra)


EVIDENCE = Evidence(ENTRIES[INDEX], Disclosure(BODIES[INDEX], SALT))
PROOF = proof_of(INDEX, EVIDENCE.encode())
FILE = PROOF.encode()


def test_the_file_line_by_line() -> None:
    lines = FILE.decode().split("\n")
    assert lines[0] == "c2sp.org/tlog-proof@v1"
    assert lines[1] == "extra " + base64.b64encode(PROOF.extra).decode()
    assert lines[2] == "index 4"
    hashes = [base64.b64encode(item).decode() for item in PROOF.hashes]
    assert lines[3 : 3 + len(hashes)] == hashes
    assert "\n".join(lines[4 + len(hashes) :]) == note_of(HEAD)
    assert lines[3 + len(hashes)] == ""


def test_the_extra_data_is_json_that_others_can_read() -> None:
    entry, body, salt = (
        base64.b64encode(item).decode() for item in (ENTRIES[INDEX], BODIES[INDEX], SALT)
    )
    assert PROOF.extra.decode() == (
        f'{{"type":"keystead-evidence/v1","entry":"{entry}",'
        f'"disclosure":{{"body":"{body}","salt":"{salt}"}}}}'
    )


@pytest.mark.parametrize("index", range(7))
def test_every_entry_proves_with_and_without_its_record(index: int) -> None:
    for evidence in (
        Evidence(ENTRIES[index]),
        Evidence(ENTRIES[index], Disclosure(BODIES[index], SALT)),
    ):
        proof = parse_proof(proof_of(index, evidence.encode()).encode())
        assert evidence_of(proof) == evidence
        satisfied = verify_proof(proof, evidence_of(proof).entry, POLICY)
        assert satisfied.checkpoint == HEAD
        assert satisfied.witnesses == {"W1": 5}


def test_a_log_of_one_entry_has_a_proof_without_hashes() -> None:
    head = Checkpoint(ORIGIN, 1, TREE.leaves[0])
    proof = LogProof(0, (), note_of(head))
    assert parse_proof(proof.encode()) == proof
    assert b"\nindex 0\n\n" in proof.encode()
    assert verify_proof(proof, ENTRIES[0], POLICY).checkpoint == head


def test_any_flipped_bit_of_the_file_is_refused() -> None:
    for bit in range(len(FILE) * 8):
        bent = (int.from_bytes(FILE, "big") ^ 1 << bit).to_bytes(len(FILE), "big")
        with pytest.raises(KeysteadError):
            check_file(bent)
    check_file(FILE)


def check_file(data: bytes) -> None:
    proof = parse_proof(data)
    verify_proof(proof, evidence_of(proof).entry, POLICY)


def test_another_entry_or_place_is_refused() -> None:
    for index in range(7):
        if index != INDEX:
            with pytest.raises(ProofInvalid):
                verify_proof(PROOF, ENTRIES[index], POLICY)
            with pytest.raises(ProofInvalid):
                verify_proof(
                    LogProof(index, PROOF.hashes, PROOF.checkpoint), ENTRIES[INDEX], POLICY
                )
    with pytest.raises(ProofInvalid, match="no leaf 7 in the tree of 7"):
        verify_proof(LogProof(7, PROOF.hashes, PROOF.checkpoint), ENTRIES[INDEX], POLICY)


def test_another_log_or_too_few_witnesses_is_refused() -> None:
    with pytest.raises(KeysteadError, match="expected a note signed by"):
        verify_proof(PROOF, ENTRIES[INDEX], policy_of(STRANGER))
    with pytest.raises(QuorumMissing):
        verify_proof(PROOF, ENTRIES[INDEX], policy_of(LOG, (PolicyWitness("W3", W3),), 1))


@pytest.mark.parametrize(
    "shown", [Disclosure(BODIES[3], SALT), Disclosure(BODIES[INDEX], SALT[::-1])]
)
def test_a_record_that_is_not_the_entrys_is_refused(shown: Disclosure) -> None:
    lie = Evidence(ENTRIES[INDEX], shown)
    with pytest.raises(ProofInvalid, match="do not hash to the entry"):
        lie.encode()
    extra = EVIDENCE.encode().replace(base64.b64encode(BODIES[INDEX]), base64.b64encode(shown.body))
    extra = extra.replace(base64.b64encode(SALT), base64.b64encode(shown.salt))
    with pytest.raises(ProofInvalid, match="do not hash to the entry"):
        evidence_of(proof_of(INDEX, extra))


def test_the_salt_does_not_run_into_the_body() -> None:
    """SHA-256(salt || body) would hold as well with the border moved."""
    moved = Disclosure(SALT[-1:] + BODIES[INDEX], SALT[:-1])
    assert entry_of(moved.salt, moved.body) == ENTRIES[INDEX]
    with pytest.raises(MalformedRequest, match="a salt of 16 bytes"):
        Evidence(ENTRIES[INDEX], moved).check()


@pytest.mark.parametrize(
    "evidence",
    [
        Evidence(b""),
        Evidence(ENTRIES[0][:31]),
        Evidence(ENTRIES[0], Disclosure(b"", b"")),
        Evidence(ENTRIES[0], Disclosure(bytes(LOG_BODY_BYTES_MAX + 1), SALT)),
    ],
)
def test_evidence_is_bounded(evidence: Evidence) -> None:
    with pytest.raises(MalformedRequest):
        evidence.encode()


@pytest.mark.parametrize(
    "extra",
    [
        b"",
        b"age-v1.2.1-darwin-arm64.tar.gz",
        b"{}",
        EVIDENCE.encode() + b" ",
        EVIDENCE.encode().replace(b":", b": "),
        EVIDENCE.encode().replace(b"/v1", b"/v2"),
        EVIDENCE.encode()[:-1] + b',"more":1}',
        Evidence(ENTRIES[0]).encode()[:-1] + b',"disclosure":null}',
        Evidence(ENTRIES[0]).encode().replace(b"=", b""),
        b"\xff",
        b"[" * 100_000,
    ],
    ids=lambda extra: extra[:12].hex(),
)
def test_other_extra_data_is_no_evidence(extra: bytes) -> None:
    with pytest.raises(MalformedRequest):
        evidence_of(proof_of(INDEX, extra))


TEXT = FILE.decode()
EXTRA_LINE = TEXT.split("\n")[1] + "\n"
HASH = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "c2sp.org/tlog-proof@v1",
        TEXT.replace("@v1", "@v2", 1),
        " " + TEXT,
        TEXT.replace("\n", "\r\n"),
        TEXT[:-1],
        TEXT + "\n",
        TEXT.replace("index 4\n", ""),
        TEXT.replace("index 4\n", "index 04\n"),
        TEXT.replace("index 4\n", "index -4\n"),
        TEXT.replace("index 4\n", "index  4\n"),
        TEXT.replace("index 4\n", "index 4\nindex 4\n"),
        TEXT.replace("index 4\n", f"index {2**63 - 1}\n"),
        TEXT.replace("index 4\n", "index 4\n\n"),
        TEXT.replace("index 4\n", f"index 4\n{HASH[:-1]}\n"),
        TEXT.replace("index 4\n", f"index 4\n{base64.b64encode(bytes(31)).decode()}\n"),
        TEXT.replace("index 4\n", "index 4\n" + f"{HASH}\n" * MERKLE_PROOF_HASHES_MAX),
        TEXT.replace("index 4\n", "index 4\n" + f"{HASH}\n" * 10_000),
        TEXT.replace(EXTRA_LINE, EXTRA_LINE * 2),
        TEXT.replace(EXTRA_LINE, "extra \n"),
        TEXT.replace(EXTRA_LINE, "extra\n"),
        TEXT.replace(EXTRA_LINE, "extra !\n"),
        TEXT.replace(EXTRA_LINE, "\n"),
        TEXT.replace(EXTRA_LINE, "").replace("index 4\n", "index 4\n" + EXTRA_LINE),
        TEXT.replace(EXTRA_LINE, "extra " + "A" * PROOF_BYTES_MAX + "\n"),
    ],
    ids=range(25),
)
def test_other_texts_are_no_proofs(text: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_proof(text)


def test_as_many_hashes_as_there_may_be() -> None:
    hashes = (bytes(32),) * MERKLE_PROOF_HASHES_MAX
    for extra in (b"", b"x"):
        proof = LogProof(2**63 - 2, hashes, note_of(HEAD), extra)
        assert parse_proof(proof.encode()) == proof
        with pytest.raises(MalformedRequest):
            LogProof(0, (*hashes, bytes(32)), note_of(HEAD), extra).encode()


@pytest.mark.parametrize(
    "proof",
    [
        LogProof(-1, (), note_of(HEAD)),
        LogProof(0, (b"x",), note_of(HEAD)),
        LogProof(0, (), "no note"),
        LogProof(0, (), "\n" + note_of(HEAD)[1:].replace("\n\n", "\n")),
    ],
)
def test_what_would_not_read_back_is_not_written(proof: LogProof) -> None:
    with pytest.raises(MalformedRequest):
        proof.encode()


def test_the_longest_body_fits_its_file() -> None:
    body = bytes(LOG_BODY_BYTES_MAX)
    evidence = Evidence(entry_of(SALT, body), Disclosure(body, SALT))
    proof = proof_of(0, evidence.encode())
    assert evidence_of(parse_proof(proof.encode())) == evidence
