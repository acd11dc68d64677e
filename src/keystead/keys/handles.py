"""Handles: capabilities for one key, narrowed by caveats that their holder adds without asking.

The macaroon construction (Birgisson et al., NDSS 2014): tag0 = HMAC-SHA-256(handle root, body),
tag(i+1) = HMAC-SHA-256(tag(i), caveat i). Only the vault knows the root, so only it verifies; who
holds a tag can append a caveat and cannot take one away. On the wire: ``ks1.`` and base64url of the
msgpack array [body, [caveat, ...], tag].
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NoReturn

import msgspec

from keystead import limits
from keystead.encoding import DECODE_ERRORS, b64u_decode, b64u_encode, length_prefixed
from keystead.errors import HandleInvalid, MalformedRequest
from keystead.keys.caveats import Caveat, Rate, Uses, decode_caveat, encode_caveat
from keystead.keys.purposes import PURPOSES, SIGNALS, Purpose

__all__ = [
    "HANDLE_INFO",
    "Body",
    "Grant",
    "Handle",
    "attenuate",
    "handle_root_info",
    "issue",
    "parse",
    "verify",
]

_PREFIX = "ks1."
_TAG_BYTES = 32
HANDLE_INFO = b"keystead/handle/v1"


class Body(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the first tag covers: the key, what for, which operations, under which generation."""

    key_id: str
    purpose: Purpose
    operations: tuple[str, ...]
    handle_id: str
    generation: int


class _Wire(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    body: bytes
    caveats: tuple[bytes, ...]
    tag: bytes


class Handle:
    """A parsed handle. It prints as id and purpose; the token leaves only by :meth:`reveal`.

    Made by :func:`issue`, :func:`attenuate` and :func:`parse`. ``encoded_body`` and
    ``encoded_caveats`` are ``body`` and ``caveats`` as the tags cover them.
    """

    __slots__ = ("_tag", "body", "caveats", "encoded_body", "encoded_caveats")

    def __init__(self, wire: _Wire, body: Body, caveats: tuple[Caveat, ...]) -> None:
        self.encoded_body = wire.body
        self.encoded_caveats = wire.caveats
        self._tag = wire.tag
        self.body = body
        self.caveats = caveats

    def __repr__(self) -> str:
        return f"<Handle {self.body.handle_id} for {self.body.purpose!s}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a handle is not pickled: hand on its token on purpose, by reveal()")

    def reveal(self) -> str:
        """The token itself, a secret: whoever has it has the capability."""
        wire = _Wire(self.encoded_body, self.encoded_caveats, self._tag)
        return _PREFIX + b64u_encode(msgspec.msgpack.encode(wire))

    @property
    def chain_tag(self) -> bytes:
        """The last tag: a secret, as it is all an attenuation needs."""
        return self._tag

    @property
    def chain_id(self) -> str:
        """The public id of the last link, as it stands in records and in proofs of possession."""
        return _link_id(self._tag)


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """A verified handle: what it allows, and under which ids its budgets are counted.

    ``links``: one id a link, from the body's to the last caveat's: the first 16 bytes of
    SHA-256(tag), in hex. Ids are public: a link is revoked and recorded by its id. ``budgets``:
    (link id, caveat) of each ``rate`` and ``uses``.
    """

    body: Body
    caveats: tuple[Caveat, ...]
    links: tuple[str, ...]
    budgets: tuple[tuple[str, Rate | Uses], ...]

    @property
    def chain_id(self) -> str:
        """The id of the last link: stands in records for exactly this handle."""
        return self.links[-1]


def handle_root_info(key_id: str, generation: int) -> bytes:
    """HKDF info (RFC 5869) of the handle root of a key's generation."""
    return length_prefixed((HANDLE_INFO, key_id.encode(), str(generation).encode()))


def issue(root: bytes, body: Body, caveats: tuple[Caveat, ...] = ()) -> Handle:
    """Make a handle under a root; the vault only.

    Raises:
        MalformedRequest: operations that the purpose lacks, or bad caveats.
    """
    allowed = (*PURPOSES[body.purpose].operations, *SIGNALS)
    if not body.operations or set(body.operations) - set(allowed):
        raise MalformedRequest(
            f"expected operations out of {', '.join(allowed)} for purpose {body.purpose!s}"
        )
    encoded = msgspec.msgpack.encode(body)
    wire = _Wire(encoded, (), hmac.digest(root, encoded, hashlib.sha256))
    return attenuate(Handle(wire, body, ()), *caveats)


def attenuate(handle: Handle, *caveats: Caveat) -> Handle:
    """A narrower child of a handle, made by its holder alone.

    Raises:
        MalformedRequest: bad caveats, or more than a handle may carry.
    """
    added = tuple(encode_caveat(caveat) for caveat in caveats)
    encoded = handle.encoded_caveats + added
    if len(encoded) > limits.HANDLE_CAVEATS_MAX:
        raise MalformedRequest(f"expected at most {limits.HANDLE_CAVEATS_MAX} caveats on a handle")
    tag = handle.chain_tag
    for item in added:
        tag = hmac.digest(tag, item, hashlib.sha256)
    child = Handle(_Wire(handle.encoded_body, encoded, tag), handle.body, handle.caveats + caveats)
    if len(child.reveal()) > limits.HANDLE_BYTES_MAX:
        raise MalformedRequest(f"expected a handle of at most {limits.HANDLE_BYTES_MAX} bytes")
    return child


def parse(token: str) -> Handle:
    """Read a token; whether its tags hold, only the vault can tell.

    Raises:
        HandleInvalid: not a handle, too large, an unknown caveat, or not canonical.
    """
    if not token.startswith(_PREFIX) or len(token) > limits.HANDLE_BYTES_MAX:
        raise HandleInvalid(
            f"expected a handle: {_PREFIX}..., at most {limits.HANDLE_BYTES_MAX} bytes",
            hint="Send it as 'Authorization: Bearer ks1...'",
        )
    try:
        raw = b64u_decode(token[len(_PREFIX) :])
        wire = msgspec.msgpack.decode(raw, type=_Wire)
        body = msgspec.msgpack.decode(wire.body, type=Body)
    except (MalformedRequest, *DECODE_ERRORS) as exc:
        raise HandleInvalid("the handle is cut off or altered: it does not parse") from exc
    if (
        len(wire.caveats) > limits.HANDLE_CAVEATS_MAX
        or len(wire.tag) != _TAG_BYTES
        or msgspec.msgpack.encode(wire) != raw
    ):
        raise HandleInvalid("the handle is not canonically encoded")
    return Handle(wire, body, tuple(decode_caveat(item) for item in wire.caveats))


def verify(root: bytes, handle: Handle) -> Grant:
    """Check the chain of tags under the root of the handle's key and generation.

    Raises:
        HandleInvalid: the tags do not hold: not issued here, or altered.
    """
    tag = hmac.digest(root, handle.encoded_body, hashlib.sha256)
    links = [_link_id(tag)]
    budgets: list[tuple[str, Rate | Uses]] = []
    for encoded, caveat in zip(handle.encoded_caveats, handle.caveats, strict=True):
        tag = hmac.digest(tag, encoded, hashlib.sha256)
        links.append(_link_id(tag))
        if isinstance(caveat, Rate | Uses):
            budgets.append((links[-1], caveat))
    if not hmac.compare_digest(tag, handle.chain_tag):
        raise HandleInvalid("the handle's tags do not hold: it was not issued here, or was altered")
    return Grant(
        body=handle.body,
        caveats=handle.caveats,
        links=tuple(links),
        budgets=tuple(budgets),
    )


def _link_id(tag: bytes) -> str:
    return hashlib.sha256(tag).hexdigest()[:32]
