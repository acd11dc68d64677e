"""Frames: what goes out comes back, limits come first, and hostile bodies are one error."""

import msgspec
import pytest

from keystead import limits
from keystead.errors import MalformedRequest
from keystead.frames.codec import FrameReader, decode_answers, decode_requests, encode_frame
from keystead.frames.messages import (
    Answer,
    Done,
    Public,
    Receipt,
    Refused,
    Request,
    Status,
    Use,
)

REQUESTS: list[Request] = [
    Use(1, "ks1.a", "jwt", "sign", "web", b"\x80", 2, "key", "why", None, b"web:33"),
    Public(2, "jwks", "shop"),
    Status(3),
]
ANSWERS: list[Answer] = [
    Done(1, b"\x80", Receipt(0, 1, "shop", 1, "kid", "ed25519", "durable", "r-1")),
    Done(2, b"\x80"),
    Refused(3, "overloaded", "busy", "wait", 1.0, "r-2"),
]


def body_of(frame: bytes) -> bytes:
    assert int.from_bytes(frame[:4], "big") == len(frame) - 4
    return frame[4:]


def test_requests_and_answers_come_back_as_they_went() -> None:
    assert decode_requests(body_of(encode_frame(REQUESTS))) == REQUESTS
    assert decode_answers(body_of(encode_frame(ANSWERS))) == ANSWERS
    assert decode_requests(body_of(encode_frame([]))) == []


HOSTILE = [
    b"",
    b"\xc0",
    b"\x80",
    b"\x91\x92\xa6export\x01",
    b"\x91\x91\xa6status",
    b"\x91\x92\xa6status\xa11",
    b"\x91\x94\xa6public\x01\xa1\xff\xa1a",  # not UTF-8
    b"\x91\x93\xa6status\x01" + b"\x91" * 100_000 + b"\xc0",  # deep, in a field that is skipped
    b"\x91" * 100_000,
    b"\xdd\xff\xff\xff\xff",
    b"\x90\x90",
]


@pytest.mark.parametrize("body", HOSTILE, ids=lambda body: body[:12].hex())
def test_a_body_that_is_no_frame_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest, match="frame of requests"):
        decode_requests(body)
    with pytest.raises(MalformedRequest, match="frame of answers"):
        decode_answers(body)


def test_a_frame_holds_a_bounded_number_of_requests() -> None:
    most = [Status(n) for n in range(limits.FRAME_REQUESTS_MAX)]
    assert decode_requests(msgspec.msgpack.encode(most)) == most
    with pytest.raises(MalformedRequest, match="at most 4096 requests, met 4097"):
        decode_requests(msgspec.msgpack.encode([*most, Status(0)]))


def test_a_stream_is_cut_into_bodies() -> None:
    reader = FrameReader()
    frame = encode_frame(REQUESTS)
    assert reader.feed(frame + frame[:3]) == [frame[4:]]
    assert reader.feed(b"") == []
    assert reader.feed(frame[3:-1]) == []
    assert reader.feed(frame[-1:] + b"\0\0\0\0") == [frame[4:], b""]


def test_a_length_past_the_bound_is_refused_before_its_body_comes() -> None:
    reader = FrameReader(bytes_max=8)
    assert reader.feed(b"\0\0\0\x08" + bytes(8)) == [bytes(8)]
    with pytest.raises(MalformedRequest, match="expected frames of 8 bytes, met 9"):
        reader.feed(b"\0\0\0\x09")
    with pytest.raises(MalformedRequest):
        FrameReader().feed((limits.FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
