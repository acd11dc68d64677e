"""The timeline's data, and the SVG that it is drawn as: what is in it, and where."""

from xml.etree import ElementTree as ET

import msgspec
import pytest

from keystead.drills.rotation.picture import svg
from keystead.drills.rotation.timeline import BIN_MS, Bin, Mark, Panel, timeline
from unit.drills.played import Played

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def panels() -> tuple[Panel, ...]:
    return timeline(Played().whole())


def words_of(document: str) -> list[str]:
    root = ET.fromstring(document)  # noqa: S314  it is our own
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def test_every_token_is_in_one_bin(panels: tuple[Panel, ...]) -> None:
    trace = Played().whole()
    drawn = sum(sum(one.tokens.values()) for panel in panels for one in panel.bins)
    assert drawn == len(trace.signed) > 0
    for panel in panels:
        times = [one.at_s for one in panel.bins]
        assert times == sorted(set(times))
        assert all(0 <= at_s <= panel.length_s for at_s in times)


def test_stages_and_events_stand_where_they_happened(panels: tuple[Panel, ...]) -> None:
    healthy, fault, incident = panels
    assert [mark.words for mark in healthy.stages] == [
        *("publish", "canary 20 %", "ramp 40 %", "ramp 70 %", "promote", "drain")
    ]
    assert healthy.stages[0].at_s == 0.0  # by the drill's clock, not by the node's
    assert healthy.stages[1].at_s == 3.0
    assert [mark.words for mark in healthy.events] == ["version 1 is retired"]
    assert [mark.words for mark in fault.events] == [
        *(f"party-{number} reports a token of version 3" for number in (1, 2, 3)),
        "rolled back to version 2",
    ]
    assert "the rollout is halted" in {mark.words for mark in incident.events}
    assert incident.versions == (2, 4, 5)


def test_the_picture_shows_each_act_stage_and_event(panels: tuple[Panel, ...]) -> None:
    found = words_of(svg("Drill <1> & 'more'", panels))
    assert "Drill <1> & 'more'" in found
    for panel in panels:
        assert panel.title in found
        assert all(mark.words in found for mark in panel.stages)
        for number, mark in enumerate(panel.events, start=1):
            assert f"{number}  {mark.at_s:.1f} s: {mark.words}" in found
        assert all(f"version {version}" in found for version in panel.versions)


def test_bars_are_as_high_as_their_tokens_and_inside_the_plot() -> None:
    panel = Panel(
        name="one",
        title="One",
        length_s=1.0,
        versions=(1, 2),
        bins=(
            Bin(at_s=0.0, tokens={1: 30, 2: 10}),
            Bin(at_s=BIN_MS / 1000, tokens={2: 20}),
        ),
        stages=(),
        events=(),
    )
    root = ET.fromstring(svg("x", [panel]))  # noqa: S314  it is our own
    bars = [e.attrib for e in root.iter(f"{SVG}rect") if e.get("width") not in {"12", "1180"}]
    heights = [float(bar["height"]) for bar in bars]
    assert heights[0] == 3 * heights[1]
    assert heights[2] == 2 * heights[1]
    assert float(bars[1]["y"]) + heights[1] == pytest.approx(float(bars[0]["y"]))
    assert float(bars[0]["y"]) + heights[0] == float(bars[2]["y"]) + heights[2]
    assert bars[0]["fill"] != bars[1]["fill"] == bars[2]["fill"]


def test_an_act_without_a_token_is_drawn_all_the_same() -> None:
    empty = Panel(
        name="one",
        title="Nothing came",
        length_s=0.0,
        versions=(),
        bins=(),
        stages=(Mark(at_s=9.0, words="publish"),),
        events=(),
    )
    assert "Nothing came" in words_of(svg("x", [empty]))
    assert msgspec.json.decode(msgspec.json.encode(empty), type=Panel) == empty
