"""Figures, picture and table of a drill of revocations, and what it plans to stop."""

from xml.etree import ElementTree as ET

import pytest
from rich.console import Console
from typer import BadParameter

from keystead.cli import drill
from keystead.cli.drill_revocation import draw_revocation
from keystead.drills.findings import check
from keystead.drills.revocation.expected import checks
from keystead.drills.revocation.figures import figures
from keystead.drills.revocation.picture import svg
from keystead.drills.revocation.report import Report, judged
from keystead.drills.revocation.targets import (
    COMBINATIONS,
    KINDS,
    REVOCATIONS_MAX,
    REVOCATIONS_MIN,
    WORKS,
    targets,
)
from keystead.drills.revocation.timeline import BINS, timeline
from keystead.drills.revocation.trace import OK, Trace
from unit.drills.revoked import COUNT, MS, change_stop, change_use, place_of, played


def report(trace: Trace) -> Report:
    return judged(
        Report(
            run="cafe",
            fronts=trace.fronts,
            seconds=30.26,
            uses=len(trace.uses),
            checks=tuple(checks(trace)),
            figures=figures(trace),
            left="61 keys of tenant drill",
            left_out=(),
            timeline=timeline(trace),
            picture="revocation-drill-cafe.svg",
        )
    )


# --- what is stopped ------------------------------------------------------------------------------


@pytest.mark.parametrize("fronts", [1, 2])
def test_every_kind_meets_every_work_through_every_front(fronts: int) -> None:
    made = targets("cafe", COMBINATIONS * fronts, fronts)
    met = {(target.kind, target.work, target.via) for target in made}
    assert met == {(k, w, f) for k in KINDS for w in WORKS for f in range(fronts)}
    assert [target.number for target in made] == list(range(len(made)))


def test_what_is_stopped_as_a_whole_has_a_key_of_its_own() -> None:
    made = targets("cafe", 6 * COMBINATIONS, 2)
    alone = [
        target.key for target in made if target.kind in {"handles", "suspended", "compromised"}
    ]
    shared = {target.key for target in made if target.kind in {"link", "handle"}}
    assert len(set(alone)) == len(alone) == 54
    assert len(shared) == len(WORKS)
    assert not shared & set(alone)


def test_the_command_takes_the_counts_that_the_drill_knows() -> None:
    bounds = (drill._COUNT_MIN, drill._COUNT_MAX)  # noqa: SLF001  help must not load the drill
    assert bounds == (REVOCATIONS_MIN, REVOCATIONS_MAX)
    assert REVOCATIONS_MIN == COMBINATIONS


# --- figures --------------------------------------------------------------------------------------


def test_times_are_those_that_were_played() -> None:
    durable, first = figures(played())
    assert (durable.ack, durable.revocations) == ("durable", 2 * COUNT // 3)
    assert (first.ack, first.revocations) == ("best_effort", COUNT // 3)
    assert (durable.acknowledged.median, durable.commit.median) == (10.0, 4.0)
    assert durable.use.p99 == 5.0
    assert durable.ratio == 2.0
    assert durable.held.most == 0.0  # the last answer came at the commit
    assert (durable.ended, first.ended and first.ended.most) == (None, 3.0)
    assert durable.refused == 3 * 2 * durable.revocations
    assert durable.raced == 2 * 2 * durable.revocations


def test_what_was_not_measured_has_no_figures() -> None:
    trace = played()
    trace.uses = [use for use in trace.uses if use.outcome != OK]
    assert figures(trace) == ()


def test_one_slow_revocation_shows_in_the_most_and_not_in_the_middle() -> None:
    trace = played()
    change_stop(trace, 0, answered_ns=trace.stopped[0].sent_ns + 500 * MS)
    durable, _ = figures(trace)
    assert (durable.acknowledged.median, durable.acknowledged.most) == (10.0, 500.0)


# --- picture --------------------------------------------------------------------------------------


def test_an_answer_behind_the_acknowledgement_is_seen_there() -> None:
    trace = played()
    durable, _ = timeline(trace)
    assert not [one for one in durable.bins if one.at_ms >= 0 and one.done]
    place = place_of(trace, "durable")
    at = trace.stopped[trace.uses[place].target].answered_ns + 21 * MS
    change_use(trace, place, began_ns=at, ended_ns=at + MS)
    durable, _ = timeline(trace)
    assert [one.at_ms for one in durable.bins if one.at_ms >= 0 and one.done] == [20]


def test_the_picture_is_an_svg_with_a_panel_for_each_way() -> None:
    panels = timeline(played())
    assert [panel.bin_ms for panel in panels] == [5, 5]
    assert all(-5 * BINS <= one.at_ms < 5 * BINS for panel in panels for one in panel.bins)
    drawn = svg("a title with <b> & more", panels)
    root = ET.fromstring(drawn)  # noqa: S314  our own
    words = [element.text for element in root.iter() if element.text and element.text.strip()]
    assert "a title with <b> & more" in words
    assert "Keys that record before they answer: 10 revocations" in words
    assert "Keys that answer before they record: 5 revocations" in words
    assert words.count("acknowledged") == 2
    bars = [each for each in root.iter() if each.get("fill") in {"#3a9d6e", "#b3261e"}]
    assert len(bars) > 4
    assert all(float(each.get("height", "0")) > 0 for each in bars)


def test_a_slow_node_is_drawn_on_a_slower_clock() -> None:
    trace = played()
    for place, one in enumerate(trace.stopped):
        change_stop(trace, place, answered_ns=one.sent_ns + 400 * MS)
    durable, _ = timeline(trace)
    assert durable.bin_ms * BINS >= 400
    assert ET.fromstring(svg("slow", [durable])) is not None  # noqa: S314  our own


# --- the table ------------------------------------------------------------------------------------


def drawn(shown: Report) -> str:
    console = Console(width=220, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        for part in draw_revocation(shown):
            console.print(part)
    return captured.get()


def test_each_check_is_a_line_with_its_verdict() -> None:
    good = report(played())
    bad = judged(
        Report(
            run="cafe",
            fronts=good.fronts,
            seconds=1.0,
            uses=1,
            checks=(*good.checks, check("all", "x [bold]", "1", "2 \x1b[31m", held=False)),
            figures=good.figures,
            left=good.left,
            left_out=("one node: nothing was stopped elsewhere",),
            timeline=(),
        )
    )
    assert (good.ok, bad.ok, bad.failed) == (True, False, 1)
    lines = drawn(bad).splitlines()
    assert sum(line.startswith("pass") for line in lines) == len(good.checks)
    assert sum(line.startswith("fail") for line in lines) == 1
    text = "\n".join(lines)
    assert "x [bold]" in text
    assert "\x1b[31m" not in text
    for said in ("one node: nothing", "61 keys", f"{len(good.checks)} checks hold, 1 fail"):
        assert said in text


def test_the_figures_stand_side_by_side() -> None:
    text = drawn(report(played()))
    [line] = [line for line in text.splitlines() if line.startswith("acknowledged, from sending")]
    assert line.count("10.0, p99 10.0, most 10.0") == 2
    assert "a at http://127.0.0.1:1, b at http://127.0.0.1:2" in text


@pytest.mark.parametrize(
    ("address", "peer", "found"),
    [
        ("http://a", None, ("http://a",)),
        ("http://a", "http://b", ("http://a", "http://b")),
        ("http://a, http://b", None, ("http://a", "http://b")),
        ("http://a,http://b", "http://c", None),
        ("a,b,c", None, None),
        (",", None, None),
    ],
)
def test_fronts_are_one_or_two(
    address: str, peer: str | None, found: tuple[str, ...] | None
) -> None:
    if found is None:
        with pytest.raises(BadParameter, match="one or two nodes"):
            drill.fronts(address, peer)
    else:
        assert drill.fronts(address, peer) == found
