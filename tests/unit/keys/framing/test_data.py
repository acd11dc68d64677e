"""Data: subkeys that differ in every part, what wrapped data looks like, and limits of facts."""

from itertools import product

import msgspec
import pytest

from keystead import limits
from keystead.encoding import b64u_encode, length_prefixed
from keystead.errors import MalformedRequest
from keystead.keys.framing.data import (
    Derive,
    Mac,
    Unwrap,
    Wrap,
    Wrapped,
    check_data,
    decode_wrapped,
    encode_wrapped,
    subkey_info,
)

WRAPPED = Wrapped("kid-1", 1, bytes(12), b"sealed")


def test_a_subkey_has_key_version_purpose_operation_and_context() -> None:
    assert subkey_info("k-1", 12, "wrap", "web/eu") == length_prefixed(
        (b"keystead/data/v1", b"k-1", b"12", b"data", b"wrap", b"web/eu")
    )


def test_no_two_uses_share_a_subkey() -> None:
    parts = list(
        product(("k", "k1", ""), (1, 11), ("wrap", "unwrap", "derive", "mac"), ("a", "a/b", "1"))
    )
    assert len({subkey_info(*each) for each in parts}) == len(parts) == 72


@pytest.mark.parametrize("nonce", [bytes(12), b""])
def test_wrapped_data_reads_back(nonce: bytes) -> None:
    wrapped = msgspec.structs.replace(WRAPPED, nonce=nonce)
    text = encode_wrapped(wrapped)
    assert text.startswith("ksw1.")
    assert decode_wrapped(text) == wrapped


def encoded(value: object) -> str:
    return "ksw1." + b64u_encode(msgspec.msgpack.encode(value))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ksw1.",
        "ksw2." + encode_wrapped(WRAPPED)[5:],
        encode_wrapped(WRAPPED)[:-4],
        encode_wrapped(WRAPPED) + "=",
        encode_wrapped(WRAPPED) + "AAAA",
        encoded(["kid-1", 1, bytes(12)]),
        encoded(["kid-1", 1, bytes(12), b"sealed", 1]),
        encoded(["kid-1", 0, bytes(12), b"sealed"]),
        encoded(["kid-1", -1, bytes(12), b"sealed"]),
        encoded(["kid-1", 1, bytes(11), b"sealed"]),
        encoded(["kid-1", 1, bytes(16), b"sealed"]),
        encoded([1, 1, bytes(12), b"sealed"]),
        encoded({"kid": "kid-1"}),
        "ksw1." + b64u_encode(msgspec.msgpack.encode(WRAPPED).replace(b"kid-1", b"kid-\xff")),
        "ksw1." + b64u_encode(b"\x91" * 100_000),
    ],
)
def test_what_is_not_wrapped_data_is_malformed(text: str) -> None:
    with pytest.raises(MalformedRequest):
        decode_wrapped(text)


@pytest.mark.parametrize(
    "facts",
    [
        Wrap(plaintext=bytes(limits.DATA_BYTES_MAX)),
        Wrap(plaintext=b""),
        Mac(message=bytes(limits.DATA_BYTES_MAX), tag=bytes(32)),
        Derive(length=1),
        Derive(length=limits.DERIVED_BYTES_MAX, info=bytes(limits.CONTEXT_BYTES_MAX)),
        Unwrap(wrapped=""),
    ],
)
def test_facts_within_their_limits(facts: Wrap | Unwrap | Derive | Mac) -> None:
    check_data(facts)
    assert facts == msgspec.msgpack.decode(msgspec.msgpack.encode(facts), type=type(facts))


@pytest.mark.parametrize(
    "facts",
    [
        Wrap(plaintext=bytes(limits.DATA_BYTES_MAX + 1)),
        Mac(message=bytes(limits.DATA_BYTES_MAX + 1)),
        Derive(length=0),
        Derive(length=-1),
        Derive(length=limits.DERIVED_BYTES_MAX + 1),
        Derive(info=bytes(limits.CONTEXT_BYTES_MAX + 1)),
    ],
)
def test_facts_past_their_limits(facts: Wrap | Derive | Mac) -> None:
    with pytest.raises(MalformedRequest, match="expected"):
        check_data(facts)
