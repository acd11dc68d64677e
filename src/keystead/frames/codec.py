"""Frames on a stream: 4 bytes of length, big-endian, then msgpack of a list. Limits come first."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from keystead import limits
from keystead.encoding import DECODE_ERRORS
from keystead.errors import MalformedRequest
from keystead.frames.messages import Answer, Request

__all__ = ["FrameReader", "decode_answers", "decode_requests", "encode_frame"]

_LENGTH_BYTES = 4
_ENCODER = msgspec.msgpack.Encoder()
_REQUESTS = msgspec.msgpack.Decoder(list[Request])
_ANSWERS = msgspec.msgpack.Decoder(list[Answer])


def encode_frame(messages: Sequence[Request] | Sequence[Answer]) -> bytes:
    """One frame, length and all."""
    body = _ENCODER.encode(messages)
    return len(body).to_bytes(_LENGTH_BYTES, "big") + body


def decode_requests(body: bytes) -> list[Request]:
    """The requests of a frame's body.

    Raises:
        MalformedRequest: not a list of known requests, or more than a frame may hold.
    """
    try:
        requests = _REQUESTS.decode(body)
    except DECODE_ERRORS as exc:
        raise MalformedRequest("expected a frame of requests, met bytes that do not parse") from exc
    if len(requests) > limits.FRAME_REQUESTS_MAX:
        raise MalformedRequest(
            f"expected at most {limits.FRAME_REQUESTS_MAX} requests, met {len(requests)}"
        )
    return requests


def decode_answers(body: bytes) -> list[Answer]:
    """The answers of a frame's body.

    Raises:
        MalformedRequest: not a list of known answers.
    """
    try:
        return _ANSWERS.decode(body)
    except DECODE_ERRORS as exc:
        raise MalformedRequest("expected a frame of answers, met bytes that do not parse") from exc


class FrameReader:
    """Cuts a stream of bytes into frame bodies; feed it what arrives, in any pieces."""

    def __init__(self, *, bytes_max: int = limits.FRAME_BYTES_MAX) -> None:
        self._buffer = bytearray()
        self._bytes_max = bytes_max

    def feed(self, data: bytes) -> list[bytes]:
        """All bodies that are complete now.

        Raises:
            MalformedRequest: a length past the bound; the connection is not usable any more.
        """
        self._buffer += data
        bodies: list[bytes] = []
        start = 0
        while len(self._buffer) - start >= _LENGTH_BYTES:
            length = int.from_bytes(self._buffer[start : start + _LENGTH_BYTES], "big")
            if length > self._bytes_max:
                raise MalformedRequest(f"expected frames of {self._bytes_max} bytes, met {length}")
            end = start + _LENGTH_BYTES + length
            if len(self._buffer) < end:
                break
            bodies.append(bytes(self._buffer[start + _LENGTH_BYTES : end]))
            start = end
        if start:
            del self._buffer[:start]
        return bodies
