"""How many uses may be open at a time: a limit that follows the vault's queue delay (I11).

The delay is measured, not guessed: of the uses that go to the vault some are timed. As in CoDel
(RFC 8289 section 4), the least delay of a window counts, because a queue that never empties delays
even the luckiest. Above the target the limit shrinks by a tenth; below it, if it was reached, it
grows by a twentieth: fast enough to find a load's place in a second, and never off it by much.
"""

from __future__ import annotations

from keystead import limits

__all__ = ["ConcurrencyLimit"]

_WINDOW_S = 0.2
_DELAY_FLOOR_FACTOR = 4.0
_FLOOR_FORGETS = 1.02
_SHRINK = 0.9
_GROW_SHARE = 0.05


class ConcurrencyLimit:
    """Pure: told of delays and of how many uses were open, it says how many may be.

    The target is ``limits.QUEUE_DELAY_TARGET_S``, or four times the delay without a queue where a
    slow disk makes that the longer. Without a queue means: fewer are open than may be, or so few
    may be that they cannot be the cause. Only then is a longer delay learnt: were it learnt in a
    flood, the flood would open the limit.
    """

    def __init__(
        self,
        *,
        least: int = limits.FRONT_IN_FLIGHT_MIN,
        most: int = limits.FRONT_IN_FLIGHT_MAX,
        target_s: float = limits.QUEUE_DELAY_TARGET_S,
    ) -> None:
        self._least = min(least, most)
        self._most = most
        self._target_s = target_s
        self._limit = float(most)
        self._floor_s = target_s / _DELAY_FLOOR_FACTOR
        self._delay_s: float | None = None
        self._until_s: float | None = None
        self._peak = 0

    @property
    def limit(self) -> int:
        """Uses that may be open now."""
        return int(self._limit)

    @property
    def target_s(self) -> float:
        """The delay above which the limit shrinks."""
        return max(self._target_s, _DELAY_FLOOR_FACTOR * self._floor_s)

    def opened(self, count: int) -> None:
        """So many uses are open now: a limit that is not reached need not grow."""
        self._peak = max(self._peak, count)

    def timed(self, delay_s: float, now_s: float) -> None:
        """One use took so long to the vault and back; at the end of a window the limit moves."""
        self._delay_s = delay_s if self._delay_s is None else min(self._delay_s, delay_s)
        if self._until_s is None:
            self._until_s = now_s + _WINDOW_S
        if now_s < self._until_s:
            return
        least_s = self._delay_s
        if self.limit <= self._least:
            self._floor_s = least_s
        else:
            unqueued = self._peak < self.limit
            self._floor_s = min(self._floor_s * (_FLOOR_FORGETS if unqueued else 1.0), least_s)
        if least_s > self.target_s:
            # From what was open, not from a limit that nobody came near.
            self._limit = max(float(self._least), min(self._limit, self._peak) * _SHRINK)
        elif self._peak >= self.limit:
            grown = self._limit + max(1.0, self._limit * _GROW_SHARE)
            self._limit = min(float(self._most), grown)
        self._delay_s, self._peak = None, 0
        self._until_s = now_s + _WINDOW_S
