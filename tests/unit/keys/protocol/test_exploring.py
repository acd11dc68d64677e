"""The explorer itself: it goes everywhere once, by the shortest way, and says what it met."""

from collections.abc import Iterator
from typing import NamedTuple

import pytest

from unit.keys.protocol.exploring import Step, Violated, explore


class Point(NamedTuple):
    x: int
    y: int


class Grid:
    """Steps of one or two along either side of a square; ``forbidden`` must not be met."""

    def __init__(self, side: int, forbidden: Point | None = None) -> None:
        self.side = side
        self.forbidden = forbidden

    def first(self) -> Point:
        return Point(0, 0)

    def steps(self, state: Point) -> Iterator[Step[Point]]:
        for far in (1, 2):
            for after in (Point(state.x + far, state.y), Point(state.x, state.y + far)):
                if max(after) < self.side:
                    yield Step(f"by {far}", f"go by {far}", after)

    def broken(self, state: Point) -> str:
        return "here it must not come" if state == self.forbidden else ""

    def canonical(self, state: Point) -> Point:
        return state


def test_it_goes_everywhere_once() -> None:
    explored = explore(Grid(7))
    assert (explored.states, explored.depth) == (49, 6)
    assert explored.steps == explored.kinds["by 1"] + explored.kinds["by 2"] == 2 * 42 + 2 * 35
    assert str(explored) == "49 states, 154 steps, 6 deep: by 1 84, by 2 70"


def test_the_way_it_shows_is_the_shortest() -> None:
    with pytest.raises(Violated) as found:
        explore(Grid(7, Point(4, 1)))
    assert found.value.what == "here it must not come"
    lines = found.value.trace.splitlines()
    assert len(lines) == 1 + 3
    assert lines[0] == "  0. everything begins"
    assert "-> 4" in found.value.trace
    assert "y 0 -> 1" in found.value.trace


def test_a_model_without_an_end_is_given_up() -> None:
    with pytest.raises(OverflowError, match="more than 10 states"):
        explore(Grid(100), most=10)
