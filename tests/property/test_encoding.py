"""Encodings over all inputs: no two values alike, no value in two spellings, no other errors."""

import json
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from keystead.encoding import (
    b64u_decode,
    b64u_encode,
    canonical_json,
    length_prefixed,
    strict_json,
)
from keystead.errors import MalformedRequest

PARTS = st.lists(st.binary(max_size=6), max_size=5)
LEAVES = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=6)
EXACT = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=3), inner, max_size=3)
    ),
    max_leaves=12,
)
"""JSON without floats, member names in ASCII."""


def parts_of(data: bytes) -> list[bytes]:
    parts = []
    while data:
        length = int.from_bytes(data[:4], "big")
        parts.append(data[4 : 4 + length])
        data = data[4 + length :]
    return parts


@given(PARTS)
def test_length_prefixed_parts_can_be_told_apart_again(parts: list[bytes]) -> None:
    assert parts_of(length_prefixed(parts)) == parts


@given(PARTS, PARTS)
@example([b"ab", b"c"], [b"a", b"bc"])
@example([b""], [])
def test_length_prefixed_is_injective(one: list[bytes], other: list[bytes]) -> None:
    assert (length_prefixed(one) == length_prefixed(other)) == (one == other)


@given(st.binary())
def test_base64url_round_trips(data: bytes) -> None:
    text = b64u_encode(data)
    assert b64u_decode(text) == data
    assert not set(text) & set("+/=")


@given(st.one_of(st.text(max_size=12), st.text("AZaz09-_=+/ \n", max_size=12)))
@example("Zh")
@example("Zg==")
def test_what_base64url_decodes_has_no_other_spelling(text: str) -> None:
    try:
        data = b64u_decode(text)
    except MalformedRequest:
        return
    assert b64u_encode(data) == text


@given(EXACT)
def test_canonical_json_round_trips_and_is_a_fixed_point(value: object) -> None:
    data = canonical_json(value)
    again = strict_json(data, depth_max=20)
    assert again == value
    assert canonical_json(again) == data


@given(EXACT, EXACT)
def test_canonical_json_is_injective(one: object, other: object) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (canonical_json(one) == canonical_json(other)) == same


@given(EXACT, st.randoms(use_true_random=False))
def test_canonical_json_does_not_depend_on_the_order_of_members(
    value: object,
    random: Any,  # noqa: ANN401  Hypothesis's own generator
) -> None:
    def shuffled(inner: object) -> object:
        if isinstance(inner, dict):
            items = [(name, shuffled(item)) for name, item in inner.items()]
            random.shuffle(items)
            return dict(items)
        return [shuffled(item) for item in inner] if isinstance(inner, list) else inner

    assert canonical_json(shuffled(value)) == canonical_json(value)


def depth_of(value: object) -> int:
    match value:
        case dict():
            return 1 + max(map(depth_of, value.values()), default=0)
        case list():
            return 1 + max(map(depth_of, value), default=0)
    return 0


@given(EXACT, st.integers(0, 5))
def test_strict_json_refuses_exactly_what_is_too_deep(value: object, depth_max: int) -> None:
    text = json.dumps(value)
    try:
        assert strict_json(text, depth_max=depth_max) == value
    except MalformedRequest:
        assert depth_of(value) > depth_max
    else:
        assert depth_of(value) <= depth_max


@given(st.dictionaries(st.text(max_size=3), LEAVES, min_size=1, max_size=4), st.data())
def test_strict_json_refuses_a_member_twice_wherever_it_stands(
    members: dict[str, object], data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(members)))
    at = data.draw(st.integers(0, len(members)))
    pairs = [f"{json.dumps(key)}:{json.dumps(value)}" for key, value in members.items()]
    once = "{" + ",".join(pairs) + "}"
    # the second time with every character escaped, which is the same name
    escaped = '"' + "".join(f"\\u{unit:04x}" for unit in utf16(name)) + '"'
    pairs.insert(at, f"{escaped}:{json.dumps(data.draw(LEAVES))}")
    twice = "{" + ",".join(pairs) + "}"
    for wrap in ("%s", "[%s]", '{"outer":[0,%s]}'):
        assert strict_json(wrap.replace("%s", once), depth_max=9) is not None
        try:
            value = strict_json(wrap.replace("%s", twice), depth_max=9)
        except MalformedRequest:
            continue
        raise AssertionError(value)


def utf16(text: str) -> list[int]:
    raw = text.encode("utf-16-be", "surrogatepass")
    return [int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2)]


@given(st.binary(max_size=40))
@example(b"\xff\xfe{\0}\0")
def test_strict_json_has_one_error_for_any_bytes(data: bytes) -> None:
    try:
        value = strict_json(data, depth_max=8)
    except MalformedRequest:
        return
    assert json.loads(data.decode("utf-8")) == value
