"""Signed notes and verifier keys: what reads back, what verifies, what is refused."""

from __future__ import annotations

import pytest

from keystead.errors import MalformedRequest, SignatureInvalid
from keystead.limits import NOTE_BYTES_MAX, NOTE_KEY_NAME_BYTES_MAX, NOTE_SIGNATURES_MAX
from keystead.translog.lines import b64_encode
from keystead.translog.notes import (
    ED25519,
    ED25519_COSIGNATURE,
    Note,
    Signature,
    VerifierKey,
    encode_note,
    encode_signature,
    parse_note,
    parse_signatures,
    parse_vkey,
    sign_note,
    signatures_by,
    verify_note,
    vkey_of,
)
from unit.translog.logs import (
    LOG,
    LOG_SIGN,
    STRANGER,
    STRANGER_SIGN,
    W1,
    W2,
    ed25519,
    head,
    signed,
)

TEXT = "one\n\ntwo \u20ac\n"
ONE = sign_note(TEXT, LOG, LOG_SIGN)
NOTE = Note(TEXT, (ONE,))
LINE = encode_signature(ONE)


@pytest.mark.parametrize("key", [LOG, W1, W2, ed25519("\u20ac.example/\u00e4", 9)[0]])
def test_keys_read_back(key: VerifierKey) -> None:
    assert parse_vkey(key.encode()) == key


def test_a_keys_id_depends_on_name_and_type() -> None:
    ids = {vkey_of(name, kind, LOG.public).key_id for name in ("a", "b") for kind in (1, 4)}
    assert len(ids) == 4


LONG = "n" * NOTE_KEY_NAME_BYTES_MAX


@pytest.mark.parametrize(
    "name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\nb", "a\x00b", "\ud800", LONG + "n"]
)
def test_bad_names_of_keys_are_refused(name: str) -> None:
    with pytest.raises(MalformedRequest):
        vkey_of(name, ED25519, LOG.public)


def test_the_longest_name_of_a_key() -> None:
    assert parse_vkey(vkey_of(LONG, 6, W2.public).encode()).name == LONG


KEY_ID = LOG.key_id.hex()
MATERIAL = b64_encode(b"\1" + LOG.public)


@pytest.mark.parametrize(
    "text",
    [
        "",
        LOG.name,
        f"{LOG.name}+{KEY_ID}",
        f"{LOG.name}+{KEY_ID}+",
        f"{LOG.name}+{KEY_ID.upper()}+{MATERIAL}",
        f"{LOG.name}+00{KEY_ID}+{MATERIAL}",
        f"{LOG.name}+{KEY_ID[:-1]}{int(KEY_ID[-1], 16) ^ 1:x}+{MATERIAL}",
        f"{LOG.name}x+{KEY_ID}+{MATERIAL}",
        f"{LOG.name}+{KEY_ID}+{MATERIAL}\n",
        f" {LOG.name}+{KEY_ID}+{MATERIAL}",
        f"{LOG.name}+{KEY_ID}+{MATERIAL[:-1]}",
        f"{LOG.name}+{KEY_ID}+{b64_encode(bytes([2]) + LOG.public)}",
        f"{LOG.name}+{KEY_ID}+{b64_encode(bytes([1]) + LOG.public[:-1])}",
        "n" * 10_000,
    ],
)
def test_other_texts_are_no_keys(text: str) -> None:
    with pytest.raises(MalformedRequest):
        parse_vkey(text)


def test_notes_read_back() -> None:
    data = encode_note(NOTE)
    assert data.decode() == f"{TEXT}\n{LINE}"
    assert parse_note(data) == parse_note(data.decode()) == NOTE
    assert parse_note(f"\n\n{LINE}") == Note("\n", (ONE,))


def test_the_last_empty_line_parts_text_from_signatures() -> None:
    """So a text cannot carry what looks like signatures of its own, and lose them on the way."""
    nested = encode_note(NOTE).decode()
    assert parse_note(f"{nested}\n{LINE}{LINE}") == Note(nested, (ONE, ONE))


@pytest.mark.parametrize(
    "data",
    [
        "",
        "\n",
        TEXT,
        f"{TEXT}\n",
        f"one\n{LINE}",
        f"{TEXT}\n{LINE[:-1]}",
        f"{TEXT}\n{LINE}\n",
        f"{TEXT}\n{LINE}x",
        f"{TEXT}\n{LINE}x\n",
        f"{TEXT}\n{LINE}".replace("\n", "\r\n"),
        f"a\tb\n\n{LINE}",
        f"a\x00\n\n{LINE}",
        f"{TEXT}\n{LINE.replace(chr(0x2014), '-')}",
        f"{TEXT}\n{LINE.replace(chr(0x2014) + ' ', chr(0x2014))}",
        f"{TEXT}\n{LINE.replace(' ', '  ')}",
        f"{TEXT}\n{LINE.replace(chr(10), ' ' + chr(10))}",
        f"{TEXT}\n\u2014 a+b AAAAAAAA\n",
        f"{TEXT}\n\u2014  AAAAAAAA\n",
        f"{TEXT}\n\u2014 a\n",
        f"{TEXT}\n\u2014 a \n",
        f"{TEXT}\n\u2014 a AAAAAA==\n",
        f"{TEXT}\n\u2014 a AAAAAAB=\n",
        f"{TEXT}\n\u2014 a AAAAAAA\n",
        f"{TEXT}\n\u2014 a AAAA-AAA\n",
        f"{TEXT}\n\u2014 a AAAA\u0391AAA\n",
        b"\xff\n\n" + LINE.encode(),
        "\ud800\n\n" + LINE,
        f"{TEXT}\n{LINE * (NOTE_SIGNATURES_MAX + 1)}",
        "x" * NOTE_BYTES_MAX + "\n\n" + LINE,
        "\u20ac" * (NOTE_BYTES_MAX // 2) + "\n\n" + LINE,
    ],
)
def test_other_texts_are_no_notes(data: bytes | str) -> None:
    with pytest.raises(MalformedRequest):
        parse_note(data)


def test_as_many_signatures_as_there_may_be() -> None:
    note = Note(TEXT, (ONE,) * NOTE_SIGNATURES_MAX)
    assert parse_note(encode_note(note)) == note


def test_signature_lines_by_themselves() -> None:
    two = sign_note(TEXT, STRANGER, STRANGER_SIGN)
    assert parse_signatures(LINE + encode_signature(two)) == (ONE, two)
    for text in ("", "\n", LINE + "\n", LINE[:-1]):
        with pytest.raises(MalformedRequest):
            parse_signatures(text)


@pytest.mark.parametrize(
    "note",
    [
        Note("no newline", (ONE,)),
        Note("", (ONE,)),
        Note(TEXT, ()),
        Note("a\tb\n", (ONE,)),
        Note(TEXT, (Signature("a b", b"1234", b"x"),)),
        Note(TEXT, (Signature("a", b"123", b"x"),)),
        Note(TEXT, (Signature("a", b"1234", b""),)),
        Note(TEXT, (Signature("a", b"12345", b"x"),)),
    ],
)
def test_a_note_that_would_not_read_back_is_not_written(note: Note) -> None:
    with pytest.raises(MalformedRequest):
        encode_note(note)


def test_signatures_of_known_keys_are_named_and_others_ignored() -> None:
    both = Note(TEXT, (sign_note(TEXT, STRANGER, STRANGER_SIGN), ONE))
    assert verify_note(both, [LOG]) == (LOG,)
    assert verify_note(both, [LOG, STRANGER]) == (LOG, STRANGER)
    foreign = Note(TEXT, (Signature("other", b"1234", b"junk"), ONE))
    assert verify_note(foreign, [LOG]) == (LOG,)
    assert signatures_by(foreign, LOG) == (ONE,)


def test_same_name_or_same_id_alone_is_another_key() -> None:
    bad = bytes(64)
    others = (Signature(LOG.name, b"1234", bad), Signature("other", LOG.key_id, bad))
    assert verify_note(Note(TEXT, (*others, ONE)), [LOG]) == (LOG,)


def test_a_note_without_a_known_signature_is_refused() -> None:
    for keys in ([], [STRANGER]):
        with pytest.raises(SignatureInvalid, match="expected a note signed by"):
            verify_note(NOTE, keys)


@pytest.mark.parametrize("text", ["one\n\ntwo\n", TEXT + "\n", "\n" + TEXT])
def test_another_text_is_not_what_was_signed(text: str) -> None:
    with pytest.raises(SignatureInvalid, match="does not verify"):
        verify_note(Note(text, (ONE,)), [LOG])


def test_one_wrong_signature_of_a_known_key_refuses_the_note() -> None:
    """As signed-note has it, however many right ones stand beside it."""
    for bit in (0, 255, 511):
        number = int.from_bytes(ONE.data, "big") ^ 1 << bit
        bent = Signature(ONE.name, ONE.key_id, number.to_bytes(64, "big"))
        for signatures in ((bent,), (ONE, bent), (bent, ONE)):
            with pytest.raises(SignatureInvalid, match="does not verify"):
                verify_note(Note(TEXT, signatures), [LOG])
    for data in (ONE.data[:-1], ONE.data + b"\0", b"x"):
        with pytest.raises(SignatureInvalid, match="does not verify"):
            verify_note(Note(TEXT, (Signature(ONE.name, ONE.key_id, data),)), [LOG])


def test_cosigners_keys_neither_sign_nor_verify_bare_texts() -> None:
    for key in (W1, W2):
        with pytest.raises(MalformedRequest, match="type 0x01"):
            sign_note(TEXT, key, LOG_SIGN)
        with pytest.raises(MalformedRequest, match="type 0x01"):
            verify_note(NOTE, [LOG, key])


def test_a_key_of_both_types_tells_them_apart() -> None:
    """Types are bound into the id, so a cosignature is never read as a note's signature."""
    twin = vkey_of(LOG.name, ED25519_COSIGNATURE, LOG.public)
    assert twin.key_id != LOG.key_id
    assert signatures_by(signed(head()), twin) == ()
