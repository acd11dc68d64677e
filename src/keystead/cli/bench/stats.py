"""Medians, and how sure they are: pure functions over the figures of rounds.

The interval of a median is made of order statistics: it assumes nothing of how the figures are
distributed, and says honestly when there are too few of them (W. J. Conover, Practical
Nonparametric Statistics, 3rd ed., section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import median

import msgspec

__all__ = ["Spread", "paired", "percentile", "spread"]

_CONFIDENCE = 0.95


class Spread(msgspec.Struct, frozen=True, kw_only=True):
    """A median of ``count`` figures, and the interval that holds the true one.

    ``confidence``: how surely, from 0 to 1. With fewer than six figures even the least and the
    greatest of them do not reach 0.95.
    """

    median: float
    low: float
    high: float
    confidence: float
    count: int


def spread(values: Sequence[float]) -> Spread:
    """Median and interval, the narrowest pair of order statistics that reaches 95 %.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("expected at least one value")
    ordered = sorted(values)
    count = len(ordered)
    rank = 0  # from either end
    while rank + 1 < (count + 1) // 2 and _coverage(count, rank + 1) >= _CONFIDENCE:
        rank += 1
    return Spread(
        median=median(ordered),
        low=ordered[rank],
        high=ordered[count - 1 - rank],
        confidence=_coverage(count, rank),
        count=count,
    )


def _coverage(count: int, rank: int) -> float:
    """How surely the median lies between the values of these ranks from below and from above."""
    outside = sum(math.comb(count, below) for below in range(rank + 1))
    return max(0.0, 1.0 - outside / math.ldexp(1.0, count - 1))


def paired(over: Mapping[int, float], under: Mapping[int, float]) -> list[float]:
    """The ratio in each round that has both; a round that measured nothing below gives none."""
    return [over[each] / under[each] for each in sorted(over) if under.get(each)]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The nearest-rank percentile of values in order; 0 if there are none.

    Raises:
        ValueError: a share that is not from 0 to 1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share from 0 to 1, met {share}")
    if not ordered:
        return 0.0
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
