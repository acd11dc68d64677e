"""Encodings that what is signed, stored or sent depends on: one way to write each value."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from typing import Final

import msgspec

from keystead.errors import MalformedRequest

__all__ = [
    "DECODE_ERRORS",
    "b64u_decode",
    "b64u_encode",
    "canonical_json",
    "length_prefixed",
    "strict_json",
]

DECODE_ERRORS: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""All that msgspec raises for a stranger's bytes: the last two, for text that is not UTF-8 and for
deep nesting in a field that is skipped, are no ``DecodeError``."""

_B64U = re.compile(r"[A-Za-z0-9_-]*\Z")


def b64u_encode(data: bytes) -> str:
    """Base64url without padding (RFC 4648 section 5)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64u_decode(text: str) -> bytes:
    """Decode base64url without padding; refuse anything that does not encode back to itself.

    Raises:
        MalformedRequest: foreign characters, padding, or unused bits that are not zero.
    """
    if not _B64U.match(text) or len(text) % 4 == 1:
        raise MalformedRequest("expected base64url without padding, met other characters")
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error as exc:
        raise MalformedRequest("expected base64url without padding") from exc
    if b64u_encode(data) != text:
        raise MalformedRequest("expected canonical base64url, met unused bits that are not zero")
    return data


def length_prefixed(parts: Iterable[bytes]) -> bytes:
    """Each part behind its length, 4 bytes big-endian, so that no two lists encode alike."""
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)


def canonical_json(value: object) -> bytes:
    """JSON with sorted members and no spaces, UTF-8: RFC 8785 for strings, integers and booleans.

    Raises:
        TypeError: a float, whose RFC 8785 form is not offered; or a member name that is not an
            ASCII string: others sort by UTF-16 there, by code point here.
    """
    _check_canonical(value)
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def _check_canonical(value: object) -> None:
    if isinstance(value, float):
        raise TypeError("canonical JSON takes no floats")
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str) or not name.isascii():
                raise TypeError("canonical JSON takes member names of ASCII only")
            _check_canonical(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_canonical(item)


def strict_json(data: bytes | str, *, depth_max: int) -> object:
    """Parse JSON, refusing what parsers disagree on: duplicate members, NaN, deep nesting, UTF-16.

    Raises:
        MalformedRequest: not JSON in UTF-8 (RFC 8259 section 8.1), a member twice, a non-finite
            number, or nested past the bound.
    """
    try:
        value: object = json.loads(
            data if isinstance(data, str) else data.decode(),
            object_pairs_hook=_unique_members,
            parse_constant=_refuse_constant,
            parse_float=_finite_float,
        )
    except RecursionError as exc:
        raise MalformedRequest(f"expected JSON nested at most {depth_max} deep") from exc
    except ValueError as exc:  # JSONDecodeError and UnicodeDecodeError; both may quote the input
        raise MalformedRequest("expected a JSON document, met bytes that do not parse") from exc
    if _depth(value, depth_max) > depth_max:
        raise MalformedRequest(f"expected JSON nested at most {depth_max} deep")
    return value


def _unique_members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise MalformedRequest("expected each JSON member once, met a name twice")
    return members


def _refuse_constant(_name: str) -> object:
    raise MalformedRequest("expected finite JSON numbers")


def _finite_float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise MalformedRequest("expected finite JSON numbers")
    return value


def _depth(value: object, most: int) -> int:
    if most < 0:
        return 1
    inner: Iterable[object]
    if isinstance(value, dict):
        inner = value.values()
    elif isinstance(value, list):
        inner = value
    else:
        return 0
    return 1 + max((_depth(item, most - 1) for item in inner), default=0)
