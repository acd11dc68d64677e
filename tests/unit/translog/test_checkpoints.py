"""Checkpoints: their three lines, and whose they are."""

from __future__ import annotations

import base64

import pytest

from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.limits import (
    CHECKPOINT_EXTENSIONS_MAX,
    LOG_SIZE_MAX,
    NOTE_BYTES_MAX,
    NOTE_KEY_NAME_BYTES_MAX,
)
from keystead.translog.checkpoints import (
    Checkpoint,
    check_log_signature,
    open_checkpoint,
    parse_checkpoint,
)
from keystead.translog.cosignatures import cosign
from keystead.translog.notes import ED25519_COSIGNATURE, Note, encode_note, parse_note, sign_note
from unit.translog.logs import (
    LOG,
    ORIGIN,
    STRANGER,
    W1,
    W1_SIGN,
    ed25519,
    head,
    mldsa44,
    signed,
)

ROOT = base64.b64encode(bytes(range(32))).decode()
PQ_LOG, PQ_LOG_SIGN = mldsa44(ORIGIN, 8)


@pytest.mark.parametrize(
    ("text", "checkpoint"),
    [
        (f"o\n0\n{ROOT}\n", Checkpoint("o", 0, bytes(range(32)))),
        (f"a b+c \u20ac\n1\n{ROOT}\n", Checkpoint("a b+c \u20ac", 1, bytes(range(32)))),
        (f"o\n7\n{ROOT}\nx\n y \n", Checkpoint("o", 7, bytes(range(32)), ("x", " y "))),
        (f"o\n{LOG_SIZE_MAX}\n{ROOT}\n", Checkpoint("o", LOG_SIZE_MAX, bytes(range(32)))),
    ],
)
def test_checkpoints_both_ways(text: str, checkpoint: Checkpoint) -> None:
    assert parse_checkpoint(text) == checkpoint
    assert checkpoint.encode() == text


MANY = "x\n" * CHECKPOINT_EXTENSIONS_MAX


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "o\n7\n",
        f"o\n7\n{ROOT}",
        f"o\n7\n{ROOT}\n\n",
        f"o\n7\n{ROOT}\n\nx\n",
        f"\n7\n{ROOT}\n",
        f"o\n\n{ROOT}\n",
        f"o\n07\n{ROOT}\n",
        f"o\n00\n{ROOT}\n",
        f"o\n+7\n{ROOT}\n",
        f"o\n-7\n{ROOT}\n",
        f"o\n 7\n{ROOT}\n",
        f"o\n7_0\n{ROOT}\n",
        f"o\n\u0667\n{ROOT}\n",
        f"o\n\u00b2\n{ROOT}\n",
        f"o\n{LOG_SIZE_MAX + 1}\n{ROOT}\n",
        f"o\n{'9' * 5000}\n{ROOT}\n",
        f"o\n7\n{ROOT[:-1]}\n",
        f"o\n7\n{ROOT[:-2]}9=\n",
        f"o\n7\n{ROOT}=\n",
        f"o\n7\n {ROOT}\n",
        f"o\n7\n{ROOT.replace('A', '-')}\n",
        f"o\n7\n{base64.b64encode(bytes(31)).decode()}\n",
        f"o\n7\n{base64.b64encode(bytes(33)).decode()}\n",
        f"o\r\n7\r\n{ROOT}\r\n",
        f"o\n7\n{ROOT}\nx\x01\n",
        f"{'o' * (NOTE_KEY_NAME_BYTES_MAX + 1)}\n7\n{ROOT}\n",
        f"o\n7\n{ROOT}\n{MANY}x\n",
        f"o\n7\n{ROOT}\n{'x' * NOTE_BYTES_MAX}\n",
    ],
)
def test_other_texts_are_no_checkpoints(text: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_checkpoint(text)


def test_as_many_extensions_as_there_may_be() -> None:
    assert len(parse_checkpoint(f"o\n7\n{ROOT}\n{MANY}").extensions) == CHECKPOINT_EXTENSIONS_MAX


@pytest.mark.parametrize(
    "checkpoint",
    [
        Checkpoint("", 7, bytes(32)),
        Checkpoint("a\nb", 7, bytes(32)),
        Checkpoint("o", -7, bytes(32)),
        Checkpoint("o", 7, bytes(31)),
        Checkpoint("o", 7, bytes(32), ("",)),
        Checkpoint("o", 7, bytes(32), ("a\nb",)),
    ],
)
def test_what_would_not_read_back_is_not_written(checkpoint: Checkpoint) -> None:
    with pytest.raises(MalformedRequest):
        checkpoint.encode()


def test_a_signed_checkpoint_opens_with_its_logs_key() -> None:
    checkpoint = head(7, "extension")
    note = signed(checkpoint)
    assert open_checkpoint(encode_note(note), LOG) == (checkpoint, note)


def test_a_checkpoint_is_its_logs_own() -> None:
    data = encode_note(signed(head()))
    with pytest.raises(SignatureInvalid, match="expected a note signed by"):
        open_checkpoint(data, STRANGER)
    other, other_sign = ed25519("other.example", 6)
    with pytest.raises(SignatureInvalid, match=r"expected a checkpoint of other\.example"):
        open_checkpoint(data, other)
    # The other log signs under its own name what it says is this log's.
    text = head().encode()
    lie = Note(text, (sign_note(text, other, other_sign),))
    for key in (LOG, other):
        with pytest.raises(SignatureInvalid):
            check_log_signature(lie, key)


def test_what_is_no_checkpoint_is_not_signed_for() -> None:
    with pytest.raises(MalformedRequest):
        open_checkpoint("text\n\n\u2014 a AAAAAAAA\n", LOG)


def test_any_flipped_bit_of_a_signed_checkpoint_is_refused() -> None:
    data = encode_note(signed(head(7, "x")))
    for bit in range(len(data) * 8):
        bent = (int.from_bytes(data, "big") ^ 1 << bit).to_bytes(len(data), "big")
        with pytest.raises((MalformedRequest, SignatureInvalid)):
            open_checkpoint(bent, LOG)


def test_a_log_may_sign_with_mldsa_but_not_for_extensions() -> None:
    """Its message has no extension lines, so anybody could add them."""
    text = head().encode()
    note = Note(text, (cosign(text, PQ_LOG, 0, PQ_LOG_SIGN),))
    assert check_log_signature(note, PQ_LOG) == head()
    more = Note(head(7, "x").encode(), note.signatures)
    with pytest.raises(SignatureInvalid, match="extension lines"):
        check_log_signature(more, PQ_LOG)
    with pytest.raises(SignatureInvalid, match="signed by"):
        check_log_signature(signed(head()), PQ_LOG)
    with pytest.raises(SignatureInvalid, match="does not verify"):
        check_log_signature(Note(head(6).encode(), note.signatures), PQ_LOG)


def test_a_witness_is_no_log() -> None:
    text = head().encode()
    note = parse_note(encode_note(Note(text, (cosign(text, W1, 5, W1_SIGN),))))
    with pytest.raises(SignatureInvalid):
        check_log_signature(note, LOG)
    key, sign = ed25519(ORIGIN, 2, ED25519_COSIGNATURE)
    with pytest.raises(MalformedRequest, match="a log's key"):
        check_log_signature(Note(text, (cosign(text, key, 5, sign),)), key)
