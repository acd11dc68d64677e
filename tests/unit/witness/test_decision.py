"""What a witness answers, as the table of C2SP tlog-witness has it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.translog.heads import Checkpoint
from keystead.translog.lines import b64_encode
from keystead.translog.notes import parse_note
from keystead.witness.decision import (
    Conflict,
    Cosign,
    Refuse,
    Submission,
    admit,
    decide,
    parse_body,
)
from keystead.witness.state import Stored
from unit.witness.logs import Log, body

LOG = Log()
FORK = Log(history="b")
ROTATED = Log(seed=2)
STRANGER = Log("log.example/other", seed=3)
LOGS = {LOG.key.name: [LOG.key, ROTATED.key]}
HASH = b"\x01" * 32


def judged(stored_size: int | None, request: bytes) -> str:
    """The answer to a request, by a witness that stands at ``stored_size`` of LOG."""
    admitted = admit(request, LOGS)
    if isinstance(admitted, Refuse):
        return str(admitted.status)
    stored = None
    if stored_size is not None:
        stored = Stored(stored_size, LOG.checkpoint(stored_size).root, b"")
    decision = decide(stored, admitted)
    if isinstance(decision, Cosign):
        return "cosign"
    if isinstance(decision, Conflict):
        return f"conflict at {decision.size}"
    return str(decision.status)


def wrong_root(size: int) -> bytes:
    return LOG.sign(Checkpoint(LOG.key.name, size, HASH))


def broken_signature(note: bytes) -> bytes:
    """The log's name and key id before another signature."""
    text, _, _ = note.partition("\n— ".encode())
    other = FORK.note(9).rpartition(b"\n\n")[2]
    return text + b"\n" + other


@pytest.mark.parametrize(
    ("stored", "request_body", "answer"),
    [
        # It grew, or stayed.
        (None, LOG.submission(0, 5), "cosign"),
        (None, LOG.submission(0, 0), "cosign"),
        (0, LOG.submission(0, 7), "cosign"),
        (5, LOG.submission(5, 5), "cosign"),
        (5, LOG.submission(5, 6), "cosign"),
        (8, LOG.submission(8, 21), "cosign"),
        (5, body(5, LOG.proof(5, 9), LOG.note(9, "an extension")), "cosign"),
        (5, ROTATED.submission(5, 9), "cosign"),
        # The witness stands elsewhere.
        (5, LOG.submission(0, 9), "conflict at 5"),
        (5, LOG.submission(4, 9), "conflict at 5"),
        (5, LOG.submission(6, 9), "conflict at 5"),
        (None, LOG.submission(3, 9), "conflict at 0"),
        (5, LOG.submission(3, 3), "conflict at 5"),
        # The log went another way.
        (5, FORK.submission(5, 5), "422"),
        (5, FORK.submission(5, 9), "422"),
        (5, body(5, LOG.proof(5, 9), wrong_root(9)), "422"),
        (5, body(5, (), LOG.note(9)), "422"),
        (5, body(5, LOG.proof(5, 9)[:-1], LOG.note(9)), "422"),
        (5, body(5, (*LOG.proof(5, 9), HASH), LOG.note(9)), "422"),
        (5, body(5, LOG.proof(5, 8), LOG.note(9)), "422"),
        (5, body(5, (HASH,), LOG.note(5)), "422"),
        (None, body(0, (HASH,), LOG.note(5)), "422"),
        (None, body(0, (), wrong_root(0)), "422"),
        # Who signed it.
        (None, STRANGER.submission(0, 5), "404"),
        (None, Log(seed=4).submission(0, 5), "403"),
        (None, body(0, (), broken_signature(LOG.note(5))), "403"),
        # What no client sends.
        (5, LOG.submission(5, 9).replace(b"old 5", b"old 10"), "400"),
        (5, LOG.submission(5, 9).replace(b"old 5", b"old 05"), "400"),
        (5, LOG.submission(5, 9).replace(b"old 5", b"old -5"), "400"),
        (5, LOG.submission(5, 9).replace(b"old 5", b"old  5"), "400"),
        (5, LOG.submission(5, 9).replace(b"old 5", b"Old 5"), "400"),
        (5, LOG.submission(5, 9).replace(b"old 5\n", b"old 5\r\n"), "400"),
        (5, LOG.submission(5, 9).replace(b"old 5\n", b""), "400"),
        (5, body(2**63, (), LOG.note(9)), "400"),
        (5, body(5, (b"\x01" * 31,), LOG.note(9)), "400"),
        (5, body(5, (HASH,) * 64, LOG.note(9)), "400"),
        (5, body(5, (), LOG.checkpoint(9).encode().encode()), "400"),
        (5, body(5, (), b"x\n\n" + LOG.note(9).partition(b"\n\n")[2]), "400"),
        (5, b"", "400"),
        (5, b"\xff\n\n" + LOG.note(5), "400"),
        (5, LOG.submission(5, 9) + b"x" * limits.WITNESS_BODY_BYTES_MAX, "400"),
    ],
)
def test_the_table(stored: int | None, request_body: bytes, answer: str) -> None:
    assert judged(stored, request_body) == answer


def test_the_first_failing_check_answers() -> None:
    """A wrong old size before a wrong proof; a bad signature before a wrong old size."""
    assert judged(5, body(4, (HASH,), FORK.note(9))) == "conflict at 5"
    assert judged(5, body(4, (), broken_signature(LOG.note(9)))) == "403"
    assert judged(5, body(10, (), broken_signature(LOG.note(9)))) == "403"


def test_as_many_proof_lines_as_the_specification_allows() -> None:
    assert judged(5, body(5, (HASH,) * 63, LOG.note(9))) == "422"


def test_signatures_of_others_are_not_kept() -> None:
    note = LOG.note(9)
    line = STRANGER.note(9).rpartition(b"\n\n")[2]
    admitted = admit(body(0, (), note + line), LOGS)
    assert isinstance(admitted, Submission)
    assert admitted.note == parse_note(note)


def test_a_log_with_several_keys_may_sign_with_all() -> None:
    line = ROTATED.note(9).rpartition(b"\n\n")[2]
    admitted = admit(body(0, (), LOG.note(9) + line), LOGS)
    assert isinstance(admitted, Submission)
    assert len(admitted.note.signatures) == 2
    bad = broken_signature(LOG.note(9)).rpartition(b"\n\n")[2]
    assert judged(None, body(0, (), ROTATED.note(9) + bad)) == "403"


def test_the_example_of_the_specification_parses() -> None:
    """Sizes and hashes of the example request in tlog-witness; its log's key is not given."""
    root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
    hashes = (
        "PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=",
        "jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=",
        "5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=",
        "/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=",
    )
    note = f"example.com/behind-the-sofa\n20852163\n{root}\n\n— example.com/behind-the-sofa "
    note += b64_encode(bytes(68)) + "\n"
    request = "\n".join(["old 20852014", *hashes, "", note]).encode()
    old, proof, parsed = parse_body(request)
    assert (old, len(proof)) == (20852014, 4)
    assert parsed.text.startswith("example.com/behind-the-sofa\n20852163\n")


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_as_malformed(data: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse_body(data)


@given(st.data())
def test_a_changed_submission_is_refused_or_says_the_same(data: st.DataObject) -> None:
    """Whatever is changed in a good request: nothing but the log's own checkpoint is cosigned."""
    good = bytearray(LOG.submission(5, 9))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(good) - 1))
        good[place : place + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    admitted = admit(bytes(good), LOGS)
    if isinstance(admitted, Submission):
        assert admitted.note == parse_note(LOG.note(9))
        decision = decide(Stored(5, LOG.checkpoint(5).root, b""), admitted)
        assert isinstance(decision, Cosign) == (admitted.proof == LOG.proof(5, 9))


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40), st.booleans())
def test_only_what_continues_is_cosigned(stored: int, old: int, new: int, fork: bool) -> None:  # noqa: FBT001  Hypothesis gives it by place
    if old > new:
        return
    log = FORK if fork else LOG
    answer = judged(stored, log.submission(old, new))
    assert (answer == "cosign") == (old == stored and (not fork or stored == 0))
