"""What relying parties tell from a command line: reports and acknowledgements."""

from pathlib import Path

import pytest

from keystead.keys.caveats import ContextPrefix
from keystead.keys.purposes import Purpose
from unit.cli.conftest import Run
from unit.cli.node import FakeNode, answered, token_of


@pytest.fixture(autouse=True)
def handle(run: Run) -> str:
    del run  # it moves to a folder of its own first
    token = token_of(Purpose.JWT, ContextPrefix("shop/eu"))
    Path("gateway.handle").write_text(token)
    return token


def test_a_report_cites_a_record(run: Run, node: FakeNode, handle: str) -> None:
    node.on("POST /v1/keys/shop/reports", answered({"version": 2, "counted": True}))
    words = ["--seq", "1042", "--problem", "unknown_key", "--handle-file", "gateway.handle"]
    ran = run("report", "shop", *words, "--reason", "gateway 3", "--idempotency-key", "once")
    assert (ran.status, ran.out) == (0, "Reported version 2, by record 1042.\n")
    assert "is record 7" in ran.err
    [seen] = node.seen
    assert seen.headers["authorization"] == f"Bearer {handle}"
    assert seen.headers["idempotency-key"] == "once"
    assert seen.body["facts"] == {"seq": 1042, "problem": "unknown_key", "key": "shop"}
    assert (seen.body["context"], seen.body["reason"]) == ("shop/eu", "gateway 3")
    node.on("POST /v1/keys/shop/reports", answered({"version": 2, "counted": False}))
    assert "counts once" in run("report", "shop", *words).out
    told = run("report", "shop", *words, "--json")
    assert told.json["result"] == {"version": 2, "counted": False}
    assert told.err == ""


def test_an_acknowledgement_names_a_kid(run: Run, node: FakeNode) -> None:
    node.on("POST /v1/keys/shop/acknowledgements", answered({"version": 2}))
    words = ["--kid", "kid-2", "--handle-file", "gateway.handle", "--context", "shop/eu/till"]
    ran = run("acknowledge", "shop", *words)
    assert (ran.status, ran.out) == (0, "Acknowledged version 2.\n")
    [seen] = node.seen
    assert seen.body["facts"] == {"kid": "kid-2", "key": "shop"}
    assert seen.body["context"] == "shop/eu/till"
    assert "kso1" not in seen.headers["authorization"], "the operator's token is not asked for"


@pytest.mark.parametrize(
    "words",
    [
        ("report", "shop", "--seq", "1"),
        ("report", "shop", "--problem", "signature"),
        ("report", "shop", "--seq", "-1", "--problem", "signature"),
        ("report", "shop", "--seq", "1", "--problem", "bored"),
        ("acknowledge", "shop"),
        ("acknowledge", "--kid", "k"),
    ],
)
def test_what_makes_no_sense_is_refused_unasked(
    run: Run, node: FakeNode, words: tuple[str, ...]
) -> None:
    assert run(*words, "--handle-file", "gateway.handle").status == 2
    assert run("report", "shop", "--seq", "1", "--problem", "other").status == 2, "no handle"
    assert node.seen == []


def test_who_may_not_report_is_told_so(run: Run, node: FakeNode) -> None:
    node.on(
        "POST /v1/keys/shop/reports",
        {"code": "permission_denied", "detail": "the handle does not allow 'report'"},
        status=403,
    )
    words = ["--seq", "1", "--problem", "other", "--handle-file", "gateway.handle"]
    ran = run("report", "shop", *words)
    assert ran.status == 1
    assert "does not allow 'report'" in ran.err
