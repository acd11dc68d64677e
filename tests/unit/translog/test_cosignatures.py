"""Cosignatures: the messages by hand, the time in them, and what does not pass for one."""

from __future__ import annotations

import pytest

from keystead.errors import MalformedRequest, NotFound, SignatureInvalid
from keystead.translog.cosignatures import cosign, cosigned_message, verify_cosignature
from keystead.translog.notes import Note, Signature, VerifierKey
from unit.translog.logs import LOG, ORIGIN, W1, W1_SIGN, W2, W2_SIGN, W3, Sign, head, signed

TIME_S = 1_679_315_147
CHECKPOINT = head(7)
TEXT = CHECKPOINT.encode()
WITNESSES = pytest.mark.parametrize(("key", "sign"), [(W1, W1_SIGN), (W2, W2_SIGN)])


def test_the_messages_byte_by_byte() -> None:
    assert (
        cosigned_message(TEXT, W1, TIME_S) == b"cosignature/v1\ntime 1679315147\n" + TEXT.encode()
    )
    name, origin = W2.name.encode(), ORIGIN.encode()
    assert cosigned_message(TEXT, W2, TIME_S) == (
        b"subtree/v1\n\0"
        + bytes([len(name)])
        + name
        + TIME_S.to_bytes(8, "big")
        + bytes([len(origin)])
        + origin
        + bytes(8)
        + (7).to_bytes(8, "big")
        + CHECKPOINT.root
    )


@WITNESSES
@pytest.mark.parametrize("time_s", [0, TIME_S, 2**63 - 1])
def test_what_was_cosigned_verifies_and_says_when(
    key: VerifierKey, sign: Sign, time_s: int
) -> None:
    signature = cosign(TEXT, key, time_s, sign)
    assert signature.data[:8] == time_s.to_bytes(8, "big")
    note = signed(CHECKPOINT)
    note = Note(note.text, (*note.signatures, signature))
    assert verify_cosignature(note, key) == time_s


@WITNESSES
def test_of_several_times_the_latest_counts(key: VerifierKey, sign: Sign) -> None:
    times = (TIME_S, TIME_S + 60, TIME_S - 60)
    note = Note(TEXT, tuple(cosign(TEXT, key, time_s, sign) for time_s in times))
    assert verify_cosignature(note, key) == TIME_S + 60


@WITNESSES
def test_a_changed_cosignature_is_refused(key: VerifierKey, sign: Sign) -> None:
    right = cosign(TEXT, key, TIME_S, sign)
    for at in (0, 7, 8, 40, len(right.data) - 1):
        bent_data = bytearray(right.data)
        bent_data[at] ^= 1
        bent = Signature(key.name, key.key_id, bytes(bent_data))
        for signatures in ((bent,), (right, bent)):
            with pytest.raises(SignatureInvalid):
                verify_cosignature(Note(TEXT, signatures), key)
    for data in (b"x", right.data[:-1], right.data + b"\0", right.data[8:]):
        with pytest.raises(SignatureInvalid, match="expected a time and a signature"):
            verify_cosignature(Note(TEXT, (Signature(key.name, key.key_id, data),)), key)
    other = head(8).encode()
    with pytest.raises(SignatureInvalid, match="does not verify"):
        verify_cosignature(Note(other, (right,)), key)


def test_only_the_witness_itself_counts() -> None:
    note = Note(TEXT, (cosign(TEXT, W1, TIME_S, W1_SIGN),))
    with pytest.raises(NotFound, match=r"w3\.example"):
        verify_cosignature(note, W3)
    with pytest.raises(NotFound):
        verify_cosignature(signed(CHECKPOINT), W1)


def test_ed25519_covers_extension_lines_and_mldsa_does_not() -> None:
    more = head(7, "extension").encode()
    with pytest.raises(SignatureInvalid):
        verify_cosignature(Note(more, (cosign(TEXT, W1, TIME_S, W1_SIGN),)), W1)
    assert verify_cosignature(Note(more, (cosign(TEXT, W2, TIME_S, W2_SIGN),)), W2) == TIME_S


@WITNESSES
@pytest.mark.parametrize(
    ("text", "time_s"), [("no checkpoint\n", TIME_S), (TEXT, -1), (TEXT, 2**63), ("", 0)]
)
def test_a_witness_signs_nothing_else(key: VerifierKey, sign: Sign, text: str, time_s: int) -> None:
    with pytest.raises(MalformedRequest):
        cosign(text, key, time_s, sign)


def test_a_logs_key_cosigns_nothing() -> None:
    with pytest.raises(MalformedRequest, match="0x04 or 0x06"):
        cosign(TEXT, LOG, TIME_S, W1_SIGN)
    with pytest.raises(MalformedRequest, match="0x04 or 0x06"):
        verify_cosignature(signed(CHECKPOINT), LOG)


def test_a_time_past_its_bound_is_refused() -> None:
    data = (2**63).to_bytes(8, "big") + bytes(64)
    with pytest.raises(SignatureInvalid):
        verify_cosignature(Note(TEXT, (Signature(W1.name, W1.key_id, data),)), W1)
