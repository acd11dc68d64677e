"""Records: the exact bytes, their entries and leaves by hand, and what they do not show (I9)."""

import hashlib
import hmac

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import MalformedRequest
from keystead.translog.entries import (
    ENTRY_BYTES,
    SALT_BYTES,
    Body,
    Draft,
    commitment,
    commitments,
    decode_body,
    encode_draft,
    entry_of,
    leaf_hash,
    place,
)

SALT = bytes(range(SALT_BYTES))
SHORT = Draft(time_ms=5, node="n", op="jwt.sign", outcome="ok", request="r-1")
FULL = Draft(
    time_ms=5,
    node="n",
    op="jwt.sign",
    outcome="permission_denied",
    request="r-1",
    key="k-1",
    name="shop",
    version=2,
    revision=3,
    purpose="jwt",
    algorithm="ed25519",
    ack="best_effort",
    prehashed=True,
    tenant="default",
    context="web/eu",
    handle="h-1",
    link="00ff",
    principal="web",
    reason='quoted "\u20ac"',
    detail="d",
    reservation="v-1",
    count=7,
    signed="aa",
)


def test_the_bytes_of_a_record_are_frozen() -> None:
    assert place(0, 1, encode_draft(SHORT)) == (
        b'{"seq":0,"epoch":1,"time_ms":5,"node":"n","op":"jwt.sign","outcome":"ok","request":"r-1"}'
    )


@pytest.mark.parametrize("draft", [SHORT, FULL])
@pytest.mark.parametrize(("seq", "epoch"), [(0, 0), (2**53, 2**40)])
def test_a_placed_draft_reads_back(draft: Draft, seq: int, epoch: int) -> None:
    body = decode_body(place(seq, epoch, encode_draft(draft)))
    assert body == Body(seq=seq, epoch=epoch, **msgspec.structs.asdict(draft))


def test_the_full_draft_of_these_tests_is_full() -> None:
    defaults = msgspec.structs.asdict(SHORT)
    same = {name for name, value in msgspec.structs.asdict(FULL).items() if value == defaults[name]}
    assert same == {"time_ms", "node", "op", "request"}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[]",
        encode_draft(SHORT),
        b'{"seq":"0"}',
        b'{"seq":0,"epoch":1,"time_ms":5,"node":"\xff","op":"a","outcome":"ok","request":"r"}',
        b'{"seq":0,"x":' + b"[" * 100_000,
    ],
    ids=lambda data: data[:9].decode(),
)
def test_what_is_no_record_is_malformed(data: bytes) -> None:
    with pytest.raises(MalformedRequest, match="body of a record"):
        decode_body(data)


def test_entry_and_leaf_are_those_of_the_design() -> None:
    body = place(0, 1, encode_draft(FULL))
    entry = entry_of(SALT, body)
    assert entry == hashlib.sha256(SALT + body).digest()
    assert len(entry) == ENTRY_BYTES
    assert leaf_hash(entry) == hashlib.sha256(b"\0" + entry).digest()


def test_the_leaf_of_an_empty_entry_is_rfc_6962s() -> None:
    empty = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    assert leaf_hash(b"").hex() == empty


def test_equal_records_have_different_entries() -> None:
    body = place(0, 1, encode_draft(SHORT))
    assert entry_of(SALT, body) != entry_of(SALT[::-1], body)


def test_what_was_signed_is_committed_to_under_the_salt() -> None:
    assert commitment(SALT, b"message") == hmac.new(SALT, b"message", hashlib.sha256).hexdigest()
    assert commitment(SALT, b"message") != commitment(SALT[::-1], b"message")
    assert hashlib.sha256(b"message").hexdigest() not in commitment(SALT, b"message")


@given(messages=st.lists(st.binary(max_size=200), max_size=4))
def test_many_commitments_are_those_of_one_at_a_time(messages: list[bytes]) -> None:
    commit = commitments(SALT)
    assert [commit(message) for message in messages] == [
        commitment(SALT, message) for message in messages
    ]
