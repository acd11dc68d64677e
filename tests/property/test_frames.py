"""Streams of frames: any chunking gives the same bodies, any bytes give bodies or one error."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keystead.errors import MalformedRequest
from keystead.frames.codec import FrameReader, decode_answers, decode_requests, encode_frame
from keystead.frames.messages import (
    Admin,
    Answer,
    Done,
    Proof,
    Public,
    Receipt,
    Refused,
    Request,
    Status,
    Tend,
    Use,
)

BODIES = st.lists(st.binary(max_size=20), max_size=6)
BYTES_MAX = 64


def framed(bodies: list[bytes]) -> bytes:
    return b"".join(len(body).to_bytes(4, "big") + body for body in bodies)


def chunks(stream: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in pairwise(edges)]


@given(BODIES, st.lists(st.integers(0, 10_000), max_size=12))
def test_any_chunking_gives_the_same_bodies(bodies: list[bytes], cuts: list[int]) -> None:
    reader = FrameReader(bytes_max=BYTES_MAX)
    stream = framed(bodies)
    assert [body for chunk in chunks(stream, cuts) for body in reader.feed(chunk)] == bodies
    assert reader.feed(framed([b"next"])) == [b"next"]  # nothing is left over


@given(BODIES)
def test_byte_by_byte_a_body_comes_with_its_last_byte(bodies: list[bytes]) -> None:
    reader = FrameReader()
    for body in bodies:
        *early, last = [reader.feed(bytes([byte])) for byte in framed([body])]
        assert early == [[]] * len(early)
        assert last == [body]


@given(BODIES, st.integers(BYTES_MAX + 1, 2**32 - 1), st.lists(st.integers(0, 10_000)))
def test_a_hostile_length_ends_the_stream_at_once(
    bodies: list[bytes], length: int, cuts: list[int]
) -> None:
    reader = FrameReader(bytes_max=BYTES_MAX)
    head = length.to_bytes(4, "big")
    seen: list[bytes] = []
    for chunk in chunks(framed(bodies), cuts):
        seen += reader.feed(chunk)
    assert reader.feed(head[:3]) == []
    with pytest.raises(MalformedRequest, match=f"expected frames of {BYTES_MAX} bytes"):
        reader.feed(head[3:])
    assert seen == bodies
    with pytest.raises(MalformedRequest):  # and it stays ended
        reader.feed(b"")


@given(st.lists(st.binary(max_size=20), max_size=10))
def test_no_stream_grows_past_its_bound_or_fails_otherwise(stream: list[bytes]) -> None:
    reader = FrameReader(bytes_max=BYTES_MAX)
    try:
        for chunk in stream:
            assert all(len(body) <= BYTES_MAX for body in reader.feed(chunk))
    except MalformedRequest:
        assert len(b"".join(stream)) >= 4


@given(st.binary(max_size=80))
def test_any_body_decodes_or_is_malformed(body: bytes) -> None:
    for decode in (decode_requests, decode_answers):
        try:
            messages = decode(body)
        except MalformedRequest:
            continue
        assert isinstance(messages, list)


INT = st.integers(-(2**63), 2**64 - 1)
TEXT, BYTES = st.text(max_size=8), st.binary(max_size=8)
PROOFS = st.builds(Proof, INT, BYTES, st.none() | BYTES)
USES = st.builds(
    Use,
    *(INT, TEXT, TEXT, TEXT, TEXT, BYTES, INT),
    *(st.none() | TEXT, st.none() | TEXT, st.none() | PROOFS, st.none() | BYTES),
)
REQUESTS: st.SearchStrategy[Request] = st.one_of(
    USES,
    st.builds(Admin, INT, TEXT, BYTES, st.none() | TEXT),
    st.builds(Public, INT, TEXT, TEXT),
    st.builds(Status, INT),
    st.builds(Tend, INT, st.lists(TEXT, max_size=3).map(tuple)),
)
RECEIPTS = st.builds(
    Receipt, st.none() | INT, INT, TEXT, INT, TEXT, TEXT, TEXT, TEXT, st.booleans()
)
ANSWERS: st.SearchStrategy[Answer] = st.one_of(
    st.builds(Done, INT, BYTES, st.none() | RECEIPTS),
    st.builds(Refused, INT, TEXT, TEXT, TEXT, st.none() | st.floats(0, 1e6), TEXT),
)


@given(st.lists(REQUESTS, max_size=4), st.lists(ANSWERS, max_size=4))
def test_messages_come_back_as_they_went(requests: list[Request], answers: list[Answer]) -> None:
    stream = encode_frame(requests) + encode_frame(answers)
    first, second = FrameReader().feed(stream)
    assert decode_requests(first) == requests
    assert decode_answers(second) == answers
