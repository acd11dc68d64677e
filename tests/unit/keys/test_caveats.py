"""Caveats: one spelling each, bounded values, and a closed set."""

from typing import get_args

import msgspec
import pytest

from keystead.errors import HandleInvalid, MalformedRequest
from keystead.keys.caveats import (
    Algorithms,
    BoundTo,
    Caveat,
    ContextPrefix,
    NotAfter,
    Operations,
    Rate,
    Uses,
    Versions,
    check_caveat,
    decode_caveat,
    encode_caveat,
)

ONE_OF_EACH: list[Caveat] = [
    Operations(("sign",)),
    ContextPrefix("web/eu"),
    Algorithms(("ed25519",)),
    Versions((1, 2)),
    NotAfter(1),
    Rate(10, 1),
    Uses(3),
    BoundTo("ed25519", bytes(32)),
]


def test_there_is_one_of_each() -> None:
    assert {type(caveat) for caveat in ONE_OF_EACH} == set(get_args(Caveat))


@pytest.mark.parametrize(
    ("caveat", "encoded"),
    [
        (Operations(("mac", "wrap")), b"\x92\xaaoperations\x92\xa3mac\xa4wrap"),
        (ContextPrefix("a/b"), b"\x92\xaecontext_prefix\xa3a/b"),
        (Algorithms(("ed25519",)), b"\x92\xaaalgorithms\x91\xa7ed25519"),
        (Versions((1, 300)), b"\x92\xa8versions\x92\x01\xcd\x01\x2c"),
        (NotAfter(1 << 40), b"\x92\xa9not_after\xcf\0\0\1\0\0\0\0\0"),
        (Rate(10, 60), b"\x93\xa4rate\x0a\x3c"),
        (Uses(1), b"\x92\xa4uses\x01"),
        (BoundTo("unix", b"s:0"), b"\x93\xa8bound_to\xa4unix\xc4\x03s:0"),
    ],
)
def test_the_bytes_that_enter_the_chain_are_frozen(caveat: Caveat, encoded: bytes) -> None:
    assert encode_caveat(caveat) == encoded
    assert decode_caveat(encoded) == caveat


@pytest.mark.parametrize(
    "caveat",
    [
        Operations(()),
        Operations(("wrap", "mac")),
        Operations(("mac", "mac")),
        Algorithms(()),
        Algorithms(("b", "a")),
        Versions(()),
        Versions((2, 1)),
        Versions((0, 1)),
        Versions((-1,)),
        ContextPrefix(""),
        ContextPrefix("web/"),
        ContextPrefix("web/../x"),
        NotAfter(0),
        NotAfter(2**53 + 1),
        Uses(0),
        Uses(-1),
        Uses(2**53 + 1),
        Rate(0, 1),
        Rate(1, 0),
        Rate(10**9 + 1, 1),
        Rate(1, 24 * 3600 + 1),
        BoundTo("ed25519", bytes(31)),
        BoundTo("certificate", bytes(33)),
        BoundTo("certificate", b""),
        BoundTo("unix", b""),
        BoundTo("unix", b"no-uid"),
        BoundTo("unix", b":" * 129),
    ],
)
def test_a_value_no_caveat_may_have_is_refused_both_ways(caveat: Caveat) -> None:
    with pytest.raises(MalformedRequest):
        check_caveat(caveat)
    with pytest.raises(MalformedRequest):
        encode_caveat(caveat)
    with pytest.raises(HandleInvalid):
        decode_caveat(msgspec.msgpack.encode(caveat))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x92\xa4uses",
        b"\x92\xa5usage\x01",  # unknown
        b"\x91\xa4uses",  # a field is missing
        b"\x93\xa4uses\x01\x01",  # a field too many
        b"\x93\xa4uses\x01" + b"\x91" * 5000 + b"\xc0",  # nested past the parser's recursion
        b"\x92\xa4uses\xa11",  # text for a number
        b"\x92\xaecontext_prefix\xa1\xff",  # not UTF-8
        b"\x92\xa4\xff\xff\xff\xff\x01",
        b"\x93\xa8bound_to\xa5email\xc4\x01a",
        b"\xc0",
        b"\x81\xa4uses\x01",
    ],
)
def test_what_is_no_caveat_refuses_the_handle(data: bytes) -> None:
    with pytest.raises(HandleInvalid, match="does not know"):
        decode_caveat(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x92\xa4uses\xcc\x01",  # a long 1
        b"\x92\xd9\x04uses\x01",  # a long string
        b"\xdc\x00\x02\xa4uses\x01",  # a long array
        b"\x92\xa4uses\xcb\x3f\xf0\0\0\0\0\0\0",  # 1.0
        b"\x93\xa8bound_to\xa4unix\xa4czow",  # base64 of s:0
    ],
)
def test_another_spelling_refuses_the_handle(data: bytes) -> None:
    with pytest.raises(HandleInvalid):
        decode_caveat(data)
