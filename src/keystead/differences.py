"""Typed differences between two policies of any kind: what changed, which way, and why it matters.

Keys' policies, plans of rollouts, budgets and TLS policies are all compared into these.
"""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Difference", "Direction", "is_weaker", "worst"]

Direction = Literal["weaker", "stronger", "neutral", "compatibility", "incomparable"]

_ORDER: tuple[Direction, ...] = (
    "weaker",
    "incomparable",
    "compatibility",
    "stronger",
    "neutral",
)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One changed item.

    ``path``: dotted, as in the policy's file. ``source``: where the rule is from. ``before``
    and ``after``: as a person would write them; empty: it was, or is, not there.
    """

    path: str
    before: str
    after: str
    direction: Direction
    reason: str
    source: str = ""


def is_weaker(differences: tuple[Difference, ...]) -> bool:
    """Whether any of them weakens (I7); what cannot be compared counts as weaker."""
    return any(item.direction in {"weaker", "incomparable"} for item in differences)


def worst(differences: tuple[Difference, ...]) -> Direction:
    """The direction of the whole: the most serious one among them."""
    met = {item.direction for item in differences}
    return next((direction for direction in _ORDER if direction in met), "neutral")
