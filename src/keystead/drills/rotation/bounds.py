"""How many of so many contexts may fall to the new version, if its share is what it should be."""

from __future__ import annotations

from math import comb

from keystead.keys.rollout.plan import WHOLE_PPM

__all__ = ["RARE", "share_bounds"]

RARE = 1e-6
"""A drill on a node that does as it should fails by chance less often than that, each way."""


def share_bounds(count: int, share_ppm: int) -> tuple[int, int]:
    """The fewest and most of ``count`` contexts that are not too rare: exact binomial tails."""
    share = share_ppm / WHOLE_PPM
    odds = [comb(count, n) * share**n * (1 - share) ** (count - n) for n in range(count + 1)]
    return _first(odds), count - _first(odds[::-1])


def _first(odds: list[float]) -> int:
    """The first count at which the tail below and with it is no longer too rare."""
    tail = 0.0
    for count, chance in enumerate(odds):
        tail += chance
        if tail > RARE:
            return count
    return len(odds) - 1
