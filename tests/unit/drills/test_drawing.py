"""``keystead drill rotation`` as people read it."""

import msgspec
from rich.console import Console

from keystead.cli import drill
from keystead.cli.drill import draw
from keystead.drills.findings import check
from keystead.drills.rotation.expected import checks
from keystead.drills.rotation.lengths import SCALE_MAX, SCALE_MIN
from keystead.drills.rotation.report import Report, judged
from unit.drills.played import Played

REPORT = Report(
    run="cafe",
    url="https://node.example",
    key="drill-cafe",
    seconds=46.25,
    scale=1.0,
    checks=(),
    tokens=6_880,
    left="key drill-cafe of tenant drill",
    timeline=(),
    picture="rotation-drill-cafe.svg",
)


def drawn(report: Report) -> str:
    console = Console(width=220, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for part in draw(report):
            console.print(part)
    return captured.get()


def test_each_check_is_a_line_with_its_verdict() -> None:
    found = (*checks(Played().whole()), check("all", "x [bold]", "1", "2 \x1b[31m", held=False))
    report = judged(msgspec.structs.replace(REPORT, checks=found))
    text = drawn(report)
    lines = text.splitlines()
    assert sum(line.startswith("pass") for line in lines) == len(found) - 1
    assert sum(line.startswith("fail") for line in lines) == 1
    assert "x [bold]" in text
    assert "\x1b[31m" not in text
    assert f"{len(found) - 1} checks hold, 1 fail" in text
    for said in ("drill-cafe", "6,880", "46.2 s", "rotation-drill-cafe.svg"):
        assert said in text


def test_a_report_is_good_only_if_something_was_checked_and_holds() -> None:
    good, bad = (check("all", "x", "1", "1", held=held) for held in (True, False))
    verdicts = [
        judged(msgspec.structs.replace(REPORT, checks=found)).ok
        for found in ((), (good,), (good, bad), (bad,))
    ]
    assert verdicts == [False, True, False, False]


def test_the_command_takes_the_scales_that_the_drill_knows() -> None:
    assert (drill._SCALE_MIN, drill._SCALE_MAX) == (SCALE_MIN, SCALE_MAX)  # noqa: SLF001  help must not load the drill
