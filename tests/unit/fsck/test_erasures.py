"""What is forgotten against what is named as forgotten."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from keystead.fsck.erasures import merged, without

RUNS = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 9)).map(lambda run: (run[0], run[0] + run[1]))
)


def members(runs: list[tuple[int, int]]) -> set[int]:
    return {seq for first, last in runs for seq in range(first, last + 1)}


@given(RUNS, RUNS)
def test_runs_are_sets(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> None:
    one, two = merged(some), merged(others)
    assert members(one) == members(some)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(one))
    left = without(one, two)
    assert members(left) == members(some) - members(others)
    assert merged(left) == left
