"""The closed set of caveats: typed narrowings of a handle, each with one canonical encoding.

A caveat is the msgpack array of its tag and fields. Decoding re-encodes and compares, so one
narrowing has one spelling; an unknown or unusual one refuses the whole handle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from keystead import limits
from keystead.encoding import DECODE_ERRORS
from keystead.errors import HandleInvalid, MalformedRequest
from keystead.keys.model import check_context

__all__ = [
    "Algorithms",
    "BoundTo",
    "Caveat",
    "ContextPrefix",
    "NotAfter",
    "Operations",
    "Rate",
    "Uses",
    "Versions",
    "check_caveat",
    "decode_caveat",
    "encode_caveat",
]


class _Caveat(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    pass


class Operations(_Caveat, tag="operations", frozen=True):
    """Only these operations of the key's purpose."""

    operations: tuple[str, ...]


class ContextPrefix(_Caveat, tag="context_prefix", frozen=True):
    """Only this context and those below it, by whole path parts: ``web/eu`` not ``web/europe``."""

    prefix: str


class Algorithms(_Caveat, tag="algorithms", frozen=True):
    """Only these effective algorithms."""

    algorithms: tuple[str, ...]


class Versions(_Caveat, tag="versions", frozen=True):
    """Only these versions of the key."""

    versions: tuple[int, ...]


class NotAfter(_Caveat, tag="not_after", frozen=True):
    """Not after this instant, Unix milliseconds."""

    not_after_ms: int


class Rate(_Caveat, tag="rate", frozen=True):
    """At most ``count`` uses in ``per_s`` seconds, as a token bucket on each node."""

    count: int
    per_s: int


class Uses(_Caveat, tag="uses", frozen=True):
    """At most this many uses ever, counted durably with their records."""

    count: int


class BoundTo(_Caveat, tag="bound_to", frozen=True):
    """Only for whoever proves possession.

    ``certificate``: SHA-256 of a client certificate's DER, whose key signs each request.
    ``ed25519``: the 32-byte public key that signs each request. ``unix``: socket name and uid as
    ``name:uid``, stated by the process that owns the socket.
    """

    kind: Literal["certificate", "ed25519", "unix"]
    value: bytes


Caveat = Operations | ContextPrefix | Algorithms | Versions | NotAfter | Rate | Uses | BoundTo

_ENCODER = msgspec.msgpack.Encoder()
_DECODER: msgspec.msgpack.Decoder[Caveat] = msgspec.msgpack.Decoder(Caveat)
_DIGEST_BYTES = 32
_VERSION_MAX = 2**31 - 1  # as in requests: more would not fit what a caveat is encoded in


def encode_caveat(caveat: Caveat) -> bytes:
    """The canonical bytes of a caveat, as they enter the chain of tags.

    Raises:
        MalformedRequest: values that no caveat may have.
    """
    check_caveat(caveat)
    return _ENCODER.encode(caveat)


def decode_caveat(data: bytes) -> Caveat:
    """The caveat of canonical bytes.

    Raises:
        HandleInvalid: an unknown caveat, a bad value, or another spelling of a known one.
    """
    try:
        caveat = _DECODER.decode(data)
        check_caveat(caveat)
    except (*DECODE_ERRORS, MalformedRequest) as exc:
        raise HandleInvalid(
            "the handle holds a caveat that this version does not know",
            hint="An unknown narrowing refuses; upgrade the node or have the handle issued again",
        ) from exc
    if _ENCODER.encode(caveat) != data:
        raise HandleInvalid("the handle holds a caveat that is not canonically encoded")
    return caveat


def check_caveat(caveat: Caveat) -> None:
    """Hold a caveat to the values it may have.

    Raises:
        MalformedRequest: what was expected, and what was met.
    """
    match caveat:
        case Operations(names) | Algorithms(names):
            _check_set(names, sorted(set(names)), "names")
        case Versions(numbers):
            _check_set(numbers, sorted(set(numbers)), "version numbers")
            if min(numbers) < 1 or max(numbers) > _VERSION_MAX:
                raise MalformedRequest(f"expected version numbers from 1 to {_VERSION_MAX}")
        case ContextPrefix(prefix):
            check_context(prefix)
        case NotAfter(instant):
            _check_range(instant, "not_after_ms", 2**53)
        case Uses(count):
            _check_range(count, "uses", 2**53)
        case Rate(count, per_s):
            _check_range(count, "rate count", 10**9)
            _check_range(per_s, "rate seconds", 24 * 3600)
        case BoundTo(kind, value):
            _check_binding(kind, value)


def _check_binding(kind: str, value: bytes) -> None:
    if kind == "unix":
        if not 0 < len(value) <= limits.NAME_BYTES_MAX * 2 or b":" not in value:
            raise MalformedRequest("expected a unix peer as socket-name:uid")
    elif len(value) != _DIGEST_BYTES:
        raise MalformedRequest(f"expected {_DIGEST_BYTES} bytes to bind to, met {len(value)}")


def _check_set(values: Sequence[object], canonical: Sequence[object], what: str) -> None:
    if not values or list(values) != canonical:
        raise MalformedRequest(f"expected {what} sorted, without repeats, at least one")


def _check_range(value: int, what: str, most: int) -> None:
    if not 1 <= value <= most:
        raise MalformedRequest(f"expected {what} from 1 to {most}, met {value}")
