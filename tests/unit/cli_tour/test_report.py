import json

import pytest

from keystead.cli.tour.report import (
    CheckFailed,
    NotInstalled,
    RecordRow,
    RefusalRow,
    Report,
    Row,
    check,
    checked,
)
from keystead.client import Receipt
from keystead.errors import SignatureInvalid

RECEIPT = Receipt(
    seq=7,
    epoch=1,
    key="k",
    version=1,
    kid="x",
    algorithm="ed25519",
    ack="durable",
    request_id="r-1",
)


def row(status: str = "ok", *, foreign: bool = True) -> Row:
    made = Row(what="w", result="r", checked_by="openssl", foreign=foreign)
    return Row(
        **{name: getattr(made, name) for name in ("what", "result", "checked_by", "foreign")},
        status="failed" if status == "failed" else "ok",
    )


def test_check_raises_what_does_not_hold() -> None:
    found = ["a"]
    check("a" in found, "a letter")
    with pytest.raises(CheckFailed, match="expected two"):
        check("x" in found, "expected two")


def test_a_check_that_holds_is_a_row_with_its_log_indices() -> None:
    made = checked("token", "PyJWT", lambda: "verifies", RECEIPT, RECEIPT)
    assert (made.status, made.result, made.seqs, made.foreign) == ("ok", "verifies", (7, 7), True)


@pytest.mark.parametrize(
    ("wrong", "status"),
    [
        (CheckFailed("openssl refuses"), "failed"),
        (SignatureInvalid("does not verify"), "failed"),
        (NotInstalled("openssl", required=True), "failed"),
        (NotInstalled("openssh-client", required=False), "not checked"),
    ],
)
def test_what_goes_wrong_is_a_row_and_keeps_its_log_indices(wrong: Exception, status: str) -> None:
    def fail() -> str:
        raise wrong

    made = checked("token", "PyJWT", fail, RECEIPT)
    assert (made.status, made.result, made.seqs) == (status, str(wrong), (7,))


def test_a_missing_tool_says_what_to_install() -> None:
    assert str(NotInstalled("openssl", required=True)) == "not checked: install openssl"


def test_a_report_counts_what_held_by_kind() -> None:
    report = Report(url="http://127.0.0.1:1", run="ab")
    assert not report.ok  # nothing was checked
    report.add(row())
    report.add(row(foreign=False))
    report.add(RefusalRow(what="w", expected="c", met="c", message="m", status="ok", seq=3))
    report.add(RecordRow(seq=3, op="jwt.sign", outcome="ok"))
    counts = report.counts()
    assert (counts.held, counts.foreign, counts.refusals, counts.records) == (4, 1, 1, 1)
    assert report.ok


@pytest.mark.parametrize(
    "finding",
    [
        row("failed"),
        RefusalRow(what="w", expected="c", met="ok", message="m", status="failed"),
        RecordRow(seq=None, op="jwt.sign", outcome="ok", status="failed"),
    ],
)
def test_one_failure_of_any_kind_fails_the_report(
    finding: Row | RefusalRow | RecordRow,
) -> None:
    report = Report(url="http://127.0.0.1:1", run="ab")
    report.add(row())
    report.add(finding)
    assert report.counts().failed == 1
    assert not report.ok


def test_the_document_holds_every_finding() -> None:
    report = Report(url="http://127.0.0.1:1", run="ab")
    report.add(row())
    report.seconds = 1.23456
    document = json.loads(report.document())
    assert document["ok"] is True
    assert document["seconds"] == 1.235
    assert document["rows"][0]["checked_by"] == "openssl"
    assert document["refusals"] == document["records"] == []
