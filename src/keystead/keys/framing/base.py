"""What every framing gives: the exact bytes that a key signs, and what comes of the signatures.

The vault builds these bytes from facts, or parses them; it signs no caller's bare digest, except
under a key created as ``prehashed``. A framing is pure: it sees a :class:`Scene`, draws nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from keystead.keys.algorithms import ALGORITHMS, Algorithm
from keystead.keys.model import Key, Version

__all__ = ["CounterStep", "Facts", "Framed", "Framing", "Result", "Scene"]


class Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of what a caller says about one use; each framing has its own."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """Base of what a caller gets back; byte strings travel as standard base64 in JSON."""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """All a framing may look at besides the facts.

    ``now_ms``: the vault's clock, read once for the use. ``random``: 32 fresh bytes for serial
    numbers and nonces. ``counter``: the last durable state of the counter that
    :attr:`Framing.counter_name` names, or ``None`` if it has none yet.
    """

    key: Key
    version: Version
    context: str
    now_ms: int
    random: bytes
    counter: bytes | None = None

    @property
    def algorithm(self) -> Algorithm:
        """The row of the version's algorithm."""
        return ALGORITHMS[self.version.algorithm]


class CounterStep(msgspec.Struct, frozen=True):
    """A durable counter's compare-and-set, carried out in the commit of the use's record."""

    name: str
    old: bytes | None
    new: bytes


class Framed(msgspec.Struct, frozen=True, kw_only=True):
    """One use, framed.

    ``message``: what each component of the version signs (a digest if ``prehashed``). ``finish``:
    takes one raw signature a component, in their order, and gives the result. Raw means: ECDSA as
    DER ECDSA-Sig-Value (RFC 3279), RSA, Ed25519 and ML-DSA as their octet strings.
    """

    message: bytes
    finish: Callable[[tuple[bytes, ...]], Result]
    step: CounterStep | None = None
    prehashed: bool = False


def _no_counter(_facts: Facts) -> None:
    return None


class Framing(msgspec.Struct, frozen=True, kw_only=True):
    """One signing operation of one purpose.

    ``counter_name`` gives the durable counter that a use reads and steps, or ``None``; it sees only
    the facts, and is called before ``frame``.
    """

    facts: type[Facts]
    result: type[Result]
    frame: Callable[[Any, Scene], Framed]
    counter_name: Callable[[Any], str | None] = _no_counter
