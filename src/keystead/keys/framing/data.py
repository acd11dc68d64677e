"""Data keys: which subkey an operation uses, and how what is wrapped is written down.

Each operation has a subkey of its own: HKDF-SHA-256 (RFC 5869) of the version's secret with the
length-prefixed info of :func:`subkey_info`. The context is in the info and, for wrapping, in the
associated data too: what was wrapped in one context does not open in another (M3).
"""

from __future__ import annotations

import msgspec

from keystead import limits
from keystead.encoding import DECODE_ERRORS, b64u_decode, b64u_encode, length_prefixed
from keystead.errors import MalformedRequest
from keystead.keys.framing.base import Facts, Result

__all__ = [
    "Derive",
    "DeriveResult",
    "Mac",
    "MacResult",
    "Unwrap",
    "UnwrapResult",
    "Wrap",
    "WrapResult",
    "Wrapped",
    "check_data",
    "decode_wrapped",
    "encode_wrapped",
    "subkey_info",
]

_PREFIX = "ksw1."
_NONCE_BYTES = 12


class Wrap(Facts, frozen=True):
    """``plaintext``: at most ``limits.DATA_BYTES_MAX`` bytes."""

    plaintext: bytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class WrapResult(Result, frozen=True):
    """``wrapped``: ``ksw1.`` and base64url; it names key and version, not the context."""

    wrapped: str


class Unwrap(Facts, frozen=True):
    """``wrapped``: what a wrap under the same key and context gave."""

    wrapped: str


class UnwrapResult(Result, frozen=True):
    """``plaintext``: the bytes that were wrapped."""

    plaintext: bytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Derive(Facts, frozen=True):
    """``length``: bytes wanted; ``info``: what the secret is for, beside the context."""

    length: int = 32
    info: bytes = b""


class DeriveResult(Result, frozen=True):
    """``secret``: the same for the same key version, context and info; stored nowhere."""

    secret: bytes

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Mac(Facts, frozen=True):
    """``message``: what is authenticated; send ``tag`` too to have it checked in constant time."""

    message: bytes
    tag: bytes | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class MacResult(Result, frozen=True):
    """``tag``: HMAC-SHA-256, 32 bytes."""

    tag: bytes


class Wrapped(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """The inside of ``ksw1.``: for HPKE ``nonce`` is empty and ``ciphertext`` starts with enc."""

    kid: str
    version: int
    nonce: bytes
    ciphertext: bytes


def subkey_info(key_id: str, version: int, operation: str, context: str) -> bytes:
    """HKDF info of one operation's subkey: key, version, purpose, operation and context."""
    return length_prefixed(
        (
            b"keystead/data/v1",
            key_id.encode(),
            str(version).encode(),
            b"data",
            operation.encode(),
            context.encode(),
        )
    )


def encode_wrapped(wrapped: Wrapped) -> str:
    """The text form of wrapped data."""
    return _PREFIX + b64u_encode(msgspec.msgpack.encode(wrapped))


def decode_wrapped(text: str) -> Wrapped:
    """Read wrapped data.

    Raises:
        MalformedRequest: not ``ksw1.``, cut off, or altered so that it does not parse.
    """
    if not text.startswith(_PREFIX):
        raise MalformedRequest(f"expected wrapped data: {_PREFIX}...")
    try:
        wrapped = msgspec.msgpack.decode(b64u_decode(text[len(_PREFIX) :]), type=Wrapped)
    except (MalformedRequest, *DECODE_ERRORS) as exc:
        raise MalformedRequest("the wrapped data is cut off or altered: it does not parse") from exc
    if len(wrapped.nonce) not in (0, _NONCE_BYTES) or wrapped.version < 1:
        raise MalformedRequest("the wrapped data holds a bad nonce or version")
    return wrapped


def check_data(facts: Wrap | Unwrap | Derive | Mac) -> None:
    """Hold the facts of a data operation to their limits.

    Raises:
        MalformedRequest: which field, expected and actual.
    """
    match facts:
        case Wrap(plaintext=data) | Mac(message=data):
            if len(data) > limits.DATA_BYTES_MAX:
                raise MalformedRequest(
                    f"expected at most {limits.DATA_BYTES_MAX} bytes, met {len(data)}",
                    hint="Wrap a data key, and encrypt the data under it yourself",
                )
        case Derive(length=length, info=info):
            if not 1 <= length <= limits.DERIVED_BYTES_MAX:
                raise MalformedRequest(
                    f"expected a length from 1 to {limits.DERIVED_BYTES_MAX}, met {length}"
                )
            if len(info) > limits.CONTEXT_BYTES_MAX:
                raise MalformedRequest(f"expected info of at most {limits.CONTEXT_BYTES_MAX} bytes")
        case Unwrap():
            pass  # bounded by the body, and by decode_wrapped
