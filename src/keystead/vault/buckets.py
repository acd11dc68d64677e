"""Token buckets on this node: of `rate` caveats, one a link of a chain, and of tenants."""

from __future__ import annotations

from collections import OrderedDict

from keystead import limits
from keystead.errors import LimitExceeded
from keystead.keys.caveats import Rate

__all__ = ["RateBuckets"]


class RateBuckets:
    """Each bucket holds ``count`` tokens and refills evenly within ``per_s`` seconds."""

    def __init__(self) -> None:
        self._levels: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def take(
        self, rates: tuple[tuple[str, Rate], ...], now_ms: int, *, whose: str = "the handle"
    ) -> None:
        """One token from every bucket, or none from any.

        Raises:
            LimitExceeded: a bucket is empty; says when it has a token again.
        """
        levels: list[tuple[str, float]] = []
        for link, rate in rates:
            level, at_ms = self._levels.get(link, (float(rate.count), now_ms))
            per_ms = rate.count / (rate.per_s * 1000)
            level = min(float(rate.count), level + max(0, now_ms - at_ms) * per_ms)
            if level < 1:
                raise LimitExceeded(
                    f"{whose} allows {rate.count} uses in {rate.per_s} s",
                    retry_after_s=round((1 - level) / per_ms / 1000, 3),
                )
            levels.append((link, level - 1))
        for link, level in levels:
            self._levels[link] = (level, now_ms)
            self._levels.move_to_end(link)
        while len(self._levels) > limits.RATE_BUCKETS_MAX:
            self._levels.popitem(last=False)

    def give_back(self, link: str) -> None:
        """Put back one token that was taken just now for what was then refused."""
        level, at_ms = self._levels[link]
        self._levels[link] = (level + 1, at_ms)
