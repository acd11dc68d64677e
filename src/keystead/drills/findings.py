"""What a drill found: checks, each with what was expected and met."""

from __future__ import annotations

import msgspec

__all__ = ["Check", "check"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a drill holds the node to. ``act``: the part of the drill, or ``all``."""

    act: str
    what: str
    expected: str
    met: str
    held: bool


def check(act: str, what: str, expected: str, met: str, *, held: bool) -> Check:
    """A check, in the order in which it is read."""
    return Check(act=act, what=what, expected=expected, met=met, held=held)
