import hashlib

import msgspec
import pytest

from keystead.cli.tour.records import Expected, judge
from keystead.keys.commands import RecordInfo

ENTRY = bytes(range(32))
LEAF = hashlib.sha256(b"\x00" + ENTRY).hexdigest()
RECORD = RecordInfo(
    seq=5,
    body={
        "seq": 5,
        "op": "jwt.sign",
        "outcome": "ok",
        "principal": "login",
        "handle": "h1",
        "context": "shop/eu",
        "signed": "00ff",
    },
    entry=ENTRY.hex(),
    leaf=LEAF,
)
EXPECTED = Expected(op="jwt.sign", outcome="ok", principal="login", handle="h1", seq=5)


def with_body(**members: str | int | None) -> RecordInfo:
    return msgspec.structs.replace(RECORD, body={**RECORD.body, **members})


def test_the_record_of_a_use_becomes_a_row() -> None:
    row = judge(EXPECTED, [RECORD])
    assert (row.status, row.seq, row.principal, row.context) == ("ok", 5, "login", "shop/eu")
    assert row.note == ""


@pytest.mark.parametrize("count", [0, 2])
def test_a_request_has_exactly_one_record(count: int) -> None:
    row = judge(EXPECTED, [RECORD] * count)
    assert (row.status, row.seq) == ("failed", None)
    assert f"met {count}" in row.note


@pytest.mark.parametrize(
    ("record", "note"),
    [
        (with_body(op="ca.sign"), "op"),
        (with_body(outcome="key_state"), "outcome"),
        (with_body(handle="h2"), "handle"),
        (with_body(principal="mallory"), "principal"),
        (with_body(seq=6), "seq in its body"),
        (with_body(signed=None), "commitment"),
        (msgspec.structs.replace(RECORD, seq=6), "seq"),
        (msgspec.structs.replace(RECORD, entry="00"), "entry of 32 bytes"),
        (msgspec.structs.replace(RECORD, leaf="00" * 32), "leaf"),
    ],
)
def test_a_record_that_says_otherwise_fails(record: RecordInfo, note: str) -> None:
    row = judge(EXPECTED, [record])
    assert row.status == "failed"
    assert note in row.note


def test_a_refusal_under_no_known_handle_names_no_principal() -> None:
    body: dict[str, str | int | bool | None] = {
        "seq": 5,
        "op": "jwt.sign",
        "outcome": "handle_invalid",
    }
    record = msgspec.structs.replace(RECORD, body=body)
    assert judge(Expected(op="jwt.sign", outcome="handle_invalid"), [record]).status == "ok"


def test_an_operators_request_may_name_any_operator() -> None:
    body: dict[str, str | int | bool | None] = {
        "seq": 5,
        "op": "key.show",
        "outcome": "not_found",
        "principal": "operator",
    }
    record = msgspec.structs.replace(RECORD, body=body)
    row = judge(Expected(op="key.show", outcome="not_found"), [record])
    assert (row.status, row.principal) == ("ok", "operator")
