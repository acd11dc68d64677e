"""Values that almost have a type: right in most places, wrong in some, as a fuzzer wants them."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from fuzz.choices import Choices

__all__ = ["Hints", "as_json", "as_msgpack", "junk", "shaped"]

Hints = Mapping[str, Sequence[object]]
"""Name of a field to values that get far: names of keys that there are, requests that parse."""

_DEPTH_MAX = 6
_FIT_DEPTH = 100
_WRONG_ONE_IN = 24


@cache
def _info(kind: Any) -> inspect.Type:  # noqa: ANN401  any type msgspec knows
    return inspect.type_info(kind)


def shaped(choices: Choices, kind: Any, hints: Hints) -> object:  # noqa: ANN401  as above
    """A value of plain objects and bytes that ``kind`` mostly takes."""
    return _shaped(choices, _info(kind), hints, _DEPTH_MAX)


def junk(choices: Choices, depth: int = _DEPTH_MAX) -> object:  # noqa: PLR0911  one line a kind
    """Any value at all."""
    match choices.below(9 if depth > 0 else 6):
        case 0:
            return choices.text()
        case 1:
            return choices.integer()
        case 2:
            return choices.blob()
        case 3:
            return choices.pick((None, True, False))
        case 4:
            return choices.pick((0.0, -0.0, 1e308, 5e-324, 1.5, float("inf"), float("nan")))
        case 5:
            nested: object = []
            for _ in range(choices.pick((2, 15, 16, 17, 600))):
                nested = [nested]
            return nested
        case 6:
            return [junk(choices, depth - 1) for _ in range(choices.below(4))]
        case _:
            return {choices.text(): junk(choices, depth - 1) for _ in range(choices.below(4))}


def _shaped(choices: Choices, node: inspect.Type, hints: Hints, depth: int) -> object:  # noqa: PLR0911  one line a kind
    if depth <= 0 or choices.rarely(_WRONG_ONE_IN):
        return junk(choices, depth)
    match node:
        case inspect.StructType():
            return _struct(choices, node, hints, depth)
        case inspect.UnionType(types=types):
            return _shaped(choices, choices.pick(types), hints, depth)
        case inspect.LiteralType(values=values):
            return choices.pick(values)
        case inspect.EnumType(cls=cls):
            return choices.pick([member.value for member in cls])
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return [_shaped(choices, item, hints, depth - 1) for _ in range(choices.below(4))]
        case inspect.TupleType(item_types=items):
            return [_shaped(choices, item, hints, depth - 1) for item in items]
        case inspect.DictType(value_type=value):
            return {
                choices.pick(("a", "aud", "exp", "service", choices.text())): _shaped(
                    choices, value, hints, depth - 1
                )
                for _ in range(choices.below(4))
            }
        case _:
            return _plain(choices, node, depth)


def _plain(choices: Choices, node: inspect.Type, depth: int) -> object:  # noqa: PLR0911  one line a kind
    match node:
        case inspect.IntType():
            return choices.integer()
        case inspect.StrType():
            return choices.text()
        case inspect.BytesType():
            return choices.blob() if choices.rarely(2) else b"\x11" * choices.pick((32, 48, 16, 0))
        case inspect.BoolType():
            return choices.rarely(2)
        case inspect.FloatType():
            return choices.pick((0.0, 1.5, -1e300))
        case inspect.NoneType():
            return None
        case _:
            return junk(choices, depth)


def _struct(choices: Choices, node: inspect.StructType, hints: Hints, depth: int) -> object:
    members: dict[str, object] = {}
    if node.tag_field is not None:
        members[node.tag_field] = node.tag
    for field in node.fields:
        if choices.rarely(40) or not (field.required or choices.rarely(2)):
            continue
        known = hints.get(field.encode_name)
        if known and not choices.rarely(6):
            members[field.encode_name] = choices.pick(known)
        else:
            members[field.encode_name] = _shaped(choices, field.type, hints, depth - 1)
    if choices.rarely(_WRONG_ONE_IN):
        members[choices.text()] = junk(choices, 1)
    if not node.array_like:
        return members
    head = [] if node.tag is None or node.tag_field is None else [node.tag]
    return head + [value for name, value in members.items() if name != node.tag_field]


def as_json(value: object) -> bytes:
    """JSON, also of what JSON should not have: NaN, lone surrogates, numbers of any size."""
    return json.dumps(value, default=_base64).encode()


def _base64(value: object) -> str:
    if not isinstance(value, bytes):
        raise TypeError(f"no JSON for {type(value).__name__}")
    return base64.b64encode(value).decode()


def as_msgpack(value: object) -> bytes:
    """Msgpack; what it cannot hold, too large a number or a lone surrogate, becomes what it can."""
    try:
        return msgspec.msgpack.encode(value)
    except (OverflowError, UnicodeEncodeError, RecursionError):
        return msgspec.msgpack.encode(_fit(value))


def _fit(value: object, depth: int = _FIT_DEPTH) -> object:  # noqa: PLR0911  one line a kind
    match value:
        case list() | dict() if not depth:
            return None
        case bool():
            return value
        case int():
            return max(-(2**63), min(value, 2**64 - 1))
        case str():
            return value.encode(errors="replace").decode()
        case list():
            return [_fit(item, depth - 1) for item in value]
        case dict():
            return {_fit(name): _fit(item, depth - 1) for name, item in value.items()}
        case _:
            return value
