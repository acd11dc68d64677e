"""Record bodies and the 32-byte entries that stand for them in the tree (design section 8).

What is published is only ``entry = SHA-256(salt || body)`` and hashes over it. The body is kept as
the exact bytes that were hashed, so that it can be disclosed, or erased, by itself.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import msgspec

from keystead.encoding import DECODE_ERRORS
from keystead.errors import MalformedRequest

__all__ = [
    "ENTRY_BYTES",
    "SALT_BYTES",
    "Body",
    "Draft",
    "commitment",
    "commitments",
    "decode_body",
    "encode_draft",
    "entry_of",
    "leaf_hash",
    "place",
]

SALT_BYTES = 16
ENTRY_BYTES = 32


class Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record but for its place. Every field is the vault's own or bounded; none is a secret.

    ``time_ms``: the vault's clock, a help for people; order is by epoch and seq. ``outcome``:
    ``ok``, or a denial's code. ``signed``: :func:`commitment` to what was signed, in hex.
    ``count``: how many uses a summary or reservation stands for.
    """

    time_ms: int
    node: str
    op: str
    outcome: str
    request: str
    key: str = ""
    name: str = ""
    version: int = 0
    revision: int = 0
    purpose: str = ""
    algorithm: str = ""
    ack: str = "durable"
    prehashed: bool = False
    tenant: str = ""
    context: str = ""
    handle: str = ""
    link: str = ""
    principal: str = ""
    reason: str = ""
    detail: str = ""
    reservation: str = ""
    count: int = 0
    signed: str = ""


class Body(Draft, frozen=True, kw_only=True, omit_defaults=True):
    """A record in its place: ``seq`` is the log index from 0, ``epoch`` that of its commit."""

    seq: int
    epoch: int


_ENCODER = msgspec.json.Encoder()
_DECODER = msgspec.json.Decoder(Body)


def encode_draft(draft: Draft) -> bytes:
    """The JSON of a draft; drafts are encoded before the commit, to keep the commit short."""
    return _ENCODER.encode(draft)


def place(seq: int, epoch: int, draft: bytes) -> bytes:
    """The exact bytes that are hashed and kept: an encoded draft, behind its place in the log."""
    return b'{"seq":%d,"epoch":%d,' % (seq, epoch) + draft[1:]


def decode_body(data: bytes) -> Body:
    """A body from its stored bytes.

    Raises:
        MalformedRequest: they are not a record's.
    """
    try:
        return _DECODER.decode(data)
    except DECODE_ERRORS as exc:
        raise MalformedRequest("expected the body of a record") from exc


def entry_of(salt: bytes, body: bytes) -> bytes:
    """The entry: SHA-256(salt || body), 32 bytes; the salt is 16 random bytes."""
    return hashlib.sha256(salt + body).digest()


def leaf_hash(entry: bytes) -> bytes:
    """The leaf of an entry: SHA-256(0x00 || entry) (RFC 6962 section 2.1)."""
    return hashlib.sha256(b"\x00" + entry).digest()


def commitment(salt: bytes, message: bytes) -> str:
    """HMAC-SHA-256 of what was signed under the record's salt, in hex: opens with the record."""
    return hmac.digest(salt, message, hashlib.sha256).hex()


def commitments(salt: bytes) -> Callable[[bytes], str]:
    """As :func:`commitment`, for many messages under one salt: half the time of each."""
    keyed = hmac.new(salt, digestmod=hashlib.sha256)

    def commit(message: bytes) -> str:
        one = keyed.copy()
        one.update(message)
        return one.hexdigest()

    return commit
