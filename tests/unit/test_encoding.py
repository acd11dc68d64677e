"""Encodings: each value has one spelling, and every other is refused."""

import json

import pytest

from keystead.encoding import (
    b64u_decode,
    b64u_encode,
    canonical_json,
    length_prefixed,
    strict_json,
)
from keystead.errors import MalformedRequest


@pytest.mark.parametrize(
    ("data", "text"),
    [(b"", ""), (b"f", "Zg"), (b"fo", "Zm8"), (b"foo", "Zm9v"), (b"\xfb\xff\xfe", "-__-")],
)
def test_base64url_of_rfc_4648(data: bytes, text: str) -> None:
    assert b64u_encode(data) == text
    assert b64u_decode(text) == data


@pytest.mark.parametrize(
    "text",
    [
        "Zg==",
        "Zh",
        "Z",
        "Zm9vY",
        "+/+/",
        "Zm 9v",
        "Zm9v\n",
        "Zmä",
        "Zm9v=",
        "\N{FULLWIDTH DIGIT ONE}AA",
    ],
)
def test_another_base64_is_refused(text: str) -> None:
    with pytest.raises(MalformedRequest):
        b64u_decode(text)


def test_parts_stand_behind_their_lengths() -> None:
    assert length_prefixed([b"ab", b""]) == b"\0\0\0\2ab\0\0\0\0"
    assert length_prefixed([]) == b""


def test_canonical_json_is_rfc_8785() -> None:
    value = {"b": [1, True, None], "a": '\u20ac\x0f\n\\"/\x7f', "A": {}}
    assert canonical_json(value) == (
        '{"A":{},"a":"\u20ac\\u000f\\n\\\\\\"/\x7f","b":[1,true,null]}'.encode()
    )


@pytest.mark.parametrize("value", [1.0, [0.5], {"a": (1.5,)}, {1: "a"}, {"\u20ac": 1}, {None: 1}])
def test_canonical_json_takes_no_floats_and_no_foreign_names(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)


@pytest.mark.parametrize("value", [{}, [], 1, -1.5, "a", None, {"a": [True, {"b": "\u20ac"}]}])
def test_strict_json_reads_json(value: object) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert strict_json(text, depth_max=4) == value
    assert strict_json(text.encode(), depth_max=4) == value


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"{} {}",
        b"{'a':1}",
        b'{"a":1,"a":1}',
        b'[{"a":{"b":1,"b":2}}]',
        b'{"a":1,"\\u0061":2}',
        b"NaN",
        b"[-Infinity]",
        b"1e999",
        b"1" * 5000,
        b'"\xff"',
        b"\xef\xbb\xbf{}",
        "{}".encode("utf-16"),
        "{}".encode("utf-32-be"),
        b"[" * 100_000 + b"]" * 100_000,
    ],
)
def test_strict_json_refuses_what_parsers_disagree_on(data: bytes) -> None:
    with pytest.raises(MalformedRequest) as refused:
        strict_json(data, depth_max=16)
    assert len(str(refused.value)) < 100  # it does not quote the input


@pytest.mark.parametrize("depth", [0, 1, 2, 16])
def test_strict_json_holds_its_depth(depth: int) -> None:
    at_most = '{"a":' * depth + "1" + "}" * depth
    assert strict_json(at_most, depth_max=depth)
    with pytest.raises(MalformedRequest):
        strict_json(f"[{at_most}]", depth_max=depth)
