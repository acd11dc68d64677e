"""Messages: their places on the wire are frozen, so that an old binary talks to a new one."""

from typing import get_args

import msgspec
import pytest

from keystead.frames.messages import (
    Admin,
    Answer,
    Checkpoint,
    Done,
    Metric,
    Proof,
    Public,
    Receipt,
    Refused,
    Request,
    Status,
    StatusInfo,
    Tend,
    Use,
    WitnessView,
)

FIELDS = {
    Use: "id handle purpose operation context facts version idempotency_key reason proof unix_peer",
    Admin: "id token command idempotency_key",
    Public: "id what name",
    Status: "id",
    Tend: "id findings cosigned witnesses behind",
    Checkpoint: "id",
    WitnessView: "name size time_s trouble",
    Done: "id result receipt",
    Refused: "id code message hint retry_after_s request_id",
    Proof: "time_ms signature certificate",
    Receipt: "seq epoch key version kid algorithm ack request_id replayed node",
    Metric: "name kind help labels value",
}
"""Fields by place: a new one goes to the end and has a default, or old and new do not talk."""


@pytest.mark.parametrize("message", FIELDS)
def test_the_places_of_fields_are_frozen(message: type[msgspec.Struct]) -> None:
    assert " ".join(message.__struct_fields__) == FIELDS[message]
    assert message.__struct_config__.array_like
    assert message.__struct_config__.frozen


def test_the_tags_are_frozen() -> None:
    tags = [[each.__struct_config__.tag for each in get_args(union)] for union in (Request, Answer)]
    requests = ["use", "admin", "public", "status", "tend", "checkpoint"]
    assert tags == [requests, ["done", "refused"]]


def test_a_message_from_a_newer_side_is_read_as_far_as_it_is_known() -> None:
    assert msgspec.msgpack.decode(b"\x93\xa6status\x01\xa3new", type=Request) == Status(1)
    assert msgspec.msgpack.decode(b"\x92\xa4tend\x01", type=Request) == Tend(1, ())


def test_a_status_reads_back() -> None:
    info = StatusInfo(
        ready=False,
        reasons=("sealed",),
        deployment="d",
        node="n",
        epoch=1,
        last_seq=-1,
        keys=0,
        protections={"anchor": "off"},
        metrics=(Metric("up", "gauge", "Up.", {}, 1.0),),
    )
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(info), type=StatusInfo) == info
