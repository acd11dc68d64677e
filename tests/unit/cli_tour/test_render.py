import io
import sys

import pytest

from keystead.cli.tour.render import draw, progress, stdout_console
from keystead.cli.tour.report import RecordRow, RefusalRow, Report, Row


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def a_report() -> Report:
    report = Report(url="http://127.0.0.1:7410", run="ab12")
    report.add(
        Row(what="JWT, ES256", result="verifies", checked_by="PyJWT", foreign=True, seqs=(4, 5))
    )
    report.add(Row(what="[red]odd", result="a\x1b[31mb", checked_by="own", status="not checked"))
    report.add(
        RefusalRow(
            what="a spent handle",
            expected="limit_exceeded",
            met="ok",
            message="it was done",
            status="failed",
        )
    )
    report.add(RecordRow(seq=4, op="jwt.sign", outcome="ok", principal="login", handle="h" * 25))
    return report


def shown(report: Report, file: io.StringIO) -> str:
    stdout_console(file).print(draw(report))
    return file.getvalue()


def test_a_report_says_what_who_and_where() -> None:
    text = shown(a_report(), io.StringIO())
    assert "Keystead tour ab12 of http://127.0.0.1:7410" in text
    for part in ("JWT, ES256", "PyJWT", "4, 5", "a spent handle", "limit_exceeded", "jwt.sign"):
        assert part in text
    assert "2 checks held, 1 failed, 1 not checked" in text


def test_no_colour_on_a_pipe_whatever_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b" not in shown(a_report(), io.StringIO())


def test_colour_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[" in shown(a_report(), Terminal())


def test_a_nodes_words_are_neither_markup_nor_control() -> None:
    text = shown(a_report(), io.StringIO())
    assert "[red]odd" in text
    assert "a\\x1b[31mb" in text


def test_a_note_has_a_column_only_if_there_is_one() -> None:
    report = a_report()
    assert "note" not in shown(report, io.StringIO())
    report.add(RecordRow(seq=None, op="x", outcome="ok", status="failed", note="no record"))
    assert "no record" in shown(report, io.StringIO())


def test_progress_says_nothing_on_a_pipe(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress(2) as steps:
        steps.begin("one")
        steps.end()
    assert pipe.getvalue() == ""
    assert capfd.readouterr() == ("", "")


def test_progress_names_the_step_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(2) as steps:
        steps.begin("making keys")
        steps.end()
    assert "making keys" in terminal.getvalue()
