"""All chance of a simulation: numbers that hang on the seed and on what they are for, and no other.

A number that is asked for under one label is the same whatever was asked before. So an operation or
a fault that is left out, to shrink a run, moves nothing else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["PPM", "Dice"]

PPM = 1_000_000
_T = TypeVar("_T")


class Dice:
    """Numbers by label. ``label``: any parts that have a stable ``str``."""

    def __init__(self, seed: int, *prefix: object) -> None:
        self._prefix = "/".join(map(str, (seed, *prefix)))

    def below(self, most: int, *label: object) -> int:
        """A number from 0 to before ``most``."""
        text = "/".join((self._prefix, *map(str, label)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") % most

    def between(self, least: int, most: int, *label: object) -> int:
        """A number from ``least`` to ``most``, both included."""
        return least + self.below(most - least + 1, *label)

    def chance(self, ppm: int, *label: object) -> bool:
        """Whether something that happens ``ppm`` times in a million happens now."""
        return self.below(PPM, *label) < ppm

    def one_of(self, items: Sequence[_T], *label: object) -> _T:
        """One of the items."""
        return items[self.below(len(items), *label)]
