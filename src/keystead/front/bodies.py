"""Heads and bodies of requests, held to their limits before anything reads them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

from keystead import limits
from keystead.errors import LimitExceeded, MalformedRequest, Unauthenticated
from keystead.front.problems import Rejection
from keystead.front.watch import RequestWatch

__all__ = [
    "Disconnected",
    "Head",
    "Message",
    "Receive",
    "Scope",
    "Send",
    "bearer_of",
    "check_json",
    "idempotency_key_of",
    "read_body",
    "read_head",
]

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_LINE_BYTES = 4  # ": " and CRLF of a header line
_LENGTH_DIGITS_MAX = 18  # what fits 64 bits; int() of more would be work for nothing
_DISCARD_S = 2.0
_DISCARD_BYTES_MAX = 2 * limits.BODY_BYTES_MAX
_ONCE = (
    b"authorization",
    b"content-length",
    b"content-type",
    b"idempotency-key",
    b"keystead-proof",
    b"transfer-encoding",
)


class Disconnected(Exception):
    """The client went away before its request was complete: nobody is there to answer."""


class Head(NamedTuple):
    """Headers by lower-case name, and the most bytes of body that will be kept of the request."""

    headers: dict[bytes, bytes]
    body_bytes: int
    too_long: bool = False


def read_head(scope: Scope, *, body_bytes_max: int) -> Head:
    """Check the headers of a request.

    Raises:
        Rejection: too many bytes of headers (431, RFC 6585 section 5).
        MalformedRequest: a header twice that may stand once, a length that is no number, or a
            transfer coding other than chunked.
    """
    raw: list[tuple[bytes, bytes]] = list(scope["headers"])
    size = len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"")
    for name, value in raw:
        size += len(name) + len(value) + _LINE_BYTES
    if size > limits.HEADER_BYTES_MAX:
        raise Rejection(
            LimitExceeded(
                f"expected headers of at most {limits.HEADER_BYTES_MAX} bytes, met {size}"
            ),
            status=431,
            reason="header_bytes",
        )
    headers = dict(raw)
    if len(headers) != len(raw):
        _refuse_twice(raw)
    coding = headers.get(b"transfer-encoding", b"chunked")
    if coding.strip().lower() != b"chunked":  # RFC 9112 section 6.1: another would be to undo
        raise MalformedRequest("expected no transfer-encoding but chunked")
    text = headers.get(b"content-length")
    if text is None:
        return Head(headers, body_bytes_max if b"transfer-encoding" in headers else 0)
    if not text.isdigit():
        raise MalformedRequest("expected content-length as digits")
    if len(text) > _LENGTH_DIGITS_MAX or int(text) > body_bytes_max:
        return Head(headers, 0, too_long=True)
    return Head(headers, int(text))


def _refuse_twice(raw: list[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in raw]
    for name in _ONCE:
        if names.count(name) > 1:  # two readers could each take another one
            raise MalformedRequest(f"expected one {name.decode()} header, met several")


async def read_body(
    receive: Receive,
    head: Head,
    watch: RequestWatch,
    *,
    body_bytes_max: int,
    grown: Callable[[int], None] | None = None,
) -> bytes:
    """The whole body; ``grown`` is told its size as it arrives, and may refuse it.

    Raises:
        Rejection: longer than the bound (413), or it stalled until the request's time ran out (408,
            RFC 9110 section 15.5.9).
        Disconnected: the client went away.
    """
    announced = head.headers.get(b"content-length")
    if head.too_long:
        # Who asks first (RFC 9110 section 10.1.1) has sent nothing yet.
        raise await _too_long(receive, body_bytes_max, more=b"expect" not in head.headers)
    if announced is None and b"transfer-encoding" not in head.headers:
        return b""
    chunks: list[bytes] = []
    size = 0
    try:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            chunk = message.get("body", b"")
            size += len(chunk)
            if size > body_bytes_max:
                raise await _too_long(receive, body_bytes_max, more=bool(message.get("more_body")))
            if grown is not None:
                grown(size)
            chunks.append(chunk)
            # Granian ends every body by an empty message of its own; with the length known, that
            # turn of the loop is saved.
            if not message.get("more_body") or (announced is not None and size >= head.body_bytes):
                break
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or not watch.expired(task):
            raise
        raise Rejection(
            MalformedRequest("the body did not arrive in time"), status=408, reason="body_stalled"
        ) from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _discard(receive: Receive) -> None:
    """Read on for a while, and keep nothing.

    A connection that is closed while bytes come in is reset, and the client never sees why.
    """
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DISCARD_S):
            while size < _DISCARD_BYTES_MAX:
                message = await receive()
                size += len(message.get("body", b""))
                if not message.get("more_body"):
                    return


async def _too_long(receive: Receive, body_bytes_max: int, *, more: bool) -> Rejection:
    if more:
        await _discard(receive)
    return Rejection(
        LimitExceeded(f"expected a body of at most {body_bytes_max} bytes"),
        status=413,
        reason="body_bytes",
    )


def check_json(headers: Mapping[bytes, bytes]) -> None:
    """Refuse a body that does not call itself JSON: what a web page may post unasked never does.

    Raises:
        Rejection: 415, RFC 9110 section 15.5.16.
    """
    kind = headers.get(b"content-type", b"")
    if (
        kind != b"application/json"
        and kind.partition(b";")[0].strip().lower() != b"application/json"
    ):
        raise Rejection(
            MalformedRequest("expected content-type application/json"),
            status=415,
            reason="content_type",
            headers=[(b"accept", b"application/json")],
        )


def bearer_of(headers: Mapping[bytes, bytes]) -> str:
    """The bearer token (RFC 6750 section 2.1), or nothing if there is no such header.

    Raises:
        Unauthenticated: the header is there and is not a bearer token.
    """
    value = headers.get(b"authorization")
    if value is None:
        return ""
    scheme, _, token = value.partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token or not token.isascii():
        raise Unauthenticated("expected 'Authorization: Bearer ...'")
    return token.decode("ascii")


def idempotency_key_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The idempotency key (draft-ietf-httpapi-idempotency-key-header), if one is given.

    Raises:
        MalformedRequest: too long, or not printable ASCII.
    """
    value = headers.get(b"idempotency-key")
    if value is None:
        return None
    text = value.decode("latin-1")
    if not 1 <= len(value) <= limits.IDEMPOTENCY_KEY_BYTES_MAX or not (
        text.isascii() and text.isprintable()
    ):
        raise MalformedRequest(
            f"expected an idempotency-key of 1 to {limits.IDEMPOTENCY_KEY_BYTES_MAX}"
            " printable ASCII characters"
        )
    return text
